//! What sections of the report are made of: figures, settings, tables, provenance.

use maud::{Markup, html};
use serde_json::Value;

use super::stage::ReportedStage;
use crate::numbers;
use crate::plural::counted;
use crate::store::Record;

/// The stage's key figures as a row of cards.
pub(super) fn figures(figures: &[(String, String)]) -> Markup {
    html! {
        dl.figures {
            @for (name, value) in figures {
                div { dt { (name) } dd { (value) } }
            }
        }
    }
}

/// A stage's settings and inputs, from its record: overrides of the command line are in it.
pub(super) fn settings(record: &Record) -> Markup {
    let made = &record.provenance;
    let mut rows = stated(&made.config, record.key.seed);
    for file in &made.files {
        rows.push((
            "read".to_owned(),
            format!("{} ({})", file.path, file.digest.short()),
        ));
    }
    rows.push(("key".to_owned(), record.key.digest().to_string()));
    html! {
        details.settings {
            summary { "settings" }
            table { tbody {
                @for (name, value) in rows {
                    tr { th { (name) } td { (value) } }
                }
            } }
        }
    }
}

/// The settings with the seed that the stage drew by. A stage that states its seed has it among its settings; one that draws
/// by the pipeline's has it in its key alone.
fn stated(config: &Value, seed: Option<u64>) -> Vec<(String, String)> {
    let mut rows = leaves(config);
    if let Some(seed) = seed {
        rows.retain(|(name, _)| name != "seed");
        rows.push(("seed".to_owned(), seed.to_string()));
    }
    rows
}

/// The leaves of a JSON value, with their paths.
#[must_use]
pub fn leaves(value: &Value) -> Vec<(String, String)> {
    fn walk(path: &str, value: &Value, rows: &mut Vec<(String, String)>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let below = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    walk(&below, value, rows);
                }
            }
            Value::String(text) => rows.push((path.to_owned(), text.clone())),
            other => rows.push((path.to_owned(), other.to_string())),
        }
    }
    let mut rows = Vec::new();
    walk("", value, &mut rows);
    rows
}

/// A table from its cells, the heading first.
pub(super) fn table(rows: &[Vec<String>]) -> Markup {
    let (heading, rows) = rows.split_at(rows.len().min(1));
    html! {
        div.scroll { table {
            @for row in heading {
                tr { @for cell in row { th { (cell) } } }
            }
            @for row in rows {
                tr { @for cell in row { td { (cell) } } }
            }
        } }
    }
}

/// Which artifacts the report is made of, and where they were made.
pub(super) fn provenance(stages: &[ReportedStage<'_>]) -> Markup {
    html! {
        div.scroll { table {
            thead { tr {
                @for name in ["stage", "artifact", "started", "took", "peak memory", "where", "mdlm"] {
                    th { (name) }
                }
            } }
            tbody {
                @for stage in stages {
                    tr {
                        td { (stage.name) }
                        @match &stage.done {
                            Some((record, _)) => (origin(record)),
                            None => td colspan="6" { "not run" },
                        }
                    }
                }
            }
        } }
    }
}

/// The cells of an artifact in the table of provenance.
fn origin(record: &Record) -> Markup {
    let made = &record.provenance;
    let digest = record.artifact.to_string();
    let machine = made.machine.processor.as_deref().unwrap_or(&made.machine.system);
    html! {
        td { code title=(digest) { (digest.get(..12).unwrap_or(&digest)) } }
        td { (made.started) }
        td { (seconds(made.seconds)) }
        td { (made.peak_memory_bytes.map_or_else(String::new, numbers::bytes)) }
        td { (made.device) ", " (counted(made.threads, "thread")) ", " (machine) }
        td { (made.version) }
    }
}

/// A length in a drawing, to a tenth.
pub(super) fn tenths(length: f64) -> String {
    format!("{length:.1}")
}

/// A duration as a person says it.
pub(super) fn seconds(seconds: f64) -> String {
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_show_the_seed_once() {
        let seeds = |config: &Value, seed| -> Vec<String> {
            let rows = stated(config, seed).into_iter();
            rows.filter(|(name, _)| name == "seed")
                .map(|(_, value)| value)
                .collect()
        };
        assert_eq!(
            seeds(&serde_json::json!({ "steps": 5, "seed": 7 }), Some(7)),
            ["7"]
        );
        assert_eq!(seeds(&serde_json::json!({ "steps": 5 }), Some(7)), ["7"]);
        assert_eq!(seeds(&serde_json::json!({ "seed": null }), Some(7)), ["7"]);
        assert!(seeds(&serde_json::json!({ "steps": 5 }), None).is_empty());
    }

    #[test]
    fn durations_are_in_seconds_minutes_and_hours() {
        assert_eq!(seconds(0.04), "0.0 s");
        assert_eq!(seconds(59.7), "1 min 00 s");
        assert_eq!(seconds(12.2), "12 s");
        assert_eq!(seconds(3_725.0), "1 h 02 min");
    }
}
