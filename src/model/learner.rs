//! Learning, with one interface for all devices: accumulate gradients over the micro-batches of each grain, update.
//!
//! ```text
//! (accumulate … accumulate → end_grain) … → update → outcome
//! ```
//!
//! A learner has five numbers per parameter: weight, gradient, two moments and the weights' moving average. Each kind is in a
//! separate [arena](Arena) in the network's flat order, so that a norm, an update, a sum over ranks and an export are one
//! loop. On the host, ranks that share a training ([`Learner::share`]) keep the moments and the average of their part alone.

use super::footprint::Workload;
use super::{Batch, Network, Parameter, total};
use crate::error::Result;
use crate::kernels::VocabSupport;
use crate::kernels::adamw::cpu::sums_of_squares;
use crate::kernels::adamw::{AdamW, Arena, Moments, Update};
use crate::ranks::Sharing;

/// Reads or replaces the accumulated gradient (in the flat order) and the loss of the step's micro-batches.
pub type Reduction<'a> = dyn FnMut(&mut [f32], &mut f64) -> Result<()> + 'a;

/// The outcome of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutcome {
    /// Σ weight · loss of its positions.
    pub loss: f64,
    /// The global norm of its gradient, before it was clipped.
    pub norm: GradientNorm,
    /// This step's loss or norm was not finite, or an earlier one's: nothing has changed since.
    pub halted: bool,
}

/// The norm of the accumulated gradient: of all of it, and of the parameter where it is largest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GradientNorm {
    /// √ Σ g².
    pub total: f64,
    /// Name and norm of the parameter with the largest one, where it is known; one that is not finite counts as largest.
    pub largest: Option<(String, f64)>,
}

impl GradientNorm {
    /// That of a gradient in the flat order of the parameters, summed in f64 in a fixed order.
    #[must_use]
    pub fn of(parameters: &[Parameter], gradient: &[f32]) -> Self {
        let ranges: Vec<_> = parameters.iter().map(Parameter::range).collect();
        Self::from_squares(parameters, &sums_of_squares(&ranges, gradient))
    }

    /// That of a gradient of which the sum of squares is known for each parameter.
    #[must_use]
    pub fn from_squares(parameters: &[Parameter], sums: &[f64]) -> Self {
        let mut total = 0.0;
        let mut largest: Option<(&Parameter, f64)> = None;
        for (parameter, &squares) in parameters.iter().zip(sums) {
            total += squares;
            let worse = if squares.is_nan() { f64::INFINITY } else { squares };
            if largest.is_none_or(|(_, most)| worse > most) {
                largest = Some((parameter, worse));
            }
        }
        Self {
            total: total.sqrt(),
            largest: largest.map(|(parameter, squares)| (parameter.name.clone(), squares.sqrt())),
        }
    }
}

/// A network with its gradients and its optimizer. On a device, work is queued: only what says so waits for it.
///
/// # Errors
/// Every method fails when memory runs out or the device fails; the learner cannot be used after that.
#[expect(clippy::missing_errors_doc, reason = "stated once, above")]
pub trait Learner {
    /// The network, with the weights as they are.
    fn network(&self) -> &dyn Network;

    /// Rows that go through the network at a time, of a batch of so many: those that are wanted, or as many as its memory or
    /// its caches hold under that workload. Memory for them may be taken at once.
    ///
    /// Fails, too, where not even one row fits, or fewer than wanted.
    fn micro_batch(&mut self, batch: u32, wanted: Option<u32>, workload: Workload) -> Result<u32>;

    /// Shares the training with other ranks, or cuts its batches into grains, from here on. Every rank then calls the same
    /// methods in the same order; [`Learner::update`], [`Learner::read`] of an arena other than the weights and
    /// [`Learner::with_average`] wait for all of them.
    fn share(&mut self, sharing: Sharing) -> Result<()>;

    /// Replaces weights and moments, all of them, on each rank. Accumulated gradients and outcomes that were not collected are
    /// dropped.
    fn load(&mut self, weights: &[f32], moments: Moments) -> Result<()>;

    /// Copies an arena out; waits.
    fn read(&self, arena: Arena, into: &mut [f32]) -> Result<()>;

    /// Forward and backward of a micro-batch: the sum Σ weights · loss over its positions, and the gradient of that sum, are
    /// added to the step's. Without positions nothing is computed.
    ///
    /// Fails, too, for a batch that does not fit the shape (an internal error: callers check what users write).
    fn accumulate(&mut self, batch: &Batch<'_>, support: VocabSupport) -> Result<()>;

    /// How numbers travel between the devices of ranks, where they do not travel through the hosts alone.
    fn joined(&self) -> Option<String> {
        None
    }

    /// Ends a grain: what was accumulated since the last one is its gradient and its loss. Called after each of the grains that
    /// are this rank's, if a batch has more than one.
    fn end_grain(&mut self) -> Result<()>;

    /// Lends the gradient (zeros where there is none yet) and the loss accumulated since the last update or grain; waits. What
    /// `reduction` makes of them goes into the update.
    fn reduce(&mut self, reduction: &mut Reduction<'_>) -> Result<()>;

    /// Ends the step: clips its gradient's global norm to `clip` (0: no limit), updates weights, moments and average, and
    /// leaves the gradient zero. A step whose loss or norm is not finite changes nothing, and none after it does.
    fn update(&mut self, adam: AdamW, update: Update, clip: f64) -> Result<()>;

    /// The outcome of the oldest update whose outcome was not collected before; waits for it. `None` if all were collected.
    fn outcome(&mut self) -> Result<Option<StepOutcome>>;

    /// Updates that may be queued before the outcome of the first is collected, so that the device never waits for the host.
    fn queued_updates(&self) -> usize;

    /// Lends the network with the moving average in the place of the weights.
    fn with_average(&mut self, f: &mut dyn FnMut(&dyn Network) -> Result<()>) -> Result<()>;

    /// Forgets all updates: moments become zero, the average becomes the weights.
    fn restart(&mut self) -> Result<()> {
        let mut weights = vec![0.0; total(self.network().parameters())];
        self.read(Arena::Weights, &mut weights)?;
        self.load(&weights, Moments::before(weights.clone()))
    }

    /// The norm of the gradient accumulated so far; waits.
    fn gradient_norm(&mut self) -> Result<GradientNorm> {
        let parameters = self.network().parameters().to_vec();
        let mut norm = GradientNorm::default();
        self.reduce(&mut |gradient, _| {
            norm = GradientNorm::of(&parameters, gradient);
            Ok(())
        })?;
        Ok(norm)
    }

    /// A copy of the moments; waits.
    fn moments(&self) -> Result<Moments> {
        let copy = |arena| {
            let mut copy = vec![0.0; total(self.network().parameters())];
            self.read(arena, &mut copy)?;
            Ok::<_, crate::error::Error>(copy)
        };
        Ok(Moments {
            first: copy(Arena::FirstMoment)?,
            second: copy(Arena::SecondMoment)?,
            ema: copy(Arena::Average)?,
        })
    }
}
