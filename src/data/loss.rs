//! What the tokens of a text leave out of it.
//!
//! Bits per byte bound a text only where its tokens are those of no other text. Two things may be in the way:
//!
//! * **Lost text**: characters that no token spells. An unknown token stands for some; a byte-pair encoding without an
//!   unknown token drops them. They are counted, and what it takes to spell them out by a fixed code is added to bits per
//!   byte: [`BITS_OF_BYTE`] for each byte and as many for an end mark (a byte that UTF-8 never has) behind each unknown
//!   token. Where there is no unknown token, each gap also has its place, [`BITS_OF_PLACE`] bits, and a bit that says
//!   whether another one follows. One bit a record says whether it has any.
//!   What a pre-tokenizer removes, or a normalizer replaces by nothing, is lost as well, but for white space, control
//!   characters and combining marks: it is a gap for each run of such characters.
//! * **Normalized text**: letter case, accents, white space or forms of characters are changed before the model sees the
//!   text. No price is set on that: bits per byte are then those of the text as the tokenizer normalizes it, and say so.
//!
//! Which text is changed is found word by word: the words that the model sees, spelled back (`▁` is a space, a byte-level
//! word is its bytes), have to be the text, one after another. BERT's words never contain white space, so that every text
//! counts as changed; lower-casing changes the texts with capital letters.

use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    Model as _, NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer as _, Token, Tokenizer,
};

use crate::data::byte_spelling::byte_of;
use crate::data::chunks::Cutter;
use crate::error::guarded;

/// Bits that spell out a byte of lost text.
pub const BITS_OF_BYTE: u64 = 8;
/// Bits that say where in its record lost text without a token of its own lies: a record has less than 2^32 bytes.
pub const BITS_OF_PLACE: u64 = 32;

/// SentencePiece's sign for a space.
const SPACE_SIGN: char = '\u{2581}';

/// What the tokens of a text leave out of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Tokens that are the unknown token.
    pub unknown: u64,
    /// Characters that no token spells.
    pub characters: u64,
    /// Bytes that no token spells.
    pub bytes: u64,
    /// Bits that spell them out.
    pub bits: u64,
    /// Whether other texts, normalized, have the same tokens.
    pub changed: bool,
}

impl Loss {
    /// Adds what another text loses.
    pub fn add(&mut self, other: Self) {
        self.unknown += other.unknown;
        self.characters += other.characters;
        self.bytes += other.bytes;
        self.bits += other.bits;
        self.changed |= other.changed;
    }
}

/// What a tokenizer may lose.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent properties of a tokenizer"
)]
pub(super) struct TextLosses {
    /// How its text is cut, if it may be.
    cutter: Option<Cutter>,
    /// Whether text is lower-cased where it is cut by [`Cutter::ByteLevel`].
    lowercase: bool,
    /// Whether the words that the model sees spell bytes.
    byte_level: bool,
    /// Whether words have a sign in place of a space.
    signs_space: bool,
    /// Whether a space at the start of a text is the same as none.
    swallows_space: bool,
    /// Whether the model leaves out what it does not know.
    drops: bool,
    /// The unknown token.
    unknown: Option<u32>,
}

impl TextLosses {
    /// What GPT-2's two files lose: nothing where the vocabulary has every byte.
    pub(super) fn of_gpt2(has: impl Fn(&str) -> bool) -> Self {
        Self {
            cutter: Some(Cutter::ByteLevel),
            lowercase: false,
            byte_level: true,
            signs_space: false,
            swallows_space: false,
            drops: !has_every_byte(has),
            unknown: None,
        }
    }

