//! The training loop: batches from packed rows, gradients from a network, AdamW, checkpoints, and a diagnosis when it
//! goes wrong. It is generic over the learner ([`Learner`]: a network with its optimizer, on any device) and the objective
//! ([`Objective`]), and knows neither stages nor the store.
//!
//! One step, for the rows g = step · B + i of the endless, epoch-wise permuted order of the data:
//!
//! 1. the objective draws each row's noise;
//! 2. the loss is Σ w · nll / (counted tokens of all B rows), a mean over tokens as the authors take it (padding
//!    excluded), so that micro-batches accumulate to the gradient of the whole batch, row by row in order;
//! 3. ranks that share a batch sum their gradients ([`Job::all_reduce`]);
//! 4. the gradient is clipped to a global norm, AdamW updates the weights, and their moving average follows.
//!
//! The state after step n is a function of the configuration, the data and the seed: not of threads, micro-batches or
//! of how often the run was interrupted.

pub mod checkpoint;
mod log;
mod optimizer;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use checkpoint::{History, Keeper, Restored, Retention, State};
pub use log::{Log, StepLine, Validation, ValidationLine};
pub use optimizer::{AdamW, Moments, Update, ema_decay, learning_rate};

use crate::data::rows::{Order, Rank, Rows};
use crate::diffusion::{NoisedBatch, Objective, RowIndex};
use crate::error::{Error, Kind, Result};
use crate::event::Cancel;
use crate::kernels::Dropout;
use crate::kernels::profile::{self, Part};
use crate::manifest::{LearningRateSchedule, WarmupRates};
use crate::model::{Batch, GradientNorm, Learner, Network};
use crate::rng::{Random, Stream};

/// A run has diverged when the mean loss of its last [`log::RECENT`] steps exceeds this many times log V, the loss of
/// a model that guesses uniformly. An untrained network starts at 1; single steps may lie higher, as 1/t weighs some
/// rows a thousandfold.
const DIVERGED: f64 = 4.0;

/// A checkpoint is due after so long, whatever the steps: what a crash can cost.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(600);

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Updates.
    pub steps: u64,
    /// B: rows an update.
    pub batch: u32,
    /// Rows that go through the network at a time; divides `batch`.
    pub micro_batch: u32,
    /// Learning rate after warm-up.
    pub learning_rate: f64,
    /// Updates over which it rises.
    pub warmup_steps: u64,
    /// From which number they are counted.
    pub warmup_rates: WarmupRates,
    /// What it does then.
    pub schedule: LearningRateSchedule,
    /// The optimizer's constants.
    pub adam: AdamW,
    /// Largest global norm of a gradient; 0 for no limit.
    pub gradient_clip: f64,
    /// Decay of the weights' moving average.
    pub ema: f64,
    /// Dropout rate.
    pub dropout: f64,
    /// Steps between validations; 0 for one at the end.
    pub validation_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Seed of order and dropout.
    pub seed: u64,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Updates done.
    pub step: u64,
    /// Mean training loss of the last steps, in nats per counted token.
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
    /// Whatever fails in it.
    fn validate(&mut self, network: &dyn Network) -> Result<Option<Validation>>;

    /// Hears how far the run is, after every step.
    fn report(&mut self, report: Report);

    /// Hears what is worth a line in a log.
    fn note(&mut self, text: String);

    /// Hears what somebody should know.
    fn warn(&mut self, text: String);
}

/// Replaces the gradient of a part of a batch (in the flat order) and that part's loss by those of the whole batch.
pub type AllReduce<'a> = dyn Fn(&mut [f32], &mut f64) -> Result<()> + 'a;

/// What a run works on.
pub struct Job<'a> {
    /// The data.
    pub rows: &'a Rows,
    /// What is asked of the network.
    pub objective: &'a dyn Objective,
    /// How to train.
    pub recipe: Recipe,
    /// Where checkpoints go and come from.
    pub keeper: &'a Keeper,
    /// Sums gradients over the ranks that share each batch, between the last micro-batch and the update; absent where this
    /// process has whole batches.
    pub all_reduce: Option<&'a AllReduce<'a>>,
    /// Asks to end.
    pub cancel: &'a Cancel,
}

