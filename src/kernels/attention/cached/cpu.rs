//! One task per (query, head): a query is one row of a matrix product, so that keys and values are read where they lie.
//!
//! A score is the fold over the head's columns, and a column of y the fold over the keys, of fused multiply-adds that the
//! matrix product takes too ([`crate::kernels::gemm`]); rotary and softmax are the same functions. So y has the bits of
//! attention over the whole row.

use std::rc::Rc;

use dfdx::prelude::HasShape as _;
use dfdx::shapes::ConstDim;
use rayon::prelude::*;

use super::{CachedAttention, Dimensions};
use crate::error::{Error, Result};
use crate::kernels::attention::cpu::softmax;
use crate::kernels::attention::heads::Heads;
use crate::kernels::fused::{Fused, Matrix};
use crate::kernels::lanes::LANES;
use crate::kernels::seam::Tile;
use crate::kernels::{Operation, TokenRows, profile, scratch, seam, simd};

/// Vectors of sums that are in registers together.
const SUMS: usize = 4;

/// Keys, rotated, and values of some rows, each head's for itself.
pub struct KeyValueCache {
    dimensions: Dimensions,
    heads: Rc<Heads>,
    /// rot(k) of each (row, head), the positions side by side: (W, `reach`), so that scores of neighbours are a vector.
    keys: Vec<f32>,
    /// v of each (row, head), the columns side by side: (L, `span`).
    values: Vec<f32>,
}

impl KeyValueCache {
    /// Distance of the columns of keys: positions, whole vectors of them.
    fn reach(&self) -> usize {
        self.heads.length.next_multiple_of(LANES)
    }

    /// Distance of the rows of values: columns, whole vectors of them.
    fn span(&self) -> usize {
        self.heads.width.next_multiple_of(LANES)
    }

    /// Floats of the keys and of the values of one (row, head).
    fn parts(&self) -> [usize; 2] {
        [self.heads.width * self.reach(), self.heads.length * self.span()]
    }

    /// Puts kv (n, 2D) into its places.
    fn keep(&mut self, kv: &[f32], places: TokenRows<'_>) {
        let heads = Rc::clone(&self.heads);
        // Threads share what is in it, not the counter around it.
        let heads = &*heads;
        let (reach, span) = (self.reach(), self.span());
        let [of_keys, of_values] = self.parts();
        let model = heads.count * heads.width;
        let starts = places.starts(self.dimensions.rows, kv.len() / (2 * model));
        self.keys
            .par_chunks_mut(of_keys)
            .zip(self.values.par_chunks_mut(of_values))
            .enumerate()
            .for_each(|(part, (keys, values))| {
                let (row, head) = (part / heads.count, part % heads.count);
                scratch::with(heads.width, |turned| {
                    for i in starts[row]..starts[row + 1] {
                        let position = places.place(i).1;
                        let kv = &kv[i * 2 * model..][..2 * model];
                        let [k, v] = [0, model].map(|first| &kv[first + head * heads.width..][..heads.width]);
                        simd::vectorized(
                            #[inline(always)]
                            || heads.rotate(1, (k, 0), |_| position, 1.0, (turned, heads.width)),
                        );
                        for (column, &turned) in keys.chunks_exact_mut(reach).zip(&*turned) {
                            column[position] = turned;
                        }
                        values[position * span..][..heads.width].copy_from_slice(v);
                    }
                });
            });
    }

