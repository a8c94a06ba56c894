//! Samplers that fix the order in which positions are unmasked: at random, by how sure the model is, or from left to right.
//!
//! | sampler | first come | source |
//! |---|---|---|
//! | `random` | tokens chosen at random | LLaDA's `random` remasking, arXiv 2502.09992 |
//! | `confidence` | the largest probability of the drawn token | MaskGIT, arXiv 2202.04200; LLaDA's `low_confidence` |
//! | `margin` | the largest difference of the two largest probabilities | arXiv 2502.06768 |
//! | `entropy` | the smallest entropy | Dream, `entropy` |
//! | `left_to_right` | the smallest position | |
//! | `threshold` | all from a probability on, and one at least | Fast-dLLM, arXiv 2505.22618 |
//!
//! What is unmasked stays. Probabilities are those of the model at the temperature that tokens are drawn with, before any
//! token is left out by a truncation; at temperature 0 those at temperature 1.

mod plan;

pub use plan::{Share, share};

use super::{Query, Sampler, Step, masked};
use crate::kernels::categorical::Draw;
use crate::manifest::UnmaskingSchedule;
use crate::model::Action;

/// Which positions come first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// Those chosen at random.
    Random,
    /// Those on the left.
    LeftToRight,
    /// Those with the largest score.
    Score(ConfidenceScore),
    /// All whose drawn token has this probability at least, and the one with the largest.
    Threshold(f64),
}

/// How sure a model is of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfidenceScore {
    /// log p of the drawn token.
    Probability,
    /// The difference of the two largest probabilities.
    Margin,
    /// Minus the entropy.
    Entropy,
}

impl ConfidenceScore {
    fn of(self, draw: &Draw) -> f64 {
        let confidence = draw.confidence;
        match self {
            Self::Probability => draw.log_probability,
            Self::Margin => confidence.map_or(0.0, |numbers| numbers.largest[0] - numbers.largest[1]),
            Self::Entropy => confidence.map_or(0.0, |numbers| -numbers.entropy),
        }
    }
}

/// Unmasks tokens in an order, block after block.
pub struct Ordered {
    /// What stands at positions that are not drawn yet.
    pub mask: u32,
    /// Which positions come first.
    pub order: Order,
    /// Tokens of a block; nothing for one block.
    pub block: Option<u32>,
    /// How many tokens a step unmasks; of no effect with [`Order::Threshold`].
    pub schedule: UnmaskingSchedule,
    /// Scale of the Gumbel noise on scores.
    pub choice_temperature: f64,
    /// Tokens that come after all others of their block, where the order goes by the model.
    pub late: Vec<u32>,
    /// Masked tokens of each block at the start, (rows, blocks).
    masked: Vec<u32>,
    blocks: usize,
}

impl Ordered {
    /// This order of positions, in one block, the same number in each step.
    #[must_use]
    pub fn new(mask: u32, order: Order) -> Self {
        Self {
            mask,
            order,
            block: None,
            schedule: UnmaskingSchedule::Linear,
            choice_temperature: 0.0,
            late: Vec::new(),
            masked: Vec::new(),
            blocks: 1,
        }
    }

    fn block_length(&self, length: usize) -> usize {
        self.block
            .map_or(length, |block| (block as usize).clamp(1, length))
    }

    fn share(&self, step: &Step, row: usize) -> Option<Share> {
        let masked = self.masked.get(row * self.blocks..(row + 1) * self.blocks)?;
        share(masked, step.index, step.count, self.schedule)
    }

    /// The masked positions of a block.
    fn masked_of(&self, block: usize, tokens: &[u32]) -> Vec<u32> {
        let length = self.block_length(tokens.len());
        let range = block * length..(block + 1) * length;
        let masked = masked(self.mask, tokens);
        masked
            .filter(|&position| range.contains(&(position as usize)))
            .collect()
    }

    /// The score of a draw in a step of a block.
    fn score(
        &self,
        score: ConfidenceScore,
        step: &Step,
        row: usize,
        share: Share,
        draw: (u32, &Draw),
    ) -> f64 {
        let (position, draw) = draw;
        if self.late.contains(&draw.token) {
            return f64::NEG_INFINITY;
        }
        let left = 1.0 - f64::from(share.index + 1) / f64::from(share.count);
        let scale = self.choice_temperature * left;
        let noise = if scale > 0.0 {
            // A Gumbel variable; u is below 1, and at 0 the noise is −∞.
            -(-step.uniform(row, position).ln()).ln() * scale
        } else {
            0.0
        };
        score.of(draw) + noise
    }
}

