//! `train`: rows → a denoiser.
//!
//! | file | content |
//! |---|---|
//! | `raw.safetensors`, `ema.safetensors` | the weights of the last step and their moving average, under the authors' names |
//! | `optimizer.safetensors`, `state.json` | what a longer run would go on from |
//! | `metrics.jsonl` | losses and bounds (see [`crate::train`]) |
//! | `model.json` | what the weights are ([`ModelInfo`]) |
//! | `tokenizer.json` | the tokenizer, so that the model is whole without its data |
//!
//! Checkpoints lie in the stage's work folder until the artifact is committed. A training goes on from the newest state
//! that it would have come through itself: its own checkpoint, that of a run that was not finished, one that was kept, or
//! the artifact of a shorter run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::data::rows::Rows;
use crate::data::{TOKENIZER, write_json};
use crate::diffusion::{Objective, objective};
use crate::error::{Context as _, Error, Kind, Result, Wrap};
use crate::evaluate;
use crate::event::Progress;
use crate::kernels::profile::{self, Part};
use crate::manifest::{KeepCheckpoints, Split, Stage, Train};
use crate::model::footprint::{self, Footprint, Workload};
use crate::model::{self, Device, Learner, Network};
use crate::numbers;
use crate::plural::counted;
use crate::ranks::Sharing;
use crate::rng::Stream;
use crate::shapes::{SHAPES, Shape};
use crate::stages::evaluate::MDLM;
use crate::stages::trained::{MODEL_INFO, ModelInfo};
use crate::stages::{Context, LeftBehind, Run, StageOutput, memory};
use crate::store::ExternalFile;
use crate::train::checkpoint::{Left, not_kept, not_validated};
use crate::train::{
    AdamW, CheckpointManager, Checkpoints, History, Hooks, Retention, TrainConfig, TrainProgress, Trainer,
    Validation, checkpoint, workload,
};

pub mod follow;
mod init;

/// Draws per row of a validation: its rows vary more than a row's draws do.
const VALIDATION_DRAWS: u32 = 1;
/// Seconds between progress events: a terminal redraws no faster.
const PROGRESS_SECONDS: f64 = 0.1;

impl Run for Train {
    /// Version of the stage: a change of what it writes for the same input raises it.
    ///
    /// 1: MDLM with AdamW and a moving average. 2: of the last block, masked positions alone (sums in another order). Still 2:
    /// `model.json` records a precision that is not f32; without it a model is computed in f32, as it was before. 3: a line of
    /// `metrics.jsonl` says how many steps it is the mean of, a validation what it is per. Still 3: in `state.json` the digest
    /// of what decides the steps is of neither the validations nor the files that the rows are in. Still 3: `objective` in the
    /// settings and in `model.json`, in place of `noise`, `sampling_epsilon`, `antithetic` and `time_conditioning`; the weights
    /// are the same.
    const VERSION: u32 = 3;

    const RESUMES: bool = true;

