//! Passes over rows and columns that several operations share.

use rayon::prelude::*;

use super::seam::Tile;
use super::simd;

/// Floats per task of an elementwise pass: 64 KiB, several tasks in a second-level cache.
const TASK: usize = 1 << 14;

/// Rows of `width` floats per task.
pub fn per_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

/// Columns per task when a sum over all rows leaves only columns to share out: whole SIMD registers, two tasks a thread.
pub fn columns_per_task(columns: usize) -> usize {
    columns
        .div_ceil(2 * rayon::current_num_threads())
        .next_multiple_of(64)
}

/// into[i] = f(into[i], from[i]) on all threads.
pub fn zip(into: &mut [f32], from: &[f32], f: impl Fn(f32, f32) -> f32 + Copy + Send + Sync) {
    assert_eq!(into.len(), from.len());
    into.par_chunks_mut(TASK)
        .zip(from.par_chunks(TASK))
        .for_each(|(into, from)| {
            simd::vectorized(
                #[inline(always)]
                || {
                    for (into, &from) in into.iter_mut().zip(from) {
                        *into = f(*into, from);
                    }
                },
            );
        });
}

/// sums[j] += Σ_r x[r][j], a left fold over the rows in order for each column, on all threads.
pub fn add_column_sums(x: &[f32], sums: &mut [f32]) {
    let columns = sums.len();
    let width = columns_per_task(columns);
    sums.par_chunks_mut(width).enumerate().for_each(|(task, sums)| {
        simd::vectorized(
            #[inline(always)]
            || {
                for row in x.chunks_exact(columns) {
                    for (sum, &x) in sums.iter_mut().zip(&row[task * width..]) {
                        *sum += x;
                    }
                }
            },
        );
    });
}

/// The pieces of (R, D) matrices that belong to one row of a modulation (m, D) and some columns.
pub struct Span {
    /// Row of the modulation.
    pub modulation_row: usize,
    /// First row.
    pub first_row: usize,
    /// Rows.
    pub rows: usize,
    /// First column.
    pub first_column: usize,
    /// Columns.
    pub columns: usize,
}

/// Shares rows, from one of `starts` to the next for each modulation row, among threads such that a modulation's
/// gradient, a sum over its rows in order, is one task's: by modulation rows, and by columns where those are few.
pub fn spans(starts: &[usize], columns: usize) -> Vec<Span> {
    let width = span_columns(starts, columns);
    starts
        .windows(2)
        .enumerate()
        .flat_map(|(modulation_row, rows)| {
            let (first_row, rows) = (rows[0], rows[1] - rows[0]);
            (0..columns).step_by(width).map(move |first_column| Span {
                modulation_row,
                first_row,
                rows,
                first_column,
                columns: width.min(columns - first_column),
            })
        })
        .collect()
}

/// The pieces of a row-major matrix of `columns` columns that the spans of [`spans`] cover, in the same order.
pub fn pieces<'a>(data: &'a mut [f32], starts: &[usize], columns: usize) -> Vec<Tile<'a>> {
    Tile::whole(data, columns).cut(starts, span_columns(starts, columns))
}

fn span_columns(starts: &[usize], columns: usize) -> usize {
    if starts.len() > 2 * rayon::current_num_threads() {
        columns
    } else {
        columns_per_task(columns)
    }
}
