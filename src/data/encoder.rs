//! Tokenizes at the speed of memory: the ids of `tokenizers`, made once for each word of a text and then looked up.
//!
//! A text is cut into chunks ([`crate::data::chunks`]), mostly single words. The ids of a chunk come from a table; where
//! they are not in it, from byte-pair merges of our own for a plain word, and from `tokenizers` for anything else.
//! What the table holds depends on what was tokenized before it, the ids do not. A tokenizer whose text cannot be cut
//! goes to `tokenizers` as it is.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use tokenizers::Model as _;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NormalizerWrapper;

use crate::data::chunks::{Cutter, is_word};
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Kind, Result, Wrap as _};

/// Bytes of the longest chunk that a slot holds: a number of 128 bits with its length in the last byte. 99% of the
/// chunks of English text.
const SLOT_BYTES: usize = 15;
/// Ids that a slot holds: with the key and their number they fill half a cache line.
const SLOT_IDS: usize = 3;
/// Pairs of slots, 4 MB for each thread: about the cache that a core has to itself.
const PAIRS_OF_SLOTS: usize = 1 << 16;
/// Chunks that do not fit a slot and are kept all the same, and the bytes of the longest of them: some 20 MB for each
/// thread.
const LONG_CHUNKS: usize = 1 << 16;
const LONG_CHUNK_BYTES: usize = 128;
/// Bytes of the longest word that is merged here: the time grows with the square of the length.
const MERGED_BYTES: usize = 64;

/// A chunk and its ids.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// 0: the slot is free.
    key: u128,
    ids: [u32; SLOT_IDS],
    count: u32,
}

/// The slots that a chunk may be in, the one used last first.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Pair([Slot; 2]);

/// Tokenizes for many threads.
pub struct Encoders<'a> {
    shared: Shared<'a>,
    idle: Mutex<Vec<Memory>>,
}

struct Shared<'a> {
    tokenizer: &'a Tokenizer,
    cutter: Option<Cutter>,
    merges: Option<Merges>,
}

/// Tokenizes for one thread, the faster the longer it has been at it.
pub struct Encoder<'a> {
    shared: &'a Shared<'a>,
    memory: &'a mut Memory,
}

/// Ids of chunks.
struct Memory {
    slots: Vec<Pair>,
    long: HashMap<Box<[u8]>, Box<[u32]>>,
    /// Ids of the chunk at hand.
    ids: Vec<u32>,
}

impl<'a> Encoders<'a> {
    /// Prepares to tokenize.
    ///
    /// # Errors
    /// An internal one.
    pub fn new(tokenizer: &'a Tokenizer) -> Result<Self> {
        let inner = tokenizer.inner();
        let cutter = Cutter::of(inner);
        let merges = match (cutter, inner.get_model()) {
            (Some(Cutter::ByteLevel), ModelWrapper::BPE(model)) => {
                let lowercase = matches!(inner.get_normalizer(), Some(NormalizerWrapper::Lowercase(_)));
                Merges::of(model, tokenizer.json(), lowercase)?
            }
            _ => None,
        };
        Ok(Self {
            shared: Shared {
                tokenizer,
                cutter,
                merges,
            },
            idle: Mutex::default(),
        })
    }

    /// Lends an encoder to the calling thread.
    pub fn lend<T>(&self, work: impl FnOnce(&mut Encoder<'_>) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = idle().pop().unwrap_or_else(|| Memory {
            slots: if self.shared.cutter.is_some() {
                vec![Pair::default(); PAIRS_OF_SLOTS]
            } else {
                Vec::new()
            },
            long: HashMap::new(),
            ids: Vec::new(),
        });
        let result = work(&mut Encoder {
            shared: &self.shared,
            memory: &mut memory,
        });
        idle().push(memory);
        result
    }
}

