//! `judge`: samples → how good they are, as `judge.json` and `judge.md`.
//!
//! | file | what it measures |
//! |---|---|
//! | `grammatical.rs`, `divergence.rs` | records against the grammar that they imitate: their share and exact −log p, and the divergence of their words from the source |
//! | `text.rs` | texts by themselves: entropy, distinct n-grams, repetition, self-BLEU |
//! | `common.rs` | the longest n-gram that a row has in common with the training text |
//! | `perplexity.rs` | generative perplexity: texts by an autoregressive model |
//! | `statistics.rs` | intervals, clustered by row |
//! | `table.rs` | the table of all of it |
//!
//! Perplexity alone would favour samples that repeat what is likely: so entropy, distinct n-grams, repetition and self-BLEU are
//! always beside it.

use std::fs;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

mod common;
mod divergence;
mod grammatical;
mod perplexity;
mod statistics;
mod table;
mod text;

pub use grammatical::{Divergence, GrammarMeasures, SourceMeasures};
pub use perplexity::GenerativePerplexity;
pub use table::{blocks, label, sampler};
pub use text::TextStatistics;

use super::key::value_of;
use super::sample::{SUMMARY, Summary, read_samples};
use super::trained::ModelInfo;
use super::{Context, Run, StageOutput, memory};
use crate::data::grammar::Grammar;
use crate::data::records::Records;
use crate::data::rows::Rows;
use crate::data::tokenizer::Tokenizer;
use crate::data::{ROWS_INFO, SourceInfo, SpecialIds, read_json, write_json};
use crate::error::{Context as _, Error, Result};
use crate::evaluate::Interval;
use crate::event::Progress;
use crate::manifest::{self, Judge, Point, Sampler, Split, Stage, Weights, model_role};
use crate::store::{Digest, ExternalFile};
use common::CommonNgrams;
use grammatical::{FreshSource, RowForm};
use perplexity::TextJudge;
use statistics::{mean, proportion};
use text::pieces;

/// File name of [`Judgements`].
pub const JUDGEMENTS: &str = "judge.json";
/// The same as a table.
const JUDGEMENTS_TEXT: &str = "judge.md";
/// Records of a source that are tokenized at a time.
const RECORDS_AT_ONCE: usize = 1 << 12;

/// `judge.json`: what was measured of each sample stage. Intervals are at 95% and clustered by row; numbers without one are
/// exact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgements {
    /// The sample stages, in the manifest's order.
    pub rows: Vec<JudgedSamples>,
}

impl Judgements {
    /// Reads `judge.json` of a judge artifact.
    ///
    /// # Errors
    /// The file is absent or damaged.
    pub fn open(artifact: &Path) -> Result<Self> {
        read_json(&artifact.join(JUDGEMENTS))
    }
}

/// What was measured of a sample stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JudgedSamples {
    /// Its name, where its values do not distinguish it from the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its place in its sweep.
    pub point: Point,
    /// The model that was sampled ([`ModelInfo::identity`]); absent in old samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Digest>,
    /// What it was trained for.
    pub objective: String,
    /// The sampler, with its settings.
    pub sampler: Sampler,
    /// Divisor of the logits.
    pub temperature: f64,
    /// Which weights were sampled.
    pub weights: Weights,
    /// Further settings of the sampling that have an effect; absent for old samples.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub settings: Map<String, Value>,
    /// Steps of the sampler.
    pub steps: u32,
    /// Rows.
    pub rows: u64,
    /// How often the network was asked about a row, the mean over rows.
    pub network_calls: f64,
    /// The texts by themselves.
    pub text: TextStatistics,
    /// Against the grammar, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<GrammarMeasures>,
    /// By an autoregressive model, where there is one and a token was scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<GenerativePerplexity>,
    /// Against the training text, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<TrainingOverlap>,
}

/// What rows have in common with a training text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingOverlap {
    /// Tokens of the longest n-gram that a row has in common with the text, without special tokens: the mean over rows.
    pub common: Option<Interval>,
    /// The longest of them.
    pub longest: u32,
    /// Tokens from which it counts as repeated verbatim.
    pub verbatim_tokens: u32,
    /// Share of rows with such an n-gram, with Wilson's interval.
    pub verbatim: Option<Interval>,
}

