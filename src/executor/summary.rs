//! The result of running a plan, stage by stage.

use serde::Serialize;

use crate::error::Error;
use crate::plan::PlannedStage;
use crate::store::{Digest, Pin};

/// The result of running a plan.
#[derive(Debug)]
pub struct Summary {
    /// The stages, in the order of the plan.
    pub stages: Vec<StageSummary>,
    /// The first failure, or the interruption.
    pub error: Option<Error>,
    /// Keeps the artifacts where they are for as long as this lives.
    pub pins: Vec<Pin>,
}

impl Summary {
    /// The first error, with those of the other stages that failed beside it, in the order of the plan.
    #[must_use]
    pub fn into_error(self) -> Option<Error> {
        let first = self.error?;
        let text = first.to_string();
        let others = self.stages.into_iter().filter_map(|stage| stage.error);
        Some(first.beside(others.filter(|other| other.to_string() != text)))
    }
}

/// The result of a stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageSummary {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// How it ended.
    pub status: Status,
    /// Why it ran, or why it did not.
    pub why: String,
    /// Why it failed, with the hint; nothing unless it failed. Each renderer serializes it in its way.
    #[serde(skip)]
    pub error: Option<Error>,
    /// Wall-clock seconds that it ran.
    pub seconds: Option<f64>,
    /// Its artifact.
    pub artifact: Option<Digest>,
    /// The folder of its artifact.
    pub path: Option<String>,
    /// Key figures: name and value as text. Each renderer serializes them in its way.
    #[serde(skip)]
    pub figures: Vec<(String, String)>,
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Served from the store.
    Cached,
    /// Known by its record alone: its files are not in the store, and nothing needed them.
    Away,
    /// Taken from the remote.
    Fetched,
    /// Ran and was committed.
    Done,
    /// Failed.
    Failed,
    /// Was running when the user asked to stop.
    Interrupted,
    /// Was not started.
    NotRun,
}

impl StageSummary {
    /// Of a stage that was not started.
    pub(super) fn new(stage: &PlannedStage) -> Self {
        Self {
            name: stage.name.clone(),
            kind: stage.kind().name(),
            status: Status::NotRun,
            why: String::new(),
            error: None,
            seconds: None,
            artifact: None,
            path: None,
            figures: Vec::new(),
        }
    }
}
