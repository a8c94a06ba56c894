//! The interface between objectives and the code that trains, evaluates or samples a model.
//!
//! Training, evaluation, sampling and the benchmark use the trait [`Objective`] alone. Each objective is one file with
//! its paper's equations as named functions; [`build`] makes an objective from the manifest's `objective`.
//!
//! What each one is, for a row x_0 of L tokens; p is the network's softmax at a position, m the mask, sums are over
//! masked positions:
//!
//! | objective | network sees | loss of a row |
//! |---|---|---|
//! | [`Mdlm`] | x_t, tokens masked with probability 1 − α_t | −α′_t / (1 − α_t) · Σ −log p(x_0), p without the mask |
//! | [`D3pm`] | x_t, and x_0 once more | T · Σ KL(q(x_s \| x_t, x_0) ‖ p(x_s \| x_t)), p with the mask, and Σ over all positions of −log p(x_0) given x_0 |
//! | [`Sedd`] | x_t and σ_t | σ′_t · Σ (Σ_y e^(s_y) − r s(x_0) + r (ln r − 1)), scores s and r = 1 / (e^σ − 1) |
//! | [`Ar`] | x_0, each position the tokens before it | Σ over all positions but the first of −log p(x_0) |
//! | [`Mlm`] | x_0 with 15% of its tokens replaced | Σ over the chosen positions of −log p(x_0), over 15% |
//!
//! # Rows with context
//!
//! Where likelihoods are estimated, a row may begin with tokens that are given. Let c be its first positions, s the scored
//! ones behind them and u the rest. What is estimated is then −log p(x_s | x_c): the objective's process runs on the
//! positions s alone. It begins with x_c given and s and u masked, and ends when all of s is decoded; u stays masked, since
//! no one who reads from left to right knows it. The derivation of the bound of x is one of any network's transitions, so
//! that with the network of z = (x_c, z_s, masks) in the place of that of z_s it holds for x_s:
//!
//! ```text
//! −log p(x_s | x_c) ≤ ∫ (1/m) E_m[Σ_(l in s, masked) −log p(x_l | x_c, z_s)] dm = Σ_k (1/k) E_k[Σ_(l in s, masked) −log p(x_l | x_c, z_s)]
//! ```
//!
//! with each token of s masked with probability m, or k of the n = |s| of them, k from 1 to n: the estimator by count has
//! the weight n / k. With p the exact conditional distributions it is an equality, row by row. An autoregressive model gives
//! its value, Σ_(l in s) −log p(x_l | x_1 … x_(l−1)), in one pass; its sum over rows whose scored positions are every token
//! of a text once is the text's likelihood by the chain rule, each token given as much context as its row has.

mod ar;
mod d3pm;
mod masking;
mod mdlm;
mod mlm;
mod sedd;

pub use ar::Ar;
pub use d3pm::D3pm;
pub use masking::{BoundLevel, DiscreteStep, Masking, weight_of_count};
pub use mdlm::Mdlm;
pub use mlm::Mlm;
pub use sedd::Sedd;

use std::ops::Range;

use super::{NoisedBatch, Posterior, RowIndex};
use crate::error::{Error, Result};
use crate::kernels::{Loss, Pattern, VocabSupport};
use crate::manifest::{self, BoundEnds, Estimator};
use crate::rng::Random;

/// The draw that an estimate's rows share takes this position, beyond every token's.
const ROW_LEVEL: u32 = u32::MAX;

/// What a model is trained for, and how its likelihood is bounded and its texts are drawn.
pub trait Objective: Send + Sync {
    /// How often a training row goes through the network: each pass sees the row in another form.
    fn passes(&self) -> u32 {
        1
    }

    /// Draws the noise of the training row `x` (L tokens, of which the first `valid` count in the loss) and appends
    /// to `into` what the network sees and what it predicts in a pass, from 0. The expectation of Σ weight · loss over
    /// the row's positions, in all passes together, is the row's training loss in nats.
    fn noise(&self, index: RowIndex, pass: u32, x: &[u32], valid: usize, into: &mut NoisedBatch);

    /// How often a row with such scored positions goes through the network where its likelihood is estimated.
    fn passes_of_bound(&self, method: Method, scored: &Range<usize>) -> Passes;

    /// Appends the row `x` as a pass of one Monte-Carlo draw of its likelihood sees it; a fixed pass does not depend on
    /// the draw. The expectation of Σ weight · loss over the row's positions, in all passes together, is what [`Method`]
    /// names, in nats: of the tokens at the positions `scored`, given those before them. The draw's method fits the
    /// objective ([`Method::check`]).
    ///
    /// A row that is scored from its first position on is noised as in training: all of it, its padding too. In a row that
    /// begins with context, what lies before `scored` is given and what lies behind is unknown: see
    /// [the module](self#rows-with-context).
    fn noise_of_bound(
        &self,
        draw: &Draw,
        pass: u32,
        x: &[u32],
        scored: &Range<usize>,
        into: &mut NoisedBatch,
    );

    /// The method that fits with the smallest variance, for bounds watched during training.
    fn method_of_validation(&self) -> Method;

