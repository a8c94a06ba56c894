//! `mdlm shapes`: the compiled shapes, with what they cost.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde::Serialize;

use crate::cli::render::terminal::Terminal;
use mdlm::error::Result;
use mdlm::kernels::cuda::driver::DType;
use mdlm::model::footprint::{Footprint, Workload};
use mdlm::model::{cuda_memory, cuda_network};
use mdlm::numbers::{abbreviated, binary_bytes};
use mdlm::plural::counted;
use mdlm::shapes::{Answered, Backbone, SHAPES};

/// What `mdlm shapes --help` says.
pub const LONG_ABOUT: &str = "List the compiled shapes, their parameters and memory.\n\n\
    V vocabulary with the mask, L tokens a row, D width, H heads, N blocks, C conditioning width. \
    `training` is what training holds whatever the batch: weights, gradients, two moments and the \
    moving average, all f32. `+ a row` is what each row of a micro-batch adds: the activations that \
    the backward pass needs, half of the tokens masked.\n\n\
    With `--device cuda`: what a GPU holds in training, weights, moments and activations, for \
    micro-batches of some sizes, all of their tokens masked: the last micro-batch of a large batch comes \
    near it. It is the plan that training itself makes; no GPU is needed.";

/// Rows of the micro-batches whose memory on a GPU is listed.
const ROWS: [usize; 4] = [1, 8, 64, 512];

/// Arguments of `mdlm shapes`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mdlm shapes --device cuda --precision bf16")]
pub struct Args {
    /// Print JSON, in bytes, instead of the table
    #[arg(long)]
    pub json: bool,
    /// Device of training: cpu or cuda
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub device: Where,
    /// Data type of activations and matrix products on a GPU: bf16 or f32
    #[arg(long, value_name = "PRECISION", default_value = "bf16", requires = "device")]
    pub precision: ActivationPrecision,
}

/// Where training is to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Where {
    /// The CPU.
    Cpu,
    /// A GPU.
    Cuda,
}

/// What activations on a GPU are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ActivationPrecision {
    /// bfloat16.
    Bf16,
    /// 32-bit floats; tf32 needs as much.
    F32,
}

#[derive(Serialize)]
struct ShapeRow {
    name: &'static str,
    vocabulary: usize,
    length: usize,
    width: usize,
    heads: usize,
    blocks: usize,
    conditioning: usize,
    parameters: usize,
    training_bytes: usize,
    training_bytes_per_row: usize,
}

#[derive(Serialize)]
struct OnDevice {
    name: &'static str,
    precision: &'static str,
    micro_batch: usize,
    /// Weights, gradients, moments and averages.
    kept_bytes: usize,
    /// What the host fills.
    feed_bytes: usize,
    /// Activations and their gradients.
    arena_bytes: usize,
    total_bytes: usize,
}

/// Prints the table to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    if args.device == Where::Cuda {
        return on_device(args, terminal);
    }
    let lines = SHAPES.iter().map(|shape| {
        let footprint = Footprint::of(shape, Backbone::Dit, Answered::Masked);
        ShapeRow {
            name: shape.name,
            vocabulary: shape.vocabulary,
            length: shape.length,
            width: shape.width,
            heads: shape.heads,
            blocks: shape.blocks,
            conditioning: shape.conditioning,
            parameters: footprint.parameters,
            training_bytes: footprint.training,
            training_bytes_per_row: footprint.training_per_row,
        }
    });
    if args.json {
        terminal.output_json(&lines.collect::<Vec<_>>())?;
        return Ok(0);
    }
    let row = |columns: [String; 10]| {
        let [name, v, l, d, h, n, c, parameters, training, per_row] = columns;
        format!("{name:<12}{v:>7}{l:>6}{d:>6}{h:>4}{n:>4}{c:>5}{parameters:>12}{training:>11}{per_row:>12}\n")
    };
    let heading = [
        "shape",
        "V",
        "L",
        "D",
        "H",
        "N",
        "C",
        "parameters",
        "training",
        "+ a row",
    ];
    let rows = lines.map(|line| {
        let own = [
            line.vocabulary,
            line.length,
            line.width,
            line.heads,
            line.blocks,
            line.conditioning,
        ];
        let [v, l, d, h, n, c] = own.map(|dimension| dimension.to_string());
        let memory = [line.training_bytes, line.training_bytes_per_row].map(binary_bytes);
        let [training, per_row] = memory;
        row([
            line.name.to_owned(),
            v,
            l,
            d,
            h,
            n,
            c,
            abbreviated(line.parameters),
            training,
            per_row,
        ])
    });
    let table: String = std::iter::once(row(heading.map(str::to_owned)))
        .chain(rows)
        .collect();
    terminal.output(&table)?;
    Ok(0)
}

/// What training takes of a GPU's memory.
fn on_device(args: &Args, terminal: &Terminal) -> Result<u8> {
    let (element, precision) = match args.precision {
        ActivationPrecision::Bf16 => (DType::Bf16, "bf16"),
        ActivationPrecision::F32 => (DType::F32, "f32"),
    };
    let mut lines = Vec::new();
    for shape in SHAPES.iter().filter(|shape| cuda_network::takes(shape)) {
        for micro_batch in ROWS {
            let taken = cuda_memory::memory(
                shape,
                Backbone::Dit,
                Workload::default(),
                element,
                micro_batch,
                None,
            )?;
            lines.push(OnDevice {
                name: shape.name,
                precision,
                micro_batch,
                kept_bytes: taken.kept,
                feed_bytes: taken.feed,
                arena_bytes: taken.arena,
                total_bytes: taken.total(),
            });
        }
    }
    if args.json {
        terminal.output_json(&lines)?;
        return Ok(0);
    }
    let mut table = format!(
        "{:<12}{:>11}   in all, for a micro-batch of\n{:<12}{:>11}",
        precision, "weights and", "shape", "moments"
    );
    for rows in ROWS {
        let heading = counted(rows, "row");
        let _ = write!(table, "{heading:>12}");
    }
    for lines in lines.chunks(ROWS.len()) {
        let _ = write!(
            table,
            "\n{:<12}{:>11}",
            lines[0].name,
            binary_bytes(lines[0].kept_bytes)
        );
        for line in lines {
            let _ = write!(table, "{:>12}", binary_bytes(line.total_bytes));
        }
    }
    table += "\n";
    terminal.output(&table)?;
    Ok(0)
}
