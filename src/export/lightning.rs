//! A checkpoint of PyTorch Lightning as the authors' trainer writes it (kuleshov-group/mdlm, Lightning 2.2.1), after the last
//! update of a training.
//!
//! | key | content |
//! |---|---|
//! | `state_dict` | the weights of the last step as `backbone.NAME`, and the rotary buffer |
//! | `ema` | their average: a list in the order of the parameters |
//! | `optimizer_states` | AdamW: by the number of the parameter its step and moments, and the settings |
//! | `lr_schedulers` | the position of a `LambdaLR`, whose function is that of the settings with which training resumes; a cosine whole |
//! | `loops` | counters: all updates are done, and a pass through the data begins |
//! | `hyper_parameters` | the settings under the authors' names, as plain dicts, and the objective as a manifest has it |
//!
//! The position in the data is that of a new pass: the authors' loader has other rows in another order, so that it is unknown
//! which of them are done. A model from elsewhere is written if its file had AdamW's moments, with the settings that the file
//! stated; others are refused, since AdamW could not resume.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::{FinishedModel, NetworkTensor, refuse_link};
use crate::error::{Context as _, Error, Result};
use crate::manifest::{LearningRateSchedule, MdlmObjective, Noise, Objective, Stage, Times, Train, Weights};
use crate::shapes::{Backbone, Shape};
use crate::train::{checkpoint, learning_rate};
use crate::weights::import::run::{RateState, RunSettings};
use crate::weights::rotary_buffer;
use crate::weights::torch::dtype::TorchDtype;
use crate::weights::torch::write::{TorchItem, TorchWriter};

/// The version that the authors' release requires.
const LIGHTNING: &str = "2.2.1";

/// Writes a checkpoint beside its place, and renames it. A file that is there is replaced if `is_forced`.
///
/// # Errors
/// Input errors: the model has no moments, the file is there. The environment's: the disk is full or not writable.
pub fn write(model: &FinishedModel<'_>, file: &Path, is_forced: bool) -> Result<()> {
    let run = ExportedRun::of(model)?;
    refuse_link(file)?;
    if file.is_dir() {
        return Err(
            Error::input(format!("`{}` is a folder", file.display())).hint("name a file: `last.ckpt`")
        );
    }
    if !is_forced && file.exists() {
        return Err(Error::input(format!("`{}` is there already", file.display()))
            .hint("name another file, or replace it with `--force`"));
    }
    if file.exists() && !is_archive(file)? {
        return Err(
            Error::input(format!("`{}` is there, and is not a checkpoint", file.display()))
                .hint("name another file: `--force` replaces checkpoints alone"),
        );
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).context(|| format!("write `{}`", file.display()))?;
    }
    let parameters = model.parameters();
    let tensors = NetworkTensor::all(model.shape, &parameters);
    let mut writer = TorchWriter::create(file, &contents(model, &run, &tensors)?)?;
    // In the order in which `contents` has them, a set or two of values at a time.
    let raw = model.read_weights(Weights::Raw)?;
    let buffer = rotary_buffer(model.shape);
    for tensor in &tensors {
        writer.append(tensor.values(&raw, &buffer))?;
    }
    drop(raw);
    let [first, second] = checkpoint::moments(&model.folder, &parameters)?;
    for parameter in &parameters {
        writer.append(&[run.train.steps as f32])?;
        writer.append(&first[parameter.range()])?;
        writer.append(&second[parameter.range()])?;
    }
    drop([first, second]);
    if run.average_updates.is_some() {
        writer.append(&model.read_weights(Weights::Ema)?)?;
    }
    writer.finish()
}

/// Whether a file begins as an archive of `torch.save` does.
fn is_archive(file: &Path) -> Result<bool> {
    let context = || format!("read `{}`", file.display());
    let mut head = Vec::new();
    let file = fs::File::open(file).context(context)?;
    file.take(4).read_to_end(&mut head).context(context)?;
    Ok(head == b"PK\x03\x04")
}

