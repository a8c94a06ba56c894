//! The manifest as the user wrote it: its types, its schema and its faults.
//!
//! The doc comments of the types are the schema's text, which editors show on hover. Every default is a named constant,
//! and the field's doc comment gives its source: "Default: why" in a doc comment becomes "Default `value`: why" in the
//! schema. Every field has an effect.
//!
//! | file | purpose |
//! |---|---|
//! | `load.rs` | [`Manifest::load`]: file and `--set` arguments → a manifest without faults, or all its faults |
//! | `span.rs` | places in the texts |
//! | `json.rs` | JSON → a tree whose nodes know their positions in the text |
//! | `stage/` | the stages: one file per kind, with its settings, the stages and files that it names, and its checks |
//! | `reading.rs` | which files a source reads, and how |
//! | `detokenize.rs` | the detokenizers of source stages |
//! | `corpora.rs` | the named corpora |
//! | `objective.rs` | the objectives of train stages |
//! | `argument.rs` | settings as arguments of a command: an objective, those of a sample stage |
//! | `fit.rs` | the estimators and samplers that fit an objective |
//! | `published.rs` | the settings that follow the published code where it differs from mdlm's defaults |
//! | `estimator.rs` | estimators of the likelihood |
//! | `sampler.rs` | samplers and their settings |
//! | `given.rs`, `template.rs` | given texts, and texts with holes |
//! | `order.rs` | the stages in an order in which each follows the stages that it consumes |
//! | `vocabularies.rs` | the named tokenizers |
//! | `schema.rs` | the JSON Schema of the types below |
//! | `sweep/` | sweeps: expands a stage with a `matrix` into plain stages |
//! | `instance.rs` | the names and values of the stages that a sweep makes |
//! | `schema_parts.rs` | parts of the schema, and what they take in words |
//! | `shape_field.rs` | the fields that name a compiled shape |
//! | `schema_check/` | faults against the schema |
//! | `kinds.rs` | objects with a `kind`: their defaults, and the former fields that moved into them |
//! | `elsewhere/` | fields, objectives and tokenizers as other programs name them |
//! | `override_hints.rs` | fields without their stage, stages without their field |
//! | `spelling.rs`, `number_hints.rs` | numbers and words as other languages spell them |
//! | `semantic/` | faults that no schema can state: those of references, and a call of each stage's check |
//! | `fault.rs` | the fields of a fault |
//!
//! Which shapes are compiled is no part of the types: whatever checks or describes a manifest takes them as
//! [`Shapes`](crate::shape::Shapes).
//!
//! A `Manifest` is what was written. The plan (`mdlm::plan`) is what it means: a DAG with cache keys.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Defaults of fields as the functions that serde calls.
macro_rules! defaults {
    ($($name:ident: $type:ty = $value:expr;)*) => { $(fn $name() -> $type { $value })* };
}

mod argument;
pub mod corpora;
pub mod detokenize;
mod elsewhere;
mod estimator;
pub mod fault;
pub mod field_table;
pub mod fit;
mod given;
pub mod instance;
pub mod json;
mod kinds;
pub mod load;
mod number_hints;
mod objective;
pub mod order;
mod override_hints;
mod published;
pub mod reading;
mod sampler;
pub mod schema;
mod schema_check;
mod schema_parts;
mod semantic;
mod shape_field;
pub mod span;
mod spelling;
mod stage;
pub mod sweep;
pub mod template;
pub mod vocabularies;

pub use argument::{RefusedSetting, SampledModel};
pub use elsewhere::{kinds_meant, tokenizer as tokenizer_object};
pub use estimator::Estimator;
pub use fault::{Code, Fault, Faults, Location, Related, did_you_mean};
pub use given::{EndOfText, GivenText};
pub use instance::{Instance, Point};
pub use load::Loaded;
pub use objective::*;
pub use override_hints::stage_field;
pub use published::{Between, BoundEnds, Grid, Grouping, PublishedGrouping, WarmupRates};
pub use sampler::*;
pub use schema::{schema, schema_text};
pub use stage::*;
pub use sweep::Sweeps;

/// A pipeline that turns text into a trained, evaluated and sampled language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mdlm pipeline")]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Path or URL of the JSON Schema of this file, such as `../schemas/pipeline.schema.json`. Editors use it to
    /// complete and check the file; it has no effect on a run. Default: none.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Name of the pipeline, shown in summaries: up to 64 letters, digits, `-`, `_` and `.`; the first is a letter or a
    /// digit.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), extend("patternErrorMessage" = PIPELINE_NAME))]
    pub name: String,
    /// Purpose of the pipeline, in a sentence or two. It has no effect on a run. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Seed of all random numbers in the pipeline; a stage can set its own `seed`. On a CPU, the same manifest, inputs
    /// and seed give the same bits, whatever the number of threads.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: u64,
    /// The stages, by name: up to 64 letters, digits, `-` and `_`. A stage names the stages whose output it reads;
    /// these references make the graph, and the order in the file does not matter. The name of a swept stage stands for
    /// all its instances; `model@seed=1` names one instance.
    #[schemars(extend("minProperties" = 1, "maxProperties" = instance::MAX_STAGES, "propertyNames" = {
        "pattern": "^[A-Za-z0-9_-]{1,64}(@.{1,1000})?$", "patternErrorMessage": STAGE_NAME
    }))]
    pub stages: IndexMap<String, Stage>,
}

/// The form of a pipeline's name, as messages state it.
const PIPELINE_NAME: &str = "a name: up to 64 letters, digits, `-`, `_` and `.`, the first a letter or digit";
/// The form of a stage's name, as messages state it.
const STAGE_NAME: &str = "a name: up to 64 letters, digits, `-` and `_`";
