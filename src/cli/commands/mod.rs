//! The commands, a file or folder each.
//!
//! A command is a file with `Args` (a clap struct whose doc comments are the help text) and
//! `run(&Args, &Terminal) -> Result<u8>`, which returns the exit code. It also has a line in [`Command`] and in two
//! `match`es below it. Commands do not import each other: what two of them need lies in [`super::args`] or
//! [`super::render`].

use clap::{ColorChoice, Parser, Subcommand};

use super::args::transfer;
use super::render::terminal::Terminal;
use mdlm::error::Result;

pub mod bench;
pub mod checkpoint;
pub mod compare;
pub mod completions;
pub mod corpora;
pub mod data;
pub mod doctor;
pub mod downloads;
pub mod explain;
pub mod export;
pub mod gc;
pub mod graph;
pub mod init;
pub mod logits;
pub mod objectives;
pub mod path;
pub mod plan;
pub mod pull;
pub mod push;
pub mod report;
pub mod run;
pub mod sample;
pub mod schema;
pub mod shapes;
pub mod show;
pub mod status;
pub mod table;
pub mod tokenizers;
pub mod validate;
pub mod variance;
pub mod verify;

/// What `mdlm --help` says first.
const LONG_ABOUT: &str = "\
    Masked diffusion language models (arXiv 2406.07524) from a JSON manifest: raw text to a trained, evaluated and \
    sampled model, rerunning only what changed.\n\n\
    A manifest names stages (source, tokenize, pack, train, checkpoint, evaluate, sample, judge, compare, table) and what each \
    consumes. `mdlm run` runs the stages and keeps their results in `.mdlm` beside the project; a later run reuses \
    every result that a change does not affect, and says why each other stage runs.\n\n\
    Data goes to standard output, messages to standard error.";

