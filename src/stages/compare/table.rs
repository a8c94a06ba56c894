//! The table as files: JSON, Markdown, CSV.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::group::{self, Group};
use super::{
    Column, Comparison, Difference, METRICS_IN_ORDER, Measured, Row, Verdict, are_signed, fields, measured,
    remarks, shown_differences, verdict::VerdictReport,
};
use crate::evaluate::Interval;
use crate::manifest::{Metric, Point};
use crate::plural::counted;

/// `compare.json`.
#[derive(Serialize)]
pub(super) struct ComparisonFile<'a> {
    #[serde(flatten)]
    head: TableHead<'a>,
    rows: &'a [Row],
}

/// What a table states beside its rows, as JSON.
#[derive(Serialize)]
pub struct TableHead<'a> {
    /// The metric that orders the rows; where there are groups, the groups.
    sorted_by: Option<Metric>,
    /// Whether the first of them is clearly different from the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<VerdictReport<'a>>,
    /// Rows that differ in seeds alone, with means over seeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupReport<'a>>>,
    /// Differences from the first, row by row of the same text.
    #[serde(skip_serializing_if = "<[Difference]>::is_empty")]
    differences: &'a [Difference],
}

impl<T> Comparison<T> {
    /// What the table states beside its rows, as JSON has it.
    #[must_use]
    pub fn head(&self) -> TableHead<'_> {
        let groups = self.groups.as_deref();
        TableHead {
            sorted_by: self.by,
            verdict: self.verdict.as_ref().map(Verdict::report),
            groups: groups.map(|groups| groups.iter().map(GroupReport::of).collect()),
            differences: &self.differences,
        }
    }
}

/// A group of rows that differ in seeds alone, as JSON.
#[derive(Serialize)]
struct GroupReport<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    /// Values without seeds.
    point: &'a Point,
    /// Places of its rows, from 0.
    rows: &'a [usize],
    /// How many values of each seed that differs.
    seeds: Map<String, Value>,
    /// By metric: mean, standard deviation over seeds, n, standard error of the mean.
    metrics: Map<String, Value>,
}

impl<'a> GroupReport<'a> {
    fn of(group: &'a Group) -> Self {
        let metrics = group.metrics.iter();
        Self {
            name: group.name.as_deref(),
            point: &group.point,
            rows: &group.rows,
            seeds: group
                .seeds
                .iter()
                .map(|(label, _, count)| (label.clone(), json!(count)))
                .collect(),
            metrics: metrics
                .map(|(metric, spread)| (metric.name().to_owned(), json!(spread)))
                .collect(),
        }
    }
}

/// Metrics by name, each with the ends of its interval.
pub(super) mod by_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::{Map, Value};

    use super::{Interval, METRICS_IN_ORDER, Measured, metrics_json};

    pub fn serialize<S: Serializer>(metrics: &[Measured], serializer: S) -> Result<S::Ok, S::Error> {
        metrics_json(metrics).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Measured>, D::Error> {
        let metrics: Map<String, Value> = Map::deserialize(deserializer)?;
        let number = |value: &Value, end: &str| value.get(end).and_then(Value::as_f64);
        let metrics = METRICS_IN_ORDER.into_iter().filter_map(|metric| {
            let found = metrics.get(metric.name())?;
            let interval = Interval {
                // JSON has no infinity.
                value: number(found, "value").unwrap_or(f64::INFINITY),
                low: number(found, "low"),
                high: number(found, "high"),
            };
            Some((metric, interval))
        });
        Ok(metrics.collect())
    }
}

/// `compare.json` as it is read: means and verdict follow from the rows and the differences.
#[derive(Deserialize)]
struct Read {
    sorted_by: Option<Metric>,
    #[serde(default)]
    differences: Vec<Difference>,
    rows: Vec<Row>,
}

/// `compare.json` of several texts as it is read.
#[derive(Deserialize)]
struct ReadTables {
    texts: Vec<Read>,
}

