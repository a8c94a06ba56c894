//! The bound on a model's negative log-likelihood, estimated by Monte Carlo, with its uncertainty.
//!
//! Each row x gets D draws whose expectation is its NELBO ([`Objective::noise_of_bound`]). The draws of a row are
//! stratified: draw d takes its time or count from the d-th of D equal parts of the range, at the offset frac(shift +
//! phase) within the part. The phases of the rows, frac(r · golden ratio), are spread evenly, and the shifts of the
//! draws are random, so that every single offset is uniform. A pass through the network that is the same in all draws is
//! made once a row and is a part of each of them. With y the mean of a row's draws, n its valid tokens and e
//! its residual, the estimate in nats per token is the ratio b; rows r and r′ are neighbours by phase:
//!
//! ```text
//! b = Σ y / Σ n,   e = y − b n,   standard error² = R / (2 (R − 1)) · Σ (e_r − e_r′)² / (Σ n)²
//! ```
//!
//! This is the variance clustered by row, from successive differences (Wolter, "Introduction to Variance Estimation",
//! 2007, section 8.2, estimator v2): neighbours by phase have nearly the same noise level, and the even spread of times
//! over rows must not count as chance. It covers both sources of chance: which rows were held out, and which times and
//! masks were drawn for them. The 95% interval is b ± t · standard error, with t for the estimator's ⅔ (R − 1) degrees
//! of freedom; the interval of the perplexity is its exponential. More draws would reduce the error by at most √(Σ s² /
//! D) / Σ n, with s² the variance among a row's draws (stratified draws vary less), and at most by the whole error.

mod by_row;
mod last_word;
mod statistics;
mod variance;

pub use crate::diffusion::Quantity;
pub use by_row::{LossesByRow, difference};
pub use statistics::Interval;
pub use variance::{LEAST_ROWS, LossVariance, ProbedLosses, VarianceProbe};

use std::ops::Range;

use crate::data::rows::{Permutation, Rows};
use crate::diffusion::{Draw, Method, NoisedBatch, Objective, Passes, shift};
use crate::error::{Error, Result};
use crate::event::Cancel;
use crate::model::{Batch, Network};
use crate::rng::{Random, Stream};
use crate::store::Digest;

/// Fraction of the golden ratio: the additive sequence with the evenest gaps.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// Where the row of that rank stands among the evenly spread ones, on [0, 1).
fn phase(rank: u64) -> f64 {
    (rank as f64 * GOLDEN).fract()
}

/// What to estimate, and how.
pub struct BoundEstimator<'a> {
    /// The held-out rows.
    pub rows: &'a Rows,
    /// Rows to use, at most: the first of a seeded permutation.
    pub limit: Option<u64>,
    /// What the model was trained for: it says what the network sees and predicts.
    pub objective: &'a dyn Objective,
    /// Seed of times, masks and the choice of rows.
    pub seed: u64,
    /// How the likelihood is estimated: one that fits the objective ([`Method::check`]).
    pub method: Method,
    /// D: draws per row; one is made where nothing is drawn.
    pub draws: u32,
    /// The stream of times and masks.
    pub stream: Stream,
    /// Rows that go through the network at a time.
    pub micro_batch: usize,
}

/// A bound.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// In nats per scored token.
    pub nats_per_token: Interval,
    /// Its standard error, clustered by row; `None` for a single row.
    pub standard_error: Option<f64>,
    /// At most so much of the standard error would go with more draws per row; `None` for a single draw.
    pub monte_carlo_error: Option<f64>,
    /// R: rows.
    pub rows: u64,
    /// Valid tokens in them, context left out.
    pub tokens: u64,
    /// Tokens that are predicted: as many, or the first of each row less ([`Objective::predicted`]).
    pub scored: u64,
    /// D: draws per row.
    pub draws: u32,
    /// The same row by row.
    pub by_row: LossesByRow,
}

