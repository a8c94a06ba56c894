//! Ancestral sampling (`ddpm`): the network is asked in every step about the tokens that the step unmasks.

use super::{Query, Sampler, Step, masked};
use crate::diffusion::Posterior;
use crate::kernels::categorical::Draw;
use crate::manifest::Grid;
use crate::model::Action;

/// In the step from time t to s every masked token is unmasked with probability (α(s) − α(t)) / (1 − α(t)), drawn from the
/// network's distribution (arXiv 2406.07524, eq. 7); unmasked tokens never change.
///
/// Where the network gives the mask a probability (D3PM, arXiv 2107.03006), the probability depends on it
/// ([`Posterior::unmask_probability_beside_mask`]), so a token is drawn and reported before it is decided whether it takes its
/// place. The chain of T steps then ends at time 0 with some masks left. One more step draws them: x_0 of the bound's
/// reconstruction term, where x_0 is not the mask.
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

    fn steps(&self, steps: u32, _: usize) -> u32 {
        steps + u32::from(!self.posterior.zero_masking)
    }

    fn sigma(&self, step: &Step) -> f64 {
        self.posterior.sigma(step.index, self.boundaries(step))
    }

    fn query(&self, step: &Step, row: usize, tokens: &[u32]) -> Vec<Query> {
        let masked = || masked(self.posterior.mask(), tokens);
        if !self.posterior.zero_masking {
            return masked()
                .map(|position| Query {
                    position,
                    action: Action::Report,
                })
                .collect();
        }
        let probability = self
            .posterior
            .unmask_probability(step.index, step.count, self.grid);
        let unmasked = |position: &u32| step.uniform(row, *position) < probability;
        let mut queries: Vec<_> = masked()
            .filter(unmasked)
            .map(|position| Query {
                position,
                action: Action::Commit,
            })
            .collect();
        // The network is called in every step, as in the authors' code, whatever the step unmasks.
        if queries.is_empty() {
            queries.extend(masked().take(1).map(|position| Query {
                position,
                action: Action::Evaluate,
            }));
        }
        queries
    }

    fn commit(&mut self, step: &Step, row: usize, _: &[u32], draws: &[(u32, Draw)]) -> Vec<(u32, u32)> {
        let boundaries = self.boundaries(step);
        let probability = |draw: &Draw| {
            if step.index == boundaries {
                return 1.0;
            }
            let mask = draw.mask_probability();
            self.posterior
                .unmask_probability_beside_mask(step.index, boundaries, self.grid, mask)
        };
        draws
            .iter()
            .filter(|(position, draw)| step.uniform(row, *position) < probability(draw))
            .map(|&(position, draw)| (position, draw.token))
            .collect()
    }
}

impl Ancestral {
    /// T: the last boundary, at time 0.
    fn boundaries(&self, step: &Step) -> u32 {
        step.count - u32::from(!self.posterior.zero_masking)
    }
}
