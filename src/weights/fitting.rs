//! Whether the tensors of a file are those of a network, and what is wrong where they are not.

use std::fmt::Write as _;

use crate::error::{Error, Result};
use crate::model::{Parameter, parameters};
use crate::shapes::{Backbone, SHAPES, Shape};

/// A buffer in the authors' files that is not a weight: it follows from the shape.
pub const ROTARY_BUFFER: &str = "rotary_emb.inv_freq";

/// What stands before the names of the network's tensors, in any order and number: the authors' release has `backbone.`,
/// wrappers of PyTorch's add the others.
const PREFIXES: [&str; 4] = [super::PREFIX, "model.", "module.", "_orig_mod."];

/// Most faults that one message lists.
const LISTED_FAULTS: usize = 20;

/// Types of numbers that weights are read from.
const FLOATS: [&str; 4] = ["F32", "F16", "BF16", "F64"];

/// A tensor of a file, under the name that the network has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTensor {
    /// The parameter's name.
    pub name: String,
    /// The name in the file.
    pub stored: String,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// The type of its numbers, as safetensors spells it: `F32`, `BF16`.
    pub dtype: String,
}

impl NamedTensor {
    /// A tensor by its name in the file.
    #[must_use]
    pub fn of(stored: &str, dims: &[usize], dtype: impl Into<String>) -> Self {
        Self {
            name: bare(stored).to_owned(),
            stored: stored.to_owned(),
            dims: dims.to_vec(),
            dtype: dtype.into(),
        }
    }

    /// Elements; the largest number where a hostile file states more.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.dims
            .iter()
            .fold(1, |count: usize, dim| count.saturating_mul(*dim))
    }

    /// Whether it holds floating-point numbers that are read.
    #[must_use]
    pub fn is_float(&self) -> bool {
        FLOATS.contains(&&*self.dtype)
    }
}

/// A tensor's name without what wrappers put before it.
#[must_use]
pub fn bare(name: &str) -> &str {
    let mut bare = name;
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| bare.strip_prefix(prefix)) {
        bare = rest;
    }
    bare
}

/// The backbone that a file's tensors are of, by their names; nothing where they are those of no network.
#[must_use]
pub fn held(tensors: &[NamedTensor]) -> Option<Backbone> {
    let has = |part: &str| tensors.iter().any(|tensor| tensor.name.contains(part));
    if has("sigma_map.") || has("adaLN_modulation.") {
        Some(Backbone::Dit)
    } else {
        has("attn_qkv.").then_some(Backbone::Transformer)
    }
}

/// By which tensors a backbone is recognized.
#[must_use]
pub fn marks(held: Backbone) -> &'static str {
    match held {
        Backbone::Dit => "it has `sigma_map` and `adaLN_modulation`",
        Backbone::Transformer => "it has neither `sigma_map` nor `adaLN_modulation`",
    }
}

/// What is wrong with tensors, in the order of the parameters, then of the file.
#[must_use]
pub fn faults(parameters: &[Parameter], tensors: &[NamedTensor]) -> Vec<String> {
    let mut faults = Vec::new();
    for parameter in parameters {
        let mut own = tensors.iter().filter(|tensor| tensor.name == parameter.name);
        let Some(tensor) = own.next() else {
            faults.push(format!("`{}` {:?} is missing", parameter.name, parameter.dims));
            continue;
        };
        if let Some(other) = own.next() {
            let is_without = |tensor: &NamedTensor| tensor.stored == tensor.name;
            faults.push(if is_without(tensor) == is_without(other) {
                format!(
                    "`{}` is present twice: `{}` and `{}`",
                    parameter.name, tensor.stored, other.stored
                )
            } else {
                format!(
                    "`{}` is present both with the prefix and without it",
                    parameter.name
                )
            });
        }
        // Of a tensor that is not read the dimensions may be unknown.
        if tensor.dims != parameter.dims && (tensor.is_float() || !tensor.dims.is_empty()) {
            faults.push(format!(
                "`{}` is {:?}, expected {:?}",
                tensor.stored, tensor.dims, parameter.dims
            ));
        }
        if !tensor.is_float() {
            faults.push(format!(
                "`{}` is of type {}, expected F32, F16, BF16 or F64",
                tensor.stored, tensor.dtype
            ));
        }
    }
    for tensor in tensors {
        let is_own = |parameter: &Parameter| parameter.name == tensor.name;
        if tensor.name != ROTARY_BUFFER && !parameters.iter().any(is_own) {
            faults.push(format!("`{}` is not a tensor of the network", tensor.stored));
        }
    }
    faults
}

