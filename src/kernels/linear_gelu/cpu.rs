//! The activation's passes; the products are those of `linear`.

use crate::kernels::gemm::Precision;
use crate::kernels::{linear, math, rows};

/// u = x · wᵀ + b, y = gelu(u).
pub fn forward(
    precision: Precision,
    x: &[f32],
    w: &[f32],
    b: &[f32],
    inputs: usize,
    u: &mut [f32],
    y: &mut [f32],
) {
    linear::cpu::forward(precision, x, w, Some(b), inputs, u);
    rows::zip(
        y,
        u,
        #[inline(always)]
        |_, u| math::gelu(u),
    );
}

/// dy becomes du.
pub fn activation_gradient(u: &[f32], dy: &mut [f32]) {
    rows::zip(
        dy,
        u,
        #[inline(always)]
        |dy, u| dy * math::gelu_slope(u),
    );
}
