//! τ-leaping: reverse steps from the network's scores. Analytic sampling is Tweedie's; `euler.rs` has the other.

use super::{Query, Sampler, Step, masked};
use crate::diffusion::{Posterior, Scores};
use crate::kernels::categorical::Draw;
use crate::model::Action;

/// A sampler that unmasks each token by itself, with a probability that depends on its scores, and gives it a value in proportion
/// to them, which is a draw from the softmax of the logits. The last step unmasks what is left.
///
/// The temperature divides the logits of the scores, also in their sum.
pub struct TauLeaping {
    /// The process that is reversed.
    pub posterior: Posterior,
    /// The probability that a token masked at a boundary is unmasked in the step to the next one: of the boundary, the steps and
    /// the log-sum-exp of the logits.
    pub(super) probability: fn(&Posterior, u32, u32, f64) -> f64,
}

impl TauLeaping {
    /// Tweedie τ-leaping: the reverse step that is exact for each token by itself if the scores are (arXiv 2310.16834, section
    /// 4.2), [`Posterior::unmask_probability_analytic`].
    #[must_use]
    pub fn analytic(posterior: Posterior) -> Self {
        Self {
            posterior,
            probability: Posterior::unmask_probability_analytic,
        }
    }
}

impl Sampler for TauLeaping {
    fn start(&self, length: usize) -> Vec<u32> {
        vec![self.posterior.mask(); length]
    }

    fn sigma(&self, step: &Step) -> f64 {
        self.posterior.sigma(step.index, step.count)
    }

    /// Where the scores are those of probabilities, their sum is known, and so is which tokens the step unmasks: the network is
    /// asked about these alone. Else every masked position is reported.
    fn query(&self, step: &Step, row: usize, tokens: &[u32]) -> Vec<Query> {
        let masked = masked(self.posterior.mask(), tokens);
        let with = |action| move |position| Query { position, action };
        match self.posterior.scores {
            Scores::OfProbabilities => {
                let probability = (self.probability)(&self.posterior, step.index, step.count, 0.0);
                masked
                    .filter(|&position| step.uniform(row, position) < probability)
                    .map(with(Action::Commit))
                    .collect()
            }
            Scores::OfLogits { .. } => masked.map(with(Action::Report)).collect(),
        }
    }

    fn commit(&mut self, step: &Step, row: usize, _: &[u32], draws: &[(u32, Draw)]) -> Vec<(u32, u32)> {
        let probability =
            |draw: &Draw| (self.probability)(&self.posterior, step.index, step.count, draw.log_sum_exp);
        draws
            .iter()
            .filter(|(position, draw)| step.uniform(row, *position) < probability(draw))
            .map(|&(position, draw)| (position, draw.token))
            .collect()
    }
}
