//! The gated residual on a CUDA device: what is launched, forwards and backwards.

use std::rc::Rc;

use dfdx::shapes::ConstDim;

use super::GatedResidual;
use crate::error::Result;
use crate::kernels::checks::check_branch;
use crate::kernels::cuda::driver::{Argument, DType};
use crate::kernels::cuda::launch::{NORM_WARPS, THREADS, TOTALS, chunks, number};
use crate::kernels::cuda::{Act, Buffer, Cuda, Matrix};
use crate::kernels::{Dropout, Operation, TokenRows};

impl GatedResidual for Cuda {
    fn gated_residual<D: ConstDim, M: ConstDim>(
        &self,
        x: &Act<(usize, D)>,
        branch: &Act<(usize, D)>,
        modulation: &Act<(usize, M)>,
        gate: usize,
        dropout: Option<(Dropout, u32)>,
        rows: TokenRows<'_>,
    ) -> Result<Act<(usize, D)>> {
        self.residual_rows(
            [&x.matrix, &branch.matrix],
            &modulation.matrix,
            gate,
            dropout,
            rows,
        )
        .map(Self::act)
    }
}

impl Cuda {
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

    fn residual_rows(
        &self,
        [x, branch]: [&Matrix; 2],
        modulation: &Matrix,
        gate: usize,
        dropout: Option<(Dropout, u32)>,
        rows: TokenRows<'_>,
    ) -> Result<Matrix> {
        self.check_own(&[x, branch, modulation], &[])?;
        let (count, width) = (x.rows, x.columns);
        check_branch(branch.rows, count)?;
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
}
