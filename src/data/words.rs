//! The words that a tokenizer is trained on: chunks of text, counted, and cut as the tokenizer will.

use std::collections::HashMap;

use rayon::prelude::*;
use tokenizers::models::bpe::Vocab;
use tokenizers::{
    NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _,
};

use crate::data::chunks::Cutter;
use crate::data::gpt2::byte_level;
use crate::data::vocabulary::numbered;
use crate::data::word_piece::{UNKNOWN, word_piece};
use crate::error::{Kind, Result, Wrap as _};

/// Chunks that are counted for training at a time, at most: some 400 MB. English text of several gigabytes has fewer.
const MOST_CHUNKS: usize = 1 << 22;

/// The words that a tokenizer is trained on, counted.
#[derive(Debug, Default)]
pub struct WordCounts(HashMap<String, u64>);

impl WordCounts {
    fn add(&mut self, word: &str, count: u64) {
        match self.0.get_mut(word) {
            Some(known) => *known += count,
            None => {
                self.0.insert(word.to_owned(), count);
            }
        }
    }

    fn append(mut self, other: Self) -> Self {
        if self.0.len() < other.0.len() {
            return other.append(self);
        }
        for (word, count) in other.0 {
            *self.0.entry(word).or_default() += count;
        }
        self
    }

    pub(super) fn sorted(&self) -> Vec<(&str, u64)> {
        let mut words: Vec<(&str, u64)> = self.0.iter().map(|(w, &n)| (w.as_str(), n)).collect();
        words.sort_unstable();
        words
    }
}

/// The chunks of text that a tokenizer cuts one by one, counted: what [`WordCutter::words`] makes words of.
#[derive(Debug, Default)]
pub struct ChunkCounts(HashMap<Box<str>, u64>);

impl ChunkCounts {
    /// Adds the counts of another.
    pub fn append(&mut self, other: Self) {
        if self.0.is_empty() {
            self.0 = other.0;
            return;
        }
        for (chunk, count) in other.0 {
            *self.0.entry(chunk).or_default() += count;
        }
    }

    /// Forgets the rarest chunks when there are more than [`MOST_CHUNKS`], until half as many are left. Depends on what
    /// was counted until here alone; a chunk that comes back is counted from zero.
    pub fn bound(&mut self) {
        self.shrink(MOST_CHUNKS);
    }

    fn shrink(&mut self, most: usize) {
        if self.0.len() <= most {
            return;
        }
        let mut least = 1;
        while self.0.len() > most / 2 {
            self.0.retain(|_, count| *count > least);
            least *= 2;
        }
        self.0.shrink_to_fit();
    }
}

/// Cuts text into words as the tokenizer to be trained will.
pub struct WordCutter {
    inner: tokenizers::Tokenizer,
    cutter: Option<Cutter>,
}

impl WordCutter {
    /// The words of a byte-level BPE: GPT-2's pattern, bytes spelled as characters.
    ///
    /// # Errors
    /// Internal error: the `tokenizers` library fails.
    pub fn bpe(lowercase: bool) -> Result<Self> {
        byte_level(Vocab::default(), Vec::new(), &[], lowercase).map(Self::of)
    }

    /// The words of a WordPiece: BERT's cleaning, split at white space and punctuation.
    ///
    /// # Errors
    /// Internal error: the `tokenizers` library fails.
    pub fn wordpiece(lowercase: bool) -> Result<Self> {
        word_piece(&numbered(&[UNKNOWN]), &[], lowercase).map(Self::of)
    }

    fn of(inner: tokenizers::Tokenizer) -> Self {
        Self {
            cutter: Cutter::of(&inner),
            inner,
        }
    }

    /// Counts the chunks of a text.
    pub fn count(&self, text: &str, counts: &mut ChunkCounts) {
        let mut at = 0;
        let mut next = || match self.cutter {
            Some(cutter) => cutter.next(text, at).map(|chunk| {
                at = chunk.end;
                &text[chunk]
            }),
            None => (std::mem::replace(&mut at, text.len()) < text.len()).then_some(text),
        };
        while let Some(chunk) = next() {
            match counts.0.get_mut(chunk) {
                Some(count) => *count += 1,
                None => {
                    counts.0.insert(chunk.into(), 1);
                }
            }
        }
    }

    /// The words of counted chunks.
    ///
    /// # Errors
    /// Internal error: the `tokenizers` library fails.
    pub fn words(&self, chunks: &ChunkCounts) -> Result<WordCounts> {
        chunks
            .0
            .par_iter()
            .try_fold(WordCounts::default, |mut words, (chunk, &count)| {
                self.cut(chunk, count, &mut words)?;
                Ok(words)
            })
            .try_reduce(WordCounts::default, |a, b| Ok(a.append(b)))
    }

    /// Counts the words of a text that occurs so often.
    fn cut(&self, text: &str, count: u64, words: &mut WordCounts) -> Result<()> {
        let what = || "cut a text into words".to_owned();
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            normalizer.normalize(&mut normalized).wrap(Kind::Internal, what)?;
        }
        let mut pieces = PreTokenizedString::from(normalized);
        if let Some(cutter) = self.inner.get_pre_tokenizer() {
            cutter.pre_tokenize(&mut pieces).wrap(Kind::Internal, what)?;
        }
        for (word, _, _) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            words.add(word, count);
        }
        Ok(())
    }
}
