//! The forward process q(x_t | x_0): each token of a row keeps its value with probability α(t) and moves to the prior
//! otherwise, independently of the others.

use std::ops::Range;

use crate::kernels::Constants;
use crate::manifest::Noise;
use crate::rng::{Random, unit};

/// π: what a token that moves turns into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prior {
    /// The mask token, always (the absorbing process).
    Mask(u32),
}

/// The forward process: how fast tokens move, and where to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ForwardProcess {
    /// α(t).
    pub schedule: Noise,
    /// π.
    pub prior: Prior,
}

/// What a network is fed of the noise level.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Conditioning {
    /// Nothing: its input is 0.
    #[default]
    None,
    /// σ = −log α.
    Sigma,
    /// (log m − log first) / (log last − log first) of the move chance m: the uniform number that m is drawn by under
    /// the change of variables of arXiv 2406.07524.
    LogMoveChance {
        /// The smallest move chance.
        first: f64,
        /// The largest.
        last: f64,
    },
}

impl Conditioning {
    /// The network's input at a noise level; nothing for a network that has none.
    #[must_use]
    pub fn input(self, sigma: f64, move_chance: f64) -> Option<f64> {
        match self {
            Self::None => None,
            Self::Sigma => Some(sigma),
            Self::LogMoveChance { first, last } => {
                let first_log = first.ln();
                let place = (move_chance.ln() - first_log) / (last.ln() - first_log);
                Some(place.clamp(0.0, 1.0))
            }
        }
    }
}

/// The noise of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseLevel {
    /// σ(t) = −log α(t), which a time-conditioned network is fed.
    pub sigma: f64,
    /// 1 − α(t): the probability that a token moves.
    pub move_chance: f64,
    /// Factor of a moved token's negative log-likelihood in the loss.
    pub weight: f64,
}

impl ForwardProcess {
    /// The absorbing process of a manifest's noise.
    #[must_use]
    pub fn absorbing(noise: Noise, mask: u32) -> Self {
        Self {
            schedule: noise,
            prior: Prior::Mask(mask),
        }
    }

    /// q(x_t | x_0) = Cat(α(t) x_0 + (1 − α(t)) π) (arXiv 2406.07524, section 3.1) at one position, by inversion of `u`
    /// uniform on [0, 1): the token that it moves to, or nothing where it keeps its value.
    #[inline]
    #[must_use]
    pub fn q_xt(&self, move_chance: f64, u: f64) -> Option<u32> {
        let Prior::Mask(mask) = self.prior;
        (u < move_chance).then_some(mask)
    }

    /// The noise at time t, weighed with w(t) of the continuous-time bound ([`Noise::loss_weight`]).
    #[must_use]
    pub fn level(&self, t: f64) -> NoiseLevel {
        NoiseLevel {
            sigma: self.schedule.sigma(t),
            move_chance: self.schedule.move_chance(t),
            weight: self.schedule.loss_weight(t),
        }
    }

    /// The token that every position holds at the noisy end of the process.
    #[must_use]
    pub fn mask(&self) -> u32 {
        let Prior::Mask(mask) = self.prior;
        mask
    }
}

/// The low-discrepancy draw of row i among B: (u/B + i/B) mod 1 with u uniform on [0, 1), independent per row
/// (arXiv 2406.07524, appendix C.3; after Kingma et al. 2021).
#[must_use]
pub fn low_discrepancy_time(u: f64, index: u32, batch: u32) -> f64 {
    // (u + i) / B < 1 but for rounding, which the modulus folds back.
    ((u + f64::from(index)) / f64::from(batch)) % 1.0
}

/// [`Random::uniform`] for positions 0, 1, 2, … in this order: a block of the generator serves two of them.
pub(super) fn ascending_uniforms(random: Random, step: u64, row: u64) -> impl FnMut(usize) -> f64 {
    let mut words = [0; 4];
    move |l| {
        if l.is_multiple_of(2) {
            words = random.block(step, row, l as u32 / 2);
        }
        let pair = if l.is_multiple_of(2) {
            [words[0], words[1]]
        } else {
            [words[2], words[3]]
        };
        unit(u64::from(pair[0]) | u64::from(pair[1]) << 32)
    }
}

/// Which training row it is: every random number about it is a function of this and the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowIndex {
    /// Optimizer step, from 0.
    pub step: u64,
    /// Rows trained on before this one, over all steps: step · batch + index.
    pub row: u64,
    /// Position within the global batch.
    pub index: u32,
    /// B: rows of the global batch.
    pub batch: u32,
}

