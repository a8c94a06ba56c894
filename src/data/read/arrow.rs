//! A column of strings out of Arrow IPC, as a file or as a stream.
//!
//! Both are read from front to back, message by message: a file is a stream between two magics, with a footer behind it.
//! So a file within an archive needs no copy, and one that is cut off is told by its missing end. A batch is in memory as
//! a whole, so it is bounded.
//!
//! The crate `arrow` decodes the batches, after every length of a message was checked against the bytes that are there,
//! which it does not do itself. Strings are decoded as bytes, so that what is not UTF-8 is a matter of the policy.

use std::io::{BufRead, Read as _};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray as _, BinaryArray, BinaryViewArray, LargeBinaryArray, RecordBatch,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{
    ArrowDictionaryKeyType, DataType, Field, FieldRef, Fields, Int8Type, Int16Type, Int32Type, Int64Type,
    Schema, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::FileDecoder;
use arrow::ipc::{Block, Message, MessageHeader, root_as_footer, root_as_message};

use super::fault::{damaged, landed};
use super::sink::{Sink, bomb, too_large};
use super::{FREE_BYTES, drain};
use crate::data::columns::check_counts;
use crate::error::{self, Context as _, Error, Kind, Result, Wrap as _};
use crate::manifest::source::ColumnFormat;

/// First and last bytes of an IPC file; at its start zeros follow.
const MAGIC: &[u8] = b"ARROW1";
/// First bytes of Feather's first version.
const FEATHER_1: &[u8] = b"FEA1";
/// Stands before the length of a message since Arrow 0.15.
const CONTINUATION: [u8; 4] = [0xFF; 4];
/// Bytes of the magic at the start and of the zeros behind it, at most.
const LONGEST_PADDING: usize = 64;
/// Bytes of a message's description, and of a footer, at most.
const LONGEST_MESSAGE: usize = 256 << 20;
/// Bytes of a batch, at most: it is in memory as a whole.
const LONGEST_BATCH: u64 = 2 << 30;
/// Lists and structures within each other, at most.
const DEEPEST: usize = 64;
/// Names of columns that a hint shows.
const SHOWN: usize = 10;

/// Reads the text of every row.
///
/// # Errors
/// The file is damaged or cut off, the column is not there or holds no strings, a row is too long.
pub fn read(input: &mut dyn BufRead, format: &ColumnFormat, sink: &mut Sink<'_>) -> Result<()> {
    let mut prefix = [0; 4];
    exactly(input, &mut prefix)?;
    if prefix == FEATHER_1 {
        return Err(
            Error::input("the file is Feather's first version, which is not read")
                .hint("write it again with `pyarrow.feather.write_feather(…, version=2)`"),
        );
    }
    let file = prefix == MAGIC[..4];
    if file {
        let mut rest = [0; 4];
        exactly(input, &mut rest)?;
        if rest[..2] != MAGIC[4..] {
            return Err(damaged("the file begins as no Arrow file does"));
        }
        // The stream begins at a multiple of 8 bytes, or of 64.
        let mut padding = MAGIC.len() + 2;
        loop {
            exactly(input, &mut prefix)?;
            padding += prefix.len();
            if prefix != [0; 4] || padding > LONGEST_PADDING {
                break;
            }
        }
    }
    let mut batches = Batches {
        input,
        next: prefix,
        number: 0,
    };
    let Some(message) = batches.message()? else {
        return Err(damaged("the Arrow data have no schema"));
    };
    let (schema, column) = begin(&message, format)?;
    let version = parse(&message.bytes)?.version();
    let index = column.index;
    let mut decoder = FileDecoder::new(Arc::new(schema), version).with_projection(vec![index]);
    let mut rows = Rows {
        column,
        join: &format.join,
        text: Vec::new(),
        number: 0,
        sink,
    };
    let mut count = 0;
    while let Some(message) = batches.message()? {
        let what = || format!("message {}", batches.number);
        let parsed = parse(&message.bytes).context(what)?;
        check(&parsed, message.body, rows.sink, &message.bytes[message.start..]).context(what)?;
        let kind = parsed.header_type();
        // Only lengths matter to the decoder, which gets the message from its first byte.
        let block = Block::new(0, message.start as i32, message.body as i64);
        let bytes = Buffer::from_vec(message.bytes);
        match kind {
            MessageHeader::DictionaryBatch => {
                guarded(|| decoder.read_dictionary(&block, &bytes)).context(what)?;
            }
            MessageHeader::RecordBatch => {
                count += 1;
                let batch = guarded(|| decoder.read_record_batch(&block, &bytes)).context(what)?;
                let batch = batch.ok_or_else(|| damaged("an empty message")).context(what)?;
                rows.batch(&batch).context(|| format!("batch {count}"))?;
            }
            kind => return Err(damaged(format!("a message of the type {kind:?}")).context(what())),
        }
    }
    if file {
        footer(batches.input, count)?;
    }
    drain(batches.input)
}

fn exactly(input: &mut dyn BufRead, to: &mut [u8]) -> Result<()> {
    input.read_exact(to).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            damaged("the Arrow data end before their end mark: they are cut off")
        }
        _ => landed(error),
    })
}

