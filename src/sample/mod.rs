//! Samplers of the reverse process: from rows of masks to rows of tokens.
//!
//! Ancestral sampling (arXiv 2406.07524, eq. 7): in the step from time t to s every masked token is unmasked with
//! probability (α(s) − α(t)) / (1 − α(t)), then drawn from the network's distribution; unmasked tokens never change.
//! The chain begins all masked and its last step unmasks what is left with a draw.
//!
//! Both decisions about a token take random numbers that are functions of (step, row, position). Hence what a network
//! without time conditioning is asked depends on nothing but the tokens, and its answer is wanted only in a step in
//! which some token of the row is unmasked, for those tokens alone. The cached sampler asks exactly then, at most
//! min(steps, L) times a row, and draws the same texts as one that asks every step.
//!
//! The network has no absolute positions (rotary embeddings are relative), so that it cannot tell the places of an
//! all-masked row apart. What every row has by construction, BOS at its begin and EOS at the end of a wrapped one, can
//! be given to it ([`Task::given`]): the rest is drawn from the same model, conditioned on what is certain anyway.
//!
//! DIFFERENCE: the authors' cached sampler keeps the last answer over V · L numbers and asks anew after a change; asking
//! just before one needs no memory, is never more often, and needs the unmasked positions' logits only.

mod categorical;
mod wilson;

pub use categorical::draw;
pub use wilson::wilson;

use rayon::prelude::*;

use crate::diffusion::Posterior;
use crate::error::Result;
use crate::event::Cancel;
use crate::kernels::Alphabet;
use crate::kernels::profile::{self, Part};
use crate::manifest::{Grid, Sampler};
use crate::model::{self, Chain, Network};
use crate::rng::{Random, Stream};

/// Largest number of logits held at a time: 256 MiB of f32.
const LOGITS: usize = 1 << 26;

/// What to draw, and how.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// The first and the last token of every row, where they are given instead of drawn.
    pub given: [Option<u32>; 2],
    /// Rows.
    pub count: u32,
    /// Reverse steps.
    pub steps: u32,
    /// Divides the logits.
    pub temperature: f64,
    /// When the network is asked.
    pub sampler: Sampler,
    /// From which masked share the first step goes.
    pub grid: Grid,
    /// The reverse step.
    pub posterior: Posterior,
    /// The tokens to draw from.
    pub alphabet: Alphabet,
    /// Seed of the draws.
    pub seed: u64,
    /// Rows that go through the network at a time.
    pub micro_batch: usize,
}

/// Rows drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// (count, L).
    pub tokens: Vec<u32>,
    /// How often the network was asked about each row (count).
    pub network_calls: Vec<u32>,
}

