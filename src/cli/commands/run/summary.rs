//! The summary of a run: a row per stage, the key figures, the tables of sweeps.

use std::collections::HashSet;
use std::path::Path;

use crate::cli::args::project::Project;
use crate::cli::render::style::{self, Style};
use crate::cli::render::table::{columns, paragraph};
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::in_shell;
use crate::cli::render::{comparison, tabulated, words};
use mdlm::executor::{Options, StageSummary, Status, Summary};
use mdlm::manifest::{StageKind, Sweeps};
use mdlm::numbers::duration;
use mdlm::plan::Plan;
use mdlm::stages::table::TableResult;

/// A row of the summary: a stage, or the instances of a sweep together.
struct SummaryRow {
    cells: Vec<String>,
    status: Status,
}

/// The rows of the summary. The instances of a sweep share a row; each one that failed also has a
/// separate row.
fn rows(summary: &Summary, sweeps: &Sweeps) -> Vec<SummaryRow> {
    let mut rows = Vec::new();
    let mut listed = HashSet::new();
    for stage in &summary.stages {
        let name = sweeps.written(&stage.name);
        if name != stage.name && listed.insert(name) {
            let all: Vec<_> = summary
                .stages
                .iter()
                .filter(|other| sweeps.written(&other.name) == name)
                .collect();
            rows.push(together(name, &all));
        }
        if name != stage.name && stage.status != Status::Failed {
            continue;
        }
        let cells = vec![
            stage.name.clone(),
            words::status(stage.status).to_owned(),
            stage.seconds.map_or_else(String::new, duration),
            stage
                .artifact
                .map_or_else(String::new, |artifact| artifact.short()),
            // The messages of failures come at the end, in full.
            if stage.status == Status::Failed {
                "see below".to_owned()
            } else {
                stage.why.clone()
            },
        ];
        rows.push(SummaryRow {
            cells,
            status: stage.status,
        });
    }
    rows
}

/// The instances of a sweep in one row: the status of most concern, and how many have which.
fn together(name: &str, all: &[&StageSummary]) -> SummaryRow {
    let concern = [
        Status::Failed,
        Status::Interrupted,
        Status::NotRun,
        Status::Done,
        Status::Fetched,
        Status::Away,
        Status::Cached,
    ];
    let count = |status| all.iter().filter(|stage| stage.status == status).count();
    let present: Vec<Status> = concern.into_iter().filter(|status| count(*status) > 0).collect();
    let status = present.first().copied().unwrap_or(Status::NotRun);
    let seconds: Vec<f64> = all.iter().filter_map(|stage| stage.seconds).collect();
    let mut why: Vec<String> = Vec::new();
    if present.len() > 1 {
        let counts: Vec<_> = present
            .iter()
            .map(|status| format!("{} {}", count(*status), words::status(*status)))
            .collect();
        why.push(counts.join(", "));
    }
    // A reason is shown where all share it; `mdlm plan` and the lines above show each.
    let mut reasons: Vec<&str> = all
        .iter()
        .map(|stage| stage.why.as_str())
        .filter(|why| !why.is_empty())
        .collect();
    reasons.dedup();
    if let [reason] = reasons.as_slice()
        && status != Status::Failed
    {
        why.push((*reason).to_owned());
    }
    let cells = vec![
        format!("{name} ×{}", all.len()),
        words::status(status).to_owned(),
        if seconds.is_empty() {
            String::new()
        } else {
            duration(seconds.iter().sum())
        },
        String::new(),
        why.join("; "),
    ];
    SummaryRow { cells, status }
}

/// The summary as text: a row per stage, then the key figures, then the tables of sweeps.
pub(super) fn table(
    summary: &Summary,
    plan: &Plan,
    project: &Project,
    options: &Options,
    terminal: &Terminal,
) -> String {
    let pipeline = &project.loaded.manifest.name;
    let sweeps = &project.loaded.sweeps;
    let summary_rows = rows(summary, sweeps);
    let heading = ["stage", "status", "time", "artifact", "why"]
        .map(str::to_owned)
        .to_vec();
    let mut rows = vec![heading];
    rows.extend(summary_rows.iter().map(|row| row.cells.clone()));
    let mut text = columns(&rows, terminal.colors_talk(), |row, column| {
        let status = row.checked_sub(1).map(|row| summary_rows[row].status);
        match (status, column) {
            (None, _) => style::FAINT,
            (Some(_), 0) => style::STRONG,
            (Some(status), 1) => style_of(status),
            _ => style::PLAIN,
        }
    });
    let figures: Vec<_> = summary
        .stages
        .iter()
        .filter(|stage| !stage.figures.is_empty() && sweeps.written(&stage.name) == stage.name)
        .map(|stage| {
            let figures: Vec<_> = stage
                .figures
                .iter()
                .map(|(name, value)| format!("{name} {value}"))
                .collect();
            vec![stage.name.clone(), figures.join(", ")]
        })
        .collect();
    if !figures.is_empty() {
        text.push('\n');
        text.push_str(&columns(
            &figures,
            terminal.colors_talk(),
            |_, column| match column {
                0 => style::STRONG,
                _ => style::PLAIN,
            },
        ));
    }
    let tables = tables_of(summary, project);
    if has_unfinished_table(summary, project) {
        let path = in_shell(&project.loaded.path.display().to_string());
        text.push('\n');
        text.push_str(&paragraph(&format!(
            "`mdlm table {path}` shows the table with the cells that are there"
        )));
        text.push('\n');
    }
    for table in &tables {
        text.push('\n');
        text.push_str(&tabulated::text(table, terminal.colors_talk()));
    }
    // The tables of a manifest say what its sweeps are compared by.
    if tables.is_empty() {
        let compared = comparison::of_run(&project.loaded, plan, summary);
        for table in comparison::texts(&compared, terminal.colors_talk()) {
            text.push('\n');
            text.push_str(&table);
        }
    }
    if !options.overrides.is_empty() {
        text.push('\n');
        let overrides = format!("{pipeline} ran with {}", options.overrides.join(" "));
        text.push_str(&paragraph(&overrides));
        text.push('\n');
    }
    text.trim_end().to_owned()
}

/// The table stages of a run.
fn table_stages<'a>(summary: &'a Summary, project: &'a Project) -> impl Iterator<Item = &'a StageSummary> {
    let stages = &project.loaded.manifest.stages;
    let is_table = |name: &str| {
        stages
            .get(name)
            .is_some_and(|stage| stage.kind() == StageKind::Table)
    };
    summary.stages.iter().filter(move |stage| is_table(&stage.name))
}

/// Whether a run has ended before a table, although results for it may be there.
fn has_unfinished_table(summary: &Summary, project: &Project) -> bool {
    let unfinished = [Status::Failed, Status::Interrupted, Status::NotRun];
    table_stages(summary, project).any(|stage| unfinished.contains(&stage.status))
}

/// The tables that a run has made or found.
fn tables_of(summary: &Summary, project: &Project) -> Vec<TableResult> {
    // A table that cannot be read is not a reason for a run to fail.
    table_stages(summary, project)
        .filter_map(|stage| TableResult::open(Path::new(stage.path.as_ref()?)).ok())
        .collect()
}

fn style_of(status: Status) -> Style {
    match status {
        Status::Cached | Status::Away => style::FAINT,
        Status::Fetched | Status::Done => style::GOOD,
        Status::Failed => style::ERROR,
        Status::Interrupted | Status::NotRun => style::WARNING,
    }
}
