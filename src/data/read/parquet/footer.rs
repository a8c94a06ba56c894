//! The footer: the column, and where its parts are.

use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader,
    ParquetStatisticsPolicy, RowGroupMetaData,
};
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor, SchemaDescriptor, Type};

use super::super::fault::damaged;
use super::super::sink::too_large;
use super::super::stored::{ReadCount, Stored};
use super::super::strings_hint;
use super::guarded;
use super::thrift::{Compact, Wrong, kind};
use crate::error::{Error, Result};

const MAGIC: &[u8] = b"PAR1";
const ENCRYPTED: &[u8] = b"PARE";
/// Bytes of a footer's length and of the magic after it.
const TRAILER: u64 = 8;
/// A footer takes this many times its bytes of memory when it is parsed, by far at most: a column's part takes 20 bytes
/// at least, and some hundreds in memory.
const EXPANSION: u64 = 4;
/// Bytes of a Parquet file, at least; and of one that are looked at at a time.
const SHORTEST: u64 = 64;
const LOOK: u64 = 1 << 20;
/// Groups within each other, at most.
const DEEPEST: usize = 64;

/// A column, and where its parts are.
pub struct TextColumn {
    /// The column's values alone, without levels.
    pub values: ColumnDescPtr,
    /// The definition level of a value; a lower one is a null or an empty list.
    pub max_definition: u32,
    /// Lists within each other.
    pub max_repetition: u32,
    /// The type is not of strings: every row has to be null.
    pub wrong: Option<NoStrings>,
    /// By row group.
    pub chunks: Vec<Chunk>,
}

/// What is wrong with a column that holds something else.
pub struct NoStrings {
    pub message: String,
    pub hint: String,
}

/// The column's part of a row group.
pub struct Chunk {
    /// Where it is and what it is compressed with.
    pub metadata: ColumnChunkMetaData,
    /// Where its first page is.
    pub start: u64,
    /// Bytes of all its pages.
    pub length: u64,
    /// Values and nulls.
    pub values: u64,
    /// Rows.
    pub rows: u64,
}

/// Finds a column; a footer may take `buffer` bytes of memory. Where the file has no column of the name, the columns
/// within a group of that name, or within the group that the name begins with: where they have no values, there is no
/// text, whatever the group could hold.
///
/// # Errors
/// The footer is damaged; there is nothing of that name.
pub fn columns(stored: &Stored, count: &ReadCount, name: &str, buffer: u64) -> Result<Vec<TextColumn>> {
    let (parsed, pages) = parse(stored, count, buffer)?;
    let schema = parsed.file_metadata().schema_descr();
    let leaves = Leaves::look(schema, name);
    let wrong = || damaged("the Parquet file's footer is damaged");
    let hint = || strings_hint(&leaves.strings);
    let no_column = || format!("the Parquet file has no column `{name}`");
    let indices = leaves.found.map_or(leaves.near, |index| vec![index]);
    if indices.is_empty() {
        return Err(Error::input(no_column()).hint(hint()));
    }
    let mut columns = Vec::new();
    for index in indices {
        let leaf = schema.column(index);
        let wrong_type = if leaves.found.is_none() {
            Some(no_column())
        } else if leaf.physical_type() != Physical::BYTE_ARRAY {
            Some(format!(
                "the column `{name}` holds values of the type {}, not strings",
                type_name(&leaf)
            ))
        } else {
            None
        };
        columns.push(TextColumn {
            max_definition: u32::try_from(leaf.max_def_level()).map_err(|_| wrong())?,
            max_repetition: u32::try_from(leaf.max_rep_level()).map_err(|_| wrong())?,
            values: Arc::new(ColumnDescriptor::new(
                leaf.self_type_ptr(),
                0,
                0,
                leaf.path().clone(),
            )),
            wrong: wrong_type.map(|message| NoStrings {
                message,
                hint: hint(),
            }),
            chunks: chunks(&parsed, index, pages)?,
        });
    }
    let known = parsed.row_groups().iter().flat_map(RowGroupMetaData::columns);
    let known = known.fold(0u64, |sum, column| sum.saturating_add(bytes_of(column)));
    if known.saturating_add(SHORTEST) < pages && joined(stored, pages)? {
        return Err(Error::input(
            "the Parquet file has pages that its footer does not list: files were joined",
        )
        .hint("name the files one by one; Parquet files cannot be joined"));
    }
    Ok(columns)
}

/// Names of the columns that hold strings or bytes, up to [`LISTED`](super::super::LISTED) of them.
///
/// # Errors
/// The footer is damaged.
pub fn strings(stored: &Stored, count: &ReadCount, buffer: u64) -> Result<Vec<String>> {
    let (parsed, _) = parse(stored, count, buffer)?;
    Ok(Leaves::look(parsed.file_metadata().schema_descr(), "").strings)
}

