#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mdlm_fuzz::read(bytes, "a.csv", &[
    r#"{"format": {"kind": "csv", "columns": ["2", "1"], "header": false}, "invalid_utf8": "replace"}"#,
    r#"{"format": {"kind": "tsv", "columns": ["1"]}}"#,
]));
