//! What sweeps read and change in the tree of a stage: its kind, the stages that it names, its swept fields.

use serde_json::Value;

use crate::manifest::StageKind;
use crate::manifest::fault::{Code, Draft, quoted};
use crate::manifest::json::{Data, Member, Node};
use crate::manifest::kinds;
use crate::manifest::span::Span;

pub(super) fn field_of(span: Span, key: &str, value: Node) -> Member {
    Member {
        key: key.to_owned(),
        key_span: span,
        value,
    }
}

/// A value as a tree, all of it at one place.
pub(super) fn placed(value: &Value, span: Span) -> Node {
    let data = match value {
        Value::Null => Data::Null,
        Value::Bool(value) => Data::Bool(*value),
        Value::Number(number) => Data::Number(number.clone()),
        Value::String(text) => Data::String(text.clone()),
        Value::Array(items) => Data::Array(items.iter().map(|item| placed(item, span)).collect()),
        Value::Object(fields) => Data::Object(
            fields
                .iter()
                .map(|(key, value)| field_of(span, key, placed(value, span)))
                .collect(),
        ),
    };
    Node { span, data }
}

pub(super) fn kind(node: &Node) -> Option<StageKind> {
    StageKind::named(node.member("kind")?.value.as_str()?)
}

/// Whether a stage takes all instances of the stages that it names.
pub(super) fn collects(node: &Node) -> bool {
    kind(node).is_some_and(|kind| kind.collects().is_some())
}

/// The stages that a stage names: field and name.
pub(super) fn references(node: &Node) -> Vec<(String, String)> {
    let Some(kind) = kind(node) else {
        return Vec::new();
    };
    let named = kind.references().into_iter().filter_map(|(field, _)| {
        let name = node.at(&format!("/{field}"))?.as_str()?;
        Some((field, name))
    });
    let listed = kind.collects().into_iter().flat_map(|(field, _)| {
        let names = match node.member(field).map(|list| &list.value.data) {
            Some(Data::String(name)) => vec![name.as_str()],
            Some(Data::Array(items)) => items.iter().filter_map(Node::as_str).collect(),
            _ => vec![],
        };
        names.into_iter().map(move |name| (field, name))
    });
    named
        .chain(listed)
        .map(|(field, name)| (field.to_owned(), name.to_owned()))
        .collect()
}

/// Lets a field that names a stage name an instance.
pub(super) fn rename(node: &mut Node, field: &str, instance: &str) {
    let mut node = node;
    for name in field.split('/') {
        let Data::Object(fields) = &mut node.data else {
            return;
        };
        let Some(member) = fields.iter_mut().find(|member| member.key == name) else {
            return;
        };
        node = &mut member.value;
    }
    node.data = Data::String(instance.to_owned());
}

/// What a matrix sweeps, as messages state it.
pub(super) const FIELD: &str =
    "a field of the stage; separate nested names by dots: `objective.noise.epsilon`";

/// Whether a name may stand for a field that a sweep sets.
pub(super) fn is_field(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    !name.split('.').any(str::is_empty) && !matches!(first, "kind" | "matrix")
}

/// The fault of a name that stands for no such field.
pub(super) fn not_swept(field: &Member, pointer: String) -> Draft {
    let message = format!("{} cannot be swept", quoted(&field.key));
    Draft::new(Code::Matrix, field.key_span, pointer, message).expected(FIELD)
}

/// Sets a field, names separated by dots; `null` removes it.
pub(super) fn set(node: &mut Node, path: &str, key_span: Span, value: &Node) -> Result<(), String> {
    let mut node = node;
    let names: Vec<&str> = path.split('.').collect();
    for (depth, name) in names.iter().enumerate() {
        let last = depth + 1 == names.len();
        match &mut node.data {
            Data::Object(members) => {
                let found = members.iter().position(|member| member.key == *name);
                if last && value.data == Data::Null {
                    if let Some(place) = found {
                        members.remove(place);
                    }
                    return Ok(());
                }
                let place = found.unwrap_or_else(|| {
                    members.push(field_of(key_span, name, kinds::absent(name, key_span)));
                    members.len() - 1
                });
                if last {
                    members[place].key_span = key_span;
                }
                node = &mut members[place].value;
            }
            Data::Array(items) => {
                let count = items.len();
                node = name
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get_mut(index))
                    .ok_or_else(|| format!("there is no element {} in an array of {count}", quoted(name)))?;
            }
            _ => {
                let parent = names[..depth].join(".");
                return Err(if parent.is_empty() {
                    "a stage that is not an object has no fields to sweep".to_owned()
                } else {
                    format!(
                        "{} is not an object, so it has no field {}",
                        quoted(&parent),
                        quoted(name)
                    )
                });
            }
        }
    }
    *node = value.clone();
    Ok(())
}