/// Masked diffusion language models from a JSON manifest: raw text to a trained, evaluated and sampled model,
/// rerunning only what changed.
#[derive(Debug, Parser)]
#[command(
    name = "mdlm",
    version,
    long_about = LONG_ABOUT,
    max_term_width = 80,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 2 the input is at fault, 3 the environment is at fault, 1 a bug in mdlm, 130 \
         interrupted (128 and the number of the signal).\n\
                  `mdlm help COMMAND` describes a command."
)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Print errors only
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// When to colour: auto, always or never; auto respects `NO_COLOR`
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        hide_default_value = true,
        help_heading = "Global options"
    )]
    pub color: ColorChoice,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a first manifest for your own text
    #[command(long_about = init::LONG_ABOUT)]
    Init(init::Args),
    /// Make a pipeline's results, rerunning only what changed
    #[command(long_about = run::LONG_ABOUT)]
    Run(run::Args),
    /// Show what a run would do, and why
    #[command(long_about = plan::LONG_ABOUT)]
    Plan(plan::Args),
    /// Check manifests and list all their faults
    #[command(long_about = validate::LONG_ABOUT)]
    Validate(validate::Args),
    /// Print the JSON Schema of manifests, or check a copy of it
    #[command(long_about = schema::LONG_ABOUT)]
    Schema(schema::Args),
    /// List the compiled shapes, their parameters and memory
    #[command(long_about = shapes::LONG_ABOUT)]
    Shapes(shapes::Args),
    /// List the objectives, what fits them and what they cost
    #[command(long_about = objectives::LONG_ABOUT)]
    Objectives(objectives::Args),
    /// List the corpora that manifests may name
    #[command(long_about = corpora::LONG_ABOUT)]
    Corpora(corpora::Args),
    /// List the tokenizers that manifests may name
    #[command(long_about = tokenizers::LONG_ABOUT)]
    Tokenizers(tokenizers::Args),
    /// List downloads, or forget some of them
    #[command(long_about = downloads::LONG_ABOUT)]
    Downloads(downloads::Args),
    /// Upload results to a shared cache
    #[command(long_about = push::LONG_ABOUT)]
    Push(transfer::Args),
    /// Fetch results from a shared cache
    #[command(long_about = pull::LONG_ABOUT, after_help = "Example: mdlm pull pipelines/lm1b.json --remote \
         s3://team/mdlm")]
    Pull(transfer::Args),
    /// Show what a checkpoint holds, and which shape fits it
    #[command(long_about = checkpoint::LONG_ABOUT)]
    Checkpoint(checkpoint::Args),
    /// Compute a checkpoint's logits, to compare implementations
    #[command(long_about = logits::LONG_ABOUT)]
    Logits(logits::Args),
    /// Draw texts from a trained model
    #[command(long_about = sample::LONG_ABOUT)]
    Sample(Box<sample::Args>),
    /// Write a model for `transformers` or PyTorch Lightning
    #[command(long_about = export::LONG_ABOUT)]
    Export(export::Args),
    /// Print the folder of a stage's results
    #[command(long_about = path::LONG_ABOUT)]
    Path(path::Args),
    /// Show a stage's results and how they were made
    #[command(long_about = show::LONG_ABOUT)]
    Show(show::Args),
    /// Show records, tokens or rows of a stage
    #[command(long_about = data::LONG_ABOUT)]
    Data(data::Args),
    /// Compare results: the instances of a sweep, runs, manifests
    #[command(long_about = compare::LONG_ABOUT)]
    Compare(compare::Args),
    /// Show the tables of results beside published figures
    #[command(long_about = table::LONG_ABOUT)]
    Table(table::Args),
    /// Explain a stage's cache key and the history of its runs
    #[command(long_about = explain::LONG_ABOUT)]
    Explain(explain::Args),
    /// Show what the store holds, and how much can be deleted
    #[command(long_about = status::LONG_ABOUT)]
    Status(status::Args),
    /// Delete artifacts that no manifest or recent run refers to
    #[command(long_about = gc::LONG_ABOUT)]
    Gc(gc::Args),
    /// Hash the store's artifacts and quarantine corrupt ones
    #[command(long_about = verify::LONG_ABOUT)]
    Verify(verify::Args),
    /// Draw the graph of stages
    #[command(long_about = graph::LONG_ABOUT)]
    Graph(graph::Args),
    /// Write the results as one HTML file
    #[command(long_about = report::LONG_ABOUT)]
    Report(report::Args),
    /// Show what this machine offers, and how mdlm uses it
    #[command(long_about = doctor::LONG_ABOUT)]
    Doctor(doctor::Args),
    /// Measure training, evaluation and sampling on this machine
    #[command(long_about = bench::LONG_ABOUT)]
    Bench(bench::Args),
    /// Measure the variance of the training loss by its times
    #[command(long_about = variance::LONG_ABOUT)]
    Variance(variance::Args),
    /// Print a completion script for a shell
    #[command(long_about = completions::LONG_ABOUT)]
    Completions(completions::Args),
}

impl Command {
    /// What the command does, as it reads after "failed to".
    pub(super) fn doing(&self) -> String {
        match self {
            Self::Init(_) => "write a manifest".to_owned(),
            Self::Run(args) => format!("run `{}`", args.project.manifest.display()),
            Self::Plan(args) => format!("plan `{}`", args.project.manifest.display()),
            Self::Path(args) => format!("find the results of stage `{}`", args.stage),
            Self::Show(args) => format!("show the results of stage `{}`", args.stage),
            Self::Data(args) => format!("show the data of stage `{}`", args.stage),
            Self::Compare(_) => "compare results".to_owned(),
            Self::Table(_) => "show the tables".to_owned(),
            Self::Explain(args) => format!("explain stage `{}`", args.stage),
            Self::Status(_) => "show what the store holds".to_owned(),
            Self::Gc(_) => "delete unused artifacts".to_owned(),
            Self::Verify(args) => match &args.lineage {
                Some(stage) => format!("verify the history of stage `{stage}`"),
                None => "verify the store".to_owned(),
            },
            Self::Graph(_) => "draw the graph".to_owned(),
            Self::Report(_) => "write the report".to_owned(),
            Self::Validate(_) => "validate".to_owned(),
            Self::Schema(args) => if args.check.is_some() {
                "check the schema"
            } else {
                "print the schema"
            }
            .to_owned(),
            Self::Shapes(_) => "list the shapes".to_owned(),
            Self::Objectives(_) => "list the objectives".to_owned(),
            Self::Corpora(_) => "list the corpora".to_owned(),
            Self::Tokenizers(_) => "list the tokenizers".to_owned(),
            Self::Downloads(args) => if args.forget.is_some() {
                "forget downloads"
            } else {
                "list the downloads"
            }
            .to_owned(),
            Self::Push(_) => "push".to_owned(),
            Self::Pull(_) => "pull".to_owned(),
            Self::Checkpoint(args) => format!("show the checkpoint `{}`", args.file.display()),
            Self::Logits(_) => "compute logits".to_owned(),
            Self::Sample(args) => format!("sample `{}`", args.model.display()),
            Self::Export(args) => format!("export stage `{}`", args.stage),
            Self::Doctor(_) => "examine this machine".to_owned(),
            Self::Bench(_) => "measure".to_owned(),
            Self::Variance(_) => "measure the variance of the training loss".to_owned(),
            Self::Completions(_) => "print completions".to_owned(),
        }
    }

