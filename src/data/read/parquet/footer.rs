//! The footer: the schema, and where the column's parts are.

use super::super::fault::damaged;
use super::super::stored::{ReadCount, Stored};
use super::super::thrift::{Compact, Fault, kind};
use crate::error::{Error, Result};

const MAGIC: &[u8] = b"PAR1";
const ENCRYPTED: &[u8] = b"PARE";
/// Bytes of a footer's length and of the magic after it.
const TRAILER: u64 = 8;
/// Bytes of a footer, at most: it is held in memory. A million column chunks take about this much.
const LONGEST_FOOTER: u64 = 512 << 20;
/// Groups within each other, at most.
const DEEPEST: usize = 64;
/// Names of columns that a hint shows.
const SHOWN: usize = 10;
/// Parquet's number of the type `BYTE_ARRAY`, which strings are of.
const BYTE_ARRAY: i64 = 6;
/// Parquet's number of the annotation `LIST`.
const LIST: i64 = 3;
const TYPES: [&str; 8] = [
    "BOOLEAN",
    "INT32",
    "INT64",
    "INT96",
    "FLOAT",
    "DOUBLE",
    "BYTE_ARRAY",
    "FIXED_LEN_BYTE_ARRAY",
];

/// A column, and where its parts are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// The definition level of a value; a lower one is a null or an empty list.
    pub max_definition: u32,
    /// Lists within each other.
    pub max_repetition: u32,
    /// By row group.
    pub chunks: Vec<Chunk>,
}

/// The column's part of a row group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Parquet's number of the compression.
    pub codec: i64,
    /// Where its first page is.
    pub start: u64,
    /// Bytes of all its pages.
    pub length: u64,
    /// Values and nulls.
    pub values: u64,
    /// Rows.
    pub rows: u64,
}

/// Finds a column.
///
/// # Errors
/// The footer is damaged; there is no such column, or it holds no strings.
pub fn column(stored: &Stored, count: &ReadCount, name: &str) -> Result<Column> {
    let length = stored.len();
    let mut bytes = Vec::new();
    if length < TRAILER + MAGIC.len() as u64 {
        return Err(damaged(format!("{length} bytes are too few for a Parquet file")));
    }
    stored.exactly(length - TRAILER, TRAILER as usize, count, &mut bytes)?;
    if bytes[4..] == *ENCRYPTED {
        return Err(Error::input("the Parquet file is encrypted").hint("write it without encryption"));
    }
    if bytes[4..] != *MAGIC {
        return Err(damaged(
            "the file does not end as a Parquet file does: it is none, or it is cut off",
        ));
    }
    let footer = u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    let pages = length - TRAILER;
    if footer > pages - MAGIC.len() as u64 {
        return Err(damaged(format!(
            "the Parquet file states a footer of {footer} bytes, it has {length} itself"
        )));
    }
    if footer > LONGEST_FOOTER {
        return Err(
            Error::input(format!("the Parquet file has a footer of {footer} bytes"))
                .hint("write it with fewer row groups"),
        );
    }
    stored.exactly(pages - footer, footer as usize, count, &mut bytes)?;
    let parsed = parse(&bytes, name).map_err(|fault| {
        damaged(match fault {
            Fault::Short => "the Parquet file's footer ends too early",
            Fault::Wrong => "the Parquet file's footer is damaged",
        })
    })??;
    for (number, chunk) in parsed.chunks.iter().enumerate() {
        let end = chunk.start.checked_add(chunk.length);
        if end.is_none_or(|end| end > pages - footer) {
            return Err(damaged(format!(
                "row group {}: its {} bytes from byte {} on lie outside the file's pages",
                number + 1,
                chunk.length,
                chunk.start
            )));
        }
    }
    Ok(parsed)
}

type Parsed<T> = std::result::Result<T, Fault>;