/// A sample stage and the model behind it, opened.
struct Samples {
    summary: Summary,
    model: ModelInfo,
    tokenizer: Tokenizer,
    rows: Vec<Vec<u32>>,
    network_calls: f64,
    steps: u32,
}

impl Samples {
    fn open(context: &Context<'_>, index: usize) -> Result<Self> {
        let role = manifest::compared_role(index).unwrap_or_default();
        let samples = context.input(role)?;
        let artifact = context.input(model_role(index).unwrap_or_default())?;
        let model = ModelInfo::open(artifact)?;
        let lines = read_samples(samples)?;
        if lines.is_empty() {
            return Err(Error::input("there are no sampled rows to measure"));
        }
        let calls: u64 = lines.iter().map(|line| u64::from(line.network_calls)).sum();
        Ok(Self {
            summary: read_json(&samples.join(SUMMARY))?,
            tokenizer: model.tokenizer(artifact)?,
            model,
            network_calls: calls as f64 / lines.len() as f64,
            steps: lines.iter().map(|line| line.steps).max().unwrap_or(0),
            rows: lines.into_iter().map(|line| line.tokens).collect(),
        })
    }

    fn form(&self) -> RowForm<'_> {
        RowForm {
            tokenizer: &self.tokenizer,
            special: self.model.special,
            wrap: self.model.wrap,
        }
    }

    fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(Vec::len).collect()
    }
}

impl Run for Judge {
    /// Version of the stage: a change of what it writes for the same input raises it.
    ///
    /// 1: the first. 2: `judge.md` has the settings of the sampling beside the sampler.
    const VERSION: u32 = 2;

    /// Runs the stage.
    ///
    /// # Errors
    /// A file cannot be read, the judge is not autoregressive, the training text has other tokens, a tokenizer cannot write a
    /// text, the network fails, or the run is cancelled.
    fn run(&self, context: &Context<'_>) -> Result<StageOutput> {
        let samples = (0..self.of.len())
            .map(|index| Samples::open(context, index).context(|| title(self, index)))
            .collect::<Result<Vec<_>>>()?;
        let mut outcome = StageOutput::default();
        let measuring = Measuring {
            settings: self,
            context,
            samples: &samples,
        };
        let grammar = measuring.against_grammar()?;
        let training = measuring.against_training()?;
        let perplexity = measuring.perplexity(&mut outcome)?;
        let measures = grammar.into_iter().zip(perplexity).zip(training);
        let rows = self
            .of
            .iter()
            .zip(&samples)
            .zip(measures)
            .map(
                |((of, samples), ((grammar, perplexity), training))| JudgedSamples {
                    name: of.name.clone(),
                    point: of.point.clone(),
                    model: samples.summary.model,
                    objective: samples.model.objective.kind().to_owned(),
                    sampler: samples.summary.sampler,
                    temperature: samples.summary.temperature,
                    weights: samples.summary.weights,
                    settings: samples.summary.settings.clone(),
                    steps: samples.steps,
                    rows: samples.rows.len() as u64,
                    network_calls: samples.network_calls,
                    text: TextStatistics::of(&samples.rows, samples.model.special),
                    grammar,
                    perplexity,
                    training,
                },
            )
            .collect();
        let found = Judgements { rows };
        write_json(&context.output.join(JUDGEMENTS), &found)?;
        let path = context.output.join(JUDGEMENTS_TEXT);
        fs::write(&path, table::markdown(&found)).context(|| format!("write `{}`", path.display()))?;
        outcome.figures = table::figures(&found);
        Ok(outcome)
    }

    /// What its rows are called is written into its table; which stages made them is not.
    fn state_contents(&self, config: &mut Map<String, Value>) -> Result<Vec<ExternalFile>> {
        let rows = self.of.iter().map(|row| {
            let point = value_of(&row.point)?;
            Ok(match &row.name {
                Some(name) => json!({ "name": name, "point": point }),
                None => json!({ "point": point }),
            })
        });
        config.insert("of".to_owned(), rows.collect::<Result<Value>>()?);
        Ok(vec![])
    }

    /// The judge's; without one it takes no network.
    fn memory(&self, inputs: &[&Stage], _base: &Path) -> Option<u64> {
        self.model.as_ref().and_then(|_| memory::of_inference(inputs))
    }
}

