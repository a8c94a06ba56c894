//! MDLM: masked diffusion with the SUBS parameterization in continuous time (arXiv 2406.07524).
//!
//! | equation | function |
//! |---|---|
//! | q(x_t \| x_0) = Cat(α_t x_0 + (1 − α_t) π), π the mask | [`ForwardProcess::q_xt`] |
//! | log p(x_0 \| x_t) from logits: SUBS | [`Subs::log_p_x0`], [`Subs::support`] |
//! | t = ε′ + (1 − ε′) u | [`Mdlm::time`] |
//! | w(t) · Σ_masked −log p(x_0 \| x_t), the bound of eq. 10 | [`Mdlm::level`] has w(t), [`Objective::noise`] draws t and the mask |
//! | the same with both ends of the noise levels | [`Mdlm::level_of_bound`] |
//! | L / k · Σ_masked −log p(x_0 \| x_t), k tokens masked | [`Mdlm::weight_of_count`] |
//! | p(x_s \| x_t) = q(x_s \| x_t, x̂_0), eq. 7 | [`Posterior::unmask_probability`] |
//!
//! The bound on a row x of L tokens (eq. 10), with the move chance m = 1 − α(t) as the variable of integration:
//!
//! ```text
//! NELBO(x) = ∫ w(t) E[Σ_masked −log p(x_l | z_t)] dt = ∫ (1/m) E_m[Σ_masked −log p(x_l | z)] dm,  m from 0 to 1
//! ```
//!
//! so that only m counts, never how fast the schedule runs through it. Two estimators of it:
//!
//! - *time*: t uniform, each token masked with probability m(t), weight w(t);
//! - *count* (arXiv 2502.09992): k uniform on 1..L, a uniformly random k-subset masked, weight L / k. It is the same
//!   integral with the number of masked tokens in place of the move chance:
//!   `∫ m^(k−1) (1 − m)^(L−k) C(L, k) dm = 1 / k`. A time-conditioned network has no noise level to be fed there.
//!
//! Padding is treated as the authors do: padded positions are masked like all others and the network sees them, only
//! the loss leaves them out. What is bounded is then the text given where its padding begins, hence its length.

use super::{Draw, Objective};
use crate::diffusion::forward::{
    ForwardProcess, NoiseLevel, NoisedBatch, Prior, RowIndex, ascending_uniforms, low_discrepancy_time,
};
use crate::diffusion::{Posterior, Subs};
use crate::error::{Error, Result};
use crate::kernels::{Loss, Pattern, VocabSupport};
use crate::manifest::{BoundEnds, Estimator, MdlmObjective};
use crate::rng::{Random, Stream};

/// The MDLM objective.
#[derive(Clone, Copy, Debug)]
pub struct Mdlm {
    /// The noise schedule and the mask.
    pub forward: ForwardProcess,
    /// From logits to log p(x_0 | x_t).
    pub parameterization: Subs,
    /// ε′: the smallest time drawn.
    pub sampling_epsilon: f64,
    /// Whether the times of a batch are a low-discrepancy draw.
    pub antithetic: bool,
    /// Whether the network is fed the noise level.
    pub time_conditioning: bool,
    /// Seed of the times and masks of training rows.
    pub seed: u64,
}

impl Mdlm {
    /// The objective with a manifest's settings.
    #[must_use]
    pub fn new(settings: &MdlmObjective, mask: u32, vocabulary: u32, seed: u64) -> Self {
        Self {
            forward: ForwardProcess {
                schedule: settings.noise.into(),
                prior: Prior::Mask(mask),
            },
            parameterization: Subs { mask, vocabulary },
            sampling_epsilon: settings.sampling_epsilon,
            antithetic: settings.antithetic,
            time_conditioning: settings.time_conditioning,
            seed,
        }
    }

    /// t = ε′ + (1 − ε′) u.
    #[must_use]
    pub fn time(&self, u: f64) -> f64 {
        self.sampling_epsilon + (1.0 - self.sampling_epsilon) * u
    }

    /// The noise at time t, weighed with w(t): the training loss of eq. 10.
    #[must_use]
    pub fn level(&self, t: f64) -> NoiseLevel {
        self.forward.level(t)
    }

