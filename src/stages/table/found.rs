//! What a result shows in a table: the metrics of its artifact, and facts of its model that the manifest states.

use std::path::Path;

use super::MeasuredText;
use crate::data::read_json;
use crate::error::Result;
use crate::evaluate::Interval;
use crate::manifest::{Compared, ModelFacts, TableValue};
use crate::stages::compare::{Row, metrics};
use crate::stages::evaluate::{EVALUATION, Evaluation};
use crate::stages::judge::{JUDGEMENTS, JudgedSamples, Judgements};
use crate::stages::sample::{SUMMARY, Summary};

/// A result, opened.
#[derive(Clone, Debug, Default)]
pub struct FoundResult {
    /// Its metrics, with what a comparison needs to know of them.
    pub row: Row,
    /// What an evaluation measured.
    pub text: Option<MeasuredText>,
    /// The standard error that more draws a row would remove, in nats per token.
    monte_carlo_error: Option<f64>,
    /// Samples that a judge stage measured.
    judged: Option<Box<JudgedSamples>>,
    /// Network calls for a sampled row.
    network_calls: Option<f64>,
    /// What is known of its model.
    facts: Option<ModelFacts>,
}

impl FoundResult {
    /// A result with these metrics, of a model with these facts.
    #[cfg(test)]
    pub(super) fn with(row: Row, facts: Option<ModelFacts>) -> Self {
        Self {
            row,
            facts,
            ..Self::default()
        }
    }

    /// Opens the artifact of a result.
    ///
    /// # Errors
    /// A file of the artifact cannot be read.
    pub fn open(of: &Compared, artifact: &Path) -> Result<Self> {
        let mut row = metrics(artifact)?;
        row.name.clone_from(&of.name);
        row.point.clone_from(&of.point);
        if let Some(setting) = of.setting {
            row.place(setting, of.seeds.clone());
        }
        let mut found = Self {
            row,
            facts: of.facts,
            ..Self::default()
        };
        if artifact.join(EVALUATION).exists() {
            let evaluation = Evaluation::open(artifact)?;
            found.text = Some(MeasuredText {
                rows: evaluation.rows,
                rows_of_split: evaluation.rows_of_split,
                tokens: evaluation.tokens,
                words: evaluation.words,
            });
            found.monte_carlo_error = evaluation.monte_carlo_error;
        }
        if artifact.join(JUDGEMENTS).exists() {
            let first = Judgements::open(artifact)?.rows.into_iter().next();
            found.network_calls = first.as_ref().map(|judged| judged.network_calls);
            found.judged = first.map(Box::new);
        }
        if artifact.join(SUMMARY).exists() {
            let summary: Summary = read_json(&artifact.join(SUMMARY))?;
            found.network_calls = Some(summary.network_calls as f64 / f64::from(summary.rows.max(1)));
        }
        Ok(found)
    }

    /// The value that a column shows of it; nothing where it has none.
    #[must_use]
    pub fn value(&self, show: TableValue) -> Option<Interval> {
        let exact = |value: f64| Interval {
            value,
            low: None,
            high: None,
        };
        let judged = self.judged.as_ref();
        match show {
            TableValue::BitsPerToken => {
                let nats = self.row.metric(crate::manifest::Metric::NatsPerToken)?;
                Some(nats.map(|nats| nats / std::f64::consts::LN_2))
            }
            TableValue::MonteCarloError => self.monte_carlo_error.map(exact),
            TableValue::Grammatical if judged.is_some() => judged?.grammar.as_ref()?.share,
            TableValue::GenerativePerplexity => Some(judged?.perplexity.as_ref()?.perplexity),
            TableValue::UnigramEntropy => judged?.text.unigram_entropy,
            TableValue::NetworkCalls => self.network_calls.map(exact),
            TableValue::Parameters => Some(exact(self.facts?.parameters as f64)),
            TableValue::TrainedTokens => Some(exact(self.facts?.trained_tokens? as f64)),
            TableValue::Rows => Some(exact(self.text?.rows as f64)),
            TableValue::Tokens => Some(exact(self.text?.tokens as f64)),
            TableValue::Words => Some(exact(self.text?.words? as f64)),
            TableValue::Perplexity
            | TableValue::NatsPerToken
            | TableValue::BitsPerByte
            | TableValue::BitsPerByteNormalized
            | TableValue::PerplexityPerWord
            | TableValue::LastWordPerplexity
            | TableValue::LastWordAccuracy
            | TableValue::PseudoPerplexity
            | TableValue::Grammatical => self.row.metric(show.metric()?),
        }
    }
}
