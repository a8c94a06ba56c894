//! Results that differ in seeds alone: replicates of one setting, which have a mean and a spread and no rank.
//!
//! The 95% interval of a result covers which rows were held out and which noise was drawn. What another seed would give
//! it does not cover, and that may differ by many times as much: the best of several seeds is the luckiest, not the best
//! setting. So rows that differ in nothing but seeds make a group, with the mean of its values and their standard deviation
//! over seeds, √(Σ (x − mean)² / (n − 1)); groups are ordered by their means, and the rows of a group stay as they were.

use super::compare::{Row, cell, measured};
use crate::manifest::{Metric, Point};
use crate::plural;

/// Whether a swept field is a seed, of whichever stage: `seed`, `model.seed`, `input.seed`.
#[must_use]
pub fn is_seed(label: &str) -> bool {
    label.rsplit('.').next() == Some("seed")
}

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of single values; absent for one value alone.
    pub sd: Option<f64>,
    /// n: values.
    pub n: usize,
}

impl Spread {
    /// The spread of some values; nothing where there are none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let sd = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        Some(Self { mean, sd, n })
    }
}

/// Rows that differ in seeds alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What its rows are called.
    pub name: Option<String>,
    /// What they have in common: their values without seeds.
    pub point: Point,
    /// Its rows, by their places in the list.
    pub rows: Vec<usize>,
    /// Its metrics over seeds.
    pub metrics: Vec<(Metric, Spread)>,
    /// Whether some of them are the published estimate, which is no bound.
    pub published: bool,
}

impl Group {
    /// A metric over seeds.
    #[must_use]
    pub fn metric(&self, metric: Metric) -> Option<Spread> {
        let found = self.metrics.iter().find(|(other, _)| *other == metric);
        found.map(|(_, spread)| *spread)
    }

    /// What it is called: its name and its values.
    #[must_use]
    pub fn title(&self) -> String {
        let values = self
            .point
            .iter()
            .map(|(label, value)| format!("{label} {}", cell(value)));
        self.name
            .iter()
            .cloned()
            .chain(values)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// The groups of rows, in the order of their first ones; nothing where no two rows differ in seeds alone. Rows go together
/// whose `name` is the same.
#[must_use]
pub fn groups(rows: &[&Row], name: impl Fn(usize) -> Option<String>) -> Option<Vec<Group>> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let point: Point = row
            .point
            .iter()
            .filter(|(label, _)| !is_seed(label))
            .map(|(label, value)| (label.clone(), value.clone()))
            .collect();
        let name = name(index);
        match groups
            .iter_mut()
            .find(|group| group.name == name && group.point == point)
        {
            Some(group) => {
                group.rows.push(index);
                group.published |= row.published;
            }
            None => groups.push(Group {
                name,
                point,
                rows: vec![index],
                metrics: Vec::new(),
                published: row.published,
            }),
        }
    }
    // Rows with equal seeds are the same row twice, not replicates.
    let seeds = |group: &Group| {
        let mut seeds: Vec<_> = group.rows.iter().map(|&row| seeds_of(rows[row])).collect();
        let all = seeds.len();
        seeds.sort();
        seeds.dedup();
        seeds.len() == all
    };
    if groups.len() == rows.len() || !groups.iter().all(seeds) {
        return None;
    }
    for group in &mut groups {
        for metric in measured(rows) {
            let values: Vec<f64> = group
                .rows
                .iter()
                .filter_map(|&row| Some(rows[row].metric(metric)?.value))
                .collect();
            group
                .metrics
                .extend(Spread::of(&values).map(|spread| (metric, spread)));
        }
    }
    Some(groups)
}

/// The seeds of a row, in words.
fn seeds_of(row: &Row) -> Vec<String> {
    let seeds = row.point.iter().filter(|(label, _)| is_seed(label));
    seeds.map(|(label, value)| format!("{label} {value}")).collect()
}

