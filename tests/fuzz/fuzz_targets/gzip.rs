#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mdlm_fuzz::read(bytes, "a.txt", &[r#"{"compression": "gzip", "invalid_utf8": "skip"}"#]));
