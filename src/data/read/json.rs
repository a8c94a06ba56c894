//! JSON values, one a line or one after the other.
//!
//! `serde_json` finds where a value ends. A value that is not whole in the bytes read so far is parsed anew when there are
//! twice as many of them, until it is longer than a record may be. Of the value only the text is decoded; the rest is
//! passed over without being kept, however deep it is nested.

use std::fmt;
use std::io::BufRead;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde_json::error::Category;

use super::encoding::TextContainer;
use super::fault::landed;
use super::sink::Sink;
use super::text::BYTE_ORDER_MARK;
use crate::data::literals::{Literal, is_single_quote};
use crate::error::{Context as _, Error, Result};
use crate::manifest::reading::JsonLinesFormat;

/// Names of fields that a hint shows.
const SHOWN: usize = 8;
/// Bytes behind an error that may be a part of it: more than the longest word that is named in a message.
const LOOKAHEAD: usize = 16;

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
    // What was read and not yet taken, and how much of it is worth another look.
    let (mut kept, mut enough) = (Vec::new(), BYTE_ORDER_MARK.len());
    let mut begun = false;
    loop {
        let chunk = input.fill_buf().map_err(landed)?;
        let (count, ended) = (chunk.len(), chunk.is_empty());
        kept.extend_from_slice(chunk);
        input.consume(count);
        if kept.len() < enough && !ended {
            continue;
        }
        let mark = !std::mem::replace(&mut begun, true) && kept.starts_with(BYTE_ORDER_MARK);
        let taken = if mark { BYTE_ORDER_MARK.len() } else { 0 };
        let left = values.take(&kept[taken..], ended)?;
        if ended {
            return Ok(());
        }
        kept.drain(..kept.len() - left);
        enough = (2 * left).min(values.most());
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
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
    /// Takes the values that are whole; returns the number of bytes behind them.
    fn take(&mut self, mut bytes: &[u8], ended: bool) -> Result<usize> {
        loop {
            let is_space = |byte: &&u8| byte.is_ascii_whitespace();
            let (space, rest) = bytes.split_at(bytes.iter().take_while(is_space).count());
            let lines = newlines(space);
            self.line += lines;
            self.behind &= lines == 0;
            if rest.is_empty() {
                return Ok(0);
            }
            match self.value(rest, ended)? {
                Some(length) => bytes = &rest[length..],
                None => return Ok(rest.len()),
            }
        }
    }

    /// Bytes of a value that are parsed, at most.
    fn most(&self) -> usize {
        self.sink.longest.saturating_add(LOOKAHEAD)
    }

    /// Takes the value at the beginning; returns its length, or nothing where the next bytes may be a part of it.
    fn value(&mut self, bytes: &[u8], ended: bool) -> Result<Option<usize>> {
        let bytes = &bytes[..bytes.len().min(self.most())];
        let mut patched = std::mem::take(&mut self.patched);
        let parsed = match self.parse(bytes) {
            // Columns are the same in both.
            Err(error) if error.is_syntax() && patch(bytes, &mut patched) => self.parse(&patched),
            parsed => parsed,
        };
        self.patched = patched;
        let is_settled = match &parsed {
            Ok((_, length)) => *length < bytes.len() || closes(bytes),
            Err(error) => !error.is_eof() && offset(bytes, error) + LOOKAHEAD <= bytes.len(),
        };
        if !is_settled && !ended && bytes.len() < self.most() {
            return Ok(None);
        }
        self.number += 1;
        let (found, length) = match parsed {
            Ok(parsed) => parsed,
            Err(error) if error.is_eof() && bytes.len() > self.sink.longest => {
                (Pointee::Missing, bytes.len())
            }
            Err(error) => return Err(self.fault(&error, bytes)),
        };
        let value = &bytes[..length];
        let lines = newlines(value);
        if lines > 0 {
            self.closed(value)?;
        }
        if length > self.sink.longest {
            return Err(self.sink.too_long().context(self.place()));
        }
        let place = || format!("record {} (line {})", self.number, self.line);
        match found {
            Pointee::Text => {
                if let Ok(text) = std::str::from_utf8(&self.text) {
                    self.sink.emit(text).context(place)?;
                } else {
                    let escaped = std::str::from_utf8(value).is_ok();
                    self.sink
                        .push_of(&self.text, TextContainer::Json { escaped }, place)?;
                }
            }
            Pointee::Null => self.sink.empty().context(place)?,
            Pointee::Missing => return Err(self.missing(value)),
        }
        self.line += lines;
        self.behind = true;
        Ok(Some(length))
    }

    /// Reads the value at the beginning: what its pointer leads to, and its length.
    fn parse(&mut self, bytes: &[u8]) -> serde_json::Result<(Pointee, usize)> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let walk = PointerVisitor {
            pointer: &self.pointer,
            join: Some(&self.format.join),
            text: &mut self.text,
        };
        let found = walk.deserialize(&mut deserializer)?;
        let length = deserializer.into_iter::<IgnoredAny>().byte_offset();
        let separates = |byte: &u8| byte.is_ascii_whitespace() || b"{}[]\",".contains(byte);
        if !closes(&bytes[..length]) && bytes.get(length).is_some_and(|next| !separates(next)) {
            // A number or a word goes on in a way that no value does.
            serde_json::from_slice::<IgnoredAny>(&bytes[..=length])?;
        }
        Ok((found, length))
    }

    fn place(&self) -> String {
        format!("record {} (line {})", self.number, self.line)
    }

    /// Checks that no string goes on in the next line.
    fn closed(&self, bytes: &[u8]) -> Result<()> {
        let mut at = 0;
        while let Some(before) = memchr::memchr(b'"', &bytes[at..]) {
            at += before;
            at += string_length(&bytes[at..]);
            if bytes[at - 1] == b'\n' {
                let (number, line) = (self.number, self.line + newlines(&bytes[..at - 1]));
                return Err(Error::input(format!(
                    "record {number}: line {line}: a string is not closed at the end of the line"
                ))
                .hint("a line break within a string is written `\\n`"));
            }
        }
        Ok(())
    }

    /// Says what is wrong with a value, and in which line and column.
    fn fault(&self, error: &serde_json::Error, bytes: &[u8]) -> Error {
        let (before, after) = bytes.split_at(offset(bytes, error));
        let shown = after.len().min(1 + usize::from(after.starts_with(b"\r\n")));
        if let Err(error) = self.closed(&bytes[..before.len() + shown]) {
            return error;
        }
        let line = self.line + (error.line() as u64).saturating_sub(1);
        let place = format!("line {line}, column {}", error.column());
        let (message, hint) = if bytes.starts_with(BYTE_ORDER_MARK) {
            let place = if self.behind { "in" } else { "at the start of" };
            (
                format!("a byte order mark {place} line {line} (concatenated files?)"),
                "name the files one by one in `files`, or take the marks out: \
                 `LC_ALL=C sed 's/\\xEF\\xBB\\xBF//g' FILE > NEW`",
            )
        } else if bytes.first() == Some(&0) {
            (
                format!("a NUL byte in line {line}"),
                "a writer that was stopped leaves such bytes at the end of a file; take them out: \
                 `tr -d '\\000' < FILE > NEW`",
            )
        } else if let Some(name) = number_before(bytes, error) {
            (
                format!(
                    "{place}: {name} is neither JSON nor text (Python's `json` writes it for an undefined number)"
                ),
                "write null for a missing text, for example with `jq -c .`: a null is an empty record",
            )
        } else if let Some(literal) = Literal::at(bytes, error) {
            return literal
                .fault()
                .context(format!("record {}: {place}", self.number));
        } else {
            let message = error.to_string();
            let message = message
                .rsplit_once(" at line ")
                .map_or(&*message, |(message, _)| message);
            let hint = match error.classify() {
                Category::Data => "set `field` to point to a string or an array of strings",
                Category::Eof => "the value is cut off, or a bracket or quote is not closed",
                _ if is_single_quote(bytes, error) => {
                    "this is how Python prints values, not JSON: write them with `json.dumps`"
                }
                _ if bytes.starts_with(b",") => {
                    "JSON lines have no comma between values; to write an array's elements as lines: \
                     `jq -c '.[]' FILE > NEW`"
                }
                _ => {
                    "the file has to be JSON values one after the other; state `format` if it is something else"
                }
            };
            (format!("{place}: {message}"), hint)
        };
        Error::input(format!("record {}: {message}", self.number)).hint(hint)
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
}

