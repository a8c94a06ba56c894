//! Settings that reproduce the published code where it computes something else than this program, so that figures can be
//! compared with published ones. The default of each is this program's way, and a default is not part of the cache key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Range of noise levels that a bound covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BoundEnds {
    /// All noise levels: an upper bound on the negative log-likelihood, for any network.
    #[default]
    Valid,
    /// The published number: the mean over times from `sampling_epsilon` to 1. It leaves out both ends of the noise
    /// levels and is not a bound. With B the valid bound and f(m) the mean nats per masked token at masked fraction m,
    /// it equals (B − 0.001 f(0) − 0.001 f(1)) / (1 − 0.001) with the default noise: a perplexity that is 0.4 to 0.6%
    /// lower. Only for the estimator `time`.
    Published,
}

/// Masked fraction that the first reverse step starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grid {
    /// From 1, as in the rows that the sampler starts from: the first of T steps unmasks 1/T + ε (1 − 1/T) of the
    /// tokens (ε of the noise schedule, by default 0.001). This is the chain of the valid bound.
    #[default]
    Exact,
    /// From 1 − α(1), as in both published samplers: the first of T steps unmasks 1/T of the tokens. With many steps,
    /// fewer tokens are unmasked at once (of 1024 tokens in 10,000 steps: 0.10 instead of 1.13). The last step draws
    /// the tokens that are still masked; the published code stops at time 0.00001 and takes the likeliest tokens there.
    Published,
}

/// How the learning rate rises during warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WarmupRates {
    /// Update n = 1, 2, … uses n / `warmup_steps` of the learning rate: the last update of warm-up uses all of it.
    #[default]
    FromOne,
    /// Update n = 1, 2, … uses (n − 1) / `warmup_steps` of the learning rate, as the published code does: the first
    /// update changes nothing. The schedule after warm-up is one update later, too.
    Published,
}

/// How the documents of wrapped rows are joined before they are cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Grouping {
    /// All documents of a split are joined, so that a split has one tail.
    #[default]
    Whole,
    /// As the code of the authors of arXiv 2406.07524 joins them, for rows equal to the published ones.
    Published(PublishedGrouping),
}

/// The published grouping: each of `processes` workers joins 1,000 documents at a time and drops the tail of each such
/// batch. The end mark between documents and at the end of a row is the first token of the tokenizer's encoding of EOS:
/// `[CLS]` for the tokenizers of BERT, EOS for all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishedGrouping {
    /// Number of workers among which the documents are shared out, in their order and as evenly as possible. The
    /// published code takes the number of the machine's cores, so that its rows depend on it; the published figures do
    /// not state it. With 1, the rows are also those of code that streams its documents.
    #[schemars(range(min = 1, max = 65_536))]
    pub processes: u32,
    /// What stands between documents. Default: `eos`, as in the published code; the paper states no end mark.
    #[serde(default, skip_serializing_if = "is_default")]
    pub between: Between,
}

/// What stands between the documents of wrapped rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Between {
    /// An end mark after each document.
    #[default]
    Eos,
    /// Nothing, as in Duo with `insert_valid_eos=False`. A row begins and ends with its marks all the same.
    Nothing,
}

/// Whether a number is 1, the default of what counts parts.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn is_one(number: &u32) -> bool {
    *number == 1
}

/// Whether a setting has its default value, which is neither written out nor part of a cache key.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
