//! Thrift's compact protocol, as far as a look at Parquet's footer needs it: every length is checked against the bytes
//! that are there, and nothing is allocated.

/// Structures within each other, at most; Parquet's have 6.
const DEEPEST: usize = 32;

/// Types of fields and elements.
pub mod kind {
    pub const TRUE: u8 = 1;
    pub const FALSE: u8 = 2;
    pub const BYTE: u8 = 3;
    pub const I16: u8 = 4;
    pub const I32: u8 = 5;
    pub const I64: u8 = 6;
    pub const DOUBLE: u8 = 7;
    pub const BINARY: u8 = 8;
    pub const LIST: u8 = 9;
    pub const SET: u8 = 10;
    pub const MAP: u8 = 11;
    pub const STRUCT: u8 = 12;
    pub const UUID: u8 = 13;
}

/// The bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong;

/// Reads values one after the other.
pub struct Compact<'b> {
    bytes: &'b [u8],
    at: usize,
}

type Result<T> = std::result::Result<T, Wrong>;

/// A number of seven bits a byte, from `at` on.
pub fn varint(bytes: &[u8], at: &mut usize) -> Result<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or(Wrong)?;
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Wrong)
}

impl<'b> Compact<'b> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or(Wrong)?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64> {
        varint(self.bytes, &mut self.at)
    }

    /// An integer of 16, 32 or 64 bits.
    pub fn integer(&mut self) -> Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A count or length: an integer that is not negative.
    pub fn count(&mut self) -> Result<u64> {
        u64::try_from(self.integer()?).map_err(|_| Wrong)
    }

    /// Bytes or text.
    pub fn binary(&mut self) -> Result<&'b [u8]> {
        let length = usize::try_from(self.varint()?).map_err(|_| Wrong)?;
        let end = self.at.checked_add(length).ok_or(Wrong)?;
        let bytes = self.bytes.get(self.at..end).ok_or(Wrong)?;
        self.at = end;
        Ok(bytes)
    }

    /// Type and count of a list's elements. Each takes at least one byte.
    pub fn list(&mut self) -> Result<(u8, usize)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => usize::try_from(self.varint()?).map_err(|_| Wrong)?,
            count => count.into(),
        };
        if count > self.bytes.len() - self.at {
            return Err(Wrong);
        }
        Ok((head & 0x0F, count))
    }

    /// Calls `field` with the number and type of every field of a structure; it reads the value or says that it did not.
    pub fn structure(&mut self, field: &mut dyn FnMut(&mut Self, i64, u8) -> Result<bool>) -> Result<()> {
        self.structure_at(DEEPEST, field)
    }

    fn structure_at(
        &mut self,
        depth: usize,
        field: &mut dyn FnMut(&mut Self, i64, u8) -> Result<bool>,
    ) -> Result<()> {
        let mut number = 0i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            number = match head >> 4 {
                0 => self.integer()?,
                step => number + i64::from(step),
            };
            if !(0..=i64::from(i16::MAX)).contains(&number) {
                return Err(Wrong);
            }
            let kind = head & 0x0F;
            if !field(self, number, kind)? {
                self.skip(kind, depth)?;
            }
        }
    }

    /// Passes over the value of a field.
    fn skip(&mut self, kind: u8, depth: usize) -> Result<()> {
        if depth == 0 {
            return Err(Wrong);
        }
        match kind {
            kind::TRUE | kind::FALSE => Ok(()),
            kind::BYTE => self.byte().map(drop),
            kind::I16 | kind::I32 | kind::I64 => self.varint().map(drop),
            kind::DOUBLE => self.pass(8),
            kind::UUID => self.pass(16),
            kind::BINARY => self.binary().map(drop),
            kind::STRUCT => self.structure_at(depth - 1, &mut |_, _, _| Ok(false)),
            kind::LIST | kind::SET => {
                let (kind, count) = self.list()?;
                (0..count).try_for_each(|_| self.skip_element(kind, depth - 1))
            }
            kind::MAP => {
                let count = usize::try_from(self.varint()?).map_err(|_| Wrong)?;
                if count == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                if count > self.bytes.len() - self.at {
                    return Err(Wrong);
                }
                (0..count).try_for_each(|_| {
                    self.skip_element(kinds >> 4, depth - 1)?;
                    self.skip_element(kinds & 0x0F, depth - 1)
                })
            }
            _ => Err(Wrong),
        }
    }

    /// Passes over an element, where a truth value takes a byte.
    fn skip_element(&mut self, kind: u8, depth: usize) -> Result<()> {
        match kind {
            kind::TRUE | kind::FALSE => self.byte().map(drop),
            kind => self.skip(kind, depth),
        }
    }

    fn pass(&mut self, count: usize) -> Result<()> {
        if count > self.bytes.len() - self.at {
            return Err(Wrong);
        }
        self.at += count;
        Ok(())
    }
}
