//! Which members of archives are left out.

use super::*;

/// What `exclude` matches is left out at every depth, and counted.
#[test]
fn exclude_leaves_out_members_by_globs_and_counts_them() {
    let inner = zip(&[
        ("README", 0, b"r", b"r"),
        ("c.txt", 0, b"c", b"c"),
        ("old/d.txt", 0, b"d", b"d"),
    ]);
    let tar = tar(&[
        ("./z.txt", b'0', b"z"),
        ("old/a.txt", b'0', b"a"),
        ("d/old/b.txt", b'0', b"b"),
        ("inner.zip", b'0', &inner),
    ]);
    let stored = inner.clone();
    let zip = zip(&[
        ("z.txt", 0, b"z", b"z"),
        ("old/a.txt", 0, b"a", b"a"),
        ("d/old/b.txt", 0, b"b", b"b"),
        ("inner.zip", 0, &inner, &stored),
    ]);
    let cases: &[(serde_json::Value, &[&str], u64)] = &[
        (json!([]), &["z", "a", "b", "r", "c", "d"], 0),
        (json!(["old"]), &["z", "b", "r", "c"], 2),
        (json!(["**/old/", "README"]), &["z", "c"], 4),
        (json!(["inner.zip", "*.txt"]), &["a", "b"], 2),
        (json!(["*"]), &[], 4),
    ];
    for (exclude, expected, excluded) in cases {
        for archive in [&tar, &zip] {
            let (records, irregular) = read(archive, "a", &reading(json!({"exclude": exclude}))).unwrap();
            assert_eq!(records, *expected, "{exclude}");
            assert_eq!(irregular.excluded, *excluded, "{exclude}");
        }
    }
    for archive in [&tar, &zip] {
        let both = json!({"members": ["*.txt", "old/*"], "exclude": ["old"]});
        let (records, irregular) = read(archive, "a", &reading(both)).unwrap();
        assert_eq!((records.concat().as_str(), irregular.excluded), ("z", 1));
        // That all which is meant is excluded is not a mistake.
        assert_eq!(
            texts(archive, "a", json!({"members": ["old/*"], "exclude": ["old"]})),
            [""; 0]
        );
        assert!(fault(archive, "a", json!({"members": ["*.csv"], "exclude": ["old"]})).contains("no member"));
        assert!(fault(archive, "a", json!({"exclude": ["a**"]})).contains("of `exclude` is malformed"));
    }
}

#[test]
fn exclude_pattern_without_a_match_has_a_warning() {
    let first = tar(&[("a.txt", b'0', b"a"), ("b.md", b'0', b"b")]);
    let second = tar(&[("c.txt", b'0', b"c")]);
    let reading = reading(json!({"exclude": ["*.md", "*.html"]}));
    let mut observed = Observed::default();
    for bytes in [first, second] {
        let stored = Stored::Bytes(bytes.into());
        records_stored(
            &stored,
            "a.tar",
            &reading,
            EmptyRecords::Drop,
            &mut observed,
            &mut |_, _| Ok(()),
        )
        .unwrap();
    }
    let warnings = observed.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("`exclude` pattern `*.html` matches no member"),
        "{warnings:?}"
    );
}

