//! Transposes of 16 columns at a time, in registers where there is AVX-512.

use super::View;

/// Floats in a cache line.
pub(super) const LINE: usize = 16;

/// out[p][i] = x[i][p] for the rows i of x (at most W, the rest is left as it is) and for whole cache lines of its
/// columns. Returns how many columns that is.
pub(super) fn whole_lines<const W: usize>(x: View, out: &mut [[f32; W]]) -> usize {
    let columns = x.columns / LINE * LINE;
    let out = &mut out[..columns];
    #[cfg(target_arch = "x86_64")]
    if W.is_multiple_of(LINE)
        && x.rows == W
        && let Some(simd) = pulp::x86::V4::try_new()
    {
        pulp::Simd::vectorize(simd, avx512::Lines { simd, x, out });
        return columns;
    }
    for (index, out) in out.chunks_exact_mut(LINE).enumerate() {
        for i in 0..x.rows.min(W) {
            let line = line(x, i, index);
            for (out, &value) in out.iter_mut().zip(line) {
                out[i] = value;
            }
        }
    }
    columns
}

/// A cache line of row `i` of x.
#[inline(always)]
fn line(x: View<'_>, i: usize, index: usize) -> &[f32; LINE] {
    x.data[i * x.row_step + index * LINE..]
        .first_chunk()
        .expect("a whole line")
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{__m512, __m512d};

    use pulp::x86::V4;
    use pulp::{Simd, WithSimd, cast};

    use super::{LINE, View, line};

    /// Quarters 0 and 2 of two registers.
    const EVEN: i32 = 0b10_00_10_00;
    /// Quarters 1 and 3.
    const ODD: i32 = 0b11_01_11_01;

    /// The whole lines of W rows.
    pub struct Lines<'a, 'x, const W: usize> {
        pub simd: V4,
        pub x: View<'x>,
        pub out: &'a mut [[f32; W]],
    }

    impl<const W: usize> WithSimd for Lines<'_, '_, W> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let zero = self.simd.avx512f._mm512_setzero_ps();
            for (index, out) in self.out.chunks_exact_mut(LINE).enumerate() {
                for first in (0..W).step_by(LINE) {
                    // Loops over arrays throughout: what a closure of the standard library calls would be compiled
                    // without the instructions.
                    let mut rows = [zero; LINE];
                    for (i, row) in rows.iter_mut().enumerate() {
                        *row = cast(*line(self.x, first + i, index));
                    }
                    let columns = transposed(self.simd, rows);
                    for p in 0..LINE {
                        let column: [f32; LINE] = cast(columns[p]);
                        out[p][first..first + LINE].copy_from_slice(&column);
                    }
                }
            }
        }
    }

    /// The 16 columns of 16 rows: pairs, then fours within each quarter of a register, then the quarters.
    #[inline(always)]
    fn transposed(simd: V4, rows: [__m512; LINE]) -> [__m512; LINE] {
        let avx = simd.avx512f;
        let mut pairs = rows;
        for i in (0..LINE).step_by(2) {
            pairs[i] = avx._mm512_unpacklo_ps(rows[i], rows[i + 1]);
            pairs[i + 1] = avx._mm512_unpackhi_ps(rows[i], rows[i + 1]);
        }
        // Quarter q of fours[4 g + c] holds column 4 q + c of rows 4 g to 4 g + 3.
        let mut fours = pairs;
        for i in (0..LINE).step_by(4) {
            for j in 0..2 {
                let (a, b): (__m512d, __m512d) = (cast(pairs[i + j]), cast(pairs[i + 2 + j]));
                fours[i + 2 * j] = cast(avx._mm512_unpacklo_pd(a, b));
                fours[i + 2 * j + 1] = cast(avx._mm512_unpackhi_pd(a, b));
            }
        }
        let mut columns = fours;
        for i in 0..4 {
            let [a, b, c, d] = [fours[i], fours[4 + i], fours[8 + i], fours[12 + i]];
            let (ab, cd) = (
                avx._mm512_shuffle_f32x4::<EVEN>(a, b),
                avx._mm512_shuffle_f32x4::<EVEN>(c, d),
            );
            columns[i] = avx._mm512_shuffle_f32x4::<EVEN>(ab, cd);
            columns[8 + i] = avx._mm512_shuffle_f32x4::<ODD>(ab, cd);
            let (ab, cd) = (
                avx._mm512_shuffle_f32x4::<ODD>(a, b),
                avx._mm512_shuffle_f32x4::<ODD>(c, d),
            );
            columns[4 + i] = avx._mm512_shuffle_f32x4::<EVEN>(ab, cd);
            columns[12 + i] = avx._mm512_shuffle_f32x4::<ODD>(ab, cd);
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::noise;

    #[test]
    fn elements_are_transposed_to_their_places() {
        for (rows, columns) in [(32, 48), (32, 50), (20, 33), (32, 15)] {
            let data = noise(rows * 60, 1);
            let mut out = vec![[f32::NAN; 32]; columns];
            let done = whole_lines(View::strided(&data, rows, columns, 60), &mut out);
            assert_eq!(done, columns / 16 * 16);
            for (p, out) in out.iter().enumerate() {
                for (i, &found) in out.iter().enumerate() {
                    if p < done && i < rows {
                        assert_eq!(found, data[i * 60 + p], "({i}, {p})");
                    } else {
                        assert!(found.is_nan(), "({i}, {p})");
                    }
                }
            }
        }
    }
}
