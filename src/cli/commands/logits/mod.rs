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
use mdlm::model::{self, Network};
use mdlm::precision::Precision;
use mdlm::shapes::{Backbone, SHAPES, Shape};
use mdlm::system::GpuLock;
use mdlm::weights::import;
use mdlm::weights::tensors::{Reader, Writer};

/// Logits computed at a time, in bytes, unless a single row has more.
const LOGITS_AT_A_TIME: usize = 64 << 20;

/// What `mdlm logits --help` says.
pub const LONG_ABOUT: &str = "Compute a checkpoint's logits, to compare implementations.\n\n\
    Reads `xt` [rows, L], noised tokens of any integer type, and optionally `sigma` [rows] (0 when \
    absent) from the input; writes `logits` [rows, L, V], f32, raw: nothing is substituted or \
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
    let (rows, tokens, sigma) =
        read_input(&mut input, shape).context(|| format!("read `{}`", args.input.display()))?;
    let (network, _lock) = network(args, shape, Backbone::Dit, terminal)?;

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

/// The checkpoint's network on the device of choice, and the lock under which it computes.
fn network(
    args: &Args,
    shape: &Shape,
    backbone: Backbone,
    terminal: &Terminal,
) -> Result<(Box<dyn Network>, Option<GpuLock>)> {
    let choice = DeviceChoice::or_stated(args.device)?;
    let (device, lock) = compute_on(choice, &Cancel::default(), terminal)?;
    let weights = import::read(&args.checkpoint, shape, backbone)?;
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

/// The rows, their tokens and one sigma per row.
fn read_input(reader: &mut Reader, shape: &Shape) -> Result<(usize, Vec<u32>, Vec<f32>)> {
    let rows = rows_of(reader, "xt", "the noised tokens", shape)?;
    let tokens = read_tokens(reader, "xt", [0, rows], shape, shape.vocabulary)?;
    let mut sigma = vec![0.0; rows];
    if let Some(info) = reader.info("sigma") {
        if info.shape != [rows] {
            return Err(Error::input(format!(
                "`sigma` is {:?}, expected [{rows}], one per row",
                info.shape
            )));
        }
        reader.floats("sigma", 0, &mut sigma)?;
        if let Some(row) = sigma.iter().position(|sigma| !sigma.is_finite()) {
            return Err(Error::input(format!("`sigma`[{row}] is {}", sigma[row])));
        }
    }
    Ok((rows, tokens, sigma))
}
