//! Tests of complete training runs.

#[cfg(target_os = "linux")]
mod cuda;
mod objectives;
mod ranks;

use super::*;
use crate::data::SpecialIds;
use crate::data::rows::Rows;
use crate::diffusion::Mdlm;
use crate::error::{Error, Kind, Result};
use crate::event::Cancel;
use crate::kernels::{Fused, composite::Composite};
use crate::manifest::MdlmObjective;
use crate::manifest::{LearningRateSchedule, WarmupRates};
use crate::model::dit::Nano;
use crate::model::toy::Bag;
use crate::model::{self, CpuNetwork, HostLearner};
use crate::model::{Learner, Network};
use crate::shapes::{Backbone, SHAPES, Shape};
use std::path::Path;

const LENGTH: usize = 6;
const LETTERS: u32 = 5;

/// Rows whose letters all agree, some of them padded.
fn rows() -> Rows {
    let special = SpecialIds {
        bos: 0,
        eos: 0,
        pad: 0,
        mask: LETTERS,
    };
    let tokens = (0..30_u32).flat_map(|row| vec![row % LETTERS; LENGTH]).collect();
    let scored: Vec<_> = (0..30).map(|row| 0..LENGTH - row % 3).collect();
    Rows::from_memory(LETTERS + 1, special, LENGTH, tokens, Some(&scored)).unwrap()
}

fn objective(mask: u32) -> Mdlm {
    Mdlm::new(&MdlmObjective::default(), mask, mask + 1, 4)
}

fn config() -> TrainConfig {
    TrainConfig {
        steps: 20,
        batch: 12,
        micro_batch: 12,
        learning_rate: 0.1,
        warmup_steps: 5,
        warmup_rates: WarmupRates::FromOne,
        schedule: LearningRateSchedule::Cosine,
        adam: AdamW {
            weight_decay: 0.01,
            ..AdamW::default()
        },
        gradient_clip: 1.0,
        ema: 0.9,
        dropout: 0.0,
        validation_every: 8,
        checkpoint_every: 7,
        seed: 4,
    }
}

/// Counts the calls; asks to end after a step.
#[derive(Default)]
struct Listener {
    cancel: Cancel,
    stop_after: Option<u64>,
    stop_in_validation: bool,
    validations: u32,
    reports: u64,
    notes: Vec<String>,
}

impl Hooks for Listener {
    fn validate(&mut self, network: &dyn Network) -> Result<Option<Validation>> {
        if self.stop_in_validation {
            self.cancel.cancel();
            return Err(Error::interrupted());
        }
        self.validations += 1;
        let mut weights = vec![0.0; network.parameters().iter().map(model::Parameter::len).sum()];
        network.read(&mut weights)?;
        let sum = weights.iter().map(|&w| f64::from(w.abs())).sum();
        Ok(Some(Validation {
            nats_per_token: sum,
            bits_per_byte: sum,
            rows: 1,
            ..Validation::default()
        }))
    }
    fn report(&mut self, report: TrainProgress) {
        self.reports += 1;
        if self.stop_after == Some(report.step) {
            self.cancel.cancel();
        }
    }
    fn note(&mut self, text: String) {
        self.notes.push(text);
    }
    fn warn(&mut self, text: String) {
        self.notes.push(text);
    }
}

/// Where a run ends: its state, weights and moments.
type End = (TrainState, Vec<f32>, Moments);

fn bag() -> HostLearner<Bag> {
    HostLearner::new(Bag::new(LETTERS as usize + 1, LENGTH)).unwrap()
}

fn run(folder: &Path, config: TrainConfig, listener: &mut Listener) -> Result<End> {
    let checkpoints = checkpoints(folder, &config);
    run_with(&checkpoints, config, listener, None)
}

/// A run; its end is written to `artifact`.
fn run_with(
    checkpoints: &CheckpointManager,
    config: TrainConfig,
    listener: &mut Listener,
    artifact: Option<&Path>,
) -> Result<End> {
    let history = history(&config);
    let (rows, objective) = (rows(), objective(LETTERS));
    let cancel = listener.cancel.clone();
    let job = Trainer {
        rows: &rows,
        objective: &objective,
        checkpoints,
        config,
        sharing: crate::ranks::Sharing::alone(),
        cancel: &cancel,
    };
    let mut learner = bag();
    let trained = job.run(&mut learner, listener)?;
    let mut raw = vec![0.0; 42];
    learner.network().read(&mut raw)?;
    if let Some(folder) = artifact {
        checkpoint::write(folder, &learner, &trained.state, &history)?;
    }
    Ok((trained.state, raw, learner.moments()?))
}

