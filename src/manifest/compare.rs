//! The compare stage: what it takes, and by which number its table is in order.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Point, StageKind};

/// Puts the results of several stages into one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// What is compared: an evaluate, sample or train stage, all instances of it where it is swept; or a list of such
    /// stages. Training is compared by its last validation.
    #[schemars(extend("patternErrorMessage" = COMPARED))]
    pub of: Vec<Compared>,
    /// The metric that orders the table: of bounds the lowest first, of accepted records the highest. Where stages differ in
    /// seeds alone, whatever they are called, by the means over seeds, and the rows of a mean by no rank. Default: the first
    /// that some row has of `bits_per_byte`, `nats_per_token` and `grammatical`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort: Option<Metric>,
}

/// What a compare stage takes, for a person.
pub(super) const COMPARED: &str = "the name of an evaluate, sample or train stage, or a list of such names";

/// A row of a comparison: what `of` stands for once sweeps are spelt out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// The stage.
    pub stage: String,
    /// The row's name, where its values do not distinguish it from the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its place in its sweep.
    pub point: Point,
    /// Its settings, numbered: rows of one number differ in nothing but seeds. Filled in when the stage is planned; nothing
    /// where no two rows do.
    #[serde(skip)]
    pub setting: Option<usize>,
    /// The seeds that distinguish rows of one setting, in the order of their columns. Filled in with `setting`.
    #[serde(skip)]
    pub seeds: Vec<Seed>,
}

/// A seed that differs between rows of one setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    /// The column that shows it: `seed`, `rows.seed`.
    pub label: String,
    /// The kinds of the stages that draw by it, without repetition.
    pub kinds: Vec<StageKind>,
    /// The seed.
    pub value: u64,
}

/// A number that stages are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The bound in bits per byte of text: comparable between tokenizers. What a tokenizer loses is spelled out in it.
    /// Bounds on normalized text (see `bits_per_byte_normalized`) come after all others.
    BitsPerByte,
    /// The bound in bits per byte where the tokenizer changes the text (letter case, accents, white space): a bound on the
    /// text as it is then, lower than one on the text itself.
    BitsPerByteNormalized,
    /// The bound in nats per token of text, or per position where padding counts.
    NatsPerToken,
    /// The bound on the perplexity per token of text, or per position where padding counts.
    Perplexity,
    /// The share of sampled records that the grammar accepts.
    Grammatical,
}
