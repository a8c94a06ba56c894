//! Rows copied and rows added.

use crate::kernels::embed;

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
