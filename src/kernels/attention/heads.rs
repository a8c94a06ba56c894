//! The heads of an attention on the CPU: their sizes, and the rotary's angles at every position.

use super::ROTARY_BASE;
use crate::kernels::gemm::STRIDE;
use crate::kernels::lanes;
use crate::kernels::seam::Tile;

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
    #[must_use]
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

    /// What queries are multiplied by: 1 / √W.
    #[must_use]
    pub fn scale(&self) -> f32 {
        (1.0 / (self.width as f64).sqrt()) as f32
    }

    /// Distance of the rows of the turned queries of a block: products read them in place where they are short.
    #[must_use]
    pub fn query_stride(&self) -> usize {
        STRIDE.max(self.width)
    }

    /// Distance of the rows of scores, likewise.
    #[must_use]
    pub fn score_stride(&self) -> usize {
        STRIDE.max(self.length)
    }

    /// n rows of `out` = factor · rot(x), x being W columns of rows `stride` apart, the i-th at `position(i)`.
    #[inline(always)]
    pub fn rotate(
        &self,
        n: usize,
        (x, stride): (&[f32], usize),
        position: impl Fn(usize) -> usize,
        factor: f32,
        (out, out_stride): (&mut [f32], usize),
    ) {
        let half = self.width / 2;
        for (i, out) in out.chunks_mut(out_stride).take(n).enumerate() {
            let (first, second) = x[i * stride..][..self.width].split_at(half);
            let (cosine, sine) = self.angles(position(i));
            let (out_first, out_second) = out[..self.width].split_at_mut(half);
            lanes::update(
                [out_first, out_second],
                [first, second, cosine, sine],
                #[inline(always)]
                |_, [x, y, cosine, sine]| {
                    [(x * cosine - y * sine) * factor, (y * cosine + x * sine) * factor]
                },
            );
        }
    }

    /// into += factor · rotᵀ(d).
    #[inline(always)]
    pub fn add_rotated_back(
        &self,
        d: &[f32],
        position: impl Fn(usize) -> usize,
        factor: f32,
        into: &mut Tile,
    ) {
        let half = self.width / 2;
        for (i, d) in d.chunks_exact(self.width).enumerate() {
            let (first, second) = d.split_at(half);
            let (cosine, sine) = self.angles(position(i));
            let (into_first, into_second) = into.row(i).split_at_mut(half);
            lanes::update(
                [into_first, into_second],
                [first, second, cosine, sine],
                #[inline(always)]
                |[dx, dy], [x, y, cosine, sine]| {
                    [
                        dx + (x * cosine + y * sine) * factor,
                        dy + (y * cosine - x * sine) * factor,
                    ]
                },
            );
        }
    }

    /// Cosines and sines of a position.
    #[inline(always)]
    fn angles(&self, position: usize) -> (&[f32], &[f32]) {
        let half = self.width / 2;
        (
            &self.cosines[position * half..][..half],
            &self.sines[position * half..][..half],
        )
    }
}
