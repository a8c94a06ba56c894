//! Where resumable state lies, and how long it stays. What a state is, and which training may resume from which, is decided
//! where it is written (`mdlm::train::checkpoint`).
//!
//! | place | what | stays until |
//! |---|---|---|
//! | `work/<key>/step-<n>/` | the last checkpoints of a training that has not ended | the key is committed, or collected |
//! | `artifacts/<digest>/` | the end of a training | the artifact is collected |
//! | `checkpoints/<group>/<rates>/<reason>-step-<n>/` | checkpoints that a training was asked to keep ([`Retention`]) | no training that stays is of the group |
//!
//! A checkpoint is written beside its place and renamed: a folder with its name is whole, unless a disk has damaged it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{Key, Record, Store, keys_below, names_below, verify};
use crate::disk::sync_folder;
use crate::error::{Context as _, Result};

/// Checkpoints of a training that is not finished: the newest, and one before it in case the newest turns out damaged.
const NEWEST: usize = 2;

/// Which checkpoints stay when their training has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Those of every so many steps; 0 for none.
    pub every: u64,
    /// That many of the last.
    pub last: u32,
    /// The one with the best validation.
    pub best: bool,
}

impl Retention {
    /// Whether a checkpoint is due after a step because it is to stay.
    #[must_use]
    pub fn stays(&self, step: u64) -> bool {
        step > 0 && self.every > 0 && step.is_multiple_of(self.every)
    }
}

/// Why a checkpoint stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// One of every so many steps.
    Every,
    /// One of the last.
    Last,
    /// The one with the best bound.
    Best,
}

impl Reason {
    fn prefix(self) -> &'static str {
        match self {
            Self::Every => "every-",
            Self::Last => "last-",
            Self::Best => "best-",
        }
    }
}

/// Among the checkpoints that stay, the folder of one training: `<group>/<rates>`.
#[derive(Clone, Copy, Debug)]
pub struct Shelf<'a> {
    /// Of all trainings that differ in their learning rates alone.
    pub group: &'a str,
    /// What distinguishes the trainings of a group.
    pub rates: &'a str,
}

/// Where a training finds states to resume from, and where it leaves its own. The default is for steps without checkpoints.
#[derive(Clone, Debug, Default)]
pub struct Checkpoints {
    own: PathBuf,
    shared: PathBuf,
    earlier: Option<Vec<PathBuf>>,
}

impl Checkpoints {
    /// Those of a training whose scratch is the folder `own`; those that stay lie below `shared`.
    #[must_use]
    pub fn new(own: &Path, shared: &Path) -> Self {
        Self {
            own: own.to_owned(),
            shared: shared.to_owned(),
            earlier: None,
        }
    }

    /// Looks for what other trainings have left, too: in folders that are checkpoints or that hold some, and among those
    /// that stay.
    #[must_use]
    pub fn with_earlier(self, folders: Vec<PathBuf>) -> Self {
        Self {
            earlier: Some(folders),
            ..self
        }
    }

