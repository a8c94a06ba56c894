//! Structural faults: the findings of the schema, worded so that a person can act on them.
//!
//! `jsonschema` decides; this module words its findings. Where a value may be one of several kinds, the branch that
//! its `kind` names is reported on, not "no branch matched".

use std::collections::HashSet;
use std::sync::LazyLock;

use jsonschema::error::ValidationErrorKind as Kind;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use super::elsewhere::{
    SYNONYMS, continuous_time, elsewhere, kinds_meant, missing_of_tokenizer, object_to_write, of_authors,
    published_estimator,
};
use super::fault::{Code, Draft, MAX_FAULTS, alternatives, did_you_mean, quoted, suggestion};
use super::json::{Node, pointer_join};
use super::kinds;
use super::number_hints::{number_for, unfit};
use super::schema::resolved;
use super::schema_parts::{describe_with, number, options, stage_schema, tags};
use super::shape_field::is_shape;
use super::span::Span;
use super::spelling;
use crate::shape::Shapes;
use misplaced::{in_files, in_format};
use wrong_type::wrong_type;

mod misplaced;
mod wrong_type;

/// The compiled schema: built once, a millisecond or so.
static VALIDATOR: LazyLock<Option<Validator>> =
    LazyLock::new(|| jsonschema::draft202012::new(resolved()).ok());

/// The way out for a kind as another program calls it.
fn kinds_elsewhere(pointer: &str, kind: &str) -> Option<String> {
    let meant = kinds_meant(pointer.rsplit('/').next()?, kind)?;
    Some(format!("did you mean {}?", alternatives(meant)))
}

/// What is wrong with the structure, and how many faults were left out.
pub(super) fn check(tree: &Node, shapes: Shapes) -> (Vec<Draft>, usize) {
    let instance = tree.to_json();
    let Some(validator) = VALIDATOR.as_ref() else {
        // A test holds that the schema compiles.
        let fault = Draft::new(
            Code::InvalidValue,
            tree.span,
            "",
            "internal error: the schema of manifests does not compile",
        );
        return (vec![fault], 0);
    };
    let errors: Vec<_> = validator.iter_errors(&instance).collect();
    let mut findings = Vec::new();
    for error in &errors {
        unfold(error, &instance, &mut findings);
    }
    let unknown = unknown_shapes(&instance, shapes);
    findings.extend(unknown.iter().map(|(path, schema)| Finding {
        violation: Violation::UnknownShape,
        path,
        schema,
    }));
    // A fault is reported once per place, however many instances of a sweep have it.
    if findings.len() > 1 {
        let mut seen = HashSet::new();
        findings.retain(|finding| {
            let place = tree.at(finding.path).map(|node| node.span);
            seen.insert((
                place,
                std::ptr::from_ref(finding.schema),
                format!("{:?}", finding.violation),
            ))
        });
    }
    // Wording costs a search for suggestions, so the surplus goes first.
    findings.sort_by_cached_key(|finding| tree.at(finding.path).map(|node| node.span));
    let omitted = findings.len().saturating_sub(MAX_FAULTS);
    findings.truncate(MAX_FAULTS);

    let mut wording = Wording {
        tree,
        shapes,
        drafts: Vec::new(),
        missing: Vec::new(),
        renamed: HashSet::new(),
        omitted,
    };
    for finding in &findings {
        wording.word(finding);
    }
    let Wording {
        mut drafts,
        missing,
        renamed,
        omitted,
        ..
    } = wording;
    // A misspelt field is one fault, not an unknown one and a missing one.
    drafts.extend(
        missing
            .into_iter()
            .filter(|(at, _)| !renamed.contains(at))
            .map(|(_, draft)| draft),
    );
    for draft in drafts.iter_mut().filter(|draft| draft.hint.is_none()) {
        draft.hint = object_to_write(tree, &draft.pointer);
    }
    (drafts, omitted)
}

/// The fields that name a shape which is not compiled, with their schemas. The schema of the types takes any name.
fn unknown_shapes(instance: &Value, shapes: Shapes) -> Vec<(String, &'static Value)> {
    let stages = instance["stages"].as_object().into_iter().flatten();
    let unknown = stages.filter_map(|(name, stage)| {
        let shape = stage["shape"].as_str()?;
        let schema = &stage_schema(stage["kind"].as_str()?)?["properties"]["shape"];
        let path = pointer_join(&pointer_join("/stages", name), "shape");
        (is_shape(schema) && shapes.find(shape).is_none()).then_some((path, schema))
    });
    unknown.collect()
}

