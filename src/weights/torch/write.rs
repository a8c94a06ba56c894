//! Files that `torch.load(weights_only=True)` reads, written as a stream.
//!
//! The pickle is of protocol 2 and names nothing but `collections.OrderedDict`, `torch._utils._rebuild_tensor_v2` and classes
//! of storages. Each tensor has its own storage, which begins at a multiple of 64 bytes as those of `torch.save` do, so that
//! `torch.load(mmap=True)` maps it. The same values give the same bytes.

use std::path::Path;

use super::dtype::TorchDtype;
use crate::disk::NewFile;
use crate::error::{Error, Result};

/// The folder of all records; `torch.save` of a stream has this one.
const FOLDER: &str = "archive";

/// Storages begin at a multiple of it, as those of PyTorch do.
const ALIGNMENT: u64 = 64;

/// The version of the format, PyTorch's for files without code.
const VERSION: &[u8] = b"3\n";

/// From this value on a number of 32 bits is written in 64.
const LIMIT: u64 = u32::MAX as u64;

/// Names are in UTF-8, and sizes follow the bytes: what PyTorch's own writer sets.
const FLAGS: u16 = 1 << 11 | 1 << 3;

/// The date of all entries, the first that zip has: 1980-01-01.
const DATE: u16 = 1 << 5 | 1;

/// Values converted to bytes at a time.
const BLOCK: usize = 1 << 14;

/// A value to write.
#[derive(Clone, Debug, PartialEq)]
pub enum TorchItem {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A `str`.
    Text(String),
    /// A `list`.
    List(Vec<Self>),
    /// A `tuple`.
    Tuple(Vec<Self>),
    /// A `dict`; the keys differ.
    Dict(Vec<(Self, Self)>),
    /// A `collections.OrderedDict`; the keys differ.
    OrderedDict(Vec<(Self, Self)>),
    /// A tensor, whose elements follow in the order of its rows.
    Tensor(TorchDtype, Vec<usize>),
}

impl TorchItem {
    /// An item of a dict whose key is a text.
    #[must_use]
    pub fn named(name: &str, item: Self) -> (Self, Self) {
        (Self::Text(name.to_owned()), item)
    }
}

/// Types and lengths in bytes of storages.
type Storages = Vec<(TorchDtype, u64)>;

/// A file that is being written: its tensors are appended in the order in which the value holds them.
#[derive(Debug)]
pub struct TorchWriter {
    file: NewFile,
    /// Bytes written so far.
    at: u64,
    storages: Storages,
    /// The storage whose bytes come next.
    current: usize,
    /// Bytes that it lacks.
    missing: u64,
    entries: Vec<WrittenRecord>,
    crc: flate2::Crc,
    /// From this value on lengths and places are written in 64 bits.
    limit: u64,
}

/// A record of which the directory will have an entry.
#[derive(Debug)]
struct WrittenRecord {
    name: String,
    header: u64,
    length: u64,
    crc: u32,
}

impl TorchWriter {
    /// Starts a file with this value.
    ///
    /// # Errors
    /// The environment's, such as a folder that is missing or not writable; internal: the value is longer than a pickle that
    /// is read.
    pub fn create(path: &Path, item: &TorchItem) -> Result<Self> {
        Self::with_limit(path, item, LIMIT)
    }

    /// [`create`](Self::create) with another limit of numbers in 32 bits, for tests of the format of long files.
    pub(super) fn with_limit(path: &Path, item: &TorchItem, limit: u64) -> Result<Self> {
        let (pickle, storages) = pickle(item)?;
        let mut writer = Self {
            file: NewFile::create(path)?,
            at: 0,
            storages,
            current: 0,
            missing: 0,
            entries: Vec::new(),
            crc: flate2::Crc::new(),
            limit,
        };
        writer.record("data.pkl", &pickle)?;
        writer.record("byteorder", b"little")?;
        writer.next_storage()?;
        Ok(writer)
    }

