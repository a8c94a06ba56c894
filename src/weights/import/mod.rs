//! Checkpoints of other programs: which of their files belong together, what they hold, and whether it is a network of ours.
//!
//! | file | what it does |
//! |---|---|
//! | `files.rs` | the files of a folder that belong to a model; what a file is, by its first bytes |
//! | `store.rs` | tensors by name, whatever they are kept in |
//! | `config.rs` | what `config.json` says |
//! | `guess.rs` | the dimensions of the network, and the compiled shape that has them |
//! | `torch_file.rs` | where files of `torch.save` have their weights, and what PyTorch Lightning puts beside them |
//! | `families.rs` | models of other kinds, by the names of their tensors |
//!
//! Nothing that a file holds is executed. A file may have averaged weights and those of the last step; each is a
//! [`WeightSet`].

use std::fmt;
use std::path::Path;

use crate::error::{Context as _, Error, Result};
use crate::manifest::Weights;
use crate::model::{Parameter, parameters, total};
use crate::plural::counted;
use crate::shapes::{Backbone, Shape};
use crate::weights::fitting::check;
use crate::weights::tensors::Reader;
use crate::weights::{ROTARY_BASE, ROTARY_BUFFER};
use config::ConfigFacts;
use files::{CheckpointFile, Container, FileSet, MODEL, read_json};
use guess::GuessedShape;
use store::{SafetensorsStore, TensorStore};

pub mod config;
mod families;
pub mod files;
pub mod guess;
mod store;
mod torch_file;

pub use super::fitting::NamedTensor;

/// Arena of averaged weights in a file of ours.
const AVERAGED: &str = "ema";
/// Arenas of AdamW's moments in a file of ours.
const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// What a checkpoint is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointForm {
    /// One safetensors file.
    Safetensors,
    /// A folder or repository with `config.json`.
    HubFolder,
    /// The same with its weights in shards.
    Shards,
    /// The result of a train stage.
    TrainStage,
    /// A file of `torch.save`.
    Torch,
    /// A file of PyTorch Lightning.
    Lightning,
}

impl fmt::Display for CheckpointForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors file",
            Self::HubFolder => "Hugging Face folder",
            Self::Shards => "Hugging Face folder with shards",
            Self::TrainStage => "result of a train stage",
            Self::Torch => "PyTorch file",
            Self::Lightning => "PyTorch Lightning checkpoint",
        })
    }
}

/// A set of weights in a checkpoint.
#[derive(Debug)]
pub struct WeightSet {
    /// Averaged weights, or those of the last step. What a file does not call averaged counts as the latter.
    pub which: Weights,
    /// Its tensors, buffers included.
    pub tensors: Vec<NamedTensor>,
    /// Which of the stores has them.
    store: usize,
    /// Why they cannot be read: a fragment to go after the file's name.
    fault: Option<String>,
}

/// What a checkpoint holds of its training beside the weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrainingFacts {
    /// Updates, where the file states them.
    pub steps: Option<u64>,
    /// Passes through the data.
    pub epoch: Option<u64>,
    /// Decay of the averaged weights.
    pub decay: Option<f64>,
    /// Updates of the averaged weights.
    pub average_updates: Option<u64>,
    /// Parameters for which AdamW's moments are there.
    pub moments: Option<usize>,
}

/// An opened checkpoint: names and dimensions are read, weights are not.
#[derive(Debug)]
pub struct ForeignCheckpoint {
    place: String,
    form: CheckpointForm,
    stores: Vec<Box<dyn TensorStore>>,
    sets: Vec<WeightSet>,
    facts: Option<ConfigFacts>,
    training: TrainingFacts,
    /// Objects of the file that were kept as data: functions that it names and that were not called, tensors beside the network.
    skipped: Vec<String>,
}

impl ForeignCheckpoint {
    /// Opens a file, or the files of a folder.
    ///
    /// # Errors
    /// The errors of [`FileSet::at`] and [`ForeignCheckpoint::open`].
    pub fn at(path: &Path) -> Result<Self> {
        Self::open(&FileSet::at(path)?)
    }

