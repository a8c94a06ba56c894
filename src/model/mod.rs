//! The denoiser: a diffusion transformer stated once, typed by its compiled shape, behind one erased face.

pub mod checkpoint;
mod device;
pub mod dit;
mod erased;
pub mod footprint;
mod initial;
pub mod on_device;
pub mod tensors;
mod trial;

use crate::error::Result;
use crate::kernels::adamw::{AdamW, Moments, Update};
use crate::kernels::{Alphabet, Constants, Dropout, Loss, Readout};
use crate::shapes::Shape;

pub use device::{Choice, Device, Trust, trust};
pub use dit::parameters;
pub use erased::{Erased, build};
pub use initial::initial;
pub use on_device::OnDevice;

pub use crate::kernels::cuda::driver::Timed;
pub use crate::kernels::cuda::turn::Turn;

pub use crate::kernels::cuda::update::Outcome as StepOutcome;

/// One micro-batch for the network. R = rows · L.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch<'a> {
    /// `x_t`, row-major (rows, L).
    pub tokens: &'a [u32],
    /// σ fed to the network: one value shared by all rows, or one per row.
    pub sigma: &'a [f32],
    /// Flat positions in `tokens` whose logits are wanted, ascending (n).
    pub positions: &'a [u32],
    /// The true token at each of `positions` (n).
    pub targets: &'a [u32],
    /// Factor of each position's loss in the gradient (n).
    pub weights: &'a [f32],
    /// The loss of a position.
    pub loss: Loss,
    /// Its constants at each of `positions` (n); empty for [`Loss::CrossEntropy`].
    pub constants: &'a [Constants],
    /// Dropout, in training only.
    pub dropout: Option<Dropout>,
}

impl<'a> Batch<'a> {
    /// What the batch asks of the output layer.
    #[must_use]
    pub fn readout(&self, support: Alphabet) -> Readout<'a> {
        Readout {
            support,
            loss: self.loss,
            constants: self.constants,
            targets: self.targets,
            weights: self.weights,
        }
    }
}

/// A parameter of the network, in the canonical (flat) order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The authors' tensor name, without the `backbone.` prefix.
    pub name: String,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Its first element in the flat order.
    pub offset: usize,
}

impl Parameter {
    /// Elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A denoiser with its shape erased: the one place where types become data.
pub trait Network {
    /// Its dimensions.
    fn shape(&self) -> &'static Shape;

    /// Its parameters in canonical order.
    fn parameters(&self) -> &[Parameter];

    /// Replaces all weights from the flat order; accumulated gradients are dropped.
    ///
    /// # Errors
    /// Out of memory.
    fn load(&mut self, values: &[f32]) -> Result<()>;

    /// Copies all weights into the flat order.
    ///
    /// # Errors
    /// The device failed.
    fn read(&self, values: &mut [f32]) -> Result<()>;

    /// Forward and backward: adds the gradient of Σ weights · loss to the accumulated one, and returns each position's
    /// loss in nats, that of the cross-entropy being the target's negative log-likelihood. Without positions nothing is
    /// computed.
    ///
    /// # Errors
    /// Out of memory, or a batch that is no batch of this shape (an internal error: callers check what users write).
    /// A network that failed is of no further use.
    fn accumulate(&mut self, batch: &Batch<'_>, alphabet: Alphabet) -> Result<Vec<f32>>;

    /// Lends every parameter with its accumulated gradient to `f`, in canonical order. Gradients persist: a second
    /// visit sees what the first left (clip, then update); the caller zeroes them.
    ///
    /// # Errors
    /// The device failed.
    #[expect(clippy::type_complexity, reason = "named, it would be less clear")]
    fn visit(&mut self, f: &mut dyn FnMut(&Parameter, &mut [f32], &mut [f32])) -> Result<()>;

    /// Forward only: each position's loss in nats.
    ///
    /// # Errors
    /// Out of memory.
    fn nll(&self, batch: &Batch<'_>, alphabet: Alphabet) -> Result<Vec<f32>>;

    /// Raw logits (positions, V), row-major: no substitution applied. `sigma` as in [`Batch`].
    ///
    /// # Errors
    /// Out of memory.
    fn logits(&self, tokens: &[u32], sigma: &[f32], positions: &[u32]) -> Result<Vec<f32>>;

    /// Rows of tokens for a sampler, where the network lives on a device: they stay there until all are drawn.
    ///
    /// # Errors
    /// Out of memory.
    fn chain<'a>(&'a self, _tokens: &[u32]) -> Result<Option<Box<dyn Chain + 'a>>> {
        Ok(None)
    }

