//! `mdlm sample`: texts from a trained model, without a manifest's sample stage.

mod model;
mod printed;
mod settings;
mod steps;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::PossibleValuesParser;
use serde_json::Value;

use crate::cli::args::compute::{ComputeArgs, compute_on};
use crate::cli::render::progress::Display;
use crate::cli::render::terminal::Terminal;
use crate::cli::signals::listen;
use mdlm::error::{Error, Result};
use mdlm::event::{Cancel, Event, Sink as _};
use mdlm::manifest::{EndOfText, Objective, Sample, Sampler};
use mdlm::sample::semi_autoregressive::TextWindow;
use mdlm::shapes::SHAPES;
use mdlm::stages::draw::{self, Drawing, DrawnStep, Texts, Watch};
use mdlm::stages::given::{self, GivenRows};
use model::FoundModel;
use printed::{TextLine, TextStream, TokenSpelling, shown};
use steps::StepView;

/// What `mdlm sample --help` says first.
pub const LONG_ABOUT: &str = "\
    Draw texts from a trained model, without a manifest's sample stage.\n\n\
    MODEL is a stage of a manifest that has run (`pipelines/quickstart.json#model`, or `model@seed=1` of a sweep), the folder \
    of a model's results (`mdlm path` prints it), or a checkpoint of this or another program: a file or folder that `mdlm \
    checkpoint` reads. A checkpoint without tokenizer, objective or shape takes them from `--tokenizer`, `--objective` and \
    `--shape`.\n\n\
    The options are the settings of a sample stage, with their defaults and checks (see schemas/README.md): the same \
    settings and seed draw the same texts. Texts go to standard output, with an empty line after each if there are several. \
    One that is longer than a row is printed window by window.";

/// What it says last.
const EXAMPLES: &str = "\
Examples:
  mdlm sample pipelines/quickstart.json#model --prompt \"The fox\" --count 3
  mdlm sample mdlm-owt/ --tokenizer gpt2/ --length 4096 --show-steps
  mdlm sample model.ckpt --objective mdlm --tokens --json
  mdlm sample pipelines/quickstart.json#model --infill \"The⟨…⟩ of⟨4⟩ is\"";

