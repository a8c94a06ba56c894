//! Norm and update on the CPU, over flat vectors.
//!
//! Both cut them into the same chunks whatever the number of threads, and partial sums are folded in order, so the bits of
//! the result do not depend on it.

use std::ops::Range;

use rayon::prelude::*;

use super::{Factors, Moments};

/// Elements of a chunk: 64 KB of f32 per array, so that the five arrays of an update share a second-level cache.
const CHUNK: usize = 1 << 14;
/// Partial sums kept side by side, so that the fold of a chunk is not one long chain of additions.
const LANES: usize = 8;

/// Ranges of a flat vector, cut into chunks. A chunk lies within one range.
#[derive(Clone, Debug)]
pub struct Chunks {
    /// Ranges that were cut.
    ranges: usize,
    /// Each chunk with the range that it is of.
    chunks: Vec<(usize, Range<usize>)>,
}

impl Chunks {
    /// Those of ranges in their order.
    #[must_use]
    pub fn of(ranges: &[Range<usize>]) -> Self {
        let chunks = ranges.iter().enumerate().flat_map(|(which, range)| {
            let end = range.end;
            let starts = range.clone().step_by(CHUNK);
            starts.map(move |start| (which, start..(start + CHUNK).min(end)))
        });
        Self {
            ranges: ranges.len(),
            chunks: chunks.collect(),
        }
    }

    /// The chunks, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Range<usize>> {
        self.chunks.iter().map(|(_, chunk)| chunk)
    }

    /// The chunks that lie within a part of the vector which begins and ends where chunks do, as their numbers.
    #[must_use]
    pub fn within(&self, part: &Range<usize>) -> Range<usize> {
        let before = |bound: usize| self.chunks.partition_point(|(_, chunk)| chunk.start < bound);
        before(part.start)..before(part.end)
    }

    /// The sum of squares of each of some chunks of the values, in f64.
    #[must_use]
    pub fn sums_of_squares(&self, which: Range<usize>, values: &[f32]) -> Vec<f64> {
        let chunks = self.chunks[which].par_iter();
        chunks
            .map(|(_, chunk)| chunk_sum_of_squares(&values[chunk.clone()]))
            .collect()
    }

    /// The sum of each range, from those of all chunks.
    #[must_use]
    pub fn fold(&self, sums: &[f64]) -> Vec<f64> {
        let mut of_ranges = vec![0.0; self.ranges];
        for ((which, _), sum) in self.chunks.iter().zip(sums) {
            of_ranges[*which] += sum;
        }
        of_ranges
    }
}

/// The sum of squares of each range of the values, in f64.
#[must_use]
pub fn sums_of_squares(ranges: &[Range<usize>], values: &[f32]) -> Vec<f64> {
    let chunks = Chunks::of(ranges);
    chunks.fold(&chunks.sums_of_squares(0..chunks.chunks.len(), values))
}

fn chunk_sum_of_squares(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for eight in whole {
        for (lane, &value) in lanes.iter_mut().zip(eight) {
            *lane += f64::from(value) * f64::from(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(value) * f64::from(value);
    }
    lanes.iter().sum()
}

/// One update of all weights, their moments and their average, the gradient being multiplied with `scale`; leaves it zero.
/// All are of equal length.
pub fn update(
    factors: Factors,
    scale: f32,
    weights: &mut [f32],
    gradient: &mut [f32],
    moments: &mut Moments,
) {
    let first = moments.first.par_chunks_mut(CHUNK);
    let second = moments.second.par_chunks_mut(CHUNK);
    let ema = moments.ema.par_chunks_mut(CHUNK);
    weights
        .par_chunks_mut(CHUNK)
        .zip(gradient.par_chunks_mut(CHUNK))
        .zip(first.zip(second).zip(ema))
        .for_each(|((weights, gradient), ((first, second), ema))| {
            factors.apply(scale, weights, gradient, first, second, ema);
        });
}

impl Factors {
    /// Updates weights, moments and averages of equal length; the gradient is scaled first, and left zero.
    pub fn apply(
        self,
        scale: f32,
        weights: &mut [f32],
        gradient: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        ema: &mut [f32],
    ) {
        // Equal lengths let the compiler drop the bounds checks and vectorize.
        let n = weights.len();
        let (gradient, first, second, ema) = (
            &mut gradient[..n],
            &mut first[..n],
            &mut second[..n],
            &mut ema[..n],
        );
        for i in 0..n {
            let g = gradient[i] * scale;
            let m = self.beta1 * first[i] + self.one_minus_beta1 * g;
            let v = self.beta2 * second[i] + self.one_minus_beta2 * (g * g);
            let w = weights[i] * self.keep - self.step * m / (v.sqrt() * self.root + self.epsilon);
            first[i] = m;
            second[i] = v;
            weights[i] = w;
            ema[i] += self.one_minus_ema * (w - ema[i]);
            gradient[i] = 0.0;
        }
    }
}