    /// Opens the files of a checkpoint.
    ///
    /// # Errors
    /// Input errors: a file is absent, damaged or of no known form, or a configuration has a field of another type.
    pub fn open(files: &FileSet) -> Result<Self> {
        let facts = match &files.config {
            Some(file) => Some(Self::facts_of(file).context(|| format!("read `{}`", file.path.display()))?),
            None => None,
        };
        let form = match &files.config {
            Some(config) if config.name == MODEL => CheckpointForm::TrainStage,
            _ if files.is_sharded => CheckpointForm::Shards,
            Some(_) => CheckpointForm::HubFolder,
            None => CheckpointForm::Safetensors,
        };
        let mut checkpoint = Self {
            place: files.place.clone(),
            form,
            stores: Vec::new(),
            sets: Vec::new(),
            training: TrainingFacts {
                steps: facts.as_ref().and_then(|facts| facts.steps),
                ..TrainingFacts::default()
            },
            facts,
            skipped: Vec::new(),
        };
        let which = if form == CheckpointForm::TrainStage {
            Weights::Ema
        } else {
            Weights::Raw
        };
        match &files.weights[..] {
            [only] => match files::recognize(&only.path)? {
                Container::Safetensors => checkpoint.add_safetensors(&files.weights, which)?,
                Container::Torch | Container::OldTorch => checkpoint.add_torch(only)?,
            },
            shards => checkpoint.add_safetensors(shards, which)?,
        }
        if let Some(index) = &files.index {
            checkpoint
                .check_index(index, &files.weights)
                .context(|| format!("read `{}`", index.path.display()))?;
        }
        if let Some(last) = &files.last {
            checkpoint.add_safetensors(std::slice::from_ref(last), Weights::Raw)?;
        }
        Ok(checkpoint)
    }

    fn facts_of(file: &CheckpointFile) -> Result<ConfigFacts> {
        ConfigFacts::read(&file.name, &read_json(&file.path)?)
    }

    fn add_safetensors(&mut self, files: &[CheckpointFile], which: Weights) -> Result<()> {
        let mut store = SafetensorsStore::default();
        for file in files {
            store.add(Reader::open(&file.path)?, &file.name)?;
        }
        let at = self.stores.len();
        let mut arenas = store.arenas();
        let nameless = arenas.shift_remove("").unwrap_or_default();
        let set = |which, tensors| WeightSet {
            which,
            tensors,
            store: at,
            fault: None,
        };
        for (arena, tensors) in arenas {
            if arena == AVERAGED {
                self.sets.push(set(Weights::Ema, tensors));
            } else if MOMENTS.contains(&&*arena) {
                self.training.moments = Some(tensors.len());
            } else {
                let count = counted(tensors.len(), "tensor");
                self.skipped.push(format!("arena `{arena}`: {count}"));
            }
        }
        if !nameless.is_empty() || self.sets.is_empty() {
            self.sets.push(set(which, nameless));
        }
        self.stores.push(Box::new(store));
        Ok(())
    }

    fn add_torch(&mut self, file: &CheckpointFile) -> Result<()> {
        let contents = torch_file::open(&file.path, self.facts())?;
        if self.form == CheckpointForm::Safetensors {
            self.form = if contents.is_lightning {
                CheckpointForm::Lightning
            } else {
                CheckpointForm::Torch
            };
        }
        self.facts = self.facts.take().or(contents.facts);
        self.training = TrainingFacts {
            steps: contents.training.steps.or(self.training.steps),
            ..contents.training
        };
        self.skipped = contents.skipped;
        self.sets = contents.sets;
        self.stores = vec![Box::new(contents.store)];
        Ok(())
    }

    /// Whether each tensor lies in the shard that the index names.
    fn check_index(&self, index: &CheckpointFile, shards: &[CheckpointFile]) -> Result<()> {
        let json = read_json(&index.path)?;
        let map = json.get("weight_map").and_then(serde_json::Value::as_object);
        let map = map.ok_or_else(|| Error::internal("the index lost its `weight_map`"))?;
        let tensors = self.sets.iter().flat_map(|set| &set.tensors);
        let stored: std::collections::HashSet<&str> = tensors.map(|tensor| &*tensor.stored).collect();
        for (tensor, file) in map {
            if !stored.contains(&**tensor) {
                return Err(Error::input(format!(
                    "tensor `{tensor}` is in the index, but {file} does not have it"
                ))
                .hint("download the shards again: a file is incomplete or of another version"));
            }
        }
        for tensor in stored {
            if !map.contains_key(tensor) {
                let message = format!(
                    "tensor `{tensor}` is in one of {}, but not in the index",
                    counted(shards.len(), "shard")
                );
                return Err(Error::input(message)
                    .hint("download the index again: it is incomplete or of another version"));
            }
        }
        Ok(())
    }

    /// The file or folder, as messages name it.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What it is kept in.
    #[must_use]
    pub fn form(&self) -> CheckpointForm {
        self.form
    }

