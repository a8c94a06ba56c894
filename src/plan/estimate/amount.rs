//! How much a stage has to do, from its settings and from what is known of the stages that it consumes.
//!
//! | kind | the time grows with | same speed for |
//! |---|---|---|
//! | source | bytes of its files; records of a grammar | the sort of input |
//! | tokenize | bytes of text | the kind of tokenizer |
//! | pack | tokens | the form of rows |
//! | checkpoint | stages | the file |
//! | train | tokens of its steps, padding included | shape, objective, precision, with dropout or without |
//! | evaluate | tokens that go through the network: rows · draws · L | shape, objective, estimator |
//! | sample | tokens that go through the network: rows · network calls a row · L | shape, objective, sampler, further settings |
//! | judge | sampled rows | what is measured, the judge's shape, the shape of the sampled models |
//! | compare, table | results | the kind |
//!
//! A run takes longer than its network: it loads, validates, writes. Where the speed of the network alone is recorded, the rest
//! of a run's time is taken to occur once, or of a training once and with each validation, however many tokens there are.
//!
//! Operations are those of `model/flops.rs`. Of a stage that draws which positions it asks about, half of the positions of a row
//! are counted on average. Given tokens of a sample are counted as if they were drawn, and a text has as many tokens for its judge
//! as for the model that drew it. Where the model decides how often it is asked, neither tokens nor operations are stated.

use std::collections::HashMap;

use serde_json::json;

use crate::kernels::Pattern;
use crate::manifest::{
    Estimator, Objective, PerplexityVariant, Sample, Sampler, SourceInput, Split, Stage, StageKind,
    Tokenizer, compared_role, model_role,
};
use crate::model::flops::{BatchQueries, forward};
use crate::precision::Precision;
use crate::shapes::{Backbone, SHAPES, Shape};
use crate::train::cost::rough_flops_per_token;

/// What a stage has to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WorkAmount {
    /// What its time grows with, in the units of its kind.
    pub units: f64,
    /// How often what is not the network's work occurs: of a training its validations, and once more; else once.
    pub rounds: f64,
    /// Tokens that go through a network, or that a stage without a network reads.
    pub tokens: Option<f64>,
    /// Floating-point operations of the network.
    pub flops: Option<f64>,
    /// Bytes that are read.
    pub bytes: Option<u64>,
    /// Tokens by which the speed in a record of this amount counts: of a sample those of finished rows.
    pub recorded_tokens: Option<f64>,
    /// What stages of one kind have in common that take the same time for a unit.
    pub alike: String,
    /// The shape of the network, where one is computed.
    pub shape: Option<&'static str>,
}

/// What is known of a consumed stage.
#[derive(Clone, Debug)]
pub(super) struct ConsumedStage {
    /// The field that names it.
    pub role: String,
    /// Its settings.
    pub stage: Stage,
    /// The figure of that name of its run, or of its last one.
    pub figures: HashMap<String, f64>,
    /// Bytes of the files outside the store that it reads.
    pub bytes: Option<u64>,
}

/// What the amount of a stage depends on.
pub(super) struct WorkSubject<'a> {
    /// Its settings.
    pub stage: &'a Stage,
    /// The stages that it consumes.
    pub inputs: &'a [ConsumedStage],
    /// Bytes of the files outside the store that it reads.
    pub bytes: Option<u64>,
    /// Of a training, the step that it begins after.
    pub from_step: u64,
    /// Of a sample, its rows: those of all given texts. Nothing where they are not counted.
    pub rows: Option<f64>,
}

/// Operations of a training step for each token, as they are asked for again and again in a sweep.
#[derive(Debug, Default)]
pub(super) struct OperationCosts {
    training: HashMap<(&'static str, String), f64>,
}

impl OperationCosts {
    pub fn training(&mut self, shape: &'static Shape, objective: &Objective) -> f64 {
        let key = (shape.name, json!(objective).to_string());
        let cost = self.training.entry(key);
        *cost.or_insert_with(|| rough_flops_per_token(shape, objective))
    }

    /// Of an evaluation, for each token that goes through the network.
    pub fn evaluation(&mut self, shape: &'static Shape, objective: &Objective, estimator: Estimator) -> f64 {
        match estimator {
            // Noise and passes are those of training, without the backward pass, which is two thirds of it.
            Estimator::Time | Estimator::Exact => self.training(shape, objective) / 3.0,
            // The masked number is uniform.
            Estimator::Count => forward_per_token(shape, objective, shape.length.div_ceil(2)),
            Estimator::Pseudo => forward_per_token(shape, objective, 1),
        }
    }
}

impl WorkSubject<'_> {
    fn input(&self, role: &str) -> Option<&ConsumedStage> {
        self.inputs.iter().find(|input| input.role == role)
    }

