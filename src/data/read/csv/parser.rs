//! Where rows and values begin and end.
//!
//! RFC 4180, read strictly: a value that begins with a quote ends with one, and behind that one comes a delimiter or the
//! end of the row. A quote elsewhere is text. A row ends at `\n`, `\r` or both; blank lines are not rows.
//!
//! Values are handed on piece by piece as they lie in the input, so that one that is not part of the text takes no memory,
//! however long it is.

use std::io::BufRead;

use super::super::fault::landed;
use super::super::text::BYTE_ORDER_MARK;
use crate::error::{Error, Result};
use crate::plural::counted;

/// Bytes that may be read again for rows that were skipped, beside a multiple of what was read: what open quotes take in
/// is looked at anew, and input is hostile.
const READ_AGAIN: u64 = 16 << 20;
/// That multiple.
const TIMES_AGAIN: u64 = 16;
/// Coincidences that make an error of quoted values that read as rows.
const COINCIDENCES: u64 = 2;

/// The characters with a meaning.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    /// Between values.
    pub delimiter: u8,
    /// Around values.
    pub quote: Option<u8>,
    /// Before a character that has no meaning.
    pub escape: Option<u8>,
    /// At the start of a line that is passed over.
    pub comment: Option<u8>,
    /// Lines of a quoted value, at most.
    pub quoted_lines: u64,
    /// Whether quoted values of several lines that all read as rows are suspicious.
    pub suspicious: bool,
}

/// What is wrong with a row.
#[derive(Clone, Debug)]
pub struct RowFault {
    /// What it is, with line and column.
    pub message: String,
    /// A way out.
    pub hint: String,
}

/// A row that was read.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its values.
    pub width: usize,
    /// Where the first value began that the header has no name for: line and column.
    pub beyond: Option<(u64, u64)>,
    /// A backslash stood before a delimiter.
    pub backslash: bool,
    /// A value began with a space and a quote.
    pub spaced: bool,
    /// What is wrong with it.
    pub fault: Option<RowFault>,
}

/// Finds rows in an input.
pub struct Parser<'i> {
    input: &'i mut dyn BufRead,
    /// Nothing was read so far.
    fresh: bool,
    /// Whether faulty rows are skipped: what an open quote took in is then read again.
    skips: bool,
    /// Bytes kept for that, at most.
    longest: usize,
    /// What is read before the input.
    again: Vec<u8>,
    again_at: usize,
    /// Bytes read again so far.
    reread: u64,
    /// The bytes of the current row behind its first line.
    tail: Vec<u8>,
    /// Some of them came from the input.
    tail_is_new: bool,
    machine: Machine,
}

impl<'i> Parser<'i> {
    /// Reads `input` from its start; where faulty rows are skipped, up to `longest` bytes of a row are kept.
    pub fn new(input: &'i mut dyn BufRead, dialect: Dialect, skips: bool, longest: usize) -> Self {
        Self {
            input,
            fresh: true,
            skips,
            longest,
            again: Vec::new(),
            again_at: 0,
            reread: 0,
            tail: Vec::new(),
            tail_is_new: false,
            machine: Machine::new(dialect),
        }
    }

    /// The line where the current row begins, from 1.
    pub fn row_line(&self) -> u64 {
        self.machine.row_line
    }

    /// States how many values a row has.
    pub fn expect(&mut self, width: usize) {
        self.machine.expected = Some(width);
    }

    /// The character between values.
    pub fn delimiter(&self) -> u8 {
        self.machine.dialect.delimiter
    }

    /// Takes another delimiter from the next row on.
    pub fn delimit(&mut self, delimiter: u8) {
        self.machine.dialect.delimiter = delimiter;
    }

