#![no_main]
use mdlm::data::detokenize::detokenize;
use mdlm::manifest::source::Detokenizer;

libfuzzer_sys::fuzz_target!(|text: &str| {
    for by in [
        Detokenizer::Ptb,
        Detokenizer::Wikitext,
        Detokenizer::Lm1b,
        Detokenizer::Lambada,
        Detokenizer::ScientificPapers,
    ] {
        let _ = detokenize(by, text);
    }
});
