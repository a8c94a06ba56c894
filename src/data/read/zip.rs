//! zip (PKWARE's APPNOTE 6.3), read by its central directory, with the 64-bit extensions.
//!
//! The directory is read here, member by member, not by the crate `zip`. Tests in `tests/it/zip_bombs.rs` hold why: to find
//! the directory, it takes as much memory as the file is long, and more
//! (`zip_crate_searches_the_directory_in_memory_as_long_as_the_file`); its `ZipArchive` knows the last of several members
//! of one name alone and holds the whole directory (`zip_crate_loses_members_and_holds_the_directory_in_memory`); its
//! decoders have no limits on what they hold (`zip_crate_decodes_without_a_limit`). With its `ZipIterable`, which is
//! unstable, keeps members of one name and reads one at a time, the end records would have to be found and checked here all
//! the same, and members decoded.
//!
//! The directory is what counts; local headers are only passed over. Every member's bytes must lie before the directory,
//! and what comes out of it must have the length and the CRC-32 that the directory states.

use std::io::{self, BufRead, BufReader, Read};

use super::archive::check;
use super::compression::{self, Meter};
use super::fault::{carry, damaged, landed};
use super::stored::{ReadCount, Section, Stored};
use super::{READ_BYTES, read_buffered, recognise};
use crate::error::{Error, Result};
use crate::manifest::reading::Compression;

const END: &[u8] = b"PK\x05\x06";
const END_BYTES: u64 = 22;
/// The end's comment has 16 bits of length.
const LONGEST_COMMENT: u64 = u16::MAX as u64;
const LOCATOR: &[u8] = b"PK\x06\x07";
const LOCATOR_BYTES: u64 = 20;
const END_64: &[u8] = b"PK\x06\x06";
const END_64_BYTES: usize = 56;
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;
const LOCAL: &[u8] = b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;
/// File type bits of a Unix mode, and those of a regular file.
const UNIX_TYPE: u32 = 0o170_000;
const UNIX_REGULAR: u32 = 0o100_000;
/// Compressions that are not read, by number.
const METHODS: [(u64, &str); 5] = [
    (1, "shrink"),
    (6, "implode"),
    (9, "Deflate64"),
    (14, "LZMA"),
    (98, "PPMd"),
];

/// Whether a file that does not begin as a zip ends as one: something stands before the archive, such as the program that
/// unpacks it. A comment behind the end record is looked for where the name or the first bytes are not those of a text.
///
/// # Errors
/// The file cannot be read.
pub fn ends(stored: &Stored, name: &str, head: &[u8]) -> Result<bool> {
    let last = stored.tail(END_BYTES as usize)?;
    if find_end(&last).is_some() {
        return Ok(true);
    }
    let named = [".zip", ".exe"]
        .iter()
        .any(|ending| recognise::ends(name, ending));
    let program = [&b"\x7FELF"[..], b"MZ"]
        .iter()
        .any(|magic| head.starts_with(magic));
    if !named && !program {
        return Ok(false);
    }
    let tail = stored.tail((END_BYTES + LONGEST_COMMENT) as usize)?;
    Ok(find_end(&tail).is_some())
}

/// Where the end record starts in the last bytes of a file: one whose comment ends with the file.
fn find_end(tail: &[u8]) -> Option<usize> {
    memchr::memmem::rfind_iter(tail, END).find(|&at| {
        tail.len() - at >= END_BYTES as usize && at + 22 + u16_at(tail, at + 20) as usize == tail.len()
    })
}

fn u16_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u16_at(bytes, at) | u16_at(bytes, at + 2) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) | u32_at(bytes, at + 4) << 32
}

/// The central directory of an archive.
pub struct Directory<'s> {
    entries: BufReader<Section<'s>>,
    left: u64,
    number: u64,
    /// Where the archive begins in the file: programs that unpack themselves have something before it.
    base: u64,
    start: u64,
}

/// A member of an archive.
pub struct ZipMember {
    /// Its name.
    pub name: String,
    /// Whether it is a regular file, and no link.
    pub regular: bool,
    flags: u64,
    method: u64,
    crc: u32,
    compressed: u64,
    size: u64,
    header: u64,
    /// Where the directory starts: members lie before.
    directory: u64,
}

