//! Pages: found, checked, decompressed.

use std::io::Read as _;
use std::ops::Range;

use super::super::FREE_BYTES;
use super::super::compression::zstd_window;
use super::super::fault::damaged;
use super::super::sink::{Sink, bomb, too_large};
use super::super::stored::{ReadCount, Stored};
use super::super::thrift::{Compact, Fault, kind};
use super::footer::{Chunk, Column};
use crate::error::{Error, Result};

/// Bytes of a page's header that are looked at first, and at most: some writers put whole strings into statistics.
const FIRST_HEADER: u64 = 1 << 12;
const LONGEST_HEADER: u64 = 64 << 20;
/// Values of a column that may be stated whatever its bytes are, and for each byte and unit of the ratio: runs make many
/// nulls of a few bytes, but not without end.
const FREE_VALUES: u64 = 1 << 26;
const VALUES_PER_BYTE: u64 = 64;
/// Parquet's numbers of page types.
const DATA: i64 = 0;
const INDEX: i64 = 1;
const DICTIONARY: i64 = 2;
const DATA_2: i64 = 3;
/// Parquet's numbers of encodings: of the values of a dictionary, and of levels.
const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const RUNS: i64 = 3;
/// Parquet's numbers of compressions, by place.
const CODECS: [&str; 8] = [
    "none",
    "snappy",
    "gzip",
    "LZO",
    "brotli",
    "LZ4 (deprecated)",
    "zstd",
    "LZ4",
];

/// A page, decompressed.
pub enum Page {
    /// Strings that data pages refer to: the page, and how many.
    Dictionary(Vec<u8>, u64),
    /// Values.
    Data(Data),
}

/// A page of values.
pub struct Data {
    bytes: Vec<u8>,
    repetition: Range<usize>,
    definition: Range<usize>,
    content: Range<usize>,
    /// Values and nulls.
    pub values: u64,
    /// Parquet's number of the values' encoding.
    pub encoding: i64,
}

impl Data {
    /// Repetition levels, in the hybrid of runs and packed bits.
    pub fn repetition(&self) -> &[u8] {
        &self.bytes[self.repetition.clone()]
    }

    /// Definition levels, likewise.
    pub fn definition(&self) -> &[u8] {
        &self.bytes[self.definition.clone()]
    }

    /// The values.
    pub fn content(&self) -> &[u8] {
        &self.bytes[self.content.clone()]
    }
}

/// What the header of a page says.
#[derive(Default)]
struct Header {
    /// Bytes of the header itself.
    bytes: u64,
    kind: i64,
    uncompressed: u64,
    compressed: u64,
    values: u64,
    encoding: i64,
    /// Encodings of the levels; pages of the second version have but one.
    definition_encoding: i64,
    repetition_encoding: i64,
    /// Bytes of the levels, in the second version.
    definition: u64,
    repetition: u64,
    /// Whether the values are compressed, in the second version.
    plain: bool,
}

/// The pages of a column's part.
pub struct Pages<'p> {
    stored: &'p Stored,
    count: &'p ReadCount,
    column: &'p Column,
    chunk: &'p Chunk,
    ratio: u64,
    buffer_limit: u64,
    at: u64,
    values: u64,
    /// Pages so far.
    pub number: u64,
    buffer: Vec<u8>,
}

impl<'p> Pages<'p> {
    /// The pages of `chunk`.
    pub fn new(
        stored: &'p Stored,
        count: &'p ReadCount,
        column: &'p Column,
        chunk: &'p Chunk,
        limits: &Sink<'_>,
    ) -> Self {
        Self {
            stored,
            count,
            column,
            chunk,
            ratio: limits.ratio,
            buffer_limit: limits.buffer,
            at: chunk.start,
            values: 0,
            number: 0,
            buffer: Vec::new(),
        }
    }

