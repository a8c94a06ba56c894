//! What can be deleted from a store, how much that is, and the deletion.
//!
//! [`Keep`] says what stays: keys that manifests reach, what the last runs reached, and what was made since the
//! first of those runs began (by one that was killed, or is still under way). With a record stays its artifact, and
//! with it the records and artifacts that it was made from. Of the rest goes:
//!
//! | what | unless |
//! |---|---|
//! | action records, artifacts | a process has pinned the artifact, or works on the key |
//! | scratch of unfinished keys | a process works on the key |
//! | checkpoints that trainings have left | a training that stays could resume from them, or a process works on any key |
//! | text that came through pipes | a kept record names it, or it is less than a day old |
//! | quarantine | |
//!
//! From which checkpoints a training could resume is decided where the format of its state is known
//! (`mdlm::plan::resume`): the store names the folders of states that stay ([`Store::kept_states`]), and is given the
//! names of the groups that stay with them.
//!
//! Nothing is taken from a run. An artifact is deleted under its exclusive lock, which is not granted while a run has
//! pinned it, and its records under the locks of their keys; what stays is asked for again once the locks are held,
//! since a run may have ended meanwhile. A run that planned with a deleted record finds that out when it pins the
//! artifact, and decides again. An artifact leaves its place by one rename and its records go before it: a process that
//! dies here leaves no half of one, and the next run sweeps what it has moved aside.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{
    ArtifactLock, Digest, Latest, Record, Store, StoredRecord, keys_below, names_below, remove_file,
    remove_folder, time,
};
use crate::error::{Kind, Result, Wrap};

/// What stays.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// Every record that can be read, and all scratch and checkpoints.
    pub everything: bool,
    /// The records of these keys, and their scratch.
    pub keys: HashSet<Digest>,
    /// All scratch: some keys are not known yet.
    pub scratch: bool,
    /// What so many of the last runs reached, and what was made since.
    pub last: Option<usize>,
}

/// A sort of thing in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// What a stage made.
    Artifact,
    /// The record of what a key made.
    Record,
    /// The state from which an interrupted stage resumes.
    Scratch,
    /// What trainings have left for others: all of one network, data and settings.
    Checkpoints,
    /// Downloaded files.
    Downloads,
    /// Text that came through pipes.
    Piped,
    /// What was found corrupt.
    Quarantine,
    /// Reports.
    Reports,
    /// Locks, notes and what is being written.
    Other,
}

/// Something in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What sort of thing it is.
    pub sort: ItemKind,
    /// The kind of stage that made it, where that is known.
    pub kind: Option<String>,
    /// Its path below the store.
    pub path: String,
    /// What it takes on disk: lengths of its files, each counted once.
    pub bytes: u64,
    /// Who made it: `rows of tiny`.
    pub made_by: Option<String>,
    /// When, RFC 3339.
    pub made: Option<String>,
}

/// Something that stays although nothing asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// What it is.
    #[serde(flatten)]
    pub item: Item,
    /// Why.
    pub why: String,
}

/// What went.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// What was deleted.
    pub deleted: Vec<Item>,
    /// What is in use.
    pub left: Vec<Left>,
    /// What was measured.
    scale: Scale,
}

impl Collected {
    /// What would be deleted.
    #[must_use]
    pub fn of(deleted: Vec<Item>) -> Self {
        Self {
            deleted,
            ..Self::default()
        }
    }

    fn sort(&mut self) {
        let deleted = &mut self.deleted;
        deleted.sort_by(|a, b| (a.sort, &a.path).cmp(&(b.sort, &b.path)));
    }
}

/// What a store holds, and what of it stays.
struct View {
    records: Vec<StoredRecord>,
    /// Keys of records that stay.
    keys: HashSet<Digest>,
    /// Since when what was made stays: RFC 3339.
    since: Option<String>,
}

/// Artifacts whose locks are held at a time: well below the files that a process may open.
const AT_ONCE: usize = 64;

