//! The reverse step: q(x_s | x_t, x̂_0) of the absorbing process, on a grid of times.

use super::{Conditioning, ForwardProcess};
use crate::manifest::Grid;

/// q(x_s | x_t, x̂_0) (arXiv 2406.07524, eq. 7): in the step from time t to s < t a token that is not masked stays, and a
/// masked one takes a value drawn from x̂_0 with probability (α(s) − α(t)) / (1 − α(t)), or else stays masked.
///
/// So it is where x̂_0 is never the mask ([`Posterior::zero_masking`]). D3PM's network gives the mask a probability, too; the
/// reverse step is then [`Posterior::unmask_probability_beside_mask`].
///
/// A chain of `steps` steps has the boundaries i = 0 (all masked) to `steps` (nothing masked), at times 1 − i / steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterior {
    /// The process that is reversed.
    pub forward: ForwardProcess,
    /// What the network is fed of the noise level.
    pub conditioning: Conditioning,
    /// Whether the network gives the mask no probability, as SUBS does and D3PM does not.
    pub zero_masking: bool,
    /// What scores the network's logits are.
    pub scores: Scores,
}

/// The scores s_y(x_t) = p_t(x with y in the place of the mask) / p_t(x) of a masked position, from its logits z.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scores {
    /// r p_y of p = softmax(z), r = 1 / (e^σ − 1): those of a network that predicts x_0 (arXiv 2406.07524, appendix on SEDD).
    /// Their sum is r.
    OfProbabilities,
    /// exp(z_y) r / `tokens`, as SEDD's network gives them (arXiv 2310.16834): their sum can be anything.
    OfLogits {
        /// V − 1, the tokens that are not the mask.
        tokens: f64,
    },
}

/// log (e^x − 1) for x > 0, also where e^x overflows.
fn log_exp_m1(x: f64) -> f64 {
    x + (-(-x).exp_m1()).ln()
}

impl Posterior {
    /// The token that the chain begins with at every position.
    #[must_use]
    pub fn mask(&self) -> u32 {
        self.forward.mask()
    }

    /// The expected fraction of masked tokens at boundary `i` of a chain of `steps` steps, from 1 at boundary 0 to 0 at
    /// the last.
    ///
    /// Between them it is 1 − α(t) at t = 1 − i / steps. The ends are exact by construction, also for a schedule with
    /// α(1) > 0 or α(0) < 1: the chain begins all masked, and its last step unmasks whatever is left.
    #[must_use]
    pub fn masked_fraction(&self, i: u32, steps: u32) -> f64 {
        if i == 0 {
            1.0
        } else if i >= steps {
            0.0
        } else {
            self.forward.schedule.move_chance(time(i, steps))
        }
    }

    /// The probability that a token masked at boundary `i` is unmasked in the step to the next one:
    /// (α(s) − α(t)) / (1 − α(t)) = 1 − m(s) / m(t), m the masked fraction (arXiv 2406.07524, eq. 7).
    ///
    /// DIFFERENCE: m is 1 at the first boundary, where the published samplers have m(1) = 1 − α(1) ([`Grid::Published`]). Of
    /// T steps of the log-linear schedule the first unmasks 1/T + ε (1 − 1/T) here, and 1/T there.
    #[must_use]
    pub fn unmask_probability(&self, i: u32, steps: u32, grid: Grid) -> f64 {
        1.0 - self.masked_fraction(i + 1, steps) / self.fraction_before(i, steps, grid)
    }

    /// The same where the network gives the mask the probability μ = p(m) at that token (D3PM, arXiv 2107.03006, eq. 4:
    /// p(x_s | x_t) ∝ Σ_x̃ q(x_s, x_t | x̃) p(x̃), x̃ any token). With x_t masked:
    ///
    /// ```text
    /// x_s = v ≠ m   (α(s) − α(t)) p(v)         that x̃ = v is kept until s, and masked until t
    /// x_s = m       1 − α(s) + α(s) μ          that x̃ ≠ m is masked until s, or that x̃ = m
    /// their sum     1 − α(t) + α(t) μ
    /// unmasked      (α(s) − α(t)) (1 − μ) / (1 − α(t) + α(t) μ)
    /// ```
    ///
    /// An unmasked token is drawn from p without the mask. With μ = 0 it is [`Posterior::unmask_probability`].
    ///
    /// DIFFERENCE: the published `ddpm` sampler gives x_s = m the weight 1 − α(s) alone, without α(s) μ. It unmasks more tokens
    /// than the model's reverse step does.
    #[must_use]
    pub fn unmask_probability_beside_mask(
        &self,
        i: u32,
        steps: u32,
        grid: Grid,
        mask_probability: f64,
    ) -> f64 {
        let (before, after) = (
            self.fraction_before(i, steps, grid),
            self.masked_fraction(i + 1, steps),
        );
        (before - after) * (1.0 - mask_probability) / (before + (1.0 - before) * mask_probability)
    }

