//! What a bound promises, on languages small enough to sum over all of them.

use super::*;
use crate::diffusion::forward::{NoiseLevel, Score};
use crate::diffusion::toy::Distribution;
use crate::kernels::ReadoutRequest;
use crate::manifest::{
    Bell, Clipped, D3pmObjective, MdlmObjective, MlmObjective, Noise, NoiseEpsilon, SeddObjective, Times,
    Weighting,
};
use crate::rng::Stream;

mod context;

/// A position's loss in f64, from the definitions at the head of [`crate::kernels::readout`]: p are the probabilities
/// of the tokens without the mask, which add up to 1 − μ.
fn loss_of(loss: Loss, score: Score, p: &[f64], mu: f64, target: usize) -> f64 {
    let nll = -p[target].ln();
    score.weight
        * match (loss, score.constants) {
            (Loss::CrossEntropy, _) | (_, None) => nll,
            (Loss::AbsorbingKl, Some(constants)) => {
                let [a, b, c] = constants.map(f64::from);
                a * nll + (b * mu).ln_1p() - (1.0 - a) * (c * mu).ln_1p()
            }
            (Loss::ScoreEntropy, Some(constants)) => {
                let [r, _, g] = constants.map(f64::from);
                // Logits z with exp(z − k) = r p: the scores that p stands for.
                let scores: Vec<f64> = p.iter().map(|p| r * p).collect();
                let total: f64 = scores.iter().sum();
                if g == 0.0 {
                    r * nll
                } else {
                    total - r * scores[target].ln() + r * (r.ln() - 1.0)
                }
            }
        }
}

/// E over rows of `truth` and over masks of move chance m of Σ_masked loss, the network being the exact posterior of
/// `denoiser` with the probability μ of the mask.
fn expected(
    truth: &Distribution,
    denoiser: &Distribution,
    m: f64,
    mu: f64,
    loss: impl Fn(&[f64], usize) -> f64,
) -> f64 {
    let length = truth.length;
    let mut total = 0.0;
    for (index, probability) in truth.probabilities.iter().enumerate() {
        let x = truth.row(index);
        for set in 1_u32..1 << length {
            let masked = set.count_ones() as i32;
            let chance = m.powi(masked) * (1.0 - m).powi(length as i32 - masked);
            let z: Vec<u32> = (0..length)
                .map(|l| if set >> l & 1 == 1 { truth.mask() } else { x[l] })
                .collect();
            for l in (0..length).filter(|l| set >> l & 1 == 1) {
                let p: Vec<f64> = denoiser.posterior(&z, l).iter().map(|p| p * (1.0 - mu)).collect();
                total += probability * chance * loss(&p, x[l] as usize);
            }
        }
    }
    total
}

/// E over rows of `truth` and masks with move chance m of `Σ_masked −log q(x_l | z)`, by enumeration.
pub(super) fn masked_loss(truth: &Distribution, denoiser: &Distribution) -> impl Fn(f64) -> f64 + use<> {
    let length = truth.length;
    // Loss of every mask set, summed over rows: m enters afterwards.
    let mut by_count = vec![0.0; length + 1];
    for set in 0..1_usize << length {
        for (index, probability) in truth.probabilities.iter().enumerate() {
            let x = truth.row(index);
            let z: Vec<u32> = (0..length)
                .map(|l| if set >> l & 1 == 1 { truth.mask() } else { x[l] })
                .collect();
            for l in (0..length).filter(|l| set >> l & 1 == 1) {
                by_count[set.count_ones() as usize] -=
                    probability * denoiser.posterior(&z, l)[x[l] as usize].ln();
            }
        }
    }
    move |m| {
        let term = |k: usize| by_count[k] * m.powi(k as i32) * (1.0 - m).powi((length - k) as i32);
        (1..=length).map(term).sum()
    }
}

fn d3pm(steps: u32, noise: Noise) -> D3pm {
    let settings = D3pmObjective {
        steps,
        noise,
        ..D3pmObjective::default()
    };
    D3pm::new(&settings, 3, 4, 5)
}

