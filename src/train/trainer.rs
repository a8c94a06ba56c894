//! The loop: steps, validations, checkpoints, and an end that was asked for.

use std::time::{Duration, Instant};

use super::batch::GlobalBatch;
use super::{
    CheckpointManager, Restored, RestoredFrom, TrainConfig, TrainState, Validation, ValidationLine,
    ema_decay, learning_rate,
};
use crate::data::rows::Rows;
use crate::diffusion::Objective;
use crate::error::{Error, Kind, Result};
use crate::event::Cancel;
use crate::kernels::adamw::Update;
use crate::kernels::profile::{self, Part};
use crate::model::{GradientNorm, Learner, Network};
use crate::numbers;

/// A checkpoint is due after so long, whatever the steps: what a crash can cost.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(600);

/// How far a run is.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrainProgress {
    /// Updates done.
    pub step: u64,
    /// Mean training loss of the last steps, in nats per scored token.
    pub loss: Option<f64>,
    /// The last validation.
    pub validation: Option<ValidationLine>,
    /// Tokens trained on per second, padding included, validations and checkpoints excluded.
    pub tokens_per_second: f64,
}

/// What a run calls for while it goes.
pub trait Hooks {
    /// Bounds the held-out text with the network as it is (it holds the averaged weights); `None` without such text.
    ///
    /// # Errors
    /// The validation fails, for instance because the device fails or the run is cancelled.
    fn validate(&mut self, network: &dyn Network) -> Result<Option<Validation>>;

    /// Receives the progress of the run, after every step.
    fn report(&mut self, report: TrainProgress);

    /// Receives a line for the log.
    fn note(&mut self, text: String);

    /// Receives a warning for the user.
    fn warn(&mut self, text: String);
}

/// Replaces the gradient of a part of a batch (in the flat order) and that part's loss by those of the whole batch.
pub type AllReduce<'a> = dyn Fn(&mut [f32], &mut f64) -> Result<()> + 'a;

/// What a run works on.
pub struct Trainer<'a> {
    /// The data.
    pub rows: &'a Rows,
    /// What is asked of the network.
    pub objective: &'a dyn Objective,
    /// How to train.
    pub config: TrainConfig,
    /// Where checkpoints go and come from.
    pub checkpoints: &'a CheckpointManager,
    /// Sums gradients over the ranks that share each batch, between the last micro-batch and the update; absent where this
    /// process has whole batches.
    pub all_reduce: Option<&'a AllReduce<'a>>,
    /// Asks to end.
    pub cancel: &'a Cancel,
}

/// The end of a run.
pub struct Trained {
    /// Step and metrics after the last step; the learner holds weights and moments.
    pub state: TrainState,
    /// The step that the run resumed from: 0 for one from the beginning.
    pub resumed_from: u64,
    /// Tokens trained on per second in this process; 0 when there was nothing left to train.
    pub tokens_per_second: f64,
    /// Share of the steps' time that went by waiting for rows.
    pub data_wait: f64,
}