    /// The masked fraction that the step from boundary `i` takes as given.
    fn fraction_before(&self, i: u32, steps: u32, grid: Grid) -> f64 {
        match grid {
            Grid::Published if i == 0 => self.forward.schedule.move_chance(1.0),
            _ => self.masked_fraction(i, steps),
        }
    }

    /// The probability that a token masked at boundary `i` is unmasked in the step to the next one, by the scores of its
    /// position (Tweedie τ-leaping, arXiv 2310.16834, section 4.2): (e^Δσ − 1) Σ_y s_y, Δσ = σ(t) − σ(s). `log_sum_exp` is that of
    /// its logits. The last step unmasks what is left, as the published code's denoiser does.
    ///
    /// Of scores that are r times probabilities it is [`Posterior::unmask_probability`] on the published grid:
    /// (e^Δσ − 1) / (e^σ(t) − 1) = (α(s) − α(t)) / (1 − α(t)).
    #[must_use]
    pub fn unmask_probability_analytic(&self, i: u32, steps: u32, log_sum_exp: f64) -> f64 {
        if i + 1 >= steps {
            return 1.0;
        }
        let sigma = |i| self.forward.schedule.sigma(time(i, steps));
        let log_growth = log_exp_m1(sigma(i) - sigma(i + 1));
        (log_growth + self.log_total_score(sigma(i), log_sum_exp))
            .exp()
            .min(1.0)
    }

    /// The same by an Euler step of the reverse process: Δt σ′(t) Σ_y s_y, at most 1 (arXiv 2310.16834, section 4.2).
    #[must_use]
    pub fn unmask_probability_euler(&self, i: u32, steps: u32, log_sum_exp: f64) -> f64 {
        if i + 1 >= steps {
            return 1.0;
        }
        let (t, schedule) = (time(i, steps), self.forward.schedule);
        let log_rate = (schedule.sigma_rate(t) / f64::from(steps)).ln();
        (log_rate + self.log_total_score(schedule.sigma(t), log_sum_exp))
            .exp()
            .min(1.0)
    }

    /// log Σ_y s_y of a position with that log-sum-exp, at noise σ.
    fn log_total_score(&self, sigma: f64, log_sum_exp: f64) -> f64 {
        let own = match self.scores {
            Scores::OfProbabilities => 0.0,
            Scores::OfLogits { tokens } => log_sum_exp - tokens.ln(),
        };
        own - log_exp_m1(sigma)
    }

    /// What is fed to the network at the noise level where the share `alpha` of the tokens is unmasked, or 0 for a network
    /// without time conditioning.
    #[must_use]
    pub fn sigma_of_alpha(&self, alpha: f64) -> f64 {
        let last = self.forward.schedule.sigma(1.0);
        let sigma = if alpha > 0.0 {
            (-alpha.ln()).min(last)
        } else {
            last
        };
        self.conditioning.input(sigma, 1.0 - alpha).unwrap_or(0.0)
    }

    /// What is fed to the network at boundary `i`: σ of its time, or 0 for a network without time conditioning.
    #[must_use]
    pub fn sigma(&self, i: u32, steps: u32) -> f64 {
        let schedule = self.forward.schedule;
        let t = time(i, steps);
        self.conditioning
            .input(schedule.sigma(t), schedule.move_chance(t))
            .unwrap_or(0.0)
    }
}

