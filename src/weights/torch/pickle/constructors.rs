//! The functions that a pickle may call, each as a rule on values. A call of any other is kept as data.

use super::Unpickler;
use crate::error::Result;
use crate::weights::torch::dtype::{TorchDtype, is_storage};
use crate::weights::torch::values::{PickleNode, PickleObject, PickleValue, cut};

/// Most dimensions of a tensor, PyTorch's own limit.
const MOST_DIMENSIONS: usize = 64;

/// The place of `metadata` among the arguments of `torch._utils._rebuild_tensor_v2` behind the strides.
const METADATA: usize = 2;

/// Bytes of a key of metadata that an error shows.
const LONGEST_KEY: usize = 60;

/// A global that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// `collections.OrderedDict`.
    OrderedDict,
    /// `torch._utils._rebuild_tensor(storage, offset, size, stride)`; `_v2` has the further arguments `requires_grad`, `hooks`
    /// and `metadata`, of which the last one may state that the values are negated or conjugated.
    RebuildTensor,
    /// `torch._utils._rebuild_parameter(data, requires_grad, hooks)`, and the same with a state: the data.
    RebuildParameter,
    /// `torch._tensor._rebuild_from_type_v2(function, type, args, state)`: a tensor with attributes.
    RebuildFromType,
    /// `torch.Size`: the tuple that it is made of.
    Size,
    /// `_codecs.encode`, with which protocol 2 writes bytes.
    Encode,
    /// `bytes`, with which protocol 2 writes those of length 0.
    EmptyBytes,
    /// A numpy scalar: a Python number, if its type is a usual one.
    Scalar,
    /// A class of storages.
    Storage,
    /// A type or device: kept as an object, and harmless.
    Plain,
}

/// The rule of a global, by `module.name`.
pub(super) fn known(name: &str) -> Option<Known> {
    Some(match name {
        "collections.OrderedDict" => Known::OrderedDict,
        "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2" => Known::RebuildTensor,
        "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
            Known::RebuildParameter
        }
        "torch._tensor._rebuild_from_type_v2" => Known::RebuildFromType,
        "torch.Size" => Known::Size,
        "_codecs.encode" => Known::Encode,
        "__builtin__.bytes" | "builtins.bytes" => Known::EmptyBytes,
        "numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar" => Known::Scalar,
        "numpy.dtype" | "torch.device" | "torch.Tensor" | "torch.nn.parameter.Parameter" => Known::Plain,
        name if is_storage(name) => Known::Storage,
        name if TorchDtype::is_name(name) => Known::Plain,
        _ => return None,
    })
}

