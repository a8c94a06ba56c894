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
    /// Its settings.
    #[serde(default)]
    pub settings: RunSettings,
    /// The kind of its learning rate's schedule, where it is stated: `constant`, `cosine`, or another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// What identifies weights and moments: a digest in hex.
    #[serde(default)]
    pub digest: String,
}
