//! The product on the CPU: Goto's blocking (Goto and van de Geijn 2008) around a register tile written with `pulp`.
//!
//! B is packed into panels of one register tile's width, A into panels of its height, both depth-major, so that the
//! inner loop reads two streams. What stands beyond the edges of a matrix goes into sums that are never stored.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::transpose::{LINE, whole_lines};
use super::{Start, View};
use crate::kernels::seam::Tile;
use crate::kernels::{profile, scratch};

/// Depth of a block: a panel of B (256 × 32 floats, 32 KiB) stays in the first-level cache.
const DEPTH: usize = 256;
/// Distance of the rows of A in a block: a whole number of cache lines, and an odd one, so that the rows of a register
/// tile fall into different sets of the first-level cache. A matrix that lies so in memory of [`in_place_size`] is read
/// where it is, as it is or transposed; others are copied first.
pub const STRIDE: usize = DEPTH + 16;
/// Rows of A per task, in register tiles: 8 × 12 × 256 floats, 96 KiB, stay in the second-level cache.
const ROW_PANELS: usize = 8;
/// Floats of B packed at once, 4 MiB: bounds the scratch memory for wide or deep B.
const PACKED_MAX: usize = 1 << 20;
/// Columns of B packed at once.
const COLUMNS_MAX: usize = 4096;
/// Multiplications below which threads cost more than they give.
const PARALLEL_MIN: usize = 1 << 17;

/// The register tile: rows, and columns in floats.
#[derive(Clone, Copy)]
struct Register {
    rows: usize,
    columns: usize,
}

/// The register tile of a SIMD level: as many accumulators as leave room for a row of B and one broadcast.
#[inline(always)]
fn register<S: Simd>() -> Register {
    match S::F32_LANES {
        16 => Register {
            rows: 12,
            columns: 32,
        },
        8 => Register { rows: 6, columns: 16 },
        4 => Register { rows: 8, columns: 12 },
        lanes => Register {
            rows: 4,
            columns: 4 * lanes,
        },
    }
}

struct RegisterOf;

impl WithSimd for RegisterOf {
    type Output = Register;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Register {
        register::<S>()
    }
}

fn this_register() -> Register {
    Arch::new().dispatch(RegisterOf)
}

/// Floats of memory for a matrix of `rows` rows [`STRIDE`] apart that products read in place.
#[must_use]
pub fn in_place_size(rows: usize) -> usize {
    rows.next_multiple_of(this_register().rows) * STRIDE
}

/// A matrix B packed for many products, in memory of the caller's.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    panels: Panels<'a>,
    depth: usize,
    columns: usize,
}

/// Panels of B, and the depth of each: products may take less of it.
#[derive(Clone, Copy)]
struct Panels<'a> {
    values: &'a [f32],
    depth: usize,
}

impl<'a> Packed<'a> {
    /// Floats that a packed B (k, n) takes.
    #[must_use]
    pub fn size(depth: usize, columns: usize) -> usize {
        columns.next_multiple_of(this_register().columns) * depth
    }

    /// The first columns of the packed B.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn columns_to(self, columns: usize) -> Self {
        assert!(columns <= self.columns, "{columns} columns of {}", self.columns);
        Self { columns, ..self }
    }

    /// The first rows of the packed B.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn rows_to(self, depth: usize) -> Self {
        assert!(depth <= self.depth, "{depth} rows of {}", self.depth);
        Self { depth, ..self }
    }

    /// Packs B (k, n) on all threads.
    ///
    /// # Panics
    /// When the memory is too small.
    pub fn parallel(b: View, memory: &'a mut [f32]) -> Self {
        Self::new(b, memory, true)
    }

    /// Packs B (k, n) on the calling thread.
    ///
    /// # Panics
    /// When the memory is too small.
    pub fn serial(b: View, memory: &'a mut [f32]) -> Self {
        Self::new(b, memory, false)
    }

    fn new(b: View, memory: &'a mut [f32], parallel: bool) -> Self {
        let panels = &mut memory[..Self::size(b.rows, b.columns)];
        pack_columns(b, panels, parallel);
        Self {
            panels: Panels {
                values: panels,
                depth: b.rows,
            },
            depth: b.rows,
            columns: b.columns,
        }
    }
}

