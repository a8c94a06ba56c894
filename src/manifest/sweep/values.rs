//! The values of a swept field: a list, a range or settings by name, and how a value is spelt in a name.

use std::collections::HashMap;

use serde_json::{Number, Value};

use super::tree::{is_field, not_swept};
use super::{MAX_SPELT, MAX_STAGES, SweepValue};
use crate::manifest::fault::{Code, Draft, quoted, shortened, suggestion};
use crate::manifest::json::{Data, Member, Node, pointer_join};
use crate::manifest::span::Span;

/// What a sweep takes for a field, as messages state it.
const CHOICES: &str = "a list of values, `[1, 2]`, a range, `{ \"from\": 1, \"to\": 4 }`, or settings by name, \
    `{ \"short\": { \"steps\": 100 }, \"long\": { \"steps\": 900 } }`";

/// The values of a field: a list, a range, or settings by name where every member is an object.
pub(super) fn choices(node: &Node, pointer: &str) -> Result<Vec<SweepValue>, Box<Draft>> {
    let wanted = CHOICES;
    match &node.data {
        Data::Array(items) if items.is_empty() => {
            Err(
                Draft::new(Code::Matrix, node.span, pointer, "the list of values is empty")
                    .expected(wanted)
                    .hint("remove the field from `matrix` if it is not swept")
                    .into(),
            )
        }
        Data::Array(items) => list(items, pointer),
        Data::Object(members) if members.iter().any(|member| member.value.is_object()) => {
            named(members, pointer)
        }
        Data::Object(_) => range(node, pointer),
        _ => {
            let value = node.to_json();
            Err(Draft::new(
                Code::WrongType,
                node.span,
                pointer,
                format!("{} is a single value", quoted(&shortened(&value))),
            )
            .value(&value)
            .expected(wanted)
            .hint(format!("write [{}]", shortened(&value)))
            .into())
        }
    }
}

fn list(items: &[Node], pointer: &str) -> Result<Vec<SweepValue>, Box<Draft>> {
    if items.len() > MAX_STAGES {
        let message = format!("the list has {} values", thousands(items.len()));
        return Err(Draft::new(Code::Matrix, items[MAX_STAGES].span, pointer, message)
            .expected(format!("at most {} stages in all", thousands(MAX_STAGES)))
            .into());
    }
    let mut all: Vec<SweepValue> = Vec::with_capacity(items.len());
    let mut spelt: HashMap<String, usize> = HashMap::with_capacity(items.len());
    let mut equal: HashMap<String, usize> = HashMap::with_capacity(items.len());
    for (place, node) in items.iter().enumerate() {
        let value = node.to_json();
        let text = spelling(&value);
        let same = equal.insert(in_one_form(&value), place);
        let same = same.into_iter().chain(spelt.insert(text.clone(), place)).min();
        if let Some(first) = same.map(|first| &all[first]) {
            let message = if first.value == value {
                format!("{} is given twice", quoted(&shortened(&value)))
            } else {
                format!(
                    "{} and {} would both be named {} in their instances",
                    quoted(&shortened(&first.value)),
                    quoted(&shortened(&value)),
                    quoted(&text)
                )
            };
            return Err(
                Draft::new(Code::Matrix, node.span, format!("{pointer}/{place}"), message)
                    .value(&value)
                    .expected("every value once")
                    .related(first.node.span, "first here")
                    .into(),
            );
        }
        all.push(SweepValue {
            node: node.clone(),
            value,
            text,
            pointer: format!("{pointer}/{place}"),
            settings: None,
        });
    }
    Ok(all)
}

/// A value as a text that equal values share: the fields of objects by name.
pub(super) fn in_one_form(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(in_one_form).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| (Value::from(name.as_str()).to_string(), in_one_form(value)))
                .collect();
            fields.sort();
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{name}:{value}"))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        other => other.to_string(),
    }
}

