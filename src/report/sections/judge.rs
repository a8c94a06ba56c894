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
    let mut samplers: Vec<(String, Vec<(f64, Divergence)>)> = Vec::new();
    for row in &found.rows {
        let Some(value) = divergence(row) else { continue };
        let name = curve(found, row);
        let point = (row.network_calls, value);
        match samplers.iter_mut().find(|(other, _)| *other == name) {
            Some((_, points)) => points.push(point),
            None => samplers.push((name, vec![point])),
        }
    }
    let mut all: Vec<(f64, Divergence)> = samplers.iter().flat_map(|(_, points)| points.clone()).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = |ends: Option<(f64, f64)>| ends.map_or(f64::NAN, |(low, high)| (high - low) / 2.0);
    let mut series: Vec<Series> = samplers
        .into_iter()
        .zip(CLASSES.iter().cycle())
        .map(|((name, mut points), &class)| {
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

/// What distinguishes a curve: the sampler, and what else is not the same in all but steps.
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
        differs(&|row| format!("temperature {}", row.temperature)),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match &*parts.join(", ") {
        "" => label(row),
        name => name.to_owned(),
    }
}
