//! Downloads remote files once and keeps them.
//!
//! # Sources
//!
//! | URL | how | pinned by |
//! |---|---|---|
//! | `https://…`, `http://…` | ranges, redirects (never from https down to http), proxies | `sha256` |
//! | `hf://datasets/OWNER/NAME@REVISION/path-or-glob`, `hf://models/…` or `hf://OWNER/…`, `hf://spaces/…` | the hub's HTTP interface ([`hub`]) | `sha256`, or a commit as REVISION |
//! | `s3://BUCKET/key-or-glob`, `gs://…`, `az://…` | `object_store` ([`bucket`]) | `sha256` |
//!
//! The manifest has to mark a URL that is not pinned as `unpinned`. The content of its first download then stays until
//! it is [forgotten](forget).
//!
//! # Layout of the folder
//!
//! | below it | content |
//! |---|---|
//! | `sha256/ab/abcdef…` | complete files, read-only, named by their content |
//! | `index/<hash>.json` | the content that a URL (or glob) had: later runs need no network to find it |
//! | `partial/<hash>`, `partial/<hash>.json` | an incomplete download; its URL, validator (`ETag`), length, and how much of it was synced |
//! | `locks/<hash>` | held by the process that downloads the URL; other processes wait for it |
//! | `locks/content` | shared by the processes that download or read complete files; a process that deletes files holds it exclusively |
//!
//! `<hash>` is the hash of the URL and of the `exclude` patterns of a glob. A file is renamed to its final path once it
//! is complete, checked and on disk. So a process may die at any byte: the next one resumes where it ended, or starts
//! again, and never mistakes a partial file for a complete one. It resumes only if the server still has the same
//! version (`If-Range` with a strong validator), or if a checksum will detect a change.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use serde::{Deserialize, Serialize};

mod answer;
mod bucket;
mod cache;
mod hub;
mod inventory;
mod place;
mod settings;
mod transfer;
mod web;

#[cfg(test)]
pub(crate) mod tests;

pub use inventory::{Begun, Download, DownloadedFile, Forgotten, Inventory, forget, inventory};
pub use place::shown;
pub use settings::{Proxies, Settings};

pub(crate) use answer::unless_cancelled;
pub(crate) use bucket::explained;

use bucket::Bucket;
use cache::{Cache, Expected, IndexedFile, Keep, Lock, is_sha256};
use place::RemotePlace;
use transfer::{Job, Origin, Surroundings, within_limit};

use crate::error::{Context as _, Error, Kind, Remedy, Result, Wrap as _};
use crate::event::Cancel;
use crate::manifest::reading::RemoteFile;
use crate::plural::counted;

/// A downloaded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it lies, named by its content.
    pub path: PathBuf,
    /// Where it came from: the URL, of a glob that of the match; of a web URL without user, password and query.
    pub url: String,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// How far a download is.
#[derive(Clone, Copy, Debug)]
pub struct FetchProgress<'a> {
    /// The URL; of a web URL without user, password and query.
    pub url: &'a str,
    /// Bytes here.
    pub done: u64,
    /// Bytes of the file, where the server says.
    pub total: Option<u64>,
}

/// A folder of downloads in use: no file is deleted from it while the value lives.
pub struct Downloads {
    cache: Cache,
    _in_use: Option<Lock>,
}

impl Downloads {
    /// The downloads in that folder, which need not exist yet.
    ///
    /// # Errors
    /// The run is cancelled.
    pub fn open(folder: &Path, cancel: &Cancel) -> Result<Self> {
        let cache = Cache::at(folder);
        let in_use = cache.in_use(cancel)?;
        Ok(Self {
            cache,
            _in_use: in_use,
        })
    }

    /// What the globs that were fetched leave out.
    #[must_use]
    pub fn left_out(&self) -> Tally {
        self.cache.tally()
    }
}

/// What globs match and what is not downloaded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Hidden files and system files.
    #[serde(default)]
    pub passed_over: u64,
    /// Files that `exclude` matches.
    #[serde(default)]
    pub excluded: u64,
    /// Patterns of `exclude` that match nothing.
    #[serde(default)]
    pub idle: Vec<String>,
}

impl Tally {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// How many files a glob that matches nothing else leaves out, to end a message.
    fn message(&self) -> String {
        let mut text = String::new();
        if self.passed_over > 0 {
            let count = self.passed_over;
            text = format!("; {count} hidden or system files are skipped unless the pattern names them");
        }
        if self.excluded > 0 {
            let _ = write!(text, "; `exclude` leaves out {}", self.excluded);
        }
        text
    }

