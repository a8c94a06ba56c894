//! How many bytes of text the first tokens of a record stand for.
//!
//! A tokens artifact has the bytes of a record and not those of its tokens. What a token spells is in the tokenizer's
//! vocabulary: of a byte-level one its bytes, exactly; of one of characters its character; of others the piece without
//! its marks (`##`, `▁`, `</w>`), where white space between words is not a token's. With `s` the bytes that tokens spell, and
//! `g` the gaps that may lie before them, the first k tokens of a record of `n` bytes stand for
//!
//! ```text
//! Σ_k s + (n − Σ s) · Σ_k g / Σ g
//! ```
//!
//! bytes: exact where tokens spell all of the text, and elsewhere where white space lies as it does in most text, before
//! words and opening marks and not behind apostrophes and hyphens; else off by a few bytes for a record that is cut.

use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use crate::error::{Context as _, Kind, Result, Wrap as _};

/// White space in the pieces of SentencePiece.
const METASPACE: char = '▁';
/// Marks that have white space before them and none behind.
const OPENING: &str = "([{<$£€#@";
/// Marks that have none on either side.
const JOINING: &str = "'’-/_&\\";
/// Bytes of a word that became the unknown token, its gap included: about the mean of English text.
const UNKNOWN: u32 = 6;

/// What the tokens of a vocabulary spell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spelling {
    /// By id: bytes that a token spells.
    spelled: Vec<u32>,
    /// By id: weight of what may lie before it and is not a token's.
    gaps: Vec<u32>,
    /// By id: whether there is no gap behind it.
    joins: Vec<bool>,
    /// By id: the white space that it spells.
    spaces: Vec<Spaces>,
}

/// The ASCII white space that a token spells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Spaces {
    /// None.
    #[default]
    Nowhere,
    /// At its start alone: it begins a word.
    Before,
    /// One space and nothing else.
    Single,
    /// Nothing but white space.
    Only,
    /// Within or behind other text.
    Within,
}

impl Spaces {
    fn of(spelled: impl Iterator<Item = char>) -> Self {
        let spelled: Vec<char> = spelled.collect();
        let is_space = |c: &char| matches!(c, ' ' | '\t'..='\r');
        let before = spelled.iter().take_while(|c| is_space(c)).count();
        match (before, spelled.len()) {
            _ if spelled[before..].iter().any(is_space) => Self::Within,
            (0, _) => Self::Nowhere,
            (1, 1) if spelled[0] == ' ' => Self::Single,
            (before, all) if before == all => Self::Only,
            _ => Self::Before,
        }
    }
}

impl Spelling {
    /// Reads a `tokenizer.json` whose ids are below `vocabulary`.
    ///
    /// # Errors
    /// The file is absent or no JSON.
    pub fn open(path: &Path, vocabulary: u32) -> Result<Self> {
        let what = || format!("read `{}`", path.display());
        let text = std::fs::read(path).context(what)?;
        let json: Value = serde_json::from_slice(&text).wrap(Kind::Input, what)?;
        Ok(Self::of(&json, vocabulary as usize))
    }

