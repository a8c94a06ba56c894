//! From a manifest to a plan: the stages in an order in which they can run, each with its cache key and, if it has to
//! run, the reasons.
//!
//! The table of [`crate::stages::key`] lists what is part of a key and what is not; the key itself is
//! [`crate::store::Key`]. A key names its inputs by content. So the key of a stage is known only when the artifacts of
//! its inputs are known: for a stage behind one that has to run, the plan says "`rows` runs" and nothing more. The
//! executor asks again ([`Plan::decide`]) when the inputs exist. If the upstream stage made the same artifact as
//! before, the key is an old one and the rerun ends there. Packed rows are identified by their content: in another
//! format or with another shard size they are the same ([`Record::consumed`]).
//!
//! A plan is a value: what it is decided by, the store and the remote, is passed in ([`Sources`]), and the executor keeps
//! it.
//!
//! `mdlm plan` and `mdlm run` make the same plan: a dry run cannot differ from a run.
//!
//! An action record is enough for planning, even without its artifact: the keys of the consumers use only the
//! artifact's digest. So a stage whose files are missing here ([`Decision::Away`]) is made or fetched only if a stage
//! that runs consumes it, or if it is itself wanted: it is a target, or no stage consumes it. With
//! [`Selection::allow_missing`] no stage is wanted, and for missing files outside the store the plan takes the digests
//! of the last run. So a checkout of manifests and records alone can be planned.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use crate::data::files::{LeftOut, Piped};
use crate::error::{Context as _, Error, Result};
use crate::manifest::{Manifest, Stage, StageKind};
use crate::stages;
use crate::stages::key::{self, Parts};
use crate::stages::table::check_cells;
use crate::store::stat::ChecksumCache;
use crate::store::{Digest, ExternalFile, InputOrigin, Key, Lookup, Record};

mod changes;
pub mod estimate;
mod facts;
mod figures;
mod files;
mod foresee;
mod graph;
mod lacks;
mod nearest;
pub mod reason;
pub mod resume;
mod setting;
mod sources;

use files::{Observed, read_files};
use graph::{known, needed_by};

pub use foresee::Needed;
pub use graph::{named, order, unknown, wanted};
pub use reason::{FileChange, Reason};
pub use sources::{OfKind, Sources};

/// What a plan is made for.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The stages that are wanted, with all that they need; all stages when empty.
    pub targets: Vec<String>,
    /// Stages that run even when they are cached.
    pub force: Vec<String>,
    /// Whether a stage counts as done if only its record is here, not its files.
    pub allow_missing: bool,
    /// What has come through pipes.
    pub piped: Vec<Piped>,
    /// The manifest's file, where it is one: by it the pipeline is known in the store's records.
    pub manifest: Option<PathBuf>,
}

/// A manifest made ready to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Folder of the manifest.
    pub base: PathBuf,
    /// Where the manifest lies, seen from the store ([`crate::store::Store::place`]); nothing where it is not a file.
    pub place: Option<String>,
    /// The stages, each after those it consumes.
    pub stages: Vec<PlannedStage>,
    /// Notes for the user.
    notes: Vec<String>,
}

/// A stage in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedStage {
    /// Its name in the manifest.
    pub name: String,
    /// Its settings.
    pub stage: Stage,
    /// The effective seed.
    pub seed: u64,
    /// The stages that it consumes.
    pub inputs: Vec<StageInput>,
    /// The files outside the store that it reads.
    pub files: Vec<ExternalFile>,
    /// What happens to it.
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
    /// The last key for which its artifact was known, and what its consumers' keys have of that. While it is made again
    /// their keys stand.
    known: Option<(Digest, Digest)>,
    /// The remote has its record but not its files.
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
pub struct StageInput {
    /// The field that names it: [`crate::manifest::Reference::field`].
    pub role: &'static str,
    /// Its place in [`Plan::stages`].
    pub index: usize,
}

