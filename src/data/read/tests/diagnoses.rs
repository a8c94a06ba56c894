//! What is at fault with a file is named, with a way out that works.

use super::*;

/// What comes out of a file, and the warnings.
fn warned(bytes: &[u8], name: &str, settings: serde_json::Value) -> (Vec<String>, Irregular, Vec<String>) {
    let mut all = Vec::new();
    let mut observed = Observed::default();
    let mut each = |text: &str, _: Here| {
        all.push(text.to_owned());
        Ok(())
    };
    let stored = Stored::Bytes(bytes.to_vec().into());
    let irregular = records_stored(
        &stored,
        name,
        &reading(settings),
        EmptyRecords::Drop,
        &mut observed,
        &mut each,
    )
    .unwrap_or_else(|error| panic!("{name}: {error}"));
    (all, irregular, observed.warnings())
}

#[test]
fn byte_order_marks_of_joined_files_are_left_out_with_a_warning() {
    let (records, irregular, warnings) = warned("a\n\u{FEFF}b\n\u{FEFF}c\n".as_bytes(), "a.txt", json!({}));
    assert_eq!((records.join(" "), irregular.marks), ("a b c".to_owned(), 2));
    assert_eq!(
        warnings,
        ["`a.txt`: a byte order mark at the start of line 2 (concatenated files?); it is left out"]
    );
    let (records, irregular, warnings) = warned("a\u{FEFF}b\n".as_bytes(), "a.txt", json!({}));
    assert_eq!((records.join(" "), irregular.marks), ("a\u{FEFF}b".to_owned(), 0));
    assert!(
        warnings[0].contains("a byte order mark within line 1"),
        "{warnings:?}"
    );
    assert!(warned("\u{FEFF}a\n".as_bytes(), "a.txt", json!({})).2.is_empty());
    for (text, expected) in [
        (
            "{\"text\":\"a\"}\n\u{FEFF}{\"text\":\"b\"}\n",
            "record 2: a byte order mark at the start of line 2 (concatenated files?)",
        ),
        (
            "{\"text\":\"a\"}\u{FEFF}{\"text\":\"b\"}\n",
            "record 2: a byte order mark in line 1 (concatenated files?)",
        ),
    ] {
        let message = fault(text.as_bytes(), "a.jsonl", json!({}));
        assert!(message.contains(expected) && message.contains("sed"), "{message}");
    }
}

#[test]
fn json_numbers_that_are_invalid_are_skipped_outside_the_text() {
    let text = r#"{"text":"NaN \"NaN\" a","score":NaN,"x":[-Infinity,Infinity,{"y":NaN}]} {"x":-1,"text":"b","z":NaN}"#;
    assert_eq!(
        texts(text.as_bytes(), "a.jsonl", json!({})),
        ["NaN \"NaN\" a", "b"]
    );
    for (text, expected) in [
        (
            "{\"text\":\"a\"}\n{\"text\":NaN}",
            "record 2: line 2, column 11: NaN is neither JSON nor text",
        ),
        (
            "{\"text\":[\"a\",-Infinity]}",
            "-Infinity is neither JSON nor text",
        ),
        ("{\"id\":NaN,\"text\":\"a\",}", "trailing comma"),
        ("{\"id\":NaN,\"text\":5}", "invalid type: integer `5`"),
        (
            "{\"id\":nan,\"text\":\"a\"}",
            "record 1: line 1, column 8: `nan` is not JSON (Python prints it for an undefined number)",
        ),
    ] {
        let message = fault(text.as_bytes(), "a.jsonl", json!({}));
        assert!(message.contains(expected), "{text}: {message}");
    }
    let python = fault(b"{'text': 'a'}", "a.jsonl", json!({}));
    assert!(python.contains("json.dumps"), "{python}");
    let padded = fault(b"{\"text\":\"a\"}\n\0\0\0", "a.jsonl", json!({}));
    assert!(
        padded.contains("record 2: a NUL byte in line 2") && padded.contains("tr -d '\\000'"),
        "{padded}"
    );
    let commas = fault(b"{\"text\":\"a\"},\n{\"text\":\"b\"}", "a.jsonl", json!({}));
    assert!(commas.contains("jq -c '.[]'"), "{commas}");
}