impl Bound {
    /// Perplexity per scored token: the exponential of the nats.
    #[must_use]
    pub fn perplexity(&self) -> Interval {
        self.nats_per_token.map(f64::exp)
    }

    /// Bits per byte of text, given the bytes per valid token (an exact count, so it adds no uncertainty).
    #[must_use]
    pub fn bits_per_byte(&self, bytes_per_token: f64) -> Interval {
        self.nats_per_valid_token()
            .map(|nats| nats / std::f64::consts::LN_2 / bytes_per_token)
    }

    /// The exponential of the mean over rows of their nats, which is per word where a word of each is scored.
    #[must_use]
    pub fn perplexity_per_row(&self) -> Interval {
        let nats = &self.by_row.nats;
        ratio(nats, &vec![1; nats.len()]).interval().map(f64::exp)
    }

    /// Perplexity per word, given the words per valid token (an exact count, so it adds no uncertainty).
    #[must_use]
    pub fn perplexity_per_word(&self, words_per_token: f64) -> Interval {
        self.nats_per_valid_token()
            .map(|nats| (nats / words_per_token).exp())
    }

    /// The nats of whole rows, shared out among their valid tokens.
    #[must_use]
    pub fn nats_per_valid_token(&self) -> Interval {
        let share = if self.scored == self.tokens {
            1.0
        } else {
            self.scored as f64 / self.tokens as f64
        };
        self.nats_per_token.map(|nats| nats * share)
    }
}

impl BoundEstimator<'_> {
    /// Estimates the bound with the network as it is. `progress` hears the rows done, of how many, and the estimate.
    ///
    /// # Errors
    /// There are no rows, the network's answers are not finite, or the run is cancelled.
    pub fn run(
        &self,
        network: &dyn Network,
        cancel: &Cancel,
        progress: &mut dyn FnMut(u64, u64, f64),
    ) -> Result<Bound> {
        let draws = if self.method.estimator.is_random() {
            self.draws
        } else {
            1
        };
        let total = self
            .limit
            .map_or(self.rows.len(), |limit| limit.min(self.rows.len()));
        if total == 0 {
            return Err(Error::input("there are no rows to evaluate on")
                .hint("raise `validation` of the pack stage, or evaluate the `train` split"));
        }
        let random = Random::new(self.seed, self.stream);
        let shifts: Vec<f64> = (0..u64::from(draws)).map(|draw| shift(random, draw)).collect();
        // All rows are taken as they lie: reading them in order is quickest.
        let order = (total < self.rows.len()).then(|| Permutation::new(self.seed, self.rows.len()));
        let mut sums = Sums::new(draws);
        let mut noised = NoisedBatch::default();
        let mut x = vec![0; self.rows.length()];
        for rank in 0..total {
            let row = order.as_ref().map_or(rank, |order| order.get(0, rank));
            let scored = self.rows.read(row, &mut x)?;
            sums.row(row, &x, &scored);
            sums.tokens.push(self.objective.predicted(&scored) as u64);
            let passes = self.objective.passes_of_bound(self.method, &scored);
            for (number, pass) in in_order(draws, passes) {
                let part = (shifts[number as usize] + phase(rank)).fract();
                let draw = Draw {
                    method: self.method,
                    random,
                    draw: u64::from(number),
                    row,
                    offset: (f64::from(number) + part) / f64::from(draws),
                };
                self.objective
                    .noise_of_bound(&draw, pass, &x, &scored, &mut noised);
                sums.asked.push(PendingPass::of(pass, passes));
                if noised.rows() == self.micro_batch {
                    cancel.check()?;
                    self.answer(network, &mut noised, &mut sums)?;
                    progress(rank, total, sums.estimate());
                }
            }
        }
        self.answer(network, &mut noised, &mut sums)?;
        progress(total, total, sums.estimate());
        if sums.tokens.iter().all(|&n| n == 0) {
            return Err(Error::input("the rows to evaluate on hold nothing but padding"));
        }
        Ok(sums.bound())
    }

    /// Asks the network about the rows gathered, and adds each draw's value.
    fn answer(&self, network: &dyn Network, noised: &mut NoisedBatch, sums: &mut Sums) -> Result<()> {
        let values = answered(network, self.objective, noised)?;
        for (value, asked) in values.into_iter().zip(std::mem::take(&mut sums.asked)) {
            sums.pass(value, asked);
        }
        Ok(())
    }
}

