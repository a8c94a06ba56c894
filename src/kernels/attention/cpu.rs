//! One task per (row of the batch, head); its matrices live in the thread's scratch memory.

use std::rc::Rc;

use dfdx::prelude::HasShape as _;
use dfdx::shapes::ConstDim;
use rayon::prelude::*;

use super::Attention;
use super::heads::Heads;
use crate::error::{Error, Result};
use crate::kernels::checks::check_token_rows;
use crate::kernels::fused::{Fused, KeptRows, Matrix};
use crate::kernels::gemm::{Packed, STRIDE, Start, View, in_place_size, product_packed, product_serial};
use crate::kernels::seam::Tile;
use crate::kernels::{Operation, Pattern, TokenRows, lanes, math, profile, scratch, seam, simd};

/// Query rows whose scores are in the cache together.
const QUERIES: usize = 128;
/// The same where a pattern hides keys of short rows: a block goes as far as its last query sees, so that more blocks pass
/// over more keys. How queries are cut does not show in any bit.
const FEW_QUERIES: usize = 32;
/// Rows of so many keys are not short: some blocks of [`QUERIES`] pass over most that is hidden.
const LONG: usize = 4 * QUERIES;

/// What the operation reads.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// Queries (n, D).
    pub q: &'a [f32],
    /// Keys and values (R, 2D).
    pub kv: &'a [f32],
    /// The token rows of the queries.
    pub rows: TokenRows<'a>,
    /// Which keys they attend to.
    pub pattern: Pattern,
}

impl<'a> Inputs<'a> {
    /// Where the queries of each row of the batch begin (B + 1).
    fn starts(&self, heads: &Heads) -> Vec<usize> {
        let model = heads.count * heads.width;
        let batch = self.kv.len() / (2 * model * heads.length);
        self.rows.starts(batch, self.q.len() / model)
    }

    /// Queries of a block.
    fn block(&self, length: usize) -> usize {
        if self.pattern == Pattern::Full || length >= LONG {
            QUERIES
        } else {
            FEW_QUERIES
        }
    }

    /// How many keys query `i` attends to.
    #[inline(always)]
    fn visible(&self, heads: &Heads, i: usize) -> usize {
        self.pattern.visible(self.rows.place(i).1, heads.length)
    }

    /// The part of row `row` of the batch and head `head`, whose queries begin at `first`.
    #[inline(always)]
    fn part(
        &self,
        heads: &Heads,
        row: usize,
        head: usize,
        first: usize,
    ) -> (&'a [f32], &'a [f32], &'a [f32]) {
        let model = heads.count * heads.width;
        let kv = &self.kv[row * heads.length * 2 * model..][..heads.length * 2 * model];
        (
            &self.q[first * model + head * heads.width..],
            &kv[head * heads.width..],
            &kv[model + head * heads.width..],
        )
    }
}

/// Cuts scratch memory into pieces of the given sizes.
fn cut<const N: usize>(mut memory: &mut [f32], sizes: [usize; N]) -> [&mut [f32]; N] {
    sizes.map(|size| {
        let (piece, rest) = std::mem::take(&mut memory).split_at_mut(size);
        memory = rest;
        piece
    })
}

/// Cuts λ of each (row, head, query) into the parts of (row, head).
fn cut_denominators<'a>(
    mut denominators: &'a mut [f32],
    starts: &[usize],
    heads: usize,
) -> Vec<&'a mut [f32]> {
    let mut parts = Vec::with_capacity((starts.len() - 1) * heads);
    for queries in starts.windows(2) {
        for _ in 0..heads {
            let (part, rest) = std::mem::take(&mut denominators).split_at_mut(queries[1] - queries[0]);
            parts.push(part);
            denominators = rest;
        }
    }
    parts
}

