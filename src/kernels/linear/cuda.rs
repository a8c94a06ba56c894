//! Linear layers on a CUDA device: what is launched, forwards and backwards. Other operations take their products from here.

use std::ops::Range;
use std::rc::Rc;

use dfdx::shapes::ConstDim;

use super::Linear;
use crate::error::{Error, Result};
use crate::kernels::Operation;
use crate::kernels::checks::check_part;
use crate::kernels::cuda::driver::{Address, Argument, DType, Epilogue, Product};
use crate::kernels::cuda::launch::{COLUMNS, THREADS, TOTALS, number};
use crate::kernels::cuda::weights::Weight;
use crate::kernels::cuda::{Act, Buffer, Cuda, Gradients, Matrix, Param};

/// Rows of a chunk of `column_sums`.
const CHUNK: usize = 128;

impl Linear for Cuda {
    fn linear<I: ConstDim, O: ConstDim>(
        &self,
        x: &Act<(usize, I)>,
        w: &Param<(O, I)>,
        b: Option<&Param<(O,)>>,
    ) -> Result<Act<(usize, O)>> {
        let bias = b.map(|b| &b.weight);
        self.linear_rows(&x.matrix, &w.weight, 0..O::SIZE, bias)
            .map(Self::act)
    }

    fn linear_part<I: ConstDim, O: ConstDim, P: ConstDim>(
        &self,
        x: &Act<(usize, I)>,
        w: &Param<(O, I)>,
        first: usize,
    ) -> Result<Act<(usize, P)>> {
        check_part(first, P::SIZE, O::SIZE)?;
        let outputs = first..first + P::SIZE;
        self.linear_rows(&x.matrix, &w.weight, outputs, None)
            .map(Self::act)
    }
}

impl Cuda {
    /// y = x · w[outputs]ᵀ, without a bias.
    pub(in crate::kernels) fn outputs_product(
        &self,
        x: &Matrix,
        w: &Weight,
        outputs: &Range<usize>,
        y: &Buffer,
    ) -> Product {
        let from = w.working.offset(outputs.start * x.columns * self.element.bytes());
        let operands = [self.operand(x.values.at(), false), self.operand(from, true)];
        let sizes = [x.rows, outputs.len(), x.columns];
        self.product(sizes, operands, y.at(), self.element, false)
    }

    fn linear_rows(
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

    pub(in crate::kernels) fn linear_backward(
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
        let blocks = self.packs(width).div_ceil(COLUMNS);
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
}
