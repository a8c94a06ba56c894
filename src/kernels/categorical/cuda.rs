//! The categorical draw where the network computes: rows of tokens stay there, and draws change them.

use std::rc::Rc;

use dfdx::shapes::ConstDim;

use super::{Confidence, Draw, not_finite};
use crate::error::{Error, Result};
use crate::kernels::cuda::driver::{Argument, Command, DType};
use crate::kernels::cuda::launch::{THREADS, number};
use crate::kernels::cuda::weights::ROWS;
use crate::kernels::cuda::{Act, Buffer, Cuda, Param, Tokens};
use crate::kernels::{Operation, VocabSupport};

/// Bytes that logits may take: a chunk of positions has so many.
const LOGITS: usize = 256 << 20;
/// What a draw leaves whose logits are not finite.
const NOT_FINITE: u32 = u32::MAX;
/// Numbers of a reported draw, and of one with its confidence.
const REPORTED: [usize; 2] = [4, 7];

/// Where a draw goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Nothing is drawn.
    Nowhere,
    /// To the report alone.
    Report,
    /// To this place of the chain, and into the report if there is one.
    Place(u32),
}

impl Destination {
    /// As the kernel has it.
    fn word(self) -> u32 {
        match self {
            Self::Nowhere => u32::MAX,
            Self::Report => u32::MAX - 1,
            Self::Place(place) => place,
        }
    }
}

/// The positions (n) of a draw.
#[derive(Clone, Copy, Debug)]
pub struct Positions<'a> {
    /// The tokens to draw from.
    pub support: VocabSupport,
    /// Divides the logits.
    pub temperature: f64,
    /// A number on [0, 1) for each position (n).
    pub uniforms: &'a [f64],
    /// Where each position's draw goes (n).
    pub into: &'a [Destination],
}

/// Rows of tokens on the device.
pub struct Chain {
    tokens: Rc<Buffer>,
}

/// Draws on the device, with their numbers.
pub struct DrawReport {
    /// f64, row-major (n, `width`).
    numbers: Buffer,
    width: usize,
}

impl Chain {
    /// These tokens.
    #[must_use]
    pub fn new(cuda: &Cuda, tokens: &[u32]) -> Self {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        let uploaded = cuda.queue.upload(&bytes);
        let here = cuda.queue.buffer(bytes.len());
        cuda.queue.push(Command::Copy {
            from: uploaded.at(),
            to: here.at(),
            bytes: bytes.len(),
        });
        Self {
            tokens: Rc::new(here),
        }
    }

    /// Tokens in all rows together.
    fn count(&self) -> usize {
        self.tokens.bytes() / size_of::<u32>()
    }

    /// Some of the rows, of `length` tokens each.
    ///
    /// # Errors
    /// A row lies beyond the last one.
    pub fn rows(&self, cuda: &Cuda, rows: &[u32], length: usize) -> Result<Tokens> {
        let count = self.count() / length.max(1);
        if let Some(row) = rows.iter().find(|&&row| row as usize >= count) {
            return Err(Error::internal(format!("row {row} of {count}")));
        }
        let list = cuda.numbers(rows);
        let picked = Rc::new(cuda.queue.buffer(rows.len() * length * size_of::<u32>()));
        let at = [self.tokens.at(), list.at(), picked.at()];
        launch(
            cuda,
            "pick_rows",
            [length, 0],
            rows.len(),
            0,
            &at.map(Argument::At),
        );
        Ok(Tokens {
            there: picked,
            known: None,
            count: rows.len() * length,
        })
    }

    /// Writes tokens to these places (n).
    ///
    /// # Errors
    /// Lists of two lengths, or a place beyond the last.
    pub fn write(&self, cuda: &Cuda, places: &[u32], tokens: &[u32]) -> Result<()> {
        let count = self.count();
        if places.len() != tokens.len() || places.iter().any(|&place| place as usize >= count) {
            return Err(Error::internal(format!(
                "{} tokens for {} of {count} places",
                tokens.len(),
                places.len()
            )));
        }
        if places.is_empty() {
            return Ok(());
        }
        let (tokens, into) = (cuda.numbers(tokens), cuda.numbers(places));
        let at = [tokens.at(), into.at(), self.tokens.at()].map(Argument::At);
        let arguments = [&at[..], &[number(places.len())]].concat();
        let blocks = places.len().div_ceil(THREADS);
        launch(cuda, "write_tokens", [1, 0], blocks, 0, &arguments);
        // Apart from what is run again: every step writes another number of tokens.
        cuda.queue.flush(false)
    }

