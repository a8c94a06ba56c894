//! The evaluate stage: a model and rows → how well it predicts them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::model::or_train;
use super::check::upstream::same_tokenizer;
use super::check::{StageEntry, Stages};
use super::{MODELS, ReferenceField, Scored, StageKind, StageSpec};
use crate::manifest::fault::{Code, Draft, quoted};
use crate::manifest::published::{self, BoundEnds};
use crate::manifest::{Estimator, Objective};
use crate::plural::counted;

/// Computes the perplexity of a model on packed rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// Name of the train or checkpoint stage whose model is evaluated.
    pub model: String,
    /// Name of the pack stage whose rows the model is evaluated on.
    pub data: String,
    /// Split of `data` to evaluate on. Default: held-out text measures how a model generalizes.
    #[serde(default = "validation_split")]
    pub split: Split,
    /// Weights to evaluate. Default: the MDLM authors evaluate the average (arXiv 2406.07524).
    #[serde(default)]
    pub weights: Weights,
    /// How the negative log-likelihood is estimated. Default: that of the model's objective, `time` for `mdlm`, `sedd`
    /// and `d3pm`, `exact` for `ar`, `pseudo` for `mlm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimator: Option<Estimator>,
    /// T of the bound in discrete time: that of a reverse process of T steps (arXiv 2406.07524, eq. 43). Only for the
    /// estimator `time`. Default: the `steps` of the model's objective, or else continuous time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    #[schemars(title = "Steps of discrete time")]
    pub steps: Option<u32>,
    /// Range of noise levels that the bound covers. Default: `valid`, since the published number is not a bound.
    #[serde(default, skip_serializing_if = "published::is_default")]
    pub bound: BoundEnds,
    /// Number of Monte Carlo draws per row. The times of a row's draws are stratified, and the report gives a 95%
    /// interval. The estimators `exact` and `pseudo` draw nothing. Default: our choice; four times as many draws halve
    /// the interval.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 100_000))]
    pub draws: u32,
    /// Largest number of rows to evaluate: the first of a seeded permutation. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub rows: Option<u64>,
    /// Name of the synthetic source stage that the rows come from. The report then shows its exact entropy beside the
    /// result. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<String>,
    /// Seed of the times, the masks and the permutation of the rows. Default: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

/// A split of packed rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// The rows that are trained on.
    Train,
    /// The rows that are held out.
    Validation,
}

/// Which weights of a trained model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// The exponential moving average of the weights.
    #[default]
    Ema,
    /// The weights after the last step.
    Raw,
}

defaults! {
    four: u32 = 4;
    validation_split: Split = Split::Validation;
}

impl StageSpec for Evaluate {
    const REFERENCES: &'static [ReferenceField<Self>] = &[
        ReferenceField {
            name: "model",
            expects: MODELS,
            stage: |evaluate| Some(&evaluate.model),
        },
        ReferenceField {
            name: "data",
            expects: &[StageKind::Pack],
            stage: |evaluate| Some(&evaluate.data),
        },
        ReferenceField {
            name: "grammar",
            expects: &[StageKind::Source],
            stage: |evaluate| evaluate.grammar.as_deref(),
        },
    ];
    const COMPUTES_NETWORK: bool = true;
    const MEASURES_MODEL: bool = true;
    #[cfg(any(test, feature = "testing"))]
    const SMALLEST: (&'static str, &'static str) = (
        r#"{ "kind": "evaluate", "model": "a", "data": "b" }"#,
        "draws estimator split weights",
    );

    fn seed(&self) -> Option<u64> {
        self.seed
    }

    fn is_random(&self) -> bool {
        true
    }

    fn has_metric(&self) -> bool {
        true
    }

    fn fill_in(&mut self, objective: &Objective) {
        let estimator = *self.estimator.get_or_insert_with(|| objective.estimators()[0]);
        if estimator == Estimator::Time && self.steps.is_none() {
            self.steps = objective.steps();
        }
    }

    fn check(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        let model = stages.model_of(&self.model);
        if let (Some(pack), Some(rows)) = (stages.pack_of(&self.data), stages.entry(&self.data)) {
            let empty = match self.split {
                Split::Validation if pack.validation <= 0.0 => Some(("validation", "above 0", "train")),
                Split::Train if pack.validation >= 1.0 => Some(("train", "below 1", "validation")),
                _ => None,
            };
            if let Some((split, bound, other)) = empty {
                let field = if entry.node.member("split").is_some() {
                    "split"
                } else {
                    "data"
                };
                let message = format!("the `{split}` split of {} is empty", quoted(&self.data));
                faults.push(
                    entry
                        .fault(Code::EmptySplit, field, message)
                        .expected(format!("a split with rows: here `\"split\": \"{other}\"`"))
                        .hint(format!("or set `validation` of {} {bound}", quoted(&self.data)))
                        .related(rows.span("validation"), "the share of `validation`"),
                );
            }
        }
        if let Some(shape) = model.as_ref().and_then(|model| stages.shapes.find(model.shape)) {
            let fault = |length: u32| {
                let message = format!(
                    "{} packs rows of {}, but the model {} has rows of {}",
                    quoted(&self.data),
                    counted(length, "token"),
                    quoted(&self.model),
                    shape.length
                );
                entry
                    .fault(Code::RowLength, "data", message)
                    .expected(format!("a pack stage with rows of {}", shape.length))
            };
            faults.extend(stages.row_length(&self.data, shape, fault));
        }
        if let Some(model) = &model
            && let (Some(of_model), Some(of_data)) = (&model.tokenizer, stages.upstream(&self.data))
            && !same_tokenizer(of_model, &of_data.origin())
        {
            let message = format!(
                "the rows of {} come from the tokenizer of {}, but {} was trained with that of {}",
                quoted(&self.data),
                quoted(of_data.tokens),
                quoted(&self.model),
                quoted(of_model.tokens)
            );
            let mut fault = entry
                .fault(Code::Tokenizer, "data", message)
                .expected("rows from the model's own tokenizer")
                .hint(format!(
                    "tokenize the rows with `\"tokenizer\": {{ \"kind\": \"stage\", \"stage\": \"{}\" }}`",
                    of_model.tokens
                ));
            if let Some(tokens) = stages.entry(of_data.tokens) {
                fault = fault.related(tokens.span("tokenizer/kind"), "a different tokenizer");
            }
            faults.push(fault);
        }
        if let Some(grammar) = &self.grammar
            && stages
                .pack_of(&self.data)
                .is_some_and(|pack| pack.scored == Scored::LastWord)
        {
            let message = format!(
                "the entropy of {} is that of whole records, but {} scores their last words",
                quoted(grammar),
                quoted(&self.data)
            );
            faults.push(
                entry
                    .fault(Code::Context, "grammar", message)
                    .hint("leave `grammar` out"),
            );
        }
        self.check_estimator(stages, entry, faults);
        stages.grammar(entry, self.grammar.as_deref(), Some(&self.data), faults);
    }
}

