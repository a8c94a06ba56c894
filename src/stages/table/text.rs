//! The table for people: cells as they are read, a pivot of rows and columns or one line a cell, and footnotes.

use std::fmt::Write as _;

use indexmap::IndexMap;

use super::cell::{Agreement, Cell, CellValue, PublishedCell};
use super::order::{DifferenceBound, OrderFinding, OrderedPair, negated};
use super::{ColumnHead, RowOfCells, TableResult};
use crate::evaluate::Interval;
use crate::manifest::{StageKind, TableValue};
use crate::numbers;
use crate::plural::counted;
use crate::stages::compare::{TextBlock, metric};
use crate::stages::replicates::Spread;

/// Stands in the place of an absent value.
pub(super) const NONE: &str = "–";

/// The table as a heading, a pivot, and footnotes.
#[must_use]
pub fn blocks(found: &TableResult) -> Vec<TextBlock> {
    let mut blocks = vec![
        TextBlock::Heading(found.caption.clone()),
        TextBlock::Table(pivot(found)),
    ];
    blocks.extend(notes(found).into_iter().map(TextBlock::Paragraph));
    blocks
}

/// What a column is of: `PTB (perplexity)`; its name alone where that says it.
pub(super) fn heading(column: &ColumnHead) -> String {
    let unit = unit(column.show);
    if column.name.eq_ignore_ascii_case(unit) {
        return column.name.clone();
    }
    format!("{} ({unit})", column.name)
}

/// The unit of a column.
pub(super) fn unit(show: TableValue) -> &'static str {
    match show {
        TableValue::Perplexity => "perplexity per token",
        TableValue::NatsPerToken => "nats per token",
        TableValue::BitsPerToken => "bits per token",
        TableValue::BitsPerByte => "bits per byte",
        TableValue::BitsPerByteNormalized => "bits per byte of normalized text",
        TableValue::PerplexityPerWord => "perplexity per word",
        TableValue::LastWordPerplexity => "perplexity of the last word",
        TableValue::LastWordAccuracy => "accuracy of the last word",
        TableValue::PseudoPerplexity => "pseudo-perplexity per token",
        TableValue::MonteCarloError => "Monte Carlo error in nats per token",
        TableValue::Grammatical => "grammatical records",
        TableValue::GenerativePerplexity => "generative perplexity per token",
        TableValue::UnigramEntropy => "entropy in nats",
        TableValue::NetworkCalls => "network calls a row",
        TableValue::Parameters => "parameters",
        TableValue::TrainedTokens => "trained tokens",
        TableValue::Rows => "rows",
        TableValue::Tokens => "tokens",
        TableValue::Words => "words",
    }
}

/// Rows and columns: of each row the values here, and below them what was published.
fn pivot(found: &TableResult) -> Vec<Vec<String>> {
    let mut lines = vec![
        std::iter::once(String::new())
            .chain(found.columns.iter().map(heading))
            .collect::<Vec<_>>(),
    ];
    let mut group = None;
    for row in &found.rows {
        if row.group.is_some() && row.group != group {
            let title = row.group.clone().unwrap_or_default();
            lines.push(line(title, found.columns.iter().map(|_| String::new())));
        }
        group.clone_from(&row.group);
        let [values, figures] = row_lines(found, row);
        lines.extend(values.map(|values| line(row.name.clone(), values.into_iter())));
        let name = row.published_name();
        lines.extend(figures.map(|figures| line(name, figures.into_iter())));
    }
    lines
}

fn line(first: String, others: impl Iterator<Item = String>) -> Vec<String> {
    std::iter::once(first).chain(others).collect()
}

/// One line a cell: column, row, value here, published figure and verdict.
#[must_use]
pub fn lines(found: &TableResult) -> Vec<Vec<String>> {
    let with_verdict = found.cells().any(|cell| cell.verdict.is_some());
    let with_figures = found.cells().any(|cell| cell.published.is_some());
    let mut all = vec![
        ["column", "row", "here"]
            .into_iter()
            .chain(with_figures.then_some("published"))
            .chain(with_verdict.then_some("verdict"))
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    ];
    for (place, column) in found.columns.iter().enumerate() {
        for row in &found.rows {
            let cell = &row.cells[place];
            if cell == &Cell::default() {
                continue;
            }
            let value = if row.quoted {
                "quoted".to_owned()
            } else {
                here(cell, column.show)
            };
            let figure = cell
                .published
                .as_ref()
                .map(|figure| figure_text(figure, column.show));
            let verdict = cell.verdict.map(verdict_text);
            let mut line = vec![heading(column), row.name.clone(), value];
            line.extend(with_figures.then(|| figure.unwrap_or_default()));
            line.extend(with_verdict.then(|| verdict.unwrap_or_default()));
            all.push(line);
        }
    }
    all
}

