//! The operations on matrices of a device: what is launched, forwards and backwards. Formulas and gradients stand at the
//! head of each operation's folder; operations whose launches are more than a few have them there too, in `cuda.rs`.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use super::driver::{Address, Argument, Command, Constant, DType, Epilogue, Launch, Operand, Product, Value};
use super::queue::Buffer;
use super::weights::{Allocation, Weight};
use super::{Cuda, Gradients, Inner, Matrix, Slot, Tokens, narrowed};
use crate::error::{Error, Result};
use crate::kernels::checks::{check_indices, check_modulation, check_token_rows};
use crate::kernels::{Dropout, Operation, TokenRows};

/// Bytes that one access moves.
const PACK: usize = 16;
/// Threads of a block that goes over a row, or over elements.
pub(in crate::kernels) const THREADS: usize = 256;
/// Threads of a block that goes over packs of columns, each down its own.
const COLUMNS: usize = 128;
/// Columns whose partial sums a block adds up.
pub(in crate::kernels) const TOTALS: usize = 32;
/// Rows whose gradients a block of `embed_segments` adds up.
const SEGMENT: usize = 256;
/// Rows of a chunk of `column_sums`.
const CHUNK: usize = 128;
/// Blocks that sums over all rows are cut into, about: some for each of a large device's multiprocessors, and not more to be
/// added up than need be.
const CHUNKS: usize = 512;
/// Rows of such a chunk come in multiples of this: each warp of a block has as many.
const CHUNK_ROWS: usize = 8;
/// Rows of a block of the norm: a warp each.
pub(in crate::kernels) const NORM_WARPS: usize = 4;

pub(in crate::kernels) fn number(value: usize) -> Argument {
    // Sizes of a micro-batch; the device has no more memory than that.
    Argument::Number(u32::try_from(value).unwrap_or(u32::MAX))
}

/// The token rows that a matrix holds, on the device.
#[derive(Clone)]
pub(in crate::kernels) struct Places {
    /// Where each batch row's rows begin, and the last ones end.
    pub starts: Rc<Buffer>,
    /// The token rows, where they are listed.
    listed: Option<Rc<Buffer>>,
    pub length: usize,
    /// The most rows that a batch row can have.
    pub longest: usize,
    pub batch: usize,
}

impl Places {
    pub fn listed(&self) -> [Argument; 2] {
        // Of no meaning where nothing is listed.
        let at = self
            .listed
            .as_ref()
            .map_or(self.starts.at(), |listed| listed.at());
        [
            Argument::At(at),
            Argument::Number(u32::from(self.listed.is_some())),
        ]
    }
}

/// The rows of a gradient by the entry that they belong to: in what order, where each entry's begin (and the last ones
/// end), and the entries, ascending, of which there are `count`.
fn by_entry(entries: &[u32], count: usize) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    // A counting sort: within an entry in the order of the rows.
    let mut places = vec![0_u32; count + 1];
    for &entry in entries {
        places[entry as usize + 1] += 1;
    }
    for entry in 0..count {
        places[entry + 1] += places[entry];
    }
    let mut order = vec![0_u32; entries.len()];
    for (row, &entry) in (0_u32..).zip(entries) {
        let place = &mut places[entry as usize];
        order[*place as usize] = row;
        *place += 1;
    }
    let (mut starts, mut distinct) = (Vec::new(), Vec::new());
    for (i, &row) in order.iter().enumerate() {
        let entry = entries[row as usize];
        if distinct.last() != Some(&entry) {
            distinct.push(entry);
            starts.push(i as u32);
        }
    }
    starts.push(entries.len() as u32);
    (order, starts, distinct)
}

/// A list whose length does not depend on what is in it, its end repeated.
fn padded(mut list: Vec<u32>, length: usize) -> Vec<u32> {
    let last = list.last().copied().unwrap_or(0);
    list.resize(length, last);
    list
}

/// Rows of a chunk, and chunks of each of `batch` modulation rows, of which one has `longest` rows at most.
pub(in crate::kernels) fn chunks(longest: usize, batch: usize) -> (usize, usize) {
    let rows = (longest * batch).div_ceil(CHUNKS).next_multiple_of(CHUNK_ROWS);
    let rows = rows.min(longest.next_multiple_of(CHUNK_ROWS)).max(CHUNK_ROWS);
    (rows, longest.div_ceil(rows).max(1))
}

