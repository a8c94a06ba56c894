//! Groups of rows that differ in seeds alone: replicates of one setting ([`crate::stages::replicates`]).
//!
//! A group has the mean of its values and their standard deviation over seeds. Groups are sorted by their means; rows
//! within a group keep their order.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Row, measured, metric};
use crate::evaluate::Quantity;
use crate::manifest::{Metric, Point, StageKind};
use crate::plural;
use crate::stages::replicates::{Spread, factors, is_seed};

/// Rows that differ in seeds alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What its rows are called.
    pub name: Option<String>,
    /// What they have in common: their values without seeds.
    pub point: Point,
    /// Its rows, by their places in the list.
    pub rows: Vec<usize>,
    /// Its seeds that differ: their labels, the kinds of stages that draw by them, and how many values each has.
    pub seeds: Vec<(String, Vec<StageKind>, usize)>,
    /// Its metrics over seeds.
    pub metrics: Vec<(Metric, Spread)>,
    /// Whether they are bounds.
    pub quantity: Quantity,
    /// Whether some of them are the published estimate, which is not a bound.
    pub published: bool,
}

impl Group {
    /// A metric over seeds.
    #[must_use]
    pub fn metric(&self, metric: Metric) -> Option<Spread> {
        let found = self.metrics.iter().find(|(other, _)| *other == metric);
        found.map(|(_, spread)| *spread)
    }

    /// A metric over seeds as a table shows it, with a sign where bounds have one ([`are_signed`](super::are_signed));
    /// empty where there is none.
    #[must_use]
    pub fn shown(&self, metric: Metric, signed: bool) -> String {
        let sign = metric::sign(metric, signed, self.quantity, self.published);
        self.metric(metric).map_or_else(String::new, |spread| {
            format!("{sign}{}", metric::shown_spread(metric, spread))
        })
    }

    /// How many of its rows, chosen by `counts`, have different seeds.
    #[must_use]
    pub fn distinct(&self, rows: &[&Row], counts: impl Fn(usize) -> bool) -> usize {
        self.chosen(rows, counts).len()
    }

    fn chosen(&self, rows: &[&Row], counts: impl Fn(usize) -> bool) -> Vec<usize> {
        let chosen: Vec<usize> = self.rows.iter().copied().filter(|&row| counts(row)).collect();
        distinct(rows, &chosen)
    }

    /// The same as text, with how many of each seed where several differ:
    /// `3`, `6 (2 × 3)`, `2 of 3` where not all count.
    #[must_use]
    pub fn counted(&self, rows: &[&Row], counts: impl Fn(usize) -> bool) -> String {
        let all = distinct(rows, &self.rows).len();
        let some = self.chosen(rows, counts);
        let mut text = some.len().to_string();
        if some.len() < all {
            let _ = write!(text, " of {all}");
        }
        let levels: Vec<Vec<u64>> = some.iter().map(|&row| seeds_of(rows[row])).collect();
        let levels: Vec<usize> = factors(&levels)
            .iter()
            .map(|factor| factor.iter().max().map_or(0, |most| most + 1))
            .collect();
        if levels.len() > 1 {
            let crossed = levels.iter().product::<usize>() == some.len();
            let levels: Vec<_> = levels.iter().map(usize::to_string).collect();
            let _ = write!(text, " ({})", levels.join(if crossed { " × " } else { ", " }));
        }
        text
    }
}

/// The values of a row's seeds.
pub(in crate::stages) fn seeds_of(row: &Row) -> Vec<u64> {
    row.seeds.iter().map(|seed| seed.value).collect()
}

/// Of some rows of one setting those left out that have the seeds of an earlier one: they are the same row twice.
pub(super) fn distinct(rows: &[&Row], of: &[usize]) -> Vec<usize> {
    let mut known = Vec::new();
    let mut distinct = Vec::new();
    for &row in of {
        let seeds = seeds_of(rows[row]);
        if !known.contains(&seeds) {
            known.push(seeds);
            distinct.push(row);
        }
    }
    distinct
}

/// The groups of rows, in the order of their first ones; nothing where no two rows differ in seeds alone.
#[must_use]
pub fn groups(rows: &[&Row]) -> Option<Vec<Group>> {
    let mut of_setting: HashMap<usize, usize> = HashMap::new();
    let mut places: Vec<Vec<usize>> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        // A row whose setting is not known stands alone.
        let group = row
            .setting
            .map(|setting| *of_setting.entry(setting).or_insert(places.len()));
        match group.filter(|&group| group < places.len()) {
            Some(group) => places[group].push(index),
            None => places.push(vec![index]),
        }
    }
    let groups: Vec<Group> = places.into_iter().map(|places| group(rows, places)).collect();
    groups
        .iter()
        .any(|group| !group.seeds.is_empty())
        .then_some(groups)
}

