//! `mdlm export`: a trained model as files of other programs.

use std::fs;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Serialize;

use crate::cli::args::project::{Project, ProjectArgs};
use crate::cli::args::stage::{check_has_model, find};
use crate::cli::render::terminal::Terminal;
use mdlm::error::{Context as _, Error, Result};
use mdlm::export::{FinishedModel, hub, lightning};
use mdlm::manifest::Weights;
use mdlm::numbers::bytes;
use mdlm::plan::{Plan, Selection};
use mdlm::store::{Digest, Record};

/// What `mdlm export --help` says first.
pub const LONG_ABOUT: &str = "\
    Write a trained model as a folder of Hugging Face, or as a checkpoint of PyTorch Lightning.\n\n\
    STAGE is a train or checkpoint stage that has run. With `--to hf`, PATH is a folder for `transformers`: weights, \
    tokenizer, the network and a sampler in PyTorch, and a model card with results, data and provenance. With \
    `--to lightning`, PATH is a file from which the MDLM authors' code resumes the training: weights, average, \
    AdamW's moments and counters. A checkpoint stage is written if its file had moments.\n\n\
    Weights are written as f32, also those that came from a file of 16 bits. A checkpoint stage reads both back. PATH is \
    written beside its place and renamed.";

/// Arguments of `mdlm export`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "mdlm export [OPTIONS] <MANIFEST> <STAGE> --to <FORMAT> <PATH>",
    after_help = "Example: mdlm export pipelines/quickstart.json model --to hf quickstart-hf"
)]
pub struct Args {
    /// The manifest and its store.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// The train or checkpoint stage
    #[arg(value_name = "STAGE")]
    pub stage: String,
    /// The folder (hf) or file (lightning) to write
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// What to write: hf or lightning
    #[arg(long = "to", value_name = "FORMAT", hide_possible_values = true)]
    pub format: ExportFormat,
    /// Weights of the folder: ema or raw; default: the average if there is one
    #[arg(long, value_name = "WEIGHTS", hide_possible_values = true)]
    pub weights: Option<ExportedWeights>,
    /// Replace an earlier export
    ///
    /// A folder with other files in it is not replaced.
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// A folder of Hugging Face.
    #[value(alias = "huggingface", alias = "transformers")]
    Hf,
    /// A checkpoint of PyTorch Lightning.
    #[value(alias = "ckpt")]
    Lightning,
}

impl ExportFormat {
    fn name(self) -> &'static str {
        match self {
            Self::Hf => "hf",
            Self::Lightning => "lightning",
        }
    }
}

/// Which weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportedWeights {
    /// Their moving average.
    Ema,
    /// Those of the last step.
    Raw,
}

/// What `--json` prints.
#[derive(Serialize)]
struct ExportDescription<'a> {
    format: &'static str,
    path: &'a Path,
    stage: &'a str,
    artifact: Digest,
    key_digest: Digest,
    /// Which weights the folder has; a checkpoint has both.
    weights: Option<Weights>,
    files: Vec<WrittenFile>,
}

#[derive(Serialize)]
struct WrittenFile {
    path: PathBuf,
    bytes: u64,
}

/// Writes the model and prints its place.
///
/// # Errors
/// The stage has no model or has not run, the place is taken, the disk is full or not writable.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let project = match args.project.open(terminal) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    check_has_model(&project, &args.stage)?;
    if args.format == ExportFormat::Lightning && args.weights.is_some() {
        return Err(Error::input("`--weights` has no effect with `--to lightning`")
            .hint("leave it out: the file has the weights of the last step and their average"));
    }
    let record = find(&project, &args.stage)?;
    let _pin = project.store.pin_if_writable(&record.artifact)?;
    let plan = plan(&project, &args.stage, terminal)?;
    let model = FinishedModel::of(&plan, &project.store, &args.stage)?
        .with_description(project.loaded.manifest.description.as_deref());
    let weights = match args.format {
        ExportFormat::Hf => {
            let asked = args.weights.map(|weights| match weights {
                ExportedWeights::Ema => Weights::Ema,
                ExportedWeights::Raw => Weights::Raw,
            });
            let which = model.choose(asked)?;
            hub::write(&model, which, &args.path, args.force)?;
            Some(which)
        }
        ExportFormat::Lightning => {
            lightning::write(&model, &args.path, args.force)?;
            None
        }
    };
    report(args, &record, weights, model.has_only_set(), terminal)?;
    Ok(0)
}

/// The plan of the whole manifest, whose evaluations and sources the card lists; where that cannot be made, of the stage alone.
fn plan(project: &Project, stage: &str, terminal: &Terminal) -> Result<Plan> {
    project.plan(&Selection::default()).or_else(|error| {
        terminal.warn(&format!("evaluations are left out of the model card: {error}"));
        project.plan(&Selection {
            targets: vec![stage.to_owned()],
            ..Selection::default()
        })
    })
}

fn report(
    args: &Args,
    record: &Record,
    weights: Option<Weights>,
    is_only_set: bool,
    terminal: &Terminal,
) -> Result<()> {
    let names: Vec<PathBuf> = match args.format {
        ExportFormat::Hf => hub::FILES.iter().map(|name| args.path.join(name)).collect(),
        ExportFormat::Lightning => vec![args.path.clone()],
    };
    let mut files = Vec::new();
    for path in names {
        let metadata = fs::metadata(&path).context(|| format!("read `{}`", path.display()))?;
        files.push(WrittenFile {
            path,
            bytes: metadata.len(),
        });
    }
    if args.json {
        return terminal.output_json(&ExportDescription {
            format: args.format.name(),
            path: &args.path,
            stage: &args.stage,
            artifact: record.artifact,
            key_digest: record.key.digest(),
            weights,
            files,
        });
    }
    let size = bytes(files.iter().map(|file| file.bytes).sum());
    let what = match weights {
        Some(Weights::Ema) => "averaged weights",
        Some(Weights::Raw) if is_only_set => "the only weights",
        Some(Weights::Raw) => "weights of the last step",
        None => "weights, average and moments",
    };
    terminal.say(&format!("wrote {what} of `{}`, {size}", args.stage));
    terminal.output(&format!("{}\n", args.path.display()))
}
