//! `evaluate`: a model and rows → a bound with its uncertainty, as `evaluation.json` and `evaluation.md`, and the losses
//! row by row as `losses.arrow`.
//!
//! It computes in f32; on a GPU in bf16 where the model was trained in bf16 ([`ModelInfo::precision_on`]), and the provenance
//! says so.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::data::rows::Rows;
use crate::data::{RowsInfo, SourceInfo, SplitInfo, Unit, read_json, write_json};
use crate::diffusion::Method;
use crate::error::{Context as _, Error, Result};
use crate::evaluate::{Bound, BoundEstimator, Interval, Quantity};
use crate::event::Progress;
use crate::manifest::{BoundEnds, Estimator, Evaluate, Scored, Split, Stage, Weights};
use crate::model::Network;
use crate::numbers;
use crate::plural::counted;
use crate::rng::Stream;
use crate::sample::wilson;
use crate::stages::trained::ModelInfo;
use crate::stages::{Context, Run, StageOutput, losses, memory};
use crate::store::Digest;

mod text;

use text::text;

/// The kind of the objective of results that name none: older versions had no other.
pub(super) const MDLM: &str = "mdlm";
/// File name of [`Evaluation`].
pub const EVALUATION: &str = "evaluation.json";
/// What bits per byte are of where the tokenizer changes the text.
pub(super) const NORMALIZED: &str = " of normalized text";
/// The same for people.
const EVALUATION_TEXT: &str = "evaluation.md";

/// `evaluation.json`: what was found. Intervals are at 95% (see [`crate::evaluate`] for their formula).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// The model that was measured ([`ModelInfo::identity`]); absent in old artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Digest>,
    /// BLAKE3 of the tokenizer that made the rows; absent in old artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<Digest>,
    /// Which split.
    pub split: Split,
    /// Which weights.
    pub weights: Weights,
    /// What the model was trained for; `mdlm` where absent.
    #[serde(default = "mdlm", skip_serializing_if = "is_mdlm")]
    pub objective: String,
    /// How the likelihood was estimated.
    pub estimator: Estimator,
    /// T of the bound in discrete time; continuous time where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Rows.
    pub rows: u64,
    /// Rows of the split.
    pub rows_of_split: u64,
    /// Draws per row.
    pub draws: u32,
    /// Valid tokens: padding excluded, but where it counts; and context, where rows begin with it.
    pub tokens: u64,
    /// Tokens that were predicted, where they are fewer: an autoregressive model is given the first of each row. Nats and
    /// perplexity are per scored token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scored_tokens: Option<u64>,
    /// Bytes of text per valid token, a count over the split (see [`crate::data::SplitInfo::kept_bytes`]).
    pub bytes_per_token: f64,
    /// What of the noise levels is covered; where it is not all of them, the numbers are the published ones and no bounds.
    #[serde(default, skip_serializing_if = "is_valid")]
    pub bound: BoundEnds,
    /// What a valid token is, and so what `nats_per_token` and `perplexity` are per.
    #[serde(default)]
    pub unit: Unit,
    /// The bound on the negative log-likelihood, per valid token.
    pub nats_per_token: Interval,
    /// Its standard error, clustered by row; absent for a single row.
    pub standard_error: Option<f64>,
    /// At most so much of it would go with more draws per row; absent for a single draw.
    pub monte_carlo_error: Option<f64>,
    /// The bound on the perplexity per valid token.
    pub perplexity: Interval,
    /// Where padding counts: the same bound on the negative log-likelihood of whole rows, per token of text. Positions are
    /// shared out by an exact count over the split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats_per_token_of_text: Option<Interval>,
    /// Its perplexity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity_per_token_of_text: Option<Interval>,
    /// The bound in bits per byte of text, what spells out lost text included; absent for a pseudo-likelihood, which is
    /// no likelihood of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits_per_byte: Option<Interval>,
    /// What of it spells out text that no token does ([`crate::data::loss`]); 0 where absent.
    #[serde(default, skip_serializing_if = "crate::data::is_nought")]
    pub lost_bits_per_byte: f64,
    /// Whether bits per byte are those of the text as the tokenizer normalizes it, and no bound on the text itself; `false`
    /// where absent.
    #[serde(default, skip_serializing_if = "crate::data::is_false")]
    pub normalized: bool,
    /// Exact entropy of the grammar that the text was drawn from, in bits per byte.
    pub entropy_bits_per_byte: Option<f64>,
    /// By how many tokens of text each row begins further on than the one before, where rows overlap; every token is scored
    /// once, given those before it in its row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<u32>,
    /// Which tokens of a record were scored; all where absent.
    #[serde(default, skip_serializing_if = "Scored::is_all")]
    pub scored: Scored,
    /// Words of the text of the evaluated rows, where the source counts them ([`crate::data::word_count`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<u64>,
    /// Whether that is in proportion to bytes and rows, since a record is cut or not all rows were evaluated, and not a count.
    #[serde(default, skip_serializing_if = "crate::data::is_false")]
    pub words_in_proportion: bool,
    /// The exponential of the nats of all text over its words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub perplexity_per_word: Option<Interval>,
    /// What was found of last words, where they alone were scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_word: Option<LastWords>,
    /// The text of the split and what of it is in no row; absent where all of it is in rows, without context and words, and in
    /// old artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<SplitText>,
    /// Whether padding was left out: the bound is then one given the records' lengths, but for an autoregressive model,
    /// which predicts where a record ends.
    pub padding_excluded: bool,
}

