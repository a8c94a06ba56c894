//! Every objective at shape `nano`: exact resumption for any threads and micro-batches, the number of tokens that it asks for,
//! and that training lowers its loss.

use super::*;
use crate::diffusion::objective;
use crate::diffusion::objective::settings::SETTINGS;
use crate::manifest;
use crate::model::cuda_memory;

fn nano() -> &'static Shape {
    SHAPES.find("nano").unwrap()
}

/// The objectives, with their names.
pub(super) fn every() -> Vec<(&'static str, manifest::Objective)> {
    SETTINGS
        .iter()
        .map(|&(name, json)| (name, manifest::Objective::from_argument(json).unwrap()))
        .collect()
}

/// Those of [`every`] that ask something different of the network.
#[cfg(target_os = "linux")]
pub(super) fn distinct() -> Vec<(&'static str, manifest::Objective)> {
    let mut asked = Vec::new();
    let mut is_new = |settings: &manifest::Objective| {
        let built = built(settings);
        let own = (
            settings.backbone(),
            built.pattern(),
            built.passes(),
            built.support().includes_mask,
            built.loss(),
            settings.is_time_conditioned(),
        );
        let is_new = !asked.contains(&own);
        asked.push(own);
        is_new
    };
    every()
        .into_iter()
        .filter(|(_, settings)| is_new(settings))
        .collect()
}

/// The objective that settings make, for [`chained`] rows.
pub(super) fn built(settings: &manifest::Objective) -> Box<dyn objective::Objective> {
    let vocabulary = nano().vocabulary as u32;
    objective::build(settings, vocabulary - 1, vocabulary, config().seed)
}

fn learner(settings: &manifest::Objective) -> HostLearner<CpuNetwork<Nano, Fused>> {
    let backbone = settings.backbone();
    let weights = model::initial(nano(), backbone, 1);
    HostLearner::new(CpuNetwork::new(Fused::default(), backbone, &weights).unwrap()).unwrap()
}

/// Rows of which some are padded.
fn padded() -> Rows {
    let valid: Vec<usize> = (0..64).map(|row| nano().length - row % 5).collect();
    chained(nano(), Some(&valid))
}

fn short() -> TrainConfig {
    TrainConfig {
        steps: 6,
        batch: 4,
        micro_batch: 4,
        learning_rate: 3e-3,
        warmup_steps: 2,
        dropout: 0.1,
        validation_every: 0,
        checkpoint_every: 100,
        ..config()
    }
}

fn run(
    settings: &manifest::Objective,
    config: TrainConfig,
    folder: &Path,
    listener: &mut Listener,
) -> Result<End> {
    let (rows, objective) = (padded(), built(settings));
    let (cancel, checkpoints) = (listener.cancel.clone(), checkpoints(folder, &config));
    let job = Trainer {
        rows: &rows,
        objective: &*objective,
        checkpoints: &checkpoints,
        config,
        sharing: crate::ranks::Sharing::alone(),
        cancel: &cancel,
    };
    let mut learner = learner(settings);
    let trained = job.run(&mut learner, listener)?;
    let mut weights = model::initial(nano(), settings.backbone(), 1);
    learner.network().read(&mut weights)?;
    Ok((trained.state, weights, learner.moments()?))
}

#[test]
fn resume_of_every_objective_equals_a_whole_run_for_any_micro_batch_and_threads() {
    let on = |threads: usize, settings: &manifest::Objective, micro_batch: u32, folder: &Path, stop| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let mut listener = Listener {
                stop_after: stop,
                ..Listener::default()
            };
            let config = TrainConfig {
                micro_batch,
                ..short()
            };
            let end = run(settings, config, folder, &mut listener);
            (end, listener.notes)
        })
    };
    for (name, settings) in every() {
        let [apart, together] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let (whole, _) = on(2, &settings, 4, together.path(), None);
        let (stopped, _) = on(1, &settings, 1, apart.path(), Some(3));
        assert_eq!(stopped.unwrap_err().kind(), Kind::Interrupted, "{name}");
        let (resumed, notes) = on(3, &settings, 2, apart.path(), None);
        assert_eq!(notes[0], "resuming from the checkpoint of step 3", "{name}");
        let (whole, resumed) = (whole.unwrap(), resumed.unwrap());
        assert!(resumed == whole, "{name}: another end");
        assert_eq!(whole.0.log.recent.len(), 6, "{name}");
    }
}

