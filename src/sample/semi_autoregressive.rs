//! Semi-autoregressive sampling: texts of any length from rows of L tokens (arXiv 2406.07524, section 3.3).

use super::{Sampler, Sampling, StepDone, UNSEEN};
use crate::error::{Error, Result};
use crate::event::Cancel;
use crate::model::Network;

/// Windows of L tokens that overlap: the first is a row as any other; each later one keeps the last L − S tokens of the window
/// before, S the stride, and a sampler draws the other S given them. A text of K windows has L + (K − 1) S tokens, and no
/// token changes after its window.
///
/// DIFFERENCE: the authors' last step goes to a time below 0, so that its weight of the mask is negative (`diffusion.py`
/// 958–997); here the last step of a window unmasks what is left. A text of theirs always has the same number of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SemiAutoregressive {
    /// S, from 1 to L − 1.
    pub stride: usize,
    /// Tokens of a text, at most where `end` is stated.
    pub length: usize,
    /// The token that ends a text, at any position but the first; nothing where all texts have `length` tokens.
    pub end: Option<u32>,
    /// Steps of the windows after the first.
    pub window_steps: u32,
}

/// Texts drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct LongRows {
    /// Of each row its tokens: with the one that ends it, if it has one.
    pub tokens: Vec<Vec<u32>>,
    /// How often the network was asked about each row.
    pub network_calls: Vec<u32>,
    /// Windows that were drawn.
    pub windows: u32,
}

/// New tokens of a window.
#[derive(Clone, Copy, Debug)]
pub struct TextWindow<'a> {
    /// Which one, from 0.
    pub index: u32,
    /// The row.
    pub row: usize,
    /// Its new tokens.
    pub tokens: &'a [u32],
}

impl SemiAutoregressive {
    /// Windows of a text of `length` tokens.
    #[must_use]
    pub fn windows(&self, row: usize) -> u32 {
        1 + self.length.saturating_sub(row).div_ceil(self.stride) as u32
    }

    /// Draws the rows of `sampling`, which states the first window. `make` makes the sampler of a window; `emit` is called
    /// with each window's new tokens as they come, `progress` after each step of a window with the window's number.
    ///
    /// # Errors
    /// As of [`Sampling::run`], and what `emit` returns; an internal error for a stride of 0 or of L or more.
    pub fn run(
        &self,
        sampling: &Sampling<'_>,
        make: &dyn Fn() -> Result<Box<dyn Sampler>>,
        network: &dyn Network,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u32, StepDone<'_>),
        emit: &mut dyn FnMut(TextWindow<'_>) -> Result<()>,
    ) -> Result<LongRows> {
        let (row_length, count) = (network.shape().length, sampling.count as usize);
        if self.stride == 0 || self.stride >= row_length {
            return Err(Error::internal(format!(
                "a stride of {} in rows of {row_length}",
                self.stride
            )));
        }
        let mut rows = LongRows {
            tokens: vec![Vec::new(); count],
            network_calls: vec![0; count],
            windows: 0,
        };
        let mut is_done = vec![false; count];
        let mut given: Vec<u32> = Vec::new();
        let mut first_step = sampling.first_step;
        for index in 0..self.windows(row_length) {
            if is_done.iter().all(|&done| done) {
                break;
            }
            let window = if index == 0 {
                Sampling {
                    first_step,
                    ..*sampling
                }
            } else {
                Sampling {
                    ends: [None; 2],
                    given: &given,
                    steps: self.window_steps,
                    first_step,
                    ..*sampling
                }
            };
            let mut sampler = make()?;
            first_step += u64::from(sampler.steps(window.steps, row_length));
            let drawn = window.run(&mut *sampler, network, cancel, &mut |done| {
                progress(index, done);
            })?;
            rows.windows = index + 1;
            let new = if index == 0 { 0 } else { row_length - self.stride };
            for (row, tokens) in drawn.tokens.chunks_exact(row_length).enumerate() {
                rows.network_calls[row] += drawn.network_calls[row];
                if is_done[row] {
                    continue;
                }
                let text = &mut rows.tokens[row];
                let before = text.len();
                text.extend_from_slice(&tokens[new..]);
                text.truncate(self.length);
                let from = before.max(1).min(text.len());
                let end = self
                    .end
                    .and_then(|end| text[from..].iter().position(|&token| token == end));
                if let Some(end) = end {
                    text.truncate(from + end + 1);
                }
                is_done[row] = end.is_some() || text.len() == self.length;
                emit(TextWindow {
                    index,
                    row,
                    tokens: &text[before..],
                })?;
            }
            given.clear();
            for (tokens, &done) in drawn.tokens.chunks_exact(row_length).zip(&is_done) {
                if done {
                    // All of it is given: the network is not asked about it.
                    given.extend_from_slice(tokens);
                } else {
                    given.extend_from_slice(&tokens[self.stride..]);
                    given.resize(given.len() + self.stride, UNSEEN);
                }
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests;
