//! Files that need not be hashed again: a file that looks as it did when it was hashed holds what it held.
//!
//! How a file looks: length, times of the last change of its content and of its inode (nanoseconds), inode and device.
//! A write within the clock tick in which a file was hashed does not change its times. So a file
//! that was as young as that when it was hashed is not trusted, and is hashed again until it is older (git's rule for
//! racy entries).
//!
//! Losing the file costs time and nothing else: it is written without a sync, and one that cannot be read is none.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::digest::{Digest, hash_file};
use crate::error::{Context as _, Result};

/// A file younger than this when it was hashed is not trusted: the coarsest clock of a file system in use (FAT's).
const YOUNG: Duration = Duration::from_secs(2);
/// Files that are remembered, at most; beyond, those that this run did not ask for are forgotten.
const MOST: usize = 200_000;

/// How a file looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Look {
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: u64,
    /// Of the inode: set by the system alone. 0 where there is none.
    changed: u64,
    inode: u64,
    device: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct CachedChecksum {
    #[serde(flatten)]
    look: Look,
    digest: Digest,
}

/// The checksums of files that a store remembers. Shared by threads.
#[derive(Debug, Default)]
pub struct ChecksumCache {
    path: PathBuf,
    old: BTreeMap<PathBuf, CachedChecksum>,
    asked: Mutex<BTreeMap<PathBuf, CachedChecksum>>,
}

impl Look {
    /// How a file looks by its metadata. Times before 1970 count as 1970.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let since = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
        #[cfg(unix)]
        let (changed, inode, device) = {
            use std::os::unix::fs::MetadataExt as _;
            let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
            let changed = u64::try_from(changed.max(0)).unwrap_or(u64::MAX);
            (changed, metadata.ino(), metadata.dev())
        };
        #[cfg(not(unix))]
        let (changed, inode, device) = (0, 0, 0);
        Self {
            bytes: metadata.len(),
            modified,
            changed,
            inode,
            device,
        }
    }

    /// Length in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the system identifies the file.
    #[must_use]
    pub fn has_inode(&self) -> bool {
        self.inode != 0
    }

    /// Whether the file had been left alone for a while at a time; a clock that went back makes it young.
    #[must_use]
    pub fn is_settled(&self, at: SystemTime) -> bool {
        let last = Duration::from_nanos(self.modified.max(self.changed));
        at.duration_since(UNIX_EPOCH).is_ok_and(|now| last + YOUNG < now)
    }
}

impl ChecksumCache {
    /// Reads what is known.
    #[must_use]
    pub fn open(path: PathBuf) -> Self {
        let old = fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        Self {
            path,
            old,
            asked: Mutex::default(),
        }
    }

    /// Length and BLAKE3 of a file: from memory, if it looks as it did.
    ///
    /// # Errors
    /// The errors of [`hash_file`].
    pub fn hash(&self, path: &Path) -> Result<(u64, Digest)> {
        self.hash_with(path, &hash_file)
    }

    /// Length and digest of a file: from memory, if it looks as it did, else by `hash`, which is the same for all files of
    /// what is known.
    ///
    /// # Errors
    /// The errors of `hash`.
    pub fn hash_with(
        &self,
        path: &Path,
        hash: &dyn Fn(&Path) -> Result<(u64, Digest)>,
    ) -> Result<(u64, Digest)> {
        let look = |path: &Path| -> Result<Look> {
            let metadata = fs::metadata(path).context(|| format!("read `{}`", path.display()))?;
            Ok(Look::of(&metadata))
        };
        let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let before = look(path)?;
        if let Some(entry) = self.old.get(&place)
            && before == entry.look
        {
            self.note(place, entry.clone());
            return Ok((entry.look.bytes, entry.digest));
        }
        let at = SystemTime::now();
        let (bytes, digest) = hash(path)?;
        if before.is_settled(at) && look(path)? == before {
            self.note(place, CachedChecksum { look: before, digest });
        }
        Ok((bytes, digest))
    }

