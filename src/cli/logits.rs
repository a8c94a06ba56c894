//! `mdlm logits`: what a checkpoint predicts, as a file: the tool with which two implementations are compared.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;

use super::Terminal;
use super::project::{DeviceChoice, compute_on};
use crate::error::{Context as _, Error, Result};
use crate::event::Cancel;
use crate::kernels::Pattern;
use crate::kernels::gemm::Precision;
use crate::model::tensors::{Reader, Writer};
use crate::model::{self, checkpoint};
use crate::shapes::{Backbone, SHAPES, Shape};

/// Logits computed at a time, in bytes, unless a single row has more.
const LOGITS_AT_A_TIME: usize = 64 << 20;

/// What `mdlm logits --help` says.
pub const LONG_ABOUT: &str = "Compute a checkpoint's logits, to compare implementations.\n\n\
    Reads `xt` [rows, L], noised tokens of any integer type, and optionally `sigma` [rows] (0 when \
    absent) from the input; writes `logits` [rows, L, V], f32, raw: nothing is substituted or \
    normalized. The checkpoint may have the authors' tensor names with or without `backbone.`.";

/// Arguments of `mdlm logits`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "mdlm logits --checkpoint <FILE> --shape <NAME>\n                   --input <FILE> --output <FILE>"
)]
pub struct Args {
    /// The weights, a safetensors file
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
    /// Where to compute: auto, cpu or cuda
    ///
    /// auto, the default, uses a GPU if one can be used, else the CPU. Environment variable: MDLM_DEVICE.
    #[arg(long, value_name = "DEVICE", hide_possible_values = true)]
    pub device: Option<DeviceChoice>,
}

/// Computes the logits of the input's rows and writes them as they come.
///
/// # Errors
/// Input error: a file is absent or malformed, with the place of the fault. Environment error: the device fails, or the
/// output cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let shape = Shape::find(&args.shape)
        .ok_or_else(|| Error::input(format!("shape `{}` is not compiled", args.shape)))?;
    let mut input = Reader::open(&args.input)?;
    let (rows, tokens, sigma) =
        read_input(&mut input, shape).context(|| format!("read `{}`", args.input.display()))?;
    let choice = DeviceChoice::or_stated(args.device)?;
    let (device, _lock) = compute_on(choice, &Cancel::default(), terminal)?;
    let backbone = Backbone::Dit;
    let network = model::build(
        shape,
        backbone,
        device,
        Precision::F32,
        &checkpoint::read(&args.checkpoint, shape, backbone)?,
    )?;

    let (length, vocabulary) = (shape.length, shape.vocabulary);
    let tensors = [("logits".to_owned(), vec![rows, length, vocabulary])];
    let mut writer = Writer::create(&args.output, &tensors, &[])?;
    let at_a_time = (LOGITS_AT_A_TIME / (4 * length * vocabulary)).max(1);
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

/// Tensors of a file that are listed at most.
const LISTED: usize = 5;

/// The rows, their tokens and one sigma per row.
fn read_input(reader: &mut Reader, shape: &Shape) -> Result<(usize, Vec<u32>, Vec<f32>)> {
    let Some(info) = reader.info("xt") else {
        let mut names: Vec<_> = reader.names().iter().map(|name| format!("`{name}`")).collect();
        if names.len() > LISTED {
            let more = names.len() - LISTED;
            names.truncate(LISTED);
            names.push(format!("{more} more"));
        }
        return Err(Error::input("there is no tensor `xt`").hint(format!(
            "`xt` holds the noised tokens, [rows, L], as integers; the file has {}",
            if names.is_empty() {
                "no tensors".to_owned()
            } else {
                names.join(", ")
            }
        )));
    };
    let length = shape.length;
    let &[rows, columns] = &info.shape[..] else {
        return Err(Error::input(format!(
            "`xt` is {:?}, expected [rows, {length}]",
            info.shape
        )));
    };
    if columns != length {
        let fits: Vec<_> = SHAPES
            .iter()
            .filter(|shape| shape.length == columns)
            .map(|shape| shape.name)
            .collect();
        return Err(Error::input(format!(
            "`xt` is [{rows}, {columns}], expected [rows, {length}] for shape `{}`",
            shape.name
        ))
        .hint(if fits.is_empty() {
            format!("no compiled shape has rows of {columns} tokens")
        } else {
            format!("rows of {columns} tokens belong to: {}", fits.join(", "))
        }));
    }
    let mut integers = vec![0; rows * columns];
    reader.integers("xt", 0, &mut integers)?;
    let mut tokens = Vec::with_capacity(integers.len());
    for (i, &integer) in integers.iter().enumerate() {
        match u32::try_from(integer) {
            Ok(token) if (token as usize) < shape.vocabulary => tokens.push(token),
            _ => {
                return Err(Error::input(format!(
                    "`xt`[{}, {}] is {integer}: shape `{}` has tokens 0 to {}",
                    i / length,
                    i % length,
                    shape.name,
                    shape.vocabulary - 1
                )));
            }
        }
    }
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
