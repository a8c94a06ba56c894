//! `compare`: several results → one table, as `compare.json`, `compare.md` and `compare.csv`.
//!
//! A row is an instance of a sweep or a stage of a list. Its columns are what distinguishes it from the others (the swept fields,
//! the stage's name) and the metrics of its artifact, each with its 95% interval. `mdlm compare` shows the same table of
//! what has run so far.
//!
//! Rows that differ in seeds alone are replicates ([`super::replicates`]): a table of means over seeds comes first, and
//! single rows are in the order of the manifest, never by rank.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::evaluate::{EVALUATION, Evaluation, plus_minus};
use super::replicates::{self, Group, Spread, groups, is_seed};
use super::sample::{SUMMARY, Summary};
use super::{Context, Outcome};
use crate::data::{Unit, write_json};
use crate::error::{Context as _, Error, Kind, Result, Wrap};
use crate::evaluate::Interval;
use crate::manifest::{BoundEnds, Compare, Metric, Point};
use crate::plural::counted;
use crate::train::ValidationLine;
use crate::train::checkpoint::METRICS;

/// Version of the stage: a change of what it writes for the same input raises it.
///
/// 1: fields, metrics, intervals. 2: means over seeds; what nats and perplexity are per; a count of one has a noun in the
/// singular.
pub const VERSION: u32 = 2;

/// File name of the table as JSON.
pub const TABLE: &str = "compare.json";
/// The same for people.
pub const TABLE_TEXT: &str = "compare.md";
/// The same for spreadsheets.
const TABLE_CSV: &str = "compare.csv";

/// The metrics, in the order of their columns; by default the first of these that some row has orders a table.
pub const METRICS_IN_ORDER: [Metric; 5] = [
    Metric::BitsPerByte,
    Metric::BitsPerByteNormalized,
    Metric::Perplexity,
    Metric::NatsPerToken,
    Metric::Grammatical,
];

/// What a reader has to know of [`Metric::BitsPerByteNormalized`].
const NORMALIZED: &str = "bits_per_byte_normalized: the tokenizer changes the text (letter case, accents, white space), so that \
    this bounds changed text and does not compare with bits_per_byte";

/// A metric's value with its interval.
pub type Measured = (Metric, Interval);

impl Metric {
    /// Its name in manifests, files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BitsPerByte => "bits_per_byte",
            Self::BitsPerByteNormalized => "bits_per_byte_normalized",
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

    /// Bits per byte, of text or of normalized text.
    fn bits_per_byte(normalized: bool) -> Self {
        if normalized {
            Self::BitsPerByteNormalized
        } else {
            Self::BitsPerByte
        }
    }

    /// Whether more of it is better.
    fn rises(self) -> bool {
        self == Self::Grammatical
    }

