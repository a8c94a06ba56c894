//! Hints for overrides and options that name a field without its stage, or a stage without its field.

use super::elsewhere::our_name;
use super::fault::{did_you_mean, quoted};
use super::json::{Member, Node};
use super::schema_parts::{fields, stage_schemas};

/// The field of some kind of stage that a name stands for, be it another program's name.
#[must_use]
pub fn stage_field(name: &str) -> Option<&'static str> {
    let name = our_name(name);
    let fields = stage_schemas().filter_map(|branch| branch["properties"].as_object());
    let mut names = fields.flat_map(|fields| fields.keys());
    names
        .find(|field| *field == name && *field != "kind")
        .map(String::as_str)
}

/// Most paths that a hint lists; of more, it shows the first.
const MOST_PATHS: usize = 4;

/// The hint for an override `path=value` whose path leads nowhere: a path with slashes, the path of a stage without
/// `stages.`, a field without its stage, or a stage without its field.
pub(super) fn meant_override(tree: &Node, path: &str, value: &str) -> Option<String> {
    let stages = tree.member("stages")?.value.members();
    let kind = |stage: &Member| {
        let kind = stage.value.member("kind")?;
        kind.value.as_str().map(str::to_owned)
    };
    let did_you_mean_these = |paths: &[String]| {
        // In full, however long: it is there to be copied.
        let mut sets: Vec<_> = paths
            .iter()
            .map(|path| format!("`--set {path}={value}`"))
            .collect();
        let last = sets.pop()?;
        let others = sets.join(", ");
        let or = if others.is_empty() { "" } else { " or " };
        Some(format!("did you mean {others}{or}{last}?"))
    };
    if path.contains('/') {
        let points = path.trim_matches('/').replace('/', ".");
        let (first, rest) = points.split_once('.').unwrap_or((&points, ""));
        if (first == "stages" && rest.contains('.')) || first == "seed" {
            return did_you_mean_these(&[points]);
        }
        return meant_override(tree, &points, value);
    }
    let path = path.strip_prefix("stages.").unwrap_or(path);
    if let Some((first, rest)) = path.split_once('.') {
        let names = stages.iter().map(|stage| stage.key.as_str());
        let stage = did_you_mean(first, names)?;
        return did_you_mean_these(&[format!("stages.{stage}.{rest}")]);
    }
    if let Some(stage) = stages.iter().find(|stage| stage.key == path) {
        let kind = kind(stage)?;
        let (field, value) = match fields(&kind).find(|field| *field == "steps") {
            Some(field) => (field, value),
            None => ("FIELD", "VALUE"),
        };
        return Some(format!(
            "{} is a stage; name a field of it: `--set stages.{path}.{field}={value}`",
            quoted(path)
        ));
    }
    let field = our_name(path);
    let has = |stage: &&Member| {
        kind(stage).is_some_and(|kind| fields(&kind).any(|own| own == field && own != "kind"))
    };
    let paths: Vec<_> = stages
        .iter()
        .filter(has)
        .map(|stage| format!("stages.{}.{field}", stage.key))
        .collect();
    if paths.len() > MOST_PATHS {
        return Some(format!(
            "{} stages have this field; name one: `--set {}={value}`",
            paths.len(),
            paths[0]
        ));
    }
    did_you_mean_these(&paths)
}
