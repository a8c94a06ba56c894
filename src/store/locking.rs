//! Whether the file system of a store keeps locks at all.
//!
//! Everything here rests on locks: that a stage runs once, that nothing in use is deleted. A file system without them
//! either says so, or says that a lock was taken and lets another process take it too (`nolock` of NFS, some user-space
//! file systems). So it is tried: two open files of one lock must exclude each other. What cannot be tried from one
//! machine is read off the mount: locks of NFS that are kept by this machine alone hold no other machine back.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{Store, create_folder};
use crate::error::{Error, Kind, Result, Wrap};

/// How to lock and where to look for mounts: the system's ways, or those of a test.
pub struct System {
    /// Takes the lock of an open file, alone.
    pub try_lock: fn(&File) -> Result<(), TryLockError>,
    /// Takes it together with others.
    pub try_lock_shared: fn(&File) -> Result<(), TryLockError>,
    /// `/proc/self/mountinfo`, where there is one.
    pub mounts: Option<String>,
}

impl System {
    /// This machine's.
    #[must_use]
    pub fn this() -> Self {
        Self {
            try_lock: File::try_lock,
            try_lock_shared: File::try_lock_shared,
            mounts: fs::read_to_string("/proc/self/mountinfo").ok(),
        }
    }
}

/// Stores that this process has found to have locks.
static CHECKED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

impl Store {
    /// Makes sure, once in a process, that the store's file system keeps locks.
    ///
    /// # Errors
    /// The file system has no locks or keeps them on one machine only, or the store cannot be written.
    pub(super) fn check_locks(&self) -> Result<()> {
        let root = fs::canonicalize(self.root()).unwrap_or_else(|_| self.root().to_owned());
        let checked = || CHECKED.lock().unwrap_or_else(PoisonError::into_inner);
        if checked().contains(&root) {
            return Ok(());
        }
        self.check_locks_with(&System::this())?;
        checked().insert(root);
        Ok(())
    }

    /// Makes sure that the store's file system keeps locks.
    ///
    /// # Errors
    /// The reason, with the kind of file system where the system reports it.
    pub fn check_locks_with(&self, system: &System) -> Result<()> {
        let folder = self.root().join("locks");
        create_folder(&folder)?;
        let path = folder.join("check");
        let place = fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
        let mount = system.mounts.as_deref().and_then(|text| mount_of(&place, text));
        let kind = mount
            .as_ref()
            .map_or_else(String::new, |mount| format!(" ({})", mount.kind));
        let refused = |why: &str| {
            let root = self.root().display();
            Err(
                Error::environment(format!("use the store `{root}`: its file system{kind} {why}")).hint(
                    "put the store on a local disk with `--store DIR`, or mount the file system with locks that all \
                     machines share (NFS without `nolock` and `local_lock`)",
                ),
            )
        };
        if let Some(option) = mount.as_ref().and_then(Mount::local_locks) {
            return refused(&format!(
                "keeps locks on this machine only (`{option}`), so that two machines could run the same stage at once"
            ));
        }
        let context = || format!("lock `{}`", path.display());
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options
                .open(&path)
                .wrap(Kind::Environment, context)
                .map_err(|error| error.hint(super::ELSEWHERE))
        };
        let (one, other) = (open()?, open()?);
        match (system.try_lock_shared)(&one) {
            Ok(()) => {}
            // Another process checks just now, and its lock excludes this one: so locks work.
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Error(error)) => return refused(&format!("has no locks: {error}")),
        }
        match (system.try_lock)(&other) {
            Err(TryLockError::WouldBlock) => Ok(()),
            Err(TryLockError::Error(error)) => refused(&format!("has no locks: {error}")),
            Ok(()) => refused("does not support file locks (a held lock was granted twice)"),
        }
    }
}

/// A mounted file system.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    kind: String,
    options: String,
}

impl Mount {
    /// The option that makes locks a matter of one machine, if there is one.
    fn local_locks(&self) -> Option<&str> {
        let mut options = self.options.split(',');
        let is_network = self.kind.starts_with("nfs");
        let local = |option: &&str| matches!(*option, "nolock" | "local_lock=all" | "local_lock=flock");
        is_network.then(|| options.find(local)).flatten()
    }
}

