#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mdlm_fuzz::read(bytes, "a.zip", &[r#"{"invalid_utf8": "skip"}"#, r#"{"members": ["**/*.txt"]}"#]));