    /// Its sets of weights.
    #[must_use]
    pub fn sets(&self) -> &[WeightSet] {
        &self.sets
    }

    /// What the file beside the weights states.
    #[must_use]
    pub fn facts(&self) -> Option<&ConfigFacts> {
        self.facts.as_ref()
    }

    /// What it holds of its training.
    #[must_use]
    pub fn training(&self) -> &TrainingFacts {
        &self.training
    }

    /// What was kept as data and is not used.
    #[must_use]
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Why a set cannot be read, where it cannot: a fragment to go after the file's name.
    #[must_use]
    pub fn fault(&self, which: Weights) -> Option<&str> {
        let set = self.sets.iter().find(|set| set.which == which)?;
        set.fault.as_deref()
    }

    /// The dimensions of its network; nothing where it holds another kind of model.
    #[must_use]
    pub fn guess(&self) -> Option<GuessedShape> {
        // The raw weights have the buffers.
        let mut sets: Vec<_> = self.sets.iter().collect();
        sets.sort_by_key(|set| set.which != Weights::Raw);
        sets.iter()
            .find_map(|set| GuessedShape::of(&set.tensors, self.facts()))
    }

    /// What it is where it is a known kind of model that is not mdlm's.
    #[must_use]
    pub fn family(&self) -> Option<String> {
        let sets = self.sets.iter().filter(|_| self.guess().is_none());
        let mut families = sets.filter_map(|set| families::of(&set.tensors));
        families.next().map(families::ModelFamily::text)
    }