impl View {
    fn stays(&self, found: &StoredRecord) -> bool {
        found.record.is_ok() && self.keys.contains(&found.key)
    }

    fn kept(&self) -> impl Iterator<Item = &Record> {
        let kept = self.records.iter().filter(|found| self.stays(found));
        kept.filter_map(|found| found.record.as_ref().ok())
    }

    /// Artifacts that stay.
    fn artifacts(&self) -> HashSet<Digest> {
        self.kept().map(|record| record.artifact).collect()
    }
}

/// Measures space on disk; a file with several names counts once.
#[derive(Clone, Debug, Default)]
struct Scale {
    #[cfg(unix)]
    seen: HashSet<(u64, u64)>,
}

impl Scale {
    /// Bytes of the files below a path. What cannot be read counts nothing: it may be going away just now.
    fn bytes(&mut self, path: &Path) -> u64 {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return 0;
        };
        if metadata.is_dir() {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            return entries.map(|entry| self.bytes(&entry.path())).sum();
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            if metadata.nlink() > 1 && !self.seen.insert((metadata.dev(), metadata.ino())) {
                return 0;
            }
        }
        metadata.len()
    }
}

fn made_by(record: &Record) -> String {
    format!("{} of {}", record.provenance.stage, record.provenance.pipeline)
}

