//! Loading a manifest: from a file and `--set` arguments to a [`Manifest`] without faults, or all its faults.
//!
//! ```no_run
//! use std::path::Path;
//! use mdlm_base::manifest::Manifest;
//! use mdlm_base::shape::Shapes;
//!
//! let compiled = Shapes(&[]); // of `mdlm`: `mdlm::shapes::SHAPES`
//! let set = ["stages.model.steps=200".to_owned()];
//! let loaded = Manifest::load(Path::new("pipelines/quickstart.json"), &set, compiled)?;
//! for (name, stage) in &loaded.manifest.stages {
//!     println!("{name}: {}", stage.kind().name());
//! }
//! # Ok::<(), mdlm_base::manifest::Faults>(())
//! ```
//!
//! The commands show [`Faults`] with the lines at fault (`cli::args::manifest::load`); [`Faults::into_error`] makes one
//! error of them.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::fault::{Code, Draft, Faults, SourceText, alternatives, did_you_mean, quoted, suggestion};
use super::json::{Data, Member, Node, parse, parse_at, pointer_join};
use super::reading::{STANDARD_INPUT, is_open_file};
use super::span::Span;
use super::sweep::{self, Sweeps};
use super::{Manifest, Objective, Stage, kinds, number_hints, override_hints, schema_check, semantic};
use crate::shape::Shapes;

/// Largest file that is read as a manifest, in bytes: a thousand stages written out come to a third of it.
pub const MAX_BYTES: usize = 1 << 20;

/// A manifest without faults, and what it was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The content of the file, with overrides applied and sweeps expanded.
    pub manifest: Manifest,
    /// Which of its stages are instances of sweeps.
    pub sweeps: Sweeps,
    /// The content with overrides as JSON, as written: defaults are not filled in, sweeps not expanded.
    pub written: Value,
    /// The file.
    pub path: PathBuf,
    /// The file's text, without the overrides.
    pub text: String,
    /// The `--set` arguments in order, each `PATH=VALUE`.
    pub overrides: Vec<String>,
    /// The compiled shapes that it was checked with.
    shapes: Shapes,
}

impl Loaded {
    /// The folder that the manifest's relative paths start from: the folder of the file, or the current one if the manifest
    /// comes through a pipe.
    #[must_use]
    pub fn base(&self) -> &Path {
        if is_open_file(&self.path.to_string_lossy()) {
            return Path::new(".");
        }
        match self.path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        }
    }
}

impl Loaded {
    /// The faults of files that fields name, from the field's pointer in the manifest as written, the message and the
    /// hint.
    #[must_use]
    pub fn faults(&self, found: Vec<(String, String, Option<String>)>) -> Faults {
        let mut sources = vec![SourceText {
            name: self.path.display().to_string(),
            text: self.text.clone(),
        }];
        sources.extend(self.overrides.iter().map(|argument| SourceText {
            name: "--set".to_owned(),
            text: argument.clone(),
        }));
        let (checked, ..) = check(&self.text, &self.overrides, self.shapes);
        let span = |pointer: &str| {
            let tree = &checked.as_ref()?.written;
            // A field that a sweep sets is within its `matrix`: then the stage is the place.
            let above = std::iter::successors(Some(pointer), |pointer| Some(pointer.rsplit_once('/')?.0));
            above
                .into_iter()
                .find_map(|pointer| tree.at(pointer))
                .map(|node| node.span)
        };
        let drafts = found.into_iter().map(|(pointer, message, hint)| {
            let span = span(&pointer).unwrap_or_default();
            Draft::new(Code::InvalidValue, span, pointer, message).maybe_hint(hint)
        });
        Faults::new(sources, drafts.collect(), 0)
    }
}

impl Manifest {
    /// Reads the file, applies the `--set` arguments, and checks everything that can be checked without data. `shapes` are
    /// those that the program is compiled for.
    ///
    /// An override is `PATH=VALUE`: names separated by dots (`stages.model.steps=200`, `stages.text.input.files.0=a.txt`),
    /// and a value that is JSON, or else a string. `null` removes a field, so that its default applies. Later
    /// arguments win.
    ///
    /// # Errors
    /// [`Faults`] lists all faults at once, in the order of the text; a fault of an override points into its argument.
    pub fn load(path: &Path, overrides: &[String], shapes: Shapes) -> Result<Loaded, Faults> {
        let name = path.display().to_string();
        let bytes = read(path).map_err(|fault| {
            Faults::new(
                vec![SourceText {
                    name: name.clone(),
                    text: String::new(),
                }],
                vec![fault],
                0,
            )
        })?;
        let mut loaded = Self::from_bytes(&name, bytes, overrides, shapes)?;
        path.clone_into(&mut loaded.path);
        Ok(loaded)
    }

