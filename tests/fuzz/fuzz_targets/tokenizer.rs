#![no_main]
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use mdlm::data::encoder::Encoders;
use mdlm::data::tokenizer::Tokenizer;
use mdlm::manifest::TokenizerFile;

static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("mdlm-fuzz-{}.json", std::process::id())));

// Any `tokenizer.json` is an error of the input, or a tokenizer whose ids the encoder gives too.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mdlm_fuzz::trust_guards();
    std::fs::write(&*FILE, bytes).expect("write the tokenizer");
    let config = TokenizerFile {
        path: FILE.to_string_lossy().into_owned(),
        special: None,
    };
    let Ok(tokenizer) = Tokenizer::from_file(&config, Path::new("")) else {
        return;
    };
    let encoders = Encoders::new(&tokenizer, 0).expect("an encoder");
    for text in ["the cat sat, it's 12 o'clock", " \u{e9}\u{4e2d}\n\n[MASK]", ""] {
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let whole = tokenizer.encode(text, &mut one);
        let parts = encoders.lend(|encoder| encoder.encode(text, &mut other));
        match (whole, parts) {
            (Ok(unknown), Ok(found)) => {
                assert_eq!((unknown, &one), (found, &other), "{text:?}");
                let _ = tokenizer.decode(&one);
            }
            (whole, parts) => assert_eq!(whole.is_err(), parts.is_err(), "{text:?}"),
        }
    }
});
