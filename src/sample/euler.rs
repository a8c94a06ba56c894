//! Euler sampling: τ-leaping with constant rates within a step.

use super::analytic::TauLeaping;
use crate::diffusion::Posterior;

impl TauLeaping {
    /// Euler steps (arXiv 2310.16834, section 4.2): in a step of length Δt a masked token is unmasked with the probability
    /// Δt σ′(t) Σ_y s_y, at most 1 ([`Posterior::unmask_probability_euler`]).
    #[must_use]
    pub fn euler(posterior: Posterior) -> Self {
        Self {
            posterior,
            probability: Posterior::unmask_probability_euler,
        }
    }
}
