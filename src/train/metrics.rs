//! What a training run reports: `metrics.jsonl`, one JSON object a line.
//!
//! | field | meaning |
//! |---|---|
//! | `step` | updates done |
//! | `steps` | how many steps the line is the mean of: each has a line of its own up to step 100, then every ten have |
//! | `learning_rate` | of the last update |
//! | `loss` | the training loss in nats per scored token, mean over those steps |
//! | `gradient_norm` | global norm before clipping, mean over the same steps |
//! | `validation` | on a separate line: the bound on held-out rows, or their exact likelihood, with the averaged weights; its `unit` is that of the loss, too |
//!
//! Its content is a function of the run alone: no times, no speeds.

use std::collections::VecDeque;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::{Unit, read_json_lines};
use crate::diffusion::Quantity;
use crate::error::Result;
use crate::manifest::Estimator;
use crate::plural::counted;

/// File name of the metrics: in an artifact, and in a checkpoint.
pub const METRICS: &str = "metrics.jsonl";
/// Every step has a line of its own up to here; after it every [`LINE_EVERY`]th. A rule that does not depend on the
/// length of the run, so that a longer run's metrics begin with a shorter one's.
const LINE_FOR_EACH_UNTIL: u64 = 100;
/// Steps a line.
const LINE_EVERY: u64 = 10;
/// Losses kept for the diagnosis of a divergence.
pub(super) const RECENT: usize = 20;

/// A line of `metrics.jsonl` about steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Updates done.
    pub step: u64,
    /// Steps that it is the mean of; absent in old artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Learning rate of the last of them.
    pub learning_rate: f64,
    /// Mean training loss in nats per scored token.
    pub loss: f64,
    /// Mean global gradient norm before clipping.
    pub gradient_norm: f64,
}

/// The negative log-likelihood of held-out rows, with the ends of its 95% interval: a bound on it, or its exact value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// How it was estimated; absent for MDLM, whose bound is the same by each of its estimators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimator: Option<Estimator>,
    /// T of a bound in discrete time; continuous time, or none, where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// What a valid token is.
    #[serde(default)]
    pub unit: Unit,
    /// Whether nats are per scored token: the first token of each row is given; `false` where absent.
    #[serde(default, skip_serializing_if = "crate::data::is_false")]
    pub scored: bool,
    /// It, in nats per scored token.
    pub nats_per_token: f64,
    /// Lower end of its 95% interval; absent where one row leaves it undefined.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// It, in bits per byte of text, what spells out lost text included.
    pub bits_per_byte: f64,
    /// What of it spells out text that no token does ([`crate::data::loss`]); 0 where absent.
    #[serde(default, skip_serializing_if = "crate::data::is_nought")]
    pub lost_bits_per_byte: f64,
    /// Whether bits per byte are those of the text as the tokenizer normalizes it; `false` where absent.
    #[serde(default, skip_serializing_if = "crate::data::is_false")]
    pub normalized: bool,
    /// Rows that it rests on.
    pub rows: u64,
}

impl Validation {
    /// Whether it is a bound or the exact value.
    #[must_use]
    pub fn quantity(&self) -> Quantity {
        self.estimator.map_or(Quantity::Bound, Quantity::from)
    }

    /// What it is, as a figure is called: `bound`, `exact`.
    #[must_use]
    pub fn name(&self) -> String {
        match (self.quantity(), self.estimator, self.steps) {
            (Quantity::Bound, Some(Estimator::Count), _) => "any-order bound".to_owned(),
            (Quantity::Bound, _, Some(steps)) => format!("bound in {}", counted(steps, "step")),
            (quantity, _, _) => quantity.name().to_owned(),
        }
    }

    /// The same in sentences and legends: `validation bound`, `exact validation`.
    #[must_use]
    pub fn title(&self) -> String {
        match self.quantity() {
            Quantity::Bound => format!("validation {}", self.name()),
            Quantity::Exact | Quantity::Pseudo => format!("{} validation", self.name()),
        }
    }

    /// What its nats are per.
    #[must_use]
    pub fn per(&self) -> String {
        self.unit.per(self.scored)
    }

    /// Bits per byte with what they are of.
    #[must_use]
    pub fn bits(&self) -> String {
        let of = if self.normalized {
            " of normalized text"
        } else {
            ""
        };
        format!("{:.4} bits/byte{of}", self.bits_per_byte)
    }
}

/// A line of `metrics.jsonl` about a validation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationLine {
    /// Updates done.
    pub step: u64,
    /// What was found.
    pub validation: Validation,
}

