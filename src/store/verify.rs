//! Checks that artifacts match their digests, and moves those that do not into quarantine.
//!
//! A disk that returns other bytes than were written, or a hand that edits what is read-only, leaves an artifact whose
//! content is not its digest's. [`examine`] finds out, in full or by a sample; [`Store::quarantine`] takes a corrupt
//! artifact out of the store. Its action records stay: the next run finds that their artifact is gone and why
//! ([`Store::lookup`]), and makes it again.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::digest::{digest_of, hash_file_paced};
use super::{Digest, FileEntry, Store, beside, create_folder, names_below, remove_folder, time};
use crate::error::{Error, Kind, Result, Wrap};
use crate::plural::counted;

/// Something that is wrong with an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactFault {
    /// The file, relative to the artifact; empty for the artifact as a whole.
    pub path: String,
    /// What is wrong with it.
    #[serde(flatten)]
    pub flaw: Flaw,
}

/// What is wrong with a file of an artifact, or with all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "flaw", rename_all = "snake_case")]
pub enum Flaw {
    /// It is not there.
    Missing,
    /// It has another length.
    Length {
        /// As it is, in bytes.
        found: u64,
        /// As it was written, in bytes.
        expected: u64,
    },
    /// It has the length and other content.
    Content,
    /// It was not written.
    Extra,
    /// It cannot be read.
    Unreadable {
        /// What the system says.
        message: String,
    },
}

impl fmt::Display for ArtifactFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str("it")?;
        } else {
            write!(f, "`{}`", self.path)?;
        }
        match &self.flaw {
            Flaw::Missing => f.write_str(" is missing"),
            Flaw::Length { found, expected } => {
                write!(f, " has {} instead of {expected}", counted(*found, "byte"))
            }
            Flaw::Content => f.write_str(" has other content"),
            Flaw::Extra => f.write_str(" does not belong to it"),
            Flaw::Unreadable { message } => write!(f, " cannot be read: {message}"),
        }
    }
}

/// Faults in one line, the first few by name.
#[must_use]
pub fn summary(faults: &[ArtifactFault]) -> String {
    /// Faults that are named; the rest is counted.
    const NAMED: usize = 3;
    let mut text: Vec<_> = faults.iter().take(NAMED).map(ToString::to_string).collect();
    if faults.len() > NAMED {
        text.push(format!("and {} more", faults.len() - NAMED));
    }
    text.join(", ")
}

/// How much of an artifact is hashed. Presence, lengths and what does not belong there are always looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Files drawn at random, until so many bytes have been; one file at least, other ones each time.
    Sample(u64),
    /// All of it.
    Full,
}

/// Bytes that are hashed of an artifact before a stage consumes it: some hundredths of a second, and small artifacts
/// as a whole.
pub const SAMPLE: Depth = Depth::Sample(64 << 20);

/// How fast to read, for all threads together.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: Option<f64>,
    started: Instant,
    read: AtomicU64,
}

impl Pace {
    /// As fast as it goes, or so many bytes a second.
    #[must_use]
    pub fn new(bytes_per_second: Option<f64>) -> Self {
        Self {
            bytes_per_second,
            started: Instant::now(),
            read: AtomicU64::new(0),
        }
    }

    /// Bytes read.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Counts bytes that were read, and sleeps until they were due.
    pub(super) fn took(&self, bytes: u64) {
        let read = self.read.fetch_add(bytes, Relaxed) + bytes;
        if let Some(limit) = self.bytes_per_second {
            let due = read as f64 / limit - self.started.elapsed().as_secs_f64();
            if let Ok(due) = Duration::try_from_secs_f64(due) {
                std::thread::sleep(due);
            }
        }
    }
}