/// What happens to a stage.
#[derive(Clone, Debug, PartialEq)]
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

    /// What its consumers' keys have of its artifact, also while that is made again from what it was made of.
    fn expected(&self) -> Option<Digest> {
        match (&self.decision, &self.known) {
            (Decision::Run { key: Some(key), .. }, Some((known, consumed)))
                if !self.forced && key.digest() == *known =>
            {
                Some(*consumed)
            }
            _ => self.record().map(Record::consumed),
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
    #[expect(clippy::too_many_lines, reason = "a stage of the plan, part by part")]
    pub fn new(manifest: &Manifest, base: &Path, selection: &Selection, sources: &Sources) -> Result<Self> {
        let store = sources.store;
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
            return Err(Error::input(format!(
                "`--force {name}` has no effect: no target needs `{name}`"
            ))
            .hint(format!(
                "name it as a target too, `--target {name}`, or leave `--force {name}` out"
            )));
        }
        let mut plan = Self {
            pipeline: manifest.name.clone(),
            base: base.to_owned(),
            place: selection.manifest.as_ref().map(|path| store.place(path)),
            stages: Vec::new(),
            notes: vec![],
        };
        let known = ChecksumCache::open(store.known_files_path());
        let mut places: HashMap<&str, usize> = HashMap::with_capacity(wanted.len());
        for name in wanted {
            let mut stage = manifest.stages[name].clone();
            if let Some(results) = stage.collected() {
                plan.describe(results);
            }
            let in_stage = || format!("stage `{name}`");
            if let Stage::Table(table) = &stage {
                check_cells(table).context(in_stage)?;
            }
            let mut parts = key::parts(&stage, manifest.seed).context(in_stage)?;
            let piped = plan.piped_before(name, stage.kind(), &parts.files, &selection.piped, sources)?;
            let (files, observed, left_out) = match read_files(base, &parts.files, &piped, &known) {
                Ok((files, observed, left_out)) => (files, Some(observed), Some(left_out)),
                Err(error) => match plan.last_files(name, stage.kind(), &parts.files, sources)? {
                    Some(files) if selection.allow_missing => (files, None, None),
                    Some(_) => {
                        let error =
                            error.or_hint("`--allow-missing` uses the files' digests of the last run");
                        return Err(error).context(in_stage);
                    }
                    None => return Err(error).context(in_stage),
                },
            };
            let files: Vec<ExternalFile> = files.into_iter().chain(parts.known.iter().cloned()).collect();
            let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
            stages::state_names(&stage, &names, &mut parts.config);
            let inputs = stage
                .references()
                .iter()
                .filter_map(|reference| {
                    Some(StageInput {
                        role: reference.field,
                        index: *places.get(reference.stage)?,
                    })
                })
                .collect();
            places.insert(name, plan.stages.len());
            plan.stages.push(PlannedStage {
                name: name.to_owned(),
                seed: stage.seed(manifest.seed),
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
            plan.decide(index, sources)?;
        }
        plan.demand(sources)?;
        if !selection.allow_missing {
            plan.foresee(store)?;
        }
        Ok(plan)
    }

    /// Marks the stages that are wanted for their own sake: the targets, or those that nothing consumes.
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

    /// Decides again about stages that are away and whose consumers run, from the last to the first.
    fn demand(&mut self, sources: &Sources) -> Result<()> {
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
                self.decide(index, sources)?;
            }
        }
        Ok(())
    }

    /// Says which stage needs the files of another one; [`Plan::decide`] goes by it.
    pub fn need(&mut self, index: usize, by: Option<String>) {
        self.stages[index].needed_by = by;
    }

    /// Marks a stage whose files the remote does not have; [`Plan::decide`] then runs it.
    pub fn refuse(&mut self, index: usize) {
        self.stages[index].unfetchable = true;
    }

    /// What is worth saying of the plan: what it goes by where nothing comes through a pipe.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Decides what happens to a stage, given the decisions about the stages it consumes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn decide(&mut self, index: usize, sources: &Sources) -> Result<()> {
        let store = sources.store;
        let stage = &self.stages[index];
        let mut inputs = IndexMap::new();
        let mut reasons = Vec::new();
        for input in &stage.inputs {
            let other = &self.stages[input.index];
            match other.expected() {
                Some(consumed) => drop(inputs.insert(input.role.to_owned(), consumed)),
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
            && let Some(record) = lacks::stand_in(&stage.stage, &key, sources)?
        {
            found = Some(Lookup::Hit(record));
        }
        let remote = match &found {
            Some(Lookup::Hit(_)) | None => None,
            Some(_) if stage.unfetchable || stage.forced => None,
            Some(_) => sources.remote.and_then(|remote| remote.find(&key)),
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
                .changes(stage, &key, sources)?
                .unwrap_or_else(|| vec![resume::unfinished(&key, store).unwrap_or(Reason::NeverRan)])),
            None => match self.changes(stage, &key, sources)? {
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

    /// Records what a stage has made.
    pub fn settle(&mut self, index: usize, record: Record) {
        self.set(index, Decision::Cached(Box::new(record)));
    }

    fn set(&mut self, index: usize, decision: Decision) {
        let stage = &mut self.stages[index];
        stage.decision = decision;
        if let Some(record) = stage.record() {
            stage.known = Some((record.key.digest(), record.consumed()));
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
        let origin = |input: &StageInput| {
            let other = &self.stages[input.index];
            let record = other.record()?;
            Some(InputOrigin {
                role: input.role.to_owned(),
                stage: other.name.clone(),
                kind: other.kind().name().to_owned(),
                key: record.key.digest(),
                artifact: record.artifact,
                content: record.content,
            })
        };
        self.stages[index].inputs.iter().filter_map(origin).collect()
    }
}
