//! The remote cache: artifacts and action records in a bucket or a folder that machines share.
//!
//! # Layout
//!
//! | below the URL | content |
//! |---|---|
//! | `actions/<kind>/<key>.json` | the action record of a key, as the store writes it ([`crate::store::record`]) |
//! | `files/<ab>/<digest>` | a file of an artifact, by the BLAKE3 of its content: artifacts share equal files |
//!
//! A push uploads the missing files, then the record: if a process finds a record, its files exist. A pull trusts
//! nothing. It checks that the record is complete and belongs to the requested key, that the digests of its files give
//! the digest of its artifact, that their paths stay within the artifact, and that each download has the recorded
//! length and digest. An artifact that fails a check is refused, reported ([`Remote::troubles`]) and made again; a
//! later push replaces it. Only running the stage could check that a key really gives the recorded result: users with
//! write access to a remote are trusted for that.
//!
//! Partial downloads stay in the key's scratch folder, so that an interrupted or killed pull resumes from there.

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{Read, Write as _};
use std::path::{Component, Path};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _, PutPayload, WriteMultipart};
use tokio::runtime::Runtime;

use crate::data::fetch::{self, Settings};
use crate::error::{Context as _, Error, Kind, Result, Wrap as _};
use crate::event::Cancel;
use crate::plural::counted;
use crate::store::digest::{digest_of, hash_file};
use crate::store::{Digest, FileEntry, Key, KeyLock, Record, Store};

#[cfg(test)]
mod tests;

/// Files that are on their way at a time.
const AT_ONCE: usize = 8;
/// Bytes of a part of a large file on its way there; no service takes less than 5 MiB.
const PART: usize = 16 << 20;
/// The largest record that is read: those of a million files have a tenth of it.
const LARGEST_RECORD: u64 = 1 << 30;
/// Files whose part on its way stands still for this long are asked for again.
const ATTEMPTS: u32 = 6;

/// A place that machines share.
pub struct Remote {
    url: String,
    objects: Arc<dyn ObjectStore>,
    /// What it takes to be let in.
    hint: &'static str,
    settings: Settings,
    read_only: bool,
    runtime: Runtime,
    found: Mutex<HashMap<Digest, Option<Box<Record>>>>,
    /// Files that are not there although a record names them, or not what their names say: the next push replaces them.
    unfit: Mutex<HashSet<Digest>>,
    troubles: Mutex<Vec<String>>,
    /// Why it did not answer: it is not asked again.
    silent: OnceLock<String>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// What a transfer moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Files that were not there.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How far a transfer is: bytes done, and in all.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Sync);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Remote {
    /// The folder below a key's scratch in which what is fetched arrives.
    pub const SCRATCH: &'static str = "fetched";

    /// The remote at a URL: `s3://BUCKET/folder`, `gs://…`, `az://…` or `file:///folder`.
    ///
    /// # Errors
    /// Another kind of URL, no such local folder, settings of the environment that make no sense.
    pub fn open(url: &str, read_only: bool) -> Result<Self> {
        Self::open_with(url, read_only, Settings::from_environment())
    }

