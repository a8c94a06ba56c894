//! What a run can say while it runs. Layers below `cli` emit events; `cli` alone prints them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};

/// What a stage reports while it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The executor took a stage up: 1-based index among the stages of the plan, and why it runs.
    StageStarted {
        /// 1-based position in the plan.
        index: usize,
        /// Stages in the plan.
        of: usize,
        /// Why it runs: `learning_rate` 3e-4 → 1e-4.
        why: String,
    },
    /// How far the stage is.
    Progress(Progress),
    /// A line worth keeping in a log (a validation bound, a checkpoint).
    Note(String),
    /// Something the user should know and need not act on.
    Warning(String),
    /// The stage was served from the cache.
    StageCached,
    /// The stage is done and committed.
    StageFinished {
        /// Wall-clock seconds.
        seconds: f64,
        /// Key figures for the summary: name and value as text.
        figures: Vec<(String, String)>,
    },
    /// The stage failed; the error is returned by the executor as well.
    StageFailed {
        /// The message, without the hint.
        message: String,
    },
}

/// A position within a stage's work.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all, where known.
    pub total: Option<u64>,
    /// What a unit is: "bytes", "records", "steps", "rows".
    pub unit: &'static str,
    /// Figures to show beside the bar: loss, bound, tokens/s.
    pub figures: Vec<(&'static str, String)>,
}

/// The label with this text. Labels are constants of this program, so the set of those that another process of it sends
/// is small; each is kept for the life of the process.
fn interned(text: &str) -> &'static str {
    static LABELS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut labels = LABELS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(label) = labels.get(text) {
        return label;
    }
    let label: &'static str = Box::leak(text.to_owned().into_boxed_str());
    labels.insert(label);
    label
}

/// [`Progress`] as it is read.
#[derive(Deserialize)]
struct Received {
    done: u64,
    total: Option<u64>,
    unit: String,
    figures: Vec<(String, String)>,
}

impl<'de> Deserialize<'de> for Progress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let received = Received::deserialize(deserializer)?;
        let figures = received.figures.into_iter();
        Ok(Self {
            done: received.done,
            total: received.total,
            unit: interned(&received.unit),
            figures: figures.map(|(name, value)| (interned(&name), value)).collect(),
        })
    }
}

/// Takes events. `stage` is the stage's name in the manifest.
pub trait Sink: Send + Sync {
    /// Takes one event; must be quick.
    fn emit(&self, stage: &str, event: Event);
}

/// A sink that drops everything.
pub struct Silent;

impl Sink for Silent {
    fn emit(&self, _: &str, _: Event) {}
}

/// A flag that asks running work to end at the next safe place.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks to end.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was asked to end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// # Errors
    /// [`Error::interrupted`] when it was asked to end.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::interrupted());
        }
        Ok(())
    }
}
