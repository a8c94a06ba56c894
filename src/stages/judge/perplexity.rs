//! Generative perplexity: how an autoregressive model, the judge, predicts sampled texts, in three variants that disagree.
//!
//! Texts are decoded with the tokenizer of the model that drew them and encoded with that of the judge. Special tokens keep
//! their roles: BOS and EOS of the samples become those of the judge, padding and masks are left out. DIFFERENCE: the authors'
//! programs spell special tokens out and leave them to the judge's tokenizer, which is the same where both models have one
//! tokenizer, and text about brackets where not.
//!
//! | variant | tokens of a row | judged in | scored |
//! |---|---|---|---|
//! | `mdlm` | cut to the length of the model that drew it, filled up with EOS to the longest row | chunks of the judge's length L without overlap | of a chunk all tokens but the first: those that are not EOS, and the first EOS of the chunk |
//! | `bd3lms` | cut to the length of the model that drew it | windows of L, L / 2 apart | all tokens but the first, once, in the window that has most before it; no EOS |
//! | `plain` | each text between special tokens: BOS, text, EOS where the row ends the text | windows of L, L / 2 apart | all tokens but BOS, once, in the window that has most before it |
//!
//! In `plain` the EOS at the end of a joined row ends no text: rows of training text have it wherever they were cut. A text
//! without a token is left out.
//!
//! The perplexity is the exponential of Σ −log p / tokens over all rows, in f64, with the interval of a ratio clustered by row.

use serde::{Deserialize, Serialize};

use super::grammatical::RowForm;
use super::statistics::ratio;
use crate::data::SpecialIds;
use crate::data::tokenizer::Tokenizer;
use crate::diffusion::Objective;
use crate::error::{Context as _, Error, Result};
use crate::evaluate::Interval;
use crate::event::Cancel;
use crate::manifest::{PerplexityVariant, Weights};
use crate::model::{Batch, Network};
use crate::store::Digest;

/// A generative perplexity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GenerativePerplexity {
    /// How tokens are counted: values of different variants do not compare.
    pub variant: PerplexityVariant,
    /// The judge ([`ModelInfo::identity`](crate::stages::trained::ModelInfo::identity)): nor do values of different judges.
    pub judge: Digest,
    /// Its weights.
    pub weights: Weights,
    /// Tokens of the judge that were scored.
    pub tokens: u64,
    /// Mean −log p of a scored token in nats.
    pub nats_per_token: Interval,
    /// Its exponential.
    pub perplexity: Interval,
    /// −log p of the scored tokens per byte of the text that was judged, in nats.
    pub nats_per_byte: Option<Interval>,
}

/// Tokens that the judge sees at once, and which of them it scores.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    /// The row that it is of.
    row: usize,
    tokens: Vec<u32>,
    /// Places in `tokens` of those that are scored, above 0 and in order.
    scored: Vec<usize>,
}

/// Rows in the tokens of the judge.
struct JudgedWindows {
    windows: Vec<Window>,
    /// Bytes of text of each row.
    bytes: Vec<usize>,
}

/// The model that judges.
pub struct TextJudge<'a> {
    /// Its network.
    pub network: &'a dyn Network,
    /// Its objective, `ar`.
    pub objective: &'a dyn Objective,
    /// Its tokenizer, which may make special tokens of text.
    pub tokenizer: &'a Tokenizer,
    /// Its special tokens.
    pub special: SpecialIds,
    /// L: tokens that it sees at once.
    pub length: usize,
    /// Windows that go through the network at a time.
    pub micro_batch: usize,
}

