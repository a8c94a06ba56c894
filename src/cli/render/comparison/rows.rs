//! The rows of tables: what a plan or a run knows of each, what distinguishes them, and which are replicates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::render::words::{self, joined};
use mdlm::error::{Error, Result};
use mdlm::executor::Summary;
use mdlm::manifest::{COMPARABLE, Compare, Compared, Loaded, Metric, Point, Stage, StageKind};
use mdlm::plan::{Decision, Plan};
use mdlm::stages::compare::{Comparison, Row, by_text, metrics};
use mdlm::stages::key;
use mdlm::stages::replicates::{Setting, is_seed, replicates};
use mdlm::store::{Digest, Store};

/// Status of what was made and lies elsewhere.
pub const AWAY: &str = "remote only";

/// A row with what a table shows beside its metrics.
pub struct Shown {
    /// Name, values, metrics.
    pub row: Row,
    /// The stage, as an instance.
    pub stage: String,
    /// Its kind.
    pub kind: StageKind,
    /// The manifest that it is from.
    pub manifest: String,
    /// What stands in place of metrics: `not run`.
    pub status: &'static str,
    /// Why it has yet to run.
    pub why: Option<String>,
    /// How long it ran.
    pub seconds: Option<f64>,
    /// The step of a training from which on it ran for so long.
    pub resumed_from: Option<u64>,
    /// What it made.
    pub artifact: Option<Digest>,
    /// Where that lies.
    pub path: Option<PathBuf>,
    /// What it comes from.
    pub setting: Setting,
}

impl AsRef<Row> for Shown {
    fn as_ref(&self) -> &Row {
        &self.row
    }
}

impl AsMut<Row> for Shown {
    fn as_mut(&mut self) -> &mut Row {
        &mut self.row
    }
}

/// The rows of stages of one kind, in order.
pub type ShownComparison = Comparison<Shown>;

/// The rows of some stages of a plan, by their names.
///
/// # Errors
/// The artifact of a stage cannot be read.
pub fn planned(loaded: &Loaded, store: &Store, plan: &Plan, names: &[String]) -> Result<Vec<Shown>> {
    let place = |name: &String| {
        let place = plan.stages.iter().position(|stage| stage.name == *name);
        place.ok_or_else(|| Error::internal(format!("compare `{name}`: it is not planned")))
    };
    let places: Vec<usize> = names.iter().map(place).collect::<Result<_>>()?;
    let settings = plan.settings(places.iter().copied());
    let rows = places.into_iter().zip(settings);
    rows.map(|(place, setting)| shown(loaded, store, plan, place, setting))
        .collect()
}

fn shown(loaded: &Loaded, store: &Store, plan: &Plan, place: usize, setting: Setting) -> Result<Shown> {
    let sweeps = &loaded.sweeps;
    let stage = &plan.stages[place];
    let name = &stage.name;
    let mut shown = Shown {
        row: Row {
            name: Some(sweeps.written(name).to_owned()),
            point: sweeps.point(name).cloned().unwrap_or_default(),
            ..Row::default()
        },
        stage: name.clone(),
        kind: stage.kind(),
        manifest: loaded.path.display().to_string(),
        status: "not run",
        why: None,
        seconds: None,
        resumed_from: None,
        artifact: None,
        path: None,
        setting,
    };
    match &stage.decision {
        Decision::Cached(record) => {
            let path = store.artifact_path(&record.artifact);
            let Row { name, point, .. } = shown.row;
            shown.row = Row {
                name,
                point,
                ..metrics(&path)?
            };
            shown.status = "done";
            shown.seconds = Some(record.provenance.seconds);
            shown.resumed_from = record.provenance.resumed_from();
            shown.artifact = Some(record.artifact);
            shown.path = Some(path);
        }
        Decision::Away(record) | Decision::Fetch(record) => {
            shown.status = AWAY;
            shown.seconds = Some(record.provenance.seconds);
            shown.resumed_from = record.provenance.resumed_from();
            shown.artifact = Some(record.artifact);
        }
        Decision::Run { reasons, .. } => shown.why = Some(joined(reasons)),
    }
    Ok(shown)
}

