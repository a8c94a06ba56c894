//! Faults of a manifest: what is wrong, where, and the way out.

use std::fmt::{self, Write as _};
use std::io;

use serde::Serialize;
use serde_json::{Value, json};

use super::span::Span;
use crate::error::Error;

/// Faults that are printed at most; the rest is counted. A reader stops after a screenful or two, and a text of a
/// megabyte can hold half a million.
pub const MAX_FAULTS: usize = 200;

/// What sort of fault it is: stable names for tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The file cannot be read.
    Unreadable,
    /// The file is larger than a manifest may be.
    TooLarge,
    /// The file is empty.
    Empty,
    /// The file is not UTF-8, or begins with a byte order mark.
    Encoding,
    /// The text is not JSON.
    Syntax,
    /// Arrays and objects are nested too deep.
    Nesting,
    /// A number that a 64-bit float cannot hold.
    NumberRange,
    /// A field is given twice.
    DuplicateKey,
    /// A `--set` argument that cannot be applied.
    Override,
    /// A field that does not exist.
    UnknownField,
    /// A required field is missing.
    MissingField,
    /// A value of another JSON type than the field takes.
    WrongType,
    /// A value that the field does not take.
    InvalidValue,
    /// A number outside the field's bounds, or too few or too many elements.
    OutOfRange,
    /// A name with characters that names cannot have.
    InvalidName,
    /// A `kind` that does not exist.
    UnknownKind,
    /// A shape that was not compiled.
    UnknownShape,
    /// A reference to a stage that does not exist.
    UnknownStage,
    /// A stage names a stage of a kind that it cannot consume.
    WrongStage,
    /// Stages consume each other in a cycle.
    Cycle,
    /// A tokenizer has more tokens than the shape's vocabulary.
    Vocabulary,
    /// Rows are not as long as the shape's.
    RowLength,
    /// A choice about padding for rows that have none.
    Padding,
    /// Rows that begin with context where they cannot, or for a use that has none.
    Context,
    /// Rows were tokenized with a different tokenizer than the model's.
    Tokenizer,
    /// `micro_batch` does not divide `batch`.
    MicroBatch,
    /// `grains` cannot cut a batch.
    Grains,
    /// Warm-up takes longer than the training.
    Warmup,
    /// A training starts from a model that does not fit it.
    Init,
    /// A noise schedule that does not rise.
    Noise,
    /// An estimator or sampler that needs a network without time conditioning, or an objective that needs one with it.
    TimeConditioning,
    /// Settings of an objective that exclude each other, or an estimator or sampler that does not fit the objective.
    Objective,
    /// An alphabet contains a character twice.
    Alphabet,
    /// A grammar that the data does not come from.
    Grammar,
    /// A split without rows.
    EmptySplit,
    /// A download that is neither pinned nor declared as unpinned, or is both.
    Pin,
    /// A part that a corpus does not have.
    Corpus,
    /// Detokenizers that do not match each other or the corpus.
    Detokenize,
    /// A regular expression, glob, JSON pointer or column that cannot be one.
    Pattern,
    /// Settings that leave no record.
    NothingLeft,
    /// A setting that has no effect.
    NoEffect,
    /// A sweep that cannot be expanded.
    Matrix,
    /// The schema accepts a value that the program does not: a bug in mdlm, which a property test looks for.
    Disagreement,
}

impl Code {
    /// The code as tools see it: `unknown-field`.
    #[must_use]
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(Value::String(name)) => name,
            _ => String::new(),
        }
    }
}

/// A range of a text in lines and columns: 1-based, columns in characters, the end exclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Location {
    /// The file as it was named, or `--set` with the argument's path.
    pub source: String,
    /// Line of the first character.
    pub line: usize,
    /// Column of the first character.
    pub column: usize,
    /// Line past the last character.
    pub end_line: usize,
    /// Column past the last character.
    pub end_column: usize,
    /// The same range in bytes, and in which of [`Faults::sources`] it lies.
    #[serde(skip)]
    pub span: Span,
}

