//! Tensor operations per backend: one folder per operation, and the contract that every backend keeps.
//!
//! Shape letters: B rows of a (micro-)batch, L tokens a row, R = B·L token rows, n masked positions, D width,
//! H heads, F = 4D hidden width, C conditioning width, V vocabulary. A dimension that depends on data is `usize`.

pub mod adamw;
pub mod attention;
pub mod categorical;
mod checks;
pub mod composite;
pub mod cuda;
mod embed;
mod flat;
mod fused;
mod gated_residual;
mod gather;
pub mod gemm;
pub mod lanes;
mod linear;
mod linear_gelu;
pub mod math;
mod modulated_norm;
pub mod profile;
pub mod readout;
mod rows;
mod scratch;
mod seam;
mod silu;
pub mod simd;
#[cfg(test)]
mod testing;

pub use attention::{CachedAttention, Pattern};
pub use flat::{Gradients, Weight};
pub use fused::Fused;
pub use readout::{Constants, Loss, ReadoutRequest};

use dfdx::shapes::{ConstShape, Shape};

use crate::error::Result;
use crate::rng::Random;
use cuda::driver::Kernels;

/// Declares the operations. Each has a folder, which holds its kernels in `<folder>.cu`. Those of a backend also have a trait
/// there, which every backend implements.
macro_rules! operations {
    (
        backend { $($folder:ident: $Operation:ident,)* }
        others { $($other:ident: $Other:ident,)* }
    ) => {
        $(pub use $folder::$Operation;)*

        /// What the network needs from a machine: [`Tensors`] and the operations on them. Everything that takes part in
        /// differentiation goes through here.
        ///
        /// Micro-batches cannot show in a weight's gradient only if nothing is summed over a micro-batch before it reaches
        /// the weight: in training, condition every row on its own (m = rows of the batch), even if all rows have the same
        /// σ; a conditioning vector shared by the micro-batch (m = 1) is for evaluation and sampling.
        ///
        /// A modulation argument has m rows, m = 1 (shared by the batch) or m = B: each row of the batch, by
        /// [`TokenRows`], uses its own. `shift`, `scale` and `gate` are chunk indices: chunk k is columns kD..(k+1)D.
        pub trait Backend: Tensors $(+ $Operation)* {}

        impl<B: Tensors $(+ $Operation)*> Backend for B {}

        /// The operations that have kernels for a GPU.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Operation {
            $(
                #[doc = concat!("Its folder is `", stringify!($folder), "`.")]
                $Operation,
            )*
            $(
                #[doc = concat!("Its folder is `", stringify!($other), "`.")]
                $Other,
            )*
        }

        impl Operation {
            /// Every operation.
            pub const ALL: [Self; [$(stringify!($folder),)* $(stringify!($other),)*].len()] =
                [$(Self::$Operation,)* $(Self::$Other,)*];

            /// The name of its folder: `linear_gelu`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$Operation => stringify!($folder),)*
                    $(Self::$Other => stringify!($other),)*
                }
            }

            /// Its kernels for a GPU.
            #[must_use]
            pub const fn kernels(self) -> Kernels {
                let source = match self {
                    $(Self::$Operation => {
                        include_str!(concat!(stringify!($folder), "/", stringify!($folder), ".cu"))
                    })*
                    $(Self::$Other => {
                        include_str!(concat!(stringify!($other), "/", stringify!($other), ".cu"))
                    })*
                };
                Kernels { name: self.name(), source }
            }
        }
    };
}

operations! {
    backend {
        attention: Attention,
        embed: Embed,
        gated_residual: GatedResidual,
        gather: Gather,
        linear: Linear,
        linear_gelu: LinearGelu,
        modulated_norm: ModulatedNorm,
        readout: Readout,
        silu: Silu,
    }
    others {
        adamw: AdamW,
        categorical: Categorical,
    }
}

/// Dropout whose bits are a function of (seed, step, row, site, element): any backend, any batching, same mask.
///
/// Element e = l·D + d of the row takes 32-bit word e % 4 of block `site << 24 | e / 4` of the row's stream
/// (`Random::block(step, row, block)`) and is kept when `word >= rate · 2^32`; kept elements are scaled by 1 / (1 − rate).
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Probability of dropping, below 1.
    pub rate: f32,
    /// The stream.
    pub random: Random,
    /// Optimizer step.
    pub step: u64,
    /// Global index of the micro-batch's first row: `step · batch + offset` of the epochless row order.
    pub first_row: u64,
}

impl Dropout {
    /// The number below which a 32-bit word drops its element.
    #[must_use]
    pub fn threshold(&self) -> u32 {
        (f64::from(self.rate) * 4_294_967_296.0) as u32
    }
}

/// The vocabulary support: the tokens that a softmax ranges over. The logits of all others are −∞.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VocabSupport {
    /// The mask token.
    pub mask: u32,
    /// Tokens of the tokenizer, the mask included; ids from here to V (a shape may be larger) are not in the support.
    pub size: u32,
    /// Whether the mask is in the support: it is in D3PM's; SUBS, with its zero masking probability, AR, MLM and SEDD leave
    /// it out.
    pub includes_mask: bool,
}

