//! `mdlm run`: makes a pipeline's results, rerunning only what changed.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::cli::args::execution::ExecutionArgs;
use crate::cli::args::project::{Project, ProjectArgs};
use crate::cli::args::{environment, piped, units};
use crate::cli::render::error::ErrorReport;
use crate::cli::render::progress::Display;
use crate::cli::render::report;
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::shown;
use crate::cli::signals::{exit_code, listen};
use mdlm::error::{Context as _, Error, Kind, Result};
use mdlm::event::{Cancel, Sink};
use mdlm::executor::isolate::{Isolation, Neighbours};
use mdlm::executor::{self, Options, StageSummary, Summary};
use mdlm::manifest::Stage;
use mdlm::manifest::reading::is_open_file;
use mdlm::model::Device;
use mdlm::plan::{Decision, Plan, PlannedStage};
use mdlm::stages;
use mdlm::store::{RunNote, RunStage, Store, time};
use mdlm::system::DeviceRequest;

mod events;
pub mod ranks;
mod summary;

use events::{EventLines, follow_orders};
use ranks::Ranks;

/// What `mdlm run --help` says first.
pub const LONG_ABOUT: &str = "\
    Run a pipeline: the stages whose settings, inputs or code changed; the others are served from the \
    store.\n\n\
    Every stage that runs says why. The cache key of a stage holds all that decides its output: its settings \
    with all defaults, its seed, the contents of its inputs, the version of its code. Names, order of fields, \
    folders, device and number of threads are not part of it; `mdlm plan` shows beforehand what would run. A \
    stage whose output is the same as before does not rerun its consumers.\n\n\
    Ctrl-C ends the run at the next safe place; finished stages and a checkpoint are kept, and the same \
    command resumes with the same result. A second Ctrl-C ends it at once and loses at most the work since \
    the last checkpoint. SIGTERM, SIGHUP (a closed terminal; ignored under `nohup`), SIGUSR1, SIGUSR2 and \
    SIGXCPU act like Ctrl-C. Of two runs of the same stage at once, one waits for the other and takes its \
    result.";

