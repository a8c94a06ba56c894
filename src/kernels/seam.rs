//! The only `unsafe` of the kernels: views of dfdx's CPU storage, fallible buffers, disjoint tiles for threads, and the
//! one instruction that `pulp` does not have.
//!
//! dfdx 0.13 keeps a tensor's storage private; on [`Cpu`] an element is reached through `Index`, and the storage is one
//! `Vec<f32>` behind an `Arc`. A contiguous tensor's elements are that vector in row-major order, so the address of the
//! first element and the count are all that a slice needs. Broadcast and permuted tensors have other strides: the probe
//! below recognizes them by the addresses of the unit vectors, and they are refused.

use std::alloc::Layout;
use std::marker::PhantomData;

use dfdx::prelude::{Cpu, HasShape, Shape, Tensor};

use crate::error::{Error, Result};

/// Whether the storage is exactly the row-major array of the shape.
fn is_contiguous<S: Shape, T>(tensor: &Tensor<S, f32, Cpu, T>) -> bool {
    let dims = tensor.shape().concrete();
    let dims = dims.as_ref();
    let base = &raw const tensor[S::Concrete::default()] as usize;
    let mut stride = 1;
    for axis in (0..dims.len()).rev() {
        if dims[axis] > 1 {
            let mut unit = S::Concrete::default();
            unit[axis] = 1;
            if &raw const tensor[unit] as usize != base + stride * size_of::<f32>() {
                return false;
            }
        }
        stride *= dims[axis];
    }
    true
}

/// The elements of a contiguous tensor, row-major, without a copy.
///
/// # Panics
/// When the tensor is broadcast or permuted: no operation of these kernels makes such a tensor.
pub fn slice<S: Shape, T>(tensor: &Tensor<S, f32, Cpu, T>) -> &[f32] {
    let count = tensor.shape().num_elements();
    if count == 0 {
        return &[];
    }
    assert!(
        is_contiguous(tensor),
        "a fused operation needs a contiguous tensor, shape {:?}",
        tensor.shape()
    );
    let first = &raw const tensor[S::Concrete::default()];
    // SAFETY: strides are linear in the index, and the probe has shown that they are the row-major ones, so element
    // [i, j, …] lies at its row-major offset from the first and the storage (one Vec<f32>) holds all `count` of them.
    // The borrow of `tensor` keeps the Arc and thus the Vec alive; a writer would need `&mut` to a tensor that shares
    // it, and IndexMut un-shares (Arc::make_mut) before it writes.
    unsafe { std::slice::from_raw_parts(first, count) }
}

/// A zeroed buffer. Large ones come as fresh pages that the kernel zeroes when they are first touched, so nothing is
/// written here.
///
/// # Errors
/// Out of memory, with [`crate::error::Kind::Environment`].
pub fn zeros(count: usize) -> Result<Vec<f32>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let out_of_memory = || {
        Error::environment(format!(
            "allocate {} MiB of memory",
            (count >> 20) * size_of::<f32>()
        ))
        .hint("lower `micro_batch`, or choose a smaller shape")
    };
    let layout = Layout::array::<f32>(count).map_err(|_| out_of_memory())?;
    #[expect(clippy::same_length_and_capacity, reason = "allocated right here")]
    // SAFETY: the layout is that of `count` > 0 floats; a null answer is handled. All-zero bytes are valid floats, and
    // Vec frees with the same layout because length and capacity are `count`.
    unsafe {
        let pointer = std::alloc::alloc_zeroed(layout);
        if pointer.is_null() {
            return Err(out_of_memory());
        }
        Ok(Vec::from_raw_parts(pointer.cast(), count, count))
    }
}

/// A rectangle of a row-major matrix, writable row by row. Threads get disjoint ones.
pub struct Tile<'a> {
    first: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: a tile is an exclusive borrow of its elements, like `&mut [f32]`.
unsafe impl Send for Tile<'_> {}

impl<'a> Tile<'a> {
    /// The whole of a row-major matrix.
    ///
    /// # Panics
    /// When `data` is not of `columns` columns.
    pub fn whole(data: &'a mut [f32], columns: usize) -> Self {
        assert!(
            columns > 0 && data.len().is_multiple_of(columns),
            "{} elements in {columns} columns",
            data.len()
        );
        Self {
            rows: data.len() / columns,
            first: data.as_mut_ptr(),
            stride: columns,
            columns,
            borrow: PhantomData,
        }
    }

