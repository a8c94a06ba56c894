//! Files of `torch.save`: where their weights are, and what PyTorch Lightning and the authors' code put beside them.
//!
//! | key | what it is |
//! |---|---|
//! | `state_dict`, `model_state_dict`, `model`, `module`, one of them within another, or the file itself | the weights of the last step, by name |
//! | `ema` and others | their average: see `average.rs`; `decay`, `num_updates` |
//! | `global_step` or `step`, `epoch` | counters |
//! | `optimizer_states` or `optimizer` | AdamW's moments and updates, by the number of the parameter, and its settings |
//! | `lr_schedulers` | the position of the learning rate's schedule and the next rate, its kind and end as far as its state shows them |
//! | `hyper_parameters` | the settings of the run, as objects of OmegaConf, which are read as data |

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value};

use super::config::{ConfigFacts, SETTINGS};
use super::guess::GuessedShape;
use super::run::{RateState, RunSettings};
use super::store::TensorStore;
use super::{MOMENTS, TrainingFacts, WeightSet};
use crate::disk::open_file;
use crate::error::{Context as _, Error, Result};
use crate::manifest::Weights;
use crate::model::parameters;
use crate::plural::counted;
use crate::shapes::Backbone;
use crate::weights::fitting::{NamedTensor, bare};
use crate::weights::torch::pickle::parse;
use crate::weights::torch::tensor::{TorchFile, TorchTensor};
use crate::weights::torch::values::{Pickle, PickleNode, PickleValue};

/// Keys under which the weights lie, or one of which is within another.
const STATES: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];
/// Nesting of settings that is read.
const DEEPEST: usize = 16;
/// Values of settings that are read.
const MOST_SETTINGS: usize = 10_000;
/// Dicts within dicts in which weights are looked for, to name their place.
const DEEPEST_STATE: usize = 4;
/// Functions with which PyTorch makes tensors of types and layouts that are not read begin with it.
const REBUILD: &str = "torch._utils._rebuild";
/// The place of the dimensions among their arguments.
const DIMENSIONS: usize = 2;
/// Bytes of a pickle without an archive that are searched for names.
const MOST_BARE: u64 = 16 << 20;
/// Globals that are listed.
const LISTED: usize = 20;
/// State that other optimizers than AdamW have for a parameter, or AdamW with AMSGrad.
const OTHER_STATE: &str = "max_exp_avg_sq";

/// The tensors of a file, by the names that this module gives them.
#[derive(Debug)]
pub(super) struct TorchStore {
    file: TorchFile,
    tensors: HashMap<String, TorchTensor>,
}

impl TensorStore for TorchStore {
    fn floats(&mut self, stored: &str, into: &mut [f32]) -> Result<()> {
        let tensor = tensor_of(&self.tensors, stored)?;
        let read = self.file.floats(tensor, into);
        read.context(|| format!("tensor `{stored}`"))
    }

    fn integers(&mut self, stored: &str, into: &mut [i64]) -> Result<()> {
        let tensor = tensor_of(&self.tensors, stored)?;
        let read = self.file.integers(tensor, into);
        read.context(|| format!("tensor `{stored}`"))
    }
}

fn tensor_of<'t>(tensors: &'t HashMap<String, TorchTensor>, stored: &str) -> Result<&'t TorchTensor> {
    let tensor = tensors.get(stored);
    tensor.ok_or_else(|| Error::internal(format!("tensor `{stored}` got lost")))
}

/// What a file holds.
pub(super) struct TorchContents {
    pub store: TorchStore,
    pub sets: Vec<WeightSet>,
    /// AdamW's moments, the first and the second, or why they cannot be taken: a fragment to go after the file's name. Nothing
    /// where there is no state of an optimizer.
    pub moments: Option<std::result::Result<[Vec<NamedTensor>; 2], String>>,
    pub training: TrainingFacts,
    pub skipped: Vec<String>,
    /// An average that is not read, where no other one is: its place and the reason.
    pub unread: Option<(String, String)>,
    /// What the settings of its run say.
    pub facts: Option<ConfigFacts>,
    /// Whether PyTorch Lightning has written it.
    pub is_lightning: bool,
}

