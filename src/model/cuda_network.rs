//! A network whose weights and activations stay on a CUDA device: what [`CpuNetwork`](super::CpuNetwork) does, and the plan of the
//! memory that [learning](super::CudaLearner) there takes.
//!
//! What a step asks of the device depends on sizes alone: rows, and how many positions are answered. The latter is made a
//! multiple of [`quantum`] by further positions that weigh nothing, so that few sizes occur and each one's commands are
//! captured once.

use std::ops::Range;

use super::cpu_network::{check_batch, check_inputs, check_len, check_positions, not_compiled};
use super::dit::{Arch, Dit, WithArch, parameters, with_arch};
use super::footprint::Workload;
use super::{Action, Arena, Batch, Chain, CudaLearner, Learner, Network, Parameter, Request, Timed, total};
use crate::error::{Error, Result};
use crate::kernels::adamw::cuda::Optimizer;
use crate::kernels::categorical::cuda::{Destination, Positions};
use crate::kernels::categorical::{self, Draw};
use crate::kernels::cuda::driver::DType;
use crate::kernels::cuda::planning::Planning;
use crate::kernels::cuda::{Cuda, Gradients, Taken, room};
use crate::kernels::{Constants, Dropout, Loss, Pattern, Tensors as _, VocabSupport};
use crate::precision::Precision;
use crate::rng::{Random, Stream};
use crate::shapes::{Answered, Backbone, SHAPES, Shape};

/// Positions come in multiples of this at least: rows of a product's tile.
const TILE: usize = 64;
/// The share of a micro-batch's tokens by which the number of positions is rounded up: of half the tokens that are masked on
/// average, at most 1/16 is done in vain.
const SHARE: usize = 32;

/// Tokens of a micro-batch at most: with more nothing is faster.
const MOST_TOKENS: usize = 1 << 17;

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

    /// Copies an arena out, in the flat order.
    pub(super) fn read_flat(
        &self,
        optimizer: Option<&Optimizer>,
        arena: Arena,
        into: &mut [f32],
    ) -> Result<()> {
        check_len("weights", total(&self.parameters), into.len())?;
        for (own, place) in self.places() {
            self.cuda.read_numbers(optimizer, arena, place, &mut into[own])?;
        }
        Ok(())
    }

    /// Replaces an arena, from the flat order.
    pub(super) fn write_flat(
        &self,
        optimizer: Option<&Optimizer>,
        arena: Arena,
        values: &[f32],
    ) -> Result<()> {
        check_len("weights", total(&self.parameters), values.len())?;
        for (own, place) in self.places() {
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
        self.write_flat(None, Arena::Weights, values)
    }

    fn read(&self, values: &mut [f32]) -> Result<()> {
        self.read_flat(None, Arena::Weights, values)
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

/// The network of the shape and backbone on a device, with these weights in the flat order.
///
/// # Errors
/// Out of memory.
pub fn build(shape: &Shape, backbone: Backbone, cuda: Cuda, weights: &[f32]) -> Result<Box<dyn Network>> {
    struct Build<'a>(Cuda, Backbone, &'a [f32]);
    impl WithArch for Build<'_> {
        type Output = Result<Box<dyn Network>>;
        fn apply<A: Arch>(self) -> Self::Output {
            Ok(Box::new(CudaNetwork::<A>::new(self.0, self.1, self.2)?))
        }
    }
    with_arch(shape.name, Build(cuda, backbone, weights)).unwrap_or_else(|| Err(not_compiled(shape)))
}

/// A learner of the shape and backbone on a device that begins from these weights in the flat order.
///
/// # Errors
/// Out of memory.
pub fn build_learner(
    shape: &Shape,
    backbone: Backbone,
    cuda: Cuda,
    weights: &[f32],
) -> Result<Box<dyn Learner>> {
    struct Build<'a>(Cuda, Backbone, &'a [f32]);
    impl WithArch for Build<'_> {
        type Output = Result<Box<dyn Learner>>;
        fn apply<A: Arch>(self) -> Self::Output {
            Ok(Box::new(CudaLearner::<A>::new(self.0, self.1, self.2)?))
        }
    }
    with_arch(shape.name, Build(cuda, backbone, weights)).unwrap_or_else(|| Err(not_compiled(shape)))
}

/// What training needs of a device's memory in micro-batches of `rows` rows, of a batch of so many or of any: [`plan`] of the
/// shape, for activations of that element. No device is needed.
///
/// # Errors
/// The shape is not compiled.
pub fn memory(
    shape: &Shape,
    backbone: Backbone,
    workload: Workload,
    element: DType,
    rows: usize,
    batch: Option<usize>,
) -> Result<Taken> {
    struct Plan(Cuda, Backbone, Workload, usize, usize);
    impl WithArch for Plan {
        type Output = Result<Taken>;
        fn apply<A: Arch>(self) -> Self::Output {
            plan::<A>(self.0, self.1, self.2, self.3, self.4)
        }
    }
    let cuda = Cuda::new(Box::new(Planning::default()), element);
    let answered = answered(shape, workload.answered, rows, batch);
    with_arch(shape.name, Plan(cuda, backbone, workload, rows, answered))
        .unwrap_or_else(|| Err(not_compiled(shape)))
}

