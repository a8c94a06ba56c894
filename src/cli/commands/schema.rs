//! `mdlm schema`: the JSON Schema of manifests, and their fields as tables.

use std::path::{Path, PathBuf};

use crate::cli::render::terminal::Terminal;
use mdlm::error::{Context, Error, Result};
use mdlm::manifest::field_table::{REGENERATE_TABLE, TABLE_PATH, field_table};
use mdlm::manifest::schema::{REGENERATE, SCHEMA_PATH, schema_text};
use mdlm::shapes::SHAPES;

/// What `mdlm schema --help` says first.
pub const LONG_ABOUT: &str = "\
    Print the JSON Schema of manifests, with which editors complete and check them.\n\n\
    Name it in a manifest: \"$schema\": \"../schemas/pipeline.schema.json\".";

/// Arguments of `mdlm schema`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Fail when a copy is stale instead of printing
    ///
    /// FILE is `schemas/pipeline.schema.json` unless stated, with --markdown `schemas/README.md`.
    #[expect(
        clippy::option_option,
        reason = "clap's type of an option whose value may be left out"
    )]
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    pub check: Option<Option<PathBuf>>,
    /// Print all fields as tables in Markdown instead
    #[arg(long)]
    pub markdown: bool,
}

/// Prints the schema or its tables to standard output, or compares a copy with them.
///
/// # Errors
/// The copy is stale or cannot be read; standard output cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let (text, usual, regenerate) = if args.markdown {
        (field_table(SHAPES), TABLE_PATH, REGENERATE_TABLE)
    } else {
        (schema_text(SHAPES), SCHEMA_PATH, REGENERATE)
    };
    let Some(path) = &args.check else {
        terminal.output(&text)?;
        return Ok(0);
    };
    let path = path.as_deref().unwrap_or(Path::new(usual));
    let name = path.display();
    let regenerate = regenerate.replace(usual, &name.to_string());
    let copy = std::fs::read_to_string(path)
        .context(|| format!("read `{name}`"))
        .map_err(|error| error.hint(format!("write it: {regenerate}")))?;
    // A checkout may have other line ends.
    if copy.replace("\r\n", "\n") != text {
        return Err(Error::input(format!(
            "`{name}` is stale: it differs from the schema of this mdlm"
        ))
        .hint(format!("rewrite it: {regenerate}")));
    }
    terminal.say(&format!("{name} is up to date"));
    Ok(0)
}
