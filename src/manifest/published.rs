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

/// Whether a setting has its default value, which is neither written out nor part of a cache key.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
