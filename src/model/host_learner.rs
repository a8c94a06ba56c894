//! Learning where weights and gradients lie on the host: norm, clip, AdamW and the moving average are one parallel pass over
//! flat vectors.

use std::collections::VecDeque;
use std::ops::Range;

use super::footprint::Workload;
use super::grains::Grains;
use super::{
    Arena, Batch, GradientNorm, Learner, Network, Parameter, Reduction, StepOutcome, footprint, total,
};
use crate::error::{Error, Result};
use crate::kernels::VocabSupport;
use crate::kernels::adamw::{AdamW, Factors, Moments, Update, cpu};
use crate::kernels::profile::{self, Part};
use crate::ranks::Sharing;

/// A network whose weights, and the gradients that it accumulates, lie on the host in the flat order.
///
/// # Errors
/// Every method fails when memory runs out.
#[expect(clippy::missing_errors_doc, reason = "stated once, above")]
pub trait HostNetwork: Network {
    /// Forward and backward: adds the gradient of Σ weights · loss to the accumulated one, and returns each position's
    /// loss in nats, that of the cross-entropy being the target's negative log-likelihood. Without positions nothing is
    /// computed.
    ///
    /// Fails, too, for a batch that does not fit the shape. A network that failed cannot be used after that.
    fn accumulate(&mut self, batch: &Batch<'_>, support: VocabSupport) -> Result<Vec<f32>>;

    /// Lends all weights to `f`.
    fn with_weights(&mut self, f: &mut dyn FnMut(&mut [f32])) -> Result<()>;

    /// Lends all weights and their accumulated gradient (zeros where there is none yet) to `f`.
    #[expect(clippy::type_complexity, reason = "named, it would be less clear")]
    fn with_gradient(&mut self, f: &mut dyn FnMut(&[Parameter], &mut [f32], &mut [f32])) -> Result<()>;
}

/// A network on the host with its optimizer.
pub struct HostLearner<N: HostNetwork> {
    network: N,
    moments: Moments,
    /// Of the micro-batches since the last update.
    loss: f64,
    /// Of updates, the oldest first.
    outcomes: VecDeque<StepOutcome>,
    /// Whether a step was not finite.
    halted: bool,
    /// Of a training whose batches are cut. The moments are then those of this rank's part.
    grains: Option<Grains>,
}

impl<N: HostNetwork> HostLearner<N> {
    /// A learner that begins from the network's weights.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(network: N) -> Result<Self> {
        let mut weights = vec![0.0; total(network.parameters())];
        network.read(&mut weights)?;
        Ok(Self {
            moments: Moments::before(weights),
            network,
            loss: 0.0,
            outcomes: VecDeque::new(),
            halted: false,
            grains: None,
        })
    }

    /// Drops what was accumulated and not collected.
    fn forget(&mut self) {
        self.loss = 0.0;
        self.outcomes.clear();
        self.halted = false;
        if let Some(grains) = &mut self.grains {
            grains.forget();
        }
    }

    /// The part of the flat vector whose moments this rank has.
    fn own(&self) -> Range<usize> {
        match &self.grains {
            Some(grains) => grains.own(),
            None => 0..self.moments.ema.len(),
        }
    }
}

impl<N: HostNetwork> Learner for HostLearner<N> {
    fn network(&self) -> &dyn Network {
        &self.network
    }

    fn micro_batch(&mut self, batch: u32, wanted: Option<u32>, workload: Workload) -> Result<u32> {
        let (shape, backbone) = (self.network.shape(), self.network.backbone());
        Ok(wanted.unwrap_or_else(|| footprint::micro_batch(shape, backbone, workload.answered, batch)))
    }

    fn load(&mut self, weights: &[f32], moments: Moments) -> Result<()> {
        let Moments { first, second, ema } = &moments;
        if [first, second, ema]
            .iter()
            .any(|arena| arena.len() != weights.len())
        {
            return Err(Error::internal("moments of another network"));
        }
        self.network.load(weights)?;
        self.network
            .with_gradient(&mut |_, _, gradient| gradient.fill(0.0))?;
        self.moments = match &self.grains {
            Some(grains) if grains.is_shared() => part_of(&moments, &grains.own()),
            _ => moments,
        };
        self.forget();
        Ok(())
    }

