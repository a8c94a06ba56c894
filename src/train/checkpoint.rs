//! The state of a training run on disk, and what survives a crash.
//!
//! A checkpoint is a folder:
//!
//! | file | content |
//! |---|---|
//! | `raw.safetensors` | the weights, under the authors' names |
//! | `ema.safetensors` | their moving average, under the same names |
//! | `optimizer.safetensors` | the moments, `exp_avg/…` and `exp_avg_sq/…` before the weight's name (PyTorch's words) |
//! | `metrics.jsonl` | the metrics so far |
//! | `state.json` | step, digests of the other files, what decides the run ([`History`]) |
//!
//! Random numbers have no state (see [`crate::rng`]), and the position in the data is a function of the step: there is
//! nothing else to keep. A checkpoint is written beside its place, fsynced and renamed; `state.json` holds the digests,
//! so a folder that a crash or a disk has damaged is recognised and the one before it is taken.
//!
//! A run may go on from what another one left: a shorter one, or one that differs later on. It takes up a checkpoint
//! whose steps are those that it would have made itself, to the bit ([`History::shares`]).

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::learning_rate::learning_rate;
use super::metrics::{Log, Watch};
use crate::error::{Context, Error, Kind, Result, Wrap};
use crate::kernels::adamw::Moments;
use crate::manifest::{LearningRateSchedule, WarmupRates};
use crate::model::checkpoint::PREFIX;
use crate::model::tensors::{Reader, Writer};
use crate::model::{Arena, Learner, Parameter};

/// Weights of the last step.
pub const RAW: &str = "raw.safetensors";
/// Moving average of the weights.
pub const EMA: &str = "ema.safetensors";
/// The optimizer's moments.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// Metrics, JSON lines.
pub const METRICS: &str = "metrics.jsonl";
/// The rest of the state.
pub const STATE: &str = "state.json";

/// Arena of the first moment, by PyTorch's name.
const FIRST: &str = "exp_avg";
/// Arena of the second moment.
const SECOND: &str = "exp_avg_sq";
/// What names begin with that checkpoints are left under, by reason.
const EVERY: &str = "every-";
/// The last ones of a run.
const LAST: &str = "last-";
/// That with the best bound.
const BEST: &str = "best-";
/// Checkpoints kept: the newest, and one before it in case the newest turns out damaged.
const KEPT: usize = 2;
/// Version of the format; another one is not read. 1: the first. 2: the history instead of a digest of all of it.
const FORMAT: u32 = 2;

/// Everything about a run but its weights and the optimizer's memory, which the learner has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Updates done.
    pub step: u64,
    /// Metrics so far.
    pub log: Log,
}

/// What decides a run's states, step by step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Digest of all that decides a step and its metrics, but for the learning rate.
    pub base: String,
    /// Learning rate after warm-up.
    pub learning_rate: f64,
    /// Updates over which it rises.
    pub warmup_steps: u64,
    /// From which number they are counted.
    #[serde(default, skip_serializing_if = "is_from_one")]
    pub warmup_rates: WarmupRates,
    /// What it does then.
    pub schedule: LearningRateSchedule,
    /// Updates of the whole run.
    pub steps: u64,
    /// Steps between validations; 0 for one at the end.
    pub validation_every: u64,
    /// Rows that a validation rests on.
    #[serde(default)]
    pub validation_rows: u64,
}

fn is_from_one(rates: &WarmupRates) -> bool {
    *rates == WarmupRates::FromOne
}

impl History {
    /// When it validates.
    fn watch(&self) -> Watch {
        Watch {
            every: self.validation_every,
            rows: self.validation_rows,
        }
    }

    /// The learning rate of an update.
    fn rate(&self, update: u64) -> f64 {
        learning_rate(
            update,
            self.learning_rate,
            (self.warmup_steps, self.warmup_rates),
            self.steps,
            self.schedule,
        )
    }

