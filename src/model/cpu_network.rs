//! A network on the host: a compiled shape and a backend behind [`Network`].

use super::causal_chain::CausalChain;
use super::chain::HostChain;
use super::checks::{check_batch, check_inputs, check_len};
use super::dit::{Arch, Dit, parameters};
use super::{Batch, Chain, HostNetwork, Network, Parameter, total};
use crate::error::Result;
use crate::kernels::{HostBackend, Pattern, VocabSupport};
use crate::shapes::{Backbone, Shape};

/// A network whose types are hidden behind [`Network`]. Its weights are the first of its backend, and the only ones: the
/// backend's flat order is the network's.
pub struct CpuNetwork<A: Arch, B: HostBackend> {
    pub(super) backend: B,
    backbone: Backbone,
    pub(super) dit: Dit<A, B>,
    gradients: B::Gradients,
    parameters: Vec<Parameter>,
}

impl<A: Arch, B: HostBackend> CpuNetwork<A, B> {
    /// The network with these weights in the flat order.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(backend: B, backbone: Backbone, weights: &[f32]) -> Result<Self> {
        backend.reserve(weights.len())?;
        Ok(Self {
            dit: Dit::new(&backend, backbone, weights)?,
            backend,
            backbone,
            gradients: B::Gradients::default(),
            parameters: parameters(A::SHAPE, backbone),
        })
    }
}

impl<A: Arch, B: HostBackend> Network for CpuNetwork<A, B> {
    fn shape(&self) -> &'static Shape {
        A::SHAPE
    }

    fn backbone(&self) -> Backbone {
        self.backbone
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn load(&mut self, values: &[f32]) -> Result<()> {
        check_len("weights", total(&self.parameters), values.len())?;
        self.backend
            .with_weights(&mut |weights| weights.copy_from_slice(values))
    }

    fn read(&self, values: &mut [f32]) -> Result<()> {
        check_len("weights", total(&self.parameters), values.len())?;
        self.backend
            .with_weights(&mut |weights| values.copy_from_slice(weights))
    }

    fn nll(&self, batch: &Batch<'_>, support: VocabSupport) -> Result<Vec<f32>> {
        check_batch(A::SHAPE, batch, support)?;
        if batch.positions.is_empty() {
            return Ok(Vec::new());
        }
        let (_, nll) = self.dit.nll(&self.backend, batch, support)?;
        self.backend.values(&nll)
    }

    fn logits(&self, tokens: &[u32], sigma: &[f32], positions: &[u32], pattern: Pattern) -> Result<Vec<f32>> {
        check_inputs(A::SHAPE, tokens, sigma, positions)?;
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let tokens = self.backend.tokens(tokens)?;
        let logits = self
            .dit
            .logits(&self.backend, &tokens, sigma, positions, pattern)?;
        self.backend.values(&logits)
    }

    fn chain<'a>(&'a self, tokens: &[u32]) -> Result<Box<dyn Chain + 'a>> {
        Ok(match self.backbone {
            Backbone::Dit => Box::new(HostChain::new(self, tokens)),
            Backbone::Transformer => Box::new(CausalChain::new(self, (&self.backend, &self.dit), tokens)?),
        })
    }
}

impl<A: Arch, B: HostBackend> HostNetwork for CpuNetwork<A, B> {
    fn accumulate(&mut self, batch: &Batch<'_>, support: VocabSupport) -> Result<Vec<f32>> {
        check_batch(A::SHAPE, batch, support)?;
        if batch.positions.is_empty() {
            return Ok(Vec::new());
        }
        // Every row is conditioned on its own, even where all have the same σ: a sum over the rows of a micro-batch before
        // it reaches a weight would show where the batch was cut (see `Backend`).
        let rows = batch.tokens.len() / A::SHAPE.length;
        let sigma = match *batch.sigma {
            [shared] => vec![shared; rows],
            ref own => own.to_vec(),
        };
        let batch = Batch {
            sigma: &sigma,
            ..*batch
        };
        self.backend.record(std::mem::take(&mut self.gradients));
        let (loss, nll) = self.dit.nll(&self.backend, &batch, support)?;
        self.gradients = self.backend.backward(loss)?;
        self.backend.values(&nll)
    }

    fn with_weights(&mut self, f: &mut dyn FnMut(&mut [f32])) -> Result<()> {
        self.backend.with_weights(f)
    }

    fn with_gradient(&mut self, f: &mut dyn FnMut(&[Parameter], &mut [f32], &mut [f32])) -> Result<()> {
        let parameters = &self.parameters;
        self.backend
            .with_gradients(&mut self.gradients, &mut |weights, gradient| {
                f(parameters, weights, gradient);
            })
    }
}
