//! Action records: what a stage with a given key made, and how.
//!
//! A record is a JSON file that ends with the BLAKE3 of itself, so that a torn or edited one is recognized.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Digest, FileEntry, Key, read};
use crate::error::{Error, Kind, Result, Wrap};

/// What a stage with a given key made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The key, part by part: a rerun compares them to say why it runs.
    pub key: Key,
    /// The artifact.
    pub artifact: Digest,
    /// What the artifact holds, whatever it is kept in, where the stage states it: the keys of its consumers have this
    /// instead of the artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
    /// Its files, by path.
    pub files: Vec<FileEntry>,
    /// Key figures of the run: name and value as text.
    pub figures: IndexMap<String, String>,
    /// How it came about. Not part of the key.
    pub provenance: Provenance,
}

/// How an artifact came about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Name of the stage.
    pub stage: String,
    /// Path of the manifest, as given.
    pub manifest: String,
    /// Where the manifest lies: [`Store::place`](super::Store::place). Absent in old records, and of one that came
    /// through a pipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Overrides that were in force, as given: `stages.model.steps=200`.
    pub overrides: Vec<String>,
    /// The stage's settings, every default spelt out, with what is not in the key.
    pub config: Value,
    /// The effective seed.
    pub seed: u64,
    /// The consumed artifacts.
    pub inputs: Vec<InputOrigin>,
    /// The files outside the store that were read.
    pub files: Vec<ExternalFile>,
    /// Version of mdlm.
    pub version: String,
    /// Git revision of mdlm, where it was known when it was built.
    pub revision: Option<String>,
    /// Where it ran.
    pub machine: Machine,
    /// Where its network was computed: `cpu`, or `cuda: ` with the GPU's name and the versions of driver and libraries.
    pub device: String,
    /// Threads.
    pub threads: usize,
    /// The stages of the same run that ran meanwhile: time and peak memory are theirs too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long the last, successful run took: without the runs that were interrupted before it.
    pub seconds: f64,
    /// The process's peak resident memory during the stage, where the system reports it.
    pub peak_memory_bytes: Option<u64>,
    /// What the stage itself has to say: speed, steps resumed from.
    pub facts: Map<String, Value>,
}

impl Provenance {
    /// The step from which a training resumed: its time is that of the steps after it.
    #[must_use]
    pub fn resumed_from(&self) -> Option<u64> {
        self.facts
            .get("resumed_from")
            .and_then(Value::as_u64)
            .filter(|step| *step > 0)
    }
}

/// A consumed artifact and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputOrigin {
    /// The field that names the stage.
    pub role: String,
    /// Name of the stage that made it.
    pub stage: String,
    /// Kind of that stage.
    pub kind: String,
    /// Digest of its key: the lineage from here to the sources.
    pub key: Digest,
    /// The artifact.
    pub artifact: Digest,
    /// What it holds, where its maker states it: [`Record::content`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Digest>,
}

impl InputOrigin {
    /// What the consumer's key has for it.
    #[must_use]
    pub fn consumed(&self) -> Digest {
        self.content.unwrap_or(self.artifact)
    }
}

