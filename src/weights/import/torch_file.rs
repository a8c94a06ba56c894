//! Files of `torch.save`: where their weights are, and what PyTorch Lightning and the authors' code put beside them.
//!
//! | key | what it is |
//! |---|---|
//! | `state_dict`, `model_state_dict`, `model`, `module`, or the file itself | the weights of the last step, by name |
//! | `ema` | their average: `shadow_params` is a list without names, in the order of the parameters; `decay`, `num_updates` |
//! | `ema_state_dict` | an average by name |
//! | `global_step` or `step`, `epoch` | counters |
//! | `optimizer_states` or `optimizer` | AdamW's moments, by the number of the parameter |
//! | `hyper_parameters` | the settings of the run, as objects of OmegaConf, which are read as data |

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::config::ConfigFacts;
use super::guess::GuessedShape;
use super::store::TensorStore;
use super::{TrainingFacts, WeightSet};
use crate::error::{Context as _, Error, Result};
use crate::manifest::Weights;
use crate::model::parameters;
use crate::plural::counted;
use crate::shapes::{Backbone, Shape};
use crate::weights::fitting::NamedTensor;
use crate::weights::torch::tensor::{TorchFile, TorchTensor};
use crate::weights::torch::values::{Pickle, PickleNode, PickleValue};

/// Keys under which the weights lie.
const STATES: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];
/// Nesting of settings that is read.
const DEEPEST: usize = 16;
/// Values of settings that are read.
const MOST_SETTINGS: usize = 10_000;
/// Globals that are listed.
const LISTED: usize = 20;

/// The tensors of a file, by the names that this module gives them.
#[derive(Debug)]
pub(super) struct TorchStore {
    file: TorchFile,
    tensors: HashMap<String, TorchTensor>,
}

impl TensorStore for TorchStore {
    fn floats(&mut self, stored: &str, into: &mut [f32]) -> Result<()> {
        let tensor = self.tensors.get(stored);
        let tensor = tensor.ok_or_else(|| Error::internal(format!("tensor `{stored}` got lost")))?;
        self.file
            .floats(tensor, into)
            .context(|| format!("tensor `{stored}`"))
    }
}

/// What a file holds.
pub(super) struct TorchContents {
    pub store: TorchStore,
    pub sets: Vec<WeightSet>,
    pub training: TrainingFacts,
    pub skipped: Vec<String>,
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
    let file = TorchFile::open(path)?;
    let bytes = std::fs::metadata(path).context(context)?.len();
    Contents::read(&file, bytes)
        .context(context)
        .map(|contents| contents.finish(file, facts))
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
        let has_tensors = |node: PickleNode| {
            pickle
                .named(node)
                .iter()
                .any(|(_, value)| pickle.is_tensor(*value))
        };
        let inner = STATES
            .iter()
            .filter_map(|key| pickle.get(root, key))
            .find(|node| has_tensors(*node));
        let state = inner.or_else(|| has_tensors(root).then_some(root));
        let Some(state) = state else {
            let keys: Vec<_> = pickle
                .named(root)
                .into_iter()
                .take(LISTED)
                .map(|(key, _)| format!("`{key}`"))
                .collect();
            let has = if keys.is_empty() {
                format!("it holds {}", pickle.describe(root, 60))
            } else {
                format!("it has {}", keys.join(", "))
            };
            return Err(Error::input(format!("no weights are found: {has}")).hint(
                "a state_dict is expected, alone or under `state_dict`: `torch.save(model.state_dict(), FILE)`",
            ));
        };
        found.raw = found.named(file, state, "")?;
        found.average(file, root)?;
        let number = |keys: &[&str]| {
            let node = keys.iter().find_map(|key| pickle.get(root, key))?;
            u64::try_from(pickle.int(node)?).ok()
        };
        if state != root {
            found.training.steps = number(&["global_step", "step"]);
            found.training.epoch = number(&["epoch"]);
        }
        let optimizer = match pickle.get(root, "optimizer_states") {
            Some(list) => pickle.elements(list).first().copied(),
            None => pickle.get(root, "optimizer").filter(|_| state != root),
        };
        let moments = optimizer.and_then(|optimizer| pickle.get(optimizer, "state"));
        found.training.moments = moments
            .map(|moments| pickle.entries(moments).len())
            .filter(|count| *count > 0);
        found.settings(pickle)?;
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

