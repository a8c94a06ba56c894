//! Noise schedules: how likely a token is masked at time t, and how fast that changes.

use std::f64::consts::{FRAC_PI_2, FRAC_PI_4, PI};

use crate::manifest::{Noise, NoiseEpsilon, NoiseRange};

/// The noise schedule of the absorbing forward process (arXiv 2406.07524, section 3.1 and appendix E): at time
/// t ∈ [0, 1] each token is kept with probability α(t) = e^(−σ(t)) and is the mask otherwise. The rates dσ/dt are the
/// exact derivatives of σ, as in the published code: only so is the bound invariant to the schedule. The formulas of σ are
/// in the comments of the variants.
impl Noise {
    /// The total noise σ(t) = −log α(t).
    #[must_use]
    pub fn sigma(self, t: f64) -> f64 {
        match self {
            Self::Linear(NoiseRange { sigma_min, sigma_max }) => sigma_min + t * (sigma_max - sigma_min),
            Self::Geometric(NoiseRange { sigma_min, sigma_max }) => {
                sigma_min * (sigma_max / sigma_min).powf(t)
            }
            _ => -self.alpha(t).ln(),
        }
    }

    /// The noise rate dσ/dt.
    #[must_use]
    pub fn sigma_rate(self, t: f64) -> f64 {
        match self {
            Self::LogLinear(NoiseEpsilon { epsilon }) => (1.0 - epsilon) / self.alpha(t),
            Self::Cosine(NoiseEpsilon { epsilon }) => {
                FRAC_PI_2 * (1.0 - epsilon) * (FRAC_PI_2 * t).sin() / self.alpha(t)
            }
            Self::CosineSquared(NoiseEpsilon { epsilon }) => {
                FRAC_PI_2 * (1.0 - epsilon) * (PI * t).sin() / self.alpha(t)
            }
            Self::Linear(NoiseRange { sigma_min, sigma_max }) => sigma_max - sigma_min,
            Self::Geometric(NoiseRange { sigma_min, sigma_max }) => {
                self.sigma(t) * (sigma_max / sigma_min).ln()
            }
        }
    }

    /// α(t): the probability that a token has kept its value.
    #[must_use]
    pub fn alpha(self, t: f64) -> f64 {
        match self {
            Self::LogLinear(NoiseEpsilon { epsilon }) => epsilon + (1.0 - epsilon) * (1.0 - t),
            Self::Cosine(NoiseEpsilon { epsilon }) => epsilon + (1.0 - epsilon) * (FRAC_PI_2 * t).cos(),
            Self::CosineSquared(NoiseEpsilon { epsilon }) => {
                epsilon + (1.0 - epsilon) * (FRAC_PI_2 * t).cos().powi(2)
            }
            Self::Linear(_) | Self::Geometric(_) => (-self.sigma(t)).exp(),
        }
    }

    /// 1 − α(t): the probability that a token has moved to the mask, without the cancellation near t = 0.
    #[must_use]
    pub fn move_chance(self, t: f64) -> f64 {
        match self {
            Self::LogLinear(NoiseEpsilon { epsilon }) => (1.0 - epsilon) * t,
            // 1 − cos 2a = 2 sin² a
            Self::Cosine(NoiseEpsilon { epsilon }) => (1.0 - epsilon) * 2.0 * (FRAC_PI_4 * t).sin().powi(2),
            Self::CosineSquared(NoiseEpsilon { epsilon }) => (1.0 - epsilon) * (FRAC_PI_2 * t).sin().powi(2),
            Self::Linear(_) | Self::Geometric(_) => -(-self.sigma(t)).exp_m1(),
        }
    }

    /// w(t) = (dσ/dt) / (e^σ(t) − 1) = (dσ/dt) α(t) / (1 − α(t)): the factor of a masked token's negative
    /// log-likelihood in the continuous-time bound (arXiv 2406.07524, eq. 10; there written −α′/(1 − α)).
    /// 1/t for the log-linear schedule.
    #[must_use]
    pub fn loss_weight(self, t: f64) -> f64 {
        self.sigma_rate(t) * self.alpha(t) / self.move_chance(t)
    }
}

/// A schedule of each kind, for tests.
#[cfg(any(test, feature = "testing"))]
pub const EVERY_SCHEDULE: [Noise; 5] = [
    Noise::log_linear(1e-3),
    Noise::Cosine(NoiseEpsilon { epsilon: 1e-3 }),
    Noise::CosineSquared(NoiseEpsilon { epsilon: 1e-3 }),
    Noise::Linear(NoiseRange {
        sigma_min: 1e-3,
        sigma_max: 8.0,
    }),
    Noise::Geometric(NoiseRange {
        sigma_min: 1e-3,
        sigma_max: 20.0,
    }),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: f64, b: f64, relative: f64) {
        assert!((a - b).abs() <= relative * b.abs().max(1e-12), "{a} is not {b}");
    }

    proptest! {
        #[test]
        fn sigma_rate_is_the_derivative_of_sigma(t in 0.01f64..0.98, index in 0usize..5) {
            let schedule = EVERY_SCHEDULE[index];
            let h = 1e-6;
            let difference = (schedule.sigma(t + h) - schedule.sigma(t - h)) / (2.0 * h);
            // Central difference: error h² σ‴ / 6 plus rounding 1e-16 σ / h.
            close(difference, schedule.sigma_rate(t), 1e-6);
        }

        #[test]
        fn alpha_sigma_move_chance_and_loss_weight_agree(t in 1e-3f64..1.0, index in 0usize..5) {
            let schedule = EVERY_SCHEDULE[index];
            close(schedule.alpha(t), (-schedule.sigma(t)).exp(), 1e-12);
            close(schedule.move_chance(t), 1.0 - schedule.alpha(t), 1e-9);
            close(schedule.loss_weight(t), schedule.sigma_rate(t) / schedule.sigma(t).exp_m1(), 1e-8);
        }

        #[test]
        fn noise_grows_with_time(t in 0.0f64..0.999, index in 0usize..5) {
            let schedule = EVERY_SCHEDULE[index];
            prop_assert!(schedule.sigma(t + 1e-3) > schedule.sigma(t));
            prop_assert!(schedule.sigma_rate(t + 1e-3) > 0.0);
        }
    }

    #[test]
    fn log_linear_weight_is_one_over_t() {
        for t in [1e-6, 1e-3, 0.1, 0.5, 1.0] {
            close(Noise::log_linear(1e-3).loss_weight(t), 1.0 / t, 1e-12);
        }
    }

    #[test]
    fn alpha_and_sigma_at_both_ends_are_those_of_the_formulas() {
        for schedule in &EVERY_SCHEDULE[..3] {
            close(schedule.alpha(0.0), 1.0, 1e-15);
            close(schedule.alpha(1.0), 1e-3, 1e-12);
            close(schedule.sigma(1.0), -(1e-3f64.ln()), 1e-12);
        }
        close(EVERY_SCHEDULE[3].sigma(0.0), 1e-3, 1e-15);
        close(EVERY_SCHEDULE[3].sigma(1.0), 8.0, 1e-15);
        close(EVERY_SCHEDULE[4].sigma(0.0), 1e-3, 1e-15);
        close(EVERY_SCHEDULE[4].sigma(1.0), 20.0, 1e-14);
    }
}
