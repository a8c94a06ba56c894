//! Why a stage runs: the parts of its key that changed.

use std::collections::HashSet;
use std::fmt;

use indexmap::{IndexMap, IndexSet};
use serde::Serialize;
use serde_json::Value;

use crate::store::{ExternalFile, Key, Record};

/// Why a stage runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// There is nothing to compare with.
    NeverRan,
    /// There is nothing to compare with but the scratch of an attempt that did not end: it was interrupted, it failed, or
    /// it runs now.
    Unfinished {
        /// The step of its newest checkpoint, where it left one.
        step: Option<u64>,
        /// The process that runs it now.
        #[serde(skip_serializing_if = "Option::is_none")]
        process: Option<String>,
    },
    /// The user asked for it.
    Forced,
    /// What the store has is damaged.
    Damaged {
        /// What is wrong with it.
        what: String,
    },
    /// What it makes is known, and is not here.
    Away {
        /// The stage that consumes it; nothing where it is itself what is wanted.
        needed_by: Option<String>,
    },
    /// A consumed stage runs; whether this one has to is known after it.
    UpstreamRuns {
        /// The consumed stage.
        stage: String,
    },
    /// A setting changed.
    Setting {
        /// Its path below the stage: `noise.epsilon`.
        field: String,
        /// Its value then; nothing where it was absent.
        old: Option<Value>,
        /// Its value now; nothing where it is absent.
        new: Option<Value>,
    },
    /// What the names of a source's files say of their form changed.
    Form {
        /// The forms then.
        old: Vec<String>,
        /// The forms now.
        new: Vec<String>,
    },
    /// The effective seed changed.
    Seed {
        /// Then; nothing where no random number was drawn.
        old: Option<u64>,
        /// Now; nothing where no random number is drawn.
        new: Option<u64>,
    },
    /// The code of the stage changed what it makes.
    Version {
        /// Then.
        old: u32,
        /// Now.
        new: u32,
    },
    /// A file outside the store changed.
    File {
        /// Its path.
        path: String,
        /// In what way.
        change: FileChange,
    },
    /// What the other reasons compare with is no earlier run of this stage: nothing of that name has run.
    ComparedWith {
        /// The stage that ran.
        stage: String,
        /// Its pipeline, where that is another one.
        pipeline: Option<String>,
    },
    /// A consumed artifact has other content.
    Input {
        /// The field that names the stage.
        role: String,
        /// The stage that made it.
        stage: String,
    },
}

/// What happened to a file outside the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileChange {
    /// It has other content.
    Changed,
    /// It was not read then.
    Added,
    /// It is not read now.
    Removed,
    /// It is read at another place in the order.
    Moved,
}

impl Reason {
    /// The reason as it is written of a run that has begun: "never ran" would contradict it.
    #[must_use]
    pub fn of_a_run(&self) -> String {
        match self {
            Self::NeverRan => "first run".to_owned(),
            // The process that ran it then has ended: two processes never run one stage at once.
            Self::Unfinished { step, .. } => Self::Unfinished {
                step: *step,
                process: None,
            }
            .to_string(),
            reason => reason.to_string(),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRan => f.write_str("never ran"),
            Self::Unfinished {
                process: Some(process),
                ..
            } => write!(f, "{process} runs it now"),
            Self::Unfinished { step: Some(step), .. } => write!(f, "interrupted at step {step}"),
            Self::Unfinished { step: None, .. } => f.write_str("did not finish"),
            Self::Forced => f.write_str("forced"),
            // Some say so themselves: "its action record is damaged: the checksum differs".
            Self::Damaged { what } if what.contains(" is damaged") => f.write_str(what),
            Self::Damaged { what } => write!(f, "damaged: {what}"),
            Self::Away { needed_by: None } => f.write_str("its files are not in the store"),
            Self::Away {
                needed_by: Some(stage),
            } => write!(f, "its files are not in the store, and `{stage}` needs them"),
            Self::UpstreamRuns { stage } => write!(f, "`{stage}` runs"),
            Self::Setting { field, old, new } => {
                let [old, new] = distinguished([setting(old.as_ref()), setting(new.as_ref())]);
                write!(f, "`{field}` {old} → {new}")
            }
            Self::Form { old, new } => {
                let [old, new] = distinguished([old.join(", "), new.join(", ")]);
                write!(
                    f,
                    "the formats of its files, by their names, are {new} instead of {old}"
                )
            }
            Self::Seed { old, new } => {
                let seed =
                    |seed: &Option<u64>| seed.map_or_else(|| "unused".to_owned(), |seed| seed.to_string());
                write!(f, "`seed` {} → {}", seed(old), seed(new))
            }
            Self::Version { old, new } => write!(f, "its code changed (version {old} → {new})"),
            Self::File { path, change } => {
                let change = match change {
                    FileChange::Changed => "changed",
                    FileChange::Added => "is new",
                    FileChange::Removed => "is gone",
                    FileChange::Moved => "moved within the order of files",
                };
                write!(f, "`{path}` {change}")
            }
            Self::ComparedWith { stage, pipeline } => match pipeline {
                Some(pipeline) => write!(f, "compared with `{stage}` of `{pipeline}`"),
                None => write!(f, "compared with `{stage}`"),
            },
            Self::Input { stage, .. } => write!(f, "`{stage}` has other content"),
        }
    }
}