/// What was found of the last words of records.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastWords {
    /// Perplexity per last word: the exponential of the mean over records of −log p(word | text before it), bounded or exact as
    /// the evaluation is.
    pub perplexity: Interval,
    /// Words that are the model's greedy choice, token by token from left to right.
    pub right: u64,
    /// Their share, with Wilson's interval.
    pub accuracy: Interval,
}

/// The text of a split, whatever rows it is packed into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitText {
    /// Records.
    pub records: u64,
    /// Their bytes, one separator byte a record included.
    pub bytes: u64,
    /// Their tokens, one EOS a record included.
    pub tokens: u64,
    /// Their words, where the source counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<u64>,
    /// Tokens that are in no row: a tail, or what was cut off. Of rows in which last words alone are scored, 0.
    pub dropped_tokens: u64,
    /// Records that are in no row because their last word has no room in one.
    #[serde(default)]
    pub dropped_records: u64,
}

impl SplitText {
    /// That of a split, where there is more to say of it than that all of it is in rows.
    fn of(info: &SplitInfo, rows: &RowsInfo) -> Option<Self> {
        let text = Self {
            records: info.records,
            bytes: info.bytes,
            tokens: info.tokens,
            words: info.words,
            dropped_tokens: match rows.scored {
                Scored::All => info.tokens.saturating_sub(info.kept_tokens),
                Scored::LastWord => 0,
            },
            dropped_records: info.dropped_records,
        };
        let is_dropped = text.dropped_tokens > 0 || text.dropped_records > 0;
        (is_dropped || text.words.is_some() || rows.has_context()).then_some(text)
    }
}

impl Evaluation {
    /// Reads `evaluation.json` of an evaluate artifact.
    ///
    /// # Errors
    /// The file is absent or damaged.
    pub fn open(artifact: &Path) -> Result<Self> {
        read_json(&artifact.join(EVALUATION))
    }

    /// What the numbers are: `upper bound`, `exact value`.
    #[must_use]
    pub fn quantity(&self) -> &'static str {
        match (self.estimator, self.bound) {
            (Estimator::Exact, _) => "exact value",
            (Estimator::Pseudo, _) => "pseudo-likelihood",
            (Estimator::Time | Estimator::Count, BoundEnds::Valid) => "upper bound",
            (Estimator::Time | Estimator::Count, BoundEnds::Published) => "published estimate",
        }
    }

    /// Whether the numbers bound those of the exact likelihood.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        matches!(self.estimator, Estimator::Time | Estimator::Count) && self.bound == BoundEnds::Valid
    }

    /// Whether the model was given the lengths of the records that it was measured on.
    #[must_use]
    pub fn is_given_lengths(&self) -> bool {
        self.padding_excluded && self.estimator != Estimator::Exact
    }

    /// What nats and perplexity are per.
    #[must_use]
    pub fn per(&self) -> String {
        self.unit.per(self.scored_tokens.is_some())
    }

    /// The name of the perplexity: that of a pseudo-likelihood is another.
    #[must_use]
    pub fn perplexity_name(&self) -> &'static str {
        match self.estimator {
            Estimator::Pseudo => "pseudo-perplexity",
            _ => "perplexity",
        }
    }
}

fn mdlm() -> String {
    MDLM.to_owned()
}

