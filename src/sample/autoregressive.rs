//! Autoregressive sampling: one token a step, from left to right.

use super::{Query, Sampler, Step};
use crate::kernels::Pattern;
use crate::kernels::categorical::Draw;
use crate::model::Action;

/// Ancestral sampling of p(x) = Π p(x_(k+1) | x_0, …, x_k), x_0 being BOS: in step k the network is asked about position k,
/// whose answer is the distribution of the next token, and the drawn token takes position k + 1. A row of L tokens takes
/// L − 1 steps, whatever number a manifest asks for.
pub struct Autoregressive {
    /// The token at position 0 of every row.
    pub bos: u32,
    /// What stands at positions that are not drawn yet. It is never drawn, and the network does not attend to it.
    pub mask: u32,
    /// How a row ends where rows are padded; nothing where texts are joined.
    pub ending: Option<Ending>,
}

/// The tokens that end a padded row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// The first one after BOS ends the row: the network is not asked about it any more.
    pub eos: u32,
    /// It takes all positions after.
    pub pad: u32,
}

impl Sampler for Autoregressive {
    fn start(&self, length: usize) -> Vec<u32> {
        let mut row = vec![self.mask; length];
        row[0] = self.bos;
        row
    }

    fn steps(&self, _: u32, length: usize) -> u32 {
        length as u32 - 1
    }

    fn sigma(&self, _: &Step) -> f64 {
        0.0
    }

    fn pattern(&self) -> Pattern {
        Pattern::Causal
    }

    /// Position k, unless the next token is there already: given, or past the row's end.
    fn query(&self, step: &Step, _: usize, tokens: &[u32]) -> Vec<Query> {
        if tokens[step.index as usize + 1] != self.mask {
            return Vec::new();
        }
        vec![Query {
            position: step.index,
            action: Action::Report,
        }]
    }

    fn commit(&mut self, _: &Step, _: usize, tokens: &[u32], draws: &[(u32, Draw)]) -> Vec<(u32, u32)> {
        let Some(&(position, Draw { token, .. })) = draws.first() else {
            return Vec::new();
        };
        let next = position + 1;
        let padding = self
            .ending
            .filter(|ending| ending.eos == token)
            .into_iter()
            .flat_map(|ending| (next + 1..tokens.len() as u32).map(move |position| (position, ending.pad)));
        std::iter::once((next, token)).chain(padding).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::event::Cancel;
    use crate::model::Network;
    use crate::model::toy::{Distribution, Posterior};
    use crate::sample::{DrawnRows, Sampling};

    /// Of toys, beyond the tokens that are drawn.
    const BOS: u32 = 4;

    fn task(truth: &Distribution) -> Sampling<'static> {
        Sampling::new(40, 1, truth.support(), 3)
    }

    fn joined(bos: u32, mask: u32) -> Autoregressive {
        Autoregressive {
            bos,
            mask,
            ending: None,
        }
    }

    fn run(task: Sampling<'_>, mut sampler: Autoregressive, network: &dyn Network) -> DrawnRows {
        task.run(&mut sampler, network, &Cancel::default(), &mut |_| ())
            .unwrap()
    }

    /// Pearson's statistic of rows against their probabilities.
    fn chi_square(drawn: &DrawnRows, length: usize, probabilities: &BTreeMap<Vec<u32>, f64>) -> f64 {
        let rows = drawn.tokens.chunks(length);
        let total = rows.len() as f64;
        let mut counts: BTreeMap<&[u32], f64> = BTreeMap::new();
        for row in rows {
            assert!(probabilities.contains_key(row), "{row:?}");
            *counts.entry(row).or_default() += 1.0;
        }
        probabilities
            .iter()
            .map(|(row, p)| {
                let found = counts.get(&row[..]).copied().unwrap_or_default();
                (found - total * p).powi(2) / (total * p)
            })
            .sum()
    }

    #[test]
    fn draws_of_the_exact_model_have_its_distribution() {
        let truth = Distribution::random(3, 3, 4);
        let network = Posterior::of_next_token(truth.clone(), BOS);
        let task = Sampling {
            count: 20_000,
            ..task(&truth)
        };
        let drawn = run(task, joined(BOS, 3), &network);
        let row = |i| std::iter::once(BOS).chain(truth.row(i)).collect();
        let probabilities = (0..27).map(|i| (row(i), truth.probabilities[i])).collect();
        let chi = chi_square(&drawn, 4, &probabilities);
        // 26 degrees of freedom, 1e-4 quantile 61.7.
        assert!(chi < 61.7, "chi-square {chi}");
        assert!(drawn.network_calls.iter().all(|&calls| calls == 3));
    }

