//! No manifest makes the program panic, neither while it is checked nor while its faults are shown.

use std::fs;
use std::path::Path;

use mdlm::manifest::{Code, Manifest};
use mdlm::shapes::SHAPES;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::render;

#[test]
fn faults_beyond_a_limit_are_counted_in_short_time() {
    // Half a million unknown fields, and as many wrong elements, on one line.
    let fields: Vec<_> = (0..60_000).map(|i| format!("\"f{i}\":1")).collect();
    let wide = format!("{{{}}}", fields.join(","));
    let files: Vec<_> = (0..100_000).map(|_| "1").collect();
    let long = format!(
        r#"{{"name":"a","seed":1,"stages":{{"t":{{"kind":"source","input":{{"kind":"files","files":[{}]}}}}}}}}"#,
        files.join(",")
    );
    for text in [wide, long] {
        let faults = Manifest::from_bytes("wide.json", text.into_bytes(), &[], SHAPES).unwrap_err();
        assert_eq!(faults.list.len(), 200);
        assert!(faults.omitted > 50_000, "{}", faults.omitted);
        for fault in &faults.list {
            assert!(render(fault, &faults, false).len() < 10_000);
        }
    }
}

/// Checks bytes as a manifest and shows every fault: neither may panic, and what the schema accepts, serde must.
fn survive(bytes: Vec<u8>, overrides: &[String]) {
    if let Err(faults) = Manifest::from_bytes("fuzz.json", bytes, overrides, SHAPES) {
        assert!(!faults.list.is_empty());
        for fault in &faults.list {
            assert_ne!(fault.code, Code::Disagreement, "{fault}");
            assert!(!fault.message.is_empty());
            assert!(!render(fault, &faults, true).is_empty());
            assert!(!render(fault, &faults, false).is_empty());
        }
    }
}

/// Text that is likely to matter to a parser or to the schema.
const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\n",
    "null",
    "true",
    "1e999",
    "-0",
    "0.5",
    "1e6",
    "-1",
    "200.0",
    "\"kind\"",
    "\"stage\"",
    "\"text\"",
    "\"tokens\"",
    "\"model\"",
    "\"\\ud800\"",
    "//",
    "\u{feff}",
    "é",
    "\u{1b}[0m",
    "{}",
    "[]",
    "18446744073709551616",
    "NaN",
];

fn pipelines() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines"))
}

/// The texts of the shipped manifests.
fn shipped() -> Vec<String> {
    let mut files: Vec<_> = fs::read_dir(pipelines())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect()
}

/// Values that some field takes and most do not.
fn any_value() -> impl Strategy<Value = Value> {
    let names = vec![
        json!("text"),
        json!("tokens"),
        json!("rows"),
        json!("model"),
        json!("nano"),
        json!("lm1b-small"),
        json!("train"),
        json!("validation"),
        json!("cosine"),
        json!("stage"),
        json!(""),
        json!("ema"),
        json!({ "kind": "linear", "sigma_min": 1e-4, "sigma_max": 20 }),
        json!({ "kind": "stage", "stage": "tokens" }),
        json!({}),
        json!([]),
        json!(["a.txt"]),
        json!([null]),
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..3000).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-0.5f64..2.0).prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has finite numbers", |x| x.is_finite())
            .prop_map(Value::from),
        (0u32..40).prop_map(|e| Value::from(2f64.powi(e as i32))),
        proptest::sample::select(names),
        ".{0,8}".prop_map(Value::from),
    ]
}

/// The pointers of all values below and at `value`.
fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), out)),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(i, value)| pointers(value, &format!("{at}/{i}"), out));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn manifest_of_arbitrary_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        survive(bytes, &[]);
    }

    #[test]
    fn manifest_of_arbitrary_tokens_never_panics(tokens in proptest::collection::vec(proptest::sample::select(TOKENS), 0..60)) {
        survive(tokens.concat().into_bytes(), &[]);
    }

    #[test]
    fn overrides_that_are_arbitrary_never_panic(
        argument in "(stages|seed|name|x)?(\\.(model|text|rows|input|files|0|steps|objective|noise|kind)){0,4}=?.{0,12}",
        value in any_value(),
        path in "stages\\.(model|rows|tokens|bound|new)(\\.(steps|objective|noise|tokenizer|kind|length))?",
    ) {
        let quickstart = fs::read(pipelines().join("quickstart.json")).unwrap();
        survive(quickstart, &[argument, format!("{path}={value}")]);
    }

    #[test]
    fn manifest_with_edited_text_never_panics(
        which in any::<proptest::sample::Index>(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), 0usize..12, proptest::sample::select(TOKENS)), 1..4),
    ) {
        let shipped = shipped();
        let mut bytes = which.get(&shipped).clone().into_bytes();
        for (at, cut, token) in edits {
            let at = at.index(bytes.len());
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, token.bytes());
        }
        survive(bytes, &[]);
    }

    #[test]
    fn validate_accepts_only_what_serde_accepts(
        which in any::<proptest::sample::Index>(),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any_value(), 0..4), 1..4),
    ) {
        let shipped = shipped();
        let mut value: Value = serde_json::from_str(which.get::<String>(&shipped)).unwrap();
        for (at, new, how) in edits {
            let mut all = Vec::new();
            pointers(&value, "", &mut all);
            let at = at.get(&all).clone();
            let (parent, key) = at.rsplit_once('/').unwrap_or(("", ""));
            match (how, value.pointer_mut(parent)) {
                // A field less, a field more, another value.
                (0, Some(Value::Object(fields))) => drop(fields.shift_remove(key)),
                (1, Some(Value::Object(fields))) => drop(fields.insert("epsilon".to_owned(), new)),
                _ => if let Some(place) = value.pointer_mut(&at) {
                    *place = new;
                },
            }
        }
        survive(serde_json::to_vec(&value).unwrap(), &[]);
    }
}
