//! Checkpoints of other programs: which of their files belong together, what they hold, and whether it is a network of ours.
//!
//! | file | what it does |
//! |---|---|
//! | `files.rs` | the files of a folder that belong to a model; what a file is, by its first bytes |
//! | `store.rs` | tensors by name, whatever they are kept in |
//! | `config.rs` | what `config.json` says |
//! | `tokens.rs` | the files of its tokenizer, compared with another tokenizer |
//! | `parts.rs` | tensors of a file that are an average, or no part of the network |
//! | `run.rs` | the training that a checkpoint is of, as far as it can be continued |
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
use crate::weights::fitting::{check, faults};
use crate::weights::tensors::Reader;
use crate::weights::{ROTARY_BASE, ROTARY_BUFFER};
use config::ConfigFacts;
use files::{CheckpointFile, Container, FileSet, MODEL, read_json};
use guess::{GuessedShape, mended};
use run::{RateState, RunSettings, RunState};
use store::{Shards, TensorStore};
use tokens::TokenizerFacts;

pub mod config;
mod families;
pub mod files;
pub mod guess;
mod parts;
pub mod run;
mod store;
pub mod tokens;
mod torch_file;

pub use super::fitting::NamedTensor;

/// Arena of averaged weights in a file of ours.
const AVERAGED: &str = "ema";
/// AdamW's moments, by PyTorch's names: arenas in a file of ours.
pub const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];

/// What a checkpoint is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointFormat {
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

impl fmt::Display for CheckpointFormat {
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
    /// Whether their decay is the same at every update, and does not rise from a small one.
    pub is_decay_constant: bool,
    /// Parameters of which the file has the state of an optimizer.
    pub moments: Option<usize>,
    /// Updates by the optimizer's own counter.
    pub updates: Option<u64>,
    /// Its settings.
    pub settings: RunSettings,
    /// The kind of its learning rate's schedule: `constant`, `cosine`, or the name that its file has for it.
    pub schedule: Option<String>,
    /// Updates of that schedule.
    pub schedule_step: Option<u64>,
    /// Where it is and where it ends.
    pub rates: RateState,
    /// Schedules of learning rates.
    pub schedules: usize,
}

/// The moments of an optimizer, the first and the second.
#[derive(Debug)]
struct MomentSet {
    tensors: [Vec<NamedTensor>; 2],
    /// Which of the stores has them.
    store: usize,
}

/// An opened checkpoint: names and dimensions are read, weights are not.
#[derive(Debug)]
pub struct ForeignCheckpoint {
    place: String,
    format: CheckpointFormat,
    stores: Vec<Box<dyn TensorStore>>,
    sets: Vec<WeightSet>,
    /// The moments, or why they cannot be taken. Nothing where there is no state of an optimizer.
    moments: Option<std::result::Result<MomentSet, String>>,
    facts: Option<ConfigFacts>,
    training: TrainingFacts,
    /// An average that is not read: its place and the reason.
    unread_average: Option<(String, String)>,
    /// The files of its tokenizer.
    tokenizer: Vec<CheckpointFile>,
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
    /// Input errors: a file is absent, damaged or of an unknown format, or a configuration has a field of another type.
    pub fn open(files: &FileSet) -> Result<Self> {
        let facts = match &files.config {
            Some(file) => Some(Self::facts_of(file).context(|| format!("read `{}`", file.path.display()))?),
            None => None,
        };
        let format = match &files.config {
            Some(config) if config.name == MODEL => CheckpointFormat::TrainStage,
            _ if files.is_sharded => CheckpointFormat::Shards,
            Some(_) => CheckpointFormat::HubFolder,
            None => CheckpointFormat::Safetensors,
        };
        let mut checkpoint = Self {
            place: files.place.clone(),
            format,
            stores: Vec::new(),
            sets: Vec::new(),
            moments: None,
            training: TrainingFacts {
                steps: facts.as_ref().and_then(|facts| facts.steps),
                ..TrainingFacts::default()
            },
            facts,
            unread_average: None,
            tokenizer: files.tokenizer.clone(),
            skipped: Vec::new(),
        };
        let which = if format == CheckpointFormat::TrainStage {
            Weights::Ema
        } else {
            Weights::Raw
        };
        checkpoint.add(&files.weights, which)?;
        if let Some(index) = &files.index {
            checkpoint
                .check_index(index, &files.weights)
                .context(|| format!("read `{}`", index.path.display()))?;
        }
        if let Some(last) = &files.last {
            checkpoint.add(std::slice::from_ref(last), Weights::Raw)?;
        }
        if let Some(optimizer) = &files.optimizer {
            checkpoint.add(std::slice::from_ref(optimizer), Weights::Raw)?;
        }
        checkpoint.part();
        Ok(checkpoint)
    }

