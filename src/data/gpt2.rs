//! GPT-2's byte-level BPE as its two files describe it, without the `tokenizers` object for it: to make that takes as long
//! as to tokenize many megabytes, and what tokenizes here ([`crate::data::encoder`]) asks for it in rare cases alone.

use std::collections::HashSet;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::utils::Lowercase;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use crate::data::vocabulary;
use crate::error::{Error, Kind, Result, Wrap as _};

/// GPT-2's one special token, as in its `encoder.json`.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

/// A vocabulary and its merges.
pub(super) struct Gpt2Vocabulary {
    /// The id of each token.
    pub(super) vocabulary: Vocab,
    /// The merges as text: a line each, the most important first.
    text: String,
    /// The merges: ids of two tokens and of what they make.
    pub(super) merges: Vec<[u32; 3]>,
}

impl Gpt2Vocabulary {
    /// Reads `vocab.json` and `merges.txt`.
    ///
    /// # Errors
    /// A file is absent or not what it should be.
    pub(super) fn read(vocabulary: &Path, merges: &Path, warnings: &mut Vec<String>) -> Result<Self> {
        let vocabulary = read_vocabulary(vocabulary, warnings)?;
        let what = || format!("read `{}`", merges.display());
        let text = vocabulary::read(merges, warnings)?;
        let lines: Vec<(usize, &str)> = lines(&text).collect();
        let merged: Vec<Option<[u32; 3]>> = lines
            .par_iter()
            .map_init(String::new, |made, (_, line)| {
                let (a, b) = line.split_once(' ')?;
                made.clear();
                made.extend([a, b]);
                let id = |token: &str| vocabulary.get(token).copied();
                Some([id(a)?, id(b)?, id(made)?])
            })
            .collect();
        let fault = lines.iter().zip(&merged).find(|(_, merged)| merged.is_none());
        if let Some(((number, line), _)) = fault
            && line.contains('\u{feff}')
        {
            let error = vocabulary::mark_within(line).context(format!("line {}", number + 1));
            return Err(error.context(what()));
        }
        if let Some(((number, line), _)) = fault {
            return Err(Error::input(format!(
                "line {}: `{line}` is not two tokens of the vocabulary that make a third",
                number + 1
            ))
            .context(what()));
        }
        let merged = merged.into_iter().flatten().collect();
        Ok(Self {
            vocabulary,
            text,
            merges: merged,
        })
    }

    /// Whether the ids are those below their number and no merge is there twice: then an appended token has the next id,
    /// and [`Gpt2Vocabulary::json`] is what `tokenizers` writes.
    pub(super) fn is_plain(&self) -> bool {
        let mut seen = vec![false; self.vocabulary.len()];
        let mut is_new = |&id: &u32| {
            let seen = seen.get_mut(id as usize);
            seen.is_some_and(|seen| !std::mem::replace(seen, true))
        };
        let mut pairs = HashSet::with_capacity(self.merges.len());
        self.vocabulary.values().all(&mut is_new) && self.merges.iter().all(|&[a, b, _]| pairs.insert((a, b)))
    }

    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        lines(&self.text).filter_map(|(_, line)| line.split_once(' '))
    }

    /// What `tokenizers` makes of it, with the tokens that are special.
    ///
    /// # Errors
    /// Internal error: the `tokenizers` library fails.
    pub(super) fn tokenizer(&self, special: &[&str]) -> Result<Tokenizer> {
        let pairs = self.pairs().map(|(a, b)| (a.to_owned(), b.to_owned()));
        byte_level(self.vocabulary.clone(), pairs.collect(), special, false)
    }

    /// What `tokenizers` writes of a [plain](Files::is_plain) one, where `appended` is special beside [`END_OF_TEXT`].
    ///
    /// # Errors
    /// Internal error: the `tokenizers` library fails.
    pub(super) fn json(&self, appended: &str) -> Result<String> {
        const ADDED: &str = "\"added_tokens\": []";
        const VOCABULARY: &str = "\"vocab\": {";
        let what = || "write a tokenizer".to_owned();
        let unforeseen = || Error::internal("a tokenizer is written otherwise than it was");
        let escaped = |text: &str| serde_json::to_string(text).wrap(Kind::Internal, what);
        // All but tokens and merges. The one token that there has to be gets no id without one before it: of such gaps the
        // library complains on the standard output.
        let small = byte_level(
            Vocab::from_iter([(END_OF_TEXT.to_owned(), 0)]),
            Vec::new(),
            &[],
            false,
        )?;
        let small = small.to_string(true).wrap(Kind::Internal, what)?;
        let (before, _) = small.split_once(VOCABULARY).ok_or_else(unforeseen)?;
        let (start, parts) = before.split_once(ADDED).ok_or_else(unforeseen)?;
        let id = |token: &str| self.vocabulary.get(token).copied();
        let special =
            [END_OF_TEXT, appended].map(|token| (id(token).unwrap_or(self.vocabulary.len() as u32), token));
        let mut added = Vec::new();
        for (id, token) in special {
            let content = escaped(token)?;
            added.push(format!(
                "\n    {{\n      \"id\": {id},\n      \"content\": {content},\n      \"single_word\": false,\n      \
                 \"lstrip\": false,\n      \"rstrip\": false,\n      \"normalized\": false,\n      \"special\": \
                 true\n    }}"
            ));
        }
        let before = format!("{start}\"added_tokens\": [{}\n  ]{parts}", added.join(","));
        let mut tokens: Vec<(u32, &str)> = (self.vocabulary.iter())
            .map(|(token, &id)| (id, token.as_str()))
            .collect();
        tokens.sort_unstable();
        let mut json = Vec::with_capacity(2 * self.text.len() + 64 * tokens.len());
        json.extend_from_slice(before.as_bytes());
        json.extend_from_slice(VOCABULARY.as_bytes());
        let mut write = |text: &str, token: &str| {
            json.extend_from_slice(text.as_bytes());
            // Escaped where it must be, as the library does.
            serde_json::to_writer(&mut json, token).wrap(Kind::Internal, what)
        };
        let mut between = String::from("\n      ");
        for (id, token) in tokens {
            write(&between, token)?;
            between = format!(": {id},\n      ");
        }
        // The last one goes on otherwise.
        let mut between = between.replace(",\n      ", "\n    },\n    \"merges\": [\n      [\n        ");
        let mut none = true;
        for (a, b) in self.pairs() {
            write(&between, a)?;
            write(",\n        ", b)?;
            "\n      ],\n      [\n        ".clone_into(&mut between);
            none = false;
        }
        let end = if none {
            between.replace("[\n      [\n        ", "[]\n  }\n}")
        } else {
            "\n      ]\n    ]\n  }\n}".to_owned()
        };
        json.extend_from_slice(end.as_bytes());
        String::from_utf8(json).wrap(Kind::Internal, what)
    }
}

