//! What a store knew when a plan was made: the records that stages are compared with, each read once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::store::{Record, Store};

/// The records of a store by kind, each kind read when it is first asked for.
#[derive(Debug, Default)]
pub struct Past {
    /// The names of all stages of the manifest.
    names: HashSet<String>,
    /// Whether a manifest is at a place, as far as it was asked for.
    places: Mutex<HashMap<String, bool>>,
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

impl Past {
    /// Nothing read yet, for a manifest with stages of these names.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self {
            names: names.into_iter().collect(),
            places: Mutex::default(),
            kinds: Mutex::default(),
        }
    }

    /// Whether a manifest of the store's project is at that place ([`Store::place`]).
    pub fn is_manifest(&self, place: &str, store: &Store) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&known) = places.get(place) {
            return known;
        }
        let is_file = store.project().join(place).is_file();
        places.insert(place.to_owned(), is_file);
        is_file
    }

    /// The records of a kind.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn of(&self, kind: &str, store: &Store) -> Result<Arc<OfKind>> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kinds.get(kind) {
            return Ok(known.clone());
        }
        let records = store.records(kind)?;
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
    use crate::store::record::tests::example;

    /// A kind is read from the disk once, however many stages are compared with it.
    #[test]
    fn a_kind_is_read_once() {
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
        let past = Past::new(["model".to_owned(), "other".to_owned()]);
        let found = past.of("train", &store).unwrap();
        // What comes and goes later is not of the past.
        std::fs::remove_file(first).unwrap();
        let again = past.of("train", &store).unwrap();
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
