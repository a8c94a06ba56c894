//! What the folder of downloads holds, and forgetting it.
//!
//! An entry of the index is taken away under the lock of its URL, and not while another process downloads it. A whole file is
//! deleted when no entry names it any more and no process reads downloads ([`super::Downloads`]); until then it stays, and
//! is listed as one that no URL names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::cache::{self, Cache, DownloadState, INDEX, Index, PARTIAL, WHOLE, is_sha256};
use super::place::shown;
use crate::error::{Error, Kind, Result, Wrap as _};

/// What stands for the URL of a file that has none.
const BY_CONTENT: &str = "sha256:";

/// What a folder of downloads holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// What URLs were found to hold, by URL.
    pub downloads: Vec<Download>,
    /// What has not come to an end, by URL.
    pub begun: Vec<Begun>,
    /// Whole files that no URL names (any more), called `sha256:…`.
    pub unnamed: Vec<DownloadedFile>,
}

/// What a URL was found to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// The URL, or a glob; of a web URL without user, password and query.
    pub url: String,
    /// Whether a checksum or a commit said beforehand what it would be.
    pub pinned: bool,
    /// When it was found.
    pub when: SystemTime,
    /// Its files; of a glob by name, else one.
    pub files: Vec<DownloadedFile>,
}

/// A downloaded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DownloadedFile {
    /// Where it came from.
    pub url: String,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
    /// Whether it is there: else it is downloaded anew when it is asked for.
    pub here: bool,
    /// When it came.
    pub when: SystemTime,
}

/// A download that has not come to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The URL.
    pub url: String,
    /// Bytes that are here.
    pub bytes: u64,
    /// Bytes of the file, where the server says.
    pub total: Option<u64>,
    /// When the last of them came.
    pub when: SystemTime,
}

/// What was forgotten, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// URLs that will be asked again.
    pub downloads: Vec<Download>,
    /// Begun downloads, which are deleted.
    pub begun: Vec<Begun>,
    /// Files that are deleted.
    pub deleted: Vec<DownloadedFile>,
    /// Files that other URLs name.
    pub named: Vec<DownloadedFile>,
    /// Files that stay because another process may be reading them.
    pub in_use: Vec<DownloadedFile>,
    /// URLs that another process is downloading, which stay as they are.
    pub busy: Vec<String>,
}

/// What a folder of downloads holds. One that is not there holds nothing.
///
/// # Errors
/// The folder or the record of a download cannot be read.
pub fn inventory(folder: &Path) -> Result<Inventory> {
    let cache = Cache::at(folder);
    let mut downloads: Vec<Download> = indices(&cache)?.into_iter().map(|found| found.download).collect();
    let named = names(downloads.iter());
    let mut unnamed = whole(&cache)?;
    unnamed.retain(|content| !named.contains(&content.sha256));
    let mut begun: Vec<Begun> = begun(&cache)?.into_iter().map(|(_, begun)| begun).collect();
    downloads.sort_by(|a, b| a.url.cmp(&b.url));
    begun.sort_by(|a, b| a.url.cmp(&b.url));
    Ok(Inventory {
        downloads,
        begun,
        unnamed,
    })
}

/// Forgets what came from a URL, or from all that a glob matches, whose `*` stands for anything: they are asked again
/// when they are wanted. A glob that was downloaded is forgotten with any of its files.
///
/// # Errors
/// Nothing matches; the folder cannot be read or written.
pub fn forget(folder: &Path, pattern: &str) -> Result<Forgotten> {
    let wanted = Wanted::new(pattern);
    let cache = Cache::at(folder);
    let mut forgotten = Forgotten::default();
    let mut busy = BTreeSet::new();
    let mut candidates = BTreeMap::new();
    let found = indices(&cache)?;
    let named = names(found.iter().map(|found| &found.download));
    for IndexEntry { name, path, download } in found {
        if !wanted.is(&download.url) && !download.files.iter().any(|file| wanted.is(&file.url)) {
            continue;
        }
        let Some(_lock) = cache.try_lock(&name)? else {
            busy.insert(download.url);
            continue;
        };
        cache::remove(&path)?;
        for file in download.files.iter().filter(|file| file.here) {
            candidates.insert(file.sha256.clone(), file.clone());
        }
        forgotten.downloads.push(download);
    }
    for (data, begun) in begun(&cache)? {
        if !wanted.is(&begun.url) {
            continue;
        }
        let name = data
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some(_lock) = cache.try_lock(&name)? else {
            busy.insert(begun.url);
            continue;
        };
        // The description first: bytes without one are never taken for anything.
        cache::remove(&data.with_extension("json"))?;
        cache::remove(&data)?;
        forgotten.begun.push(begun);
    }
    // A file that a URL names goes with its URL, unless the file itself was asked for.
    let by_content = pattern.starts_with(BY_CONTENT);
    for content in whole(&cache)? {
        if wanted.is(&content.url) && (by_content || !named.contains(&content.sha256)) {
            candidates.entry(content.sha256.clone()).or_insert(content);
        }
    }
    if candidates.is_empty()
        && forgotten.downloads.is_empty()
        && forgotten.begun.is_empty()
        && busy.is_empty()
    {
        return Err(wanted.nothing());
    }
    forgotten.busy = busy.into_iter().collect();
    forgotten.downloads.sort_by(|a, b| a.url.cmp(&b.url));
    forgotten.begun.sort_by(|a, b| a.url.cmp(&b.url));
    if candidates.is_empty() {
        return Ok(forgotten);
    }
    let lock = cache.try_delete()?;
    // Read now: a process that downloads shares the lock that we hold, and writes its entries meanwhile.
    let left = indices(&cache)?;
    let named = names(left.iter().map(|found| &found.download));
    for content in candidates.into_values() {
        if named.contains(&content.sha256) {
            forgotten.named.push(content);
        } else if lock.is_none() {
            forgotten.in_use.push(content);
        } else {
            cache::remove(&cache.path(&content.sha256))?;
            forgotten.deleted.push(content);
        }
    }
    Ok(forgotten)
}

