//! MDLM: masked diffusion with the SUBS parameterization, in continuous time or in T steps (arXiv 2406.07524).
//!
//! | equation | function |
//! |---|---|
//! | q(x_t \| x_0) = Cat(α_t x_0 + (1 − α_t) π), π the mask | [`ForwardProcess::q_xt`] |
//! | log p(x_0 \| x_t) from logits: SUBS | [`Subs::log_p_x0`], [`Subs::support`] |
//! | t = ε′ + (1 − ε′) u | [`Masking::time`] |
//! | w(t) · Σ_masked −log p(x_0 \| x_t), the bound of eq. 10 | [`Masking::level`] has w(t), [`Objective::noise`] draws t and the mask |
//! | the same with both ends of the noise levels | [`Masking::level_of_bound`] |
//! | T (α_s − α_t) / (1 − α_t) · Σ_masked −log p(x_0 \| x_t), discrete time, eq. 43 | [`Masking::step`], [`Masking::step_of_bound`] |
//! | log m uniform: importance sampling, change of variables (appendix C.3) | [`Mdlm::importance_level`] |
//! | m uniform between limits (arXiv 2503.09573) | [`Mdlm::clipped_level`] |
//! | L / k · Σ_masked −log p(x_0 \| x_t), k tokens masked | [`weight_of_count`](super::weight_of_count) |
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
//! the loss leaves them out. What is bounded is then the text given where its padding begins, hence its length. In a row
//! that begins with context, masks fall on scored positions alone ([rows with context](super#rows-with-context)).

use std::ops::Range;

use super::masking::{Masking, one_at_a_time, push_count, push_given, push_one, seen};
use super::{Draw, Given, Method, Objective, Passes};
use crate::diffusion::forward::{Conditioning, ForwardProcess, NoiseLevel, NoisedBatch, RowIndex, Score};
use crate::diffusion::{Posterior, Scores, Subs};
use crate::error::Result;
use crate::kernels::{Loss, VocabSupport};
use crate::manifest::{Bell, BoundEnds, Estimator, MdlmObjective, Times, Weighting};

/// The MDLM objective.
#[derive(Clone, Copy, Debug)]
pub struct Mdlm {
    /// Noise and the draws of it.
    pub masking: Masking,
    /// From logits to log p(x_0 | x_t).
    pub parameterization: Subs,
    /// The distribution of times in training.
    pub times: Times,
    /// The weight of a masked token in training.
    pub weighting: Weighting,
    /// T, where time is discrete.
    pub steps: Option<u32>,
}

impl Mdlm {
    /// The objective with a manifest's settings.
    #[must_use]
    pub fn new(settings: &MdlmObjective, mask: u32, vocabulary: u32, seed: u64) -> Self {
        let mut masking = Masking {
            forward: ForwardProcess::absorbing(settings.noise, mask),
            sampling_epsilon: settings.sampling_epsilon,
            antithetic: settings.antithetic,
            conditioning: Conditioning::None,
            seed,
        };
        if settings.time_conditioning {
            let [first, last] = masking.move_chances();
            masking.conditioning = match settings.times {
                Times::ChangeOfVariables => Conditioning::LogMoveChance { first, last },
                _ => Conditioning::Sigma,
            };
        }
        Self {
            masking,
            parameterization: Subs { mask, vocabulary },
            times: settings.times,
            weighting: settings.weighting,
            steps: settings.steps,
        }
    }

    /// The noise level of a training row at the place u on [0, 1). The expectation of weight · loss is the same for all
    /// distributions of times but the clipped one, which has a part of it.
    #[must_use]
    pub fn level_of_training(&self, u: f64) -> NoiseLevel {
        let masking = &self.masking;
        let level = match (self.steps, self.times) {
            (Some(steps), _) => masking.step(Masking::step_at(u, steps), steps).level,
            (None, Times::Uniform) => masking.level(masking.time(u)),
            (None, Times::Importance | Times::ChangeOfVariables) => self.importance_level(u),
            (None, Times::Bell(bell)) => self.bell_level(bell, u),
            (None, Times::Clipped(limits)) => self.clipped_level([limits.low, limits.high], u),
        };
        match self.weighting {
            Weighting::Elbo => level,
            Weighting::CrossEntropy => NoiseLevel { weight: 1.0, ..level },
        }
    }

