//! The one place of type erasure: a compiled shape and a backend become a `Box<dyn Network>`, or a `Box<dyn Learner>`.

use super::checks::not_compiled;
use super::cuda_network::{HEAD_TILE, element, takes};
use super::dit::{Arch, WithArch, with_arch};
use super::{CpuNetwork, CudaLearner, CudaNetwork, Device, HostLearner, Learner, Network};
use crate::error::{Error, Result};
#[cfg(feature = "dfdx-cuda")]
use crate::kernels::composite::Composite;
use crate::kernels::cuda::{self, Cuda};
use crate::kernels::{Fused, HostBackend};
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
        Device::Cuda => build_on_cuda(shape, backbone, gpu(shape, precision)?, weights),
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
        Device::Cuda => build_learner_on_cuda(shape, backbone, gpu(shape, precision)?, weights),
        #[cfg(feature = "dfdx-cuda")]
        Device::DfdxCuda => learner_on(shape, backbone, weights, dfdx_cuda(precision)?),
    }
}

/// A learner as [`build_learner`] makes it, on the GPU of the rank that has this number among those of its machine.
///
/// # Errors
/// The errors of [`build`]; there are fewer GPUs.
pub fn build_learner_of_rank(
    shape: &Shape,
    backbone: Backbone,
    device: Device,
    precision: Precision,
    weights: &[f32],
    local: u32,
) -> Result<Box<dyn Learner>> {
    match device {
        Device::Cuda if local > 0 => {
            let cuda = gpu_of_number(shape, precision, local as usize).map_err(|error| {
                error.or_hint(
                    "each rank of a machine takes one GPU: start as many as CUDA_VISIBLE_DEVICES shows",
                )
            })?;
            build_learner_on_cuda(shape, backbone, cuda, weights)
        }
        _ => build_learner(shape, backbone, device, precision, weights),
    }
}

/// The network of the shape and backbone on a device, with these weights in the flat order.
///
/// # Errors
/// Out of memory.
pub fn build_on_cuda(
    shape: &Shape,
    backbone: Backbone,
    cuda: Cuda,
    weights: &[f32],
) -> Result<Box<dyn Network>> {
    struct Build<'a>(Cuda, Backbone, &'a [f32]);
    impl WithArch for Build<'_> {
        type Output = Result<Box<dyn Network>>;
        fn apply<A: Arch>(self) -> Self::Output {
            Ok(Box::new(CudaNetwork::<A>::new(self.0, self.1, self.2)?))
        }
    }
    with_arch(shape.name, Build(cuda, backbone, weights)).unwrap_or_else(|| Err(not_compiled(shape)))
}

/// A learner of the shape and backbone on a device that begins from these weights in the flat order.
///
/// # Errors
/// Out of memory.
pub fn build_learner_on_cuda(
    shape: &Shape,
    backbone: Backbone,
    cuda: Cuda,
    weights: &[f32],
) -> Result<Box<dyn Learner>> {
    struct Build<'a>(Cuda, Backbone, &'a [f32]);
    impl WithArch for Build<'_> {
        type Output = Result<Box<dyn Learner>>;
        fn apply<A: Arch>(self) -> Self::Output {
            Ok(Box::new(CudaLearner::<A>::new(self.0, self.1, self.2)?))
        }
    }
    with_arch(shape.name, Build(cuda, backbone, weights)).unwrap_or_else(|| Err(not_compiled(shape)))
}

/// The backend of the first GPU.
fn gpu(shape: &Shape, precision: Precision) -> Result<Cuda> {
    gpu_of_number(shape, precision, 0)
}

/// The backend of the GPU of that number, of those that CUDA_VISIBLE_DEVICES shows.
fn gpu_of_number(shape: &Shape, precision: Precision, number: usize) -> Result<Cuda> {
    check_heads(shape)?;
    let element = element(precision);
    let cuda = Cuda::new(Box::new(cuda::device::Device::open(number)?), element);
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
    if takes(shape) {
        return Ok(());
    }
    Err(Error::input(format!(
        "compute shape `{}` on a GPU: its heads are {head} wide, a GPU's tensor cores take multiples of {}",
        shape.name, HEAD_TILE,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::SHAPES;

    #[test]
    fn heads_that_no_tile_divides_are_refused_on_a_gpu() {
        for shape in SHAPES.iter() {
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
