//! Differences from the first row or group of a table, row by row of the text that both were measured on.

use serde::{Deserialize, Serialize};

use super::group::{Group, distinct};
use super::places::{comparable, heads, titles};
use super::{Row, are_signed, metric};
use crate::evaluate::{Interval, LossesByRow, Quantity, difference};
use crate::manifest::Metric;

/// The losses of a result row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Losses {
    /// In nats.
    pub by_row: LossesByRow,
    /// Bytes of text per valid token.
    pub bytes_per_token: f64,
}

/// How much a row or a group has more than the first.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The place of the row, or of the group where there are groups.
    pub place: usize,
    /// The difference in bits per byte, positive where the first is better, with its 95% interval.
    pub bits_per_byte: Interval,
}

/// The differences of a table in order by a metric; of groups between the means over seeds. Only of those that compare with
/// the first and were measured on the same rows.
pub(super) fn differences(rows: &[&Row], groups: Option<&[Group]>, by: Metric) -> Vec<Difference> {
    if !is_of_likelihood(by) {
        return Vec::new();
    }
    let losses = |place: usize| -> Option<Vec<&Losses>> {
        let results = groups.map_or_else(|| vec![place], |groups| distinct(rows, &groups[place].rows));
        results
            .into_iter()
            .map(|row| rows[row].losses.as_deref())
            .collect()
    };
    let comparable = comparable(&heads(rows, groups, by), by);
    let Some((&first, others)) = comparable.split_first() else {
        return Vec::new();
    };
    let found = others.iter().filter_map(|&place| {
        let (first, other) = losses(first).zip(losses(place))?;
        let nats = difference(&by_row(&other), &by_row(&first))?;
        let bits = first.first()?.bytes_per_token * std::f64::consts::LN_2;
        Some(Difference {
            place,
            bits_per_byte: nats.map(|nats| nats / bits),
        })
    });
    found.collect()
}

fn by_row<'a>(of: &[&'a Losses]) -> Vec<&'a LossesByRow> {
    of.iter().map(|losses| &losses.by_row).collect()
}

/// Whether a lower value is a higher likelihood of the text.
fn is_of_likelihood(by: Metric) -> bool {
    by.is_of_text() && by != Metric::PseudoPerplexity
}

