//! Analytic sampling: Tweedie τ-leaping with the network's scores.

use super::{Query, Sampler, Step, masked};
use crate::diffusion::{Posterior, Scores};
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

    fn query(&self, step: &Step, row: usize, tokens: &[u32]) -> Vec<Query> {
        let posterior = &self.posterior;
        queries(posterior, step, row, tokens, || {
            posterior.unmask_probability_analytic(step.index, step.count, 0.0)
        })
    }

    fn commit(&mut self, step: &Step, row: usize, _: &[u32], draws: &[(u32, Draw)]) -> Vec<(u32, u32)> {
        let posterior = &self.posterior;
        unmask(step, row, draws, |draw| {
            posterior.unmask_probability_analytic(step.index, step.count, draw.log_sum_exp)
        })
    }
}

/// The positions that the network is asked about. Where the scores are those of probabilities, their sum is known, and so is
/// which tokens the step unmasks, each with `probability`: the network is asked about these alone. Else every masked position
/// is reported, and decided by [`unmask`].
pub(super) fn queries(
    posterior: &Posterior,
    step: &Step,
    row: usize,
    tokens: &[u32],
    probability: impl Fn() -> f64,
) -> Vec<Query> {
    let masked = masked(posterior.mask(), tokens);
    let with = |action| move |position| Query { position, action };
    match posterior.scores {
        Scores::OfProbabilities => {
            let probability = probability();
            masked
                .filter(|&position| step.uniform(row, position) < probability)
                .map(with(Action::Commit))
                .collect()
        }
        Scores::OfLogits { .. } => masked.map(with(Action::Report)).collect(),
    }
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
