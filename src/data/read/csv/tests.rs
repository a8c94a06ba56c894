//! Rows that are as the others, and rows that are not.

use std::io::BufReader;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::data::read::{Observed, Sink};
use crate::manifest::reading::Reading;

struct Parsed {
    records: Vec<String>,
    skipped: u64,
    warnings: Vec<String>,
}

/// Reads in pieces of `size` bytes; an error with its hint.
fn in_pieces(
    text: &[u8],
    size: usize,
    settings: serde_json::Value,
    delimiter: u8,
) -> std::result::Result<Parsed, String> {
    let format: CsvFormat = serde_json::from_value(settings).unwrap();
    let mut records = Vec::new();
    let mut observed = Observed::default();
    let mut each = |text: &str, _: crate::data::read::Here| {
        records.push(text.to_owned());
        Ok(())
    };
    let mut sink = Sink::new(&Reading::default(), "a.csv", u64::MAX, &mut observed, &mut each);
    sink.ratio = u64::MAX;
    let result = read(
        &mut BufReader::with_capacity(size, text),
        &format,
        delimiter,
        &mut sink,
    );
    let skipped = sink.irregular.rows;
    result.map_err(|error| format!("{error}; {}", error.hint_text().expect("a hint")))?;
    Ok(Parsed {
        records,
        skipped,
        warnings: observed.warnings(),
    })
}

fn csv(text: &str, settings: serde_json::Value) -> Vec<String> {
    let found = in_pieces(text.as_bytes(), 1 << 16, settings, b',')
        .unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert!(found.warnings.is_empty(), "{text:?}: {:?}", found.warnings);
    found.records
}

fn fault(text: &str, settings: serde_json::Value) -> String {
    match in_pieces(text.as_bytes(), 1 << 16, settings, b',') {
        Ok(found) => panic!("{text:?}: {:?}", found.records),
        Err(error) => error,
    }
}