/// y (n, D), and λ of each (row, head, query).
pub fn forward(inputs: Inputs, heads: &Heads, y: &mut [f32], denominators: &mut [f32]) {
    let (length, width) = (heads.length, heads.width);
    let model = heads.count * width;
    let starts = inputs.starts(heads);
    let denominators = cut_denominators(denominators, &starts, heads.count);
    Tile::whole(y, model)
        .cut(&starts, width)
        .into_par_iter()
        .zip(denominators)
        .enumerate()
        .for_each(|(task, (mut y, denominators))| {
            let (row, head) = (task / heads.count, task % heads.count);
            let (first, queries) = (starts[row], y.rows());
            if queries == 0 {
                return;
            }
            let (q_rows, k_rows, v_rows) = inputs.part(heads, row, head, first);
            let block = inputs.block(length).min(queries);
            // What the last query sees is what any does.
            let keys = inputs.visible(heads, first + queries - 1);
            let (query_stride, score_stride) = (heads.query_stride(), heads.score_stride());
            let sizes = [
                memory_of(block, query_stride),
                keys * width,
                Packed::size(width, keys),
                Packed::size(keys, width),
                memory_of(block, score_stride),
            ];
            scratch::with(sizes.iter().sum(), |memory| {
                let [q, k, k_packed, v_packed, scores] = cut(memory, sizes);
                simd::vectorized(
                    #[inline(always)]
                    || heads.rotate(keys, (k_rows, 2 * model), |l| l, 1.0, (k, width)),
                );
                let k_packed = Packed::serial(View::new(k, width).t(), k_packed);
                let v = View::strided(v_rows, keys, width, 2 * model);
                let v_packed = Packed::serial(v, v_packed);
                for from in (0..queries).step_by(block) {
                    let rows = block.min(queries - from);
                    let q_rows = (&q_rows[from * model..], model);
                    let position = |i| inputs.rows.place(first + from + i).1;
                    simd::vectorized(
                        #[inline(always)]
                        || heads.rotate(rows, q_rows, position, heads.scale(), (q, query_stride)),
                    );
                    let q = View::strided(q, rows, width, query_stride);
                    let visible = |i| inputs.visible(heads, first + from + i);
                    let end = visible(rows - 1);
                    let mut tile = Tile::whole(scores, score_stride);
                    let mut tile = tile.part(0, rows, 0, end);
                    product_packed(Start::Zero, q, k_packed.columns_to(end), &mut tile);
                    let denominators = &mut denominators[from..from + rows];
                    simd::vectorized(
                        #[inline(always)]
                        || softmax(scores, score_stride, (end, visible), denominators),
                    );
                    let p = View::strided(scores, rows, end, score_stride);
                    let mut y = y.part(from, rows, 0, width);
                    product_packed(Start::Zero, p, v_packed.rows_to(end), &mut y);
                }
            });
        });
}

/// Floats for `rows` rows `stride` apart, a stride of [`Heads::query_stride`] or [`Heads::score_stride`].
fn memory_of(rows: usize, stride: usize) -> usize {
    if stride == STRIDE {
        in_place_size(rows)
    } else {
        rows * stride
    }
}

/// Each row of `end` scores becomes its softmax over those that are visible in it, 0 beyond; λ = log Σ exp.
#[inline(always)]
pub(super) fn softmax(
    scores: &mut [f32],
    stride: usize,
    (end, visible): (usize, impl Fn(usize) -> usize),
    denominators: &mut [f32],
) {
    for (i, (scores, denominator)) in scores.chunks_mut(stride).zip(denominators).enumerate() {
        let (scores, others) = scores[..end].split_at_mut(visible(i));
        others.fill(0.0);
        let max = math::max(scores);
        let sum = lanes::replace_and_sum(
            scores,
            #[inline(always)]
            |score| math::exp(score - max),
        );
        let inverse = 1.0 / sum;
        for score in scores.iter_mut() {
            *score *= inverse;
        }
        *denominator = max + sum.ln();
    }
}

/// A row of scores becomes its softmax P, and dP becomes dS; as many as are visible, 0 beyond.
#[inline(always)]
fn to_gradient(scores: &mut [f32], ds: &mut [f32], visible: usize, denominator: f32, delta: f32) {
    let (scores, others) = scores.split_at_mut(visible);
    others.fill(0.0);
    let (ds, others) = ds.split_at_mut(visible);
    others.fill(0.0);
    lanes::update(
        [scores, ds],
        [],
        #[inline(always)]
        |[score, dp], []| {
            let p = math::exp(score - denominator);
            [p, p * (dp - delta)]
        },
    );
}

