//! The variance of the MDLM training loss under any distribution of times and either weighting, from one set of answers
//! of the network.
//!
//! A training row of n valid tokens has the loss y = w(u) S(m(u)) in nats. Its place u on [0, 1) decides the move chance m
//! and the weight w ([`Mdlm::level_of_training`]); S is Σ_masked −log p for a mask of that move chance. The distribution of
//! times and the weighting decide m(u) and w(u), while S depends on m alone. So the network is asked once: about R rows, with
//! two independent masks (a, b) of each at J move chances, evenly spaced from 0 to 1. Between these, the moments of S over
//! the masks of a row are taken as
//!
//! ```text
//! mean of S = m f(m),   variance of S = m v(m),   f and v straight lines from each move chance to the next.
//! f = S / m by either mask, v = (S_a − S_b)² / (2 m);   in the limit m = 0, with one valid token masked: f = n S, v = n S².
//! ```
//!
//! That is exact where every token has the same loss c: then f = c n and v = c² n (1 − m). With Y = ∫ w m f du of a row and
//! a mask, and the integrals by the midpoint rule,
//!
//! ```text
//! loss per token  μ = Σ Y / Σ n                                            over rows and masks
//! within a row    W = mean of ∫ w² m v du + ∫ w² m² f_a f_b du − Y_a Y_b   over masks, and over times
//! between rows    V = Σ (Y_a − μ n) (Y_b − μ n) / (R − 1)
//! between times   T = variance over K equal parts of [0, 1) of E[y − μ n given that u is in the part]
//! a step of B     (W + V − T) / (B (mean n)²)                              the variance of Σ y / Σ n
//! ```
//!
//! Products of two masks, and in T of two rows, have no bias from the noise of either. K is B with low-discrepancy times,
//! which put one row of a batch into each part, and 1 without, where T = 0. Rows of a batch count as drawn independently; an
//! epoch draws them without replacement. The ratio Σ y / Σ n is linearized.
//!
//! All candidates share rows and masks. Intervals are by the jackknife that leaves out one of up to 32 groups of rows: they
//! cover the choice of rows and masks.

use serde::Serialize;

use super::{Interval, answered};
use crate::data::rows::{Permutation, Rows};
use crate::diffusion::{Mdlm, NoiseLevel, NoisedBatch, Score};
use crate::error::{Error, Result};
use crate::event::Cancel;
use crate::model::Network;
use crate::plural::counted;
use crate::rng::{Random, Stream};

/// Rows that a probe needs at least: fewer give no interval worth printing.
pub const LEAST_ROWS: u64 = 8;
/// Points at which integrals over u are evaluated, at least; also the most parts of [0, 1) that times are spread over, since
/// more change nothing.
const POINTS: usize = 4096;
/// Groups of rows of the jackknife, at most.
const GROUPS: usize = 32;
/// Masks of a row at each move chance.
const MASKS: usize = 2;

/// What to ask the network about.
pub struct VarianceProbe<'a> {
    /// The held-out rows.
    pub rows: &'a Rows,
    /// R: rows to use, at most; the first of a seeded permutation.
    pub limit: u64,
    /// J: move chances of each row, two at least.
    pub chances: usize,
    /// What the model was trained for.
    pub objective: &'a Mdlm,
    /// Seed of masks and of the choice of rows.
    pub seed: u64,
    /// Rows that go through the network at a time.
    pub micro_batch: usize,
}

