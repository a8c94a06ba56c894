//! The categorical draw on the CPU.

use super::{Confidence, Draw, Truncation, not_finite};
use crate::error::Result;
use crate::kernels::VocabSupport;

/// Draws a token from logits (V) at `u` on [0, 1). Ids outside the support have probability zero; with
/// `confidence` the draw has the two largest probabilities and the entropy. `scratch` keeps its memory from draw to draw.
///
/// # Errors
/// No token has a finite logit, or one is not a number.
pub fn draw(
    logits: &[f32],
    support: VocabSupport,
    temperature: f64,
    u: f64,
    confidence: bool,
    scratch: &mut Vec<f64>,
) -> Result<Draw> {
    draw_truncated(
        logits,
        support,
        temperature,
        Truncation::NONE,
        u,
        confidence,
        scratch,
    )
}

/// The same from the tokens that a truncation keeps. The draw's numbers are those of the whole distribution. At temperature 0
/// it is the likeliest token, the first of equal ones, with its numbers at temperature 1.
///
/// # Errors
/// No token has a finite logit, or one is not a number.
pub fn draw_truncated(
    logits: &[f32],
    support: VocabSupport,
    temperature: f64,
    truncation: Truncation,
    u: f64,
    confidence: bool,
    scratch: &mut Vec<f64>,
) -> Result<Draw> {
    let is_greedy = temperature == 0.0;
    let temperature = if is_greedy { 1.0 } else { temperature };
    let mask = support.mask as usize;
    let mask_logit = logits
        .get(mask)
        .map_or(f64::NEG_INFINITY, |&logit| f64::from(logit));
    let size = logits.len().min(support.size as usize);
    let logits = &logits[..size];
    let excluded = support.excluded() as usize;
    let (mut top, mut likeliest) = (f32::NEG_INFINITY, 0);
    for (v, &logit) in logits.iter().enumerate() {
        if v != excluded && (logit > top || logit.is_nan()) {
            (top, likeliest) = (logit, v);
        }
    }
    if !top.is_finite() {
        return Err(not_finite());
    }
    // An f32 difference would round the exponent; a hot temperature would show it.
    let exponent = |logit: f32| (f64::from(logit) - f64::from(top)) / temperature;
    let weight = |v: usize| {
        if v == excluded {
            0.0
        } else {
            exponent(logits[v]).exp()
        }
    };
    let mut total = 0.0;
    scratch.clear();
    scratch.extend((0..size).map(|v| {
        total += weight(v);
        total
    }));
    let token = if is_greedy {
        likeliest
    } else if truncation == Truncation::NONE {
        // u ≤ 1 − 2^−53, so u · total rounds to less than the total, and the last cumulative sum exceeds it. A token of
        // probability zero repeats its predecessor's sum, so it is never the first to exceed anything.
        let target = u * total;
        scratch.partition_point(|&sum| sum <= target)
    } else {
        scratch.clear();
        scratch.extend((0..size).map(weight));
        truncation.apply(scratch);
        at(scratch, u)
    };
    let log_total = total.ln();
    Ok(Draw {
        token: token as u32,
        log_probability: exponent(logits[token]) - log_total,
        log_sum_exp: f64::from(top) / temperature + log_total,
        mask_logit: mask_logit / temperature,
        confidence: confidence.then(|| {
            let exponents = logits.iter().enumerate().filter(|&(v, _)| v != excluded);
            confidence_of(exponents.map(|(_, &logit)| exponent(logit)), total)
        }),
    })
}

/// The first token whose cumulative weight exceeds u times all of them; the weights become cumulative.
fn at(weights: &mut [f64], u: f64) -> usize {
    let mut total = 0.0;
    for weight in &mut *weights {
        total += *weight;
        *weight = total;
    }
    let target = u * total;
    weights.partition_point(|&sum| sum <= target)
}

