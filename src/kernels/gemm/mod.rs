//! Matrix product: C (m, n) = start + A (m, k) · B (k, n), C row-major, A and B with any strides.
//!
//! # The order of the sum
//!
//! Element (i, j) is a left fold over the depth, `acc = fma(a[i][p], b[p][j], acc)` for p = 0..k in this order, from
//! the start value. Nothing else decides its bits: tiles, packing, threads and the SIMD level only choose which
//! elements are computed together (vectors run along n, never along k). Hence
//!
//! - a row of an activation does not depend on the number of rows in the call;
//! - a weight's gradient dW += dYᵀ · X, started from the gradient so far, is the fold over all token rows in order, for
//!   any division of the batch into micro-batches;
//! - AVX2, AVX-512 and NEON give the same bits.
//!
//! The crates `gemm` and `faer` and BLAS do not guarantee these properties: their depth blocks start new partial sums,
//! whose sizes depend on the machine's caches.
//!
//! # Gradient
//!
//! For a given dC, dA = dC · Bᵀ and dB = Aᵀ · dC; both are this operation with transposed views.

mod cpu;
mod pairs;
mod transpose;

pub use cpu::{Packed, STRIDE, in_place_size, product, product_packed, product_serial};
pub use pairs::product_rounded;

use crate::precision::Precision;

/// C = start + A · B on all threads, A row-major. In bf16 the factors are rounded to bfloat16; tf32 is f32 here, as a CPU has no
/// instructions for it. Sums are f32 in every precision.
///
/// # Panics
/// When the sizes do not fit.
pub fn product_in(precision: Precision, start: Start, a: View, b: View, c: &mut [f32]) {
    match precision {
        Precision::F32 | Precision::Tf32 => product(start, a, b, c),
        Precision::Bf16 => product_rounded(start, a, b, c),
    }
}

/// A read-only matrix over a slice, with any strides.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_step: usize,
    column_step: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix whose rows start `stride` elements apart.
    ///
    /// # Panics
    /// When `data` is too short.
    #[must_use]
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(
            rows == 0 || (rows - 1) * stride + columns <= data.len(),
            "{} elements for {rows} rows of {columns}, {stride} apart",
            data.len()
        );
        Self {
            data,
            rows,
            columns,
            row_step: stride,
            column_step: 1,
        }
    }

    /// A row-major matrix of `columns` columns.
    ///
    /// # Panics
    /// When `data` is not a whole number of rows.
    #[must_use]
    pub fn new(data: &'a [f32], columns: usize) -> Self {
        assert!(
            data.len().is_multiple_of(columns),
            "{} elements in {columns} columns",
            data.len()
        );
        Self::strided(data, data.len() / columns, columns, columns)
    }

    /// The transposed matrix.
    #[must_use]
    pub fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.columns,
            columns: self.rows,
            row_step: self.column_step,
            column_step: self.row_step,
        }
    }

    /// Rows `from..to`.
    ///
    /// # Panics
    /// When there are no such rows.
    #[must_use]
    pub fn rows(self, from: usize, to: usize) -> Self {
        assert!(
            from <= to && to <= self.rows,
            "rows {from}..{to} of {}",
            self.rows
        );
        Self {
            data: if from == to {
                &[]
            } else {
                &self.data[from * self.row_step..]
            },
            rows: to - from,
            ..self
        }
    }

    /// Columns `from..to`.
    ///
    /// # Panics
    /// When there are no such columns.
    #[must_use]
    pub fn columns(self, from: usize, to: usize) -> Self {
        self.t().rows(from, to).t()
    }
}

/// What the fold starts from.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// Zero: C is overwritten.
    Zero,
    /// A vector (n) for every row: C is overwritten.
    Row(&'a [f32]),
    /// What is in C.
    Accumulate,
}

