//! Tensors of a file that are an average of the weights, or no part of the network, and the way out where names do not fit.

use std::collections::{BTreeSet, HashMap};

use indexmap::IndexMap;

use super::guess::GuessedShape;
use super::{ForeignCheckpoint, WeightSet};
use crate::error::Error;
use crate::manifest::Weights;
use crate::model::parameters;
use crate::plural::counted;
use crate::shapes::{Backbone, Shape};
use crate::weights::fitting::{NamedTensor, ROTARY_BUFFER, bare};

/// What stands before the names of averaged weights that lie among the others.
const AVERAGES: [&str; 5] = ["ema.", "ema_model.", "model_ema.", "ema_state_dict.", "averaged."];
/// Counters among averaged weights.
const COUNTERS: [&str; 5] = [DECAY, UPDATES, AVERAGED_MODEL, "initted", "step"];
/// The decay of an average.
const DECAY: &str = "decay";
/// Its updates.
const UPDATES: &str = "num_updates";
/// With it PyTorch's `AveragedModel` counts, whose weights are then an average.
const AVERAGED_MODEL: &str = "n_averaged";
/// A tensor that every network has.
const EMBEDDING: &str = "vocab_embed.embedding";

impl ForeignCheckpoint {
    /// Takes averaged weights among the others as a set of their own, and lists what is no part of the network: the buffers of
    /// noise schedules and the sums of metrics, which a Lightning module saves beside it.
    pub(super) fn part(&mut self) {
        let has_average = self.sets.iter().any(|set| set.which == Weights::Ema);
        let mut found = Vec::new();
        let mut aside = IndexMap::<String, usize>::new();
        for set in self.sets.iter_mut().filter(|set| set.which == Weights::Raw) {
            let mut average = Vec::new();
            let is_averaged = set.tensors.iter().any(|tensor| tensor.name == AVERAGED_MODEL);
            set.tensors.retain(|tensor| {
                let rest = AVERAGES
                    .iter()
                    .find_map(|prefix| tensor.name.strip_prefix(prefix));
                let rest = rest.map(bare);
                let own = tensor.name.split('.').next().unwrap_or_default();
                let is_beside = own == "noise" || own.contains("metric") && own != tensor.name;
                if tensor.name == AVERAGED_MODEL || is_beside {
                    let name = if is_beside { own } else { &tensor.stored };
                    *aside.entry(name.to_owned()).or_default() += 1;
                    return false;
                }
                if let Some(rest) = rest {
                    let name = rest.to_owned();
                    average.push(NamedTensor {
                        name,
                        ..tensor.clone()
                    });
                }
                rest.is_none()
            });
            if average.iter().all(is_counter) {
                for counter in average {
                    *aside.entry(counter.stored).or_default() += 1;
                }
                if is_averaged && !has_average {
                    set.which = Weights::Ema;
                }
                continue;
            }
            found.push(WeightSet {
                which: Weights::Ema,
                tensors: average,
                store: set.store,
                fault: None,
            });
        }
        for (name, count) in aside {
            let count = counted(count, "tensor");
            self.skipped.push(format!("`{name}`: {count} beside the network"));
        }
        for set in found {
            if has_average {
                let count = counted(set.tensors.len(), "tensor");
                let first = set.tensors.first().map_or("", |tensor| &tensor.stored);
                self.skipped
                    .push(format!("`{first}`: {count} of another average, not read"));
            } else {
                self.sets.push(set);
            }
        }
        self.complete_averages();
        // A file of averaged weights alone.
        if self.sets.len() > 1 {
            self.sets.retain(|set| !set.tensors.is_empty());
        }
    }

    /// Gives averaged weights the network's names where they have them without dots, and reads the counters among them.
    fn complete_averages(&mut self) {
        let raw = self.sets.iter().filter(|set| set.which == Weights::Raw);
        let raw: Vec<_> = raw.flat_map(|set| set.tensors.iter().cloned()).collect();
        let mut counters = Vec::new();
        for set in self.sets.iter_mut().filter(|set| set.which == Weights::Ema) {
            let (found, tensors): (Vec<_>, Vec<_>) =
                std::mem::take(&mut set.tensors).into_iter().partition(is_counter);
            counters.extend(found.into_iter().map(|counter| (set.store, counter)));
            set.tensors = tensors;
            if set.fault.is_none() {
                set.fault = restore_dots(&mut set.tensors, &raw);
            }
        }
        for (store, counter) in counters {
            let read = self.read_counter(store, &counter);
            if let Err(why) = read {
                let name = &counter.stored;
                self.skipped.push(match why {
                    Some(error) => format!("`{name}`: not read: {error}"),
                    None => format!("`{name}`: 1 tensor beside the network"),
                });
            }
        }
    }

    /// Reads a counter of an average.
    ///
    /// # Errors
    /// It cannot be read; nothing where it is one that is not used.
    fn read_counter(&mut self, store: usize, counter: &NamedTensor) -> Result<(), Option<Error>> {
        let store = self.stores.get_mut(store);
        let store = store.ok_or_else(|| Error::internal("the store of an average got lost"))?;
        match &*counter.name {
            DECAY => {
                let mut decay = [0.0];
                store.floats(&counter.stored, &mut decay)?;
                // The decimal number that its f32 stands for: 0.9999 and not 0.9998999834.
                let decay = decay[0].to_string().parse().ok();
                self.training.decay = decay;
                self.training.settings.ema = decay.or(self.training.settings.ema);
            }
            UPDATES => {
                let mut updates = [0];
                store.integers(&counter.stored, &mut updates)?;
                // Below zero: the updates are not counted, and the decay does not rise.
                self.training.average_updates = u64::try_from(updates[0]).ok();
                self.training.is_decay_constant = updates[0] < 0;
            }
            _ => return Err(None),
        }
        Ok(())
    }
}

