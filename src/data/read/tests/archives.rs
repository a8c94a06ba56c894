//! Compressed files and archives: members in order, hostile ones, bombs.

use super::*;

#[test]
fn compressed_members_are_joined_and_truncation_is_an_error() {
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
            if recognise::compression(cut).is_none() {
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
fn archives_of_gnu_posix_and_infozip_are_read() {
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
fn hidden_members_and_system_files_are_skipped() {
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

/// GNU writes the map of a sparse file of more than four pieces into blocks behind its header.
#[test]
fn tar_members_after_a_sparse_file_with_a_long_map_are_read() {
    let mut sparse = header("a", b'S', "00000000001");
    sparse[257..265].copy_from_slice(b"ustar  \0");
    sparse[482] = 1;
    sum(&mut sparse);
    let mut map = [0; 1024];
    map[504] = 1;
    let mut content = [0; 512];
    content[0] = b'x';
    let archive = [&sparse[..], &map, &content, &tar(&[("b", b'0', b"y")])].concat();
    let (records, irregular) = read(&archive, "a.tar", &Reading::default()).unwrap();
    assert_eq!((records, irregular.members), (vec!["y".to_owned()], 1));
    let message = fault(&archive[..1200], "a.tar", json!({}));
    assert!(message.contains("within the map of a sparse file"), "{message}");
}

#[test]
fn tar_that_is_hostile_is_refused() {
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
fn zip_that_is_hostile_is_refused() {
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
    // What stands behind an archive, or before it, is not part of it; two archives are not one archive.
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
fn zip_members_of_one_name_are_all_read() {
    let same = zip(&[("a.txt", 0, b"one", b"one"), ("a.txt", 0, b"two", b"two")]);
    assert_eq!(texts(&same, "a", json!({})), ["one", "two"]);
}

#[test]
fn decompression_bombs_are_refused() {
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
fn decoders_use_no_more_memory_than_stated() {
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
