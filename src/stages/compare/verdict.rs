//! Whether what comes first in a table is best: only where it is clearly different from every other by more than the uncertainty.
//!
//! Which uncertainty has to be covered depends on what differs.
//!
//! * **Two trainings** may differ by their seeds alone as much as by their settings. Where one of them has a single seed of
//!   training, this effect is not known, however many seeds other stages have: the intervals of its results cover the
//!   evaluation alone. What comes first then leads, and is best of nothing, however narrow the intervals are. The same holds
//!   where it is not known which training was measured.
//! * **Results of one training** (other noise, other weights, other samplers) differ by the evaluation alone, which their 95%
//!   intervals cover. They differ clearly where the interval of their difference, row by row of the same text, leaves out 0
//!   ([`super::paired`]); where they were not measured on the same rows, or are shares of samples, where their intervals do not
//!   overlap, which asks for more than a test of their difference would.
//! * **Means over seeds** differ clearly where two things hold. The 95% interval of their difference leaves out 0: of the paired
//!   differences where both were drawn by the same seeds, else with the sum of both squared standard errors and the lesser
//!   degrees of freedom (which is no narrower than Welch's). And they differ clearly in the evaluation: by the interval of the
//!   difference row by row of both means, or where that is not known by the 95% intervals of their results, their ends
//!   averaged over the seeds. Which rows were held out is the same for all seeds of training and shows in no spread over
//!   them.
//!
//! Of an exact value and a bound the difference is itself a bound. An upper bound less an exact value is an upper bound on the
//! difference of the likelihoods: the model behind the bound may be better than its bound, so that an exact value that comes
//! first is best of the numbers, not surely of the models. An exact value less an upper bound is a lower bound on it: a bound
//! that comes first is of a model that is at least so much better. Of two bounds the difference bounds nothing.

use std::collections::HashSet;

use serde::Serialize;

use super::group::{Group, distinct};
use super::places::{comparable, heads, titles};
use super::{Difference, Row};
use crate::evaluate::{Interval, Quantity};
use crate::manifest::{Metric, Seed, StageKind};
use crate::stages::replicates::Spread;
use crate::store::Digest;

/// Others that are named at most.
const NAMED: usize = 3;

/// What is known of the first row or group of a table against the others that it compares with.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What the first is called.
    pub title: String,
    by: Metric,
    /// Those that it is not clearly different from, by their places, and what they are called.
    open: Vec<(usize, String)>,
    /// Places of those that it is clearly different from in the evaluation, while the effect of another seed of training is not known.
    evaluated: Vec<usize>,
    /// Places of those that are bounds, while the first is exact: the difference is an upper bound.
    at_most: Vec<usize>,
    /// Places of those that are exact, while the first is a bound: the difference is a lower bound.
    at_least: Vec<usize>,
    how: String,
}

/// A verdict as JSON.
#[derive(Serialize)]
pub struct VerdictReport<'a> {
    /// The place of the best group, or the best row where there are no groups, from 0; `null` where none is.
    best: Option<usize>,
    /// Places of those that the first is not clearly different from.
    not_apart: Vec<usize>,
    /// Places of those that it is clearly different from in the evaluation, which does not cover another seed of training.
    #[serde(skip_serializing_if = "<[usize]>::is_empty")]
    apart_in_evaluation: &'a [usize],
    /// Places of those whose difference from the first is an upper bound on the difference of the likelihoods.
    #[serde(skip_serializing_if = "<[usize]>::is_empty")]
    difference_at_most: &'a [usize],
    /// Places of those whose difference from the first is a lower bound on it.
    #[serde(skip_serializing_if = "<[usize]>::is_empty")]
    difference_at_least: &'a [usize],
    /// How that is decided.
    decided_by: &'a str,
}

