//! Values separated by commas or tabs, quoted as RFC 4180 has it: a quoted value may hold delimiters, line breaks and
//! doubled quotes.
//!
//! Values are parsed piece by piece, so that one that is not part of the text takes no memory, however long it is, and one
//! that is takes no more than a record may.

use std::io::BufRead;

use csv_core::{ReadFieldResult, Reader, ReaderBuilder};

use super::fault::{damaged, landed};
use super::sink::Sink;
use crate::error::{Context as _, Error, Result};
use crate::manifest::source::CsvFormat;

/// Bytes of a value parsed at a time.
const PIECE: usize = 1 << 14;
/// Bytes of all names in a header, at most.
const LONGEST_HEADER: usize = 1 << 20;
/// Names of columns that a hint shows.
const SHOWN: usize = 10;

/// Reads the text of every row.
///
/// # Errors
/// A column is not there, a row is too short or too long, a quote is not closed.
pub fn read(input: &mut dyn BufRead, format: &CsvFormat, delimiter: u8, sink: &mut Sink<'_>) -> Result<()> {
    let mut rows = Rows {
        parser: ReaderBuilder::new().delimiter(delimiter).build(),
        input,
        piece: vec![0; PIECE],
        row: 0,
        line: 1,
        last: b'\n',
    };
    let columns = if format.header {
        let mut names = vec![Vec::new()];
        let mut bytes = 0;
        let any = rows.row(&mut |column, piece| {
            bytes += piece.len() + 1;
            if bytes > LONGEST_HEADER {
                return Err(
                    Error::input(format!("the header is longer than {LONGEST_HEADER} bytes"))
                        .hint("if the file has no header, say so: `\"header\": false`"),
                );
            }
            names.resize(names.len().max(column + 1), Vec::new());
            names[column].extend_from_slice(piece);
            Ok(())
        })?;
        if any.is_none() {
            return Ok(());
        }
        columns(format, &names)?
    } else {
        numbers(format)?
    };
    rows.row = 0;
    let mut values = vec![Vec::new(); columns.len()];
    let mut text = Vec::new();
    loop {
        values.iter_mut().for_each(Vec::clear);
        let longest = sink.longest;
        let mut long = false;
        let width = rows.row(&mut |column, piece| {
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
        let Some(width) = width else {
            return Ok(());
        };
        if let Some(&column) = columns.iter().find(|&&column| column >= width) {
            return Err(Error::input(format!(
                "{}: the row has {width} values, column {} is wanted",
                rows.place(),
                column + 1
            ))
            .hint("look at the row's quotes and delimiters; columns are separated by commas in `csv`, by tabs in `tsv`"));
        }
        let record = if let [value] = &values[..] {
            value
        } else {
            text.clear();
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    text.extend_from_slice(format.join.as_bytes());
                }
                text.extend_from_slice(value);
                if text.len() > longest {
                    return Err(sink.too_long().context(rows.place()));
                }
            }
            &text
        };
        if std::str::from_utf8(record).is_ok() {
            sink.push(record, String::new).context(|| rows.place())?;
        } else {
            sink.push(record, || rows.place())?;
        }
    }
}

/// Where the columns stand that a header names, from 0.
fn columns(format: &CsvFormat, names: &[Vec<u8>]) -> Result<Vec<usize>> {
    let find = |wanted: &String| {
        let mut found = (names.iter().enumerate()).filter(|(_, name)| name.as_slice() == wanted.as_bytes());
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(Error::input(format!(
                "the header has more than one column `{wanted}`"
            ))
            .hint("name it by its number, from 1")),
            (Some((column, _)), None) => Ok(column),
            (None, _) => match wanted.parse::<usize>() {
                Ok(number) if (1..=names.len()).contains(&number) => Ok(number - 1),
                _ => {
                    let shown: Vec<_> = names
                        .iter()
                        .take(SHOWN)
                        .map(|name| format!("`{}`", String::from_utf8_lossy(&name[..name.len().min(100)])))
                        .collect();
                    let more = if names.len() > SHOWN { ", …" } else { "" };
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
                .hint("`columns` are numbers from 1 then, for example `\"1\"`"),
        ),
    };
    format.columns.iter().map(find).collect()
}

struct Rows<'i> {
    parser: Reader,
    input: &'i mut dyn BufRead,
    piece: Vec<u8>,
    /// Rows so far, so that the current one has this number, from 1; a header does not count.
    row: u64,
    /// The line where it begins.
    line: u64,
    /// The last byte of the input so far.
    last: u8,
}

impl Rows<'_> {
    /// Gives every piece of the next row's values with its column to `piece`, and the row's count of values; `None` after
    /// the last row.
    fn row(&mut self, piece: &mut dyn FnMut(usize, &[u8]) -> Result<()>) -> Result<Option<usize>> {
        self.row += 1;
        self.line = self.parser.line();
        let mut column = 0;
        let mut any = false;
        loop {
            let chunk = self.input.fill_buf().map_err(landed)?;
            let at_end = chunk.is_empty();
            // At the end a line break closes the last row; if it does not, a quote is open.
            let closing = at_end && self.last != b'\n';
            let bytes: &[u8] = if closing { b"\n" } else { chunk };
            let (result, read, written) = self.parser.read_field(bytes, &mut self.piece);
            if closing {
                self.last = b'\n';
            } else {
                self.last = read.checked_sub(1).map_or(self.last, |last| chunk[last]);
                self.input.consume(read);
            }
            let record_end = matches!(result, ReadFieldResult::Field { record_end: true });
            if written > 0 {
                if !any {
                    // Blank lines before the row are passed over.
                    let within = memchr::memchr_iter(b'\n', &self.piece[..written]).count() as u64;
                    let after = u64::from(record_end && self.last == b'\n');
                    self.line = self.line.max(self.parser.line().saturating_sub(within + after));
                }
                any = true;
                piece(column, &self.piece[..written]).map_err(|error| error.context(self.place()))?;
            }
            // Outside of quotes a line break would have ended the row.
            if any && at_end && !matches!(result, ReadFieldResult::Field { .. } if closing) {
                return Err(damaged(format!(
                    "{}: a quote is opened and not closed before the end of the file",
                    self.place()
                )));
            }
            match result {
                ReadFieldResult::InputEmpty | ReadFieldResult::OutputFull => {}
                ReadFieldResult::Field { .. } => {
                    any = true;
                    column += 1;
                    if record_end {
                        return Ok(Some(column));
                    }
                }
                ReadFieldResult::End => return Ok(None),
            }
        }
    }

    fn place(&self) -> String {
        format!("row {} (line {})", self.row, self.line)
    }
}
