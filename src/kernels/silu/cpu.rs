//! The pass over slices.

use crate::kernels::{math, rows};

/// y = silu(x).
pub fn forward(y: &mut [f32], x: &[f32]) {
    rows::zip(
        y,
        x,
        #[inline(always)]
        |_, x| math::silu(x),
    );
}

/// dy becomes dx.
pub fn backward(x: &[f32], dy: &mut [f32]) {
    rows::zip(
        dy,
        x,
        #[inline(always)]
        |dy, x| dy * math::silu_slope(x),
    );
}
