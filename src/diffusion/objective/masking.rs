//! What the objectives of absorbing noise share: how the time of a row is drawn, and what the bound needs at the ends of
//! the noise levels.

use std::ops::Range;

use super::{Draw, Given, Passes};
use crate::diffusion::forward::{
    Conditioning, ForwardProcess, NoiseLevel, NoisedBatch, RowIndex, Score, ascending_uniforms,
    low_discrepancy_time,
};
use crate::error::{Error, Result};
use crate::manifest::BoundEnds;
use crate::rng::{Random, Stream};

/// Absorbing noise and the draws of it.
#[derive(Clone, Copy, Debug)]
pub struct Masking {
    /// The noise schedule and the mask.
    pub forward: ForwardProcess,
    /// ε′: the smallest time drawn.
    pub sampling_epsilon: f64,
    /// Whether the times of a batch are a low-discrepancy draw.
    pub antithetic: bool,
    /// What the network is fed of the noise level.
    pub conditioning: Conditioning,
    /// Seed of the times and masks of training rows.
    pub seed: u64,
}

impl Masking {
    /// u: a training row's place among the times, uniform on [0, 1).
    ///
    /// DIFFERENCE: low-discrepancy times are spread over the whole batch. The published code (`mdlm`, `diffusion.py`
    /// 800–808) spreads them over the rows of one device at a time, and draws the same times and masks on every rank, as all
    /// ranks have one seed: the expectation is the same, the variance larger.
    #[must_use]
    pub fn place(&self, index: RowIndex) -> f64 {
        let u = Random::new(self.seed, Stream::Time).uniform(index.step, index.row, 0);
        if self.antithetic {
            low_discrepancy_time(u, index.index, index.batch)
        } else {
            u
        }
    }

    /// The uniforms by which a training row's tokens are masked, by ascending position.
    pub fn uniforms(&self, index: RowIndex) -> impl FnMut(usize) -> f64 + use<> {
        ascending_uniforms(Random::new(self.seed, Stream::Mask), index.step, index.row)
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

    /// What the network is fed at a noise level.
    #[must_use]
    pub fn input(&self, level: NoiseLevel) -> Option<f64> {
        self.conditioning.input(level.sigma, level.move_chance)
    }

    /// The move chances of the smallest and of the largest time drawn, m(ε′) and m(1).
    #[must_use]
    pub fn move_chances(&self) -> [f64; 2] {
        [self.sampling_epsilon, 1.0].map(|t| self.forward.schedule.move_chance(t))
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
    /// DIFFERENCE: the published number is the mean over t in [ε′, 1] alone
    /// ([`BoundEnds::Published`](crate::manifest::BoundEnds::Published)). With f(m) the mean nats of a masked token at move
    /// chance m, B this bound and A that mean, both per token,
    ///
    /// ```text
    /// A = (B − m(ε′) f(m(ε′)) − α(1) f(1)) / (1 − ε′),   with the defaults (B − 1e-3 f(0) − 1e-3 f(1)) / (1 − 1e-3).
    /// ```
    #[must_use]
    pub fn level_of_bound(&self, u: f64) -> BoundLevel {
        let schedule = self.forward.schedule;
        let [first, last] = self.move_chances();
        if u < first {
            return BoundLevel::End(NoiseLevel {
                sigma: schedule.sigma(self.sampling_epsilon),
                move_chance: first,
                weight: 1.0 / first,
            });
        }
        if u >= last {
            return BoundLevel::End(NoiseLevel {
                sigma: schedule.sigma(1.0),
                move_chance: 1.0,
                weight: 1.0,
            });
        }
        let level = self.level(self.time((u - first) / (last - first)));
        BoundLevel::Between(NoiseLevel {
            weight: level.weight * (1.0 - self.sampling_epsilon) / (last - first),
            ..level
        })
    }
}

/// A noise level of a bound without gaps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BoundLevel {
    /// One at which the masked tokens are decoded at once: their loss is −log p.
    End(NoiseLevel),
    /// One of the integral over t.
    Between(NoiseLevel),
}

impl BoundLevel {
    /// The noise, weighed for losses of −log p.
    #[must_use]
    pub fn level(self) -> NoiseLevel {
        match self {
            Self::End(level) | Self::Between(level) => level,
        }
    }
}

/// One step of a chain in discrete time: from time t = i / T to s = (i − 1) / T.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiscreteStep {
    /// The noise at t; its weight is T (α_s − α_t) / (1 − α_t), the factor of −log p in the bound.
    pub level: NoiseLevel,
    /// T.
    pub steps: u32,
    /// (α_s − α_t) / (1 − α_t): the probability that a token masked at t is not masked at s.
    pub unmask: f64,
    /// α_t / (1 − α_t).
    pub odds: f64,
    /// α_s / (1 − α_s); 0 for the first step, where no token is masked at s and nothing is multiplied with it.
    pub odds_before: f64,
}