/// dq and dkv += the gradient.
#[expect(clippy::too_many_lines, reason = "one pass over blocks of queries")]
pub fn backward(
    dy: &[f32],
    inputs: Inputs,
    y: &[f32],
    denominators: &[f32],
    heads: &Heads,
    dq: &mut [f32],
    dkv: &mut [f32],
) {
    let (length, width, count) = (heads.length, heads.width, heads.count);
    let model = count * width;
    let starts = inputs.starts(heads);
    // Pieces of dkv come as (row, part, head); a task takes both parts of its (row, head).
    let mut pieces = Tile::whole(dkv, 2 * model).grid(length, width).into_iter();
    let mut tasks = Vec::with_capacity(pieces.len() / 2);
    while pieces.len() > 0 {
        let [k, v] = std::array::from_fn(|_| pieces.by_ref().take(count).collect::<Vec<_>>());
        tasks.extend(k.into_iter().zip(v));
    }
    tasks
        .into_par_iter()
        .zip(Tile::whole(dq, model).cut(&starts, width))
        .enumerate()
        .for_each(|(task, ((mut dk, mut dv), mut dq))| {
            let (row, head) = (task / count, task % count);
            let (first, queries) = (starts[row], dq.rows());
            if queries == 0 {
                return;
            }
            let (q_rows, k_rows, v_rows) = inputs.part(heads, row, head, first);
            let dy = &dy[first * model + head * width..];
            let y = &y[first * model + head * width..];
            let denominators = &denominators[first * count + head * queries..][..queries];
            let block = inputs.block(length).min(queries);
            // What the last query sees is what any does; keys beyond have no gradient.
            let keys = inputs.visible(heads, first + queries - 1);
            let (query_stride, score_stride) = (heads.query_stride(), heads.score_stride());
            let (across, along) = (Packed::size(width, keys), Packed::size(keys, width));
            let sizes = [
                memory_of(block, query_stride),
                keys * width,
                queries * width,
                keys * width,
                across,
                along,
                across,
                memory_of(block, score_stride),
                memory_of(block, score_stride),
            ];
            let position = |i| inputs.rows.place(first + i).1;
            scratch::with(sizes.iter().sum(), |memory| {
                let [q, k, dq_turned, dk_turned, k_across, k_along, v_across, p, ds] = cut(memory, sizes);
                simd::vectorized(
                    #[inline(always)]
                    || heads.rotate(keys, (k_rows, 2 * model), |l| l, 1.0, (k, width)),
                );
                let k_across = Packed::serial(View::new(k, width).t(), k_across);
                let k_along = Packed::serial(View::new(k, width), k_along);
                let v = View::strided(v_rows, keys, width, 2 * model);
                let v_across = Packed::serial(v.t(), v_across);
                let dy_view = View::strided(dy, queries, width, model);
                // Up to here keys were reached by the queries so far.
                let mut reached = 0;
                for from in (0..queries).step_by(block) {
                    let to = queries.min(from + block);
                    let rows = to - from;
                    let q_rows = (&q_rows[from * model..], model);
                    let place = |i| position(from + i);
                    simd::vectorized(
                        #[inline(always)]
                        || heads.rotate(rows, q_rows, place, heads.scale(), (q, query_stride)),
                    );
                    let q = View::strided(q, rows, width, query_stride);
                    let dy_rows = dy_view.rows(from, to);
                    let visible = |i| inputs.visible(heads, first + i);
                    let end = visible(to - 1);
                    let mut scores = Tile::whole(p, score_stride);
                    let mut scores = scores.part(0, rows, 0, end);
                    product_packed(Start::Zero, q, k_across.columns_to(end), &mut scores);
                    let mut dp = Tile::whole(ds, score_stride);
                    let mut dp = dp.part(0, rows, 0, end);
                    product_packed(Start::Zero, dy_rows, v_across.columns_to(end), &mut dp);
                    simd::vectorized(
                        #[inline(always)]
                        || {
                            let scores = p.chunks_mut(score_stride).zip(ds.chunks_mut(score_stride));
                            for (row, (p, ds)) in (from..to).zip(scores) {
                                let at = row * model..row * model + width;
                                let delta = math::dot(&dy[at.clone()], &y[at]);
                                let (p, ds) = (&mut p[..end], &mut ds[..end]);
                                to_gradient(p, ds, visible(row), denominators[row], delta);
                            }
                        },
                    );
                    let p = View::strided(p, rows, end, score_stride);
                    let ds = View::strided(ds, rows, end, score_stride);
                    product_serial(Start::Accumulate, p.t(), dy_rows, &mut dv.part(0, end, 0, width));
                    dk_turned[reached * width..end * width].fill(0.0);
                    reached = end;
                    let mut turned = Tile::whole(&mut dk_turned[..end * width], width);
                    product_serial(Start::Accumulate, ds.t(), q, &mut turned);
                    let mut dq = Tile::whole(dq_turned, width);
                    let mut dq = dq.part(from, rows, 0, width);
                    product_packed(Start::Zero, ds, k_along.rows_to(end), &mut dq);
                }
                simd::vectorized(
                    #[inline(always)]
                    || {
                        heads.add_rotated_back(dq_turned, position, heads.scale(), &mut dq);
                        heads.add_rotated_back(dk_turned, |l| l, 1.0, &mut dk);
                    },
                );
            });
        });
}

