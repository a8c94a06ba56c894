//! AdamW with global-norm clipping and the weights' moving average: two visits of the parameters, the first for the
//! norm, the second for everything else in one parallel pass.
//!
//! Both passes cut every parameter into the same chunks whatever the number of threads, and partial sums are folded in
//! order, so the bits of the result do not depend on it.

use rayon::prelude::*;

use crate::error::Result;
use crate::kernels::adamw::Factors;
pub use crate::kernels::adamw::{AdamW, Moments, Update};
use crate::manifest::{LearningRateSchedule, WarmupRates};
use crate::model::Network;

/// Elements of a chunk: 64 KB of f32 per array, so that the five arrays of an update share a second-level cache.
const CHUNK: usize = 1 << 14;
/// Partial sums kept side by side, so that the fold of a chunk is not one long chain of additions.
const LANES: usize = 8;

/// The learning rate of update n = 1, 2, …: rises linearly to `peak` at the last warm-up update, then stays or falls to
/// zero along a half cosine at update `steps`.
///
/// DIFFERENCE: the authors' warm-up gives update n a rate of `peak` (n − 1) / warm-up, and the first one zero; here it is
/// `peak` n / warm-up. [`WarmupRates::Published`] has theirs, what follows one update later, too.
#[must_use]
pub fn learning_rate(
    update: u64,
    peak: f64,
    (warmup, rates): (u64, WarmupRates),
    steps: u64,
    schedule: LearningRateSchedule,
) -> f64 {
    let update = match rates {
        WarmupRates::FromOne => update,
        WarmupRates::Published => update.saturating_sub(1),
    };
    if update < warmup {
        return peak * update as f64 / warmup as f64;
    }
    match schedule {
        LearningRateSchedule::Constant => peak,
        LearningRateSchedule::Cosine => {
            let part = (update - warmup) as f64 / (steps.saturating_sub(warmup)).max(1) as f64;
            peak * 0.5 * (1.0 + (std::f64::consts::PI * part.min(1.0)).cos())
        }
    }
}

/// The decay of the moving average at update n = 1, 2, …: min(ema, (1 + n) / (10 + n)).
#[must_use]
pub fn ema_decay(update: u64, ema: f64) -> f64 {
    ema.min((1.0 + update as f64) / (10.0 + update as f64))
}

/// The norm of the accumulated gradient: of all of it, and of the parameter where it is largest.
#[derive(Clone, Debug, PartialEq)]
pub struct GradientNorm {
    /// √ Σ g².
    pub total: f64,
    /// Name and norm of the parameter with the largest one, where it is known; one that is not finite counts as largest.
    pub largest: Option<(String, f64)>,
}

/// The global norm of the accumulated gradient, summed in f64 in a fixed order.
///
/// # Errors
/// The device failed.
pub fn gradient_norm(network: &mut dyn Network) -> Result<GradientNorm> {
    let mut total = 0.0;
    let mut largest = (String::new(), -1.0);
    network.visit(&mut |parameter, _, gradient| {
        let squares = sum_of_squares(gradient);
        total += squares;
        let worse = if squares.is_nan() { f64::INFINITY } else { squares };
        if worse > largest.1 {
            largest = (parameter.name.clone(), worse);
        }
    })?;
    Ok(GradientNorm {
        total: total.sqrt(),
        largest: Some((largest.0, largest.1.max(0.0).sqrt())),
    })
}

fn sum_of_squares(values: &[f32]) -> f64 {
    let parts: Vec<f64> = values.par_chunks(CHUNK).map(chunk_sum_of_squares).collect();
    parts.iter().sum()
}

