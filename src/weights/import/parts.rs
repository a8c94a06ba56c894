//! Tensors of a file that are an average of the weights, or no part of the network, and the way out where names do not fit.

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
const COUNTERS: [&str; 5] = ["decay", "num_updates", "n_averaged", "initted", "step"];
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
                if tensor.name == AVERAGED_MODEL
                    || rest.is_some_and(|rest| COUNTERS.contains(&rest))
                    || is_beside
                {
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
            if is_averaged && average.is_empty() && !has_average {
                set.which = Weights::Ema;
            }
            if !average.is_empty() {
                found.push(WeightSet {
                    which: Weights::Ema,
                    tensors: average,
                    store: set.store,
                    fault: None,
                });
            }
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
        // A file of averaged weights alone.
        if self.sets.len() > 1 {
            self.sets.retain(|set| !set.tensors.is_empty());
        }
    }
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
