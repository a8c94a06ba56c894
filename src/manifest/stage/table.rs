//! The table stage: which results stand in which cell, and the published figures beside them.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::check::{StageEntry, Stages};
use super::compare::{Compared, compared_role};
use super::{Metric, Reference, Stage, StageKind, StageSpec};
use crate::manifest::fault::{Code, Draft, quoted, shortened, suggestion};
use crate::manifest::instance::Point;
use crate::manifest::published;

/// The kinds of stages whose results a table shows.
pub const TABULATED: &[StageKind] = &[
    StageKind::Evaluate,
    StageKind::Sample,
    StageKind::Judge,
    StageKind::Train,
];
/// The form of `of` in a table stage, as messages state it.
pub(in crate::manifest) const TABULATED_FORM: &str =
    "the name of an evaluate, sample, judge or train stage, or a list of such names";
/// The label of a result's stage in `where`.
pub const STAGE_LABEL: &str = "stage";
/// The field of an object that says which of several it is.
const KIND: &str = "kind";

/// Puts results into the cells of a table, beside published figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Results for the cells: the name of an evaluate, sample, judge or train stage (of a swept stage, all instances), or
    /// a list of such names. A judge stage measures one sample stage here. Results in one cell differ in seeds alone, and
    /// the cell shows their mean.
    #[schemars(extend("patternErrorMessage" = TABULATED_FORM))]
    pub of: Vec<Compared>,
    /// Title of the table. Default: `Results`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// Where the published figures come from, such as `arXiv 2406.07524v2, table 1`. Default: each row states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What the columns show that do not state it. Default: most published tables show the perplexity.
    #[serde(default)]
    pub show: TableValue,
    /// Whether the results were made with the settings of the published figures. Each cell then has a verdict: whether
    /// both agree, or by how much they differ. Set `false` for models of another size or other text. Default: a published
    /// figure stands beside a result to be compared with it.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub verdicts: bool,
    /// The rows in order. Default: those of `rows_by`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<TableRow>,
    /// A swept field (or `stage`) that makes a row of each of its values, in the order of the manifest, instead of `rows`.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_by: Option<String>,
    /// The columns in order. Default: those of `columns_by`, or else one column.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<TableColumn>,
    /// A swept field (or `stage`) that makes a column of each of its values, in the order of the manifest, instead of
    /// `columns`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns_by: Option<String>,
    /// Footnotes: what differs from the published settings. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableRow {
    /// Name of the row.
    pub name: String,
    /// Heading above this row and those that follow with the same heading. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The results of the row: values of swept fields by name, as the names of instances have them, or the name of a stage
    /// under `stage`. An object without other fields is named by its `kind`. A row without `where` has published figures alone. Default: no
    /// result.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub select: Option<Selected>,
    /// Published figures by the name of their column. Default: none.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub published: IndexMap<String, PublishedFigure>,
    /// Where its published figures come from. Default: the table's `source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Why the row has no results, where it cannot have any. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// Whether its results have the settings of its published figures, if those of the table have. Default: as the table.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub verdicts: bool,
    /// A footnote of the row. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Default for TableRow {
    fn default() -> Self {
        Self {
            name: String::new(),
            group: None,
            select: None,
            published: IndexMap::new(),
            source: None,
            missing: None,
            verdicts: true,
            note: None,
        }
    }
}

/// A column of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableColumn {
    /// Name of the column.
    pub name: String,
    /// The results of the column, as `where` of a row. Default: all.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub select: Option<Selected>,
    /// What it shows. Default: that of the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub show: Option<TableValue>,
}

/// Values of swept fields, by their names.
pub type Selected = IndexMap<String, Value>;

/// A figure that was published.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishedFigure {
    /// The figure, in the unit of its column; a share, such as `last_word_accuracy`, from 0 to 1.
    #[schemars(range(min = 0.0))]
    pub value: f64,
    /// Whether it is an upper bound. Default: an exact value.
    #[serde(default, skip_serializing_if = "published::is_default")]
    pub at_most: bool,
    /// Standard deviation that was published with it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub sd: Option<f64>,
    /// Digits after the point as printed: the figure is rounded to them. Default: 2, or as many as `value` has if these are
    /// more; counts, such as parameters, are rounded to their last digit that is not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 15))]
    pub decimals: Option<u32>,
}

