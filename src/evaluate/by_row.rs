//! The losses of an evaluation row by row, and the difference of two evaluations on the same rows.

use super::{Interval, ratio};
use crate::store::Digest;

/// The loss of each row, in the order of evaluation.
#[derive(Clone, Debug, PartialEq)]
pub struct LossesByRow {
    /// The number of each row in its split.
    pub rows: Vec<u64>,
    /// Nats of the whole row: the mean of its draws.
    pub nats: Vec<f64>,
    /// Its valid tokens, context left out.
    pub valid_tokens: Vec<u32>,
    /// BLAKE3 of the rows: of each its tokens (u32, little-endian), where its scored ones end and where they begin (u32 each).
    pub text: Digest,
}

/// The mean over some evaluations of each row's nats; nothing where they have not the same rows in the same order.
fn mean(of: &[&LossesByRow], text: Digest) -> Option<Vec<f64>> {
    let (first, others) = of
        .split_first()
        .filter(|_| of.iter().all(|one| one.text == text))?;
    let mut sum = first.nats.clone();
    for other in others {
        for (sum, nats) in sum.iter_mut().zip(&other.nats) {
            *sum += nats;
        }
    }
    Some(sum.iter().map(|sum| sum / of.len() as f64).collect())
}

/// How many nats per valid token `a` has more than `b`, with its 95% interval, from the differences row by row; of several
/// evaluations of one setting, means over them. Nothing where they were not made on the same rows in the same order.
///
/// What the rows have in common cancels out: text that is hard for both models, and the noise where both draw the same. The
/// estimator is that of the bound, with y the difference of a row. It covers which rows were held out and what noise was
/// drawn, not another seed of training.
#[must_use]
pub fn difference(a: &[&LossesByRow], b: &[&LossesByRow]) -> Option<Interval> {
    let first = a.first()?;
    let (a, b) = (mean(a, first.text)?, mean(b, first.text)?);
    let differences: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    let tokens: Vec<u64> = first.valid_tokens.iter().map(|&n| u64::from(n)).collect();
    Some(ratio(&differences, &tokens).interval())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(nats: &[f64], text: &[u8]) -> LossesByRow {
        LossesByRow {
            rows: (0..nats.len() as u64).collect(),
            nats: nats.to_vec(),
            valid_tokens: vec![2; nats.len()],
            text: Digest::of(text),
        }
    }

    #[test]
    fn difference_by_row_leaves_out_what_the_rows_have_in_common() {
        // Rows differ by hundreds of nats, the models by 2 ± 0.5 a row.
        let b: Vec<f64> = (0..200).map(|row| f64::from(row * row % 37) * 10.0).collect();
        let a: Vec<f64> = b
            .iter()
            .enumerate()
            .map(|(row, nats)| nats + 2.0 + if row % 2 == 0 { 0.5 } else { -0.5 })
            .collect();
        let (a, b) = (losses(&a, b"text"), losses(&b, b"text"));
        let found = difference(&[&a], &[&b]).unwrap();
        assert!((found.value - 1.0).abs() < 1e-12, "{found:?}");
        let half = found.high.unwrap() - found.value;
        // 0.5 / √200 / 2 tokens · 1.98 is 0.035; successive differences of an alternating sequence double at most.
        assert!((0.01..0.1).contains(&half), "{half}");
        let back = difference(&[&b], &[&a]).unwrap();
        assert_eq!(back.value, -found.value);
    }

    #[test]
    fn difference_by_row_is_of_means_over_evaluations() {
        let a = [losses(&[4.0, 8.0], b"text"), losses(&[6.0, 10.0], b"text")];
        let b = losses(&[4.0, 4.0], b"text");
        let found = difference(&[&a[0], &a[1]], &[&b]).unwrap();
        assert_eq!(found.value, (1.0 + 5.0) / 4.0);
    }

    #[test]
    fn difference_by_row_needs_the_same_rows() {
        let (a, b) = (losses(&[1.0, 2.0], b"text"), losses(&[1.0, 2.0], b"other"));
        assert_eq!(difference(&[&a], &[&b]), None);
        assert_eq!(difference(&[&a], &[&a, &b]), None);
        assert_eq!(difference(&[], &[&b]), None);
    }
}
