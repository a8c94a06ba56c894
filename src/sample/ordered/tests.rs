use super::*;
use crate::event::Cancel;
use crate::model::toy::{self, Distribution};
use crate::sample::tests::{chi_square, task};
use crate::sample::{DrawnRows, Sampling};

const MASK: u32 = 3;

fn run(task: Sampling<'_>, mut sampler: Ordered, network: &toy::Posterior) -> DrawnRows {
    task.run(&mut sampler, network, &Cancel::default(), &mut |_| ())
        .unwrap()
}

const EVERY_ORDER: [Order; 6] = [
    Order::Random,
    Order::LeftToRight,
    Order::Score(ConfidenceScore::Probability),
    Order::Score(ConfidenceScore::Margin),
    Order::Score(ConfidenceScore::Entropy),
    Order::Threshold(0.5),
];

#[test]
fn one_token_a_step_in_an_order_that_ignores_draws_has_the_exact_distribution() {
    let truth = Distribution::random(3, 3, 4);
    let network = toy::Posterior::new(truth.clone());
    let task = Sampling {
        count: 20_000,
        steps: 3,
        ..task(&truth)
    };
    // Margin and entropy are functions of what is unmasked already, so that they may decide which position comes next.
    let orders = [
        Order::Random,
        Order::LeftToRight,
        Order::Score(ConfidenceScore::Margin),
        Order::Score(ConfidenceScore::Entropy),
    ];
    for order in orders {
        for block in [None, Some(2)] {
            let sampler = Ordered {
                block,
                ..Ordered::new(MASK, order)
            };
            let drawn = run(task, sampler, &network);
            // 26 degrees of freedom, 1e-4 quantile 61.7.
            let chi = chi_square(&truth, &drawn.tokens, |_| true);
            assert!(chi < 61.7, "{order:?}: chi-square {chi}");
            assert!(drawn.network_calls.iter().all(|&calls| calls == 3));
        }
    }
}

#[test]
fn orders_leave_no_mask_with_any_number_of_steps_and_any_block() {
    let truth = Distribution::random(5, 3, 2);
    let network = toy::Posterior::new(truth.clone());
    for order in EVERY_ORDER {
        for schedule in [UnmaskingSchedule::Linear, UnmaskingSchedule::Cosine] {
            for (steps, block) in [
                (1, None),
                (2, None),
                (7, None),
                (3, Some(2)),
                (5, Some(1)),
                (9, Some(4)),
            ] {
                let sampler = Ordered {
                    schedule,
                    block,
                    choice_temperature: 1.0,
                    ..Ordered::new(MASK, order)
                };
                let drawn = run(
                    Sampling {
                        steps,
                        ..task(&truth)
                    },
                    sampler,
                    &network,
                );
                assert!(
                    drawn.tokens.iter().all(|&token| token < 3),
                    "{order:?} {steps} {block:?}"
                );
                let most = if matches!(order, Order::Threshold(_)) {
                    5
                } else {
                    steps.min(5)
                };
                assert!(drawn.network_calls.iter().all(|&calls| calls <= most));
            }
        }
    }
}

/// Draws with these probabilities of their tokens and second tokens.
fn draws(numbers: &[(u32, u32, f64, f64)]) -> Vec<(u32, Draw)> {
    let draw = |&(position, token, first, second): &(u32, u32, f64, f64)| {
        let entropy = -(first * first.ln() + second * second.ln());
        let draw = Draw {
            token,
            log_probability: first.ln(),
            log_sum_exp: 0.0,
            mask_logit: 0.0,
            confidence: Some(crate::kernels::categorical::Confidence {
                largest: [first, second],
                entropy,
            }),
        };
        (position, draw)
    };
    numbers.iter().map(draw).collect()
}

fn step(index: u32, count: u32) -> Step {
    Step {
        index,
        count,
        number: u64::from(index),
        random: crate::rng::Random::new(3, crate::rng::Stream::Sample),
    }
}

#[test]
fn scores_choose_the_positions_that_they_define() {
    // Position 0 has the largest probability, 1 the largest margin, 2 the smallest entropy.
    let draws = draws(&[(0, 0, 0.60, 0.40), (1, 1, 0.55, 0.01), (2, 2, 0.02, 0.001)]);
    for (score, expected) in [
        (ConfidenceScore::Probability, 0),
        (ConfidenceScore::Margin, 1),
        (ConfidenceScore::Entropy, 2),
    ] {
        let mut sampler = Ordered::new(MASK, Order::Score(score));
        sampler.begin(&[MASK; 3], 3);
        let chosen = sampler.commit(&step(0, 3), 0, &[MASK; 3], &draws);
        assert_eq!(chosen, [(expected, expected)], "{score:?}");
    }
}

#[test]
fn threshold_takes_all_above_it_and_the_best_below_it() {
    let draws = draws(&[(0, 0, 0.6, 0.1), (1, 1, 0.9, 0.1), (2, 2, 0.95, 0.01)]);
    for (probability, expected) in [
        (0.9, vec![(1, 1), (2, 2)]),
        (0.99, vec![(2, 2)]),
        (0.0, vec![(0, 0), (1, 1), (2, 2)]),
    ] {
        let mut sampler = Ordered::new(MASK, Order::Threshold(probability));
        sampler.begin(&[MASK; 3], 3);
        assert_eq!(sampler.commit(&step(0, 3), 0, &[MASK; 3], &draws), expected);
    }
}

#[test]
fn late_tokens_come_when_no_other_is_left() {
    let draws = draws(&[(0, 0, 0.2, 0.1), (1, 1, 0.9, 0.1), (2, 2, 0.3, 0.01)]);
    for (order, expected) in [
        (Order::Score(ConfidenceScore::Probability), vec![(2, 2)]),
        (Order::Threshold(0.9), vec![(2, 2)]),
    ] {
        let mut sampler = Ordered {
            late: vec![1],
            ..Ordered::new(MASK, order)
        };
        sampler.begin(&[MASK; 3], 3);
        assert_eq!(sampler.commit(&step(0, 3), 0, &[MASK; 3], &draws), expected);
        assert_eq!(
            sampler.commit(&step(2, 3), 0, &[0, MASK, 2], &draws[1..2]),
            [(1, 1)]
        );
    }
}

#[test]
fn blocks_are_drawn_one_after_the_other() {
    let mut sampler = Ordered {
        block: Some(2),
        ..Ordered::new(MASK, Order::Score(ConfidenceScore::Probability))
    };
    let row = [0, MASK, MASK, MASK, MASK];
    sampler.begin(&row, 5);
    let asked = |index, tokens: &[u32]| -> Vec<u32> {
        let queries = sampler.query(&step(index, 4), 0, tokens);
        queries.iter().map(|query| query.position).collect()
    };
    assert_eq!(asked(0, &row), [1]);
    assert_eq!(asked(1, &[0, 1, MASK, MASK, MASK]), [2, 3]);
    assert_eq!(asked(3, &[0, 1, 1, 1, MASK]), [4]);
    let share = |index| sampler.share(&step(index, 4), 0).unwrap().tokens;
    assert_eq!([share(0), share(1), share(2), share(3)], [1, 1, 1, 1]);
}