/// The time of a boundary.
fn time(i: u32, steps: u32) -> f64 {
    1.0 - f64::from(i) / f64::from(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{EVERY_SCHEDULE, Noise, Prior};
    use proptest::prelude::*;

    fn posterior(schedule: Noise) -> Posterior {
        Posterior {
            forward: ForwardProcess {
                schedule,
                prior: Prior::Mask(3),
            },
            conditioning: Conditioning::None,
            zero_masking: true,
            scores: Scores::OfProbabilities,
        }
    }

    #[test]
    fn analytic_step_by_probabilities_is_the_reverse_step_on_the_published_grid() {
        for schedule in EVERY_SCHEDULE {
            let posterior = posterior(schedule);
            for steps in [1, 2, 7, 1000] {
                for i in 0..steps {
                    let reverse = posterior.unmask_probability(i, steps, Grid::Published);
                    // Whatever the logits sum to.
                    for log_sum_exp in [0.0, 3.0] {
                        let analytic = posterior.unmask_probability_analytic(i, steps, log_sum_exp);
                        // σ(t) − σ(s) cancels where both are near 1e-3.
                        assert!((analytic - reverse).abs() < 1e-9, "{analytic} is not {reverse}");
                    }
                }
            }
        }
        // Where e^σ overflows: σ goes to 1e6.
        let steep = posterior(Noise::Linear(crate::manifest::NoiseRange {
            sigma_min: 1e-3,
            sigma_max: 1e6,
        }));
        assert!(steep.unmask_probability_analytic(0, 10, 0.0) < 1e-300);
        assert!(steep.unmask_probability_euler(0, 10, 0.0) < 1e-300);
    }

    /// The definitions, with the scores written out: two tokens and the mask.
    #[test]
    fn scores_of_logits_unmask_by_their_sum() {
        let posterior = Posterior {
            conditioning: Conditioning::Sigma,
            scores: Scores::OfLogits { tokens: 2.0 },
            ..posterior(EVERY_SCHEDULE[0])
        };
        let (i, steps) = (3, 8);
        let (t, s): (f64, f64) = (1.0 - 3.0 / 8.0, 1.0 - 4.0 / 8.0);
        let sigma = |t: f64| -(1.0 - (1.0 - 1e-3) * t).ln();
        for logits in [[0.3_f64, -0.2], [-1.0, 0.5]] {
            let score = |z: f64| z.exp() / (sigma(t).exp_m1() * 2.0);
            let total: f64 = logits.map(score).iter().sum();
            let log_sum_exp = logits.map(f64::exp).iter().sum::<f64>().ln();
            // Of arXiv 2310.16834: the staggered score of the mask, times the transition from the mask to itself.
            let growth = (sigma(t) - sigma(s)).exp();
            let stays = growth + (1.0 - growth) * (1.0 + total);
            let analytic = posterior.unmask_probability_analytic(i, steps, log_sum_exp);
            assert!((analytic - (1.0 - stays)).abs() < 1e-12, "{analytic}");
            let rate = (1.0 - 1e-3) / (1.0 - (1.0 - 1e-3) * t);
            let euler = posterior.unmask_probability_euler(i, steps, log_sum_exp);
            assert!((euler - rate * total / 8.0).abs() < 1e-12, "{euler}");
        }
        assert_eq!(
            posterior.unmask_probability_analytic(0, 8, 50.0),
            1.0,
            "at most 1"
        );
        assert_eq!(
            posterior.unmask_probability_euler(7, 8, -50.0),
            1.0,
            "the last step"
        );
    }

    #[test]
    fn noise_of_an_unmasked_share_is_that_of_its_time() {
        let conditioned = Posterior {
            conditioning: Conditioning::Sigma,
            ..posterior(EVERY_SCHEDULE[1])
        };
        for t in [0.1, 0.5, 0.9] {
            let schedule = EVERY_SCHEDULE[1];
            let found = conditioned.sigma_of_alpha(schedule.alpha(t));
            assert!((found - schedule.sigma(t)).abs() < 1e-12);
        }
        assert_eq!(conditioned.sigma_of_alpha(0.0), EVERY_SCHEDULE[1].sigma(1.0));
        assert_eq!(posterior(EVERY_SCHEDULE[1]).sigma_of_alpha(0.5), 0.0);
    }

    #[test]
    fn published_grid_unmasks_less_at_first() {
        let posterior = posterior(EVERY_SCHEDULE[0]);
        for steps in [2, 128, 10_000] {
            let part = 1.0 / f64::from(steps);
            let chance = |i, grid| posterior.unmask_probability(i, steps, grid);
            assert!((chance(0, Grid::Published) - part).abs() < 1e-12);
            assert!((chance(0, Grid::Exact) - (part + 1e-3 * (1.0 - part))).abs() < 1e-12);
            for i in 1..steps {
                assert_eq!(chance(i, Grid::Published), chance(i, Grid::Exact));
            }
        }
        // Of 1024 tokens in 10,000 steps: 0.10 and 1.13.
        let tokens = |grid| 1024.0 * posterior.unmask_probability(0, 10_000, grid);
        assert_eq!(
            format!("{:.2} {:.2}", tokens(Grid::Published), tokens(Grid::Exact)),
            "0.10 1.13"
        );
        assert_eq!(posterior.unmask_probability(0, 1, Grid::Published), 1.0);
    }

    #[test]
    fn time_conditioning_gets_sigma_of_the_boundary() {
        let conditioned = Posterior {
            conditioning: Conditioning::Sigma,
            ..posterior(EVERY_SCHEDULE[1])
        };
        for i in 0..=4 {
            let t = 1.0 - f64::from(i) / 4.0;
            assert_eq!(conditioned.sigma(i, 4), EVERY_SCHEDULE[1].sigma(t));
            assert_eq!(posterior(EVERY_SCHEDULE[1]).sigma(i, 4), 0.0);
        }
    }

    proptest! {
        /// The definition: a sum over x̃ of two forward steps, at three tokens and the mask.
        #[test]
        fn reverse_step_beside_the_mask_is_bayes_over_every_token(
            steps in 1_u32..50, index in 0_usize..5, i in 0_u32..50, weights in proptest::array::uniform4(1e-3_f64..1.0),
        ) {
            let posterior = posterior(EVERY_SCHEDULE[index]);
            let i = i % steps;
            let total: f64 = weights.iter().sum();
            let p = weights.map(|weight| weight / total);
            let alpha = |i| 1.0 - posterior.masked_fraction(i, steps);
            let (before, after) = (alpha(i), alpha(i + 1));
            // q(x_s, x_t = m | x̃): x̃ is kept until s and masked then, or masked by s already; the mask (token 3) stays.
            let q = |x_s: usize, x: usize| match (x_s, x) {
                (3, 3) => 1.0,
                (3, _) => 1.0 - after,
                (_, _) if x_s == x => after * (1.0 - before / after),
                _ => 0.0,
            };
            let joint: Vec<f64> = (0..4).map(|x_s| (0..4).map(|x| q(x_s, x) * p[x]).sum()).collect();
            let unmasked = joint[..3].iter().sum::<f64>() / joint.iter().sum::<f64>();
            let found = posterior.unmask_probability_beside_mask(i, steps, Grid::Exact, p[3]);
            // 1 − α cancels; the sum that divides is at least 3e-4.
            prop_assert!((found - unmasked).abs() < 1e-11, "{found} is not {unmasked}");
            for grid in [Grid::Exact, Grid::Published] {
                let without = posterior.unmask_probability_beside_mask(i, steps, grid, 0.0);
                prop_assert!((without - posterior.unmask_probability(i, steps, grid)).abs() < 1e-12);
                prop_assert_eq!(posterior.unmask_probability_beside_mask(i, steps, grid, 1.0), 0.0);
            }
        }

        #[test]
        fn reverse_chain_unmasks_everything(steps in 1_u32..300, index in 0_usize..5) {
            let posterior = posterior(EVERY_SCHEDULE[index]);
            let mut masked = 1.0;
            for i in 0..steps {
                let chance = posterior.unmask_probability(i, steps, Grid::Exact);
                prop_assert!((0.0..=1.0).contains(&chance));
                masked *= 1.0 - chance;
                prop_assert!((masked - posterior.masked_fraction(i + 1, steps)).abs() < 1e-9);
            }
            prop_assert_eq!(posterior.unmask_probability(steps - 1, steps, Grid::Exact), 1.0);
        }
    }
}