/// What is to be forgotten.
struct Wanted<'a> {
    text: &'a str,
    shown: String,
    glob: Result<glob::Pattern, glob::PatternError>,
}

impl<'a> Wanted<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            shown: shown(text),
            glob: glob::Pattern::new(text),
        }
    }

    /// A glob that was downloaded is itself, whatever else it matches.
    fn is(&self, url: &str) -> bool {
        url == self.text || url == self.shown || self.glob.as_ref().is_ok_and(|glob| glob.matches(url))
    }

    fn nothing(&self) -> Error {
        match &self.glob {
            Ok(_) => Error::input(format!("no download matches `{}`", self.shown))
                .hint("`mdlm downloads` lists all downloads; in a glob, `*` matches anything"),
            Err(error) => Error::input(format!("read the glob `{}`: {error}", self.text))
                .hint("`*` matches anything, `?` matches a character, `[[]` matches a bracket"),
        }
    }
}

/// An entry of the index.
struct IndexEntry {
    /// What its lock is called.
    name: String,
    path: PathBuf,
    download: Download,
}

/// What the index holds; damaged entries count for nothing.
fn indices(cache: &Cache) -> Result<Vec<IndexEntry>> {
    let mut found = Vec::new();
    for path in files_below(&cache.folder(INDEX))? {
        let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".json"))
        else {
            continue;
        };
        let index = fs::read(&path)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        let Some(Index {
            url, pinned, files, ..
        }) = index
        else {
            continue;
        };
        if !files.iter().all(|file| is_sha256(&file.sha256)) {
            continue;
        }
        let when = modified(&path);
        let content = |file: cache::IndexedFile| DownloadedFile {
            here: cache.find(&file.sha256) == Some(file.bytes),
            url: file.url,
            sha256: file.sha256,
            bytes: file.bytes,
            when,
        };
        found.push(IndexEntry {
            name: name.to_owned(),
            download: Download {
                url,
                pinned,
                when,
                files: files.into_iter().map(content).collect(),
            },
            path,
        });
    }
    Ok(found)
}

/// The contents that downloads name.
fn names<'a>(downloads: impl Iterator<Item = &'a Download>) -> BTreeSet<String> {
    let files = downloads.flat_map(|download| &download.files);
    files.map(|file| file.sha256.clone()).collect()
}

/// Begun downloads, each with the file of its bytes.
fn begun(cache: &Cache) -> Result<Vec<(PathBuf, Begun)>> {
    let mut begun = Vec::new();
    for data in files_below(&cache.folder(PARTIAL))? {
        if data.extension().is_some() {
            continue;
        }
        let text = fs::read(data.with_extension("json"));
        let state: Option<DownloadState> = text.ok().and_then(|text| serde_json::from_slice(&text).ok());
        let state = state.unwrap_or_default();
        let name = data.file_name().unwrap_or_default().to_string_lossy();
        let url = if state.url.is_empty() {
            format!("begun:{name}")
        } else {
            state.url
        };
        let one = Begun {
            url,
            bytes: fs::metadata(&data).map_or(0, |metadata| metadata.len()),
            total: state.length,
            when: modified(&data),
        };
        begun.push((data, one));
    }
    Ok(begun)
}

/// Whole files, by content.
fn whole(cache: &Cache) -> Result<Vec<DownloadedFile>> {
    let mut contents = Vec::new();
    for folder in paths_below(&cache.folder(WHOLE))? {
        for path in files_below(&folder)? {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let Some(bytes) = is_sha256(name).then(|| cache.find(name)).flatten() else {
                continue;
            };
            contents.push(DownloadedFile {
                url: format!("{BY_CONTENT}{name}"),
                sha256: name.to_owned(),
                bytes,
                here: true,
                when: modified(&path),
            });
        }
    }
    Ok(contents)
}

/// The paths in a folder, by name; none where the folder does not exist.
fn paths_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("list `{}`", folder.display());
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(vec![]);
        }
        Err(error) => return Err(error).wrap(Kind::Environment, context),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths
        .collect::<Result<Vec<_>, _>>()
        .wrap(Kind::Environment, context)?;
    paths.sort();
    Ok(paths)
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = paths_below(folder)?;
    paths.retain(|path| path.is_file());
    Ok(paths)
}

/// When a file was last written.
fn modified(path: &Path) -> SystemTime {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .unwrap_or(UNIX_EPOCH)
}