/// The settings of a stage and of all that it needs, by the names of stages: `model.learning_rate`. The only one of its
/// kind is `called` what the first such stage was: one that has another name in another manifest differs by that in nothing.
///
/// # Errors
/// A bug: settings always have a JSON form.
pub fn all_settings(
    loaded: &Loaded,
    plan: &Plan,
    name: &str,
    called: &mut BTreeMap<&'static str, String>,
) -> Result<Point> {
    let mut open: Vec<usize> = plan
        .stages
        .iter()
        .position(|stage| stage.name == name)
        .into_iter()
        .collect();
    let mut needed: Vec<usize> = Vec::new();
    while let Some(index) = open.pop() {
        if !needed.contains(&index) {
            needed.push(index);
            open.extend(plan.stages[index].inputs.iter().map(|input| input.index));
        }
    }
    needed.sort_unstable();
    let mut all = Point::new();
    for &index in &needed {
        let stage = &plan.stages[index];
        let kind = stage.kind();
        let written = loaded.sweeps.written(&stage.name);
        let alike = needed.iter().filter(|&&other| plan.stages[other].kind() == kind);
        let label = if alike.count() == 1 {
            called
                .entry(kind.name())
                .or_insert_with(|| written.to_owned())
                .as_str()
        } else {
            written
        };
        let mut settings = key::settings(&stage.stage)?;
        if let Some(fields) = settings.as_object_mut() {
            fields.insert("seed".to_owned(), Value::from(stage.seed));
            for reference in stage.stage.references() {
                fields.shift_remove(reference.field);
            }
        }
        leaves(label, &settings, &mut all);
    }
    Ok(all)
}

/// The leaves of settings, with their paths.
fn leaves(path: &str, value: &Value, all: &mut Point) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                leaves(&format!("{path}.{name}"), value, all);
            }
        }
        other => drop(all.insert(path.to_owned(), other.clone())),
    }
}

/// Replaces the points of rows by what of their settings is not the same in all, and names them by their manifests.
pub fn distinguish(rows: &mut [Shown], settings: &[Point]) {
    let mut labels: Vec<String> = Vec::new();
    for label in settings.iter().flat_map(Point::keys) {
        if !labels.contains(label) {
            labels.push(label.clone());
        }
    }
    labels.retain(|label| {
        settings
            .iter()
            .any(|one| one.get(label) != settings[0].get(label))
    });
    // A pipeline's seed is that of all its stages: one column shows it.
    let seeds: Vec<&String> = labels.iter().filter(|label| is_seed(label)).collect();
    let same = |label: &str| {
        settings
            .iter()
            .all(|one| one.get(label) == seeds.first().and_then(|&first| one.get(first)))
    };
    let merged = seeds.len() > 1 && seeds.iter().all(|label| same(label));
    let first_seed = seeds.first().map(|&label| label.clone());
    for (row, settings) in rows.iter_mut().zip(settings) {
        let differ = labels
            .iter()
            .filter(|label| !merged || !is_seed(label) || Some(*label) == first_seed.as_ref())
            .filter_map(|label| {
                let shown = if merged && is_seed(label) {
                    "seed"
                } else {
                    short(label, &labels)
                };
                Some((shown.to_owned(), settings.get(label)?.clone()))
            });
        row.row.point = differ.collect();
        let manifest = Path::new(&row.manifest)
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned());
        let stage = row.row.name.take().unwrap_or_default();
        row.row.name = Some(format!("{} {stage}", manifest.unwrap_or_default()));
    }
}

/// A label without the names that are not needed to distinguish it: `learning_rate` for `model.learning_rate`.
fn short<'a>(label: &'a str, all: &[String]) -> &'a str {
    let mut short = label;
    while let Some((_, rest)) = short.split_once('.') {
        let ends = |other: &&String| other.as_str() == rest || other.ends_with(&format!(".{rest}"));
        if rest.is_empty() || all.iter().filter(ends).count() > 1 {
            break;
        }
        short = rest;
    }
    short
}