/// Arguments of `mdlm run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        mdlm run pipelines/quickstart.json\n  \
        mdlm run pipelines/quickstart.json --set stages.model.steps=200 --target model\n  \
        mdlm run pipelines/quickstart.json --only tokens\n  \
        mpirun -n 2 mdlm run pipelines/lm1b.json --ranks 2\n  \
        nohup mdlm run pipelines/lm1b.json > lm1b.log 2>&1 &\n\n\
        Exit codes: 0 done, 2 the input is at fault, 3 the environment is, 1 a bug in\n\
        mdlm; ended by a signal 128 and its number: 130 SIGINT (Ctrl-C), 143 SIGTERM,\n\
        129 SIGHUP, 138 SIGUSR1, 140 SIGUSR2, 152 SIGXCPU.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    /// The manifest and its store.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// What to run, and where.
    #[command(flatten)]
    pub execution: ExecutionArgs,
    /// Hash every artifact in full before it is used
    ///
    /// Without it, inputs of a stage are hashed by a sample, and results without a consumer are not hashed. A corrupt artifact is moved
    /// to `.mdlm/quarantine` and made again.
    #[arg(long)]
    pub paranoid: bool,
    /// Largest number of stages to run side by side; default: 1
    ///
    /// They share the threads. More than one is faster for many small stages (a sweep, many evaluations); otherwise one
    /// stage at a time with all threads is faster. Environment variable: MDLM_JOBS.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: Option<u16>,
    /// Memory for stages side by side: 8GB
    ///
    /// A stage waits until its estimated memory is free, or until it is alone. Default: nine tenths of the memory that
    /// is available at the start.
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    pub memory: Option<u64>,
    /// Start no other stage after one has failed
    ///
    /// Without it, stages that do not need the failed one still run.
    #[arg(long, alias = "no-keep-going", conflicts_with = "keep_going")]
    pub fail_fast: bool,
    /// Run stages that do not need a failed one (the default)
    #[arg(short, long)]
    pub keep_going: bool,
    /// Time between lines of progress in a log: 30s, 10m
    ///
    /// Default: if standard error is not a terminal, a running stage writes a line every 5 seconds in its first minute,
    /// every minute in its first hour, and then every ten minutes.
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub log_every: Option<Duration>,
    /// Run this stage alone; fail if an input is missing
    ///
    /// Its inputs must be in the store or in the remote cache; otherwise the command exits with 2 and names the stages
    /// that must run first. One instance of
    /// a swept stage has a name like `model@seed=1`.
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["target", "jobs"])]
    pub only: Option<String>,
    /// Share trainings among this many processes: a power of two
    ///
    /// Started by `mpirun` or `srun`, which must start as many, the ranks talk over MPI, whose library is loaded then. Started
    /// alone, they are threads of this process. The number divides `grains` of each train stage that runs, and the result is the
    /// same for any number. All ranks read the store under the same path. The first failure ends the run.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096), conflicts_with_all = ["isolate", "jobs", "events"])]
    pub ranks: Option<u16>,
    /// Run each stage in a separate process
    ///
    /// A crash in a GPU driver then fails one stage and not the run, and memory returns to the system after each stage.
    /// Results are the same. A stage that reads a pipe runs in this process.
    #[arg(long, conflicts_with = "only")]
    pub isolate: bool,
    /// Report events as JSON lines on standard output, and follow orders on standard input
    #[arg(long, hide = true, requires = "only", conflicts_with = "json")]
    pub events: bool,
    /// Print a summary as JSON to standard output at the end
    #[arg(long)]
    pub json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct RunReport<'a> {
    pipeline: &'a str,
    store: String,
    overrides: &'a [String],
    ok: bool,
    error: Option<ErrorReport>,
    stages: Vec<StageReport<'a>>,
}

#[derive(Serialize)]
struct StageReport<'a> {
    #[serde(flatten)]
    stage: &'a StageSummary,
    /// Of a stage that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorReport>,
    /// By name, in order.
    figures: Map<String, Value>,
}

