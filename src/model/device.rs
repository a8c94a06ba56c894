//! Where networks compute.

/// Where a network computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The fused operations on the CPU.
    #[default]
    Cpu,
    /// Kernels of our own on a GPU: number 0 of those that CUDA_VISIBLE_DEVICES shows.
    Cuda,
    /// dfdx's own CUDA device.
    #[cfg(feature = "dfdx-cuda")]
    DfdxCuda,
}

impl Device {
    /// Whether it is a GPU.
    #[must_use]
    pub fn is_gpu(self) -> bool {
        self != Self::Cpu
    }
}
