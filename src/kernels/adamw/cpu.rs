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

/// The sum of squares of each range of the values, in f64. A chunk lies within one range.
#[must_use]
pub fn sums_of_squares(ranges: &[Range<usize>], values: &[f32]) -> Vec<f64> {
    let chunks: Vec<(usize, Range<usize>)> = ranges
        .iter()
        .enumerate()
        .flat_map(|(which, range)| {
            let end = range.end;
            let starts = range.clone().step_by(CHUNK);
            starts.map(move |start| (which, start..(start + CHUNK).min(end)))
        })
        .collect();
    let parts: Vec<f64> = chunks
        .par_iter()
        .map(|(_, range)| chunk_sum_of_squares(&values[range.clone()]))
        .collect();
    let mut sums = vec![0.0; ranges.len()];
    for ((which, _), part) in chunks.iter().zip(parts) {
        sums[*which] += part;
    }
    sums
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