/// A line of `metrics.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub enum MetricsLine {
    /// About steps.
    Step(StepLine),
    /// About a validation.
    Validation(ValidationLine),
}

impl TryFrom<Value> for MetricsLine {
    type Error = serde_json::Error;

    fn try_from(line: Value) -> serde_json::Result<Self> {
        if line.get("validation").is_some() {
            return serde_json::from_value(line).map(Self::Validation);
        }
        serde_json::from_value(line).map(Self::Step)
    }
}

/// Reads the metrics of a train artifact.
///
/// # Errors
/// The file is absent or damaged.
pub fn read_metrics(artifact: &Path) -> Result<Vec<MetricsLine>> {
    read_json_lines(&artifact.join(METRICS))
}

/// When a run validates, and on how many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Steps between validations; 0 for one at the end.
    pub every: u64,
    /// Rows.
    pub rows: u64,
}

/// That a run resumed from one that had validated otherwise, so that it lacks validations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Otherwise {
    /// The step up to which that was so.
    pub until: u64,
    /// Steps between those validations; 0 for none before the end.
    pub every: u64,
    /// Rows that they rest on.
    pub rows: u64,
}

impl Otherwise {
    /// What a run lacks that was to validate as `now` says, as a lowercase fragment; nothing where it lacks nothing.
    #[must_use]
    pub fn lacks(&self, now: Watch) -> Option<String> {
        let Self { until, every, rows } = *self;
        // The validation of the step itself is made when the run resumes.
        if now.every == 0 || now.every >= until {
            return None;
        }
        if rows != now.rows {
            return Some(format!(
                "up to step {until} it was validated on {rows} rows, not {}",
                now.rows
            ));
        }
        match every {
            0 => Some(format!(
                "up to step {until} it was not validated every {} steps",
                now.every
            )),
            then if now.every.is_multiple_of(then) => None,
            then => Some(format!(
                "up to step {until} it was validated every {then} steps, not every {}",
                now.every
            )),
        }
    }
}

/// The metrics so far and what the next line needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// The lines, in a file of their own beside the state.
    #[serde(skip)]
    pub text: String,
    /// Sum of the losses since the last line.
    loss_sum: f64,
    /// Sum of the gradient norms since the last line.
    norm_sum: f64,
    /// Steps since the last line.
    steps: u64,
    /// The last losses, newest last.
    pub(super) recent: VecDeque<f64>,
    /// The last validation, and after which step.
    pub validation: Option<ValidationLine>,
    /// How it was validated before, where validations of now are missing for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<Otherwise>,
}

impl Log {
    /// Takes a step's figures.
    pub fn step(&mut self, step: u64, learning_rate: f64, loss: f64, gradient_norm: f64) {
        self.loss_sum += loss;
        self.norm_sum += gradient_norm;
        self.steps += 1;
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(loss);
        if step <= LINE_FOR_EACH_UNTIL || step.is_multiple_of(LINE_EVERY) {
            let n = self.steps as f64;
            self.line(&StepLine {
                step,
                steps: Some(self.steps),
                learning_rate,
                loss: self.loss_sum / n,
                gradient_norm: self.norm_sum / n,
            });
            (self.loss_sum, self.norm_sum, self.steps) = (0.0, 0.0, 0);
        }
    }

    /// Takes a validation.
    pub fn validation(&mut self, step: u64, validation: Validation) {
        let line = ValidationLine { step, validation };
        self.line(&line);
        self.validation = Some(line);
    }

    /// Whether a validation is lower than all before it.
    #[must_use]
    pub fn is_best(&self, validation: &Validation) -> bool {
        self.text
            .lines()
            .filter_map(|line| serde_json::from_str::<ValidationLine>(line).ok())
            .all(|line| validation.nats_per_token < line.validation.nats_per_token)
    }

    /// Takes back a validation that was made only because its run ended there, as the last thing of it: a longer run
    /// has none at that step.
    pub fn forget_last_validation(&mut self, every: u64) {
        let Some(last) = self.validation else { return };
        if every > 0 && last.step.is_multiple_of(every) {
            return;
        }
        let line = |text: &str| serde_json::from_str::<ValidationLine>(text).ok();
        let start = self.text.trim_end().rfind('\n').map_or(0, |end| end + 1);
        if line(&self.text[start..]) == Some(last) {
            self.text.truncate(start);
            self.validation = self.text.lines().rev().find_map(line);
        }
    }