impl TextJudge<'_> {
    /// The nats, the scored tokens and the bytes of each row. `progress` hears the windows done, of how many.
    ///
    /// # Errors
    /// A text has characters that the judge's tokenizer lacks, the network fails, or the run is cancelled.
    pub fn score(
        &self,
        variant: PerplexityVariant,
        rows: &[Vec<u32>],
        form: RowForm<'_>,
        length: usize,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<RowScore>> {
        let JudgedWindows { windows, bytes } = self.judged(variant, rows, form, length)?;
        let mut scores: Vec<RowScore> = bytes
            .into_iter()
            .map(|bytes| RowScore {
                bytes: bytes as f64,
                ..RowScore::default()
            })
            .collect();
        let (mut done, all) = (0, windows.len() as u64);
        for windows in windows.chunks(self.micro_batch) {
            cancel.check()?;
            for (window, nats) in windows.iter().zip(self.nats(windows)?) {
                scores[window.row].nats += nats;
                scores[window.row].tokens += window.scored.len() as f64;
            }
            done += windows.len() as u64;
            progress(done, all);
        }
        Ok(scores)
    }

    /// The windows of rows; those in which nothing is scored are left out.
    fn judged(
        &self,
        variant: PerplexityVariant,
        rows: &[Vec<u32>],
        form: RowForm<'_>,
        length: usize,
    ) -> Result<JudgedWindows> {
        let mut made = JudgedWindows {
            windows: Vec::new(),
            bytes: Vec::with_capacity(rows.len()),
        };
        let mut encoded = Vec::with_capacity(rows.len());
        for (number, row) in rows.iter().enumerate() {
            let what = || format!("encode row {} with the judge's tokenizer", number + 1);
            encoded.push(self.encode(row, form).context(what)?);
        }
        if variant == PerplexityVariant::Plain {
            for (row, texts) in encoded.into_iter().enumerate() {
                let mut bytes = 0;
                for text in texts.into_iter().filter(|text| !text.tokens.is_empty()) {
                    bytes += text.bytes;
                    let end = text.is_ended.then_some(self.special.eos);
                    let tokens: Vec<u32> = std::iter::once(self.special.bos)
                        .chain(text.tokens)
                        .chain(end)
                        .collect();
                    made.windows.extend(sliding(row, &tokens, self.length, |_| true));
                }
                made.bytes.push(bytes);
            }
            return Ok(made);
        }
        let mut joined: Vec<Vec<u32>> = encoded.into_iter().map(joined).collect();
        for tokens in &mut joined {
            tokens.truncate(length);
            made.bytes.push(self.tokenizer.decode(tokens)?.len());
        }
        let eos = self.special.eos;
        let longest = joined.iter().map(Vec::len).max().unwrap_or(0);
        for (row, mut tokens) in joined.into_iter().enumerate() {
            if variant == PerplexityVariant::Mdlm {
                tokens.resize(longest, eos);
                made.windows.extend(
                    tokens
                        .chunks(self.length)
                        .filter_map(|chunk| of_chunk(row, chunk, eos)),
                );
            } else {
                made.windows
                    .extend(sliding(row, &tokens, self.length, |token| token != eos));
            }
        }
        Ok(made)
    }

    /// The texts of a row in the judge's tokens.
    fn encode(&self, row: &[u32], form: RowForm<'_>) -> Result<Vec<EncodedText>> {
        let SpecialIds { bos, eos, .. } = form.special;
        let mut texts = Vec::new();
        let mut start = 0;
        for end in 0..=row.len() {
            let special = row.get(end).copied();
            if special.is_some_and(|token| token != bos && token != eos) {
                continue;
            }
            let text = form.tokenizer.decode(&row[start..end])?;
            let mut tokens = Vec::new();
            self.tokenizer.encode(&text, &mut tokens)?;
            texts.push(EncodedText {
                tokens,
                bytes: text.len(),
                is_ended: special == Some(eos) && !(form.wrap && end + 1 == row.len()),
                then: match special {
                    // The first token of a row begins it, where one token has both roles.
                    Some(_) if bos == eos && end == 0 => Some(self.special.bos),
                    Some(token) if token == eos => Some(self.special.eos),
                    Some(_) => Some(self.special.bos),
                    None => None,
                },
            });
            start = end + 1;
        }
        Ok(texts)
    }

    /// Σ −log p of the scored tokens of windows.
    fn nats(&self, windows: &[Window]) -> Result<Vec<f64>> {
        let mut tokens = Vec::with_capacity(windows.len() * self.length);
        let (mut positions, mut targets) = (Vec::new(), Vec::new());
        for window in windows {
            let start = tokens.len();
            for &place in &window.scored {
                // The position before a token predicts it.
                positions.push((start + place - 1) as u32);
                targets.push(window.tokens[place]);
            }
            tokens.extend_from_slice(&window.tokens);
            // No position sees those after it.
            tokens.resize(start + self.length, self.special.pad);
        }
        let weights = vec![1.0; positions.len()];
        let sigma = vec![0.0; windows.len()];
        let batch = Batch {
            tokens: &tokens,
            sigma: &sigma,
            positions: &positions,
            targets: &targets,
            weights: &weights,
            loss: self.objective.loss(),
            pattern: self.objective.pattern(),
            ..Batch::default()
        };
        let losses = self.network.nll(&batch, self.objective.support())?;
        let mut losses = losses.into_iter().map(f64::from);
        let sums: Vec<f64> = windows
            .iter()
            .map(|window| losses.by_ref().take(window.scored.len()).sum())
            .collect();
        if sums.iter().any(|sum: &f64| !sum.is_finite()) {
            return Err(Error::input("the judge's −log p of a text is not finite")
                .hint("its weights are damaged, or its training diverged"));
        }
        Ok(sums)
    }
}

