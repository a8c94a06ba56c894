//! JSON text to a tree whose every value and key knows its place.
//!
//! `serde_json` keeps no places, and the lenient JSON-with-comments parsers accept raw control characters and
//! fix their own nesting limit; faults that point at a line and column need neither. This one is strict
//! (RFC 8259), refuses repeated keys, and never recurses past [`MAX_DEPTH`]. A property test holds it to
//! `serde_json`'s verdict on every text.
//!
//! Numbers are brought to one form: `200`, `200.0` and `2e2` are the same integer, as JSON Schema says.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use super::fault::{Code, Draft, quoted};
use super::span::Span;
use super::spelling::{boolean, is_json_number, is_not_finite, is_nothing, number_hint};

/// Deepest nesting of arrays and objects that is read. A manifest needs 6.
pub const MAX_DEPTH: usize = 64;

/// Largest integer that a 64-bit float holds exactly together with all smaller ones: 2^53.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_992.0;

/// A JSON value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub data: Data,
}

/// What a [`Node`] is.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A finite number; an integer where it has an integer's value.
    Number(Number),
    /// A string, escapes resolved.
    String(String),
    /// An array.
    Array(Vec<Node>),
    /// An object: keys are unique.
    Object(Vec<Member>),
}

/// A field of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The key, escapes resolved.
    pub key: String,
    /// Where the key stands, quotes included.
    pub key_span: Span,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The value without places.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Number(number) => Value::Number(number.clone()),
            Data::String(text) => Value::String(text.clone()),
            Data::Array(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Data::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|m| (m.key.clone(), m.value.to_json()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }

    /// The field of that name, where this is an object that has it.
    #[must_use]
    pub fn member(&self, key: &str) -> Option<&Member> {
        self.members().iter().find(|member| member.key == key)
    }

    /// The fields, empty where this is not an object.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        match &self.data {
            Data::Object(members) => members,
            _ => &[],
        }
    }

    /// Whether this is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        matches!(self.data, Data::Object(_))
    }

    /// The string, where this is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.data {
            Data::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value at a JSON pointer (RFC 6901); `""` is the value itself.
    #[must_use]
    pub fn at(&self, pointer: &str) -> Option<&Self> {
        let mut node = self;
        for token in pointer_tokens(pointer) {
            node = match &node.data {
                Data::Object(_) => &node.member(&token)?.value,
                Data::Array(items) => items.get(token.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        Some(node)
    }
}

/// The tokens of a JSON pointer, unescaped.
pub fn pointer_tokens(pointer: &str) -> impl Iterator<Item = String> + '_ {
    pointer
        .split('/')
        .skip(1)
        .map(|token| token.replace("~1", "/").replace("~0", "~"))
}

/// A JSON pointer with one more token.
#[must_use]
pub fn pointer_join(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}

/// Reads one JSON value. `source` goes into every [`Span`].
///
/// Repeated keys are faults that do not stop the reading; the first of them counts. A syntax fault stops it: what
/// follows could only be guessed.
pub(super) fn parse(text: &str, source: usize) -> (Option<Node>, Vec<Draft>) {
    parse_at(text, 0, source)
}

/// [`parse`] for a text that begins `offset` bytes into its source.
pub(super) fn parse_at(text: &str, offset: usize, source: usize) -> (Option<Node>, Vec<Draft>) {
    let mut parser = Parser {
        text,
        position: 0,
        offset,
        source,
        path: Vec::new(),
        faults: Vec::new(),
    };
    let result = parser.document();
    let mut faults = parser.faults;
    let node = result.map_err(|fault| faults.push(*fault)).ok();
    (node, faults)
}

type Step<T> = Result<T, Box<Draft>>;

struct Parser<'a> {
    text: &'a str,
    position: usize,
    /// Where `text` begins in its source.
    offset: usize,
    source: usize,
    /// Where in the document we are, for pointers: keys and indices as text.
    path: Vec<String>,
    faults: Vec<Draft>,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span {
            source: self.source,
            start: self.offset + start,
            end: self.offset + end,
        }
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.position += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    fn pointer(&self) -> String {
        self.path
            .iter()
            .fold(String::new(), |pointer, token| pointer_join(&pointer, token))
    }

    /// A syntax fault over `start..end`.
    fn syntax(&self, start: usize, end: usize, message: impl Into<String>) -> Draft {
        Draft::new(Code::Syntax, self.span(start, end), self.pointer(), message)
    }

    /// A syntax fault at the next token, whatever that is.
    fn unexpected(&self, expected: &str) -> Draft {
        let start = self.position;
        let Some(first) = self.peek() else {
            return self
                .syntax(start, start, "the text ends unexpectedly")
                .expected(expected);
        };
        if matches!(first, '/' | '#') {
            let line = self.rest().lines().next().unwrap_or_default();
            return self
                .syntax(start, start + line.trim_end().len(), "comments are not allowed")
                .expected(expected)
                .hint("JSON has no comments; use the `description` of the manifest or of a stage");
        }
        let word: usize = self
            .rest()
            .chars()
            .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '.'))
            .map(char::len_utf8)
            .sum();
        let end = start + word.max(first.len_utf8());
        let found = &self.text[start..end];
        let fault = self
            .syntax(start, end, format!("unexpected {}", quoted(found)))
            .expected(expected);
        let is_word = word > 0 && !first.is_ascii_digit();
        match found {
            "'" | "`" | "“" | "”" | "„" | "‘" | "’" | "«" => {
                fault.hint("put strings and field names in double quotes")
            }
            _ if expected.starts_with("a field name") && is_word => fault.hint(format!("write \"{found}\"")),
            _ if expected != "a value" || !is_word => fault,
            _ if is_nothing(found) => fault.hint("leave the field out to use its default"),
            _ => match boolean(found) {
                Some(value) => fault.hint(format!("write `{value}`")),
                None => fault.hint(format!("put text in double quotes: write \"{found}\"")),
            },
        }
    }

    fn document(&mut self) -> Step<Node> {
        self.skip_space();
        let node = self.value(0)?;
        self.skip_space();
        if self.position < self.text.len() {
            return Err(self.unexpected("nothing after the value").into());
        }
        Ok(node)
    }

    fn value(&mut self, depth: usize) -> Step<Node> {
        let start = self.position;
        let data = match self.peek() {
            Some(open @ ('{' | '[')) => {
                if depth == MAX_DEPTH {
                    return Err(Draft::new(
                        Code::Nesting,
                        self.span(start, start + 1),
                        self.pointer(),
                        format!("nested more than {MAX_DEPTH} levels deep"),
                    )
                    .expected("at most 6 levels, as many as a manifest needs")
                    .into());
                }
                self.position += 1;
                if open == '{' {
                    self.object(start, depth)?
                } else {
                    self.array(start, depth)?
                }
            }
            Some('"') => Data::String(self.string()?),
            Some('-' | '+' | '.' | '0'..='9') => Data::Number(self.number()?),
            _ => {
                let word = [
                    ("true", Data::Bool(true)),
                    ("false", Data::Bool(false)),
                    ("null", Data::Null),
                ]
                .into_iter()
                .find(|(word, _)| {
                    self.rest()
                        .strip_prefix(word)
                        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
                });
                if let Some((word, data)) = word {
                    self.position += word.len();
                    data
                } else {
                    let rest = self.rest();
                    let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
                    if is_not_finite(&rest[..end]) {
                        return Err(self.not_finite().into());
                    }
                    return Err(self.unexpected("a value").into());
                }
            }
        };
        Ok(Node {
            span: self.span(start, self.position),
            data,
        })
    }

    fn object(&mut self, open: usize, depth: usize) -> Step<Data> {
        let mut members: Vec<Member> = Vec::new();
        let mut places: HashMap<String, Span> = HashMap::new();
        self.skip_space();
        if self.peek() == Some('}') {
            self.position += 1;
            return Ok(Data::Object(members));
        }
        loop {
            let start = self.position;
            if self.peek() != Some('"') {
                return Err(self
                    .unclosed(self.unexpected("a field name in double quotes"), open, '{')
                    .into());
            }
            let key = self.string()?;
            let key_span = self.span(start, self.position);
            self.path.push(key.clone());
            self.skip_space();
            if self.peek() != Some(':') {
                return Err(self.unexpected("`:` after the field name").into());
            }
            self.position += 1;
            self.skip_space();
            let value = self.value(depth + 1)?;
            if let Some(first) = places.get(&key) {
                self.faults.push(
                    Draft::new(
                        Code::DuplicateKey,
                        key_span,
                        self.pointer(),
                        format!("field {} is given twice", quoted(&key)),
                    )
                    .related(*first, "first here")
                    .expected("every field at most once"),
                );
            } else {
                places.insert(key.clone(), key_span);
                members.push(Member { key, key_span, value });
            }
            self.path.pop();
            if self.separator(open, '{', '}')? {
                return Ok(Data::Object(members));
            }
        }
    }

    fn array(&mut self, open: usize, depth: usize) -> Step<Data> {
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(']') {
            self.position += 1;
            return Ok(Data::Array(items));
        }
        loop {
            self.path.push(items.len().to_string());
            items.push(self.value(depth + 1)?);
            self.path.pop();
            if self.separator(open, '[', ']')? {
                return Ok(Data::Array(items));
            }
        }
    }

    /// After an element: `true` when the container closed, `false` when another element follows.
    fn separator(&mut self, open: usize, opening: char, close: char) -> Step<bool> {
        let before = self.position;
        self.skip_space();
        match self.peek() {
            Some(c) if c == close => {
                self.position += 1;
                Ok(true)
            }
            Some(',') => {
                let comma = self.position;
                self.position += 1;
                self.skip_space();
                if self.peek() == Some(close) {
                    return Err(self
                        .syntax(comma, comma + 1, format!("trailing comma before `{close}`"))
                        .expected("no comma after the last element")
                        .into());
                }
                Ok(false)
            }
            Some(c) if matches!(c, '"' | '{' | '[' | '-') || c.is_ascii_alphanumeric() => {
                // What stands before is a value, whose last byte is ASCII.
                let fault = self.syntax(before - 1, before, "missing comma after this value");
                Err(fault.expected(format!("`,` or `{close}`")).into())
            }
            _ => Err(self
                .unclosed(self.unexpected(&format!("`,` or `{close}`")), open, opening)
                .into()),
        }
    }

    /// Where the text ended within a container, shows where that began.
    fn unclosed(&self, fault: Draft, open: usize, opening: char) -> Draft {
        if self.position < self.text.len() {
            return fault;
        }
        fault.related(
            self.span(open, open + 1),
            format!("this `{opening}` is never closed"),
        )
    }

    fn string(&mut self) -> Step<String> {
        let open = self.position;
        self.position += 1;
        let mut out = String::new();
        loop {
            let rest = self.rest();
            let plain = rest
                .find(|c: char| c == '"' || c == '\\' || c < ' ')
                .unwrap_or(rest.len());
            out.push_str(&rest[..plain]);
            self.position += plain;
            match self.peek() {
                Some('"') => {
                    self.position += 1;
                    return Ok(out);
                }
                Some('\\') => out.push(self.escape()?),
                None | Some('\n' | '\r') => {
                    return Err(self
                        .syntax(open, self.position, "the string is not closed")
                        .expected("`\"` at its end, on the same line")
                        .into());
                }
                Some(control) => {
                    return Err(self
                        .syntax(
                            self.position,
                            self.position + 1,
                            format!("control character U+{:04X} in a string", control as u32),
                        )
                        .expected(format!("the escape `\\u{:04x}`", control as u32))
                        .into());
                }
            }
        }
    }

    fn escape(&mut self) -> Step<char> {
        let start = self.position;
        self.position += 1;
        let Some(letter) = self.peek() else {
            return Err(self.unexpected("an escape").into());
        };
        self.position += letter.len_utf8();
        Ok(match letter {
            '"' | '\\' | '/' => letter,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.unicode_escape(start),
            _ => {
                return Err(self
                    .syntax(
                        start,
                        self.position,
                        format!("unknown escape `\\{}`", letter.escape_debug()),
                    )
                    .expected("one of `\\\"`, `\\\\`, `\\/`, `\\b`, `\\f`, `\\n`, `\\r`, `\\t`, `\\uXXXX`")
                    .hint("write a backslash as `\\\\`")
                    .into());
            }
        })
    }

    fn unicode_escape(&mut self, start: usize) -> Step<char> {
        let high = self.four_hex_digits(start)?;
        let code = match high {
            0xD800..0xDC00 if self.rest().starts_with("\\u") => {
                self.position += 2;
                let low = self.four_hex_digits(start)?;
                if !(0xDC00..0xE000).contains(&low) {
                    return Err(self.lone_surrogate(start).into());
                }
                0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)
            }
            _ => high,
        };
        char::from_u32(code).ok_or_else(|| self.lone_surrogate(start).into())
    }

    fn lone_surrogate(&self, start: usize) -> Draft {
        self.syntax(start, self.position, "half of a surrogate pair")
            .expected("both halves, `\\ud83d\\ude00`, or the character itself")
    }

    fn four_hex_digits(&mut self, start: usize) -> Step<u32> {
        let digits = self
            .rest()
            .get(..4)
            .filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(digits) = digits else {
            return Err(self
                .syntax(start, self.position, "unfinished `\\u` escape")
                .expected("four hexadecimal digits after `\\u`")
                .into());
        };
        self.position += 4;
        Ok(digits
            .bytes()
            .fold(0, |n, digit| n * 16 + (digit as char).to_digit(16).unwrap_or(0)))
    }

    fn number(&mut self) -> Step<Number> {
        let start = self.position;
        let rest = self.rest();
        let length = rest
            .find(|c: char| !(c.is_alphanumeric() || "+-._".contains(c)))
            .unwrap_or(rest.len());
        let literal = &rest[..length];
        let end = start + length;
        if is_not_finite(literal) {
            return Err(self.not_finite().into());
        }
        if !is_json_number(literal) {
            let fault = self
                .syntax(start, end, format!("{} is not a JSON number", quoted(literal)))
                .expected(
                    "digits, optionally followed by a fraction such as `.5` and an exponent such as `e-4`",
                );
            return Err(fault.maybe_hint(number_hint(literal)).into());
        }
        self.position = end;
        if let Ok(integer) = literal.parse::<u64>() {
            return Ok(integer.into());
        }
        if let Ok(integer) = literal.parse::<i64>() {
            return Ok(integer.into());
        }
        let float: f64 = literal.parse().unwrap_or(f64::NAN);
        let mantissa = literal.split(['e', 'E']).next().unwrap_or_default();
        let vanished = float == 0.0 && mantissa.bytes().any(|b| b.is_ascii_digit() && b != b'0');
        if vanished || !float.is_finite() {
            let size = if vanished { "small" } else { "large" };
            return Err(Draft::new(
                Code::NumberRange,
                self.span(start, end),
                self.pointer(),
                format!("{} is too {size} for a 64-bit number", quoted(literal)),
            )
            .expected("a magnitude between 2.3e-308 and 1.7e308, or 0")
            .into());
        }
        if float.fract() == 0.0 && float.abs() <= MAX_SAFE_INTEGER {
            return Ok((float as i64).into());
        }
        // The value is finite, so there is a JSON number for it.
        Ok(Number::from_f64(float).unwrap_or_else(|| 0.into()))
    }

    fn not_finite(&self) -> Draft {
        let word: usize = self
            .rest()
            .chars()
            .take_while(|c| c.is_alphanumeric() || "+-".contains(*c))
            .map(char::len_utf8)
            .sum();
        Draft::new(
            Code::NumberRange,
            self.span(self.position, self.position + word),
            self.pointer(),
            format!("{} is not a JSON number", quoted(&self.rest()[..word])),
        )
        .expected("a finite number")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Node, Vec<Draft>> {
        match parse(text, 0) {
            (Some(node), faults) if faults.is_empty() => Ok(node),
            (_, faults) => Err(faults),
        }
    }

    #[test]
    fn nodes_have_their_place() {
        let text = r#"{"a": [1, "\u00e9\ud83d\ude00", {"b/c": null}]}"#;
        let node = read(text).unwrap();
        let at = |pointer: &str| {
            let span = node.at(pointer).unwrap().span;
            &text[span.start..span.end]
        };
        assert_eq!(at(""), text);
        assert_eq!(at("/a/0"), "1");
        assert_eq!(at("/a/1"), r#""\u00e9\ud83d\ude00""#);
        assert_eq!(at("/a/2/b~1c"), "null");
        assert_eq!(node.at("/a/1").unwrap().as_str(), Some("é😀"));
        assert_eq!(node.at("/a/3"), None);
        assert_eq!(node.at("/b"), None);
    }

    #[test]
    fn integers_are_read_in_every_notation() {
        for text in ["200", "200.0", "2e2", "20000e-2"] {
            assert_eq!(read(text).unwrap().to_json(), Value::from(200), "{text}");
        }
        assert_eq!(read("-0.0").unwrap().to_json(), Value::from(0));
        assert_eq!(
            read("18446744073709551615").unwrap().to_json(),
            Value::from(u64::MAX)
        );
        assert_eq!(read("0.5").unwrap().to_json(), Value::from(0.5));
        assert_eq!(read("1e300").unwrap().to_json(), Value::from(1e300));
    }

    #[test]
    fn nesting_deeper_than_the_limit_is_refused() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(read(&nested(MAX_DEPTH + 1)).unwrap_err()[0].code, Code::Nesting);
        assert_eq!(read(&"[".repeat(1_000_000)).unwrap_err()[0].code, Code::Nesting);
    }

    #[test]
    fn repeated_keys_are_faults_that_do_not_end_parsing() {
        let (node, faults) = parse(r#"{"a": 1, "a": {"b": 2, "b": 3}, "c": 4, "a": 5}"#, 0);
        let pointers: Vec<_> = faults.iter().map(|fault| (fault.code, &*fault.pointer)).collect();
        let twice = Code::DuplicateKey;
        assert_eq!(pointers, [(twice, "/a/b"), (twice, "/a"), (twice, "/a")]);
        assert_eq!(node.unwrap().to_json().to_string(), r#"{"a":1,"c":4}"#);
    }

    /// Pieces that make and break JSON.
    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\n",
        "\t",
        "\"a\"",
        "\"b\"",
        "\"\"",
        "\"\\u00e9\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud800\"",
        "\"\\x\"",
        "\"\u{1}\"",
        "\"é\"",
        "null",
        "true",
        "false",
        "nul",
        "0",
        "-0",
        "-",
        "01",
        "1.",
        ".5",
        "1e5",
        "1E-5",
        "1e",
        "-1.5",
        "+1",
        "0x1",
        "NaN",
        "\u{a0}",
        "//",
        "'a'",
        "\"a\":",
        "\"b\":1,",
    ];

    fn values_are_equal(ours: &Value, theirs: &Value) -> bool {
        match (ours, theirs) {
            (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| values_are_equal(a, b))
            }
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len()
                    && a.iter()
                        .all(|(key, a)| b.get(key).is_some_and(|b| values_are_equal(a, b)))
            }
            _ => ours == theirs,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn parser_accepts_what_serde_json_accepts(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..9)) {
            let text = pieces.concat();
            match (read(&text), serde_json::from_str::<Value>(&text)) {
                (Ok(ours), Ok(theirs)) => prop_assert!(values_are_equal(&ours.to_json(), &theirs), "{text:?}"),
                // What is legal JSON and refused here: repeated keys, and numbers that would silently become 0.
                (Err(faults), Ok(_)) => prop_assert!(
                    faults.iter().all(|fault| matches!(fault.code, Code::DuplicateKey | Code::NumberRange)),
                    "{text:?}: {faults:?}"
                ),
                (Ok(_), Err(error)) => prop_assert!(false, "{text:?}: {error}"),
                (Err(faults), Err(_)) => {
                    for fault in faults {
                        prop_assert!(text.get(fault.span.start..fault.span.end).is_some(), "{text:?}: {fault:?}");
                    }
                }
            }
        }
    }
}
