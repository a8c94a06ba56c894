//! A judge stage: its tables, and the divergence of each sampler against its network calls.

use std::path::Path;

use maud::{Markup, html};

use crate::error::Result;
use crate::report::chart::{Chart, Series};
use crate::report::parts::table;
use crate::stages::compare::TextBlock;
use crate::stages::judge::{Divergence, JudgedSamples, Judgements, blocks, label, sampler};

/// Colours of curves, then the same with dashes.
const CLASSES: [&str; 12] = [
    "curve0",
    "curve1",
    "curve2",
    "curve3",
    "curve4",
    "curve5",
    "curve0 dashed",
    "curve1 dashed",
    "curve2 dashed",
    "curve3 dashed",
    "curve4 dashed",
    "curve5 dashed",
];

/// The charts and tables of the measures in a folder.
///
/// # Errors
/// The measures cannot be read.
pub(super) fn section(folder: &Path) -> Result<Markup> {
    let found = Judgements::open(folder)?;
    let words = chart(&found, "words", |row| row.grammar.as_ref()?.unigrams);
    let pairs = chart(&found, "pairs of words", |row| row.grammar.as_ref()?.bigrams);
    let charts = [words.svg(), pairs.svg()];
    Ok(html! {
        @for svg in charts.into_iter().flatten() {
            div.scroll { (svg) }
        }
        @for block in &blocks(&found) {
            @match block {
                // The section has a heading.
                TextBlock::Heading(_) => {}
                TextBlock::Paragraph(text) => p.more { (text) },
                TextBlock::Table(rows) => (table(rows)),
            }
        }
    })
}

/// The divergence of each sampler from the source against its network calls a row, and that of fresh text of the source.
fn chart(found: &Judgements, what: &str, divergence: impl Fn(&JudgedSamples) -> Option<Divergence>) -> Chart {
    let mut samplers: Vec<Curve> = Vec::new();
    for row in &found.rows {
        let Some(value) = divergence(row) else { continue };
        let point = (row.network_calls, value);
        match samplers.iter_mut().find(|curve| is_same(curve.first, row)) {
            Some(curve) => curve.points.push(point),
            None => samplers.push(Curve {
                first: row,
                name: curve(found, row),
                points: vec![point],
            }),
        }
    }
    // Names are cut where settings are long.
    let names: Vec<String> = samplers.iter().map(|curve| curve.name.clone()).collect();
    for curve in &mut samplers {
        if names.iter().filter(|name| **name == curve.name).count() > 1 {
            curve.name = format!("{} ({})", curve.name, label(curve.first));
        }
    }
    let mut all: Vec<(f64, Divergence)> = samplers.iter().flat_map(|curve| curve.points.clone()).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = |ends: Option<(f64, f64)>| ends.map_or(f64::NAN, |(low, high)| (high - low) / 2.0);
    let mut series: Vec<Series> = samplers
        .into_iter()
        .zip(CLASSES.iter().cycle())
        .map(|(Curve { name, mut points, .. }, &class)| {
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Series {
                name: format!("{name}, 95% interval"),
                class,
                points: points
                    .iter()
                    .map(|(calls, found)| (*calls, found.samples.value))
                    .collect(),
                intervals: points
                    .iter()
                    .map(|(_, found)| half(found.samples.ends()))
                    .collect(),
            }
        })
        .collect();
    series.push(Series {
        name: "as much fresh text of the source, mean of 39 sets".into(),
        class: "level",
        points: all
            .iter()
            .map(|(calls, found)| (*calls, found.fresh.value))
            .collect(),
        intervals: vec![],
    });
    Chart {
        x_label: "network calls a row".into(),
        y_label: format!("divergence of {what}, nats"),
        series,
        reference_lines: vec![],
        logarithmic: true,
    }
}

/// A curve of a chart.
struct Curve<'a> {
    /// The first of its sample stages.
    first: &'a JudgedSamples,
    name: String,
    /// Network calls a row and divergences.
    points: Vec<(f64, Divergence)>,
}

/// Whether two sample stages differ in nothing but steps and seed, so that one curve has both.
fn is_same(a: &JudgedSamples, b: &JudgedSamples) -> bool {
    let key = |row: &JudgedSamples| (row.sampler, row.temperature, row.weights, row.model);
    key(a) == key(b) && a.objective == b.objective && a.settings == b.settings
}