    fn of(json: &Value, size: usize) -> Self {
        let model = &json["model"];
        let text = |field: &str| model[field].as_str().unwrap_or_default();
        let byte_level =
            has_kind(&json["decoder"], "ByteLevel") || has_kind(&json["pre_tokenizer"], "ByteLevel");
        let (prefix, suffix, unknown) = (
            text("continuing_subword_prefix"),
            text("end_of_word_suffix"),
            text("unk_token"),
        );
        // Of what is split at white space, the white space is lost; pieces of SentencePiece have it.
        let metaspace =
            has_kind(&json["decoder"], "Metaspace") || has_kind(&json["pre_tokenizer"], "Metaspace");
        let mut spelling = Self {
            spelled: vec![0; size],
            gaps: vec![0; size],
            joins: vec![false; size],
            spaces: vec![Spaces::Nowhere; size],
        };
        for (token, id) in vocabulary(model) {
            let (mut spelled, mut gap, mut joins, mut spaces) = (0, 0, false, Spaces::Nowhere);
            if byte_level {
                spelled = token.chars().count();
                spaces = Spaces::of(token.chars().map(byte_of_space));
            } else if token == unknown || model["unk_id"] == id {
                gap = UNKNOWN;
            } else if model["byte_fallback"] == true && is_byte(token) {
                spelled = 1;
            } else {
                let rest = token.strip_prefix(prefix).filter(|_| !prefix.is_empty());
                let begins = rest.is_none();
                let piece = rest.unwrap_or(token);
                let piece = piece.strip_suffix(suffix).unwrap_or(piece);
                let metaspaces = piece.chars().filter(|&c| metaspace && c == METASPACE).count();
                spelled = piece.len() - metaspaces * (METASPACE.len_utf8() - 1);
                let plain = |c| if metaspace && c == METASPACE { ' ' } else { c };
                spaces = Spaces::of(piece.chars().map(plain));
                let word = |c: char| c.is_alphanumeric() || OPENING.contains(c);
                gap = u32::from(begins && !metaspace && piece.starts_with(word));
                joins = piece.ends_with(|c| OPENING.contains(c) || JOINING.contains(c));
            }
            let Some(id) = usize::try_from(id).ok().filter(|&id| id < size) else {
                continue;
            };
            spelling.spelled[id] = spelled as u32;
            spelling.gaps[id] = gap;
            spelling.joins[id] = joins;
            spelling.spaces[id] = spaces;
        }
        spelling
    }

    /// The bytes of the first `kept` of a record's tokens, given the bytes of the whole record.
    ///
    /// # Panics
    /// When there are fewer tokens.
    #[must_use]
    pub fn bytes_of_first(&self, kept: usize, tokens: &[u32], bytes: u64) -> u64 {
        let (first, rest) = tokens.split_at(kept);
        if rest.is_empty() {
            return bytes;
        }
        let (spelled, gaps) = self.sums(None, first);
        let (more, more_gaps) = self.sums(first.last().copied(), rest);
        let all = spelled + more;
        if all > bytes {
            // A space that was put before the text, or a text that grew when it was normalized.
            let excess = all - bytes;
            return if excess <= 1 {
                spelled.saturating_sub(excess)
            } else {
                share(bytes, spelled, all)
            };
        }
        match gaps + more_gaps {
            0 => spelled + share(bytes - all, kept as u64, tokens.len() as u64),
            gaps_of_all => spelled + share(bytes - all, gaps, gaps_of_all),
        }
    }

    /// Whether tokens spell white space, which separates words.
    #[must_use]
    pub fn has_spaces(&self) -> bool {
        self.spaces
            .iter()
            .any(|spaces| matches!(spaces, Spaces::Before | Spaces::Single))
    }

    /// The bytes that tokens spell.
    #[must_use]
    pub fn bytes_spelled(&self, tokens: &[u32]) -> u64 {
        self.sums(None, tokens).0
    }

    /// The tokens of the last word of a text: what follows its last white space, but for white space at its end. A single space
    /// before it goes with it, in its first token or as a token of its own. Nothing where there is no word, or where its first
    /// token is partly of the word before.
    #[must_use]
    pub fn last_word(&self, tokens: &[u32]) -> Option<Range<usize>> {
        let of = |token: &u32| {
            self.spaces
                .get(*token as usize)
                .copied()
                .unwrap_or(Spaces::Nowhere)
        };
        let last = tokens
            .iter()
            .rposition(|token| !matches!(of(token), Spaces::Single | Spaces::Only))?;
        let mut start = last;
        loop {
            match of(&tokens[start]) {
                Spaces::Before => break,
                Spaces::Within => return None,
                Spaces::Nowhere | Spaces::Single | Spaces::Only => {}
            }
            match start.checked_sub(1).map(|before| of(&tokens[before])) {
                Some(Spaces::Single) => {
                    start -= 1;
                    break;
                }
                None | Some(Spaces::Only) => break,
                Some(_) => start -= 1,
            }
        }
        Some(start..last + 1)
    }

    /// What tokens spell, and the gaps before them, behind a token that may be there.
    fn sums(&self, mut before: Option<u32>, tokens: &[u32]) -> (u64, u64) {
        let of = |all: &[u32], id: u32| u64::from(all.get(id as usize).copied().unwrap_or(0));
        let (mut spelled, mut gaps) = (0, 0);
        for &id in tokens {
            spelled += of(&self.spelled, id);
            // Nothing lies before the first token. An unknown word is more than a gap.
            let none = before.is_none_or(|before| self.joins.get(before as usize) == Some(&true));
            gaps += of(&self.gaps, id).saturating_sub(u64::from(none));
            before = Some(id);
        }
        (spelled, gaps)
    }
}

