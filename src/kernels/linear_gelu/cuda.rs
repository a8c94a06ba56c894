//! Linear layers with GELU on a CUDA device: what is launched, forwards and backwards.

use std::cell::Cell;
use std::rc::Rc;

use dfdx::shapes::ConstDim;

use super::LinearGelu;
use crate::error::Result;
use crate::kernels::Operation;
use crate::kernels::cuda::driver::{Argument, Epilogue, Product};
use crate::kernels::cuda::launch::number;
use crate::kernels::cuda::weights::Weight;
use crate::kernels::cuda::{Act, Cuda, Inner, Matrix, Param};

impl LinearGelu for Cuda {
    fn linear_gelu<I: ConstDim, O: ConstDim>(
        &self,
        x: &Act<(usize, I)>,
        w: &Param<(O, I)>,
        b: &Param<(O,)>,
    ) -> Result<Act<(usize, O)>> {
        self.linear_gelu_rows(&x.matrix, &w.weight, &b.weight)
            .map(Self::act)
    }
}

impl Cuda {
    fn linear_gelu_rows(&self, x: &Matrix, w: &Rc<Weight>, b: &Rc<Weight>) -> Result<Matrix> {
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
}
