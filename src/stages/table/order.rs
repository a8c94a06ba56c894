//! Whether the published order of rows holds here: pair by pair of neighbours in that order, each in a column of likelihoods.
//!
//! A pair is decided as a comparison of two settings is ([`crate::stages::compare::verdict`]): by the difference row by row of
//! the same text, and over seeds where both have several.

use serde::{Deserialize, Serialize};

use super::found::FoundResult;
use super::{ColumnHead, RowOfCells};
use crate::evaluate::Interval;
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
    /// Whether it covers the effect of another seed of training.
    pub covers_seeds: bool,
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
        for pair in published.windows(2) {
            let [(lower, first), (higher, second)] = *pair else {
                continue;
            };
            if lower < higher {
                let names = [&rows[first].name, &rows[second].name].map(String::as_str);
                let results = [of_cell(first, column), of_cell(second, column)];
                pairs.push(pair_of(&head.name, names, &results));
            }
        }
    }
    pairs
}

/// Decides on a pair.
fn pair_of(column: &str, names: [&str; 2], results: &[Vec<&FoundResult>; 2]) -> OrderedPair {
    let rows = results.iter().enumerate().flat_map(|(setting, results)| {
        results.iter().map(move |found| Row {
            name: Some(names[setting].to_owned()),
            setting: found.row.setting.map(|_| setting),
            ..found.row.clone()
        })
    });
    // Results on different texts do not compare.
    let mut texts = by_text(rows.collect());
    let rows = if texts.len() == 1 {
        texts.pop().unwrap_or_default()
    } else {
        Vec::new()
    };
    let compared = Comparison::of(rows, None);
    let leads = |name: &str| compared.rows.first().and_then(|row| row.name.as_deref()) == Some(name);
    let (found, covers_seeds) = match &compared.verdict {
        None => (OrderFinding::Incomparable, false),
        Some(verdict) if !verdict.others().is_empty() => (OrderFinding::Open, true),
        Some(verdict) if leads(names[0]) => (OrderFinding::Same, verdict.is_best()),
        Some(verdict) => (OrderFinding::Reversed, verdict.is_best()),
    };
    let difference = compared
        .differences
        .first()
        .map(|difference| difference.bits_per_byte);
    let difference = difference.map(|difference| {
        if leads(names[0]) {
            return difference;
        }
        Interval {
            value: -difference.value,
            low: difference.high.map(|end| -end),
            high: difference.low.map(|end| -end),
        }
    });
    OrderedPair {
        column: column.to_owned(),
        first: names[0].to_owned(),
        second: names[1].to_owned(),
        found,
        difference,
        covers_seeds,
    }
}
