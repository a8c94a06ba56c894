//! How far the words of sampled records are from those of the source: the symmetric Kullback-Leibler divergence
//! KL(p‖q) + KL(q‖p) = Σ (p − q) ln (p / q) in nats, of p of the samples from q of the source.
//!
//! Three distributions are compared: of single words, of pairs of neighbouring words (with a mark for the beginning and the
//! end of a record) and of the number of words of a record. Words are those of the grammar's spacing, punctuation marks
//! apart ([`crate::data::grammar::split_words`]). Both sides are counted, and ½ is added to the count of each of the K
//! outcomes that either side has (Krichevsky and Trofimov 1981): p = (n + ½) / (N + K / 2).
//!
//! The divergence of a finite sample from its own source is not 0. So it is measured in the same way for
//! [`FRESH_SETS`](super::statistics::FRESH_SETS) sets of fresh text of the source, each as large as the samples.

use std::collections::HashMap;

use crate::data::grammar::split_words;
use crate::evaluate::Interval;
use crate::rng::Random;

use super::statistics::bootstrap;

/// What is counted of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Words.
    Unigrams,
    /// Pairs of neighbouring words, the ends of a record included.
    Bigrams,
    /// Words in a record.
    Lengths,
}

/// The three distributions, in the order of the files and tables.
pub const OUTCOMES: [Outcome; 3] = [Outcome::Unigrams, Outcome::Bigrams, Outcome::Lengths];

/// Numbers of words, from 1: 0 stands for the end of a record.
#[derive(Clone, Debug, Default)]
pub struct WordNumbers(HashMap<String, u32>);

impl WordNumbers {
    fn of(&mut self, word: &str) -> u32 {
        if let Some(&number) = self.0.get(word) {
            return number;
        }
        let number = self.0.len() as u32 + 1;
        self.0.insert(word.to_owned(), number);
        number
    }
}

/// Outcomes of rows, each row with how often it has each outcome.
#[derive(Debug, Default)]
pub struct OutcomeCounts {
    rows: [Vec<Vec<(u64, f64)>>; 3],
}

impl OutcomeCounts {
    /// Adds a row with these records.
    pub fn push<'a>(&mut self, records: impl IntoIterator<Item = &'a str>, numbers: &mut WordNumbers) {
        let mut counts: [HashMap<u64, f64>; 3] = Default::default();
        for record in records {
            let words: Vec<u32> = split_words(record)
                .into_iter()
                .map(|word| numbers.of(word))
                .collect();
            for &word in &words {
                *counts[0].entry(u64::from(word)).or_default() += 1.0;
            }
            let ends = std::iter::once(0).chain(words.iter().copied());
            for (a, b) in ends.zip(words.iter().copied().chain([0])) {
                *counts[1].entry(u64::from(a) << 32 | u64::from(b)).or_default() += 1.0;
            }
            *counts[2].entry(words.len() as u64).or_default() += 1.0;
        }
        for (rows, counts) in self.rows.iter_mut().zip(counts) {
            let mut row: Vec<(u64, f64)> = counts.into_iter().collect();
            // Sums of floating-point numbers depend on their order.
            row.sort_unstable_by_key(|outcome| outcome.0);
            rows.push(row);
        }
    }

    /// The rows with their counts of an outcome.
    fn of(&self, outcome: Outcome) -> &[Vec<(u64, f64)>] {
        &self.rows[OUTCOMES.iter().position(|&one| one == outcome).unwrap_or(0)]
    }

    /// The counts of all rows.
    fn total(&self, outcome: Outcome) -> HashMap<u64, f64> {
        let mut total = HashMap::new();
        for (key, count) in self.of(outcome).iter().flatten() {
            *total.entry(*key).or_default() += count;
        }
        total
    }
}

/// The counts of the source.
#[derive(Debug)]
pub struct SourceCounts([HashMap<u64, f64>; 3]);

impl From<&OutcomeCounts> for SourceCounts {
    fn from(counts: &OutcomeCounts) -> Self {
        Self(OUTCOMES.map(|outcome| counts.total(outcome)))
    }
}

/// Counts of samples and of the source for the same K outcomes.
struct PairedCounts {
    rows: Vec<Vec<(usize, f64)>>,
    source: Vec<f64>,
}

impl SourceCounts {
    /// The divergence of samples from the source, with the interval of rows drawn again; nothing where there is no record.
    pub fn divergence(&self, samples: &OutcomeCounts, outcome: Outcome, random: Random) -> Option<Interval> {
        let pair = self.pair(samples, outcome)?;
        Some(bootstrap(pair.rows.len(), random, |times| pair.divergence(times)))
    }

    /// The same without an interval.
    pub fn divergence_alone(&self, samples: &OutcomeCounts, outcome: Outcome) -> Option<f64> {
        let pair = self.pair(samples, outcome)?;
        Some(pair.divergence(&vec![1.0; pair.rows.len()]))
    }

