//! Fields whose value is an object with a `kind`: the default kind, and the fields of former manifests that moved into such
//! an object. These are refused with the object to write.

use serde_json::{Map, Value, json};

use super::StageKind;
use super::elsewhere::kinds_meant;
use super::fault::{argument, did_you_mean, spaced};
use super::instance::{SIGN, written as written_name};
use super::json::{Data, Member, Node, pointer_tokens};
use super::schema::resolved;
use super::schema_parts::stage_schema;
use super::span::Span;

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
    find(resolved(), name).or_else(|| {
        // Its default depends on the model; the first of the samplers is MDLM's.
        (name == "sampler").then_some("cached")
    })
}

/// The object that a path such as `objective.noise` makes of an absent `objective`: of the default kind, or empty where
/// the field has no such default.
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

/// The value of the field `name` with a name of a kind written as an object of that kind, where the field takes one:
/// `cosine` of `noise` as `{ "kind": "cosine" }`.
fn with_kind(name: &str, value: Value) -> Value {
    match value {
        Value::String(kind) if default_kind(name).is_some() => json!({ "kind": kind }),
        other => other,
    }
}

/// The fields that paths (of `--set`, of a `matrix`) have set in a member, names joined by points, each with its value;
/// the member itself where it was written as a whole.
fn set_by_paths(member: &Member) -> Vec<(String, Value)> {
    // What a path makes on its way stands where the path's name stands: see `absent`.
    let is_made = |member: &Member| member.value.span == member.key_span;
    if !(is_made(member) && member.value.is_object()) {
        return vec![(member.key.clone(), member.value.to_json())];
    }
    let members = member.value.members().iter();
    members
        .filter(|below| !is_made(below) || below.value.is_object())
        .flat_map(set_by_paths)
        .map(|(path, value)| (format!("{}.{path}", member.key), value))
        .collect()
}

/// A former field of the stage at `pointer`: the object that has it now, and the way out.
pub(super) fn moved(tree: &Node, pointer: &str, key: &str) -> Option<(&'static str, String)> {
    let stage = tree.at(pointer)?;
    let kind = stage.member("kind")?.value.as_str()?;
    let into = StageKind::named(kind)?.moved(key)?;
    let name = pointer_tokens(pointer).last()?;
    let (name, point) = name.split_once(SIGN).unwrap_or((name.as_str(), ""));
    let member = stage.member(key)?;
    let set = set_by_paths(member);
    let is_swept = |path: &str| {
        let field = format!("{path}=");
        point.starts_with(&field) || point.contains(&format!(",{field}"))
    };
    let hint = if set.iter().any(|(path, _)| is_swept(path)) {
        // A list of names sweeps the kind.
        let swept = set
            .iter()
            .map(|(path, value)| match with_kind(path, value.clone()) {
                Value::Object(_) if value.is_string() => format!("`{into}.{path}.kind`"),
                _ => format!("`{into}.{path}`"),
            });
        let swept: Vec<_> = swept.collect();
        format!("in `matrix`, sweep {}", swept.join(" and "))
    } else if member.key_span.source > 0 {
        let arguments = set.iter().map(|(path, value)| {
            let kind = match with_kind(path, value.clone()) {
                Value::Object(_) if value.is_string() => ".kind",
                _ => "",
            };
            argument(&format!("stages.{name}.{into}.{path}{kind}"), value)
        });
        let arguments: Vec<_> = arguments.collect();
        format!("`{}`", arguments.join(" "))
    } else {
        format!("write {}", written(stage, kind, into, None))
    };
    Some((into, hint))
}

