//! Every format in every wrapping, and hostile ones. The files of `tests/it/golden/forms` are from other programs; its
//! `make.sh` says how.

use std::io::Write as _;
use std::sync::Arc;

use ::arrow::array::{ArrayRef, RecordBatch, StringArray};
use ::arrow::datatypes::{DataType, Field, Schema};
use ::arrow::ipc::writer::{FileWriter, StreamWriter};
use ::parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::manifest::reading::InvalidUtf8;

mod archives;
mod columns;
mod diagnoses;
mod golden_columns;
mod members;
mod pieces;
mod texts;

fn golden(name: &str) -> Vec<u8> {
    let folder = crate::testing::repository("tests/it/golden/forms");
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn reading(settings: serde_json::Value) -> Reading {
    serde_json::from_value(settings).unwrap()
}

fn read(bytes: &[u8], name: &str, reading: &Reading) -> Result<(Vec<String>, Irregular)> {
    let mut all = Vec::new();
    let mut last = 0;
    let irregular = records_of(
        bytes.to_vec().into(),
        name,
        reading,
        &mut |text, Here { read, .. }| {
            assert!(read >= last && read <= bytes.len() as u64);
            last = read;
            all.push(text.to_owned());
            Ok(())
        },
    )?;
    Ok((all, irregular))
}

fn texts(bytes: &[u8], name: &str, settings: serde_json::Value) -> Vec<String> {
    read(bytes, name, &reading(settings))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
        .0
}

/// The error as a person reads it, hint and all.
fn fault(bytes: &[u8], name: &str, settings: serde_json::Value) -> String {
    match read(bytes, name, &reading(settings)) {
        Ok((records, _)) => panic!("{name}: {} records", records.len()),
        Err(error) => {
            assert_eq!(error.kind(), crate::error::Kind::Input, "{error}");
            let hint = error.hint_text().unwrap_or_else(|| panic!("no hint: {error}"));
            format!("{error}; {hint}")
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ::zstd::encode_all(bytes, 1).unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ::bzip2::write::BzEncoder::new(Vec::new(), ::bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar header as ustar has it.
fn header(name: &str, kind: u8, size: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..124 + size.len()].copy_from_slice(size.as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    sum(&mut block);
    block
}

/// Writes the checksum of a tar header into it.
fn sum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|&byte| u32::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn tar(members: &[(&str, u8, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, kind, content) in members {
        archive.extend(header(name, *kind, &format!("{:011o}", content.len())));
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// A zip archive of members of which each is (name, method, content, stored bytes).
fn zip(members: &[(&str, u16, &[u8], &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut directory = Vec::new();
    for (name, method, content, stored) in members {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let mut common = Vec::new();
        common.extend(20u16.to_le_bytes());
        common.extend(0u16.to_le_bytes());
        common.extend(method.to_le_bytes());
        common.extend([0; 4]);
        common.extend(crc.sum().to_le_bytes());
        common.extend((stored.len() as u32).to_le_bytes());
        common.extend((content.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0; 2]);
        let at = archive.len() as u32;
        archive.extend(b"PK\x03\x04");
        archive.extend_from_slice(&common);
        archive.extend_from_slice(name.as_bytes());
        archive.extend_from_slice(stored);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend_from_slice(&common);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let (at, size, count) = (archive.len() as u32, directory.len() as u32, members.len() as u16);
    archive.extend(directory);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    archive.extend(count.to_le_bytes());
    archive.extend(count.to_le_bytes());
    archive.extend(size.to_le_bytes());
    archive.extend(at.to_le_bytes());
    archive.extend([0; 2]);
    archive
}

fn batch(texts: &[&str]) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("text", DataType::Utf8, true)]);
    let column: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap()
}

fn parquet_of(texts: &[&str]) -> Vec<u8> {
    let batch = batch(texts);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn arrow_stream(texts: &[&str]) -> Vec<u8> {
    let batch = batch(texts);
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn arrow_file(texts: &[&str]) -> Vec<u8> {
    let batch = batch(texts);
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

type Wrap = fn(&[u8]) -> Vec<u8>;

/// Each format with the same three records.
fn forms() -> Vec<(&'static str, Vec<u8>)> {
    let three = ["one", "two", "thrée"];
    vec![
        ("a.txt", "one\ntwo\r\nthrée".into()),
        (
            "a.jsonl",
            "{\"text\":\"one\"}\n{\"id\":1,\"text\":\"two\"} {\"text\":\"thr\\u00e9e\"}".into(),
        ),
        ("a.csv", "id,text\n1,one\n2,\"two\"\n3,thrée\n".into()),
        ("a.tsv", "text\tid\none\t1\ntwo\t2\nthrée\t3".into()),
        ("a.parquet", parquet_of(&three)),
        ("a.arrow", arrow_stream(&three)),
        ("b.arrow", arrow_file(&three)),
    ]
}

#[test]
fn formats_are_read_in_every_compression_and_archive() {
    let three = ["one", "two", "thrée"];
    let compressions: [(&str, Wrap); 4] = [
        ("", <[u8]>::to_vec),
        (".gz", gzip),
        (".zst", zstd),
        (".bz2", bzip2),
    ];
    for (name, content) in forms() {
        for (ending, compress) in compressions {
            let name = format!("{name}{ending}");
            let bytes = compress(&content);
            assert_eq!(texts(&bytes, &name, json!({})), three, "{name}");
            let mut deflate = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            deflate.write_all(&bytes).unwrap();
            let deflate = deflate.finish().unwrap();
            let archives = [
                ("tar", tar(&[("x/", b'5', b""), (&name, b'0', &bytes)])),
                ("zip", zip(&[("x/", 0, b"", b""), (&name, 8, &bytes, &deflate)])),
                (
                    "zip",
                    zip(&[(&name, 0, &bytes, &bytes), ("b", 93, b"", &zstd(b""))]),
                ),
            ];
            for (kind, archive) in archives {
                for (ending, compress) in compressions {
                    let outer = format!("o.{kind}{ending}");
                    assert_eq!(
                        texts(&compress(&archive), &outer, json!({})),
                        three,
                        "{outer} of {name}"
                    );
                }
            }
        }
    }
}

#[test]
fn format_is_recognised_by_bytes_unless_stated() {
    let parquet = parquet_of(&["a"]);
    assert_eq!(texts(&parquet, "data", json!({})), ["a"]);
    assert_eq!(texts(&arrow_file(&["a"]), "data.txt", json!({})), ["a"]);
    assert_eq!(texts(&gzip(b"a"), "a.txt", json!({})), ["a"]);
    assert_eq!(texts(b"a", "a.txt.gz", json!({})), ["a"]);
    let json_lines = json!({"format": {"kind": "json_lines"}});
    assert_eq!(texts(b"{\"text\":\"a\"}", "a.txt", json_lines), ["a"]);
    let text = json!({"format": {"kind": "text", "record": "file"}});
    assert_eq!(texts(b"{\n}\n", "a.json", text), ["{\n}"]);
    assert_eq!(texts(&gzip(b"a"), "a", json!({"compression": "gzip"})), ["a"]);
    // What looks like bzip2's header is text all the same.
    assert_eq!(texts(b"BZh9 is a header\n", "a", json!({})), ["BZh9 is a header"]);
    let message = fault(&zstd(b"a"), "a", json!({"compression": "gzip"}));
    assert!(
        message.contains("stated to be compressed with gzip, but its first bytes are those of zstd"),
        "{message}"
    );
    assert!(fault(b"a", "a", json!({"compression": "xz"})).contains("belong to no compression"));
    assert!(fault(b"", "a", json!({"compression": "xz"})).contains("it is empty"));
    assert!(fault(b"a", "a", json!({"members": ["*.txt"]})).contains("is not an archive"));
    assert!(fault(b"abc", "a.parquet", json!({})).contains("too few for a Parquet file"));
    assert!(fault(b"text, and more text", "a.arrow", json!({})).contains("length of its description"));
}

#[test]
fn empty_files_have_no_records_or_are_errors() {
    for name in ["a.txt", "a", "a.jsonl", "a.csv", "a.tsv"] {
        for content in [&b""[..], b"\xEF\xBB\xBF", b"\n", b"\r\n\r\n"] {
            assert_eq!(
                read(content, name, &Reading::default()).unwrap().0,
                [""; 0],
                "{name}"
            );
        }
    }
    for name in ["a.txt.gz", "a.parquet", "a.arrow", "a.zip", "a.tar", "a.tgz"] {
        assert!(
            fault(b"", name, json!({})).contains("the file is empty"),
            "{name}"
        );
    }
    assert_eq!(texts(&tar(&[]), "a.tar", json!({})), [""; 0]);
    assert_eq!(texts(&zip(&[]), "a", json!({})), [""; 0]);
    for tool in ["gzip", "bzip2", "xz", "zstd"] {
        assert_eq!(
            texts(&golden(&format!("none.{tool}")), "a", json!({})),
            [""; 0],
            "{tool}"
        );
    }
    assert_eq!(texts(&golden("none_at_all.parquet"), "a", json!({})), [""; 0]);
}

/// The texts of the golden columns.
fn forty() -> Vec<String> {
    let mut texts: Vec<String> = ["one", "two\nlines", "thrée", "one"].map(str::to_owned).into();
    texts.extend((6..40).map(|i| format!("row {i}")));
    texts
}

#[test]
fn error_of_the_callback_is_passed_on_unchanged() {
    let mut each = |_: &str, _: Here| Err(Error::environment("disk full"));
    let error = records_of(gzip(b"a").into(), "a", &Reading::default(), &mut each).unwrap_err();
    assert_eq!(error.to_string(), "disk full");
}

#[test]
fn large_members_are_copied_to_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet.zst");
    let many: Vec<String> = (0..60_000)
        .map(|i| {
            format!(
                "{i} {}",
                blake3::hash(&[i as u8, (i >> 8) as u8]).to_hex().repeat(3)
            )
        })
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let bytes = parquet_of(&many);
    assert!(bytes.len() > 8 << 20, "{}", bytes.len());
    std::fs::write(&path, zstd(&bytes)).unwrap();
    let mut count = 0;
    records(
        &TextFile::local(path),
        &Reading::default(),
        EmptyRecords::Drop,
        &mut Observed::default(),
        &Witness::default(),
        &mut |text, _| {
            assert_eq!(text, many[count]);
            count += 1;
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(count, many.len());
    let error = records(
        &TextFile::local(folder.path().to_owned()),
        &Reading::default(),
        EmptyRecords::Drop,
        &mut Observed::default(),
        &Witness::default(),
        &mut |_, _| Ok(()),
    );
    assert!(error.unwrap_err().to_string().contains("folder"));
    let missing = TextFile::local(folder.path().join("missing.txt"));
    let error = records(
        &missing,
        &Reading::default(),
        EmptyRecords::Drop,
        &mut Observed::default(),
        &Witness::default(),
        &mut |_, _| Ok(()),
    )
    .unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Input);
}
