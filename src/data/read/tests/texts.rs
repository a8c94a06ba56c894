//! Lines, JSON and CSV: limits, encodings, faults.

use super::*;

#[test]
fn records_longer_than_the_limit_are_an_error() {
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
fn json_values_are_read_in_every_layout() {
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
fn json_of_any_depth_is_read() {
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
fn csv_is_read_in_every_layout() {
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
