//! Fields whose value is an object with a `kind`: the default kind, and the fields of former manifests that such an
//! object took in, which are refused with the object to write.

use serde_json::{Map, Value, json};

use super::schema::resolved;
use super::text::{Data, Member, Node, Span, pointer_tokens};

/// Former fields of a stage: its kind, the field, and the object that has the field now.
const MOVED: &[(&str, &str, &str)] = &[("sample", "grid", "sampler")];

/// The `kind` of the default of the field `name`, where it has a default with a `kind`.
fn default_kind(name: &str) -> Option<&'static str> {
    fn find(schema: &'static Value, name: &str) -> Option<&'static str> {
        match schema {
            Value::Object(members) => schema["properties"][name]["default"]["kind"]
                .as_str()
                .or_else(|| members.values().find_map(|member| find(member, name))),
            Value::Array(items) => items.iter().find_map(|item| find(item, name)),
            _ => None,
        }
    }
    find(resolved(), name)
}

/// The object that a path such as `sampler.grid` makes of an absent `sampler`: of the default kind, or empty where the
/// field has no such default.
pub(super) fn absent(name: &str, span: Span) -> Node {
    let member = |kind: &str| Member {
        key: "kind".to_owned(),
        key_span: span,
        value: Node {
            span,
            data: Data::String(kind.to_owned()),
        },
    };
    Node {
        span,
        data: Data::Object(default_kind(name).map(member).into_iter().collect()),
    }
}

/// The way out for a field of the stage at `pointer` that moved into an object.
pub(super) fn moved(tree: &Node, pointer: &str, key: &str) -> Option<String> {
    let stage = tree.at(pointer)?;
    let kind = stage.member("kind")?.value.as_str()?;
    let (.., into) = MOVED
        .iter()
        .find(|(stage, field, _)| *stage == kind && *field == key)?;
    let name = pointer_tokens(pointer).last()?;
    let member = stage.member(key)?;
    Some(if member.key_span.source > 0 {
        let value = plain(&member.value.to_json());
        format!("it moved into `{into}`: `--set stages.{name}.{into}.{key}={value}`")
    } else if name.contains(&format!("@{key}=")) || name.contains(&format!(",{key}=")) {
        format!("it moved into `{into}`: `matrix` sweeps it as `{into}.{key}`")
    } else {
        format!(
            "it moved into `{into}`: write {}",
            written(stage, kind, into, None)
        )
    })
}

/// The way out where the field at `pointer` names one of `kinds` as a string, not as an object.
pub(super) fn named_by_string(tree: &Node, pointer: &str, kinds: &[&str]) -> Option<String> {
    let node = tree.at(pointer)?;
    let kind = node.as_str().filter(|kind| kinds.contains(kind))?;
    let (parent, field) = pointer.rsplit_once('/')?;
    if node.span.source > 0 {
        let path: Vec<_> = pointer_tokens(pointer).collect();
        return Some(format!("`--set {}.kind={kind}`", path.join(".")));
    }
    let owner = tree.at(parent)?;
    let stage = owner.member("kind").and_then(|kind| kind.value.as_str());
    Some(format!(
        "write {}",
        written(owner, stage.unwrap_or_default(), field, Some(kind))
    ))
}

/// The object `field` of a stage as it is to be written, with the stage's former fields in it.
fn written(stage: &Node, kind_of_stage: &str, field: &str, kind: Option<&str>) -> String {
    let now = stage.member(field).map(|member| member.value.to_json());
    let mut object = match now {
        Some(Value::Object(object)) => object,
        Some(Value::String(kind)) => Map::from_iter([("kind".to_owned(), json!(kind))]),
        _ => Map::new(),
    };
    if let Some(kind) = kind.or_else(|| default_kind(field).filter(|_| !object.contains_key("kind"))) {
        object.shift_insert(0, "kind".to_owned(), json!(kind));
    }
    for (of, key, into) in MOVED {
        if *of == kind_of_stage
            && *into == field
            && let Some(member) = stage.member(key)
        {
            object.entry(*key).or_insert_with(|| member.value.to_json());
        }
    }
    format!("`\"{field}\": {}`", spaced(&Value::Object(object)))
}

/// JSON on one line, spaced as people write it.
fn spaced(value: &Value) -> String {
    match value {
        Value::Object(members) if !members.is_empty() => {
            let members: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{}: {}", json!(key), spaced(value)))
                .collect();
            format!("{{ {} }}", members.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(spaced).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// A value as an override has it: text without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::manifest::Manifest;

    /// The hints about a sample stage with these settings, as the manifest has them and with `--set`.
    fn hints(settings: &serde_json::Value, overrides: &[&str]) -> Vec<String> {
        let mut stage = json!({ "kind": "sample", "model": "m", "count": 3 });
        let members = settings.as_object().unwrap().clone();
        stage.as_object_mut().unwrap().extend(members);
        let manifest = json!({ "name": "p", "seed": 1, "stages": {
            "t": { "kind": "source", "input": { "kind": "files", "files": ["*.txt"] } },
            "k": { "kind": "tokenize", "from": "t", "tokenizer": { "kind": "characters" } },
            "r": { "kind": "pack", "from": "k", "length": 32 },
            "m": { "kind": "train", "from": "r", "shape": "nano", "steps": 1, "warmup_steps": 0 },
            "s": stage,
        } });
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        match Manifest::from_bytes("p.json", manifest.to_string().into_bytes(), &overrides) {
            Ok(_) => vec![],
            Err(faults) => faults
                .list
                .iter()
                .map(|fault| fault.hint.clone().unwrap_or_default())
                .collect(),
        }
    }

    #[test]
    fn a_string_and_former_fields_are_refused_with_the_object_to_write() {
        for (settings, expected) in [
            (
                json!({ "sampler": "ancestral" }),
                vec![r#"write `"sampler": { "kind": "ancestral" }`"#],
            ),
            (
                json!({ "grid": "published" }),
                vec![
                    r#"it moved into `sampler`: write `"sampler": { "kind": "cached", "grid": "published" }`"#,
                ],
            ),
            (
                json!({ "sampler": "ancestral", "grid": "published" }),
                vec![
                    r#"write `"sampler": { "kind": "ancestral", "grid": "published" }`"#,
                    r#"it moved into `sampler`: write `"sampler": { "kind": "ancestral", "grid": "published" }`"#,
                ],
            ),
            (
                json!({ "matrix": { "grid": ["exact", "published"] } }),
                vec!["it moved into `sampler`: `matrix` sweeps it as `sampler.grid`"],
            ),
            (
                json!({ "matrix": { "sampler.grid": ["exact", "published"] } }),
                vec![],
            ),
        ] {
            assert_eq!(hints(&settings, &[]), expected, "{settings}");
        }
        for (argument, expected) in [
            (
                "stages.s.sampler=ancestral",
                vec!["`--set stages.s.sampler.kind=ancestral`"],
            ),
            (
                "stages.s.grid=published",
                vec!["it moved into `sampler`: `--set stages.s.sampler.grid=published`"],
            ),
            ("stages.s.sampler.kind=ancestral", vec![]),
            ("stages.s.sampler.grid=published", vec![]),
            ("stages.m.noise.epsilon=0.01", vec![]),
        ] {
            assert_eq!(hints(&json!({}), &[argument]), expected, "{argument}");
        }
    }
}
