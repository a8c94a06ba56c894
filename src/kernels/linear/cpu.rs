//! Three products and a column sum.

use dfdx::prelude::{CpuError, HasShape as _};
use dfdx::shapes::ConstDim;

use super::Linear;
use crate::error::Result;
use crate::kernels::checks::check_part;
use crate::kernels::flat::{Gradients, Weight};
use crate::kernels::fused::{Fused, Grads, Matrix};
use crate::kernels::gemm::{Start, View, product, product_in};
use crate::kernels::{Operation, profile, rows, seam};
use crate::precision::Precision;

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

impl Linear for Fused {
    fn linear<I: ConstDim, O: ConstDim>(
        &self,
        x: &Matrix<I>,
        w: &Self::Param<(O, I)>,
        b: Option<&Self::Param<(O,)>>,
    ) -> Result<Matrix<O>> {
        let _timer = profile::forward(Operation::Linear);
        let rows = x.shape().0;
        let mut y = seam::zeros(rows * O::SIZE)?;
        let precision = self.precision;
        forward(
            precision,
            seam::slice(x),
            &w.values(),
            b.map(Weight::values).as_deref(),
            I::SIZE,
            &mut y,
        );
        let y = self.tensor((rows, O::default()), y)?;
        if self.is_recording() {
            let (x, w, b) = (x.clone(), w.clone(), b.cloned());
            self.push_from(Operation::Linear, &y, move |dy, activations, weights| {
                gradients(precision, dy, &x, &w, b.as_ref(), activations, weights)
            });
        }
        Ok(y)
    }

    fn linear_part<I: ConstDim, O: ConstDim, P: ConstDim>(
        &self,
        x: &Matrix<I>,
        w: &Self::Param<(O, I)>,
        first: usize,
    ) -> Result<Matrix<P>> {
        let _timer = profile::forward(Operation::Linear);
        check_part(first, P::SIZE, O::SIZE)?;
        let rows = x.shape().0;
        let part = first * I::SIZE..(first + P::SIZE) * I::SIZE;
        let mut y = seam::zeros(rows * P::SIZE)?;
        let precision = self.precision;
        forward(
            precision,
            seam::slice(x),
            &w.values()[part.clone()],
            None,
            I::SIZE,
            &mut y,
        );
        let y = self.tensor((rows, P::default()), y)?;
        if self.is_recording() {
            let (x, w) = (x.clone(), w.clone());
            self.push_from(Operation::Linear, &y, move |dy, activations, weights| {
                let dw = &mut weights.of(&w)[part.clone()];
                weight_gradient(dy, seam::slice(&x), I::SIZE, P::SIZE, dw);
                let dx = activations.get_or_alloc_mut(&x)?;
                input_gradient(precision, dy, &w.values()[part], I::SIZE, P::SIZE, dx);
                Ok(())
            });
        }
        Ok(y)
    }
}

/// Adds the gradients of y = x · wᵀ + b.
pub fn gradients<I: ConstDim, O: ConstDim>(
    precision: Precision,
    dy: &[f32],
    x: &Matrix<I>,
    w: &Weight<(O, I)>,
    b: Option<&Weight<(O,)>>,
    activations: &mut Grads,
    weights: &mut Gradients,
) -> Result<(), CpuError> {
    if let Some(b) = b {
        bias_gradient(dy, weights.of(b));
    }
    weight_gradient(dy, seam::slice(x), I::SIZE, O::SIZE, weights.of(w));
    input_gradient(
        precision,
        dy,
        &w.values(),
        I::SIZE,
        O::SIZE,
        activations.get_or_alloc_mut(x)?,
    );
    Ok(())
}
