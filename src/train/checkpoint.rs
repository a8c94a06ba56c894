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
//! | `state.json` | step, digests of the other files, fingerprint of the run |
//!
//! Random numbers have no state (see [`crate::rng`]), and the position in the data is a function of the step: there is
//! nothing else to keep. A checkpoint is written beside its place, fsynced and renamed; `state.json` holds the digests,
//! so a folder that a crash or a disk has damaged is recognised and the one before it is taken.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::log::Log;
use super::optimizer::Moments;
use crate::error::{Context, Error, Kind, Result, Wrap};
use crate::model::checkpoint::PREFIX;
use crate::model::tensors::{Reader, Writer};
use crate::model::{Network, Parameter};

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
/// Checkpoints kept: the newest, and one before it in case the newest turns out damaged.
const KEPT: usize = 2;
/// Version of the format; another one is not read. 1: the first.
const FORMAT: u32 = 1;

/// Everything about a run but its weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Updates done.
    pub step: u64,
    /// The optimizer's memory.
    pub moments: Moments,
    /// Metrics so far.
    pub log: Log,
}

/// `state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    fingerprint: String,
    step: u64,
    log: Log,
    /// BLAKE3 of the other files, in hex.
    files: BTreeMap<String, String>,
}

/// Writes the state of a run as a checkpoint's files into `folder`, durably.
///
/// # Errors
/// The disk is full or not writable, or the device failed.
pub fn write(folder: &Path, network: &dyn Network, state: &State, fingerprint: &str) -> Result<()> {
    let parameters = network.parameters();
    let mut raw = vec![0.0; parameters.iter().map(Parameter::len).sum()];
    network.read(&mut raw)?;
    tensors(&folder.join(RAW), parameters, &[("", &raw)])?;
    tensors(&folder.join(EMA), parameters, &[("", &state.moments.ema)])?;
    let moments = [(FIRST, &*state.moments.first), (SECOND, &*state.moments.second)];
    tensors(&folder.join(OPTIMIZER), parameters, &moments)?;
    durable(&folder.join(METRICS), state.log.text.as_bytes())?;
    let mut files = BTreeMap::new();
    for name in [RAW, EMA, OPTIMIZER, METRICS] {
        files.insert(name.to_owned(), digest(&folder.join(name))?);
    }
    let record = Record {
        format: FORMAT,
        fingerprint: fingerprint.to_owned(),
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

/// Reads a checkpoint: the network takes the weights, the rest is returned.
///
/// # Errors
/// The folder is incomplete or damaged, or belongs to another run.
pub fn read(folder: &Path, network: &mut dyn Network, fingerprint: &str) -> Result<State> {
    let text = fs::read_to_string(folder.join(STATE)).context(|| format!("read `{STATE}`"))?;
    let record: Record = serde_json::from_str(&text).wrap(Kind::Environment, || format!("read `{STATE}`"))?;
    if record.format != FORMAT || record.fingerprint != fingerprint {
        return Err(Error::environment("it belongs to another run"));
    }
    for (name, expected) in &record.files {
        // Only names of our own: a damaged record must not lead elsewhere.
        let known = [RAW, EMA, OPTIMIZER, METRICS].contains(&&**name);
        if !known || digest(&folder.join(name))? != *expected {
            return Err(Error::environment(format!("`{name}` is damaged")));
        }
    }
    let parameters = network.parameters().to_vec();
    let moments = Moments {
        first: flat(&folder.join(OPTIMIZER), &parameters, FIRST)?,
        second: flat(&folder.join(OPTIMIZER), &parameters, SECOND)?,
        ema: flat(&folder.join(EMA), &parameters, "")?,
    };
    let mut log = record.log;
    log.text = fs::read_to_string(folder.join(METRICS)).context(|| format!("read `{METRICS}`"))?;
    network.load(&flat(&folder.join(RAW), &parameters, "")?)?;
    Ok(State {
        step: record.step,
        moments,
        log,
    })
}

/// The checkpoints of one run below a folder that survives crashes.
pub struct Keeper {
    folder: PathBuf,
    fingerprint: String,
}

impl Keeper {
    /// Keeps checkpoints below `folder`. The fingerprint tells runs apart: what another one left is not taken up.
    #[must_use]
    pub fn new(folder: &Path, fingerprint: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            fingerprint: fingerprint.to_owned(),
        }
    }

    /// Writes a checkpoint and lets go of those that are too old.
    ///
    /// # Errors
    /// The disk is full or not writable; what was there before is still there.
    pub fn save(&self, network: &dyn Network, state: &State) -> Result<()> {
        let what = || format!("keep a checkpoint of step {}", state.step);
        let name = format!("step-{:08}", state.step);
        let place = self.folder.join(&name);
        let beside = self.folder.join(format!(".{name}.new"));
        remove(&beside).context(what)?;
        fs::create_dir_all(&beside).context(what)?;
        write(&beside, network, state, &self.fingerprint).context(what)?;
        // Only a damaged one can be here already: a run never comes twice to the same step otherwise.
        remove(&place).context(what)?;
        fs::rename(&beside, &place).context(what)?;
        sync_folder(&self.folder).context(what)?;
        let kept = self.list()?;
        for (_, old) in kept.iter().take(kept.len().saturating_sub(KEPT)) {
            remove(old).context(what)?;
        }
        Ok(())
    }

    /// Takes up the newest checkpoint that is whole, and removes what a crash left half-written. Of each one that had
    /// to be passed over, `skipped` hears why.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn restore(
        &self,
        network: &mut dyn Network,
        skipped: &mut dyn FnMut(String),
    ) -> Result<Option<State>> {
        for (step, folder) in self.list()?.into_iter().rev() {
            match read(&folder, network, &self.fingerprint) {
                Ok(state) if state.step == step => return Ok(Some(state)),
                Ok(_) => skipped(format!("the checkpoint of step {step} is of another step")),
                Err(error) => skipped(format!("the checkpoint of step {step} cannot be used: {error}")),
            }
        }
        Ok(None)
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
            if name.starts_with(".step-") {
                remove(&entry.path()).context(what)?;
            } else if let Some(step) = name.strip_prefix("step-").and_then(|s| s.parse().ok()) {
                found.push((step, entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }
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

/// Writes arenas (name, values in the flat order) as tensors `ARENA/backbone.NAME`; the weights' arena has no name.
fn tensors(path: &Path, parameters: &[Parameter], arenas: &[(&str, &[f32])]) -> Result<()> {
    let names: Vec<_> = arenas
        .iter()
        .flat_map(|(arena, _)| {
            parameters
                .iter()
                .map(|own| (tensor_name(arena, own), own.dims.clone()))
        })
        .collect();
    let mut writer = Writer::create(path, &names, &[("format", "pt")])?;
    for (_, values) in arenas {
        writer.append(values)?;
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