/// Tokens of a micro-batch that are answered, at most. Times of masked tokens are spread over a batch, row after row: its last
/// micro-batch has the largest share, 1 - rows / (2 batch) on average. Four times the root of their number is far more than
/// chance adds.
pub(crate) fn answered(shape: &Shape, answered: Answered, rows: usize, batch: Option<usize>) -> usize {
    let tokens = rows * shape.length;
    let Some(batch) = batch else {
        return tokens;
    };
    let mean = match answered {
        Answered::All => tokens,
        Answered::Masked => tokens - tokens * rows / (2 * batch.max(rows)),
        Answered::Share(share) => (share * tokens as f64).ceil() as usize,
    };
    tokens.min(mean + 4 * tokens.isqrt())
}

/// Whether a micro-batch of so many rows fits into so many bytes.
///
/// # Errors
/// The micro-batch does not fit; the hint has the largest one that fits, or a smaller shape.
pub fn fits(
    shape: &Shape,
    backbone: Backbone,
    workload: Workload,
    element: DType,
    rows: u32,
    batch: u32,
    bytes: usize,
) -> Result<()> {
    let whole = Some(batch as usize);
    let needed = memory(shape, backbone, workload, element, rows as usize, whole)?.total();
    let mib = 1 << 20;
    if needed <= bytes {
        return Ok(());
    }
    let most = fitting(shape, backbone, workload, element, batch, bytes)?;
    let message = format!(
        "train shape `{}`: a micro-batch of {rows} rows needs {} MiB of the device, which has {} MiB for it",
        shape.name,
        needed.div_ceil(mib),
        bytes / mib
    );
    Err(Error::environment(message).hint(format!(
        "set `micro_batch` to {most}, or leave it out: it is then chosen to fit"
    )))
}

/// Rows of a micro-batch in training: of the divisors of the batch the largest that fits into so many bytes.
///
/// # Errors
/// Not even one row fits: the error says what does.
pub fn fitting(
    shape: &Shape,
    backbone: Backbone,
    workload: Workload,
    element: DType,
    batch: u32,
    bytes: usize,
) -> Result<u32> {
    let fits = |rows: &u32| batch.is_multiple_of(*rows) && *rows as usize * shape.length <= MOST_TOKENS;
    let divisors: Vec<u32> = (1..=batch).filter(|rows| *rows == 1 || fits(rows)).collect();
    let batch = Some(batch as usize);
    let of = |shape: &Shape, rows: u32| {
        memory(shape, backbone, workload, element, rows as usize, batch).map(|taken| taken.total())
    };
    let needed = |rows| of(shape, rows);
    // More rows need more memory: those that fit come first.
    let (mut fit, mut too_many) = (0, divisors.len());
    while fit < too_many {
        let middle = fit.midpoint(too_many);
        if needed(divisors[middle])? <= bytes {
            fit = middle + 1;
        } else {
            too_many = middle;
        }
    }
    if fit > 0 {
        return Ok(divisors[fit - 1]);
    }
    let (one, mib) = (needed(1)?, 1 << 20);
    let others = SHAPES.iter().filter(|other| other.name != shape.name);
    let smaller = others
        .filter_map(|other| Some((of(other, 1).ok()?, other.name)))
        .filter(|(needed, _)| *needed <= bytes)
        .max();
    let error = Error::environment(format!(
        "train shape `{}`: a micro-batch of one row needs {} MiB of the device, which has {} MiB for it",
        shape.name,
        one.div_ceil(mib),
        bytes / mib
    ));
    Err(match smaller {
        Some((_, name)) => error.hint(format!(
            "shape `{name}` would fit; `mdlm shapes --device cuda` lists what each needs"
        )),
        None => error.hint("end other processes that use the device, or use `--device cpu`"),
    })
}

/// What training needs of a device's memory in micro-batches of `rows` rows with so many answered tokens: the plan of a step
/// that is queued and not run. `cuda` is on a driver that does nothing.
///
/// # Errors
/// Out of memory.
pub fn plan<A: Arch>(
    cuda: Cuda,
    backbone: Backbone,
    workload: Workload,
    rows: usize,
    answered: usize,
) -> Result<Taken> {
    // Zeros that are never read take no memory.
    let weights = vec![0.0; total(&parameters(A::SHAPE, backbone))];
    let mut learner = CudaLearner::<A>::new(cuda, backbone, &weights)?;
    drop(weights);
    let positions: Vec<u32> = (0..answered as u32).collect();
    let mut tokens = vec![0; rows * A::SHAPE.length];
    tokens[..answered].fill(1);
    let support = VocabSupport::without_mask(1, A::SHAPE.vocabulary as u32);
    let (targets, weights) = (vec![0; positions.len()], vec![1.0; positions.len()]);
    let constants = match workload.loss {
        Loss::CrossEntropy => Vec::new(),
        loss => vec![loss.weightless(); positions.len()],
    };
    let levels = if workload.is_conditioned { rows } else { 1 };
    let batch = Batch {
        tokens: &tokens,
        sigma: &vec![0.0; levels],
        positions: &positions,
        targets: &targets,
        weights: &weights,
        loss: workload.loss,
        constants: &constants,
        dropout: Some(Dropout {
            rate: 0.1,
            random: Random::new(1, Stream::Dropout),
            step: 0,
            first_row: 0,
        }),
        ..Batch::default()
    };
    learner.accumulate(&batch, support)?;
    Ok(learner.taken())
}
