//! Pages: found and checked by the crate `parquet`, as they are stored; decompressed here, within the limits.

use std::cell::Cell;
use std::io::{BufReader, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page as Raw, PageReader as _};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

use super::super::FREE_BYTES;
use super::super::fault::damaged;
use super::super::members::zstd_window;
use super::super::sink::{Sink, bomb, too_large};
use super::super::stored::{ReadCount, Section, Stored};
use super::footer::{Chunk, TextColumn, carry};
use super::guarded;
use crate::error::{Error, Result};

/// Bytes of a page's header that are read at a time.
const HEADER: usize = 512;
/// Bytes that room is made for before a page is decompressed.
const FIRST_ROOM: usize = 1 << 16;
/// Values of a column that may be stated whatever its bytes are, and for each byte and unit of the ratio: runs make many
/// nulls of a few bytes, but not without end.
const FREE_VALUES: u64 = 1 << 26;
const VALUES_PER_BYTE: u64 = 64;
/// Bytes that the crate takes for a string of a dictionary beside its text, and some to spare.
const STRING: u64 = 48;

/// A page, decompressed.
pub enum Page {
    /// Strings that data pages refer to.
    Dictionary(Dictionary),
    /// Values.
    Data(Data),
}

/// The strings that values refer to.
pub struct Dictionary {
    /// Each after its length.
    pub bytes: Bytes,
    /// How many.
    pub strings: u32,
}

/// A page of values.
pub struct Data {
    /// Repetition levels, in the hybrid of runs and packed bits.
    pub repetition: Bytes,
    /// Definition levels, likewise.
    pub definition: Bytes,
    /// The values.
    pub content: Bytes,
    /// Values and nulls.
    pub values: u64,
    /// The values' encoding.
    pub encoding: Encoding,
}

/// The bytes of a column's part, which the crate asks for.
struct ColumnChunk<'s> {
    stored: &'s Stored,
    count: ReadCount,
    end: u64,
    /// Bytes of a page, at most.
    buffer: u64,
    /// Where the last page was, and how long it is.
    at: AtomicU64,
    length: AtomicU64,
}

impl Length for ColumnChunk<'_> {
    fn len(&self) -> u64 {
        self.end
    }
}

impl<'s> ChunkReader for ColumnChunk<'s> {
    type T = BufReader<Section<'s>>;

    fn get_read(&self, start: u64) -> std::result::Result<Self::T, ParquetError> {
        self.at.store(start, Ordering::Relaxed);
        let section = (self.stored).section(start, self.end.saturating_sub(start), &self.count);
        Ok(BufReader::with_capacity(HEADER, section))
    }

    fn get_bytes(&self, start: u64, length: usize) -> std::result::Result<Bytes, ParquetError> {
        self.length.store(length as u64, Ordering::Relaxed);
        if length as u64 > self.buffer {
            return Err(carry(too_large("it", self.buffer)));
        }
        self.stored.bytes(start, length, &self.count).map_err(carry)
    }
}

/// The pages of a column's part.
pub struct Pages<'p> {
    reader: SerializedPageReader<ColumnChunk<'p>>,
    source: Arc<ColumnChunk<'p>>,
    column: &'p TextColumn,
    chunk: &'p Chunk,
    codec: Codec,
    ratio: u64,
    values: u64,
    /// Pages so far.
    pub number: u64,
}

impl<'p> Pages<'p> {
    /// The pages of `chunk`.
    ///
    /// # Errors
    /// The pages are compressed with an unsupported codec.
    pub fn new(
        stored: &'p Stored,
        count: &ReadCount,
        column: &'p TextColumn,
        chunk: &'p Chunk,
        limits: &Sink<'_>,
    ) -> Result<Self> {
        let source = Arc::new(ColumnChunk {
            stored,
            count: count.clone(),
            end: chunk.start + chunk.length,
            buffer: limits.buffer,
            at: AtomicU64::new(chunk.start),
            length: AtomicU64::new(0),
        });
        let codec = Codec {
            compression: chunk.metadata.compression(),
            buffer: limits.buffer,
            ratio: limits.ratio,
            last: Cell::new(FIRST_ROOM),
        };
        // To the crate, nothing is compressed: it would decompress a page into whatever memory that takes.
        let as_stored = (chunk.metadata.clone().into_builder())
            .set_compression(Compression::UNCOMPRESSED)
            .build();
        let reader = guarded(|| SerializedPageReader::new(source.clone(), &as_stored?, 0, None))?;
        Ok(Self {
            reader,
            source,
            column,
            chunk,
            codec,
            ratio: limits.ratio,
            values: 0,
            number: 0,
        })
    }

