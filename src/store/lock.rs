//! Locks of keys and of artifacts: the operating system's, so that they die with their process.
//!
//! A process that works on a key holds its lock exclusively. A process that uses an artifact, or is about to publish it,
//! pins it with a shared lock; only an artifact without pins is moved or deleted.
//!
//! A lock file is never deleted: deleting one that another process is about to lock would let two processes hold "the" lock.
//! Its contents (the holder) are shown to waiting processes.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::record::host_name;
use super::{Digest, Store, create_folder, time};
use crate::error::{Error, Kind, Result, Wrap};

/// Interval between attempts to take a lock that is held.
const POLL: Duration = Duration::from_millis(50);

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    /// The process.
    pub pid: u32,
    /// Its machine.
    pub host: String,
    /// Since when, RFC 3339.
    pub since: String,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

/// The right to work on a key, until it is dropped or the process dies.
#[derive(Debug)]
pub struct KeyLock {
    key: Digest,
    /// Closing it gives the lock back.
    _file: File,
}

impl KeyLock {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &Digest {
        &self.key
    }
}

/// The promise that an artifact stays where it is, until it is dropped or the process dies.
#[derive(Debug)]
pub struct Pin {
    /// Closing it gives the lock back.
    _file: File,
}

/// The right to move or delete an artifact; no process uses it meanwhile.
#[derive(Debug)]
pub struct ArtifactLock {
    artifact: Digest,
    /// Closing it gives the lock back.
    _file: File,
}

impl ArtifactLock {
    /// The artifact.
    #[must_use]
    pub fn artifact(&self) -> &Digest {
        &self.artifact
    }
}

impl Store {
    /// Pins an artifact, whether it exists or not. Waits while another process moves or deletes it, which is quick.
    ///
    /// # Errors
    /// The file system has no locks, or the store cannot be written.
    pub fn pin(&self, artifact: &Digest) -> Result<Pin> {
        let file = self.open_lock(artifact)?;
        match file.lock_shared() {
            Ok(()) => Ok(Pin { _file: file }),
            Err(error) => Err(self.no_locks(artifact, error)),
        }
    }

    /// Pins an artifact where the store can be written; nothing where it can only be read.
    ///
    /// # Errors
    /// The file system has no locks.
    pub fn pin_if_writable(&self, artifact: &Digest) -> Result<Option<Pin>> {
        match self.pin(artifact) {
            Ok(pin) => Ok(Some(pin)),
            Err(error) if error.is_denied() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes an artifact exclusively if no process uses it.
    ///
    /// # Errors
    /// The file system has no locks, or the store cannot be written.
    pub fn try_take(&self, artifact: &Digest) -> Result<Option<ArtifactLock>> {
        let file = self.open_lock(artifact)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(ArtifactLock {
                artifact: *artifact,
                _file: file,
            })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(self.no_locks(artifact, error)),
        }
    }

    /// The file of a lock, which is made where it is missing.
    fn open_lock(&self, name: &Digest) -> Result<File> {
        let path = self.lock_path(name);
        create_folder(&self.root().join("locks"))?;
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .wrap(Kind::Environment, || format!("lock `{}`", path.display()))
            .map_err(|error| error.hint(super::ELSEWHERE))
    }

    fn no_locks(&self, name: &Digest, error: std::io::Error) -> Error {
        let context = || format!("lock `{}`", self.lock_path(name).display());
        let error = Err::<(), _>(error).wrap(Kind::Environment, context).unwrap_err();
        error.hint(
            "the store's file system has no file locks (as on some network mounts): put the store on a local disk with \
             `--store DIR`",
        )
    }

    /// Takes the lock of a key if it is free.
    ///
    /// # Errors
    /// The file system has no locks, or the store cannot be written.
    pub fn try_lock(&self, key: &Digest) -> Result<Option<KeyLock>> {
        let path = self.lock_path(key);
        let context = || format!("lock `{}`", path.display());
        let mut file = self.open_lock(key)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(self.no_locks(key, error)),
        }
        let holder = LockHolder {
            pid: std::process::id(),
            host: host_name(),
            since: time::rfc3339(SystemTime::now()),
        };
        let text = serde_json::to_string(&holder)
            .map_err(|error| Error::internal(format!("write the lock's holder: {error}")))?;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()))
            .wrap(Kind::Environment, context)?;
        Ok(Some(KeyLock {
            key: *key,
            _file: file,
        }))
    }

    /// Takes the lock of a key, waiting for its holder. `waiting` is called repeatedly while another process holds it,
    /// with the holder where it is known; an error of `waiting` ends the waiting.
    ///
    /// # Errors
    /// The errors of [`Store::try_lock`] and of `waiting`.
    pub fn lock(
        &self,
        key: &Digest,
        waiting: &mut dyn FnMut(Option<&LockHolder>) -> Result<()>,
    ) -> Result<KeyLock> {
        loop {
            if let Some(lock) = self.try_lock(key)? {
                return Ok(lock);
            }
            waiting(self.holder(key).as_ref())?;
            std::thread::sleep(POLL);
        }
    }

    /// The process that holds the lock of a key now. A store that can only be read answers too.
    #[must_use]
    pub fn present_holder(&self, key: &Digest) -> Option<LockHolder> {
        let file = File::open(self.lock_path(key)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => self.holder(key),
            _ => None,
        }
    }

    /// The process that took the lock of a key last.
    #[must_use]
    pub fn holder(&self, key: &Digest) -> Option<LockHolder> {
        serde_json::from_str(&fs::read_to_string(self.lock_path(key)).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_excludes_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("store"));
        let key = Digest::of(b"key");
        let lock = store.try_lock(&key).unwrap().unwrap();
        assert!(store.try_lock(&key).unwrap().is_none());
        assert!(store.try_lock(&Digest::of(b"other")).unwrap().is_some());
        assert_eq!(store.present_holder(&key).unwrap().pid, std::process::id());
        drop(lock);
        assert_eq!(store.present_holder(&key), None);
        assert_eq!(store.holder(&key).unwrap().pid, std::process::id());
        assert!(store.try_lock(&key).unwrap().is_some());
    }

    #[test]
    fn lock_of_a_pinned_artifact_is_refused_and_pins_do_not_exclude_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("store"));
        let artifact = Digest::of(b"artifact");
        let (one, two) = (store.pin(&artifact).unwrap(), store.pin(&artifact).unwrap());
        assert!(store.try_take(&artifact).unwrap().is_none());
        drop(one);
        assert!(store.try_take(&artifact).unwrap().is_none());
        drop(two);
        let taken = store.try_take(&artifact).unwrap().unwrap();
        // A pin that is asked for meanwhile waits until the lock is given back.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| store.pin(&artifact).unwrap());
            std::thread::sleep(Duration::from_millis(20));
            assert!(!waiting.is_finished());
            drop(taken);
            waiting.join().unwrap();
        });
    }

    #[test]
    fn lock_wait_names_the_holder_and_may_be_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("store"));
        let key = Digest::of(b"key");
        let _lock = store.try_lock(&key).unwrap().unwrap();
        let mut seen = None;
        let error = store
            .lock(&key, &mut |holder| {
                seen = holder.cloned();
                Err(Error::interrupted())
            })
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted);
        assert_eq!(seen.unwrap().pid, std::process::id());
    }
}
