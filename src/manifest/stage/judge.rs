//! The judge stage: whose samples it measures, and against what.

use std::sync::Mutex;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::upstream::same_tokenizer;
use super::check::{StageEntry, Stages};
use super::compare::compared_role;
use super::evaluate::Weights;
use super::{MODELS, Reference, ReferenceField, Stage, StageKind, StageSpec};
use crate::manifest::Objective;
use crate::manifest::fault::{Code, Draft, alternatives, quoted};
use crate::manifest::instance::{Point, numbered_role};

/// Complete records of the source that samples are compared with, at least; our choice: their own divergence from the
/// source is then far below that of a usual sample.
pub const DEFAULT_REFERENCE_RECORDS: u32 = 100_000;
/// Length of an n-gram of the training text from which it counts as repeated verbatim; our choice.
pub const DEFAULT_VERBATIM_TOKENS: u32 = 32;

/// Measures the quality of sampled texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// What to measure: the name of a sample stage (of a swept stage, all instances are measured), or a list of such
    /// names.
    #[schemars(extend("patternErrorMessage" = JUDGED))]
    pub of: Vec<Judged>,
    /// Name of the synthetic source stage whose text the samplers imitate. The report then shows the share of
    /// grammatical records, their exact −log p and their divergence from the source. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<String>,
    /// Number of complete records, at least, in the fresh text of the source that the samples are compared with. Only
    /// with `grammar`. Default: our choice.
    #[serde(default = "default_reference_records")]
    #[schemars(range(min = 100, max = 100_000_000))]
    pub reference_records: u32,
    /// Name of the train or checkpoint stage whose model computes the generative perplexity; its objective is `ar`.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Weights of `model`. Only with `model`. Default: the MDLM authors evaluate the average (arXiv 2406.07524).
    #[serde(default)]
    pub weights: Weights,
    /// How the generative perplexity counts tokens. Only with `model`. Default: the variant that scores each text once
    /// and whole; values of different variants cannot be compared.
    #[serde(default)]
    pub variant: PerplexityVariant,
    /// Name of the pack or source stage of the training text. The report then shows the longest n-gram that each row has
    /// in common with it. Of a pack stage, the rows of the `train` split are the text; of a source stage, its records.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<String>,
    /// Number of tokens from which a common n-gram counts as training text repeated verbatim. Only with `training`.
    /// Default: our choice.
    #[serde(default = "default_verbatim_tokens")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub verbatim_tokens: u32,
    /// Seed of the fresh text of the source and of the resampled rows. Default: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

/// The form of `of`, as messages state it.
pub(in crate::manifest) const JUDGED: &str = "the name of a sample stage, or a list of such names";

/// Samples that are measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// The stage.
    pub stage: String,
    /// Name of the row, if its values do not distinguish it from the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its values in its sweep.
    pub point: Point,
    /// The stage whose model it samples, which has its tokenizer. Filled in when the manifest is loaded.
    #[serde(skip)]
    pub model: Option<String>,
}

/// How a generative perplexity counts tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PerplexityVariant {
    /// The MDLM authors' (arXiv 2406.07524, `compute_generative_perplexity`; Duo's is the same): rows are cut to the
    /// length of the model that drew them and into chunks of the judge's length. The first token of a chunk is not
    /// scored; all tokens but EOS are, and the first EOS of a chunk.
    Mdlm,
    /// The BD3-LM authors' (arXiv 2503.09573): windows of the judge's length, half a window apart. Rows are cut to the length of the model
    /// that drew them, each token but the first is scored once, and no EOS is.
    Bd3lms,
    /// Each text alone: BOS, text, and EOS where the row ends the text. All tokens but BOS are scored once, with as much
    /// context as the judge's length allows and at least half of it. Nothing is cut or padded.
    #[default]
    Plain,
}

impl PerplexityVariant {
    /// Its name in manifests, files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mdlm => "mdlm",
            Self::Bd3lms => "bd3lms",
            Self::Plain => "plain",
        }
    }
}

defaults! {
    default_reference_records: u32 = DEFAULT_REFERENCE_RECORDS;
    default_verbatim_tokens: u32 = DEFAULT_VERBATIM_TOKENS;
}

/// The role of the model behind the samples of that number: `of/0/model`, `of/1/model`, …
#[must_use]
pub fn model_role(index: usize) -> Option<&'static str> {
    static ROLES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    numbered_role(&ROLES, index, "/model")
}