    /// The next page.
    ///
    /// # Errors
    /// The page is damaged, or compressed with an unsupported codec.
    pub fn next(&mut self) -> Result<Option<Page>> {
        if self.values >= self.chunk.values {
            return Ok(None);
        }
        self.number += 1;
        let mut page = guarded(|| self.reader.get_next_page());
        // Of another type than strings only the levels are of use.
        if self.column.wrong.is_some() && matches!(page, Ok(Some(Raw::DictionaryPage { .. }))) {
            self.number += 1;
            page = guarded(|| self.reader.get_next_page());
        }
        let at = self.source.at.load(Ordering::Relaxed);
        let number = self.number;
        let place = |error: Error| error.context(format!("page {number} at byte {at}"));
        let Some(page) = page.map_err(place)? else {
            return Err(place(self.other_count(self.values)));
        };
        let page = match page {
            Raw::DictionaryPage {
                buf,
                num_values,
                encoding,
                ..
            } => dictionary(&self.codec, &buf, num_values, encoding),
            raw => data(&self.codec, raw, self.column),
        };
        let page = page.map_err(place)?;
        if let Page::Data(data) = &page {
            self.values = self.values.saturating_add(data.values);
            let read = (at - self.chunk.start).saturating_add(self.source.length.load(Ordering::Relaxed));
            let most = read.saturating_mul(self.ratio).saturating_mul(VALUES_PER_BYTE);
            if self.values > FREE_VALUES.saturating_add(most) {
                return Err(place(bomb(self.values, read, self.ratio)));
            }
            if self.values > self.chunk.values {
                return Err(place(self.other_count(self.values)));
            }
        }
        Ok(Some(page))
    }

    fn other_count(&self, found: u64) -> Error {
        damaged(format!(
            "it has {found} values, but the file states {}",
            self.chunk.values
        ))
    }
}

fn dictionary(codec: &Codec, compressed: &Bytes, strings: u32, encoding: Encoding) -> Result<Page> {
    if !matches!(encoding, Encoding::PLAIN | Encoding::PLAIN_DICTIONARY) {
        return Err(damaged(format!("a dictionary of the encoding {encoding}")));
    }
    let bytes = codec.decompress(compressed, 0)?;
    // A string takes 4 bytes at least.
    if u64::from(strings) > bytes.len() as u64 / 4 {
        return Err(damaged(format!(
            "a dictionary of {strings} strings in {} bytes",
            bytes.len()
        )));
    }
    if u64::from(strings) * STRING > codec.buffer {
        return Err(too_large(
            format!("a dictionary of {strings} strings"),
            codec.buffer,
        ));
    }
    Ok(Page::Dictionary(Dictionary { bytes, strings }))
}

fn data(codec: &Codec, page: Raw, column: &TextColumn) -> Result<Page> {
    let data = match page {
        Raw::DataPage {
            buf,
            num_values,
            encoding,
            def_level_encoding,
            rep_level_encoding,
            ..
        } => {
            let mut content = codec.decompress(&buf, 0)?;
            let mut levels = |max: u32, encoding: Encoding| {
                if max == 0 {
                    return Ok(Bytes::new());
                }
                if encoding != Encoding::RLE {
                    return Err(damaged(format!("levels of the encoding {encoding}")));
                }
                let length = (content.first_chunk::<4>())
                    .map(|length| u32::from_le_bytes(*length) as usize)
                    .filter(|&length| length <= content.len() - 4)
                    .ok_or_else(|| damaged("its levels lie outside of it"))?;
                let _ = content.split_to(4);
                Ok(content.split_to(length))
            };
            Data {
                repetition: levels(column.max_repetition, rep_level_encoding)?,
                definition: levels(column.max_definition, def_level_encoding)?,
                content,
                values: num_values.into(),
                encoding,
            }
        }
        Raw::DataPageV2 {
            buf,
            num_values,
            encoding,
            def_levels_byte_len,
            rep_levels_byte_len,
            is_compressed,
            ..
        } => {
            // Levels come first, and are never compressed.
            let (repetition, definition) = (rep_levels_byte_len as usize, def_levels_byte_len as usize);
            let levels = repetition.saturating_add(definition);
            if levels > buf.len() {
                return Err(damaged(format!("{levels} bytes of levels in {}", buf.len())));
            }
            let content = if is_compressed && levels < buf.len() {
                codec.decompress(&buf, levels)?
            } else {
                buf.slice(levels..)
            };
            Data {
                repetition: buf.slice(..repetition),
                definition: buf.slice(repetition..levels),
                content,
                values: num_values.into(),
                encoding,
            }
        }
        Raw::DictionaryPage { .. } => {
            return Err(Error::internal("a dictionary page is not a page of values"));
        }
    };
    Ok(Page::Data(data))
}

