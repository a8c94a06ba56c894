//! `compare`: several results → one table, as `compare.json`, `compare.md` and `compare.csv`.
//!
//! A row is an instance of a sweep or a stage of a list. Its columns are what tells it from the others (the swept fields,
//! the stage's name) and the metrics of its artifact, each with its 95% interval. `mdlm compare` shows the same table of
//! what has run so far.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::evaluate::{EVALUATION, Evaluation, plus_minus};
use super::sample::{SUMMARY, Summary};
use super::{Context, Outcome};
use crate::data::write_json;
use crate::error::{Context as _, Error, Kind, Result, Wrap};
use crate::evaluate::Interval;
use crate::manifest::{Compare, Metric, Point};
use crate::train::ValidationLine;
use crate::train::checkpoint::METRICS;

/// Version of the stage: a change of what it writes for the same input raises it.
///
/// 1: fields, metrics, intervals.
pub const VERSION: u32 = 1;

/// File name of the table as JSON.
pub const TABLE: &str = "compare.json";
/// The same for people.
pub const TABLE_TEXT: &str = "compare.md";
/// The same for spreadsheets.
const TABLE_CSV: &str = "compare.csv";

/// The metrics, in the order of their columns; of these the first that some row has orders a table unless told.
pub const METRICS_IN_ORDER: [Metric; 4] = [
    Metric::BitsPerByte,
    Metric::Perplexity,
    Metric::NatsPerToken,
    Metric::Grammatical,
];

/// A metric's value with its interval.
pub type Measured = (Metric, Interval);

impl Metric {
    /// Its name in manifests, files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BitsPerByte => "bits_per_byte",
            Self::NatsPerToken => "nats_per_token",
            Self::Perplexity => "perplexity",
            Self::Grammatical => "grammatical",
        }
    }

    /// The metric of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        METRICS_IN_ORDER.into_iter().find(|metric| metric.name() == name)
    }

    /// Whether more of it is better.
    fn rises(self) -> bool {
        self == Self::Grammatical
    }

    /// A value as people read it, with its interval.
    #[must_use]
    pub fn shown(self, interval: Interval) -> String {
        let ends = interval.low.zip(interval.high);
        match self {
            Self::BitsPerByte | Self::NatsPerToken => plus_minus(interval, 4),
            Self::Perplexity => {
                // Four digits and no less than the whole: 24.31, 312.5, 10482.
                let decimals = (3 - interval.value.abs().max(1.0).log10().floor() as i32).max(0) as usize;
                match ends {
                    Some((low, high)) => {
                        format!(
                            "{:.decimals$} ({low:.decimals$}–{high:.decimals$})",
                            interval.value
                        )
                    }
                    None => format!("{:.decimals$}", interval.value),
                }
            }
            Self::Grammatical => match ends {
                Some((low, high)) => format!(
                    "{:.1}% ({:.1}–{:.1}%)",
                    100.0 * interval.value,
                    100.0 * low,
                    100.0 * high
                ),
                None => format!("{:.1}%", 100.0 * interval.value),
            },
        }
    }
}

/// A row of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is called, where its values do not tell it from the others.
    pub name: Option<String>,
    /// Its place in its sweep.
    pub point: Point,
    /// What was measured; nothing of a stage that has yet to run.
    pub metrics: Vec<Measured>,
}

impl Row {
    /// The value of a metric.
    #[must_use]
    pub fn metric(&self, metric: Metric) -> Option<Interval> {
        let found = self.metrics.iter().find(|(other, _)| *other == metric);
        found.map(|(_, interval)| *interval)
    }

    /// What it is called: its name and its values.
    #[must_use]
    pub fn title(&self) -> String {
        let values = self
            .point
            .iter()
            .map(|(label, value)| format!("{label} {}", cell(value)));
        let name = self.name.iter().cloned();
        name.chain(values).collect::<Vec<_>>().join(", ")
    }
}

