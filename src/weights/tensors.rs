//! Safetensors files: tensors by name, read by place and written as a stream, neither ever whole in memory.
//!
//! The header is parsed and checked by the `safetensors` crate. The data is read with positioned reads rather than
//! mapped: a checkpoint is a file that a user names, and one that is truncated while it is mapped would kill the
//! process where a read returns an error.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::fitting::NamedTensor;
use crate::disk::{NewFile, open_file};
use crate::error::{Context as _, Error, Result};

/// Longest header that is read: the safetensors library's own limit.
const LONGEST_HEADER: u64 = 100_000_000;

/// Bytes of the header's length.
const LENGTH_BYTES: u64 = 8;

/// Bytes converted at a time.
const BLOCK: usize = 1 << 16;

/// An open safetensors file whose header has been read and checked against the file's length.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: File,
    header: Metadata,
    /// Where the data starts.
    start: u64,
}

impl Reader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// Input errors: no such file, no safetensors file, truncated, or with a header that lies about its data.
    pub fn open(path: &Path) -> Result<Self> {
        let context = || format!("read `{}`", path.display());
        Self::open_inner(path).context(context)
    }

    fn open_inner(path: &Path) -> Result<Self> {
        let mut file = open_file(path)?;
        let size = file.metadata().context(|| "open it".to_owned())?.len();
        let no_safetensors = |why: String| {
            Error::input(format!("not a safetensors file: {why}")).hint(
                "a safetensors file is 8 bytes of header length, a JSON header and the tensors; \
                 convert a PyTorch file with `safetensors.torch.save_file`",
            )
        };
        if size < LENGTH_BYTES {
            return Err(no_safetensors(format!("{size} bytes are too short for a header")));
        }
        let read = || "read the header".to_owned();
        let mut length = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut length).context(read)?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER || length > size - LENGTH_BYTES {
            return Err(no_safetensors(format!(
                "a header of {length} bytes in a file of {size}"
            )));
        }
        let mut text = vec![0; length as usize];
        file.read_exact(&mut text).context(read)?;
        let header: Metadata =
            serde_json::from_slice(&text).map_err(|error| no_safetensors(format!("header: {error}")))?;
        let start = LENGTH_BYTES + length;
        let expected = start + header.data_len() as u64;
        if size != expected {
            let what = if size < expected {
                "truncated"
            } else {
                "ends with bytes that do not belong to a tensor"
            };
            return Err(Error::input(format!(
                "{what}: {size} bytes where the header says {expected}"
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            header,
            start,
        })
    }

    /// The tensors' names, in the order of the file.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The tensors by the arena that they are in, in the order of the file; the nameless arena has those whose names have no
    /// slash.
    #[must_use]
    pub fn arenas(&self) -> IndexMap<String, Vec<NamedTensor>> {
        let mut arenas = IndexMap::<String, Vec<NamedTensor>>::new();
        for name in self.names() {
            let (arena, inner) = name.split_once('/').unwrap_or(("", &name));
            let Some(info) = self.header.info(&name) else {
                continue;
            };
            let tensor = NamedTensor::of(inner, &info.shape, info.dtype.to_string());
            arenas.entry(arena.to_owned()).or_default().push(NamedTensor {
                stored: name.clone(),
                ..tensor
            });
        }
        arenas
    }

    /// Type and dimensions of a tensor.
    #[must_use]
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.header.info(name)
    }

    /// An entry of the file's own metadata.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        Some(self.header.metadata().as_ref()?.get(key)?.as_str())
    }

    /// Reads elements `at..` of a tensor of floating-point numbers; f16, bf16 and f64 are converted.
    ///
    /// # Errors
    /// Input errors when there is no such tensor, when it holds integers, when it is shorter than asked for, or when a finite
    /// f64 is beyond f32.
    pub fn floats(&mut self, name: &str, at: usize, into: &mut [f32]) -> Result<()> {
        if self
            .header
            .info(name)
            .is_some_and(|info| info.dtype == Dtype::F64)
        {
            return self.floats_of_doubles(name, at, into);
        }
        self.elements(name, "floating-point numbers", at, into, |dtype| {
            Some(match dtype {
                Dtype::F32 => |bytes: &[u8]| f32::from_le_bytes(array(bytes)),
                Dtype::F16 => |bytes| half::f16::from_le_bytes(array(bytes)).to_f32(),
                Dtype::BF16 => |bytes| half::bf16::from_le_bytes(array(bytes)).to_f32(),
                _ => return None,
            })
        })
    }

    /// Rounds a tensor of f64 to f32.
    fn floats_of_doubles(&mut self, name: &str, at: usize, into: &mut [f32]) -> Result<()> {
        let mut doubles = vec![0.0; into.len().min(BLOCK)];
        for (number, into) in into.chunks_mut(BLOCK).enumerate() {
            let first = at + number * BLOCK;
            let doubles = &mut doubles[..into.len()];
            self.doubles(name, first, doubles)?;
            for (place, (into, &value)) in into.iter_mut().zip(&*doubles).enumerate() {
                *into = super::rounded(value, first + place).context(|| format!("tensor `{name}`"))?;
            }
        }
        Ok(())
    }

    /// Reads elements `at..` of a tensor of floating-point numbers as f64.
    ///
    /// # Errors
    /// The errors of [`floats`](Self::floats).
    pub fn doubles(&mut self, name: &str, at: usize, into: &mut [f64]) -> Result<()> {
        self.elements(name, "floating-point numbers", at, into, |dtype| {
            Some(match dtype {
                Dtype::F64 => |bytes: &[u8]| f64::from_le_bytes(array(bytes)),
                Dtype::F32 => |bytes| f64::from(f32::from_le_bytes(array(bytes))),
                Dtype::F16 => |bytes| half::f16::from_le_bytes(array(bytes)).to_f64(),
                Dtype::BF16 => |bytes| half::bf16::from_le_bytes(array(bytes)).to_f64(),
                _ => return None,
            })
        })
    }

    /// Reads elements `at..` of a tensor of integers. An unsigned one above 2^63 becomes negative.
    ///
    /// # Errors
    /// Input errors when there is no such tensor, when it does not hold integers, or when it is shorter than asked
    /// for.
    pub fn integers(&mut self, name: &str, at: usize, into: &mut [i64]) -> Result<()> {
        self.elements(name, "integers", at, into, |dtype| {
            Some(match dtype {
                Dtype::U8 => |bytes: &[u8]| i64::from(bytes[0]),
                Dtype::I8 => |bytes| i64::from(i8::from_le_bytes(array(bytes))),
                Dtype::U16 => |bytes| i64::from(u16::from_le_bytes(array(bytes))),
                Dtype::I16 => |bytes| i64::from(i16::from_le_bytes(array(bytes))),
                Dtype::U32 => |bytes| i64::from(u32::from_le_bytes(array(bytes))),
                Dtype::I32 => |bytes| i64::from(i32::from_le_bytes(array(bytes))),
                Dtype::U64 | Dtype::I64 => |bytes| i64::from_le_bytes(array(bytes)),
                _ => return None,
            })
        })
    }

    fn elements<T>(
        &mut self,
        name: &str,
        kind: &str,
        at: usize,
        into: &mut [T],
        decoder: impl FnOnce(Dtype) -> Option<fn(&[u8]) -> T>,
    ) -> Result<()> {
        let fault = |text: String| Error::input(format!("tensor `{name}` {text}"));
        let info = self
            .header
            .info(name)
            .ok_or_else(|| fault("is missing".to_owned()))?;
        let decode =
            decoder(info.dtype).ok_or_else(|| fault(format!("holds {}, expected {kind}", info.dtype)))?;
        let width = info.dtype.bitsize() / 8;
        let (first, last) = info.data_offsets;
        if (last - first) / width < at + into.len() {
            return Err(fault(format!(
                "has {} elements, expected {}",
                (last - first) / width,
                at + into.len()
            )));
        }
        let context = || format!("read tensor `{name}` of `{}`", self.path.display());
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.start + (first + at * width) as u64))
            .context(context)?;
        let mut buffer = vec![0; BLOCK.min(into.len() * width)];
        for into in into.chunks_mut(BLOCK / width) {
            let bytes = &mut buffer[..into.len() * width];
            file.read_exact(bytes).context(context)?;
            for (into, bytes) in into.iter_mut().zip(bytes.chunks_exact(width)) {
                *into = decode(bytes);
            }
        }
        Ok(())
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

