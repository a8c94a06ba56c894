//! `mdlm validate`: all faults of manifests, at their lines.
//!
//! People get the lines of the manifest with the faults marked. Machines get mdlm's JSON, GitHub's workflow commands
//! ([`github`]) or SARIF ([`sarif`]).

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rayon::prelude::*;
use serde::Serialize;

use crate::cli::render::faults::show;
use crate::cli::render::style;
use crate::cli::render::terminal::Terminal;
use mdlm::error::{Kind, Result};
use mdlm::manifest::{Fault, Faults, Loaded, Location, Manifest, Stage};
use mdlm::plural::counted;
use mdlm::shapes::SHAPES;
use mdlm::stages::tokenize;

pub mod github;
pub mod sarif;

/// What `mdlm validate --help` says first.
pub const LONG_ABOUT: &str = "\
    Check manifests: JSON, schema, and how the stages fit together.\n\n\
    All faults are listed at once, each with its line. Needs no data and no network; takes milliseconds. \
    Files of tokenizers are checked where they exist. \
    Exits with 0 when every file is valid, else with 2.\n\n\
    In CI, `--format github` shows the faults at their lines of a pull request, and `--format sarif` writes them \
    for code scanning and editors (SARIF 2.1.0). Both write paths relative to the root of the repository: \
    GITHUB_WORKSPACE if it is set, else the current folder.";