    /// The noise level at u uniform on [0, 1) whose expectation of weight · Σ −log p is a bound without gaps.
    ///
    /// Training draws t from [ε′, 1] and so leaves out both ends of the move chance: m < m(ε′), where the weight has
    /// no bounded variance, and m > m(1), which a schedule with α(1) > 0 never reaches. Here [0, 1) is divided into parts of
    ///
    /// - m(ε′): what is still masked at ε′ is decoded at once, `E[Σ −log p(x_l | z_ε′)]`, the reconstruction term of the
    ///   discrete-time bound (arXiv 2406.07524, eq. 5);
    /// - m(1) − m(ε′): the integral of w(t) over [ε′, 1];
    /// - α(1): one discrete step from all masked to t = 1, `α(1) E[Σ −log p(x_l | all masked)]` (eq. 6 with α = 0 at its
    ///   noisy end), so that the chain begins where the sampler does.
    ///
    /// Every part is a term of a valid variational bound, hence so is the sum, for any network and schedule.
    ///
    /// DIFFERENCE: the published number is the mean over t in [ε′, 1] alone ([`BoundEnds::Published`]). With f(m) the mean
    /// nats of a masked token at move chance m, B this bound and A that mean, both per token,
    ///
    /// ```text
    /// A = (B − m(ε′) f(m(ε′)) − α(1) f(1)) / (1 − ε′),   with the defaults (B − 1e-3 f(0) − 1e-3 f(1)) / (1 − 1e-3).
    /// ```
    #[must_use]
    pub fn level_of_bound(&self, u: f64) -> NoiseLevel {
        let schedule = self.forward.schedule;
        let first = schedule.move_chance(self.sampling_epsilon);
        let last = schedule.move_chance(1.0);
        if u < first {
            return NoiseLevel {
                sigma: schedule.sigma(self.sampling_epsilon),
                move_chance: first,
                weight: 1.0 / first,
            };
        }
        if u >= last {
            return NoiseLevel {
                sigma: schedule.sigma(1.0),
                move_chance: 1.0,
                weight: 1.0,
            };
        }
        let level = self.level(self.time((u - first) / (last - first)));
        NoiseLevel {
            weight: level.weight * (1.0 - self.sampling_epsilon) / (last - first),
            ..level
        }
    }

    /// L / k: the factor of each of k masked tokens' negative log-likelihood where their number is drawn, not the time
    /// (arXiv 2502.09992).
    #[must_use]
    pub fn weight_of_count(length: usize, count: usize) -> f64 {
        length as f64 / count as f64
    }

    /// σ of a row, where the network is fed it.
    fn conditioning(&self, level: NoiseLevel) -> Option<f64> {
        self.time_conditioning.then_some(level.sigma)
    }
}

impl Objective for Mdlm {
    fn noise(&self, index: RowIndex, x: &[u32], valid: usize, into: &mut NoisedBatch) {
        let u = Random::new(self.seed, Stream::Time).uniform(index.step, index.row, 0);
        let u = if self.antithetic {
            low_discrepancy_time(u, index.index, index.batch)
        } else {
            u
        };
        let level = self.level(self.time(u));
        let mut uniforms = ascending_uniforms(Random::new(self.seed, Stream::Mask), index.step, index.row);
        into.push(x, valid, level.weight, self.conditioning(level), |l| {
            self.forward.q_xt(level.move_chance, uniforms(l))
        });
    }

    fn noise_of_bound(&self, draw: Draw, x: &[u32], valid: usize, into: &mut NoisedBatch) {
        match draw.estimator {
            Estimator::Time => {
                let level = match draw.ends {
                    BoundEnds::Valid => self.level_of_bound(draw.offset),
                    BoundEnds::Published => self.level(self.time(draw.offset)),
                };
                let mut uniforms = draw.uniforms();
                into.push(x, valid, level.weight, self.conditioning(level), |l| {
                    self.forward.q_xt(level.move_chance, uniforms(l))
                });
            }
            Estimator::Count => {
                let length = x.len();
                let count = ((draw.offset * length as f64) as usize).min(length - 1) + 1;
                let mut keys: Vec<_> = (0..length).map(|l| (draw.bits(l), l)).collect();
                // The k smallest of independent keys are a uniformly random k-subset; ties go by position.
                let last = *keys.select_nth_unstable(count - 1).1;
                into.push(x, valid, Self::weight_of_count(length, count), None, |l| {
                    ((draw.bits(l), l) <= last).then_some(self.forward.mask())
                });
            }
        }
    }

