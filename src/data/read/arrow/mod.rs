//! A column of strings from Arrow IPC.
//!
//! A file is read by its footer, which gives the positions of its batches: some writers omit the end mark, or the
//! length of the schema message, that a stream between the magics would have. A stream is read from front to back, and
//! so are the streams after it: joined files are one corpus, as for gzip or zstd.
//!
//! The crate `arrow` decodes the batches after every length of a message was checked against the bytes that exist. Its
//! file reader trusts the sizes that a footer, a batch or a compressed buffer states
//! (`arrow_crate_allocates_the_sizes_that_a_file_states` in `tests/it/bombs.rs`), and with checks before it every batch
//! would be read twice. A whole batch is in memory, so its size is bounded. Strings are decoded as bytes, so that the
//! policy for invalid UTF-8 applies to them.

mod column;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read as _};
use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::FileDecoder;
use arrow::ipc::{
    self, Block, Endianness, Footer, Message, MessageHeader, MetadataVersion, RecordBatch, root_as_footer,
    root_as_message,
};

use super::FREE_BYTES;
use super::fault::{damaged, landed};
use super::sink::{Sink, bomb, too_large};
use super::stored::{ReadCount, Stored};
use crate::data::columns::check_counts;
use crate::error::{self, Context as _, Error, Kind, Result, Wrap as _};
use crate::manifest::reading::ColumnFormat;

use column::{TextColumn, TextExtractor};

/// First and last bytes of an IPC file.
const MAGIC: &[u8] = b"ARROW1";
/// Bytes before the first message of a file, at least.
const HEAD: u64 = 8;
/// Bytes behind a footer: its length and the magic.
const TRAILER: u64 = 10;
/// First bytes of Feather's first version.
const FEATHER_1: &[u8] = b"FEA1";
/// Stands before the length of a message since Arrow 0.15.
const CONTINUATION: [u8; 4] = [0xFF; 4];
/// Bytes of a message's description, and of a footer, at most.
const LONGEST_MESSAGE: usize = 256 << 20;
/// Bytes of a batch, at most: it is in memory as a whole.
const LONGEST_BATCH: u64 = 2 << 30;
/// Bytes between the last batch of a file and its footer, at most: the end mark, and padding. The schema message stands
/// there, too, where there is no batch.
const LONGEST_GAP: u64 = 256;

/// Whether first bytes are those of a file, which is read by its footer.
pub fn is_file(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// Reads the text of every row of a file.
///
/// # Errors
/// The file is damaged or cut off, the column is not there or holds no strings, a row is too long.
pub fn file(stored: &Stored, count: &ReadCount, format: &ColumnFormat, sink: &mut Sink<'_>) -> Result<()> {
    let (bytes, footer_start) = footer(stored, count)?;
    let length = bytes.len();
    let footer = parse_footer(&bytes)?;
    let schema = footer
        .schema()
        .ok_or_else(|| damaged("the Arrow file's footer has no schema"))?;
    let dictionaries: Vec<Block> = footer.dictionaries().iter().flatten().copied().collect();
    let batches: Vec<Block> = footer.recordBatches().iter().flatten().copied().collect();
    check_blocks(&dictionaries, &batches, footer_start, length as u64)?;
    let mut decoder = Decoder::new(schema, format, sink, 0)?;
    let mut part = |block: &Block, kind: MessageHeader| -> Result<()> {
        let start = block.metaDataLength() as usize;
        let mut bytes = Vec::new();
        let length = start + block.bodyLength() as usize;
        stored.exactly(block.offset() as u64, length, count, &mut bytes)?;
        let body = block.bodyLength() as u64;
        check_batch(body)?;
        decoder.part(Whole { bytes, start, body }, Some(kind))
    };
    for block in &dictionaries {
        part(block, MessageHeader::DictionaryBatch)?;
    }
    for block in &batches {
        part(block, MessageHeader::RecordBatch)?;
    }
    Ok(())
}

/// The bytes of a file's footer, and where they start.
fn footer(stored: &Stored, count: &ReadCount) -> Result<(Vec<u8>, u64)> {
    let whole = stored.len();
    let cut_off = || damaged("the Arrow file does not end with its footer: it is cut off");
    let mut trailer = Vec::new();
    let trailer_start = whole
        .checked_sub(TRAILER)
        .filter(|&start| start >= HEAD)
        .ok_or_else(cut_off)?;
    stored.exactly(trailer_start, TRAILER as usize, count, &mut trailer)?;
    let (length, magic) = trailer.split_first_chunk::<4>().ok_or_else(cut_off)?;
    if magic != MAGIC {
        return Err(cut_off());
    }
    let length = i32::from_le_bytes(*length);
    let footer_start = usize::try_from(length)
        .ok()
        .filter(|&length| length <= LONGEST_MESSAGE)
        .and_then(|length| (trailer_start - HEAD).checked_sub(length as u64))
        .ok_or_else(|| {
            damaged(format!(
                "the Arrow file states a footer of {length} bytes, it has {whole} itself"
            ))
        })?
        + HEAD;
    let mut bytes = Vec::new();
    let length = (trailer_start - footer_start) as usize;
    stored.exactly(footer_start, length, count, &mut bytes)?;
    Ok((bytes, footer_start))
}

/// Parses and verifies a file's footer.
fn parse_footer(bytes: &[u8]) -> Result<Footer<'_>> {
    root_as_footer(bytes).map_err(|error| damaged(format!("the Arrow file's footer is damaged: {error}")))
}