/// The texts of a row with the special tokens between them.
fn joined(texts: Vec<EncodedText>) -> Vec<u32> {
    let all = texts
        .into_iter()
        .flat_map(|text| text.tokens.into_iter().chain(text.then));
    all.collect()
}

/// A text between special tokens, in the judge's tokens.
struct EncodedText {
    tokens: Vec<u32>,
    bytes: usize,
    /// Whether the row ends it, and does not merely end.
    is_ended: bool,
    /// The special token after it, as the judge has it.
    then: Option<u32>,
}

/// Nats of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowScore {
    /// Σ −log p of the scored tokens.
    pub nats: f64,
    /// Scored tokens.
    pub tokens: f64,
    /// Bytes of text.
    pub bytes: f64,
}

impl GenerativePerplexity {
    /// That of rows; nothing where no token was scored.
    #[must_use]
    pub fn of(
        scores: &[RowScore],
        variant: PerplexityVariant,
        judge: Digest,
        weights: Weights,
    ) -> Option<Self> {
        let per = |of: fn(&RowScore) -> f64| {
            let pairs: Vec<(f64, f64)> = scores.iter().map(|row| (row.nats, of(row))).collect();
            ratio(&pairs)
        };
        let nats_per_token = per(|row| row.tokens)?;
        Some(Self {
            variant,
            judge,
            weights,
            tokens: scores.iter().map(|row| row.tokens).sum::<f64>() as u64,
            nats_per_token,
            perplexity: nats_per_token.map(f64::exp),
            nats_per_byte: per(|row| row.bytes),
        })
    }
}

/// A chunk of the variant `mdlm`: the first token is not scored, of the others those that are not EOS and the first EOS of
/// the chunk.
fn of_chunk(row: usize, chunk: &[u32], eos: u32) -> Option<Window> {
    let first = chunk.iter().position(|&token| token == eos);
    let scored: Vec<usize> = (1..chunk.len())
        .filter(|&place| chunk[place] != eos || Some(place) == first)
        .collect();
    let tokens = chunk.to_vec();
    (!scored.is_empty()).then_some(Window { row, tokens, scored })
}

/// Windows of `length` tokens, half of that apart: each token but the first is in one of them scored, if `counts` says so,
/// and has there at least half a window before it, or all that the text has.
fn sliding(row: usize, tokens: &[u32], length: usize, counts: impl Fn(u32) -> bool) -> Vec<Window> {
    let step = (length / 2).max(1);
    let (mut windows, mut start, mut scored_to) = (Vec::new(), 0, 1);
    while scored_to < tokens.len() {
        let end = (start + length).min(tokens.len());
        let scored: Vec<usize> = (scored_to..end)
            .filter(|&place| counts(tokens[place]))
            .map(|place| place - start)
            .collect();
        if !scored.is_empty() {
            windows.push(Window {
                row,
                tokens: tokens[start..end].to_vec(),
                scored,
            });
        }
        (start, scored_to) = (start + step, end);
    }
    windows
}

#[cfg(test)]
mod tests;
