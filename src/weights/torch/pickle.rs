//! The machine of a pickle (protocols 2 to 5), which builds values and calls nothing.
//!
//! The opcodes are those of Python's `pickletools`. A pickler of protocol 2 or later writes no opcode of protocol 0 whose
//! argument is a line of text but `GLOBAL`; the others are refused.

use std::collections::HashMap;

use super::values::{Pickle, PickleNode, PickleValue, UncalledGlobal, cut};
use super::{BRING_AGAIN, SAVE_AGAIN};
use crate::error::{Error, Result};
use crate::plural::{agreeing, counted};
use constructors::{Known, known};

mod constructors;

/// Longest pickle that is read, in bytes. One with a tokenizer of 250,000 tokens has about 20 MB; weights are not in it.
pub const LONGEST_PICKLE: u64 = 64 << 20;

/// Most values of a pickle, and most entries of its stack and of its memo. A tokenizer of 250,000 tokens has 2 million.
const MOST_VALUES: usize = 1 << 22;

/// Most marks at a time, which is how deep a pickler that calls itself nests values. Python's own limit is near 1000.
const MOST_MARKS: usize = 10_000;

/// Most different globals. A checkpoint names some dozens.
const MOST_GLOBALS: usize = 10_000;

/// Longest `module.name` of a global.
const LONGEST_NAME: usize = 1000;

/// Reads a pickle.
///
/// # Errors
/// Input errors, which name the byte: the pickle is truncated, is of protocol 0 or 1, has an unknown opcode, takes from an
/// empty stack, states a length beyond its end, exceeds a limit, or calls one of PyTorch's functions with other arguments
/// than PyTorch does.
pub fn parse(bytes: &[u8]) -> Result<Pickle> {
    if bytes.len() as u64 > LONGEST_PICKLE {
        return Err(Error::input(format!(
            "the pickle has {}, and {LONGEST_PICKLE} are read at most",
            counted(bytes.len(), "byte")
        ))
        .hint("save the weights alone: `torch.save(model.state_dict(), FILE)`"));
    }
    Unpickler::of(bytes).run()
}

/// The machine.
struct Unpickler<'b> {
    bytes: &'b [u8],
    /// The next byte.
    at: usize,
    /// The byte of the opcode that is executed.
    opcode_at: usize,
    nodes: Vec<PickleValue>,
    stack: Vec<PickleNode>,
    /// Heights of the stack at which marks stand.
    marks: Vec<usize>,
    memo: HashMap<u64, PickleNode>,
    /// `None`, `False` and `True`, once each.
    constants: [Option<PickleNode>; 3],
    globals: HashMap<Box<str>, PickleNode>,
    /// The places in `uncalled` of globals.
    reported: HashMap<PickleNode, usize>,
    uncalled: Vec<UncalledGlobal>,
    /// Bytes that a text was encoded to, by text.
    encoded: HashMap<PickleNode, PickleNode>,
    /// Elements that may still be copied from one value to another.
    copies: usize,
}