fn is_mdlm(objective: &str) -> bool {
    objective == MDLM
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_valid(bound: &BoundEnds) -> bool {
    *bound == BoundEnds::Valid
}

impl Run for Evaluate {
    /// Version of the stage: a change of what it writes for the same input raises it.
    ///
    /// 1: the bound by time or count. 2: what nats and perplexity are per, and both per token of text where padding counts;
    /// bytes of the text that is kept; a count of one has a noun in the singular; the model and the tokenizer by their
    /// digests. Still 2: notes of `evaluation.md` are worded more plainly. 3: `losses.arrow` beside them. Still 3: the text of
    /// the split and what of it is in no row; rows with context, words and last words, which no earlier manifest asks for.
    const VERSION: u32 = 3;

    /// Runs the stage.
    ///
    /// # Errors
    /// Model and rows do not belong together, the estimator does not fit the model, there are no rows, the grammar's source is
    /// no grammar.
    #[expect(clippy::too_many_lines, reason = "one step after the other")]
    fn run(&self, context: &Context<'_>) -> Result<StageOutput> {
        let artifact = context.input("model")?;
        let model = ModelInfo::open(artifact)?;
        let rows = Rows::open(context.input("data")?, self.split)?;
        check(&model, &rows)?;
        let entropy = match self.grammar {
            Some(_) => Some(entropy(context)?),
            None => None,
        };
        let estimator = self.estimator.unwrap_or_else(|| model.objective.estimators()[0]);
        // The manifest does not know the objective of a model whose file states it.
        let steps = self.steps.or_else(|| {
            let of_model = || model.objective.steps();
            (estimator == Estimator::Time).then(of_model).flatten()
        });
        let method = Method {
            estimator,
            steps,
            ends: self.bound,
        };
        method.check(&model.objective)?;
        let network = model.network(artifact, self.weights, context.device)?;
        let objective = model.build_objective(context.seed);
        let task = BoundEstimator {
            rows: &rows,
            limit: self.rows,
            objective: &*objective,
            seed: context.seed,
            method,
            draws: self.draws,
            stream: Stream::Evaluate,
            micro_batch: memory::rows_at_a_time(network.shape(), context.device),
        };
        let started = std::time::Instant::now();
        let bound = task.run(&*network, context.cancel, &mut |done, total, nats| {
            let mut figures = Vec::new();
            if nats.is_finite() {
                figures.push((Quantity::from(estimator).name(), format!("{nats:.3}")));
            }
            context.progress(Progress {
                done,
                total: Some(total),
                unit: "rows",
                figures,
            });
        })?;
        let last_word = (rows.info().scored == Scored::LastWord)
            .then(|| last_words(&task, &bound, &*network, context))
            .transpose()?;
        let seconds = started.elapsed().as_secs_f64();
        let counts = rows.split_info();
        let words_per_token = counts.words_per_position();
        let bytes_per_token = rows.split_info().bytes_per_position();
        let unit = rows.info().unit();
        let of_text = (unit == Unit::Position).then(|| {
            let positions = rows.split_info().positions_per_token_of_text(rows.info());
            bound.nats_per_valid_token().map(|nats| nats * positions)
        });
        let lost = rows.split_info().lost_bits_per_byte();
        let bits_per_byte = (estimator != Estimator::Pseudo)
            .then(|| bound.bits_per_byte(bytes_per_token).map(|bits| bits + lost));
        let found = Evaluation {
            model: Some(ModelInfo::identity(artifact)?),
            tokenizer: model.tokenizer_digest.parse().ok(),
            split: self.split,
            weights: model.weights(self.weights),
            objective: model.objective.kind().to_owned(),
            estimator,
            steps,
            rows: bound.rows,
            rows_of_split: rows.len(),
            draws: bound.draws,
            tokens: bound.tokens,
            scored_tokens: (bound.scored != bound.tokens).then_some(bound.scored),
            bytes_per_token,
            bound: self.bound,
            unit,
            nats_per_token: bound.nats_per_token,
            standard_error: bound.standard_error,
            monte_carlo_error: bound.monte_carlo_error,
            perplexity: bound.perplexity(),
            nats_per_token_of_text: of_text,
            perplexity_per_token_of_text: of_text.map(|nats| nats.map(f64::exp)),
            bits_per_byte,
            lost_bits_per_byte: lost,
            normalized: rows.info().normalized,
            entropy_bits_per_byte: entropy,
            stride: rows.info().stride,
            scored: rows.info().scored,
            words: words_per_token.map(|words| (words * bound.tokens as f64).round() as u64),
            words_in_proportion: words_per_token.is_some()
                && (bound.rows < rows.len() || counts.kept_words != counts.words && last_word.is_none()),
            perplexity_per_word: words_per_token
                .filter(|_| last_word.is_none() && estimator != Estimator::Pseudo)
                .map(|words| bound.perplexity_per_word(words)),
            last_word,
            text: SplitText::of(counts, rows.info()),
            padding_excluded: !rows.info().wrap && !rows.info().padding_counts && !rows.info().has_context(),
        };
        losses::write(context.output, &bound.by_row)?;
        write_json(&context.output.join(EVALUATION), &found)?;
        let path = context.output.join(EVALUATION_TEXT);
        std::fs::write(&path, text(&found)).context(|| format!("write `{}`", path.display()))?;
        let mut outcome = StageOutput::default();
        if let Some(bits) = bits(&found) {
            outcome.figures.push(("bits/byte".to_owned(), bits));
        }
        if let Some(entropy) = entropy {
            outcome
                .figures
                .push(("entropy".to_owned(), format!("{entropy:.4} bits/byte (exact)")));
        }
        outcome.figures.push((
            found.perplexity_name().to_owned(),
            format!("{} {}", found.perplexity.with_ends(3), found.per()),
        ));
        if let Some(perplexity) = found.perplexity_per_token_of_text {
            let text = format!("{} {}", perplexity.with_ends(3), Unit::Token.name());
            let name = format!("{} of text", found.perplexity_name());
            outcome.figures.push((name, text));
        }
        if let Some(perplexity) = found.perplexity_per_word {
            let text = format!("{} per word", perplexity.with_ends(3));
            outcome.figures.push((found.perplexity_name().to_owned(), text));
        }
        if let Some(last) = &found.last_word {
            let text = format!("{} per last word", last.perplexity.with_ends(3));
            outcome.figures.push((found.perplexity_name().to_owned(), text));
            let percent = last.accuracy.map(|share| 100.0 * share);
            let text = numbers::with_ends(percent.value, percent.ends(), 1, "%");
            outcome.figures.push(("last word accuracy".to_owned(), text));
        }
        if self.bound == BoundEnds::Published {
            let kind = "published estimate, not a bound: both ends are left out";
            outcome.figures.push(("kind".to_owned(), kind.to_owned()));
        }
        match estimator {
            Estimator::Exact => outcome
                .figures
                .push(("kind".to_owned(), "exact likelihood".to_owned())),
            Estimator::Pseudo => outcome
                .figures
                .push(("kind".to_owned(), "pseudo-likelihood, not a bound".to_owned())),
            Estimator::Time | Estimator::Count => {}
        }
        let network_tokens = bound.rows * u64::from(bound.draws) * rows.length() as u64;
        outcome.provenance.insert(
            "tokens_per_second".to_owned(),
            json!((network_tokens as f64 / seconds).round()),
        );
        model.note_precision(context.device, &mut outcome);
        Ok(outcome)
    }

    fn memory(&self, inputs: &[&Stage], _base: &Path) -> Option<u64> {
        memory::of_inference(inputs)
    }
}

/// The perplexity of last words, and how many the model chooses.
fn last_words(
    task: &BoundEstimator<'_>,
    bound: &Bound,
    network: &dyn Network,
    context: &Context<'_>,
) -> Result<LastWords> {
    let right = task.chosen_greedily(network, context.cancel, &mut |done, total, right| {
        context.progress(Progress {
            done,
            total: Some(total),
            unit: "last words",
            figures: vec![("right", right.to_string())],
        });
    })?;
    let (count, right) = (
        right.len() as u64,
        right.iter().filter(|right| **right).count() as u64,
    );
    let ends = wilson(right, count);
    Ok(LastWords {
        perplexity: bound.perplexity_per_row(),
        right,
        accuracy: Interval {
            value: right as f64 / count.max(1) as f64,
            low: ends.map(|(low, _)| low),
            high: ends.map(|(_, high)| high),
        },
    })
}

/// Whether the rows are in the model's language.
fn check(model: &ModelInfo, rows: &Rows) -> Result<()> {
    let info = rows.info();
    if info.tokenizer_digest != model.tokenizer_digest {
        return Err(Error::input("the rows were tokenized with another tokenizer than the model's").hint(
            "tokenize them with `\"tokenizer\": {\"kind\": \"stage\", \"stage\": …}` naming the tokenize stage that \
             the \
             model learnt from",
        ));
    }
    if info.length != model.length {
        return Err(Error::input(format!(
            "the rows have {}, the model's have {}",
            counted(info.length, "token"),
            model.length
        ))
        .hint(format!("set `length` of the pack stage to {}", model.length)));
    }
    Ok(())
}

fn entropy(context: &Context<'_>) -> Result<f64> {
    let info = SourceInfo::open(context.input("grammar")?)?;
    info.entropy_bits_per_byte.ok_or_else(|| {
        Error::input("the stage that `grammar` names is not a synthetic source: its entropy is not known")
            .hint("name a source stage whose input is of kind `synthetic`, or leave `grammar` out")
    })
}

/// Bits per byte with what they are of.
fn bits(found: &Evaluation) -> Option<String> {
    let mut text = found.bits_per_byte?.plus_minus(4);
    if found.normalized {
        text.push_str(NORMALIZED);
    }
    if found.lost_bits_per_byte > 0.0 {
        let _ = write!(text, ", {:.4} of it for lost text", found.lost_bits_per_byte);
    }
    Some(text)
}