    /// A tensor that has not more elements than the file has bytes: one may repeat its elements, and a small file could state
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

    /// The average of the weights, with or without names.
    fn average(&mut self, file: &TorchFile, root: PickleNode) -> Result<()> {
        let pickle = file.pickle();
        if let Some(named) = pickle.get(root, "ema_state_dict") {
            self.average = self.named(file, named, "ema_state_dict.")?;
            return Ok(());
        }
        let Some(ema) = pickle.get(root, "ema") else {
            return Ok(());
        };
        self.training.decay = pickle.get(ema, "decay").and_then(|node| pickle.float(node));
        let updates = pickle.get(ema, "num_updates").and_then(|node| pickle.int(node));
        self.training.average_updates = updates.and_then(|updates| u64::try_from(updates).ok());
        let Some(list) = pickle.get(ema, "shadow_params") else {
            self.average = self.named(file, ema, "ema.")?;
            return Ok(());
        };
        self.is_list = true;
        for (index, node) in pickle.elements(list).iter().enumerate() {
            let stored = format!("ema.shadow_params[{index}]");
            let tensor = self
                .tensor(file, *node)
                .context(|| format!("tensor `{stored}`"))?;
            self.average.push(NamedTensor {
                name: stored.clone(),
                stored: stored.clone(),
                dims: tensor.dims.clone(),
                dtype: format!("{:?}", tensor.dtype),
            });
            self.tensors.insert(stored, tensor);
        }
        Ok(())
    }

    /// The settings of the run, where they are such that they can be read as data.
    fn settings(&mut self, pickle: &Pickle) -> Result<()> {
        const PLACE: &str = "hyper_parameters";
        let Some(node) = pickle.find(&[PLACE, "config"]).or_else(|| pickle.find(&[PLACE])) else {
            return Ok(());
        };
        let mut budget = MOST_SETTINGS;
        let json = plain(pickle, node, DEEPEST, &mut budget);
        if json.get("model").is_some_and(Value::is_object) {
            self.facts = Some(ConfigFacts::read(PLACE, &json).context(|| format!("`{PLACE}`"))?);
        }
        Ok(())
    }

    fn finish(mut self, file: TorchFile, facts: Option<&ConfigFacts>) -> TorchContents {
        let facts = facts.or(self.facts.as_ref());
        let mut fault = None;
        if self.is_list {
            match GuessedShape::of(&self.raw, facts) {
                Some(guess) => fault = name_by_order(&mut self.average, &guess),
                None => {
                    fault =
                        Some("its average has no names, and its weights are no network of mdlm's".to_owned())
                }
            }
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
            training: self.training,
            skipped: self.skipped,
            facts: self.facts,
            is_lightning: self.is_lightning,
        }
    }
}