/// The training that is written.
struct ExportedRun {
    /// Its settings; of a model from elsewhere those that its file does not state have their defaults, and are not written.
    train: Train,
    /// What a file from elsewhere states.
    stated: Option<RunSettings>,
    /// Updates of the average, if there is one.
    average_updates: Option<u64>,
    /// Whether the decay of the average is the same at every update.
    is_decay_constant: bool,
    /// The learning rate of the next update, and where its cosine ends if it has one.
    rates: RateState,
    /// The class that makes the learning rate's schedule in the authors' settings, where the kind is known.
    schedule: Option<&'static str>,
}

/// The class of a kind of schedule in the authors' settings (`configs/lr_scheduler`).
fn schedule_class(kind: &str) -> Option<&'static str> {
    match kind {
        "constant" => Some("transformers.get_constant_schedule_with_warmup"),
        "cosine" => Some("utils.CosineDecayWarmupLRScheduler"),
        _ => None,
    }
}

impl ExportedRun {
    /// The training of a model.
    ///
    /// # Errors
    /// Input error: the file that the model comes from has no moments of AdamW.
    fn of(model: &FinishedModel<'_>) -> Result<Self> {
        if let Stage::Train(train) = &model.planned.stage {
            return Ok(Self {
                train: train.clone(),
                stated: None,
                average_updates: Some(train.steps),
                is_decay_constant: false,
                rates: RateState {
                    next_rate: Some(rate_after(train, train.steps)),
                    cosine_end: (train.schedule == LearningRateSchedule::Cosine)
                        .then_some(train.steps as f64),
                    cosine_floor: None,
                },
                schedule: schedule_class(match train.schedule {
                    LearningRateSchedule::Constant => "constant",
                    LearningRateSchedule::Cosine => "cosine",
                }),
            });
        }
        let run = model.info.run(&model.folder).map_err(|reason| {
            Error::input(format!("it has no moments of AdamW to resume from: {reason}")).hint(
                "export it with `--to hf`, which needs none, or fine-tune it in a train stage whose `init` names it, and export that",
            )
        })?;
        let mut fields = serde_json::to_value(run.settings)
            .map_err(|error| Error::internal(format!("write settings: {error}")))?;
        // Whole numbers there.
        for count in ["batch", "warmup_steps"] {
            if let Some(number) = fields[count].as_f64() {
                fields[count] = (number as u64).into();
            }
        }
        fields["from"] = "".into();
        fields["shape"] = model.shape.name.into();
        fields["steps"] = run.step.into();
        if run.has_average && run.settings.ema.is_none() {
            return Err(
                Error::input("the file that it comes from does not state the decay of its average")
                    .hint("export it with `--to hf`, which needs none"),
            );
        }
        Ok(Self {
            train: serde_json::from_value(fields)
                .map_err(|error| Error::internal(format!("read settings: {error}")))?,
            stated: Some(run.settings),
            average_updates: run.has_average.then(|| run.average_updates.unwrap_or(run.step)),
            is_decay_constant: run.is_decay_constant,
            rates: run.rates,
            schedule: run.schedule.as_deref().and_then(schedule_class),
        })
    }

    /// Whether a setting is written: all of a train stage's, and those that a file from elsewhere states.
    fn states(&self, setting: impl Fn(&RunSettings) -> Option<f64>) -> bool {
        self.stated
            .as_ref()
            .is_none_or(|stated| setting(stated).is_some())
    }
}