/// C = start + A · B on all threads; C is row-major (m, n).
///
/// # Panics
/// When the sizes do not fit.
pub fn product(start: Start, a: View, b: View, c: &mut [f32]) {
    assert!(
        a.columns == b.rows && c.len() == a.rows * b.columns,
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
    let mut c = Tile::whole(c, b.columns);
    if a.rows * a.columns * b.columns < PARALLEL_MIN {
        return product_serial(start, a, b, &mut c);
    }
    profile::count_product(a.rows, b.columns, a.columns);
    let columns = b.columns.min(COLUMNS_MAX);
    let depth = (PACKED_MAX / columns)
        .next_multiple_of(DEPTH)
        .min(a.columns.max(1));
    for column in (0..b.columns).step_by(columns) {
        let columns = columns.min(b.columns - column);
        let mut start = start.columns(column, columns);
        for level in (0..a.columns.max(1)).step_by(depth) {
            let depth = depth.min(a.columns - level);
            let b = b.rows(level, level + depth).columns(column, column + columns);
            scratch::with(Packed::size(depth, columns), |memory| {
                let b = Packed::parallel(b, memory);
                let a = a.columns(level, level + depth);
                let register = this_register();
                let c = c.part(0, a.rows, column, columns);
                share((register.rows, register.columns), c, &|row, column, c| {
                    let start = start.columns(column, c.columns());
                    let panels = Panels {
                        values: &b.panels.values[column * a.columns..],
                        ..b.panels
                    };
                    block(start, a.rows(row, row + c.rows()), panels, c);
                });
            });
            start = Start::Accumulate;
        }
    }
}

/// C = start + A · B with B packed before, on the calling thread.
///
/// # Panics
/// When the sizes do not fit.
pub fn product_packed(start: Start, a: View, b: Packed, c: &mut Tile) {
    assert!(
        a.columns == b.depth && c.rows() == a.rows && c.columns() == b.columns,
        "({}, {}) · ({}, {}) into ({}, {})",
        a.rows,
        a.columns,
        b.depth,
        b.columns,
        c.rows(),
        c.columns()
    );
    profile::count_product(a.rows, b.columns, a.columns);
    block(start, a, b.panels, c);
}

/// C = start + A · B on the calling thread.
///
/// # Panics
/// When the sizes do not fit.
pub fn product_serial(start: Start, a: View, b: View, c: &mut Tile) {
    scratch::with(Packed::size(b.rows, b.columns), |memory| {
        product_packed(start, a, Packed::serial(b, memory), c);
    });
}

/// Runs `f` on pieces of C, with their first row and column, on all threads: by rows first, since each task packs its
/// rows of A, then by columns; whole register tiles of (rows, columns).
pub(super) fn share(register: (usize, usize), c: Tile, f: &(dyn Fn(usize, usize, &mut Tile) + Sync)) {
    let threads = rayon::current_num_threads();
    // Four tasks a thread even out what other processes take away.
    let wanted = 4 * threads;
    let panels_of_rows = c.rows().div_ceil(register.0);
    let row_panels = panels_of_rows.div_ceil(wanted).clamp(1, ROW_PANELS);
    let row_tasks = panels_of_rows.div_ceil(row_panels);
    let column_panels = c.columns().div_ceil(register.1);
    let column_tasks = wanted.div_ceil(row_tasks).min(column_panels);
    let column_panels = column_panels.div_ceil(column_tasks);
    let (rows, width) = (row_panels * register.0, column_panels * register.1);
    let across = c.columns().div_ceil(width);
    c.grid(rows, width)
        .into_par_iter()
        .enumerate()
        .for_each(|(task, mut c)| f(task / across * rows, task % across * width, &mut c));
}

/// Packs B (k, n) into panels of one register tile's columns: panel, depth, column.
fn pack_columns(b: View, panels: &mut [f32], parallel: bool) {
    if b.rows == 0 {
        return;
    }
    let width = this_register().columns;
    let pack = |(index, panel): (usize, &mut [f32])| {
        let from = index * width;
        let columns = b.columns(from, b.columns.min(from + width)).t();
        match width {
            32 => pack_panel::<32>(columns, panel),
            16 => pack_panel::<16>(columns, panel),
            12 => pack_panel::<12>(columns, panel),
            _ => pack_panel::<4>(columns, panel),
        }
    };
    if parallel {
        panels.par_chunks_mut(width * b.rows).enumerate().for_each(pack);
    } else {
        panels.chunks_mut(width * b.rows).enumerate().for_each(pack);
    }
}

/// Packs the rows of `x` (at most W) side by side: out[p · W + i] = x[i][p], zeros where x has no row.
fn pack_panel<const W: usize>(x: View, out: &mut [f32]) {
    let (out, _) = pulp::as_arrays_mut::<W, f32>(out);
    if x.row_step == 1 {
        // Depth-major already: runs are copied.
        for (p, out) in out.iter_mut().enumerate().take(x.columns) {
            let run = &x.data[p * x.column_step..][..x.rows];
            if let Ok(run) = <&[f32; W]>::try_from(run) {
                *out = *run;
            } else {
                out[..x.rows].copy_from_slice(run);
                out[x.rows..].fill(0.0);
            }
        }
        return;
    }
    debug_assert_eq!(x.column_step, 1);
    let done = whole_lines(x, out);
    for (p, out) in out.iter_mut().enumerate().take(x.columns).skip(done) {
        for (i, out) in out[..x.rows].iter_mut().enumerate() {
            *out = x.data[i * x.row_step + p];
        }
    }
    if x.rows < W {
        for out in &mut out[..x.columns] {
            out[x.rows..].fill(0.0);
        }
    }
}

/// Copies the rows of `x` one below the other, [`STRIDE`] apart. Below them is what was there before.
#[inline(always)]
fn copy_rows(x: View, out: &mut [f32]) {
    for (i, out) in out.chunks_exact_mut(STRIDE).enumerate().take(x.rows) {
        let row = &x.data[i * x.row_step..][..x.columns];
        // By cache lines: a call to copy a few of them would take longer than they do.
        let (lines, rest) = pulp::as_arrays::<LINE, f32>(row);
        let (out_lines, _) = pulp::as_arrays_mut::<LINE, f32>(out);
        for (out, line) in out_lines.iter_mut().zip(lines) {
            *out = *line;
        }
        for (out, &value) in out[x.columns - rest.len()..].iter_mut().zip(rest) {
            *out = value;
        }
    }
}

/// Packs `x`, whose columns are contiguous, into panels of M rows, [`STRIDE`] · M apart: panel, depth, row. One sweep over
/// the depth fills all panels, because a column is in one page and the next column in another.
#[inline(always)]
fn pack_rows<const M: usize>(x: View, out: &mut [f32]) {
    for p in 0..x.columns {
        let (whole, rest) = pulp::as_arrays::<M, f32>(&x.data[p * x.column_step..][..x.rows]);
        for (panel, rows) in whole.iter().enumerate() {
            out[panel * M * STRIDE + p * M..][..M].copy_from_slice(rows);
        }
        if !rest.is_empty() {
            let out = &mut out[whole.len() * M * STRIDE + p * M..][..M];
            out[..rest.len()].copy_from_slice(rest);
            out[rest.len()..].fill(0.0);
        }
    }
}

/// C = start + A · B with packed B, on the calling thread.
fn block(start: Start, a: View, panels: Panels, c: &mut Tile) {
    // Borrowed here: what is called through a closure would be compiled without the SIMD level's instructions.
    let rows = a.rows.next_multiple_of(this_register().rows);
    match Lies::of(a, rows) {
        Lies::RowsInPlace => dispatch::<BY_ROWS>(start, a, panels, &mut [], c),
        Lies::ColumnsInPlace => dispatch::<BY_COLUMNS>(start, a, panels, &mut [], c),
        Lies::Rows => scratch::with(rows * STRIDE, |copy| {
            dispatch::<BY_ROWS>(start, a, panels, copy, c);
        }),
        Lies::Panels => scratch::with(rows * STRIDE, |copy| {
            dispatch::<BY_PANELS>(start, a, panels, copy, c);
        }),
    }
}

fn dispatch<const BY: u8>(start: Start, a: View, panels: Panels, copy: &mut [f32], c: &mut Tile) {
    Arch::new().dispatch(PackedProduct::<BY> {
        start,
        a,
        panels,
        copy,
        c,
    });
}

/// How A lies in memory while register tiles are computed.
enum Lies {
    /// Rows [`STRIDE`] apart, where the caller has put them.
    RowsInPlace,
    /// Columns [`STRIDE`] apart, where the caller has put them.
    ColumnsInPlace,
    /// Copied to rows [`STRIDE`] apart.
    Rows,
    /// Copied to panels of a register tile's rows: panel, depth, row.
    Panels,
}

impl Lies {
    /// How A is read; `rows` are its rows rounded up to whole register tiles.
    fn of(a: View, rows: usize) -> Self {
        let columns_fit = a.row_step == 1 && a.column_step == STRIDE && rows <= STRIDE;
        let rows_fit = a.column_step == 1 && a.row_step == STRIDE && a.columns <= DEPTH;
        if columns_fit && a.data.len() >= a.columns * STRIDE {
            Self::ColumnsInPlace
        } else if rows_fit && a.data.len() >= rows * STRIDE {
            Self::RowsInPlace
        } else if a.row_step == 1 {
            Self::Panels
        } else {
            Self::Rows
        }
    }
}

/// Element (i, p) of A is at i · [`STRIDE`] + p.
const BY_ROWS: u8 = 0;
/// Element (i, p) of A is at p · M + i.
const BY_PANELS: u8 = 1;
/// Element (i, p) of A is at p · [`STRIDE`] + i.
const BY_COLUMNS: u8 = 2;

/// A product whose A is copied to where register tiles read it, or is read where it is if there is no memory for a copy.
struct PackedProduct<'a, 'c, 't, const BY: u8> {
    start: Start<'a>,
    a: View<'a>,
    panels: Panels<'a>,
    copy: &'c mut [f32],
    c: &'c mut Tile<'t>,
}