/// Parses a footer, which may take `buffer` bytes of memory; gives the bytes before it, too, which are those of pages.
fn parse(stored: &Stored, count: &ReadCount, buffer: u64) -> Result<(ParquetMetaData, u64)> {
    let length = stored.len();
    let mut bytes = Vec::new();
    if length < TRAILER + MAGIC.len() as u64 {
        return Err(damaged(format!("{length} bytes are too few for a Parquet file")));
    }
    stored.exactly(length - TRAILER, TRAILER as usize, count, &mut bytes)?;
    let encrypted = || Error::input("the Parquet file is encrypted").hint("write it without encryption");
    if bytes[4..] == *ENCRYPTED {
        return Err(encrypted());
    }
    if bytes[4..] != *MAGIC {
        return Err(damaged("not a Parquet file, or truncated (no PAR1 footer)"));
    }
    let footer = u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let pages = length - TRAILER;
    if footer > pages - MAGIC.len() as u64 {
        return Err(damaged(format!(
            "the Parquet file states a footer of {footer} bytes, it has {length} itself"
        )));
    }
    if footer > buffer / EXPANSION {
        return Err(too_large(
            format!("the Parquet file's footer of {footer} bytes"),
            buffer,
        ));
    }
    let pages = pages - footer;
    stored.exactly(pages, footer as usize, count, &mut bytes)?;
    let wrong = || damaged("the Parquet file's footer is damaged");
    if look(&bytes, buffer).map_err(|Wrong| wrong())? {
        return Err(encrypted());
    }
    let options = ParquetMetaDataOptions::new()
        .with_encoding_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_column_stats_policy(ParquetStatisticsPolicy::SkipAll)
        .with_size_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let parsed = guarded(|| ParquetMetaDataReader::decode_metadata_with_options(&bytes, Some(&options)))
        .map_err(|error| error.context("footer"))?;
    Ok((parsed, pages))
}

/// The parts of a column, which lie in the file's first `pages` bytes.
fn chunks(parsed: &ParquetMetaData, index: usize, pages: u64) -> Result<Vec<Chunk>> {
    let wrong = || damaged("the Parquet file's footer is damaged");
    let leaf = parsed.file_metadata().schema_descr().column(index);
    let mut chunks = Vec::with_capacity(parsed.num_row_groups());
    let (mut rows, mut bytes) = (0u64, 0u64);
    for group in parsed.row_groups() {
        let chunk = chunk(group.column(index), group.num_rows(), &leaf).ok_or_else(wrong)?;
        let end = chunk.start.checked_add(chunk.length);
        if end.is_none_or(|end| end > pages) {
            return Err(damaged(format!(
                "row group {}: its {} bytes from byte {} on lie outside the file's pages",
                chunks.len() + 1,
                chunk.length,
                chunk.start
            )));
        }
        rows = rows.checked_add(chunk.rows).ok_or_else(wrong)?;
        bytes = bytes.saturating_add(chunk.length);
        chunks.push(chunk);
    }
    // The same pages again and again would be a bomb.
    if u64::try_from(parsed.file_metadata().num_rows()) != Ok(rows) || bytes > pages {
        return Err(wrong());
    }
    Ok(chunks)
}

/// Bytes that a footer says a column's part has, with its indexes.
fn bytes_of(column: &ColumnChunkMetaData) -> u64 {
    let indexes = [
        column.offset_index_length(),
        column.column_index_length(),
        column.bloom_filter_length(),
    ];
    let indexes: i64 = indexes.into_iter().flatten().map(i64::from).sum();
    u64::try_from(column.compressed_size().saturating_add(indexes)).unwrap_or(0)
}

/// Whether a file ends and another one begins before the footer, which counts from its own file's start and would make
/// sense of the wrong one's pages. Looked for where a footer does not account for the bytes before it.
fn joined(stored: &Stored, end: u64) -> Result<bool> {
    let seam = [MAGIC, MAGIC].concat();
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < end {
        let length = (end - at).min(LOOK);
        stored.exactly(at, length as usize, &ReadCount::default(), &mut bytes)?;
        if memchr::memmem::find(&bytes, &seam).is_some() {
            return Ok(true);
        }
        // The seam may lie across two looks.
        at += if length == LOOK {
            LOOK - seam.len() as u64
        } else {
            length
        };
    }
    Ok(false)
}

/// The column's part of a row group, as far as its numbers are possible.
fn chunk(metadata: &ColumnChunkMetaData, rows: i64, leaf: &ColumnDescPtr) -> Option<Chunk> {
    let data = u64::try_from(metadata.data_page_offset()).ok()?;
    // Some writers state 0 where there is none.
    let dictionary = (metadata.dictionary_page_offset()).filter(|&at| at > 0);
    let start = dictionary.map_or(data, |at| data.min(at as u64));
    let length = u64::try_from(metadata.compressed_size()).ok()?;
    let values = u64::try_from(metadata.num_values()).ok()?;
    let metadata = ColumnChunkMetaData::builder(leaf.clone())
        .set_compression(metadata.compression())
        .set_data_page_offset(i64::try_from(start).ok()?)
        .set_total_compressed_size(i64::try_from(length).ok()?)
        .set_num_values(metadata.num_values())
        .build()
        .ok()?;
    Some(Chunk {
        metadata,
        start,
        length,
        values,
        rows: u64::try_from(rows).ok()?,
    })
}

