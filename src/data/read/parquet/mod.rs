//! A column of strings out of a Parquet file.
//!
//! Pages are read and decoded here, not by the crate `parquet`: its readers are made for files of one's own. They
//! allocate what a page's header declares, decompress gzip without a bound, decode a delta-encoded page's lengths at once
//! and copy a repeated string for every row, so that a file of some kilobytes takes all memory. Here one page and one
//! dictionary are in memory, and values are decoded one after the other.
//!
//! Read are flat columns, fields of structures and lists of strings, of any depth. The format: parquet-format 2.11.

mod footer;
mod page;
mod values;

use super::fault::damaged;
use super::sink::Sink;
use super::stored::{ReadCount, Stored};
use crate::error::{Context as _, Result};
use crate::manifest::source::ColumnFormat;

use footer::Column;
use page::{Page, Pages};
use values::{Dictionary, Levels, Values};

/// Reads the text of every row.
///
/// # Errors
/// The file is damaged, the column is not there or holds no strings, a row is too long.
pub fn read(stored: &Stored, count: &ReadCount, format: &ColumnFormat, sink: &mut Sink<'_>) -> Result<()> {
    let column = footer::column(stored, count, &format.column)?;
    let mut rows = Rows {
        join: format.join.as_bytes(),
        text: Vec::new(),
        values: 0,
        open: false,
        number: 0,
        sink,
    };
    for (group, chunk) in column.chunks.iter().enumerate() {
        let place = || format!("row group {}", group + 1);
        let before = rows.number + u64::from(rows.open);
        let mut dictionary = Dictionary::default();
        let mut pages = Pages::new(stored, count, &column, chunk, rows.sink);
        while let Some(page) = pages.next().context(place)? {
            match page {
                Page::Dictionary(bytes, entries) => {
                    dictionary = Dictionary::new(bytes, entries).context(place)?;
                }
                Page::Data(data) => {
                    let number = pages.number;
                    rows.page(&column, &data, &dictionary)
                        .map_err(|error| error.context(format!("page {number}")))
                        .context(place)?;
                }
            }
        }
        rows.close().context(place)?;
        let found = rows.number - before;
        if found != chunk.rows {
            return Err(damaged(format!("it has {found} rows, stated are {}", chunk.rows)).context(place()));
        }
    }
    Ok(())
}

/// Puts values together to rows.
struct Rows<'r, 's> {
    join: &'r [u8],
    /// The row's text so far.
    text: Vec<u8>,
    /// Its values so far.
    values: u64,
    /// Whether a row has begun.
    open: bool,
    /// Rows that are closed.
    number: u64,
    sink: &'r mut Sink<'s>,
}

impl Rows<'_, '_> {
    fn page(&mut self, column: &Column, page: &page::Data, dictionary: &Dictionary) -> Result<()> {
        let mut repetitions = Levels::new(page.repetition(), column.max_repetition);
        let mut definitions = Levels::new(page.definition(), column.max_definition);
        let mut values = Values::new(page, dictionary, self.sink.longest)?;
        for _ in 0..page.values {
            let repetition = repetitions.next()?;
            let definition = definitions.next()?;
            if repetition == 0 {
                self.close()?;
                self.open = true;
            } else if !self.open {
                return Err(damaged("a row begins within another"));
            }
            if definition < column.max_definition {
                continue;
            }
            let value = values.next()?;
            if column.max_repetition == 0 {
                // The usual case, without a copy.
                self.open = false;
                self.number += 1;
                emit(self.sink, self.number, value)?;
                continue;
            }
            if self.values > 0 {
                self.text.extend_from_slice(self.join);
            }
            self.values += 1;
            if self.text.len() + value.len() > self.sink.longest {
                return Err(self.sink.too_long().context(format!("row {}", self.number + 1)));
            }
            self.text.extend_from_slice(value);
        }
        Ok(())
    }

    /// Ends the row.
    fn close(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        self.number += 1;
        if std::mem::take(&mut self.values) == 0 {
            self.sink.empty();
        } else {
            emit(self.sink, self.number, &self.text)?;
        }
        self.text.clear();
        Ok(())
    }
}

fn emit(sink: &mut Sink<'_>, number: u64, text: &[u8]) -> Result<()> {
    let place = || format!("row {number}");
    if std::str::from_utf8(text).is_ok() {
        sink.push(text, String::new).context(place)
    } else {
        sink.push(text, place)
    }
}