/// Runs the pipeline.
///
/// # Errors
/// The first failure of a stage, or the interruption. Independent stages have run.
#[expect(clippy::too_many_lines, reason = "one step of a run after the other")]
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let mut ranks = Ranks::open(args.ranks, terminal)?;
    let threads = ranks.threads(args.execution.compute.threads)?;
    let device = args.execution.compute.device()?;
    if ranks.is_follower() {
        let cancel = Cancel::default();
        listen(&cancel, Arc::new(Display::new(terminal)).printer())?;
        return ranks.follow(threads, device.resolve()?.0, &cancel, terminal);
    }
    let project = match args.project.open(terminal) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    let only = args.only.as_deref().map(|name| only_stage(&project, name));
    let options = Options {
        manifest: args.project.manifest.display().to_string(),
        overrides: args.project.set.clone(),
        threads,
        device,
        paranoid: args.paranoid,
        jobs: environment::jobs(args.jobs)?,
        memory: args
            .memory
            .or_else(|| stages::memory::available().map(|bytes| bytes / 10 * 9))
            .unwrap_or(u64::MAX),
        // The ranks of a failed training are gone.
        keep_going: !args.fail_fast && !ranks.are_several(),
        only: only.transpose()?,
        isolation: args.isolate.then(|| isolation(args, &project)).transpose()?,
        neighbours: Neighbours::default(),
        ranks: ranks.own.clone(),
    };
    let remote = args.execution.remote.open()?;
    let started = SystemTime::now();
    let cancel = Cancel::default();
    let display = Arc::new(Display::new(terminal).with_pace(args.log_every));
    listen(&cancel, display.printer())?;
    let mut selection = args.execution.selection();
    if let Some(only) = &options.only {
        let instances = |name: &String| project.loaded.sweeps.spelt_out(std::slice::from_ref(name));
        if let Some(other) = (selection.force.iter()).find(|name| !instances(name).contains(only)) {
            return Err(Error::input(format!(
                "`--only {only}` runs no other stage, but `--force {other}` is given"
            ))
            .hint(format!(
                "force `{other}` first, `--only {other} --force {other}`, or leave `--force {other}` out"
            )));
        }
        selection.targets.push(only.clone());
    }
    if args.events {
        // Standard input has orders; what came through pipes is in the store.
        follow_orders(&cancel, &options.neighbours)?;
    } else {
        selection.piped = piped::take(&project, &selection, piped::Use::Copy, &cancel, terminal)?;
    }
    let sources = project.sources(remote.as_ref());
    let execute = |sink: &dyn Sink| {
        executor::pool(threads)?.install(|| {
            let mut plan = project.plan_with(&selection, &sources)?;
            check_trainings(&plan, &options)?;
            for note in plan.notes().iter().filter(|_| !args.events) {
                display.line(note);
            }
            let summary = executor::execute(&mut plan, &sources, &options, sink, &cancel, &stages::run)?;
            Ok((plan, summary))
        })
    };
    if args.events {
        let ran = execute(&EventLines).and_then(|(_, summary)| summary.error.map_or(Ok(()), Err));
        // The scheduler prints the error.
        return Ok(ran.map_or_else(
            |error| {
                EventLines::failed(&error);
                exit_code(&error)
            },
            |()| 0,
        ));
    }
    let ran = match ranks.are_several() {
        true => ranks.lead(threads, device.resolve()?.0, &cancel, || execute(&*display)),
        false => execute(&*display),
    };
    display.clear();
    let (plan, summary) = ran?;
    let table = summary::table(&summary, &plan, &project, &options, terminal);
    note(&project.store, &plan, &options, started, &summary, terminal);
    terminal.say(&format!("\n{table}"));
    if summary.error.is_some() {
        terminal.say("");
    } else if selection.targets.is_empty() {
        // The results exist; a missing report is not a failure.
        match report::after_run(&project.loaded, &project.store, &plan, terminal) {
            Ok(path) => terminal.say(&format!("\nreport: {}", shown(&path))),
            // A read-only store served all results.
            Err(error) if error.is_denied() => terminal.say(
                "\nno report is written into a store that can only be read: \
                 `mdlm report MANIFEST --output FILE` writes one elsewhere",
            ),
            Err(error) => terminal.warn(&format!("failed to write the report: {error}")),
        }
    }
    let printed = if args.json {
        terminal.output_json(&RunReport {
            pipeline: &project.loaded.manifest.name,
            store: project.store.root().display().to_string(),
            overrides: &options.overrides,
            ok: summary.error.is_none(),
            error: summary.error.as_ref().map(ErrorReport::of),
            stages: summary.stages.iter().map(stage_report).collect(),
        })
    } else {
        Ok(())
    };
    match summary.into_error() {
        None => printed.map(|()| 0),
        Some(error) if error.kind() == Kind::Interrupted => {
            Err(error.hint("finished stages and checkpoints are kept: the same command resumes from there"))
        }
        Some(error) => Err(error),
    }
}

/// Refuses ranks where there is no training that they could share.
///
/// # Errors
/// The plan has no train stage.
fn check_trainings(plan: &Plan, options: &Options) -> Result<()> {
    let world = options.ranks.rank().world;
    let is_training = |stage: &PlannedStage| matches!(stage.stage, Stage::Train(_));
    if world == 1 || plan.stages.iter().any(is_training) {
        return Ok(());
    }
    Err(Error::input(format!(
        "run with {world} ranks: they share trainings, and what is to run has no train stage"
    ))
    .hint("leave `--ranks` out, and start one process"))
}