impl Fused {
    /// The heads of that shape; a network has one.
    pub(super) fn heads(&self, length: usize, count: usize, width: usize) -> Rc<Heads> {
        let mut known = self.heads.borrow_mut();
        let found = known
            .iter()
            .find(|heads| (heads.length, heads.count, heads.width) == (length, count, width));
        if let Some(heads) = found {
            return Rc::clone(heads);
        }
        let heads = Rc::new(Heads::new(length, count, width));
        known.push(Rc::clone(&heads));
        heads
    }
}

impl Attention for Fused {
    fn attention<D: ConstDim, D2: ConstDim>(
        &self,
        q: &Matrix<D>,
        kv: &Matrix<D2>,
        heads: usize,
        rows: TokenRows<'_>,
        pattern: Pattern,
    ) -> Result<Matrix<D>> {
        let _timer = profile::forward(Operation::Attention);
        let (queries, keys, length) = (q.shape().0, kv.shape().0, rows.length);
        if heads == 0
            || !D::SIZE.is_multiple_of(2 * heads)
            || D2::SIZE != 2 * D::SIZE
            || length == 0
            || !keys.is_multiple_of(length)
        {
            return Err(Error::internal(format!(
                "attention over rows of {length} with {heads} heads on {keys}x{} to width {}",
                D2::SIZE,
                D::SIZE
            )));
        }
        check_token_rows(rows, queries, keys / length)?;
        pattern.check()?;
        let heads = self.heads(length, heads, D::SIZE / heads);
        let mut y = seam::zeros(queries * D::SIZE)?;
        let mut denominators = seam::zeros(queries * heads.count)?;
        let inputs = Inputs {
            q: seam::slice(q),
            kv: seam::slice(kv),
            rows,
            pattern,
        };
        forward(inputs, &heads, &mut y, &mut denominators);
        let y = self.tensor(*q.shape(), y)?;
        if self.is_recording() {
            let (q, kv, y_again, rows) = (q.clone(), kv.clone(), y.clone(), KeptRows::of(rows));
            self.push_from(Operation::Attention, &y, move |dy, activations, _| {
                // Taken out and put back, to have both gradients at once.
                let mut dq = std::mem::take(&mut **activations.get_or_alloc_mut(&q)?);
                let dkv = activations.get_or_alloc_mut(&kv)?;
                let inputs = Inputs {
                    q: seam::slice(&q),
                    kv: seam::slice(&kv),
                    rows: rows.view(),
                    pattern,
                };
                let y = seam::slice(&y_again);
                backward(dy, inputs, y, &denominators, &heads, &mut dq, dkv);
                **activations.get_or_alloc_mut(&q)? = dq;
                Ok(())
            });
        }
        Ok(y)
    }
}
