//! Which results are on one text: others are not ranked with each other.
//!
//! Two evaluations are on one text where the splits that their rows are of have as many records and as many bytes, and both score
//! all of it or last words alone: then the tokenizer and the packing may differ, as may which of the rows were drawn, since
//! intervals cover that choice. An evaluation states that where some of the split is in no row, or where the rows begin with
//! context. Of others, those with one tokenizer are on one text where the digests of their rows are the same; those with two
//! are taken to be, as nothing says that they are not.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Row;
use crate::evaluate::LossesByRow;
use crate::manifest::Scored;
use crate::plural::counted;
use crate::stages::evaluate::Evaluation;
use crate::store::Digest;

/// The text of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedText {
    /// Records and bytes of the split, separators included; nothing where the evaluation does not state them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<[u64; 2]>,
    /// Whether the last words of its records alone were scored; `false` where absent.
    #[serde(default, skip_serializing_if = "crate::data::is_false")]
    pub last_words: bool,
    /// The digest of the evaluated rows ([`LossesByRow::text`]); nothing where they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Digest>,
}

impl ComparedText {
    pub(super) fn of(found: &Evaluation, losses: Option<&LossesByRow>) -> Option<Self> {
        let text = Self {
            split: found.text.map(|text| [text.records, text.bytes]),
            last_words: found.scored == Scored::LastWord,
            rows: losses.map(|losses| losses.text),
        };
        (text.split.is_some() || text.rows.is_some()).then_some(text)
    }

    /// Whether both are one text, of tokenizers that are the same or not.
    fn is(self, other: Self, same_tokenizer: bool) -> bool {
        match (self.split, other.split) {
            (Some(own), Some(others)) => own == others && self.last_words == other.last_words,
            _ if same_tokenizer => self.rows.is_some() && self.rows == other.rows,
            // Their rows differ whatever the text.
            _ => self.last_words == other.last_words,
        }
    }
}

impl fmt::Display for ComparedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.split, self.rows) {
            (Some([records, bytes]), _) => {
                let last = if self.last_words { "the last words of " } else { "" };
                write!(
                    f,
                    "{last}{}, {}",
                    counted(records, "record"),
                    counted(bytes, "byte")
                )
            }
            (None, Some(rows)) => write!(f, "rows {}", rows.short()),
            (None, None) => f.write_str("not known"),
        }
    }
}

/// The rows by their texts, each text where its first row is. Rows of one setting stay together: seeds may choose the text,
/// and a mean over seeds is over their texts. Where there is one text, or none is known, all rows are together; else those
/// without a text come last.
#[must_use]
pub fn by_text<T: AsRef<Row>>(rows: Vec<T>) -> Vec<Vec<T>> {
    let mut of: Vec<Option<usize>> = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let row = row.as_ref();
        let same = |other: &Row| {
            let setting = row.setting.is_some() && row.setting == other.setting;
            setting || {
                let same_tokenizer = row.tokenizer == other.tokenizer;
                row.text
                    .zip(other.text)
                    .is_some_and(|(a, b)| a.is(b, same_tokenizer))
            }
        };
        // All that it has in common something with are one, under the first of their numbers.
        let mut alike: Vec<usize> = (0..index)
            .filter(|&before| same(rows[before].as_ref()))
            .filter_map(|before| of[before])
            .collect();
        alike.sort_unstable();
        let own = alike.first().copied().or(row.text.map(|_| index));
        for known in &mut of {
            if known.is_some_and(|known| alike.contains(&known)) {
                *known = own;
            }
        }
        of.push(own);
    }
    let mut texts: Vec<usize> = of.iter().flatten().copied().collect();
    texts.sort_unstable();
    texts.dedup();
    if texts.len() < 2 {
        return vec![rows];
    }
    let mut tables: Vec<Vec<T>> = (0..=texts.len()).map(|_| Vec::new()).collect();
    for (row, text) in rows.into_iter().zip(of) {
        let place = text.and_then(|text| texts.binary_search(&text).ok());
        tables[place.unwrap_or(texts.len())].push(row);
    }
    tables.retain(|table| !table.is_empty());
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, split: Option<[u64; 2]>, rows: Option<&str>) -> Row {
        let text = ComparedText {
            split,
            last_words: false,
            rows: rows.map(|rows| Digest::of(rows.as_bytes())),
        };
        Row {
            name: Some(name.to_owned()),
            text: Some(text).filter(|_| split.is_some() || rows.is_some()),
            ..Row::default()
        }
    }

    fn names(rows: Vec<Row>) -> Vec<String> {
        let of = |table: Vec<Row>| {
            let names = table.into_iter().filter_map(|row| row.name);
            names.collect::<Vec<_>>().join(" ")
        };
        by_text(rows).into_iter().map(of).collect()
    }

    #[test]
    fn texts_differ_by_their_splits_else_by_their_rows() {
        let (ptb, lm1b) = (Some([10, 200]), Some([10, 300]));
        let rows = vec![
            row("a", ptb, Some("1")),
            row("b", lm1b, Some("2")),
            // Another tokenizer or packing.
            row("c", ptb, Some("3")),
            // Of an older version, on the same rows as b, and on others.
            row("d", None, Some("2")),
            row("e", None, Some("4")),
            row("not run", None, None),
        ];
        assert_eq!(names(rows.clone()), ["a c", "b d", "e", "not run"]);
        assert_eq!(names(vec![rows[0].clone(), rows[5].clone()]), ["a not run"]);
        assert_eq!(names(vec![rows[5].clone(); 2]), ["not run not run"]);
        assert_eq!(names(vec![]), [""]);
        // Of two tokenizers, whose rows differ in any case.
        let of_tokenizer = |name: &str, rows: &str| Row {
            tokenizer: Some(Digest::of(name.as_bytes())),
            ..row(name, None, Some(rows))
        };
        assert_eq!(
            names(vec![of_tokenizer("x", "1"), of_tokenizer("y", "2")]),
            ["x y"]
        );
        let mut last = rows[2].clone();
        last.text.as_mut().unwrap().last_words = true;
        assert_eq!(names(vec![rows[0].clone(), last]), ["a", "c"]);
    }

    #[test]
    fn texts_that_seeds_choose_stay_together() {
        let of = |name: &str, setting: usize, bytes: u64| Row {
            setting: Some(setting),
            ..row(name, Some([10, bytes]), None)
        };
        let rows = vec![
            of("a1", 0, 1),
            of("b2", 1, 2),
            of("a2", 0, 2),
            of("b1", 1, 1),
            of("c3", 2, 3),
        ];
        assert_eq!(names(rows), ["a1 b2 a2 b1", "c3"]);
    }
}
