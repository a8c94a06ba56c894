//! The loop: steps, validations, checkpoints, and an end that was asked for.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::batch::GlobalBatch;
use super::checkpoint;
use super::{
    CheckpointManager, Restored, RestoredFrom, TrainConfig, TrainState, Validation, ValidationLine,
    ema_decay, learning_rate,
};
use crate::data::rows::Rows;
use crate::diffusion::Objective;
use crate::error::{Context as _, Error, Kind, Result};
use crate::event::Cancel;
use crate::kernels::adamw::Update;
use crate::kernels::profile::{self, Part};
use crate::model::{GradientNorm, Learner, Network};
use crate::numbers;
use crate::ranks::Sharing;

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

/// What a run works on.
pub struct Trainer<'a> {
    /// The data.
    pub rows: &'a Rows,
    /// What is asked of the network.
    pub objective: &'a dyn Objective,
    /// How to train.
    pub config: TrainConfig,
    /// Where checkpoints go and come from; only the first rank uses it.
    pub checkpoints: &'a CheckpointManager,
    /// The ranks that take part, and into how many grains a batch is cut. The learner shares the training in the same way.
    pub sharing: Sharing,
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
    /// Seconds of the steps in this process, validations and checkpoints excluded.
    pub seconds: f64,
}

/// What a rank that is not the first does when the first validates, reports or warns: nothing.
struct NoHooks;

impl Hooks for NoHooks {
    fn validate(&mut self, _: &dyn Network) -> Result<Option<Validation>> {
        Ok(None)
    }
    fn report(&mut self, _: TrainProgress) {}
    fn note(&mut self, _: String) {}
    fn warn(&mut self, _: String) {}
}

/// How a validation ended on the first rank, as it is sent to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValidationEnd {
    Plain,
    Best,
    Interrupted,
    Failed,
}

