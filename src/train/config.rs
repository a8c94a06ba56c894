//! How to train, as numbers.

use crate::diffusion;
use crate::kernels::adamw::AdamW;
use crate::manifest::{self, LearningRateSchedule, WarmupRates};
use crate::model::footprint::Workload;

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

/// What training for an objective asks of a network; `built` is the objective that the settings make.
#[must_use]
pub fn workload(settings: &manifest::Objective, built: &dyn diffusion::Objective) -> Workload {
    Workload {
        answered: settings.answered(),
        is_conditioned: settings.is_time_conditioned(),
        loss: built.loss(),
    }
}