    /// [`Manifest::load`] from a file's content; `name` stands for the file in faults.
    ///
    /// # Errors
    /// [`Faults`], as [`Manifest::load`] does.
    pub fn from_bytes(
        name: &str,
        bytes: Vec<u8>,
        overrides: &[String],
        shapes: Shapes,
    ) -> Result<Loaded, Faults> {
        let (text, encoding) = decode(bytes);
        let mut sources = vec![SourceText {
            name: name.to_owned(),
            text,
        }];
        sources.extend(overrides.iter().map(|argument| SourceText {
            name: "--set".to_owned(),
            text: argument.clone(),
        }));
        let (checked, drafts, omitted) = match encoding {
            Some(fault) => (None, vec![fault], 0),
            None => check(&sources[0].text, overrides, shapes),
        };
        if !drafts.is_empty() {
            return Err(Faults::new(sources, drafts, omitted));
        }
        let (written, expanded, sweeps) = match checked {
            Some(checked) => (
                checked.written.to_json(),
                checked.expanded.to_json(),
                checked.sweeps,
            ),
            None => (Value::Null, Value::Null, Sweeps::default()),
        };
        match Self::deserialize_checked(&expanded) {
            Ok(manifest) => Ok(Loaded {
                manifest,
                sweeps,
                written,
                path: PathBuf::from(name),
                text: sources.swap_remove(0).text,
                overrides: overrides.to_vec(),
                shapes,
            }),
            // The schema is generated from the types, and a property test holds that they agree.
            Err(error) => {
                let fault = Draft::new(Code::Disagreement, Span::default(), "", error.to_string());
                Err(Faults::new(sources, vec![fault], 0))
            }
        }
    }

    fn deserialize_checked(expanded: &Value) -> serde_json::Result<Self> {
        let mut manifest: Self = serde::Deserialize::deserialize(expanded)?;
        manifest.fill_in();
        Ok(manifest)
    }

    /// Fills in the settings whose default depends on the model's objective, and the models whose samples are judged.
    fn fill_in(&mut self) {
        let objectives: HashMap<String, Objective> = self
            .stages
            .iter()
            .filter_map(|(name, stage)| match stage {
                Stage::Train(train) => Some((name.clone(), train.objective)),
                Stage::Checkpoint(checkpoint) => Some((name.clone(), checkpoint.objective?)),
                _ => None,
            })
            .collect();
        for stage in self.stages.values_mut() {
            if let Some(objective) = stage.model().and_then(|model| objectives.get(model)) {
                stage.fill_in(objective);
            }
        }
        let sampled: HashMap<String, String> = self
            .stages
            .iter()
            .filter_map(|(name, stage)| match stage {
                Stage::Sample(sample) => Some((name.clone(), sample.model.clone())),
                _ => None,
            })
            .collect();
        for stage in self.stages.values_mut() {
            if let Stage::Judge(judge) = stage {
                for row in &mut judge.of {
                    row.model = sampled.get(&row.stage).cloned();
                }
            }
        }
    }
}

/// The fields at the top of a manifest.
const FIELDS: [&str; 5] = ["$schema", "name", "description", "seed", "stages"];

/// A manifest's tree.
struct CheckedTree {
    /// With overrides.
    written: Node,
    /// With sweeps expanded.
    expanded: Node,
    sweeps: Sweeps,
}