/// Reads up to `length` bytes behind those that are there; memory is taken as they come.
fn append(input: &mut dyn BufRead, length: u64, to: &mut Vec<u8>) -> Result<()> {
    let read = input.take(length).read_to_end(to).map_err(landed)?;
    if (read as u64) < length {
        return Err(damaged(format!(
            "the Arrow data state a part of {length} bytes, of which {read} are there"
        )));
    }
    Ok(())
}

/// Checks what stands behind the end mark of a file.
fn footer(input: &mut dyn BufRead, batches: usize) -> Result<()> {
    let mut bytes = Vec::new();
    let length = LONGEST_MESSAGE as u64;
    input.take(length).read_to_end(&mut bytes).map_err(landed)?;
    let wrong = || damaged("the Arrow file's footer is damaged or cut off");
    let rest = bytes.strip_suffix(MAGIC).ok_or_else(wrong)?;
    let (footer, length) = rest.split_last_chunk::<4>().ok_or_else(wrong)?;
    if i32::from_le_bytes(*length) as usize != footer.len() {
        return Err(wrong());
    }
    let parsed = root_as_footer(footer).map_err(|_| wrong())?;
    let stated = parsed.recordBatches().map_or(0, |blocks| blocks.len());
    if stated != batches {
        return Err(damaged(format!(
            "the Arrow file has {batches} batches, its footer states {stated}"
        )));
    }
    Ok(())
}

/// The messages of a stream.
struct Batches<'i> {
    input: &'i mut dyn BufRead,
    /// The first four bytes of the next message.
    next: [u8; 4],
    number: u64,
}

/// A message with its body.
struct Whole {
    /// The prefix, the description, the body.
    bytes: Vec<u8>,
    /// Where the body starts.
    start: usize,
    /// Bytes of the body.
    body: u64,
}

impl Batches<'_> {
    /// The next message; `None` at the end mark.
    fn message(&mut self) -> Result<Option<Whole>> {
        self.number += 1;
        let number = self.number;
        let what = || format!("message {number}");
        if self.number > 1 {
            exactly(self.input, &mut self.next)?;
        }
        let mut bytes = Vec::new();
        let mut length = self.next;
        if length == CONTINUATION {
            bytes.extend_from_slice(&length);
            exactly(self.input, &mut length)?;
        }
        bytes.extend_from_slice(&length);
        let length = usize::try_from(i32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length == 0 {
            return Ok(None);
        }
        if length > LONGEST_MESSAGE {
            return Err(damaged("the length of its description is wrong").context(what()));
        }
        append(self.input, length as u64, &mut bytes).context(what)?;
        let start = bytes.len();
        let body = parse(&bytes).context(what)?.bodyLength();
        let body =
            u64::try_from(body).map_err(|_| damaged("the length of its body is wrong").context(what()))?;
        if body > LONGEST_BATCH {
            return Err(
                Error::input(format!("a batch of {body} bytes; {LONGEST_BATCH} are the most"))
                    .hint(
                        "write smaller batches, for example with `max_chunksize` of pyarrow's `write_table`",
                    )
                    .context(what()),
            );
        }
        append(self.input, body, &mut bytes).context(what)?;
        Ok(Some(Whole { bytes, start, body }))
    }
}