/// The end of a run.
pub struct Trained {
    /// Step and metrics after the last step; the learner holds weights and moments.
    pub state: State,
    /// The step that the run went on from: 0 for one from the beginning.
    pub resumed_from: u64,
    /// Tokens trained on per second in this process; 0 when there was nothing left to train.
    pub tokens_per_second: f64,
    /// Share of the steps' time that went by waiting for rows.
    pub data_wait: f64,
}

impl Job<'_> {
    /// Trains from the learner's weights, or from the newest checkpoint, to the last step.
    ///
    /// # Errors
    /// [`Kind::Interrupted`] after a checkpoint when asked to end; a diagnosis when the run diverges (the last
    /// checkpoint stays); whatever the learner, the data, the hooks or the disk fail with.
    pub fn run(&self, learner: &mut dyn Learner, hooks: &mut dyn Hooks) -> Result<Trained> {
        let mut state = match self.keeper.restore(learner, &mut |text| hooks.warn(text))? {
            Some(Restored { state, foreign }) => {
                let of = if foreign { " of an earlier run" } else { "" };
                hooks.note(format!("goes on from the checkpoint of step {}{of}", state.step));
                state
            }
            None => {
                learner.restart()?;
                State::default()
            }
        };
        let resumed_from = state.step;
        let mut saved = state.step;
        let mut last_save = Instant::now();
        let mut clock = Clock::default();
        let mut batch = GlobalBatch::new(self);
        while state.step < self.recipe.steps {
            let due = state.step.is_multiple_of(self.recipe.checkpoint_every)
                || self.keeper.stays(state.step)
                || last_save.elapsed() >= CHECKPOINT_AFTER;
            let done = self
                .validate_when_due(learner, &mut state, &mut batch, hooks)
                .and_then(|best| {
                    if state.step > saved && (due || best) {
                        self.collect(learner, &mut state, &mut batch, 0)?;
                        self.keeper.save(learner, &state)?;
                        (saved, last_save) = (state.step, Instant::now());
                    }
                    if best && saved == state.step {
                        self.keeper.note_best(state.step)?;
                    }
                    clock.time(|| self.step(learner, &mut state, &mut batch))
                });
            if let Err(error) = done {
                // Whatever was interrupted, the state is that after the last whole step.
                if error.kind() == Kind::Interrupted && state.step > saved {
                    self.collect(learner, &mut state, &mut batch, 0)?;
                    self.keeper.save(learner, &state)?;
                    hooks.note(format!("kept a checkpoint of step {}", state.step));
                }
                return Err(error);
            }
            hooks.report(self.report(&state, &clock));
        }
        // What follows (the last validation, the commit) can be interrupted too.
        if state.step > saved {
            self.collect(learner, &mut state, &mut batch, 0)?;
            self.keeper.save(learner, &state)?;
        }
        if self.validate_when_due(learner, &mut state, &mut batch, hooks)? {
            self.keeper.note_best(state.step)?;
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

    /// One update. Asked to end, it leaves weights and state as they were.
    fn step(&self, learner: &mut dyn Learner, state: &mut State, batch: &mut GlobalBatch) -> Result<()> {
        let counted = {
            let _timer = profile::forward(Part::Noise);
            batch.read(self, state.step)?
        };
        let support = self.objective.support();
        self.micro_batches(state.step, batch, counted, &mut |batch| {
            learner.accumulate(batch, support)
        })?;
        if let Some(all_reduce) = self.all_reduce {
            learner.reduce(&mut |gradient, loss| all_reduce(gradient, loss))?;
        }
        let number = state.step + 1;
        let recipe = &self.recipe;
        let update = Update {
            number,
            learning_rate: self.rate(number),
            ema_decay: ema_decay(number, recipe.ema),
        };
        learner.update(recipe.adam, update, recipe.gradient_clip)?;
        state.step = number;
        batch.waiting.push_back(number);
        let ahead = learner.queued_updates();
        self.collect(learner, state, batch, ahead)
    }

    /// The learning rate of an update.
    fn rate(&self, number: u64) -> f64 {
        let recipe = &self.recipe;
        learning_rate(
            number,
            recipe.learning_rate,
            (recipe.warmup_steps, recipe.warmup_rates),
            recipe.steps,
            recipe.schedule,
        )
    }

    /// Writes an update down, and says so when the run has diverged.
    fn note(&self, state: &mut State, number: u64, loss: f64, norm: &GradientNorm) -> Result<()> {
        state.log.step(number, self.rate(number), loss, norm.total);
        // An alphabet of one letter has nothing to guess.
        let uniform = f64::from(self.objective.support().size.saturating_sub(1).max(2)).ln();
        if state.log.recent.len() == log::RECENT && state.log.recent_loss() > Some(DIVERGED * uniform) {
            let rule = format!(
                "has exceeded {DIVERGED} · log V = {:.2} on average over {} steps",
                DIVERGED * uniform,
                log::RECENT
            );
            return Err(self.diagnosis(state, number, loss, norm, &rule));
        }
        Ok(())
    }

    /// Collects the outcomes of updates, but for the last `ahead` ones, and writes them down. With none ahead, the learner is
    /// where the state is.
    fn collect(
        &self,
        learner: &mut dyn Learner,
        state: &mut State,
        batch: &mut GlobalBatch,
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

    /// Calls `each` with the global batch under noise, micro-batch by micro-batch: weights are such that Σ weights · nll of
    /// all of them is the loss in nats per counted token.
    fn micro_batches(
        &self,
        step: u64,
        batch: &mut GlobalBatch,
        counted: u64,
        each: &mut dyn FnMut(&Batch<'_>) -> Result<()>,
    ) -> Result<()> {
        let recipe = &self.recipe;
        let length = self.rows.length();
        let scale = 1.0 / counted.max(1) as f64;
        let first_row = step * u64::from(recipe.batch);
        for start in (0..recipe.batch).step_by(recipe.micro_batch as usize) {
            // A step of a large network on a small machine takes minutes.
            self.cancel.check()?;
            let timer = profile::forward(Part::Noise);
            let noised = &mut batch.noised;
            noised.clear();
            for index in start..start + recipe.micro_batch {
                let at = RowIndex {
                    step,
                    row: first_row + u64::from(index),
                    index,
                    batch: recipe.batch,
                };
                let tokens = &batch.tokens[index as usize * length..][..length];
                self.objective
                    .noise(at, tokens, batch.counted[index as usize], noised);
            }
            if noised.positions.is_empty() {
                continue;
            }
            for weight in &mut noised.weights {
                *weight = (f64::from(*weight) * scale) as f32;
            }
            drop(timer);
            let dropout = (recipe.dropout > 0.0).then(|| Dropout {
                rate: recipe.dropout as f32,
                random: Random::new(recipe.seed, Stream::Dropout),
                step,
                first_row: first_row + u64::from(start),
            });
            let micro_batch = Batch {
                tokens: &noised.tokens,
                sigma: &noised.sigma,
                positions: &noised.positions,
                targets: &noised.targets,
                weights: &noised.weights,
                loss: self.objective.loss(),
                constants: &noised.constants,
                dropout,
            };
            each(&micro_batch)?;
        }
        Ok(())
    }

    /// Validates with the averaged weights when this step is one for it and it has not been done. True when the
    /// checkpoint of this step is to stay because its bound is the best so far.
    fn validate_when_due(
        &self,
        learner: &mut dyn Learner,
        state: &mut State,
        batch: &mut GlobalBatch,
        hooks: &mut dyn Hooks,
    ) -> Result<bool> {
        let every = self.recipe.validation_every;
        let due = state.step == self.recipe.steps || every > 0 && state.step.is_multiple_of(every);
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
            best = self.keeper.wants_best() && state.log.is_best(&validation);
            state.log.validation(state.step, validation);
            hooks.note(format!(
                "step {}: validation bound {} nats {}, {}",
                state.step,
                with_interval(&validation),
                validation.unit.name(),
                validation.bits(),
            ));
        }
        Ok(best)
    }

    fn report(&self, state: &State, clock: &Clock) -> Report {
        Report {
            step: state.step,
            loss: state.log.recent_loss(),
            validation: state.log.validation,
            tokens_per_second: self.speed(clock),
        }
    }

    fn speed(&self, clock: &Clock) -> f64 {
        let tokens = clock.steps * u64::from(self.recipe.batch) * self.rows.length() as u64;
        if clock.seconds > 0.0 {
            tokens as f64 / clock.seconds
        } else {
            0.0
        }
    }

    /// Why a run that went wrong went wrong, as far as its figures tell.
    fn diagnosis(&self, state: &State, step: u64, loss: f64, norm: &GradientNorm, what: &str) -> Error {
        let history: Vec<String> = state.log.recent.iter().map(|loss| format!("{loss:.3}")).collect();
        let history = if history.is_empty() {
            "none".to_owned()
        } else {
            history.join(", ")
        };
        let subject = if norm.total.is_finite() || !loss.is_finite() {
            "loss"
        } else {
            "gradient"
        };
        let warm = self.recipe.warmup_steps;
        let mut ways = vec![format!(
            "lower `learning_rate` ({:e}), for instance to {:.0e}",
            self.recipe.learning_rate,
            self.recipe.learning_rate / 3.0
        )];
        if step > warm && warm < 500 {
            ways.push(format!("raise `warmup_steps` ({warm})"));
        }
        if self.recipe.gradient_clip == 0.0 {
            ways.push("switch `gradient_clip` on".to_owned());
        }
        let largest = norm.largest.as_ref().map_or_else(String::new, |(name, norm)| {
            format!(" (largest in `{name}`: {norm:.4e})")
        });
        Error::input(format!(
            "training diverged at step {step}: the {subject} {what}; loss {loss:.4}, gradient norm {:.4e}{largest}, \
             learning rate {:.3e}; losses before: {history}",
            norm.total,
            self.rate(step),
        ))
        .hint(format!("{}; the last good checkpoint is kept", ways.join(", or ")))
    }
}

/// `3.21 (3.18 to 3.24)`.
fn with_interval(validation: &Validation) -> String {
    match (validation.low, validation.high) {
        (Some(low), Some(high)) => format!("{:.4} ({low:.4} to {high:.4})", validation.nats_per_token),
        _ => format!("{:.4}", validation.nats_per_token),
    }
}

/// A run step by step, without validations and checkpoints: what steps cost.
pub struct Rehearsal<'a> {
    job: &'a Job<'a>,
    learner: &'a mut dyn Learner,
    state: State,
    batch: GlobalBatch,
}

impl<'a> Rehearsal<'a> {
    /// Begins from the learner's weights.
    ///
    /// # Errors
    /// The device failed.
    pub fn new(job: &'a Job<'a>, learner: &'a mut dyn Learner) -> Result<Self> {
        learner.restart()?;
        Ok(Self {
            job,
            learner,
            state: State::default(),
            batch: GlobalBatch::new(job),
        })
    }

    /// Takes a step.
    ///
    /// # Errors
    /// As [`Job::run`].
    pub fn step(&mut self) -> Result<()> {
        self.job.step(self.learner, &mut self.state, &mut self.batch)
    }

    /// The network that learns.
    #[must_use]
    pub fn network(&self) -> &dyn Network {
        self.learner.network()
    }
}

/// The rows of a step.
struct GlobalBatch {
    order: Order,
    /// Seconds spent on reading.
    waited: f64,
    /// (B, L).
    tokens: Vec<u32>,
    /// Positions of each row that count (B).
    counted: Vec<usize>,
    noised: NoisedBatch,
    /// Numbers of the updates whose outcome was not collected yet.
    waiting: VecDeque<u64>,
}

impl GlobalBatch {
    fn new(job: &Job<'_>) -> Self {
        let rows = job.recipe.batch as usize;
        Self {
            order: Order::new(job.recipe.seed, job.rows.len(), job.recipe.batch, Rank::ALONE),
            waited: 0.0,
            tokens: vec![0; rows * job.rows.length()],
            counted: vec![0; rows],
            noised: NoisedBatch::default(),
            waiting: VecDeque::new(),
        }
    }

    /// Reads the rows of a step and returns how many of their positions count.
    fn read(&mut self, job: &Job<'_>, step: u64) -> Result<u64> {
        let start = Instant::now();
        let rows = self.tokens.chunks_mut(job.rows.length()).zip(&mut self.counted);
        for ((_, row), (tokens, counted)) in self.order.step(step).zip(rows) {
            *counted = job.rows.read(row, tokens)?;
        }
        self.waited += start.elapsed().as_secs_f64();
        Ok(self.counted.iter().map(|&n| n as u64).sum())
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

#[cfg(all(test, target_os = "linux"))]
mod on_device;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{SpecialIds, Unit};
    use crate::diffusion::Mdlm;
    use crate::kernels::{Fused, composite::Composite};
    use crate::manifest::MdlmObjective;
    use crate::model::dit::Nano;
    use crate::model::toy::Bag;
    use crate::model::{self, Erased, HostLearner};
    use crate::shapes::Shape;
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
        let counted: Vec<usize> = (0..30).map(|row| LENGTH - row % 3).collect();
        Rows::from_memory(LETTERS + 1, special, LENGTH, tokens, Some(&counted)).unwrap()
    }

    pub(super) fn objective(mask: u32) -> Mdlm {
        Mdlm::new(&MdlmObjective::default(), mask, mask + 1, 4)
    }

    pub(super) fn recipe() -> Recipe {
        Recipe {
            steps: 20,
            batch: 12,
            micro_batch: 12,
            learning_rate: 0.1,
            warmup_steps: 5,
            warmup_rates: WarmupRates::FromOne,
            schedule: LearningRateSchedule::Cosine,
            adam: AdamW {
                beta1: 0.9,
                beta2: 0.999,
                epsilon: 1e-8,
                weight_decay: 0.01,
            },
            gradient_clip: 1.0,
            ema: 0.9,
            dropout: 0.0,
            validation_every: 8,
            checkpoint_every: 7,
            seed: 4,
        }
    }

    /// Counts what it hears; asks to end after a step.
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
            let mut weights = vec![0.0; 42];
            network.read(&mut weights)?;
            let sum = weights.iter().map(|&w| f64::from(w.abs())).sum();
            Ok(Some(Validation {
                unit: Unit::Token,
                nats_per_token: sum,
                low: None,
                high: None,
                bits_per_byte: sum,
                lost_bits_per_byte: 0.0,
                normalized: false,
                rows: 1,
            }))
        }
        fn report(&mut self, report: Report) {
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
    type End = (State, Vec<f32>, Moments);

    fn bag() -> HostLearner<Bag> {
        HostLearner::new(Bag::new(LETTERS as usize + 1, LENGTH)).unwrap()
    }

    fn run(folder: &Path, recipe: Recipe, listener: &mut Listener) -> Result<End> {
        let keeper = keeper(folder, &recipe);
        run_with(&keeper, recipe, listener, None)
    }

    /// A run; its end is written to `artifact`.
    fn run_with(
        keeper: &Keeper,
        recipe: Recipe,
        listener: &mut Listener,
        artifact: Option<&Path>,
    ) -> Result<End> {
        let history = history(&recipe);
        let (rows, objective) = (rows(), objective(LETTERS));
        let cancel = listener.cancel.clone();
        let job = Job {
            rows: &rows,
            objective: &objective,
            keeper,
            recipe,
            all_reduce: None,
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

    fn history(recipe: &Recipe) -> History {
        History {
            base: "toy".to_owned(),
            learning_rate: recipe.learning_rate,
            warmup_steps: recipe.warmup_steps,
            warmup_rates: recipe.warmup_rates,
            schedule: recipe.schedule,
            steps: recipe.steps,
            validation_every: recipe.validation_every,
        }
    }

    fn keeper(folder: &Path, recipe: &Recipe) -> Keeper {
        Keeper::new(folder, history(recipe))
    }

    fn fresh(recipe: Recipe) -> End {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), recipe, &mut Listener::default()).unwrap()
    }

    #[test]
    fn it_learns_what_is_there_to_learn() {
        let (state, ..) = fresh(Recipe {
            steps: 300,
            ..recipe()
        });
        // Uniform guessing costs log 5 = 1.61 nats; one visible letter tells all others. What remains is the first
        // letter: (1 / L) log 5 = 0.27 for a whole row.
        let loss = state.log.recent_loss().unwrap();
        assert!(loss < 0.8, "loss {loss}");
    }

    #[test]
    fn twenty_steps_equal_ten_then_ten_with_other_micro_batches_and_threads() {
        let whole = fresh(recipe());
        for (stop, micro_batch, threads) in [(10, 1, 1), (7, 4, 3), (8, 6, 2), (19, 3, 1)] {
            let folder = tempfile::tempdir().unwrap();
            let mut first = Listener {
                stop_after: Some(stop),
                ..Listener::default()
            };
            let error = run(
                folder.path(),
                Recipe {
                    micro_batch,
                    ..recipe()
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
                (run(folder.path(), recipe(), &mut second).unwrap(), second)
            });
            assert_eq!(resumed, whole, "stopped after {stop}");
            assert_eq!(first.reports + listener.reports, 21, "no step is done twice");
        }
    }

    #[test]
    fn a_kill_between_checkpoints_repeats_steps_and_changes_nothing() {
        let whole = fresh(recipe());
        let folder = tempfile::tempdir().unwrap();
        let mut first = Listener {
            stop_after: Some(16),
            ..Listener::default()
        };
        run(folder.path(), recipe(), &mut first).unwrap_err();
        // What a kill at step 16 leaves: the checkpoint of step 14, and half of the next one.
        std::fs::rename(
            folder.path().join("step-00000016"),
            folder.path().join(".step-00000016.new"),
        )
        .unwrap();
        let mut second = Listener::default();
        assert_eq!(run(folder.path(), recipe(), &mut second).unwrap(), whole);
        assert_eq!(second.notes[0], "goes on from the checkpoint of step 14");
    }

    #[test]
    fn an_interrupted_validation_is_made_up_for() {
        let whole = fresh(recipe());
        let folder = tempfile::tempdir().unwrap();
        let mut first = Listener {
            stop_in_validation: true,
            ..Listener::default()
        };
        run(folder.path(), recipe(), &mut first).unwrap_err();
        let mut second = Listener::default();
        assert_eq!(run(folder.path(), recipe(), &mut second).unwrap(), whole);
        assert_eq!(second.validations, 3, "after steps 8, 16 and 20");
    }

    #[test]
    fn a_damaged_checkpoint_is_passed_over_and_others_runs_are_left_alone() {
        let whole = fresh(recipe());
        let folder = tempfile::tempdir().unwrap();
        let mut first = Listener {
            stop_after: Some(16),
            ..Listener::default()
        };
        run(folder.path(), recipe(), &mut first).unwrap_err();
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
        assert_eq!(run(folder.path(), recipe(), &mut second).unwrap(), whole);
        assert_eq!(
            second.notes[..2],
            [
                "the checkpoint of step 16 cannot be used: `ema.safetensors` is damaged",
                "goes on from the checkpoint of step 14"
            ]
        );
        let another = History {
            base: "another run".to_owned(),
            ..history(&recipe())
        };
        let other = Keeper::new(folder.path(), another);
        assert_eq!(other.restore(&mut bag(), &mut |_| ()).unwrap(), None);
    }

    fn constant(steps: u64) -> Recipe {
        Recipe {
            steps,
            schedule: LearningRateSchedule::Constant,
            ..recipe()
        }
    }

    /// A run that goes on from whatever is there: its notes, and what it made.
    fn goes_on(earlier: &Path, kept: &Path, recipe: Recipe) -> (Vec<String>, End) {
        let folder = tempfile::tempdir().unwrap();
        let keeper = keeper(folder.path(), &recipe)
            .with_retention(Retention {
                folder: kept.to_owned(),
                ..Retention::default()
            })
            .with_earlier(vec![earlier.to_owned()]);
        let mut listener = Listener::default();
        let made = run_with(&keeper, recipe, &mut listener, None).unwrap();
        (listener.notes, made)
    }

    #[test]
    fn a_longer_run_goes_on_from_a_shorter_ones_end() {
        let (work, artifact) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let none = Path::new("");
        // Step 12 is none for a validation but that it is the last.
        let short = constant(12);
        let mut listener = Listener::default();
        let keeper = keeper(work.path(), &short);
        run_with(&keeper, short, &mut listener, Some(artifact.path())).unwrap();
        for recipe in [constant(20), constant(13), constant(12)] {
            let (notes, made) = goes_on(artifact.path(), none, recipe.clone());
            assert_eq!(
                notes[0],
                "goes on from the checkpoint of step 12 of an earlier run"
            );
            assert_eq!(made, fresh(recipe));
        }
        // A run that was not finished has left checkpoints.
        let (notes, made) = goes_on(work.path(), none, constant(30));
        assert_eq!(
            notes[0],
            "goes on from the checkpoint of step 12 of an earlier run"
        );
        assert_eq!(made, fresh(constant(30)));
        // Another one's are none.
        let other = Recipe {
            learning_rate: 0.05,
            ..constant(20)
        };
        let (notes, made) = goes_on(artifact.path(), none, other.clone());
        // It was asked for another one: there is nothing to warn of.
        assert!(
            !notes.iter().any(|note| note.starts_with("begins anew")),
            "{notes:?}"
        );
        assert_eq!(made, fresh(other));
        let (notes, made) = goes_on(artifact.path(), none, constant(8));
        assert_eq!(
            notes[0],
            "begins anew: an earlier run has gone on to step 12 and has left no checkpoint of step 8 or before \
             (`keep_checkpoints`)"
        );
        assert_eq!(made, fresh(constant(8)));
    }

    #[test]
    fn a_schedule_that_depends_on_the_steps_begins_anew_and_says_why() {
        let (work, artifact) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let short = Recipe {
            steps: 12,
            ..recipe()
        };
        let keeper = keeper(work.path(), &short);
        run_with(&keeper, short, &mut Listener::default(), Some(artifact.path())).unwrap();
        let (notes, made) = goes_on(artifact.path(), Path::new(""), recipe());
        assert!(
            notes[0].ends_with("(with the schedule `cosine` they depend on `steps`)"),
            "{notes:?}"
        );
        assert_eq!(made, fresh(recipe()));
    }

    #[test]
    fn checkpoints_that_stay_serve_shorter_runs_and_branches() {
        let (work, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let long = constant(20);
        let retention = Retention {
            folder: kept.path().to_owned(),
            every: 5,
            last: 2,
            best: true,
        };
        let own = keeper(work.path(), &long).with_retention(retention);
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
            "goes on from the checkpoint of step 15 of an earlier run"
        );
        assert_eq!(made, fresh(constant(17)));
        // The rates of both are the same until the warm-up ends.
        let (notes, made) = goes_on(nothing.path(), kept.path(), recipe());
        assert_eq!(
            notes[0],
            "goes on from the checkpoint of step 5 of an earlier run"
        );
        assert_eq!(made, fresh(recipe()));
    }

    #[test]
    fn divergence_ends_in_a_diagnosis_and_keeps_the_last_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let wild = Recipe {
            learning_rate: 1e30,
            gradient_clip: 0.0,
            warmup_steps: 12,
            checkpoint_every: 1,
            ..recipe()
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
    fn a_loss_that_grows_without_overflow_is_a_divergence_too() {
        let folder = tempfile::tempdir().unwrap();
        let wild = Recipe {
            learning_rate: 1e3,
            steps: 200,
            schedule: LearningRateSchedule::Constant,
            ..recipe()
        };
        let error = run(folder.path(), wild, &mut Listener::default()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("4 · log V = 6.44 on average over 20 steps"),
            "{error}"
        );
    }

    /// Two ranks that have the same half of every batch, say: what the sum makes of a step is what AdamW sees.
    #[test]
    fn an_all_reduce_sees_each_steps_gradient_and_loss_and_what_it_makes_of_them_counts() {
        let (rows, objective, keeper) = (rows(), objective(LETTERS), Keeper::default());
        let cancel = Cancel::default();
        let seen = std::cell::RefCell::new(Vec::new());
        let double = |gradient: &mut [f32], loss: &mut f64| {
            seen.borrow_mut().push((gradient.to_vec(), *loss));
            gradient.iter_mut().for_each(|g| *g *= 2.0);
            *loss *= 2.0;
            Ok(())
        };
        let steps = |all_reduce: Option<&AllReduce<'_>>| {
            let job = Job {
                rows: &rows,
                objective: &objective,
                keeper: &keeper,
                recipe: Recipe {
                    gradient_clip: 0.0,
                    ..recipe()
                },
                all_reduce,
                cancel: &cancel,
            };
            let mut learner = bag();
            let mut rehearsal = Rehearsal::new(&job, &mut learner).unwrap();
            rehearsal.step().unwrap();
            let loss = rehearsal.state.log.recent[0];
            (loss, learner.moments().unwrap())
        };
        let (alone, ranks) = (steps(None), steps(Some(&double)));
        let seen = seen.into_inner();
        assert_eq!(seen.len(), 1, "once a step");
        assert_eq!((seen[0].1, 2.0 * alone.0), (alone.0, ranks.0));
        // The first moment is a tenth of the gradient.
        for (moment, gradient) in ranks.1.first.iter().zip(&seen[0].0) {
            assert!((moment - 0.2 * gradient).abs() < 1e-7 * (1.0 + gradient.abs()));
        }
        let doubled: Vec<f32> = alone.1.first.iter().map(|moment| 2.0 * moment).collect();
        assert_eq!(ranks.1.first, doubled);
    }

    /// Text in which a token tells the next one: x(l + 1) = 3 x(l) + 1 modulo the letters.
    pub(super) fn chained_rows(shape: &Shape) -> Rows {
        let mask = shape.vocabulary as u32 - 1;
        let special = SpecialIds {
            bos: 0,
            eos: 0,
            pad: 0,
            mask,
        };
        let tokens = (0..64)
            .flat_map(|row| {
                std::iter::successors(Some(row), |x| Some((3 * x + 1) % LETTERS)).take(shape.length)
            })
            .collect();
        Rows::from_memory(mask + 1, special, shape.length, tokens, None).unwrap()
    }

    /// The loss of 200 steps, fused in f32 against composite in f64.
    #[test]
    fn fused_and_composite_training_follow_the_same_curve() {
        let shape = Shape::find("nano").unwrap();
        let rows = chained_rows(shape);
        let mask = rows.info().special.mask;
        let objective = objective(mask);
        let (cancel, keeper) = (Cancel::default(), Keeper::default());
        let job = Job {
            rows: &rows,
            objective: &objective,
            recipe: Recipe {
                steps: 200,
                batch: 4,
                micro_batch: 4,
                learning_rate: 1e-3,
                dropout: 0.1,
                ..recipe()
            },
            keeper: &keeper,
            all_reduce: None,
            cancel: &cancel,
        };
        let curve = |learner: &mut dyn Learner| -> Vec<f64> {
            let mut rehearsal = Rehearsal::new(&job, learner).unwrap();
            (0..200)
                .map(|_| {
                    rehearsal.step().unwrap();
                    *rehearsal.state.log.recent.back().unwrap()
                })
                .collect()
        };
        let weights = model::initial(shape, 1);
        let exact = Composite::<f64, _>::new(dfdx::prelude::Cpu::default());
        let exact = Erased::<Nano, _>::new(exact, &weights).unwrap();
        let fused = Erased::<Nano, _>::new(Fused::default(), &weights).unwrap();
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
}
