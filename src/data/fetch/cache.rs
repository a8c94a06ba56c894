//! Downloaded files on disk: whole ones by content, begun ones by URL. The layout is described in [`super`].

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ring::digest;
use serde::{Deserialize, Serialize};

use super::Tally;
use crate::disk::sync_parent;
use crate::error::{Context as _, Kind, Result, Wrap as _};
use crate::event::Cancel;
use crate::plural::counted;

/// Interval between attempts to take a lock that is held, and between checks for an interruption.
const POLL: Duration = Duration::from_millis(50);
/// Bytes read at once to be hashed.
const BUFFER: usize = 1 << 18;
const ROOM: &str = "free disk space (`mdlm downloads` lists the downloads), or put the store on another disk with `--store DIR`";

/// Folder of whole files.
pub(super) const WHOLE: &str = "sha256";
/// Folder of what URLs were found to hold.
pub(super) const INDEX: &str = "index";
/// Folder of begun downloads.
pub(super) const PARTIAL: &str = "partial";
/// Folder of locks.
const LOCKS: &str = "locks";
/// The lock of all whole files: shared by those who use them, held alone by who deletes them.
const CONTENT: &str = "content";

/// The folder of downloads.
pub(super) struct Cache {
    root: PathBuf,
    /// What globs have left out.
    tally: Mutex<Tally>,
}

/// A file of the cache, as the index knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IndexedFile {
    /// Where it came from.
    pub url: String,
    /// Its content.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// What a URL was found to hold.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Index {
    /// The URL, or a glob.
    pub url: String,
    /// Whether a checksum or a commit said beforehand what it would be. Unknown for an index that does not say.
    #[serde(default)]
    pub pinned: bool,
    /// The files, of a glob by name.
    pub files: Vec<IndexedFile>,
    /// What the glob leaves out.
    #[serde(default, skip_serializing_if = "Tally::is_nothing")]
    pub left_out: Tally,
}

/// The right to download a URL, until it is dropped or the process dies.
pub(super) struct Lock {
    /// Closing it gives the lock back. The file stays: deleting one that another process is about to lock would let two
    /// processes hold "the" lock.
    _file: File,
}

