//! `mdlm report`: the results of a pipeline as one HTML file.

use std::path::PathBuf;

use crate::cli::args::project::ProjectArgs;
use crate::cli::render::report::{default_path, write};
use crate::cli::render::terminal::Terminal;
use mdlm::error::{Error, Result};
use mdlm::plan::Selection;

/// What `mdlm report --help` says first.
pub const LONG_ABOUT: &str = "\
    Write the results of a pipeline as one HTML file: its graph, training curves, bounds, samples and where they \
    came from.\n\n\
    The file is self-contained. Stages that have not run are shown as such. A run of a whole pipeline \
    writes the report too.";

/// Arguments of `mdlm report`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mdlm report pipelines/quickstart.json --output quickstart.html")]
pub struct Args {
    /// The manifest and its store.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// The file to write, instead of `reports/NAME.html` in the folder of results
    ///
    /// Of two manifests of one name the second has `reports/NAME-DIGEST.html`, and says so.
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
        let hint = format!("run the pipeline first: `{}`", project.run_command(None));
        return Err(Error::input("no stage has run").hint(hint));
    }
    let path = match &args.output {
        Some(path) => path.clone(),
        None => default_path(&project.loaded, &project.store, terminal),
    };
    write(&project.loaded, &project.store, &plan, &path).map_err(|error| match args.output {
        None if error.is_denied() => error.hint("name a file that can be written with `--output FILE`"),
        _ => error,
    })?;
    terminal.output(&format!("{}\n", path.display()))?;
    Ok(0)
}
