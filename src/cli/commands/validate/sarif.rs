//! Faults as a log of SARIF 2.1.0, which code scanning and editors read
//! (<https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>; § below is a section of it).

use std::path::{Component, Path};

use indexmap::IndexSet;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::{CheckedManifest, Root};

use mdlm::error::Kind;
use mdlm::manifest::{Code, Fault, Location};
use mdlm::plural;
use mdlm::store::Digest;

/// Where the schema of such logs lies.
pub const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// What relative URIs are relative to: the name that GitHub and others know the root of a repository by.
const BASE: &str = "%SRCROOT%";

/// A log with one run: a rule for each sort of fault that was found, a result for each fault.
#[must_use]
pub fn log(checked: &[CheckedManifest<'_>], root: &Root) -> Value {
    let rules: IndexSet<String> = checked
        .iter()
        .flat_map(CheckedManifest::list)
        .map(|fault| fault.code.name())
        .collect();
    let codes: IndexSet<&str> = rules.iter().map(String::as_str).collect();
    let mut described = Vec::new();
    let mut results = Vec::new();
    let mut artifacts = Vec::new();
    let mut notifications = Vec::new();
    for checked in checked {
        let location = artifact_location(&root.name(checked.file), artifacts.len());
        artifacts.push(json!({ "location": location }));
        for fault in checked.list() {
            let index = codes.get_index_of(fault.code.name().as_str());
            if index == Some(described.len()) {
                described.push(rule(fault.code));
            }
            results.push(result(checked, &location, fault, index));
        }
        if checked.omitted() > 0 {
            notifications.push(json!({
                "level": "warning",
                "message": { "text": format!("and {} more {}", checked.omitted(), plural::of(checked.omitted(), "fault")) },
                "locations": [{ "physicalLocation": { "artifactLocation": location } }]
            }));
        }
    }
    let exit_code = if results.is_empty() {
        0
    } else {
        Kind::Input.exit_code()
    };
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {
                "driver": {
                    "name": "mdlm",
                    "version": env!("CARGO_PKG_VERSION"),
                    "semanticVersion": env!("CARGO_PKG_VERSION"),
                    "rules": described
                }
            },
            "columnKind": "unicodeCodePoints",
            "originalUriBaseIds": { BASE: { "description": { "text": "The root of the repository." } } },
            "invocations": [{
                // The checking went well, whatever it found (§3.20.14).
                "executionSuccessful": true,
                "exitCode": exit_code,
                "toolExecutionNotifications": notifications
            }],
            "artifacts": artifacts,
            "results": results
        }]
    })
}

fn result(checked: &CheckedManifest<'_>, location: &Value, fault: &Fault, rule: Option<usize>) -> Value {
    let mut text = format!("{}{}", checked.argument(&fault.place), fault.message);
    if let Some(expected) = &fault.expected {
        text = format!("{text}; expected {expected}");
    }
    if let Some(hint) = &fault.hint {
        text = format!("{text}. Hint: {hint}");
    }
    let mut result = Map::new();
    result.insert("ruleId".to_owned(), Value::from(fault.code.name()));
    result.insert("ruleIndex".to_owned(), Value::from(rule));
    result.insert("level".to_owned(), Value::from("error"));
    result.insert("message".to_owned(), json!({ "text": text }));
    let mut at = json!({ "physicalLocation": physical(checked, location, &fault.place) });
    if !fault.pointer.is_empty() {
        at["logicalLocations"] = json!([{ "fullyQualifiedName": fault.pointer, "kind": "member" }]);
    }
    result.insert("locations".to_owned(), json!([at]));
    if !fault.related.is_empty() {
        let related: Vec<_> = fault
            .related
            .iter()
            .enumerate()
            .map(|(id, related)| {
                let text = format!("{}{}", checked.argument(&related.place), related.message);
                json!({
                    "id": id,
                    "physicalLocation": physical(checked, location, &related.place),
                    "message": { "text": text }
                })
            })
            .collect();
        result.insert("relatedLocations".to_owned(), Value::from(related));
    }
    // The same fault keeps its identity when lines above it come and go (§3.27.17).
    let identity = format!("{}\0{}\0{}", fault.code.name(), fault.pointer, fault.message);
    let fingerprint = Digest::of(identity.as_bytes()).to_string();
    result.insert(
        "partialFingerprints".to_owned(),
        json!({ "pointer/v1": fingerprint }),
    );
    Value::Object(result)
}

