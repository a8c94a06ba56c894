//! The modulated norm on a CUDA device: what is launched, forwards and backwards.

use std::rc::Rc;

use dfdx::shapes::ConstDim;

use super::ModulatedNorm;
use crate::error::Result;
use crate::kernels::cuda::driver::{Argument, DType};
use crate::kernels::cuda::launch::{NORM_WARPS, THREADS, TOTALS, chunks, number};
use crate::kernels::cuda::weights::Weight;
use crate::kernels::cuda::{Act, Cuda, Matrix, Param};
use crate::kernels::{Operation, TokenRows};

impl ModulatedNorm for Cuda {
    fn modulated_norm<D: ConstDim, M: ConstDim>(
        &self,
        x: &Act<(usize, D)>,
        weight: &Param<(D,)>,
        modulation: &Act<(usize, M)>,
        shift: usize,
        scale: usize,
        rows: TokenRows<'_>,
    ) -> Result<Act<(usize, D)>> {
        let chunks = [shift, scale];
        self.norm_rows(&x.matrix, &weight.weight, &modulation.matrix, chunks, rows)
            .map(Self::act)
    }
}

impl Cuda {
    fn norm_rows(
        &self,
        x: &Matrix,
        weight: &Rc<Weight>,
        modulation: &Matrix,
        [shift, scale]: [usize; 2],
        rows: TokenRows<'_>,
    ) -> Result<Matrix> {
        self.check_own(&[x, modulation], &[weight])?;
        let (count, width) = (x.rows, x.columns);
        let places = self.modulated(rows, count, modulation, width, &[shift, scale])?;
        let constants = [
            ("WIDTH", width),
            ("COLUMNS", modulation.columns),
            ("SHIFT", shift * width),
            ("SCALE", scale * width),
            ("LENGTH", places.length),
        ];
        let shared = number(usize::from(modulation.rows == 1));
        let y = self.elements(count * width);
        let statistics = self.floats(2 * count);
        let at = [
            x.values.at(),
            weight.master,
            modulation.values.at(),
            y.at(),
            statistics.at(),
        ]
        .map(Argument::At);
        let arguments = [&at[..], &places.listed(), &[number(count), shared]].concat();
        let blocks = [count.div_ceil(NORM_WARPS), 1, 1];
        self.run(
            Operation::ModulatedNorm,
            "norm_forward",
            &constants,
            blocks,
            NORM_WARPS * 32,
            0,
            &arguments,
        );
        let y = self.matrix(y, count, width);
        if self.is_recording() {
            let (x, weight, modulation, slot) = (
                x.clone(),
                Rc::clone(weight),
                modulation.clone(),
                y.gradient.clone(),
            );
            self.push(move |cuda, gradients| {
                let Some(dy) = slot.borrow_mut().take() else {
                    return Ok(());
                };
                let (chunk, chunks) = chunks(places.longest, places.batch);
                let partial = cuda.floats(places.batch * chunks * 2 * width);
                let (dx, add) = cuda.target(&x.gradient, count * width);
                let at = [
                    x.values.at(),
                    weight.master,
                    modulation.values.at(),
                    statistics.at(),
                    dy.at(),
                    dx.at(),
                    places.starts.at(),
                    partial.at(),
                ];
                let numbers = [number(chunk), number(usize::from(add))];
                cuda.run(
                    Operation::ModulatedNorm,
                    "norm_backward",
                    &constants,
                    [chunks, places.batch, 1],
                    NORM_WARPS * 32,
                    NORM_WARPS * 2 * width * DType::F32.bytes(),
                    &[&at.map(Argument::At)[..], &numbers].concat(),
                );
                let dmodulation = cuda.sum(&modulation.gradient, modulation.rows * modulation.columns);
                let weights = cuda.floats(places.batch * width);
                let at = [
                    weight.master,
                    modulation.values.at(),
                    partial.at(),
                    dmodulation.at(),
                    weights.at(),
                ];
                cuda.run(
                    Operation::ModulatedNorm,
                    "norm_parameters",
                    &constants,
                    [width.div_ceil(TOTALS), places.batch, 1],
                    THREADS,
                    THREADS * DType::F32.bytes(),
                    &[&at.map(Argument::At)[..], &[number(chunks)]].concat(),
                );
                *modulation.gradient.borrow_mut() = Some(dmodulation);
                let dweight = cuda.weight_gradient(gradients, &weight)?;
                cuda.add_partial_sums(weights.at(), places.batch, width, dweight);
                *x.gradient.borrow_mut() = Some(dx);
                Ok(())
            });
        }
        Ok(y)
    }
}
