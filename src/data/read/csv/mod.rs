//! Values separated by commas, tabs or another character, quoted as in RFC 4180 or not at all.
//!
//! A row that does not fit the others is an error or is skipped as a whole. It is never read in part: losing text
//! silently is the worst fault of a table reader.

mod parser;
#[cfg(test)]
mod tests;

use std::io::BufRead;

use super::encoding::TextContainer;
use super::sink::Sink;
use super::text::BYTE_ORDER_MARK;
use crate::error::{Context as _, Error, Result};
use crate::manifest::reading::{BadRows, CsvFormat};
use crate::plural::counted;

use parser::{Dialect, Parser, Row, RowFault, Suspicion};

/// Bytes of all names in a header, at most.
const LONGEST_HEADER: usize = 1 << 20;
/// Names of columns that a hint shows.
const SHOWN: usize = 10;
/// Lines of a quoted value in CSV, at most, where none are stated: more than a book has.
const QUOTED_LINES: u64 = 10_000;
/// Characters that separate values in some files.
const DELIMITERS: [u8; 4] = *b",;\t|";
/// Bytes of a value that is not part of the text, to see what the first row looks like.
const SAMPLE: usize = 64;
/// Rows that show that a file without a header has another delimiter.
const LOOKED_AT: u64 = 50;

/// Reads the text of every row; `delimiter` is that of the format, where none is stated.
///
/// # Errors
/// A column is not there, a row is too long, or it is not as the others where that is an error.
pub fn read(input: &mut dyn BufRead, format: &CsvFormat, delimiter: u8, sink: &mut Sink<'_>) -> Result<()> {
    let dialect = dialect(format, delimiter)?;
    let skips = format.bad_rows == BadRows::Skip;
    let mut rows = NumberedRows {
        parser: Parser::new(input, dialect, skips, sink.longest),
        number: 0,
        in_header: false,
    };
    let wanted = if format.header {
        None
    } else {
        Some(numbers(format)?)
    };
    let Some(mut head) = rows.head(wanted.as_deref(), sink)? else {
        return Ok(());
    };
    if let Some(stated) = excel_delimiter(&head, dialect.delimiter) {
        if format.delimiter.is_none() {
            rows.parser.delimit(stated);
        }
        rows.number = 0;
        match rows.head(wanted.as_deref(), sink)? {
            Some(next) => head = next,
            None => return Ok(()),
        }
    }
    let delimiter = rows.parser.delimiter();
    let width = head.len();
    rows.parser.expect(width);
    let stated = format.delimiter.is_some();
    let columns = if let Some(columns) = wanted {
        columns
    } else {
        rows.number = 0;
        columns(format, &head, delimiter, stated)?
    };
    let mut table = CsvRecords {
        format,
        head: &head,
        text: Vec::new(),
        sniff: Sniff::new(&head, delimiter, format),
    };
    if !format.header {
        if let Some(&column) = columns.iter().find(|&&column| column >= width) {
            let error = Error::input(format!(
                "{}: the row has {}, column {} is wanted",
                rows.place(),
                values(width),
                column + 1
            ));
            return Err(error.hint(match other_delimiter(&head, delimiter) {
                Some(other) => use_delimiter(other, stated.then_some(delimiter)),
                None => {
                    "`columns` are numbers from 1; state `delimiter` if the values are separated otherwise"
                        .to_owned()
                }
            }));
        }
        let first: Vec<_> = columns.iter().map(|&column| head[column].clone()).collect();
        table.record(&first, &rows, sink)?;
    }
    let mut values = vec![Vec::new(); columns.len()];
    loop {
        values.iter_mut().for_each(Vec::clear);
        let longest = sink.longest;
        let mut seen = Seen::new(&head, width > 1 && format.header);
        let row = rows.row(&mut |column, piece| {
            seen.piece(column, piece);
            let mut long = false;
            for (value, &wanted) in values.iter_mut().zip(&columns) {
                if wanted == column {
                    long |= value.len() + piece.len() > longest;
                    if !long {
                        value.extend_from_slice(piece);
                    }
                }
            }
            if long { Err(sink.too_long()) } else { Ok(()) }
        })?;
        let Some(row) = row else { break };
        if row.fault.is_none() && row.width == 1 && width > 1 && seen.blank {
            continue;
        }
        if let Some(fault) = table.fault(&row, &seen) {
            if !skips {
                return Err(Error::input(format!("{}{}", rows.place(), fault.message)).hint(fault.hint));
            }
            sink.irregular.rows += 1;
            continue;
        }
        table.record(&values, &rows, sink)?;
    }
    table.sniff.warn(sink);
    match rows.parser.suspicion() {
        Some(suspicion) => suspected(suspicion, width, sink),
        None => Ok(()),
    }
}

