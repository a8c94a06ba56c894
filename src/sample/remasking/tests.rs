use super::*;
use crate::diffusion::EVERY_SCHEDULE;
use crate::event::Cancel;
use crate::model::toy::{self, Distribution};
use crate::sample::ancestral::Ancestral;
use crate::sample::tests::{chi_square, posterior, task};
use crate::sample::{DrawnRows, Sampling};

const LOOP: RemaskingNumbers = RemaskingNumbers::Loop {
    eta: 0.02,
    on: 0.55,
    off: 0.05,
    alpha: 0.9,
};

fn run(task: Sampling<'_>, rule: RemaskingNumbers) -> DrawnRows {
    let truth = Distribution::random(3, 3, 4);
    let network = toy::Posterior::new(truth);
    let mut sampler = Remasking::new(posterior(EVERY_SCHEDULE[0], 3), rule);
    task.run(&mut sampler, &network, &Cancel::default(), &mut |_| ())
        .unwrap()
}

#[test]
fn remasking_never_is_ancestral_sampling() {
    let truth = Distribution::random(3, 3, 4);
    let network = toy::Posterior::new(truth.clone());
    for schedule in EVERY_SCHEDULE {
        let mut ancestral = Ancestral {
            grid: crate::manifest::Grid::Exact,
            posterior: posterior(schedule, 3),
        };
        let mut remasking = Remasking::new(posterior(schedule, 3), RemaskingNumbers::Cap(0.0));
        let cancel = Cancel::default();
        let expected = task(&truth).run(&mut ancestral, &network, &cancel, &mut |_| ());
        let found = task(&truth).run(&mut remasking, &network, &cancel, &mut |_| ());
        assert_eq!(found.unwrap().tokens, expected.unwrap().tokens);
    }
}

/// σ_max makes both terms of the posterior probabilities, and keeps the unmasked share that of the forward process.
#[test]
fn rules_keep_the_unmasked_share_and_end_without_masks() {
    for rule in [
        RemaskingNumbers::Cap(0.3),
        RemaskingNumbers::Rescale(0.7),
        RemaskingNumbers::ForwardBackward,
        LOOP,
    ] {
        let sampler = Remasking::new(posterior(EVERY_SCHEDULE[1], 3), rule);
        for count in [1, 2, 20, 100] {
            let mut unmasked = 0.0;
            for index in 0..count {
                let step = Step {
                    index,
                    count,
                    number: 0,
                    random: crate::rng::Random::new(1, crate::rng::Stream::Sample),
                };
                let shares = sampler.shares(&step);
                let sigma = sampler.sigma_of_all(shares);
                let unmasks = shares.unmask_probability(sigma);
                assert!(
                    (0.0..=1.0).contains(&sigma) && (0.0..=1.0).contains(&unmasks),
                    "{rule:?}"
                );
                unmasked = unmasked * (1.0 - sigma) + (1.0 - unmasked) * unmasks;
                assert!(
                    (unmasked - shares.after).abs() < 1e-9,
                    "{rule:?}, step {index} of {count}"
                );
            }
            assert!((unmasked - 1.0).abs() < 1e-9, "{rule:?}");
        }
    }
}

#[test]
fn loop_stays_at_its_share_between_its_times() {
    let sampler = Remasking::new(posterior(EVERY_SCHEDULE[0], 3), LOOP);
    let alphas: Vec<f64> = (0..=20).map(|i| sampler.alpha(i, 20)).collect();
    assert!(alphas.is_sorted());
    assert_eq!((alphas[0], alphas[20]), (0.0, 1.0));
    // Times 0.55 to 0.05 are boundaries 9 to 19.
    assert!(
        alphas[9..=19].iter().all(|&alpha| (alpha - 0.9).abs() < 1e-12),
        "{alphas:?}"
    );
    assert!(alphas[8] < 0.9);
}

#[test]
fn remasking_with_the_exact_posterior_and_many_steps_keeps_its_distribution() {
    let truth = Distribution::random(3, 3, 4);
    for rule in [
        RemaskingNumbers::Cap(0.01),
        RemaskingNumbers::Rescale(0.05),
        RemaskingNumbers::ForwardBackward,
        LOOP,
    ] {
        let task = Sampling {
            count: 10_000,
            steps: 400,
            ..task(&truth)
        };
        let drawn = run(task, rule);
        // 26 degrees of freedom, 1e-4 quantile 61.7. Two tokens of a row share a step in under 1% of the rows.
        let chi = chi_square(&truth, &drawn.tokens, |_| true);
        assert!(chi < 61.7, "{rule:?}: chi-square {chi}");
    }
}

#[test]
fn tokens_are_masked_again_and_given_ones_are_not() {
    let truth = Distribution::random(3, 3, 4);
    for rule in [
        RemaskingNumbers::Rescale(1.0),
        RemaskingNumbers::Confidence,
        RemaskingNumbers::Cap(0.5),
    ] {
        let task = Sampling {
            given: &[u32::MAX, 2, u32::MAX],
            count: 200,
            steps: 20,
            ..task(&truth)
        };
        let drawn = run(task, rule);
        assert!(
            drawn
                .tokens
                .chunks(3)
                .all(|row| row[1] == 2 && row.iter().all(|&token| token < 3))
        );
        let calls: u32 = drawn.network_calls.iter().sum();
        // Two tokens are drawn once without remasking.
        assert!(calls > 500, "{rule:?}: {calls}");
    }
}

#[test]
fn confidence_masks_improbable_tokens_more_often() {
    let mut sampler = Remasking::new(posterior(EVERY_SCHEDULE[0], 3), RemaskingNumbers::Confidence);
    let mut again = [0_u32; 3];
    let step = |number| Step {
        index: 5,
        count: 10,
        number,
        random: crate::rng::Random::new(1, crate::rng::Stream::Sample),
    };
    let most = sampler.shares(&step(0)).most();
    for number in 0..20_000 {
        sampler.drawn = vec![Some(0.9), None, Some(0.1)];
        for (position, _) in sampler.commit(&step(number), 0, &[0, 3, 1], &[]) {
            again[position as usize] += 1;
        }
    }
    let total = (-0.9_f64).exp() + (-0.1_f64).exp();
    for (position, psi) in [(0, 0.9_f64), (2, 0.1)] {
        let expected = most * (-psi).exp() / total;
        let found = f64::from(again[position]) / 20_000.0;
        // Five standard errors.
        let error = (expected * (1.0 - expected) / 20_000.0).sqrt();
        assert!(
            (found - expected).abs() < 5.0 * error,
            "{found} is not {expected}"
        );
    }
    assert_eq!(again[1], 0, "it is masked, or given");
}
