//! From a manifest to a plan: the stages in the order in which they can run, each with its cache key and, where it has
//! to run, the reasons.
//!
//! What is in a key and what is not: see the table of [`crate::stages::key`]; the key itself is
//! [`crate::store::Key`]. A key names its inputs by content. So the key of a stage is known only once its inputs'
//! artifacts are: behind a stage that has to run, a plan says "`rows` runs" and nothing more. The executor asks again
//! ([`Plan::decide`]) when the inputs are there; if the upstream stage made what it had made before, the key is an old
//! one and the rerun ends there.
//!
//! `mdlm plan` and `mdlm run` make the same plan: a dry run cannot differ from a run.
//!
//! An action record without its artifact is as good for a key as one with it: the artifact's digest is all that the keys
//! of its consumers take from it. So a stage whose files are not here ([`Decision::Away`]) is made or fetched only when a
//! stage that runs consumes it, or when it is itself wanted: a stage that nothing consumes, or a target. With
//! [`Selection::allow_missing`] nothing is wanted for its own sake, and of files outside the store that are not here the
//! digests of the last run are believed: a checkout of nothing but manifests and records can be planned.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use indexmap::IndexMap;
use rayon::prelude::*;

use crate::data::files::{self, Found, LeftOut, Named, Piped};
use crate::data::read::Consumed;
use crate::error::{Context, Error, Result};
use crate::manifest::{Manifest, Stage, StageKind, order};
use crate::remote::Remote;
use crate::stages::key::{self, FileReference, Parts};
use crate::store::digest::hash_file;
use crate::store::stat::{Known, Look};
use crate::store::{Digest, ExternalFile, InputOrigin, Key, Lookup, Record, Store};

mod figures;
mod foresee;
mod lacks;
mod past;
pub mod reason;

pub use foresee::Needed;
pub use past::{OfKind, Past};
pub use reason::{FileChange, Reason};

/// What a plan is made for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The stages that are wanted, with all that they need; all stages when empty.
    pub targets: Vec<String>,
    /// Stages that run even when they are cached.
    pub force: Vec<String>,
    /// Whether what is known by its record alone is good enough.
    pub allow_missing: bool,
    /// What has come through pipes.
    pub piped: Vec<Piped>,
}

/// A manifest made ready to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Folder of the manifest.
    pub base: PathBuf,
    /// The stages, each after those it consumes.
    pub stages: Vec<PlannedStage>,
    /// What the store knew when the plan was made.
    past: Arc<Past>,
    /// Where what is not here may be found.
    remote: Option<Arc<Remote>>,
    /// What is worth saying of it.
    notes: Vec<String>,
}

/// A stage in its place.
#[derive(Clone, Debug)]
pub struct PlannedStage {
    /// Its name in the manifest.
    pub name: String,
    /// Its settings.
    pub stage: Stage,
    /// The effective seed.
    pub seed: u64,
    /// The stages that it consumes.
    pub inputs: Vec<Input>,
    /// The files outside the store that it reads.
    pub files: Vec<ExternalFile>,
    /// What becomes of it.
    pub decision: Decision,
    /// What the artifact that serves it lacks of what is asked for, each as a lowercase fragment: the result is the same,
    /// and to run the stage by force is the way to get the rest.
    pub lacks: Vec<String>,
    parts: Parts,
    forced: bool,
    /// Wanted for its own sake.
    wanted: bool,
    /// The stage that needs its files, as far as that is known.
    needed_by: Option<String>,
    /// The last key for which its artifact was known, and that artifact. While it is made again its consumers' keys stand.
    known: Option<(Digest, Digest)>,
    /// Tried in vain: the remote has a record of it and not what it tells of.
    unfetchable: bool,
    /// The files as they looked; nothing where they are not here.
    observed: Option<Vec<Observed>>,
    /// What the globs of its files leave out; nothing where the files are not here.
    left_out: Option<LeftOut>,
    /// What came through pipes, now or before.
    piped: Vec<Piped>,
}

/// A consumed stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The field that names it: [`crate::manifest::Reference::field`].
    pub role: &'static str,
    /// Its place in [`Plan::stages`].
    pub index: usize,
}

