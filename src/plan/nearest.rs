//! The records whose keys are equal to a key, or nearly so, found without comparing it with each of them: a sweep of 10,000
//! instances beside 10,000 records would make 100,000,000 comparisons.
//!
//! A key has parts: its version, its seed, each input, each setting at the top. A part and its value have a hash of 64 bits, and
//! the hash of a key is the sum of those of its parts, so that a part is taken away by a subtraction. Keys that differ in the
//! part `p` alone have the same sum without `p`; of keys that differ in `p` and `q`, the one's sum without both, with the other's
//! value of `q`, is the other's sum without `p`. Each value that `q` has in any record is tried. Sums may agree by chance: what
//! is found is compared with the key itself.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value;

use crate::store::{Digest, Key, Record};

/// Records by the sums of their keys' parts.
#[derive(Debug, Default)]
pub(super) struct NearIndex {
    /// The names of the parts that any key has.
    parts: Vec<String>,
    /// The hashes of the values that a part has in any key, where it has one; 0 stands for a key without the part.
    values: Vec<HashSet<u64>>,
    /// The places of records, by the sum.
    equal: HashMap<u64, Vec<usize>>,
    /// The same by a part and by the sum without it.
    without: HashMap<(usize, u64), Vec<usize>>,
}

impl NearIndex {
    /// That of some records, by their places. Of their inputs, those in the `roles` count.
    pub fn new<'a>(records: impl Iterator<Item = (usize, &'a Record)>, roles: &[String]) -> Self {
        let all: Vec<(usize, HashMap<String, u64>)> = records
            .map(|(place, record)| (place, parts(&record.key, roles)))
            .collect();
        let names: HashSet<&String> = all.iter().flat_map(|(_, parts)| parts.keys()).collect();
        let mut names: Vec<String> = names.into_iter().cloned().collect();
        names.sort();
        let mut index = Self {
            values: vec![HashSet::new(); names.len()],
            parts: names,
            ..Self::default()
        };
        for (place, parts) in &all {
            let sum = parts.values().fold(0_u64, |sum, hash| sum.wrapping_add(*hash));
            index.equal.entry(sum).or_default().push(*place);
            for (part, name) in index.parts.iter().enumerate() {
                let hash = parts.get(name).copied().unwrap_or(0);
                index.values[part].insert(hash);
                let rest = sum.wrapping_sub(hash);
                index.without.entry((part, rest)).or_default().push(*place);
            }
        }
        index
    }

    /// The places of the records whose keys differ in one part at most, ascending, and perhaps of others.
    pub fn in_one(&self, key: &Key, roles: &[String]) -> Vec<usize> {
        let asked = self.asked(key, roles);
        let mut found = Vec::new();
        match asked.strange {
            0 => {
                for (part, own) in asked.own.iter().enumerate() {
                    found.extend(self.without(part, asked.sum.wrapping_sub(*own)));
                }
            }
            // The part that no record has is the one that differs.
            1 => found.extend(self.equal.get(&asked.sum).into_iter().flatten()),
            _ => {}
        }
        ascending(found)
    }

    /// The same of two parts at most.
    pub fn in_two(&self, key: &Key, roles: &[String]) -> Vec<usize> {
        let asked = self.asked(key, roles);
        let mut found = Vec::new();
        match asked.strange {
            0 => {
                for first in 0..self.parts.len() {
                    for second in first + 1..self.parts.len() {
                        // The values of one of the two are tried: of the one that has fewer.
                        let (tried, other) = if self.values[first].len() < self.values[second].len() {
                            (first, second)
                        } else {
                            (second, first)
                        };
                        let rest = asked.sum.wrapping_sub(asked.own[tried]);
                        let rest = rest.wrapping_sub(asked.own[other]);
                        for value in &self.values[tried] {
                            found.extend(self.without(other, rest.wrapping_add(*value)));
                        }
                    }
                }
            }
            1 => {
                for (part, own) in asked.own.iter().enumerate() {
                    found.extend(self.without(part, asked.sum.wrapping_sub(*own)));
                }
            }
            2 => found.extend(self.equal.get(&asked.sum).into_iter().flatten()),
            _ => {}
        }
        ascending(found)
    }

    fn without(&self, part: usize, rest: u64) -> impl Iterator<Item = &usize> {
        self.without.get(&(part, rest)).into_iter().flatten()
    }

    fn asked(&self, key: &Key, roles: &[String]) -> AskedKey {
        let parts = parts(key, roles);
        let own: Vec<u64> = (self.parts.iter())
            .map(|name| parts.get(name).copied().unwrap_or(0))
            .collect();
        let is_strange = |name: &&String| self.parts.binary_search(name).is_err();
        AskedKey {
            sum: own.iter().fold(0, |sum, hash| sum.wrapping_add(*hash)),
            own,
            strange: parts.keys().filter(is_strange).count(),
        }
    }
}