impl<'b> Unpickler<'b> {
    fn of(bytes: &'b [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            opcode_at: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            constants: [None; 3],
            globals: HashMap::new(),
            reported: HashMap::new(),
            uncalled: Vec::new(),
            encoded: HashMap::new(),
            copies: bytes.len(),
        }
    }

    fn run(mut self) -> Result<Pickle> {
        self.protocol()?;
        loop {
            self.opcode_at = self.at;
            let [opcode] = self.array()?;
            if opcode == b'.' {
                return self.stop();
            }
            self.execute(opcode)?;
        }
    }

    /// `PROTO`, with which every pickle from protocol 2 on begins.
    fn protocol(&mut self) -> Result<()> {
        match *self.bytes {
            [0x80, 2..=5, ..] => {
                self.at = 2;
                Ok(())
            }
            [0x80, version, ..] => Err(self
                .fault(&format!("is of protocol {version}, and 2 to 5 are read"))
                .replace_hint(SAVE_AGAIN)),
            [] | [0x80] => Err(self.truncated()),
            _ => Err(self
                .fault("has no protocol: it is of protocol 0 or 1, or no pickle")
                .replace_hint(SAVE_AGAIN)),
        }
    }

    fn stop(mut self) -> Result<Pickle> {
        let root = self.pop()?;
        let more = self.bytes.len() - self.at;
        if more > 0 {
            return Err(self.fault(&format!(
                "ends, but {} {}",
                counted(more, "byte"),
                agreeing(more, "follows", "follow")
            )));
        }
        Ok(Pickle {
            nodes: self.nodes,
            root,
            uncalled: self.uncalled,
        })
    }

    fn execute(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            // PROTO again, and FRAME, whose bytes are read as they come.
            0x80 => self.array::<1>().map(drop),
            0x95 => self.length::<8>().map(drop),
            // The stack: MARK, POP, POP_MARK, DUP.
            b'(' => self.mark(),
            b'0' if self.marks.last() == Some(&self.stack.len()) => {
                self.marks.pop();
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.push(top)
            }
            // The memo: BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET.
            b'q' => {
                let index = self.number::<1>()?;
                self.memoize(index)
            }
            b'r' => {
                let index = self.number::<4>()?;
                self.memoize(index)
            }
            0x94 => self.memoize(self.memo.len() as u64),
            b'h' => {
                let index = self.number::<1>()?;
                self.recall(index)
            }
            b'j' => {
                let index = self.number::<4>()?;
                self.recall(index)
            }
            // GLOBAL, STACK_GLOBAL, REDUCE and NEWOBJ, NEWOBJ_EX, OBJ, BUILD, BINPERSID.
            b'c' => {
                let [module, name] = [self.line()?, self.line()?];
                self.global(module, name)
            }
            0x93 => self.stack_global(),
            b'R' | 0x81 => {
                let args = self.pop()?;
                let callable = self.pop()?;
                let made = self.call(callable, args)?;
                self.push(made)
            }
            0x92 => self.new_object_with_names(),
            b'o' => self.new_object(),
            b'b' => self.build(),
            b'Q' => self.storage(),
            _ => self.collect(opcode),
        }
    }

    /// Opcodes of lists, tuples, dicts and sets.
    fn collect(&mut self, opcode: u8) -> Result<()> {
        let value = match opcode {
            // Empty ones.
            b']' => PickleValue::List(Vec::new()),
            b')' => PickleValue::Tuple(Box::default()),
            b'}' => PickleValue::Dict {
                entries: Vec::new(),
                state: None,
            },
            0x8F => PickleValue::Set(Vec::new()),
            // TUPLE1 to TUPLE3, TUPLE, LIST, FROZENSET, DICT.
            0x85..=0x87 => self.short_tuple(usize::from(opcode) - 0x84)?,
            b't' => PickleValue::Tuple(self.pop_mark()?.into()),
            b'l' => PickleValue::List(self.pop_mark()?),
            0x91 => PickleValue::Set(self.pop_mark()?),
            b'd' => PickleValue::Dict {
                entries: self.pop_pairs()?,
                state: None,
            },
            // APPEND, APPENDS, ADDITEMS, SETITEM, SETITEMS.
            b'a' => {
                let element = self.pop()?;
                return self.append(&[element], false);
            }
            b'e' | 0x90 => {
                let elements = self.pop_mark()?;
                return self.append(&elements, opcode == 0x90);
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                return self.set(&[(key, value)]);
            }
            b'u' => {
                let entries = self.pop_pairs()?;
                return self.set(&entries);
            }
            _ => return self.literal(opcode),
        };
        self.push_new(value)
    }

    /// Opcodes that push a value which they hold.
    fn literal(&mut self, opcode: u8) -> Result<()> {
        let value = match opcode {
            b'N' => return self.push_constant(0, PickleValue::None),
            0x89 => return self.push_constant(1, PickleValue::Bool(false)),
            0x88 => return self.push_constant(2, PickleValue::Bool(true)),
            b'K' => PickleValue::Int(self.number::<1>()? as i64),
            b'M' => PickleValue::Int(self.number::<2>()? as i64),
            b'J' => PickleValue::Int(i32::from_le_bytes(self.array()?).into()),
            // LONG1, and LONG4, whose length has a sign.
            0x8A => {
                let length = self.length::<1>()?;
                integer(self.take(length))
            }
            0x8B => {
                let length = self.length::<4>()?;
                integer(self.take(length))
            }
            b'G' => PickleValue::Float(f64::from_be_bytes(self.array()?)),
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8.
            0x8C => {
                let length = self.length::<1>()?;
                text(self.take(length))
            }
            b'X' => {
                let length = self.length::<4>()?;
                text(self.take(length))
            }
            0x8D => {
                let length = self.length::<8>()?;
                text(self.take(length))
            }
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8.
            b'C' => {
                let length = self.length::<1>()?;
                PickleValue::Bytes(self.take(length).into())
            }
            b'B' => {
                let length = self.length::<4>()?;
                PickleValue::Bytes(self.take(length).into())
            }
            0x8E | 0x96 => {
                let length = self.length::<8>()?;
                PickleValue::Bytes(self.take(length).into())
            }
            // SHORT_BINSTRING, BINSTRING: texts of Python 2, which were bytes.
            b'U' => {
                let length = self.length::<1>()?;
                text_or_bytes(self.take(length))
            }
            b'T' => {
                let length = self.length::<4>()?;
                text_or_bytes(self.take(length))
            }
            b'I' | b'L' | b'F' | b'S' | b'V' | b'p' | b'g' | b'i' | b'P' => {
                let code = char::from(opcode);
                let what =
                    format!("has the opcode `{code}` of protocol 0, which no pickler of protocol 2 writes");
                return Err(self.fault(&what).replace_hint(SAVE_AGAIN));
            }
            0x82..=0x84 => {
                return Err(self.fault(
                    "names a function by a number of the registry of `copyreg`, which is not in the file",
                ));
            }
            0x97 | 0x98 => return Err(self.fault("refers to bytes outside of the pickle")),
            _ => return Err(self.fault(&format!("has an unknown opcode, 0x{opcode:02x}"))),
        };
        self.push_new(value)
    }

    /// `GLOBAL` and `STACK_GLOBAL`: a name, which nothing is looked up by.
    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        if module.len() + name.len() > LONGEST_NAME {
            return Err(self.fault(&format!(
                "names a global with {}, and {LONGEST_NAME} are read at most",
                counted(module.len() + name.len(), "byte")
            )));
        }
        let full: Box<str> = format!("{module}.{name}").into();
        if let Some(&node) = self.globals.get(&full) {
            return self.push(node);
        }
        self.limit(self.globals.len(), MOST_GLOBALS, "globals")?;
        let node = self.make(PickleValue::Global(full.clone()))?;
        if known(&full).is_none() {
            self.report(node, full.to_string());
        }
        self.globals.insert(full, node);
        self.push(node)
    }

    fn stack_global(&mut self) -> Result<()> {
        let name = self.pop()?;
        let module = self.pop()?;
        let (PickleValue::Text(module), PickleValue::Text(name)) = (self.value(module), self.value(name))
        else {
            return Err(self.fault("names a global by something other than two texts"));
        };
        // Cut before they are copied: a longer one is refused.
        let (module, name) = (
            cut(module, LONGEST_NAME + 4).to_owned(),
            cut(name, LONGEST_NAME + 4).to_owned(),
        );
        self.global(&module, &name)
    }

    /// `OBJ`: class and arguments above a mark.
    fn new_object(&mut self) -> Result<()> {
        let mut parts = self.pop_mark()?.into_iter();
        let callable = parts.next().ok_or_else(|| self.empty())?;
        let args = self.make(PickleValue::Tuple(parts.collect()))?;
        let made = self.opaque(callable, args)?;
        self.push(made)
    }

    /// `NEWOBJ_EX`: class, arguments, arguments by name.
    fn new_object_with_names(&mut self) -> Result<()> {
        let named = self.pop()?;
        let args = self.pop()?;
        let callable = self.pop()?;
        let made = self.opaque(callable, args)?;
        if let PickleValue::Object(object) = self.value_mut(made) {
            object.named_args = Some(named);
        }
        self.push(made)
    }

    /// `BUILD`: a state for the value below.
    fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let top = self.top()?;
        match self.value_mut(top) {
            PickleValue::Object(object) => object.state = Some(state),
            PickleValue::Dict { state: held, .. } => *held = Some(state),
            _ => return Err(self.misfit("gives a state to", top)),
        }
        Ok(())
    }

    /// `BINPERSID`: what PyTorch keeps outside of the pickle, its storages.
    fn storage(&mut self) -> Result<()> {
        let id = self.pop()?;
        let node = match self.value(id) {
            PickleValue::Tuple(parts) if parts.len() == 5 => {
                let [kind, class, key, location, elements] =
                    [parts[0], parts[1], parts[2], parts[3], parts[4]];
                let is_storage = matches!(self.value(kind), PickleValue::Text(kind) if &**kind == "storage")
                    && matches!(self.value(class), PickleValue::Global(name) if known(name) == Some(Known::Storage))
                    && matches!(self.value(key), PickleValue::Text(_))
                    && matches!(self.value(location), PickleValue::Text(_));
                match self.value(elements) {
                    PickleValue::Int(elements @ 0..) if is_storage => Some(PickleValue::Storage {
                        class,
                        key,
                        location,
                        elements: *elements as u64,
                    }),
                    _ => None,
                }
            }
            _ => None,
        };
        let node = node.ok_or_else(|| {
            self.fault("refers to something outside of the pickle that is not a storage: class, name, device, elements")
        })?;
        self.push_new(node)
    }

    /// `APPEND`, `APPENDS` and `ADDITEMS`.
    fn append(&mut self, elements: &[PickleNode], is_set: bool) -> Result<()> {
        let top = self.top()?;
        match self.value_mut(top) {
            PickleValue::List(list) if !is_set => list.extend(elements),
            PickleValue::Set(set) if is_set => set.extend(elements),
            PickleValue::Object(object) => object.elements.extend(elements),
            _ => return Err(self.misfit("adds elements to", top)),
        }
        Ok(())
    }

    /// `SETITEM` and `SETITEMS`.
    fn set(&mut self, new: &[(PickleNode, PickleNode)]) -> Result<()> {
        let top = self.top()?;
        match self.value_mut(top) {
            PickleValue::Dict { entries, .. } => entries.extend(new),
            PickleValue::Object(object) => object.entries.extend(new),
            _ => return Err(self.misfit("sets items of", top)),
        }
        Ok(())
    }

    fn misfit(&self, what: &str, node: PickleNode) -> Error {
        let kind = match self.value(node) {
            PickleValue::None => "`None`",
            PickleValue::Bool(_) => "a truth value",
            PickleValue::Int(_) | PickleValue::BigInt(_) | PickleValue::Float(_) => "a number",
            PickleValue::Text(_) => "a text",
            PickleValue::Bytes(_) => "bytes",
            PickleValue::List(_) => "a list",
            PickleValue::Tuple(_) => "a tuple",
            PickleValue::Set(_) => "a set",
            PickleValue::Dict { .. } => "a dict",
            PickleValue::Global(_) => "a class or function",
            PickleValue::Object(_) => "an object",
            PickleValue::Tensor { .. } => "a tensor",
            PickleValue::Storage { .. } => "a storage",
        };
        self.fault(&format!("{what} {kind}"))
    }

    // Values.

    fn value(&self, node: PickleNode) -> &PickleValue {
        &self.nodes[node.0 as usize]
    }

    fn value_mut(&mut self, node: PickleNode) -> &mut PickleValue {
        &mut self.nodes[node.0 as usize]
    }

    /// Adds a value.
    ///
    /// # Errors
    /// There are too many.
    fn make(&mut self, value: PickleValue) -> Result<PickleNode> {
        self.limit(self.nodes.len(), MOST_VALUES, "values")?;
        self.nodes.push(value);
        Ok(PickleNode(self.nodes.len() as u32 - 1))
    }

    fn push_new(&mut self, value: PickleValue) -> Result<()> {
        let node = self.make(value)?;
        self.push(node)
    }

    fn push_constant(&mut self, which: usize, value: PickleValue) -> Result<()> {
        let node = match self.constants[which] {
            Some(node) => node,
            None => self.make(value)?,
        };
        self.constants[which] = Some(node);
        self.push(node)
    }

    /// Refuses a count that has reached its limit.
    fn limit(&self, count: usize, most: usize, what: &str) -> Result<()> {
        if count < most {
            return Ok(());
        }
        Err(self
            .fault(&format!("would have more than {most} {what}"))
            .replace_hint("save the weights alone: `torch.save(model.state_dict(), FILE)`"))
    }

    /// Takes elements off those that may be copied.
    ///
    /// # Errors
    /// As many elements as the pickle has bytes were copied.
    fn spend_copies(&mut self, count: usize) -> Result<()> {
        match self.copies.checked_sub(count) {
            Some(left) => {
                self.copies = left;
                Ok(())
            }
            None => Err(self.fault("copies the same list again and again")),
        }
    }

    fn encoded(&self, text: PickleNode) -> Option<PickleNode> {
        self.encoded.get(&text).copied()
    }

    fn keep_encoded(&mut self, text: PickleNode, bytes: PickleNode) {
        self.encoded.insert(text, bytes);
    }

    // Globals that are not called.

    fn report(&mut self, node: PickleNode, name: String) -> &mut UncalledGlobal {
        let place = *self.reported.entry(node).or_insert(self.uncalled.len());
        if place == self.uncalled.len() {
            self.uncalled.push(UncalledGlobal {
                name,
                at: self.opcode_at,
                calls: 0,
            });
        }
        &mut self.uncalled[place]
    }

    /// Counts a call that does not take place, but for those of types that are plain data.
    fn count_uncalled(&mut self, callable: PickleNode) {
        if let PickleValue::Global(name) = self.value(callable)
            && known(name) != Some(Known::Plain)
        {
            let name = name.to_string();
            self.report(callable, name).calls += 1;
        }
    }

    fn global_name(&self, node: PickleNode) -> &str {
        match self.value(node) {
            PickleValue::Global(name) => name,
            _ => "",
        }
    }

    // Stack and memo.

    fn push(&mut self, node: PickleNode) -> Result<()> {
        self.limit(self.stack.len(), MOST_VALUES, "values on its stack")?;
        self.stack.push(node);
        Ok(())
    }

    /// The top of the stack, above the last mark.
    fn top(&self) -> Result<PickleNode> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&top) if self.stack.len() > floor => Ok(top),
            _ => Err(self.empty()),
        }
    }

    fn pop(&mut self) -> Result<PickleNode> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn mark(&mut self) -> Result<()> {
        self.limit(self.marks.len(), MOST_MARKS, "levels")?;
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// What lies above the last mark, which goes too.
    fn pop_mark(&mut self) -> Result<Vec<PickleNode>> {
        let mark = self.marks.pop().ok_or_else(|| self.empty())?;
        Ok(self.stack.drain(mark..).collect())
    }

    fn pop_pairs(&mut self) -> Result<Vec<(PickleNode, PickleNode)>> {
        let parts = self.pop_mark()?;
        let (pairs, rest) = parts.as_chunks();
        if !rest.is_empty() {
            return Err(self.fault("has a key without a value"));
        }
        Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
    }

    fn short_tuple(&mut self, count: usize) -> Result<PickleValue> {
        let mut elements = [self.top()?; 3];
        for place in (0..count).rev() {
            elements[place] = self.pop()?;
        }
        Ok(PickleValue::Tuple(elements[..count].into()))
    }

    fn memoize(&mut self, index: u64) -> Result<()> {
        let top = self.top()?;
        self.limit(self.memo.len(), MOST_VALUES, "entries of its memo")?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Result<()> {
        match self.memo.get(&index) {
            Some(&node) => self.push(node),
            None => Err(self.fault(&format!("asks for entry {index} of its memo, which is not set"))),
        }
    }

    // Bytes.

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.bytes[self.at..].first_chunk() {
            Some(array) => {
                self.at += N;
                Ok(*array)
            }
            None => Err(self.truncated()),
        }
    }

    /// A number without a sign of N bytes.
    fn number<const N: usize>(&mut self) -> Result<u64> {
        let bytes = self.array::<N>()?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// A length of N bytes, which that many bytes follow.
    fn length<const N: usize>(&mut self) -> Result<usize> {
        let length = self.number::<N>()?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(length) {
            Ok(length) if length <= left => Ok(length),
            _ => Err(self.fault(&format!("states a length of {length} bytes, and {left} follow"))),
        }
    }

    /// The next bytes, whose length was checked.
    fn take(&mut self, length: usize) -> &'b [u8] {
        let bytes = &self.bytes[self.at..][..length];
        self.at += length;
        bytes
    }

    /// The rest of a line of text.
    fn line(&mut self) -> Result<&'b str> {
        let rest = &self.bytes[self.at..];
        let end = memchr::memchr(b'\n', &rest[..rest.len().min(LONGEST_NAME + 1)]);
        let Some(end) = end else {
            return Err(self.fault("names a global whose name does not end"));
        };
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| self.fault("names a global that is not UTF-8"))
    }

    // Faults.

    fn truncated(&self) -> Error {
        self.fault(&format!(
            "goes beyond the end: the pickle is truncated after {}",
            counted(self.bytes.len(), "byte")
        ))
    }

    fn empty(&self) -> Error {
        self.fault("takes from an empty stack")
    }

    /// What is wrong with the opcode that is executed.
    fn fault(&self, what: &str) -> Error {
        Error::input(format!("the pickle {what} (byte {})", self.opcode_at)).hint(BRING_AGAIN)
    }
}

/// An integer in two's complement, lowest byte first.
fn integer(bytes: &[u8]) -> PickleValue {
    if bytes.len() > 8 {
        return PickleValue::BigInt(bytes.into());
    }
    let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if is_negative { 0xFF } else { 0 }; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    PickleValue::Int(i64::from_le_bytes(whole))
}

fn text(bytes: &[u8]) -> PickleValue {
    PickleValue::Text(String::from_utf8_lossy(bytes).into())
}

fn text_or_bytes(bytes: &[u8]) -> PickleValue {
    match std::str::from_utf8(bytes) {
        Ok(text) => PickleValue::Text(text.into()),
        Err(_) => PickleValue::Bytes(bytes.into()),
    }
}
