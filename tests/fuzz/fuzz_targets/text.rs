#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mdlm_fuzz::read(bytes, "a.txt", &[
    r#"{"compression": "none", "invalid_utf8": "replace"}"#,
    r#"{"format": {"kind": "text", "record": "paragraph"}, "invalid_utf8": "skip"}"#,
    r#"{"format": {"kind": "text", "record": "file"}}"#,
]));
