//! The one place of type erasure: a compiled shape and a backend become a `Box<dyn Network>`.

use dfdx::shapes::ConstShape;

use super::dit::{Arch, Dit, Look, Touch, WithArch, parameters, with_arch};
use super::{Batch, Device, Network, Parameter, on_device};
use crate::error::{Error, Result};
#[cfg(feature = "dfdx-cuda")]
use crate::kernels::composite::Composite;
use crate::kernels::cuda::{self, Cuda};
use crate::kernels::gemm::Precision;
use crate::kernels::{Alphabet, Backend, Fused};
use crate::shapes::Shape;

/// A network of the shape on the device, with these weights in the flat order, its products in that precision.
///
/// # Errors
/// An input error when the shape or the precision is none of the device's; otherwise the device's own.
pub fn build(
    shape: &Shape,
    device: Device,
    precision: Precision,
    weights: &[f32],
) -> Result<Box<dyn Network>> {
    match device {
        Device::Cpu => on(shape, weights, || Ok(Fused::with_precision(precision))),
        Device::Cuda => on_gpu(shape, precision, weights),
        #[cfg(feature = "dfdx-cuda")]
        Device::DfdxCuda if precision == Precision::Rounded => {
            Err(Error::input("dfdx's CUDA device computes in f32").hint("set `precision` to `f32`"))
        }
        #[cfg(feature = "dfdx-cuda")]
        Device::DfdxCuda => on(shape, weights, || {
            let cuda = dfdx::prelude::Cuda::try_build(0, 0)
                .map_err(|error| Error::environment(format!("open CUDA device 0: {error}")))?;
            Ok(Composite::<f32, _>::new(cuda))
        }),
    }
}

/// The network of the shape on the GPU.
fn on_gpu(shape: &Shape, precision: Precision, weights: &[f32]) -> Result<Box<dyn Network>> {
    check_heads(shape)?;
    let element = on_device::element(precision);
    let cuda = Cuda::new(Box::new(cuda::device::Device::open(0)?), element);
    let cuda = match precision {
        Precision::Tf32 => cuda.with_tf32(),
        Precision::Single | Precision::Rounded => cuda,
    };
    on_device::build(shape, cuda, weights)
}

/// Refuses a shape whose heads a GPU cannot take.
fn check_heads(shape: &Shape) -> Result<()> {
    let head = shape.width / shape.heads.max(1);
    if on_device::takes(shape) {
        return Ok(());
    }
    Err(Error::input(format!(
        "compute shape `{}` on a GPU: its heads are {head} wide, a GPU's tensor cores take multiples of {}",
        shape.name,
        on_device::HEAD_TILE,
    ))
    .hint("use `--device cpu`, or a shape whose width is 16, 32, 64, … times its heads (`mdlm shapes`)"))
}

/// The network of the shape on the backend that `backend` makes.
fn on<B: Backend>(
    shape: &Shape,
    weights: &[f32],
    backend: impl FnOnce() -> Result<B>,
) -> Result<Box<dyn Network>> {
    struct Build<'a, F>(F, &'a [f32]);
    impl<B: Backend, F: FnOnce() -> Result<B>> WithArch for Build<'_, F> {
        type Output = Result<Box<dyn Network>>;
        fn apply<A: Arch>(self) -> Self::Output {
            Ok(Box::new(Erased::<A, B>::new(self.0()?, self.1)?))
        }
    }
    with_arch(shape.name, Build(backend, weights))
        .unwrap_or_else(|| Err(Error::internal(format!("shape `{}` is not compiled", shape.name))))
}

/// A network whose types are hidden behind [`Network`].
pub struct Erased<A: Arch, B: Backend> {
    backend: B,
    dit: Dit<A, B>,
    gradients: B::Gradients,
    parameters: Vec<Parameter>,
}

