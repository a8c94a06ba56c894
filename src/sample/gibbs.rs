//! Gibbs sampling: one token at a time is drawn anew, given all others.

use super::{Query, Sampler, Step};
use crate::kernels::categorical::Draw;
use crate::model::Action;

/// Gibbs sampling from a masked language model (BERT-Mouth, arXiv 1902.04094, section 3): a position is masked, and its token
/// drawn from the network's distribution given all others. A sweep draws each position once, in a random order; the first sweep
/// starts from rows that are all masked.
///
/// DIFFERENCE: BERT-Mouth picks a position at random in each step; with sweeps none is left masked and none is drawn twice
/// before all are.
pub struct Gibbs {
    /// What stands at the position that is drawn.
    pub mask: u32,
}

impl Gibbs {
    /// The position of a step in a row of `length` tokens.
    fn position(step: &Step, row: usize, length: usize) -> u32 {
        let (sweep, place) = (step.index as usize / length, step.index as usize % length);
        // The order of a sweep is that of the numbers of its first step.
        let first = step.number - u64::from(step.index) + (sweep * length) as u64;
        let number = |position: u32| step.random.uniform(first, row as u64, 2 * position);
        let mut order: Vec<(f64, u32)> = (0..length as u32)
            .map(|position| (number(position), position))
            .collect();
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        order[place].1
    }
}

impl Sampler for Gibbs {
    fn start(&self, length: usize) -> Vec<u32> {
        vec![self.mask; length]
    }

    /// L in each of `steps` sweeps.
    fn steps(&self, steps: u32, length: usize) -> u32 {
        steps.saturating_mul(length as u32)
    }

    /// The network takes no time.
    fn sigma(&self, _: &Step) -> f64 {
        0.0
    }

    fn query(&self, step: &Step, row: usize, tokens: &[u32]) -> Vec<Query> {
        let position = Self::position(step, row, tokens.len());
        let is_masked = tokens[position as usize] == self.mask;
        let query = Query {
            position,
            action: Action::Report,
        };
        // A given token is never masked.
        is_masked.then_some(query).into_iter().collect()
    }

    /// The drawn token, and the mask at the position of the next step.
    fn commit(&mut self, step: &Step, row: usize, tokens: &[u32], draws: &[(u32, Draw)]) -> Vec<(u32, u32)> {
        let drawn = draws.iter().map(|&(position, draw)| (position, draw.token));
        let next = Step {
            index: step.index + 1,
            number: step.number + 1,
            ..*step
        };
        let masked = (next.index < step.count).then(|| Self::position(&next, row, tokens.len()));
        drawn
            .chain(masked.map(|position| (position, self.mask)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cancel;
    use crate::model::toy::{self, Distribution};
    use crate::sample::tests::{chi_square, task};

    #[test]
    fn gibbs_with_the_exact_conditionals_has_their_distribution() {
        let truth = Distribution::random(3, 3, 4);
        let network = toy::Posterior::new(truth.clone());
        // The first sweep draws each token given those before it, so that every sweep is a draw of the distribution.
        for sweeps in [1, 4] {
            let task = crate::sample::Sampling {
                count: 20_000,
                steps: sweeps,
                ..task(&truth)
            };
            let drawn = task.run(&mut Gibbs { mask: 3 }, &network, &Cancel::default(), &mut |_| ());
            let drawn = drawn.unwrap();
            // 26 degrees of freedom, 1e-4 quantile 61.7.
            let chi = chi_square(&truth, &drawn.tokens, |_| true);
            assert!(chi < 61.7, "chi-square {chi}");
            assert!(drawn.network_calls.iter().all(|&calls| calls == 3 * sweeps));
        }
    }

    #[test]
    fn gibbs_never_changes_given_tokens_and_draws_the_others_given_them() {
        let truth = Distribution::random(3, 3, 4);
        let network = toy::Posterior::new(truth.clone());
        let task = crate::sample::Sampling {
            given: &[u32::MAX, 1, u32::MAX],
            count: 20_000,
            steps: 2,
            ..task(&truth)
        };
        let drawn = task.run(&mut Gibbs { mask: 3 }, &network, &Cancel::default(), &mut |_| ());
        let drawn = drawn.unwrap();
        assert!(drawn.tokens.chunks(3).all(|row| row[1] == 1));
        // 8 degrees of freedom, 1e-4 quantile 31.8.
        let chi = chi_square(&truth, &drawn.tokens, |row| row[1] == 1);
        assert!(chi < 31.8, "chi-square {chi}");
        assert!(drawn.network_calls.iter().all(|&calls| calls == 4));
    }
}
