//! SiLU on a CUDA device: what is launched, forwards and backwards.

use dfdx::shapes::ConstDim;

use super::Silu;
use crate::error::Result;
use crate::kernels::Operation;
use crate::kernels::cuda::driver::Argument;
use crate::kernels::cuda::launch::number;
use crate::kernels::cuda::{Act, Cuda, Matrix};

impl Silu for Cuda {
    fn silu<N: ConstDim>(&self, x: &Act<(usize, N)>) -> Result<Act<(usize, N)>> {
        self.silu_rows(&x.matrix).map(Self::act)
    }
}

impl Cuda {
    fn silu_rows(&self, x: &Matrix) -> Result<Matrix> {
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
}