    fn facts_of(file: &CheckpointFile) -> Result<ConfigFacts> {
        ConfigFacts::read(&file.name, &read_json(&file.path)?)
    }

    /// Adds a file, or the shards of an index.
    fn add(&mut self, files: &[CheckpointFile], which: Weights) -> Result<()> {
        let mut shards = Shards::default();
        for file in files {
            match files::recognize(&file.path)? {
                Container::Safetensors => {
                    let reader = Reader::open(&file.path)?;
                    let names = reader.names();
                    for (arena, tensors) in reader.arenas() {
                        shards.add_tensors(&arena, tensors);
                    }
                    shards.add(names, &file.name, Box::new(reader))?;
                }
                Container::Torch | Container::OldTorch if files.len() == 1 => return self.add_torch(file),
                Container::Torch | Container::OldTorch => {
                    let contents = torch_file::open(&file.path, None)?;
                    let raw = contents.sets.into_iter().filter(|set| set.which == Weights::Raw);
                    let tensors: Vec<_> = raw.flat_map(|set| set.tensors).collect();
                    let names = tensors.iter().map(|tensor| tensor.stored.clone()).collect();
                    shards.add_tensors("", tensors);
                    shards.add(names, &file.name, Box::new(contents.store))?;
                    for skipped in contents.skipped {
                        if !self.skipped.contains(&skipped) {
                            self.skipped.push(skipped);
                        }
                    }
                }
            }
        }
        let store = self.stores.len();
        let set = |which, tensors| WeightSet {
            which,
            tensors,
            store,
            fault: None,
        };
        let mut moments = MOMENTS.map(|_| Vec::new());
        let mut nameless = Vec::new();
        for (arena, tensors) in shards.take_tensors() {
            if arena.is_empty() {
                nameless = tensors;
            } else if arena == AVERAGED {
                self.sets.push(set(Weights::Ema, tensors));
            } else if let Some(which) = MOMENTS.iter().position(|moment| *moment == arena) {
                self.training.moments = Some(tensors.len());
                moments[which] = tensors;
            } else {
                let count = counted(tensors.len(), "tensor");
                self.skipped.push(format!("arena `{arena}`: {count}"));
            }
        }
        if moments.iter().any(|tensors| !tensors.is_empty()) {
            self.moments = Some(Ok(MomentSet {
                tensors: moments,
                store,
            }));
        }
        if !nameless.is_empty() || self.sets.is_empty() {
            self.sets.push(set(which, nameless));
        }
        self.stores.push(Box::new(shards));
        Ok(())
    }