    /// Rows.
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns.
    #[inline(always)]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Row `i`.
    ///
    /// # Panics
    /// When there is no such row.
    #[inline(always)]
    pub fn row(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        // SAFETY: the tile exclusively borrows `columns` elements at `first + i·stride` for each of its rows (by
        // construction below), and `&mut self` lets one row out at a time.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(i * self.stride), self.columns) }
    }

    /// A part of this tile, borrowed from it.
    ///
    /// # Panics
    /// When the part sticks out.
    #[inline(always)]
    pub fn part(&mut self, row: usize, rows: usize, column: usize, columns: usize) -> Tile<'_> {
        assert!(
            row + rows <= self.rows && column + columns <= self.columns,
            "part sticks out of its tile"
        );
        Tile {
            // SAFETY: row ≤ rows and column ≤ columns of the exclusive borrow, so the offset stays inside it or one
            // past its end.
            first: unsafe { self.first.add(row * self.stride + column) },
            stride: self.stride,
            rows,
            columns,
            borrow: PhantomData,
        }
    }

    /// Cuts the tile into a grid of `rows` × `columns` pieces (the last ones smaller), in row-major order of the grid.
    ///
    /// # Panics
    /// When a piece would be empty.
    pub fn grid(self, rows: usize, columns: usize) -> Vec<Tile<'a>> {
        assert!(rows > 0, "empty pieces");
        let mut starts: Vec<usize> = (0..self.rows).step_by(rows).collect();
        starts.push(self.rows);
        self.cut(&starts, columns)
    }

    /// Cuts the tile into pieces: rows from one of `starts` to the next (from 0 to the last row, ascending; none is a
    /// piece without rows), and `columns` columns (the last ones fewer), in row-major order.
    ///
    /// # Panics
    /// When `starts` do not ascend from 0 to the number of rows, or a piece would have no columns.
    pub fn cut(self, starts: &[usize], columns: usize) -> Vec<Tile<'a>> {
        assert!(columns > 0, "empty pieces");
        assert!(
            starts.first() == Some(&0) && starts.last() == Some(&self.rows) && starts.is_sorted(),
            "{starts:?} of {} rows",
            self.rows
        );
        let mut pieces = Vec::with_capacity((starts.len() - 1) * self.columns.div_ceil(columns));
        for rows in starts.windows(2) {
            for column in (0..self.columns).step_by(columns) {
                pieces.push(Tile {
                    // SAFETY: `starts` ascend within the tile (checked above), so that the piece lies inside the
                    // exclusive borrow, which `self` gives up; the pieces do not overlap.
                    first: unsafe { self.first.add(rows[0] * self.stride + column) },
                    stride: self.stride,
                    rows: rows[1] - rows[0],
                    columns: columns.min(self.columns - column),
                    borrow: PhantomData,
                });
            }
        }
        pieces
    }
}

/// Rows of the register tile of [`add_pairs`].
pub const PAIR_ROWS: usize = 12;
/// Columns of the register tile of [`add_pairs`].
pub const PAIR_COLUMNS: usize = 32;

/// Whether this processor multiplies pairs of bfloat16 in one instruction (AVX512-BF16).
pub fn has_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// sums[i][j] ← fold over p of sums + hi(a[i][p]) · hi(b[p][j]), then + lo · lo: upper and lower halves of the words are
/// bfloat16. Row i of `a` begins at `i · stride` and has as many pairs as `b` has rows.
///
/// # Panics
/// When `a` is too short, or the processor cannot ([`has_pairs`]).
pub fn add_pairs(
    a: &[u32],
    stride: usize,
    b: &[[u32; PAIR_COLUMNS]],
    sums: &mut [[f32; PAIR_COLUMNS]; PAIR_ROWS],
) {
    assert!(has_pairs(), "the processor has no AVX512-BF16");
    assert!(
        b.len() <= stride && a.len() >= (PAIR_ROWS - 1) * stride + b.len(),
        "{} words for {PAIR_ROWS} rows of {}, {stride} apart",
        a.len(),
        b.len()
    );
    // SAFETY: the processor has the instructions, and the rows of `a` are as long as `b`: both checked above.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        add_pairs_avx512(a.as_ptr(), stride, b, sums);
    }
}