/// Opens a file; `facts` stand beside it.
///
/// # Errors
/// Input errors: the file is damaged, or no weights are found in it.
pub(super) fn open(path: &Path, facts: Option<&ConfigFacts>) -> Result<TorchContents> {
    let context = || format!("read `{}`", path.display());
    let mut file = TorchFile::open(path).map_err(|error| match named_by_bare(path) {
        Some(names) => error.context(format!("nothing of it was executed, and it names {names}")),
        None => error,
    })?;
    let bytes = std::fs::metadata(path).context(context)?.len();
    let mut contents = Contents::read(&file, bytes).context(context)?;
    if let Err(error) = contents.count_updates(&mut file) {
        contents.moments_fault = Some(error.to_string());
    }
    if let (Some(beside), Some(inside)) = (facts, &contents.facts) {
        beside.agree(inside).context(context)?;
    }
    Ok(contents.finish(file, facts))
}

/// What is found in the values of a file.
#[derive(Default)]
struct Contents {
    /// Length of the file.
    bytes: u64,
    tensors: HashMap<String, TorchTensor>,
    raw: Vec<NamedTensor>,
    average: Vec<NamedTensor>,
    /// The average is a list without names.
    is_list: bool,
    /// Averages that are not read: their places and the reasons.
    unread: Vec<(String, String)>,
    /// First and second moments, by the number of the parameter.
    moments: [Vec<NamedTensor>; 2],
    /// Why the moments cannot be taken.
    moments_fault: Option<String>,
    /// The counters of the optimizer's updates that are tensors.
    counters: Vec<TorchTensor>,
    training: TrainingFacts,
    skipped: Vec<String>,
    facts: Option<ConfigFacts>,
    is_lightning: bool,
}

impl Contents {
    fn read(file: &TorchFile, bytes: u64) -> Result<Self> {
        let pickle = file.pickle();
        let root = pickle.root();
        let mut found = Self {
            bytes,
            is_lightning: pickle.get(root, "pytorch-lightning_version").is_some(),
            ..Self::default()
        };
        let Some((place, state)) = state_of(pickle) else {
            return Err(no_weights(pickle));
        };
        found.raw = found.named(file, state, "")?;
        found.average(file, root);
        let number = |keys: &[&str]| {
            let node = keys.iter().find_map(|key| pickle.get(root, key))?;
            u64::try_from(pickle.int(node)?).ok()
        };
        if state != root {
            found.training.steps = number(&["global_step", "step"]);
            found.training.epoch = number(&["epoch"]);
        }
        let optimizers = if let Some(list) = pickle.get(root, "optimizer_states") {
            pickle.elements(list).to_vec()
        } else {
            let optimizer = pickle.get(root, "optimizer").filter(|_| state != root);
            optimizer.into_iter().collect()
        };
        if let Some(optimizer) = optimizers.first() {
            // Weights may be read although the moments cannot.
            if let Err(error) = found.optimizer(file, *optimizer) {
                found.moments_fault = Some(error.to_string());
            }
        }
        if optimizers.len() > 1 {
            let count = counted(optimizers.len(), "optimizer");
            let fault = format!("it has the states of {count} (`optimizer_states`), expected 1");
            found.moments_fault = Some(fault);
            found.training.moments.get_or_insert(0);
        }
        found.schedule(pickle);
        found.settings(pickle)?;
        if state != root {
            found.list_others(pickle, &place);
        }
        let uncalled = pickle.uncalled();
        for global in uncalled.iter().take(LISTED) {
            let what = if global.calls > 0 { "not called" } else { "named" };
            found
                .skipped
                .push(format!("`{}`: {what}, kept as data", global.name));
        }
        if uncalled.len() > LISTED {
            found.skipped.push(format!(
                "{} of Python",
                counted(uncalled.len() - LISTED, "more object")
            ));
        }
        Ok(found)
    }

