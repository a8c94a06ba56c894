//! A sampler's tokens on the device: drawn there, and read when all are.

use std::rc::Rc;

use dfdx::shapes::ConstDim;

use super::driver::{Argument, Command, DRAW, Element, Launch, Value};
use super::queue::Buffer;
use super::weights::ROWS;
use super::{Act, Cuda, Param, Tokens};
use crate::error::{Error, Result};
use crate::kernels::Alphabet;

/// Threads of a block.
const THREADS: usize = 256;
/// Bytes that logits may take: a chunk of positions has so many.
const LOGITS: usize = 256 << 20;
/// What a draw leaves whose logits are not finite.
const NOT_FINITE: u32 = u32::MAX;

/// Rows of tokens on the device.
pub struct Chain {
    tokens: Rc<Buffer>,
}

impl Chain {
    /// These tokens.
    #[must_use]
    pub fn new(cuda: &Cuda, tokens: &[u32]) -> Self {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let told = cuda.queue.tell(&bytes);
        let here = cuda.queue.buffer(bytes.len());
        cuda.queue.push(Command::Copy {
            from: told.at(),
            to: here.at(),
            bytes: bytes.len(),
        });
        Self {
            tokens: Rc::new(here),
        }
    }

    /// Some of the rows, of `length` tokens each.
    ///
    /// # Errors
    /// A row that is not there.
    pub fn rows(&self, cuda: &Cuda, rows: &[u32], length: usize) -> Result<Tokens> {
        let there = self.tokens.bytes() / size_of::<u32>() / length.max(1);
        if let Some(row) = rows.iter().find(|&&row| row as usize >= there) {
            return Err(Error::internal(format!("row {row} of {there}")));
        }
        let list = cuda.numbers(rows);
        let picked = Rc::new(cuda.queue.buffer(rows.len() * length * size_of::<u32>()));
        let at = [self.tokens.at(), list.at(), picked.at()];
        cuda.queue.push(Command::Launch(Launch {
            operation: DRAW,
            kernel: "pick_rows",
            element: cuda.element,
            constants: vec![("LENGTH", Value::Whole(length)), ("STRIDE", Value::Whole(0))],
            grid: [rows.len(), 1, 1],
            threads: THREADS,
            shared: 0,
            arguments: at.map(Argument::At).to_vec(),
        }));
        Ok(Tokens {
            there: picked,
            known: None,
            count: rows.len() * length,
        })
    }

    /// Draws tokens from the softmax of h (n, D) · wᵀ + b over the alphabet: position i's, at `uniforms[i]` on [0, 1), goes to
    /// place `into[i]`, and nowhere where that is `u32::MAX`.
    ///
    /// # Errors
    /// Lists that are not of h.
    #[expect(clippy::too_many_arguments, reason = "one fused pass")]
    pub fn draw<V: ConstDim, D: ConstDim>(
        &self,
        cuda: &Cuda,
        h: &Act<(usize, D)>,
        w: &Param<(V, D)>,
        b: &Param<(V,)>,
        alphabet: Alphabet,
        temperature: f64,
        uniforms: &[f64],
        into: &[u32],
    ) -> Result<()> {
        let count = h.matrix.rows;
        let places = self.tokens.bytes() / size_of::<u32>();
        let outside = |&&place: &&u32| place != u32::MAX && place as usize >= places;
        if [uniforms.len(), into.len()] != [count; 2] || into.iter().any(|place| outside(&place)) {
            let lists = [uniforms.len(), into.len()];
            return Err(Error::internal(format!(
                "{lists:?} draws into {places} places at {count} positions"
            )));
        }
        let (width, stride) = (D::SIZE, V::SIZE.next_multiple_of(ROWS));
        let chunk = (LOGITS / (stride * Element::F32.bytes())).clamp(1, count.max(1));
        let logits = cuda.queue.buffer(chunk * stride * Element::F32.bytes());
        let into: Vec<u8> = into.iter().flat_map(|place| place.to_le_bytes()).collect();
        let into = cuda.queue.tell(&into);
        for first in (0..count).step_by(chunk) {
            let rows = chunk.min(count - first);
            let hidden = h.matrix.values.at().offset(first * width * cuda.element.bytes());
            let operands = [cuda.operand(hidden, false), cuda.operand(w.weight.working, true)];
            cuda.multiply([rows, stride, width], operands, logits.at(), Element::F32, false);
            // The temperature leads: a number of 64 bits is no argument.
            let numbers = std::iter::once(&temperature).chain(&uniforms[first..first + rows]);
            let told: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
            let told = cuda.queue.tell(&told);
            let at = [
                logits.at(),
                b.weight.master,
                told.at(),
                into.at().offset(first * size_of::<u32>()),
                self.tokens.at(),
            ];
            let tokens = [alphabet.size, alphabet.excluded()].map(Argument::Number);
            cuda.queue.push(Command::Launch(Launch {
                operation: DRAW,
                kernel: "draw_tokens",
                element: cuda.element,
                constants: vec![("LENGTH", Value::Whole(1)), ("STRIDE", Value::Whole(stride))],
                grid: [rows, 1, 1],
                threads: THREADS,
                shared: THREADS * size_of::<f64>() + 32 * size_of::<f32>(),
                arguments: [&at.map(Argument::At)[..], &tokens].concat(),
            }));
        }
        Ok(())
    }

    /// The tokens, when all is done.
    ///
    /// # Errors
    /// Logits were not finite, or the device failed.
    pub fn tokens(&self, cuda: &Cuda) -> Result<Vec<u32>> {
        let bytes = cuda.queue.read(self.tokens.at(), self.tokens.bytes())?;
        let tokens: Vec<u32> = bytes
            .chunks_exact(size_of::<u32>())
            .map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap_or_default()))
            .collect();
        if tokens.contains(&NOT_FINITE) {
            return Err(Error::input("the model's logits are not finite")
                .hint("its weights are damaged, or its training diverged"));
        }
        Ok(tokens)
    }
}
