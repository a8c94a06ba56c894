//! `mdlm checkpoint`: what a checkpoint of another program holds, and what a manifest needs to use it.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::render::listing::entry;
use crate::cli::render::style::{FAINT, PLAIN};
use crate::cli::render::terminal::Terminal;
use mdlm::error::Result;
use mdlm::manifest::{Objective, Weights};
use mdlm::numbers::{abbreviated, count};
use mdlm::plural::counted;
use mdlm::weights::import::run::{RateState, RunSettings};
use mdlm::weights::import::{ForeignCheckpoint, NamedTensor, WeightSet};

/// What `mdlm checkpoint --help` says.
pub const LONG_ABOUT: &str = "Show what a checkpoint holds, and which shape fits it.\n\n\
    FILE is a safetensors file, a Hugging Face folder (`config.json` and `model.safetensors`, also in shards), a \
    PyTorch file, a PyTorch Lightning checkpoint, or the folder of a train stage's results. Nothing in it is executed.\n\n\
    Shown are the network with the compiled shape that fits it or the line to add to src/shapes.rs, the objective that \
    the file states, averaged weights and those of the last step, what it holds of its training, objects that are not \
    used, values that are NaN or infinite, and the tensors. A stage of kind `checkpoint` brings it into a pipeline.";

/// Tensors that are listed from the start and from the end unless all are asked for.
const ENDS: usize = 6;

/// Arguments of `mdlm checkpoint`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mdlm checkpoint mdlm-owt/ --all")]
pub struct Args {
    /// The file or folder
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print JSON, with all tensors
    #[arg(long)]
    pub json: bool,
    /// List all tensors
    #[arg(long)]
    pub all: bool,
}

/// A checkpoint as JSON.
#[derive(Serialize)]
struct CheckpointDescription {
    format: String,
    network: Option<NetworkDescription>,
    /// What it is where it is not a network that mdlm has.
    family: Option<String>,
    /// The objective that the file states.
    objective: Option<Objective>,
    /// Why the objective that the file states is not one of mdlm.
    foreign_objective: Option<String>,
    mask: Option<u64>,
    /// What its configuration states otherwise than its tensors.
    contradiction: Option<String>,
    sets: Vec<SetDescription>,
    training: TrainingDescription,
    /// What is not used.
    skipped: Vec<String>,
}

#[derive(Serialize)]
struct NetworkDescription {
    backbone: String,
    vocabulary: usize,
    length: Option<usize>,
    width: usize,
    heads: Option<usize>,
    blocks: usize,
    conditioning: Option<usize>,
    /// The compiled shapes that fit.
    shapes: Vec<&'static str>,
    /// What to add to src/shapes.rs where none fits.
    line: Option<String>,
}

#[derive(Serialize)]
struct SetDescription {
    weights: Weights,
    parameters: usize,
    fault: Option<String>,
    /// Values that are NaN or infinite, by tensor.
    not_finite: Vec<(String, usize)>,
    tensors: Vec<TensorDescription>,
}

#[derive(Serialize)]
struct TensorDescription {
    name: String,
    dims: Vec<usize>,
    dtype: String,
}

#[derive(Serialize)]
struct TrainingDescription {
    steps: Option<u64>,
    epoch: Option<u64>,
    ema_decay: Option<f64>,
    ema_updates: Option<u64>,
    moments: Option<usize>,
    /// The settings that it states.
    settings: RunSettings,
    /// The kind of its learning rate's schedule.
    schedule: Option<String>,
    /// The learning rate of the next update, and where its cosine ends.
    #[serde(skip_serializing_if = "RateState::is_unknown")]
    rates: RateState,
    /// The step from which `train` continues it.
    continues_from: Option<u64>,
    /// Why it cannot be continued although the state of an optimizer was found.
    not_continued: Option<String>,
}

/// Prints what the checkpoint holds to standard output.
///
/// # Errors
/// The file is absent, damaged or of an unknown format; standard output cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let mut checkpoint = ForeignCheckpoint::at(&args.file)?;
    let mut not_finite = Vec::new();
    let sets: Vec<Weights> = checkpoint.sets().iter().map(|set| set.which).collect();
    for which in sets {
        not_finite.push(checkpoint.not_finite(which)?);
    }
    let described = described(&checkpoint, not_finite);
    if args.json {
        terminal.output_json(&described)?;
    } else {
        terminal.output(&text(&checkpoint, &described, args.all, terminal))?;
    }
    Ok(0)
}

