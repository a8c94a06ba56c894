//! The metrics as people read them.

use crate::evaluate::{Interval, Quantity};
use crate::manifest::Metric;
use crate::numbers;
use crate::stages::replicates::Spread;

/// What stands before a value where bounds have a sign, since exact values stand in the same table.
pub fn sign(metric: Metric, signed: bool, quantity: Quantity, published: bool) -> &'static str {
    if signed && metric.is_of_text() && quantity.is_bound() && !published {
        "≤ "
    } else {
        ""
    }
}

/// A mean over seeds as people read it, with its standard deviation where it is known.
pub fn shown_spread(metric: Metric, Spread { mean, sd, .. }: Spread) -> String {
    let (scale, unit, decimals) = match metric {
        Metric::BitsPerByte | Metric::BitsPerByteNormalized | Metric::NatsPerToken => (1.0, "", 4),
        Metric::Perplexity
        | Metric::PerplexityPerWord
        | Metric::LastWordPerplexity
        | Metric::PseudoPerplexity => (1.0, "", four_digits(mean)),
        Metric::Grammatical | Metric::LastWordAccuracy => (100.0, "%", 1),
    };
    let mean = format!("{:.decimals$}", scale * mean);
    match sd {
        Some(sd) => format!("{mean} ± {:.decimals$}{unit}", scale * sd),
        None => format!("{mean}{unit}"),
    }
}

/// A value as people read it, with its interval.
pub fn shown(metric: Metric, interval: Interval) -> String {
    match metric {
        Metric::BitsPerByte | Metric::BitsPerByteNormalized | Metric::NatsPerToken => interval.plus_minus(4),
        Metric::Perplexity
        | Metric::PerplexityPerWord
        | Metric::LastWordPerplexity
        | Metric::PseudoPerplexity => {
            let decimals = four_digits(interval.value);
            numbers::with_ends_in_cell(interval.value, interval.ends(), decimals, "")
        }
        Metric::Grammatical | Metric::LastWordAccuracy => {
            let percent = interval.map(|share| 100.0 * share);
            numbers::with_ends_in_cell(percent.value, percent.ends(), 1, "%")
        }
    }
}

/// The decimals of four digits and no less than the whole: 24.31, 312.5, 10482.
fn four_digits(value: f64) -> usize {
    (3 - value.abs().max(1.0).log10().floor() as i32).max(0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexities_have_four_digits() {
        let shown = |value: f64| {
            let (low, high) = (Some(value / 2.0), Some(value * 2.0));
            super::shown(Metric::Perplexity, Interval { value, low, high })
        };
        assert_eq!(
            [1.0, 24.3125, 312.54, 10482.2].map(shown),
            [
                "1.000 (0.500–2.000)",
                "24.31 (12.16–48.62)",
                "312.5 (156.3–625.1)",
                "10482 (5241–20964)"
            ]
        );
        assert_eq!(shown(f64::INFINITY), "inf (inf–inf)");
    }
}