/// Arguments of `mdlm sample`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    /// The model: MANIFEST#STAGE, a folder of results, or a checkpoint
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Text at the beginning
    #[arg(long, value_name = "TEXT", help_heading = "Given text")]
    pub prompt: Option<String>,
    /// Text at the end
    #[arg(long, value_name = "TEXT", help_heading = "Given text")]
    pub suffix: Option<String>,
    /// Text with holes: "The⟨…⟩ of⟨4⟩ is"
    ///
    /// ⟨4⟩ is a hole of 4 tokens, and ⟨…⟩ one that fills the row; ⟨⟨ is the character itself. A prompt and a suffix stand before
    /// and after it. A keyboard without these brackets: copy them from here, or use `--prompt` and `--suffix`, between which all
    /// is drawn.
    #[arg(long, value_name = "TEMPLATE", help_heading = "Given text")]
    pub infill: Option<String>,
    /// File of many: a JSON object on each line
    ///
    /// Each has `prompt`, `suffix` or `template`, or tokens: `prompt_tokens`, `suffix_tokens`, `template_tokens`.
    #[arg(long, value_name = "FILE", help_heading = "Given text")]
    pub given: Option<PathBuf>,
    /// Start with the tokens that begin and end a row in place
    #[arg(long, help_heading = "Given text")]
    pub given_ends: bool,
    /// Number of texts; of each line of `--given`
    #[arg(long, value_name = "N", default_value = "1", value_parser = settings::number)]
    pub count: Value,
    /// How texts are drawn: a kind, or an object as in a manifest
    ///
    /// `mdlm objectives KIND` lists the samplers of a model's objective. Default: the first of them.
    #[arg(long, value_name = "SAMPLER", help_heading = "Sampling")]
    pub sampler: Option<String>,
    /// Number of steps
    #[arg(long, value_name = "N", value_parser = settings::number, allow_negative_numbers = true, help_heading = "Sampling")]
    pub steps: Option<Value>,
    /// Number of tokens of a text; default: those of a row
    ///
    /// A longer text is drawn in windows of a row, each of which keeps half of the one before; a shorter one is cut.
    #[arg(long, value_name = "N", value_parser = settings::number, allow_negative_numbers = true, help_heading = "Sampling")]
    pub length: Option<Value>,
    /// Divide the logits by this number; 0: the likeliest tokens
    #[arg(long, value_name = "NUMBER", value_parser = settings::number, allow_negative_numbers = true, help_heading = "Sampling")]
    pub temperature: Option<Value>,
    /// Draw from the N likeliest tokens
    #[arg(long, value_name = "N", value_parser = settings::number, allow_negative_numbers = true, help_heading = "Sampling")]
    pub top_k: Option<Value>,
    /// Draw from the likeliest tokens that have this probability together
    #[arg(long, value_name = "NUMBER", value_parser = settings::number, allow_negative_numbers = true, help_heading = "Sampling")]
    pub top_p: Option<Value>,
    /// Draw from tokens with this share of the likeliest one's probability
    #[arg(long, value_name = "NUMBER", value_parser = settings::number, allow_negative_numbers = true, help_heading = "Sampling")]
    pub min_p: Option<Value>,
    /// Above 1, make tokens of the row less likely
    #[arg(long, value_name = "NUMBER", value_parser = settings::number, allow_negative_numbers = true, help_heading = "Sampling")]
    pub repetition_penalty: Option<Value>,
    /// Strength of guidance by the given text
    #[arg(
        long,
        value_name = "NUMBER",
        value_parser = settings::number,
        allow_negative_numbers = true,
        help_heading = "Sampling"
    )]
    pub guidance: Option<Value>,
    /// When a text ends: drawn, never or last
    #[arg(long, value_name = "WHEN", help_heading = "Sampling")]
    pub end_of_text: Option<String>,
    /// Seed of the random draws
    ///
    /// The same command draws the same texts: another seed draws others.
    #[arg(long, value_name = "N", default_value = "0", value_parser = settings::number, allow_negative_numbers = true, help_heading = "Sampling")]
    pub seed: Value,
    /// Weights: ema or raw; default: the average if there is one
    #[arg(long, value_name = "WEIGHTS", help_heading = "Model")]
    pub weights: Option<String>,
    /// The tokenizer of a checkpoint: a tokenizer.json or its folder
    ///
    /// Default: `tokenizer.json` beside the weights.
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    pub tokenizer: Option<PathBuf>,
    /// The objective of a checkpoint that does not state it
    ///
    /// A kind (see `mdlm objectives`), or an object as in a manifest.
    #[arg(long, value_name = "OBJECTIVE", help_heading = "Model")]
    pub objective: Option<String>,
    /// The shape of a checkpoint that several fit
    #[arg(
        long,
        value_name = "NAME",
        value_parser = PossibleValuesParser::new(SHAPES.iter().map(|shape| shape.name)),
        hide_possible_values = true,
        help_heading = "Model"
    )]
    pub shape: Option<String>,
    /// Set a field of the manifest: stages.model.steps=200
    #[arg(long, value_name = "PATH=VALUE", help_heading = "Model")]
    pub set: Vec<String>,
    /// Folder of results, instead of `.mdlm` beside the project
    ///
    /// Environment variable: MDLM_STORE.
    #[arg(long, value_name = "DIR", help_heading = "Model")]
    pub store: Option<PathBuf>,
    /// Show how the first text becomes visible, step by step
    ///
    /// In a terminal it is redrawn in place; else each step is a line.
    #[arg(long, conflicts_with = "json")]
    pub show_steps: bool,
    /// Print JSON lines: text, tokens, network calls, seed, sampler
    #[arg(long)]
    pub json: bool,
    /// Print tokens instead of text
    #[arg(long)]
    pub tokens: bool,
    /// Where and how to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// The name under which progress is shown.
const NAME: &str = "texts";

/// Draws texts and prints them.
///
/// # Errors
/// There is no such model, a setting is refused, the device fails, standard output cannot be written; the interruption.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let mut found = match FoundModel::of(args, terminal)? {
        Ok(found) => found,
        Err(code) => return Ok(code),
    };
    let settings = settings::of(args, &found.info)?;
    if found.tokenizer.is_none() {
        check_tokens_alone(args, &settings, &found.info.objective)?;
    }
    let given = match (&settings.given, &found.tokenizer) {
        (Some(given), Some(tokenizer)) => {
            let rows = given::rows(given, Path::new(""), &found.info, tokenizer);
            rows.map_err(|error| match settings::given_by(args) {
                Some(option) => error.context(option),
                // It names the file and the line.
                None => error,
            })?
        }
        _ => GivenRows::default(),
    };
    let count = given.count(settings.count)?;
    let weights = found.read(args.weights.is_some().then_some(settings.weights))?;

    let cancel = Cancel::default();
    let display = Arc::new(Display::new(terminal));
    listen(&cancel, display.printer())?;
    let (device, _lock) = compute_on(args.compute.device()?, &cancel, terminal)?;
    let FoundModel { info, tokenizer, .. } = &found;
    let spelling = TokenSpelling {
        tokenizer: tokenizer.as_ref().filter(|_| !args.tokens),
        special: info.special,
    };
    let seed = settings.seed.unwrap_or_default();
    let sampler = draw::sampler(&settings, info);
    let length = info.length as usize;
    let (stride, ends_early) = match sampler {
        Sampler::SemiAutoregressive(windows) => {
            let stride = windows.stride.unwrap_or(info.length.div_ceil(2));
            (stride as usize, windows.until.is_some())
        }
        _ => (length, false),
    };
    let mut watch = Printer {
        terminal,
        display: &display,
        cancel: &cancel,
        spelling,
        count,
        length,
        // A bar and a text on the same terminal would mix.
        has_bar: terminal.is_live() && !(args.show_steps && terminal.is_output_live()),
        view: args
            .show_steps
            .then(|| StepView::new(terminal, spelling, info.vocabulary, length - stride, ends_early)),
        stream: (!args.json && !args.show_steps).then(TextStream::default),
        is_closed: false,
    };
    let drawn = args.compute.pool()?.install(|| {
        let network = weights.network(info, device)?;
        drop(weights);
        let drawing = Drawing {
            model: info,
            network: &*network,
            settings: &settings,
            given: &given,
            seed,
            device,
            recorded: usize::from(args.show_steps),
        };
        if watch.has_bar {
            display.begin(NAME);
        }
        draw::draw(&drawing, &cancel, &mut watch)
    });
    display.clear();
    if watch.is_closed {
        return Ok(0);
    }
    let texts = drawn?;
    if let Some(view) = &mut watch.view {
        view.clear()?;
    }
    print(args, &texts, seed, &given, &mut watch)?;
    Ok(0)
}