impl Evaluate {
    /// Faults of the estimator, and of the settings that belong to certain estimators.
    fn check_estimator(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        let objective = stages.model_of(&self.model).and_then(|model| model.objective);
        let misfit =
            |estimator: Estimator| objective.and_then(|objective| objective.misfit_of_estimator(estimator));
        if let (Some(objective), Some(estimator)) = (objective, self.estimator)
            && let Some(misfit) = misfit(estimator)
        {
            let fitting = objective.estimators();
            let names: Vec<_> = fitting.iter().map(|fits| quoted(fits.name())).collect();
            let fault = stages
                .misfit(
                    entry,
                    "estimator",
                    &format!("estimator `{}`", estimator.name()),
                    (&self.model, &misfit),
                )
                .expected(names.join(" or "));
            let way = format!("set `\"estimator\": \"{}\"`", fitting[0].name());
            faults.push(fault.hint(or_train(way, &misfit)));
        }
        let Some(estimator) = self.used_estimator(objective) else {
            return;
        };
        let draws_times = estimator == Estimator::Time;
        let which = |what: &str| {
            let default = if self.estimator == Some(estimator) {
                ""
            } else {
                "the model's "
            };
            format!(
                "{what}, but {default}estimator `{}` draws no times",
                estimator.name()
            )
        };
        // The way out where the estimator is written and another fits.
        let or_time = if self.estimator == Some(estimator) && misfit(Estimator::Time).is_none() {
            ", or set `\"estimator\": \"time\"`"
        } else {
            ""
        };
        if self.steps.is_some() && !draws_times {
            faults.push(
                stages
                    .about_model(
                        entry.fault(
                            Code::Objective,
                            "steps",
                            which("`steps` makes the times of the bound discrete"),
                        ),
                        &self.model,
                    )
                    .expected("`steps` only beside the estimator `time`")
                    .hint(stages.leave_out(entry, "steps", &self.model) + or_time),
            );
        }
        if self.bound == BoundEnds::Published && !draws_times {
            faults.push(
                stages
                    .about_model(
                        entry.fault(
                            Code::Objective,
                            "bound",
                            which("the published number is a mean over times"),
                        ),
                        &self.model,
                    )
                    .expected("`\"valid\"`, or the estimator `time`")
                    .hint(stages.leave_out(entry, "bound", &self.model) + or_time),
            );
        }
        if self.bound == BoundEnds::Published
            && draws_times
            && let Some(objective) = objective
            && let Some(misfit) = objective.misfit_of_published(self.steps.or(objective.steps()))
        {
            let other = if misfit.setting == "noise" {
                ", or train with log-linear noise"
            } else {
                ", or leave `steps` out"
            };
            faults.push(
                stages
                    .misfit(entry, "bound", "the published number", (&self.model, &misfit))
                    .expected("`\"valid\"`")
                    .hint(stages.leave_out(entry, "bound", &self.model) + other),
            );
        }
    }

    /// The estimator that it would use, were its faults mended: the written one where it fits, else the default. Nothing where
    /// it is not known, for want of a model.
    fn used_estimator(&self, objective: Option<&Objective>) -> Option<Estimator> {
        let Some(objective) = objective else {
            return self.estimator;
        };
        let fitting = objective.estimators();
        let written = self.estimator.filter(|estimator| fitting.contains(estimator));
        written.or(fitting.first().copied())
    }
}