    /// Whether what a counted token is changes it.
    fn is_per_token(self) -> bool {
        matches!(self, Self::NatsPerToken | Self::Perplexity)
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

    /// A mean over seeds as people read it, with its standard deviation.
    #[must_use]
    pub fn shown_spread(self, Spread { mean, sd, .. }: Spread) -> String {
        let (scale, unit, decimals) = match self {
            Self::BitsPerByte | Self::BitsPerByteNormalized | Self::NatsPerToken => (1.0, "", 4),
            Self::Perplexity => (1.0, "", four_digits(mean)),
            Self::Grammatical => (100.0, "%", 1),
        };
        let mean = format!("{:.decimals$}", scale * mean);
        match sd {
            Some(sd) => format!("{mean} ± {:.decimals$}{unit}", scale * sd),
            None => format!("{mean}{unit}"),
        }
    }

    /// A value as people read it, with its interval.
    #[must_use]
    pub fn shown(self, interval: Interval) -> String {
        let ends = interval.low.zip(interval.high);
        match self {
            Self::BitsPerByte | Self::BitsPerByteNormalized | Self::NatsPerToken => plus_minus(interval, 4),
            Self::Perplexity => {
                let decimals = four_digits(interval.value);
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

/// The decimals of four digits and no less than the whole: 24.31, 312.5, 10482.
fn four_digits(value: f64) -> usize {
    (3 - value.abs().max(1.0).log10().floor() as i32).max(0) as usize
}

/// A row of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Its name, where its values do not distinguish it from the others.
    pub name: Option<String>,
    /// Its place in its sweep.
    pub point: Point,
    /// What was measured; nothing of a stage that has yet to run.
    pub metrics: Vec<Measured>,
    /// What nats and perplexity are per, where they were measured.
    pub unit: Option<Unit>,
    /// Whether they are the published estimate, which is no bound.
    pub published: bool,
}

/// What an artifact has measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Its metrics; nothing where there was nothing to measure.
    pub metrics: Vec<Measured>,
    /// What nats and perplexity are per, where they were measured.
    pub unit: Option<Unit>,
    /// Whether they are the published estimate, which is no bound.
    pub published: bool,
}

impl Row {
    /// Takes what was measured.
    pub fn take(&mut self, found: Found) {
        let Found {
            metrics,
            unit,
            published,
        } = found;
        self.metrics = metrics;
        self.unit = unit;
        self.published = published;
    }

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
        let found = metrics(folder)?;
        if found.metrics.is_empty() {
            let message = format!("`{}` has no metric to compare", of.stage);
            return Err(Error::input(message).hint(
                "samples are judged where their stage names a `grammar`, trainings where the rows have a `validation` \
                 split",
            ));
        }
        let mut row = Row {
            name: of.name.clone(),
            point: of.point.clone(),
            ..Row::default()
        };
        row.take(found);
        rows.push(row);
    }
    let (by, groups) = arrange(&mut rows, config.sort, |row| row, |row| row.name.clone());
    let groups = groups.as_deref();
    write_json(&context.output.join(TABLE), &table(&rows, by, groups))?;
    for (name, text) in [
        (TABLE_TEXT, markdown(&rows, by, groups)),
        (TABLE_CSV, csv(&rows, groups)),
    ] {
        let path = context.output.join(name);
        fs::write(&path, text).context(|| format!("write `{}`", path.display()))?;
    }
    let mut outcome = Outcome::default();
    outcome.figures.push(("rows".to_owned(), rows.len().to_string()));
    outcome.figures.extend(by.and_then(|by| best(&rows, by, groups)));
    Ok(outcome)
}

/// What is best: of single rows the first; of settings with seeds the first, by its mean.
fn best(rows: &[Row], by: Metric, groups: Option<&[Group]>) -> Option<(String, String)> {
    let Some(groups) = groups else {
        let row = rows.first()?;
        let text = format!("{} ({} {})", row.title(), by.name(), by.shown(row.metric(by)?));
        return Some(("best".to_owned(), text));
    };
    let group = groups.first()?;
    let spread = group.metric(by)?;
    let text = format!(
        "{} {}, mean ± sd of {}",
        by.name(),
        by.shown_spread(spread),
        counted(spread.n, "seed")
    );
    Some(match groups.len() {
        1 => ("mean".to_owned(), text),
        _ => ("best".to_owned(), format!("{} ({text})", group.title())),
    })
}

/// What an artifact of an evaluate, sample or train stage has measured; nothing where there was nothing to measure.
///
/// # Errors
/// One of its files cannot be read.
pub fn metrics(folder: &Path) -> Result<Found> {
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
        return Ok(Found {
            metrics: vec![
                (Metric::bits_per_byte(found.normalized), found.bits_per_byte),
                (Metric::Perplexity, found.perplexity),
                (Metric::NatsPerToken, found.nats_per_token),
            ],
            unit: Some(found.unit),
            published: found.bound == BoundEnds::Published,
        });
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
        return Ok(Found {
            metrics: judged.into_iter().collect(),
            ..Found::default()
        });
    }
    let Some(text) = read(METRICS)? else {
        return Ok(Found::default());
    };
    let last = text
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str::<ValidationLine>(line).ok());
    Ok(last.map_or_else(Found::default, |line| {
        let found = line.validation;
        let nats = Interval {
            value: found.nats_per_token,
            low: found.low,
            high: found.high,
        };
        // Bits per byte are proportional to nats per token, but for what spells out lost text.
        let lost = found.lost_bits_per_byte;
        let bits = nats.map(|end| end * (found.bits_per_byte - lost) / found.nats_per_token + lost);
        Found {
            metrics: vec![
                (Metric::bits_per_byte(found.normalized), bits),
                (Metric::NatsPerToken, nats),
            ],
            unit: Some(found.unit),
            published: false,
        }
    }))
}

