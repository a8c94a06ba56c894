//! Trainings that several ranks share have the bits of those of one.

use std::sync::Arc;

use super::*;
use crate::diffusion::Objective;
use crate::kernels::cuda::Cuda;
use crate::kernels::cuda::driver::DType;
use crate::kernels::cuda::emulated::Emulated;
use crate::model::CudaLearner;
use crate::ranks::{Alone, Communicator, Sharing, threads};

/// What the first rank of a training ends with, and how the others end.
struct SharedRun {
    end: Result<End>,
    others: Vec<Result<()>>,
    notes: Vec<String>,
    validations: u32,
}

/// What is trained.
struct Case<'a> {
    rows: &'a Rows,
    objective: &'a (dyn Objective + Sync),
    learner: &'a (dyn Fn() -> Box<dyn Learner> + Sync),
    config: TrainConfig,
    grains: u32,
}

/// Trains in a folder with as many ranks as that, each a thread.
fn train(task: &Case<'_>, world: u32, folder: &Path, mut listener: Listener) -> SharedRun {
    let mut ranks: Vec<Arc<dyn Communicator>> = match world {
        1 => vec![Arc::new(Alone)],
        _ => threads::ranks(world)
            .into_iter()
            .map(|rank| Arc::new(rank) as _)
            .collect(),
    };
    let first = ranks.remove(0);
    let (none, cancel) = (CheckpointManager::default(), listener.cancel.clone());
    let kept = checkpoints(folder, &task.config);
    let (cancel, none, kept) = (&cancel, &none, &kept);
    let job = |ranks, checkpoints| Trainer {
        rows: task.rows,
        objective: task.objective,
        config: task.config.clone(),
        checkpoints,
        sharing: Sharing {
            ranks,
            grains: task.grains,
        },
        cancel,
    };
    let ready = |ranks: &Arc<dyn Communicator>| {
        let mut learner = (task.learner)();
        let sharing = Sharing {
            ranks: ranks.clone(),
            grains: task.grains,
        };
        learner.share(sharing).unwrap();
        learner
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = ranks
            .into_iter()
            .map(|rank| {
                scope.spawn(move || {
                    let mut learner = ready(&rank);
                    // The first one reads the moments at the end.
                    match job(rank.clone(), none).follow(&mut *learner)? {
                        true => checkpoint::lend(&*learner),
                        false => Ok(()),
                    }
                })
            })
            .collect();
        let mut learner = ready(&first);
        let trained = job(first.clone(), kept).run(&mut *learner, &mut listener);
        let end = trained.and_then(|trained| {
            let mut weights = vec![0.0; model::total(learner.network().parameters())];
            learner.network().read(&mut weights)?;
            let read = |arena| {
                let mut values = vec![0.0; weights.len()];
                learner.read(arena, &mut values).map(|()| values)
            };
            let ema = read(model::Arena::Average)?;
            let first = read(model::Arena::FirstMoment)?;
            let second = read(model::Arena::SecondMoment)?;
            Ok((trained.state, weights, Moments { first, second, ema }))
        });
        drop((learner, first));
        SharedRun {
            end,
            others: others.into_iter().map(|other| other.join().unwrap()).collect(),
            notes: std::mem::take(&mut listener.notes),
            validations: listener.validations,
        }
    })
}

/// Trains the toy network; eight grains of three rows.
fn toy(world: u32, config: TrainConfig, folder: &Path, listener: Listener) -> SharedRun {
    let (rows, objective) = (rows(), objective(LETTERS));
    let task = Case {
        rows: &rows,
        objective: &objective,
        learner: &|| Box::new(bag()),
        config,
        grains: 8,
    };
    train(&task, world, folder, listener)
}

fn cut() -> TrainConfig {
    TrainConfig {
        batch: 24,
        micro_batch: 3,
        ..config()
    }
}

