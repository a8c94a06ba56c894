//! Means over seeds with their spread.
//!
//! # The standard deviation
//! Where one seed differs it is the usual one, √(Σ (x − mean)² / (n − 1)). Where several do (`rows.seed` × `model.seed`),
//! results that share one of them are not independent, and the usual one is too small. The mean of (x − y)² / 2 over the
//! pairs of results that share no seed has the expectation σ², the variance of a result all of whose seeds are new, for
//! crossed and nested seeds alike and for any number of each; for one seed it is the usual formula.
//!
//! # The standard error of the mean
//! For each seed that differs, let m be the means of the results that share its value, and w their shares of the results:
//! var(m) Σ w² estimates what this seed adds to the variance of the mean, and some of what the others add. The sum over
//! the seeds is no smaller than the variance of the mean in expectation. Its degrees of freedom are those of the seed with
//! the fewest values. For one seed it is sd² / n with n − 1 degrees of freedom.

use std::collections::{BTreeMap, HashMap};

/// A mean over seeds.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of single values; absent where no two share no seed.
    pub sd: Option<f64>,
    /// n: values.
    pub n: usize,
    /// The standard error of the mean; absent for one value alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standard_error: Option<f64>,
    /// Its degrees of freedom.
    #[serde(skip)]
    pub freedom: u64,
}

impl Spread {
    /// The spread of some values, given the seeds of each (as many for all); nothing where there are none. Formulas: see the
    /// module.
    #[must_use]
    pub fn of(values: &[f64], seeds: &[Vec<u64>]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let factors = factors(seeds);
        let (mut squares, mut pairs) = (0.0, 0_u64);
        for (i, x) in values.iter().enumerate() {
            for (j, y) in values.iter().enumerate().skip(i + 1) {
                if factors.iter().all(|factor| factor[i] != factor[j]) {
                    squares += (x - y).powi(2) / 2.0;
                    pairs += 1;
                }
            }
        }
        let mut variance = 0.0;
        let mut freedom = u64::MAX;
        for factor in &factors {
            let mut levels: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
            for (value, level) in values.iter().zip(factor) {
                let (sum, count) = levels.entry(*level).or_default();
                *sum += value;
                *count += 1.0;
            }
            let means = || levels.values().map(|(sum, count)| sum / count);
            let middle = means().sum::<f64>() / levels.len() as f64;
            let spread = means().map(|level| (level - middle).powi(2)).sum::<f64>();
            let shares = levels.values().map(|(_, count)| (count / n as f64).powi(2));
            variance += spread / (levels.len() - 1) as f64 * shares.sum::<f64>();
            freedom = freedom.min(levels.len() as u64 - 1);
        }
        let varies = n > 1 && !factors.is_empty();
        Some(Self {
            mean,
            sd: (varies && pairs > 0).then(|| (squares / pairs as f64).sqrt()),
            n,
            standard_error: varies.then(|| variance.sqrt()),
            freedom: if varies { freedom } else { 0 },
        })
    }
}

