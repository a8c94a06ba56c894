//! `mdlm logits`: what a checkpoint predicts, as a file: the tool with which two implementations are compared.

mod losses;

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;

use crate::cli::args::compute::{DeviceChoice, compute_on};
use crate::cli::render::terminal::Terminal;
use mdlm::error::{Context as _, Error, Result};
use mdlm::event::Cancel;
use mdlm::kernels::Pattern;
use mdlm::manifest::Objective;
use mdlm::model::{self, Network, parameters};
use mdlm::plural::counted;
use mdlm::precision::Precision;
use mdlm::shapes::{Backbone, SHAPES, Shape};
use mdlm::stages::trained::MODEL_INFO;
use mdlm::system::GpuLock;
use mdlm::weights::import::{self, ForeignCheckpoint};
use mdlm::weights::tensors::{Reader, Writer};

/// Logits computed at a time, in bytes, unless a single row has more.
const LOGITS_AT_A_TIME: usize = 64 << 20;

/// What `mdlm logits --help` says.
pub const LONG_ABOUT: &str = "Compute a checkpoint's logits, to compare implementations.\n\n\
    Reads `xt` [rows, L], noised tokens of any integer type, and `sigma` [rows], the noise levels, from the input: required if \
    the checkpoint states time conditioning, without effect if it states none, and else 0 when absent. Writes `logits` [rows, L, V], f32, raw: nothing is substituted or \
    normalized. The checkpoint is whatever `mdlm checkpoint` reads: a file or a folder with the authors' tensor \
    names; averaged weights if it has any.\n\n\
    With `--objective`, the input also has `x0` [rows, L], the clean tokens, and `t` [rows], the times, \
    above 0 and at most 1, from which the network's input follows: `sigma` is refused. Also written is \
    `loss` [rows, L], f32: the summand of the objective's bound at that time, per position in nats, and 0 \
    where nothing is predicted. That of `d3pm` has the reconstruction term, in a second forward pass; \
    that of `mlm`, which needs no `t`, is -log p where `xt` differs from `x0`. `ar` needs `x0` alone: its \
    logits at a position are those of the next token, and `log_probabilities` [rows, L] of `x0` are \
    written too, 0 for the first token, which is given.";

/// Arguments of `mdlm logits`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "mdlm logits --checkpoint <FILE> --shape <NAME>\n                   --input <FILE> --output <FILE> [--objective <OBJECTIVE>]"
)]
pub struct Args {
    /// The weights: a file or folder (see `mdlm checkpoint`)
    #[arg(long, value_name = "FILE")]
    pub checkpoint: PathBuf,
    /// The checkpoint's compiled shape (see `mdlm shapes`)
    #[arg(
        long,
        value_name = "NAME",
        value_parser = PossibleValuesParser::new(SHAPES.iter().map(|shape| shape.name)),
        hide_possible_values = true
    )]
    pub shape: String,
    /// Noised tokens, a safetensors file
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Where to write the logits, a safetensors file
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Also compute the loss of this objective: a kind (see `mdlm objectives`), or an object as in a manifest
    #[arg(long, value_name = "OBJECTIVE")]
    pub objective: Option<String>,
    /// Tokens of the vocabulary, the mask included; default: that of `model.json` beside the weights, or the shape's
    #[arg(long, value_name = "N", requires = "objective")]
    pub vocabulary: Option<u32>,
    /// Id of the mask token; default: that of `model.json` beside the weights, or the last of the
    /// vocabulary
    #[arg(long, value_name = "ID", requires = "objective")]
    pub mask: Option<u32>,
    /// Where to compute: auto, cpu or cuda
    ///
    /// auto, the default, uses a GPU if one can be used, else the CPU. Environment variable: MDLM_DEVICE.
    #[arg(long, value_name = "DEVICE", hide_possible_values = true)]
    pub device: Option<DeviceChoice>,
}