    /// The training's own checkpoints by step, ascending.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn own(&self) -> Result<Vec<(u64, PathBuf)>> {
        let what = || format!("look for checkpoints in `{}`", self.own.display());
        let mut found = Vec::new();
        if !self.own.exists() {
            return Ok(found);
        }
        for entry in fs::read_dir(&self.own).context(what)? {
            let entry = entry.context(what)?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if let Some(step) = name.strip_prefix("step-").and_then(|s| s.parse().ok()) {
                found.push((step, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The folders of other trainings in which `is_state` finds a state, whole or not.
    pub fn others(&self, group: &str, is_state: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
        let Some(mut folders) = self.earlier.clone() else {
            return Vec::new();
        };
        if !self.shared.as_os_str().is_empty() {
            folders.extend(below(&self.shared.join(group)));
        }
        let mut found = states_in(folders, is_state);
        found.retain(|folder| !self.is_own(folder));
        found
    }

    /// The checkpoints that trainings of a group have left to stay.
    pub fn that_stay(&self, group: &str, is_state: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
        states_in(below(&self.shared.join(group)), is_state)
    }

    /// Whether a state's folder is one of the training's own checkpoints.
    #[must_use]
    pub fn is_own(&self, folder: &Path) -> bool {
        folder.parent() == Some(&self.own)
    }

    /// Puts the checkpoint of a step, whose files `write` writes durably into a folder, in its place.
    ///
    /// # Errors
    /// The disk is full or not writable; what was there before is still there.
    pub fn publish(&self, step: u64, write: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        let what = || format!("write below `{}`", self.own.display());
        let name = step_name(step);
        let place = self.own.join(&name);
        let beside = self.own.join(format!(".{name}.new"));
        remove(&beside).context(what)?;
        fs::create_dir_all(&beside).context(what)?;
        write(&beside)?;
        // Only a damaged one can be here already: a training never comes twice to the same step otherwise.
        remove(&place).context(what)?;
        fs::rename(&beside, &place).context(what)?;
        sync_folder(&self.own)
    }

    /// Removes all of the training's own checkpoints but the newest, and what a crash left half-written.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn let_go(&self) -> Result<()> {
        self.clear()?;
        let found = self.own()?;
        for (_, old) in found.iter().take(found.len().saturating_sub(NEWEST)) {
            remove(old).context(|| format!("delete `{}`", old.display()))?;
        }
        Ok(())
    }

    /// Removes what a crash left half-written.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn clear(&self) -> Result<()> {
        let what = || format!("look for checkpoints in `{}`", self.own.display());
        if !self.own.exists() {
            return Ok(());
        }
        for entry in fs::read_dir(&self.own).context(what)? {
            let entry = entry.context(what)?;
            if entry.file_name().to_string_lossy().starts_with(".step-") {
                remove(&entry.path()).context(what)?;
            }
        }
        Ok(())
    }

    /// Keeps the training's own checkpoint of a step beyond its end.
    ///
    /// # Errors
    /// The disk is full or not writable.
    pub fn keep(&self, step: u64, reason: Reason, shelf: Shelf<'_>) -> Result<()> {
        let folder = self.shelf(shelf);
        let name = kept_name(reason, step);
        let (from, place) = (self.own.join(step_name(step)), folder.join(&name));
        // It is there: the same training came here before, or one whose steps are the same. There is nothing to keep: the
        // training began at this step, from what another one left.
        if place.exists() || !from.exists() {
            return Ok(());
        }
        let what = || format!("write `{}`", place.display());
        let beside = folder.join(format!(".{name}.{}", std::process::id()));
        remove(&beside).context(what)?;
        fs::create_dir_all(&beside).context(what)?;
        for entry in fs::read_dir(&from).context(what)? {
            let from = entry.context(what)?.path();
            let to = beside.join(from.file_name().unwrap_or_default());
            // No process writes to a checkpoint that has its name: one file may serve both.
            if fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).context(what)?;
                File::open(&to).and_then(|file| file.sync_all()).context(what)?;
            }
        }
        sync_folder(&beside)?;
        match fs::rename(&beside, &place) {
            // Another process was quicker.
            Err(_) if place.exists() => remove(&beside).context(what)?,
            other => other.context(what)?,
        }
        sync_folder(&folder)
    }

    /// Removes all but the newest checkpoints that a training has kept for a reason.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn keep_only(&self, count: usize, reason: Reason, shelf: Shelf<'_>) -> Result<()> {
        let folder = self.shelf(shelf);
        let what = || format!("look for checkpoints in `{}`", folder.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).context(what)? {
            let name = entry.context(what)?.file_name();
            if name
                .to_str()
                .is_some_and(|name| name.starts_with(reason.prefix()))
            {
                names.push(name);
            }
        }
        names.sort();
        for name in &names[..names.len().saturating_sub(count)] {
            remove(&folder.join(name)).context(what)?;
        }
        Ok(())
    }

    /// How many checkpoints a training has kept for a reason.
    #[must_use]
    pub fn kept(&self, reason: Reason, shelf: Shelf<'_>) -> u64 {
        let all = below(&self.shelf(shelf));
        let is_one = |path: &&PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(reason.prefix()))
        };
        all.iter().filter(is_one).count() as u64
    }

    /// Whether a training has kept the checkpoint of a step for a reason.
    #[must_use]
    pub fn has_kept(&self, step: u64, reason: Reason, shelf: Shelf<'_>) -> bool {
        self.shelf(shelf).join(kept_name(reason, step)).exists()
    }

    fn shelf(&self, shelf: Shelf<'_>) -> PathBuf {
        self.shared.join(shelf.group).join(shelf.rates)
    }
}

impl Store {
    /// The folder of the checkpoints that trainings keep for others.
    #[must_use]
    pub fn checkpoints_path(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// Where the training of a key leaves its checkpoints; what others have left is not looked at.
    #[must_use]
    pub fn own_checkpoints(&self, key: &Key) -> Checkpoints {
        Checkpoints::new(&self.work_path(&key.digest()), &self.checkpoints_path())
    }

    /// Where the training of a key leaves its checkpoints and finds those of others: the artifacts of its kind that consumed
    /// the same and are sound by a sample, and the scratch of all keys that were not finished.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn checkpoints(&self, key: &Key) -> Result<Checkpoints> {
        let earlier = self.left_for(key, &self.records(&key.kind)?, |folder, record| {
            let (artifact, files) = (&record.artifact, Some(record.files.as_slice()));
            verify::examine(folder, artifact, files, verify::SAMPLE, &verify::Pace::new(None))
                .is_ok_and(|faults| faults.is_empty())
        })?;
        Ok(self.own_checkpoints(key).with_earlier(earlier))
    }