    /// The tensors of a dict, by name.
    fn named(&mut self, file: &TorchFile, state: PickleNode, prefix: &str) -> Result<Vec<NamedTensor>> {
        let pickle = file.pickle();
        let mut tensors = Vec::new();
        for (name, node) in pickle.named(state) {
            if let Some((dims, dtype)) = unread_tensor(pickle, node) {
                let own = NamedTensor::of(name, &dims, dtype);
                let stored = format!("{prefix}{name}");
                tensors.push(NamedTensor { stored, ..own });
                continue;
            }
            if !pickle.is_tensor(node) {
                if prefix.is_empty() && state != pickle.root() {
                    self.skipped
                        .push(format!("`{name}`: {}", pickle.describe(node, 60)));
                }
                continue;
            }
            let tensor = self.tensor(file, node).context(|| format!("tensor `{name}`"))?;
            let stored = format!("{prefix}{name}");
            let own = NamedTensor::of(name, &tensor.dims, format!("{:?}", tensor.dtype));
            tensors.push(NamedTensor {
                stored: stored.clone(),
                ..own
            });
            self.tensors.insert(stored, tensor);
        }
        Ok(tensors)
    }

    /// A tensor that has no more elements than the file has bytes: one may repeat its elements, and a small file could state
    /// any number of them.
    fn tensor(&self, file: &TorchFile, node: PickleNode) -> Result<TorchTensor> {
        let tensor = file.tensor(node)?;
        if tensor.elements() as u64 > self.bytes {
            let message = format!(
                "it states {}, and the file has {}",
                counted(tensor.elements(), "element"),
                counted(self.bytes, "byte")
            );
            return Err(
                Error::input(message).hint("save it as `tensor.contiguous()`: its elements are repeated")
            );
        }
        Ok(tensor)
    }

    /// The state of an optimizer: moments by the number of the parameter, and the settings of its only group.
    fn optimizer(&mut self, file: &TorchFile, optimizer: PickleNode) -> Result<()> {
        let pickle = file.pickle();
        let state = pickle.get(optimizer, "state");
        let Some(state) = state.filter(|state| !pickle.entries(*state).is_empty()) else {
            return Ok(());
        };
        self.training.moments = Some(pickle.entries(state).len());
        let groups = pickle.get(optimizer, "param_groups");
        let groups = groups.map_or(&[][..], |groups| pickle.elements(groups));
        let &[group] = groups else {
            let count = counted(groups.len(), "group");
            self.moments_fault = Some(format!("its optimizer has {count} of parameters, expected 1"));
            return Ok(());
        };
        let number = |key: &str| pickle.get(group, key).and_then(|node| pickle.float(node));
        let flag = |key: &str| pickle.get(group, key).and_then(|node| pickle.bool(node));
        let betas = pickle.get(group, "betas");
        let betas = betas.map_or(&[][..], |betas| pickle.elements(betas));
        let beta = |at: usize| betas.get(at).and_then(|node| pickle.float(*node));
        // Schedules keep the first rate beside that of the next update.
        self.training.rates.next_rate = number("initial_lr")
            .and(number("lr"))
            .filter(|rate| rate.is_finite());
        self.training.settings = RunSettings {
            learning_rate: number("initial_lr").or(number("lr")),
            beta1: beta(0),
            beta2: beta(1),
            epsilon: number("eps"),
            weight_decay: number("weight_decay"),
            ..RunSettings::default()
        };
        let is_coupled = flag("decoupled_weight_decay") == Some(false) && number("weight_decay") != Some(0.0);
        let has = |key: &str| pickle.get(group, key).is_some();
        for (is_other, what) in [
            // NAdam and RAdam keep the same moments, and use them in another way.
            (has("momentum_decay"), "it is NAdam"),
            (has("decoupled_weight_decay") && !has("amsgrad"), "it is RAdam"),
            (flag("amsgrad") == Some(true), "`amsgrad` is on"),
            (flag("maximize") == Some(true), "`maximize` is on"),
            (
                is_coupled,
                "it is Adam, whose weight decay is a part of the gradient",
            ),
        ] {
            if is_other {
                self.moments_fault = Some(format!("its optimizer is not AdamW as mdlm has it: {what}"));
                return Ok(());
            }
        }
        let numbers = pickle.get(group, "params");
        let numbers = numbers.map_or(&[][..], |numbers| pickle.elements(numbers));
        for (place, number) in numbers.iter().enumerate() {
            let own = pickle
                .int(*number)
                .and_then(|number| pickle.get_at(state, number));
            let Some(own) = own else {
                self.moments_fault = Some(format!("its optimizer has no state of parameter {place}"));
                return Ok(());
            };
            let has_other = pickle.get(own, OTHER_STATE).is_some();
            let found = MOMENTS.map(|moment| pickle.get(own, moment).filter(|node| pickle.is_tensor(*node)));
            let ([Some(first), Some(second)], false) = (found, has_other) else {
                let keys: Vec<_> = pickle.named(own).into_iter().take(LISTED).collect();
                let keys: Vec<_> = keys.iter().map(|(key, _)| format!("`{key}`")).collect();
                self.moments_fault = Some(format!(
                    "its optimizer is not AdamW: its state of parameter {place} has {}, expected `step`, `exp_avg` and \
                     `exp_avg_sq`",
                    keys.join(", ")
                ));
                return Ok(());
            };
            for (which, node) in [first, second].into_iter().enumerate() {
                let stored = format!("optimizer.state[{place}].{}", MOMENTS[which]);
                let tensor = self.tensor(file, node).context(|| format!("tensor `{stored}`"))?;
                self.moments[which].push(NamedTensor {
                    name: stored.clone(),
                    stored: stored.clone(),
                    dims: tensor.dims.clone(),
                    dtype: format!("{:?}", tensor.dtype),
                });
                self.tensors.insert(stored, tensor);
            }
            match pickle.get(own, "step") {
                Some(step) if pickle.is_tensor(step) => {
                    let what = || format!("tensor `optimizer.state[{place}].step`");
                    self.counters.push(self.tensor(file, step).context(what)?);
                }
                Some(step) => self.updates(place, pickle.float(step)),
                None => {}
            }
        }
        Ok(())
    }