/// The characters with a meaning.
fn dialect(format: &CsvFormat, delimiter: u8) -> Result<Dialect> {
    let ascii = |what: &str, character: char| {
        u8::try_from(character).ok().filter(u8::is_ascii).ok_or_else(|| {
            let example = match what {
                "delimiter" => "`,`, `;`, `|` or `\\t`",
                "quote" => "`\"` or `'`",
                "escape" => "`\\\\`",
                _ => "`#`",
            };
            Error::input(format!(
                "`{what}` is `{character}`, which is not an ASCII character"
            ))
            .hint(format!("use an ASCII character, such as {example}"))
        })
    };
    let of =
        |what: &str, character: Option<char>| character.map(|character| ascii(what, character)).transpose();
    let delimiter = of("delimiter", format.delimiter)?.unwrap_or(delimiter);
    let quote = match format.quote.as_deref() {
        None => Some(b'"'),
        Some("none") => None,
        Some(quote) => of("quote", quote.chars().next())?,
    };
    let escape = of("escape", format.escape)?.filter(|&escape| Some(escape) != quote);
    let comment = of("comment", format.comment)?;
    let named = [
        ("delimiter", Some(delimiter)),
        ("quote", quote),
        ("escape", escape),
        ("comment", comment),
    ];
    for (index, (what, character)) in named.iter().enumerate() {
        let Some(character) = character else { continue };
        if let Some((other, _)) = named[..index]
            .iter()
            .find(|(_, before)| before.as_ref() == Some(character))
        {
            let shown = char::from(*character).escape_default();
            return Err(Error::input(format!("`{other}` and `{what}` are both `{shown}`"))
                .hint("a character can have one meaning only; set another one"));
        }
    }
    Ok(Dialect {
        delimiter,
        quote,
        escape,
        comment,
        quoted_lines: format.quoted_lines.unwrap_or(match delimiter {
            b'\t' => 1,
            _ => QUOTED_LINES,
        }),
        suspicious: format.quoted_lines.is_none(),
    })
}

/// The delimiter that a first line `sep=;` states, as Excel writes it.
fn excel_delimiter(head: &[Vec<u8>], delimiter: u8) -> Option<u8> {
    match head {
        [only] => match only.as_slice() {
            [b's', b'e', b'p', b'=', character] => Some(*character),
            _ => None,
        },
        [first, second] if first == b"sep=" && second.is_empty() => Some(delimiter),
        _ => None,
    }
}

/// The delimiter that the only value of a row has within it.
fn other_delimiter(head: &[Vec<u8>], delimiter: u8) -> Option<u8> {
    let [only] = head else { return None };
    let count = |character: u8| memchr::memchr_iter(character, only).count();
    let most = DELIMITERS
        .into_iter()
        .filter(|&other| other != delimiter)
        .max_by_key(|&other| count(other))?;
    (count(most) > 0).then_some(most)
}

/// The way out where the values are separated by `other`, in place of what is `stated`.
fn use_delimiter(other: u8, stated: Option<u8>) -> String {
    let shown = char::from(other).escape_default();
    let instead = stated.map_or_else(String::new, |stated| {
        format!(" in place of `{}`", char::from(stated).escape_default())
    });
    format!("the values seem to be separated by `{shown}`: set `\"delimiter\": \"{shown}\"`{instead}")
}

/// A count of values in words.
fn values(count: usize) -> String {
    counted(count, "value")
}

/// A name of a column as a person can read it, control characters escaped.
fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(100)]);
    let escaped = |character: char| match character {
        character if character.is_control() => character.escape_default().to_string(),
        character => character.to_string(),
    };
    format!("`{}`", text.chars().map(escaped).collect::<String>())
}