    fn add_torch(&mut self, file: &CheckpointFile) -> Result<()> {
        let contents = torch_file::open(&file.path, self.facts())?;
        if self.format == CheckpointFormat::Safetensors {
            self.format = if contents.is_lightning {
                CheckpointFormat::Lightning
            } else {
                CheckpointFormat::Torch
            };
        }
        let inner = contents.facts.as_ref().map(|facts| facts.settings);
        let beside = self.facts().map(|facts| facts.settings);
        let settings = contents.training.settings;
        let settings = settings
            .or(inner.unwrap_or_default())
            .or(beside.unwrap_or_default());
        let named = [contents.facts.as_ref(), self.facts()];
        let named = named
            .into_iter()
            .flatten()
            .find_map(|facts| facts.schedule.clone());
        self.facts = self.facts.take().or(contents.facts);
        self.training = TrainingFacts {
            steps: contents.training.steps.or(self.training.steps),
            settings: RunSettings {
                ema: contents.training.decay.or(settings.ema),
                ..settings
            },
            schedule: contents.training.schedule.or(named),
            ..contents.training
        };
        self.skipped = contents.skipped;
        if let Some((path, reason)) = &contents.unread {
            self.skipped
                .push(format!("`{path}`: average, not read: {reason}"));
        }
        self.unread_average = contents.unread;
        self.sets = contents.sets;
        let moments = |tensors| MomentSet { tensors, store: 0 };
        self.moments = contents.moments.map(|found| found.map(moments));
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
                    "tensor `{tensor}` is in the index, but `{}` does not have it",
                    file.as_str().unwrap_or_default()
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
    pub fn format(&self) -> CheckpointFormat {
        self.format
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

    /// What the files of its tokenizer state, if it has any.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn tokenizer(&self) -> Result<Option<TokenizerFacts>> {
        if self.tokenizer.is_empty() {
            return Ok(None);
        }
        TokenizerFacts::read(&self.tokenizer).map(Some)
    }

    /// The place of an average that is not read, and the reason, where no average is read.
    #[must_use]
    pub fn unread_average(&self) -> Option<(&str, &str)> {
        let (path, reason) = self.unread_average.as_ref()?;
        Some((path, reason))
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
        let mut kinds = sets.filter_map(|set| match families::of(&set.tensors) {
            Some(family) => Some(family.text()),
            None => parts::unknown_prefixes(&set.tensors)
                .map(|prefixes| format!("a network whose tensors have {prefixes}, which mdlm does not know")),
        });
        kinds.next()
    }

    /// What its configuration states otherwise than its tensors, if there is something.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        let (guess, facts) = (self.guess()?, self.facts()?);
        guess.check(facts).err().map(|error| error.to_string())
    }

