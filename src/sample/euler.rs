//! Euler sampling: steps of the reverse process with constant rates.

use super::analytic::{queries, unmask};
use super::{Query, Sampler, Step};
use crate::diffusion::Posterior;
use crate::kernels::categorical::Draw;

/// τ-leaping (arXiv 2310.16834, section 4.2): in a step of length Δt a masked token is unmasked with the probability
/// Δt σ′(t) Σ_y s_y, at most 1 ([`Posterior::unmask_probability_euler`]), and takes a value in proportion to its scores. The
/// last step unmasks what is left.
///
/// The temperature divides the logits of the scores, also in their sum.
pub struct Euler {
    /// The process that is reversed.
    pub posterior: Posterior,
}

impl Sampler for Euler {
    fn start(&self, length: usize) -> Vec<u32> {
        vec![self.posterior.mask(); length]
    }

    fn sigma(&self, step: &Step) -> f64 {
        self.posterior.sigma(step.index, step.count)
    }

    fn query(&self, step: &Step, row: usize, tokens: &[u32]) -> Vec<Query> {
        let posterior = &self.posterior;
        queries(posterior, step, row, tokens, || {
            posterior.unmask_probability_euler(step.index, step.count, 0.0)
        })
    }

    fn commit(&mut self, step: &Step, row: usize, _: &[u32], draws: &[(u32, Draw)]) -> Vec<(u32, u32)> {
        let posterior = &self.posterior;
        unmask(step, row, draws, |draw| {
            posterior.unmask_probability_euler(step.index, step.count, draw.log_sum_exp)
        })
    }
}