    fn figure(&self, role: &str, name: &str) -> Option<f64> {
        self.input(role)?.figures.get(name).copied()
    }

    /// Shape and objective of the model in an input.
    fn model(&self, role: &str) -> Option<(&'static Shape, Objective)> {
        model_of(&self.input(role)?.stage)
    }

    /// What the stage has to do; nothing where that is not known before its inputs are made.
    pub fn amount(&self, costs: &mut OperationCosts) -> Option<WorkAmount> {
        let plain = |units: f64, alike: String| WorkAmount {
            units,
            rounds: 1.0,
            tokens: None,
            flops: None,
            bytes: None,
            recorded_tokens: None,
            alike,
            shape: None,
        };
        match self.stage {
            Stage::Source(source) => match &source.input {
                SourceInput::Synthetic(input) => Some(plain(input.records as f64, "grammar".to_owned())),
                SourceInput::Files(_) => {
                    let bytes = self.bytes?;
                    Some(WorkAmount {
                        bytes: Some(bytes),
                        ..plain(bytes as f64, "files".to_owned())
                    })
                }
                // A network's speed is not this machine's.
                SourceInput::Download(_) | SourceInput::Corpus(_) => None,
            },
            Stage::Tokenize(tokenize) => {
                let bytes = self.figure("from", "bytes").or_else(|| {
                    let source = self.input("from")?;
                    let is_plain = matches!(&source.stage, Stage::Source(source)
                        if matches!(source.input, SourceInput::Files(_)));
                    source.bytes.filter(|_| is_plain).map(|bytes| bytes as f64)
                })?;
                let kind = json!(tokenize.tokenizer);
                let trains = matches!(
                    tokenize.tokenizer,
                    Tokenizer::TrainBpe(_) | Tokenizer::TrainWordpiece(_)
                );
                Some(WorkAmount {
                    bytes: Some(bytes as u64),
                    ..plain(
                        bytes,
                        format!("{} {}", kind["kind"].as_str().unwrap_or_default(), trains),
                    )
                })
            }
            Stage::Pack(pack) => {
                let tokens = self.figure("from", "tokens")?;
                Some(WorkAmount {
                    tokens: Some(tokens),
                    ..plain(tokens, format!("wrap {}", pack.wrap))
                })
            }
            Stage::Checkpoint(checkpoint) => Some(plain(1.0, checkpoint.file.clone())),
            Stage::Train(train) => {
                let shape = SHAPES.find(&train.shape)?;
                let steps = train.steps.saturating_sub(self.from_step) as f64;
                // One at the end, and every so many steps before it.
                let validations = match train.validation_every {
                    0 => 1.0,
                    every => (steps / every as f64).ceil(),
                };
                let tokens = steps * f64::from(train.batch) * shape.length as f64;
                Some(WorkAmount {
                    units: tokens,
                    rounds: 1.0 + validations,
                    tokens: Some(tokens),
                    flops: Some(tokens * costs.training(shape, &train.objective)),
                    bytes: None,
                    recorded_tokens: Some(tokens),
                    alike: training(shape, &train.objective, train.precision, train.dropout > 0.0),
                    shape: Some(shape.name),
                })
            }
            Stage::Evaluate(evaluate) => {
                let (shape, objective) = self.model("model")?;
                let split = match evaluate.split {
                    Split::Train => "train rows",
                    Split::Validation => "validation rows",
                };
                let all = self.figure("data", split);
                let limit = evaluate.rows.map(|limit| limit as f64);
                // Of rows that are not counted yet, there may be fewer.
                let rows = all.into_iter().chain(limit).reduce(f64::min)?;
                let estimator = evaluate.estimator.unwrap_or_else(|| objective.estimators()[0]);
                let passes = match estimator {
                    Estimator::Time | Estimator::Count => f64::from(evaluate.draws),
                    Estimator::Exact => 1.0,
                    Estimator::Pseudo => shape.length as f64,
                };
                let tokens = rows * passes * shape.length as f64;
                Some(WorkAmount {
                    units: tokens,
                    rounds: 1.0,
                    tokens: Some(tokens),
                    flops: Some(tokens * costs.evaluation(shape, &objective, estimator)),
                    bytes: None,
                    // A pass for each position counts once.
                    recorded_tokens: Some(match estimator {
                        Estimator::Pseudo => tokens / passes,
                        Estimator::Time | Estimator::Count | Estimator::Exact => tokens,
                    }),
                    alike: evaluation(shape, &objective, estimator),
                    shape: Some(shape.name),
                })
            }
            Stage::Sample(sample) => {
                let (shape, objective) = self.model("model")?;
                let sampler = sample.sampler.unwrap_or(objective.samplers()[0]);
                let counted = f64::from(sample.count);
                let rows = self.rows.or_else(|| sample.given.is_none().then_some(counted))?;
                let text = DrawnText::of(sample, &objective, &sampler, shape.length);
                let units = rows * text.calls * shape.length as f64;
                let tokens = text.is_certain.then_some(units);
                let further = sample.further_settings();
                let further = if further.is_empty() {
                    String::new()
                } else {
                    json!(further).to_string()
                };
                Some(WorkAmount {
                    units,
                    rounds: 1.0,
                    tokens,
                    flops: tokens.map(|tokens| tokens * drawing_per_token(shape, &objective)),
                    bytes: None,
                    recorded_tokens: text.length.map(|length| rows * length),
                    alike: sampling(shape, &objective, &sampler, &further),
                    shape: Some(shape.name),
                })
            }
            Stage::Judge(judge) => {
                let by_role: HashMap<&str, &ConsumedStage> = self
                    .inputs
                    .iter()
                    .map(|input| (input.role.as_str(), input))
                    .collect();
                let mut rows = 0.0;
                let mut length = 0;
                let mut tokens = Some(0.0);
                for index in 0..judge.of.len() {
                    let input = by_role.get(compared_role(index)?)?;
                    let Stage::Sample(sample) = &input.stage else {
                        return None;
                    };
                    let counted = f64::from(sample.count);
                    let drawn = match sample.given {
                        None => counted,
                        Some(_) => input.figures.get("rows").copied()?,
                    };
                    let (shape, objective) = model_of(&by_role.get(model_role(index)?)?.stage)?;
                    let sampler = sample.sampler.unwrap_or(objective.samplers()[0]);
                    let text = DrawnText::of(sample, &objective, &sampler, shape.length);
                    rows += drawn;
                    length = length.max(shape.length);
                    tokens = tokens.zip(text.length).map(|(sum, length)| sum + drawn * length);
                }
                let network = self.model("model").filter(|_| judge.model.is_some());
                // Windows that overlap by half.
                let passes = match judge.variant {
                    PerplexityVariant::Bd3lms => 2.0,
                    PerplexityVariant::Mdlm | PerplexityVariant::Plain => 1.0,
                };
                let tokens = network.and(tokens).map(|tokens| tokens * passes);
                let measured = json!([
                    network.map(|(shape, _)| shape.name),
                    judge.variant,
                    judge.grammar.as_ref().map(|_| judge.reference_records),
                    judge.training.is_some(),
                    length,
                ]);
                Some(WorkAmount {
                    units: rows,
                    rounds: 1.0,
                    tokens,
                    flops: network.zip(tokens).map(|((shape, objective), tokens)| {
                        tokens * costs.evaluation(shape, &objective, objective.estimators()[0])
                    }),
                    bytes: None,
                    recorded_tokens: None,
                    alike: measured.to_string(),
                    shape: network.map(|(shape, _)| shape.name),
                })
            }
            Stage::Compare(compare) => Some(plain(compare.of.len() as f64, String::new())),
            Stage::Table(table) => Some(plain(table.of.len() as f64, String::new())),
        }
    }
}

