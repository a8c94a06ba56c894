//! A network whose chains compute whole rows at every step: what a cache of keys and values is held against.

use super::{Batch, Network, Parameter, Timed};
use crate::error::Result;
use crate::kernels::{Pattern, VocabSupport};
use crate::shapes::{Backbone, Shape};

/// A network in all but its [`Network::chain`], which is the one beside any network.
pub struct Recomputing(pub Box<dyn Network>);

impl Network for Recomputing {
    fn shape(&self) -> &'static Shape {
        self.0.shape()
    }

    fn backbone(&self) -> Backbone {
        self.0.backbone()
    }

    fn parameters(&self) -> &[Parameter] {
        self.0.parameters()
    }

    fn load(&mut self, values: &[f32]) -> Result<()> {
        self.0.load(values)
    }

    fn read(&self, values: &mut [f32]) -> Result<()> {
        self.0.read(values)
    }

    fn nll(&self, batch: &Batch<'_>, support: VocabSupport) -> Result<Vec<f32>> {
        self.0.nll(batch, support)
    }

    fn logits(&self, tokens: &[u32], sigma: &[f32], positions: &[u32], pattern: Pattern) -> Result<Vec<f32>> {
        self.0.logits(tokens, sigma, positions, pattern)
    }

    fn device_memory(&self) -> Option<usize> {
        self.0.device_memory()
    }

    fn time_kernels(&self) {
        self.0.time_kernels();
    }

    fn kernel_times(&self) -> Result<Vec<Timed>> {
        self.0.kernel_times()
    }
}