/// Gives the tensors of a list the names of the parameters in their order. What does not fit is a fragment to go after the
/// file's name.
fn name_by_order(average: &mut [NamedTensor], guess: &GuessedShape) -> Option<String> {
    let shape = Shape {
        name: "",
        vocabulary: guess.vocabulary,
        length: guess.length.unwrap_or(1),
        width: guess.width,
        heads: guess.heads.unwrap_or(1),
        blocks: guess.blocks,
        conditioning: guess.conditioning.unwrap_or(1),
    };
    let own = parameters(&shape, guess.backbone);
    if average.len() != own.len() {
        let formula = match guess.backbone {
            Backbone::Dit => "10 N + 10",
            Backbone::Transformer => "8 N + 4",
        };
        return Some(format!(
            "its average has {}, expected {} ({formula} with N = {})",
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
/// and `_val`. All else, and what lies too deep, is null; so is a text that refers to another setting.
fn plain(pickle: &Pickle, node: PickleNode, depth: usize, budget: &mut usize) -> Value {
    if depth == 0 || *budget == 0 {
        return Value::Null;
    }
    *budget -= 1;
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

#[cfg(test)]
mod tests {
    use super::super::{CheckpointForm, ForeignCheckpoint};
    use super::*;
    use crate::model::initial;
    use crate::shapes::SHAPES;
    use crate::weights::torch::dtype::TorchDtype;
    use crate::weights::torch::write::{TorchItem, TorchWriter};

    fn nano() -> &'static Shape {
        SHAPES.find("nano").unwrap()
    }

    fn tensor(dims: &[usize]) -> TorchItem {
        TorchItem::Tensor(TorchDtype::F32, dims.to_vec())
    }

    fn int(number: i64) -> TorchItem {
        TorchItem::Int(number)
    }

    fn text(text: &str) -> TorchItem {
        TorchItem::Text(text.to_owned())
    }

    fn dict(items: Vec<(&str, TorchItem)>) -> TorchItem {
        TorchItem::Dict(
            items
                .into_iter()
                .map(|(name, item)| TorchItem::named(name, item))
                .collect(),
        )
    }

    fn save(path: &Path, item: &TorchItem, values: &[f32]) {
        let mut writer = TorchWriter::create(path, item).unwrap();
        writer.append(values).unwrap();
        writer.finish().unwrap();
    }

    fn state_dict(backbone: Backbone, prefix: &str) -> TorchItem {
        let own = parameters(nano(), backbone);
        let named = |name: &str, dims: &[usize]| TorchItem::named(&format!("{prefix}{name}"), tensor(dims));
        TorchItem::OrderedDict(own.iter().map(|own| named(&own.name, &own.dims)).collect())
    }

    /// The values of a run as PyTorch Lightning saves it, with `shadow` as the dimensions of the average; and its numbers: the
    /// weights, the average, the moments.
    fn lightning(backbone: Backbone, shadow: &[Vec<usize>]) -> (TorchItem, Vec<f32>, Vec<f32>) {
        let own = parameters(nano(), backbone);
        let moments = own.iter().enumerate().map(|(index, own)| {
            let state = dict(vec![
                ("step", int(7)),
                ("exp_avg", tensor(&own.dims)),
                ("exp_avg_sq", tensor(&own.dims)),
            ]);
            (int(index as i64), state)
        });
        let config = dict(vec![
            ("parameterization", text("subs")),
            ("T", int(0)),
            ("time_conditioning", TorchItem::Bool(false)),
            ("noise", dict(vec![("type", text("loglinear"))])),
            (
                "model",
                dict(vec![
                    ("length", int(32)),
                    ("hidden_size", int(64)),
                    ("n_heads", int(2)),
                    ("n_blocks", int(2)),
                    ("cond_dim", text("${cond}")),
                ]),
            ),
        ]);
        let item = dict(vec![
            ("epoch", int(3)),
            ("global_step", int(1_000)),
            ("pytorch-lightning_version", text("2.2.1")),
            ("state_dict", state_dict(backbone, "backbone.")),
            (
                "ema",
                dict(vec![
                    ("decay", TorchItem::Float(0.9999)),
                    ("num_updates", int(999)),
                    (
                        "shadow_params",
                        TorchItem::List(shadow.iter().map(|dims| tensor(dims)).collect()),
                    ),
                ]),
            ),
            (
                "optimizer_states",
                TorchItem::List(vec![dict(vec![("state", TorchItem::Dict(moments.collect()))])]),
            ),
            ("hyper_parameters", dict(vec![("config", config)])),
        ]);
        let raw = initial(nano(), backbone, 1);
        let elements: usize = shadow.iter().map(|dims| dims.iter().product::<usize>()).sum();
        let average: Vec<f32> = (0..elements).map(|i| (i % 1000) as f32).collect();
        let mut values = [raw, average.clone()].concat();
        values.resize(
            values.len() + 2 * own.iter().map(crate::model::Parameter::len).sum::<usize>(),
            0.5,
        );
        (item, values, average)
    }

    fn dims(backbone: Backbone) -> Vec<Vec<usize>> {
        parameters(nano(), backbone)
            .into_iter()
            .map(|own| own.dims)
            .collect()
    }

    #[test]
    fn checkpoint_of_lightning_has_weights_average_and_counters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.ckpt");
        for (backbone, count) in [(Backbone::Dit, 30), (Backbone::Transformer, 20)] {
            let (item, values, average) = lightning(backbone, &dims(backbone));
            save(&path, &item, &values);
            let mut checkpoint = ForeignCheckpoint::at(&path).unwrap();
            assert_eq!(checkpoint.form(), CheckpointForm::Lightning);
            assert_eq!(dims(backbone).len(), count);
            assert_eq!(
                *checkpoint.training(),
                TrainingFacts {
                    steps: Some(1_000),
                    epoch: Some(3),
                    decay: Some(0.9999),
                    average_updates: Some(999),
                    moments: Some(count),
                }
            );
            assert_eq!(checkpoint.choose(None).unwrap(), Weights::Ema);
            assert!(checkpoint.read(nano(), backbone, Weights::Ema).unwrap() == average);
            assert!(checkpoint.read(nano(), backbone, Weights::Raw).unwrap() == initial(nano(), backbone, 1));
            let facts = checkpoint.facts().unwrap();
            assert_eq!(
                (facts.heads, facts.length, facts.conditioning),
                (Some(2), Some(32), None)
            );
            assert_eq!(facts.objective.unwrap().kind(), "mdlm");
            assert_eq!(checkpoint.guess().unwrap().fitting()[0].name, "nano");
        }
    }

    #[test]
    fn checkpoint_average_is_matched_by_position_with_every_dimension_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last.ckpt");
        let refused = |shadow: &[Vec<usize>]| {
            let (item, values, _) = lightning(Backbone::Dit, shadow);
            save(&path, &item, &values);
            let mut checkpoint = ForeignCheckpoint::at(&path).unwrap();
            checkpoint.read(nano(), Backbone::Dit, Weights::Raw).unwrap();
            let error = checkpoint.read(nano(), Backbone::Dit, Weights::Ema).unwrap_err();
            assert!(error.hint_text().unwrap().contains("\"weights\": \"raw\""));
            error.to_string()
        };
        let whole = dims(Backbone::Dit);
        let error = refused(&whole[..29]);
        assert!(
            error.contains("its average has 29 tensors, expected 30 (10 N + 10 with N = 2)"),
            "{error}"
        );
        let mut swapped = whole;
        swapped.swap(5, 6);
        let error = refused(&swapped);
        assert!(
            error.contains(
                "`ema.shadow_params[5]` is [192, 64], expected [64], which `blocks.0.norm1.weight`"
            )
        );
    }

    #[test]
    fn checkpoint_of_torch_is_a_state_dict_alone_or_below_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.pt");
        let values = initial(nano(), Backbone::Dit, 2);
        let bare = state_dict(Backbone::Dit, "module.");
        let below = dict(vec![
            ("model", state_dict(Backbone::Dit, "module.")),
            ("step", int(5)),
        ]);
        for (item, steps) in [(bare, None), (below, Some(5))] {
            save(&path, &item, &values);
            let mut checkpoint = ForeignCheckpoint::at(&path).unwrap();
            assert_eq!(
                (checkpoint.form(), checkpoint.training().steps),
                (CheckpointForm::Torch, steps)
            );
            let which = checkpoint.choose(None).unwrap();
            assert_eq!(which, Weights::Raw);
            assert!(checkpoint.read(nano(), Backbone::Dit, which).unwrap() == values);
        }
        save(&path, &dict(vec![("a", int(1)), ("b", text("x"))]), &[]);
        let error = ForeignCheckpoint::at(&path).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("no weights are found: it has `a`, `b`"),
            "{error}"
        );
        save(&path, &TorchItem::List(vec![int(1)]), &[]);
        let error = ForeignCheckpoint::at(&path).unwrap_err();
        assert!(
            error.to_string().contains("no weights are found: it holds"),
            "{error}"
        );
    }
}
