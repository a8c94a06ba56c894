//! Encodings of levels and values, decoded one after the other.

use super::super::fault::damaged;
use super::page::Data;
use crate::error::{Error, Result};

/// Parquet's numbers of encodings.
const PLAIN: i64 = 0;
const PLAIN_DICTIONARY: i64 = 2;
const DELTA_LENGTH_BYTE_ARRAY: i64 = 6;
const DELTA_BYTE_ARRAY: i64 = 7;
const RLE_DICTIONARY: i64 = 8;

fn short() -> Error {
    damaged("its values end too early")
}

fn wrong() -> Error {
    damaged("its values are damaged")
}

/// A number of seven bits a byte.
fn varint(bytes: &[u8], at: &mut usize) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or_else(short)?;
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(wrong())
}

/// The `width` (64 at most) bits from bit `bit` on.
fn bits(bytes: &[u8], bit: usize, width: u32) -> Option<u64> {
    let start = bit / 8;
    let shift = bit % 8;
    let end = (bit + width as usize).div_ceil(8);
    let bytes = bytes.get(start..end)?;
    let mut wide = [0; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    let value = u128::from_le_bytes(wide) >> shift;
    Some((value & ((1 << width) - 1)) as u64)
}

/// The hybrid of runs and packed bits.
struct Hybrid<'b> {
    bytes: &'b [u8],
    at: usize,
    width: u32,
    /// What is left of a run, and its value.
    run: u64,
    value: u32,
    /// What is left of packed values, and the bit where the next begins.
    packed: u64,
    bit: usize,
}

impl<'b> Hybrid<'b> {
    fn new(bytes: &'b [u8], width: u32) -> Self {
        Self {
            bytes,
            at: 0,
            width,
            run: 0,
            value: 0,
            packed: 0,
            bit: 0,
        }
    }

    fn next(&mut self) -> Result<u32> {
        loop {
            if self.run > 0 {
                self.run -= 1;
                return Ok(self.value);
            }
            if self.packed > 0 {
                self.packed -= 1;
                let value = bits(self.bytes, self.bit, self.width).ok_or_else(short)?;
                self.bit += self.width as usize;
                return Ok(value as u32);
            }
            let head = varint(self.bytes, &mut self.at)?;
            if head & 1 == 0 {
                let count = (self.width as usize).div_ceil(8);
                let bytes = self.bytes.get(self.at..self.at + count).ok_or_else(short)?;
                let mut wide = [0; 4];
                wide[..count].copy_from_slice(bytes);
                self.value = u32::from_le_bytes(wide);
                self.at += count;
                self.run = head >> 1;
            } else {
                let groups = head >> 1;
                let length = groups.saturating_mul(self.width.into());
                self.bit = self.at * 8;
                self.packed = groups.saturating_mul(8);
                // The last group may be cut off after the last value.
                let left = (self.bytes.len() - self.at) as u64;
                self.at += length.min(left) as usize;
            }
        }
    }
}

/// Repetition or definition levels; where the highest is 0, all are.
pub struct Levels<'b> {
    hybrid: Hybrid<'b>,
    max: u32,
}

impl<'b> Levels<'b> {
    /// Levels up to `max`.
    pub fn new(bytes: &'b [u8], max: u32) -> Self {
        Self {
            hybrid: Hybrid::new(bytes, u32::BITS - max.leading_zeros()),
            max,
        }
    }

    /// The next one.
    pub fn next(&mut self) -> Result<u32> {
        if self.max == 0 {
            return Ok(0);
        }
        let level = self.hybrid.next()?;
        if level > self.max {
            return Err(damaged(format!(
                "a level of {level}, the highest is {}",
                self.max
            )));
        }
        Ok(level)
    }
}

/// The strings that values refer to.
#[derive(Default)]
pub struct Dictionary {
    bytes: Vec<u8>,
    /// Where each begins and ends.
    bounds: Vec<(u32, u32)>,
}