/// A key that records are compared with.
struct AskedKey {
    /// The hashes of the parts that any record has, 0 where the key has none.
    own: Vec<u64>,
    /// Their sum.
    sum: u64,
    /// How many parts it has that no record has.
    strange: usize,
}

fn ascending(mut places: Vec<usize>) -> Vec<usize> {
    places.sort_unstable();
    places.dedup();
    places
}

/// The parts of a key, with the hashes of their values.
fn parts(key: &Key, roles: &[String]) -> HashMap<String, u64> {
    let mut parts = HashMap::new();
    let mut add = |name: String, value: String| {
        let mut hasher = DefaultHasher::new();
        (&name, value).hash(&mut hasher);
        parts.insert(name, hasher.finish());
    };
    add("version".to_owned(), key.version.to_string());
    if let Some(seed) = key.seed {
        add("seed".to_owned(), seed.to_string());
    }
    for (role, digest) in &key.inputs {
        if roles.contains(role) {
            add(format!("input {role}"), digest.to_string());
        }
    }
    if let Value::Object(fields) = &key.config {
        for (field, value) in fields {
            add(format!("setting {field}"), value.to_string());
        }
    }
    parts
}

/// A key without some settings, as a digest.
#[must_use]
pub(super) fn digest_but_for(key: &Key, but_for: &[&str]) -> Digest {
    let mut key = key.clone();
    if let Some(config) = key.config.as_object_mut() {
        config.retain(|field, _| !but_for.contains(&field.as_str()));
    }
    key.digest()
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use serde_json::json;

    use super::*;
    use crate::store::record::testing::example;

    fn record(seed: u64, steps: u64, rate: f64, rows: &[u8]) -> Record {
        let mut record = example(seed);
        record.key.config = json!({ "steps": steps, "rate": rate });
        record.key.inputs = IndexMap::from([("from".to_owned(), Digest::of(rows))]);
        record
    }

    /// Every key is compared with every record: those that differ in so many parts, and no others.
    #[test]
    fn nearest_records_are_those_that_a_comparison_finds() {
        let mut records = Vec::new();
        for seed in 0..3 {
            for steps in [10, 20] {
                for rate in [0.1, 0.2] {
                    for rows in [&b"one"[..], b"two"] {
                        records.push(record(seed, steps, rate, rows));
                    }
                }
            }
        }
        // One that lacks a setting.
        records[5]
            .key
            .config
            .as_object_mut()
            .unwrap()
            .shift_remove("rate");
        let mut asked: Vec<Key> = records.iter().map(|record| record.key.clone()).collect();
        asked.push(record(7, 10, 0.1, b"one").key);
        asked.push(record(7, 30, 0.1, b"one").key);
        asked.push(record(7, 30, 0.3, b"three").key);
        asked.push(record(1, 30, 0.3, b"one").key);
        let mut more = record(1, 10, 0.1, b"two").key;
        more.config["new"] = json!(1);
        asked.push(more.clone());
        more.config["newer"] = json!(2);
        asked.push(more.clone());
        more.seed = Some(9);
        asked.push(more);
        for roles in [vec!["from".to_owned()], vec![]] {
            let index = NearIndex::new(records.iter().enumerate(), &roles);
            for key in &asked {
                let own = parts(key, &roles);
                let differ = |record: &Record| {
                    let other = parts(&record.key, &roles);
                    let names: HashSet<_> = own.keys().chain(other.keys()).collect();
                    names
                        .iter()
                        .filter(|name| own.get(**name) != other.get(**name))
                        .count()
                };
                let within = |most: usize| -> Vec<usize> {
                    (0..records.len())
                        .filter(|&place| differ(&records[place]) <= most)
                        .collect()
                };
                assert_eq!(index.in_one(key, &roles), within(1), "{key:?}");
                assert_eq!(index.in_two(key, &roles), within(2), "{key:?}");
            }
        }
    }
}
