//! The objective of a train stage: what its model is trained for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::published::is_default;
use crate::shape::{Answered, Backbone};

/// Smallest diffusion time drawn ("sampling_eps"); the authors' configuration.
pub const DEFAULT_SAMPLING_EPSILON: f64 = 1e-3;
/// ε of the log-linear and cosine schedules; the authors' configuration.
pub const DEFAULT_NOISE_EPSILON: f64 = 1e-3;
/// Steps of D3PM (arXiv 2406.07524, `scripts/train_lm1b_d3pm.sh`).
pub const DEFAULT_D3PM_STEPS: u32 = 1000;
/// Share of tokens that BERT predicts (arXiv 1810.04805, section 3.1).
pub const DEFAULT_MLM_RATE: f64 = 0.15;
/// Scale of the bell: half of the times fall within 0.16 of its center.
const DEFAULT_BELL_SCALE: f64 = 0.15;
/// With an ε up to this one, times from ε on mask hardly more than times from 0 on: ε / 2 of the tokens of a batch.
const SMALL_TIME: f64 = 0.01;
/// With so many steps, times of steps mask hardly more than any times: 1 / 2T of the tokens of a batch.
const MANY_STEPS: u32 = 64;

/// The objective of training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Objective {
    /// Masked diffusion with the SUBS parameterization (MDLM, arXiv 2406.07524), in continuous time or in T steps.
    Mdlm(MdlmObjective),
    /// Autoregression: a causal transformer without time input predicts each next token. Its likelihood is exact.
    Ar(ArObjective),
    /// Score entropy of absorbing noise (SEDD, arXiv 2310.16834).
    Sedd(SeddObjective),
    /// Absorbing discrete diffusion in T steps in which the network may also predict the mask (D3PM, arXiv 2107.03006).
    D3pm(D3pmObjective),
    /// Masked language modelling at one rate (BERT, arXiv 1810.04805), as in BERT-Mouth (arXiv 1902.04094).
    Mlm(MlmObjective),
}

impl Default for Objective {
    fn default() -> Self {
        Self::Mdlm(MdlmObjective::default())
    }
}

impl Objective {
    /// Its `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mdlm(_) => "mdlm",
            Self::Ar(_) => "ar",
            Self::Sedd(_) => "sedd",
            Self::D3pm(_) => "d3pm",
            Self::Mlm(_) => "mlm",
        }
    }

    /// The noise schedule of the forward process; nothing for an objective that has none.
    #[must_use]
    pub fn noise(&self) -> Option<&Noise> {
        match self {
            Self::Mdlm(objective) => Some(&objective.noise),
            Self::Sedd(objective) => Some(&objective.noise),
            Self::D3pm(objective) => Some(&objective.noise),
            Self::Ar(_) | Self::Mlm(_) => None,
        }
    }

    /// The network that it trains.
    #[must_use]
    pub fn backbone(&self) -> Backbone {
        match self {
            Self::Ar(_) => Backbone::Transformer,
            Self::Mdlm(_) | Self::Sedd(_) | Self::D3pm(_) | Self::Mlm(_) => Backbone::Dit,
        }
    }

    /// Whether the network is fed the noise level of each row.
    #[must_use]
    pub fn is_time_conditioned(&self) -> bool {
        match self {
            Self::Mdlm(objective) => objective.time_conditioning,
            Self::Sedd(objective) => objective.time_conditioning,
            Self::D3pm(objective) => objective.time_conditioning,
            Self::Ar(_) | Self::Mlm(_) => false,
        }
    }

    /// Which tokens of a training row the network answers for. Where masked fractions are not spread evenly from 0 to 1, and
    /// may be larger, it is all: what is planned for must be enough.
    #[must_use]
    pub fn answered(&self) -> Answered {
        match self {
            Self::Mdlm(objective) => objective.answered(),
            Self::Sedd(objective) => {
                Answered::of_times(&objective.noise, objective.sampling_epsilon, objective.antithetic)
            }
            // Of D3PM the second pass answers the clean row.
            Self::D3pm(_) | Self::Ar(_) => Answered::All,
            Self::Mlm(objective) => Answered::Share(objective.rate),
        }
    }

    /// T, where time is discrete.
    #[must_use]
    pub fn steps(&self) -> Option<u32> {
        match self {
            Self::Mdlm(objective) => objective.steps,
            Self::D3pm(objective) => Some(objective.steps),
            Self::Ar(_) | Self::Sedd(_) | Self::Mlm(_) => None,
        }
    }
}

