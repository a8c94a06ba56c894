//! MDLM: masked diffusion with the SUBS parameterization in continuous time (arXiv 2406.07524).
//!
//! The bound on a row x of L tokens (eq. 10), with the masked share m = 1 − α(t) as the variable of integration:
//!
//! ```text
//! NELBO(x) = ∫ w(t) E[Σ_masked −log p(x_l | z_t)] dt = ∫ (1/m) E_m[Σ_masked −log p(x_l | z)] dm,  m from 0 to 1
//! ```
//!
//! so that only m counts, never how fast the schedule runs through it. Two estimators of it:
//!
//! - *time*: t uniform, each token masked with probability m(t), weight w(t);
//! - *count* (arXiv 2502.09992): k uniform on 1..L, a uniformly random k-subset masked, weight L / k. It is the same
//!   integral with the number of masked tokens in place of the share: `∫ m^(k−1) (1 − m)^(L−k) C(L, k) dm = 1 / k`.
//!
//! Padding is treated as the authors do: padded positions are masked like all others and the network sees them, only
//! the loss leaves them out. What is bounded is then the text given where its padding begins, hence its length.

use super::{Noised, Objective, Place, Schedule};
use crate::manifest::{BoundEnds, Estimator, Grid};
use crate::rng::{Random, Stream, unit};

/// The draw that an estimate's rows share takes this position, beyond every token's.
const ROW_LEVEL: u32 = u32::MAX;

/// The MDLM objective.
#[derive(Clone, Copy, Debug)]
pub struct Mdlm {
    /// How noise grows with time.
    pub schedule: Schedule,
    /// ε′: the smallest time drawn.
    pub sampling_epsilon: f64,
    /// Whether the times of a batch are spread evenly.
    pub antithetic: bool,
    /// Whether the network is told the noise level.
    pub time_conditioning: bool,
    /// Id of the mask token.
    pub mask: u32,
    /// Seed of times and masks.
    pub seed: u64,
}

/// A noise level of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// σ(t), for a network that is told.
    pub sigma: f64,
    /// m: probability that a token is masked.
    pub masked: f64,
    /// Weight of a masked token's negative log-likelihood.
    pub weight: f64,
}

/// The low-discrepancy draw of row i among B: (u/B + i/B) mod 1 with u uniform on [0, 1), independent per row
/// (arXiv 2406.07524, appendix C.3; after Kingma et al. 2021).
#[must_use]
pub fn spread(u: f64, index: u32, batch: u32) -> f64 {
    // (u + i) / B < 1 but for rounding, which the modulus folds back.
    ((u + f64::from(index)) / f64::from(batch)) % 1.0
}

impl Mdlm {
    /// t = ε′ + (1 − ε′) u.
    #[must_use]
    pub fn time(&self, u: f64) -> f64 {
        self.sampling_epsilon + (1.0 - self.sampling_epsilon) * u
    }

    /// The noise at time t, weighed with w(t): the training loss of eq. 10.
    #[must_use]
    pub fn level(&self, t: f64) -> Level {
        Level {
            sigma: self.schedule.sigma(t),
            masked: self.schedule.masked(t),
            weight: self.schedule.weight(t),
        }
    }

    /// The noise level at u uniform on [0, 1) whose expectation of weight · Σ −log p is a bound without gaps.
    ///
    /// Training draws t from [ε′, 1] and so leaves out both ends of the masked share: m < m(ε′), where the weight has
    /// no bounded variance, and m > m(1), which a schedule with α(1) > 0 never reaches. Here the shares of u are
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
    /// nats of a masked token at masked share m, B this bound and A that mean, both per token,
    ///
    /// ```text
    /// A = (B − m(ε′) f(m(ε′)) − α(1) f(1)) / (1 − ε′),   with the defaults (B − 1e-3 f(0) − 1e-3 f(1)) / (1 − 1e-3).
    /// ```
    #[must_use]
    pub fn level_of_bound(&self, u: f64) -> Level {
        let first = self.schedule.masked(self.sampling_epsilon);
        let last = self.schedule.masked(1.0);
        if u < first {
            return Level {
                sigma: self.schedule.sigma(self.sampling_epsilon),
                masked: first,
                weight: 1.0 / first,
            };
        }
        if u >= last {
            return Level {
                sigma: self.schedule.sigma(1.0),
                masked: 1.0,
                weight: 1.0,
            };
        }
        let t = self.time((u - first) / (last - first));
        Level {
            sigma: self.schedule.sigma(t),
            masked: self.schedule.masked(t),
            weight: self.schedule.weight(t) * (1.0 - self.sampling_epsilon) / (last - first),
        }
    }

