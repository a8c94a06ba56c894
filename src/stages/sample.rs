//! `sample`: a model → texts, as `samples.jsonl`, `samples.txt` and the counts in `sample.json`; texts in windows also as they
//! come, in `windows.jsonl`, and the steps of the recorded rows in `steps.jsonl`.
//!
//! It computes in f32; on a GPU in bf16 where the model was trained in bf16 ([`ModelInfo::precision_on`]), and the provenance
//! says so.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::data::tokenizer::Tokenizer;
use crate::data::{SourceInfo, SpecialIds, read_json_lines, write_json};
use crate::error::{Context as _, Error, Kind, Result, Wrap};
use crate::manifest::{Sample, Sampler, Stage, Weights};
use crate::numbers;
use crate::plural::counted;
use crate::sample::semi_autoregressive::TextWindow;
use crate::sample::{self, wilson};
use crate::stages::draw::{self, Drawing, DrawnStep, Texts, Watch};
use crate::stages::trained::ModelInfo;
use crate::stages::{Context, Run, StageOutput, given, memory};
use crate::store::Digest;

/// File name of the samples, JSON lines of [`SampleLine`].
pub const SAMPLES: &str = "samples.jsonl";
/// The samples' texts.
const SAMPLES_TEXT: &str = "samples.txt";
/// Texts that are drawn in windows, as they come: JSON lines of [`WindowLine`].
const WINDOWS: &str = "windows.jsonl";
/// File name of the recorded steps, JSON lines of [`UnmaskedLine`], a line a row.
const STEPS: &str = "steps.jsonl";
/// File name of [`Summary`].
pub const SUMMARY: &str = "sample.json";
/// Samples shown while it runs.
const SHOWN: usize = 10;
/// Characters of a sample that are shown.
const SHOWN_CHARACTERS: usize = 400;

/// A line of `samples.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleLine {
    /// Its tokens: L of them, but for semi-autoregressive sampling.
    pub tokens: Vec<u32>,
    /// Its text, one record a line; of joined rows the first and the last are parts of one.
    pub text: String,
    /// Steps of the sampler.
    pub steps: u32,
    /// How often the network was asked about it.
    pub network_calls: u32,
    /// Which of several given texts it has, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<u32>,
    /// Complete records in it, where a grammar judges them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// How many of them the grammar accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<u64>,
}

/// Reads the samples of a sample artifact.
///
/// # Errors
/// The file is absent or damaged.
pub fn read_samples(artifact: &Path) -> Result<Vec<SampleLine>> {
    read_json_lines(&artifact.join(SAMPLES))
}

/// A line of `steps.jsonl`: when each token of a row was drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnmaskedLine {
    /// The row, from 0.
    pub row: u32,
    /// Its tokens (L).
    pub tokens: Vec<u32>,
    /// The step in which each took its position, from 0; of a token that was masked again, the last time. `null` where it was
    /// given (L).
    pub steps: Vec<Option<u32>>,
    /// The probability that the model gave it then (L); `null` where no draw was made.
    pub probabilities: Vec<Option<f32>>,
}

/// A line of `windows.jsonl`: what a window adds to a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowLine {
    /// The row, from 0.
    pub row: u32,
    /// The window, from 0.
    pub window: u32,
    /// The new tokens.
    pub tokens: Vec<u32>,
    /// Their text.
    pub text: String,
}

/// `sample.json`: the counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The model that they were drawn from ([`ModelInfo::identity`]); absent in old artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Digest>,
    /// Rows drawn.
    pub rows: u32,
    /// Steps of the sampler.
    pub steps: u32,
    /// The sampler, with its settings.
    pub sampler: Sampler,
    /// Divisor of the logits.
    pub temperature: f64,
    /// Which weights.
    pub weights: Weights,
    /// Further settings that have an effect ([`Sample::further_settings`]); absent in old artifacts.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub settings: Map<String, Value>,
    /// How often the network was asked, in rows.
    pub network_calls: u64,
    /// Tokens of all rows together, where rows are not as long as the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// What the grammar says, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<Judgement>,
}

