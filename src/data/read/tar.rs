//! tar, read from front to back: POSIX.1-1988 (ustar), POSIX.1-2001 (pax), GNU and the older form.
//!
//! Only regular files are read. Links, devices and sparse files are counted and passed over. An archive must have its
//! end mark (a block of zeros), so that one that is cut off is never taken for whole.
//!
//! The crate `tar` (0.4.46) is not used. It accepts archives without an end mark. It ends a pax record at its first line
//! feed, so that a value can forge a name or hide a size. Of a size above 2^64 it reads the low eight bytes. It holds names
//! and attributes of any length in memory. And it refuses sound archives: those with checksums of signed bytes, blank sizes
//! or sparse files whose map it cannot read.

use std::io::{self, BufRead, Read};

use super::archive::{MemberNames, check};
use super::fault::{carry, damaged, landed};
use super::read_buffered;
use crate::error::{Error, Result};
use crate::plural::counted;

const BLOCK: usize = 512;
/// Bytes of a long name or of a pax header, at most; names of files have 4,096 at most on Linux.
const LONGEST_EXTENSION: u64 = 1 << 20;

/// Whether a block is a header: of ustar or GNU by magic, older ones by their checksum.
pub fn is_header(block: &[u8]) -> bool {
    block.len() >= BLOCK && (block[257..262] == *b"ustar" || (block[0] != 0 && checksum(block)))
}

fn checksum(block: &[u8]) -> bool {
    let Some(stated) = octal(&block[148..156]) else {
        return false;
    };
    let field = |at: usize| (148..156).contains(&at);
    let bytes = || {
        block[..BLOCK]
            .iter()
            .enumerate()
            .map(|(at, &byte)| if field(at) { b' ' } else { byte })
    };
    let unsigned: u64 = bytes().map(u64::from).sum();
    // Some old writers summed signed bytes.
    let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
    stated == unsigned || i64::try_from(stated).is_ok_and(|stated| stated == signed)
}

