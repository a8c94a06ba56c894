//! The rows of a table, or its groups where it has groups, by their places: what stands for each, what it is called, and
//! whether it compares with the first.

use super::group::Group;
use super::{Row, compare, fields, title};
use crate::manifest::Metric;

/// What stands for each row or group of a table: of a group its first row that has the metric.
pub(super) fn heads<'a>(rows: &[&'a Row], groups: Option<&[Group]>, by: Metric) -> Vec<&'a Row> {
    let Some(groups) = groups else {
        return rows.to_vec();
    };
    let head = |group: &Group| {
        let measured = group.rows.iter().find(|&&row| rows[row].metric(by).is_some());
        rows[*measured.unwrap_or(&group.rows[0])]
    };
    groups.iter().map(head).collect()
}

/// What each row or group of a table is called, by its place.
pub(super) fn titles<'a>(rows: &'a [&'a Row], groups: Option<&'a [Group]>) -> impl Fn(usize) -> String + 'a {
    let (differ, _) = fields(rows);
    let named = match groups {
        None => differ.is_empty() || rows.iter().any(|row| row.name != rows[0].name),
        Some(groups) => groups.iter().any(|group| group.name != groups[0].name),
    };
    move |place| {
        let (name, point) = match groups {
            None => (&rows[place].name, &rows[place].point),
            Some(groups) => (&groups[place].name, &groups[place].point),
        };
        match title(name.as_deref().filter(|_| named), point, &differ) {
            none if none.is_empty() && place == 0 => "the first".to_owned(),
            none if none.is_empty() => "the defaults".to_owned(),
            title => title,
        }
    }
}

/// The rows that compare with the first, which has the metric, by their places.
pub(super) fn comparable(rows: &[&Row], by: Metric) -> Vec<usize> {
    let same = |row: &Row| row.published == rows[0].published && compare(by, row, rows[0]);
    (0..rows.len())
        .filter(|&place| rows[place].metric(by).is_some() && same(rows[place]))
        .collect()
}