/// The draw and the number of each pass of a row, in the order in which the network is asked: fixed ones first, since every
/// draw has them in its value.
fn in_order(draws: u32, passes: Passes) -> impl Iterator<Item = (u32, u32)> {
    let Passes { drawn, fixed } = passes;
    let of_draw = move |draw| (0..drawn).map(move |pass| (draw, pass));
    let fixed = (drawn..drawn + fixed).map(|pass| (0, pass));
    fixed.chain((0..draws).flat_map(of_draw))
}

/// A pass that waits for the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PendingPass {
    /// It is a part of every draw of its row.
    is_fixed: bool,
    /// With it its draw is complete.
    is_last: bool,
}

impl PendingPass {
    fn of(pass: u32, passes: Passes) -> Self {
        let Passes { drawn, fixed } = passes;
        let last = if drawn > 0 { drawn } else { fixed };
        Self {
            is_fixed: pass >= drawn,
            is_last: pass + 1 == last,
        }
    }
}

/// Asks the network about rows under noise: the loss of each of their positions.
///
/// # Errors
/// The network failed.
pub fn losses(network: &dyn Network, objective: &dyn Objective, noised: &NoisedBatch) -> Result<Vec<f32>> {
    if noised.positions.is_empty() {
        return Ok(Vec::new());
    }
    let batch = Batch {
        tokens: &noised.tokens,
        sigma: &noised.sigma,
        positions: &noised.positions,
        targets: &noised.targets,
        weights: &noised.weights,
        loss: objective.loss(),
        constants: &noised.constants,
        pattern: objective.pattern(),
        ..Batch::default()
    };
    network.nll(&batch, objective.support())
}

/// Asks the network about the rows gathered, and removes them: Σ weight · loss of each in nats.
fn answered(network: &dyn Network, objective: &dyn Objective, noised: &mut NoisedBatch) -> Result<Vec<f64>> {
    let nll = losses(network, objective, noised)?;
    let mut values = Vec::with_capacity(noised.rows());
    for span in noised.spans() {
        let pairs = noised.weights[span.clone()].iter().zip(&nll[span]);
        let value: f64 = pairs
            .map(|(&weight, &nll)| f64::from(weight) * f64::from(nll))
            .sum();
        if !value.is_finite() {
            return Err(Error::input("the model's negative log-likelihood is not finite")
                .hint("its weights are damaged, or its training diverged"));
        }
        values.push(value);
    }
    noised.clear();
    Ok(values)
}

/// Draws as they come in, row after row.
struct Sums {
    draws: u32,
    /// The passes that wait for the network.
    asked: Vec<PendingPass>,
    /// Nats of the fixed passes of the row that is not complete yet.
    fixed: f64,
    /// Nats of the other passes of the draw that is not complete yet.
    drawn: f64,
    /// The rows, by their numbers.
    rows: Vec<u64>,
    /// Valid tokens of each row, its context left out.
    valid: Vec<u32>,
    /// Of the rows' tokens.
    text: blake3::Hasher,
    /// Draws of the row that is not complete yet.
    open: Vec<f64>,
    /// `y_r` of every complete row.
    means: Vec<f64>,
    /// `n_r` of every row: its scored tokens.
    tokens: Vec<u64>,
    /// `Σ_r s_r²`.
    within: f64,
}

impl Sums {
    fn new(draws: u32) -> Self {
        Self {
            draws,
            asked: Vec::new(),
            fixed: 0.0,
            drawn: 0.0,
            rows: Vec::new(),
            valid: Vec::new(),
            text: blake3::Hasher::new(),
            open: Vec::new(),
            means: Vec::new(),
            tokens: Vec::new(),
            within: 0.0,
        }
    }

