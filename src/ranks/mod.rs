//! Ranks: processes that train one model together, and the exchange of numbers between them.
//!
//! A batch is cut into *grains*, a power of two of them, each with the same number of rows in the order of the batch. The
//! gradient of a grain is summed as that of a whole batch is without ranks. The grains are added in one fixed binary tree
//! ([`GrainTree`]), of which each rank computes a subtree. A [`Communicator`] moves numbers and never adds any, so that the sum
//! has the same bits for every number of ranks and every library.
//!
//! After the exchange each rank has the sum of its slice alone. It updates that slice of the weights, with moments and
//! averages of that slice alone, and the weights are gathered (ZeRO, stage 1, arXiv 1910.02054). The numbers that a rank
//! sends are those that a reduce-scatter and an all-gather of a ring would send.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use crate::error::Result;

pub mod alone;
mod cut;
pub mod launcher;
#[cfg(unix)]
pub mod mpi;
pub mod threads;
mod tree;

pub use alone::Alone;
pub use cut::{Cut, PIECE};
pub use tree::{GrainTree, fold};

/// One of the processes that share every step of a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// Its number, from 0.
    pub rank: u32,
    /// How many there are.
    pub world: u32,
}

impl Rank {
    /// The only rank.
    pub const ALONE: Self = Self { rank: 0, world: 1 };

    /// Whether it is the one that writes files and reports.
    #[must_use]
    pub fn is_first(self) -> bool {
        self.rank == 0
    }

    /// This rank's part of things that the world divides, or that differ by one between ranks.
    #[must_use]
    pub fn part(self, things: u32) -> Range<u32> {
        let bound = |rank: u32| {
            let bound = u64::from(things) * u64::from(rank) / u64::from(self.world);
            u32::try_from(bound).unwrap_or(things)
        };
        bound(self.rank)..bound(self.rank + 1)
    }
}

/// Moves numbers between ranks, and never adds any. All ranks call the same operations in the same order with the same
/// sizes; each waits for the others.
///
/// # Errors
/// Every operation fails on all ranks that wait in it when one has failed or has gone ([`Communicator::abandon`]). After
/// an error the communicator cannot be used.
#[expect(clippy::missing_errors_doc, reason = "stated once, above")]
pub trait Communicator: Debug + Send + Sync {
    /// This one.
    fn rank(&self) -> Rank;

    /// Its number among the ranks of its machine, from 0: which GPU is its.
    fn local(&self) -> u32;

    /// Sends the run `runs[r]` of `own` to rank r, and receives every rank's run of this rank: `received` has them one after
    /// the other in the order of the ranks. The runs do not overlap; the part that is not in any of them stays.
    fn exchange(&self, own: &[f32], runs: &[Range<usize>], received: &mut [f32]) -> Result<()>;

    /// Every rank's part of `values` to all.
    fn gather(&self, values: &mut [f32], cut: &Cut) -> Result<()>;

    /// A few numbers of each rank to all, in the order of the ranks; rank r has `counts[r]` of them.
    fn all_gather(&self, own: &[f64], counts: &[usize]) -> Result<Vec<f64>>;

    /// The bytes of rank 0 to all.
    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()>;

    /// Takes this rank, which has failed, out: the others end, now or when the communicator is dropped, so that this one can
    /// print its error first. `why` is the error, and `code` the exit code of the processes.
    fn abandon(&self, why: &str, code: u8);

    /// How numbers travel, for the provenance: `Open MPI 4.1.4 (libmpi.so.40)`.
    fn described(&self) -> String;
}

/// How the ranks of a training share it.
#[derive(Clone, Debug)]
pub struct Sharing {
    /// Moves numbers between the ranks.
    pub ranks: Arc<dyn Communicator>,
    /// Parts of a batch whose gradients are added in a tree: a power of two that the world divides.
    pub grains: u32,
}

impl Sharing {
    /// A training of one process whose batches are not cut.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            ranks: Arc::new(Alone),
            grains: 1,
        }
    }

    /// The grains that this rank computes.
    #[must_use]
    pub fn own_grains(&self) -> Range<u32> {
        self.ranks.rank().part(self.grains)
    }

    /// Whether other ranks take part.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.ranks.rank().world > 1
    }
}