impl<'s> Directory<'s> {
    /// Finds the directory.
    ///
    /// # Errors
    /// There is no directory, because the file is truncated or damaged.
    pub fn open(stored: &'s Stored, count: &ReadCount) -> Result<Self> {
        let length = stored.len();
        let tail_start = length.saturating_sub(END_BYTES + LONGEST_COMMENT);
        let mut tail = Vec::new();
        stored.exactly(tail_start, (length - tail_start) as usize, count, &mut tail)?;
        let end = find_end(&tail).ok_or_else(|| no_end(&tail, tail_start))?;
        let end_at = tail_start + end as u64;
        let mut entries = u16_at(&tail, end + 10);
        let mut size = u32_at(&tail, end + 12);
        let mut offset = u32_at(&tail, end + 16);
        let mut disks = (u16_at(&tail, end + 4), u16_at(&tail, end + 6));
        let mut directory_end = end_at;
        let mut bytes = Vec::new();
        if let Some(locator_at) = end_at.checked_sub(LOCATOR_BYTES) {
            stored.exactly(locator_at, LOCATOR_BYTES as usize, count, &mut bytes)?;
            if bytes.starts_with(LOCATOR) {
                // The 64-bit end record stands right before its locator, whatever stands before the archive.
                let record_at = locator_at
                    .checked_sub(END_64_BYTES as u64)
                    .ok_or_else(|| damaged("the zip archive's 64-bit end record is missing"))?;
                let stated_at = u64_at(&bytes, 8);
                stored.exactly(record_at, END_64_BYTES, count, &mut bytes)?;
                let mut at = record_at;
                if !bytes.starts_with(END_64) && stated_at < record_at {
                    at = stated_at;
                    stored.exactly(at, END_64_BYTES, count, &mut bytes)?;
                }
                if !bytes.starts_with(END_64) {
                    return Err(damaged("the zip archive's 64-bit end record is damaged"));
                }
                disks = (u32_at(&bytes, 16), u32_at(&bytes, 20));
                entries = u64_at(&bytes, 32);
                size = u64_at(&bytes, 40);
                offset = u64_at(&bytes, 48);
                directory_end = at;
            }
        }
        if disks != (0, 0) {
            return Err(Error::input("the zip archive is split into several files")
                .hint("join it: `zip -s 0 split.zip --out whole.zip`"));
        }
        let start = directory_end.checked_sub(size);
        let base = start.and_then(|start| start.checked_sub(offset));
        let (Some(start), Some(base)) = (start, base) else {
            return Err(damaged(format!(
                "the zip archive states a directory of {size} bytes from byte {offset} on, which lies outside its \
                 {length} bytes"
            )));
        };
        // A program that unpacks itself has something else before its archive.
        if base > 0 {
            stored.exactly(0, LOCAL.len(), count, &mut bytes)?;
            if bytes == LOCAL {
                return Err(Error::input(format!(
                    "the zip archive has {base} bytes before its first member that its directory does not list: \
                     archives were joined, or it is damaged"
                ))
                .hint("name the archives one by one"));
            }
        }
        if entries.saturating_mul(ENTRY_BYTES as u64) > size {
            return Err(damaged(format!(
                "the zip archive states {entries} members in a directory of {size} bytes"
            )));
        }
        Ok(Self {
            entries: BufReader::with_capacity(READ_BYTES, stored.section(start, size, count)),
            left: entries,
            number: 0,
            base,
            start,
        })
    }

