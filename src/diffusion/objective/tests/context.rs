//! Rows that begin with context: what is bounded is −log p of the scored tokens given those before.

use std::ops::Range;

use super::super::settings::SETTINGS;
use super::*;

/// −log p(scored tokens | those before), by the chain rule over the joint distribution.
fn exact(truth: &Distribution, x: &[u32], scored: &Range<usize>) -> f64 {
    let of = |l: usize| {
        let mut z = vec![truth.mask(); x.len()];
        z[..l].copy_from_slice(&x[..l]);
        -truth.posterior(&z, l)[x[l] as usize].ln()
    };
    scored.clone().map(of).sum()
}

/// Σ weight · loss of the passes of a draw, the network being the exact posterior.
fn value(
    objective: &dyn Objective,
    truth: &Distribution,
    x: &[u32],
    scored: &Range<usize>,
    draw: &Draw,
) -> f64 {
    let Passes { drawn, fixed } = objective.passes_of_bound(draw.method, scored);
    let mut total = 0.0;
    for pass in 0..drawn + fixed {
        let mut noised = NoisedBatch::default();
        objective.noise_of_bound(draw, pass, x, scored, &mut noised);
        for (index, &l) in noised.positions.iter().enumerate() {
            let l = l as usize;
            let p = if objective.pattern() == Pattern::Causal {
                let mut z = vec![truth.mask(); x.len()];
                z[..=l].copy_from_slice(&noised.tokens[..=l]);
                truth.posterior(&z, l + 1)
            } else {
                truth.posterior(&noised.tokens, l)
            };
            let score = Score {
                weight: f64::from(noised.weights[index]),
                constants: noised.constants.get(index).copied(),
            };
            total += loss_of(objective.loss(), score, &p, 0.0, noised.targets[index] as usize);
        }
    }
    total
}

fn objective(value: &str) -> manifest::Objective {
    serde_json::from_str(value).unwrap()
}

#[test]
fn context_is_given_and_what_is_behind_is_masked() {
    let x = [0, 1, 2, 0, 1, 2, 1, 0];
    let scored = 3..6;
    for (name, settings) in SETTINGS {
        let settings = objective(settings);
        let built = build(&settings, 3, 4, 5);
        let causal = built.pattern() == Pattern::Causal;
        for estimator in settings.estimators() {
            let method = Method {
                steps: (estimator == Estimator::Time).then(|| settings.steps()).flatten(),
                ..Method::of(estimator)
            };
            let Passes { drawn, fixed } = built.passes_of_bound(method, &scored);
            let mut predicted = [false; 8];
            for draw in 0..100 {
                for pass in 0..drawn + fixed {
                    let draw = Draw {
                        method,
                        draw,
                        offset: (draw as f64 + 0.5) / 100.0,
                        ..super::draw(estimator)
                    };
                    let mut noised = NoisedBatch::default();
                    built.noise_of_bound(&draw, pass, &x, &scored, &mut noised);
                    assert_eq!(noised.tokens[..3], x[..3], "{name}, {estimator:?}");
                    let behind: &[u32] = if causal { &[1, 0] } else { &[3, 3] };
                    assert_eq!(noised.tokens[6..], *behind, "{name}, {estimator:?}");
                    for (&l, &target) in noised.positions.iter().zip(&noised.targets) {
                        let l = l as usize + usize::from(causal);
                        assert_eq!(target, x[l], "{name}, {estimator:?}");
                        predicted[l] = true;
                    }
                }
            }
            let of_scored: Vec<bool> = (0..8).map(|l| scored.contains(&l)).collect();
            assert_eq!(predicted[..], of_scored, "{name}, {estimator:?}");
            assert_eq!(built.predicted(&scored), 3);
        }
    }
}

