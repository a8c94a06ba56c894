//! Logits in chunks of rows (training) or of tokens (evaluation), never all.

use dfdx::prelude::HasShape as _;
use dfdx::shapes::ConstDim;
use rayon::prelude::*;

use super::Readout;
use super::loss::{Constants, Loss, Numbers, ReadoutRequest};
use crate::error::Result;
use crate::kernels::fused::{Fused, Matrix, add};
use crate::kernels::gemm::{Packed, Start, View, product, product_in, product_packed};
use crate::kernels::seam::Tile;
use crate::kernels::{Operation, VocabSupport, lanes, math, profile, rows, scratch, seam, simd};
use crate::precision::Precision;

/// Floats of a chunk of logits in training: 16 MiB.
const CHUNK: usize = 1 << 22;
/// Rows of a chunk at least: below, reading w for each chunk costs more than the arithmetic.
const ROWS_MIN: usize = 64;
/// Tokens whose logits are computed together in evaluation.
const TOKENS: usize = 1024;
/// Rows per task in evaluation: eight register tiles.
const ROWS: usize = 96;

/// A position, as a row of logits sees it.
#[derive(Clone, Copy)]
struct Position {
    support: VocabSupport,
    target: usize,
    loss: Loss,
    constants: Constants,
}

impl Position {
    #[inline(always)]
    fn of(readout: &ReadoutRequest, i: usize) -> Self {
        Self {
            support: readout.support,
            target: readout.targets[i] as usize,
            loss: readout.loss,
            constants: readout.constants_of(i),
        }
    }

    /// The mask, where the support has it.
    #[inline(always)]
    fn mask(&self) -> Option<usize> {
        self.support.includes_mask.then_some(self.support.mask as usize)
    }

    /// Takes the token that is not in the support out of the logits of tokens `from..`.
    #[inline(always)]
    fn exclude(&self, logits: &mut [f32], from: usize) {
        if let Some(i) = (self.support.excluded() as usize).checked_sub(from)
            && let Some(logit) = logits.get_mut(i)
        {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// What losses of a kind need to keep of a row of logits. There is one: a loss that three numbers do not suffice for brings
/// its own.
trait Accumulator: Copy + Send {
    /// Before the first token.
    const EMPTY: Self;

    /// Takes in the logits of tokens `from..`, which may be changed.
    fn add(&mut self, logits: &mut [f32], from: usize, position: Position);

    /// The loss, when all tokens were taken in.
    fn loss(self, position: Position) -> f32;

    /// A whole row of logits becomes the gradient of `weight` · loss; returns the loss.
    fn replace(logits: &mut [f32], position: Position, weight: f32) -> f32;
}

/// The three numbers that [`Loss`]es are functions of: log Σ exp as a running maximum and sum, the target's logit, the mask's.
#[derive(Clone, Copy)]
struct Three {
    max: f32,
    sum: f32,
    target: f32,
    mask: f32,
}

impl Three {
    #[inline(always)]
    fn numbers(self) -> Numbers {
        Numbers {
            log_sum_exp: self.max + self.sum.ln(),
            target: self.target,
            mask: self.mask,
        }
    }
}

impl Accumulator for Three {
    const EMPTY: Self = Self {
        max: f32::NEG_INFINITY,
        sum: 0.0,
        target: 0.0,
        mask: f32::NEG_INFINITY,
    };

    #[inline(always)]
    fn add(&mut self, logits: &mut [f32], from: usize, position: Position) {
        let at = |logits: &[f32], token: usize| Some(*logits.get(token.checked_sub(from)?)?);
        if let Some(logit) = at(logits, position.target) {
            self.target = logit;
        }
        if let Some(logit) = position.mask().and_then(|mask| at(logits, mask)) {
            self.mask = logit;
        }
        position.exclude(logits, from);
        let here = math::max(logits);
        // A NaN fails the comparison and is taken over.
        let max = if here <= self.max { self.max } else { here };
        if max == f32::NEG_INFINITY {
            return; // nothing but the mask so far
        }
        let sum = lanes::fold(
            [logits],
            #[inline(always)]
            |[logit]| math::exp(logit - max),
        );
        self.sum = self.sum.mul_add(math::exp(self.max - max), sum);
        self.max = max;
    }

    fn loss(self, position: Position) -> f32 {
        position.loss.value(self.numbers(), position.constants)
    }

    #[inline(always)]
    fn replace(logits: &mut [f32], position: Position, weight: f32) -> f32 {
        position.exclude(logits, 0);
        let (target, mask) = (logits[position.target], position.mask());
        let max = math::max(logits);
        let own = Self {
            max,
            target,
            mask: mask.map_or(f32::NEG_INFINITY, |mask| logits[mask]),
            sum: lanes::replace_and_sum(
                logits,
                #[inline(always)]
                |logit| math::exp(logit - max),
            ),
        };
        let numbers = own.numbers();
        let slopes = position.loss.slopes(numbers, position.constants);
        let factor = weight * slopes.softmax / own.sum;
        for z in logits.iter_mut() {
            *z *= factor;
        }
        logits[position.target] += weight * slopes.target;
        if let Some(mask) = mask {
            logits[mask] += weight * slopes.mask;
        }
        position.loss.value(numbers, position.constants)
    }
}

/// The loss of each row; h is (n, D), w (V, D), b (V).
pub fn forward(h: &[f32], w: &[f32], b: &[f32], readout: &ReadoutRequest, losses: &mut [f32]) {
    match readout.loss {
        Loss::CrossEntropy | Loss::AbsorbingKl | Loss::ScoreEntropy => {
            forward_by::<Three>(h, w, b, readout, losses);
        }
    }
}

fn forward_by<A: Accumulator>(h: &[f32], w: &[f32], b: &[f32], readout: &ReadoutRequest, losses: &mut [f32]) {
    let width = w.len() / b.len();
    let size = readout.support.size as usize;
    let mut states = vec![A::EMPTY; losses.len()];
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
                                    state.add(logits, from, Position::of(readout, first + i));
                                }
                            },
                        );
                    });
                });
        });
    }
    for (i, (loss, state)) in losses.iter_mut().zip(states).enumerate() {
        *loss = state.loss(Position::of(readout, i));
    }
}

