//! `mdlm compare`: results side by side.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::Terminal;
use super::plan::joined;
use super::project::{Project, ProjectArgs};
use super::table::{columns, took, width as table_width, wrap};
use super::terminal::Style;
use crate::data::Unit;
use crate::error::{Error, Result};
use crate::executor::Summary;
use crate::manifest::{Metric, Point, Stage, StageKind};
use crate::plan::{self, Decision, Plan, Selection};
use crate::plural::counted;
use crate::stages::compare::{
    GroupReport, METRICS_IN_ORDER, Row, arrange, cell, fields, measured, metrics, metrics_json, remarks,
};
use crate::stages::key;
use crate::stages::replicates::{self, Group, is_seed};
use crate::store::Digest;

/// What `mdlm compare --help` says first.
pub const LONG_ABOUT: &str = "\
    Put results side by side: the instances of sweeps with the fields that differ and what was measured, each with its \
    95% interval, the best first.\n\n\
    Results that differ in seeds alone are replicates: a table of their means and standard deviations comes first, the \
    best mean first, and single results follow in the order of the manifest.\n\n\
    Without STAGE, all evaluate stages and all sample stages that a grammar judges; where there are none, all train \
    stages, by their last validation. For several manifests, the settings that differ are listed, from the sources on.\n\n\
    Stages that have not run are listed as such; `mdlm plan` says why.";

/// Fields that are shown at most.
const FIELDS: usize = 8;
/// Hidden columns that are named at most.
const LEFT_OUT: usize = 8;
/// Characters of a value that are shown.
const SHOWN: usize = 24;

/// Status of what was made and lies elsewhere.
const AWAY: &str = "not here";

/// Arguments of `mdlm compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        mdlm compare pipelines/sweep.json --sort perplexity\n  \
        mdlm compare before.json after.json bound")]
pub struct Args {
    /// The manifest
    #[arg(value_name = "MANIFEST")]
    pub manifest: PathBuf,
    /// Stages, with all their instances; and further manifests, whose names end in `.json`
    #[arg(value_name = "STAGE")]
    pub more: Vec<String>,
    /// The metric that orders: `bits_per_byte`, perplexity, ...
    ///
    /// One of `bits_per_byte`, `bits_per_byte_normalized` (of a tokenizer that changes the text), `perplexity`,
    /// `nats_per_token` and `grammatical`; default: the first of these that was measured.
    #[arg(long, value_name = "METRIC", value_parser = metric)]
    pub sort: Option<Metric>,
    /// Set a field for this time: stages.model.steps=200
    ///
    /// PATH=VALUE, as in `mdlm run`; of several manifests in all.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Folder of results, instead of `.mdlm` beside the project
    ///
    /// Stated by the environment too: MDLM_STORE.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Print the tables as JSON
    #[arg(long)]
    pub json: bool,
}

fn metric(name: &str) -> std::result::Result<Metric, String> {
    Metric::find(name).ok_or_else(|| {
        let names: Vec<_> = METRICS_IN_ORDER.iter().map(|metric| metric.name()).collect();
        format!("the metrics are {}", names.join(", "))
    })
}

/// A row with what a table shows beside its metrics.
pub(super) struct Shown {
    /// Name, values, metrics.
    row: Row,
    /// The stage, as the manifest has it.
    written: String,
    /// The same, as an instance.
    stage: String,
    /// Its kind.
    kind: StageKind,
    /// The manifest that it is from.
    manifest: String,
    /// What stands in place of metrics: `not run`.
    status: &'static str,
    /// Why it has yet to run.
    why: Option<String>,
    /// How long it ran.
    seconds: Option<f64>,
    /// The step of a training from which on it ran for so long.
    resumed_from: Option<u64>,
    /// What it made.
    artifact: Option<Digest>,
    /// Where that lies.
    path: Option<PathBuf>,
}

