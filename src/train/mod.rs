//! The training loop: batches from packed rows, gradients from a network, AdamW, checkpoints, and a diagnosis if the
//! loss or a gradient is not finite. It is generic over the learner ([`Learner`]: a network with its optimizer, on any
//! device) and the objective ([`Objective`]), and does not depend on stages. [`crate::store::checkpoints`] provides the
//! paths of checkpoints.
//!
//! One step, for the rows g = step · B + i of the endless, epoch-wise permuted order of the data:
//!
//! 1. the objective draws each row's noise;
//! 2. the loss is Σ w · nll / (valid tokens of all B rows), a mean over tokens as in the authors' code (padding
//!    excluded), so that micro-batches accumulate to the gradient of the whole batch, row by row in order;
//! 3. the gradients of the batch's grains are added in a tree, over the ranks that share it ([`crate::ranks`]);
//! 4. the gradient is clipped to a global norm, AdamW updates the weights, and their moving average follows.
//!
//! The state after step n is a function of the configuration, the data and the seed. It does not depend on interruptions,
//! nor, on the CPU, on threads or micro-batches; on a GPU the micro-batch decides in which order gradients are summed.

mod batch;
pub mod checkpoint;
mod config;
pub mod cost;
mod diagnosis;
mod learning_rate;
mod metrics;
mod trainer;

pub use checkpoint::{CheckpointManager, History, Restored, RestoredFrom, TrainState};
pub use config::{TrainConfig, workload};
pub use learning_rate::{ema_decay, learning_rate};
pub use metrics::{
    Log, METRICS, MetricsLine, Otherwise, StepLine, Validation, ValidationLine, Watch, read_metrics,
};
pub use trainer::{Hooks, StepBench, TrainProgress, Trained, Trainer};

pub use crate::kernels::adamw::{AdamW, Moments, Update};
pub use crate::store::checkpoints::{Checkpoints, Retention};

#[cfg(test)]
mod tests;
