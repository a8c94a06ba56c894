//! Samplers of scores, given tokens, guidance and penalties against distributions that are enumerated.

use super::*;

/// SEDD's scores, of a network that knows the distribution: with s_y = r p_y every sampler of scores takes the steps of ancestral
/// sampling on the published grid.
#[test]
fn analytic_steps_of_exact_scores_are_ancestral_steps() {
    let truth = Distribution::random(4, 3, 5);
    let network = toy::Posterior::new(truth.clone());
    for schedule in EVERY_SCHEDULE {
        for steps in [1, 3, 60] {
            let task = Sampling {
                steps,
                ..task(&truth)
            };
            let mut published = ancestral(schedule, 3);
            published.grid = Grid::Published;
            let expected = run(task, &mut published, &network);
            let posterior = posterior(schedule, 3);
            let by_probabilities = run(task, &mut analytic::TauLeaping::analytic(posterior), &network);
            assert_eq!(by_probabilities.tokens, expected.tokens);
            assert!(
                by_probabilities
                    .network_calls
                    .iter()
                    .all(|&calls| calls <= steps.min(4))
            );
            // Logits are ln p, which sum to 1: with one token beside the mask, k(σ) = log (e^σ − 1), they are exact log-scores.
            let scores = crate::diffusion::Scores::OfLogits { tokens: 1.0 };
            let posterior = Posterior { scores, ..posterior };
            let by_scores = run(task, &mut analytic::TauLeaping::analytic(posterior), &network);
            assert_eq!(by_scores.tokens, expected.tokens);
        }
    }
}

/// One token a row: which step unmasks it, by scores whose sum is not r.
#[test]
fn samplers_of_scores_unmask_as_often_as_the_scores_say() {
    let truth = Distribution {
        length: 1,
        letters: 3,
        probabilities: vec![0.5, 0.3, 0.2],
    };
    let network = toy::Posterior::new(truth.clone());
    let (steps, count, tokens) = (4, 20_000, 2.5);
    let posterior = Posterior {
        scores: crate::diffusion::Scores::OfLogits { tokens },
        ..posterior(EVERY_SCHEDULE[0], 3)
    };
    let sigma = |i: u32| -(1.0 - (1.0 - 1e-3) * (1.0 - f64::from(i) / f64::from(steps))).ln();
    let total = |i: u32| 1.0 / tokens / sigma(i).exp_m1();
    let rate = |i: u32| (1.0 - 1e-3) / (-sigma(i)).exp() / f64::from(steps);
    let last = |i: u32| i + 1 == steps;
    let analytic_step = |i: u32| {
        if last(i) {
            1.0
        } else {
            (sigma(i) - sigma(i + 1)).exp_m1() * total(i)
        }
    };
    let euler_step = |i: u32| if last(i) { 1.0 } else { rate(i) * total(i) };
    let samplers = [
        analytic::TauLeaping::analytic(posterior),
        analytic::TauLeaping::euler(posterior),
    ];
    let steps_of: [&dyn Fn(u32) -> f64; 2] = [&analytic_step, &euler_step];
    for (mut sampler, unmasked) in samplers.into_iter().zip(steps_of) {
        let task = Sampling {
            count,
            steps,
            recorded: count as usize,
            ..task(&truth)
        };
        let drawn = run(task, &mut sampler, &network);
        let (mut masked, mut chi) = (1.0, 0.0);
        for step in 0..steps {
            for token in 0..3_u32 {
                let p = truth.probabilities[token as usize];
                let expected = f64::from(count) * masked * unmasked(step) * p;
                let is_it = |(found, when): &(&u32, &Option<Unmasked>)| {
                    **found == token && when.is_some_and(|when| when.step == step)
                };
                let found = drawn.tokens.iter().zip(&drawn.unmasked).filter(is_it).count();
                chi += (found as f64 - expected).powi(2) / expected;
            }
            masked *= 1.0 - unmasked(step);
        }
        let p_is_recorded = |(token, when): (&u32, &Option<Unmasked>)| {
            let p = when.unwrap().probability.unwrap();
            (p - truth.probabilities[*token as usize]).abs() < 1e-6
        };
        assert!(drawn.tokens.iter().zip(&drawn.unmasked).all(p_is_recorded));
        // 11 degrees of freedom, 1e-4 quantile 37.4.
        assert!(chi < 37.4, "chi-square {chi}");
    }
}

#[test]
fn first_hitting_with_holes_has_the_conditional_distribution() {
    let truth = Distribution::random(4, 3, 4);
    let network = toy::Posterior::new(truth.clone());
    // Two of four tokens are given, in the middle and at the end.
    let task = Sampling {
        given: &[UNSEEN, 2, UNSEEN, 0],
        count: 20_000,
        ..task(&truth)
    };
    let drawn = run(task, &mut first_hitting::FirstHitting { mask: 3 }, &network);
    // 8 degrees of freedom, 1e-4 quantile 31.8.
    let chi = chi_square(&truth, &drawn.tokens, |row| row[1] == 2 && row[3] == 0);
    assert!(chi < 31.8, "chi-square {chi}");
    assert!(drawn.network_calls.iter().all(|&calls| calls == 2));
}