impl VarianceProbe<'_> {
    /// Asks the network as it is. `progress` hears the rows done, and of how many.
    ///
    /// # Errors
    /// There are fewer than [`LEAST_ROWS`] rows, the network's answers are not finite, or the run is cancelled.
    pub fn run(
        &self,
        network: &dyn Network,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<ProbedLosses> {
        let total = self.limit.min(self.rows.len());
        if total < LEAST_ROWS {
            return Err(Error::input(format!(
                "the validation split has {}, {LEAST_ROWS} are needed",
                counted(total, "row")
            ))
            .hint("raise `validation` of the pack stage"));
        }
        let random = Random::new(self.seed, Stream::Variance);
        let order = (total < self.rows.len()).then(|| Permutation::new(self.seed, self.rows.len()));
        let mut noised = NoisedBatch::default();
        let (mut tokens, mut sums) = (Vec::new(), Vec::new());
        let mut x = vec![0; self.rows.length()];
        for rank in 0..total {
            let row = order.as_ref().map_or(rank, |order| order.get(0, rank));
            let valid = self.rows.read(row, &mut x)?.end;
            tokens.push(valid as f64);
            for draw in 0..self.chances * MASKS {
                self.push(random, draw, row, &x, valid, &mut noised);
                if noised.rows() == self.micro_batch {
                    cancel.check()?;
                    sums.extend(answered(network, self.objective, &mut noised)?);
                    progress(rank, total);
                }
            }
        }
        sums.extend(answered(network, self.objective, &mut noised)?);
        progress(total, total);
        if tokens.iter().all(|&n| n == 0.0) {
            return Err(Error::input(
                "the rows of the validation split hold nothing but padding",
            ));
        }
        let rows = tokens
            .into_iter()
            .zip(sums.chunks(self.chances * MASKS))
            .map(|(tokens, sums)| self.moments(tokens, sums))
            .collect();
        Ok(ProbedLosses { rows })
    }

    /// The row under the noise of a draw, every masked token with the weight 1.
    fn push(&self, random: Random, draw: usize, row: u64, x: &[u32], valid: usize, into: &mut NoisedBatch) {
        let masking = &self.objective.masking;
        let index = draw / MASKS;
        let move_chance = index as f64 / (self.chances - 1) as f64;
        let draw = draw as u64;
        // Beyond the times of training, the network is fed the nearest of them.
        let [first, last] = [masking.sampling_epsilon, 1.0].map(|t| masking.forward.schedule.sigma(t));
        let input = masking.input(NoiseLevel {
            sigma: (-(-move_chance).ln_1p()).clamp(first, last),
            move_chance,
            weight: 1.0,
        });
        let alone = (index == 0).then(|| random.below(valid.max(1) as u64, draw, row, 0) as usize);
        into.push(x, &(0..valid), Score::weight(1.0), input, |l| match alone {
            Some(position) => (l == position).then(|| masking.forward.mask()),
            None => masking
                .forward
                .q_xt(move_chance, random.uniform(draw, row, l as u32)),
        });
    }

    /// f and v of a row, from S of each mask.
    fn moments(&self, tokens: f64, sums: &[f64]) -> RowLosses {
        let pairs = sums.chunks(MASKS).map(|pair| [pair[0], pair[1]]).enumerate();
        let (means, variances) = pairs
            .map(|(index, [a, b])| {
                if index == 0 {
                    return ([a * tokens, b * tokens], f64::midpoint(a * a, b * b) * tokens);
                }
                let scale = (self.chances - 1) as f64 / index as f64;
                ([a * scale, b * scale], (a - b).powi(2) / 2.0 * scale)
            })
            .unzip();
        RowLosses {
            tokens,
            means,
            variances,
        }
    }
}

/// What the network answered.
pub struct ProbedLosses {
    rows: Vec<RowLosses>,
}

/// A row's answers.
struct RowLosses {
    /// n.
    tokens: f64,
    /// f of either mask (J).
    means: Vec<[f64; MASKS]>,
    /// v (J).
    variances: Vec<f64>,
}

/// A training loss and its deviations, in nats per token, with their intervals at 95%.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LossVariance {
    /// Its mean.
    pub nats_per_token: Interval,
    /// Standard deviation of a row's loss over times and masks: root mean square over rows.
    pub row_deviation: Interval,
    /// Standard deviation of a training step's loss: over rows, times and masks.
    pub step_deviation: Interval,
    /// The deviation of a step over the mean.
    pub relative_deviation: Interval,
}