    /// Goes over to other validations after `step`: those that are not due now go, so that what is left is what a run would
    /// have that always validated so; what is missing of that is noted.
    pub fn watch_otherwise(&mut self, step: u64, then: Watch, now: Watch) {
        let is_due = |line: &ValidationLine| now.every > 0 && line.step.is_multiple_of(now.every);
        let kept = self.text.split_inclusive('\n').filter(|text| {
            let line = serde_json::from_str::<ValidationLine>(text).ok();
            line.is_none_or(|line| is_due(&line) && then.rows == now.rows)
        });
        let kept: String = kept.collect();
        let line = |text: &str| serde_json::from_str::<ValidationLine>(text).ok();
        self.validation = kept.lines().rev().find_map(line);
        self.text = kept;
        let last = Otherwise {
            until: step,
            every: then.every,
            rows: then.rows,
        };
        let mut known = [Some(last), self.otherwise].into_iter().flatten();
        self.otherwise = known.find(|otherwise| otherwise.lacks(now).is_some());
    }

    /// Mean of the last losses, in nats per scored token.
    #[must_use]
    pub fn recent_loss(&self) -> Option<f64> {
        (!self.recent.is_empty()).then(|| self.recent.iter().sum::<f64>() / self.recent.len() as f64)
    }

    fn line(&mut self, line: &impl Serialize) {
        // Structs of numbers always serialize.
        if let Ok(json) = serde_json::to_string(line) {
            self.text.push_str(&json);
            self.text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_lines_are_read_by_their_kind() {
        let line = |text: &str| serde_json::from_str::<MetricsLine>(text);
        let mut log = Log::default();
        log.step(1, 0.5, 2.0, 1.0);
        let step = line(log.text.trim_end()).unwrap();
        assert!(matches!(
            step,
            MetricsLine::Step(StepLine {
                step: 1,
                steps: Some(1),
                ..
            })
        ));
        let mut log = Log::default();
        log.validation(4, Validation::default());
        let validation = line(log.text.trim_end()).unwrap();
        assert!(matches!(
            validation,
            MetricsLine::Validation(ValidationLine { step: 4, .. })
        ));
        let error = line(r#"{ "step": 4, "validation": { "nats": 1.0 } }"#).unwrap_err();
        assert!(error.to_string().contains("nats_per_token"), "{error}");
        assert!(line(r#"{ "step": 4 }"#).is_err());
    }

    #[test]
    fn metrics_lines_thin_out_and_average_the_steps_between() {
        let mut log = Log::default();
        for step in 1..=120 {
            log.step(step, 0.5, step as f64, 1.0);
        }
        let lines: Vec<StepLine> = log
            .text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 102);
        assert_eq!((lines[99].step, lines[99].loss), (100, 100.0));
        assert_eq!((lines[101].step, lines[101].loss), (120, 115.5));
        assert_eq!((lines[99].steps, lines[101].steps), (Some(1), Some(10)));
        assert_eq!(log.recent_loss(), Some(110.5));
    }

    #[test]
    fn validation_line_states_its_kind_and_unit() {
        let bound = Validation {
            nats_per_token: 1.5,
            low: Some(1.25),
            bits_per_byte: 1.0,
            rows: 3,
            ..Validation::default()
        };
        let line = |validation| {
            let mut log = Log::default();
            log.validation(4, validation);
            log.text
        };
        // MDLM's is what it was before there were other objectives.
        assert_eq!(
            line(bound),
            "{\"step\":4,\"validation\":{\"unit\":\"per token of text\",\"nats_per_token\":1.5,\"low\":1.25,\
             \"high\":null,\"bits_per_byte\":1.0,\"rows\":3}}\n"
        );
        let exact = Validation {
            estimator: Some(Estimator::Exact),
            scored: true,
            ..bound
        };
        assert_eq!(
            line(exact),
            "{\"step\":4,\"validation\":{\"estimator\":\"exact\",\"unit\":\"per token of text\",\"scored\":true,\
             \"nats_per_token\":1.5,\"low\":1.25,\"high\":null,\"bits_per_byte\":1.0,\"rows\":3}}\n"
        );
        let by = |estimator, steps| Validation {
            estimator: Some(estimator),
            steps,
            ..bound
        };
        let steps = by(Estimator::Time, Some(1000));
        assert!(line(steps).contains("\"estimator\":\"time\",\"steps\":1000,\"unit\""));
        let called = |validation: Validation| {
            let read: ValidationLine = serde_json::from_str(&line(validation)).unwrap();
            assert_eq!(read.validation, validation);
            [validation.name(), validation.title(), validation.per()]
        };
        let of_text = "per token of text";
        assert_eq!(called(bound), ["bound", "validation bound", of_text]);
        assert_eq!(
            called(exact),
            ["exact", "exact validation", "per scored token of text"]
        );
        assert_eq!(
            called(steps),
            ["bound in 1000 steps", "validation bound in 1000 steps", of_text]
        );
        assert_eq!(
            called(by(Estimator::Time, None)),
            ["bound", "validation bound", of_text]
        );
        assert_eq!(
            called(by(Estimator::Count, None)),
            ["any-order bound", "validation any-order bound", of_text]
        );
        // MDLM in steps.
        let of_mdlm = Validation {
            steps: Some(1),
            ..bound
        };
        assert_eq!(called(of_mdlm)[0], "bound in 1 step");
    }

    #[test]
    fn resume_removes_the_validation_at_the_end_of_a_shorter_run() {
        let bound = |value| Validation {
            nats_per_token: value,
            high: Some(value + 0.1),
            bits_per_byte: 1.0,
            rows: 3,
            ..Validation::default()
        };
        let mut log = Log::default();
        log.step(1, 0.5, 2.0, 1.0);
        log.validation(4, bound(1.5));
        log.step(5, 0.5, 2.0, 1.0);
        let before = log.clone();
        log.validation(6, bound(1.25));
        log.forget_last_validation(4);
        assert_eq!(log, before);
        log.forget_last_validation(4);
        assert_eq!(log, before, "one that is due stays");
        log.forget_last_validation(0);
        assert_eq!(log, before, "one that is not the last line stays");
    }

    #[test]
    fn resume_with_other_validations_has_the_metrics_of_a_whole_run() {
        let bound = |value, rows| Validation {
            nats_per_token: value,
            bits_per_byte: 1.0,
            rows,
            ..Validation::default()
        };
        let log = |every: u64, rows: u64| {
            let mut log = Log::default();
            for step in 1..=9 {
                if every > 0 && step > 1 && (step - 1_u64).is_multiple_of(every) {
                    log.validation(step - 1, bound(1.0 / step as f64, rows));
                }
                log.step(step, 0.5, 2.0, 1.0);
            }
            log
        };
        let over = |then: (u64, u64), now: (u64, u64)| {
            let mut made = log(then.0, then.1);
            let watch = |(every, rows)| Watch { every, rows };
            made.watch_otherwise(9, watch(then), watch(now));
            let lacks = made.otherwise.and_then(|otherwise| otherwise.lacks(watch(now)));
            assert_eq!(lacks.is_none(), made == log(now.0, now.1), "{then:?} {now:?}");
            lacks.unwrap_or_default()
        };
        assert_eq!(over((2, 5), (4, 5)), "");
        assert_eq!(over((2, 5), (0, 5)), "");
        assert_eq!(over((2, 5), (100, 5)), "");
        assert_eq!(
            over((4, 5), (9, 5)),
            "",
            "that of the last step is made when the run resumes"
        );
        assert_eq!(
            over((4, 5), (2, 5)),
            "up to step 9 it was validated every 4 steps, not every 2"
        );
        assert_eq!(
            over((0, 5), (2, 5)),
            "up to step 9 it was not validated every 2 steps"
        );
        assert_eq!(
            over((2, 5), (2, 6)),
            "up to step 9 it was validated on 5 rows, not 6"
        );
        // What an earlier change has left out is not forgotten by a later one that leaves out nothing more.
        let watch = |every| Watch { every, rows: 5 };
        let mut twice = log(4, 5);
        twice.watch_otherwise(9, watch(4), watch(2));
        twice.watch_otherwise(9, watch(2), watch(6));
        assert_eq!(
            twice
                .otherwise
                .and_then(|otherwise| otherwise.lacks(watch(6)))
                .as_deref(),
            Some("up to step 9 it was validated every 4 steps, not every 6")
        );
    }

    #[test]
    fn resume_reads_the_log_back_and_continues_it() {
        let mut whole = Log::default();
        let mut first = Log::default();
        for step in 1..=107 {
            whole.step(step, 0.1, 1.0 / step as f64, 0.3);
            first.step(step, 0.1, 1.0 / step as f64, 0.3);
        }
        let mut second: Log = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
        second.text = first.text;
        for step in 108..=140 {
            whole.step(step, 0.1, 1.0 / step as f64, 0.3);
            second.step(step, 0.1, 1.0 / step as f64, 0.3);
        }
        assert_eq!(whole, second);
    }
}