    /// Runs the stage.
    ///
    /// # Errors
    /// The rows do not fit the shape, the training diverges, the disk is full, or the run is cancelled.
    fn run(&self, context: &Context<'_>) -> Result<StageOutput> {
        let input = context.input("from")?;
        let init = match &self.init {
            Some(_) => Some(context.input("init")?),
            None => None,
        };
        let sharing = Sharing {
            ranks: context.ranks.clone(),
            grains: self.grains,
        };
        check_world(self, &sharing)?;
        let ReadyTraining {
            rows,
            held_out,
            objective,
            model,
            mut learner,
        } = ReadyTraining::new(self, context.seed, context.device, (input, init), &sharing)?;
        if held_out.is_empty() {
            context.warn("there are no validation rows: the training is not validated");
        }
        if let Some(artifact) = init.filter(|_| self.continues) {
            init::check_run(artifact, self, context)?;
        }
        let history = history(self, &model, (&rows, &held_out), init)?;
        if sharing.is_shared() {
            // From here on the others wait for this rank, which may not fail without them.
            follow::call(self, context, (input, init))?;
        }
        let settings =
            share(self, context.seed, &*objective, &mut *learner, &sharing).inspect_err(|error| {
                sharing
                    .ranks
                    .abandon(&error.to_string(), error.kind().exit_code())
            })?;
        let micro_batch = settings.micro_batch;
        let scored = model.is_first_token_given();
        let mut watcher = Watcher {
            context,
            total: self.steps,
            reported: None,
            kind: self.objective.kind(),
            scored,
            validation: evaluate::BoundEstimator {
                rows: &held_out,
                limit: Some(u64::from(self.validation_rows)),
                objective: &*objective,
                seed: context.seed,
                method: objective.method_of_validation(),
                draws: VALIDATION_DRAWS,
                stream: Stream::Validation,
                micro_batch: memory::rows_at_a_time(model.shape()?, context.device),
            },
        };
        let job = Trainer {
            rows: &rows,
            objective: &*objective,
            config: settings,
            checkpoints: &checkpoints(self, context, history.clone(), init),
            sharing: sharing.clone(),
            cancel: context.cancel,
        };
        let waited = exchanged();
        let trained = job.run(&mut *learner, &mut watcher)?;
        let waited = exchanged().saturating_sub(waited);
        checkpoint::write(context.output, &*learner, &trained.state, &history).inspect_err(|error| {
            sharing
                .ranks
                .abandon(&error.to_string(), error.kind().exit_code())
        })?;
        write_json(&context.output.join(MODEL_INFO), &model)?;
        let tokenizer = input.join(TOKENIZER);
        std::fs::copy(&tokenizer, context.output.join(TOKENIZER))
            .context(|| format!("copy `{}`", tokenizer.display()))?;
        let short = rows.info().unit().short();
        let per = if scored {
            format!("scored {short}")
        } else {
            short.to_owned()
        };
        let mut outcome = outcome(self, &trained, &per, micro_batch);
        if sharing.is_shared() {
            outcome
                .figures
                .push(("ranks".to_owned(), sharing.ranks.rank().world.to_string()));
            let share = waited.as_secs_f64() / trained.seconds.max(f64::MIN_POSITIVE);
            let mut facts = json!({
                "world": sharing.ranks.rank().world,
                "grains": self.grains,
                "communicator": sharing.ranks.described(),
            });
            // Devices exchange in their streams, whose time the host does not see.
            match learner.joined() {
                Some(devices) => facts["devices"] = devices.into(),
                None => facts["exchange"] = share.into(),
            }
            outcome.provenance.insert("ranks".to_owned(), facts);
        }
        Ok(outcome)
    }

    /// The shape by its dimensions too: a line of the registry may change under its name.
    fn state_contents(&self, config: &mut Map<String, Value>) -> Result<Vec<ExternalFile>> {
        if let Some(shape) = SHAPES.find(&self.shape) {
            config.insert("shape".to_owned(), Value::String(dimensions(shape)));
        }
        Ok(vec![])
    }

    fn lacks(&self, made: &Value, asked: &Value, left: Option<&LeftBehind<'_>>) -> Vec<String> {
        let mut lacks = validations(made, asked, self.steps);
        let Some(left) = left else {
            return lacks;
        };
        if lacks.is_empty() {
            lacks.extend(not_validated(left.artifact, self.validation_every));
        }
        if let Some(keep) = self.keep_checkpoints {
            lacks.extend(not_kept(
                left.artifact,
                left.checkpoints,
                &retention(keep),
                self.checkpoint_every,
            ));
        }
        lacks
    }

    /// What [`Footprint`] computes from its shape and micro-batch.
    fn memory(&self, _inputs: &[&Stage], _base: &Path) -> Option<u64> {
        let shape = SHAPES.find(&self.shape)?;
        let (backbone, answered) = (self.objective.backbone(), self.objective.answered());
        let footprint = Footprint::of(shape, backbone, answered);
        let grain = self.grain().unwrap_or(self.batch);
        let rows = self
            .micro_batch
            .unwrap_or_else(|| footprint::micro_batch(shape, backbone, answered, grain));
        Some((footprint.training + rows as usize * footprint.training_per_row) as u64)
    }
}

/// What a training needs on every rank.
struct ReadyTraining {
    rows: Rows,
    held_out: Rows,
    objective: Box<dyn Objective>,
    model: ModelInfo,
    learner: Box<dyn Learner>,
}

