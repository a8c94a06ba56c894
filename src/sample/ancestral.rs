//! Ancestral sampling (`ddpm`): the network is asked about every masked token in every step.

use super::{Query, Sampler, Step, masked};
use crate::diffusion::Posterior;
use crate::manifest::Grid;
use crate::model::Action;

/// In the step from time t to s every masked token is unmasked with probability (α(s) − α(t)) / (1 − α(t)), drawn from the
/// network's distribution (arXiv 2406.07524, eq. 7); unmasked tokens never change.
pub struct Ancestral {
    /// The masked share that the first step goes from.
    pub grid: Grid,
    /// The reverse step.
    pub posterior: Posterior,
}

impl Sampler for Ancestral {
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
        let action = |position| {
            if step.uniform(row, position) < probability {
                Action::Commit
            } else {
                Action::Evaluate
            }
        };
        masked(self.posterior.mask(), tokens)
            .map(|position| Query {
                position,
                action: action(position),
            })
            .collect()
    }
}