/// The tree, its faults, and how many were left out.
fn check(text: &str, overrides: &[String], shapes: Shapes) -> (Option<CheckedTree>, Vec<Draft>, usize) {
    if text.trim().is_empty() {
        let fault = Draft::new(Code::Empty, Span::default(), "", "the file is empty")
            .expected("a JSON object with `name`, `seed` and `stages`");
        return (None, vec![fault], 0);
    }
    let (tree, mut drafts) = parse(text, 0);
    for fault in &mut drafts {
        number_hints::correct_hint(fault, text);
    }
    let Some(mut tree) = tree else {
        if let Some(hint) = other_language(text)
            && let Some(fault) = drafts.last_mut()
        {
            fault.hint = Some(hint.to_owned());
        }
        return (None, drafts, 0);
    };
    for (i, argument) in overrides.iter().enumerate() {
        if let Err(faults) = apply(&mut tree, argument, i + 1) {
            drafts.extend(faults);
        }
    }
    let mut plain = tree.clone();
    drafts.extend(take_descriptions(&mut plain));
    let mut expansion = sweep::expand(&plain);
    let (mut found, omitted) = schema_check::check(&expansion.tree, shapes);
    found.extend(semantic::check(&expansion.tree, &found, shapes));
    drafts.extend(expansion.bring_back(found));
    drafts.append(&mut expansion.faults);
    let checked = CheckedTree {
        written: tree,
        expanded: expansion.tree,
        sweeps: expansion.sweeps,
    };
    (Some(checked), drafts, omitted)
}

/// Removes the stages' descriptions, which have no effect; one that is not a string is a fault.
fn take_descriptions(tree: &mut Node) -> Vec<Draft> {
    let mut faults = Vec::new();
    let Data::Object(members) = &mut tree.data else {
        return faults;
    };
    let stages = members.iter_mut().find(|member| member.key == "stages");
    let Some(Data::Object(stages)) = stages.map(|stages| &mut stages.value.data) else {
        return faults;
    };
    for stage in stages {
        let Data::Object(fields) = &mut stage.value.data else {
            continue;
        };
        let Some(place) = fields.iter().position(|field| field.key == "description") else {
            continue;
        };
        let description = fields.remove(place).value;
        if !matches!(description.data, Data::String(_)) {
            let pointer = pointer_join(&pointer_join("/stages", &stage.key), "description");
            faults.push(
                Draft::new(
                    Code::WrongType,
                    description.span,
                    pointer,
                    "the description is not a string",
                )
                .value(&description.to_json())
                .expected("a string"),
            );
        }
    }
    faults
}

/// The way out where a manifest is written in another language than JSON, judged by its first line of content.
fn other_language(text: &str) -> Option<&'static str> {
    let mut lines = text.lines().map(str::trim_end);
    let first = lines.find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))?;
    let key = |line: &str, separator: char| {
        let key = line.split(separator).next().unwrap_or_default().trim();
        let is_plain = |c: char| c.is_alphanumeric() || "_-.$".contains(c);
        line.contains(separator) && !key.is_empty() && key.chars().all(is_plain)
    };
    if first == "---" || first.starts_with("%YAML") || first.starts_with("- ") || key(first, ':') {
        return Some(
            "a manifest is JSON, but this looks like YAML; convert it with `yq -o json FILE` or `python -c \"import json, sys, yaml; \
             json.dump(yaml.safe_load(sys.stdin), sys.stdout, indent=2)\"`",
        );
    }
    let is_toml = key(first, '=') || first.starts_with('[') && first.ends_with(']') && !first.contains(',');
    is_toml.then_some(
        "a manifest is JSON, but this looks like TOML; convert it with `yq -p toml -o json FILE`; \
         `schemas/pipeline.schema.json` describes the fields",
    )
}

/// The file in the same folder whose name is nearest to that of a missing manifest.
fn beside(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?;
    let mut stems: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".json").map(str::to_owned))
        .collect();
    stems.sort();
    let near = did_you_mean(stem, stems.iter().map(String::as_str))?;
    let meant = path.with_file_name(format!("{near}.json"));
    (meant != path).then(|| format!("did you mean {}?", quoted(&meant.display().to_string())))
}

/// The manifests in the folder of a missing one and in its `pipelines`; if that folder is missing too, those of the current
/// folder.
fn manifests_near(path: &Path) -> Option<String> {
    /// Most files to read: a folder of data may have millions that end in `.json`.
    const EXAMINED: usize = 100;
    const SHOWN: usize = 5;
    let folder = path
        .parent()
        .filter(|folder| folder.is_dir())
        .unwrap_or(Path::new(""));
    let mut found: Vec<String> = Vec::new();
    for folder in [folder.to_owned(), folder.join("pipelines")] {
        let listed = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &folder
        };
        let Ok(entries) = fs::read_dir(listed) else {
            continue;
        };
        let names = entries.flatten().map(|entry| folder.join(entry.file_name()));
        let is_json = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json");
        let files = names.filter(is_json).take(EXAMINED);
        let mut manifests: Vec<_> = files
            .filter(|path| is_manifest(path))
            .map(|path| path.display().to_string())
            .filter(|path| !path.contains(char::is_control))
            .collect();
        manifests.sort();
        found.append(&mut manifests);
    }
    let more = match found.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    found.truncate(SHOWN);
    // In full, however long: they are there to be copied.
    let found: Vec<_> = found.iter().map(|path| format!("`{path}`")).collect();
    (!found.is_empty()).then(|| format!("manifests found nearby: {}{more}", found.join(", ")))
}

