//! The loop, with samplers of masked diffusion and networks that know the distribution.

mod exact;

use std::collections::BTreeMap;

use super::*;
use crate::diffusion::{EVERY_SCHEDULE, ForwardProcess, Mdlm, Noise, Posterior, Prior};
use crate::event::Cancel;
use crate::kernels::VocabSupport;
use crate::manifest::{AncestralSteps, Grid};
use crate::model::Network;
use crate::model::toy::{self, Distribution};

pub(super) fn posterior(schedule: Noise, mask: u32) -> Posterior {
    Posterior {
        forward: ForwardProcess {
            schedule,
            prior: Prior::Mask(mask),
        },
        conditioning: crate::diffusion::Conditioning::None,
        zero_masking: true,
        scores: crate::diffusion::Scores::OfProbabilities,
    }
}

/// D3PM's sampler.
fn d3pm(schedule: Noise, mask: u32) -> ancestral::Ancestral {
    let mut sampler = ancestral(schedule, mask);
    sampler.posterior.zero_masking = false;
    sampler
}

fn ancestral(schedule: Noise, mask: u32) -> ancestral::Ancestral {
    ancestral::Ancestral {
        grid: Grid::Exact,
        posterior: posterior(schedule, mask),
    }
}

fn cached(schedule: Noise, mask: u32) -> cached::Cached {
    cached::Cached {
        grid: Grid::Exact,
        posterior: posterior(schedule, mask),
    }
}

pub(super) fn task(truth: &Distribution) -> Sampling<'static> {
    Sampling::new(40, 12, truth.support(), 3)
}