/// Reads `compare.json`: a table for each text.
pub(super) fn parse(text: &str) -> serde_json::Result<Vec<Comparison>> {
    let value: Value = serde_json::from_str(text)?;
    let tables = if value.get("texts").is_some() {
        serde_json::from_value::<ReadTables>(value)?.texts
    } else {
        vec![serde_json::from_value(value)?]
    };
    let of = |read: Read| Comparison::read(read.rows, read.sorted_by, read.differences);
    Ok(tables.into_iter().map(of).collect())
}

pub(super) fn table(found: &Comparison) -> ComparisonFile<'_> {
    ComparisonFile {
        head: found.head(),
        rows: &found.rows,
    }
}

/// `compare.json` of several texts.
#[derive(Serialize)]
pub(super) struct Tables<'a> {
    texts: Vec<ComparisonFile<'a>>,
}

pub(super) fn tables(found: &[Comparison]) -> Tables<'_> {
    Tables {
        texts: found.iter().map(table).collect(),
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

/// A part of a table's text.
#[derive(Clone, Debug, PartialEq)]
pub enum TextBlock {
    /// The heading of all.
    Heading(String),
    /// A paragraph.
    Paragraph(String),
    /// Cells, the heading of the columns first.
    Table(Vec<Vec<String>>),
}

/// The tables in words, one for each text.
#[must_use]
pub fn blocks(found: &[Comparison]) -> Vec<TextBlock> {
    let several = found.len() > 1;
    let of = |one: &Comparison| blocks_of(one, several.then(|| title_of_text(&one.rows)));
    found.iter().flat_map(of).collect()
}

/// What the table of a text is called beside those of others.
#[must_use]
pub fn title_of_text<T: AsRef<Row>>(rows: &[T]) -> String {
    let text = rows.iter().find_map(|row| row.as_ref().text);
    text.map_or_else(
        || "Not measured on a text that is known.".to_owned(),
        |text| format!("On one text: {text}."),
    )
}

/// The table in words: means over seeds where there are some, then the rows, each with its remarks.
fn blocks_of(found: &Comparison, text: Option<String>) -> Vec<TextBlock> {
    let Comparison {
        rows,
        by,
        groups,
        differences,
        verdict,
    } = found;
    let all: Vec<&Row> = rows.iter().collect();
    let differences = by.and_then(|by| shown_differences(&all, groups.as_deref(), by, differences));
    let differences = differences
        .into_iter()
        .flat_map(|(sentence, cells)| [TextBlock::Paragraph(sentence), TextBlock::Table(cells)]);
    let mut differences: Vec<TextBlock> = differences.collect();
    let (differ, same) = fields(&all);
    let metrics = measured(&all);
    let signed = are_signed(&all);
    let named = rows.iter().any(|row| row.name.is_some());
    let heading = |fields: &[&Column], seeds: Option<&'static str>| -> Vec<String> {
        let names = metrics.iter().map(|metric| metric.name());
        let stage = named.then_some("stage");
        let fields = fields.iter().map(|column| column.label.as_str());
        let cells = stage.into_iter().chain(fields).chain(seeds).chain(names);
        cells.map(str::to_owned).collect()
    };
    let sentence = verdict
        .as_ref()
        .map(|verdict| TextBlock::Paragraph(capital(&verdict.sentence()) + "."));
    let mut blocks = vec![TextBlock::Heading(counted(rows.len(), "result"))];
    blocks.extend(text.map(TextBlock::Paragraph));
    let order = match (by, groups) {
        (Some(by), None) => Some(capital(&by.lead()) + " first."),
        (by, Some(groups)) => {
            let first = by.filter(|_| groups.len() > 1);
            let first = first.map_or(String::new(), |by| format!(", {} first", by.lead()));
            let settings = group::counted(groups, &all);
            Some(format!(
                "{settings}: mean ± standard deviation over seeds{first}."
            ))
        }
        (None, None) => None,
    };
    blocks.extend(order.map(TextBlock::Paragraph));
    blocks.extend(same.iter().map(|column| {
        let value = column.cell(&all[0].point);
        TextBlock::Paragraph(format!("The same in all: {} {value}.", column.label))
    }));
    if let Some(groups) = groups {
        let settings: Vec<&Column> = differ.iter().filter(|column| column.is_of(groups)).collect();
        let lines = groups.iter().map(|group| {
            let name = named.then(|| group.name.clone().unwrap_or_default());
            let values = settings.iter().map(|column| column.cell(&group.point));
            let seeds = group.counted(&all, |row| !rows[row].metrics.is_empty());
            let metrics = metrics.iter().map(|metric| group.shown(*metric, signed));
            name.into_iter()
                .chain(values)
                .chain([seeds])
                .chain(metrics)
                .collect()
        });
        blocks.push(TextBlock::Table(
            std::iter::once(heading(&settings, Some("seeds")))
                .chain(lines)
                .collect(),
        ));
        blocks.push(TextBlock::Paragraph(group::what_is_spread(groups)));
        blocks.extend(sentence.clone());
        blocks.append(&mut differences);
        let single =
            "The single results by setting; within a setting, in the order of the manifest, not ranked:";
        blocks.push(TextBlock::Paragraph(single.to_owned()));
    }
    let lines = rows.iter().map(|row| {
        let name = named.then(|| row.name.clone().unwrap_or_default());
        let values = differ.iter().map(|column| column.cell(&row.point));
        let metrics = metrics.iter().map(|metric| row.shown(*metric, signed));
        name.into_iter().chain(values).chain(metrics).collect()
    });
    blocks.push(TextBlock::Table(
        std::iter::once(heading(&differ.iter().collect::<Vec<_>>(), None))
            .chain(lines)
            .collect(),
    ));
    blocks.extend(sentence.filter(|_| groups.is_none()));
    blocks.append(&mut differences);
    blocks.push(TextBlock::Paragraph(INTERVALS.to_owned()));
    let remarks = remarks(&all).into_iter();
    blocks.extend(remarks.map(|remark| TextBlock::Paragraph(format!("Note: {remark}."))));
    blocks
}

