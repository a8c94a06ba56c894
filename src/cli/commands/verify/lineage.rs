//! `mdlm verify --chain`: the history of a result, link by link.

use serde::Serialize;

use super::{Args, only_manifest, watched};
use crate::cli::args::project::ProjectArgs;
use crate::cli::args::stage::one;
use crate::cli::render::style;
use crate::cli::render::table::paragraph;
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::{joined, not_done};
use mdlm::error::{Error, Kind, Result};
use mdlm::numbers::{bytes, count};
use mdlm::plan::{Decision, Selection};
use mdlm::plural;
use mdlm::store::Record;
use mdlm::store::lineage::{Link, SourceState};
use mdlm::store::verify::Pace;

/// What `--json` prints.
#[derive(Serialize)]
struct LineageReport<'a> {
    pipeline: &'a str,
    stage: &'a str,
    /// Whether it is the result of the manifest as it is now; else why it has yet to run.
    present: bool,
    why: Option<&'a str>,
    /// Whether every record and artifact holds.
    holds: bool,
    /// Whether the files outside the store are those that were read, as far as they can be.
    sources_hold: bool,
    links: &'a [Link],
}

pub(super) fn run(
    args: &Args,
    stage: &str,
    pool: &rayon::ThreadPool,
    pace: &Pace,
    terminal: &Terminal,
) -> Result<u8> {
    let project = ProjectArgs {
        manifest: only_manifest(args)?,
        set: vec![],
        store: args.store.store.clone(),
    };
    let project = match project.open(terminal) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    one(&project, stage)?;
    let pipeline = &project.loaded.manifest.name;
    let selection = Selection {
        targets: vec![stage.to_owned()],
        ..Selection::default()
    };
    let last = || project.store.latest(pipeline, stage);
    let (record, why): (Record, Option<String>) = match project.plan(&selection) {
        Ok(mut plan) => match plan.stages.pop().map(|stage| stage.decision) {
            Some(Decision::Cached(record) | Decision::Away(record) | Decision::Fetch(record)) => {
                (*record, None)
            }
            Some(Decision::Run { reasons, .. }) => {
                let record = last().ok_or_else(|| {
                    Error::input(format!("stage `{stage}` {}", not_done(&reasons)))
                        .hint(format!("`{}`", project.run_command(Some(stage))))
                })?;
                (record, Some(joined(&reasons)))
            }
            None => return Err(Error::internal("plan a stage: the plan is empty")),
        },
        // A file that it read may be gone, which the lineage reports.
        Err(error) => match last() {
            Some(record) => (record, Some(error.to_string())),
            None => return Err(error),
        },
    };
    let base = project.loaded.base();
    let work = || pool.install(|| project.store.lineage(&record, base, pace));
    let links = watched(terminal, "verify", pace, 0, work)?;
    let holds = links.iter().all(|link| link.faults.is_empty());
    let sources_hold = links
        .iter()
        .flat_map(|link| &link.sources)
        .all(|source| matches!(source.state, SourceState::Same | SourceState::Recorded));
    if args.json {
        terminal.output_json(&LineageReport {
            pipeline,
            stage,
            present: why.is_none(),
            why: why.as_deref(),
            holds,
            sources_hold,
            links: &links,
        })?;
    } else {
        if let Some(why) = &why {
            let text =
                format!("with the present manifest `{stage}` has to run ({why}); this is its last result");
            terminal.say(&paragraph(&text));
        }
        terminal.output(&text(&links, terminal))?;
        let result = match (holds, sources_hold) {
            (true, true) => "the chain holds",
            (true, false) => "the chain holds; files outside the store have changed",
            (false, _) => "the chain is broken",
        };
        let number = links.len();
        let things = plural::of(number, "link");
        terminal.say(&format!(
            "{} {things}, {}: {result}",
            count(number as u64),
            bytes(pace.read())
        ));
    }
    Ok(match (holds, sources_hold) {
        (true, true) => 0,
        (true, false) => Kind::Input.exit_code(),
        (false, _) => Kind::Environment.exit_code(),
    })
}

fn text(links: &[Link], terminal: &Terminal) -> String {
    let mut rows = Vec::new();
    let mut styles = Vec::new();
    for link in links {
        let word = if link.faults.is_empty() { "holds" } else { "broken" };
        let inputs: Vec<_> = link
            .inputs
            .iter()
            .map(|(_, stage, artifact)| format!("{stage} {}", artifact.short()))
            .collect();
        let mut what = format!("{} ({})", link.stage, link.kind);
        if !inputs.is_empty() {
            what = format!("{what} from {}", inputs.join(", "));
        }
        rows.push(vec![word.to_owned(), link.artifact.short(), what]);
        styles.push(if link.faults.is_empty() {
            style::GOOD
        } else {
            style::ERROR
        });
        for fault in &link.faults {
            rows.push(vec![String::new(), String::new(), fault.clone()]);
            styles.push(style::ERROR);
        }
        for source in &link.sources {
            let (word, style, what) = match &source.state {
                SourceState::Same => ("same", style::GOOD, String::new()),
                SourceState::Changed => ("changed", style::WARNING, " has changed".to_owned()),
                SourceState::Absent => ("absent", style::WARNING, " is gone".to_owned()),
                SourceState::Unreadable(why) => ("unknown", style::WARNING, format!(": {why}")),
                SourceState::Recorded => ("recorded", style::FAINT, String::new()),
            };
            let digest = source.digest.chars().take(8).collect();
            rows.push(vec![word.to_owned(), digest, format!("{}{what}", source.place)]);
            styles.push(style);
        }
    }
    terminal.table(&rows, |row, column| match column {
        0 => styles[row],
        _ => style::PLAIN,
    })
}
