//! `mdlm plan`: what a run would do, and why.

use std::time::Duration;

use serde::Serialize;

use crate::cli::args::execution::ExecutionArgs;
use crate::cli::args::project::ProjectArgs;
use crate::cli::args::{piped, units};
use crate::cli::render::terminal::Terminal;
use mdlm::error::Result;
use mdlm::event::Cancel;
use mdlm::manifest::Sweeps;
use mdlm::plan::resume::Resumption;
use mdlm::plan::{Decision, Needed, Plan, Reason, reason};
use mdlm::plural;
use mdlm::remote::Remote;
use mdlm::store::{Digest, Key, Store};

mod table;
mod takes;

use takes::{BudgetReport, Compute, Takes, TakesReport, TotalReport};

/// Exit code of `--exit-code` when a run would have something to do.
const WORK_TO_DO: u8 = 10;

/// What `mdlm plan --help` says first.
pub const LONG_ABOUT: &str = "\
    Show what `mdlm run` would do, and why, without doing it.\n\n\
    The same planner serves both commands, so that a dry run never differs from a run. It reads the \
    files that the manifest names, to see whether they changed, and the store; it writes nothing and does not use the \
    network: what a run would download is listed.\n\n\
    Of each stage that is to run it estimates what it takes: tokens, floating-point operations, memory, and time by what this \
    machine itself has shown: its newest runs of the same kind with the same shape and objective on as many threads, else \
    runs with another shape by operations a second, else `--measure`; else the time is unknown. It says what each time rests \
    on.\n\n\
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
    /// Show which stages, and which steps of a training, fit in this time: 2h
    ///
    /// Stages run one after the other. Of a training that does not fit whole it shows how many steps do; the same run resumes from
    /// there.
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub budget: Option<Duration>,
    /// Measure for some seconds how fast this machine is where no run has shown it
    ///
    /// Training, evaluation and sampling are measured on random tokens, as by `mdlm bench`. Nothing is kept: once a stage has run,
    /// its own time counts.
    #[arg(long)]
    pub measure: bool,
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
    /// What the stages take together that are to run; absent where none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<TotalReport>,
    /// What fits in the time of `--budget`.
    #[serde(skip_serializing_if = "Option::is_none")]
    budget: Option<BudgetReport<'a>>,
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
    /// What it takes, where it is to run: an estimate.
    #[serde(skip_serializing_if = "Option::is_none")]
    takes: Option<TakesReport>,
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
    let from_step: Vec<_> = outlook.iter().map(|outlook| outlook.step).collect();
    let compute = Compute {
        threads: args.execution.compute.threads()?,
        device: args.execution.compute.device()?,
    };
    let takes = args.execution.compute.pool()?.install(|| {
        let asked = (args.measure, args.budget);
        takes::takes(&plan, &sources, &from_step, &compute, asked, terminal)
    })?;
    if args.json {
        terminal.output_json(&report(&plan, &outlook, &takes, &project.store))?;
    } else {
        let table = text(&plan, work, &outlook, &project.loaded.sweeps, terminal);
        terminal.output(&(table + &takes::text(&plan, &takes, &project, terminal)))?;
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

fn text(plan: &Plan, work: usize, outlook: &[Outlook], sweeps: &Sweeps, terminal: &Terminal) -> String {
    let rows = table::rows(plan, outlook, sweeps);
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
    let cells: Vec<_> = rows.iter().map(|row| row.cells.clone()).collect();
    let table = terminal.table(&cells, |row, column| rows[row].style(column));
    format!("{heading}\n\n{table}")
}

fn report<'a>(plan: &'a Plan, outlook: &'a [Outlook], takes: &Takes, store: &Store) -> PlanReport<'a> {
    let mut estimates = takes.estimates.iter().peekable();
    let stages = plan
        .stages
        .iter()
        .zip(outlook)
        .enumerate()
        .map(|(index, (stage, outlook))| {
            let estimate = estimates.next_if(|estimate| estimate.index == index);
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
                takes: estimate.map(TakesReport::of),
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
        total: (!takes.estimates.is_empty()).then(|| TotalReport::of(&takes.estimates)),
        budget: (takes.budget.as_ref()).map(|(limit, budget)| BudgetReport::of(plan, *limit, budget)),
    }
}