impl Task {
    /// Draws the rows. `progress` hears the steps done.
    ///
    /// # Errors
    /// The network failed or its logits are not finite, or somebody asked to end.
    pub fn run(
        &self,
        network: &dyn Network,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u32),
    ) -> Result<Drawn> {
        let length = network.shape().length;
        let count = self.count as usize;
        let mut drawn = Drawn {
            tokens: vec![self.posterior.mask(); count * length],
            network_calls: vec![0; count],
        };
        for row in drawn.tokens.chunks_exact_mut(length) {
            row[0] = self.given[0].unwrap_or(row[0]);
            row[length - 1] = self.given[1].unwrap_or(row[length - 1]);
        }
        let random = Random::new(self.seed, Stream::Sample);
        // Which tokens a step unmasks does not depend on what they are: where the network keeps them, nothing comes back
        // before the end.
        let mut chain = network.chain(&drawn.tokens)?;
        for step in 0..self.steps {
            let chance = self.posterior.unmask_probability(step, self.steps, self.grid);
            let asked: Vec<Asked> = drawn
                .tokens
                .par_chunks(length)
                .enumerate()
                .filter_map(|(row, tokens)| self.decide(random, step, row, tokens, chance))
                .collect();
            let sigma = self.posterior.sigma(step, self.steps);
            for group in self.groups(&asked, network.shape().vocabulary) {
                cancel.check()?;
                match &mut chain {
                    Some(chain) => self.ask(&mut **chain, random, step, sigma as f32, group, &mut drawn)?,
                    None => self.unmask(network, random, step, sigma as f32, group, &mut drawn)?,
                }
            }
            progress(step + 1);
        }
        if let Some(chain) = chain {
            drawn.tokens = chain.tokens()?;
        }
        Ok(drawn)
    }

    /// Which masked positions of a row this step unmasks; `None` when the network need not be asked.
    fn decide(&self, random: Random, step: u32, row: usize, tokens: &[u32], chance: f64) -> Option<Asked> {
        let mask = self.posterior.mask();
        let masked = || (0..tokens.len()).filter(|&l| tokens[l] == mask);
        // Even positions of the stream decide whether, odd ones which token.
        let unmasked = |l: u32| random.uniform(u64::from(step), row as u64, 2 * l) < chance;
        let wanted: Vec<(u32, bool)> = masked()
            .map(|l| (l as u32, unmasked(l as u32)))
            .filter(|&(_, unmasked)| unmasked || self.sampler == Sampler::Ancestral)
            .collect();
        (!wanted.is_empty()).then_some(Asked { row, wanted })
    }

    /// Cuts the rows into groups that go through the network together: no more rows than a micro-batch, and no more
    /// logits than [`LOGITS`] (but for a single row).
    fn groups<'a>(&self, mut asked: &'a [Asked], vocabulary: usize) -> Vec<&'a [Asked]> {
        let mut groups = Vec::new();
        while !asked.is_empty() {
            let mut positions = 0;
            let fitting = asked
                .iter()
                .take(self.micro_batch.max(1))
                .take_while(|row| {
                    positions += row.wanted.len();
                    positions * vocabulary <= LOGITS
                })
                .count();
            let (group, rest) = asked.split_at(fitting.max(1));
            groups.push(group);
            asked = rest;
        }
        groups
    }

    /// Has the tokens of a group of rows drawn where the network computes. What is unmasked is noted, by a token that is none.
    fn ask(
        &self,
        chain: &mut dyn Chain,
        random: Random,
        step: u32,
        sigma: f32,
        group: &[Asked],
        drawn: &mut Drawn,
    ) -> Result<()> {
        let length = drawn.tokens.len() / self.count.max(1) as usize;
        let (mut rows, mut positions, mut uniforms) = (Vec::new(), Vec::new(), Vec::new());
        for (i, asked) in group.iter().enumerate() {
            rows.push(asked.row as u32);
            drawn.network_calls[asked.row] += 1;
            for &(l, unmasked) in &asked.wanted {
                positions.push((i * length) as u32 + l);
                uniforms.push(unmasked.then(|| random.uniform(u64::from(step), asked.row as u64, 2 * l + 1)));
                if unmasked {
                    drawn.tokens[asked.row * length + l as usize] = u32::MAX;
                }
            }
        }
        chain.draw(&model::Asked {
            rows: &rows,
            positions: &positions,
            uniforms: &uniforms,
            sigma,
            temperature: self.temperature,
            alphabet: self.alphabet,
        })
    }

    /// Asks the network about a group of rows and draws the tokens to unmask.
    fn unmask(
        &self,
        network: &dyn Network,
        random: Random,
        step: u32,
        sigma: f32,
        group: &[Asked],
        drawn: &mut Drawn,
    ) -> Result<()> {
        let (length, vocabulary) = (network.shape().length, network.shape().vocabulary);
        let mut tokens = Vec::with_capacity(group.len() * length);
        let mut positions = Vec::new();
        for (i, asked) in group.iter().enumerate() {
            tokens.extend_from_slice(&drawn.tokens[asked.row * length..][..length]);
            positions.extend(asked.wanted.iter().map(|(l, _)| (i * length) as u32 + l));
            drawn.network_calls[asked.row] += 1;
        }
        let logits = network.logits(&tokens, &[sigma], &positions)?;
        let _timer = profile::forward(Part::Draw);
        let places: Vec<_> = group
            .iter()
            .flat_map(|asked| asked.wanted.iter().map(|&(l, unmasked)| (asked.row, l, unmasked)))
            .collect();
        let found: Vec<Option<u32>> = places
            .par_iter()
            .zip(logits.par_chunks(vocabulary))
            .map_init(Vec::new, |scratch, (&(row, l, unmasked), logits)| {
                let u = random.uniform(u64::from(step), row as u64, 2 * l + 1);
                let token = unmasked.then(|| draw(logits, self.alphabet, self.temperature, u, scratch));
                token.transpose()
            })
            .collect::<Result<_>>()?;
        for ((row, l, _), token) in places.into_iter().zip(found) {
            if let Some(token) = token {
                drawn.tokens[row * length + l as usize] = token;
            }
        }
        Ok(())
    }
}

/// A row about which the network is asked.
struct Asked {
    row: usize,
    /// The positions asked about, and whether this step unmasks them.
    wanted: Vec<(u32, bool)>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{EVERY_SCHEDULE, ForwardProcess, Prior, Schedule};
    use crate::model::toy::{self, Distribution};