    /// Appends a row that is noised already, at time `given.t`, in a pass of [`passes`](Self::passes). Σ weight · loss at
    /// a position, in all passes together, is the summand of the objective's bound at that time.
    ///
    /// # Errors
    /// [`Input`](crate::error::Kind::Input) for a time that the objective does not have.
    fn given(&self, given: &Given<'_>, pass: u32, into: &mut NoisedBatch) -> Result<()>;

    /// How many of the scored positions of a row are predicted: what its nats are divided by.
    fn predicted(&self, scored: &Range<usize>) -> usize {
        scored.len()
    }

    /// The tokens that the network's softmax ranges over.
    fn support(&self) -> VocabSupport;

    /// The loss of a position, a function of its logits over the support; [`NoisedBatch::constants`] has what else it
    /// depends on.
    fn loss(&self) -> Loss;

    /// Which positions of a row attend to which.
    fn pattern(&self) -> Pattern {
        Pattern::Full
    }

    /// The reverse step that samplers take; nothing for an objective whose texts are drawn without one.
    fn posterior(&self) -> Option<Posterior>;
}

/// The objective that a manifest names, for a vocabulary of `vocabulary` tokens with the mask among them. Times and
/// masks of training rows are drawn under `seed`.
#[must_use]
pub fn build(objective: &manifest::Objective, mask: u32, vocabulary: u32, seed: u64) -> Box<dyn Objective> {
    match objective {
        // Without SUBS, MDLM in discrete time is D3PM, with the mask's probability or without it.
        manifest::Objective::Mdlm(settings) if !(settings.zero_masking && settings.carry_over) => {
            Box::new(D3pm::of_mdlm(settings, mask, vocabulary, seed))
        }
        manifest::Objective::Mdlm(settings) => Box::new(Mdlm::new(settings, mask, vocabulary, seed)),
        manifest::Objective::Ar(_) => Box::new(Ar { mask, vocabulary }),
        manifest::Objective::Sedd(settings) => Box::new(Sedd::new(settings, mask, vocabulary, seed)),
        manifest::Objective::D3pm(settings) => Box::new(D3pm::new(settings, mask, vocabulary, seed)),
        manifest::Objective::Mlm(settings) => Box::new(Mlm::new(settings, mask, vocabulary, seed)),
    }
}

/// Passes of a row through the network in an estimate of its likelihood, numbered from 0: those of each draw, then the fixed
/// ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passes {
    /// Those of each draw.
    pub drawn: u32,
    /// Those that are the same in all draws: the network is asked once a row.
    pub fixed: u32,
}

impl Passes {
    /// One pass a draw.
    pub const DRAWN: Self = Self { drawn: 1, fixed: 0 };

    /// So many passes of which none is drawn.
    #[must_use]
    pub fn fixed(fixed: u32) -> Self {
        Self { drawn: 0, fixed }
    }
}

/// How a likelihood is estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Method {
    /// By which estimator.
    pub estimator: Estimator,
    /// T, where time is discrete.
    pub steps: Option<u32>,
    /// What of the noise levels it covers.
    pub ends: BoundEnds,
}

impl Method {
    /// An estimator of a bound that covers all noise levels.
    #[must_use]
    pub fn of(estimator: Estimator) -> Self {
        Self {
            estimator,
            ..Self::default()
        }
    }

    /// The bound in discrete time.
    #[must_use]
    pub fn in_steps(steps: u32) -> Self {
        Self {
            steps: Some(steps),
            ..Self::default()
        }
    }

    /// Checks that the likelihood of a model with this objective can be estimated that way.
    ///
    /// # Errors
    /// [`Input`](crate::error::Kind::Input) where it cannot, with a way that can.
    pub fn check(self, objective: &manifest::Objective) -> Result<()> {
        objective.check_estimator(self.estimator)?;
        let name = self.estimator.name();
        if self.estimator == Estimator::Time && self.steps.is_none() && objective.needs_steps() {
            let error = Error::input("the model's objective has no bound in continuous time");
            return Err(match objective.steps() {
                Some(steps) => error.hint(format!("set `\"steps\": {steps}`, those of its training")),
                None => error,
            });
        }
        if self.estimator != Estimator::Time && self.steps.is_some() {
            return Err(
                Error::input(format!("estimator `{name}` draws no times, but `steps` is set"))
                    .hint("leave `steps` out, or use the estimator `time`"),
            );
        }
        if self.estimator != Estimator::Time && self.ends == BoundEnds::Published {
            return Err(Error::input(format!(
                "estimator `{name}` draws no times, but the published number is a mean over times"
            ))
            .hint("use the estimator `time`"));
        }
        if self.ends == BoundEnds::Published
            && let Some(misfit) = objective.misfit_of_published(self.steps)
        {
            let reason = misfit.reason;
            return Err(
                Error::input(format!("the published number does not fit the model: {reason}"))
                    .hint("set `\"bound\": \"valid\"`"),
            );
        }
        Ok(())
    }
}

/// One Monte-Carlo draw of a row's bound, named among the random numbers.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// How the likelihood is estimated.
    pub method: Method,
    /// The stream that masks come from.
    pub random: Random,
    /// Which draw of the row.
    pub draw: u64,
    /// Which row of the split.
    pub row: u64,
    /// On [0, 1), uniform over draws: places the time or the count.
    pub offset: f64,
}

impl Draw {
    /// 64 random bits of a position.
    fn bits(&self, position: usize) -> u64 {
        self.random.bits(self.draw, self.row, position as u32)
    }

    /// Uniforms on [0, 1) by ascending position.
    fn uniforms(&self) -> impl FnMut(usize) -> f64 + use<> {
        super::forward::ascending_uniforms(self.random, self.draw, self.row)
    }
}

/// A row under noise that was drawn elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// The time of its noise, above 0 and at most 1.
    pub t: f64,
    /// The clean tokens (L).
    pub x0: &'a [u32],
    /// The tokens under noise (L).
    pub xt: &'a [u32],
}

/// A shift of the times of a draw that is common to all rows: uniform on [0, 1).
#[must_use]
pub fn shift(random: Random, draw: u64) -> f64 {
    random.uniform(draw, 0, ROW_LEVEL)
}

#[cfg(any(test, feature = "testing"))]
pub mod settings;
#[cfg(test)]
mod tests;