/// Names of the columns that hold strings or bytes, of a file or of the first of its streams: up to
/// [`LISTED`](super::LISTED) of them.
///
/// # Errors
/// The schema is damaged or cut off.
pub fn strings(stored: &Stored, count: &ReadCount) -> Result<Vec<String>> {
    let mut input = BufReader::new(stored.section(0, stored.len(), count));
    let names = |schema: ipc::Schema<'_>| -> Result<Vec<String>> {
        Ok(column::names(&guarded(|| try_fb_to_schema(schema))?))
    };
    let missing = || damaged("the Arrow data have no schema");
    if is_file(input.fill_buf().map_err(landed)?) {
        let (bytes, _) = footer(stored, count)?;
        return names(parse_footer(&bytes)?.schema().ok_or_else(missing)?);
    }
    let mut next = [0; 4];
    exactly(&mut input, &mut next)?;
    let mut messages = Messages {
        input: &mut input,
        next,
        number: 0,
    };
    let first = messages.next()?.ok_or_else(missing)?;
    names(parse(&first.bytes)?.header_as_schema().ok_or_else(missing)?)
}

/// Checks where a footer says that the parts of its file are.
fn check_blocks(
    dictionaries: &[Block],
    batches: &[Block],
    footer_start: u64,
    footer_length: u64,
) -> Result<()> {
    let mut sum = 0u64;
    let mut last = HEAD;
    for (number, block) in dictionaries.iter().chain(batches).enumerate() {
        let offset = u64::try_from(block.offset()).ok();
        let description = u64::try_from(block.metaDataLength()).ok();
        let body = u64::try_from(block.bodyLength()).ok();
        let end = (offset.zip(description).zip(body))
            .filter(|((offset, description), _)| *offset >= HEAD && *description >= 8)
            .and_then(|((offset, description), body)| offset.checked_add(description)?.checked_add(body))
            .filter(|&end| end <= footer_start);
        let Some(end) = end else {
            let (kind, number) = match number.checked_sub(dictionaries.len()) {
                Some(number) => ("batch", number + 1),
                None => ("dictionary", number + 1),
            };
            return Err(damaged(format!(
                "the Arrow file's footer is damaged: {kind} {number} lies outside the file"
            )));
        };
        last = last.max(end);
        sum = sum.saturating_add(end - block.offset() as u64);
    }
    // As many may be stated as the file has bytes for: the same ones again and again would be a bomb.
    if sum > footer_start {
        return Err(damaged(format!(
            "the Arrow file's footer is damaged: it states {sum} bytes of batches, but the file has {footer_start} \
             before its footer"
        )));
    }
    let gap = footer_start - last;
    let none = dictionaries.is_empty() && batches.is_empty();
    if gap > LONGEST_GAP + if none { 2 * footer_length } else { 0 } {
        return Err(Error::input(format!(
            "the Arrow file has {gap} bytes before its footer that the footer does not list: files were joined, or \
             it is damaged"
        ))
        .hint("name the files one by one; Arrow *streams* can be joined, files cannot"));
    }
    Ok(())
}

