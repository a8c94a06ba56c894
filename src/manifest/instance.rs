//! Instances: the stages that a sweep makes of one, their names and their values.

use std::sync::{Mutex, PoisonError};

use indexmap::IndexMap;
use serde_json::Value;

/// Stages that a manifest may have once its sweeps are spelt out: more are taken for a slip, such as `"to": 1000000`. The plan
/// of so many takes about a gigabyte of memory.
pub const MAX_STAGES: usize = 100_000;
/// What stands between a stage's name and the values of an instance.
pub const SIGN: char = '@';

/// Where an instance stands in its sweep: the values by field, in the order of its name.
pub type Point = IndexMap<String, Value>;

/// A stage that a sweep has made.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    /// Its name: `model@seed=1`.
    pub name: String,
    /// Its values.
    pub point: Point,
}

/// The role of the input of a number, such as `of/12` or `of/12/model`. A role is made when it is first asked for, and lives as
/// long as the program: there are no more than [`MAX_STAGES`] with the same end.
pub(super) fn numbered_role(
    known: &'static Mutex<Vec<&'static str>>,
    index: usize,
    end: &str,
) -> Option<&'static str> {
    if index >= MAX_STAGES {
        return None;
    }
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    while known.len() <= index {
        let role = format!("of/{}{end}", known.len());
        known.push(role.leak());
    }
    Some(known[index])
}

/// The name of a stage as written, without the values of an instance.
#[must_use]
pub fn written(name: &str) -> &str {
    name.split(SIGN).next().unwrap_or(name)
}