/// The loss of rows under noise that training does not see.
fn unseen_loss(job: &Trainer<'_>, network: &dyn Network) -> f64 {
    let (mut batch, mut sum) = (job.batch(), 0.0);
    let steps = 1000..1008;
    for step in steps.clone() {
        let scored = batch.read(step).unwrap();
        batch
            .micro_batches(step, scored, 0..job.config.batch, &mut |micro_batch| {
                let losses = network.nll(micro_batch, job.objective.support())?;
                let weighed = losses.iter().zip(micro_batch.weights);
                sum += weighed
                    .map(|(&loss, &weight)| f64::from(loss) * f64::from(weight))
                    .sum::<f64>();
                Ok(())
            })
            .unwrap();
    }
    sum / (steps.end - steps.start) as f64
}

/// The logarithm of 511 tokens is 6.2, of the five letters 1.6. In 60 steps on text of a like entropy every objective's loss
/// fell to 0.4 of the first or less, most of it in the first 30.
#[test]
fn training_lowers_the_loss_of_every_objective() {
    for (name, settings) in every() {
        let (rows, objective) = (padded(), built(&settings));
        let (cancel, checkpoints) = (Cancel::default(), CheckpointManager::default());
        let job = Trainer {
            rows: &rows,
            objective: &*objective,
            config: TrainConfig {
                steps: 30,
                warmup_steps: 5,
                // `unseen_loss` draws none.
                dropout: 0.0,
                ..short()
            },
            checkpoints: &checkpoints,
            sharing: crate::ranks::Sharing::alone(),
            cancel: &cancel,
        };
        let mut learner = learner(&settings);
        let before = unseen_loss(&job, learner.network());
        let mut training = StepBench::new(&job, &mut learner).unwrap();
        for _ in 0..job.config.steps {
            training.step().unwrap();
        }
        let after = unseen_loss(&job, training.network());
        assert!(after < 0.6 * before, "{name}: {before} to {after}");
    }
}

/// Memory is planned by the tokens that an objective answers: no micro-batch asks for more.
#[test]
fn micro_batches_answer_no_more_tokens_than_memory_is_planned_for() {
    let (rows, cancel, checkpoints) = (
        chained(nano(), None),
        Cancel::default(),
        CheckpointManager::default(),
    );
    for (name, settings) in every() {
        let objective = built(&settings);
        let answered = settings.answered();
        for micro_batch in [64, 32] {
            let job = Trainer {
                rows: &rows,
                objective: &*objective,
                config: TrainConfig {
                    batch: 64,
                    micro_batch,
                    ..short()
                },
                checkpoints: &checkpoints,
                sharing: crate::ranks::Sharing::alone(),
                cancel: &cancel,
            };
            let planned = cuda_memory::answered(nano(), answered, micro_batch as usize, Some(64));
            let (mut batch, mut all, steps) = (job.batch(), 0, 20);
            for step in 0..steps {
                let scored = batch.read(step).unwrap();
                batch
                    .micro_batches(step, scored, 0..job.config.batch, &mut |micro_batch| {
                        let asked = micro_batch.positions.len();
                        assert!(asked <= planned, "{name}: {asked}, planned {planned}");
                        all += asked;
                        Ok(())
                    })
                    .unwrap();
            }
            // Of 40,960 tokens, drawn one by one or at spread times: 0.01 is more than four standard deviations.
            let mean = all as f64 / (64 * nano().length) as f64 / steps as f64;
            let most = f64::from(objective.passes()) * answered.share() + 0.01;
            assert!(mean <= most, "{name}: {mean}, planned {most}");
        }
    }
}
