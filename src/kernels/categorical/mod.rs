//! The categorical draw: a token from the softmax of a row of logits, with the numbers that a sampler bases its
//! decision on.
//!
//! For logits l (V), a temperature τ, the tokens S that may be drawn ([`VocabSupport`](super::VocabSupport)) and u
//! uniform on [0, 1), with z = l / τ:
//!
//! ```text
//! log-sum-exp        lse = log Σ_{v ∈ S} exp z_v
//! probability        p_v = exp(z_v − lse), v ∈ S
//! token              the first v of S with Σ_{w ≤ v} p_w > u
//! log-probability    z_token − lse
//! mask logit         z_mask, also where the mask is not in S
//! largest two        of the p_v
//! entropy            −Σ_{v ∈ S} p_v log p_v = lse − Σ_{v ∈ S} p_v z_v, in nats
//! ```
//!
//! [`Truncation`] leaves tokens out of the draw, and not out of the numbers: these say what the model holds likely.
//!
//! The weights exp((l_v − max l) / τ) and all sums are in f64. The error of a token's probability is then at most
//! 2^−53, the distance of two uniforms, plus the rounding of the sums (V · 2^−53 relative). Gumbel-max in f32, by
//! contrast, never draws uniforms above 1 − 2^−24 and so cuts the tail off, which silently lowers the temperature
//! (arXiv 2409.02908).
//!
//! A draw has no gradient. The two forms differ only in the order of their sums: [`cpu`] sums from the first token to
//! the last; in [`cuda`] each thread sums a run of tokens, and the runs are then added in order.

pub mod cpu;
pub mod cuda;

use crate::error::Error;

/// Which tokens of the support may be drawn. The settings apply one after the other, in this order, each to the
/// distribution that those before it have left; the likeliest token is always kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Truncation {
    /// The k likeliest; of equal ones, those with the smallest ids (arXiv 1805.04833).
    pub top_k: Option<u32>,
    /// The likeliest, as few as have this probability together (nucleus sampling, arXiv 1904.09751); 1 keeps all.
    ///
    /// DIFFERENCE: the code of bd3lms and ReMDM keeps those whose cumulative probability is at most p, one token less.
    pub top_p: f64,
    /// Those with at least this share of the likeliest one's probability (arXiv 2407.01082); 0 keeps all.
    pub min_p: f64,
}

impl Truncation {
    /// Every token may be drawn.
    pub const NONE: Self = Self {
        top_k: None,
        top_p: 1.0,
        min_p: 0.0,
    };

    /// Sets the weights (V) of the tokens to 0 that may not be drawn. One weight at least is above 0.
    fn apply(self, weights: &mut [f64]) {
        if self.top_k.is_some() || self.top_p < 1.0 {
            let mut order: Vec<u32> = (0..weights.len() as u32)
                .filter(|&v| weights[v as usize] > 0.0)
                .collect();
            let by_weight = |&a: &u32, &b: &u32| {
                let (a_weight, b_weight) = (weights[a as usize], weights[b as usize]);
                b_weight.total_cmp(&a_weight).then(a.cmp(&b))
            };
            if let Some(k) = self.top_k.map(|k| (k as usize).max(1))
                && k < order.len()
            {
                order.select_nth_unstable_by(k - 1, by_weight);
                for v in order.split_off(k) {
                    weights[v as usize] = 0.0;
                }
            }
            if self.top_p < 1.0 {
                let by_weight = |&a: &u32, &b: &u32| {
                    let (a_weight, b_weight) = (weights[a as usize], weights[b as usize]);
                    b_weight.total_cmp(&a_weight).then(a.cmp(&b))
                };
                order.sort_unstable_by(by_weight);
                let wanted = self.top_p * order.iter().map(|&v| weights[v as usize]).sum::<f64>();
                let mut sum = 0.0;
                let kept = order.iter().take_while(|&&v| {
                    let is_wanted = sum < wanted;
                    sum += weights[v as usize];
                    is_wanted
                });
                let kept = kept.count().max(1);
                for v in order.split_off(kept) {
                    weights[v as usize] = 0.0;
                }
            }
        }
        if self.min_p > 0.0 {
            let least = self.min_p * weights.iter().copied().fold(0.0, f64::max);
            for weight in weights.iter_mut().filter(|weight| **weight < least) {
                *weight = 0.0;
            }
        }
    }
}