impl Masking {
    /// Step i of T, i from 1 to T, as it is trained: at the noisy end, tokens are masked with probability m(1).
    #[must_use]
    pub fn step(&self, i: u32, steps: u32) -> DiscreteStep {
        let schedule = self.forward.schedule;
        let time = |i: u32| f64::from(i) / f64::from(steps);
        let chance = |i: u32| {
            if i == 0 {
                0.0
            } else {
                schedule.move_chance(time(i))
            }
        };
        self.between(i, steps, chance(i), chance(i - 1))
    }

    /// Step i of T as the bound has it, and as the sampler takes it: the chain begins with all tokens masked.
    #[must_use]
    pub fn step_of_bound(&self, i: u32, steps: u32) -> DiscreteStep {
        let step = self.step(i, steps);
        if i < steps {
            return step;
        }
        let before = step.level.move_chance * (1.0 - step.unmask);
        self.between(i, steps, 1.0, before)
    }

    /// Step i of T as the published code computes it (`mdlm`, `diffusion.py` 329–358 and 836–856): masks are drawn with
    /// m(t), and in the loss 1 − α is t itself, at most 1 − 10⁻⁴. Only for log-linear noise, where m(t) is t but for ε
    /// ([`Objective::misfit_of_published`](crate::manifest::Objective::misfit_of_published)).
    ///
    /// DIFFERENCE: with T = 1 the published dt / t exceeds 1 and α_s / (1 − α_s) is negative, so that its loss is NaN where
    /// the mask has a probability. Here the only step unmasks with certainty.
    #[must_use]
    pub fn step_as_published(&self, i: u32, steps: u32) -> DiscreteStep {
        let dt = 1.0 / f64::from(steps);
        let t = f64::from(i) * dt;
        let clamped = t.min(1.0 - 1e-4);
        let before = if i == 1 { 0.0 } else { clamped - dt };
        DiscreteStep {
            level: NoiseLevel {
                weight: 1.0 / clamped,
                ..self.level(t)
            },
            steps,
            unmask: (dt / clamped).min(1.0),
            odds: (1.0 - clamped) / clamped,
            odds_before: if i == 1 { 0.0 } else { (1.0 - before) / before },
        }
    }

    fn between(&self, i: u32, steps: u32, masked: f64, before: f64) -> DiscreteStep {
        let unmask = 1.0 - before / masked;
        DiscreteStep {
            level: NoiseLevel {
                sigma: self.forward.schedule.sigma(f64::from(i) / f64::from(steps)),
                move_chance: masked,
                weight: f64::from(steps) * unmask,
            },
            steps,
            unmask,
            odds: (1.0 - masked) / masked,
            odds_before: if i == 1 { 0.0 } else { (1.0 - before) / before },
        }
    }

    /// The step in which the place u on [0, 1) falls, each as likely as any other.
    #[must_use]
    pub fn step_at(u: f64, steps: u32) -> u32 {
        ((u * f64::from(steps)) as u32).min(steps - 1) + 1
    }

    /// The step of a draw of the bound.
    #[must_use]
    pub fn step_of_draw(&self, draw: &Draw, steps: u32) -> DiscreteStep {
        match draw.method.ends {
            BoundEnds::Valid => self.step_of_bound(Self::step_at(draw.offset, steps), steps),
            // DIFFERENCE: the published times are at least ε′, so that for T ≥ 1/ε′ the first step is never drawn.
            BoundEnds::Published => {
                self.step_as_published(Self::step_at(self.time(draw.offset), steps), steps)
            }
        }
    }

