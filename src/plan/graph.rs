//! The stages of a manifest as a graph: their order, those that are wanted, names that it lacks.

use std::collections::HashSet;

use crate::error::{Context as _, Error, Result};
use crate::manifest::{Manifest, order};

pub(super) fn known(manifest: &Manifest, name: &str) -> Result<()> {
    if manifest.stages.contains_key(name) {
        return Ok(());
    }
    Err(unknown(manifest, name))
}

/// That a manifest has no such stage, with those it may have meant: of a swept one its own name, and its instances
/// where one of them was asked for.
#[must_use]
pub fn unknown(manifest: &Manifest, name: &str) -> Error {
    let written = |name: &str| name.split_once('@').map_or(name, |(stage, _)| stage).to_owned();
    let mut stages: Vec<String> = manifest.stages.keys().map(|name| written(name)).collect();
    stages.dedup();
    let instances: Vec<String> = match name.split_once('@') {
        Some((stage, _)) => manifest
            .stages
            .keys()
            .filter(|other| other.starts_with(&format!("{stage}@")))
            .cloned()
            .collect(),
        None => vec![],
    };
    let known = if instances.is_empty() { &stages } else { &instances };
    let nearest = known
        .iter()
        .map(|other| (strsim::damerau_levenshtein(name, other), other))
        .min()
        .filter(|(distance, _)| *distance <= 2.max(name.chars().count() / 3));
    let hint = match (nearest, instances.len()) {
        (Some((_, other)), _) => format!("did you mean `{other}`?"),
        (None, 0) => format!("the stages are {}", named(&stages)),
        (None, _) => format!("its instances are {}", named(&instances)),
    };
    Error::input(format!("`{}` has no stage `{name}`", manifest.name)).hint(hint)
}

/// Names for a hint; of many the first.
#[must_use]
pub fn named<T: std::fmt::Display>(names: &[T]) -> String {
    const NAMED: usize = 12;
    let mut shown: Vec<_> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    if names.len() > NAMED {
        shown.push(format!("and {} more", names.len() - NAMED));
    }
    shown.join(", ")
}

/// The names of all stages, each after those it consumes; among those that could be next, in the manifest's order.
///
/// # Errors
/// A stage consumes an unknown stage, or the stages form a cycle.
pub fn order(manifest: &Manifest) -> Result<Vec<&str>> {
    let consumed: Vec<Vec<usize>> = manifest
        .stages
        .values()
        .map(|stage| {
            let references = stage.references();
            let place = |name: &str| manifest.stages.get_index_of(name).unwrap_or(usize::MAX);
            references
                .iter()
                .map(|reference| place(reference.stage))
                .collect()
        })
        .collect();
    let order::StageOrder {
        ordered, circular, ..
    } = order::order(&consumed);
    let name = |index: &usize| {
        let stage = manifest.stages.get_index(*index);
        stage.map_or("", |(name, _)| name.as_str())
    };
    if circular.is_empty() {
        return Ok(ordered.iter().map(name).collect());
    }
    for name in circular.iter().map(name) {
        for reference in manifest.stages[name].references() {
            known(manifest, reference.stage).context(|| format!("stage `{name}`"))?;
        }
    }
    let names: Vec<_> = circular
        .iter()
        .map(|index| format!("`{}`", name(index)))
        .collect();
    Err(Error::input(format!(
        "order the stages: {} form a cycle",
        names.join(", ")
    )))
}

/// The stages that are wanted: those that `targets` need, themselves included; all where there is no target.
///
/// # Errors
/// The selection names an unknown stage.
pub fn wanted<'a>(manifest: &'a Manifest, targets: &'a [String]) -> Result<HashSet<&'a str>> {
    if targets.is_empty() {
        return Ok(manifest.stages.keys().map(String::as_str).collect());
    }
    needed_by(manifest, targets)
}

/// The stages that `targets` need, themselves included.
pub(super) fn needed_by<'a>(manifest: &'a Manifest, targets: &'a [String]) -> Result<HashSet<&'a str>> {
    let mut needed: HashSet<&str> = HashSet::new();
    let mut open: Vec<&str> = targets.iter().map(String::as_str).collect();
    while let Some(name) = open.pop() {
        known(manifest, name)?;
        if needed.insert(name) {
            open.extend(
                manifest.stages[name]
                    .references()
                    .iter()
                    .map(|reference| reference.stage),
            );
        }
    }
    Ok(needed)
}