/// The lines of merges with their numbers, from 0.
fn lines(merges: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_merge =
        |&(number, line): &(usize, &str)| !(line.is_empty() || (number == 0 && line.starts_with("#version")));
    merges.lines().enumerate().filter(is_merge)
}

fn read_vocabulary(path: &Path, warnings: &mut Vec<String>) -> Result<Vocab> {
    let what = || format!("read `{}`", path.display());
    let text = vocabulary::read(path, warnings)?;
    // As it should be, at once; else token by token, to say which is at fault.
    let vocabulary: Vocab = if let Ok(vocabulary) = serde_json::from_str(&text) {
        vocabulary
    } else {
        if let Some(fault) = vocabulary::json_fault(&text) {
            let what = vocabulary::reading(path, &text, "");
            return Err(fault.context(what));
        }
        let tokens: Map<String, Value> = serde_json::from_str(&text).wrap(Kind::Input, what)?;
        let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
        let fault = tokens.iter().find(|(_, value)| id(value).is_none());
        let (token, id) = fault.ok_or_else(|| Error::internal("a vocabulary is read in one way only"))?;
        let error = Error::input(format!("token `{token}` has the id {id}")).context(what());
        return Err(if tokens.contains_key("model") {
            error.hint("this is a complete `tokenizer.json`: use it with kind `file`")
        } else {
            error
        });
    };
    if !vocabulary.contains_key(END_OF_TEXT) {
        return Err(Error::input(format!("there is no token `{END_OF_TEXT}`"))
            .context(what())
            .hint("for a vocabulary with other special tokens, use a `tokenizer.json` with kind `file`"));
    }
    Ok(vocabulary)
}

/// A byte-level BPE; `special` are tokens of the vocabulary, or are appended to it.
pub(super) fn byte_level(
    vocabulary: Vocab,
    merges: Vec<(String, String)>,
    special: &[&str],
    lowercase: bool,
) -> Result<Tokenizer> {
    // Put together here: by way of a `tokenizer.json` it takes several times as long.
    let model = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .build()
        .wrap(Kind::Internal, || "build the BPE tokenizer".to_owned())?;
    let mut inner = Tokenizer::new(model);
    if lowercase {
        inner.with_normalizer(Some(Lowercase));
    }
    let bytes = ByteLevel::new(false, true, true);
    inner.with_pre_tokenizer(Some(bytes));
    inner.with_decoder(Some(bytes));
    let special: Vec<_> = special.iter().map(|&name| AddedToken::from(name, true)).collect();
    inner.add_special_tokens(&special);
    inner.set_encode_special_tokens(true);
    Ok(inner)
}
