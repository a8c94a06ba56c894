//! The state of a training run on disk, and what survives a crash.
//!
//! A checkpoint is a folder:
//!
//! | file | content |
//! |---|---|
//! | `raw.safetensors` | the weights, under the authors' names |
//! | `ema.safetensors` | their moving average, under the same names |
//! | `optimizer.safetensors` | the moments, `exp_avg/…` and `exp_avg_sq/…` before the weight's name (PyTorch's words) |
//! | `metrics.jsonl` | the metrics so far |
//! | `state.json` | step, digests of the other files, what decides the run ([`History`]) |
//!
//! Random numbers have no state (see [`crate::rng`]), and the position in the data is a function of the step: there is
//! nothing else to keep. A checkpoint is written beside its place, fsynced and renamed; `state.json` holds the digests,
//! so a folder that a crash or a disk has damaged is recognised and the one before it is taken.
//!
//! A run may go on from what another one left: a shorter one, or one that differs later on. It takes up a checkpoint
//! whose steps are those that it would have made itself, to the bit ([`History::shares`]).
//!
//! | module | knows |
//! |---|---|
//! | `format` | the files of a checkpoint |
//! | `history` | whether a run would have come through a state itself |
//! | `manager` | what to write, to keep and to take up ([`CheckpointManager`], [`Left`]) |
//! | [`crate::store::checkpoints`] | where checkpoints lie, and how long |

mod format;
mod history;
mod manager;

pub use format::{EMA, METRICS, OPTIMIZER, RAW, STATE, TrainState, group_of, not_validated, read, write};
pub use history::History;
pub use manager::{CheckpointManager, Left, Restored, not_kept};