impl fmt::Display for Location {
    /// `pipelines/lm1b.json:12:7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source, self.line, self.column)
    }
}

/// Another place that explains a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Where.
    pub place: Location,
    /// The text at the place.
    pub message: String,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What sort of fault.
    pub code: Code,
    /// Where.
    pub place: Location,
    /// JSON pointer (RFC 6901) of the value at fault; of the value that lacks something, where something is missing.
    pub pointer: String,
    /// The offending value as JSON, shortened.
    pub value: Option<String>,
    /// What is wrong: a lowercase fragment.
    pub message: String,
    /// What would be right.
    pub expected: Option<String>,
    /// The way out.
    pub hint: Option<String>,
    /// Places that explain it.
    pub related: Vec<Related>,
}

impl fmt::Display for Fault {
    /// One line: `place: message; expected …; hint: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        if let Some(expected) = &self.expected {
            write!(f, "; expected {expected}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

/// A text that faults point into: the file or the value of a `--set` argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// The file as it was named, or `--set`.
    pub name: String,
    /// The text; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// Everything that is wrong with a manifest, in the order of the text. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The texts: the file first, then every `--set` argument.
    pub sources: Vec<SourceText>,
    /// The first [`MAX_FAULTS`] faults.
    pub list: Vec<Fault>,
    /// How many there are beyond those.
    pub omitted: usize,
}

impl Faults {
    /// Faults in all.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list.len() + self.omitted
    }

    /// One error of the user's input, with a line for each fault. `cli` shows [`Faults`] with the lines at fault instead.
    #[must_use]
    pub fn into_error(self) -> Error {
        Error::input(self.to_string())
    }

    pub(super) fn new(sources: Vec<SourceText>, mut drafts: Vec<Draft>, omitted: usize) -> Self {
        for draft in &mut drafts {
            draft.blame_override();
        }
        drafts.sort_by(|a, b| (a.span, &a.message).cmp(&(b.span, &b.message)));
        drafts.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        let omitted = omitted + drafts.len().saturating_sub(MAX_FAULTS);
        drafts.truncate(MAX_FAULTS);
        let lines: Vec<_> = sources.iter().map(|source| line_starts(&source.text)).collect();
        let place = |span: Span| -> Location {
            let (Some(source), Some(starts)) = (sources.get(span.source), lines.get(span.source)) else {
                return Location::default();
            };
            let (line, column) = line_and_column(&source.text, starts, span.start);
            let (end_line, end_column) = line_and_column(&source.text, starts, span.end);
            Location {
                source: source.name.clone(),
                line,
                column,
                end_line,
                end_column,
                span,
            }
        };
        let list = drafts
            .into_iter()
            .map(|draft| Fault {
                code: draft.code,
                place: place(draft.span),
                pointer: draft.pointer,
                value: draft.value,
                message: draft.message,
                expected: draft.expected,
                hint: draft.hint,
                related: draft
                    .related
                    .into_iter()
                    .map(|(span, message)| Related {
                        place: place(span),
                        message,
                    })
                    .collect(),
            })
            .collect();
        Self {
            sources,
            list,
            omitted,
        }
    }
}

impl fmt::Display for Faults {
    /// One line a fault.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_char('\n')?;
            }
            write!(f, "{fault}")?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// A fault before its place is known in lines and columns.
#[derive(Clone, Debug)]
pub(in crate::manifest) struct Draft {
    pub code: Code,
    pub span: Span,
    pub pointer: String,
    pub message: String,
    pub value: Option<String>,
    pub expected: Option<String>,
    pub hint: Option<String>,
    pub related: Vec<(Span, String)>,
}

impl Draft {
    pub fn new(code: Code, span: Span, pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code,
            span,
            pointer: pointer.into(),
            message: message.into(),
            value: None,
            expected: None,
            hint: None,
            related: Vec::new(),
        }
    }

    /// If the file and an override contradict each other, the fault is placed at the override, which is newer.
    fn blame_override(&mut self) {
        if self.span.source == 0
            && let Some((place, message)) = self.related.iter_mut().find(|(place, _)| place.source > 0)
        {
            std::mem::swap(place, &mut self.span);
            "conflicts with this".clone_into(message);
        }
    }

    pub fn value(mut self, value: &Value) -> Self {
        self.value = Some(shortened(value));
        self
    }

    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    pub fn related(mut self, span: Span, message: impl Into<String>) -> Self {
        self.related.push((span, message.into()));
        self
    }
}