impl Cuda {
    pub(in crate::kernels) fn matrix(&self, values: Buffer, rows: usize, columns: usize) -> Matrix {
        Matrix {
            values: Rc::new(values),
            element: self.element,
            rows,
            columns,
            gradient: Slot::default(),
            is_input: false,
            inner: None,
        }
    }

    /// A buffer of so many elements.
    pub(in crate::kernels) fn elements(&self, count: usize) -> Buffer {
        self.queue.buffer(count * self.element.bytes())
    }

    pub(in crate::kernels) fn floats(&self, count: usize) -> Buffer {
        self.queue.buffer(count * DType::F32.bytes())
    }

    pub(in crate::kernels) fn numbers(&self, numbers: &[u32]) -> Rc<Buffer> {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Rc::new(self.queue.upload(&bytes))
    }

    /// Floats of the host's.
    pub(in crate::kernels) fn constants(&self, values: &[f32]) -> Buffer {
        self.queue.upload(&narrowed(values, DType::F32))
    }

    #[expect(clippy::too_many_arguments, reason = "a launch has as many parts")]
    pub(in crate::kernels) fn run(
        &self,
        operation: Operation,
        kernel: &'static str,
        constants: &[(&'static str, usize)],
        grid: [usize; 3],
        threads: usize,
        shared: usize,
        arguments: &[Argument],
    ) {
        let constants: Vec<Constant> = constants
            .iter()
            .map(|(name, value)| (*name, Value::Whole(*value)))
            .collect();
        self.launch(operation, kernel, &constants, grid, threads, shared, arguments);
    }

    #[expect(clippy::too_many_arguments, reason = "a launch has as many parts")]
    pub(in crate::kernels) fn launch(
        &self,
        operation: Operation,
        kernel: &'static str,
        constants: &[Constant],
        grid: [usize; 3],
        threads: usize,
        shared: usize,
        arguments: &[Argument],
    ) {
        if grid.contains(&0) {
            return;
        }
        self.queue.push(Command::Launch(Launch {
            kernels: operation.kernels(),
            kernel,
            element: self.element,
            constants: constants.to_vec(),
            grid,
            threads,
            shared,
            arguments: arguments.to_vec(),
        }));
    }

    /// One thread an element.
    fn each_element(
        &self,
        operation: Operation,
        kernel: &'static str,
        constants: &[(&'static str, usize)],
        count: usize,
        arguments: &[Argument],
    ) {
        let blocks = count.div_ceil(THREADS);
        self.run(
            operation,
            kernel,
            constants,
            [blocks, 1, 1],
            THREADS,
            0,
            arguments,
        );
    }

    /// One thread for each pack of elements of rows, or for each element where rows are not made of whole packs.
    fn each_pack(
        &self,
        operation: Operation,
        kernel: &'static str,
        constants: &[(&'static str, usize)],
        rows: usize,
        width: usize,
        arguments: &[Argument],
    ) {
        let lanes = PACK / self.element.bytes();
        let packs = if width.is_multiple_of(lanes) {
            width / lanes
        } else {
            width
        };
        self.each_element(operation, kernel, constants, rows * packs, arguments);
    }

    /// One block a row.
    pub(in crate::kernels) fn each_row(
        &self,
        operation: Operation,
        kernel: &'static str,
        constants: &[(&'static str, usize)],
        rows: usize,
        shared: usize,
        arguments: &[Argument],
    ) {
        self.run(
            operation,
            kernel,
            constants,
            [rows, 1, 1],
            THREADS,
            shared,
            arguments,
        );
    }

    /// A product of the backend's elements, c = a · b, or c += a · b.
    fn product(
        &self,
        sizes: [usize; 3],
        [a, b]: [Operand; 2],
        c: Address,
        element: DType,
        accumulate: bool,
    ) -> Product {
        Product {
            sizes,
            a,
            b,
            c,
            element,
            accumulate,
            tf32: self.tf32,
            epilogue: Epilogue::Plain,
        }
    }

    /// c = a · b, or c += a · b.
    pub(in crate::kernels) fn multiply(
        &self,
        sizes: [usize; 3],
        operands: [Operand; 2],
        c: Address,
        element: DType,
        accumulate: bool,
    ) {
        self.push_product(self.product(sizes, operands, c, element, accumulate));
    }

    fn push_product(&self, product: Product) {
        if !product.sizes.contains(&0) {
            self.queue.push(Command::Multiply(product));
        }
    }

    pub(in crate::kernels) fn operand(&self, at: Address, transposed: bool) -> Operand {
        Operand {
            at,
            element: self.element,
            transposed,
        }
    }

    /// Where a weight's gradient gathers.
    pub(in crate::kernels) fn weight_gradient(
        &self,
        gradients: &mut Gradients,
        weight: &Weight,
    ) -> Result<Address> {
        let arena = self.gradient_arena(gradients, weight.arena)?;
        Ok(arena.offset(weight.offset * DType::F32.bytes()))
    }

    /// Where the gradients of an arena of weights gather.
    pub(super) fn gradient_arena(&self, gradients: &mut Gradients, arena: usize) -> Result<Address> {
        if let Some(there) = gradients.arenas.get(&arena) {
            return Ok(there.at());
        }
        let bytes = self.arenas.borrow()[arena].count * DType::F32.bytes();
        let new = Allocation::new(&self.queue, bytes)?;
        let at = new.at();
        self.queue.push(Command::Clear { at, bytes });
        gradients.arenas.insert(arena, new);
        Ok(at)
    }

    /// Gives an activation a gradient, on top of what it has.
    pub(in crate::kernels) fn give(&self, slot: &Slot, gradient: Buffer) {
        let there = slot.borrow_mut().take();
        let sum = match there {
            None => gradient,
            Some(sum) => {
                let count = sum.bytes() / self.element.bytes();
                let arguments = [Argument::At(gradient.at()), Argument::At(sum.at()), number(count)];
                // The width is of no meaning to it; the same as elsewhere, so that nothing is compiled for it alone.
                let threads = count.div_ceil(PACK / self.element.bytes());
                self.each_element(
                    Operation::Linear,
                    "add_elements",
                    &[("WIDTH", 1)],
                    threads,
                    &arguments,
                );
                sum
            }
        };
        *slot.borrow_mut() = Some(sum);
    }

    /// An activation's gradient to write to, and whether it has to be added to.
    pub(in crate::kernels) fn target(&self, slot: &Slot, count: usize) -> (Buffer, bool) {
        match slot.borrow_mut().take() {
            Some(there) => (there, true),
            None => (self.elements(count), false),
        }
    }

    /// An activation's gradient to add to.
    pub(in crate::kernels) fn sum(&self, slot: &Slot, count: usize) -> Buffer {
        let there = slot.borrow_mut().take();
        there.unwrap_or_else(|| self.queue.zeros(count * self.element.bytes()))
    }

    pub(in crate::kernels) fn places(
        &self,
        rows: TokenRows<'_>,
        count: usize,
        batch: usize,
    ) -> Result<Places> {
        check_token_rows(rows, count, batch)?;
        Ok(self.spread(rows, &rows.starts(batch, count), count, batch))
    }

    /// The places of a modulation's rows: all rows use its only one, or each batch row its own.
    pub(in crate::kernels) fn modulated(
        &self,
        rows: TokenRows<'_>,
        count: usize,
        modulation: &Matrix,
        width: usize,
        chunks: &[usize],
    ) -> Result<Places> {
        check_modulation(rows, count, width, (modulation.rows, modulation.columns), chunks)?;
        if modulation.rows == 1 {
            return Ok(self.spread(rows, &[0, count], count, 1));
        }
        Ok(self.spread(rows, &rows.starts(modulation.rows, count), count, modulation.rows))
    }

    fn spread(&self, rows: TokenRows<'_>, starts: &[usize], count: usize, batch: usize) -> Places {
        let starts: Vec<u32> = starts.iter().map(|&start| start as u32).collect();
        Places {
            starts: self.numbers(&starts),
            listed: rows.listed.map(|listed| self.numbers(listed)),
            length: rows.length,
            // What rows are listed must not show in what is launched.
            longest: if batch == 1 { count } else { rows.length.min(count) },
            batch,
        }
    }

    pub(super) fn embed_rows(
        &self,
        table: &Rc<Weight>,
        width: usize,
        entries: usize,
        tokens: &Tokens,
    ) -> Result<Matrix> {
        self.check_own(&[], &[table])?;
        if let Some(known) = &tokens.known {
            check_indices("token", known, entries)?;
        }
        let count = tokens.count;
        let y = self.elements(count * width);
        let constants = [("WIDTH", width)];
        let at = [table.working, tokens.there.at(), y.at()].map(Argument::At);
        let arguments = [&at[..], &[number(count)]].concat();
        self.each_pack(
            Operation::Embed,
            "embed_forward",
            &constants,
            count,
            width,
            &arguments,
        );
        let y = self.matrix(y, count, width);
        if self.is_recording() {
            let tokens = tokens.known.clone().ok_or_else(|| {
                Error::internal("the gradient of an embedding of tokens that only the device knows")
            })?;
            let (table, slot) = (Rc::clone(table), y.gradient.clone());
            self.push(move |cuda, gradients| {
                let Some(dy) = slot.borrow_mut().take() else {
                    return Ok(());
                };
                let (order, starts, distinct) = by_entry(&tokens, entries);
                // Entries' rows cut into segments.
                let (mut cuts, mut segments) = (Vec::new(), Vec::new());
                for pair in starts.windows(2) {
                    segments.push(cuts.len() as u32);
                    cuts.extend((pair[0]..pair[1]).step_by(SEGMENT));
                }
                segments.push(cuts.len() as u32);
                cuts.push(tokens.len() as u32);
                // However the tokens are spread, there are no more entries and segments than these: the others are empty.
                let most_entries = tokens.len().min(entries);
                let most_segments = most_entries + tokens.len() / SEGMENT;
                let [cuts, segments] = [(cuts, most_segments), (segments, most_entries)]
                    .map(|(list, most)| cuda.numbers(&padded(list, most + 1)));
                let partial = cuda.floats(most_segments * width);
                let order = cuda.numbers(&order);
                let arguments = [dy.at(), order.at(), cuts.at(), partial.at()].map(Argument::At);
                let blocks = [most_segments, 1, 1];
                cuda.run(
                    Operation::Embed,
                    "embed_segments",
                    &constants,
                    blocks,
                    COLUMNS,
                    0,
                    &arguments,
                );
                let to = cuda.weight_gradient(gradients, &table)?;
                let distinct = cuda.numbers(&padded(distinct, most_entries));
                let arguments = [partial.at(), distinct.at(), segments.at(), to].map(Argument::At);
                let blocks = [most_entries, 1, 1];
                cuda.run(
                    Operation::Embed,
                    "embed_entries",
                    &constants,
                    blocks,
                    COLUMNS,
                    0,
                    &arguments,
                );
                Ok(())
            });
        }
        Ok(y)
    }

    /// y = x · w[outputs]ᵀ, without a bias.
    fn outputs_product(&self, x: &Matrix, w: &Weight, outputs: &Range<usize>, y: &Buffer) -> Product {
        let from = w.working.offset(outputs.start * x.columns * self.element.bytes());
        let operands = [self.operand(x.values.at(), false), self.operand(from, true)];
        let sizes = [x.rows, outputs.len(), x.columns];
        self.product(sizes, operands, y.at(), self.element, false)
    }

    /// Queues a product with its epilogue, if the device has it.
    fn fused(&self, product: Product) -> bool {
        let is_fused = !product.sizes.contains(&0) && self.queue.driver().fuses(&product);
        if is_fused {
            self.queue.push(Command::Multiply(product));
        }
        is_fused
    }

    pub(super) fn linear_rows(
        &self,
        x: &Matrix,
        w: &Rc<Weight>,
        outputs: Range<usize>,
        b: Option<&Rc<Weight>>,
    ) -> Result<Matrix> {
        self.check_own(&[x], &b.map_or_else(|| vec![&**w], |b| vec![&**w, &**b]))?;
        let y = self.elements(x.rows * outputs.len());
        let product = self.outputs_product(x, w, &outputs, &y);
        let biased = b.is_some_and(|b| {
            self.fused(Product {
                epilogue: Epilogue::Bias(b.working),
                ..product
            })
        });
        if !biased {
            self.push_product(product);
            if let Some(b) = b {
                let at = [b.master, y.at()].map(Argument::At);
                let arguments = [&at[..], &[number(x.rows)]].concat();
                let width = outputs.len();
                self.each_pack(
                    Operation::Linear,
                    "add_bias",
                    &[("WIDTH", width)],
                    x.rows,
                    width,
                    &arguments,
                );
            }
        }
        let y = self.matrix(y, x.rows, outputs.len());
        if self.is_recording() {
            let (x, w, b, slot) = (x.clone(), Rc::clone(w), b.cloned(), y.gradient.clone());
            self.push(move |cuda, gradients| {
                let Some(dy) = slot.borrow_mut().take() else {
                    return Ok(());
                };
                cuda.linear_backward(&dy, &x, &w, outputs, b.as_deref(), gradients)
            });
        }
        Ok(y)
    }

    fn linear_backward(
        &self,
        dy: &Buffer,
        x: &Matrix,
        w: &Weight,
        outputs: Range<usize>,
        b: Option<&Weight>,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let first = outputs.start * x.columns;
        let dw = self
            .weight_gradient(gradients, w)?
            .offset(first * DType::F32.bytes());
        let db = b.map(|b| self.weight_gradient(gradients, b)).transpose()?;
        let sizes = [outputs.len(), x.columns, x.rows];
        self.add_gradients(sizes, dy.at(), x.values.at(), dw, db);
        let (dx, add) = self.target(&x.gradient, x.rows * x.columns);
        let from = w.working.offset(first * self.element.bytes());
        let operands = [self.operand(dy.at(), false), self.operand(from, false)];
        let sizes = [x.rows, x.columns, outputs.len()];
        let product = self.product(sizes, operands, dx.at(), self.element, add);
        let reached = x.inner.as_ref().is_some_and(|inner| {
            let epilogue = Epilogue::GeluGradient {
                kept: inner.values.at(),
            };
            !add && self.fused(Product { epilogue, ..product })
        });
        if !reached {
            self.push_product(product);
        }
        if let Some(inner) = &x.inner {
            if add && inner.is_reached.get() {
                return Err(Error::internal("two readers of a GELU's output"));
            }
            inner.is_reached.set(reached);
        }
        *x.gradient.borrow_mut() = Some(dx);
        Ok(())
    }

    /// dw += dyᵀ · x and db += the sums of dy's columns, for sizes (outputs, inputs, rows). The product makes the sums if
    /// the device knows how: it has read dy anyway. It stores them, so that they still have to be added.
    pub(in crate::kernels) fn add_gradients(
        &self,
        sizes: [usize; 3],
        dy: Address,
        x: Address,
        dw: Address,
        db: Option<Address>,
    ) {
        let [outputs, _, rows] = sizes;
        let operands = [self.operand(dy, true), self.operand(x, false)];
        let product = self.product(sizes, operands, dw, DType::F32, true);
        if let Some(db) = db {
            let sums = self.floats(outputs);
            let epilogue = Epilogue::RowSums(sums.at());
            if self.fused(Product { epilogue, ..product }) {
                return self.add_partial_sums(sums.at(), 1, outputs, db);
            }
            drop(sums);
            self.add_column_sums(dy, rows, outputs, db);
        }
        self.push_product(product);
    }

    /// total += the sums of the columns of y (rows, width).
    fn add_column_sums(&self, y: Address, rows: usize, width: usize, total: Address) {
        let chunks = rows.div_ceil(CHUNK);
        let partial = self.floats(chunks * width);
        let constants = [("WIDTH", width)];
        let lanes = PACK / self.element.bytes();
        let packs = if width.is_multiple_of(lanes) {
            width / lanes
        } else {
            width
        };
        let blocks = packs.div_ceil(COLUMNS);
        let arguments = [
            Argument::At(y),
            Argument::At(partial.at()),
            number(rows),
            number(CHUNK),
        ];
        self.run(
            Operation::Linear,
            "column_sums",
            &constants,
            [blocks, chunks, 1],
            COLUMNS,
            0,
            &arguments,
        );
        self.add_partial_sums(partial.at(), chunks, width, total);
    }

    pub(in crate::kernels) fn add_partial_sums(
        &self,
        partial: Address,
        chunks: usize,
        width: usize,
        total: Address,
    ) {
        let arguments = [Argument::At(partial), Argument::At(total), number(chunks)];
        self.run(
            Operation::Linear,
            "add_partial_sums",
            &[("WIDTH", width)],
            [width.div_ceil(TOTALS), 1, 1],
            THREADS,
            THREADS * DType::F32.bytes(),
            &arguments,
        );
    }

    pub(super) fn linear_gelu_rows(&self, x: &Matrix, w: &Rc<Weight>, b: &Rc<Weight>) -> Result<Matrix> {
        let width = b.count;
        self.check_own(&[x], &[w, b])?;
        let u = self.elements(x.rows * width);
        let y = self.elements(x.rows * width);
        let constants = [("WIDTH", width)];
        let product = self.outputs_product(x, w, &(0..width), &y);
        let epilogue = Epilogue::Gelu {
            bias: b.working,
            kept: u.at(),
        };
        if !self.fused(Product { epilogue, ..product }) {
            self.push_product(Product { c: u.at(), ..product });
            let at = [b.master, u.at(), y.at()].map(Argument::At);
            let arguments = [&at[..], &[number(x.rows)]].concat();
            self.each_pack(
                Operation::LinearGelu,
                "bias_gelu",
                &constants,
                x.rows,
                width,
                &arguments,
            );
        }
        let mut y = self.matrix(y, x.rows, width);
        if self.is_recording() {
            let inner = Rc::new(Inner {
                values: u,
                is_reached: Cell::default(),
            });
            y.inner = Some(Rc::clone(&inner));
            let (x, w, b, slot) = (x.clone(), Rc::clone(w), Rc::clone(b), y.gradient.clone());
            self.push(move |cuda, gradients| {
                let Some(dy) = slot.borrow_mut().take() else {
                    return Ok(());
                };
                if !inner.is_reached.get() {
                    let at = [inner.values.at(), dy.at()].map(Argument::At);
                    let arguments = [&at[..], &[number(x.rows)]].concat();
                    cuda.each_pack(
                        Operation::LinearGelu,
                        "gelu_backward",
                        &constants,
                        x.rows,
                        width,
                        &arguments,
                    );
                }
                drop(inner);
                cuda.linear_backward(&dy, &x, &w, 0..width, Some(&b), gradients)
            });
        }
        Ok(y)
    }

    pub(super) fn silu_rows(&self, x: &Matrix) -> Result<Matrix> {
        self.check_own(&[x], &[])?;
        let count = x.rows * x.columns;
        let y = self.elements(count);
        let arguments = [Argument::At(x.values.at()), Argument::At(y.at()), number(count)];
        self.each_element(Operation::Silu, "silu_forward", &[], count, &arguments);
        let y = self.matrix(y, x.rows, x.columns);
        if self.is_recording() {
            let (x, slot) = (x.clone(), y.gradient.clone());
            self.push(move |cuda, _| {
                let Some(dy) = slot.borrow_mut().take() else {
                    return Ok(());
                };
                let (dx, add) = cuda.target(&x.gradient, count);
                let at = [x.values.at(), dy.at(), dx.at()].map(Argument::At);
                let arguments = [&at[..], &[number(count), number(usize::from(add))]].concat();
                cuda.each_element(Operation::Silu, "silu_backward", &[], count, &arguments);
                *x.gradient.borrow_mut() = Some(dx);
                Ok(())
            });
        }
        Ok(y)
    }

    /// What a kernel needs to know of dropout: key, step and first row in memory; threshold, scale and site as numbers.
    fn drops(&self, dropout: Option<(Dropout, u32)>) -> (Rc<Buffer>, [Argument; 3]) {
        let words = |dropout: &Dropout| {
            let ([first, second], step, row) = (dropout.random.key(), dropout.step, dropout.first_row);
            let halves = |x: u64| [x as u32, (x >> 32) as u32];
            let ([step, step_high], [row, row_high]) = (halves(step), halves(row));
            [first, second, step, step_high, row, row_high]
        };
        let wanted = dropout.as_ref().map_or([0; 6], |(dropout, _)| words(dropout));
        let arguments = match &dropout {
            None => [Argument::Number(0), Argument::Real(1.0), Argument::Number(0)],
            Some((dropout, site)) => [
                Argument::Number(dropout.threshold()),
                Argument::Real(1.0 / (1.0 - dropout.rate)),
                Argument::Number(*site),
            ],
        };
        if let Some((known, buffer)) = &*self.random.borrow()
            && *known == wanted
        {
            return (Rc::clone(buffer), arguments);
        }
        let buffer = self.numbers(&wanted);
        *self.random.borrow_mut() = Some((wanted, Rc::clone(&buffer)));
        (buffer, arguments)
    }

    pub(super) fn residual_rows(
        &self,
        [x, branch]: [&Matrix; 2],
        modulation: &Matrix,
        gate: usize,
        dropout: Option<(Dropout, u32)>,
        rows: TokenRows<'_>,
    ) -> Result<Matrix> {
        self.check_own(&[x, branch, modulation], &[])?;
        let (count, width) = (x.rows, x.columns);
        if branch.rows != count {
            return Err(Error::internal(format!(
                "a branch of {} rows for {count}",
                branch.rows
            )));
        }
        let places = self.modulated(rows, count, modulation, width, &[gate])?;
        let constants = [
            ("WIDTH", width),
            ("COLUMNS", modulation.columns),
            ("GATE", gate * width),
            ("LENGTH", places.length),
        ];
        let shared = number(usize::from(modulation.rows == 1));
        let (random, drops) = self.drops(dropout);
        let y = self.elements(count * width);
        let at = [x.values.at(), branch.values.at(), modulation.values.at(), y.at()].map(Argument::At);
        let arguments = [
            &at[..],
            &places.listed(),
            &[number(count), shared, Argument::At(random.at())],
            &drops,
        ]
        .concat();
        self.each_pack(
            Operation::GatedResidual,
            "residual_forward",
            &constants,
            count,
            width,
            &arguments,
        );
        let y = self.matrix(y, count, width);
        if self.is_recording() {
            let (x, branch, modulation, slot) = (
                x.gradient.clone(),
                branch.clone(),
                modulation.clone(),
                y.gradient.clone(),
            );
            self.push(move |cuda, _| {
                let Some(dy) = slot.borrow_mut().take() else {
                    return Ok(());
                };
                let (chunk, chunks) = chunks(places.longest, places.batch);
                let dbranch = cuda.elements(count * width);
                let partial = cuda.floats(places.batch * chunks * width);
                let at = [
                    branch.values.at(),
                    modulation.values.at(),
                    dy.at(),
                    places.starts.at(),
                    dbranch.at(),
                    partial.at(),
                ];
                let arguments = [
                    &at.map(Argument::At)[..],
                    &[number(chunk)],
                    &places.listed(),
                    &[Argument::At(random.at())],
                    &drops,
                ]
                .concat();
                cuda.run(
                    Operation::GatedResidual,
                    "residual_backward",
                    &constants,
                    [chunks, places.batch, 1],
                    NORM_WARPS * 32,
                    NORM_WARPS * width * DType::F32.bytes(),
                    &arguments,
                );
                if !modulation.is_input {
                    let dmodulation = cuda.sum(&modulation.gradient, modulation.rows * modulation.columns);
                    let at = [partial.at(), dmodulation.at()].map(Argument::At);
                    cuda.run(
                        Operation::GatedResidual,
                        "residual_gates",
                        &constants,
                        [width.div_ceil(TOTALS), places.batch, 1],
                        THREADS,
                        THREADS * DType::F32.bytes(),
                        &[&at[..], &[number(chunks)]].concat(),
                    );
                    *modulation.gradient.borrow_mut() = Some(dmodulation);
                }
                cuda.give(&branch.gradient, dbranch);
                cuda.give(&x, dy);
                Ok(())
            });
        }
        Ok(y)
    }

    pub(super) fn gather_rows(&self, x: &Matrix, rows: &[u32]) -> Result<Matrix> {
        self.check_own(&[x], &[])?;
        check_indices("row", rows, x.rows)?;
        let width = x.columns;
        let y = self.elements(rows.len() * width);
        let list = self.numbers(rows);
        let constants = [("WIDTH", width)];
        let at = [x.values.at(), list.at(), y.at()].map(Argument::At);
        let arguments = [&at[..], &[number(rows.len())]].concat();
        self.each_pack(
            Operation::Gather,
            "gather_forward",
            &constants,
            rows.len(),
            width,
            &arguments,
        );
        let y = self.matrix(y, rows.len(), width);
        if self.is_recording() {
            let (into, from, count) = (x.gradient.clone(), x.rows, x.rows * width);
            let (slot, rows) = (y.gradient.clone(), rows.to_vec());
            self.push(move |cuda, _| {
                let Some(dy) = slot.borrow_mut().take() else {
                    return Ok(());
                };
                let dx = cuda.sum(&into, count);
                let (order, starts, entries) = by_entry(&rows, from);
                let most = rows.len();
                let [order, entries] = [order, padded(entries, most)].map(|list| cuda.numbers(&list));
                let starts = cuda.numbers(&padded(starts, most + 1));
                let at = [dy.at(), order.at(), starts.at(), entries.at(), dx.at()].map(Argument::At);
                let arguments = [&at[..], &[number(most)]].concat();
                cuda.each_pack(
                    Operation::Gather,
                    "gather_backward",
                    &constants,
                    most,
                    width,
                    &arguments,
                );
                *into.borrow_mut() = Some(dx);
                Ok(())
            });
        }
        Ok(y)
    }
}