impl Trainer<'_> {
    /// Trains from the learner's weights, or from the newest checkpoint, to the last step. Of several ranks, the first calls
    /// this, and the others [`Trainer::follow`].
    ///
    /// # Errors
    /// [`Kind::Interrupted`] after a checkpoint when asked to end, on every rank after the same step; a diagnosis when the run
    /// diverges (the last checkpoint stays); whatever the learner, the data, the hooks, the disk or another rank fails with.
    pub fn run(&self, learner: &mut dyn Learner, hooks: &mut dyn Hooks) -> Result<Trained> {
        let mut batch = self.batch();
        let ended = self.run_first(learner, &mut batch, hooks);
        if let Err(error) = &ended
            && error.kind() != Kind::Interrupted
            && !batch.is_halted
        {
            // The others, if any, wait in the midst of a step.
            let ranks = &self.sharing.ranks;
            ranks.abandon(&error.to_string(), error.kind().exit_code());
        }
        ended
    }

    fn run_first(
        &self,
        learner: &mut dyn Learner,
        batch: &mut GlobalBatch<'_>,
        hooks: &mut dyn Hooks,
    ) -> Result<Trained> {
        let restored = self.checkpoints.restore(learner, &mut |text| hooks.warn(text))?;
        if self.sharing.is_shared() {
            let folder = restored.as_ref().map(|restored| restored.folder.clone());
            let step = restored.as_ref().map_or(0, |restored| restored.state.step);
            self.announce(step, folder.as_deref())?;
        }
        let mut state = if let Some(Restored { state, from, .. }) = restored {
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
        let mut clock = Clock::default();
        self.steps(learner, &mut state, batch, &mut clock, hooks)?;
        hooks.report(self.report(&state, &clock));
        Ok(Trained {
            resumed_from,
            tokens_per_second: self.speed(&clock),
            data_wait: if clock.seconds > 0.0 {
                batch.waited / clock.seconds
            } else {
                0.0
            },
            seconds: clock.seconds,
            state,
        })
    }

    /// Takes part in a training that the first rank runs: the same steps, without files and reports. Returns whether it came to
    /// its last step: an interruption or a divergence, which all ranks see, is no error here.
    ///
    /// # Errors
    /// Whatever this rank alone fails with, or another rank.
    pub fn follow(&self, learner: &mut dyn Learner) -> Result<bool> {
        let mut state = TrainState::default();
        let (step, folder) = self.heard()?;
        match folder {
            Some(folder) => checkpoint::load(&folder, learner)
                .context(|| format!("load the state of step {step} from `{}`", folder.display()))?,
            None => learner.restart()?,
        }
        state.step = step;
        let mut batch = self.batch();
        let mut clock = Clock::default();
        match self.steps(learner, &mut state, &mut batch, &mut clock, &mut NoHooks) {
            Err(error) if error.kind() == Kind::Interrupted || batch.is_halted => Ok(false),
            ended => ended.map(|()| true),
        }
    }

    /// Sends the step and the folder of the state that this rank has begun with to the others.
    fn announce(&self, step: u64, folder: Option<&Path>) -> Result<()> {
        let folder = folder.map(|folder| folder.as_os_str().as_encoded_bytes());
        let mut bytes = step.to_le_bytes().to_vec();
        bytes.extend_from_slice(folder.unwrap_or_default());
        self.sharing.ranks.broadcast(&mut bytes)
    }

    /// Which state the first rank has begun with: its step, and its folder where it was read from one.
    fn heard(&self) -> Result<(u64, Option<PathBuf>)> {
        let mut bytes = Vec::new();
        self.sharing.ranks.broadcast(&mut bytes)?;
        let Some((step, folder)) = bytes.split_first_chunk::<8>() else {
            return Err(Error::internal("ranks disagree on how a training begins"));
        };
        let folder = (!folder.is_empty()).then(|| {
            // A path of this system from another process of it; one that is not UTF-8 is found nowhere.
            PathBuf::from(String::from_utf8_lossy(folder).into_owned())
        });
        Ok((u64::from_le_bytes(*step), folder))
    }

    /// All steps from the state on, with validations and checkpoints.
    fn steps(
        &self,
        learner: &mut dyn Learner,
        state: &mut TrainState,
        batch: &mut GlobalBatch<'_>,
        clock: &mut Clock,
        hooks: &mut dyn Hooks,
    ) -> Result<()> {
        let mut saved = state.step;
        let mut last_save = Instant::now();
        while state.step < self.config.steps {
            let due = state.step.is_multiple_of(self.config.checkpoint_every)
                || self.checkpoints.stays(state.step)
                || last_save.elapsed() >= CHECKPOINT_AFTER;
            let done = self
                .agree(due)
                .and_then(|due| Ok((due, self.validate_when_due(learner, state, batch, hooks)?)))
                .and_then(|(due, best)| {
                    if state.step > saved && (due || best) {
                        self.save(learner, state, batch)?;
                        (saved, last_save) = (state.step, Instant::now());
                    }
                    if best && saved == state.step {
                        self.note_best(state.step)?;
                    }
                    clock.time(|| self.step(learner, state, batch))
                });
            if let Err(error) = done {
                // Whatever was interrupted, the state is that after the last whole step.
                if error.kind() == Kind::Interrupted && state.step > saved {
                    self.save(learner, state, batch)?;
                    hooks.note(format!("kept a checkpoint of step {}", state.step));
                }
                return Err(error);
            }
            hooks.report(self.report(state, clock));
        }
        // What follows (the last validation, the commit) can be interrupted too.
        if state.step > saved {
            self.save(learner, state, batch)?;
        }
        if self.validate_when_due(learner, state, batch, hooks)? {
            self.note_best(state.step)?;
        }
        Ok(())
    }

    /// Writes a checkpoint on the first rank, with what the others have.
    fn save(
        &self,
        learner: &mut dyn Learner,
        state: &mut TrainState,
        batch: &mut GlobalBatch<'_>,
    ) -> Result<()> {
        self.collect(learner, state, batch, 0)?;
        if self.is_first() {
            self.checkpoints.save(learner, state)
        } else {
            checkpoint::lend(learner)
        }
    }

    fn note_best(&self, step: u64) -> Result<()> {
        if self.is_first() {
            return self.checkpoints.note_best(step);
        }
        Ok(())
    }

    fn is_first(&self) -> bool {
        self.sharing.ranks.rank().is_first()
    }

    /// Between steps, all ranks agree whether to end, and whether a checkpoint is due, which the first decides.
    ///
    /// # Errors
    /// [`Kind::Interrupted`] on all ranks when any was asked to end.
    fn agree(&self, due: bool) -> Result<bool> {
        if !self.sharing.is_shared() {
            return Ok(due);
        }
        let flag = |flag: bool| f64::from(u8::from(flag));
        let all = self.of_all(&[flag(due), flag(self.cancel.is_cancelled())])?;
        if all.iter().skip(1).step_by(2).any(|&cancelled| cancelled != 0.0) {
            return Err(Error::interrupted());
        }
        Ok(all.first().is_some_and(|&due| due != 0.0))
    }

    /// A few numbers of all ranks, as many of each.
    fn of_all(&self, own: &[f64]) -> Result<Vec<f64>> {
        let ranks = &*self.sharing.ranks;
        ranks.all_gather(own, &vec![own.len(); ranks.rank().world as usize])
    }

    /// The rows of a step, before any was read.
    pub(super) fn batch(&self) -> GlobalBatch<'_> {
        GlobalBatch::new(
            self.rows,
            self.objective,
            &self.config,
            self.cancel,
            &self.sharing,
        )
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
        // Counts are below 2^53.
        let scored = match self.sharing.is_shared() {
            true => self.of_all(&[scored as f64])?.iter().sum::<f64>() as u64,
            false => scored,
        };
        let support = self.objective.support();
        let grains = self.sharing.grains;
        let rows = self.config.batch / grains;
        for grain in self.sharing.own_grains() {
            batch.micro_batches(
                state.step,
                scored,
                grain * rows..(grain + 1) * rows,
                &mut |batch| learner.accumulate(batch, support),
            )?;
            if grains > 1 {
                learner.end_grain()?;
            }
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
                batch.is_halted = true;
                let norm = match outcome.norm.largest {
                    Some(_) => outcome.norm,
                    // No update has used the gradient up.
                    None => GradientNorm {
                        total: outcome.norm.total,
                        ..learner.gradient_norm()?
                    },
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
        if !due || state.step == 0 {
            return Ok(false);
        }
        let done = state.log.validation.is_some_and(|line| line.step >= state.step);
        if self.first_says(f64::from(u8::from(done)))? != 0.0 {
            return Ok(false);
        }
        self.collect(learner, state, batch, 0)?;
        let mut found = Ok(None);
        learner.with_average(&mut |network| {
            if self.is_first() {
                found = hooks.validate(network);
            }
            Ok(())
        })?;
        let best = |validation: &Validation| self.checkpoints.wants_best() && state.log.is_best(validation);
        let verdict = match &found {
            Ok(Some(validation)) if best(validation) => ValidationEnd::Best,
            Ok(_) => ValidationEnd::Plain,
            Err(error) if error.kind() == Kind::Interrupted => ValidationEnd::Interrupted,
            Err(_) => ValidationEnd::Failed,
        };
        let said = self.first_says(f64::from(verdict as u8))?;
        if let Some(validation) = found? {
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
        let is = |verdict: ValidationEnd| said == f64::from(verdict as u8);
        if is(ValidationEnd::Interrupted) {
            return Err(Error::interrupted());
        }
        if is(ValidationEnd::Failed) {
            return Err(Error::environment("the validation has failed on rank 0"));
        }
        Ok(is(ValidationEnd::Best))
    }

    /// The first rank's number, on all ranks.
    fn first_says(&self, own: f64) -> Result<f64> {
        if !self.sharing.is_shared() {
            return Ok(own);
        }
        Ok(self.of_all(&[own])?.first().copied().unwrap_or(own))
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
