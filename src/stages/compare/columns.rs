//! The columns of swept fields. Objects that are not the same in all rows are split: a column shows their kinds, and one
//! column each of their fields.

use indexmap::IndexSet;
use serde_json::{Map, Value};

use super::group::Group;
use super::{KIND, Row, cell};
use crate::manifest::Point;

/// A column of swept values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its heading: `objective`, `objective.noise.epsilon`.
    pub label: String,
    /// Whether further columns show the fields of its objects: it shows their kinds alone.
    is_split: bool,
}

impl Column {
    /// The value of a row or a group; nothing where it has none.
    #[must_use]
    pub fn value<'a>(&self, point: &'a Point) -> Option<&'a Value> {
        match at(point.iter(), &self.label)? {
            Value::Object(fields) if self.is_split && !fields.is_empty() => fields.get(KIND),
            other => Some(other),
        }
    }

    /// The same as people read it; empty where there is none.
    #[must_use]
    pub fn cell(&self, point: &Point) -> String {
        self.value(point).map_or_else(String::new, cell)
    }

    /// Whether some group has a value: its rows differ in seeds alone, which it does not have.
    #[must_use]
    pub fn is_of(&self, groups: &[Group]) -> bool {
        groups.iter().any(|group| self.value(&group.point).is_some())
    }

    /// Whether all rows have one value.
    fn is_same(&self, rows: &[&Row]) -> bool {
        let first = self.value(&rows[0].point);
        let mut others = rows.iter().map(|row| self.value(&row.point));
        rows.len() > 1 && first.is_some() && others.all(|other| other == first)
    }
}

/// The columns of swept fields: those that differ, and those that are the same in all rows.
#[must_use]
pub fn fields(rows: &[&Row]) -> (Vec<Column>, Vec<Column>) {
    let mut columns = Vec::new();
    let labels: IndexSet<&String> = rows.iter().flat_map(|row| row.point.keys()).collect();
    for label in labels {
        add(rows, label, &mut columns);
    }
    columns.into_iter().partition(|column| !column.is_same(rows))
}

/// Adds the column of a label and, where its objects differ, those of their fields.
fn add(rows: &[&Row], label: &str, columns: &mut Vec<Column>) {
    if columns.iter().any(|column| column.label == label) {
        return;
    }
    let values: Vec<Option<&Value>> = rows.iter().map(|row| at(row.point.iter(), label)).collect();
    let objects = values.iter().flatten().filter_map(|value| value.as_object());
    let names: IndexSet<&String> = objects.flat_map(Map::keys).collect();
    let is_split = !names.is_empty() && values.iter().any(|value| *value != values[0]);
    let column = Column {
        label: label.to_owned(),
        is_split,
    };
    // Objects without a kind have fields alone.
    if rows.iter().any(|row| column.value(&row.point).is_some()) {
        columns.push(column);
    }
    for name in names.into_iter().filter(|name| is_split && *name != KIND) {
        add(rows, &format!("{label}.{name}"), columns);
    }
}

/// The value that a path of names leads to, a name by itself or followed by those of fields within: names may have dots.
fn at<'a>(fields: impl Iterator<Item = (&'a String, &'a Value)>, path: &str) -> Option<&'a Value> {
    let mut within = None;
    for (name, value) in fields {
        match path.strip_prefix(name.as_str()) {
            Some("") => return Some(value),
            Some(rest) => {
                let rest = rest.strip_prefix('.').zip(value.as_object());
                within = within.or_else(|| rest.and_then(|(rest, fields)| at(fields.iter(), rest)));
            }
            None => {}
        }
    }
    within
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What the columns of some places show, by label: those that differ, and those that are the same.
    fn shown(points: &[Value]) -> [Vec<(String, Vec<String>)>; 2] {
        let row = |point: &Value| Row {
            point: point.as_object().unwrap().clone().into_iter().collect(),
            ..Row::default()
        };
        let rows: Vec<Row> = points.iter().map(row).collect();
        let (differ, same) = fields(&rows.iter().collect::<Vec<_>>());
        [differ, same].map(|columns| {
            let cells = |column: &Column| rows.iter().map(|row| column.cell(&row.point)).collect();
            columns
                .iter()
                .map(|column| (column.label.clone(), cells(column)))
                .collect()
        })
    }

    fn column(label: &str, cells: &[&str]) -> (String, Vec<String>) {
        (
            label.to_owned(),
            cells.iter().map(|&cell| cell.to_owned()).collect(),
        )
    }

    #[test]
    fn objects_that_differ_have_a_column_for_each_field() {
        let noise = |epsilon: f64| json!({ "kind": "linear", "epsilon": epsilon });
        let [differ, same] = shown(&[
            json!({ "o": { "kind": "mdlm", "noise": noise(0.5), "times": "even" }, "s": { "a": 1 } }),
            json!({ "o": { "kind": "mdlm", "noise": noise(0.25), "times": "even" }, "s": { "a": 1 } }),
            json!({ "o": { "kind": "mdlm", "noise": noise(0.5), "steps": 4, "times": "even" }, "s": { "a": 1 } }),
        ]);
        assert_eq!(
            differ,
            [
                column("o.noise.epsilon", &["0.5", "0.25", "0.5"]),
                column("o.steps", &["", "", "4"])
            ]
        );
        assert_eq!(
            same,
            [
                column("o", &["mdlm"; 3]),
                column("o.noise", &["linear"; 3]),
                column("o.times", &["even"; 3]),
                column("s", &[r#"{"a":1}"#; 3])
            ]
        );
        // Without kinds, without fields, without a value; beside a field that another sweep names.
        let [differ, same] = shown(&[
            json!({ "o": { "a.b": 1 }, "p.c": 1 }),
            json!({ "o": null, "p": { "c": 2 } }),
            json!({ "o": {}, "p": { "c": 3 } }),
            json!({ "p": { "c": 3 } }),
        ]);
        assert_eq!(
            differ,
            [
                column("o", &["", "default", "{}", ""]),
                column("o.a.b", &["1", "", "", ""]),
                column("p.c", &["1", "2", "3", "3"])
            ]
        );
        assert!(same.is_empty());
    }
}
