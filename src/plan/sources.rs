//! Where a plan looks for what is known of its stages: the records of the store, each kind read once, and the remote.
//!
//! A plan is a value and holds none of this; its maker and its executor pass the same sources each time, so that all
//! decisions about it go by the same records.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::nearest::{NearIndex, digest_but_for};
use crate::error::Result;
use crate::manifest::Manifest;
use crate::remote::Remote;
use crate::store::{Digest, Key, Record, Store};

/// Records of stages that a manifest does not have which a stage is compared with, at most: where more are as near as these,
/// one of these explains as much.
const MOST_COMPARED: usize = 64;

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
    /// Those of [`OfKind::strangers`] that a plan compares with, by the inputs that are compared.
    near: Mutex<HashMap<Vec<String>, Arc<NearIndex>>>,
    /// The places of records by their keys without some settings, which are the same for all stages of a kind.
    alike: OnceLock<HashMap<Digest, Vec<usize>>>,
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

    /// The records of a stage of that name, and those of stages that the manifest does not have whose keys differ from a key in
    /// `most` parts at most, in the order of their keys; perhaps some others. Strangers are those that `is_related` accepts,
    /// which decides the same in all calls.
    pub(super) fn near<'a>(
        &'a self,
        stage: &str,
        key: &Key,
        most: usize,
        is_related: &dyn Fn(&Record) -> bool,
    ) -> Vec<&'a Record> {
        let mut places: Vec<usize> = self.own.get(stage).cloned().unwrap_or_default();
        if !self.strangers.is_empty() {
            let mut roles: Vec<String> = key.inputs.keys().cloned().collect();
            roles.sort();
            let mut near = self.near.lock().unwrap_or_else(PoisonError::into_inner);
            let index = near.entry(roles.clone()).or_insert_with(|| {
                let strangers = self.strangers.iter().map(|&place| (place, &self.records[place]));
                let related = strangers.filter(|(_, record)| is_related(record));
                Arc::new(NearIndex::new(related, &roles))
            });
            let index = index.clone();
            drop(near);
            let strangers = match most {
                0 | 1 => index.in_one(key, &roles),
                _ => index.in_two(key, &roles),
            };
            places.extend(strangers.into_iter().take(MOST_COMPARED));
        }
        // A stage that the manifest lacks is among both.
        places.sort_unstable();
        places.dedup();
        places.into_iter().map(|place| &self.records[place]).collect()
    }

    /// The records whose keys are equal to a key but for some settings, the same of every stage of the kind.
    pub(super) fn alike<'a>(&'a self, key: &Key, but_for: &[&str]) -> impl Iterator<Item = &'a Record> {
        let index = self.alike.get_or_init(|| {
            let mut index: HashMap<Digest, Vec<usize>> = HashMap::new();
            for (place, record) in self.records.iter().enumerate() {
                let rest = digest_but_for(&record.key, but_for);
                index.entry(rest).or_default().push(place);
            }
            index
        });
        let places = index.get(&digest_but_for(key, but_for)).into_iter().flatten();
        places.map(|&place| &self.records[place])
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
        let key = example(4).key;
        let near =
            |stage, is_related: &dyn Fn(&Record) -> bool| seeds(found.near(stage, &key, 2, is_related));
        assert_eq!(near("model", &|_| true), [1, 3]);
        assert_eq!(near("new", &|_| true), [3]);
        let found = Sources::of_stages(["model".to_owned()], &store, None);
        let found = found.records("train").unwrap();
        assert!(found.near("new", &key, 2, &|_| false).is_empty());
        let alike = |seed, but_for: &[&str]| {
            let mut key = example(seed).key;
            key.config["steps"] = 7.into();
            seeds(found.alike(&key, but_for).collect())
        };
        assert_eq!(alike(3, &["steps"]), [3]);
        assert!(alike(5, &["steps"]).is_empty());
    }
}