impl Verdict {
    /// The verdict on a table in order; nothing where fewer than two compare. A published estimate does not compare with
    /// bounds, nor a number per token with one per position.
    #[must_use]
    pub fn of(
        rows: &[&Row],
        groups: Option<&[Group]>,
        by: Metric,
        differences_by_row: &[Difference],
    ) -> Option<Self> {
        let heads = heads(rows, groups, by);
        let comparable = comparable(&heads, by);
        let (&first, others) = comparable
            .split_first()
            .filter(|(_, others)| !others.is_empty())?;
        let results_at = |place: usize| match groups {
            None => results(rows, &[place], by),
            Some(groups) => results(rows, &groups[place].rows, by),
        };
        let spread = |place: usize| groups.and_then(|groups| groups[place].metric(by));
        let of_first = results_at(first);
        let decided: Vec<(usize, Decided)> = others
            .iter()
            .map(|&other| {
                let means = spread(first).zip(spread(other));
                let by_row = differences_by_row.iter().find(|found| found.place == other);
                let by_row = by_row.map(|found| found.bits_per_byte);
                (
                    other,
                    Decided::of(&of_first, &results_at(other), means, by_row, by),
                )
            })
            .collect();
        let called = titles(rows, groups);
        let those = |wanted: Apart| {
            let found = decided.iter().filter(move |(_, decided)| decided.apart == wanted);
            found.map(|(place, _)| *place)
        };
        let of_quantities = |mine: Quantity, theirs: Quantity| -> Vec<usize> {
            let differs = |place: &&usize| (heads[first].quantity, heads[**place].quantity) == (mine, theirs);
            let is_of_text = by.is_of_text();
            others
                .iter()
                .filter(|_| is_of_text)
                .filter(differs)
                .copied()
                .collect()
        };
        let at_most = of_quantities(Quantity::Exact, Quantity::Bound);
        let at_least = of_quantities(Quantity::Bound, Quantity::Exact);
        let differences = differences(others.len(), at_most.len(), at_least.len());
        let how: Vec<String> = [how(&decided)].into_iter().chain(differences).collect();
        Some(Self {
            title: called(first),
            by,
            open: those(Apart::No).map(|place| (place, called(place))).collect(),
            evaluated: those(Apart::InEvaluation).collect(),
            at_most,
            at_least,
            how: how.join("; "),
        })
    }

    /// Whether the first is clearly different from all others.
    #[must_use]
    pub fn is_best(&self) -> bool {
        self.open.is_empty() && self.evaluated.is_empty()
    }

    /// Those that the first is not clearly different from, in words.
    #[must_use]
    pub fn others(&self) -> String {
        let mut names: Vec<String> = self
            .open
            .iter()
            .take(NAMED)
            .map(|(_, name)| name.clone())
            .collect();
        if self.open.len() > NAMED {
            names.push(format!("{} more", self.open.len() - NAMED));
        }
        let last = names.pop().unwrap_or_default();
        if names.is_empty() {
            last
        } else {
            format!("{} and {last}", names.join("; "))
        }
    }

    /// The verdict in words, and how it is reached.
    #[must_use]
    pub fn sentence(&self) -> String {
        let (by, title, how) = (self.by.name(), &self.title, &self.how);
        if self.is_best() {
            format!("best by {by}: {title}, clearly different from all others; {how}")
        } else if self.open.is_empty() {
            format!(
                "no best by {by}: {title} comes first, clearly different from the others in the evaluation alone; {how}"
            )
        } else {
            format!(
                "no best by {by}: {title} is not clearly different from {}; {how}",
                self.others()
            )
        }
    }

    /// The verdict as JSON has it.
    #[must_use]
    pub fn report(&self) -> VerdictReport<'_> {
        VerdictReport {
            // What compares comes first.
            best: self.is_best().then_some(0),
            not_apart: self.open.iter().map(|(place, _)| *place).collect(),
            apart_in_evaluation: &self.evaluated,
            difference_at_most: &self.at_most,
            difference_at_least: &self.at_least,
            decided_by: &self.how,
        }
    }
}