    /// Draws tokens from the softmax of h (n, D) · wᵀ + b over the support, each to where `positions` has it go. With
    /// `report` there is a report, where that is `Some(true)` with each draw's confidence.
    ///
    /// # Errors
    /// Lists that are not of h, or a place beyond the last.
    pub fn draw<V: ConstDim, D: ConstDim>(
        &self,
        cuda: &Cuda,
        h: &Act<(usize, D)>,
        w: &Param<(V, D)>,
        b: &Param<(V,)>,
        positions: &Positions<'_>,
        report: Option<bool>,
    ) -> Result<Option<DrawReport>> {
        let Positions {
            support,
            temperature,
            uniforms,
            into,
        } = *positions;
        let (count, places) = (h.matrix.rows, self.count());
        let outside =
            |into: &Destination| matches!(into, Destination::Place(place) if *place as usize >= places);
        if [uniforms.len(), into.len()] != [count; 2] || into.iter().any(outside) {
            let lists = [uniforms.len(), into.len()];
            return Err(Error::internal(format!(
                "{lists:?} draws into {places} places at {count} positions"
            )));
        }
        let width = report.map_or(0, |confidence| REPORTED[usize::from(confidence)]);
        let report = (width > 0).then(|| DrawReport {
            numbers: cuda.queue.buffer(count * width * size_of::<f64>()),
            width,
        });
        let mask = if (support.mask as usize) < V::SIZE {
            support.mask
        } else {
            u32::MAX
        };
        let (depth, stride) = (D::SIZE, V::SIZE.next_multiple_of(ROWS));
        let chunk = (LOGITS / (stride * DType::F32.bytes())).clamp(1, count.max(1));
        let logits = cuda.floats(chunk * stride);
        let words: Vec<u32> = into.iter().map(|into| into.word()).collect();
        let into = cuda.numbers(&words);
        for first in (0..count).step_by(chunk) {
            let rows = chunk.min(count - first);
            let hidden = h.matrix.values.at().offset(first * depth * cuda.element.bytes());
            let operands = [cuda.operand(hidden, false), cuda.operand(w.weight.working, true)];
            cuda.multiply([rows, stride, depth], operands, logits.at(), DType::F32, false);
            // The temperature leads: a number of 64 bits is not an argument.
            let numbers = std::iter::once(&temperature).chain(&uniforms[first..first + rows]);
            let uploaded: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
            let uploaded = cuda.queue.upload(&uploaded);
            let numbers = report.as_ref().map(|report| {
                let row = report.width * size_of::<f64>();
                report.numbers.at().offset(first * row)
            });
            let at = [
                logits.at(),
                b.weight.master,
                uploaded.at(),
                into.at().offset(first * size_of::<u32>()),
                self.tokens.at(),
                // Without a report nothing is written there.
                numbers.unwrap_or(self.tokens.at()),
            ];
            let numbers = [support.size, support.excluded(), mask, width as u32];
            let arguments = [&at.map(Argument::At)[..], &numbers.map(Argument::Number)].concat();
            let shared = THREADS * 4 * size_of::<f64>() + 32 * size_of::<f32>();
            launch(cuda, "draw_tokens", [1, stride], rows, shared, &arguments);
        }
        Ok(report)
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
            return Err(not_finite());
        }
        Ok(tokens)
    }
}

impl DrawReport {
    /// The draws of the positions that went somewhere, by `into` as it was for the draw; waits for them.
    ///
    /// # Errors
    /// Logits were not finite, or the device failed.
    pub fn read(&self, into: &[Destination]) -> Result<Vec<Option<Draw>>> {
        let bytes = self.numbers.read()?;
        let numbers: Vec<f64> = bytes
            .chunks_exact(size_of::<f64>())
            .map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap_or_default()))
            .collect();
        let draw = |numbers: &[f64]| {
            let [
                token,
                log_probability,
                log_sum_exp,
                mask_logit,
                ref confidence @ ..,
            ] = *numbers
            else {
                return Err(Error::internal("a report of too few numbers"));
            };
            if token == f64::from(NOT_FINITE) {
                return Err(not_finite());
            }
            Ok(Draw {
                token: token as u32,
                log_probability,
                log_sum_exp,
                mask_logit,
                confidence: match *confidence {
                    [first, second, entropy] => Some(Confidence {
                        largest: [first, second],
                        entropy,
                    }),
                    _ => None,
                },
            })
        };
        into.iter()
            .zip(numbers.chunks_exact(self.width))
            .map(|(into, numbers)| (*into != Destination::Nowhere).then(|| draw(numbers)).transpose())
            .collect()
    }
}

/// Queues one of the operation's kernels, for rows of `length` tokens and `stride` logits.
fn launch(
    cuda: &Cuda,
    kernel: &'static str,
    [length, stride]: [usize; 2],
    blocks: usize,
    shared: usize,
    arguments: &[Argument],
) {
    let constants = [("LENGTH", length), ("STRIDE", stride)];
    cuda.run(
        Operation::Categorical,
        kernel,
        &constants,
        [blocks, 1, 1],
        THREADS,
        shared,
        arguments,
    );
}