/// What two values have in common: of objects the fields.
fn common(one: &Value, other: &Value) -> Option<Value> {
    if one == other {
        return Some(one.clone());
    }
    let (one, other) = one.as_object().zip(other.as_object())?;
    let fields = one
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), common(value, other.get(name)?)?)));
    let fields: Map<String, Value> = fields.collect();
    (!fields.is_empty()).then_some(Value::Object(fields))
}

/// The group of the rows at some places.
fn group(rows: &[&Row], places: Vec<usize>) -> Group {
    let first = rows[places[0]];
    let mut names: Vec<&str> = Vec::new();
    for name in places.iter().filter_map(|&row| rows[row].name.as_deref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let name = match &*names {
        [] => None,
        [one] => Some((*one).to_owned()),
        [one, two] => Some(format!("{one}, {two}")),
        [one, .., last] => Some(format!("{one} … {last}")),
    };
    let point = first.point.iter().filter_map(|(label, value)| {
        let mut others = places[1..].iter().map(|&row| rows[row].point.get(label));
        let shared = others.try_fold(value.clone(), |shared, other| common(&shared, other?));
        Some((label.clone(), shared.filter(|_| !is_seed(label))?))
    });
    let point = point.collect();
    let single = distinct(rows, &places);
    let seeds = first.seeds.iter().enumerate().filter_map(|(place, seed)| {
        let mut values: Vec<_> = single
            .iter()
            .map(|&row| rows[row].seeds.get(place).map(|seed| seed.value))
            .collect();
        values.sort_unstable();
        values.dedup();
        (values.len() > 1).then(|| (seed.label.clone(), seed.kinds.clone(), values.len()))
    });
    let seeds = seeds.collect();
    let metrics = measured(rows).into_iter().filter_map(|metric| {
        let found = single
            .iter()
            .filter_map(|&row| Some((rows[row].metric(metric)?.value, seeds_of(rows[row]))));
        let (values, seeds): (Vec<f64>, Vec<_>) = found.unzip();
        Some((metric, Spread::of(&values, &seeds)?))
    });
    Group {
        metrics: metrics.collect(),
        quantity: places
            .iter()
            .find(|&&row| !rows[row].metrics.is_empty())
            .map_or_else(Quantity::default, |&row| rows[row].quantity),
        published: places.iter().any(|&row| rows[row].published),
        name,
        point,
        seeds,
        rows: places,
    }
}

/// `3 settings, 2 seeds each`, or how many seeds they have at least and at most.
#[must_use]
pub fn counted(groups: &[Group], rows: &[&Row]) -> String {
    let counts = || groups.iter().map(|group| distinct(rows, &group.rows).len());
    let (least, most) = (counts().min().unwrap_or(0), counts().max().unwrap_or(0));
    let settings = plural::counted(groups.len(), "setting");
    let seeds = plural::counted(most, "seed");
    match (groups.len(), least == most) {
        (1, _) => format!("{settings}, {seeds}"),
        (_, true) => format!("{settings}, {seeds} each"),
        (_, false) => format!("{settings}, {least} to {seeds} each"),
    }
}

/// What the ± of groups is, and over which seeds.
#[must_use]
pub fn what_is_spread(groups: &[Group]) -> String {
    let mut differ: Vec<(&str, &[StageKind])> = Vec::new();
    for (label, kinds, _) in groups.iter().flat_map(|group| &group.seeds) {
        if differ.iter().all(|(other, _)| *other != label.as_str()) {
            differ.push((label.as_str(), kinds.as_slice()));
        }
    }
    let said = differ.iter().map(|(label, kinds)| {
        let kinds: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        match *kinds {
            [kind] if *label == format!("{kind}.seed") => (*label).to_owned(),
            _ => format!("{label} ({})", kinds.join(", ")),
        }
    });
    let said: Vec<String> = said.collect();
    let mut text = match &*said {
        [one] => format!(
            "± is the standard deviation of single results (with n − 1) over {one}: the spread to expect \
             of another such seed, not the uncertainty of the mean."
        ),
        several => format!(
            "± is the standard deviation of single results over {}, from the pairs that share no seed: the \
             spread to expect with other seeds, not the uncertainty of the mean.",
            several.join(" × ")
        ),
    };
    if differ.iter().all(|(_, kinds)| !kinds.contains(&StageKind::Train)) {
        text.push_str(" It does not cover the spread between seeds of training.");
    }
    text
}

#[cfg(test)]
mod tests;
