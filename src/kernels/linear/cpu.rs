//! Three products and a column sum.

use crate::kernels::gemm::{Precision, Start, View, product, product_in};
use crate::kernels::rows;

/// y = x · wᵀ + b.
pub fn forward(precision: Precision, x: &[f32], w: &[f32], b: Option<&[f32]>, inputs: usize, y: &mut [f32]) {
    product_in(
        precision,
        b.map_or(Start::Zero, Start::Row),
        View::new(x, inputs),
        View::new(w, inputs).t(),
        y,
    );
}

/// dx += dy · w.
pub fn input_gradient(
    precision: Precision,
    dy: &[f32],
    w: &[f32],
    inputs: usize,
    outputs: usize,
    dx: &mut [f32],
) {
    product_in(
        precision,
        Start::Accumulate,
        View::new(dy, outputs),
        View::new(w, inputs),
        dx,
    );
}

/// dw += dyᵀ · x, always in f32: pairs of bfloat16 along the token rows would let micro-batches show.
pub fn weight_gradient(dy: &[f32], x: &[f32], inputs: usize, outputs: usize, dw: &mut [f32]) {
    product(
        Start::Accumulate,
        View::new(dy, outputs).t(),
        View::new(x, inputs),
        dw,
    );
}

/// db += Σ_r dy[r].
pub fn bias_gradient(dy: &[f32], db: &mut [f32]) {
    rows::add_column_sums(dy, db);
}