/// The byte at which every line begins.
fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0)
        .chain(
            text.bytes()
                .enumerate()
                .filter(|(_, b)| *b == b'\n')
                .map(|(i, _)| i + 1),
        )
        .collect()
}

/// 1-based line and column, in characters, of a byte.
fn line_and_column(text: &str, starts: &[usize], byte: usize) -> (usize, usize) {
    let line = starts.partition_point(|start| *start <= byte).max(1);
    let before = text.get(starts[line - 1]..byte).unwrap_or_default();
    (line, before.chars().count() + 1)
}

/// Longest quoted name or value in a message, in characters.
const MAX_QUOTED: usize = 60;

/// Text in backticks for a message: control characters escaped, long text shortened.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::from("`");
    for (i, c) in text.chars().enumerate() {
        if i == MAX_QUOTED {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    out.push('`');
    out
}

/// JSON on one line, spaced as people write it.
pub(super) fn spaced(value: &Value) -> String {
    match value {
        Value::Object(members) if !members.is_empty() => {
            let members: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{}: {}", json!(key), spaced(value)))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(spaced).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// An override of a field: text without its quotes, and quoted for a shell where it holds JSON.
pub(super) fn argument(path: &str, value: &Value) -> String {
    match value {
        Value::String(text) => format!("--set {path}={text}"),
        Value::Array(_) | Value::Object(_) => format!("--set '{path}={value}'"),
        other => format!("--set {path}={other}"),
    }
}

/// A value as compact JSON, shortened.
#[must_use]
pub fn shortened(value: &Value) -> String {
    /// Takes what is needed and then fails, so that a value of a megabyte is not written out whole.
    struct Short(Vec<u8>);
    impl io::Write for Short {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.len() > 4 * MAX_QUOTED {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut short = Short(Vec::new());
    let whole = serde_json::to_writer(&mut short, value).is_ok();
    let text = String::from_utf8_lossy(&short.0);
    let mut out: String = text.chars().take(MAX_QUOTED).collect();
    if !whole || text.chars().count() > MAX_QUOTED {
        out.push('…');
    }
    out
}

/// The candidate that was probably meant: near in spelling, or the same but for case and separators.
#[must_use]
pub fn did_you_mean<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Names are shorter; longer text is not a misspelling, and comparing it is slow.
    const LONGEST: usize = 64;
    /// Below this Jaro-Winkler similarity a suggestion misleads more often than it helps; tried on misspellings.
    const NEAR: f64 = 0.84;
    if written.is_empty() || written.len() > LONGEST {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
    let (mut best, mut best_score) = (None, 0.0);
    for candidate in candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= LONGEST)
    {
        let (a, b) = (plain(written), plain(candidate));
        let near = match strsim::damerau_levenshtein(&a, &b) {
            0 => 3.0,
            1 if b.len() > 2 => 2.0,
            2 if b.len() > 4 => 1.0,
            _ => 0.0,
        };
        let score = near + strsim::jaro_winkler(written, candidate);
        if score >= NEAR && score > best_score {
            (best, best_score) = (Some(candidate), score);
        }
    }
    best
}

/// "did you mean `x`?", where there is an `x`.
pub(super) fn suggestion<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    did_you_mean(written, candidates).map(|candidate| format!("did you mean {}?", quoted(candidate)))
}

/// "`a`, `b` or `c`".
pub(super) fn alternatives<S: AsRef<str>>(names: &[S]) -> String {
    let names: Vec<_> = names.iter().map(|name| quoted(name.as_ref())).collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [init @ .., last] => format!("{} or {last}", init.join(", ")),
    }
}
