//! The values of a pickle: side by side in one vector, referring to each other by number.
//!
//! Values may be shared, and a list may contain itself: the ways through them visit each value once or take a budget.

use std::fmt::Write as _;

use indexmap::IndexMap;

use super::dtype::TorchDtype;

/// A value of a [`Pickle`], by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PickleNode(pub(super) u32);

/// A value as the pickle builds it.
#[derive(Debug, PartialEq)]
pub enum PickleValue {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of up to 64 bits.
    Int(i64),
    /// A longer integer: its two's complement, lowest byte first.
    BigInt(Box<[u8]>),
    /// A floating-point number.
    Float(f64),
    /// A `str`; surrogates without a partner, which UTF-8 lacks, are U+FFFD.
    Text(Box<str>),
    /// A `bytes` or `bytearray`.
    Bytes(Box<[u8]>),
    /// A `list`.
    List(Vec<PickleNode>),
    /// A `tuple` or a `torch.Size`.
    Tuple(Box<[PickleNode]>),
    /// A `set` or `frozenset`, in the order of the file.
    Set(Vec<PickleNode>),
    /// A `dict` or `collections.OrderedDict`.
    Dict {
        /// Keys and values in the order of the file; of equal keys the last one counts.
        entries: Vec<(PickleNode, PickleNode)>,
        /// The attributes of an ordered dict, such as the `_metadata` of a `state_dict`.
        state: Option<PickleNode>,
    },
    /// A class or function, `module.name`: a name and nothing else.
    Global(Box<str>),
    /// What a call would have made that did not take place.
    Object(Box<PickleObject>),
    /// A tensor; [`TorchTensor::of`](super::tensor::TorchTensor::of) resolves it.
    Tensor {
        /// A [`PickleValue::Storage`].
        storage: PickleNode,
        /// Its first element in the storage.
        offset: u64,
        /// A tuple of integers: the dimensions.
        dims: PickleNode,
        /// A tuple of integers: the strides in elements.
        strides: PickleNode,
    },
    /// A storage: elements in a record of the archive.
    Storage {
        /// The global of its class, such as `torch.FloatStorage`.
        class: PickleNode,
        /// The text that names the record below `data/`.
        key: PickleNode,
        /// The device that it was saved from: a text such as `cuda:0`.
        location: PickleNode,
        /// Elements.
        elements: u64,
    },
}

/// A call that did not take place, and what would have been done with its result.
#[derive(Debug, PartialEq)]
pub struct PickleObject {
    /// What would have been called: a [`PickleValue::Global`], if it is not itself the result of a call.
    pub callable: PickleNode,
    /// The arguments: a tuple, if the pickle is one of Python's.
    pub args: PickleNode,
    /// Arguments by name, of `__newobj_ex__`.
    pub named_args: Option<PickleNode>,
    /// The state: what `__setstate__` would have received, else the attributes.
    pub state: Option<PickleNode>,
    /// Items that would have been set, as of a subclass of `dict`.
    pub entries: Vec<(PickleNode, PickleNode)>,
    /// Elements that would have been appended or added, as of a subclass of `list` or `set`.
    pub elements: Vec<PickleNode>,
}

/// A global that no rule of ours knows: it was not called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UncalledGlobal {
    /// `module.name`.
    pub name: String,
    /// The opcode's byte of the pickle where it is named first.
    pub at: usize,
    /// How often its call was left out; 0 where it is named alone.
    pub calls: usize,
}

/// The values of a pickle.
#[derive(Debug)]
pub struct Pickle {
    pub(super) nodes: Vec<PickleValue>,
    pub(super) root: PickleNode,
    pub(super) uncalled: Vec<UncalledGlobal>,
}

impl Pickle {
    /// The value that the pickle makes.
    #[must_use]
    pub fn root(&self) -> PickleNode {
        self.root
    }

    /// A value.
    #[must_use]
    pub fn value(&self, node: PickleNode) -> &PickleValue {
        &self.nodes[node.0 as usize]
    }

    /// The globals that were not called, in the order of the file.
    #[must_use]
    pub fn uncalled(&self) -> &[UncalledGlobal] {
        &self.uncalled
    }

    /// The value of a text key of a dict, or of an object with items.
    #[must_use]
    pub fn get(&self, node: PickleNode, key: &str) -> Option<PickleNode> {
        let is_key = |of: PickleNode| self.text(of) == Some(key);
        let entry = self.entries(node).iter().rev().find(|entry| is_key(entry.0))?;
        Some(entry.1)
    }