    /// Whether the first `step` updates of both are the same.
    #[must_use]
    pub fn shares(&self, other: &Self, step: u64) -> bool {
        // Told from the settings where they say it: a run may have a million steps.
        let constant = self.schedule == LearningRateSchedule::Constant;
        let same = self.schedule == other.schedule
            && self.learning_rate == other.learning_rate
            && self.warmup_steps == other.warmup_steps
            && self.warmup_rates == other.warmup_rates
            && (constant || self.steps == other.steps);
        let rates = || (1..=step).all(|update| self.rate(update).to_bits() == other.rate(update).to_bits());
        self.base == other.base && step <= self.steps && step <= other.steps && (same || rates())
    }

    /// Whether it is the same run with another number of steps, which one expects to go on. A run of another learning rate
    /// has nothing to go on from, and the reason why it runs says so.
    fn is_but_for_steps(&self, other: &Self) -> bool {
        let like = Self {
            steps: other.steps,
            validation_every: other.validation_every,
            validation_rows: other.validation_rows,
            ..self.clone()
        };
        like == *other
    }

    /// The folder of all runs that have the same base.
    fn group(&self) -> &str {
        &self.base[..self.base.len().min(32)]
    }

    /// What tells runs with the same base apart, as far as any step of theirs may differ.
    fn rates(&self) -> String {
        let mut rates = self.clone();
        if rates.schedule == LearningRateSchedule::Constant {
            rates.steps = 0;
        }
        let text = serde_json::to_string(&rates).unwrap_or_default();
        blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
    }
}

/// Which checkpoints stay when their run has ended, and where. Whatever else is there stays, too.
#[derive(Clone, Debug, Default)]
pub struct Retention {
    /// The folder, which runs share.
    pub folder: PathBuf,
    /// Those of every so many steps; 0 for none.
    pub every: u64,
    /// That many of the last.
    pub last: u32,
    /// The one with the best validation bound.
    pub best: bool,
}

/// `state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    history: History,
    step: u64,
    log: Log,
    /// BLAKE3 of the other files, in hex.
    files: BTreeMap<String, String>,
}

/// Writes the state of a run as a checkpoint's files into `folder`, durably.
///
/// # Errors
/// The disk is full or not writable, or the device failed.
pub fn write(folder: &Path, learner: &dyn Learner, state: &State, history: &History) -> Result<()> {
    tensors(&folder.join(RAW), learner, &[("", Arena::Weights)])?;
    tensors(&folder.join(EMA), learner, &[("", Arena::Average)])?;
    let moments = [(FIRST, Arena::FirstMoment), (SECOND, Arena::SecondMoment)];
    tensors(&folder.join(OPTIMIZER), learner, &moments)?;
    durable(&folder.join(METRICS), state.log.text.as_bytes())?;
    let mut files = BTreeMap::new();
    for name in [RAW, EMA, OPTIMIZER, METRICS] {
        files.insert(name.to_owned(), digest(&folder.join(name))?);
    }
    let record = Record {
        format: FORMAT,
        history: history.clone(),
        step: state.step,
        log: state.log.clone(),
        files,
    };
    let mut json =
        serde_json::to_string_pretty(&record).wrap(Kind::Internal, || "write the state".to_owned())?;
    json.push('\n');
    durable(&folder.join(STATE), json.as_bytes())?;
    sync_folder(folder)
}

/// Reads a checkpoint: the learner takes weights and moments, the rest is returned.
///
/// # Errors
/// The folder is incomplete or damaged, or belongs to another run.
pub fn read(folder: &Path, learner: &mut dyn Learner, history: &History) -> Result<State> {
    let record = Record::open(folder)?;
    if !record.history.shares(history, record.step) {
        return Err(Error::environment("it belongs to another run"));
    }
    for (name, expected) in &record.files {
        // Only names of our own: a damaged record must not lead elsewhere.
        let known = [RAW, EMA, OPTIMIZER, METRICS].contains(&&**name);
        if !known || digest(&folder.join(name))? != *expected {
            return Err(Error::environment(format!("`{name}` is damaged")));
        }
    }
    let parameters = learner.network().parameters().to_vec();
    let moments = Moments {
        first: flat(&folder.join(OPTIMIZER), &parameters, FIRST)?,
        second: flat(&folder.join(OPTIMIZER), &parameters, SECOND)?,
        ema: flat(&folder.join(EMA), &parameters, "")?,
    };
    let mut log = record.log;
    log.text = fs::read_to_string(folder.join(METRICS)).context(|| format!("read `{METRICS}`"))?;
    let (then, now) = (record.history.watch(), history.watch());
    if then != now {
        log.watch_otherwise(record.step, then, now);
    }
    learner.load(&flat(&folder.join(RAW), &parameters, "")?, moments)?;
    Ok(State {
        step: record.step,
        log,
    })
}