impl ReadyTraining {
    /// Reads the rows in the folder `from`, and builds the learner, which begins with the weights in the folder `init`.
    ///
    /// # Errors
    /// The rows do not fit the shape, the weights do not fit the network, or the device fails.
    fn new(
        config: &Train,
        seed: u64,
        device: Device,
        (from, init): (&Path, Option<&Path>),
        sharing: &Sharing,
    ) -> Result<Self> {
        let rows = Rows::open(from, Split::Train)?;
        rows.check_trainable()?;
        let held_out = Rows::open(from, Split::Validation)?;
        let shape = SHAPES
            .find(&config.shape)
            .ok_or_else(|| Error::input(format!("shape `{}` is not compiled", config.shape)))?;
        check(config, shape, &rows)?;
        let info = rows.info();
        let objective = objective::build(&config.objective, info.special.mask, info.vocabulary, seed);
        let model = described(config, seed, &rows);
        let backbone = config.objective.backbone();
        let initial = match init {
            // The state is loaded where no checkpoint of it exists.
            Some(artifact) if config.continues => {
                init::check_model(artifact, config, &model)?;
                vec![0.0; model::total(&model::parameters(shape, backbone))]
            }
            Some(artifact) => init::weights(artifact, config, &model)?,
            None => model::initial(shape, backbone, seed),
        };
        let local = sharing.ranks.local();
        let learner =
            model::build_learner_of_rank(shape, backbone, device, config.precision, &initial, local)?;
        Ok(Self {
            rows,
            held_out,
            objective,
            model,
            learner,
        })
    }
}

/// Joins the learners of all ranks, which call this at the same time, and chooses the micro-batch.
///
/// # Errors
/// The devices cannot be joined, or a micro-batch does not fit one.
fn share(
    config: &Train,
    seed: u64,
    objective: &dyn Objective,
    learner: &mut dyn Learner,
    sharing: &Sharing,
) -> Result<TrainConfig> {
    learner.share(sharing.clone())?;
    train_config(config, learner, workload(&config.objective, objective), seed)
}

/// Refuses a world that cannot share the batches.
///
/// # Errors
/// Input error: `grains` is not a multiple of the number of ranks.
pub fn check_world(config: &Train, sharing: &Sharing) -> Result<()> {
    let world = sharing.ranks.rank().world;
    if config.grains.is_multiple_of(world) {
        return Ok(());
    }
    let ways = match config.grains {
        1 => "1".to_owned(),
        2 => "1 or 2".to_owned(),
        grains => format!("1, 2, … or {grains}, the powers of two"),
    };
    let more = world.next_power_of_two().max(2);
    Err(Error::input(format!(
        "{} cannot share a training whose `grains` is {}",
        counted(world, "rank"),
        config.grains
    ))
    .hint(format!(
        "run {ways} of them with these `grains`, or set `\"grains\": {more}`, which gives another result in the last digits"
    )))
}

/// Time that this process has spent in exchanges.
fn exchanged() -> Duration {
    let exchange = Part::Exchange.name();
    let spent = profile::snapshot();
    spent
        .iter()
        .find(|spent| spent.operation == exchange)
        .map_or(Duration::ZERO, |spent| spent.forward.time)
}

/// A shape's name and dimensions: `nano V512 L32 D64 H2 N2 C32`.
#[must_use]
pub fn dimensions(shape: &Shape) -> String {
    format!(
        "{} V{} L{} D{} H{} N{} C{}",
        shape.name,
        shape.vocabulary,
        shape.length,
        shape.width,
        shape.heads,
        shape.blocks,
        shape.conditioning
    )
}

fn described(config: &Train, seed: u64, rows: &Rows) -> ModelInfo {
    let info = rows.info();
    ModelInfo {
        shape: config.shape.clone(),
        vocabulary: info.vocabulary,
        length: info.length,
        wrap: info.wrap,
        special: info.special,
        tokenizer_digest: info.tokenizer_digest.clone(),
        objective: config.objective,
        steps: config.steps,
        seed,
        precision: config.precision,
        origin: None,
    }
}

/// What trainings would go on from. What several of them look at is read once.
#[derive(Default)]
pub struct Outlook {
    /// The rows to learn and to watch, by their folder, and what trainings on them have left.
    rows: HashMap<PathBuf, (Rows, Rows, Left)>,
    /// What stays, by the base of its history.
    stays: HashMap<String, Left>,
}