/// Computes the logits of the input's rows, and with an objective their losses, and writes them as they come.
///
/// # Errors
/// Input error: a file is absent or malformed, with the place of the fault. Environment error: the device fails, or the
/// output cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let shape = SHAPES
        .find(&args.shape)
        .ok_or_else(|| Error::input(format!("shape `{}` is not compiled", args.shape)))?;
    if let Some(text) = &args.objective {
        return losses::run(args, shape, &Objective::from_argument(text)?, terminal);
    }
    let mut input = Reader::open(&args.input)?;
    let context = || format!("read `{}`", args.input.display());
    let (rows, tokens, sigma) = read_input(&mut input, shape).context(context)?;
    let mut checkpoint = ForeignCheckpoint::at(&args.checkpoint)?;
    let sigma = levels(sigma, rows, conditioning(args, &checkpoint), terminal).context(context)?;
    let (network, _lock) = network(args, &mut checkpoint, shape, Backbone::Dit, terminal)?;

    let (length, vocabulary) = (shape.length, shape.vocabulary);
    let tensors = [("logits".to_owned(), vec![rows, length, vocabulary])];
    let mut writer = Writer::create(&args.output, &tensors, &[])?;
    let at_a_time = rows_at_a_time(shape);
    let positions: Vec<u32> = (0..(at_a_time * length) as u32).collect();
    for (tokens, sigma) in tokens.chunks(at_a_time * length).zip(sigma.chunks(at_a_time)) {
        let positions = &positions[..tokens.len()];
        writer.append(&network.logits(tokens, sigma, positions, Pattern::Full)?)?;
    }
    writer.finish()?;
    terminal.say(&format!(
        "wrote `{}`: `logits` [{rows}, {length}, {vocabulary}]",
        args.output.display()
    ));
    Ok(0)
}

/// Rows whose logits are computed at a time.
fn rows_at_a_time(shape: &Shape) -> usize {
    (LOGITS_AT_A_TIME / (4 * shape.length * shape.vocabulary)).max(1)
}

/// Whether a network is fed the noise level, and the file that states it.
struct StatedConditioning {
    is_on: bool,
    file: String,
}

/// Whether the checkpoint's network is fed the noise level, as far as the checkpoint or a `model.json` beside the file states it.
fn conditioning(args: &Args, checkpoint: &ForeignCheckpoint) -> Option<StatedConditioning> {
    let of = |objective: &Objective| {
        let is_dit = objective.backbone() == Backbone::Dit;
        is_dit.then(|| objective.is_time_conditioned())
    };
    let Some(facts) = checkpoint.facts() else {
        let model = losses::model_beside(&args.checkpoint).ok()??;
        let file = MODEL_INFO.to_owned();
        return of(&model.objective).map(|is_on| StatedConditioning { is_on, file });
    };
    let is_on = facts
        .objective
        .as_ref()
        .and_then(of)
        .or(facts.time_conditioning)?;
    let file = facts.file.clone();
    Some(StatedConditioning { is_on, file })
}

/// The noise levels that the network is fed, one per row.
fn levels(
    sigma: Option<Vec<f32>>,
    rows: usize,
    conditioning: Option<StatedConditioning>,
    terminal: &Terminal,
) -> Result<Vec<f32>> {
    match (sigma, conditioning) {
        (None, Some(StatedConditioning { is_on: true, file })) => Err(Error::input(format!(
            "there is no tensor `sigma`, and the network is fed the noise level of each row by `{file}`"
        ))
        .hint(
            "add `sigma` [rows], σ = −log α(t) of each row as f32; or give `--objective`, and `x0` and `t` in the input, from \
             which it follows",
        )),
        (Some(_), Some(StatedConditioning { is_on: false, file })) => {
            terminal.warn(&format!(
                "`sigma` has no effect: the network is not conditioned on the noise level by `{file}`, and is fed 0"
            ));
            Ok(vec![0.0; rows])
        }
        (sigma, _) => Ok(sigma.unwrap_or_else(|| vec![0.0; rows])),
    }
}

/// Tensors with NaN or infinite values that are warned of at most.
const WARNED: usize = 5;

/// The checkpoint's network on the device of choice, and the lock under which it computes.
fn network(
    args: &Args,
    checkpoint: &mut ForeignCheckpoint,
    shape: &Shape,
    backbone: Backbone,
    terminal: &Terminal,
) -> Result<(Box<dyn Network>, Option<GpuLock>)> {
    let choice = DeviceChoice::or_stated(args.device)?;
    let (device, lock) = compute_on(choice, &Cancel::default(), terminal)?;
    let which = checkpoint.choose(None)?;
    let is_causal = checkpoint
        .guess()
        .is_some_and(|guess| guess.backbone == Backbone::Transformer);
    let weights = checkpoint.read(shape, backbone, which).map_err(|error| {
        if is_causal && backbone == Backbone::Dit {
            error.replace_hint(
                "give `--objective ar`, and `x0` in the input: the file holds an autoregressive model",
            )
        } else {
            error
        }
    })?;
    for (name, count) in import::not_finite(&parameters(shape, backbone), &weights)
        .into_iter()
        .take(WARNED)
    {
        let values = counted(count, "value");
        terminal.warn(&format!("tensor `{name}` is NaN or infinite in {values}"));
    }
    let network = model::build(shape, backbone, device, Precision::F32, &weights)?;
    Ok((network, lock))
}

