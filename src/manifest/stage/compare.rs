//! The compare stage: which stages it compares, and which metric orders its table.

use std::cmp::Ordering;
use std::sync::Mutex;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Reference, StageKind, StageSpec};
use crate::manifest::instance::{Point, numbered_role};

/// Collects the results of several stages in one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// What to compare: the name of an evaluate, sample or train stage (of a swept stage, all instances are compared),
    /// or a list of such names. Train stages are compared by their last validation.
    #[schemars(extend("patternErrorMessage" = COMPARED))]
    pub of: Vec<Compared>,
    /// Metric that orders the table: the shares `grammatical` and `last_word_accuracy` from the highest, all other metrics
    /// from the lowest. Results on different texts are not ranked with each other: each text has a table, in the order of `of`.
    /// Stages that differ only in seeds are ordered by their mean over the seeds, whatever their names, and are not
    /// ranked among each other. Default: the first of `bits_per_byte`, `bits_per_byte_normalized`, `pseudo_perplexity`
    /// and `grammatical` that any row has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort: Option<Metric>,
}

/// The form of `of`, as messages state it.
pub(in crate::manifest) const COMPARED: &str =
    "the name of an evaluate, sample or train stage, or a list of such names";

/// A row of the comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// The stage.
    pub stage: String,
    /// Name of the row, if its values do not distinguish it from the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its values in its sweep.
    pub point: Point,
    /// The number of its setting: rows with one number differ in seeds alone. Filled in when the stage is planned; `None` if
    /// no two rows have the same setting.
    #[serde(skip)]
    pub setting: Option<usize>,
    /// The seeds that distinguish rows of one setting, in the order of their columns. Filled in with `setting`.
    #[serde(skip)]
    pub seeds: Vec<Seed>,
    /// What the manifest states of its model. Filled in for table stages when they are planned.
    #[serde(skip)]
    pub facts: Option<ModelFacts>,
}

/// What a manifest states of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// Parameters, embeddings and output layer included.
    pub parameters: u64,
    /// Tokens that its training predicted: of a row all for `ar`, and the masked ones otherwise, half on average. Absent for a
    /// model from a file, and for one whose training began at another model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_tokens: Option<u64>,
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

/// A metric that stages are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The bound, or for `ar` the exact value, in bits per byte of text: comparable between tokenizers, and between
    /// objectives unless padding is excluded. It includes the cost of spelling out text that the tokenizer loses
    /// (unknown tokens, dropped characters). Values for normalized text (see `bits_per_byte_normalized`) come after all
    /// others.
    BitsPerByte,
    /// The same for a tokenizer that normalizes text (letter case, accents, white space). It is a value for the
    /// normalized text, lower than one for the text itself.
    BitsPerByteNormalized,
    /// The bound, or for `ar` the exact value, in nats per token of text, or per position if padding counts. A model of
    /// `ar` is given the first token of each row, and its value is per scored token.
    NatsPerToken,
    /// The perplexity, the exponential of `nats_per_token`: a bound, or for `ar` the exact value.
    Perplexity,
    /// The perplexity per word: the exponential of the nats of the whole text over its words, as published figures on Penn
    /// Treebank and WikiText have it: a bound, or for `ar` the exact value. Words are what lies between white space before
    /// the text is detokenized, ends of lines left out. Needs `count_words` in the source stage. Comparable between
    /// tokenizers that keep all of the text.
    PerplexityPerWord,
    /// The perplexity of the last word of a record, given the text before it: a bound, or for `ar` the exact value. Needs
    /// `"scored": "last_word"` in the pack stage.
    LastWordPerplexity,
    /// The share of records whose last word is the model's greedy choice. Needs `"scored": "last_word"` in the pack stage.
    LastWordAccuracy,
    /// The pseudo-perplexity of the estimator `pseudo`. It is not a bound and cannot be compared with a perplexity.
    PseudoPerplexity,
    /// The share of sampled records that the grammar accepts.
    Grammatical,
}