/// The T-step bound of a network with the exact posterior of `denoiser` and the probability μ of the mask.
fn bound_in_steps(truth: &Distribution, denoiser: &Distribution, mu: f64, steps: u32, noise: Noise) -> f64 {
    let objective = d3pm(steps, noise);
    let of_step = |i| {
        let step = objective.masking.step_of_bound(i, steps);
        let score = D3pm::divergence(&step);
        expected(truth, denoiser, step.level.move_chance, mu, |p, target| {
            loss_of(Loss::AbsorbingKl, score, p, mu, target)
        })
    };
    (1..=steps).map(of_step).sum::<f64>() / f64::from(steps)
}

const NOISES: [Noise; 3] = [
    Noise::LogLinear(NoiseEpsilon { epsilon: 1e-3 }),
    Noise::Cosine(NoiseEpsilon { epsilon: 1e-3 }),
    Noise::Geometric(crate::manifest::NoiseRange {
        sigma_min: 1e-3,
        sigma_max: 20.0,
    }),
];

#[test]
fn bounds_in_steps_fall_to_the_entropy_with_the_exact_posterior() {
    let truth = Distribution::random(4, 3, 1);
    for noise in NOISES {
        let bounds = [1, 2, 4, 8, 16, 64, 256].map(|steps| bound_in_steps(&truth, &truth, 0.0, steps, noise));
        for pair in bounds.windows(2) {
            assert!(pair[1] < pair[0], "{noise:?}: {bounds:?}");
        }
        let excess = bounds[6] - truth.entropy();
        assert!((0.0..0.02).contains(&excess), "{noise:?}: {excess}");
        // One step draws all tokens independently: the bound is the sum of the letters' entropies.
        let independent: f64 = expected(&truth, &truth, 1.0, 0.0, |p, target| -p[target].ln());
        assert!((bounds[0] - independent).abs() < 1e-6, "{bounds:?} {independent}");
    }
}

#[test]
fn bounds_in_steps_of_mdlm_are_those_of_d3pm_without_the_mask() {
    let (truth, wrong) = (Distribution::random(3, 3, 1), Distribution::random(3, 3, 2));
    for steps in [1, 3, 10] {
        let masking = Mdlm::new(&MdlmObjective::default(), 3, 4, 5).masking;
        let terms = (1..=steps).map(|i| {
            let level = masking.step_of_bound(i, steps).level;
            level.weight
                * expected(&truth, &wrong, level.move_chance, 0.0, |p, target| {
                    -p[target].ln()
                })
        });
        let mdlm = terms.sum::<f64>() / f64::from(steps);
        let d3pm = bound_in_steps(&truth, &wrong, 0.0, steps, NOISES[0]);
        // The constants of a step are f32.
        assert!((mdlm - d3pm).abs() < 1e-6 * mdlm, "{steps}: {mdlm} {d3pm}");
    }
}

#[test]
fn d3pm_with_a_probability_of_the_mask_costs_and_stays_a_bound() {
    let truth = Distribution::random(3, 3, 1);
    for noise in NOISES {
        for steps in [2, 10, 100] {
            let of = |mu| bound_in_steps(&truth, &truth, mu, steps, noise);
            let values = [0.0, 0.01, 0.1, 0.5].map(of);
            assert!(values[0] >= truth.entropy(), "{noise:?} {steps}: {values:?}");
            for pair in values.windows(2) {
                assert!(pair[0] < pair[1], "{noise:?} {steps}: {values:?}");
            }
        }
    }
}

/// One token: its likelihood under the whole chain is a sum over the step in which it is unmasked.
#[test]
fn bounds_in_steps_are_above_the_likelihood_of_the_chain() {
    let posterior_at = |i: u32, steps: u32, mu: f64| {
        let posterior = d3pm(steps, NOISES[0]).posterior().unwrap();
        posterior.unmask_probability_beside_mask(i, steps, manifest::Grid::Exact, mu)
    };
    for (p, mu) in [(0.3, 0.0), (0.3, 0.2), (0.05, 0.9)] {
        for steps in [1, 2, 5, 50] {
            let (mut masked, mut likelihood) = (1.0, 0.0);
            for i in 0..steps {
                let unmask = posterior_at(i, steps, mu);
                likelihood += masked * unmask * p;
                masked *= 1.0 - unmask;
            }
            // What is masked to the end is drawn from p.
            likelihood += masked * p;
            assert!((likelihood - p).abs() < 1e-12, "each way ends in p");
            let objective = d3pm(steps, NOISES[0]);
            let bound: f64 = (1..=steps)
                .map(|i| {
                    let step = objective.masking.step_of_bound(i, steps);
                    let others = (1.0 - p) * (1.0 - mu);
                    let p = [p * (1.0 - mu), others];
                    step.level.move_chance * loss_of(Loss::AbsorbingKl, D3pm::divergence(&step), &p, mu, 0)
                        / f64::from(steps)
                })
                .sum();
            assert!(bound > -f64::ln(p) - 1e-6, "{p} {mu} {steps}: {bound}");
            if mu == 0.0 {
                assert!((bound + f64::ln(p)).abs() < 1e-6, "one token has nothing to lose");
            }
        }
    }
}