/// Whether the first of two intervals lies wholly on the better side of the second.
fn do_not_overlap(by: Metric, first: Interval, second: Interval) -> bool {
    let (better, worse) = if by.rises() {
        (second.high, first.low)
    } else {
        (first.high, second.low)
    };
    better.zip(worse).is_some_and(|(better, worse)| better < worse)
}

/// Whether one setting's results are clearly different from another's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Apart {
    /// By more than all that is not known.
    Yes,
    /// In the evaluation alone: their trainings differ, and one of them has a single seed.
    InEvaluation,
    /// Not by as much as the uncertainty.
    No,
}

/// What the results of two settings say of each other.
struct Decided {
    apart: Apart,
    basis: Basis,
    /// Whether their results were paired by the rows of the text.
    by_row: bool,
}

/// What decides whether two settings are apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Basis {
    /// Means over seeds.
    Means {
        /// Whether their results were paired by seeds.
        paired: bool,
    },
    /// The intervals of results.
    Results,
    /// The intervals of results, where trainings differ and one setting has a single seed of training.
    OneSeed,
}

impl Basis {
    fn is_means(self) -> bool {
        matches!(self, Self::Means { .. })
    }
}

/// A result of a setting.
struct Found<'a> {
    row: &'a Row,
    interval: Interval,
}

/// The models of some results, without repetition; nothing where one is not known.
fn models(of: &[Found<'_>]) -> Option<Vec<Digest>> {
    let mut all: Vec<Digest> = of.iter().map(|found| found.row.model).collect::<Option<_>>()?;
    all.sort_unstable();
    all.dedup();
    Some(all)
}

/// How many seeds of training some results have. Seeds of other stages do not count: rows of another seed make another
/// model too, but show nothing of what another seed of training changes.
fn training_seeds(of: &[Found<'_>]) -> usize {
    let of_training = |found: &Found<'_>| -> Vec<u64> {
        let trained = |seed: &&Seed| seed.kinds.contains(&StageKind::Train);
        found
            .row
            .seeds
            .iter()
            .filter(trained)
            .map(|seed| seed.value)
            .collect()
    };
    of.iter().map(of_training).collect::<HashSet<_>>().len()
}

impl Decided {
    /// Decides on results `a` of the first and `b` of another: `means` are those over seeds, `by_row` is the difference b − a
    /// row by row.
    fn of(
        a: &[Found<'_>],
        b: &[Found<'_>],
        means: Option<(Spread, Spread)>,
        by_row: Option<Interval>,
        by: Metric,
    ) -> Self {
        let same = models(a).is_some_and(|of_a| models(b) == Some(of_a));
        let one_seed = !same && training_seeds(a).min(training_seeds(b)) < 2;
        let by_means = !one_seed && a.len().min(b.len()) > 1;
        let pairs: Option<Vec<(f64, Vec<u64>)>> = a
            .iter()
            .map(|x| {
                let y = b.iter().find(|y| y.row.seeds == x.row.seeds)?;
                let difference = x.interval.value - y.interval.value;
                Some((difference, x.row.seeds.iter().map(|seed| seed.value).collect()))
            })
            .collect();
        let pairs = pairs.filter(|_| by_means && a.len() == b.len());
        let basis = if one_seed {
            Basis::OneSeed
        } else if by_means {
            Basis::Means {
                paired: pairs.is_some(),
            }
        } else {
            Basis::Results
        };
        let difference = match pairs {
            Some(pairs) => {
                let (differences, seeds): (Vec<f64>, Vec<_>) = pairs.into_iter().unzip();
                Spread::of(&differences, &seeds)
                    .map(|found| Interval::of(found.mean, found.standard_error, found.freedom))
            }
            None => means.map(|(a, b)| {
                let errors = a.standard_error.zip(b.standard_error);
                let error = errors.map(|(a, b)| a.hypot(b));
                Interval::of(a.mean - b.mean, error, a.freedom.min(b.freedom))
            }),
        };
        let zero = Interval {
            value: 0.0,
            low: Some(0.0),
            high: Some(0.0),
        };
        let differ = !by_means || difference.is_some_and(|difference| do_not_overlap(by, difference, zero));
        let apart_in_evaluation = match by_row {
            Some(difference) => difference.low.is_some_and(|low| low > 0.0),
            None => do_not_overlap(by, averaged(a), averaged(b)),
        };
        let apart = match differ && apart_in_evaluation {
            true if one_seed => Apart::InEvaluation,
            true => Apart::Yes,
            false => Apart::No,
        };
        Self {
            apart,
            basis,
            by_row: by_row.is_some(),
        }
    }
}

/// The results at some places, each seed's once.
fn results<'a>(rows: &[&'a Row], places: &[usize], by: Metric) -> Vec<Found<'a>> {
    let found = distinct(rows, places).into_iter().filter_map(|place| {
        let row = rows[place];
        let interval = row.metric(by)?;
        Some(Found { row, interval })
    });
    found.collect()
}

