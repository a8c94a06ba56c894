//! Where a stage that is to run starts: from nothing, from the scratch of an earlier attempt, or from a checkpoint of
//! another training. A run and the commands that describe it make the same decision.

use std::collections::HashSet;
use std::fs;

use super::{Decision, Plan, Reason, Sources};
use crate::error::Result;
use crate::manifest::Stage;
use crate::remote::Remote;
use crate::stages::{self, train};
use crate::store::checkpoints::Checkpoints;
use crate::store::gc::Keep;
use crate::store::{Key, Store};
use crate::train::checkpoint::group_of;

/// How a stage that is to run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageStart {
    /// From nothing: its scratch is deleted, and checkpoints of other trainings are ignored.
    Restart,
    /// From its own scratch, if there is any.
    Scratch,
    /// From the newest checkpoint of the same computation: its own, or that of another training.
    State,
}

impl StageStart {
    /// That of a stage which runs for these reasons.
    #[must_use]
    pub fn of(stage: &Stage, reasons: &[Reason]) -> Self {
        if reasons.contains(&Reason::Forced) {
            Self::Restart
        } else if stages::resumes(stage) {
            Self::State
        } else {
            Self::Scratch
        }
    }

    /// Where the stage with that key finds states, and leaves its own.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn checkpoints(self, key: &Key, store: &Store) -> Result<Checkpoints> {
        match self {
            Self::State => store.checkpoints(key),
            Self::Restart | Self::Scratch => Ok(store.own_checkpoints(key)),
        }
    }
}

/// The reason of a stage that has scratch of its key and no result: an attempt did not end, or runs now. A plan is no
/// worse for scratch that cannot be read.
pub(super) fn unfinished(key: &Key, store: &Store) -> Option<Reason> {
    let digest = key.digest();
    let scratch = fs::read_dir(store.work_path(&digest)).ok()?;
    let mut entries = scratch.flatten().map(|entry| entry.file_name()).peekable();
    // A download of the result that was broken off is not an attempt at the stage; an attempt may leave nothing but its folder.
    if entries.peek().is_some() && entries.all(|name| name == Remote::SCRATCH) {
        return None;
    }
    let own = store.own_checkpoints(key).own().unwrap_or_default();
    Some(Reason::Unfinished {
        step: own.last().map(|(step, _)| *step),
        process: store.present_holder(&digest).map(|holder| holder.to_string()),
    })
}

/// The steps from which the trainings of a plan resume. What several of them look at is read once.
#[derive(Default)]
pub struct Resumption {
    trainings: train::Outlook,
}

impl Resumption {
    /// The step from which a training that is to run will resume. A plan is no worse for not knowing it.
    pub fn step(&mut self, plan: &Plan, index: usize, sources: &Sources) -> Option<u64> {
        let store = sources.store;
        let stage = &plan.stages[index];
        let Decision::Run {
            key: Some(key),
            reasons,
        } = &stage.decision
        else {
            return None;
        };
        let Stage::Train(config) = &stage.stage else {
            return None;
        };
        if StageStart::of(&stage.stage, reasons) != StageStart::State {
            return None;
        }
        let artifact = |role: &str| {
            let input = stage.inputs.iter().find(|input| input.role == role)?;
            Some(store.artifact_path(plan.stages[input.index].artifact()?))
        };
        let rows = artifact("from")?;
        let init = match &config.init {
            Some(_) => Some(artifact("init")?),
            None => None,
        };
        let earlier = || {
            let past = sources.records(&key.kind)?;
            store.earlier_unexamined(key, &past.records)
        };
        self.trainings
            .resumes_from(
                config,
                stage.seed,
                (&rows, init.as_deref()),
                &store.own_checkpoints(key),
                &earlier,
            )
            .ok()
            .flatten()
    }
}

/// The groups of checkpoints from which a training that stays could resume.
///
/// # Errors
/// The store cannot be read.
pub fn kept_groups(store: &Store, keep: &Keep) -> Result<HashSet<String>> {
    let states = store.kept_states(keep)?;
    Ok(states.iter().filter_map(|folder| group_of(folder)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::StageKind;

    /// What an attempt leaves is not a first run: its checkpoint's step is shown. A broken download is not an attempt.
    #[test]
    fn scratch_of_a_key_is_an_attempt_that_did_not_end() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join(".mdlm"));
        let key = Key {
            kind: "train".to_owned(),
            version: 1,
            config: serde_json::Value::Null,
            seed: None,
            inputs: indexmap::IndexMap::new(),
            files: indexmap::IndexMap::new(),
        };
        let work = store.work_path(&key.digest());
        let why = || unfinished(&key, &store).map(|reason| reason.to_string());
        assert_eq!(why(), None);
        fs::create_dir_all(work.join(Remote::SCRATCH)).unwrap();
        assert_eq!(why(), None);
        fs::remove_dir(work.join(Remote::SCRATCH)).unwrap();
        assert_eq!(why().as_deref(), Some("did not finish"));
        fs::create_dir(work.join("step-20")).unwrap();
        fs::create_dir(work.join("step-103")).unwrap();
        assert_eq!(why().as_deref(), Some("interrupted at step 103"));
        // A process runs it now; a run that has waited for that process names the checkpoint.
        let lock = store.try_lock(&key.digest()).unwrap();
        let reason = unfinished(&key, &store).unwrap();
        let process = format!("process {} on ", std::process::id());
        assert!(reason.to_string().starts_with(&process), "{reason}");
        assert!(reason.to_string().ends_with(" runs it now"), "{reason}");
        assert_eq!(reason.of_a_run(), "interrupted at step 103");
        drop(lock);
        assert_eq!(why().as_deref(), Some("interrupted at step 103"));
    }

    #[test]
    fn resume_is_for_trainings_that_are_not_forced() {
        let (forced, first) = ([Reason::NeverRan, Reason::Forced], [Reason::NeverRan]);
        let [train, pack] =
            [StageKind::Train, StageKind::Pack].map(|kind| serde_json::from_str(kind.smallest().0).unwrap());
        assert_eq!(StageStart::of(&train, &first), StageStart::State);
        assert_eq!(StageStart::of(&pack, &first), StageStart::Scratch);
        for stage in [train, pack] {
            assert_eq!(StageStart::of(&stage, &forced), StageStart::Restart);
        }
    }
}
