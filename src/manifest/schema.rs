//! The JSON Schema of a manifest, generated from its types.
//!
//! Editors read it (`$schema` in a manifest), `validate` checks with it, and `schemas/pipeline.schema.json` is its
//! committed copy. What schemars derives is finished here so that schema and serde agree on every value:
//! no `null` where a field can simply be left out, bounds on every integer, a title on every kind, and the
//! default's value in the text that an editor shows.

use std::sync::LazyLock;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Map, Value, json};

use super::Manifest;

/// Where the schema is committed, from the project's root.
pub const SCHEMA_PATH: &str = "schemas/pipeline.schema.json";
/// The command that regenerates the committed schema.
pub const REGENERATE: &str = "mdlm schema > schemas/pipeline.schema.json";

/// The schema, generated once.
static SCHEMA: LazyLock<Value> = LazyLock::new(generate);

/// The JSON Schema (draft 2020-12) of a manifest.
#[must_use]
pub fn schema() -> &'static Value {
    &SCHEMA
}

/// The schema as it is committed: indented, with a newline at its end.
#[must_use]
pub fn schema_text() -> String {
    // Serializing a `Value` to a string cannot fail: its keys are strings.
    let mut text = serde_json::to_string_pretty(schema()).unwrap_or_default();
    text.push('\n');
    text
}

fn generate() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(Finish);
    settings
        .into_generator()
        .into_root_schema_for::<Manifest>()
        .to_value()
}

/// Finishes what schemars derives; see the module's text.
#[derive(Clone, Debug)]
struct Finish;

impl Transform for Finish {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(object) = schema.as_object_mut() else {
            return;
        };
        without_null(object);
        bound_integer(object);
        tag_titles(object);
        default_in_description(object);
    }
}

/// `Option<T>` derives as "T or null"; a manifest leaves the field out instead.
fn without_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            object.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(branches)) = object.get_mut("anyOf") {
        branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
        if let [Value::Object(one)] = branches.as_slice() {
            let one = one.clone();
            object.remove("anyOf");
            for (key, value) in one {
                object.entry(key).or_insert(value);
            }
        }
    }
}

/// The type's own bounds, where the field states none; `format: uint32` says nothing to a validator.
fn bound_integer(object: &mut Map<String, Value>) {
    let largest = match object.get("format").and_then(Value::as_str) {
        Some("uint32") => u64::from(u32::MAX),
        // 2^53 − 1: past it, a JSON number is not the same in every program.
        Some("uint64") => (1 << 53) - 1,
        Some("double") => {
            object.remove("format");
            return;
        }
        _ => return,
    };
    object.remove("format");
    object.entry("minimum").or_insert(json!(0));
    object.entry("maximum").or_insert(json!(largest));
}

/// A branch of a tagged enum is titled by its tag, and the tag comes first.
fn tag_titles(object: &mut Map<String, Value>) {
    let Some(Value::Array(branches)) = object.get_mut("oneOf") else {
        return;
    };
    for branch in branches.iter_mut().filter_map(Value::as_object_mut) {
        let tag = branch
            .get("properties")
            .and_then(|p| p.get("kind"))
            .and_then(|k| k.get("const"))
            .cloned();
        if let Some(tag) = tag {
            branch.insert("title".to_owned(), tag);
            if let Some(Value::Object(properties)) = branch.get_mut("properties")
                && let Some(kind) = properties.shift_remove("kind")
            {
                properties.shift_insert(0, "kind".to_owned(), kind);
            }
            if let Some(Value::Array(required)) = branch.get_mut("required") {
                required.sort_by_key(|name| name != "kind");
            }
        }
    }
}

/// "Default: why" becomes "Default `value`: why": the value is written once, in the code.
fn default_in_description(object: &mut Map<String, Value>) {
    let Some(default) = object.get("default").cloned() else {
        return;
    };
    if let Some(Value::String(description)) = object.get_mut("description") {
        *description = description.replacen("Default: ", &format!("Default `{default}`: "), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schema_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(SCHEMA_PATH);
        let committed = std::fs::read_to_string(&path)
            .unwrap_or_default()
            .replace("\r\n", "\n");
        assert!(
            committed == schema_text(),
            "{SCHEMA_PATH} is stale; write it anew: {REGENERATE}"
        );
    }

    #[test]
    fn the_schema_is_itself_valid() {
        jsonschema::draft202012::meta::validate(schema()).unwrap();
        jsonschema::draft202012::new(schema()).unwrap();
    }
}
