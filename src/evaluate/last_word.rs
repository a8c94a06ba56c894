//! Whether a model's greedy choice is the last word of a record.
//!
//! The word's tokens are chosen from left to right, each as the most probable one (the lowest id of equal ones) after the record
//! and the tokens chosen before it; the word is right where all of them are the record's. Up to the first wrong choice, what
//! was chosen before is what the record has, so that each choice may be made given the record's own tokens: the network is
//! asked once for all choices of a row, and nothing is drawn.
//!
//! An autoregressive network makes all of them in one pass. A masked one has a pass for each, with the word's tokens from
//! there on masked; one with time conditioning is fed the noise level at which so large a share of the word is masked.

use std::ops::Range;

use super::BoundEstimator;
use crate::data::rows::Permutation;
use crate::diffusion::{NoisedBatch, Objective, Score};
use crate::error::Result;
use crate::event::Cancel;
use crate::kernels::{Pattern, VocabSupport};
use crate::model::Network;

impl BoundEstimator<'_> {
    /// Whether each row's scored tokens are the network's greedy choices, in the order of evaluation. `progress` hears the
    /// rows done, of how many, and how many are right.
    ///
    /// # Errors
    /// A row cannot be read, the network fails, or the run is cancelled.
    pub fn chosen_greedily(
        &self,
        network: &dyn Network,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u64, u64, u64),
    ) -> Result<Vec<bool>> {
        let total = self
            .limit
            .map_or(self.rows.len(), |limit| limit.min(self.rows.len()));
        let order = (total < self.rows.len()).then(|| Permutation::new(self.seed, self.rows.len()));
        let mut right = vec![true; total as usize];
        let mut asked = NoisedBatch::default();
        // The row of each pass that waits.
        let mut of = Vec::new();
        let mut x = vec![0; self.rows.length()];
        for rank in 0..total {
            let row = order.as_ref().map_or(rank, |order| order.get(0, rank));
            let scored = self.rows.read(row, &mut x)?;
            for pass in 0..passes(self.objective, &scored) {
                push(
                    self.objective,
                    pass,
                    &x,
                    &scored,
                    self.rows.info().special.mask,
                    &mut asked,
                );
                of.push(rank as usize);
                if asked.rows() == self.micro_batch {
                    cancel.check()?;
                    answer(network, self.objective, &mut asked, &mut of, &mut right)?;
                    let done = &right[..rank as usize];
                    progress(rank, total, done.iter().filter(|right| **right).count() as u64);
                }
            }
        }
        answer(network, self.objective, &mut asked, &mut of, &mut right)?;
        Ok(right)
    }
}

/// How often a row goes through the network.
fn passes(objective: &dyn Objective, scored: &Range<usize>) -> usize {
    if objective.pattern() == Pattern::Causal {
        1
    } else {
        scored.len()
    }
}

/// Appends the row as a pass of it sees it, with the tokens that are chosen there.
fn push(
    objective: &dyn Objective,
    pass: usize,
    x: &[u32],
    scored: &Range<usize>,
    mask: u32,
    into: &mut NoisedBatch,
) {
    let score = Score::weight(1.0);
    if objective.pattern() == Pattern::Causal {
        into.push_scored(x, None, |l, token| {
            let next = x.get(l + 1).filter(|_| scored.contains(&(l + 1)));
            (token, next.map(|&next| (next, score)))
        });
        return;
    }
    let position = scored.start + pass;
    let share = (scored.end - position) as f64 / scored.len() as f64;
    let input = objective.posterior().and_then(|posterior| {
        let level = posterior.forward.schedule.move_chance(1.0);
        let move_chance = share.min(level);
        posterior.conditioning.input(-(-move_chance).ln_1p(), move_chance)
    });
    into.push_scored(x, input, |l, token| {
        let seen = if l < position { token } else { mask };
        (seen, (l == position).then_some((token, score)))
    });
}

/// Asks the network about the passes gathered, and removes them: a row is wrong where a choice of it is.
fn answer(
    network: &dyn Network,
    objective: &dyn Objective,
    asked: &mut NoisedBatch,
    of: &mut Vec<usize>,
    right: &mut [bool],
) -> Result<()> {
    if !asked.positions.is_empty() {
        let logits = network.logits(&asked.tokens, &asked.sigma, &asked.positions, objective.pattern())?;
        // What is decoded is never the mask.
        let VocabSupport { mask, size, .. } = objective.support();
        let support = VocabSupport::without_mask(mask, size);
        let width = network.shape().vocabulary;
        let chosen: Vec<u32> = logits
            .chunks(width)
            .map(|logits| most_probable(logits, support))
            .collect();
        for (span, &row) in asked.spans().zip(of.iter()) {
            right[row] &= chosen[span.clone()] == asked.targets[span];
        }
    }
    asked.clear();
    of.clear();
    Ok(())
}

