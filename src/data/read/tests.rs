//! Every format in every wrapping, and hostile ones. The files of `tests/it/golden/forms` are from other programs; its
//! `make.sh` says how.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use ::arrow::array::{ArrayRef, RecordBatch, StringArray};
use ::arrow::datatypes::{DataType, Field, Schema};
use ::arrow::ipc::writer::{FileWriter, StreamWriter};
use ::parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::manifest::source::InvalidUtf8;

mod columns;
mod diagnoses;
mod members;

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/forms");
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
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
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
fn every_format_is_read_in_every_wrapping() {
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
fn a_form_is_recognised_by_its_bytes_and_stated_ones_win() {
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
fn nothing_is_read_from_nothing() {
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

#[test]
fn members_of_a_compressed_file_follow_each_other_and_none_may_be_cut_off() {
    for tool in ["gzip", "bzip2", "xz", "zstd"] {
        let bytes = golden(&format!("two.{tool}"));
        assert_eq!(
            texts(&bytes, "a.txt", json!({})),
            ["one", "two", "three"],
            "{tool}"
        );
        let mut whole = 0;
        for end in 1..bytes.len() {
            let cut = &bytes[..end];
            if compression::recognise(cut).is_none() {
                continue;
            }
            match read(cut, "a", &Reading::default()) {
                // The end of the first member.
                Ok((records, _)) => {
                    assert_eq!(records, ["one", "two"], "{tool} {end}");
                    whole += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains(tool), "{tool} {end}: {error}");
                    assert!(error.hint_text().is_some());
                }
            }
            if end % 7 == 0 {
                let mut broken = bytes.clone();
                broken[end] ^= 0x10;
                // Some bits mean nothing, but no text is ever wrong: all have checksums but zstd made from a pipe, whose
                // tool writes one by default.
                if let Ok((records, _)) = read(&broken, "a", &Reading::default()) {
                    assert!(
                        records == ["one", "two", "three"] || records == ["one", "two"],
                        "{tool} {end} {records:?}"
                    );
                }
            }
        }
        assert_eq!(whole, 1, "{tool}");
    }
    let message = fault(&gzip(b"some text")[..20], "a", json!({}));
    assert!(
        message.contains("the gzip data end too early") && message.contains("cut off"),
        "{message}"
    );
}

#[test]
fn archives_of_other_programs() {
    for form in ["gnu", "posix"] {
        let (records, irregular) =
            read(&golden(&format!("{form}.tar.gz")), "a", &Reading::default()).unwrap();
        assert_eq!(records, ["one", "two", "three", "four"], "{form}");
        // Two links and a sparse file.
        assert_eq!(irregular.members, 3, "{form}");
    }
    for form in ["ustar", "v7"] {
        let (records, irregular) =
            read(&golden(&format!("{form}.tar.gz")), "a", &Reading::default()).unwrap();
        assert_eq!(records, ["one", "two", "three"], "{form}");
        assert_eq!(irregular.members, 2, "{form}");
    }
    assert_eq!(
        texts(&golden("nested.tar.xz"), "a", json!({})),
        ["one", "two", "three"]
    );
    let nested = json!({"members": ["outer/part2*"]});
    assert_eq!(texts(&golden("nested.tar.xz"), "a", nested), ["three"]);
    let (records, irregular) = read(&golden("infozip.zip"), "a", &Reading::default()).unwrap();
    assert_eq!((records.len(), irregular.members), (15, 1));
    assert_eq!(records[..3], ["one", "two", "three"]);
    assert_eq!(texts(&golden("stream.zip"), "a", json!({})).len(), 14);
    // A program that unpacks itself.
    let mut program = b"#!/bin/sh\n".to_vec();
    program.extend(golden("infozip.zip"));
    let mut sink = Vec::new();
    let stored = Stored::Bytes(program.into());
    let count = ReadCount::default();
    let mut directory = zip::Directory::open(&stored, &count).unwrap();
    while let Some(entry) = directory.next().unwrap() {
        let meter = Meter::new(&count, stored.len(), 1000, 1 << 20);
        let mut content = entry.open(&stored, &count, meter).unwrap();
        sink.clear();
        content.read_to_end(&mut sink).unwrap();
    }
    assert_eq!(sink, b"a.txt");
}

#[test]
fn members_are_chosen_by_globs_in_the_archives_order() {
    let tar = tar(&[
        ("./z.txt", b'0', b"z"),
        ("d/a.txt", b'0', b"a"),
        ("d/e/b.txt", b'0', b"b"),
        ("README", b'0', b"r"),
    ]);
    let zip = zip(&[
        ("z.txt", 0, b"z", b"z"),
        ("d/a.txt", 0, b"a", b"a"),
        ("d/e/b.txt", 0, b"b", b"b"),
        ("README", 0, b"r", b"r"),
    ]);
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["z", "a", "b", "r"]),
        (&["*.txt"], &["z"]),
        (&["**/*.txt"], &["z", "a", "b"]),
        (&["d/*"], &["a"]),
        (&["d/**/*"], &["a", "b"]),
        (&["README", "z.txt"], &["z", "r"]),
    ];
    for (globs, expected) in cases {
        for archive in [&tar, &zip] {
            assert_eq!(
                texts(archive, "a", json!({"members": globs})),
                *expected,
                "{globs:?}"
            );
        }
    }
    for archive in [&tar, &zip] {
        let message = fault(archive, "a", json!({"members": ["*.csv"]}));
        assert!(
            message.contains("no member") && message.contains("`d/a.txt`"),
            "{message}"
        );
    }
    assert!(fault(&tar, "a", json!({"members": ["a**"]})).contains("malformed"));
    let error = read(&tar, "a.tar", &reading(json!({"format": {"kind": "parquet"}}))).unwrap_err();
    assert!(
        error.to_string().starts_with("read `a.tar`: member `./z.txt`: "),
        "{error}"
    );
}