    /// What is known of a tokenizer.
    pub(super) fn of(inner: &Tokenizer, unknown: Option<u32>) -> Self {
        let words = |text: &str| -> Option<Vec<String>> {
            let pieces = guarded(|| pieces(inner, text)).ok()?.ok()?;
            let words = pieces.get_splits(OffsetReferential::Normalized, OffsetType::None);
            Some(words.into_iter().map(|(word, _, _)| word.to_owned()).collect())
        };
        let byte_level = words("\u{e9}").is_some_and(|words| words.concat().contains("Ã©"));
        let drops = match inner.get_model() {
            ModelWrapper::BPE(model) => model.unk_token.is_none() && !is_complete(model, byte_level),
            _ => false,
        };
        Self {
            cutter: Cutter::of(inner),
            lowercase: matches!(inner.get_normalizer(), Some(NormalizerWrapper::Lowercase(_))),
            byte_level,
            signs_space: words("a a").is_some_and(|words| words.concat().contains(SPACE_SIGN)),
            swallows_space: words("a") == words(" a"),
            drops,
            unknown,
        }
    }

    /// Whether text may be lost without an unknown token for it.
    pub(super) fn drops(&self) -> bool {
        self.drops
    }

    /// Whether the tokens of a text that is cut are those of other texts, too.
    pub(super) fn changes(&self, text: &str) -> bool {
        match self.cutter {
            Some(Cutter::Bert { .. }) => !text.is_empty(),
            Some(Cutter::ByteLevel) if self.lowercase => {
                text.bytes().any(|byte| byte.is_ascii_uppercase())
                    || !text.is_ascii() && text.chars().flat_map(char::to_lowercase).ne(text.chars())
            }
            Some(Cutter::ByteLevel) | None => false,
        }
    }

