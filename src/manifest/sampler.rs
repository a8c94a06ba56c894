//! The samplers that a manifest can select, each with its settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::published::{Grid, is_default};

/// A sampler: which tokens of a row are drawn in which order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// Tweedie τ-leaping (arXiv 2310.16834, section 4.2): the exact reverse step of each token for the scores that the network
    /// gives. For `sedd`, and for models that give the mask no probability, whose scores make it `ancestral` with
    /// `"grid": "published"`.
    Analytic(Analytic),
    /// τ-leaping with Euler steps: a token is unmasked with probability (step length · rate) (arXiv 2310.16834, section
    /// 4.2). For the models of `analytic`.
    Euler(Euler),
    /// Unmasks an even share of the masked tokens in each step, chosen at random.
    Random(OrderedSteps),
    /// Unmasks those tokens first that the model gives the largest probability (MaskGIT, arXiv 2202.04200; LLaDA's low-confidence
    /// remasking, arXiv 2502.09992).
    Confidence(ConfidenceSteps),
    /// Unmasks those tokens first whose two largest probabilities differ most (arXiv 2502.06768; Dream's `topk_margin`).
    Margin(ConfidenceSteps),
    /// Unmasks those tokens first whose distributions have the smallest entropy (Dream's `entropy`).
    Entropy(ConfidenceSteps),
    /// Unmasks tokens from left to right.
    LeftToRight(OrderedSteps),
    /// Unmasks in each step all tokens that the model gives at least `probability`, and one at least (Fast-dLLM, arXiv
    /// 2505.22618): as many steps as a row needs, whatever `steps` is.
    Threshold(Threshold),
    /// Ancestral sampling that masks tokens again, so that later steps can replace them (ReMDM, arXiv 2503.00307).
    Remasking(Remasking),
    /// Gibbs sampling (BERT-Mouth, arXiv 1902.04094): draws each token anew, given all others, in `steps` sweeps over the row, each in
    /// a random order. A sweep takes L network calls per row. Only for a model of `mlm`.
    Gibbs(Gibbs),
    /// Draws texts of any length window by window: each window keeps the last L − `stride` tokens of the one before it, and
    /// another sampler draws the others (arXiv 2406.07524, section 3.3).
    SemiAutoregressive(SemiAutoregressive),
    /// Draws one token after the other, from left to right, with L − 1 network calls per row. Only for a model of `ar`,
    /// which has no other sampler.
    Autoregressive(Autoregressive),
}

/// Calls a macro with each kind of sampler and its spelling.
macro_rules! kinds {
    ($($variant:ident $name:literal,)*) => {
        impl Sampler {
            /// Its `kind`.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            /// Each kind with its defaults.
            #[must_use]
            pub fn every_kind() -> Vec<Self> {
                vec![$(Self::$variant(Default::default()),)*]
            }
        }
    };
}

kinds! {
    Cached "cached",
    Ancestral "ancestral",
    FirstHitting "first_hitting",
    Analytic "analytic",
    Euler "euler",
    Random "random",
    Confidence "confidence",
    Margin "margin",
    Entropy "entropy",
    LeftToRight "left_to_right",
    Threshold "threshold",
    Remasking "remasking",
    Gibbs "gibbs",
    SemiAutoregressive "semi_autoregressive",
    Autoregressive "autoregressive",
}

impl Sampler {
    /// Tokens of a block that is drawn as a whole before the next one, where there are blocks.
    #[must_use]
    pub fn block(&self) -> Option<u32> {
        match self {
            Self::Random(settings) | Self::LeftToRight(settings) => settings.block,
            Self::Confidence(settings) | Self::Margin(settings) | Self::Entropy(settings) => settings.block,
            Self::Threshold(settings) => settings.block,
            _ => None,
        }
    }

    /// Whether it chooses positions by how sure the model is of them.
    #[must_use]
    pub fn is_by_confidence(&self) -> bool {
        matches!(
            self,
            Self::Confidence(_) | Self::Margin(_) | Self::Entropy(_) | Self::Threshold(_)
        )
    }
}

/// Settings of first-hitting sampling: there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FirstHitting {}

/// Settings of analytic sampling: there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Analytic {}

/// Settings of Euler sampling: there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Euler {}

/// Settings of Gibbs sampling: there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gibbs {}

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

/// How many tokens a step unmasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnmaskingSchedule {
    /// The same number in each step, the first ones one more where they do not divide evenly (LLaDA, arXiv 2502.09992).
    #[default]
    Linear,
    /// Few at first: after the share r of the steps the share cos(π r / 2) is still masked (MaskGIT, arXiv 2202.04200).
    Cosine,
}

/// Settings of samplers whose order does not depend on the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderedSteps {
    /// Number of tokens of a block. Blocks are drawn from left to right, each as a whole before the next; the steps are
    /// shared among them by their masked tokens. Default: the row is one block.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 1))]
    pub block: Option<u32>,
    /// How many tokens a step unmasks. Default: `linear`, as LLaDA does.
    #[serde(default, skip_serializing_if = "is_default")]
    pub schedule: UnmaskingSchedule,
}