/// The seeds that differ, each as the levels of the results: two seeds that divide the results alike are one.
#[must_use]
pub fn factors(seeds: &[Vec<u64>]) -> Vec<Vec<usize>> {
    let count = seeds.first().map_or(0, Vec::len);
    let mut factors: Vec<Vec<usize>> = Vec::new();
    for place in 0..count {
        let mut known = HashMap::new();
        let levels: Vec<usize> = seeds
            .iter()
            .map(|seeds| {
                let next = known.len();
                *known.entry(seeds.get(place)).or_insert(next)
            })
            .collect();
        if known.len() > 1 && !factors.contains(&levels) {
            factors.push(levels);
        }
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that are sums of what each of two seeds adds.
    fn crossed() -> (Vec<f64>, Vec<Vec<u64>>) {
        let of = |rows: u64, model: u64| (10.0 * rows as f64 + model as f64, vec![rows, model]);
        [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
            .map(|(rows, model)| of(rows, model))
            .into_iter()
            .unzip()
    }

    #[test]
    fn spread_over_one_seed_is_the_standard_deviation() {
        let spread = Spread::of(&[2.5, 1.0, 4.0], &[vec![1], vec![2], vec![3]]).unwrap();
        assert_eq!((spread.mean, spread.sd, spread.n), (2.5, Some(1.5), 3));
        // sd / √n, with n − 1 degrees of freedom.
        assert!((spread.standard_error.unwrap() - 1.5 / 3f64.sqrt()).abs() < 1e-12);
        assert_eq!(spread.freedom, 2);
        assert_eq!(Spread::of(&[], &[]), None);
        let one = Spread::of(&[3.0], &[vec![1]]).unwrap();
        assert_eq!((one.sd, one.standard_error, one.freedom), (None, None, 0));
    }

    #[test]
    fn seeds_within_seeds_are_not_pooled() {
        let (values, seeds) = crossed();
        let spread = Spread::of(&values, &seeds).unwrap();
        // The variances of 0, 10 and of 0, 1, 2 are 50 and 1; pooled, all six would give 30.8.
        assert!((spread.sd.unwrap().powi(2) - 51.0).abs() < 1e-9, "{spread:?}");
        // 50 / 2 + 1 / 3, and the fewest seeds are two.
        assert!((spread.standard_error.unwrap().powi(2) - (25.0 + 1.0 / 3.0)).abs() < 1e-9);
        assert_eq!((spread.mean, spread.freedom), (6.0, 1));
        // Nested: the seeds of the models are others for each of the rows.
        let nested: Vec<Vec<u64>> = seeds
            .iter()
            .map(|seeds| vec![seeds[0], 3 * seeds[0] + seeds[1]])
            .collect();
        let spread = Spread::of(&values, &nested).unwrap();
        // Pairs across the rows: (10 + d)² / 2 with d of −2, −1, −1, 0, 0, 0, 1, 1, 2.
        assert!(
            (spread.sd.unwrap().powi(2) - (900.0 + 12.0) / 18.0).abs() < 1e-9,
            "{spread:?}"
        );
        assert_eq!(spread.freedom, 1);
        // Two seeds that go together are one.
        let together: Vec<Vec<u64>> = (1..=3).map(|seed| vec![seed, 10 * seed]).collect();
        let alone: Vec<Vec<u64>> = (1..=3).map(|seed| vec![seed]).collect();
        let values = [2.5, 1.0, 4.0];
        assert_eq!(Spread::of(&values, &together), Spread::of(&values, &alone));
    }

    #[test]
    fn variance_over_crossed_seeds_is_unbiased() {
        let random = crate::rng::Random::new(5, crate::rng::Stream::Synthetic);
        // Uniform on [0, 1) has the variance 1 / 12; scaled by √12 it is 1.
        let draw = |trial: u64, place: u64| random.uniform(trial, place, 0) * 12f64.sqrt();
        let (mut variance, mut error, mut mean_squared) = (0.0, 0.0, 0.0);
        let trials = 4000;
        for trial in 0..trials {
            let seeds: Vec<Vec<u64>> = (0..6).map(|place| vec![place / 3, place % 3]).collect();
            let values: Vec<f64> = seeds
                .iter()
                .enumerate()
                .map(|(place, seeds)| {
                    // Variances of 4 for rows, 1 for models, 1 for both together.
                    2.0 * draw(trial, seeds[0]) + draw(trial, 10 + seeds[1]) + draw(trial, 20 + place as u64)
                })
                .collect();
            let spread = Spread::of(&values, &seeds).unwrap();
            variance += spread.sd.unwrap().powi(2) / trials as f64;
            error += spread.standard_error.unwrap().powi(2) / trials as f64;
            // The mean is 4 · √12 / 2.
            mean_squared += (spread.mean - 2.0 * 12f64.sqrt()).powi(2) / trials as f64;
        }
        // 5% are more than four standard deviations of a mean over 4000.
        assert!((variance / 6.0 - 1.0).abs() < 0.05, "{variance}");
        assert!(
            (mean_squared / (4.0 / 2.0 + 1.0 / 3.0 + 1.0 / 6.0) - 1.0).abs() < 0.1,
            "{mean_squared}"
        );
        assert!(error > mean_squared, "{error} is less than {mean_squared}");
    }
}