/// A measure of each sample stage.
type Measures<T> = Vec<Option<T>>;

/// What is measured, and of what.
struct Measuring<'a> {
    settings: &'a Judge,
    context: &'a Context<'a>,
    samples: &'a [Samples],
}

impl Measuring<'_> {
    /// The name of a sample stage in errors.
    fn title(&self, index: usize) -> String {
        title(self.settings, index)
    }

    /// The records against the grammar. Samples that are made of text in one way are compared with the same fresh text.
    fn against_grammar(&self) -> Result<Measures<GrammarMeasures>> {
        let Self { context, samples, .. } = *self;
        if self.settings.grammar.is_none() {
            return Ok(vec![None; samples.len()]);
        }
        let grammar = open_grammar(context.input("grammar")?)?;
        let (mut known, mut measures) = (Vec::<(usize, FreshSource)>::new(), Vec::new());
        for (index, one) in samples.iter().enumerate() {
            context.progress(Progress {
                done: index as u64,
                total: Some(samples.len() as u64),
                unit: "sample stages",
                figures: vec![],
            });
            let (form, lengths) = (one.form(), one.lengths());
            let is_alike = |other: &usize| {
                let other = &samples[*other];
                other.model.tokenizer_digest == one.model.tokenizer_digest
                    && (other.model.special, other.model.wrap) == (form.special, form.wrap)
                    && other.lengths() == lengths
            };
            let place = if let Some(place) = known.iter().position(|(other, _)| is_alike(other)) {
                place
            } else {
                let least = u64::from(self.settings.reference_records);
                let fresh = FreshSource::new(&grammar, form, &lengths, least, context.seed, context.cancel)
                    .context(|| self.title(index))?;
                known.push((index, fresh));
                known.len() - 1
            };
            let found = known[place]
                .1
                .measure(&grammar, form, &one.rows, context.seed)
                .context(|| self.title(index))?;
            measures.push(Some(found));
        }
        Ok(measures)
    }

    /// What rows have in common with the training text, which is read once for all samples of one tokenizer.
    fn against_training(&self) -> Result<Measures<TrainingOverlap>> {
        let Self { context, samples, .. } = *self;
        let mut measures = vec![None; samples.len()];
        if self.settings.training.is_none() {
            return Ok(measures);
        }
        let training = context.input("training")?;
        let mut open: Vec<usize> = (0..samples.len()).collect();
        while let Some(&first) = open.first() {
            let digest = &samples[first].model.tokenizer_digest;
            let (alike, others): (Vec<usize>, Vec<usize>) = open
                .iter()
                .partition(|&&index| samples[index].model.tokenizer_digest == *digest);
            open = others;
            let special = samples[first].model.special;
            let texts = alike.iter().flat_map(|&index| &samples[index].rows);
            let mut ngrams = CommonNgrams::new(texts.flat_map(|row| pieces(row, special)));
            read_training(context, training, &samples[first], &mut ngrams).context(|| self.title(first))?;
            let found = ngrams.finish();
            for index in alike {
                let longest: Vec<u32> = samples[index]
                    .rows
                    .iter()
                    .map(|row| {
                        let lengths = pieces(row, special).into_iter().map(|piece| found.longest(piece));
                        lengths.max().unwrap_or(0)
                    })
                    .collect();
                measures[index] = Some(self.overlap(&longest));
            }
        }
        Ok(measures)
    }

    fn overlap(&self, longest: &[u32]) -> TrainingOverlap {
        let lengths: Vec<f64> = longest.iter().map(|&length| f64::from(length)).collect();
        let verbatim: Vec<(u64, u64)> = longest
            .iter()
            .map(|&length| (u64::from(length >= self.settings.verbatim_tokens), 1))
            .collect();
        TrainingOverlap {
            common: mean(&lengths),
            longest: longest.iter().copied().max().unwrap_or(0),
            verbatim_tokens: self.settings.verbatim_tokens,
            verbatim: proportion(&verbatim),
        }
    }

    /// The texts by the judge.
    fn perplexity(&self, outcome: &mut StageOutput) -> Result<Measures<GenerativePerplexity>> {
        let Self { context, samples, .. } = *self;
        if self.settings.model.is_none() {
            return Ok(vec![None; samples.len()]);
        }
        let artifact = context.input("model")?;
        let model = ModelInfo::open(artifact)?;
        if !matches!(model.objective, manifest::Objective::Ar(_)) {
            return Err(Error::input(format!(
                "the judge has the objective `{}`: it gives no exact probability of a text",
                model.objective.kind()
            ))
            .hint("name a model of `ar` as `model`, or leave `model` out"));
        }
        let network = model.network(artifact, self.settings.weights, context.device)?;
        let objective = model.build_objective(context.seed);
        let mut tokenizer = model.tokenizer(artifact)?;
        // Text of another tokenizer may spell a special token of this one.
        tokenizer.allow_special_tokens();
        let judge = TextJudge {
            network: &*network,
            objective: &*objective,
            tokenizer: &tokenizer,
            special: model.special,
            length: model.length as usize,
            micro_batch: memory::rows_at_a_time(network.shape(), context.device),
        };
        let (identity, weights) = (
            ModelInfo::identity(artifact)?,
            model.weights(self.settings.weights),
        );
        model.note_precision(context.device, outcome);
        let measured = samples.iter().enumerate().map(|(index, one)| {
            let length = one.model.length as usize;
            let mut progress = |done, total| {
                context.progress(Progress {
                    done,
                    total: Some(total),
                    unit: "windows",
                    figures: vec![],
                });
            };
            let scores = judge
                .score(
                    self.settings.variant,
                    &one.rows,
                    one.form(),
                    length,
                    context.cancel,
                    &mut progress,
                )
                .context(|| self.title(index))?;
            Ok(GenerativePerplexity::of(
                &scores,
                self.settings.variant,
                identity,
                weights,
            ))
        });
        measured.collect()
    }
}

