//! What `mdlm push` and `mdlm pull` have in common.

use std::sync::Arc;

use serde::Serialize;

use super::compute::ComputeArgs;
use super::execution::RemoteArgs;
use super::project::{Project, ProjectArgs};
use crate::cli::render::progress::Display;
use crate::cli::render::style;
use crate::cli::render::terminal::Terminal;
use crate::cli::signals::listen;
use mdlm::error::{Error, Result};
use mdlm::event::{Cancel, Event, Progress, Sink as _};
use mdlm::plan::Selection;
use mdlm::remote::Remote;

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
pub struct StageTransfer {
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
pub struct Work {
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
    #[must_use]
    pub fn selection(&self) -> Selection {
        Selection {
            targets: self.stages.clone(),
            ..Selection::default()
        }
    }

    /// Opens the project and the remote; `only_reads` creates no folder in the remote.
    ///
    /// # Errors
    /// No remote is named, or it cannot be used; the exit code where the manifest's faults were printed.
    pub fn prepare(&self, only_reads: bool, terminal: &Terminal) -> Result<Result<Work, u8>> {
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
        listen(&cancel, display.printer())?;
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
    pub fn report(&self, lines: &[StageTransfer], json: bool, terminal: &Terminal) -> Result<()> {
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
        terminal.output(
            &terminal.table(&rows, |row, column| match (column, lines[row].status) {
                (0, _) => style::STRONG,
                (_, "moved") => style::GOOD,
                (_, "refused") => style::ERROR,
                _ => style::FAINT,
            }),
        )
    }
}