    fn pair(&self, samples: &OutcomeCounts, outcome: Outcome) -> Option<PairedCounts> {
        let of_source = &self.0[OUTCOMES.iter().position(|&one| one == outcome)?];
        let rows = samples.of(outcome);
        if of_source.is_empty() || rows.iter().all(Vec::is_empty) {
            return None;
        }
        let mut keys: Vec<u64> = of_source.keys().copied().collect();
        keys.extend(rows.iter().flatten().map(|outcome| outcome.0));
        keys.sort_unstable();
        keys.dedup();
        let place = |key: &u64| keys.binary_search(key).unwrap_or(0);
        let source = keys
            .iter()
            .map(|key| of_source.get(key).copied().unwrap_or(0.0))
            .collect();
        let rows = rows
            .iter()
            .map(|row| row.iter().map(|(key, count)| (place(key), *count)).collect())
            .collect();
        Some(PairedCounts { rows, source })
    }
}

impl PairedCounts {
    /// The divergence where each row was drawn so many times.
    fn divergence(&self, times: &[f64]) -> f64 {
        let mut counts = vec![0.0; self.source.len()];
        for (row, times) in self.rows.iter().zip(times) {
            for &(place, count) in row {
                counts[place] += times * count;
            }
        }
        symmetric_divergence(&counts, &self.source)
    }
}

/// Σ (p − q) ln (p / q) of two lists of counts of the same outcomes, ½ added to each count.
#[must_use]
pub fn symmetric_divergence(a: &[f64], b: &[f64]) -> f64 {
    let half = a.len() as f64 / 2.0;
    let [of_a, of_b] = [a, b].map(|counts| counts.iter().sum::<f64>() + half);
    a.iter()
        .zip(b)
        .map(|(a, b)| {
            let (p, q) = ((a + 0.5) / of_a, (b + 0.5) / of_b);
            (p - q) * (p / q).ln()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn symmetric_divergence_of_counts_is_that_computed_by_hand() {
        // p = (2.5, 1.5, ½) / 4.5, q = (1.5, 1.5, 1.5) / 4.5: (1 ln (5/3) − ln (1/3)) / 4.5.
        let by_hand = ((5.0f64 / 3.0).ln() + 3f64.ln()) / 4.5;
        assert!((symmetric_divergence(&[2.0, 1.0, 0.0], &[1.0, 1.0, 1.0]) - by_hand).abs() < 1e-15);
        assert!((symmetric_divergence(&[1.0, 1.0, 1.0], &[2.0, 1.0, 0.0]) - by_hand).abs() < 1e-15);
        assert_eq!(symmetric_divergence(&[3.0, 1.0], &[3.0, 1.0]), 0.0);
    }

    #[test]
    fn divergence_counts_words_pairs_and_lengths_of_records() {
        let mut numbers = WordNumbers::default();
        let mut counts = OutcomeCounts::default();
        counts.push(["a b, a", "b"], &mut numbers);
        let total = |outcome| {
            let mut all: Vec<(u64, f64)> = counts.total(outcome).into_iter().collect();
            all.sort_unstable_by_key(|one| one.0);
            all
        };
        // a = 1, b = 2, `,` = 3.
        assert_eq!(total(Outcome::Unigrams), [(1, 2.0), (2, 2.0), (3, 1.0)]);
        assert_eq!(total(Outcome::Lengths), [(1, 1.0), (4, 1.0)]);
        let pair = |a: u64, b: u64| a << 32 | b;
        let pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 3), (3, 1)];
        assert_eq!(
            total(Outcome::Bigrams),
            pairs.map(|(a, b)| (pair(a, b), 1.0)).to_vec()
        );
        let source = SourceCounts::from(&counts);
        for outcome in OUTCOMES {
            assert_eq!(source.divergence_alone(&counts, outcome), Some(0.0));
        }
        assert_eq!(
            source.divergence_alone(&OutcomeCounts::default(), Outcome::Unigrams),
            None
        );
    }

    #[test]
    fn divergence_interval_holds_the_value_and_no_negative_number() {
        let mut numbers = WordNumbers::default();
        let (mut samples, mut text) = (OutcomeCounts::default(), OutcomeCounts::default());
        for row in 0..50 {
            samples.push([if row % 3 == 0 { "a" } else { "b c" }], &mut numbers);
            text.push([if row % 2 == 0 { "a" } else { "b c" }], &mut numbers);
        }
        let source = SourceCounts::from(&text);
        let random = Random::new(1, Stream::Judge);
        let found = source.divergence(&samples, Outcome::Lengths, random).unwrap();
        assert_eq!(
            Some(found.value),
            source.divergence_alone(&samples, Outcome::Lengths)
        );
        let (low, high) = found.ends().unwrap();
        assert!(0.0 <= low && low < found.value && found.value < high, "{found:?}");
    }
}