/// Parses and verifies the description of a message.
fn parse(bytes: &[u8]) -> Result<Message<'_>> {
    let prefix = if bytes.starts_with(&CONTINUATION) { 8 } else { 4 };
    let length = bytes.get(prefix - 4..prefix).map_or(0, |length| {
        i32::from_le_bytes([length[0], length[1], length[2], length[3]])
    });
    let end = usize::try_from(length)
        .ok()
        .and_then(|length| length.checked_add(prefix));
    let description = end.and_then(|end| bytes.get(prefix..end));
    let description = description.ok_or_else(|| damaged("its description is cut off"))?;
    root_as_message(description).map_err(|error| damaged(format!("its description is damaged: {error}")))
}

/// Checks the lengths of a batch against its body: the decoder takes them as they are.
fn check(message: &Message<'_>, body: u64, limits: &Sink<'_>, content: &[u8]) -> Result<()> {
    let ratio = limits.ratio;
    let mut decompressed = 0_u64;
    let batch = match message.header_type() {
        MessageHeader::DictionaryBatch => message
            .header_as_dictionary_batch()
            .and_then(|batch| batch.data()),
        _ => message.header_as_record_batch(),
    };
    let Some(batch) = batch else {
        return Err(damaged(format!(
            "a message of the type {:?}",
            message.header_type()
        )));
    };
    // What elements take less than a bit of: nothing that holds strings, unless it is compressed.
    let mut most = body.saturating_mul(8);
    for buffer in batch.buffers().iter().flatten() {
        let (start, length) = (u64::try_from(buffer.offset()), u64::try_from(buffer.length()));
        let (Ok(start), Ok(length)) = (start, length) else {
            return Err(damaged(format!("{buffer:?} is no part of its body")));
        };
        let end = start.checked_add(length).filter(|&end| end <= body);
        let Some(end) = end else {
            return Err(damaged(format!(
                "{buffer:?} lies outside its body of {body} bytes"
            )));
        };
        if batch.compression().is_some() && length > 0 {
            let bytes = &content[start as usize..end as usize];
            let Some(stated) = bytes.first_chunk() else {
                return Err(damaged(format!("{buffer:?} is too short to be compressed")));
            };
            // -1: not compressed after all.
            let stated = i64::from_le_bytes(*stated);
            let stated = if stated == -1 { length - 8 } else { stated as u64 };
            if stated > FREE_BYTES.saturating_add(length.saturating_mul(ratio)) {
                return Err(bomb(stated, length, ratio));
            }
            decompressed = decompressed.saturating_add(stated);
            if decompressed > limits.buffer {
                return Err(too_large("it", limits.buffer));
            }
            most = most.saturating_add(stated.saturating_mul(8));
        }
    }
    check_counts(&batch, most).map_err(damaged)
}

/// Runs the decoder. It is made for data that their writer vouches for and has assertions where a check would be due; a
/// panic of it is an error of the file.
fn guarded<T>(decode: impl FnOnce() -> std::result::Result<T, arrow::error::ArrowError>) -> Result<T> {
    error::guarded(decode)
        .map_err(|_| damaged("damaged Arrow data: the decoder gave up"))?
        .wrap(Kind::Input, || "damaged Arrow data".to_owned())
        .map_err(|error| error.hint(super::fault::BRING_AGAIN))
}

/// Where the text is: a column, and fields within it.
struct Column {
    index: usize,
    fields: Vec<usize>,
}

