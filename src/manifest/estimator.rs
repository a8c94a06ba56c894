//! The estimators of a model's likelihood that a manifest can select.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the negative log-likelihood of a model is estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// Draws a time, masks each token with the schedule's probability and weights the loss with the schedule's rate
    /// (arXiv 2406.07524, eq. 10; with `steps`, eq. 43). For `mdlm`, `sedd` and `d3pm`.
    #[default]
    Time,
    /// Draws the number of masked tokens uniformly and weights the loss with length / number (arXiv 2502.09992): the
    /// any-order bound. It is the bound that `time` estimates, with lower variance. For `mlm`, and for `mdlm` without
    /// time conditioning and with both of its switches on.
    Count,
    /// The exact likelihood of a model of `ar`, by the chain rule. Nothing is drawn.
    Exact,
    /// Pseudo-perplexity: each token is masked alone and predicted from all others (arXiv 1902.04094). It is not a bound
    /// on the likelihood. Nothing is drawn, and each token takes a network call. For the same models as `count`.
    Pseudo,
}

impl Estimator {
    /// The manifest's spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Count => "count",
            Self::Exact => "exact",
            Self::Pseudo => "pseudo",
        }
    }

    /// Whether it draws times or masks: the others give the same number for every seed.
    #[must_use]
    pub fn is_random(self) -> bool {
        matches!(self, Self::Time | Self::Count)
    }
}