    /// What a user should know: patterns of `exclude` that exclude nothing.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let warning = |pattern: &String| {
            format!(
                "`exclude` pattern `{pattern}` matches no file that the glob of the URL matches: a pattern \
                 starts at the root of the repository or bucket, and `**/` matches any folder"
            )
        };
        self.idle.iter().map(warning).collect()
    }
}

/// The bucket of a URL `s3://BUCKET/FOLDER`, `gs://…` or `az://…`, the folder, and what it takes to be let in.
///
/// # Errors
/// Another kind of URL, or settings of the environment that make no sense.
pub(crate) fn objects(
    url: &str,
    settings: &Settings,
) -> Result<(Arc<dyn ObjectStore>, String, &'static str)> {
    let RemotePlace::Bucket(place) = RemotePlace::parse(url.trim_end_matches('/'))? else {
        return Err(Error::input(format!("`{}` is not a bucket", shown(url)))
            .hint("write it as `s3://BUCKET/folder`, `gs://…`, `az://…` or `file:///folder`"));
    };
    let bucket = Bucket::open_store(&place, settings)?;
    Ok((bucket.store, place.key, bucket.credentials))
}

/// The files that `remote` stands for, downloaded into the folder unless they lie there already. Of a glob, by name.
///
/// # Errors
/// The network fails, a checksum is wrong, a file is too large, the disk is full, or the run is cancelled.
pub fn fetch(
    remote: &RemoteFile,
    downloads: &Downloads,
    cancel: &Cancel,
    progress: &dyn Fn(FetchProgress<'_>),
) -> Result<Vec<Fetched>> {
    fetch_with(&Settings::from_environment(), remote, downloads, cancel, progress)
}

/// [`fetch`] with other settings than the environment's.
///
/// # Errors
/// The errors of [`fetch`].
pub fn fetch_with(
    settings: &Settings,
    remote: &RemoteFile,
    downloads: &Downloads,
    cancel: &Cancel,
    progress: &dyn Fn(FetchProgress<'_>),
) -> Result<Vec<Fetched>> {
    let context = || format!("download `{}`", shown(&remote.url));
    let place = validated(remote).context(context)?;
    let cache = &downloads.cache;
    let with = Surroundings {
        cache,
        settings,
        cancel,
        progress,
    };
    let entries = entries(remote, &place, with).context(context)?;
    for entry in &entries {
        within_limit(entry.bytes, remote.max_bytes).context(context)?;
    }
    let fetched = |entry: IndexedFile| Fetched {
        path: cache.path(&entry.sha256),
        url: entry.url,
        sha256: entry.sha256,
        bytes: entry.bytes,
    };
    Ok(entries.into_iter().map(fetched).collect())
}

/// Whether `remote` is something that [`fetch`] would try: a URL that it knows, and pinned or said not to be.
///
/// # Errors
/// The URL has an unknown scheme or form, or it is neither pinned nor marked as unpinned.
pub fn validate(remote: &RemoteFile) -> Result<()> {
    validated(remote).context(|| format!("download `{}`", shown(&remote.url)))?;
    Ok(())
}

/// SHA-256 of a file, in hex: what a file that was brought by hand is checked by.
///
/// # Errors
/// The file cannot be read, or the run is cancelled.
pub fn sha256_of(path: &Path, cancel: &Cancel) -> Result<String> {
    cache::sha256_of(path, cancel)
}

/// Whether [`fetch`] would have to ask the network for `remote`, given the folder of downloads.
#[must_use]
pub fn is_missing(remote: &RemoteFile, folder: &Path) -> bool {
    in_folder(remote, folder).is_none()
}

/// Where the file that `remote` names lies in the folder of downloads, if it is there and is one file.
#[must_use]
pub fn place_of(remote: &RemoteFile, folder: &Path) -> Option<PathBuf> {
    match in_folder(remote, folder)?.as_slice() {
        [entry] => Some(Cache::at(folder).path(&entry.sha256)),
        _ => None,
    }
}

fn in_folder(remote: &RemoteFile, folder: &Path) -> Option<Vec<IndexedFile>> {
    let place = validated(remote).ok()?;
    let identity = identity(remote, &place, &Settings::from_environment());
    here(remote, &place, &identity, &Cache::at(folder))
}

fn validated(remote: &RemoteFile) -> Result<RemotePlace> {
    let place = RemotePlace::parse(&remote.url)?;
    if let Some(sha256) = &remote.sha256 {
        if !is_sha256(sha256) {
            return Err(Error::input(format!("read `{sha256}` as a SHA-256"))
                .hint("it has 64 digits 0-9, a-f; `sha256sum FILE` shows it"));
        }
    } else if !remote.unpinned && !place.is_pinned() {
        return Err(Error::input("not pinned: the contents may change between runs").hint(
            "state its `sha256`, or `\"unpinned\": true`, which takes the present contents and records them; on the \
             hub a commit (`@` and 40 hex digits) pins all files",
        ));
    }
    Ok(place)
}

/// What is here of it, where that is all.
fn here(remote: &RemoteFile, place: &RemotePlace, identity: &str, cache: &Cache) -> Option<Vec<IndexedFile>> {
    if let Some(sha256) = &remote.sha256 {
        Some(vec![IndexedFile {
            url: shown(&remote.url),
            sha256: sha256.clone(),
            bytes: cache.find(sha256)?,
        }])
    } else {
        let mut index = cache.known_index(identity)?;
        let listed = index.files.len();
        // One of before may hold what globs pass over now.
        if let Some(pattern) = place.glob() {
            let pattern = place::Pattern::new(pattern).ok()?;
            index
                .files
                .retain(|entry| place.path_of(&entry.url).is_none_or(|path| pattern.takes(path)));
        }
        index.left_out.passed_over += (listed - index.files.len()) as u64;
        cache.count(&index.left_out);
        (!index.files.is_empty()).then_some(index.files)
    }
}

/// What a download is known by in the cache: the same key on another server is another file, and a glob with exclusions
/// stands for other files.
fn identity(remote: &RemoteFile, place: &RemotePlace, settings: &Settings) -> String {
    let mut identity = match place {
        RemotePlace::Bucket(place) => format!("{}\0{}", remote.url, place.cloud.endpoint(settings)),
        _ => remote.url.clone(),
    };
    if place.glob().is_some() {
        for pattern in &remote.exclude {
            identity += "\0exclude\0";
            identity += pattern;
        }
    }
    identity
}

fn entries(remote: &RemoteFile, place: &RemotePlace, with: Surroundings<'_>) -> Result<Vec<IndexedFile>> {
    let Surroundings {
        cache,
        settings,
        cancel,
        progress,
    } = with;
    let identity = identity(remote, place, settings);
    if let Some(entries) = here(remote, place, &identity, cache) {
        return Ok(entries);
    }
    if settings.offline {
        return Err(web::unreachable(
            "it is not downloaded yet, and HF_HUB_OFFLINE forbids downloads",
        ));
    }
    let shown = shown(&remote.url);
    let waiting = |done| {
        progress(FetchProgress {
            url: &shown,
            done,
            total: None,
        });
    };
    let _lock = cache.lock(&identity, cancel, &waiting)?;
    if let Some(entries) = here(remote, place, &identity, cache) {
        return Ok(entries);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .wrap(Kind::Environment, || "start the download".to_owned())?;
    let entries = runtime.block_on(async {
        match place {
            RemotePlace::Web(url) => {
                let client = web::client(settings, settings.connect_timeout, false)?;
                let job = Job {
                    origin: Origin::Web {
                        client: &client,
                        url: url.clone(),
                        token: None,
                    },
                    identity: &identity,
                    shown: &shown,
                    expected: expected(remote),
                    max_bytes: remote.max_bytes,
                    keep: keep(remote, &identity, cache),
                };
                Ok(vec![transfer::download(&job, with).await?])
            }
            RemotePlace::Hub(place) => hub_entries(remote, place, &identity, &shown, with).await,
            RemotePlace::Bucket(place) => {
                let bucket = Bucket::open_store(place, settings)?;
                bucket_entries(&bucket, remote, place, &identity, &shown, with).await
            }
        }
    });
    // A name that is being looked up cannot be given up; it is not waited for.
    runtime.shutdown_background();
    entries
}

fn expected(remote: &RemoteFile) -> Expected {
    Expected {
        sha256: remote.sha256.clone(),
        ..Expected::default()
    }
}

/// What is kept of a download beside the file: of one with a checksum a separate index is of no use if there is one,
/// on which a manifest without a checksum may rely.
fn keep(remote: &RemoteFile, identity: &str, cache: &Cache) -> Keep {
    let pinned = remote.sha256.is_some();
    if pinned && cache.known(identity).is_some() {
        Keep::File
    } else {
        Keep::Index { pinned }
    }
}

/// A checksum is of one file.
fn one_for_a_checksum(remote: &RemoteFile, files: usize) -> Result<()> {
    if remote.sha256.is_some() && files != 1 {
        return Err(Error::input(format!(
            "the glob matches {}, but `sha256` is the checksum of one file",
            counted(files, "file")
        ))
        .hint("name each file with its own `sha256`, or a commit of the hub, which pins all"));
    }
    Ok(())
}

async fn hub_entries(
    remote: &RemoteFile,
    place: &place::HubPlace,
    identity: &str,
    shown: &str,
    with: Surroundings<'_>,
) -> Result<Vec<IndexedFile>> {
    let Surroundings {
        cache,
        settings,
        cancel,
        progress,
    } = with;
    let client = web::client(settings, settings.connect_timeout, false)?;
    let hub = hub::Hub {
        client: &client,
        settings,
        cancel,
    };
    let (files, left_out) = hub.files(place, &remote.exclude).await?;
    cache.count(&left_out);
    one_for_a_checksum(remote, files.len())?;
    let mut entries = Vec::new();
    for file in files {
        let mut wanted = file.expected;
        if let Some(sha256) = &remote.sha256 {
            if let Some(listed) = wanted.sha256.as_ref().filter(|listed| *listed != sha256) {
                let message = format!(
                    "the hub has `{}` with SHA-256 {listed} instead of {sha256}",
                    file.path
                );
                let error = Error::input(message).hint("name the commit that has the version you want");
                return Err(error.remedy(Remedy::Reference));
            }
            wanted.sha256 = Some(sha256.clone());
        }
        if let Some(bytes) = wanted.bytes {
            within_limit(bytes, remote.max_bytes).context(|| format!("`{}`", file.path))?;
        }
        let known = |sha256: &String| {
            Some(IndexedFile {
                url: file.shown.clone(),
                sha256: sha256.clone(),
                bytes: cache.find(sha256)?,
            })
        };
        let find = || match wanted.sha256.as_ref() {
            Some(sha256) => known(sha256),
            None => cache.known(&file.shown)?.into_iter().next(),
        };
        if let Some(entry) = find() {
            entries.push(entry);
            continue;
        }
        let waiting = |done| {
            progress(FetchProgress {
                url: &file.shown,
                done,
                total: wanted.bytes,
            });
        };
        // Of a single file, the lock of the whole may be its lock.
        let other = file.shown != identity;
        let _lock = other
            .then(|| cache.lock(&file.shown, cancel, &waiting))
            .transpose()?;
        if let Some(entry) = find() {
            entries.push(entry);
            continue;
        }
        let job = Job {
            origin: Origin::Web {
                client: &client,
                url: file.url.clone(),
                token: hub.token(),
            },
            identity: &file.shown,
            shown: &file.shown,
            expected: wanted.clone(),
            max_bytes: remote.max_bytes,
            // The commit in its name pins it.
            keep: Keep::Index { pinned: true },
        };
        let entry = transfer::download(&job, with).await;
        entries.push(entry.context(|| format!("`{}`", file.path))?);
    }
    let pinned = remote.sha256.is_some() || place.is_commit();
    cache.remember(identity, shown, pinned, entries.clone(), left_out)?;
    Ok(entries)
}

async fn bucket_entries(
    bucket: &Bucket,
    remote: &RemoteFile,
    place: &place::BucketPlace,
    identity: &str,
    shown: &str,
    with: Surroundings<'_>,
) -> Result<Vec<IndexedFile>> {
    let Surroundings {
        cache,
        settings,
        cancel,
        progress,
    } = with;
    let (keys, left_out) = bucket.keys(place, &remote.exclude, cancel).await?;
    cache.count(&left_out);
    one_for_a_checksum(remote, keys.len())?;
    let start = &remote.url[..remote.url.len() - place.key.len()];
    let mut entries = Vec::new();
    for key in keys {
        let url = format!("{start}{key}");
        let own = format!("{url}\0{}", place.cloud.endpoint(settings));
        let waiting = |done| {
            progress(FetchProgress {
                url: &url,
                done,
                total: None,
            });
        };
        // Of a single object, the lock of the whole is its lock.
        let _lock = (own != identity)
            .then(|| cache.lock(&own, cancel, &waiting))
            .transpose()?;
        if own != identity
            && let Some(mut known) = cache.known(&own)
        {
            entries.append(&mut known);
            continue;
        }
        let job = Job {
            origin: Origin::Bucket {
                bucket,
                key: key.clone(),
            },
            identity: &own,
            shown: &url,
            expected: expected(remote),
            max_bytes: remote.max_bytes,
            keep: keep(remote, &own, cache),
        };
        let entry = transfer::download(&job, with).await;
        entries.push(entry.context(|| format!("`{key}`"))?);
    }
    if place.key != entries.first().map_or("", |entry| &entry.url[start.len()..]) {
        cache.remember(
            identity,
            shown,
            remote.sha256.is_some(),
            entries.clone(),
            left_out,
        )?;
    }
    Ok(entries)
}
