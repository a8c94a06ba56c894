//! `mdlm plan`: what a run would do, and why.

use serde::Serialize;

use crate::cli::args::execution::ExecutionArgs;
use crate::cli::args::piped;
use crate::cli::args::project::ProjectArgs;
use crate::cli::render::style;
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::joined;
use mdlm::error::Result;
use mdlm::event::Cancel;
use mdlm::numbers::bytes;
use mdlm::plan::resume::Resumption;
use mdlm::plan::{Decision, Needed, Plan, Reason, reason};
use mdlm::plural;
use mdlm::remote::Remote;
use mdlm::store::{Digest, Key, Store};

/// Exit code of `--exit-code` when a run would have something to do.
const WORK_TO_DO: u8 = 10;

/// What `mdlm plan --help` says first.
pub const LONG_ABOUT: &str = "\
    Show what `mdlm run` would do, and why, without doing it.\n\n\
    The same planner serves both commands, so that a dry run never differs from a run. It reads the \
    files that the manifest names, to see whether they changed, and the store; it writes nothing and does not use the \
    network: what a run would download is listed.\n\n\
    A plan cannot know whether the consumers of a stage that runs have to run, too: if the stage's output is the same as \
    before, their results are served from the store.";

/// Arguments of `mdlm plan`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0; with --exit-code 0 when everything is cached and 10 when there is\n\
                  work to do; 2 when the manifest is invalid or a file is missing."
)]
pub struct Args {
    /// The manifest and its store.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// What would run, and where.
    #[command(flatten)]
    pub execution: ExecutionArgs,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
    /// Exit with 10 when there is work to do
    #[arg(long)]
    pub exit_code: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct PlanReport<'a> {
    pipeline: &'a str,
    store: String,
    stages: Vec<StageReport<'a>>,
}

#[derive(Serialize)]
struct StageReport<'a> {
    name: &'a str,
    kind: &'static str,
    /// `cached`, `away` (known, not here, not needed), `fetch` or `run`.
    decision: &'static str,
    reasons: Vec<ReasonReport<'a>>,
    /// What the artifact that serves it lacks of what is asked for.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    lacks: &'a [String],
    /// The step of the checkpoint from which a training will resume.
    #[serde(skip_serializing_if = "Option::is_none")]
    resumes_from: Option<u64>,
    /// The files from elsewhere that a run would download.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    downloads: &'a [String],
    /// Absent while an input is not known.
    key: Option<Digest>,
    artifact: Option<&'a Digest>,
    /// The key's parts, with names for a person.
    parts: Option<Key>,
}

#[derive(Serialize)]
struct ReasonReport<'a> {
    text: String,
    #[serde(flatten)]
    reason: &'a Reason,
}

/// Prints the plan.
///
/// # Errors
/// A file that the manifest names is missing, or the store cannot be read.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let project = match args.project.open(terminal) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    let remote = args.execution.remote.open()?;
    let mut selection = args.execution.selection();
    selection.piped = piped::take(
        &project,
        &selection,
        piped::Use::Hash,
        &Cancel::default(),
        terminal,
    )?;
    let sources = project.sources(remote.as_ref());
    let plan = args
        .execution
        .compute
        .pool()?
        .install(|| project.plan_with(&selection, &sources))?;
    for note in plan.notes() {
        terminal.say(note);
    }
    for trouble in remote.iter().flat_map(Remote::troubles) {
        terminal.warn(&trouble);
    }
    let work = plan.stages.iter().filter(|stage| stage.has_work()).count();
    let mut resumption = Resumption::default();
    let outlook: Vec<Outlook> = (0..plan.stages.len())
        .map(|index| Outlook {
            step: resumption.step(&plan, index, &sources),
            downloads: plan.downloads(index, &project.store),
        })
        .collect();
    if args.json {
        terminal.output_json(&report(&plan, &outlook, &project.store))?;
    } else {
        terminal.output(&text(&plan, work, &outlook, terminal))?;
    }
    Ok(if args.exit_code && work > 0 { WORK_TO_DO } else { 0 })
}

/// What a run of a stage would begin with.
struct Outlook {
    /// The step from which a training resumes.
    step: Option<u64>,
    /// The files that have to be downloaded.
    downloads: Option<Needed>,
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

fn text(plan: &Plan, work: usize, outlook: &[Outlook], terminal: &Terminal) -> String {
    let rows: Vec<_> = plan
        .stages
        .iter()
        .zip(outlook)
        .map(|(stage, outlook)| {
            let what = match &stage.decision {
                Decision::Cached(record) => match stage.lacking() {
                    None => format!("cached {}", record.artifact.short()),
                    Some(lacking) => format!("cached {}: {lacking}", record.artifact.short()),
                },
                Decision::Away(record) => {
                    format!(
                        "done ({}); its files are neither in the store nor needed",
                        record.artifact.short()
                    )
                }
                Decision::Fetch(record) => {
                    format!("will be fetched from the remote: {}", record.artifact.short())
                }
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
                    format!("will run{from}: {why}{downloads}")
                }
            };
            vec![stage.name.clone(), stage.kind().name().to_owned(), what]
        })
        .collect();
    let total = plan.stages.len();
    let stages = plural::of(total, "stage");
    let fetched = plan
        .stages
        .iter()
        .filter(|stage| matches!(stage.decision, Decision::Fetch(_)))
        .count();
    let work = match (work - fetched, fetched) {
        (0, 0) => "all cached".to_owned(),
        (run, 0) => format!("{run} to run"),
        (0, fetch) => format!("{fetch} to fetch"),
        (run, fetch) => format!("{run} to run, {fetch} to fetch"),
    };
    let heading = format!("{}: {total} {stages}, {work}", plan.pipeline);
    let table = terminal.table(&rows, |row, column| match (column, &plan.stages[row].decision) {
        (0, _) => style::STRONG,
        (1, _) | (2, Decision::Cached(_) | Decision::Away(_)) => style::FAINT,
        _ => style::ACCENT,
    });
    format!("{heading}\n\n{table}")
}

fn report<'a>(plan: &'a Plan, outlook: &'a [Outlook], store: &Store) -> PlanReport<'a> {
    let stages = plan
        .stages
        .iter()
        .zip(outlook)
        .map(|(stage, outlook)| {
            let (decision, reasons, key, artifact) = match &stage.decision {
                Decision::Cached(record) => ("cached", &[][..], Some(&record.key), Some(&record.artifact)),
                Decision::Away(record) => ("away", &[][..], Some(&record.key), Some(&record.artifact)),
                Decision::Fetch(record) => ("fetch", &[][..], Some(&record.key), Some(&record.artifact)),
                Decision::Run { key, reasons } => ("run", reasons.as_slice(), key.as_deref(), None),
            };
            StageReport {
                name: &stage.name,
                kind: stage.kind().name(),
                decision,
                reasons: reasons
                    .iter()
                    .map(|reason| ReasonReport {
                        text: reason.to_string(),
                        reason,
                    })
                    .collect(),
                lacks: &stage.lacks,
                resumes_from: outlook.step,
                downloads: outlook.downloads.as_ref().map_or(&[], |needed| &needed.urls),
                key: key.map(Key::digest),
                artifact,
                parts: key.map(reason::named),
            }
        })
        .collect();
    PlanReport {
        pipeline: &plan.pipeline,
        store: store.root().display().to_string(),
        stages,
    }
}