impl Start<'_> {
    /// The start value of some columns.
    #[inline(always)]
    #[must_use]
    pub fn columns(self, from: usize, count: usize) -> Self {
        match self {
            Self::Row(row) => Self::Row(&row[from..from + count]),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::seam::Tile;
    use crate::kernels::testing::{noise, on_threads};

    /// The definition, element by element.
    fn fold(start: Start, a: View, b: View, c: &mut [f32]) {
        for i in 0..a.rows {
            for j in 0..b.columns {
                let c = &mut c[i * b.columns + j];
                *c = match start {
                    Start::Zero => 0.0,
                    Start::Row(row) => row[j],
                    Start::Accumulate => *c,
                };
                for p in 0..a.columns {
                    let x = a.data[i * a.row_step + p * a.column_step];
                    let y = b.data[p * b.row_step + j * b.column_step];
                    *c = x.mul_add(y, *c);
                }
            }
        }
    }

    /// A CPU has no instructions that round to tf32.
    #[test]
    fn tf32_on_a_cpu_is_f32_and_bf16_is_not() {
        let (a, b) = (noise(5 * 7, 1), noise(7 * 3, 2));
        let product = |precision| {
            let mut c = vec![0.0; 5 * 3];
            product_in(precision, Start::Zero, View::new(&a, 7), View::new(&b, 3), &mut c);
            c
        };
        assert_eq!(product(Precision::Tf32), product(Precision::F32));
        assert_ne!(product(Precision::Bf16), product(Precision::F32));
    }

    fn check(m: usize, n: usize, k: usize, a_transposed: bool, b_transposed: bool, kind: u8) {
        let (a, b, row, old) = (noise(m * k, 1), noise(k * n, 2), noise(n, 3), noise(m * n, 4));
        let a = if a_transposed {
            View::new(&a, m).t()
        } else {
            View::strided(&a, m, k, k)
        };
        let b = if b_transposed {
            View::strided(&b, n, k, k).t()
        } else {
            View::strided(&b, k, n, n)
        };
        let start = [Start::Zero, Start::Row(&row), Start::Accumulate][kind as usize];
        let mut right = old.clone();
        fold(start, a, b, &mut right);
        let what = format!("m {m} n {n} k {k} {a_transposed} {b_transposed} {start:?}");
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let mut c = old.clone();
        product(start, a, b, &mut c);
        assert_eq!(bits(&c), bits(&right), "parallel, {what}");
        let mut c = old.clone();
        product_serial(start, a, b, &mut Tile::whole(&mut c, n));
        assert_eq!(bits(&c), bits(&right), "serial, {what}");
        let mut c = old.clone();
        let mut memory = vec![f32::NAN; Packed::size(k, n)];
        product_packed(
            start,
            a,
            Packed::parallel(b, &mut memory),
            &mut Tile::whole(&mut c, n),
        );
        assert_eq!(bits(&c), bits(&right), "packed, {what}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn bits_are_those_of_the_definition(
            m in 1usize..70, n in 1usize..90, k in 1usize..50, at: bool, bt: bool, kind in 0u8..3
        ) {
            check(m, n, k, at, bt, kind);
        }
    }

    #[test]
    fn depth_blocks_and_edges_do_not_change_bits() {
        for (m, n, k) in [
            (1, 1, 1),
            (13, 33, 600),
            (97, 64, 257),
            (1, 300, 40),
            (12, 32, 512),
            (200, 3, 5),
        ] {
            check(m, n, k, false, true, 0);
            check(m, n, k, true, false, 2);
        }
        check(3, 9000, 2, false, false, 1);
    }

    #[test]
    fn threads_do_not_change_bits() {
        let (a, b) = (noise(300 * 70, 1), noise(70 * 130, 2));
        let run = move || {
            let mut c = vec![0.0; 300 * 130];
            product(Start::Zero, View::new(&a, 70), View::new(&b, 130), &mut c);
            c
        };
        let results: Vec<Vec<f32>> = [1, 2, 3]
            .into_iter()
            .map(|n| on_threads(n, run.clone()))
            .collect();
        assert_eq!(results[0], results[1]);
        assert_eq!(results[0], results[2]);
    }

    #[test]
    fn nan_and_infinity_propagate() {
        let mut a = noise(20 * 30, 1);
        a[5 * 30 + 7] = f32::NAN;
        let b = noise(30 * 40, 2);
        let mut c = vec![0.0; 20 * 40];
        product(Start::Zero, View::new(&a, 30), View::new(&b, 40), &mut c);
        for (i, row) in c.chunks(40).enumerate() {
            assert!(row.iter().all(|x| x.is_nan() == (i == 5)), "row {i}");
        }
    }
}