impl PublishedFigure {
    /// Digits after the point as printed.
    #[must_use]
    pub fn decimals(&self) -> usize {
        let written = self.value.to_string();
        let written = written.split('.').nth(1).map_or(0, str::len);
        self.decimals.map_or(written.max(2), |stated| stated as usize)
    }
}

/// What a column shows of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableValue {
    /// The perplexity per valid token, or for `ar` per scored token.
    #[default]
    Perplexity,
    /// Nats per valid token, or for `ar` per scored token.
    NatsPerToken,
    /// Bits per valid token, or for `ar` per scored token.
    BitsPerToken,
    /// Bits per byte of text, what spells out lost text included.
    BitsPerByte,
    /// Bits per byte of text as the tokenizer normalizes it.
    BitsPerByteNormalized,
    /// The perplexity per word of the text before it is detokenized. Needs `count_words` in the source stage.
    PerplexityPerWord,
    /// The perplexity of the last word of a record. Needs `"scored": "last_word"` in the pack stage.
    LastWordPerplexity,
    /// Share of records whose last word is the model's greedy choice. Needs `"scored": "last_word"` in the pack stage.
    LastWordAccuracy,
    /// The pseudo-perplexity of the estimator `pseudo`, which is not a bound.
    PseudoPerplexity,
    /// Standard error of the nats per token that goes with more draws a row.
    MonteCarloError,
    /// Share of sampled records that the grammar accepts.
    Grammatical,
    /// Generative perplexity of sampled texts by a judge stage.
    GenerativePerplexity,
    /// Entropy of a sampled row's tokens in nats, by a judge stage.
    UnigramEntropy,
    /// Network calls for a sampled row.
    NetworkCalls,
    /// Parameters of the model, embeddings and output layer included.
    Parameters,
    /// Tokens that the training predicted: of a row all for `ar`, and the masked ones otherwise: half on average, and for
    /// `mlm` the share `rate`.
    TrainedTokens,
    /// Rows that were measured.
    Rows,
    /// Tokens that were measured.
    Tokens,
    /// Words that were measured. Needs `count_words` in the source stage.
    Words,
}

