//! Parts of the schema: those of stages and fields, the values that they take, and these in words.

use serde_json::Value;

use super::fault::{alternatives, shortened};
use super::schema::resolved;
use super::shape_field::is_shape;
use crate::shape::Shapes;

/// The schemas of the kinds of stages.
pub(super) fn stage_schemas() -> impl Iterator<Item = &'static Value> {
    let kinds = &resolved()["properties"]["stages"]["additionalProperties"]["oneOf"];
    kinds.as_array().into_iter().flatten()
}

/// The schema of a kind of stage.
pub(super) fn stage_schema(kind: &str) -> Option<&'static Value> {
    stage_schemas().find(|branch| branch["properties"]["kind"]["const"] == kind)
}

/// The fields of a kind of stage.
pub(super) fn fields(kind: &str) -> impl Iterator<Item = &'static str> {
    let fields = stage_schema(kind).and_then(|branch| branch["properties"].as_object());
    fields
        .into_iter()
        .flat_map(|fields| fields.keys().map(String::as_str))
}

/// The kinds of a tagged union; empty for any other schema.
pub(super) fn tags(schema: &Value) -> Vec<&str> {
    let branches = schema["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    branches
        .iter()
        .filter_map(|branch| branch["properties"]["kind"]["const"].as_str())
        .collect()
}

/// The strings that an enum takes.
pub(super) fn options(schema: &'static Value) -> Vec<&'static str> {
    let one_of = schema["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|branch| &branch["const"]);
    let listed = schema["enum"].as_array().into_iter().flatten();
    one_of
        .chain(listed)
        .chain(schema.get("const"))
        .filter_map(Value::as_str)
        .collect()
}

/// What a schema takes, in words, where the shapes are compiled.
pub(super) fn describe_with(schema: &'static Value, shapes: Shapes) -> String {
    if is_shape(schema) {
        let names: Vec<_> = shapes.iter().map(|shape| shape.name).collect();
        return one_of(&names);
    }
    describe(schema)
}

/// What a schema takes, in words, but for one that takes shapes.
pub(super) fn describe(schema: &'static Value) -> String {
    let kinds = tags(schema);
    if !kinds.is_empty() {
        return format!("an object with a `kind`: one of {}", alternatives(&kinds));
    }
    let options = options(schema);
    if !options.is_empty() {
        return one_of(&options);
    }
    if let Some(text) = schema["patternErrorMessage"].as_str() {
        return text.to_owned();
    }
    let bounds = |what: &str, low: &'static Value, high: &'static Value| match (low.is_null(), high.is_null())
    {
        (false, false) => format!("{what} from {} to {}", number(low), number(high)),
        (false, true) => format!("{what} of at least {}", number(low)),
        (true, false) => format!("{what} of at most {}", number(high)),
        (true, true) => what.to_owned(),
    };
    let counted = |what: &str, of: &str, low: &'static Value, high: &'static Value| {
        let (low, high) = (low.as_u64().unwrap_or(0), high.as_u64());
        match (low, high) {
            (0, None) => what.to_owned(),
            (1, None) => format!("{what}, not empty"),
            (low, None) => format!("{what} of at least {} {of}", number(&low.into())),
            (low, Some(high)) => format!(
                "{what} of {} to {} {of}",
                number(&low.into()),
                number(&high.into())
            ),
        }
    };
    match schema["type"].as_str() {
        Some("integer") => bounds("an integer", &schema["minimum"], &schema["maximum"]),
        Some("number") => bounds("a number", &schema["minimum"], &schema["maximum"]),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("string") => counted(
            "a string",
            "characters",
            &schema["minLength"],
            &schema["maxLength"],
        ),
        Some("array") => {
            let items = if schema["items"]["type"] == "string" {
                " of strings"
            } else {
                ""
            };
            counted(
                &format!("an array{items}"),
                "elements",
                &schema["minItems"],
                &schema["maxItems"],
            )
        }
        Some("object") => counted(
            "an object",
            "fields",
            &schema["minProperties"],
            &schema["maxProperties"],
        ),
        _ => "a value".to_owned(),
    }
}

/// "one of `a` or `b`".
fn one_of(options: &[&str]) -> String {
    let which = if options.len() > 1 { "one of " } else { "" };
    format!("{which}{}", alternatives(options))
}

/// A number as a person reads it: 1,048,576.
pub(super) fn number(value: &Value) -> String {
    let Some(integer) = value.as_i64().map(|i| i.to_string()).or_else(|| {
        // Bounds of floating-point fields are written 1.0, and so on.
        value
            .as_f64()
            .filter(|f| f.fract() == 0.0 && f.abs() < 1e15)
            .map(|f| (f as i64).to_string())
    }) else {
        return shortened(value);
    };
    let (sign, digits) = integer
        .strip_prefix('-')
        .map_or(("", &*integer), |digits| ("-", digits));
    let mut out = sign.to_owned();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
