//! Whether the published order of rows holds here: pair by pair of neighbours in that order, each in a column of likelihoods. Rows
//! with equal figures have one place in it, and each of them is a neighbour of those before and after.
//!
//! A pair is decided as a comparison of two settings is ([`crate::stages::compare::verdict`]): by the difference row by row of
//! the same text, and over seeds where both have several.

use serde::{Deserialize, Serialize};

use super::found::FoundResult;
use super::{ColumnHead, RowOfCells};
use crate::evaluate::{Interval, Quantity};
use crate::stages::compare::{Comparison, Row, by_text};

/// Two rows that are neighbours in the published order of a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderedPair {
    /// The column.
    pub column: String,
    /// The row with the lower published figure.
    pub first: String,
    /// The row with the higher one.
    pub second: String,
    /// Whether the same holds here.
    pub found: OrderFinding,
    /// How many bits per byte the second has more than the first, row by row of the same text, with its 95% interval; nothing
    /// where they were measured on other rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<Interval>,
    /// What the difference says of that of the likelihoods, where one of both is a bound and the other exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounds: Option<DifferenceBound>,
    /// Why they do not compare, where they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether it covers the effect of another seed of training.
    pub covers_seeds: bool,
}

/// What a difference says of that of the likelihoods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceBound {
    /// It is an upper bound: the first is exact, the second a bound.
    AtMost,
    /// It is a lower bound.
    AtLeast,
}

/// Whether the order of two rows holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderFinding {
    /// The first is lower here too, clearly.
    Same,
    /// The first is higher here, clearly.
    Reversed,
    /// They are not clearly different.
    Open,
    /// Their values do not compare: they are on different texts, or one model is given the lengths of the records.
    Incomparable,
}

/// The pairs of a table, column by column.
pub(super) fn pairs<'a>(
    columns: &[ColumnHead],
    rows: &[RowOfCells],
    of_cell: &dyn Fn(usize, usize) -> Vec<&'a FoundResult>,
) -> Vec<OrderedPair> {
    let mut pairs = Vec::new();
    for (column, head) in columns
        .iter()
        .enumerate()
        .filter(|(_, head)| head.show.is_likelihood())
    {
        let mut published: Vec<(f64, usize)> = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.cells[column].here.is_some())
            .filter_map(|(place, row)| Some((row.cells[column].published.as_ref()?.value, place)))
            .collect();
        published.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Rows with equal figures have one place in the order.
        let places: Vec<&[(f64, usize)]> = published.chunk_by(|a, b| a.0 == b.0).collect();
        for neighbours in places.windows(2) {
            for &(_, first) in neighbours[0] {
                for &(_, second) in neighbours[1] {
                    let names = [first, second].map(|row| called(rows, row));
                    let results = [of_cell(first, column), of_cell(second, column)];
                    pairs.push(pair_of(&head.name, names, &results));
                }
            }
        }
    }
    pairs
}

/// The name of a row, with its group where another row has the same name.
fn called(rows: &[RowOfCells], place: usize) -> String {
    let row = &rows[place];
    let same = rows.iter().filter(|other| other.name == row.name);
    match &row.group {
        Some(group) if same.count() > 1 => format!("{} ({group})", row.name),
        _ => row.name.clone(),
    }
}

/// Decides on a pair.
fn pair_of(column: &str, names: [String; 2], results: &[Vec<&FoundResult>; 2]) -> OrderedPair {
    // Rows may have one name, so that their places stand for them.
    let rows = results.iter().enumerate().flat_map(|(place, results)| {
        results.iter().map(move |found| Row {
            name: Some(place.to_string()),
            setting: found.row.setting.map(|_| place),
            ..found.row.clone()
        })
    });
    // Results on different texts do not compare.
    let mut texts = by_text(rows.collect());
    let one_text = texts.len() == 1;
    let rows = texts.pop().filter(|_| one_text).unwrap_or_default();
    let compared = Comparison::of(rows, None);
    let first_leads = compared.rows.first().and_then(|row| row.name.as_deref()) == Some("0");
    let (found, covers_seeds) = match &compared.verdict {
        None => (OrderFinding::Incomparable, false),
        Some(verdict) if !verdict.others().is_empty() => (OrderFinding::Open, true),
        Some(verdict) if first_leads => (OrderFinding::Same, verdict.is_best()),
        Some(verdict) => (OrderFinding::Reversed, verdict.is_best()),
    };
    let difference = compared.differences.first().map(|found| found.bits_per_byte);
    let difference = difference.map(|difference| {
        if first_leads {
            difference
        } else {
            negated(difference)
        }
    });
    let [a, b] = results
        .each_ref()
        .map(|results| results.first().map(|found| &found.row));
    let bounds = a.zip(b).and_then(|(a, b)| match (a.quantity, b.quantity) {
        (Quantity::Exact, Quantity::Bound) => Some(DifferenceBound::AtMost),
        (Quantity::Bound, Quantity::Exact) => Some(DifferenceBound::AtLeast),
        _ => None,
    });
    let reason = (found == OrderFinding::Incomparable).then(|| why(one_text, a, b));
    let [first, second] = names;
    OrderedPair {
        column: column.to_owned(),
        first,
        second,
        found,
        reason: reason.map(str::to_owned),
        difference,
        bounds: bounds.filter(|_| difference.is_some()),
        covers_seeds,
    }
}

/// Why two results do not compare.
fn why(one_text: bool, a: Option<&Row>, b: Option<&Row>) -> &'static str {
    match a.zip(b) {
        _ if !one_text => "they are on different texts",
        Some((a, b)) if a.published != b.published => {
            "one of both is the published estimate, which is no bound"
        }
        Some((a, b)) if a.given_lengths != b.given_lengths => "one model is given the lengths of the records",
        _ => "they have no value in common",
    }
}

/// The difference the other way round.
pub(super) fn negated(difference: Interval) -> Interval {
    Interval {
        value: -difference.value,
        low: difference.high.map(|end| -end),
        high: difference.low.map(|end| -end),
    }
}
