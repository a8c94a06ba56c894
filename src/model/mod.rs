//! The network: a diffusion transformer, or the plain transformer in it, written once, generic over its compiled shape, behind
//! traits without type parameters.

mod build;
mod causal_chain;
mod chain;
mod checks;
mod cpu_network;
mod cuda_learner;
pub mod cuda_memory;
pub mod cuda_network;
mod device;
pub mod dit;
pub mod flops;
pub mod footprint;
mod grains;
mod host_learner;
mod initial;
pub mod learner;
mod recomputing;
mod self_test;

use std::ops::Range;

use crate::error::Result;
use crate::kernels::{Constants, Dropout, Loss, Pattern, ReadoutRequest, VocabSupport};
use crate::shapes::{Backbone, Shape};
use chain::HostChain;

pub use build::{build, build_learner, build_learner_of_rank, build_learner_on_cuda, build_on_cuda};
pub use chain::{Action, Chain, Guidance, LogitEdits, RepetitionPenalty, Request};
pub use cpu_network::CpuNetwork;
pub use cuda_learner::CudaLearner;
pub use cuda_network::CudaNetwork;
pub use device::Device;
pub use dit::parameters;
pub use host_learner::{HostLearner, HostNetwork};
pub use initial::initial;
pub use learner::{GradientNorm, Learner, Reduction, StepOutcome};
pub use recomputing::Recomputing;
pub use self_test::self_test;

pub use crate::kernels::adamw::Arena;
pub use crate::kernels::cuda::driver::Timed;

/// One micro-batch for the network. R = rows · L.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch<'a> {
    /// `x_t`, row-major (rows, L).
    pub tokens: &'a [u32],
    /// σ fed to the network: one value shared by all rows, or one per row. The plain transformer does not read it.
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
    /// Which positions attend to which.
    pub pattern: Pattern,
    /// Dropout, in training only.
    pub dropout: Option<Dropout>,
}

impl<'a> Batch<'a> {
    /// What the batch asks of the output layer.
    #[must_use]
    pub fn readout(&self, support: VocabSupport) -> ReadoutRequest<'a> {
        ReadoutRequest {
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

    /// Its place in the flat order.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// Elements of all parameters together.
#[must_use]
pub fn total(parameters: &[Parameter]) -> usize {
    parameters.iter().map(Parameter::len).sum()
}

/// A denoiser with its shape erased: the one place where types become data. It computes with the weights that it has; a
/// [`Learner`] changes them.
pub trait Network {
    /// Its dimensions.
    fn shape(&self) -> &'static Shape;

    /// What its blocks are made of.
    fn backbone(&self) -> Backbone {
        Backbone::Dit
    }

    /// Its parameters in canonical order.
    fn parameters(&self) -> &[Parameter];

    /// Replaces all weights from the flat order.
    ///
    /// # Errors
    /// Out of memory.
    fn load(&mut self, values: &[f32]) -> Result<()>;

    /// Copies all weights into the flat order.
    ///
    /// # Errors
    /// The device failed.
    fn read(&self, values: &mut [f32]) -> Result<()>;

    /// Forward only: each position's loss in nats.
    ///
    /// # Errors
    /// Out of memory.
    fn nll(&self, batch: &Batch<'_>, support: VocabSupport) -> Result<Vec<f32>>;

    /// Raw logits (positions, V), row-major: no substitution applied. `sigma` and `pattern` as in [`Batch`].
    ///
    /// # Errors
    /// Out of memory.
    fn logits(&self, tokens: &[u32], sigma: &[f32], positions: &[u32], pattern: Pattern) -> Result<Vec<f32>>;

    /// Rows of tokens for a sampler, where the network computes: a device keeps them until they are asked for.
    ///
    /// # Errors
    /// Out of memory.
    fn chain<'a>(&'a self, tokens: &[u32]) -> Result<Box<dyn Chain + 'a>> {
        Ok(Box::new(HostChain::new(self, tokens)))
    }

    /// Bytes of a device's memory that it has taken, at most so far; absent where it computes on the host.
    fn device_memory(&self) -> Option<usize> {
        None
    }

    /// Begins to time a device's kernels one by one.
    fn time_kernels(&self) {}

    /// The time of each kernel since then, in all, the longest first.
    ///
    /// # Errors
    /// The device failed.
    fn kernel_times(&self) -> Result<Vec<Timed>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod toy;
