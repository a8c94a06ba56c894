//! What a training begins with, where it names a model: its weights, or its training.

use std::path::Path;

use crate::error::{Error, Result};
use crate::manifest::{LearningRateSchedule, Train, WarmupRates};
use crate::model;
use crate::plural::counted;
use crate::stages::Context;
use crate::stages::trained::ModelInfo;
use crate::train::checkpoint::EMA;
use crate::train::{ema_decay, learning_rate};
use crate::weights::import::not_finite;
use crate::weights::import::run::{RateState, RunState};

/// The averaged weights of the model that a training starts from.
///
/// # Errors
/// The model has another shape, network or tokenizer, or its weights cannot be read.
pub(super) fn weights(artifact: &Path, config: &Train, own: &ModelInfo) -> Result<Vec<f32>> {
    check_model(artifact, config, own)?;
    let (shape, backbone) = (own.shape()?, own.objective.backbone());
    let values = crate::weights::read(&artifact.join(EMA), shape, backbone)?;
    let parameters = model::parameters(shape, backbone);
    if let Some((tensor, count)) = not_finite(&parameters, &values).first() {
        let name = config.init.as_deref().unwrap_or_default();
        return Err(Error::input(format!(
            "`init` names `{name}`, whose tensor `{tensor}` is NaN or infinite in {}",
            counted(*count, "value")
        ))
        .hint("name a model with finite weights: `mdlm checkpoint FILE` lists the tensors with others"));
    }
    Ok(values)
}

/// Whether a training may continue that of the model in a folder.
///
/// # Errors
/// The model lacks the state, has made as many steps already, or was trained with another optimizer.
pub(super) fn check_run(artifact: &Path, config: &Train, context: &Context<'_>) -> Result<()> {
    const NEW: &str = "leave `continue` out: a new training then begins with its averaged weights";
    let name = config.init.as_deref().unwrap_or_default();
    let model = ModelInfo::open(artifact)?;
    let run = model.run(artifact).map_err(|reason| {
        Error::input(format!("the training of `{name}` cannot be continued: {reason}")).hint(NEW)
    })?;
    if config.steps <= run.step {
        return Err(Error::input(format!(
            "`{name}` is at step {}, and `steps` is {}",
            run.step, config.steps
        ))
        .hint("set `steps` to those of the whole training: the ones of the model count"));
    }
    let stated = run.settings;
    for (field, theirs, ours) in [
        ("beta1", stated.beta1, config.beta1),
        ("beta2", stated.beta2, config.beta2),
        ("epsilon", stated.epsilon, config.epsilon),
        ("weight_decay", stated.weight_decay, config.weight_decay),
        // Without an average there is no decay to keep.
        ("ema", stated.ema.filter(|_| run.has_average), config.ema),
    ] {
        if let Some(theirs) = theirs.filter(|theirs| *theirs != ours) {
            return Err(Error::input(format!(
                "`{field}` is {theirs} in the training of `{name}`, but {ours} in this stage, which continues it"
            ))
            .hint(format!("set `\"{field}\": {theirs}`, or {NEW}")));
        }
    }
    let (theirs, ours) = (&model.objective, &config.objective);
    if theirs.kind() != ours.kind() {
        return Err(Error::input(format!(
            "the objective of `{name}` is `{}`, but `{}` in this stage, which continues its training",
            theirs.kind(),
            ours.kind()
        ))
        .hint(NEW));
    }
    if theirs != ours {
        context.warn(format!(
            "settings of the objective `{}` are other ones from step {} on than in the training of `{name}`",
            ours.kind(),
            run.step
        ));
    }
    if !run.has_average && config.ema != 0.0 {
        return Err(Error::input(format!(
            "`{name}` has no average of its weights to continue, and `ema` is {}",
            config.ema
        ))
        .hint(format!(
            "if `{name}` states `weights`, leave it out, so that its average is kept; else set `\"ema\": 0`"
        )));
    }
    let decay = |updates| ema_decay(updates + 1, config.ema);
    if let Some(updates) = run.average_updates.filter(|_| run.has_average)
        && decay(updates) != decay(run.step)
    {
        return Err(Error::input(format!(
            "`{name}` is at step {}, but its average has {}: its decay would be another one",
            run.step,
            counted(updates, "update")
        ))
        .hint(NEW));
    }
    if run.is_decay_constant && run.has_average && decay(run.step) != config.ema {
        return Err(Error::input(format!(
            "the decay of the average of `{name}` is {} at every step, and here it would rise to it: it is {} at step {}",
            config.ema,
            decay(run.step),
            run.step + 1
        ))
        .hint(NEW));
    }
    warn_of_rates(&run, config, context);
    Ok(())
}