    /// What [`Store::checkpoints`] finds of others, sound or not, among the records that are known of the key's kind: to
    /// look at.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn earlier_unexamined(&self, key: &Key, records: &[Record]) -> Result<Vec<PathBuf>> {
        self.left_for(key, records, |folder, _| folder.is_dir())
    }

    fn left_for(
        &self,
        key: &Key,
        records: &[Record],
        is_sound: impl Fn(&Path, &Record) -> bool,
    ) -> Result<Vec<PathBuf>> {
        let work = keys_below(&self.root.join("work"))?;
        let work = work.iter().map(|key| self.work_path(key));
        let made = records
            .iter()
            .filter(|record| record.key.inputs == key.inputs && record.key.version == key.version)
            .map(|record| (self.artifact_path(&record.artifact), record))
            .filter(|(folder, record)| is_sound(folder, record))
            .map(|(folder, _)| folder);
        Ok(made.chain(work).collect())
    }

    /// Names of the groups of checkpoints that stay.
    pub(super) fn checkpoint_groups(&self) -> Result<Vec<String>> {
        names_below(&self.checkpoints_path())
    }
}

/// The folders with a state: of those that are given, or in them.
pub fn states_in(folders: Vec<PathBuf>, is_state: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in folders {
        if is_state(&folder) {
            found.push(folder);
        } else {
            found.extend(below(&folder).into_iter().filter(|folder| is_state(folder)));
        }
    }
    found
}

/// The contents of a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Names sort as steps do.
fn step_name(step: u64) -> String {
    format!("step-{step:08}")
}

fn kept_name(reason: Reason, step: u64) -> String {
    format!("{}{}", reason.prefix(), step_name(step))
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELF: Shelf<'_> = Shelf {
        group: "group",
        rates: "rates",
    };

    fn write(checkpoints: &Checkpoints, step: u64) {
        checkpoints
            .publish(step, &mut |folder| {
                fs::write(folder.join("state"), step.to_string()).context(|| "write".to_owned())
            })
            .unwrap();
    }

    fn is_state(folder: &Path) -> bool {
        folder.join("state").is_file()
    }

    fn steps(checkpoints: &Checkpoints) -> Vec<u64> {
        let own = checkpoints.own().unwrap();
        own.into_iter().map(|(step, _)| step).collect()
    }

    #[test]
    fn resume_keeps_the_newest_checkpoints_and_nothing_half_written() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("work");
        let checkpoints = Checkpoints::new(&own, &folder.path().join("kept"));
        assert!(steps(&checkpoints).is_empty());
        for step in [5, 20, 100] {
            write(&checkpoints, step);
        }
        fs::create_dir(own.join(".step-00000120.new")).unwrap();
        let failed = checkpoints.publish(120, &mut |_| Err(crate::error::Error::environment("full")));
        assert!(failed.is_err());
        assert_eq!(steps(&checkpoints), [5, 20, 100]);
        checkpoints.let_go().unwrap();
        assert_eq!(steps(&checkpoints), [20, 100]);
        assert_eq!(fs::read_dir(&own).unwrap().count(), 2);
    }

    #[test]
    fn resume_finds_kept_checkpoints_of_other_trainings_without_the_scratch() {
        let folder = tempfile::tempdir().unwrap();
        let (own, shared) = (folder.path().join("work"), folder.path().join("kept"));
        let checkpoints = Checkpoints::new(&own, &shared);
        for step in 1..=3 {
            write(&checkpoints, step);
            checkpoints.keep(step, Reason::Last, SHELF).unwrap();
        }
        checkpoints.keep(2, Reason::Best, SHELF).unwrap();
        // A step that another training has come to.
        checkpoints.keep(9, Reason::Best, SHELF).unwrap();
        checkpoints.keep_only(2, Reason::Last, SHELF).unwrap();
        fs::remove_dir_all(&own).unwrap();
        assert_eq!(checkpoints.kept(Reason::Last, SHELF), 2);
        assert_eq!(checkpoints.kept(Reason::Best, SHELF), 1);
        assert_eq!(checkpoints.kept(Reason::Every, SHELF), 0);
        assert!(
            checkpoints.has_kept(3, Reason::Last, SHELF) && !checkpoints.has_kept(1, Reason::Last, SHELF)
        );

        let artifact = folder.path().join("artifact");
        fs::create_dir(&artifact).unwrap();
        fs::write(artifact.join("state"), "7").unwrap();
        let other = Checkpoints::new(&folder.path().join("other"), &shared);
        assert!(other.others("group", &is_state).is_empty(), "not asked for");
        write(&other, 4);
        let other = other.with_earlier(vec![
            artifact.clone(),
            folder.path().join("other"),
            folder.path().join("nowhere"),
        ]);
        let mut found = other.others("group", &is_state);
        assert!(!found.iter().any(|folder| other.is_own(folder)));
        found.sort();
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(found[0], artifact);
        assert_eq!(other.others("another", &is_state), [artifact]);
        assert_eq!(other.that_stay("group", &is_state).len(), 3);
    }
}
