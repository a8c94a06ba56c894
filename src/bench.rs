//! What training, evaluation and sampling cost on this machine, measured on random tokens.
//!
//! Each task runs the code that a pipeline runs, in rounds: a training step, an evaluation of a batch of rows, a batch
//! of rows sampled. Rounds of a warm-up are left out (first touch of memory, of caches), and at least three are timed.
//! Rounds on a shared machine differ by what else runs there, so that medians and quartiles are reported.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::data::SpecialIds;
use crate::data::rows::Rows;
use crate::diffusion::{Method, objective};
use crate::error::{Error, Result};
use crate::evaluate;
use crate::event::Cancel;
use crate::kernels::gemm;
use crate::kernels::profile::{self, Spent};
use crate::manifest::{Estimator, LearningRateSchedule, Objective, WarmupRates};
use crate::model::{self, Device, Learner, Network, Recomputing, Timed, footprint};
use crate::precision::Precision;
use crate::rng::{Random, Stream};
use crate::sample;
use crate::shapes::{Backbone, Shape};
use crate::stages::memory;
use crate::system;
use crate::train::{AdamW, CheckpointManager, StepBench, TrainConfig, Trainer, workload};

/// Rounds that are timed whatever they take.
const ROUNDS: usize = 3;
/// Batches of different rows.
const BATCHES: u32 = 8;
/// Seed of everything.
const SEED: u64 = 1;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Whole training steps: noise, forward, backward, clip, AdamW, moving average; dropout 0.1.
    Train,
    /// The bound: forward passes, one draw a row.
    Evaluate,
    /// The sampler that the objective's models have by default: of MDLM the cached ancestral one, of autoregression the one
    /// from left to right, with keys and values kept.
    Sample,
    /// The same sampler with nothing kept: every step computes whole rows. Of autoregression on the CPU alone.
    Recompute,
}

/// How to measure.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The network.
    pub shape: &'static Shape,
    /// What it is trained for.
    pub objective: Objective,
    /// Where to compute.
    pub device: Device,
    /// Precision of products.
    pub precision: Precision,
    /// Rows of a round.
    pub batch: u32,
    /// Rows that go through the network at a time; chosen as in a pipeline by default.
    pub micro_batch: Option<u32>,
    /// Reverse steps of a sample.
    pub steps: u32,
    /// Time for warm-up.
    pub warmup: Duration,
    /// Time for measuring.
    pub time: Duration,
    /// Whether a GPU's kernels are timed one by one, in rounds of their own.
    pub kernels: bool,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// This program.
    pub program: String,
    /// The task.
    pub task: Task,
    /// Name of the shape.
    pub shape: &'static str,
    /// Kind of the objective.
    pub objective: &'static str,
    /// Rows of a round.
    pub batch: u32,
    /// Rows that went through the network at a time.
    pub micro_batch: u32,
    /// Steps of a sample; absent for other tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Threads.
    pub threads: usize,
    /// Where it was computed: `cpu`, or `cuda: ` with the GPU's name and the versions of driver and libraries.
    pub device: String,
    /// Timed rounds.
    pub rounds: usize,
    /// Their time.
    pub seconds: f64,
    /// Tokens (rows · L) per second of a round: the median, and the quartiles around it.
    pub tokens_per_second: f64,
    /// First and third quartile.
    pub tokens_per_second_quartiles: [f64; 2],
    /// Floating-point operations of matrix products, a billion a second over the whole time; on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gflops: Option<f64>,
    /// Peak resident memory of the task in bytes, where the system reports it.
    pub peak_memory_bytes: Option<u64>,
    /// The GPU's memory that training takes, its plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_memory_bytes: Option<usize>,
    /// Where the time went.
    pub operations: Vec<Operation>,
    /// A GPU's kernels in a round, timed one by one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<Timed>,
}

/// The time of one operation.
#[derive(Clone, Debug, Serialize)]
pub struct Operation {
    /// Its name; `other` is what no operation claims.
    pub operation: &'static str,
    /// Share of the whole time in forward passes.
    pub forward: f64,
    /// Share of the whole time in backward passes.
    pub backward: f64,
    /// Matrix products' operations in it, a billion a second of its own time.
    pub gflops: f64,
}