/// What a glob passes over in a folder is passed over in an archive, also in one within another.
#[test]
fn hidden_members_and_system_files_are_passed_over() {
    let members = [
        "a.txt",
        ".DS_Store",
        "__MACOSX/._a.txt",
        "d/._b.txt",
        "d/b.txt",
        "d/_SUCCESS",
        ".git/c",
    ];
    let tar_of = |names: &[&'static str]| {
        tar(&names
            .iter()
            .map(|name| (*name, b'0', name.as_bytes()))
            .collect::<Vec<_>>())
    };
    let zip_of = |names: &[&'static str]| {
        zip(&names
            .iter()
            .map(|name| (*name, 0, name.as_bytes(), name.as_bytes()))
            .collect::<Vec<_>>())
    };
    let inner = zip_of(&members);
    let nested = tar(&[("x.zip", b'0', &inner), ("._x.zip", b'0', b"\0\x05\x16\x07\xff")]);
    for (archive, system) in [
        (tar_of(&members), 4),
        (zip_of(&members), 4),
        (gzip(&tar_of(&members)), 4),
        (nested, 5),
    ] {
        let (records, irregular) = read(&archive, "a", &Reading::default()).unwrap();
        assert_eq!(records, ["a.txt", "d/b.txt"]);
        assert_eq!((irregular.hidden, irregular.system), (1, system));
    }
    for archive in [tar_of(&members), zip_of(&members)] {
        let named = json!({"members": [".git/*", "d/_SUCCESS", "d/._*", "*"]});
        assert_eq!(
            texts(&archive, "a", named),
            ["a.txt", "d/._b.txt", "d/_SUCCESS", ".git/c"]
        );
        let message = fault(&archive, "a", json!({"members": ["*Store"]}));
        assert!(
            message.contains("skipped unless a pattern names them"),
            "{message}"
        );
    }
}

#[test]
fn hostile_tars() {
    for name in ["../a", "/etc/passwd", "a/../../b", "..", "C:\\x", "a\\..\\b"] {
        let message = fault(&tar(&[(name, b'0', b"x")]), "a", json!({}));
        assert!(message.contains("leads out of the archive"), "{message}");
        // As a link it is passed over.
        let (records, irregular) = read(&tar(&[(name, b'2', b"")]), "a.tar", &Reading::default()).unwrap();
        assert_eq!((records.len(), irregular.members), (0, 1));
    }
    for kind in [b'1', b'2', b'3', b'4', b'6', b'S', b'Z'] {
        let archive = tar(&[("a", kind, b"x"), ("b", b'0', b"y")]);
        assert_eq!(texts(&archive, "a.tar", json!({})), ["y"], "{}", kind as char);
    }
    let whole = tar(&[("a.txt", b'0', &[b'x'; 600]), ("b.txt", b'0', b"y")]);
    for end in [600, 1000, 1300, 1536, 1540, 2048, 2560] {
        let message = fault(&whole[..end], "a.tar", json!({}));
        assert!(message.contains("tar archive ends"), "{end}: {message}");
    }
    let mut broken = whole.clone();
    broken[3] = b'?';
    assert!(fault(&broken, "a", json!({})).contains("its checksum is wrong"));
    // Sizes and names that lie.
    let mut lying = header("a.txt", b'0', "77777777777");
    lying.extend([b'x'; 2048]);
    assert!(fault(&lying, "a", json!({})).contains("before the end of a member"));
    let mut lying = header("a.txt", b'L', "77777777777");
    lying.extend([b'x'; 2048]);
    assert!(fault(&lying, "a", json!({})).contains("a name or attributes of"));
    for pax in [
        "99999 path=x\n",
        "8 path=x",
        "x path=y\n",
        "0 \n",
        "5 pat\n",
        "19 size=9999999999999999999999\n",
    ] {
        let message = fault(
            &tar(&[("h", b'x', pax.as_bytes()), ("a", b'0', b"x")]),
            "a",
            json!({}),
        );
        assert!(message.contains("pax header"), "{message}");
    }
    let renamed = tar(&[("h", b'x', b"14 path=../a\n"), ("a", b'0', b"x")]);
    assert!(
        fault(&renamed, "a", json!({})).contains("`../a`") || fault(&renamed, "a", json!({})).contains("pax")
    );
}

