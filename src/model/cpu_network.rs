//! The one place of type erasure: a compiled shape and a backend become a `Box<dyn Network>`, or a `Box<dyn Learner>`.

use super::dit::{Arch, Dit, WithArch, parameters, with_arch};
use super::{Batch, Device, HostLearner, HostNetwork, Learner, Network, Parameter, cuda_network, total};
use crate::error::{Error, Result};
#[cfg(feature = "dfdx-cuda")]
use crate::kernels::composite::Composite;
use crate::kernels::cuda::{self, Cuda};
use crate::kernels::{Fused, HostBackend, Pattern, VocabSupport};
use crate::precision::Precision;
use crate::shapes::{Backbone, Shape};

/// A network of the shape and backbone on the device, with these weights in the flat order, its products in that precision.
///
/// # Errors
/// Input error: the device does not support the shape or the precision. Environment error: the device fails.
pub fn build(
    shape: &Shape,
    backbone: Backbone,
    device: Device,
    precision: Precision,
    weights: &[f32],
) -> Result<Box<dyn Network>> {
    match device {
        Device::Cpu => on(shape, backbone, weights, Fused::with_precision(precision)),
        Device::Cuda => cuda_network::build(shape, backbone, gpu(shape, precision)?, weights),
        #[cfg(feature = "dfdx-cuda")]
        Device::DfdxCuda => on(shape, backbone, weights, dfdx_cuda(precision)?),
    }
}

/// A learner of the shape and backbone on the device that begins from these weights: otherwise as [`build`].
///
/// # Errors
/// The errors of [`build`].
pub fn build_learner(
    shape: &Shape,
    backbone: Backbone,
    device: Device,
    precision: Precision,
    weights: &[f32],
) -> Result<Box<dyn Learner>> {
    match device {
        Device::Cpu => learner_on(shape, backbone, weights, Fused::with_precision(precision)),
        Device::Cuda => cuda_network::build_learner(shape, backbone, gpu(shape, precision)?, weights),
        #[cfg(feature = "dfdx-cuda")]
        Device::DfdxCuda => learner_on(shape, backbone, weights, dfdx_cuda(precision)?),
    }
}

/// The backend of the GPU.
fn gpu(shape: &Shape, precision: Precision) -> Result<Cuda> {
    check_heads(shape)?;
    let element = cuda_network::element(precision);
    let cuda = Cuda::new(Box::new(cuda::device::Device::open(0)?), element);
    Ok(match precision {
        Precision::Tf32 => cuda.with_tf32(),
        Precision::F32 | Precision::Bf16 => cuda,
    })
}

/// dfdx's own backend of the GPU.
#[cfg(feature = "dfdx-cuda")]
fn dfdx_cuda(precision: Precision) -> Result<Composite<f32, dfdx::prelude::Cuda>> {
    if precision == Precision::Bf16 {
        return Err(Error::input("dfdx's CUDA device computes in f32").hint("set `precision` to `f32`"));
    }
    let cuda = dfdx::prelude::Cuda::try_build(0, 0)
        .map_err(|error| Error::environment(format!("open CUDA device 0: {error}")))?;
    Ok(Composite::new(cuda))
}

/// Refuses a shape whose heads a GPU cannot take.
fn check_heads(shape: &Shape) -> Result<()> {
    let head = shape.width / shape.heads.max(1);
    if cuda_network::takes(shape) {
        return Ok(());
    }
    Err(Error::input(format!(
        "compute shape `{}` on a GPU: its heads are {head} wide, a GPU's tensor cores take multiples of {}",
        shape.name,
        cuda_network::HEAD_TILE,
    ))
    .hint("use `--device cpu`, or a shape whose width is 16, 32, 64, … times its heads (`mdlm shapes`)"))
}

/// The network of the shape on the backend.
fn on<B: HostBackend>(
    shape: &Shape,
    backbone: Backbone,
    weights: &[f32],
    backend: B,
) -> Result<Box<dyn Network>> {
    struct Build<'a, B>(B, Backbone, &'a [f32]);
    impl<B: HostBackend> WithArch for Build<'_, B> {
        type Output = Result<Box<dyn Network>>;
        fn apply<A: Arch>(self) -> Self::Output {
            Ok(Box::new(CpuNetwork::<A, B>::new(self.0, self.1, self.2)?))
        }
    }
    with_arch(shape.name, Build(backend, backbone, weights)).unwrap_or_else(|| Err(not_compiled(shape)))
}

/// The learner of the shape on the backend.
fn learner_on<B: HostBackend>(
    shape: &Shape,
    backbone: Backbone,
    weights: &[f32],
    backend: B,
) -> Result<Box<dyn Learner>> {
    struct Build<'a, B>(B, Backbone, &'a [f32]);
    impl<B: HostBackend> WithArch for Build<'_, B> {
        type Output = Result<Box<dyn Learner>>;
        fn apply<A: Arch>(self) -> Self::Output {
            let network = CpuNetwork::<A, B>::new(self.0, self.1, self.2)?;
            Ok(Box::new(HostLearner::new(network)?))
        }
    }
    with_arch(shape.name, Build(backend, backbone, weights)).unwrap_or_else(|| Err(not_compiled(shape)))
}

pub(super) fn not_compiled(shape: &Shape) -> Error {
    Error::internal(format!("shape `{}` is not compiled", shape.name))
}

/// A network whose types are hidden behind [`Network`]. Its weights are the first of its backend, and the only ones: the
/// backend's flat order is the network's.
pub struct CpuNetwork<A: Arch, B: HostBackend> {
    backend: B,
    backbone: Backbone,
    dit: Dit<A, B>,
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

pub(super) fn check_len(what: &str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::internal(format!("{found} {what} where {expected} belong")))
}

/// Refuses what would end in a panic deep within a kernel.
pub(super) fn check_inputs(shape: &Shape, tokens: &[u32], sigma: &[f32], positions: &[u32]) -> Result<()> {
    let rows = tokens.len() / shape.length;
    check_len("tokens", rows.max(1) * shape.length, tokens.len())?;
    if sigma.len() != 1 {
        check_len("values of sigma", rows, sigma.len())?;
    }
    if let Some(at) = tokens
        .iter()
        .position(|&token| token as usize >= shape.vocabulary)
    {
        let (token, vocabulary) = (tokens[at], shape.vocabulary);
        return Err(Error::internal(format!(
            "token {token} at {at} of a vocabulary of {vocabulary}"
        )));
    }
    check_positions(positions, tokens.len())
}

/// Refuses positions that do not ascend, or lie beyond so many tokens.
pub(super) fn check_positions(positions: &[u32], tokens: usize) -> Result<()> {
    let ascending = positions.windows(2).all(|pair| pair[0] < pair[1]);
    let inside = positions.last().is_none_or(|&last| (last as usize) < tokens);
    if ascending && inside {
        return Ok(());
    }
    Err(Error::internal("positions must ascend within the batch"))
}

pub(super) fn check_batch(shape: &Shape, batch: &Batch<'_>, support: VocabSupport) -> Result<()> {
    check_inputs(shape, batch.tokens, batch.sigma, batch.positions)?;
    batch
        .readout(support)
        .check(batch.positions.len(), shape.vocabulary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::SHAPES;

    #[test]
    fn heads_that_no_tile_divides_are_refused_on_a_gpu() {
        for shape in SHAPES {
            assert!(check_heads(shape).is_ok(), "{}", shape.name);
        }
        let odd = Shape {
            width: 96,
            heads: 4,
            ..SHAPES[0]
        };
        let error = check_heads(&odd).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
        assert!(error.to_string().contains("24 wide"), "{error}");
    }
}