impl ProbedLosses {
    /// R.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.len() as u64
    }

    /// The training loss with an objective's times and weighting, in batches of that many rows.
    #[must_use]
    pub fn variance(&self, objective: &Mdlm, batch: u32) -> LossVariance {
        let chances = self.rows.first().map_or(0, |row| row.variances.len());
        let parts = if objective.masking.antithetic {
            (batch as usize).min(POINTS)
        } else {
            1
        };
        let rule = Rule::new(objective, chances, parts);
        let rows: Vec<_> = self.rows.iter().map(|row| rule.integrate(row)).collect();
        let groups = GROUPS.min(rows.len());
        let figures = |left_out: Option<usize>| {
            let kept: Vec<_> = (0..rows.len())
                .filter(|row| left_out != Some(row % groups))
                .map(|row| &rows[row])
                .collect();
            figures(&kept, batch)
        };
        let whole = figures(None);
        let parts: Vec<_> = (0..groups).map(|group| figures(Some(group))).collect();
        let interval = |figure: usize| {
            let count = groups as f64;
            let mean = parts.iter().map(|part| part[figure]).sum::<f64>() / count;
            let squares: f64 = parts.iter().map(|part| (part[figure] - mean).powi(2)).sum();
            let error = (squares * (count - 1.0) / count).sqrt();
            Interval::of(whole[figure], Some(error), groups as u64 - 1)
        };
        LossVariance {
            nats_per_token: interval(0),
            row_deviation: interval(1),
            step_deviation: interval(2),
            relative_deviation: interval(3),
        }
    }
}

/// The integrals over u as sums over the move chances of the probe.
struct Rule {
    /// Of each of the K parts of [0, 1): E[w m f given the part] as factors of f.
    mean: Vec<Vec<(usize, f64)>>,
    /// ∫ w² m v du as factors of v (J).
    variance: Vec<f64>,
    /// ∫ w² m² f_a f_b du as factors of f_a f_b at the same move chance (J).
    square: Vec<f64>,
    /// The same as factors of f_a at a move chance times f_b at the next, with the masks exchanged added (J − 1).
    beside: Vec<f64>,
}

impl Rule {
    fn new(objective: &Mdlm, chances: usize, parts: usize) -> Self {
        let each = POINTS.div_ceil(parts);
        let points = (each * parts) as f64;
        let mut rule = Self {
            mean: Vec::with_capacity(parts),
            variance: vec![0.0; chances],
            square: vec![0.0; chances],
            beside: vec![0.0; chances - 1],
        };
        for part in 0..parts {
            let mut factors = vec![0.0; chances];
            for point in 0..each {
                let u = ((part * each + point) as f64 + 0.5) / points;
                let level = objective.level_of_training(u);
                let first = level.weight * level.move_chance;
                let ends = between(level.move_chance, chances);
                for (index, share) in ends {
                    factors[index] += share * first / each as f64;
                    rule.variance[index] += share * first * level.weight / points;
                    rule.square[index] += (share * first).powi(2) / points;
                }
                let [(below, low), (_, high)] = ends;
                rule.beside[below] += low * high * first * first / points;
            }
            let factors = factors.into_iter().enumerate();
            rule.mean
                .push(factors.filter(|&(_, factor)| factor != 0.0).collect());
        }
        rule
    }

    fn integrate(&self, row: &RowLosses) -> RowIntegrals {
        let f = &row.means;
        let sum = |factors: &[(usize, f64)], mask: usize| -> f64 {
            factors
                .iter()
                .map(|&(index, factor)| factor * f[index][mask])
                .sum()
        };
        let parts = self.mean.len() as f64;
        let by_part: Vec<_> = self
            .mean
            .iter()
            .map(|factors| [sum(factors, 0), sum(factors, 1)])
            .collect();
        let mean = |mask: usize| by_part.iter().map(|means| means[mask]).sum::<f64>() / parts;
        let masks = self
            .variance
            .iter()
            .zip(&row.variances)
            .map(|(factor, v)| factor * v);
        let squares = self.square.iter().zip(f).map(|(factor, [a, b])| factor * a * b);
        let beside = self
            .beside
            .iter()
            .zip(f.windows(2))
            .map(|(factor, pair)| factor * (pair[0][0] * pair[1][1] + pair[1][0] * pair[0][1]));
        RowIntegrals {
            tokens: row.tokens,
            means: [mean(0), mean(1)],
            square: masks.sum::<f64>() + squares.sum::<f64>() + beside.sum::<f64>(),
            by_part: by_part.iter().map(|[a, b]| f64::midpoint(*a, *b)).collect(),
        }
    }
}