/// Runs the stage.
///
/// # Errors
/// A consumed artifact cannot be read or has nothing to compare.
pub fn run(config: &Compare, context: &Context<'_>) -> Result<Outcome> {
    let mut rows = Vec::new();
    for (of, (_, folder)) in config.of.iter().zip(context.inputs) {
        let metrics = metrics(folder)?;
        if metrics.is_empty() {
            let message = format!("`{}` has no metric to compare", of.stage);
            return Err(Error::input(message).hint(
                "samples are judged where their stage names a `grammar`, trainings where the rows have a `validation` \
                 split",
            ));
        }
        rows.push(Row {
            name: of.name.clone(),
            point: of.point.clone(),
            metrics,
        });
    }
    let by = order(&mut rows, config.sort, |row| row);
    write_json(&context.output.join(TABLE), &table(&rows, by))?;
    for (name, text) in [(TABLE_TEXT, markdown(&rows, by)), (TABLE_CSV, csv(&rows))] {
        let path = context.output.join(name);
        fs::write(&path, text).context(|| format!("write `{}`", path.display()))?;
    }
    let mut outcome = Outcome::default();
    outcome.figures.push(("rows".to_owned(), rows.len().to_string()));
    if let (Some(by), Some(best)) = (by, rows.first())
        && let Some(interval) = best.metric(by)
    {
        let told = format!("{} ({} {})", best.title(), by.name(), by.shown(interval));
        outcome.figures.push(("best".to_owned(), told));
    }
    Ok(outcome)
}

/// What an artifact of an evaluate, sample or train stage has measured; nothing where there was nothing to measure.
///
/// # Errors
/// One of its files cannot be read.
pub fn metrics(folder: &Path) -> Result<Vec<Measured>> {
    let read = |name: &str| -> Result<Option<String>> {
        let path = folder.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).wrap(Kind::Environment, || format!("read `{}`", path.display())),
        }
    };
    let damaged = |name: &str| format!("read `{}`", folder.join(name).display());
    if let Some(text) = read(EVALUATION)? {
        let found: Evaluation =
            serde_json::from_str(&text).wrap(Kind::Environment, || damaged(EVALUATION))?;
        return Ok(vec![
            (Metric::BitsPerByte, found.bits_per_byte),
            (Metric::Perplexity, found.perplexity),
            (Metric::NatsPerToken, found.nats_per_token),
        ]);
    }
    if let Some(text) = read(SUMMARY)? {
        let found: Summary = serde_json::from_str(&text).wrap(Kind::Environment, || damaged(SUMMARY))?;
        let judged = found.grammar.and_then(|judgement| {
            let share = Interval {
                value: judgement.share?,
                low: judgement.low,
                high: judgement.high,
            };
            Some((Metric::Grammatical, share))
        });
        return Ok(judged.into_iter().collect());
    }
    let Some(text) = read(METRICS)? else {
        return Ok(Vec::new());
    };
    let last = text
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str::<ValidationLine>(line).ok());
    Ok(last.map_or_else(Vec::new, |line| {
        let found = line.validation;
        let nats = Interval {
            value: found.nats_per_token,
            low: found.low,
            high: found.high,
        };
        // Bits per byte are proportional to nats per token.
        let bits = nats.map(|end| end * found.bits_per_byte / found.nats_per_token);
        vec![(Metric::BitsPerByte, bits), (Metric::NatsPerToken, nats)]
    }))
}

/// Puts the best first, by a metric or by the first that some row has, and says by which; rows without it come last, in
/// the order in which they were.
pub fn order<T>(rows: &mut [T], by: Option<Metric>, row: impl Fn(&T) -> &Row) -> Option<Metric> {
    let by = by.or_else(|| {
        METRICS_IN_ORDER
            .into_iter()
            .find(|metric| rows.iter().any(|one| row(one).metric(*metric).is_some()))
    })?;
    let value = |one: &T| row(one).metric(by).map(|interval| interval.value);
    rows.sort_by(|a, b| match (value(a), value(b)) {
        (Some(a), Some(b)) if by.rises() => b.total_cmp(&a),
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    });
    Some(by)
}

/// The swept fields: those that differ, and those that are the same in all rows with their value.
#[must_use]
pub fn fields<'a>(rows: &[&'a Row]) -> (Vec<&'a str>, Vec<(&'a str, &'a Value)>) {
    let mut labels: Vec<&str> = Vec::new();
    for label in rows.iter().flat_map(|row| row.point.keys()) {
        if !labels.contains(&label.as_str()) {
            labels.push(label);
        }
    }
    let (mut differ, mut same) = (Vec::new(), Vec::new());
    for label in labels {
        let mut values = rows.iter().map(|row| row.point.get(label));
        let first = values.next().flatten();
        match first {
            Some(value) if rows.len() > 1 && values.all(|other| other == first) => same.push((label, value)),
            _ => differ.push(label),
        }
    }
    (differ, same)
}

