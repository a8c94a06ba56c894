//! A cell: the result, or the mean of results that differ in seeds alone; the published figure; and the verdict.
//!
//! # The verdict
//! A published figure is one training's, rounded to the digits that were printed. It agrees with
//!
//! * **one result** if the 95% interval of the result, widened by half of the figure's last digit, contains it;
//! * **the mean over n seeds** if it lies in the prediction interval of one more seed, mean ± t · sd · √(1 + 1/n) with Student's
//!   t of n − 1 degrees of freedom at 95%, widened likewise. Seeds of the evaluation alone say nothing of another training: the
//!   table then says whose seeds they are.
//!
//! A standard deviation that was published with the figure widens the interval by twice itself. A bound has no verdict beside an
//! exact value.

use serde::{Deserialize, Serialize};

use super::Sought;
use super::found::FoundResult;
use crate::error::Error;
use crate::evaluate::{Interval, Quantity};
use crate::manifest::{PublishedFigure, StageKind, TableColumn, TableRow, TableValue};
use crate::stages::compare::group::seeds_of;
use crate::stages::replicates::Spread;

/// A cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The value here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here: Option<CellValue>,
    /// The published figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<PublishedCell>,
    /// How they compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Agreement>,
    /// Why there is no value here, or why it is of fewer seeds than the manifest has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// A value with its uncertainty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CellValue {
    /// The value; the mean over seeds where there are several.
    pub value: f64,
    /// Lower end of its 95% interval: of one result that of its measurement, of a mean that of the mean over seeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// Standard deviation over seeds (with n − 1), where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sd: Option<f64>,
    /// n: results with different seeds.
    pub seeds: usize,
    /// The kinds of stages that draw by the seeds that differ, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds_of: Vec<StageKind>,
    /// Whether it bounds the exact likelihood, where it is of a likelihood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<Quantity>,
    /// Whether it is the published estimate, which is not a bound.
    #[serde(default, skip_serializing_if = "crate::data::is_false")]
    pub published_estimate: bool,
    /// What it is per, where that differs between rows: `per scored token of text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
}

impl CellValue {
    /// Whether it has the sign ≤ of a bound.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.quantity.is_some_and(|quantity| quantity.is_bound()) && !self.published_estimate
    }
}

/// A published figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PublishedCell {
    /// The figure.
    pub value: f64,
    /// Whether it is an upper bound.
    #[serde(default, skip_serializing_if = "crate::data::is_false")]
    pub at_most: bool,
    /// The standard deviation published with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sd: Option<f64>,
    /// Digits after the point as printed; of a count without effect.
    pub decimals: usize,
    /// Where it comes from, if not where the figures of the table do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// How a value compares with the published figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Agreement {
    /// The figure lies within the uncertainty of the value.
    Agrees,
    /// The value is higher.
    Higher {
        /// By how much, in percent of the figure.
        percent: f64,
    },
    /// The value is lower.
    Lower {
        /// By how much, in percent of the figure.
        percent: f64,
    },
    /// One of them is a bound and the other is exact.
    Incomparable,
}

/// Fills a cell. It stays empty where its results do not have what the column shows: a pseudo-likelihood has no perplexity.
pub(super) fn fill(
    row: &TableRow,
    column: &TableColumn,
    show: TableValue,
    sought: &[&Sought],
    verdicts: bool,
) -> Cell {
    let published = row.published.get(&column.name).map(|figure| PublishedCell {
        value: figure.value,
        at_most: figure.at_most,
        sd: figure.sd,
        decimals: figure.decimals(),
        source: row.source.clone(),
    });
    let found: Vec<&FoundResult> = sought.iter().filter_map(|one| one.as_ref().ok()).collect();
    let reason = sought.iter().find_map(|one| one.as_ref().err());
    if found.is_empty() {
        let nothing = || {
            row.select
                .as_ref()
                .map(|_| "no stage of the manifest has this result".to_owned())
        };
        let missing = row.missing.clone().or_else(|| reason.cloned()).or_else(nothing);
        return Cell {
            published,
            missing,
            ..Cell::default()
        };
    }
    let Some(here) = value(&found, show) else {
        return Cell {
            published,
            ..Cell::default()
        };
    };
    let absent = sought.len() - found.len();
    let missing = reason.map(|reason| format!("{absent} of {} results: {reason}", sought.len()));
    let verdict = row
        .published
        .get(&column.name)
        .filter(|_| verdicts && row.verdicts)
        .map(|figure| agreement(&here, figure, show));
    Cell {
        here: Some(here),
        published,
        verdict,
        missing,
    }
}