    /// Begins a row: its number in the split, its tokens, which of them are scored.
    fn row(&mut self, row: u64, x: &[u32], scored: &Range<usize>) {
        self.rows.push(row);
        self.valid.push(scored.len() as u32);
        for token in x {
            self.text.update(&token.to_le_bytes());
        }
        // Without context, the number of valid tokens.
        let ends = scored.end as u64 | (scored.start as u64) << 32;
        self.text.update(&ends.to_le_bytes());
    }

    fn pass(&mut self, value: f64, asked: PendingPass) {
        if asked.is_fixed {
            self.fixed += value;
        } else {
            self.drawn += value;
        }
        if asked.is_last {
            let value = std::mem::take(&mut self.drawn) + self.fixed;
            self.draw(value);
        }
    }

    fn draw(&mut self, value: f64) {
        self.open.push(value);
        if self.open.len() < self.draws as usize {
            return;
        }
        let draws = f64::from(self.draws);
        let mean = self.open.iter().sum::<f64>() / draws;
        if self.draws > 1 {
            let squares: f64 = self.open.iter().map(|value| (value - mean).powi(2)).sum();
            self.within += squares / (draws - 1.0);
        }
        self.means.push(mean);
        self.open.clear();
        self.fixed = 0.0;
    }

    /// b over the complete rows.
    fn estimate(&self) -> f64 {
        let tokens: u64 = self.tokens[..self.means.len()].iter().sum();
        self.means.iter().sum::<f64>() / tokens as f64
    }

    fn bound(self) -> Bound {
        let found = ratio(&self.means, &self.tokens);
        let scored: u64 = self.tokens.iter().sum();
        let monte_carlo_error = (self.draws > 1).then(|| {
            let upper = (self.within / f64::from(self.draws)).sqrt() / scored as f64;
            found.standard_error.map_or(upper, |whole| whole.min(upper))
        });
        Bound {
            nats_per_token: found.interval(),
            standard_error: found.standard_error,
            monte_carlo_error,
            rows: self.means.len() as u64,
            tokens: self.valid.iter().map(|&valid| u64::from(valid)).sum(),
            scored,
            draws: self.draws,
            by_row: LossesByRow {
                rows: self.rows,
                nats: self.means,
                valid_tokens: self.valid,
                text: Digest::from_hash(self.text.finalize()),
            },
        }
    }
}

/// Σ y / Σ n over rows, with its standard error by successive differences (see the module).
struct Ratio {
    value: f64,
    /// Absent for a single row.
    standard_error: Option<f64>,
    /// Degrees of freedom of the standard error.
    freedom: u64,
}

impl Ratio {
    fn interval(&self) -> Interval {
        Interval::of(self.value, self.standard_error, self.freedom)
    }
}

/// The ratio b = Σ y / Σ n of rows in the order of evaluation.
fn ratio(values: &[f64], tokens: &[u64]) -> Ratio {
    let rows = values.len() as u64;
    let n = tokens.iter().sum::<u64>() as f64;
    let b = values.iter().sum::<f64>() / n;
    Ratio {
        value: b,
        standard_error: (rows > 1).then(|| squared_differences(values, tokens, b).sqrt() / n),
        // Successive differences of n numbers know two thirds of what n − 1 free ones do.
        freedom: (rows.saturating_sub(1) * 2).div_ceil(3),
    }
}