/// The two move chances of the probe that a third is between, each with its share of a straight line's value there.
fn between(move_chance: f64, chances: usize) -> [(usize, f64); 2] {
    let place = move_chance * (chances - 1) as f64;
    let below = (place as usize).min(chances - 2);
    let share = place - below as f64;
    [(below, 1.0 - share), (below + 1, share)]
}

/// A row's integrals.
struct RowIntegrals {
    /// n.
    tokens: f64,
    /// Y of either mask.
    means: [f64; MASKS],
    /// ∫ w² (m v + m² f_a f_b) du.
    square: f64,
    /// E[y given the part of u].
    by_part: Vec<f64>,
}

/// The loss per token, the deviations of a row and of a step, and the latter over the loss.
fn figures(rows: &[&RowIntegrals], batch: u32) -> [f64; 4] {
    let count = rows.len() as f64;
    let tokens: f64 = rows.iter().map(|row| row.tokens).sum();
    let mean = |row: &RowIntegrals| f64::midpoint(row.means[0], row.means[1]);
    let loss = rows.iter().map(|row| mean(row)).sum::<f64>() / tokens;
    let products = rows.iter().map(|row| row.square - row.means[0] * row.means[1]);
    let within = products.sum::<f64>() / count;
    let residuals = |row: &RowIntegrals| row.means.map(|mean| mean - loss * row.tokens);
    let products = rows.iter().map(|row| residuals(row).iter().product::<f64>());
    let rows_apart = products.sum::<f64>() / (count - 1.0);
    // (E x)² of a row's x, by products of different rows.
    let squared_mean = |of: &dyn Fn(&RowIntegrals) -> f64| {
        let values = rows.iter().map(|row| of(row) - loss * row.tokens);
        let (sum, squares) = values.fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
        (sum * sum - squares) / (count * (count - 1.0))
    };
    let parts = rows[0].by_part.len();
    let by_part = (0..parts).map(|part| squared_mean(&|row| row.by_part[part]));
    let times_apart = by_part.sum::<f64>() / parts as f64 - squared_mean(&mean);
    let step = (within + rows_apart - times_apart) / f64::from(batch);
    let [row, step] = [within, step].map(|variance| variance.max(0.0).sqrt() * count / tokens);
    [loss, row, step, step / loss]
}

#[cfg(test)]
mod tests {
    use super::super::tests::drawn;
    use super::*;
    use crate::data::SpecialIds;
    use crate::diffusion::{EVERY_SCHEDULE, Noise, Objective as _, RowIndex};
    use crate::manifest::{Bell, Clipped, Times, Weighting};
    use crate::model::toy::{Bag, Distribution, Posterior};

    const LENGTH: usize = 8;
    const LETTERS: u32 = 3;

    /// Rows for a network whose loss is the same for every token.
    fn plain_rows(count: usize) -> Rows {
        let special = SpecialIds {
            bos: 0,
            eos: 0,
            pad: 0,
            mask: LETTERS,
        };
        let tokens = (0..count * LENGTH)
            .map(|i| (i * 7 % 11) as u32 % LETTERS)
            .collect();
        Rows::from_memory(LETTERS + 1, special, LENGTH, tokens, None).unwrap()
    }

    fn probe(rows: &Rows, objective: &Mdlm, network: &dyn Network, seed: u64) -> ProbedLosses {
        let probe = VarianceProbe {
            rows,
            limit: u64::MAX,
            chances: 16,
            objective,
            seed,
            micro_batch: 64,
        };
        probe.run(network, &Cancel::default(), &mut |_, _| ()).unwrap()
    }

    fn log_linear() -> Mdlm {
        Mdlm::with_schedule(Noise::log_linear(1e-3), LETTERS, 5)
    }

