//! Which results differ in seeds alone, and in which.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::is_seed;
use crate::manifest::{Point, Seed, StageKind};
use crate::store::Digest;

/// What a result comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Of all settings and files, its own and those of the stages behind it, but for seeds and names.
    pub digest: Digest,
    /// The seeds that it was drawn by, its own first.
    pub seeds: Vec<StageSeed>,
}

/// A seed by which a stage draws random numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSeed {
    /// The way to the stage by the fields that name it: nothing for the result's own stage, `model`, `model.from`.
    pub path: String,
    /// The stage's name, as the manifest has it.
    pub stage: String,
    /// Its kind.
    pub kind: StageKind,
    /// The seed.
    pub seed: u64,
}

/// A result among others: its setting by a number, and the seeds that distinguish results of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicate {
    /// The number of its setting, in order of appearance.
    pub setting: usize,
    /// The seeds.
    pub seeds: Vec<Seed>,
}

/// A seed over all rows.
struct SeedColumn {
    path: String,
    /// By row; absent where a row has no such stage.
    values: Vec<Option<u64>>,
    stages: Vec<String>,
    kinds: Vec<StageKind>,
}

impl SeedColumn {
    /// Whether it says the same as another one: stages that always draw by the same seed are one factor.
    fn agrees(&self, other: &Self) -> bool {
        let mut both = self.values.iter().zip(&other.values);
        let overlap = both.any(|(a, b)| a.is_some() && b.is_some());
        let mut both = self.values.iter().zip(&other.values);
        (overlap || self.stages == other.stages) && both.all(|(a, b)| a.is_none() || b.is_none() || a == b)
    }

    fn merge(&mut self, other: Self) {
        for (own, value) in self.values.iter_mut().zip(other.values) {
            *own = own.or(value);
        }
        self.stages.extend(other.stages);
        self.kinds.extend(other.kinds);
        unique(&mut self.stages);
        unique(&mut self.kinds);
    }

    /// Whether a swept field shows it: where the two are both known they are equal.
    fn is_shown_by(&self, label: &str, rows: &[(&Point, &Setting)]) -> bool {
        let pairs = || {
            self.values
                .iter()
                .zip(rows)
                .map(|(value, (point, _))| (*value, point.get(label)))
        };
        let equal = |(value, shown): (Option<u64>, Option<&serde_json::Value>)| match (value, shown) {
            (Some(value), Some(shown)) if !shown.is_null() => Some(shown.as_u64() == Some(value)),
            _ => None,
        };
        pairs().filter_map(equal).all(|equal| equal) && pairs().filter_map(equal).count() > 0
    }
}

fn unique<T: PartialEq>(all: &mut Vec<T>) {
    let mut seen = Vec::with_capacity(all.len());
    for one in all.drain(..) {
        if !seen.contains(&one) {
            seen.push(one);
        }
    }
    *all = seen;
}

/// Finds which results differ in seeds alone, given where each stands in its sweep and its setting: nothing where no two
/// do. The seeds are those that differ within some setting. A swept field that is one of them gives it its label; others
/// are called by their stage (`rows.seed`), or by its kind where it has several names (`train.seed`).
#[must_use]
pub fn replicates(rows: &[(&Point, &Setting)]) -> Option<Vec<Replicate>> {
    let mut known: HashMap<Digest, usize> = HashMap::new();
    let mut numbers = Vec::with_capacity(rows.len());
    let mut columns: IndexMap<(&str, &str), SeedColumn> = IndexMap::new();
    for (row, (_, setting)) in rows.iter().enumerate() {
        let next = known.len();
        numbers.push(*known.entry(setting.digest).or_insert(next));
        for drawn in &setting.seeds {
            let column = columns
                .entry((drawn.path.as_str(), drawn.kind.name()))
                .or_insert_with(|| SeedColumn {
                    path: drawn.path.clone(),
                    values: vec![None; rows.len()],
                    stages: Vec::new(),
                    kinds: vec![drawn.kind],
                });
            column.values[row] = Some(drawn.seed);
            if !column.stages.contains(&drawn.stage) {
                column.stages.push(drawn.stage.clone());
            }
        }
    }
    let varies = |column: &SeedColumn| {
        let mut first = HashMap::new();
        let mut values = numbers.iter().zip(&column.values);
        values.any(|(number, value)| *first.entry(number).or_insert(value) != value)
    };
    let mut factors: Vec<SeedColumn> = Vec::new();
    for column in columns.into_values().filter(varies) {
        match factors.iter_mut().find(|factor| factor.agrees(&column)) {
            Some(factor) => factor.merge(column),
            None => factors.push(column),
        }
    }
    if factors.is_empty() {
        return None;
    }
    let labels = labels(&factors, rows);
    let replicate = |(row, &setting): (usize, &usize)| Replicate {
        setting,
        seeds: factors
            .iter()
            .zip(&labels)
            .filter_map(|(factor, label)| {
                Some(Seed {
                    label: label.clone(),
                    kinds: factor.kinds.clone(),
                    value: factor.values[row]?,
                })
            })
            .collect(),
    };
    Some(numbers.iter().enumerate().map(replicate).collect())
}

/// The labels of seeds, each its own.
fn labels(factors: &[SeedColumn], rows: &[(&Point, &Setting)]) -> Vec<String> {
    let mut swept: Vec<&str> = rows
        .iter()
        .flat_map(|(point, _)| point.keys().map(String::as_str))
        .collect();
    swept.sort_unstable();
    swept.dedup();
    let mut labels: Vec<Option<String>> = Vec::new();
    for factor in factors {
        let shown = swept.iter().find(|label| {
            is_seed(label)
                && labels.iter().flatten().all(|taken| taken != *label)
                && factor.is_shown_by(label, rows)
        });
        labels.push(shown.map(|&label| label.to_owned()));
    }
    for place in 0..factors.len() {
        if labels[place].is_some() {
            continue;
        }
        let factor = &factors[place];
        let plain = match (&*factor.stages, &*factor.kinds) {
            ([stage], _) => format!("{stage}.seed"),
            (_, [kind]) => format!("{}.seed", kind.name()),
            _ => "seed".to_owned(),
        };
        let by_path = match (&*factor.path, &*factor.kinds) {
            ("", [kind, ..]) => format!("{}.seed", kind.name()),
            (path, _) => format!("{path}.seed"),
        };
        let numbered = (2..).map(|number| format!("{number}.seed"));
        let free = |label: &String| {
            !swept.contains(&label.as_str()) && labels.iter().flatten().all(|taken| taken != label)
        };
        let label = [plain, by_path].into_iter().chain(numbered).find(free);
        labels[place] = label;
    }
    labels.into_iter().flatten().collect()
}