    fn check_estimator(&self, estimator: Estimator, ends: BoundEnds) -> Result<()> {
        if estimator == Estimator::Count && self.time_conditioning {
            return Err(
                Error::input("estimator `count` needs a model without time conditioning")
                    .hint("use the estimator `time`"),
            );
        }
        if estimator == Estimator::Count && ends == BoundEnds::Published {
            return Err(Error::input(
                "estimator `count` draws no times, but the published number is a mean over times",
            )
            .hint("use the estimator `time`"));
        }
        Ok(())
    }

    fn validation_estimator(&self) -> Estimator {
        if self.time_conditioning {
            Estimator::Time
        } else {
            Estimator::Count
        }
    }

    fn support(&self) -> VocabSupport {
        self.parameterization.support()
    }

    fn loss(&self) -> Loss {
        Loss::CrossEntropy
    }

    fn pattern(&self) -> Pattern {
        Pattern::Full
    }

    fn posterior(&self) -> Option<Posterior> {
        Some(Posterior {
            forward: self.forward,
            time_conditioning: self.time_conditioning,
            zero_masking: true,
        })
    }
}

#[cfg(test)]
impl Mdlm {
    /// The default objective with another schedule, for tests: masks below the last id, no time conditioning.
    pub(crate) fn with_schedule(schedule: crate::diffusion::Schedule, mask: u32, seed: u64) -> Self {
        let mut mdlm = Self::new(&MdlmObjective::default(), mask, mask + 1, seed);
        mdlm.forward.schedule = schedule;
        mdlm
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ROW_LEVEL, shift};
    use super::*;
    use crate::diffusion::{EVERY_SCHEDULE, Schedule};
    use crate::model::toy::Distribution;
    use proptest::prelude::*;
    use rayon::prelude::*;

    fn mdlm(schedule: Schedule) -> Mdlm {
        Mdlm::with_schedule(schedule, 3, 5)
    }