/// The file system on which a path lies, from the lines of `/proc/self/mountinfo` (proc_pid_mountinfo(5)): the last
/// mount with the longest mount point above it.
fn mount_of(path: &Path, mounts: &str) -> Option<Mount> {
    let mut found: Option<(usize, Mount)> = None;
    for line in mounts.lines() {
        let Some((place, system)) = line.split_once(" - ") else {
            continue;
        };
        let Some(point) = place.split(' ').nth(4) else {
            continue;
        };
        let point = PathBuf::from(unescaped(point));
        let mut system = system.split(' ');
        let (Some(kind), options) = (system.next(), system.nth(1)) else {
            continue;
        };
        let depth = point.components().count();
        if path.starts_with(&point) && found.as_ref().is_none_or(|(deepest, _)| depth >= *deepest) {
            let mount = Mount {
                kind: kind.to_owned(),
                options: options.unwrap_or_default().to_owned(),
            };
            found = Some((depth, mount));
        }
    }
    found.map(|(_, mount)| mount)
}

/// Spaces and their like stand as `\040` in the list of mounts.
fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push_str(&rest[..at]);
        if let Some(code) = code {
            plain.push(char::from(code));
            rest = &rest[at + 4..];
        } else {
            plain.push('\\');
            rest = &rest[at + 1..];
        }
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
        22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n\
        40 22 0:35 / /home/a\\040b rw,relatime shared:20 master:1 - nfs4 server:/home rw,vers=4.2,local_lock=none\n\
        41 22 0:36 / /old rw,relatime - nfs server:/old rw,vers=3,nolock,local_lock=all,addr=10.0.0.1\n\
        42 22 0:37 / /mnt rw - fuse.sshfs me@there:/ rw,user_id=0\n\
        damaged line\n";

    fn refusal(system: &System) -> Option<Error> {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        store.check_locks_with(system).err().inspect(|error| {
            assert_eq!(error.kind(), Kind::Environment);
            assert!(error.hint_text().unwrap().contains("--store DIR"));
            assert!(error.to_string().contains(folder.path().to_str().unwrap()));
        })
    }

    #[test]
    fn lock_works_on_a_local_disk_and_prepare_checks_it() {
        assert!(refusal(&System::this()).is_none());
        let folder = tempfile::tempdir().unwrap();
        Store::at(folder.path()).prepare().unwrap();
        assert!(folder.path().join("locks/check").is_file());
    }

    /// A lock that is granted to every process.
    #[test]
    fn lock_that_does_nothing_is_detected() {
        let system = System {
            try_lock: |_| Ok(()),
            try_lock_shared: |_| Ok(()),
            mounts: Some("1 1 0:1 / / rw - fuse.lazy lazy rw\n".to_owned()),
        };
        let text = refusal(&system).unwrap().to_string();
        let expected =
            "its file system (fuse.lazy) does not support file locks (a held lock was granted twice)";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn lock_missing_on_a_file_system_is_an_error() {
        let system = System {
            try_lock: File::try_lock,
            try_lock_shared: |_| Err(TryLockError::Error(std::io::Error::other("no locks available"))),
            mounts: None,
        };
        let text = refusal(&system).unwrap().to_string();
        assert!(
            text.ends_with("its file system has no locks: no locks available"),
            "{text}"
        );
    }

    #[test]
    fn lock_of_one_machine_is_not_a_lock_of_a_network() {
        let system = System {
            mounts: Some("1 1 0:1 / / rw - nfs server:/ rw,vers=3,nolock\n".to_owned()),
            ..System::this()
        };
        let text = refusal(&system).unwrap().to_string();
        assert!(
            text.contains("(nfs) keeps locks on this machine only (`nolock`)"),
            "{text}"
        );
        let shared = System {
            mounts: Some("1 1 0:1 / / rw - nfs4 server:/ rw,vers=4.2,local_lock=none\n".to_owned()),
            ..System::this()
        };
        assert!(refusal(&shared).is_none());
    }

    #[test]
    fn lock_check_goes_by_the_deepest_mount() {
        let kind = |path: &str| mount_of(Path::new(path), MOUNTS).unwrap().kind;
        assert_eq!(kind("/tmp/store"), "ext4");
        assert_eq!(kind("/home/a b/project"), "nfs4");
        assert_eq!(kind("/home/a/project"), "ext4");
        assert_eq!(kind("/mnt"), "fuse.sshfs");
        let old = mount_of(Path::new("/old/x"), MOUNTS).unwrap();
        assert_eq!(old.local_locks(), Some("nolock"));
        assert_eq!(mount_of(Path::new("/x"), ""), None);
        assert_eq!(unescaped("a\\040b\\134c\\9"), "a b\\c\\9");
    }
}