/// What is wrong with the artifact of that digest in a folder; nothing when it is sound. `files` are those that a
/// record lists; without them all files are hashed and only the whole can be judged.
///
/// # Errors
/// The folder may not be read at all: a matter of permissions, not of content.
pub fn examine(
    folder: &Path,
    artifact: &Digest,
    files: Option<&[FileEntry]>,
    depth: Depth,
    pace: &Pace,
) -> Result<Vec<ArtifactFault>> {
    let mut names = Vec::new();
    let mut faults = Vec::new();
    match fs::symlink_metadata(folder) {
        Ok(metadata) if metadata.is_dir() => list(folder, "", &mut names, &mut faults)?,
        Ok(_) => faults.push(fault("", Flaw::Extra)),
        Err(error) if error.kind() == ErrorKind::NotFound => faults.push(fault("", Flaw::Missing)),
        Err(error) => return Err(error).wrap(Kind::Environment, || super::read(folder)),
    }
    if !faults.is_empty() && names.is_empty() {
        return Ok(faults);
    }
    names.sort();
    let hash = |path: &str| -> Result<Result<(u64, Digest), ArtifactFault>> {
        match hash_file_paced(&folder.join(path), &|bytes| pace.took(bytes)) {
            Ok(found) => Ok(Ok(found)),
            Err(error) if is_denied(&error) => Err(error),
            Err(error) => {
                let message = error.to_string();
                Ok(Err(fault(path, Flaw::Unreadable { message })))
            }
        }
    };
    let Some(files) = files else {
        let hashed: Vec<_> = names.par_iter().map(|name| hash(name)).collect::<Result<_>>()?;
        let mut entries = Vec::new();
        for (path, found) in names.into_iter().zip(hashed) {
            match found {
                Ok((bytes, digest)) => entries.push(FileEntry { path, bytes, digest }),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() && digest_of(&entries) != *artifact {
            faults.push(fault("", Flaw::Content));
        }
        return Ok(faults);
    };
    let known: std::collections::HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let foreign = names.iter().filter(|name| !known.contains(name.as_str()));
    faults.extend(foreign.map(|name| fault(name, Flaw::Extra)));
    let mut there = Vec::new();
    for file in files {
        match fs::symlink_metadata(folder.join(&file.path)) {
            Ok(metadata) if metadata.len() == file.bytes => there.push(file),
            Ok(metadata) => {
                let (found, expected) = (metadata.len(), file.bytes);
                faults.push(fault(&file.path, Flaw::Length { found, expected }));
            }
            Err(_) => faults.push(fault(&file.path, Flaw::Missing)),
        }
    }
    if let Depth::Sample(budget) = depth {
        let draw = RandomState::new();
        there.sort_by_key(|file| draw.hash_one(&file.path));
        let mut taken = 0;
        there.retain(|file| {
            let first = taken == 0;
            let fits = taken + file.bytes <= budget;
            taken += if fits || first { file.bytes } else { 0 };
            fits || first
        });
    }
    let changed: Vec<Option<ArtifactFault>> = there
        .par_iter()
        .map(|file| {
            Ok(match hash(&file.path)? {
                Ok(found) if found == (file.bytes, file.digest) => None,
                Ok(_) => Some(fault(&file.path, Flaw::Content)),
                Err(fault) => Some(fault),
            })
        })
        .collect::<Result<_>>()?;
    faults.extend(changed.into_iter().flatten());
    faults.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(faults)
}

fn fault(path: &str, flaw: Flaw) -> ArtifactFault {
    ArtifactFault {
        path: path.to_owned(),
        flaw,
    }
}

fn is_denied(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// The files below a folder; what is neither file nor folder does not belong there.
fn list(folder: &Path, prefix: &str, names: &mut Vec<String>, faults: &mut Vec<ArtifactFault>) -> Result<()> {
    for entry in fs::read_dir(folder).wrap(Kind::Environment, || super::read(folder))? {
        let entry = entry.wrap(Kind::Environment, || super::read(folder))?;
        let name = entry.file_name();
        let path = format!("{prefix}{}", name.display());
        let kind = entry
            .file_type()
            .wrap(Kind::Environment, || super::read(folder))?;
        if kind.is_dir() {
            list(&entry.path(), &format!("{path}/"), names, faults)?;
        } else if kind.is_file() && name.to_str().is_some() {
            names.push(path);
        } else {
            faults.push(fault(&path, Flaw::Extra));
        }
    }
    Ok(())
}

/// An artifact to be looked at.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its digest.
    pub artifact: Digest,
    /// Its files, where a record lists them.
    pub files: Option<Vec<FileEntry>>,
    /// Who made it: `rows of tiny`; several stages may have made the same.
    pub made_by: Vec<String>,
}

/// What a verification examines in a store.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// The artifacts that are there.
    pub present: Vec<Subject>,
    /// Recorded artifacts that are missing, with the reason where it is known.
    pub absent: Vec<(Subject, Option<String>)>,
    /// Records that cannot be used: path below the store, and what is wrong.
    pub damaged: Vec<(String, String)>,
    /// Names in the folder of artifacts that are not names of artifacts.
    pub foreign: Vec<String>,
}

/// What was done with a corrupt artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It is in quarantine, there.
    To(PathBuf),
    /// Another process uses it: it was left in place.
    InUse,
    /// It was gone, or another process had put a sound one into its place.
    Gone,
}