/// What the intervals of single rows cover.
const INTERVALS: &str = "Intervals are at 95%, each for its result only: they cover the choice of rows and noise in \
     the measurement (the seed of evaluate or sample), not another seed of training.";

/// A sentence with a capital.
fn capital(sentence: &str) -> String {
    let mut letters = sentence.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).collect()
}

/// The tables as Markdown.
pub(super) fn markdown(found: &[Comparison]) -> String {
    markdown_of(&blocks(found))
}

/// Headings, paragraphs and tables as Markdown.
#[must_use]
pub fn markdown_of(blocks: &[TextBlock]) -> String {
    let line = |cells: &Vec<String>| {
        let cells: Vec<_> = cells.iter().map(escaped).collect();
        format!("| {} |", cells.join(" | "))
    };
    let parts: Vec<String> = blocks
        .iter()
        .map(|block| match block {
            TextBlock::Heading(text) => format!("# {text}\n"),
            TextBlock::Paragraph(text) => format!("{}\n", escaped(text)),
            TextBlock::Table(rows) => {
                let mut lines: Vec<String> = rows.iter().map(line).collect();
                lines.insert(1, format!("|{}", "---|".repeat(rows[0].len())));
                lines.join("\n") + "\n"
            }
        })
        .collect();
    parts.join("\n")
}

fn escaped(text: impl AsRef<str>) -> String {
    text.as_ref().replace('|', "\\|").replace('\n', " ")
}