/// Longest text of a setting in a reason.
const LONGEST: usize = 48;

/// A setting as a person would write it.
fn setting(value: Option<&Value>) -> String {
    match value {
        None => "unset".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_f64() => number.as_f64().map_or_else(String::new, float),
        Some(other) => other.to_string(),
    }
}

/// Two texts cut to a readable length around the place where they differ.
fn distinguished(texts: [String; 2]) -> [String; 2] {
    let [old, new] = &texts;
    let same = old.chars().zip(new.chars()).take_while(|(a, b)| a == b).count();
    let longest = old.chars().count().max(new.chars().count());
    // Some of what is the same goes before, unless the whole beginning fits.
    let skipped = if same < LONGEST / 2 || longest <= LONGEST {
        0
    } else {
        same - LONGEST / 4
    };
    texts.map(|text| {
        let start = if skipped > 0 { "…" } else { "" };
        let rest: Vec<char> = text.chars().skip(skipped).collect();
        let room = LONGEST - start.chars().count();
        if rest.len() <= room {
            return start.chars().chain(rest).collect();
        }
        start
            .chars()
            .chain(rest[..room - 1].iter().copied())
            .chain(['…'])
            .collect()
    })
}

/// Small and large numbers by their exponent: `3e-4`, `1e9`.
fn float(value: f64) -> String {
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e9) {
        format!("{value:e}")
    } else {
        format!("{value}")
    }
}

/// What changed between a record and a key of now. `files` are those of now; `names` are the stages that are consumed
/// now, by role. Inputs that the key of now lacks are left out.
#[must_use]
pub fn compare(
    record: &Record,
    key: &Key,
    files: &[ExternalFile],
    names: &IndexMap<&str, &str>,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let (Some(Value::Array(old)), Some(Value::Array(new))) =
        (record.key.config.get("of"), key.config.get("of"))
        && old != new
    {
        // Rows of a comparison came or went, and with them the places of the others.
        rows(old, new, &mut reasons);
        return reasons;
    }
    settings("", Some(&record.key.config), Some(&key.config), &mut reasons);
    if record.key.seed != key.seed {
        reasons.push(Reason::Seed {
            old: record.key.seed,
            new: key.seed,
        });
    }
    if record.key.files != key.files {
        reasons.extend(file_changes(&record.provenance.files, files));
    }
    for (role, digest) in &key.inputs {
        if record.key.inputs.get(role) != Some(digest) {
            let stage = names
                .get(role.as_str())
                .map_or(role.as_str(), |name| name)
                .to_owned();
            reasons.push(Reason::Input {
                role: role.clone(),
                stage,
            });
        }
    }
    for role in record
        .key
        .inputs
        .keys()
        .filter(|role| !names.contains_key(role.as_str()))
    {
        let field = role.replace('/', ".");
        reasons.push(Reason::Setting {
            field,
            old: Some(Value::from("set")),
            new: None,
        });
    }
    if record.key.version != key.version {
        reasons.push(Reason::Version {
            old: record.key.version,
            new: key.version,
        });
    }
    reasons
}

/// Whether [`compare`] may find so few reasons: what is sure to be one is counted, and no text is made of it.
#[must_use]
pub fn may_differ_in(record: &Record, key: &Key, most: usize) -> bool {
    let old = &record.key;
    let mut differ = usize::from(old.seed != key.seed) + usize::from(old.version != key.version);
    differ += key
        .inputs
        .iter()
        .filter(|(role, digest)| old.inputs.get(*role) != Some(digest))
        .count();
    let (Value::Object(before), Value::Object(after)) = (&old.config, &key.config) else {
        return true;
    };
    // Rows of a comparison are the reason before all others.
    if before.get("of") != after.get("of") {
        return true;
    }
    let mut fields = after.iter();
    while differ <= most {
        let Some((field, value)) = fields.next() else {
            return true;
        };
        differ += usize::from(before.get(field) != Some(value));
    }
    false
}