/// Reads the text of every row of one or more streams.
///
/// # Errors
/// The errors of [`file`].
pub fn streams(input: &mut dyn BufRead, format: &ColumnFormat, sink: &mut Sink<'_>) -> Result<()> {
    let mut prefix = [0; 4];
    exactly(input, &mut prefix)?;
    if prefix == FEATHER_1 {
        return Err(
            Error::input("the file is Feather version 1, which mdlm does not read")
                .hint("write it again with `pyarrow.feather.write_feather(…, version=2)`"),
        );
    }
    let mut rows = stream(input, prefix, format, sink, 0)?;
    for number in 2.. {
        // Zeros may fill a block behind an end mark.
        loop {
            let chunk = input.fill_buf().map_err(landed)?;
            let zeros = chunk.iter().take_while(|&&byte| byte == 0).count();
            let (end, more) = (chunk.is_empty(), zeros < chunk.len());
            input.consume(zeros);
            if end {
                return Ok(());
            }
            if more {
                break;
            }
        }
        let what = || format!("stream {number}, after the end mark of the previous stream");
        exactly(input, &mut prefix).context(what)?;
        rows = stream(input, prefix, format, sink, rows).context(what)?;
    }
    Ok(())
}

/// Reads one stream, up to its end mark; gives the rows so far.
fn stream(
    input: &mut dyn BufRead,
    prefix: [u8; 4],
    format: &ColumnFormat,
    sink: &mut Sink<'_>,
    rows: u64,
) -> Result<u64> {
    let mut messages = Messages {
        input,
        next: prefix,
        number: 0,
    };
    let Some(first) = messages.next()? else {
        return Err(damaged("the Arrow data have no schema"));
    };
    let parsed = parse(&first.bytes)?;
    let schema = parsed
        .header_as_schema()
        .ok_or_else(|| damaged("the Arrow data begin without a schema"))?;
    let mut decoder = Decoder::new(schema, format, sink, rows)?;
    while let Some(message) = messages.next()? {
        decoder.part(message, None)?;
    }
    Ok(decoder.rows.number)
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
            "the Arrow data state a part of {length} bytes, but only {read} remain"
        )));
    }
    Ok(())
}

/// The messages of a stream.
struct Messages<'i> {
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

impl Whole {
    /// The message as a file has it. Only lengths matter to the decoder, which gets the message from its first byte.
    fn block(&self) -> Block {
        Block::new(0, self.start as i32, self.body as i64)
    }
}

impl Messages<'_> {
    /// The next message; `None` at the end mark.
    fn next(&mut self) -> Result<Option<Whole>> {
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
        check_batch(body).context(what)?;
        append(self.input, body, &mut bytes).context(what)?;
        Ok(Some(Whole { bytes, start, body }))
    }
}