/// The table as CSV (RFC 4180): numbers in full, the ends of intervals in separate columns; where there are groups, each
/// row ends with the numbers of its group. Of several texts, rows begin with the number of theirs.
pub(super) fn csv(found: &[Comparison]) -> String {
    // The rows of all texts, each with its text's number and its group.
    let rows: Vec<(usize, &Row, Option<&Group>)> = found
        .iter()
        .enumerate()
        .flat_map(|(text, found)| {
            let group = |index| {
                let groups = found.groups.as_deref()?;
                groups.iter().find(|group| group.rows.contains(&index))
            };
            let rows = found.rows.iter().enumerate();
            rows.map(move |(index, row)| (text, row, group(index)))
        })
        .collect();
    let grouped = found.iter().any(|found| found.groups.is_some());
    let all: Vec<&Row> = rows.iter().map(|(_, row, _)| *row).collect();
    let (differ, same) = fields(&all);
    let metrics = measured(&all);
    let named = all.iter().any(|row| row.name.is_some());
    let columns: Vec<Column> = differ.into_iter().chain(same).collect();
    let text = (found.len() > 1).then_some("text");
    let mut heading: Vec<String> = text.map(str::to_owned).into_iter().collect();
    heading.extend(named.then(|| "stage".to_owned()));
    heading.extend(columns.iter().map(|column| column.label.clone()));
    for metric in &metrics {
        let name = metric.name();
        heading.extend([name.to_owned(), format!("{name}_low"), format!("{name}_high")]);
    }
    for metric in metrics.iter().filter(|_| grouped) {
        let name = metric.name();
        heading.extend(["mean", "sd", "seeds"].map(|what| format!("{name}_{what}")));
    }
    let units = all.iter().any(|row| row.unit.is_some());
    heading.extend(units.then(|| "unit".to_owned()));
    let quantities = all.iter().any(|row| !row.quantity.is_bound());
    heading.extend(quantities.then(|| "quantity".to_owned()));
    let lengths = all.iter().any(|row| row.given_lengths != all[0].given_lengths);
    heading.extend(lengths.then(|| "given_lengths".to_owned()));
    let sizes = all.iter().any(|row| row.rows.is_some());
    let words = all.iter().any(|row| row.words.is_some());
    heading.extend(
        ["rows", "tokens"]
            .into_iter()
            .filter(|_| sizes)
            .map(str::to_owned),
    );
    heading.extend(words.then(|| "words".to_owned()));
    let mut lines = vec![heading];
    for (number, row, group) in rows {
        let mut line: Vec<String> = text.map(|_| (number + 1).to_string()).into_iter().collect();
        line.extend(named.then(|| row.name.clone().unwrap_or_default()));
        line.extend(columns.iter().map(|column| column.cell(&row.point)));
        for metric in &metrics {
            let found = row.metric(*metric);
            let number = |number: Option<f64>| number.map_or_else(String::new, |number| number.to_string());
            line.extend([
                number(found.map(|found| found.value)),
                number(found.and_then(|found| found.low)),
                number(found.and_then(|found| found.high)),
            ]);
        }
        if grouped {
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
        line.extend(units.then(|| row.per().unwrap_or_default()));
        let of_text = row.trained_for().is_some();
        let quantity = || match (of_text, row.published) {
            (false, _) => "",
            (true, true) => "published",
            (true, false) => row.quantity.name(),
        };
        line.extend(quantities.then(|| quantity().to_owned()));
        let given = || {
            if of_text {
                row.given_lengths.to_string()
            } else {
                String::new()
            }
        };
        line.extend(lengths.then(given));
        let size = |size: Option<u64>| size.map_or_else(String::new, |size| size.to_string());
        line.extend([row.rows, row.tokens].into_iter().filter(|_| sizes).map(size));
        line.extend(words.then(|| size(row.words)));
        lines.push(line);
    }
    lines
        .iter()
        .map(|line| line.iter().map(quoted_field).collect::<Vec<_>>().join(",") + "\r\n")
        .collect()
}

/// A field as CSV has it: in quotes where it has commas, quotes or line breaks.
pub(in crate::stages) fn quoted_field(field: &String) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.clone()
    }
}
