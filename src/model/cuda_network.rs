//! A network whose weights and activations stay on a CUDA device: what [`CpuNetwork`](super::CpuNetwork) does.
//!
//! What a step asks of the device depends on sizes alone: rows, and how many positions are answered. The latter is made a
//! multiple of [`quantum`] by further positions that weigh nothing, so that few sizes occur and each one's commands are
//! captured once.

use std::ops::Range;

use super::checks::{check_batch, check_inputs, check_len, check_positions};
use super::dit::{Arch, Dit, parameters};
use super::{Action, Arena, Batch, Chain, Network, Parameter, Request, Timed, total};
use crate::error::{Error, Result};
use crate::kernels::adamw::cuda::Optimizer;
use crate::kernels::categorical::cuda::{Destination, Positions};
use crate::kernels::categorical::{self, Draw};
use crate::kernels::cuda::driver::DType;
use crate::kernels::cuda::{Cuda, Gradients, room};
use crate::kernels::{Constants, Loss, Pattern, Tensors as _, VocabSupport};
use crate::precision::Precision;
use crate::shapes::{Backbone, Shape};

/// Positions come in multiples of this at least: rows of a product's tile.
const TILE: usize = 64;
/// The share of a micro-batch's tokens by which the number of positions is rounded up: of half the tokens that are masked on
/// average, at most 1/16 is done in vain.
const SHARE: usize = 32;

/// What the number of answered positions is a multiple of, of a micro-batch of so many tokens.
#[must_use]
pub fn quantum(tokens: usize) -> usize {
    (tokens / SHARE).next_multiple_of(TILE).max(TILE)
}

/// A network on a device.
pub struct CudaNetwork<A: Arch> {
    pub(super) cuda: Cuda,
    pub(super) backbone: Backbone,
    dit: Dit<A, Cuda>,
    pub(super) parameters: Vec<Parameter>,
    /// Where each parameter begins on the device.
    places: Vec<usize>,
}

impl<A: Arch> CudaNetwork<A> {
    /// The network with these weights in the flat order.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(cuda: Cuda, backbone: Backbone, weights: &[f32]) -> Result<Self> {
        let parameters = parameters(A::SHAPE, backbone);
        let (mut places, mut end) = (Vec::new(), 0);
        for parameter in &parameters {
            places.push(end);
            end += room(&parameter.dims);
        }
        cuda.reserve(end)?;
        Ok(Self {
            dit: Dit::new(&cuda, backbone, weights)?,
            cuda,
            backbone,
            parameters,
            places,
        })
    }

    /// Queues forward and backward of a micro-batch; its gradient is added to those, its loss to the optimizer's, where there
    /// is one.
    pub(super) fn accumulate(
        &self,
        gradients: Gradients,
        batch: &Batch<'_>,
        support: VocabSupport,
    ) -> Result<Gradients> {
        check_batch(A::SHAPE, batch, support)?;
        if batch.positions.is_empty() {
            return Ok(gradients);
        }
        let padded = Padded::new(batch, support);
        self.cuda.record(gradients);
        let (loss, nll) = self.dit.nll(&self.cuda, &padded.batch(batch), support)?;
        let gradients = self.cuda.backward(loss)?;
        drop(nll);
        self.cuda.run_again()?;
        Ok(gradients)
    }

    /// Of each parameter its place in the flat order, and where it begins on the device.
    pub(super) fn places(&self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let places = self.places.iter().copied();
        self.parameters.iter().map(Parameter::range).zip(places)
    }

    /// The places of a part of the flat vector.
    fn places_within(&self, part: Range<usize>) -> impl Iterator<Item = (Range<usize>, usize)> {
        self.places().filter_map(move |(own, place)| {
            let within = own.start.max(part.start)..own.end.min(part.end);
            (!within.is_empty()).then(|| (within.clone(), place + within.start - own.start))
        })
    }

    /// Copies a part of an arena out, in the flat order.
    pub(super) fn read_flat(
        &self,
        optimizer: Option<&Optimizer>,
        arena: Arena,
        into: &mut [f32],
        part: Range<usize>,
    ) -> Result<()> {
        check_len("weights", total(&self.parameters), into.len())?;
        for (own, place) in self.places_within(part) {
            self.cuda.read_numbers(optimizer, arena, place, &mut into[own])?;
        }
        Ok(())
    }

    /// Replaces a part of an arena, from the flat order.
    pub(super) fn write_flat(
        &self,
        optimizer: Option<&Optimizer>,
        arena: Arena,
        values: &[f32],
        part: Range<usize>,
    ) -> Result<()> {
        check_len("weights", total(&self.parameters), values.len())?;
        for (own, place) in self.places_within(part) {
            self.cuda.write_numbers(optimizer, arena, place, &values[own])?;
        }
        Ok(())
    }
}