/// `whole · part / parts`, rounded.
#[must_use]
pub fn share(whole: u64, part: u64, parts: u64) -> u64 {
    let parts = u128::from(parts.max(1));
    ((u128::from(whole) * u128::from(part) + parts / 2) / parts) as u64
}

/// The tokens of a model with their ids.
fn vocabulary(model: &Value) -> Vec<(&str, u64)> {
    match &model["vocab"] {
        Value::Object(tokens) => tokens
            .iter()
            .filter_map(|(token, id)| Some((token.as_str(), id.as_u64()?)))
            .collect(),
        // Unigram: pieces with their scores, in the order of their ids.
        Value::Array(pieces) => pieces
            .iter()
            .zip(0..)
            .filter_map(|(piece, id)| Some((piece.get(0)?.as_str()?, id)))
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether a part of a tokenizer, or one of a sequence, is of that kind.
fn has_kind(part: &Value, kind: &str) -> bool {
    if part["type"] == kind {
        return true;
    }
    ["decoders", "pretokenizers"]
        .iter()
        .filter_map(|field| part[*field].as_array())
        .flatten()
        .any(|part| has_kind(part, kind))
}

/// The white space that a character of the byte-level alphabet stands for, or the character: bytes up to that of the space stand
/// 256 further on.
fn byte_of_space(character: char) -> char {
    match character {
        '\u{109}'..='\u{10D}' | '\u{120}' => {
            u8::try_from(u32::from(character) - 0x100).map_or(character, char::from)
        }
        other => other,
    }
}

/// Whether a token is a byte that has no other: `<0x0A>`.
fn is_byte(token: &str) -> bool {
    token.len() == 6 && token.starts_with("<0x") && token.ends_with('>')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spelling_of_byte_and_character_tokens_is_exact() {
        // `Ġ` is the space and `Ã` and `©` the two bytes of é.
        let bytes = Spelling::of(
            &json!({
                "decoder": { "type": "Sequence", "decoders": [{ "type": "ByteLevel" }] },
                "model": { "type": "BPE", "vocab": { "Ġthe": 0, "Ã": 1, "©": 2, "cafes": 3 } },
            }),
            10,
        );
        assert_eq!(bytes.bytes_of_first(2, &[3, 0, 1, 2], 11), 9);
        assert_eq!(bytes.bytes_of_first(3, &[3, 0, 1, 2], 11), 10);
        assert_eq!(bytes.bytes_of_first(4, &[3, 0, 1, 2], 11), 11);
        // With a space put before the text, which is not the text's.
        assert_eq!(bytes.bytes_of_first(1, &[0, 0], 7), 3);
        let characters = Spelling::of(
            &json!({
                "model": { "type": "WordLevel", "vocab": { "[PAD]": 0, "a": 4, "é": 5, " ": 6 }, "unk_token": "?" },
            }),
            10,
        );
        assert_eq!(characters.bytes_of_first(3, &[4, 5, 6, 4], 5), 4);
        assert_eq!(characters.bytes_of_first(0, &[4, 5, 6, 4], 5), 0);
    }

    #[test]
    fn last_word_of_tokens_has_its_leading_space() {
        let bytes = Spelling::of(
            &json!({
                "decoder": { "type": "ByteLevel" },
                "model": { "type": "BPE", "vocab": {
                    "Ġthe": 0, "Ġcat": 1, "s": 2, "Ċ": 3, "Ġ": 4, "The": 5, "'": 6, "ĠĠ": 7, "a\u{120}b": 8,
                } },
            }),
            10,
        );
        assert!(bytes.has_spaces());
        let of = |tokens: &[u32]| bytes.last_word(tokens);
        // `The the cats`, `The the cat's`, with white space behind it, one word alone.
        assert_eq!(of(&[5, 0, 1, 2]), Some(2..4));
        assert_eq!(of(&[5, 0, 1, 6, 2]), Some(2..5));
        assert_eq!(of(&[5, 0, 1, 3, 4]), Some(2..3));
        assert_eq!(of(&[5]), Some(0..1));
        assert_eq!(of(&[5, 2, 3]), Some(0..2));
        // A line feed is not the word's, nor are two spaces.
        assert_eq!(of(&[0, 3, 5, 2]), Some(2..4));
        assert_eq!(of(&[0, 7, 5]), Some(2..3));
        assert_eq!(of(&[0, 4, 5]), Some(1..3));
        assert_eq!(of(&[3, 4]), None);
        assert_eq!(of(&[]), None);
        // A token of two words.
        assert_eq!(of(&[0, 8, 2]), None);
        assert_eq!(of(&[8, 0]), Some(1..2));
        assert_eq!(bytes.bytes_spelled(&[1, 6, 2]), 6);
        let characters = Spelling::of(
            &json!({ "model": { "type": "WordLevel", "vocab": { "[PAD]": 0, "a": 4, "b": 5, " ": 6 } } }),
            10,
        );
        assert_eq!(characters.last_word(&[4, 6, 5, 4]), Some(1..4));
        let pieces = Spelling::of(
            &json!({ "decoder": { "type": "Metaspace" }, "model": { "type": "Unigram", "vocab": [
                ["▁the", -1.0], ["▁", -1.0], ["cat", -1.0], ["s", -1.0] ] } }),
            10,
        );
        assert_eq!(pieces.last_word(&[0, 1, 2, 3]), Some(1..4));
        // Of words without the white space between them, the last is not known.
        let words = Spelling::of(
            &json!({ "model": { "type": "WordPiece", "continuing_subword_prefix": "##", "vocab": { "the": 0, "##s": 1 } } }),
            10,
        );
        assert!(!words.has_spaces());
    }

    #[test]
    fn spelling_shares_out_white_space_that_no_token_has() {
        let pieces = Spelling::of(
            &json!({
                "decoder": { "type": "WordPiece", "prefix": "##" },
                "model": {
                    "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                    "vocab": { "[UNK]": 0, "the": 1, "cat": 2, "##s": 3, ".": 4, "sat": 5 },
                },
            }),
            10,
        );
        // `the cats sat.`
        let tokens = [1, 2, 3, 5, 4];
        let ends: Vec<u64> = (0..=5)
            .map(|kept| pieces.bytes_of_first(kept, &tokens, 13))
            .collect();
        assert_eq!(ends, [0, 3, 7, 8, 12, 13]);
        // Behind an apostrophe and a hyphen there is none, before a parenthesis there is: `the cat-cat's (sat)`.
        let marks = Spelling::of(
            &json!({
                "model": {
                    "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                    "vocab": { "the": 1, "cat": 2, "s": 3, "-": 4, "'": 5, "(": 6, ")": 7, "sat": 8 },
                },
            }),
            10,
        );
        let tokens = [1, 2, 4, 2, 5, 3, 6, 8, 7];
        let ends: Vec<u64> = (1..=9)
            .map(|kept| marks.bytes_of_first(kept, &tokens, 19))
            .collect();
        assert_eq!(ends, [3, 7, 8, 11, 12, 13, 15, 18, 19]);
        // `the ######## sat`: what was lost is the unknown token's.
        assert_eq!(pieces.bytes_of_first(1, &[1, 0, 5], 16), 3);
        assert_eq!(pieces.bytes_of_first(2, &[1, 0, 5], 16), 12);
    }

    #[test]
    fn spelling_of_sentencepiece_includes_spaces() {
        let pieces = Spelling::of(
            &json!({
                "decoder": { "type": "Metaspace" },
                "model": {
                    "type": "Unigram", "byte_fallback": true,
                    "vocab": [["<unk>", 0.0], ["▁the", -1.0], ["▁cat", -1.0], ["s", -1.0], ["<0xC3>", -1.0], ["<0xA9>", -1.0]],
                },
            }),
            10,
        );
        // `the catsé`, with a space put before it.
        let tokens = [1, 2, 3, 4, 5];
        assert_eq!(pieces.bytes_of_first(2, &tokens, 10), 7);
        assert_eq!(pieces.bytes_of_first(3, &tokens, 10), 8);
    }
}
