//! Tokenizes at the speed of memory: the ids of `tokenizers`, made once for each word of a text and then looked up.
//!
//! A text is cut into chunks ([`crate::data::chunks`]), mostly single words. The ids of a chunk come from a table; where
//! they are not in it, from byte-pair merges or a search for pieces of our own for a plain word, and from `tokenizers` for anything else.
//! What the table holds depends on what was tokenized before it, the ids do not. A tokenizer whose text cannot be cut
//! goes to `tokenizers` as it is.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Mutex, PoisonError};

use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;

use self::merges::Merges;
use self::pieces::Pieces;
use crate::data::chunks::{ByteLevelChunks, Cutter};
use crate::data::loss::Loss;
use crate::data::tokenizer::Tokenizer;
use crate::error::Result;
use crate::memory::{in_huge_pages, prefetch, zeroed};

mod merges;
mod pieces;

/// Bytes of the longest chunk that a slot holds: a number of 128 bits with its length in the last byte. 99% of the
/// chunks of English text.
const SLOT_BYTES: usize = 15;
/// Ids that a slot holds, of 24 bits each; their number takes the last byte.
const SLOT_IDS: usize = 5;
/// Pairs of slots of all threads for the longest of texts, 64 MB, and for the shortest.
const MOST_PAIRS: usize = 1 << 20;
const FEWEST_PAIRS: usize = 1 << 12;
/// Text for which there is a pair of slots: of English, 60 MB have 300,000 chunks, which fill a quarter of the slots.
const BYTES_OF_PAIR: u64 = 128;
/// Pairs of slots of a thread, 4 MB, for what the slots of all have no room for.
const OWN_PAIRS: usize = 1 << 16;
/// Chunks that are cut before the first of them is looked up: where a chunk ends is hard to foresee for a processor,
/// that it is in its slot is not, so that many slots are on their way from memory at once.
const AHEAD: usize = 32;
/// Chunks that do not fit a slot and are kept all the same, and the bytes of the longest of them: some 20 MB for each
/// thread.
const LONG_CHUNKS: usize = 1 << 16;
const LONG_CHUNK_BYTES: usize = 128;

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

/// What any thread has made of short chunks, looked up by all: pairs of slots, each in a line of the processor's cache.
///
/// A slot is filled once and never changes, so that no thread waits for another. It is four words: the low and the high
/// half of the key, and those of the ids. The high half is 0 while the slot is free, [`TAKEN`] while a thread fills it,
/// and of the key only when the other three are there.
struct ChunkCache {
    words: Box<[AtomicU64]>,
    /// Words before the first that begins a line.
    skipped: usize,
    /// Pairs, a power of two.
    pairs: usize,
}

/// The high half of a key in a slot that is being filled: no key has so long a chunk.
const TAKEN: u64 = (u64::MAX >> 8) | 0xFE << 56;
/// Words of a slot and of a pair.
const SLOT: usize = 4;
const PAIR: usize = 2 * SLOT;

impl ChunkCache {
    fn new(text_bytes: u64) -> Self {
        let pairs = usize::try_from(text_bytes / BYTES_OF_PAIR).unwrap_or(MOST_PAIRS);
        let pairs = pairs.clamp(FEWEST_PAIRS, MOST_PAIRS).next_power_of_two();
        let mut words = zeroed(pairs * PAIR + PAIR - 1);
        in_huge_pages(&mut words);
        let line = PAIR * size_of::<AtomicU64>();
        let skipped = (words.as_ptr().addr().wrapping_neg() % line) / size_of::<AtomicU64>();
        Self {
            words,
            skipped,
            pairs,
        }
    }

    /// The number of a key's pair of slots.
    #[inline(always)]
    fn place(&self, key: u128) -> usize {
        mix(key) & (self.pairs - 1)
    }

    #[inline(always)]
    fn pair(&self, place: usize) -> &[AtomicU64] {
        let start = self.skipped + place * PAIR;
        &self.words[start..start + PAIR]
    }

    /// Has a pair of slots fetched.
    #[inline(always)]
    fn prefetch(&self, place: usize) {
        prefetch(&self.pair(place)[0]);
    }

    #[inline(always)]
    fn find(&self, place: usize, key: u128) -> Option<Ids> {
        let (low, high) = (key as u64, (key >> 64) as u64);
        let pair = self.pair(place);
        let slots = [&pair[..SLOT], &pair[SLOT..PAIR]];
        // What was written before the high half is seen after it.
        let holds = |slot: &&[AtomicU64]| slot[1].load(Acquire) == high && slot[0].load(Relaxed) == low;
        slots.into_iter().find(holds).map(|slot| {
            let [low, high] = [&slot[2], &slot[3]].map(|half| u128::from(half.load(Relaxed)));
            Ids(high << 64 | low)
        })
    }