fn chunk_sum_of_squares(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for eight in whole {
        for (lane, &value) in lanes.iter_mut().zip(eight) {
            *lane += f64::from(value) * f64::from(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(value) * f64::from(value);
    }
    lanes.iter().sum()
}

/// One update of all weights, their moments and their average, the gradient being multiplied with `scale`; leaves it zero.
///
/// # Errors
/// The device failed.
pub fn update(
    network: &mut dyn Network,
    moments: &mut Moments,
    adam: AdamW,
    update: Update,
    scale: f32,
) -> Result<()> {
    let factors = Factors::new(adam, update);
    network.visit(&mut |parameter, weights, gradient| {
        let span = parameter.offset..parameter.offset + parameter.len();
        let first = moments.first[span.clone()].par_chunks_mut(CHUNK);
        let second = moments.second[span.clone()].par_chunks_mut(CHUNK);
        let ema = moments.ema[span].par_chunks_mut(CHUNK);
        weights
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks_mut(CHUNK))
            .zip(first.zip(second).zip(ema))
            .for_each(|((weights, gradient), ((first, second), ema))| {
                factors.apply(scale, weights, gradient, first, second, ema);
            });
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Alphabet;
    use crate::model::toy::Bag;
    use crate::model::{Batch, Parameter};
    use crate::rng::{Random, Stream};

    /// Hands out gradients made up from the update's number, over parameters of odd sizes.
    struct MadeUp {
        parameters: Vec<Parameter>,
        weights: Vec<f32>,
        gradients: Vec<f32>,
    }

    impl MadeUp {
        fn new(sizes: &[usize]) -> Self {
            let mut offset = 0;
            let parameters = sizes
                .iter()
                .map(|&size| {
                    offset += size;
                    Parameter {
                        name: format!("p{size}"),
                        dims: vec![size],
                        offset: offset - size,
                    }
                })
                .collect();
            let random = Random::new(1, Stream::Init);
            let weights = (0..offset)
                .map(|i| random.uniform(0, 0, i as u32) as f32 - 0.5)
                .collect();
            Self {
                parameters,
                weights,
                gradients: vec![0.0; offset],
            }
        }

        fn fill(&mut self, update: u64) {
            let random = Random::new(2, Stream::Init);
            for (i, g) in self.gradients.iter_mut().enumerate() {
                *g = random.uniform(update, 0, i as u32) as f32 - 0.4;
            }
        }
    }

    impl Network for MadeUp {
        fn shape(&self) -> &'static crate::shapes::Shape {
            &crate::shapes::SHAPES[0]
        }
        fn parameters(&self) -> &[Parameter] {
            &self.parameters
        }
        fn load(&mut self, values: &[f32]) -> Result<()> {
            self.weights.copy_from_slice(values);
            Ok(())
        }
        fn read(&self, values: &mut [f32]) -> Result<()> {
            values.copy_from_slice(&self.weights);
            Ok(())
        }
        fn accumulate(&mut self, _: &Batch<'_>, _: Alphabet) -> Result<Vec<f32>> {
            Ok(vec![])
        }
        fn visit(&mut self, f: &mut dyn FnMut(&Parameter, &mut [f32], &mut [f32])) -> Result<()> {
            for p in &self.parameters {
                let span = p.offset..p.offset + p.len();
                f(p, &mut self.weights[span.clone()], &mut self.gradients[span]);
            }
            Ok(())
        }
        fn nll(&self, _: &Batch<'_>, _: Alphabet) -> Result<Vec<f32>> {
            Ok(vec![])
        }
        fn logits(&self, _: &[u32], _: &[f32], _: &[u32]) -> Result<Vec<f32>> {
            Ok(vec![])
        }
    }

    const ADAM: AdamW = AdamW {
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.1,
    };

    fn moments(network: &MadeUp) -> Moments {
        let n = network.weights.len();
        Moments {
            first: vec![0.0; n],
            second: vec![0.0; n],
            ema: network.weights.clone(),
        }
    }

    fn run(network: &mut MadeUp, moments: &mut Moments, updates: u64) {
        for n in 1..=updates {
            network.fill(n);
            let norm = gradient_norm(network).unwrap().total;
            let step = Update {
                number: n,
                learning_rate: learning_rate(
                    n,
                    0.01,
                    (3, WarmupRates::FromOne),
                    10,
                    LearningRateSchedule::Cosine,
                ),
                ema_decay: ema_decay(n, 0.5),
            };
            update(network, moments, ADAM, step, (1.0 / norm).min(1.0) as f32).unwrap();
        }
    }

    #[test]
    fn ten_updates_equal_a_reference_in_f64() {
        let mut network = MadeUp::new(&[5, 20_000, 1]);
        let mut moments = moments(&network);
        let n = network.weights.len();
        let mut w: Vec<f64> = network.weights.iter().map(|&w| f64::from(w)).collect();
        let (mut m, mut v, mut ema) = (vec![0.0; n], vec![0.0; n], w.clone());
        let mut made_up = MadeUp::new(&[5, 20_000, 1]);
        for t in 1..=10 {
            made_up.fill(t);
            let g: Vec<f64> = made_up.gradients.iter().map(|&g| f64::from(g)).collect();
            let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
            let lr = match t {
                1 => 0.01 / 3.0,
                2 => 0.02 / 3.0,
                _ => 0.005 * (1.0 + (std::f64::consts::PI * (t as f64 - 3.0) / 7.0).cos()),
            };
            let decay = f64::min(0.5, (1.0 + t as f64) / (10.0 + t as f64));
            for i in 0..n {
                let g = g[i] / norm.max(1.0);
                w[i] *= 1.0 - lr * 0.1;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                let corrected = (
                    m[i] / (1.0 - 0.9f64.powi(t as i32)),
                    v[i] / (1.0 - 0.99f64.powi(t as i32)),
                );
                w[i] -= lr * corrected.0 / (corrected.1.sqrt() + 1e-8);
                ema[i] = decay * ema[i] + (1.0 - decay) * w[i];
            }
        }
        run(&mut network, &mut moments, 10);
        for i in 0..n {
            // f32 rounding of ten updates of size up to 0.01 on weights up to 0.5.
            assert!((f64::from(network.weights[i]) - w[i]).abs() < 1e-6, "weight {i}");
            assert!((f64::from(moments.ema[i]) - ema[i]).abs() < 1e-6, "average {i}");
            assert!(
                (f64::from(moments.first[i]) - m[i]).abs() < 1e-7,
                "first moment {i}"
            );
            assert!(
                (f64::from(moments.second[i]) - v[i]).abs() < 1e-8,
                "second moment {i}"
            );
        }
        assert!(network.gradients.iter().all(|&g| g == 0.0));
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        let result = |threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| {
                let mut network = MadeUp::new(&[70_001, 3]);
                let mut moments = moments(&network);
                run(&mut network, &mut moments, 3);
                (network.weights, moments)
            })
        };
        assert_eq!(result(1), result(3));
    }

    #[test]
    fn the_norm_names_the_largest_parameter_and_a_broken_one_first() {
        let mut network = MadeUp::new(&[2, 3]);
        network.gradients.copy_from_slice(&[3.0, 0.0, 0.0, 4.0, 0.0]);
        let norm = gradient_norm(&mut network).unwrap();
        assert_eq!((norm.total, norm.largest), (5.0, Some(("p3".to_owned(), 4.0))));
        network.gradients[1] = f32::NAN;
        let norm = gradient_norm(&mut network).unwrap();
        assert!(norm.total.is_nan());
        assert_eq!(norm.largest.unwrap().0, "p2");
    }

    #[test]
    fn rates_rise_then_stay_or_fall() {
        use LearningRateSchedule::{Constant, Cosine};
        let rate = |n, schedule| learning_rate(n, 1.0, (4, WarmupRates::FromOne), 12, schedule);
        assert_eq!(
            [1, 2, 4, 5, 99].map(|n| rate(n, Constant)),
            [0.25, 0.5, 1.0, 1.0, 1.0]
        );
        assert_eq!(rate(4, Cosine), 1.0);
        assert!((rate(8, Cosine) - 0.5).abs() < 1e-12);
        assert!(rate(12, Cosine).abs() < 1e-12);
        assert_eq!(
            learning_rate(1, 1.0, (0, WarmupRates::FromOne), 10, Constant),
            1.0
        );
        // The published code's, one update later: 0, 1/4, 2/4, 3/4, 1, …
        let published = |n, schedule| learning_rate(n, 1.0, (4, WarmupRates::Published), 12, schedule);
        assert_eq!(
            [1, 2, 3, 4, 5, 99].map(|n| published(n, Constant)),
            [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
        );
        for n in 1..=12 {
            assert_eq!(published(n + 1, Cosine), rate(n, Cosine), "update {n}");
        }
        assert_eq!(
            learning_rate(1, 1.0, (0, WarmupRates::Published), 10, Constant),
            1.0
        );
        assert_eq!(ema_decay(1, 0.9999), 2.0 / 11.0);
        assert_eq!(ema_decay(1_000_000, 0.9999), 0.9999);
    }

    #[test]
    fn an_update_along_the_gradient_lowers_the_loss() {
        let mut network = Bag::new(4, 2);
        let batch = Batch {
            tokens: &[0, 3],
            sigma: &[0.0],
            positions: &[1],
            targets: &[2],
            weights: &[1.0],
            ..Batch::default()
        };
        let alphabet = Alphabet::without_mask(3, 4);
        let n = 20;
        let mut moments = Moments {
            first: vec![0.0; n],
            second: vec![0.0; n],
            ema: vec![0.0; n],
        };
        let before = network.accumulate(&batch, alphabet).unwrap()[0];
        let step = Update {
            number: 1,
            learning_rate: 0.1,
            ema_decay: 0.0,
        };
        update(&mut network, &mut moments, ADAM, step, 1.0).unwrap();
        assert!(network.nll(&batch, alphabet).unwrap()[0] < before - 0.1);
    }
}