/// How many of the sampled records a grammar accepts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Complete records. A joined row begins and ends within one: those parts do not count.
    pub records: u64,
    /// How many of them the grammar accepts.
    pub accepted: u64,
    /// How many of the accepted ones differ from each other.
    pub distinct: u64,
    /// accepted / records; absent without records.
    pub share: Option<f64>,
    /// Lower end of the share's 95% interval (Wilson's, as if records were drawn independently).
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Run for Sample {
    /// Version of the stage: a change of what it writes for the same input raises it.
    ///
    /// 1: cached and ancestral. The sampler is an object with a `kind`, in the settings and in `sample.json`. The model
    /// by its digest. 2: `sample.json` has further settings where they are not the default, by which judge stages keep
    /// results apart.
    const VERSION: u32 = 2;

    /// Runs the stage.
    ///
    /// # Errors
    /// The model or the grammar cannot be read, the network fails, the disk is full, or the run is cancelled.
    fn run(&self, context: &Context<'_>) -> Result<StageOutput> {
        let artifact = context.input("model")?;
        let model = ModelInfo::open(artifact)?;
        let tokenizer = model.tokenizer(artifact)?;
        let grammar = match self.grammar {
            Some(_) => Some(grammar(context)?),
            None => None,
        };
        let network = model.network(artifact, self.weights, context.device)?;
        let given = match &self.given {
            Some(given) => given::rows(given, context.base, &model, &tokenizer)?,
            None => given::GivenRows::default(),
        };
        let count = given.count(self.count)?;
        let drawing = Drawing {
            model: &model,
            network: &*network,
            settings: self,
            given: &given,
            seed: context.seed,
            device: context.device,
            recorded: self.record_steps as usize,
        };
        let is_long = matches!(draw::sampler(self, &model), Sampler::SemiAutoregressive(_));
        let mut watch = StageWatch {
            context,
            count,
            model: &model,
            tokenizer: &tokenizer,
            windows: is_long
                .then(|| TextWriter::create(context.output.join(WINDOWS)))
                .transpose()?,
        };
        let started = std::time::Instant::now();
        let length = model.length as usize;
        let texts = draw::draw(&drawing, context.cancel, &mut watch)?;
        let seconds = started.elapsed().as_secs_f64();
        if let Some(windows) = watch.windows {
            windows.finish()?;
        }
        write_unmasked(&texts, &context.output.join(STEPS), length)?;
        let mut judge = grammar
            .as_ref()
            .map(|grammar| Judge::new(grammar, &model, &tokenizer));
        let mut lines = TextWriter::create(context.output.join(SAMPLES))?;
        let mut plain = TextWriter::create(context.output.join(SAMPLES_TEXT))?;
        for (index, row) in texts.rows.iter().enumerate() {
            let (records, accepted) = match &mut judge {
                Some(judge) => {
                    let (records, accepted) = judge.row(row)?;
                    (Some(records), Some(accepted))
                }
                None => (None, None),
            };
            let line = SampleLine {
                tokens: row.clone(),
                text: draw::text(row, model.special, &tokenizer)?,
                steps: texts.steps,
                network_calls: texts.network_calls[index],
                given: given.number_of(index, count),
                records,
                accepted,
            };
            lines
                .line(&serde_json::to_string(&line).wrap(Kind::Internal, || "write a sample".to_owned())?)?;
            plain.line(&line.text)?;
            plain.line("")?;
            if index < SHOWN {
                context.note(format!("sample {}: {}", index + 1, shown(&line.text)));
            }
        }
        lines.finish()?;
        plain.finish()?;
        let tokens: usize = texts.rows.iter().map(Vec::len).sum();
        let summary = Summary {
            model: Some(ModelInfo::identity(artifact)?),
            rows: count,
            steps: texts.steps,
            sampler: texts.sampler,
            temperature: self.temperature,
            weights: model.weights(self.weights),
            settings: self.further_settings(),
            network_calls: texts.network_calls.iter().map(|&n| u64::from(n)).sum(),
            tokens: (tokens != texts.rows.len() * length).then_some(tokens as u64),
            grammar: judge.map(|judge| judge.judgement()),
        };
        write_json(&context.output.join(SUMMARY), &summary)?;
        let mut outcome = outcome(&summary);
        outcome.consumed = given.consumed;
        outcome.provenance.insert(
            "tokens_per_second".to_owned(),
            json!((tokens as f64 / seconds).round()),
        );
        model.note_precision(context.device, &mut outcome);
        Ok(outcome)
    }

    fn memory(&self, inputs: &[&Stage], base: &Path) -> Option<u64> {
        let texts = self
            .given
            .as_ref()
            .map_or(0, |given| given::count_texts(given, base));
        memory::of_sampling(inputs, self.count, texts)
    }
}