#[test]
fn delimiter_quote_escape_and_comment_are_settings() {
    let cases: &[(serde_json::Value, &str, &[&str])] = &[
        (json!({"delimiter": ";"}), "id;text\n1;a, b\n", &["a, b"]),
        (json!({"delimiter": "\t"}), "id\ttext\n1\ta, b\n", &["a, b"]),
        (json!({"delimiter": "|"}), "id|text\n1|\"a|b\"\n", &["a|b"]),
        (
            json!({"quote": "none"}),
            "note,text\n\"odd,two\nx,three\ny\",four\nz,five\n",
            &["two", "three", "four", "five"],
        ),
        (
            json!({"quote": "'"}),
            "id,text\n1,'a, ''b'' \"c'\n",
            &["a, 'b' \"c"],
        ),
        (
            json!({"escape": "\\"}),
            "id,text\n1,\"a \\\"b\\\", \\\\c\"\n2,d\\, e\n3,\"f\\\ng\"\n",
            &["a \"b\", \\c", "d, e", "f\ng"],
        ),
        (
            json!({"escape": "\\", "quote": "none"}),
            "id,text\n1,\"a\\,b\"\n",
            &["\"a,b\""],
        ),
        (
            json!({"comment": "#"}),
            "# made by\nid,text\n1,a\n# x,y,z\n2,#b\n\"#3\",c\n",
            &["a", "#b", "c"],
        ),
        (
            json!({}),
            "id,text\n1,\"two\nlines\"\n2,\"and\n\nmore, of them\n\"\n",
            &["two\nlines", "and\n\nmore, of them\n"],
        ),
        (
            json!({}),
            "id,text\n1,say \"hi\" to 5\" pipes\n",
            &["say \"hi\" to 5\" pipes"],
        ),
        // What Excel writes.
        (json!({}), "sep=;\nid;text\n1;a\n", &["a"]),
        (json!({"delimiter": ";"}), "sep=;\nid;text\n1;a\n", &["a"]),
        // Empty values beyond the header lose nothing, nor does a missing one that has no name.
        (json!({}), "id,text\n1,a,\n2,b,,\n", &["a", "b"]),
        (json!({}), "id,text,\n1,a\n2,b,\n", &["a", "b"]),
        (json!({}), "id,text\n1,a\n   \n2,b\n\n", &["a", "b"]),
        (json!({}), "id,text\r1,a\r2,b\r", &["a", "b"]),
        (json!({}), "\u{FEFF}text,\"a\"\nx,1\n", &["x"]),
    ];
    for (settings, text, expected) in cases {
        assert_eq!(csv(text, settings.clone()), *expected, "{text:?} {settings}");
    }
    for (settings, expected) in [
        (json!({"delimiter": "\""}), "`delimiter` and `quote` are both"),
        (
            json!({"delimiter": "#", "comment": "#"}),
            "`delimiter` and `comment` are both `#`",
        ),
        (
            json!({"delimiter": "¦"}),
            "`delimiter` is `¦`, which is not an ASCII character; use an ASCII character, such as `,`, `;`, `|` or \
             `\\t`",
        ),
        (json!({"escape": "·"}), "such as `\\\\`"),
        (json!({"comment": "–"}), "such as `#`"),
    ] {
        let message = fault("text\na\n", settings);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn bad_row_is_an_error_with_its_place() {
    let cases: &[(serde_json::Value, &str, &[&str])] = &[
        (
            json!({}),
            "id,text\n1,hello, world, and more\n2,bye\n",
            &[
                "row 1 (line 2) has 4 values, the header has 2: value 3 begins in line 2, column 9",
                "(`\"a, b\"`)",
                "\"bad_rows\": \"skip\"",
            ],
        ),
        (
            json!({}),
            "id,text\n1,a \\, b\n",
            &["row 1 (line 2) has 3 values", "`\"escape\": \"\\\\\"`"],
        ),
        (
            json!({}),
            "id,text\n1,a\n2, \"b, c\"\n",
            &["row 2 (line 3) has 3 values", "remove the space"],
        ),
        (
            json!({}),
            "id,text,n\n1,a,2\n2,b\n",
            &["row 2 (line 3) has 2 values, the header has 3"],
        ),
        (
            json!({}),
            "text,id\na,1\nb\n",
            &["row 2 (line 3) has 1 value, the header has 2"],
        ),
        (
            json!({"header": false, "columns": ["1"]}),
            "a,b\nc,d,e\n",
            &["row 2 (line 2) has 3 values, the first row has 2"],
        ),
        (
            json!({"header": false, "columns": ["2"]}),
            "a;b\nc;d\n",
            &[
                "row 1 (line 1): the row has 1 value, column 2 is wanted",
                "`\"delimiter\": \";\"`",
            ],
        ),
        (
            json!({}),
            "id,text\n1,\"a \"b\" c\"\n",
            &[
                "row 1 (line 2): text follows a closing quote in line 2, column 7",
                "`\"quote\": \"none\"`",
            ],
        ),
        (
            json!({}),
            "id,text\n1,\"two\nlines\"x\n",
            &["row 1 (line 2): text follows a closing quote in line 3, column 7"],
        ),
        (
            json!({}),
            "id,text\n1,\"a \\\"b\\\", c\"\n",
            &["text follows a closing quote", "`\"escape\": \"\\\\\"`"],
        ),
        (
            json!({}),
            "id,text\n1,a\n2,\"b\n3,c\n",
            &[
                "row 2 (line 3): a quote is opened and not closed",
                "(line 3, column 3)",
            ],
        ),
        (
            json!({"quoted_lines": 2}),
            "id,text\n1,\"a\nb\nc\"\n",
            &[
                "row 1 (line 2): the quote opened in line 2, column 3 is not closed within 2 lines",
                "raise `quoted_lines`",
            ],
        ),
        (
            json!({}),
            "id,text\n1,a\n\u{FEFF}id,text\n2,b\n",
            &["row 2 (line 3) begins with a byte order mark (concatenated files?)"],
        ),
        (
            json!({}),
            "id,text\n1,a\nid,text\n2,b\n",
            &["row 2 (line 3) repeats the header"],
        ),
        (
            json!({}),
            "id;text\n1;a\n",
            &["the header is one value, `id;text`", "`\"delimiter\": \";\"`"],
        ),
        (
            json!({"columns": ["1"]}),
            "id\ttext\n1\ta\n",
            &["the header is one value", "`\"delimiter\": \"\\t\"`"],
        ),
    ];
    for (settings, text, expected) in cases {
        let message = fault(text, settings.clone());
        for expected in *expected {
            assert!(message.contains(expected), "{text:?}: {message}");
        }
        let mut skipping = settings.clone();
        skipping["bad_rows"] = "skip".into();
        if message.contains("row ") && !message.contains("is wanted") {
            let found = in_pieces(text.as_bytes(), 1 << 16, skipping, b',').unwrap();
            // Lines that an open quote took in are rows of their own again.
            let expected = 1..=1 + u64::from(text.contains('"')) * 2;
            assert!(expected.contains(&found.skipped), "{text:?}: {:?}", found.records);
        }
    }
    // Any stated delimiter is taken at its word.
    assert_eq!(
        csv("id;text\n", json!({"columns": ["1"], "delimiter": ","})),
        [""; 0]
    );
    let file = b"a;b\nc;d\ne;f\n";
    let found = in_pieces(file, 100, json!({"header": false, "columns": ["1"]}), b',').unwrap();
    assert!(
        found.warnings[0].contains("set `\"delimiter\": \";\"`"),
        "{:?}",
        found.warnings
    );
    assert!(
        csv(
            "a;b\nc, d\n",
            json!({"header": false, "columns": ["1"], "delimiter": "\t"})
        )
        .len()
            == 2
    );
}

#[test]
fn lone_quote_does_not_swallow_rows() {
    // Every line of the quoted value reads as a row.
    let lone = "note,text\n\"odd,two\nx,three\ny\",four\nz,five\n";
    let message = fault(lone, json!({}));
    assert!(
        message.contains("as whole rows of 2 values too; the first begins in line 2, column 1"),
        "{message}"
    );
    assert_eq!(csv(lone, json!({"quoted_lines": 3})), ["four", "five"]);
    // A value of several lines that does not read as rows speaks for quotes, before and behind: it is read, and reported.
    for (text, line, records) in [
        (format!("{lone}\"a\nb\",six\n"), 2, ["four", "five", "six"]),
        (
            lone.replace("text\n", "text\n\"a\nb\nc\nd\",six\n"),
            6,
            ["six", "four", "five"],
        ),
    ] {
        let found = in_pieces(text.as_bytes(), 100, json!({}), b',').unwrap();
        assert_eq!(found.records, records);
        let place = format!("can be read as whole rows of 2 values too; it begins in line {line}, column 1");
        assert!(
            found.warnings.len() == 1 && found.warnings[0].contains(&place),
            "{:?}",
            found.warnings
        );
        let lines = if line == 2 { 3 } else { 4 };
        let stated = format!("`\"quoted_lines\": {lines}`");
        assert!(found.warnings[0].contains(&stated), "{:?}", found.warnings);
        assert_eq!(csv(&text, json!({ "quoted_lines": lines })), records);
    }
    // Two lines are not a whole row between others: a coincidence beside honest values.
    assert_eq!(
        csv("id,text\n1,\"Hello\nI am, you too\"\n2,\"a\nb\"\n", json!({})).len(),
        2
    );
    let single = "text\n\"a, b\nc\"\n";
    assert_eq!(csv(single, json!({})), ["a, b\nc"]);
    // One coincidence is reported, and read.
    let found = in_pieces(
        b"id,text\n1,\"Hello\nI am here, you too\"\n",
        100,
        json!({}),
        b',',
    )
    .unwrap();
    assert_eq!(found.records, ["Hello\nI am here, you too"]);
    assert!(
        found.warnings[0].contains("`\"quoted_lines\": 2`"),
        "{:?}",
        found.warnings
    );
    // In TSV a quoted value stays in its line.
    let tsv = b"id\ttext\n1\t\"odd\n2\ttwo\n3\tthree\"\n4\tfour\n";
    let error = in_pieces(tsv, 100, json!({}), b'\t').err().unwrap();
    assert!(
        error.contains("row 1 (line 2): the quote opened in line 2, column 3 is not closed in that line"),
        "{error}"
    );
    let none = in_pieces(tsv, 100, json!({"quote": "none"}), b'\t').unwrap();
    assert_eq!(none.records, ["\"odd", "two", "three\"", "four"]);
    let found = in_pieces(tsv, 100, json!({"bad_rows": "skip"}), b'\t').unwrap();
    assert_eq!(
        (found.records, found.skipped),
        (vec!["two".to_owned(), "three\"".into(), "four".into()], 1)
    );
    assert_eq!(
        in_pieces(tsv, 100, json!({"quoted_lines": 9}), b'\t')
            .unwrap()
            .records
            .len(),
        2
    );
}

#[test]
fn rows_inside_an_open_quote_are_read_again() {
    let rows: Vec<String> = (0..1000).map(|i| format!("{i},row {i}\n")).collect();
    let rows = rows.concat();
    for (quoted, size) in [("\n", 7), ("\r\n", 8), ("\n", 1 << 16)] {
        let text = format!("id,text\n0,\"open\n{rows}").replace('\n', quoted);
        let found = in_pieces(text.as_bytes(), size, json!({"bad_rows": "skip"}), b',').unwrap();
        assert_eq!((found.records.len(), found.skipped), (1000, 1));
        assert_eq!(found.records[999], "row 999");
        let limited = json!({"bad_rows": "skip", "quoted_lines": 3});
        let many = format!("id,text\n{}", "0,\"open\n1,a\n2,b\n3,c\n".repeat(50)).replace('\n', quoted);
        let found = in_pieces(many.as_bytes(), size, limited.clone(), b',').unwrap();
        assert_eq!((found.records.len(), found.skipped), (150, 50));
    }
    // Line numbers stay right.
    let text = "id,text\r\n0,\"open\r\n1,a\r\n\r\n2,b,c\r\n";
    let error = in_pieces(text.as_bytes(), 3, json!({"quoted_lines": 1}), b',')
        .err()
        .unwrap();
    assert!(error.contains("row 1 (line 2)"), "{error}");
    // Input that makes every row go back is refused before it takes its time.
    let hostile = format!("id,text\n{}", "b\",\"\n".repeat(60_000));
    let error = in_pieces(hostile.as_bytes(), 1 << 16, json!({"bad_rows": "skip"}), b',')
        .err()
        .unwrap();
    assert!(
        error.contains("too many quotes are opened and not closed"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn chunk_boundaries_do_not_change_records(
        rows in proptest::collection::vec("[a\",;\\\\#é\n\r ]{0,7}|\"[a,\"\n]{0,4}\"|a,b\r?\n|\"a\"\"b\",x\n", 0..12),
        size in 1..9usize,
        settings in prop::sample::select(vec![
            json!({}), json!({"bad_rows": "skip"}), json!({"bad_rows": "skip", "quoted_lines": 1}),
            json!({"bad_rows": "skip", "quoted_lines": 2, "escape": "\\", "comment": "#"}),
            json!({"quote": "none"}), json!({"header": false, "columns": ["1"], "bad_rows": "skip"}),
        ]),
    ) {
        let text = format!("text,n\n{}", rows.concat());
        let all = |size| in_pieces(text.as_bytes(), size, settings.clone(), b',')
            .map(|found| (found.records, found.skipped, found.warnings));
        prop_assert_eq!(all(1 << 16), all(size));
    }

    #[test]
    fn records_of_a_csv_writer_are_read_back(
        texts in proptest::collection::vec(("[a-z,\"é ]{1,9}", "[a-z\",\n ]{0,5}"), 0..8), ending in prop::sample::select(vec!["\n", "\r\n"]),
    ) {
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let rows: Vec<String> = texts.iter().map(|(text, other)| format!("{},{}{ending}", quoted(other), quoted(text))).collect();
        let rows = rows.concat();
        let settings = json!({"quoted_lines": 100});
        let found = in_pieces(format!("n,text{ending}{rows}").as_bytes(), 64, settings.clone(), b',').unwrap();
        let kept: Vec<&String> = texts.iter().map(|(text, _)| text).filter(|text| !text.trim().is_empty()).collect();
        prop_assert_eq!(found.records.iter().collect::<Vec<_>>(), kept);
    }
}