/// A matrix product alone, at a size that the network has.
#[derive(Clone, Debug, Serialize)]
pub struct Product {
    /// What it is in the network.
    pub what: &'static str,
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Depth.
    pub k: usize,
    /// A billion operations a second: median of the rounds.
    pub gflops: f64,
}

/// Measures a task on the calling pool of threads.
///
/// # Errors
/// Out of memory, a device that is not there, [`Task::Recompute`] where nothing is kept, or the run is cancelled.
pub fn measure(task: Task, options: &Options, cancel: &Cancel) -> Result<Measured> {
    let shape = options.shape;
    memory::reset_peak();
    let mut subject = Subject::new(task, options)?;
    let rows = random_rows(shape, options.batch * BATCHES)?;
    let info = rows.info();
    let objective = objective::build(&options.objective, info.special.mask, info.vocabulary, SEED);
    let (batch, wanted) = (options.batch, options.micro_batch);
    let micro_batch = match &mut subject {
        Subject::Learner(learner) => {
            learner.micro_batch(batch, wanted, workload(&options.objective, &*objective))?
        }
        Subject::Network(_) => {
            wanted.unwrap_or_else(|| memory::rows_at_a_time(shape, options.device).min(batch as usize) as u32)
        }
    };
    let kernels;
    let mut steps = None;
    let rounds = match (task, &mut subject) {
        (Task::Train, Subject::Learner(learner)) => {
            let job = Trainer {
                rows: &rows,
                objective: &*objective,
                config: config(options.batch, micro_batch),
                // A rehearsal keeps nothing.
                checkpoints: &CheckpointManager::default(),
                sharing: crate::ranks::Sharing::alone(),
                cancel,
            };
            let mut rehearsal = StepBench::new(&job, &mut **learner)?;
            let rounds = timed(options, || rehearsal.step())?;
            for _ in 0..kernel_rounds(options, rehearsal.network()) {
                rehearsal.step()?;
            }
            kernels = kernel_times(rehearsal.network())?;
            rounds
        }
        (Task::Evaluate, Subject::Network(network)) => {
            let task = evaluate::BoundEstimator {
                rows: &rows,
                limit: Some(u64::from(options.batch)),
                objective: &*objective,
                seed: SEED,
                method: method_of(options, &*objective),
                draws: 1,
                stream: Stream::Evaluate,
                micro_batch: micro_batch as usize,
            };
            let run = || task.run(&**network, cancel, &mut |_, _, _| ()).map(drop);
            let rounds = timed(options, run)?;
            kernels = kernels_of(options, &**network, run)?;
            rounds
        }
        (Task::Sample | Task::Recompute, Subject::Network(network)) => {
            let task = sample::Sampling {
                micro_batch: micro_batch as usize,
                ..sample::Sampling::new(options.batch, options.steps, objective.support(), SEED)
            };
            let of = &options.objective;
            let build = || sample::build(of.samplers()[0], of, &*objective, info.special, true, &[]);
            steps = Some(build()?.steps(options.steps, shape.length));
            let run = || {
                let mut sampler = build()?;
                task.run(&mut *sampler, &**network, cancel, &mut |_| ()).map(drop)
            };
            let rounds = timed(options, run)?;
            kernels = kernels_of(options, &**network, run)?;
            rounds
        }
        _ => return Err(Error::internal("another subject than the task's")),
    };
    let tokens = f64::from(options.batch) * shape.length as f64;
    let [first, median, third] = quartiles(&rounds.seconds).map(|seconds| tokens / seconds);
    let seconds: f64 = rounds.seconds.iter().sum();
    Ok(Measured {
        program: format!("mdlm {}", env!("CARGO_PKG_VERSION")),
        task,
        shape: shape.name,
        objective: options.objective.kind(),
        batch: options.batch,
        micro_batch,
        steps,
        threads: rayon::current_num_threads(),
        device: system::described(options.device),
        rounds: rounds.seconds.len(),
        seconds,
        tokens_per_second: median,
        tokens_per_second_quartiles: [third, first],
        gflops: (!options.device.is_gpu())
            .then(|| rounds.operations.iter().map(Spent::flops).sum::<u64>() as f64 / seconds / 1e9),
        peak_memory_bytes: memory::peak(),
        device_memory_bytes: subject.network().device_memory(),
        operations: shares(&rounds.operations, seconds),
        kernels,
    })
}