impl Record {
    fn open(folder: &Path) -> Result<Self> {
        let what = || format!("read `{STATE}`");
        let text = fs::read_to_string(folder.join(STATE)).context(what)?;
        let record: Self = serde_json::from_str(&text).wrap(Kind::Environment, what)?;
        if record.format == FORMAT {
            return Ok(record);
        }
        Err(Error::environment("it is of another version"))
    }
}

/// What a training lacks of the validations of every so many steps, because it went on from one that had validated
/// otherwise: a lowercase fragment. Its state lies in the folder `artifact`; nothing where no state does.
#[must_use]
pub fn not_validated(artifact: &Path, every: u64) -> Option<String> {
    let record = Record::open(artifact).ok()?;
    let rows = record.history.validation_rows;
    record.log.otherwise?.lacks(Watch { every, rows })
}

/// The folder, among those of checkpoints that stay, in which a run leaves its own whose state lies in `folder` (an
/// artifact or a checkpoint). Nothing when none lies there.
#[must_use]
pub fn group_of(folder: &Path) -> Option<String> {
    Some(Record::open(folder).ok()?.history.group().to_owned())
}

/// What is not there of the checkpoints that a run was to leave, whose state lies in the folder `artifact`: each as a
/// lowercase fragment. Nothing where no state lies there.
#[must_use]
pub fn not_kept(artifact: &Path, retention: &Retention, checkpoint_every: u64) -> Vec<String> {
    let Ok(record) = Record::open(artifact) else {
        return Vec::new();
    };
    let steps = record.step;
    let keeper = Keeper::new(artifact, record.history).with_retention(retention.clone());
    let names: Vec<String> = fs::read_dir(keeper.left())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let count = |why: &str| names.iter().filter(|name| name.starts_with(why)).count() as u64;
    let mut missing = Vec::new();
    if retention.every > 0 {
        // The last state is the artifact's own.
        let due = (1..)
            .map(|number| number * retention.every)
            .take_while(|step| *step < steps);
        let there = |step: &u64| names.contains(&format!("{EVERY}{}", step_name(*step)));
        let (kept, gone): (Vec<u64>, Vec<u64>) = due.partition(there);
        if !gone.is_empty() {
            let all = kept.len() + gone.len();
            missing.push(format!(
                "of its checkpoints of every {} steps {} of {all} are kept",
                retention.every,
                kept.len()
            ));
        }
    }
    let written = steps.div_ceil(checkpoint_every.max(1));
    let last = u64::from(retention.last).min(written);
    if count(LAST) < last {
        missing.push(format!("of its last {last} checkpoints {} are kept", count(LAST)));
    }
    if retention.best && count(BEST) == 0 && record.log.validation.is_some() {
        missing.push("its best checkpoint is not kept".to_owned());
    }
    missing
}

/// The checkpoints of one run below a folder that survives crashes. The default keeps them in the current folder: for
/// steps without checkpoints.
#[derive(Clone, Debug, Default)]
pub struct Keeper {
    folder: PathBuf,
    history: History,
    earlier: Option<Vec<PathBuf>>,
    retention: Retention,
}

/// What runs have left, read once for all that look for something to go on from.
#[derive(Debug, Default)]
pub struct Left {
    /// Step, history and folder of each state, by the base of its history.
    states: HashMap<String, Vec<(u64, History, PathBuf)>>,
}