/// The value of the file, without the elements of its tensors.
fn contents(model: &FinishedModel<'_>, run: &ExportedRun, tensors: &[NetworkTensor]) -> Result<TorchItem> {
    let train = &run.train;
    let tensor = |dims: &[usize]| TorchItem::Tensor(TorchDtype::F32, dims.to_vec());
    let state = tensors
        .iter()
        .map(|own| TorchItem::named(&own.name, tensor(&own.dims)));
    let dims: Vec<_> = (tensors.iter())
        .filter(|own| own.range.is_some())
        .map(|own| tensor(&own.dims))
        .collect();
    let moments = dims.iter().enumerate().map(|(index, dims)| {
        let state = vec![
            TorchItem::named("step", tensor(&[])),
            TorchItem::named("exp_avg", dims.clone()),
            TorchItem::named("exp_avg_sq", dims.clone()),
        ];
        (int(index as u64), TorchItem::Dict(state))
    });
    let steps = train.steps;
    let rate = run.rates.next_rate.unwrap_or(train.learning_rate);
    let optimizer = dict(vec![
        ("state", TorchItem::Dict(moments.collect())),
        (
            "param_groups",
            TorchItem::List(vec![group(train, rate, dims.len())]),
        ),
    ]);
    let settings = hyper_parameters(model, run)?;
    let mut entries = vec![
        ("epoch", int(0)),
        ("global_step", int(steps)),
        ("pytorch-lightning_version", text(LIGHTNING)),
        ("state_dict", TorchItem::OrderedDict(state.collect())),
        ("loops", loops(steps)),
        ("callbacks", dict(vec![])),
        ("optimizer_states", TorchItem::List(vec![optimizer])),
        ("lr_schedulers", TorchItem::List(vec![schedule(run, rate)])),
        ("hparams_name", text("kwargs")),
        ("hyper_parameters", dict(vec![("config", settings)])),
        ("sampler", dict(vec![("random_state", TorchItem::None)])),
    ];
    // Last, as its values are.
    if let Some(updates) = run.average_updates {
        let average = dict(vec![
            ("decay", TorchItem::Float(train.ema)),
            (
                "num_updates",
                if run.is_decay_constant {
                    TorchItem::None
                } else {
                    int(updates)
                },
            ),
            ("shadow_params", TorchItem::List(dims)),
            ("collected_params", TorchItem::List(vec![])),
        ]);
        entries.push(("ema", average));
    }
    Ok(dict(entries))
}

fn dict(entries: Vec<(&str, TorchItem)>) -> TorchItem {
    let named = |(name, item)| TorchItem::named(name, item);
    TorchItem::Dict(entries.into_iter().map(named).collect())
}

fn int(number: u64) -> TorchItem {
    TorchItem::Int(number as i64)
}

fn text(text: &str) -> TorchItem {
    TorchItem::Text(text.to_owned())
}

/// The learning rate of the update after `steps`.
fn rate_after(train: &Train, steps: u64) -> f64 {
    learning_rate(
        steps + 1,
        train.learning_rate,
        (train.warmup_steps, train.warmup_rates),
        train.steps,
        train.schedule,
    )
}

/// AdamW's settings for all parameters, as `torch.optim.AdamW` has them.
fn group(train: &Train, rate: f64, count: usize) -> TorchItem {
    let betas = vec![TorchItem::Float(train.beta1), TorchItem::Float(train.beta2)];
    dict(vec![
        ("lr", TorchItem::Float(rate)),
        ("betas", TorchItem::Tuple(betas)),
        ("eps", TorchItem::Float(train.epsilon)),
        ("weight_decay", TorchItem::Float(train.weight_decay)),
        ("amsgrad", TorchItem::Bool(false)),
        ("foreach", TorchItem::None),
        ("maximize", TorchItem::Bool(false)),
        ("capturable", TorchItem::Bool(false)),
        ("differentiable", TorchItem::Bool(false)),
        ("fused", TorchItem::None),
        ("initial_lr", TorchItem::Float(train.learning_rate)),
        (
            "params",
            TorchItem::List((0..count).map(|index| int(index as u64)).collect()),
        ),
    ])
}