/// The metrics that some row has, in the order of columns.
#[must_use]
pub fn measured(rows: &[&Row]) -> Vec<Metric> {
    METRICS_IN_ORDER
        .into_iter()
        .filter(|metric| rows.iter().any(|row| row.metric(*metric).is_some()))
        .collect()
}

/// A swept value as people read it.
#[must_use]
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "default".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("kind") => cell(&fields["kind"]),
        other => other.to_string(),
    }
}

/// `compare.json`.
#[derive(Serialize)]
struct Table<'a> {
    /// The metric that orders the rows, the best first.
    sorted_by: Option<Metric>,
    rows: Vec<TableRow<'a>>,
}

#[derive(Serialize)]
struct TableRow<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    point: &'a Point,
    metrics: Map<String, Value>,
}

fn table(rows: &[Row], sorted_by: Option<Metric>) -> Table<'_> {
    let rows = rows
        .iter()
        .map(|row| TableRow {
            name: row.name.as_deref(),
            point: &row.point,
            metrics: metrics_json(&row.metrics),
        })
        .collect();
    Table { sorted_by, rows }
}

/// Metrics by name, each with the ends of its interval.
#[must_use]
pub fn metrics_json(metrics: &[Measured]) -> Map<String, Value> {
    metrics
        .iter()
        .map(|(metric, interval)| (metric.name().to_owned(), json!(interval)))
        .collect()
}

