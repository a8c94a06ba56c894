//! Estimates over sampled rows with their 95% intervals. Rows are drawn independently; what is within a row is not, so that
//! every interval is clustered by row.

use crate::evaluate::Interval;
use crate::rng::Random;
use crate::sample::wilson_of_share;

/// How often rows are drawn again for an interval: the standard error of a standard error from so many is 5%.
pub const RESAMPLES: u64 = 200;
/// Sets of fresh text that a sampler's value is compared with. If the sampler were perfect, its value and those of the 39
/// sets would be exchangeable: the chance that it is neither the lowest nor the highest of the 40 is 38 / 40 = 95%, whatever
/// the distribution.
pub const FRESH_SETS: u64 = 39;

/// The mean of a value of each row: ± t · s / √R.
pub fn mean(values: &[f64]) -> Option<Interval> {
    let pairs: Vec<(f64, f64)> = values.iter().map(|&value| (value, 1.0)).collect();
    ratio(&pairs)
}

/// Σ y / Σ n over rows (y, n), with the standard error of a ratio of means (Cochran, "Sampling Techniques", 1977, eq. 2.46):
/// √(R / (R − 1) · Σ (y − b n)²) / Σ n. Nothing where Σ n is 0.
pub fn ratio(rows: &[(f64, f64)]) -> Option<Interval> {
    let value = share(rows)?;
    Some(Interval::of(
        value,
        standard_error(rows, value),
        freedom(rows.len()),
    ))
}

/// Σ y / Σ n.
fn share(rows: &[(f64, f64)]) -> Option<f64> {
    let of: f64 = rows.iter().map(|row| row.1).sum();
    (of > 0.0).then(|| rows.iter().map(|row| row.0).sum::<f64>() / of)
}

fn standard_error(rows: &[(f64, f64)], value: f64) -> Option<f64> {
    let count = rows.len() as f64;
    let of: f64 = rows.iter().map(|row| row.1).sum();
    let squares: f64 = rows.iter().map(|(y, n)| (y - value * n).powi(2)).sum();
    (rows.len() > 1).then(|| (count / (count - 1.0) * squares).sqrt() / of)
}

fn freedom(rows: usize) -> u64 {
    rows.saturating_sub(1) as u64
}

/// The share Σ hits / Σ of over rows, with Wilson's interval for as many independent cases as have the same information: their number is
/// divided by the design effect, the variance clustered by row over that of independent cases, where it exceeds 1 (Kish,
/// "Survey Sampling", 1965). Unlike [`ratio`] it has a width at 0 and 1.
pub fn proportion(rows: &[(u64, u64)]) -> Option<Interval> {
    let pairs: Vec<(f64, f64)> = rows.iter().map(|&(hits, of)| (hits as f64, of as f64)).collect();
    let value = share(&pairs)?;
    let of: f64 = pairs.iter().map(|row| row.1).sum();
    let independent = value * (1.0 - value) / of;
    let effect = match standard_error(&pairs, value) {
        Some(error) if independent > 0.0 => (error * error / independent).max(1.0),
        _ => 1.0,
    };
    let (low, high) = wilson_of_share(value, of / effect);
    Some(Interval {
        value,
        low: Some(low),
        high: Some(high),
    })
}

/// A value with the standard error of its values without each row in turn (the jackknife): √((R − 1) / R · Σ (θ_r − θ̄)²).
pub fn jackknife(value: f64, without: &[f64]) -> Interval {
    let rows = without.len() as f64;
    let centre = without.iter().sum::<f64>() / rows;
    let squares: f64 = without.iter().map(|one| (one - centre).powi(2)).sum();
    let error = (without.len() > 1).then(|| ((rows - 1.0) / rows * squares).sqrt());
    Interval::of(value, error, freedom(without.len()))
}

/// A value of R rows with the standard deviation of its values for rows drawn from them with replacement (the bootstrap):
/// `statistic` is given how often each row was drawn. A value that cannot be negative has no negative end.
pub fn bootstrap(rows: usize, random: Random, statistic: impl Fn(&[f64]) -> f64) -> Interval {
    let value = statistic(&vec![1.0; rows]);
    if rows < 2 {
        return Interval::of(value, None, 0);
    }
    let values: Vec<f64> = (0..RESAMPLES)
        .map(|resample| {
            let mut times = vec![0.0; rows];
            for place in 0..rows as u64 {
                times[random.below(rows as u64, 1 + resample, place, 0) as usize] += 1.0;
            }
            statistic(&times)
        })
        .collect();
    let count = values.len() as f64;
    let centre = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|one| (one - centre).powi(2)).sum::<f64>() / (count - 1.0);
    let interval = Interval::of(value, Some(variance.sqrt()), freedom(rows));
    Interval {
        low: interval.low.map(|low| low.max(0.0)),
        ..interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn ratio_and_mean_have_the_errors_of_hand_computed_cases() {
        let found = mean(&[1.0, 2.0, 3.0, 4.0]).unwrap();
        // s = √(5/3), s / √4 = 0.6455, t with 3 degrees of freedom 3.1824.
        assert!((found.value - 2.5).abs() < 1e-12);
        assert!((found.high.unwrap() - 2.5 - 0.645_497 * 3.182_446).abs() < 1e-5);
        // Rows of the same ratio have no error, whatever their sizes.
        let exact = ratio(&[(2.0, 1.0), (6.0, 3.0)]).unwrap();
        assert_eq!((exact.value, exact.low, exact.high), (2.0, Some(2.0), Some(2.0)));
        assert_eq!(ratio(&[(0.0, 0.0)]), None);
        assert_eq!(mean(&[1.0]).unwrap().low, None);
    }

    #[test]
    fn proportion_of_alike_rows_counts_each_row_once() {
        // Ten records a row that are all right or all wrong: as many cases as rows.
        let rows: Vec<(u64, u64)> = (0..200).map(|row| (10 * (row % 2), 10)).collect();
        let found = proportion(&rows).unwrap();
        let single = proportion(&(0..200).map(|row| (row % 2, 1)).collect::<Vec<_>>()).unwrap();
        assert!((found.low.unwrap() - single.low.unwrap()).abs() < 1e-3);
        let certain = proportion(&[(10, 10), (10, 10)]).unwrap();
        assert!(certain.high.unwrap() > 1.0 - 1e-12 && certain.low.unwrap() < 0.9);
        assert_eq!(proportion(&[(0, 0)]), None);
    }

    #[test]
    fn resampled_and_left_out_rows_give_the_error_of_a_mean() {
        let values: Vec<f64> = (0..400).map(|row| f64::from(row % 7)).collect();
        let usual = mean(&values).unwrap();
        let half = |interval: Interval| (interval.high.unwrap() - interval.low.unwrap()) / 2.0;
        let random = Random::new(3, Stream::Judge);
        let drawn = bootstrap(values.len(), random, |times| {
            let sum: f64 = times.iter().zip(&values).map(|(n, value)| n * value).sum();
            sum / times.iter().sum::<f64>()
        });
        assert!((drawn.value - usual.value).abs() < 1e-12);
        assert!((half(drawn) / half(usual) - 1.0).abs() < 0.15);
        let sum: f64 = values.iter().sum();
        let without: Vec<f64> = values.iter().map(|value| (sum - value) / 399.0).collect();
        assert!((half(jackknife(usual.value, &without)) / half(usual) - 1.0).abs() < 1e-9);
    }
}