    /// Counters that are tensors: all parameters have the same number of updates.
    fn count_updates(&mut self, file: &mut TorchFile) -> Result<()> {
        for (place, counter) in std::mem::take(&mut self.counters).into_iter().enumerate() {
            let mut value = [f32::NAN];
            if counter.elements() == 1 {
                let what = || format!("tensor `optimizer.state[{place}].step`");
                if counter.dtype.is_float() {
                    file.floats(&counter, &mut value).context(what)?;
                } else {
                    let mut whole = [0];
                    file.integers(&counter, &mut whole).context(what)?;
                    value = [whole[0] as f32];
                }
            }
            self.updates(place, Some(f64::from(value[0])));
        }
        Ok(())
    }

    /// The number of updates of a parameter.
    fn updates(&mut self, place: usize, updates: Option<f64>) {
        let whole = updates.filter(|updates| *updates >= 0.0 && updates.fract() == 0.0);
        let Some(updates) = whole.map(|updates| updates as u64) else {
            self.moments_fault = Some(format!(
                "its optimizer states no number of updates of parameter {place}"
            ));
            return;
        };
        match self.training.updates {
            Some(others) if others != updates => {
                self.moments_fault = Some(format!(
                    "its optimizer has made {updates} updates of parameter {place}, but {others} of those before it"
                ));
            }
            _ => self.training.updates = Some(updates),
        }
    }

