//! The store: artifacts by content, action records by key, locks that end with their process.
//!
//! # Layout
//!
//! | below `.mdlm/` | content |
//! |---|---|
//! | `version` | layout version; a store with another version is refused |
//! | `artifacts/<digest>/…` | an artifact's files, named by their content ([`digest`]), read-only |
//! | `actions/<kind>/<key>.json` | the record of what a stage with that key made ([`record`]): the key's parts, the artifact's files, provenance |
//! | `work/<key>/` | scratch that survives interruption ([`checkpoints`] of a training); deleted once the key is committed |
//! | `checkpoints/…/` | [`checkpoints`] that trainings keep for other trainings |
//! | `downloads/` | downloaded files, by content and by URL (`crate::data::fetch`) |
//! | `piped/<digest>` | text from pipes, by content ([`piped`]) |
//! | `staging/<key>/`, `staging/<key>.json` | an artifact and its record while they are written |
//! | `locks/<key>`, `locks/<artifact>` | held by the process that works on the key; by the processes that use the artifact ([`lock`]) |
//! | `quarantine/<digest>/`, `quarantine/<digest>.json` | corrupt artifacts, and what is wrong with each ([`verify`]) |
//! | `runs/<number>.json` | the artifacts that a run reached ([`runs`]): those of the last runs are not collected ([`gc`]) |
//! | `reports/<pipeline>.html` | the report of the last complete run |
//! | `files.json` | the metadata of files outside the store when they were hashed ([`stat`]) |
//! | `checksums.json` | the same for files provided by hand, with their SHA-256 |
//! | `latest/<name>.json` | the last key of each stage by name: the reasons of a rerun come from the comparison with it |
//!
//! All references are digests and paths relative to the store, so it can be moved.
//!
//! # Commit
//!
//! The holder of a key's lock owns `staging/<key>` and `work/<key>`. A commit hashes the staged files, makes them
//! read-only, syncs them and their folders, renames the folder to its final path, writes and syncs the record, and
//! renames that ([`commit`]). If a process dies at any point, it leaves either a complete record or no record; in the
//! second case the next run deletes its leftovers. A record whose artifact is incomplete is a cache miss that says so.

use std::cmp::Reverse;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result, Wrap};
use crate::plural::counted;

pub mod checkpoints;
pub mod commit;
pub mod digest;
pub mod gc;
pub mod key;
pub mod lineage;
pub mod lock;
pub mod locking;
pub mod piped;
pub mod record;
pub mod runs;
pub mod stat;
pub mod time;
pub mod verify;

pub use digest::{Digest, FileEntry};
pub use key::Key;
pub use lock::{ArtifactLock, KeyLock, LockHolder, Pin};
pub use record::{ExternalFile, InputOrigin, Machine, Provenance, Record};
pub use runs::{RunNote, RunStage};

/// Name of the store's folder.
pub const FOLDER: &str = ".mdlm";

/// Version of the layout. 1: the first.
pub const LAYOUT_VERSION: u32 = 1;

/// The contents of a store, or of a shared cache.
const ENTRIES: &[&str] = &[
    "actions",
    "artifacts",
    "checkpoints",
    "checksums.json",
    "downloads",
    "files.json",
    "latest",
    "locks",
    "piped",
    "quarantine",
    "reports",
    "runs",
    "staging",
    "version",
    "work",
    "CACHEDIR.TAG",
];

/// A store on disk. Cheap to clone; holds no file open.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// What the store knows of a key.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// The artifact is there.
    Hit(Box<Record>),
    /// The record is there and all of its artifact is gone: deleted, or never brought here.
    Away(Box<Record>),
    /// The key was never committed.
    Absent,
    /// There is a record, but it or its artifact is damaged: treated as absent. Says what is wrong.
    Damaged(String),
}

/// An action record as it lies in the store.
#[derive(Clone, Debug)]
pub struct StoredRecord {
    /// The kind of stage by its folder.
    pub kind: String,
    /// The key by its name.
    pub key: Digest,
    /// Its file.
    pub path: PathBuf,
    /// What it says, or what is wrong with it.
    pub record: Result<Record, String>,
}

impl StoredRecord {
    /// The artifact that it names.
    #[must_use]
    pub fn artifact(&self) -> Option<Digest> {
        self.record.as_ref().ok().map(|record| record.artifact)
    }
}