#[test]
fn python_literals_in_json_are_named() {
    for (text, expected) in [
        (
            "{\"text\":\"a\"}\n{\"id\":None,\"text\":\"b\"}",
            "record 2: line 2, column 7: `None` is not JSON (Python prints it for null)",
        ),
        ("{\"text\":None}", "column 9: `None` is not JSON"),
        ("{\"text\":\"a\",\"good\":True}", "`True` is not JSON"),
        ("[False]", "`False` is not JSON"),
        ("{\"score\":-inf,\"text\":\"a\"}", "`-inf` is not JSON"),
        // What Python's `json` writes is read; the fault is the word beside it.
        (
            "{\"x\":NaN,\"y\":nan,\"text\":\"a\"}",
            "column 15: `nan` is not JSON",
        ),
        ("None", "column 1: `None` is not JSON"),
        ("{\"text\":\"a\", 'b': 1}", "key must be a string"),
        ("{\"text\": 'a'}", "expected value"),
    ] {
        let message = fault(text.as_bytes(), "a.jsonl", json!({}));
        assert!(
            message.contains(expected) && message.contains("json.dumps"),
            "{text}: {message}"
        );
    }
    let script = fault(b"{\"text\":undefined}", "a.jsonl", json!({}));
    assert!(script.contains("JSON.stringify"), "{script}");
    // A word of a text is none of a value.
    let other = fault(b"{\"text\":\"C:\\None\"}", "a.jsonl", json!({}));
    assert!(
        other.contains("invalid escape") && !other.contains("json.dumps"),
        "{other}"
    );
}

#[test]
fn line_ends_that_were_converted_twice_are_one() {
    for (unit, expected) in [
        ("line", &["a", "b", "c"][..]),
        ("paragraph", &["a\nb", "c"]),
        ("file", &["a\nb\n\nc"]),
    ] {
        let format = json!({"format": {"kind": "text", "record": unit}});
        let (records, _, warnings) = warned(b"a\r\nb\r\r\n\r\r\nc\r\r\n", "a.txt", format);
        assert_eq!(records, expected, "{unit}");
        assert_eq!(
            warnings,
            [
                "`a.txt`: 3 lines end in `\\r\\r\\n`, the first is line 2 (line ends that were converted twice?); \
                 each is read as one line end"
            ]
        );
    }
    let (records, _, warnings) = warned(b"a\r\r\n", "a.txt", json!({}));
    assert_eq!(records, ["a"]);
    assert!(warnings[0].contains("1 line ends in"), "{warnings:?}");
}

#[test]
fn text_may_begin_with_the_magic_of_another_format() {
    for text in ["PAR1 is a magic\n", "ARROW1\n", "ARROW1 -> ARROW2\n", "PAR1"] {
        assert_eq!(texts(text.as_bytes(), "a.txt", json!({})), [text.trim_end()]);
        assert_eq!(
            texts(&gzip(text.as_bytes()), "a.gz", json!({})),
            [text.trim_end()]
        );
    }
    assert_eq!(
        texts(
            b"PAR1\nx\n",
            "a.csv",
            json!({"format": {"kind": "csv", "columns": ["PAR1"]}})
        ),
        ["x"]
    );
    for texts_of in [parquet_of(&["one"]), arrow_file(&["one"]), parquet_of(&[])] {
        // By their bytes, whatever they are called.
        assert_eq!(
            texts(&texts_of, "a.txt", json!({})).len(),
            texts(&texts_of, "a.parquet", json!({})).len()
        );
    }
}

