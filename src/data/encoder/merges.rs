//! The merges of a byte-level BPE, applied to plain words.

use std::collections::HashMap;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{Model as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

use super::Mixed;
use crate::data::byte_spelling::{byte_of, spelling};
use crate::data::chunks::is_word;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result, guarded};

/// Bytes of the longest word that is merged here: the time grows with the square of the length, and each byte has a bit
/// of a word.
const MERGED_BYTES: usize = 64;

/// Merges that are looked up first: what is known of so many takes 64 KB.
const OFTEN: u64 = 3 << 10;

/// The merges of a byte-level BPE.
pub(super) struct Merges {
    /// The id of every byte.
    bytes: [u32; 256],
    /// What two bytes make, which is half of what is looked up: 256 for each first one.
    byte_pairs: Vec<u64>,
    /// What two neighbouring ids make: the first merges, which are most of those that are found, so that they stay near
    /// the processor; and the others.
    often: HashMap<u64, u64, Mixed>,
    seldom: HashMap<u64, u64, Mixed>,
    lowercase: bool,
}

impl Merges {
    /// The merges of a model; nothing for one with more to it than bytes and merges.
    pub(super) fn of(model: &BPE, tokenizer: &Tokenizer, lowercase: bool) -> Result<Option<Self>> {
        let plain = model.continuing_subword_prefix.is_none()
            && model.end_of_word_suffix.is_none()
            && !model.ignore_merges;
        if !plain {
            return Ok(None);
        }
        let merges = tokenizer.merges(model)?;
        Ok(merges.and_then(|merges| Self::new(|token| model.token_to_id(token), &merges, lowercase)))
    }

    /// The merges by the ids of a vocabulary; nothing when it lacks a byte.
    pub(super) fn new(
        id: impl Fn(&str) -> Option<u32>,
        merges: &[[u32; 3]],
        lowercase: bool,
    ) -> Option<Self> {
        let mut bytes = [0; 256];
        for (byte, spelt) in bytes.iter_mut().zip(spelling()) {
            *byte = id(spelt.encode_utf8(&mut [0; 4]))?;
        }
        let mut this = Self {
            bytes,
            byte_pairs: Vec::new(),
            often: HashMap::default(),
            seldom: HashMap::with_capacity_and_hasher(merges.len(), Mixed::default()),
            lowercase,
        };
        for (rank, &[a, b, id]) in (0_u64..).zip(merges) {
            let (pair, made) = (pair(a, b), rank << 32 | u64::from(id));
            if rank < OFTEN {
                this.often.insert(pair, made);
            } else {
                // Listed twice, it counts where it is listed last.
                this.often.remove(&pair);
                this.seldom.insert(pair, made);
            }
        }
        let of_byte = |&a: &u32| bytes.map(|b| this.made(a, b));
        this.byte_pairs = bytes.iter().flat_map(of_byte).collect();
        Some(this)
    }

    /// Appends the ids of a chunk if it is a plain word: of adjacent symbols the pair of the lowest rank becomes one,
    /// the first of equal ones first, until no pair has a rank (Sennrich et al., arXiv 1508.07909).
    pub(super) fn word(&self, chunk: &str, ids: &mut Vec<u32>) -> bool {
        if chunk.len() > MERGED_BYTES || self.lowercase && !chunk.is_ascii() || !is_word(chunk) {
            return false;
        }
        let mut word = [0; MERGED_BYTES];
        let word = &mut word[..chunk.len()];
        word.copy_from_slice(chunk.as_bytes());
        if self.lowercase {
            word.make_ascii_lowercase();
        }
        self.merge_all(word, ids);
        true
    }

    /// Appends the ids of any chunk whose words are short enough, cut by GPT-2's pattern.
    pub(super) fn any(&self, chunk: &str, ids: &mut Vec<u32>) -> Result<bool> {
        if self.lowercase {
            return Ok(false);
        }
        let pieces = guarded(|| {
            let mut pieces = PreTokenizedString::from(chunk);
            let cut = ByteLevel::new(false, true, true).pre_tokenize(&mut pieces);
            cut.map(|()| pieces).map_err(|error| error.to_string())
        });
        let pieces = pieces
            .and_then(|pieces| pieces)
            .map_err(|error| Error::input(format!("cut text into words: {error}")))?;
        let before = ids.len();
        for (spelt, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            let mut word = [0; MERGED_BYTES];
            let mut length = 0;
            for character in spelt.chars() {
                let Some((at, byte)) = word.get_mut(length).zip(byte_of(character)) else {
                    ids.truncate(before);
                    return Ok(false);
                };
                *at = byte;
                length += 1;
            }
            self.merge_all(&word[..length], ids);
        }
        Ok(true)
    }

    /// Appends what is made of at most [`MERGED_BYTES`] bytes.
    fn merge_all(&self, word: &[u8], ids: &mut Vec<u32>) {
        // Most words are short, and less is to be cleared for them.
        match word.len() {
            0 => {}
            1..=16 => self.merge::<16>(word, ids),
            _ => self.merge::<MERGED_BYTES>(word, ids),
        }
    }

    /// Appends what is made of at most N bytes, at least one and at most [`MERGED_BYTES`].
    fn merge<const N: usize>(&self, word: &[u8], ids: &mut Vec<u32>) {
        let last = word.len() - 1;
        // By its first byte: the symbol, and what it makes with the next one.
        let mut symbols = [0; N];
        let mut made = [NOTHING; N];
        for (at, &byte) in word.iter().enumerate() {
            symbols[at] = self.bytes[usize::from(byte)];
        }
        for (at, bytes) in word.windows(2).enumerate() {
            made[at] = self.byte_pairs[usize::from(bytes[0]) << 8 | usize::from(bytes[1])];
        }
        // The bytes that begin a symbol.
        let mut begins = u64::MAX >> (63 - last);
        loop {
            let (mut at, mut best) = (0, NOTHING);
            for (here, &made) in made[..last].iter().enumerate() {
                if made < best {
                    (at, best) = (here, made);
                }
            }
            if best == NOTHING {
                break;
            }
            let id = best as u32;
            symbols[at] = id;
            // The second of the pair is no more; it is there, since something was made with it.
            let after = begins & (u64::MAX << at << 1);
            let second = after.trailing_zeros() as usize % N;
            begins &= !(1 << second);
            made[second] = NOTHING;
            let after = begins & (u64::MAX << at << 1);
            made[at] = if after == 0 {
                NOTHING
            } else {
                self.made(id, symbols[after.trailing_zeros() as usize % N])
            };
            let before = begins & !(u64::MAX << at);
            if before != 0 {
                let first = before.ilog2() as usize % N;
                made[first] = self.made(symbols[first], id);
            }
        }
        while begins != 0 {
            ids.push(symbols[begins.trailing_zeros() as usize % N]);
            begins &= begins - 1;
        }
    }

    fn made(&self, a: u32, b: u32) -> u64 {
        let pair = pair(a, b);
        let made = self.often.get(&pair).or_else(|| self.seldom.get(&pair));
        made.copied().unwrap_or(NOTHING)
    }
}

/// What a pair makes that makes nothing; else it is the rank, and in the low half the id.
const NOTHING: u64 = u64::MAX;

fn pair(a: u32, b: u32) -> u64 {
    u64::from(a) << 32 | u64::from(b)
}