    /// Where every token costs c, S is c times a binomial count K of move chance m: E y = c E[w m] L and
    /// E y² = c² E[w² (L m (1 − m) + L² m²)], integrals that are known for each distribution of times.
    #[test]
    fn deviations_are_those_of_a_binomial_count() {
        let base = log_linear();
        let rows = plain_rows(500);
        let losses = probe(&rows, &base, &Bag::new(LETTERS as usize + 1, LENGTH), 3);
        let (c, length) = (f64::from(LETTERS).ln(), LENGTH as f64);
        let (first, last, kept) = (1e-3 * (1.0 - 1e-3), 1.0 - 1e-3, 1.0 - 1e-3);
        let range = f64::ln(last / first);
        // E w m, E w² m, E w² m².
        let uniform = [kept, kept / (1.0 - 1e-3) * 1e3f64.ln(), kept * kept];
        let importance = {
            let w = range / kept;
            let [m, squared] = [
                (last - first) / range,
                (last * last - first * first) / 2.0 / range,
            ];
            [w * m, w * w * m, w * w * squared]
        };
        let clipped = {
            let w = 0.5 / kept;
            [w, w * w * (0.8f64 / 0.3).ln() / 0.5, w * w]
        };
        let plain = {
            let m = f64::midpoint(first, last);
            let squared = (last.powi(3) - first.powi(3)) / 3.0 / (last - first);
            [m, m, squared]
        };
        let limits = Clipped { low: 0.3, high: 0.8 };
        for (times, weighting, [mean, first, second]) in [
            (Times::Uniform, Weighting::Elbo, uniform),
            (Times::Importance, Weighting::Elbo, importance),
            (Times::ChangeOfVariables, Weighting::Elbo, importance),
            (Times::Clipped(limits), Weighting::Elbo, clipped),
            (Times::Uniform, Weighting::CrossEntropy, plain),
        ] {
            let mut objective = Mdlm {
                times,
                weighting,
                ..base
            };
            // Per row: of the masks at a given time, and of the times.
            let masks = c * c * length * (first - second);
            let moves = c * c * length * length * (second - mean * mean);
            for antithetic in [true, false] {
                objective.masking.antithetic = antithetic;
                let found = losses.variance(&objective, 64);
                let row = (masks + moves).sqrt() / length;
                // 64 parts leave less than a thousandth of the variance between times.
                let step = if antithetic { masks } else { masks + moves };
                let step = (step / 64.0).sqrt() / length;
                for (what, found, expected) in [
                    ("mean", found.nats_per_token, c * mean),
                    ("row", found.row_deviation, row),
                    ("step", found.step_deviation, step),
                    ("relative", found.relative_deviation, step / (c * mean)),
                ] {
                    // 1000 masks at each of 16 move chances.
                    assert!(
                        (found.value / expected - 1.0).abs() < 0.04,
                        "{times:?} {weighting:?} {antithetic} {what}: {found:?} is not {expected}"
                    );
                }
            }
        }
    }

    /// The deviation of a step is that of the losses of simulated steps, with a network whose losses differ between rows,
    /// move chances and tokens, and rows of different numbers of valid tokens.
    #[test]
    fn deviation_of_a_step_is_that_of_simulated_steps() {
        const STEPS: u64 = 4000;
        const BATCH: u32 = 8;
        let truth = Distribution::random(4, 3, 6);
        let network = Posterior::new(truth.clone());
        let (rows, _) = drawn(&truth, 600, true);
        for schedule in [EVERY_SCHEDULE[0], EVERY_SCHEDULE[1]] {
            let mut base = Mdlm::with_schedule(schedule, truth.mask(), 5);
            // With the default, one row in hundreds has most of the variance: more than these steps can show.
            base.masking.sampling_epsilon = 0.05;
            let losses = probe(&rows, &base, &network, 3);
            let clipped = Times::Clipped(Clipped { low: 0.2, high: 0.7 });
            let bell = Times::Bell(Bell {
                center: 0.5,
                scale: 0.15,
            });
            for (times, weighting) in [
                (Times::Uniform, Weighting::Elbo),
                (Times::Importance, Weighting::Elbo),
                (clipped, Weighting::Elbo),
                (bell, Weighting::CrossEntropy),
            ] {
                for antithetic in [true, false] {
                    let mut objective = Mdlm {
                        times,
                        weighting,
                        ..base
                    };
                    objective.masking.antithetic = antithetic;
                    let found = losses.variance(&objective, BATCH);
                    let (mean, deviation) = simulated(&objective, &network, &rows, STEPS, BATCH);
                    let ratios = [
                        found.nats_per_token.value / mean,
                        found.step_deviation.value / deviation,
                    ];
                    // The deviation of 4000 steps is known within 2%, their mean within 1%; 600 rows add as much.
                    assert!(
                        (ratios[0] - 1.0).abs() < 0.04 && (ratios[1] - 1.0).abs() < 0.08,
                        "{schedule:?} {times:?} {weighting:?} {antithetic}: {ratios:?}"
                    );
                }
            }
        }
    }