/// The last key of a stage, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Latest {
    pipeline: String,
    stage: String,
    kind: String,
    key: Digest,
    /// What it read from outside the store, as it names it: who made the artifact may have read the same from elsewhere.
    #[serde(default)]
    files: Vec<ExternalFile>,
    /// Where the manifest lies that the stage is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<String>,
}

/// The hint of a command that makes results where the store cannot be written.
pub const ELSEWHERE: &str = "choose a folder that can be written with `--store DIR`";

impl Store {
    /// The store at that folder, which need not exist yet. Touches nothing.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Whether a folder is a store, or a cache that machines share, by its contents, whatever its name. Folders of `actions` are
    /// called after the `kinds` of stages.
    #[must_use]
    pub fn is_at<'k>(folder: &Path, kinds: impl IntoIterator<Item = &'k str>) -> bool {
        let has = |name: &str| folder.join(name).is_dir();
        if !has("actions") {
            return false;
        }
        (has("artifacts") && folder.join("version").is_file())
            || (has("files") && kinds.into_iter().any(|kind| has(&format!("actions/{kind}"))))
    }

    /// Whether what is called so in a store's folder is the store's.
    #[must_use]
    pub fn is_entry(folder: &Path, name: &str) -> bool {
        Self::has_entry(name, folder.join("artifacts").is_dir())
    }

    /// The same, where only names are known; `artifacts` is whether the store has a folder of that name.
    #[must_use]
    pub fn has_entry(name: &str, artifacts: bool) -> bool {
        // Of a shared cache alone: in a store's folder others may call something so.
        ENTRIES.contains(&name) || (name == "files" && !artifacts)
    }

    /// Default folder of a manifest's store: `.mdlm` in the nearest folder above the manifest that
    /// has one; else beside the manifest, or beside its folder when that is called `pipelines`.
    #[must_use]
    pub fn locate(manifest: &Path) -> PathBuf {
        let manifest = fs::canonicalize(manifest).unwrap_or_else(|_| manifest.to_owned());
        let folder = manifest.parent().unwrap_or(Path::new("."));
        if let Some(found) = folder
            .ancestors()
            .map(|folder| folder.join(FOLDER))
            .find(|path| path.is_dir())
        {
            return found;
        }
        let project = match folder.parent() {
            Some(parent) if folder.file_name().is_some_and(|name| name == "pipelines") => parent,
            _ => folder,
        };
        project.join(FOLDER)
    }

    /// Its folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of an artifact.
    #[must_use]
    pub fn artifact_path(&self, artifact: &Digest) -> PathBuf {
        self.root.join("artifacts").join(artifact.to_string())
    }

    /// The scratch folder of a key. The holder of the key's lock owns it.
    #[must_use]
    pub fn work_path(&self, key: &Digest) -> PathBuf {
        self.root.join("work").join(key.to_string())
    }

    /// The folder of downloaded files, which all pipelines of the store share.
    #[must_use]
    pub fn downloads_path(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// The folder in which the artifact of a key is written. The holder of the key's lock owns it.
    #[must_use]
    pub fn staging_path(&self, key: &Digest) -> PathBuf {
        self.root.join("staging").join(key.to_string())
    }

    fn staged_record_path(&self, key: &Digest) -> PathBuf {
        self.root.join("staging").join(format!("{key}.json"))
    }

    /// Where a damaged artifact is moved before it is deleted, to make way for the one staged for a key.
    fn displaced_path(&self, key: &Digest) -> PathBuf {
        self.root.join("staging").join(format!("{key}.displaced"))
    }

    /// The file of a key's action record.
    #[must_use]
    pub fn record_path(&self, kind: &str, key: &Digest) -> PathBuf {
        self.root.join("actions").join(kind).join(format!("{key}.json"))
    }

    /// The file of the [`stat::ChecksumCache`] of files outside the store.
    #[must_use]
    pub fn known_files_path(&self) -> PathBuf {
        self.root.join("files.json")
    }

    /// The file of the [`stat::ChecksumCache`] of files that were brought by hand, with their SHA-256.
    #[must_use]
    pub fn known_checksums_path(&self) -> PathBuf {
        self.root.join("checksums.json")
    }

    fn lock_path(&self, key: &Digest) -> PathBuf {
        self.root.join("locks").join(key.to_string())
    }

    fn latest_path(&self, pipeline: &str, stage: &str) -> PathBuf {
        // Names may be anything, files may not: the name is hashed.
        let name = blake3::hash(format!("{pipeline}\0{stage}").as_bytes()).to_hex();
        self.root.join("latest").join(format!("{}.json", &name[..32]))
    }

    /// The folder that the store lies in.
    #[must_use]
    pub fn project(&self) -> PathBuf {
        let folder = match self.root.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        fs::canonicalize(folder).unwrap_or_else(|_| std::path::absolute(folder).unwrap_or_default())
    }

    /// Where a manifest lies: seen from the store's folder where it lies below that, so that both can be moved.
    #[must_use]
    pub fn place(&self, manifest: &Path) -> String {
        let path = fs::canonicalize(manifest).unwrap_or_else(|_| manifest.to_owned());
        let below = path.strip_prefix(self.project()).unwrap_or(&path);
        below.to_string_lossy().into_owned()
    }

    /// Checks that the store, if there is one, has a layout that this version reads.
    ///
    /// # Errors
    /// Another layout, something that is not a folder, or an unreadable store.
    pub fn check(&self) -> Result<()> {
        if self.root.exists() && !self.root.is_dir() {
            let message = format!("use the store `{}`: it is not a folder", self.root.display());
            return Err(Error::input(message).hint("name a folder, new or old, with `--store DIR`"));
        }
        let path = self.root.join("version");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).wrap(Kind::Environment, || read(&path)),
        };
        if text.trim() == LAYOUT_VERSION.to_string() {
            return Ok(());
        }
        let message = format!(
            "use the store `{}`: its layout version is `{}`, but this mdlm supports {LAYOUT_VERSION}",
            self.root.display(),
            text.trim()
        );
        Err(Error::environment(message)
            .hint("use the mdlm that wrote it, or another store with `--store DIR`"))
    }

    /// Makes the store ready to be written: its folders, its version, and no leftovers of processes that died.
    ///
    /// # Errors
    /// Another layout, or a folder that cannot be written.
    pub fn prepare(&self) -> Result<()> {
        self.check()?;
        for folder in ["artifacts", "actions", "work", "staging", "locks", "latest"] {
            create_folder(&self.root.join(folder))?;
        }
        // The store is derived: version control and backups leave it out.
        write_new(&self.root.join(".gitignore"), "*\n")?;
        write_new(
            &self.root.join("CACHEDIR.TAG"),
            "Signature: 8a477f597d28d172789f06886806bc55\n# Written by mdlm; see https://bford.info/cachedir/\n",
        )?;
        write_new(&self.root.join("version"), &format!("{LAYOUT_VERSION}\n"))?;
        self.check_locks()?;
        self.sweep()
    }

    /// Deletes what processes that died have left: staged files, and scratch whose key was committed.
    fn sweep(&self) -> Result<()> {
        for key in keys_below(&self.root.join("staging"))? {
            // Locked: a process works on it. Not locked: no process does, whatever files remain.
            if let Some(lock) = self.try_lock(&key)? {
                self.clear_staging(&lock)?;
            }
        }
        for key in keys_below(&self.root.join("work"))? {
            if self.is_committed(&key)?
                && let Some(lock) = self.try_lock(&key)?
            {
                self.clear_work(&lock)?;
            }
        }
        Ok(())
    }

    fn is_committed(&self, key: &Digest) -> Result<bool> {
        Ok(self
            .kinds()?
            .iter()
            .any(|kind| self.record_path(kind, key).is_file()))
    }

    /// Deletes the staged files of a key.
    ///
    /// # Errors
    /// The files cannot be deleted.
    pub fn clear_staging(&self, lock: &KeyLock) -> Result<()> {
        remove_file(&self.staged_record_path(lock.key()))?;
        remove_folder(&self.displaced_path(lock.key()))?;
        remove_folder(&self.staging_path(lock.key()))
    }

    /// Deletes the scratch of a key.
    ///
    /// # Errors
    /// The folder cannot be deleted.
    pub fn clear_work(&self, lock: &KeyLock) -> Result<()> {
        remove_folder(&self.work_path(lock.key()))
    }

    /// Makes an empty staging folder and, unless it is there from an interrupted run, a scratch folder for a key.
    ///
    /// # Errors
    /// The folders cannot be created.
    pub fn stage(&self, lock: &KeyLock) -> Result<(PathBuf, PathBuf)> {
        self.clear_staging(lock)?;
        let staging = self.staging_path(lock.key());
        let work = self.work_path(lock.key());
        create_folder(&staging)?;
        create_folder(&work)?;
        Ok((staging, work))
    }

    /// What the store knows of a key. The artifact's files are checked for presence and length, not rehashed.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn lookup(&self, key: &Key) -> Result<Lookup> {
        let path = self.record_path(&key.kind, &key.digest());
        let record = match Record::read(&path) {
            Ok(None) => return Ok(Lookup::Absent),
            Ok(Some(record)) => record,
            Err(error) if error.kind() == Kind::Environment => return Err(error),
            Err(error) => return Ok(Lookup::Damaged(error.to_string())),
        };
        if record.key != *key {
            return Ok(Lookup::Damaged(
                "its action record belongs to another key".to_owned(),
            ));
        }
        let Some(fault) = self.missing(&record)? else {
            return Ok(Lookup::Hit(Box::new(record)));
        };
        if let Some(why) = self.quarantined(&record.artifact) {
            return Ok(Lookup::Damaged(why));
        }
        let gone = fs::symlink_metadata(self.artifact_path(&record.artifact))
            .is_err_and(|error| error.kind() == ErrorKind::NotFound);
        Ok(if gone {
            Lookup::Away(Box::new(record))
        } else {
            Lookup::Damaged(fault)
        })
    }

    /// Keeps a record from elsewhere, whose artifact is not here, unless there is one of its key or another process works on
    /// that: so that the next plan knows of it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep(&self, record: &Record) -> Result<()> {
        let key = record.key.digest();
        let path = self.record_path(&record.key.kind, &key);
        if path.is_file() {
            return Ok(());
        }
        let Some(_lock) = self.try_lock(&key)? else {
            return Ok(());
        };
        if let Some(folder) = path.parent() {
            create_folder(folder)?;
        }
        write_new(&path, &record.to_text()?)
    }

    /// Whether a record and its artifact's folder are still there: what may have changed before an artifact was
    /// pinned that a lookup has found.
    #[must_use]
    pub fn still_has(&self, record: &Record) -> bool {
        self.record_path(&record.key.kind, &record.key.digest()).is_file()
            && self.artifact_path(&record.artifact).is_dir()
    }

    /// What is missing of a record's artifact, if anything.
    fn missing(&self, record: &Record) -> Result<Option<String>> {
        let folder = self.artifact_path(&record.artifact);
        for file in &record.files {
            let path = folder.join(&file.path);
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_file() && metadata.len() == file.bytes => {}
                Ok(metadata) if metadata.is_file() => {
                    return Ok(Some(format!(
                        "`{}` of its artifact has {} instead of {}",
                        file.path,
                        counted(metadata.len(), "byte"),
                        file.bytes
                    )));
                }
                Ok(_) => return Ok(Some(format!("`{}` of its artifact is not a file", file.path))),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    return Ok(Some(format!("`{}` of its artifact is missing", file.path)));
                }
                Err(error) => return Err(error).wrap(Kind::Environment, || read(&path)),
            }
        }
        // An artifact without files is a folder all the same.
        Ok((!folder.is_dir()).then(|| "its artifact is missing".to_owned()))
    }

    /// Every readable action record of a kind, in the order of their keys. Damaged ones are left out: these are
    /// read for comparison only.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn records(&self, kind: &str) -> Result<Vec<Record>> {
        let keys = keys_below(&self.root.join("actions").join(kind))?;
        Ok(keys.iter().filter_map(|key| self.record(kind, key)).collect())
    }

    /// Whether a record's artifact is here, by its files' presence and length.
    #[must_use]
    pub fn is_here(&self, record: &Record) -> bool {
        self.missing(record).is_ok_and(|missing| missing.is_none())
    }

    /// The newest readable action records of a kind by the times of their files, the newest first, `most` of them at most.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn newest_records(&self, kind: &str, most: usize) -> Result<Vec<Record>> {
        let keys = keys_below(&self.root.join("actions").join(kind))?;
        let mut dated: Vec<_> = keys
            .iter()
            .filter_map(|key| {
                let made = fs::metadata(self.record_path(kind, key)).ok()?.modified().ok()?;
                Some((Reverse(made), key))
            })
            .collect();
        dated.sort();
        let records = dated.into_iter().filter_map(|(_, key)| self.record(kind, key));
        Ok(records.take(most).collect())
    }

    /// Every action record, damaged ones too, by kind and key.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn all_records(&self) -> Result<Vec<StoredRecord>> {
        let mut all = Vec::new();
        for kind in self.kinds()? {
            for key in keys_below(&self.root.join("actions").join(&kind))? {
                let path = self.record_path(&kind, &key);
                let record = match Record::read(&path) {
                    // Gone meanwhile.
                    Ok(None) => continue,
                    Ok(Some(record)) if record.key.digest() == key && record.key.kind == kind => Ok(record),
                    Ok(Some(_)) => Err("its action record belongs to another key".to_owned()),
                    Err(error) if error.kind() == Kind::Environment => return Err(error),
                    Err(error) => Err(error.to_string()),
                };
                all.push(StoredRecord {
                    kind: kind.clone(),
                    key,
                    path,
                    record,
                });
            }
        }
        Ok(all)
    }

    /// The action record of a key's digest, if there is a readable one.
    #[must_use]
    pub fn record(&self, kind: &str, key: &Digest) -> Option<Record> {
        Record::read(&self.record_path(kind, key)).ok().flatten()
    }

    fn kinds(&self) -> Result<Vec<String>> {
        let mut kinds = names_below(&self.root.join("actions"))?;
        kinds.sort();
        Ok(kinds)
    }

    /// Remembers the key with which a stage was last served or run, and the files outside the store that led to it. Only the
    /// reasons of later runs and the digests of missing files depend on it, so a failure to write is ignored.
    pub fn remember(
        &self,
        (pipeline, place): (&str, Option<&str>),
        stage: &str,
        key: &Key,
        files: &[ExternalFile],
    ) {
        let latest = Latest {
            pipeline: pipeline.to_owned(),
            stage: stage.to_owned(),
            kind: key.kind.clone(),
            key: key.digest(),
            files: files.to_vec(),
            place: place.map(str::to_owned),
        };
        let path = self.latest_path(pipeline, stage);
        if let Ok(text) = serde_json::to_string(&latest)
            && fs::read_to_string(&path).ok().as_ref() != Some(&text)
        {
            let beside = beside(&path);
            let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, &path));
            if written.is_err() {
                let _ = fs::remove_file(&beside);
            }
        }
    }

    /// The record of the key with which a stage was last served or run, if it is still there, with the files that this stage
    /// read then, and the place of the manifest that the stage is of.
    #[must_use]
    pub fn latest(&self, pipeline: &str, stage: &str) -> Option<Record> {
        let text = fs::read_to_string(self.latest_path(pipeline, stage)).ok()?;
        let latest: Latest = serde_json::from_str(&text).ok()?;
        let mut record = self.record(&latest.kind, &latest.key)?;
        if !latest.files.is_empty() {
            record.provenance.files = latest.files;
        }
        record.provenance.place = latest.place;
        Some(record)
    }
}