/// Writes a safetensors file of f32 tensors as a stream, beside its place; [`Writer::finish`] puts it there. Dropped
/// before that, it leaves nothing behind.
#[derive(Debug)]
pub struct Writer {
    file: NewFile,
    /// Elements still to come.
    missing: usize,
}

impl Writer {
    /// Starts a file with these tensors (name, dimensions), whose values follow in this order, and this metadata.
    ///
    /// # Errors
    /// The environment's, such as a folder that is missing or not writable.
    pub fn create(path: &Path, tensors: &[(String, Vec<usize>)], metadata: &[(&str, &str)]) -> Result<Self> {
        let mut header = serde_json::Map::new();
        if !metadata.is_empty() {
            let metadata = metadata
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.into()));
            header.insert(
                "__metadata__".to_owned(),
                serde_json::Value::Object(metadata.collect()),
            );
        }
        let mut bytes = 0;
        for (name, dims) in tensors {
            let end = bytes + 4 * dims.iter().product::<usize>();
            let info = serde_json::json!({ "dtype": "F32", "shape": dims, "data_offsets": [bytes, end] });
            if header.insert(name.clone(), info).is_some() {
                return Err(Error::internal(format!("tensor `{name}` written twice")));
            }
            bytes = end;
        }
        let mut header = serde_json::Value::Object(header).to_string();
        // Padded, so that the data is aligned for those who map the file.
        header.extend(std::iter::repeat_n(
            ' ',
            header.len().next_multiple_of(8) - header.len(),
        ));

        let mut file = NewFile::create(path)?;
        file.append(&(header.len() as u64).to_le_bytes())?;
        file.append(header.as_bytes())?;
        Ok(Self {
            file,
            missing: bytes / 4,
        })
    }

    /// Appends values.
    ///
    /// # Errors
    /// The environment's, such as a full disk; an internal error when more comes than the header says.
    pub fn append(&mut self, values: &[f32]) -> Result<()> {
        self.missing = self
            .missing
            .checked_sub(values.len())
            .ok_or_else(|| Error::internal("more values than the header says"))?;
        let mut buffer = Vec::with_capacity(BLOCK);
        for values in values.chunks(BLOCK / 4) {
            buffer.clear();
            buffer.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            self.file.append(&buffer)?;
        }
        Ok(())
    }

    /// Makes the file durable and moves it to its place, replacing an existing file in one step.
    ///
    /// # Errors
    /// The environment's; an internal error when values are missing.
    pub fn finish(self) -> Result<()> {
        if self.missing != 0 {
            return Err(Error::internal(format!(
                "{} values fewer than the header says",
                self.missing
            )));
        }
        self.file.finish()
    }
}