/// What becomes of a stage.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Its artifact is in the store.
    Cached(Box<Record>),
    /// Its artifact is known and not here, and nothing needs it.
    Away(Box<Record>),
    /// Its artifact is known, not here, needed, and can be had from the remote.
    Fetch(Box<Record>),
    /// It has to run.
    Run {
        /// Its key, once its inputs are known.
        key: Option<Box<Key>>,
        /// Why; never empty.
        reasons: Vec<Reason>,
    },
}

/// A file as it was when it was hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Observed {
    path: PathBuf,
    look: Look,
    /// Whether it had been left alone for a while, so that a later change shows.
    settled: bool,
}

impl PlannedStage {
    /// What came through pipes for it, now or before.
    #[must_use]
    pub fn piped(&self) -> &[Piped] {
        &self.piped
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> StageKind {
        self.stage.kind()
    }

    /// Its artifact, once it is known.
    #[must_use]
    pub fn artifact(&self) -> Option<&Digest> {
        self.record().map(|record| &record.artifact)
    }

    /// The record of its artifact, be that here or not, once it is known.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        match &self.decision {
            Decision::Cached(record) | Decision::Away(record) | Decision::Fetch(record) => Some(record),
            Decision::Run { .. } => None,
        }
    }

    /// Its artifact, also while that is made again from what it was made of.
    fn expected(&self) -> Option<Digest> {
        match (&self.decision, &self.known) {
            (Decision::Run { key: Some(key), .. }, Some((known, artifact)))
                if !self.forced && key.digest() == *known =>
            {
                Some(*artifact)
            }
            _ => self.artifact().copied(),
        }
    }

    /// What the artifact that serves it lacks, and the way to get it; nothing where it lacks nothing.
    #[must_use]
    pub fn lacking(&self) -> Option<String> {
        let lacks = self.lacks.join("; ");
        (!lacks.is_empty()).then(|| format!("{lacks} (`--force {}` trains it again)", self.name))
    }

    /// Whether there is something to do for it: to run it or to fetch its artifact.
    #[must_use]
    pub fn has_work(&self) -> bool {
        matches!(self.decision, Decision::Run { .. } | Decision::Fetch(_))
    }

    fn key(&self, inputs: IndexMap<String, Digest>) -> Key {
        let mut files: IndexMap<String, Vec<Digest>> = IndexMap::new();
        for file in &self.files {
            files.entry(file.field.clone()).or_default().push(file.digest);
        }
        Key {
            kind: self.kind().name().to_owned(),
            version: self.parts.version,
            config: self.parts.config.clone(),
            seed: self.parts.seed,
            inputs,
            files,
        }
    }
}

impl Plan {
    /// Plans a manifest that lies in the folder `base`. Reads the files outside the store, to hash them, and the
    /// store's records.
    ///
    /// # Errors
    /// An unknown stage or a cycle, a file that is not there, or is another one than the published in whose place it was
    /// brought by hand, a tokenizer that a network has no room for, an unreadable store.
    pub fn new(manifest: &Manifest, base: &Path, selection: &Selection, store: &Store) -> Result<Self> {
        Self::with_remote(manifest, base, selection, store, None)
    }