/// The range of a place in the file; the file alone where the place is in a `--set` argument.
fn physical(checked: &CheckedManifest<'_>, location: &Value, place: &Location) -> Value {
    let mut physical = json!({ "artifactLocation": location });
    if checked.holds(place) {
        // The end column is one past the last character (§3.30.8), as ours is.
        physical["region"] = json!({
            "startLine": place.line,
            "startColumn": place.column,
            "endLine": place.end_line,
            "endColumn": place.end_column
        });
    }
    physical
}

fn artifact_location(path: &Path, index: usize) -> Value {
    if path.is_absolute() {
        json!({ "uri": format!("file://{}", uri(path)), "index": index })
    } else {
        json!({ "uri": uri(path), "uriBaseId": BASE, "index": index })
    }
}

/// What of a path's part stands for itself in a URI (RFC 3986, unreserved).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A path as the path of a URI.
fn uri(path: &Path) -> String {
    let mut uri = String::new();
    for part in path.components() {
        if !uri.is_empty() && !uri.ends_with('/') || matches!(part, Component::Prefix(_)) {
            uri.push('/');
        }
        match part {
            Component::RootDir if !uri.ends_with('/') => uri.push('/'),
            Component::RootDir => {}
            part => uri.extend(utf8_percent_encode(&part.as_os_str().to_string_lossy(), ESCAPED)),
        }
    }
    uri
}

fn rule(code: Code) -> Value {
    let (what, help) = explained(code);
    json!({
        "id": code.name(),
        "shortDescription": { "text": what },
        "help": { "text": help },
        "defaultConfiguration": { "level": "error" }
    })
}

