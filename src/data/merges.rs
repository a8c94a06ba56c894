//! Learns the merges of a byte-pair encoding (Sennrich et al., arXiv 1508.07909) from counted words.
//!
//! Why not the `tokenizers` crate's own trainer: it walks a randomly keyed hash map where it gives out the ids of
//! continuation characters, so a WordPiece vocabulary differs from run to run; it counts pairs in 32 bits, which a
//! corpus of some gigabytes overflows; and it may merge one pair twice. Here the result is a function of the counts
//! alone: the most frequent pair first, of equally frequent ones the pair of smaller ids.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// A pair of neighbouring symbols.
pub type Pair = (u32, u32);

/// A word as symbols, and how often it occurs.
#[derive(Clone, Debug)]
pub struct Word {
    /// Its symbols, at first its characters.
    pub symbols: Vec<u32>,
    /// Occurrences.
    pub count: u64,
}

/// Merges pairs until no pair occurs `min_frequency` times, and returns the merges in order.
///
/// `symbol` gives the id of the symbol that a pair makes (a new one, or one that exists when two pairs spell alike),
/// or nothing when there are symbols enough.
pub fn learn(
    mut words: Vec<Word>,
    min_frequency: u64,
    mut symbol: impl FnMut(Pair) -> Option<u32>,
) -> Vec<(Pair, u32)> {
    let mut counts: HashMap<Pair, u64> = HashMap::new();
    // Words that may hold a pair: a superset, since a merge can take a pair out of a word.
    let mut places: HashMap<Pair, Vec<u32>> = HashMap::new();
    for (index, word) in words.iter().enumerate() {
        for pair in pairs(&word.symbols) {
            *counts.entry(pair).or_default() += word.count;
            note(&mut places, pair, index as u32);
        }
    }
    let mut queue: BinaryHeap<(u64, Reverse<Pair>)> = counts
        .iter()
        .map(|(&pair, &count)| (count, Reverse(pair)))
        .collect();
    let mut merges = Vec::new();
    let mut touched = Vec::new();
    while let Some((count, Reverse(pair))) = queue.pop() {
        let now = counts.get(&pair).copied().unwrap_or(0);
        if now != count {
            // The entry is out of date; a pair that grew has a newer entry, one that shrank goes back.
            if now < count && now > 0 {
                queue.push((now, Reverse(pair)));
            }
            continue;
        }
        if count < min_frequency.max(1) {
            break;
        }
        let Some(merged) = symbol(pair) else {
            break;
        };
        merges.push((pair, merged));
        for index in places.remove(&pair).unwrap_or_default() {
            let word = &mut words[index as usize];
            if !pairs(&word.symbols).any(|p| p == pair) {
                continue;
            }
            for old in pairs(&word.symbols) {
                if let Some(n) = counts.get_mut(&old) {
                    *n -= word.count;
                }
            }
            merge(&mut word.symbols, pair, merged);
            for new in pairs(&word.symbols) {
                *counts.entry(new).or_default() += word.count;
                if new.0 == merged || new.1 == merged {
                    note(&mut places, new, index);
                    touched.push(new);
                }
            }
        }
        counts.remove(&pair);
        touched.sort_unstable();
        touched.dedup();
        for pair in touched.drain(..) {
            if let Some(&count) = counts.get(&pair)
                && count > 0
            {
                queue.push((count, Reverse(pair)));
            }
        }
    }
    merges
}

fn pairs(symbols: &[u32]) -> impl Iterator<Item = Pair> {
    symbols.windows(2).map(|w| (w[0], w[1]))
}

fn note(places: &mut HashMap<Pair, Vec<u32>>, pair: Pair, word: u32) {
    let list = places.entry(pair).or_default();
    if list.last() != Some(&word) {
        list.push(word);
    }
}

/// Replaces the pair by one symbol, from left to right.
fn merge(symbols: &mut Vec<u32>, pair: Pair, merged: u32) {
    let (mut read, mut write) = (0, 0);
    while read < symbols.len() {
        if read + 1 < symbols.len() && (symbols[read], symbols[read + 1]) == pair {
            symbols[write] = merged;
            read += 2;
        } else {
            symbols[write] = symbols[read];
            read += 1;
        }
        write += 1;
    }
    symbols.truncate(write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: count every pair anew before each merge.
    fn plain(mut words: Vec<Word>, min_frequency: u64, merges: usize) -> Vec<(Pair, u32)> {
        let mut all = Vec::new();
        while all.len() < merges {
            let mut counts: HashMap<Pair, u64> = HashMap::new();
            for word in &words {
                for pair in pairs(&word.symbols) {
                    *counts.entry(pair).or_default() += word.count;
                }
            }
            let best = counts.into_iter().map(|(p, n)| (n, Reverse(p))).max();
            let Some((count, Reverse(pair))) = best else { break };
            if count < min_frequency {
                break;
            }
            let merged = 1000 + all.len() as u32;
            all.push((pair, merged));
            for word in &mut words {
                merge(&mut word.symbols, pair, merged);
            }
        }
        all
    }

    fn quick(words: Vec<Word>, min_frequency: u64, merges: usize) -> Vec<(Pair, u32)> {
        let mut ids = 1000..1000 + merges as u32;
        learn(words, min_frequency, |_| ids.next())
    }

    /// The example of the paper: low ×5, lower ×2, newest ×6, widest ×3.
    #[test]
    fn merges_are_those_of_the_papers_example() {
        let words: Vec<Word> = [("low", 5), ("lower", 2), ("newest", 6), ("widest", 3)]
            .map(|(word, count)| Word {
                symbols: word.bytes().map(u32::from).collect(),
                count,
            })
            .to_vec();
        let merges = quick(words, 1, 4);
        let [e, s, t, l, o, w] = [b'e', b's', b't', b'l', b'o', b'w'].map(u32::from);
        // es and st occur 9 times each; the smaller ids win, then est; lo and ow 7 times, lo wins, then low.
        assert_eq!(
            merges,
            [
                ((e, s), 1000),
                ((1000, t), 1001),
                ((l, o), 1002),
                ((1002, w), 1003)
            ]
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn merges_found_incrementally_are_those_of_full_counts(
            words in proptest::collection::vec((proptest::collection::vec(0u32..4, 1..9), 1u64..5), 1..12),
            min_frequency in 1u64..4,
            merges in 0usize..20,
        ) {
            let words: Vec<Word> = words.into_iter().map(|(symbols, count)| Word { symbols, count }).collect();
            prop_assert_eq!(quick(words.clone(), min_frequency, merges), plain(words, min_frequency, merges));
        }
    }
}