#[test]
fn published_steps_have_no_nan_and_the_published_numbers() {
    let masking = d3pm(10, NOISES[0]).masking;
    for steps in [1, 2, 3, 10, 20, 1000] {
        for i in 1..=steps {
            let step = masking.step_as_published(i, steps);
            assert!(step.level.weight.is_finite(), "{i} of {steps}: {step:?}");
            let request = ReadoutRequest {
                support: VocabSupport::with_mask(3, 4),
                loss: Loss::AbsorbingKl,
                constants: &[D3pm::divergence(&step).constants.unwrap()],
                targets: &[0],
                weights: &[1.0],
            };
            request.check(1, 4).unwrap();
        }
    }
    assert_eq!(masking.step_as_published(1, 1).unmask, 1.0);
    // By hand, T = 10, t = 0.5: dt / t = 0.2, α_t / t = 1, α_s / s = 0.6 / 0.4.
    let step = masking.step_as_published(5, 10);
    let found = [step.unmask, step.odds, step.odds_before, step.level.weight];
    for (found, right) in found.into_iter().zip([0.2, 1.0, 1.5, 2.0]) {
        assert!((found - right).abs() < 1e-12, "{found} {right}");
    }
    assert_eq!(masking.step_as_published(1, 10).odds_before, 0.0);
    // Where the schedule is α = 1 − t but for ε, the steps of the bound differ by ε alone.
    for i in 2..10 {
        let (own, published) = (masking.step(i, 10), masking.step_as_published(i, 10));
        assert!((own.unmask - published.unmask).abs() < 1e-12);
        assert!((own.odds - published.odds).abs() < 2e-2);
    }
}

#[test]
fn d3pm_steps_are_equally_likely_and_other_times_are_refused() {
    let masking = d3pm(4, NOISES[0]).masking;
    let all: Vec<u32> = (0..8).map(|i| Masking::step_at(f64::from(i) / 8.0, 4)).collect();
    assert_eq!(all, [1, 1, 2, 2, 3, 3, 4, 4]);
    assert_eq!(Masking::step_at(1.0 - 1e-17, 4), 4);
    assert_eq!(masking.step_at_time(0.75, 4).unwrap(), masking.step(3, 4));
    assert_eq!(
        masking.step_at_time(f64::from(0.3_f32), 10).unwrap(),
        masking.step(3, 10)
    );
    for t in [0.0, 0.3, 1.25, f64::NAN] {
        let error = masking.step_at_time(t, 4).unwrap_err();
        assert!(error.to_string().contains("is not a multiple of 1/4"), "{error}");
    }
}

#[test]
fn score_entropy_of_the_exact_scores_is_the_bound_of_mdlm() {
    let truth = Distribution::random(3, 3, 1);
    for noise in NOISES {
        let settings = SeddObjective {
            noise,
            ..SeddObjective::default()
        };
        let sedd = Sedd::new(&settings, 3, 4, 5);
        for u in [0.0005, 0.01, 0.3, 0.9, 0.99995] {
            let level = sedd.masking.level_of_bound(u);
            let (noise_level, score) = match level {
                BoundLevel::End(level) => (level, Sedd::log_likelihood(level)),
                BoundLevel::Between(level) => (level, sedd.score(level)),
            };
            let m = noise_level.move_chance;
            let of_scores = expected(&truth, &truth, m, 0.0, |p, target| {
                loss_of(Loss::ScoreEntropy, score, p, 0.0, target)
            });
            let of_subs = noise_level.weight * expected(&truth, &truth, m, 0.0, |p, target| -p[target].ln());
            // r is an f32 constant; the terms of the score entropy cancel to the order of their difference.
            assert!(
                (of_scores - of_subs).abs() < 1e-5 * of_subs.max(1e-3),
                "{noise:?} {u}: {of_scores} {of_subs}"
            );
        }
    }
}