    /// [`Remote::open`] with other settings than the environment's.
    ///
    /// # Errors
    /// The errors of [`Remote::open`].
    pub fn open_with(url: &str, read_only: bool, settings: Settings) -> Result<Self> {
        let opening = || format!("use the remote `{url}`");
        let (objects, hint): (Arc<dyn ObjectStore>, _) = if let Some(path) = url.strip_prefix("file://") {
            let path = Path::new(path);
            if !path.is_absolute() {
                return Err(
                    Error::input(format!("use the remote `{url}`: its path is not absolute"))
                        .hint("write a folder with three slashes: `file:///srv/mdlm`"),
                );
            }
            if !read_only {
                fs::create_dir_all(path).wrap(Kind::Environment, opening)?;
            }
            let folder = LocalFileSystem::new_with_prefix(path).wrap(Kind::Environment, opening)?;
            (
                Arc::new(folder),
                "create the folder, and make it readable for this user",
            )
        } else if !["s3://", "gs://", "az://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            return Err(Error::input(format!(
                "use the remote `{url}`: it is not the URL of a cache that machines can share"
            ))
            .hint("write `s3://BUCKET/folder`, `gs://…`, `az://…`, or a folder as `file:///srv/mdlm`"));
        } else if !url
            .split_once("://")
            .is_some_and(|(_, rest)| rest.trim_end_matches('/').contains('/'))
        {
            return Err(Error::input(format!(
                "use the remote `{url}`: it does not name a folder of a bucket"
            ))
            .hint(format!("write `{}/mdlm`", url.trim_end_matches('/'))));
        } else {
            let (objects, prefix, hint) = fetch::objects(url, &settings).context(opening)?;
            let prefix = ObjectPath::parse(&prefix).wrap(Kind::Input, opening)?;
            (Arc::new(PrefixStore::new(objects, prefix)), hint)
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .wrap(Kind::Environment, opening)?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            objects,
            hint,
            settings,
            read_only,
            runtime,
            found: Mutex::default(),
            unfit: Mutex::default(),
            troubles: Mutex::default(),
            silent: OnceLock::new(),
        })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// That it did not answer and why, if it did not.
    ///
    /// # Errors
    /// The remote does not answer.
    pub fn answers(&self) -> Result<()> {
        match self.silent.get() {
            Some(why) => Err(Error::environment(why.clone()).hint(self.hint)),
            None => Ok(()),
        }
    }

    /// Whether nothing is written to it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// What went wrong since the last call, a line each; no run stops for it.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.troubles))
    }

    /// The record of a key, if there is a good one. A bad one, and a remote that does not answer, is as none: see
    /// [`Remote::troubles`].
    #[must_use]
    pub fn find(&self, key: &Key) -> Option<Record> {
        let digest = key.digest();
        if let Some(known) = locked(&self.found).get(&digest) {
            return known.as_deref().cloned();
        }
        if self.answers().is_err() {
            return None;
        }
        let found = self.runtime.block_on(self.read(key, &digest));
        let record = found.unwrap_or_else(|error| {
            if error.kind() == Kind::Environment {
                self.trouble(format!("continuing without the remote: {error}"));
                // Of two threads that find out at once, either may report.
                let _ = self.silent.set(error.to_string());
            } else {
                self.trouble(format!("{error}; it is not used"));
            }
            None
        });
        locked(&self.found).insert(digest, record.clone().map(Box::new));
        record
    }

    fn trouble(&self, text: String) {
        locked(&self.troubles).push(text);
    }

    async fn read(&self, key: &Key, digest: &Digest) -> Result<Option<Record>> {
        let place = record_place(key, digest);
        let doing = || format!("read `{}/{place}`", self.url);
        let answer = match self.objects.get(&place).await {
            Ok(answer) => answer,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.fault(&error).context(doing())),
        };
        if answer.meta.size > LARGEST_RECORD {
            return Err(Error::input(format!("it has {} bytes", answer.meta.size)).context(doing()));
        }
        let bytes = answer
            .bytes()
            .await
            .map_err(|error| self.fault(&error).context(doing()))?;
        let text = std::str::from_utf8(&bytes).wrap(Kind::Input, doing)?;
        let record = Record::from_text(text).map_err(|error| error.context(doing()))?;
        check(&record, key).map_err(|error| error.context(doing()))?;
        Ok(Some(record))
    }

    /// Brings the artifact of a record into the store, whose key's lock is held, and commits it.
    ///
    /// # Errors
    /// The network fails, the contents do not match the record, the disk is full, or the run is cancelled.
    pub fn fetch(
        &self,
        store: &Store,
        lock: &KeyLock,
        record: &Record,
        cancel: &Cancel,
        progress: Progress<'_>,
    ) -> Result<Record> {
        check(record, &record.key)?;
        let (staging, work) = store.stage(lock)?;
        let arrived = work.join(Self::SCRATCH);
        let total = sum(&record.files);
        let done = AtomicU64::new(0);
        progress(0, total);
        let folder = || format!("create `{}`", arrived.display());
        fs::create_dir_all(&arrived).wrap(Kind::Environment, folder)?;
        let mut contents: Vec<&FileEntry> = record.files.iter().collect();
        contents.sort_by_key(|file| file.digest);
        contents.dedup_by_key(|file| file.digest);
        let took = |bytes| progress(done.fetch_add(bytes, Relaxed) + bytes, total);
        self.runtime.block_on(async {
            stream::iter(contents)
                .map(|file| self.fetch_file(file, &arrived, cancel, &took))
                .buffer_unordered(AT_ONCE)
                .try_collect::<()>()
                .await
        })?;
        for (index, file) in record.files.iter().enumerate() {
            let (from, to) = (arrived.join(file.digest.to_string()), staging.join(&file.path));
            let placing = || format!("write `{}`", to.display());
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).wrap(Kind::Environment, placing)?;
            }
            // Two names for one content are two files: what corrupts the one leaves the other.
            let again = record.files[index + 1..]
                .iter()
                .any(|other| other.digest == file.digest);
            if again {
                fs::copy(&from, &to).map(drop)
            } else {
                fs::rename(&from, &to)
            }
            .wrap(Kind::Environment, placing)?;
        }
        let made = store.commit(lock, |artifact, files| Record {
            artifact,
            files,
            ..record.clone()
        })?;
        if made.artifact != record.artifact {
            return Err(Error::internal(
                "the fetched files changed before they were committed",
            ));
        }
        Ok(made)
    }

    /// Brings one file, whole and checked, into a folder where it has its digest for a name.
    async fn fetch_file(
        &self,
        file: &FileEntry,
        folder: &Path,
        cancel: &Cancel,
        took: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let place = file_place(&file.digest);
        let path = folder.join(file.digest.to_string());
        let doing = || format!("fetch `{}/{place}`", self.url);
        let mut wait = self.settings.first_wait;
        let mut attempt = 0;
        // What is here of it came at another time, perhaps of another file.
        let mut resumed = length(&path) > 0;
        loop {
            let before = length(&path);
            match self.attempt(file, &place, &path, cancel, took).await {
                Ok(()) if hash_file(&path)? == (file.bytes, file.digest) => return Ok(()),
                Ok(()) => {
                    fs::remove_file(&path)
                        .wrap(Kind::Environment, || format!("delete `{}`", path.display()))?;
                    if resumed {
                        resumed = false;
                        continue;
                    }
                    locked(&self.unfit).insert(file.digest);
                    return Err(
                        Error::input("its content does not match the digest in its name").context(doing())
                    );
                }
                Err(Trouble::Final(error)) => return Err(error.context(doing())),
                Err(Trouble::Passing(error)) => {
                    attempt = if length(&path) > before { 0 } else { attempt + 1 };
                    if attempt >= ATTEMPTS {
                        return Err(error.context(doing()));
                    }
                    fetch::unless_cancelled(cancel, tokio::time::sleep(wait)).await?;
                    wait = (wait * 2).min(self.settings.longest_wait);
                }
            }
        }
    }

    /// One request, from where the file ends that is here.
    async fn attempt(
        &self,
        file: &FileEntry,
        place: &ObjectPath,
        path: &Path,
        cancel: &Cancel,
        took: &(dyn Fn(u64) + Sync),
    ) -> Result<(), Trouble> {
        let writing = || format!("write `{}`", path.display());
        let mut have = length(path);
        if have > file.bytes {
            fs::remove_file(path).wrap(Kind::Environment, writing)?;
            have = 0;
        }
        let mut local = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .wrap(Kind::Environment, writing)?;
        if have == file.bytes {
            return Ok(());
        }
        let options = GetOptions {
            range: (have > 0).then_some(GetRange::Offset(have)),
            ..GetOptions::default()
        };
        let answer = fetch::unless_cancelled(cancel, self.objects.get_opts(place, options)).await?;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error @ object_store::Error::NotFound { .. }) => {
                locked(&self.unfit).insert(file.digest);
                return Err(Trouble::Final(Error::input(error.to_string())));
            }
            Err(error) => return Err(Trouble::Final(self.fault(&error))),
        };
        let size = answer.meta.size;
        if size != file.bytes {
            locked(&self.unfit).insert(file.digest);
            let message = format!("it has {} instead of {}", counted(size, "byte"), file.bytes);
            return Err(Trouble::Final(Error::input(message)));
        }
        if answer.range.start != have {
            local.set_len(0).wrap(Kind::Environment, writing)?;
            if answer.range.start != 0 {
                let message = format!(
                    "the remote sent the bytes from {} on when asked for those from {have} on",
                    answer.range.start
                );
                return Err(Trouble::Passing(Error::environment(message)));
            }
            have = 0;
        }
        let mut stream = answer.into_stream();
        while let Some(bytes) = fetch::unless_cancelled(cancel, stream.next()).await? {
            let bytes = bytes.map_err(|error| Trouble::Passing(self.fault(&error)))?;
            have += bytes.len() as u64;
            if have > file.bytes {
                let message = format!("the remote sent more than its {}", counted(file.bytes, "byte"));
                return Err(Trouble::Final(Error::input(message)));
            }
            local.write_all(&bytes).wrap(Kind::Environment, writing)?;
            took(bytes.len() as u64);
        }
        if have < file.bytes {
            let message = format!(
                "the connection broke after {have} of {}",
                counted(file.bytes, "byte")
            );
            return Err(Trouble::Passing(Error::environment(message)));
        }
        Ok(())
    }

    /// Puts the artifact of a record, and then the record, where they are not there already.
    ///
    /// # Errors
    /// The remote is read-only, the network fails, a file of the artifact cannot be read, or the run is cancelled.
    pub fn push(
        &self,
        store: &Store,
        record: &Record,
        cancel: &Cancel,
        progress: Progress<'_>,
    ) -> Result<Moved> {
        if self.read_only {
            return Err(
                Error::input(format!("push to `{}`: the remote is read-only", self.url))
                    .hint("leave out `--remote-read-only`"),
            );
        }
        let known = self.find(&record.key);
        let is_unfit = |file: &FileEntry| locked(&self.unfit).contains(&file.digest);
        let damaged = record.files.iter().any(is_unfit);
        if known
            .as_ref()
            .is_some_and(|there| there.artifact == record.artifact)
            && !damaged
        {
            return Ok(Moved::default());
        }
        self.answers().context(|| format!("push to `{}`", self.url))?;
        let folder = store.artifact_path(&record.artifact);
        let mut contents: Vec<&FileEntry> = record.files.iter().collect();
        contents.sort_by_key(|file| file.digest);
        contents.dedup_by_key(|file| file.digest);
        let total: u64 = contents.iter().map(|file| file.bytes).sum();
        let done = AtomicU64::new(0);
        let (files, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        progress(0, total);
        let (digest, place) = {
            let digest = record.key.digest();
            (digest, record_place(&record.key, &digest))
        };
        self.runtime.block_on(async {
            let sending = contents.into_iter().map(|file| {
                let (done, files, bytes, folder) = (&done, &files, &bytes, &folder);
                async move {
                    if self.send(file, &folder.join(&file.path), cancel).await? {
                        files.fetch_add(1, Relaxed);
                        bytes.fetch_add(file.bytes, Relaxed);
                    }
                    progress(done.fetch_add(file.bytes, Relaxed) + file.bytes, total);
                    Ok::<(), Error>(())
                }
            });
            stream::iter(sending)
                .buffer_unordered(AT_ONCE)
                .try_collect::<()>()
                .await?;
            let text = record.to_text()?;
            let put = self.objects.put(&place, PutPayload::from(text.into_bytes()));
            let put = fetch::unless_cancelled(cancel, put).await?;
            put.map_err(|error| {
                self.fault(&error)
                    .context(format!("write `{}/{place}`", self.url))
            })?;
            Ok::<(), Error>(())
        })?;
        locked(&self.found).insert(digest, Some(Box::new(record.clone())));
        Ok(Moved {
            files: files.into_inner(),
            bytes: bytes.into_inner(),
        })
    }

    /// Puts a file unless it is there with its length. Whether it was put.
    async fn send(&self, file: &FileEntry, path: &Path, cancel: &Cancel) -> Result<bool> {
        let place = file_place(&file.digest);
        let doing = || format!("write `{}/{place}`", self.url);
        let is_unfit = locked(&self.unfit).contains(&file.digest);
        if !is_unfit {
            match fetch::unless_cancelled(cancel, self.objects.head(&place)).await? {
                Ok(there) if there.size == file.bytes => return Ok(false),
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.fault(&error).context(doing())),
            }
        }
        let reading = || format!("read `{}`", path.display());
        let mut local = fs::File::open(path).wrap(Kind::Environment, reading)?;
        let mut hasher = blake3::Hasher::new();
        let mut part = || -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            Read::take(&mut local, PART as u64)
                .read_to_end(&mut bytes)
                .wrap(Kind::Environment, reading)?;
            hasher.update(&bytes);
            Ok(bytes)
        };
        let sent = if file.bytes <= PART as u64 {
            let bytes = part()?;
            if Digest::of(&bytes) != file.digest {
                return Err(corrupt(path));
            }
            fetch::unless_cancelled(cancel, self.objects.put(&place, PutPayload::from(bytes)))
                .await?
                .map(drop)
        } else {
            let upload = fetch::unless_cancelled(cancel, self.objects.put_multipart(&place)).await?;
            let upload = upload.map_err(|error| self.fault(&error).context(doing()))?;
            let mut upload = WriteMultipart::new_with_chunk_size(upload, PART);
            loop {
                let ready = fetch::unless_cancelled(cancel, upload.wait_for_capacity(2)).await;
                let bytes = match ready {
                    Ok(Ok(())) => part(),
                    Ok(Err(error)) => Err(self.fault(&error).context(doing())),
                    Err(error) => Err(error),
                };
                match bytes {
                    Ok(bytes) if bytes.is_empty() => break,
                    Ok(bytes) => upload.put(bytes.into()),
                    Err(error) => {
                        // The partial upload is useless; a failure to delete it matters less than the cause.
                        let _ = upload.abort().await;
                        return Err(error);
                    }
                }
            }
            if hasher.finalize().to_hex().as_str() != file.digest.to_string() {
                let _ = upload.abort().await;
                return Err(corrupt(path));
            }
            upload.finish().await.map(drop)
        };
        sent.map_err(|error| self.fault(&error).context(doing()))?;
        locked(&self.unfit).remove(&file.digest);
        Ok(true)
    }

    fn fault(&self, error: &object_store::Error) -> Error {
        Error::environment(fetch::explained(error)).hint(self.hint)
    }
}