/// Refuses to compute again what is never kept.
fn check_keeps(options: &Options) -> Result<()> {
    let kind = options.objective.kind();
    if options.objective.backbone() != Backbone::Transformer {
        return Err(Error::input(format!(
            "measure `recompute` for objective `{kind}`: its samplers keep no keys and values"
        ))
        .hint("add `--objective ar`, or measure `sample`"));
    }
    if options.device != Device::Cpu {
        return Err(
            Error::input("measure `recompute` on a GPU: keys and values are kept on the CPU only")
                .hint("use `--device cpu`, or measure `sample`"),
        );
    }
    Ok(())
}

/// The bound by time, where the objective has it.
fn method_of(options: &Options, objective: &dyn objective::Objective) -> Method {
    if options.objective.misfit_of_estimator(Estimator::Time).is_some() {
        return objective.method_of_validation();
    }
    Method {
        steps: options.objective.steps(),
        ..Method::of(Estimator::Time)
    }
}

/// What is measured: training takes an optimizer along.
enum Subject {
    Learner(Box<dyn Learner>),
    Network(Box<dyn Network>),
}

impl Subject {
    fn new(task: Task, options: &Options) -> Result<Self> {
        let Options {
            shape,
            device,
            precision,
            ..
        } = *options;
        let backbone = options.objective.backbone();
        let weights = model::initial(shape, backbone, SEED);
        Ok(match task {
            Task::Train => Self::Learner(model::build_learner(
                shape, backbone, device, precision, &weights,
            )?),
            Task::Evaluate | Task::Sample => {
                Self::Network(model::build(shape, backbone, device, precision, &weights)?)
            }
            Task::Recompute => {
                check_keeps(options)?;
                let network = model::build(shape, backbone, device, precision, &weights)?;
                Self::Network(Box::new(Recomputing(network)))
            }
        })
    }

    fn network(&self) -> &dyn Network {
        match self {
            Self::Learner(learner) => learner.network(),
            Self::Network(network) => &**network,
        }
    }
}

/// Rounds in which a GPU's kernels are timed one by one; none unless asked for, or on the CPU.
fn kernel_rounds(options: &Options, network: &dyn Network) -> usize {
    if options.kernels && network.device_memory().is_some() {
        network.time_kernels();
        ROUNDS
    } else {
        0
    }
}

/// The time of each kernel in one of those rounds, their mean.
fn kernel_times(network: &dyn Network) -> Result<Vec<Timed>> {
    let mean = |timed: Timed| Timed {
        count: timed.count / ROUNDS as u64,
        seconds: timed.seconds / ROUNDS as f64,
        ..timed
    };
    Ok(network.kernel_times()?.into_iter().map(mean).collect())
}

/// Runs further rounds if a GPU's kernels are to be timed, and returns their times.
fn kernels_of(
    options: &Options,
    network: &dyn Network,
    mut round: impl FnMut() -> Result<()>,
) -> Result<Vec<Timed>> {
    for _ in 0..kernel_rounds(options, network) {
        round()?;
    }
    kernel_times(network)
}

