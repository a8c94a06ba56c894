//! What decides the states that a run goes through, and which runs share them.

use serde::{Deserialize, Serialize};

use crate::manifest::{LearningRateSchedule, WarmupRates};
use crate::store::checkpoints::Shelf;
use crate::train::{Watch, learning_rate};

/// What decides a run's states, step by step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Digest of all that decides a step and its metrics, but for the learning rate.
    pub base: String,
    /// Learning rate after warm-up.
    pub learning_rate: f64,
    /// Updates over which it rises.
    pub warmup_steps: u64,
    /// From which number they are counted.
    #[serde(default, skip_serializing_if = "is_from_one")]
    pub warmup_rates: WarmupRates,
    /// What it does then.
    pub schedule: LearningRateSchedule,
    /// Updates of the whole run.
    pub steps: u64,
    /// The step that it begins at: above 0 where it continues the training of another model.
    #[serde(default, skip_serializing_if = "is_from_zero")]
    pub start: u64,
    /// Steps between validations; 0 for one at the end.
    pub validation_every: u64,
    /// Rows that a validation rests on.
    #[serde(default)]
    pub validation_rows: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_from_one(rates: &WarmupRates) -> bool {
    *rates == WarmupRates::FromOne
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_from_zero(start: &u64) -> bool {
    *start == 0
}

impl History {
    /// When it validates.
    pub(super) fn watch(&self) -> Watch {
        Watch {
            every: self.validation_every,
            rows: self.validation_rows,
        }
    }

    /// The learning rate of an update.
    fn rate(&self, update: u64) -> f64 {
        learning_rate(
            update,
            self.learning_rate,
            (self.warmup_steps, self.warmup_rates),
            self.steps,
            self.schedule,
        )
    }

    /// Whether the first `step` updates of both are the same.
    #[must_use]
    pub fn shares(&self, other: &Self, step: u64) -> bool {
        // Computed from the settings where possible: a run may have a million steps.
        let constant = self.schedule == LearningRateSchedule::Constant;
        let same = self.schedule == other.schedule
            && self.learning_rate == other.learning_rate
            && self.warmup_steps == other.warmup_steps
            && self.warmup_rates == other.warmup_rates
            && (constant || self.steps == other.steps);
        let rates = || (1..=step).all(|update| self.rate(update).to_bits() == other.rate(update).to_bits());
        self.base == other.base && step <= self.steps && step <= other.steps && (same || rates())
    }

    /// Whether it is the same run with another number of steps, which a user expects to resume. A run of another learning rate
    /// has nothing to resume from, and the reason why it runs says so.
    pub(super) fn is_but_for_steps(&self, other: &Self) -> bool {
        let like = Self {
            steps: other.steps,
            validation_every: other.validation_every,
            validation_rows: other.validation_rows,
            ..self.clone()
        };
        like == *other
    }

    /// Where the run's checkpoints stay.
    pub(super) fn on_shelf<R>(&self, f: impl FnOnce(Shelf<'_>) -> R) -> R {
        f(Shelf {
            group: self.group(),
            rates: &self.rates(),
        })
    }

    /// The name of all runs that have the same base.
    pub(super) fn group(&self) -> &str {
        &self.base[..self.base.len().min(32)]
    }

    /// What distinguishes runs with the same base, as far as any step of theirs may differ.
    fn rates(&self) -> String {
        let mut rates = self.clone();
        if rates.schedule == LearningRateSchedule::Constant {
            rates.steps = 0;
        }
        let text = serde_json::to_string(&rates).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
    }
}
