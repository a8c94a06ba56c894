#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mdlm_fuzz::trust_guards();
    mdlm_fuzz::read(bytes, "a.arrow", &[
        r#"{"format": {"kind": "arrow"}, "invalid_utf8": "replace"}"#,
        r#"{"format": {"kind": "arrow", "column": "lines"}, "invalid_utf8": "skip"}"#,
    ]);
});