/// [`add_pairs`] with sums in registers.
///
/// # Safety
/// The processor has the features, and `a` points to [`PAIR_ROWS`] rows of `b.len()` words, `stride` apart.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn add_pairs_avx512(
    a: *const u32,
    stride: usize,
    b: &[[u32; PAIR_COLUMNS]],
    sums: &mut [[f32; PAIR_COLUMNS]; PAIR_ROWS],
) {
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_storeu_ps,
    };
    // SAFETY: both are 512 bits of plain numbers.
    let halves = |x: __m512i| unsafe { std::mem::transmute::<__m512i, __m512bh>(x) };
    let mut registers = [[_mm512_setzero_ps(); 2]; PAIR_ROWS];
    for (registers, sums) in registers.iter_mut().zip(sums.iter()) {
        for (j, register) in registers.iter_mut().enumerate() {
            // SAFETY: 16 floats from 0 and from 16 of the 32.
            *register = unsafe { _mm512_loadu_ps(sums.as_ptr().add(16 * j)) };
        }
    }
    for (p, b) in b.iter().enumerate() {
        // SAFETY: 16 words from 0 and from 16 of the 32.
        let b = unsafe {
            [
                halves(_mm512_loadu_si512(b.as_ptr().cast())),
                halves(_mm512_loadu_si512(b.as_ptr().add(16).cast())),
            ]
        };
        for (i, registers) in registers.iter_mut().enumerate() {
            // SAFETY: row i of `a` has a word for each row of `b`.
            let a = halves(_mm512_set1_epi32(unsafe { *a.add(i * stride + p) }.cast_signed()));
            registers[0] = _mm512_dpbf16_ps(registers[0], a, b[0]);
            registers[1] = _mm512_dpbf16_ps(registers[1], a, b[1]);
        }
    }
    for (registers, sums) in registers.iter().zip(sums.iter_mut()) {
        for (j, register) in registers.iter().enumerate() {
            // SAFETY: as for loading.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr().add(16 * j), *register) };
        }
    }
}

#[cfg(test)]
mod tests {
    use dfdx::prelude::{
        BroadcastTo as _, Const, PermuteTo as _, Rank1, Rank2, SampleTensor as _, TensorFrom as _,
        ZerosTensor as _,
    };

    use super::*;

    #[test]
    fn views_share_the_storage() {
        let dev = Cpu::default();
        let t: Tensor<Rank2<3, 4>, f32, _> = dev.sample_normal();
        assert_eq!(slice(&t), t.as_vec());
        assert_eq!(&raw const slice(&t)[5], &raw const t[[1, 1]]);
        let scalar = dev.tensor(3.0);
        assert_eq!(slice(&scalar), [3.0]);
        let empty: Tensor<(usize, Const<4>), f32, _> = dev.zeros_like(&(0, Const));
        assert!(slice(&empty).is_empty());
    }

    #[test]
    #[should_panic(expected = "contiguous")]
    fn permuted_tensor_is_refused() {
        let t: Tensor<Rank2<3, 4>, f32, _> = Cpu::default().zeros();
        slice(&t.permute::<Rank2<4, 3>, _>());
    }

    #[test]
    #[should_panic(expected = "contiguous")]
    fn broadcast_tensor_is_refused() {
        let t: Tensor<Rank1<4>, f32, _> = Cpu::default().zeros();
        slice(&t.broadcast::<Rank2<3, 4>, _>());
    }

    #[test]
    fn grid_covers_every_element_once() {
        let mut data = vec![0.0; 7 * 10];
        for (k, mut piece) in Tile::whole(&mut data, 10).grid(3, 4).into_iter().enumerate() {
            for i in 0..piece.rows() {
                for x in piece.row(i) {
                    *x += k as f32 + 1.0;
                }
            }
        }
        assert!(data.iter().all(|&x| x > 0.0));
        assert_eq!(data[0], 1.0);
        assert_eq!(data[9], 3.0);
        assert_eq!(data[69], 9.0);
    }

    #[test]
    fn buffers_are_zero_and_too_large_ones_are_an_error() {
        assert!(zeros(1000).unwrap().iter().all(|&x| x == 0.0));
        assert_eq!(
            zeros(usize::MAX / 8).unwrap_err().kind(),
            crate::error::Kind::Environment
        );
    }
}