/// Reads the schema and finds the column; its strings become bytes.
fn begin(message: &Whole, format: &ColumnFormat) -> Result<(Schema, Column)> {
    let parsed = parse(&message.bytes)?;
    let schema = parsed
        .header_as_schema()
        .ok_or_else(|| damaged("the Arrow data begin without a schema"))?;
    let schema = guarded(|| try_fb_to_schema(schema)).context(|| "schema".to_owned())?;
    let name = &format.column;
    let (index, fields, data_type) = find(schema.fields(), name, 0).ok_or_else(|| {
        let names: Vec<_> = (schema.fields().iter().take(SHOWN))
            .map(|field| format!("`{}`", field.name().chars().take(100).collect::<String>()))
            .collect();
        Error::input(format!("the Arrow data have no column `{name}`"))
            .hint(format!("their columns are {}; set `column`", names.join(", ")))
    })?;
    if as_bytes(&data_type, &[], 0).is_none() {
        return Err(Error::input(format!(
            "the column `{name}` holds values of the type {data_type}, not strings"
        ))
        .hint("set `column` to a column of strings"));
    }
    let field = &schema.fields()[index];
    let changed = as_bytes(field.data_type(), &fields, 0)
        .ok_or_else(|| Error::internal(format!("the type {}", field.data_type())))?;
    let mut all: Vec<FieldRef> = schema.fields().iter().cloned().collect();
    all[index] = Arc::new(Field::clone(field).with_data_type(changed));
    Ok((Schema::new(all), Column { index, fields }))
}

/// The field of a name, or along a path of names joined by dots; which fields lead to it, and its type.
fn find(fields: &Fields, name: &str, depth: usize) -> Option<(usize, Vec<usize>, DataType)> {
    if let Some((index, field)) = fields.find(name) {
        return Some((index, Vec::new(), field.data_type().clone()));
    }
    if depth > DEEPEST {
        return None;
    }
    name.match_indices('.').find_map(|(dot, _)| {
        let (index, field) = fields.find(&name[..dot])?;
        let DataType::Struct(inner) = field.data_type() else {
            return None;
        };
        let (first, mut rest, data_type) = find(inner, &name[dot + 1..], depth + 1)?;
        rest.insert(0, first);
        Some((index, rest, data_type))
    })
}

/// The same type with bytes for the strings along a path; `None` if that leads to no strings.
fn as_bytes(data_type: &DataType, path: &[usize], depth: usize) -> Option<DataType> {
    if depth > DEEPEST {
        return None;
    }
    let inner = |field: &FieldRef| {
        let inner = as_bytes(field.data_type(), &[], depth + 1)?;
        Some(Arc::new(Field::clone(field).with_data_type(inner)))
    };
    if let Some((&first, rest)) = path.split_first() {
        let DataType::Struct(fields) = data_type else {
            return None;
        };
        let mut fields: Vec<FieldRef> = fields.iter().cloned().collect();
        let changed = as_bytes(fields[first].data_type(), rest, depth + 1)?;
        fields[first] = Arc::new(Field::clone(&fields[first]).with_data_type(changed));
        return Some(DataType::Struct(fields.into()));
    }
    Some(match data_type {
        DataType::Utf8 | DataType::Binary => DataType::Binary,
        DataType::LargeUtf8 | DataType::LargeBinary => DataType::LargeBinary,
        DataType::Utf8View | DataType::BinaryView => DataType::BinaryView,
        DataType::Dictionary(key, value) => {
            DataType::Dictionary(key.clone(), Box::new(as_bytes(value, &[], depth + 1)?))
        }
        DataType::List(field) => DataType::List(inner(field)?),
        DataType::LargeList(field) => DataType::LargeList(inner(field)?),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(inner(field)?, *size),
        DataType::ListView(field) => DataType::ListView(inner(field)?),
        DataType::LargeListView(field) => DataType::LargeListView(inner(field)?),
        _ => return None,
    })
}

/// Takes the text out of batches.
struct Rows<'r, 's> {
    column: Column,
    join: &'r str,
    text: Vec<u8>,
    number: u64,
    sink: &'r mut Sink<'s>,
}

