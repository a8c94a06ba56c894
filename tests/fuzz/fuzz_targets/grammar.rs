#![no_main]
use mdlm::rng::{Random, Stream};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(grammar) = mdlm::data::grammar::Grammar::parse(text, "a.grammar")
    {
        let _ = grammar.record(Random::new(1, Stream::Synthetic), 0);
        let _ = grammar.entropy().bits_per_byte();
    }
});
