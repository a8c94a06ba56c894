//! Tables as JSON.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::rows::ShownComparison;
use mdlm::data::Unit;
use mdlm::evaluate::Quantity;
use mdlm::manifest::Point;
use mdlm::stages::compare::{ComparedText, TableHead, metrics_json};
use mdlm::store::Digest;

/// What `--json` prints, for every kind of stage.
#[derive(Serialize)]
pub struct TableReport<'a> {
    kind: &'static str,
    #[serde(flatten)]
    head: TableHead<'a>,
    rows: Vec<RowReport<'a>>,
}

#[derive(Serialize)]
struct RowReport<'a> {
    manifest: &'a str,
    stage: &'a str,
    point: &'a Point,
    /// `done`, `remote only` (made, its files are not in the store) or `not run`.
    status: &'static str,
    why: Option<&'a str>,
    metrics: Map<String, Value>,
    /// What the measured model was trained for; `mdlm` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    objective: Option<&'a str>,
    /// Whether its likelihood is exact or bounded; bounded where absent.
    #[serde(skip_serializing_if = "Quantity::is_bound")]
    quantity: Quantity,
    /// What nats and perplexity are per.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
    /// Whether they are per scored token: the first token of each row was given.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    scored: bool,
    /// Whether the lengths of the records were given.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    given_lengths: bool,
    /// Whether they are the published estimate, which is not a bound.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    published: bool,
    /// The training whose model was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Digest>,
    /// The tokenizer of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokenizer: Option<Digest>,
    /// Whether rows began with context, so that their BOS and EOS were not scored.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    context: bool,
    /// Rows of text that were evaluated, the tokens that were scored in them, and their words where they are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<u64>,
    /// The text that was evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<ComparedText>,
    /// What of the bits per byte spells out text that the tokenizer lost.
    #[serde(skip_serializing_if = "mdlm::data::is_nought")]
    lost_bits_per_byte: f64,
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed_from: Option<u64>,
    artifact: Option<Digest>,
    path: Option<&'a Path>,
}

/// A table, to be printed as JSON.
#[must_use]
pub fn report(table: &ShownComparison) -> TableReport<'_> {
    TableReport {
        kind: table.rows.first().map_or("", |row| row.kind.name()),
        head: table.head(),
        rows: table
            .rows
            .iter()
            .map(|shown| RowReport {
                manifest: &shown.manifest,
                stage: &shown.stage,
                point: &shown.row.point,
                status: shown.status,
                why: shown.why.as_deref(),
                metrics: metrics_json(&shown.row.metrics),
                objective: shown.row.objective.as_deref(),
                quantity: shown.row.quantity,
                unit: shown.row.unit,
                scored: shown.row.scored,
                given_lengths: shown.row.given_lengths,
                published: shown.row.published,
                model: shown.row.model,
                tokenizer: shown.row.tokenizer,
                context: shown.row.context,
                rows: shown.row.rows,
                tokens: shown.row.tokens,
                words: shown.row.words,
                text: shown.row.text,
                lost_bits_per_byte: shown.row.lost_bits_per_byte,
                seconds: shown.seconds,
                resumed_from: shown.resumed_from,
                artifact: shown.artifact,
                path: shown.path.as_deref(),
            })
            .collect(),
    }
}