    fn posterior(schedule: Schedule, mask: u32) -> Posterior {
        Posterior {
            forward: ForwardProcess {
                schedule,
                prior: Prior::Mask(mask),
            },
            time_conditioning: false,
        }
    }

    fn task(truth: &Distribution, schedule: Schedule) -> Task {
        Task {
            given: [None; 2],
            count: 40,
            steps: 12,
            temperature: 1.0,
            sampler: Sampler::Cached,
            grid: Grid::Exact,
            posterior: posterior(schedule, truth.mask()),
            alphabet: truth.alphabet(),
            seed: 3,
            micro_batch: 16,
        }
    }

    #[test]
    fn given_ends_stay_and_the_rest_follows_their_condition() {
        let truth = Distribution::random(3, 3, 4);
        let network = toy::Posterior::new(truth.clone());
        let task = Task {
            given: [Some(1), None],
            count: 20_000,
            steps: 1000,
            ..task(&truth, EVERY_SCHEDULE[0])
        };
        let drawn = run(task, &network);
        let rows: Vec<Vec<u32>> = (0..27).map(|i| vec![i / 9, i / 3 % 3, i % 3]).collect();
        let total: f64 = rows
            .iter()
            .filter(|row| row[0] == 1)
            .map(|row| truth.probabilities[truth.index(row)])
            .sum();
        for row in rows {
            let count = drawn.tokens.chunks(3).filter(|drawn| **drawn == row[..]).count() as f64;
            if row[0] != 1 {
                assert!(count == 0.0, "{row:?}");
                continue;
            }
            let p = truth.probabilities[truth.index(&row)] / total;
            // Five standard errors of a binomial share, a fixed seed.
            assert!(
                (count / 20_000.0 - p).abs() < 5.0 * (p * (1.0 - p) / 20_000.0).sqrt(),
                "{row:?}"
            );
        }
    }

    /// On a device, emulated: the texts of the CPU, by either sampler, in groups of any size.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_chain_on_a_device_draws_what_the_cpu_draws() {
        use crate::kernels::Fused;
        use crate::kernels::cuda::{Cuda, driver::Element, emulated::Emulated};
        use crate::model::dit::Nano;
        use crate::model::{Erased, OnDevice};
        use crate::shapes::Shape;

