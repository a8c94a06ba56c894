//! Repetition and definition levels, decoded one after the other: a row may have any number of values, so that a row, as
//! the crate `parquet` reads it, may be of any size. And the lengths of delta-encoded strings, which it makes room for as
//! they are stated.

use super::super::fault::damaged;
use crate::error::{Error, Result};

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

/// Levels in the hybrid of runs and packed bits; where the highest is 0, all are.
pub struct Levels<'b> {
    bytes: &'b [u8],
    at: usize,
    max: u32,
    width: u32,
    /// What is left of a run, and its level.
    run: u64,
    level: u32,
    /// What is left of packed levels, and the bit where the next begins.
    packed: u64,
    bit: usize,
}

impl<'b> Levels<'b> {
    /// Levels up to `max`.
    pub fn new(bytes: &'b [u8], max: u32) -> Self {
        Self {
            bytes,
            at: 0,
            max,
            width: u32::BITS - max.leading_zeros(),
            run: 0,
            level: 0,
            packed: 0,
            bit: 0,
        }
    }

    /// The next one.
    pub fn next(&mut self) -> Result<u32> {
        if self.max == 0 {
            return Ok(0);
        }
        let level = loop {
            if self.run > 0 {
                self.run -= 1;
                break self.level;
            }
            if self.packed > 0 {
                self.packed -= 1;
                // A level has 8 bits at most: lists and structures are not nested deeper than that.
                let (byte, shift) = (self.bit / 8, self.bit % 8);
                let low = *self.bytes.get(byte).ok_or_else(short)?;
                let high = self.bytes.get(byte + 1).copied();
                if high.is_none() && shift + self.width as usize > 8 {
                    return Err(short());
                }
                let wide = u32::from(low) | u32::from(high.unwrap_or(0)) << 8;
                self.bit += self.width as usize;
                break (wide >> shift) & ((1 << self.width) - 1);
            }
            self.begin()?;
        };
        if level > self.max {
            return Err(damaged(format!(
                "a level of {level}, the highest is {}",
                self.max
            )));
        }
        Ok(level)
    }

    /// Begins a run, or packed levels.
    fn begin(&mut self) -> Result<()> {
        let head = varint(self.bytes, &mut self.at)?;
        if head & 1 == 0 {
            self.level = (*self.bytes.get(self.at).ok_or_else(short)?).into();
            self.at += 1;
            self.run = head >> 1;
        } else {
            let groups = head >> 1;
            self.bit = self.at * 8;
            self.packed = groups.saturating_mul(8);
            // The last group may be cut off after the last level.
            let left = (self.bytes.len() - self.at) as u64;
            self.at += groups.saturating_mul(self.width.into()).min(left) as usize;
        }
        Ok(())
    }

    /// How many of the next `count` are the highest: the values that are no null.
    pub fn highest(mut self, count: u64) -> Result<u64> {
        if self.max == 0 {
            return Ok(count);
        }
        let (mut left, mut highest) = (count, 0);
        while left > 0 {
            let level = self.next()?;
            // A run at once.
            let more = self.run.min(left - 1);
            self.run -= more;
            left -= more + 1;
            highest += if level == self.max { more + 1 } else { 0 };
        }
        Ok(highest)
    }
}

/// Checks integers that are written as differences (`DELTA_BINARY_PACKED`): no more than `most` are stated, and their
/// bytes are there. Gives where they end.
pub fn deltas(bytes: &[u8], most: u64) -> Result<usize> {
    let mut at = 0;
    let block = varint(bytes, &mut at)?;
    let count = varint(bytes, &mut at)?;
    let stated = varint(bytes, &mut at)?;
    varint(bytes, &mut at)?;
    // The format has blocks of a multiple of 128 values, in miniblocks of a multiple of 32.
    let size = block.checked_div(count).ok_or_else(wrong)?;
    if size == 0 || size % 32 != 0 || block % count != 0 || block > u64::from(u32::MAX) || stated > most {
        return Err(wrong());
    }
    let mut left = stated.saturating_sub(1);
    while left > 0 {
        varint(bytes, &mut at)?;
        let end = at.checked_add(count as usize).ok_or_else(wrong)?;
        let widths = bytes.get(at..end).ok_or_else(short)?;
        at = end;
        for &width in widths {
            // The miniblocks of the last block that have no values have no bytes either.
            if left == 0 {
                break;
            }
            at = at
                .checked_add((u64::from(width) * size / 8) as usize)
                .ok_or_else(wrong)?;
            left -= left.min(size);
        }
        if at > bytes.len() {
            return Err(short());
        }
    }
    Ok(at)
}