/// The table as Markdown.
fn markdown(rows: &[Row], by: Option<Metric>) -> String {
    let all: Vec<&Row> = rows.iter().collect();
    let (differ, same) = fields(&all);
    let metrics = measured(&all);
    let named = rows.iter().any(|row| row.name.is_some());
    let heading: Vec<String> = named
        .then_some("stage")
        .into_iter()
        .chain(differ.iter().copied())
        .chain(metrics.iter().map(|metric| metric.name()))
        .map(escaped)
        .collect();
    let mut text = format!("# {} results\n\n", rows.len());
    if let Some(by) = by {
        let _ = writeln!(text, "The best `{}` first.\n", by.name());
    }
    for (label, value) in &same {
        let _ = writeln!(
            text,
            "The same in all: {} {}.\n",
            escaped(label),
            escaped(cell(value))
        );
    }
    let _ = writeln!(
        text,
        "| {} |\n|{}",
        heading.join(" | "),
        "---|".repeat(heading.len())
    );
    for row in rows {
        let name = named.then(|| row.name.clone().unwrap_or_default());
        let values = differ
            .iter()
            .map(|label| row.point.get(*label).map_or_else(String::new, cell));
        let metrics = metrics.iter().map(|metric| {
            row.metric(*metric)
                .map_or_else(String::new, |found| metric.shown(found))
        });
        let cells: Vec<_> = name
            .into_iter()
            .chain(values)
            .chain(metrics)
            .map(|cell| escaped(&cell))
            .collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text.push_str("\nIntervals are at 95%, each for its row alone.\n");
    text
}

fn escaped(text: impl AsRef<str>) -> String {
    text.as_ref().replace('|', "\\|").replace('\n', " ")
}

/// The table as CSV (RFC 4180): numbers in full, the ends of intervals in columns of their own.
fn csv(rows: &[Row]) -> String {
    let all: Vec<&Row> = rows.iter().collect();
    let (differ, same) = fields(&all);
    let metrics = measured(&all);
    let named = rows.iter().any(|row| row.name.is_some());
    let labels: Vec<&str> = differ
        .into_iter()
        .chain(same.into_iter().map(|(label, _)| label))
        .collect();
    let mut heading: Vec<String> = named.then(|| "stage".to_owned()).into_iter().collect();
    heading.extend(labels.iter().map(|&label| label.to_owned()));
    for metric in &metrics {
        let name = metric.name();
        heading.extend([name.to_owned(), format!("{name}_low"), format!("{name}_high")]);
    }
    let mut lines = vec![heading];
    for row in rows {
        let mut line: Vec<String> = named
            .then(|| row.name.clone().unwrap_or_default())
            .into_iter()
            .collect();
        line.extend(
            labels
                .iter()
                .map(|label| row.point.get(*label).map_or_else(String::new, cell)),
        );
        for metric in &metrics {
            let found = row.metric(*metric);
            let number = |number: Option<f64>| number.map_or_else(String::new, |number| number.to_string());
            line.extend([
                number(found.map(|found| found.value)),
                number(found.and_then(|found| found.low)),
                number(found.and_then(|found| found.high)),
            ]);
        }
        lines.push(line);
    }
    let quoted = |field: &String| {
        if field.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", field.replace('"', "\"\""))
        } else {
            field.clone()
        }
    };
    lines
        .iter()
        .map(|line| line.iter().map(quoted).collect::<Vec<_>>().join(",") + "\r\n")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: Option<&str>, point: &Value, bits: Option<(f64, f64)>) -> Row {
        Row {
            name: name.map(str::to_owned),
            point: point
                .as_object()
                .unwrap()
                .iter()
                .map(|(label, value)| (label.clone(), value.clone()))
                .collect(),
            metrics: bits
                .map(|(value, half)| {
                    let interval = Interval {
                        value,
                        low: Some(value - half),
                        high: Some(value + half),
                    };
                    (Metric::BitsPerByte, interval)
                })
                .into_iter()
                .collect(),
        }
    }

    #[test]
    fn tables_put_the_best_first_and_say_what_differs() {
        let mut rows = vec![
            row(
                None,
                &json!({ "rate": 0.1, "note": "a,b|c", "seed": 1 }),
                Some((2.0, 0.5)),
            ),
            row(None, &json!({ "rate": 0.2, "note": null, "seed": 1 }), None),
            row(
                None,
                &json!({ "rate": 0.3, "note": { "kind": "x" }, "seed": 1 }),
                Some((1.25, 0.125)),
            ),
        ];
        let by = order(&mut rows, None, |row| row);
        assert_eq!(by, Some(Metric::BitsPerByte));
        insta::assert_snapshot!(markdown(&rows, by), @r"
        # 3 results

        The best `bits_per_byte` first.

        The same in all: seed 1.

        | rate | note | bits_per_byte |
        |---|---|---|
        | 0.3 | x | 1.2500 ± 0.1250 |
        | 0.1 | a,b\|c | 2.0000 ± 0.5000 |
        | 0.2 | default |  |

        Intervals are at 95%, each for its row alone.
        ");
        insta::assert_snapshot!(csv(&rows).replace('\r', ""), @r#"
        rate,note,seed,bits_per_byte,bits_per_byte_low,bits_per_byte_high
        0.3,x,1,1.25,1.125,1.375
        0.1,"a,b|c",1,2,1.5,2.5
        0.2,default,1,,,
        "#);
        let text = serde_json::to_string(&table(&rows[..1], by)).unwrap();
        assert_eq!(
            text,
            r#"{"sorted_by":"bits_per_byte","rows":[{"point":{"rate":0.3,"note":{"kind":"x"},"seed":1},"metrics":{"bits_per_byte":{"value":1.25,"low":1.125,"high":1.375}}}]}"#
        );
    }

    #[test]
    fn of_accepted_records_more_is_better() {
        let share = |value| Row {
            name: Some(format!("{value}")),
            point: Point::new(),
            metrics: vec![(
                Metric::Grammatical,
                Interval {
                    value,
                    low: None,
                    high: None,
                },
            )],
        };
        let mut rows = [share(0.25), share(0.75), share(0.5)];
        assert_eq!(order(&mut rows, None, |row| row), Some(Metric::Grammatical));
        assert_eq!(rows.map(|row| row.title()), ["0.75", "0.5", "0.25"]);
        assert_eq!(Metric::Grammatical.shown(share(0.5).metrics[0].1), "50.0%");
    }

    #[test]
    fn perplexities_have_four_digits() {
        let shown = |value: f64| {
            Metric::Perplexity.shown(Interval {
                value,
                low: Some(value / 2.0),
                high: Some(value * 2.0),
            })
        };
        assert_eq!(
            [1.0, 24.3125, 312.54, 10482.2].map(shown),
            [
                "1.000 (0.500–2.000)",
                "24.31 (12.16–48.62)",
                "312.5 (156.3–625.1)",
                "10482 (5241–20964)"
            ]
        );
        assert_eq!(shown(f64::INFINITY), "inf (inf–inf)");
    }

    #[test]
    fn names_of_metrics_are_those_of_manifests() {
        for metric in METRICS_IN_ORDER {
            assert_eq!(json!(metric), metric.name());
            assert_eq!(Metric::find(metric.name()), Some(metric));
        }
    }
}