#[test]
fn score_entropy_is_larger_for_scores_of_another_total() {
    let sedd = Sedd::new(&SeddObjective::default(), 3, 4, 5);
    let level = sedd.masking.level(0.4);
    let score = sedd.score(level);
    let r = Sedd::ratio(level.sigma);
    // Probabilities that add up to another total: scores r p with the total 1.3 r.
    let of = |total: f64| {
        let p = [0.2 * total, 0.5 * total, 0.3 * total];
        loss_of(Loss::ScoreEntropy, score, &p, 0.0, 1)
    };
    assert!(of(1.3) > of(1.0) && of(0.7) > of(1.0));
    assert!((of(1.3) - of(1.0) - score.weight * r * (0.3 - 1.3_f64.ln())).abs() < 1e-6);
    // Logits of 0 are the uniform distribution at every noise level.
    for t in [0.01, 0.5, 1.0] {
        let sigma = sedd.masking.level(t).sigma;
        let log_score = -sedd.offset(sigma);
        assert!((log_score - (Sedd::ratio(sigma) / 3.0).ln()).abs() < 1e-9);
    }
}

#[test]
fn ar_is_the_chain_rule() {
    let truth = Distribution::random(4, 3, 7);
    let ar = Ar {
        mask: 3,
        vocabulary: 4,
    };
    let mut entropy_given_first = 0.0;
    for (index, probability) in truth.probabilities.iter().enumerate() {
        let x = truth.row(index);
        let mut noised = NoisedBatch::default();
        ar.noise_of_bound(&draw(Estimator::Exact), 0, &x, &(0..4), &mut noised);
        assert_eq!(noised.tokens, x);
        assert_eq!(noised.positions, [0, 1, 2]);
        // p(next | those up to here), from the joint distribution.
        let nats: f64 = noised
            .positions
            .iter()
            .zip(&noised.targets)
            .zip(&noised.weights)
            .map(|((&l, &target), &weight)| {
                let seen = l as usize + 1;
                let mut z = vec![truth.mask(); 4];
                z[..seen].copy_from_slice(&x[..seen]);
                -f64::from(weight) * truth.posterior(&z, seen)[target as usize].ln()
            })
            .sum();
        let first = truth.posterior(&[3, 3, 3, 3], 0)[x[0] as usize];
        let right = -(probability.ln() - first.ln());
        assert!((nats - right).abs() < 1e-12, "{nats} {right}");
        entropy_given_first += probability * nats;
    }
    assert!(entropy_given_first < truth.entropy());
    // Padding is not predicted, the end of the text is.
    let mut noised = NoisedBatch::default();
    ar.noise(index(0), 0, &[0, 1, 2, 2], 3, &mut noised);
    assert_eq!((noised.positions, noised.targets), (vec![0, 1], vec![1, 2]));
    assert_eq!(
        [0..4, 0..1, 0..0, 1..4, 3..4].map(|scored| ar.predicted(&scored)),
        [3, 0, 0, 3, 1]
    );
}

fn draw(estimator: Estimator) -> Draw {
    Draw {
        method: Method::of(estimator),
        random: Random::new(3, Stream::Evaluate),
        draw: 0,
        row: 0,
        offset: 0.25,
    }
}

fn index(step: u64) -> RowIndex {
    RowIndex {
        step,
        row: step,
        index: 0,
        batch: 1,
    }
}

/// E over u of weight · loss by the midpoint rule.
fn mean(mdlm: &Mdlm, loss: &dyn Fn(f64) -> f64) -> f64 {
    let points = 100_000;
    let of = |i: i32| {
        let level: NoiseLevel = mdlm.level_of_training((f64::from(i) + 0.5) / f64::from(points));
        level.weight * loss(level.move_chance)
    };
    (0..points).map(of).sum::<f64>() / f64::from(points)
}