/// A drawn token and its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// The token.
    pub token: u32,
    /// log p of the token, in nats.
    pub log_probability: f64,
    /// log Σ exp(l_v / τ) over the tokens that may be drawn.
    pub log_sum_exp: f64,
    /// l_mask / τ; −∞ where the mask is beyond the logits.
    pub mask_logit: f64,
    /// Further numbers, where they were asked for.
    pub confidence: Option<Confidence>,
}

impl Draw {
    /// The probability of the mask in the softmax over the tokens that may be drawn and the mask, where it is not one of them:
    /// 1 / (1 + exp(lse − z_mask)).
    #[must_use]
    pub fn mask_probability(&self) -> f64 {
        1.0 / (1.0 + (self.log_sum_exp - self.mask_logit).exp())
    }
}

/// How sure a distribution is of its token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Confidence {
    /// The two largest probabilities, descending; the second is 0 where only one token may be drawn.
    pub largest: [f64; 2],
    /// The entropy, in nats.
    pub entropy: f64,
}

/// Logits were infinite or no numbers.
fn not_finite() -> Error {
    Error::input("the model's logits are not finite")
        .hint("its weights are damaged, or its training diverged")
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use dfdx::shapes::Const;

    use super::cuda::{Chain, Destination, Positions};
    use super::{Confidence, Draw, cpu};
    use crate::kernels::cuda::driver::DType;
    use crate::kernels::cuda::{Cuda, emulated::Emulated};
    use crate::kernels::testing::{noise, weight};
    use crate::kernels::{Embed as _, Tensors as _, VocabSupport};
    use crate::rng::{Random, Stream};

    const V: usize = 131;
    const D: usize = 16;
    const LENGTH: usize = 4;

    /// The draw by its definition, from logits in f64.
    fn expected(logits: &[f64], support: VocabSupport, temperature: f64, u: f64) -> Draw {
        let allowed: Vec<usize> = (0..support.size as usize)
            .filter(|&v| support.contains(v as u32))
            .collect();
        let z = |v: usize| logits[v] / temperature;
        let top = allowed.iter().map(|&v| z(v)).fold(f64::MIN, f64::max);
        let log_sum_exp = top + allowed.iter().map(|&v| (z(v) - top).exp()).sum::<f64>().ln();
        let p = |v: usize| (z(v) - log_sum_exp).exp();
        let mut sum = 0.0;
        let token = allowed.iter().copied().find(|&v| {
            sum += p(v);
            sum > u
        });
        let token = token.unwrap();
        let mut sorted: Vec<f64> = allowed.iter().map(|&v| p(v)).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        Draw {
            token: token as u32,
            log_probability: z(token) - log_sum_exp,
            log_sum_exp,
            mask_logit: z(support.mask as usize),
            confidence: Some(Confidence {
                largest: [sorted[0], sorted[1]],
                entropy: -sorted.iter().map(|p| p * p.ln()).sum::<f64>(),
            }),
        }
    }

    #[track_caller]
    fn agree(found: &Draw, right: &Draw, tolerance: f64) {
        let numbers = |draw: &Draw| {
            let confidence = draw.confidence.unwrap();
            let [first, second] = confidence.largest;
            [
                draw.log_probability,
                draw.log_sum_exp,
                draw.mask_logit,
                first,
                second,
                confidence.entropy,
            ]
        };
        assert_eq!(found.token, right.token);
        for (a, b) in numbers(found).into_iter().zip(numbers(right)) {
            assert!(
                (a - b).abs() <= tolerance * (1.0 + b.abs()),
                "{found:?}\n{right:?}"
            );
        }
    }

    const CASES: [(VocabSupport, f64); 3] = [
        (VocabSupport::without_mask(129, 130), 1.0),
        (VocabSupport::without_mask(0, 60), 0.3),
        (VocabSupport::with_mask(12, 130), 1.5),
    ];

    /// Both forms, on the very same logits.
    #[test]
    fn cpu_and_cuda_draw_the_same_tokens_with_the_same_numbers() {
        for (support, temperature) in CASES {
            let cuda = Cuda::new(Box::new(Emulated::default()), DType::F32);
            let w = weight::<_, (Const<V>, Const<D>)>(&cuda, 4.0, 1).unwrap();
            let b = weight::<_, (Const<V>,)>(&cuda, 1.0, 2).unwrap();
            // Row i of h picks column i of w: products of zeros and ones are exact, and so are the logits.
            let mut h = vec![0.0; D * D];
            for i in 0..D {
                h[i * D + i] = 1.0;
            }
            let random = Random::new(4, Stream::Sample);
            let uniforms: Vec<f64> = (0..D as u32).map(|i| random.uniform(0, 0, i)).collect();
            let into: Vec<Destination> = (0..D as u32)
                .map(|i| match i % 3 {
                    0 => Destination::Place(i),
                    1 => Destination::Report,
                    _ => Destination::Nowhere,
                })
                .collect();
            let chain = Chain::new(&cuda, &[7; D]);
            let positions = Positions {
                support,
                temperature,
                uniforms: &uniforms,
                into: &into,
            };
            let hidden = cuda.input((D, Const::<D>), &h).unwrap();
            let report = chain
                .draw(&cuda, &hidden, &w, &b, &positions, Some(true))
                .unwrap();
            let drawn = report.unwrap().read(&into).unwrap();
            let tokens = chain.tokens(&cuda).unwrap();
            let (mut weights, mut bias) = (vec![0.0; V * D], vec![0.0; V]);
            cuda.read(&w, &mut weights).unwrap();
            cuda.read(&b, &mut bias).unwrap();
            let mut distinct = std::collections::BTreeSet::new();
            for i in 0..D {
                let logits: Vec<f32> = (0..V).map(|v| weights[v * D + i] + bias[v]).collect();
                let on_cpu =
                    cpu::draw(&logits, support, temperature, uniforms[i], true, &mut Vec::new()).unwrap();
                let wide: Vec<f64> = logits.iter().map(|&x| f64::from(x)).collect();
                // Sums of 130 numbers in f64, in other orders.
                agree(
                    &on_cpu,
                    &expected(&wide, support, temperature, uniforms[i]),
                    1e-13,
                );
                match (into[i], drawn[i]) {
                    (Destination::Nowhere, None) => assert_eq!(tokens[i], 7),
                    (Destination::Place(_), Some(draw)) => {
                        agree(&draw, &on_cpu, 1e-13);
                        assert_eq!(tokens[i], draw.token);
                    }
                    (Destination::Report, Some(draw)) => {
                        agree(&draw, &on_cpu, 1e-13);
                        assert_eq!(tokens[i], 7, "reported, not written");
                    }
                    other => panic!("{other:?}"),
                }
                distinct.insert(on_cpu.token);
            }
            assert!(distinct.len() > 5, "{distinct:?}");
        }
    }

    #[test]
    fn cuda_draws_are_those_of_a_search_in_f64_and_reports_are_optional() {
        for (support, temperature) in CASES {
            let cuda = Cuda::new(Box::new(Emulated::default()), DType::F32);
            let w = weight::<_, (Const<V>, Const<D>)>(&cuda, 2.0, 1).unwrap();
            let b = weight::<_, (Const<V>,)>(&cuda, 1.0, 2).unwrap();
            let count = 40;
            let h = noise(count * D, 3);
            let random = Random::new(4, Stream::Sample);
            let uniforms: Vec<f64> = (0..count).map(|i| random.uniform(0, 0, i as u32)).collect();
            // Every third position is asked about, and not drawn.
            let into: Vec<Destination> = (0..count as u32)
                .map(|i| {
                    if i % 3 == 2 {
                        Destination::Nowhere
                    } else {
                        Destination::Place(i)
                    }
                })
                .collect();
            let positions = Positions {
                support,
                temperature,
                uniforms: &uniforms,
                into: &into,
            };
            let hidden = cuda.input((count, Const::<D>), &h).unwrap();
            let (mut weights, mut bias) = (vec![0.0; V * D], vec![0.0; V]);
            cuda.read(&w, &mut weights).unwrap();
            cuda.read(&b, &mut bias).unwrap();
            for request in [None, Some(false)] {
                let chain = Chain::new(&cuda, &[7; 40]);
                let report = chain.draw(&cuda, &hidden, &w, &b, &positions, request).unwrap();
                assert_eq!(report.is_some(), request.is_some());
                let reported = report.map(|report| report.read(&into).unwrap());
                let drawn = chain.tokens(&cuda).unwrap();
                for i in 0..count {
                    let logits: Vec<f64> = (0..V)
                        .map(|v| {
                            let products =
                                (0..D).map(|d| f64::from(h[i * D + d]) * f64::from(weights[v * D + d]));
                            products.sum::<f64>() + f64::from(bias[v])
                        })
                        .collect();
                    if i % 3 == 2 {
                        assert_eq!(drawn[i], 7);
                        continue;
                    }
                    let right = expected(&logits, support, temperature, uniforms[i]);
                    assert_eq!(drawn[i], right.token, "position {i}");
                    if let Some(reported) = &reported {
                        let draw = reported[i].unwrap();
                        assert_eq!((draw.token, draw.confidence), (right.token, None));
                        // Logits are f32 sums of 16 products.
                        let error = (draw.log_probability - right.log_probability).abs();
                        assert!(error < 1e-4, "{draw:?}\n{right:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn chain_picks_rows_and_writes_tokens() {
        let cuda = Cuda::new(Box::new(Emulated::default()), DType::Bf16);
        let tokens: Vec<u32> = (0..12).collect();
        let chain = Chain::new(&cuda, &tokens);
        let picked = chain.rows(&cuda, &[2, 0, 2], LENGTH).unwrap();
        let table: Vec<f32> = (0..16).map(|v| v as f32).collect();
        let table = cuda.param::<(Const<16>, Const<1>)>(&table).unwrap();
        let found = cuda.values(&cuda.embed(&table, &picked).unwrap()).unwrap();
        assert_eq!(found, [8., 9., 10., 11., 0., 1., 2., 3., 8., 9., 10., 11.]);

        chain.write(&cuda, &[1, 11], &[15, 14]).unwrap();
        let found = chain.tokens(&cuda).unwrap();
        assert_eq!(found, [0, 15, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14]);
        assert!(chain.write(&cuda, &[12], &[1]).is_err());
        assert!(chain.write(&cuda, &[1], &[]).is_err());
    }

    #[test]
    fn logits_that_are_not_finite_are_an_error_on_cuda() {
        let cuda = Cuda::new(Box::new(Emulated::default()), DType::Bf16);
        let w = weight::<_, (Const<V>, Const<D>)>(&cuda, 2.0, 1).unwrap();
        let b = weight::<_, (Const<V>,)>(&cuda, 1.0, 2).unwrap();
        let mut h = noise(2 * D, 3);
        h[D] = f32::NAN;
        let hidden = cuda.input((2, Const::<D>), &h).unwrap();
        for (into, request) in [
            ([Destination::Place(0), Destination::Place(1)], None),
            ([Destination::Report; 2], Some(true)),
        ] {
            let chain = Chain::new(&cuda, &[7; 12]);
            let positions = Positions {
                support: VocabSupport::without_mask(129, 130),
                temperature: 1.0,
                uniforms: &[0.5, 0.5],
                into: &into,
            };
            let report = chain.draw(&cuda, &hidden, &w, &b, &positions, request).unwrap();
            let error = match report {
                Some(report) => report.read(&into).unwrap_err(),
                None => chain.tokens(&cuda).unwrap_err(),
            };
            assert!(error.to_string().contains("not finite"), "{error}");
        }
    }
}