/// Arguments of `mdlm validate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        mdlm validate pipelines/*.json\n  \
        mdlm validate --format sarif pipelines/*.json > manifests.sarif")]
pub struct Args {
    /// The manifests
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Check with a field set: stages.model.steps=200
    ///
    /// PATH=VALUE: names joined by points, and a value that is JSON or else text; `null` removes the field, so that its
    /// default applies. Applies to every file.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Format of the faults: human, json, github or sarif
    ///
    /// human shows them with their lines on standard error; the others print to standard output: json a list of the
    /// files with their faults, github workflow commands, sarif a log of SARIF 2.1.0.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "human",
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub format: FaultFormat,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// How faults are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FaultFormat {
    /// With the lines at fault, on standard error.
    Human,
    /// JSON of our own.
    Json,
    /// GitHub's workflow commands.
    Github,
    /// SARIF 2.1.0.
    Sarif,
}

/// A manifest that was checked.
pub struct CheckedManifest<'a> {
    /// The file, as named.
    pub file: &'a Path,
    /// What is wrong with it, if anything.
    pub faults: Option<Faults>,
}

impl CheckedManifest<'_> {
    /// The faults that are printed.
    #[must_use]
    pub fn list(&self) -> &[Fault] {
        self.faults.as_ref().map_or(&[], |faults| &faults.list)
    }

    /// How many there are beyond those.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.faults.as_ref().map_or(0, |faults| faults.omitted)
    }

    /// Whether a place lies in the file, and not in a `--set` argument or in a file that could not be read.
    #[must_use]
    pub fn holds(&self, place: &Location) -> bool {
        let source = self.faults.as_ref().and_then(|faults| faults.sources.first());
        place.span.source == 0 && source.is_some_and(|source| !source.text.is_empty())
    }

    /// The `--set` argument that a place lies in, with a colon: to go before the message.
    #[must_use]
    pub fn argument(&self, place: &Location) -> String {
        let sources = self.faults.as_ref().map_or(&[][..], |faults| &faults.sources);
        match sources.get(place.span.source) {
            Some(source) if place.span.source > 0 => {
                format!("`--set {}`: ", source.text.replace(['\r', '\n'], " "))
            }
            _ => String::new(),
        }
    }
}

/// What `--json` prints for a file.
#[derive(Serialize)]
struct ValidateReport<'a> {
    file: String,
    valid: bool,
    faults: &'a [Fault],
    /// Faults beyond those listed.
    omitted: usize,
}

/// Checks every file. The exit code is 0 where all are valid, else 2.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let checked: Vec<CheckedManifest> = args
        .files
        .par_iter()
        .map(|file| CheckedManifest {
            file,
            faults: match Manifest::load(file, &args.set, SHAPES) {
                Ok(loaded) => damaged_tokenizers(&loaded),
                Err(faults) => Some(faults),
            },
        })
        .collect();
    let invalid = checked.iter().filter(|checked| checked.faults.is_some()).count();
    match if args.json { FaultFormat::Json } else { args.format } {
        FaultFormat::Json => {
            let reports: Vec<_> = checked
                .iter()
                .map(|checked| ValidateReport {
                    file: checked.file.display().to_string(),
                    valid: checked.faults.is_none(),
                    faults: checked.list(),
                    omitted: checked.omitted(),
                })
                .collect();
            terminal.output_json(&reports)?;
        }
        FaultFormat::Sarif => terminal.output_json(&sarif::log(&checked, &Root::find()))?,
        FaultFormat::Github => {
            terminal.output(&github::annotations(&checked, &Root::find()))?;
            conclude(&checked, terminal);
        }
        FaultFormat::Human => {
            for faults in checked.iter().filter_map(|checked| checked.faults.as_ref()) {
                show(faults, terminal);
            }
            conclude(&checked, terminal);
        }
    }
    Ok(if invalid == 0 { 0 } else { Kind::Input.exit_code() })
}

/// Says on standard error how many faults there are.
fn conclude(checked: &[CheckedManifest<'_>], terminal: &Terminal) {
    let invalid = checked.iter().filter(|checked| checked.faults.is_some()).count();
    let faults: usize = checked
        .iter()
        .filter_map(|checked| checked.faults.as_ref())
        .map(Faults::count)
        .sum();
    if invalid == 0 {
        let subject = match checked {
            [only] => format!("{} is", only.file.display()),
            all => format!("{} manifests are", all.len()),
        };
        terminal.say(&format!("{subject} {}", terminal.paint(style::GOOD, "valid")));
    } else {
        terminal.say(&format!(
            "{} in {} of {}",
            terminal.paint(style::ERROR, &counted(faults, "fault")),
            invalid,
            counted(checked.len(), "manifest")
        ));
    }
}

/// Where the paths of machine-readable formats begin.
pub struct Root(Option<PathBuf>);

impl Root {
    /// The root of the repository where GitHub runs us, else the current folder.
    #[must_use]
    pub fn find() -> Self {
        let workspace = std::env::var_os("GITHUB_WORKSPACE").filter(|folder| !folder.is_empty());
        let folder = workspace.map_or_else(std::env::current_dir, |folder| Ok(PathBuf::from(folder)));
        Self(folder.and_then(std::fs::canonicalize).ok())
    }

    /// A file as seen from here, or, where it lies elsewhere, its whole path. A link is named where it lies, not
    /// where it leads: it is the link that the repository holds.
    #[must_use]
    pub fn name(&self, file: &Path) -> PathBuf {
        let folder = match file.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let (Ok(folder), Some(name)) = (std::fs::canonicalize(folder), file.file_name()) else {
            return file.to_owned();
        };
        let whole = folder.join(name);
        match self.0.as_ref().and_then(|root| whole.strip_prefix(root).ok()) {
            Some(below) => below.to_owned(),
            None => whole,
        }
    }
}

/// Faults of the tokenizers' files that are there: no text has to be read to find them.
fn damaged_tokenizers(loaded: &Loaded) -> Option<Faults> {
    let mut found: Vec<(String, String, Option<String>)> = Vec::new();
    for (name, stage) in &loaded.manifest.stages {
        let Stage::Tokenize(config) = stage else { continue };
        let Some((field, error)) = tokenize::damaged(&config.tokenizer, loaded.base()) else {
            continue;
        };
        let pointer = format!("/stages/{}/tokenizer/{field}", loaded.sweeps.written(name));
        if found.iter().all(|(known, ..)| *known != pointer) {
            found.push((pointer, error.to_string(), error.hint_text().map(str::to_owned)));
        }
    }
    (!found.is_empty()).then(|| loaded.faults(found))
}