/// Whether a file is JSON with stages, as a manifest is.
fn is_manifest(path: &Path) -> bool {
    let is_small = |metadata: fs::Metadata| metadata.is_file() && metadata.len() <= MAX_BYTES as u64;
    fs::metadata(path).is_ok_and(is_small)
        && fs::read(path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
            .is_some_and(|value| value["stages"].is_object())
}

/// The way out where a path begins with a `~` that no shell has expanded because it was in quotes.
fn at_home(path: &Path) -> Option<String> {
    let rest = path.strip_prefix("~").ok()?;
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.map_or_else(|| PathBuf::from("/home/NAME"), PathBuf::from);
    let path = home.join(rest);
    Some(format!(
        "only a shell expands `~` to the home folder, and not within quotes: write `{}`",
        path.display()
    ))
}

/// The kind of file at a path, if no manifest can be read from it. A pipe that the shell opened can be read; a named pipe
/// would block.
fn no_file(path: &Path) -> Option<String> {
    let Ok(metadata) = fs::metadata(path) else {
        let to = fs::read_link(path).ok()?;
        return Some(format!(
            "a symbolic link to `{}`, which does not exist",
            to.display()
        ));
    };
    if metadata.is_dir() {
        return Some("a folder".to_owned());
    }
    if metadata.is_file() || is_open_file(&path.to_string_lossy()) {
        return None;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        let kind = metadata.file_type();
        if kind.is_fifo() {
            return Some("a named pipe".to_owned());
        }
        if kind.is_socket() {
            return Some("a socket".to_owned());
        }
    }
    Some("a device".to_owned())
}

#[expect(clippy::result_large_err, reason = "one call per file")]
fn read(path: &Path) -> Result<Vec<u8>, Draft> {
    let unreadable = |error: std::io::Error| {
        let message = format!("the file cannot be read: {error}");
        let fault = Draft::new(Code::Unreadable, Span::default(), "", message);
        if error.kind() != std::io::ErrorKind::NotFound {
            return fault;
        }
        fault
            .maybe_hint(beside(path).or_else(|| manifests_near(path)))
            .maybe_hint(at_home(path))
    };
    let from_standard_input = path == Path::new(STANDARD_INPUT);
    if let Some(what) = no_file(path).filter(|_| !from_standard_input) {
        let message = format!("this is {what}");
        return Err(
            Draft::new(Code::Unreadable, Span::default(), "", message).expected("a manifest: a JSON file")
        );
    }
    let file: Box<dyn Read> = if from_standard_input {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(unreadable)?)
    };
    let mut bytes = Vec::new();
    // One byte more than allowed shows a file that is too large, be it a pipe without a size.
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > MAX_BYTES {
        let message = "the file is larger than 1 MiB";
        return Err(Draft::new(Code::TooLarge, Span::default(), "", message).expected(
            "a manifest: a few kilobytes of JSON that name the data files instead of containing the data",
        ));
    }
    Ok(bytes)
}

/// The text, bytes that are not UTF-8 replaced, and what is wrong with the encoding.
fn decode(bytes: Vec<u8>) -> (String, Option<Draft>) {
    let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    match String::from_utf8(bytes) {
        Ok(text) if text.starts_with('\u{feff}') => {
            let span = Span {
                source: 0,
                start: 0,
                end: '\u{feff}'.len_utf8(),
            };
            let fault = Draft::new(
                Code::Encoding,
                span,
                "",
                "the file begins with a byte order mark (EF BB BF)",
            )
            .expected("plain UTF-8")
            .hint("save it as UTF-8 without BOM");
            (text, Some(fault))
        }
        Ok(text) => (text, None),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let byte = error.as_bytes().get(at).copied().unwrap_or_default();
            // The text before `at` is valid, so the lossy text is the same up to there.
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let span = Span {
                source: 0,
                start: at,
                end: at + '\u{fffd}'.len_utf8(),
            };
            let fault = Draft::new(
                Code::Encoding,
                span,
                "",
                format!("invalid UTF-8 at byte {at} (0x{byte:02x})"),
            )
            .expected("UTF-8 text");
            (
                text,
                Some(if utf16 {
                    fault.hint("this looks like UTF-16; save it as UTF-8")
                } else {
                    fault
                }),
            )
        }
    }
}

