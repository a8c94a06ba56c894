//! Tests of whole runs on a device, emulated: against the CPU's, and against themselves.

use std::path::Path;

use super::objectives::{built, distinct};
use super::{chained_rows, config, objective};
use crate::diffusion::Objective as _;
use crate::error::{Kind, Result};
use crate::event::Cancel;
use crate::kernels::cuda::Cuda;
use crate::kernels::cuda::driver::DType;
use crate::kernels::cuda::emulated::{Emulated, Graphs};
use crate::kernels::{Fused, Loss};
use crate::manifest;
use crate::model::dit::Nano;
use crate::model::footprint::Workload;
use crate::model::{self, CpuNetwork, CudaLearner, HostLearner, cuda_memory};
use crate::model::{Learner, Network};
use crate::shapes::{Backbone, SHAPES, Shape};
use crate::train::*;

/// Validates by the sum of the weights, after likelihoods that are not used, and asks to end after a step.
#[derive(Default)]
struct Listener {
    cancel: Cancel,
    stop_after: Option<u64>,
    sums: Vec<f64>,
}

impl Hooks for Listener {
    fn validate(&mut self, network: &dyn Network) -> Result<Option<Validation>> {
        let mut weights = vec![0.0; network.parameters().iter().map(model::Parameter::len).sum()];
        network.read(&mut weights)?;
        let sum = weights.iter().map(|&w| f64::from(w).powi(2)).sum();
        self.sums.push(sum);
        let mask = nano().vocabulary as u32 - 1;
        let (tokens, targets) = (vec![mask; nano().length], vec![1; nano().length]);
        let positions: Vec<u32> = (0..nano().length as u32).collect();
        let batch = model::Batch {
            tokens: &tokens,
            sigma: &[0.0],
            positions: &positions,
            targets: &targets,
            weights: &vec![1.0; targets.len()],
            ..model::Batch::default()
        };
        let all = network.nll(&batch, objective(mask).support())?;
        assert!(all.iter().all(|nll| nll.is_finite()));
        Ok(Some(Validation {
            nats_per_token: sum,
            bits_per_byte: sum,
            rows: 1,
            ..Validation::default()
        }))
    }
    fn report(&mut self, report: TrainProgress) {
        if self.stop_after == Some(report.step) {
            self.cancel.cancel();
        }
    }
    fn note(&mut self, _: String) {}
    fn warn(&mut self, text: String) {
        panic!("{text}");
    }
}

fn nano() -> &'static Shape {
    SHAPES.find("nano").unwrap()
}

fn weights() -> Vec<f32> {
    model::initial(nano(), Backbone::Dit, 1)
}

fn emulated(device: Emulated, element: DType) -> CudaLearner<Nano> {
    CudaLearner::new(Cuda::new(Box::new(device), element), Backbone::Dit, &weights()).unwrap()
}

/// Where a run ends: its state, weights and moments.
type End = (TrainState, Vec<f32>, Moments);

/// Ten steps of four rows, two at a time, with checkpoints below `folder`.
fn run(
    learner: &mut dyn Learner,
    folder: &Path,
    listener: &mut Listener,
    change: impl FnOnce(&mut TrainConfig),
) -> Result<End> {
    run_of(&manifest::Objective::default(), learner, folder, listener, change)
}