/// The rows of a comparison that are new, that are gone or, where they are the same, that stand in another order.
fn rows(old: &[Value], new: &[Value], reasons: &mut Vec<Reason>) {
    let row = |value: &Value| {
        let name = value.get("name").and_then(Value::as_str).map(str::to_owned);
        let point = value.get("point").and_then(Value::as_object);
        let values = point.into_iter().flatten().map(|(label, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{label}={value}")
        });
        let words: Vec<_> = name.into_iter().chain(values).collect();
        Some(Value::from(words.join(",")))
    };
    let mut push = |old, new| {
        reasons.push(Reason::Setting {
            field: "of".to_owned(),
            old,
            new,
        });
    };
    let spelt = |rows: &[Value]| -> HashSet<String> { rows.iter().map(Value::to_string).collect() };
    let (before, after) = (spelt(old), spelt(new));
    for value in new.iter().filter(|value| !before.contains(&value.to_string())) {
        push(None, row(value));
    }
    for value in old.iter().filter(|value| !after.contains(&value.to_string())) {
        push(row(value), None);
    }
    if reasons.is_empty() {
        let order = |place: &str| Some(Value::from(format!("{place} order")));
        reasons.push(Reason::Setting {
            field: "of".to_owned(),
            old: order("one"),
            new: order("another"),
        });
    }
}

/// What a setting of a key is called for a person: the keys of sources hold more than their manifests say.
#[must_use]
pub fn field_name(path: &str) -> String {
    for (internal, name) in [
        ("input.forms", "format by file name"),
        ("input.contents", "input.files"),
    ] {
        match path.strip_prefix(internal) {
            Some("") => return name.to_owned(),
            Some(rest) if rest.starts_with(['.', '[', ' ']) => return format!("{name}{rest}"),
            _ => {}
        }
    }
    path.to_owned()
}

/// A copy of a key with settings named for a person, to be shown; it has another digest.
#[must_use]
pub fn named(key: &Key) -> Key {
    let mut key = key.clone();
    if let Some(input) = key.config.get_mut("input").and_then(Value::as_object_mut)
        && let Some(forms) = input.remove("forms")
    {
        input.insert("format by file name".to_owned(), forms);
    }
    key
}

/// What a key holds of the files of a download: their URLs, or their checksums in short.
fn contents(value: Option<&Value>) -> Option<Value> {
    let files = value?.as_array()?.iter().map(|file| {
        let url = file.get("url").and_then(Value::as_str);
        let sha256 = file.get("sha256").and_then(Value::as_str);
        match (url, sha256) {
            (Some(url), _) => url.to_owned(),
            (None, Some(sha256)) => format!("sha256:{}", sha256.get(..8).unwrap_or(sha256)),
            (None, None) => "a file".to_owned(),
        }
    });
    Some(Value::from(files.collect::<Vec<_>>().join(", ")))
}

fn settings(path: &str, old: Option<&Value>, new: Option<&Value>, reasons: &mut Vec<Reason>) {
    if old == new {
        return;
    }
    match path {
        "input.forms" => {
            // Where a form was stated, or is now, that setting changed and says so.
            if let (Some(Value::Array(old)), Some(Value::Array(new))) = (old, new) {
                let names = |forms: &[Value]| {
                    let names = forms.iter().filter_map(Value::as_str);
                    names.map(str::to_owned).collect()
                };
                reasons.push(Reason::Form {
                    old: names(old),
                    new: names(new),
                });
            }
            return;
        }
        "input.contents" => {
            reasons.push(Reason::Setting {
                field: field_name(path),
                old: contents(old),
                new: contents(new),
            });
            return;
        }
        _ => {}
    }
    let changed = |old: Option<&Value>, new: Option<&Value>| Reason::Setting {
        field: path.to_owned(),
        old: old.cloned(),
        new: new.cloned(),
    };
    let (Some(Value::Object(before)), Some(Value::Object(after))) = (old, new) else {
        reasons.push(changed(old, new));
        return;
    };
    // Another kind of thing: its fields are others, and its kind says it all.
    if before.get("kind") != after.get("kind") {
        reasons.push(changed(before.get("kind"), after.get("kind")));
        return;
    }
    let fields: IndexSet<&String> = before.keys().chain(after.keys()).collect();
    for field in fields {
        let below = if path.is_empty() {
            field.clone()
        } else {
            format!("{path}.{field}")
        };
        settings(&below, before.get(field), after.get(field), reasons);
    }
}