/// Whether a tensor among averaged weights counts and is no weight.
fn is_counter(tensor: &NamedTensor) -> bool {
    COUNTERS.contains(&&*tensor.name)
}

/// Gives averaged weights without dots in their names those of `raw`: `backboneblocks0norm1weight` is an average of
/// `backbone.blocks.0.norm1.weight`, since a buffer of PyTorch's has no dots in its name (`LitEma` of CompVis/stable-diffusion,
/// `ldm/modules/ema.py`). The average may be that of the whole module or of a part, so that prefixes may be absent. A name
/// that stands for no tensor or for several is a fault: a fragment to go after the file's name.
fn restore_dots(average: &mut [NamedTensor], raw: &[NamedTensor]) -> Option<String> {
    if average.iter().all(|tensor| tensor.name.contains('.')) {
        return None;
    }
    let mut names = HashMap::<String, BTreeSet<&str>>::new();
    for tensor in raw {
        let mut suffix = &*tensor.stored;
        loop {
            names
                .entry(suffix.replace('.', ""))
                .or_default()
                .insert(&tensor.name);
            match suffix.split_once('.') {
                Some((_, rest)) if rest.len() >= tensor.name.len() => suffix = rest,
                _ => break,
            }
        }
    }
    for tensor in average.iter_mut().filter(|tensor| !tensor.name.contains('.')) {
        let found: Option<Vec<_>> = names.get(&tensor.name).map(|names| names.iter().collect());
        match found.as_deref() {
            Some([name]) => (**name).clone_into(&mut tensor.name),
            Some([first, second, ..]) => {
                return Some(format!(
                    "the name of the average `{}` has no dots, and stands both for `{first}` and for `{second}`",
                    tensor.stored
                ));
            }
            _ => {
                return Some(format!(
                    "the name of the average `{}` has no dots, and no tensor beside the average has this name with dots",
                    tensor.stored
                ));
            }
        }
    }
    None
}

/// What stands before the names of a network's tensors and is not known: `the prefix `net.``. Nothing where there is no such
/// network.
pub(super) fn unknown_prefixes(tensors: &[NamedTensor]) -> Option<String> {
    let prefix = |tensor: &NamedTensor| {
        let prefix = tensor.stored.strip_suffix(EMBEDDING)?;
        (prefix.ends_with('.') && tensor.name != EMBEDDING).then(|| format!("`{prefix}`"))
    };
    let all: Vec<String> = tensors.iter().filter_map(prefix).collect();
    match &all[..] {
        [] => None,
        [one] => Some(format!("the prefix {one}")),
        several => Some(format!("the prefixes {}", several.join(", "))),
    }
}

/// The error of a network whose names have such a prefix.
pub(super) fn with_unknown_prefix(place: &str, prefixes: &str, tensors: &[NamedTensor]) -> Error {
    let first = tensors
        .iter()
        .find_map(|tensor| tensor.stored.strip_suffix(EMBEDDING));
    let first = first.unwrap_or_default();
    Error::input(format!(
        "{place}: its tensors have {prefixes}, which mdlm does not know: `{first}{EMBEDDING}`"
    ))
    .hint(format!(
        "save them without it: `{{name.removeprefix(\"{first}\"): tensor for name, tensor in state.items() if \
         name.startswith(\"{first}\")}}`"
    ))
}

/// What to do about tensors that do not fit a shape's backbone.
pub(super) fn way_out(
    guess: Option<&GuessedShape>,
    shape: &Shape,
    backbone: Backbone,
    tensors: &[NamedTensor],
) -> String {
    let Some(guess) = guess else {
        return "`mdlm checkpoint FILE --all` lists the tensors: those of MDLM's release are expected, such as \
                `backbone.vocab_embed.embedding`"
            .to_owned();
    };
    if guess.check_shape(shape).is_err() {
        return guess.way_out();
    }
    if guess.backbone != backbone {
        let kinds = match guess.backbone {
            Backbone::Dit => "`mdlm`, `sedd`, `d3pm` or `mlm`",
            Backbone::Transformer => "`ar`",
        };
        return format!(
            "state an objective that a {} is trained for: {kinds}",
            guess.backbone
        );
    }
    let own = parameters(shape, backbone);
    let is_own = |tensor: &&NamedTensor| {
        tensor.name == ROTARY_BUFFER || own.iter().any(|parameter| parameter.name == tensor.name)
    };
    if let Some(tensor) = tensors.iter().filter(is_own).find(|tensor| !tensor.is_float()) {
        return format!(
            "convert `{}` with PyTorch, `tensor.float()`, and save the file again",
            tensor.stored
        );
    }
    match tensors.iter().find(|tensor| !is_own(tensor)) {
        Some(tensor) => format!(
            "save the file without the tensors that are not of the network: `del state[\"{}\"]`; if the network uses them, \
             it is another one",
            tensor.stored
        ),
        None => "save all tensors of the network: `torch.save(model.state_dict(), FILE)`".to_owned(),
    }
}