/// Warns where the learning rates of a training from elsewhere go on otherwise.
fn warn_of_rates(run: &RunState, config: &Train, context: &Context<'_>) {
    let name = config.init.as_deref().unwrap_or_default();
    let stated = run.settings;
    let schedule = serde_json::to_value(config.schedule);
    let schedule = schedule
        .unwrap_or_default()
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if let Some(theirs) = run.schedule.as_ref().filter(|theirs| **theirs != schedule) {
        context.warn(format!(
            "`schedule` is {theirs} in the training of `{name}`, and {schedule} from step {} on",
            run.step
        ));
    }
    for (field, theirs, ours) in [
        ("learning_rate", stated.learning_rate, config.learning_rate),
        ("gradient_clip", stated.gradient_clip, config.gradient_clip),
        ("dropout", stated.dropout, config.dropout),
        ("batch", stated.batch, f64::from(config.batch)),
        ("warmup_steps", stated.warmup_steps, config.warmup_steps as f64),
    ] {
        if let Some(theirs) = theirs.filter(|theirs| *theirs != ours) {
            context.warn(format!(
                "`{field}` is {theirs} in the training of `{name}`, and {ours} from step {} on",
                run.step
            ));
        }
    }
    let RateState {
        next_rate,
        cosine_end,
        cosine_floor,
    } = run.rates;
    if config.schedule == LearningRateSchedule::Cosine {
        if let Some(end) = cosine_end.filter(|end| *end != config.steps as f64) {
            context.warn(format!(
                "the cosine of the learning rate ends at step {end} in the training of `{name}`, and at step {} (`steps`) in \
                 this stage",
                config.steps
            ));
        }
        if let Some(floor) = cosine_floor.filter(|floor| *floor != 0.0) {
            context.warn(format!(
                "the cosine of the learning rate falls to {floor} in the training of `{name}`, and to 0 in this stage"
            ));
        }
    }
    let next = run.step + 1;
    let rate = |rates| {
        let warmup = (config.warmup_steps, rates);
        learning_rate(next, config.learning_rate, warmup, config.steps, config.schedule)
    };
    // 1e-6 of the largest rate: PyTorch computes a cosine from the rate before it.
    let is_same = |theirs: f64, ours: f64| (theirs - ours).abs() <= 1e-6 * theirs.max(config.learning_rate);
    let ours = rate(config.warmup_rates);
    if let Some(theirs) = next_rate.filter(|theirs| !is_same(*theirs, ours)) {
        let is_published = is_same(theirs, rate(WarmupRates::Published));
        let way_out = if is_published {
            "; `\"warmup_rates\": \"published\"` gives its rate"
        } else {
            ""
        };
        context.warn(format!(
            "the learning rate of step {next} is {theirs} in the training of `{name}`, and {ours} in this stage{way_out}"
        ));
    }
}

/// Whether a training may begin with the model in a folder.
///
/// # Errors
/// The model has another shape, network or tokenizer.
pub(super) fn check_model(artifact: &Path, config: &Train, own: &ModelInfo) -> Result<()> {
    let model = ModelInfo::open(artifact)?;
    let name = config.init.as_deref().unwrap_or_default();
    let (shape, backbone) = (own.shape()?, own.objective.backbone());
    if model.shape()? != shape {
        return Err(Error::input(format!(
            "`init` names `{name}` of shape `{}`, but this training has shape `{}`",
            model.shape, own.shape
        ))
        .hint(format!("set `\"shape\": \"{}\"`", model.shape)));
    }
    let other = model.objective.backbone();
    if other != backbone {
        return Err(Error::input(format!(
            "`init` names `{name}`, a {other} (objective `{}`), but objective `{}` trains a {backbone}",
            model.objective.kind(),
            own.objective.kind()
        ))
        .hint("name a model of the same kind of network, or leave `init` out"));
    }
    if model.tokenizer_digest != own.tokenizer_digest {
        return Err(Error::input(format!(
            "the rows were tokenized with another tokenizer than that of `{name}`, which `init` names"
        ))
        .hint(
            "tokenize them with `\"tokenizer\": {\"kind\": \"stage\", \"stage\": …}` naming the tokenize stage of the model",
        ));
    }
    Ok(())
}
