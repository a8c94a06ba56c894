//! The product with factors rounded to bfloat16 (8 significant bits, to nearest even) and sums in f32.
//!
//! Element (i, j) is the same left fold over the depth as in [`super`]: a product of two bfloat16 is exact in f32, so each
//! step rounds once. AVX512-BF16 takes two steps of the depth in an instruction, twice the speed of f32; other processors
//! round the factors and use the f32 product, with the same bits. (The instruction takes denormals for zero: bits may
//! differ where a sum is below 2^−126.)

use rayon::prelude::*;

use super::cpu::{product, share};
use super::{Start, View};
use crate::kernels::seam::{self, PAIR_COLUMNS, PAIR_ROWS, Tile};
use crate::kernels::{profile, scratch, simd};

/// Pairs of the depth in a block: a panel of B (256 × 32 pairs, 32 KiB) stays in the first-level cache.
const DEPTH: usize = 256;
/// Distance of the rows of A in a block, in pairs: an odd number of cache lines.
const STRIDE: usize = DEPTH + 16;
/// Pairs of B packed at once, 4 MiB.
const PACKED_MAX: usize = 1 << 20;
/// Columns of B packed at once.
const COLUMNS_MAX: usize = 4096;

/// C = start + A · B with A and B rounded to bfloat16, on all threads; A is row-major.
///
/// # Panics
/// When the sizes do not fit.
pub fn product_rounded(start: Start, a: View, b: View, c: &mut [f32]) {
    assert!(
        a.columns == b.rows && c.len() == a.rows * b.columns && a.column_step == 1,
        "({}, {}) · ({}, {}) into {}",
        a.rows,
        a.columns,
        b.rows,
        b.columns,
        c.len()
    );
    if c.is_empty() {
        return;
    }
    if seam::has_pairs() {
        in_pairs(start, a, b, c);
    } else {
        in_singles(start, a, b, c);
    }
}

/// Rounds the factors, then uses the f32 product.
fn in_singles(start: Start, a: View, b: View, c: &mut [f32]) {
    let rounded = |x: View| -> Vec<f32> {
        let value = |i: usize, j: usize| x.data[i * x.row_step + j * x.column_step];
        (0..x.rows)
            .flat_map(|i| (0..x.columns).map(move |j| f32::from_bits(round(value(i, j)) << 16)))
            .collect()
    };
    let (a_rounded, b_rounded) = (rounded(a), rounded(b));
    product(
        start,
        View::strided(&a_rounded, a.rows, a.columns, a.columns),
        View::strided(&b_rounded, b.rows, b.columns, b.columns),
        c,
    );
}

fn in_pairs(start: Start, a: View, b: View, c: &mut [f32]) {
    profile::count_product(a.rows, b.columns, a.columns);
    let mut c = Tile::whole(c, b.columns);
    let columns = b.columns.min(COLUMNS_MAX);
    let pairs = (PACKED_MAX / columns.next_multiple_of(PAIR_COLUMNS))
        .next_multiple_of(DEPTH)
        .min(a.columns.div_ceil(2).max(1));
    for column in (0..b.columns).step_by(columns) {
        let columns = columns.min(b.columns - column);
        let mut start = start.columns(column, columns);
        for level in (0..a.columns.max(1)).step_by(2 * pairs) {
            let depth = (2 * pairs).min(a.columns - level);
            let (a, b) = (
                a.columns(level, level + depth),
                b.rows(level, level + depth).columns(column, column + columns),
            );
            let pairs = depth.div_ceil(2);
            scratch::with(columns.next_multiple_of(PAIR_COLUMNS) * pairs, |memory| {
                let panels = bytemuck::cast_slice_mut::<f32, [u32; PAIR_COLUMNS]>(memory);
                panels
                    .par_chunks_mut(pairs.max(1))
                    .enumerate()
                    .for_each(|(index, panel)| {
                        let from = index * PAIR_COLUMNS;
                        pack(b.columns(from, b.columns.min(from + PAIR_COLUMNS)), panel);
                    });
                let panels = &*panels;
                let c = c.part(0, a.rows, column, columns);
                share((PAIR_ROWS, PAIR_COLUMNS), c, &|row, column, c| {
                    let start = start.columns(column, c.columns());
                    let panels = &panels[column / PAIR_COLUMNS * pairs..];
                    block(start, a.rows(row, row + c.rows()), panels, pairs, c);
                });
            });
            start = Start::Accumulate;
        }
    }
}

/// The upper half of a float's bits, rounded to nearest even; a NaN stays one. As `half::bf16::from_f32`, in a form that
/// vectorizes.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = (bits + (0x7fff + (bits >> 16 & 1))) >> 16;
    // Infinity is 0x7f80_0000; what is above, with the sign taken off, is NaN: its quiet bit keeps it one.
    if bits << 1 > 0x7f80_0000 << 1 {
        bits >> 16 | 0x40
    } else {
        rounded
    }
}

/// The earlier step of the depth in the upper half: the instruction adds that product first.
#[inline(always)]
fn pair(first: f32, second: f32) -> u32 {
    round(first) << 16 | round(second)
}