impl Outlook {
    /// The step that a training would go on from, if there is one; changes nothing. It learns the rows in the folder `rows`,
    /// begins with the model in the folder `init`, and leaves its own states where `checkpoints` says; `earlier` is asked once
    /// for what others have left that learnt the same rows.
    ///
    /// # Errors
    /// The rows or a folder cannot be read.
    pub fn resumes_from(
        &mut self,
        config: &Train,
        seed: u64,
        (rows, init): (&Path, Option<&Path>),
        checkpoints: &Checkpoints,
        earlier: &dyn Fn() -> Result<Vec<PathBuf>>,
    ) -> Result<Option<u64>> {
        let folder = rows;
        if !self.rows.contains_key(folder) {
            let rows = Rows::open(folder, Split::Train)?;
            let held_out = Rows::open(folder, Split::Validation)?;
            let left = Left::in_folders(earlier()?);
            self.rows.insert(folder.to_owned(), (rows, held_out, left));
        }
        let Some((rows, held_out, left)) = self.rows.get(folder) else {
            return Ok(None);
        };
        let history = history(config, &described(config, seed, rows), (rows, held_out), init)?;
        let stays = self
            .stays
            .entry(history.base.clone())
            .or_insert_with(|| Left::to_stay(checkpoints, &history));
        let others = [left, stays].map(|left| left.newest(&history, checkpoints));
        // That of the model whose training it continues.
        let start = (history.start > 0).then_some(history.start);
        let own = CheckpointManager::new(checkpoints.clone(), history).newest()?;
        Ok(own.max(others[0]).max(others[1]).max(start))
    }
}

/// The semantic faults that a plan may have found already.
fn check(config: &Train, shape: &Shape, rows: &Rows) -> Result<()> {
    let info = rows.info();
    if info.length as usize != shape.length {
        return Err(Error::input(format!(
            "the rows have {}, shape `{}` has {}",
            counted(info.length, "token"),
            shape.name,
            shape.length
        ))
        .hint(format!("set `length` of the pack stage to {}", shape.length)));
    }
    if info.vocabulary as usize > shape.vocabulary {
        return Err(Error::input(format!(
            "the tokenizer has {} tokens, shape `{}` has room for {}",
            info.vocabulary, shape.name, shape.vocabulary
        ))
        .hint("take a smaller tokenizer or a larger shape; `mdlm shapes` lists them"));
    }
    if rows.is_empty() {
        return Err(Error::input("there are no rows to train on")
            .hint("add text, or lower `validation` of the pack stage"));
    }
    let Some(grain) = config.grain() else {
        return Err(Error::input(format!(
            "`grains` {} does not cut the `batch` of {}",
            config.grains, config.batch
        ))
        .hint("take a power of two that divides `batch`"));
    };
    if let Some(rows) = config.micro_batch
        && (rows == 0 || !grain.is_multiple_of(rows))
    {
        let what = match config.grains {
            1 => format!("`batch` {}", config.batch),
            _ => format!("a grain of {}", counted(grain, "row")),
        };
        return Err(
            Error::input(format!("`micro_batch` {rows} does not divide {what}"))
                .hint("leave it out: it is then chosen to fit"),
        );
    }
    Ok(())
}

fn train_config(
    config: &Train,
    learner: &mut dyn Learner,
    workload: Workload,
    seed: u64,
) -> Result<TrainConfig> {
    Ok(TrainConfig {
        steps: config.steps,
        batch: config.batch,
        micro_batch: learner.micro_batch(
            config.grain().unwrap_or(config.batch),
            config.micro_batch,
            workload,
        )?,
        learning_rate: config.learning_rate,
        warmup_steps: config.warmup_steps,
        warmup_rates: config.warmup_rates,
        schedule: config.schedule,
        adam: AdamW {
            beta1: config.beta1,
            beta2: config.beta2,
            epsilon: config.epsilon,
            weight_decay: config.weight_decay,
        },
        gradient_clip: config.gradient_clip,
        ema: config.ema,
        dropout: config.dropout,
        validation_every: config.validation_every,
        checkpoint_every: config.checkpoint_every,
        seed,
    })
}

