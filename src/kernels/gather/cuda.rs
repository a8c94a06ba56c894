//! Gathering on a CUDA device: what is launched, forwards and backwards.

use dfdx::shapes::ConstDim;

use super::Gather;
use crate::error::Result;
use crate::kernels::Operation;
use crate::kernels::checks::check_indices;
use crate::kernels::cuda::driver::Argument;
use crate::kernels::cuda::launch::{by_entry, number, padded};
use crate::kernels::cuda::{Act, Cuda, Matrix};

impl Gather for Cuda {
    fn gather<D: ConstDim>(&self, x: &Act<(usize, D)>, rows: &[u32]) -> Result<Act<(usize, D)>> {
        self.gather_rows(&x.matrix, rows).map(Self::act)
    }
}

impl Cuda {
    fn gather_rows(&self, x: &Matrix, rows: &[u32]) -> Result<Matrix> {
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
