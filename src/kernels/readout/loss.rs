//! The losses of a readout: scalar functions of three numbers of a row of logits, and their derivatives.

use crate::error::{Error, Result};
use crate::kernels::{VocabSupport, math};

/// The numbers of a position that its loss depends on beside its logits: which ones, [`Loss`] says. Unused ones are 0.
pub type Constants = [f32; 3];

/// A loss of a position, in nats; the equations and their sources stand at the head of [the module](super).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loss {
    /// The negative log-likelihood of the target (SUBS, AR, MLM). It has no constants.
    #[default]
    CrossEntropy,
    /// D3PM's divergence between the posteriors of a masked position, true and predicted. Constants [a, b, c]:
    /// a = (`α_s` − `α_t`) / (1 − `α_t`), b = `α_t` / (1 − `α_t`), c = `α_s` / (1 − `α_s`). Where `α_s` = 1, hence a = 1, the
    /// term with c is 0 for any finite c: write 0.
    AbsorbingKl,
    /// SEDD's score entropy of a masked position, without its factor σ'. Constants [r, k, g]: the true score
    /// r = 1 / (e^σ − 1) of the target, above 0; the k by which logits exceed the logarithms of scores; and g, 1 for the
    /// score entropy, or 0 for the part of it that is r times the negative log-likelihood.
    ScoreEntropy,
}

/// What a loss reads of a row of logits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// lse, the logarithm of Σ exp z over the support.
    pub log_sum_exp: f32,
    /// `z_y`.
    pub target: f32,
    /// `z_m`; −∞ where the mask is not in the support.
    pub mask: f32,
}

/// A loss's derivative with respect to the logits: `softmax` · softmax(z) + `target` · onehot(y) + `mask` · onehot(m).
#[derive(Clone, Copy, Debug)]
pub(super) struct Slopes {
    pub softmax: f32,
    pub target: f32,
    pub mask: f32,
}

impl Numbers {
    /// μ, the mask's probability.
    fn mask_probability(self) -> f32 {
        math::exp(self.mask - self.log_sum_exp)
    }
}

impl Loss {
    /// The constants of a position that weighs nothing, whose loss and derivative are finite for any logits below 10⁴.
    #[must_use]
    pub fn weightless(self) -> Constants {
        match self {
            Self::CrossEntropy | Self::AbsorbingKl => [0.0; 3],
            Self::ScoreEntropy => [1.0, 1e4, 0.0],
        }
    }

    /// The loss.
    pub(super) fn value(self, of: Numbers, constants: Constants) -> f32 {
        let nll = of.log_sum_exp - of.target;
        match self {
            Self::CrossEntropy => nll,
            Self::AbsorbingKl => {
                let ([a, b, c], mu) = (constants, of.mask_probability());
                a * nll + (b * mu).ln_1p() - (1.0 - a) * (c * mu).ln_1p()
            }
            Self::ScoreEntropy => {
                let [r, k, g] = constants;
                if g == 0.0 {
                    return r * nll;
                }
                let total = of.log_sum_exp - k;
                let d = total - r.ln();
                // Beyond 1 nothing cancels, and e^d · r may be finite where e^d is not.
                let surplus = if d < 1.0 {
                    r * (d.exp_m1() - d)
                } else {
                    math::exp(total) - r * (1.0 + d)
                };
                surplus + r * nll
            }
        }
    }

    /// Its derivative.
    pub(super) fn slopes(self, of: Numbers, constants: Constants) -> Slopes {
        match self {
            Self::CrossEntropy => Slopes {
                softmax: 1.0,
                target: -1.0,
                mask: 0.0,
            },
            Self::AbsorbingKl => {
                let ([a, b, c], mu) = (constants, of.mask_probability());
                let mask = mu * (b / (1.0 + b * mu) - (1.0 - a) * c / (1.0 + c * mu));
                Slopes {
                    softmax: a - mask,
                    target: -a,
                    mask,
                }
            }
            Self::ScoreEntropy => {
                let [r, k, g] = constants;
                Slopes {
                    softmax: if g == 0.0 {
                        r
                    } else {
                        math::exp(of.log_sum_exp - k)
                    },
                    target: -r,
                    mask: 0.0,
                }
            }
        }
    }

    /// Whether a position may have those constants.
    fn takes(self, constants: Constants) -> bool {
        let [first, second, third] = constants;
        constants.iter().all(|constant| constant.is_finite())
            && match self {
                Self::CrossEntropy => true,
                Self::AbsorbingKl => (0.0..=1.0).contains(&first) && second >= 0.0 && third >= 0.0,
                Self::ScoreEntropy => first > 0.0 && (third == 0.0 || third == 1.0),
            }
    }
}

/// What is asked of a readout of n positions.
#[derive(Clone, Copy, Debug)]
pub struct ReadoutRequest<'a> {
    /// The tokens that the softmax ranges over.
    pub support: VocabSupport,
    /// The loss of each position.
    pub loss: Loss,
    /// Its constants (n); empty for [`Loss::CrossEntropy`].
    pub constants: &'a [Constants],
    /// The true token of each position (n), never the mask.
    pub targets: &'a [u32],
    /// Factor of each position's loss in the scalar (n).
    pub weights: &'a [f32],
}

impl<'a> ReadoutRequest<'a> {
    /// The negative log-likelihoods of targets.
    #[must_use]
    pub fn cross_entropy(support: VocabSupport, targets: &'a [u32], weights: &'a [f32]) -> Self {
        Self {
            support,
            loss: Loss::CrossEntropy,
            constants: &[],
            targets,
            weights,
        }
    }

    /// The constants of position `i`.
    pub(super) fn constants_of(&self, i: usize) -> Constants {
        self.constants.get(i).copied().unwrap_or_default()
    }

    /// Refuses what does not fit `count` positions and a vocabulary of so many tokens.
    ///
    /// # Errors
    /// An internal one: callers check what users write.
    pub fn check(&self, count: usize, vocabulary: usize) -> Result<()> {
        let VocabSupport { mask, size, .. } = self.support;
        let wanted = if self.loss == Loss::CrossEntropy { 0 } else { count };
        if [self.targets.len(), self.weights.len()] != [count; 2] || self.constants.len() != wanted {
            return Err(Error::internal(format!(
                "{count} positions with {} targets, {} weights and {} constants of {:?}",
                self.targets.len(),
                self.weights.len(),
                self.constants.len(),
                self.loss
            )));
        }
        if size as usize > vocabulary {
            return Err(Error::internal(format!(
                "a support of {size} tokens for a vocabulary of {vocabulary}"
            )));
        }
        if let Some(at) = self.targets.iter().position(|&y| y >= size || y == mask) {
            return Err(Error::internal(format!(
                "target {} at {at} is not in the support of {size} tokens without the mask {mask}",
                self.targets[at]
            )));
        }
        if self.support.includes_mask && mask >= size {
            return Err(Error::internal(format!("mask {mask} in a support of {size}")));
        }
        match self
            .constants
            .iter()
            .find(|&&constants| !self.loss.takes(constants))
        {
            Some(constants) => Err(Error::internal(format!(
                "{constants:?} as constants of {:?}",
                self.loss
            ))),
            None => Ok(()),
        }
    }
}