    /// The level of a move chance m, of which the density on [0, 1) is p: weighed with 1 / (m p), over the share of times
    /// that are drawn at all.
    fn level_of(&self, move_chance: f64, density: f64) -> NoiseLevel {
        NoiseLevel {
            sigma: -(-move_chance).ln_1p(),
            move_chance,
            weight: 1.0 / (move_chance * density * (1.0 - self.masking.sampling_epsilon)),
        }
    }

    /// log m uniform from m(ε′) to m(1): the weight 1 / (m p(m)) is the same for all m (arXiv 2406.07524, appendix C.3).
    ///
    /// DIFFERENCE: the published code (`mdlm`, `diffusion.py` 858–891) has f = log m from f₀ at σ_min to f_T at σ_max, and
    /// multiplies −log p by −f₀ = 6.908 instead of the width of that range, f_T − f₀ = 6.907: 1.5 · 10⁻⁴ more.
    #[must_use]
    pub fn importance_level(&self, u: f64) -> NoiseLevel {
        let [first, last] = self.masking.move_chances();
        let range = (last / first).ln();
        let move_chance = first * (u * range).exp();
        self.level_of(move_chance, 1.0 / (move_chance * range))
    }

    /// m uniform between two limits (arXiv 2503.09573).
    #[must_use]
    pub fn clipped_level(&self, [low, high]: [f64; 2], u: f64) -> NoiseLevel {
        // Below 1, where σ would be infinite.
        let move_chance = (low + u * (high - low)).min(1.0 - f64::EPSILON);
        self.level_of(move_chance, 1.0 / (high - low))
    }

    /// t of a logistic distribution F cut to [ε′, 1], by inversion of u; the weight is w(t) over the density.
    #[must_use]
    pub fn bell_level(&self, bell: Bell, u: f64) -> NoiseLevel {
        let epsilon = self.masking.sampling_epsilon;
        let cumulative = |t: f64| 1.0 / (1.0 + (-(t - bell.center) / bell.scale).exp());
        let [first, last] = [epsilon, 1.0].map(cumulative);
        let value = first + u * (last - first);
        let t = (bell.center + bell.scale * (value / (1.0 - value)).ln()).clamp(epsilon, 1.0);
        let density = value * (1.0 - value) / bell.scale / (last - first);
        let level = self.masking.level(t);
        NoiseLevel {
            weight: level.weight / (density * (1.0 - epsilon)),
            ..level
        }
    }

    /// The noise level of a draw of the bound, by time.
    fn level_of_draw(&self, draw: &Draw) -> NoiseLevel {
        let masking = &self.masking;
        match (draw.method.steps, draw.method.ends) {
            (Some(steps), _) => masking.step_of_draw(draw, steps).level,
            (None, BoundEnds::Valid) => masking.level_of_bound(draw.offset).level(),
            (None, BoundEnds::Published) => masking.level(masking.time(draw.offset)),
        }
    }
}

impl Objective for Mdlm {
    fn noise(&self, index: RowIndex, _: u32, x: &[u32], valid: usize, into: &mut NoisedBatch) {
        let masking = &self.masking;
        let level = self.level_of_training(masking.place(index));
        let mut uniforms = masking.uniforms(index);
        let score = Score::weight(level.weight);
        into.push(x, &(0..valid), score, masking.input(level), |l| {
            masking.forward.q_xt(level.move_chance, uniforms(l))
        });
    }

    fn passes_of_bound(&self, method: Method, scored: &Range<usize>) -> Passes {
        match method.estimator {
            Estimator::Pseudo => one_at_a_time(scored),
            _ => Passes::DRAWN,
        }
    }

