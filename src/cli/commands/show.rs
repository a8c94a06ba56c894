//! `mdlm show`: how a stage's artifact came about, and what is in it.

use serde::Serialize;
use serde_json::Value;

use crate::cli::args::project::ProjectArgs;
use crate::cli::args::stage::find_lacking;
use crate::cli::render::style;
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::flatten;
use mdlm::error::Result;
use mdlm::numbers::{bytes, count, duration};
use mdlm::plural::counted;
use mdlm::store::{Digest, Record};

/// What `mdlm show --help` says first.
pub const LONG_ABOUT: &str = "\
    Show a stage's artifact and how it was made: key figures, settings, inputs, machine, time and files.\n\n\
    Fails if the stage has not run with its present settings and inputs.";

/// Arguments of `mdlm show`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest and its store.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// The stage
    #[arg(value_name = "STAGE")]
    pub stage: String,
    /// Print the whole record as JSON, with the digest of every file
    #[arg(long)]
    pub json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct ShowReport<'a> {
    path: String,
    key_digest: Digest,
    /// What the artifact lacks of what the manifest asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    lacks: Option<&'a str>,
    #[serde(flatten)]
    record: &'a Record,
}

/// Prints the record.
///
/// # Errors
/// The stage has not run with its present settings and inputs.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let project = match args.project.open(terminal) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    let (record, lacking) = find_lacking(&project, &args.stage)?;
    let path = project
        .store
        .artifact_path(&record.artifact)
        .display()
        .to_string();
    if args.json {
        terminal.output_json(&ShowReport {
            path,
            key_digest: record.key.digest(),
            lacks: lacking.as_deref(),
            record: &record,
        })?;
    } else {
        terminal.output(&text(&record, &path, lacking.as_deref(), terminal))?;
    }
    Ok(0)
}

fn text(record: &Record, path: &str, lacking: Option<&str>, terminal: &Terminal) -> String {
    let made = &record.provenance;
    let read =
        |path: &str, length: u64, digest: &Digest| row(path, format!("{} {}", bytes(length), digest.short()));
    let mut settings = Vec::new();
    flatten(&made.config, &mut settings);
    let mut facts = Vec::new();
    flatten(&Value::Object(made.facts.clone()), &mut facts);
    let inputs = made.inputs.iter().map(|input| {
        let from = format!("{} {}", input.stage, input.artifact.short());
        row(&input.role, from)
    });
    let listed = record.files.iter().take(LISTED);
    let mut files: Vec<_> = listed
        .map(|file| read(&file.path, file.bytes, &file.digest))
        .collect();
    if record.files.len() > LISTED {
        let more = count((record.files.len() - LISTED) as u64);
        files.push(row("…", format!("and {more} more: see --json")));
    }
    let sections = [
        ("", about(record, path, lacking)),
        (
            "Figures",
            record
                .figures
                .iter()
                .map(|(name, value)| row(name, value.clone()))
                .collect(),
        ),
        ("Settings", settings),
        ("Inputs", inputs.collect()),
        (
            "Files read",
            made.files
                .iter()
                .map(|file| read(&file.path, file.bytes, &file.digest))
                .collect(),
        ),
        ("Run", facts),
        ("Files", files),
    ];
    let mut text = String::new();
    for (heading, rows) in sections.iter().filter(|(_, rows)| !rows.is_empty()) {
        if !heading.is_empty() {
            text.push('\n');
            text.push_str(&terminal.paint_output(style::STRONG, heading));
            text.push('\n');
        }
        text.push_str(&terminal.table(rows, |_, column| match column {
            0 => style::FAINT,
            _ => style::PLAIN,
        }));
    }
    text
}

fn row(name: &str, value: String) -> Vec<String> {
    vec![name.to_owned(), value]
}

/// What, when, where, with what.
fn about(record: &Record, path: &str, lacking: Option<&str>) -> Vec<Vec<String>> {
    let made = &record.provenance;
    let kind = &record.key.kind;
    let mut rows = vec![
        row("stage", format!("{} ({kind}) of {}", made.stage, made.pipeline)),
        row("artifact", record.artifact.to_string()),
    ];
    rows.extend(record.content.map(|content| row("content", content.to_string())));
    rows.extend([
        row("path", path.to_owned()),
        row("key", record.key.digest().to_string()),
        row("started", made.started.clone()),
        row("took", duration(made.seconds)),
    ]);
    rows.extend(lacking.map(|lacking| row("lacks", lacking.to_owned())));
    rows.extend(made.peak_memory_bytes.map(|peak| row("peak memory", bytes(peak))));
    rows.push(row("seed", made.seed.to_string()));
    let revision = made
        .revision
        .as_ref()
        .map_or_else(String::new, |revision| format!(" ({revision})"));
    rows.push(row(
        "mdlm",
        format!(
            "{}{revision}, {kind} version {}",
            made.version, record.key.version
        ),
    ));
    rows.push(row(
        "device",
        format!("{}, {}", made.device, counted(made.threads, "thread")),
    ));
    let machine = &made.machine;
    let processor = machine
        .processor
        .as_ref()
        .map_or_else(String::new, |name| format!(", {name}"));
    rows.push(row(
        "machine",
        format!(
            "{} ({}{processor}, {})",
            machine.host,
            machine.system,
            counted(machine.processors, "processor")
        ),
    ));
    rows.push(row("manifest", made.manifest.clone()));
    // As seen from the store, which is what a pipeline is known by.
    rows.extend(made.place.as_ref().map(|place| row("its place", place.clone())));
    rows.extend(
        made.overrides
            .iter()
            .map(|argument| row("override", argument.clone())),
    );
    rows
}

/// Files that are listed at most.
const LISTED: usize = 20;