/// The same for an objective.
fn run_of(
    settings: &manifest::Objective,
    learner: &mut dyn Learner,
    folder: &Path,
    listener: &mut Listener,
    change: impl FnOnce(&mut TrainConfig),
) -> Result<End> {
    let rows = chained_rows(nano());
    let mut config = TrainConfig {
        steps: 10,
        batch: 4,
        micro_batch: 2,
        learning_rate: 1e-3,
        dropout: 0.1,
        warmup_steps: 2,
        validation_every: 4,
        checkpoint_every: 3,
        ..config()
    };
    change(&mut config);
    let history = History {
        base: "on a device".to_owned(),
        steps: config.steps,
        ..History::default()
    };
    let cancel = std::mem::take(&mut listener.cancel);
    let job = Trainer {
        rows: &rows,
        objective: &*built(settings),
        config,
        checkpoints: &CheckpointManager::new(Checkpoints::new(folder, Path::new("")), history),
        sharing: crate::ranks::Sharing::alone(),
        cancel: &cancel,
    };
    listener.cancel = cancel.clone();
    let trained = job.run(learner, listener)?;
    let moments = learner.moments()?;
    let mut weights = moments.ema.clone();
    learner.network().read(&mut weights)?;
    Ok((trained.state, weights, moments))
}

/// Of the way from `from` to `expected`, the share by which `found` misses it.
fn off(found: &[f32], expected: &[f32], from: &[f32]) -> f64 {
    let norm = |a: &[f32], b: &[f32]| {
        let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt()
    };
    norm(found, expected) / norm(expected, from)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Weights, moments, averages, losses and norms of ten steps on either side.
#[test]
fn cuda_ten_steps_equal_those_of_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let (start, zeros) = (weights(), vec![0.0; weights().len()]);
    let network = CpuNetwork::<Nano, _>::new(Fused::default(), Backbone::Dit, &start).unwrap();
    let mut learner = HostLearner::new(network).unwrap();
    let mut cpu = Listener::default();
    let (expected, end, expected_moments) =
        run(&mut learner, &folder.path().join("cpu"), &mut cpu, |_| ()).unwrap();
    // AdamW moves every weight by about the learning rate whatever its gradient: of small gradients rounding shows.
    for (element, plain, tolerance) in [
        (DType::F32, false, 2e-3),
        (DType::F32, true, 2e-3),
        (DType::Bf16, false, 0.2),
    ] {
        let device = if plain {
            Emulated::without_epilogues()
        } else {
            Emulated::default()
        };
        let mut learner = emulated(device, element);
        let mut listener = Listener::default();
        let place = folder.path().join(format!("{element:?} {plain}"));
        let (found, found_end, found_moments) = run(&mut learner, &place, &mut listener, |_| ()).unwrap();
        for (what, found, expected, from) in [
            ("weights", &found_end, &end, &start),
            ("first", &found_moments.first, &expected_moments.first, &zeros),
            ("second", &found_moments.second, &expected_moments.second, &zeros),
            ("average", &found_moments.ema, &expected_moments.ema, &start),
        ] {
            let off = off(found, expected, from);
            assert!(off < tolerance, "{element:?}: {what} are off by {off}");
        }
        let losses = |state: &TrainState| state.log.recent.iter().copied().collect::<Vec<_>>();
        for (found, expected) in losses(&found).iter().zip(losses(&expected)) {
            assert!(
                (found - expected).abs() < tolerance * expected,
                "{found}, {expected}"
            );
        }
        assert_eq!(found.log.recent.len(), expected.log.recent.len());
        // Validated with the averages, which then went back.
        assert_eq!(listener.sums.len(), 3);
        for (found, expected) in listener.sums.iter().zip(&cpu.sums) {
            assert!((found - expected).abs() < 1e-4 * expected, "{found}, {expected}");
        }
    }
}

/// Initial weights with those moved that begin at zero: at zero, most gradients vanish.
fn moved(backbone: Backbone) -> Vec<f32> {
    let mut weights = model::initial(nano(), backbone, 1);
    for (i, weight) in weights.iter_mut().enumerate() {
        if *weight == 0.0 {
            *weight = 0.02 * (i as f32 * 78.233).sin();
        }
    }
    weights
}

