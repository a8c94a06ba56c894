//! Which checkpoints a run writes, keeps and resumes from.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::History;
use super::format::{self, StateFile, TrainState, is_state};
use crate::error::{Context as _, Result};
use crate::model::Learner;
use crate::plural::{agreeing, counted};
use crate::store::checkpoints::{Checkpoints, Reason, Retention, states_in};
use crate::train::Watch;

/// Which checkpoints are missing of those that a run was to keep: lowercase fragments. The run's state is in the folder
/// `artifact`; empty where that has no state. Kept checkpoints are below `shared`.
#[must_use]
pub fn not_kept(artifact: &Path, shared: &Path, retention: &Retention, checkpoint_every: u64) -> Vec<String> {
    let Ok(record) = StateFile::open(artifact) else {
        return Vec::new();
    };
    let steps = record.step;
    let checkpoints = Checkpoints::new(artifact, shared);
    let count = |reason| record.history.on_shelf(|shelf| checkpoints.kept(reason, shelf));
    let mut missing = Vec::new();
    if retention.every > 0 {
        // The last state is the artifact's own.
        let due = (1..)
            .map(|number| number * retention.every)
            .skip_while(|step| *step <= record.history.start)
            .take_while(|step| *step < steps);
        let there = |step: &u64| {
            record
                .history
                .on_shelf(|shelf| checkpoints.has_kept(*step, Reason::Every, shelf))
        };
        let (kept, gone): (Vec<u64>, Vec<u64>) = due.partition(there);
        if !gone.is_empty() {
            let all = kept.len() + gone.len();
            missing.push(format!(
                "{1} of {all} checkpoints (one every {0}) are kept",
                counted(retention.every, "step"),
                kept.len()
            ));
        }
    }
    let own = steps.saturating_sub(record.history.start);
    let written = own.div_ceil(checkpoint_every.max(1));
    let (last, kept) = (u64::from(retention.last).min(written), count(Reason::Last));
    if kept < last {
        missing.push(format!(
            "{kept} of its last {} {} kept",
            counted(last, "checkpoint"),
            agreeing(kept, "is", "are")
        ));
    }
    if retention.best && count(Reason::Best) == 0 && record.log.validation.is_some() {
        missing.push("its best checkpoint is not kept".to_owned());
    }
    missing
}

/// The checkpoints of one run: written to survive crashes, kept as [`Retention`] says, resumed from where the run would have
/// made the same steps. The default is for runs without checkpoints.
#[derive(Clone, Debug, Default)]
pub struct CheckpointManager {
    checkpoints: Checkpoints,
    history: History,
    retention: Retention,
    /// The model whose training is continued where there is no checkpoint.
    continued: Option<PathBuf>,
}

/// The checkpoints that runs have left, read once for all runs that may resume from them.
#[derive(Debug, Default)]
pub struct Left {
    /// Step, history and folder of each state, by the base of its history.
    states: HashMap<String, Vec<(u64, History, PathBuf)>>,
}

impl Left {
    /// The checkpoints in folders, or in folders within them.
    #[must_use]
    pub fn in_folders(folders: Vec<PathBuf>) -> Self {
        let mut left = Self::default();
        for folder in states_in(folders, &is_state) {
            // A damaged or incomplete checkpoint is skipped.
            if let Ok(StateFile { step, history, .. }) = StateFile::open(&folder) {
                let states = left.states.entry(history.base.clone()).or_default();
                states.push((step, history, folder));
            }
        }
        left
    }

    /// What trainings with the same base have left to stay.
    #[must_use]
    pub fn to_stay(checkpoints: &Checkpoints, history: &History) -> Self {
        Self::in_folders(checkpoints.that_stay(history.group(), &is_state))
    }

    /// The step of the newest state that a run with this history would have passed through itself, and that is not in one of its
    /// own folders.
    #[must_use]
    pub fn newest(&self, history: &History, own: &Checkpoints) -> Option<u64> {
        let states = self.states.get(&history.base).into_iter().flatten();
        states
            .filter(|(_, _, folder)| !own.is_own(folder))
            .filter(|(step, other, _)| other.shares(history, *step))
            .map(|(step, ..)| *step)
            .max()
    }
}

/// What a run resumes from.
#[derive(Debug, PartialEq)]
pub struct Restored {
    /// The state.
    pub state: TrainState,
    /// Where it was.
    pub from: RestoredFrom,
    /// The folder that it was read from.
    pub folder: PathBuf,
}

/// Where a state was that a run resumes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoredFrom {
    /// In one of the checkpoints that this run wrote.
    Own,
    /// In a checkpoint that another run had made.
    Earlier,
    /// In the model whose training it continues.
    Continued,
}

/// Checkpoints that a run may resume from, and why others are not among them.
#[derive(Default)]
struct Candidates {
    /// By step, ascending; whether it is the run's own; where.
    found: Vec<(u64, bool, PathBuf)>,
    /// The last step of a run that is the same but for its learning rates.
    apart: Option<u64>,
    /// The last step of a run that is the same but for its steps, of which it has more.
    beyond: Option<u64>,
}

impl CheckpointManager {
    /// Keeps checkpoints where they are to lie. The history identifies runs: another run's checkpoint is used as far as it
    /// is the same.
    #[must_use]
    pub fn new(checkpoints: Checkpoints, history: History) -> Self {
        Self {
            checkpoints,
            history,
            retention: Retention::default(),
            continued: None,
        }
    }

