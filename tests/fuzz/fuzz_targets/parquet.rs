#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mdlm_fuzz::read(bytes, "a.parquet", &[
    r#"{"format": {"kind": "parquet"}, "invalid_utf8": "replace"}"#,
    r#"{"format": {"kind": "parquet", "column": "lines"}, "invalid_utf8": "skip"}"#,
]));