    /// Gives every piece of the next row's values with its column, from 0, to `piece`; `None` after the last row.
    ///
    /// # Errors
    /// The input cannot be read; a row is malformed or too long; the errors of `piece`.
    pub fn row(&mut self, piece: &mut dyn FnMut(usize, &[u8]) -> Result<()>) -> Result<Option<Row>> {
        self.tail.clear();
        self.tail_is_new = false;
        self.machine.next_row();
        loop {
            let (chunk, again) = if self.again_at < self.again.len() {
                (&self.again[self.again_at..], true)
            } else {
                let mut chunk = self.input.fill_buf().map_err(landed)?;
                if std::mem::take(&mut self.fresh) && chunk.starts_with(BYTE_ORDER_MARK) {
                    self.input.consume(BYTE_ORDER_MARK.len());
                    chunk = self.input.fill_buf().map_err(landed)?;
                }
                (chunk, false)
            };
            let start = self.machine.position;
            let (read, ended) = if chunk.is_empty() {
                let any = self.machine.finish();
                if !any {
                    return Ok(None);
                }
                (0, true)
            } else {
                self.machine.feed(chunk, piece)?
            };
            self.machine.position += read as u64;
            self.machine.last = read.checked_sub(1).map_or(self.machine.last, |last| chunk[last]);
            if self.skips
                && let Some(second) = self.machine.second_line
            {
                let from = usize::try_from(second.start.saturating_sub(start)).unwrap_or(read);
                let part = &chunk[from.min(read)..read];
                if self.tail.len() + part.len() > self.longest {
                    return Err(Error::input(format!(
                        "the row that begins in line {} is longer than {} bytes",
                        self.machine.row_line, self.longest
                    ))
                    .hint("where bad rows are skipped a row is kept until it ends: raise `longest_record`"));
                }
                self.tail.extend_from_slice(part);
                self.tail_is_new |= !again && !part.is_empty();
            }
            if again {
                self.again_at += read;
            } else {
                self.input.consume(read);
            }
            if !ended {
                continue;
            }
            if self.skips && self.machine.fault.is_some() {
                self.read_again()?;
            }
            return Ok(Some(self.machine.taken()));
        }
    }

    /// Goes back to the second line of a row that an open quote made of several.
    fn read_again(&mut self) -> Result<()> {
        let Some(second) = self.machine.second_line else {
            return Ok(());
        };
        self.reread += self.tail.len() as u64;
        let bound = READ_AGAIN.saturating_add(self.machine.position.saturating_mul(TIMES_AGAIN));
        if self.reread > bound {
            return Err(Error::input(format!(
                "too many quotes are opened and not closed, up to line {}",
                self.machine.line
            ))
            .hint("if quotes are text in this file, say so: `\"quote\": \"none\"`"));
        }
        if self.tail_is_new {
            // The input is read only once what is read again has ended.
            self.again = std::mem::take(&mut self.tail);
            self.again_at = 0;
        } else {
            self.again_at -= self.tail.len();
        }
        self.machine.go_back(second);
        Ok(())
    }

    /// What speaks for quotes that are text, once all rows are read.
    pub fn suspicion(&self) -> Option<Suspicion> {
        self.machine.lines.suspicion()
    }
}

/// Quoted values of more than one line that read as rows as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Line and column of the first one's quote.
    pub first: (u64, u64),
    /// The lines of the longest quoted value.
    pub lines: u64,
    /// How many there are.
    pub values: u64,
    /// Whether it is more than a coincidence.
    pub strong: bool,
    /// Other values of more than one line do not read as rows.
    pub mixed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ParserState {
    /// Before a row.
    Start,
    /// In a line that is passed over.
    Comment,
    /// Before a value.
    Value,
    /// Behind a space that begins a value.
    Spaced,
    Unquoted,
    Quoted,
    /// Behind a quote in a quoted value.
    Quote,
    /// Behind an escape in an unquoted value.
    EscapedUnquoted,
    /// Behind an escape in a quoted value.
    EscapedQuoted,
    /// In what is left of a faulty line.
    Rest,
}

/// Where a line begins.
#[derive(Clone, Copy)]
struct LineStart {
    number: u64,
    start: u64,
    /// Behind a `\r`, so that a `\n` there belongs to the line before.
    behind_return: bool,
}

struct Machine {
    dialect: Dialect,
    state: ParserState,
    /// Values a row has.
    expected: Option<usize>,
    /// The bytes before the next one.
    position: u64,
    /// The line of the next byte, from 1.
    line: u64,
    /// Where that line begins.
    line_start: u64,
    /// Behind the last `\r`.
    behind_return: Option<u64>,
    /// The last byte of the chunk before.
    last: u8,
    row_line: u64,
    /// The current value, from 0.
    column: usize,
    beyond: Option<(u64, u64)>,
    backslash: bool,
    spaced: bool,
    fault: Option<RowFault>,
    /// Line and column of the open quote.
    opened: (u64, u64),
    /// The byte before the last quote was a backslash.
    backslash_quote: bool,
    /// The current row's second line.
    second_line: Option<LineStart>,
    lines: QuotedLines,
}