/// A file outside the store that a stage read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalFile {
    /// The field that names it.
    pub field: String,
    /// Its path, relative to the manifest where it lies below it.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of its content.
    pub digest: Digest,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name in the network.
    pub host: String,
    /// Operating system and architecture: `linux x86_64`.
    pub system: String,
    /// The processor, where the system reports it.
    pub processor: Option<String>,
    /// Processors that the process may use.
    pub processors: usize,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        let processor = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        });
        Self {
            host: host_name(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor,
            processors: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// This machine's name, or `unknown`.
#[must_use]
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .or_else(|| std::env::var("COMPUTERNAME").ok())
        .map_or_else(|| "unknown".to_owned(), |name| name.trim().to_owned())
}

const CHECKSUM: &str = "checksum";

impl Record {
    /// What the keys of its consumers have for it.
    #[must_use]
    pub fn consumed(&self) -> Digest {
        self.content.unwrap_or(self.artifact)
    }

    /// The record as it is written: indented JSON whose last field is the BLAKE3 of the others as JSON without spaces.
    ///
    /// # Errors
    /// A bug: a record always has a JSON form.
    pub fn to_text(&self) -> Result<String> {
        let internal = |error| Error::internal(format!("write an action record: {error}"));
        let Value::Object(mut fields) = serde_json::to_value(self).map_err(internal)? else {
            return Err(Error::internal("write an action record: it is not an object"));
        };
        let checksum = Digest::of(Value::Object(fields.clone()).to_string().as_bytes());
        fields.insert(CHECKSUM.to_owned(), Value::String(checksum.to_string()));
        Ok(serde_json::to_string_pretty(&fields).map_err(internal)? + "\n")
    }

    /// Reads a record's text.
    ///
    /// # Errors
    /// An input error when the text is not a whole record.
    pub fn from_text(text: &str) -> Result<Self> {
        let mut fields: Map<String, Value> =
            serde_json::from_str(text).wrap(Kind::Input, || "its action record is damaged".to_owned())?;
        let checksum = fields.remove(CHECKSUM);
        let value = Value::Object(fields);
        let expected = Digest::of(value.to_string().as_bytes()).to_string();
        if checksum.as_ref().and_then(Value::as_str) != Some(&expected) {
            return Err(Error::input("its action record is damaged: the checksum differs"));
        }
        serde_json::from_value(value).wrap(Kind::Input, || {
            "its action record was written by another version of mdlm".to_owned()
        })
    }

    /// Reads a record's file, if there is one.
    ///
    /// # Errors
    /// An input error when it is damaged, an environment error when it cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => {
                let text = String::from_utf8(bytes)
                    .map_err(|_| Error::input("its action record is damaged: it is not UTF-8"))?;
                Self::from_text(&text).map(Some)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).wrap(Kind::Environment, || read(path)),
        }
    }
}

/// Records for tests.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    use indexmap::IndexMap;
    use serde_json::{Map, json};

    use super::{Digest, Key, Machine, Provenance, Record};

    /// A record like any other, for the tests of the store.
    #[must_use]
    pub fn example(seed: u64) -> Record {
        Record {
            key: Key {
                kind: "train".to_owned(),
                version: 1,
                config: json!({ "learning_rate": 3e-4, "steps": 100 }),
                seed: Some(seed),
                inputs: IndexMap::from([("from".to_owned(), Digest::of(b"rows"))]),
                files: IndexMap::from([("input/files".to_owned(), vec![Digest::of(b"text")])]),
            },
            artifact: Digest::of(b"artifact"),
            content: None,
            files: vec![],
            figures: IndexMap::from([("loss".to_owned(), "3.21".to_owned())]),
            provenance: Provenance {
                pipeline: "pipeline".to_owned(),
                stage: "model".to_owned(),
                manifest: "pipelines/pipeline.json".to_owned(),
                place: None,
                overrides: vec!["seed=7".to_owned()],
                config: json!({ "learning_rate": 3e-4, "steps": 100, "micro_batch": 8 }),
                seed,
                inputs: vec![],
                files: vec![],
                version: "0.1.0".to_owned(),
                revision: None,
                machine: Machine::this(),
                device: "cpu".to_owned(),
                threads: 2,
                beside: vec![],
                started: "2026-01-31T09:05:07.123Z".to_owned(),
                seconds: 0.1 + 0.2,
                peak_memory_bytes: Some(1 << 30),
                facts: Map::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::example;
    use super::*;

    #[test]
    fn record_reads_back() {
        let record = example(u64::MAX);
        assert_eq!(Record::from_text(&record.to_text().unwrap()).unwrap(), record);
    }

    #[test]
    fn record_torn_anywhere_is_damaged() {
        let text = example(1).to_text().unwrap();
        // Without its last newline it is whole.
        for length in 0..text.len() - 1 {
            let error = Record::from_text(&text[..length]).unwrap_err();
            assert_eq!(error.kind(), Kind::Input, "{length}");
        }
    }

    #[test]
    fn record_edited_by_hand_is_damaged() {
        let text = example(1).to_text().unwrap();
        let edited = text.replace("\"steps\": 100", "\"steps\": 101");
        assert_ne!(text, edited);
        let error = Record::from_text(&edited).unwrap_err();
        assert_eq!(
            error.to_string(),
            "its action record is damaged: the checksum differs"
        );
    }
}