    /// E over rows of `truth` and masks with move chance m of `Σ_masked −log q(x_l | z)`, by enumeration.
    fn masked_loss(truth: &Distribution, denoiser: &Distribution) -> impl Fn(f64) -> f64 + use<> {
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

    /// E over u of weight · loss, by the midpoint rule on each of the three parts.
    fn integral(mdlm: &Mdlm, loss: impl Fn(f64) -> f64) -> f64 {
        let cuts = [
            0.0,
            mdlm.forward.schedule.move_chance(mdlm.sampling_epsilon),
            mdlm.forward.schedule.move_chance(1.0),
            1.0,
        ];
        let points = 20_000;
        cuts.windows(2)
            .map(|cut| {
                let step = (cut[1] - cut[0]) / f64::from(points);
                let part: f64 = (0..points)
                    .map(|i| {
                        let level = mdlm.level_of_bound(cut[0] + (f64::from(i) + 0.5) * step);
                        level.weight * loss(level.move_chance)
                    })
                    .sum();
                part * step
            })
            .sum()
    }

    #[test]
    fn with_the_exact_posterior_the_bound_is_the_entropy() {
        let truth = Distribution::random(4, 3, 1);
        let loss = masked_loss(&truth, &truth);
        for schedule in EVERY_SCHEDULE {
            let excess = integral(&mdlm(schedule), &loss) - truth.entropy();
            // Above by what decoding both ends at once costs: of order m(ε′)² and α(1)².
            assert!((-1e-7..2e-4).contains(&excess), "{schedule:?}: {excess}");
        }
    }

    #[test]
    fn the_bound_is_invariant_to_the_schedule_for_a_wrong_denoiser_too() {
        let (truth, wrong) = (Distribution::random(3, 3, 1), Distribution::random(3, 3, 2));
        let loss = masked_loss(&truth, &wrong);
        let bounds: Vec<f64> = EVERY_SCHEDULE.map(|s| integral(&mdlm(s), &loss)).to_vec();
        // Its exact value, by the count estimator's identity: Σ_k E[loss | k masked] / k, here read off as
        // ∫ loss(m) / m dm with the midpoint rule.
        let points = 100_000;
        let exact: f64 = (0..points)
            .map(|i| (f64::from(i) + 0.5) / f64::from(points))
            .map(|m| loss(m) / m / f64::from(points))
            .sum();
        assert!(exact > truth.entropy() + 0.1, "a wrong denoiser must cost");
        for bound in bounds {
            assert!((bound - exact).abs() < 1e-3 * exact, "{bound} is not {exact}");
        }
    }

    #[test]
    fn the_published_number_is_the_bound_without_its_ends() {
        let (truth, wrong) = (Distribution::random(3, 3, 1), Distribution::random(3, 3, 2));
        let loss = masked_loss(&truth, &wrong);
        let published = |mdlm: &Mdlm| {
            let points = 20_000;
            let values = (0..points).map(|i| {
                let level = mdlm.level(mdlm.time((f64::from(i) + 0.5) / f64::from(points)));
                level.weight * loss(level.move_chance)
            });
            values.sum::<f64>() / f64::from(points)
        };
        for schedule in EVERY_SCHEDULE {
            let mdlm = mdlm(schedule);
            let (first, last) = (schedule.move_chance(1e-3), schedule.alpha(1.0));
            let expected = (integral(&mdlm, &loss) - loss(first) - last * loss(1.0)) / (1.0 - 1e-3);
            let found = published(&mdlm);
            assert!(
                (found - expected).abs() < 1e-6 * expected,
                "{schedule:?}: {found} is not {expected}"
            );
        }
        // With the default noise, and f(m) the mean nats of a masked token: exact but for the square of 1e-3.
        let mdlm = mdlm(EVERY_SCHEDULE[0]);
        let f = |m: f64| loss(m) / m;
        let (bound, found) = (integral(&mdlm, &loss), published(&mdlm));
        let expected = (bound - 1e-3 * f(1e-9) - 1e-3 * f(1.0)) / (1.0 - 1e-3);
        assert!(
            (found - expected).abs() < 1e-5 * expected,
            "{found} is not {expected}"
        );
        assert!(found < bound);
        // A draw has the noise of the formula.
        for (ends, level) in [
            (BoundEnds::Published, mdlm.level(mdlm.time(0.0))),
            (BoundEnds::Valid, mdlm.level_of_bound(0.0)),
        ] {
            let draw = |row| Draw {
                estimator: Estimator::Time,
                ends,
                random: Random::new(1, Stream::Evaluate),
                draw: 0,
                row,
                offset: 0.0,
            };
            let mut noised = NoisedBatch::default();
            (0..10_000).for_each(|row| mdlm.noise_of_bound(draw(row), &[0, 1, 2], 3, &mut noised));
            assert!(noised.weights.iter().all(|&weight| weight == level.weight as f32));
            let share = noised.positions.len() as f64 / 30_000.0;
            assert!((share - level.move_chance).abs() < 1e-3, "{ends:?}: {share}");
        }
    }

    #[test]
    fn the_count_estimator_has_the_same_expectation() {
        let truth = Distribution::random(3, 3, 3);
        let mdlm = mdlm(EVERY_SCHEDULE[0]);
        let random = Random::new(9, Stream::Evaluate);
        let mut noised = NoisedBatch::default();
        let (mut sum, mut squares) = (0.0, 0.0);
        let draws = 30_000;
        for draw in 0..draws {
            // A row of the distribution by inversion, then one draw of its bound.
            let mut u = Random::new(9, Stream::Split).uniform(0, 0, draw as u32);
            let index = truth.probabilities.iter().position(|p| {
                u -= p;
                u < 0.0
            });
            let x = truth.row(index.unwrap_or(26));
            noised.clear();
            let offset = shift(random, draw);
            let draw = Draw {
                estimator: Estimator::Count,
                ends: BoundEnds::Valid,
                random,
                draw,
                row: 0,
                offset,
            };
            mdlm.noise_of_bound(draw, &x, 3, &mut noised);
            let value: f64 = noised
                .positions
                .iter()
                .zip(&noised.weights)
                .map(|(&l, &weight)| {
                    let l = l as usize;
                    -f64::from(weight) * truth.posterior(&noised.tokens, l)[x[l] as usize].ln()
                })
                .sum();
            sum += value;
            squares += value * value;
        }
        let n = draws as f64;
        let error = ((squares / n - (sum / n).powi(2)) / n).sqrt();
        let difference = sum / n - truth.entropy();
        assert!(difference.abs() < 4.0 * error, "{difference} ± {error}");
    }

    #[test]
    fn counts_and_subsets_are_uniform() {
        let mdlm = mdlm(EVERY_SCHEDULE[0]);
        let random = Random::new(3, Stream::Evaluate);
        let mut sets = [0_u32; 16];
        let draws = 24_000;
        for row in 0..draws {
            let mut noised = NoisedBatch::default();
            let offset = random.uniform(1, row, ROW_LEVEL);
            let draw = Draw {
                estimator: Estimator::Count,
                ends: BoundEnds::Valid,
                random,
                draw: 0,
                row,
                offset,
            };
            mdlm.noise_of_bound(draw, &[0, 1, 2, 0], 4, &mut noised);
            assert_eq!(noised.weights[0] * noised.positions.len() as f32, 4.0);
            let set: usize = noised.positions.iter().map(|l| 1 << l).sum();
            sets[set] += 1;
        }
        assert_eq!(sets[0], 0);
        let chi: f64 = (1..16_usize)
            .map(|set| {
                let subsets = [0.0, 4.0, 6.0, 4.0, 1.0][set.count_ones() as usize];
                let expected = draws as f64 / 4.0 / subsets;
                (f64::from(sets[set]) - expected).powi(2) / expected
            })
            .sum();
        // 14 degrees of freedom, 1e-4 quantile 42.6.
        assert!(chi < 42.6, "chi-square {chi}: {sets:?}");
    }

    #[test]
    fn noise_is_the_same_for_any_grouping_of_rows_and_any_thread() {
        let mdlm = Mdlm {
            time_conditioning: true,
            ..mdlm(EVERY_SCHEDULE[1])
        };
        let row = |index: u32| (0..10).map(|l| (index + l) % 3).collect::<Vec<u32>>();
        let at = |index: u32| RowIndex {
            step: 7,
            row: u64::from(7 * 16 + index),
            index,
            batch: 16,
        };
        let mut together = NoisedBatch::default();
        for index in 0..16 {
            mdlm.noise(at(index), &row(index), 9, &mut together);
        }
        let apart: Vec<NoisedBatch> = (0..16_u32)
            .into_par_iter()
            .map(|index| {
                let mut noised = NoisedBatch::default();
                mdlm.noise(at(index), &row(index), 9, &mut noised);
                noised
            })
            .collect();
        for (i, span) in together.spans().enumerate() {
            assert_eq!(together.tokens[i * 10..][..10], apart[i].tokens);
            assert_eq!(together.weights[span.clone()], apart[i].weights);
            assert_eq!(together.targets[span], apart[i].targets);
            assert_eq!(together.sigma[i], apart[i].sigma[0]);
        }
    }

    proptest! {
        #[test]
        fn unmasked_positions_carry_over(
            x in prop::collection::vec(0_u32..3, 1..40), seed: u64, step in 0_u64..1000, part in 0.0..1.0
        ) {
            let valid = (x.len() as f64 * part) as usize;
            let mdlm = Mdlm { seed, ..mdlm(EVERY_SCHEDULE[0]) };
            let mut noised = NoisedBatch::default();
            mdlm.noise(RowIndex { step, row: step, index: 0, batch: 1 }, &x, valid, &mut noised);
            let masked: Vec<u32> = (0..x.len() as u32).filter(|&l| noised.tokens[l as usize] == 3).collect();
            for (&z, &x) in noised.tokens.iter().zip(&x) {
                prop_assert!(z == x || z == 3);
            }
            let wanted: Vec<u32> = masked.into_iter().filter(|&l| (l as usize) < valid).collect();
            prop_assert_eq!(&noised.positions, &wanted);
            let truth: Vec<u32> = wanted.iter().map(|&l| x[l as usize]).collect();
            prop_assert_eq!(&noised.targets, &truth);
            prop_assert_eq!(noised.weights.len(), wanted.len());
            prop_assert_eq!(&noised.sigma, &[0.0]);
            let uniforms = Random::new(seed, Stream::Mask);
            let u = Random::new(seed, Stream::Time).uniform(step, step, 0);
            let chance = mdlm.level(mdlm.time(u)).move_chance;
            for l in 0..x.len() {
                prop_assert_eq!(noised.tokens[l] == 3, uniforms.uniform(step, step, l as u32) < chance);
            }
        }
    }
}