/// The way out where the field at `pointer`, one with a default kind, has the name of a kind of its `schema` in place of an
/// object, be it misspelt or another program's; nothing for a kind that needs further fields.
pub(super) fn named_by_string(tree: &Node, pointer: &str, schema: &Value) -> Option<String> {
    let node = tree.at(pointer)?;
    let written_kind = node.as_str()?;
    let (parent, field) = pointer.rsplit_once('/')?;
    default_kind(field)?;
    let branches = schema["oneOf"].as_array()?;
    let kinds = branches
        .iter()
        .filter_map(|branch| branch["properties"]["kind"]["const"].as_str());
    let kinds: Vec<_> = kinds.collect();
    let meant = kinds_meant(field, written_kind).map(|kinds| kinds[0]);
    let kind = Some(written_kind)
        .filter(|kind| kinds.contains(kind))
        .or(meant)
        .or_else(|| did_you_mean(written_kind, kinds.iter().copied()))?;
    let branch = branches
        .iter()
        .find(|branch| branch["properties"]["kind"]["const"] == kind)?;
    if branch["required"] != json!(["kind"]) {
        return None;
    }
    if node.span.source > 0 {
        // What was set is the stage, not an instance of it.
        let path = pointer_tokens(pointer).map(|name| written_name(&name).to_owned());
        let path: Vec<_> = path.collect();
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
    let branches = stage_schema(kind_of_stage).map(|stage| &stage["properties"][field]["oneOf"]);
    let branches = branches.and_then(Value::as_array).into_iter().flatten();
    let mut of_kind =
        branches.filter(|branch| Some(&branch["properties"]["kind"]["const"]) == object.get("kind"));
    let settings = of_kind.next().map(|branch| &branch["properties"]);
    let moved = StageKind::named(kind_of_stage)
        .into_iter()
        .flat_map(StageKind::all_moved);
    for (key, into) in moved {
        if into == field
            // Another kind may lack it.
            && settings.is_none_or(|settings| settings.get(key).is_some())
            && let Some(member) = stage.member(key)
        {
            object.entry(key).or_insert_with(|| member.value.to_json());
        }
    }
    for (key, value) in &mut object {
        *value = with_kind(key, value.take());
    }
    format!("`\"{field}\": {}`", spaced(&Value::Object(object)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::manifest::{Manifest, Objective, Stage};
    use crate::shape::tests::EXAMPLES;

    /// A manifest with these settings of its train stage, as they are written and with `--set`.
    fn load(settings: &serde_json::Value, overrides: &[&str]) -> Result<Manifest, Vec<String>> {
        let mut stage = json!({ "kind": "train", "from": "r", "shape": "nano", "steps": 5000 });
        let members = settings.as_object().unwrap().clone();
        stage.as_object_mut().unwrap().extend(members);
        let manifest = json!({ "name": "p", "seed": 1, "stages": {
            "t": { "kind": "source", "input": { "kind": "files", "files": ["*.txt"] } },
            "k": { "kind": "tokenize", "from": "t", "tokenizer": { "kind": "characters" } },
            "r": { "kind": "pack", "from": "k", "length": 32 },
            "m": stage,
        } });
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        let loaded = Manifest::from_bytes("p.json", manifest.to_string().into_bytes(), &overrides, EXAMPLES);
        let hints = |faults: crate::manifest::Faults| {
            let hint = |fault: &crate::manifest::Fault| fault.hint.clone().unwrap_or_default();
            faults.list.iter().map(hint).collect()
        };
        loaded.map(|loaded| loaded.manifest).map_err(hints)
    }

    #[test]
    fn objective_as_a_string_or_former_fields_is_refused_with_the_object() {
        let all = r#"write `"objective": { "kind": "mdlm", "noise": { "kind": "cosine" }, "sampling_epsilon": 0.01, "antithetic": false, "time_conditioning": true }`"#;
        for (settings, expected) in [
            (
                json!({ "noise": { "kind": "cosine" } }),
                vec![r#"write `"objective": { "kind": "mdlm", "noise": { "kind": "cosine" } }`"#],
            ),
            (
                json!({
                    "noise": { "kind": "cosine" }, "sampling_epsilon": 0.01, "antithetic": false, "time_conditioning": true
                }),
                vec![all; 4],
            ),
            (
                json!({ "time_conditioning": true, "objective": { "kind": "mdlm", "antithetic": false } }),
                vec![
                    r#"write `"objective": { "kind": "mdlm", "antithetic": false, "time_conditioning": true }`"#,
                ],
            ),
            (
                json!({ "noise": "cosine" }),
                vec![r#"write `"objective": { "kind": "mdlm", "noise": { "kind": "cosine" } }`"#],
            ),
            (
                json!({ "matrix": { "noise": ["cosine", "log_linear"] } }),
                vec!["in `matrix`, sweep `objective.noise.kind`"],
            ),
            (
                json!({ "objective": "mdlm" }),
                vec![r#"write `"objective": { "kind": "mdlm" }`"#],
            ),
            // Autoregression has no noise.
            (
                json!({ "objective": { "kind": "ar" }, "noise": "cosine" }),
                vec![r#"write `"objective": { "kind": "ar" }`"#],
            ),
            (
                json!({ "matrix": { "antithetic": [true, false] } }),
                vec!["in `matrix`, sweep `objective.antithetic`"],
            ),
            (
                json!({ "matrix": { "noise.epsilon": [0.01], "noise.kind": ["cosine", "log_linear"] } }),
                vec!["in `matrix`, sweep `objective.noise.kind` and `objective.noise.epsilon`"],
            ),
        ] {
            assert_eq!(load(&settings, &[]).unwrap_err(), expected, "{settings}");
        }
        let sweep = json!({ "matrix": { "seed": [1, 2] } });
        for (argument, expected) in [
            (
                "stages.m.noise.kind=cosine",
                "`--set stages.m.objective.noise.kind=cosine`",
            ),
            (
                "stages.m.noise=cosine",
                "`--set stages.m.objective.noise.kind=cosine`",
            ),
            (
                r#"stages.m.noise={"kind":"cosine"}"#,
                r#"`--set 'stages.m.objective.noise={"kind":"cosine"}'`"#,
            ),
            (
                "stages.m.time_conditioning=true",
                "`--set stages.m.objective.time_conditioning=true`",
            ),
            ("stages.m.objective=mdlm", "`--set stages.m.objective.kind=mdlm`"),
        ] {
            for settings in [json!({}), sweep.clone()] {
                assert_eq!(
                    load(&settings, &[argument]).unwrap_err(),
                    [expected],
                    "{argument}"
                );
            }
        }
    }

    #[test]
    fn hints_name_objects_that_a_manifest_takes() {
        let objective = |settings: &serde_json::Value, overrides: &[&str]| {
            let manifest = load(settings, overrides).unwrap();
            let stage = manifest
                .stages
                .into_iter()
                .find(|(name, _)| name.starts_with('m'));
            match stage.unwrap().1 {
                Stage::Train(stage) => serde_json::to_value(stage.objective).unwrap(),
                other => panic!("{other:?}"),
            }
        };
        let none = json!({});
        let default = serde_json::to_value(Objective::default()).unwrap();
        assert_eq!(objective(&none, &[]), default);
        let cosine = json!({ "objective": { "kind": "mdlm", "noise": { "kind": "cosine" } } });
        let expected = objective(&cosine, &[]);
        assert_eq!(expected["noise"], json!({ "kind": "cosine", "epsilon": 0.001 }));
        assert_eq!(
            objective(&none, &["stages.m.objective.noise.kind=cosine"]),
            expected
        );
        assert_eq!(
            objective(&none, &[r#"stages.m.objective.noise={"kind":"cosine"}"#]),
            expected
        );
        let swept = json!({ "matrix": { "objective.noise.kind": ["cosine"] } });
        assert_eq!(objective(&swept, &[]), expected);
        let epsilon = objective(&none, &["stages.m.objective.noise.epsilon=0.01"]);
        assert_eq!(epsilon["noise"], json!({ "kind": "log_linear", "epsilon": 0.01 }));
        let swept = json!({ "matrix": { "objective.time_conditioning": [true] } });
        assert_eq!(objective(&swept, &[])["time_conditioning"], true);
        assert_eq!(objective(&none, &["stages.m.objective.kind=mdlm"]), default);
        assert_eq!(objective(&cosine, &["stages.m.objective=null"]), default);
    }

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
        match Manifest::from_bytes("p.json", manifest.to_string().into_bytes(), &overrides, EXAMPLES) {
            Ok(_) => vec![],
            Err(faults) => faults
                .list
                .iter()
                .map(|fault| fault.hint.clone().unwrap_or_default())
                .collect(),
        }
    }

    #[test]
    fn sampler_as_a_string_or_former_field_is_refused_with_the_object() {
        for (settings, expected) in [
            (
                json!({ "sampler": "ancestral" }),
                vec![r#"write `"sampler": { "kind": "ancestral" }`"#],
            ),
            (
                json!({ "grid": "published" }),
                vec![r#"write `"sampler": { "kind": "cached", "grid": "published" }`"#],
            ),
            (
                json!({ "sampler": "ancestral", "grid": "published" }),
                vec![
                    r#"write `"sampler": { "kind": "ancestral", "grid": "published" }`"#,
                    r#"write `"sampler": { "kind": "ancestral", "grid": "published" }`"#,
                ],
            ),
            (
                json!({ "matrix": { "grid": ["exact", "published"] } }),
                vec!["in `matrix`, sweep `sampler.grid`"],
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
                vec!["`--set stages.s.sampler.grid=published`"],
            ),
            ("stages.s.sampler.kind=ancestral", vec![]),
            ("stages.s.sampler.grid=published", vec![]),
            ("stages.m.objective.noise.epsilon=0.01", vec![]),
        ] {
            assert_eq!(hints(&json!({}), &[argument]), expected, "{argument}");
        }
    }
}