impl Cache {
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            tally: Mutex::default(),
        }
    }

    /// Counts what a glob leaves out.
    pub fn count(&self, tally: &Tally) {
        let mut own = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        own.passed_over += tally.passed_over;
        own.excluded += tally.excluded;
        for pattern in &tally.idle {
            if !own.idle.contains(pattern) {
                own.idle.push(pattern.clone());
            }
        }
    }

    /// What globs have left out.
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the file with that content lies, or would.
    pub fn path(&self, sha256: &str) -> PathBuf {
        self.root.join(WHOLE).join(&sha256[..2]).join(sha256)
    }

    /// The size of the file with that content, if it is there. Files are renamed to their place when they are whole and
    /// checked, so that the name is proof enough.
    pub fn find(&self, sha256: &str) -> Option<u64> {
        let metadata = fs::symlink_metadata(self.path(sha256)).ok()?;
        metadata.is_file().then_some(metadata.len())
    }

    /// What an identity was found to hold, if all of it is here. A damaged index is none.
    pub fn known(&self, identity: &str) -> Option<Vec<IndexedFile>> {
        Some(self.known_index(identity)?.files)
    }

    /// The same, with what else was found.
    pub fn known_index(&self, identity: &str) -> Option<Index> {
        let text = fs::read(self.below(INDEX, identity, ".json")).ok()?;
        let index: Index = serde_json::from_slice(&text).ok()?;
        let here =
            |file: &IndexedFile| is_sha256(&file.sha256) && self.find(&file.sha256) == Some(file.bytes);
        (!index.files.is_empty() && index.files.iter().all(here)).then_some(index)
    }

    /// Keeps what an identity was found to hold, and what it leaves out.
    pub fn remember(
        &self,
        identity: &str,
        shown: &str,
        pinned: bool,
        files: Vec<IndexedFile>,
        left_out: Tally,
    ) -> Result<()> {
        let index = Index {
            url: shown.to_owned(),
            pinned,
            files,
            left_out,
        };
        write_whole(&self.below(INDEX, identity, ".json"), &index)
    }

    /// Takes the lock of an identity, waiting for its holder. `waiting` is called while another process holds it, with the
    /// bytes that it has.
    pub fn lock(&self, identity: &str, cancel: &Cancel, waiting: &dyn Fn(u64)) -> Result<Lock> {
        let name = name_of(identity);
        loop {
            if let Some(lock) = self.try_lock(&name)? {
                return Ok(lock);
            }
            cancel.check()?;
            waiting(fs::metadata(self.below(PARTIAL, identity, "")).map_or(0, |metadata| metadata.len()));
            std::thread::sleep(POLL);
        }
    }

    /// Takes the lock of that name, unless it is held.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>> {
        let path = self.root.join(LOCKS).join(name);
        create_parent(&path)?;
        let context = || format!("lock `{}`", path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .wrap(Kind::Environment, context)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => {
                let error = Err::<(), _>(error).wrap(Kind::Environment, context).unwrap_err();
                Err(error.hint(
                    "the store's file system has no file locks (as on some network mounts): put the store on a local \
                     disk with `--store DIR`",
                ))
            }
        }
    }

    /// Sees to it that no whole file is deleted while the value lives: [`Cache::try_delete`] gives way to it.
    ///
    /// In a folder that cannot be written or locked no process deletes.
    pub fn in_use(&self, cancel: &Cancel) -> Result<Option<Lock>> {
        let path = self.root.join(LOCKS).join(CONTENT);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let created = create_parent(&path).is_ok();
                let mut options = OpenOptions::new();
                options.read(true).write(true).create(true).truncate(false);
                match options.open(&path) {
                    Ok(file) if created => file,
                    _ => return Ok(None),
                }
            }
            Err(_) => return Ok(None),
        };
        loop {
            match file.try_lock_shared() {
                Ok(()) => return Ok(Some(Lock { _file: file })),
                // Another process deletes, which takes a moment.
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(_)) => return Ok(None),
            }
            cancel.check()?;
            std::thread::sleep(POLL);
        }
    }

    /// The right to delete whole files, unless they are in use.
    pub fn try_delete(&self) -> Result<Option<Lock>> {
        self.try_lock(CONTENT)
    }

    /// A folder below the cache's.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A file named by an identity, which may be anything: it is hashed.
    fn below(&self, folder: &str, identity: &str, suffix: &str) -> PathBuf {
        let name = name_of(identity);
        self.root.join(folder).join(format!("{name}{suffix}"))
    }
}

/// What an identity is called in the folders.
fn name_of(identity: &str) -> String {
    blake3::hash(identity.as_bytes()).to_hex()[..32].to_owned()
}

/// Whether an identity is to be found again without the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// It is; and whether its content was known beforehand.
    Index { pinned: bool },
    /// Its index says something else, on which another manifest relies.
    File,
}

/// What is known beforehand of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// SHA-256, in hex.
    pub sha256: Option<String>,
    /// Name of the content in git: SHA-1, in hex. Its length has to be known too.
    pub git: Option<String>,
    /// Length.
    pub bytes: Option<u64>,
}

impl Expected {
    /// Whether a wrong content would be noticed.
    pub fn is_checked(&self) -> bool {
        self.sha256.is_some() || self.git.is_some() && self.bytes.is_some()
    }
}

/// What is known of a begun download, in the file beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DownloadState {
    /// Where it comes from, to be shown.
    pub url: String,
    /// The server's strong validator of the version that was begun.
    pub etag: Option<String>,
    /// Length of that version, where the server said.
    pub length: Option<u64>,
    /// Bytes that are on disk for certain.
    pub synced: u64,
}

/// A begun download. Its owner holds the lock of the identity.
pub(super) struct Partial {
    data: PathBuf,
    state_path: PathBuf,
    file: File,
    pub state: DownloadState,
    /// Bytes here.
    length: u64,
    sha256: digest::Context,
    git: Option<(digest::Context, u64)>,
    sync_every: u64,
}

