//! Values of another JSON type than their field takes.

use serde_json::Value;

use crate::manifest::fault::{Code, Draft, quoted, shortened};
use crate::manifest::instance::SIGN;
use crate::manifest::json::{Node, pointer_join, pointer_tokens};
use crate::manifest::schema::resolved;
use crate::manifest::schema_parts::stage_schema;
use crate::manifest::spelling;

/// The fault of a value of another JSON type than its field takes, which is `expected`.
pub(super) fn wrong_type(tree: &Node, node: &Node, path: &str, json: &Value, expected: &str) -> Draft {
    let is_number = expected.contains("number") || expected.contains("integer");
    // The value of an override that is not JSON is a string without quotes.
    let bare = |text: &str| node.span.end - node.span.start == text.len();
    let found = match json {
        Value::Null => "`null` is not allowed".to_owned(),
        Value::Bool(value) => format!("`{value}` is a boolean"),
        Value::Number(number) if number.is_f64() && expected.contains("integer") => {
            format!("`{number}` is not an integer")
        }
        Value::Number(number) => format!("`{number}` is a number"),
        Value::String(text) if bare(text) && text.trim().is_empty() => "the value is missing".to_owned(),
        Value::String(text) if is_number && bare(text) && spelling::number_hint(text).is_some() => {
            format!("{} is not a JSON number", quoted(text))
        }
        Value::String(text) => {
            let beyond = spelling::beyond(text).filter(|_| is_number);
            let what = beyond.map_or("is a string", |(what, _)| what);
            format!("{} {what}", quoted(text))
        }
        Value::Array(_) => "this is an array".to_owned(),
        Value::Object(_) => "this is an object".to_owned(),
    };
    let draft = Draft::new(Code::WrongType, node.span, path, found)
        .value(json)
        .expected(expected);
    match json {
        Value::Null if is_required(tree, path) => draft.hint("write a value: the field has no default"),
        Value::Null => draft.hint("leave the field out to use its default"),
        Value::String(text) => {
            let quotes = if bare(text) { "" } else { " without quotes" };
            let plain = spelling::unquoted(text);
            if bare(text) && plain.is_empty() {
                return draft.hint("give a value after the `=`, or `null` to remove the field");
            }
            if is_number && let Some((_, way)) = spelling::beyond(text) {
                return draft.hint(way);
            }
            if is_number && spelling::is_json_number(plain) {
                return draft.hint(format!("write {plain} without quotes"));
            }
            if is_number && let Some(hint) = spelling::number_hint(text) {
                return draft.hint(format!("{hint}{quotes}"));
            }
            if expected.contains("`true`")
                && let Some(value) = spelling::boolean(text)
            {
                return draft.hint(format!("write {value}{quotes}"));
            }
            if spelling::is_nothing(text) && is_required(tree, path) {
                return draft.hint("write a value: the field has no default");
            }
            if spelling::is_nothing(text) {
                return draft.hint(if bare(text) {
                    "write `null` to remove the field and use its default"
                } else {
                    "leave the field out to use its default"
                });
            }
            if expected.starts_with("an array") {
                let text = shortened(&Value::String(text.clone()));
                return draft.hint(format!("write [{text}]"));
            }
            draft
        }
        Value::Number(number) if expected.starts_with("a string") => {
            draft.hint(format!("write \"{number}\""))
        }
        Value::Array(_) if path == "/stages" => {
            draft.hint("give every stage a name: `\"stages\": { \"text\": { \"kind\": \"source\", … }, … }`")
        }
        Value::Array(_) => draft.maybe_hint(swept(node, path, json, expected)),
        _ => draft,
    }
}

/// The way out where a field that takes one value has a list of them: a sweep.
fn swept(node: &Node, path: &str, json: &Value, expected: &str) -> Option<String> {
    let mut tokens = pointer_tokens(path);
    if tokens.next().as_deref() != Some("stages") {
        return None;
    }
    let name = tokens.next()?;
    let (stage, point) = name.split_once(SIGN).unwrap_or((name.as_str(), ""));
    let field = tokens.collect::<Vec<_>>().join(".");
    // A list within the list of a sweep.
    let is_swept = |value: &str| value.starts_with(&format!("{field}="));
    if point.split(',').any(is_swept) {
        return None;
    }
    let takes_a_value = ["a number", "an integer", "`true`", "one of", "a compiled shape"];
    if field.is_empty() || !takes_a_value.iter().any(|start| expected.starts_with(start)) {
        return None;
    }
    let values = shortened(json);
    Some(
        if node.span.source > 0 && !point.is_empty() && !field.contains('.') {
            // The stage may have a `matrix`, which stays.
            format!("to sweep these values: --set 'stages.{stage}.matrix.{field}={values}'")
        } else if node.span.source > 0 {
            format!("to sweep these values: --set 'stages.{stage}.matrix={{\"{field}\":{values}}}'")
        } else {
            format!(
                "to sweep these values, move them into `matrix` of {}: \"matrix\": {{ \"{field}\": {values} }}",
                quoted(stage)
            )
        },
    )
}

/// Whether a stage, or the manifest, has to have the field at a pointer.
fn is_required(tree: &Node, pointer: &str) -> bool {
    let tokens: Vec<_> = pointer_tokens(pointer).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let has = |required: &Value, field: &str| {
        required
            .as_array()
            .is_some_and(|all| all.iter().any(|name| name == field))
    };
    match tokens.as_slice() {
        [field] => has(&resolved()["required"], field),
        ["stages", stage, field] => {
            let kind = tree.at(&pointer_join(&pointer_join("/stages", stage), "kind"));
            let own = kind.and_then(Node::as_str).and_then(stage_schema);
            own.is_some_and(|branch| has(&branch["required"], field))
        }
        _ => false,
    }
}