/// A store in an archive is left out whatever it is called, and counted.
#[test]
fn members_of_a_store_are_left_out_and_counted() {
    let digest = "0123456789abcdef".repeat(4);
    let inside = [
        format!("st/artifacts/{digest}/samples.txt"),
        format!("st/actions/source/{digest}.json"),
        "st/version".to_owned(),
        "st/reports/a.html".to_owned(),
    ];
    let tar_of = |names: &[&str]| {
        let members: Vec<_> = names.iter().map(|name| (*name, b'0', name.as_bytes())).collect();
        tar(&members)
    };
    let zip_of = |names: &[&str]| {
        let members: Vec<_> = (names.iter())
            .map(|name| (*name, 0, name.as_bytes(), name.as_bytes()))
            .collect();
        zip(&members)
    };
    let [artifact, action, version, report] = inside.each_ref().map(String::as_str);
    let names = ["a.txt", artifact, action, version, report, "st2/b.txt"];
    for archive in [tar_of(&names), zip_of(&names), gzip(&tar_of(&names))] {
        let (records, irregular) = read(&archive, "a", &Reading::default()).unwrap();
        assert_eq!(records, ["a.txt", "st2/b.txt"]);
        assert_eq!(irregular.stores, 4);
        let named = json!({"members": ["st/artifacts/*/*.txt"]});
        assert_eq!(texts(&archive, "a", named), [artifact]);
        let message = fault(&archive, "a", json!({"members": ["**/samples.txt"]}));
        assert!(
            message.contains("members in a store of mdlm are skipped"),
            "{message}"
        );
    }
    // In another order: what precedes the signs of the store is held back.
    let names = [
        "a.txt",
        report,
        version,
        "st/CACHEDIR.TAG",
        action,
        artifact,
        "b.txt",
    ];
    for archive in [tar_of(&names), zip_of(&names), gzip(&tar_of(&names))] {
        let (records, irregular) = read(&archive, "a", &Reading::default()).unwrap();
        assert_eq!((records.concat().as_str(), irregular.stores), ("a.txtb.txt", 5));
    }
    let message = fault(&tar_of(&names), "a", json!({"members": ["st/**"]}));
    assert!(
        message.contains("members in a store of mdlm are skipped"),
        "{message}"
    );
    // What a store does not contain is read at once, and so it is too late for the store.
    let names = ["a.txt", version, "st/notes.txt", action, artifact];
    let message = fault(&tar_of(&names), "a", json!({}));
    assert!(
        message.contains("`st/` in the archive is a store of mdlm"),
        "{message}"
    );
    assert_eq!(texts(&tar_of(&names), "a", json!({"exclude": ["st"]})), ["a.txt"]);
    // What only looks like one is never left out in silence.
    let message = fault(&tar_of(&["a.txt", artifact]), "a", json!({}));
    assert!(
        message.contains("the archive lacks the rest of the store"),
        "{message}"
    );
}

/// Members that a store may contain are read in their place where there is none.
#[test]
fn members_that_are_held_back_are_read_in_their_order() {
    let long = "a long line\n".repeat(3 << 19);
    let members = [
        ("st/version", "1"),
        ("st/reports/a.txt", "2"),
        ("runs/st/version", "3"),
        ("runs/a.txt", "4"),
        ("st/runs/b.txt", "5"),
        ("a.txt", "6"),
        ("c/reports/a.txt", "7"),
        ("c/reports/long.txt", &long),
        ("c/reports/b.txt", "8"),
        ("d/version", "9"),
    ];
    let archive = tar(&members.map(|(name, text)| (name, b'0', text.as_bytes())));
    let expected: Vec<_> = members.iter().flat_map(|(_, text)| text.lines()).collect();
    let (records, irregular) = read(&archive, "a", &Reading::default()).unwrap();
    assert!(records == expected && irregular == Irregular::default());
    let named = json!({"members": ["*/version"]});
    assert_eq!(texts(&archive, "a", named), ["1", "9"]);
    // A store in a folder that is called as a folder of a store.
    let digest = "0123456789abcdef".repeat(4);
    let artifact = format!("p/runs/st/artifacts/{digest}/samples.txt");
    let action = format!("p/runs/st/actions/source/{digest}.json");
    let names = [
        "p/runs/a.txt",
        "p/runs/st/version",
        &artifact,
        &action,
        "p/runs/b.txt",
    ];
    let archive = tar(&names.map(|name| (name, b'0', name.as_bytes())));
    let (records, irregular) = read(&archive, "a", &Reading::default()).unwrap();
    assert_eq!(records, ["p/runs/a.txt", "p/runs/b.txt"]);
    assert_eq!(irregular.stores, 3);
}

/// A program that unpacks itself, or anything else before an archive.
#[test]
fn zip_behind_other_bytes_is_read() {
    let archive = zip(&[("a.txt", 0, b"a", b"a"), ("b.txt", 0, b"b", b"b")]);
    for before in [
        &b"#!/bin/sh\nexec unzip \"$0\"\n"[..],
        b"\x7FELF\x02\x01\x01\0\0",
        b"MZ\x90\0",
    ] {
        let whole = [before, &archive[..]].concat();
        for name in ["a.zip", "a", "a.txt"] {
            assert_eq!(texts(&whole, name, json!({})), ["a", "b"], "{name}");
        }
        // With a comment behind the end record.
        let mut commented = whole.clone();
        let length = commented.len();
        commented[length - 2] = 2;
        commented.extend(b"hi");
        assert_eq!(texts(&commented, "a.zip", json!({})), ["a", "b"]);
    }
    // One that is damaged is answered as a zip.
    let mut damaged = [&b"#!/bin/sh\n"[..], &archive[..]].concat();
    let end = damaged.len() - 22;
    damaged[end + 16..end + 20].fill(0xFF);
    assert!(
        fault(&damaged, "a", json!({})).contains("the zip archive"),
        "damaged"
    );
}