    /// Appends the ids that `tokenizers` makes of a text.
    ///
    /// # Errors
    /// The `tokenizers` library fails; the error has its message.
    pub(super) fn encode(
        &self,
        inner: &Tokenizer,
        text: &str,
        tokens: &mut Vec<u32>,
    ) -> Result<Loss, String> {
        let pieces = pieces(inner, text)?;
        let model = inner.get_model();
        let mut loss = Loss::default();
        let exact = self.cutter.is_some();
        // Text before here is spelled by the words so far, the last of which begins at `begun`.
        let (mut begun, mut at) = (0, 0);
        for (word, (from, to), added) in pieces.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            let is_spelled = if let Some(added) = added {
                tokens.extend(added.iter().map(|token| token.id));
                self.unknown_in(word, added, &mut loss);
                let spelled: String = added
                    .iter()
                    .filter_map(|token| inner.id_to_token(token.id))
                    .collect();
                text.get(from..to) == Some(&*spelled)
            } else {
                let made = model.tokenize(word).map_err(|error| error.to_string())?;
                tokens.extend(made.iter().map(|token| token.id));
                self.unknown_in(word, &made, &mut loss);
                self.dropped(word, &made, model, &mut loss);
                !spells_byte(word, &made, model)
                    && text
                        .get(from..to)
                        .is_some_and(|text| self.spells(word, text, from == 0))
            };
            if !exact {
                self.removed(inner, text, [begun, at, from], &mut loss)?;
            }
            loss.changed |= from != at || !is_spelled;
            (begun, at) = (from, to);
        }
        if exact {
            loss.changed = self.changes(text);
        } else {
            self.removed(inner, text, [begun, at, text.len()], &mut loss)?;
            self.erased(inner, text, &mut loss)?;
            loss.changed |= at != text.len();
        }
        Ok(loss)
    }

    /// Counts what the pre-tokenizer removes between two words: the first from `begun` to `at`, the next from `from` on.
    fn removed(
        &self,
        inner: &Tokenizer,
        text: &str,
        [begun, at, from]: [usize; 3],
        loss: &mut Loss,
    ) -> Result<(), String> {
        let Some(gap) = text
            .get(at..from)
            .filter(|gap| !gap.chars().all(char::is_whitespace))
        else {
            return Ok(());
        };
        let (Some(normalizer), Some(word), Some(whole)) =
            (inner.get_normalizer(), text.get(begun..at), text.get(begun..from))
        else {
            self.gaps(gap, loss);
            return Ok(());
        };
        // A normalizer may compose the word's last character and what follows it, or leave nothing of the gap.
        let (word, whole) = (normalized(normalizer, word)?, normalized(normalizer, whole)?);
        let gap: String = whole.chars().skip(word.chars().count()).collect();
        self.gaps(&gap, loss);
        Ok(())
    }

    /// Counts what normalizers replace by nothing.
    fn erased(&self, inner: &Tokenizer, text: &str, loss: &mut Loss) -> Result<(), String> {
        let Some(normalizer) = inner.get_normalizer().filter(|one| erases(one)) else {
            return Ok(());
        };
        // Added tokens are cut out before the rest is normalized.
        let added = inner.get_added_vocabulary();
        let pieces = added.extract_and_normalize(None::<&NormalizerWrapper>, text);
        for (piece, _, added) in pieces.get_splits(OffsetReferential::Original, OffsetType::Byte) {
            if added.is_none() {
                self.erased_by(normalizer, piece.to_owned(), loss)?;
            }
        }
        Ok(())
    }

    /// Counts what a normalizer replaces by nothing in a text, and returns what it makes of that text.
    fn erased_by(
        &self,
        normalizer: &NormalizerWrapper,
        text: String,
        loss: &mut Loss,
    ) -> Result<String, String> {
        if let NormalizerWrapper::Sequence(steps) = normalizer {
            return steps
                .as_ref()
                .iter()
                .try_fold(text, |text, step| self.erased_by(step, text, loss));
        }
        let made = normalized(normalizer, &text)?;
        if erases(normalizer) {
            // What is left is a part of the text, character by character.
            let mut left = made.chars().peekable();
            let mut gap = String::new();
            for character in text.chars() {
                if left.next_if_eq(&character).is_some() {
                    self.gaps(&std::mem::take(&mut gap), loss);
                } else {
                    gap.push(character);
                }
            }
            self.gaps(&gap, loss);
        }
        Ok(made)
    }

    /// Counts text that no word covers, as it is before it is spelled in bytes.
    fn gaps(&self, text: &str, loss: &mut Loss) {
        let passed_over = |character: char| {
            character.is_whitespace()
                || character.is_control()
                || is_mark(character)
                || self.signs_space && character == SPACE_SIGN
        };
        for gap in text.split(passed_over).filter(|gap| !gap.is_empty()) {
            count(gap.chars().count(), gap.len(), BITS_OF_PLACE + 1, loss);
        }
    }

    /// Counts what unknown tokens stand for.
    fn unknown_in(&self, word: &str, made: &[Token], loss: &mut Loss) {
        for token in made.iter().filter(|token| Some(token.id) == self.unknown) {
            let (from, to) = token.offsets;
            loss.unknown += 1;
            self.lost(word.get(from..to).unwrap_or(word), 0, loss);
        }
    }

    /// Counts the characters of a word that a byte-pair encoding leaves out.
    fn dropped(&self, word: &str, made: &[Token], model: &ModelWrapper, loss: &mut Loss) {
        let covered: usize = made.iter().map(|token| token.offsets.1 - token.offsets.0).sum();
        let ModelWrapper::BPE(model) = model else {
            return;
        };
        if !self.drops || covered >= word.len() {
            return;
        }
        let mut gap: Option<usize> = None;
        for (at, character) in word.char_indices() {
            let end = at + character.len_utf8();
            match (knows(model, character, at == 0, end == word.len()), gap) {
                (false, None) => gap = Some(at),
                (true, Some(from)) => {
                    self.lost(&word[from..at], BITS_OF_PLACE + 1, loss);
                    gap = None;
                }
                _ => {}
            }
        }
        if let Some(from) = gap {
            self.lost(&word[from..], BITS_OF_PLACE + 1, loss);
        }
    }

    /// Counts lost text and what it takes to spell it out, apart from its bytes and their end.
    fn lost(&self, text: &str, more: u64, loss: &mut Loss) {
        let (characters, bytes) = if self.byte_level {
            let bytes = text.chars().count();
            let begins = |&c: &char| byte_of(c).is_some_and(|byte| byte & 0xC0 != 0x80);
            (text.chars().filter(begins).count().max(1), bytes)
        } else {
            (text.chars().count(), text.len())
        };
        count(characters, bytes, more, loss);
    }

    /// Whether a word, as the model sees it, is that text and no other.
    fn spells(&self, word: &str, text: &str, first: bool) -> bool {
        if first && self.swallows_space && text.starts_with(' ') {
            return false;
        }
        if self.byte_level {
            let is = |word: &str| word.chars().map(byte_of).eq(text.bytes().map(Some));
            return is(word) || first && word.strip_prefix('Ġ').is_some_and(is);
        }
        if !self.signs_space {
            return word == text;
        }
        // A sign in the text itself cannot be distinguished from a space any more.
        let spelled = |word: &str| word.replace(SPACE_SIGN, " ");
        let is = |word: &str| !text.contains(SPACE_SIGN) && spelled(word) == text;
        is(word) || first && word.strip_prefix(SPACE_SIGN).is_some_and(is)
    }
}