    /// The schedule of the learning rate: its position, the rate of the next update, and its kind and end where the class that
    /// saved it is recognized by its state. That of the authors' cosine is timm's: `t_initial` updates after `warmup_t`.
    fn schedule(&mut self, pickle: &Pickle) {
        let Some(list) = pickle.get(pickle.root(), "lr_schedulers") else {
            return;
        };
        let schedules = pickle.elements(list);
        self.training.schedules = schedules.len();
        let &[schedule] = schedules else { return };
        let position = ["last_epoch", "_last_epoch"]
            .iter()
            .find_map(|key| pickle.int(pickle.get(schedule, key)?));
        self.training.schedule_step = position.and_then(|position| u64::try_from(position).ok());
        let number = |key: &str| {
            let number = pickle.get(schedule, key).and_then(|node| pickle.float(node));
            number.filter(|number| number.is_finite())
        };
        let rates = pickle.get(schedule, "_last_lr");
        let rates = rates.map_or(&[][..], |rates| pickle.elements(rates));
        let rate = rates.first().and_then(|rate| pickle.float(*rate));
        let is_after_warmup = pickle
            .get(schedule, "warmup_prefix")
            .and_then(|node| pickle.bool(node));
        let before = number("warmup_t").filter(|_| is_after_warmup == Some(true));
        let after_warmup = number("t_initial").map(|steps| steps + before.unwrap_or(0.0));
        self.training.rates = RateState {
            next_rate: rate
                .filter(|rate| rate.is_finite())
                .or(self.training.rates.next_rate),
            cosine_end: number("T_max").or(after_warmup),
            cosine_floor: number("eta_min").or(number("lr_min")),
        };
        let settings = &mut self.training.settings;
        settings.warmup_steps = settings.warmup_steps.or(number("warmup_t"));
        let kinds = [
            ("T_max", "cosine"),
            ("t_initial", "cosine"),
            ("T_0", "cosine with restarts"),
            ("step_size", "in steps"),
            ("milestones", "in steps"),
            ("end_factor", "linear"),
            ("power", "polynomial"),
            ("patience", "by plateaus"),
        ];
        let kind = kinds.iter().find(|(key, _)| pickle.get(schedule, key).is_some());
        self.training.schedule = kind.map(|(_, kind)| (*kind).to_owned());
    }

    /// Lists keys of the file with tensors that are not used; `place` is where the weights are.
    fn list_others(&mut self, pickle: &Pickle, place: &str) {
        let own = place.split('.').next().unwrap_or_default();
        for (key, node) in pickle.named(pickle.root()) {
            let is_known = key == own
                || average::AVERAGES.contains(&key)
                || ["optimizer_states", "optimizer", "lr_schedulers", SETTINGS].contains(&key);
            let tensors = pickle.walk(node).filter(|node| pickle.is_tensor(*node)).count();
            if !is_known && tensors > 0 {
                self.skipped
                    .push(format!("`{key}`: {}", counted(tensors, "tensor")));
            }
        }
    }

    /// The settings of the run, where they are such that they can be read as data.
    fn settings(&mut self, pickle: &Pickle) -> Result<()> {
        let Some(node) = pickle
            .find(&[SETTINGS, "config"])
            .or_else(|| pickle.find(&[SETTINGS]))
        else {
            return Ok(());
        };
        let mut budget = MOST_SETTINGS;
        let json = plain(pickle, node, DEEPEST, &mut budget);
        if json.get("model").is_some_and(Value::is_object) {
            self.facts = Some(ConfigFacts::read(SETTINGS, &json).context(|| format!("`{SETTINGS}`"))?);
        }
        Ok(())
    }

    fn finish(mut self, file: TorchFile, facts: Option<&ConfigFacts>) -> TorchContents {
        let facts = facts.or(self.facts.as_ref());
        let mut fault = None;
        if self.is_list {
            match GuessedShape::of(&self.raw, facts) {
                Some(guess) => fault = name_by_order(&mut self.average, &guess, "average"),
                None => {
                    fault = Some(
                        "its average has no names, and its weights are not a network of mdlm's".to_owned(),
                    );
                }
            }
        }
        let mut moments_fault = self.moments_fault.take();
        if moments_fault.is_none() && self.training.moments.is_some() {
            moments_fault = match GuessedShape::of(&self.raw, facts) {
                Some(guess) => {
                    let [first, second] = &mut self.moments;
                    let fault = name_by_order(first, &guess, "optimizer");
                    fault.or_else(|| name_by_order(second, &guess, "optimizer"))
                }
                None => Some("its weights are not a network of mdlm's".to_owned()),
            };
        }
        let moments = self.training.moments.map(|_| match moments_fault {
            Some(fault) => Err(fault),
            None => Ok(std::mem::take(&mut self.moments)),
        });
        if !self.average.is_empty() {
            self.list_unread();
        }
        let mut sets = Vec::new();
        let mut add = |which, tensors: Vec<NamedTensor>, fault| {
            if !tensors.is_empty() {
                sets.push(WeightSet {
                    which,
                    tensors,
                    store: 0,
                    fault,
                });
            }
        };
        add(Weights::Raw, self.raw, None);
        add(Weights::Ema, self.average, fault);
        TorchContents {
            store: TorchStore {
                file,
                tensors: self.tensors,
            },
            sets,
            moments,
            training: self.training,
            unread: self.unread.into_iter().next(),
            skipped: self.skipped,
            facts: self.facts,
            is_lightning: self.is_lightning,
        }
    }
}

