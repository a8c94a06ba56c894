//! Attention on a CUDA device: what is launched, forwards and backwards.

use std::rc::Rc;

use dfdx::shapes::ConstDim;

use super::{Attention, ROTARY_BASE};
use crate::error::{Error, Result};
use crate::kernels::cuda::driver::{Argument, DType, Value};
use crate::kernels::cuda::launch::{THREADS, number};
use crate::kernels::cuda::weights::Allocation;
use crate::kernels::cuda::{Act, Buffer, Cuda, Matrix, narrowed};
use crate::kernels::{Operation, Pattern, TokenRows};

/// Queries and keys of a tile of attention; its warps have 16 rows each.
const TILE: usize = 64;
/// Elements by which attention's tiles are wider than what they hold.
const PADDING: usize = 8;

impl Attention for Cuda {
    fn attention<D: ConstDim, D2: ConstDim>(
        &self,
        q: &Act<(usize, D)>,
        kv: &Act<(usize, D2)>,
        heads: usize,
        rows: TokenRows<'_>,
        pattern: Pattern,
    ) -> Result<Act<(usize, D)>> {
        self.attention_rows(&q.matrix, &kv.matrix, heads, rows, pattern)
            .map(Self::act)
    }
}

impl Cuda {
    /// cos and sin of each pair's angle at each position: (L, W / 2, 2), computed in f64.
    fn turns(&self, length: usize, width: usize) -> Result<Rc<Allocation>> {
        if let Some(known) = self.turns.borrow().get(&(length, width)) {
            return Ok(Rc::clone(known));
        }
        let angle = |position: usize, pair: usize| {
            position as f64 * ROTARY_BASE.powf(-2.0 * pair as f64 / width as f64)
        };
        let pairs = (0..length).flat_map(|position| (0..width / 2).map(move |pair| (position, pair)));
        let values: Vec<f32> = pairs
            .map(|(position, pair)| angle(position, pair))
            .flat_map(|angle| [angle.cos() as f32, angle.sin() as f32])
            .collect();
        let content = narrowed(&values, DType::F32);
        let table = Rc::new(Allocation::filled(&self.queue, &content)?);
        self.turns.borrow_mut().insert((length, width), Rc::clone(&table));
        Ok(table)
    }

    fn attention_rows(
        &self,
        q: &Matrix,
        kv: &Matrix,
        heads: usize,
        rows: TokenRows<'_>,
        pattern: Pattern,
    ) -> Result<Matrix> {
        self.check_own(&[q, kv], &[])?;
        pattern.check()?;
        let (queries, keys, length, width) = (q.rows, kv.rows, rows.length, q.columns);
        let fits = heads > 0 && width.is_multiple_of(heads) && (width / heads).is_multiple_of(16);
        if !fits || kv.columns != 2 * width || length == 0 || !keys.is_multiple_of(length) {
            let columns = kv.columns;
            return Err(Error::internal(format!(
                "attention over rows of {length} with {heads} heads on {keys}x{columns} to width {width}: a head's \
                 width is a multiple of 16 here"
            )));
        }
        let head = width / heads;
        let places = self.places(rows, queries, keys / length)?;
        let turns = self.turns(length, head)?;
        // A block that is all of a row cuts nothing.
        let span = if pattern.span() < length {
            pattern.span()
        } else {
            0
        };
        let constants = [
            ("HEAD", Value::Whole(head)),
            ("HEADS", Value::Whole(heads)),
            ("LENGTH", Value::Whole(length)),
            ("SQRT_HEAD", Value::Real((head as f32).sqrt())),
            ("SPAN", Value::Whole(span)),
        ];
        let tile = TILE * (head + PADDING) * self.element.bytes();
        // Of a query the logarithm and the delta, and where its keys end.
        let sums = if span == 0 { 2 } else { 3 } * TILE * DType::F32.bytes();
        let y = self.elements(queries * width);
        let logarithms = self.floats(queries * heads);
        let inputs = [q.values.at(), kv.values.at(), turns.at(), places.starts.at()].map(Argument::At);
        let inputs = [&inputs[..], &places.listed()].concat();
        let outputs = [y.at(), logarithms.at()].map(Argument::At);
        let grid = [places.longest.div_ceil(TILE), heads, places.batch];
        let (warps, shared) = (TILE / 16 * 32, 2 * tile);
        let arguments = [&inputs[..], &outputs].concat();
        self.launch(
            Operation::Attention,
            "attention_forward",
            &constants,
            grid,
            warps,
            shared,
            &arguments,
        );
        let y = self.matrix(y, queries, width);
        if self.is_recording() {
            let (q, kv, values, slot) = (q.clone(), kv.clone(), Rc::clone(&y.values), y.gradient.clone());
            self.push(move |cuda, _| {
                let Some(dy) = slot.borrow_mut().take() else {
                    return Ok(());
                };
                // All of them, so that the closure holds what `inputs` are the addresses of.
                let _kept = (&q, &kv, &places, &turns);
                let deltas = cuda.floats(queries * heads);
                let at = [values.at(), dy.at(), deltas.at()].map(Argument::At);
                let arguments = [&at[..], &[number(queries * heads)]].concat();
                let blocks = [(queries * heads).div_ceil(THREADS), 1, 1];
                cuda.launch(
                    Operation::Attention,
                    "attention_deltas",
                    &constants,
                    blocks,
                    THREADS,
                    0,
                    &arguments,
                );
                let (dq, dkv) = (cuda.elements(queries * width), cuda.elements(keys * 2 * width));
                let more = |to: &Buffer| [logarithms.at(), deltas.at(), dy.at(), to.at()].map(Argument::At);
                let by_keys = [length.div_ceil(TILE), heads, places.batch];
                let shared = 2 * tile + sums;
                let arguments = [&inputs[..], &more(&dkv)].concat();
                cuda.launch(
                    Operation::Attention,
                    "attention_keys",
                    &constants,
                    by_keys,
                    warps,
                    shared,
                    &arguments,
                );
                let shared = 2 * tile;
                let arguments = [&inputs[..], &more(&dq)].concat();
                cuda.launch(
                    Operation::Attention,
                    "attention_queries",
                    &constants,
                    grid,
                    warps,
                    shared,
                    &arguments,
                );
                cuda.give(&q.gradient, dq);
                cuda.give(&kv.gradient, dkv);
                Ok(())
            });
        }
        Ok(y)
    }
}