/// A type as people know it.
fn type_name(leaf: &ColumnDescriptor) -> String {
    let physical = leaf.physical_type();
    match (leaf.logical_type_ref(), leaf.converted_type()) {
        (Some(LogicalType::Unknown), _) => "null".to_owned(),
        (_, ConvertedType::NONE) => physical.to_string(),
        (_, converted) => format!("{physical} ({converted})"),
    }
}

/// The columns of a schema, by name: as a person calls them, lists are passed over; or with the names of the groups that
/// make lists.
struct Leaves<'n> {
    wanted: &'n str,
    next: usize,
    /// The column of the name.
    found: Option<usize>,
    /// Parts that the name shares with those of `near`; at first the fewest that count.
    shared: usize,
    /// The columns that share most of the name: those within a group of the name, else within the group that it begins
    /// with.
    near: Vec<usize>,
    /// Names of some that hold strings.
    strings: Vec<String>,
}

impl<'n> Leaves<'n> {
    /// Goes through a schema.
    fn look(schema: &SchemaDescriptor, wanted: &'n str) -> Self {
        let mut leaves = Self {
            wanted,
            next: 0,
            found: None,
            shared: 1,
            near: Vec::new(),
            strings: Vec::new(),
        };
        for field in schema.root_schema().get_fields() {
            leaves.of(field, "", "", 0);
        }
        leaves
    }

    /// Goes through a field; `list` says how many of the elements down to a list's values do without names: 2 at the list
    /// itself, 1 within it.
    fn of(&mut self, field: &Type, name: &str, path: &str, list: u8) {
        let dotted = |before: &str| {
            if before.is_empty() {
                field.name().to_owned()
            } else {
                format!("{before}.{}", field.name())
            }
        };
        let path = dotted(path);
        let name = if list > 0 { name.to_owned() } else { dotted(name) };
        let basic = field.get_basic_info();
        if field.is_group() {
            let is_list = matches!(basic.logical_type_ref(), Some(LogicalType::List))
                || basic.converted_type() == ConvertedType::LIST;
            let list = if is_list { 2 } else { list.saturating_sub(1) };
            for field in field.get_fields() {
                self.of(field, &name, &path, list);
            }
            return;
        }
        let index = self.next;
        self.next += 1;
        if name == self.wanted || path == self.wanted {
            self.found = self.found.or(Some(index));
        }
        let wanted = || self.wanted.split('.');
        let shared = |name: &str| wanted().zip(name.split('.')).take_while(|(a, b)| a == b).count();
        let shared = shared(&name).max(shared(&path));
        if shared > self.shared {
            self.shared = shared;
            self.near.clear();
        }
        if shared == self.shared {
            self.near.push(index);
        }
        if field.get_physical_type() == Physical::BYTE_ARRAY && self.strings.len() < super::super::LISTED {
            self.strings.push(name);
        }
    }
}

/// Looks at a footer before the crate parses it, which goes as deep as the schema does, reserves room for as many fields
/// as a group states, and writes down the whole path of every column. Gives whether columns are encrypted.
fn look(footer: &[u8], buffer: u64) -> std::result::Result<bool, Wrong> {
    let mut encrypted = false;
    Compact::new(footer).structure(&mut |input, field, kind| {
        match (field, kind) {
            (2, kind::LIST) => schema(input, buffer)?,
            (8, kind::STRUCT) => {
                encrypted = true;
                return Ok(false);
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(encrypted)
}

/// Looks at the schema: a list of elements in depth-first order.
fn schema(input: &mut Compact<'_>, buffer: u64) -> std::result::Result<(), Wrong> {
    let (kind, count) = input.list()?;
    // Fields that are left of the groups that are open, and the length of their names.
    let mut open: Vec<(u64, u64)> = Vec::new();
    let mut names = 0u64;
    let mut stated = 1u64;
    for index in 0..count {
        if kind != kind::STRUCT {
            return Err(Wrong);
        }
        let (mut name, mut children) = (0, 0);
        input.structure(&mut |input, field, kind| {
            match (field, kind) {
                (4, kind::BINARY) => name = input.binary()?.len() as u64,
                (5, kind::I32) => children = input.count()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        while open.last().is_some_and(|group| group.0 == 0) {
            open.pop();
        }
        let before = match open.last_mut() {
            Some(parent) => {
                parent.0 -= 1;
                parent.1
            }
            None if index == 0 => 0,
            None => return Err(Wrong),
        };
        let path = before + name + 1;
        stated = stated.saturating_add(children);
        names = names.saturating_add(path);
        if open.len() >= DEEPEST || stated > count as u64 || names > buffer {
            return Err(Wrong);
        }
        open.push((children, path));
    }
    if stated == count as u64 {
        Ok(())
    } else {
        Err(Wrong)
    }
}

/// Puts an error of ours into one of the crate.
pub fn carry(error: Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}