    fn noise_of_bound(
        &self,
        draw: &Draw,
        pass: u32,
        x: &[u32],
        scored: &Range<usize>,
        into: &mut NoisedBatch,
    ) {
        let (masking, mask) = (&self.masking, self.parameterization.mask);
        match draw.method.estimator {
            Estimator::Time | Estimator::Exact => {
                let level = self.level_of_draw(draw);
                let mut uniforms = draw.uniforms();
                let moved = |l| masking.forward.q_xt(level.move_chance, uniforms(l));
                let score = Score::weight(level.weight);
                into.push(x, scored, score, masking.input(level), seen(scored, mask, moved));
            }
            Estimator::Count => push_count(draw, mask, x, scored, into),
            Estimator::Pseudo => push_one(pass, mask, x, scored, into),
        }
    }

    fn method_of_validation(&self) -> Method {
        match self.steps {
            Some(steps) => Method::in_steps(steps),
            None if self.masking.conditioning == Conditioning::None => Method::of(Estimator::Count),
            None => Method::of(Estimator::Time),
        }
    }

    fn given(&self, given: &Given<'_>, _: u32, into: &mut NoisedBatch) -> Result<()> {
        let level = match self.steps {
            Some(steps) => self.masking.step_at_time(given.t, steps)?.level,
            None => self.masking.level(given.t),
        };
        let (score, input) = (Score::weight(level.weight), self.masking.input(level));
        push_given(given, self.parameterization.mask, score, input, into);
        Ok(())
    }

    fn support(&self) -> VocabSupport {
        self.parameterization.support()
    }

    fn loss(&self) -> Loss {
        Loss::CrossEntropy
    }

    fn posterior(&self) -> Option<Posterior> {
        Some(Posterior {
            forward: self.masking.forward,
            conditioning: self.masking.conditioning,
            zero_masking: true,
            scores: Scores::OfProbabilities,
        })
    }
}