    /// The next page.
    ///
    /// # Errors
    /// It is damaged, or compressed in a way that is not known.
    pub fn next(&mut self) -> Result<Option<Page>> {
        let end = self.chunk.start + self.chunk.length;
        loop {
            if self.values >= self.chunk.values {
                return Ok(None);
            }
            self.number += 1;
            let start = self.at;
            let place = |error: Error| error.context(format!("page {} at byte {start}", self.number));
            if self.at >= end {
                return Err(place(damaged(format!(
                    "there are {} values, stated are {}",
                    self.values, self.chunk.values
                ))));
            }
            let header =
                header(self.stored, self.count, start, end - start, &mut self.buffer).map_err(place)?;
            let body = start + header.bytes;
            if header.compressed > end - body {
                return Err(place(damaged(format!(
                    "it states {} bytes, of {} that are left of its column",
                    header.compressed,
                    end - body
                ))));
            }
            self.at = body + header.compressed;
            if header.kind == INDEX {
                continue;
            }
            let limit = FREE_BYTES.saturating_add(header.compressed.saturating_mul(self.ratio));
            if header.uncompressed > limit {
                return Err(place(bomb(header.uncompressed, header.compressed, self.ratio)));
            }
            if header.uncompressed.max(header.compressed) > self.buffer_limit {
                return Err(place(too_large("it", self.buffer_limit)));
            }
            self.stored
                .exactly(body, header.compressed as usize, self.count, &mut self.buffer)
                .map_err(place)?;
            let codec = Codec {
                number: self.chunk.codec,
                buffer: self.buffer_limit,
            };
            let page = match header.kind {
                DICTIONARY => dictionary(&header, &self.buffer, codec),
                DATA | DATA_2 => data(&header, &self.buffer, codec, self.column),
                kind => Err(damaged(format!("it is of the unknown type {kind}"))),
            };
            let page = page.map_err(place)?;
            if let Page::Data(data) = &page {
                self.values = self.values.saturating_add(data.values);
                let read = self.at - self.chunk.start;
                let most = read.saturating_mul(self.ratio).saturating_mul(VALUES_PER_BYTE);
                if self.values > FREE_VALUES.saturating_add(most) {
                    return Err(place(bomb(self.values, read, self.ratio)));
                }
                if self.values > self.chunk.values {
                    return Err(place(damaged(format!(
                        "there are {} values, stated are {}",
                        self.values, self.chunk.values
                    ))));
                }
            }
            return Ok(Some(page));
        }
    }
}

/// Reads a `PageHeader`.
fn header(stored: &Stored, count: &ReadCount, start: u64, left: u64, buffer: &mut Vec<u8>) -> Result<Header> {
    let mut look = FIRST_HEADER;
    loop {
        stored.exactly(start, look.min(left) as usize, count, buffer)?;
        match parse(buffer) {
            Ok(header) => return Ok(header),
            Err(Fault::Short) if look < left && look < LONGEST_HEADER => look *= 8,
            Err(_) => return Err(damaged("its header is damaged")),
        }
    }
}