impl Partial {
    /// Opens the partial file of an earlier process, or an empty one.
    ///
    /// Where the content is checked at the end, every byte of the file counts. Where it is not, those alone count that
    /// were synced: after a power failure the others may be anything.
    pub fn open(
        cache: &Cache,
        identity: &str,
        shown: &str,
        expected: &Expected,
        sync_every: u64,
        cancel: &Cancel,
    ) -> Result<Self> {
        let data = cache.below(PARTIAL, identity, "");
        let state_path = cache.below(PARTIAL, identity, ".json");
        create_parent(&data)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&data)
            .wrap(Kind::Environment, || format!("open `{}`", data.display()))?;
        let there = file
            .metadata()
            .wrap(Kind::Environment, || format!("read `{}`", data.display()))?
            .len();
        let state: Option<DownloadState> = fs::read(&state_path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let usable = match &state {
            Some(state) if there < state.synced || state.length.is_some_and(|length| there > length) => 0,
            Some(_) if expected.is_checked() => there,
            Some(state) if state.etag.is_some() || state.length == Some(state.synced) => state.synced,
            // Bytes of unknown origin; or, without a validator, the rest may be of another version.
            _ => 0,
        };
        let git = expected.git.as_ref().and(expected.bytes);
        let mut partial = Self {
            data,
            state_path,
            file,
            state: state.unwrap_or_default(),
            length: 0,
            sha256: digest::Context::new(&digest::SHA256),
            git: git.map(|bytes| (git_context(bytes), bytes)),
            sync_every,
        };
        shown.clone_into(&mut partial.state.url);
        if usable == 0 {
            partial.restart()?;
            return Ok(partial);
        }
        partial
            .file
            .set_len(usable)
            .wrap(Kind::Environment, || partial.writing())?;
        let mut buffer = vec![0; BUFFER];
        let mut source = &partial.file;
        while partial.length < usable {
            cancel.check()?;
            let read = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(error)
                        .wrap(Kind::Environment, || format!("read `{}`", partial.data.display()));
                }
            };
            partial.sha256.update(&buffer[..read]);
            if let Some((git, _)) = &mut partial.git {
                git.update(&buffer[..read]);
            }
            partial.length += read as u64;
        }
        Ok(partial)
    }

    /// Bytes here.
    pub fn len(&self) -> u64 {
        self.length
    }

    /// Whether all of the version that was begun is here.
    pub fn is_whole(&self) -> bool {
        self.length > 0 && self.state.length == Some(self.length)
    }

    /// Throws away what is here.
    pub fn restart(&mut self) -> Result<()> {
        // The description first: bytes without one are never taken for anything.
        remove(&self.state_path)?;
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .wrap(Kind::Environment, || self.writing())?;
        self.length = 0;
        self.state = DownloadState {
            url: std::mem::take(&mut self.state.url),
            ..DownloadState::default()
        };
        self.sha256 = digest::Context::new(&digest::SHA256);
        self.git = self.git.take().map(|(_, bytes)| (git_context(bytes), bytes));
        Ok(())
    }

    /// Notes which version is coming in.
    pub fn describe(&mut self, etag: Option<String>, length: Option<u64>) -> Result<()> {
        if self.state.etag == etag && self.state.length == length && self.state_path.exists() {
            return Ok(());
        }
        self.state.etag = etag;
        self.state.length = length;
        write_whole(&self.state_path, &self.state)
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            // Some of them may have been written: what the file holds is what was counted.
            let _ = self.file.set_len(self.length);
            let _ = self.file.seek(SeekFrom::Start(self.length));
            let full = error.kind() == ErrorKind::StorageFull;
            let error = Err::<(), _>(error)
                .wrap(Kind::Environment, || self.writing())
                .unwrap_err();
            return Err(if full { error.hint(ROOM) } else { error });
        }
        self.sha256.update(bytes);
        if let Some((git, _)) = &mut self.git {
            git.update(bytes);
        }
        self.length += bytes.len() as u64;
        if self.length - self.state.synced >= self.sync_every {
            self.sync()?;
        }
        Ok(())
    }

    /// Makes what is here durable, and says so beside it.
    pub fn sync(&mut self) -> Result<()> {
        if self.state.synced == self.length {
            return Ok(());
        }
        self.file.sync_data().wrap(Kind::Environment, || self.writing())?;
        self.state.synced = self.length;
        write_whole(&self.state_path, &self.state)
    }

    /// Checks the content.
    ///
    /// # Errors
    /// The file has another length, SHA-256 or name in git than expected; the error states both values.
    pub fn check(&self, expected: &Expected) -> std::result::Result<String, String> {
        if let Some(bytes) = expected.bytes
            && bytes != self.length
        {
            return Err(format!(
                "it has {} instead of {bytes}",
                counted(self.length, "byte")
            ));
        }
        let sha256 = hex(self.sha256.clone().finish().as_ref());
        if let Some(wanted) = &expected.sha256
            && *wanted != sha256
        {
            return Err(format!("its SHA-256 is {sha256} instead of {wanted}"));
        }
        if let (Some(wanted), Some((git, _))) = (&expected.git, &self.git) {
            let found = hex(git.clone().finish().as_ref());
            if *wanted != found {
                return Err(format!("its name in git is {found} instead of {wanted}"));
            }
        }
        Ok(sha256)
    }

    /// Moves the file, which is whole and checked, to its place.
    ///
    /// The index is written first: a process that dies in between leaves an index whose file is missing, which counts
    /// for nothing, and a whole download, which the next process only checks.
    pub fn finish(mut self, cache: &Cache, identity: &str, entry: &IndexedFile, keep: Keep) -> Result<()> {
        self.sync()?;
        if let Keep::Index { pinned } = keep {
            cache.remember(
                identity,
                &entry.url,
                pinned,
                vec![entry.clone()],
                Tally::default(),
            )?;
        }
        let place = cache.path(&entry.sha256);
        create_parent(&place)?;
        let context = || format!("write `{}`", place.display());
        let mut permissions = self
            .file
            .metadata()
            .wrap(Kind::Environment, context)?
            .permissions();
        permissions.set_readonly(true);
        self.file
            .set_permissions(permissions)
            .and_then(|()| self.file.sync_all())
            .and_then(|()| fs::rename(&self.data, &place))
            .wrap(Kind::Environment, context)?;
        sync_parent(&place)?;
        remove(&self.state_path)
    }

    /// Deletes what is here.
    pub fn discard(self) -> Result<()> {
        remove(&self.state_path)?;
        remove(&self.data)
    }

    fn writing(&self) -> String {
        format!("write `{}`", self.data.display())
    }
}