    /// Appends the row `x` under the noise of one Monte-Carlo draw of the bound. The expectation of
    /// Σ weight · −log p over the row's positions is its NELBO in nats; of the published kind, the mean of eq. 10 over
    /// [ε′, 1], which only the estimator by time has.
    pub fn noise_of_bound(&self, draw: Draw, x: &[u32], counted: usize, into: &mut Noised) {
        match draw.estimator {
            Estimator::Time => {
                let level = match draw.ends {
                    BoundEnds::Valid => self.level_of_bound(draw.offset),
                    BoundEnds::Published => self.level(self.time(draw.offset)),
                };
                let told = self.time_conditioning.then_some(level.sigma);
                let mut uniforms = draw.uniforms();
                into.push_masked(x, counted, self.mask, level.weight, told, |l| {
                    uniforms(l) < level.masked
                });
            }
            Estimator::Count => {
                let length = x.len();
                let count = ((draw.offset * length as f64) as usize).min(length - 1) + 1;
                let mut keys: Vec<_> = (0..length).map(|l| (draw.bits(l), l)).collect();
                // The k smallest of independent keys are a uniformly random k-subset; ties go by position.
                let last = *keys.select_nth_unstable(count - 1).1;
                let weight = length as f64 / count as f64;
                into.push_masked(x, counted, self.mask, weight, None, |l| (draw.bits(l), l) <= last);
            }
        }
    }

    /// The masked share at boundary `i` of a reverse chain of `steps` steps, from 1 at boundary 0 to 0 at the last.
    ///
    /// Between them it is 1 − α(t) at t = 1 − i / steps. The ends are exact by construction, also for a schedule with
    /// α(1) > 0 or α(0) < 1: the chain begins all masked, and its last step unmasks whatever is left.
    #[must_use]
    pub fn share(&self, i: u32, steps: u32) -> f64 {
        if i == 0 {
            1.0
        } else if i >= steps {
            0.0
        } else {
            self.schedule.masked(1.0 - f64::from(i) / f64::from(steps))
        }
    }

    /// The probability that a token masked at boundary `i` is unmasked in the step to the next one:
    /// (α(s) − α(t)) / (1 − α(t)) = 1 − m(s) / m(t) (arXiv 2406.07524, eq. 7).
    ///
    /// DIFFERENCE: m is 1 at the first boundary, where the published samplers have m(1) = 1 − α(1) ([`Grid::Published`]). Of
    /// T steps of the log-linear schedule the first unmasks 1/T + ε (1 − 1/T) here, and 1/T there.
    #[must_use]
    pub fn unmask_chance(&self, i: u32, steps: u32, grid: Grid) -> f64 {
        let share = match grid {
            Grid::Published if i == 0 => self.schedule.masked(1.0),
            _ => self.share(i, steps),
        };
        1.0 - self.share(i + 1, steps) / share
    }
}

/// One Monte-Carlo draw of a row's bound, named among the random numbers.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// How the bound is estimated.
    pub estimator: Estimator,
    /// What of the noise levels it covers.
    pub ends: BoundEnds,
    /// The stream that masks come from.
    pub random: Random,
    /// Which draw of the row.
    pub draw: u64,
    /// Which row of the split.
    pub row: u64,
    /// On [0, 1), uniform over draws: places the time or the count.
    pub offset: f64,
}

impl Draw {
    fn bits(&self, position: usize) -> u64 {
        self.random.bits(self.draw, self.row, position as u32)
    }

    /// Uniforms by ascending position.
    fn uniforms(&self) -> impl FnMut(usize) -> f64 {
        ascending(self.random, self.draw, self.row)
    }
}