/// The state of a `torch.optim.lr_scheduler.LambdaLR` after all updates. Its function is not in the file.
///
/// Of a cosine it is that of the authors' `CosineDecayWarmupLRScheduler` too, which loads its fields: a rise from 0 over
/// `warmup_t` updates, then a half cosine over `t_initial`.
fn schedule(run: &ExportedRun, rate: f64) -> TorchItem {
    let train = &run.train;
    let rates = || TorchItem::List(vec![TorchItem::Float(train.learning_rate)]);
    let mut entries = vec![
        ("base_lrs", rates()),
        ("last_epoch", int(train.steps)),
        ("verbose", TorchItem::Bool(false)),
        ("_step_count", int(train.steps + 1)),
        ("_get_lr_called_within_step", TorchItem::Bool(false)),
        ("_last_lr", TorchItem::List(vec![TorchItem::Float(rate)])),
    ];
    entries.extend(match run.rates.cosine_end {
        None => vec![("lr_lambdas", TorchItem::List(vec![TorchItem::None]))],
        Some(end) => vec![
            ("_last_epoch", int(train.steps)),
            ("base_values", rates()),
            ("t_in_epochs", TorchItem::Bool(false)),
            ("t_initial", TorchItem::Float(end - train.warmup_steps as f64)),
            ("lr_min", TorchItem::Float(run.rates.cosine_floor.unwrap_or(0.0))),
            ("warmup_t", int(train.warmup_steps)),
            ("warmup_lr_init", TorchItem::Float(0.0)),
            (
                "warmup_steps",
                TorchItem::List(vec![TorchItem::Float(
                    train.learning_rate / train.warmup_steps.max(1) as f64,
                )]),
            ),
            ("warmup_prefix", TorchItem::Bool(true)),
        ],
    });
    dict(entries)
}

/// Lightning's counters: `steps` updates are done, of which the pass that begins has none.
fn loops(steps: u64) -> TorchItem {
    const BATCH: [&str; 4] = ["ready", "completed", "started", "processed"];
    const RESET: [&str; 3] = ["ready", "completed", "started"];
    const STEP: [&str; 2] = ["ready", "completed"];
    let counted = |names: &[&str], count: u64| dict(names.iter().map(|name| (*name, int(count))).collect());
    let progress =
        |names: &[&str], total: u64| vec![("total", counted(names, total)), ("current", counted(names, 0))];
    let batches = |total| {
        let mut entries = progress(&BATCH, total);
        entries.push(("is_last_batch", TorchItem::Bool(false)));
        dict(entries)
    };
    let nothing = || dict(vec![]);
    let optimizer = dict(vec![
        ("step", dict(progress(&STEP, steps))),
        ("zero_grad", dict(progress(&RESET, steps))),
    ]);
    let fit = dict(vec![
        ("state_dict", nothing()),
        (
            "epoch_loop.state_dict",
            dict(vec![("_batches_that_stepped", int(steps))]),
        ),
        ("epoch_loop.batch_progress", batches(steps)),
        ("epoch_loop.scheduler_progress", dict(progress(&STEP, steps))),
        ("epoch_loop.automatic_optimization.state_dict", nothing()),
        (
            "epoch_loop.automatic_optimization.optim_progress",
            dict(vec![("optimizer", optimizer)]),
        ),
        ("epoch_loop.manual_optimization.state_dict", nothing()),
        (
            "epoch_loop.manual_optimization.optim_step_progress",
            dict(progress(&STEP, 0)),
        ),
        ("epoch_loop.val_loop.state_dict", nothing()),
        ("epoch_loop.val_loop.batch_progress", batches(0)),
        ("epoch_progress", dict(progress(&BATCH, 0))),
    ]);
    let waiting = dict(vec![
        ("state_dict", nothing()),
        ("batch_progress", dict(progress(&BATCH, 0))),
    ]);
    let idle = || dict(vec![("state_dict", nothing()), ("batch_progress", batches(0))]);
    dict(vec![
        ("fit_loop", fit),
        ("validate_loop", idle()),
        ("test_loop", idle()),
        ("predict_loop", waiting),
    ])
}

