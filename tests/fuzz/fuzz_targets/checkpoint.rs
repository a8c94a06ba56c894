#![no_main]
use std::path::PathBuf;
use std::sync::LazyLock;

use mdlm::manifest::Weights;
use mdlm::weights::import::ForeignCheckpoint;
use mdlm_fuzz::{archive, is_pickle};

static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("mdlm-fuzz-{}.ckpt", std::process::id())));

// A file of any format, or a pickle in an archive, is weights whose shape is guessed and a training that may be continued, or an
// error of the input.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let file = if is_pickle(bytes) { archive(bytes) } else { bytes.to_vec() };
    std::fs::write(&*FILE, file).expect("write the checkpoint");
    match ForeignCheckpoint::at(&FILE) {
        Ok(mut checkpoint) => {
            let _ = (checkpoint.family(), checkpoint.contradiction(), checkpoint.tokenizer());
            if let Some(guess) = checkpoint.guess() {
                let shape = guess.shape();
                let _ = (guess.way_out(), checkpoint.run(&shape, guess.backbone));
                for which in [Weights::Ema, Weights::Raw] {
                    if checkpoint.choose(Some(which)).is_ok() {
                        let _ = checkpoint.check(&shape, guess.backbone, which);
                    }
                }
            }
            let sets: Vec<_> = checkpoint.sets().iter().map(|set| set.which).collect();
            for which in sets {
                let _ = checkpoint.not_finite(which);
            }
        }
        Err(error) => assert_eq!(error.kind(), mdlm::error::Kind::Input, "{error}"),
    }
});