#[test]
fn ranks_have_the_bits_of_one_for_any_world_and_micro_batch() {
    let fresh = |world, config| {
        let folder = tempfile::tempdir().unwrap();
        let shared = toy(world, config, folder.path(), Listener::default());
        assert!(shared.others.iter().all(Result::is_ok), "{:?}", shared.others);
        assert_eq!(shared.validations, 3, "the first rank alone validates");
        shared.end.unwrap()
    };
    let one = fresh(1, cut());
    for (world, micro_batch) in [(2, 3), (4, 1), (8, 3)] {
        let config = TrainConfig { micro_batch, ..cut() };
        assert!(fresh(world, config) == one, "{world} ranks");
    }
    // Without grains the sums are in another order.
    let folder = tempfile::tempdir().unwrap();
    let whole = run(folder.path(), cut(), &mut Listener::default()).unwrap();
    assert_ne!(whole.1, one.1);
    for (whole, one) in whole.1.iter().zip(&one.1) {
        assert!((whole - one).abs() < 1e-4, "{whole} and {one}");
    }
}

#[test]
fn ranks_take_up_what_any_other_number_of_ranks_has_left() {
    let folder = tempfile::tempdir().unwrap();
    let whole = toy(1, cut(), folder.path(), Listener::default()).end.unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (world, stop) in [(4, 5), (1, 9), (2, 10), (8, 17)] {
        let listener = Listener {
            stop_after: Some(stop),
            ..Listener::default()
        };
        let shared = toy(world, cut(), folder.path(), listener);
        assert_eq!(shared.end.unwrap_err().kind(), Kind::Interrupted);
        assert!(shared.others.iter().all(Result::is_ok), "{:?}", shared.others);
        let kept = format!("kept a checkpoint of step {stop}");
        assert!(shared.notes.contains(&kept), "{:?}", shared.notes);
    }
    let shared = toy(4, cut(), folder.path(), Listener::default());
    assert!(
        shared.notes[0].contains("resuming from the checkpoint of step 17"),
        "{:?}",
        shared.notes
    );
    assert!(shared.end.unwrap() == whole);
}

#[test]
fn ranks_end_when_the_first_is_interrupted_in_a_validation_or_fails() {
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener {
        stop_in_validation: true,
        ..Listener::default()
    };
    let shared = toy(2, cut(), folder.path(), listener);
    assert_eq!(shared.end.unwrap_err().kind(), Kind::Interrupted);
    assert!(shared.others[0].is_ok(), "{:?}", shared.others);

    // The folder of the checkpoints is a file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("checkpoints");
    std::fs::write(&file, "").unwrap();
    let shared = toy(2, cut(), &file, Listener::default());
    let (first, other) = (shared.end.unwrap_err(), shared.others[0].as_ref().unwrap_err());
    assert_eq!(first.kind(), Kind::Environment);
    assert!(other.to_string().starts_with("rank 0 has failed: "), "{other}");
}

#[test]
fn ranks_end_together_when_a_training_diverges() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig {
        learning_rate: 1e38,
        warmup_steps: 0,
        gradient_clip: 0.0,
        ..cut()
    };
    let shared = toy(4, config, folder.path(), Listener::default());
    let error = shared.end.unwrap_err();
    assert!(error.to_string().contains("not finite"), "{error}");
    assert!(shared.others.iter().all(Result::is_ok), "{:?}", shared.others);
}

/// The whole network with dropout, whose positions and dropout are functions of the row's place in the whole batch.
#[test]
fn ranks_have_the_bits_of_one_for_a_transformer_with_dropout() {
    let shape = SHAPES.find("nano").unwrap();
    let rows = chained_rows(shape);
    let mask = shape.vocabulary as u32 - 1;
    let objective = objective(mask);
    let weights = model::initial(shape, Backbone::Dit, 1);
    let config = TrainConfig {
        steps: 3,
        batch: 8,
        micro_batch: 1,
        dropout: 0.2,
        checkpoint_every: 100,
        validation_every: 0,
        ..config()
    };
    let learner = || -> Box<dyn Learner> {
        let network = CpuNetwork::<Nano, _>::new(Fused::default(), Backbone::Dit, &weights).unwrap();
        Box::new(HostLearner::new(network).unwrap())
    };
    let task = |micro_batch| Case {
        rows: &rows,
        objective: &objective,
        learner: &learner,
        config: TrainConfig {
            micro_batch,
            ..config.clone()
        },
        grains: 4,
    };
    let end = |world, micro_batch| {
        let folder = tempfile::tempdir().unwrap();
        let shared = train(&task(micro_batch), world, folder.path(), Listener::default());
        shared.end.unwrap()
    };
    let one = end(1, 2);
    assert!(end(2, 1) == one && end(4, 2) == one);
}

