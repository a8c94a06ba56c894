//! Corrupt artifacts are never consumed.
//!
//! A lookup sees that an artifact's files are there with their lengths. Before a stage consumes an artifact, its files
//! are hashed: those of small artifacts all, those of large ones by a sample that is drawn again each time
//! ([`verify::SAMPLE`]); with `paranoid` all, also those of every artifact that is served. A corrupt artifact goes into
//! quarantine and is made again before its consumer runs; a missing one is made or fetched.
//!
//! Artifacts that a run serves or makes are pinned until its end: no other process deletes them meanwhile.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use super::{Run, StageSummary, locked};
use crate::error::{Context as _, Result};
use crate::event::Event;
use crate::plan::{Decision, StageInput};
use crate::store::verify::{self, Depth, Moved, Pace};
use crate::store::{Digest, Pin, Record};

/// What a run knows of the artifacts that it uses.
#[derive(Debug, Default)]
pub(super) struct Integrity {
    pins: Mutex<HashMap<Digest, Pin>>,
    /// Made by this run, or hashed as deep as it is asked to.
    sound: Mutex<HashSet<Digest>>,
    /// The stages that were made again for one that consumes them, with their places in the plan.
    redone: Mutex<Vec<(usize, StageSummary)>>,
}

impl Integrity {
    /// Pins that keep artifacts from deletion; to be held for as long as they are used.
    pub(super) fn into_pins(self) -> Vec<Pin> {
        let pins = self.pins.into_inner().unwrap_or_else(PoisonError::into_inner);
        pins.into_values().collect()
    }

    /// The stages that were made again since they were last asked for.
    pub(super) fn redone(&self) -> Vec<(usize, StageSummary)> {
        std::mem::take(&mut *locked(&self.redone))
    }
}

impl Run<'_> {
    /// Pins an artifact that was made just now; it is not hashed again.
    pub(super) fn hold_made(&self, record: &Record) -> Result<()> {
        let pin = self.store.pin(&record.artifact)?;
        locked(&self.integrity.pins).insert(record.artifact, pin);
        locked(&self.integrity.sound).insert(record.artifact);
        Ok(())
    }

    /// Pins an artifact before it is served, and with `paranoid` hashes it. Returns whether it is there and sound; if not,
    /// the plan has to decide again.
    pub(super) fn hold(&self, stage: &str, record: &Record) -> Result<bool> {
        let pin = self.store.pin_if_writable(&record.artifact)?;
        if !self.store.still_has(record) {
            return Ok(false);
        }
        if let Some(pin) = pin {
            locked(&self.integrity.pins).insert(record.artifact, pin);
        }
        if self.options.paranoid {
            return self.is_sound(stage, record, Depth::Full);
        }
        Ok(true)
    }

    /// Makes sure that the artifacts that a stage is about to consume are sound, and makes those again that are not.
    /// Returns whether all were sound; if not, the plan has to decide again.
    pub(super) fn inputs_are_sound(&self, index: usize, threads: usize) -> Result<bool> {
        let depth = if self.options.paranoid {
            Depth::Full
        } else {
            verify::SAMPLE
        };
        let mut all = true;
        let (consumer, inputs) = {
            let plan = locked(&self.plan);
            let consumer = &plan.stages[index];
            let input = |input: &StageInput| (input.index, plan.stages[input.index].clone());
            let inputs: Vec<_> = consumer.inputs.iter().map(input).collect();
            (consumer.name.clone(), inputs)
        };
        for (index, stage) in &inputs {
            match &stage.decision {
                Decision::Cached(record) if self.is_sound(&stage.name, record, depth)? => continue,
                Decision::Cached(_) => {}
                // Another stage may be making it again: its lock is waited for.
                Decision::Away(_) | Decision::Fetch(_) | Decision::Run { .. } => {
                    locked(&self.plan).need(*index, Some(consumer.clone()));
                }
            }
            all = false;
            let mut summary = StageSummary::new(stage);
            let again = self.stage(*index, threads, &mut summary);
            again.context(|| format!("rerun `{}`", summary.name))?;
            locked(&self.integrity.redone).push((*index, summary));
        }
        Ok(all)
    }

    /// Hashes an artifact unless this run has done so. Returns whether it is sound; a corrupt one goes into quarantine.
    fn is_sound(&self, stage: &str, record: &Record, depth: Depth) -> Result<bool> {
        let artifact = &record.artifact;
        if locked(&self.integrity.sound).contains(artifact) {
            return Ok(true);
        }
        let folder = self.store.artifact_path(artifact);
        let pace = Pace::new(None);
        let faults = verify::examine(&folder, artifact, Some(&record.files), depth, &pace)
            .context(|| format!("verify the artifact of `{stage}`"))?;
        if faults.is_empty() {
            locked(&self.integrity.sound).insert(*artifact);
            return Ok(true);
        }
        locked(&self.integrity.pins).remove(artifact);
        let moved = self
            .store
            .quarantine(artifact, Some(&record.files), &faults, true)
            .context(|| format!("quarantine the artifact of `{stage}`"))?;
        if let Moved::To(place) = moved {
            let what = verify::summary(&faults);
            let message = format!(
                "its artifact is corrupt and is not used: {what}; moved to `{}`",
                place.display()
            );
            self.sink.emit(stage, Event::Warning(message));
        }
        Ok(false)
    }
}