/// Whether the last byte closes a value: a number or a word may go on.
fn closes(bytes: &[u8]) -> bool {
    matches!(bytes.last(), Some(b'}' | b']' | b'"'))
}

/// Where the parser stopped.
fn offset(bytes: &[u8], error: &serde_json::Error) -> usize {
    let mut ends = memchr::memchr_iter(b'\n', bytes);
    let line = match error.line().checked_sub(2) {
        Some(before) => ends.nth(before).map_or(bytes.len(), |end| end + 1),
        None => 0,
    };
    (line + error.column().saturating_sub(1)).min(bytes.len())
}

/// The length of the string at the beginning, with its quotes; of one that is not closed in its line the line break is the
/// last byte.
fn string_length(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(rest) = bytes.get(at..)
        && let Some(before) = memchr::memchr3(b'"', b'\\', b'\n', rest)
    {
        at += before + 1;
        if bytes[at - 1] != b'\\' {
            return at;
        }
        // What is escaped.
        at += 1;
    }
    bytes.len()
}

/// Numbers that are not JSON, as Python writes them, and numbers of the same length.
const NO_NUMBERS: [(&[u8], &[u8]); 3] = [
    (b"-Infinity", b"-0.000000"),
    (b"Infinity", b"0.000000"),
    (b"NaN", b"0.0"),
];