/// The mean of intervals, end by end; without ends where one has none.
fn averaged(results: &[Found<'_>]) -> Interval {
    let n = results.len() as f64;
    let mean = |end: &dyn Fn(&Interval) -> Option<f64>| {
        let ends: Option<Vec<f64>> = results.iter().map(|found| end(&found.interval)).collect();
        ends.map(|ends| ends.iter().sum::<f64>() / n)
    };
    Interval {
        value: results.iter().map(|found| found.interval.value).sum::<f64>() / n,
        low: mean(&|interval| interval.low),
        high: mean(&|interval| interval.high),
    }
}

/// What the differences of an exact value and bounds are, where so many of the others differ from the first in that.
fn differences(others: usize, at_most: usize, at_least: usize) -> Option<String> {
    let (count, first, [one, several], end) = match (at_most, at_least) {
        (0, 0) => return None,
        (0, count) => (count, "an upper bound", ["exact", "exact"], "lower"),
        (count, _) => (count, "exact", ["an upper bound", "upper bounds"], "upper"),
    };
    let who = match count {
        1 if others == 1 => "the other".to_owned(),
        all if all == others => "the others".to_owned(),
        some => format!("{some} of {others} others"),
    };
    Some(if count == 1 {
        let article = if end == "upper" { "an" } else { "a" };
        format!(
            "the first is {first} and {who} is {one}, so that the difference is {article} {end} bound on that of the \
             likelihoods"
        )
    } else {
        format!(
            "the first is {first} and {who} are {several}, so that the differences are {end} bounds on those of the \
             likelihoods"
        )
    })
}

/// How it is decided what is apart.
fn how(decided: &[(usize, Decided)]) -> String {
    let count = |of: &dyn Fn(&Decided) -> bool| decided.iter().filter(|(_, decided)| of(decided)).count();
    let means = count(&|decided| decided.basis.is_means());
    let mut how = Vec::new();
    if means > 0 {
        let pairs = match count(&|decided| decided.basis == Basis::Means { paired: true }) {
            0 => "",
            all if all == means => ", paired by seed,",
            _ => ", paired by seed where both have the same seeds,",
        };
        let evaluated = match count(&|decided| decided.basis.is_means() && decided.by_row) {
            0 => "the 95% intervals of their results do not overlap on average",
            all if all == means => "so does that of their difference row by row of the text",
            _ => {
                "so does that of their difference row by row of the text, or, where it is not known, the 95% intervals of \
                 their results do not overlap on average"
            }
        };
        how.push(format!(
            "means differ clearly where the 95% interval of their difference{pairs} leaves out 0 and {evaluated}"
        ));
    }
    if means < decided.len() {
        let evaluated = match count(&|decided| !decided.basis.is_means() && decided.by_row) {
            0 => "their 95% intervals do not overlap",
            all if all == decided.len() - means => {
                "the 95% interval of their difference, row by row of the text, leaves out 0"
            }
            _ => {
                "the 95% interval of their difference, row by row of the text, leaves out 0, or, where it is not known, \
                 their 95% intervals do not overlap"
            }
        };
        how.push(format!("results differ clearly where {evaluated}"));
    }
    if count(&|decided| decided.basis == Basis::OneSeed) > 0 {
        how.push(
            "with one seed of training, the intervals cover the evaluation alone, not the effect of another seed"
                .to_owned(),
        );
    }
    how.join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Comparison, tests::row};
    use super::*;

    /// Rows in order by bits per byte, with their verdict; each has a setting, a seed, a value and half its interval.
    fn verdict(results: &[(usize, u64, f64, f64)]) -> Verdict {
        let replicated = (1..results.len()).any(|place| results[place].0 == results[place - 1].0);
        let rows: Vec<Row> = results
            .iter()
            .map(|&(setting, seed, bits, half)| {
                let mut row = row(None, &json!({ "rate": setting }), Some((bits, half)));
                if replicated {
                    let seed = Seed {
                        label: "seed".to_owned(),
                        kinds: vec![StageKind::Train],
                        value: seed,
                    };
                    row.place(setting, vec![seed]);
                    row.model = None;
                }
                row
            })
            .collect();
        Comparison::of(rows, None).verdict.unwrap()
    }

    fn open(verdict: &Verdict) -> Vec<&str> {
        verdict.open.iter().map(|(_, name)| &**name).collect()
    }

    #[test]
    fn intervals_decide_between_single_results() {
        // 1 ± 0.125 and 1.25 ± 0.125 touch; 1.3 ± 0.125 does not.
        let touching = verdict(&[(1, 1, 1.25, 0.125), (2, 1, 1.0, 0.125), (3, 1, 1.3, 0.125)]);
        assert!(!touching.is_best());
        assert_eq!((&*touching.title, open(&touching)), ("rate 2", vec!["rate 1"]));
        assert_eq!(
            touching.sentence(),
            "no best by bits_per_byte: rate 2 is not clearly different from rate 1; results differ clearly where their 95% intervals do \
             not overlap"
        );
        let apart = verdict(&[(1, 1, 1.5, 0.125), (2, 1, 1.0, 0.125)]);
        assert!(
            apart.is_best()
                && apart
                    .sentence()
                    .starts_with("best by bits_per_byte: rate 2, clearly different from all")
        );
        // The same value twice is a tie.
        assert!(!verdict(&[(1, 1, 1.0, 0.0), (2, 1, 1.0, 0.0)]).is_best());
    }

    #[test]
    fn differences_over_seeds_decide_between_means() {
        // Seeds move both settings alike: the paired differences are 0.5, 0.5, 0.6, whatever the spread of 1.
        let paired = [
            (1, 1, 1.0, 0.01),
            (1, 2, 2.0, 0.01),
            (1, 3, 3.0, 0.01),
            (2, 1, 1.5, 0.01),
            (2, 2, 2.5, 0.01),
            (2, 3, 3.6, 0.01),
        ];
        let found = verdict(&paired);
        assert!(found.is_best(), "{}", found.sentence());
        assert!(found.sentence().contains("paired by seed, leaves out 0"));
        // By other seeds there are no pairs, and the spread hides the difference.
        let mut unpaired = paired;
        for one in &mut unpaired[3..] {
            one.1 += 10;
        }
        let found = verdict(&unpaired);
        assert_eq!(open(&found), ["rate 2"]);
        assert!(found.sentence().contains("of their difference leaves out 0"));
        // Seeds agree, but which rows were held out may have made the difference.
        let mut wide = paired;
        for one in &mut wide {
            one.3 = 0.5;
        }
        assert_eq!(open(&verdict(&wide)), ["rate 2"]);
        // A difference within the spread: 0.5, −0.5, 0.6.
        let mut within = paired;
        within[4].2 = 1.5;
        assert_eq!(open(&verdict(&within)), ["rate 2"]);
    }

    #[test]
    fn one_seed_of_training_makes_the_first_lead_but_not_best() {
        let not_covered = "not the effect of another seed";
        // However many seeds the others have.
        for seeds in [
            vec![(1, 1, 1.0, 0.01), (1, 2, 1.1, 0.01), (2, 1, 9.0, 0.01)],
            vec![(1, 1, 1.0, 0.01), (2, 1, 9.0, 0.01), (2, 2, 9.1, 0.01)],
        ] {
            let found = verdict(&seeds);
            assert!(!found.is_best() && open(&found).is_empty());
            assert_eq!(found.report().apart_in_evaluation, [1]);
            let sentence = found.sentence();
            assert!(
                sentence.starts_with("no best by bits_per_byte: rate 1 comes first, "),
                "{sentence}"
            );
            assert!(sentence.ends_with(not_covered), "{sentence}");
        }
        // One seed each, whatever the stages are called: the same rule.
        let mut rows = [1, 2].map(|rate| row(None, &json!({ "rate": rate }), Some((f64::from(rate), 0.01))));
        let of =
            |rows: &[Row; 2]| Verdict::of(&[&rows[0], &rows[1]], None, Metric::BitsPerByte, &[]).unwrap();
        assert!(of(&rows).is_best(), "the evaluations of one model");
        rows[1].model = Some(Digest::of(b"another model"));
        let found = of(&rows);
        assert!(
            !found.is_best() && found.sentence().ends_with(not_covered),
            "{}",
            found.sentence()
        );
        for row in &mut rows {
            row.model = None;
        }
        assert!(!of(&rows).is_best(), "which trainings they are is not known");
        // Within the uncertainty of the evaluation even the order is open.
        rows[1].metrics[0].1 = rows[0].metrics[0].1;
        assert_eq!(open(&of(&rows)), ["rate 2"]);
    }

    #[test]
    fn seeds_of_other_stages_are_no_seeds_of_training() {
        let seeds = [(1, 1, 1.0), (1, 2, 1.1), (2, 1, 9.0), (2, 2, 9.1)];
        let of = |kind| {
            let rows = seeds.map(|(setting, seed, bits)| {
                let mut row = row(None, &json!({ "rate": setting }), Some((bits, 0.01)));
                row.model = Some(Digest::of(format!("{setting} {seed}").as_bytes()));
                let seed = Seed {
                    label: "seed".to_owned(),
                    kinds: vec![kind],
                    value: seed,
                };
                row.place(setting, vec![seed]);
                row
            });
            Comparison::of(rows.to_vec(), None).verdict.unwrap()
        };
        assert!(of(StageKind::Train).is_best());
        // Other rows make other models, of one seed of training.
        let found = of(StageKind::Pack);
        assert!(!found.is_best() && open(&found).is_empty());
        assert_eq!(found.report().apart_in_evaluation, [1]);
    }

    #[test]
    fn results_that_do_not_compare_are_left_out() {
        let mut rows = [
            row(None, &json!({ "rate": 1 }), Some((1.0, 0.1))),
            row(None, &json!({ "rate": 2 }), Some((0.5, 0.1))),
        ];
        rows[1].published = true;
        let all: Vec<&Row> = rows.iter().collect();
        assert_eq!(Verdict::of(&all, None, Metric::BitsPerByte, &[]), None);
        assert_eq!(Verdict::of(&all[..1], None, Metric::BitsPerByte, &[]), None);
        // Of accepted records more is better.
        let share = |low, value, high| {
            let interval = Interval {
                value,
                low: Some(low),
                high: Some(high),
            };
            Row {
                metrics: vec![(Metric::Grammatical, interval)],
                model: Some(Digest::of(b"model")),
                ..Row::default()
            }
        };
        let (more, less, near) = (share(0.8, 0.9, 0.95), share(0.1, 0.2, 0.3), share(0.7, 0.85, 0.9));
        assert!(
            Verdict::of(&[&more, &less], None, Metric::Grammatical, &[])
                .unwrap()
                .is_best()
        );
        assert!(
            !Verdict::of(&[&more, &near], None, Metric::Grammatical, &[])
                .unwrap()
                .is_best()
        );
    }
}