/// What is wrong with a value.
#[derive(Debug)]
enum Violation<'e> {
    /// A keyword of the schema failed.
    Keyword(&'e Kind),
    /// It is the name of no compiled shape.
    UnknownShape,
}

/// One finding, most often of the validator.
struct Finding<'e> {
    violation: Violation<'e>,
    /// JSON pointer of the value.
    path: &'e str,
    /// The schema whose keyword failed, or that of the field.
    schema: &'static Value,
}

/// Replaces "no branch matched" by the findings of the branch that was meant, where the value's `kind` says which.
fn unfold<'e>(error: &'e ValidationError<'_>, instance: &Value, out: &mut Vec<Finding<'e>>) {
    let path = error.instance_path().as_str();
    let keyword = error.schema_path().as_str();
    let parent = keyword.rsplit_once('/').map_or("", |(parent, _)| parent);
    let schema = resolved().pointer(parent).unwrap_or(&Value::Null);
    if let Kind::OneOfNotValid { context } = error.kind()
        && let Some(kind) = instance.pointer(&pointer_join(path, "kind"))
        && let Some(branch) = tags(schema).iter().position(|tag| kind == tag)
        && let Some(findings) = context.get(branch)
    {
        for finding in findings {
            unfold(finding, instance, out);
        }
        return;
    }
    if let Kind::OneOfNotValid { context } = error.kind()
        && let Some(branch) = only_branch_of_its_type(schema, instance.pointer(path))
        && let Some(findings) = context.get(branch)
    {
        for finding in findings {
            unfold(finding, instance, out);
        }
        return;
    }
    out.push(Finding {
        violation: Violation::Keyword(error.kind()),
        path,
        schema,
    });
}

/// Of an object or array that may be one of several things, the branch that is for objects or arrays, if it is the only
/// one.
fn only_branch_of_its_type(schema: &Value, value: Option<&Value>) -> Option<usize> {
    let name = match value? {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        _ => return None,
    };
    if !tags(schema).is_empty() {
        return None;
    }
    let branches = schema["oneOf"].as_array()?;
    let mut of_type = (0..branches.len()).filter(|&index| branches[index]["type"] == name);
    of_type.next().filter(|_| of_type.next().is_none())
}

struct Wording<'t> {
    tree: &'t Node,
    shapes: Shapes,
    drafts: Vec<Draft>,
    /// Missing fields, by the object's pointer and the field's name.
    missing: Vec<((String, String), Draft)>,
    /// Fields that a misspelt one was meant to be.
    renamed: HashSet<(String, String)>,
    /// Faults left out.
    omitted: usize,
}

