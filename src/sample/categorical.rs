//! Categorical draws in 64 bits.
//!
//! A draw inverts the cumulative distribution: with `c_v` the sum of `exp((logit − max) / temperature)` over the tokens up
//! to v, the token is the first whose `c_v` exceeds U · c, c the total and U uniform on multiples of 2^−53. A token's probability is then off by
//! at most 2^−53 and the rounding of f64 sums (V · 2^−53 relative). Gumbel-max draws in f32, by contrast, never see
//! uniforms above 1 − 2^−24 and so cut the tail off, which silently lowers the temperature (arXiv 2409.02908).

use crate::error::{Error, Result};
use crate::kernels::Alphabet;

/// Draws a token from logits (V) at `u` on [0, 1). Ids outside the alphabet have probability zero.
/// `scratch` keeps its memory from draw to draw.
///
/// # Errors
/// No token has a finite logit, or one is not a number.
pub fn draw(
    logits: &[f32],
    alphabet: Alphabet,
    temperature: f64,
    u: f64,
    scratch: &mut Vec<f64>,
) -> Result<u32> {
    let size = logits.len().min(alphabet.size as usize);
    let logits = &logits[..size];
    let excluded = alphabet.excluded() as usize;
    let mut top = f32::NEG_INFINITY;
    for (v, &logit) in logits.iter().enumerate() {
        if v != excluded && (logit > top || logit.is_nan()) {
            top = logit;
        }
    }
    if !top.is_finite() {
        return Err(Error::input("the model's logits are not finite")
            .hint("its weights are damaged, or its training diverged"));
    }
    let mut total = 0.0;
    scratch.clear();
    scratch.extend(logits.iter().enumerate().map(|(v, &logit)| {
        if v != excluded {
            // An f32 difference would round the exponent; a hot temperature would show it.
            total += ((f64::from(logit) - f64::from(top)) / temperature).exp();
        }
        total
    }));
    // u ≤ 1 − 2^−53, so u · total rounds to less than the total, and the last cumulative sum exceeds it. A token of
    // probability zero repeats its predecessor's sum, so it is never the first to exceed anything.
    let target = u * total;
    Ok(scratch.partition_point(|&sum| sum <= target) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Random, Stream, unit};
    use proptest::prelude::*;

    fn alphabet(mask: u32, size: u32) -> Alphabet {
        Alphabet::without_mask(mask, size)
    }

    fn at(logits: &[f32], alphabet: Alphabet, u: f64) -> u32 {
        draw(logits, alphabet, 1.0, u, &mut Vec::new()).unwrap()
    }

    #[test]
    fn the_tail_is_there_and_as_thick_as_it_should_be() {
        // One token of probability nearly 1, then one of 1e-12: 2,000 times below what 24 bits resolve.
        let logits = [0.0, (1e-12_f64).ln() as f32, 5.0];
        let alphabet = alphabet(2, 3);
        let edge = 1.0 / (1.0 + f64::from(logits[1]).exp());
        assert_eq!(at(&logits, alphabet, edge - 1e-15), 0);
        assert_eq!(at(&logits, alphabet, edge + 1e-15), 1);
        assert_eq!(at(&logits, alphabet, unit(u64::MAX)), 1);
        assert_eq!(at(&logits, alphabet, 0.0), 0);
        // Number of multiples of 2^-53 that draw it, against its probability.
        let share = (1.0 - edge) / 1e-12;
        assert!((share - 1.0).abs() < 1e-3, "{share}");
    }

    #[test]
    fn many_rare_tokens_together_are_drawn_as_often_as_they_weigh() {
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
                draw(&logits, alphabet(3_001, 3_002), 1.0, u, &mut scratch).unwrap() > 0
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
                let token = draw(&logits, alphabet(2, 5), temperature, u, &mut Vec::new()).unwrap();
                counts[token as usize] += 1;
            }
            assert_eq!(
                (counts[2], counts[5]),
                (0, 0),
                "the mask and ids beyond the alphabet"
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

    #[test]
    fn logits_that_are_no_numbers_are_an_error() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(draw(&[bad, bad], alphabet(2, 2), 1.0, 0.5, &mut Vec::new()).is_err());
        }
        assert!(draw(&[0.0, f32::NAN, 1.0], alphabet(3, 3), 1.0, 0.5, &mut Vec::new()).is_err());
        assert_eq!(at(&[f32::NEG_INFINITY, 0.0], alphabet(2, 2), 0.0), 1);
    }

    proptest! {
        #[test]
        fn a_draw_is_always_a_token_of_the_alphabet(
            logits in prop::collection::vec(-50_f32..50.0, 2..40), bits: u64, mask: prop::sample::Index
        ) {
            let mask = mask.index(logits.len()) as u32;
            let token = at(&logits, alphabet(mask, logits.len() as u32), unit(bits));
            prop_assert!(token != mask && (token as usize) < logits.len());
        }
    }
}
