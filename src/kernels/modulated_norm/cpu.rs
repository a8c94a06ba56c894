//! One pass forward; backward one pass over rows and one over columns.

use rayon::prelude::*;

use crate::kernels::{math, rows, simd};

/// Added to the variance (PyTorch's default, which the authors keep).
const EPSILON: f32 = 1e-5;

/// Where a chunk of D columns lies in the modulation.
#[derive(Clone, Copy)]
pub struct Modulation<'a> {
    /// Row-major (m, M).
    pub values: &'a [f32],
    /// M.
    pub columns: usize,
    /// Token rows per modulation row: R / m.
    pub per: usize,
    /// First column of the shift.
    pub shift: usize,
    /// First column of the scale.
    pub scale: usize,
}

impl<'a> Modulation<'a> {
    /// m.
    pub fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    /// Shift and scale of a token row.
    #[inline(always)]
    fn of(&self, row: usize, width: usize) -> (&'a [f32], &'a [f32]) {
        let start = row / self.per * self.columns;
        (
            &self.values[start + self.shift..][..width],
            &self.values[start + self.scale..][..width],
        )
    }
}

/// y, and each row's mean and 1 / √(variance + ε).
pub fn forward(
    x: &[f32],
    weight: &[f32],
    modulation: Modulation,
    y: &mut [f32],
    statistics: &mut [[f32; 2]],
) {
    let width = weight.len();
    let rows = rows::per_task(width);
    y.par_chunks_mut(rows * width)
        .zip(x.par_chunks(rows * width))
        .zip(statistics.par_chunks_mut(rows))
        .enumerate()
        .for_each(|(task, ((y, x), statistics))| {
            simd::vectorized(
                #[inline(always)]
                || {
                    let rows_of_task = y
                        .chunks_exact_mut(width)
                        .zip(x.chunks_exact(width))
                        .zip(statistics.iter_mut());
                    for (row, ((y, x), statistics)) in rows_of_task.enumerate() {
                        let mean = math::sum(x) / width as f32;
                        let variance = math::sum_of_squares(x, mean) / width as f32;
                        let inverse = 1.0 / (variance + EPSILON).sqrt();
                        *statistics = [mean, inverse];
                        let (shift, scale) = modulation.of(task * rows + row, width);
                        for j in 0..width {
                            let normal = (x[j] - mean) * inverse;
                            y[j] = (normal * weight[j]).mul_add(1.0 + scale[j], shift[j]);
                        }
                    }
                },
            );
        });
}

/// dx += ρ (g − mean(g) − n mean(g n)), g = dy · weight · (1 + scale).
pub fn input_gradient(
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    modulation: Modulation,
    statistics: &[[f32; 2]],
    dx: &mut [f32],
) {
    let width = weight.len();
    let rows = rows::per_task(width);
    dx.par_chunks_mut(rows * width)
        .enumerate()
        .for_each(|(task, dx)| {
            simd::vectorized(
                #[inline(always)]
                || {
                    for (row, dx) in dx.chunks_exact_mut(width).enumerate() {
                        let row = task * rows + row;
                        let (x, dy) = (&x[row * width..][..width], &dy[row * width..][..width]);
                        let [mean, inverse] = statistics[row];
                        let (_, scale) = modulation.of(row, width);
                        let g = |j: usize| dy[j] * (weight[j] * (1.0 + scale[j]));
                        let g_mean = math::fold(width, g) / width as f32;
                        let projection =
                            math::fold(width, |j| g(j) * ((x[j] - mean) * inverse)) / width as f32;
                        for j in 0..width {
                            let normal = (x[j] - mean) * inverse;
                            dx[j] += inverse * (g(j) - g_mean - normal * projection);
                        }
                    }
                },
            );
        });
}

/// dweight += Σ_r dy n (1 + scale); dshift and dscale += Σ dy and Σ dy n weight over their token rows, in order.
pub fn parameter_gradients(
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    modulation: Modulation,
    statistics: &[[f32; 2]],
    dweight: &mut [f32],
    dmodulation: &mut [f32],
) {
    let width = weight.len();
    let columns = rows::columns_per_task(width);
    // Shift and scale columns of all modulation rows for each task; they are copied out and in, being few.
    let tasks: Vec<Vec<f32>> = dweight
        .par_chunks_mut(columns)
        .enumerate()
        .map(|(task, dweight)| {
            let (from, count) = (task * columns, dweight.len());
            let mut sums = Vec::with_capacity(modulation.rows() * 2 * count);
            for row in dmodulation.chunks_exact(modulation.columns) {
                sums.extend_from_slice(&row[modulation.shift + from..][..count]);
                sums.extend_from_slice(&row[modulation.scale + from..][..count]);
            }
            simd::vectorized(
                #[inline(always)]
                || {
                    let weight = &weight[from..][..count];
                    for (row, &[mean, inverse]) in statistics.iter().enumerate() {
                        let (x, dy) = (
                            &x[row * width + from..][..count],
                            &dy[row * width + from..][..count],
                        );
                        let scale = &modulation.of(row, width).1[from..][..count];
                        let (dshift, dscale) =
                            sums[row / modulation.per * 2 * count..][..2 * count].split_at_mut(count);
                        for j in 0..count {
                            let product = dy[j] * ((x[j] - mean) * inverse);
                            dweight[j] = product.mul_add(1.0 + scale[j], dweight[j]);
                            dscale[j] = product.mul_add(weight[j], dscale[j]);
                            dshift[j] += dy[j];
                        }
                    }
                },
            );
            sums
        })
        .collect();
    for (task, sums) in tasks.iter().enumerate() {
        let from = task * columns;
        let count = columns.min(width - from);
        for (row, sums) in dmodulation
            .chunks_exact_mut(modulation.columns)
            .zip(sums.chunks_exact(2 * count))
        {
            row[modulation.shift + from..][..count].copy_from_slice(&sums[..count]);
            row[modulation.scale + from..][..count].copy_from_slice(&sums[count..]);
        }
    }
}