/// What a failed attempt means.
enum Trouble {
    /// The next one may go better.
    Passing(Error),
    /// It may not.
    Final(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Checks that a record has the key, and that its artifact's digest, files and lengths agree.
fn check(record: &Record, key: &Key) -> Result<()> {
    if record.key != *key {
        return Err(Error::input("the record belongs to another key"));
    }
    if let Some(file) = record.files.iter().find(|file| !stays_within(&file.path)) {
        return Err(Error::input(format!(
            "its file `{}` lies outside its artifact",
            file.path
        )));
    }
    if digest_of(&record.files) != record.artifact || !record.files.is_sorted_by(|a, b| a.path < b.path) {
        return Err(Error::input("its files do not add up to its artifact"));
    }
    Ok(())
}

/// Whether a path leads down and nowhere else.
fn stays_within(path: &str) -> bool {
    let plain = |part| matches!(part, Component::Normal(_));
    !path.is_empty() && !path.contains(['\\', '\0']) && Path::new(path).components().all(plain)
}

fn corrupt(path: &Path) -> Error {
    Error::environment(format!("`{}` is corrupt: it is not pushed", path.display()))
        .hint("`mdlm verify` moves it to quarantine, and the next run makes it again")
}

fn record_place(key: &Key, digest: &Digest) -> ObjectPath {
    ObjectPath::from_iter(["actions".to_owned(), key.kind.clone(), format!("{digest}.json")])
}

fn file_place(digest: &Digest) -> ObjectPath {
    let name = digest.to_string();
    ObjectPath::from_iter(["files", &name[..2], name.as_str()])
}

fn sum(files: &[FileEntry]) -> u64 {
    files.iter().map(|file| file.bytes).sum()
}

/// Bytes of a file; none where there is none.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}
