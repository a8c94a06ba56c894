//! Digests of what was read of a file, to compare with what the cache key says of it.
//!
//! A file that is written to while it is read gives bytes of two contents, and its length and times may not show
//! it. So what is read is hashed as it is read: of a file that is read from start to end that is its digest, and of one
//! that is read here and there each stretch can be compared with the file once that is known to be whole.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Context as _, Result};
use crate::store::Digest;

/// Stretches that are remembered of a file, at most: what bounds memory. A file that is read in more places is not
/// checked.
const MOST: usize = 1 << 16;

/// Records what is read of a file. Shared by all of its readers.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    done: Vec<Stretch>,
    /// Where the stretch being read starts and how far it is.
    at: Option<(u64, u64)>,
    hasher: blake3::Hasher,
    too_many: bool,
}

/// Bytes that were read one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    start: u64,
    end: u64,
    digest: Digest,
}

/// What was read of a file.
#[derive(Clone, Debug)]
pub struct Consumed {
    stretches: Vec<Stretch>,
    too_many: bool,
}

impl Witness {
    /// Bytes were read from a place.
    pub(super) fn saw(&self, start: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut noted = self.noted();
        if noted.at.is_some_and(|(_, end)| end != start) {
            noted.finish();
        }
        let (from, _) = noted.at.unwrap_or((start, start));
        noted.hasher.update(bytes);
        noted.at = Some((from, start + bytes.len() as u64));
    }

    /// What was read so far.
    #[must_use]
    pub fn consumed(&self) -> Consumed {
        let mut noted = self.noted();
        noted.finish();
        Consumed {
            stretches: noted.done.clone(),
            too_many: noted.too_many,
        }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    fn finish(&mut self) {
        let Some((start, end)) = self.at.take() else {
            return;
        };
        let digest = Digest::from_hash(self.hasher.finalize());
        self.hasher.reset();
        if self.done.len() < MOST {
            self.done.push(Stretch { start, end, digest });
        } else {
            self.too_many = true;
        }
    }
}

impl Consumed {
    /// The same for bytes that were read as a whole.
    #[must_use]
    pub fn whole(bytes: &[u8]) -> Self {
        let witness = Witness::default();
        witness.saw(0, bytes);
        witness.consumed()
    }

    /// The digest of all of a file of that length, where it was read from start to end and only once.
    #[must_use]
    pub fn digest(&self, length: u64) -> Option<Digest> {
        match self.stretches.as_slice() {
            [one] if one.start == 0 && one.end == length && !self.too_many => Some(one.digest),
            [] if length == 0 => Some(Digest::of(b"")),
            _ => None,
        }
    }

    /// Whether a file holds what was read, read again.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn is_in(&self, path: &Path) -> Result<bool> {
        let reading = || format!("read `{}`", path.display());
        if self.too_many {
            return Ok(false);
        }
        let mut file = File::open(path).context(reading)?;
        let mut buffer = vec![0; super::READ_BYTES];
        for stretch in &self.stretches {
            file.seek(SeekFrom::Start(stretch.start)).context(reading)?;
            let mut left = (&file).take(stretch.end - stretch.start);
            let mut hasher = blake3::Hasher::new();
            loop {
                match left.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => drop(hasher.update(&buffer[..count])),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error).context(reading),
                }
            }
            if left.limit() > 0 || Digest::from_hash(hasher.finalize()) != stretch.digest {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn witness_of_sequential_reads_has_the_files_digest() {
        let witness = Witness::default();
        witness.saw(0, b"one ");
        witness.saw(4, b"two");
        let consumed = witness.consumed();
        assert_eq!(consumed.digest(7), Some(Digest::of(b"one two")));
        assert_eq!(consumed.digest(8), None, "there is more of it");
        witness.saw(2, b"e");
        assert_eq!(witness.consumed().digest(7), None, "a part of it was read again");
        assert_eq!(Witness::default().consumed().digest(0), Some(Digest::of(b"")));
    }

    #[test]
    fn witness_compares_separate_reads_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "0123456789").unwrap();
        let witness = Witness::default();
        witness.saw(7, b"789");
        witness.saw(2, b"23");
        assert!(witness.consumed().is_in(&path).unwrap());
        witness.saw(0, b"x");
        assert!(!witness.consumed().is_in(&path).unwrap());
        let beyond = Witness::default();
        beyond.saw(9, b"9a");
        assert!(!beyond.consumed().is_in(&path).unwrap());
    }

    #[test]
    fn witness_of_too_many_reads_has_no_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "00").unwrap();
        let witness = Witness::default();
        for _ in 0..=MOST {
            witness.saw(0, b"0");
        }
        assert!(!witness.consumed().is_in(&path).unwrap());
    }
}
