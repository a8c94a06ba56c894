//! The training that a checkpoint is of: what of it continues, and the settings that it had.

use serde::{Deserialize, Serialize};

/// Settings of a training, as far as its file states them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunSettings {
    /// Learning rate after warm-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Updates over which it rises.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<f64>,
    /// AdamW's β1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta1: Option<f64>,
    /// AdamW's β2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f64>,
    /// AdamW's ε.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// AdamW's weight decay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Largest global norm of a gradient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient_clip: Option<f64>,
    /// Decay of the weights' moving average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// Dropout rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Rows an update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<f64>,
}

impl RunSettings {
    /// These, and of another source what they lack.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            learning_rate: self.learning_rate.or(other.learning_rate),
            warmup_steps: self.warmup_steps.or(other.warmup_steps),
            beta1: self.beta1.or(other.beta1),
            beta2: self.beta2.or(other.beta2),
            epsilon: self.epsilon.or(other.epsilon),
            weight_decay: self.weight_decay.or(other.weight_decay),
            gradient_clip: self.gradient_clip.or(other.gradient_clip),
            ema: self.ema.or(other.ema),
            dropout: self.dropout.or(other.dropout),
            batch: self.batch.or(other.batch),
        }
    }
}

/// Where the schedule of a learning rate is, and where it ends, as far as its file states it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RateState {
    /// Learning rate of the next update.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_rate: Option<f64>,
    /// The step at which its cosine ends, warm-up included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine_end: Option<f64>,
    /// The learning rate there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine_floor: Option<f64>,
}

impl RateState {
    /// Whether nothing of it is stated.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

/// A training that can be continued: its weights, moments and, if it has one, average are in the files beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Updates done.
    pub step: u64,
    /// Whether it has an average of its weights.
    pub has_average: bool,
    /// Updates of the average, where they are stated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average_updates: Option<u64>,
    /// Whether the decay of the average is the same at every update, and does not rise from a small one.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_decay_constant: bool,
    /// Its settings.
    #[serde(default)]
    pub settings: RunSettings,
    /// The kind of its learning rate's schedule, where it is stated: `constant`, `cosine`, or another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Where that schedule is.
    #[serde(default, skip_serializing_if = "RateState::is_unknown")]
    pub rates: RateState,
    /// What identifies weights and moments: a digest in hex.
    #[serde(default)]
    pub digest: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}