impl<const BY: u8> WithSimd for PackedProduct<'_, '_, '_, BY> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            16 => self.run::<S, 12, 2>(simd),
            8 => self.run::<S, 6, 2>(simd),
            4 => self.run::<S, 8, 3>(simd),
            _ => self.run::<S, 4, 4>(simd),
        }
    }
}

impl<const BY: u8> PackedProduct<'_, '_, '_, BY> {
    #[inline(always)]
    fn run<S: Simd, const M: usize, const N: usize>(self, simd: S) {
        let Self {
            mut start,
            a,
            panels,
            copy,
            c,
        } = self;
        let width = N * S::F32_LANES;
        let (m, n, k) = (a.rows, c.columns(), a.columns);
        let mut level = 0;
        // Once even if k = 0: C takes its start value.
        loop {
            let depth = DEPTH.min(k - level);
            let a = a.columns(level, level + depth);
            let values: &[f32] = if copy.is_empty() {
                a.data
            } else {
                match BY {
                    BY_PANELS => pack_rows::<M>(a, copy),
                    _ => copy_rows(a, copy),
                }
                copy
            };
            for column in (0..n).step_by(width) {
                let b = &panels.values[column * panels.depth + level * width..][..depth * width];
                let columns = width.min(n - column);
                let start = start.columns(column, columns);
                for row in (0..m).step_by(M) {
                    let a = match BY {
                        BY_COLUMNS => &values[row..],
                        _ => &values[row * STRIDE..][..M * STRIDE],
                    };
                    let mut c = c.part(row, M.min(m - row), column, columns);
                    register_tile::<S, M, N, BY>(simd, start, a, b, &mut c);
                }
            }
            start = Start::Accumulate;
            level += depth;
            if level >= k {
                break;
            }
        }
    }
}

