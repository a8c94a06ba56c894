//! What changed since a stage was last run: the earlier run that it is compared with.
//!
//! A stage is compared with runs of its own pipeline alone. The pipeline of a run is identified by the place of its
//! manifest, and by the pipeline's name: a manifest that got another name is the same pipeline, one that was moved is, and
//! one that got both is as long as it reads what the old one read. Another manifest that is still there is another
//! pipeline, whatever the two have in common: a stage of a pipeline that never ran is a first run.

use std::collections::HashSet;

use indexmap::IndexMap;

use super::{Plan, PlannedStage, Reason, Sources, reason};
use crate::error::Result;
use crate::store::{Digest, Key, Record};

/// A run under another name that differs in more parts than these explains nothing.
const NEAR: usize = 2;

/// Whose run a record is of, seen from a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunOwner {
    /// The plan's pipeline.
    Own,
    /// One of another name whose manifest is no longer there: the plan's under its old name, or one that was deleted.
    Orphan,
    /// Another pipeline.
    Foreign,
}

impl Plan {
    /// Whose run a record is of.
    fn run_of(&self, record: &Record, sources: &Sources) -> RunOwner {
        let is_named = record.provenance.pipeline == self.pipeline;
        match (record.provenance.place.as_deref(), self.place.as_deref()) {
            (Some(there), Some(own)) if there == own => RunOwner::Own,
            (Some(there), Some(_)) if sources.is_manifest(there) => RunOwner::Foreign,
            (Some(_), Some(_)) if !is_named => RunOwner::Orphan,
            _ if is_named => RunOwner::Own,
            _ => RunOwner::Foreign,
        }
    }

    /// The record with which a stage of this pipeline was last served or run, as far as the store has a note of it.
    pub(super) fn noted(&self, stage: &str, kind: &str, sources: &Sources) -> Option<Record> {
        let record = sources.store.latest(&self.pipeline, stage)?;
        let place = record.provenance.place.as_deref();
        // The note of another manifest of the same name.
        let foreign = place != self.place.as_deref()
            && self.place.is_some()
            && place.is_some_and(|place| sources.is_manifest(place));
        (record.key.kind == kind && !foreign).then_some(record)
    }

    /// The newest run of a stage of this pipeline.
    pub(super) fn newest<'a>(
        &self,
        records: impl Iterator<Item = &'a Record>,
        sources: &Sources,
    ) -> Option<&'a Record> {
        records
            .filter(|record| self.run_of(record, sources) == RunOwner::Own)
            .max_by_key(|record| &record.provenance.started)
    }

    /// What changed in a key since the stage was last run or served; nothing when there is nothing to compare with.
    /// Inputs that are not in the key, because they are not known yet, are left out.
    pub(super) fn changes(
        &self,
        stage: &PlannedStage,
        key: &Key,
        sources: &Sources,
    ) -> Result<Option<Vec<Reason>>> {
        let names: IndexMap<&str, &str> = stage
            .inputs
            .iter()
            .map(|input| (input.role, self.stages[input.index].name.as_str()))
            .collect();
        let compare = |record: &Record| reason::compare(record, key, &stage.files, &names);
        if let Some(record) = self.noted(&stage.name, &key.kind, sources) {
            return Ok(Some(compare(&record)));
        }
        // Without a note of the last key: the newest run of this stage, else (the stage or the pipeline was renamed) the
        // run that differs least, unless it is another stage's.
        let past = sources.records(&key.kind)?;
        let named = past
            .own(&stage.name)
            .filter(|record| record.provenance.pipeline == self.pipeline);
        if let Some(record) = self.newest(named, sources) {
            return Ok(Some(compare(record)));
        }
        let is_related = |record: &Record| match self.run_of(record, sources) {
            RunOwner::Own => true,
            RunOwner::Orphan => have_common_content(&record.key, key),
            RunOwner::Foreign => false,
        };
        let is_foreign = |record: &Record| self.run_of(record, sources) == RunOwner::Foreign;
        // What is yet to be made will hardly be what another stage had read: it counts as changed, so that a plan does not
        // name a run that the run itself will find too far off.
        let open = stage.inputs.len().saturating_sub(key.inputs.len());
        let mut nearest: Option<(Vec<Reason>, &Record)> = None;
        let mut most = NEAR.saturating_sub(open);
        // Those that differ in one part are looked at first: where there is one, the many that differ in two are not.
        for within in 1..=NEAR {
            if within > 1 && most < within {
                break;
            }
            let near = past.near(&stage.name, key, within, &|record| !is_foreign(record));
            for record in near.into_iter().filter(|record| is_related(record)) {
                if !reason::may_differ_in(record, key, most) {
                    continue;
                }
                let reasons = compare(record);
                if nearest
                    .as_ref()
                    .is_some_and(|(least, _)| least.len() <= reasons.len())
                {
                    continue;
                }
                // The first of those that differ least: the others have to differ in less.
                let less = reasons.len().saturating_sub(1);
                nearest = Some((reasons, record));
                most = most.min(less);
            }
        }
        // A run that differs in nothing that is compared explains nothing either.
        let near = nearest.filter(|(reasons, _)| !reasons.is_empty() && reasons.len() + open <= NEAR);
        Ok(near.map(|(mut reasons, record)| {
            reasons.push(Reason::ComparedWith {
                stage: record.provenance.stage.clone(),
                pipeline: Some(record.provenance.pipeline.clone())
                    .filter(|pipeline| *pipeline != self.pipeline),
            });
            reasons
        }))
    }
}

/// Whether something that one key was made from is in the other too: an input, a file, or all that a source names.
fn have_common_content(one: &Key, other: &Key) -> bool {
    let files = |key: &Key| key.files.values().flatten().copied().collect::<HashSet<Digest>>();
    let input = |key: &Key| key.config.get("input").cloned();
    one.inputs
        .values()
        .any(|digest| other.inputs.values().any(|same| same == digest))
        || !files(one).is_disjoint(&files(other))
        || one.files.is_empty() && input(one).is_some() && input(one) == input(other)
}