/// Measures matrix products at the sizes of a training step of `options.batch` rows: what the network cannot exceed.
///
/// # Errors
/// The run is cancelled.
pub fn products(options: &Options, cancel: &Cancel) -> Result<Vec<Product>> {
    let shape = options.shape;
    let (backbone, answered) = (options.objective.backbone(), options.objective.answered());
    let micro_batch = options
        .micro_batch
        .unwrap_or_else(|| footprint::micro_batch(shape, backbone, answered, options.batch));
    let rows = micro_batch as usize * shape.length;
    let (d, f) = (shape.width, shape.hidden());
    let sizes = [
        ("queries, keys, values", rows, 3 * d, d),
        ("their input's gradient", rows, d, 3 * d),
        ("their weight's gradient", 3 * d, d, rows),
        ("hidden layer", rows, f, d),
        ("output of the hidden layer", rows, d, f),
        ("hidden weight's gradient", f, d, rows),
    ];
    let mut products = Vec::new();
    for (what, m, n, k) in sizes {
        let values = |count: usize| -> Vec<f32> {
            let random = Random::new(SEED, Stream::Synthetic);
            (0..count)
                .map(|i| random.uniform(0, i as u64, 0) as f32 - 0.5)
                .collect()
        };
        let (a, b) = (values(m * k), values(k * n));
        let mut c = vec![0.0; m * n];
        let time = options.time / sizes.len() as u32;
        let each = Options {
            warmup: time / 4,
            time,
            ..*options
        };
        let rounds = timed(&each, || {
            cancel.check()?;
            gemm::product_in(
                options.precision,
                gemm::Start::Zero,
                gemm::View::new(&a, k),
                gemm::View::new(&b, n),
                &mut c,
            );
            Ok(())
        })?;
        let [_, median, _] = quartiles(&rounds.seconds);
        products.push(Product {
            what,
            m,
            n,
            k,
            gflops: 2.0 * (m * n * k) as f64 / median / 1e9,
        });
    }
    Ok(products)
}

/// Rows of random tokens; the last two ids are EOS and the mask.
fn random_rows(shape: &Shape, count: u32) -> Result<Rows> {
    let vocabulary = shape.vocabulary as u32;
    let special = SpecialIds {
        bos: vocabulary - 2,
        eos: vocabulary - 2,
        pad: vocabulary - 2,
        mask: vocabulary - 1,
    };
    let random = Random::new(SEED, Stream::Synthetic);
    let token =
        |row: u32, l: usize| (random.uniform(1, u64::from(row), l as u32) * f64::from(special.mask)) as u32;
    let tokens = (0..count)
        .flat_map(|row| (0..shape.length).map(move |l| token(row, l)))
        .collect();
    Rows::from_memory(vocabulary, special, shape.length, tokens, None)
}

/// The authors' config; the learning rate is too small to matter.
fn config(batch: u32, micro_batch: u32) -> TrainConfig {
    TrainConfig {
        steps: u64::MAX,
        batch,
        micro_batch,
        learning_rate: 1e-6,
        warmup_steps: 0,
        warmup_rates: WarmupRates::FromOne,
        schedule: LearningRateSchedule::Constant,
        adam: AdamW::default(),
        gradient_clip: 1.0,
        ema: 0.9999,
        dropout: 0.1,
        validation_every: 0,
        checkpoint_every: u64::MAX,
        seed: SEED,
    }
}

/// Timed rounds.
struct Rounds {
    /// Of each round.
    seconds: Vec<f64>,
    /// Of all of them.
    operations: Vec<Spent>,
}