impl Unpickler<'_> {
    /// The result of a call.
    ///
    /// # Errors
    /// The arguments of a known function are not those that PyTorch writes.
    pub(super) fn call(&mut self, callable: PickleNode, args: PickleNode) -> Result<PickleNode> {
        let rule = match self.value(callable) {
            PickleValue::Global(name) => known(name),
            _ => None,
        };
        let arguments = match self.value(args) {
            // Its length is checked before it is copied.
            PickleValue::Tuple(arguments) if arguments.len() <= 8 => arguments.to_vec(),
            _ if rule.is_some_and(|rule| rule != Known::Plain) => {
                return Err(self.fault("calls a known function with arguments that are not a short tuple"));
            }
            _ => Vec::new(),
        };
        match (rule, &arguments[..]) {
            (Some(Known::OrderedDict), []) => self.make(PickleValue::Dict {
                entries: Vec::new(),
                state: None,
            }),
            (Some(Known::OrderedDict), &[pairs]) => self.ordered_dict(pairs),
            (Some(Known::RebuildTensor), [_, _, _, _, ..]) => self.tensor(&arguments),
            (Some(Known::RebuildParameter), &[data, ..]) => self.parameter(data),
            (Some(Known::RebuildFromType), &[function, _, inner, _]) => self.typed_tensor(function, inner),
            (Some(Known::Size), []) => self.make(PickleValue::Tuple(Box::default())),
            (Some(Known::Size), &[dims]) => match self.value(dims) {
                PickleValue::Tuple(_) => Ok(dims),
                _ => Err(self.fault("makes a `torch.Size` of something other than a tuple")),
            },
            (Some(Known::EmptyBytes), []) => self.make(PickleValue::Bytes(Box::default())),
            (Some(Known::Encode), &[text, encoding]) => match self.latin1(text, encoding)? {
                Some(bytes) => Ok(bytes),
                None => self.opaque(callable, args),
            },
            (Some(Known::Scalar), &[dtype, bytes]) => match self.numpy_scalar(dtype, bytes) {
                Some(value) => self.make(value),
                None => self.opaque(callable, args),
            },
            (
                Some(
                    Known::OrderedDict
                    | Known::RebuildTensor
                    | Known::RebuildParameter
                    | Known::RebuildFromType
                    | Known::Size,
                ),
                arguments,
            ) => Err(self.fault(&format!(
                "calls `{}` with {} arguments",
                self.global_name(callable),
                arguments.len()
            ))),
            _ => self.opaque(callable, args),
        }
    }

    /// A call that does not take place.
    pub(super) fn opaque(&mut self, callable: PickleNode, args: PickleNode) -> Result<PickleNode> {
        self.count_uncalled(callable);
        self.make(PickleValue::Object(Box::new(PickleObject {
            callable,
            args,
            named_args: None,
            state: None,
            entries: Vec::new(),
            elements: Vec::new(),
        })))
    }

    /// An ordered dict of a list of pairs, as Python 2 wrote them.
    fn ordered_dict(&mut self, pairs: PickleNode) -> Result<PickleNode> {
        // A list may be copied as often as it is named: the sum of the copies is bounded.
        self.spend_copies(self.elements(pairs).map_or(0, <[_]>::len))?;
        let pair = |&pair: &PickleNode| match self.elements(pair) {
            Some(&[key, value]) => Some((key, value)),
            _ => None,
        };
        let entries: Option<Vec<_>> = self
            .elements(pairs)
            .and_then(|pairs| pairs.iter().map(pair).collect());
        match entries {
            Some(entries) => self.make(PickleValue::Dict { entries, state: None }),
            None => Err(self.fault("makes an ordered dict of something other than pairs")),
        }
    }

    /// The elements of a list or tuple.
    fn elements(&self, node: PickleNode) -> Option<&[PickleNode]> {
        match self.value(node) {
            PickleValue::List(elements) => Some(elements),
            PickleValue::Tuple(elements) => Some(elements),
            _ => None,
        }
    }

    /// A tensor of the arguments storage, offset, dimensions, strides; of the further ones `metadata` is looked at.
    fn tensor(&mut self, arguments: &[PickleNode]) -> Result<PickleNode> {
        let &[storage, offset, dims, strides, ref further @ ..] = arguments else {
            return Err(self.fault(&format!(
                "calls `torch._utils._rebuild_tensor` with {} arguments",
                arguments.len()
            )));
        };
        if let Some(&metadata) = further.get(METADATA) {
            self.check_metadata(metadata)?;
        }
        if !matches!(self.value(storage), PickleValue::Storage { .. }) {
            return Err(self.fault("makes a tensor of something other than a storage"));
        }
        let offset = match self.value(offset) {
            PickleValue::Int(offset) if *offset >= 0 => *offset as u64,
            _ => return Err(self.fault("makes a tensor whose offset is not a whole number from 0 on")),
        };
        let ranks = [self.rank(dims)?, self.rank(strides)?];
        if ranks[0] != ranks[1] {
            return Err(self.fault(&format!(
                "makes a tensor of {} dimensions with {} strides",
                ranks[0], ranks[1]
            )));
        }
        self.make(PickleValue::Tensor {
            storage,
            offset,
            dims,
            strides,
        })
    }

    /// Refuses metadata that change the values: PyTorch stores a negated or conjugated view as the values that it is a view
    /// of, and `{"neg": True}` or `{"conj": True}`.
    fn check_metadata(&self, metadata: PickleNode) -> Result<()> {
        let is_off = |&(_, value): &(PickleNode, PickleNode)| {
            matches!(self.value(value), PickleValue::Bool(false) | PickleValue::None)
        };
        let stated = match self.value(metadata) {
            PickleValue::None => return Ok(()),
            PickleValue::Dict { entries, .. } => match entries.iter().find(|entry| !is_off(entry)) {
                None => return Ok(()),
                Some(&(key, _)) => match self.value(key) {
                    PickleValue::Text(key) => format!("the metadata `{}`", cut(key, LONGEST_KEY)),
                    _ => "metadata without a name".to_owned(),
                },
            },
            _ => "metadata that are not a dict".to_owned(),
        };
        Err(self
            .fault(&format!(
                "makes a tensor with {stated}: its values are not those of its storage"
            ))
            .replace_hint(
                "load the file with PyTorch, replace each `tensor` by `tensor.resolve_neg().resolve_conj()`, and save it again",
            ))
    }

    /// The length of a tuple of whole numbers from 0 on.
    fn rank(&self, numbers: PickleNode) -> Result<usize> {
        let PickleValue::Tuple(numbers) = self.value(numbers) else {
            return Err(self.fault("makes a tensor whose dimensions or strides are not a tuple"));
        };
        if numbers.len() > MOST_DIMENSIONS {
            return Err(self.fault(&format!(
                "makes a tensor of {} dimensions, and PyTorch has {MOST_DIMENSIONS} at most",
                numbers.len()
            )));
        }
        for &number in numbers {
            match self.value(number) {
                PickleValue::Int(0..) => {}
                PickleValue::Int(number) => {
                    return Err(self.fault(&format!("makes a tensor with a dimension or stride of {number}")));
                }
                _ => {
                    return Err(
                        self.fault("makes a tensor whose dimensions or strides are not whole numbers")
                    );
                }
            }
        }
        Ok(numbers.len())
    }

    fn parameter(&self, data: PickleNode) -> Result<PickleNode> {
        match self.value(data) {
            PickleValue::Tensor { .. } | PickleValue::Object(_) => Ok(data),
            _ => Err(self.fault("makes a parameter of something other than a tensor")),
        }
    }

    /// A tensor that has attributes: the tensor.
    fn typed_tensor(&mut self, function: PickleNode, inner: PickleNode) -> Result<PickleNode> {
        let rule = match self.value(function) {
            PickleValue::Global(name) => known(name),
            _ => None,
        };
        match (rule, self.value(inner)) {
            (Some(Known::RebuildTensor), PickleValue::Tuple(arguments)) if arguments.len() >= 4 => {
                // As many as are looked at.
                let arguments: Vec<_> = arguments.iter().copied().take(4 + METADATA + 1).collect();
                self.tensor(&arguments)
            }
            (Some(Known::RebuildParameter), PickleValue::Tuple(arguments)) if !arguments.is_empty() => {
                self.parameter(arguments[0])
            }
            _ => self.opaque(function, inner),
        }
    }

    /// The bytes that protocol 2 writes as a text of characters up to U+00FF; the same bytes for the same text.
    fn latin1(&mut self, text: PickleNode, encoding: PickleNode) -> Result<Option<PickleNode>> {
        let is_latin1 = matches!(self.value(encoding), PickleValue::Text(name) if &**name == "latin1");
        let PickleValue::Text(characters) = self.value(text) else {
            return Ok(None);
        };
        if !is_latin1 {
            return Ok(None);
        }
        if let Some(bytes) = self.encoded(text) {
            return Ok(Some(bytes));
        }
        let bytes: Option<Box<[u8]>> = characters
            .chars()
            .map(|character| u8::try_from(u32::from(character)).ok())
            .collect();
        let Some(bytes) = bytes else {
            return Err(self.fault("encodes a text in Latin-1 that has other characters"));
        };
        let bytes = self.make(PickleValue::Bytes(bytes))?;
        self.keep_encoded(text, bytes);
        Ok(Some(bytes))
    }

    /// The number of a numpy scalar: `dtype` is the call `numpy.dtype("f8", …)` with a state whose second part is the order
    /// of bytes.
    fn numpy_scalar(&self, dtype: PickleNode, bytes: PickleNode) -> Option<PickleValue> {
        let (PickleValue::Object(dtype), PickleValue::Bytes(bytes)) = (self.value(dtype), self.value(bytes))
        else {
            return None;
        };
        let PickleValue::Global(name) = self.value(dtype.callable) else {
            return None;
        };
        let (PickleValue::Tuple(args), PickleValue::Tuple(state)) =
            (self.value(dtype.args), self.value(dtype.state?))
        else {
            return None;
        };
        let (PickleValue::Text(code), PickleValue::Text(order)) =
            (self.value(*args.first()?), self.value(*state.get(1)?))
        else {
            return None;
        };
        if &**name != "numpy.dtype" || !matches!(&**order, "<" | "|") {
            return None;
        }
        let bytes = &**bytes;
        Some(match &**code {
            "f8" => PickleValue::Float(f64::from_le_bytes(bytes.try_into().ok()?)),
            "f4" => PickleValue::Float(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            "f2" => PickleValue::Float(half::f16::from_le_bytes(bytes.try_into().ok()?).into()),
            "i8" => PickleValue::Int(i64::from_le_bytes(bytes.try_into().ok()?)),
            "i4" => PickleValue::Int(i32::from_le_bytes(bytes.try_into().ok()?).into()),
            "i2" => PickleValue::Int(i16::from_le_bytes(bytes.try_into().ok()?).into()),
            "i1" => PickleValue::Int(i8::from_le_bytes(bytes.try_into().ok()?).into()),
            "u4" => PickleValue::Int(u32::from_le_bytes(bytes.try_into().ok()?).into()),
            "u2" => PickleValue::Int(u16::from_le_bytes(bytes.try_into().ok()?).into()),
            "u1" => PickleValue::Int(u8::from_le_bytes(bytes.try_into().ok()?).into()),
            "u8" => PickleValue::Int(i64::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()?),
            "b1" => PickleValue::Bool(u8::from_le_bytes(bytes.try_into().ok()?) != 0),
            _ => return None,
        })
    }
}