#[test]
fn git_lfs_and_annex_pointers_are_refused() {
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid \
         sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2\n\
                size 12345\n";
    let annex = b"/annex/objects/SHA256E-s12--ab.txt\n";
    for name in [
        "a.txt",
        "a.jsonl",
        "a.csv",
        "a.parquet",
        "a.arrow",
        "a.txt.gz",
        "a.tar",
        "a.zip",
        "a",
    ] {
        for settings in [json!({}), json!({"invalid_utf8": "skip"})] {
            let message = fault(lfs, name, settings.clone());
            assert!(
                message.contains("pointer of Git LFS") && message.contains("`git lfs pull`"),
                "{name}: {message}"
            );
            let message = fault(annex, name, settings);
            assert!(message.contains("`git annex get FILE`"), "{name}: {message}");
        }
        let message = fault(lfs, name, json!({"compression": "gzip"}));
        assert!(message.contains("`git lfs pull`"), "{name}: {message}");
        let message = fault(&tar(&[(name, b'0', lfs)]), "b.tar", json!({}));
        assert!(message.contains("`git lfs pull`"), "{name}: {message}");
    }
    // A text about it is a text.
    let about = "version https://git-lfs.github.com/spec/v1 is how a pointer begins\n";
    assert_eq!(texts(about.as_bytes(), "a.txt", json!({})), [about.trim_end()]);
    assert_eq!(texts(lfs, "a.txt", json!({"compression": "none"})).len(), 3);
}

#[test]
#[cfg(target_os = "linux")]
fn file_without_a_length_is_refused() {
    let read = |path: &str| {
        let mut count = 0;
        let file = TextFile::local(path.into());
        let mut each = |_: &str, _: Here| {
            count += 1;
            Ok(())
        };
        records(
            &file,
            &Reading::default(),
            EmptyRecords::Drop,
            &mut Observed::default(),
            &Witness::default(),
            &mut each,
        )
        .map(|_| count)
    };
    let error = read("/proc/self/status").unwrap_err();
    assert!(error.to_string().contains("its length is 0"), "{error}");
    assert!(error.hint_text().unwrap().contains("`cat FILE > NEW`"), "{error}");
    let empty = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(read(empty.path().to_str().unwrap()).unwrap(), 0);
}

#[test]
fn invalid_utf8_has_a_hint_by_format() {
    let columns = |bytes: &[u8]| {
        use ::arrow::array::BinaryArray;
        let field = Field::new("text", DataType::Binary, true);
        let array: ArrayRef = Arc::new(BinaryArray::from(vec![Some(bytes)]));
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    };
    #[expect(clippy::type_complexity, reason = "a table")]
    let cases: [(&str, Vec<u8>, &[&str], &[&str]); 6] = [
        (
            "a.txt",
            b"caf\xE9\n".to_vec(),
            &["`iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW`"],
            &["Excel", "open("],
        ),
        (
            "a.csv",
            b"text\ncaf\xE9\n".to_vec(),
            &["in Excel: `CSV UTF-8`", "iconv -f WINDOWS-1252"],
            &["open("],
        ),
        (
            "a.tsv",
            b"text\n\xF0\xD2\xC9\xD7\xC5\xD4\n".to_vec(),
            &["in Excel", "`file -i FILE`", "iconv -f ENCODING"],
            &["open("],
        ),
        (
            "a.jsonl",
            b"{\"text\":\"caf\xE9\"}".to_vec(),
            &["encoding=\"utf-8\"", "iconv -f WINDOWS-1252"],
            &["Excel"],
        ),
        (
            "a.arrow",
            columns(b"caf\xE9"),
            &["`value.decode(\"cp1252\")`", "name another column"],
            &["iconv", "Excel"],
        ),
        (
            "a.arrow",
            columns(b"\x80\x04\x95\0\0"),
            &["the column may not hold text at all: name another column"],
            &["iconv", "decode"],
        ),
    ];
    for (name, bytes, wanted, unwanted) in cases {
        let message = fault(&bytes, name, json!({}));
        for part in wanted.iter().chain(&["\"invalid_utf8\": \"replace\""]) {
            assert!(message.contains(part), "{name} {part}: {message}");
        }
        for part in unwanted {
            assert!(!message.contains(part), "{name} {part}: {message}");
        }
    }
}