/// A number in octal digits, with spaces or NULs around it.
fn octal(field: &[u8]) -> Option<u64> {
    let text = field.split(|&byte| byte == 0).next()?;
    let text = text.trim_ascii();
    if text.is_empty() {
        return Some(0);
    }
    text.iter().try_fold(0u64, |sum, &byte| match byte {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// A number in octal digits or, as GNU has it, in base 256.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] != 0x80 {
        return octal(field);
    }
    let (high, low) = field[1..].split_at(field.len() - 9);
    let low: [u8; 8] = low.try_into().ok()?;
    high.iter()
        .all(|&byte| byte == 0)
        .then(|| u64::from_be_bytes(low))
}

fn text(field: &[u8]) -> String {
    let end = memchr::memchr(0, field).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// What extension headers say of the member after them.
#[derive(Default)]
struct Extended {
    name: Option<String>,
    size: Option<u64>,
    sparse: bool,
}

/// A member of an archive.
pub enum TarMember<'m> {
    /// A regular file: its name and content.
    Regular(&'m str, &'m mut dyn BufRead),
    /// A link, a device, a sparse file.
    Other,
}

/// Calls `each` with every member but folders, and gives the names of the regular ones; `each` says whether the member
/// was meant.
///
/// # Errors
/// The archive is damaged or cut off, or a name leads out of it; and the errors of `each`.
pub fn members(
    input: &mut dyn BufRead,
    each: &mut dyn FnMut(TarMember<'_>) -> Result<bool>,
) -> Result<MemberNames> {
    let mut names = MemberNames::default();
    let mut at = 0u64;
    let mut extended = Extended::default();
    loop {
        let mut block = [0; BLOCK];
        let place = at;
        let read = fill(input, &mut block)?;
        at += read as u64;
        if read < BLOCK {
            return Err(cut_off(
                if read == 0 {
                    "before its end mark"
                } else {
                    "within a header"
                },
                place,
            ));
        }
        if block.iter().all(|&byte| byte == 0) {
            super::drain(input)?;
            return Ok(names);
        }
        if !checksum(&block) {
            return Err(damaged(format!(
                "the tar header at byte {place} of the archive is damaged: its checksum is wrong"
            )));
        }
        at += pass_sparse_map(input, &block, place)?;
        let kind = block[156];
        let size = number(&block[124..136]).ok_or_else(|| {
            damaged(format!(
                "the tar header at byte {place} of the archive has no valid size"
            ))
        })?;
        let extension = matches!(kind, b'L' | b'K' | b'x' | b'g');
        let size = if extension {
            size
        } else {
            extended.size.unwrap_or(size)
        };
        let mut content = MemberBytes {
            input: &mut *input,
            left: size,
            at: place,
        };
        if extension {
            if size > LONGEST_EXTENSION {
                return Err(damaged(format!(
                    "the tar header at byte {place} of the archive states a name or attributes of {size} bytes"
                )));
            }
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(landed)?;
            match kind {
                b'L' => extended.name = Some(text(&bytes)),
                b'x' => attributes(&bytes, &mut extended).ok_or_else(|| {
                    damaged(format!(
                        "the pax header at byte {place} of the archive is damaged"
                    ))
                })?,
                _ => {}
            }
        } else {
            let extended = std::mem::take(&mut extended);
            let name = extended.name.unwrap_or_else(|| ustar_name(&block));
            match kind {
                b'0' | 0 | b'7' if name.ends_with('/') => {}
                b'0' | 0 | b'7' if !extended.sparse => {
                    check(&name)?;
                    names.saw(&name);
                    if each(TarMember::Regular(&name, &mut content))? {
                        names.took();
                    }
                }
                b'5' => {}
                _ => {
                    each(TarMember::Other)?;
                }
            }
        }
        content.skip().map_err(landed)?;
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        let mut rest = MemberBytes {
            input: &mut *input,
            left: padding,
            at: place,
        };
        rest.skip().map_err(landed)?;
        at = at.saturating_add(size).saturating_add(padding);
    }
}

/// Passes over the blocks behind the header of a sparse file in which GNU continues its map, and gives their bytes: the
/// header's size does not count them.
fn pass_sparse_map(input: &mut dyn BufRead, header: &[u8; BLOCK], place: u64) -> Result<u64> {
    let mut bytes = 0;
    let mut continues = header[156] == b'S' && header[257..265] == *b"ustar  \0" && header[482] != 0;
    while continues {
        let mut block = [0; BLOCK];
        if fill(input, &mut block)? < BLOCK {
            return Err(cut_off("within the map of a sparse file", place));
        }
        bytes += BLOCK as u64;
        continues = block[504] != 0;
    }
    Ok(bytes)
}

fn ustar_name(block: &[u8; BLOCK]) -> String {
    let name = text(&block[..100]);
    let prefix = text(&block[345..500]);
    // GNU has other things where ustar has the prefix.
    if block[257..263] == *b"ustar\0" && !prefix.is_empty() {
        format!("{prefix}/{name}")
    } else {
        name
    }
}

/// Reads a pax header: records `LENGTH KEY=VALUE\n`.
fn attributes(mut bytes: &[u8], extended: &mut Extended) -> Option<()> {
    while !bytes.is_empty() {
        let space = memchr::memchr(b' ', bytes)?;
        let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
        let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = memchr::memchr(b'=', record)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => extended.name = Some(String::from_utf8_lossy(value).into_owned()),
            b"size" => extended.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            key if key.starts_with(b"GNU.sparse.") => extended.sparse = true,
            _ => {}
        }
        bytes = &bytes[length..];
    }
    Some(())
}

fn fill(input: &mut dyn BufRead, block: &mut [u8]) -> Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match input.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(landed(error)),
        }
    }
    Ok(filled)
}

fn cut_off(place: &str, at: u64) -> Error {
    damaged(format!("the tar archive ends {place}, at its byte {at}"))
}

/// The bytes of a member.
struct MemberBytes<'i> {
    input: &'i mut dyn BufRead,
    left: u64,
    /// Where its header stands.
    at: u64,
}

impl MemberBytes<'_> {
    fn skip(&mut self) -> io::Result<()> {
        while self.left > 0 {
            let count = self.fill_buf()?.len();
            self.consume(count);
        }
        Ok(())
    }
}

impl Read for MemberBytes<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, to)
    }
}

impl BufRead for MemberBytes<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let (left, at) = (self.left, self.at);
        let chunk = self.input.fill_buf()?;
        if chunk.is_empty() {
            return Err(carry(cut_off(
                &format!("{} before the end of a member", counted(left, "byte")),
                at,
            )));
        }
        let count = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        Ok(&chunk[..count])
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.left = self.left.saturating_sub(count as u64);
    }
}
