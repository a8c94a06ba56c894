//! The merges of a byte-level BPE, applied to plain words.

use std::collections::HashMap;

use tokenizers::Model as _;
use tokenizers::models::bpe::BPE;

use super::Mixed;
use crate::data::chunks::is_word;
use crate::data::tokenizer::Tokenizer;
use crate::error::Result;

/// Bytes of the longest word that is merged here: the time grows with the square of the length.
const MERGED_BYTES: usize = 64;

/// The merges of a byte-level BPE.
pub(super) struct Merges {
    /// The id of every byte.
    bytes: [u32; 256],
    /// Rank and id of what two neighbouring ids make.
    pairs: HashMap<u64, (u32, u32), Mixed>,
    lowercase: bool,
}

impl Merges {
    /// The merges of a model; nothing for one with more to it than bytes and merges.
    pub(super) fn of(model: &BPE, tokenizer: &Tokenizer, lowercase: bool) -> Result<Option<Self>> {
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
        let merges = tokenizer.merges(model)?;
        let ranked = (0..).zip(merges.iter());
        let pairs = ranked
            .map(|(rank, &[a, b, made])| (pair(a, b), (rank, made)))
            .collect();
        Ok(Some(Self {
            bytes,
            pairs,
            lowercase,
        }))
    }

    /// Appends the ids of a chunk if it is a plain word: of adjacent symbols the pair of the lowest rank becomes one,
    /// the first of equal ones first, until no pair has a rank (Sennrich et al., arXiv 1508.07909).
    pub(super) fn word(&self, chunk: &str, ids: &mut Vec<u32>) -> bool {
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