/// N vectors from a row of that length.
#[inline(always)]
fn load_whole<S: Simd, const N: usize>(row: &[f32]) -> [S::f32s; N] {
    let (vectors, _) = S::as_simd_f32s(row);
    pulp::as_arrays::<N, S::f32s>(vectors).0[0]
}

/// N vectors from a row, zeros where it ends.
#[inline(always)]
fn load<S: Simd, const N: usize>(simd: S, row: &[f32]) -> [S::f32s; N] {
    let lanes = S::F32_LANES;
    if row.len() == N * lanes {
        return load_whole::<S, N>(row);
    }
    let mut vectors = [simd.splat_f32s(0.0); N];
    for (j, vector) in vectors.iter_mut().enumerate() {
        let (from, to) = (row.len().min(j * lanes), row.len().min((j + 1) * lanes));
        *vector = simd.partial_load_f32s(&row[from..to]);
    }
    vectors
}

/// One register tile: C (≤ M, ≤ N vectors) = start + a · b; a lies as `BY` says.
#[inline(always)]
fn register_tile<S: Simd, const M: usize, const N: usize, const BY: u8>(
    simd: S,
    start: Start,
    a: &[f32],
    b: &[f32],
    c: &mut Tile,
) {
    let lanes = S::F32_LANES;
    let columns = c.columns();
    let zero = simd.splat_f32s(0.0);
    let mut acc = [[zero; N]; M];
    match start {
        Start::Zero => {}
        Start::Row(row) => acc = [load(simd, row); M],
        Start::Accumulate => {
            for (i, acc) in acc.iter_mut().enumerate() {
                if i < c.rows() {
                    *acc = load(simd, c.row(i));
                }
            }
        }
    }
    let (b, _) = S::as_simd_f32s(b);
    let (b, _) = pulp::as_arrays::<N, S::f32s>(b);
    let (by_depth, _) = pulp::as_arrays::<M, f32>(a);
    let (by_stride, _) = pulp::as_arrays::<STRIDE, f32>(a);
    for (p, b) in b.iter().enumerate().take(DEPTH) {
        let rows: &[[f32; STRIDE]] = if BY == BY_ROWS { &by_stride[..M] } else { &[] };
        let column: &[f32] = match BY {
            BY_ROWS => &[],
            BY_PANELS => &by_depth[p],
            _ => &a[p * STRIDE..][..M],
        };
        for i in 0..M {
            let a = if BY == BY_ROWS { rows[i][p] } else { column[i] };
            let a = simd.splat_f32s(a);
            for j in 0..N {
                acc[i][j] = simd.mul_add_f32s(a, b[j], acc[i][j]);
            }
        }
    }
    for (i, acc) in acc.iter().enumerate() {
        if i < c.rows() {
            let row = c.row(i);
            if columns == N * lanes {
                let (vectors, _) = S::as_mut_simd_f32s(row);
                vectors[..N].copy_from_slice(acc);
            } else {
                for (j, &acc) in acc.iter().enumerate() {
                    let part = &mut row[columns.min(j * lanes)..columns.min((j + 1) * lanes)];
                    simd.partial_store_f32s(part, acc);
                }
            }
        }
    }
}