/// The confidence of the distribution with weights exp(x) that sum to `total`, for these x.
fn confidence_of(exponents: impl Iterator<Item = f64>, total: f64) -> Confidence {
    let (mut largest, mut weighted) = ([0.0_f64; 2], 0.0);
    for exponent in exponents {
        let weight = exponent.exp();
        // 0 ln 0 is 0.
        if weight > 0.0 {
            weighted += weight * exponent;
        }
        if weight > largest[0] {
            largest = [weight, largest[0]];
        } else if weight > largest[1] {
            largest[1] = weight;
        }
    }
    Confidence {
        largest: largest.map(|weight| weight / total),
        entropy: total.ln() - weighted / total,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Random, Stream, unit};
    use proptest::prelude::*;

    fn support(mask: u32, size: u32) -> VocabSupport {
        VocabSupport::without_mask(mask, size)
    }

    fn at(logits: &[f32], support: VocabSupport, u: f64) -> u32 {
        draw(logits, support, 1.0, u, false, &mut Vec::new())
            .unwrap()
            .token
    }

    #[test]
    fn tail_has_its_probability() {
        // One token of probability nearly 1, then one of 1e-12: 2,000 times below what 24 bits resolve.
        let logits = [0.0, (1e-12_f64).ln() as f32, 5.0];
        let support = support(2, 3);
        let edge = 1.0 / (1.0 + f64::from(logits[1]).exp());
        assert_eq!(at(&logits, support, edge - 1e-15), 0);
        assert_eq!(at(&logits, support, edge + 1e-15), 1);
        assert_eq!(at(&logits, support, unit(u64::MAX)), 1);
        assert_eq!(at(&logits, support, 0.0), 0);
        // Number of multiples of 2^-53 that draw it, against its probability.
        let share = (1.0 - edge) / 1e-12;
        assert!((share - 1.0).abs() < 1e-3, "{share}");
    }

    #[test]
    fn rare_tokens_together_are_drawn_with_their_probability() {
        // 3,000 tokens of 1e-6 of the favourite each: 0.3% together. A draw with 24-bit uniforms and a Gumbel maximum
        // in f32 would miss part of them.
        let mut logits = vec![(1e-6_f64).ln() as f32; 3_001];
        logits[0] = 0.0;
        let random = Random::new(1, Stream::Sample);
        let mut scratch = Vec::new();
        let draws = 20_000;
        let rare = (0..draws)
            .filter(|&i| {
                let u = random.uniform(0, 0, i);
                let support = support(3_001, 3_002);
                draw(&logits, support, 1.0, u, false, &mut scratch).unwrap().token > 0
            })
            .count() as f64;
        let expected = f64::from(draws) * 0.003 / 1.003;
        // Poisson, mean 59.8: five standard deviations.
        assert!(
            (rare - expected).abs() < 5.0 * expected.sqrt(),
            "{rare} against {expected}"
        );
    }

    #[test]
    fn frequencies_follow_the_temperature() {
        let logits = [0.0, 1.0, 9.0, -1.0, 0.5, 9.0];
        for temperature in [0.5, 1.0, 2.0] {
            let weights: Vec<f64> = logits
                .iter()
                .enumerate()
                .map(|(v, &x)| {
                    if v == 2 || v == 5 {
                        0.0
                    } else {
                        (f64::from(x) / temperature).exp()
                    }
                })
                .collect();
            let total: f64 = weights.iter().sum();
            let mut counts = [0_u32; 6];
            let random = Random::new(2, Stream::Sample);
            for i in 0..20_000 {
                let u = random.uniform(1, 0, i);
                let draw = draw(&logits, support(2, 5), temperature, u, false, &mut Vec::new()).unwrap();
                counts[draw.token as usize] += 1;
            }
            assert_eq!(
                (counts[2], counts[5]),
                (0, 0),
                "the mask and ids beyond the support"
            );
            let chi: f64 = [0, 1, 3, 4]
                .iter()
                .map(|&v| {
                    let expected = 20_000.0 * weights[v] / total;
                    (f64::from(counts[v]) - expected).powi(2) / expected
                })
                .sum();
            // 3 degrees of freedom, 1e-4 quantile 21.1.
            assert!(chi < 21.1, "temperature {temperature}: chi-square {chi}");
        }
    }

    /// The tokens that a truncation keeps of tokens with these weights, and each one's share of 30,000 draws.
    fn shares(weights: &[f64], truncation: Truncation) -> Vec<f64> {
        let logits: Vec<f32> = weights.iter().map(|weight| weight.ln() as f32).collect();
        let support = support(weights.len() as u32, weights.len() as u32 + 1);
        let random = Random::new(9, Stream::Sample);
        let mut counts = vec![0_u32; weights.len()];
        for i in 0..30_000 {
            let u = random.uniform(1, 0, i);
            let found = draw_truncated(&logits, support, 1.0, truncation, u, false, &mut Vec::new()).unwrap();
            counts[found.token as usize] += 1;
            let p = weights[found.token as usize] / weights.iter().sum::<f64>();
            assert!(
                (found.log_probability - p.ln()).abs() < 1e-6,
                "of the whole distribution"
            );
        }
        counts.iter().map(|&n| f64::from(n) / 30_000.0).collect()
    }

    #[test]
    fn truncations_keep_the_tokens_that_they_define_and_their_ratios() {
        let weights = [1.0, 8.0, 2.0, 4.0, 1.0];
        let kept = |truncation| shares(&weights, truncation);
        // Five standard errors of a binomial share.
        let near = |found: &[f64], expected: &[f64]| {
            for (found, expected) in found.iter().zip(expected) {
                let error = (expected * (1.0 - expected) / 30_000.0).sqrt();
                assert!(
                    (found - expected).abs() <= 5.0 * error,
                    "{found} is not {expected}"
                );
            }
        };
        let of = |weights: [f64; 5]| weights.map(|weight| weight / weights.iter().sum::<f64>());
        near(&kept(Truncation::NONE), &of(weights));
        let top_k = |k| Truncation {
            top_k: Some(k),
            ..Truncation::NONE
        };
        near(&kept(top_k(2)), &of([0.0, 8.0, 0.0, 4.0, 0.0]));
        near(&kept(top_k(9)), &of(weights));
        // Of two equal tokens the first is kept.
        near(&kept(top_k(4)), &of([1.0, 8.0, 2.0, 4.0, 0.0]));
        let top_p = |p| Truncation {
            top_p: p,
            ..Truncation::NONE
        };
        near(&kept(top_p(1e-9)), &of([0.0, 8.0, 0.0, 0.0, 0.0]));
        // 8/16 is a half; a little more needs the next.
        near(&kept(top_p(0.499)), &of([0.0, 8.0, 0.0, 0.0, 0.0]));
        near(&kept(top_p(0.501)), &of([0.0, 8.0, 0.0, 4.0, 0.0]));
        let min_p = |p| Truncation {
            min_p: p,
            ..Truncation::NONE
        };
        near(&kept(min_p(0.24)), &of([0.0, 8.0, 2.0, 4.0, 0.0]));
        near(&kept(min_p(1.0)), &of([0.0, 8.0, 0.0, 0.0, 0.0]));
        // Top-k comes first, and top-p takes its share of what is left: 8 of 12 is more than 0.6.
        let both = Truncation {
            top_k: Some(2),
            top_p: 0.6,
            min_p: 0.0,
        };
        near(&kept(both), &of([0.0, 8.0, 0.0, 0.0, 0.0]));
    }

    #[test]
    fn temperature_zero_is_the_first_of_the_likeliest_with_its_numbers_at_one() {
        let logits = [0.0, 2.0, 9.0, 2.0];
        for u in [0.0, 0.999] {
            let found = draw(&logits, support(2, 4), 0.0, u, true, &mut Vec::new()).unwrap();
            let warm = draw(&logits, support(2, 4), 1.0, 0.2, true, &mut Vec::new()).unwrap();
            assert_eq!(found, warm);
            assert_eq!(found.token, 1);
        }
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(draw(&[bad, bad], support(2, 2), 1.0, 0.5, false, &mut Vec::new()).is_err());
        }
        assert!(
            draw(
                &[0.0, f32::NAN, 1.0],
                support(3, 3),
                1.0,
                0.5,
                false,
                &mut Vec::new()
            )
            .is_err()
        );
        assert_eq!(at(&[f32::NEG_INFINITY, 0.0], support(2, 2), 0.0), 1);
    }

    #[test]
    fn reported_numbers_are_those_of_the_distribution() {
        // Weights 1, 2 and 4 at temperature 1; the mask weighs 3.
        let logits = [1.0_f64, 2.0, 3.0, 4.0].map(|x| x.ln() as f32);
        let drawn = |temperature: f64, u: f64| {
            draw(&logits, support(2, 4), temperature, u, true, &mut Vec::new()).unwrap()
        };
        let found = drawn(1.0, 0.2);
        let p = [1.0_f64 / 7.0, 2.0 / 7.0, 4.0 / 7.0];
        let entropy = -p.iter().map(|p| p * p.ln()).sum::<f64>();
        let confidence = found.confidence.unwrap();
        // Logits are rounded to f32.
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} is not {b}");
        assert_eq!(found.token, 1);
        near(found.log_probability, p[1].ln());
        near(found.log_sum_exp, 7.0_f64.ln());
        near(found.mask_logit, 3.0_f64.ln());
        near(found.mask_probability(), 0.3);
        near(confidence.largest[0], p[2]);
        near(confidence.largest[1], p[1]);
        near(confidence.entropy, entropy);
        // At half the temperature weights are squared.
        let found = drawn(0.5, 0.99);
        assert_eq!(found.token, 3);
        near(found.log_probability, (16.0_f64 / 21.0).ln());
        near(found.log_sum_exp, 21.0_f64.ln());
        near(found.mask_logit, 9.0_f64.ln());
        // Of one token there is no second, and a token of probability zero adds nothing.
        let logits = [f32::NEG_INFINITY, 3.0];
        let found = draw(&logits, support(2, 2), 1.0, 0.5, true, &mut Vec::new()).unwrap();
        let confidence = Confidence {
            largest: [1.0, 0.0],
            entropy: 0.0,
        };
        assert_eq!((found.token, found.confidence), (1, Some(confidence)));
        assert_eq!(
            (found.log_probability, found.mask_logit),
            (0.0, f64::NEG_INFINITY)
        );
    }

    proptest! {
        /// A truncation that keeps everything draws what the plain draw does, and none draws outside the support.
        #[test]
        fn truncation_that_keeps_all_changes_no_draw(
            logits in prop::collection::vec(-5_f32..5.0, 2..40), bits: u64, mask: prop::sample::Index,
            k in 1_u32..50, p in 0.01_f64..1.0,
        ) {
            let mask = mask.index(logits.len()) as u32;
            let support = support(mask, logits.len() as u32);
            let with = |truncation| {
                draw_truncated(&logits, support, 0.7, truncation, unit(bits), true, &mut Vec::new()).unwrap()
            };
            let all = Truncation { top_k: Some(logits.len() as u32), top_p: 1.0, min_p: 0.0 };
            prop_assert_eq!(with(all), with(Truncation::NONE));
            let token = with(Truncation { top_k: Some(k), top_p: p, min_p: p / 2.0 }).token;
            prop_assert!(token != mask && (token as usize) < logits.len());
        }

        #[test]
        fn draw_is_a_token_of_the_support(
            logits in prop::collection::vec(-50_f32..50.0, 2..40), bits: u64, mask: prop::sample::Index
        ) {
            let mask = mask.index(logits.len()) as u32;
            let token = at(&logits, support(mask, logits.len() as u32), unit(bits));
            prop_assert!(token != mask && (token as usize) < logits.len());
        }
    }
}
