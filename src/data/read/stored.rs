//! Files as they are stored: their bytes, how many of them were read, and temporary copies of what has to be sought in.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek as _, SeekFrom, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::fault::{carry, landed};
use super::witness::Witness;
use crate::error::{Context as _, Error, Result};
use crate::plural::{agreeing, counted};

/// A copy of up to this many bytes stays in memory; a longer one goes to a temporary file.
const COPY_IN_MEMORY: usize = 8 << 20;

/// A file, or the bytes of one. Whatever is read of it is read by [`Stored::section`], which records it.
pub enum Stored {
    /// A file on disk, its length, and the record of what is read of it.
    File(File, u64, Witness),
    /// Bytes in memory.
    Bytes(Bytes),
}

impl Stored {
    /// Takes an open file.
    ///
    /// # Errors
    /// The file is a folder, or cannot be opened.
    pub fn file(file: File, witness: &Witness) -> Result<Self> {
        let metadata = file.metadata().context(|| "ask for its length".to_owned())?;
        if metadata.is_dir() {
            return Err(Error::input("it is a folder").hint("name the files in it"));
        }
        Ok(Self::File(file, metadata.len(), witness.clone()))
    }

    /// Copies what a reader gives, so that it can be sought in: into memory or, if it is long, into a temporary file
    /// that has no name and goes when it is closed.
    ///
    /// # Errors
    /// The reader's; the temporary folder is full.
    pub fn copy(input: &mut dyn BufRead) -> Result<Self> {
        let what = || "copy to a temporary file".to_owned();
        let mut memory = Vec::new();
        (&mut *input)
            .take(COPY_IN_MEMORY as u64)
            .read_to_end(&mut memory)
            .map_err(landed)?;
        if memory.len() < COPY_IN_MEMORY {
            return Ok(Self::Bytes(memory.into()));
        }
        let hint = "Parquet, Arrow files and zip are read from their end; within an archive or a compressed file they are \
                    copied to the folder of `TMPDIR` first";
        let mut file = tempfile::tempfile().context(what).map_err(|e| e.hint(hint))?;
        file.write_all(&memory).context(what).map_err(|e| e.hint(hint))?;
        let mut length = memory.len() as u64;
        loop {
            let chunk = input.fill_buf().map_err(landed)?;
            if chunk.is_empty() {
                return Ok(Self::File(file, length, Witness::default()));
            }
            file.write_all(chunk).context(what).map_err(|e| e.hint(hint))?;
            length += chunk.len() as u64;
            let count = chunk.len();
            input.consume(count);
        }
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::File(_, length, _) => *length,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// The last `length` bytes or, of a shorter file, all; not counted and not witnessed: who looks reads them again.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn tail(&self, length: usize) -> Result<Vec<u8>> {
        let length = self.len().min(length as u64);
        let start = self.len() - length;
        match self {
            Self::File(file, ..) => {
                let mut file = file;
                let mut tail = Vec::new();
                file.seek(SeekFrom::Start(start))
                    .and_then(|_| file.take(length).read_to_end(&mut tail))
                    .context(|| format!("at byte {start}"))?;
                Ok(tail)
            }
            Self::Bytes(bytes) => Ok(bytes[bytes.len() - length as usize..].to_vec()),
        }
    }

    /// Reads the bytes from `start` on, `length` of them at most; `count` is called for each.
    pub fn section(&self, start: u64, length: u64, count: &ReadCount) -> Section<'_> {
        Section {
            stored: self,
            at: start,
            end: start.saturating_add(length).min(self.len()),
            count: count.clone(),
        }
    }

    /// Reads exactly `length` bytes from `start` on into `to`.
    ///
    /// # Errors
    /// The file has fewer bytes, or cannot be read.
    pub fn exactly(&self, start: u64, length: usize, count: &ReadCount, to: &mut Vec<u8>) -> Result<()> {
        to.clear();
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > self.len()) {
            return Err(Error::input(format!(
                "{} from byte {start} on {} outside the {} there are",
                counted(length, "byte"),
                agreeing(length, "lies", "lie"),
                counted(self.len(), "byte")
            ))
            .hint(super::fault::BRING_AGAIN));
        }
        to.reserve_exact(length);
        let read = self
            .section(start, length as u64, count)
            .read_to_end(to)
            .map_err(landed)?;
        if read == length {
            return Ok(());
        }
        Err(Error::environment(format!(
            "the file became shorter while it was read: {read} of {} from byte {start} on",
            counted(length, "byte")
        )))
    }

    /// Exactly `length` bytes from `start` on; of bytes in memory, without a copy.
    ///
    /// # Errors
    /// The errors of [`Self::exactly`].
    pub fn bytes(&self, start: u64, length: usize, count: &ReadCount) -> Result<Bytes> {
        if let Self::Bytes(bytes) = self
            && let Some(end) = usize::try_from(start)
                .ok()
                .and_then(|start| start.checked_add(length))
            && end <= bytes.len()
        {
            count.add(length as u64);
            return Ok(bytes.slice(end - length..end));
        }
        let mut bytes = Vec::new();
        self.exactly(start, length, count, &mut bytes)?;
        Ok(bytes.into())
    }
}

/// Bytes read from a stored file so far, shared by all who read it.
#[derive(Clone, Default)]
pub struct ReadCount(Arc<AtomicU64>);

impl ReadCount {
    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// A part of a stored file, read from its start to its end.
pub struct Section<'a> {
    stored: &'a Stored,
    at: u64,
    end: u64,
    count: ReadCount,
}

impl Read for Section<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let length = to.len().min(left);
        let to = &mut to[..length];
        let read = match self.stored {
            // One at a time reads the file, so that its position is a matter of this call.
            Stored::File(file, _, witness) => {
                let mut file = file;
                let read = file
                    .seek(SeekFrom::Start(self.at))
                    .and_then(|_| file.read(to))
                    .or_else(|error| match error.kind() {
                        io::ErrorKind::Interrupted => Err(error),
                        _ => Err(error)
                            .context(|| format!("at byte {}", self.at))
                            .map_err(carry),
                    })?;
                witness.saw(self.at, &to[..read]);
                read
            }
            Stored::Bytes(bytes) => {
                let start = usize::try_from(self.at).unwrap_or(usize::MAX);
                to.copy_from_slice(&bytes[start..start + length]);
                length
            }
        };
        self.at += read as u64;
        self.count.add(read as u64);
        Ok(read)
    }
}