/// Refuses what takes a tokenizer, where there is none.
fn check_tokens_alone(args: &Args, settings: &Sample, objective: &Objective) -> Result<()> {
    let ends = match settings.sampler {
        Some(Sampler::SemiAutoregressive(windows)) => windows.until.is_some(),
        _ => false,
    };
    let needs = [
        ("`--prompt`", args.prompt.is_some()),
        ("`--suffix`", args.suffix.is_some()),
        ("`--infill`", args.infill.is_some()),
        ("`--given`", args.given.is_some()),
        ("`--given-ends`", args.given_ends),
        ("`--end-of-text`", settings.end_of_text != EndOfText::Drawn),
        ("`until` of the sampler", ends),
        ("a model of `ar`", matches!(objective, Objective::Ar(_))),
    ];
    match needs.into_iter().find(|(_, is_stated)| *is_stated) {
        Some((what, _)) => Err(Error::input(format!("{what} needs the model's tokenizer"))
            .hint("name it with `--tokenizer FILE`: a `tokenizer.json` or its folder")),
        None => Ok(()),
    }
}

/// Prints what comes while texts are drawn.
struct Printer<'a> {
    terminal: &'a Terminal,
    display: &'a Display,
    cancel: &'a Cancel,
    spelling: TokenSpelling<'a>,
    count: u32,
    /// L.
    length: usize,
    /// Whether a bar shows how far the drawing is.
    has_bar: bool,
    /// Shows the steps.
    view: Option<StepView<'a>>,
    /// The first text, where it is printed as it comes.
    stream: Option<TextStream>,
    /// Whether the reader of standard output has left.
    is_closed: bool,
}

impl Printer<'_> {
    /// Ends the drawing where its reader has left.
    fn go_on_if(&mut self, is_read: bool) {
        if !is_read {
            self.is_closed = true;
            self.cancel.cancel();
        }
    }
}

impl Watch for Printer<'_> {
    fn step(&mut self, step: &DrawnStep<'_>) -> Result<()> {
        if self.has_bar {
            self.display
                .emit(NAME, Event::Progress(step.progress(self.count)));
        }
        // What an interruption says stands below the text as it was.
        if let Some(view) = &mut self.view
            && !self.cancel.is_cancelled()
        {
            let is_read = view.step(step, self.length)?;
            self.go_on_if(is_read);
        }
        Ok(())
    }

    fn window(&mut self, window: TextWindow<'_>) -> Result<()> {
        if window.row > 0 || self.is_closed {
            return Ok(());
        }
        if let Some(view) = &mut self.view {
            view.window(window.tokens);
        }
        if let Some(stream) = &mut self.stream {
            let text = stream.push(window.tokens, self.spelling)?;
            if text.is_empty() {
                return Ok(());
            }
            if self.has_bar && self.terminal.is_output_live() {
                self.display.clear();
                self.has_bar = false;
            }
            let is_read = self.terminal.output_while_read(&shown(&text, self.terminal))?;
            self.go_on_if(is_read);
        }
        Ok(())
    }
}

/// Prints the texts, of the first one what is not printed yet.
fn print(args: &Args, texts: &Texts, seed: u64, given: &GivenRows, printer: &mut Printer<'_>) -> Result<()> {
    let (terminal, spelling) = (printer.terminal, printer.spelling);
    for (index, row) in texts.rows.iter().enumerate() {
        let text = if args.json {
            let line = TextLine {
                text: match spelling.tokenizer {
                    Some(_) => Some(spelling.whole(row)?),
                    None => None,
                },
                tokens: row,
                network_calls: texts.network_calls[index],
                steps: texts.steps,
                seed,
                sampler: texts.sampler,
                given: given.number_of(index, printer.count),
            };
            line.json()?
        } else {
            let whole = spelling.whole(row)?;
            let rest = match &mut printer.stream {
                Some(stream) if index == 0 => stream.finish(&whole),
                _ => whole,
            };
            let end = if texts.rows.len() > 1 { "\n\n" } else { "\n" };
            shown(&rest, terminal) + end
        };
        if !terminal.output_while_read(&text)? {
            break;
        }
    }
    Ok(())
}
