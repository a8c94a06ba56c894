//! The readout on a CUDA device: products and kernels, chunk of rows by chunk.

use std::rc::Rc;

use dfdx::shapes::ConstDim;

use super::{Constants, Loss, Readout, ReadoutRequest};
use crate::error::Result;
use crate::kernels::Operation;
use crate::kernels::cuda::driver::{Argument, DType};
use crate::kernels::cuda::launch::number;
use crate::kernels::cuda::weights::{ROWS, Weight};
use crate::kernels::cuda::{Act, Buffer, Cuda, Matrix, Param};

/// Bytes that logits and their gradients may take: a chunk of rows has so many.
const LOGITS: usize = 256 << 20;
/// Threads of the one block that adds up losses.
const TOTAL_THREADS: usize = 256;

/// The number of a loss in `readout.cu`.
fn loss_number(loss: Loss) -> usize {
    match loss {
        Loss::CrossEntropy => 0,
        Loss::AbsorbingKl => 1,
        Loss::ScoreEntropy => 2,
    }
}

impl Readout for Cuda {
    fn readout<V: ConstDim, D: ConstDim>(
        &self,
        h: &Act<(usize, D)>,
        w: &Param<(V, D)>,
        b: &Param<(V,)>,
        request: &ReadoutRequest<'_>,
    ) -> Result<(Act<()>, Act<(usize,)>)> {
        let (loss, losses) = self.readout_rows(&h.matrix, [&w.weight, &b.weight], request)?;
        Ok((Self::act(loss), Self::act(losses)))
    }
}

impl Cuda {
    #[expect(clippy::too_many_lines, reason = "one pass over chunks of rows")]
    fn readout_rows(
        &self,
        h: &Matrix,
        [w, b]: [&Rc<Weight>; 2],
        readout: &ReadoutRequest<'_>,
    ) -> Result<(Matrix, Matrix)> {
        self.check_own(&[h], &[w, b])?;
        let (count, width, vocabulary) = (h.rows, h.columns, b.count);
        readout.check(count, vocabulary)?;
        let is_recording = self.is_recording();
        // Rows of whole tiles: the weight has as many, the last ones of which are zeros.
        let stride = vocabulary.next_multiple_of(ROWS);
        let constants = [
            ("VOCABULARY", vocabulary),
            ("STRIDE", stride),
            ("LOSS", loss_number(readout.loss)),
        ];
        let support = readout.support;
        let tokens = [support.size, support.mask, support.excluded()].map(Argument::Number);
        let targets = self.numbers(readout.targets);
        let factors = self.constants(readout.weights);
        let of_positions =
            (readout.loss != Loss::CrossEntropy).then(|| self.constants(readout.constants.as_flattened()));
        // The cross-entropy reads none.
        let of_position = |first: usize| match &of_positions {
            Some(all) => all.at().offset(size_of::<Constants>() * first),
            None => factors.at(),
        };
        let losses = self.floats(count);
        let each = stride * (DType::F32.bytes() + self.element.bytes());
        let most = LOGITS / each;
        // Of whole tiles, so that each begins where products want to begin.
        let most = if most > ROWS { most / ROWS * ROWS } else { most };
        let chunk = most.clamp(1, count.max(1));
        let logits = self.floats(chunk * stride);
        let size = self.element.bytes();
        let mut dh = None;
        if is_recording {
            dh = Some((self.elements(count * width), self.elements(chunk * stride)));
        }
        for first in (0..count).step_by(chunk) {
            let rows = chunk.min(count - first);
            let hidden = h.values.at().offset(first * width * size);
            let operands = [self.operand(hidden, false), self.operand(w.working, true)];
            self.multiply([rows, stride, width], operands, logits.at(), DType::F32, false);
            let (target, value) = (targets.at().offset(4 * first), losses.at().offset(4 * first));
            let shared = 32 * DType::F32.bytes();
            let Some((dh, slopes)) = &dh else {
                let own = of_position(first);
                let at = [logits.at(), b.master, target, own, value].map(Argument::At);
                self.each_row(
                    Operation::Readout,
                    "readout_forward",
                    &constants,
                    rows,
                    shared,
                    &[&at[..], &tokens].concat(),
                );
                continue;
            };
            let factor = factors.at().offset(4 * first);
            let at = [
                logits.at(),
                b.master,
                target,
                of_position(first),
                factor,
                value,
                slopes.at(),
            ];
            let at = at.map(Argument::At);
            self.each_row(
                Operation::Readout,
                "readout_gradient",
                &constants,
                rows,
                shared,
                &[&at[..], &tokens].concat(),
            );
            let operands = [self.operand(slopes.at(), false), self.operand(w.working, false)];
            let to = dh.at().offset(first * width * size);
            self.multiply([rows, width, stride], operands, to, self.element, false);
            if let Some(recording) = &mut *self.recording.borrow_mut() {
                let dw = self.weight_gradient(&mut recording.gradients, w)?;
                let db = self.weight_gradient(&mut recording.gradients, b)?;
                self.add_gradients([stride, width, rows], slopes.at(), hidden, dw, Some(db));
            }
        }
        if let Some((dh, _)) = dh {
            let slot = h.gradient.clone();
            self.push(move |cuda, _| {
                cuda.give(&slot, dh);
                Ok(())
            });
        }
        let loss = self.floats(1);
        let own = self.queue.zeros(size_of::<f64>());
        // Forward passes for evaluation must not enter the optimizer's accumulators.
        let total = self.losses.get().filter(|_| is_recording).unwrap_or(own.at());
        let at = [losses.at(), factors.at(), total, loss.at()].map(Argument::At);
        let arguments = [&at[..], &[number(count)]].concat();
        let shared = TOTAL_THREADS * size_of::<f64>();
        self.run(
            Operation::Readout,
            "readout_total",
            &constants,
            [1, 1, 1],
            TOTAL_THREADS,
            shared,
            &arguments,
        );
        let floats = |values: Buffer, rows| Matrix {
            element: DType::F32,
            ..self.matrix(values, rows, 1)
        };
        Ok((floats(loss, 1), floats(losses, count)))
    }
}