/// Three steps of every objective that asks something different of the network, in memory that was planned for it.
#[test]
fn cuda_steps_of_every_objective_equal_those_of_the_cpu_in_the_planned_memory() {
    let folder = tempfile::tempdir().unwrap();
    let three = |config: &mut TrainConfig| (config.steps, config.batch) = (3, 2);
    for (name, settings) in distinct() {
        let backbone = settings.backbone();
        let start = moved(backbone);
        let network = CpuNetwork::<Nano, _>::new(Fused::default(), backbone, &start).unwrap();
        let place = |device: &str| folder.path().join(format!("{name} {device}"));
        let mut cpu = HostLearner::new(network).unwrap();
        let (expected, end, expected_moments) = run_of(
            &settings,
            &mut cpu,
            &place("cpu"),
            &mut Listener::default(),
            three,
        )
        .unwrap();

        let cuda = Cuda::new(Box::new(Emulated::default()), DType::F32);
        let mut learner = CudaLearner::<Nano>::new(cuda, backbone, &start).unwrap();
        let workload = workload(&settings, &*built(&settings));
        assert_eq!(learner.micro_batch(2, Some(2), workload).unwrap(), 2);
        let planned = cuda_memory::memory(nano(), backbone, workload, DType::F32, 2, Some(2)).unwrap();
        let (found, found_end, moments) = run_of(
            &settings,
            &mut learner,
            &place("device"),
            &mut Listener::default(),
            three,
        )
        .unwrap();

        // As in ten steps; of three, those of the warm-up, whose moments are new, are a larger part.
        let tolerance = 1e-2;
        let zeros = vec![0.0; start.len()];
        for (what, found, expected, from) in [
            ("weights", &found_end, &end, &start),
            ("first", &moments.first, &expected_moments.first, &zeros),
            ("second", &moments.second, &expected_moments.second, &zeros),
        ] {
            let off = off(found, expected, from);
            assert!(off < tolerance, "{name}: {what} are off by {off}");
        }
        assert_eq!(found.log.recent.len(), 3);
        for (found, expected) in found.log.recent.iter().zip(&expected.log.recent) {
            // 1e-3: f32 through two blocks, and weights that differ as above.
            assert!(
                (found - expected).abs() < 1e-3 * expected,
                "{name}: {found}, {expected}"
            );
        }
        // As in `cuda_reserved_memory_is_enough_for_every_micro_batch`.
        let taken = learner.taken();
        assert!(
            taken.total() <= planned.total() + planned.feed,
            "{name}: {taken:?} for {planned:?}"
        );
    }
}

#[test]
fn resume_on_cuda_ends_in_the_same_bits_and_replays_steps() {
    for element in [DType::F32, DType::Bf16] {
        let folder = tempfile::tempdir().unwrap();
        let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
        let device = Emulated::default();
        let graphs = device.graphs();
        let mut learner = emulated(device, element);
        let (state, end, moments) = run(&mut learner, &whole, &mut Listener::default(), |_| ()).unwrap();
        // Twenty micro-batches, ten updates and three validations: of each, most are replays of few.
        let replays = Graphs::counts(&graphs);
        assert_eq!(replays.iter().sum::<usize>(), 33, "{replays:?}");
        // The tokens, what is masked and what is dropped change from step to step: nothing of it shows in what is launched.
        let mut most: Vec<usize> = replays.clone();
        most.sort_unstable();
        assert!(most.iter().rev().take(3).sum::<usize>() >= 22, "{replays:?}");

        let mut listener = Listener {
            stop_after: Some(5),
            ..Listener::default()
        };
        let mut learner = emulated(Emulated::default(), element);
        let error = run(&mut learner, &parts, &mut listener, |_| ()).unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted);
        let mut learner = emulated(Emulated::default(), element);
        let (resumed, resumed_end, resumed_moments) =
            run(&mut learner, &parts, &mut Listener::default(), |_| ()).unwrap();
        assert!(bits(&resumed_end) == bits(&end), "{element:?}: other weights");
        assert!(resumed_moments == moments, "{element:?}: other moments");
        assert_eq!(resumed.log.text, state.log.text);
    }
}

