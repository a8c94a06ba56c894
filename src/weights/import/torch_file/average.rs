//! The average of the weights in a file of `torch.save`, in the layouts that are in use.
//!
//! | layout | program |
//! |---|---|
//! | `ema`: `shadow_params`, a list in the order of the parameters | the authors', `torch_ema` |
//! | `ema`: `shadow_params` or `shadow`, a dict of names | classes of many tutorials |
//! | `ema`, `model_ema`, `ema_model`, `ema_state_dict`, `state_dict_ema`, `ema_params`: a dict of names, or a list | timm, DeiT |
//! | the same with the dict below `state_dict`, `model`, `module` or `params` | `EMA` objects saved by their `state_dict()` |

use super::{Contents, STATES};
use crate::weights::fitting::NamedTensor;
use crate::weights::torch::tensor::TorchFile;
use crate::weights::torch::values::{PickleNode, PickleValue};

/// Keys of a file under which an average lies. The first that is read counts.
pub(super) const AVERAGES: [&str; 6] = [
    "ema_state_dict",
    "ema",
    "model_ema",
    "ema_model",
    "state_dict_ema",
    "ema_params",
];
/// Keys below them under which the weights lie, beside those of a state.
const SHADOWS: [&str; 3] = ["shadow_params", "shadow", "params"];

impl Contents {
    /// Finds the average. What cannot be read is listed with the reason.
    pub(super) fn average(&mut self, file: &TorchFile, root: PickleNode) {
        let pickle = file.pickle();
        let mut taken = None;
        for key in AVERAGES {
            let Some(node) = pickle.get(root, key) else {
                continue;
            };
            if matches!(pickle.value(node), PickleValue::None) {
                continue;
            }
            if let Some(taken) = taken {
                self.skipped
                    .push(format!("`{key}`: not read, since `{taken}` is the average"));
                continue;
            }
            match self.average_at(file, key, node) {
                Ok((tensors, is_list)) => {
                    (self.average, self.is_list) = (tensors, is_list);
                    taken = Some(key);
                }
                Err(reason) => self.unread.push((key.to_owned(), reason)),
            }
        }
        if taken.is_some() {
            self.list_unread();
        }
    }

    /// Lists averages that are not read, and forgets them: another one is.
    pub(super) fn list_unread(&mut self) {
        for (path, reason) in std::mem::take(&mut self.unread) {
            self.skipped.push(format!("`{path}`: not read: {reason}"));
        }
    }

    /// The tensors of an average, and whether they are a list without names.
    fn average_at(
        &mut self,
        file: &TorchFile,
        key: &str,
        node: PickleNode,
    ) -> Result<(Vec<NamedTensor>, bool), String> {
        let pickle = file.pickle();
        let number = |key: &str| pickle.get(node, key);
        let decay = number("decay").and_then(|node| pickle.float(node));
        let updates = number("num_updates");
        // `torch_ema` and the authors' class have `None` for it where the decay is not to rise.
        let is_constant = updates.is_some_and(|node| matches!(pickle.value(node), PickleValue::None));
        let updates = updates.and_then(|node| pickle.int(node));
        let (mut path, mut weights) = (key.to_owned(), node);
        // `{"ema": {"state_dict": {"module": …}}}` at the most.
        for _ in 0..2 {
            let has_tensors = |node| pickle.named(node).values().any(|node| pickle.is_tensor(*node));
            let below = SHADOWS.iter().chain(&STATES);
            let below = below
                .copied()
                .find_map(|key| Some((key, pickle.get(weights, key)?)));
            match below {
                Some((key, below)) if SHADOWS.contains(&key) || !has_tensors(weights) => {
                    path = format!("{path}.{key}");
                    weights = below;
                }
                _ => break,
            }
        }
        let what = |node| pickle.describe(node, 60);
        let list = pickle.elements(weights);
        let tensors = if list.is_empty() {
            let tensors = self.named(file, weights, &format!("{path}."));
            tensors.map_err(|error| error.to_string())?
        } else {
            let mut tensors = Vec::with_capacity(list.len());
            for (index, node) in list.iter().enumerate() {
                if !pickle.is_tensor(*node) {
                    return Err(format!(
                        "element {index} of `{path}` is {}, expected a tensor",
                        what(*node)
                    ));
                }
                let stored = format!("{path}[{index}]");
                let tensor = self.tensor(file, *node);
                let tensor = tensor.map_err(|error| format!("tensor `{stored}`: {error}"))?;
                tensors.push(NamedTensor {
                    name: stored.clone(),
                    stored: stored.clone(),
                    dims: tensor.dims.clone(),
                    dtype: format!("{:?}", tensor.dtype),
                });
                self.tensors.insert(stored, tensor);
            }
            tensors
        };
        if tensors.is_empty() {
            return Err(format!(
                "`{path}` is {}, expected a dict of tensors by name, or a list of them",
                what(weights)
            ));
        }
        self.training.decay = decay;
        self.training.is_decay_constant = is_constant;
        self.training.average_updates = updates.and_then(|updates| u64::try_from(updates).ok());
        Ok((tensors, !list.is_empty()))
    }
}
