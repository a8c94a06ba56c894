//! What sampled texts say of themselves: how much they vary within a row and between rows.
//!
//! A row's text is its *pieces*: the longest runs of tokens without a special one. An n-gram lies within one piece.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::statistics::{jackknife, mean};
use crate::data::SpecialIds;
use crate::evaluate::Interval;

/// The longest n-grams that are counted.
const LONGEST: usize = 4;
/// Added to the matches of an n-gram order that has none, so that its precision has a logarithm: method 1 of Chen and Cherry
/// 2014 with ε = 0.1, as Texygen's self-BLEU has it (Zhu et al., arXiv 1802.01886).
const SMOOTHING: f64 = 0.1;

/// The statistics of the texts of some rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextStatistics {
    /// Tokens that are not special.
    pub tokens: u64,
    /// Entropy of the distribution of a row's tokens, special ones included, in nats; the mean over rows. As Duo's
    /// `record_entropy` (arXiv 2506.10892).
    pub unigram_entropy: Option<Interval>,
    /// Distinct n-grams of all rows / n-grams of all rows, for n = 1, 2, 3, 4 (Li et al., arXiv 1510.03055). It falls with
    /// the number of rows. The interval is that of the jackknife over rows.
    pub distinct: Vec<Option<Interval>>,
    /// Share of a row's tokens that lie in a 4-gram which the row has more than once; the mean over rows with text.
    pub repetition: Option<Interval>,
    /// BLEU-4 of a row against all others; the mean over rows with text, whose interval takes the other rows as given. It
    /// rises with the number of rows. Absent for a single row.
    pub self_bleu: Option<Interval>,
}

/// The pieces of a row.
pub fn pieces(row: &[u32], special: SpecialIds) -> Vec<&[u32]> {
    let SpecialIds { bos, eos, pad, mask } = special;
    row.split(|token| [bos, eos, pad, mask].contains(token))
        .filter(|piece| !piece.is_empty())
        .collect()
}

impl TextStatistics {
    /// Those of rows.
    #[must_use]
    pub fn of(rows: &[Vec<u32>], special: SpecialIds) -> Self {
        let entropies: Vec<f64> = rows.iter().map(|row| entropy(row)).collect();
        let rows: Vec<Vec<&[u32]>> = rows.iter().map(|row| pieces(row, special)).collect();
        let lengths: Vec<usize> = rows
            .iter()
            .map(|row| row.iter().map(|piece| piece.len()).sum())
            .collect();
        let counts = [1, 2, 3, LONGEST].map(|n| rows.iter().map(|row| ngrams(row, n)).collect::<Vec<_>>());
        let repetitions: Vec<f64> = rows
            .iter()
            .zip(&counts[3])
            .zip(&lengths)
            .filter(|(_, length)| **length > 0)
            .map(|((row, counts), length)| repeated(row, counts) as f64 / *length as f64)
            .collect();
        Self {
            tokens: lengths.iter().map(|&length| length as u64).sum(),
            unigram_entropy: mean(&entropies),
            distinct: counts.iter().map(|rows| distinct(rows)).collect(),
            repetition: mean(&repetitions),
            self_bleu: mean(&self_bleu(&counts, &lengths)),
        }
    }
}

/// −Σ p ln p of the tokens of a row.
fn entropy(row: &[u32]) -> f64 {
    let mut sorted = row.to_vec();
    sorted.sort_unstable();
    let of = row.len() as f64;
    sorted
        .chunk_by(|a, b| a == b)
        .map(|alike| {
            let p = alike.len() as f64 / of;
            -p * p.ln()
        })
        .sum()
}

/// How often a row has each n-gram.
type NgramCounts<'a> = HashMap<&'a [u32], u32>;

fn ngrams<'a>(pieces: &[&'a [u32]], n: usize) -> NgramCounts<'a> {
    let mut counts = HashMap::new();
    for ngram in pieces.iter().flat_map(|piece| piece.windows(n)) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// Tokens in 4-grams that the row has more than once.
fn repeated(pieces: &[&[u32]], counts: &NgramCounts<'_>) -> usize {
    let mut tokens = 0;
    for piece in pieces {
        // Up to where tokens are counted already.
        let mut counted = 0;
        for (start, ngram) in piece.windows(LONGEST).enumerate() {
            if counts.get(ngram).is_some_and(|&count| count > 1) {
                let end = start + LONGEST;
                tokens += end - counted.max(start);
                counted = end;
            }
        }
    }
    tokens
}

