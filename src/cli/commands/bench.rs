//! `mdlm bench`: what training, evaluation and sampling cost on this machine.

use std::fmt::Write as _;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser};
use serde::Serialize;

use crate::cli::args::compute::{ComputeArgs, compute_on};
use crate::cli::render::progress::Display;
use crate::cli::render::style;
use crate::cli::render::table::paragraph;
use crate::cli::render::terminal::Terminal;
use crate::cli::signals::listen;
use mdlm::bench::{self, Measured, Options, Product};
use mdlm::error::{Error, Result};
use mdlm::event::Cancel;
use mdlm::kernels::cuda::driver::Timed;
use mdlm::manifest::Objective;
use mdlm::model::Device;
use mdlm::numbers;
use mdlm::plural::counted;
use mdlm::precision::Precision;
use mdlm::shapes::{SHAPES, Shape};
use mdlm::system;

/// What `mdlm bench --help` says first.
pub const LONG_ABOUT: &str = "\
    Measure training, evaluation and sampling on this machine.\n\n\
    Runs the work of a pipeline on random tokens, in rounds: a training step of a batch, an evaluation of a batch, the \
    sampling of a batch. Prints the median round with its quartiles, matrix products per second, peak memory, and how \
    the time is spent. Nothing is stored.";

/// Default rows of a round: a batch that a CPU trains in about a second, and a usual number of samples.
const ROWS: u32 = 32;
const SAMPLED_ROWS: u32 = 16;

/// Arguments of `mdlm bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mdlm bench --shape tiny --task train --seconds 30 --json")]
pub struct Args {
    /// The compiled shape (see `mdlm shapes`)
    #[arg(
        long,
        value_name = "NAME",
        default_value = "quickstart",
        value_parser = PossibleValuesParser::new(SHAPES.iter().map(|shape| shape.name)),
        hide_possible_values = true
    )]
    pub shape: String,
    /// What the model is trained for: a kind (see `mdlm objectives`), or an object as in a manifest
    #[arg(long, value_name = "OBJECTIVE", default_value = "mdlm")]
    pub objective: String,
    /// What to measure: train, evaluate, sample, recompute or products; repeatable
    ///
    /// recompute, for `--objective ar`, samples without keeping keys and values: `--task sample,recompute` shows what
    /// keeping them gains. products measures only the matrix products of a training step: an upper limit for the speed
    /// of training. Default: all but recompute.
    #[arg(long, value_name = "TASK", value_delimiter = ',', hide_possible_values = true)]
    pub task: Vec<TaskName>,
    /// Rows of a round; default: 32, and 16 for sampling
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub batch: Option<u32>,
    /// Rows that go through the network at a time; default: chosen to fit
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub micro_batch: Option<u32>,
    /// Reverse steps of sampling
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub steps: u32,
    /// Precision of products: f32, tf32 or bf16; see `train.precision`
    #[arg(long, value_name = "NAME", default_value = "f32", hide_possible_values = true)]
    pub precision: PrecisionName,
    /// Seconds to measure each task for, after a quarter of that to warm up
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Time a GPU's kernels one by one too, in separate rounds
    #[arg(long)]
    pub kernels: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,
    /// Where and how to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// A precision under the name that an argument gives it.
#[derive(Clone, Copy, Debug)]
pub struct PrecisionName(Precision);

impl ValueEnum for PrecisionName {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self(Precision::F32), Self(Precision::Tf32), Self(Precision::Bf16)]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self.0 {
            Precision::F32 => ("f32", "32-bit floats"),
            Precision::Tf32 => (
                "tf32",
                "Factors rounded to tf32 by a GPU; the same as f32 on a CPU",
            ),
            Precision::Bf16 => (
                "bf16",
                "bfloat16: factors rounded on a CPU, activations too on a GPU",
            ),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TaskName {
    /// Training steps.
    Train,
    /// Evaluations.
    Evaluate,
    /// Samples.
    Sample,
    /// Samples without kept keys and values.
    Recompute,
    /// Matrix products alone.
    Products,
}

/// What `--json` prints.
#[derive(Serialize)]
struct BenchReport<'a> {
    tasks: &'a [Measured],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    products: &'a [Product],
    /// Tokens per second of `sample` over those of `recompute`.
    #[serde(skip_serializing_if = "Option::is_none")]
    sample_over_recompute: Option<f64>,
}