#[test]
fn distributions_of_times_have_the_same_expectation() {
    let truth = Distribution::random(3, 3, 1);
    let loss = masked_loss(&truth, &truth);
    let with = |noise, times, weighting| {
        let settings = MdlmObjective {
            noise,
            weighting,
            times,
            ..MdlmObjective::default()
        };
        mean(&Mdlm::new(&settings, 3, 4, 5), &loss)
    };
    let bell = Bell {
        center: 0.5,
        scale: 0.15,
    };
    for noise in NOISES {
        let uniform = with(noise, Times::Uniform, Weighting::Elbo);
        for times in [Times::Importance, Times::ChangeOfVariables, Times::Bell(bell)] {
            let found = with(noise, times, Weighting::Elbo);
            assert!(
                (found - uniform).abs() < 2e-4 * uniform,
                "{noise:?} {times:?}: {found} {uniform}"
            );
        }
    }
    // A clipped distribution has the part of the integral between its limits; two parts make the whole.
    let clipped = |low, high| with(NOISES[0], Times::Clipped(Clipped { low, high }), Weighting::Elbo);
    let ends = 0.999e-3;
    let whole = clipped(ends, 0.999);
    assert!((clipped(ends, 0.4) + clipped(0.4, 0.999) - whole).abs() < 1e-6 * whole);
    assert!((whole - with(NOISES[0], Times::Uniform, Weighting::Elbo)).abs() < 1e-4 * whole);
    // Under importance sampling every masked token weighs the same.
    let settings = MdlmObjective {
        times: Times::Importance,
        ..MdlmObjective::default()
    };
    let importance = Mdlm::new(&settings, 3, 4, 5);
    let weights = [0.0, 0.3, 0.999].map(|u| importance.level_of_training(u).weight);
    assert!(
        weights
            .iter()
            .all(|weight| (weight - weights[0]).abs() < 1e-9 * weights[0]),
        "{weights:?}"
    );
    // The authors' factor is log 0.001: 6.908; here it is that of the range of move chances, over 1 − ε′.
    assert!(
        (weights[0] * (1.0 - 1e-3) - (1e3_f64).ln()).abs() < 1e-3,
        "{weights:?}"
    );
    let plain = with(NOISES[0], Times::Uniform, Weighting::CrossEntropy);
    assert!(plain > 0.0 && plain < whole, "{plain}");
}

#[test]
fn change_of_variables_feeds_the_network_its_uniform_number() {
    let settings = MdlmObjective {
        times: Times::ChangeOfVariables,
        time_conditioning: true,
        ..MdlmObjective::default()
    };
    let mdlm = Mdlm::new(&settings, 3, 4, 5);
    for u in [0.0, 0.25, 0.9] {
        let level = mdlm.level_of_training(u);
        let input = mdlm.masking.input(level).unwrap();
        assert!((input - u).abs() < 1e-12, "{u}: {input}");
    }
    // The sampler feeds it likewise: 1 at the noisy end, and never outside of [0, 1].
    let posterior = mdlm.posterior().unwrap();
    assert!((posterior.sigma(0, 10) - 1.0).abs() < 1e-9);
    assert!((0..=10).all(|i| (0.0..=1.0).contains(&posterior.sigma(i, 10))));
}

#[test]
fn mlm_replaces_as_bert_does() {
    let mlm = Mlm::new(&MlmObjective::default(), 2, 5, 5);
    let x = [0_u32, 1, 3, 4, 0, 1, 3, 4];
    let (mut masked, mut kept, mut random, mut chosen) = (0.0, 0.0, 0.0, 0.0);
    let rows = 20_000;
    for step in 0..rows {
        let mut noised = NoisedBatch::default();
        mlm.noise(index(step), 0, &x, 8, &mut noised);
        assert!(
            noised
                .weights
                .iter()
                .all(|&weight| (weight - 1.0 / 0.15).abs() < 1e-5)
        );
        for (&l, &target) in noised.positions.iter().zip(&noised.targets) {
            let seen = noised.tokens[l as usize];
            assert_eq!(target, x[l as usize]);
            chosen += 1.0;
            if seen == 2 {
                masked += 1.0;
            } else if seen == target {
                kept += 1.0;
            } else {
                random += 1.0;
            }
        }
        let others = (0..8_u32).filter(|l| !noised.positions.contains(l));
        others.for_each(|l| assert_eq!(noised.tokens[l as usize], x[l as usize]));
    }
    // A random token is the own one in a quarter of the cases: 4 tokens are not the mask. 160,000 draws: four standard
    // errors of a share of 0.15 are 0.0036.
    let all = rows as f64 * 8.0;
    let near =
        |found: f64, right: f64| assert!((found / all - right).abs() < 0.0036, "{} {right}", found / all);
    near(chosen, 0.15);
    near(masked, 0.15 * 0.8);
    near(kept, 0.15 * 0.125);
    near(random, 0.15 * 0.075);
}