impl Encoder<'_> {
    /// Appends the tokens of a text, none of them special, and returns how many of them are the unknown token.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode(&mut self, text: &str, tokens: &mut Vec<u32>) -> Result<u64> {
        let start = tokens.len();
        // Each kind has a loop of its own, in which it is known.
        match self.shared.cutter {
            None => return self.shared.tokenizer.encode(text, tokens),
            Some(Cutter::ByteLevel) => self.chunks(text, tokens, |at| Cutter::ByteLevel.next(text, at))?,
            Some(bert @ Cutter::Bert { .. }) => self.chunks(text, tokens, |at| bert.next(text, at))?,
        }
        self.shared.tokenizer.check(&tokens[start..])
    }

    /// Appends the ids of the chunks of a text; `next` tells the one that begins at or after a byte.
    #[inline(always)]
    fn chunks(
        &mut self,
        text: &str,
        tokens: &mut Vec<u32>,
        next: impl Fn(usize) -> Option<Range<usize>>,
    ) -> Result<()> {
        let mut at = 0;
        while let Some(chunk) = next(at) {
            at = chunk.end;
            if chunk.len() > SLOT_BYTES {
                self.long(&text[chunk], tokens)?;
                continue;
            }
            let key = key(text.as_bytes(), chunk.start, chunk.len());
            let Pair([first, second]) = &mut self.memory.slots[place(key)];
            if first.key != key {
                if second.key != key {
                    self.short(&text[chunk], key, tokens)?;
                    continue;
                }
                std::mem::swap(first, second);
            }
            // All of them and then too many taken back: quicker than a number of them that is not known beforehand.
            let length = tokens.len() + first.count as usize;
            tokens.extend_from_slice(&first.ids);
            tokens.truncate(length);
        }
        Ok(())
    }

    /// Appends the ids of a chunk that is in no slot, and puts it into one if it has few.
    #[cold]
    fn short(&mut self, chunk: &str, key: u128, tokens: &mut Vec<u32>) -> Result<()> {
        let Some(merges) = &self.shared.merges else {
            return self.put(chunk, key, tokens);
        };
        self.memory.ids.clear();
        if !merges.word(chunk, &mut self.memory.ids) {
            return self.put(chunk, key, tokens);
        }
        self.keep(key);
        tokens.extend_from_slice(&self.memory.ids);
        Ok(())
    }

    /// [`Encoder::short`] of a chunk that is not a plain word.
    fn put(&mut self, chunk: &str, key: u128, tokens: &mut Vec<u32>) -> Result<()> {
        let start = tokens.len();
        self.long(chunk, tokens)?;
        self.memory.ids.clear();
        self.memory.ids.extend_from_slice(&tokens[start..]);
        self.keep(key);
        Ok(())
    }

    /// Puts the ids at hand into a slot, if they fit one.
    fn keep(&mut self, key: u128) {
        let ids = &self.memory.ids;
        if ids.len() > SLOT_IDS {
            return;
        }
        let mut slot = Slot {
            key,
            count: ids.len() as u32,
            ..Slot::default()
        };
        slot.ids[..ids.len()].copy_from_slice(ids);
        let Pair(pair) = &mut self.memory.slots[place(key)];
        *pair = [slot, pair[0]];
    }

    /// Appends the ids of a chunk that fits no slot.
    #[cold]
    fn long(&mut self, chunk: &str, tokens: &mut Vec<u32>) -> Result<()> {
        if let Some(ids) = self.memory.long.get(chunk.as_bytes()) {
            tokens.extend_from_slice(ids);
            return Ok(());
        }
        let start = tokens.len();
        let merged = self
            .shared
            .merges
            .as_ref()
            .is_some_and(|merges| merges.word(chunk, tokens));
        if !merged {
            self.shared.tokenizer.encode_whole(chunk, tokens)?;
        }
        let ids = &tokens[start..];
        if chunk.len() <= LONG_CHUNK_BYTES && (chunk.len() > SLOT_BYTES || ids.len() > SLOT_IDS) {
            let long = &mut self.memory.long;
            if long.len() == LONG_CHUNKS {
                long.clear();
            }
            long.insert(chunk.as_bytes().into(), ids.into());
        }
        Ok(())
    }
}

