//! Instances: the stages that a sweep makes of one, their names and their values.

use indexmap::IndexMap;
use serde_json::Value;

/// Stages that a manifest may have once its sweeps are spelt out.
pub const MAX_STAGES: usize = 1_000;
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

/// The name of a stage as written, without the values of an instance.
#[must_use]
pub fn written(name: &str) -> &str {
    name.split(SIGN).next().unwrap_or(name)
}