    /// Whether both slots of a key's pair are taken.
    fn is_full(&self, key: u128) -> bool {
        let pair = self.pair(self.place(key));
        pair[1].load(Relaxed) != 0 && pair[SLOT + 1].load(Relaxed) != 0
    }

    /// Puts ids into a slot; false if there is none for them.
    fn keep(&self, key: u128, ids: Ids) -> bool {
        let (low, high) = (key as u64, (key >> 64) as u64);
        self.pair(self.place(key)).chunks_exact(SLOT).any(|slot| {
            match slot[1].compare_exchange(0, TAKEN, Relaxed, Acquire) {
                Ok(_) => {
                    slot[0].store(low, Relaxed);
                    slot[2].store(ids.0 as u64, Relaxed);
                    slot[3].store((ids.0 >> 64) as u64, Relaxed);
                    slot[1].store(high, Release);
                    true
                }
                // Another thread was quicker.
                Err(there) => there == high && slot[0].load(Relaxed) == low,
            }
        })
    }
}

/// A chunk and its ids.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// 0: the slot is free.
    key: u128,
    ids: Ids,
}

/// The slots that a chunk may be in, the one used last first.
#[derive(Clone, Copy, Default)]
struct Pair([Slot; 2]);

/// Ids of short chunks that a thread keeps for itself; what is kept drives out what was used last but one in its place.
#[derive(Default)]
struct ThreadCache {
    /// None as long as nothing was kept.
    pairs: Vec<Pair>,
}

impl ThreadCache {
    fn find(&mut self, key: u128) -> Option<Ids> {
        let Pair([first, second]) = self.pairs.get_mut(mix(key) & (OWN_PAIRS - 1))?;
        if first.key != key {
            if second.key != key {
                return None;
            }
            std::mem::swap(first, second);
        }
        Some(first.ids)
    }

    fn keep(&mut self, key: u128, ids: Ids) {
        self.pairs.resize(OWN_PAIRS, Pair::default());
        let Pair(pair) = &mut self.pairs[mix(key) & (OWN_PAIRS - 1)];
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
    known: ChunkCache,
}

/// What makes the ids of plain words.
enum Words {
    Merges(Box<Merges>),
    Pieces(Pieces),
}

impl Words {
    fn of_merges(merges: Merges) -> Self {
        Self::Merges(Box::new(merges))
    }

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
#[derive(Default)]
struct Memory {
    own: ThreadCache,
    long: HashMap<Box<[u8]>, Box<[u32]>>,
    /// What chunks lose, of texts that lose something.
    losses: HashMap<Box<[u8]>, Loss>,
    /// Ids of the chunk at hand.
    ids: Vec<u32>,
}

impl<'a> Encoders<'a> {
    /// Prepares to tokenize about that many bytes of text.
    ///
    /// # Errors
    /// Internal error: the tokenizer's model or its cutter cannot be built.
    pub fn new(tokenizer: &'a Tokenizer, text_bytes: u64) -> Result<Self> {
        let (cutter, words) = if let Some(files) = tokenizer.gpt2_files() {
            let id = |token: &str| files.vocabulary.get(token).copied();
            let merges = Merges::new(id, &files.merges, false);
            (Some(Cutter::ByteLevel), merges.map(Words::of_merges))
        } else {
            Self::of(tokenizer)?
        };
        Ok(Self {
            shared: Shared {
                tokenizer,
                cutter,
                words,
                known: ChunkCache::new(if cutter.is_some() { text_bytes } else { 0 }),
            },
            idle: Mutex::default(),
        })
    }

    /// How text is cut and words are made into ids, as `tokenizers` describes it.
    fn of(tokenizer: &Tokenizer) -> Result<(Option<Cutter>, Option<Words>)> {
        let inner = tokenizer.inner()?;
        let cutter = Cutter::of(inner);
        let words = match (cutter, inner.get_model(), inner.get_normalizer()) {
            (Some(Cutter::ByteLevel), ModelWrapper::BPE(model), normalizer) => {
                let lowercase = matches!(normalizer, Some(NormalizerWrapper::Lowercase(_)));
                Merges::of(model, tokenizer, lowercase)?.map(Words::of_merges)
            }
            (
                Some(Cutter::Bert { .. }),
                ModelWrapper::WordPiece(model),
                Some(NormalizerWrapper::BertNormalizer(normalizer)),
            ) => Pieces::of(model, *normalizer).map(Words::Pieces),
            _ => None,
        };
        Ok((cutter, words))
    }