impl Dictionary {
    /// Takes a page of `count` strings apart.
    ///
    /// # Errors
    /// There are fewer.
    pub fn new(bytes: Vec<u8>, count: u64) -> Result<Self> {
        // A string takes 4 bytes at least.
        if count > bytes.len() as u64 / 4 {
            return Err(damaged(format!(
                "a dictionary of {count} strings in {} bytes",
                bytes.len()
            )));
        }
        let mut bounds = Vec::with_capacity(count as usize);
        let mut at = 0;
        for _ in 0..count {
            let value = plain(&bytes, &mut at)?;
            bounds.push(((at - value.len()) as u32, at as u32));
        }
        Ok(Self { bytes, bounds })
    }

    fn get(&self, index: u32) -> Result<&[u8]> {
        let &(start, end) = self
            .bounds
            .get(index as usize)
            .ok_or_else(|| damaged(format!("string {index} of a dictionary of {}", self.bounds.len())))?;
        Ok(&self.bytes[start as usize..end as usize])
    }
}

/// A string after its length.
fn plain<'b>(bytes: &'b [u8], at: &mut usize) -> Result<&'b [u8]> {
    let rest = bytes.get(*at..).ok_or_else(short)?;
    let (length, rest) = rest.split_first_chunk().ok_or_else(short)?;
    let length = u32::from_le_bytes(*length) as usize;
    let value = rest.get(..length).ok_or_else(short)?;
    *at += 4 + length;
    Ok(value)
}

/// Integers as differences (`DELTA_BINARY_PACKED`).
struct Deltas<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Values of a miniblock, and miniblocks of a block.
    size: u64,
    count: u64,
    /// Values that are left.
    left: u64,
    last: i64,
    first: bool,
    min: i64,
    /// Where the widths of this block's miniblocks are that are left.
    widths: std::ops::Range<usize>,
    width: u32,
    bit: usize,
    /// Values that are left of this miniblock.
    mini: u64,
}

impl<'b> Deltas<'b> {
    /// Begins at `start`; there are `most` values at most.
    fn new(bytes: &'b [u8], start: usize, most: u64) -> Result<Self> {
        let mut at = start;
        let block = varint(bytes, &mut at)?;
        let count = varint(bytes, &mut at)?;
        let left = varint(bytes, &mut at)?;
        let last = zigzag(varint(bytes, &mut at)?);
        // The format has blocks of a multiple of 128 values, in miniblocks of a multiple of 32.
        let size = block.checked_div(count).ok_or_else(wrong)?;
        if size == 0 || size % 32 != 0 || block % count != 0 || block > u64::from(u32::MAX) || left > most {
            return Err(wrong());
        }
        Ok(Self {
            bytes,
            at,
            size,
            count,
            left,
            last,
            first: true,
            min: 0,
            widths: 0..0,
            width: 0,
            bit: 0,
            mini: 0,
        })
    }

    /// Goes to the next miniblock.
    fn miniblock(&mut self) -> Result<()> {
        if self.widths.is_empty() {
            self.min = zigzag(varint(self.bytes, &mut self.at)?);
            let end = self.at.checked_add(self.count as usize).ok_or_else(wrong)?;
            if end > self.bytes.len() {
                return Err(short());
            }
            self.widths = self.at..end;
            self.at = end;
        }
        let width = self.widths.next().ok_or_else(wrong)?;
        self.width = self.bytes[width].into();
        if self.width > 64 {
            return Err(wrong());
        }
        self.bit = self.at * 8;
        self.mini = self.size;
        let length = (self.size / 8).saturating_mul(self.width.into());
        self.at = self.at.saturating_add(length as usize);
        Ok(())
    }

    fn next(&mut self) -> Result<i64> {
        self.left = self.left.checked_sub(1).ok_or_else(short)?;
        if std::mem::take(&mut self.first) {
            return Ok(self.last);
        }
        if self.mini == 0 {
            self.miniblock()?;
        }
        self.mini -= 1;
        let delta = bits(self.bytes, self.bit, self.width).ok_or_else(short)?;
        self.bit += self.width as usize;
        self.last = self.last.wrapping_add(self.min).wrapping_add(delta as i64);
        Ok(self.last)
    }