/// Settings of samplers whose order depends on how sure the model is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfidenceSteps {
    /// Number of tokens of a block. Blocks are drawn from left to right, each as a whole before the next; the steps are
    /// shared among them by their masked tokens. Default: the row is one block.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 1))]
    pub block: Option<u32>,
    /// How many tokens a step unmasks. Default: `linear`, as LLaDA does.
    #[serde(default, skip_serializing_if = "is_default")]
    pub schedule: UnmaskingSchedule,
    /// Scale of the Gumbel noise that is added to the confidence; it falls linearly to 0 in the last step of a block
    /// (MaskGIT, arXiv 2202.04200). Default: 0, the most confident tokens without noise.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub choice_temperature: f64,
}

/// Settings of the sampler `threshold`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// Probability from which a token is unmasked. Default: Fast-dLLM's (arXiv 2505.22618).
    #[serde(default = "default_threshold")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub probability: f64,
    /// Number of tokens of a block. Blocks are drawn from left to right, each as a whole before the next. Default: the row is
    /// one block.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 1))]
    pub block: Option<u32>,
}

/// With which probability σ a step from α_t to α_s masks a token again. The probability can be at most
/// σ_max = min(1, (1 − α_s) / α_t), at which all tokens are drawn anew (ReMDM, arXiv 2503.00307, section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RemaskingRule {
    /// min(η, σ_max), η = 0.008 by default.
    #[default]
    Cap,
    /// η σ_max, η = 0.015 by default.
    Rescale,
    /// σ_max times a softmax over the row's tokens of minus the probability that each had when it was drawn: tokens that the
    /// model was unsure of are masked again.
    Confidence,
    /// η, 0.02 by default, while the time is between `loop_on` and `loop_off` and α stays at `loop_alpha`; none before and
    /// after.
    Loop,
    /// (α_s − α_t) / α_t: the forward process takes back what the step has unmasked before (arXiv 2503.00307, section 4.2).
    ForwardBackward,
}

/// Settings of remasking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Remasking {
    /// How often tokens are masked again. Default: `cap`, the paper's first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rule: RemaskingRule,
    /// η of the rules `cap`, `rescale` and `loop`. Default: the paper's for the rule.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub eta: Option<f64>,
    /// Time at which the rule `loop` begins to mask tokens again; times run from 1 to 0. Default: 0.55 (ReMDM's code).
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub loop_on: Option<f64>,
    /// Time at which the rule `loop` ends. Default: 0.05 (ReMDM's code).
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub loop_off: Option<f64>,
    /// Unmasked share α while the rule `loop` masks tokens again. Default: 0.9 (ReMDM's code).
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub loop_alpha: Option<f64>,
}

impl Remasking {
    /// Time at which the loop begins; `remdm`, configuration of `remdm-loop`.
    pub const LOOP_ON: f64 = 0.55;
    /// Time at which it ends.
    pub const LOOP_OFF: f64 = 0.05;
    /// Unmasked share in it.
    pub const LOOP_ALPHA: f64 = 0.9;

    /// η, of a rule that has it: as written, or the paper's.
    #[must_use]
    pub fn eta(&self) -> Option<f64> {
        let default = match self.rule {
            RemaskingRule::Cap => 0.008,
            RemaskingRule::Rescale => 0.015,
            RemaskingRule::Loop => 0.02,
            RemaskingRule::Confidence | RemaskingRule::ForwardBackward => return None,
        };
        Some(self.eta.unwrap_or(default))
    }
}

/// Where a text ends whose length is not stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// At the first token that ends a text (EOS).
    EndOfText,
}

/// The sampler that draws the tokens of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowSampler {
    /// `cached`.
    Cached,
    /// `ancestral`.
    Ancestral,
    /// `first_hitting`.
    FirstHitting,
}

/// Settings of semi-autoregressive sampling. Either `length` or `until` and `max_length` is stated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SemiAutoregressive {
    /// Number of tokens that each window after the first draws; at most L − 1. Default: half of the row, as in the MDLM
    /// authors' experiment (512 of 1024, arXiv 2406.07524).
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 1))]
    pub stride: Option<u32>,
    /// Number of tokens of a text. Default: none, see `until`.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 2, max = 10_000_000))]
    pub length: Option<u32>,
    /// Where a text ends. It needs `max_length`. Default: none, see `length`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub until: Option<Until>,
    /// Number of tokens of a text at most, with `until`. Default: none.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 2, max = 10_000_000))]
    pub max_length: Option<u32>,
    /// Number of reverse steps of each window after the first. Default: `steps` of the stage, as the MDLM authors do.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub window_steps: Option<u32>,
    /// The sampler of a window. Default: `cached` where it fits the model, else `ancestral`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub window: Option<WindowSampler>,
}

impl WindowSampler {
    /// The sampler, with its defaults.
    #[must_use]
    pub fn sampler(self) -> Sampler {
        match self {
            Self::Cached => Sampler::Cached(AncestralSteps::default()),
            Self::Ancestral => Sampler::Ancestral(AncestralSteps::default()),
            Self::FirstHitting => Sampler::FirstHitting(FirstHitting {}),
        }
    }
}

fn default_threshold() -> f64 {
    Threshold::default().probability
}

impl Default for Threshold {
    fn default() -> Self {
        Self {
            probability: 0.9,
            block: None,
        }
    }
}
