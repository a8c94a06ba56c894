//! The learning rate and the decay of the weights' moving average at each update.

use crate::manifest::{LearningRateSchedule, WarmupRates};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rate_rises_then_stays_or_falls() {
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
}