/// A shift of the times of a draw that is common to all rows: uniform on [0, 1).
#[must_use]
pub fn shift(random: Random, draw: u64) -> f64 {
    random.uniform(draw, 0, ROW_LEVEL)
}

/// [`Random::uniform`] for positions 0, 1, 2, … in this order: a block of the generator serves two of them.
fn ascending(random: Random, step: u64, row: u64) -> impl FnMut(usize) -> f64 {
    let mut words = [0; 4];
    move |l| {
        if l.is_multiple_of(2) {
            words = random.block(step, row, l as u32 / 2);
        }
        let pair = if l.is_multiple_of(2) {
            [words[0], words[1]]
        } else {
            [words[2], words[3]]
        };
        unit(u64::from(pair[0]) | u64::from(pair[1]) << 32)
    }
}

impl Objective for Mdlm {
    fn noise(&self, place: Place, x: &[u32], counted: usize, into: &mut Noised) {
        let u = Random::new(self.seed, Stream::Time).uniform(place.step, place.row, 0);
        let u = if self.antithetic {
            spread(u, place.index, place.batch)
        } else {
            u
        };
        let level = self.level(self.time(u));
        let told = self.time_conditioning.then_some(level.sigma);
        let mut uniforms = ascending(Random::new(self.seed, Stream::Mask), place.step, place.row);
        into.push_masked(x, counted, self.mask, level.weight, told, |l| {
            uniforms(l) < level.masked
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::EVERY_SCHEDULE;
    use crate::model::toy::Distribution;
    use proptest::prelude::*;
    use rayon::prelude::*;

    fn mdlm(schedule: Schedule) -> Mdlm {
        Mdlm {
            schedule,
            sampling_epsilon: 1e-3,
            antithetic: true,
            time_conditioning: false,
            mask: 3,
            seed: 5,
        }
    }

    /// E over rows of `truth` and masks with share m of `Σ_masked −log q(x_l | z)`, by enumeration.
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
            mdlm.schedule.masked(mdlm.sampling_epsilon),
            mdlm.schedule.masked(1.0),
            1.0,
        ];
        let points = 20_000;
        cuts.windows(2)
            .map(|cut| {
                let step = (cut[1] - cut[0]) / f64::from(points);
                let part: f64 = (0..points)
                    .map(|i| {
                        let level = mdlm.level_of_bound(cut[0] + (f64::from(i) + 0.5) * step);
                        level.weight * loss(level.masked)
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
            // Above by what decoding the first and last share at once costs: of order m(ε′)² and α(1)².
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
                level.weight * loss(level.masked)
            });
            values.sum::<f64>() / f64::from(points)
        };
        for schedule in EVERY_SCHEDULE {
            let mdlm = mdlm(schedule);
            let (first, last) = (schedule.masked(1e-3), schedule.alpha(1.0));
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
            let mut noised = Noised::default();
            (0..10_000).for_each(|row| mdlm.noise_of_bound(draw(row), &[0, 1, 2], 3, &mut noised));
            assert!(noised.weights.iter().all(|&weight| weight == level.weight as f32));
            let share = noised.positions.len() as f64 / 30_000.0;
            assert!((share - level.masked).abs() < 1e-3, "{ends:?}: {share}");
        }
    }

    #[test]
    fn the_published_grid_unmasks_less_at_first() {
        let mdlm = mdlm(EVERY_SCHEDULE[0]);
        for steps in [2, 128, 10_000] {
            let part = 1.0 / f64::from(steps);
            let chance = |i, grid| mdlm.unmask_chance(i, steps, grid);
            assert!((chance(0, Grid::Published) - part).abs() < 1e-12);
            assert!((chance(0, Grid::Exact) - (part + 1e-3 * (1.0 - part))).abs() < 1e-12);
            for i in 1..steps {
                assert_eq!(chance(i, Grid::Published), chance(i, Grid::Exact));
            }
        }
        // Of 1024 tokens in 10,000 steps: 0.10 and 1.13.
        let tokens = |grid| 1024.0 * mdlm.unmask_chance(0, 10_000, grid);
        assert_eq!(
            format!("{:.2} {:.2}", tokens(Grid::Published), tokens(Grid::Exact)),
            "0.10 1.13"
        );
        assert_eq!(mdlm.unmask_chance(0, 1, Grid::Published), 1.0);
    }

    #[test]
    fn the_count_estimator_has_the_same_expectation() {
        let truth = Distribution::random(3, 3, 3);
        let mdlm = mdlm(EVERY_SCHEDULE[0]);
        let random = Random::new(9, Stream::Evaluate);
        let mut noised = Noised::default();
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
            let mut noised = Noised::default();
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
    fn antithetic_times_are_one_a_stratum_and_uniform() {
        let batch = 8;
        let mut bins = [0_u32; 64];
        let random = Random::new(1, Stream::Time);
        for step in 0..4000 {
            for index in 0..batch {
                let u = spread(random.uniform(step, u64::from(index), 0), index, batch);
                assert_eq!((u * f64::from(batch)) as u32, index, "one time in each stratum");
                bins[(u * 64.0) as usize] += 1;
            }
        }
        let chi: f64 = bins.iter().map(|&n| (f64::from(n) - 500.0).powi(2) / 500.0).sum();
        // 56 degrees of freedom (each stratum's total is fixed), 1e-4 quantile 104.
        assert!(chi < 104.0, "chi-square {chi}");
    }

    #[test]
    fn noise_is_the_same_for_any_grouping_of_rows_and_any_thread() {
        let mdlm = Mdlm {
            time_conditioning: true,
            ..mdlm(EVERY_SCHEDULE[1])
        };
        let row = |index: u32| (0..10).map(|l| (index + l) % 3).collect::<Vec<u32>>();
        let place = |index: u32| Place {
            step: 7,
            row: u64::from(7 * 16 + index),
            index,
            batch: 16,
        };
        let mut together = Noised::default();
        for index in 0..16 {
            mdlm.noise(place(index), &row(index), 9, &mut together);
        }
        let apart: Vec<Noised> = (0..16_u32)
            .into_par_iter()
            .map(|index| {
                let mut noised = Noised::default();
                mdlm.noise(place(index), &row(index), 9, &mut noised);
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
            let counted = (x.len() as f64 * part) as usize;
            let mdlm = Mdlm { seed, ..mdlm(EVERY_SCHEDULE[0]) };
            let mut noised = Noised::default();
            mdlm.noise(Place { step, row: step, index: 0, batch: 1 }, &x, counted, &mut noised);
            let masked: Vec<u32> = (0..x.len() as u32).filter(|&l| noised.tokens[l as usize] == 3).collect();
            for (&z, &x) in noised.tokens.iter().zip(&x) {
                prop_assert!(z == x || z == 3);
            }
            let wanted: Vec<u32> = masked.into_iter().filter(|&l| (l as usize) < counted).collect();
            prop_assert_eq!(&noised.positions, &wanted);
            let truth: Vec<u32> = wanted.iter().map(|&l| x[l as usize]).collect();
            prop_assert_eq!(&noised.targets, &truth);
            prop_assert_eq!(noised.weights.len(), wanted.len());
            prop_assert_eq!(&noised.sigma, &[0.0]);
            let uniforms = Random::new(seed, Stream::Mask);
            let u = Random::new(seed, Stream::Time).uniform(step, step, 0);
            let chance = mdlm.level(mdlm.time(u)).masked;
            for l in 0..x.len() {
                prop_assert_eq!(noised.tokens[l] == 3, uniforms.uniform(step, step, l as u32) < chance);
            }
        }

        #[test]
        fn the_reverse_chain_unmasks_everything(steps in 1_u32..300, index in 0_usize..5) {
            let mdlm = mdlm(EVERY_SCHEDULE[index]);
            let mut masked = 1.0;
            for i in 0..steps {
                let chance = mdlm.unmask_chance(i, steps, Grid::Exact);
                prop_assert!((0.0..=1.0).contains(&chance));
                masked *= 1.0 - chance;
                prop_assert!((masked - mdlm.share(i + 1, steps)).abs() < 1e-9);
            }
            prop_assert_eq!(mdlm.unmask_chance(steps - 1, steps, Grid::Exact), 1.0);
        }
    }
}
