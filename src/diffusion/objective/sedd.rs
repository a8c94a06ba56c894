//! SEDD: score entropy discrete diffusion with absorbing noise (arXiv 2310.16834).
//!
//! The network's logits are log-scores up to a constant of the time: s_y(x_t) = z_y − k(σ) estimates
//! log (p_t(x with y in the place of the mask) / p_t(x)), whose true value, given x_0, is log r for y = x_0, else −∞.
//!
//! | equation | function |
//! |---|---|
//! | r = 1 / (e^σ − 1) | [`Sedd::ratio`] |
//! | k(σ) = log (e^σ − 1) + log (V − 1), so that logits of 0 are the uniform distribution | [`Sedd::offset`] |
//! | σ′ · Σ_masked (Σ_(y ≠ m) e^(s_y) − r s(x_0) + r (log r − 1)), the diffusion-weighted denoising score entropy | [`Sedd::score`], [`Loss::ScoreEntropy`] |
//!
//! With s_y = log (r p_y) for a distribution p it is σ′ r Σ −log p(x_0): the bound of MDLM.
//!
//! The bound without gaps decodes at once what is masked at the smallest time, and goes from all masked to t = 1 in one
//! step, both by p = softmax(z): scores are proportional to probabilities. Hence the bound in discrete time is MDLM's of p.
//!
//! V − 1 is the number of tokens without the mask, as in the authors' code (arXiv 2406.07524, `diffusion.py` 286–299).

use std::ops::Range;

use super::masking::{BoundLevel, Masking, push_given, seen};
use super::{Draw, Given, Method, Objective, Passes};
use crate::diffusion::forward::{Conditioning, ForwardProcess, NoiseLevel, NoisedBatch, RowIndex, Score};
use crate::diffusion::{Posterior, Scores, Subs};
use crate::error::Result;
use crate::kernels::{Loss, VocabSupport};
use crate::manifest::{BoundEnds, Estimator, SeddObjective};

/// The SEDD objective.
#[derive(Clone, Copy, Debug)]
pub struct Sedd {
    /// Noise and the draws of it.
    pub masking: Masking,
    /// From logits to log p, at the ends of the bound and in sampling.
    pub parameterization: Subs,
}

impl Sedd {
    /// The objective with a manifest's settings.
    #[must_use]
    pub fn new(settings: &SeddObjective, mask: u32, vocabulary: u32, seed: u64) -> Self {
        Self {
            masking: Masking {
                forward: ForwardProcess::absorbing(settings.noise, mask),
                sampling_epsilon: settings.sampling_epsilon,
                antithetic: settings.antithetic,
                conditioning: Conditioning::Sigma,
                seed,
            },
            parameterization: Subs { mask, vocabulary },
        }
    }

    /// r = 1 / (e^σ − 1): the true score of the clean token at a masked position.
    #[must_use]
    pub fn ratio(sigma: f64) -> f64 {
        sigma.exp_m1().recip()
    }

    /// k(σ): what a logit exceeds its log-score by.
    #[must_use]
    pub fn offset(&self, sigma: f64) -> f64 {
        sigma.exp_m1().ln() + f64::from(self.parameterization.vocabulary - 1).ln()
    }

    /// The score entropy at a noise level. The level is weighed for losses of −log p, with w = σ′ r.
    #[must_use]
    pub fn score(&self, level: NoiseLevel) -> Score {
        let r = Self::ratio(level.sigma);
        Score {
            weight: level.weight / r,
            constants: Some([r as f32, self.offset(level.sigma) as f32, 1.0]),
        }
    }

    /// −log p, of p = softmax(z).
    #[must_use]
    pub fn log_likelihood(level: NoiseLevel) -> Score {
        Score {
            weight: level.weight,
            constants: Some([1.0, 0.0, 0.0]),
        }
    }
}

impl Objective for Sedd {
    fn noise(&self, index: RowIndex, _: u32, x: &[u32], valid: usize, into: &mut NoisedBatch) {
        let masking = &self.masking;
        let level = masking.level(masking.time(masking.place(index)));
        let mut uniforms = masking.uniforms(index);
        into.push(x, &(0..valid), self.score(level), masking.input(level), |l| {
            masking.forward.q_xt(level.move_chance, uniforms(l))
        });
    }

    fn passes_of_bound(&self, _: Method, _: &Range<usize>) -> Passes {
        Passes::DRAWN
    }

    fn noise_of_bound(&self, draw: &Draw, _: u32, x: &[u32], scored: &Range<usize>, into: &mut NoisedBatch) {
        let masking = &self.masking;
        let (level, score) = match (draw.method.steps, draw.method.ends) {
            (Some(steps), _) => {
                let level = masking.step_of_draw(draw, steps).level;
                (level, Self::log_likelihood(level))
            }
            (None, BoundEnds::Valid) => match masking.level_of_bound(draw.offset) {
                BoundLevel::End(level) => (level, Self::log_likelihood(level)),
                BoundLevel::Between(level) => (level, self.score(level)),
            },
            (None, BoundEnds::Published) => {
                let level = masking.level(masking.time(draw.offset));
                (level, self.score(level))
            }
        };
        let mut uniforms = draw.uniforms();
        let moved = |l| masking.forward.q_xt(level.move_chance, uniforms(l));
        let seen = seen(scored, self.parameterization.mask, moved);
        into.push(x, scored, score, masking.input(level), seen);
    }

    fn method_of_validation(&self) -> Method {
        Method::of(Estimator::Time)
    }

    fn given(&self, given: &Given<'_>, _: u32, into: &mut NoisedBatch) -> Result<()> {
        let level = self.masking.level(given.t);
        let mask = self.parameterization.mask;
        push_given(given, mask, self.score(level), self.masking.input(level), into);
        Ok(())
    }

    fn support(&self) -> VocabSupport {
        self.parameterization.support()
    }

    fn loss(&self) -> Loss {
        Loss::ScoreEntropy
    }

    fn posterior(&self) -> Option<Posterior> {
        Some(Posterior {
            forward: self.masking.forward,
            conditioning: self.masking.conditioning,
            zero_masking: true,
            scores: Scores::OfLogits {
                tokens: f64::from(self.parameterization.vocabulary - 1),
            },
        })
    }
}