impl Machine {
    fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            state: ParserState::Start,
            expected: None,
            position: 0,
            line: 1,
            line_start: 0,
            behind_return: None,
            last: 0,
            row_line: 1,
            column: 0,
            beyond: None,
            backslash: false,
            spaced: false,
            fault: None,
            opened: (1, 1),
            backslash_quote: false,
            second_line: None,
            lines: QuotedLines::default(),
        }
    }

    fn next_row(&mut self) {
        self.state = ParserState::Start;
        self.column = 0;
        self.beyond = None;
        self.backslash = false;
        self.spaced = false;
        self.fault = None;
        self.second_line = None;
    }

    fn taken(&mut self) -> Row {
        Row {
            width: self.column + 1,
            beyond: self.beyond,
            backslash: self.backslash,
            spaced: self.spaced,
            fault: self.fault.take(),
        }
    }

    fn go_back(&mut self, to: LineStart) {
        self.position = to.start;
        self.line = to.number;
        self.line_start = to.start;
        self.behind_return = to.behind_return.then_some(to.start);
    }

    /// Line and column of a byte, from 1.
    fn place(&self, position: u64) -> (u64, u64) {
        (self.line, position.saturating_sub(self.line_start) + 1)
    }

    /// Counts a line break; `\r\n` is one. Says whether it is a new one.
    fn line_break(&mut self, byte: u8, position: u64) -> bool {
        let second_half = byte == b'\n' && self.behind_return == Some(position);
        self.behind_return = (byte == b'\r').then_some(position + 1);
        self.line_start = position + 1;
        self.line += u64::from(!second_half);
        if let Some(second) = &mut self.second_line
            && second_half
            && second.start == position
        {
            second.start = position + 1;
            second.behind_return = false;
        }
        !second_half
    }

    fn delimited(&mut self, position: u64) {
        self.column += 1;
        self.state = ParserState::Value;
        if self.expected == Some(self.column) {
            self.beyond = Some(self.place(position + 1));
        }
    }

    /// The byte before one of a chunk.
    fn before(&self, chunk: &[u8], at: usize) -> u8 {
        at.checked_sub(1).map_or(self.last, |before| chunk[before])
    }

    /// Where an unquoted value stops.
    fn stop(&self, bytes: &[u8]) -> Option<usize> {
        let delimiter = self.dialect.delimiter;
        match self.dialect.escape {
            None => memchr::memchr3(delimiter, b'\n', b'\r', bytes),
            Some(escape) => (bytes.iter())
                .position(|&byte| byte == delimiter || byte == escape || byte == b'\n' || byte == b'\r'),
        }
    }

    /// Takes bytes up to the end of the row; how many it took, and whether the row ended.
    #[expect(clippy::too_many_lines, reason = "one state machine, an arm a state")]
    fn feed(
        &mut self,
        chunk: &[u8],
        piece: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<(usize, bool)> {
        let base = self.position;
        let is_break = |byte: u8| byte == b'\n' || byte == b'\r';
        let mut at = 0;
        while at < chunk.len() {
            let byte = chunk[at];
            let here = base + at as u64;
            match self.state {
                ParserState::Start if is_break(byte) => {
                    self.line_break(byte, here);
                    at += 1;
                }
                ParserState::Start if self.dialect.comment == Some(byte) => self.state = ParserState::Comment,
                ParserState::Start => {
                    self.row_line = self.line;
                    self.state = ParserState::Value;
                }
                ParserState::Comment => match memchr::memchr2(b'\n', b'\r', &chunk[at..]) {
                    Some(length) => {
                        at += length;
                        self.state = ParserState::Start;
                    }
                    None => at = chunk.len(),
                },
                ParserState::Value if self.dialect.quote == Some(byte) => {
                    self.opened = self.place(here);
                    self.lines.open();
                    self.state = ParserState::Quoted;
                    at += 1;
                }
                ParserState::Value if byte == b' ' && self.dialect.delimiter != b' ' => {
                    piece(self.column, &chunk[at..=at])?;
                    self.state = ParserState::Spaced;
                    at += 1;
                }
                ParserState::Spaced => {
                    self.spaced |= self.dialect.quote == Some(byte);
                    self.state = ParserState::Unquoted;
                }
                ParserState::Value => self.state = ParserState::Unquoted,
                ParserState::Unquoted => {
                    let stop = self.stop(&chunk[at..]).map(|length| at + length);
                    let end = stop.unwrap_or(chunk.len());
                    if end > at {
                        piece(self.column, &chunk[at..end])?;
                    }
                    at = end;
                    let Some(stop) = stop else { continue };
                    let (byte, here) = (chunk[stop], base + stop as u64);
                    at += 1;
                    if is_break(byte) {
                        self.line_break(byte, here);
                        return Ok((at, true));
                    } else if byte == self.dialect.delimiter {
                        self.backslash |= self.before(chunk, stop) == b'\\';
                        self.delimited(here);
                    } else {
                        self.state = ParserState::EscapedUnquoted;
                    }
                }
                ParserState::Quoted => {
                    let quote = self.dialect.quote.unwrap_or(b'"');
                    let rest = &chunk[at..];
                    let stop = match self.dialect.escape {
                        Some(escape) => memchr::memchr2(quote, escape, rest),
                        None => memchr::memchr(quote, rest),
                    };
                    let length = stop.unwrap_or(rest.len());
                    let within = self.within(&rest[..length], here);
                    if within > 0 {
                        piece(self.column, &rest[..within])?;
                    }
                    at += within;
                    if self.fault.is_some() {
                        return Ok((at, true));
                    }
                    let Some(length) = stop else { continue };
                    at += 1;
                    if rest[length] == quote {
                        self.backslash_quote = self.before(chunk, at - 1) == b'\\';
                        self.state = ParserState::Quote;
                    } else {
                        self.state = ParserState::EscapedQuoted;
                    }
                }
                ParserState::Quote if self.dialect.quote == Some(byte) => {
                    piece(self.column, &chunk[at..=at])?;
                    self.state = ParserState::Quoted;
                    at += 1;
                }
                ParserState::Quote if byte == self.dialect.delimiter => {
                    self.close();
                    self.delimited(here);
                    at += 1;
                }
                ParserState::Quote if is_break(byte) => {
                    self.close();
                    self.line_break(byte, here);
                    return Ok((at + 1, true));
                }
                ParserState::Quote => {
                    self.text_behind(here);
                    if self.second_line.is_some() {
                        return Ok((at, true));
                    }
                    self.state = ParserState::Rest;
                }
                ParserState::EscapedUnquoted | ParserState::EscapedQuoted => {
                    let quoted = self.state == ParserState::EscapedQuoted;
                    if is_break(byte) {
                        self.line_break(byte, here);
                    }
                    piece(self.column, &chunk[at..=at])?;
                    self.state = if quoted {
                        ParserState::Quoted
                    } else {
                        ParserState::Unquoted
                    };
                    at += 1;
                }
                ParserState::Rest => match memchr::memchr2(b'\n', b'\r', &chunk[at..]) {
                    Some(length) => {
                        at += length;
                        self.line_break(chunk[at], base + at as u64);
                        return Ok((at + 1, true));
                    }
                    None => at = chunk.len(),
                },
            }
        }
        Ok((at, false))
    }

    /// Ends the last row; whether there is one.
    fn finish(&mut self) -> bool {
        match self.state {
            ParserState::Start | ParserState::Comment => return false,
            ParserState::Quoted | ParserState::EscapedQuoted => {
                let (line, column) = self.opened;
                self.fault = Some(RowFault {
                    message: format!(
                        "a quote is opened and not closed before the end of the file (line {line}, column {column})"
                    ),
                    hint:
                        "if quotes are text in this file, say so: `\"quote\": \"none\"`; if not, the file is \
                         truncated or the quote is a mistake (`\"bad_rows\": \"skip\"` leaves the row out)"
                            .to_owned(),
                });
            }
            ParserState::Quote => self.close(),
            ParserState::Value
            | ParserState::Spaced
            | ParserState::Unquoted
            | ParserState::EscapedUnquoted
            | ParserState::Rest => {}
        }
        true
    }

    /// Looks at the lines of a quoted value; how much of it belongs to the value.
    fn within(&mut self, bytes: &[u8], start: u64) -> usize {
        let mut from = 0;
        let suspects = self.dialect.suspicious && self.expected.is_some_and(|width| width > 1);
        // A value that does not read as rows is not looked at any further.
        while let Some(at) = if suspects && self.lines.regular {
            memchr::memchr3(b'\n', b'\r', self.dialect.delimiter, &bytes[from..])
        } else {
            memchr::memchr2(b'\n', b'\r', &bytes[from..])
        } {
            let at = from + at;
            from = at + 1;
            let position = start + at as u64;
            if bytes[at] == self.dialect.delimiter {
                self.lines.delimiters += 1;
                self.lines.regular &= self.expected.is_some_and(|width| self.lines.delimiters < width);
                continue;
            }
            if !self.line_break(bytes[at], position) {
                continue;
            }
            if self.second_line.is_none() {
                self.second_line = Some(LineStart {
                    number: self.line,
                    start: position + 1,
                    behind_return: bytes[at] == b'\r',
                });
            }
            self.lines.line(self.column, self.expected.filter(|_| suspects));
            if self.lines.count > self.dialect.quoted_lines {
                let (line, column) = self.opened;
                let within = match self.dialect.quoted_lines {
                    1 => "in that line".to_owned(),
                    limit => format!("within {}", counted(limit, "line")),
                };
                self.fault = Some(RowFault {
                    message: format!("the quote opened in line {line}, column {column} is not closed {within}"),
                    hint: "if quotes are text in this file, say so: `\"quote\": \"none\"`; if quoted values have so \
                           many lines, raise `quoted_lines`; `\"bad_rows\": \"skip\"` leaves such rows out"
                        .to_owned(),
                });
                return from;
            }
        }
        bytes.len()
    }

    fn close(&mut self) {
        let expected = self
            .expected
            .filter(|&width| width > 1 && self.dialect.suspicious);
        self.lines.close(self.column, expected, self.opened);
    }

    fn text_behind(&mut self, position: u64) {
        let (line, column) = self.place(position);
        let hint = if self.backslash_quote && self.dialect.escape.is_none() {
            "a backslash stands before the quote: if that is how this file writes quotes, say so: `\"escape\": \
             \"\\\\\"`"
        } else {
            "a quote within a quoted value is doubled (`\"\"`); if quotes are text in this file, say so: `\"quote\": \
             \"none\"`; `\"bad_rows\": \"skip\"` leaves such rows out"
        };
        self.fault = Some(RowFault {
            message: format!("text follows a closing quote in line {line}, column {column}"),
            hint: hint.to_owned(),
        });
    }
}

