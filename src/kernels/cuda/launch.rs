//! What operations share on a device: buffers, launches, products, gradients, and where the rows of a batch lie. What each of
//! them launches stands in its folder, in `cuda.rs`.

use std::rc::Rc;

use super::driver::{Address, Argument, Command, Constant, DType, Epilogue, Launch, Operand, Product, Value};
use super::queue::Buffer;
use super::weights::{Allocation, Weight};
use super::{Cuda, Gradients, Matrix, Slot, narrowed};
use crate::error::Result;
use crate::kernels::checks::{check_modulation, check_token_rows};
use crate::kernels::{Operation, TokenRows};

/// Bytes that one access moves.
const PACK: usize = 16;
/// Threads of a block that goes over a row, or over elements.
pub(in crate::kernels) const THREADS: usize = 256;
/// Threads of a block that goes over packs of columns, each down its own.
pub(in crate::kernels) const COLUMNS: usize = 128;
/// Columns whose partial sums a block adds up.
pub(in crate::kernels) const TOTALS: usize = 32;
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
pub(in crate::kernels) fn by_entry(entries: &[u32], count: usize) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
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
pub(in crate::kernels) fn padded(mut list: Vec<u32>, length: usize) -> Vec<u32> {
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
    pub(in crate::kernels) fn each_element(
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
    pub(in crate::kernels) fn each_pack(
        &self,
        operation: Operation,
        kernel: &'static str,
        constants: &[(&'static str, usize)],
        rows: usize,
        width: usize,
        arguments: &[Argument],
    ) {
        self.each_element(operation, kernel, constants, rows * self.packs(width), arguments);
    }

    /// Packs of elements of a row, or its elements where they do not make whole packs.
    pub(in crate::kernels) fn packs(&self, width: usize) -> usize {
        let lanes = PACK / self.element.bytes();
        if width.is_multiple_of(lanes) {
            width / lanes
        } else {
            width
        }
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
    pub(in crate::kernels) fn product(
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

    pub(in crate::kernels) fn push_product(&self, product: Product) {
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
    pub(in crate::kernels) fn gradient_arena(
        &self,
        gradients: &mut Gradients,
        arena: usize,
    ) -> Result<Address> {
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

    /// Queues a product with its epilogue, if the device has it.
    pub(in crate::kernels) fn fused(&self, product: Product) -> bool {
        let is_fused = !product.sizes.contains(&0) && self.queue.driver().fuses(&product);
        if is_fused {
            self.queue.push(Command::Multiply(product));
        }
        is_fused
    }
}