#[test]
fn hostile_zips() {
    let whole = zip(&[("a.txt", 0, b"one", b"one"), ("b.txt", 0, b"two", b"two")]);
    assert_eq!(texts(&whole, "a", json!({})), ["one", "two"]);
    for end in 4..whole.len() {
        fault(&whole[..end], "a", json!({}));
    }
    for at in 0..whole.len() {
        for flip in [1, 0x80, 0xFF] {
            let mut broken = whole.clone();
            broken[at] ^= flip;
            if let Ok((records, _)) = read(&broken, "a.zip", &Reading::default()) {
                assert!(
                    records.iter().all(|record| record == "one" || record == "two") || at < 4,
                    "byte {at}: {records:?}"
                );
            }
        }
    }
    for name in ["../a", "/a", "a\\..\\..\\b"] {
        assert!(fault(&zip(&[(name, 0, b"", b"")]), "a", json!({})).contains("leads out of the archive"));
    }
    let message = fault(&zip(&[("a", 0, b"more", b"less!")]), "a", json!({}));
    assert!(
        message.contains("member `a`: its content does not have the 4 bytes"),
        "{message}"
    );
    assert!(fault(&zip(&[("a", 0, b"text", b"tixt")]), "a", json!({})).contains("CRC-32"));
    assert!(fault(&zip(&[("a", 97, b"text", b"text")]), "a", json!({})).contains("with method 97, which"));
    assert!(fault(&zip(&[("a", 9, b"text", b"text")]), "a", json!({})).contains("with Deflate64, method 9"));
    // What stands behind an archive, or before it, is no part of it; two archives are no archive.
    let followed = [&whole[..], b"more"].concat();
    let message = fault(&followed, "a", json!({}));
    assert!(
        message.contains("4 bytes follow")
            && message.contains(&format!("`truncate -s {} FILE`", whole.len())),
        "{message}"
    );
    let joined = [&whole[..], &whole].concat();
    assert!(fault(&joined, "a", json!({})).contains("archives were joined"));
    let mut encrypted = zip(&[("a", 0, b"text", b"text")]);
    let entry = memchr::memmem::find(&encrypted, b"PK\x01\x02").unwrap();
    encrypted[entry + 8] |= 1;
    assert!(fault(&encrypted, "a", json!({})).contains("encrypted"));
    // More members than there can be.
    let mut many = whole.clone();
    let end = many.len() - 22;
    many[end + 8..end + 12].fill(0xFE);
    assert!(fault(&many, "a", json!({})).contains("65278 members"));
}

#[test]
fn members_of_one_name_are_read_all() {
    let same = zip(&[("a.txt", 0, b"one", b"one"), ("a.txt", 0, b"two", b"two")]);
    assert_eq!(texts(&same, "a", json!({})), ["one", "two"]);
}