impl Left {
    /// What lies in folders that are checkpoints or that hold some.
    #[must_use]
    pub fn in_folders(folders: Vec<PathBuf>) -> Self {
        let mut left = Self::default();
        for folder in states_in(folders) {
            // What is damaged or half there is no state.
            if let Ok(Record { step, history, .. }) = Record::open(&folder) {
                let states = left.states.entry(history.base.clone()).or_default();
                states.push((step, history, folder));
            }
        }
        left
    }

    /// What trainings with the same base have left to stay.
    #[must_use]
    pub fn to_stay(folder: &Path, history: &History) -> Self {
        Self::in_folders(below(&folder.join(history.group())))
    }

    /// The step of the newest state that a run with this history would have come through itself, and that lies not in a
    /// folder of its own.
    #[must_use]
    pub fn newest(&self, history: &History, own: &Path) -> Option<u64> {
        let states = self.states.get(&history.base).into_iter().flatten();
        states
            .filter(|(_, _, folder)| folder.parent() != Some(own))
            .filter(|(step, other, _)| other.shares(history, *step))
            .map(|(step, ..)| *step)
            .max()
    }
}

/// The folders with a state: of those that are given, or in them.
fn states_in(folders: Vec<PathBuf>) -> impl Iterator<Item = PathBuf> {
    folders
        .into_iter()
        .flat_map(|folder| {
            if folder.join(STATE).is_file() {
                vec![folder]
            } else {
                below(&folder)
            }
        })
        .filter(|folder| folder.join(STATE).is_file())
}

/// What lies in a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// What a run goes on from.
#[derive(Debug, PartialEq)]
pub struct Restored {
    /// The state.
    pub state: State,
    /// Whether another run had made it.
    pub foreign: bool,
}

/// Checkpoints that a run may go on from.
#[derive(Default)]
struct Candidates {
    /// By step, ascending; whether it is the run's own; where.
    found: Vec<(u64, bool, PathBuf)>,
    /// The last step of another run that differs in nothing but the rates that it had.
    apart: Option<u64>,
    /// The last step of one that has gone further than this one is to go.
    beyond: Option<u64>,
}

impl Keeper {
    /// Keeps checkpoints below `folder`. The history tells runs apart: what another one left is taken up as far as it
    /// is the same.
    #[must_use]
    pub fn new(folder: &Path, history: History) -> Self {
        Self {
            folder: folder.to_owned(),
            history,
            earlier: None,
            retention: Retention::default(),
        }
    }