/// Settings of the MDLM objective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the manifest")]
pub struct MdlmObjective {
    /// Noise schedule of the forward process: the noise level σ(t) = −log α(t), t from 0 (clean) to 1 (all masked).
    /// Default: the MDLM authors' configuration (arXiv 2406.07524).
    #[serde(default)]
    pub noise: Noise,
    /// ε, the smallest diffusion time that is drawn: t = ε + (1 − ε) u, u uniform. Only without `steps`. Default: the MDLM
    /// authors' configuration (`sampling_eps`, arXiv 2406.07524).
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
    /// T, the number of steps of a diffusion in discrete time: times are 1/T, 2/T, …, 1, each equally likely (arXiv
    /// 2406.07524, eq. 43). Default: continuous time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    #[schemars(title = "Steps of discrete time")]
    pub steps: Option<u32>,
    /// Whether the mask has no probability in the network's prediction, since clean text has no masks. If `false`, the
    /// loss of a step is the divergence of arXiv 2406.07524, eq. 39, and `steps` is needed. Default: `true`, as SUBS has
    /// it (arXiv 2406.07524, section 3.2.3).
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub zero_masking: bool,
    /// Whether a token that is not masked is taken to be the clean one. If `false`, the network is also trained to
    /// predict every token of the clean row (the reconstruction term), which takes a second pass of each row, and
    /// `steps` is needed. Default: `true`, as SUBS has it (arXiv 2406.07524, section 3.2.3).
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub carry_over: bool,
    /// Weight of a masked token's negative log-likelihood in the training loss. `mdlm variance` measures the variance of
    /// the loss estimate under each. Default: `elbo`, that of the bound.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weighting: Weighting,
    /// Distribution of the times that are drawn in training; evaluation does not depend on it. Only without `steps`.
    /// `mdlm variance` measures the variance of the loss estimate under each. Default: `uniform`, the MDLM authors'
    /// configuration (arXiv 2406.07524).
    #[serde(default, skip_serializing_if = "is_default")]
    pub times: Times,
}

impl Default for MdlmObjective {
    fn default() -> Self {
        Self {
            noise: Noise::default(),
            sampling_epsilon: DEFAULT_SAMPLING_EPSILON,
            antithetic: true,
            time_conditioning: false,
            steps: None,
            zero_masking: true,
            carry_over: true,
            weighting: Weighting::default(),
            times: Times::default(),
        }
    }
}

impl MdlmObjective {
    fn answered(&self) -> Answered {
        let is_coarse = self.steps.is_some_and(|steps| steps < MANY_STEPS);
        match self.times {
            // The second pass answers the clean row.
            _ if !self.carry_over || is_coarse => Answered::All,
            Times::Clipped(limits) => Answered::Share(limits.high),
            Times::Bell(bell) if bell.center > 0.5 => Answered::All,
            _ => Answered::of_times(&self.noise, self.sampling_epsilon, self.antithetic),
        }
    }
}

impl Answered {
    /// The masked tokens of rows at times from ε on.
    fn of_times(noise: &Noise, epsilon: f64, is_spread: bool) -> Self {
        // The other schedules mask more than the share t of the tokens at some t.
        let is_even = matches!(noise, Noise::LogLinear(_) | Noise::Cosine(_));
        if is_even && is_spread && epsilon <= SMALL_TIME {
            Self::Masked
        } else {
            Self::All
        }
    }
}

/// Weight of a masked token in the training loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// That of the bound: the loss is an estimate of the bound.
    #[default]
    Elbo,
    /// 1: the cross-entropy of the masked tokens, a loss of lower variance that is not the bound (arXiv 2602.15014).
    CrossEntropy,
}

/// Distribution of the times that are drawn in training. With the weighting `elbo`, the loss is divided by the density of
/// its time, so that its expectation is the same for each but `clipped`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Times {
    /// Uniform in t.
    #[default]
    Uniform,
    /// Uniform in the logarithm of the masked fraction, so that every masked token has the same weight (importance
    /// sampling, arXiv 2406.07524, appendix C.3).
    Importance,
    /// The same masked fractions as `importance`. A time-conditioned network is fed the uniform number in the place of
    /// the noise level (change of variables, arXiv 2406.07524).
    ChangeOfVariables,
    /// A bell: a logistic distribution about a time, cut to the times that can be drawn (after the bell-shaped times of
    /// arXiv 2605.13026).
    Bell(Bell),
    /// The masked fraction uniform between two limits (clipped schedule, arXiv 2503.09573). The loss is then the part of
    /// the bound between them.
    Clipped(Clipped),
}

/// A bell-shaped distribution of times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bell {
    /// The likeliest time. Default: the middle of the times.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub center: f64,
    /// Scale of the logistic distribution; its standard deviation is 1.81 times as much. Default: our choice.
    #[serde(default = "default_bell_scale")]
    #[schemars(range(min = 0.05, max = 10.0))]
    pub scale: f64,
}

impl Default for Bell {
    fn default() -> Self {
        Self {
            center: half(),
            scale: DEFAULT_BELL_SCALE,
        }
    }
}