/// A cell's value here, with its uncertainty.
fn here(cell: &Cell, show: TableValue) -> String {
    match (&cell.here, &cell.missing) {
        (Some(value), None) => value_text(value, show),
        (Some(value), Some(_)) => format!("{} *", value_text(value, show)),
        (None, Some(_)) => "missing".to_owned(),
        (None, None) => NONE.to_owned(),
    }
}

/// A value with its uncertainty: `≤ 24.31 (24.01–24.62)`, `24.31 ± 0.12`.
pub(super) fn value_text(value: &CellValue, show: TableValue) -> String {
    let sign = if value.is_bound() { "≤ " } else { "" };
    let interval = Interval {
        value: value.value,
        low: value.low,
        high: value.high,
    };
    let spread = value.sd.map(|sd| Spread {
        mean: value.value,
        sd: Some(sd),
        n: value.seeds,
        standard_error: None,
        freedom: 0,
    });
    let with_metric = |metric| match spread {
        Some(spread) => metric::shown_spread(metric, spread),
        None => metric::shown(metric, interval),
    };
    let decimals = |decimals: usize| match value.sd {
        Some(sd) => format!("{:.decimals$} ± {sd:.decimals$}", value.value),
        None => interval.plus_minus(decimals),
    };
    let text = match (show, show.metric()) {
        (TableValue::BitsPerToken, _) => decimals(4),
        (_, Some(metric)) => with_metric(metric),
        (TableValue::GenerativePerplexity, _) => with_metric(crate::manifest::Metric::Perplexity),
        (TableValue::MonteCarloError, _) => decimals(5),
        (TableValue::UnigramEntropy, _) => decimals(3),
        (TableValue::NetworkCalls, _) => decimals(1),
        (TableValue::Rows | TableValue::Tokens | TableValue::Words, _) => numbers::count(value.value as u64),
        _ => abbreviated(value.value),
    };
    format!("{sign}{text}")
}

/// A published figure with the verdict on it.
fn published(cell: &Cell, show: TableValue) -> String {
    let Some(figure) = &cell.published else {
        return NONE.to_owned();
    };
    let text = figure_text(figure, show);
    match cell.verdict {
        Some(verdict) => format!("{text}, {}", verdict_text(verdict)),
        None => text,
    }
}

/// A published figure: `≤ 27.04`, `27.19 ± 0.07`, `110.0 M`.
pub(super) fn figure_text(figure: &PublishedCell, show: TableValue) -> String {
    let sign = if figure.at_most { "≤ " } else { "" };
    let text = match show {
        TableValue::Parameters | TableValue::TrainedTokens => abbreviated(figure.value),
        TableValue::Rows | TableValue::Tokens | TableValue::Words => numbers::count(figure.value as u64),
        TableValue::Grammatical | TableValue::LastWordAccuracy => format!("{}%", 100.0 * figure.value),
        _ => format!("{:.*}", figure.decimals, figure.value),
    };
    match figure.sd {
        Some(sd) => format!("{sign}{text} ± {sd}"),
        None => format!("{sign}{text}"),
    }
}

/// A large number as papers write it: `139.4M`, `33B`, `0.46B` as `460M`.
fn abbreviated(number: f64) -> String {
    let (scaled, unit) = match number {
        number if number >= 1e9 => (number / 1e9, "B"),
        number if number >= 1e6 => (number / 1e6, "M"),
        number if number >= 1e3 => (number / 1e3, "k"),
        number => (number, ""),
    };
    let text = format!("{scaled:.1}");
    format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// A verdict: `agrees`, `3.1% higher here`.
pub(super) fn verdict_text(verdict: Agreement) -> String {
    match verdict {
        Agreement::Agrees => "agrees".to_owned(),
        Agreement::Higher { percent } => format!("{percent:.1}% higher here"),
        Agreement::Lower { percent } => format!("{percent:.1}% lower here"),
        Agreement::Incomparable => "one of both is a bound".to_owned(),
    }
}

/// What is said below a table: its signs and intervals, sources, missing cells, the order of rows, and footnotes.
#[must_use]
pub fn notes(found: &TableResult) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(signs(found));
    notes.extend(sources(found));
    if found.cells().any(|cell| cell.verdict.is_some()) {
        notes.push(
            "A published figure agrees if it lies within the 95% interval of the result, or of one more seed beside several, \
             and its rounding."
                .to_owned(),
        );
    }
    if !found.verdicts
        && found
            .cells()
            .any(|cell| cell.here.is_some() && cell.published.is_some())
    {
        notes.push(
            "The published figures are of other settings, such as another size or other text: the values are not to be compared \
             with them, only the order of rows."
                .to_owned(),
        );
    }
    notes.extend(measured(found));
    notes.extend(missing(found));
    notes.extend(order(found));
    let of_rows = found
        .rows
        .iter()
        .filter_map(|row| Some(format!("{}: {}", row.name, row.note.as_ref()?)));
    notes.extend(of_rows);
    notes.extend(found.notes.iter().cloned());
    notes
}