    #[test]
    fn padded_row_stops_at_its_first_end() {
        // Letters are a word, EOS, which is BOS as well, and the padding.
        const END: Ending = Ending { eos: 1, pad: 2 };
        let truth = Distribution::random(3, 3, 4);
        let network = Posterior::of_next_token(truth.clone(), END.eos);
        let task = Sampling {
            count: 20_000,
            ..task(&truth)
        };
        let sampler = Autoregressive {
            bos: END.eos,
            mask: 3,
            ending: Some(END),
        };
        let drawn = run(task, sampler, &network);
        let end = |row: &[u32]| row[1..].iter().position(|&token| token == END.eos).map(|l| l + 1);
        let mut probabilities = BTreeMap::new();
        for (i, p) in truth.probabilities.iter().enumerate() {
            let mut row: Vec<u32> = std::iter::once(END.eos).chain(truth.row(i)).collect();
            if let Some(end) = end(&row) {
                row[end + 1..].fill(END.pad);
            }
            *probabilities.entry(row).or_default() += p;
        }
        assert_eq!(probabilities.len(), 15);
        let chi = chi_square(&drawn, 4, &probabilities);
        // 14 degrees of freedom, 1e-4 quantile 42.6.
        assert!(chi < 42.6, "chi-square {chi}");
        for (row, &calls) in drawn.tokens.chunks(4).zip(&drawn.network_calls) {
            assert_eq!(calls as usize, end(row).unwrap_or(3), "{row:?}");
        }
        assert_eq!(
            network.calls.get(),
            drawn.network_calls.iter().map(|&n| n as usize).sum::<usize>()
        );
    }

    #[test]
    fn given_last_token_stays_and_the_network_is_not_asked_for_it() {
        let truth = Distribution::random(4, 3, 5);
        let network = Posterior::of_next_token(truth.clone(), BOS);
        let task = Sampling {
            ends: [Some(BOS), Some(1)],
            ..task(&truth)
        };
        let drawn = run(task, joined(BOS, 3), &network);
        assert!(drawn.tokens.chunks(5).all(|row| row[0] == BOS && row[4] == 1));
        assert!(drawn.network_calls.iter().all(|&calls| calls == 3));
        let free = run(
            Sampling {
                ends: [None; 2],
                ..task
            },
            joined(BOS, 3),
            &network,
        );
        for (given, free) in drawn.tokens.chunks(5).zip(free.tokens.chunks(5)) {
            assert_eq!(given[..4], free[..4]);
        }
    }

    #[test]
    fn steps_are_one_less_than_the_tokens_of_a_row() {
        for length in [1, 2, 1024] {
            for asked in [1, 128] {
                assert_eq!(joined(BOS, 3).steps(asked, length) as usize, length - 1);
            }
        }
    }

    #[test]
    fn draws_depend_on_seed_and_row_alone() {
        let truth = Distribution::random(4, 3, 5);
        let network = Posterior::of_next_token(truth.clone(), BOS);
        let ending = Some(Ending { eos: 1, pad: 2 });
        let draw = |task| {
            let sampler = Autoregressive {
                ending,
                ..joined(BOS, 3)
            };
            run(task, sampler, &network)
        };
        let base = task(&truth);
        let whole = draw(base);
        for micro_batch in [1, 7, 40] {
            assert_eq!(draw(Sampling { micro_batch, ..base }), whole);
        }
        let fewer = draw(Sampling { count: 7, ..base });
        assert_eq!(fewer.tokens, whole.tokens[..35]);
        assert_ne!(draw(Sampling { seed: 4, ..base }).tokens, whole.tokens);
    }

    /// A transformer: the texts are those that its answers about the whole row give, on the CPU and on an emulated device.
    #[test]
    #[cfg(target_os = "linux")]
    fn draws_on_cuda_are_those_of_the_cpu() {
        use crate::kernels::categorical::cpu;
        use crate::kernels::cuda::{Cuda, driver::DType, emulated::Emulated};
        use crate::kernels::{Fused, VocabSupport};
        use crate::model::dit::Nano;
        use crate::model::{CpuNetwork, CudaNetwork};
        use crate::rng::{Random, Stream};
        use crate::shapes::{Backbone, SHAPES};

        let mut weights = crate::model::initial(SHAPES.find("nano").unwrap(), Backbone::Transformer, 3);
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight += 0.1 * (i as f32 * 78.233).sin();
        }
        let support = VocabSupport::without_mask(500, 501);
        let task = Sampling {
            count: 4,
            temperature: 0.8,
            support,
            ..task(&Distribution::random(2, 2, 1))
        };
        let host = CpuNetwork::<Nano, _>::new(Fused::default(), Backbone::Transformer, &weights).unwrap();
        let sampler = || joined(3, 500);
        let expected = run(task, sampler(), &host);
        let length = host.shape().length;
        let positions: Vec<u32> = (0..length as u32 - 1).collect();
        for (i, row) in expected.tokens.chunks(length).enumerate() {
            let logits = host.logits(row, &[0.0], &positions, Pattern::Causal).unwrap();
            let of_positions = logits.chunks(host.shape().vocabulary).zip(&positions);
            for (logits, &k) in of_positions {
                let step = Step {
                    index: k,
                    count: length as u32 - 1,
                    number: u64::from(k),
                    random: Random::new(task.seed, Stream::Sample),
                };
                let u = step.uniform_of_token(i, k);
                let draw = cpu::draw(logits, support, task.temperature, u, false, &mut Vec::new()).unwrap();
                assert_eq!(draw.token, row[k as usize + 1], "row {i}, position {k}");
            }
        }
        for micro_batch in [3, 16] {
            let cuda = Cuda::new(Box::new(Emulated::default()), DType::F32);
            let device = CudaNetwork::<Nano>::new(cuda, Backbone::Transformer, &weights).unwrap();
            let drawn = run(Sampling { micro_batch, ..task }, sampler(), &device);
            // Logits differ in their last bits, so that a draw at the very edge of a token may fall to its neighbour.
            assert_eq!(drawn, expected);
        }
        let few: std::collections::BTreeSet<_> = expected.tokens.iter().collect();
        assert!(few.len() > 30, "{few:?}");
    }
}