#[cfg(any(test, feature = "testing"))]
impl Mdlm {
    /// The default objective with another schedule, for tests: masks below the last id, no time conditioning.
    #[must_use]
    pub fn with_schedule(schedule: crate::diffusion::Noise, mask: u32, seed: u64) -> Self {
        let mut mdlm = Self::new(&MdlmObjective::default(), mask, mask + 1, seed);
        mdlm.masking.forward.schedule = schedule;
        mdlm
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::masked_loss;
    use super::super::{ROW_LEVEL, shift};
    use super::*;
    use crate::diffusion::toy::Distribution;
    use crate::diffusion::{EVERY_SCHEDULE, Noise};
    use crate::rng::{Random, Stream};
    use proptest::prelude::*;
    use rayon::prelude::*;

    fn mdlm(schedule: Noise) -> Mdlm {
        Mdlm::with_schedule(schedule, 3, 5)
    }

    /// E over u of weight · loss, by the midpoint rule on each of the three parts.
    fn integral(mdlm: &Mdlm, loss: impl Fn(f64) -> f64) -> f64 {
        let cuts = [
            0.0,
            mdlm.masking
                .forward
                .schedule
                .move_chance(mdlm.masking.sampling_epsilon),
            mdlm.masking.forward.schedule.move_chance(1.0),
            1.0,
        ];
        let points = 20_000;
        cuts.windows(2)
            .map(|cut| {
                let step = (cut[1] - cut[0]) / f64::from(points);
                let part: f64 = (0..points)
                    .map(|i| {
                        let level = mdlm
                            .masking
                            .level_of_bound(cut[0] + (f64::from(i) + 0.5) * step)
                            .level();
                        level.weight * loss(level.move_chance)
                    })
                    .sum();
                part * step
            })
            .sum()
    }

    #[test]
    fn bound_with_the_exact_posterior_is_the_entropy() {
        let truth = Distribution::random(4, 3, 1);
        let loss = masked_loss(&truth, &truth);
        for schedule in EVERY_SCHEDULE {
            let excess = integral(&mdlm(schedule), &loss) - truth.entropy();
            // Above by what decoding both ends at once costs: of order m(ε′)² and α(1)².
            assert!((-1e-7..2e-4).contains(&excess), "{schedule:?}: {excess}");
        }
    }

    #[test]
    fn bound_is_invariant_to_the_schedule_for_any_denoiser() {
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
    fn published_bound_is_the_bound_without_its_ends() {
        let (truth, wrong) = (Distribution::random(3, 3, 1), Distribution::random(3, 3, 2));
        let loss = masked_loss(&truth, &wrong);
        let published = |mdlm: &Mdlm| {
            let points = 20_000;
            let values = (0..points).map(|i| {
                let level = mdlm
                    .masking
                    .level(mdlm.masking.time((f64::from(i) + 0.5) / f64::from(points)));
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
            (BoundEnds::Published, mdlm.masking.level(mdlm.masking.time(0.0))),
            (BoundEnds::Valid, mdlm.masking.level_of_bound(0.0).level()),
        ] {
            let draw = |row| Draw {
                method: Method {
                    ends,
                    ..Method::default()
                },
                random: Random::new(1, Stream::Evaluate),
                draw: 0,
                row,
                offset: 0.0,
            };
            let mut noised = NoisedBatch::default();
            (0..10_000).for_each(|row| mdlm.noise_of_bound(&draw(row), 0, &[0, 1, 2], &(0..3), &mut noised));
            assert!(noised.weights.iter().all(|&weight| weight == level.weight as f32));
            let share = noised.positions.len() as f64 / 30_000.0;
            assert!((share - level.move_chance).abs() < 1e-3, "{ends:?}: {share}");
        }
    }

    #[test]
    fn count_estimator_has_the_expectation_of_the_time_estimator() {
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
                method: Method::of(Estimator::Count),
                random,
                draw,
                row: 0,
                offset,
            };
            mdlm.noise_of_bound(&draw, 0, &x, &(0..3), &mut noised);
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
    fn count_estimator_draws_counts_and_subsets_uniformly() {
        let mdlm = mdlm(EVERY_SCHEDULE[0]);
        let random = Random::new(3, Stream::Evaluate);
        let mut sets = [0_u32; 16];
        let draws = 24_000;
        for row in 0..draws {
            let mut noised = NoisedBatch::default();
            let offset = random.uniform(1, row, ROW_LEVEL);
            let draw = Draw {
                method: Method::of(Estimator::Count),
                random,
                draw: 0,
                row,
                offset,
            };
            mdlm.noise_of_bound(&draw, 0, &[0, 1, 2, 0], &(0..4), &mut noised);
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
        let mut mdlm = mdlm(EVERY_SCHEDULE[1]);
        mdlm.masking.conditioning = Conditioning::Sigma;
        let row = |index: u32| (0..10).map(|l| (index + l) % 3).collect::<Vec<u32>>();
        let at = |index: u32| RowIndex {
            step: 7,
            row: u64::from(7 * 16 + index),
            index,
            batch: 16,
        };
        let mut together = NoisedBatch::default();
        for index in 0..16 {
            mdlm.noise(at(index), 0, &row(index), 9, &mut together);
        }
        let apart: Vec<NoisedBatch> = (0..16_u32)
            .into_par_iter()
            .map(|index| {
                let mut noised = NoisedBatch::default();
                mdlm.noise(at(index), 0, &row(index), 9, &mut noised);
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
            let mut mdlm = mdlm(EVERY_SCHEDULE[0]);
            mdlm.masking.seed = seed;
            let mut noised = NoisedBatch::default();
            mdlm.noise(RowIndex { step, row: step, index: 0, batch: 1 }, 0, &x, valid, &mut noised);
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
            let chance = mdlm.masking.level(mdlm.masking.time(u)).move_chance;
            for l in 0..x.len() {
                prop_assert_eq!(noised.tokens[l] == 3, uniforms.uniform(step, step, l as u32) < chance);
            }
        }
    }
}