/// Where the columns stand that a header names, from 0.
fn columns(format: &CsvFormat, names: &[Vec<u8>], delimiter: u8, stated: bool) -> Result<Vec<usize>> {
    let other = other_delimiter(names, delimiter);
    // NULs in names come from another encoding that the first bytes of the file do not show.
    let binary = names.iter().any(|name| name.contains(&0));
    let find = |wanted: &String| {
        let mut found = (names.iter().enumerate()).filter(|(_, name)| name.as_slice() == wanted.as_bytes());
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(Error::input(format!(
                "the header has more than one column `{wanted}`"
            ))
            .hint("name it by its number, from 1")),
            (Some((column, _)), None) => Ok(column),
            (None, _) => match wanted.parse::<usize>() {
                Ok(number) if (1..=names.len()).contains(&number) && (stated || other.is_none()) => {
                    Ok(number - 1)
                }
                _ => {
                    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| shown(name)).collect();
                    let more = if names.len() > SHOWN { ", …" } else { "" };
                    if let Some(other) = other {
                        return Err(
                            Error::input(format!("the header is one value, {}", shown.join(", ")))
                                .hint(use_delimiter(other, stated.then_some(delimiter))),
                        );
                    }
                    if binary {
                        return Err(Error::input(format!(
                            "the header has no column `{wanted}`, and has NUL bytes: {}{more}",
                            shown.join(", ")
                        ))
                        .hint(
                            "the file may be UTF-16: `file FILE` says what it is; convert it: `iconv -f UTF-16 -t \
                             UTF-8 FILE > NEW`",
                        ));
                    }
                    Err(Error::input(format!("the header has no column `{wanted}`")).hint(format!(
                        "its columns are {}{more}; set `columns`, or `\"header\": false` if the first row is data",
                        shown.join(", ")
                    )))
                }
            },
        }
    };
    format.columns.iter().map(find).collect()
}

/// Where the columns stand that are named by number, from 0.
fn numbers(format: &CsvFormat) -> Result<Vec<usize>> {
    let find = |wanted: &String| match wanted.parse::<usize>() {
        Ok(number) if number > 0 => Ok(number - 1),
        _ => Err(
            Error::input(format!("without a header there is no column `{wanted}`"))
                .hint("number the columns from 1, for example `\"1\"`"),
        ),
    };
    format.columns.iter().map(find).collect()
}

/// Rows with their numbers.
struct NumberedRows<'i> {
    parser: Parser<'i>,
    /// Rows so far, so that the current one has this number, from 1; a header does not count.
    number: u64,
    /// The row is the header.
    in_header: bool,
}

impl NumberedRows<'_> {
    fn row(&mut self, piece: &mut dyn FnMut(usize, &[u8]) -> Result<()>) -> Result<Option<Row>> {
        self.number += 1;
        let row = self.parser.row(piece);
        row.map_err(|error| error.context(self.place()))
    }

    /// The values of the first row; of one that is data those of `kept` columns, and a piece of the others.
    fn head(&mut self, kept: Option<&[usize]>, sink: &Sink<'_>) -> Result<Option<Vec<Vec<u8>>>> {
        let mut names = vec![Vec::new()];
        let mut bytes = 0;
        self.in_header = kept.is_none();
        let row = self.row(&mut |column, mut piece| {
            names.resize(names.len().max(column + 1), Vec::new());
            match kept {
                None => {
                    bytes += piece.len() + 1;
                    if bytes > LONGEST_HEADER {
                        return Err(Error::input(format!(
                            "the header is longer than {LONGEST_HEADER} bytes"
                        ))
                        .hint("if the file has no header, say so: `\"header\": false`"));
                    }
                }
                Some(kept) if kept.contains(&column) => {
                    if names[column].len() + piece.len() > sink.longest {
                        return Err(sink.too_long());
                    }
                }
                Some(_) => piece = &piece[..piece.len().min(SAMPLE.saturating_sub(names[column].len()))],
            }
            names[column].extend_from_slice(piece);
            Ok(())
        })?;
        let Some(row) = row else { return Ok(None) };
        if let Some(fault) = row.fault {
            return Err(Error::input(format!("{}: {}", self.place(), fault.message)).hint(fault.hint));
        }
        names.resize(row.width, Vec::new());
        self.in_header = false;
        Ok(Some(names))
    }

    fn place(&self) -> String {
        let line = self.parser.row_line();
        if self.in_header {
            return format!("the header (line {line})");
        }
        format!("row {} (line {line})", self.number)
    }
}

