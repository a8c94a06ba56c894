//! The samplers that a manifest can select, each with its settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::published::{Grid, is_default};

/// A sampler of the reverse process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Sampler {
    /// Ancestral sampling that runs the network only after a token has changed (`ddpm_cache`). It draws the same texts
    /// as `ancestral`, with at most min(steps, L) network calls per row. Only for a model without time conditioning that
    /// gives the mask no probability.
    Cached(AncestralSteps),
    /// Ancestral sampling that runs the network at every step (`ddpm`). For every model but that of `ar`.
    Ancestral(AncestralSteps),
    /// Unmasks one token after the other, in random order, with a network call per token: what `ancestral` draws in the limit of
    /// infinitely many steps, without its error (arXiv 2409.02908). Only for a model without time conditioning that gives
    /// the mask no probability.
    FirstHitting(FirstHitting),
    /// Draws one token after the other, from left to right, with L − 1 network calls per row. Only for a model of `ar`,
    /// which has no other sampler.
    Autoregressive(Autoregressive),
}

impl Sampler {
    /// Its `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cached(_) => "cached",
            Self::Ancestral(_) => "ancestral",
            Self::FirstHitting(_) => "first_hitting",
            Self::Autoregressive(_) => "autoregressive",
        }
    }
}

/// Settings of first-hitting sampling: there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FirstHitting {}

/// Settings of autoregressive sampling: there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Autoregressive {}

/// Settings of ancestral sampling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AncestralSteps {
    /// Masked fraction that the first reverse step starts from. Default: `exact`, since the sampler starts from rows
    /// that are all masked.
    #[serde(default, skip_serializing_if = "is_default")]
    pub grid: Grid,
}
