//! The interval of a share.

/// Square of the 97.5% quantile of the normal distribution.
const Z_SQUARED: f64 = 3.841_458_820_694_124;

/// Wilson's 95% interval of the share `hits / of` (Wilson 1927, eq. for p̂ ± z): sensible at 0 and 1 too, where the
/// usual one has no width. `None` of nothing.
#[must_use]
pub fn wilson(hits: u64, of: u64) -> Option<(f64, f64)> {
    (of > 0).then(|| wilson_of_share(hits as f64 / of as f64, of as f64))
}

/// The same of a share p of n > 0 cases, which need not be whole: of clustered cases, as many independent ones as have the same
/// information.
#[must_use]
pub fn wilson_of_share(p: f64, n: f64) -> (f64, f64) {
    let centre = (p + Z_SQUARED / (2.0 * n)) / (1.0 + Z_SQUARED / n);
    let half = (Z_SQUARED * (p * (1.0 - p) / n + Z_SQUARED / (4.0 * n * n))).sqrt() / (1.0 + Z_SQUARED / n);
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_is_that_of_wilson() {
        // Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I, method 3.
        for (hits, of, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let (a, b) = wilson(hits, of).unwrap();
            assert!(
                (a - low).abs() < 5e-5 && (b - high).abs() < 5e-5,
                "{hits}/{of}: {a} to {b}"
            );
        }
        assert_eq!(wilson(0, 0), None);
    }
}