/// Counts characters and bytes that are lost, and what it takes to spell them out: their bytes, an end and `more` bits.
fn count(characters: usize, bytes: usize, more: u64, loss: &mut Loss) {
    loss.characters += characters as u64;
    loss.bytes += bytes as u64;
    loss.bits += more + BITS_OF_BYTE * (bytes as u64 + 1);
}

/// What a normalizer makes of a text.
///
/// # Errors
/// The `tokenizers` library fails; the error has its message.
fn normalized(normalizer: &NormalizerWrapper, text: &str) -> Result<String, String> {
    let mut made = NormalizedString::from(text);
    normalizer
        .normalize(&mut made)
        .map_err(|error| error.to_string())?;
    Ok(made.get().to_owned())
}

/// Whether a normalizer replaces characters by nothing, whichever its pattern names.
fn erases(normalizer: &NormalizerWrapper) -> bool {
    match normalizer {
        NormalizerWrapper::Sequence(steps) => steps.as_ref().iter().any(erases),
        NormalizerWrapper::Replace(replace) => replace.content.is_empty(),
        _ => false,
    }
}

/// Whether a character is a combining mark or has no width: what accents and forms of characters are made of.
fn is_mark(character: char) -> bool {
    matches!(
        character,
        '\u{AD}'
            | '\u{300}'..='\u{36F}'
            | '\u{483}'..='\u{489}'
            | '\u{591}'..='\u{5BD}'
            | '\u{610}'..='\u{61A}'
            | '\u{64B}'..='\u{65F}'
            | '\u{1AB0}'..='\u{1AFF}'
            | '\u{1DC0}'..='\u{1DFF}'
            | '\u{200B}'..='\u{200F}'
            | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{2064}'
            | '\u{20D0}'..='\u{20FF}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FE20}'..='\u{FE2F}'
            | '\u{FEFF}'
    )
}

/// A text as the model sees it: normalized and cut into words, added tokens cut out.
///
/// # Errors
/// The `tokenizers` library fails; the error has its message.
fn pieces(inner: &Tokenizer, text: &str) -> Result<PreTokenizedString, String> {
    let added = inner.get_added_vocabulary();
    let mut pieces = added.extract_and_normalize(inner.get_normalizer(), text);
    if let Some(cutter) = inner.get_pre_tokenizer() {
        cutter
            .pre_tokenize(&mut pieces)
            .map_err(|error| error.to_string())?;
    }
    Ok(pieces)
}

/// Whether every byte has the token that spells it in a byte-level vocabulary.
fn has_every_byte(has: impl Fn(&str) -> bool) -> bool {
    ByteLevel::alphabet()
        .into_iter()
        .all(|character| has(character.encode_utf8(&mut [0; 4])))
}

/// Whether a byte-pair encoding knows whatever it may see.
fn is_complete(model: &BPE, byte_level: bool) -> bool {
    let has = |token: &str| model.token_to_id(token).is_some();
    let affixes = model.continuing_subword_prefix.is_some() || model.end_of_word_suffix.is_some();
    byte_level && !affixes && has_every_byte(has)
        || model.byte_fallback && (0..=u8::MAX).all(|byte| has(&of_byte(byte)))
}