#[test]
fn csv_header_faults_name_the_header() {
    let long = format!("\"a\" b,{}\n1,2\n", "x".repeat(2 << 20));
    for (text, settings, expected) in [
        (
            "\"text\" x,id\na,1\n",
            json!({}),
            "the header (line 1): text follows a closing quote in line 1, column 7",
        ),
        (
            "# made\n\"text\" x,id\na,1\n",
            json!({"comment": "#"}),
            "the header (line 2): text follows",
        ),
        (
            &long,
            json!({"quote": "none"}),
            "the header (line 1): the header is longer than",
        ),
        ("te\0xt,\x1B[1m\na,b\n", json!({}), "`te\\u{0}xt`, `\\u{1b}[1m`"),
    ] {
        let mut format = json!({"kind": "csv"});
        let more = settings.as_object().unwrap().clone();
        format.as_object_mut().unwrap().extend(more);
        let message = fault(text.as_bytes(), "a.csv", json!({ "format": format }));
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("row 1 "), "{message}");
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
    let nul = fault(b"te\0xt,b\na,b\n", "a.csv", json!({}));
    assert!(
        nul.contains("has NUL bytes") && nul.contains("iconv -f UTF-16"),
        "{nul}"
    );
}

#[test]
fn surrogate_halves_are_named() {
    let half = fault(br#"{"text":"a \ud83d"}"#, "a.jsonl", json!({}));
    assert!(
        half.contains("record 1 (line 1): half of a surrogate pair, \\ud83d at byte 3 of the text"),
        "{half}"
    );
    assert!(half.contains("\"invalid_utf8\": \"replace\""), "{half}");
    assert_eq!(
        texts(
            br#"{"text":"a \ud83d b"}"#,
            "a.jsonl",
            json!({"invalid_utf8": "replace"})
        ),
        ["a \u{FFFD} b"]
    );
    assert_eq!(
        texts(br#"{"x":"\ud83d","text":"a"}"#, "a.jsonl", json!({})),
        ["a"]
    );
    for (name, start) in [
        ("a.txt", &b"a"[..]),
        ("a.csv", b"text\na"),
        ("a.jsonl", b"{\"text\":\"a"),
    ] {
        let bytes = [
            start,
            b"\xED\xA0\xBD\xED\xB8\x80",
            if name == "a.jsonl" { b"\"}" } else { b"" },
        ]
        .concat();
        assert!(fault(&bytes, name, json!({})).contains("CESU-8"), "{name}");
    }
}

#[test]
fn utf16_and_utf32_are_refused_under_every_policy() {
    let wide: Vec<u8> = "text\nhello world\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for name in ["a.txt", "a.csv", "a.tsv", "a.jsonl"] {
        for policy in ["error", "replace", "skip"] {
            let message = fault(&wide, name, json!({"invalid_utf8": policy}));
            assert!(
                message.contains("looks like UTF-16LE without a byte order mark"),
                "{message}"
            );
            assert!(message.contains("iconv -f UTF-16LE -t UTF-8"), "{message}");
            let marked = [&b"\xFF\xFE"[..], &wide].concat();
            let message = fault(&marked, name, json!({"invalid_utf8": policy}));
            assert!(message.contains("the file is UTF-16, not UTF-8"), "{message}");
        }
    }
    let archive = tar(&[("a.txt", b'0', &wide)]);
    assert!(fault(&archive, "a.tar", json!({})).contains("UTF-16LE"));
    assert!(fault(&gzip(&wide), "a.txt.gz", json!({})).contains("UTF-16LE"));
    // Valid UTF-8, too, with zeros at the space and the line's end alone.
    let russian: Vec<u8> = "Привет мир\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(std::str::from_utf8(&russian).is_ok());
    assert!(fault(&russian, "a.txt", json!({})).contains("iconv -f UTF-16LE -t UTF-8"));
    assert_eq!(texts(b"a\0b", "a.txt", json!({})), ["a\0b"]);
    let binary = fault(b"\x80\x04\x95\0\0\0\0\0pickle\n", "a.txt", json!({}));
    assert!(binary.contains("NUL bytes as well"), "{binary}");
}

#[test]
fn carriage_returns_end_lines_where_nothing_else_does() {
    let (records, _, warnings) = warned(b"one\rtwo\rthree", "cr.txt", json!({}));
    assert_eq!(records, ["one", "two", "three"]);
    assert!(
        warnings[0].contains("each carriage return is read as the end of a line"),
        "{warnings:?}"
    );
    // With line feeds they are text, but a file with many of them is reported.
    let (records, _, warnings) = warned(b"one\rtwo\rthree\n", "cr.txt", json!({}));
    assert_eq!(records, ["one\rtwo\rthree"]);
    assert!(
        warnings[0].contains("2 carriage returns stand within 1 line, the first in line 1"),
        "{warnings:?}"
    );
    // A few are counted as other control characters are.
    for (text, records, expected) in [
        (
            &b"one\r\ntwo\rthree\r\n"[..],
            &["one", "two\rthree"][..],
            "1 carriage return stands within a line, the first in line 2; it stays",
        ),
        (
            b"a\rb\nc\nd\re\r\n",
            &["a\rb", "c", "d\re"],
            "2 carriage returns stand within lines, the first in line 1; they stay",
        ),
    ] {
        let (found, _, warnings) = warned(text, "a.txt", json!({}));
        assert_eq!(found, records);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains(expected), "{warnings:?}");
    }
    for text in [&b"a\r\nb\r\n"[..], b"a\r\r\n\r\n", b"a\r", b"a\n"] {
        let (_, _, warnings) = warned(text, "a.txt", json!({}));
        let within = warnings.iter().any(|warning| warning.contains("within"));
        assert!(!within, "{text:?}: {warnings:?}");
    }
    for text in [&b"a\r\nb\r\n"[..], b"a\r", b"a\n"] {
        assert!(warned(text, "a.txt", json!({})).2.is_empty(), "{text:?}");
    }
    // However long the file is.
    let long = "0123456789\r".repeat(1000);
    let (records, ..) = warned(long.as_bytes(), "a.txt", json!({"longest_record": 100}));
    assert_eq!(records.len(), 1000);
    assert!(records.iter().all(|record| record == "0123456789"));
    assert!(fault(&[b'x'; 1000], "a.txt", json!({"longest_record": 100})).contains("longer than 100 bytes"));
}