/// Checks that tensors are those of a shape's backbone. `described` names the file, `what` the tensors in it.
///
/// # Errors
/// It says if the file holds the other backbone, lists the faults, and names the compiled shape that would fit, if one would.
pub(super) fn check(
    (described, what): (&str, &str),
    shape: &Shape,
    backbone: Backbone,
    tensors: &[NamedTensor],
) -> Result<()> {
    let mut faults = faults(&parameters(shape, backbone), tensors);
    if faults.is_empty() {
        return Ok(());
    }
    let mut text = format!("{described}: its {what} do not fit shape `{}`:", shape.name);
    if let Some(held) = held(tensors).filter(|held| *held != backbone) {
        let has = marks(held);
        let _ = write!(text, "\n  the file holds a {held} ({has}), expected a {backbone}");
        faults = self::faults(&parameters(shape, held), tensors);
    }
    for fault in faults.iter().take(LISTED_FAULTS) {
        text += "\n  ";
        text += fault;
    }
    if faults.len() > LISTED_FAULTS {
        text = format!("{text}\n  and {} more", faults.len() - LISTED_FAULTS);
    }
    let error = Error::input(text);
    let fits = |backbone| {
        let is_whole = |shape: &&Shape| self::faults(&parameters(shape, backbone), tensors).is_empty();
        Some((SHAPES.iter().find(is_whole)?, backbone))
    };
    Err(match Backbone::ALL.into_iter().find_map(fits) {
        Some((fits, held)) if held == backbone => error.hint(format!("they fit shape `{}`", fits.name)),
        Some((fits, held)) => error.hint(format!("they fit a {held} of shape `{}`", fits.name)),
        None => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoint_names_are_those_behind_the_prefixes_of_wrappers() {
        for name in [
            "blocks.0.norm1.weight",
            "backbone.blocks.0.norm1.weight",
            "module.backbone.blocks.0.norm1.weight",
            "_orig_mod.backbone.blocks.0.norm1.weight",
            "backbone._orig_mod.blocks.0.norm1.weight",
            "model.blocks.0.norm1.weight",
            "module._orig_mod.model.blocks.0.norm1.weight",
        ] {
            assert_eq!(bare(name), "blocks.0.norm1.weight", "{name}");
        }
        assert_eq!(bare("transformer.wte.weight"), "transformer.wte.weight");
        assert_eq!(bare("backbone."), "");
    }

    #[test]
    fn checkpoint_with_a_parameter_twice_is_refused() {
        let shape = SHAPES.find("nano").unwrap();
        let parameters = parameters(shape, Backbone::Dit);
        let mut tensors: Vec<_> = parameters
            .iter()
            .map(|own| NamedTensor::of(&format!("module.{}", own.name), &own.dims, "F32"))
            .collect();
        assert!(check(("`f`", "weights"), shape, Backbone::Dit, &tensors).is_ok());
        tensors.push(NamedTensor::of("model.blocks.0.norm1.weight", &[64], "F32"));
        tensors[0].dtype = "I64".to_owned();
        let error = check(("`f`", "weights"), shape, Backbone::Dit, &tensors).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("twice: `module.blocks.0.norm1.weight` and `model.blocks.0.norm1.weight`"),
            "{text}"
        );
        assert!(text.contains("is of type I64"), "{text}");
    }
}