/// The weights of a file: the first dict that has the embedding of a network, else the first with tensors; and its place, such
/// as `model.state_dict`, empty for the file itself.
fn state_of(pickle: &Pickle) -> Option<(String, PickleNode)> {
    let root = pickle.root();
    let below = |(path, node): (String, PickleNode)| {
        let key = |key: &&'static str| Some((format!("{path}{key}"), pickle.get(node, key)?));
        STATES.iter().filter_map(key).collect::<Vec<_>>()
    };
    let outer = below((String::new(), root));
    let inner = outer
        .iter()
        .cloned()
        .flat_map(|(path, node)| below((format!("{path}."), node)));
    let mut all: Vec<_> = outer.iter().cloned().chain(inner).collect();
    all.push((String::new(), root));
    all.retain(|(_, node)| has_tensors(pickle, *node));
    let has_embedding = |(_, node): &&(String, PickleNode)| {
        let mut names = pickle.named(*node).into_keys().map(bare);
        names.any(|name| name == "vocab_embed.embedding")
    };
    all.iter().find(has_embedding).or(all.first()).cloned()
}

fn has_tensors(pickle: &Pickle, node: PickleNode) -> bool {
    let named = pickle.named(node);
    named
        .values()
        .any(|value| pickle.is_tensor(*value) || unread_tensor(pickle, *value).is_some())
}

/// The error of a file without weights, with the place of tensors that it has elsewhere.
fn no_weights(pickle: &Pickle) -> Error {
    let root = pickle.root();
    let keys = pickle.named(root).into_iter().take(LISTED);
    let keys: Vec<_> = keys.map(|(key, _)| format!("`{key}`")).collect();
    let has = if keys.is_empty() {
        format!("it holds {}", pickle.describe(root, 60))
    } else {
        format!("it has {}", keys.join(", "))
    };
    let names = globals(pickle);
    let names = if names.is_empty() {
        String::new()
    } else {
        format!("; nothing of it was executed, and it names {}", names.join(", "))
    };
    let error = Error::input(format!("no weights are found: {has}{names}"));
    error.hint(match place_of_tensors(pickle) {
        Some(place) => {
            let keys: Vec<_> = place.split('.').map(|key| format!("[{key:?}]")).collect();
            let keys = keys.concat();
            format!(
                "it has tensors below `{place}`: save these alone, `torch.save(torch.load(FILE){keys}, OTHER)`"
            )
        }
        None => "a state_dict is expected, alone or under `state_dict`: `torch.save(model.state_dict(), FILE)`".to_owned(),
    })
}

/// The place of the first dict with tensors, such as `trainer.network`.
fn place_of_tensors(pickle: &Pickle) -> Option<String> {
    let mut level = vec![(String::new(), pickle.root())];
    for _ in 0..DEEPEST_STATE {
        let mut next = Vec::new();
        for (path, node) in &level {
            for (key, below) in pickle
                .named(*node)
                .into_iter()
                .take(MOST_SETTINGS / DEEPEST_STATE)
            {
                let path = if path.is_empty() {
                    key.to_owned()
                } else {
                    format!("{path}.{key}")
                };
                if has_tensors(pickle, below) {
                    return Some(path);
                }
                next.push((path, below));
            }
        }
        next.truncate(MOST_SETTINGS);
        level = next;
    }
    None
}

