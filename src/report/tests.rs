//! Texts from outside, whatever they hold, are shown as they are and change no tag of a page.

use std::fs;

use indexmap::IndexMap;
use serde_json::json;

use super::chart::{Chart, ReferenceLine, Series};
use super::*;
use crate::store::record::testing::example;
use crate::store::{Digest, ExternalFile, Record};

/// Ends attributes, elements, comments and the style sheet, and begins others, if it is not escaped.
const HOSTILE: &str =
    "x\" '></text></svg></style><script>alert(1)</script><!-- &amp;&#39; \u{1}\n\u{7f}\u{1b}[0m -->]]>x";

/// A text of the same length in which nothing has a meaning in HTML.
fn harmless(text: &str) -> String {
    let special = |c: char| c.is_control() || "&<>\"'".contains(c);
    text.replace(special, "x")
}

/// What a browser makes of a page that is well-formed: the tags with the names of their attributes, and the texts between
/// and in them.
fn parts(page: &str) -> (Vec<String>, Vec<String>) {
    let shown = |text: &str| {
        let names = [("&quot;", "\""), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];
        names
            .iter()
            .fold(text.to_owned(), |text, (name, sign)| text.replace(name, sign))
    };
    let (mut tags, mut texts) = (Vec::new(), Vec::new());
    let mut rest = page;
    while let Some((text, inside)) = rest.split_once('<') {
        texts.push(shown(text));
        let (mut tag, mut left) = (String::new(), inside);
        while let Some(at) = left.find(['"', '>']) {
            tag.push_str(&left[..=at]);
            let ends = left[at..].starts_with('>');
            left = &left[at + 1..];
            if ends {
                break;
            }
            let (value, after) = left.split_once('"').expect("a quote is not closed");
            texts.push(shown(value));
            left = after;
        }
        tags.push(tag);
        rest = left;
    }
    texts.push(shown(rest));
    (tags, texts)
}

/// Compares a page with hostile texts and with harmless ones: their tags are the same, and the texts arrive unchanged.
fn check(expected: usize, page: impl Fn(&str) -> String) {
    let plain = harmless(HOSTILE);
    let ((tags, texts), (plain_tags, plain_texts)) = (parts(&page(HOSTILE)), parts(&page(&plain)));
    assert_eq!(tags, plain_tags);
    let shown: Vec<String> = texts.iter().map(|text| harmless(text)).collect();
    let plain_shown: Vec<String> = plain_texts.iter().map(|text| harmless(text)).collect();
    assert_eq!(shown, plain_shown);
    let count = |texts: &[String], what: &str| texts.iter().filter(|text| text.contains(what)).count();
    assert_eq!(count(&texts, HOSTILE), expected, "{texts:#?}");
    assert_eq!(count(&plain_texts, &plain), expected, "{plain_texts:#?}");
}

/// A record with a text from outside in every field that the report shows.
fn record(text: &str) -> Record {
    let mut record = example(1);
    let made = &mut record.provenance;
    made.config = json!({ text: text, "list": [1, 2] });
    made.files = vec![ExternalFile {
        field: "files".to_owned(),
        path: text.to_owned(),
        bytes: 1,
        digest: Digest::of(b"file"),
    }];
    made.started = text.to_owned();
    made.device = text.to_owned();
    made.machine.processor = Some("processor".to_owned());
    made.version = text.to_owned();
    record.figures = IndexMap::new();
    record
}

#[test]
fn pipeline_that_has_not_run_has_a_report_with_escaped_text() {
    let stages = [ReportedStage {
        name: "a<b",
        written: "a<b",
        kind: StageKind::Source,
        inputs: vec![],
        done: None,
        figures: vec![],
    }];
    let subject = ReportSubject {
        title: "x & y",
        description: Some("<script>"),
        manifest: "m.json",
    };
    let page = page(subject, &stages).unwrap();
    assert!(page.contains("x &amp; y") && page.contains("&lt;script&gt;") && page.contains("a&lt;b"));
    assert!(!page.contains("<script"));
}

#[test]
fn report_shows_hostile_texts_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let page_of = |text: &str| {
        let sample = json!({ "tokens": [], "text": text, "steps": 1, "network_calls": 1 });
        fs::write(folder.path().join("samples.jsonl"), format!("{sample}\n")).unwrap();
        let record = record(text);
        let stage = |name, kind, done| ReportedStage {
            name,
            written: text,
            kind,
            inputs: vec![],
            done,
            figures: vec![(text.to_owned(), text.to_owned())],
        };
        let folder = || folder.path().to_owned();
        let stages = [
            stage(text, StageKind::Source, Some((&record, folder()))),
            stage("an instance", StageKind::Sample, Some((&record, folder()))),
            stage(text, StageKind::Pack, None),
        ];
        let subject = ReportSubject {
            title: text,
            description: Some(text),
            manifest: text,
        };
        let page = page(subject, &stages).unwrap();
        assert_eq!(manifest_of(&page).as_deref(), Some(text));
        page
    };
    // Manifest, title, heading and description; a heading, the sampled text; figures and settings (name, value and path)
    // of two stages; their start, device and version, and the names of two.
    check(4 + 2 + 2 * (2 + 3) + 2 * 3 + 2, page_of);
}

#[test]
fn report_keeps_the_graph_with_hostile_names() {
    check(2, |text| {
        let node = dag::GraphNode {
            name: text.to_owned(),
            kind: text.to_owned(),
            note: text.to_owned(),
            inputs: vec![],
        };
        dag::svg(&[node]).into_string()
    });
}

#[test]
fn report_keeps_the_chart_with_hostile_names() {
    // Both labels name the chart together; each stands at its axis, and the name of x in a note with that of the curve.
    check(1 + 2 + 1 + 2, |text| {
        let chart = Chart {
            logarithmic: false,
            x_label: text.to_owned(),
            y_label: text.to_owned(),
            series: vec![Series {
                name: text.to_owned(),
                class: "raw",
                points: (0..100)
                    .map(|x| (f64::from(x), if x == 0 { 9.0 } else { 1.0 }))
                    .collect(),
                intervals: vec![0.5; 100],
            }],
            reference_lines: vec![ReferenceLine {
                name: text.to_owned(),
                y: 1.5,
            }],
        };
        chart.svg().unwrap().into_string()
    });
}