impl Rows<'_, '_> {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        // A projection has but this column.
        let mut arrays: Vec<ArrayRef> = vec![batch.column(0).clone()];
        for &field in &self.column.fields {
            let inner = arrays
                .last()
                .and_then(|array| array.as_struct_opt())
                .map(|array| array.column(field).clone())
                .ok_or_else(|| Error::internal("a structure"))?;
            arrays.push(inner);
        }
        let Some((array, outer)) = arrays.split_last() else {
            return Ok(());
        };
        for row in 0..array.len() {
            self.number += 1;
            let number = self.number;
            let place = || format!("row {number}");
            if outer.iter().any(|array| array.is_null(row)) {
                self.sink.empty();
                continue;
            }
            let plain = match array.data_type() {
                _ if array.is_null(row) => None,
                DataType::Binary => array
                    .as_any()
                    .downcast_ref::<BinaryArray>()
                    .map(|array| array.value(row)),
                DataType::LargeBinary => array
                    .as_any()
                    .downcast_ref::<LargeBinaryArray>()
                    .map(|array| array.value(row)),
                DataType::BinaryView => array
                    .as_any()
                    .downcast_ref::<BinaryViewArray>()
                    .map(|array| array.value(row)),
                _ => None,
            };
            let text = if let Some(text) = plain {
                text
            } else {
                self.text.clear();
                let mut joined = Joined {
                    join: self.join.as_bytes(),
                    text: &mut self.text,
                    any: false,
                    longest: self.sink.longest,
                };
                if !joined.append(array, row) {
                    return Err(self.sink.too_long().context(place()));
                }
                if !joined.any {
                    self.sink.empty();
                    continue;
                }
                &self.text[..]
            };
            if std::str::from_utf8(text).is_ok() {
                self.sink.push(text, String::new).context(place)?;
            } else {
                self.sink.push(text, place)?;
            }
        }
        Ok(())
    }
}

/// The strings of a row, joined.
struct Joined<'j> {
    join: &'j [u8],
    text: &'j mut Vec<u8>,
    any: bool,
    longest: usize,
}

impl Joined<'_> {
    /// Appends the strings of an element; whether they are not too long.
    fn append(&mut self, array: &dyn Array, row: usize) -> bool {
        if array.is_null(row) {
            return true;
        }
        match array.data_type() {
            DataType::Binary => self.push(array.as_binary::<i32>().value(row)),
            DataType::LargeBinary => self.push(array.as_binary::<i64>().value(row)),
            DataType::BinaryView => self.push(array.as_binary_view().value(row)),
            DataType::List(_) => self.list(&array.as_list::<i32>().value(row)),
            DataType::LargeList(_) => self.list(&array.as_list::<i64>().value(row)),
            DataType::FixedSizeList(..) => self.list(&array.as_fixed_size_list().value(row)),
            DataType::ListView(_) => self.list(&array.as_list_view::<i32>().value(row)),
            DataType::LargeListView(_) => self.list(&array.as_list_view::<i64>().value(row)),
            DataType::Dictionary(key, _) => match **key {
                DataType::Int8 => self.dictionary::<Int8Type>(array, row),
                DataType::Int16 => self.dictionary::<Int16Type>(array, row),
                DataType::Int32 => self.dictionary::<Int32Type>(array, row),
                DataType::Int64 => self.dictionary::<Int64Type>(array, row),
                DataType::UInt8 => self.dictionary::<UInt8Type>(array, row),
                DataType::UInt16 => self.dictionary::<UInt16Type>(array, row),
                DataType::UInt32 => self.dictionary::<UInt32Type>(array, row),
                _ => self.dictionary::<UInt64Type>(array, row),
            },
            _ => true,
        }
    }

    fn push(&mut self, value: &[u8]) -> bool {
        if self.any {
            self.text.extend_from_slice(self.join);
        }
        self.any = true;
        if self.text.len() + value.len() > self.longest {
            return false;
        }
        self.text.extend_from_slice(value);
        true
    }

    fn list(&mut self, values: &ArrayRef) -> bool {
        (0..values.len()).all(|row| self.append(values, row))
    }

    fn dictionary<K: ArrowDictionaryKeyType>(&mut self, array: &dyn Array, row: usize) -> bool {
        let array = array.as_dictionary::<K>();
        match array.key(row) {
            Some(key) => self.append(array.values(), key),
            None => true,
        }
    }
}
