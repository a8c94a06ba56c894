//! One task per (row, head); its matrices live in the thread's scratch memory.

use rayon::prelude::*;

use crate::kernels::gemm::{Packed, Start, View, product_packed, product_serial};
use crate::kernels::seam::Tile;
use crate::kernels::{math, scratch, simd};

/// Base of the rotary angles (Su et al., arXiv 2104.09864).
const ROTARY_BASE: f64 = 10_000.0;

/// Query rows whose scores are in the cache together.
const QUERIES: usize = 128;

/// L, H and W with the rotary's cosines and sines (L, W/2).
#[derive(Debug)]
pub struct Heads {
    /// L.
    pub length: usize,
    /// H.
    pub count: usize,
    /// W.
    pub width: usize,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl Heads {
    /// The heads of an attention; the angles are computed in f64.
    pub fn new(length: usize, count: usize, width: usize) -> Self {
        let half = width / 2;
        let angle = |i: usize| (i / half) as f64 * ROTARY_BASE.powf(-2.0 * (i % half) as f64 / width as f64);
        Self {
            length,
            count,
            width,
            cosines: (0..length * half).map(|i| angle(i).cos() as f32).collect(),
            sines: (0..length * half).map(|i| angle(i).sin() as f32).collect(),
        }
    }

    fn scale(&self) -> f32 {
        (1.0 / (self.width as f64).sqrt()) as f32
    }

    /// out (L, W) = factor · rot(x), x being W columns of rows `stride` apart.
    #[inline(always)]
    fn rotate(&self, x: &[f32], stride: usize, factor: f32, out: &mut [f32]) {
        let half = self.width / 2;
        for (l, out) in out.chunks_exact_mut(self.width).enumerate() {
            let (first, second) = x[l * stride..][..self.width].split_at(half);
            let (cosine, sine) = (&self.cosines[l * half..][..half], &self.sines[l * half..][..half]);
            let (out_first, out_second) = out.split_at_mut(half);
            for j in 0..half {
                out_first[j] = (first[j] * cosine[j] - second[j] * sine[j]) * factor;
                out_second[j] = (second[j] * cosine[j] + first[j] * sine[j]) * factor;
            }
        }
    }

    /// into += factor · rotᵀ(d).
    #[inline(always)]
    fn add_rotated_back(&self, d: &[f32], factor: f32, into: &mut Tile) {
        let half = self.width / 2;
        for (l, d) in d.chunks_exact(self.width).enumerate() {
            let (first, second) = d.split_at(half);
            let (cosine, sine) = (&self.cosines[l * half..][..half], &self.sines[l * half..][..half]);
            let (into_first, into_second) = into.row(l).split_at_mut(half);
            for j in 0..half {
                into_first[j] += (first[j] * cosine[j] + second[j] * sine[j]) * factor;
                into_second[j] += (second[j] * cosine[j] - first[j] * sine[j]) * factor;
            }
        }
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

/// y, and λ of each (row, head, query): (B, H, L).
pub fn forward(qkv: &[f32], heads: &Heads, y: &mut [f32], denominators: &mut [f32]) {
    let (length, width) = (heads.length, heads.width);
    let model = heads.count * width;
    Tile::whole(y, model)
        .grid(length, width)
        .into_par_iter()
        .zip(denominators.par_chunks_mut(length))
        .enumerate()
        .for_each(|(task, (mut y, denominators))| {
            let (row, head) = (task / heads.count, task % heads.count);
            let qkv = &qkv[row * length * 3 * model..][..length * 3 * model];
            let block = QUERIES.min(length);
            let matrix = length * width;
            let sizes = [
                matrix,
                matrix,
                Packed::size(width, length),
                Packed::size(length, width),
                block * length,
            ];
            scratch::with(sizes.iter().sum(), |memory| {
                let [q, k, k_packed, v_packed, scores] = cut(memory, sizes);
                simd::vectorized(
                    #[inline(always)]
                    || {
                        heads.rotate(&qkv[head * width..], 3 * model, heads.scale(), q);
                        heads.rotate(&qkv[model + head * width..], 3 * model, 1.0, k);
                    },
                );
                let k_packed = Packed::serial(View::new(k, width).t(), k_packed);
                let v = View::strided(&qkv[2 * model + head * width..], length, width, 3 * model);
                let v_packed = Packed::serial(v, v_packed);
                for from in (0..length).step_by(block) {
                    let to = length.min(from + block);
                    let scores = &mut scores[..(to - from) * length];
                    let q = View::new(q, width).rows(from, to);
                    product_packed(Start::Zero, q, k_packed, &mut Tile::whole(scores, length));
                    let denominators = &mut denominators[from..to];
                    simd::vectorized(
                        #[inline(always)]
                        || softmax(scores, length, denominators),
                    );
                    let mut y = y.part(from, to - from, 0, width);
                    product_packed(Start::Zero, View::new(scores, length), v_packed, &mut y);
                }
            });
        });
}

/// Each row of scores becomes its softmax; λ = log Σ exp.
#[inline(always)]
fn softmax(scores: &mut [f32], length: usize, denominators: &mut [f32]) {
    for (scores, denominator) in scores.chunks_exact_mut(length).zip(denominators) {
        let max = math::max(scores);
        for score in scores.iter_mut() {
            *score = math::exp(*score - max);
        }
        let sum = math::sum(scores);
        let inverse = 1.0 / sum;
        for score in scores.iter_mut() {
            *score *= inverse;
        }
        *denominator = max + sum.ln();
    }
}

/// dqkv += the gradient.
pub fn backward(dy: &[f32], qkv: &[f32], y: &[f32], denominators: &[f32], heads: &Heads, dqkv: &mut [f32]) {
    let (length, width, count) = (heads.length, heads.width, heads.count);
    let model = count * width;
    // Pieces of dqkv come as (row, part, head); a task takes the three parts of its (row, head).
    let mut pieces = Tile::whole(dqkv, 3 * model).grid(length, width).into_iter();
    let mut tasks = Vec::with_capacity(pieces.len() / 3);
    while pieces.len() > 0 {
        let [q, k, v] = std::array::from_fn(|_| pieces.by_ref().take(count).collect::<Vec<_>>());
        tasks.extend(q.into_iter().zip(k).zip(v));
    }
    tasks
        .into_par_iter()
        .enumerate()
        .for_each(|(task, ((mut dq, mut dk), mut dv))| {
            let (row, head) = (task / count, task % count);
            let qkv = &qkv[row * length * 3 * model..][..length * 3 * model];
            let dy = &dy[row * length * model + head * width..];
            let y = &y[row * length * model + head * width..];
            let denominators = &denominators[task * length..][..length];
            let block = QUERIES.min(length);
            let matrix = length * width;
            let (across, along) = (Packed::size(width, length), Packed::size(length, width));
            let sizes = [
                matrix,
                matrix,
                matrix,
                matrix,
                across,
                along,
                across,
                block * length,
                block * length,
            ];
            scratch::with(sizes.iter().sum(), |memory| {
                let [q, k, dq_turned, dk_turned, k_across, k_along, v_across, p, ds] = cut(memory, sizes);
                simd::vectorized(
                    #[inline(always)]
                    || {
                        heads.rotate(&qkv[head * width..], 3 * model, heads.scale(), q);
                        heads.rotate(&qkv[model + head * width..], 3 * model, 1.0, k);
                    },
                );
                let k_across = Packed::serial(View::new(k, width).t(), k_across);
                let k_along = Packed::serial(View::new(k, width), k_along);
                let v = View::strided(&qkv[2 * model + head * width..], length, width, 3 * model);
                let v_across = Packed::serial(v.t(), v_across);
                let dy_view = View::strided(dy, length, width, model);
                for from in (0..length).step_by(block) {
                    let to = length.min(from + block);
                    let rows = to - from;
                    let (p, ds) = (&mut p[..rows * length], &mut ds[..rows * length]);
                    let q = View::new(q, width).rows(from, to);
                    let dy_rows = dy_view.rows(from, to);
                    product_packed(Start::Zero, q, k_across, &mut Tile::whole(p, length));
                    product_packed(Start::Zero, dy_rows, v_across, &mut Tile::whole(ds, length));
                    simd::vectorized(
                        #[inline(always)]
                        || {
                            let scores = p.chunks_exact_mut(length).zip(ds.chunks_exact_mut(length));
                            for (row, (p, ds)) in scores.enumerate() {
                                let row = from + row;
                                let delta =
                                    math::dot(&dy[row * model..][..width], &y[row * model..][..width]);
                                let denominator = denominators[row];
                                for (p, ds) in p.iter_mut().zip(ds) {
                                    *p = math::exp(*p - denominator);
                                    *ds = *p * (*ds - delta);
                                }
                            }
                        },
                    );
                    let (p, ds) = (View::new(p, length), View::new(ds, length));
                    let start = if from == 0 { Start::Zero } else { Start::Accumulate };
                    product_serial(Start::Accumulate, p.t(), dy_rows, &mut dv);
                    product_serial(start, ds.t(), q, &mut Tile::whole(dk_turned, width));
                    let mut dq = Tile::whole(dq_turned, width);
                    product_packed(Start::Zero, ds, k_along, &mut dq.part(from, rows, 0, width));
                }
                simd::vectorized(
                    #[inline(always)]
                    || {
                        heads.add_rotated_back(dq_turned, heads.scale(), &mut dq);
                        heads.add_rotated_back(dk_turned, 1.0, &mut dk);
                    },
                );
            });
        });
}