/// Puts rows into the order of a table and says by which metric: the best first ([`order`]); where some differ in seeds
/// alone, the best mean over seeds first, and the rows of a group as they were. The groups' rows are those of the new
/// order. Rows go together whose `name` is the same.
pub fn arrange<T>(
    rows: &mut Vec<T>,
    by: Option<Metric>,
    row: impl Fn(&T) -> &Row,
    name: impl Fn(&T) -> Option<String>,
) -> (Option<Metric>, Option<Vec<Group>>) {
    let all: Vec<&Row> = rows.iter().map(&row).collect();
    let Some(mut groups) = groups(&all, |index| name(&rows[index])) else {
        return (order(rows, by, row), None);
    };
    let by = ordering(by, &all);
    if let Some(by) = by {
        replicates::order(&mut groups, by);
    }
    let mut old: Vec<Option<T>> = std::mem::take(rows).into_iter().map(Some).collect();
    for place in groups.iter_mut().flat_map(|group| &mut group.rows) {
        let row = old[*place].take();
        *place = rows.len();
        rows.extend(row);
    }
    (by, Some(groups))
}

/// The metric that orders rows: the one asked for, else the first that some row has. Where all of them are bounds on
/// normalized text, bits per byte are those.
fn ordering(by: Option<Metric>, rows: &[&Row]) -> Option<Metric> {
    let measured = measured(rows);
    match by {
        Some(Metric::BitsPerByte)
            if !measured.contains(&Metric::BitsPerByte)
                && measured.contains(&Metric::BitsPerByteNormalized) =>
        {
            Some(Metric::BitsPerByteNormalized)
        }
        Some(by) => Some(by),
        None => measured.first().copied(),
    }
}

/// What must be said about the metrics of some rows: what they are per, and which are no bounds.
#[must_use]
pub fn remarks(rows: &[&Row]) -> Vec<String> {
    let mut remarks = Vec::new();
    let per_token: Vec<_> = measured(rows)
        .into_iter()
        .filter(|metric| metric.is_per_token())
        .map(Metric::name)
        .collect();
    let per_token = per_token.join(" and ");
    let count = |unit| rows.iter().filter(|row| row.unit == Some(unit)).count();
    match [Unit::Token, Unit::Position].map(|unit| (unit.name(), count(unit))) {
        _ if per_token.is_empty() => {}
        [(_, 0), (_, 0)] => {}
        [(unit, 1..), (_, 0)] | [(_, 0), (unit, 1..)] => remarks.push(format!("{per_token}: {unit}")),
        [(token, some), (position, others)] => remarks.push(format!(
            "{per_token}: {token} in {}, {position} in {others}; the two do not compare",
            counted(some, "row")
        )),
    }
    if measured(rows).contains(&Metric::BitsPerByteNormalized) {
        remarks.push(NORMALIZED.to_owned());
    }
    let published = rows.iter().filter(|row| row.published).count();
    if published > 0 {
        remarks.push(format!(
            "the published estimate in {published} of {}: it is lower than a bound and is none, so that it comes last",
            counted(rows.len(), "row")
        ));
    }
    remarks
}