/// Distinct n-grams / n-grams, with the values that leave one row out.
fn distinct(rows: &[NgramCounts<'_>]) -> Option<Interval> {
    let mut holders: HashMap<&[u32], u32> = HashMap::new();
    for ngram in rows.iter().flat_map(HashMap::keys) {
        *holders.entry(ngram).or_default() += 1;
    }
    let of_row = |row: &NgramCounts<'_>| row.values().map(|&count| f64::from(count)).sum::<f64>();
    let all: f64 = rows.iter().map(of_row).sum();
    if all == 0.0 {
        return None;
    }
    let kinds = holders.len() as f64;
    let without: Vec<f64> = rows
        .iter()
        .map(|row| (row, of_row(row)))
        // Without its only row nothing is left to count.
        .filter(|(_, count)| *count < all)
        .map(|(row, count)| {
            let own = row.keys().filter(|ngram| holders[*ngram] == 1).count();
            (kinds - own as f64) / (all - count)
        })
        .collect();
    Some(jackknife(kinds / all, &without))
}

/// The two largest counts of an n-gram in a row, and the row of the largest.
#[derive(Clone, Copy, Default)]
struct Largest {
    first: u32,
    row: usize,
    second: u32,
}

/// BLEU-4 of each row with text against all others (Papineni et al. 2002): the geometric mean of the clipped precisions of
/// orders 1 to 4 ([`SMOOTHING`]; 0 without a common token, as NLTK has it), times the brevity penalty for the closest length of another row, the shorter of two. Counts are clipped at
/// the largest count of another row, which two numbers an n-gram answer for every row, so that all rows are compared with
/// all others in one pass. `counts` are by order and row.
fn self_bleu(counts: &[Vec<NgramCounts<'_>>; LONGEST], lengths: &[usize]) -> Vec<f64> {
    let mut sorted = lengths.to_vec();
    sorted.sort_unstable();
    if lengths.len() < 2 {
        return Vec::new();
    }
    let mut logs = vec![0.0; lengths.len()];
    for (order, of_order) in counts.iter().enumerate() {
        let mut largest: HashMap<&[u32], Largest> = HashMap::new();
        for (row, counts) in of_order.iter().enumerate() {
            for (ngram, &count) in counts {
                let known = largest.entry(ngram).or_default();
                if count > known.first {
                    (known.second, known.first, known.row) = (known.first, count, row);
                } else {
                    known.second = known.second.max(count);
                }
            }
        }
        for (row, counts) in of_order.iter().enumerate() {
            let (mut matches, mut all) = (0, 0);
            for (ngram, &count) in counts {
                let known = largest[ngram];
                let of_others = if known.row == row {
                    known.second
                } else {
                    known.first
                };
                matches += count.min(of_others);
                all += count;
            }
            let matches = match matches {
                // Without a common token it is 0.
                0 if order == 0 => 0.0,
                0 => SMOOTHING,
                matches => f64::from(matches),
            };
            // A row too short for the order has no n-gram: as a fraction of one.
            logs[row] += (matches / f64::from(all.max(1))).ln() / LONGEST as f64;
        }
    }
    logs.iter()
        .zip(lengths)
        .filter(|(_, length)| **length > 0)
        .map(|(log, &length)| brevity_penalty(length, &sorted) * log.exp())
        .collect()
}

/// exp(min(0, 1 − r / c)) of a row of length c, r the closest of the other lengths. `sorted` has all lengths.
fn brevity_penalty(length: usize, sorted: &[usize]) -> f64 {
    let at = sorted.partition_point(|&other| other < length);
    // Another row of the same length, else the next shorter or longer one.
    let same = sorted.get(at + 1).filter(|&&other| other == length);
    let shorter = at.checked_sub(1).map(|at| sorted[at]);
    let closest = match (same, shorter, sorted.get(at + 1)) {
        (Some(_), _, _) | (None, None, None) => length,
        (None, Some(shorter), Some(&longer)) if length - shorter > longer - length => longer,
        (None, Some(shorter), _) => shorter,
        (None, None, Some(&longer)) => longer,
    };
    (1.0 - closest as f64 / length as f64).min(0.0).exp()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPECIAL: SpecialIds = SpecialIds {
        bos: 0,
        eos: 1,
        pad: 2,
        mask: 3,
    };

    fn of(rows: &[&[u32]]) -> TextStatistics {
        let rows: Vec<Vec<u32>> = rows.iter().map(|row| row.to_vec()).collect();
        TextStatistics::of(&rows, SPECIAL)
    }

    #[test]
    fn entropy_of_a_row_counts_special_tokens_as_duo_does() {
        assert!((entropy(&[0, 7, 7, 1]) - 1.5 * 2f64.ln()).abs() < 1e-15);
        assert_eq!(entropy(&[5, 5, 5]), 0.0);
        let found = of(&[&[0, 7, 7, 1], &[5, 5, 5, 5]]).unigram_entropy.unwrap();
        assert!((found.value - 0.75 * 2f64.ln()).abs() < 1e-15);
    }

    #[test]
    fn distinct_ngrams_lie_within_pieces_of_all_rows() {
        let found = of(&[&[0, 7, 8, 1, 9, 2], &[0, 7, 8, 7, 1, 2]]);
        assert_eq!(found.tokens, 6);
        let values: Vec<Option<f64>> = found
            .distinct
            .iter()
            .map(|distinct| distinct.map(|interval| interval.value))
            .collect();
        // Unigrams 7 8 9 of 6; bigrams 78 87 of 3; one trigram; no 4-gram.
        assert_eq!(values, [Some(0.5), Some(2.0 / 3.0), Some(1.0), None]);
        // Without a row: 2 / 3 and 3 / 3 unigrams.
        let half = (0.5f64 * 2.0 * (1.0f64 / 6.0).powi(2)).sqrt() * 12.706_204_74;
        let (low, high) = found.distinct[0].unwrap().ends().unwrap();
        assert!((high - low - 2.0 * half).abs() < 1e-6, "{low} {high}");
    }

    #[test]
    fn repetition_is_the_share_of_tokens_in_repeated_ngrams_of_four() {
        let repeated = [0, 10, 11, 12, 13, 14, 10, 11, 12, 13, 14, 15, 1];
        let found = of(&[&repeated]).repetition.unwrap();
        assert!((found.value - 10.0 / 11.0).abs() < 1e-15);
        assert_eq!(of(&[&[0, 10, 11, 12, 13, 14, 1]]).repetition.unwrap().value, 0.0);
        assert_eq!(of(&[&[0, 9, 9, 9, 9, 9, 1]]).repetition.unwrap().value, 1.0);
        assert_eq!(of(&[&[0, 1, 2]]).repetition, None);
    }

    /// nltk 3.9: sentence_bleu(others, row, smoothing_function=SmoothingFunction().method1) of each row, and their mean.
    #[test]
    fn self_bleu_is_that_of_nltk_with_its_first_smoothing() {
        let rows: [&[u32]; 3] = [
            &[10, 11, 12, 13, 14],
            &[10, 11, 12, 13, 15, 16, 10],
            &[20, 11, 12, 21],
        ];
        let bleu = |precisions: [f64; 4]| (precisions.iter().map(|p| p.ln()).sum::<f64>() / 4.0).exp();
        let by_hand = [
            // Closest other length: 4 of (7, 4).
            bleu([4.0 / 5.0, 3.0 / 4.0, 2.0 / 3.0, 1.0 / 2.0]),
            // 10 is clipped at 1.
            bleu([4.0 / 7.0, 3.0 / 6.0, 2.0 / 5.0, 1.0 / 4.0]),
            (1.0f64 - 5.0 / 4.0).exp() * bleu([2.0 / 4.0, 1.0 / 3.0, 0.1 / 2.0, 0.1]),
        ];
        let found = of(&rows).self_bleu.unwrap();
        assert!((found.value - by_hand.iter().sum::<f64>() / 3.0).abs() < 1e-12);
        assert_eq!(of(&rows[..1]).self_bleu, None);
    }

    proptest! {
        /// The two largest counts answer what a comparison of each row with all others does.
        #[test]
        fn self_bleu_equals_that_of_pairwise_comparison(
            rows in proptest::collection::vec(proptest::collection::vec(4u32..8, 1..12), 2..6)
        ) {
            let pieces: Vec<Vec<&[u32]>> = rows.iter().map(|row| vec![row.as_slice()]).collect();
            let lengths: Vec<usize> = rows.iter().map(Vec::len).collect();
            let counts = [1, 2, 3, 4].map(|n| pieces.iter().map(|row| ngrams(row, n)).collect::<Vec<_>>());
            for (row, found) in self_bleu(&counts, &lengths).into_iter().enumerate() {
                let others = || (0..rows.len()).filter(|&other| other != row);
                let mut log = 0.0;
                for (order, of_order) in counts.iter().enumerate() {
                    let (mut matches, mut all) = (0, 0);
                    for (ngram, &count) in &of_order[row] {
                        let most = others().filter_map(|other| of_order[other].get(ngram)).max();
                        matches += count.min(most.copied().unwrap_or(0));
                        all += count;
                    }
                    let matches = match (matches, order) {
                        (0, 0) => 0.0,
                        (0, _) => 0.1,
                        (matches, _) => f64::from(matches),
                    };
                    log += (matches / f64::from(all.max(1))).ln() / 4.0;
                }
                let closest = others()
                    .map(|other| lengths[other])
                    .min_by_key(|&length| (length.abs_diff(lengths[row]), length))
                    .unwrap();
                let penalty = (1.0 - closest as f64 / lengths[row] as f64).min(0.0).exp();
                prop_assert!((found - penalty * log.exp()).abs() < 1e-12);
            }
        }
    }
}