#[test]
fn given_rows_belong_to_rows_that_follow_each_other() {
    let truth = Distribution::random(2, 3, 4);
    let network = toy::Posterior::new(truth.clone());
    let task = Sampling {
        given: &[0, UNSEEN, UNSEEN, 2],
        count: 6,
        ..task(&truth)
    };
    let drawn = run(task, &mut cached(EVERY_SCHEDULE[0], 3), &network);
    let rows: Vec<&[u32]> = drawn.tokens.chunks(2).collect();
    assert!(rows[..3].iter().all(|row| row[0] == 0) && rows[3..].iter().all(|row| row[1] == 2));
    let wrong = Sampling { count: 5, ..task };
    let error = wrong.run(
        &mut cached(EVERY_SCHEDULE[0], 3),
        &network,
        &Cancel::default(),
        &mut |_| (),
    );
    assert_eq!(error.unwrap_err().kind(), crate::error::Kind::Internal);
}

/// With w = 1 the distribution is p(x | given)² / p(x), normalized: of one drawn token it can be enumerated.
#[test]
fn guidance_extrapolates_from_the_row_without_its_given_tokens() {
    let truth = Distribution::random(2, 3, 4);
    let network = toy::Posterior::new(truth.clone());
    let task = Sampling {
        given: &[1, UNSEEN],
        guidance: 1.0,
        count: 20_000,
        ..task(&truth)
    };
    let drawn = run(task, &mut cached(EVERY_SCHEDULE[0], 3), &network);
    let (given, free) = (truth.posterior(&[1, 3], 1), truth.posterior(&[3, 3], 1));
    let weights: Vec<f64> = given
        .iter()
        .zip(&free)
        .map(|(given, free)| given * given / free)
        .collect();
    let total: f64 = weights.iter().sum();
    let chi: f64 = (0..3)
        .map(|token| {
            let expected = 20_000.0 * weights[token as usize] / total;
            let found = drawn.tokens.chunks(2).filter(|row| row[1] == token).count() as f64;
            (found - expected).powi(2) / expected
        })
        .sum();
    // 2 degrees of freedom, 1e-4 quantile 18.4.
    assert!(chi < 18.4, "chi-square {chi}");
    assert!(drawn.network_calls.iter().all(|&calls| calls == 2));
}

#[test]
fn repetition_penalty_applies_to_tokens_of_the_row_but_not_to_structural_ones() {
    // Independent letters, so that a penalty alone can make them depend on each other.
    let truth = Distribution {
        length: 2,
        letters: 3,
        probabilities: (0..9)
            .map(|i| [0.5, 0.3, 0.2][i / 3] * [0.5, 0.3, 0.2][i % 3])
            .collect(),
    };
    let network = toy::Posterior::new(truth.clone());
    let theta = 2.0_f64;
    for structural in [&[][..], &[1]] {
        let task = Sampling {
            given: &[1, UNSEEN],
            repetition_penalty: theta,
            structural,
            count: 20_000,
            ..task(&truth)
        };
        let drawn = run(task, &mut cached(EVERY_SCHEDULE[0], 3), &network);
        // Logits are ln p, below 0: that of the given letter is multiplied.
        let factor = if structural.is_empty() { theta } else { 1.0 };
        let weights = [0.5_f64, 0.3_f64.powf(factor), 0.2];
        let total: f64 = weights.iter().sum();
        let chi: f64 = (0..3)
            .map(|token| {
                let expected = 20_000.0 * weights[token as usize] / total;
                let found = drawn.tokens.chunks(2).filter(|row| row[1] == token).count() as f64;
                (found - expected).powi(2) / expected
            })
            .sum();
        // 2 degrees of freedom, 1e-4 quantile 18.4.
        assert!(chi < 18.4, "chi-square {chi}");
    }
}

