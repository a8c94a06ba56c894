//! The fields of a manifest as tables in Markdown, generated from the schema.
//!
//! `schemas/README.md` is the committed copy: the schema for people who read rather than complete.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::schema::schema;
use crate::shape::Shapes;

/// Where the tables are committed, from the project's root.
pub const TABLE_PATH: &str = "schemas/README.md";
/// The command that regenerates the committed tables.
pub const REGENERATE_TABLE: &str = "mdlm schema --markdown > schemas/README.md";

const HEAD: &str = "\
# The fields of a manifest

This page is generated from the same source as `pipeline.schema.json`, with which editors complete and check manifests:
`mdlm schema --markdown > schemas/README.md`. [pipelines/README.md](../pipelines/README.md) explains the manifest as a
whole.

A heading is the path of an object, which begins with the kind of its stage; the word after a colon is the object's `kind`.
Kinds with the same fields share a section. A field whose description states no default is required; of a stage, `matrix` may
give it instead.
";

/// All fields, a table for each object of a manifest.
#[must_use]
pub fn field_table(shapes: Shapes) -> String {
    let mut page = Page::default();
    let schema = schema(shapes);
    let description = schema["description"].as_str();
    page.object("The pipeline", "", &schema, description);
    let mut text = HEAD.to_owned();
    for section in &page.sections {
        text.push('\n');
        text.push_str(section);
    }
    text
}

/// The sections of the page, and the titles under which objects already have one.
#[derive(Default)]
struct Page {
    sections: Vec<String>,
    titles: BTreeMap<String, String>,
}

impl Page {
    /// Writes the section of an object and those of the objects in it, unless the page has a section with the same
    /// fields. Returns the section's title. `path` leads to the object's fields.
    fn object(&mut self, title: &str, path: &str, object: &Value, description: Option<&str>) -> String {
        if let Some(title) = self.titles.get(&fields_alone(object)) {
            return title.clone();
        }
        self.titles.insert(fields_alone(object), title.to_owned());
        let place = self.sections.len();
        self.sections.push(String::new());
        let level = if path.contains('.') { "###" } else { "##" };
        let mut section = format!("{level} {title}\n\n");
        if let Some(text) = description {
            let _ = writeln!(section, "{text}\n");
        }
        section.push_str("| field | value | meaning |\n|---|---|---|\n");
        for (name, field) in properties(object) {
            let below = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            let value = self.value(&below, field);
            let meaning = self.meaning(&below, field);
            let _ = writeln!(section, "| `{name}` | {} | {} |", cell(&value), cell(&meaning));
        }
        self.sections[place] = section;
        title.to_owned()
    }

    /// The values that a field takes; objects are linked to their sections.
    fn value(&mut self, path: &str, field: &Value) -> String {
        if let Some(value) = field.get("const") {
            return code(value);
        }
        if let Some(values) = field["enum"].as_array() {
            return any_of(values.iter().map(code).collect());
        }
        if let Some(branches) = field["oneOf"].as_array() {
            let values = branches.iter().map(|branch| self.branch(path, branch, branches));
            return any_of(values.collect());
        }
        let of_others = [("items", "array"), ("additionalProperties", "object")];
        if let Some((key, whole)) = of_others.into_iter().find(|(key, _)| field[key].is_object()) {
            return format!("{whole} of {}", self.branch(path, &field[key], &[]));
        }
        if field["properties"].is_object() {
            // The field's row has the description.
            return link("object", &self.object(path, path, field, None));
        }
        let name = field["type"].as_str().unwrap_or_default();
        format!("{name}{}", bounds(field))
    }

    /// One of the values that a field takes, or that its arrays hold.
    fn branch(&mut self, path: &str, branch: &Value, all: &[Value]) -> String {
        let description = branch["description"].as_str();
        match kind(branch) {
            Some(kind) if has_settings(branch) => {
                let title = title_of(path, kind);
                // A stage is the start of a path.
                let path = if path == "stages" { kind } else { path };
                link(
                    &format!("`{kind}`"),
                    &self.object(&title, path, branch, description),
                )
            }
            Some(kind) => format!("`{kind}`"),
            None if branch["properties"].is_object() => {
                link("object", &self.object(path, path, branch, description))
            }
            None if holds_these(branch, all) => "array of these".to_owned(),
            None => self.value(path, branch),
        }
    }

    /// The description of a field, followed by those of its values that have no section.
    fn meaning(&self, path: &str, field: &Value) -> String {
        let described = |schema: &Value| schema["description"].as_str().unwrap_or_default().to_owned();
        let mut text = described(field);
        for branch in field["oneOf"].as_array().into_iter().flatten() {
            let value = match kind(branch) {
                Some(kind) if self.titles.get(&fields_alone(branch)) == Some(&title_of(path, kind)) => {
                    continue;
                }
                Some(kind) => format!("`{kind}`"),
                None => branch.get("const").map(code).unwrap_or_default(),
            };
            if !value.is_empty() && branch["description"].is_string() {
                let _ = write!(text, "\n\n{value}: {}", described(branch));
            }
        }
        text
    }
}

