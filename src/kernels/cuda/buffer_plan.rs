//! A plan of one piece of memory: which part of it a buffer has, from when it is asked for until it is let go.
//!
//! The same requests in the same order from an empty plan get the same places: the steps of a training are laid out alike, so
//! that what was recorded of one can be run again for the next.

use std::collections::BTreeMap;

/// Buffers begin at multiples of this: what the device aligns its own allocations to.
const STEP: usize = 256;

/// Places in one piece of memory, whose size is what was needed so far.
#[derive(Debug, Default)]
pub struct BufferPlan {
    /// Free parts below `end`, by their places; none touches another one, nor `end`.
    free: BTreeMap<usize, usize>,
    /// Everything from here on is free.
    end: usize,
    used: usize,
    peak: usize,
    most_used: usize,
}

impl BufferPlan {
    /// The bytes that a buffer takes.
    #[must_use]
    pub fn size(bytes: usize) -> usize {
        bytes.max(1).next_multiple_of(STEP)
    }

    /// A place for so many bytes: the smallest free part that holds them, the first among equals.
    pub fn take(&mut self, bytes: usize) -> usize {
        let size = Self::size(bytes);
        self.used += size;
        self.most_used = self.most_used.max(self.used);
        let best = self
            .free
            .iter()
            .filter(|&(_, &free)| free >= size)
            .min_by_key(|&(&at, &free)| (free, at))
            .map(|(&at, &free)| (at, free));
        if let Some((at, free)) = best {
            self.free.remove(&at);
            if free > size {
                self.free.insert(at + size, free - size);
            }
            return at;
        }
        let at = self.end;
        self.end += size;
        self.peak = self.peak.max(self.end);
        at
    }

    /// Gives a place back.
    pub fn give(&mut self, at: usize, bytes: usize) {
        let (mut at, mut size) = (at, Self::size(bytes));
        self.used -= size;
        if let Some((&before, &free)) = self.free.range(..at).next_back()
            && before + free == at
        {
            self.free.remove(&before);
            at = before;
            size += free;
        }
        if let Some(&free) = self.free.get(&(at + size)) {
            self.free.remove(&(at + size));
            size += free;
        }
        if at + size == self.end {
            self.end = at;
        } else {
            self.free.insert(at, size);
        }
    }

    /// Bytes in buffers at most so far: less than the peak, as far as no part was free that was large enough.
    #[must_use]
    pub fn most_used(&self) -> usize {
        self.most_used
    }

    /// Bytes that the whole needs, for what was asked so far.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.peak
    }

    /// Bytes below which all buffers lie now.
    #[must_use]
    pub fn end(&self) -> usize {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Buffers never overlap, the peak bounds them, and an empty plan is as good as a new one.
        #[test]
        fn buffers_do_not_overlap_and_repeat_their_places(asks in prop::collection::vec((1_usize..5000, any::<prop::sample::Index>(), any::<bool>()), 1..60)) {
            let mut plan = BufferPlan::default();
            let mut first = Vec::new();
            for round in 0..2 {
                let mut held: Vec<(usize, usize)> = Vec::new();
                let mut places = Vec::new();
                for (bytes, index, lets_go) in &asks {
                    let at = plan.take(*bytes);
                    prop_assert!(at.is_multiple_of(STEP) && at + bytes <= plan.peak());
                    for &(other, length) in &held {
                        prop_assert!(at + bytes <= other || other + length <= at, "{at} overlaps {other}");
                    }
                    places.push(at);
                    held.push((at, *bytes));
                    if *lets_go {
                        let (at, bytes) = held.swap_remove(index.index(held.len()));
                        plan.give(at, bytes);
                    }
                }
                for (at, bytes) in held {
                    plan.give(at, bytes);
                }
                prop_assert_eq!((plan.used, plan.end()), (0, 0));
                prop_assert!(plan.free.is_empty());
                if round == 0 {
                    first = places;
                } else {
                    prop_assert_eq!(&places, &first);
                }
            }
        }
    }

    #[test]
    fn buffers_given_back_are_reused() {
        let mut plan = BufferPlan::default();
        let (a, b, c) = (plan.take(1000), plan.take(300), plan.take(1000));
        assert_eq!((a, b, c, plan.peak()), (0, 1024, 1536, 2560));
        plan.give(b, 300);
        plan.give(a, 1000);
        // Both together hold it.
        assert_eq!(plan.take(1500), 0);
        assert_eq!((plan.peak(), plan.most_used()), (2560, 2560));
    }
}