/// What distinguishes a curve: the sampler with its settings, and what else is not the same in all but steps.
fn curve(found: &Judgements, row: &JudgedSamples) -> String {
    let differs = |of: &dyn Fn(&JudgedSamples) -> String| {
        let value = of(row);
        found.rows.iter().any(|other| of(other) != value).then_some(value)
    };
    let parts = [
        Some(sampler(row)),
        differs(&|row| row.objective.clone()),
        differs(&|row| row.model.map_or_else(String::new, |model| model.to_string()))
            .and(differs(&|row| row.name.clone().unwrap_or_default())),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A sample stage that differs from others in these fields.
    fn row(more: &Value) -> Value {
        let none = json!({ "value": 0.1, "low": null, "high": null });
        let divergence = json!({ "samples": none, "fresh": none });
        let mut row = json!({
            "point": {}, "objective": "mdlm", "sampler": { "kind": "cached" }, "temperature": 1.0, "weights": "ema",
            "steps": 2, "rows": 4, "network_calls": 2.0,
            "text": { "tokens": 9, "unigram_entropy": null, "distinct": [], "repetition": null, "self_bleu": null },
            "grammar": {
                "records": 1, "malformed": 0, "grammatical": 1, "distinct": 1, "share": null, "nats_per_record": null,
                "bits_per_byte": null, "unigrams": divergence, "bigrams": divergence, "lengths": null,
                "source": {
                    "entropy_nats_per_record": 1.0, "entropy_bits_per_byte": 1.0, "records": 9, "share": null,
                    "nats_per_record": null
                }
            }
        });
        let row_fields = row.as_object_mut().unwrap();
        row_fields.extend(more.as_object().unwrap().clone());
        row
    }

    /// The names of the curves of some sample stages, and how many points each has.
    fn curves(rows: &[Value]) -> Vec<(String, usize)> {
        let rows: Vec<Value> = rows.iter().map(row).collect();
        let found: Judgements = serde_json::from_value(json!({ "rows": rows })).unwrap();
        let chart = chart(&found, "words", |row| row.grammar.as_ref()?.unigrams);
        let curves = chart.series.iter().filter(|series| series.class != "level");
        let name = |name: &str| name.trim_end_matches(", 95% interval").to_owned();
        curves
            .map(|series| (name(&series.name), series.points.len()))
            .collect()
    }

    #[test]
    fn report_of_judge_has_a_curve_for_each_setting_of_sampling() {
        let more_steps = json!({ "steps": 4, "network_calls": 4.0 });
        assert_eq!(
            curves(&[json!({}), more_steps.clone()]),
            [("cached".to_owned(), 2)]
        );
        for (fields, name) in [
            (json!({ "temperature": 0.5 }), "cached, temperature 0.5"),
            (json!({ "weights": "raw" }), "cached, weights of the last step"),
            (json!({ "settings": { "top_k": 3 } }), "cached, top_k 3"),
            (json!({ "settings": { "top_p": 0.5 } }), "cached, top_p 0.5"),
            (json!({ "settings": { "min_p": 0.1 } }), "cached, min_p 0.1"),
            (
                json!({ "settings": { "repetition_penalty": 1.5 } }),
                "cached, repetition_penalty 1.5",
            ),
            (json!({ "settings": { "guidance": 2.0 } }), "cached, guidance 2.0"),
            (
                json!({ "settings": { "end_of_text": "never" } }),
                "cached, end_of_text never",
            ),
            (
                json!({ "settings": { "given_ends": true } }),
                "cached, given ends",
            ),
            (
                json!({ "settings": { "given": { "prompt": "a b" } } }),
                "cached, given prompt “a b”",
            ),
        ] {
            let mut later = fields.clone();
            later
                .as_object_mut()
                .unwrap()
                .extend(more_steps.as_object().unwrap().clone());
            assert_eq!(
                curves(&[json!({}), fields, more_steps.clone(), later]),
                [("cached".to_owned(), 2), (name.to_owned(), 2)]
            );
        }
    }

    #[test]
    fn report_of_judge_distinguishes_long_given_texts_by_their_stages() {
        let of = |stage: &str, end: &str| {
            let prompt = "long ".repeat(20) + end;
            json!({ "name": stage, "settings": { "given": { "prompt": prompt } } })
        };
        let shown = format!(
            "cached, given prompt “{}…",
            "long ".repeat(8).chars().take(38).collect::<String>()
        );
        assert_eq!(
            curves(&[of("one", "a"), of("two", "b"), of("two", "b")]),
            [(format!("{shown} (one)"), 1), (format!("{shown} (two)"), 2)]
        );
    }
}