    fn length(&mut self) -> Result<usize> {
        usize::try_from(self.next()?).map_err(|_| wrong())
    }

    /// Where the values end.
    fn end(mut self) -> Result<usize> {
        self.left = self.left.saturating_sub(u64::from(self.first));
        while self.left > 0 {
            if self.mini == 0 {
                self.miniblock()?;
            }
            self.left -= self.left.min(self.mini);
            self.mini = 0;
        }
        // The miniblocks of the last block that have no values have no bytes either.
        if self.at > self.bytes.len() {
            return Err(short());
        }
        Ok(self.at)
    }
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The strings of a page.
pub struct Values<'b> {
    bytes: &'b [u8],
    at: usize,
    coding: Coding<'b>,
}

enum Coding<'b> {
    Plain,
    Dictionary(Hybrid<'b>, &'b Dictionary),
    Lengths(Deltas<'b>),
    Prefixes {
        prefixes: Deltas<'b>,
        lengths: Deltas<'b>,
        last: Vec<u8>,
        longest: usize,
    },
}

impl<'b> Values<'b> {
    /// The values of a page; one that is put together is `longest` bytes at most.
    ///
    /// # Errors
    /// The page is damaged.
    pub fn new(page: &'b Data, dictionary: &'b Dictionary, longest: usize) -> Result<Self> {
        let bytes = page.content();
        let most = page.values;
        let mut at = 0;
        let coding = match page.encoding {
            // A page of nulls has no values, and some writers leave out what says how they are written.
            _ if bytes.is_empty() => Coding::Plain,
            PLAIN => Coding::Plain,
            PLAIN_DICTIONARY | RLE_DICTIONARY => {
                let width = u32::from(bytes[0]);
                if width > 32 {
                    return Err(wrong());
                }
                Coding::Dictionary(Hybrid::new(&bytes[1..], width), dictionary)
            }
            DELTA_LENGTH_BYTE_ARRAY => {
                at = Deltas::new(bytes, 0, most)?.end()?;
                Coding::Lengths(Deltas::new(bytes, 0, most)?)
            }
            DELTA_BYTE_ARRAY => {
                let lengths = Deltas::new(bytes, 0, most)?.end()?;
                at = Deltas::new(bytes, lengths, most)?.end()?;
                Coding::Prefixes {
                    prefixes: Deltas::new(bytes, 0, most)?,
                    lengths: Deltas::new(bytes, lengths, most)?,
                    last: Vec::new(),
                    longest,
                }
            }
            encoding => return Err(damaged(format!("strings of the encoding {encoding}"))),
        };
        Ok(Self { bytes, at, coding })
    }

    /// The next value.
    ///
    /// # Errors
    /// There is none; it is damaged.
    pub fn next(&mut self) -> Result<&[u8]> {
        match &mut self.coding {
            Coding::Plain => plain(self.bytes, &mut self.at),
            Coding::Dictionary(indices, dictionary) => {
                let index = indices.next()?;
                dictionary.get(index)
            }
            Coding::Lengths(lengths) => {
                let length = lengths.length()?;
                take(self.bytes, &mut self.at, length)
            }
            Coding::Prefixes {
                prefixes,
                lengths,
                last,
                longest,
            } => {
                let prefix = prefixes.length()?;
                let length = lengths.length()?;
                if prefix > last.len() {
                    return Err(wrong());
                }
                let suffix = take(self.bytes, &mut self.at, length)?;
                if prefix + suffix.len() > *longest {
                    return Err(damaged(format!(
                        "a string of {} bytes, {longest} are the limit of a record",
                        prefix + suffix.len()
                    )));
                }
                last.truncate(prefix);
                last.extend_from_slice(suffix);
                Ok(last)
            }
        }
    }
}

fn take<'b>(bytes: &'b [u8], at: &mut usize, length: usize) -> Result<&'b [u8]> {
    let end = at.checked_add(length).ok_or_else(short)?;
    let value = bytes.get(*at..end).ok_or_else(short)?;
    *at = end;
    Ok(value)
}