impl StageSpec for Judge {
    const REFERENCES: &'static [ReferenceField<Self>] = &[
        ReferenceField {
            name: "model",
            expects: MODELS,
            stage: |judge| judge.model.as_deref(),
        },
        ReferenceField {
            name: "grammar",
            expects: &[StageKind::Source],
            stage: |judge| judge.grammar.as_deref(),
        },
        ReferenceField {
            name: "training",
            expects: &[StageKind::Pack, StageKind::Source],
            stage: |judge| judge.training.as_deref(),
        },
    ];
    const COLLECTS: Option<(&'static str, &'static [StageKind])> = Some(("of", &[StageKind::Sample]));
    const COMPUTES_NETWORK: bool = true;
    #[cfg(any(test, feature = "testing"))]
    const SMALLEST: (&'static str, &'static str) = (
        r#"{ "kind": "judge", "of": [] }"#,
        "of reference_records variant verbatim_tokens weights",
    );

    /// Its fields, and for each row the samples and the model that drew them.
    fn references(&self) -> Vec<Reference<'_>> {
        let named = Self::REFERENCES.iter().filter_map(|field| {
            Some(Reference {
                field: field.name,
                stage: (field.stage)(self)?,
                expects: field.expects,
            })
        });
        let rows = self.of.iter().enumerate().flat_map(|(index, row)| {
            let samples = compared_role(index).map(|field| Reference {
                field,
                stage: &row.stage,
                expects: &[StageKind::Sample],
            });
            let model = model_role(index).zip(row.model.as_deref());
            let model = model.map(|(field, stage)| Reference {
                field,
                stage,
                expects: MODELS,
            });
            samples.into_iter().chain(model)
        });
        named.chain(rows).collect()
    }

    fn seed(&self) -> Option<u64> {
        self.seed
    }

    fn is_random(&self) -> bool {
        true
    }

    fn check(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        stages.grammar(entry, self.grammar.as_deref(), None, faults);
        faults.extend(self.model_without_probabilities(stages, entry));
        for (field, needed, is_given) in [
            ("variant", "model", self.model.is_some()),
            ("weights", "model", self.model.is_some()),
            ("reference_records", "grammar", self.grammar.is_some()),
            ("verbatim_tokens", "training", self.training.is_some()),
        ] {
            if entry.has(field) && !is_given {
                let message = format!("`{field}` has no effect without `{needed}`");
                let fault = entry.fault(Code::NoEffect, field, message);
                faults.push(fault.hint(format!("leave `{field}` out, or set `{needed}`")));
            }
        }
        faults.extend(self.training_without_rows(stages, entry));
        faults.extend(self.training_in_other_tokens(stages, entry));
    }
}

impl Judge {
    /// The fault of a `model` that is not autoregressive.
    fn model_without_probabilities(&self, stages: &Stages<'_>, entry: &StageEntry<'_>) -> Option<Draft> {
        let model = self.model.as_deref()?;
        let objective = stages.model_of(model)?.objective?;
        if matches!(objective, Objective::Ar(_)) {
            return None;
        }
        let is_ar = |name: &&&str| {
            let of = stages.model_of(name).and_then(|model| model.objective);
            matches!(of, Some(Objective::Ar(_)))
        };
        let fitting: Vec<&str> = stages.entries.keys().filter(is_ar).copied().collect();
        let which = if fitting.is_empty() {
            String::new()
        } else {
            format!(": {}", alternatives(&fitting))
        };
        let message = format!(
            "{} has the objective `{}`: it gives no exact probability of a text",
            quoted(model),
            objective.kind()
        );
        let fault = entry.fault(Code::Objective, "model", message);
        Some(
            stages
                .about_model(fault, model)
                .expected(format!(
                    "a train or checkpoint stage with the objective `ar`{which}"
                ))
                .hint("leave `model` out if there is no such stage"),
        )
    }

    /// The fault of a pack stage in `training` that holds all of its text out.
    fn training_without_rows(&self, stages: &Stages<'_>, entry: &StageEntry<'_>) -> Option<Draft> {
        let training = self.training.as_deref()?;
        let pack = stages.pack_of(training).filter(|pack| pack.validation >= 1.0)?;
        let message = format!("the `train` split of {} is empty", quoted(training));
        let fault = entry
            .fault(Code::EmptySplit, "training", message)
            .expected("a pack stage with rows to train on, or a source stage")
            .related(
                stages.entry(training)?.span("validation"),
                "the share of `validation`",
            );
        Some(match stages.tokenize_of(&pack.from) {
            Some(tokens) => fault.hint(format!(
                "name the source stage of its text, {}",
                quoted(&tokens.from)
            )),
            None => fault,
        })
    }

    /// The fault of rows in `training` that have another tokenizer than samples.
    fn training_in_other_tokens(&self, stages: &Stages<'_>, entry: &StageEntry<'_>) -> Option<Draft> {
        let training = self.training.as_deref()?;
        let rows = stages.upstream(training)?;
        let (samples, tokens) = self.of.iter().find_map(|row| {
            let Some(Stage::Sample(sample)) = &stages.entry(&row.stage)?.stage else {
                return None;
            };
            let of_model = stages.model_of(&sample.model)?.tokenizer?;
            (!same_tokenizer(&of_model, &rows.origin())).then_some((&row.stage, of_model.tokens))
        })?;
        let message = format!(
            "the rows of {} come from the tokenizer of {}, but the samples of {} are tokens of {}",
            quoted(training),
            quoted(rows.tokens),
            quoted(samples),
            quoted(tokens)
        );
        let mut fault = entry
            .fault(Code::Tokenizer, "training", message)
            .expected("rows from the tokenizer of all samples, or a source stage");
        if let Some(tokens) = stages.tokenize_of(&rows.pack.from) {
            fault = fault.hint(format!(
                "set `\"training\": \"{}\"`: the text of a source stage is tokenized as each model's samples are",
                tokens.from
            ));
        }
        Some(fault)
    }
}