/// Everything that decides the weights, so that a checkpoint is never taken up by another run.
fn history(
    config: &Train,
    model: &ModelInfo,
    (rows, held_out): (&Rows, &Rows),
    init: Option<&Path>,
) -> Result<History> {
    let what = || "describe a training run".to_owned();
    let mut settings = serde_json::to_value(config).wrap(Kind::Internal, what)?;
    let mut model = serde_json::to_value(model).wrap(Kind::Internal, what)?;
    if let Value::Object(fields) = &mut settings {
        // What does not decide the result, or decides what is watched, and no step.
        let beside = Train::BESIDE_STEPS.concat();
        for field in ["from", "init", "seed"].iter().chain(&beside) {
            fields.shift_remove(*field);
        }
        // What decides the learning rates, and nothing else.
        for field in [
            "steps",
            "learning_rate",
            "warmup_steps",
            "warmup_rates",
            "schedule",
        ] {
            fields.shift_remove(field);
        }
    }
    if let Value::Object(fields) = &mut model {
        fields.shift_remove("steps");
        // Among the settings already.
        fields.shift_remove("precision");
    }
    let mut run = json!({
        "version": Train::VERSION,
        "config": settings,
        "model": model,
        "rows": rows.split_info().without_shards(),
        "validation": held_out.split_info().without_shards(),
    });
    let mut start = 0;
    if let Some(init) = init {
        run["init"] = json!(ModelInfo::identity(init)?);
        // One that cannot be continued is refused before it is trained.
        if let (true, Ok(continued)) = (config.continues, ModelInfo::open(init)?.run(init)) {
            run["continued"] = json!([continued.step, continued.digest]);
            start = continued.step;
        }
    }
    Ok(History {
        base: blake3::hash(run.to_string().as_bytes()).to_hex().to_string(),
        learning_rate: config.learning_rate,
        warmup_steps: config.warmup_steps,
        warmup_rates: config.warmup_rates,
        schedule: config.schedule,
        steps: config.steps,
        start,
        validation_every: config.validation_every,
        // As many as there are: a larger limit changes nothing.
        validation_rows: u64::from(config.validation_rows).min(held_out.split_info().rows),
    })
}

fn checkpoints(
    config: &Train,
    context: &Context<'_>,
    history: History,
    init: Option<&Path>,
) -> CheckpointManager {
    let keep = config.keep_checkpoints.unwrap_or_default();
    let manager = CheckpointManager::new(context.checkpoints.clone(), history);
    let manager = manager.with_retention(retention(keep));
    match init {
        Some(model) if config.continues => manager.continuing(model),
        _ => manager,
    }
}

/// Which checkpoints a training is to keep.
#[must_use]
fn retention(keep: KeepCheckpoints) -> Retention {
    Retention {
        every: keep.every,
        last: keep.last,
        best: keep.best,
    }
}

fn outcome(config: &Train, trained: &crate::train::Trained, per: &str, micro_batch: u32) -> StageOutput {
    let mut outcome = StageOutput::default();
    let mut figure = |name: &str, value: String| outcome.figures.push((name.to_owned(), value));
    figure(
        "steps",
        match trained.resumed_from {
            0 => config.steps.to_string(),
            step => format!("{} (from {step} on)", config.steps),
        },
    );
    if let Some(loss) = trained.state.log.recent_loss() {
        figure("loss", format!("{loss:.4} nats/{per}"));
    }
    if let Some(line) = trained.state.log.validation {
        let found = line.validation;
        let Validation {
            nats_per_token,
            low,
            high,
            ..
        } = found;
        let nats = numbers::plus_minus(nats_per_token, low.zip(high), 4);
        figure(
            &found.name(),
            format!("{nats} nats {}, {}", found.per(), found.bits()),
        );
    }
    if trained.tokens_per_second > 0.0 {
        figure("speed", format!("{:.0} tokens/s", trained.tokens_per_second));
        outcome.provenance.insert(
            "tokens_per_second".to_owned(),
            json!(trained.tokens_per_second.round()),
        );
        outcome
            .provenance
            .insert("data_wait".to_owned(), json!(trained.data_wait));
    }
    if let Some(peak) = memory::peak() {
        outcome.figures.push(("memory".to_owned(), numbers::bytes(peak)));
    }
    outcome
        .provenance
        .insert("micro_batch".to_owned(), json!(micro_batch));
    if trained.resumed_from > 0 {
        outcome
            .provenance
            .insert("resumed_from".to_owned(), json!(trained.resumed_from));
    }
    outcome
}

/// Validates, and turns reports of the loop into events.
struct Watcher<'a> {
    context: &'a Context<'a>,
    total: u64,
    reported: Option<Instant>,
    /// The kind of the objective.
    kind: &'static str,
    /// Whether the first token of each row is given.
    scored: bool,
    validation: evaluate::BoundEstimator<'a>,
}