impl Trainer<'_> {
    /// Trains from the learner's weights, or from the newest checkpoint, to the last step.
    ///
    /// # Errors
    /// [`Kind::Interrupted`] after a checkpoint when asked to end; a diagnosis when the run diverges (the last
    /// checkpoint stays); whatever the learner, the data, the hooks or the disk fail with.
    pub fn run(&self, learner: &mut dyn Learner, hooks: &mut dyn Hooks) -> Result<Trained> {
        let mut state = if let Some(Restored { state, from }) =
            self.checkpoints.restore(learner, &mut |text| hooks.warn(text))?
        {
            let of = match from {
                RestoredFrom::Earlier => " of an earlier run",
                RestoredFrom::Own | RestoredFrom::Continued => "",
            };
            let otherwise = state.log.otherwise;
            let lacks = otherwise.and_then(|otherwise| otherwise.lacks(self.checkpoints.watch()));
            let watched = lacks.map_or_else(String::new, |lacks| format!("; {lacks}"));
            let what = match from {
                RestoredFrom::Continued => {
                    "continuing the training of the model that `init` names from the state"
                }
                _ => "resuming from the checkpoint",
            };
            hooks.note(format!("{what} of step {}{of}{watched}", state.step));
            state
        } else {
            learner.restart()?;
            TrainState::default()
        };
        let resumed_from = state.step;
        let mut saved = state.step;
        let mut last_save = Instant::now();
        let mut clock = Clock::default();
        let mut batch = self.batch();
        while state.step < self.config.steps {
            let due = state.step.is_multiple_of(self.config.checkpoint_every)
                || self.checkpoints.stays(state.step)
                || last_save.elapsed() >= CHECKPOINT_AFTER;
            let done = self
                .validate_when_due(learner, &mut state, &mut batch, hooks)
                .and_then(|best| {
                    if state.step > saved && (due || best) {
                        self.collect(learner, &mut state, &mut batch, 0)?;
                        self.checkpoints.save(learner, &state)?;
                        (saved, last_save) = (state.step, Instant::now());
                    }
                    if best && saved == state.step {
                        self.checkpoints.note_best(state.step)?;
                    }
                    clock.time(|| self.step(learner, &mut state, &mut batch))
                });
            if let Err(error) = done {
                // Whatever was interrupted, the state is that after the last whole step.
                if error.kind() == Kind::Interrupted && state.step > saved {
                    self.collect(learner, &mut state, &mut batch, 0)?;
                    self.checkpoints.save(learner, &state)?;
                    hooks.note(format!("kept a checkpoint of step {}", state.step));
                }
                return Err(error);
            }
            hooks.report(self.report(&state, &clock));
        }
        // What follows (the last validation, the commit) can be interrupted too.
        if state.step > saved {
            self.collect(learner, &mut state, &mut batch, 0)?;
            self.checkpoints.save(learner, &state)?;
        }
        if self.validate_when_due(learner, &mut state, &mut batch, hooks)? {
            self.checkpoints.note_best(state.step)?;
        }
        hooks.report(self.report(&state, &clock));
        Ok(Trained {
            resumed_from,
            tokens_per_second: self.speed(&clock),
            data_wait: if clock.seconds > 0.0 {
                batch.waited / clock.seconds
            } else {
                0.0
            },
            state,
        })
    }

    /// The rows of a step, before any was read.
    pub(super) fn batch(&self) -> GlobalBatch<'_> {
        GlobalBatch::new(self.rows, self.objective, &self.config, self.cancel)
    }

    /// One update. Asked to end, it leaves weights and state as they were.
    fn step(
        &self,
        learner: &mut dyn Learner,
        state: &mut TrainState,
        batch: &mut GlobalBatch<'_>,
    ) -> Result<()> {
        let scored = {
            let _timer = profile::forward(Part::Noise);
            batch.read(state.step)?
        };
        let support = self.objective.support();
        batch.micro_batches(state.step, scored, &mut |batch| {
            learner.accumulate(batch, support)
        })?;
        if let Some(all_reduce) = self.all_reduce {
            learner.reduce(&mut |gradient, loss| all_reduce(gradient, loss))?;
        }
        let number = state.step + 1;
        let config = &self.config;
        let update = Update {
            number,
            learning_rate: self.rate(number),
            ema_decay: ema_decay(number, config.ema),
        };
        learner.update(config.adam, update, config.gradient_clip)?;
        state.step = number;
        batch.waiting.push_back(number);
        let ahead = learner.queued_updates();
        self.collect(learner, state, batch, ahead)
    }

    /// The learning rate of an update.
    pub(super) fn rate(&self, number: u64) -> f64 {
        let config = &self.config;
        learning_rate(
            number,
            config.learning_rate,
            (config.warmup_steps, config.warmup_rates),
            config.steps,
            config.schedule,
        )
    }

    /// Collects the outcomes of updates, but for the last `ahead` ones, and writes them down. With none ahead, the learner is
    /// where the state is.
    fn collect(
        &self,
        learner: &mut dyn Learner,
        state: &mut TrainState,
        batch: &mut GlobalBatch<'_>,
        ahead: usize,
    ) -> Result<()> {
        while batch.waiting.len() > ahead {
            let (Some(outcome), Some(number)) = (learner.outcome()?, batch.waiting.pop_front()) else {
                return Err(Error::internal("an update without an outcome"));
            };
            if outcome.halted {
                // No update has used the gradient up.
                let norm = GradientNorm {
                    total: outcome.norm.total,
                    ..learner.gradient_norm()?
                };
                return Err(self.diagnosis(state, number, outcome.loss, &norm, "is not finite"));
            }
            self.note(state, number, outcome.loss, &outcome.norm)?;
        }
        Ok(())
    }

    /// Validates with the averaged weights when this step is one for it and it has not been done. True when the
    /// checkpoint of this step is to stay because its bound is the best so far.
    fn validate_when_due(
        &self,
        learner: &mut dyn Learner,
        state: &mut TrainState,
        batch: &mut GlobalBatch<'_>,
        hooks: &mut dyn Hooks,
    ) -> Result<bool> {
        let every = self.config.validation_every;
        let due = state.step == self.config.steps || every > 0 && state.step.is_multiple_of(every);
        let done = state.log.validation.is_some_and(|line| line.step >= state.step);
        if !due || done || state.step == 0 {
            return Ok(false);
        }
        self.collect(learner, state, batch, 0)?;
        let mut found = None;
        learner.with_average(&mut |network| {
            found = hooks.validate(network)?;
            Ok(())
        })?;
        let mut best = false;
        if let Some(validation) = found {
            best = self.checkpoints.wants_best() && state.log.is_best(&validation);
            state.log.validation(state.step, validation);
            hooks.note(format!(
                "step {}: {} {} nats {}, {}",
                state.step,
                validation.title(),
                with_interval(&validation),
                validation.per(),
                validation.bits(),
            ));
        }
        Ok(best)
    }

    fn report(&self, state: &TrainState, clock: &Clock) -> TrainProgress {
        TrainProgress {
            step: state.step,
            loss: state.log.recent_loss(),
            validation: state.log.validation,
            tokens_per_second: self.speed(clock),
        }
    }

    fn speed(&self, clock: &Clock) -> f64 {
        let tokens = clock.steps * u64::from(self.config.batch) * self.rows.length() as u64;
        if clock.seconds > 0.0 {
            tokens as f64 / clock.seconds
        } else {
            0.0
        }
    }
}