    /// The value of an integer key of a dict, or of an object with items.
    #[must_use]
    pub fn get_at(&self, node: PickleNode, key: i64) -> Option<PickleNode> {
        let is_key = |of: PickleNode| *self.value(of) == PickleValue::Int(key);
        let entry = self.entries(node).iter().rev().find(|entry| is_key(entry.0))?;
        Some(entry.1)
    }

    /// The value below nested dicts with text keys: `["hyper_parameters", "config"]`.
    #[must_use]
    pub fn find(&self, keys: &[&str]) -> Option<PickleNode> {
        keys.iter().try_fold(self.root, |node, key| self.get(node, key))
    }

    /// Keys and values of a dict, or of an object with items, as in the file; empty for other values.
    #[must_use]
    pub fn entries(&self, node: PickleNode) -> &[(PickleNode, PickleNode)] {
        match self.value(node) {
            PickleValue::Dict { entries, .. } => entries,
            PickleValue::Object(object) => &object.entries,
            _ => &[],
        }
    }

    /// The entries with text keys, as Python has them: a key that comes again keeps its place and takes the later value.
    #[must_use]
    pub fn named(&self, node: PickleNode) -> IndexMap<&str, PickleNode> {
        let named = |&(key, value): &(PickleNode, PickleNode)| Some((self.text(key)?, value));
        self.entries(node).iter().filter_map(named).collect()
    }

    /// The elements of a list, tuple, set, or of an object with elements; empty for other values.
    #[must_use]
    pub fn elements(&self, node: PickleNode) -> &[PickleNode] {
        match self.value(node) {
            PickleValue::List(elements) | PickleValue::Set(elements) => elements,
            PickleValue::Tuple(elements) => elements,
            PickleValue::Object(object) => &object.elements,
            _ => &[],
        }
    }