/// Measures and prints.
///
/// # Errors
/// A micro-batch that does not divide the batch, out of memory, the interruption.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let shape = SHAPES
        .find(&args.shape)
        .ok_or_else(|| Error::input(format!("shape `{}` is not compiled", args.shape)))?;
    let all = [
        TaskName::Train,
        TaskName::Evaluate,
        TaskName::Sample,
        TaskName::Products,
    ];
    let time = Duration::from_secs(u64::from(args.seconds));
    let mut options = Options {
        shape,
        objective: Objective::from_argument(&args.objective)?,
        device: Device::Cpu,
        precision: args.precision.0,
        batch: args.batch.unwrap_or(ROWS),
        micro_batch: args.micro_batch,
        kernels: args.kernels,
        steps: args.steps,
        warmup: time / 4,
        time,
    };
    if let Some(rows) = options.micro_batch
        && (args.task.is_empty() || args.task.contains(&TaskName::Train))
        && !options.batch.is_multiple_of(rows)
    {
        return Err(Error::input(format!(
            "a micro-batch of {} does not divide a batch of {}",
            counted(rows, "row"),
            options.batch
        ))
        .hint("leave `--micro-batch` out: it is then chosen to fit"));
    }
    let cancel = Cancel::default();
    let display = Display::new(terminal);
    listen(&cancel, move |text| display.line(text))?;
    let (device, _lock) = compute_on(args.compute.device()?, &cancel, terminal)?;
    options.device = device;
    let wanted = match &args.task[..] {
        // Products alone are the CPU's.
        [] if device.is_gpu() => &all[..3],
        [] => &all,
        tasks if device.is_gpu() && tasks.contains(&TaskName::Products) => {
            return Err(
                Error::input("measure products alone on a GPU: this is possible on the CPU only")
                    .hint("use `--device cpu`, or leave `products` out"),
            );
        }
        tasks => tasks,
    };
    let (mut tasks, mut products) = (Vec::new(), Vec::new());
    args.compute.pool()?.install(|| {
        for task in wanted {
            let task = match task {
                TaskName::Train => bench::Task::Train,
                TaskName::Evaluate => bench::Task::Evaluate,
                TaskName::Sample => bench::Task::Sample,
                TaskName::Recompute => bench::Task::Recompute,
                TaskName::Products => {
                    products = bench::products(&options, &cancel)?;
                    continue;
                }
            };
            let batch = match task {
                bench::Task::Sample | bench::Task::Recompute => args.batch.unwrap_or(SAMPLED_ROWS),
                bench::Task::Train | bench::Task::Evaluate => options.batch,
            };
            tasks.push(bench::measure(task, &Options { batch, ..options }, &cancel)?);
        }
        Ok::<_, Error>(())
    })?;
    if args.json {
        terminal.output_json(&BenchReport {
            tasks: &tasks,
            products: &products,
            sample_over_recompute: gain(&tasks),
        })?;
    } else {
        terminal.output(&tables(
            shape,
            args.compute.threads()?,
            &tasks,
            &products,
            terminal,
        ))?;
    }
    Ok(0)
}

