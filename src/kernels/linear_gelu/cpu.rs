//! The activation's passes; the products are those of `linear`.

use dfdx::prelude::HasShape as _;
use dfdx::shapes::ConstDim;

use super::LinearGelu;
use crate::error::Result;
use crate::kernels::fused::{Fused, Matrix};
use crate::kernels::{Operation, linear, math, profile, rows, seam};
use crate::precision::Precision;

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

impl LinearGelu for Fused {
    fn linear_gelu<I: ConstDim, O: ConstDim>(
        &self,
        x: &Matrix<I>,
        w: &Self::Param<(O, I)>,
        b: &Self::Param<(O,)>,
    ) -> Result<Matrix<O>> {
        let _timer = profile::forward(Operation::LinearGelu);
        let rows = x.shape().0;
        let (mut u, mut y) = (seam::zeros(rows * O::SIZE)?, seam::zeros(rows * O::SIZE)?);
        let precision = self.precision;
        forward(
            precision,
            seam::slice(x),
            &w.values(),
            &b.values(),
            I::SIZE,
            &mut u,
            &mut y,
        );
        let y = self.tensor((rows, O::default()), y)?;
        if self.is_recording() {
            let (x, w, b) = (x.clone(), w.clone(), b.clone());
            self.push_from(Operation::LinearGelu, &y, move |dy, activations, weights| {
                activation_gradient(&u, dy);
                drop(u);
                linear::cpu::gradients(precision, dy, &x, &w, Some(&b), activations, weights)
            });
        }
        Ok(y)
    }
}