/// The amount of a row that goes through a network.
pub(super) fn of_row(shape: &Shape, tokens: f64, flops: f64, alike: String) -> WorkAmount {
    WorkAmount {
        units: tokens,
        rounds: 0.0,
        tokens: Some(tokens),
        flops: Some(flops),
        bytes: None,
        recorded_tokens: None,
        alike,
        shape: Some(shape.name),
    }
}

/// Shape and objective of the model that a stage makes.
pub(super) fn model_of(stage: &Stage) -> Option<(&'static Shape, Objective)> {
    match stage {
        Stage::Train(train) => Some((SHAPES.find(&train.shape)?, train.objective)),
        Stage::Checkpoint(checkpoint) => Some((
            SHAPES.find(&checkpoint.shape)?,
            checkpoint.objective.unwrap_or_default(),
        )),
        _ => None,
    }
}

/// What trainings have in common that take the same time for a token.
pub(super) fn training(shape: &Shape, objective: &Objective, precision: Precision, dropout: bool) -> String {
    json!([shape.name, objective, precision, dropout]).to_string()
}

/// What evaluations have in common that take the same time for a token.
pub(super) fn evaluation(shape: &Shape, objective: &Objective, estimator: Estimator) -> String {
    json!([shape.name, objective, estimator]).to_string()
}