fn file_changes(before: &[ExternalFile], after: &[ExternalFile]) -> Vec<Reason> {
    let index = |files: &[ExternalFile]| -> IndexMap<(String, String), ExternalFile> {
        files
            .iter()
            .map(|file| ((file.field.clone(), file.path.clone()), file.clone()))
            .collect()
    };
    let (before, after) = (index(before), index(after));
    let mut reasons = Vec::new();
    let mut push = |file: &ExternalFile, change| {
        reasons.push(Reason::File {
            path: file.path.clone(),
            change,
        });
    };
    for (name, file) in &after {
        match before.get(name) {
            None => push(file, FileChange::Added),
            Some(old) if old.digest != file.digest => push(file, FileChange::Changed),
            Some(_) => {}
        }
    }
    for (name, file) in &before {
        if !after.contains_key(name) {
            push(file, FileChange::Removed);
        }
    }
    if reasons.is_empty() {
        // The same files with the same content: their order is what changed.
        let moved = before.keys().zip(&after).find(|(old, (new, _))| old != new);
        reasons.extend(moved.map(|(_, (_, file))| Reason::File {
            path: file.path.clone(),
            change: FileChange::Moved,
        }));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use serde_json::json;

    fn difference(old: &Value, new: &Value) -> String {
        let mut reasons = Vec::new();
        settings("", Some(old), Some(new), &mut reasons);
        reasons
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// Long values are shown around the place where they differ.
    #[test]
    fn reason_shows_long_settings_where_they_differ() {
        let long = |end: &str| format!("{}{end}", "a".repeat(100));
        let text = difference(&json!({ "x": long("bc") }), &json!({ "x": long("d") }));
        assert_eq!(text, "`x` …aaaaaaaaaaaabc → …aaaaaaaaaaaad");
        let (early, late) = (format!("b{}", "a".repeat(100)), "a".repeat(101));
        let text = difference(&json!({ "x": early }), &json!({ "x": late }));
        let rest = "a".repeat(46);
        assert_eq!(text, format!("`x` b{rest}… → a{rest}…"));
        let whole = "a".repeat(LONGEST);
        let text = difference(&json!({ "x": whole }), &json!({ "x": "a" }));
        assert_eq!(text, format!("`x` {whole} → a"));
    }

    #[test]
    fn reason_shows_settings_as_a_person_writes_them() {
        for (old, new, text) in [
            (json!({ "lr": 3e-4 }), json!({ "lr": 1e-4 }), "`lr` 3e-4 → 1e-4"),
            (json!({ "lr": 0.001 }), json!({ "lr": 0.01 }), "`lr` 0.001 → 0.01"),
            (
                json!({ "steps": 1000 }),
                json!({ "steps": 2000 }),
                "`steps` 1000 → 2000",
            ),
            (json!({}), json!({ "rows": 5 }), "`rows` unset → 5"),
            (json!({ "rows": 5 }), json!({}), "`rows` 5 → unset"),
            (
                json!({ "objective": { "kind": "mdlm", "noise": { "kind": "log_linear", "epsilon": 1e-3 } }, "wrap": true }),
                json!({ "objective": { "kind": "mdlm", "noise": { "kind": "linear", "sigma_min": 1e-4, "sigma_max": 20.0 } }, "wrap": false }),
                "`objective.noise` log_linear → linear; `wrap` true → false",
            ),
            (
                json!({ "noise": { "kind": "cosine", "epsilon": 1e-3 } }),
                json!({ "noise": { "kind": "cosine", "epsilon": 1e-5 } }),
                "`noise.epsilon` 0.001 → 1e-5",
            ),
            (
                json!({ "a": "x".repeat(99) }),
                json!({ "a": "y" }),
                &*format!("`a` {}… → y", "x".repeat(47)),
            ),
        ] {
            assert_eq!(difference(&old, &new), text);
        }
    }

    #[test]
    fn reason_names_rows_of_a_comparison_one_by_one() {
        let row = |seed: u32| json!({ "name": "bound", "point": { "seed": seed, "noise": "cosine" } });
        let text = |old: &[Value], new: &[Value]| {
            let mut reasons = Vec::new();
            rows(old, new, &mut reasons);
            reasons
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        };
        assert_eq!(
            text(&[row(1), row(2)], &[row(3), row(1)]),
            "`of` unset → bound,seed=3,noise=cosine; `of` bound,seed=2,noise=cosine → unset"
        );
        assert_eq!(
            text(&[row(1), row(2)], &[row(2), row(1)]),
            "`of` one order → another order"
        );
    }

    #[test]
    fn reason_names_files() {
        let file = |path: &str, text: &str| ExternalFile {
            field: "files".to_owned(),
            path: path.to_owned(),
            bytes: text.len() as u64,
            digest: crate::store::Digest::of(text.as_bytes()),
        };
        let text = |before: &[ExternalFile], after: &[ExternalFile]| {
            file_changes(before, after)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; ")
        };
        let (a, b) = (file("a", "1"), file("b", "2"));
        assert_eq!(
            text(&[a.clone(), b.clone()], &[a.clone(), file("b", "3")]),
            "`b` changed"
        );
        assert_eq!(text(from_ref(&a), &[a.clone(), b.clone()]), "`b` is new");
        assert_eq!(text(&[a.clone(), b.clone()], from_ref(&b)), "`a` is gone");
        assert_eq!(
            text(&[a.clone(), b.clone()], &[b, a]),
            "`b` moved within the order of files"
        );
    }
}