/// Positions, and the first others among so many tokens that make them `wanted`, in ascending order; of each of the given ones
/// which it is.
fn filled_up(positions: &[u32], tokens: usize, wanted: usize) -> Vec<(u32, Option<usize>)> {
    let (mut next, mut missing) = (0, wanted - positions.len());
    let mut all = Vec::with_capacity(wanted);
    for token_row in 0..tokens as u32 {
        if positions.get(next) == Some(&token_row) {
            all.push((token_row, Some(next)));
            next += 1;
        } else if missing > 0 {
            all.push((token_row, None));
            missing -= 1;
        }
    }
    all
}

/// A batch with further positions, so that their number is a multiple of the quantum, as far as there are any.
#[derive(Default)]
struct Padded {
    positions: Vec<u32>,
    targets: Vec<u32>,
    weights: Vec<f32>,
    constants: Vec<Constants>,
    /// Where those of the batch are among them.
    own: Vec<usize>,
}

impl Padded {
    fn new(batch: &Batch<'_>, support: VocabSupport) -> Self {
        let tokens = batch.tokens.len();
        let count = batch.positions.len();
        let wanted = count.next_multiple_of(quantum(tokens)).min(tokens);
        // Any token but the mask will do: it weighs nothing.
        let nothing = u32::from(support.mask == 0);
        let mut padded = Self::default();
        for (token_row, own) in filled_up(batch.positions, tokens, wanted) {
            padded.positions.push(token_row);
            padded.targets.push(own.map_or(nothing, |own| batch.targets[own]));
            padded.weights.push(own.map_or(0.0, |own| batch.weights[own]));
            if batch.loss != Loss::CrossEntropy {
                let constants = own.map_or(batch.loss.weightless(), |own| batch.constants[own]);
                padded.constants.push(constants);
            }
            if own.is_some() {
                padded.own.push(padded.positions.len() - 1);
            }
        }
        padded
    }

    fn batch<'a>(&'a self, batch: &Batch<'a>) -> Batch<'a> {
        Batch {
            positions: &self.positions,
            targets: &self.targets,
            weights: &self.weights,
            constants: &self.constants,
            ..*batch
        }
    }
}

impl<A: Arch> Network for CudaNetwork<A> {
    fn shape(&self) -> &'static Shape {
        A::SHAPE
    }

    fn backbone(&self) -> Backbone {
        self.backbone
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn load(&mut self, values: &[f32]) -> Result<()> {
        self.write_flat(None, Arena::Weights, values, 0..values.len())
    }

    fn read(&self, values: &mut [f32]) -> Result<()> {
        let all = 0..values.len();
        self.read_flat(None, Arena::Weights, values, all)
    }

    fn nll(&self, batch: &Batch<'_>, support: VocabSupport) -> Result<Vec<f32>> {
        check_batch(A::SHAPE, batch, support)?;
        if batch.positions.is_empty() {
            return Ok(Vec::new());
        }
        let padded = Padded::new(batch, support);
        let (_, nll) = self.dit.nll(&self.cuda, &padded.batch(batch), support)?;
        self.cuda.run_again()?;
        let nll = self.cuda.values(&nll)?;
        Ok(padded.own.iter().map(|&at| nll[at]).collect())
    }

    fn logits(&self, tokens: &[u32], sigma: &[f32], positions: &[u32], pattern: Pattern) -> Result<Vec<f32>> {
        check_inputs(A::SHAPE, tokens, sigma, positions)?;
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        let tokens = self.cuda.tokens(tokens)?;
        let logits = self.dit.logits(&self.cuda, &tokens, sigma, positions, pattern)?;
        self.cuda.values(&logits)
    }

    fn chain<'a>(&'a self, tokens: &[u32]) -> Result<Box<dyn Chain + 'a>> {
        // Places are 32-bit numbers; the last two say that a draw has none.
        let rows = (u32::MAX as usize - 1) / A::SHAPE.length;
        if tokens.len() > rows * A::SHAPE.length {
            let asked = tokens.len() / A::SHAPE.length;
            return Err(Error::input(format!(
                "draw {asked} rows on a GPU: at most {rows} rows fit at a time"
            ))
            .hint(format!(
                "set `count` to {rows} or less, and sample again with another `seed`"
            )));
        }
        Ok(Box::new(DeviceChain {
            tokens: categorical::cuda::Chain::new(&self.cuda, tokens),
            count: tokens.len() / A::SHAPE.length,
            network: self,
        }))
    }

    fn device_memory(&self) -> Option<usize> {
        Some(self.cuda.taken().total())
    }

    fn time_kernels(&self) {
        self.cuda.driver().time();
    }

    fn kernel_times(&self) -> Result<Vec<Timed>> {
        self.cuda.driver().timed()
    }
}

/// A chain on the device, beside the network.
struct DeviceChain<'a, A: Arch> {
    network: &'a CudaNetwork<A>,
    tokens: categorical::cuda::Chain,
    /// Rows.
    count: usize,
}