    /// The step whose time is `t`.
    ///
    /// # Errors
    /// [`Input`](crate::error::Kind::Input) where t is not one of 1/T, 2/T, …, 1.
    pub fn step_at_time(&self, t: f64, steps: u32) -> Result<DiscreteStep> {
        let i = (t * f64::from(steps)).round();
        // A time that comes as an f32 is off by 6e-8 of itself.
        // No comparison holds of a NaN.
        if !((1.0..=f64::from(steps)).contains(&i) && (i / f64::from(steps) - t).abs() <= 1e-6 * t) {
            return Err(
                Error::input(format!("time {t} is not a multiple of 1/{steps}")).hint(format!(
                    "the objective has {steps} steps, at 1/{steps}, 2/{steps}, …, 1"
                )),
            );
        }
        Ok(self.step(i as u32, steps))
    }
}

/// The positions that noise falls on. Of a row that begins with context those alone that are scored; of any other all L, its
/// padding too, as in training.
fn noised(scored: &Range<usize>, length: usize) -> Range<usize> {
    if scored.start == 0 {
        0..length
    } else {
        scored.clone()
    }
}

/// What the network sees at each position in place of its token, where `moved` says what noise makes of it: in a row that
/// begins with context nothing before the scored positions, and the mask behind them.
pub(super) fn seen(
    scored: &Range<usize>,
    mask: u32,
    mut moved: impl FnMut(usize) -> Option<u32>,
) -> impl FnMut(usize) -> Option<u32> {
    let scored = scored.clone();
    move |l| {
        // Asked at every position: its random numbers are drawn by ascending position.
        let to = moved(l);
        if scored.start == 0 || scored.contains(&l) {
            to
        } else {
            (l >= scored.end).then_some(mask)
        }
    }
}

/// A uniformly random subset of k of the n positions that noise falls on is masked, k uniform on 1..n by the draw's offset:
/// see [`Estimator::Count`](crate::manifest::Estimator::Count).
pub(super) fn push_count(draw: &Draw, mask: u32, x: &[u32], scored: &Range<usize>, into: &mut NoisedBatch) {
    let positions = noised(scored, x.len());
    let length = positions.len();
    let count = ((draw.offset * length as f64) as usize).min(length - 1) + 1;
    let mut keys: Vec<_> = positions.map(|l| (draw.bits(l), l)).collect();
    // The k smallest of independent keys are a uniformly random k-subset; ties go by position.
    let last = *keys.select_nth_unstable(count - 1).1;
    into.push(
        x,
        scored,
        Score::weight(weight_of_count(length, count)),
        None,
        seen(scored, mask, |l| ((draw.bits(l), l) <= last).then_some(mask)),
    );
}

/// n / k: the factor of each of k masked tokens' negative log-likelihood where their number is drawn, not the time
/// (arXiv 2502.09992).
#[must_use]
pub fn weight_of_count(length: usize, count: usize) -> f64 {
    length as f64 / count as f64
}

/// A pass for each of the positions that [`push_one`] masks.
pub(super) fn one_at_a_time(scored: &Range<usize>) -> Passes {
    Passes::fixed(scored.len().max(1) as u32)
}

/// The row with one of its scored positions masked, by its number among them: a term of the pseudo-log-likelihood
/// Σ_l log p(x_l | x without x_l) (arXiv 1902.04094).
pub(super) fn push_one(number: u32, mask: u32, x: &[u32], scored: &Range<usize>, into: &mut NoisedBatch) {
    let position = scored.start + number as usize;
    into.push(
        x,
        scored,
        Score::weight(1.0),
        None,
        seen(scored, mask, |l| (l == position).then_some(mask)),
    );
}

/// The row as it is noised already: masked positions are scored.
pub(super) fn push_given(
    given: &Given<'_>,
    mask: u32,
    score: Score,
    input: Option<f64>,
    into: &mut NoisedBatch,
) {
    into.push(given.x0, &(0..given.x0.len()), score, input, |l| {
        (given.xt[l] == mask && given.x0[l] != mask).then_some(mask)
    });
}