/// With the exact conditional distributions every estimator has the expectation −log p(scored | context), row by row; in few
/// steps of discrete time its mean is above.
#[test]
fn context_bounds_are_the_conditional_likelihood_with_the_exact_posterior() {
    let truth = Distribution::random(5, 3, 7);
    for (settings, estimator, steps, excess) in [
        (r#"{ "kind": "mdlm" }"#, Estimator::Count, None, 0.0),
        (r#"{ "kind": "mdlm" }"#, Estimator::Time, None, 1e-3),
        (r#"{ "kind": "mlm" }"#, Estimator::Count, None, 0.0),
        (r#"{ "kind": "sedd" }"#, Estimator::Time, None, 1e-3),
        (r#"{ "kind": "mdlm" }"#, Estimator::Time, Some(2), 0.5),
        (
            r#"{ "kind": "d3pm", "steps": 256 }"#,
            Estimator::Time,
            Some(256),
            0.02,
        ),
        (r#"{ "kind": "ar" }"#, Estimator::Exact, None, 0.0),
    ] {
        let built = build(&objective(settings), 3, 4, 5);
        let method = Method {
            steps,
            ..Method::of(estimator)
        };
        // Of a chain of few steps the mean over the language is a bound, not each row's value. Elsewhere few draws by time make
        // most of its variance, those with hardly a token masked.
        let (count, draws) = match (estimator, steps) {
            (_, Some(2)) => (truth.probabilities.len(), 100),
            (Estimator::Time, _) => (8, 4000),
            _ => (40, 100),
        };
        let rows: Vec<(usize, f64)> = if steps == Some(2) {
            truth.probabilities.iter().copied().enumerate().collect()
        } else {
            (0..count)
                .map(|row| (row * 240 / count, 1.0 / count as f64))
                .collect()
        };
        for scored in [1..2, 2..5, 4..5] {
            let (mut sum, mut squares, mut expected) = (0.0, 0.0, 0.0);
            for &(row, share) in &rows {
                let x = truth.row(row);
                expected += share * exact(&truth, &x, &scored);
                let of_row: Vec<f64> = (0..draws)
                    .map(|draw| {
                        let named = Draw {
                            method,
                            draw: draw as u64,
                            row: row as u64,
                            offset: (f64::from(draw) + 0.5) / f64::from(draws),
                            ..super::draw(estimator)
                        };
                        value(&*built, &truth, &x, &scored, &named)
                    })
                    .collect();
                let mean = of_row.iter().sum::<f64>() / f64::from(draws);
                sum += share * mean;
                let variance = of_row.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
                squares += variance * (share / f64::from(draws)).powi(2);
            }
            let difference = sum - expected;
            let error = 4.0 * squares.sqrt() + 1e-5;
            assert!(
                (-error..excess + error).contains(&difference),
                "{settings} {estimator:?} {scored:?}: {difference} ± {error}"
            );
            let exactly =
                estimator == Estimator::Exact || (estimator == Estimator::Count && scored.len() == 1);
            assert!(!exactly || error < 2e-5, "one token alone has no noise: {error}");
        }
    }
}

/// Another model's bound is above its own likelihood of what is scored: here that of the chain rule's mean over orders, which
/// a bound by orders has by Jensen's inequality.
#[test]
fn context_bounds_of_another_model_cost() {
    let (truth, wrong) = (Distribution::random(4, 3, 1), Distribution::random(4, 3, 2));
    let mdlm = build(&objective(r#"{ "kind": "mdlm" }"#), 3, 4, 5);
    let scored = 2..4;
    let mut sums = [0.0; 2];
    for (index, probability) in truth.probabilities.iter().enumerate() {
        let x = truth.row(index);
        for (sum, model) in sums.iter_mut().zip([&truth, &wrong]) {
            for draw in 0..20 {
                let named = Draw {
                    method: Method::of(Estimator::Count),
                    draw,
                    row: index as u64,
                    offset: (draw as f64 + 0.5) / 20.0,
                    ..super::draw(Estimator::Count)
                };
                *sum += probability * value(&*mdlm, model, &x, &scored, &named) / 20.0;
            }
        }
    }
    assert!(sums[1] > sums[0] + 0.1, "{sums:?}");
}

#[test]
fn pseudo_likelihood_with_context_masks_scored_positions_alone() {
    let mlm = Mlm::new(&MlmObjective::default(), 3, 4, 5);
    let method = Method::of(Estimator::Pseudo);
    assert_eq!(mlm.passes_of_bound(method, &(1..3)), Passes::fixed(2));
    let mut noised = NoisedBatch::default();
    for pass in 0..2 {
        mlm.noise_of_bound(
            &draw(Estimator::Pseudo),
            pass,
            &[0, 1, 2, 0],
            &(1..3),
            &mut noised,
        );
    }
    assert_eq!(noised.tokens, [0, 3, 2, 3, 0, 1, 3, 3]);
    assert_eq!((noised.positions, noised.targets), (vec![1, 6], vec![1, 2]));
}