/// `R / (2 (R − 1)) · Σ (e_r − e_r′)²` over neighbours by phase, for the ratio b.
fn squared_differences(values: &[f64], tokens: &[u64], b: f64) -> f64 {
    let rows = values.len();
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by(|&i, &j| phase(i as u64).total_cmp(&phase(j as u64)));
    let residual = |r: usize| values[r] - b * tokens[r] as f64;
    let squares: f64 = order
        .windows(2)
        .map(|pair| (residual(pair[0]) - residual(pair[1])).powi(2))
        .sum();
    squares * rows as f64 / (2 * (rows - 1)) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SpecialIds;
    use crate::diffusion::objective::D3pm;
    use crate::diffusion::{EVERY_SCHEDULE, Mdlm, Noise, Subs};
    use crate::kernels::Pattern;
    use crate::manifest::{D3pmObjective, Estimator};
    use crate::model::toy::{Bag, Distribution, Posterior};

    /// Rows drawn from a distribution, and their exact −log p.
    pub(super) fn drawn(truth: &Distribution, count: u32, padded: bool) -> (Rows, Vec<f64>) {
        let random = Random::new(8, Stream::Synthetic);
        let mut tokens = Vec::new();
        let mut exact = Vec::new();
        for row in 0..count {
            let mut u = random.uniform(0, u64::from(row), 0);
            let index = truth.probabilities.iter().position(|p| {
                u -= p;
                u < 0.0
            });
            let index = index.unwrap_or(truth.probabilities.len() - 1);
            tokens.extend(truth.row(index));
            exact.push(-truth.probabilities[index].ln());
        }
        let special = SpecialIds {
            bos: 0,
            eos: 0,
            pad: 0,
            mask: truth.mask(),
        };
        let scored: Vec<_> = (0..count as usize).map(|row| 0..truth.length - row % 2).collect();
        let scored = padded.then_some(&*scored);
        let rows = Rows::from_memory(truth.mask() + 1, special, truth.length, tokens, scored).unwrap();
        (rows, exact)
    }

    fn objective(schedule: Noise, truth: &Distribution) -> &'static dyn Objective {
        let mdlm = Mdlm::with_schedule(schedule, truth.mask(), 11);
        // It lives as long as the program: a test may leak a few dozen bytes.
        Box::leak(Box::new(mdlm))
    }

    fn task<'a>(
        rows: &'a Rows,
        truth: &Distribution,
        schedule: Noise,
        estimator: Estimator,
    ) -> BoundEstimator<'a> {
        BoundEstimator {
            rows,
            limit: None,
            objective: objective(schedule, truth),
            seed: 11,
            method: Method::of(estimator),
            draws: 8,
            stream: Stream::Evaluate,
            micro_batch: 64,
        }
    }

    fn run(task: &BoundEstimator<'_>, network: &dyn Network) -> Bound {
        task.run(network, &Cancel::default(), &mut |_, _, _| ()).unwrap()
    }

    #[test]
    fn estimators_and_schedules_find_the_entropy_of_the_rows() {
        let truth = Distribution::random(4, 3, 6);
        let network = Posterior::new(truth.clone());
        let (rows, exact) = drawn(&truth, 1000, false);
        // With the exact posterior the expectation over times and masks is −log p of these very rows, so only the
        // Monte-Carlo part of the error counts here; it is an upper estimate.
        let expected = exact.iter().sum::<f64>() / 4000.0;
        let mut count_error = 0.0;
        for (schedule, estimator) in EVERY_SCHEDULE
            .map(|schedule| (schedule, Estimator::Time))
            .into_iter()
            .chain([(EVERY_SCHEDULE[0], Estimator::Count)])
        {
            let bound = run(&task(&rows, &truth, schedule, estimator), &network);
            let error = bound.monte_carlo_error.unwrap();
            let difference = bound.nats_per_token.value - expected;
            assert!(
                difference.abs() < 3.0 * error,
                "{schedule:?} {estimator:?}: {difference} ± {error}"
            );
            // Schedules that hurry through the middle pay with variance: up to 0.031 here.
            assert!(error < 0.04, "{schedule:?} {estimator:?}: ± {error}");
            assert!(bound.standard_error.unwrap() > 0.5 * error);
            let interval = bound.nats_per_token;
            assert!(interval.low.unwrap() < truth.entropy() / 4.0);
            assert!(truth.entropy() / 4.0 < interval.high.unwrap());
            count_error = error;
        }
        let time = run(&task(&rows, &truth, EVERY_SCHEDULE[0], Estimator::Time), &network);
        assert!(
            count_error < time.monte_carlo_error.unwrap(),
            "counts vary less than times"
        );
    }

    /// Rows of which the last positions are scored, after what is given: as with whole rows, all estimators find −log p.
    #[test]
    fn estimators_find_the_conditional_entropy_of_rows_with_context() {
        let truth = Distribution::random(4, 3, 6);
        let network = Posterior::new(truth.clone());
        let (whole, _) = drawn(&truth, 600, false);
        let (mut tokens, mut scored, mut expected) = (Vec::new(), Vec::new(), 0.0);
        let mut x = vec![0; 4];
        for row in 0..600 {
            whole.read(row, &mut x).unwrap();
            let range = 1 + row as usize % 2..4 - row as usize % 3 / 2;
            for l in range.clone() {
                let mut z = vec![truth.mask(); 4];
                z[..l].copy_from_slice(&x[..l]);
                expected -= truth.posterior(&z, l)[x[l] as usize].ln();
            }
            tokens.extend(&x);
            scored.push(range);
        }
        let special = whole.info().special;
        let rows = Rows::from_memory(truth.mask() + 1, special, 4, tokens.clone(), Some(&scored)).unwrap();
        let count: usize = scored.iter().map(Range::len).sum();
        let expected = expected / count as f64;
        for estimator in [Estimator::Time, Estimator::Count] {
            let bound = run(&task(&rows, &truth, EVERY_SCHEDULE[0], estimator), &network);
            assert_eq!((bound.tokens, bound.scored), (count as u64, count as u64));
            let (difference, error) = (
                bound.nats_per_token.value - expected,
                bound.monte_carlo_error.unwrap(),
            );
            assert!(
                difference.abs() < 3.0 * error,
                "{estimator:?}: {difference} ± {error}"
            );
            let lengths: Vec<u32> = scored.iter().map(|range| range.len() as u32).collect();
            assert_eq!(bound.by_row.valid_tokens, lengths);
            // Per word where each row's scored tokens are one.
            let per_row = bound.nats_per_token.value * count as f64 / 600.0;
            assert!((bound.perplexity_per_row().value.ln() - per_row).abs() < 1e-9);
            assert!(
                (bound.perplexity_per_word(0.5).value.ln() - 2.0 * bound.nats_per_token.value).abs() < 1e-9
            );
        }
        // The same tokens with other context are another text.
        let text = |scored: &[Range<usize>]| {
            let rows = Rows::from_memory(truth.mask() + 1, special, 4, tokens.clone(), Some(scored)).unwrap();
            run(
                &task(&rows, &truth, EVERY_SCHEDULE[0], Estimator::Count),
                &network,
            )
            .by_row
            .text
        };
        let other: Vec<_> = scored.iter().map(|range| 1..range.end).collect();
        assert_ne!(text(&scored), text(&other));
    }

    #[test]
    fn masked_only_answers_equal_the_full_computation() {
        // All positions computed, the visible ones with the log-probability 0 of SUBS's carry-over.
        let truth = Distribution::random(4, 3, 6);
        let network = Posterior::new(truth.clone());
        let (rows, _) = drawn(&truth, 40, true);
        let task = task(&rows, &truth, EVERY_SCHEDULE[0], Estimator::Count);
        let bound = run(&task, &network);
        let random = Random::new(11, Stream::Evaluate);
        let subs = Subs {
            mask: truth.mask(),
            vocabulary: truth.mask() + 1,
        };
        let (mut sum, mut tokens) = (0.0, 0);
        let mut x = vec![0; 4];
        for row in 0..40 {
            let scored = rows.read(row, &mut x).unwrap();
            tokens += scored.len();
            for draw in 0..8_u64 {
                let mut noised = NoisedBatch::default();
                let part = (shift(random, draw) + phase(row)).fract();
                let offset = (draw as f64 + part) / 8.0;
                let named = Draw {
                    method: Method::of(Estimator::Count),
                    random,
                    draw,
                    row,
                    offset,
                };
                task.objective.noise_of_bound(&named, 0, &x, &scored, &mut noised);
                let hidden = noised.tokens.iter().filter(|&&z| z == truth.mask()).count();
                let all: Vec<u32> = (0..4).collect();
                let logits = network
                    .logits(&noised.tokens, &[0.0], &all, Pattern::Full)
                    .unwrap();
                for l in scored.clone() {
                    let log_p = subs.log_p_x0(noised.tokens[l], &logits[l * 6..][..6]);
                    sum -= 4.0 / hidden as f64 * log_p[x[l] as usize] / 8.0;
                }
            }
        }
        let full = sum / tokens as f64;
        // f32 answers and weights.
        assert!(
            (bound.nats_per_token.value - full).abs() < 1e-6 * full,
            "{bound:?} is not {full}"
        );
        assert_eq!(bound.tokens, tokens as u64);
    }

    /// What the clean row costs, without carry-over, is a part of every draw, and the network is asked for it once a row.
    #[test]
    fn passes_that_no_draw_changes_are_made_once_a_row() {
        let truth = Distribution::random(4, 3, 6);
        let (rows, _) = drawn(&truth, 40, true);
        let settings = D3pmObjective {
            steps: 10,
            ..D3pmObjective::default()
        };
        let d3pm = D3pm::new(&settings, truth.mask(), truth.mask() + 1, 11);
        let mut task = BoundEstimator {
            objective: &d3pm,
            method: d3pm.method_of_validation(),
            ..task(&rows, &truth, EVERY_SCHEDULE[0], Estimator::Time)
        };
        // The mask's probability costs in the clean row, too.
        let network = Posterior::with_mask_probability(truth.clone(), 0.2);
        let bound = run(&task, &network);
        // Eight draws, and the clean row.
        assert_eq!(network.calls.get(), 40 * 9);
        for micro_batch in [1, 7] {
            task.micro_batch = micro_batch;
            assert_eq!(run(&task, &network), bound);
        }
        let random = Random::new(11, Stream::Evaluate);
        let (mut sum, mut clean, mut tokens) = (0.0, 0.0, 0);
        let mut x = vec![0; 4];
        for row in 0..40 {
            let scored = rows.read(row, &mut x).unwrap();
            tokens += scored.len();
            for draw in 0..8_u64 {
                let named = Draw {
                    method: task.method,
                    random,
                    draw,
                    row,
                    offset: (draw as f64 + (shift(random, draw) + phase(row)).fract()) / 8.0,
                };
                let mut noised = NoisedBatch::default();
                (0..2).for_each(|pass| d3pm.noise_of_bound(&named, pass, &x, &scored, &mut noised));
                let values = answered(&network, &d3pm, &mut noised).unwrap();
                sum += (values[0] + values[1]) / 8.0;
                clean += values[1] / 8.0;
            }
        }
        let tokens = tokens as f64;
        let (expected, found) = (sum / tokens, bound.nats_per_token.value);
        assert!(
            (found - expected).abs() < 1e-12 * expected,
            "{found} is not {expected}"
        );
        // −log 0.8 a token, in f32.
        assert!((clean / tokens + 0.8f64.ln()).abs() < 1e-6, "{clean}");
    }

    #[test]
    fn interval_is_the_one_stated() {
        let mut sums = Sums::new(2);
        sums.tokens = vec![2, 3, 1];
        sums.valid = vec![2, 3, 1];
        for value in [1.0, 3.0, 4.0, 8.0, 2.0, 2.0] {
            sums.draw(value);
        }
        let bound = sums.bound();
        let b = 10.0 / 6.0;
        assert!((bound.nats_per_token.value - b).abs() < 1e-15);
        // Phases 0, 0.62, 0.24: by phase the rows are 0, 2, 1.
        let e = [2.0 - 2.0 * b, 6.0 - 3.0 * b, 2.0 - b];
        let squares = (e[0] - e[2]).powi(2) + (e[2] - e[1]).powi(2);
        let error = (squares * 3.0 / 4.0).sqrt() / 6.0;
        assert!((bound.standard_error.unwrap() - error).abs() < 1e-15);
        assert!((bound.nats_per_token.high.unwrap() - b - 4.302_652_73 * error).abs() < 1e-12);
        assert!((bound.monte_carlo_error.unwrap() - error.min((10.0f64 / 2.0).sqrt() / 6.0)).abs() < 1e-15);
        assert!((bound.perplexity().value - b.exp()).abs() < 1e-12);
        assert!((bound.bits_per_byte(2.0).value - b / 2.0 / 2f64.ln()).abs() < 1e-12);
        // Where fewer tokens are scored than are valid, bytes are shared out among the valid ones.
        let causal = Bound { tokens: 9, ..bound };
        assert!((causal.bits_per_byte(2.0).value - b * 6.0 / 9.0 / 2.0 / 2f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn interval_covers_as_often_as_stated() {
        let truth = Distribution::random(6, 2, 6);
        let network = Posterior::new(truth.clone());
        let (all, _) = drawn(&truth, 20_000, false);
        let special = SpecialIds {
            bos: 0,
            eos: 0,
            pad: 0,
            mask: 2,
        };
        for (estimator, draws) in [(Estimator::Count, 1), (Estimator::Time, 4)] {
            let (mut covered, mut width, mut errors) = (0, 0.0, 0.0);
            let mut x = vec![0; 6];
            for part in 0..200 {
                let mut tokens = Vec::new();
                for row in 0..100 {
                    all.read(part * 100 + row, &mut x).unwrap();
                    tokens.extend(&x);
                }
                let rows = Rows::from_memory(3, special, 6, tokens, None).unwrap();
                let mut task = task(&rows, &truth, EVERY_SCHEDULE[0], estimator);
                task.draws = draws;
                task.seed = part;
                let interval = run(&task, &network).nats_per_token;
                let entropy = truth.entropy() / 6.0;
                covered += u32::from(interval.low.unwrap() < entropy && entropy < interval.high.unwrap());
                width += interval.high.unwrap() - interval.low.unwrap();
                errors += (interval.value - entropy).powi(2);
            }
            let ratio = width / 200.0 / (4.0 * (errors / 200.0).sqrt());
            // 200 intervals of 95%: 190 ± 3.1, a little fewer because the estimates are skewed.
            assert!(
                (180..=198).contains(&covered),
                "{estimator:?}: {covered} of 200 cover"
            );
            assert!(
                (0.9..1.1).contains(&ratio),
                "{estimator:?}: {ratio} of four standard deviations wide"
            );
        }
    }

    #[test]
    fn micro_batches_change_no_value_and_a_limit_takes_a_subset() {
        let network = {
            let mut bag = Bag::new(4, 3);
            let weights: Vec<f32> = (0..20_u8).map(|i| f32::from(i * 7 % 11) / 5.0).collect();
            bag.load(&weights).unwrap();
            bag
        };
        let truth = Distribution::random(3, 3, 6);
        let (rows, _) = drawn(&truth, 50, true);
        let mut task = task(&rows, &truth, EVERY_SCHEDULE[1], Estimator::Time);
        let whole = run(&task, &network);
        task.micro_batch = 1;
        assert_eq!(run(&task, &network), whole);
        task.micro_batch = 7;
        assert_eq!(run(&task, &network), whole);
        task.limit = Some(20);
        let part = run(&task, &network);
        assert_eq!((whole.rows, part.rows), (50, 20));
        assert_ne!(part.nats_per_token, whole.nats_per_token);
    }
}