#[test]
fn control_characters_in_text_are_counted_in_a_warning() {
    let (records, _, warnings) = warned(b"one\ntw\0o\nthree\x04\n", "a.txt", json!({}));
    assert_eq!(records, ["one", "tw\0o", "three\x04"]);
    assert_eq!(
        warnings,
        [
            "`a.txt`: 2 control characters (NUL or another below U+0020) stand in the text, the first in line 2; \
             they stay"
        ]
    );
    let (_, _, warnings) = warned(b"one \x1B\n", "a.txt", json!({}));
    assert!(warnings[0].contains("1 control character (NUL"), "{warnings:?}");
    for text in [&b"a\tb\r\n"[..], b"page\n\x0Cpage\n"] {
        assert!(warned(text, "a.txt", json!({})).2.is_empty(), "{text:?}");
    }
}

#[test]
fn unread_formats_are_named() {
    use std::io::Write as _;
    let text = (0..50)
        .map(|i| format!("line {i} of a text\n"))
        .collect::<Vec<_>>()
        .concat();
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    lz4.write_all(text.as_bytes()).unwrap();
    let lz4 = lz4.finish().unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    zlib.write_all(text.as_bytes()).unwrap();
    let zlib = zlib.finish().unwrap();
    let cases: [(&str, &[u8], &str, &str); 6] = [
        ("a.txt.lz4", &lz4, "mdlm does not read LZ4", "lz4 -d"),
        ("a.txt", &lz4, "mdlm does not read LZ4", "lz4 -d"),
        ("a.txt.z", &zlib, "mdlm does not read zlib", "zlib.decompress"),
        (
            "a.txt.br",
            b"\x0b\x18\x80\xFFtext\x03",
            "mdlm does not read brotli",
            "brotli -d",
        ),
        (
            "a.txt.lzma",
            b"\x5D\0\0\x80\0\xFF\xFF\xFF\xFF",
            "mdlm does not read lzma",
            "xz --decompress",
        ),
        (
            "a.7z",
            b"7z\xBC\xAF\x27\x1C\0\x04",
            "mdlm does not read 7z",
            "7z x",
        ),
    ];
    for (name, bytes, what, way_out) in cases {
        for policy in ["error", "replace", "skip"] {
            let message = fault(bytes, name, json!({"invalid_utf8": policy}));
            assert!(
                message.contains(what) && message.contains(way_out),
                "{name}: {message}"
            );
        }
        let stated = fault(bytes, name, json!({"compression": "gzip"}));
        assert!(stated.contains("which mdlm does not read"), "{name}: {stated}");
        let member = fault(&tar(&[(name, b'0', bytes)]), "a.tar", json!({}));
        assert!(member.contains(what), "{name}: {member}");
        let as_it_is = json!({"compression": "none", "invalid_utf8": "replace", "format": {"kind": "text", "record": "file"}});
        assert_eq!(texts(bytes, name, as_it_is).len(), 1, "{name}");
    }
    // A name alone makes nothing unreadable.
    assert_eq!(texts(b"text\n", "a.txt.br", json!({})), ["text"]);
}

