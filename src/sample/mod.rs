//! Samplers: from rows without tokens to rows of tokens.
//!
//! Each sampler is one file. A [`Sampler`] decides how a row starts, which of its positions to query at each step, and
//! which tokens to commit. The loop here is the same for all samplers and devices: it asks the sampler about every row,
//! lets the network's [`Chain`] draw, and passes reported draws back to the sampler. The tokens are in the chain, on the
//! device of the network. A device draws there and returns only reported draws.
//!
//! Every decision takes random numbers that are functions of (step, row, position): the sampler uses the even positions
//! of the stream, the draws of tokens the odd ones. So a row depends only on the seed and its index, never on other
//! rows.
//!
//! The network has no absolute positions (rotary embeddings are relative), so it cannot distinguish the positions of an
//! all-masked row. The tokens that every row has by construction, BOS at its start and EOS at the end of a wrapped row,
//! can be given ([`Sampling::ends`]), and so can any others ([`Sampling::given`]): a prompt, a suffix, a text with holes. The
//! rest is then drawn from the same model, conditioned on tokens that never change.
//!
//! | file | sampler |
//! |---|---|
//! | `ancestral.rs`, `cached.rs` | the reverse process in T steps, asking the network at every step, or only where a token is drawn |
//! | `analytic.rs`, `euler.rs` | reverse steps from scores: Tweedie's, and Euler's |
//! | `first_hitting.rs` | the reverse process in continuous time |
//! | `ordered/` | the order of positions by a rule: random, by confidence, margin or entropy, from left to right, by a threshold |
//! | `remasking.rs` | reverse steps that mask tokens again |
//! | `gibbs.rs` | one position after the other, again and again |
//! | `autoregressive.rs` | from left to right, of an autoregressive model |
//! | `semi_autoregressive.rs` | windows of the others, for texts longer than a row |
//!
//! `run.rs` has the loop, `given.rs` the rows with given tokens.
//!
//! CONTRIBUTING.md lists the files that a new sampler takes.

pub mod analytic;
pub mod ancestral;
pub mod autoregressive;
pub mod cached;
mod euler;
pub mod first_hitting;
pub mod gibbs;
pub mod given;
pub mod ordered;
pub mod remasking;
mod run;
pub mod semi_autoregressive;
mod wilson;

use ordered::{ConfidenceScore, Order, Ordered};
pub use run::{DrawnRows, Sampling, StepDone, Unmasked};
pub use wilson::{wilson, wilson_of_share};

use crate::data::SpecialIds;
use crate::diffusion::Objective;
use crate::error::{Error, Result};
use crate::kernels::Pattern;
use crate::kernels::categorical::Draw;
use crate::manifest;
use crate::model::Action;
use crate::rng::Random;

/// In the tokens that a sampler sees: drawn with [`Action::Commit`], which token stays with the network.
pub const UNSEEN: u32 = u32::MAX;

/// One of the steps of a sampler.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Which one, from 0.
    pub index: u32,
    /// Of how many.
    pub count: u32,
    /// What the numbers of its random draws begin with: `index`, and the steps of earlier windows of a long text.
    number: u64,
    random: Random,
}

impl Step {
    /// A number uniform on [0, 1) for the sampler's decision about a position of a row in this step.
    #[must_use]
    pub fn uniform(&self, row: usize, position: u32) -> f64 {
        self.random.uniform(self.number, row as u64, 2 * position)
    }

    /// The number by which the position's token is drawn.
    fn uniform_of_token(&self, row: usize, position: u32) -> f64 {
        self.random.uniform(self.number, row as u64, 2 * position + 1)
    }
}

/// The masked positions of a row, ascending.
pub fn masked(mask: u32, tokens: &[u32]) -> impl Iterator<Item = u32> {
    (0..)
        .zip(tokens)
        .filter(move |&(_, &token)| token == mask)
        .map(|(position, _)| position)
}

/// What a sampler asks about a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The position in its row.
    pub position: u32,
    /// What is done with the network's answer.
    pub action: Action,
}

/// A sampler.
pub trait Sampler: Sync {
    /// A row of `length` tokens before the first step: what stands at positions that are not drawn yet, and the tokens that
    /// this sampler always begins with. Given tokens take their places.
    fn start(&self, length: usize) -> Vec<u32>;

    /// Called once before the first step with all rows, given tokens in place, row-major (rows, L).
    fn begin(&mut self, _tokens: &[u32], _length: usize) {}

    /// Steps for rows of `length` tokens, where a manifest asks for `steps`.
    fn steps(&self, steps: u32, _length: usize) -> u32 {
        steps
    }

    /// σ fed to the network in this step.
    fn sigma(&self, step: &Step) -> f64;

