//! `mdlm report`: the results of a pipeline as one HTML file.

use std::fs;
use std::path::PathBuf;

use super::Terminal;
use super::project::{Project, ProjectArgs};
use crate::error::{Context, Error, Result};
use crate::plan::{Decision, Plan, Selection};
use crate::report::{self, Stage};

/// What `mdlm report --help` says first.
pub const LONG_ABOUT: &str = "\
    Write the results of a pipeline as one HTML file: its graph, training curves, bounds, samples and where they \
    came from.\n\n\
    The file needs nothing beside it. Stages that have yet to run are shown as such. A run of a whole pipeline \
    writes the report too.";

/// Arguments of `mdlm report`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mdlm report pipelines/quickstart.json --output quickstart.html")]
pub struct Args {
    /// The manifest and its store.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// The file to write, instead of `reports/NAME.html` in the folder of results
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Writes the report and prints its path.
///
/// # Errors
/// No stage has run, an artifact cannot be read, the file cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let project = match args.project.open(terminal) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    let plan = project.plan(&Selection::default())?;
    if plan.stages.iter().all(|stage| stage.artifact().is_none()) {
        let hint = format!("`mdlm run {}` first", project.loaded.path.display());
        return Err(Error::input("no stage has run").hint(hint));
    }
    let path = match &args.output {
        Some(path) => path.clone(),
        None => default_path(&project),
    };
    write(&project, &plan, &path)?;
    terminal.output(&format!("{}\n", path.display()))?;
    Ok(0)
}

/// `reports/NAME.html` in the folder of results.
fn default_path(project: &Project) -> PathBuf {
    let name = format!("{}.html", project.loaded.manifest.name);
    project.store.root().join("reports").join(name)
}

/// Writes the report of a plan as it stands.
fn write(project: &Project, plan: &Plan, path: &PathBuf) -> Result<()> {
    let stages: Vec<Stage<'_>> = plan
        .stages
        .iter()
        .map(|stage| Stage {
            name: &stage.name,
            written: project.loaded.sweeps.written(&stage.name),
            kind: stage.kind(),
            inputs: stage.inputs.iter().map(|input| input.index).collect(),
            done: match &stage.decision {
                Decision::Cached(record) => Some((&**record, project.store.artifact_path(&record.artifact))),
                Decision::Away(_) | Decision::Fetch(_) | Decision::Run { .. } => None,
            },
        })
        .collect();
    let manifest = &project.loaded.manifest;
    let page = report::html(&manifest.name, manifest.description.as_deref(), &stages)?;
    let writing = || format!("write `{}`", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).context(writing)?;
    }
    fs::write(path, page).context(writing)
}

/// Writes the report of a run that is over, where `mdlm report` would.
///
/// # Errors
/// As [`run`].
pub(super) fn after_run(project: &Project, plan: &Plan) -> Result<PathBuf> {
    let path = default_path(project);
    write(project, plan, &path)?;
    Ok(path)
}