/// Runs rounds until the time is over, after those of the warm-up.
fn timed(options: &Options, mut round: impl FnMut() -> Result<()>) -> Result<Rounds> {
    let begin = Instant::now();
    loop {
        round()?;
        if begin.elapsed() >= options.warmup {
            break;
        }
    }
    let before = profile::snapshot();
    let mut seconds = Vec::new();
    let begin = Instant::now();
    while seconds.len() < ROUNDS || begin.elapsed() < options.time {
        let start = Instant::now();
        round()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let operations = profile::snapshot()
        .iter()
        .zip(&before)
        .map(|(after, before)| after.since(before))
        .collect();
    Ok(Rounds { seconds, operations })
}

/// First quartile, median and third quartile, interpolated between neighbours (Hyndman and Fan 1996, type 7).
fn quartiles(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [0.25, 0.5, 0.75].map(|share| {
        let at = share * (sorted.len() - 1) as f64;
        let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        below + (above - below) * at.fract()
    })
}

/// Operations as shares of the whole time, the largest first; what is left is `other`.
fn shares(spent: &[Spent], seconds: f64) -> Vec<Operation> {
    let mut operations: Vec<Operation> = spent
        .iter()
        .filter(|spent| spent.forward.calls + spent.backward.calls > 0)
        .map(|spent| {
            let (forward, backward) = (
                spent.forward.time.as_secs_f64(),
                spent.backward.time.as_secs_f64(),
            );
            Operation {
                operation: spent.operation,
                forward: forward / seconds,
                backward: backward / seconds,
                gflops: spent.flops() as f64 / (forward + backward) / 1e9,
            }
        })
        .collect();
    operations.sort_by(|a, b| (b.forward + b.backward).total_cmp(&(a.forward + a.backward)));
    let claimed: f64 = operations.iter().map(|o| o.forward + o.backward).sum();
    operations.push(Operation {
        operation: "other",
        forward: (1.0 - claimed).max(0.0),
        backward: 0.0,
        gflops: 0.0,
    });
    operations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::SHAPES;

    #[test]
    fn quartiles_interpolate() {
        assert_eq!(quartiles(&[4.0, 1.0, 3.0, 2.0]), [1.75, 2.5, 3.25]);
        assert_eq!(quartiles(&[7.0]), [7.0; 3]);
    }

    fn options() -> Options {
        Options {
            shape: SHAPES.find("nano").unwrap(),
            objective: Objective::default(),
            device: Device::Cpu,
            precision: Precision::F32,
            batch: 4,
            micro_batch: Some(2),
            steps: 8,
            warmup: Duration::ZERO,
            time: Duration::ZERO,
            kernels: false,
        }
    }

    /// The products of a round from left to right are those of new positions, or of whole rows.
    #[test]
    fn bench_samples_with_and_without_kept_keys() {
        let options = Options {
            objective: Objective::from_argument("ar").unwrap(),
            ..options()
        };
        let cancel = Cancel::default();
        for task in [Task::Sample, Task::Recompute] {
            let measured = measure(task, &options, &cancel).unwrap();
            assert_eq!((measured.rounds, measured.steps), (ROUNDS, Some(31)));
            assert!(measured.tokens_per_second > 0.0 && measured.gflops > Some(0.0));
        }
        let refusal = |options| measure(Task::Recompute, &options, &cancel).unwrap_err();
        let error = refusal(Options {
            objective: Objective::default(),
            ..options
        });
        assert_eq!(error.kind().exit_code(), 2);
        assert!(error.to_string().contains("objective `mdlm`"), "{error}");
        let error = refusal(Options {
            device: Device::Cuda,
            ..options
        });
        assert!(error.to_string().contains("on a GPU"), "{error}");
    }

    /// Every task runs through on the smallest shape, and what it says adds up.
    #[test]
    fn bench_measures_every_task() {
        let options = options();
        let cancel = Cancel::default();
        for task in [Task::Train, Task::Evaluate, Task::Sample] {
            let measured = measure(task, &options, &cancel).unwrap();
            assert_eq!((measured.rounds, measured.micro_batch), (ROUNDS, 2));
            assert_eq!(measured.device, "cpu");
            let [low, high] = measured.tokens_per_second_quartiles;
            assert!(0.0 < low && low <= measured.tokens_per_second && measured.tokens_per_second <= high);
            let products = measured
                .operations
                .iter()
                .find(|o| o.operation == "linear")
                .unwrap();
            assert!(products.gflops > 0.0 && measured.gflops > Some(0.0));
            let trained = measured.operations.iter().any(|o| o.operation == "update");
            assert_eq!(trained, task == Task::Train);
        }
        let products = products(&options, &cancel).unwrap();
        assert!(products.iter().all(|product| product.gflops > 0.0));
        cancel.cancel();
        assert!(measure(Task::Train, &options, &cancel).is_err());
    }
}