impl TableValue {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::Perplexity,
        Self::NatsPerToken,
        Self::BitsPerToken,
        Self::BitsPerByte,
        Self::BitsPerByteNormalized,
        Self::PerplexityPerWord,
        Self::LastWordPerplexity,
        Self::LastWordAccuracy,
        Self::PseudoPerplexity,
        Self::MonteCarloError,
        Self::Grammatical,
        Self::GenerativePerplexity,
        Self::UnigramEntropy,
        Self::NetworkCalls,
        Self::Parameters,
        Self::TrainedTokens,
        Self::Rows,
        Self::Tokens,
        Self::Words,
    ];

    /// The metric of an evaluate, sample or train stage that it is, or is computed from.
    #[must_use]
    pub fn metric(self) -> Option<Metric> {
        Some(match self {
            Self::Perplexity => Metric::Perplexity,
            Self::NatsPerToken | Self::BitsPerToken => Metric::NatsPerToken,
            Self::BitsPerByte => Metric::BitsPerByte,
            Self::BitsPerByteNormalized => Metric::BitsPerByteNormalized,
            Self::PerplexityPerWord => Metric::PerplexityPerWord,
            Self::LastWordPerplexity => Metric::LastWordPerplexity,
            Self::LastWordAccuracy => Metric::LastWordAccuracy,
            Self::PseudoPerplexity => Metric::PseudoPerplexity,
            Self::Grammatical => Metric::Grammatical,
            _ => return None,
        })
    }

    /// Its name in manifests and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Perplexity => "perplexity",
            Self::NatsPerToken => "nats_per_token",
            Self::BitsPerToken => "bits_per_token",
            Self::BitsPerByte => "bits_per_byte",
            Self::BitsPerByteNormalized => "bits_per_byte_normalized",
            Self::PerplexityPerWord => "perplexity_per_word",
            Self::LastWordPerplexity => "last_word_perplexity",
            Self::LastWordAccuracy => "last_word_accuracy",
            Self::PseudoPerplexity => "pseudo_perplexity",
            Self::MonteCarloError => "monte_carlo_error",
            Self::Grammatical => "grammatical",
            Self::GenerativePerplexity => "generative_perplexity",
            Self::UnigramEntropy => "unigram_entropy",
            Self::NetworkCalls => "network_calls",
            Self::Parameters => "parameters",
            Self::TrainedTokens => "trained_tokens",
            Self::Rows => "rows",
            Self::Tokens => "tokens",
            Self::Words => "words",
        }
    }

    /// The kinds of stages whose results may have it.
    #[must_use]
    pub fn of(self) -> &'static [StageKind] {
        match self {
            Self::NatsPerToken | Self::BitsPerToken | Self::BitsPerByte | Self::BitsPerByteNormalized => {
                &[StageKind::Evaluate, StageKind::Train]
            }
            Self::Grammatical | Self::NetworkCalls => &[StageKind::Sample, StageKind::Judge],
            Self::GenerativePerplexity | Self::UnigramEntropy => &[StageKind::Judge],
            Self::Parameters | Self::TrainedTokens => TABULATED,
            _ => &[StageKind::Evaluate],
        }
    }

    /// Whether it is a share, which is shown in percent.
    #[must_use]
    pub fn is_share(self) -> bool {
        matches!(self, Self::Grammatical | Self::LastWordAccuracy)
    }

    /// Whether it is a count, which is printed rounded to its first digits.
    #[must_use]
    pub fn is_count(self) -> bool {
        matches!(
            self,
            Self::Parameters | Self::TrainedTokens | Self::Rows | Self::Tokens | Self::Words
        )
    }

    /// Whether it is of a model's likelihood of held-out text, and so a bound or an exact value.
    #[must_use]
    pub fn is_likelihood(self) -> bool {
        self.metric()
            .is_some_and(|metric| metric.is_of_text() && metric != Metric::PseudoPerplexity)
    }
}