#[test]
fn trailing_zeros_are_padding_and_other_trailing_bytes_are_counted() {
    for tool in ["gzip", "bzip2", "xz", "zstd"] {
        let bytes = golden(&format!("two.{tool}"));
        for zeros in [1, 3, 4, 512, 100_000] {
            let padded = [&bytes[..], &vec![0; zeros]].concat();
            assert_eq!(
                texts(&padded, "a.txt", json!({})),
                ["one", "two", "three"],
                "{tool} {zeros}"
            );
            let again = [&padded[..], &bytes].concat();
            assert_eq!(
                texts(&again, "a.txt", json!({})),
                ["one", "two", "threeone", "two", "three"],
                "{tool} {zeros}"
            );
        }
        for (garbage, expected) in [
            (&b"garbage"[..], "7 bytes stand after the last member"),
            (b"\0\0x", "3 bytes stand after"),
            (b"x", "1 byte stands after"),
            (b"\x1F\x9Dold", "5 bytes stand after"),
        ] {
            let message = fault(&[&bytes[..], garbage].concat(), "a.txt", json!({}));
            assert!(
                message.contains(expected) && message.contains(tool),
                "{tool}: {message}"
            );
            let cut = format!("truncate -s -{}", garbage.len());
            assert!(
                message.contains(&cut) && !message.contains("damaged or truncated"),
                "{message}"
            );
        }
    }
}

#[test]
fn wrapped_prose_is_warned_of_once_for_all_files() {
    let paragraph = "It was the best of times, it was the worst of times, it was the age of\nwisdom, it was the age of \
                     foolishness, it was the epoch of belief, it was the\nepoch of incredulity, it was the season of \
                     Light. It was the season of\nDarkness, it was the spring of hope, it was the winter of despair, \
                     we had\neverything before us, we had nothing before us, we were all going direct to\nHeaven, we \
                     were all going direct the other way.\n\n";
    let (records, _, warnings) = warned(paragraph.repeat(3).as_bytes(), "a.txt", json!({}));
    assert_eq!((records.len(), warnings.len()), (18, 1), "{warnings:?}");
    assert!(
        warnings[0].contains("\"record\": \"paragraph\"}}`"),
        "{warnings:?}"
    );
    let paragraphs = json!({"format": {"kind": "text", "record": "paragraph"}});
    let (records, _, warnings) = warned(paragraph.repeat(3).as_bytes(), "a.txt", paragraphs);
    assert_eq!((records.len(), warnings.len()), (3, 0), "{warnings:?}");
    let archive = tar(&[
        ("a.txt", b'0', paragraph.as_bytes()),
        ("b.txt", b'0', paragraph.as_bytes()),
    ]);
    assert_eq!(warned(&archive, "a.tar", json!({})).2.len(), 1);
}
