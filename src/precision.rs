//! The precision of training, as manifests name it and as products compute in it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Precision of activations and matrix products in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// On a GPU, tensor cores round the factors of f32 products to tf32 (10 bits of mantissa): faster than f32, and
    /// more precise than bf16. On a CPU, which lacks such instructions, the same as f32.
    Tf32,
    /// On a GPU, activations and the factors of products are bfloat16; sums, master weights, gradients of weights and
    /// the optimizer's state are f32. On a CPU, only the factors of the linear layers' products are rounded to
    /// bfloat16: faster if the processor has AVX512-BF16, else slower, with the same results.
    Bf16,
}

impl Precision {
    /// Whether it is the default, which `model.json` leaves out.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
