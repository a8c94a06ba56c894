//! Estimates with their uncertainty.

use serde::{Deserialize, Serialize};

use crate::numbers;

/// 97.5% quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;
/// 97.5% quantiles of Student's distribution with 1 to 4 degrees of freedom, where the expansion below is off.
const STUDENT: [f64; 4] = [12.706_204_74, 4.302_652_73, 3.182_446_31, 2.776_445_11];

/// A number with its 95% interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    pub value: f64,
    /// Lower end of the 95% interval; absent where the data leave it undefined.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Interval {
    /// value ± t · standard error, t the 97.5% quantile of Student's distribution.
    #[must_use]
    pub fn of(value: f64, standard_error: Option<f64>, degrees_of_freedom: u64) -> Self {
        let half = standard_error.map(|error| error * student(degrees_of_freedom));
        Self {
            value,
            low: half.map(|half| value - half),
            high: half.map(|half| value + half),
        }
    }

    /// Both ends, where they are defined.
    #[must_use]
    pub fn ends(self) -> Option<(f64, f64)> {
        self.low.zip(self.high)
    }

    /// `1.2345 ± 0.0067`.
    #[must_use]
    pub fn plus_minus(self, decimals: usize) -> String {
        numbers::plus_minus(self.value, self.ends(), decimals)
    }

    /// `3.45 (3.40 to 3.50)`: for an interval that is not symmetric.
    #[must_use]
    pub fn with_ends(self, decimals: usize) -> String {
        numbers::with_ends(self.value, self.ends(), decimals, "")
    }

    /// The same interval after a rising function.
    #[must_use]
    pub fn map(self, rising: impl Fn(f64) -> f64) -> Self {
        Self {
            value: rising(self.value),
            low: self.low.map(&rising),
            high: self.high.map(&rising),
        }
    }
}

/// 97.5% quantile of Student's distribution with n > 0 degrees of freedom: Fisher's expansion about the normal one
/// (Abramowitz and Stegun 26.7.5), within 2e-3 from five degrees on.
fn student(n: u64) -> f64 {
    if let Some(&exact) = n.checked_sub(1).and_then(|i| STUDENT.get(i as usize)) {
        return exact;
    }
    let n = n.max(1) as f64;
    let first = (Z.powi(3) + Z) / 4.0;
    let second = (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0;
    let third = (3.0 * Z.powi(7) + 19.0 * Z.powi(5) + 17.0 * Z.powi(3) - 15.0 * Z) / 384.0;
    Z + first / n + second / n.powi(2) + third / n.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn student_quantiles_are_those_of_the_tables() {
        for (n, expected) in [
            (1, 12.706),
            (4, 2.776),
            (5, 2.571),
            (10, 2.228),
            (30, 2.042),
            (1000, 1.962),
        ] {
            assert!((student(n) - expected).abs() < 4e-3, "{n}: {}", student(n));
        }
    }

    #[test]
    fn interval_follows_its_estimate_through_a_function() {
        let interval = Interval::of(2.0, Some(0.1), 1_000_000).map(f64::exp);
        assert!((interval.value - 2f64.exp()).abs() < 1e-12);
        assert!((interval.low.unwrap() - (2.0 - 0.196f64).exp()).abs() < 1e-3);
        assert_eq!(Interval::of(2.0, None, 0).high, None);
    }
}
