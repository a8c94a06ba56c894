//! Logits in chunks of rows (training) or of tokens (evaluation), never all.

use rayon::prelude::*;

use crate::kernels::gemm::{Packed, Precision, Start, View, product, product_in, product_packed};
use crate::kernels::seam::Tile;
use crate::kernels::{Alphabet, lanes, math, rows, scratch, simd};

/// Floats of a chunk of logits in training: 16 MiB.
const CHUNK: usize = 1 << 22;
/// Rows of a chunk at least: below, reading w for each chunk costs more than the arithmetic.
const ROWS_MIN: usize = 64;
/// Tokens whose logits are computed together in evaluation.
const TOKENS: usize = 1024;
/// Rows per task in evaluation: eight register tiles.
const ROWS: usize = 96;

/// A softmax's running state over tiles of tokens.
#[derive(Clone, Copy)]
struct Online {
    max: f32,
    sum: f32,
    target: f32,
}

/// nll of each row; h is (n, D), w (V, D), b (V).
pub fn forward(h: &[f32], w: &[f32], b: &[f32], alphabet: Alphabet, targets: &[u32], nll: &mut [f32]) {
    let width = w.len() / b.len();
    let size = alphabet.size as usize;
    let mut states = vec![
        Online {
            max: f32::NEG_INFINITY,
            sum: 0.0,
            target: 0.0,
        };
        targets.len()
    ];
    let (h, w) = (View::new(h, width), View::new(w, width));
    for from in (0..size).step_by(TOKENS) {
        let tokens = TOKENS.min(size - from);
        let bias = &b[from..from + tokens];
        scratch::with(Packed::size(width, tokens), |memory| {
            let packed = Packed::parallel(w.rows(from, from + tokens).t(), memory);
            states
                .par_chunks_mut(ROWS)
                .enumerate()
                .for_each(|(task, states)| {
                    let (first, rows) = (task * ROWS, states.len());
                    scratch::with(rows * tokens, |logits| {
                        let mut tile = Tile::whole(logits, tokens);
                        product_packed(Start::Row(bias), h.rows(first, first + rows), packed, &mut tile);
                        simd::vectorized(
                            #[inline(always)]
                            || {
                                for (i, (logits, state)) in
                                    logits.chunks_exact_mut(tokens).zip(states.iter_mut()).enumerate()
                                {
                                    add_tokens(
                                        logits,
                                        from,
                                        alphabet.mask as usize,
                                        targets[first + i] as usize,
                                        state,
                                    );
                                }
                            },
                        );
                    });
                });
        });
    }
    for (nll, state) in nll.iter_mut().zip(states.iter_mut()) {
        *nll = state.max + state.sum.ln() - state.target;
    }
}

/// Takes the logits of tokens `from..` into a row's state.
#[inline(always)]
fn add_tokens(logits: &mut [f32], from: usize, mask: usize, target: usize, state: &mut Online) {
    if let Some(logit) = target.checked_sub(from).and_then(|i| logits.get(i)) {
        state.target = *logit;
    }
    if let Some(logit) = mask.checked_sub(from).and_then(|i| logits.get_mut(i)) {
        *logit = f32::NEG_INFINITY;
    }
    let here = math::max(logits);
    // A NaN fails the comparison and is taken over.
    let max = if here <= state.max { state.max } else { here };
    if max == f32::NEG_INFINITY {
        return; // nothing but the mask so far
    }
    let sum = lanes::fold(
        [logits],
        #[inline(always)]
        |[logit]| math::exp(logit - max),
    );
    state.sum = state.sum.mul_add(math::exp(state.max - max), sum);
    state.max = max;
}

/// nll of each row as [`forward`], and the gradients: dh is overwritten, dw and db are added to.
#[expect(clippy::too_many_arguments, reason = "one fused pass")]
pub fn forward_backward(
    precision: Precision,
    h: &[f32],
    w: &[f32],
    b: &[f32],
    alphabet: Alphabet,
    targets: &[u32],
    weights: &[f32],
    nll: &mut [f32],
    dh: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
) {
    let width = w.len() / b.len();
    let size = alphabet.size as usize;
    let chunk = (CHUNK / size).max(ROWS_MIN);
    let w = View::new(&w[..size * width], width);
    let b = &b[..size];
    let (dw, db) = (&mut dw[..size * width], &mut db[..size]);
    for first in (0..targets.len()).step_by(chunk) {
        let rows = chunk.min(targets.len() - first);
        let h = View::new(&h[first * width..][..rows * width], width);
        scratch::with(rows * size, |logits| {
            product_in(precision, Start::Row(b), h, w.t(), logits);
            let per = rows::per_task(size);
            logits
                .par_chunks_mut(per * size)
                .zip(nll[first..][..rows].par_chunks_mut(per))
                .enumerate()
                .for_each(|(task, (logits, nll))| {
                    simd::vectorized(
                        #[inline(always)]
                        || {
                            for (i, (logits, nll)) in
                                logits.chunks_exact_mut(size).zip(nll.iter_mut()).enumerate()
                            {
                                let row = first + task * per + i;
                                let (mask, target) = (alphabet.mask as usize, targets[row] as usize);
                                *nll = to_gradient(logits, mask, target, weights[row]);
                            }
                        },
                    );
                });
            product_in(
                precision,
                Start::Zero,
                View::new(logits, size),
                w,
                &mut dh[first * width..][..rows * width],
            );
            product(Start::Accumulate, View::new(logits, size).t(), h, dw);
            rows::add_column_sums(logits, db);
        });
    }
}

/// A row of logits becomes its gradient weight · (softmax − [target]); returns the nll.
#[inline(always)]
fn to_gradient(logits: &mut [f32], mask: usize, target: usize, weight: f32) -> f32 {
    if let Some(logit) = logits.get_mut(mask) {
        *logit = f32::NEG_INFINITY;
    }
    let logit = logits[target];
    let max = math::max(logits);
    let sum = lanes::replace_and_sum(
        logits,
        #[inline(always)]
        |logit| math::exp(logit - max),
    );
    let factor = weight / sum;
    for z in logits.iter_mut() {
        *z *= factor;
    }
    logits[target] -= weight;
    max + sum.ln() - logit
}