fn with_interval(validation: &Validation) -> String {
    let ends = validation.low.zip(validation.high);
    numbers::with_ends(validation.nats_per_token, ends, 4, "")
}

/// A run step by step, without validations and checkpoints: what steps cost.
pub struct StepBench<'a> {
    job: &'a Trainer<'a>,
    learner: &'a mut dyn Learner,
    pub(super) state: TrainState,
    batch: GlobalBatch<'a>,
}

impl<'a> StepBench<'a> {
    /// Begins from the learner's weights.
    ///
    /// # Errors
    /// The device failed.
    pub fn new(job: &'a Trainer<'a>, learner: &'a mut dyn Learner) -> Result<Self> {
        learner.restart()?;
        Ok(Self {
            job,
            learner,
            state: TrainState::default(),
            batch: job.batch(),
        })
    }

    /// Takes a step.
    ///
    /// # Errors
    /// The errors of [`Trainer::run`].
    pub fn step(&mut self) -> Result<()> {
        self.job.step(self.learner, &mut self.state, &mut self.batch)
    }

    /// The network that learns.
    #[must_use]
    pub fn network(&self) -> &dyn Network {
        self.learner.network()
    }
}

/// Time spent in steps.
#[derive(Default)]
struct Clock {
    steps: u64,
    seconds: f64,
}

impl Clock {
    fn time(&mut self, step: impl FnOnce() -> Result<()>) -> Result<()> {
        let start = Instant::now();
        step()?;
        self.seconds += start.elapsed().as_secs_f64();
        self.steps += 1;
        Ok(())
    }
}