    /// Lends an encoder to the calling thread.
    pub fn lend<T>(&self, work: impl FnOnce(&mut Encoder<'_>) -> T) -> T {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = idle().pop().unwrap_or_default();
        let result = work(&mut Encoder {
            shared: &self.shared,
            memory: &mut memory,
        });
        idle().push(memory);
        result
    }
}

impl Encoder<'_> {
    /// Appends the tokens of a text, none of them special, and returns what they leave out of it.
    ///
    /// # Errors
    /// The errors of [`Tokenizer::encode`].
    pub fn encode(&mut self, text: &str, tokens: &mut Vec<u32>) -> Result<Loss> {
        let start = tokens.len();
        // Each kind has a loop of its own, in which it is known.
        match self.shared.cutter {
            None => return self.shared.tokenizer.encode(text, tokens),
            Some(Cutter::ByteLevel) => self.chunks(text, tokens, ByteLevelChunks::new(text))?,
            Some(bert @ Cutter::Bert { .. }) => {
                let mut at = 0;
                let next = || {
                    let chunk = bert.next(text, at)?;
                    at = chunk.end;
                    Some(chunk)
                };
                self.chunks(text, tokens, std::iter::from_fn(next))?;
            }
        }
        let tokenizer = self.shared.tokenizer;
        let mut loss = Loss {
            unknown: tokenizer.unknown_in(&tokens[start..]),
            changed: tokenizer.losses().changes(text),
            ..Loss::default()
        };
        // Most texts lose nothing, and are looked at once.
        if loss.unknown > 0 || tokenizer.losses().drops() {
            self.lost(text, &mut loss)?;
        }
        Ok(loss)
    }

    /// Adds what the chunks of a text lose.
    #[cold]
    fn lost(&mut self, text: &str, loss: &mut Loss) -> Result<()> {
        let Some(cutter) = self.shared.cutter else {
            return Ok(());
        };
        let known = &mut self.memory.losses;
        let mut at = 0;
        while let Some(chunk) = cutter.next(text, at) {
            at = chunk.end;
            let chunk = &text[chunk];
            let lost = if let Some(&lost) = known.get(chunk.as_bytes()) {
                lost
            } else {
                let lost = Loss {
                    unknown: 0,
                    changed: false,
                    ..self.shared.tokenizer.encode_and_count(chunk, &mut Vec::new())?
                };
                if chunk.len() <= LONG_CHUNK_BYTES {
                    if known.len() == LONG_CHUNKS {
                        known.clear();
                    }
                    known.insert(chunk.as_bytes().into(), lost);
                }
                lost
            };
            loss.add(lost);
        }
        Ok(())
    }