/// The rows of stages of one kind, in order.
pub(super) struct Table {
    /// The metric that orders them.
    by: Option<Metric>,
    /// Rows that differ in seeds alone, where there are any.
    groups: Option<Vec<Group>>,
    rows: Vec<Shown>,
}

/// What `--json` prints, for every kind of stage.
#[derive(Serialize)]
struct TableReport<'a> {
    kind: &'static str,
    /// Orders the groups, where there are any, else the rows.
    sorted_by: Option<Metric>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<Vec<GroupReport<'a>>>,
    rows: Vec<RowReport<'a>>,
}

#[derive(Serialize)]
struct RowReport<'a> {
    manifest: &'a str,
    stage: &'a str,
    point: &'a Point,
    /// `done`, `not here` (made, its files elsewhere) or `not run`.
    status: &'static str,
    why: Option<&'a str>,
    metrics: Map<String, Value>,
    /// What nats and perplexity are per.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
    /// Whether they are the published estimate, which is no bound.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    published: bool,
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed_from: Option<u64>,
    artifact: Option<Digest>,
    path: Option<&'a Path>,
}

/// Prints the tables.
///
/// # Errors
/// An unknown stage, a stage that measures nothing, a store that cannot be read.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let (manifests, stages): (Vec<&String>, Vec<&String>) =
        args.more.iter().partition(|name| is_manifest(name));
    let manifests: Vec<PathBuf> = [args.manifest.clone()]
        .into_iter()
        .chain(manifests.into_iter().map(PathBuf::from))
        .collect();
    let mut projects = Vec::new();
    for manifest in &manifests {
        let arguments = ProjectArgs {
            manifest: manifest.clone(),
            set: args.set.clone(),
            store: args.store.clone(),
        };
        match arguments.open(terminal) {
            Ok(project) => projects.push(project),
            Err(code) => return Ok(code),
        }
    }
    let mut rows = Vec::new();
    let mut settings = Vec::new();
    let mut called = BTreeMap::new();
    for project in &projects {
        let chosen = chosen(project, &stages)?;
        let selection = Selection {
            targets: chosen.clone(),
            ..Selection::default()
        };
        let plan = project.plan(&selection)?;
        for name in project.loaded.sweeps.spelt_out(&chosen) {
            rows.push(shown(project, &plan, &name)?);
            settings.push(if projects.len() > 1 {
                all_settings(project, &plan, &name, &mut called)?
            } else {
                Point::new()
            });
        }
    }
    if projects.len() > 1 {
        tell_apart(&mut rows, &settings);
    }
    let tables = by_kind(rows, args.sort);
    if args.json {
        let reports: Vec<_> = tables.iter().map(report).collect();
        terminal.output_json(&reports)?;
    } else {
        let texts: Vec<_> = tables
            .iter()
            .map(|table| text(table, &|style, text| terminal.paint_output(style, text)))
            .collect();
        terminal.output(&texts.join("\n"))?;
    }
    Ok(0)
}

/// Whether an argument is a manifest rather than a stage.
fn is_manifest(name: &str) -> bool {
    // Names of stages have no point but behind their sign.
    let path = Path::new(name);
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
        || name.contains('/')
}

