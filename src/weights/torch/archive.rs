//! The archive of `torch.save`: a zip whose records are stored as they are, read by place.
//!
//! `src/data/read/zip.rs` reads archives of text: member after member, decompressed, with all that zip programs write.
//! Here records are read in any order, again and in part, and a record that overlaps another one, or of whose name there are
//! two, would be a weight that differs from program to program: it is refused. Nothing is ever unpacked to a folder.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use super::{BRING_AGAIN, SAVE_AGAIN};
use crate::disk::open_file;
use crate::error::{Context as _, Error, Result};
use crate::plural::counted;

const LOCAL: &[u8] = b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;
const ENTRY: &[u8] = b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;
const END: &[u8] = b"PK\x05\x06";
const END_BYTES: usize = 22;
const END_64: &[u8] = b"PK\x06\x06";
const END_64_BYTES: usize = 56;
const LOCATOR: &[u8] = b"PK\x06\x07";
const LOCATOR_BYTES: usize = 20;

/// Flags of an entry: encrypted, in the three ways that there are.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;

/// Most records of an archive: one a tensor. A model of 100 billion parameters has some thousands.
const MOST_RECORDS: u64 = 1 << 17;

/// Longest central directory that is read, in bytes.
const LONGEST_DIRECTORY: u64 = 64 << 20;

/// Versions of PyTorch's file format that are read: those that PyTorch 2 reads.
const VERSIONS: Range<u64> = 1..11;

/// Bytes read at a time: a multiple of every element's width.
const BLOCK: usize = 1 << 16;

/// What an archive is read from.
pub trait ArchiveSource: Read + Seek + Send {}

impl<S: Read + Seek + Send> ArchiveSource for S {}

/// A file of `torch.save` whose directory has been read and checked.
pub struct TorchArchive {
    source: Box<dyn ArchiveSource>,
    /// The folder of all records in the archive.
    name: String,
    /// By name below the folder.
    records: BTreeMap<String, ArchiveRecord>,
}

/// Where the bytes of a record stand.
#[derive(Debug)]
struct ArchiveRecord {
    bytes: Range<u64>,
    crc: u32,
    /// Whether the bytes have had the CRC-32.
    is_checked: bool,
}

/// An entry of the central directory.
struct DirectoryEntry {
    /// With the folder.
    name: String,
    crc: u32,
    length: u64,
    /// Where its local header stands.
    header: u64,
}

impl std::fmt::Debug for TorchArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TorchArchive")
            .field("name", &self.name)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

impl TorchArchive {
    /// Opens a file.
    ///
    /// # Errors
    /// Input errors: no such file; an older or another format, by name; an archive that is damaged, whose records overlap, are
    /// compressed or encrypted, or whose numbers have their highest byte first.
    pub fn open(path: &Path) -> Result<Self> {
        Self::of(open_file(path)?)
    }

