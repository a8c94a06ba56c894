//! Tokenizes at the speed of memory: the ids of `tokenizers`, made once for each word of a text and then looked up.
//!
//! A text is cut into chunks ([`crate::data::chunks`]), mostly single words. The ids of a chunk come from a table; where
//! they are not in it, from byte-pair merges or a search for pieces of our own for a plain word, and from `tokenizers` for anything else.
//! What the table holds depends on what was tokenized before it, the ids do not. A tokenizer whose text cannot be cut
//! goes to `tokenizers` as it is.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;

use self::merges::Merges;
use self::pieces::Pieces;
use crate::data::chunks::Cutter;
use crate::data::tokenizer::Tokenizer;
use crate::error::Result;
use crate::memory::{in_huge_pages, prefetch};

mod merges;
mod pieces;

/// Bytes of the longest chunk that a slot holds: a number of 128 bits with its length in the last byte. 99% of the
/// chunks of English text.
const SLOT_BYTES: usize = 15;
/// Ids that a slot holds, of 24 bits each; their number takes the last byte.
const SLOT_IDS: usize = 5;
/// Pairs of slots of a thread, 16 MB: what a text repeats is quicker to find in memory than to make again.
const PAIRS: usize = 1 << 18;
/// Pairs of slots of all threads, 128 MB, and the fewest of a thread.
const PAIRS_IN_ALL: usize = 1 << 21;
const FEWEST_PAIRS: usize = 1 << 14;
/// Chunks that are cut before the first of them is looked up: where a chunk ends is hard to foresee for a processor,
/// that it is in its slot is not, so that many slots are on their way from memory at once.
const AHEAD: usize = 32;
/// Stripes of what all threads know, and the chunks that each keeps: some 64 MB in all.
const STRIPES: usize = 64;
const STRIPE_CHUNKS: usize = 1 << 14;
/// Chunks that do not fit a slot and are kept all the same, and the bytes of the longest of them: some 20 MB for each
/// thread.
const LONG_CHUNKS: usize = 1 << 16;
const LONG_CHUNK_BYTES: usize = 128;

/// A chunk and its ids.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// 0: the slot is free.
    key: u128,
    ids: Ids,
}

/// Some ids, 24 bits each, the first lowest; how many they are in the highest byte.
#[derive(Clone, Copy, Default)]
struct Ids(u128);

impl Ids {
    /// Nothing when they do not fit.
    fn of(ids: &[u32]) -> Option<Self> {
        if ids.len() > SLOT_IDS || ids.iter().any(|&id| id >= 1 << 24) {
            return None;
        }
        let all = ids.iter().rev().fold(0, |all, &id| all << 24 | u128::from(id));
        Some(Self(all | (ids.len() as u128) << 120))
    }

    #[inline(always)]
    fn count(self) -> usize {
        (self.0 >> 120) as usize
    }

    /// The ids; what is beyond their number means nothing.
    #[inline(always)]
    fn unpack(self) -> [u32; SLOT_IDS] {
        std::array::from_fn(|at| (self.0 >> (24 * at)) as u32 & 0xFF_FFFF)
    }
}

/// The slots that a chunk may be in, the one used last first.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Pair([Slot; 2]);

/// Ids of chunks that are short, in slots; what is kept drives out what was used last but one in its place.
struct Table {
    /// A power of two of them.
    pairs: Vec<Pair>,
}

impl Table {
    fn new(pairs: usize) -> Self {
        let count = pairs.next_power_of_two();
        let mut pairs = Vec::with_capacity(count);
        in_huge_pages(pairs.spare_capacity_mut());
        pairs.resize(count, Pair::default());
        Self { pairs }
    }

    #[inline(always)]
    fn place(&self, key: u128) -> usize {
        mix(key) & (self.pairs.len() - 1)
    }

