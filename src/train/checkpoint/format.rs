//! The files of a checkpoint.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::History;
use crate::disk::sync_folder;
use crate::error::{Context, Error, Kind, Result, Wrap};
use crate::kernels::adamw::Moments;
use crate::model::{Arena, Learner, Parameter, total};
use crate::train::{Log, METRICS, Watch};
use crate::weights;

/// Weights of the last step.
pub const RAW: &str = "raw.safetensors";
/// Moving average of the weights.
pub const EMA: &str = "ema.safetensors";
/// The optimizer's moments.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// The rest of the state.
pub const STATE: &str = "state.json";

/// Arena of the first moment, by PyTorch's name.
const FIRST: &str = "exp_avg";
/// Arena of the second moment.
const SECOND: &str = "exp_avg_sq";
/// Version of the format; another one is not read. 1: the first. 2: the history instead of a digest of all of it.
const FORMAT: u32 = 2;

/// Everything about a run but its weights and the optimizer's memory, which the learner has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainState {
    /// Updates done.
    pub step: u64,
    /// Metrics so far.
    pub log: Log,
}

/// `state.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StateFile {
    format: u32,
    pub(super) history: History,
    pub(super) step: u64,
    pub(super) log: Log,
    /// BLAKE3 of the other files, in hex.
    files: BTreeMap<String, String>,
}

/// Writes the state of a run as a checkpoint's files into `folder`, durably.
///
/// # Errors
/// The disk is full or not writable, or the device failed.
pub fn write(folder: &Path, learner: &dyn Learner, state: &TrainState, history: &History) -> Result<()> {
    tensors(&folder.join(RAW), learner, &[("", Arena::Weights)])?;
    tensors(&folder.join(EMA), learner, &[("", Arena::Average)])?;
    let moments = [(FIRST, Arena::FirstMoment), (SECOND, Arena::SecondMoment)];
    tensors(&folder.join(OPTIMIZER), learner, &moments)?;
    durable(&folder.join(METRICS), state.log.text.as_bytes())?;
    let mut files = BTreeMap::new();
    for name in [RAW, EMA, OPTIMIZER, METRICS] {
        files.insert(name.to_owned(), digest(&folder.join(name))?);
    }
    let record = StateFile {
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

/// Lends what [`write`] reads of a learner to the rank that calls it: on the other ranks, at the same time.
///
/// # Errors
/// The device or the exchange failed.
pub fn lend(learner: &dyn Learner) -> Result<()> {
    let mut values = vec![0.0; total(learner.network().parameters())];
    for arena in [Arena::Average, Arena::FirstMoment, Arena::SecondMoment] {
        learner.read(arena, &mut values)?;
    }
    Ok(())
}

/// Reads a checkpoint: the learner takes weights and moments, the rest is returned.
///
/// # Errors
/// The folder is incomplete or damaged, or belongs to another run.
pub fn read(folder: &Path, learner: &mut dyn Learner, history: &History) -> Result<TrainState> {
    let record = StateFile::open(folder)?;
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
    let mut log = record.log;
    log.text = fs::read_to_string(folder.join(METRICS)).context(|| format!("read `{METRICS}`"))?;
    let (then, now) = (record.history.watch(), history.watch());
    if then != now {
        log.watch_otherwise(record.step, then, now);
    }
    load(folder, learner)?;
    Ok(TrainState {
        step: record.step,
        log,
    })
}

/// The first and second moments of the parameters in the state of a run, in the flat order.
///
/// # Errors
/// The folder has none, or they are damaged.
pub fn moments(folder: &Path, parameters: &[Parameter]) -> Result<[Vec<f32>; 2]> {
    let path = folder.join(OPTIMIZER);
    Ok([
        weights::read_arena(&path, parameters, FIRST)?,
        weights::read_arena(&path, parameters, SECOND)?,
    ])
}

/// Loads weights, average and moments of a folder into a learner.
///
/// # Errors
/// A file is absent, damaged or of another network.
pub fn load(folder: &Path, learner: &mut dyn Learner) -> Result<()> {
    let parameters = learner.network().parameters().to_vec();
    let moments = Moments {
        first: weights::read_arena(&folder.join(OPTIMIZER), &parameters, FIRST)?,
        second: weights::read_arena(&folder.join(OPTIMIZER), &parameters, SECOND)?,
        ema: weights::read_arena(&folder.join(EMA), &parameters, "")?,
    };
    learner.load(&weights::read_arena(&folder.join(RAW), &parameters, "")?, moments)
}

/// Whether a folder has a state.
pub(super) fn is_state(folder: &Path) -> bool {
    folder.join(STATE).is_file()
}

impl StateFile {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let what = || format!("read `{STATE}`");
        let text = fs::read_to_string(folder.join(STATE)).context(what)?;
        let record: Self = serde_json::from_str(&text).wrap(Kind::Environment, what)?;
        if record.format == FORMAT {
            return Ok(record);
        }
        Err(Error::environment("it has another version of the format"))
    }
}

/// Which validations, of one every so many steps, a training lacks because it resumed from one that validated otherwise: a
/// lowercase fragment. Its state is in the folder `artifact`; absent where that has no state.
#[must_use]
pub fn not_validated(artifact: &Path, every: u64) -> Option<String> {
    let record = StateFile::open(artifact).ok()?;
    let rows = record.history.validation_rows;
    record.log.otherwise?.lacks(Watch { every, rows })
}

/// What identifies the state in a folder: BLAKE3 of `state.json`, which has the digests of the other files. Nothing where there
/// is none.
#[must_use]
pub fn digest_of(folder: &Path) -> Option<String> {
    digest(&folder.join(STATE)).ok()
}

/// The folder, among those of checkpoints that stay, in which a run leaves its own whose state lies in `folder` (an
/// artifact or a checkpoint). Nothing when none lies there.
#[must_use]
pub fn group_of(folder: &Path) -> Option<String> {
    Some(StateFile::open(folder).ok()?.history.group().to_owned())
}

fn durable(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = || format!("write `{}`", path.display());
    let mut file = File::create(path).context(what)?;
    file.write_all(bytes).context(what)?;
    file.sync_all().context(what)
}

fn digest(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_mmap_rayon(path)
        .context(|| format!("read `{}`", path.display()))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Writes arenas of a learner, by their names in the file.
fn tensors(path: &Path, learner: &dyn Learner, arenas: &[(&str, Arena)]) -> Result<()> {
    let names: Vec<_> = arenas.iter().map(|(name, _)| *name).collect();
    let parameters = learner.network().parameters();
    weights::write(path, parameters, &names, &[], &mut |which, values| {
        learner.read(arenas[which].1, values)
    })
}