/// The metrics, in the order of their columns; by default the first of these that some row has orders a table.
pub const METRICS_IN_ORDER: [Metric; 9] = [
    Metric::BitsPerByte,
    Metric::BitsPerByteNormalized,
    Metric::Perplexity,
    Metric::PerplexityPerWord,
    Metric::NatsPerToken,
    Metric::LastWordPerplexity,
    Metric::LastWordAccuracy,
    Metric::PseudoPerplexity,
    Metric::Grammatical,
];

impl Metric {
    /// Its name in manifests, files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BitsPerByte => "bits_per_byte",
            Self::BitsPerByteNormalized => "bits_per_byte_normalized",
            Self::NatsPerToken => "nats_per_token",
            Self::Perplexity => "perplexity",
            Self::PerplexityPerWord => "perplexity_per_word",
            Self::LastWordPerplexity => "last_word_perplexity",
            Self::LastWordAccuracy => "last_word_accuracy",
            Self::PseudoPerplexity => "pseudo_perplexity",
            Self::Grammatical => "grammatical",
        }
    }

    /// The metric of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        METRICS_IN_ORDER.into_iter().find(|metric| metric.name() == name)
    }

    /// Bits per byte, of text or of normalized text.
    #[must_use]
    pub fn bits_per_byte(normalized: bool) -> Self {
        if normalized {
            Self::BitsPerByteNormalized
        } else {
            Self::BitsPerByte
        }
    }

    /// Whether more of it is better.
    #[must_use]
    pub fn rises(self) -> bool {
        matches!(self, Self::Grammatical | Self::LastWordAccuracy)
    }

    /// The value that a table begins with, in words: `lowest perplexity`.
    #[must_use]
    pub fn lead(self) -> String {
        format!(
            "{} {}",
            if self.rises() { "highest" } else { "lowest" },
            self.name()
        )
    }

    /// Whether it is of a model's likelihood of held-out text, and not of its samples or choices.
    #[must_use]
    pub fn is_of_text(self) -> bool {
        !matches!(self, Self::Grammatical | Self::LastWordAccuracy)
    }

    /// Whether it is of words, however tokens spell them.
    #[must_use]
    pub fn is_per_word(self) -> bool {
        matches!(
            self,
            Self::PerplexityPerWord | Self::LastWordPerplexity | Self::LastWordAccuracy
        )
    }

    /// Whether what a counted token is changes it.
    #[must_use]
    pub fn is_per_token(self) -> bool {
        matches!(
            self,
            Self::NatsPerToken | Self::Perplexity | Self::PseudoPerplexity
        )
    }

    /// The order of two values, the better first and none last.
    #[must_use]
    pub fn order(self, a: Option<f64>, b: Option<f64>) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) if self.rises() => b.total_cmp(&a),
            (Some(a), Some(b)) => a.total_cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }
}

/// The kinds of stages that can be compared.
pub const COMPARABLE: &[StageKind] = &[StageKind::Evaluate, StageKind::Sample, StageKind::Train];

/// The role of the input of that number of a stage that collects others: `of/0`, `of/1`, …
#[must_use]
pub fn compared_role(index: usize) -> Option<&'static str> {
    static ROLES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    numbered_role(&ROLES, index, "")
}

impl StageSpec for Compare {
    const COLLECTS: Option<(&'static str, &'static [StageKind])> = Some(("of", COMPARABLE));
    #[cfg(any(test, feature = "testing"))]
    const SMALLEST: (&'static str, &'static str) = (r#"{ "kind": "compare", "of": [] }"#, "of");

    fn collected(&mut self) -> Option<&mut Vec<Compared>> {
        Some(&mut self.of)
    }

    fn references(&self) -> Vec<Reference<'_>> {
        let rows = self.of.iter().enumerate();
        rows.filter_map(|(index, row)| {
            Some(Reference {
                field: compared_role(index)?,
                stage: &row.stage,
                expects: COMPARABLE,
            })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_of_metrics_are_those_of_manifests() {
        for metric in METRICS_IN_ORDER {
            assert_eq!(json!(metric), metric.name());
            assert_eq!(Metric::find(metric.name()), Some(metric));
        }
    }
}