    fn share(&mut self, sharing: Sharing) -> Result<()> {
        if sharing.grains == 1 && !sharing.is_shared() {
            return Ok(());
        }
        let grains = Grains::new(sharing, self.network.parameters());
        if grains.is_shared() {
            self.moments = part_of(&self.moments, &grains.own());
        }
        self.grains = Some(grains);
        self.forget();
        Ok(())
    }

    fn end_grain(&mut self) -> Result<()> {
        let loss = std::mem::take(&mut self.loss);
        let Some(grains) = &mut self.grains else {
            return Err(Error::internal("a grain of a batch that is not cut"));
        };
        self.network
            .with_gradient(&mut |_, _, gradient| grains.end(gradient, loss))
    }

    fn restart(&mut self) -> Result<()> {
        let own = self.own();
        let Moments { first, second, ema } = &mut self.moments;
        // In place: a copy of the weights would be the largest of all allocations.
        self.network.with_gradient(&mut |_, weights, gradient| {
            gradient.fill(0.0);
            first.fill(0.0);
            second.fill(0.0);
            ema.copy_from_slice(&weights[own.clone()]);
        })?;
        self.forget();
        Ok(())
    }

    fn read(&self, arena: Arena, into: &mut [f32]) -> Result<()> {
        let from = match arena {
            Arena::Weights => return self.network.read(into),
            Arena::FirstMoment => &self.moments.first,
            Arena::SecondMoment => &self.moments.second,
            Arena::Average => &self.moments.ema,
        };
        let all = total(self.network.parameters());
        if all != into.len() {
            return Err(Error::internal(format!("{all} values into {}", into.len())));
        }
        into[self.own()].copy_from_slice(from);
        match &self.grains {
            Some(grains) => grains.gather(into),
            None => Ok(()),
        }
    }

    fn accumulate(&mut self, batch: &Batch<'_>, support: VocabSupport) -> Result<()> {
        let nll = self.network.accumulate(batch, support)?;
        // One chain of additions in f64 in the order of the rows, whatever the micro-batch.
        for (&weight, nll) in batch.weights.iter().zip(nll) {
            self.loss += f64::from(weight) * f64::from(nll);
        }
        Ok(())
    }

    fn reduce(&mut self, reduction: &mut Reduction<'_>) -> Result<()> {
        let loss = &mut self.loss;
        let mut result = Ok(());
        self.network
            .with_gradient(&mut |_, _, gradient| result = reduction(gradient, loss))?;
        result
    }

    fn update(&mut self, adam: AdamW, update: Update, clip: f64) -> Result<()> {
        let factors = Factors::new(adam, update);
        let own = self.own();
        let (moments, halted, grains) = (&mut self.moments, &mut self.halted, &mut self.grains);
        let mut loss = std::mem::take(&mut self.loss);
        let mut norm = GradientNorm::default();
        let mut result = Ok(());
        self.network.with_gradient(&mut |parameters, weights, gradient| {
            let mut update = || -> Result<()> {
                if let Some(grains) = grains {
                    grains.sum(gradient)?;
                    (loss, norm) = grains.outcome(parameters, gradient)?;
                } else {
                    let _timer = profile::forward(Part::Update);
                    norm = GradientNorm::of(parameters, gradient);
                }
                // On all ranks or on none: both are those of the whole batch.
                *halted |= !(loss.is_finite() && norm.total.is_finite());
                if *halted {
                    return Ok(());
                }
                let scale = if clip > 0.0 && norm.total > clip {
                    clip / norm.total
                } else {
                    1.0
                };
                let timer = profile::forward(Part::Update);
                let (mine, slope) = (&mut weights[own.clone()], &mut gradient[own.clone()]);
                cpu::update(factors, scale as f32, mine, slope, moments);
                if let Some(grains) = grains.as_ref().filter(|grains| grains.is_shared()) {
                    for others in [0..own.start, own.end..gradient.len()] {
                        gradient[others].fill(0.0);
                    }
                    drop(timer);
                    grains.gather(weights)?;
                }
                Ok(())
            };
            result = update();
        })?;
        result?;
        self.outcomes.push_back(StepOutcome {
            loss,
            norm,
            halted: self.halted,
        });
        Ok(())
    }