    /// Tensors of a set with values that are no finite numbers, by their names in the file, and how many they are.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn not_finite(&mut self, which: Weights) -> Result<Vec<(String, usize)>> {
        let mut found = Vec::new();
        for set in self.sets.iter().filter(|set| set.which == which) {
            let Some(store) = self.stores.get_mut(set.store) else {
                continue;
            };
            for tensor in set.tensors.iter().filter(|tensor| tensor.is_float()) {
                let mut values = vec![0.0; tensor.elements()];
                store
                    .floats(&tensor.stored, &mut values)
                    .context(|| self.place.clone())?;
                let count = values.iter().filter(|value| !value.is_finite()).count();
                if count > 0 {
                    found.push((tensor.stored.clone(), count));
                }
            }
        }
        Ok(found)
    }

    /// The set that is read where `asked` is asked for: by default averaged weights if there are any.
    ///
    /// # Errors
    /// It has not the set that is asked for.
    pub fn choose(&self, asked: Option<Weights>) -> Result<Weights> {
        let has = |which| self.sets.iter().any(|set| set.which == which);
        match asked {
            Some(which) if !has(which) => {
                let (name, other) = match which {
                    Weights::Ema => ("averaged weights (`ema`)", "raw"),
                    Weights::Raw => ("weights of the last step (`raw`)", "ema"),
                };
                Err(Error::input(format!("{} has no {name}", self.place))
                    .hint(format!("set `\"weights\": \"{other}\"`, or leave it out")))
            }
            Some(which) => Ok(which),
            None if has(Weights::Ema) => Ok(Weights::Ema),
            None => Ok(Weights::Raw),
        }
    }

    /// Whether a set is the weights of a shape's backbone, and all that stands beside them agrees.
    ///
    /// # Errors
    /// Input errors: it is another kind of model, which is named; tensors are missing, unknown or of other dimensions; the
    /// configuration or the rotary buffer contradicts them. The way out is the shape that fits, or the line that adds it.
    pub fn check(&mut self, shape: &Shape, backbone: Backbone, which: Weights) -> Result<()> {
        let guess = self.guess();
        let set = self.set(which)?;
        if guess.is_none()
            && let Some(family) = families::of(&set.tensors)
        {
            return Err(family.refused(&self.place));
        }
        if let (Some(guess), Some(facts)) = (&guess, self.facts()) {
            guess
                .check(facts)
                .map_err(|error| error.context(self.place.clone()))?;
        }
        if let Some(fault) = &set.fault {
            return Err(Error::input(format!("{}: {fault}", self.place))
                .hint("read the weights of the last step instead: `\"weights\": \"raw\"`"));
        }
        check((&*self.place, "weights"), shape, backbone, &set.tensors).map_err(|error| match &guess {
            Some(guess) => error.hint(guess.way_out()),
            None => error.hint("`mdlm shapes` lists the compiled shapes"),
        })?;
        if let Some(guess) = &guess {
            guess
                .check_shape(shape)
                .map_err(|error| error.context(self.place.clone()))?;
        }
        self.check_rotary(shape)
    }

    /// Reads a set into the flat order of a shape's backbone.
    ///
    /// # Errors
    /// The errors of [`ForeignCheckpoint::check`]; the file cannot be read.
    pub fn read(&mut self, shape: &Shape, backbone: Backbone, which: Weights) -> Result<Vec<f32>> {
        self.check(shape, backbone, which)?;
        let parameters = parameters(shape, backbone);
        let mut values = vec![0.0; total(&parameters)];
        let set = self.sets.iter().find(|set| set.which == which);
        let set = set.ok_or_else(|| Error::internal("a set of weights got lost"))?;
        let store = self.stores.get_mut(set.store);
        let store = store.ok_or_else(|| Error::internal("the store of a set of weights got lost"))?;
        for parameter in &parameters {
            // Present: it is not a fault.
            let own = set.tensors.iter().find(|tensor| tensor.name == parameter.name);
            let own = own.ok_or_else(|| Error::internal(format!("`{}` got lost", parameter.name)))?;
            store
                .floats(&own.stored, &mut values[parameter.range()])
                .context(|| self.place.clone())?;
        }
        Ok(values)
    }

    fn set(&self, which: Weights) -> Result<&WeightSet> {
        let set = self.sets.iter().find(|set| set.which == which);
        set.ok_or_else(|| Error::internal("a set of weights that was not chosen"))
    }

    /// Checks the buffer of the rotary angles, if there is one: it is not a weight, and ours follow from the shape.
    fn check_rotary(&mut self, shape: &Shape) -> Result<()> {
        let half = shape.width / shape.heads / 2;
        let buffers: Vec<_> = (self.sets.iter())
            .flat_map(|set| set.tensors.iter().map(move |tensor| (set.store, tensor.clone())))
            .filter(|(_, tensor)| tensor.name == ROTARY_BUFFER)
            .collect();
        for (store, buffer) in buffers {
            if buffer.dims != [half] {
                return Err(Error::input(format!(
                    "{}: `{}` is {:?}, expected [{half}], half of the width of a head of shape `{}`",
                    self.place, buffer.stored, buffer.dims, shape.name
                ))
                .hint("the model has another number of heads, or other positions than mdlm's transformer"));
            }
            let mut found = vec![0.0f32; half];
            let Some(store) = self.stores.get_mut(store) else {
                continue;
            };
            store
                .floats(&buffer.stored, &mut found)
                .context(|| self.place.clone())?;
            // 2e-6: PyTorch raises to a power in f32, two roundings of 6e-8 and an exponent of up to 9.2 in between. Of 16-bit
            // numbers the last of 8 bits is uncertain.
            let tolerance = if buffer.dtype == "F32" || buffer.dtype == "F64" {
                2e-6
            } else {
                1e-2
            };
            let width = 2 * found.len();
            for (index, &found) in found.iter().enumerate() {
                let expected = ROTARY_BASE.powf(-2.0 * index as f64 / width as f64);
                let off = (f64::from(found) - expected).abs();
                if off.is_nan() || off > tolerance * expected {
                    return Err(Error::input(format!(
                        "{}: `{}`[{index}] is {found}, expected {expected:.6e}, which is 10000^(-2 * {index} / {width})",
                        self.place, buffer.stored
                    ))
                    .hint("the model was trained with other rotary angles than mdlm's transformer has"));
                }
            }
        }
        Ok(())
    }
}

/// Reads the weights of a checkpoint: averaged ones if it has any.
///
/// # Errors
/// The errors of [`ForeignCheckpoint::at`] and [`ForeignCheckpoint::read`].
pub fn read(path: &Path, shape: &Shape, backbone: Backbone) -> Result<Vec<f32>> {
    let mut checkpoint = ForeignCheckpoint::at(path)?;
    let which = checkpoint.choose(None)?;
    checkpoint.read(shape, backbone, which)
}

/// The parameters with values that are no finite numbers, and how many they are.
#[must_use]
pub fn not_finite<'p>(parameters: &'p [Parameter], values: &[f32]) -> Vec<(&'p str, usize)> {
    let count = |parameter: &'p Parameter| {
        let values = values.get(parameter.range()).unwrap_or_default();
        let count = values.iter().filter(|value| !value.is_finite()).count();
        (count > 0).then_some((&*parameter.name, count))
    };
    parameters.iter().filter_map(count).collect()
}

#[cfg(test)]
mod tests;
