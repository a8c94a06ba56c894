//! A column of strings from a Parquet file.
//!
//! The crate `parquet` parses the footer, reads the pages, checks their checksums and decodes their values. It is made
//! for trusted files, so mdlm adds limits around it. Each limit has a test in `tests/it/bombs.rs` that fails once the
//! crate has such a limit:
//!
//! | behaviour of the crate | test | what mdlm does |
//! |---|---|---|
//! | allocates the size that a page's header states, and decompresses beyond it | `parquet_crate_allocates_the_size_that_a_page_states`, `parquet_crate_decompresses_without_a_bound` (here) | reads the stored pages itself ([`pages`]) |
//! | follows a schema to any depth, reserves memory for the stated fields, builds every path | `parquet_crate_follows_a_schema_to_any_depth` | checks the schema first ([`footer`], [`thrift`]) |
//! | reads a row as a whole, however many values it has | `parquet_crate_reads_a_row_of_any_length` | decodes levels itself ([`levels`]) and values in parts ([`values`]) |
//! | allocates as many string lengths as are stated | `parquet_crate_allocates_as_many_lengths_as_a_page_states` | checks the lengths first ([`levels`]) |
//!
//! One page and one dictionary are in memory.
//!
//! It reads flat columns, fields of structures and lists of strings, of any depth. The format: parquet-format 2.11.

mod footer;
mod levels;
mod pages;
mod thrift;
mod values;

use parquet::errors::ParquetError;

use super::fault::{BRING_AGAIN, damaged};
use super::sink::Sink;
use super::stored::{ReadCount, Stored};
use crate::error::{self, Context as _, Error, Result};
use crate::manifest::reading::ColumnFormat;

use footer::TextColumn;
pub use footer::strings;
use levels::Levels;
use pages::{Data, Page, Pages};
use values::ChunkValues;

/// Reads the text of every row.
///
/// # Errors
/// The file is damaged, the column is not there or holds no strings, a row is too long.
pub fn read(stored: &Stored, count: &ReadCount, format: &ColumnFormat, sink: &mut Sink<'_>) -> Result<()> {
    let columns = footer::columns(stored, count, &format.column, sink.buffer)?;
    // Where there are several, none may have values; the last one's rows count.
    for (number, column) in columns.iter().enumerate() {
        let rows = RowAssembler {
            join: format.join.as_bytes(),
            text: Vec::new(),
            values: 0,
            open: false,
            number: 0,
            counts: number + 1 == columns.len(),
            sink: &mut *sink,
        };
        read_column(stored, count, column, rows)?;
    }
    Ok(())
}

fn read_column(
    stored: &Stored,
    count: &ReadCount,
    column: &TextColumn,
    mut rows: RowAssembler<'_, '_>,
) -> Result<()> {
    for (group, chunk) in column.chunks.iter().enumerate() {
        let place = || format!("row group {}", group + 1);
        let before = rows.number + u64::from(rows.open);
        let mut values = ChunkValues::new(column);
        let mut pages = Pages::new(stored, count, column, chunk, rows.sink).context(place)?;
        while let Some(page) = pages.next().context(place)? {
            let number = pages.number;
            match page {
                Page::Dictionary(dictionary) => values.dictionary(dictionary),
                Page::Data(data) => rows.page(column, &data, &mut values),
            }
            .context(|| format!("page {number}"))
            .context(place)?;
        }
        rows.close().context(place)?;
        let found = rows.number - before;
        if found != chunk.rows {
            return Err(
                damaged(format!("it has {found} rows, but the file states {}", chunk.rows)).context(place()),
            );
        }
    }
    Ok(())
}

/// Calls the crate. It has assertions where a check would be due; a panic of it is an error of the file.
fn guarded<T>(call: impl FnOnce() -> std::result::Result<T, ParquetError>) -> Result<T> {
    let error = match error::guarded(call) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(_) => return Err(damaged("damaged Parquet data: the decoder failed")),
    };
    let text = match error {
        // What our own source of bytes said.
        ParquetError::External(error) => match error.downcast::<Error>() {
            Ok(error) => return Err(*error),
            Err(error) => error.to_string(),
        },
        ParquetError::General(text) | ParquetError::NYI(text) | ParquetError::EOF(text) => text,
        error => error.to_string(),
    };
    // The crate's words for it; a test holds them.
    if text.contains("CRC checksum mismatch") {
        return Err(
            Error::input("its bytes do not have the checksum that its header states").hint(BRING_AGAIN),
        );
    }
    Err(damaged(format!("damaged Parquet data: {text}")))
}

/// Puts values together to rows.
struct RowAssembler<'r, 's> {
    join: &'r [u8],
    /// The row's text so far.
    text: Vec<u8>,
    /// Its values so far.
    values: u64,
    /// Whether a row has begun.
    open: bool,
    /// Rows that are closed.
    number: u64,
    /// Whether the rows are records.
    counts: bool,
    sink: &'r mut Sink<'s>,
}

impl RowAssembler<'_, '_> {
    fn page(&mut self, column: &TextColumn, page: &Data, values: &mut ChunkValues) -> Result<()> {
        let mut repetitions = Levels::new(&page.repetition, column.max_repetition);
        let mut definitions = Levels::new(&page.definition, column.max_definition);
        let present = Levels::new(&page.definition, column.max_definition).highest(page.values)?;
        if let Some(wrong) = column.wrong.as_ref().filter(|_| present > 0) {
            return Err(Error::input(wrong.message.clone()).hint(wrong.hint.clone()));
        }
        values.page(page, present, self.sink.buffer)?;
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
            if self.counts {
                self.sink.empty()?;
            }
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