/// Parses a footer (`FileMetaData`); the inner error is that of the column.
fn parse(footer: &[u8], name: &str) -> Parsed<Result<Column>> {
    let mut leaves = Vec::new();
    let mut wanted = None;
    let mut column = Column::default();
    let mut rows = None;
    Compact::new(footer).structure(&mut |input, field, kind| {
        match (field, kind) {
            (2, kind::LIST) => {
                leaves = schema(input)?;
                wanted = leaves.iter().position(|leaf| leaf.is(name));
            }
            (3, kind::I64) => rows = Some(input.count()?),
            (4, kind::LIST) => {
                let (kind, groups) = input.list()?;
                for _ in 0..groups {
                    if kind != kind::STRUCT {
                        return Err(Fault::Wrong);
                    }
                    let chunk = group(input, wanted)?;
                    if wanted.is_some() {
                        column.chunks.push(chunk.ok_or(Fault::Wrong)?);
                    }
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let Some(leaf) = wanted.map(|at| &leaves[at]) else {
        return Ok(Err(no_column(name, &leaves)));
    };
    if leaf.kind != BYTE_ARRAY {
        let kind = usize::try_from(leaf.kind).ok().and_then(|kind| TYPES.get(kind));
        return Ok(Err(Error::input(format!(
            "the column `{name}` holds values of the type {}, not strings",
            kind.unwrap_or(&"unknown")
        ))
        .hint("set `column` to a column of strings")));
    }
    let sum = (column.chunks.iter()).try_fold(0u64, |sum, chunk| sum.checked_add(chunk.rows));
    if rows.is_none() || sum != rows {
        return Err(Fault::Wrong);
    }
    column.max_definition = leaf.definition;
    column.max_repetition = leaf.repetition;
    Ok(Ok(column))
}

/// A column of the schema.
struct Leaf {
    /// As a person calls it: lists are passed over.
    name: String,
    /// With the names of the groups that make lists.
    path: String,
    kind: i64,
    definition: u32,
    repetition: u32,
}

impl Leaf {
    fn is(&self, name: &str) -> bool {
        self.name == name || self.path == name
    }
}

fn no_column(name: &str, leaves: &[Leaf]) -> Error {
    let shown: Vec<_> = (leaves.iter().filter(|leaf| leaf.kind == BYTE_ARRAY))
        .take(SHOWN)
        .map(|leaf| format!("`{}`", leaf.name.chars().take(100).collect::<String>()))
        .collect();
    let error = Error::input(format!("the Parquet file has no column `{name}`"));
    if shown.is_empty() {
        error.hint("none of its columns holds strings")
    } else {
        error.hint(format!(
            "its columns of strings are {}; set `column`",
            shown.join(", ")
        ))
    }
}

/// A group that is open while the schema is read.
struct Group {
    children: u64,
    name: String,
    path: String,
    definition: u32,
    repetition: u32,
    /// Elements of a list down to its values do without names: 2 at the group itself, 1 within it.
    list: u8,
}

/// Reads the schema: a list of elements in depth-first order.
fn schema(input: &mut Compact<'_>) -> Parsed<Vec<Leaf>> {
    let (kind, count) = input.list()?;
    let mut leaves = Vec::new();
    let mut open: Vec<Group> = Vec::new();
    for index in 0..count {
        if kind != kind::STRUCT {
            return Err(Fault::Wrong);
        }
        let element = element(input)?;
        while open.last().is_some_and(|group| group.children == 0) {
            open.pop();
        }
        if index == 0 {
            open.push(Group {
                children: element.children,
                name: String::new(),
                path: String::new(),
                definition: 0,
                repetition: 0,
                list: 0,
            });
            continue;
        }
        let parent = open.last_mut().ok_or(Fault::Wrong)?;
        parent.children -= 1;
        let dotted = |before: &str| {
            if before.is_empty() {
                element.name.to_owned()
            } else {
                format!("{before}.{}", element.name)
            }
        };
        let name = if parent.list > 0 {
            parent.name.clone()
        } else {
            dotted(&parent.name)
        };
        let group = Group {
            children: element.children,
            path: dotted(&parent.path),
            definition: parent.definition + u32::from(element.repetition != 0),
            repetition: parent.repetition + u32::from(element.repetition == 2),
            list: if element.list {
                2
            } else {
                parent.list.saturating_sub(1)
            },
            name,
        };
        if let Some(kind) = element.kind {
            leaves.push(Leaf {
                name: group.name,
                path: group.path,
                kind,
                definition: group.definition,
                repetition: group.repetition,
            });
        } else {
            // Names grow with the depth, so it is bounded.
            if open.len() >= DEEPEST {
                return Err(Fault::Wrong);
            }
            open.push(group);
        }
    }
    if open.iter().any(|group| group.children > 0) {
        return Err(Fault::Wrong);
    }
    Ok(leaves)
}

struct Element<'b> {
    name: &'b str,
    kind: Option<i64>,
    repetition: i64,
    children: u64,
    list: bool,
}

/// Reads a `SchemaElement`.
fn element<'b>(input: &mut Compact<'b>) -> Parsed<Element<'b>> {
    let mut element = Element {
        name: "",
        kind: None,
        repetition: 0,
        children: 0,
        list: false,
    };
    let mut name: &'b [u8] = &[];
    input.structure(&mut |input, field, kind| {
        match (field, kind) {
            (1, kind::I32) => element.kind = Some(input.integer()?),
            (3, kind::I32) => element.repetition = input.integer()?,
            (4, kind::BINARY) => name = input.binary()?,
            (5, kind::I32) => element.children = input.count()?,
            (6, kind::I32) => element.list |= input.integer()? == LIST,
            // The union `LogicalType`: its field 3 is a list.
            (10, kind::STRUCT) => {
                input.structure(&mut |_, field, _| {
                    element.list |= field == LIST;
                    Ok(false)
                })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    element.name = std::str::from_utf8(name).map_err(|_| Fault::Wrong)?;
    if element.children > 0 {
        element.kind = None;
    }
    if !(0..=2).contains(&element.repetition) {
        return Err(Fault::Wrong);
    }
    Ok(element)
}

/// Reads a `RowGroup`, and of its columns the one that is wanted.
fn group(input: &mut Compact<'_>, wanted: Option<usize>) -> Parsed<Option<Chunk>> {
    let mut chunk = None;
    let mut rows = 0;
    input.structure(&mut |input, field, kind| {
        match (field, kind) {
            (1, kind::LIST) => {
                let (kind, count) = input.list()?;
                for index in 0..count {
                    if kind != kind::STRUCT {
                        return Err(Fault::Wrong);
                    }
                    let here = self::chunk(input)?;
                    if wanted == Some(index) {
                        chunk = here;
                    }
                }
            }
            (3, kind::I64) => rows = input.count()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(chunk.map(|chunk| Chunk { rows, ..chunk }))
}

/// Reads a `ColumnChunk`.
fn chunk(input: &mut Compact<'_>) -> Parsed<Option<Chunk>> {
    let mut chunk = None;
    input.structure(&mut |input, field, kind| {
        if (field, kind) != (3, kind::STRUCT) {
            return Ok(false);
        }
        let mut here = Chunk::default();
        let (mut data, mut dictionary) = (None, None);
        input.structure(&mut |input, field, kind| {
            match (field, kind) {
                (4, kind::I32) => here.codec = input.integer()?,
                (5, kind::I64) => here.values = input.count()?,
                (7, kind::I64) => here.length = input.count()?,
                (9, kind::I64) => data = Some(input.count()?),
                // Some writers state 0 where there is none.
                (11, kind::I64) => dictionary = Some(input.count()?).filter(|&at| at > 0),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let data = data.ok_or(Fault::Wrong)?;
        here.start = dictionary.map_or(data, |dictionary| dictionary.min(data));
        chunk = Some(here);
        Ok(true)
    })?;
    Ok(chunk)
}