    fn note(&self, place: PathBuf, entry: CachedChecksum) {
        if place.to_str().is_none() {
            // JSON cannot name it: the file is hashed again each time.
            return;
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.insert(place, entry);
    }

    /// Remembers the files that were asked for. A store that cannot be written, or is not there, remembers nothing.
    pub fn save(self) {
        let mut asked = self.asked.into_inner().unwrap_or_else(PoisonError::into_inner);
        let new = asked
            .iter()
            .any(|(path, entry)| self.old.get(path).is_none_or(|old| old.look != entry.look));
        if !new || !self.path.parent().is_some_and(Path::is_dir) {
            return;
        }
        if self.old.len() + asked.len() <= MOST {
            for (path, entry) in self.old {
                asked.entry(path).or_insert(entry);
            }
        }
        let beside = super::beside(&self.path);
        let written = serde_json::to_vec(&asked)
            .map_err(std::io::Error::other)
            .and_then(|text| fs::write(&beside, text))
            .and_then(|()| fs::rename(&beside, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that was last written to long ago, by its modification time.
    fn age(path: &Path) {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60))
            .unwrap();
    }

    fn remembered(store: &Path, path: &Path) -> bool {
        ChecksumCache::open(store.to_owned())
            .old
            .contains_key(&fs::canonicalize(path).unwrap())
    }

    #[test]
    fn known_files_as_young_as_their_hash_are_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let (store, path) = (folder.path().join("files.json"), folder.path().join("a"));
        fs::write(&path, "one").unwrap();
        // Its content is old, its inode is not.
        age(&path);
        let known = ChecksumCache::open(store.clone());
        assert_eq!(known.hash(&path).unwrap(), hash_file(&path).unwrap());
        known.save();
        assert!(!remembered(&store, &path));
    }

    /// What is remembered is taken as it is while the file looks the same, and not a moment longer.
    #[test]
    fn known_files_that_look_the_same_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let (store, path) = (folder.path().join("files.json"), folder.path().join("a"));
        fs::write(&path, "one").unwrap();
        let look = || Look::of(&fs::metadata(&path).unwrap());
        let expected = Digest::of(b"expected");
        let remember = || {
            let place = fs::canonicalize(&path).unwrap();
            let entry = CachedChecksum {
                look: look(),
                digest: expected,
            };
            fs::write(
                &store,
                serde_json::to_vec(&BTreeMap::from([(place, entry)])).unwrap(),
            )
            .unwrap();
            ChecksumCache::open(store.clone())
        };
        assert_eq!(remember().hash(&path).unwrap(), (3, expected));
        // Another time, another content of the same length with the old time, another file in its place.
        let known = remember();
        age(&path);
        assert_eq!(known.hash(&path).unwrap(), hash_file(&path).unwrap());
        let known = remember();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&path, "two").unwrap();
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(time)
            .unwrap();
        assert_eq!(known.hash(&path).unwrap(), hash_file(&path).unwrap());
        let known = remember();
        fs::write(folder.path().join("b"), "two").unwrap();
        fs::rename(folder.path().join("b"), &path).unwrap();
        assert_eq!(known.hash(&path).unwrap(), hash_file(&path).unwrap());
        // A damaged memory is none.
        fs::write(&store, "{").unwrap();
        assert_eq!(
            ChecksumCache::open(store.clone()).hash(&path).unwrap(),
            hash_file(&path).unwrap()
        );
    }

    /// A path that is not UTF-8 is forgotten, and the others are remembered all the same.
    #[cfg(unix)]
    #[test]
    fn known_files_include_no_path_that_json_cannot_name() {
        use std::os::unix::ffi::OsStrExt as _;
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("files.json");
        let known = ChecksumCache::open(store.clone());
        for name in [&b"\xff"[..], b"a"] {
            let path = folder.path().join(std::ffi::OsStr::from_bytes(name));
            let entry = CachedChecksum {
                look: Look::default(),
                digest: Digest::of(name),
            };
            known.note(path, entry);
        }
        known.save();
        let names: Vec<_> = ChecksumCache::open(store).old.into_keys().collect();
        assert_eq!(names, [folder.path().join("a")]);
    }

    #[test]
    fn known_files_are_remembered_with_earlier_ones_once_settled() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("files.json");
        let mut all = Vec::new();
        for name in ["a", "b"] {
            let path = folder.path().join(name);
            fs::write(&path, name).unwrap();
            let look = Look::of(&fs::metadata(&path).unwrap());
            assert!(look.is_settled(SystemTime::now() + Duration::from_secs(3)));
            assert!(!look.is_settled(SystemTime::now()));
            assert!(
                !look.is_settled(SystemTime::now() - Duration::from_secs(9)),
                "the clock went back"
            );
            let known = ChecksumCache::open(store.clone());
            let digest = Digest::of(name.as_bytes());
            known.note(fs::canonicalize(&path).unwrap(), CachedChecksum { look, digest });
            known.save();
            all.push(path);
        }
        assert!(all.iter().all(|path| remembered(&store, path)));
    }
}