    /// The next member but folders.
    ///
    /// # Errors
    /// The directory is damaged, or a name leads out of the archive.
    pub fn next(&mut self) -> Result<Option<ZipMember>> {
        while self.left > 0 {
            self.left -= 1;
            self.number += 1;
            let entry = self.entry()?;
            if !entry.name.ends_with('/') {
                if entry.regular {
                    check(&entry.name)?;
                }
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn entry(&mut self) -> Result<ZipMember> {
        let number = self.number;
        let broken = || {
            damaged(format!(
                "the zip archive's directory is damaged at member {number}"
            ))
        };
        let mut fixed = [0; ENTRY_BYTES];
        exact(&mut self.entries, &mut fixed, broken)?;
        if !fixed.starts_with(ENTRY) {
            return Err(broken());
        }
        let mut name = vec![0; u16_at(&fixed, 28) as usize];
        exact(&mut self.entries, &mut name, broken)?;
        let mut extra = vec![0; u16_at(&fixed, 30) as usize];
        exact(&mut self.entries, &mut extra, broken)?;
        let mut comment = vec![0; u16_at(&fixed, 32) as usize];
        exact(&mut self.entries, &mut comment, broken)?;
        let mut compressed = u32_at(&fixed, 20);
        let mut size = u32_at(&fixed, 24);
        let mut header = u32_at(&fixed, 42);
        let mut fields = &extra[..];
        while fields.len() >= 4 {
            let length = u16_at(fields, 2) as usize;
            let Some(mut field) = fields.get(4..4 + length) else {
                break;
            };
            if u16_at(fields, 0) == 1 {
                for value in [&mut size, &mut compressed, &mut header] {
                    if *value == u64::from(u32::MAX) {
                        if field.len() < 8 {
                            return Err(broken());
                        }
                        *value = u64_at(field, 0);
                        field = &field[8..];
                    }
                }
            }
            fields = &fields[4 + length..];
        }
        let by_unix = fixed[5] == 3 || fixed[5] == 19;
        let mode = (u32_at(&fixed, 38) >> 16) as u32 & UNIX_TYPE;
        Ok(ZipMember {
            name: String::from_utf8_lossy(&name).into_owned(),
            regular: !by_unix || mode == 0 || mode == UNIX_REGULAR,
            flags: u16_at(&fixed, 8),
            method: u16_at(&fixed, 10),
            crc: u32_at(&fixed, 16) as u32,
            compressed,
            size,
            header: header.checked_add(self.base).ok_or_else(broken)?,
            directory: self.start,
        })
    }
}

/// There is no end record at the end: perhaps before it.
fn no_end(tail: &[u8], tail_start: u64) -> Error {
    let end = memchr::memmem::rfind_iter(tail, END)
        .filter(|&at| tail.len() - at >= END_BYTES as usize)
        .map(|at| at + END_BYTES as usize + u16_at(tail, at + 20) as usize)
        .find(|&end| end < tail.len());
    match end {
        Some(end) => {
            let (more, end) = (tail.len() - end, tail_start + end as u64);
            Error::input(format!(
                "the zip archive ends at byte {end}, and {more} bytes follow: something was appended, or it is damaged"
            ))
            .hint(format!("if the archive is whole without them, cut them off: `truncate -s {end} FILE`"))
        }
        None => damaged("the zip archive has no end record: it is truncated"),
    }
}

fn exact(input: &mut impl Read, to: &mut [u8], broken: impl Fn() -> Error) -> Result<()> {
    input.read_exact(to).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => broken(),
        _ => landed(error),
    })
}

impl ZipMember {
    /// Opens the member's content.
    ///
    /// # Errors
    /// The member is encrypted, compressed with an unsupported method, or lies outside the archive.
    pub fn open<'s>(
        &self,
        stored: &'s Stored,
        count: &ReadCount,
        meter: Meter,
    ) -> Result<Box<dyn BufRead + 's>> {
        if self.flags & 1 != 0 {
            return Err(Error::input("it is encrypted").hint("write the archive again without a password"));
        }
        let mut local = Vec::new();
        let outside = || {
            damaged(format!(
                "its {} bytes from byte {} on lie outside the archive",
                self.compressed, self.header
            ))
        };
        if self
            .header
            .checked_add(LOCAL_BYTES as u64)
            .is_none_or(|end| end > self.directory)
        {
            return Err(outside());
        }
        stored.exactly(self.header, LOCAL_BYTES, count, &mut local)?;
        if !local.starts_with(LOCAL) {
            return Err(damaged(format!(
                "there is no member at byte {} of the archive",
                self.header
            )));
        }
        let start = self.header + LOCAL_BYTES as u64 + u16_at(&local, 26) + u16_at(&local, 28);
        if start
            .checked_add(self.compressed)
            .is_none_or(|end| end > self.directory)
        {
            return Err(outside());
        }
        let section = stored.section(start, self.compressed, count);
        let bytes = BufReader::with_capacity(READ_BYTES, section);
        let content = match self.method {
            0 => compression::decode(Compression::None, bytes, meter),
            8 => compression::inflate(bytes, meter),
            12 => compression::decode(Compression::Bzip2, bytes, meter),
            93 => compression::decode(Compression::Zstd, bytes, meter),
            95 => compression::decode(Compression::Xz, bytes, meter),
            method => {
                let name = METHODS.iter().find(|(number, _)| *number == method);
                return Err(Error::input(format!(
                    "it is compressed with {}method {method}, which mdlm does not read",
                    name.map_or(String::new(), |(_, name)| format!("{name}, "))
                ))
                .hint("write the archive again with deflate, zstd, bzip2 or xz"));
            }
        };
        Ok(Box::new(CheckedContent {
            content,
            crc: flate2::Crc::new(),
            stated_crc: self.crc,
            size: self.size,
            read: 0,
        }))
    }
}

/// Content whose length and CRC-32 are checked at its end.
struct CheckedContent<'s> {
    content: Box<dyn BufRead + 's>,
    crc: flate2::Crc,
    stated_crc: u32,
    size: u64,
    read: u64,
}

impl Read for CheckedContent<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, to)
    }
}

impl BufRead for CheckedContent<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let left = self.size - self.read;
        let chunk = self.content.fill_buf()?;
        if chunk.len() as u64 > left || (chunk.is_empty() && left > 0) {
            return Err(carry(damaged(format!(
                "its content does not have the {} bytes that the archive states",
                self.size
            ))));
        }
        if chunk.is_empty() && self.crc.sum() != self.stated_crc {
            return Err(carry(damaged(format!(
                "its content is damaged: its CRC-32 is {:08x}, but the archive states {:08x}",
                self.crc.sum(),
                self.stated_crc
            ))));
        }
        // Borrowed anew: the first borrow would last to the end of the function.
        self.content.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Ok(chunk) = self.content.fill_buf() {
            self.crc.update(&chunk[..count.min(chunk.len())]);
        }
        self.content.consume(count);
        self.read += count as u64;
    }
}