#[test]
fn bombs_are_told() {
    let zeros = vec![b' '; 8 << 20];
    let lines: Vec<u8> = zeros
        .iter()
        .enumerate()
        .map(|(i, _)| if i % 64 == 0 { b'\n' } else { b'a' })
        .collect();
    for (name, bytes) in [
        ("gzip", gzip(&lines)),
        ("zstd", zstd(&lines)),
        ("bzip2", bzip2(&lines)),
    ] {
        let settings = json!({"largest_ratio": 10});
        let message = fault(&bytes, "a.txt", settings);
        assert!(
            message.contains("more than 10 times as many") && message.contains("largest_ratio"),
            "{name}: {message}"
        );
    }
    assert_eq!(
        texts(&zstd(&lines), "a", json!({"largest_ratio": 100_000})).len(),
        (8 << 20) / 64
    );
    // The ratio counts for all members together, and for layers within each other.
    let member = zstd(&lines[..1 << 20]);
    let many: Vec<_> = (0..8).map(|_| ("a", b'0', &member[..])).collect();
    assert!(fault(&zstd(&tar(&many)), "a", json!({"largest_ratio": 10})).contains("times as many"));
    // A zip whose members are the same bytes.
    let one = zip(&[("a.txt", 93, &lines[..1 << 20], &member)]);
    let start = memchr::memmem::rfind(&one, b"PK\x01\x02").unwrap();
    let end = one.len() - 22;
    let mut same = one[..start].to_vec();
    (0..50).for_each(|_| same.extend_from_slice(&one[start..end]));
    let mut trailer = one[end..].to_vec();
    trailer[8..12].copy_from_slice(&[50, 0, 50, 0]);
    trailer[12..16].copy_from_slice(&((50 * (end - start)) as u32).to_le_bytes());
    same.extend(trailer);
    assert!(fault(&same, "a", json!({"largest_ratio": 1000})).contains("more than 1000 times"));
    let mut nested = b"x".to_vec();
    for _ in 0..7 {
        nested = gzip(&nested);
    }
    assert!(fault(&nested, "a", json!({})).contains("within each other"));
    // A dictionary repeats a string of 100,000 bytes.
    let long = "long ".repeat(20_000);
    let many = vec![&long[..]; 1000];
    let bytes = parquet_of(&many);
    assert!(bytes.len() < 200_000);
    assert!(fault(&bytes, "a", json!({"largest_ratio": 100})).contains("more than 100 times"));
}

/// A zstd frame of one stored block that asks for a window of that binary logarithm (RFC 8878, 3.1.1.1.2).
fn zstd_frame(window: u8, text: &[u8]) -> Vec<u8> {
    let block = (text.len() as u32) << 3 | 1;
    let head = [0x28, 0xB5, 0x2F, 0xFD, 0, (window - 10) << 3];
    [&head, &block.to_le_bytes()[..3], text].concat()
}

#[test]
fn decoders_hold_no_more_than_stated() {
    let numbers: Vec<String> = (0..200_000).map(|number: u32| number.to_string()).collect();
    let long = numbers.join(" ");
    let arrow = {
        let batch = batch(&[&long]);
        let options = ::arrow::ipc::writer::IpcWriteOptions::default()
            .try_with_compression(Some(::arrow::ipc::CompressionType::ZSTD))
            .unwrap();
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    };
    let cases = [
        (
            "a.txt.zst",
            zstd_frame(21, b"one\n"),
            "the window of the zstd data",
        ),
        ("a.txt.xz", golden("two.xz"), "the dictionary of the xz data"),
        ("a.parquet", parquet_of(&[&long]), "page 1"),
        ("a.arrow", arrow, "batch 1"),
    ];
    for (name, bytes, what) in cases {
        assert!(!texts(&bytes, name, json!({})).is_empty(), "{name}");
        let message = fault(&bytes, name, json!({"largest_buffer": 1 << 20}));
        assert!(
            message.contains(what)
                && message.contains("takes more than 1 MiB")
                && message.contains("raise `largest_buffer`"),
            "{name}: {message}"
        );
    }
    // As the command `zstd` does: `--long=27` is granted, more has to be asked for.
    assert_eq!(texts(&zstd_frame(27, b"one\n"), "a", json!({})), ["one"]);
    let wide = zstd_frame(28, b"one\n");
    assert!(fault(&wide, "a", json!({})).contains("takes more than 128 MiB"));
    assert_eq!(texts(&wide, "a", json!({"largest_buffer": 1 << 28})), ["one"]);
}

#[test]
fn records_are_no_longer_than_stated() {
    let long = "x".repeat(2000);
    let three = ["a", &long, "b"];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a.txt", three.join("\n").into()),
        (
            "a.jsonl",
            format!("{{\"text\":\"a\"}}\n{{\"text\":\"{long}\"}}").into(),
        ),
        (
            "b.jsonl",
            format!("\n{{\"text\":\"a\",\"x\":\n\"{long}\"}}").into(),
        ),
        ("a.csv", format!("text,b\na,b\n\"{long}\",c\n").into()),
        ("a.parquet", parquet_of(&three)),
        ("a.arrow", arrow_stream(&three)),
    ];
    for (name, bytes) in cases {
        assert!(read(&bytes, name, &Reading::default()).is_ok());
        let message = fault(&bytes, name, json!({"longest_record": 1000}));
        assert!(
            message.contains("longer than 1000 bytes") && message.contains("longest_record"),
            "{name}: {message}"
        );
        assert!(message.contains('2') || name == "b.jsonl", "no place: {message}");
    }
    // A value that is not part of the text may have any length.
    let csv = format!("id,text\n{long},one\n");
    assert_eq!(
        texts(csv.as_bytes(), "a.csv", json!({"longest_record": 1000})),
        ["one"]
    );
    for unit in ["paragraph", "file"] {
        let settings = json!({"longest_record": 10, "format": {"kind": "text", "record": unit}});
        assert!(fault(b"12345\n67890\n", "a", settings).contains("line 2"));
    }
    assert_eq!(
        texts(b"\xEF\xBB\xBF1234567890\r\n", "a", json!({"longest_record": 10})),
        ["1234567890"]
    );
}