/// Applies one `PATH=VALUE`.
#[expect(clippy::too_many_lines, reason = "one walk along the path, with its faults")]
fn apply(tree: &mut Node, argument: &str, source: usize) -> Result<(), Vec<Draft>> {
    let span = |start: usize, end: usize| Span { source, start, end };
    let fault = |start, end, message: String| Draft::new(Code::Override, span(start, end), "", message);
    let Some((path, text)) = argument.split_once('=') else {
        return Err(vec![
            fault(0, argument.len(), format!("{} has no `=VALUE`", quoted(argument)))
                .expected("PATH=VALUE, as in `stages.model.steps=200`"),
        ]);
    };
    let value_start = path.len() + 1;
    let value = override_value(text, value_start, source)?;

    let mut segments = Vec::new();
    let mut start = 0;
    for segment in path.split('.') {
        let end = start + segment.len();
        if segment.trim().is_empty() {
            return Err(vec![
                fault(0, path.len(), format!("{} contains an empty name", quoted(path)))
                    .expected("names separated by dots, as in `stages.model.steps`"),
            ]);
        }
        segments.push((segment, span(start, end)));
        start = end + 1;
    }

    let meant = override_hints::meant_override(tree, path, text);
    let mut node = tree;
    let mut pointer = String::new();
    for (i, (segment, key_span)) in segments.iter().enumerate() {
        let last = i + 1 == segments.len();
        let whole = span(0, key_span.end);
        let below = pointer_join(&pointer, segment);
        let at = |message: String| Draft::new(Code::Override, whole, below.clone(), message);
        match &mut node.data {
            Data::Object(members) => {
                let found = members.iter().position(|member| member.key == *segment);
                if last && value.data == Data::Null {
                    if let Some(index) = found {
                        members.remove(index);
                    }
                    return Ok(());
                }
                if found.is_none()
                    && pointer.is_empty()
                    && !FIELDS.contains(segment)
                    && let Some(meant) = &meant
                {
                    return Err(vec![
                        at(format!("a manifest has no field {}", quoted(segment)))
                            .expected("a path that starts at the top of the manifest")
                            .hint(meant.as_str()),
                    ]);
                }
                if found.is_none() && pointer == "/stages" && !(last && matches!(value.data, Data::Object(_)))
                {
                    let names: Vec<&str> = members.iter().map(|member| member.key.as_str()).collect();
                    return Err(vec![
                        at(format!("there is no stage {}", quoted(segment)))
                            .expected(format!("a stage: {}", alternatives(&names)))
                            .maybe_hint(
                                suggestion(segment, names).or_else(|| meant.clone().filter(|_| last)),
                            ),
                    ]);
                }
                let index = found.unwrap_or_else(|| {
                    members.push(Member {
                        key: (*segment).to_owned(),
                        key_span: *key_span,
                        value: kinds::absent(segment, *key_span),
                    });
                    members.len() - 1
                });
                if last {
                    members[index].key_span = *key_span;
                }
                node = &mut members[index].value;
            }
            Data::Array(items) => {
                let count = items.len();
                let item = segment
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get_mut(index));
                node = item.ok_or_else(|| {
                    vec![
                        at(format!(
                            "there is no element {} in an array of {count}",
                            quoted(segment)
                        ))
                        .expected("an index, from 0"),
                    ]
                })?;
            }
            _ => {
                let (parent, _) = path.split_at(key_span.start.saturating_sub(1));
                return Err(vec![
                    at(format!(
                        "{} is not an object, so it has no field {}",
                        quoted(parent),
                        quoted(segment)
                    ))
                    .expected(format!("a path that ends at {}", quoted(parent))),
                ]);
            }
        }
        pointer = below;
    }
    *node = value;
    Ok(())
}