/// The dimensions and the type of a tensor that is not read, such as one of `torch.float8_e4m3fn`. No dimensions where they are
/// not known.
fn unread_tensor(pickle: &Pickle, node: PickleNode) -> Option<(Vec<usize>, String)> {
    let object = pickle.object(node)?;
    let function = pickle.global(node)?.strip_prefix(REBUILD)?;
    let arguments = pickle.elements(object.args);
    let number = |node: &PickleNode| usize::try_from(pickle.int(*node)?).ok();
    let dims = arguments
        .get(DIMENSIONS)
        .map_or(&[][..], |dims| pickle.elements(*dims));
    let dims: Option<Vec<usize>> = dims.iter().map(number).collect();
    let dtype = arguments.iter().find_map(|argument| {
        let name = pickle.global(*argument)?.strip_prefix("torch.")?;
        (!name.contains(['.', '_']) || name.starts_with("float") || name.starts_with("uint")).then_some(name)
    });
    let dtype = dtype.map_or_else(|| format!("{REBUILD}{function}"), str::to_owned);
    Some((dims.unwrap_or_default(), dtype))
}

/// The globals of a file that is a pickle without the archive around it, if it names any.
fn named_by_bare(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = open_file(path).ok()?;
    file.take(MOST_BARE).read_to_end(&mut bytes).ok()?;
    let names = globals(&parse(&bytes).ok()?);
    (!names.is_empty()).then(|| names.join(", "))
}

/// The globals of a file that no rule knows: they were not called.
fn globals(pickle: &Pickle) -> Vec<String> {
    let listed = pickle.uncalled().iter().take(LISTED);
    listed.map(|global| format!("`{}`", global.name)).collect()
}

/// Gives the tensors of a list the names of the parameters in their order. What does not fit is a fragment to go after the
/// file's name.
fn name_by_order(average: &mut [NamedTensor], guess: &GuessedShape, what: &str) -> Option<String> {
    let own = parameters(&guess.shape(), guess.backbone);
    if average.len() != own.len() {
        let formula = match guess.backbone {
            Backbone::Dit => "10 N + 10",
            Backbone::Transformer => "8 N + 4",
        };
        return Some(format!(
            "its {what} has {}, expected {} ({formula} with N = {})",
            counted(average.len(), "tensor"),
            own.len(),
            guess.blocks
        ));
    }
    for (tensor, parameter) in average.iter_mut().zip(own) {
        if tensor.dims != parameter.dims {
            return Some(format!(
                "`{}` is {:?}, expected {:?}, which `{}` has",
                tensor.stored, tensor.dims, parameter.dims, parameter.name
            ));
        }
        tensor.name = parameter.name;
    }
    None
}

/// A value as JSON: dicts, lists, texts and numbers, and the same inside objects of OmegaConf, which keep them in `_content`
/// and `_val`. All else, and what lies too deep, is null; so is a text that refers to another setting. `budget` is the number
/// of values that may still be looked at, each as often as the pickle refers to it.
fn plain(pickle: &Pickle, node: PickleNode, depth: usize, budget: &mut usize) -> Value {
    if depth == 0 || *budget == 0 {
        return Value::Null;
    }
    let held = match pickle.value(node) {
        PickleValue::Object(object) => object.state.unwrap_or(node),
        _ => node,
    };
    let held = pickle.entries(held).len().max(pickle.elements(held).len());
    *budget -= 1;
    if held > *budget {
        return Value::Null;
    }
    *budget -= held;
    let inner = |state: PickleNode| ["_content", "_val"].iter().find_map(|key| pickle.get(state, key));
    match pickle.value(node) {
        PickleValue::Bool(flag) => Value::Bool(*flag),
        PickleValue::Int(number) => Value::from(*number),
        PickleValue::Float(number) => Value::from(*number),
        PickleValue::Text(text) if text.starts_with("${") => Value::Null,
        PickleValue::Text(text) => Value::String(text.to_string()),
        PickleValue::Dict { .. } => {
            let mut map = Map::new();
            for (key, value) in pickle.named(node) {
                map.insert(key.to_owned(), plain(pickle, value, depth - 1, budget));
            }
            Value::Object(map)
        }
        PickleValue::List(_) | PickleValue::Tuple(_) => {
            let elements = pickle.elements(node).iter();
            elements
                .map(|element| plain(pickle, *element, depth - 1, budget))
                .collect()
        }
        PickleValue::Object(object) => match object.state.and_then(inner) {
            Some(inner) => plain(pickle, inner, depth - 1, budget),
            None => Value::Null,
        },
        _ => Value::Null,
    }
}

mod average;

#[cfg(test)]
mod tests;