/// Tensors of a file that are listed at most.
const LISTED: usize = 5;

/// A tensor that is not in the file; `holds` says what it is.
fn missing(reader: &Reader, name: &str, holds: &str) -> Error {
    let mut names: Vec<_> = reader.names().iter().map(|name| format!("`{name}`")).collect();
    if names.len() > LISTED {
        let more = names.len() - LISTED;
        names.truncate(LISTED);
        names.push(format!("{more} more"));
    }
    Error::input(format!("there is no tensor `{name}`")).hint(format!(
        "`{name}` holds {holds}; the file has {}",
        if names.is_empty() {
            "no tensors".to_owned()
        } else {
            names.join(", ")
        }
    ))
}

/// The rows of a tensor of tokens [rows, L]; `holds` says what it is.
fn rows_of(reader: &Reader, name: &str, holds: &str, shape: &Shape) -> Result<usize> {
    let Some(info) = reader.info(name) else {
        return Err(missing(reader, name, &format!("{holds}, [rows, L], as integers")));
    };
    let length = shape.length;
    let &[rows, columns] = &info.shape[..] else {
        return Err(Error::input(format!(
            "`{name}` is {:?}, expected [rows, {length}]",
            info.shape
        )));
    };
    if columns == length {
        return Ok(rows);
    }
    let fits: Vec<_> = SHAPES
        .iter()
        .filter(|shape| shape.length == columns)
        .map(|shape| shape.name)
        .collect();
    Err(Error::input(format!(
        "`{name}` is [{rows}, {columns}], expected [rows, {length}] for shape `{}`",
        shape.name
    ))
    .hint(if fits.is_empty() {
        format!("no compiled shape has rows of {columns} tokens")
    } else {
        format!("rows of {columns} tokens belong to: {}", fits.join(", "))
    }))
}

/// Rows `start..start + count` of a tensor of tokens, all below `vocabulary`.
fn read_tokens(
    reader: &mut Reader,
    name: &str,
    [start, count]: [usize; 2],
    shape: &Shape,
    vocabulary: usize,
) -> Result<Vec<u32>> {
    let length = shape.length;
    let mut integers = vec![0; count * length];
    reader.integers(name, start * length, &mut integers)?;
    let mut tokens = Vec::with_capacity(integers.len());
    for (i, &integer) in integers.iter().enumerate() {
        match u32::try_from(integer) {
            Ok(token) if (token as usize) < vocabulary => tokens.push(token),
            _ => {
                let whose = if vocabulary == shape.vocabulary {
                    format!("shape `{}`", shape.name)
                } else {
                    format!("a vocabulary of {vocabulary}")
                };
                return Err(Error::input(format!(
                    "`{name}`[{}, {}] is {integer}: {whose} has tokens 0 to {}",
                    start + i / length,
                    i % length,
                    vocabulary - 1
                )));
            }
        }
    }
    Ok(tokens)
}

/// The rows, their tokens and one sigma per row, if there are any.
fn read_input(reader: &mut Reader, shape: &Shape) -> Result<(usize, Vec<u32>, Option<Vec<f32>>)> {
    let rows = rows_of(reader, "xt", "the noised tokens", shape)?;
    let tokens = read_tokens(reader, "xt", [0, rows], shape, shape.vocabulary)?;
    let mut sigma = None;
    if let Some(info) = reader.info("sigma") {
        if info.shape != [rows] {
            return Err(Error::input(format!(
                "`sigma` is {:?}, expected [{rows}], one per row",
                info.shape
            )));
        }
        let mut levels = vec![0.0; rows];
        reader.floats("sigma", 0, &mut levels)?;
        if let Some(row) = levels.iter().position(|sigma| !sigma.is_finite()) {
            return Err(Error::input(format!("`sigma`[{row}] is {}", levels[row])));
        }
        sigma = Some(levels);
    }
    Ok((rows, tokens, sigma))
}
