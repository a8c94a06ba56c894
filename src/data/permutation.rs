//! A seeded order of the rows of an epoch that needs no memory per row.
//!
//! A balanced Feistel network over the smallest even number of bits that holds every row, with Philox as its round
//! function, is a bijection of a power of four; rows outside 0..n are walked on from until one is inside ("cycle
//! walking", Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). The domain is less than four times n
//! (but for tiny n), so a walk takes fewer than four steps on average.

use crate::ranks::Rank;
use crate::rng::{Random, Stream};

/// Rounds of the network. Four make a strong pseudorandom permutation of a large domain (Luby and Rackoff 1988);
/// twice as many because halves are short here.
const ROUNDS: u32 = 8;
/// Smallest half, in bits: networks over fewer bits reach too few of the orders.
const SMALLEST_HALF: u32 = 4;

/// A random order of 0..n for every epoch.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    random: Random,
    length: u64,
    half: u32,
}

impl Permutation {
    /// The orders of `length` rows under `seed`.
    ///
    /// # Panics
    /// When `length` exceeds 2^48, the reach of a row index.
    #[must_use]
    pub fn new(seed: u64, length: u64) -> Self {
        assert!(length <= 1 << 48, "{length} rows");
        let bits = 64 - length.saturating_sub(1).leading_zeros();
        Self {
            random: Random::new(seed, Stream::Permutation),
            length,
            half: bits.div_ceil(2).max(SMALLEST_HALF),
        }
    }

    /// Rows in an order.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The row at `index` of the order of `epoch`.
    ///
    /// # Panics
    /// When `index` is not below the length.
    #[must_use]
    pub fn get(&self, epoch: u64, index: u64) -> u64 {
        assert!(index < self.length, "index {index} of {} rows", self.length);
        let mut row = index;
        loop {
            row = self.network(epoch, row);
            if row < self.length {
                return row;
            }
        }
    }

    /// A bijection of 0..4^half.
    fn network(&self, epoch: u64, value: u64) -> u64 {
        let mask = (1u64 << self.half) - 1;
        let (mut left, mut right) = (value >> self.half, value & mask);
        for round in 0..ROUNDS {
            let word = u64::from(self.random.block(epoch, right, round)[0]);
            (left, right) = (right, left ^ (word & mask));
        }
        left << self.half | right
    }
}

/// Which rows each step of a training learns: the endless sequence of the epochs' orders, cut into batches, of which every
/// rank takes a part. A function of the step alone: a training that goes on needs no more than its number.
#[derive(Clone, Copy, Debug)]
pub struct RowOrder {
    permutation: Permutation,
    batch: u64,
    /// Where in a batch this rank's part begins and ends.
    part: (u64, u64),
}

impl RowOrder {
    /// The order of `length` rows under `seed`, in batches of `batch` rows, for one of the ranks. The parts of the ranks
    /// differ by one row at most.
    ///
    /// # Panics
    /// When there is no row, or no such rank.
    #[must_use]
    pub fn new(seed: u64, length: u64, batch: u32, rank: Rank) -> Self {
        assert!(
            length > 0 && rank.rank < rank.world,
            "rank {} of {}, {length} rows",
            rank.rank,
            rank.world
        );
        let part = rank.part(batch);
        Self {
            permutation: Permutation::new(seed, length),
            batch: u64::from(batch),
            part: (u64::from(part.start), u64::from(part.end)),
        }
    }

    /// Rows of a step that are this rank's.
    #[must_use]
    pub fn rows(&self) -> usize {
        (self.part.1 - self.part.0) as usize
    }

    /// This rank's rows of a step, counted from 0: the number of each in the endless sequence, and which row of the data
    /// it is.
    pub fn step(&self, step: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let epoch = self.permutation.length();
        let first = step * self.batch;
        (first + self.part.0..first + self.part.1)
            .map(move |number| (number, self.permutation.get(number / epoch, number % epoch)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn permutation_has_every_row_once(seed: u64, epoch in 0u64..1 << 40, length in 1u64..3000) {
            let permutation = Permutation::new(seed, length);
            let mut seen = vec![false; length as usize];
            for index in 0..length {
                let row = permutation.get(epoch, index) as usize;
                prop_assert!(!seen[row], "row {} twice", row);
                seen[row] = true;
            }
        }

        #[test]
        fn permutation_of_a_large_set_stays_inside(seed: u64, length in 1u64..1 << 48, share in 0.0..1.0f64) {
            let index = ((length as f64 * share) as u64).min(length - 1);
            prop_assert!(Permutation::new(seed, length).get(3, index) < length);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn ranks_share_every_step_without_overlap(
            seed: u64, length in 1u64..500, batch in 1u32..40, world in 1u32..50, step in 0u64..1000
        ) {
            let of = |rank, world| -> Vec<_> {
                let order = RowOrder::new(seed, length, batch, Rank { rank, world });
                let rows: Vec<_> = order.step(step).collect();
                assert_eq!(rows.len(), order.rows());
                rows
            };
            let parts: Vec<_> = (0..world).map(|rank| of(rank, world)).collect();
            let sizes = parts.iter().map(Vec::len);
            prop_assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1);
            prop_assert_eq!(parts.concat(), of(0, 1));
        }

        #[test]
        fn steps_go_through_every_row_of_an_epoch(seed: u64, length in 1u64..500, batch in 1u32..40) {
            let order = RowOrder::new(seed, length, batch, Rank::ALONE);
            let steps = (2 * length).div_ceil(u64::from(batch));
            let all: Vec<_> = (0..steps).flat_map(|step| order.step(step).collect::<Vec<_>>()).collect();
            for epoch in all.chunks_exact(length as usize).take(2) {
                let mut rows: Vec<_> = epoch.iter().map(|&(_, row)| row).collect();
                rows.sort_unstable();
                prop_assert_eq!(rows, (0..length).collect::<Vec<_>>());
            }
            prop_assert!(all.iter().map(|&(number, _)| number).eq(0..all.len() as u64));
        }
    }

    #[test]
    fn permutation_is_uniform_over_places() {
        let (n, epochs) = (5u64, 20_000u64);
        let permutation = Permutation::new(11, n);
        let mut counts = [[0u64; 5]; 5];
        for epoch in 0..epochs {
            for index in 0..n {
                counts[index as usize][permutation.get(epoch, index) as usize] += 1;
            }
        }
        // Each count is binomial (20,000, 1/5): standard deviation 57; 5 of them bound 25 counts at 1e-5.
        for count in counts.iter().flatten() {
            assert!(count.abs_diff(epochs / n) < 285, "{counts:?}");
        }
    }

    #[test]
    fn permutation_differs_between_epochs_and_seeds() {
        let order = |seed, epoch| -> Vec<u64> {
            let permutation = Permutation::new(seed, 100);
            (0..100).map(|i| permutation.get(epoch, i)).collect()
        };
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
        assert_eq!(order(1, 7), order(1, 7));
    }
}
