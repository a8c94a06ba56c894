//! The reverse step: q(x_s | x_t, x̂_0) of the absorbing process, on a grid of times.

use super::ForwardProcess;
use crate::manifest::Grid;

/// q(x_s | x_t, x̂_0) (arXiv 2406.07524, eq. 7): in the step from time t to s < t a token that is not masked stays, and a
/// masked one takes a value drawn from x̂_0 with probability (α(s) − α(t)) / (1 − α(t)), or else stays masked.
///
/// A chain of `steps` steps has the boundaries i = 0 (all masked) to `steps` (nothing masked), at times 1 − i / steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterior {
    /// The process that is reversed.
    pub forward: ForwardProcess,
    /// Whether the network is fed the noise level.
    pub time_conditioning: bool,
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
        let fraction = match grid {
            Grid::Published if i == 0 => self.forward.schedule.move_chance(1.0),
            _ => self.masked_fraction(i, steps),
        };
        1.0 - self.masked_fraction(i + 1, steps) / fraction
    }

    /// σ fed to the network at boundary `i`: that of its time, or 0 for a network without time conditioning.
    #[must_use]
    pub fn sigma(&self, i: u32, steps: u32) -> f64 {
        if self.time_conditioning {
            self.forward.schedule.sigma(time(i, steps))
        } else {
            0.0
        }
    }
}

/// The time of a boundary.
fn time(i: u32, steps: u32) -> f64 {
    1.0 - f64::from(i) / f64::from(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{EVERY_SCHEDULE, Prior, Schedule};
    use proptest::prelude::*;

    fn posterior(schedule: Schedule) -> Posterior {
        Posterior {
            forward: ForwardProcess {
                schedule,
                prior: Prior::Mask(3),
            },
            time_conditioning: false,
        }
    }

    #[test]
    fn the_published_grid_unmasks_less_at_first() {
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
    fn sigma_is_that_of_the_boundary_where_the_network_is_time_conditioned() {
        let conditioned = Posterior {
            time_conditioning: true,
            ..posterior(EVERY_SCHEDULE[1])
        };
        for i in 0..=4 {
            let t = 1.0 - f64::from(i) / 4.0;
            assert_eq!(conditioned.sigma(i, 4), EVERY_SCHEDULE[1].sigma(t));
            assert_eq!(posterior(EVERY_SCHEDULE[1]).sigma(i, 4), 0.0);
        }
    }

    proptest! {
        #[test]
        fn the_reverse_chain_unmasks_everything(steps in 1_u32..300, index in 0_usize..5) {
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