fn tables(
    shape: &Shape,
    threads: usize,
    tasks: &[Measured],
    products: &[Product],
    terminal: &Terminal,
) -> String {
    let heading = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let style = |row: usize, _: usize| {
        if row == 0 { style::STRONG } else { style::PLAIN }
    };
    let mut text = format!(
        "{}: V {}, L {}, D {}, H {}, N {}, C {}; {}\n",
        shape.name,
        shape.vocabulary,
        shape.length,
        shape.width,
        shape.heads,
        shape.blocks,
        shape.conditioning,
        counted(threads, "thread"),
    );
    if let Some(gpu) = tasks
        .iter()
        .map(|task| &*task.device)
        .find(|device| *device != system::described(Device::Cpu))
    {
        let _ = writeln!(text, "{}", paragraph(gpu));
    }
    if !tasks.is_empty() {
        let mut rows = vec![heading(&[
            "task",
            "rows",
            "tokens/s",
            "middle half",
            "GFLOP/s",
            "memory",
        ])];
        rows.extend(tasks.iter().map(|task| {
            let [low, high] = task.tokens_per_second_quartiles;
            vec![
                name(task.task).to_owned(),
                task.batch.to_string(),
                format!("{:.0}", task.tokens_per_second),
                format!("{low:.0} to {high:.0}"),
                task.gflops
                    .map_or_else(String::new, |gflops| format!("{gflops:.0}")),
                task.device_memory_bytes
                    .map(|bytes| bytes as u64)
                    .or(task.peak_memory_bytes)
                    .map_or_else(String::new, numbers::bytes),
            ]
        }));
        let _ = write!(text, "\n{}", terminal.table(&rows, style));
        if let Some(ratio) = gain(tasks) {
            let gain =
                format!("sampling with keys and values kept: {ratio:.1} times the tokens/s of recomputing");
            let _ = write!(text, "\n{}", paragraph(&gain));
        }
    }
    for task in tasks {
        let mut rows = vec![heading(&[name(task.task), "forward", "backward", "GFLOP/s"])];
        rows.extend(task.operations.iter().map(|operation| {
            let share = |share: f64| {
                if share > 0.0 {
                    format!("{:.1}%", 100.0 * share)
                } else {
                    String::new()
                }
            };
            vec![
                operation.operation.to_owned(),
                share(operation.forward),
                share(operation.backward),
                if operation.gflops > 0.0 {
                    format!("{:.0}", operation.gflops)
                } else {
                    String::new()
                },
            ]
        }));
        let _ = write!(text, "\n{}", terminal.table(&rows, style));
    }
    for task in tasks.iter().filter(|task| !task.kernels.is_empty()) {
        let _ = write!(text, "\n{}", terminal.table(&kernels(task), style));
    }
    if !products.is_empty() {
        let mut rows = vec![heading(&["matrix product alone", "m", "n", "k", "GFLOP/s"])];
        rows.extend(products.iter().map(|product| {
            vec![
                product.what.to_owned(),
                product.m.to_string(),
                product.n.to_string(),
                product.k.to_string(),
                format!("{:.0}", product.gflops),
            ]
        }));
        let _ = write!(text, "\n{}", terminal.table(&rows, style));
    }
    text
}

/// Tokens per second of sampling with keys and values kept, as a multiple of those without, where both were measured.
fn gain(tasks: &[Measured]) -> Option<f64> {
    let of = |wanted| {
        let task = tasks.iter().find(|task| task.task == wanted)?;
        Some(task.tokens_per_second)
    };
    Some(of(bench::Task::Sample)? / of(bench::Task::Recompute)?)
}

/// A GPU's kernels in a round, the longest first.
fn kernels(task: &Measured) -> Vec<Vec<String>> {
    let all: f64 = task.kernels.iter().map(|kernel| kernel.seconds).sum();
    let heading = format!("kernels of {}", name(task.task));
    let heading = vec![heading, "times".to_owned(), "ms".to_owned(), "share".to_owned()];
    let row = |kernel: &Timed| {
        vec![
            kernel.what.clone(),
            kernel.count.to_string(),
            format!("{:.3}", 1e3 * kernel.seconds),
            format!("{:.1}%", 100.0 * kernel.seconds / all),
        ]
    };
    std::iter::once(heading)
        .chain(task.kernels.iter().map(row))
        .collect()
}

fn name(task: bench::Task) -> &'static str {
    match task {
        bench::Task::Train => "train",
        bench::Task::Evaluate => "evaluate",
        bench::Task::Sample => "sample",
        bench::Task::Recompute => "recompute",
    }
}
