#![no_main]
use std::path::PathBuf;
use std::sync::LazyLock;

use mdlm::weights::import::ForeignCheckpoint;

static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("mdlm-fuzz-{}.ckpt", std::process::id())));

// A file of any format is weights whose shape is guessed, or an error of the input.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    std::fs::write(&*FILE, bytes).expect("write the checkpoint");
    match ForeignCheckpoint::at(&FILE) {
        Ok(mut checkpoint) => {
            let _ = (checkpoint.guess(), checkpoint.family());
            let sets: Vec<_> = checkpoint.sets().iter().map(|set| set.which).collect();
            for which in sets {
                let _ = checkpoint.not_finite(which);
            }
        }
        Err(error) => assert_eq!(error.kind(), mdlm::error::Kind::Input, "{error}"),
    }
});
