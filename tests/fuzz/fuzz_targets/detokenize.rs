#![no_main]
use mdlm::data::detokenize::detokenize_by_all;
use mdlm::manifest::detokenize::{Detokenization, Detokenizer, Spelling};

libfuzzer_sys::fuzz_target!(|text: &str| {
    for rules in [
        Detokenizer::Ptb,
        Detokenizer::Wikitext,
        Detokenizer::Lm1b,
        Detokenizer::Lambada,
        Detokenizer::ScientificPapers,
    ] {
        for spelling in [Spelling::Natural, Spelling::Published] {
            let _ = detokenize_by_all(&[Detokenization { rules, spelling }], text);
        }
    }
});
