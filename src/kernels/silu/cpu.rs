//! The pass over slices.

use dfdx::prelude::HasShape as _;
use dfdx::shapes::ConstDim;

use super::Silu;
use crate::error::Result;
use crate::kernels::fused::{Fused, Matrix, add};
use crate::kernels::{Operation, math, profile, rows, seam};

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

impl Silu for Fused {
    fn silu<N: ConstDim>(&self, x: &Matrix<N>) -> Result<Matrix<N>> {
        let _timer = profile::forward(Operation::Silu);
        let mut y = seam::zeros(x.shape().0 * N::SIZE)?;
        forward(&mut y, seam::slice(x));
        let y = self.tensor(*x.shape(), y)?;
        if self.is_recording() {
            let x = x.clone();
            self.push_from(Operation::Silu, &y, move |dy, activations, _| {
                backward(seam::slice(&x), dy);
                add(activations.get_or_alloc_mut(&x)?, dy);
                Ok(())
            });
        }
        Ok(y)
    }
}