/// What the pieces of a row are looked at for.
struct Seen<'h> {
    head: &'h [Vec<u8>],
    /// Only white space so far.
    blank: bool,
    /// There is a value that the header has no name for and that is not empty.
    beyond: bool,
    /// The first bytes.
    start: [u8; 3],
    started: usize,
    /// The row is the header so far: its current value, and how much of it.
    repeats: bool,
    column: usize,
    matched: usize,
}

impl<'h> Seen<'h> {
    fn new(head: &'h [Vec<u8>], repeats: bool) -> Self {
        Self {
            head,
            blank: true,
            beyond: false,
            start: [0; 3],
            started: 0,
            repeats,
            column: 0,
            matched: 0,
        }
    }

    fn piece(&mut self, column: usize, piece: &[u8]) {
        if column == 0 && self.started < self.start.len() {
            for &byte in piece.iter().take(self.start.len() - self.started) {
                self.start[self.started] = byte;
                self.started += 1;
            }
        }
        self.blank = self.blank && piece.iter().all(u8::is_ascii_whitespace);
        self.beyond |= column >= self.head.len() && !piece.is_empty();
        if self.repeats {
            self.repeat(column, piece);
        }
    }

    fn repeat(&mut self, column: usize, piece: &[u8]) {
        while self.column < column && self.repeats {
            self.repeats = self
                .head
                .get(self.column)
                .is_some_and(|name| name.len() == self.matched);
            self.column += 1;
            self.matched = 0;
        }
        let rest = self
            .head
            .get(column)
            .map(|name| &name[self.matched.min(name.len())..]);
        self.repeats &= rest.is_some_and(|rest| rest.starts_with(piece));
        self.matched += piece.len();
    }

    /// Whether the row is the header once more.
    fn is_head(&self, width: usize) -> bool {
        let rest = &self.head[self.column.min(self.head.len())..];
        self.repeats
            && width == self.head.len()
            && rest.iter().enumerate().all(|(index, name)| match index {
                0 => name.len() == self.matched,
                _ => name.is_empty(),
            })
            && self.head.iter().any(|name| !name.is_empty())
    }
}

/// What the rows of a file have in common.
struct CsvRecords<'t> {
    format: &'t CsvFormat,
    head: &'t [Vec<u8>],
    text: Vec<u8>,
    sniff: Sniff,
}

impl CsvRecords<'_> {
    /// Hands a record on.
    fn record(&mut self, values: &[Vec<u8>], rows: &NumberedRows<'_>, sink: &mut Sink<'_>) -> Result<()> {
        let longest = sink.longest;
        let record = if let [value] = values {
            value
        } else {
            self.text.clear();
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    self.text.extend_from_slice(self.format.join.as_bytes());
                }
                self.text.extend_from_slice(value);
                if self.text.len() > longest {
                    return Err(sink.too_long().context(rows.place()));
                }
            }
            &self.text
        };
        self.sniff.row(record);
        if std::str::from_utf8(record).is_ok() {
            sink.push(record, String::new).context(|| rows.place())
        } else {
            sink.push_of(record, TextContainer::Table, || rows.place())
        }
    }

    /// What is wrong with a row, in words that follow its place.
    fn fault(&self, row: &Row, seen: &Seen<'_>) -> Option<RowFault> {
        let width = self.head.len();
        let skip = "`\"bad_rows\": \"skip\"` leaves such rows out";
        let together = |message: &str| {
            Some(RowFault {
                message: message.to_owned(),
                hint: format!(
                    "name the files one by one in `files` instead of one that holds them all; or {skip}"
                ),
            })
        };
        if seen.started == seen.start.len() && seen.start == BYTE_ORDER_MARK {
            return together(" begins with a byte order mark (concatenated files?)");
        }
        if let Some(fault) = &row.fault {
            return Some(RowFault {
                message: format!(": {}", fault.message),
                hint: fault.hint.clone(),
            });
        }
        let whole = if self.format.header {
            "the header"
        } else {
            "the first row"
        };
        let has = |count: usize| format!(" has {}, {whole} has {width}", values(count));
        if row.width > width && seen.beyond {
            let at = row.beyond.map_or_else(String::new, |(line, column)| {
                format!(": value {} begins in line {line}, column {column}", width + 1)
            });
            let hint = if row.backslash && self.format.escape.is_none() {
                format!(
                    "a backslash stands before a delimiter: if that is how this file writes them within values, say \
                     so: `\"escape\": \"\\\\\"`; or {skip}"
                )
            } else if row.spaced {
                format!(
                    "a quote opens a value only directly after a delimiter: remove the space between them; or {skip}"
                )
            } else {
                format!(
                    "a value with a delimiter in it is quoted (`\"a, b\"`); state `delimiter`, `quote` or `escape` if \
                     the file is written otherwise; or {skip}"
                )
            };
            return Some(RowFault {
                message: format!("{}{at}", has(row.width)),
                hint,
            });
        }
        // Columns without a name at the end of the header may be missing.
        let unnamed = self
            .head
            .iter()
            .rev()
            .take_while(|name| self.format.header && name.is_empty());
        if row.width < width - unnamed.count() {
            return Some(RowFault {
                message: has(row.width),
                hint: format!(
                    "a value with a line break in it is quoted; state `delimiter`, `quote` or `escape` if the file is \
                     written otherwise; or {skip}"
                ),
            });
        }
        if seen.is_head(row.width) {
            return together(" repeats the header (concatenated files?)");
        }
        None
    }
}