/// Names in a folder; none when there is no such folder.
fn names_below(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).wrap(Kind::Environment, || read(folder)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.wrap(Kind::Environment, || read(folder))?;
        names.extend(entry.file_name().into_string());
    }
    Ok(names)
}

/// The keys that name entries of a folder, in order, each once.
fn keys_below(folder: &Path) -> Result<Vec<Digest>> {
    let names = names_below(folder)?;
    let mut keys: Vec<Digest> = names
        .iter()
        .filter_map(|name| name.strip_suffix(".json").unwrap_or(name).parse().ok())
        .collect();
    keys.sort();
    keys.dedup();
    Ok(keys)
}

fn read(path: &Path) -> String {
    format!("read `{}`", path.display())
}

fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .wrap(Kind::Environment, || format!("create `{}`", path.display()))
        .map_err(|error| error.hint(ELSEWHERE))
}

/// Writes a small file unless it is there. Renamed to its place, so that no other process reads half of it.
fn write_new(path: &Path, text: &str) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let beside = beside(path);
    fs::File::create(&beside)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&beside);
        })
        .wrap(Kind::Environment, || format!("write `{}`", path.display()))
}

/// A name beside a path that no other process uses.
fn beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(
        ".tmp{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Relaxed)
    ));
    PathBuf::from(name)
}

/// Deletes a folder if it is there.
fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).wrap(Kind::Environment, || format!("delete `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

/// Deletes a file if it is there.
fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).wrap(Kind::Environment, || format!("delete `{}`", path.display()))
        }
        _ => Ok(()),
    }
}
