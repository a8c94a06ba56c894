//! Hints for fields that take a number but have another value, or a number outside their range.

use serde_json::Value;

use super::fault::Draft;
use super::json::pointer_tokens;
use super::schema::resolved;
use super::schema_parts::{describe, stage_schemas};
use super::spelling;

/// The schema of a field of some kind of stage that takes a number, and whether a stage has to have it.
fn number_field(name: &str) -> Option<(&'static Value, bool)> {
    let is_number = |schema: &Value| matches!(schema["type"].as_str(), Some("integer" | "number"));
    stage_schemas().find_map(|kind| {
        let schema = kind["properties"].get(name).filter(|schema| is_number(schema))?;
        let required = kind["required"]
            .as_array()
            .is_some_and(|all| all.iter().any(|field| field == name));
        Some((schema, required))
    })
}

/// The schemas of all fields of that name that take a number, at any depth.
fn number_fields(schema: &'static Value, name: &str, found: &mut Vec<&'static Value>) {
    match schema {
        Value::Object(members) => {
            let field = &schema["properties"][name];
            if matches!(field["type"].as_str(), Some("integer" | "number")) {
                found.push(field);
            }
            members
                .values()
                .for_each(|member| number_fields(member, name, found));
        }
        Value::Array(items) => items.iter().for_each(|item| number_fields(item, name, found)),
        _ => {}
    }
}

/// The way out where a text means a number that its field does not take: `0x10` for a learning rate.
pub(super) fn unfit(text: &str, schema: &'static Value) -> Option<String> {
    let kind = schema["type"].as_str()?;
    let written = spelling::meant_number(text).filter(|_| matches!(kind, "integer" | "number"))?;
    let value: f64 = written.parse().ok().filter(|value: &f64| value.is_finite())?;
    let is_beyond = |bound: &str, beyond: fn(f64, f64) -> bool| {
        schema[bound].as_f64().is_some_and(|bound| beyond(value, bound))
    };
    let what = if is_beyond("minimum", |value, low| value < low)
        || is_beyond("maximum", |value, high| value > high)
        || is_beyond("exclusiveMinimum", |value, low| value <= low)
        || is_beyond("exclusiveMaximum", |value, high| value >= high)
    {
        "out of range"
    } else if kind == "integer" && value.fract() != 0.0 {
        "not an integer"
    } else {
        return None;
    };
    Some(format!("{written} is {what}: write {}", describe(schema)))
}

/// Corrects the hint of a syntax fault in a field that takes a number: `"steps": True`, `"learning_rate": 0x10`.
pub(super) fn correct_hint(fault: &mut Draft, text: &str) {
    let word = text.get(fault.span.start..fault.span.end).unwrap_or_default();
    if !spelling::is_json_number(word) {
        // A value in the list of a sweep belongs to the list's field.
        let names = pointer_tokens(&fault.pointer).filter(|name| name.parse::<usize>().is_err());
        let mut fields = Vec::new();
        if let Some(name) = names.last() {
            number_fields(
                resolved(),
                name.rsplit('.').next().unwrap_or_default(),
                &mut fields,
            );
        }
        // The kind of the stage, which selects the field, is unknown while the text is not JSON: the hint must suit all.
        let hints: Option<Vec<_>> = fields.into_iter().map(|schema| unfit(word, schema)).collect();
        if let Some(hint) = hints.and_then(|hints| hints.into_iter().next()) {
            fault.hint = Some(hint);
            return;
        }
    }
    let Some(name) = pointer_tokens(&fault.pointer).last() else {
        return;
    };
    let Some((schema, is_required)) = number_field(&name) else {
        return;
    };
    let hint = match spelling::boolean(word) {
        Some(value) => number_for(value, schema),
        None if spelling::is_nothing(word) && is_required => "write a number",
        None => return,
    };
    fault.expected = Some(describe(schema));
    fault.hint = Some(hint.to_owned());
}

/// What to write in place of a truth value.
pub(super) fn number_for(value: bool, schema: &'static Value) -> &'static str {
    if !value && schema["minimum"].as_f64() == Some(0.0) {
        "write 0"
    } else {
        "write a number"
    }
}
