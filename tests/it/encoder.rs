//! Token ids of published vocabularies, against the `tokenizers` library. The files are not ours to publish: the tests look
//! for them in `../shared/kit` and say so when they are not there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use mdlm::data::encoder::Encoders;
use mdlm::data::tokenizer::Tokenizer;
use mdlm::manifest::{BertFile, Gpt2Files};
use proptest::prelude::*;

/// The files of a `.tar.zst` of the kit, by the last part of their names.
fn kit(archive: &str) -> Option<HashMap<String, Vec<u8>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/kit")
        .join(archive);
    let Ok(packed) = std::fs::File::open(&path) else {
        eprintln!("skipped: there is no `{}`", path.display());
        return None;
    };
    let bytes = zstd::decode_all(packed).unwrap();
    let mut files = HashMap::new();
    let mut at = 0;
    // A block of 512 bytes has the name and, in octal digits, the size (POSIX.1-1988, ustar).
    while bytes.get(at).is_some_and(|&byte| byte != 0) {
        let text = |range: std::ops::Range<usize>| {
            let field = bytes[at..][range].split(|&byte| byte == 0 || byte == b' ');
            String::from_utf8(field.into_iter().next().unwrap().to_vec()).unwrap()
        };
        let size = usize::from_str_radix(&text(124..136), 8).unwrap();
        let name = text(0..100);
        let name = name.rsplit('/').next().unwrap().to_owned();
        files.insert(name, bytes[at + 512..][..size].to_vec());
        at += 512 + size.next_multiple_of(512);
    }
    Some(files)
}

/// GPT-2's and BERT's tokenizers, and WikiText; nothing without the kit.
fn published() -> Option<(Vec<Tokenizer>, String)> {
    let files = kit("tokenizers.tar.zst")?;
    let mut texts = kit("wikitext.tar.zst")?;
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, &files[name]).unwrap();
        path
    };
    let name = |name: &str| put(name).to_str().unwrap().to_owned();
    let here = Path::new("");
    let gpt2 = Gpt2Files {
        vocabulary: name("encoder.json"),
        merges: name("vocab.bpe"),
    };
    let mut all = vec![Tokenizer::gpt2(&gpt2, here).unwrap()];
    for lowercase in [true, false] {
        let bert = BertFile {
            vocabulary: name("vocab.txt"),
            lowercase,
        };
        all.push(Tokenizer::bert(&bert, here).unwrap());
    }
    let text = String::from_utf8(texts.remove("wiki.valid.raw").unwrap()).unwrap();
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