/// The settings under the names of the authors' configuration, and the objective as a manifest has it.
fn hyper_parameters(model: &FinishedModel<'_>, run: &ExportedRun) -> Result<TorchItem> {
    let train = &run.train;
    let Shape {
        length,
        width,
        heads,
        blocks,
        conditioning,
        ..
    } = *model.shape;
    let objective = &model.info.objective;
    let (flag, float) = (TorchItem::Bool, TorchItem::Float);
    let stated = serde_json::to_value(objective)
        .map_err(|error| Error::internal(format!("write the objective: {error}")))?;
    let own = of_authors(objective);
    let mut network = vec![
        ("type", text("ddit")),
        ("hidden_size", int(width as u64)),
        ("cond_dim", int(conditioning as u64)),
        ("length", int(length as u64)),
        ("n_blocks", int(blocks as u64)),
        ("n_heads", int(heads as u64)),
        ("scale_by_sigma", flag(true)),
        ("tie_word_embeddings", flag(false)),
    ];
    if run.states(|stated| stated.dropout) {
        network.push(("dropout", float(train.dropout)));
    }
    let mut training = vec![
        ("antithetic_sampling", flag(own.antithetic)),
        ("importance_sampling", flag(own.times == Some(Times::Importance))),
        ("sampling_eps", float(own.sampling_epsilon)),
        (
            "change_of_variables",
            flag(own.times == Some(Times::ChangeOfVariables)),
        ),
    ];
    if run.states(|stated| stated.ema) {
        training.push(("ema", float(train.ema)));
    }
    let mut config = vec![
        (
            "parameterization",
            own.parameterization.map_or(TorchItem::None, text),
        ),
        (
            "backbone",
            text(match objective.backbone() {
                Backbone::Dit => "dit",
                Backbone::Transformer => "ar",
            }),
        ),
        ("T", int(u64::from(objective.steps().unwrap_or(0)))),
        ("subs_masking", flag(own.is_masking)),
        ("time_conditioning", flag(objective.is_time_conditioned())),
        ("model", dict(network)),
        ("training", dict(training)),
        (
            "optim",
            dict(vec![
                ("weight_decay", float(train.weight_decay)),
                ("lr", float(train.learning_rate)),
                ("beta1", float(train.beta1)),
                ("beta2", float(train.beta2)),
                ("eps", float(train.epsilon)),
            ]),
        ),
        ("objective", plain(&stated)),
        // The network may have room for more tokens than the tokenizer has.
        ("tokenizer_vocab_size", int(u64::from(model.info.vocabulary))),
        ("mask_token_id", int(u64::from(model.info.special.mask))),
        ("mdlm_tokenizer_digest", text(&model.info.tokenizer_digest)),
    ];
    if run.states(|stated| stated.gradient_clip) {
        let clip = ("gradient_clip_val", float(train.gradient_clip));
        let steps = ("max_steps", int(train.steps));
        config.push(("trainer", dict(vec![clip, steps])));
    }
    if run.states(|stated| stated.batch) {
        let batch = ("global_batch_size", int(u64::from(train.batch)));
        config.push(("loader", dict(vec![batch])));
    }
    let mut scheduler = Vec::new();
    if let Some(class) = run.schedule {
        scheduler.push(("_target_", text(class)));
    }
    if run.states(|stated| stated.warmup_steps) {
        scheduler.push(("num_warmup_steps", int(train.warmup_steps)));
    }
    if !scheduler.is_empty() {
        config.push(("lr_scheduler", dict(scheduler)));
    }
    if let Some(noise) = objective.noise() {
        config.push(("noise", noise_of_authors(noise)));
    }
    Ok(dict(config))
}

/// What the authors' configuration has of an objective.
struct AuthorsObjective {
    parameterization: Option<&'static str>,
    /// `subs_masking`: D3PM's parameterization with zero masking, and without carry-over.
    is_masking: bool,
    antithetic: bool,
    sampling_epsilon: f64,
    times: Option<Times>,
}