/// SHA-256 of a file, in hex.
pub(super) fn sha256_of(path: &Path, cancel: &Cancel) -> Result<String> {
    let context = || format!("read `{}`", path.display());
    let mut file = File::open(path).context(context)?;
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; BUFFER];
    loop {
        cancel.check()?;
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(hash.finish().as_ref())),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).wrap(Kind::Environment, context),
        }
    }
}

/// Whether a text is a SHA-256 as manifests spell it.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Git names a file by the SHA-1 of a header and its content
/// (<https://git-scm.com/book/en/v2/Git-Internals-Git-Objects>).
fn git_context(bytes: u64) -> digest::Context {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(format!("blob {bytes}\0").as_bytes());
    context
}

/// Bytes in hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Writes a small file aside, makes it durable, renames it to its place.
fn write_whole<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    create_parent(path)?;
    let context = || format!("write `{}`", path.display());
    let mut text = serde_json::to_string_pretty(value).wrap(Kind::Internal, context)?;
    text.push('\n');
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(
        ".tmp{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Relaxed)
    ));
    let aside = PathBuf::from(aside);
    File::create(&aside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&aside, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&aside);
        })
        .wrap(Kind::Environment, context)?;
    sync_parent(path)
}

fn create_parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .wrap(Kind::Environment, || format!("create `{}`", folder.display()))
        .map_err(|error| error.hint(crate::store::ELSEWHERE))
}

pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).wrap(Kind::Environment, || format!("delete `{}`", path.display()))
        }
        _ => Ok(()),
    }
}