#[test]
fn given_ends_stay_and_the_rest_follows_their_condition() {
    let truth = Distribution::random(3, 3, 4);
    let network = toy::Posterior::new(truth.clone());
    let task = Sampling {
        ends: [Some(1), None],
        count: 20_000,
        steps: 1000,
        ..task(&truth)
    };
    let drawn = run(task, &mut cached(EVERY_SCHEDULE[0], 3), &network);
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

/// Pearson's statistic of rows against the probabilities of those rows that are possible, given that one of them it is.
pub(super) fn chi_square(truth: &Distribution, drawn: &[u32], is_possible: impl Fn(&[u32]) -> bool) -> f64 {
    let rows: Vec<Vec<u32>> = (0..truth.probabilities.len()).map(|i| truth.row(i)).collect();
    let probability = |row: &[u32]| truth.probabilities[truth.index(row)];
    let possible = rows.iter().filter(|row| is_possible(row));
    let total: f64 = possible.clone().map(|row| probability(row)).sum();
    let mut counts = vec![0.0; rows.len()];
    for row in drawn.chunks(truth.length) {
        assert!(is_possible(row), "{row:?}");
        counts[truth.index(row)] += 1.0;
    }
    let count: f64 = counts.iter().sum();
    possible
        .map(|row| {
            let expected = count * probability(row) / total;
            (counts[truth.index(row)] - expected).powi(2) / expected
        })
        .sum()
}

/// A sampler whose tokens are reported and committed from here, instead of taking their places where they are drawn.
struct Reported<S>(S);

impl<S: Sampler> Sampler for Reported<S> {
    fn start(&self, length: usize) -> Vec<u32> {
        self.0.start(length)
    }

    fn sigma(&self, step: &Step) -> f64 {
        self.0.sigma(step)
    }

    fn query(&self, step: &Step, row: usize, tokens: &[u32]) -> Vec<Query> {
        let mut queries = self.0.query(step, row, tokens);
        for query in &mut queries {
            if query.action == Action::Commit {
                query.action = Action::Report;
            }
        }
        queries
    }

    fn commit(&mut self, _: &Step, _: usize, _: &[u32], draws: &[(u32, Draw)]) -> Vec<(u32, u32)> {
        draws
            .iter()
            .map(|&(position, draw)| (position, draw.token))
            .collect()
    }
}

/// Commits a row's most probable draws, in every step an equal share of what is masked; the second step masks the first
/// committed token again.
struct MostProbable {
    mask: u32,
    /// Draws seen in a row.
    seen: BTreeMap<usize, usize>,
}

impl MostProbable {
    fn new(mask: u32) -> Self {
        Self {
            mask,
            seen: BTreeMap::new(),
        }
    }
}

impl Sampler for MostProbable {
    fn start(&self, length: usize) -> Vec<u32> {
        vec![self.mask; length]
    }

    fn sigma(&self, _: &Step) -> f64 {
        0.0
    }

    fn query(&self, _: &Step, _: usize, tokens: &[u32]) -> Vec<Query> {
        masked(self.mask, tokens)
            .map(|position| Query {
                position,
                action: Action::Report,
            })
            .collect()
    }

    fn commit(&mut self, step: &Step, row: usize, tokens: &[u32], draws: &[(u32, Draw)]) -> Vec<(u32, u32)> {
        *self.seen.entry(row).or_default() += draws.len();
        for (_, draw) in draws {
            let confidence = draw.confidence.expect("it was asked for");
            let [first, second] = confidence.largest;
            assert!(first >= second && second >= 0.0 && first + second < 1.0 + 1e-9);
            assert!(draw.log_probability.exp() < first + 1e-9);
            assert!((-first.ln() - 1e-9..7.0).contains(&confidence.entropy));
        }
        let mut draws = draws.to_vec();
        draws.sort_by(|(_, a), (_, b)| b.log_probability.total_cmp(&a.log_probability));
        let share = draws.len().div_ceil((step.count - step.index) as usize);
        let committed = draws[..share]
            .iter()
            .map(|(position, draw)| (*position, draw.token));
        let first = tokens.iter().position(|&token| token != self.mask);
        let again = first
            .filter(|_| step.index == 1)
            .map(|position| (position as u32, self.mask));
        committed.chain(again).collect()
    }

    fn wants_confidence(&self) -> bool {
        true
    }
}

#[test]
fn sampler_may_commit_from_reports_what_another_commits_in_place() {
    let truth = Distribution::random(4, 3, 5);
    let network = toy::Posterior::new(truth.clone());
    for schedule in EVERY_SCHEDULE {
        let mut sampler = ancestral(schedule, 3);
        let committed = run(task(&truth), &mut sampler, &network);
        assert_eq!(run(task(&truth), &mut Reported(sampler), &network), committed);
    }
}

#[test]
fn sampler_may_choose_by_confidence_and_mask_again() {
    let truth = Distribution::random(4, 3, 5);
    let network = toy::Posterior::new(truth.clone());
    let task = Sampling {
        steps: 4,
        count: 3,
        ..task(&truth)
    };
    let mut sampler = MostProbable::new(3);
    let drawn = run(task, &mut sampler, &network);
    assert!(drawn.tokens.iter().all(|&token| token < 3));
    // Of 4 masked one is committed; of 3 one, and one is masked again; of 3 two; the last.
    assert_eq!(sampler.seen, BTreeMap::from([(0, 11), (1, 11), (2, 11)]));
    assert_eq!(drawn.network_calls, [4; 3]);
}

#[test]
fn sampler_that_commits_no_token_is_an_internal_error() {
    struct Wrong((u32, u32));
    impl Sampler for Wrong {
        fn start(&self, length: usize) -> Vec<u32> {
            vec![3; length]
        }
        fn sigma(&self, _: &Step) -> f64 {
            0.0
        }
        fn query(&self, _: &Step, _: usize, _: &[u32]) -> Vec<Query> {
            Vec::new()
        }
        fn commit(&mut self, _: &Step, _: usize, _: &[u32], _: &[(u32, Draw)]) -> Vec<(u32, u32)> {
            vec![self.0]
        }
    }
    let truth = Distribution::random(4, 3, 5);
    let network = toy::Posterior::new(truth.clone());
    for change in [(4, 0), (0, 4), (0, UNSEEN)] {
        let found = task(&truth).run(&mut Wrong(change), &network, &Cancel::default(), &mut |_| ());
        assert_eq!(
            found.unwrap_err().kind(),
            crate::error::Kind::Internal,
            "{change:?}"
        );
    }
}

/// On a device, emulated: the texts of the CPU, by every sampler, in groups of any size.
#[test]
#[cfg(target_os = "linux")]
fn draws_on_cuda_are_those_of_the_cpu() {
    use crate::kernels::Fused;
    use crate::kernels::cuda::{Cuda, driver::DType, emulated::Emulated};
    use crate::model::dit::Nano;
    use crate::model::{CpuNetwork, CudaNetwork};
    use crate::shapes::{Backbone, SHAPES};

    let mut weights = crate::model::initial(SHAPES.find("nano").unwrap(), Backbone::Dit, 3);
    for (i, weight) in weights.iter_mut().enumerate() {
        *weight += 0.1 * (i as f32 * 78.233).sin();
    }
    let task = Sampling {
        ends: [Some(3), None],
        count: 6,
        steps: 5,
        temperature: 0.8,
        support: VocabSupport::without_mask(500, 501),
        ..task(&Distribution::random(2, 2, 1))
    };
    let cpu = CpuNetwork::<Nano, _>::new(Fused::default(), Backbone::Dit, &weights).unwrap();
    let samplers = || -> [(&str, Box<dyn Sampler>); 5] {
        [
            ("cached", Box::new(cached(EVERY_SCHEDULE[0], 500))),
            ("ancestral", Box::new(ancestral(EVERY_SCHEDULE[0], 500))),
            ("reported", Box::new(Reported(cached(EVERY_SCHEDULE[0], 500)))),
            ("most probable", Box::new(MostProbable::new(500))),
            ("d3pm", Box::new(d3pm(EVERY_SCHEDULE[0], 500))),
        ]
    };
    let run = |sampler: &mut dyn Sampler, network: &dyn Network, micro_batch| {
        Sampling { micro_batch, ..task }
            .run(sampler, network, &Cancel::default(), &mut |_| ())
            .unwrap()
    };
    let expected = samplers().map(|(_, mut sampler)| run(&mut *sampler, &cpu, 16).tokens);
    assert_eq!(expected[0], expected[1]);
    assert_eq!(expected[0], expected[2]);
    assert_ne!(expected[0], expected[3]);
    for (((name, mut sampler), expected), micro_batch) in
        samplers().into_iter().zip(&expected).zip([4, 16, 4, 16, 4])
    {
        let cuda = Cuda::new(Box::new(Emulated::default()), DType::F32);
        let device = CudaNetwork::<Nano>::new(cuda, Backbone::Dit, &weights).unwrap();
        let drawn = run(&mut *sampler, &device, micro_batch);
        // Logits differ in their last bits, so that a draw at the very edge of a token may fall to its neighbour.
        assert_eq!(&drawn.tokens, expected, "{name}");
        assert!(drawn.tokens.chunks(32).all(|row| row[0] == 3), "{name}");
        assert!(drawn.tokens.iter().all(|&token| token < 500));
    }
    let few: std::collections::BTreeSet<_> = expected[0].iter().collect();
    assert!(few.len() > 50, "{few:?}");
}

fn run(task: Sampling<'_>, sampler: &mut dyn Sampler, network: &dyn Network) -> DrawnRows {
    task.run(sampler, network, &Cancel::default(), &mut |_| ())
        .unwrap()
}

const SPECIAL: SpecialIds = SpecialIds {
    bos: 0,
    eos: 0,
    pad: 1,
    mask: 3,
};

#[test]
fn samplers_that_do_not_fit_the_objective_are_refused_with_one_that_does() {
    let samplers = manifest::Sampler::every_kind();
    for settings in manifest::Objective::every() {
        let objective = crate::diffusion::objective::build(&settings, 3, 4, 1);
        for &sampler in &samplers {
            let built = build(sampler, &settings, &*objective, SPECIAL, true, &[]);
            let fitting = settings.samplers();
            if fitting.contains(&sampler) {
                assert!(built.is_ok(), "{settings:?}, {sampler:?}");
                continue;
            }
            let error = built.err().unwrap();
            assert_eq!(error.kind(), crate::error::Kind::Input);
            let way = format!("use the sampler `{}`", fitting[0].kind());
            let hint = error.hint_text().unwrap();
            assert!(hint.starts_with(&way), "{settings:?}, {sampler:?}: {hint}");
        }
    }
}

#[test]
fn samplers_of_a_manifest_use_the_models_posterior() {
    let truth = Distribution::random(4, 3, 5);
    let network = toy::Posterior::new(truth.clone());
    let grid = Grid::Published;
    let posterior = posterior(EVERY_SCHEDULE[1], 3);
    let mdlm = Mdlm::with_schedule(EVERY_SCHEDULE[1], 3, 0);
    let settings = AncestralSteps { grid };
    for (named, mut direct) in [
        (
            manifest::Sampler::Cached(settings),
            Box::new(cached::Cached { grid, posterior }) as Box<dyn Sampler>,
        ),
        (
            manifest::Sampler::Ancestral(settings),
            Box::new(ancestral::Ancestral { grid, posterior }),
        ),
    ] {
        let settings = manifest::Objective::default();
        let mut built = build(named, &settings, &mdlm, SPECIAL, true, &[]).unwrap();
        let expected = run(task(&truth), &mut *direct, &network);
        assert_eq!(run(task(&truth), &mut *built, &network), expected, "{named:?}");
    }
}

#[test]
fn draws_with_the_exact_posterior_and_many_steps_have_its_distribution() {
    let truth = Distribution::random(3, 3, 4);
    let network = toy::Posterior::new(truth.clone());
    let task = Sampling {
        count: 20_000,
        steps: 1000,
        ..task(&truth)
    };
    let drawn = run(task, &mut cached(EVERY_SCHEDULE[0], 3), &network);
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
        Sampling {
            count: 10_000,
            steps: 1,
            ..task(&truth)
        },
        &mut cached(EVERY_SCHEDULE[4], 3),
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
            let task = Sampling {
                steps,
                ..task(&truth)
            };
            let cached = run(task, &mut cached(schedule, 3), &network);
            let ancestral = run(task, &mut ancestral(schedule, 3), &network);
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
fn published_grid_changes_what_the_first_step_unmasks() {
    let truth = Distribution::random(4, 3, 5);
    let network = toy::Posterior::new(truth.clone());
    // α(1) of the first schedule is 0.001: over many rows the two grids part.
    let base = Sampling {
        count: 20_000,
        steps: 2,
        ..task(&truth)
    };
    let mut exact = cached(EVERY_SCHEDULE[0], 3);
    let same = run(base, &mut exact, &network);
    exact.grid = Grid::Published;
    let other = run(base, &mut exact, &network);
    let rows = other.tokens.chunks(4).zip(same.tokens.chunks(4));
    let different = rows.filter(|(a, b)| a != b).count();
    assert!((1..300).contains(&different), "{different} rows");
}

#[test]
fn draws_depend_on_seed_and_row_alone() {
    let truth = Distribution::random(4, 3, 5);
    let network = toy::Posterior::new(truth.clone());
    let base = task(&truth);
    let draw = |task| run(task, &mut cached(EVERY_SCHEDULE[0], 3), &network);
    let whole = draw(base);
    let one_by_one = Sampling {
        micro_batch: 1,
        ..base
    };
    assert_eq!(draw(one_by_one), whole);
    let fewer = draw(Sampling { count: 7, ..base });
    assert_eq!(fewer.tokens, whole.tokens[..28]);
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let sampled = pool.scope(|_| {
            let network = toy::Posterior::new(truth.clone());
            run(base, &mut cached(EVERY_SCHEDULE[0], 3), &network)
        });
        assert_eq!(sampled, whole);
    }
    assert_ne!(draw(Sampling { seed: 4, ..base }).tokens, whole.tokens);
}

/// One token a row, the mask's probability a constant: when it is unmasked, and as which token.
#[test]
fn d3pm_unmasks_as_often_as_its_reverse_step_says() {
    let truth = Distribution {
        length: 1,
        letters: 3,
        probabilities: vec![0.5, 0.3, 0.2],
    };
    let mu = 0.3_f64;
    let network = toy::Posterior::with_mask_probability(truth.clone(), mu);
    let (steps, count) = (3, 20_000);
    for (schedule, temperature) in [(EVERY_SCHEDULE[0], 1.0), (EVERY_SCHEDULE[2], 0.5)] {
        let task = Sampling {
            count,
            steps,
            temperature,
            support: VocabSupport::with_mask(3, 4),
            ..task(&truth)
        };
        let mut sampler = d3pm(schedule, 3);
        let drawn = run(task, &mut sampler, &network);
        // Logits are ln p, and ln(μ / (1 − μ)) of the mask.
        let weight = |p: f64| p.powf(1.0 / temperature);
        let sum: f64 = truth.probabilities.iter().map(|&p| weight(p)).sum();
        let mask = weight(mu / (1.0 - mu)) / (sum + weight(mu / (1.0 - mu)));
        let alpha = |i| 1.0 - sampler.posterior.masked_fraction(i, steps);
        let mut masked = 1.0;
        let mut chi = 0.0;
        for calls in 1..=steps + 1 {
            let (before, after) = (alpha(calls - 1), alpha(calls));
            let unmasked = if calls > steps {
                1.0
            } else {
                (after - before) * (1.0 - mask) / (1.0 - before + before * mask)
            };
            for token in 0..3 {
                let expected =
                    f64::from(count) * masked * unmasked * weight(truth.probabilities[token as usize]) / sum;
                let found = drawn
                    .tokens
                    .iter()
                    .zip(&drawn.network_calls)
                    .filter(|&drawn| drawn == (&token, &calls))
                    .count();
                chi += (found as f64 - expected).powi(2) / expected;
            }
            masked *= 1.0 - unmasked;
        }
        // 11 degrees of freedom, 1e-4 quantile 37.4.
        assert!(chi < 37.4, "chi-square {chi} at temperature {temperature}");
    }
}

#[test]
fn d3pm_without_probability_of_the_mask_is_the_masked_diffusion() {
    let truth = Distribution::random(4, 3, 5);
    let network = toy::Posterior::with_mask_probability(truth.clone(), 0.0);
    for schedule in EVERY_SCHEDULE {
        let drawn = run(task(&truth), &mut d3pm(schedule, 3), &network);
        assert_eq!(drawn, run(task(&truth), &mut ancestral(schedule, 3), &network));
    }
}

#[test]
fn temperature_near_zero_draws_the_likeliest_token() {
    let truth = Distribution::random(1, 3, 5);
    let network = toy::Posterior::new(truth.clone());
    let drawn = run(
        Sampling {
            temperature: 1e-3,
            ..task(&truth)
        },
        &mut cached(EVERY_SCHEDULE[0], 3),
        &network,
    );
    let best = (0..3)
        .max_by(|&a, &b| truth.probabilities[a].total_cmp(&truth.probabilities[b]))
        .unwrap();
    assert!(drawn.tokens.iter().all(|&token| token as usize == best));
}

#[test]
fn cancel_ends_sampling() {
    let truth = Distribution::random(2, 3, 5);
    let network = toy::Posterior::new(truth.clone());
    let cancel = Cancel::default();
    let mut sampler = cached(EVERY_SCHEDULE[0], 3);
    let error = task(&truth)
        .run(&mut sampler, &network, &cancel, &mut |_| cancel.cancel())
        .unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Interrupted);
    assert!(network.calls.get() < 80);
}
