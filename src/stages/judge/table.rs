//! The measures as tables: one a topic, a row a sample stage.

use serde_json::{Value, to_value};

use super::{Divergence, GrammarMeasures, JudgedSamples, Judgements};
use crate::evaluate::Interval;
use crate::manifest::Weights;
use crate::numbers;
use crate::plural::counted;
use crate::stages::compare::{TextBlock, cell, markdown_of};

/// Characters of a given text that are shown.
const LONGEST_GIVEN: usize = 40;

/// A sample stage as people read it: its name and its place in its sweep.
#[must_use]
pub fn label(samples: &JudgedSamples) -> String {
    let values = samples
        .point
        .iter()
        .map(|(field, value)| format!("{field}={}", cell(value)));
    let words: Vec<String> = samples.name.iter().cloned().chain(values).collect();
    words.join(" ")
}

/// Its sampler as people read it, with all settings of the sampling that have an effect, but for steps.
#[must_use]
pub fn sampler(samples: &JudgedSamples) -> String {
    let own = to_value(samples.sampler).ok();
    let own = own.as_ref().and_then(Value::as_object);
    let own = own.into_iter().flatten().filter(|(field, _)| *field != "kind");
    let own = own.map(|(field, value)| format!("{field} {}", cell(value)));
    let mut words: Vec<String> = std::iter::once(samples.sampler.kind().to_owned())
        .chain(own)
        .collect();
    if samples.temperature != 1.0 {
        words.push(format!("temperature {}", samples.temperature));
    }
    if samples.weights != Weights::default() {
        words.push("weights of the last step".to_owned());
    }
    for (field, value) in &samples.settings {
        words.push(match value {
            Value::Bool(true) => spelled(field),
            Value::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, value)| format!("{name} {}", short(value)));
                format!("{} {}", spelled(field), fields.collect::<Vec<_>>().join(" and "))
            }
            value => format!("{field} {}", cell(value)),
        });
    }
    words.join(", ")
}

/// A field's name as words.
fn spelled(field: &str) -> String {
    field.replace('_', " ")
}

/// A given text or its tokens, cut where they are long.
fn short(value: &Value) -> String {
    let text = match value {
        Value::String(text) => format!("“{text}”"),
        other => other.to_string(),
    };
    if text.chars().count() <= LONGEST_GIVEN {
        return text;
    }
    let cut: String = text.chars().take(LONGEST_GIVEN - 1).collect();
    format!("{cut}…")
}

/// A measure of a table: the heading of its column, and its cell.
type Measure<'a> = (&'static str, Box<dyn Fn(&JudgedSamples) -> String + 'a>);

/// The tables and what is said about them.
#[must_use]
pub fn blocks(found: &Judgements) -> Vec<TextBlock> {
    let rows = &found.rows;
    let mut blocks = vec![TextBlock::Heading(counted(rows.len(), "sample stage"))];
    if rows.iter().any(|row| row.grammar.is_some()) {
        blocks.push(topic(
            "Records against the grammar. Divergences are symmetric Kullback-Leibler divergences from the source in nats; \
             in brackets what as much fresh text of the source has, which is the value of a perfect sampler, with a \
             probability of 95%.",
        ));
        blocks.push(table(rows, of_grammar(rows)));
    }
    if rows.iter().any(|row| row.perplexity.is_some()) {
        blocks.push(topic(
            "Texts by an autoregressive model. Texts that repeat what is likely have a low perplexity and a low entropy.",
        ));
        blocks.push(table(rows, of_perplexity()));
    }
    blocks.push(topic(
        "Texts by themselves. Distinct n-grams fall and self-BLEU rises with the number of rows.",
    ));
    blocks.push(table(rows, of_text()));
    if rows.iter().any(|row| row.training.is_some()) {
        blocks.push(topic(
            "Texts against the training text: tokens of the longest n-gram that a row has in common with it.",
        ));
        blocks.push(table(rows, of_training(rows)));
    }
    blocks.push(topic(
        "Intervals are at 95%, clustered by row; numbers without one are exact. They cover the draw of the rows, not \
         another seed of training.",
    ));
    blocks
}

/// The tables as Markdown.
pub fn markdown(found: &Judgements) -> String {
    markdown_of(&blocks(found))
}

