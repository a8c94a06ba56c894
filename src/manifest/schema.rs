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
use super::shape_field::state_shapes;
use crate::shape::Shapes;

/// Where the schema is committed, from the project's root.
pub const SCHEMA_PATH: &str = "schemas/pipeline.schema.json";
/// The command that regenerates the committed schema.
pub const REGENERATE: &str = "mdlm schema > schemas/pipeline.schema.json";

/// The schema of the types, generated once.
static RESOLVED: LazyLock<Value> = LazyLock::new(generate);

/// The JSON Schema (draft 2020-12) of a manifest, where these shapes are compiled.
#[must_use]
pub fn schema(shapes: Shapes) -> Value {
    let mut schema = written(resolved().clone());
    state_shapes(&mut schema, shapes);
    schema
}

/// The schema of a manifest whose sweeps are expanded: that of the types, which does not say what shapes are compiled.
pub(super) fn resolved() -> &'static Value {
    &RESOLVED
}

/// Turns the schema of the types into the schema of a written manifest: stages may have a `description` and a `matrix`,
/// which may set fields that the stage would otherwise require; compare stages name stages; the names of instances are
/// not allowed as stage names.
fn written(mut schema: Value) -> Value {
    let stages = &mut schema["properties"]["stages"];
    stages["propertyNames"]["pattern"] = json!("^[A-Za-z0-9_-]{1,64}$");
    let kinds = stages["additionalProperties"]["oneOf"].as_array_mut();
    for kind in kinds.into_iter().flatten() {
        if let Some(properties) = kind["properties"].as_object_mut() {
            properties.shift_insert(1, "description".to_owned(), description());
            properties.insert("matrix".to_owned(), matrix());
            if let Some(of) = properties.get_mut("of").and_then(Value::as_object_mut) {
                for key in ["type", "items"] {
                    of.shift_remove(key);
                }
                of.insert(
                    "oneOf".to_owned(),
                    json!([
                        { "type": "string" },
                        { "type": "array", "items": { "type": "string" }, "minItems": 1 }
                    ]),
                );
            }
        }
        if let Some(kind) = kind.as_object_mut()
            && let Some(Value::Array(required)) = kind.get_mut("required")
        {
            let unless_swept: Vec<Value> = required.iter().filter(|name| *name != "kind").cloned().collect();
            required.retain(|name| name == "kind");
            if !unless_swept.is_empty() {
                kind.insert("if".to_owned(), json!({ "not": { "required": ["matrix"] } }));
                kind.insert("then".to_owned(), json!({ "required": unless_swept }));
            }
        }
    }
    schema
}

/// The schema of a stage's `description`.
fn description() -> Value {
    json!({
        "title": "Description",
        "description": "Purpose of the stage. It has no effect on a run. Default: none.",
        "type": "string"
    })
}