/// Puts the best mean first; groups without the metric come last, in the order in which they were.
pub fn order(groups: &mut [Group], by: Metric) {
    let mean = |group: &Group, by| group.metric(by).map(|spread| spread.mean);
    groups.sort_by(|a, b| {
        // What is no bound comes after bounds.
        let order = a.published.cmp(&b.published);
        let order = order.then_with(|| by.order(mean(a, by), mean(b, by)));
        // Bounds on normalized text, all lower than those on the text itself, come after them.
        order.then_with(|| {
            let by = Metric::BitsPerByteNormalized;
            by.order(mean(a, by), mean(b, by))
        })
    });
}

/// `3 settings, 2 seeds each`, or how many seeds they have at least and at most.
#[must_use]
pub fn counted(groups: &[Group]) -> String {
    let counts = || groups.iter().map(|group| group.rows.len());
    let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
    let settings = plural::counted(groups.len(), "setting");
    match (groups.len(), least == most) {
        (1, _) => format!("{settings}, {}", plural::counted(most, "seed")),
        (_, true) => format!("{settings}, {} each", plural::counted(most, "seed")),
        (_, false) => format!("{settings}, {least} to {most} seeds each"),
    }
}

/// What a group's ± is.
pub const WHAT_IS_SPREAD: &str = "± over seeds is the standard deviation of single results (with n − 1): how far another seed may \
     come out, not how well the mean is known.";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::evaluate::Interval;

    fn row(point: &serde_json::Value, bits: Option<f64>) -> Row {
        let interval = |value| Interval {
            value,
            low: None,
            high: None,
        };
        Row {
            point: point.as_object().unwrap().clone().into_iter().collect(),
            metrics: bits
                .map(|bits| (Metric::BitsPerByte, interval(bits)))
                .into_iter()
                .collect(),
            ..Row::default()
        }
    }

    fn of(rows: &[Row]) -> Option<Vec<Group>> {
        groups(&rows.iter().collect::<Vec<_>>(), |_| None)
    }

    #[test]
    fn seeds_of_any_stage_are_replicates_and_the_best_mean_is_first() {
        let rows = [
            row(&json!({ "rate": 1, "model.seed": 1, "rows.seed": 1 }), Some(0.5)),
            row(&json!({ "rate": 2, "model.seed": 1, "rows.seed": 1 }), Some(1.0)),
            row(&json!({ "rate": 1, "model.seed": 2, "rows.seed": 1 }), Some(4.5)),
            row(&json!({ "rate": 2, "model.seed": 1, "rows.seed": 2 }), Some(1.5)),
            row(&json!({ "rate": 1, "model.seed": 2, "rows.seed": 2 }), None),
        ];
        let mut found = of(&rows).unwrap();
        order(&mut found, Metric::BitsPerByte);
        // The best of all rows has rate 1; its mean has not.
        assert_eq!(found[0].title(), "rate 2");
        assert_eq!((&*found[0].rows, &*found[1].rows), (&[1, 3][..], &[0, 2, 4][..]));
        let spread = found[1].metric(Metric::BitsPerByte).unwrap();
        assert_eq!((spread.mean, spread.n), (2.5, 2));
        assert!((spread.sd.unwrap() - 8f64.sqrt()).abs() < 1e-12);
        assert_eq!(counted(&found), "2 settings, 2 to 3 seeds each");
    }

    #[test]
    fn without_replicates_there_are_no_groups() {
        assert_eq!(of(&[]), None);
        let rates = [row(&json!({ "rate": 1 }), None), row(&json!({ "rate": 2 }), None)];
        assert_eq!(of(&rates), None);
        let one_seed_each = [
            row(&json!({ "rate": 1, "seed": 1 }), None),
            row(&json!({ "rate": 2, "seed": 2 }), None),
        ];
        assert_eq!(of(&one_seed_each), None);
        // Twice the same is nothing that a seed changed.
        let twice = [row(&json!({ "seed": 1 }), None), row(&json!({ "seed": 1 }), None)];
        assert_eq!(of(&twice), None);
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0]).unwrap().sd, None);
    }
}