    fn outcome(&mut self) -> Result<Option<StepOutcome>> {
        Ok(self.outcomes.pop_front())
    }

    fn queued_updates(&self) -> usize {
        0
    }

    fn with_average(&mut self, f: &mut dyn FnMut(&dyn Network) -> Result<()>) -> Result<()> {
        let shared = self.grains.as_ref().is_some_and(Grains::is_shared);
        let mut gathered = vec![
            0.0;
            if shared {
                total(self.network.parameters())
            } else {
                0
            }
        ];
        if shared {
            self.read(Arena::Average, &mut gathered)?;
        }
        let average = if shared {
            &mut gathered
        } else {
            &mut self.moments.ema
        };
        self.network
            .with_weights(&mut |weights| weights.swap_with_slice(average))?;
        let result = f(&self.network);
        self.network
            .with_weights(&mut |weights| weights.swap_with_slice(average))?;
        result
    }
}

/// A part of moments.
fn part_of(moments: &Moments, part: &Range<usize>) -> Moments {
    let of = |arena: &[f32]| arena[part.clone()].to_vec();
    Moments {
        first: of(&moments.first),
        second: of(&moments.second),
        ema: of(&moments.ema),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Pattern;
    use crate::model::toy::Bag;
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
        fn nll(&self, _: &Batch<'_>, _: VocabSupport) -> Result<Vec<f32>> {
            Ok(vec![])
        }
        fn logits(&self, _: &[u32], _: &[f32], _: &[u32], _: Pattern) -> Result<Vec<f32>> {
            Ok(vec![])
        }
    }

    impl HostNetwork for MadeUp {
        fn accumulate(&mut self, _: &Batch<'_>, _: VocabSupport) -> Result<Vec<f32>> {
            Ok(vec![])
        }
        fn with_weights(&mut self, f: &mut dyn FnMut(&mut [f32])) -> Result<()> {
            f(&mut self.weights);
            Ok(())
        }
        fn with_gradient(&mut self, f: &mut dyn FnMut(&[Parameter], &mut [f32], &mut [f32])) -> Result<()> {
            f(&self.parameters, &mut self.weights, &mut self.gradients);
            Ok(())
        }
    }

    const ADAM: AdamW = AdamW {
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.1,
    };

    fn learner(sizes: &[usize]) -> HostLearner<MadeUp> {
        HostLearner::new(MadeUp::new(sizes)).unwrap()
    }

    /// Three updates of warm-up, then a half cosine to the tenth.
    fn rate(number: u64) -> f64 {
        match number {
            1 => 0.01 / 3.0,
            2 => 0.02 / 3.0,
            _ => 0.005 * (1.0 + (std::f64::consts::PI * (number as f64 - 3.0) / 7.0).cos()),
        }
    }

    fn decay(number: u64) -> f64 {
        f64::min(0.5, (1.0 + number as f64) / (10.0 + number as f64))
    }

    fn run(learner: &mut HostLearner<MadeUp>, updates: u64) {
        for number in 1..=updates {
            learner.network.fill(number);
            let update = Update {
                number,
                learning_rate: rate(number),
                ema_decay: decay(number),
            };
            learner.update(ADAM, update, 1.0).unwrap();
            assert!(!learner.outcome().unwrap().unwrap().halted);
        }
    }

    #[test]
    fn ten_updates_equal_a_reference_in_f64() {
        let mut learner = learner(&[5, 20_000, 1]);
        let n = learner.network.weights.len();
        let mut w: Vec<f64> = learner.network.weights.iter().map(|&w| f64::from(w)).collect();
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
        run(&mut learner, 10);
        let (network, moments) = (&learner.network, &learner.moments);
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
                let mut learner = learner(&[70_001, 3]);
                run(&mut learner, 3);
                (learner.network.weights, learner.moments)
            })
        };
        assert_eq!(result(1), result(3));
    }

    #[test]
    fn gradient_norm_names_the_largest_parameter_and_a_broken_one_first() {
        let mut learner = learner(&[2, 3]);
        learner
            .network
            .gradients
            .copy_from_slice(&[3.0, 0.0, 0.0, 4.0, 0.0]);
        let norm = learner.gradient_norm().unwrap();
        assert_eq!((norm.total, norm.largest), (5.0, Some(("p3".to_owned(), 4.0))));
        learner.network.gradients[1] = f32::NAN;
        let norm = learner.gradient_norm().unwrap();
        assert!(norm.total.is_nan());
        assert_eq!(norm.largest.unwrap().0, "p2");
    }

    #[test]
    fn restart_forgets_all_updates_and_keeps_the_weights() {
        let mut learner = learner(&[2, 3]);
        run(&mut learner, 2);
        learner.network.fill(3);
        let weights = learner.network.weights.clone();
        learner.restart().unwrap();
        assert_eq!(learner.network.weights, weights);
        assert_eq!(learner.network.gradients, [0.0; 5]);
        assert_eq!(learner.moments, Moments::before(weights));
    }

    #[test]
    fn gradient_that_is_not_finite_halts_updates_until_a_load() {
        let mut learner = learner(&[2, 3]);
        run(&mut learner, 1);
        let (weights, moments) = (learner.network.weights.clone(), learner.moments.clone());
        let update = Update {
            number: 2,
            learning_rate: 0.1,
            ema_decay: 0.5,
        };
        for broken in [f32::NAN, 0.0] {
            learner.network.fill(2);
            learner.network.gradients[4] += broken;
            learner.update(ADAM, update, 0.0).unwrap();
            let outcome = learner.outcome().unwrap().unwrap();
            assert!(outcome.halted);
            assert_eq!(outcome.norm.total.is_nan(), broken.is_nan());
            assert_eq!((&learner.network.weights, &learner.moments), (&weights, &moments));
        }
        learner.load(&weights, moments.clone()).unwrap();
        assert_eq!(learner.network.gradients, [0.0; 5]);
        learner.update(ADAM, update, 0.0).unwrap();
        assert!(!learner.outcome().unwrap().unwrap().halted);
        assert_ne!(learner.moments, moments);
        assert_eq!(learner.outcome().unwrap(), None);
    }

    #[test]
    fn average_replaces_the_weights_while_it_is_lent() {
        let mut learner = learner(&[2, 3]);
        run(&mut learner, 3);
        let (weights, average) = (learner.network.weights.clone(), learner.moments.ema.clone());
        assert_ne!(weights, average);
        let mut seen = vec![0.0; 5];
        let error = learner.with_average(&mut |network| {
            network.read(&mut seen)?;
            Err(Error::interrupted())
        });
        assert!(error.is_err());
        assert_eq!(seen, average);
        assert_eq!(
            (&learner.network.weights, &learner.moments.ema),
            (&weights, &average)
        );
    }

    const ALPHABET: VocabSupport = VocabSupport::without_mask(3, 4);

    /// Rows of two tokens, the second of which is masked.
    fn accumulate(learner: &mut dyn Learner, rows: &[(u32, u32)]) {
        let tokens: Vec<u32> = rows.iter().flat_map(|row| [row.0, 3]).collect();
        let targets: Vec<u32> = rows.iter().map(|row| row.1).collect();
        let positions: Vec<u32> = (0..rows.len() as u32).map(|row| 2 * row + 1).collect();
        let batch = Batch {
            tokens: &tokens,
            sigma: &[0.0],
            positions: &positions,
            targets: &targets,
            weights: &vec![0.25; rows.len()],
            ..Batch::default()
        };
        learner.accumulate(&batch, ALPHABET).unwrap();
    }

    /// One update; the loss.
    fn step(learner: &mut dyn Learner) -> f64 {
        let update = Update {
            number: 1,
            learning_rate: 0.1,
            ema_decay: 0.0,
        };
        learner.update(ADAM, update, 1.0).unwrap();
        learner.outcome().unwrap().unwrap().loss
    }

    #[test]
    fn update_along_the_gradient_lowers_the_loss() {
        let mut learner = HostLearner::new(Bag::new(4, 2)).unwrap();
        accumulate(&mut learner, &[(0, 2)]);
        let before = step(&mut learner);
        accumulate(&mut learner, &[(0, 2)]);
        assert!(step(&mut learner) < before - 0.02);
    }
}