fn described(checkpoint: &ForeignCheckpoint, not_finite: Vec<Vec<(String, usize)>>) -> CheckpointDescription {
    let network = checkpoint.guess().map(|guess| {
        let shapes: Vec<_> = guess.fitting().iter().map(|shape| shape.name).collect();
        NetworkDescription {
            backbone: guess.backbone.to_string(),
            vocabulary: guess.vocabulary,
            length: guess.length,
            width: guess.width,
            heads: guess.heads,
            blocks: guess.blocks,
            conditioning: guess.conditioning,
            line: shapes.is_empty().then(|| guess.line()),
            shapes,
        }
    });
    let facts = checkpoint.facts();
    let training = checkpoint.training();
    let run = checkpoint.guess().map(|guess| {
        let shape = guess.shape();
        checkpoint.run(&shape, guess.backbone)
    });
    let (continues_from, not_continued) = match run {
        Some(Ok(run)) => (Some(run.step), None),
        Some(Err(reason)) => (None, reason),
        None => (None, None),
    };
    let set = |(set, not_finite): (&WeightSet, Vec<(String, usize)>)| SetDescription {
        weights: set.which,
        parameters: parameters(set),
        fault: checkpoint.fault(set.which).map(str::to_owned),
        not_finite,
        tensors: set
            .tensors
            .iter()
            .map(|tensor| TensorDescription {
                name: tensor.stored.clone(),
                dims: tensor.dims.clone(),
                dtype: tensor.dtype.clone(),
            })
            .collect(),
    };
    CheckpointDescription {
        format: checkpoint.format().to_string(),
        network,
        family: checkpoint.family(),
        objective: facts.and_then(|facts| facts.objective),
        foreign_objective: facts.and_then(|facts| facts.foreign.clone()),
        mask: facts.and_then(|facts| facts.mask),
        contradiction: checkpoint.contradiction(),
        sets: checkpoint.sets().iter().zip(not_finite).map(set).collect(),
        training: TrainingDescription {
            steps: training.steps,
            epoch: training.epoch,
            ema_decay: training.decay,
            ema_updates: training.average_updates,
            moments: training.moments,
            settings: training.settings,
            schedule: training.schedule.clone(),
            rates: training.rates,
            continues_from,
            not_continued,
        },
        skipped: checkpoint.skipped().to_vec(),
    }
}

/// Elements of a set without its buffers.
fn parameters(set: &WeightSet) -> usize {
    let is_weight = |tensor: &&NamedTensor| !tensor.name.starts_with("rotary_emb.");
    set.tensors
        .iter()
        .filter(is_weight)
        .map(NamedTensor::elements)
        .sum()
}

fn name_of(which: Weights) -> &'static str {
    match which {
        Weights::Ema => "ema",
        Weights::Raw => "raw",
    }
}

fn text(
    checkpoint: &ForeignCheckpoint,
    described: &CheckpointDescription,
    is_all: bool,
    terminal: &Terminal,
) -> String {
    let mut text = format!("{}: {}\n", checkpoint.place(), described.format);
    match (checkpoint.guess(), &described.family) {
        (Some(guess), _) => {
            text += &entry("network", &format!("{}: {}", guess.backbone, guess.text()));
            text += &entry("shape", &guess.way_out());
        }
        (None, Some(family)) => text += &entry("model", family),
        (None, None) => {
            text += &entry(
                "model",
                "not a network that mdlm has: see the names of the tensors",
            );
        }
    }
    let objective = match (
        checkpoint.facts(),
        &described.objective,
        &described.foreign_objective,
    ) {
        (Some(facts), Some(objective), _) => {
            let kind = objective.kind();
            let time = if objective.is_time_conditioned() {
                "with"
            } else {
                "without"
            };
            format!("`{kind}` {time} time conditioning, by `{}`", facts.file)
        }
        (_, None, Some(foreign)) => foreign.clone(),
        _ => "not stated: a manifest states it".to_owned(),
    };
    text += &entry("objective", &objective);
    if let Some(contradiction) = &described.contradiction {
        text += &entry("conflict", contradiction);
    }
    for set in &described.sets {
        let mut line = format!(
            "{}, {} parameters",
            counted(set.tensors.len(), "tensor"),
            abbreviated(set.parameters)
        );
        if let Some(fault) = &set.fault {
            let _ = write!(line, "; cannot be read: {fault}");
        }
        text += &entry(&format!("weights {}", name_of(set.weights)), &line);
        for (tensor, values) in &set.not_finite {
            let values = counted(*values, "value");
            text += &entry("non-finite", &format!("`{tensor}`: {values}"));
        }
    }
    let training = &described.training;
    let facts = [
        training.steps.map(|steps| format!("{} steps", count(steps))),
        training.epoch.map(|epoch| format!("epoch {epoch}")),
        training.ema_decay.map(|decay| format!("EMA decay {decay}")),
        training
            .ema_updates
            .map(|updates| format!("{} updates of the EMA", count(updates))),
        training
            .rates
            .next_rate
            .map(|rate| format!("learning rate {rate} at the next step")),
        training
            .moments
            .map(|tensors| format!("{} of AdamW's moments", counted(tensors, "tensor"))),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    if !facts.is_empty() {
        text += &entry("training", &facts.join(", "));
    }
    match (training.continues_from, &training.not_continued) {
        (Some(step), _) => {
            text += &entry(
                "continued",
                &format!("from step {step} on by `\"continue\": true`"),
            );
        }
        (None, Some(reason)) => text += &entry("continued", &format!("no: {reason}")),
        (None, None) => {}
    }
    for skipped in &described.skipped {
        text += &entry("not used", skipped);
    }
    for set in &described.sets {
        text.push('\n');
        text += &table(set, is_all, terminal);
    }
    text
}

/// The tensors of a set: all, or the first and the last.
fn table(set: &SetDescription, is_all: bool, terminal: &Terminal) -> String {
    let row = |tensor: &TensorDescription| {
        let dims: Vec<_> = tensor.dims.iter().map(ToString::to_string).collect();
        vec![tensor.name.clone(), dims.join(" x "), tensor.dtype.clone()]
    };
    let mut rows = vec![["tensor", "dims", "type"].map(str::to_owned).to_vec()];
    let tensors = &set.tensors;
    if is_all || tensors.len() <= 2 * ENDS + 1 {
        rows.extend(tensors.iter().map(row));
    } else {
        rows.extend(tensors[..ENDS].iter().map(row));
        let more = tensors.len() - 2 * ENDS;
        rows.push(vec![format!("… {more} more: `--all`")]);
        rows.extend(tensors[tensors.len() - ENDS..].iter().map(row));
    }
    terminal.table(&rows, |row, _| if row == 0 { FAINT } else { PLAIN })
}