impl Store {
    /// Everything in the store, by sort and path; records and what is being written included.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn contents(&self) -> Result<Vec<Item>> {
        let mut scale = Scale::default();
        let records = self.all_records()?;
        let mut items = self.artifact_items(&records, &mut scale)?;
        items.extend(records.iter().map(|found| self.record_item(found, &mut scale)));
        for (folder, sort) in [
            ("work", ItemKind::Scratch),
            ("checkpoints", ItemKind::Checkpoints),
            ("piped", ItemKind::Piped),
            ("quarantine", ItemKind::Quarantine),
            ("reports", ItemKind::Reports),
        ] {
            items.extend(self.items_below(folder, sort, &mut scale)?);
        }
        let named = [
            "artifacts",
            "actions",
            "work",
            "checkpoints",
            "piped",
            "quarantine",
            "reports",
        ];
        for name in names_below(self.root())? {
            let sort = match name.as_str() {
                "downloads" => ItemKind::Downloads,
                name if named.contains(&name) => continue,
                _ => ItemKind::Other,
            };
            items.push(self.item(sort, name, &mut scale));
        }
        items.sort_by(|a, b| (a.sort, &a.path).cmp(&(b.sort, &b.path)));
        Ok(items)
    }

    /// The records that stay.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn kept(&self, keep: &Keep) -> Result<Vec<Record>> {
        Ok(self.view(keep)?.kept().cloned().collect())
    }

    /// The folders in which trainings that stay may have left their state: artifacts, and what is in scratch. Nothing
    /// where no checkpoints could be deleted.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn kept_states(&self, keep: &Keep) -> Result<Vec<PathBuf>> {
        if keep.everything || self.checkpoint_groups()?.is_empty() {
            return Ok(Vec::new());
        }
        let view = self.view(keep)?;
        let artifacts = view.kept().map(|record| self.artifact_path(&record.artifact));
        let mut folders: Vec<PathBuf> = artifacts.collect();
        let scratch = self.scratch(keep, &view)?;
        for key in keys_below(&self.root().join("work"))? {
            if !scratch.contains(&key) {
                let folder = self.work_path(&key);
                folders.extend(names_below(&folder)?.iter().map(|name| folder.join(name)));
            }
        }
        Ok(folders)
    }

    /// What may be deleted. Deletes nothing, and does not check what is in use. `groups` are the names of the groups of
    /// checkpoints that stay: those to which [`Store::kept_states`] belong.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn garbage(&self, keep: &Keep, groups: &HashSet<String>) -> Result<Vec<Item>> {
        let view = self.view(keep)?;
        let mut scale = Scale::default();
        let kept = view.artifacts();
        let mut items = self.artifact_items(&view.records, &mut scale)?;
        items.retain(|item| artifact_of(item).is_some_and(|artifact| !kept.contains(&artifact)));
        let doomed = view.records.iter().filter(|found| !view.stays(found));
        items.extend(doomed.map(|found| self.record_item(found, &mut scale)));
        let scratch = self.scratch(keep, &view)?;
        items.extend(
            scratch
                .iter()
                .map(|key| self.item(ItemKind::Scratch, format!("work/{key}"), &mut scale)),
        );
        let lost = self.lost_groups(keep, groups)?;
        items.extend(
            lost.into_iter()
                .map(|name| self.item(ItemKind::Checkpoints, format!("checkpoints/{name}"), &mut scale)),
        );
        for path in self.lost_pipes(view.kept())? {
            items.push(self.item(ItemKind::Piped, path, &mut scale));
        }
        items.extend(self.items_below("quarantine", ItemKind::Quarantine, &mut scale)?);
        items.sort_by(|a, b| (a.sort, &a.path).cmp(&(b.sort, &b.path)));
        Ok(items)
    }

    /// Deletes what may be deleted and is not in use, but for checkpoints: [`Store::collect_checkpoints`]. Calls
    /// `deleted` with each item.
    ///
    /// # Errors
    /// The store cannot be read or written; what was deleted before is deleted.
    pub fn collect(&self, keep: &Keep, deleted: &mut dyn FnMut(&Item)) -> Result<Collected> {
        self.prepare()?;
        let mut collected = Collected::default();
        let mut delete = |item: Item, collected: &mut Collected| {
            deleted(&item);
            collected.deleted.push(item);
        };
        let mut scale = Scale::default();

        // Records and artifacts, by artifact.
        let view = self.view(keep)?;
        let kept = view.artifacts();
        let mut doomed: Vec<Digest> = self.artifacts()?;
        doomed.extend(view.records.iter().filter_map(StoredRecord::artifact));
        doomed.sort();
        doomed.dedup();
        // One that stays may have records that do not.
        let going = view.records.iter().filter(|found| !view.stays(found));
        let partly: HashSet<Digest> = going.filter_map(StoredRecord::artifact).collect();
        doomed.retain(|artifact| !kept.contains(artifact) || partly.contains(artifact));
        for some in doomed.chunks(AT_ONCE) {
            let mut taken = Vec::new();
            for artifact in some {
                match self.try_take(artifact)? {
                    Some(lock) => taken.push(lock),
                    None if kept.contains(artifact) => {}
                    None => {
                        let item = self.artifact_item(artifact, &view.records, &mut scale);
                        collected.left.push(Left {
                            item,
                            why: "a run uses it".to_owned(),
                        });
                    }
                }
            }
            // A run may have ended before its artifact was taken: its records and its note are there now.
            let view = self.view(keep)?;
            let kept = view.artifacts();
            for lock in taken {
                self.collect_artifact(&lock, &view, &kept, &mut scale, &mut collected, &mut delete)?;
            }
        }
        for found in view.records.iter().filter(|found| found.record.is_err()) {
            if let Some(_lock) = self.try_lock(&found.key)?
                && Record::read(&found.path).is_err()
            {
                let item = self.record_item(found, &mut scale);
                remove_file(&found.path)?;
                delete(item, &mut collected);
            }
        }

        // Scratch.
        let view = self.view(keep)?;
        let scratch = self.scratch(keep, &view)?;
        for key in &scratch {
            let item = self.item(ItemKind::Scratch, format!("work/{key}"), &mut scale);
            if let Some(lock) = self.try_lock(key)? {
                self.clear_work(&lock)?;
                delete(item, &mut collected);
            } else {
                let why = format!("{} is writing it", self.worker(key));
                collected.left.push(Left { item, why });
            }
        }

        for path in self.lost_pipes(self.view(keep)?.kept())? {
            let item = self.item(ItemKind::Piped, path, &mut scale);
            remove_file(&self.root().join(&item.path))?;
            delete(item, &mut collected);
        }

        for item in self.items_below("quarantine", ItemKind::Quarantine, &mut scale)? {
            let path = self.root().join(&item.path);
            if path.is_dir() {
                remove_folder(&path)?;
            } else {
                remove_file(&path)?;
            }
            delete(item, &mut collected);
        }
        self.forget_latest()?;
        collected.scale = scale;
        collected.sort();
        Ok(collected)
    }

    /// Deletes the checkpoints from which no training that stays resumes, once [`Store::collect`] has deleted what does not.
    /// `groups` are the names of the groups that stay: those to which [`Store::kept_states`] belong, asked for after it,
    /// since a run may have ended meanwhile. Calls `deleted` with each item.
    ///
    /// # Errors
    /// The store cannot be read or written; what was deleted before is deleted.
    pub fn collect_checkpoints(
        &self,
        keep: &Keep,
        groups: &HashSet<String>,
        collected: &mut Collected,
        deleted: &mut dyn FnMut(&Item),
    ) -> Result<()> {
        let lost = self.lost_groups(keep, groups)?;
        if lost.is_empty() {
            return Ok(());
        }
        // A training that has yet to look for checkpoints does not say which ones.
        let busy = self.any_worker()?;
        for name in lost {
            let path = format!("checkpoints/{name}");
            let item = self.item(ItemKind::Checkpoints, path.clone(), &mut collected.scale);
            if let Some(worker) = &busy {
                let why = format!("{worker} is running and may need them");
                collected.left.push(Left { item, why });
                continue;
            }
            // Renamed in one step: no process resumes from half of a checkpoint.
            let place = self.root().join(&path);
            let aside = self.root().join(format!("checkpoints/.gone-{name}"));
            remove_folder(&aside)?;
            fs::rename(&place, &aside).wrap(Kind::Environment, || format!("delete `{}`", place.display()))?;
            remove_folder(&aside)?;
            deleted(&item);
            collected.deleted.push(item);
        }
        collected.sort();
        Ok(())
    }

    /// Deletes an artifact and the records that name it, those of them that do not stay.
    fn collect_artifact(
        &self,
        lock: &ArtifactLock,
        view: &View,
        kept: &HashSet<Digest>,
        scale: &mut Scale,
        collected: &mut Collected,
        delete: &mut dyn FnMut(Item, &mut Collected),
    ) -> Result<()> {
        let artifact = lock.artifact();
        let naming = view
            .records
            .iter()
            .filter(|found| found.artifact() == Some(*artifact));
        let place = self.artifact_path(artifact);
        let item = self.artifact_item(artifact, &view.records, scale);
        let mut locks = Vec::new();
        let mut doomed = Vec::new();
        for found in naming.filter(|found| !view.stays(found)) {
            let Some(lock) = self.try_lock(&found.key)? else {
                let why = format!("{} runs the stage with its key", self.worker(&found.key));
                collected.left.push(Left { item, why });
                return Ok(());
            };
            locks.push(lock);
            doomed.push(found);
        }
        for found in doomed {
            let item = self.record_item(found, scale);
            remove_file(&found.path)?;
            delete(item, collected);
        }
        if kept.contains(artifact) || !place.exists() {
            return Ok(());
        }
        // Swept by the next run if this process dies now: nothing in `staging` is needed.
        let aside = self.staging_path(artifact);
        remove_folder(&aside)?;
        fs::rename(&place, &aside).wrap(Kind::Environment, || format!("delete `{}`", place.display()))?;
        remove_folder(&aside)?;
        delete(item, collected);
        Ok(())
    }

    fn view(&self, keep: &Keep) -> Result<View> {
        let records = self.all_records()?;
        let mut keys = keep.keys.clone();
        let mut since = None;
        if let Some(last) = keep.last {
            let runs = self.runs()?;
            let first = runs.len().saturating_sub(last);
            for run in &runs[first..] {
                keys.extend(run.stages.iter().filter_map(|stage| stage.key));
            }
            // Fewer runs than asked for: nothing is known to be older than they are.
            since = if runs.len() < last {
                Some(String::new())
            } else {
                runs[first..].iter().map(|run| run.started.clone()).min()
            };
        }
        let is_young = |record: &Record| {
            since
                .as_ref()
                .is_some_and(|since| record.provenance.started >= *since)
        };
        let readable = || {
            records
                .iter()
                .filter_map(|found| Some((found.key, found.record.as_ref().ok()?)))
        };
        keys.extend(
            readable()
                .filter(|(_, record)| keep.everything || is_young(record))
                .map(|(key, _)| key),
        );
        // And what it was all made from.
        let by_key: HashMap<Digest, &Record> = readable().collect();
        let mut open: Vec<Digest> = keys.iter().copied().collect();
        while let Some(key) = open.pop() {
            let Some(record) = by_key.get(&key) else { continue };
            for input in &record.provenance.inputs {
                if keys.insert(input.key) {
                    open.push(input.key);
                }
            }
        }
        Ok(View { records, keys, since })
    }

    /// Digests that name folders of artifacts.
    fn artifacts(&self) -> Result<Vec<Digest>> {
        let names = names_below(&self.root().join("artifacts"))?;
        let mut artifacts: Vec<Digest> = names.iter().filter_map(|name| name.parse().ok()).collect();
        artifacts.sort();
        Ok(artifacts)
    }

    /// Keys whose scratch does not stay.
    fn scratch(&self, keep: &Keep, view: &View) -> Result<Vec<Digest>> {
        if keep.everything || keep.scratch {
            return Ok(Vec::new());
        }
        let mut keys = keys_below(&self.root().join("work"))?;
        keys.retain(|key| {
            let young = || {
                let modified = fs::metadata(self.work_path(key)).and_then(|metadata| metadata.modified());
                let since = view.since.as_ref();
                // What cannot be identified is not deleted.
                modified.map_or(true, |at| since.is_some_and(|since| time::rfc3339(at) >= *since))
            };
            !view.keys.contains(key) && !young()
        });
        Ok(keys)
    }

    /// Names of groups of checkpoints that do not stay, given those that do.
    fn lost_groups(&self, keep: &Keep, kept: &HashSet<String>) -> Result<Vec<String>> {
        if keep.everything {
            return Ok(Vec::new());
        }
        let mut groups = self.checkpoint_groups()?;
        groups.retain(|name| !kept.contains(name));
        groups.sort();
        Ok(groups)
    }

    /// The process that works on a key whose lock is held.
    fn worker(&self, key: &Digest) -> String {
        let holder = self.holder(key);
        holder.map_or_else(|| "a run".to_owned(), |holder| holder.to_string())
    }

    /// A process that works on a key, if there is one.
    fn any_worker(&self) -> Result<Option<String>> {
        for key in keys_below(&self.root().join("work"))? {
            if self.try_lock(&key)?.is_none() {
                return Ok(Some(self.worker(&key)));
            }
        }
        Ok(None)
    }

    fn item(&self, sort: ItemKind, path: String, scale: &mut Scale) -> Item {
        Item {
            sort,
            kind: None,
            bytes: scale.bytes(&self.root().join(&path)),
            path,
            made_by: None,
            made: None,
        }
    }

    fn items_below(&self, folder: &str, sort: ItemKind, scale: &mut Scale) -> Result<Vec<Item>> {
        let mut names = names_below(&self.root().join(folder))?;
        names.sort();
        Ok(names
            .into_iter()
            .map(|name| self.item(sort, format!("{folder}/{name}"), scale))
            .collect())
    }

    fn artifact_items(&self, records: &[StoredRecord], scale: &mut Scale) -> Result<Vec<Item>> {
        let artifacts = self.artifacts()?;
        Ok(artifacts
            .iter()
            .map(|artifact| self.artifact_item(artifact, records, scale))
            .collect())
    }

    fn artifact_item(&self, artifact: &Digest, records: &[StoredRecord], scale: &mut Scale) -> Item {
        let mut makers = records.iter().filter_map(|found| found.record.as_ref().ok());
        let maker = makers.find(|record| record.artifact == *artifact);
        Item {
            kind: maker.map(|record| record.key.kind.clone()),
            made_by: maker.map(made_by),
            made: maker.map(|record| record.provenance.started.clone()),
            ..self.item(ItemKind::Artifact, format!("artifacts/{artifact}"), scale)
        }
    }

    fn record_item(&self, found: &StoredRecord, scale: &mut Scale) -> Item {
        let record = found.record.as_ref().ok();
        Item {
            kind: Some(found.kind.clone()),
            made_by: record.map(made_by),
            made: record.map(|record| record.provenance.started.clone()),
            ..self.item(
                ItemKind::Record,
                format!("actions/{}/{}.json", found.kind, found.key),
                scale,
            )
        }
    }

    /// Forgets last keys whose records are gone.
    fn forget_latest(&self) -> Result<()> {
        let folder = self.root().join("latest");
        for name in names_below(&folder)? {
            let path = folder.join(name);
            let text = fs::read_to_string(&path).ok();
            if let Some(latest) = text.and_then(|text| serde_json::from_str::<Latest>(&text).ok())
                && !self.record_path(&latest.kind, &latest.key).exists()
            {
                remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// The artifact that an item is.
fn artifact_of(item: &Item) -> Option<Digest> {
    item.path.strip_prefix("artifacts/")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

    use super::super::record::testing::example;
    use super::super::{InputOrigin, RunNote, RunStage};
    use super::*;

    struct Fixture {
        _folder: tempfile::TempDir,
        store: Store,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("store"));
        store.prepare().unwrap();
        Fixture {
            _folder: folder,
            store,
        }
    }

    /// Makes something at a moment, from something else or from nothing.
    fn act(store: &Store, seed: u64, started: &str, from: Option<&Record>) -> Record {
        let mut record = example(seed);
        record.provenance.started = started.to_owned();
        if let Some(from) = from {
            record.key.inputs = IndexMap::from([("from".to_owned(), from.artifact)]);
            record.provenance.inputs = vec![InputOrigin {
                role: "from".to_owned(),
                stage: "rows".to_owned(),
                kind: from.key.kind.clone(),
                key: from.key.digest(),
                artifact: from.artifact,
                content: from.content,
            }];
        }
        let lock = store.try_lock(&record.key.digest()).unwrap().unwrap();
        let (staging, _) = store.stage(&lock).unwrap();
        fs::write(staging.join("output"), seed.to_string()).unwrap();
        let committed = |artifact, files| Record {
            artifact,
            files,
            ..record
        };
        store.commit(&lock, committed).unwrap()
    }

    fn keep(records: &[&Record]) -> Keep {
        Keep {
            keys: records.iter().map(|record| record.key.digest()).collect(),
            ..Keep::default()
        }
    }

    fn collect(store: &Store, keep: &Keep) -> Collected {
        let groups = HashSet::new();
        let would = store.garbage(keep, &groups).unwrap();
        let mut calls = 0;
        let mut deleted = |_: &Item| calls += 1;
        let mut collected = store.collect(keep, &mut deleted).unwrap();
        store
            .collect_checkpoints(keep, &groups, &mut collected, &mut deleted)
            .unwrap();
        assert_eq!(calls, collected.deleted.len());
        if collected.left.is_empty() {
            assert_eq!(collected.deleted, would, "a dry run says what is deleted");
        }
        collected
    }

    fn has(store: &Store, record: &Record) -> bool {
        let (artifact, known) = (
            store.artifact_path(&record.artifact).exists(),
            store.record(&record.key.kind, &record.key.digest()).is_some(),
        );
        assert_eq!(artifact, known, "both or none");
        artifact
    }

    const BEFORE: &str = "2026-01-01T00:00:00.000Z";

    #[test]
    fn gc_keeps_the_inputs_of_a_kept_result() {
        let Fixture { store, .. } = &fixture();
        let one = act(store, 1, BEFORE, None);
        let two = act(store, 2, BEFORE, Some(&one));
        let other = act(store, 3, BEFORE, None);
        let collected = collect(store, &keep(&[&two]));
        assert_eq!(collected.deleted.len(), 2);
        assert!(has(store, &one) && has(store, &two) && !has(store, &other));
        assert!(collect(store, &keep(&[&two])).deleted.is_empty());
        assert!(names_below(&store.root().join("staging")).unwrap().is_empty());
    }

    #[test]
    fn gc_leaves_what_is_pinned_or_worked_on() {
        let Fixture { store, .. } = &fixture();
        let (one, two) = (act(store, 1, BEFORE, None), act(store, 2, BEFORE, None));
        let pin = store.pin(&one.artifact).unwrap();
        let lock = store.try_lock(&two.key.digest()).unwrap().unwrap();
        let busy = example(3).key.digest();
        let working = store.try_lock(&busy).unwrap().unwrap();
        store.stage(&working).unwrap();
        let collected = collect(store, &Keep::default());
        assert!(collected.deleted.is_empty());
        let mut why: Vec<_> = collected.left.iter().map(|left| left.why.as_str()).collect();
        why.sort_unstable();
        let here = format!(
            "process {} on {}",
            std::process::id(),
            super::super::record::host_name()
        );
        let mut expected = [
            "a run uses it".to_owned(),
            format!("{here} runs the stage with its key"),
            format!("{here} is writing it"),
        ];
        expected.sort();
        assert_eq!(why, expected);
        assert!(has(store, &one) && has(store, &two) && store.work_path(&busy).exists());
        drop((pin, lock, working));
        assert_eq!(collect(store, &Keep::default()).deleted.len(), 5);
        assert!(!has(store, &one) && !has(store, &two) && !store.work_path(&busy).exists());
    }

    /// Two keys that made the same: the record of one goes, what both name stays.
    #[test]
    fn gc_keeps_a_shared_artifact_with_its_last_record() {
        let Fixture { store, .. } = &fixture();
        let one = act(store, 1, BEFORE, None);
        let mut twin = example(2);
        let lock = store.try_lock(&twin.key.digest()).unwrap().unwrap();
        let (staging, _) = store.stage(&lock).unwrap();
        fs::write(staging.join("output"), "1").unwrap();
        twin = store
            .commit(&lock, |artifact, files| Record {
                artifact,
                files,
                ..twin
            })
            .unwrap();
        drop(lock);
        assert_eq!(one.artifact, twin.artifact);
        let collected = collect(store, &keep(&[&one]));
        let sorts: Vec<_> = collected.deleted.iter().map(|item| item.sort).collect();
        assert_eq!(sorts, [ItemKind::Record]);
        assert!(has(store, &one));
    }

    fn note(store: &Store, started: &str, record: &Record) {
        let stage = RunStage {
            stage: "model".to_owned(),
            kind: record.key.kind.clone(),
            key: Some(record.key.digest()),
            artifact: Some(record.artifact),
        };
        store
            .note_run(&RunNote {
                pipeline: "pipeline".to_owned(),
                manifest: "pipeline.json".to_owned(),
                overrides: vec![],
                started: started.to_owned(),
                seconds: 1.0,
                ok: true,
                version: "0.1.0".to_owned(),
                stages: vec![stage],
            })
            .unwrap();
    }

    /// A run that was killed is not noted; what it made is younger than the last run that was.
    #[test]
    fn gc_keeps_what_was_made_since_the_first_of_the_last_runs() {
        let Fixture { store, .. } = &fixture();
        let one = act(store, 1, "2026-01-01T00:00:00.000Z", None);
        note(store, "2026-01-01T00:00:00.000Z", &one);
        let between = act(store, 2, "2026-01-02T00:00:00.000Z", None);
        let two = act(store, 3, "2026-01-03T00:00:00.000Z", None);
        note(store, "2026-01-03T00:00:00.000Z", &two);
        let killed = act(store, 4, "2026-01-04T00:00:00.000Z", None);
        let last = |last| Keep {
            last: Some(last),
            ..Keep::default()
        };
        assert!(collect(store, &last(3)).deleted.is_empty(), "there are but two");
        assert!(collect(store, &last(2)).deleted.is_empty());
        assert_eq!(collect(store, &last(1)).deleted.len(), 4);
        assert!(!has(store, &one) && !has(store, &between));
        assert!(has(store, &two) && has(store, &killed));
    }

    #[test]
    fn gc_deletes_artifacts_without_records_and_damaged_records() {
        let Fixture { store, .. } = &fixture();
        let (one, two) = (act(store, 1, BEFORE, None), act(store, 2, BEFORE, None));
        fs::remove_file(store.record_path(&one.key.kind, &one.key.digest())).unwrap();
        fs::write(store.record_path(&two.key.kind, &two.key.digest()), "{").unwrap();
        let everything = Keep {
            everything: true,
            ..Keep::default()
        };
        let collected = collect(store, &everything);
        let sorts: Vec<_> = collected.deleted.iter().map(|item| item.sort).collect();
        assert_eq!(sorts, [ItemKind::Artifact, ItemKind::Artifact, ItemKind::Record]);
    }

    /// Killed between the renaming and the deleting: the next run sweeps.
    #[test]
    fn gc_sweeps_what_was_moved_aside() {
        let Fixture { store, .. } = &fixture();
        let one = act(store, 1, BEFORE, None);
        let aside = store.staging_path(&one.artifact);
        fs::remove_file(store.record_path(&one.key.kind, &one.key.digest())).unwrap();
        fs::rename(store.artifact_path(&one.artifact), &aside).unwrap();
        store.prepare().unwrap();
        assert!(!aside.exists());
    }

    /// Those that belong to a state which stays; which ones that is, is passed in.
    #[test]
    fn gc_deletes_checkpoints_of_groups_that_do_not_stay() {
        let Fixture { store, .. } = &fixture();
        let (one, two) = (act(store, 1, BEFORE, None), act(store, 2, BEFORE, None));
        let folder = |name: &str| store.checkpoints_path().join(name);
        let keep = keep(&[&one]);
        assert!(
            store.kept_states(&keep).unwrap().is_empty(),
            "no checkpoints could be deleted"
        );
        for name in ["a", "b"] {
            fs::create_dir_all(folder(name)).unwrap();
        }
        assert_eq!(
            store.kept_states(&keep).unwrap(),
            [store.artifact_path(&one.artifact)]
        );
        let groups = HashSet::from(["a".to_owned()]);
        let would = store.garbage(&keep, &groups).unwrap();
        let mut collected = store.collect(&keep, &mut |_| ()).unwrap();
        store
            .collect_checkpoints(&keep, &groups, &mut collected, &mut |_| ())
            .unwrap();
        assert_eq!(collected.deleted, would);
        let paths: Vec<_> = would
            .iter()
            .filter(|item| item.sort == ItemKind::Checkpoints)
            .collect();
        assert_eq!(paths.len(), 1);
        assert_eq!(paths[0].path, "checkpoints/b");
        assert!(folder("a").exists() && !folder("b").exists() && !has(store, &two));
    }
}
