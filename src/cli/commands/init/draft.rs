//! The manifest: settings by how much text there is, and why.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::SCHEMA_FILE;
use super::look::TextSurvey;
use mdlm::numbers::bytes;
use mdlm::shapes::{SHAPES, Shape};

/// Below that many bytes of text samples are poor, and the smallest shape learns all of it.
pub(super) const LITTLE_TEXT: u64 = 100_000;
/// Rows a step: small enough for many steps on little text.
const BATCH: u64 = 32;
/// How often training goes over the text, where that takes minutes.
const EPOCHS: u64 = 12;

/// What was chosen.
pub(super) struct Proposal {
    /// The shape of the model.
    pub shape: &'static Shape,
    /// Steps of training.
    pub steps: u64,
    /// Share of the records that is held out.
    pub validation: f64,
}

/// Chooses by how much text there is. On two cores `tiny` takes 12 steps a second (tests/README.md, "Speed"): 1,500 steps
/// are some minutes on older machines too.
pub(super) fn choose(text: &TextSurvey) -> Proposal {
    let (name, most) = if text.bytes < LITTLE_TEXT {
        ("nano", 1_000)
    } else {
        ("tiny", 1_500)
    };
    let shape = SHAPES.find(name).unwrap_or(&SHAPES[0]);
    // English has about 0.4 tokens a byte with vocabularies this small.
    let rows = text.bytes * 2 / 5 / (shape.length as u64 - 2);
    let steps = (rows * EPOCHS / BATCH).clamp(300, most);
    Proposal {
        shape,
        steps: steps.div_ceil(100) * 100,
        // Records are drawn one by one: of few, a small share may draw not one.
        validation: match text.records {
            200.. => 0.05,
            60.. => 0.1,
            25.. => 0.2,
            _ => 0.0,
        },
    }
}

/// The manifest's text.
pub(super) fn manifest(
    name: &str,
    files: &[String],
    text: &TextSurvey,
    choice: &Proposal,
    has_schema: bool,
) -> String {
    let Proposal {
        shape,
        steps,
        validation,
    } = choice;
    let held_out = *validation > 0.0;
    let mut input = json!({ "kind": "files", "files": files });
    if let Some(read) = &text.read {
        input["read"] = read.clone();
    }
    let mut rows = json!({
        "kind": "pack",
        "description": "The tokens in rows of the model's length. `validation` is the share of records that training \
            does not see.",
        "from": "tokens",
        "length": shape.length
    });
    let mut bound = json!({
        "kind": "evaluate",
        "description": "How well the model predicts text that it has not seen, in bits per byte: lower is better.",
        "model": "model",
        "data": "rows"
    });
    let mut model = json!({
        "kind": "train",
        "description": "The model. `mdlm shapes` lists the shapes: a larger one takes more text and time, and another \
            `vocabulary_size` and `length` above. More `steps` learn more, until validation gets worse.",
        "from": "rows",
        "shape": shape.name,
        "steps": steps,
        "batch": BATCH,
        "learning_rate": 2e-3,
        "warmup_steps": steps / 15,
        "schedule": "cosine",
        "ema": 0.995,
        "checkpoint_every": steps / 5
    });
    if held_out {
        rows["validation"] = json!(validation);
        model["validation_every"] = json!(steps / 5);
    } else {
        rows["description"] = json!(
            "The tokens in rows of the model's length. There are few records, so that all are for training: with \
             more, `\"validation\": 0.1` holds a tenth of them out."
        );
        bound["description"] = json!(
            "How well the model predicts the text that it was trained on, in bits per byte: an optimistic number. \
             With records held out, `\"split\": \"validation\"`."
        );
        bound["split"] = json!("train");
    }
    let mut about =
        "The text. Paths and globs start at this file's folder; each format is recognised by its name."
            .to_owned();
    for (what, why) in &text.notes {
        let _ = write!(about, " Chosen: {what}, since {why}.");
    }
    let mut manifest = json!({});
    if has_schema {
        manifest["$schema"] = json!(SCHEMA_FILE);
    }
    manifest["name"] = json!(name);
    manifest["description"] = json!(format!(
        "A small model of {}{} of text, made in minutes on a CPU. `mdlm schema` prints all settings.",
        if text.is_whole { "" } else { "about " },
        bytes(text.bytes)
    ));
    manifest["seed"] = json!(1);
    manifest["stages"] = json!({
        "text": {
            "kind": "source",
            "description": about,
            "input": input
        },
        "tokens": {
            "kind": "tokenize",
            "description": "Pieces of words, learnt from the text; `vocabulary_size` is the shape's.",
            "from": "text",
            "tokenizer": { "kind": "train_bpe", "vocabulary_size": shape.vocabulary }
        },
        "rows": rows,
        "model": model,
        "bound": bound,
        "samples": {
            "kind": "sample",
            "description": "Texts that the model writes. A lower `temperature` is safer, a higher one more varied.",
            "model": "model",
            "count": 8,
            "temperature": 0.8
        }
    });
    pretty(&manifest)
}

/// Indented JSON with short lists and objects on one line.
fn pretty(value: &Value) -> String {
    let mut out = String::new();
    write(value, 0, &mut out);
    out.push('\n');
    out
}

/// Columns of a line, about.
const WIDTH: usize = 100;

fn write(value: &Value, indent: usize, out: &mut String) {
    let entries: Vec<(Option<&String>, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (Some(name), value)).collect(),
        Value::Array(values) => values.iter().map(|value| (None, value)).collect(),
        _ => vec![],
    };
    let (open, close) = if value.is_array() { ("[", "]") } else { ("{", "}") };
    let line = on_a_line(value);
    let is_stage = value.get("kind").is_some() && value.get("description").is_some();
    if entries.is_empty() || (!is_stage && indent > 0 && indent + line.len() <= WIDTH) {
        out.push_str(&line);
        return;
    }
    out.push_str(open);
    for (index, (name, value)) in entries.into_iter().enumerate() {
        out.push_str(if index > 0 { ",\n" } else { "\n" });
        out.push_str(&" ".repeat(indent + 2));
        if let Some(name) = name {
            let _ = write!(out, "{}: ", json!(name));
        }
        write(value, indent + 2, out);
    }
    out.push('\n');
    out.push_str(&" ".repeat(indent));
    out.push_str(close);
}

fn on_a_line(value: &Value) -> String {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{}: {}", json!(name), on_a_line(value)))
                .collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(on_a_line).collect();
            format!("[{}]", values.join(", "))
        }
        other => other.to_string(),
    }
}