fn parse(bytes: &[u8]) -> std::result::Result<Header, Fault> {
    let mut header = Header {
        kind: -1,
        ..Header::default()
    };
    let mut input = Compact::new(bytes);
    input.structure(&mut |input, field, kind| {
        match (field, kind) {
            (1, kind::I32) => header.kind = input.integer()?,
            (2, kind::I32) => header.uncompressed = input.count()?,
            (3, kind::I32) => header.compressed = input.count()?,
            // The second version's structure differs in its fields behind the second.
            (5 | 7 | 8, kind::STRUCT) => {
                let second = field == 8;
                input.structure(&mut |input, field, kind| {
                    match (field, kind, second) {
                        (1, kind::I32, _) => header.values = input.count()?,
                        (2, kind::I32, false) | (4, kind::I32, true) => header.encoding = input.integer()?,
                        (3, kind::I32, false) => header.definition_encoding = input.integer()?,
                        (4, kind::I32, false) => header.repetition_encoding = input.integer()?,
                        (5, kind::I32, true) => header.definition = input.count()?,
                        (6, kind::I32, true) => header.repetition = input.count()?,
                        (7, kind::FALSE, true) => header.plain = true,
                        _ => return Ok(false),
                    }
                    // A truth value is its own type and takes no further byte.
                    Ok(true)
                })?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    header.bytes = input.position() as u64;
    Ok(header)
}

fn dictionary(header: &Header, compressed: &[u8], codec: Codec) -> Result<Page> {
    if !matches!(header.encoding, PLAIN | PLAIN_DICTIONARY) {
        return Err(damaged(format!(
            "a dictionary of the encoding {}",
            header.encoding
        )));
    }
    let mut bytes = Vec::new();
    decompress(codec, compressed, header.uncompressed, &mut bytes)?;
    Ok(Page::Dictionary(bytes, header.values))
}

fn data(header: &Header, compressed: &[u8], codec: Codec, column: &Column) -> Result<Page> {
    let mut bytes = Vec::new();
    let mut at = 0;
    let (repetition, definition);
    if header.kind == DATA_2 {
        // Levels come first, and are never compressed.
        let levels = header.repetition.saturating_add(header.definition);
        if levels > header.uncompressed || levels > compressed.len() as u64 {
            return Err(damaged(format!(
                "{levels} bytes of levels in {}",
                compressed.len()
            )));
        }
        let (levels, values) = compressed.split_at(levels as usize);
        bytes.extend_from_slice(levels);
        let left = header.uncompressed - levels.len() as u64;
        let codec = if header.plain || values.is_empty() {
            codec.none()
        } else {
            codec
        };
        decompress(codec, values, left, &mut bytes)?;
        repetition = 0..header.repetition as usize;
        definition = repetition.end..levels.len();
        at = levels.len();
    } else {
        decompress(codec, compressed, header.uncompressed, &mut bytes)?;
        let mut levels = |max: u32, encoding: i64| {
            if max == 0 {
                return Ok(at..at);
            }
            if encoding != RUNS {
                return Err(damaged(format!("levels of the encoding {encoding}")));
            }
            let start = at + 4;
            let end = bytes
                .get(at..start)
                .map(|length| u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize)
                .and_then(|length| start.checked_add(length))
                .filter(|&end| end <= bytes.len())
                .ok_or_else(|| damaged("its levels lie outside of it"))?;
            at = end;
            Ok(start..end)
        };
        repetition = levels(column.max_repetition, header.repetition_encoding)?;
        definition = levels(column.max_definition, header.definition_encoding)?;
    }
    Ok(Page::Data(Data {
        content: at..bytes.len(),
        repetition,
        definition,
        bytes,
        values: header.values,
        encoding: header.encoding,
    }))
}

/// What pages are compressed with.
#[derive(Clone, Copy)]
struct Codec {
    /// Parquet's number.
    number: i64,
    /// Bytes that it may hold at once, at most.
    buffer: u64,
}

impl Codec {
    /// No compression.
    fn none(self) -> Self {
        Self { number: 0, ..self }
    }
}

/// Decompresses into exactly `length` bytes behind those that are there.
fn decompress(codec: Codec, compressed: &[u8], length: u64, to: &mut Vec<u8>) -> Result<()> {
    let before = to.len();
    let length = length as usize;
    let faulty = |error: String| damaged(format!("it does not decompress: {error}"));
    match codec.number {
        0 => to.extend_from_slice(compressed),
        1 => {
            let stated = snap::raw::decompress_len(compressed).map_err(|error| faulty(error.to_string()))?;
            if stated == length {
                to.resize(before + length, 0);
                snap::raw::Decoder::new()
                    .decompress(compressed, &mut to[before..])
                    .map_err(|error| faulty(error.to_string()))?;
            }
        }
        2 => {
            flate2::bufread::MultiGzDecoder::new(compressed)
                .take(length as u64 + 1)
                .read_to_end(to)
                .map_err(|error| faulty(error.to_string()))?;
        }
        6 => {
            to.reserve(length);
            zstd::stream::read::Decoder::with_buffer(compressed)
                .and_then(|mut decoder| {
                    decoder.window_log_max(zstd_window(codec.buffer))?;
                    decoder.take(length as u64 + 1).read_to_end(to)
                })
                .map_err(|error| faulty(error.to_string()))?;
        }
        7 => {
            to.resize(before + length, 0);
            let written = lz4_flex::block::decompress_into(compressed, &mut to[before..])
                .map_err(|error| faulty(error.to_string()))?;
            to.truncate(before + written);
        }
        codec => {
            let name = usize::try_from(codec).ok().and_then(|codec| CODECS.get(codec));
            return Err(Error::input(format!(
                "its pages are compressed with {}, which is not read",
                name.map_or_else(|| format!("the unknown codec {codec}"), |&name| name.to_owned())
            ))
            .hint("write the file with snappy, gzip, zstd, LZ4_RAW or without compression"));
        }
    }
    if to.len() - before != length {
        return Err(damaged(format!(
            "it decompresses to {} bytes, stated are {length}",
            to.len() - before
        )));
    }
    Ok(())
}
