//! `mdlm data`: a look at the records, tokens or rows of a stage.

use arrow::array::Array as _;
use serde::Serialize;

use crate::cli::args::project::ProjectArgs;
use crate::cli::args::stage::find;
use crate::cli::render::style;
use crate::cli::render::terminal::Terminal;
use mdlm::data::records::Records;
use mdlm::data::rows::Rows;
use mdlm::data::tokenizer::Tokenizer;
use mdlm::data::tokens::TokenFiles;
use mdlm::data::{SpecialIds, split_name};
use mdlm::error::{Error, Result};
use mdlm::manifest::{Split, StageKind};
use mdlm::numbers::count;
use mdlm::plural;

/// What `mdlm data --help` says first.
pub const LONG_ABOUT: &str = "\
    Show the output of a source, tokenize or pack stage: the texts of records, their tokens, or rows with their special \
    tokens.\n\n\
    Fails if the stage has not run with its present settings and inputs.";

/// Characters of a record or row that are shown unless `--whole` is given.
const SHOWN_CHARACTERS: usize = 800;

/// Arguments of `mdlm data`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest and its store.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// The stage
    #[arg(value_name = "STAGE")]
    pub stage: String,
    /// Number of records or rows to show
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub head: u64,
    /// Number of records or rows to skip before the first one shown
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub skip: u64,
    /// Split of a pack stage: train or validation; default: the first that has rows
    #[arg(long, value_name = "SPLIT", value_parser = split_of)]
    pub split: Option<Split>,
    /// Show long records and rows in full
    #[arg(long)]
    pub whole: bool,
    /// Print JSON lines: index, text, and tokens if the stage has them
    #[arg(long)]
    pub json: bool,
}

fn split_of(text: &str) -> std::result::Result<Split, String> {
    [Split::Train, Split::Validation]
        .into_iter()
        .find(|split| split_name(*split) == text)
        .ok_or_else(|| "expected `train` or `validation`".to_owned())
}

/// One record, its tokens, or a row.
#[derive(Serialize)]
struct Item {
    /// Number from 0.
    index: u64,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Vec<u32>>,
    /// Tokens that count in losses, of a row with padding or context.
    #[serde(skip_serializing_if = "Option::is_none")]
    counted: Option<usize>,
    /// Tokens before those, which a model is given, of a row with context.
    #[serde(skip_serializing_if = "Option::is_none")]
    given: Option<usize>,
    /// The text in pieces, each with whether it is a special token.
    #[serde(skip)]
    pieces: Vec<(bool, String)>,
}

/// Shows some.
///
/// # Errors
/// The stage has not run with its present settings and inputs, is of another kind, or its files are damaged.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let project = match args.project.open(terminal) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    let record = find(&project, &args.stage)?;
    let artifact = project.store.artifact_path(&record.artifact);
    let wanted = args.skip..args.skip.saturating_add(args.head);
    let kind = project
        .loaded
        .manifest
        .stages
        .get(&args.stage)
        .map(mdlm::manifest::Stage::kind);
    if args.split.is_some() && kind != Some(StageKind::Pack) {
        return Err(
            Error::input(format!("`{}` has no splits", args.stage)).hint("`--split` is for pack stages")
        );
    }
    let (items, what, total) = match kind {
        Some(StageKind::Source) => {
            let records = Records::open(&artifact)?;
            (source(&records, &wanted)?, "record", records.info().records)
        }
        Some(StageKind::Tokenize) => {
            let tokens = TokenFiles::open(&artifact)?;
            let tokenizer = Tokenizer::open(&artifact)?;
            (
                tokenized(&tokens, &tokenizer, &wanted)?,
                "record",
                tokens.info().records,
            )
        }
        Some(StageKind::Pack) => {
            let train = Rows::open(&artifact, args.split.unwrap_or(Split::Train))?;
            let rows = if args.split.is_none() && train.is_empty() {
                Rows::open(&artifact, Split::Validation)?
            } else {
                train
            };
            let tokenizer = Tokenizer::open(&artifact)?;
            let what = match rows.split() {
                Split::Train => "train row",
                Split::Validation => "validation row",
            };
            (packed(&rows, &tokenizer, &wanted)?, what, rows.len())
        }
        _ => {
            return Err(Error::input(format!("`{}` has no data to show", args.stage))
                .hint("name a source, tokenize or pack stage; `mdlm show` describes the others"));
        }
    };
    if args.json {
        let mut text = String::new();
        for item in &items {
            let line = serde_json::to_string(item)
                .map_err(|error| Error::internal(format!("write an item as JSON: {error}")))?;
            text.push_str(&line);
            text.push('\n');
        }
        terminal.output(&text)?;
    } else {
        let mut text = String::new();
        for item in &items {
            text.push_str(&shown(item, args.whole, terminal));
        }
        terminal.output(&text)?;
        terminal.say(&format!(
            "{} of {} {} of `{}`",
            count(items.len() as u64),
            count(total),
            plural::of(total, what),
            args.stage
        ));
    }
    Ok(0)
}

