//! Repetition and definition levels, decoded one after the other: a row may have any number of values, so that a row, as
//! the crate `parquet` reads it, may be of any size. And the lengths of delta-encoded strings, which it makes room for as
//! they are stated.

use super::super::fault::damaged;
use super::thrift;
use crate::error::{Error, Result};

fn short() -> Error {
    damaged("its values end too early")
}

fn wrong() -> Error {
    damaged("its values are damaged")
}

fn varint(bytes: &[u8], at: &mut usize) -> Result<u64> {
    thrift::varint(bytes, at).map_err(|thrift::Wrong| wrong())
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

    /// How many of the next `count` are the highest: the values that are not null.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn put_varint(mut value: u64, to: &mut Vec<u8>) {
        while value > 0x7F {
            to.push(value as u8 | 0x80);
            value >>= 7;
        }
        to.push(value as u8);
    }

    /// Pieces of levels as the format has them: a run of one, or packed in groups of eight.
    #[derive(Clone, Debug)]
    enum Piece {
        Run(u64, u32),
        Packed(Vec<u32>),
    }

    fn encode(pieces: &[Piece], width: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Run(count, level) => {
                    put_varint(count << 1, &mut bytes);
                    bytes.push(*level as u8);
                }
                Piece::Packed(levels) => {
                    let groups = levels.len().div_ceil(8);
                    put_varint((groups as u64) << 1 | 1, &mut bytes);
                    let start = bytes.len();
                    bytes.resize(start + groups * width as usize, 0);
                    for (index, level) in levels.iter().enumerate() {
                        for bit in (0..width as usize).filter(|bit| level >> bit & 1 == 1) {
                            let at = index * width as usize + bit;
                            bytes[start + at / 8] |= 1 << (at % 8);
                        }
                    }
                }
            }
        }
        bytes
    }

    fn pieces(max: u32) -> impl Strategy<Value = Vec<Piece>> {
        let run = (1..100u64, 0..=max).prop_map(|(count, level)| Piece::Run(count, level));
        let groups = (1..4usize).prop_flat_map(move |groups| {
            proptest::collection::vec(0..=max, groups * 8).prop_map(Piece::Packed)
        });
        proptest::collection::vec(prop_oneof![run, groups], 1..6)
    }

    proptest! {
        #[test]
        fn levels_are_read_back((max, pieces) in (1..=200u32).prop_flat_map(|max| (Just(max), pieces(max)))) {
            let all: Vec<u32> = pieces
                .iter()
                .flat_map(|piece| match piece {
                    Piece::Run(count, level) => vec![*level; *count as usize],
                    Piece::Packed(levels) => levels.clone(),
                })
                .collect();
            let bytes = encode(&pieces, u32::BITS - max.leading_zeros());
            let mut levels = Levels::new(&bytes, max);
            for level in &all {
                prop_assert_eq!(levels.next().unwrap(), *level);
            }
            prop_assert!(levels.next().is_err());
            let highest = all.iter().filter(|level| **level == max).count();
            let count = |values| Levels::new(&bytes, max).highest(values);
            prop_assert_eq!(count(all.len() as u64).unwrap(), highest as u64);
            prop_assert!(count(all.len() as u64 + 1).is_err());
            // Cut off, they end in fewer levels and an error.
            let mut cut = Levels::new(&bytes[..bytes.len() - 1], max);
            prop_assert!(all.iter().any(|level| !matches!(cut.next(), Ok(found) if found == *level)));
        }

        #[test]
        fn any_bytes_end_in_levels_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40), max in 0..=255u32) {
            let mut levels = Levels::new(&bytes, max);
            prop_assert!((0..1000).map_while(|_| levels.next().ok()).all(|level| level <= max));
            let _ = Levels::new(&bytes, max).highest(u64::from(u32::MAX));
            if let Ok(end) = deltas(&bytes, u64::MAX) {
                prop_assert!(end <= bytes.len());
            }
        }
    }

    #[test]
    fn levels_that_are_absent_are_the_highest() {
        let mut levels = Levels::new(&[], 0);
        assert_eq!(levels.next().unwrap(), 0);
        assert_eq!(levels.highest(u64::MAX).unwrap(), u64::MAX);
        // A run of more than there can be is passed over at once.
        let mut run = Vec::new();
        put_varint(u64::MAX >> 1 << 1, &mut run);
        run.push(1);
        assert_eq!(Levels::new(&run, 1).highest(1 << 40).unwrap(), 1 << 40);
        let error = Levels::new(&[2, 3], 2).next().unwrap_err().to_string();
        assert_eq!(error, "a level of 3, the highest is 2");
    }

    /// Differences: blocks of 128 in 4 miniblocks of that many bits each, `count` numbers, and bytes of zeros.
    fn differences(count: u64, blocks: &[[u8; 4]], more: usize) -> Vec<u8> {
        let mut bytes = vec![0x80, 0x01, 4];
        put_varint(count, &mut bytes);
        bytes.push(0);
        for widths in blocks {
            bytes.push(0);
            bytes.extend(widths);
            bytes.resize(
                bytes.len() + widths.iter().map(|width| *width as usize * 4).sum::<usize>(),
                0,
            );
        }
        bytes.resize(bytes.len() + more, 0);
        bytes
    }

    #[test]
    fn deltas_are_as_many_as_stated_or_an_error() {
        for (count, blocks, more) in [
            (0, &[][..], 9),
            (1, &[], 0),
            (129, &[[1, 2, 3, 4]], 5),
            (130, &[[1, 2, 3, 4], [32, 0, 0, 0]], 0),
        ] {
            let bytes = differences(count, blocks, more);
            assert_eq!(deltas(&bytes, count).unwrap(), bytes.len() - more, "{count}");
            if count > 0 {
                assert!(deltas(&bytes, count - 1).is_err(), "{count}");
                assert!(
                    deltas(&bytes[..bytes.len() - more - 1], count).is_err(),
                    "{count}"
                );
            }
        }
        // Miniblocks of the last block without values have no bytes, whatever their width.
        let mut short = differences(33, &[[1, 0, 0, 0]], 0);
        let at = short.len() - 4 - 3;
        short[at..at + 3].fill(64);
        assert_eq!(deltas(&short, 33).unwrap(), short.len());
        // As many as the crate would make room for.
        assert!(deltas(&differences(1 << 25, &[[0; 4]], 100), 1 << 25).is_err());
        for head in [[0x80, 0x01, 0], [0x80, 0x01, 3], [0x20, 0, 4]] {
            assert!(deltas(&[&head[..], &[1, 0]].concat(), 1).is_err(), "{head:?}");
        }
    }
}
