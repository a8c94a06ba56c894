//! How a vector of numbers is cut into one part a rank.

use std::ops::Range;

use super::Rank;

/// Elements of each rank's part that travel at a time, so that what is received takes little memory: 4 MB a rank.
pub const PIECE: usize = 1 << 20;

/// One part of a vector for each rank, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where parts begin, and where the last ends: one more than there are ranks.
    bounds: Vec<usize>,
}

impl Cut {
    /// A vector cut where one of its chunks ends, so that the parts are as equal as the chunks allow. The chunks follow each
    /// other and cover the vector; a world larger than the number of chunks leaves ranks without a part.
    #[must_use]
    pub fn at_chunks<'a>(chunks: impl IntoIterator<Item = &'a Range<usize>>, world: u32) -> Self {
        let ends: Vec<usize> = chunks.into_iter().map(|chunk| chunk.end).collect();
        let length = ends.last().copied().unwrap_or(0);
        let mut bounds = vec![0];
        for rank in 1..world as usize {
            // length · rank fits: a vector has fewer than 2^48 elements, and a world fewer than 2^16 ranks.
            let ideal = length * rank / world as usize;
            let after = ends.partition_point(|&end| end < ideal);
            let before = after.checked_sub(1).map_or(0, |index| ends[index]);
            let after = ends.get(after).copied().unwrap_or(length);
            let nearest = if ideal - before <= after - ideal {
                before
            } else {
                after
            };
            bounds.push(nearest.max(bounds[rank - 1]));
        }
        bounds.push(length);
        Self { bounds }
    }

    /// A vector of `length` elements cut at multiples of `unit`.
    #[must_use]
    pub fn at_multiples(length: usize, unit: usize, world: u32) -> Self {
        let units = (0..length)
            .step_by(unit)
            .map(|start| start..(start + unit).min(length));
        Self::at_chunks(&units.collect::<Vec<_>>(), world)
    }

    /// The cut of another vector, whose parts begin where `bound` says of the bounds of this one.
    #[must_use]
    pub fn mapped(&self, bound: impl Fn(usize) -> usize) -> Self {
        Self {
            bounds: self.bounds.iter().map(|&at| bound(at)).collect(),
        }
    }

    /// The part of a rank.
    #[must_use]
    pub fn part(&self, rank: u32) -> Range<usize> {
        self.bounds[rank as usize]..self.bounds[rank as usize + 1]
    }

    /// The part of one of the ranks.
    #[must_use]
    pub fn of(&self, rank: Rank) -> Range<usize> {
        self.part(rank.rank)
    }

    /// The parts, in the order of the ranks.
    pub fn parts(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.bounds.windows(2).map(|ends| ends[0]..ends[1])
    }

    /// Runs of at most `most` elements of each part, those with this number: the parts of a vector that is sent in pieces. A part
    /// that ends sooner has an empty run.
    #[must_use]
    pub fn piece(&self, number: usize, most: usize) -> Vec<Range<usize>> {
        let run = |part: Range<usize>| {
            let start = (part.start + number * most).min(part.end);
            start..(start + most).min(part.end)
        };
        self.parts().map(run).collect()
    }

    /// How many pieces there are of at most `most` elements of each part.
    #[must_use]
    pub fn pieces(&self, most: usize) -> usize {
        self.parts()
            .map(|part| part.len().div_ceil(most))
            .max()
            .unwrap_or(0)
    }

    /// Elements of the vector.
    #[must_use]
    pub fn length(&self) -> usize {
        self.bounds.last().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cut_covers_the_vector_at_ends_of_chunks(
            lengths in prop::collection::vec(1usize..40, 1..30),
            world in 1u32..9,
        ) {
            let mut chunks = Vec::new();
            let mut at = 0;
            for length in lengths {
                chunks.push(at..at + length);
                at += length;
            }
            let cut = Cut::at_chunks(&chunks, world);
            prop_assert_eq!(cut.parts().count(), world as usize);
            prop_assert_eq!(cut.length(), at);
            let mut begin = 0;
            for part in cut.parts() {
                prop_assert_eq!(part.start, begin);
                begin = part.end;
                prop_assert!(begin == 0 || chunks.iter().any(|chunk| chunk.end == begin));
            }
            prop_assert_eq!(begin, at);
            let mut seen = vec![0; at];
            for number in 0..cut.pieces(5) {
                for (run, part) in cut.piece(number, 5).into_iter().zip(cut.parts()) {
                    prop_assert!(run.len() <= 5 && part.start <= run.start && run.end <= part.end);
                    seen[run].iter_mut().for_each(|times| *times += 1);
                }
            }
            prop_assert!(seen.iter().all(|&times| times == 1));
            // No part is larger than its share by more than two halves of the longest chunk.
            let longest = chunks.iter().map(Range::len).max().unwrap();
            for part in cut.parts() {
                prop_assert!(part.len() <= at.div_ceil(world as usize) + longest);
            }
        }
    }
}