    /// Appends the ids of the chunks of a text.
    #[inline(always)]
    fn chunks(
        &mut self,
        text: &str,
        tokens: &mut Vec<u32>,
        mut chunks: impl Iterator<Item = Range<usize>>,
    ) -> Result<()> {
        let known = &self.shared.known;
        let bytes = text.as_bytes();
        let mut ahead = [(0, 0, 0, 0); AHEAD];
        loop {
            let mut cut = 0;
            while cut < AHEAD
                && let Some(Range { start, end }) = chunks.next()
            {
                let (key, place) = if end - start > SLOT_BYTES {
                    (LONG, 0)
                } else {
                    let key = key(bytes, start, end - start);
                    let place = known.place(key);
                    known.prefetch(place);
                    (key, place)
                };
                ahead[cut] = (start, end, place, key);
                cut += 1;
            }
            // Whole slots are written, of which what counts stays.
            let mut found = [0; (AHEAD + 1) * SLOT_IDS];
            let mut count = 0;
            for &(start, end, place, key) in &ahead[..cut] {
                let Some(ids) = known.find(place, key) else {
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

    /// Appends the ids of a chunk that is in no slot of all threads, and puts it into one if it has few.
    #[cold]
    fn absent(&mut self, chunk: &str, key: u128, tokens: &mut Vec<u32>) -> Result<()> {
        if key == LONG {
            return self.long(chunk, tokens);
        }
        if self.shared.known.is_full(key)
            && let Some(ids) = self.memory.own.find(key)
        {
            tokens.extend_from_slice(&ids.unpack()[..ids.count()]);
            return Ok(());
        }
        self.memory.ids.clear();
        let words = self.shared.words.as_ref();
        if !words.is_some_and(|words| words.word(chunk, &mut self.memory.ids)) {
            return self.put(chunk, key, tokens);
        }
        self.shared.tokenizer.refuse_special(&self.memory.ids, None)?;
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
        if let Some(ids) = Ids::of(&self.memory.ids)
            && !self.shared.known.keep(key, ids)
        {
            self.memory.own.keep(key, ids);
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
        let made = match &self.shared.words {
            Some(Words::Merges(merges)) => merges.word(chunk, tokens) || merges.any(chunk, tokens)?,
            Some(Words::Pieces(pieces)) => pieces.word(chunk, tokens),
            None => false,
        };
        if !made {
            self.shared.tokenizer.encode_whole(chunk, tokens)?;
        }
        let ids = &tokens[start..];
        // Here and in `absent`, where ids are made: those that are looked up were seen before.
        self.shared.tokenizer.refuse_special(ids, None)?;
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
    use crate::data::words::{ChunkCounts, WordCutter};
    use crate::manifest::TrainTokenizer;
    use proptest::prelude::*;
    use std::sync::LazyLock;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

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
        trained.push(gpt2(None));
        trained
    });

    /// GPT-2's two files with some merges, its special token amid the vocabulary. `mask` is a token more.
    fn gpt2(mask: Option<&str>) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        bytes.sort_unstable();
        let mut tokens: Vec<String> = bytes.iter().map(char::to_string).collect();
        tokens.insert(100, "<|endoftext|>".to_owned());
        let pairs = [
            "h e", "l l", "Ġ a", "ll o", "he llo", "a a", "aa aa", "' l", "Ġ Ġ", "Ċ Ċ", "\" \"", "\\ \"",
            "Ġa b", "Ã ©", "a bc",
        ];
        let made = pairs.map(|pair| pair.replace(' ', ""));
        tokens.extend(made.iter().filter(|token| *token != "abc").cloned());
        tokens.extend(["bc".to_owned(), "abc".to_owned()]);
        tokens.extend(mask.map(str::to_owned));
        let vocabulary: serde_json::Map<String, serde_json::Value> = (0..)
            .zip(tokens)
            .map(|(id, token): (u32, _)| (token, id.into()))
            .collect();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write("vocab.json", serde_json::to_string(&vocabulary).unwrap());
        write("merges.txt", format!("#version: 0.2\n{}\n", pairs.join("\n")));
        let files = crate::manifest::Gpt2Files {
            vocabulary: "vocab.json".into(),
            merges: "merges.txt".into(),
        };
        Tokenizer::gpt2(&files, folder.path()).unwrap()
    }

    #[test]
    fn encoder_files_of_gpt2_are_those_of_the_library() {
        let quick = gpt2(None);
        assert!(quick.gpt2_files().is_some());
        let ours = quick.json().unwrap();
        let library = quick.inner().unwrap();
        assert_eq!(ours, library.to_string(true).unwrap() + "\n");
        assert_eq!(Cutter::of(library), Some(Cutter::ByteLevel));
        // A mask that is appended, as `resolve` does it.
        let last = library.get_vocab_size(true) as u32 - 1;
        assert_eq!((quick.special().mask, quick.vocabulary()), (last, last + 1));
        assert_eq!(quick.token(last).unwrap(), "[MASK]");
        // One that is there already is another matter.
        let other = gpt2(Some("[MASK]"));
        assert!(other.gpt2_files().is_none());
        assert_eq!(
            (other.special(), other.vocabulary()),
            (quick.special(), quick.vocabulary())
        );
        let found = |tokenizer: &Tokenizer| {
            let roles = tokenizer.roles().unwrap();
            [&roles.bos, &roles.eos, &roles.pad].map(|role| (role.token.clone(), role.found))
        };
        assert_eq!(found(&other), found(&quick));
    }

    fn agree(tokenizer: &Tokenizer, encoder: &mut Encoder<'_>, text: &str) {
        let (mut expected, mut found) = (vec![7], vec![7]);
        let loss = tokenizer.encode(text, &mut expected).unwrap();
        assert_eq!(encoder.encode(text, &mut found).unwrap(), loss, "{text:?}");
        assert_eq!(found, expected, "{text:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn encoder_ids_are_those_of_the_library(texts in proptest::collection::vec(hard(), 1..4)) {
            for tokenizer in &*TRAINED {
                let encoders = Encoders::new(tokenizer, 0).unwrap();
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
    fn encoder_cache_keeps_ids_of_chunks_in_one_slot_apart() {
        let tokenizer = &TRAINED[0];
        let encoders = Encoders::new(tokenizer, 0).unwrap();
        assert!(encoders.shared.words.is_some());
        encoders.lend(|encoder| {
            // More than there are slots, of all threads and of this one.
            let words = || (0..2 * FEWEST_PAIRS + 3 * OWN_PAIRS).map(|n| format!("w{:o}", n * 7));
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
    fn encoder_does_not_cut_text_for_tokenizers_that_look_across_chunks() {
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
    fn encoder_cache_keys_distinguish_chunks() {
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
