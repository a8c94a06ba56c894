//! `mdlm path`: the folder of a stage's artifact.

use super::plan::joined;
use super::project::ProjectArgs;
use super::{Terminal, project::Project};
use crate::error::{Error, Result};
use crate::plan::{Decision, PlannedStage, Reason, Selection};
use crate::plural::counted;
use crate::store::Record;

/// What `mdlm path --help` says first.
pub const LONG_ABOUT: &str = "\
    Print the folder of a stage's artifact, for the present manifest.\n\n\
    Fails if the stage has not run with its present settings and inputs. The files in the folder are \
    read-only.";

/// Arguments of `mdlm path`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: less \"$(mdlm path pipelines/quickstart.json samples)/samples.txt\"")]
pub struct Args {
    /// The manifest and its store.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// The stage
    #[arg(value_name = "STAGE")]
    pub stage: String,
}

/// Prints the folder.
///
/// # Errors
/// The stage has not run with its present settings and inputs.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let project = match args.project.open(terminal) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    let record = find(&project, &args.stage)?;
    let path = project.store.artifact_path(&record.artifact);
    let path = std::path::absolute(&path).unwrap_or(path);
    terminal.output(&format!("{}\n", path.display()))?;
    Ok(0)
}

/// Instances of a sweep that are listed at most.
const LISTED: usize = 20;

/// Checks that a name is not that of a swept stage, which has results of many instances and none of its own.
///
/// # Errors
/// The stage is swept; the hint has the names of its instances.
pub(super) fn one(project: &Project, stage: &str) -> Result<()> {
    if let Some(instances) = project.loaded.sweeps.instances(stage) {
        let names: Vec<_> = instances
            .iter()
            .take(LISTED)
            .map(|instance| format!("`{}`", instance.name))
            .collect();
        let more = match instances.len().saturating_sub(LISTED) {
            0 => String::new(),
            more => format!(" and {more} more, which `mdlm compare` lists"),
        };
        let message = format!("it is swept and has {}", counted(instances.len(), "instance"));
        return Err(Error::input(message).hint(format!("name one of {}{more}", names.join(", "))));
    }
    Ok(())
}

/// Whether a stage runs because an attempt with the same key did not end: "has not run" would be wrong.
pub(super) fn is_unfinished(reasons: &[Reason]) -> bool {
    reasons
        .iter()
        .any(|reason| matches!(reason, Reason::Unfinished { .. }))
}

/// That a stage has no result, and why, to go after its name: "has not run with the present manifest: forced".
pub(super) fn not_done(reasons: &[Reason]) -> String {
    let done = if is_unfinished(reasons) { "finished" } else { "run" };
    let why = match reasons {
        // The reason says no more than the sentence before it.
        [
            Reason::NeverRan
            | Reason::Unfinished {
                step: None,
                process: None,
            },
        ] => String::new(),
        reasons => format!(": {}", joined(reasons)),
    };
    format!("has not {done} with the present manifest{why}")
}

/// The record of a stage that has run for the present manifest.
pub(super) fn find(project: &Project, stage: &str) -> Result<Record> {
    find_lacking(project, stage).map(|(record, _)| record)
}

/// The same, with what its artifact lacks of what is asked for.
pub(super) fn find_lacking(project: &Project, stage: &str) -> Result<(Record, Option<String>)> {
    one(project, stage)?;
    let selection = Selection {
        targets: vec![stage.to_owned()],
        ..Selection::default()
    };
    let mut plan = project.plan(&selection)?;
    // The plan is for this stage, which stands last: after all that it needs.
    let planned = plan.stages.pop();
    let lacking = planned.as_ref().and_then(PlannedStage::lacking);
    // What globs leave out is counted while planning, as a run does.
    let figures = planned.as_ref().and_then(|planned| match &planned.decision {
        Decision::Cached(record) => Some(planned.figures(record)),
        _ => None,
    });
    match planned.map(|stage| stage.decision) {
        Some(Decision::Cached(mut record)) => {
            record.figures = figures.unwrap_or_default().into_iter().collect();
            Ok((*record, lacking))
        }
        Some(Decision::Away(record) | Decision::Fetch(record)) => {
            let message = format!(
                "its files are not in the store: artifact {}",
                record.artifact.short()
            );
            Err(Error::input(message).hint(format!(
                "`{}` fetches or makes them",
                project.run_command(Some(stage))
            )))
        }
        Some(Decision::Run { reasons, .. }) => Err(Error::input(format!("it {}", not_done(&reasons)))
            .hint(format!("`{}`", project.run_command(Some(stage))))),
        None => Err(Error::internal("plan a stage: the plan is empty")),
    }
}
