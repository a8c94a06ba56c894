//! Parquet and Arrow files of other programs.

use super::*;

#[test]
fn columns_of_pyarrow_are_read() {
    let plain = forty();
    let lists: Vec<String> = plain.iter().map(|text| format!("{text}-x")).collect();
    let columns = [
        "text",
        "article.text",
        "lines",
        "dictionary",
        "large",
        "view",
        "large_lists",
    ];
    let mut names: Vec<String> = [
        "none",
        "snappy",
        "gzip",
        "zstd",
        "lz4",
        "version2",
        "plain",
        "delta_byte_array",
        "delta_length_byte_array",
    ]
    .map(|name| format!("{name}.parquet"))
    .into();
    for name in ["plain", "lz4", "zstd"] {
        names.extend([format!("{name}.file.arrow"), format!("{name}.stream.arrow")]);
    }
    for name in &names {
        let bytes = golden(name);
        let kind = if name.ends_with("parquet") {
            "parquet"
        } else {
            "arrow"
        };
        for column in columns
            .iter()
            .filter(|&&column| column != "view" || kind == "arrow")
        {
            let reading = reading(json!({"format": {"kind": kind, "column": column, "join": "-"}}));
            let (records, irregular) =
                read(&bytes, "x", &reading).unwrap_or_else(|error| panic!("{name} {column}: {error}"));
            let expected = if column.contains("li") { &lists } else { &plain };
            assert_eq!(&records, expected, "{name} {column}");
            assert_eq!(irregular.empty, 2, "{name} {column}");
        }
        let column = |column: &str| json!({"format": {"kind": kind, "column": column}});
        let message = fault(&bytes, name, column("txt"));
        assert!(
            message.contains("no column `txt`") && message.contains("`text`"),
            "{message}"
        );
        assert!(
            fault(&bytes, name, column("id")).contains("not strings"),
            "{name}"
        );
        assert!(fault(&bytes, name, column("article")).contains('`'), "{name}");
    }
    assert!(
        fault(&golden("brotli.parquet"), "a", json!({}))
            .contains("compressed with brotli, which mdlm does not read")
    );
    assert!(fault(&golden("feather1.feather"), "a.feather", json!({})).contains("version=2"));
}

/// Written by pyarrow with `IpcWriteOptions(metadata_version=V4)`, the second with `use_legacy_format=True` as well: the
/// messages are V4, the footer says V5.
#[test]
fn arrow_files_of_metadata_version_4_are_read() {
    for name in ["v4.file.arrow", "v4_legacy.file.arrow"] {
        let bytes = golden(name);
        for column in ["text", "dictionary"] {
            let format = json!({"format": {"kind": "arrow", "column": column}});
            assert_eq!(
                texts(&bytes, name, format),
                ["one", "two", "one"],
                "{name} {column}"
            );
        }
    }
}

#[test]
fn columns_that_are_cut_off_or_changed_are_errors() {
    for name in [
        "none.parquet",
        "snappy.parquet",
        "delta_byte_array.parquet",
        "plain.file.arrow",
        "plain.stream.arrow",
        "zstd.file.arrow",
        "v4_legacy.file.arrow",
        "lz4.stream.arrow",
    ] {
        let bytes = golden(name);
        let kind = if name.ends_with("parquet") {
            "parquet"
        } else {
            "arrow"
        };
        for end in (0..bytes.len()).step_by(97).chain(bytes.len() - 12..bytes.len()) {
            fault(&bytes[..end], name, json!({"format": {"kind": kind}}));
        }
        // A changed byte may be one of a text; it never ends in anything but records or an error.
        for at in (0..bytes.len()).step_by(13).chain(bytes.len() - 60..bytes.len()) {
            for flip in [0x01, 0x80, 0xFF] {
                let mut broken = bytes.clone();
                broken[at] ^= flip;
                for column in ["text", "lines"] {
                    let _ = read(
                        &broken,
                        name,
                        &reading(json!({"format": {"kind": kind, "column": column}})),
                    );
                }
            }
        }
    }
    // A footer that states more than the file has.
    let mut bytes = golden("none.parquet");
    let at = bytes.len() - 8;
    bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(fault(&bytes, "a", json!({})).contains("states a footer of 4294967295 bytes"));
    // A body that does.
    let mut bytes = golden("plain.stream.arrow");
    let body = 8 + i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
    bytes[body + 4..body + 8].copy_from_slice(&0x0FFF_FFFFi32.to_le_bytes());
    assert!(fault(&bytes, "a.arrow", json!({})).contains("but only"));
}