fn of_authors(objective: &Objective) -> AuthorsObjective {
    let defaults = MdlmObjective::default();
    let (parameterization, antithetic, sampling_epsilon, times) = match objective {
        Objective::Mdlm(own) => {
            let name = if own.zero_masking && own.carry_over {
                "subs"
            } else {
                "d3pm"
            };
            (Some(name), own.antithetic, own.sampling_epsilon, Some(own.times))
        }
        Objective::Sedd(own) => (Some("sedd"), own.antithetic, own.sampling_epsilon, None),
        Objective::D3pm(own) => (Some("d3pm"), own.antithetic, defaults.sampling_epsilon, None),
        Objective::Ar(_) => (Some("ar"), defaults.antithetic, defaults.sampling_epsilon, None),
        // They have no such objective.
        Objective::Mlm(_) => (None, defaults.antithetic, defaults.sampling_epsilon, None),
    };
    AuthorsObjective {
        parameterization,
        is_masking: matches!(objective, Objective::Mdlm(own) if own.zero_masking && !own.carry_over),
        antithetic,
        sampling_epsilon,
        times,
    }
}

fn noise_of_authors(noise: &Noise) -> TorchItem {
    let (name, fields) = match noise {
        Noise::LogLinear(own) => ("loglinear", vec![("eps", own.epsilon)]),
        Noise::Cosine(own) => ("cosine", vec![("eps", own.epsilon)]),
        Noise::CosineSquared(own) => ("cosinesqr", vec![("eps", own.epsilon)]),
        Noise::Linear(own) => (
            "linear",
            vec![("sigma_min", own.sigma_min), ("sigma_max", own.sigma_max)],
        ),
        Noise::Geometric(own) => (
            "geometric",
            vec![("sigma_min", own.sigma_min), ("sigma_max", own.sigma_max)],
        ),
    };
    let mut entries = vec![("type", text(name))];
    entries.extend(
        fields
            .into_iter()
            .map(|(name, value)| (name, TorchItem::Float(value))),
    );
    dict(entries)
}

/// JSON as Python's own values.
fn plain(json: &serde_json::Value) -> TorchItem {
    use serde_json::Value;
    match json {
        Value::Null => TorchItem::None,
        Value::Bool(flag) => TorchItem::Bool(*flag),
        Value::Number(number) => match number.as_i64() {
            Some(number) => TorchItem::Int(number),
            None => TorchItem::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(string) => text(string),
        Value::Array(items) => TorchItem::List(items.iter().map(plain).collect()),
        Value::Object(fields) => {
            let named = |(name, value): (&String, &Value)| TorchItem::named(name, plain(value));
            TorchItem::Dict(fields.iter().map(named).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_to_lightning_names_objectives_as_the_authors_do() {
        for (objective, name, is_masking) in [
            (r#"{ "kind": "mdlm" }"#, Some("subs"), false),
            (r#"{ "kind": "mdlm", "steps": 9 }"#, Some("subs"), false),
            (
                r#"{ "kind": "mdlm", "steps": 9, "carry_over": false }"#,
                Some("d3pm"),
                true,
            ),
            (
                r#"{ "kind": "mdlm", "steps": 9, "carry_over": false, "zero_masking": false }"#,
                Some("d3pm"),
                false,
            ),
            (r#"{ "kind": "d3pm" }"#, Some("d3pm"), false),
            (r#"{ "kind": "ar" }"#, Some("ar"), false),
            (r#"{ "kind": "mlm" }"#, None, false),
        ] {
            let own = of_authors(&serde_json::from_str(objective).unwrap());
            assert_eq!(
                (own.parameterization, own.is_masking),
                (name, is_masking),
                "{objective}"
            );
        }
        assert!(schedule_class("cosine").is_some() && schedule_class("in steps").is_none());
    }
}