#[test]
fn invalid_utf8_is_an_error_or_replaced_or_skipped() {
    let bad: &[u8] = b"tw\xFFo";
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a.txt", [b"one\n", bad, b"\nthree"].concat()),
        (
            "a.jsonl",
            [
                &b"{\"text\":\"one\"}{\"text\":\""[..],
                bad,
                b"\"}{\"\xFE\":\"\xFE\",\"text\":\"three\"}",
            ]
            .concat(),
        ),
        (
            "b.jsonl",
            b"{\"text\":\"one\"}{\"text\":\"\\ud800\"}{\"text\":\"three\"}".to_vec(),
        ),
        ("a.csv", [b"text,b\none,\xFE\n", bad, b",\nthree,"].concat()),
    ];
    for (name, bytes) in cases {
        let error = read(&bytes, name, &Reading::default()).unwrap_err().to_string();
        let words = if name == "b.jsonl" {
            "half of a surrogate pair, \\ud800"
        } else {
            "invalid UTF-8 (0x"
        };
        assert!(error.contains(words), "{name}: {error}");
        assert!(
            error.contains("line 2")
                || error.contains("record 2 (line 1)")
                || error.contains("row 2 (line 3)"),
            "{error}"
        );
        let policy = |policy| Reading {
            invalid_utf8: policy,
            ..Reading::default()
        };
        let (records, irregular) = read(&bytes, name, &policy(InvalidUtf8::Skip)).unwrap();
        assert_eq!(
            (records, irregular.skipped),
            (vec!["one".to_owned(), "three".into()], 1),
            "{name}"
        );
        let (records, irregular) = read(&bytes, name, &policy(InvalidUtf8::Replace)).unwrap();
        assert_eq!((records.len(), irregular.replaced), (3, 1), "{name}");
        assert!(records[1].contains('\u{FFFD}'));
    }
    for unit in ["paragraph", "file"] {
        let settings =
            |policy: &str| json!({"format": {"kind": "text", "record": unit}, "invalid_utf8": policy});
        let bytes = b"a\n\xFF\n\nb\n";
        assert!(
            fault(bytes, "a", settings("error"))
                .contains("line 2: invalid UTF-8 (0xFF) at byte 1 of the line, 3 of the file")
        );
        let (records, irregular) = read(bytes, "a", &reading(settings("skip"))).unwrap();
        assert_eq!(
            (records.len(), irregular.skipped),
            (usize::from(unit == "paragraph"), 1),
            "{unit}"
        );
        let (records, irregular) = read(bytes, "a", &reading(settings("replace"))).unwrap();
        assert_eq!(
            (records[0].starts_with("a\n\u{FFFD}"), irregular.replaced),
            (true, 1)
        );
    }
    // In columns: a byte of each text is changed where it lies.
    for (name, bytes) in [
        ("a.parquet", parquet_of(&["xone", "xtwo"])),
        ("a.arrow", arrow_file(&["xone", "xtwo"])),
        ("a.arrow", arrow_stream(&["xone", "xtwo"])),
    ] {
        let at = memchr::memmem::find(&bytes, b"xtwo").unwrap();
        let mut bytes = bytes;
        bytes[at] = 0xFF;
        assert!(fault(&bytes, name, json!({})).contains("row 2: invalid UTF-8 (0xFF) at byte 1 of the text"));
        assert_eq!(texts(&bytes, name, json!({"invalid_utf8": "skip"})), ["xone"]);
        assert_eq!(
            texts(&bytes, name, json!({"invalid_utf8": "replace"})),
            ["xone", "\u{FFFD}two"]
        );
    }
    for name in ["a.txt", "a.jsonl"] {
        assert!(
            fault(b"\xFF\xFEa\0", name, json!({})).contains("iconv -f UTF-16"),
            "{name}"
        );
    }
}