fn topic(text: &str) -> TextBlock {
    TextBlock::Paragraph(text.to_owned())
}

fn table(rows: &[JudgedSamples], measures: Vec<Measure<'_>>) -> TextBlock {
    let mut columns: Vec<Measure<'_>> = vec![
        ("samples", Box::new(label)),
        ("sampler", Box::new(sampler)),
        ("steps", Box::new(|row| row.steps.to_string())),
        (
            "network calls a row",
            Box::new(|row| format!("{:.1}", row.network_calls)),
        ),
    ];
    columns.extend(measures);
    let heading = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let lines = rows
        .iter()
        .map(|row| columns.iter().map(|(_, cell)| cell(row)).collect());
    TextBlock::Table(std::iter::once(heading).chain(lines).collect())
}

/// Stands in the place of an absent value.
const NONE: &str = "–";

fn shown(interval: Option<Interval>, decimals: usize) -> String {
    interval.map_or_else(|| NONE.to_owned(), |interval| interval.plus_minus(decimals))
}

fn percent(interval: Option<Interval>) -> String {
    interval.map_or_else(
        || NONE.to_owned(),
        |interval| {
            let Interval { value, low, high } = interval.map(|share| 100.0 * share);
            numbers::with_ends_in_cell(value, low.zip(high), 1, "%")
        },
    )
}

fn divergence(found: Option<Divergence>) -> String {
    let Some(Divergence { samples, fresh }) = found else {
        return NONE.to_owned();
    };
    let fresh = match fresh.ends() {
        Some((low, high)) => format!(" [{low:.4}–{high:.4}]"),
        None => String::new(),
    };
    format!("{}{fresh}", samples.plus_minus(4))
}

fn of_grammar(rows: &[JudgedSamples]) -> Vec<Measure<'static>> {
    fn of(cell: impl Fn(&GrammarMeasures) -> String + 'static) -> Box<dyn Fn(&JudgedSamples) -> String> {
        Box::new(move |row| row.grammar.as_ref().map_or_else(|| NONE.to_owned(), &cell))
    }
    let mut measures: Vec<Measure<'static>> = vec![
        ("records", of(|found| found.records.to_string())),
        ("grammatical", of(|found| percent(found.share))),
        (
            "−log p a grammatical record, nats",
            of(|found| shown(found.nats_per_record, 3)),
        ),
        (
            "entropy of the source (exact)",
            of(|found| format!("{:.3}", found.source.entropy_nats_per_record)),
        ),
        ("bits/byte", of(|found| shown(found.bits_per_byte, 4))),
        (
            "entropy of the source (exact), bits/byte",
            of(|found| format!("{:.4}", found.source.entropy_bits_per_byte)),
        ),
        ("divergence of words", of(|found| divergence(found.unigrams))),
        ("of pairs of words", of(|found| divergence(found.bigrams))),
        ("of lengths", of(|found| divergence(found.lengths))),
    ];
    // Where rows cut no record, the mean of fresh text differs from the entropy by chance alone.
    let wraps = rows.iter().filter_map(|row| row.grammar.as_ref()).any(|found| {
        let entropy = found.source.entropy_nats_per_record;
        let ends = found.source.nats_per_record.and_then(Interval::ends);
        ends.is_some_and(|(low, high)| entropy < low || high < entropy)
    });
    if wraps {
        measures.insert(
            4,
            (
                "−log p of fresh text in such rows",
                of(|found| shown(found.source.nats_per_record, 3)),
            ),
        );
    }
    measures
}

fn of_perplexity() -> Vec<Measure<'static>> {
    let none = || NONE.to_owned();
    vec![
        (
            "generative perplexity",
            Box::new(move |row| {
                row.perplexity
                    .as_ref()
                    .map_or_else(none, |found| found.perplexity.with_ends(3))
            }),
        ),
        (
            "variant",
            Box::new(move |row| {
                let variant = row
                    .perplexity
                    .as_ref()
                    .map(|found| found.variant.name().to_owned());
                variant.unwrap_or_else(none)
            }),
        ),
        (
            "scored tokens",
            Box::new(move |row| {
                let tokens = row.perplexity.as_ref().map(|found| found.tokens.to_string());
                tokens.unwrap_or_else(none)
            }),
        ),
        (
            "nats/byte",
            Box::new(|row| shown(row.perplexity.as_ref().and_then(|found| found.nats_per_byte), 4)),
        ),
        (
            "unigram entropy, nats",
            Box::new(|row| shown(row.text.unigram_entropy, 3)),
        ),
    ]
}