/// What is not finite stops the run before it spoils the weights, and is reported by name.
#[test]
fn divergence_on_cuda_is_an_error_and_leaves_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let mut learner = emulated(Emulated::default(), DType::F32);
    let mut spoilt = weights();
    let parameter = learner
        .network()
        .parameters()
        .iter()
        .find(|p| p.name == "blocks.1.mlp.2.bias")
        .unwrap()
        .clone();
    spoilt[parameter.offset] = f32::INFINITY;
    learner.load(&spoilt, Moments::before(spoilt.clone())).unwrap();
    let error = run(&mut learner, folder.path(), &mut Listener::default(), |_| ()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("training diverged at step 1: the loss is not finite"),
        "{text}"
    );
    assert!(text.contains("(largest in `"), "{text}");
    let mut after = weights();
    learner.network().read(&mut after).unwrap();
    assert_eq!(bits(&after), bits(&spoilt));
}

/// The memory of a plan without a device is what a device is asked for.
#[test]
fn cuda_memory_taken_is_the_memory_planned() {
    let mdlm = Workload::default();
    let of_times = |loss| Workload {
        is_conditioned: true,
        loss,
        ..mdlm
    };
    for (element, backbone, workload) in [
        (DType::F32, Backbone::Dit, mdlm),
        (DType::Bf16, Backbone::Dit, mdlm),
        (DType::F32, Backbone::Dit, of_times(Loss::AbsorbingKl)),
        (DType::Bf16, Backbone::Dit, of_times(Loss::ScoreEntropy)),
        (DType::Bf16, Backbone::Transformer, mdlm),
    ] {
        let planned = cuda_memory::plan::<Nano>(
            Cuda::new(
                Box::new(crate::kernels::cuda::planning::Planning::default()),
                element,
            ),
            backbone,
            workload,
            4,
            2 * nano().length,
        )
        .unwrap();
        let device = Emulated::default();
        let most = device.most();
        let cuda = Cuda::new(Box::new(device), element);
        let taken = cuda_memory::plan::<Nano>(cuda, backbone, workload, 4, 2 * nano().length).unwrap();
        assert_eq!(taken, planned);
        assert_eq!(most.get(), planned.total());
        assert!(planned.arena <= planned.arena_used * 5 / 4, "{planned:?}");
    }
}

/// Kernels and products that are timed one by one are those of a step, and nothing is timed unasked.
#[test]
fn cuda_kernels_are_timed_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut learner = emulated(Emulated::default(), DType::F32);
    run(&mut learner, folder.path(), &mut Listener::default(), |config| {
        config.steps = 1;
    })
    .unwrap();
    assert_eq!(learner.network().kernel_times().unwrap(), []);
    learner.network().time_kernels();
    run(
        &mut learner,
        &folder.path().join("2"),
        &mut Listener::default(),
        |config| config.steps = 2,
    )
    .unwrap();
    let timed = learner.network().kernel_times().unwrap();
    let count = |what: &str| timed.iter().find(|timed| timed.what == what).unwrap().count;
    // Two micro-batches of two blocks in each of two steps, and a validation.
    assert_eq!(
        (
            count("attention_forward"),
            count("attention_keys"),
            count("update")
        ),
        (10, 8, 2)
    );
    assert!(
        timed.iter().any(|timed| timed.what.starts_with("multiply 64×")),
        "{timed:?}"
    );
    assert!(timed.windows(2).all(|pair| pair[0].seconds >= pair[1].seconds));
}

/// A step in which nothing is masked moves averages and moments, as on the CPU.
#[test]
fn cuda_step_without_gradients_counts_as_a_step() {
    let mut learner = emulated(Emulated::default(), DType::F32);
    let mut moments = Moments::before(weights());
    moments.ema.fill(0.5);
    learner.load(&weights(), moments.clone()).unwrap();
    let update = Update {
        number: 1,
        learning_rate: 0.1,
        ema_decay: 0.5,
    };
    learner.update(config().adam, update, 1.0).unwrap();
    let outcome = learner.outcome().unwrap().unwrap();
    assert_eq!(
        (outcome.loss, outcome.norm.total, outcome.halted),
        (0.0, 0.0, false)
    );
    let after = learner.moments().unwrap();
    assert_ne!(after.ema, moments.ema);
    assert_eq!(after.first, moments.first);
}