/// A chunk of at most [`SLOT_BYTES`] bytes as a number, its length in the highest byte; never 0.
#[inline(always)]
fn key(text: &[u8], start: usize, length: usize) -> u128 {
    let word = |bytes: [u8; 16]| u128::from_le_bytes(bytes);
    let bytes = if let Some(Ok(bytes)) = text.get(start..start + 16).map(<[u8; 16]>::try_from) {
        word(bytes)
    } else {
        // The end of the text.
        let mut bytes = [0; 16];
        bytes[..length].copy_from_slice(&text[start..start + length]);
        word(bytes)
    };
    bytes & ((1 << (8 * length)) - 1) | (length as u128) << 120
}

/// The pair of slots of a key.
#[inline(always)]
fn place(key: u128) -> usize {
    // The multiplier is the golden ratio's; folding brings the high half of the product to the low bits.
    let product = u128::from(key as u64 ^ 0x9E37_79B9_7F4A_7C15)
        * u128::from((key >> 64) as u64 ^ 0xD1B5_4A32_D192_ED03);
    (product as u64 ^ (product >> 64) as u64) as usize % PAIRS_OF_SLOTS
}

/// The merges of a byte-level BPE.
struct Merges {
    /// The id of every byte.
    bytes: [u32; 256],
    /// Rank and id of what two neighbouring ids make.
    pairs: HashMap<u64, (u32, u32), BuildHasherDefault<Mixer>>,
    lowercase: bool,
}

/// The part of a `tokenizer.json` that a BPE does not tell otherwise.
#[derive(Deserialize)]
struct Written {
    model: WrittenModel,
}

#[derive(Deserialize)]
struct WrittenModel {
    merges: Vec<(String, String)>,
}

impl Merges {
    /// The merges of a model; nothing for one with more to it than bytes and merges.
    fn of(model: &BPE, json: &str, lowercase: bool) -> Result<Option<Self>> {
        let plain = model.continuing_subword_prefix.is_none()
            && model.end_of_word_suffix.is_none()
            && !model.ignore_merges;
        let mut bytes = [0; 256];
        for (byte, spelt) in (0..=255).zip(spelling()) {
            let Some(id) = model.token_to_id(spelt.encode_utf8(&mut [0; 4])) else {
                return Ok(None);
            };
            bytes[usize::from(byte as u8)] = id;
        }
        if !plain {
            return Ok(None);
        }
        let written: Written =
            serde_json::from_str(json).wrap(Kind::Internal, || "read the tokenizer's merges".to_owned())?;
        let mut pairs = HashMap::default();
        for (rank, (a, b)) in (0..).zip(&written.model.merges) {
            let id = |token: &str| {
                model
                    .token_to_id(token)
                    .ok_or_else(|| Error::internal(format!("the merge of `{a}` and `{b}` is of no token")))
            };
            pairs.insert(pair(id(a)?, id(b)?), (rank, id(&format!("{a}{b}"))?));
        }
        Ok(Some(Self {
            bytes,
            pairs,
            lowercase,
        }))
    }

    /// Appends the ids of a chunk if it is a plain word: of adjacent symbols the pair of the lowest rank becomes one,
    /// the first of equal ones first, until no pair has a rank (Sennrich et al., arXiv 1508.07909).
    fn word(&self, chunk: &str, ids: &mut Vec<u32>) -> bool {
        if chunk.len() > MERGED_BYTES || self.lowercase && !chunk.is_ascii() || !is_word(chunk) {
            return false;
        }
        let mut symbols = [0; MERGED_BYTES];
        for (symbol, byte) in symbols.iter_mut().zip(chunk.bytes()) {
            let byte = if self.lowercase {
                byte.to_ascii_lowercase()
            } else {
                byte
            };
            *symbol = self.bytes[usize::from(byte)];
        }
        // What symbols i and i + 1 make.
        let mut made = [NOTHING; MERGED_BYTES];
        let mut length = chunk.len();
        for at in 0..length - 1 {
            made[at] = self.pair(symbols[at], symbols[at + 1]);
        }
        while let Some((at, &(rank, id))) = made[..length - 1]
            .iter()
            .enumerate()
            .min_by_key(|(_, (rank, _))| *rank)
        {
            if rank == u32::MAX {
                break;
            }
            symbols[at] = id;
            symbols.copy_within(at + 2..length, at + 1);
            if at + 2 < length {
                made.copy_within(at + 2..length, at + 1);
            }
            length -= 1;
            if at > 0 {
                made[at - 1] = self.pair(symbols[at - 1], id);
            }
            if at + 1 < length {
                made[at] = self.pair(id, symbols[at + 1]);
            }
        }
        ids.extend_from_slice(&symbols[..length]);
        true
    }