impl Wording<'_> {
    #[expect(clippy::too_many_lines, reason = "an arm a keyword")]
    fn word(&mut self, finding: &Finding<'_>) {
        let path = finding.path;
        let Some(node) = self.tree.at(path) else { return };
        let json = node.to_json();
        let draft = |code, message: String| Draft::new(code, node.span, path, message).value(&json);
        let expected = self.describe(finding.schema);
        let keyword = match &finding.violation {
            Violation::Keyword(keyword) => *keyword,
            Violation::UnknownShape => {
                let written = node.as_str().unwrap_or_default();
                let message = format!("shape {} is not compiled", quoted(written));
                let draft = draft(Code::UnknownShape, message);
                self.drafts.push(unknown_shape(draft, written, self.shapes));
                return;
            }
        };
        match keyword {
            Kind::AdditionalProperties { unexpected } => {
                self.omitted += unexpected.len().saturating_sub(MAX_FAULTS);
                for key in unexpected.iter().take(MAX_FAULTS) {
                    self.unknown_field(finding, node, key);
                }
            }
            Kind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                self.missing_field(finding, name);
            }
            Kind::OneOfNotValid { .. } if !tags(finding.schema).is_empty() => {
                let tags = tags(finding.schema);
                let one_of = format!("one of {}", alternatives(&tags));
                let Some(member) = node.member("kind") else {
                    if node.is_object() {
                        self.missing_field(finding, "kind");
                    } else {
                        let expected = format!("an object with a `kind`: {one_of}");
                        let draft = wrong_type(self.tree, node, path, &json, &expected);
                        let object = kinds::named_by_string(self.tree, path, finding.schema);
                        self.drafts.push(match object {
                            Some(hint) => draft.hint(hint),
                            None => draft,
                        });
                    }
                    return;
                };
                let at = pointer_join(path, "kind");
                let value = member.value.to_json();
                self.drafts.push(match &value {
                    Value::String(kind) => Draft::new(
                        Code::UnknownKind,
                        member.value.span,
                        at,
                        format!("unknown kind {}", quoted(kind)),
                    )
                    .value(&value)
                    .expected(one_of)
                    .maybe_hint(kinds_elsewhere(path, kind).or_else(|| suggestion(kind, tags))),
                    _ => wrong_type(self.tree, &member.value, &at, &value, &one_of),
                });
            }
            Kind::OneOfNotValid { .. } | Kind::Enum { .. } | Kind::Constant { .. } => {
                let Value::String(written) = &json else {
                    self.drafts
                        .push(wrong_type(self.tree, node, path, &json, &expected));
                    return;
                };
                let options = options(finding.schema);
                let draft = draft(Code::InvalidValue, format!("unknown value {}", quoted(written)));
                self.drafts.push(match suggestion(written, options) {
                    None if spelling::is_nothing(written) => draft
                        .expected(expected)
                        .hint("leave the field out to use its default (with `--set`, write `null`)"),
                    hint => {
                        let published = published_estimator(path, written).map(str::to_owned);
                        draft.expected(expected).maybe_hint(published.or(hint))
                    }
                });
            }
            Kind::Type { .. } => self.drafts.push(
                self.wrong_number(finding, node, &json)
                    .unwrap_or_else(|| wrong_type(self.tree, node, path, &json, &expected)),
            ),
            Kind::Minimum { .. }
            | Kind::Maximum { .. }
            | Kind::ExclusiveMinimum { .. }
            | Kind::ExclusiveMaximum { .. } => {
                let low = matches!(keyword, Kind::Minimum { .. } | Kind::ExclusiveMinimum { .. });
                let size = if low { "small" } else { "large" };
                let hint = (json == 0).then(|| continuous_time(self.tree, path));
                self.drafts.push(
                    draft(Code::OutOfRange, format!("{} is too {size}", number(&json)))
                        .expected(expected)
                        .maybe_hint(hint.flatten().map(str::to_owned)),
                );
            }
            Kind::MinLength { .. } | Kind::MinItems { .. } | Kind::MinProperties { .. } => {
                let name = path.rsplit('/').next().unwrap_or_default();
                self.drafts
                    .push(draft(Code::OutOfRange, format!("{} is empty", quoted(name))).expected(expected));
            }
            Kind::MaxLength { .. } | Kind::MaxItems { .. } | Kind::MaxProperties { .. } => {
                let name = path.rsplit('/').next().unwrap_or_default();
                self.drafts.push(
                    draft(
                        Code::OutOfRange,
                        format!("{} has too many elements", quoted(name)),
                    )
                    .expected(expected),
                );
            }
            Kind::Pattern { .. } => {
                let written = node.as_str().unwrap_or_default();
                // "a name: …", "an ASCII character, …", "one ASCII character; …"
                let noun = expected.split([':', ',', ';']).next().unwrap_or_default();
                let noun = ["a ", "an ", "one "]
                    .iter()
                    .find_map(|article| noun.strip_prefix(article))
                    .unwrap_or("name");
                let code = if noun == "name" {
                    Code::InvalidName
                } else {
                    Code::InvalidValue
                };
                self.drafts.push(
                    draft(code, format!("{} is not a valid {noun}", quoted(written))).expected(expected),
                );
            }
            Kind::PropertyNames { error } => {
                let Some(name) = error.instance().as_str() else {
                    return;
                };
                let Some(member) = node.member(name) else { return };
                let expected = self.describe(finding.schema.get("propertyNames").unwrap_or(finding.schema));
                let message = format!("{} is not a valid stage name", quoted(name));
                self.drafts.push(
                    Draft::new(
                        Code::InvalidName,
                        member.key_span,
                        pointer_join(path, name),
                        message,
                    )
                    .expected(expected),
                );
            }
            // No other keyword is in the schema; a fault is still a fault.
            other => self.drafts.push(
                draft(
                    Code::InvalidValue,
                    format!("{} is not allowed here", quoted(&json.to_string())),
                )
                .expected(format!("{expected} (`{}`)", other.keyword())),
            ),
        }
    }

    /// What a schema takes, in words.
    fn describe(&self, schema: &'static Value) -> String {
        describe_with(schema, self.shapes)
    }

    /// The fault of a truth value where a number belongs, with the number to write, or of a number in quotes that is out of
    /// range, with the range.
    fn wrong_number(&self, finding: &Finding<'_>, node: &Node, json: &Value) -> Option<Draft> {
        let is_number = matches!(finding.schema["type"].as_str(), Some("integer" | "number"));
        let hint = match json {
            Value::Bool(value) => number_for(*value, finding.schema).to_owned(),
            Value::String(text) if spelling::is_truth(text) => {
                number_for(spelling::boolean(text)?, finding.schema).to_owned()
            }
            Value::String(text) => unfit(text, finding.schema)?,
            _ => return None,
        };
        let draft = wrong_type(
            self.tree,
            node,
            finding.path,
            json,
            &self.describe(finding.schema),
        );
        is_number.then(|| draft.hint(hint))
    }

    fn unknown_field(&mut self, finding: &Finding<'_>, node: &Node, key: &str) {
        // Every stage as written may have these; the schema of expanded stages does not have them.
        const WRITTEN: [(&str, &str); 2] = [
            ("description", "a string"),
            (
                "matrix",
                "fields to sweep, each with a list of values, a range or settings by name",
            ),
        ];

        let Some(member) = node.member(key) else { return };
        // A field that is there cannot be what was meant, unless an override was to change it.
        let overrides = member.key_span.source > 0;
        let fields: Vec<&str> = finding.schema["properties"]
            .as_object()
            .into_iter()
            .flat_map(|fields| fields.keys().map(String::as_str))
            .filter(|field| overrides || node.member(field).is_none())
            .collect();
        let is_stage = finding.path.starts_with("/stages/") && finding.path.matches('/').count() == 2;
        if is_stage
            && did_you_mean(key, fields.iter().copied()).is_none()
            && elsewhere(key).is_none()
            && let Some(field) = did_you_mean(key, WRITTEN.map(|(field, _)| field))
            && let Some((_, what)) = WRITTEN.iter().find(|(name, _)| *name == field)
        {
            self.drafts.push(
                Draft::new(
                    Code::UnknownField,
                    member.key_span,
                    pointer_join(finding.path, key),
                    format!("unknown field {}", quoted(key)),
                )
                .expected(format!("`{field}`: {what}"))
                .hint(format!("did you mean `{field}`?")),
            );
            return;
        }
        if let Some((into, hint)) = kinds::moved(self.tree, finding.path, key) {
            self.drafts.push(
                Draft::new(
                    Code::UnknownField,
                    member.key_span,
                    pointer_join(finding.path, key),
                    format!("{} moved into {}", quoted(key), quoted(into)),
                )
                .value(&member.value.to_json())
                .hint(hint),
            );
            return;
        }
        let authors = of_authors(self.tree, finding.path, key);
        let synonym = SYNONYMS
            .iter()
            .find(|(other, ours)| *other == key && fields.contains(ours))
            .filter(|_| authors.is_none());
        let elsewhere = authors
            .or_else(|| in_format(finding.schema, node, key))
            .or_else(|| in_files(finding.schema, node, key))
            .or_else(|| elsewhere(key).map(str::to_owned))
            .filter(|_| synonym.is_none());
        let meant = match synonym {
            Some((_, ours)) => Some(*ours),
            None if elsewhere.is_some() => None,
            None => did_you_mean(key, fields.iter().copied()),
        };
        if let Some(field) = meant {
            self.renamed.insert((finding.path.to_owned(), field.to_owned()));
        }
        // A field of a `matrix`, or one written a second time.
        let is_set = |field: &&str| node.member(field).is_some();
        let set = (finding.schema["properties"].as_object())
            .filter(|_| meant.is_none() && elsewhere.is_none())
            .and_then(|all| did_you_mean(key, all.keys().map(String::as_str).filter(is_set)));
        let draft = Draft::new(
            Code::UnknownField,
            member.key_span,
            pointer_join(finding.path, key),
            format!("unknown field {}", quoted(key)),
        );
        self.drafts.push(
            draft
                .value(&member.value.to_json())
                .expected(match (meant, fields.as_slice()) {
                    (Some(field), _) => {
                        format!(
                            "{}: {}",
                            quoted(field),
                            self.describe(&finding.schema["properties"][field])
                        )
                    }
                    (None, []) => "no more fields".to_owned(),
                    (None, [one]) => quoted(one),
                    (None, several) => format!("one of {}", alternatives(several)),
                })
                .maybe_hint(meant.map(|field| format!("did you mean {}?", quoted(field))))
                .maybe_hint(set.map(|field| format!("did you mean {}, which is also set?", quoted(field))))
                .maybe_hint(elsewhere),
        );
    }

    fn missing_field(&mut self, finding: &Finding<'_>, name: &str) {
        let kinds = tags(finding.schema);
        let expected = if name == "kind" && !kinds.is_empty() {
            format!("`kind`: one of {}", alternatives(&kinds))
        } else {
            format!(
                "{}: {}",
                quoted(name),
                self.describe(&finding.schema["properties"][name])
            )
        };
        let draft = Draft::new(
            Code::MissingField,
            handle(self.tree, finding.path),
            finding.path,
            format!("field {} is missing", quoted(name)),
        )
        .expected(expected)
        .maybe_hint(missing_of_tokenizer(self.tree, finding.path, name));
        self.missing
            .push(((finding.path.to_owned(), name.to_owned()), draft));
        if kinds.is_empty() {
            return;
        }
        // A misspelt `kind` is the fault; without a kind no branch of the schema reports it.
        let Some(node) = self.tree.at(finding.path) else {
            return;
        };
        let keys = node.members().iter().map(|member| member.key.as_str());
        let near = SYNONYMS
            .iter()
            .filter(|(_, ours)| *ours == "kind")
            .find_map(|(other, _)| node.member(other))
            .or_else(|| did_you_mean("kind", keys).and_then(|key| node.member(key)));
        if let (Some(member), Some((_, draft))) = (near, self.missing.last_mut()) {
            draft.hint = Some(format!("did you mean `kind` instead of {}?", quoted(&member.key)));
            draft.related.push((member.key_span, "this field".to_owned()));
        }
    }
}