/// Settings by name: `{ "ptb": { "input.corpus": "ptb", "detokenize": "ptb" } }`.
fn named(members: &[Member], pointer: &str) -> Result<Vec<SweepValue>, Box<Draft>> {
    let mut all = Vec::new();
    for member in members {
        let at = pointer_join(pointer, &member.key);
        let value = Value::String(member.key.clone());
        let text = spelling(&value);
        if text != member.key {
            let message = format!("{} is not a valid name of settings", quoted(&member.key));
            return Err(Draft::new(Code::InvalidName, member.key_span, at, message)
                .expected(format!(
                    "1 to {MAX_SPELT} letters, digits and `.`, `_`, `-` or `+`: it becomes a part of the instance's name"
                ))
                .into());
        }
        let Data::Object(fields) = &member.value.data else {
            let value = member.value.to_json();
            let message = format!("{} is not an object of settings", quoted(&shortened(&value)));
            return Err(Draft::new(Code::WrongType, member.value.span, at, message)
                .value(&value)
                .expected(CHOICES)
                .into());
        };
        if let Some(field) = fields.iter().find(|field| !is_field(&field.key)) {
            return Err(not_swept(field, pointer_join(&at, &field.key)).into());
        }
        let settings = fields
            .iter()
            .map(|field| (field.key.clone(), field.key_span, field.value.clone()));
        all.push(SweepValue {
            node: member.value.clone(),
            value,
            text,
            pointer: at,
            settings: Some(settings.collect()),
        });
    }
    Ok(all)
}

/// The fields of a range.
const RANGE: [&str; 4] = ["from", "to", "step", "factor"];

/// The form of a range, as messages state it.
const FORM: &str = "a range: `{ \"from\": 1, \"to\": 4 }`, with `step` or `factor` unless the step is 1";

/// The numbers of a range with their places.
type RangeNumbers<'n> = [Option<(f64, &'n Node)>; 4];

/// The numbers of a range, in the order of [`RANGE`], with their places.
fn numbers<'n>(node: &'n Node, pointer: &str) -> Result<RangeNumbers<'n>, Box<Draft>> {
    let mut numbers: RangeNumbers<'_> = [None; 4];
    for member in node.members() {
        let at = pointer_join(pointer, &member.key);
        let Some(place) = RANGE.iter().position(|name| *name == member.key) else {
            return Err(Draft::new(
                Code::UnknownField,
                member.key_span,
                at,
                format!("unknown field {} of a range", quoted(&member.key)),
            )
            .expected(FORM)
            .maybe_hint(suggestion(&member.key, RANGE).or_else(|| {
                Some(
                    "to sweep a nested field, separate the names by dots, as in `objective.noise.epsilon`"
                        .to_owned(),
                )
            }))
            .into());
        };
        let number = match &member.value.data {
            Data::Number(number) => number.as_f64(),
            _ => None,
        };
        let Some(number) = number else {
            let value = member.value.to_json();
            let message = format!("{} is not a number", quoted(&shortened(&value)));
            return Err(Draft::new(Code::WrongType, member.value.span, at, message)
                .value(&value)
                .expected("a number")
                .into());
        };
        numbers[place] = Some((number, &member.value));
    }
    Ok(numbers)
}

