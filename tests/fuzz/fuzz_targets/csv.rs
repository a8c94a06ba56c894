#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mdlm_fuzz::read(bytes, "a.csv", &[
    r#"{"format": {"kind": "csv", "columns": ["2", "1"], "header": false}, "invalid_utf8": "replace"}"#,
    r#"{"format": {"kind": "tsv", "columns": ["1"]}}"#,
    r#"{"format": {"kind": "csv", "columns": ["1"], "delimiter": ";", "escape": "\\", "comment": "#", "bad_rows": "skip"}}"#,
    r#"{"format": {"kind": "csv", "columns": ["1"], "quoted_lines": 2, "bad_rows": "skip"}, "invalid_utf8": "skip"}"#,
    r#"{"format": {"kind": "csv", "columns": ["1"], "quote": "none"}, "invalid_utf8": "skip"}"#,
]));