/// Where to point when something is missing in an object: at its name, else at its brace.
fn handle(tree: &Node, pointer: &str) -> Span {
    let node = tree.at(pointer).unwrap_or(tree);
    let brace = Span {
        end: (node.span.start + 1).min(node.span.end),
        ..node.span
    };
    let Some((parent, _)) = pointer.rsplit_once('/') else {
        return brace;
    };
    let members = tree.at(parent).map(Node::members).unwrap_or_default();
    members
        .iter()
        .find(|member| member.value.span == node.span)
        .map_or(brace, |member| member.key_span)
}

/// The way out where a shape is not compiled: another one, or the line to add.
fn unknown_shape(draft: Draft, written: &str, shapes: Shapes) -> Draft {
    let names: Vec<_> = shapes.iter().map(|shape| shape.name).collect();
    let draft = draft.expected(format!("a compiled shape: {}", alternatives(&names)));
    if let Some(hint) = suggestion(written, names) {
        return draft.hint(hint);
    }
    let plain = !written.is_empty() && written.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let name = if plain && written.len() <= 40 {
        written
    } else {
        "my-shape"
    };
    let mut camel_case = String::new();
    for part in name.split('-') {
        let mut letters = part.chars();
        camel_case.extend(letters.next().map(|c| c.to_ascii_uppercase()));
        camel_case.push_str(letters.as_str());
    }
    draft.hint(format!(
        "to compile it, add a line `{camel_case} \"{name}\" V … L … D … H … N … C …;` to `with_compiled_shapes!` in \
         src/shapes.rs and rebuild"
    ))
}