    /// Reads the directory of an archive.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn of(source: impl ArchiveSource + 'static) -> Result<Self> {
        let mut source: Box<dyn ArchiveSource> = Box::new(source);
        let length = source
            .seek(SeekFrom::End(0))
            .context(|| "ask for its length".to_owned())?;
        recognise(&mut *source, length)?;
        let (entries, directory) = read_directory(&mut *source, length)?;
        let name = folder(&entries)?;
        let mut records = BTreeMap::new();
        for (entry, bytes) in locate(&mut *source, entries, directory)? {
            let record = ArchiveRecord {
                bytes,
                crc: entry.crc,
                is_checked: false,
            };
            let below = entry.name[name.len() + 1..].to_owned();
            if records.insert(below, record).is_some() {
                return Err(damaged(format!("it has two records `{}`", entry.name)));
            }
        }
        let mut archive = Self {
            source,
            name,
            records,
        };
        archive.check_format()?;
        Ok(archive)
    }

    /// The folder of all records in the archive, which `torch.save` names after the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names of records below the folder and their lengths in bytes, in the order of names.
    pub fn records(&self) -> impl Iterator<Item = (&str, u64)> {
        self.records
            .iter()
            .map(|(name, record)| (&**name, record.bytes.end - record.bytes.start))
    }

    /// The length of a record in bytes.
    #[must_use]
    pub fn length(&self, record: &str) -> Option<u64> {
        let record = self.records.get(record)?;
        Some(record.bytes.end - record.bytes.start)
    }

    /// Reads a whole record of at most `most` bytes.
    ///
    /// # Errors
    /// No such record, a longer one, a wrong CRC-32, or the file cannot be read.
    pub fn whole(&mut self, record: &str, most: u64) -> Result<Vec<u8>> {
        let length = self.length(record).ok_or_else(|| self.missing(record))?;
        if length > most {
            return Err(Error::input(format!(
                "record `{record}` has {}, and {most} are read at most",
                counted(length, "byte")
            ))
            .hint("save the weights alone: `torch.save(model.state_dict(), FILE)`"));
        }
        let mut bytes = Vec::with_capacity(length as usize);
        self.read(record, 0..length, &mut |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Reads bytes of a record in parts, each but the last one a multiple of 8 bytes if the range begins at one. The first
    /// time, the whole record is read, so that its CRC-32 is checked: a wrong one is an error after the last part.
    ///
    /// # Errors
    /// No such record, a range beyond its end, a wrong CRC-32; the file cannot be read; the errors of `each`.
    pub fn read(
        &mut self,
        record: &str,
        range: Range<u64>,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let own = self
            .records
            .get_mut(record)
            .ok_or_else(|| Error::input(format!("it has no record `{record}`")))?;
        let length = own.bytes.end - own.bytes.start;
        if range.start > range.end || range.end > length {
            return Err(Error::input(format!(
                "bytes {} to {} are asked of record `{record}`, which has {length}",
                range.start, range.end
            ))
            .hint(BRING_AGAIN));
        }
        let (mut at, end) = if own.is_checked {
            (range.start, range.end)
        } else {
            (0, length)
        };
        let context = || format!("read record `{record}`");
        self.source
            .seek(SeekFrom::Start(own.bytes.start + at))
            .context(context)?;
        let mut crc = flate2::Crc::new();
        let mut block = vec![0; BLOCK.min((end - at) as usize)];
        while at < end {
            let part = &mut block[..BLOCK.min((end - at) as usize)];
            self.source.read_exact(part).context(context)?;
            if !own.is_checked {
                crc.update(part);
            }
            let wanted =
                range.start.clamp(at, at + part.len() as u64)..range.end.clamp(at, at + part.len() as u64);
            if !wanted.is_empty() {
                each(&part[(wanted.start - at) as usize..(wanted.end - at) as usize])?;
            }
            at += part.len() as u64;
        }
        if !own.is_checked && own.crc == 0 && crc.sum() != 0 {
            return Err(Error::input(format!(
                "record `{record}` has no CRC-32, so that damage would go unseen: the file was saved after \
                 `torch.serialization.set_crc32_options(False)`, or is damaged"
            ))
            .hint(SAVE_AGAIN));
        }
        if !own.is_checked && crc.sum() != own.crc {
            return Err(damaged(format!(
                "record `{record}` is damaged: its CRC-32 is {:08x}, and the archive states {:08x}",
                crc.sum(),
                own.crc
            )));
        }
        own.is_checked = true;
        Ok(())
    }

    fn missing(&self, record: &str) -> Error {
        let first: Vec<String> = self
            .records
            .keys()
            .take(5)
            .map(|name| format!("`{name}`"))
            .collect();
        Error::input(format!(
            "it has no record `{record}`; it has {}",
            first.join(", ")
        ))
        .hint("a file of `torch.save` has one; name such a file")
    }

    /// Refuses TorchScript, other archives, other orders of bytes and versions.
    fn check_format(&mut self) -> Result<()> {
        let is_code = |name: &str| name == "constants.pkl" || name.starts_with("code/");
        if let Some(name) = self.records.keys().find(|name| is_code(name)) {
            return Err(Error::input(format!(
                "it is a TorchScript archive, a program with its weights: it has a record `{name}`"
            ))
            .hint("save its weights: `torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)`"));
        }
        if !self.records.contains_key("data.pkl") {
            return Err(self.missing("data.pkl").context("not a file of `torch.save`"));
        }
        if self.records.contains_key("byteorder") {
            let order = self.whole("byteorder", 64)?;
            if order != b"little" {
                return Err(Error::input(format!(
                    "its numbers have the byte order `{}`, and `little` is read",
                    order.escape_ascii()
                ))
                .hint(SAVE_AGAIN));
            }
        }
        if self.records.contains_key("version") {
            let version = self.whole("version", 64)?;
            let number = std::str::from_utf8(&version)
                .ok()
                .and_then(|text| text.trim().parse().ok());
            if number.is_none_or(|number: u64| !VERSIONS.contains(&number)) {
                return Err(Error::input(format!(
                    "its format has version `{}`, and {} to {} are read",
                    version.escape_ascii(),
                    VERSIONS.start,
                    VERSIONS.end - 1
                ))
                .hint(SAVE_AGAIN));
            }
        }
        Ok(())
    }
}

fn damaged(message: impl Into<String>) -> Error {
    Error::input(message).hint(BRING_AGAIN)
}

/// Names files that do not begin as a zip archive does.
fn recognise(source: &mut dyn ArchiveSource, length: u64) -> Result<()> {
    let mut head = vec![0; 265.min(length as usize)];
    exactly(source, 0, &mut head)?;
    if head.starts_with(LOCAL) {
        return Ok(());
    }
    // The pickle of 0x1950a86a20f9469cfc6c, as protocol 2 and later write it.
    let magic = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    let begins_with_magic =
        head.first() == Some(&0x80) && memchr::memmem::find(&head[..head.len().min(32)], magic).is_some();
    let what = if head.is_empty() {
        return Err(damaged("it is empty"));
    } else if begins_with_magic {
        "it has the format of PyTorch before 1.6, several pickles in a row; only the zip format is supported"
    } else if head.get(257..262) == Some(b"ustar") {
        "it is a tar archive, the format of PyTorch before 0.2; only the zip format is supported"
    } else if head.starts_with(b"version https://git-lfs") {
        return Err(
            Error::input("it is a pointer of Git LFS, not the file that it stands for")
                .hint("fetch the file: `git lfs pull`"),
        );
    } else if matches!(head[..], [0x80, 2..=5, ..]) {
        return Err(
            Error::input("it is a pickle without an archive, as `pickle.dump` writes it; files of `torch.save` are read")
                .hint("load it in Python, if you trust its authors, and save its weights: `torch.save(weights, NEW_FILE)`"),
        );
    } else {
        let first = head[..head.len().min(8)].escape_ascii();
        return Err(
            Error::input(format!("not a file of `torch.save`: it begins with `{first}`"))
                .hint("a file of `torch.save` is a zip archive; name such a file, or a safetensors file"),
        );
    };
    Err(Error::input(what).hint(SAVE_AGAIN))
}

/// The entries of the central directory, and where it starts.
fn read_directory(source: &mut dyn ArchiveSource, length: u64) -> Result<(Vec<DirectoryEntry>, u64)> {
    let no_end =
        || damaged("the archive does not end with its end record: it is truncated, or bytes were appended");
    let end_at = length.checked_sub(END_BYTES as u64).ok_or_else(no_end)?;
    let mut end = [0; END_BYTES];
    exactly(source, end_at, &mut end)?;
    // A comment, which PyTorch does not write, could hold a second end record.
    if !end.starts_with(END) || u16_at(&end, 20) != 0 {
        return Err(no_end());
    }
    let mut disks = [u16_at(&end, 4).into(), u16_at(&end, 6).into()];
    let mut counts = [u16_at(&end, 8).into(), u16_at(&end, 10).into()];
    let mut size = u32_at(&end, 12).into();
    let mut start = u32_at(&end, 16).into();
    let mut directory_end = end_at;
    let mut locator = [0; LOCATOR_BYTES];
    if let Some(locator_at) = end_at.checked_sub(LOCATOR_BYTES as u64) {
        exactly(source, locator_at, &mut locator)?;
        if locator.starts_with(LOCATOR) {
            directory_end = u64_at(&locator, 8);
            let mut end_64 = [0; END_64_BYTES];
            if directory_end.checked_add(END_64_BYTES as u64) != Some(locator_at) {
                return Err(damaged(
                    "the archive's 64-bit end record is not before its locator",
                ));
            }
            exactly(source, directory_end, &mut end_64)?;
            if !end_64.starts_with(END_64) {
                return Err(damaged("the archive's 64-bit end record is damaged"));
            }
            disks = [u32_at(&end_64, 16), u32_at(&end_64, 20)];
            counts = [u64_at(&end_64, 24), u64_at(&end_64, 32)];
            size = u64_at(&end_64, 40);
            start = u64_at(&end_64, 48);
        }
    }
    if disks != [0, 0] || counts[0] != counts[1] {
        return Err(damaged("the archive is one of several parts"));
    }
    let count: u64 = counts[0];
    if u64::checked_add(start, size) != Some(directory_end) {
        return Err(damaged(format!(
            "the archive states a directory of {size} bytes from byte {start} on, and its end record is at byte {directory_end}"
        )));
    }
    if count > MOST_RECORDS || size > LONGEST_DIRECTORY || count.saturating_mul(ENTRY_BYTES as u64) > size {
        return Err(damaged(format!(
            "the archive states {} in a directory of {size} bytes; {MOST_RECORDS} records and {LONGEST_DIRECTORY} bytes are \
             read at most",
            counted(count, "record")
        )));
    }
    let mut directory = vec![0; size as usize];
    exactly(source, start, &mut directory)?;
    let mut rest = &directory[..];
    let mut entries = Vec::with_capacity(count as usize);
    for number in 1..=count {
        let broken = || damaged(format!("the archive's directory is damaged at record {number}"));
        let (entry, after) = read_entry(rest).ok_or_else(broken)?;
        entries.extend(entry?);
        rest = after;
    }
    if !rest.is_empty() {
        return Err(damaged(format!(
            "the archive's directory has {} after its last record",
            counted(rest.len(), "byte")
        )));
    }
    Ok((entries, start))
}

/// An entry and the bytes behind it; no entry for a folder. None where the bytes are no entry.
fn read_entry(bytes: &[u8]) -> Option<(Result<Option<DirectoryEntry>>, &[u8])> {
    let (fixed, rest) = bytes.split_at_checked(ENTRY_BYTES)?;
    if !fixed.starts_with(ENTRY) {
        return None;
    }
    let (name, rest) = rest.split_at_checked(u16_at(fixed, 28).into())?;
    let (mut extra, rest) = rest.split_at_checked(u16_at(fixed, 30).into())?;
    let (_, rest) = rest.split_at_checked(u16_at(fixed, 32).into())?;
    let [mut stored, mut length, mut header] = [20, 24, 42].map(|at| u64::from(u32_at(fixed, at)));
    while extra.len() >= 4 {
        let (mut field, after) = extra[4..].split_at_checked(u16_at(extra, 2).into())?;
        if u16_at(extra, 0) == 1 {
            for value in [&mut length, &mut stored, &mut header] {
                if *value == u64::from(u32::MAX) {
                    let (number, after) = field.split_first_chunk()?;
                    *value = u64::from_le_bytes(*number);
                    field = after;
                }
            }
        }
        extra = after;
    }
    let name = match std::str::from_utf8(name) {
        Ok(name) => name.to_owned(),
        Err(_) => {
            return Some((
                Err(bad_name(&String::from_utf8_lossy(name), "it is not UTF-8")),
                rest,
            ));
        }
    };
    let method = u16_at(fixed, 10);
    let is_safe = |part: &str| !matches!(part, "" | "." | "..");
    let path = name.strip_suffix('/').unwrap_or(&name);
    let has_drive = matches!(name.as_bytes(), [b'a'..=b'z' | b'A'..=b'Z', b':', b'/', ..]);
    let entry = if has_drive || !path.split('/').all(is_safe) || name.contains(['\\', '\0']) {
        Err(bad_name(&name, "it leads out of the archive"))
    } else if u16_at(fixed, 8) & ENCRYPTED != 0 {
        Err(Error::input(format!("record `{name}` is encrypted"))
            .hint("write the archive again without a password"))
    } else if method != 0 || stored != length {
        let how = match method {
            0 => "stored with two lengths".to_owned(),
            8 => "compressed with deflate".to_owned(),
            method => format!("compressed with method {method}"),
        };
        Err(Error::input(format!(
            "record `{name}` is {how}, and `torch.save` stores records as they are"
        ))
        .hint("the archive was packed again: unpack it and pack it with `zip -0 -r`, or save it again with `torch.save`"))
    } else if name.ends_with('/') {
        Ok(None)
    } else {
        Ok(Some(DirectoryEntry {
            name,
            crc: u32_at(fixed, 16),
            length,
            header,
        }))
    };
    Some((entry, rest))
}

fn bad_name(name: &str, why: &str) -> Error {
    let name: String = name.chars().take(200).collect();
    Error::input(format!(
        "the archive has a record named {name:?}, and {why}; nothing was unpacked"
    ))
    .hint("PyTorch writes no such name: the file is damaged or hostile, get it from its authors")
}

/// The folder that all records are in.
fn folder(entries: &[DirectoryEntry]) -> Result<String> {
    let top = |entry: &DirectoryEntry| entry.name.split_once('/').map(|(top, _)| top.to_owned());
    let no_folder = |entry: &DirectoryEntry| {
        Error::input(format!(
            "not a file of `torch.save`: its record `{}` is not in the folder of the others",
            entry.name
        ))
        .hint("a file of `torch.save` is a zip archive with one folder; name such a file")
    };
    let first = entries
        .first()
        .ok_or_else(|| damaged("the archive has no records"))?;
    let name = top(first).ok_or_else(|| no_folder(first))?;
    match entries.iter().find(|entry| top(entry).as_ref() != Some(&name)) {
        Some(other) => Err(no_folder(other)),
        None => Ok(name),
    }
}

/// Where the bytes of each record stand, by their local headers.
fn locate(
    source: &mut dyn ArchiveSource,
    mut entries: Vec<DirectoryEntry>,
    directory: u64,
) -> Result<Vec<(DirectoryEntry, Range<u64>)>> {
    entries.sort_by_key(|entry| entry.header);
    let mut located: Vec<(DirectoryEntry, Range<u64>)> = Vec::with_capacity(entries.len());
    for entry in entries {
        let before = located.last().map_or(0, |(_, bytes)| bytes.end);
        if entry.header < before {
            let other = located.last().map_or("", |(other, _)| &other.name);
            return Err(damaged(format!(
                "records `{other}` and `{}` overlap at byte {}",
                entry.name, entry.header
            )));
        }
        let outside = || {
            damaged(format!(
                "record `{}`, {} from byte {} on, lies outside of the archive",
                entry.name,
                counted(entry.length, "byte"),
                entry.header
            ))
        };
        let name_at = entry.header.checked_add(LOCAL_BYTES as u64).ok_or_else(outside)?;
        let name_end = name_at.checked_add(entry.name.len() as u64).ok_or_else(outside)?;
        if name_end > directory {
            return Err(outside());
        }
        let mut local = vec![0; LOCAL_BYTES + entry.name.len()];
        exactly(source, entry.header, &mut local)?;
        let has_name = usize::from(u16_at(&local, 26)) == entry.name.len()
            && local[LOCAL_BYTES..] == *entry.name.as_bytes();
        if !local.starts_with(LOCAL)
            || !has_name
            || u16_at(&local, 8) != 0
            || u16_at(&local, 6) & ENCRYPTED != 0
        {
            return Err(damaged(format!(
                "the directory has a record `{}` at byte {}, and its header there is another one",
                entry.name, entry.header
            )));
        }
        let start = name_end + u64::from(u16_at(&local, 28));
        let end = start
            .checked_add(entry.length)
            .filter(|&end| end <= directory)
            .ok_or_else(outside)?;
        located.push((entry, start..end));
    }
    Ok(located)
}

fn exactly(source: &mut dyn ArchiveSource, at: u64, to: &mut [u8]) -> Result<()> {
    source
        .seek(SeekFrom::Start(at))
        .and_then(|_| source.read_exact(to))
        .context(|| format!("read {} from byte {at} on", counted(to.len(), "byte")))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
