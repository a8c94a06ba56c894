//! The samplers that a manifest can name, each with its settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::published::{Grid, is_default};

/// A sampler of the reverse process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Sampler {
    /// Ancestral sampling that asks the network again only when a token changed (`ddpm_cache`). Draws the same texts as
    /// `ancestral`, with at most min(steps, length) network calls a row. For a model without time conditioning.
    Cached(AncestralSteps),
    /// Ancestral sampling with a network call every step (`ddpm`).
    Ancestral(AncestralSteps),
}

impl Sampler {
    /// Its `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cached(_) => "cached",
            Self::Ancestral(_) => "ancestral",
        }
    }

    /// Whether it rests on a network without time conditioning, whose answer changes with the tokens alone.
    #[must_use]
    pub fn ignores_time(&self) -> bool {
        matches!(self, Self::Cached(_))
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self::Cached(AncestralSteps::default())
    }
}

/// The steps of ancestral sampling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AncestralSteps {
    /// From which masked share the first reverse step goes. Default: from that of an all-masked row.
    #[serde(default, skip_serializing_if = "is_default")]
    pub grid: Grid,
}