    /// Mean and standard deviation of the losses of training steps.
    fn simulated(objective: &Mdlm, network: &dyn Network, rows: &Rows, steps: u64, batch: u32) -> (f64, f64) {
        let random = Random::new(9, Stream::Synthetic);
        let mut noised = NoisedBatch::default();
        let mut x = vec![0; rows.length()];
        let losses: Vec<f64> = (0..steps)
            .map(|step| {
                let mut tokens = 0;
                for index in 0..batch {
                    let at = RowIndex {
                        step,
                        row: step * u64::from(batch) + u64::from(index),
                        index,
                        batch,
                    };
                    let row = random.below(rows.len(), step, u64::from(index), 0);
                    let valid = rows.read(row, &mut x).unwrap().end;
                    objective.noise(at, 0, &x, valid, &mut noised);
                    tokens += valid;
                }
                let values = answered(network, objective, &mut noised).unwrap();
                values.iter().sum::<f64>() / tokens as f64
            })
            .collect();
        let mean = losses.iter().sum::<f64>() / steps as f64;
        let squares: f64 = losses.iter().map(|loss| (loss - mean).powi(2)).sum();
        (mean, (squares / (steps - 1) as f64).sqrt())
    }

    #[test]
    fn intervals_cover_about_as_often_as_stated() {
        let objective = log_linear();
        let rows = plain_rows(48);
        let network = Bag::new(LETTERS as usize + 1, LENGTH);
        let (length, kept) = (LENGTH as f64, 1.0 - 1e-3);
        let masks: f64 = length * (kept / (1.0 - 1e-3) * 1e3f64.ln() - kept * kept);
        let expected = (masks / 64.0).sqrt() / length / kept;
        let covered = (0..100)
            .filter(|&seed| {
                let found = probe(&rows, &objective, &network, seed).variance(&objective, 64);
                let interval = found.relative_deviation;
                interval.low.unwrap() < expected && expected < interval.high.unwrap()
            })
            .count();
        // 100 intervals of 95%: 95 ± 2.2, fewer because deviations are skewed.
        assert!((84..=100).contains(&covered), "{covered} of 100 cover");
    }

    #[test]
    fn micro_batches_change_no_value_and_few_rows_are_refused() {
        let truth = Distribution::random(3, 3, 6);
        let network = Posterior::new(truth.clone());
        let (rows, _) = drawn(&truth, 40, true);
        let objective = Mdlm::with_schedule(EVERY_SCHEDULE[1], truth.mask(), 5);
        let mut probe = VarianceProbe {
            rows: &rows,
            limit: 20,
            chances: 4,
            objective: &objective,
            seed: 1,
            micro_batch: 7,
        };
        let run = |probe: &VarianceProbe<'_>, cancel: &Cancel| {
            let losses = probe.run(&network, cancel, &mut |_, _| ())?;
            Ok::<_, Error>((losses.rows(), losses.variance(&objective, 4)))
        };
        let open = Cancel::default();
        let found = run(&probe, &open).unwrap();
        assert_eq!(found.0, 20);
        probe.micro_batch = 64;
        assert_eq!(run(&probe, &open).unwrap(), found);
        let closed = Cancel::default();
        closed.cancel();
        assert_eq!(
            run(&probe, &closed).unwrap_err().kind(),
            crate::error::Kind::Interrupted
        );
        probe.limit = 7;
        assert_eq!(
            run(&probe, &open).unwrap_err().to_string(),
            "the validation split has 7 rows, 8 are needed"
        );
    }
}