    /// Looks for what other runs have left, too: in folders that are checkpoints or that hold some, and among those
    /// that stay.
    #[must_use]
    pub fn with_earlier(mut self, folders: Vec<PathBuf>) -> Self {
        self.earlier = Some(folders);
        self
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
        step > 0 && self.retention.every > 0 && step.is_multiple_of(self.retention.every)
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

    /// Writes a checkpoint and lets go of those that are too old.
    ///
    /// # Errors
    /// The disk is full or not writable; what was there before is still there.
    pub fn save(&self, learner: &dyn Learner, state: &State) -> Result<()> {
        let what = || format!("keep a checkpoint of step {}", state.step);
        let name = step_name(state.step);
        let place = self.folder.join(&name);
        let beside = self.folder.join(format!(".{name}.new"));
        remove(&beside).context(what)?;
        fs::create_dir_all(&beside).context(what)?;
        write(&beside, learner, state, &self.history).context(what)?;
        // Only a damaged one can be here already: a run never comes twice to the same step otherwise.
        remove(&place).context(what)?;
        fs::rename(&beside, &place).context(what)?;
        sync_folder(&self.folder).context(what)?;
        if self.stays(state.step) {
            self.leave(state.step, EVERY).context(what)?;
        }
        self.clear()?;
        let kept = self.list()?;
        for (_, old) in kept.iter().take(kept.len().saturating_sub(KEPT)) {
            remove(old).context(what)?;
        }
        if self.retention.last > 0 {
            self.leave(state.step, LAST).context(what)?;
            self.drop_all_but(LAST, self.retention.last as usize)
                .context(what)?;
        }
        Ok(())
    }

    /// Takes note that the checkpoint of a step has the best validation bound so far.
    ///
    /// # Errors
    /// The disk is full or not writable.
    pub fn note_best(&self, step: u64) -> Result<()> {
        let what = || format!("keep the checkpoint of step {step}");
        self.leave(step, BEST).context(what)?;
        self.drop_all_but(BEST, 1).context(what)
    }

    /// Leaves the checkpoint of a step for other runs, under a reason.
    fn leave(&self, step: u64, why: &str) -> Result<()> {
        let folder = self.left();
        let name = format!("{why}{}", step_name(step));
        let (from, place) = (self.folder.join(step_name(step)), folder.join(&name));
        // It is there: the same run came here before, or one whose steps are the same. There is nothing to leave: the
        // run began at this step, from what another one left.
        if place.exists() || !from.exists() {
            return Ok(());
        }
        let what = || format!("write `{}`", place.display());
        let beside = folder.join(format!(".{name}.{}", std::process::id()));
        remove(&beside).context(what)?;
        fs::create_dir_all(&beside).context(what)?;
        for file in [RAW, EMA, OPTIMIZER, METRICS, STATE] {
            let (from, to) = (from.join(file), beside.join(file));
            // Nobody writes to a checkpoint that has its name: one file may serve both.
            if fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to).context(what)?;
                File::open(&to).and_then(|file| file.sync_all()).context(what)?;
            }
        }
        sync_folder(&beside)?;
        match fs::rename(&beside, &place) {
            // Somebody was quicker.
            Err(_) if place.exists() => remove(&beside).context(what)?,
            other => other.context(what)?,
        }
        sync_folder(&folder)
    }

    /// Removes all but the newest checkpoints that were left under a reason.
    fn drop_all_but(&self, why: &str, count: usize) -> Result<()> {
        let folder = self.left();
        let what = || format!("look for checkpoints in `{}`", folder.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).context(what)? {
            let name = entry.context(what)?.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(why)) {
                names.push(name);
            }
        }
        names.sort();
        for name in &names[..names.len().saturating_sub(count)] {
            remove(&folder.join(name)).context(what)?;
        }
        Ok(())
    }

    /// Where this run leaves checkpoints.
    fn left(&self) -> PathBuf {
        self.retention
            .folder
            .join(self.history.group())
            .join(self.history.rates())
    }

    /// Takes up the newest checkpoint that is whole, and removes what a crash left half-written. Of each one that had
    /// to be passed over, `skipped` hears why.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn restore(
        &self,
        learner: &mut dyn Learner,
        skipped: &mut dyn FnMut(String),
    ) -> Result<Option<Restored>> {
        self.clear()?;
        let Candidates { found, apart, beyond } = self.candidates()?;
        for (step, own, folder) in found.into_iter().rev() {
            let of = if own {
                String::new()
            } else {
                format!(" of an earlier run, `{}`,", folder.display())
            };
            match read(&folder, learner, &self.history) {
                Ok(mut state) if state.step == step => {
                    if state.step < self.history.steps {
                        state.log.forget_last_validation(self.history.validation_every);
                    }
                    return Ok(Some(Restored { state, foreign: !own }));
                }
                Ok(_) => skipped(format!("the checkpoint of step {step}{of} is of another step")),
                Err(error) => skipped(format!(
                    "the checkpoint of step {step}{of} cannot be used: {error}"
                )),
            }
        }
        if let Some(step) = apart {
            skipped(format!(
                "begins anew: an earlier run has a checkpoint of step {step}, but other learning rates before it (with \
                 the schedule `cosine` they depend on `steps`)"
            ));
        } else if let Some(step) = beyond {
            skipped(format!(
                "begins anew: an earlier run has gone on to step {step} and has left no checkpoint of step {} or before \
                 (`keep_checkpoints`)",
                self.history.steps
            ));
        }
        Ok(None)
    }

    /// The step that [`Keeper::restore`] would go on from, as far as names and histories tell; changes nothing.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn newest(&self) -> Result<Option<u64>> {
        Ok(self.list()?.last().map(|(step, _)| *step))
    }

    /// What there is to go on from.
    fn candidates(&self) -> Result<Candidates> {
        let own = self.list()?.into_iter();
        let mut all = Candidates {
            found: own.map(|(step, folder)| (step, true, folder)).collect(),
            ..Candidates::default()
        };
        for folder in self.foreign() {
            // What is damaged or half there is none of this run's business.
            let Ok(record) = Record::open(&folder) else {
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

    /// The checkpoints of other runs, whole or not.
    fn foreign(&self) -> Vec<PathBuf> {
        let Some(mut folders) = self.earlier.clone() else {
            return Vec::new();
        };
        if !self.retention.folder.as_os_str().is_empty() {
            folders.extend(below(&self.retention.folder.join(self.history.group())));
        }
        states_in(folders)
            .filter(|folder| folder.parent() != Some(&self.folder))
            .collect()
    }

    /// Removes what a crash left half-written.
    fn clear(&self) -> Result<()> {
        let what = || format!("look for checkpoints in `{}`", self.folder.display());
        if !self.folder.exists() {
            return Ok(());
        }
        for entry in fs::read_dir(&self.folder).context(what)? {
            let entry = entry.context(what)?;
            if entry.file_name().to_string_lossy().starts_with(".step-") {
                remove(&entry.path()).context(what)?;
            }
        }
        Ok(())
    }

    /// Checkpoints by step, ascending.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>> {
        let what = || format!("look for checkpoints in `{}`", self.folder.display());
        let mut found = Vec::new();
        if !self.folder.exists() {
            return Ok(found);
        }
        for entry in fs::read_dir(&self.folder).context(what)? {
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
}

/// Names sort as steps do.
fn step_name(step: u64) -> String {
    format!("step-{step:08}")
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn durable(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = || format!("write `{}`", path.display());
    let mut file = File::create(path).context(what)?;
    file.write_all(bytes).context(what)?;
    file.sync_all().context(what)
}

fn sync_folder(folder: &Path) -> Result<()> {
    // A directory can be opened and synced on Unix alone; elsewhere the rename is as durable as the system makes it.
    #[cfg(unix)]
    File::open(folder)
        .and_then(|f| f.sync_all())
        .context(|| format!("write `{}`", folder.display()))?;
    Ok(())
}

fn digest(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_mmap_rayon(path)
        .context(|| format!("read `{}`", path.display()))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Writes arenas of a learner as tensors `NAME/backbone.PARAMETER`; that of the weights has no name. One is in memory at a
/// time.
fn tensors(path: &Path, learner: &dyn Learner, arenas: &[(&str, Arena)]) -> Result<()> {
    let parameters = learner.network().parameters();
    let names: Vec<_> = arenas
        .iter()
        .flat_map(|(arena, _)| {
            parameters
                .iter()
                .map(|own| (tensor_name(arena, own), own.dims.clone()))
        })
        .collect();
    let mut values = vec![0.0; parameters.iter().map(Parameter::len).sum()];
    let mut writer = Writer::create(path, &names, &[("format", "pt")])?;
    for (_, arena) in arenas {
        learner.read(*arena, &mut values)?;
        writer.append(&values)?;
    }
    writer.finish()
}

/// Reads an arena into the flat order.
fn flat(path: &Path, parameters: &[Parameter], arena: &str) -> Result<Vec<f32>> {
    let mut reader = Reader::open(path)?;
    let mut values = vec![0.0; parameters.iter().map(Parameter::len).sum()];
    for own in parameters {
        let name = tensor_name(arena, own);
        if reader.info(&name).is_none_or(|info| info.shape != own.dims) {
            return Err(Error::environment(format!(
                "`{}` has no tensor `{name}` {:?}",
                path.display(),
                own.dims
            )));
        }
        reader.floats(&name, 0, &mut values[own.offset..][..own.len()])?;
    }
    Ok(values)
}

fn tensor_name(arena: &str, parameter: &Parameter) -> String {
    let slash = if arena.is_empty() { "" } else { "/" };
    format!("{arena}{slash}{PREFIX}{}", parameter.name)
}