/// The schema of a stage's `matrix`.
fn matrix() -> Value {
    let field = json!({
        "pattern": "^(?!kind$|kind\\.|matrix$|matrix\\.)[^.]+(\\.[^.]+)*$",
        "patternErrorMessage": "a field of the stage; separate nested names by dots"
    });
    json!({
        "title": "Matrix",
        "description": "Fields of the stage to sweep, each with a list of values, a range or settings by name. Separate the names of a nested field by dots \
            (`objective.noise.epsilon`). Several fields that change together have settings by name instead: \
            `\"size\": { \"small\": { \"steps\": 100, \"batch\": 8 } }` makes the instance `model@size=small`. Every combination of values makes an instance of the stage, such as `model@seed=1`, \
            and an instance of every stage that reads it. Default: not swept.",
        "type": "object",
        "minProperties": 1,
        "propertyNames": field,
        "additionalProperties": {
            "oneOf": [
                {
                    "title": "List",
                    "description": "The values to use, each once.",
                    "type": "array",
                    "minItems": 1,
                    "maxItems": super::instance::MAX_STAGES,
                    "uniqueItems": true
                },
                {
                    "title": "Range",
                    "description": "The numbers from `from` to `to`, both included.",
                    "type": "object",
                    "required": ["from", "to"],
                    "properties": {
                        "from": { "title": "From", "description": "The first value.", "type": "number" },
                        "to": {
                            "title": "To",
                            "description": "The limit of the range; it is a value if the steps reach it.",
                            "type": "number"
                        },
                        "step": {
                            "title": "Step",
                            "description": "Difference between one value and the next; negative to count down. Default: 1.",
                            "type": "number"
                        },
                        "factor": {
                            "title": "Factor",
                            "description": "Ratio of one value to the one before, instead of `step`: 10 for decades. \
                                Default: none, `step` is used.",
                            "type": "number",
                            "exclusiveMinimum": 0
                        }
                    },
                    "additionalProperties": false
                },
                {
                    "title": "Settings by name",
                    "description": "Fields that change together, by a name that stands for them in the names of instances and in \
                        tables.",
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": {
                        "pattern": "^[A-Za-z0-9._+-]{1,40}$",
                        "patternErrorMessage": "1 to 40 letters, digits and `.`, `_`, `-` or `+`"
                    },
                    "additionalProperties": { "type": "object", "propertyNames": field }
                }
            ]
        }
    })
}

/// The schema as it is committed: indented, with a newline at its end.
#[must_use]
pub fn schema_text(shapes: Shapes) -> String {
    // Serializing a `Value` to a string cannot fail: its keys are strings.
    let mut text = serde_json::to_string_pretty(&schema(shapes)).unwrap_or_default();
    text.push('\n');
    text
}

fn generate() -> Value {
    // Inline, because editors show a referenced type's text in place of the field's, and the field's has the default.
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.inline_subschemas = true)
        .with_transform(Finish);
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
        default_in_description(object);
        titles(object);
        close(object);
        reorder(object);
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

/// The title of a field is its name, and the title of a branch is its `kind`. The `kind` comes first and has the branch's
/// description.
fn titles(object: &mut Map<String, Value>) {
    let description = object.get("description").cloned();
    let Some(Value::Object(properties)) = object.get_mut("properties") else {
        return;
    };
    for (name, property) in properties.iter_mut() {
        if let Some(property) = property.as_object_mut()
            && !property.contains_key("title")
        {
            property.shift_insert(0, "title".to_owned(), Value::String(title(name)));
        }
    }
    let Some(mut kind) = properties.shift_remove("kind") else {
        return;
    };
    let tag = kind.get("const").cloned();
    if let (Some(kind), Some(description)) = (kind.as_object_mut(), description) {
        kind.shift_insert(1, "description".to_owned(), description);
    }
    properties.shift_insert(0, "kind".to_owned(), kind);
    if let Some(Value::Array(required)) = object.get_mut("required") {
        required.sort_by_key(|name| name != "kind");
    }
    if let Some(tag) = tag {
        object.insert("title".to_owned(), tag);
    }
}

/// A branch without settings derives as one that takes any.
fn close(object: &mut Map<String, Value>) {
    if object
        .get("properties")
        .is_some_and(|properties| properties.get("kind").is_some())
    {
        object.entry("additionalProperties").or_insert(json!(false));
    }
}