    /// Plans as [`Plan::new`] does, with a remote from which to take what is not here.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn with_remote(
        manifest: &Manifest,
        base: &Path,
        selection: &Selection,
        store: &Store,
        remote: Option<Arc<Remote>>,
    ) -> Result<Self> {
        store.check()?;
        for name in selection.targets.iter().chain(&selection.force) {
            known(manifest, name)?;
        }
        let wanted = match selection.targets.as_slice() {
            [] => order(manifest)?,
            targets => {
                let needed = needed_by(manifest, targets)?;
                order(manifest)?
                    .into_iter()
                    .filter(|name| needed.contains(name))
                    .collect()
            }
        };
        let forced: HashSet<&str> = selection.force.iter().map(String::as_str).collect();
        if let Some(name) = selection.force.first()
            && !wanted.iter().any(|name| forced.contains(name))
        {
            return Err(
                Error::input(format!("`{name}` is to be forced, but no target needs it")).hint(format!(
                    "name it as a target too, `--target {name}`, or leave `--force {name}` out"
                )),
            );
        }
        let mut plan = Self {
            pipeline: manifest.name.clone(),
            base: base.to_owned(),
            stages: Vec::new(),
            past: Arc::new(Past::new(manifest.stages.keys().cloned())),
            remote,
            notes: vec![],
        };
        let known = Known::open(store.known_files_path());
        let mut places: HashMap<&str, usize> = HashMap::with_capacity(wanted.len());
        for name in wanted {
            let stage = manifest.stages[name].clone();
            let in_stage = || format!("stage `{name}`");
            let mut parts = key::parts(&stage, manifest.seed).context(in_stage)?;
            let piped = plan.piped_before(name, stage.kind(), &parts.files, &selection.piped, store)?;
            let (files, observed, left_out) = match read_files(base, &parts.files, &piped, &known) {
                Ok((files, observed, left_out)) => (files, Some(observed), Some(left_out)),
                Err(error) => match plan.last_files(name, stage.kind(), &parts.files, store)? {
                    Some(files) if selection.allow_missing => (files, None, None),
                    Some(_) => {
                        let error = error.or_hint("`--allow-missing` goes by what the last run read");
                        return Err(error).context(in_stage);
                    }
                    None => return Err(error).context(in_stage),
                },
            };
            let files: Vec<ExternalFile> = files.into_iter().chain(parts.known.iter().cloned()).collect();
            key::name_forms(
                &stage,
                files.iter().map(|file: &ExternalFile| file.path.as_str()),
                &mut parts.config,
            );
            let inputs = stage
                .references()
                .iter()
                .filter_map(|reference| {
                    Some(Input {
                        role: reference.field,
                        index: *places.get(reference.stage)?,
                    })
                })
                .collect();
            places.insert(name, plan.stages.len());
            plan.stages.push(PlannedStage {
                name: name.to_owned(),
                seed: key::seed(&stage, manifest.seed),
                inputs,
                files,
                decision: Decision::Run {
                    key: None,
                    reasons: vec![Reason::NeverRan],
                },
                lacks: Vec::new(),
                parts,
                forced: forced.contains(name),
                wanted: false,
                needed_by: None,
                known: None,
                unfetchable: false,
                observed,
                left_out,
                piped,
                stage,
            });
        }
        known.save();
        if !selection.allow_missing {
            plan.want(&selection.targets);
        }
        for index in 0..plan.stages.len() {
            plan.decide(index, store)?;
        }
        plan.demand(store)?;
        if !selection.allow_missing {
            plan.foresee(store)?;
        }
        Ok(plan)
    }

    /// Takes note of which stages are wanted for their own sake: the targets, or those that nothing consumes.
    fn want(&mut self, targets: &[String]) {
        let consumed: HashSet<usize> = self
            .stages
            .iter()
            .flat_map(|stage| stage.inputs.iter().map(|input| input.index))
            .collect();
        let named: HashSet<&String> = targets.iter().collect();
        for (index, stage) in self.stages.iter_mut().enumerate() {
            stage.wanted = if targets.is_empty() {
                !consumed.contains(&index)
            } else {
                named.contains(&stage.name)
            };
        }
    }

    /// Decides anew what becomes of stages that are away and whose consumers run, from the last to the first.
    fn demand(&mut self, store: &Store) -> Result<()> {
        let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); self.stages.len()];
        for (consumer, stage) in self.stages.iter().enumerate() {
            for input in &stage.inputs {
                consumers[input.index].push(consumer);
            }
        }
        for index in (0..self.stages.len()).rev() {
            if !matches!(self.stages[index].decision, Decision::Away(_)) {
                continue;
            }
            let mut consumers = consumers[index].iter().map(|&consumer| &self.stages[consumer]);
            let runs = consumers.find(|stage| matches!(stage.decision, Decision::Run { .. }));
            if let Some(name) = runs.map(|stage| stage.name.clone()) {
                self.need(index, Some(name));
                self.decide(index, store)?;
            }
        }
        Ok(())
    }

    /// Says which stage needs the files of another one; [`Plan::decide`] goes by it.
    pub fn need(&mut self, index: usize, by: Option<String>) {
        self.stages[index].needed_by = by;
    }

    /// Says that the remote does not have what its record tells of; [`Plan::decide`] goes by it.
    pub fn refuse(&mut self, index: usize) {
        self.stages[index].unfetchable = true;
    }

    /// What the store knew when the plan was made.
    #[must_use]
    pub fn past(&self) -> &Past {
        &self.past
    }

    /// What is worth saying of the plan: what it goes by where nothing comes through a pipe.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The remote, where there is one.
    #[must_use]
    pub fn remote(&self) -> Option<&Arc<Remote>> {
        self.remote.as_ref()
    }

    /// What comes through the pipes that a stage names; where nothing comes, what came for its last run, if the store has
    /// it.
    fn piped_before(
        &mut self,
        name: &str,
        kind: StageKind,
        references: &[FileReference],
        now: &[Piped],
        store: &Store,
    ) -> Result<Vec<Piped>> {
        let mut all = now.to_vec();
        let pipes = references
            .iter()
            .filter(|reference| reference.takes_pipes)
            .flat_map(|reference| &reference.patterns)
            .filter(|pattern| {
                files::is_open_file(pattern) && now.iter().all(|piped| piped.name != **pattern)
            });
        let pipes: Vec<_> = pipes.collect();
        if pipes.is_empty() {
            return Ok(all);
        }
        let last = self.last_files(name, kind, references, store)?;
        for pipe in pipes {
            let last = last.iter().flatten().find(|file| file.path == *pipe);
            if let Some(file) = last
                && let Some(path) = store.piped(&file.digest)
            {
                self.notes.push(format!(
                    "`{name}` goes by what came through `{pipe}` for its last run: nothing comes now"
                ));
                all.push(Piped {
                    name: pipe.clone(),
                    path: Some(path),
                    bytes: file.bytes,
                    digest: file.digest,
                });
            }
        }
        Ok(all)
    }

    /// The files that the stage's last run read, if it read those that are asked for.
    fn last_files(
        &self,
        name: &str,
        kind: StageKind,
        references: &[FileReference],
        store: &Store,
    ) -> Result<Option<Vec<ExternalFile>>> {
        let past = self.past.of(kind.name(), store)?;
        let newest = past
            .own(name)
            .filter(|record| record.provenance.pipeline == self.pipeline)
            .max_by_key(|record| &record.provenance.started);
        let last = store
            .latest(&self.pipeline, name)
            .filter(|record| record.key.kind == kind.name());
        let Some(record) = last.as_ref().or(newest) else {
            return Ok(None);
        };
        let files = &record.provenance.files;
        for file in files {
            let Some(reference) = references.iter().find(|reference| reference.field == file.field) else {
                return Ok(None);
            };
            if !are_named(&reference.patterns, &file.path) {
                return Ok(None);
            }
        }
        Ok((!files.is_empty()).then(|| files.clone()))
    }

    /// Decides what becomes of a stage, given what became of those it consumes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn decide(&mut self, index: usize, store: &Store) -> Result<()> {
        let stage = &self.stages[index];
        let mut inputs = IndexMap::new();
        let mut reasons = Vec::new();
        for input in &stage.inputs {
            let other = &self.stages[input.index];
            match other.expected() {
                Some(artifact) => drop(inputs.insert(input.role.to_owned(), artifact)),
                None => reasons.push(Reason::UpstreamRuns {
                    stage: other.name.clone(),
                }),
            }
        }
        // A stage consumed in two roles is one reason.
        reasons.dedup();
        let complete = reasons.is_empty();
        let key = stage.key(inputs);
        let mut run = |mut more: Vec<Reason>| {
            // A changed setting says more than that something upstream runs.
            more.append(&mut reasons);
            Decision::Run {
                key: complete.then(|| Box::new(key.clone())),
                reasons: more,
            }
        };
        let needed = stage.wanted || stage.needed_by.is_some();
        let away = || Reason::Away {
            needed_by: stage.needed_by.clone(),
        };
        let mut found = complete.then(|| store.lookup(&key)).transpose()?;
        if matches!(found, Some(Lookup::Absent))
            && !stage.forced
            && let Some(record) = lacks::stand_in(&stage.stage, &key, &self.past, store)?
        {
            found = Some(Lookup::Hit(record));
        }
        let remote = match &found {
            Some(Lookup::Hit(_)) | None => None,
            Some(_) if stage.unfetchable || stage.forced => None,
            Some(_) => self.remote.as_ref().and_then(|remote| remote.find(&key)),
        };
        let decision = match found {
            _ if stage.forced => run(vec![Reason::Forced]),
            Some(Lookup::Hit(record)) => Decision::Cached(record),
            Some(_) if remote.is_some() => match remote {
                Some(record) if needed => Decision::Fetch(Box::new(record)),
                Some(record) => Decision::Away(Box::new(record)),
                None => run(vec![Reason::NeverRan]),
            },
            Some(Lookup::Away(_)) if needed => run(vec![away()]),
            Some(Lookup::Away(record)) => Decision::Away(record),
            Some(Lookup::Damaged(what)) => run(vec![Reason::Damaged { what }]),
            Some(Lookup::Absent) => run(self
                .changes(stage, &key, store)?
                .unwrap_or_else(|| vec![Reason::NeverRan])),
            None => match self.changes(stage, &key, store)? {
                Some(changes) => run(changes),
                None => Decision::Run {
                    key: None,
                    reasons: vec![Reason::NeverRan],
                },
            },
        };
        self.set(index, decision);
        let stage = &self.stages[index];
        self.stages[index].lacks = match &stage.decision {
            Decision::Cached(record) => lacks::of(stage, record, store),
            _ => Vec::new(),
        };
        Ok(())
    }

    /// Takes note of what a stage has made.
    pub fn settle(&mut self, index: usize, record: Record) {
        self.set(index, Decision::Cached(Box::new(record)));
    }

    fn set(&mut self, index: usize, decision: Decision) {
        let stage = &mut self.stages[index];
        stage.decision = decision;
        if let Some(record) = stage.record() {
            stage.known = Some((record.key.digest(), record.artifact));
        }
    }

    /// Whether the stage is to run even when it is cached.
    #[must_use]
    pub fn is_forced(&self, index: usize) -> bool {
        self.stages[index].forced
    }

    /// Where a stage's inputs come from, once all of them are known.
    #[must_use]
    pub fn origins(&self, index: usize) -> Vec<InputOrigin> {
        let origin = |input: &Input| {
            let other = &self.stages[input.index];
            let record = other.record()?;
            Some(InputOrigin {
                role: input.role.to_owned(),
                stage: other.name.clone(),
                kind: other.kind().name().to_owned(),
                key: record.key.digest(),
                artifact: record.artifact,
            })
        };
        self.stages[index].inputs.iter().filter_map(origin).collect()
    }

    /// Checks that the files that a stage has read are those that were hashed. `consumed` is what it has read of them.
    ///
    /// A file that was read from start to end is known by the digest of what was read. Of one that was read in part, or by
    /// a stage that takes no note of it, that it looks as it did is enough (length, times, inode, device); else it has to
    /// hold what it held, and what was read of it.
    ///
    /// # Errors
    /// An input error when one of them changed meanwhile.
    pub fn check_files(&self, index: usize, consumed: &[(PathBuf, Consumed)]) -> Result<()> {
        let stage = &self.stages[index];
        let Some(observed) = &stage.observed else {
            // What is not here cannot have been read: the stage itself says so.
            return Ok(());
        };
        let changed = |what: String| {
            Error::input(format!("{what} while the stage was reading it"))
                .hint("run again when nobody writes to it")
        };
        let (found, ..) = find_files(&self.base, &stage.parts.files, &stage.piped)?;
        let paths = found.iter().map(|(_, file)| &file.path);
        if paths.ne(observed.iter().map(|file| &file.path)) {
            return Err(changed("the list of files changed".to_owned()));
        }
        for ((then, file), (_, now)) in observed.iter().zip(&stage.files).zip(&found) {
            let consumed = consumed.iter().find(|(path, _)| *path == then.path);
            let consumed = consumed.map(|(_, consumed)| consumed);
            if let Some(digest) = consumed.and_then(|consumed| consumed.digest(file.bytes)) {
                if digest != file.digest {
                    return Err(changed(format!("`{}` changed", file.path)));
                }
                continue;
            }
            if now.look == then.look && then.settled {
                continue;
            }
            // A new time alone is no new content: a file may be touched.
            if hash_file(&then.path)? != (file.bytes, file.digest)
                || !consumed.map_or(Ok(true), |consumed| consumed.is_in(&then.path))?
            {
                return Err(changed(format!("`{}` changed", file.path)));
            }
        }
        Ok(())
    }

    /// What changed in a key since the stage was last run or served; nothing when there is nothing to compare with.
    /// Inputs that are not in the key, because they are not known yet, are left out.
    fn changes(&self, stage: &PlannedStage, key: &Key, store: &Store) -> Result<Option<Vec<Reason>>> {
        let names: IndexMap<&str, &str> = stage
            .inputs
            .iter()
            .map(|input| (input.role, self.stages[input.index].name.as_str()))
            .collect();
        let compare = |record: &Record| reason::compare(record, key, &stage.files, &names);
        if let Some(record) = store
            .latest(&self.pipeline, &stage.name)
            .filter(|r| r.key.kind == key.kind)
        {
            return Ok(Some(compare(&record)));
        }
        // Without a note of the last key: the newest run of this stage, else (the stage or the pipeline was renamed) the
        // run that differs least, unless it is another stage's.
        let past = self.past.of(&key.kind, store)?;
        let newest = past
            .own(&stage.name)
            .filter(|record| record.provenance.pipeline == self.pipeline)
            .max_by_key(|record| &record.provenance.started);
        if let Some(record) = newest {
            return Ok(Some(compare(record)));
        }
        // What another pipeline ran explains something where both have learnt from the same.
        let related = |record: &&Record| {
            record.provenance.pipeline == self.pipeline || have_common_content(&record.key, key)
        };
        // What is yet to be made will hardly be what another stage had read: it counts as changed, so that a plan does not
        // name a run that the run itself will find too far off.
        let open = stage.inputs.len().saturating_sub(key.inputs.len());
        let mut nearest: Option<(Vec<Reason>, &Record)> = None;
        let mut most = NEAR.saturating_sub(open);
        for record in past.own_and_strangers(&stage.name).filter(related) {
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
            let less = reasons.len().checked_sub(1);
            nearest = Some((reasons, record));
            let Some(less) = less else { break };
            most = most.min(less);
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

/// A run under another name that differs in more parts than these explains nothing.
const NEAR: usize = 2;

fn known(manifest: &Manifest, name: &str) -> Result<()> {
    if manifest.stages.contains_key(name) {
        return Ok(());
    }
    Err(unknown(manifest, name))
}

/// That a manifest has no such stage, with those it may have meant: of a swept one its own name, and its instances
/// where one of them was asked for.
#[must_use]
pub fn unknown(manifest: &Manifest, name: &str) -> Error {
    let written = |name: &str| name.split_once('@').map_or(name, |(stage, _)| stage).to_owned();
    let mut stages: Vec<String> = manifest.stages.keys().map(|name| written(name)).collect();
    stages.dedup();
    let instances: Vec<String> = match name.split_once('@') {
        Some((stage, _)) => manifest
            .stages
            .keys()
            .filter(|other| other.starts_with(&format!("{stage}@")))
            .cloned()
            .collect(),
        None => vec![],
    };
    let known = if instances.is_empty() { &stages } else { &instances };
    let nearest = known
        .iter()
        .map(|other| (strsim::damerau_levenshtein(name, other), other))
        .min()
        .filter(|(distance, _)| *distance <= 2.max(name.chars().count() / 3));
    let hint = match (nearest, instances.len()) {
        (Some((_, other)), _) => format!("did you mean `{other}`?"),
        (None, 0) => format!("the stages are {}", named(&stages)),
        (None, _) => format!("its instances are {}", named(&instances)),
    };
    Error::input(format!("`{}` has no stage `{name}`", manifest.name)).hint(hint)
}

/// Names for a hint; of many the first.
#[must_use]
pub fn named<T: std::fmt::Display>(names: &[T]) -> String {
    const NAMED: usize = 12;
    let mut told: Vec<_> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    if names.len() > NAMED {
        told.push(format!("and {} more", names.len() - NAMED));
    }
    told.join(", ")
}

/// The names of all stages, each after those it consumes; among those that could be next, in the manifest's order.
///
/// # Errors
/// An unknown stage or a cycle.
pub fn order(manifest: &Manifest) -> Result<Vec<&str>> {
    let consumed: Vec<Vec<usize>> = manifest
        .stages
        .values()
        .map(|stage| {
            let references = stage.references();
            let place = |name: &str| manifest.stages.get_index_of(name).unwrap_or(usize::MAX);
            references
                .iter()
                .map(|reference| place(reference.stage))
                .collect()
        })
        .collect();
    let order::Order {
        ordered, circular, ..
    } = order::order(&consumed);
    let name = |index: &usize| {
        let stage = manifest.stages.get_index(*index);
        stage.map_or("", |(name, _)| name.as_str())
    };
    if circular.is_empty() {
        return Ok(ordered.iter().map(name).collect());
    }
    for name in circular.iter().map(name) {
        for reference in manifest.stages[name].references() {
            known(manifest, reference.stage).context(|| format!("stage `{name}`"))?;
        }
    }
    let names: Vec<_> = circular
        .iter()
        .map(|index| format!("`{}`", name(index)))
        .collect();
    Err(Error::input(format!(
        "order the stages: {} form a cycle",
        names.join(", ")
    )))
}

/// The stages that are wanted: those that `targets` need, themselves included; all where there is no target.
///
/// # Errors
/// An unknown stage.
pub fn wanted<'a>(manifest: &'a Manifest, targets: &'a [String]) -> Result<HashSet<&'a str>> {
    if targets.is_empty() {
        return Ok(manifest.stages.keys().map(String::as_str).collect());
    }
    needed_by(manifest, targets)
}

/// The stages that `targets` need, themselves included.
fn needed_by<'a>(manifest: &'a Manifest, targets: &'a [String]) -> Result<HashSet<&'a str>> {
    let mut needed: HashSet<&str> = HashSet::new();
    let mut open: Vec<&str> = targets.iter().map(String::as_str).collect();
    while let Some(name) = open.pop() {
        known(manifest, name)?;
        if needed.insert(name) {
            open.extend(
                manifest.stages[name]
                    .references()
                    .iter()
                    .map(|reference| reference.stage),
            );
        }
    }
    Ok(needed)
}

/// Whether a file that was read is one that the patterns of now name.
fn are_named(patterns: &[String], path: &str) -> bool {
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::new()
    };
    patterns.iter().any(|pattern| {
        let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
        Path::new(pattern).components().eq(Path::new(path).components())
            || glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_with(path, options))
    })
}