/// What a sort of fault is, and the way out.
#[expect(clippy::too_many_lines, reason = "a table")]
fn explained(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::Unreadable => (
            "The file cannot be read.",
            "Name a manifest that exists and can be read: a JSON file, not a folder.",
        ),
        Code::TooLarge => (
            "The file is larger than a manifest may be.",
            "A manifest is some kilobytes of JSON: name data in it, do not write data into it.",
        ),
        Code::Empty => (
            "The file is empty.",
            "Begin with a manifest of the `pipelines` folder.",
        ),
        Code::Encoding => (
            "The file is not plain UTF-8.",
            "Save it as UTF-8 without a byte order mark.",
        ),
        Code::Syntax => (
            "The text is not JSON.",
            "Manifests are strict JSON (RFC 8259): no comments, no commas after the last element.",
        ),
        Code::Nesting => (
            "Arrays and objects are nested too deep.",
            "Close all brackets: a manifest needs six levels.",
        ),
        Code::NumberRange => (
            "A number is outside what a 64-bit float holds.",
            "Write a smaller number.",
        ),
        Code::DuplicateKey => ("A field occurs twice.", "Keep one of the two."),
        Code::Override => (
            "A --set argument does not name a field.",
            "Write names joined by points and a value: stages.model.steps=200.",
        ),
        Code::UnknownField => (
            "A field does not exist.",
            "Correct its spelling or remove it; `mdlm schema` lists the fields, and an editor completes them.",
        ),
        Code::MissingField => (
            "A required field is missing.",
            "Add the field; `mdlm schema` says what it takes.",
        ),
        Code::WrongType => (
            "A value has another JSON type than its field takes.",
            "Write the value as the field's type: numbers without quotes, names with them.",
        ),
        Code::InvalidValue => (
            "A value is not one that its field takes.",
            "Take one of the values that the message lists.",
        ),
        Code::OutOfRange => (
            "A number or a length is outside its bounds.",
            "Keep within the bounds that the message names.",
        ),
        Code::InvalidName => (
            "A name has characters that names do not have.",
            "Use the characters that the message names: names become parts of paths and arguments.",
        ),
        Code::UnknownKind => (
            "A kind does not exist.",
            "Take one of the kinds that the message lists.",
        ),
        Code::UnknownShape => (
            "A shape was not compiled.",
            "Take one that `mdlm shapes` lists, or add a line to the table in src/shapes.rs and build.",
        ),
        Code::UnknownStage => (
            "A stage name does not exist.",
            "Correct the name, or add the stage.",
        ),
        Code::WrongStage => (
            "A stage consumes a stage of the wrong kind.",
            "Name a stage of the kind that the message asks for.",
        ),
        Code::Cycle => (
            "Stages consume each other in a cycle.",
            "Break the cycle: a stage can consume only stages that run before it.",
        ),
        Code::Vocabulary => (
            "The tokenizer has more tokens than the shape's vocabulary.",
            "Take a shape with a larger vocabulary, or a smaller tokenizer.",
        ),
        Code::RowLength => (
            "The rows are not as long as the shape's.",
            "Give the pack stage the shape's length, or the train stage another shape.",
        ),
        Code::Padding => (
            "A setting for padding or tails conflicts with how the rows are packed.",
            "Remove the setting, or change `wrap` of the pack stage.",
        ),
        Code::Context => (
            "Rows that begin with context are packed or used in a way that excludes it.",
            "Use `stride` for wrapped rows and `\"scored\": \"last_word\"` for others, and only for evaluation.",
        ),
        Code::Tokenizer => (
            "The rows come from another tokenizer than the model's.",
            "Tokenize them with the model's tokenizer: `{ \"kind\": \"from\", … }`.",
        ),
        Code::MicroBatch => (
            "`micro_batch` does not divide `batch`.",
            "Take a divisor of `batch`, or leave `micro_batch` out.",
        ),
        Code::Grains => (
            "`grains` cannot cut a batch into equal parts.",
            "Take a power of two that divides `batch`.",
        ),
        Code::Warmup => (
            "Warm-up takes longer than the training.",
            "Lower `warmup_steps`, or raise `steps`.",
        ),
        Code::Init => (
            "A training starts from a model that does not fit it.",
            "Name a model with the same shape, tokenizer and kind of network.",
        ),
        Code::Noise => (
            "The noise schedule does not rise.",
            "Give it a minimum below its maximum.",
        ),
        Code::TimeConditioning => (
            "The estimator or sampler needs a network without time conditioning, or the objective one with it.",
            "Choose another estimator or sampler, or change `time_conditioning`.",
        ),
        Code::Objective => (
            "Settings of the objective exclude each other, or the estimator or sampler does not fit the objective.",
            "Do as the message says; `mdlm objectives` lists what fits.",
        ),
        Code::Alphabet => (
            "A character occurs twice in the alphabet.",
            "Name every character once.",
        ),
        Code::Grammar => (
            "The grammar is not the one that the data comes from.",
            "Name the source stage whose grammar made the data.",
        ),
        Code::EmptySplit => (
            "The split has no rows.",
            "Choose the other split, or let the pack stage hold rows out.",
        ),
        Code::Pin => (
            "A download is neither pinned nor marked as unpinned, or both.",
            "Give its SHA-256 (`sha256`) or, where that is not known, say `\"unpinned\": true`.",
        ),
        Code::Corpus => (
            "The corpus does not have this part.",
            "`mdlm corpora NAME` lists the parts that it has.",
        ),
        Code::Detokenize => (
            "Detokenizers conflict with each other or with the corpus.",
            "Use the published form for every rule set or for no rule set; with a named corpus, use its own.",
        ),
        Code::Pattern => (
            "A regular expression, glob, JSON pointer or column is malformed.",
            "Correct it as the message says.",
        ),
        Code::NothingLeft => (
            "The settings leave out every record.",
            "Widen the range, the filter or the sample.",
        ),
        Code::NoEffect => ("The setting has no effect here.", "Remove it: it has no effect."),
        Code::Matrix => (
            "The sweep is malformed.",
            "Name fields of the stage, each with a list of different values, a range that ends or settings by name, a thousand stages \
             in all at most.",
        ),
        Code::Disagreement => (
            "The schema accepts what the program rejects.",
            "This is a bug in mdlm; please report it with the manifest.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        assert_eq!(
            uri(Path::new("pipelines/a b%é.json")),
            "pipelines/a%20b%25%C3%A9.json"
        );
        assert_eq!(uri(Path::new("/a/b:c.json")), "/a/b%3Ac.json");
        let elsewhere = artifact_location(Path::new("/a/b"), 0);
        assert_eq!(elsewhere["uri"], "file:///a/b");
        assert!(elsewhere.get("uriBaseId").is_none());
    }
}