fn range(node: &Node, pointer: &str) -> Result<Vec<SweepValue>, Box<Draft>> {
    // A hundred-millionth of a step: decimal fractions are not what they look like.
    const SLACK: f64 = 1e-8;
    let missing = |name: &str| -> Box<Draft> {
        Draft::new(
            Code::MissingField,
            node.span,
            pointer,
            format!("field {} of the range is missing", quoted(name)),
        )
        .expected(FORM)
        .into()
    };
    let [from, to, step, factor] = numbers(node, pointer)?;
    let (from, _) = from.ok_or_else(|| missing("from"))?;
    let (to, to_node) = to.ok_or_else(|| missing("to"))?;
    if let (Some(_), Some((_, place))) = (step, factor) {
        return Err(Draft::new(
            Code::Matrix,
            place.span,
            format!("{pointer}/factor"),
            "a range takes `step` or `factor`, not both",
        )
        .expected(FORM)
        .into());
    }
    let endless = |place: Span, how: String, hint: String| -> Box<Draft> {
        Draft::new(
            Code::Matrix,
            place,
            pointer,
            format!("the range never reaches its end: {how}"),
        )
        .value(&node.to_json())
        .expected(FORM)
        .hint(hint)
        .into()
    };
    let count = if let Some((factor, place)) = factor {
        let rises = to >= from;
        if from <= 0.0 || to <= 0.0 || factor <= 0.0 || (factor > 1.0) != rises && from != to || factor == 1.0
        {
            return Err(endless(
                place.span,
                format!("multiplying {from} by {factor} again and again never gives {to}"),
                "with `factor`, use numbers above zero; the factor must be above 1 to go up and below 1 to go down"
                    .to_owned(),
            ));
        }
        (to / from).ln() / factor.ln()
    } else {
        let by = step.map_or(1.0, |(step, _)| step);
        if by == 0.0 || (to - from) / by < 0.0 {
            let place = step.map_or(to_node.span, |(_, node)| node.span);
            let hint = if to < from {
                "set a negative `step` to go down, or swap `from` and `to`".to_owned()
            } else {
                "set a positive `step`".to_owned()
            };
            return Err(endless(
                place,
                format!("steps of {by} from {from} never reach {to}"),
                hint,
            ));
        }
        (to - from) / by
    };
    let count = (count + SLACK).floor();
    if count.is_nan() || count >= MAX_STAGES as f64 {
        let message = format!("the range has more than {} values", thousands(MAX_STAGES));
        return Err(Draft::new(Code::Matrix, node.span, pointer, message)
            .value(&node.to_json())
            .expected(format!("at most {} stages in all", thousands(MAX_STAGES)))
            .into());
    }
    let at = |index: i32| match (step, factor) {
        (_, Some((factor, _))) => from * factor.powi(index),
        (step, None) => step.map_or(1.0, |(step, _)| step).mul_add(f64::from(index), from),
    };
    let mut all: Vec<SweepValue> = Vec::new();
    for index in 0..=(count as i32) {
        let number = tidy(at(index)).ok_or_else(|| missing("end"))?;
        let choice = choice(node, pointer, number);
        // Steps too small for the numbers' size.
        if all.last().is_some_and(|before| before.value == choice.value) {
            let text = &choice.text;
            let hint = "set a larger `step`".to_owned();
            return Err(endless(
                node.span,
                format!("{text} plus a step is {text} again after rounding"),
                hint,
            ));
        }
        all.push(choice);
    }
    Ok(all)
}

/// A value of a range, which stands where the range does.
fn choice(node: &Node, pointer: &str, number: Number) -> SweepValue {
    let value = Value::Number(number.clone());
    SweepValue {
        node: Node {
            span: node.span,
            data: Data::Number(number),
        },
        text: spelling(&value),
        value,
        pointer: pointer.to_owned(),
        settings: None,
    }
}

/// A number rounded to 12 digits, which hides binary fractions; an integer where it has an integer's value, as in texts.
fn tidy(value: f64) -> Option<Number> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    if value.fract() == 0.0 && value.abs() < EXACT {
        return Some(Number::from(value as i64));
    }
    let value: f64 = format!("{value:.11e}").parse().ok()?;
    if value.fract() == 0.0 && value.abs() < EXACT {
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

/// A value as it is written in a name: letters, digits, `.`, `_`, `-` and `+`, which need no quotes in a shell and are valid
/// in paths. A value that has other characters is changed and ends in digits of its hash.
pub(super) fn spelling(value: &Value) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    let whole = match value {
        Value::Null => return "default".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(fields) => match (fields.len(), fields.get("kind").and_then(Value::as_str)) {
            (1, Some(kind)) => kind.to_owned(),
            (_, kind) => format!("{}:{value}", kind.unwrap_or_default()),
        },
        other => other.to_string(),
    };
    if !whole.is_empty() && whole.chars().all(safe) && whole.len() <= MAX_SPELT {
        return whole;
    }
    let start = match value {
        Value::Object(fields) => fields.get("kind").and_then(Value::as_str).unwrap_or("object"),
        Value::Array(_) => "list",
        _ => &whole,
    };
    let mut short: String = start
        .chars()
        .map(|c| if safe(c) { c } else { '-' })
        .take(MAX_SPELT / 2)
        .collect();
    while short.starts_with(['-', '.']) {
        short.remove(0);
    }
    let hash = blake3::hash(value.to_string().as_bytes()).to_hex();
    let dot = if short.is_empty() { "" } else { "." };
    format!("{short}{dot}{}", &hash[..6])
}

/// A whole number with its thousands set off.
pub(super) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
