//! `mdlm schema`: the JSON Schema of manifests.

use std::path::PathBuf;

use crate::cli::render::terminal::Terminal;
use crate::error::{Context, Error, Result};
use crate::manifest::schema::{REGENERATE, SCHEMA_PATH, schema_text};

/// What `mdlm schema --help` says first.
pub const LONG_ABOUT: &str = "\
    Print the JSON Schema of manifests, with which editors complete and check them.\n\n\
    Name it in a manifest: \"$schema\": \"../schemas/pipeline.schema.json\".";

/// Arguments of `mdlm schema`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fail when a copy is stale instead of printing
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = SCHEMA_PATH)]
    pub check: Option<PathBuf>,
}

/// Prints the schema to standard output, or compares a copy with it.
///
/// # Errors
/// The copy is stale or cannot be read; standard output cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let Some(path) = &args.check else {
        terminal.output(&schema_text())?;
        return Ok(0);
    };
    let name = path.display();
    let regenerate = REGENERATE.replace(SCHEMA_PATH, &name.to_string());
    let copy = std::fs::read_to_string(path)
        .context(|| format!("read `{name}`"))
        .map_err(|error| error.hint(format!("write it: {regenerate}")))?;
    // A checkout may have other line ends.
    if copy.replace("\r\n", "\n") != schema_text() {
        return Err(Error::input(format!(
            "`{name}` is stale: it differs from the schema of this mdlm"
        ))
        .hint(format!("rewrite it: {regenerate}")));
    }
    terminal.say(&format!("{name} is up to date"));
    Ok(0)
}
