//! The plan of the memory that learning takes on a CUDA device, and the micro-batch that fits into it.

use super::checks::not_compiled;
use super::cuda_network::CudaNetwork;
use super::dit::{Arch, WithArch, parameters, with_arch};
use super::footprint::Workload;
use super::{Batch, total};
use crate::error::{Error, Result};
use crate::kernels::cuda::driver::DType;
use crate::kernels::cuda::planning::Planning;
use crate::kernels::cuda::{Cuda, Gradients, Taken};
use crate::kernels::{Dropout, Loss, VocabSupport};
use crate::rng::{Random, Stream};
use crate::shapes::{Answered, Backbone, SHAPES, Shape};

/// Tokens of a micro-batch at most: with more nothing is faster.
const MOST_TOKENS: usize = 1 << 17;

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
    let network = CudaNetwork::<A>::new(cuda, backbone, &weights)?;
    drop(weights);
    // What a learner has beside its network.
    let _optimizer = network.cuda.optimizer()?;
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
    let _gradients = network.accumulate(Gradients::default(), &batch, support)?;
    Ok(network.cuda.taken())
}