/// `learning_rate` → "Learning rate".
fn title(name: &str) -> String {
    let words = name.trim_start_matches('$').replace('_', " ");
    let mut letters = words.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A paragraph is a line, and "Default: why" becomes "Default `value`: why": the value is written once, in the code.
fn default_in_description(object: &mut Map<String, Value>) {
    let default = object.get("default").map(|value| format!("Default `{value}`: "));
    if let Some(Value::String(description)) = object.get_mut("description") {
        let paragraphs: Vec<_> = description
            .split("\n\n")
            .map(|text| text.replace('\n', " "))
            .collect();
        *description = paragraphs.join("\n\n");
        if let Some(default) = default {
            *description = description.replacen("Default: ", &default, 1);
        }
    }
}

/// Puts the keywords in the order in which a reader wants them.
fn reorder(object: &mut Map<String, Value>) {
    const FIRST: [&str; 8] = [
        "$schema",
        "title",
        "description",
        "default",
        "$ref",
        "type",
        "const",
        "enum",
    ];
    const LAST: [&str; 4] = ["required", "properties", "additionalProperties", "oneOf"];
    let rank = |key: &str| {
        let last = || {
            LAST.iter()
                .position(|name| *name == key)
                .map_or(FIRST.len(), |i| FIRST.len() + 1 + i)
        };
        FIRST.iter().position(|name| *name == key).unwrap_or_else(last)
    };
    let mut entries: Vec<_> = std::mem::take(object).into_iter().collect();
    entries.sort_by_key(|(key, _)| rank(key));
    object.extend(entries);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::EXAMPLES;

    #[test]
    fn schema_is_valid() {
        let written = schema(EXAMPLES);
        for schema in [resolved(), &written] {
            jsonschema::draft202012::meta::validate(schema).unwrap();
            jsonschema::draft202012::new(schema).unwrap();
        }
    }

    #[test]
    fn schema_lists_the_shapes_that_are_handed_in() {
        let text = schema_text(EXAMPLES);
        for shape in EXAMPLES.iter() {
            assert_eq!(text.matches(&format!("\"{}\"", shape.name)).count(), 2);
        }
        assert!(!text.contains("compiled shape\""), "{text}");
    }

    /// Calls `check` with the pointer and schema of every object.
    fn each_object(at: &str, schema: &Value, check: &mut impl FnMut(&str, &Value)) {
        if schema["type"] == "object" {
            check(at, schema);
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            each_object(&format!("{at}/{name}"), property, check);
        }
        for branch in schema["oneOf"].as_array().into_iter().flatten() {
            each_object(&format!("{at}[{}]", branch["title"]), branch, check);
        }
        for key in ["additionalProperties", "items"] {
            if schema[key].is_object() {
                each_object(&format!("{at}/*"), &schema[key], check);
            }
        }
    }

    #[test]
    fn schema_objects_are_closed_and_fields_are_described() {
        let mut objects = 0;
        each_object("", &schema(EXAMPLES), &mut |at, object| {
            objects += 1;
            let closed = &object["additionalProperties"];
            assert!(
                // The keys of these are names: of a stage's fields, of swept fields, of columns. They are checked later.
                *closed == false
                    || closed["oneOf"].is_array()
                    || at.contains("/matrix/*[\"Settings by name\"]")
                    || at.ends_with("/where")
                    || at.ends_with("/published"),
                "{at} takes any field"
            );
            let required: Vec<_> = [&object["required"], &object["then"]["required"]]
                .into_iter()
                .filter_map(Value::as_array)
                .flatten()
                .collect();
            for (name, field) in object["properties"].as_object().into_iter().flatten() {
                let at = format!("{at}/{name}");
                let text = field["description"].as_str().unwrap_or_default();
                assert!(text.ends_with(['.', ')']), "{at}: {text:?}");
                assert!(field["title"].is_string(), "{at} has no title");
                let optional = !required.contains(&&Value::String(name.clone()));
                let provenance = match field.get("default") {
                    Some(value) => format!("Default `{value}`: "),
                    None => "Default: ".to_owned(),
                };
                assert_eq!(optional, text.contains(&provenance), "{at}: {text:?}");
                // The bounds of a range are those of the field that is swept.
                let bounded = !at.contains("/matrix/");
                if bounded && (field["type"] == "integer" || field["type"] == "number") {
                    assert!(field["minimum"].is_number(), "{at} has no lower bound");
                }
                if field["type"] == "integer" {
                    assert!(field["maximum"].is_number(), "{at} has no upper bound");
                }
            }
        });
        assert!(objects > 20, "{objects}");
        assert!(
            !schema_text(EXAMPLES).contains("null"),
            "a field is left out, never null"
        );
    }
}