/// Limits of the masked fraction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clipped {
    /// β: the smallest masked fraction.
    #[schemars(range(min = 0.001, max = 1.0))]
    pub low: f64,
    /// ω: the largest masked fraction, above `low`.
    #[schemars(range(min = 0.001, max = 1.0))]
    pub high: f64,
}

/// Settings of the autoregressive objective: there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArObjective {}

/// Settings of the SEDD objective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SeddObjective {
    /// Noise schedule of the forward process. Default: the MDLM authors' configuration of SEDD (arXiv 2406.07524).
    #[serde(default)]
    pub noise: Noise,
    /// ε, the smallest diffusion time that is drawn: t = ε + (1 − ε) u, u uniform. Default: the MDLM authors'
    /// configuration (`sampling_eps`, arXiv 2406.07524).
    #[serde(default = "default_sampling_epsilon")]
    #[schemars(range(min = 1e-6, max = 0.5))]
    #[schemars(title = "Smallest time")]
    pub sampling_epsilon: f64,
    /// Spreads the times of a batch evenly over the interval (low-discrepancy times) instead of drawing them
    /// independently. Default: the MDLM authors' configuration of SEDD (arXiv 2406.07524).
    #[serde(default = "yes")]
    pub antithetic: bool,
    /// Gives the network the noise level of each row as an input. `false` is refused. Default: scores depend on the noise
    /// level.
    #[serde(default = "yes")]
    pub time_conditioning: bool,
}

impl Default for SeddObjective {
    fn default() -> Self {
        Self {
            noise: Noise::default(),
            sampling_epsilon: DEFAULT_SAMPLING_EPSILON,
            antithetic: true,
            time_conditioning: true,
        }
    }
}

/// Settings of the D3PM objective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct D3pmObjective {
    /// T, the number of steps: times are 1/T, 2/T, …, 1, each equally likely. Default: the MDLM authors' configuration of
    /// D3PM (arXiv 2406.07524).
    #[serde(default = "default_d3pm_steps")]
    #[schemars(range(min = 1, max = 1_000_000))]
    #[schemars(title = "Steps of discrete time")]
    pub steps: u32,
    /// Noise schedule of the forward process. Default: the MDLM authors' configuration of D3PM (arXiv 2406.07524).
    #[serde(default)]
    pub noise: Noise,
    /// Spreads the times of a batch evenly over the steps (low-discrepancy times) instead of drawing them independently.
    /// Default: the MDLM authors' configuration of D3PM (arXiv 2406.07524).
    #[serde(default = "yes")]
    pub antithetic: bool,
    /// Gives the network the noise level of each row as an input. Default: the MDLM authors' configuration of D3PM
    /// (arXiv 2406.07524).
    #[serde(default = "yes")]
    pub time_conditioning: bool,
}

impl Default for D3pmObjective {
    fn default() -> Self {
        Self {
            steps: DEFAULT_D3PM_STEPS,
            noise: Noise::default(),
            antithetic: true,
            time_conditioning: true,
        }
    }
}

/// Settings of masked language modelling.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MlmObjective {
    /// Probability that a token is chosen to be predicted; `random` and `kept` share out the chosen ones, and the rest of
    /// them become the mask. Default: BERT's (arXiv 1810.04805).
    #[serde(default = "default_mlm_rate")]
    #[schemars(range(min = 0.001, max = 1.0))]
    pub rate: f64,
    /// Share of the chosen tokens that a random token replaces instead of the mask; at most 1 together with `kept`.
    /// Default: BERT's (arXiv 1810.04805).
    #[serde(default = "tenth")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub random: f64,
    /// Share of the chosen tokens that stay as they are; at most 1 together with `random`. Default: BERT's (arXiv
    /// 1810.04805).
    #[serde(default = "tenth")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub kept: f64,
}

impl Default for MlmObjective {
    fn default() -> Self {
        Self {
            rate: DEFAULT_MLM_RATE,
            random: 0.1,
            kept: 0.1,
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
        Self::log_linear(DEFAULT_NOISE_EPSILON)
    }
}

impl Noise {
    /// The log-linear schedule with that ε.
    #[must_use]
    pub const fn log_linear(epsilon: f64) -> Self {
        Self::LogLinear(NoiseEpsilon { epsilon })
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

fn half() -> f64 {
    0.5
}

fn tenth() -> f64 {
    0.1
}

fn default_bell_scale() -> f64 {
    DEFAULT_BELL_SCALE
}

fn default_d3pm_steps() -> u32 {
    DEFAULT_D3PM_STEPS
}

fn default_mlm_rate() -> f64 {
    DEFAULT_MLM_RATE
}

fn default_sampling_epsilon() -> f64 {
    DEFAULT_SAMPLING_EPSILON
}

fn default_noise_epsilon() -> f64 {
    DEFAULT_NOISE_EPSILON
}