/// What stages that sample have in common which take the same time for a token that goes through the network.
pub(super) fn sampling(shape: &Shape, objective: &Objective, sampler: &Sampler, further: &str) -> String {
    json!([shape.name, objective, sampler, further]).to_string()
}

/// What it takes to draw a text.
struct DrawnText {
    /// Passes of rows through the network.
    calls: f64,
    /// Whether they do not depend on what the model draws.
    is_certain: bool,
    /// Tokens of the finished text; nothing where the model decides.
    length: Option<f64>,
}

impl DrawnText {
    /// A text of a sample whose model has rows of `length` tokens.
    fn of(sample: &Sample, objective: &Objective, sampler: &Sampler, length: usize) -> Self {
        let mut text = Self {
            calls: 0.0,
            is_certain: !matches!(sampler, Sampler::Threshold(_)),
            length: Some(length as f64),
        };
        if let Sampler::SemiAutoregressive(windows) = sampler {
            let window = objective.window_sampler(windows);
            let tokens = windows.length.or(windows.max_length).unwrap_or(length as u32);
            let stride = windows.stride.map_or(length / 2, |stride| stride as usize).max(1);
            let further = (tokens as usize).saturating_sub(length).div_ceil(stride);
            let steps = windows.window_steps.unwrap_or(sample.steps);
            text.calls = network_calls(objective, &window, sample.steps, length)
                + further as f64 * network_calls(objective, &window, steps, stride);
            text.length = windows.until.is_none().then_some(f64::from(tokens));
            text.is_certain = windows.until.is_none();
        } else {
            text.calls = network_calls(objective, sampler, sample.steps, length);
        }
        // With the given tokens, and without them.
        if sample.guidance.is_some_and(|guidance| guidance != 0.0) {
            text.calls *= 2.0;
        }
        text
    }
}

/// Passes of a row through the network in which `drawn` positions are drawn, on average. Of T reverse steps, a sampler that keeps
/// what the network answered asks in those in which a position is drawn: T · (1 − (1 − 1/T)^L) of them for L positions, each of
/// which takes any step alike.
pub(super) fn network_calls(objective: &Objective, sampler: &Sampler, steps: u32, drawn: usize) -> f64 {
    let most = f64::from(objective.network_calls(sampler, steps, drawn as u32));
    let (t, l) = (f64::from(steps.max(1)), drawn as f64);
    match sampler {
        // Scores of `sedd` decide what a step unmasks.
        Sampler::Analytic(_) | Sampler::Euler(_) if matches!(objective, Objective::Sedd(_)) => most,
        Sampler::Cached(_) | Sampler::Analytic(_) | Sampler::Euler(_) => t * (1.0 - (1.0 - 1.0 / t).powf(l)),
        // With keys and values kept, a position a step: together one pass.
        Sampler::Autoregressive(_) => 1.0,
        _ => most,
    }
}

/// Operations of a forward pass of a row for each of its tokens, half of which are asked about; of the plain transformer all.
pub(super) fn drawing_per_token(shape: &Shape, objective: &Objective) -> f64 {
    match objective.backbone() {
        Backbone::Dit => forward_per_token(shape, objective, shape.length.div_ceil(2)),
        Backbone::Transformer => forward_per_token(shape, objective, shape.length),
    }
}

/// Operations of a forward pass of a row for each of its tokens, the first `asked` of which are asked about.
fn forward_per_token(shape: &Shape, objective: &Objective, asked: usize) -> f64 {
    let backbone = objective.backbone();
    let positions: Vec<u32> = (0..asked as u32).collect();
    let asked = BatchQueries {
        rows: 1,
        levels: usize::from(objective.is_time_conditioned()),
        positions: &positions,
        pattern: match backbone {
            Backbone::Dit => Pattern::Full,
            Backbone::Transformer => Pattern::Causal,
        },
    };
    forward(shape, backbone, &asked) as f64 / shape.length as f64
}

/// The kinds whose operations a second stand in for those of a kind, nearest first.
pub(super) fn stand_ins(kind: StageKind) -> &'static [StageKind] {
    match kind {
        StageKind::Train => &[StageKind::Train],
        StageKind::Evaluate | StageKind::Judge => &[StageKind::Evaluate, StageKind::Train],
        StageKind::Sample => &[StageKind::Sample],
        _ => &[],
    }
}