/// Copies the value at the beginning with numbers instead of those that are not JSON; whether there are some. Such a value
/// is read if the text of the record has no such number.
fn patch(bytes: &[u8], to: &mut Vec<u8>) -> bool {
    to.clear();
    let (mut depth, mut any) = (0_usize, false);
    while let Some(&byte) = bytes.get(to.len()) {
        let rest = &bytes[to.len()..];
        if let Some((_, number)) = NO_NUMBERS.iter().find(|(word, _)| rest.starts_with(word)) {
            to.extend_from_slice(number);
            any = true;
        } else if byte == b'"' {
            to.extend_from_slice(&rest[..string_length(rest)]);
        } else {
            to.push(byte);
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        if depth == 0 {
            break;
        }
    }
    // A number goes on in it.
    to.extend(bytes.get(to.len()));
    any
}

/// The number that is not JSON and that ends where the error is.
fn number_before(bytes: &[u8], error: &serde_json::Error) -> Option<&'static str> {
    let before = bytes.get(..=offset(bytes, error)).unwrap_or(bytes);
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

/// Goes where a pointer leads, and takes a string or joins an array of them; nulls in it count as nothing.
struct PointerVisitor<'w> {
    /// The parts of the pointer that are left.
    pointer: &'w [String],
    /// What stands between the strings of an array; an element is no array.
    join: Option<&'w str>,
    text: &'w mut Vec<u8>,
}

impl PointerVisitor<'_> {
    /// Goes on below, or takes a single string where there is nothing to join with.
    fn below<'w>(&'w mut self, pointer: &'w [String], join: Option<&'w str>) -> PointerVisitor<'w> {
        let text = &mut *self.text;
        PointerVisitor { pointer, join, text }
    }

    /// Joins the strings of an array.
    fn joined<'de, A: SeqAccess<'de>>(mut self, mut seq: A, join: &str) -> Result<Pointee, A::Error> {
        let mut any = false;
        loop {
            let before = self.text.len();
            if any {
                self.text.extend_from_slice(join.as_bytes());
            }
            let found = seq.next_element_seed(self.below(&[], None))?;
            if found == Some(Pointee::Text) {
                any = true;
            } else {
                self.text.truncate(before);
            }
            if found.is_none() {
                return Ok(Pointee::Text);
            }
        }
    }
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

/// Methods of a visitor for values that have nothing below them.
macro_rules! missing {
    ($($visit:ident: $value:ty),*) => {
        $(fn $visit<E>(self, _: $value) -> Result<Pointee, E> {
            Ok(Pointee::Missing)
        })*
    };
}

impl<'de> Visitor<'de> for PointerVisitor<'_> {
    type Value = Pointee;

    missing!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.join {
            Some(_) => "a string or an array of strings",
            None => "a string",
        })
    }

    fn visit_none<E>(self) -> Result<Pointee, E> {
        Ok(Pointee::Null)
    }

    fn visit_unit<E>(self) -> Result<Pointee, E> {
        Ok(Pointee::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Pointee, D::Error> {
        if self.join.is_some() {
            self.text.clear();
        }
        // Bytes, so that what is not UTF-8 (or half a surrogate pair) is a matter of the policy, not of the parser.
        deserializer.deserialize_bytes(self)
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Pointee, E> {
        self.text.extend_from_slice(bytes);
        Ok(Pointee::Text)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Pointee, A::Error> {
        let Some((name, pointer)) = self.pointer.split_first() else {
            return Err(A::Error::invalid_type(Unexpected::Map, &self));
        };
        let mut found = Pointee::Missing;
        loop {
            // Behind the text, which stays if no other of the same name follows: of equal names the last counts, as in
            // most parsers.
            let before = self.text.len();
            if map.next_key_seed(self.below(&[], None))?.is_none() {
                return Ok(found);
            }
            let matches = self.text[before..] == *name.as_bytes();
            self.text.truncate(before);
            if matches {
                found = map.next_value_seed(self.below(pointer, self.join))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Pointee, A::Error> {
        let Some((name, pointer)) = self.pointer.split_first() else {
            return match self.join {
                Some(join) => self.joined(seq, join),
                None => Err(A::Error::invalid_type(Unexpected::Seq, &self)),
            };
        };
        let canonical = name == "0" || !name.starts_with(['0', '+']);
        let mut found = None;
        if let Some(index) = name.parse::<usize>().ok().filter(|_| canonical) {
            let mut before = 0;
            while before < index && seq.next_element::<IgnoredAny>()?.is_some() {
                before += 1;
            }
            found = seq.next_element_seed(self.below(pointer, self.join))?;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found.unwrap_or(Pointee::Missing))
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
