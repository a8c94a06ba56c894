//! Runs that were made with a store: what the last of them reach is what `mdlm gc --last` keeps.
//!
//! A run is noted when it ends, a file each, named by consecutive numbers: a clock that goes back changes no order. One
//! that was killed leaves no note; what it had finished is younger than the run before it, and is recognized by that
//! ([`super::gc`]).

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Digest, Store, create_folder, names_below};
use crate::error::{Error, Kind, Result, Wrap};

/// Notes that are kept; the oldest go.
const MOST: usize = 1000;

/// A run that came to an end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunNote {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Path of the manifest, as given.
    pub manifest: String,
    /// Overrides that were in force, as given.
    pub overrides: Vec<String>,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long it took.
    pub seconds: f64,
    /// Whether all its stages are there.
    pub ok: bool,
    /// Version of mdlm.
    pub version: String,
    /// The stages that it asked for.
    pub stages: Vec<RunStage>,
}

/// A stage of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStage {
    /// Its name.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// Its key, where it was known.
    pub key: Option<Digest>,
    /// What it made, if it came so far.
    pub artifact: Option<Digest>,
}

impl Store {
    fn runs_path(&self) -> PathBuf {
        self.root().join("runs")
    }

    /// Records a run. One that reached what the run before it reached counts as that one: a thousand runs with
    /// nothing to do push nothing out.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn note_run(&self, run: &RunNote) -> Result<()> {
        let names = self.run_names()?;
        let last = names.last().and_then(|name| self.run(name));
        let same = |last: &RunNote| {
            (&last.pipeline, &last.manifest, last.ok, &last.stages)
                == (&run.pipeline, &run.manifest, run.ok, &run.stages)
        };
        if last.is_some_and(|last| same(&last)) {
            return Ok(());
        }
        let folder = self.runs_path();
        create_folder(&folder)?;
        let text = serde_json::to_string_pretty(run)
            .map_err(|error| Error::internal(format!("write the note of a run: {error}")))?;
        let number = |name: &String| name.split('.').next()?.parse::<u64>().ok();
        let mut next = names.iter().filter_map(number).max().unwrap_or(0) + 1;
        loop {
            let path = folder.join(format!("{next:010}.json"));
            let written = File::create_new(&path).and_then(|mut file| {
                // Half a note is none: it is read as damaged.
                file.write_all(text.as_bytes())
            });
            match written {
                // Another run ended just now.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => next += 1,
                other => {
                    other.wrap(Kind::Environment, || format!("write `{}`", path.display()))?;
                    break;
                }
            }
        }
        for old in names.iter().rev().skip(MOST - 1) {
            // Another process may have been quicker.
            let _ = fs::remove_file(folder.join(old));
        }
        Ok(())
    }

    /// The runs that are noted, oldest first. Damaged notes count for nothing.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn runs(&self) -> Result<Vec<RunNote>> {
        Ok(self
            .run_names()?
            .iter()
            .filter_map(|name| self.run(name))
            .collect())
    }

    fn run(&self, name: &str) -> Option<RunNote> {
        serde_json::from_str(&fs::read_to_string(self.runs_path().join(name)).ok()?).ok()
    }

    /// Names of notes, in order.
    fn run_names(&self) -> Result<Vec<String>> {
        let mut names = names_below(&self.runs_path())?;
        names.retain(|name| Path::new(name).extension().is_some_and(|ending| ending == "json"));
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that began that many seconds after another, and reached a key.
    fn note(second: u8, key: &Digest) -> RunNote {
        RunNote {
            pipeline: "pipeline".to_owned(),
            manifest: "pipelines/pipeline.json".to_owned(),
            overrides: vec![],
            started: format!("2026-01-31T09:05:{second:02}.000Z"),
            seconds: 1.5,
            ok: true,
            version: "0.1.0".to_owned(),
            stages: vec![RunStage {
                stage: "model".to_owned(),
                kind: "train".to_owned(),
                key: Some(*key),
                artifact: None,
            }],
        }
    }

    #[test]
    fn runs_are_noted_in_order_and_a_repeated_run_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        assert_eq!(store.runs().unwrap(), []);
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        for (second, key) in [(1, one), (2, one), (3, two), (4, one)] {
            store.note_run(&note(second, &key)).unwrap();
        }
        fs::write(folder.path().join("runs/0000000004.json"), "{").unwrap();
        // The clock was put back; it is the last run all the same.
        store.note_run(&note(0, &two)).unwrap();
        let runs = store.runs().unwrap();
        assert_eq!(runs, [note(1, &one), note(3, &two), note(4, &one), note(0, &two)]);
    }

    #[test]
    fn runs_oldest_notes_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        fs::create_dir(folder.path().join("runs")).unwrap();
        for number in 0..MOST {
            fs::write(folder.path().join(format!("runs/{number:010}.json")), "{").unwrap();
        }
        store.note_run(&note(1, &Digest::of(b"one"))).unwrap();
        let names = store.run_names().unwrap();
        assert_eq!((names.len(), names[0].as_str()), (MOST, "0000000001.json"));
    }
}
