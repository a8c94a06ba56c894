//! Checks the lineage of a result, from its record to its sources.
//!
//! A record names what its stage consumed: by role the artifact and the key of the record that made it, by path and
//! digest the files outside the store. So from one record all of its history can be checked: whether each artifact is
//! what its name says, whether each record is whole and made what the next one consumed, and whether the files outside
//! are those that were read.

use std::collections::HashSet;
use std::path::Path;

use serde::Serialize;

use super::digest::hash_file_paced;
use super::verify::{self, Depth, Pace};
use super::{Digest, Record, Store};
use crate::error::{Kind, Result};

/// A record and its artifact.
#[derive(Clone, Debug, Serialize)]
pub struct Link {
    /// Name of the stage.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// The digest of its key.
    pub key: Digest,
    /// What it made.
    pub artifact: Digest,
    /// When, RFC 3339.
    pub made: String,
    /// What it consumed: role, stage and artifact.
    pub inputs: Vec<(String, String, Digest)>,
    /// What is wrong; nothing when the link holds.
    pub faults: Vec<String>,
    /// The files outside the store, and downloads, that it read.
    pub sources: Vec<ExternalInput>,
}

/// Something outside the store that a stage read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExternalInput {
    /// Its path as recorded, or its URL.
    pub place: String,
    /// BLAKE3 of a file, SHA-256 of a download, as they were.
    pub digest: String,
    /// Its present state.
    pub state: SourceState,
}

/// The present state of something that a stage read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceState {
    /// It holds what it held.
    Same,
    /// It holds something else.
    Changed,
    /// It is not there.
    Absent,
    /// It cannot be read: what the system says.
    Unreadable(String),
    /// It lies elsewhere, and was not asked again.
    Recorded,
}

impl Store {
    /// Follows the lineage of a record to its sources; each link once, results first. `base` is the folder of the
    /// manifest, where paths begin.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn lineage(&self, record: &Record, base: &Path, pace: &Pace) -> Result<Vec<Link>> {
        let mut links = Vec::new();
        let mut seen = HashSet::from([record.key.digest()]);
        let mut open = std::collections::VecDeque::from([record.clone()]);
        while let Some(record) = open.pop_front() {
            let mut link = self.link(&record, base, pace)?;
            for input in &record.provenance.inputs {
                if record.key.inputs.get(&input.role) != Some(&input.consumed()) {
                    let role = &input.role;
                    link.faults.push(format!(
                        "its key states another artifact for `{role}` than its record"
                    ));
                }
                let path = self.record_path(&input.kind, &input.key);
                let maker = match Record::read(&path) {
                    Ok(maker) => maker,
                    Err(error) if error.kind() == Kind::Environment => return Err(error),
                    Err(error) => {
                        let (stage, role) = (&input.stage, &input.role);
                        link.faults.push(format!(
                            "the record of `{stage}`, which made its `{role}`, cannot be used: {error}"
                        ));
                        continue;
                    }
                };
                let Some(maker) = maker else {
                    let (stage, role) = (&input.stage, &input.role);
                    link.faults.push(format!(
                        "the record of `{stage}`, which made its `{role}`, is not in the store"
                    ));
                    continue;
                };
                if maker.key.digest() != input.key {
                    let stage = &input.stage;
                    link.faults
                        .push(format!("the record of `{stage}` belongs to another key"));
                    continue;
                }
                if maker.artifact != input.artifact {
                    link.faults.push(format!(
                        "it consumed {} of `{}`, which has made {} since",
                        input.artifact.short(),
                        input.stage,
                        maker.artifact.short()
                    ));
                }
                if maker.artifact == input.artifact && maker.content != input.content {
                    let stage = &input.stage;
                    link.faults.push(format!(
                        "the record of `{stage}` states another content than it consumed"
                    ));
                }
                if seen.insert(input.key) {
                    open.push_back(maker);
                }
            }
            links.push(link);
        }
        Ok(links)
    }

    fn link(&self, record: &Record, base: &Path, pace: &Pace) -> Result<Link> {
        let made = &record.provenance;
        let folder = self.artifact_path(&record.artifact);
        let mut faults = Vec::new();
        if folder.exists() {
            let found = verify::examine(&folder, &record.artifact, Some(&record.files), Depth::Full, pace)?;
            if !found.is_empty() {
                let list = verify::summary(&found);
                faults.push(format!("the artifact differs from its record: {list}"));
            } else if super::digest::digest_of(&record.files) != record.artifact {
                faults.push("the record lists other files than its artifact has".to_owned());
            }
        } else {
            let why = self.quarantined(&record.artifact);
            faults.push(why.unwrap_or_else(|| "its artifact is not in the store".to_owned()));
        }
        for (field, digests) in &record.key.files {
            let read = made.files.iter().filter(|file| file.field == *field);
            if !read.map(|file| &file.digest).eq(digests) {
                faults.push(format!(
                    "its key states other files for `{field}` than its record"
                ));
            }
        }
        let mut sources = Vec::new();
        for file in &made.files {
            let path = base.join(&file.path);
            let state = match hash_file_paced(&path, &|bytes| pace.took(bytes)) {
                Ok(found) if found == (file.bytes, file.digest) => SourceState::Same,
                Ok(_) => SourceState::Changed,
                Err(_) if !path.exists() => SourceState::Absent,
                Err(error) => SourceState::Unreadable(error.to_string()),
            };
            sources.push(ExternalInput {
                place: file.path.clone(),
                digest: file.digest.to_string(),
                state,
            });
        }
        let downloads = made.facts.get("downloads").and_then(|value| value.as_array());
        for download in downloads.into_iter().flatten() {
            let text = |field: &str| download[field].as_str().unwrap_or_default().to_owned();
            sources.push(ExternalInput {
                place: text("url"),
                digest: text("sha256"),
                state: SourceState::Recorded,
            });
        }
        Ok(Link {
            stage: made.stage.clone(),
            kind: record.key.kind.clone(),
            key: record.key.digest(),
            artifact: record.artifact,
            made: made.started.clone(),
            inputs: made
                .inputs
                .iter()
                .map(|input| (input.role.clone(), input.stage.clone(), input.artifact))
                .collect(),
            faults,
            sources,
        })
    }
}