/// The differences as a table has them: a sentence, and what each row or group is called with its difference.
#[must_use]
pub fn shown(
    rows: &[&Row],
    groups: Option<&[Group]>,
    by: Metric,
    differences: &[Difference],
) -> Option<(String, Vec<Vec<String>>)> {
    if differences.is_empty() {
        return None;
    }
    let heads = heads(rows, groups, by);
    let called = titles(rows, groups);
    let signed = are_signed(rows);
    let lines = differences.iter().map(|Difference { place, bits_per_byte }| {
        let sign = match (heads[0].quantity, heads[*place].quantity) {
            (Quantity::Exact, Quantity::Bound) if signed => "≤ ",
            (Quantity::Bound, Quantity::Exact) if signed => "≥ ",
            _ => "",
        };
        let value = metric::shown(Metric::BitsPerByte, *bits_per_byte);
        vec![called(*place), format!("{sign}{value}")]
    });
    let over = if groups.is_some() {
        ", of means over seeds"
    } else {
        ""
    };
    let sentence = format!(
        "Difference from {} in bits per byte, row by row of the same text{over}; the 95% interval covers the choice of rows and \
         the noise, not another seed of training:",
        called(0)
    );
    let heading = ["result", "difference"].map(str::to_owned).to_vec();
    Some((sentence, std::iter::once(heading).chain(lines).collect()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::table::table;
    use super::super::tests::one::{markdown, parse};
    use super::super::{Comparison, tests::row};
    use super::*;
    use crate::manifest::{Seed, StageKind};
    use crate::store::Digest;

    /// Losses of ten rows of two tokens and four bytes: the rows differ by far more than the models, of which this one has
    /// `more` bits per byte.
    fn losses(more: f64, text: &str) -> Arc<Losses> {
        let bits = |row: u32| 4.0 * (f64::from(row * 7 % 10) + more);
        Arc::new(Losses {
            by_row: LossesByRow {
                rows: (0..10).collect(),
                nats: (0..10).map(|row| bits(row) * std::f64::consts::LN_2).collect(),
                valid_tokens: vec![2; 10],
                text: Digest::of(text.as_bytes()),
            },
            bytes_per_token: 2.0,
        })
    }

    /// A result with a wide interval.
    fn result(name: &str, bits: f64, text: &str) -> Row {
        Row {
            losses: Some(losses(bits, text)),
            ..row(Some(name), &json!({}), Some((bits, 0.5)))
        }
    }

    #[test]
    fn differences_row_by_row_decide_where_intervals_overlap() {
        let on_one_text = Comparison::of(vec![result("b", 1.25, "text"), result("a", 1.0, "text")], None);
        let [Difference { place, bits_per_byte }] = on_one_text.differences[..] else {
            panic!("{:?}", on_one_text.differences);
        };
        assert_eq!(place, 1);
        assert!((bits_per_byte.value - 0.25).abs() < 1e-12, "{bits_per_byte:?}");
        let verdict = on_one_text.verdict.unwrap();
        assert!(verdict.is_best(), "{}", verdict.sentence());

        let on_others = Comparison::of(vec![result("b", 1.25, "other"), result("a", 1.0, "text")], None);
        assert_eq!(on_others.differences, []);
        assert!(!on_others.verdict.unwrap().is_best());
    }

    #[test]
    fn differences_row_by_row_are_read_from_the_table() {
        let mut exact = result("exact", 1.0, "text");
        exact.quantity = Quantity::Exact;
        let found = Comparison::of(vec![result("bound", 1.5, "text"), exact], None);
        let read = parse(&serde_json::to_string(&table(&found)).unwrap()).unwrap();
        assert_eq!(read.differences, found.differences);
        assert_eq!(read.verdict, found.verdict);
        let text = markdown(&found);
        assert_eq!(markdown(&read), text);
        let line = "| bound | ≤ 0.5000 ± 0.0000 |";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn differences_row_by_row_of_groups_are_of_means_over_seeds() {
        let of = |setting: usize, seed: u64, bits: f64| {
            let seeds = vec![Seed {
                label: "seed".to_owned(),
                kinds: vec![StageKind::Train],
                value: seed,
            }];
            let mut row = result(["a", "b"][setting], bits, "text");
            row.place(setting, seeds);
            row
        };
        let rows = vec![of(0, 1, 1.0), of(0, 2, 1.5), of(1, 1, 1.75), of(1, 2, 2.25)];
        let found = Comparison::of(rows.clone(), None);
        let [Difference { place, bits_per_byte }] = found.differences[..] else {
            panic!("{:?}", found.differences);
        };
        assert_eq!(place, 1);
        assert!((bits_per_byte.value - 0.75).abs() < 1e-12, "{bits_per_byte:?}");

        // A group of which one result has no losses has no difference.
        let mut without = rows;
        without[3].losses = None;
        assert_eq!(Comparison::of(without, None).differences, []);
    }

    #[test]
    fn differences_row_by_row_name_a_result_without_settings_the_defaults() {
        let of = |point: serde_json::Value, bits: f64| Row {
            losses: Some(losses(bits, "text")),
            ..row(None, &point, Some((bits, 0.5)))
        };
        let rows = vec![
            of(json!({ "objective": { "kind": "mdlm", "steps": 8 } }), 1.25),
            of(
                json!({ "objective": { "kind": "mdlm", "steps": 8, "carry_over": false } }),
                1.0,
            ),
        ];
        let found = Comparison::of(rows, None);
        let all: Vec<&Row> = found.rows.iter().collect();
        let (sentence, cells) = shown(&all, None, Metric::BitsPerByte, &found.differences).unwrap();
        assert!(
            sentence.starts_with("Difference from objective.carry_over false in"),
            "{sentence}"
        );
        assert_eq!(cells[1], ["the defaults", "0.2500 ± 0.0000"]);
    }

    #[test]
    fn differences_row_by_row_are_of_likelihoods() {
        let found = Comparison::of(
            vec![result("b", 1.25, "text"), result("a", 1.0, "text")],
            Some(Metric::Grammatical),
        );
        assert_eq!(found.differences, []);
    }
}