    /// Tensors of a set with values that are NaN or infinite, by their names in the file, and how many they are.
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
    /// It lacks the set that is asked for.
    pub fn choose(&self, asked: Option<Weights>) -> Result<Weights> {
        let has = |which| self.sets.iter().any(|set| set.which == which);
        match asked {
            Some(Weights::Ema) if !has(Weights::Ema) && self.unread_average.is_some() => {
                let (path, reason) = self.unread_average().unwrap_or_default();
                Err(Error::input(format!(
                    "{} has averaged weights in `{path}`, which are not read: {reason}",
                    self.place
                ))
                .hint(
                    "save them by name, `torch.save({name: tensor, …}, FILE)`, or set `\"weights\": \"raw\"`",
                ))
            }
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
        if guess.is_none()
            && let Some(prefixes) = parts::unknown_prefixes(&set.tensors)
        {
            return Err(parts::with_unknown_prefix(&self.place, &prefixes, &set.tensors));
        }
        check((&*self.place, "weights"), shape, backbone, &set.tensors)
            .map_err(|error| error.hint(parts::way_out(guess.as_ref(), shape, backbone, &set.tensors)))?;
        if let Some(guess) = &guess {
            guess
                .check_shape(shape)
                .map_err(|error| error.context(self.place.clone()))?;
        }
        self.check_tied(which)?;
        self.check_rotary(shape)
    }

    /// Whether the embedding and the output layer have the same weights, where the configuration states that.
    fn check_tied(&mut self, which: Weights) -> Result<()> {
        let Some((field, file)) = self
            .facts()
            .and_then(|facts| Some((facts.tied.clone()?, facts.file.clone())))
        else {
            return Ok(());
        };
        let set = self.set(which)?;
        let find = |name: &str| set.tensors.iter().find(|tensor| tensor.name == name).cloned();
        let (Some(first), Some(second)) = (find("vocab_embed.embedding"), find("output_layer.linear.weight"))
        else {
            return Ok(());
        };
        let at = set.store;
        let Some(store) = self.stores.get_mut(at) else {
            return Ok(());
        };
        let mut values = [&first, &second].map(|tensor| vec![0.0; tensor.elements()]);
        for (tensor, values) in [&first, &second].into_iter().zip(&mut values) {
            store
                .floats(&tensor.stored, values)
                .context(|| self.place.clone())?;
        }
        let [a, b] = &values;
        let Some(place) = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits()) else {
            return Ok(());
        };
        Err(Error::input(format!(
            "{}: `{field}` is true in `{file}`, but `{}` and `{}` differ: element {place} is {} and {}",
            self.place, first.stored, second.stored, a[place], b[place]
        ))
        .hint(mended(&file)))
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

    /// The training that this is of, if it can be continued with a shape's backbone: weights of the last step, moments and a
    /// step are there, and the average is whole if there is one.
    ///
    /// # Errors
    /// Why it cannot be continued: a fragment to go after the file's name. Nothing where there is no state of an optimizer.
    pub fn run(&self, shape: &Shape, backbone: Backbone) -> std::result::Result<RunState, Option<String>> {
        let moments = match &self.moments {
            None => return Err(None),
            Some(Err(fault)) => return Err(Some(fault.clone())),
            Some(Ok(moments)) => moments,
        };
        let own = parameters(shape, backbone);
        for (which, tensors) in MOMENTS.into_iter().zip(&moments.tensors) {
            if let Some(fault) = faults(&own, tensors).first() {
                return Err(Some(format!("its moments `{which}` do not fit: {fault}")));
            }
        }
        let set = |which| self.sets.iter().find(|set| set.which == which);
        if set(Weights::Raw).is_none() {
            return Err(Some("it lacks the weights of the last step".to_owned()));
        }
        if let Some(fault) = set(Weights::Ema).and_then(|set| set.fault.as_ref()) {
            return Err(Some(fault.clone()));
        }
        let training = &self.training;
        if training.schedules > 1 {
            let count = training.schedules;
            return Err(Some(format!(
                "it has {count} schedules of learning rates (`lr_schedulers`), expected 1"
            )));
        }
        let step = match (training.steps, training.updates) {
            (Some(steps), Some(updates)) if steps != updates => {
                return Err(Some(format!(
                    "it is at step {steps}, but its optimizer has made {updates} updates"
                )));
            }
            (Some(step), _) | (None, Some(step)) => step,
            (None, None) => return Err(Some("it does not state its step (`global_step`)".to_owned())),
        };
        if let Some(other) = training.schedule_step.filter(|other| *other != step) {
            return Err(Some(format!(
                "it is at step {step}, but its learning rate's schedule (`lr_schedulers`) is at {other}"
            )));
        }
        Ok(RunState {
            step,
            has_average: set(Weights::Ema).is_some(),
            average_updates: training.average_updates,
            is_decay_constant: training.is_decay_constant,
            settings: training.settings,
            schedule: training.schedule.clone(),
            rates: training.rates,
            digest: String::new(),
        })
    }

    /// Reads the first (0) or the second moments (1) of a checkpoint whose [`run`](Self::run) can be continued, in the flat
    /// order.
    ///
    /// # Errors
    /// The file cannot be read; internal: there are none.
    pub fn moments(&mut self, parameters: &[Parameter], which: usize, values: &mut [f32]) -> Result<()> {
        let Some(Ok(MomentSet { tensors, store })) = &self.moments else {
            return Err(Error::internal("moments that are not there"));
        };
        let (tensors, store) = (tensors.get(which), self.stores.get_mut(*store));
        let (Some(tensors), Some(store)) = (tensors, store) else {
            return Err(Error::internal("the moments of a checkpoint got lost"));
        };
        for parameter in parameters {
            let own = tensors.iter().find(|tensor| tensor.name == parameter.name);
            let own = own.ok_or_else(|| Error::internal(format!("`{}` got lost", parameter.name)))?;
            store
                .floats(&own.stored, &mut values[parameter.range()])
                .context(|| self.place.clone())?;
        }
        Ok(())
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

/// The parameters with values that are NaN or infinite, and how many they are.
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
