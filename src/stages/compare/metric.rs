//! The metrics: their names, which way is better, and how people read them.

use std::cmp::Ordering;

use super::METRICS_IN_ORDER;
use crate::evaluate::{Interval, Quantity};
use crate::manifest::Metric;
use crate::numbers;
use crate::stages::replicates::Spread;

impl Metric {
    /// Its name in manifests, files and tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BitsPerByte => "bits_per_byte",
            Self::BitsPerByteNormalized => "bits_per_byte_normalized",
            Self::NatsPerToken => "nats_per_token",
            Self::Perplexity => "perplexity",
            Self::PseudoPerplexity => "pseudo_perplexity",
            Self::Grammatical => "grammatical",
        }
    }

    /// The metric of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        METRICS_IN_ORDER.into_iter().find(|metric| metric.name() == name)
    }

    /// Bits per byte, of text or of normalized text.
    pub(super) fn bits_per_byte(normalized: bool) -> Self {
        if normalized {
            Self::BitsPerByteNormalized
        } else {
            Self::BitsPerByte
        }
    }

    /// Whether more of it is better.
    #[must_use]
    pub fn rises(self) -> bool {
        self == Self::Grammatical
    }

    /// The value that a table begins with, in words: `lowest perplexity`.
    #[must_use]
    pub fn lead(self) -> String {
        format!(
            "{} {}",
            if self.rises() { "highest" } else { "lowest" },
            self.name()
        )
    }

    /// Whether it is of a model's likelihood of held-out text, and not of its samples.
    pub(super) fn is_of_text(self) -> bool {
        self != Self::Grammatical
    }

    /// What stands before a value where bounds have a sign, since exact values stand in the same table.
    pub(crate) fn sign(self, signed: bool, quantity: Quantity, published: bool) -> &'static str {
        if signed && self.is_of_text() && quantity.is_bound() && !published {
            "≤ "
        } else {
            ""
        }
    }

    /// Whether what a counted token is changes it.
    pub(super) fn is_per_token(self) -> bool {
        matches!(
            self,
            Self::NatsPerToken | Self::Perplexity | Self::PseudoPerplexity
        )
    }

    /// The order of two values, the better first and none last.
    #[must_use]
    pub fn order(self, a: Option<f64>, b: Option<f64>) -> Ordering {
        match (a, b) {
            (Some(a), Some(b)) if self.rises() => b.total_cmp(&a),
            (Some(a), Some(b)) => a.total_cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }

    /// A mean over seeds as people read it, with its standard deviation where it is known.
    #[must_use]
    pub fn shown_spread(self, Spread { mean, sd, .. }: Spread) -> String {
        let (scale, unit, decimals) = match self {
            Self::BitsPerByte | Self::BitsPerByteNormalized | Self::NatsPerToken => (1.0, "", 4),
            Self::Perplexity | Self::PseudoPerplexity => (1.0, "", four_digits(mean)),
            Self::Grammatical => (100.0, "%", 1),
        };
        let mean = format!("{:.decimals$}", scale * mean);
        match sd {
            Some(sd) => format!("{mean} ± {:.decimals$}{unit}", scale * sd),
            None => format!("{mean}{unit}"),
        }
    }

    /// A value as people read it, with its interval.
    #[must_use]
    pub fn shown(self, interval: Interval) -> String {
        match self {
            Self::BitsPerByte | Self::BitsPerByteNormalized | Self::NatsPerToken => interval.plus_minus(4),
            Self::Perplexity | Self::PseudoPerplexity => {
                let decimals = four_digits(interval.value);
                numbers::with_ends_in_cell(interval.value, interval.ends(), decimals, "")
            }
            Self::Grammatical => {
                let percent = interval.map(|share| 100.0 * share);
                numbers::with_ends_in_cell(percent.value, percent.ends(), 1, "%")
            }
        }
    }
}

/// The decimals of four digits and no less than the whole: 24.31, 312.5, 10482.
fn four_digits(value: f64) -> usize {
    (3 - value.abs().max(1.0).log10().floor() as i32).max(0) as usize
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn perplexities_have_four_digits() {
        let shown = |value: f64| {
            Metric::Perplexity.shown(Interval {
                value,
                low: Some(value / 2.0),
                high: Some(value * 2.0),
            })
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

    #[test]
    fn names_of_metrics_are_those_of_manifests() {
        for metric in METRICS_IN_ORDER {
            assert_eq!(json!(metric), metric.name());
            assert_eq!(Metric::find(metric.name()), Some(metric));
        }
    }
}