/// A value: JSON where it is JSON, else the text itself.
fn override_value(text: &str, start: usize, source: usize) -> Result<Node, Vec<Draft>> {
    let (node, faults) = parse_at(text, start, source);
    match node {
        Some(node) if faults.is_empty() => Ok(node),
        // What begins as JSON was meant as JSON.
        _ if text.trim_start().starts_with(['{', '[', '"']) => {
            // The place names the argument's path; a pointer into its value alone would mislead.
            Err(faults
                .into_iter()
                .map(|fault| Draft {
                    pointer: String::new(),
                    ..fault
                })
                .collect())
        }
        _ => {
            let span = Span {
                source,
                start,
                end: start + text.len(),
            };
            // Some shells pass single quotes on; they would be part of the value.
            let inner = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
            if let Some(inner) = inner {
                return Err(vec![
                    Draft::new(
                        Code::Override,
                        span,
                        "",
                        format!("{} is in single quotes", quoted(text)),
                    )
                    .expected("JSON, or text without quotes")
                    .hint(format!(
                        "write {inner}; if the shell needs quotes, use double quotes"
                    )),
                ]);
            }
            Ok(Node {
                span,
                data: Data::String(text.to_owned()),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::EXAMPLES;

    const SMALL: &str = r#"{
        "name": "small", "seed": 1,
        "stages": {
            "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt", "b.txt"] } },
            "tokens": { "kind": "tokenize", "from": "text",
                        "tokenizer": { "kind": "train_bpe", "vocabulary_size": 512 } },
            "rows": { "kind": "pack", "from": "tokens", "length": 32 },
            "model": { "kind": "train", "from": "rows", "shape": "nano", "steps": 1e4 }
        }
    }"#;

    fn load(overrides: &[&str]) -> Result<Loaded, Faults> {
        let overrides: Vec<_> = overrides.iter().map(|&argument| argument.to_owned()).collect();
        Manifest::from_bytes("small.json", SMALL.into(), &overrides, EXAMPLES)
    }

    fn train(loaded: &Loaded) -> &super::super::Train {
        match &loaded.manifest.stages["model"] {
            super::super::Stage::Train(stage) => stage,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_in_exponent_notation_are_integers() {
        assert_eq!(train(&load(&[]).unwrap()).steps, 10_000);
    }

    #[test]
    fn missing_manifest_lists_those_nearby() {
        let folder = tempfile::tempdir().unwrap();
        let pipelines = folder.path().join("pipelines");
        fs::create_dir(&pipelines).unwrap();
        fs::write(folder.path().join("tiny.json"), SMALL).unwrap();
        fs::write(folder.path().join("data.json"), "[1, 2]").unwrap();
        fs::write(pipelines.join("lm.json"), SMALL).unwrap();
        let faults = Manifest::load(&folder.path().join("nofile.json"), &[], EXAMPLES).unwrap_err();
        let fault = faults.to_string();
        assert!(fault.contains("hint: manifests found nearby: "), "{fault}");
        assert!(
            fault.contains("tiny.json") && fault.contains("lm.json"),
            "{fault}"
        );
        assert!(!fault.contains("data.json"), "{fault}");
    }

    #[test]
    fn overrides_are_typed_and_the_last_wins() {
        let loaded = load(&[
            "stages.model.steps=3000",
            "stages.model.steps=2600",
            "stages.model.objective.noise.kind=cosine",
            "stages.text.input.files.1=c.txt",
            "name=\"quoted\"",
        ])
        .unwrap();
        assert_eq!(train(&loaded).steps, 2600);
        let noise = train(&loaded).objective.noise();
        assert!(matches!(noise, Some(super::super::Noise::Cosine(_))));
        assert_eq!(loaded.written["stages"]["text"]["input"]["files"][1], "c.txt");
        assert_eq!(loaded.manifest.name, "quoted");
        assert_eq!(loaded.overrides.len(), 5);
        let removed = load(&[
            "stages.model.objective.noise.kind=cosine",
            "stages.model.objective=null",
        ])
        .unwrap();
        assert_eq!(removed.manifest, load(&[]).unwrap().manifest);
        let added = load(&[r#"stages.more={"kind":"sample","model":"model","count":3}"#]).unwrap();
        assert_eq!(added.manifest.stages.len(), 5);
    }

    #[test]
    fn faults_of_an_override_point_into_it() {
        let check = |argument: &str, expected: &str| {
            let faults = load(&["seed=2", argument]).unwrap_err();
            assert_eq!(faults.list.len(), 1, "{faults}");
            assert_eq!(faults.list[0].place.span.source, 2);
            assert_eq!(faults.to_string(), expected);
        };
        check(
            "stages.model.steps=many",
            "--set:1:20: `many` is a string; expected an integer from 1 to 1,000,000,000",
        );
        check(
            "stages.model.stepps=7",
            "--set:1:14: unknown field `stepps`; expected `steps`: an integer from 1 to 1,000,000,000; hint: did you \
             mean `steps`?",
        );
        check(
            "stages.model.descripton=x",
            "--set:1:14: unknown field `descripton`; expected `description`: a string; hint: did you mean `description`?",
        );
        check(
            "stages.model.learning_rate=",
            "--set:1:28: the value is missing; expected a number from 0 to 10; hint: give a value after the `=`, or `null` to remove \
             the field",
        );
        check(
            "stages.model.learning_rate=1e400",
            "--set:1:28: `1e400` is not a finite number; expected a number from 0 to 10; hint: write a finite number",
        );
        check(
            "stages.modle.steps=7",
            "--set:1:1: there is no stage `modle`; expected a stage: `text`, `tokens`, `rows` or `model`; \
             hint: did you mean `model`?",
        );
        for path in [
            "steps",
            "stages.steps",
            "stages/model/steps",
            "/stages/model/steps",
            "model/steps",
        ] {
            let error = load(&[&format!("{path}=5")]).unwrap_err().to_string();
            assert!(
                error.contains("did you mean `--set stages.model.steps=5`?"),
                "{error}"
            );
        }
        let error = load(&["model=5"]).unwrap_err().to_string();
        let hint = "`model` is a stage; name a field of it: `--set stages.model.steps=5`";
        assert!(error.contains(hint), "{error}");
        // A field that several stages have.
        let error = load(&["from=text"]).unwrap_err().to_string();
        let sets = ["tokens", "rows", "model"].map(|stage| format!("`--set stages.{stage}.from=text`"));
        let hint = format!("did you mean {}, {} or {}?", sets[0], sets[1], sets[2]);
        assert!(error.contains(&hint), "{error}");
        check(
            "stages.text.input.files.2=x",
            "--set:1:1: there is no element `2` in an array of 2; expected an index, from 0",
        );
        check(
            "seed.x=1",
            "--set:1:1: `seed` is not an object, so it has no field `x`; expected a path that ends at `seed`",
        );
        check(
            "seed",
            "--set:1:1: `seed` has no `=VALUE`; expected PATH=VALUE, as in `stages.model.steps=200`",
        );
        check(
            "stages..steps=1",
            "--set:1:1: `stages..steps` contains an empty name; expected names separated by dots, as in `stages.model.steps`",
        );
        check(
            "stages.rows.length=16",
            "--set:1:20: shape `nano` has rows of 32 tokens, but `rows` packs rows of 16; expected a shape with \
             rows of 16; hint: set `\"length\": 32` in `rows`",
        );
    }

    #[test]
    fn hint_shows_where_a_setting_of_a_format_belongs() {
        for (argument, hint) in [
            (
                r#"stages.text.input.read={"bad_rows":"skip"}"#,
                r#""read": { "format": { "kind": "csv", "bad_rows": "skip" } }"#,
            ),
            (
                r#"stages.text.input.read={"format":{"kind":"tsv"},"quoted_lines":3}"#,
                r#""read": { "format": { "kind": "tsv", "quoted_lines": 3 } }"#,
            ),
            (
                "stages.text.input.record=file",
                r#""read": { "format": { "kind": "text", "record": "file" } }"#,
            ),
        ] {
            let faults = load(&[argument]).unwrap_err().to_string();
            assert!(
                faults.contains("unknown field") && faults.contains(hint),
                "{argument}: {faults}"
            );
        }
    }

    #[test]
    fn paths_start_at_the_manifest() {
        let mut loaded = load(&[]).unwrap();
        assert_eq!(loaded.base(), Path::new("."));
        loaded.path = "pipelines/a.json".into();
        assert_eq!(loaded.base(), Path::new("pipelines"));
    }
}
