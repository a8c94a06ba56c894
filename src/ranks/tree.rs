//! The sum of a power of two of vectors, in one fixed binary tree.
//!
//! ```text
//! (((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)))
//! ```
//!
//! Addition in IEEE 754 is commutative, so that the shape of the tree decides the bits, not which side is added to which.

use rayon::prelude::*;

/// Elements that a thread adds at a time.
const CHUNK: usize = 1 << 14;

/// A tree whose vectors come one after the other, as a binary counter adds them: at most log2(count) vectors wait.
#[derive(Clone, Debug, Default)]
pub struct GrainTree {
    /// Vectors that come, a power of two.
    count: u32,
    /// Vectors that came.
    taken: u32,
    /// The sum of 2^i vectors that waits for its neighbour, at i.
    waiting: Vec<Option<Vec<f32>>>,
    /// Vectors without a use now.
    spare: Vec<Vec<f32>>,
}

impl GrainTree {
    /// A tree over that many vectors, a power of two.
    #[must_use]
    pub fn over(count: u32) -> Self {
        debug_assert!(count.is_power_of_two(), "{count} vectors");
        Self {
            count,
            ..Self::default()
        }
    }

    /// Takes the next vector. It is left zero, but for the last one, in whose place the sum of all is left; then the tree is
    /// empty again. Returns whether it was the last one.
    pub fn take(&mut self, values: &mut [f32]) -> bool {
        let mut level = 0;
        while let Some(other) = self.waiting.get_mut(level).and_then(Option::take) {
            add(values, &other);
            self.spare.push(other);
            level += 1;
        }
        self.taken += 1;
        if self.taken == self.count {
            self.taken = 0;
            return true;
        }
        let mut kept = self.spare.pop().unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(values);
        if self.waiting.len() <= level {
            self.waiting.resize(level + 1, None);
        }
        self.waiting[level] = Some(kept);
        values.par_chunks_mut(CHUNK).for_each(|chunk| chunk.fill(0.0));
        false
    }

    /// Forgets the vectors that came.
    pub fn clear(&mut self) {
        self.taken = 0;
        let waiting = self.waiting.iter_mut().filter_map(Option::take);
        self.spare.extend(waiting);
    }
}

/// The sum of vectors of `length` elements that lie one after the other, a power of two of them: it takes the place of the
/// first.
pub fn fold(vectors: &mut [f32], length: usize) {
    let mut stride = length;
    while stride > 0 && stride < vectors.len() {
        for pair in vectors.chunks_mut(2 * stride) {
            let (left, right) = pair.split_at_mut(stride);
            add(&mut left[..length], &right[..length]);
        }
        stride *= 2;
    }
}

/// values ← values + other.
fn add(values: &mut [f32], other: &[f32]) {
    let chunks = values.par_chunks_mut(CHUNK).zip(other.par_chunks(CHUNK));
    chunks.for_each(|(values, other)| {
        for (value, other) in values.iter_mut().zip(other) {
            *value += other;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Random, Stream};

    const LENGTH: usize = 7;

    fn vector(number: u32) -> Vec<f32> {
        let random = Random::new(9, Stream::Init);
        // Of very different sizes, so that each order of addition has other bits.
        let element =
            |i| (random.uniform(u64::from(number), 0, i) as f32 - 0.5) * 10f32.powi(number as i32 % 5);
        (0..LENGTH as u32).map(element).collect()
    }

    fn recursive(range: std::ops::Range<u32>) -> Vec<f32> {
        if range.len() == 1 {
            return vector(range.start);
        }
        let middle = range.start + range.len() as u32 / 2;
        let (left, right) = (recursive(range.start..middle), recursive(middle..range.end));
        left.iter()
            .zip(&right)
            .map(|(left, right)| left + right)
            .collect()
    }

    #[test]
    fn tree_adds_as_the_recursion_does() {
        for count in [1, 2, 4, 8, 16] {
            let mut tree = GrainTree::over(count);
            // The second round takes the vectors of the first.
            for _ in 0..2 {
                let mut values = Vec::new();
                for number in 0..count {
                    values = vector(number);
                    let last = tree.take(&mut values);
                    assert_eq!(last, number + 1 == count);
                    assert!(last || values.iter().all(|&value| value == 0.0));
                }
                assert_eq!(values, recursive(0..count), "{count}");
            }
        }
        let mut chain = vector(0);
        for number in 1..8 {
            add(&mut chain, &vector(number));
        }
        assert_ne!(chain, recursive(0..8), "the order decides the bits");
    }

    #[test]
    fn tree_of_ranks_equals_the_tree_of_one() {
        for world in [1u32, 2, 4, 8] {
            let mut parts = Vec::new();
            for rank in 0..world {
                let mut tree = GrainTree::over(8 / world);
                for number in rank * 8 / world..(rank + 1) * 8 / world {
                    let mut values = vector(number);
                    if tree.take(&mut values) {
                        parts.extend(values);
                    }
                }
            }
            fold(&mut parts, LENGTH);
            assert_eq!(parts[..LENGTH], recursive(0..8)[..], "{world} ranks");
        }
    }

    #[test]
    fn tree_that_forgets_adds_the_next_grains_alone() {
        let mut tree = GrainTree::over(4);
        tree.take(&mut vector(3));
        tree.take(&mut vector(2));
        tree.take(&mut vector(1));
        tree.clear();
        let mut values = Vec::new();
        for number in 0..4 {
            values = vector(number);
            tree.take(&mut values);
        }
        assert_eq!(values, recursive(0..4));
    }
}