    /// Has the slots of a key fetched.
    #[inline(always)]
    fn prefetch(&self, key: u128) {
        prefetch(&self.pairs[self.place(key)]);
    }

    #[inline(always)]
    fn find(&mut self, key: u128) -> Option<Ids> {
        let place = self.place(key);
        let Pair([first, second]) = &mut self.pairs[place];
        if first.key != key {
            if second.key != key {
                return None;
            }
            std::mem::swap(first, second);
        }
        Some(first.ids)
    }

    #[inline(always)]
    fn keep(&mut self, key: u128, ids: Ids) {
        let place = self.place(key);
        let Pair(pair) = &mut self.pairs[place];
        *pair = [Slot { key, ids }, pair[0]];
    }
}

/// Tokenizes for many threads.
pub struct Encoders<'a> {
    shared: Shared<'a>,
    idle: Mutex<Vec<Memory>>,
}

struct Shared<'a> {
    tokenizer: &'a Tokenizer,
    cutter: Option<Cutter>,
    words: Option<Words>,
    known: Known,
}

/// What any thread has made of a chunk: looked up when a thread does not know it, since to make it takes ten times as
/// long. In stripes, so that threads seldom wait for each other.
struct Known([Mutex<HashMap<u128, Ids, Mixed>>; STRIPES]);

impl Known {
    fn new() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }

    fn stripe(&self, key: u128) -> MutexGuard<'_, HashMap<u128, Ids, Mixed>> {
        // The hash maps take other bits.
        let stripe = &self.0[(mix(key) >> 48) % STRIPES];
        stripe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: u128) -> Option<Ids> {
        self.stripe(key).get(&key).copied()
    }

    fn keep(&self, key: u128, ids: Ids) {
        let mut stripe = self.stripe(key);
        if stripe.len() < STRIPE_CHUNKS {
            stripe.insert(key, ids);
        }
    }
}

/// What makes the ids of plain words.
enum Words {
    Merges(Box<Merges>),
    Pieces(Pieces),
}

impl Words {
    /// Appends the ids of a chunk, if it is a word that is plain enough.
    fn word(&self, chunk: &str, ids: &mut Vec<u32>) -> bool {
        match self {
            Self::Merges(merges) => merges.word(chunk, ids),
            Self::Pieces(pieces) => pieces.word(chunk, ids),
        }
    }
}

/// Hashes by [`Mixer`].
type Mixed = BuildHasherDefault<Mixer>;

/// Tokenizes for one thread, the faster the longer it has been at it.
pub struct Encoder<'a> {
    shared: &'a Shared<'a>,
    memory: &'a mut Memory,
}

