//! How to train, as numbers.

use crate::kernels::adamw::AdamW;
use crate::manifest::{LearningRateSchedule, WarmupRates};

/// How to train.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainConfig {
    /// Updates.
    pub steps: u64,
    /// B: rows an update.
    pub batch: u32,
    /// Rows that go through the network at a time; divides `batch`.
    pub micro_batch: u32,
    /// Learning rate after warm-up.
    pub learning_rate: f64,
    /// Updates over which it rises.
    pub warmup_steps: u64,
    /// From which number they are counted.
    pub warmup_rates: WarmupRates,
    /// What it does then.
    pub schedule: LearningRateSchedule,
    /// The optimizer's constants.
    pub adam: AdamW,
    /// Largest global norm of a gradient; 0 for no limit.
    pub gradient_clip: f64,
    /// Decay of the weights' moving average.
    pub ema: f64,
    /// Dropout rate.
    pub dropout: f64,
    /// Steps between validations; 0 for one at the end.
    pub validation_every: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Seed of order and dropout.
    pub seed: u64,
}