#[test]
fn pseudo_likelihood_masks_one_position_a_pass_and_any_order_is_a_bound() {
    let truth = Distribution::random(3, 3, 7);
    let mlm = Mlm::new(&MlmObjective::default(), 3, 4, 5);
    let method = Method::of(Estimator::Pseudo);
    assert_eq!(
        [3, 2, 0].map(|valid| mlm.passes_of_bound(method, &(0..valid))),
        [3, 2, 1].map(Passes::fixed)
    );
    let mut noised = NoisedBatch::default();
    for pass in 0..3 {
        mlm.noise_of_bound(&draw(Estimator::Pseudo), pass, &[0, 1, 2], &(0..3), &mut noised);
    }
    assert_eq!(noised.tokens, [3, 1, 2, 0, 3, 2, 0, 1, 3]);
    assert_eq!((noised.positions, noised.targets), (vec![0, 4, 8], vec![0, 1, 2]));
    // Σ_k E[Σ −log p | k masked] / k over the exact posterior is the entropy: every order is the chain rule.
    let mut bound = 0.0;
    for (row, probability) in truth.probabilities.iter().enumerate() {
        let x = truth.row(row);
        for count in 1..=3_usize {
            let sets: Vec<u32> = (0..8_u32)
                .filter(|set| set.count_ones() as usize == count)
                .collect();
            for set in &sets {
                let z: Vec<u32> = (0..3).map(|l| if set >> l & 1 == 1 { 3 } else { x[l] }).collect();
                for l in (0..3).filter(|l| set >> l & 1 == 1) {
                    let weight = weight_of_count(3, count) / 3.0 / sets.len() as f64;
                    bound -= probability * weight * truth.posterior(&z, l)[x[l] as usize].ln();
                }
            }
        }
    }
    assert!((bound - truth.entropy()).abs() < 1e-12, "{bound}");
}

#[test]
fn estimators_that_do_not_fit_are_refused_with_one_that_does() {
    let objective =
        |value: serde_json::Value| -> manifest::Objective { serde_json::from_value(value).unwrap() };
    let refused = |objective: &manifest::Objective, method: Method| {
        let error = method.check(objective).unwrap_err();
        format!("{error}: {}", error.hint_text().unwrap_or_default())
    };
    let ar = objective(serde_json::json!({ "kind": "ar" }));
    assert!(refused(&ar, Method::default()).contains("use the estimator `exact`"));
    let d3pm = objective(serde_json::json!({ "kind": "d3pm", "steps": 50 }));
    assert!(Method::in_steps(7).check(&d3pm).is_ok());
    assert!(refused(&d3pm, Method::default()).contains("set `\"steps\": 50`"));
    let mlm = objective(serde_json::json!({ "kind": "mlm" }));
    assert!(refused(&mlm, Method::default()).contains("`pseudo` or `count`"));
    let sedd = objective(serde_json::json!({ "kind": "sedd" }));
    assert!(refused(&sedd, Method::of(Estimator::Count)).contains("use the estimator `time`"));
    let mdlm = objective(serde_json::json!({ "kind": "mdlm" }));
    let published = Method {
        ends: BoundEnds::Published,
        ..Method::of(Estimator::Count)
    };
    assert!(refused(&mdlm, published).contains("a mean over times"));
    let published = Method {
        ends: BoundEnds::Published,
        ..Method::in_steps(9)
    };
    let noise = serde_json::json!({ "kind": "cosine" });
    let cosine = objective(serde_json::json!({ "kind": "d3pm", "noise": noise }));
    assert!(refused(&cosine, published).contains("log-linear noise"));
    assert!(refused(&sedd, published).contains("no `sedd` in discrete time"));
    assert!(published.check(&mdlm).is_ok());
    let in_steps = Method {
        steps: Some(4),
        ..Method::of(Estimator::Count)
    };
    assert!(refused(&mdlm, in_steps).contains("leave `steps` out"));
    for (objective, method) in [
        (&ar, Method::of(Estimator::Exact)),
        (&d3pm, Method::in_steps(50)),
        (&mlm, Method::of(Estimator::Count)),
        (&sedd, Method::of(Estimator::Time)),
    ] {
        assert_eq!(build(objective, 3, 4, 5).method_of_validation(), method);
    }
    for objective in manifest::Objective::every() {
        let method = build(&objective, 3, 4, 5).method_of_validation();
        assert!(method.check(&objective).is_ok(), "{objective:?}, {method:?}");
    }
}