/// What ≤, ± and brackets mean in a table that has them.
fn signs(found: &TableResult) -> Option<String> {
    let values: Vec<&CellValue> = found.cells().filter_map(|cell| cell.here.as_ref()).collect();
    let mut signs = Vec::new();
    let quoted_bound = found
        .cells()
        .any(|cell| cell.published.as_ref().is_some_and(|figure| figure.at_most));
    if quoted_bound || values.iter().any(|value| value.is_bound()) {
        signs.push("≤ marks an upper bound; a likelihood without a sign is exact".to_owned());
    }
    if values.iter().any(|value| value.published_estimate) {
        signs.push("values of `\"bound\": \"published\"` are no bounds".to_owned());
    }
    let mut means: Vec<(String, usize)> = Vec::new();
    for value in values.iter().filter(|value| value.sd.is_some()) {
        let kinds: Vec<&str> = value.seeds_of.iter().map(|kind| kind.name()).collect();
        let kinds = kinds.join(" and ");
        match means.iter_mut().find(|(other, _)| *other == kinds) {
            Some((_, most)) => *most = value.seeds.max(*most),
            None => means.push((kinds, value.seeds)),
        }
    }
    for (kinds, most) in means {
        let training = if kinds.contains(StageKind::Train.name()) {
            ""
        } else {
            ", which does not cover another seed of training"
        };
        signs.push(format!(
            "a mean over seeds of {kinds} stages has ± the standard deviation of single results ({} at most){training}",
            counted(most, "seed")
        ));
    }
    let lacks = |cell: &Cell| cell.here.is_none() && cell.missing.is_none();
    let rows = found.rows.iter().filter(|row| !row.quoted);
    if rows.flat_map(|row| &row.cells).any(lacks) {
        signs.push(format!(
            "{NONE} stands where a result does not have what the column shows, as a pseudo-likelihood has no perplexity"
        ));
    }
    if values
        .iter()
        .any(|value| value.sd.is_none() && value.low.is_some())
    {
        signs.push(
            "a single result has its 95% interval, which covers the choice of rows and noise in the measurement, not another seed of \
             training"
                .to_owned(),
        );
    }
    let mut per: Vec<&str> = values.iter().filter_map(|value| value.per.as_deref()).collect();
    per.sort_unstable();
    per.dedup();
    if per.len() > 1 {
        signs.push(format!(
            "values are {}; an autoregressive model is given the first token of each row",
            per.join(" or ")
        ));
    }
    (!signs.is_empty()).then(|| sentence(&signs.join("; ")))
}

/// Where the published figures come from.
fn sources(found: &TableResult) -> Option<String> {
    let figures = found
        .rows
        .iter()
        .filter(|row| row.cells.iter().any(|cell| cell.published.is_some()));
    let mut of_table = false;
    let mut others: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in figures {
        match row.source.as_deref() {
            None => of_table = true,
            Some(source) => match others.iter_mut().find(|(other, _)| *other == source) {
                Some((_, rows)) => rows.push(&row.name),
                None => others.push((source, vec![&row.name])),
            },
        }
    }
    let mut parts = Vec::new();
    if let Some(source) = found.source.as_deref().filter(|_| of_table) {
        parts.push(format!("published figures: {source}"));
    }
    parts.extend(
        others
            .iter()
            .map(|(source, rows)| format!("{}: {source}", rows.join(", "))),
    );
    (!parts.is_empty()).then(|| sentence(&parts.join("; ")))
}

/// The rows and tokens that were measured, column by column.
fn measured(found: &TableResult) -> Option<String> {
    let mut texts: Vec<(String, Vec<&str>)> = Vec::new();
    for column in &found.columns {
        let Some(text) = column.measured else { continue };
        let of = if text.rows < text.rows_of_split {
            format!(" of {}", numbers::count(text.rows_of_split))
        } else {
            String::new()
        };
        let mut words = format!(
            "{}{of} rows, {} tokens",
            numbers::count(text.rows),
            numbers::count(text.tokens)
        );
        if let Some(count) = text.words {
            let _ = write!(words, ", {} words", numbers::count(count));
        }
        match texts.iter_mut().find(|(other, _)| *other == words) {
            Some((_, columns)) => columns.push(&column.name),
            None => texts.push((words, vec![&column.name])),
        }
    }
    let parts: Vec<String> = texts
        .iter()
        .map(|(words, columns)| format!("{}: {words}", columns.join(", ")))
        .collect();
    (!parts.is_empty()).then(|| sentence(&format!("measured on {}", parts.join("; "))))
}