/// What pages are compressed with.
struct Codec {
    compression: Compression,
    /// Bytes that a page may become, at most; and each of its bytes.
    buffer: u64,
    ratio: u64,
    /// Bytes that the last page became: room for as many is made for the next.
    last: Cell<usize>,
}

impl Codec {
    /// Decompresses a page from byte `start` on.
    fn decompress(&self, page: &Bytes, start: usize) -> Result<Bytes> {
        let compressed = page.slice(start..);
        let by_ratio = FREE_BYTES.saturating_add((page.len() as u64).saturating_mul(self.ratio));
        let most = self.buffer.min(by_ratio);
        let mut to = Vec::with_capacity(self.last.get());
        // One more than there may be, so that it shows.
        let done = match self.compression {
            Compression::UNCOMPRESSED => return Ok(compressed),
            Compression::SNAPPY => snappy(&compressed, most, &mut to),
            Compression::GZIP(_) => flate2::bufread::MultiGzDecoder::new(&compressed[..])
                .take(most + 1)
                .read_to_end(&mut to)
                .map(drop),
            Compression::ZSTD(_) => zstd::stream::read::Decoder::with_buffer(&compressed[..])
                .and_then(|mut decoder| {
                    decoder.window_log_max(zstd_window(self.buffer))?;
                    decoder.take(most + 1).read_to_end(&mut to)
                })
                .map(drop),
            Compression::LZ4_RAW => lz4(&compressed, most, &mut to),
            other => return Err(unread(other)),
        };
        if to.len() as u64 > most {
            return Err(if most == self.buffer {
                too_large("it", self.buffer)
            } else {
                bomb(to.len() as u64, page.len() as u64, self.ratio)
            });
        }
        done.map_err(|error| damaged(format!("it does not decompress: {error}")))?;
        self.last.set(to.len().max(FIRST_ROOM));
        Ok(to.into())
    }
}

fn snappy(compressed: &[u8], most: u64, to: &mut Vec<u8>) -> std::io::Result<()> {
    let length = snap::raw::decompress_len(compressed)?;
    // Too many are stated, and no buffer is made for them.
    to.resize(length.min(most as usize + 1), 0);
    if length as u64 <= most {
        snap::raw::Decoder::new().decompress(compressed, to)?;
    }
    Ok(())
}

/// A block does not say how long it is: room is made until it fits.
fn lz4(compressed: &[u8], most: u64, to: &mut Vec<u8>) -> std::io::Result<()> {
    let mut room = to.capacity().max(compressed.len());
    loop {
        let full = room as u64 > most;
        to.resize(room.min(most as usize + 1), 0);
        match lz4_flex::block::decompress_into(compressed, to) {
            Ok(length) => {
                to.truncate(length);
                return Ok(());
            }
            Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) if full => return Ok(()),
            Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) => room = room.saturating_mul(4),
            Err(error) => {
                to.clear();
                return Err(std::io::Error::other(error));
            }
        }
    }
}

fn unread(compression: Compression) -> Error {
    let name = match compression {
        Compression::LZO => "LZO",
        Compression::BROTLI(_) => "brotli",
        Compression::LZ4 => "LZ4 (deprecated)",
        _ => "an unknown codec",
    };
    Error::input(format!(
        "its pages are compressed with {name}, which mdlm does not read"
    ))
    .hint("write the file with snappy, gzip, zstd, LZ4_RAW or without compression")
}