/// How the prediction of a position counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// Factor of its loss.
    pub weight: f64,
    /// Constants of its loss, the same for all positions of a batch in being there or not: see [`crate::kernels::Loss`].
    pub constants: Option<Constants>,
}

impl Score {
    /// A factor of a loss without constants.
    #[must_use]
    pub fn weight(weight: f64) -> Self {
        Self {
            weight,
            constants: None,
        }
    }
}

/// Rows under noise, laid out as the network takes them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NoisedBatch {
    /// `x_t`, row-major (rows, L).
    pub tokens: Vec<u32>,
    /// σ fed to the network: one value for all rows where time conditioning is off (0, as the authors do), else one
    /// per row.
    pub sigma: Vec<f32>,
    /// Flat positions in `tokens` that the network predicts, ascending (n).
    pub positions: Vec<u32>,
    /// The true token at each of `positions` (n).
    pub targets: Vec<u32>,
    /// Weight of each position's loss (n).
    pub weights: Vec<f32>,
    /// Constants of each position's loss (n); empty for a loss that has none.
    pub constants: Vec<Constants>,
    /// End of each row's entries in `positions` (rows).
    pub ends: Vec<usize>,
}

impl NoisedBatch {
    /// Removes all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.sigma.clear();
        self.positions.clear();
        self.targets.clear();
        self.weights.clear();
        self.constants.clear();
        self.ends.clear();
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.ends.len()
    }

    /// Each row's span of `positions`, in order.
    pub fn spans(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| start..end)
    }

    /// Appends the row `x` with the tokens that `moved` gives in place of its own, position by position in ascending
    /// order. Moved positions within `scored` are to be predicted, with that score; `sigma` is the row's noise level for a
    /// time-conditioned network.
    pub fn push(
        &mut self,
        x: &[u32],
        scored: &Range<usize>,
        score: Score,
        sigma: Option<f64>,
        mut moved: impl FnMut(usize) -> Option<u32>,
    ) {
        self.push_scored(x, sigma, |l, token| {
            let to = moved(l);
            let target = (to.is_some() && scored.contains(&l)).then_some((token, score));
            (to.unwrap_or(token), target)
        });
    }

    /// Appends a row of which `each` gives, for each position of `x` in ascending order, the token that the network
    /// sees, and the target and the score where it is to be predicted.
    pub fn push_scored(
        &mut self,
        x: &[u32],
        sigma: Option<f64>,
        mut each: impl FnMut(usize, u32) -> (u32, Option<(u32, Score)>),
    ) {
        let start = self.tokens.len() as u32;
        for (l, &token) in x.iter().enumerate() {
            let (seen, predicted) = each(l, token);
            self.tokens.push(seen);
            if let Some((target, score)) = predicted {
                self.positions.push(start + l as u32);
                self.targets.push(target);
                self.weights.push(score.weight as f32);
                self.constants.extend(score.constants);
            }
        }
        match sigma {
            Some(sigma) => self.sigma.push(sigma as f32),
            None if self.sigma.is_empty() => self.sigma.push(0.0),
            None => {}
        }
        self.ends.push(self.positions.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn low_discrepancy_times_are_one_a_stratum_and_uniform() {
        let batch = 8;
        let mut bins = [0_u32; 64];
        let random = Random::new(1, Stream::Time);
        for step in 0..4000 {
            for index in 0..batch {
                let u = low_discrepancy_time(random.uniform(step, u64::from(index), 0), index, batch);
                assert_eq!((u * f64::from(batch)) as u32, index, "one time in each stratum");
                bins[(u * 64.0) as usize] += 1;
            }
        }
        let chi: f64 = bins.iter().map(|&n| (f64::from(n) - 500.0).powi(2) / 500.0).sum();
        // 56 degrees of freedom (each stratum's total is fixed), 1e-4 quantile 104.
        assert!(chi < 104.0, "chi-square {chi}");
    }

    #[test]
    fn q_xt_moves_below_the_move_chance_and_to_the_mask() {
        let forward = ForwardProcess {
            schedule: Noise::log_linear(1e-3),
            prior: Prior::Mask(7),
        };
        let chance = forward.level(0.5).move_chance;
        assert_eq!(forward.q_xt(chance, chance - 1e-12), Some(7));
        assert_eq!(forward.q_xt(chance, chance), None);
        assert_eq!(forward.q_xt(0.0, 0.0), None, "no noise moves nothing");
        assert_eq!(forward.q_xt(1.0, 1.0 - f64::EPSILON), Some(7));
    }
}
