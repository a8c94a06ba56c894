//! First-hitting sampling: one token a network call, drawn as in ancestral sampling with infinitely many steps.
//!
//! In continuous time no two tokens of a row are unmasked at once. With m masked tokens the next one is unmasked at
//! t · u^(1/m), u uniform on [0, 1), and each of the m is equally likely to be it (Zheng et al., arXiv 2409.02908, section 4).
//! What a network without time conditioning answers depends on the tokens alone, so the times are not needed: the order of
//! the tokens is a uniform permutation, and the texts have no discretization error.

use super::{Query, Sampler, Step, masked};
use crate::model::Action;

/// Unmasks one uniformly chosen token of each row in every step, drawn from the network's distribution, until none is left:
/// as many steps and network calls as a row has masked tokens, whatever number a manifest asks for.
pub struct FirstHitting {
    /// What stands at positions that are not drawn yet.
    pub mask: u32,
}

impl Sampler for FirstHitting {
    fn start(&self, length: usize) -> Vec<u32> {
        vec![self.mask; length]
    }

    fn steps(&self, _: u32, length: usize) -> u32 {
        length as u32
    }

    /// The network takes no time.
    fn sigma(&self, _: &Step) -> f64 {
        0.0
    }

    fn query(&self, step: &Step, row: usize, tokens: &[u32]) -> Vec<Query> {
        let count = masked(self.mask, tokens).count();
        // The row's one decision in this step has the number of position 0. u < 1, and yet u · m may round up to m.
        let which = (step.uniform(row, 0) * count as f64) as usize;
        masked(self.mask, tokens)
            .nth(which.min(count.saturating_sub(1)))
            .map(|position| Query {
                position,
                action: Action::Commit,
            })
            .into_iter()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cancel;
    use crate::model::toy::{self, Distribution};
    use crate::rng::{Random, Stream};
    use crate::sample::{DrawnRows, Sampling};

    /// Of toys with three letters.
    const MASK: u32 = 3;

    fn run(truth: &Distribution, ends: [Option<u32>; 2], count: u32) -> DrawnRows {
        let task = Sampling {
            ends,
            ..Sampling::new(count, 1, truth.support(), 3)
        };
        let network = toy::Posterior::new(truth.clone());
        task.run(
            &mut FirstHitting { mask: MASK },
            &network,
            &Cancel::default(),
            &mut |_| (),
        )
        .unwrap()
    }

    /// Σ (n − N p)² / (N p) over rows, where p is the probability given the first token, if it is given.
    fn chi_square(truth: &Distribution, first: Option<u32>, drawn: &DrawnRows) -> f64 {
        let is_possible = |row: &[u32]| first.is_none_or(|token| row[0] == token);
        let rows: Vec<Vec<u32>> = (0..truth.probabilities.len())
            .map(|i| truth.row(i))
            .filter(|row| is_possible(row))
            .collect();
        let probability = |row: &[u32]| truth.probabilities[truth.index(row)];
        let total: f64 = rows.iter().map(|row| probability(row)).sum();
        let count = drawn.tokens.chunks(truth.length).count() as f64;
        rows.iter()
            .map(|row| {
                let found = drawn.tokens.chunks(truth.length).filter(|drawn| drawn == row);
                let expected = count * probability(row) / total;
                (found.count() as f64 - expected).powi(2) / expected
            })
            .sum()
    }

    #[test]
    fn first_hitting_with_the_exact_posterior_has_its_distribution() {
        let truth = Distribution::random(3, 3, 4);
        let drawn = run(&truth, [None; 2], 20_000);
        // 26 degrees of freedom, 1e-4 quantile 61.7.
        let chi = chi_square(&truth, None, &drawn);
        assert!(chi < 61.7, "chi-square {chi}");
        assert!(drawn.network_calls.iter().all(|&calls| calls == 3));
    }

    #[test]
    fn first_hitting_with_a_given_token_has_the_conditional_distribution() {
        let truth = Distribution::random(3, 3, 4);
        let drawn = run(&truth, [Some(1), None], 20_000);
        assert!(drawn.tokens.chunks(3).all(|row| row[0] == 1));
        // 8 degrees of freedom, 1e-4 quantile 31.8.
        let chi = chi_square(&truth, Some(1), &drawn);
        assert!(chi < 31.8, "chi-square {chi}");
        assert!(drawn.network_calls.iter().all(|&calls| calls == 2));
    }

    #[test]
    fn first_hitting_chooses_every_masked_position_equally_often() {
        let sampler = FirstHitting { mask: MASK };
        let mut counts = [0_u32; 4];
        for row in 0..8000 {
            let step = Step {
                index: 0,
                count: 4,
                number: 0,
                random: Random::new(5, Stream::Sample),
            };
            let queries = sampler.query(&step, row, &[MASK, 0, MASK, MASK]);
            assert_eq!(queries.len(), 1);
            counts[queries[0].position as usize] += 1;
        }
        assert_eq!(counts[1], 0, "it is not masked");
        // Five standard errors of a binomial share of a third.
        for position in [0, 2, 3] {
            let share = f64::from(counts[position]) / 8000.0;
            assert!(
                (share - 1.0 / 3.0).abs() < 5.0 * (2.0 / 9.0 / 8000.0_f64).sqrt(),
                "{counts:?}"
            );
        }
    }
}