/// A table for each kind of stage and each text, in order: stages of one kind measure the same, and results on different texts are
/// not ranked with each other.
#[must_use]
pub fn by_kind(rows: Vec<Shown>, sort: Option<Metric>) -> Vec<ShownComparison> {
    let mut tables: Vec<Vec<Shown>> = Vec::new();
    for row in rows {
        match tables.iter_mut().find(|table| table[0].kind == row.kind) {
            Some(table) => table.push(row),
            None => tables.push(vec![row]),
        }
    }
    tables
        .into_iter()
        .flat_map(|mut rows| {
            let settings: Vec<_> = rows
                .iter()
                .map(|shown| (&shown.row.point, &shown.setting))
                .collect();
            let found = replicates(&settings).unwrap_or_default();
            for (shown, replicate) in rows.iter_mut().zip(found) {
                shown.row.place(replicate.setting, replicate.seeds);
            }
            by_text(rows).into_iter().map(move |rows| {
                let by = sort.filter(|by| rows.iter().any(|row| row.row.metric(*by).is_some()));
                ShownComparison::of(rows, by)
            })
        })
        .collect()
}

/// The metric by which the manifest's compare stages order the table of some instances: those that are named, else all that
/// have one of the instances. Nothing where there is none, or they differ.
#[must_use]
pub fn sort_of(loaded: &Loaded, instances: &[&str], named: &[&String]) -> Option<Metric> {
    let stages = loaded
        .manifest
        .stages
        .iter()
        .filter_map(|(name, stage)| match stage {
            Stage::Compare(compare) => Some((name, compare)),
            _ => None,
        });
    let collects = |of: &[Compared]| of.iter().any(|row| instances.contains(&row.stage.as_str()));
    let stages: Vec<(&String, &Compare)> = stages.filter(|(_, compare)| collects(&compare.of)).collect();
    let any_named = stages.iter().any(|(name, _)| named.contains(name));
    let chosen = stages
        .into_iter()
        .filter(|(name, _)| !any_named || named.contains(name));
    let mut sorts = chosen.map(|(_, compare)| compare.sort);
    let first = sorts.next()?;
    first.filter(|_| sorts.all(|other| other == first))
}

/// The instances of a run's sweeps: those that judge models, else those that train them.
pub fn of_run(loaded: &Loaded, plan: &Plan, summary: &Summary) -> Vec<ShownComparison> {
    let places: Vec<Option<usize>> = summary
        .stages
        .iter()
        .map(|stage| plan.stages.iter().position(|planned| planned.name == stage.name))
        .collect();
    let mut settings = plan.settings(places.iter().flatten().copied()).into_iter();
    let mut rows: Vec<Shown> = Vec::new();
    for (stage, place) in summary.stages.iter().zip(places) {
        let setting = place.and_then(|_| settings.next());
        let (Some(point), Some(planned), Some(setting)) = (
            loaded.sweeps.point(&stage.name),
            loaded.manifest.stages.get(&stage.name),
            setting,
        ) else {
            continue;
        };
        let path = stage.path.as_ref().map(PathBuf::from);
        // A table that lacks a number is not a reason for a run to fail.
        let found = path.as_ref().and_then(|path| metrics(path).ok());
        let row = Row {
            name: Some(loaded.sweeps.written(&stage.name).to_owned()),
            point: point.clone(),
            ..found.unwrap_or_default()
        };
        rows.push(Shown {
            row,
            stage: stage.name.clone(),
            kind: planned.kind(),
            manifest: String::new(),
            status: words::status(stage.status),
            why: None,
            seconds: stage.seconds,
            // The run's own summary shows it.
            resumed_from: None,
            artifact: stage.artifact,
            path,
            setting,
        });
    }
    let judges = |row: &Shown| row.kind.measures_model();
    let judged = rows.iter().any(|row| judges(row) && !row.row.metrics.is_empty());
    rows.retain(|row| {
        if judged {
            judges(row)
        } else {
            COMPARABLE.contains(&row.kind) && !judges(row)
        }
    });
    let compared: Vec<&str> = rows.iter().map(|row| row.stage.as_str()).collect();
    let sort = sort_of(loaded, &compared, &[]);
    let mut tables = by_kind(rows, sort);
    tables.retain(|table| table.by.is_some());
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_as_short_as_distinctness_allows() {
        let all = ["model.objective.noise.epsilon", "model.epsilon", "rows.length"].map(str::to_owned);
        let short = |label| short(label, &all);
        assert_eq!(short("rows.length"), "length");
        assert_eq!(short("model.objective.noise.epsilon"), "noise.epsilon");
        assert_eq!(short("model.epsilon"), "model.epsilon");
    }
}