/// The loss of each row as [`forward`], and the gradients of Σ weights · loss: dh is overwritten, dw and db are added to.
#[expect(clippy::too_many_arguments, reason = "one fused pass")]
pub fn forward_backward(
    precision: Precision,
    h: &[f32],
    w: &[f32],
    b: &[f32],
    readout: &ReadoutRequest,
    losses: &mut [f32],
    dh: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
) {
    match readout.loss {
        Loss::CrossEntropy | Loss::AbsorbingKl | Loss::ScoreEntropy => {
            forward_backward_by::<Three>(precision, h, w, b, readout, losses, dh, dw, db);
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "one fused pass")]
fn forward_backward_by<A: Accumulator>(
    precision: Precision,
    h: &[f32],
    w: &[f32],
    b: &[f32],
    readout: &ReadoutRequest,
    losses: &mut [f32],
    dh: &mut [f32],
    dw: &mut [f32],
    db: &mut [f32],
) {
    let width = w.len() / b.len();
    let size = readout.support.size as usize;
    let chunk = (CHUNK / size).max(ROWS_MIN);
    let w = View::new(&w[..size * width], width);
    let b = &b[..size];
    let (dw, db) = (&mut dw[..size * width], &mut db[..size]);
    for first in (0..losses.len()).step_by(chunk) {
        let rows = chunk.min(losses.len() - first);
        let h = View::new(&h[first * width..][..rows * width], width);
        scratch::with(rows * size, |logits| {
            product_in(precision, Start::Row(b), h, w.t(), logits);
            let per = rows::per_task(size);
            logits
                .par_chunks_mut(per * size)
                .zip(losses[first..][..rows].par_chunks_mut(per))
                .enumerate()
                .for_each(|(task, (logits, losses))| {
                    simd::vectorized(
                        #[inline(always)]
                        || {
                            for (i, (logits, loss)) in
                                logits.chunks_exact_mut(size).zip(losses.iter_mut()).enumerate()
                            {
                                let row = first + task * per + i;
                                *loss = A::replace(logits, Position::of(readout, row), readout.weights[row]);
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

impl Readout for Fused {
    fn readout<V: ConstDim, D: ConstDim>(
        &self,
        h: &Matrix<D>,
        w: &Self::Param<(V, D)>,
        b: &Self::Param<(V,)>,
        request: &ReadoutRequest<'_>,
    ) -> Result<(Self::Act<()>, Self::Act<(usize,)>)> {
        let _timer = profile::forward(Operation::Readout);
        let count = h.shape().0;
        request.check(count, V::SIZE)?;
        let mut losses = seam::zeros(count)?;
        let (values, w_values, b_values) = (seam::slice(h), &*w.values(), &*b.values());
        let recorded = self.recorded();
        let mut dh = Vec::new();
        if let Some(gradients) = &recorded {
            let mut gradients = gradients.borrow_mut();
            dh = seam::zeros(values.len())?;
            let [dw, db] = gradients.of_both(w, b)?;
            forward_backward(
                self.precision,
                values,
                w_values,
                b_values,
                request,
                &mut losses,
                &mut dh,
                dw,
                db,
            );
        } else {
            forward(values, w_values, b_values, request, &mut losses);
        }
        // Summed in f64: the loss of a large batch keeps its last digits.
        let total: f64 = losses
            .iter()
            .zip(request.weights)
            .map(|(&loss, &weight)| f64::from(loss) * f64::from(weight))
            .sum();
        let loss = self.tensor((), vec![total as f32])?;
        if recorded.is_some() {
            let h = h.ghost();
            self.push_from(Operation::Readout, &loss, move |dloss, activations, _| {
                debug_assert_eq!(dloss, [1.0], "the loss is the end of the tape");
                add(activations.get_or_alloc_mut(&h)?, &dh);
                Ok(())
            });
        }
        Ok((loss, self.tensor((count,), losses)?))
    }
}
