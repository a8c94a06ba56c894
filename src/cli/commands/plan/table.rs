//! The table of what a run would do: a row a stage, and of a large sweep a row for the instances of which the same is to be
//! said.

use std::collections::HashMap;

use indexmap::IndexMap;

use super::Outlook;
use crate::cli::render::style::{self, Style};
use crate::cli::render::words::joined;
use mdlm::manifest::Sweeps;
use mdlm::numbers::{bytes, count};
use mdlm::plan::{Decision, Needed, Plan, PlannedStage, Reason};

/// Instances of a sweep that have a row each, at most.
pub(super) const SHOWN_INSTANCES: usize = 12;

/// A row of the table.
pub(super) struct PlanRow {
    pub cells: Vec<String>,
    /// Whether there is nothing to do.
    is_done: bool,
}

impl PlanRow {
    /// The style of a cell.
    pub fn style(&self, column: usize) -> Style {
        match column {
            0 => style::STRONG,
            1 => style::FAINT,
            _ if self.is_done => style::FAINT,
            _ => style::ACCENT,
        }
    }
}

/// How many of the plan's stages are instances of each swept stage.
pub(super) fn instances_in_plan<'a>(plan: &'a Plan, sweeps: &'a Sweeps) -> HashMap<&'a str, usize> {
    let mut counts = HashMap::new();
    for stage in &plan.stages {
        let written = sweeps.written(&stage.name);
        if written != stage.name {
            *counts.entry(written).or_default() += 1;
        }
    }
    counts
}

/// What is to be said of a stage.
struct StageLine {
    /// In full.
    text: String,
    /// Without what distinguishes instances: digests, the values in names of instances.
    common: String,
    is_done: bool,
}

/// The rows of the table.
pub(super) fn rows(plan: &Plan, outlook: &[Outlook], sweeps: &Sweeps) -> Vec<PlanRow> {
    let counts = instances_in_plan(plan, sweeps);
    let mut rows: Vec<PlanRow> = Vec::new();
    // Of each large sweep, its groups by what is said of them: the place of the row, and how many have it.
    let mut groups: IndexMap<(&str, String), (usize, usize)> = IndexMap::new();
    let mut group_counts: HashMap<&str, usize> = HashMap::new();
    for (stage, outlook) in plan.stages.iter().zip(outlook) {
        let line = line(stage, outlook);
        let written = sweeps.written(&stage.name);
        let cells = vec![stage.name.clone(), stage.kind().name().to_owned(), line.text];
        if counts.get(written).is_none_or(|&count| count <= SHOWN_INSTANCES) {
            rows.push(PlanRow {
                cells,
                is_done: line.is_done,
            });
            continue;
        }
        let mut common = line.common;
        let groups_of_sweep = group_counts.entry(written).or_default();
        if !groups.contains_key(&(written, common.clone())) {
            if *groups_of_sweep >= SHOWN_INSTANCES {
                // The rest of a sweep of which something else is to be said of each instance.
                let what = common.split([':', ' ']).next().unwrap_or_default();
                let what = if what == "will" { "will run" } else { what };
                common = format!("{what}, for other reasons: `--json` lists each");
            } else {
                *groups_of_sweep += 1;
            }
        }
        let (place, size) = groups.entry((written, common.clone())).or_insert((rows.len(), 0));
        *size += 1;
        if *size == 1 {
            rows.push(PlanRow {
                cells,
                is_done: line.is_done,
            });
        } else {
            let row = &mut rows[*place];
            row.cells[0] = format!("{written} ×{}", count(*size as u64));
            row.cells[2] = common;
        }
    }
    rows
}

fn line(stage: &PlannedStage, outlook: &Outlook) -> StageLine {
    let (text, common) = match &stage.decision {
        Decision::Cached(record) => {
            let lacking = stage
                .lacking()
                .map_or_else(String::new, |lacking| format!(": {lacking}"));
            (
                format!("cached {}{lacking}", record.artifact.short()),
                format!("cached{lacking}"),
            )
        }
        Decision::Away(record) => (
            format!(
                "done ({}); its files are neither in the store nor needed",
                record.artifact.short()
            ),
            "done; their files are neither in the store nor needed".to_owned(),
        ),
        Decision::Fetch(record) => (
            format!("will be fetched from the remote: {}", record.artifact.short()),
            "will be fetched from the remote".to_owned(),
        ),
        Decision::Run { reasons, .. } => {
            let from = outlook
                .step
                .map_or_else(String::new, |step| format!(" from step {step} on"));
            let downloads = outlook.downloads.as_ref().map_or_else(String::new, needed);
            // The step is of another training's checkpoint: beside it "never ran" would contradict itself.
            let why = match (outlook.step, reasons.as_slice()) {
                (Some(_), [Reason::NeverRan]) => "resumes from another training".to_owned(),
                _ => joined(reasons),
            };
            let text = format!("will run{from}: {why}{downloads}");
            (text.clone(), text)
        }
    };
    StageLine {
        text,
        common: without_points(&common),
        is_done: matches!(stage.decision, Decision::Cached(_) | Decision::Away(_)),
    }
}

/// What has to be downloaded, in some words.
fn needed(needed: &Needed) -> String {
    let size = needed
        .bytes
        .map_or_else(String::new, |size| format!(", {}", bytes(size)));
    match needed.urls.as_slice() {
        [url] => format!("; downloads {}{size}", url.rsplit('/').next().unwrap_or(url)),
        urls => format!("; downloads {} files{size}", urls.len()),
    }
}

/// A text in which the names of instances, `model@seed=1` in backticks, are those of their stages.
fn without_points(text: &str) -> String {
    let mut parts = text.split('`');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for (place, part) in parts.enumerate() {
        let is_name = place % 2 == 0;
        let name = part
            .split_once('@')
            .filter(|(_, point)| is_name && point.contains('='));
        out.push('`');
        out.push_str(name.map_or(part, |(name, _)| name));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_of_a_large_sweep_leaves_values_out_of_names() {
        for (text, common) in [
            ("will run: never ran", "will run: never ran"),
            ("will run: `model@seed=1` runs", "will run: `model` runs"),
            (
                "`a@x.txt` changed; compared with `b@c=1,d=2` of `p`",
                "`a@x.txt` changed; compared with `b` of `p`",
            ),
            ("`mail@a=b", "`mail"),
        ] {
            assert_eq!(without_points(text), common);
        }
    }
}