/// Files, each with the field that names it, how they look now, and what is left out of them.
type FoundFiles = (Vec<(&'static str, Found)>, Vec<Observed>, LeftOut);

/// The files that fields name, in order, and how they look now.
fn find_files(base: &Path, references: &[FileReference], piped: &[Piped]) -> Result<FoundFiles> {
    let mut all = Vec::new();
    let mut left_out = LeftOut::default();
    let at = SystemTime::now();
    for reference in references {
        let named = Named {
            files: &reference.patterns,
            exclude: &reference.exclude,
            piped: reference.takes_pipes.then_some(piped),
        };
        let found = files::expand(base, named)
            .map_err(|error| match shell_words(&reference.patterns) {
                Some(hint) => error.or_hint(&hint),
                None => error,
            })
            .context(|| format!("`{}`", reference.field.replace('/', ".")))?;
        all.extend(found.files.into_iter().map(|file| (reference.field, file)));
        left_out.and(found.left_out);
    }
    let observed = all.iter().map(|(_, file)| Observed {
        path: file.path.clone(),
        settled: file.look.is_settled(at),
        look: file.look.clone(),
    });
    let observed = observed.collect();
    Ok((all, observed, left_out))
}

/// What to write in place of what a shell would have put into a path.
fn shell_words(patterns: &[String]) -> Option<String> {
    let home = std::env::var("HOME").ok().filter(|home| !home.is_empty());
    for pattern in patterns {
        if let Some(rest) = pattern.strip_prefix("~/") {
            let path = home.map_or_else(|| format!("/home/NAME/{rest}"), |home| format!("{home}/{rest}"));
            return Some(format!("a manifest knows no `~`: write `{path}`"));
        }
        let is_variable = pattern.contains("${")
            || pattern
                .split('$')
                .skip(1)
                .any(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
            || pattern.starts_with('%') && pattern.matches('%').count() > 1;
        if is_variable {
            return Some(
                "a manifest reads no variables of the environment: write the path, or give it when you run, \
                 `--set \"stages.STAGE.input.files.0=$HOME/…\"`, where the shell fills it in"
                    .to_owned(),
            );
        }
    }
    None
}

fn read_files(
    base: &Path,
    references: &[FileReference],
    piped: &[Piped],
    known: &Known,
) -> Result<(Vec<ExternalFile>, Vec<Observed>, LeftOut)> {
    // Looked at before they are read: a change during the reading shows up as one after it.
    let (found, observed, left_out) = find_files(base, references, piped)?;
    let files = found
        .par_iter()
        .map(|(field, file)| {
            let from = piped.iter().find(|piped| piped.name == file.name);
            let (bytes, digest) = match from {
                Some(piped) => (piped.bytes, piped.digest),
                None => known.hash(&file.path)?,
            };
            Ok(ExternalFile {
                field: (*field).to_owned(),
                path: file.name.clone(),
                bytes,
                digest,
            })
        })
        .collect::<Result<_>>()?;
    Ok((files, observed, left_out))
}
