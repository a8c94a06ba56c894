//! What the report shows of a stage beside its figures and settings: a file for each kind that has more to show.

mod compare;
mod judge;
mod sample;
mod table;
mod train;

use std::path::Path;

use maud::Markup;

use super::stage::ReportedStage;
use crate::error::Result;
use crate::manifest::StageKind;

/// The section of a stage whose artifact is in a folder; empty for a kind whose figures say all.
///
/// # Errors
/// A file of the artifact cannot be read or is not what its stage writes.
pub(super) fn section(
    stage: &ReportedStage<'_>,
    stages: &[ReportedStage<'_>],
    folder: &Path,
) -> Result<Markup> {
    match stage.kind {
        StageKind::Train => train::section(stage, stages, folder),
        StageKind::Sample => sample::section(folder),
        StageKind::Compare => compare::section(folder),
        StageKind::Table => table::section(folder),
        StageKind::Judge => judge::section(folder),
        StageKind::Source
        | StageKind::Tokenize
        | StageKind::Pack
        | StageKind::Checkpoint
        | StageKind::Evaluate => Ok(Markup::default()),
    }
}