/// The name of a sample stage in errors.
fn title(settings: &Judge, index: usize) -> String {
    let stage = settings.of.get(index).map_or("", |row| &row.stage);
    format!("the samples of `{stage}`")
}

fn open_grammar(source: &Path) -> Result<Grammar> {
    SourceInfo::open(source)?.grammar(source)?.ok_or_else(|| {
        Error::input("the stage that `grammar` names is not a synthetic source: it has no grammar")
            .hint("name a source stage whose input is of kind `synthetic`, or leave `grammar` out")
    })
}

/// Passes a training text through the n-grams of samples: the `train` split of a pack artifact, or the records of a source
/// artifact in the tokens of the samples.
fn read_training(
    context: &Context<'_>,
    training: &Path,
    samples: &Samples,
    ngrams: &mut CommonNgrams,
) -> Result<()> {
    let report = |done: u64, total: u64, unit: &'static str| {
        context.progress(Progress {
            done,
            total: Some(total),
            unit,
            figures: vec![],
        });
    };
    if training.join(ROWS_INFO).is_file() {
        let rows = Rows::open(training, Split::Train)?;
        if rows.info().tokenizer_digest != samples.model.tokenizer_digest {
            return Err(Error::input(
                "the rows of the training text were tokenized with another tokenizer than the model's",
            )
            .hint(
                "name the source stage of the training text as `training`: its records are tokenized anew",
            ));
        }
        let special: SpecialIds = rows.info().special;
        let mut row = vec![0; rows.length()];
        for index in 0..rows.len() {
            if index % RECORDS_AT_ONCE as u64 == 0 {
                context.cancel.check()?;
                report(index, rows.len(), "training rows");
            }
            rows.read(index, &mut row)?;
            for piece in pieces(&row, special) {
                ngrams.read(piece);
            }
        }
        return Ok(());
    }
    let records = Records::open(training)?;
    let mut done = 0;
    for batch in 0..records.batches() {
        let batch = records.batch(batch)?;
        let texts: Vec<&str> = batch.iter().flatten().collect();
        for texts in texts.chunks(RECORDS_AT_ONCE) {
            context.cancel.check()?;
            report(done, records.info().records, "training records");
            let encoded = texts
                .par_iter()
                .map(|text| {
                    let mut tokens = Vec::new();
                    samples.tokenizer.encode(text, &mut tokens)?;
                    Ok(tokens)
                })
                .collect::<Result<Vec<_>>>()
                .context(|| "write the training text in the tokens of the model".to_owned())?;
            for tokens in &encoded {
                ngrams.read(tokens);
            }
            done += texts.len() as u64;
        }
    }
    Ok(())
}