/// Why an artifact is in quarantine: `quarantine/<digest>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    artifact: Digest,
    /// When it was moved, RFC 3339.
    since: String,
    faults: Vec<ArtifactFault>,
}

impl Store {
    /// Everything that could be verified.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn census(&self) -> Result<Census> {
        let mut census = Census::default();
        let mut subjects: BTreeMap<Digest, Subject> = BTreeMap::new();
        for found in self.all_records()? {
            let record = match found.record {
                Ok(record) => record,
                Err(what) => {
                    let path = found.path.strip_prefix(self.root()).unwrap_or(&found.path);
                    census.damaged.push((path.display().to_string(), what));
                    continue;
                }
            };
            let artifact = record.artifact;
            let subject = subjects.entry(artifact).or_insert_with(|| Subject {
                artifact,
                files: None,
                made_by: vec![],
            });
            subject.files.get_or_insert(record.files);
            let made = &record.provenance;
            let maker = format!("{} of {}", made.stage, made.pipeline);
            if !subject.made_by.contains(&maker) {
                subject.made_by.push(maker);
            }
        }
        let mut names = names_below(&self.root().join("artifacts"))?;
        names.sort();
        for name in names {
            let Ok(artifact) = name.parse() else {
                census.foreign.push(name);
                continue;
            };
            let subject = subjects.remove(&artifact);
            census.present.push(subject.unwrap_or(Subject {
                artifact,
                files: None,
                made_by: vec![],
            }));
        }
        let absent = subjects.into_values();
        census.absent = absent
            .map(|subject| {
                let why = self.quarantined(&subject.artifact);
                (subject, why)
            })
            .collect();
        Ok(census)
    }

    /// The folder of what was found corrupt.
    #[must_use]
    pub fn quarantine_path(&self) -> PathBuf {
        self.root().join("quarantine")
    }

    /// Moves a corrupt artifact out of the store. While another process uses it, only with `force`: open files
    /// stay readable, opening more of them fails, and no process reads more of the bytes that are known to be wrong.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn quarantine(
        &self,
        artifact: &Digest,
        files: Option<&[FileEntry]>,
        faults: &[ArtifactFault],
        force: bool,
    ) -> Result<Moved> {
        let folder = self.quarantine_path();
        create_folder(&folder)?;
        let lock = self.try_take(artifact)?;
        if lock.is_none() && !force {
            return Ok(Moved::InUse);
        }
        let from = self.artifact_path(artifact);
        let mut number = 1;
        let place = loop {
            // Corrupt again, after it was made again: both are kept.
            let name = match number {
                1 => artifact.to_string(),
                number => format!("{artifact}.{number}"),
            };
            let place = folder.join(name);
            if !place.exists() {
                break place;
            }
            number += 1;
        };
        match fs::rename(&from, &place) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Moved::Gone),
            Err(error) => {
                return Err(error).wrap(Kind::Environment, || {
                    format!("move `{}` to `{}`", from.display(), place.display())
                });
            }
        }
        drop(lock);
        // Between the finding and the moving, a commit of the same content may have put it right.
        if examine(&place, artifact, files, Depth::Full, &Pace::new(None))?.is_empty() {
            if fs::rename(&place, &from).is_err() {
                remove_folder(&place)?;
            }
            return Ok(Moved::Gone);
        }
        let note = Note {
            artifact: *artifact,
            since: time::rfc3339(SystemTime::now()),
            faults: faults.to_vec(),
        };
        let path = self.note_path(artifact);
        let text = serde_json::to_string_pretty(&note)
            .map_err(|error| Error::internal(format!("write a note of quarantine: {error}")))?;
        let beside = beside(&path);
        fs::write(&beside, text + "\n")
            .and_then(|()| fs::rename(&beside, &path))
            .inspect_err(|_| drop(fs::remove_file(&beside)))
            .wrap(Kind::Environment, || format!("write `{}`", path.display()))?;
        Ok(Moved::To(place))
    }

    /// Why an artifact is missing, if it is in quarantine.
    pub(super) fn quarantined(&self, artifact: &Digest) -> Option<String> {
        if self.artifact_path(artifact).exists() {
            return None;
        }
        let text = fs::read_to_string(self.note_path(artifact)).ok()?;
        let note: Note = serde_json::from_str(&text).ok()?;
        Some(format!(
            "its artifact is in quarantine since {}: {}",
            note.since,
            summary(&note.faults)
        ))
    }

    fn note_path(&self, artifact: &Digest) -> PathBuf {
        self.quarantine_path().join(format!("{artifact}.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::testing::example;
    use super::super::{Lookup, Record};
    use super::*;

    struct Fixture {
        _folder: tempfile::TempDir,
        store: Store,
        record: Record,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("store"));
        store.prepare().unwrap();
        let record = act(&store);
        Fixture {
            _folder: folder,
            store,
            record,
        }
    }

    fn act(store: &Store) -> Record {
        let key = example(1).key;
        let lock = store.try_lock(&key.digest()).unwrap().unwrap();
        let (staging, _) = store.stage(&lock).unwrap();
        fs::create_dir(staging.join("train")).unwrap();
        fs::write(staging.join("train/0.arrow"), [7; 1000]).unwrap();
        fs::write(staging.join("train/1.arrow"), [8; 1000]).unwrap();
        fs::write(staging.join("rows.json"), "{}").unwrap();
        store
            .commit(&lock, |artifact, files| Record {
                artifact,
                files,
                ..example(1)
            })
            .unwrap()
    }

    impl Fixture {
        fn place(&self) -> PathBuf {
            self.store.artifact_path(&self.record.artifact)
        }

        fn faults(&self, depth: Depth) -> Vec<ArtifactFault> {
            let pace = Pace::new(None);
            examine(
                &self.place(),
                &self.record.artifact,
                Some(&self.record.files),
                depth,
                &pace,
            )
            .unwrap()
        }

        fn summary(&self) -> String {
            summary(&self.faults(Depth::Full))
        }

        fn write(&self, file: &str, content: &[u8]) {
            let path = self.place().join(file);
            let _ = fs::remove_file(&path);
            fs::write(path, content).unwrap();
        }

        fn why(&self) -> String {
            match self.store.lookup(&self.record.key).unwrap() {
                Lookup::Damaged(why) => why,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn verify_reports_every_kind_of_damage() {
        let fixture = fixture();
        assert_eq!(fixture.summary(), "");
        fixture.write("train/0.arrow", &[6; 1000]);
        assert_eq!(fixture.summary(), "`train/0.arrow` has other content");
        fixture.write("rows.json", b"{ }");
        fixture.write("train/extra.arrow", b"");
        fs::remove_file(fixture.place().join("train/1.arrow")).unwrap();
        assert_eq!(
            fixture.summary(),
            "`rows.json` has 3 bytes instead of 2, `train/0.arrow` has other content, `train/1.arrow` is missing, and \
             1 more"
        );
        let unknown = examine(
            &fixture.place(),
            &fixture.record.artifact,
            None,
            Depth::Full,
            &Pace::new(None),
        );
        assert_eq!(summary(&unknown.unwrap()), "it has other content");
        fs::remove_dir_all(fixture.place()).unwrap();
        assert_eq!(fixture.summary(), "it is missing");
    }

    #[cfg(unix)]
    #[test]
    fn verify_refuses_a_link_in_an_artifact() {
        let fixture = fixture();
        std::os::unix::fs::symlink("/etc/passwd", fixture.place().join("train/2.arrow")).unwrap();
        assert_eq!(fixture.summary(), "`train/2.arrow` does not belong to it");
    }

    /// One file at least is drawn, and over many draws every one.
    #[test]
    fn verify_draws_another_sample_each_time() {
        let fixture = fixture();
        fixture.write("train/0.arrow", &[6; 1000]);
        let found = (0..200)
            .filter(|_| !fixture.faults(Depth::Sample(1000)).is_empty())
            .count();
        assert!((1..200).contains(&found), "{found}");
        assert_eq!(
            fixture.faults(SAMPLE).len(),
            1,
            "small artifacts are hashed in full"
        );
        fixture.write("train/extra.arrow", b"");
        assert!(
            !fixture.faults(Depth::Sample(0)).is_empty(),
            "what is extra is always seen"
        );
    }

    #[test]
    fn verify_keeps_its_pace_over_all_threads() {
        let pace = Pace::new(Some(1e6));
        let clock = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5).for_each(|_| pace.took(5_000)));
            }
        });
        assert_eq!(pace.read(), 100_000);
        assert!(
            clock.elapsed() >= Duration::from_millis(99),
            "{:?}",
            clock.elapsed()
        );
    }

    #[test]
    fn cache_miss_for_an_artifact_in_quarantine_says_so_and_it_is_made_again() {
        let fixture = fixture();
        let Fixture { store, record, .. } = &fixture;
        for number in ["", ".2"] {
            fixture.write("train/0.arrow", &[6; 1000]);
            assert!(matches!(store.lookup(&record.key).unwrap(), Lookup::Hit(_)));
            let faults = fixture.faults(Depth::Full);
            let pin = store.pin(&record.artifact).unwrap();
            let quarantine = |force| store.quarantine(&record.artifact, Some(&record.files), &faults, force);
            assert_eq!(quarantine(false).unwrap(), Moved::InUse);
            drop(pin);
            let place = store
                .quarantine_path()
                .join(format!("{}{number}", record.artifact));
            assert_eq!(quarantine(false).unwrap(), Moved::To(place.clone()));
            assert_eq!(fs::read(place.join("train/0.arrow")).unwrap(), [6; 1000]);
            assert_eq!(quarantine(false).unwrap(), Moved::Gone);
            let why = fixture.why();
            assert!(why.starts_with("its artifact is in quarantine since 2"), "{why}");
            assert!(why.ends_with("Z: `train/0.arrow` has other content"), "{why}");
            assert_eq!(act(store).artifact, record.artifact);
            assert!(matches!(store.lookup(&record.key).unwrap(), Lookup::Hit(_)));
        }
        // Gone for another reason, later: the old note is about another time, and says when.
        fs::remove_file(fixture.place().join("rows.json")).unwrap();
        assert_eq!(fixture.why(), "`rows.json` of its artifact is missing");
    }

    /// A corrupt artifact that is in use is not served.
    #[test]
    fn verify_by_force_moves_an_artifact_in_use() {
        let fixture = fixture();
        let Fixture { store, record, .. } = &fixture;
        fixture.write("train/0.arrow", &[6; 1000]);
        let _pin = store.pin(&record.artifact).unwrap();
        let faults = fixture.faults(Depth::Full);
        let moved = store.quarantine(&record.artifact, Some(&record.files), &faults, true);
        assert!(matches!(moved.unwrap(), Moved::To(_)));
    }

    /// Between the finding and the moving a commit has put it right.
    #[test]
    fn verify_puts_a_sound_artifact_back() {
        let fixture = fixture();
        let Fixture { store, record, .. } = &fixture;
        let stale = [fault("rows.json", Flaw::Content)];
        let moved = store.quarantine(&record.artifact, Some(&record.files), &stale, false);
        assert_eq!(moved.unwrap(), Moved::Gone);
        assert_eq!(fixture.summary(), "");
        assert!(matches!(store.lookup(&record.key).unwrap(), Lookup::Hit(_)));
    }
}
