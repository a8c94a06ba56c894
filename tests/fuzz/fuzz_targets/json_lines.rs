#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mdlm_fuzz::read(bytes, "a.jsonl", &[
    r#"{"invalid_utf8": "replace"}"#,
    r#"{"format": {"kind": "json_lines", "field": "/a/0"}, "invalid_utf8": "skip"}"#,
    r#"{"format": {"kind": "json_lines", "field": ""}}"#,
]));