/// The error of a column that shows what none of its results has.
pub(super) fn lacking(column: &TableColumn, show: TableValue, found: &[&FoundResult]) -> Error {
    let has: Vec<String> = TableValue::ALL
        .into_iter()
        .filter(|show| found.iter().any(|one| one.value(*show).is_some()))
        .map(|show| format!("`{}`", show.name()))
        .collect();
    Error::input(format!(
        "column `{}` shows `{}`, which no result of the column has",
        column.name,
        show.name()
    ))
    .hint(match &*has {
        [] => "leave the results out of `of`".to_owned(),
        has => format!("set `show` to one of {}", has.join(", ")),
    })
}

/// What a column shows of results that differ in seeds alone.
fn value(found: &[&FoundResult], show: TableValue) -> Option<CellValue> {
    let intervals: Vec<Interval> = found.iter().map(|one| one.value(show)).collect::<Option<_>>()?;
    let first = found.first()?;
    let seeds: Vec<Vec<u64>> = found.iter().map(|one| seeds_of(&one.row)).collect();
    // Results with the same seeds are one result twice.
    let distinct: Vec<usize> = (0..seeds.len())
        .filter(|&place| !seeds[..place].contains(&seeds[place]))
        .collect();
    let likelihood = show.is_likelihood();
    let per = first
        .row
        .per()
        .filter(|_| likelihood && show.metric().is_some_and(|metric| metric.is_per_token()));
    let of = |value: Interval, sd: Option<f64>| CellValue {
        value: value.value,
        low: value.low,
        high: value.high,
        sd,
        seeds: distinct.len(),
        seeds_of: if distinct.len() > 1 {
            kinds_of_seeds(found)
        } else {
            Vec::new()
        },
        quantity: likelihood.then_some(first.row.quantity),
        published_estimate: likelihood && first.row.published,
        per,
    };
    if let [one] = *distinct {
        return Some(of(intervals[one], None));
    }
    let values: Vec<f64> = distinct.iter().map(|&place| intervals[place].value).collect();
    let seeds: Vec<Vec<u64>> = distinct.iter().map(|&place| seeds[place].clone()).collect();
    let spread = Spread::of(&values, &seeds)?;
    Some(of(
        Interval::of(spread.mean, spread.standard_error, spread.freedom),
        spread.sd,
    ))
}

/// Whether a published figure agrees with a value; see the module.
fn agreement(here: &CellValue, figure: &PublishedFigure, show: TableValue) -> Agreement {
    if here.quantity.is_some_and(|quantity| quantity.is_bound()) != figure.at_most && here.quantity.is_some()
    {
        return Agreement::Incomparable;
    }
    let rounding = if show.is_count() {
        half_of_last_digit(figure.value)
    } else {
        0.5 * 0.1f64.powi(figure.decimals() as i32)
    };
    let slack = rounding + 2.0 * figure.sd.unwrap_or(0.0);
    let around = match here.sd {
        Some(sd) => {
            let n = here.seeds as f64;
            Interval::of(
                here.value,
                Some(sd * (1.0 + 1.0 / n).sqrt()),
                here.seeds as u64 - 1,
            )
        }
        None => Interval {
            value: here.value,
            low: here.low,
            high: here.high,
        },
    };
    let (low, high) = around.ends().unwrap_or((here.value, here.value));
    let percent = (here.value / figure.value - 1.0).abs() * 100.0;
    if high < figure.value - slack {
        Agreement::Lower { percent }
    } else if low > figure.value + slack {
        Agreement::Higher { percent }
    } else {
        Agreement::Agrees
    }
}

/// The kinds of stages that draw by the seeds in which results differ.
fn kinds_of_seeds(found: &[&FoundResult]) -> Vec<StageKind> {
    let mut kinds = Vec::new();
    let count = found.first().map_or(0, |one| one.row.seeds.len());
    for place in 0..count {
        let of = |one: &&FoundResult| one.row.seeds.get(place).map(|seed| seed.value);
        if found.iter().any(|one| of(one) != of(&found[0])) {
            for kind in &found[0].row.seeds[place].kinds {
                if !kinds.contains(kind) {
                    kinds.push(*kind);
                }
            }
        }
    }
    kinds
}