impl<A: Arch> Chain for DeviceChain<'_, A> {
    fn draw(&mut self, request: &Request<'_>) -> Result<Vec<Draw>> {
        request.check()?;
        let (length, positions) = (A::SHAPE.length, request.positions);
        let (Some(&last), false) = (request.rows.last(), positions.is_empty()) else {
            return Ok(Vec::new());
        };
        if request.needs_logits() {
            return self.draw_on_host(request);
        }
        let (dit, cuda) = (&self.network.dit, &self.network.cuda);
        // Few numbers of rows and of positions, so that steps repeat: the last row is asked about once more for each that is
        // missing, and nothing of it is drawn.
        let few = self.count.div_ceil(8);
        let mut rows = request.rows.to_vec();
        rows.resize(rows.len().next_multiple_of(few), last);
        let asked_tokens = rows.len() * length;
        check_positions(positions, asked_tokens)?;
        let wanted = positions.len().next_multiple_of(TILE).min(asked_tokens);
        let (mut all, mut uniforms, mut into) = (Vec::new(), Vec::new(), Vec::new());
        for (at, own) in filled_up(positions, asked_tokens, wanted) {
            let action = own.map_or(Action::Evaluate, |own| request.actions[own]);
            all.push(at);
            uniforms.push(own.map_or(0.0, |own| request.uniforms[own]));
            into.push(match action {
                Action::Evaluate => Destination::Nowhere,
                Action::Commit => Destination::Place(request.place(at, length) as u32),
                Action::Report => Destination::Report,
            });
        }
        let tokens = self.tokens.rows(cuda, &rows, length)?;
        let h = dit.hidden(cuda, &tokens, &[request.sigma], &all, request.pattern, None)?;
        let (w, b) = (&dit.output.weight, &dit.output.bias);
        let drawn = Positions {
            support: request.support,
            temperature: request.temperature,
            uniforms: &uniforms,
            into: &into,
        };
        let is_reported = request.actions.contains(&Action::Report);
        let report = is_reported.then_some(request.confidence);
        let report = self.tokens.draw(cuda, &h, w, b, &drawn, report)?;
        drop((tokens, h));
        cuda.run_again()?;
        let Some(report) = report else {
            return Ok(Vec::new());
        };
        let draws = report.read(&into)?.into_iter().zip(&into);
        let reported = draws.filter(|(_, into)| **into == Destination::Report);
        Ok(reported.filter_map(|(draw, _)| draw).collect())
    }

    fn write(&mut self, places: &[usize], tokens: &[u32]) -> Result<()> {
        let places: Vec<u32> = places.iter().map(|&place| place as u32).collect();
        self.tokens.write(&self.network.cuda, &places, tokens)
    }

    fn tokens(&self) -> Result<Vec<u32>> {
        self.tokens.tokens(&self.network.cuda)
    }
}

impl<A: Arch> DeviceChain<'_, A> {
    /// Draws from logits that come to the host; tokens that take their positions go back.
    fn draw_on_host(&self, request: &Request<'_>) -> Result<Vec<Draw>> {
        let length = A::SHAPE.length;
        let cuda = &self.network.cuda;
        let all = self.tokens.tokens(cuda)?;
        let mut tokens = Vec::with_capacity(request.rows.len() * length);
        for &row in request.rows {
            let row = all.get(row as usize * length..(row as usize + 1) * length);
            tokens.extend_from_slice(row.ok_or_else(|| Error::internal("a row beyond the chain's last"))?);
        }
        let logits = self
            .network
            .logits(&tokens, &[request.sigma], request.positions, request.pattern)?;
        let draws = request.draws(self.network, logits)?;
        let (mut reported, mut places, mut drawn) = (Vec::new(), Vec::new(), Vec::new());
        for ((&position, action), draw) in request.positions.iter().zip(request.actions).zip(draws) {
            match (action, draw) {
                (Action::Commit, Some(draw)) => {
                    places.push(request.place(position, length) as u32);
                    drawn.push(draw.token);
                }
                (Action::Report, Some(draw)) => reported.push(draw),
                _ => {}
            }
        }
        self.tokens.write(cuda, &places, &drawn)?;
        Ok(reported)
    }
}

/// What the width of a head has to be a multiple of: tensor cores take tiles of 16.
pub const HEAD_TILE: usize = 16;

/// Whether the device's kernels take a shape.
#[must_use]
pub fn takes(shape: &Shape) -> bool {
    (shape.width / shape.heads.max(1)).is_multiple_of(HEAD_TILE)
}

/// What activations are made of in a precision.
#[must_use]
pub fn element(precision: Precision) -> DType {
    match precision {
        Precision::F32 | Precision::Tf32 => DType::F32,
        Precision::Bf16 => DType::Bf16,
    }
}