        let mut weights = model::initial(Shape::find("nano").unwrap(), 3);
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight += 0.1 * (i as f32 * 78.233).sin();
        }
        let task = Task {
            given: [Some(3), None],
            count: 6,
            steps: 5,
            temperature: 0.8,
            posterior: posterior(EVERY_SCHEDULE[0], 500),
            alphabet: Alphabet::without_mask(500, 501),
            ..task(&Distribution::random(2, 2, 1), EVERY_SCHEDULE[0])
        };
        let cpu = Erased::<Nano, _>::new(Fused::default(), &weights).unwrap();
        let expected = task.run(&cpu, &Cancel::default(), &mut |_| ()).unwrap();
        for (sampler, micro_batch) in [(Sampler::Cached, 4), (Sampler::Ancestral, 16)] {
            let cuda = Cuda::new(Box::new(Emulated::default()), Element::F32);
            let device = OnDevice::<Nano>::new(cuda, &weights).unwrap();
            let task = Task {
                sampler,
                micro_batch,
                ..task
            };
            let drawn = task.run(&device, &Cancel::default(), &mut |_| ()).unwrap();
            // Logits differ in their last bits, so that a draw at the very edge of a token may fall to its neighbour.
            let same = drawn.tokens.iter().zip(&expected.tokens).filter(|(a, b)| a == b);
            assert_eq!(same.count(), expected.tokens.len(), "{sampler:?}");
            assert!(drawn.tokens.iter().all(|&token| token < 500));
        }
        let few: std::collections::BTreeSet<_> = expected.tokens.iter().collect();
        assert!(few.len() > 50, "{few:?}");
    }

    fn run(task: Task, network: &toy::Posterior) -> Drawn {
        task.run(network, &Cancel::default(), &mut |_| ()).unwrap()
    }

    #[test]
    fn with_the_exact_posterior_and_many_steps_the_draws_have_its_distribution() {
        let truth = Distribution::random(3, 3, 4);
        let network = toy::Posterior::new(truth.clone());
        let task = Task {
            count: 20_000,
            steps: 1000,
            ..task(&truth, EVERY_SCHEDULE[0])
        };
        let drawn = run(task, &network);
        let mut counts = vec![0_u32; 27];
        for row in drawn.tokens.chunks(3) {
            counts[truth.index(row)] += 1;
        }
        let chi: f64 = counts
            .iter()
            .zip(&truth.probabilities)
            .map(|(&n, p)| (f64::from(n) - 20_000.0 * p).powi(2) / (20_000.0 * p))
            .sum();
        // 26 degrees of freedom, 1e-4 quantile 61.7. Two tokens of a row share a step in 0.3% of the rows, which are
        // drawn as if independent: that adds less than 1.
        assert!(chi < 61.7, "chi-square {chi}: {counts:?}");
    }

    #[test]
    fn one_step_draws_every_token_from_its_own_marginal() {
        let truth = Distribution::random(2, 3, 4);
        let network = toy::Posterior::new(truth.clone());
        let drawn = run(
            Task {
                count: 10_000,
                steps: 1,
                ..task(&truth, EVERY_SCHEDULE[4])
            },
            &network,
        );
        let (first, second) = (truth.posterior(&[3, 3], 0), truth.posterior(&[3, 3], 1));
        let mut counts = [0_u32; 9];
        for row in drawn.tokens.chunks(2) {
            counts[truth.index(row)] += 1;
        }
        let chi: f64 = (0..9)
            .map(|i| {
                let row = truth.row(i);
                let expected = 10_000.0 * first[row[0] as usize] * second[row[1] as usize];
                (f64::from(counts[i]) - expected).powi(2) / expected
            })
            .sum();
        // 8 degrees of freedom, 1e-4 quantile 31.8.
        assert!(chi < 31.8, "chi-square {chi}");
        assert!(drawn.network_calls.iter().all(|&n| n == 1));
    }

    #[test]
    fn cached_draws_what_ancestral_draws_with_fewer_calls() {
        let truth = Distribution::random(4, 3, 5);
        let network = toy::Posterior::new(truth.clone());
        for schedule in EVERY_SCHEDULE {
            for steps in [1, 3, 60] {
                let cached = Task {
                    steps,
                    ..task(&truth, schedule)
                };
                let ancestral = Task {
                    sampler: Sampler::Ancestral,
                    ..cached
                };
                let (cached, ancestral) = (run(cached, &network), run(ancestral, &network));
                assert_eq!(cached.tokens, ancestral.tokens);
                assert!(
                    cached.tokens.iter().all(|&token| token < 3),
                    "nothing stays masked"
                );
                for (&few, &many) in cached.network_calls.iter().zip(&ancestral.network_calls) {
                    assert!(few <= many && few <= steps.min(4) && many <= steps);
                }
            }
        }
    }

    #[test]
    fn draws_depend_on_seed_and_row_alone() {
        let truth = Distribution::random(4, 3, 5);
        let network = toy::Posterior::new(truth.clone());
        let base = task(&truth, EVERY_SCHEDULE[0]);
        let whole = run(base, &network);
        assert_eq!(
            run(
                Task {
                    micro_batch: 1,
                    ..base
                },
                &network
            ),
            whole
        );
        let fewer = run(Task { count: 7, ..base }, &network);
        assert_eq!(fewer.tokens, whole.tokens[..28]);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let cancel = Cancel::default();
            let sampled = pool.scope(|_| {
                base.run(&toy::Posterior::new(truth.clone()), &cancel, &mut |_| ())
                    .unwrap()
            });
            assert_eq!(sampled, whole);
        }
        assert_ne!(run(Task { seed: 4, ..base }, &network).tokens, whole.tokens);
    }

    #[test]
    fn a_low_temperature_takes_the_favourite() {
        let truth = Distribution::random(1, 3, 5);
        let network = toy::Posterior::new(truth.clone());
        let drawn = run(
            Task {
                temperature: 1e-3,
                ..task(&truth, EVERY_SCHEDULE[0])
            },
            &network,
        );
        let best = (0..3)
            .max_by(|&a, &b| truth.probabilities[a].total_cmp(&truth.probabilities[b]))
            .unwrap();
        assert!(drawn.tokens.iter().all(|&token| token as usize == best));
    }

    #[test]
    fn it_ends_when_asked_to() {
        let truth = Distribution::random(2, 3, 5);
        let network = toy::Posterior::new(truth.clone());
        let cancel = Cancel::default();
        let task = task(&truth, EVERY_SCHEDULE[0]);
        let error = task.run(&network, &cancel, &mut |_| cancel.cancel()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Interrupted);
        assert!(network.calls.get() < 80);
    }
}