impl VocabSupport {
    /// The tokens below `size` without the mask.
    #[must_use]
    pub const fn without_mask(mask: u32, size: u32) -> Self {
        Self {
            mask,
            size,
            includes_mask: false,
        }
    }

    /// The tokens below `size`, the mask among them.
    #[must_use]
    pub const fn with_mask(mask: u32, size: u32) -> Self {
        Self {
            mask,
            size,
            includes_mask: true,
        }
    }

    /// The token below `size` that is not in the support; a number that no token has where all are.
    #[must_use]
    pub const fn excluded(self) -> u32 {
        if self.includes_mask { u32::MAX } else { self.mask }
    }

    /// Whether a token is in the support.
    #[must_use]
    pub const fn contains(self, token: u32) -> bool {
        token < self.size && token != self.excluded()
    }
}

/// Which token rows of a micro-batch an activation holds: the last block continues with the wanted positions alone.
#[derive(Clone, Copy, Debug)]
pub struct TokenRows<'a> {
    /// L: token rows that make one row of the batch.
    pub length: usize,
    /// The token rows held, strictly ascending; absent: all, in order.
    pub listed: Option<&'a [u32]>,
}

impl<'a> TokenRows<'a> {
    /// All token rows.
    #[must_use]
    pub fn all(length: usize) -> Self {
        Self { length, listed: None }
    }

    /// The listed ones.
    #[must_use]
    pub fn listed(length: usize, listed: &'a [u32]) -> Self {
        Self {
            length,
            listed: Some(listed),
        }
    }

    /// The token row that row `i` of the activation is.
    #[inline(always)]
    #[must_use]
    pub fn token_row(self, i: usize) -> usize {
        self.listed.map_or(i, |listed| listed[i] as usize)
    }

    /// The row of the batch, and the position in it, that row `i` of the activation is.
    #[inline(always)]
    #[must_use]
    pub fn place(self, i: usize) -> (usize, usize) {
        let row = self.token_row(i);
        (row / self.length, row % self.length)
    }

    /// Where the activation's rows of each row of the batch begin, and where the last ones end (B + 1), `count` rows
    /// being held.
    #[must_use]
    pub fn starts(self, batch: usize, count: usize) -> Vec<usize> {
        (0..=batch)
            .map(|row| match self.listed {
                None => (row * self.length).min(count),
                Some(listed) => listed.partition_point(|&at| (at as usize) < row * self.length),
            })
            .collect()
    }
}

/// Weights, activations and the tape of a backend: what operations work on.
///
/// Activations are cheap to clone (shared storage). While [`Tensors::record`] is on, every operation is put on the
/// backend's tape; [`Tensors::backward`] runs it and hands the gradients back, so that micro-batches accumulate: the
/// gradient of a parameter is a left fold over the batch's rows in order, hence the same bits for any micro-batch.
///
/// # Errors
/// Every method fails when memory runs out, with [`crate::error::Kind::Environment`].
#[expect(clippy::missing_errors_doc, reason = "stated once, above")]
pub trait Tensors: Sized + 'static {
    /// A weight.
    type Param<S: ConstShape>;
    /// An activation.
    type Act<S: Shape>: Clone;
    /// Tokens, where the network computes.
    type Tokens;
    /// The gradients of the weights, accumulated over micro-batches.
    type Gradients: Default;

    /// A weight with these values, row-major.
    fn param<S: ConstShape>(&self, values: &[f32]) -> Result<Self::Param<S>>;

    /// Copies a weight's values out, row-major.
    fn read<S: ConstShape>(&self, param: &Self::Param<S>, into: &mut [f32]) -> Result<()>;

    /// Copies the gradient of a weight out, row-major; zeros where it has none yet.
    fn gradient<S: ConstShape>(
        &self,
        param: &Self::Param<S>,
        gradients: &Self::Gradients,
        into: &mut [f32],
    ) -> Result<()>;

    /// Starts recording; gradients will be added to `gradients`.
    fn record(&self, gradients: Self::Gradients);

    /// Runs the tape from a scalar, ends recording and returns the weights' gradients.
    fn backward(&self, loss: Self::Act<()>) -> Result<Self::Gradients>;

    /// A constant.
    fn input<S: Shape>(&self, shape: S, values: &[f32]) -> Result<Self::Act<S>>;

    /// Copies an activation's values out, row-major.
    fn values<S: Shape>(&self, x: &Self::Act<S>) -> Result<Vec<f32>>;

    /// Brings tokens to where the network computes.
    fn tokens(&self, tokens: &[u32]) -> Result<Self::Tokens>;
}

/// A backend whose weights lie on the host, end to end in the order in which they were made.
///
/// # Errors
/// Every method fails when memory runs out.
#[expect(clippy::missing_errors_doc, reason = "stated once, above")]
pub trait HostBackend: Backend + CachedAttention {
    /// Makes room for weights of so many elements together.
    fn reserve(&self, count: usize) -> Result<()>;

    /// Lends all weights to `f`.
    fn with_weights(&self, f: &mut dyn FnMut(&mut [f32])) -> Result<()>;

    /// Lends all weights and their gradients (zeros where there are none yet) to `f`.
    fn with_gradients(
        &self,
        gradients: &mut Self::Gradients,
        f: &mut dyn FnMut(&mut [f32], &mut [f32]),
    ) -> Result<()>;
}