    /// y (n, D) of the queries q (n, D) at their places.
    fn attend(&self, q: &[f32], places: TokenRows<'_>, y: &mut [f32]) {
        let heads = &*self.heads;
        let (keys, values) = (&self.keys[..], &self.values[..]);
        let (reach, span, width) = (self.reach(), self.span(), heads.width);
        let [of_keys, of_values] = self.parts();
        let model = heads.count * width;
        Tile::whole(y, model)
            .grid(1, width)
            .into_par_iter()
            .enumerate()
            .for_each(|(task, mut y)| {
                let (i, head) = (task / heads.count, task % heads.count);
                let (row, position) = places.place(i);
                let part = row * heads.count + head;
                let q = &q[i * model + head * width..][..width];
                let keys = &keys[part * of_keys..][..of_keys];
                let values = &values[part * of_values..][..of_values];
                let visible = position + 1;
                let end = visible.next_multiple_of(LANES);
                profile::count_product(1, visible, 2 * width);
                scratch::with(width + end + span, |memory| {
                    let (turned, rest) = memory.split_at_mut(width);
                    let (scores, sums) = rest.split_at_mut(end);
                    simd::vectorized(
                        #[inline(always)]
                        || {
                            heads.rotate(1, (q, 0), |_| position, heads.scale(), (turned, width));
                            times_rows(turned, (keys, reach), scores);
                            softmax(scores, end, (end, |_| visible), &mut [0.0]);
                            times_rows(&scores[..visible], (values, span), sums);
                        },
                    );
                    y.row(0).copy_from_slice(&sums[..width]);
                });
            });
    }
}

/// out[j] = Σ_p factors[p] · rows[p · stride + j], a left fold over p from 0 of fused multiply-adds; whole vectors of columns.
#[inline(always)]
fn times_rows(factors: &[f32], rows: (&[f32], usize), out: &mut [f32]) {
    let whole = out.len() / (SUMS * LANES) * (SUMS * LANES);
    let (blocks, rest) = out.split_at_mut(whole);
    for (block, out) in blocks.chunks_exact_mut(SUMS * LANES).enumerate() {
        columns::<SUMS>(factors, rows, block * SUMS * LANES, out);
    }
    for (block, out) in rest.chunks_exact_mut(LANES).enumerate() {
        columns::<1>(factors, rows, whole + block * LANES, out);
    }
}

/// N vectors of columns from `first` on.
#[inline(always)]
fn columns<const N: usize>(factors: &[f32], (rows, stride): (&[f32], usize), first: usize, out: &mut [f32]) {
    let mut sums = [[0.0_f32; LANES]; N];
    for (p, &factor) in factors.iter().enumerate() {
        let (row, _) = pulp::as_arrays::<LANES, f32>(&rows[p * stride + first..][..N * LANES]);
        for n in 0..N {
            for lane in 0..LANES {
                sums[n][lane] = factor.mul_add(row[n][lane], sums[n][lane]);
            }
        }
    }
    out.copy_from_slice(sums.as_flattened());
}

impl CachedAttention for Fused {
    type Cache = KeyValueCache;

    fn cache(&self, rows: usize, length: usize, heads: usize, width: usize) -> Result<KeyValueCache> {
        let dimensions = Dimensions {
            rows,
            length,
            heads,
            width,
        }
        .check()?;
        let mut cache = KeyValueCache {
            dimensions,
            heads: self.heads(length, heads, width / heads),
            keys: Vec::new(),
            values: Vec::new(),
        };
        let [keys, values] = cache.parts();
        cache.keys = seam::zeros(rows * heads * keys)?;
        cache.values = seam::zeros(rows * heads * values)?;
        Ok(cache)
    }

    fn keep<D2: ConstDim>(
        &self,
        kv: &Matrix<D2>,
        places: TokenRows<'_>,
        cache: &mut KeyValueCache,
    ) -> Result<()> {
        let _timer = profile::forward(Operation::Attention);
        let dimensions = cache.dimensions;
        dimensions.check_places(places, kv.shape().0, (D2::SIZE, 2))?;
        cache.keep(seam::slice(kv), places);
        Ok(())
    }

    fn cached_attention<D: ConstDim>(
        &self,
        q: &Matrix<D>,
        places: TokenRows<'_>,
        cache: &KeyValueCache,
    ) -> Result<Matrix<D>> {
        let _timer = profile::forward(Operation::Attention);
        if self.is_recording() {
            return Err(Error::internal("attention over kept keys has no gradient"));
        }
        let queries = q.shape().0;
        cache.dimensions.check_places(places, queries, (D::SIZE, 1))?;
        let mut y = seam::zeros(queries * D::SIZE)?;
        cache.attend(seam::slice(q), places, &mut y);
        self.tensor(*q.shape(), y)
    }
}