fn outcome(summary: &Summary) -> StageOutput {
    let mut outcome = StageOutput::default();
    let mut figure = |name: &str, value: String| outcome.figures.push((name.to_owned(), value));
    figure("rows", summary.rows.to_string());
    let calls = match summary.tokens {
        Some(tokens) => format!("{:.2} a token", summary.network_calls as f64 / tokens as f64),
        None => format!(
            "{:.1} a row",
            summary.network_calls as f64 / f64::from(summary.rows)
        ),
    };
    figure("network calls", calls);
    if let Some(judgement) = summary.grammar {
        let share = judgement
            .share
            .zip(judgement.low.zip(judgement.high))
            .map_or_else(
                || "no complete record".to_owned(),
                |(share, (low, high))| {
                    let ends = Some((100.0 * low, 100.0 * high));
                    format!(
                        "{} of {}",
                        numbers::with_ends(100.0 * share, ends, 1, "%"),
                        counted(judgement.records, "record")
                    )
                },
            );
        figure("grammatical", share);
    }
    outcome
}

/// Whether a record belongs to a grammar.
type Accepts = Box<dyn Fn(&str) -> bool>;

fn grammar(context: &Context<'_>) -> Result<Accepts> {
    let source = context.input("grammar")?;
    let grammar = SourceInfo::open(source)?.grammar(source)?.ok_or_else(|| {
        Error::input("the stage that `grammar` names is not a synthetic source: it has no grammar")
            .hint("name a source stage whose input is of kind `synthetic`, or leave `grammar` out")
    })?;
    Ok(Box::new(move |record| grammar.accepts(record)))
}

/// A text file written line by line.
struct TextWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl TextWriter {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create(&path).context(|| format!("write `{}`", path.display()))?;
        Ok(Self {
            path,
            file: BufWriter::new(file),
        })
    }

    fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.file, "{line}").context(|| format!("write `{}`", self.path.display()))
    }

    /// Writes what was added, so that another program can read it.
    fn flush(&mut self) -> Result<()> {
        self.file
            .flush()
            .context(|| format!("write `{}`", self.path.display()))
    }

    fn finish(mut self) -> Result<()> {
        self.file
            .flush()
            .context(|| format!("write `{}`", self.path.display()))
    }
}

/// Writes the recorded steps, if there are any.
fn write_unmasked(texts: &Texts, path: &Path, length: usize) -> Result<()> {
    if texts.unmasked.is_empty() {
        return Ok(());
    }
    let mut lines = TextWriter::create(path.to_owned())?;
    let rows = texts.unmasked.chunks(length).zip(&texts.rows);
    for (row, (unmasked, tokens)) in (0..).zip(rows) {
        let probability = |unmasked: &sample::Unmasked| unmasked.probability.map(|p| p as f32);
        let line = UnmaskedLine {
            row,
            tokens: tokens.clone(),
            steps: unmasked
                .iter()
                .map(|unmasked| unmasked.map(|one| one.step))
                .collect(),
            probabilities: unmasked
                .iter()
                .map(|unmasked| unmasked.as_ref().and_then(probability))
                .collect(),
        };
        lines.line(&serde_json::to_string(&line).wrap(Kind::Internal, || "write the steps".to_owned())?)?;
    }
    lines.finish()
}

/// Reports how far a stage is, and writes the windows as they come.
struct StageWatch<'a> {
    context: &'a Context<'a>,
    count: u32,
    model: &'a ModelInfo,
    tokenizer: &'a Tokenizer,
    /// Where texts are drawn in windows.
    windows: Option<TextWriter>,
}

impl Watch for StageWatch<'_> {
    fn step(&mut self, step: &DrawnStep<'_>) -> Result<()> {
        self.context.progress(step.progress(self.count));
        Ok(())
    }

    fn window(&mut self, window: TextWindow<'_>) -> Result<()> {
        let Some(lines) = &mut self.windows else {
            return Ok(());
        };
        let line = WindowLine {
            row: window.row as u32,
            window: window.index,
            tokens: window.tokens.to_vec(),
            text: draw::text(window.tokens, self.model.special, self.tokenizer)?,
        };
        let line = serde_json::to_string(&line).wrap(Kind::Internal, || "write a window".to_owned())?;
        lines.line(&line)?;
        lines.flush()
    }
}

