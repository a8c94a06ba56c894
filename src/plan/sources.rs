//! Where a plan looks for what is known of its stages: the records of the store, each kind read once, and the remote.
//!
//! A plan is a value and holds none of this; its maker and its executor pass the same sources each time, so that all
//! decisions about it go by the same records.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::manifest::Manifest;
use crate::remote::Remote;
use crate::store::{Record, Store};

/// The store and the remote that a plan is made and run with.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Where results are.
    pub store: &'a Store,
    /// Where what is not in the store may be found.
    pub remote: Option<&'a Remote>,
    /// The names of all stages of the manifest.
    names: HashSet<String>,
    /// Whether a manifest is at a place, as far as it was asked for.
    places: Mutex<HashMap<String, bool>>,
    /// The records by kind, each kind read when it is first asked for.
    kinds: Mutex<HashMap<String, Arc<OfKind>>>,
}

/// The records of a kind of stage.
#[derive(Debug, Default)]
pub struct OfKind {
    /// All, in the order of their keys.
    pub records: Vec<Record>,
    /// The places of those of each stage, by its name.
    own: HashMap<String, Vec<usize>>,
    /// The places of those of stages that the manifest does not have.
    strangers: Vec<usize>,
}

impl<'a> Sources<'a> {
    /// Those of a manifest's plan; nothing is read yet.
    #[must_use]
    pub fn new(manifest: &Manifest, store: &'a Store, remote: Option<&'a Remote>) -> Self {
        Self::of_stages(manifest.stages.keys().cloned(), store, remote)
    }

    fn of_stages(
        names: impl IntoIterator<Item = String>,
        store: &'a Store,
        remote: Option<&'a Remote>,
    ) -> Self {
        Self {
            store,
            remote,
            names: names.into_iter().collect(),
            places: Mutex::default(),
            kinds: Mutex::default(),
        }
    }

    /// Whether a manifest of the store's project is at that place ([`Store::place`]).
    pub(super) fn is_manifest(&self, place: &str) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&known) = places.get(place) {
            return known;
        }
        let is_file = self.store.project().join(place).is_file();
        places.insert(place.to_owned(), is_file);
        is_file
    }

    /// The records of a kind, as they were when they were first asked for.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn records(&self, kind: &str) -> Result<Arc<OfKind>> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kinds.get(kind) {
            return Ok(known.clone());
        }
        let records = self.store.records(kind)?;
        let mut of_kind = OfKind::default();
        for (place, record) in records.iter().enumerate() {
            let stage = &record.provenance.stage;
            of_kind.own.entry(stage.clone()).or_default().push(place);
            if !self.names.contains(stage) {
                of_kind.strangers.push(place);
            }
        }
        of_kind.records = records;
        let of_kind = Arc::new(of_kind);
        kinds.insert(kind.to_owned(), of_kind.clone());
        Ok(of_kind)
    }
}

impl OfKind {
    /// The records of a stage of that name, of any pipeline.
    pub fn own<'a>(&'a self, stage: &str) -> impl Iterator<Item = &'a Record> {
        let places = self.own.get(stage).map_or(&[][..], Vec::as_slice);
        places.iter().map(|&place| &self.records[place])
    }

    /// The records of a stage of that name and of those that the manifest does not have, in the order of their keys.
    pub fn own_and_strangers<'a>(&'a self, stage: &str) -> impl Iterator<Item = &'a Record> {
        let own = self.own.get(stage).map_or(&[][..], Vec::as_slice);
        let mut places: Vec<usize> = self.strangers.clone();
        // A stage that the manifest lacks is among both.
        places.extend(own);
        places.sort_unstable();
        places.dedup();
        places.into_iter().map(|place| &self.records[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::record::testing::example;

    /// However many stages are compared with them.
    #[test]
    fn plan_reads_the_records_of_a_kind_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path());
        store.prepare().unwrap();
        let write = |seed: u64, stage: &str| {
            let mut record = example(seed);
            stage.clone_into(&mut record.provenance.stage);
            let path = store.record_path(&record.key.kind, &record.key.digest());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, record.to_text().unwrap()).unwrap();
            path
        };
        let first = write(1, "model");
        write(2, "other");
        write(3, "gone");
        let sources = Sources::of_stages(["model".to_owned(), "other".to_owned()], &store, None);
        let found = sources.records("train").unwrap();
        // What is deleted or made later changes nothing.
        std::fs::remove_file(first).unwrap();
        let again = sources.records("train").unwrap();
        assert!(Arc::ptr_eq(&found, &again));
        let seeds = |records: Vec<&Record>| {
            let mut seeds: Vec<_> = records.iter().map(|record| record.key.seed.unwrap()).collect();
            seeds.sort_unstable();
            seeds
        };
        assert_eq!(seeds(found.own("model").collect()), [1]);
        assert_eq!(seeds(found.own_and_strangers("model").collect()), [1, 3]);
        assert_eq!(seeds(found.own_and_strangers("new").collect()), [3]);
    }
}