    fn pair(&self, a: u32, b: u32) -> (u32, u32) {
        self.pairs.get(&pair(a, b)).copied().unwrap_or(NOTHING)
    }
}

/// The rank of a pair that makes nothing.
const NOTHING: (u32, u32) = (u32::MAX, 0);

fn pair(a: u32, b: u32) -> u64 {
    u64::from(a) << 32 | u64::from(b)
}

/// The character that spells each byte in a byte-level vocabulary (GPT-2's `bytes_to_unicode`): itself where it is
/// visible, else the next from U+0100 on.
fn spelling() -> Vec<char> {
    let visible = |byte: u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100;
    (0..=0xFF)
        .map(|byte| {
            let code = if visible(byte) {
                byte
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap_or_default()
        })
        .collect()
}

/// Hashes a pair of ids: one multiplication.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * 0x9E37_79B9_7F4A_7C15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tokenizer::{ChunkCounts, WordCutter};
    use crate::manifest::TrainTokenizer;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    /// What is hard about Unicode, about the patterns of tokenizers and about the limits here.
    const HARD: &[&str] = &[
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u{b}",
        "\u{c}",
        "\u{85}",
        "\u{a0}",
        "\u{2003}",
        "\u{2028}",
        "\u{3000}",
        "\u{180e}",
        "'",
        "''",
        "'s",
        "'ll",
        "'LL",
        "'re",
        "’s",
        "don't",
        "x'",
        "'\u{212a}",
        "'\u{17f}",
        "a",
        "Z",
        "the",
        " the",
        "The",
        "ab",
        "aaaaaaaa",
        "0",
        "42",
        "1234567890123456",
        "½",
        "²",
        "Ⅷ",
        "１",
        "٣",
        "é",
        "e\u{301}",
        "\u{301}",
        "\u{338}",
        "\u{30a}A",
        "\u{302e}",
        "\u{1d165}",
        "q\u{307}\u{323}",
        "\u{344}",
        "İ",
        "ı",
        "ß",
        "ẞ",
        "Ǆ",
        "ǅ",
        "ς",
        "ΑΣ",
        "ﬁ",
        "Å",
        "\u{212a}",
        "\u{212b}",
        "ŉ",
        "ª",
        "º",
        "中",
        "文字",
        "㐀",
        "豈",
        "𠀀",
        "日本語のテスト",
        "한국어",
        "한",
        "Привет",
        "й",
        "שלום",
        "مرحبا",
        "हिन्दी",
        "ไทย",
        "👩\u{200d}👩\u{200d}👧",
        "🇫🇷",
        "❤\u{fe0f}",
        "\u{0}",
        "\u{1}",
        "\u{7f}",
        "\u{ad}",
        "\u{200b}",
        "\u{200d}",
        "\u{200e}",
        "\u{feff}",
        "\u{fffd}",
        "\u{e000}",
        "\u{10ffff}",
        "\u{378}",
        "—",
        "…",
        "“",
        "”",
        "!",
        "?!",
        "...",
        "-",
        "_",
        "<",
        "#",
        "[MASK]",
        "[UNK]",
        "[PAD]",
        "<|endoftext|>",
        "##s",
        "Ġ",
        "Ċ",
        "Donaudampfschifffahrt",
        "internationalization",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];

    fn hard() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            8 => proptest::sample::select(HARD).prop_map(str::to_owned),
            1 => any::<char>().prop_map(String::from),
            2 => "[a-e' ]{1,20}",
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    /// Byte-level BPE and WordPiece, as it stands and lower-cased, trained on text with all that is hard.
    static TRAINED: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
        let text = format!("{} {}", HARD.concat(), HARD.join(" "));
        let mut trained = Vec::new();
        for lowercase in [false, true] {
            let config = TrainTokenizer {
                vocabulary_size: 700,
                min_frequency: 1,
                lowercase,
            };
            let words = |cutter: WordCutter| {
                let mut counts = ChunkCounts::default();
                cutter.count(&text, &mut counts);
                cutter.words(&counts).unwrap()
            };
            trained.push(Tokenizer::train_bpe(&config, &words(WordCutter::bpe(lowercase).unwrap())).unwrap());
            let words = words(WordCutter::wordpiece(lowercase).unwrap());
            trained.push(Tokenizer::train_wordpiece(&config, &words).unwrap());
        }
        trained
    });

    fn agree(tokenizer: &Tokenizer, encoder: &mut Encoder<'_>, text: &str) {
        let (mut expected, mut found) = (vec![7], vec![7]);
        let unknown = tokenizer.encode(text, &mut expected).unwrap();
        assert_eq!(encoder.encode(text, &mut found).unwrap(), unknown, "{text:?}");
        assert_eq!(found, expected, "{text:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn the_ids_are_those_of_tokenizers(texts in proptest::collection::vec(hard(), 1..4)) {
            for tokenizer in &*TRAINED {
                let encoders = Encoders::new(tokenizer).unwrap();
                prop_assert!(encoders.shared.cutter.is_some());
                encoders.lend(|encoder| {
                    // At first they are made, then they are looked up.
                    for text in texts.iter().chain(&texts) {
                        agree(tokenizer, encoder, text);
                    }
                });
            }
        }
    }

    #[test]
    fn chunks_that_share_a_slot_do_not_share_ids() {
        let tokenizer = &TRAINED[0];
        let encoders = Encoders::new(tokenizer).unwrap();
        assert!(encoders.shared.merges.is_some());
        encoders.lend(|encoder| {
            // Twice as many as there are pairs of slots.
            let words = || (0..2 * PAIRS_OF_SLOTS).map(|n| format!("w{:o}", n * 7));
            let mut tokens = Vec::new();
            for word in words() {
                encoder.encode(&word, &mut tokens).unwrap();
            }
            for word in words().step_by(61) {
                agree(tokenizer, encoder, &word);
            }
        });
    }

    #[test]
    fn tokenizers_that_look_across_are_not_cut() {
        let json: serde_json::Value = serde_json::from_str(TRAINED[0].json()).unwrap();
        let cutter = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut json = json.clone();
            change(&mut json);
            let mut inner = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
            inner.set_encode_special_tokens(true);
            Cutter::of(&inner)
        };
        assert_eq!(cutter(&|_| ()), Some(Cutter::ByteLevel));
        assert_eq!(
            cutter(&|json| json["pre_tokenizer"]["add_prefix_space"] = true.into()),
            None
        );
        assert_eq!(
            cutter(&|json| json["pre_tokenizer"]["use_regex"] = false.into()),
            None
        );
        assert_eq!(
            cutter(&|json| json["normalizer"] = serde_json::json!({ "type": "NFC" })),
            None
        );
        assert_eq!(
            cutter(&|json| json["added_tokens"][1]["special"] = false.into()),
            None
        );
        assert_eq!(cutter(&|json| json["model"]["dropout"] = 0.1.into()), None);
    }

    #[test]
    fn keys_tell_chunks_apart() {
        let text = b"a\0ab\0\0 0123456789abcdef";
        let whole = key(text, 0, 1);
        assert_ne!(whole, key(text, 0, 2));
        assert_ne!(key(text, 1, 1), 0, "a chunk of a NUL is no free slot");
        for length in 1..=SLOT_BYTES {
            let start = text.len() - length;
            let mut padded = text.to_vec();
            padded.extend([b'x'; 16]);
            assert_eq!(key(text, start, length), key(&padded, start, length));
        }
    }
}