/// Half of the last digit of a count that is not 0: 5,000,000 of 110,000,000.
fn half_of_last_digit(figure: f64) -> f64 {
    let text = format!("{:.0}", figure.trunc());
    let zeros = text.len() - text.trim_end_matches('0').len();
    0.5 * 10f64.powi(if figure < 1.0 { 0 } else { zeros as i32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(value: f64, half: f64) -> CellValue {
        CellValue {
            value,
            low: Some(value - half),
            high: Some(value + half),
            sd: None,
            seeds: 1,
            seeds_of: vec![],
            quantity: Some(Quantity::Bound),
            published_estimate: false,
            per: None,
        }
    }

    fn figure(value: f64) -> PublishedFigure {
        PublishedFigure {
            value,
            at_most: true,
            sd: None,
            decimals: None,
        }
    }

    fn compare(here: &CellValue, figure: &PublishedFigure) -> Agreement {
        agreement(here, figure, TableValue::Perplexity)
    }

    #[test]
    fn table_figures_agree_within_the_interval_and_the_rounding() {
        // 27.04 is anything from 27.035 to 27.045.
        for (value, half, expected) in [
            (27.1, 0.06, true),
            (27.1, 0.0549, false),
            (27.1, 0.056, true),
            (26.9, 0.1, false),
            (26.9, 0.1351, true),
        ] {
            let found = compare(&here(value, half), &figure(27.04));
            assert_eq!(
                found == Agreement::Agrees,
                expected,
                "{value} ± {half}: {found:?}"
            );
        }
        let Agreement::Higher { percent } = compare(&here(30.0, 0.1), &figure(25.0)) else {
            panic!("30 is higher than 25");
        };
        assert!((percent - 20.0).abs() < 1e-9);
        assert!(matches!(
            compare(&here(20.0, 0.1), &figure(25.0)),
            Agreement::Lower { .. }
        ));
        let published_with_sd = PublishedFigure {
            sd: Some(0.5),
            ..figure(25.0)
        };
        assert_eq!(compare(&here(26.0, 0.1), &published_with_sd), Agreement::Agrees);
    }

    #[test]
    fn table_figures_of_bounds_do_not_agree_with_exact_values() {
        let exact = PublishedFigure {
            at_most: false,
            ..figure(27.04)
        };
        assert_eq!(compare(&here(27.04, 0.1), &exact), Agreement::Incomparable);
        let of_no_likelihood = CellValue {
            quantity: None,
            ..here(27.04, 0.1)
        };
        assert_eq!(compare(&of_no_likelihood, &exact), Agreement::Agrees);
    }

    #[test]
    fn table_figures_agree_with_a_mean_over_seeds_within_the_prediction_interval() {
        // Three seeds with sd 0.1: one more lies within 4.303 · 0.1 · √(4/3) = 0.4968 of the mean.
        let mean = CellValue {
            sd: Some(0.1),
            seeds: 3,
            ..here(27.0, 0.01)
        };
        assert_eq!(compare(&mean, &figure(27.49)), Agreement::Agrees);
        assert!(matches!(compare(&mean, &figure(27.51)), Agreement::Lower { .. }));
    }

    #[test]
    fn table_figures_are_rounded_at_their_last_printed_digit() {
        // 500 was printed as 500.00, whatever JSON leaves of it.
        assert!(matches!(
            compare(&here(499.9, 0.05), &figure(500.0)),
            Agreement::Lower { .. }
        ));
        let whole = PublishedFigure {
            decimals: Some(0),
            ..figure(500.0)
        };
        assert_eq!(compare(&here(499.9, 0.05), &whole), Agreement::Agrees);
        assert_eq!(figure(23.456).decimals(), 3);
        // Counts are rounded to their first digits.
        for (figure, half) in [(110e6, 5e6), (33e9, 5e8), (139_412_858.0, 0.5), (0.0, 0.5)] {
            assert!(
                (half_of_last_digit(figure) / half - 1.0).abs() < 1e-12,
                "{figure}"
            );
        }
        let parameters = agreement(&here(112e6, 0.0), &figure(110e6), TableValue::Parameters);
        assert_eq!(parameters, Agreement::Agrees);
    }
}