#[test]
fn d3pm_predicts_the_clean_row_in_its_second_pass() {
    let d3pm = d3pm(10, NOISES[0]);
    assert_eq!(d3pm.passes(), 2);
    let x = [0, 1, 2, 1];
    let mut clean = NoisedBatch::default();
    d3pm.noise(index(3), 1, &x, 3, &mut clean);
    assert_eq!(clean.tokens, x);
    assert_eq!(
        (&clean.positions[..], &clean.targets[..]),
        (&[0, 1, 2][..], &x[..3])
    );
    assert_eq!(clean.sigma, [0.0]);
    assert!(
        clean
            .constants
            .iter()
            .all(|constants| *constants == [1.0, 0.0, 0.0])
    );
    let mut noised = NoisedBatch::default();
    (0..200).for_each(|step| d3pm.noise(index(step), 0, &x, 3, &mut noised));
    assert_eq!(noised.constants.len(), noised.positions.len());
    assert!(noised.weights.iter().all(|&weight| weight == 10.0));
    assert!(
        noised
            .positions
            .iter()
            .all(|&l| noised.tokens[l as usize] == 3 && l % 4 < 3)
    );
    // MDLM without carry-over has the second pass, too; without zero masking alone it has one.
    let of = |zero_masking, carry_over| {
        let settings = MdlmObjective {
            steps: Some(10),
            zero_masking,
            carry_over,
            ..MdlmObjective::default()
        };
        let objective = build(&manifest::Objective::Mdlm(settings), 3, 4, 5);
        (objective.passes(), objective.support().includes_mask)
    };
    assert_eq!(
        [of(true, true), of(true, false), of(false, true), of(false, false)],
        [(1, false), (2, false), (1, true), (2, true)]
    );
}

#[test]
fn given_noise_is_scored_as_drawn_noise() {
    for value in [
        serde_json::json!({ "kind": "mdlm" }),
        serde_json::json!({ "kind": "mdlm", "steps": 8 }),
        serde_json::json!({ "kind": "sedd" }),
        serde_json::json!({ "kind": "d3pm", "steps": 8 }),
    ] {
        let objective: manifest::Objective = serde_json::from_value(value.clone()).unwrap();
        let objective = build(&objective, 3, 4, 5);
        let given = Given {
            t: 0.5,
            x0: &[0, 1, 2, 1],
            xt: &[0, 3, 2, 3],
        };
        for pass in 0..objective.passes() {
            let mut noised = NoisedBatch::default();
            objective.given(&given, pass, &mut noised).unwrap();
            let clean = pass == 1;
            assert_eq!(
                noised.positions,
                if clean { vec![0, 1, 2, 3] } else { vec![1, 3] },
                "{value}"
            );
            assert_eq!(noised.tokens, if clean { given.x0 } else { given.xt }, "{value}");
            let expected_weight = match (&value["kind"], clean) {
                (_, true) => 1.0,
                (kind, _) if kind == "d3pm" => 8.0,
                // σ′ = (1 − ε) / α; 1/t of the log-linear schedule.
                (kind, _) if kind == "sedd" => Noise::log_linear(1e-3).sigma_rate(0.5),
                _ => 2.0,
            };
            let weight = f64::from(noised.weights[0]);
            assert!(
                (weight - expected_weight).abs() < 1e-6 * expected_weight,
                "{value}: {weight}"
            );
        }
    }
}