/// The cells without a value, or without some of their seeds, with the reason: of each reason the rows, each with its columns.
fn missing(found: &TableResult) -> Vec<String> {
    let mut reasons: IndexMap<&str, IndexMap<&str, Vec<&str>>> = IndexMap::new();
    for row in &found.rows {
        for (cell, column) in row.cells.iter().zip(&found.columns) {
            if let Some(reason) = cell.missing.as_deref() {
                let rows = reasons.entry(reason).or_default();
                rows.entry(&row.name).or_default().push(&column.name);
            }
        }
    }
    let places = |rows: &IndexMap<&str, Vec<&str>>| {
        let rows = rows
            .iter()
            .map(|(row, columns)| format!("{row} in {}", columns.join(", ")));
        rows.collect::<Vec<_>>().join("; ")
    };
    let sentences = reasons
        .iter()
        .map(|(reason, rows)| format!("Missing: {}: {reason}", places(rows)));
    sentences.map(|text| sentence(&text)).collect()
}

/// Whether the published order of rows holds here.
fn order(found: &TableResult) -> Option<String> {
    if found.order.is_empty() {
        return None;
    }
    let several = found
        .order
        .iter()
        .any(|pair| pair.column != found.order[0].column);
    let pairs = found.order.iter().map(|pair| {
        let column = if several {
            format!("{}: ", pair.column)
        } else {
            String::new()
        };
        format!("{column}{}", pair_text(pair))
    });
    let pairs: Vec<String> = pairs.collect();
    let covers = if found
        .order
        .iter()
        .all(|pair| pair.covers_seeds || pair.found == OrderFinding::Incomparable)
    {
        ""
    } else {
        "; where a row has one seed of training, another seed may change it"
    };
    Some(format!(
        "Order of the rows, as published and here (differences in bits per byte, row by row of the same text, with 95% \
         intervals{covers}): {}.",
        pairs.join("; ")
    ))
}

/// `MDLM before SEDD: the same here, by 0.0123 ± 0.0010`.
fn pair_text(pair: &OrderedPair) -> String {
    let finding = match pair.found {
        OrderFinding::Same => "the same here",
        OrderFinding::Reversed => "the reverse here",
        OrderFinding::Open => "not clearly different here",
        OrderFinding::Incomparable => "not comparable here",
    };
    let sign = |bounds: Option<DifferenceBound>| match bounds {
        None => "",
        Some(DifferenceBound::AtMost) => "≤ ",
        Some(DifferenceBound::AtLeast) => "≥ ",
    };
    let by = match (pair.found, pair.difference) {
        (OrderFinding::Incomparable, _) => format!(": {}", pair.reason.as_deref().unwrap_or_default()),
        (_, None) => String::new(),
        (OrderFinding::Reversed, Some(difference)) => {
            let bounds = pair.bounds.map(|bounds| match bounds {
                DifferenceBound::AtMost => DifferenceBound::AtLeast,
                DifferenceBound::AtLeast => DifferenceBound::AtMost,
            });
            format!(", by {}{}", sign(bounds), negated(difference).plus_minus(4))
        }
        (_, Some(difference)) => format!(", by {}{}", sign(pair.bounds), difference.plus_minus(4)),
    };
    format!("{} before {}: {finding}{by}", pair.first, pair.second)
}

/// A sentence with a capital and a stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str())
}

impl RowOfCells {
    /// What the line of its published figures is called.
    pub(super) fn published_name(&self) -> String {
        if self.quoted {
            format!("{} (quoted)", self.name)
        } else {
            format!("{}, published", self.name)
        }
    }
}

/// The lines of a row: the values here and the published figures.
pub(super) fn row_lines<'a>(found: &'a TableResult, row: &'a RowOfCells) -> [Option<Vec<String>>; 2] {
    let columns = || row.cells.iter().zip(&found.columns);
    let values = (!row.quoted).then(|| columns().map(|(cell, column)| here(cell, column.show)).collect());
    let figures = row.cells.iter().any(|cell| cell.published.is_some());
    let figures = figures.then(|| {
        columns()
            .map(|(cell, column)| published(cell, column.show))
            .collect()
    });
    [values, figures]
}