/// What the host computes from a device's logits: the texts of the CPU.
#[test]
#[cfg(target_os = "linux")]
fn edited_draws_on_cuda_are_those_of_the_cpu() {
    use crate::kernels::Fused;
    use crate::kernels::categorical::Truncation;
    use crate::kernels::cuda::{Cuda, driver::DType, emulated::Emulated};
    use crate::model::dit::Nano;
    use crate::model::{CpuNetwork, CudaNetwork};
    use crate::shapes::{Backbone, SHAPES};
    use ordered::{ConfidenceScore, Order, Ordered};

    let mut weights = crate::model::initial(SHAPES.find("nano").unwrap(), Backbone::Dit, 3);
    for (i, weight) in weights.iter_mut().enumerate() {
        *weight += 0.1 * (i as f32 * 78.233).sin();
    }
    let mut given = [UNSEEN; 32];
    given[..3].copy_from_slice(&[3, 7, 9]);
    let base = Sampling {
        given: &given,
        micro_batch: 3,
        ..Sampling::new(4, 6, VocabSupport::without_mask(500, 501), 3)
    };
    let truncation = Truncation {
        top_k: Some(40),
        top_p: 0.9,
        min_p: 0.01,
    };
    let tasks = [
        Sampling {
            temperature: 0.0,
            ..base
        },
        Sampling { truncation, ..base },
        Sampling {
            banned: &[5, 6],
            guidance: 0.5,
            repetition_penalty: 1.3,
            ..base
        },
        Sampling { recorded: 4, ..base },
    ];
    let cpu = CpuNetwork::<Nano, _>::new(Fused::default(), Backbone::Dit, &weights).unwrap();
    for (index, task) in tasks.into_iter().enumerate() {
        let samplers = || -> [Box<dyn Sampler>; 2] {
            let order = Order::Score(ConfidenceScore::Margin);
            [
                Box::new(cached(EVERY_SCHEDULE[0], 500)),
                Box::new(Ordered::new(500, order)),
            ]
        };
        for (mut here, mut there) in samplers().into_iter().zip(samplers()) {
            let cuda = Cuda::new(Box::new(Emulated::default()), DType::F32);
            let device = CudaNetwork::<Nano>::new(cuda, Backbone::Dit, &weights).unwrap();
            let expected = run(task, &mut *here, &cpu);
            let found = run(task, &mut *there, &device);
            // Logits differ in their last bits, so that a draw at the very edge of a token may fall to its neighbour.
            assert_eq!(found.tokens, expected.tokens, "task {index}");
            assert!(found.tokens.chunks(32).all(|row| row[..3] == [3, 7, 9]));
        }
    }
}

/// p(row) of the T-step chain, enumerated: in each step every masked token is unmasked by itself with the step's probability, as
/// a draw of its posterior given the row before the step.
fn enumerated_chain(truth: &Distribution, posterior: &Posterior, steps: u32, grid: Grid) -> Vec<f64> {
    let mask = truth.mask();
    let mut states = BTreeMap::from([(vec![mask; truth.length], 1.0)]);
    for i in 0..steps {
        let unmask = posterior.unmask_probability(i, steps, grid);
        let mut next: BTreeMap<Vec<u32>, f64> = BTreeMap::new();
        for (row, p) in states {
            let mut rows = vec![(row.clone(), p)];
            for l in (0..truth.length).filter(|&l| row[l] == mask) {
                let of_token = truth.posterior(&row, l);
                let branch = |(row, p): (Vec<u32>, f64)| {
                    let drawn = (0..)
                        .zip(of_token.clone())
                        .map(move |(token, q)| (Some(token), unmask * q));
                    let all = drawn.chain(std::iter::once((None, 1.0 - unmask)));
                    all.map(move |(token, q)| {
                        let mut row = row.clone();
                        row[l] = token.unwrap_or(row[l]);
                        (row, p * q)
                    })
                };
                rows = rows.into_iter().flat_map(branch).collect();
            }
            for (row, p) in rows.into_iter().filter(|(_, p)| *p > 0.0) {
                *next.entry(row).or_default() += p;
            }
        }
        states = next;
    }
    let rows = (0..truth.probabilities.len()).map(|i| truth.row(i));
    rows.map(|row| states.get(&row).copied().unwrap_or_default())
        .collect()
}

#[test]
fn chains_of_few_steps_have_the_enumerated_distribution() {
    let truth = Distribution::random(3, 3, 4);
    let network = toy::Posterior::new(truth.clone());
    for (steps, schedule) in [
        (2, EVERY_SCHEDULE[0]),
        (3, EVERY_SCHEDULE[1]),
        (4, EVERY_SCHEDULE[3]),
    ] {
        let posterior = posterior(schedule, 3);
        let samplers: [(Box<dyn Sampler>, Grid); 3] = [
            (Box::new(ancestral(schedule, 3)), Grid::Exact),
            (Box::new(cached(schedule, 3)), Grid::Exact),
            (
                Box::new(analytic::TauLeaping::analytic(posterior)),
                Grid::Published,
            ),
        ];
        for (mut sampler, grid) in samplers {
            let task = Sampling {
                count: 20_000,
                steps,
                ..task(&truth)
            };
            let drawn = run(task, &mut *sampler, &network);
            let expected = enumerated_chain(&truth, &posterior, steps, grid);
            assert!((expected.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            // It is not the distribution itself: tokens of a step are drawn as if they were independent.
            let distance: f64 = expected
                .iter()
                .zip(&truth.probabilities)
                .map(|(a, b)| (a - b).abs())
                .sum();
            assert!(distance > 0.02, "{distance}");
            let chain = Distribution {
                probabilities: expected,
                ..truth.clone()
            };
            // 26 degrees of freedom, 1e-4 quantile 61.7.
            let chi = chi_square(&chain, &drawn.tokens, |_| true);
            assert!(chi < 61.7, "{steps} steps: chi-square {chi}");
        }
    }
}
