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
use crate::data::{SourceInfo, Unit, read_json, split_name, write_json};
use crate::diffusion::Method;
use crate::error::{Context as _, Error, Result};
use crate::evaluate::{BoundEstimator, Interval, Quantity};
use crate::event::Progress;
use crate::manifest::{BoundEnds, Estimator, Evaluate, Split, Stage, Weights};
use crate::plural::counted;
use crate::rng::Stream;
use crate::stages::trained::ModelInfo;
use crate::stages::{Context, Run, StageOutput, losses, memory};
use crate::store::Digest;

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
    /// Valid tokens: padding excluded, but where it counts.
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
    /// Whether padding was left out: the bound is then one given the records' lengths, but for an autoregressive model,
    /// which predicts where a record ends.
    pub padding_excluded: bool,
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
    /// digests. Still 2: notes of `evaluation.md` are worded more plainly. 3: `losses.arrow` beside them.
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
        let seconds = started.elapsed().as_secs_f64();
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
            padding_excluded: !rows.info().wrap && !rows.info().padding_counts,
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

/// The evaluation as Markdown.
#[expect(clippy::too_many_lines, reason = "one sentence or table after the other")]
fn text(found: &Evaluation) -> String {
    let weights = match found.weights {
        Weights::Ema => "averaged",
        Weights::Raw => "last step's",
    };
    let title = match found.estimator {
        Estimator::Time | Estimator::Count => "Bound",
        Estimator::Exact => "Exact likelihood",
        Estimator::Pseudo => "Pseudo-likelihood",
    };
    let estimator = found.estimator.name();
    let steps = found
        .steps
        .map_or_else(String::new, |steps| format!(" in {}", counted(steps, "step")));
    let scored = found
        .scored_tokens
        .map_or_else(String::new, |scored| format!(", {scored} of them scored"));
    let mut text = format!(
        "# {title} on the {} split\n\n\
         {weights} weights · estimator `{estimator}`{steps} · {} of {} · {} per row · {} counted{scored}\n\n\
         | quantity | {} | 95% interval |\n|---|---|---|\n",
        split_name(found.split),
        found.rows,
        counted(found.rows_of_split, "row"),
        counted(found.draws, "draw"),
        counted(
            found.tokens,
            match found.unit {
                Unit::Token => "token",
                Unit::Position => "position",
            }
        ),
        found.quantity(),
    );
    let per = |what: &str, unit: Unit| format!("{what} {}", unit.name());
    let own = found.per();
    let mut quantities = vec![
        (format!("nats {own}"), found.nats_per_token),
        (format!("{} {own}", found.perplexity_name()), found.perplexity),
    ];
    quantities.extend(
        found
            .nats_per_token_of_text
            .map(|nats| (per("nats", Unit::Token), nats)),
    );
    let of_text = found.perplexity_per_token_of_text;
    quantities.extend(of_text.map(|perplexity| (per(found.perplexity_name(), Unit::Token), perplexity)));
    let of = if found.normalized { NORMALIZED } else { "" };
    quantities.extend(
        found
            .bits_per_byte
            .map(|bits| (format!("bits per byte{of}"), bits)),
    );
    for (name, interval) in quantities {
        let ends = interval.ends().map_or("not defined".to_owned(), |(low, high)| {
            format!("{low:.4} to {high:.4}")
        });
        let _ = writeln!(text, "| {name} | {:.4} | {ends} |", interval.value);
    }
    if let Some(entropy) = found.entropy_bits_per_byte {
        let _ = writeln!(
            text,
            "| entropy of the grammar, bits per byte | {entropy:.4} | exact |"
        );
    }
    let drawn = if found.estimator.is_random() {
        "which rows were held out and which times and masks were drawn"
    } else {
        "which rows were held out; nothing was drawn"
    };
    let _ = write!(
        text,
        "\nThe interval is value ± t · standard error, the error clustered by row: it covers {drawn}."
    );
    if found.scored_tokens.is_some() {
        text.push_str(
            " The model is given the first token of each row, which a diffusion model predicts: compare it with one by \
             bits per byte of the same text.",
        );
    }
    if found.estimator == Estimator::Pseudo {
        text.push_str(
            " Each token is predicted from all others: the number is neither a likelihood nor a bound on one, and is not \
             comparable with either.",
        );
    }
    if let Some(error) = found.monte_carlo_error {
        let _ = write!(
            text,
            " More draws per row would remove at most {error:.4} nats of the standard error."
        );
    }
    if found.bound == BoundEnds::Published {
        text.push_str(
            " The published estimate is the mean over the noise levels that training draws. It leaves out both ends, \
             is lower \
             than the bound, and is not a bound: use it only to compare with published figures.",
        );
    }
    let bounds = if found.is_bound() { "bounds" } else { "is that of" };
    if found.unit == Unit::Position {
        let perplexities = match found.estimator {
            Estimator::Pseudo => "pseudo-perplexities",
            _ => "perplexities",
        };
        let _ = write!(
            text,
            " Padding counts as text does: the number {bounds} the whole record with its length. Per position, padding \
             that is easy to guess lowers the mean: compare {perplexities} per token of text"
        );
        if found.bits_per_byte.is_some() {
            text.push_str(", and bits per byte between tokenizers");
        }
        text.push('.');
    }
    if found.lost_bits_per_byte > 0.0 && found.bits_per_byte.is_none() {
        text.push_str(
            " No token spells some of the text (unknown tokens, dropped characters): the numbers leave it out.",
        );
    } else if found.lost_bits_per_byte > 0.0 {
        let _ = write!(
            text,
            " No token spells some of the text (unknown tokens, dropped characters): {:.4} of the bits per byte \
             spell it out, \
             8 bits a byte, 8 that end it, and 33 for the place of text without a token. Perplexity and nats leave \
             it out.",
            found.lost_bits_per_byte
        );
    }
    if found.normalized && found.bits_per_byte.is_some() {
        text.push_str(
            " The tokenizer changes the text (letter case, accents, white space or forms of characters), so that \
             bits per \
             byte bound the text as it normalizes it, per byte of the original: they are not a bound on the original \
             text, and are not comparable with those of a tokenizer that keeps it.",
        );
    }
    if found.padding_excluded && !found.is_given_lengths() {
        text.push_str(
            " Padding is excluded, but the model predicts where each record ends, and so pays for its length, which a \
             diffusion model is given: compare them under `\"padding\": \"counted\"`.",
        );
    }
    if found.is_given_lengths() {
        let _ = write!(
            text,
            " Padding is excluded, as the authors do it: the number {bounds} the text given its length, which the \
             visible padding shows."
        );
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Interval = Interval {
        value: 1.0,
        low: Some(0.9),
        high: Some(1.1),
    };

    /// The evaluation of an any-order bound.
    fn evaluation() -> Evaluation {
        let interval = INTERVAL;
        Evaluation {
            model: None,
            tokenizer: None,
            split: Split::Validation,
            weights: Weights::Ema,
            objective: "mdlm".to_owned(),
            estimator: Estimator::Count,
            steps: None,
            rows: 20,
            rows_of_split: 40,
            draws: 4,
            tokens: 1200,
            scored_tokens: None,
            bytes_per_token: 2.0,
            bound: BoundEnds::Valid,
            unit: Unit::Token,
            nats_per_token: interval,
            standard_error: Some(0.05),
            monte_carlo_error: Some(0.02),
            perplexity: interval.map(f64::exp),
            nats_per_token_of_text: None,
            perplexity_per_token_of_text: None,
            bits_per_byte: Some(interval.map(|nats| nats / 2.0 / std::f64::consts::LN_2)),
            lost_bits_per_byte: 0.0,
            normalized: false,
            entropy_bits_per_byte: Some(0.7),
            padding_excluded: true,
        }
    }

    #[test]
    fn evaluation_text_states_quantity_unit_and_interval() {
        let (interval, found) = (INTERVAL, evaluation());
        insta::assert_snapshot!(text(&found), @r"
        # Bound on the validation split

        averaged weights · estimator `count` · 20 of 40 rows · 4 draws per row · 1200 tokens counted

        | quantity | upper bound | 95% interval |
        |---|---|---|
        | nats per token of text | 1.0000 | 0.9000 to 1.1000 |
        | perplexity per token of text | 2.7183 | 2.4596 to 3.0042 |
        | bits per byte | 0.7213 | 0.6492 to 0.7935 |
        | entropy of the grammar, bits per byte | 0.7000 | exact |

        The interval is value ± t · standard error, the error clustered by row: it covers which rows were held out and which times and masks were drawn. More draws per row would remove at most 0.0200 nats of the standard error. Padding is excluded, as the authors do it: the number bounds the text given its length, which the visible padding shows.
        ");
        let padded = text(&Evaluation {
            bound: BoundEnds::Published,
            unit: Unit::Position,
            nats_per_token_of_text: Some(interval.map(|nats| 1.5 * nats)),
            perplexity_per_token_of_text: Some(interval.map(|nats| (1.5 * nats).exp())),
            padding_excluded: false,
            ..found.clone()
        });
        let lines = |start: &str| {
            padded
                .lines()
                .filter(|line| line.starts_with(start))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            lines("| perplexity"),
            [
                "| perplexity per position, padding included | 2.7183 | 2.4596 to 3.0042 |",
                "| perplexity per token of text | 4.4817 | 3.8574 to 5.2070 |"
            ]
        );
        assert_eq!(
            lines("| quantity"),
            ["| quantity | published estimate | 95% interval |"]
        );
        assert!(
            padded.contains("is not a bound") && padded.contains("1200 positions counted"),
            "{padded}"
        );
        assert!(!padded.contains("bounds"), "{padded}");
        assert_eq!(bits(&found).unwrap(), "0.7213 ± 0.0721");
        let lossy = Evaluation {
            lost_bits_per_byte: 0.25,
            normalized: true,
            ..found
        };
        assert_eq!(
            bits(&lossy).unwrap(),
            "0.7213 ± 0.0721 of normalized text, 0.2500 of it for lost text"
        );
        let text = text(&lossy);
        for expected in [
            "| bits per byte of normalized text | 0.7213 | 0.6492 to 0.7935 |",
            "0.2500 of the bits per byte spell it out",
            "they are not a bound on the original text",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn pseudo_likelihoods_are_called_neither_perplexities_nor_bounds_nor_bits() {
        let pseudo = Evaluation {
            estimator: Estimator::Pseudo,
            bits_per_byte: None,
            lost_bits_per_byte: 0.25,
            normalized: true,
            entropy_bits_per_byte: None,
            ..evaluation()
        };
        let of_positions = Evaluation {
            unit: Unit::Position,
            nats_per_token_of_text: Some(INTERVAL),
            perplexity_per_token_of_text: Some(INTERVAL),
            padding_excluded: false,
            ..pseudo.clone()
        };
        for (found, whole) in [
            (pseudo, "the text given its length"),
            (of_positions, "the whole record"),
        ] {
            let text = text(&found);
            assert!(text.contains(&format!("the number is that of {whole}")), "{text}");
            assert!(text.contains("| pseudo-perplexity per token of text |"), "{text}");
            for wrong in ["| perplexity", " perplexities", "bounds", "bits per byte"] {
                assert!(!text.contains(wrong), "{wrong}: {text}");
            }
        }
    }
}