fn history(config: &TrainConfig) -> History {
    History {
        start: 0,
        base: "toy".to_owned(),
        learning_rate: config.learning_rate,
        warmup_steps: config.warmup_steps,
        warmup_rates: config.warmup_rates,
        schedule: config.schedule,
        steps: config.steps,
        validation_every: config.validation_every,
        validation_rows: 1,
    }
}

fn checkpoints(folder: &Path, config: &TrainConfig) -> CheckpointManager {
    CheckpointManager::new(Checkpoints::new(folder, Path::new("")), history(config))
}

/// A run that is asked to end after a step, its checkpoints in the folder.
fn stop_after(step: u64, folder: &Path) {
    let mut listener = Listener {
        stop_after: Some(step),
        ..Listener::default()
    };
    let error = run(folder, config(), &mut listener).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
}

fn fresh(config: TrainConfig) -> End {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), config, &mut Listener::default()).unwrap()
}

#[test]
fn train_learns_a_toy_language() {
    let (state, ..) = fresh(TrainConfig {
        steps: 300,
        ..config()
    });
    // Uniform guessing costs log 5 = 1.61 nats; one visible letter determines all others. What remains is the first
    // letter: (1 / L) log 5 = 0.27 for a whole row.
    let loss = state.log.recent_loss().unwrap();
    assert!(loss < 0.8, "loss {loss}");
}