#[test]
fn json_values_however_they_are_written() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("/text", r#"{"text":"a"}{"text":"b"}"#, &["a", "b"]),
        (
            "/text",
            "\u{FEFF}  {\n \"text\" : \"a\"\n}\r\n\n{\"text\":\"b\"}",
            &["a", "b"],
        ),
        (
            "/text",
            r#"{"text":"{\"[\\"}{"text":"\u0041\n"}"#,
            &["{\"[\\", "A\n"],
        ),
        ("/text", r#"{"text":["a",null,"b"],"x":{"text":"no"}}"#, &["a--b"]),
        (
            "/text",
            r#"{"text":null} {"text":""} {"text":[]} {"text":" "} {"text":"a"}"#,
            &["a"],
        ),
        ("/text", r#"{"text":"first","text":"last"}"#, &["last"]),
        ("/a/b/1", r#"{"a":{"b":["x","y"]}}"#, &["y"]),
        ("/a~1b/~0", r#"{"a/b":{"~":"x"}}"#, &["x"]),
        ("/", r#"{"":"x"}"#, &["x"]),
        ("", "\"a\" \"b\"\n[\"c\",\"d\"] null", &["a", "b", "c--d"]),
        ("/0", r#"["a"]"#, &["a"]),
        ("/text", "{\"text\":\"nul \\u0000\"}", &["nul \0"]),
    ];
    for (field, text, expected) in cases {
        let settings = json!({"format": {"kind": "json_lines", "field": field, "join": "--"}});
        assert_eq!(texts(text.as_bytes(), "a", settings), *expected, "{text}");
    }
    let (_, irregular) = read(cases[4].1.as_bytes(), "a.jsonl", &Reading::default()).unwrap();
    assert_eq!(irregular.empty, 4);
}

#[test]
fn json_faults_are_placed() {
    let cases: &[(&str, &str)] = &[
        (
            "{\"text\":\"a\"}\n{\"id\":1,\"a/b\":2}",
            "record 2 (line 2): there is no `/text` in the value; `field` may be one of `/id`, `/a~1b`",
        ),
        ("[{\"text\":\"a\"}]", "jq -c '.[]'"),
        (
            "{\"text\":\"a\"}\n{\"text\":5}",
            "record 2: line 2, column 9: invalid type: integer `5`, expected a string or an array of strings",
        ),
        ("{\"text\":[\"a\",{}]}", "invalid type: map"),
        (
            "{\"text\":\"a\"}\n{\"text\":\"b\n{\"text\":\"c\"}",
            "record 2: line 2: a string is not closed at the end of the line",
        ),
        (
            "{\"text\":\"a\"}\n{\"text\":\"b\"\n{\"text\":\"c\"}\n",
            "record 2: line 3, column 1: expected `,` or `}`",
        ),
        (
            "{\"text\":\"a\"}\n{\"text\":\"b\"",
            "a bracket or quote is not closed",
        ),
        (
            "{\"text\":\"a\"},{\"text\":\"b\"}",
            "record 2: line 1, column 1: expected value",
        ),
        ("{\"text\":\"a\"}]", "record 2: line 1, column 1: expected value"),
        ("nonsense", "expected ident"),
        ("{\"text\":\"\\x\"}", "invalid escape"),
    ];
    for (text, expected) in cases {
        let message = fault(text.as_bytes(), "a.jsonl", json!({}));
        assert!(message.contains(expected), "{text}: {message}");
    }
    let settings = json!({"format": {"kind": "json_lines", "field": "text"}});
    assert!(fault(b"{}", "a", settings).contains("`/text`"));
    // A line that swallows those after it is reported as what it is.
    let mut long = b"{\"text\":\"a\"\n".to_vec();
    (0..100).for_each(|_| long.extend(b"{\"text\":\"b\"}\n"));
    assert!(fault(&long, "a.jsonl", json!({"longest_record": 500})).contains("expected `,` or `}`"));
}

#[test]
fn json_may_be_nested_as_deep_as_it_likes() {
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    let arrays = deep("[", "]");
    let objects = deep("{\"text\":", "}");
    assert_eq!(
        texts(
            format!("{{\"x\":{arrays},\"text\":\"a\"}}").as_bytes(),
            "a.jsonl",
            json!({})
        ),
        ["a"]
    );
    assert!(
        fault(format!("{{\"text\":{arrays}}}").as_bytes(), "a.jsonl", json!({}))
            .contains("invalid type: sequence")
    );
    assert!(fault(arrays.as_bytes(), "a.jsonl", json!({})).contains("there is no `/text`"));
    assert!(fault(objects.as_bytes(), "a.jsonl", json!({})).contains("invalid type: map"));
    assert!(fault("[".repeat(100_000).as_bytes(), "a.jsonl", json!({})).contains("not closed"));
    let pointer = "/text".repeat(1000);
    let settings = json!({"format": {"kind": "json_lines", "field": pointer}});
    assert!(fault(objects.as_bytes(), "a", settings).contains("recursion limit exceeded"));
}

#[test]
fn csv_however_it_is_written() {
    let cases: &[(serde_json::Value, &str, &[&str])] = &[
        (json!({}), "text\r\na\r\n\r\n\"b\r\nc\"\r\n", &["a", "b\r\nc"]),
        (
            json!({}),
            "\u{FEFF}\"text\",x\n\"say \"\"a\"\"\",1\n",
            &["say \"a\""],
        ),
        (json!({}), "text\n\"a\"", &["a"]),
        (json!({}), "text\ra\rb\r", &["a", "b"]),
        (json!({}), "text\na\0b\n", &["a\0b"]),
        (
            json!({"columns": ["t", "2"], "join": "|"}),
            "x,y,t\n1,2,3\n,,\n",
            &["3|2", "|"],
        ),
        (
            json!({"columns": ["2", "1"], "header": false}),
            "a,b\nc,d",
            &["b a", "d c"],
        ),
        (
            json!({"columns": ["1"], "header": false}),
            "a\n\n \nb\n",
            &["a", "b"],
        ),
        (json!({}), "text", &[]),
    ];
    for (settings, text, expected) in cases {
        let mut format = settings.clone();
        format["kind"] = "csv".into();
        assert_eq!(
            texts(text.as_bytes(), "a", json!({"format": format})),
            *expected,
            "{text:?}"
        );
    }
    let long = format!("text\tx\n{}\t1\n", "é\"\"".repeat(20_000));
    assert_eq!(texts(long.as_bytes(), "a.tsv", json!({}))[0].len(), 4 * 20_000);
    let faults = [
        (
            "a,b\n1,2\n",
            "the header has no column `text`; its columns are `a`, `b`",
        ),
        ("text,text\n1,2\n", "more than one column `text`"),
        (
            "x,text\n1,2\n\n3\n",
            "row 2 (line 4) has 1 value, the header has 2",
        ),
        (
            "text\na\n\"b\nc\nd\n",
            "row 2 (line 3): a quote is opened and not closed",
        ),
        ("text\n\"", "a quote is opened"),
        ("text\na\n\"\n", "a quote is opened"),
    ];
    for (text, expected) in faults {
        let message = fault(text.as_bytes(), "a.csv", json!({}));
        assert!(message.contains(expected), "{text:?}: {message}");
    }
    let settings = json!({"format": {"kind": "csv", "header": false}});
    assert!(fault(b"a", "a", settings).contains("number the columns from 1"));
}

/// The texts of the golden columns.
fn forty() -> Vec<String> {
    let mut texts: Vec<String> = ["one", "two\nlines", "thrée", "one"].map(str::to_owned).into();
    texts.extend((6..40).map(|i| format!("row {i}")));
    texts
}

#[test]
fn columns_that_pyarrow_wrote() {
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

#[test]
fn columns_that_are_cut_off_or_changed() {
    for name in [
        "none.parquet",
        "snappy.parquet",
        "delta_byte_array.parquet",
        "plain.file.arrow",
        "plain.stream.arrow",
        "zstd.file.arrow",
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
    assert!(fault(&bytes, "a.arrow", json!({})).contains("of which"));
}

#[test]
fn an_error_of_each_is_told_as_it_is() {
    let mut each = |_: &str, _: Here| Err(Error::environment("disk full"));
    let error = records_of(gzip(b"a").into(), "a", &Reading::default(), &mut each).unwrap_err();
    assert_eq!(error.to_string(), "disk full");
}

#[test]
fn files_are_read_from_disk_and_large_copies_go_there() {
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
        &mut Observed::default(),
        &Witness::default(),
        &mut |_, _| Ok(()),
    );
    assert!(error.unwrap_err().to_string().contains("folder"));
    let missing = TextFile::local(folder.path().join("missing.txt"));
    let error = records(
        &missing,
        &Reading::default(),
        &mut Observed::default(),
        &Witness::default(),
        &mut |_, _| Ok(()),
    )
    .unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Input);
}

/// A reader that gives its bytes in pieces of odd sizes.
struct Pieces<'b> {
    bytes: &'b [u8],
    size: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let chunk = self.fill_buf()?;
        let count = chunk.len().min(to.len());
        to[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        Ok(&self.bytes[..self.size.min(self.bytes.len())])
    }

    fn consume(&mut self, count: usize) {
        self.bytes = &self.bytes[count..];
    }
}

/// Reads in pieces: what comes out, or the error.
fn in_pieces(
    bytes: &[u8],
    size: usize,
    name: &str,
    settings: &Reading,
) -> std::result::Result<Vec<String>, String> {
    let mut all = Vec::new();
    let mut each = |text: &str, _: Here| {
        all.push(text.to_owned());
        Ok(())
    };
    let mut observed = Observed::default();
    let mut sink = Sink::new(settings, name, u64::MAX, &mut observed, &mut each);
    sink.ratio = u64::MAX;
    let mut input = Pieces { bytes, size };
    let result = match recognise::format(name, bytes) {
        Format::Text(format) => text::read(&mut input, format.record, &mut sink),
        Format::JsonLines(format) => json::read(&mut input, &format, &mut sink),
        Format::Csv(format) | Format::Tsv(format) => csv::read(&mut input, &format, b',', &mut sink),
        Format::Arrow(format) if arrow::is_file(bytes) => Stored::copy(&mut input)
            .and_then(|copy| arrow::file(&copy, &ReadCount::default(), &format, &mut sink)),
        Format::Arrow(format) => arrow::streams(&mut input, &format, &mut sink),
        Format::Parquet(_) => Ok(()),
    };
    result.map(|()| all).map_err(|error| error.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_bytes_end_in_records_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300), form in 0..16usize) {
        let (prefix, name): (&[u8], _) = [
            (&b""[..], "a.txt"), (b"", "a.jsonl"), (b"{\"text\":", "a.jsonl"), (b"text\n", "a.csv"), (b"", "a.tsv"),
            (b"", "a.parquet"), (b"PAR1", "a.parquet"), (b"", "a.arrow"), (b"ARROW1\0\0", "a.arrow"),
            (b"\xFF\xFF\xFF\xFF\x20\0\0\0", "a.arrow"), (b"\x1F\x8B\x08", "a"), (b"\x28\xB5\x2F\xFD", "a"),
            (b"BZh91AY&SY", "a"), (b"\xFD7zXZ\0", "a"), (b"PK\x03\x04", "a"), (b"", "a.tar"),
        ][form];
        let bytes = [prefix, &bytes].concat();
        if let Ok((records, _)) = read(&bytes, name, &Reading::default()) {
            prop_assert!(records.iter().all(|record| !record.trim().is_empty()));
        }
    }

    #[test]
    fn where_pieces_end_does_not_show(
        parts in proptest::collection::vec("[a\"{}\\[\\],:\\\\ é\n\r1]{0,6}|\\{\"text\":\"[a-z\\\\\\\\\"]{0,5}\"\\}|\"a\"\"b\",|\r\n|null", 0..12),
        name in prop::sample::select(vec!["a.txt", "a.jsonl", "a.csv"]),
        size in 1..9usize,
    ) {
        let text = parts.concat();
        let whole = in_pieces(text.as_bytes(), usize::MAX, name, &Reading::default());
        let pieces = in_pieces(text.as_bytes(), size, name, &Reading::default());
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn columns_in_pieces(size in 1..200usize) {
        for name in ["plain.file.arrow", "lz4.stream.arrow"] {
            prop_assert_eq!(in_pieces(&golden(name), size, name, &Reading::default()).unwrap(), forty());
        }
    }

    #[test]
    fn changed_archives_end_in_records_or_an_error(at: prop::sample::Index, byte: u8, name in prop::sample::select(vec![
        "gnu.tar.gz", "posix.tar.gz", "infozip.zip", "stream.zip", "nested.tar.xz", "two.bzip2", "two.zstd", "two.xz",
    ])) {
        let mut bytes = golden(name);
        if name.ends_with("tar.gz") {
            let mut tar = Vec::new();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut tar).unwrap();
            bytes = tar;
        }
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = read(&bytes, name, &Reading::default());
    }

    #[test]
    fn json_strings_come_back(texts in proptest::collection::vec(".{1,20}", 0..8), pretty: bool) {
        let values: Vec<String> = texts
            .iter()
            .map(|text| {
                let value = json!({"a": [1, {"b": text}], "text": text});
                if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() }
            })
            .collect();
        let kept: Vec<&String> = texts.iter().filter(|text| !text.trim().is_empty()).collect();
        let found = read(values.join("\n").as_bytes(), "a.jsonl", &Reading::default()).unwrap().0;
        prop_assert_eq!(found.iter().collect::<Vec<_>>(), kept);
    }
}