/// The stages to compare, by their written names or those of instances.
fn chosen(project: &Project, stages: &[&String]) -> Result<Vec<String>> {
    let loaded = &project.loaded;
    let first = |name: &str| -> Option<&Stage> {
        let instance = loaded.sweeps.instances(name).and_then(<[_]>::first);
        loaded
            .manifest
            .stages
            .get(instance.map_or(name, |one| &*one.name))
    };
    let mut written: Vec<&str> = Vec::new();
    for name in loaded.manifest.stages.keys() {
        let name = loaded.sweeps.written(name);
        if !written.contains(&name) {
            written.push(name);
        }
    }
    if !stages.is_empty() {
        for &name in stages {
            let Some(stage) = first(name) else {
                return Err(plan::unknown(&loaded.manifest, name));
            };
            if !matches!(
                stage.kind(),
                StageKind::Evaluate | StageKind::Sample | StageKind::Train
            ) {
                let message = format!(
                    "`{name}` is a stage of kind {}: it measures nothing",
                    stage.kind().name()
                );
                return Err(Error::input(message).hint("name evaluate, sample or train stages"));
            }
        }
        return Ok(stages.iter().map(|&name| name.clone()).collect());
    }
    let of = |wanted: &dyn Fn(&Stage) -> bool| -> Vec<String> {
        let chosen = written.iter().filter(|name| first(name).is_some_and(wanted));
        chosen.map(|&name| name.to_owned()).collect()
    };
    let judged = of(&|stage| match stage {
        Stage::Evaluate(_) => true,
        Stage::Sample(sample) => sample.grammar.is_some(),
        _ => false,
    });
    let chosen = if judged.is_empty() {
        of(&|stage| matches!(stage, Stage::Train(_)))
    } else {
        judged
    };
    if chosen.is_empty() {
        return Err(
            Error::input(format!("`{}` has nothing to compare", loaded.manifest.name))
                .hint("evaluate, sample and train stages measure something"),
        );
    }
    Ok(chosen)
}