/// The stage that `--only` names: one stage, or one instance of a swept one.
///
/// # Errors
/// The name is of a swept stage, which has several instances.
fn only_stage(project: &Project, name: &str) -> Result<String> {
    match project.loaded.sweeps.spelt_out(&[name.to_owned()]).as_slice() {
        [] => Ok(name.to_owned()),
        [one] => Ok(one.clone()),
        [first, others @ ..] => {
            let message = format!(
                "run `{name}` alone: it is swept and has {} instances",
                others.len() + 1
            );
            Err(Error::input(message).hint(format!(
                "name one of them, for instance `--only {first}`; `--target {name}` runs all"
            )))
        }
    }
}

/// How to start a process for each stage: this program, with what this run was asked for.
///
/// # Errors
/// The program's own path is not known.
fn isolation(args: &Args, project: &Project) -> Result<Isolation> {
    if is_open_file(&project.loaded.path.to_string_lossy()) {
        let message = "isolate stages: the process of each stage reads the manifest again, but this manifest came through a pipe";
        return Err(Error::input(message).hint("save the manifest to a file, or leave `--isolate` out"));
    }
    let mut arguments: Vec<OsString> = vec!["run".into(), project.loaded.path.clone().into()];
    for set in &args.project.set {
        arguments.extend(["--set".into(), set.into()]);
    }
    let mut store = OsString::from("--store=");
    store.push(project.store.root());
    arguments.extend([store, "--events".into()]);
    let device = args
        .execution
        .compute
        .device
        .and_then(|device| device.to_possible_value());
    let device: Option<OsString> = device.map(|value| value.get_name().into());
    arguments.extend(device.iter().flat_map(|name| ["--device".into(), name.clone()]));
    // The processes inherit MDLM_DEVICE; the check needs a device by name.
    let check = match args.execution.compute.device()? {
        DeviceRequest::On(Device::Cuda) => Some(["doctor", "--device", "cuda"].map(OsString::from).to_vec()),
        DeviceRequest::Auto | DeviceRequest::On(_) => None,
    };
    for (asked, flag) in [
        (args.paranoid, "--paranoid"),
        (args.execution.allow_missing, "--allow-missing"),
    ] {
        if asked {
            arguments.push(flag.into());
        }
    }
    let program = std::env::current_exe().context(|| "find this program".to_owned())?;
    Ok(Isolation {
        program,
        arguments,
        check,
    })
}

/// Records the run, for `mdlm gc --last N`. The results are complete without the record.
fn note(
    store: &Store,
    plan: &Plan,
    options: &Options,
    started: SystemTime,
    summary: &Summary,
    terminal: &Terminal,
) {
    let stages = plan.stages.iter().map(|stage| {
        let (key, artifact) = match (stage.record(), &stage.decision) {
            (Some(record), _) => (Some(record.key.digest()), Some(record.artifact)),
            (None, Decision::Run { key, .. }) => (key.as_ref().map(|key| key.digest()), None),
            (None, _) => (None, None),
        };
        RunStage {
            stage: stage.name.clone(),
            kind: stage.kind().name().to_owned(),
            key,
            artifact,
        }
    });
    let run = RunNote {
        pipeline: plan.pipeline.clone(),
        manifest: options.manifest.clone(),
        overrides: options.overrides.clone(),
        started: time::rfc3339(started),
        seconds: started.elapsed().unwrap_or_default().as_secs_f64(),
        ok: summary.error.is_none(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        stages: stages.collect(),
    };
    // In a read-only store the run made nothing.
    if let Err(error) = store.note_run(&run)
        && !error.is_denied()
    {
        terminal.warn(&format!("failed to record the run: {error}"));
    }
}

fn stage_report(stage: &StageSummary) -> StageReport<'_> {
    let figures = stage
        .figures
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect();
    StageReport {
        stage,
        error: stage.error.as_ref().map(ErrorReport::of),
        figures,
    }
}