/// Looks for another delimiter in a file without a header, all of whose rows are one value.
struct Sniff {
    other: Option<u8>,
    count: usize,
    rows: u64,
}

impl Sniff {
    fn new(head: &[Vec<u8>], delimiter: u8, format: &CsvFormat) -> Self {
        let other = other_delimiter(head, delimiter).filter(|_| !format.header && format.delimiter.is_none());
        let count = |other| {
            head.first()
                .map_or(0, |only| memchr::memchr_iter(other, only).count())
        };
        Self {
            count: other.map_or(0, count),
            other,
            rows: 0,
        }
    }

    fn row(&mut self, record: &[u8]) {
        let Some(other) = self.other else { return };
        if self.rows < LOOKED_AT {
            self.rows += 1;
            if memchr::memchr_iter(other, record).count() != self.count {
                self.other = None;
            }
        }
    }

    fn warn(&self, sink: &mut Sink<'_>) {
        if let Some(other) = self.other
            && self.rows > 1
        {
            let shown = char::from(other).escape_default();
            let count = self.count;
            sink.warn("delimiter", || {
                format!(
                    "every row is one value, with {count} `{shown}` in it; {}",
                    use_delimiter(other, None)
                )
            });
        }
    }
}

/// Quoted values of several lines that read as rows: an error where all do and that is not a coincidence.
fn suspected(suspicion: Suspicion, width: usize, sink: &mut Sink<'_>) -> Result<()> {
    let Suspicion {
        first: (line, column),
        lines,
        values,
        strong,
        mixed,
    } = suspicion;
    if mixed {
        let some = match values {
            1 => "a quoted value of more than two lines can be read".to_owned(),
            count => format!("{count} quoted values of more than two lines can be read"),
        };
        let place = match values {
            1 => "it begins",
            _ => "the first begins",
        };
        sink.warn("quotes", || {
            format!(
                "{some} as whole rows of {width} values too; {place} in line {line}, column {column}; if that quote is \
                 text, quote the value and double the quote within it: `\"\"\"odd\"`; if the lines belong together: \
                 `\"quoted_lines\": {lines}`"
            )
        });
        return Ok(());
    }
    let every = match values {
        1 => "the only quoted value of more than one line can be read".to_owned(),
        count => format!("all {count} quoted values of more than one line can be read"),
    };
    let message = format!(
        "{every} as whole rows of {width} values too; the first begins in line {line}, column {column}"
    );
    let hint = format!(
        "if quotes are text in this file, say so: `\"quote\": \"none\"`; if the lines belong together: \
         `\"quoted_lines\": {lines}`"
    );
    if strong {
        return Err(Error::input(message).hint(hint));
    }
    sink.warn("quotes", || format!("{message}; {hint}"));
    Ok(())
}