    /// Which positions of a row attend to which.
    fn pattern(&self) -> Pattern {
        Pattern::Full
    }

    /// The positions of a row that the network is asked about in this step, ascending, and what is done with the answers.
    /// Without any the network is not asked about the row. In `tokens` (L), those drawn with [`Action::Commit`] are
    /// [`UNSEEN`].
    fn query(&self, step: &Step, row: usize, tokens: &[u32]) -> Vec<Query>;

    /// What the step changes in a row, given the row's draws that were to be reported: positions and their new tokens, the
    /// mask among them. What is given stays. It is called once for each row and step, for rows in no
    /// particular order.
    fn commit(
        &mut self,
        _step: &Step,
        _row: usize,
        _tokens: &[u32],
        _draws: &[(u32, Draw)],
    ) -> Vec<(u32, u32)> {
        Vec::new()
    }

    /// Whether reported draws carry the two largest probabilities and the entropy.
    fn wants_confidence(&self) -> bool {
        false
    }
}

/// The sampler that a manifest names, for models of an objective with these settings; of `semi_autoregressive` the one that
/// draws a window. `special` are the tokens that rows have by construction; `wrap` is whether they are joined texts rather
/// than padded ones. `late` are the tokens that samplers which choose by confidence unmask last.
///
/// # Errors
/// [`Input`](crate::error::Kind::Input) where the sampler does not fit the objective.
pub fn build(
    sampler: manifest::Sampler,
    settings: &manifest::Objective,
    objective: &dyn Objective,
    special: SpecialIds,
    wrap: bool,
    late: &[u32],
) -> Result<Box<dyn Sampler>> {
    settings.check_sampler(&sampler)?;
    let mask = special.mask;
    let posterior = || {
        objective.posterior().ok_or_else(|| {
            let name = sampler.kind();
            Error::internal(format!(
                "sampler `{name}` takes reverse steps, but the objective has none"
            ))
        })
    };
    let ordered = |order, steps: manifest::OrderedSteps| {
        let mut ordered = Ordered::new(mask, order);
        (ordered.block, ordered.schedule) = (steps.block, steps.schedule);
        Box::new(ordered)
    };
    let by_confidence = |score, steps: manifest::ConfidenceSteps| {
        let mut ordered = Ordered::new(mask, Order::Score(score));
        (ordered.block, ordered.schedule) = (steps.block, steps.schedule);
        ordered.choice_temperature = steps.choice_temperature;
        ordered.late = late.to_vec();
        Box::new(ordered)
    };
    Ok(match sampler {
        manifest::Sampler::Autoregressive(_) => {
            let ending = autoregressive::Ending {
                eos: special.eos,
                pad: special.pad,
            };
            Box::new(autoregressive::Autoregressive {
                bos: special.bos,
                mask,
                ending: (!wrap).then_some(ending),
            })
        }
        manifest::Sampler::Cached(settings) => Box::new(cached::Cached {
            grid: settings.grid,
            posterior: posterior()?,
        }),
        manifest::Sampler::Ancestral(settings) => Box::new(ancestral::Ancestral {
            grid: settings.grid,
            posterior: posterior()?,
        }),
        manifest::Sampler::FirstHitting(_) => Box::new(first_hitting::FirstHitting { mask }),
        manifest::Sampler::Analytic(_) => Box::new(analytic::TauLeaping::analytic(posterior()?)),
        manifest::Sampler::Euler(_) => Box::new(analytic::TauLeaping::euler(posterior()?)),
        manifest::Sampler::Random(steps) => ordered(Order::Random, steps),
        manifest::Sampler::LeftToRight(steps) => ordered(Order::LeftToRight, steps),
        manifest::Sampler::Confidence(steps) => by_confidence(ConfidenceScore::Probability, steps),
        manifest::Sampler::Margin(steps) => by_confidence(ConfidenceScore::Margin, steps),
        manifest::Sampler::Entropy(steps) => by_confidence(ConfidenceScore::Entropy, steps),
        manifest::Sampler::Threshold(threshold) => {
            let mut ordered = Ordered::new(mask, Order::Threshold(threshold.probability));
            (ordered.block, ordered.late) = (threshold.block, late.to_vec());
            Box::new(ordered)
        }
        manifest::Sampler::Remasking(rule) => Box::new(remasking::Remasking::new(
            posterior()?,
            remasking::RemaskingNumbers::new(&rule),
        )),
        manifest::Sampler::Gibbs(_) => Box::new(gibbs::Gibbs { mask }),
        manifest::Sampler::SemiAutoregressive(windows) => {
            let window = settings.window_sampler(&windows);
            build(window, settings, objective, special, wrap, late)?
        }
    })
}

#[cfg(test)]
mod tests;