/// The title of an object that a field takes.
fn title_of(path: &str, kind: &str) -> String {
    if path == "stages" {
        kind.to_owned()
    } else {
        format!("{path}: {kind}")
    }
}

fn properties(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let all = object["properties"].as_object().into_iter().flatten();
    all.filter(|(_, field)| field.get("const").is_none())
}

/// The `kind` of an object that has one.
fn kind(object: &Value) -> Option<&str> {
    object["properties"]["kind"]["const"].as_str()
}

/// Whether an object has more fields than its `kind`.
fn has_settings(object: &Value) -> bool {
    properties(object).next().is_some()
}

/// Whether a value is an array of the other values that a field takes.
fn holds_these(value: &Value, all: &[Value]) -> bool {
    let items = value["items"]["oneOf"].as_array();
    let is_other = |item: &Value| all.iter().any(|other| fields_alone(other) == fields_alone(item));
    items.is_some_and(|items| items.iter().all(is_other))
}

/// The limits of a number, but those of its type.
fn bounds(field: &Value) -> String {
    let is_of_type = |limit: &Value| {
        [u64::from(u32::MAX), (1 << 53) - 1]
            .map(Value::from)
            .contains(limit)
    };
    let number = |limit: &Value| limit.to_string().trim_end_matches(".0").to_owned();
    let most = field.get("maximum").filter(|limit| !is_of_type(limit));
    match (field.get("minimum"), most, field.get("exclusiveMinimum")) {
        (Some(least), Some(most), _) => format!(", {} to {}", number(least), number(most)),
        (Some(least), None, _) => format!(", at least {}", number(least)),
        (None, None, Some(limit)) => format!(", above {}", number(limit)),
        _ => String::new(),
    }
}

/// The schema of a value without its name and without the texts that differ between the fields that take it.
fn fields_alone(schema: &Value) -> String {
    let mut schema = schema.clone();
    let texts = ["title", "description", "default"];
    if let Some(object) = schema.as_object_mut() {
        object.retain(|key, _| !texts.contains(&key.as_str()));
        if let Some(Value::Object(fields)) = object.get_mut("properties") {
            fields.retain(|name, _| name != "kind");
        }
    }
    schema.to_string()
}

fn code(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| format!("`{value}`"), |text| format!("`{text}`"))
}

/// `a`, `b` or `c`.
fn any_of(mut values: Vec<String>) -> String {
    match values.pop() {
        Some(last) if values.is_empty() => last,
        Some(last) => format!("{} or {last}", values.join(", ")),
        None => String::new(),
    }
}

/// A link to a section of the page: the anchor is the title without signs, in small letters.
fn link(words: &str, title: &str) -> String {
    let anchor: String = title
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '_' | '-'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect();
    format!("[{words}](#{anchor})")
}

/// A text as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace("\n\n", "<br>")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Map;

    use super::*;
    use crate::shape::tests::EXAMPLES;

    #[test]
    fn field_table_names_the_command_that_regenerates_it() {
        assert!(HEAD.contains(REGENERATE_TABLE));
    }

    /// Calls `check` with the name and schema of every field.
    fn each_field(object: &Value, check: &mut impl FnMut(&str, &Value)) {
        for (name, field) in properties(object) {
            check(name, field);
        }
        for below in object["properties"].as_object().into_iter().flat_map(Map::values) {
            each_field(below, check);
        }
        for branch in object["oneOf"].as_array().into_iter().flatten() {
            each_field(branch, check);
        }
        for below in ["additionalProperties", "items"]
            .iter()
            .filter_map(|key| object.get(key))
        {
            each_field(below, check);
        }
    }

    #[test]
    fn field_table_has_a_section_for_every_link_and_a_row_for_every_field() {
        let page = field_table(EXAMPLES);
        let titles: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' '))
            .collect();
        let distinct: BTreeSet<&str> = titles.iter().copied().collect();
        assert_eq!(titles.len(), distinct.len(), "{titles:?}");
        let anchors: BTreeSet<String> = titles.iter().map(|title| link("", title)).collect();
        for part in page.split("](#").skip(1) {
            let anchor = part.split(')').next().unwrap();
            assert!(anchors.contains(&format!("[](#{anchor})")), "{anchor}");
        }
        let mut fields = 0;
        each_field(&schema(EXAMPLES), &mut |name, field| {
            fields += 1;
            let description = cell(field["description"].as_str().unwrap());
            let has = |line: &str| line.starts_with(&format!("| `{name}` | ")) && line.contains(&description);
            assert!(page.lines().any(has), "{name}: {description}");
            for branch in field["oneOf"].as_array().into_iter().flatten() {
                let description = branch["description"].as_str().unwrap_or_default();
                let is_there = page.contains(description) || page.contains(&cell(description));
                assert!(is_there, "{name}: {description}");
            }
        });
        assert!(fields > 100, "{fields}");
    }
}