/// Puts the best first, by a metric or by the first that some row has, and says by which; rows without it come last, in
/// the order in which they were.
pub fn order<T>(rows: &mut [T], by: Option<Metric>, row: impl Fn(&T) -> &Row) -> Option<Metric> {
    let by = ordering(by, &rows.iter().map(&row).collect::<Vec<_>>())?;
    let value = |one: &T, by| row(one).metric(by).map(|interval| interval.value);
    rows.sort_by(|a, b| {
        // What is no bound comes after bounds.
        let order = row(a).published.cmp(&row(b).published);
        let order = order.then_with(|| by.order(value(a, by), value(b, by)));
        // Bounds on normalized text, all lower than those on the text itself, come after them.
        order.then_with(|| {
            let by = Metric::BitsPerByteNormalized;
            by.order(value(a, by), value(b, by))
        })
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
    /// The metric that orders the rows, the best first; where there are groups, the groups.
    sorted_by: Option<Metric>,
    /// Rows that differ in seeds alone, with means over seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupReport<'a>>>,
    rows: Vec<TableRow<'a>>,
}

/// A group of rows that differ in seeds alone, as JSON.
#[derive(Serialize)]
pub struct GroupReport<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// Values without seeds.
    point: &'a Point,
    /// Places of its rows, from 0.
    rows: &'a [usize],
    /// By metric: mean, standard deviation over seeds (n − 1), n.
    metrics: Map<String, Value>,
}

impl<'a> GroupReport<'a> {
    /// The group as JSON has it.
    #[must_use]
    pub fn of(group: &'a Group) -> Self {
        let metrics = group.metrics.iter();
        Self {
            name: group.name.as_deref(),
            point: &group.point,
            rows: &group.rows,
            metrics: metrics
                .map(|(metric, spread)| (metric.name().to_owned(), json!(spread)))
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct TableRow<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    point: &'a Point,
    metrics: Map<String, Value>,
    /// What nats and perplexity are per.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
    /// Whether they are the published estimate, which is no bound.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    published: bool,
}

fn table<'a>(rows: &'a [Row], sorted_by: Option<Metric>, groups: Option<&'a [Group]>) -> Table<'a> {
    let groups = groups.map(|groups| groups.iter().map(GroupReport::of).collect());
    let rows = rows
        .iter()
        .map(|row| TableRow {
            name: row.name.as_deref(),
            point: &row.point,
            metrics: metrics_json(&row.metrics),
            unit: row.unit,
            published: row.published,
        })
        .collect();
    Table {
        sorted_by,
        groups,
        rows,
    }
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
fn markdown(rows: &[Row], by: Option<Metric>, groups: Option<&[Group]>) -> String {
    let all: Vec<&Row> = rows.iter().collect();
    let (differ, same) = fields(&all);
    let metrics = measured(&all);
    let named = rows.iter().any(|row| row.name.is_some());
    let heading = |fields: &[&str]| -> Vec<String> {
        let names = metrics.iter().map(|metric| metric.name());
        let stage = named.then_some("stage");
        stage
            .into_iter()
            .chain(fields.iter().copied())
            .chain(names)
            .map(escaped)
            .collect()
    };
    let mut text = format!("# {}\n\n", counted(rows.len(), "result"));
    match (by, groups) {
        (Some(by), None) => {
            let _ = writeln!(text, "The best `{}` first.\n", by.name());
        }
        (by, Some(groups)) => {
            let first = by.filter(|_| groups.len() > 1);
            let first = first.map_or(String::new(), |by| {
                format!(", the best mean `{}` first", by.name())
            });
            let _ = writeln!(
                text,
                "{}: mean ± standard deviation over seeds{first}.\n",
                replicates::counted(groups)
            );
        }
        (None, None) => {}
    }
    for (label, value) in &same {
        let _ = writeln!(
            text,
            "The same in all: {} {}.\n",
            escaped(label),
            escaped(cell(value))
        );
    }
    if let Some(groups) = groups {
        let settings: Vec<&str> = differ.iter().copied().filter(|label| !is_seed(label)).collect();
        let columns: Vec<&str> = settings.iter().copied().chain(["seeds"]).collect();
        let lines = groups.iter().map(|group| {
            let name = named.then(|| group.name.clone().unwrap_or_default());
            let values = settings
                .iter()
                .map(|label| group.point.get(*label).map_or_else(String::new, cell));
            let seeds = group
                .metrics
                .first()
                .map_or(0, |(_, spread)| spread.n)
                .to_string();
            let metrics = metrics.iter().map(|metric| {
                group
                    .metric(*metric)
                    .map_or_else(String::new, |found| metric.shown_spread(found))
            });
            name.into_iter()
                .chain(values)
                .chain([seeds])
                .chain(metrics)
                .collect()
        });
        write_table(&mut text, &heading(&columns), lines);
        let _ = writeln!(
            text,
            "\n{}\n\nThe single results, as the manifest has them and by no rank:\n",
            replicates::WHAT_IS_SPREAD
        );
    }
    let lines = rows.iter().map(|row| {
        let name = named.then(|| row.name.clone().unwrap_or_default());
        let values = differ
            .iter()
            .map(|label| row.point.get(*label).map_or_else(String::new, cell));
        let metrics = metrics.iter().map(|metric| {
            row.metric(*metric)
                .map_or_else(String::new, |found| metric.shown(found))
        });
        name.into_iter().chain(values).chain(metrics).collect()
    });
    write_table(&mut text, &heading(&differ), lines);
    text.push_str(
        "\nIntervals are at 95%, each for its row alone: they do not cover what another seed changes.\n",
    );
    for remark in remarks(&all) {
        let _ = writeln!(text, "\nNote: {remark}.");
    }
    text
}

/// Appends a table.
fn write_table(text: &mut String, heading: &[String], lines: impl Iterator<Item = Vec<String>>) {
    let _ = writeln!(
        text,
        "| {} |\n|{}",
        heading.join(" | "),
        "---|".repeat(heading.len())
    );
    for line in lines {
        let cells: Vec<_> = line.iter().map(escaped).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
}

fn escaped(text: impl AsRef<str>) -> String {
    text.as_ref().replace('|', "\\|").replace('\n', " ")
}

/// The table as CSV (RFC 4180): numbers in full, the ends of intervals in columns of their own; where there are groups,
/// those of its group behind each row.
fn csv(rows: &[Row], groups: Option<&[Group]>) -> String {
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
    for metric in metrics.iter().filter(|_| groups.is_some()) {
        let name = metric.name();
        heading.extend(["mean", "sd", "seeds"].map(|what| format!("{name}_{what}")));
    }
    let units = rows.iter().any(|row| row.unit.is_some());
    heading.extend(units.then(|| "unit".to_owned()));
    let mut lines = vec![heading];
    for (index, row) in rows.iter().enumerate() {
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
        if let Some(groups) = groups {
            let group = groups.iter().find(|group| group.rows.contains(&index));
            for metric in &metrics {
                let found = group.and_then(|group| group.metric(*metric));
                line.extend([
                    found.map_or_else(String::new, |spread| spread.mean.to_string()),
                    found
                        .and_then(|spread| spread.sd)
                        .map_or_else(String::new, |sd| sd.to_string()),
                    found.map_or_else(String::new, |spread| spread.n.to_string()),
                ]);
            }
        }
        line.extend(units.then(|| row.unit.map_or_else(String::new, |unit| unit.name().to_owned())));
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
            ..Row::default()
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
        insta::assert_snapshot!(markdown(&rows, by, None), @r"
        # 3 results

        The best `bits_per_byte` first.

        The same in all: seed 1.

        | rate | note | bits_per_byte |
        |---|---|---|
        | 0.3 | x | 1.2500 ± 0.1250 |
        | 0.1 | a,b\|c | 2.0000 ± 0.5000 |
        | 0.2 | default |  |

        Intervals are at 95%, each for its row alone: they do not cover what another seed changes.
        ");
        insta::assert_snapshot!(csv(&rows, None).replace('\r', ""), @r#"
        rate,note,seed,bits_per_byte,bits_per_byte_low,bits_per_byte_high
        0.3,x,1,1.25,1.125,1.375
        0.1,"a,b|c",1,2,1.5,2.5
        0.2,default,1,,,
        "#);
        let text = serde_json::to_string(&table(&rows[..1], by, None)).unwrap();
        assert_eq!(
            text,
            r#"{"sorted_by":"bits_per_byte","rows":[{"point":{"rate":0.3,"note":{"kind":"x"},"seed":1},"metrics":{"bits_per_byte":{"value":1.25,"low":1.125,"high":1.375}}}]}"#
        );
    }

    #[test]
    fn seeds_have_a_mean_and_no_rank() {
        let one = |rate, seed, bits| row(None, &json!({ "rate": rate, "seed": seed }), Some((bits, 0.125)));
        // The best of all is a seed of the setting that is worse.
        let mut rows = vec![
            one(1, 1, 2.5),
            one(1, 2, 1.0),
            one(1, 3, 4.0),
            one(2, 1, 1.5),
            one(2, 2, 1.25),
        ];
        for row in &mut rows {
            row.unit = Some(Unit::Position);
            row.metrics
                .push((Metric::Perplexity, row.metrics[0].1.map(f64::exp)));
        }
        let (by, groups) = arrange(&mut rows, None, |row| row, |row| row.name.clone());
        insta::assert_snapshot!(markdown(&rows, by, groups.as_deref()));
        insta::assert_snapshot!(csv(&rows, groups.as_deref()).replace('\r', ""));
        let told = best(&rows, Metric::BitsPerByte, groups.as_deref()).unwrap();
        assert_eq!(told.0, "best");
        assert_eq!(
            told.1,
            "rate 2 (bits_per_byte 1.3750 ± 0.1768, mean ± sd of 2 seeds)"
        );
        let text = serde_json::to_value(table(&rows, by, groups.as_deref())).unwrap();
        assert_eq!(text["groups"][0]["point"], json!({ "rate": 2 }));
        assert_eq!(text["groups"][1]["rows"], json!([2, 3, 4]));
        assert_eq!(
            text["groups"][1]["metrics"]["bits_per_byte"],
            json!({ "mean": 2.5, "sd": 1.5, "n": 3 })
        );
        assert_eq!(text["rows"][2]["point"]["seed"], 1);
        // Of seeds alone there is no best.
        let (by, groups) = arrange(&mut rows.split_off(2), None, |row| row, |_| None);
        assert_eq!(
            best(&[], by.unwrap(), groups.as_deref()).unwrap(),
            (
                "mean".to_owned(),
                "bits_per_byte 2.5000 ± 1.5000, mean ± sd of 3 seeds".to_owned()
            )
        );
    }

    #[test]
    fn what_numbers_are_per_is_said() {
        let with = |unit, published| Row {
            unit: Some(unit),
            published,
            metrics: vec![(
                Metric::Perplexity,
                row(None, &json!({}), Some((1.0, 0.5))).metrics[0].1,
            )],
            ..Row::default()
        };
        let (token, position) = (with(Unit::Token, false), with(Unit::Position, true));
        assert_eq!(remarks(&[&token]), ["perplexity: per token of text"]);
        assert_eq!(
            remarks(&[&token, &position]),
            [
                "perplexity: per token of text in 1 row, per position, padding included in 1; the two do not compare",
                "the published estimate in 1 of 2 rows: it is lower than a bound and is none, so that it comes last"
            ]
        );
        assert!(remarks(&[&Row::default()]).is_empty());
        let mut rows = [position, token];
        rows[0].metrics[0].1.value = 0.5;
        order(&mut rows, None, |row| row);
        assert!(!rows[0].published, "the lower number is no bound");
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
            ..Row::default()
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