/// Ids of chunks.
struct Memory {
    table: Table,
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
        let words = match (cutter, inner.get_model(), inner.get_normalizer()) {
            (Some(Cutter::ByteLevel), ModelWrapper::BPE(model), normalizer) => {
                let lowercase = matches!(normalizer, Some(NormalizerWrapper::Lowercase(_)));
                Merges::of(model, tokenizer, lowercase)?.map(|merges| Words::Merges(Box::new(merges)))
            }
            (
                Some(Cutter::Bert { .. }),
                ModelWrapper::WordPiece(model),
                Some(NormalizerWrapper::BertNormalizer(normalizer)),
            ) => Pieces::of(model, *normalizer).map(Words::Pieces),
            _ => None,
        };
        Ok(Self {
            shared: Shared {
                tokenizer,
                cutter,
                words,
                known: Known::new(),
            },
            idle: Mutex::default(),
        })
    }

    /// Lends an encoder to the calling thread.
    pub fn lend<T>(&self, work: impl FnOnce(&mut Encoder<'_>) -> T) -> T {
        let threads = rayon::current_num_threads().next_power_of_two();
        let pairs = (PAIRS_IN_ALL / threads).clamp(FEWEST_PAIRS, PAIRS);
        let cuts = self.shared.cutter.is_some();
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = idle().pop().unwrap_or_else(|| Memory {
            table: Table::new(if cuts { pairs } else { 1 }),
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
        let bytes = text.as_bytes();
        let mut at = 0;
        let mut ahead = [(0, 0, 0); AHEAD];
        loop {
            let mut cut = 0;
            while cut < AHEAD
                && let Some(Range { start, end }) = next(at)
            {
                let key = if end - start > SLOT_BYTES {
                    LONG
                } else {
                    let key = key(bytes, start, end - start);
                    self.memory.table.prefetch(key);
                    key
                };
                ahead[cut] = (start, end, key);
                at = end;
                cut += 1;
            }
            // Whole slots are written, of which what counts stays.
            let mut found = [0; (AHEAD + 1) * SLOT_IDS];
            let mut count = 0;
            for &(start, end, key) in &ahead[..cut] {
                let Some(ids) = self.memory.table.find(key) else {
                    tokens.extend_from_slice(&found[..count]);
                    count = 0;
                    self.absent(&text[start..end], key, tokens)?;
                    continue;
                };
                found[count..count + SLOT_IDS].copy_from_slice(&ids.unpack());
                count += ids.count();
            }
            tokens.extend_from_slice(&found[..count]);
            if cut < AHEAD {
                return Ok(());
            }
        }
    }

    /// Appends the ids of a chunk that is in no slot, and puts it into one if it has few.
    #[cold]
    fn absent(&mut self, chunk: &str, key: u128, tokens: &mut Vec<u32>) -> Result<()> {
        if key == LONG {
            return self.long(chunk, tokens);
        }
        if let Some(ids) = self.shared.known.find(key) {
            self.memory.table.keep(key, ids);
            tokens.extend_from_slice(&ids.unpack()[..ids.count()]);
            return Ok(());
        }
        self.memory.ids.clear();
        let words = self.shared.words.as_ref();
        if !words.is_some_and(|words| words.word(chunk, &mut self.memory.ids)) {
            return self.put(chunk, key, tokens);
        }
        self.keep(key);
        tokens.extend_from_slice(&self.memory.ids);
        Ok(())
    }

    /// [`Encoder::absent`] of a chunk that is not a plain word.
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
        if let Some(ids) = Ids::of(&self.memory.ids) {
            self.memory.table.keep(key, ids);
            self.shared.known.keep(key, ids);
        }
    }

    /// Appends the ids of a chunk that fits no slot.
    #[cold]
    fn long(&mut self, chunk: &str, tokens: &mut Vec<u32>) -> Result<()> {
        if let Some(ids) = self.memory.long.get(chunk.as_bytes()) {
            tokens.extend_from_slice(ids);
            return Ok(());
        }
        let start = tokens.len();
        let words = self.shared.words.as_ref();
        if !words.is_some_and(|words| words.word(chunk, tokens)) {
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

/// The key of chunks that fit no slot: no slot has it.
const LONG: u128 = u128::MAX;

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

/// Spreads keys over all numbers.
#[inline(always)]
fn mix(key: u128) -> usize {
    // The multiplier is the golden ratio's; folding brings the high half of the product to the low bits.
    let product = u128::from(key as u64 ^ 0x9E37_79B9_7F4A_7C15)
        * u128::from((key >> 64) as u64 ^ 0xD1B5_4A32_D192_ED03);
    (product as u64 ^ (product >> 64) as u64) as usize
}

/// Hashes a number: one multiplication.
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

    fn write_u128(&mut self, number: u128) {
        self.write_u64(number as u64);
        self.write_u64((number >> 64) as u64);
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
        assert!(encoders.shared.words.is_some());
        encoders.lend(|encoder| {
            // Twice as many as there are pairs of slots.
            let words = || (0..2 * PAIRS).map(|n| format!("w{:o}", n * 7));
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
        let json: serde_json::Value = serde_json::from_str(TRAINED[0].json().unwrap()).unwrap();
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
