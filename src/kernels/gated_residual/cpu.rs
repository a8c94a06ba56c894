//! One pass each way, Philox included.

use dfdx::prelude::HasShape as _;
use dfdx::shapes::ConstDim;
use rayon::prelude::*;

use super::GatedResidual;
use crate::error::Result;
use crate::kernels::checks::{check_branch, check_modulation};
use crate::kernels::fused::{Fused, KeptRows, Matrix, add};
use crate::kernels::{Dropout, Operation, TokenRows, lanes, profile, rows, scratch, seam, simd};
use crate::rng::{Random, philox};

/// The dropout of one site.
#[derive(Clone, Copy)]
pub struct Mask {
    random: Random,
    step: u64,
    first_row: u64,
    site: u32,
    threshold: u32,
    kept: f32,
}

/// Philox blocks computed together: one AVX-512 register of counters.
const BLOCKS: usize = 16;

impl Mask {
    /// The dropout of a site.
    pub fn new(dropout: &Dropout, site: u32) -> Self {
        Self {
            random: dropout.random,
            step: dropout.step,
            first_row: dropout.first_row,
            site,
            threshold: dropout.threshold(),
            kept: 1.0 / (1.0 - dropout.rate),
        }
    }

    /// The factors, 0 or 1 / (1 − rate), of the elements from `element` on in row `row` of the micro-batch.
    #[inline(always)]
    pub fn factors(&self, row: usize, element: usize, factors: &mut [f32]) {
        let mut words = [[0_u32; 4]; BLOCKS];
        let mut done = 0;
        while done < factors.len() {
            let from = element + done;
            let first_block = (from / 4) as u32;
            let counter = Random::counter(
                self.step,
                self.first_row + row as u64,
                self.site << 24 | first_block,
            );
            for (block, words) in words.iter_mut().enumerate() {
                let mut counter = counter;
                counter[0] = counter[0].wrapping_add(block as u32);
                *words = philox(counter, self.random.key());
            }
            let words = &words.as_flattened()[from % 4..];
            for (factor, &word) in factors[done..].iter_mut().zip(words) {
                *factor = if word >= self.threshold { self.kept } else { 0.0 };
            }
            done += words.len();
        }
    }
}

/// The gate's place in the modulation, and the dropout.
#[derive(Clone, Copy)]
pub struct Gate<'a> {
    /// Row-major (m, M).
    pub modulation: &'a [f32],
    /// M, and the first column of the gate.
    pub place: (usize, usize),
    /// D.
    pub width: usize,
    /// Which token rows there are.
    pub rows: TokenRows<'a>,
    /// Dropout in training.
    pub mask: Option<Mask>,
}

impl Gate<'_> {
    /// m.
    fn count(&self) -> usize {
        self.modulation.len() / self.place.0
    }

    /// The gates of row `i`.
    #[inline(always)]
    fn gates(&self, i: usize) -> &[f32] {
        let (columns, first) = self.place;
        let row = if self.modulation.len() == columns {
            0
        } else {
            self.rows.place(i).0
        };
        &self.modulation[row * columns + first..][..self.width]
    }

    /// The factors of some columns of row `i`.
    #[inline(always)]
    fn factors(&self, i: usize, column: usize, factors: &mut [f32]) {
        match self.mask {
            Some(mask) => {
                let (row, position) = self.rows.place(i);
                mask.factors(row, position * self.width + column, factors);
            }
            None => factors.fill(1.0),
        }
    }
}

/// y = x + gate · f · branch.
pub fn forward(x: &[f32], branch: &[f32], gate: Gate, y: &mut [f32]) {
    let width = gate.width;
    let rows = rows::per_task(width);
    y.par_chunks_mut(rows * width).enumerate().for_each(|(task, y)| {
        scratch::with(width, |factors| {
            simd::vectorized(
                #[inline(always)]
                || {
                    for (row, y) in y.chunks_exact_mut(width).enumerate() {
                        let row = task * rows + row;
                        gate.factors(row, 0, factors);
                        let x = &x[row * width..][..width];
                        let branch = &branch[row * width..][..width];
                        let gates = gate.gates(row);
                        let from = [x, branch, gates, factors];
                        lanes::update(
                            [y],
                            from,
                            #[inline(always)]
                            |_, [x, branch, gate, factor]| [(gate * factor).mul_add(branch, x)],
                        );
                    }
                },
            );
        });
    });
}

