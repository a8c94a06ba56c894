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
//! Operations are those of `model/flops.rs`. Of a stage that draws which positions it asks about, half of the positions of a row
//! are counted on average.

use std::collections::HashMap;

use serde_json::json;

use crate::kernels::Pattern;
use crate::manifest::{Estimator, Objective, Sampler, SourceInput, Split, Stage, StageKind, Tokenizer};
use crate::model::flops::{BatchQueries, forward};
use crate::precision::Precision;
use crate::shapes::{Backbone, SHAPES, Shape};
use crate::train::cost::rough_flops_per_token;

/// What a stage has to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WorkAmount {
    /// What its time grows with, in the units of its kind.
    pub units: f64,
    /// Tokens that go through a network, or that a stage without a network reads.
    pub tokens: Option<f64>,
    /// Floating-point operations of the network.
    pub flops: Option<f64>,
    /// Bytes that are read.
    pub bytes: Option<u64>,
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
    /// What it has to do itself, where it has not run.
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
            tokens: None,
            flops: None,
            bytes: None,
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
                let tokens = steps * f64::from(train.batch) * shape.length as f64;
                Some(WorkAmount {
                    units: tokens,
                    tokens: Some(tokens),
                    flops: Some(tokens * costs.training(shape, &train.objective)),
                    bytes: None,
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
                let all = self.figure("data", split)?;
                let rows = evaluate.rows.map_or(all, |limit| all.min(limit as f64));
                let estimator = evaluate.estimator.unwrap_or_else(|| objective.estimators()[0]);
                let passes = match estimator {
                    Estimator::Time | Estimator::Count => f64::from(evaluate.draws),
                    Estimator::Exact => 1.0,
                    Estimator::Pseudo => shape.length as f64,
                };
                let tokens = rows * passes * shape.length as f64;
                Some(WorkAmount {
                    units: tokens,
                    tokens: Some(tokens),
                    flops: Some(tokens * costs.training(shape, &objective) / 3.0),
                    bytes: None,
                    alike: evaluation(shape, &objective, estimator),
                    shape: Some(shape.name),
                })
            }
            Stage::Sample(sample) => {
                let (shape, objective) = self.model("model")?;
                let sampler = sample.sampler.unwrap_or(objective.samplers()[0]);
                let calls = network_calls(&sampler, sample.steps, shape.length);
                let tokens = f64::from(sample.count) * calls * shape.length as f64;
                // All else that the settings say, but for what the amount has already.
                let mut further = json!(sample);
                if let Some(fields) = further.as_object_mut() {
                    for field in [
                        "model",
                        "count",
                        "steps",
                        "sampler",
                        "seed",
                        "grammar",
                        "weights",
                        "record_steps",
                        "temperature",
                    ] {
                        fields.shift_remove(field);
                    }
                }
                let is_default = further.as_object().is_some_and(|fields| fields.len() <= 1);
                let further = if is_default {
                    String::new()
                } else {
                    further.to_string()
                };
                Some(WorkAmount {
                    units: tokens,
                    tokens: Some(tokens),
                    flops: Some(tokens * drawing_per_token(shape, &objective)),
                    bytes: None,
                    alike: sampling(shape, &objective, &sampler, &further),
                    shape: Some(shape.name),
                })
            }
            Stage::Judge(judge) => {
                let mut rows = 0.0;
                let mut length = 0;
                for index in 0..judge.of.len() {
                    let input = self.input(&format!("of/{index}"))?;
                    let Stage::Sample(sample) = &input.stage else {
                        return None;
                    };
                    rows += f64::from(sample.count);
                    let (shape, _) = self.model(&format!("of/{index}/model"))?;
                    length = length.max(shape.length);
                }
                let network = self.model("model").filter(|_| judge.model.is_some());
                let tokens = rows * length as f64;
                let measured = json!([
                    network.map(|(shape, _)| shape.name),
                    judge.variant,
                    judge.grammar.as_ref().map(|_| judge.reference_records),
                    judge.training.is_some(),
                    length,
                ]);
                Some(WorkAmount {
                    units: rows,
                    tokens: network.map(|_| tokens),
                    flops: network.map(|(shape, objective)| tokens * costs.training(shape, &objective) / 3.0),
                    bytes: None,
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
        tokens: Some(tokens),
        flops: Some(flops),
        bytes: None,
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

/// Passes of a row through the network, on average. Of T reverse steps over L positions, `cached` asks in those in which a
/// position is drawn: T · (1 − (1 − 1/T)^L) of them where each position takes any step alike.
pub(super) fn network_calls(sampler: &Sampler, steps: u32, length: usize) -> f64 {
    let (t, l) = (f64::from(steps.max(1)), length as f64);
    match sampler {
        Sampler::Cached(_) => t * (1.0 - (1.0 - 1.0 / t).powf(l)),
        Sampler::Ancestral(_)
        | Sampler::Analytic(_)
        | Sampler::Euler(_)
        | Sampler::Remasking(_)
        | Sampler::SemiAutoregressive(_) => t,
        Sampler::FirstHitting(_) => l,
        Sampler::Random(_)
        | Sampler::Confidence(_)
        | Sampler::Margin(_)
        | Sampler::Entropy(_)
        | Sampler::LeftToRight(_)
        | Sampler::Threshold(_) => t.min(l),
        Sampler::Gibbs(_) => t * l,
        // With keys and values kept, a position a step: together one pass.
        Sampler::Autoregressive(_) => 1.0,
    }
}

/// Operations of a forward pass of a row for each of its tokens, half of which are asked about; of the plain transformer all.
pub(super) fn drawing_per_token(shape: &Shape, objective: &Objective) -> f64 {
    let backbone = objective.backbone();
    let (step, pattern) = match backbone {
        Backbone::Dit => (2, Pattern::Full),
        Backbone::Transformer => (1, Pattern::Causal),
    };
    let positions: Vec<u32> = (0..shape.length as u32).step_by(step).collect();
    let asked = BatchQueries {
        rows: 1,
        levels: usize::from(objective.is_time_conditioned()),
        positions: &positions,
        pattern,
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
