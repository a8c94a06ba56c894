//! The state of a training run on disk, which survives a crash.
//!
//! A checkpoint is a folder:
//!
//! | file | content |
//! |---|---|
//! | `raw.safetensors` | the weights, under the authors' names |
//! | `ema.safetensors` | their moving average, under the same names |
//! | `optimizer.safetensors` | the moments: `exp_avg/…` and `exp_avg_sq/…` (PyTorch's names) before the weight's name |
//! | `metrics.jsonl` | the metrics so far |
//! | `state.json` | step, digests of the other files, and the settings that decide the run ([`History`]) |
//!
//! No other state exists: random numbers have none (see [`crate::rng`]), and the position in the data is a function of
//! the step. A checkpoint is written under a temporary name, fsynced and renamed. `state.json` holds the digests, so a
//! folder that a crash or a disk has damaged is detected, and the previous checkpoint is used.
//!
//! A run may continue a model's training ([`CheckpointManager::continuing`]): of the same files but `state.json`, which a model
//! from elsewhere lacks.
//!
//! A run may resume from the checkpoint of another run: a shorter one, or one that differs later on. It uses only a
//! checkpoint whose steps it would have made itself, bit for bit ([`History::shares`]).
//!
//! | module | purpose |
//! |---|---|
//! | `format` | the files of a checkpoint |
//! | `history` | whether a run would have passed through a state itself |
//! | `manager` | which checkpoints to write, keep and resume from ([`CheckpointManager`], [`Left`]) |
//! | [`crate::store::checkpoints`] | the paths of checkpoints, and how long they stay |

mod format;
mod history;
mod manager;

pub use format::{
    EMA, OPTIMIZER, RAW, STATE, TrainState, digest_of, group_of, lend, load, moments, not_validated, read,
    write,
};
pub use history::History;
pub use manager::{CheckpointManager, Left, Restored, RestoredFrom, not_kept};