/// dbranch += dy · f · gate, dgate += Σ dy · f · branch; dx is dy itself and left to the caller.
pub fn backward(dy: &[f32], branch: &[f32], gate: Gate, dbranch: &mut [f32], dmodulation: &mut [f32]) {
    let width = gate.width;
    let rows = dy.len() / width;
    let starts = match gate.count() {
        1 => vec![0, rows],
        batch => gate.rows.starts(batch, rows),
    };
    let (columns, first) = gate.place;
    let spans = rows::spans(&starts, width);
    let pieces = rows::pieces(dbranch, &starts, width);
    let sums: Vec<Vec<f32>> = spans
        .par_iter()
        .zip(pieces)
        .map(|(span, mut dbranch)| {
            let start = span.modulation_row * columns + first + span.first_column;
            let gates = &gate.modulation[start..][..span.columns];
            let mut sums = dmodulation[start..][..span.columns].to_vec();
            scratch::with(span.columns, |factors| {
                simd::vectorized(
                    #[inline(always)]
                    || {
                        for row in 0..span.rows {
                            let dbranch = dbranch.row(row);
                            let row = span.first_row + row;
                            gate.factors(row, span.first_column, factors);
                            let from = row * width + span.first_column;
                            let (dy, branch) = (&dy[from..][..sums.len()], &branch[from..][..sums.len()]);
                            lanes::update(
                                [dbranch, &mut sums],
                                [dy, branch, factors, gates],
                                #[inline(always)]
                                |[dbranch, sum], [dy, branch, factor, gate]| {
                                    let passed = dy * factor;
                                    [passed.mul_add(gate, dbranch), passed.mul_add(branch, sum)]
                                },
                            );
                        }
                    },
                );
            });
            sums
        })
        .collect();
    for (span, sums) in spans.iter().zip(sums) {
        let start = span.modulation_row * columns + first + span.first_column;
        dmodulation[start..][..span.columns].copy_from_slice(&sums);
    }
}

impl GatedResidual for Fused {
    fn gated_residual<D: ConstDim, M: ConstDim>(
        &self,
        x: &Matrix<D>,
        branch: &Matrix<D>,
        modulation: &Matrix<M>,
        gate: usize,
        dropout: Option<(Dropout, u32)>,
        rows: TokenRows<'_>,
    ) -> Result<Matrix<D>> {
        let _timer = profile::forward(Operation::GatedResidual);
        let (count, shared) = (x.shape().0, modulation.shape().0);
        check_modulation(rows, count, D::SIZE, (shared, M::SIZE), &[gate])?;
        check_branch(branch.shape().0, count)?;
        let mask = dropout.map(|(dropout, site)| Mask::new(&dropout, site));
        let width = D::SIZE;
        let place = (M::SIZE, gate * width);
        let gate = Gate {
            modulation: seam::slice(modulation),
            place,
            width,
            rows,
            mask,
        };
        let mut y = seam::zeros(count * D::SIZE)?;
        forward(seam::slice(x), seam::slice(branch), gate, &mut y);
        let y = self.tensor(*x.shape(), y)?;
        if self.is_recording() {
            let (x, branch, modulation) = (x.ghost(), branch.clone(), modulation.clone());
            let rows = KeptRows::of(rows);
            self.push_from(Operation::GatedResidual, &y, move |dy, activations, _| {
                let gate = Gate {
                    modulation: seam::slice(&modulation),
                    place,
                    width,
                    rows: rows.view(),
                    mask,
                };
                // Taken out and put back, to have both gradients at once.
                let mut dmodulation = std::mem::take(&mut **activations.get_or_alloc_mut(&modulation)?);
                let dbranch = activations.get_or_alloc_mut(&branch)?;
                backward(dy, seam::slice(&branch), gate, dbranch, &mut dmodulation);
                **activations.get_or_alloc_mut(&modulation)? = dmodulation;
                add(activations.get_or_alloc_mut(&x)?, dy);
                Ok(())
            });
        }
        Ok(y)
    }
}
