//! Analytic sampling: Tweedie τ-leaping with the network's scores.

use super::{Query, Sampler, Step, masked};
use crate::diffusion::Posterior;
use crate::kernels::categorical::Draw;
use crate::model::Action;

/// The reverse step that is exact for each token by itself if the scores are (arXiv 2310.16834, section 4.2): a masked token
/// is unmasked with the probability [`Posterior::unmask_probability_analytic`], and takes a value in proportion to its
/// scores, which is a draw from the softmax of the logits. The last step unmasks what is left.
///
/// The temperature divides the logits of the scores, also in their sum.
pub struct Analytic {
    /// The process that is reversed.
    pub posterior: Posterior,
}

impl Sampler for Analytic {
    fn start(&self, length: usize) -> Vec<u32> {
        vec![self.posterior.mask(); length]
    }

    fn sigma(&self, step: &Step) -> f64 {
        self.posterior.sigma(step.index, step.count)
    }

    fn query(&self, _: &Step, _: usize, tokens: &[u32]) -> Vec<Query> {
        report_masked(&self.posterior, tokens)
    }

    fn commit(&mut self, step: &Step, row: usize, _: &[u32], draws: &[(u32, Draw)]) -> Vec<(u32, u32)> {
        let posterior = &self.posterior;
        unmask(step, row, draws, |draw| {
            posterior.unmask_probability_analytic(step.index, step.count, draw.log_sum_exp)
        })
    }
}

/// A report of each masked position.
pub(super) fn report_masked(posterior: &Posterior, tokens: &[u32]) -> Vec<Query> {
    masked(posterior.mask(), tokens)
        .map(|position| Query {
            position,
            action: Action::Report,
        })
        .collect()
}

/// The drawn tokens that take their positions, each with its probability.
pub(super) fn unmask(
    step: &Step,
    row: usize,
    draws: &[(u32, Draw)],
    probability: impl Fn(&Draw) -> f64,
) -> Vec<(u32, u32)> {
    draws
        .iter()
        .filter(|(position, draw)| step.uniform(row, *position) < probability(draw))
        .map(|&(position, draw)| (position, draw.token))
        .collect()
}
