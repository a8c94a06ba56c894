//! Words that stand where JSON has a value and that are not JSON: Python, JavaScript and their like print them.

use crate::error::Error;

/// A word that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Literal {
    /// As it stands there.
    pub word: &'static str,
    /// Who prints it, and for what.
    printed: &'static str,
    /// What writes JSON instead.
    way_out: &'static str,
}

const PYTHON: &str = "write the values with `json.dumps`, not as Python prints them";
const NO_NUMBER: &str = "write the values with `json.dumps`, not as Python prints them, and null for NaN";
const JAVASCRIPT: &str = "write the values with `JSON.stringify`, and null for missing values";

#[rustfmt::skip]
const LITERALS: &[Literal] = &[
    Literal { word: "None", printed: "Python prints it for null", way_out: PYTHON },
    Literal { word: "True", printed: "Python prints it for true", way_out: PYTHON },
    Literal { word: "False", printed: "Python prints it for false", way_out: PYTHON },
    Literal { word: "nan", printed: "Python prints it for an undefined number", way_out: NO_NUMBER },
    Literal { word: "inf", printed: "Python prints it for infinity", way_out: NO_NUMBER },
    Literal { word: "-inf", printed: "Python prints it for infinity", way_out: NO_NUMBER },
    Literal { word: "NaN", printed: "Python's `json` writes it for an undefined number", way_out: NO_NUMBER },
    Literal { word: "Infinity", printed: "Python's `json` writes it for infinity", way_out: NO_NUMBER },
    Literal { word: "-Infinity", printed: "Python's `json` writes it for infinity", way_out: NO_NUMBER },
    Literal { word: "undefined", printed: "JavaScript prints it for a missing value", way_out: JAVASCRIPT },
];

impl Literal {
    /// The word at the place of a parser's error, if that is what the error is about.
    pub(super) fn at(bytes: &[u8], error: &serde_json::Error) -> Option<Self> {
        let message = error.to_string();
        // Within strings parsers complain of other things.
        let of_values = ["expected value", "expected ident", "invalid number"];
        if !of_values.iter().any(|start| message.starts_with(start)) {
            return None;
        }
        let line = line(bytes, error.line())?;
        let at = error.column().checked_sub(1)?;
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        line.get(at).filter(|byte| is_word(byte))?;
        let start = line[..at]
            .iter()
            .rposition(|byte| !is_word(byte))
            .map_or(0, |before| before + 1);
        let length = line[start..].iter().position(|byte| !is_word(byte));
        let word = &line[start..length.map_or(line.len(), |length| start + length)];
        LITERALS
            .iter()
            .find(|literal| literal.word.as_bytes() == word)
            .copied()
    }

    /// The fault, without its place.
    pub(super) fn fault(self) -> Error {
        Error::input(format!("`{}` is not JSON ({})", self.word, self.printed)).hint(self.way_out)
    }
}

/// Whether a parser's error is about a single quote that opens a string, as Python prints strings.
pub(super) fn is_single_quote(bytes: &[u8], error: &serde_json::Error) -> bool {
    let message = error.to_string();
    let of_quotes = message.starts_with("expected value") || message.starts_with("key must be a string");
    of_quotes
        && line(bytes, error.line()).is_some_and(|line| {
            let at = error.column().checked_sub(1).and_then(|at| line.get(at));
            at == Some(&b'\'')
        })
}

/// A line by its number, from 1.
fn line(bytes: &[u8], number: usize) -> Option<&[u8]> {
    bytes.split(|&byte| byte == b'\n').nth(number.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_of_other_languages_are_found_where_the_parser_stops() {
        let found = |text: &str| {
            let error = serde_json::from_str::<serde::de::IgnoredAny>(text).unwrap_err();
            Literal::at(text.as_bytes(), &error).map(|literal| literal.word)
        };
        for (text, expected) in [
            (r#"{"a": None}"#, Some("None")),
            ("{\"b\": 1,\n \"a\": True}", Some("True")),
            (r"[1, nan]", Some("nan")),
            (r"[NaN]", Some("NaN")),
            (r"[-Infinity, 1]", Some("-Infinity")),
            (r"[-inf]", Some("-inf")),
            ("None", Some("None")),
            (r#"{"a": undefined}"#, Some("undefined")),
            (r#"{"a": Nonesuch}"#, None),
            (r#"{"a": "C:\None"}"#, None),
            ("[\"None\u{1}\"]", None),
            (r"[1,]", None),
            ("", None),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
        for (text, expected) in [
            ("{'a': 1}", true),
            (r#"{"a": 'b'}"#, true),
            (r#"{"a": b'c'}"#, false),
        ] {
            let error = serde_json::from_str::<serde::de::IgnoredAny>(text).unwrap_err();
            assert_eq!(is_single_quote(text.as_bytes(), &error), expected, "{text}");
        }
    }
}