    /// Appends elements of tensors of type [`TorchDtype::F32`], over the ends of tensors.
    ///
    /// # Errors
    /// The environment's, such as a full disk; internal errors: more elements than the tensors have, a tensor of another type,
    /// or one of which [`append_bytes`](Self::append_bytes) wrote a part of an element.
    pub fn append(&mut self, mut values: &[f32]) -> Result<()> {
        let mut buffer = Vec::with_capacity(4 * BLOCK.min(values.len()));
        while !values.is_empty() {
            match self.storages.get(self.current) {
                Some((TorchDtype::F32, _)) if self.missing.is_multiple_of(4) => {}
                other => {
                    return Err(Error::internal(format!(
                        "f32 values for {other:?}, tensor {} of the file, which lacks {} bytes",
                        self.current, self.missing
                    )));
                }
            }
            let count = values.len().min(BLOCK).min((self.missing / 4) as usize);
            let (block, rest) = values.split_at(count);
            buffer.clear();
            buffer.extend(block.iter().flat_map(|value| value.to_le_bytes()));
            self.append_bytes(&buffer)?;
            values = rest;
        }
        Ok(())
    }

    /// Appends the bytes of elements, lowest byte first, over the ends of tensors.
    ///
    /// # Errors
    /// The environment's, such as a full disk; an internal error when more comes than the tensors have.
    pub fn append_bytes(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.current == self.storages.len() {
                return Err(Error::internal("more values than the tensors have"));
            }
            let count = bytes
                .len()
                .min(usize::try_from(self.missing).unwrap_or(usize::MAX));
            let (part, rest) = bytes.split_at(count);
            self.put(part)?;
            self.crc.update(part);
            self.missing -= count as u64;
            bytes = rest;
            if self.missing == 0 {
                self.end_record()?;
                self.current += 1;
                self.next_storage()?;
            }
        }
        Ok(())
    }

    /// Writes the directory, makes the file durable and moves it to its place, replacing an existing file in one step.
    ///
    /// # Errors
    /// The environment's; an internal error when values are missing.
    pub fn finish(mut self) -> Result<()> {
        if self.current < self.storages.len() {
            return Err(Error::internal(format!(
                "{} bytes of tensor {} of {} are missing",
                self.missing,
                self.current,
                self.storages.len()
            )));
        }
        self.record("version", VERSION)?;
        self.directory()?;
        self.file.finish()
    }

    /// Begins the next storage that has bytes; those without are written.
    fn next_storage(&mut self) -> Result<()> {
        while let Some(&(_, length)) = self.storages.get(self.current) {
            let name = format!("data/{}", self.current);
            if length > 0 {
                self.missing = length;
                return self.begin_record(&name, length);
            }
            self.record(&name, &[])?;
            self.current += 1;
        }
        Ok(())
    }

    fn record(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        self.begin_record(name, bytes.len() as u64)?;
        self.put(bytes)?;
        self.crc.update(bytes);
        self.end_record()
    }

    /// Writes the local header of a record, so that its bytes begin at a multiple of the alignment.
    fn begin_record(&mut self, name: &str, length: u64) -> Result<()> {
        let name = format!("{FOLDER}/{name}");
        let header = self.at;
        let is_long = length >= self.limit;
        // Lengths follow the bytes: here they are zero, or that of the field for long ones.
        let short = if is_long { u32::MAX } else { 0 };
        let mut extra = Vec::new();
        if is_long {
            extra.extend([1_u16.to_le_bytes(), 16_u16.to_le_bytes()].concat());
            extra.extend([0; 16]);
        }
        let end = header + 30 + name.len() as u64 + extra.len() as u64 + 4;
        let padding = (end.next_multiple_of(ALIGNMENT) - end) as usize;
        // PyTorch's field for padding: `FB`.
        extra.extend(b"FB");
        extra.extend((padding as u16).to_le_bytes());
        extra.resize(extra.len() + padding, b'Z');
        let mut bytes = Vec::new();
        bytes.extend(b"PK\x03\x04");
        for number in [if is_long { 45 } else { 20 }, FLAGS, 0, 0, DATE] {
            bytes.extend(u16::to_le_bytes(number));
        }
        for number in [0, short, short] {
            bytes.extend(u32::to_le_bytes(number));
        }
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend((extra.len() as u16).to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(extra);
        self.put(&bytes)?;
        self.crc.reset();
        self.entries.push(WrittenRecord {
            name,
            header,
            length,
            crc: 0,
        });
        Ok(())
    }

    /// Writes CRC-32 and length behind the bytes of a record.
    fn end_record(&mut self) -> Result<()> {
        let crc = self.crc.sum();
        let Some(entry) = self.entries.last_mut() else {
            return Err(Error::internal("a record ends before it begins"));
        };
        entry.crc = crc;
        let length = entry.length;
        let mut bytes = Vec::new();
        bytes.extend(b"PK\x07\x08");
        bytes.extend(crc.to_le_bytes());
        for _ in 0..2 {
            if length >= self.limit {
                bytes.extend(length.to_le_bytes());
            } else {
                bytes.extend((length as u32).to_le_bytes());
            }
        }
        self.put(&bytes)
    }

    /// Writes the central directory and the end records.
    fn directory(&mut self) -> Result<()> {
        let start = self.at;
        let mut bytes = Vec::new();
        for entry in &self.entries {
            // In this order; those that need no 64 bits are left out.
            let mut long = Vec::new();
            let mut short = |value: u64, times: usize| {
                if value < self.limit {
                    return value as u32;
                }
                (0..times).for_each(|_| long.extend(value.to_le_bytes()));
                u32::MAX
            };
            let length = short(entry.length, 2);
            let header = short(entry.header, 1);
            let extra = if long.is_empty() { 0 } else { 4 + long.len() as u16 };
            let version = if long.is_empty() { 20 } else { 45 };
            bytes.extend(b"PK\x01\x02");
            for number in [version, version, FLAGS, 0, 0, DATE] {
                bytes.extend(u16::to_le_bytes(number));
            }
            for number in [entry.crc, length, length] {
                bytes.extend(number.to_le_bytes());
            }
            for number in [entry.name.len() as u16, extra, 0, 0, 0, 0, 0] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(header.to_le_bytes());
            bytes.extend(entry.name.as_bytes());
            if extra > 0 {
                bytes.extend(1_u16.to_le_bytes());
                bytes.extend((extra - 4).to_le_bytes());
                bytes.extend(long);
            }
        }
        let (count, size) = (self.entries.len() as u64, bytes.len() as u64);
        let end = start + size;
        let is_long = end >= self.limit || count >= u64::from(u16::MAX).min(self.limit);
        if is_long {
            bytes.extend(b"PK\x06\x06");
            bytes.extend(44_u64.to_le_bytes());
            bytes.extend([45_u16.to_le_bytes(), 45_u16.to_le_bytes()].concat());
            bytes.extend([0; 8]);
            for number in [count, count, size, start] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.extend(b"PK\x06\x07");
            bytes.extend([0; 4]);
            bytes.extend(end.to_le_bytes());
            bytes.extend(1_u32.to_le_bytes());
        }
        let count = if is_long { u16::MAX } else { count as u16 };
        let short = |value: u64| if is_long { u32::MAX } else { value as u32 };
        bytes.extend(b"PK\x05\x06");
        bytes.extend([0; 4]);
        bytes.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
        bytes.extend(short(size).to_le_bytes());
        bytes.extend(short(start).to_le_bytes());
        bytes.extend([0; 2]);
        self.put(&bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.at += bytes.len() as u64;
        self.file.append(bytes)
    }
}

/// A pickle of protocol 2, and the types and lengths in bytes of its storages.
fn pickle(item: &TorchItem) -> Result<(Vec<u8>, Storages)> {
    /// What remains to be written.
    enum Rest<'i> {
        Item(&'i TorchItem),
        Opcode(u8),
    }
    let mut bytes = vec![0x80, 2];
    let mut storages = Storages::new();
    let mut open = vec![Rest::Item(item), Rest::Opcode(b'.')];
    open.reverse();
    while let Some(rest) = open.pop() {
        let start = open.len();
        match rest {
            Rest::Opcode(opcode) => bytes.push(opcode),
            Rest::Item(TorchItem::None) => bytes.push(b'N'),
            Rest::Item(TorchItem::Bool(value)) => bytes.push(if *value { 0x88 } else { 0x89 }),
            Rest::Item(TorchItem::Int(number)) => integer(*number, &mut bytes),
            Rest::Item(TorchItem::Float(number)) => {
                bytes.push(b'G');
                bytes.extend(number.to_be_bytes());
            }
            Rest::Item(TorchItem::Text(string)) => text(string, &mut bytes)?,
            Rest::Item(TorchItem::List(items)) => {
                bytes.extend(b"](");
                open.extend(items.iter().map(Rest::Item));
                open.push(Rest::Opcode(b'e'));
            }
            Rest::Item(TorchItem::Tuple(items)) => {
                bytes.push(b'(');
                open.extend(items.iter().map(Rest::Item));
                open.push(Rest::Opcode(b't'));
            }
            Rest::Item(TorchItem::Dict(entries) | TorchItem::OrderedDict(entries)) => {
                if matches!(rest, Rest::Item(TorchItem::Dict(_))) {
                    bytes.push(b'}');
                } else {
                    bytes.extend(b"ccollections\nOrderedDict\n)R");
                }
                bytes.push(b'(');
                open.extend(
                    entries
                        .iter()
                        .flat_map(|(key, value)| [Rest::Item(key), Rest::Item(value)]),
                );
                open.push(Rest::Opcode(b'u'));
            }
            Rest::Item(TorchItem::Tensor(dtype, dims)) => {
                let elements = dims
                    .iter()
                    .try_fold(1_usize, |count, &dim| count.checked_mul(dim));
                let length = elements.and_then(|count| count.checked_mul(dtype.width()));
                let (Some(elements), Some(length)) = (elements, length) else {
                    return Err(Error::internal(format!("a tensor of dimensions {dims:?}")));
                };
                tensor(*dtype, dims, elements, storages.len(), &mut bytes)?;
                storages.push((*dtype, length as u64));
            }
        }
        open[start..].reverse();
    }
    Ok((bytes, storages))
}

/// The call that makes a tensor: `_rebuild_tensor_v2(storage, 0, dims, strides, False, OrderedDict())`.
fn tensor(dtype: TorchDtype, dims: &[usize], elements: usize, key: usize, bytes: &mut Vec<u8>) -> Result<()> {
    bytes.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text("storage", bytes)?;
    bytes.extend(format!("ctorch\n{}\n", dtype.storage_class()).bytes());
    text(&key.to_string(), bytes)?;
    text("cpu", bytes)?;
    integer(elements as i64, bytes);
    bytes.extend(b"tQK\0(");
    for &dim in dims {
        integer(dim as i64, bytes);
    }
    bytes.extend(b"t(");
    let stride = |axis: usize| dims[axis + 1..].iter().map(|&dim| dim.max(1)).product::<usize>();
    for axis in 0..dims.len() {
        integer(stride(axis) as i64, bytes);
    }
    bytes.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
    Ok(())
}

fn integer(number: i64, bytes: &mut Vec<u8>) {
    if let Ok(number) = u8::try_from(number) {
        bytes.extend([b'K', number]);
    } else if let Ok(number) = u16::try_from(number) {
        bytes.push(b'M');
        bytes.extend(number.to_le_bytes());
    } else if let Ok(number) = i32::try_from(number) {
        bytes.push(b'J');
        bytes.extend(number.to_le_bytes());
    } else {
        bytes.extend([0x8A, 8]);
        bytes.extend(number.to_le_bytes());
    }
}

fn text(text: &str, bytes: &mut Vec<u8>) -> Result<()> {
    let length = u32::try_from(text.len()).map_err(|_| Error::internal("a text of 4 GiB"))?;
    bytes.push(b'X');
    bytes.extend(length.to_le_bytes());
    bytes.extend(text.bytes());
    Ok(())
}
