//! JSON values, one a line or one after the other.
//!
//! Where a value ends is found by counting brackets outside of strings, so that a value is parsed once, whole, and is never
//! longer in memory than a record may be. Of the value only the text is decoded; the rest is passed over without being
//! kept, however deep it is nested.

use std::fmt;
use std::io::BufRead;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::encoding::TextContainer;
use super::fault::landed;
use super::sink::Sink;
use super::text::BYTE_ORDER_MARK;
use crate::data::literals::{Literal, is_single_quote};
use crate::error::{Context as _, Error, Result};
use crate::manifest::reading::JsonLinesFormat;

/// Names of fields that a hint shows.
const SHOWN: usize = 8;

/// Reads the text of every value.
///
/// # Errors
/// A value is not JSON, has no such field or another kind of value there, or is too long.
pub fn read(input: &mut dyn BufRead, format: &JsonLinesFormat, sink: &mut Sink<'_>) -> Result<()> {
    let mut values = JsonTexts {
        pointer: pointer(&format.field)?,
        format,
        text: Vec::new(),
        number: 0,
        line: 1,
        behind: false,
        patched: Vec::new(),
        sink,
    };
    let mut scan = Scan::default();
    // A value that goes on in the next chunk.
    let mut carried: Vec<u8> = Vec::new();
    let mut first = true;
    loop {
        let chunk = input.fill_buf().map_err(landed)?;
        if chunk.is_empty() {
            break;
        }
        let mut at = 0;
        if std::mem::take(&mut first) && chunk.starts_with(BYTE_ORDER_MARK) {
            at = BYTE_ORDER_MARK.len();
        }
        while at < chunk.len() {
            if !scan.begun() {
                let Some(start) = chunk[at..].iter().position(|byte| !byte.is_ascii_whitespace()) else {
                    values.pass(&chunk[at..]);
                    break;
                };
                values.pass(&chunk[at..at + start]);
                at += start;
            }
            let rest = &chunk[at..];
            let end = scan.end(rest);
            let part = &rest[..end.unwrap_or(rest.len())];
            if carried.len() + part.len() > values.sink.longest {
                carried.extend_from_slice(part);
                return Err(values.too_long(&carried));
            }
            at += part.len();
            if end.is_none() {
                carried.extend_from_slice(part);
            } else if carried.is_empty() {
                values.closed(part)?;
            } else {
                carried.extend_from_slice(part);
                values.closed(&carried)?;
                carried.clear();
            }
        }
        let count = chunk.len();
        input.consume(count);
    }
    if !carried.is_empty() {
        values.value(&carried)?;
    }
    Ok(())
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Finds the end of a value.
#[derive(Default)]
struct Scan {
    /// Brackets that are open.
    depth: usize,
    within: Within,
    /// The last byte was a backslash in a string.
    escaped: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Within {
    /// Before a value.
    #[default]
    Nothing,
    /// Between the strings of an object or array.
    Structure,
    String,
    /// A number or word at the top.
    Scalar,
}

impl Scan {
    fn begun(&self) -> bool {
        self.within != Within::Nothing
    }

    /// The end of the value that begins at or before the start of `bytes`; `None` if it goes on behind them.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        let fresh = self.within == Within::Nothing;
        if fresh {
            self.within = match bytes.first()? {
                b'{' | b'[' => Within::Structure,
                b'"' => {
                    at = 1;
                    Within::String
                }
                // A bracket that closes nothing is a value of its own, and a fault.
                b'}' | b']' => return Some(1),
                _ => Within::Scalar,
            };
        }
        while at < bytes.len() {
            match self.within {
                Within::String => {
                    if std::mem::take(&mut self.escaped) {
                        at += 1;
                        continue;
                    }
                    let found = memchr::memchr3(b'"', b'\\', b'\n', &bytes[at..])?;
                    at += found + 1;
                    match bytes[at - 1] {
                        b'\\' => self.escaped = true,
                        b'"' if self.depth > 0 => self.within = Within::Structure,
                        // No string has a bare line break: what follows is not taken for a part of it.
                        _ => return Some(self.ended(at)),
                    }
                }
                Within::Scalar => {
                    let stop = |byte: &u8| byte.is_ascii_whitespace() || b"{}[]\",".contains(byte);
                    let length = bytes[at..].iter().position(stop)?;
                    // What cannot be passed over at the top is a value of its own, and a fault.
                    return Some(self.ended((at + length).max(usize::from(fresh))));
                }
                Within::Structure | Within::Nothing => {
                    let byte = bytes[at];
                    at += 1;
                    match byte {
                        b'"' => self.within = Within::String,
                        b'{' | b'[' => self.depth += 1,
                        b'}' | b']' => {
                            self.depth = self.depth.saturating_sub(1);
                            if self.depth == 0 {
                                return Some(self.ended(at));
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        None
    }

    fn ended(&mut self, at: usize) -> usize {
        *self = Self::default();
        at
    }
}

/// Takes the text out of values.
struct JsonTexts<'v, 's> {
    pointer: Vec<String>,
    format: &'v JsonLinesFormat,
    text: Vec<u8>,
    /// Values so far.
    number: u64,
    /// The line where the next value begins, from 1.
    line: u64,
    /// Another value stands before it in that line.
    behind: bool,
    /// A value without the numbers that are not JSON.
    patched: Vec<u8>,
    sink: &'v mut Sink<'s>,
}

impl JsonTexts<'_, '_> {
    /// Passes over white space between values.
    fn pass(&mut self, bytes: &[u8]) {
        let lines = newlines(bytes);
        self.line += lines;
        self.behind &= lines == 0;
    }

    /// Takes a value whose end was found.
    fn closed(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.ends_with(b"\n") {
            // Nothing else ends so: brackets and quotes close the others.
            return Err(Error::input(format!(
                "record {}: line {}: a string is not closed at the end of the line",
                self.number + 1,
                self.line + newlines(bytes) - 1
            ))
            .hint("a line break within a string is written `\\n`"));
        }
        self.value(bytes)
    }

    fn value(&mut self, bytes: &[u8]) -> Result<()> {
        self.number += 1;
        let found = match self.parse(bytes) {
            Ok(found) => found,
            Err(error) => self.without_numbers(bytes, &error)?,
        };
        let (number, line) = (self.number, self.line);
        let place = || format!("record {number} (line {line})");
        match found {
            Pointee::Text => {
                if std::str::from_utf8(&self.text).is_ok() {
                    self.sink.push(&self.text, String::new).context(place)?;
                } else {
                    let escaped = std::str::from_utf8(bytes).is_ok();
                    self.sink
                        .push_of(&self.text, TextContainer::Json { escaped }, place)?;
                }
            }
            Pointee::Null => self.sink.empty(),
            Pointee::Missing => return Err(self.missing(bytes)),
        }
        self.line += newlines(bytes);
        self.behind = true;
        Ok(())
    }

    /// Reads a value with `NaN`, `Infinity` or `-Infinity` in it, which Python's `json` writes, where none of them is
    /// part of the text.
    fn without_numbers(&mut self, bytes: &[u8], error: &serde_json::Error) -> Result<Pointee> {
        let mut patched = std::mem::take(&mut self.patched);
        if !error.is_syntax() || !patch(bytes, &mut patched) {
            return Err(self.fault(error, bytes));
        }
        let found = self.parse(&patched);
        self.patched = patched;
        // Columns are the same in both.
        found.map_err(|error| self.fault(&error, bytes))
    }

    fn parse(&mut self, bytes: &[u8]) -> serde_json::Result<Pointee> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let walk = PointerVisitor {
            pointer: &self.pointer,
            join: &self.format.join,
            text: &mut self.text,
        };
        let found = walk.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(found)
    }

    fn place(&self) -> String {
        format!("record {} (line {})", self.number, self.line)
    }

    /// Says what is wrong with a value, and in which line and column.
    fn fault(&self, error: &serde_json::Error, bytes: &[u8]) -> Error {
        let message = error.to_string();
        let message = message
            .rfind(" at line ")
            .map_or(&message[..], |end| &message[..end]);
        let line = self.line + (error.line() as u64).saturating_sub(1);
        let number = self.number;
        if bytes.starts_with(BYTE_ORDER_MARK) {
            let place = if self.behind { "in" } else { "at the start of" };
            return Error::input(format!(
                "record {number}: a byte order mark {place} line {line} (concatenated files?)"
            ))
            .hint(
                "name the files one by one in `files`, or take the marks out: \
                 `LC_ALL=C sed 's/\\xEF\\xBB\\xBF//g' FILE > NEW`",
            );
        }
        if bytes.first() == Some(&0) {
            return Error::input(format!("record {number}: a NUL byte in line {line}")).hint(
                "a writer that was stopped leaves such bytes at the end of a file; take them out: \
                 `tr -d '\\000' < FILE > NEW`",
            );
        }
        if let Some(name) = number_before(bytes, error) {
            return Error::input(format!(
                "record {number}: line {line}, column {}: {name} is neither JSON nor text (Python's `json` writes it \
                 for an undefined number)",
                error.column()
            ))
            .hint("write null for a missing text, for example with `jq -c .`: a null is an empty record");
        }
        let place = format!("record {number}: line {line}, column {}", error.column());
        if let Some(literal) = Literal::at(bytes, error) {
            return literal.fault().context(place);
        }
        let quoted = is_single_quote(bytes, error);
        let kind = error.classify();
        let error = Error::input(format!("{place}: {message}"));
        match kind {
            serde_json::error::Category::Data => {
                error.hint("set `field` to point to a string or an array of strings")
            }
            serde_json::error::Category::Eof => {
                error.hint("the value is cut off, or a bracket or quote is not closed")
            }
            _ if quoted => {
                error.hint("this is how Python prints values, not JSON: write them with `json.dumps`")
            }
            _ if bytes == b"," => error.hint(
                "JSON lines have no comma between values; to write an array's elements as lines: `jq -c '.[]' FILE > \
                 NEW`",
            ),
            _ => error.hint(
                "the file has to be JSON values one after the other; state `format` if it is something else",
            ),
        }
    }

    fn missing(&self, bytes: &[u8]) -> Error {
        let field = &self.format.field;
        let error = Error::input(format!("{}: there is no `{field}` in the value", self.place()));
        if bytes.first() == Some(&b'[') {
            return error.hint(
                "the value is an array; if its elements are the records, write one a line: `jq -c '.[]'`; or point \
                 into it (`/0`)",
            );
        }
        let mut names = FieldNames::default();
        let _ = serde_json::Deserializer::from_slice(bytes).deserialize_map(&mut names);
        if names.0.is_empty() {
            return error.hint("`field` is a JSON pointer such as `/text`");
        }
        let names: Vec<_> = names.0.iter().map(|name| format!("`/{name}`")).collect();
        error.hint(format!("`field` may be one of {}", names.join(", ")))
    }

    fn too_long(&mut self, bytes: &[u8]) -> Error {
        self.number += 1;
        // What swallowed the lines after it was broken before it was long.
        match self.parse(bytes) {
            Err(error) if error.is_syntax() || error.is_data() => self.fault(&error, bytes),
            _ => self.sink.too_long().context(self.place()),
        }
    }
}

/// Numbers that are not JSON, as Python writes them, and numbers of the same length.
const NO_NUMBERS: [(&[u8], &[u8]); 3] = [
    (b"-Infinity", b"-0.000000"),
    (b"Infinity", b"0.000000"),
    (b"NaN", b"0.0"),
];

/// Copies a value with numbers instead of those that are not JSON; whether there are some.
fn patch(bytes: &[u8], to: &mut Vec<u8>) -> bool {
    to.clear();
    to.extend_from_slice(bytes);
    let mut any = false;
    let mut at = 0;
    while let Some(next) = bytes.get(at) {
        if *next == b'"' {
            at += 1;
            loop {
                let Some(length) = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) else {
                    return any;
                };
                at += length + 1;
                if bytes[at - 1] == b'"' {
                    break;
                }
                // What is escaped.
                at += 1;
            }
            continue;
        }
        let found = matches!(next, b'N' | b'I' | b'-')
            .then(|| NO_NUMBERS.iter().find(|(word, _)| bytes[at..].starts_with(word)))
            .flatten();
        if let Some((word, number)) = found {
            to[at..at + word.len()].copy_from_slice(number);
            any = true;
            at += word.len();
        } else {
            at += 1;
        }
    }
    any
}

/// The number that is not JSON and that ends where the error is.
fn number_before(bytes: &[u8], error: &serde_json::Error) -> Option<&'static str> {
    let line = bytes
        .split(|&byte| byte == b'\n')
        .nth(error.line().checked_sub(1)?)?;
    let before = line.get(..error.column().min(line.len()))?;
    let (word, _) = NO_NUMBERS.iter().find(|(word, _)| before.ends_with(word))?;
    std::str::from_utf8(word).ok()
}

/// The parts of a JSON pointer (RFC 6901).
fn pointer(field: &str) -> Result<Vec<String>> {
    if field.is_empty() {
        return Ok(Vec::new());
    }
    let Some(rest) = field.strip_prefix('/') else {
        return Err(
            Error::input(format!("`field` is `{field}`, which is not a JSON pointer"))
                .hint(format!("it begins with a slash: `/{field}`")),
        );
    };
    Ok(rest
        .split('/')
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .collect())
}

/// What a pointer leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pointee {
    /// Text, which was put where it belongs.
    Text,
    /// A null.
    Null,
    /// Nothing.
    Missing,
}

/// Goes where a pointer leads.
struct PointerVisitor<'w> {
    pointer: &'w [String],
    join: &'w str,
    text: &'w mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for PointerVisitor<'_> {
    type Value = Pointee;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Pointee, D::Error> {
        if self.pointer.is_empty() {
            deserializer.deserialize_option(self)
        } else {
            deserializer.deserialize_any(self)
        }
    }
}

impl<'de> Visitor<'de> for PointerVisitor<'_> {
    type Value = Pointee;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_none<E>(self) -> Result<Pointee, E> {
        Ok(Pointee::Null)
    }

    fn visit_unit<E>(self) -> Result<Pointee, E> {
        Ok(Pointee::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Pointee, D::Error> {
        // Bytes, so that what is not UTF-8 (or half a surrogate pair) is a matter of the policy, not of the parser.
        deserializer.deserialize_bytes(TextVisitor {
            join: self.join,
            text: self.text,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pointee, A::Error> {
        let (name, pointer) = self
            .pointer
            .split_first()
            .ok_or_else(|| A::Error::custom("an object"))?;
        let mut found = Pointee::Missing;
        while let Some(matches) = map.next_key_seed(Key(name))? {
            if matches {
                // Of equal names the last counts, as in most parsers.
                found = map.next_value_seed(PointerVisitor {
                    pointer,
                    join: self.join,
                    text: &mut *self.text,
                })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pointee, A::Error> {
        let (name, pointer) = self
            .pointer
            .split_first()
            .ok_or_else(|| A::Error::custom("an array"))?;
        let canonical = name == "0" || !name.starts_with(['0', '+']);
        let index = name.parse::<usize>().ok().filter(|_| canonical);
        let mut found = Pointee::Missing;
        let mut at = 0;
        loop {
            if index == Some(at) {
                let walk = PointerVisitor {
                    pointer,
                    join: self.join,
                    text: &mut *self.text,
                };
                match seq.next_element_seed(walk)? {
                    Some(here) => found = here,
                    None => return Ok(found),
                }
            } else if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            at += 1;
        }
    }

    fn visit_bool<E>(self, _: bool) -> Result<Pointee, E> {
        Ok(Pointee::Missing)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Pointee, E> {
        Ok(Pointee::Missing)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Pointee, E> {
        Ok(Pointee::Missing)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Pointee, E> {
        Ok(Pointee::Missing)
    }

    fn visit_str<E>(self, _: &str) -> Result<Pointee, E> {
        Ok(Pointee::Missing)
    }
}

/// Whether a name is this one.
struct Key<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<bool, E> {
        Ok(name == self.0.as_bytes())
    }
}

/// Takes a string, or joins an array of them; nulls in it count as nothing.
struct TextVisitor<'t> {
    join: &'t str,
    text: &'t mut Vec<u8>,
}

impl<'de> Visitor<'de> for TextVisitor<'_> {
    type Value = Pointee;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Pointee, E> {
        self.text.clear();
        self.text.extend_from_slice(bytes);
        Ok(Pointee::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pointee, A::Error> {
        self.text.clear();
        let mut first = true;
        while let Some(any) = seq.next_element_seed(Element {
            join: if first { "" } else { self.join },
            text: &mut *self.text,
        })? {
            first &= !any;
        }
        Ok(Pointee::Text)
    }
}

/// Appends a string of an array; says whether there was one.
struct Element<'t> {
    join: &'t str,
    text: &'t mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_none<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_bytes(self)
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<bool, E> {
        self.text.extend_from_slice(self.join.as_bytes());
        self.text.extend_from_slice(bytes);
        Ok(true)
    }
}

/// The first names of an object.
#[derive(Default)]
struct FieldNames(Vec<String>);

impl<'de> Visitor<'de> for &mut FieldNames {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if self.0.len() < SHOWN && name.len() < 100 {
                self.0.push(name.replace('~', "~0").replace('/', "~1"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}
