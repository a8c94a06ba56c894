//! The interface between objectives and the code that trains, evaluates or samples a model.
//!
//! Training, evaluation, sampling and the benchmark use the trait [`Objective`] alone. Each objective is one file with
//! its paper's equations as named functions; [`build`] makes an objective from the manifest's `objective`.

mod mdlm;

pub use mdlm::Mdlm;

use super::{NoisedBatch, Posterior, RowIndex};
use crate::error::Result;
use crate::kernels::{Loss, Pattern, VocabSupport};
use crate::manifest::{self, BoundEnds, Estimator};
use crate::rng::Random;

/// The draw that an estimate's rows share takes this position, beyond every token's.
const ROW_LEVEL: u32 = u32::MAX;

/// What a model is trained for, and how its likelihood is bounded and its texts are drawn.
pub trait Objective: Send + Sync {
    /// Draws the noise of the training row `x` (L tokens, of which the first `valid` count in the loss) and appends
    /// to `into` what the network sees and what it predicts. The expectation of Σ weight · loss over the row's
    /// positions is the row's training loss in nats.
    fn noise(&self, index: RowIndex, x: &[u32], valid: usize, into: &mut NoisedBatch);

    /// Appends the row `x` under the noise of one Monte-Carlo draw of its bound. The expectation of Σ weight · loss
    /// over the row's positions is the bound on −log p(x) in nats. `draw` is one that
    /// [`check_estimator`](Self::check_estimator) accepts.
    fn noise_of_bound(&self, draw: Draw, x: &[u32], valid: usize, into: &mut NoisedBatch);

    /// Whether the bound can be estimated that way.
    ///
    /// # Errors
    /// [`Input`](crate::error::Kind::Input) when it cannot, with an estimator that can.
    fn check_estimator(&self, estimator: Estimator, ends: BoundEnds) -> Result<()>;

    /// The accepted estimator with the smallest variance, for bounds watched during training.
    fn validation_estimator(&self) -> Estimator;

    /// The tokens that the network's softmax ranges over.
    fn support(&self) -> VocabSupport;

    /// The loss of a position, a function of its logits over the support; [`NoisedBatch::constants`] has what else it
    /// depends on.
    fn loss(&self) -> Loss;

    /// Which positions of a row attend to which.
    fn pattern(&self) -> Pattern;

    /// The reverse step that samplers take; nothing for an objective whose texts are drawn without one.
    fn posterior(&self) -> Option<Posterior>;
}

/// The objective that a manifest names, for a vocabulary of `vocabulary` tokens with the mask among them. Times and
/// masks of training rows are drawn under `seed`.
#[must_use]
pub fn build(objective: &manifest::Objective, mask: u32, vocabulary: u32, seed: u64) -> Box<dyn Objective> {
    match objective {
        manifest::Objective::Mdlm(settings) => Box::new(Mdlm::new(settings, mask, vocabulary, seed)),
    }
}

/// One Monte-Carlo draw of a row's bound, named among the random numbers.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// How the bound is estimated.
    pub estimator: Estimator,
    /// What of the noise levels it covers.
    pub ends: BoundEnds,
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
    fn uniforms(&self) -> impl FnMut(usize) -> f64 {
        super::forward::ascending_uniforms(self.random, self.draw, self.row)
    }
}

/// A shift of the times of a draw that is common to all rows: uniform on [0, 1).
#[must_use]
pub fn shift(random: Random, draw: u64) -> f64 {
    random.uniform(draw, 0, ROW_LEVEL)
}
