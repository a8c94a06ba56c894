//! Token ids of published vocabularies, against the `tokenizers` library: the files are those of the kit (`support::kit`).

use std::path::Path;

use mdlm::data::encoder::Encoders;
use mdlm::data::tokenizer::Tokenizer;
use mdlm::manifest::{BertFile, Gpt2Files};
use proptest::prelude::*;

use crate::support::kit;

/// GPT-2's and BERT's tokenizers, and WikiText; nothing without the kit.
fn published() -> Option<(Vec<Tokenizer>, String)> {
    let (files, texts) = (kit("tokenizers.tar.zst")?, kit("wikitext.tar.zst")?);
    let name = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let here = Path::new("");
    let gpt2 = Gpt2Files {
        vocabulary: name("gpt2-bpe/encoder.json"),
        merges: name("gpt2-bpe/vocab.bpe"),
    };
    let mut all = vec![Tokenizer::gpt2(&gpt2, here).unwrap()];
    for lowercase in [true, false] {
        let bert = BertFile {
            vocabulary: name("bert-base-uncased/vocab.txt"),
            lowercase,
        };
        all.push(Tokenizer::bert(&bert, here).unwrap());
    }
    let text = std::fs::read_to_string(texts.path().join("wikitext-2-raw/wiki.valid.raw")).unwrap();
    Some((all, text))
}

#[test]
fn encoder_ids_of_published_vocabularies_are_those_of_the_library() {
    let Some((tokenizers, text)) = published() else {
        return;
    };
    for tokenizer in &tokenizers {
        let encoders = Encoders::new(tokenizer, 0).unwrap();
        let same = |text: &str| {
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            let unknown = tokenizer.encode(text, &mut expected).unwrap();
            let counted = encoders.lend(|encoder| encoder.encode(text, &mut found)).unwrap();
            assert_eq!((counted, &found), (unknown, &expected), "{text:?}");
        };
        // Every second time they are looked up.
        text.lines().chain(text.lines().take(500)).for_each(same);
        let strange = prop_oneof![
            3 => "[ -~]{0,24}",
            2 => any::<String>(),
            2 => "[ a-zA-Zé中'’\u{301}½\u{a0}\n0-9.,-]{0,40}",
        ];
        proptest!(ProptestConfig::with_cases(2000), |(text in strange)| same(&text));
    }
}
