//! Loops over slices of one length, [`LANES`] elements at a time, that LLVM turns into vector instructions.
//!
//! A plain loop over many slices stays scalar more often than not: LLVM gives up when it would have to check too many
//! pairs of slices for overlap, or when an index might be out of bounds. Here elements go through arrays of fixed size,
//! which overlap with nothing. The number of lines is hidden from LLVM, so that bounds checks stay in the loop over
//! lines and it vectorizes within a line; left alone it gathers the k-th elements of many lines. To be called inside
//! [`super::simd::vectorized`], with closures marked `#[inline(always)]`.

use std::hint::black_box;

/// Lanes of the fixed summation tree: one AVX-512 register, two of AVX2, four of NEON.
pub const LANES: usize = 16;

/// Arrays of fixed size, and what remains, of K slices cut to `n` elements.
#[inline(always)]
fn lines<const K: usize>(slices: [&[f32]; K], n: usize) -> ([&[[f32; LANES]]; K], [&[f32]; K]) {
    let mut lines: [&[[f32; LANES]]; K] = [&[]; K];
    let mut rests: [&[f32]; K] = [&[]; K];
    for k in 0..K {
        (lines[k], rests[k]) = pulp::as_arrays::<LANES, f32>(&slices[k][..n]);
    }
    (lines, rests)
}

/// Adds `f` of the elements into [`LANES`] partial sums, then adds these as a balanced tree: the order depends on the
/// length of the first slice alone.
///
/// # Panics
/// When another slice is shorter.
#[inline(always)]
pub fn fold<const K: usize>(slices: [&[f32]; K], f: impl Fn([f32; K]) -> f32) -> f32 {
    let n = slices[0].len();
    let (lines, rests) = lines(slices, n);
    let mut partial = [0.0_f32; LANES];
    #[expect(clippy::needless_range_loop, reason = "an index into several slices")]
    for line in 0..black_box(n / LANES) {
        let arrays: [&[f32; LANES]; K] = std::array::from_fn(
            #[inline(always)]
            |k| &lines[k][line],
        );
        for lane in 0..LANES {
            let mut elements = [0.0; K];
            for k in 0..K {
                elements[k] = arrays[k][lane];
            }
            partial[lane] += f(elements);
        }
    }
    for (lane, partial) in partial.iter_mut().enumerate().take(n % LANES) {
        let mut elements = [0.0; K];
        for k in 0..K {
            elements[k] = rests[k][lane];
        }
        *partial += f(elements);
    }
    tree(partial)
}

/// Replaces the elements by `f` of them and adds the new ones as [`fold`] does.
#[inline(always)]
pub fn replace_and_sum(x: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let (lines, rest) = pulp::as_arrays_mut::<LANES, f32>(x);
    let mut partial = [0.0_f32; LANES];
    for line in 0..black_box(lines.len()) {
        let line = &mut lines[line];
        let mut new = *line;
        for lane in 0..LANES {
            new[lane] = f(new[lane]);
            partial[lane] += new[lane];
        }
        *line = new;
    }
    for (x, partial) in rest.iter_mut().zip(&mut partial) {
        *x = f(*x);
        *partial += *x;
    }
    tree(partial)
}

/// The sum of the lanes as a balanced tree.
#[inline(always)]
fn tree(x: [f32; LANES]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(
        #[inline(always)]
        |i| x[i] + x[i + 8],
    );
    let four: [f32; 4] = std::array::from_fn(
        #[inline(always)]
        |i| eight[i] + eight[i + 4],
    );
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Element i of `into[w]` becomes the w-th of `f(elements i of into, elements i of from)`.
///
/// # Panics
/// When a slice is shorter than the first of `into`.
#[inline(always)]
pub fn update<const W: usize, const R: usize>(
    into: [&mut [f32]; W],
    from: [&[f32]; R],
    f: impl Fn([f32; W], [f32; R]) -> [f32; W],
) {
    let n = into[0].len();
    let (read, read_rests) = lines(from, n);
    let written = into.map(
        #[inline(always)]
        |into| pulp::as_arrays_mut::<LANES, f32>(&mut into[..n]),
    );
    #[expect(clippy::needless_range_loop, reason = "an index into several slices")]
    for line in 0..black_box(n / LANES) {
        let old: [&[f32; LANES]; W] = std::array::from_fn(
            #[inline(always)]
            |w| &written[w].0[line],
        );
        let arrays: [&[f32; LANES]; R] = std::array::from_fn(
            #[inline(always)]
            |r| &read[r][line],
        );
        let mut new = [[0.0; LANES]; W];
        for lane in 0..LANES {
            let (mut into, mut from) = ([0.0; W], [0.0; R]);
            for w in 0..W {
                into[w] = old[w][lane];
            }
            for r in 0..R {
                from[r] = arrays[r][lane];
            }
            let values = f(into, from);
            for w in 0..W {
                new[w][lane] = values[w];
            }
        }
        for w in 0..W {
            written[w].0[line] = new[w];
        }
    }
    #[expect(clippy::needless_range_loop, reason = "an index into several slices")]
    for i in 0..n % LANES {
        let (mut into, mut from) = ([0.0; W], [0.0; R]);
        for w in 0..W {
            into[w] = written[w].1[i];
        }
        for r in 0..R {
            from[r] = read_rests[r][i];
        }
        let values = f(into, from);
        for w in 0..W {
            written[w].1[i] = values[w];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::noise;

    /// Lengths around lines.
    const LENGTHS: [usize; 7] = [0, 1, 15, 16, 17, 48, 100];

    #[test]
    fn sums_take_the_lanes_in_order_and_then_the_tree() {
        for n in LENGTHS {
            let (x, y) = (noise(n, 1), noise(n, 2));
            let mut partial = [0.0_f32; LANES];
            for i in 0..n {
                partial[i % LANES] += x[i] * y[i];
            }
            for width in [8, 4, 2, 1] {
                for lane in 0..width {
                    partial[lane] += partial[lane + width];
                }
            }
            assert_eq!(fold([&x, &y], |[x, y]| x * y), partial[0], "{n}");
            let mut products = x;
            for (x, y) in products.iter_mut().zip(&y) {
                *x *= y;
            }
            let mut doubled = products.clone();
            assert_eq!(
                replace_and_sum(&mut doubled, |x| 2.0 * x),
                2.0 * partial[0],
                "{n}"
            );
            assert!(doubled.iter().zip(&products).all(|(a, b)| *a == 2.0 * b));
        }
    }

    #[test]
    fn update_changes_every_element_once() {
        for n in LENGTHS {
            let (mut a, mut b, from) = (noise(n, 1), noise(n, 2), noise(n + 3, 3));
            let (old_a, old_b) = (a.clone(), b.clone());
            update([&mut a, &mut b], [&from], |[a, b], [x]| [a + x, a * b]);
            for i in 0..n {
                assert_eq!(a[i], old_a[i] + from[i], "{i} of {n}");
                assert_eq!(b[i], old_a[i] * old_b[i], "{i} of {n}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn update_from_a_shorter_slice_is_refused() {
        update([&mut [0.0; 20]], [&[0.0; 19]], |[a], [b]| [a + b]);
    }
}
