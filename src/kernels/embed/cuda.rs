//! Embedding on a CUDA device: what is launched, forwards and backwards.

use std::rc::Rc;

use dfdx::shapes::ConstDim;

use super::Embed;
use crate::error::{Error, Result};
use crate::kernels::Operation;
use crate::kernels::checks::check_indices;
use crate::kernels::cuda::driver::Argument;
use crate::kernels::cuda::launch::{COLUMNS, by_entry, number, padded};
use crate::kernels::cuda::weights::Weight;
use crate::kernels::cuda::{Act, Cuda, Matrix, Param, Tokens};

/// Rows whose gradients a block of `embed_segments` adds up.
const SEGMENT: usize = 256;

impl Embed for Cuda {
    fn embed<V: ConstDim, D: ConstDim>(
        &self,
        table: &Param<(V, D)>,
        tokens: &Tokens,
    ) -> Result<Act<(usize, D)>> {
        self.embed_rows(&table.weight, D::SIZE, V::SIZE, tokens)
            .map(Self::act)
    }
}

impl Cuda {
    fn embed_rows(
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
}