fn source(records: &Records, wanted: &std::ops::Range<u64>) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut first = 0;
    for batch in 0..records.batches() {
        if first >= wanted.end {
            break;
        }
        let texts = records.batch(batch)?;
        let count = texts.len() as u64;
        for index in wanted.start.max(first)..wanted.end.min(first + count) {
            let text = texts.value((index - first) as usize).to_owned();
            items.push(Item {
                index,
                pieces: vec![(false, text.clone())],
                text,
                tokens: None,
                counted: None,
                given: None,
            });
        }
        first += count;
    }
    Ok(items)
}

fn tokenized(files: &TokenFiles, tokenizer: &Tokenizer, wanted: &std::ops::Range<u64>) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut first = 0;
    for batch in 0..files.batches() {
        if first >= wanted.end {
            break;
        }
        let batch = files.batch(batch)?;
        let count = batch.records() as u64;
        for index in wanted.start.max(first)..wanted.end.min(first + count) {
            let tokens = batch.tokens((index - first) as usize);
            let mut pieces = Vec::new();
            for (number, &token) in tokens.iter().enumerate() {
                if number > 0 {
                    pieces.push((true, "|".to_owned()));
                }
                pieces.push((false, name(tokenizer, token)));
            }
            items.push(Item {
                index,
                text: tokenizer.decode(&tokens)?,
                tokens: Some(tokens),
                counted: None,
                given: None,
                pieces,
            });
        }
        first += count;
    }
    Ok(items)
}

fn packed(rows: &Rows, tokenizer: &Tokenizer, wanted: &std::ops::Range<u64>) -> Result<Vec<Item>> {
    let SpecialIds { bos, eos, pad, mask } = tokenizer.special();
    let mut items = Vec::new();
    let mut tokens = vec![0; rows.length()];
    for index in wanted.start..wanted.end.min(rows.len()) {
        let scored = rows.read(index, &mut tokens)?;
        let mut pieces = Vec::new();
        let mut rest = &tokens[..];
        while let Some(&token) = rest.first() {
            let special = |token: u32| [bos, eos, pad, mask].contains(&token);
            let alike = rest.iter().take_while(|&&other| other == token).count();
            if special(token) && alike > 2 {
                // A run of padding is abbreviated.
                pieces.push((true, format!("{}×{alike}", name(tokenizer, token))));
                rest = &rest[alike..];
            } else if special(token) {
                pieces.push((true, name(tokenizer, token)));
                rest = &rest[1..];
            } else {
                let length = rest.iter().take_while(|&&token| !special(token)).count();
                pieces.push((false, tokenizer.decode(&rest[..length])?));
                rest = &rest[length..];
            }
        }
        items.push(Item {
            index,
            text: pieces.iter().map(|(_, text)| text.as_str()).collect(),
            tokens: Some(tokens.clone()),
            counted: (scored.len() < tokens.len()).then_some(scored.len()),
            given: (scored.start > 0).then_some(scored.start),
            pieces,
        });
    }
    Ok(items)
}

/// A token as its vocabulary spells it.
fn name(tokenizer: &Tokenizer, token: u32) -> String {
    tokenizer.token(token).unwrap_or_else(|| format!("<{token}>"))
}

/// An item for a person: its number, then its text, control characters made visible.
fn shown(item: &Item, whole: bool, terminal: &Terminal) -> String {
    let mut head = format!("#{}", count(item.index));
    if let Some(tokens) = &item.tokens {
        head = format!(
            "{head}  {} {}",
            count(tokens.len() as u64),
            plural::of(tokens.len(), "token")
        );
    }
    if let Some(counted) = item.counted {
        head = format!(
            "{head}, {} {}",
            count(counted as u64),
            plural::agreeing(counted, "counts", "count")
        );
    }
    if let Some(given) = item.given {
        head = format!("{head} after {} given", count(given as u64));
    }
    let mut text = terminal.paint_output(style::FAINT, &head);
    text.push('\n');
    let mut left = if whole { usize::MAX } else { SHOWN_CHARACTERS };
    let mut body = String::new();
    for (special, piece) in &item.pieces {
        let total = piece.chars().count();
        let visible: String = piece.chars().take(left).flat_map(made_visible).collect();
        left = left.saturating_sub(total);
        if *special {
            body.push_str(&terminal.paint_output(style::FAINT, &visible));
        } else {
            body.push_str(&visible);
        }
        if left == 0 {
            body.push('…');
            break;
        }
    }
    text.push_str(&body);
    text.push_str("\n\n");
    text
}

/// A character, or what stands for it: terminals obey control characters.
fn made_visible(character: char) -> Vec<char> {
    match character {
        '\n' => vec!['⏎', '\n'],
        '\t' => vec!['\t'],
        c if c.is_control() => c.escape_default().collect(),
        c => vec![c],
    }
}
