//! `mdlm path`: the folder of a stage's artifact.

use crate::cli::args::project::ProjectArgs;
use crate::cli::args::stage::find;
use crate::cli::render::terminal::Terminal;
use mdlm::error::Result;

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