/// The token with the largest logit, the first of equal ones.
fn most_probable(logits: &[f32], support: VocabSupport) -> u32 {
    let mut best = (f32::NEG_INFINITY, u32::MAX);
    for (token, &logit) in (0..).zip(logits) {
        if support.contains(token) && logit > best.0 {
            best = (logit, token);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SpecialIds;
    use crate::data::rows::Rows;
    use crate::diffusion::Method;
    use crate::diffusion::objective::{Ar, Sedd};
    use crate::diffusion::{EVERY_SCHEDULE, Mdlm};
    use crate::manifest::{Estimator, SeddObjective};
    use crate::model::toy::{Distribution, Posterior};
    use crate::rng::Stream;

    const LENGTH: usize = 5;

    /// All rows of a distribution, of which the positions in `scored` are scored.
    fn rows(truth: &Distribution, scored: &Range<usize>, bos: Option<u32>) -> Rows {
        let count = truth.probabilities.len();
        let shift = usize::from(bos.is_some());
        let tokens = (0..count).flat_map(|index| bos.into_iter().chain(truth.row(index)));
        let mask = truth.mask();
        let special = SpecialIds {
            bos: bos.unwrap_or(0),
            eos: 0,
            pad: 0,
            mask,
        };
        let scored = vec![scored.start + shift..scored.end + shift; count];
        Rows::from_memory(
            mask + 1 + shift as u32,
            special,
            truth.length + shift,
            tokens.collect(),
            Some(&scored),
        )
        .unwrap()
    }

    /// Whether the greedy choices from left to right, after what is before the scored positions, are the row's: by the joint
    /// distribution, choosing given what was chosen.
    fn expected(truth: &Distribution, scored: &Range<usize>) -> Vec<bool> {
        let of = |index: usize| {
            let x = truth.row(index);
            let mut z = vec![truth.mask(); truth.length];
            z[..scored.start].copy_from_slice(&x[..scored.start]);
            for l in scored.clone() {
                let p = truth.posterior(&z, l);
                let best = (0..p.len()).max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap();
                z[l] = best as u32;
            }
            z[scored.clone()] == x[scored.clone()]
        };
        (0..truth.probabilities.len()).map(of).collect()
    }

    fn chosen(
        rows: &Rows,
        objective: &dyn Objective,
        network: &dyn Network,
        micro_batch: usize,
    ) -> Vec<bool> {
        let task = BoundEstimator {
            rows,
            limit: None,
            objective,
            seed: 3,
            method: Method::of(Estimator::Count),
            draws: 1,
            stream: Stream::Evaluate,
            micro_batch,
        };
        task.chosen_greedily(network, &Cancel::default(), &mut |_, _, _| ())
            .unwrap()
    }

    #[test]
    fn last_words_are_right_where_the_greedy_choices_are_the_records() {
        let truth = Distribution::random(LENGTH, 3, 4);
        let mask = truth.mask();
        for scored in [1..2, 2..4, 1..5] {
            let right = expected(&truth, &scored);
            // One word after each context: 3^5 rows in as many classes as there are contexts and futures.
            let share = right.iter().filter(|right| **right).count();
            assert_eq!(share, 243 / 3_usize.pow(scored.len() as u32), "{scored:?}");
            let masked = Posterior::new(truth.clone());
            let of_masked = rows(&truth, &scored, None);
            let mdlm = Mdlm::with_schedule(EVERY_SCHEDULE[0], mask, 3);
            let sedd = Sedd::new(&SeddObjective::default(), mask, mask + 1, 3);
            for micro_batch in [1, 7, 100] {
                for objective in [&mdlm as &dyn Objective, &sedd] {
                    let found = chosen(&of_masked, objective, &masked, micro_batch);
                    assert_eq!(found, right, "{scored:?}");
                }
            }
            let bos = mask + 1;
            let causal = Posterior::of_next_token(truth.clone(), bos);
            let ar = Ar {
                mask,
                vocabulary: mask + 1,
            };
            let of_causal = rows(&truth, &scored, Some(bos));
            assert_eq!(chosen(&of_causal, &ar, &causal, 10), right, "{scored:?}");
        }
    }

    #[test]
    fn last_words_of_equal_logits_are_the_lowest_id_and_never_the_mask() {
        let support = VocabSupport::without_mask(1, 4);
        assert_eq!(most_probable(&[0.5, 9.0, 0.5, 0.25, 9.0], support), 0);
        assert_eq!(most_probable(&[-1.0, 9.0, 0.5, 0.5, 9.0], support), 2);
    }
}
