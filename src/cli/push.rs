//! `mdlm push`: a pipeline's results, into the cache that machines share.

use std::sync::Arc;

use serde::Serialize;

use super::Terminal;
use super::progress::Display;
use super::project::{ComputeArgs, Project, ProjectArgs, RemoteArgs};
use super::signals::listen;
use super::table::{bytes, columns};
use super::terminal::Style;
use crate::error::{Context as _, Error, Result};
use crate::event::{Cancel, Event, Progress, Sink};
use crate::plan::{Decision, Selection};
use crate::remote::Remote;

/// What `mdlm push --help` says first.
pub const LONG_ABOUT: &str = "\
    Upload results and their records to the shared cache, from which runs of the same stages with `--remote` \
    fetch them.\n\n\
    Files that the cache has are not sent again; an interrupted push resumes with the file that was cut off. \
    `mdlm run --remote` pushes by itself.";

/// Arguments of `mdlm push` and `mdlm pull`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mdlm push pipelines/lm1b.json --remote s3://team/mdlm")]
pub struct Args {
    /// The manifest and its store.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// These stages and what they need; default: all
    #[arg(value_name = "STAGE")]
    pub stages: Vec<String>,
    /// The cache.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// Where and how to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
    /// Print what was moved as JSON
    #[arg(long)]
    pub json: bool,
}

/// What was done for a stage.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    /// The stage.
    pub stage: String,
    /// `moved`, `there`, `none` or `refused`.
    pub status: &'static str,
    /// The same in words.
    pub text: String,
    /// Bytes that were moved.
    pub bytes: u64,
}

/// What both commands work with.
pub(super) struct Work {
    /// The manifest and its store.
    pub project: Project,
    /// The cache.
    pub remote: Remote,
    /// Shows how far they are.
    pub display: Arc<Display>,
    /// Ctrl-C.
    pub cancel: Cancel,
}

impl Args {
    /// What is asked for.
    pub(super) fn selection(&self) -> Selection {
        Selection {
            targets: self.stages.clone(),
            ..Selection::default()
        }
    }

    /// Opens the project and the remote; `only_reads` creates no folder in the remote.
    ///
    /// # Errors
    /// No remote is named, or it cannot be used; the exit code where the manifest's faults were printed.
    pub(super) fn prepare(&self, only_reads: bool, terminal: &Terminal) -> Result<Result<Work, u8>> {
        let project = match self.project.open(terminal) {
            Ok(project) => project,
            Err(code) => return Ok(Err(code)),
        };
        let mut remote = self.remote.clone();
        remote.remote_read_only |= only_reads;
        let remote = remote.open()?.ok_or_else(|| {
            Error::input("no remote is named").hint(
                "name one with `--remote s3://BUCKET/folder`, or with the environment variable MDLM_REMOTE",
            )
        })?;
        let cancel = Cancel::default();
        let display = Arc::new(Display::new(terminal));
        listen(&cancel, &display)?;
        Ok(Ok(Work {
            project,
            remote,
            display,
            cancel,
        }))
    }
}

impl Work {
    /// Shows how far a stage's transfer is.
    pub fn progress(&self, stage: &str) -> impl Fn(u64, u64) + Sync {
        move |done, total| {
            let progress = Progress {
                done,
                total: Some(total),
                unit: "bytes",
                figures: vec![],
            };
            self.display.emit(stage, Event::Progress(progress));
        }
    }

    /// Prints what was done for every stage.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn report(&self, lines: &[Line], json: bool, terminal: &Terminal) -> Result<()> {
        self.display.clear();
        for trouble in self.remote.troubles() {
            terminal.warn(&trouble);
        }
        if json {
            return terminal.output_json(&lines);
        }
        let rows: Vec<_> = lines
            .iter()
            .map(|line| vec![line.stage.clone(), line.text.clone()])
            .collect();
        terminal.output(&columns(&rows, |row, column, cell| {
            match (column, lines[row].status) {
                (0, _) => terminal.paint_output(Style::Strong, cell),
                (_, "moved") => terminal.paint_output(Style::Good, cell),
                (_, "refused") => terminal.paint_output(Style::Error, cell),
                _ => terminal.paint_output(Style::Faint, cell),
            }
        }))
    }
}

/// Pushes.
///
/// # Errors
/// No remote is named, it does not answer or may not be written; what is here is corrupt.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let work = match args.prepare(false, terminal)? {
        Ok(work) => work,
        Err(code) => return Ok(code),
    };
    let lines = args.compute.pool()?.install(|| {
        let plan = work.project.plan(&args.selection())?;
        let mut lines = Vec::new();
        for stage in &plan.stages {
            let Decision::Cached(record) = &stage.decision else {
                lines.push(Line {
                    stage: stage.name.clone(),
                    status: "none",
                    text: "not in the store".to_owned(),
                    bytes: 0,
                });
                continue;
            };
            let store = &work.project.store;
            let _pin = store.pin_if_writable(&record.artifact)?;
            let pushed = work
                .remote
                .push(store, record, &work.cancel, &work.progress(&stage.name));
            let moved = pushed.context(|| format!("stage `{}`", stage.name))?;
            let (status, text) = match moved.files {
                0 => ("there", "there already".to_owned()),
                _ => ("moved", format!("pushed {}", bytes(moved.bytes))),
            };
            lines.push(Line {
                stage: stage.name.clone(),
                status,
                text,
                bytes: moved.bytes,
            });
        }
        Ok::<_, Error>(lines)
    });
    let lines = lines.inspect_err(|_| work.display.clear())?;
    work.report(&lines, args.json, terminal)?;
    Ok(0)
}