    /// Begins with the state of the model in a folder, at the history's start, where there is no checkpoint.
    #[must_use]
    pub fn continuing(self, folder: &Path) -> Self {
        Self {
            continued: Some(folder.to_owned()),
            ..self
        }
    }

    /// Leaves checkpoints for other runs.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Whether a checkpoint is due after a step because it is to stay.
    #[must_use]
    pub fn stays(&self, step: u64) -> bool {
        self.retention.stays(step)
    }

    /// When the run validates.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.history.watch()
    }

    /// Whether the best checkpoint is to stay.
    #[must_use]
    pub fn wants_best(&self) -> bool {
        self.retention.best
    }

    /// Writes a checkpoint and removes those that are too old.
    ///
    /// # Errors
    /// The disk is full or not writable; what was there before is still there.
    pub fn save(&self, learner: &dyn Learner, state: &TrainState) -> Result<()> {
        let what = || format!("keep a checkpoint of step {}", state.step);
        let write = &mut |folder: &Path| format::write(folder, learner, state, &self.history);
        self.checkpoints.publish(state.step, write).context(what)?;
        if self.stays(state.step) {
            self.keep(state.step, Reason::Every).context(what)?;
        }
        self.checkpoints.let_go().context(what)?;
        if self.retention.last > 0 {
            self.keep(state.step, Reason::Last).context(what)?;
            self.keep_only(self.retention.last as usize, Reason::Last)
                .context(what)?;
        }
        Ok(())
    }

    /// Keeps the checkpoint of a step as that with the best validation so far.
    ///
    /// # Errors
    /// The disk is full or not writable.
    pub fn note_best(&self, step: u64) -> Result<()> {
        let what = || format!("keep the checkpoint of step {step}");
        self.keep(step, Reason::Best).context(what)?;
        self.keep_only(1, Reason::Best).context(what)
    }

    fn keep(&self, step: u64, reason: Reason) -> Result<()> {
        self.history
            .on_shelf(|shelf| self.checkpoints.keep(step, reason, shelf))
    }

    fn keep_only(&self, count: usize, reason: Reason) -> Result<()> {
        self.history
            .on_shelf(|shelf| self.checkpoints.keep_only(count, reason, shelf))
    }

    /// Loads the newest checkpoint that is whole, and removes what a crash left half-written. `skipped` gets the reason for
    /// each one that was passed over.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn restore(
        &self,
        learner: &mut dyn Learner,
        skipped: &mut dyn FnMut(String),
    ) -> Result<Option<Restored>> {
        self.checkpoints.clear()?;
        let Candidates { found, apart, beyond } = self.candidates()?;
        for (step, own, folder) in found.into_iter().rev() {
            let of = if own {
                String::new()
            } else {
                format!(" of an earlier run, `{}`,", folder.display())
            };
            // Before the learner takes anything of it.
            if StateFile::open(&folder).is_ok_and(|record| record.step != step) {
                skipped(format!("the checkpoint of step {step}{of} contains another step"));
                continue;
            }
            match format::read(&folder, learner, &self.history) {
                Ok(mut state) => {
                    if state.step < self.history.steps {
                        state.log.forget_last_validation(self.history.validation_every);
                    }
                    let from = if own {
                        RestoredFrom::Own
                    } else {
                        RestoredFrom::Earlier
                    };
                    return Ok(Some(Restored { state, from, folder }));
                }
                Err(error) => skipped(format!(
                    "the checkpoint of step {step}{of} cannot be used: {error}"
                )),
            }
        }
        let start = self.history.start;
        if let Some(step) = apart {
            skipped(format!(
                "training starts from step {start}: the checkpoint of step {step} was made with other learning rates (with the \
                 schedule `cosine` they depend on `steps`)"
            ));
        } else if let Some(step) = beyond {
            skipped(format!(
                "training starts from step {start}: an earlier run went to step {step} and kept no checkpoint of step {} or \
                 before (`keep_checkpoints`)",
                self.history.steps
            ));
        }
        let Some(folder) = &self.continued else {
            return Ok(None);
        };
        format::load(folder, learner).context(|| format!("continue from step {start}"))?;
        let state = TrainState {
            step: start,
            ..TrainState::default()
        };
        let from = RestoredFrom::Continued;
        let folder = folder.clone();
        Ok(Some(Restored { state, from, folder }))
    }

    /// The step that [`CheckpointManager::restore`] would resume from, by names and histories; changes nothing.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn newest(&self) -> Result<Option<u64>> {
        Ok(self.checkpoints.own()?.last().map(|(step, _)| *step))
    }

    /// The checkpoints to resume from.
    fn candidates(&self) -> Result<Candidates> {
        let own = self.checkpoints.own()?.into_iter();
        let mut all = Candidates {
            found: own.map(|(step, folder)| (step, true, folder)).collect(),
            ..Candidates::default()
        };
        for folder in self.checkpoints.others(self.history.group(), &is_state) {
            // A damaged or incomplete checkpoint is skipped.
            let Ok(record) = StateFile::open(&folder) else {
                continue;
            };
            if record.history.shares(&self.history, record.step) {
                all.found.push((record.step, false, folder));
            } else if record.history.is_but_for_steps(&self.history) {
                let far = record.step > self.history.steps;
                let why = if far { &mut all.beyond } else { &mut all.apart };
                *why = (*why).max(Some(record.step));
            }
        }
        // Of the same step the run's own.
        all.found.sort();
        Ok(all)
    }
}