fn of_text() -> Vec<Measure<'static>> {
    const DISTINCT: [&str; 4] = ["distinct-1", "distinct-2", "distinct-3", "distinct-4"];
    let mut measures: Vec<Measure<'static>> = vec![
        ("rows", Box::new(|row| row.rows.to_string())),
        (
            "unigram entropy, nats",
            Box::new(|row| shown(row.text.unigram_entropy, 3)),
        ),
    ];
    for (place, name) in DISTINCT.into_iter().enumerate() {
        measures.push((
            name,
            Box::new(move |row| shown(row.text.distinct.get(place).copied().flatten(), 4)),
        ));
    }
    measures.push(("repetition", Box::new(|row| shown(row.text.repetition, 4))));
    measures.push(("self-BLEU", Box::new(|row| shown(row.text.self_bleu, 4))));
    measures
}

fn of_training(rows: &[JudgedSamples]) -> Vec<Measure<'static>> {
    let least = rows
        .iter()
        .find_map(|row| row.training)
        .map_or(0, |found| found.verbatim_tokens);
    vec![
        (
            "common n-gram, mean",
            Box::new(|row| shown(row.training.and_then(|found| found.common), 1)),
        ),
        (
            "longest",
            Box::new(|row| {
                row.training
                    .map_or_else(|| NONE.to_owned(), |found| found.longest.to_string())
            }),
        ),
        (
            "rows that repeat verbatim",
            Box::new(move |row| {
                let share = row.training.and_then(|found| found.verbatim);
                format!("{} (≥ {})", percent(share), counted(least, "token"))
            }),
        ),
    ]
}

/// The key figures: of one sample stage its values, of several how many there are and which has the lowest divergence of
/// pairs of words and the lowest perplexity.
pub fn figures(found: &Judgements) -> Vec<(String, String)> {
    let mut figures: Vec<(String, String)> = Vec::new();
    let mut figure = |name: &str, value: String| figures.push((name.to_owned(), value));
    if let [row] = &*found.rows {
        if let Some(grammar) = &row.grammar {
            figure(
                "grammatical",
                format!(
                    "{} of {}",
                    percent(grammar.share),
                    counted(grammar.records, "record")
                ),
            );
            figure(
                "divergence of words",
                format!("{} nats", divergence(grammar.unigrams)),
            );
        }
        if let Some(perplexity) = &row.perplexity {
            figure(
                "generative perplexity",
                format!(
                    "{} ({})",
                    perplexity.perplexity.with_ends(3),
                    perplexity.variant.name()
                ),
            );
        }
        figure(
            "unigram entropy",
            format!("{} nats", shown(row.text.unigram_entropy, 3)),
        );
        if let Some(training) = row.training {
            figure("verbatim rows", percent(training.verbatim));
        }
        return figures;
    }
    figure("sample stages", found.rows.len().to_string());
    let lowest = |value: &dyn Fn(&JudgedSamples) -> Option<Interval>| {
        let measured = found.rows.iter().filter_map(|row| Some((row, value(row)?)));
        measured.min_by(|a, b| a.1.value.total_cmp(&b.1.value))
    };
    let bigrams = |row: &JudgedSamples| Some(row.grammar.as_ref()?.bigrams?.samples);
    if let Some((row, value)) = lowest(&bigrams) {
        let value = format!("{} nats, {}", value.plus_minus(4), label(row));
        figure("lowest divergence of pairs of words", value);
    }
    let perplexity = |row: &JudgedSamples| Some(row.perplexity.as_ref()?.perplexity);
    if let Some((row, value)) = lowest(&perplexity) {
        let entropy = shown(row.text.unigram_entropy, 3);
        let value = format!("{}, {}, entropy {entropy} nats", value.with_ends(3), label(row));
        figure("lowest generative perplexity", value);
    }
    figures
}
