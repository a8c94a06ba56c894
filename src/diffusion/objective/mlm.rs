//! Masked language modelling at one rate (BERT, arXiv 1810.04805), and its use as a language model (BERT-Mouth, arXiv
//! 1902.04094).
//!
//! | equation | function |
//! |---|---|
//! | 15% of the tokens are chosen; of these 80% become the mask, 10% a random token, 10% stay | [`Mlm::corrupted`] |
//! | Σ_chosen −log p(x_l \| corrupted x) / 15% | [`Objective::noise`] |
//! | pseudo-log-likelihood Σ_l log p(x_l \| x without x_l) | [`Estimator::Pseudo`] |
//! | the any-order bound (arXiv 2502.09992) | [`Estimator::Count`] |
//!
//! The pseudo-perplexity is a bound on nothing. The any-order bound is one, for any network that predicts masked tokens.

use std::ops::Range;

use super::masking::{one_at_a_time, push_count, push_one};
use super::{Draw, Given, Method, Objective, Passes};
use crate::diffusion::forward::{Conditioning, ForwardProcess, NoisedBatch, RowIndex, Score};
use crate::diffusion::{Posterior, Scores, Subs};
use crate::error::Result;
use crate::kernels::{Loss, VocabSupport};
use crate::manifest::{Estimator, MlmObjective, Noise};
use crate::rng::{Random, Stream};

/// The objective of masked language modelling.
#[derive(Clone, Copy, Debug)]
pub struct Mlm {
    /// From logits to log p; it knows the mask and the vocabulary.
    pub parameterization: Subs,
    /// Probability that a token is chosen.
    pub rate: f64,
    /// Share of the chosen ones that become a random token.
    pub random: f64,
    /// Share of the chosen ones that stay.
    pub kept: f64,
    /// Seed of the choices of training rows.
    pub seed: u64,
}

impl Mlm {
    /// The objective with a manifest's settings.
    #[must_use]
    pub fn new(settings: &MlmObjective, mask: u32, vocabulary: u32, seed: u64) -> Self {
        Self {
            parameterization: Subs { mask, vocabulary },
            rate: settings.rate,
            random: settings.random,
            kept: settings.kept,
            seed,
        }
    }

    /// What a token becomes by `u`, uniform on [0, 1): nothing where it is not chosen. `any` is a number on [0, 1) that
    /// picks the random token.
    #[must_use]
    pub fn corrupted(&self, token: u32, u: f64, any: impl FnOnce() -> f64) -> Option<u32> {
        if u >= self.rate {
            return None;
        }
        let Subs { mask, vocabulary } = self.parameterization;
        let part = u / self.rate;
        if part < self.kept {
            Some(token)
        } else if part < self.kept + self.random {
            // Of the tokens without the mask.
            let others = vocabulary - 1;
            let token = ((any() * f64::from(others)) as u32).min(others - 1);
            Some(token + u32::from(token >= mask))
        } else {
            Some(mask)
        }
    }
}

impl Objective for Mlm {
    fn noise(&self, index: RowIndex, _: u32, x: &[u32], valid: usize, into: &mut NoisedBatch) {
        let random = Random::new(self.seed, Stream::Mask);
        let length = x.len();
        let score = Score::weight(1.0 / self.rate);
        into.push(x, &(0..valid), score, None, |l| {
            let number = |position: usize| random.uniform(index.step, index.row, position as u32);
            // Positions beyond the row's pick random tokens.
            self.corrupted(x[l], number(l), || number(length + l))
        });
    }

    fn passes_of_bound(&self, method: Method, scored: &Range<usize>) -> Passes {
        match method.estimator {
            Estimator::Pseudo => one_at_a_time(scored),
            _ => Passes::DRAWN,
        }
    }

    fn noise_of_bound(
        &self,
        draw: &Draw,
        pass: u32,
        x: &[u32],
        scored: &Range<usize>,
        into: &mut NoisedBatch,
    ) {
        let mask = self.parameterization.mask;
        match draw.method.estimator {
            Estimator::Pseudo => push_one(pass, mask, x, scored, into),
            _ => push_count(draw, mask, x, scored, into),
        }
    }

    /// Pseudo-perplexity takes a network call a token, the any-order bound one a row.
    fn method_of_validation(&self) -> Method {
        Method::of(Estimator::Count)
    }

    /// The time is of no consequence: positions that differ, and those that are masked, are scored by −log p.
    fn given(&self, given: &Given<'_>, _: u32, into: &mut NoisedBatch) -> Result<()> {
        let mask = self.parameterization.mask;
        let whole = 0..given.x0.len();
        into.push(given.x0, &whole, Score::weight(1.0), None, |l| {
            (given.xt[l] != given.x0[l] && given.x0[l] != mask).then_some(given.xt[l])
        });
        Ok(())
    }

    fn support(&self) -> VocabSupport {
        self.parameterization.support()
    }

    fn loss(&self) -> Loss {
        Loss::CrossEntropy
    }

    /// As of MDLM with the default noise: which of the masked tokens a step unmasks, the model does not say.
    fn posterior(&self) -> Option<Posterior> {
        Some(Posterior {
            forward: ForwardProcess::absorbing(Noise::default(), self.parameterization.mask),
            conditioning: Conditioning::None,
            zero_masking: true,
            scores: Scores::OfProbabilities,
        })
    }
}