#[test]
fn resume_after_any_step_equals_a_whole_run_for_any_micro_batch_and_threads() {
    let whole = fresh(config());
    for (stop, micro_batch, threads) in [(10, 1, 1), (7, 4, 3), (8, 6, 2), (19, 3, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let mut first = Listener {
            stop_after: Some(stop),
            ..Listener::default()
        };
        let error = run(
            folder.path(),
            TrainConfig {
                micro_batch,
                ..config()
            },
            &mut first,
        )
        .unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let (resumed, listener) = pool.install(|| {
            let mut second = Listener::default();
            (run(folder.path(), config(), &mut second).unwrap(), second)
        });
        assert_eq!(resumed, whole, "stopped after {stop}");
        assert_eq!(first.reports + listener.reports, 21, "no step is done twice");
    }
}

#[test]
fn resume_after_a_kill_repeats_steps_and_changes_nothing() {
    let whole = fresh(config());
    let folder = tempfile::tempdir().unwrap();
    stop_after(16, folder.path());
    // What a kill at step 16 leaves: the checkpoint of step 14, and half of the next one.
    std::fs::rename(
        folder.path().join("step-00000016"),
        folder.path().join(".step-00000016.new"),
    )
    .unwrap();
    let mut second = Listener::default();
    assert_eq!(run(folder.path(), config(), &mut second).unwrap(), whole);
    assert_eq!(second.notes[0], "resuming from the checkpoint of step 14");
}

#[test]
fn resume_repeats_an_interrupted_validation() {
    let whole = fresh(config());
    let folder = tempfile::tempdir().unwrap();
    let mut first = Listener {
        stop_in_validation: true,
        ..Listener::default()
    };
    run(folder.path(), config(), &mut first).unwrap_err();
    let mut second = Listener::default();
    assert_eq!(run(folder.path(), config(), &mut second).unwrap(), whole);
    assert_eq!(second.validations, 3, "after steps 8, 16 and 20");
}

#[test]
fn resume_skips_a_damaged_checkpoint_and_keeps_those_of_other_runs() {
    let whole = fresh(config());
    let folder = tempfile::tempdir().unwrap();
    stop_after(16, folder.path());
    let mut kept: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    kept.sort();
    assert_eq!(kept.len(), 2, "the newest and the one before: {kept:?}");
    let damaged = kept[1].join(checkpoint::EMA);
    let mut bytes = std::fs::read(&damaged).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let mut second = Listener::default();
    assert_eq!(run(folder.path(), config(), &mut second).unwrap(), whole);
    assert_eq!(
        second.notes[..2],
        [
            "the checkpoint of step 16 cannot be used: `ema.safetensors` is damaged",
            "resuming from the checkpoint of step 14"
        ]
    );
    let another = History {
        base: "another run".to_owned(),
        ..history(&config())
    };
    let other = CheckpointManager::new(Checkpoints::new(folder.path(), Path::new("")), another);
    assert_eq!(other.restore(&mut bag(), &mut |_| ()).unwrap(), None);
}

/// A state that is not the one that its folder's name says leaves the weights as they are.
#[test]
fn resume_skips_a_checkpoint_under_the_name_of_another_step() {
    let whole = fresh(config());
    let folder = tempfile::tempdir().unwrap();
    stop_after(5, folder.path());
    std::fs::rename(
        folder.path().join("step-00000005"),
        folder.path().join("step-00000006"),
    )
    .unwrap();
    let mut second = Listener::default();
    assert_eq!(run(folder.path(), config(), &mut second).unwrap(), whole);
    assert_eq!(second.notes[0], "the checkpoint of step 6 contains another step");
}

fn constant(steps: u64) -> TrainConfig {
    TrainConfig {
        steps,
        schedule: LearningRateSchedule::Constant,
        ..config()
    }
}

/// A run that may resume from checkpoints of others: its notes, and what it made.
fn goes_on(earlier: &Path, kept: &Path, config: TrainConfig) -> (Vec<String>, End) {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(folder.path(), kept).with_earlier(vec![earlier.to_owned()]);
    let checkpoints = CheckpointManager::new(checkpoints, history(&config));
    let mut listener = Listener::default();
    let made = run_with(&checkpoints, config, &mut listener, None).unwrap();
    (listener.notes, made)
}

#[test]
fn resume_of_a_longer_run_starts_at_the_end_of_a_shorter_one() {
    let (work, artifact) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let none = Path::new("");
    // Step 12 is none for a validation but that it is the last.
    let short = constant(12);
    let mut listener = Listener::default();
    let checkpoints = checkpoints(work.path(), &short);
    run_with(&checkpoints, short, &mut listener, Some(artifact.path())).unwrap();
    for config in [constant(20), constant(13), constant(12)] {
        let (notes, made) = goes_on(artifact.path(), none, config.clone());
        assert_eq!(
            notes[0],
            "resuming from the checkpoint of step 12 of an earlier run"
        );
        assert_eq!(made, fresh(config));
    }
    // A run that was not finished has left checkpoints.
    let (notes, made) = goes_on(work.path(), none, constant(30));
    assert_eq!(
        notes[0],
        "resuming from the checkpoint of step 12 of an earlier run"
    );
    assert_eq!(made, fresh(constant(30)));
    // Another one's are none.
    let other = TrainConfig {
        learning_rate: 0.05,
        ..constant(20)
    };
    let (notes, made) = goes_on(artifact.path(), none, other.clone());
    // It was asked for another one: there is nothing to warn of.
    assert!(
        !notes
            .iter()
            .any(|note| note.starts_with("training starts from step 0")),
        "{notes:?}"
    );
    assert_eq!(made, fresh(other));
    let (notes, made) = goes_on(artifact.path(), none, constant(8));
    assert_eq!(
        notes[0],
        "training starts from step 0: an earlier run went to step 12 and kept no checkpoint of step 8 or before \
         (`keep_checkpoints`)"
    );
    assert_eq!(made, fresh(constant(8)));
}

#[test]
fn resume_under_a_schedule_that_depends_on_the_steps_restarts_and_says_why() {
    let (work, artifact) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let short = TrainConfig {
        steps: 12,
        ..config()
    };
    let checkpoints = checkpoints(work.path(), &short);
    run_with(
        &checkpoints,
        short,
        &mut Listener::default(),
        Some(artifact.path()),
    )
    .unwrap();
    let (notes, made) = goes_on(artifact.path(), Path::new(""), config());
    assert!(
        notes[0].ends_with("(with the schedule `cosine` they depend on `steps`)"),
        "{notes:?}"
    );
    assert_eq!(made, fresh(config()));
}

#[test]
fn resume_from_kept_checkpoints_serves_shorter_runs_and_branches() {
    let (work, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let long = constant(20);
    let retention = Retention {
        every: 5,
        last: 2,
        best: true,
    };
    let checkpoints = Checkpoints::new(work.path(), kept.path());
    let own = CheckpointManager::new(checkpoints, history(&long)).with_retention(retention);
    run_with(&own, long, &mut Listener::default(), None).unwrap();
    let mut names = Vec::new();
    for base in std::fs::read_dir(kept.path()).unwrap() {
        for rates in std::fs::read_dir(base.unwrap().path()).unwrap() {
            for left in std::fs::read_dir(rates.unwrap().path()).unwrap() {
                names.push(left.unwrap().file_name().into_string().unwrap());
            }
        }
    }
    names.sort();
    let best = names.remove(0);
    assert!(best.starts_with("best-step-"), "{best}");
    assert_eq!(
        names,
        [
            "every-step-00000005",
            "every-step-00000010",
            "every-step-00000015",
            "every-step-00000020",
            "last-step-00000015",
            "last-step-00000020",
        ]
    );
    let nothing = tempfile::tempdir().unwrap();
    let (notes, made) = goes_on(nothing.path(), kept.path(), constant(17));
    assert_eq!(
        notes[0],
        "resuming from the checkpoint of step 15 of an earlier run"
    );
    assert_eq!(made, fresh(constant(17)));
    // The rates of both are the same until the warm-up ends.
    let (notes, made) = goes_on(nothing.path(), kept.path(), config());
    assert_eq!(
        notes[0],
        "resuming from the checkpoint of step 5 of an earlier run"
    );
    assert_eq!(made, fresh(config()));
}

#[test]
fn divergence_ends_in_a_diagnosis_and_keeps_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let wild = TrainConfig {
        learning_rate: 1e30,
        gradient_clip: 0.0,
        warmup_steps: 12,
        checkpoint_every: 1,
        ..config()
    };
    let error = run(folder.path(), wild, &mut Listener::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("training diverged at step "), "{text}");
    assert!(
        text.contains("learning rate") && text.contains("losses before: 1.6"),
        "{text}"
    );
    assert!(error.hint_text().unwrap().contains("lower `learning_rate`"));
    assert_eq!(error.kind(), Kind::Input);
    assert!(std::fs::read_dir(folder.path()).unwrap().count() > 0);
}

#[test]
fn divergence_is_also_a_loss_that_grows_without_overflow() {
    let folder = tempfile::tempdir().unwrap();
    let wild = TrainConfig {
        learning_rate: 1e3,
        steps: 200,
        schedule: LearningRateSchedule::Constant,
        ..config()
    };
    let error = run(folder.path(), wild, &mut Listener::default()).unwrap_err();
    assert!(
        error.to_string().contains("4 · log V = 6.44 in most of 20 steps"),
        "{error}"
    );
}

/// Text in which a token determines the next one: x(l + 1) = 3 x(l) + 1 modulo the letters.
fn chained_rows(shape: &Shape) -> Rows {
    chained(shape, None)
}

/// The same 64 rows, of which so many tokens are valid each.
fn chained(shape: &Shape, valid: Option<&[usize]>) -> Rows {
    let mask = shape.vocabulary as u32 - 1;
    let special = SpecialIds {
        bos: 0,
        eos: 0,
        pad: 0,
        mask,
    };
    let tokens = (0..64)
        .flat_map(|row| std::iter::successors(Some(row), |x| Some((3 * x + 1) % LETTERS)).take(shape.length))
        .collect();
    let scored: Option<Vec<_>> = valid.map(|valid| valid.iter().map(|&valid| 0..valid).collect());
    Rows::from_memory(mask + 1, special, shape.length, tokens, scored.as_deref()).unwrap()
}

/// The loss of 200 steps, fused in f32 against composite in f64.
#[test]
fn train_fused_and_composite_follow_the_same_curve() {
    let shape = SHAPES.find("nano").unwrap();
    let rows = chained_rows(shape);
    let mask = rows.info().special.mask;
    let objective = objective(mask);
    let (cancel, checkpoints) = (Cancel::default(), CheckpointManager::default());
    let job = Trainer {
        rows: &rows,
        objective: &objective,
        config: TrainConfig {
            steps: 200,
            batch: 4,
            micro_batch: 4,
            learning_rate: 1e-3,
            dropout: 0.1,
            ..config()
        },
        checkpoints: &checkpoints,
        sharing: crate::ranks::Sharing::alone(),
        cancel: &cancel,
    };
    let curve = |learner: &mut dyn Learner| -> Vec<f64> {
        let mut rehearsal = StepBench::new(&job, learner).unwrap();
        (0..200)
            .map(|_| {
                rehearsal.step().unwrap();
                *rehearsal.state.log.recent.back().unwrap()
            })
            .collect()
    };
    let weights = model::initial(shape, Backbone::Dit, 1);
    let exact = Composite::<f64, _>::new(dfdx::prelude::Cpu::default());
    let exact = CpuNetwork::<Nano, _>::new(exact, Backbone::Dit, &weights).unwrap();
    let fused = CpuNetwork::<Nano, _>::new(Fused::default(), Backbone::Dit, &weights).unwrap();
    let expected = curve(&mut HostLearner::new(exact).unwrap());
    let found = curve(&mut HostLearner::new(fused).unwrap());
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&expected[..20]), mean(&expected[180..]));
    assert!(last < 0.5 * first, "it learns: {first} to {last}");
    for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
        // 1e-3 of the first loss: f32's rounding, magnified where AdamW divides by small second moments.
        assert!(
            (found - expected).abs() < 1e-3 * first,
            "step {step}: {found} where {expected} belongs"
        );
    }
}