fn shown(project: &Project, plan: &Plan, name: &str) -> Result<Shown> {
    let sweeps = &project.loaded.sweeps;
    let Some(stage) = plan.stages.iter().find(|stage| stage.name == name) else {
        return Err(Error::internal(format!("compare `{name}`: it is not planned")));
    };
    let mut shown = Shown {
        row: Row {
            name: Some(sweeps.written(name).to_owned()),
            point: sweeps.point(name).cloned().unwrap_or_default(),
            ..Row::default()
        },
        written: sweeps.written(name).to_owned(),
        stage: name.to_owned(),
        kind: stage.kind(),
        manifest: project.loaded.path.display().to_string(),
        status: "not run",
        why: None,
        seconds: None,
        resumed_from: None,
        artifact: None,
        path: None,
    };
    match &stage.decision {
        Decision::Cached(record) => {
            let path = project.store.artifact_path(&record.artifact);
            shown.row.take(metrics(&path)?);
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
fn all_settings(
    project: &Project,
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
        let written = project.loaded.sweeps.written(&stage.name);
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
fn tell_apart(rows: &mut [Shown], settings: &[Point]) {
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

/// A table for each kind of stage, in order: stages of one kind measure the same.
fn by_kind(rows: Vec<Shown>, sort: Option<Metric>) -> Vec<Table> {
    let mut tables: Vec<Vec<Shown>> = Vec::new();
    for row in rows {
        match tables.iter_mut().find(|table| table[0].kind == row.kind) {
            Some(table) => table.push(row),
            None => tables.push(vec![row]),
        }
    }
    tables
        .into_iter()
        .map(|mut rows| {
            let by = sort.filter(|by| rows.iter().any(|row| row.row.metric(*by).is_some()));
            // Of several manifests, each of which may have a seed of its own, the stages.
            let (by, groups) = arrange(
                &mut rows,
                by,
                |shown| &shown.row,
                |shown| Some(shown.written.clone()),
            );
            Table { by, groups, rows }
        })
        .collect()
}

/// The instances of a run's sweeps: those that judge models, else those that train them.
pub(super) fn of_run(project: &Project, summary: &Summary) -> Vec<Table> {
    let loaded = &project.loaded;
    let mut rows: Vec<Shown> = Vec::new();
    for stage in &summary.stages {
        let (Some(point), Some(planned)) = (
            loaded.sweeps.point(&stage.name),
            loaded.manifest.stages.get(&stage.name),
        ) else {
            continue;
        };
        let path = stage.path.as_ref().map(PathBuf::from);
        let written = loaded.sweeps.written(&stage.name).to_owned();
        let mut row = Row {
            name: Some(written.clone()),
            point: point.clone(),
            ..Row::default()
        };
        // A table that lacks a number is no reason for a run to fail.
        let found = path.as_ref().and_then(|path| metrics(path).ok());
        row.take(found.unwrap_or_default());
        rows.push(Shown {
            row,
            written,
            stage: stage.name.clone(),
            kind: planned.kind(),
            manifest: String::new(),
            status: super::run::word(stage.status),
            why: None,
            seconds: stage.seconds,
            // The run's own summary shows it.
            resumed_from: None,
            artifact: stage.artifact,
            path,
        });
    }
    let judges = |row: &Shown| matches!(row.kind, StageKind::Evaluate | StageKind::Sample);
    let judged = rows.iter().any(|row| judges(row) && !row.row.metrics.is_empty());
    rows.retain(|row| {
        if judged {
            judges(row)
        } else {
            row.kind == StageKind::Train
        }
    });
    let mut tables = by_kind(rows, None);
    tables.retain(|table| table.by.is_some());
    tables
}

fn report(table: &Table) -> TableReport<'_> {
    let groups = table.groups.as_ref();
    TableReport {
        kind: table.rows.first().map_or("", |row| row.kind.name()),
        sorted_by: table.by,
        groups: groups.map(|groups| groups.iter().map(GroupReport::of).collect()),
        rows: table
            .rows
            .iter()
            .map(|shown| RowReport {
                manifest: &shown.manifest,
                stage: &shown.stage,
                point: &shown.row.point,
                status: shown.status,
                why: shown.why.as_deref(),
                metrics: metrics_json(&shown.row.metrics),
                unit: shown.row.unit,
                published: shown.row.published,
                seconds: shown.seconds,
                resumed_from: shown.resumed_from,
                artifact: shown.artifact,
                path: shown.path.as_deref(),
            })
            .collect(),
    }
}

/// A table as text: what does not fit into a terminal's width is left out, and said to be.
pub(super) fn text(table: &Table, paint: &dyn Fn(Style, &str) -> String) -> String {
    let Table { by, groups, rows } = table;
    let all: Vec<&Row> = rows.iter().map(|shown| &shown.row).collect();
    let (mut differ, same) = fields(&all);
    let mut metrics = measured(&all);
    if let Some(by) = *by {
        metrics.sort_by_key(|metric| *metric != by);
    }
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().filter_map(|shown| shown.row.name.as_deref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let named = names.len() > 1 || differ.is_empty();
    let here = |shown: &&Shown| shown.artifact.is_some() && shown.status != AWAY;
    let ran = rows.iter().filter(here).count();
    let mut heading = names.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 3 {
        heading.push_str(", …");
    }
    let count = counted(rows.len(), "result");
    let mut parts = vec![format!("{heading}: {count}")];
    if ran < rows.len() {
        parts.push(format!("{ran} of them there"));
    }
    let mut text = String::new();
    if let Some(groups) = groups {
        let heading = parts.join(", ");
        text.push_str(&over_seeds(&heading, groups, *by, &differ, &metrics, paint));
        parts = vec!["each result by itself, as the manifest has them".to_owned()];
    } else if let Some(by) = by.filter(|_| ran > 1) {
        parts.push(format!("best {} first", by.name()));
    }
    let heading = parts.join(", ");
    let mut left_out: Vec<&str> = Vec::new();
    if differ.len() > FIELDS {
        left_out.extend(differ.drain(FIELDS..));
    }
    let mut last = LAST.to_vec();
    let mut cells = grid(rows, named, &differ, &metrics, &last);
    while width(&cells) > table_width() && metrics.len() > 1 {
        left_out.extend(metrics.pop().map(Metric::name));
        cells = grid(rows, named, &differ, &metrics, &last);
    }
    // What distinguishes rows goes last.
    while width(&cells) > table_width() && !last.is_empty() {
        left_out.push(last.remove(0));
        cells = grid(rows, named, &differ, &metrics, &last);
    }
    let mut without = Vec::new();
    while width(&cells) > table_width() && differ.len() > 1 {
        without.extend(differ.pop());
        cells = grid(rows, named, &differ, &metrics, &last);
    }
    left_out.splice(0..0, without.into_iter().rev());
    text.push_str(&(wrap(&heading, table_width()).join("\n") + "\n\n"));
    let own_columns = usize::from(named) + differ.len();
    text.push_str(&columns(&cells, |row, column, cell| match row.checked_sub(1) {
        None => paint(Style::Faint, cell),
        Some(_) if column < own_columns => paint(Style::Strong, cell),
        Some(row) if column == own_columns && rows[row].row.metrics.is_empty() => paint(Style::Warning, cell),
        Some(_) => cell.to_owned(),
    }));
    let mut notes = Vec::new();
    if !same.is_empty() {
        let same: Vec<_> = same
            .iter()
            .map(|(label, value)| format!("{label} {}", shortened(&cell(value))))
            .collect();
        notes.push(format!("the same in all: {}", same.join(", ")));
    }
    notes.extend(remarks(&all));
    if !left_out.is_empty() {
        let more = left_out.len().saturating_sub(LEFT_OUT);
        left_out.truncate(LEFT_OUT);
        let and = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        notes.push(format!("no room for {}{and}: see --json", left_out.join(", ")));
    }
    if !notes.is_empty() {
        text.push('\n');
        for note in notes {
            text.push_str(&wrap(&note, table_width()).join("\n"));
            text.push('\n');
        }
    }
    text
}

/// The table of means over seeds.
fn over_seeds(
    heading: &str,
    groups: &[Group],
    by: Option<Metric>,
    differ: &[&str],
    metrics: &[Metric],
    paint: &dyn Fn(Style, &str) -> String,
) -> String {
    let mut heading = format!("{heading}, {}: mean ± sd over seeds", replicates::counted(groups));
    if let Some(by) = by.filter(|_| groups.len() > 1) {
        heading.push_str(&format!(", best mean {} first", by.name()));
    }
    let mut fields: Vec<&str> = differ.iter().copied().filter(|label| !is_seed(label)).collect();
    let mut metrics = metrics.to_vec();
    let names: HashSet<_> = groups.iter().map(|group| &group.name).collect();
    let cells = |fields: &[&str], metrics: &[Metric]| -> Vec<Vec<String>> {
        let stage = (names.len() > 1).then_some("stage");
        let titles = metrics.iter().map(|metric| metric.name());
        let first = stage
            .into_iter()
            .chain(fields.iter().copied())
            .chain(["seeds"])
            .chain(titles);
        let body = groups.iter().map(|group| {
            let name = stage.map(|_| group.name.clone().unwrap_or_default());
            let values = fields.iter().map(|label| group.point.get(*label));
            let values = values.map(|value| value.map_or_else(String::new, |value| shortened(&cell(value))));
            let n = group
                .metrics
                .iter()
                .map(|(_, spread)| spread.n)
                .max()
                .unwrap_or(0);
            let seeds = match group.rows.len() {
                all if all == n => n.to_string(),
                all => format!("{n} of {all}"),
            };
            let metrics = metrics.iter().map(|metric| {
                let found = group.metric(*metric);
                found.map_or_else(String::new, |spread| metric.shown_spread(spread))
            });
            name.into_iter()
                .chain(values)
                .chain([seeds])
                .chain(metrics)
                .collect()
        });
        std::iter::once(first.map(str::to_owned).collect())
            .chain(body)
            .collect()
    };
    let mut grid = cells(&fields, &metrics);
    while width(&grid) > table_width() && (metrics.len() > 1 || fields.len() > 1) {
        if metrics.len() > 1 {
            metrics.pop();
        } else {
            fields.pop();
        }
        grid = cells(&fields, &metrics);
    }
    let own_columns = usize::from(names.len() > 1) + fields.len();
    let mut text = wrap(&heading, table_width()).join("\n") + "\n\n";
    text.push_str(&columns(&grid, |row, column, cell| match row {
        0 => paint(Style::Faint, cell),
        _ if column < own_columns => paint(Style::Strong, cell),
        _ => cell.to_owned(),
    }));
    text.push('\n');
    text.push_str(&wrap(replicates::WHAT_IS_SPREAD, table_width()).join("\n"));
    text.push_str("\n\n");
    text
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        return text.to_owned();
    }
    text.chars().take(SHOWN - 1).chain(['…']).collect()
}

/// The cells of a table, its heading first.
fn grid(
    rows: &[Shown],
    named: bool,
    differ: &[&str],
    metrics: &[Metric],
    last: &[&'static str],
) -> Vec<Vec<String>> {
    let heading: Vec<String> = named
        .then_some("stage")
        .into_iter()
        .chain(differ.iter().copied())
        .chain(metrics.iter().map(|metric| metric.name()))
        .chain(metrics.is_empty().then_some("status"))
        .chain(last.iter().copied())
        .map(str::to_owned)
        .collect();
    let body = rows.iter().map(|shown| {
        let row = &shown.row;
        let mut line: Vec<String> = named
            .then(|| row.name.clone().unwrap_or_default())
            .into_iter()
            .collect();
        let values = differ.iter().map(|label| row.point.get(*label));
        line.extend(values.map(|value| value.map_or_else(String::new, |value| shortened(&cell(value)))));
        for place in 0..metrics.len().max(1) {
            let found = metrics
                .get(place)
                .and_then(|metric| Some((metric, row.metric(*metric)?)));
            line.push(match found {
                Some((metric, interval)) => metric.shown(interval),
                // Measured, but by another metric: its status would stand there like a value.
                None if place == 0 && row.metrics.is_empty() => shown.status.to_owned(),
                None => String::new(),
            });
        }
        line.extend(last.iter().map(|column| {
            match *column {
                "time" => shown
                    .seconds
                    .map_or_else(String::new, |seconds| took(seconds, shown.resumed_from)),
                _ => shown
                    .artifact
                    .map_or_else(String::new, |artifact| artifact.short()),
            }
        }));
        line
    });
    std::iter::once(heading).chain(body).collect()
}

/// Columns that no field and no metric fills.
const LAST: [&str; 2] = ["time", "artifact"];

/// The width of a table in characters.
fn width(cells: &[Vec<String>]) -> usize {
    let count = cells.first().map_or(0, Vec::len);
    let widest = |column: usize| {
        let cells = cells.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    (0..count)
        .map(|column| widest(column) + 2)
        .sum::<usize>()
        .saturating_sub(2)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::evaluate::Interval;

    fn shown(stage: &str, rate: f64, bits: Option<f64>) -> Shown {
        let interval = |value: f64| Interval {
            value,
            low: Some(value - 0.25),
            high: Some(value + 0.25),
        };
        let metrics = bits.map(|bits| {
            vec![
                (Metric::BitsPerByte, interval(bits)),
                (Metric::Perplexity, interval(bits * 100.0)),
                (Metric::NatsPerToken, interval(bits * 2.0)),
            ]
        });
        Shown {
            row: Row {
                name: Some(stage.to_owned()),
                point: [("learning_rate", json!(rate)), ("seed", json!(1))]
                    .map(|(label, value)| (label.to_owned(), value))
                    .into(),
                metrics: metrics.unwrap_or_default(),
                unit: bits.map(|_| Unit::Token),
                ..Row::default()
            },
            written: stage.to_owned(),
            stage: format!("{stage}@learning_rate={rate},seed=1"),
            kind: StageKind::Evaluate,
            manifest: "a.json".to_owned(),
            status: if bits.is_some() { "done" } else { "not run" },
            why: None,
            seconds: bits,
            resumed_from: None,
            artifact: bits.map(|_| Digest::of(b"it")),
            path: None,
        }
    }

    #[test]
    fn a_table_fits_a_terminal_and_says_what_it_left_out() {
        let rows = vec![
            shown("bound", 0.1, Some(2.5)),
            shown("bound", 0.01, None),
            shown("bound", 0.001, Some(1.5)),
        ];
        let table = by_kind(rows, Some(Metric::Perplexity)).remove(0);
        let text = text(&table, &|_, text| text.to_owned());
        assert!(
            text.lines()
                .all(|line| line.chars().count() <= crate::cli::table::WIDTH),
            "{text}"
        );
        insta::assert_snapshot!(text, @r"
        bound: 3 results, 2 of them there, best perplexity first

        learning_rate  perplexity           bits_per_byte    time   artifact
        0.001          150.0 (149.8–150.2)  1.5000 ± 0.2500  1.5 s  22324018
        0.1            250.0 (249.8–250.2)  2.5000 ± 0.2500  2.5 s  22324018
        0.01           not run

        the same in all: seed 1
        perplexity and nats_per_token: per token of text
        no room for nats_per_token: see --json
        ");
    }

    #[test]
    fn a_row_with_another_metric_has_an_empty_cell() {
        let mut other = shown("other", 0.1, Some(0.82));
        other.row.metrics[0].0 = Metric::BitsPerByteNormalized;
        let rows = [shown("bound", 0.1, Some(2.5)), other, shown("bound", 0.01, None)];
        let metrics = [Metric::BitsPerByte, Metric::BitsPerByteNormalized];
        let cells = grid(&rows, true, &[], &metrics, &[]);
        assert_eq!(cells[1][1..], ["2.5000 ± 0.2500", ""]);
        assert_eq!(cells[2][1], "");
        assert!(cells[2][2].starts_with("0.82"), "{cells:?}");
        assert_eq!(cells[3][1..], ["not run", ""]);
    }

    #[test]
    fn seeds_are_no_ranking() {
        let of = |rate: f64, seed: u32, bits| {
            let mut shown = shown("bound", rate, bits);
            shown.row.point.insert("seed".to_owned(), json!(seed));
            shown
        };
        let rows = vec![
            of(0.1, 1, Some(2.5)),
            of(0.1, 2, Some(1.0)),
            of(0.01, 1, Some(1.25)),
            of(0.01, 2, Some(1.5)),
            of(0.01, 3, None),
        ];
        let table = by_kind(rows, None).remove(0);
        let text = text(&table, &|_, text| text.to_owned());
        assert!(
            text.lines()
                .all(|line| line.chars().count() <= crate::cli::table::WIDTH),
            "{text}"
        );
        insta::assert_snapshot!(text);
        let json = serde_json::to_value(report(&table)).unwrap();
        assert_eq!(json["groups"][0]["metrics"]["bits_per_byte"]["mean"], 1.375);
        assert_eq!(json["groups"][0]["rows"], json!([0, 1, 2]));
        // Manifests that differ in their seeds alone.
        let mut rows = vec![of(0.1, 1, Some(2.5)), of(0.1, 2, Some(1.0))];
        for (row, manifest) in rows.iter_mut().zip(["a", "b"]) {
            row.row.name = Some(format!("{manifest} bound"));
        }
        let table = by_kind(rows, None).remove(0);
        assert_eq!(table.groups.unwrap()[0].rows, [0, 1]);
    }

    #[test]
    fn labels_are_as_short_as_they_can_be() {
        let all = ["model.objective.noise.epsilon", "model.epsilon", "rows.length"].map(str::to_owned);
        let short = |label| short(label, &all);
        assert_eq!(short("rows.length"), "length");
        assert_eq!(short("model.objective.noise.epsilon"), "noise.epsilon");
        assert_eq!(short("model.epsilon"), "model.epsilon");
    }
}
