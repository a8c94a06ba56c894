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

pub use attention::Pattern;
pub use flat::{Gradients, Weight};
pub use fused::Fused;
pub use readout::{Constants, Loss, ReadoutRequest};

use dfdx::shapes::{ConstDim, ConstShape, Shape};

use crate::error::Result;
use crate::rng::Random;
use cuda::driver::Kernels;

/// Declares the operations, each by its folder, which holds its kernels in `<folder>.cu`.
macro_rules! operations {
    ($($folder:ident: $Operation:ident,)*) => {
        /// The operations that have kernels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Operation {
            $(
                #[doc = concat!("Its folder is `", stringify!($folder), "`.")]
                $Operation,
            )*
        }

        impl Operation {
            /// Every operation.
            pub const ALL: [Self; [$(stringify!($folder)),*].len()] = [$(Self::$Operation),*];

            /// The name of its folder: `linear_gelu`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                self.kernels().name
            }

            /// Its kernels for a GPU.
            #[must_use]
            pub const fn kernels(self) -> Kernels {
                match self {
                    $(Self::$Operation => Kernels {
                        name: stringify!($folder),
                        source: include_str!(concat!(stringify!($folder), "/", stringify!($folder), ".cu")),
                    },)*
                }
            }
        }
    };
}

operations! {
    adamw: AdamW,
    attention: Attention,
    categorical: Categorical,
    embed: Embed,
    gated_residual: GatedResidual,
    gather: Gather,
    linear: Linear,
    linear_gelu: LinearGelu,
    modulated_norm: ModulatedNorm,
    readout: Readout,
    silu: Silu,
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

/// What the network needs from a machine: [`Tensors`] and the operations on them. Everything that takes part in
/// differentiation goes through here.
///
/// Micro-batches cannot show in a weight's gradient only if nothing is summed over a micro-batch before it reaches the
/// weight: in training, condition every row on its own (m = rows of the batch), even if all rows have the same σ; a
/// conditioning vector shared by the micro-batch (m = 1) is for evaluation and sampling.
///
/// A modulation argument has m rows, m = 1 (shared by the batch) or m = B: each row of the batch, by
/// [`TokenRows`], uses its own. `shift`, `scale` and `gate` are chunk indices: chunk k is columns kD..(k+1)D.
///
/// # Errors
/// Every operation fails when memory runs out, with [`crate::error::Kind::Environment`].
#[expect(clippy::missing_errors_doc, reason = "stated once, above")]
pub trait Backend: Tensors {
    /// y(R, D) = table(V, D)[tokens].
    fn embed<V: ConstDim, D: ConstDim>(
        &self,
        table: &Self::Param<(V, D)>,
        tokens: &Self::Tokens,
    ) -> Result<Self::Act<(usize, D)>>;

    /// y(R, O) = x(R, I) · w(O, I)ᵀ + b(O).
    fn linear<I: ConstDim, O: ConstDim>(
        &self,
        x: &Self::Act<(usize, I)>,
        w: &Self::Param<(O, I)>,
        b: Option<&Self::Param<(O,)>>,
    ) -> Result<Self::Act<(usize, O)>>;

    /// y(R, P) = x(R, I) · w[first..first + P]ᵀ: some outputs of a linear layer without bias.
    fn linear_part<I: ConstDim, O: ConstDim, P: ConstDim>(
        &self,
        x: &Self::Act<(usize, I)>,
        w: &Self::Param<(O, I)>,
        first: usize,
    ) -> Result<Self::Act<(usize, P)>>;

    /// y = gelu(x · wᵀ + b), the tanh form: ½u(1 + tanh(√(2/π)(u + 0.044715u³))).
    fn linear_gelu<I: ConstDim, O: ConstDim>(
        &self,
        x: &Self::Act<(usize, I)>,
        w: &Self::Param<(O, I)>,
        b: &Self::Param<(O,)>,
    ) -> Result<Self::Act<(usize, O)>>;

    /// y = x · sigmoid(x).
    fn silu<N: ConstDim>(&self, x: &Self::Act<(usize, N)>) -> Result<Self::Act<(usize, N)>>;

    /// y = LN(x) · weight · (1 + scale) + shift; LN over D without bias, ε = 1e-5.
    fn modulated_norm<D: ConstDim, M: ConstDim>(
        &self,
        x: &Self::Act<(usize, D)>,
        weight: &Self::Param<(D,)>,
        modulation: &Self::Act<(usize, M)>,
        shift: usize,
        scale: usize,
        rows: TokenRows<'_>,
    ) -> Result<Self::Act<(usize, D)>>;

    /// Attention with rotary positions, per row of L tokens and per head: y = softmax(rot(q) rot(k)ᵀ / √(D/H)) v, over the
    /// keys that `pattern` lets a query attend to. Columns of `kv` (R, 2D) are [k | v]; they and q are split into `heads`.
    /// There are queries for the token rows of `rows` alone, keys and values for all.
    /// Rotary: base 10000 over the two halves of each head, angle of pair j at position l is l · 10000^(−2j/(D/H)).
    fn attention<D: ConstDim, D2: ConstDim>(
        &self,
        q: &Self::Act<(usize, D)>,
        kv: &Self::Act<(usize, D2)>,
        heads: usize,
        rows: TokenRows<'_>,
        pattern: Pattern,
    ) -> Result<Self::Act<(usize, D)>>;

    /// y = x + gate · dropout(branch). `site` numbers the network's dropouts.
    fn gated_residual<D: ConstDim, M: ConstDim>(
        &self,
        x: &Self::Act<(usize, D)>,
        branch: &Self::Act<(usize, D)>,
        modulation: &Self::Act<(usize, M)>,
        gate: usize,
        dropout: Option<(Dropout, u32)>,
        rows: TokenRows<'_>,
    ) -> Result<Self::Act<(usize, D)>>;

    /// y(n, D) = x(R, D)[rows]; `rows` may repeat: the gradient adds up.
    fn gather<D: ConstDim>(&self, x: &Self::Act<(usize, D)>, rows: &[u32]) -> Result<Self::Act<(usize, D)>>;

    /// The output layer and a loss in one pass, never storing all of (n, V): with logits = h · wᵀ + b over the readout's
    /// support, the loss of each position is a function of their log-sum-exp, the target's logit and the mask's logit
    /// ([`readout`] states it). Returns the scalar Σ_i weights_i · loss_i for [`Tensors::backward`], and the loss of each
    /// position, in nats; a constant.
    ///
    /// The scalar is the end of the tape: it goes into [`Tensors::backward`] and nowhere else, so a backend may compute
    /// gradients right here.
    #[expect(
        clippy::type_complexity,
        reason = "a scalar and a vector: named, they would be less clear"
    )]
    fn readout<V: ConstDim, D: ConstDim>(
        &self,
        h: &Self::Act<(usize, D)>,
        w: &Self::Param<(V, D)>,
        b: &Self::Param<(V,)>,
        readout: &ReadoutRequest<'_>,
    ) -> Result<(Self::Act<()>, Self::Act<(usize,)>)>;
}

/// A backend whose weights lie on the host, end to end in the order in which they were made.
///
/// # Errors
/// Every method fails when memory runs out.
#[expect(clippy::missing_errors_doc, reason = "stated once, above")]
pub trait HostBackend: Backend {
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