/// Packs at most [`PAIR_COLUMNS`] columns of B: a row of pairs for every two rows of B, zeros where there is nothing.
fn pack(b: View, panel: &mut [[u32; PAIR_COLUMNS]]) {
    simd::vectorized(
        #[inline(always)]
        || {
            for (p, out) in panel.iter_mut().enumerate() {
                let (first, second) = (2 * p, 2 * p + 1);
                let odd = second == b.rows;
                if b.column_step == 1 {
                    let row = |p: usize| &b.data[p * b.row_step..][..b.columns];
                    let (firsts, seconds) = (row(first), row(if odd { first } else { second }));
                    for ((out, &first), &second) in out.iter_mut().zip(firsts).zip(seconds) {
                        *out = pair(first, if odd { 0.0 } else { second });
                    }
                } else {
                    for (j, out) in out[..b.columns].iter_mut().enumerate() {
                        let column = &b.data[j * b.column_step + first..];
                        *out = pair(column[0], if odd { 0.0 } else { column[1] });
                    }
                }
                out[b.columns..].fill(0);
            }
        },
    );
}

/// C = start + A · B with B in pairs, on the calling thread.
fn block(start: Start, a: View, panels: &[[u32; PAIR_COLUMNS]], all_pairs: usize, c: &mut Tile) {
    let rows = a.rows.next_multiple_of(PAIR_ROWS);
    scratch::with(rows * STRIDE, |memory| {
        let copy = bytemuck::cast_slice_mut::<f32, u32>(memory);
        let mut start = start;
        let mut level = 0;
        loop {
            let pairs = DEPTH.min(all_pairs - level);
            let a = a.columns(2 * level, a.columns.min(2 * (level + pairs)));
            simd::vectorized(
                #[inline(always)]
                || {
                    for (i, out) in copy.chunks_exact_mut(STRIDE).enumerate() {
                        if i >= a.rows {
                            out[..pairs].fill(0);
                            continue;
                        }
                        let (twos, rest) = a.data[i * a.row_step..][..a.columns].as_chunks::<2>();
                        for (out, two) in out.iter_mut().zip(twos) {
                            *out = pair(two[0], two[1]);
                        }
                        if let [last] = rest {
                            out[twos.len()] = pair(*last, 0.0);
                        }
                    }
                },
            );
            for (panel, column) in (0..c.columns()).step_by(PAIR_COLUMNS).enumerate() {
                let b = &panels[panel * all_pairs + level..][..pairs];
                let columns = PAIR_COLUMNS.min(c.columns() - column);
                let start = start.columns(column, columns);
                for row in (0..c.rows()).step_by(PAIR_ROWS) {
                    let mut c = c.part(row, PAIR_ROWS.min(c.rows() - row), column, columns);
                    let mut sums = [[0.0; PAIR_COLUMNS]; PAIR_ROWS];
                    for (i, sums) in sums.iter_mut().enumerate().take(c.rows()) {
                        match start {
                            Start::Zero => {}
                            Start::Row(row) => sums[..columns].copy_from_slice(row),
                            Start::Accumulate => sums[..columns].copy_from_slice(c.row(i)),
                        }
                    }
                    seam::add_pairs(&copy[row * STRIDE..], STRIDE, b, &mut sums);
                    for (i, sums) in sums.iter().enumerate().take(c.rows()) {
                        c.row(i).copy_from_slice(&sums[..columns]);
                    }
                }
            }
            start = Start::Accumulate;
            level += pairs;
            if level >= all_pairs {
                break;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::testing::noise;

    #[test]
    fn rounding_is_to_nearest_even() {
        for x in noise(10_000, 1).into_iter().chain([
            0.0,
            -0.0,
            f32::from_bits(0x3f80_8000), // halfway: to even, below
            f32::from_bits(0x3f81_8000), // halfway: to even, above
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            1e-40,
        ]) {
            assert_eq!(round(x), u32::from(half::bf16::from_f32(x).to_bits()), "{x}");
        }
        assert!(f32::from_bits(round(f32::NAN) << 16).is_nan());
        assert!(f32::from_bits(round(f32::from_bits(0x7f80_0001)) << 16).is_nan());
    }

    fn check(m: usize, n: usize, k: usize, b_transposed: bool, kind: u8) {
        let (a, b, row, old) = (noise(m * k, 1), noise(k * n, 2), noise(n, 3), noise(m * n, 4));
        let a = View::strided(&a, m, k, k);
        let b = if b_transposed {
            View::strided(&b, n, k, k).t()
        } else {
            View::strided(&b, k, n, n)
        };
        let start = [Start::Zero, Start::Row(&row), Start::Accumulate][kind as usize];
        let (mut found, mut right) = (old.clone(), old);
        product_rounded(start, a, b, &mut found);
        in_singles(start, a, b, &mut right);
        for (i, (found, right)) in found.iter().zip(&right).enumerate() {
            assert_eq!(
                found.to_bits(),
                right.to_bits(),
                "element {i} of m {m} n {n} k {k} {b_transposed} {start:?}: {found} where {right} belongs"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn pairs_and_singles_have_the_same_bits(
            m in 1usize..40, n in 1usize..90, k in 1usize..50, bt: bool, kind in 0u8..3
        ) {
            check(m, n, k, bt, kind);
        }
    }

    #[test]
    fn depth_blocks_and_edges_do_not_change_bits() {
        for (m, n, k) in [
            (1, 1, 1),
            (13, 33, 1201),
            (97, 64, 513),
            (1, 300, 40),
            (12, 32, 1024),
        ] {
            check(m, n, k, true, 0);
            check(m, n, k, false, 2);
        }
        check(3, 9000, 3, false, 1);
        check(2, 4500, 700, true, 1);
    }
}
