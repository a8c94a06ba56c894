//! Cached ancestral sampling (`ddpm_cache`): the network is asked when one of a row's tokens is unmasked, and about those
//! tokens alone.
//!
//! What a network without time conditioning answers depends on nothing but the tokens, and which of them a step unmasks
//! does not depend on the answer. So the answer is wanted only in a step that unmasks a token of the row: at most
//! min(steps, L) times a row, and the texts are those of [`Ancestral`](super::ancestral::Ancestral).
//!
//! DIFFERENCE: the authors' cached sampler keeps the last answer over V · L numbers and asks anew after a change; asking
//! just before one needs no memory, is never more often, and needs the unmasked positions' logits only.

use super::{Query, Sampler, Step, masked};
use crate::diffusion::Posterior;
use crate::manifest::Grid;
use crate::model::Action;

/// Ancestral sampling that asks the network as seldom as it can.
pub struct Cached {
    /// The masked share that the first step goes from.
    pub grid: Grid,
    /// The reverse step.
    pub posterior: Posterior,
}

impl Sampler for Cached {
    fn start(&self, length: usize) -> Vec<u32> {
        vec![self.posterior.mask(); length]
    }

    fn sigma(&self, step: &Step) -> f64 {
        self.posterior.sigma(step.index, step.count)
    }

    fn query(&self, step: &Step, row: usize, tokens: &[u32]) -> Vec<Query> {
        let probability = self
            .posterior
            .unmask_probability(step.index, step.count, self.grid);
        masked(self.posterior.mask(), tokens)
            .filter(|&position| step.uniform(row, position) < probability)
            .map(|position| Query {
                position,
                action: Action::Commit,
            })
            .collect()
    }
}