/// The last micro-batches of a step have the largest shares of masked tokens; what was reserved is enough for them.
#[test]
fn cuda_reserved_memory_is_enough_for_every_micro_batch() {
    for rows in [1, 2, 4] {
        let folder = tempfile::tempdir().unwrap();
        let planned = cuda_memory::memory(
            nano(),
            Backbone::Dit,
            Workload::default(),
            DType::F32,
            rows,
            Some(4),
        )
        .unwrap();
        let mut learner = emulated(Emulated::default(), DType::F32);
        assert_eq!(
            learner
                .micro_batch(4, Some(rows as u32), Workload::default())
                .unwrap(),
            rows as u32
        );
        run(&mut learner, folder.path(), &mut Listener::default(), |config| {
            config.micro_batch = rows as u32;
        })
        .unwrap();
        let taken = learner.taken().total();
        // Two steps' lists may be uploaded at once.
        assert!(
            taken <= planned.total() + planned.feed,
            "{rows} rows: {taken} for {planned:?}"
        );
        assert!(
            taken >= planned.kept + planned.arena,
            "{rows} rows: {taken} for {planned:?}"
        );
    }
}

/// The largest micro-batch that the plan finds room for, and what would fit where there is none.
#[test]
fn cuda_micro_batches_fill_the_free_memory() {
    let mdlm = Workload::default();
    let needed = |rows| {
        cuda_memory::memory(nano(), Backbone::Dit, mdlm, DType::Bf16, rows, Some(12))
            .unwrap()
            .total()
    };
    let fitting = |bytes| cuda_memory::fitting(nano(), Backbone::Dit, mdlm, DType::Bf16, 12, bytes);
    assert_eq!(fitting(usize::MAX).unwrap(), 12);
    for (rows, next) in [(1, 2), (3, 4), (6, 12)] {
        assert_eq!(fitting(needed(rows)).unwrap(), rows as u32);
        assert_eq!(fitting(needed(next) - 1).unwrap(), rows as u32);
    }
    let fits = |rows, bytes| cuda_memory::fits(nano(), Backbone::Dit, mdlm, DType::Bf16, rows, 12, bytes);
    assert!(fits(4, needed(4)).is_ok());
    let error = fits(6, needed(4)).unwrap_err();
    assert!(
        error.to_string().contains("a micro-batch of 6 rows needs"),
        "{error}"
    );
    assert!(error.hint_text().unwrap().starts_with("set `micro_batch` to 4"));
    let error = fitting(needed(1) - 1).unwrap_err();
    assert_eq!(error.kind(), Kind::Environment);
    let shape = SHAPES.find("lm1b-small").unwrap();
    let error = cuda_memory::fitting(shape, Backbone::Dit, mdlm, DType::Bf16, 8, 1 << 30).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("MiB of the device, which has 1024 MiB for it"),
        "{error}"
    );
    assert!(
        error.hint_text().unwrap().contains("shape `mini` would fit"),
        "{:?}",
        error.hint_text()
    );
}

/// Where memory ends the run ends, with the device's own words.
#[test]
fn cuda_out_of_memory_is_an_error_of_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    // Weights, gradients and moments fit, activations do not.
    let planned =
        cuda_memory::memory(nano(), Backbone::Dit, Workload::default(), DType::F32, 2, None).unwrap();
    let mut learner = emulated(Emulated::of_bytes(planned.kept + planned.arena / 2), DType::F32);
    let error = run(&mut learner, folder.path(), &mut Listener::default(), |_| ())
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::Environment, "{error}");
}
