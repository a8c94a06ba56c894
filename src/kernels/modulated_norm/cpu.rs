//! One pass forward; backward one pass over rows and one over columns.

use dfdx::prelude::HasShape as _;
use dfdx::shapes::ConstDim;
use rayon::prelude::*;

use super::{EPSILON, ModulatedNorm};
use crate::error::Result;
use crate::kernels::checks::check_modulation;
use crate::kernels::fused::{Fused, KeptRows, Matrix};
use crate::kernels::{Operation, TokenRows, lanes, math, profile, rows, seam, simd};

/// Where the chunks of D columns lie in a modulation.
#[derive(Clone, Copy)]
pub struct Places {
    /// M.
    pub columns: usize,
    /// First column of the shift.
    pub shift: usize,
    /// First column of the scale.
    pub scale: usize,
}

/// A modulation, and which rows use which of its own.
#[derive(Clone, Copy)]
pub struct Modulation<'a> {
    /// Row-major (m, M).
    pub values: &'a [f32],
    /// Where the chunks lie.
    pub places: Places,
    /// Which token rows there are.
    pub rows: TokenRows<'a>,
}

impl<'a> Modulation<'a> {
    /// m.
    pub fn count(&self) -> usize {
        self.values.len() / self.places.columns
    }

    /// The modulation row of row `i`.
    #[inline(always)]
    fn row(&self, i: usize) -> usize {
        if self.values.len() == self.places.columns {
            0
        } else {
            self.rows.place(i).0
        }
    }

    /// Shift and scale of row `i`.
    #[inline(always)]
    fn of(&self, i: usize, width: usize) -> (&'a [f32], &'a [f32]) {
        let Places {
            columns,
            shift,
            scale,
        } = self.places;
        let values = &self.values[self.row(i) * columns..];
        (&values[shift..][..width], &values[scale..][..width])
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
                        let inverse = 1.0 / (variance + EPSILON as f32).sqrt();
                        *statistics = [mean, inverse];
                        let (shift, scale) = modulation.of(task * rows + row, width);
                        lanes::update(
                            [y],
                            [x, weight, scale, shift],
                            #[inline(always)]
                            |_, [x, weight, scale, shift]| {
                                let normal = (x - mean) * inverse;
                                [(normal * weight).mul_add(1.0 + scale, shift)]
                            },
                        );
                    }
                },
            );
        });
}

/// An element of g.
#[inline(always)]
fn scaled(dy: f32, weight: f32, scale: f32) -> f32 {
    dy * (weight * (1.0 + scale))
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
                        let g_mean = lanes::fold(
                            [dy, weight, scale],
                            #[inline(always)]
                            |[dy, weight, scale]| scaled(dy, weight, scale),
                        ) / width as f32;
                        let projection = lanes::fold(
                            [dy, weight, scale, x],
                            #[inline(always)]
                            |[dy, weight, scale, x]| scaled(dy, weight, scale) * ((x - mean) * inverse),
                        ) / width as f32;
                        let from = [dy, weight, scale, x];
                        lanes::update(
                            [dx],
                            from,
                            #[inline(always)]
                            |[dx], [dy, weight, scale, x]| {
                                let normal = (x - mean) * inverse;
                                [dx + inverse * (scaled(dy, weight, scale) - g_mean - normal * projection)]
                            },
                        );
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
    let Places {
        columns: all,
        shift,
        scale,
    } = modulation.places;
    let columns = rows::columns_per_task(width);
    // Shift and scale columns of all modulation rows for each task; they are copied out and in, being few.
    let tasks: Vec<Vec<f32>> = dweight
        .par_chunks_mut(columns)
        .enumerate()
        .map(|(task, dweight)| {
            let (from, count) = (task * columns, dweight.len());
            let mut sums = Vec::with_capacity(modulation.count() * 2 * count);
            for row in dmodulation.chunks_exact(all) {
                sums.extend_from_slice(&row[shift + from..][..count]);
                sums.extend_from_slice(&row[scale + from..][..count]);
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
                            sums[modulation.row(row) * 2 * count..][..2 * count].split_at_mut(count);
                        lanes::update(
                            [&mut *dweight, dscale, dshift],
                            [dy, x, scale, weight],
                            #[inline(always)]
                            |[dweight, dscale, dshift], [dy, x, scale, weight]| {
                                let product = dy * ((x - mean) * inverse);
                                [
                                    product.mul_add(1.0 + scale, dweight),
                                    product.mul_add(weight, dscale),
                                    dshift + dy,
                                ]
                            },
                        );
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
            .chunks_exact_mut(all)
            .zip(sums.chunks_exact(2 * count))
        {
            row[shift + from..][..count].copy_from_slice(&sums[..count]);
            row[scale + from..][..count].copy_from_slice(&sums[count..]);
        }
    }
}

impl ModulatedNorm for Fused {
    fn modulated_norm<D: ConstDim, M: ConstDim>(
        &self,
        x: &Matrix<D>,
        weight: &Self::Param<(D,)>,
        modulation: &Matrix<M>,
        shift: usize,
        scale: usize,
        rows: TokenRows<'_>,
    ) -> Result<Matrix<D>> {
        let _timer = profile::forward(Operation::ModulatedNorm);
        let (count, shared) = (x.shape().0, modulation.shape().0);
        check_modulation(rows, count, D::SIZE, (shared, M::SIZE), &[shift, scale])?;
        let mut y = seam::zeros(count * D::SIZE)?;
        let mut statistics = vec![[0.0; 2]; count];
        let places = Places {
            columns: M::SIZE,
            shift: shift * D::SIZE,
            scale: scale * D::SIZE,
        };
        let view = Modulation {
            values: seam::slice(modulation),
            places,
            rows,
        };
        forward(seam::slice(x), &weight.values(), view, &mut y, &mut statistics);
        let y = self.tensor(*x.shape(), y)?;
        if self.is_recording() {
            let (x, weight, modulation) = (x.clone(), weight.clone(), modulation.clone());
            let rows = KeptRows::of(rows);
            self.push_from(Operation::ModulatedNorm, &y, move |dy, activations, weights| {
                let (values, weight_values) = (seam::slice(&x), &*weight.values());
                let view = Modulation {
                    values: seam::slice(&modulation),
                    places,
                    rows: rows.view(),
                };
                let dmodulation = activations.get_or_alloc_mut(&modulation)?;
                let dweight = weights.of(&weight);
                parameter_gradients(dy, values, weight_values, view, &statistics, dweight, dmodulation);
                let dx = activations.get_or_alloc_mut(&x)?;
                input_gradient(dy, values, weight_values, view, &statistics, dx);
                Ok(())
            });
        }
        Ok(y)
    }
}