/// The `count` positions with the largest scores, ascending; of equal scores the smaller positions.
fn largest(scores: &[(u32, f64)], count: usize) -> Vec<u32> {
    let mut order: Vec<&(u32, f64)> = scores.iter().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut chosen: Vec<u32> = order.iter().take(count).map(|(position, _)| *position).collect();
    chosen.sort_unstable();
    chosen
}

impl Sampler for Ordered {
    fn start(&self, length: usize) -> Vec<u32> {
        vec![self.mask; length]
    }

    /// As many as asked for, and no fewer than blocks; with a threshold as many as a row may need.
    fn steps(&self, steps: u32, length: usize) -> u32 {
        match self.order {
            Order::Threshold(_) => length as u32,
            _ => steps.max(length.div_ceil(self.block_length(length)) as u32),
        }
    }

    fn begin(&mut self, tokens: &[u32], length: usize) {
        let block = self.block_length(length);
        self.blocks = length.div_ceil(block);
        let count = |block: &[u32]| block.iter().filter(|&&token| token == self.mask).count() as u32;
        let rows = tokens.chunks_exact(length);
        self.masked = rows.flat_map(|row| row.chunks(block).map(count)).collect();
    }

    /// The network takes no time.
    fn sigma(&self, _: &Step) -> f64 {
        0.0
    }

    fn query(&self, step: &Step, row: usize, tokens: &[u32]) -> Vec<Query> {
        let with = |action| move |position| Query { position, action };
        if let Order::Threshold(_) = self.order {
            let first = masked(self.mask, tokens).next();
            let block = first.map(|position| position as usize / self.block_length(tokens.len()));
            let positions = block
                .map(|block| self.masked_of(block, tokens))
                .unwrap_or_default();
            return positions.into_iter().map(with(Action::Report)).collect();
        }
        let Some(share) = self.share(step, row) else {
            return Vec::new();
        };
        let positions = self.masked_of(share.block, tokens);
        let count = share.tokens as usize;
        match self.order {
            Order::Random => {
                let scores: Vec<(u32, f64)> = positions
                    .iter()
                    .map(|&position| (position, step.uniform(row, position)))
                    .collect();
                largest(&scores, count)
                    .into_iter()
                    .map(with(Action::Commit))
                    .collect()
            }
            Order::LeftToRight => {
                let first = positions.into_iter().take(count);
                first.map(with(Action::Commit)).collect()
            }
            Order::Score(_) | Order::Threshold(_) => {
                positions.into_iter().map(with(Action::Report)).collect()
            }
        }
    }

    fn commit(&mut self, step: &Step, row: usize, _: &[u32], draws: &[(u32, Draw)]) -> Vec<(u32, u32)> {
        let chosen = match self.order {
            Order::Random | Order::LeftToRight => return Vec::new(),
            Order::Score(score) => {
                let Some(share) = self.share(step, row) else {
                    return Vec::new();
                };
                let scored = |(position, draw): &(u32, Draw)| {
                    (*position, self.score(score, step, row, share, (*position, draw)))
                };
                let scores: Vec<(u32, f64)> = draws.iter().map(scored).collect();
                largest(&scores, share.tokens as usize)
            }
            Order::Threshold(probability) => {
                let scored = |(position, draw): &(u32, Draw)| {
                    let is_late = self.late.contains(&draw.token);
                    let p = if is_late { -1.0 } else { draw.log_probability.exp() };
                    (*position, p)
                };
                let scores: Vec<(u32, f64)> = draws.iter().map(scored).collect();
                let above = scores.iter().filter(|(_, p)| *p >= probability).count();
                largest(&scores, above.max(1))
            }
        };
        draws
            .iter()
            .filter(|(position, _)| chosen.binary_search(position).is_ok())
            .map(|&(position, draw)| (position, draw.token))
            .collect()
    }

    fn wants_confidence(&self) -> bool {
        matches!(
            self.order,
            Order::Score(ConfidenceScore::Margin | ConfidenceScore::Entropy)
        )
    }
}

#[cfg(test)]
mod tests;