    /// The network as one that does whole steps by itself, where it lives on a device.
    fn resident(&mut self) -> Option<&mut dyn Resident> {
        None
    }
}

/// What a sampler asks of a network about some rows of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The rows of the chain, ascending.
    pub rows: &'a [u32],
    /// Positions asked about, flat in the rows asked about, ascending.
    pub positions: &'a [u32],
    /// For each of them a number on [0, 1) by which its token is drawn; nothing where it is not.
    pub uniforms: &'a [Option<f64>],
    /// σ fed to the network.
    pub sigma: f32,
    /// Divides the logits.
    pub temperature: f64,
    /// The tokens to draw from.
    pub alphabet: Alphabet,
}

/// Rows of tokens on a device, drawn there. What it is asked is queued: only the end waits.
///
/// # Errors
/// Every method fails when the device does.
#[expect(clippy::missing_errors_doc, reason = "stated once, above")]
pub trait Chain {
    /// Asks the network about rows as they are, and draws tokens in their place.
    fn draw(&mut self, asked: &Asked<'_>) -> Result<()>;

    /// All tokens. Fails where logits were not finite.
    fn tokens(&self) -> Result<Vec<u32>>;
}

/// A network that lives on a device with its optimizer. What it is asked is queued: nothing waits but what says so.
///
/// # Errors
/// Every method fails when the device does, or runs out of memory; the network is of no further use then.
#[expect(clippy::missing_errors_doc, reason = "stated once, above")]
pub trait Resident {
    /// Takes over the optimizer's memory; before the first update.
    fn take(&mut self, moments: &Moments) -> Result<()>;

    /// Copies the optimizer's memory out; waits.
    fn give(&self, moments: &mut Moments) -> Result<()>;

    /// Forward and backward of a micro-batch: its gradient and its loss Σ weights · loss are added to the step's.
    fn accumulate(&mut self, batch: &Batch<'_>, alphabet: Alphabet) -> Result<()>;

    /// Ends the step: clips its gradient's global norm to `clip` (0: no limit) and updates weights, moments and average.
    fn update(&mut self, adam: AdamW, update: Update, clip: f64) -> Result<()>;

    /// What came of the oldest update that was not asked for before; waits for it. Nothing when all were.
    fn outcome(&mut self) -> Result<Option<StepOutcome>>;

    /// Bytes of the device's memory that a network may take. They are a share of all there is, not of what is free just now:
    /// what fits decides the micro-batch, and that the order of sums, which must be the same when a run goes on.
    fn room(&self) -> Result<usize>;

    /// Has memory for activations taken at once that is enough for micro-batches of `rows` rows of a batch of so many: it would
    /// else grow with their share of masked tokens, and what steps were captured with it would be of no use any more.
    fn reserve(&mut self, rows: usize, batch: usize) -> Result<()>;

    /// Bytes of the device's memory that it has taken, at most so far.
    fn taken(&self) -> usize;

    /// Begins to time kernels one by one.
    fn time(&mut self);

    /// The time of each kernel since then, in all, the longest first.
    fn timed(&mut self) -> Result<Vec<Timed>>;

    /// The weights and their moving average change places.
    fn swap_average(&mut self) -> Result<()>;
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod toy;
