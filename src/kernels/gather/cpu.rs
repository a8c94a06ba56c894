//! Rows copied and rows added.

use dfdx::prelude::HasShape as _;
use dfdx::shapes::ConstDim;

use super::Gather;
use crate::error::Result;
use crate::kernels::checks::check_indices;
use crate::kernels::fused::{Fused, Matrix};
use crate::kernels::{Operation, embed, profile, seam};

/// y[i] = x[rows[i]].
pub fn forward(x: &[f32], rows: &[u32], width: usize, y: &mut [f32]) {
    embed::cpu::forward(x, rows, width, y);
}

/// dx[rows[i]] += dy[i]. On one thread: it is a copy, and most rows occur once.
pub fn backward(dy: &[f32], rows: &[u32], width: usize, dx: &mut [f32]) {
    for (dy, &row) in dy.chunks_exact(width).zip(rows) {
        for (sum, dy) in dx[row as usize * width..][..width].iter_mut().zip(dy) {
            *sum += dy;
        }
    }
}

impl Gather for Fused {
    fn gather<D: ConstDim>(&self, x: &Matrix<D>, rows: &[u32]) -> Result<Matrix<D>> {
        let _timer = profile::forward(Operation::Gather);
        check_indices("row", rows, x.shape().0)?;
        let mut y = seam::zeros(rows.len() * D::SIZE)?;
        forward(seam::slice(x), rows, D::SIZE, &mut y);
        let y = self.tensor((rows.len(), D::default()), y)?;
        if self.is_recording() {
            let (x, rows) = (x.ghost(), rows.to_vec());
            self.push_from(Operation::Gather, &y, move |dy, activations, _| {
                backward(dy, &rows, D::SIZE, activations.get_or_alloc_mut(&x)?);
                Ok(())
            });
        }
        Ok(y)
    }
}