impl Hooks for Watcher<'_> {
    fn validate(&mut self, network: &dyn Network) -> Result<Option<Validation>> {
        if self.validation.rows.is_empty() {
            return Ok(None);
        }
        let bound = self
            .validation
            .run(network, self.context.cancel, &mut |_, _, _| ())?;
        let rows = self.validation.rows;
        let bytes = rows.split_info().bytes_per_position();
        let lost = rows.split_info().lost_bits_per_byte();
        let method = self.validation.method;
        Ok(Some(Validation {
            estimator: (self.kind != MDLM).then_some(method.estimator),
            steps: method.steps,
            unit: rows.info().unit(),
            scored: self.scored,
            nats_per_token: bound.nats_per_token.value,
            low: bound.nats_per_token.low,
            high: bound.nats_per_token.high,
            bits_per_byte: bound.bits_per_byte(bytes).value + lost,
            lost_bits_per_byte: lost,
            normalized: rows.info().normalized,
            rows: bound.rows,
        }))
    }

    fn report(&mut self, report: TrainProgress) {
        let due = self
            .reported
            .is_none_or(|reported| reported.elapsed().as_secs_f64() >= PROGRESS_SECONDS);
        if !due && report.step < self.total {
            return;
        }
        self.reported = Some(Instant::now());
        let mut figures = Vec::new();
        if let Some(loss) = report.loss {
            figures.push(("loss", format!("{loss:.3}")));
        }
        if let Some(line) = report.validation {
            let found = line.validation;
            figures.push((found.quantity().name(), format!("{:.3}", found.nats_per_token)));
        }
        if report.tokens_per_second > 0.0 {
            figures.push(("tokens/s", format!("{:.0}", report.tokens_per_second)));
        }
        if let Some(bytes) = memory::resident() {
            figures.push(("memory", numbers::bytes(bytes)));
        }
        self.context.progress(Progress {
            done: report.step,
            total: Some(self.total),
            unit: "steps",
            figures,
        });
    }

    fn note(&mut self, text: String) {
        self.context.note(text);
    }

    fn warn(&mut self, text: String) {
        self.context.warn(text);
    }
}

/// What follows "every": `step`, `3 steps`.
fn every(steps: u64) -> String {
    match steps {
        1 => "step".to_owned(),
        steps => counted(steps, "step"),
    }
}

/// The validations that a training was not asked for and now is.
fn validations(made: &Value, asked: &Value, steps: u64) -> Vec<String> {
    let number = |config: &Value, field: &str| config.get(field).and_then(Value::as_u64).unwrap_or(0);
    let mut lacks = Vec::new();
    let (then, now) = (
        number(made, "validation_every"),
        number(asked, "validation_every"),
    );
    let is_covered = now == 0 || now >= steps || then > 0 && now.is_multiple_of(then);
    if !is_covered {
        lacks.push(if then == 0 || then >= steps {
            format!("validated only at its end, not every {}", every(now))
        } else {
            format!(
                "validated every {}, not every {}",
                every(then),
                every(now).trim_end_matches(" steps")
            )
        });
    }
    let (then, now) = (number(made, "validation_rows"), number(asked, "validation_rows"));
    if now > then {
        lacks.push(format!(
            "validated on at most {}, not {now}",
            counted(then, "row")
        ));
    }
    lacks
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cache_hit_validated_more_often_lacks_nothing() {
        let lacks = |then: (u64, u64), now: (u64, u64)| {
            let config = |(every, rows)| json!({ "validation_every": every, "validation_rows": rows });
            validations(&config(then), &config(now), 100).join("; ")
        };
        assert_eq!(lacks((10, 8), (10, 8)), "");
        assert_eq!(lacks((10, 8), (50, 8)), "", "its points are among them");
        assert_eq!(lacks((10, 8), (0, 8)), "");
        assert_eq!(lacks((0, 8), (100, 8)), "", "both at the end");
        assert_eq!(lacks((10, 8), (10, 4)), "");
        assert_eq!(lacks((10, 8), (5, 8)), "validated every 10 steps, not every 5");
        assert_eq!(lacks((10, 8), (15, 8)), "validated every 10 steps, not every 15");
        assert_eq!(
            lacks((0, 8), (5, 8)),
            "validated only at its end, not every 5 steps"
        );
        assert_eq!(
            lacks((100, 8), (5, 8)),
            "validated only at its end, not every 5 steps"
        );
        assert_eq!(lacks((10, 8), (10, 9)), "validated on at most 8 rows, not 9");
    }
}