defaults! {
    yes: bool = true;
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_yes(value: &bool) -> bool {
    *value
}

impl StageSpec for Table {
    const COLLECTS: Option<(&'static str, &'static [StageKind])> = Some(("of", TABULATED));
    #[cfg(any(test, feature = "testing"))]
    const SMALLEST: (&'static str, &'static str) =
        (r#"{ "kind": "table", "of": [] }"#, "cells facts of show");

    fn references(&self) -> Vec<Reference<'_>> {
        let results = self.of.iter().enumerate();
        results
            .filter_map(|(index, result)| {
                Some(Reference {
                    field: compared_role(index)?,
                    stage: &result.stage,
                    expects: TABULATED,
                })
            })
            .collect()
    }

    fn collected(&mut self) -> Option<&mut Vec<Compared>> {
        Some(&mut self.of)
    }

    fn check(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        for (list, by, listed, swept) in [
            ("rows", "rows_by", !self.rows.is_empty(), self.rows_by.is_some()),
            (
                "columns",
                "columns_by",
                !self.columns.is_empty(),
                self.columns_by.is_some(),
            ),
        ] {
            if listed && swept {
                let message = format!("`{list}` and `{by}` both state the {list}");
                let fault = entry.fault(Code::NoEffect, by, message);
                faults.push(
                    fault
                        .expected(format!("`{list}` or `{by}`"))
                        .hint(format!("leave one of them out")),
                );
            }
        }
        if self.rows.is_empty() && self.rows_by.is_none() {
            faults.push(
                entry
                    .fault(Code::MissingField, "", "the table has no rows")
                    .expected("`rows`, a list of rows, or `rows_by`, a swept field that makes them")
                    .hint("write \"rows_by\": \"stage\" for a row of each stage"),
            );
        }
        self.check_names(entry, faults);
        self.check_selections(entry, faults);
        self.check_figures(entry, faults);
        self.check_shown(stages, entry, faults);
        self.check_judges(stages, entry, faults);
    }
}

impl Table {
    /// The rows and columns: those that are listed, or those that a swept field makes.
    #[must_use]
    pub fn layout(&self) -> (Vec<TableRow>, Vec<TableColumn>) {
        let rows = match &self.rows_by {
            Some(field) if self.rows.is_empty() => {
                let values = self.values(field).into_iter();
                values
                    .map(|value| TableRow {
                        name: words(&value),
                        select: Some(IndexMap::from([(field.clone(), value)])),
                        ..TableRow::default()
                    })
                    .collect()
            }
            _ => self.rows.clone(),
        };
        let columns = match &self.columns_by {
            Some(field) if self.columns.is_empty() => {
                let values = self.values(field).into_iter();
                values
                    .map(|value| TableColumn {
                        name: words(&value),
                        select: Some(IndexMap::from([(field.clone(), value)])),
                        show: None,
                    })
                    .collect()
            }
            _ if self.columns.is_empty() => vec![TableColumn {
                name: self.show.name().to_owned(),
                select: None,
                show: None,
            }],
            _ => self.columns.clone(),
        };
        (rows, columns)
    }

    /// The results in the cell of a row and a column, by their places in `of`.
    #[must_use]
    pub fn cell(&self, row: &TableRow, column: &TableColumn) -> Vec<usize> {
        let Some(of_row) = &row.select else {
            return Vec::new();
        };
        let all = IndexMap::new();
        let of_column = column.select.as_ref().unwrap_or(&all);
        let selected = |result: &Compared| matches(result, of_row) && matches(result, of_column);
        let places = self.of.iter().enumerate();
        places
            .filter(|(_, result)| selected(result))
            .map(|(place, _)| place)
            .collect()
    }

    /// The values of a swept field among the results, each once, in the order of the manifest.
    fn values(&self, field: &str) -> Vec<Value> {
        let mut values: Vec<Value> = Vec::new();
        for value in self.of.iter().filter_map(|result| value_at(result, field)) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        values
    }

    /// The swept fields of the results.
    fn labels(&self) -> Vec<&str> {
        let mut labels = vec![STAGE_LABEL];
        for label in self.of.iter().flat_map(|result| result.point.keys()) {
            if !labels.contains(&&**label) {
                labels.push(label);
            }
        }
        labels
    }

    /// Names that stand twice, and figures of columns that do not exist.
    fn check_names(&self, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        let twice = |names: Vec<&str>, list: &str, faults: &mut Vec<Draft>| {
            for (place, name) in names.iter().enumerate() {
                if names[..place].contains(name) {
                    let message = format!("two {list} are called {}", quoted(name));
                    let fault = entry.fault(Code::InvalidName, &format!("{list}/{place}/name"), message);
                    faults.push(fault.expected("every name once"));
                }
            }
        };
        let columns: Vec<&str> = self.columns.iter().map(|column| &*column.name).collect();
        twice(columns, "columns", faults);
        // Rows of different groups may have one name.
        let rows = self.rows.iter().enumerate();
        for (place, row) in rows {
            let same = |other: &TableRow| (&other.name, &other.group) == (&row.name, &row.group);
            if self.rows[..place].iter().any(same) {
                let message = format!("two rows are called {}", quoted(&row.name));
                let fault = entry.fault(Code::InvalidName, &format!("rows/{place}/name"), message);
                faults.push(fault.expected("every name once in its group"));
            }
        }
        let (_, columns) = self.layout();
        let names: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
        for (place, row) in self.rows.iter().enumerate() {
            for name in row.published.keys().filter(|name| !names.contains(&&***name)) {
                let message = format!("no column is called {}", quoted(name));
                let at = format!("rows/{place}/published/{}", escaped(name));
                let fault = entry.fault(Code::UnknownField, &at, message);
                faults.push(
                    fault
                        .expected(format!("a column: {}", listed(&names)))
                        .maybe_hint(suggestion(name, names.iter().copied())),
                );
            }
            if let (Some(_), Some(_)) = (&row.missing, &row.select) {
                let message = "the row has both results, by `where`, and a reason why it has none";
                let fault = entry.fault(Code::NoEffect, &format!("rows/{place}/missing"), message);
                faults.push(fault.hint("leave `missing` or `where` out"));
            }
        }
    }

    /// Fields and values in `where`, `rows_by` and `columns_by` that no result has.
    fn check_selections(&self, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        // A stage that does not exist is reported where it is named.
        if self.of.is_empty() {
            return;
        }
        let labels = self.labels();
        let unknown = |field: &str, at: &str| {
            let message = format!("no result has a swept field {}", quoted(field));
            let fault = entry.fault(Code::UnknownField, at, message);
            fault
                .expected(format!("one of {}", listed(&labels)))
                .maybe_hint(suggestion(field, labels.iter().copied()))
        };
        for (at, field) in [("rows_by", &self.rows_by), ("columns_by", &self.columns_by)] {
            if let Some(field) = field.as_ref().filter(|field| self.values(field).is_empty()) {
                faults.push(unknown(field, at));
            }
        }
        let rows = self.rows.iter().map(|row| ("rows", &row.select));
        let columns = self.columns.iter().map(|column| ("columns", &column.select));
        let places = rows.enumerate().chain(columns.enumerate());
        for (place, (list, select)) in places {
            for (field, value) in select.iter().flatten() {
                let at = format!("{list}/{place}/where/{}", escaped(field));
                let values = self.values(field);
                if values.is_empty() {
                    faults.push(unknown(field, &at));
                } else if !values.iter().any(|other| is_called(other, value)) {
                    let names: Vec<String> = values.iter().map(words).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let wanted = words(value);
                    let message = format!("no result has {} {}", field, quoted(&shortened(value)));
                    let fault = entry.fault(Code::InvalidValue, &at, message);
                    faults.push(
                        fault
                            .expected(format!("one of {}", listed(&names)))
                            .maybe_hint(suggestion(&wanted, names.iter().copied())),
                    );
                }
            }
        }
    }

    /// Published figures that cannot be what their column shows.
    fn check_figures(&self, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        let (_, columns) = self.layout();
        for (place, row) in self.rows.iter().enumerate() {
            for (name, figure) in &row.published {
                let Some(column) = columns.iter().find(|column| column.name == *name) else {
                    continue;
                };
                let at = format!("rows/{place}/published/{}/value", escaped(name));
                let show = column.show.unwrap_or(self.show);
                if show.is_share() && figure.value > 1.0 {
                    let message = format!("{} is no share", figure.value);
                    faults.push(
                        entry
                            .fault(Code::OutOfRange, &at, message)
                            .expected("a number from 0 to 1")
                            .hint(format!("write {} if it is in percent", figure.value / 100.0)),
                    );
                }
                if figure.value == 0.0 && !show.is_share() {
                    let message = "a published figure of 0 says nothing about a result";
                    faults.push(
                        entry
                            .fault(Code::OutOfRange, &at, message)
                            .expected("a number above 0")
                            .hint("leave the figure out where none was published"),
                    );
                }
            }
        }
        for (list, names) in [
            ("rows", self.rows.iter().map(|row| &row.name).collect::<Vec<_>>()),
            (
                "columns",
                self.columns.iter().map(|column| &column.name).collect(),
            ),
        ] {
            for (place, _) in names
                .iter()
                .enumerate()
                .filter(|(_, name)| name.trim().is_empty())
            {
                let fault = entry.fault(
                    Code::InvalidName,
                    &format!("{list}/{place}/name"),
                    "the name is empty",
                );
                faults.push(fault.expected("a name of at least one character"));
            }
        }
    }

    /// Columns that show what no result in them can have.
    fn check_shown(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        let (rows, columns) = self.layout();
        for (place, column) in columns.iter().enumerate() {
            let show = column.show.unwrap_or(self.show);
            let places = rows.iter().flat_map(|row| self.cell(row, column));
            let kinds: Vec<StageKind> = places
                .filter_map(|place| stages.entry(&self.of[place].stage)?.kind)
                .collect();
            if kinds.is_empty() || kinds.iter().any(|kind| show.of().contains(kind)) {
                continue;
            }
            let at = if column.show.is_some() {
                format!("columns/{place}/show")
            } else {
                "show".to_owned()
            };
            let message = format!(
                "{} stages have no {}",
                alternatives_of(&kinds),
                quoted(show.name())
            );
            let fitting = TableValue::ALL.into_iter();
            let fitting = fitting.filter(|show| kinds.iter().any(|kind| show.of().contains(kind)));
            let fitting: Vec<&str> = fitting.map(TableValue::name).collect();
            faults.push(
                entry
                    .fault(Code::WrongStage, &at, message)
                    .expected(format!("one of {}", listed(&fitting))),
            );
        }
    }

    /// Judge stages that measure several sample stages: a cell takes one of them.
    fn check_judges(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        for (index, result) in self.of.iter().enumerate() {
            let Some(Stage::Judge(judge)) =
                stages.entry(&result.stage).and_then(|entry| entry.stage.as_ref())
            else {
                continue;
            };
            if judge.of.len() > 1 {
                let message = format!(
                    "{} measures {} sample stages, and a cell shows one",
                    quoted(&result.stage),
                    judge.of.len()
                );
                let at = compared_role(index).unwrap_or("of");
                let fault = entry.fault(Code::WrongStage, at, message);
                faults.push(fault.expected("a judge stage of one sample stage").hint(format!(
                    "write a judge stage for each of them: \"of\": \"{}\"",
                    judge.of[0].stage
                )));
            }
        }
    }
}

/// Whether a result has all these values.
fn matches(result: &Compared, select: &Selected) -> bool {
    select
        .iter()
        .all(|(field, value)| value_at(result, field).is_some_and(|found| is_called(&found, value)))
}

/// The value of a swept field of a result, or the name of its stage without a sweep's values; of a field within a swept
/// object, names are separated by dots.
fn value_at(result: &Compared, field: &str) -> Option<Value> {
    if field == STAGE_LABEL && !result.point.contains_key(STAGE_LABEL) {
        let written = crate::manifest::instance::written(&result.stage);
        return Some(Value::from(written));
    }
    within(&result.point, field).cloned()
}

fn within<'a>(point: &'a Point, path: &str) -> Option<&'a Value> {
    if let Some(value) = point.get(path) {
        return Some(value);
    }
    point.iter().find_map(|(label, value)| {
        let mut names = path.strip_prefix(label.as_str())?.strip_prefix('.')?.split('.');
        names.try_fold(value, |value, name| value.get(name))
    })
}

/// Whether a swept value is the wanted one: a number also as text, an object also by its kind alone.
fn is_called(found: &Value, wanted: &Value) -> bool {
    found == wanted || words(found) == words(wanted)
}

/// Kinds of stages in words, each once: `evaluate or train`.
fn alternatives_of(kinds: &[StageKind]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for kind in kinds {
        if !names.contains(&kind.name()) {
            names.push(kind.name());
        }
    }
    names.join(" or ")
}

/// A swept value as the name of a row or a column.
fn words(value: &Value) -> String {
    match value {
        Value::Null => "default".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            let kind = fields.get(KIND).and_then(Value::as_str).unwrap_or_default();
            let others = fields.iter().filter(|(name, _)| *name != KIND);
            let others = others.map(|(name, value)| format!("{name} {}", words(value)));
            let all: Vec<String> = [kind.to_owned()]
                .into_iter()
                .filter(|kind| !kind.is_empty())
                .chain(others)
                .collect();
            all.join(", ")
        }
        other => other.to_string(),
    }
}

fn listed(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
    names.join(", ")
}

/// A name as a part of a JSON pointer.
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