    /// Whether another store is of no help to the command: it changes the one that is there.
    pub(super) fn changes_store(&self) -> bool {
        matches!(self, Self::Gc(_) | Self::Verify(_) | Self::Downloads(_))
    }

    /// The hint where the system refuses to read or to write and the error has none.
    pub(super) fn denied(&self, is_read_only: bool) -> &'static str {
        match (self, is_read_only) {
            (Self::Run(_) | Self::Pull(_), true) => {
                "keep results in a writable folder with `--store DIR`; existing results can still be read"
            }
            (Self::Run(_) | Self::Pull(_), false) => {
                "give this user write permission, or keep results elsewhere with `--store DIR`"
            }
            (_, true) => "mount its file system for writing, or name a writable path",
            (_, false) => "give this user the permission",
        }
    }

    /// Runs the command, and returns the exit code.
    ///
    /// # Errors
    /// The errors of the command.
    pub(super) fn run(&self, terminal: &Terminal) -> Result<u8> {
        match self {
            Self::Init(args) => init::run(args, terminal),
            Self::Run(args) => run::run(args, terminal),
            Self::Plan(args) => plan::run(args, terminal),
            Self::Path(args) => path::run(args, terminal),
            Self::Show(args) => show::run(args, terminal),
            Self::Data(args) => data::run(args, terminal),
            Self::Compare(args) => compare::run(args, terminal),
            Self::Table(args) => table::run(args, terminal),
            Self::Explain(args) => explain::run(args, terminal),
            Self::Status(args) => status::run(args, terminal),
            Self::Gc(args) => gc::run(args, terminal),
            Self::Verify(args) => verify::run(args, terminal),
            Self::Graph(args) => graph::run(args, terminal),
            Self::Report(args) => report::run(args, terminal),
            Self::Validate(args) => validate::run(args, terminal),
            Self::Schema(args) => schema::run(args, terminal),
            Self::Shapes(args) => shapes::run(args, terminal),
            Self::Objectives(args) => objectives::run(args, terminal),
            Self::Corpora(args) => corpora::run(args, terminal),
            Self::Tokenizers(args) => tokenizers::run(args, terminal),
            Self::Downloads(args) => downloads::run(args, terminal),
            Self::Push(args) => push::run(args, terminal),
            Self::Pull(args) => pull::run(args, terminal),
            Self::Checkpoint(args) => checkpoint::run(args, terminal),
            Self::Logits(args) => logits::run(args, terminal),
            Self::Sample(args) => sample::run(args, terminal),
            Self::Export(args) => export::run(args, terminal),
            Self::Doctor(args) => doctor::run(args, terminal),
            Self::Bench(args) => bench::run(args, terminal),
            Self::Variance(args) => variance::run(args, terminal),
            Self::Completions(args) => completions::run(args, terminal),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn clap_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Short helps are what `mdlm --help` lists: a line each at 80 columns.
    #[test]
    fn help_documents_every_command_and_option() {
        for command in Cli::command().get_subcommands() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(
                !about.is_empty() && about.len() <= 62,
                "{}: {about:?}",
                command.get_name()
            );
            for argument in command.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
        }
    }
}
