//! Rows copied and rows added.

use std::rc::Rc;

use dfdx::shapes::ConstDim;
use rayon::prelude::*;

use super::Embed;
use crate::error::Result;
use crate::kernels::checks::check_indices;
use crate::kernels::fused::{Fused, Matrix};
use crate::kernels::{Operation, profile, rows, seam};

/// y[r] = table[tokens[r]].
pub fn forward(table: &[f32], tokens: &[u32], width: usize, y: &mut [f32]) {
    let rows = rows::per_task(width);
    y.par_chunks_mut(rows * width)
        .zip(tokens.par_chunks(rows))
        .for_each(|(y, tokens)| {
            for (y, &token) in y.chunks_exact_mut(width).zip(tokens) {
                y.copy_from_slice(&table[token as usize * width..][..width]);
            }
        });
}

/// dtable[tokens[r]] += dy[r] in the order of r; each task owns a range of the table's rows.
pub fn backward(dy: &[f32], tokens: &[u32], width: usize, dtable: &mut [f32]) {
    let entries = (dtable.len() / width).div_ceil(4 * rayon::current_num_threads());
    dtable
        .par_chunks_mut(entries * width)
        .enumerate()
        .for_each(|(task, dtable)| {
            for (dy, &token) in dy.chunks_exact(width).zip(tokens) {
                let Some(entry) = (token as usize).checked_sub(task * entries) else {
                    continue;
                };
                let Some(sum) = dtable.get_mut(entry * width..(entry + 1) * width) else {
                    continue;
                };
                for (sum, dy) in sum.iter_mut().zip(dy) {
                    *sum += dy;
                }
            }
        });
}

impl Embed for Fused {
    fn embed<V: ConstDim, D: ConstDim>(
        &self,
        table: &Self::Param<(V, D)>,
        tokens: &Self::Tokens,
    ) -> Result<Matrix<D>> {
        let _timer = profile::forward(Operation::Embed);
        check_indices("token", tokens, V::SIZE)?;
        let mut y = seam::zeros(tokens.len() * D::SIZE)?;
        forward(&table.values(), tokens, D::SIZE, &mut y);
        let y = self.tensor((tokens.len(), D::default()), y)?;
        if self.is_recording() {
            let (table, tokens) = (table.clone(), Rc::clone(tokens));
            self.push_from(Operation::Embed, &y, move |dy, _, weights| {
                backward(dy, &tokens, D::SIZE, weights.of(&table));
                Ok(())
            });
        }
        Ok(y)
    }
}
