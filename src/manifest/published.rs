//! Where the published code computes something else than this program: its ways, by name, for figures that are to be
//! compared with published ones. Each is a setting whose default is this program's way, and which stays out of the cache
//! key there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What of the noise levels a bound covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BoundEnds {
    /// All of them: a bound on the negative log-likelihood, for any network.
    #[default]
    Valid,
    /// The published number: the mean over times from `sampling_epsilon` to 1, which leaves out both ends and is no bound.
    /// With B the valid bound and f(m) the mean nats of a masked token at masked share m, it is
    /// (B − 0.001 f(0) − 0.001 f(1)) / (1 − 0.001) with the default noise: 0.4 to 0.6% less perplexity. For the estimator
    /// `time`.
    Published,
}

/// From which masked share the first reverse step goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grid {
    /// From 1, since the chain begins all masked: the first of T steps unmasks 1/T + ε (1 − 1/T) of the tokens (ε of the
    /// noise schedule, 0.001), and the chain is that of the valid bound.
    #[default]
    Exact,
    /// From 1 − α(1), as both published samplers do: the first step unmasks 1/T, and after many steps fewer tokens at once
    /// (of 1024 in 10,000 steps: 0.10 instead of 1.13). The last step draws what is left; the published code ends at time
    /// 0.00001 and takes the likeliest tokens there.
    Published,
}

/// The learning rates of warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WarmupRates {
    /// Update n = 1, 2, … has n / `warmup_steps` of the learning rate: the first one learns, the last of warm-up has all.
    #[default]
    FromOne,
    /// Update n has (n − 1) / `warmup_steps`, as the published code has it: the first one learns nothing. What follows
    /// warm-up is one update later, too.
    Published,
}

/// Whether a setting is its default, which is not written and is in no cache key.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