/// A sample on one line, not too long.
fn shown(text: &str) -> String {
    // Terminals obey control characters.
    let visible = |c: char| {
        if c.is_control() {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    let line: String = text.replace('\n', " / ").chars().map(visible).collect();
    match line.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The complete records of a row: `None` for one that is malformed (a special token within, no end).
///
/// A joined row is BOS + a piece of the documents with EOS between them + EOS, cut anywhere: complete is what lies
/// between two EOS within the piece. A row of its own is BOS + record + EOS + padding: complete unless it fills the row,
/// where it may have been cut.
pub(super) fn records(row: &[u32], special: SpecialIds, wrap: bool) -> Vec<Option<&[u32]>> {
    let SpecialIds { bos, eos, pad, mask } = special;
    let last = row.len() - 1;
    let whole = |record: &'_ [u32]| !record.iter().any(|token| [bos, eos, pad, mask].contains(token));
    let mut ends = (1..last).filter(|&l| row[l] == eos);
    if wrap {
        let ends: Vec<usize> = ends.collect();
        return ends
            .windows(2)
            .map(|pair| Some(&row[pair[0] + 1..pair[1]]).filter(|record| whole(record)))
            .collect();
    }
    match ends.next() {
        Some(end) => vec![Some(&row[1..end]).filter(|record| row[0] == bos && whole(record))],
        None if row[last] == eos => vec![],
        None => vec![None],
    }
}

/// Asks a grammar about sampled records.
struct Judge<'a> {
    grammar: &'a Accepts,
    model: &'a ModelInfo,
    tokenizer: &'a Tokenizer,
    records: u64,
    accepted: u64,
    distinct: BTreeSet<String>,
}

impl<'a> Judge<'a> {
    fn new(grammar: &'a Accepts, model: &'a ModelInfo, tokenizer: &'a Tokenizer) -> Self {
        Self {
            grammar,
            model,
            tokenizer,
            records: 0,
            accepted: 0,
            distinct: BTreeSet::new(),
        }
    }

    /// Complete and accepted records of a row.
    fn row(&mut self, row: &[u32]) -> Result<(u64, u64)> {
        let (mut complete, mut accepted) = (0, 0);
        for record in records(row, self.model.special, self.model.wrap) {
            complete += 1;
            let Some(record) = record else { continue };
            let text = self.tokenizer.decode(record)?;
            if (self.grammar)(&text) {
                accepted += 1;
                self.distinct.insert(text);
            }
        }
        self.records += complete;
        self.accepted += accepted;
        Ok((complete, accepted))
    }

    fn judgement(&self) -> Judgement {
        let interval = wilson(self.accepted, self.records);
        Judgement {
            records: self.records,
            accepted: self.accepted,
            distinct: self.distinct.len() as u64,
            share: interval.map(|_| self.accepted as f64 / self.records as f64),
            low: interval.map(|(low, _)| low),
            high: interval.map(|(_, high)| high),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIAL: SpecialIds = SpecialIds {
        bos: 0,
        eos: 1,
        pad: 2,
        mask: 3,
    };

    #[test]
    fn complete_records_of_joined_rows_lie_between_two_ends() {
        let of = |row| records(row, SPECIAL, true);
        assert_eq!(of(&[0, 7, 1, 8, 9, 1, 5, 1]), [Some(&[8, 9][..])]);
        assert_eq!(of(&[0, 7, 8, 1, 8, 9, 5, 1]), Vec::<Option<&[u32]>>::new());
        assert_eq!(
            of(&[0, 1, 8, 1, 9, 0, 1, 1]),
            [Some(&[8][..]), None],
            "BOS within a record"
        );
        assert_eq!(
            of(&[0, 7, 1, 1, 9, 9, 9, 1]),
            [Some(&[][..])],
            "an empty record is one that no grammar makes"
        );
        let shared = SpecialIds { bos: 1, ..SPECIAL };
        assert_eq!(records(&[1, 7, 1, 8, 1, 5, 5, 1], shared, true), [Some(&[8][..])]);
    }

    #[test]
    fn padded_row_is_one_record() {
        let of = |row| records(row, SPECIAL, false);
        assert_eq!(of(&[0, 7, 8, 1, 2, 2]), [Some(&[7, 8][..])]);
        assert_eq!(
            of(&[0, 7, 8, 9, 9, 1]),
            Vec::<Option<&[u32]>>::new(),
            "it may have been cut"
        );
        assert_eq!(of(&[0, 7, 8, 9, 9, 9]), [None], "without an end");
        assert_eq!(of(&[5, 7, 8, 1, 2, 2]), [None], "without a beginning");
        assert_eq!(of(&[0, 7, 2, 1, 2, 2]), [None], "padding within");
    }

    #[test]
    fn long_samples_are_shown_in_part() {
        assert_eq!(shown("a\nb"), "a / b");
        assert_eq!(shown(&"é".repeat(500)).chars().count(), 401);
    }
}
