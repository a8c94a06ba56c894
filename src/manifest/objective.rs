//! The objective of a train stage: what its model is trained for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DEFAULT_NOISE_EPSILON, DEFAULT_SAMPLING_EPSILON};
use crate::shapes::Backbone;

/// The objective of training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Objective {
    /// Masked diffusion in continuous time with the SUBS parameterization (MDLM, arXiv 2406.07524).
    Mdlm(MdlmObjective),
}

impl Default for Objective {
    fn default() -> Self {
        Self::Mdlm(MdlmObjective::default())
    }
}

impl Objective {
    /// The noise schedule of the forward process; nothing for an objective that has none.
    #[must_use]
    pub fn noise(&self) -> Option<&Noise> {
        match self {
            Self::Mdlm(objective) => Some(&objective.noise),
        }
    }

    /// The network that it trains.
    #[must_use]
    pub fn backbone(&self) -> Backbone {
        match self {
            Self::Mdlm(_) => Backbone::Dit,
        }
    }

    /// Whether the network is fed the noise level of each row.
    #[must_use]
    pub fn is_time_conditioned(&self) -> bool {
        match self {
            Self::Mdlm(objective) => objective.time_conditioning,
        }
    }
}

/// Settings of the MDLM objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MdlmObjective {
    /// Noise schedule of the forward process: the noise level σ(t) = −log α(t), t from 0 (clean) to 1 (all masked).
    /// Default: the MDLM authors' configuration (arXiv 2406.07524).
    #[serde(default)]
    pub noise: Noise,
    /// ε, the smallest diffusion time that is drawn: t = ε + (1 − ε) u, u uniform. Default: the MDLM authors'
    /// configuration (`sampling_eps`, arXiv 2406.07524).
    #[serde(default = "default_sampling_epsilon")]
    #[schemars(range(min = 1e-6, max = 0.5))]
    #[schemars(title = "Smallest time")]
    pub sampling_epsilon: f64,
    /// Spreads the times of a batch evenly over the interval (low-discrepancy times) instead of drawing them
    /// independently. Default: the MDLM authors' configuration (arXiv 2406.07524).
    #[serde(default = "yes")]
    pub antithetic: bool,
    /// Gives the network the noise level of each row as an input. If off, the input is always zero, which is faster and
    /// lets the sampler reuse the network's output. Default: the MDLM authors' configuration (arXiv 2406.07524).
    #[serde(default)]
    pub time_conditioning: bool,
}

impl Default for MdlmObjective {
    fn default() -> Self {
        Self {
            noise: Noise::default(),
            sampling_epsilon: DEFAULT_SAMPLING_EPSILON,
            antithetic: true,
            time_conditioning: false,
        }
    }
}

/// Noise schedule: σ(t) = −log α(t), t from 0 (clean) to 1 (all masked). Formulas of arXiv 2406.07524, appendix E.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Noise {
    /// σ(t) = −log(1 − (1 − ε) t): the move chance grows linearly with t.
    LogLinear(NoiseEpsilon),
    /// σ(t) = −log(ε + (1 − ε) cos(πt/2)).
    Cosine(NoiseEpsilon),
    /// σ(t) = −log(ε + (1 − ε) cos²(πt/2)).
    CosineSquared(NoiseEpsilon),
    /// σ(t) = σ_min + t (σ_max − σ_min).
    Linear(NoiseRange),
    /// σ(t) = σ_min^(1−t) σ_max^t.
    Geometric(NoiseRange),
}

impl Default for Noise {
    fn default() -> Self {
        Self::LogLinear(NoiseEpsilon {
            epsilon: DEFAULT_NOISE_EPSILON,
        })
    }
}

/// The ε that keeps a schedule away from its singular end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoiseEpsilon {
    /// ε of the schedule, which keeps α above zero at t = 1. Default: the MDLM authors' configuration (arXiv
    /// 2406.07524).
    #[serde(default = "default_noise_epsilon")]
    #[schemars(range(min = 1e-9, max = 0.1))]
    #[schemars(title = "ε")]
    pub epsilon: f64,
}

/// The ends of a schedule's total noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoiseRange {
    /// σ at t = 0, below `sigma_max`.
    #[schemars(range(min = 1e-12, max = 1.0))]
    #[schemars(title = "Smallest σ")]
    pub sigma_min: f64,
    /// σ at t = 1, above `sigma_min`.
    #[schemars(range(min = 1.0, max = 1000.0))]
    #[schemars(title = "Largest σ")]
    pub sigma_max: f64,
}

fn yes() -> bool {
    true
}

fn default_sampling_epsilon() -> f64 {
    DEFAULT_SAMPLING_EPSILON
}

fn default_noise_epsilon() -> f64 {
    DEFAULT_NOISE_EPSILON
}