/// Whether a word has the spelling of a byte, `<0x41>`, whose token is that of the byte: it cannot be distinguished from
/// `A`.
fn spells_byte(word: &str, made: &[Token], model: &ModelWrapper) -> bool {
    let falls_back = match model {
        ModelWrapper::BPE(model) => model.byte_fallback,
        ModelWrapper::Unigram(model) => model.byte_fallback(),
        _ => false,
    };
    falls_back
        && word.contains("<0x")
        && made.iter().any(|token| {
            let (from, to) = token.offsets;
            let byte = token
                .value
                .strip_prefix("<0x")
                .and_then(|value| value.strip_suffix('>'))
                .and_then(|digits| u8::from_str_radix(digits, 16).ok());
            byte.is_some_and(|byte| of_byte(byte) == token.value)
                && word.get(from..to) == Some(token.value.as_str())
        })
}

/// The token that a byte falls back on.
fn of_byte(byte: u8) -> String {
    format!("<{byte:#04X}>")
}

/// Whether a byte-pair encoding knows a character of a word.
fn knows(model: &BPE, character: char, first: bool, last: bool) -> bool {
    let before = model.continuing_subword_prefix.as_deref().filter(|_| !first);
    let after = model.end_of_word_suffix.as_deref().filter(|_| last);
    let symbol = format!(
        "{}{character}{}",
        before.unwrap_or_default(),
        after.unwrap_or_default()
    );
    let has = |token: &str| model.token_to_id(token).is_some();
    has(&symbol) || model.byte_fallback && symbol.bytes().all(|byte| has(&of_byte(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn tokenizer(parts: &Value) -> Tokenizer {
        let mut whole = json!({"version": "1.0", "model": parts["model"], "added_tokens": []});
        for part in ["normalizer", "pre_tokenizer", "added_tokens"] {
            if let Some(given) = parts.get(part) {
                whole[part] = given.clone();
            }
        }
        let mut inner = Tokenizer::from_bytes(whole.to_string()).unwrap();
        inner.set_encode_special_tokens(true);
        inner
    }

    fn added(id: u32, content: &str, special: bool) -> Value {
        json!({"id": id, "content": content, "single_word": false, "lstrip": true, "rstrip": false,
               "normalized": false, "special": special})
    }

    fn of(inner: &Tokenizer, unknown: Option<u32>, text: &str) -> (Vec<u32>, Loss) {
        let mut tokens = vec![7];
        let loss = TextLosses::of(inner, unknown)
            .encode(inner, text, &mut tokens)
            .unwrap();
        let ids = tokens.split_off(1);
        let library = inner.encode_fast(text, false).unwrap();
        assert_eq!(ids, library.get_ids(), "{text:?}");
        (ids, loss)
    }

    /// Characters, bytes and bits that are lost, and whether the text is changed.
    fn loses(parts: &Value, unknown: Option<u32>, cases: &[(&str, [u64; 3], bool)]) {
        let inner = tokenizer(parts);
        for &(text, lost, changed) in cases {
            let (_, loss) = of(&inner, unknown, text);
            assert_eq!([loss.characters, loss.bytes, loss.bits], lost, "{text:?}");
            assert_eq!(loss.changed, changed, "{text:?}");
        }
    }

    #[test]
    fn bpe_without_unknown_token_loses_unknown_text() {
        let model =
            json!({"type": "BPE", "vocab": {"h": 0, "u": 1, "g": 2, "ug": 3, " ": 4}, "merges": ["u g"]});
        // A gap has 33 bits for its place, 8 for its end, and its bytes.
        loses(
            &json!({"model": model}),
            None,
            &[
                ("", [0; 3], false),
                ("hug hug", [0; 3], false),
                ("hug мир", [3, 6, 41 + 48], false),
                ("мhиuр", [3, 6, 3 * 41 + 48], false),
                ("xx", [2, 2, 41 + 16], false),
            ],
        );
        loses(
            &json!({"model": model, "pre_tokenizer": {"type": "Whitespace"}}),
            None,
            &[("hug", [0; 3], false), ("hug мир", [3, 6, 41 + 48], true)],
        );
        // With the whole words that are in the vocabulary, and with bytes to fall back on.
        let mut whole = model.clone();
        whole["vocab"]["xx"] = json!(5);
        whole["ignore_merges"] = json!(true);
        loses(&json!({"model": whole}), None, &[("xx", [0; 3], false)]);
        let mut bytes = model.clone();
        for byte in 0..=255_u32 {
            bytes["vocab"][format!("<0x{byte:02X}>")] = json!(6 + byte);
        }
        bytes["byte_fallback"] = json!(true);
        loses(&json!({"model": bytes}), None, &[("hug мир\n", [0; 3], false)]);
    }

    #[test]
    fn text_that_pre_tokenizer_or_normalizer_removes_is_lost() {
        let vocabulary: serde_json::Map<String, Value> = (0_u32..)
            .zip('a'..='z')
            .map(|(id, letter)| (letter.to_string(), json!(id)))
            .collect();
        let model = json!({"type": "BPE", "vocab": vocabulary, "merges": []});
        let regex = |pattern: &str| json!({"Regex": pattern});
        let split =
            json!({"type": "Split", "pattern": regex("[^a-z]+"), "behavior": "Removed", "invert": false});
        let replace = |pattern: &str| json!({"type": "Replace", "pattern": regex(pattern), "content": ""});
        // A gap has 33 bits for its place, 8 for its end, and its bytes. White space is normalized, not lost.
        let cases: [(&str, [u64; 3], bool); 6] = [
            ("hug", [0; 3], false),
            ("hug \n hug ", [0; 3], true),
            ("hug мир hug", [3, 6, 41 + 48], true),
            ("hug мир, мир", [7, 13, 2 * 41 + 104], true),
            ("мир hug", [3, 6, 41 + 48], true),
            ("мир", [3, 6, 41 + 48], true),
        ];
        loses(&json!({"model": model, "pre_tokenizer": split}), None, &cases);
        // The same behind a normalizer.
        loses(
            &json!({"model": model, "pre_tokenizer": split, "normalizer": {"type": "NFC"}}),
            None,
            &cases,
        );
        let spaces = json!({"type": "WhitespaceSplit"});
        loses(
            &json!({"model": model, "pre_tokenizer": spaces, "normalizer": replace("[^a-z\\s]")}),
            None,
            &cases,
        );
        loses(
            &json!({"model": model, "pre_tokenizer": spaces, "normalizer": {"type": "Sequence",
                "normalizers": [{"type": "Lowercase"}, replace("[^a-z\\s]")]}}),
            None,
            &[
                ("huмg", [1, 2, 41 + 16], true),
                ("HUG Мир", [3, 6, 41 + 48], true),
            ],
        );
        loses(
            &json!({"model": model, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Punctuation", "behavior": "Removed"}, spaces]}}),
            None,
            &[("hug, hug!", [2, 2, 2 * 41 + 16], true)],
        );
        // What a normalizer composes or takes off a letter is not lost.
        let mut composed = model.clone();
        composed["vocab"]["é"] = json!(26);
        composed["vocab"]["한"] = json!(27);
        loses(
            &json!({"model": composed, "pre_tokenizer": spaces, "normalizer": {"type": "NFC"}}),
            None,
            &[
                ("e\u{301} e\u{301}", [0; 3], true),
                ("\u{1112}\u{1161}\u{11AB} a", [0; 3], true),
            ],
        );
        loses(
            &json!({"model": model, "pre_tokenizer": spaces, "normalizer": {"type": "Sequence",
                "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}]}}),
            None,
            &[("caf\u{e9} e\u{301} e\u{301}", [0; 3], true)],
        );
    }

    #[test]
    fn unknown_tokens_stand_for_lost_text() {
        let words = json!({"type": "WordLevel", "vocab": {"<unk>": 0, "one": 1}, "unk_token": "<unk>"});
        loses(
            &json!({"model": words, "pre_tokenizer": {"type": "WhitespaceSplit"}}),
            Some(0),
            &[
                ("one", [0; 3], false),
                ("one  one", [0; 3], true),
                ("мир one", [3, 6, 8 + 48], true),
                ("мир x", [4, 7, 2 * 8 + 56], true),
            ],
        );
        let pairs = |fuse: bool| json!({"type": "BPE", "vocab": {"<unk>": 0, "a": 1}, "merges": [], "unk_token": "<unk>", "fuse_unk": fuse});
        loses(
            &json!({"model": pairs(false)}),
            Some(0),
            &[("aябa", [2, 4, 2 * 8 + 32], false)],
        );
        loses(
            &json!({"model": pairs(true)}),
            Some(0),
            &[("aябa", [2, 4, 8 + 32], false)],
        );
        let pieces = json!({"type": "Unigram", "unk_id": 0,
            "vocab": [["<unk>", 0.0], ["\u{2581}", -2.0], ["\u{2581}a", -1.0], ["b", -2.0]]});
        let metaspace = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
        loses(
            &json!({"model": pieces, "pre_tokenizer": metaspace}),
            Some(0),
            &[
                ("a b a", [0; 3], false),
                ("a  b", [0; 3], false),
                ("a яб", [2, 4, 8 + 32], false),
                // The space that is put in front cannot be distinguished from one in the text.
                (" a", [0; 3], true),
                ("a\u{2581}b", [0; 3], true),
            ],
        );
    }

    #[test]
    fn byte_fallback_tokens_count_as_their_byte() {
        let letters = [("<unk>", 0.0), ("o", -5.0), ("n", -5.0), ("e", -5.0)];
        let mut vocabulary: Vec<Value> = letters.iter().map(|piece| json!(piece)).collect();
        vocabulary.extend((0..=u8::MAX).map(|byte| json!([of_byte(byte), -1.0])));
        let model = json!({"type": "Unigram", "unk_id": 0, "vocab": vocabulary, "byte_fallback": true});
        loses(
            &json!({"model": model}),
            Some(0),
            &[
                ("oneA", [0; 3], false),
                ("one<0x4", [0; 3], false),
                ("one<0x41>", [0; 3], true),
            ],
        );
    }

    #[test]
    fn normalizers_that_change_text_are_detected() {
        let mut vocabulary = serde_json::Map::new();
        for (id, character) in (0_u32..).zip(ByteLevel::alphabet()) {
            vocabulary.insert(character.to_string(), json!(id));
        }
        let bytes =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        let model = json!({"type": "BPE", "vocab": vocabulary, "merges": []});
        let with =
            |normalizer: Value| json!({"model": model, "pre_tokenizer": bytes, "normalizer": normalizer});
        loses(
            &with(json!({"type": "NFC"})),
            None,
            &[
                (" the cat\n\n sat, é 中 Ġ", [0; 3], false),
                ("e\u{301}", [0; 3], true),
            ],
        );
        loses(
            &with(json!({"type": "Lowercase"})),
            None,
            &[
                ("cat é", [0; 3], false),
                ("Cat", [0; 3], true),
                ("É", [0; 3], true),
            ],
        );
        loses(
            &with(json!({"type": "Strip", "strip_left": true, "strip_right": true})),
            None,
            &[("cat", [0; 3], false), ("cat ", [0; 3], true)],
        );
        // Two of three bytes of a character have no token.
        let mut few = model.clone();
        let vocabulary = few["vocab"].as_object_mut().unwrap();
        for byte in ["ä", "¸"] {
            assert!(vocabulary.remove(byte).is_some());
        }
        loses(
            &json!({"model": few, "pre_tokenizer": bytes}),
            None,
            &[("a中", [1, 2, 41 + 16], false), ("abc", [0; 3], false)],
        );
    }

    #[test]
    fn added_tokens_spell_their_text() {
        let model = json!({"type": "BPE", "vocab": {"a": 0, " ": 1}, "merges": []});
        let parts = json!({"model": model, "added_tokens": [added(2, "<x>", false), added(3, "</s>", true)]});
        let inner = tokenizer(&parts);
        let (ids, loss) = of(&inner, None, "a<x>a");
        assert_eq!((ids, loss.changed), (vec![0, 2, 0], false));
        // White space on its left goes with it.
        let (ids, loss) = of(&inner, None, "a <x>a");
        assert_eq!((ids, loss.changed), (vec![0, 2, 0], true));
        let (ids, loss) = of(&inner, None, "a</s>");
        assert_eq!((ids, loss.characters), (vec![0], 4));
    }
}