impl<A: Arch, B: Backend> Erased<A, B> {
    /// The network with these weights in the flat order.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(backend: B, weights: &[f32]) -> Result<Self> {
        Ok(Self {
            dit: Dit::new(&backend, weights)?,
            backend,
            gradients: B::Gradients::default(),
            parameters: parameters(A::SHAPE),
        })
    }
}

impl<A: Arch, B: Backend> Network for Erased<A, B> {
    fn shape(&self) -> &'static Shape {
        A::SHAPE
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn load(&mut self, values: &[f32]) -> Result<()> {
        self.gradients = B::Gradients::default();
        self.dit = Dit::new(&self.backend, values)?;
        Ok(())
    }

    fn read(&self, values: &mut [f32]) -> Result<()> {
        struct Read<'a, B> {
            backend: &'a B,
            values: &'a mut [f32],
        }
        impl<B: Backend> Look<B> for Read<'_, B> {
            fn look<S: ConstShape>(&mut self, weight: &B::Param<S>) -> Result<()> {
                let (own, rest) = std::mem::take(&mut self.values).split_at_mut(S::NUMEL);
                self.values = rest;
                self.backend.read(weight, own)
            }
        }
        check_len("weights", total(&self.parameters), values.len())?;
        self.dit.look(&mut Read {
            backend: &self.backend,
            values,
        })
    }

    fn accumulate(&mut self, batch: &Batch<'_>, alphabet: Alphabet) -> Result<Vec<f32>> {
        check_batch(A::SHAPE, batch, alphabet)?;
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
        let (loss, nll) = self.dit.nll(&self.backend, &batch, alphabet)?;
        self.gradients = self.backend.backward(loss)?;
        self.backend.values(&nll)
    }

    fn visit(&mut self, f: &mut dyn FnMut(&Parameter, &mut [f32], &mut [f32])) -> Result<()> {
        struct Visit<'a, B: Backend, F> {
            backend: &'a B,
            gradients: &'a mut B::Gradients,
            parameters: std::slice::Iter<'a, Parameter>,
            f: F,
        }
        impl<B: Backend, F: FnMut(&Parameter, &mut [f32], &mut [f32])> Touch<B> for Visit<'_, B, F> {
            fn touch<S: ConstShape>(&mut self, weight: &mut B::Param<S>) -> Result<()> {
                let Some(parameter) = self.parameters.next() else {
                    return Err(Error::internal("more weights than parameters"));
                };
                let f = &mut self.f;
                self.backend
                    .with_param(weight, self.gradients, &mut |values, gradient| {
                        f(parameter, values, gradient);
                    })
            }
        }
        self.dit.touch(&mut Visit {
            backend: &self.backend,
            gradients: &mut self.gradients,
            parameters: self.parameters.iter(),
            f,
        })
    }

    fn nll(&self, batch: &Batch<'_>, alphabet: Alphabet) -> Result<Vec<f32>> {
        check_batch(A::SHAPE, batch, alphabet)?;
        if batch.positions.is_empty() {
            return Ok(Vec::new());
        }
        let (_, nll) = self.dit.nll(&self.backend, batch, alphabet)?;
        self.backend.values(&nll)
    }

    fn logits(&self, tokens: &[u32], sigma: &[f32], positions: &[u32]) -> Result<Vec<f32>> {
        check_inputs(A::SHAPE, tokens, sigma, positions)?;
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let tokens = self.backend.tokens(tokens)?;
        let logits = self.dit.logits(&self.backend, &tokens, sigma, positions)?;
        self.backend.values(&logits)
    }
}

/// Elements of all parameters together.
pub(super) fn total(parameters: &[Parameter]) -> usize {
    parameters.iter().map(Parameter::len).sum()
}

fn check_len(what: &str, expected: usize, found: usize) -> Result<()> {
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

pub(super) fn check_batch(shape: &Shape, batch: &Batch<'_>, alphabet: Alphabet) -> Result<()> {
    check_inputs(shape, batch.tokens, batch.sigma, batch.positions)?;
    batch
        .readout(alphabet)
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