/// Whether quoted values of several lines read as rows, line by line: where that holds for all of them, a writer that
/// knows no quotes is likelier than one whose texts happen to have the right delimiters in every line. Where it holds for
/// some, those that have whole lines within are worth a warning: one lone quote takes in the rows up to the next.
#[derive(Default)]
struct QuotedLines {
    /// Lines of the current value so far.
    count: u64,
    /// Delimiters in its current line.
    delimiters: usize,
    /// Every line so far reads as a row.
    regular: bool,
    /// Lines that had to have delimiters for that.
    coincidences: u64,
    /// A value was found that does not read as rows.
    ruled_out: bool,
    /// Over all values that do.
    found: Option<Suspicion>,
    found_coincidences: u64,
    /// Over those of them that have lines between the first and the last, whatever other values read as.
    whole: Option<Suspicion>,
    /// Lines of the longest value.
    longest: u64,
}

impl QuotedLines {
    fn open(&mut self) {
        self.count = 1;
        self.delimiters = 0;
        self.regular = true;
        self.coincidences = 0;
    }

    /// Ends a line of the value in this column, of rows that have `expected` values.
    fn line(&mut self, column: usize, expected: Option<usize>) {
        if let Some(width) = expected {
            let wanted = if self.count == 1 {
                (width - 1).saturating_sub(column)
            } else {
                width - 1
            };
            self.regular &= self.delimiters == wanted;
            self.coincidences += u64::from(wanted > 0);
        } else {
            self.regular = false;
        }
        self.count += 1;
        self.delimiters = 0;
    }

    fn close(&mut self, column: usize, expected: Option<usize>, opened: (u64, u64)) {
        if self.count == 1 || expected.is_none() {
            return;
        }
        self.longest = self.longest.max(self.count);
        if !self.regular || self.delimiters != column {
            self.ruled_out = true;
            return;
        }
        self.found_coincidences += self.coincidences + u64::from(column > 0);
        let none = Suspicion {
            first: opened,
            lines: 0,
            values: 0,
            strong: false,
            mixed: false,
        };
        let found = self.found.get_or_insert(none);
        found.values += 1;
        found.strong = self.found_coincidences >= COINCIDENCES;
        if self.count > 2 {
            self.whole.get_or_insert(none).values += 1;
        }
    }

    fn suspicion(&self) -> Option<Suspicion> {
        let found = if self.ruled_out { self.whole } else { self.found };
        found.map(|found| Suspicion {
            lines: self.longest,
            mixed: self.ruled_out,
            ..found
        })
    }
}