fn check_batch(body: u64) -> Result<()> {
    if body > LONGEST_BATCH {
        return Err(
            Error::input(format!("a batch of {body} bytes; {LONGEST_BATCH} are the most"))
                .hint("write smaller batches, for example with `max_chunksize` of pyarrow's `write_table`"),
        );
    }
    Ok(())
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

/// Turns messages into rows.
#[expect(clippy::struct_field_names, reason = "it wraps the crate's decoder")]
struct Decoder<'r, 's> {
    decoder: FileDecoder,
    /// The column alone, which distinguishes its dictionaries from those of other columns.
    own: Schema,
    /// Bytes of the dictionaries, by number.
    dictionaries: HashMap<i64, u64>,
    /// Dictionaries, with those that add to one.
    parts: u64,
    batches: u64,
    rows: TextExtractor<'r, 's>,
}

impl<'r, 's> Decoder<'r, 's> {
    /// Finds the column in a schema; `number` rows were read before.
    fn new(
        schema: ipc::Schema<'_>,
        format: &'r ColumnFormat,
        sink: &'r mut Sink<'s>,
        number: u64,
    ) -> Result<Self> {
        if schema.endianness() != Endianness::Little {
            return Err(
                Error::input("the Arrow data were written on a machine of the other byte order")
                    .hint("write them again on a machine with little-endian numbers, such as x86 or ARM"),
            );
        }
        let schema = guarded(|| try_fb_to_schema(schema)).context(|| "schema".to_owned())?;
        let (schema, column) = TextColumn::find(&schema, &format.column)?;
        let own = Schema::new(vec![schema.fields()[column.index].clone()]);
        // With this version the decoder goes by the one that each message states. A footer's need not be theirs: Arrow's
        // C++ writes V5 into the footer of a file whose messages are V4.
        let version = MetadataVersion::V1;
        let decoder = FileDecoder::new(Arc::new(schema), version).with_projection(vec![column.index]);
        Ok(Self {
            decoder,
            own,
            dictionaries: HashMap::new(),
            parts: 0,
            batches: 0,
            rows: TextExtractor {
                column,
                join: &format.join,
                text: Vec::new(),
                number,
                sink,
            },
        })
    }

    /// Takes a message, which is of the kind that a footer states, if there is one.
    fn part(&mut self, message: Whole, stated: Option<MessageHeader>) -> Result<()> {
        let kind = parse(&message.bytes)?.header_type();
        match kind {
            _ if stated.is_some_and(|stated| stated != kind) => {}
            MessageHeader::DictionaryBatch => {
                self.parts += 1;
                let number = self.parts;
                return (self.dictionary(message, stated.is_some()))
                    .context(|| format!("dictionary {number}"));
            }
            MessageHeader::RecordBatch => {
                self.batches += 1;
                let number = self.batches;
                return self.batch(message).context(|| format!("batch {number}"));
            }
            _ => {}
        }
        Err(damaged(format!("a message of the type {kind:?}")))
    }

    fn batch(&mut self, message: Whole) -> Result<()> {
        let parsed = parse(&message.bytes)?;
        let batch = (parsed.header_as_record_batch()).ok_or_else(|| damaged("a batch without data"))?;
        if self.rows.column.all_null {
            return self.rows.nulls(batch.length());
        }
        check(&batch, &message.bytes[message.start..], self.rows.sink)?;
        let block = message.block();
        let bytes = Buffer::from_vec(message.bytes);
        let batch = guarded(|| self.decoder.read_record_batch(&block, &bytes))?
            .ok_or_else(|| damaged("an empty message"))?;
        self.rows.batch(&batch)
    }

    fn dictionary(&mut self, message: Whole, in_file: bool) -> Result<()> {
        let parsed = parse(&message.bytes)?;
        let missing = || damaged("a dictionary without data");
        let batch = parsed.header_as_dictionary_batch().ok_or_else(missing)?;
        let id = batch.id();
        #[expect(deprecated, reason = "as the decoder finds the type of a dictionary")]
        let unwanted = self.own.fields_with_dict_id(id).is_empty();
        if unwanted || self.rows.column.all_null {
            return Ok(());
        }
        let data = batch.data().ok_or_else(missing)?;
        let bytes = check(&data, &message.bytes[message.start..], self.rows.sink)?;
        let bytes = match self.dictionaries.get(&id) {
            Some(before) if batch.isDelta() => before.saturating_add(bytes),
            // A file's dictionaries are all read before its batches.
            Some(_) if in_file => {
                return Err(damaged(format!(
                    "the file has two dictionaries with the number {id}, so that the column's values are ambiguous"
                )));
            }
            _ => bytes,
        };
        self.dictionaries.insert(id, bytes);
        let all = (self.dictionaries.values()).fold(0u64, |sum, &bytes| sum.saturating_add(bytes));
        if all > self.rows.sink.buffer {
            return Err(too_large("the column's dictionary", self.rows.sink.buffer));
        }
        let block = message.block();
        let bytes = Buffer::from_vec(message.bytes);
        guarded(|| self.decoder.read_dictionary(&block, &bytes))
    }
}

/// Checks the lengths of a batch against its body: the decoder takes them as they are. Gives its bytes, decompressed.
fn check(batch: &RecordBatch<'_>, content: &[u8], limits: &Sink<'_>) -> Result<u64> {
    let body = content.len() as u64;
    let ratio = limits.ratio;
    let (mut decompressed, mut plain) = (0_u64, 0_u64);
    // What elements take less than a bit of: nothing that holds strings, unless it is compressed.
    let mut most = body.saturating_mul(8);
    for buffer in batch.buffers().iter().flatten() {
        let (start, length) = (u64::try_from(buffer.offset()), u64::try_from(buffer.length()));
        let (Ok(start), Ok(length)) = (start, length) else {
            return Err(damaged(format!("{buffer:?} is not a part of its body")));
        };
        let end = start.checked_add(length).filter(|&end| end <= body);
        let Some(end) = end else {
            return Err(damaged(format!(
                "{buffer:?} lies outside its body of {body} bytes"
            )));
        };
        plain = plain.saturating_add(length);
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
    check_counts(batch, most).map_err(damaged)?;
    Ok(decompressed.max(plain))
}

/// Runs the decoder. It is made for data that their writer vouches for and has assertions where a check would be due; a
/// panic of it is an error of the file.
fn guarded<T>(decode: impl FnOnce() -> std::result::Result<T, arrow::error::ArrowError>) -> Result<T> {
    error::guarded(decode)
        .map_err(|_| damaged("damaged Arrow data: the decoder failed"))?
        .wrap(Kind::Input, || "damaged Arrow data".to_owned())
        .map_err(|error| error.hint(super::fault::BRING_AGAIN))
}