    /// A text.
    #[must_use]
    pub fn text(&self, node: PickleNode) -> Option<&str> {
        match self.value(node) {
            PickleValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// An integer of up to 64 bits.
    #[must_use]
    pub fn int(&self, node: PickleNode) -> Option<i64> {
        match self.value(node) {
            PickleValue::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// A floating-point number, or an integer that is one exactly.
    #[must_use]
    pub fn float(&self, node: PickleNode) -> Option<f64> {
        match self.value(node) {
            PickleValue::Float(number) => Some(*number),
            PickleValue::Int(number) if number.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS => {
                Some(*number as f64)
            }
            _ => None,
        }
    }

    /// `True` or `False`.
    #[must_use]
    pub fn bool(&self, node: PickleNode) -> Option<bool> {
        match self.value(node) {
            PickleValue::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A call that did not take place.
    #[must_use]
    pub fn object(&self, node: PickleNode) -> Option<&PickleObject> {
        match self.value(node) {
            PickleValue::Object(object) => Some(object),
            _ => None,
        }
    }

    /// `module.name` of a global, or of the global that an object is a call of.
    #[must_use]
    pub fn global(&self, node: PickleNode) -> Option<&str> {
        let node = self.object(node).map_or(node, |object| object.callable);
        match self.value(node) {
            PickleValue::Global(name) => Some(name),
            _ => None,
        }
    }

    /// Whether a value is a tensor.
    #[must_use]
    pub fn is_tensor(&self, node: PickleNode) -> bool {
        matches!(self.value(node), PickleValue::Tensor { .. })
    }

    /// The value and all values below it, each once and before those below it.
    pub fn walk(&self, from: PickleNode) -> impl Iterator<Item = PickleNode> + '_ {
        let mut seen = vec![false; self.nodes.len()];
        let mut open = vec![from];
        std::iter::from_fn(move || {
            loop {
                let node = open.pop()?;
                if !std::mem::replace(&mut seen[node.0 as usize], true) {
                    let start = open.len();
                    self.below(node, &mut |child| {
                        if !seen[child.0 as usize] {
                            open.push(child);
                        }
                    });
                    open[start..].reverse();
                    return Some(node);
                }
            }
        })
    }

    /// Passes on the values that a value holds itself, in order.
    fn below(&self, node: PickleNode, each: &mut dyn FnMut(PickleNode)) {
        match self.value(node) {
            PickleValue::Dict { entries, state } => {
                entries
                    .iter()
                    .flat_map(|&(key, value)| [key, value])
                    .for_each(&mut *each);
                state.iter().copied().for_each(each);
            }
            PickleValue::Object(object) => {
                each(object.callable);
                each(object.args);
                object
                    .named_args
                    .into_iter()
                    .chain(object.state)
                    .for_each(&mut *each);
                object
                    .entries
                    .iter()
                    .flat_map(|&(key, value)| [key, value])
                    .for_each(&mut *each);
                object.elements.iter().copied().for_each(each);
            }
            PickleValue::Tensor { storage, .. } => each(*storage),
            _ => self.elements(node).iter().copied().for_each(each),
        }
    }

    /// A value as Python would print it, on one line of `budget` characters at most and with at most `budget` values visited;
    /// the rest is `…`. A call that did not take place is `<module.name(arguments) state>`.
    #[must_use]
    pub fn describe(&self, node: PickleNode, budget: usize) -> String {
        enum Part<'p> {
            Node(PickleNode),
            Text(&'p str),
        }
        let mut text = String::new();
        let mut open = vec![Part::Node(node)];
        let mut visited = 0;
        while let Some(part) = open.pop() {
            let before = text.len();
            match part {
                Part::Text(part) => text += part,
                Part::Node(node) => {
                    visited += 1;
                    let start = open.len();
                    // More elements than characters are left are not printed.
                    let most = budget.saturating_sub(visited + start) + 1;
                    let list = |open: &mut Vec<Part>, nodes: &[PickleNode], opening, closing| {
                        open.push(Part::Text(opening));
                        for (i, &node) in nodes.iter().take(most).enumerate() {
                            if i > 0 {
                                open.push(Part::Text(", "));
                            }
                            open.push(Part::Node(node));
                        }
                        open.push(Part::Text(closing));
                    };
                    let dict = |open: &mut Vec<Part>, entries: &[(PickleNode, PickleNode)]| {
                        open.push(Part::Text("{"));
                        for (i, &(key, value)) in entries.iter().take(most).enumerate() {
                            if i > 0 {
                                open.push(Part::Text(", "));
                            }
                            open.extend([Part::Node(key), Part::Text(": "), Part::Node(value)]);
                        }
                        open.push(Part::Text("}"));
                    };
                    match self.value(node) {
                        PickleValue::List(nodes) => list(&mut open, nodes, "[", "]"),
                        PickleValue::Tuple(nodes) if nodes.len() == 1 => list(&mut open, nodes, "(", ",)"),
                        PickleValue::Tuple(nodes) => list(&mut open, nodes, "(", ")"),
                        PickleValue::Set(nodes) if nodes.is_empty() => text += "set()",
                        PickleValue::Set(nodes) => list(&mut open, nodes, "{", "}"),
                        PickleValue::Dict { entries, .. } => dict(&mut open, entries),
                        PickleValue::Object(object) => {
                            open.extend([
                                Part::Text("<"),
                                Part::Node(object.callable),
                                Part::Node(object.args),
                            ]);
                            for node in object.named_args.into_iter().chain(object.state) {
                                open.extend([Part::Text(" "), Part::Node(node)]);
                            }
                            if !object.entries.is_empty() {
                                open.push(Part::Text(" "));
                                dict(&mut open, &object.entries);
                            }
                            if !object.elements.is_empty() {
                                list(&mut open, &object.elements, " [", "]");
                            }
                            open.push(Part::Text(">"));
                        }
                        PickleValue::Tensor { storage, dims, .. } => {
                            text += "tensor";
                            open.extend([Part::Node(*dims), Part::Text(" of "), Part::Node(*storage)]);
                        }
                        value => self.simple(value, budget, &mut text),
                    }
                    open[start..].reverse();
                }
            }
            if text.len() > budget || visited > budget {
                let mut end = cut(&text, budget).len();
                if visited > budget {
                    end = end.min(before);
                }
                text.truncate(end);
                text.push('…');
                break;
            }
        }
        text
    }

    /// Prints a value that holds no others.
    fn simple(&self, value: &PickleValue, budget: usize, text: &mut String) {
        let _ = match value {
            PickleValue::None => write!(text, "None"),
            PickleValue::Bool(true) => write!(text, "True"),
            PickleValue::Bool(false) => write!(text, "False"),
            PickleValue::Int(number) => write!(text, "{number}"),
            PickleValue::BigInt(bytes) => write!(text, "<integer of {} bytes>", bytes.len()),
            PickleValue::Float(number) => write!(text, "{number:?}"),
            PickleValue::Text(string) => {
                // More than fits, so that the cut shows.
                write!(text, "{:?}", cut(string, budget.saturating_add(4)))
            }
            PickleValue::Bytes(bytes) => write!(text, "<{} bytes>", bytes.len()),
            PickleValue::Global(name) => write!(text, "{name}"),
            PickleValue::Storage { class, elements, .. } => {
                let class = self.global(*class).unwrap_or_default();
                match TorchDtype::of_storage(class) {
                    Some(dtype) => write!(text, "{dtype}"),
                    None => write!(text, "{class} with {elements} elements"),
                }
            }
            _ => Ok(()),
        };
    }
}

/// The beginning of a text, of at most that many bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
