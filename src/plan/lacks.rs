//! What the artifact that serves a stage lacks of what the manifest asks for, though its result is the same: the points of
//! a validation curve, checkpoints that were to stay.

use super::{PlannedStage, Sources};
use crate::manifest::Stage;
use crate::stages::{self, LeftBehind};
use crate::store::{Key, Record, Store};

/// Of the trainings whose weights are those that a key asks for, the one that lacks least of it; the newest of several.
pub(super) fn stand_in(
    stage: &Stage,
    key: &Key,
    sources: &Sources,
) -> crate::error::Result<Option<Box<Record>>> {
    let but_for = stage.beside_result();
    if but_for.is_empty() {
        return Ok(None);
    }
    let past = sources.records(&key.kind)?;
    let alike = past
        .alike(key, but_for)
        .filter(|record| sources.store.is_here(record));
    let best = alike.max_by(|a, b| {
        let lacks = |record: &Record| stages::lacks(stage, &record.key.config, &key.config, None).len();
        let order = lacks(b).cmp(&lacks(a));
        order.then_with(|| a.provenance.started.cmp(&b.provenance.started))
    });
    Ok(best.map(|record| Box::new(record.clone())))
}

/// What an artifact lacks, each as a lowercase fragment.
pub(super) fn of(stage: &PlannedStage, record: &Record, store: &Store) -> Vec<String> {
    let left = LeftBehind {
        artifact: &store.artifact_path(&record.artifact),
        checkpoints: &store.checkpoints_path(),
    };
    stages::lacks(&stage.stage, &record.key.config, &stage.parts.config, Some(&left))
}
