//! Which members of archives are left out.

use super::*;

/// What `exclude` matches is left out at every depth, and counted.
#[test]
fn members_are_excluded_by_globs_and_counted() {
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
        // That all which is meant is excluded is no mistake.
        assert_eq!(
            texts(archive, "a", json!({"members": ["old/*"], "exclude": ["old"]})),
            [""; 0]
        );
        assert!(fault(archive, "a", json!({"members": ["*.csv"], "exclude": ["old"]})).contains("no member"));
        assert!(fault(archive, "a", json!({"exclude": ["a**"]})).contains("of `exclude` is malformed"));
    }
}

#[test]
fn a_pattern_that_excludes_nothing_is_said() {
    let first = tar(&[("a.txt", b'0', b"a"), ("b.md", b'0', b"b")]);
    let second = tar(&[("c.txt", b'0', b"c")]);
    let reading = reading(json!({"exclude": ["*.md", "*.html"]}));
    let mut observed = Observed::default();
    for bytes in [first, second] {
        let stored = Stored::Bytes(bytes.into());
        records_stored(&stored, "a.tar", &reading, &mut observed, &mut |_, _| Ok(())).unwrap();
    }
    let warnings = observed.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("`exclude` pattern `*.html` matches no member"),
        "{warnings:?}"
    );
}