/// How a training of the smallest network ends, of batches of four rows in four grains; each rank has a learner of its own.
fn nano(learner: &(dyn Fn() -> Box<dyn Learner> + Sync), world: u32, config: TrainConfig) -> SharedRun {
    let shape = SHAPES.find("nano").unwrap();
    let (rows, objective) = (chained_rows(shape), objective(shape.vocabulary as u32 - 1));
    let task = Case {
        rows: &rows,
        objective: &objective,
        learner,
        config: TrainConfig {
            batch: 4,
            micro_batch: 1,
            ..config
        },
        grains: 4,
    };
    let folder = tempfile::tempdir().unwrap();
    let shared = train(&task, world, folder.path(), Listener::default());
    assert!(shared.others.iter().all(Result::is_ok), "{:?}", shared.others);
    shared
}

fn on_emulated_device(element: DType, weights: &[f32]) -> Box<dyn Learner> {
    let cuda = Cuda::new(Box::new(Emulated::default()), element);
    Box::new(CudaLearner::<Nano>::new(cuda, Backbone::Dit, weights).unwrap())
}

/// Gradients are added and exchanged on the devices. In bf16 the working copies are those of the gathered weights.
#[test]
fn ranks_have_the_bits_of_one_on_emulated_devices() {
    let weights = model::initial(SHAPES.find("nano").unwrap(), Backbone::Dit, 1);
    for element in [DType::F32, DType::Bf16] {
        let config = TrainConfig {
            steps: 2,
            dropout: 0.2,
            checkpoint_every: 1,
            validation_every: 2,
            ..config()
        };
        let run = |world| nano(&|| on_emulated_device(element, &weights), world, config.clone());
        let one = run(1);
        let (end, validations) = (one.end.unwrap(), one.validations);
        for world in [2, 4] {
            let shared = run(world);
            assert!(shared.end.unwrap() == end, "{element:?}, {world} ranks");
            assert_eq!(shared.validations, validations);
        }
    }
}

/// The tree on the device, and the norm in the order of its blocks, give what the host's give, but for the order within sums.
#[test]
fn ranks_on_emulated_devices_follow_the_cpu() {
    let weights = model::initial(SHAPES.find("nano").unwrap(), Backbone::Dit, 1);
    let config = TrainConfig {
        steps: 3,
        checkpoint_every: 100,
        validation_every: 0,
        ..config()
    };
    let on_cpu = || -> Box<dyn Learner> {
        let network = CpuNetwork::<Nano, _>::new(Fused::default(), Backbone::Dit, &weights).unwrap();
        Box::new(HostLearner::new(network).unwrap())
    };
    let on_cpu = nano(&on_cpu, 1, config.clone()).end.unwrap();
    let on_device = nano(&|| on_emulated_device(DType::F32, &weights), 2, config)
        .end
        .unwrap();
    let square = |values: &[f32]| values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    let between = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f32>>();
    // Of the way that the weights have come: sums in another order.
    let off = square(&between(&on_cpu.1, &on_device.1)) / square(&between(&on_cpu.1, &weights));
    assert!(off.sqrt() < 2e-3, "{}", off.sqrt());
    for (cpu, device) in on_cpu.0.log.recent.iter().zip(&on_device.0.log.recent) {
        assert!((cpu - device).abs() < 1e-4, "{cpu:?} and {device:?}");
    }
}
