//! A pipeline's results as one HTML file: the graph, training curves, bounds, samples, provenance.
//!
//! The file is self-contained, without scripts, fonts or images from elsewhere, so that it can be mailed, archived and
//! opened in ten years. It shows the contents of artifacts and their records, and computes only a running mean for the
//! curves. Means over seeds come from compare stages.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

use crate::data::files::own::GENERATOR;
use crate::data::{RowsInfo, Unit};
use crate::error::{Context, Kind, Result, Wrap};
use crate::manifest::StageKind;
use crate::plural::counted;
use crate::stages::compare::{Block, Comparison, blocks};
use crate::stages::trained::ModelInfo;
use crate::store::Record;
use crate::train::{Validation, ValidationLine};

pub mod chart;
pub mod dag;

use chart::{Chart, ReferenceLine, Series, escape};

/// A stage of the report, in topological order.
#[derive(Debug)]
pub struct Stage<'a> {
    /// Its name, as an instance where it is one of a sweep.
    pub name: &'a str,
    /// Its name in the manifest: that of the swept stage.
    pub written: &'a str,
    /// Its kind.
    pub kind: StageKind,
    /// The stages that it consumes, by their place in the list.
    pub inputs: Vec<usize>,
    /// Its record and its artifact's folder, when it has run.
    pub done: Option<(&'a Record, PathBuf)>,
    /// The record's key figures, with what a plan counts anew.
    pub figures: Vec<(String, String)>,
}

/// Sampled rows shown at most.
const SAMPLES: usize = 10;
/// Steps of the running mean over the loss to each side, as a share of the curve.
const SMOOTHING: f64 = 0.02;

/// The report as one HTML document.
///
/// # Errors
/// An artifact's file that cannot be read or is not what its stage writes.
pub fn html(title: &str, description: Option<&str>, stages: &[Stage<'_>]) -> Result<String> {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">{GENERATOR}\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{0} — mdlm report</title><style>{STYLE}</style></head><body><main>\n<h1>{0}</h1>\n",
        escape(title)
    );
    if let Some(description) = description {
        let _ = writeln!(out, "<p class=\"lead\">{}</p>", escape(description));
    }
    let _ = writeln!(out, "<div class=\"scroll\">{}</div>", dag::svg(&nodes(stages)));
    // Tables first: the instances of a sweep are looked at one by one, if at all.
    let (tables, others): (Vec<_>, Vec<_>) =
        stages.iter().partition(|stage| stage.kind == StageKind::Compare);
    for stage in tables.into_iter().chain(others) {
        let Some((record, folder)) = &stage.done else {
            continue;
        };
        let section = match stage.kind {
            StageKind::Train => train(stage, stages, folder)?,
            StageKind::Sample => samples(folder)?,
            StageKind::Compare => compared(folder)?,
            _ => String::new(),
        };
        let heading = format!(
            "<h2>{} <span class=\"kind\">{}</span></h2>",
            escape(stage.name),
            stage.kind.name()
        );
        let (figures, settings) = (figures(&stage.figures), settings(record));
        let _ = if stage.name == stage.written {
            write!(
                out,
                "<section>{heading}\n{figures}{section}{settings}</section>\n"
            )
        } else {
            write!(
                out,
                "<section><details><summary>{heading}</summary>\n{figures}{section}{settings}</details></section>\n"
            )
        };
    }
    let _ = write!(
        out,
        "<section><h2>Provenance</h2>\n{}</section>\n</main></body></html>\n",
        provenance(stages)
    );
    Ok(out)
}

/// The nodes of the graph: one for all instances of a swept stage.
fn nodes(stages: &[Stage<'_>]) -> Vec<dag::Node> {
    let mut names: Vec<&str> = Vec::new();
    for stage in stages {
        if !names.contains(&stage.written) {
            names.push(stage.written);
        }
    }
    let place = |stage: &Stage<'_>| names.iter().position(|name| *name == stage.written);
    names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let all: Vec<_> = stages.iter().filter(|stage| stage.written == *name).collect();
            let mut inputs: Vec<usize> = all
                .iter()
                .flat_map(|stage| &stage.inputs)
                .filter_map(|input| place(&stages[*input]))
                // A stage that consumes an instance of another, which consumes it in turn: no column shows that.
                .filter(|input| *input < index)
                .collect();
            inputs.sort_unstable();
            inputs.dedup();
            let kind = all.first().map_or("", |stage| stage.kind.name());
            let swept = all.iter().any(|stage| stage.name != stage.written);
            let times = if swept {
                format!(" ×{}", all.len())
            } else {
                String::new()
            };
            let took: Vec<f64> = all
                .iter()
                .filter_map(|stage| stage.done.as_ref())
                .map(|(record, _)| record.provenance.seconds)
                .collect();
            let state = if took.is_empty() {
                "not run".to_owned()
            } else if took.len() < all.len() {
                format!("{} run", took.len())
            } else {
                seconds(took.iter().sum())
            };
            dag::Node {
                name: (*name).to_owned(),
                kind: kind.to_owned(),
                note: format!("{kind}{times} · {state}"),
                inputs,
            }
        })
        .collect()
}

/// The table of a comparison.
fn compared(folder: &Path) -> Result<String> {
    let mut out = String::new();
    for block in blocks(&Comparison::open(folder)?) {
        match block {
            // The section has its own.
            Block::Heading(_) => {}
            Block::Paragraph(text) => {
                let _ = writeln!(out, "<p class=\"more\">{}</p>", escape(&text));
            }
            Block::Table(rows) => table(&mut out, &rows),
        }
    }
    Ok(out)
}

/// A table from its cells, the heading first.
fn table(out: &mut String, rows: &[Vec<String>]) {
    out.push_str("<div class=\"scroll\"><table>");
    for (index, row) in rows.iter().enumerate() {
        let tag = if index == 0 { "th" } else { "td" };
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<{tag}>{}</{tag}>", escape(cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div>\n");
}

/// A duration as a person says it.
fn seconds(seconds: f64) -> String {
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

/// The stage's key figures as a row of cards.
fn figures(figures: &[(String, String)]) -> String {
    let mut out = String::from("<dl class=\"figures\">");
    for (name, value) in figures {
        let _ = write!(
            out,
            "<div><dt>{}</dt><dd>{}</dd></div>",
            escape(name),
            escape(value)
        );
    }
    out.push_str("</dl>\n");
    out
}

/// A stage's settings and inputs, from its record: overrides of the command line are in it.
fn settings(record: &Record) -> String {
    let made = &record.provenance;
    let mut rows = stated(&made.config, record.key.seed);
    for file in &made.files {
        rows.push((
            "read".to_owned(),
            format!("{} ({})", file.path, file.digest.short()),
        ));
    }
    rows.push(("key".to_owned(), record.key.digest().to_string()));
    let mut out = String::from("<details class=\"settings\"><summary>settings</summary><table><tbody>");
    for (name, value) in rows {
        let _ = write!(
            out,
            "<tr><th>{}</th><td>{}</td></tr>",
            escape(&name),
            escape(&value)
        );
    }
    out.push_str("</tbody></table></details>\n");
    out
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

fn read_lines(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).context(|| format!("read `{}`", path.display()))?;
    text.lines()
        .enumerate()
        .map(|(i, line)| {
            serde_json::from_str(line).wrap(Kind::Environment, || {
                format!("read `{}`: line {}", path.display(), i + 1)
            })
        })
        .collect()
}

/// The training curves: the loss as it was, its running mean, the validations with their intervals and, where the
/// text came from a grammar, the entropy that no model can beat.
fn train(stage: &Stage<'_>, stages: &[Stage<'_>], folder: &Path) -> Result<String> {
    let lines = read_lines(&folder.join("metrics.jsonl"))?;
    let number = |line: &Value, pointer: &str| line.pointer(pointer).and_then(Value::as_f64);
    let mut loss: Vec<Step> = Vec::new();
    let (mut bound, mut intervals, mut bits) = (Vec::new(), Vec::new(), Vec::new());
    let mut validated = Validation::default();
    for line in &lines {
        let Some(step) = number(line, "/step") else {
            continue;
        };
        if let Some(value) = number(line, "/loss") {
            // Old artifacts do not say how many steps a line is the mean of: those since the one before.
            let since = step - loss.last().map_or(0.0, |last| last.step);
            let steps = number(line, "/steps").unwrap_or(since).max(1.0);
            loss.push(Step { step, steps, value });
        }
        if let Some(value) = number(line, "/validation/nats_per_token") {
            bound.push((step, value));
            if let Ok(found) = ValidationLine::deserialize(line) {
                validated = found.validation;
            }
            let ends = number(line, "/validation/low").zip(number(line, "/validation/high"));
            intervals.push(ends.map_or(f64::NAN, |(low, high)| (high - low) / 2.0));
            if let Some(per_byte) = number(line, "/validation/bits_per_byte") {
                // What spells out lost text is the same for every model.
                let lost = number(line, "/validation/lost_bits_per_byte").unwrap_or(0.0);
                bits.push((value, per_byte - lost));
            }
        }
    }
    // Bits per byte are proportional to nats per token, so the entropy's place on this scale follows from one pair.
    let reference_lines = entropy(stage, stages)?
        .zip(bits.last())
        .map(|(entropy, (nats, per_byte))| ReferenceLine {
            name: format!("entropy of the grammar, {entropy:.3} bits per byte"),
            y: entropy * nats / per_byte,
        })
        .into_iter()
        .collect();
    let (single, means): (Vec<Step>, Vec<Step>) = loss.iter().partition(|line| line.steps <= 1.0);
    let points = |lines: &[Step]| lines.iter().map(|line| (line.step, line.value)).collect();
    let most = means.iter().map(|line| line.steps).fold(0.0, f64::max);
    let equal = means.iter().all(|line| line.steps >= most);
    let up_to = if equal { "" } else { "up to " };
    let reach = reach(&loss);
    let chart = Chart {
        x_label: "step".into(),
        y_label: format!("nats {}", per(stage, stages, folder)?),
        series: vec![
            Series {
                name: "loss of single steps".into(),
                class: "raw",
                points: points(&single),
                intervals: vec![],
            },
            Series {
                name: format!("loss, means of {up_to}{}", counted(most as u64, "step")),
                class: "means",
                points: points(&means),
                intervals: vec![],
            },
            Series {
                name: format!(
                    "running mean of the loss, {} to each side",
                    counted(reach, "step")
                ),
                class: "smooth",
                points: smooth(&loss, reach),
                intervals: vec![],
            },
            Series {
                name: format!("{}, 95% interval", validated.title()),
                class: "bound",
                points: bound,
                intervals,
            },
        ],
        reference_lines,
    };
    Ok(chart
        .svg()
        .map(|svg| format!("<div class=\"scroll\">{svg}</div>\n"))
        .unwrap_or_default())
}

/// What the loss and the validations of a training in a folder are per, as its rows and its model say.
fn per(stage: &Stage<'_>, stages: &[Stage<'_>], folder: &Path) -> Result<String> {
    let mut inputs = stage.inputs.iter().map(|input| &stages[*input]);
    let rows = inputs.find(|input| input.kind == StageKind::Pack);
    let unit = match rows.and_then(|rows| rows.done.as_ref()) {
        Some((_, folder)) => RowsInfo::open(folder)?.unit(),
        None => Unit::Token,
    };
    let model = ModelInfo::open(folder);
    Ok(unit.per(model.is_ok_and(|model| model.is_first_token_given())))
}

/// The exact entropy in bits per byte of the synthetic source that the stage learnt from, if it did.
fn entropy(stage: &Stage<'_>, stages: &[Stage<'_>]) -> Result<Option<f64>> {
    let mut behind = stage.inputs.clone();
    while let Some(index) = behind.pop() {
        let source = &stages[index];
        behind.extend(&source.inputs);
        if let (StageKind::Source, Some((_, folder))) = (source.kind, &source.done) {
            let path = folder.join("source.json");
            let text = fs::read_to_string(&path).context(|| format!("read `{}`", path.display()))?;
            let info: crate::data::SourceInfo = serde_json::from_str(&text)
                .wrap(Kind::Environment, || format!("read `{}`", path.display()))?;
            return Ok(info.entropy_bits_per_byte);
        }
    }
    Ok(None)
}

/// A line of the metrics about the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::struct_field_names, reason = "`step` is the name in the metrics")]
struct Step {
    /// The last of its steps.
    step: f64,
    /// Steps that it is the mean of.
    steps: f64,
    /// The mean loss.
    value: f64,
}

/// Steps of the running mean to each side: a share of the curve, and so many that no line of the metrics is without a
/// neighbour.
fn reach(lines: &[Step]) -> u64 {
    let range = lines.last().map_or(0.0, |last| last.step) - lines.first().map_or(0.0, |first| first.step);
    let gaps = lines.windows(2).map(|pair| pair[1].step - pair[0].step);
    (range * SMOOTHING).max(gaps.fold(0.0, f64::max)).round() as u64
}

/// A running mean over the steps that lie no farther than `reach` to each side, of which a line counts as many as it is
/// the mean of; fewer at the ends.
fn smooth(lines: &[Step], reach: u64) -> Vec<(f64, f64)> {
    let mut sums = vec![(0.0, 0.0)];
    for line in lines {
        let (value, weight): (f64, f64) = sums[sums.len() - 1];
        sums.push((value + line.steps * line.value, weight + line.steps));
    }
    let reach = reach as f64;
    lines
        .iter()
        .map(|line| {
            let from = lines.partition_point(|other| other.step < line.step - reach);
            let to = lines.partition_point(|other| other.step <= line.step + reach);
            (
                line.step,
                (sums[to].0 - sums[from].0) / (sums[to].1 - sums[from].1),
            )
        })
        .collect()
}

fn samples(folder: &Path) -> Result<String> {
    let lines = read_lines(&folder.join("samples.jsonl"))?;
    let mut out = String::from("<ol class=\"samples\">");
    for line in lines.iter().take(SAMPLES) {
        let text = line.get("text").and_then(Value::as_str).unwrap_or_default();
        let _ = write!(out, "<li>{}</li>", escape(text.trim()));
    }
    out.push_str("</ol>\n");
    if lines.len() > SAMPLES {
        let _ = writeln!(out, "<p class=\"more\">{SAMPLES} of {} rows.</p>", lines.len());
    }
    Ok(out)
}

fn provenance(stages: &[Stage<'_>]) -> String {
    let mut out = String::from(
        "<div class=\"scroll\"><table><thead><tr><th>stage</th><th>artifact</th><th>started</th><th>took</th>\
         <th>peak memory</th><th>where</th><th>mdlm</th></tr></thead><tbody>",
    );
    for stage in stages {
        let Some((record, _)) = &stage.done else {
            let _ = write!(
                out,
                "<tr><td>{}</td><td colspan=\"6\">not run</td></tr>",
                escape(stage.name)
            );
            continue;
        };
        let p = &record.provenance;
        let memory = p
            .peak_memory_bytes
            .map_or_else(String::new, |b| format!("{:.2} GB", b as f64 / 1e9));
        let place = format!(
            "{}, {}, {}",
            p.device,
            counted(p.threads, "thread"),
            p.machine.processor.as_deref().unwrap_or(&p.machine.system)
        );
        let digest = record.artifact.to_string();
        let _ = write!(
            out,
            "<tr><td>{}</td><td><code title=\"{digest}\">{}</code></td><td>{}</td><td>{}</td><td>{memory}</td>\
             <td>{}</td><td>{}</td></tr>",
            escape(stage.name),
            digest.get(..12).unwrap_or(&digest),
            escape(&p.started),
            seconds(p.seconds),
            escape(&place),
            escape(&p.version),
        );
    }
    out.push_str("</tbody></table></div>\n");
    out
}

const STYLE: &str = include_str!("style.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_mean_keeps_the_ends_and_the_mean() {
        let line = |step: i32, steps: i32, value: i32| Step {
            step: f64::from(step),
            steps: f64::from(steps),
            value: f64::from(value),
        };
        let lines: Vec<Step> = (0..100).map(|i| line(i, 1, i % 2)).collect();
        assert_eq!(reach(&lines), 2);
        let means = smooth(&lines, 2);
        assert_eq!(means.len(), 100);
        // Two to each side and its own: two ones around a 0, three around a 1.
        assert!(
            means[2..98]
                .iter()
                .enumerate()
                .all(|(i, p)| p.1 == if i % 2 == 0 { 0.4 } else { 0.6 })
        );
        // A line of ten steps counts ten times as much as one of one.
        let two = [line(1, 1, 0), line(11, 10, 11)];
        assert_eq!(reach(&two), 10);
        assert_eq!(smooth(&two, 10), [(1.0, 10.0), (11.0, 10.0)]);
        // Lines of ten steps over a thousand: twenty to each side.
        let long: Vec<Step> = (1..=100).map(|i| line(10 * i, 10, i)).collect();
        assert_eq!(reach(&long), 20);
        assert_eq!(smooth(&long, 20)[49], (500.0, 50.0));
        assert_eq!(reach(&[]), 0);
        assert!(smooth(&[], 0).is_empty());
    }

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
    fn durations_read_as_a_person_says_them() {
        assert_eq!(seconds(0.04), "0.0 s");
        assert_eq!(seconds(59.7), "1 min 00 s");
        assert_eq!(seconds(12.2), "12 s");
        assert_eq!(seconds(3_725.0), "1 h 02 min");
    }

    #[test]
    fn a_pipeline_that_has_not_run_still_has_a_report_and_its_text_is_escaped() {
        let stages = [Stage {
            name: "a<b",
            written: "a<b",
            kind: StageKind::Source,
            inputs: vec![],
            done: None,
            figures: vec![],
        }];
        let page = html("x & y", Some("<script>"), &stages).unwrap();
        assert!(page.contains("x &amp; y") && page.contains("&lt;script&gt;") && page.contains("a&lt;b"));
        assert!(!page.contains("<script"));
    }

    #[test]
    fn a_sweep_is_one_node() {
        let stage = |name: &'static str, written, kind, inputs: &[usize]| Stage {
            name,
            written,
            kind,
            inputs: inputs.to_vec(),
            done: None,
            figures: vec![],
        };
        let stages = [
            stage("rows", "rows", StageKind::Pack, &[]),
            stage("m@a=1", "m", StageKind::Train, &[0]),
            stage("b@a=1", "b", StageKind::Evaluate, &[0, 1]),
            stage("m@a=2", "m", StageKind::Train, &[0]),
            stage("b@a=2", "b", StageKind::Evaluate, &[0, 3]),
            stage("t", "t", StageKind::Compare, &[2, 4]),
        ];
        let found: Vec<_> = nodes(&stages)
            .into_iter()
            .map(|node| (node.name, node.note, node.inputs))
            .collect();
        let node =
            |name: &str, note: &str, inputs: &[usize]| (name.to_owned(), note.to_owned(), inputs.to_vec());
        assert_eq!(
            found,
            [
                node("rows", "pack · not run", &[]),
                node("m", "train ×2 · not run", &[0]),
                node("b", "evaluate ×2 · not run", &[0, 1]),
                node("t", "compare · not run", &[2]),
            ]
        );
        assert!(html("x", None, &stages).is_ok());
    }

    #[test]
    fn curves_say_whether_a_validation_is_a_bound_and_what_it_is_per() {
        let page = |objective: Value, validation: Value| {
            let folder = tempfile::tempdir().unwrap();
            let model = serde_json::json!({
                "shape": "nano", "vocabulary": 64, "length": 32, "wrap": true,
                "special": { "bos": 0, "eos": 1, "pad": 2, "mask": 3 },
                "tokenizer_digest": "", "objective": objective, "steps": 8, "seed": 1,
            });
            fs::write(
                folder.path().join(crate::stages::trained::MODEL_INFO),
                model.to_string(),
            )
            .unwrap();
            let line = |step: u64, nats: f64| {
                let mut line = serde_json::json!({ "step": step, "validation": {
                    "nats_per_token": nats, "low": nats - 0.1, "high": nats + 0.1, "bits_per_byte": nats, "rows": 3,
                } });
                let fields = line["validation"].as_object_mut().unwrap();
                fields.extend(validation.as_object().unwrap().clone());
                line.to_string()
            };
            let lines = [line(4, 2.0), line(8, 1.5)].join("\n");
            fs::write(folder.path().join("metrics.jsonl"), lines).unwrap();
            let stage = Stage {
                name: "model",
                written: "model",
                kind: StageKind::Train,
                inputs: vec![],
                done: None,
                figures: vec![],
            };
            train(&stage, &[], folder.path()).unwrap()
        };
        let cases = [
            (
                "mdlm",
                serde_json::json!({}),
                "validation bound",
                "nats per token of text",
            ),
            (
                "ar",
                serde_json::json!({ "estimator": "exact", "scored": true }),
                "exact validation",
                "nats per scored token of text",
            ),
            (
                "d3pm",
                serde_json::json!({ "estimator": "time", "steps": 1000 }),
                "validation bound in 1000 steps",
                "nats per token of text",
            ),
            (
                "mlm",
                serde_json::json!({ "estimator": "count" }),
                "validation any-order bound",
                "nats per token of text",
            ),
        ];
        for (kind, validation, title, label) in cases {
            let svg = page(serde_json::json!({ "kind": kind }), validation);
            assert!(svg.contains(&format!(">{title}, 95% interval</text>")), "{svg}");
            assert!(svg.contains(&format!(">{label}</text>")), "{svg}");
        }
    }

    #[test]
    fn a_comparison_of_objectives_has_signs_and_says_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let rows = r#"{ "sorted_by": "bits_per_byte", "rows": [
            { "name": "causal", "point": { "objective": "ar" },
              "metrics": { "bits_per_byte": { "value": 1.0, "low": 0.75, "high": 1.25 },
                           "perplexity": { "value": 4.0, "low": 3.0, "high": 5.0 } },
              "objective": "ar", "quantity": "exact", "unit": "per token of text", "scored": true },
            { "name": "masked", "point": { "objective": "mdlm" },
              "metrics": { "bits_per_byte": { "value": 2.0, "low": 1.75, "high": 2.25 },
                           "perplexity": { "value": 3.0, "low": 2.0, "high": 4.0 } },
              "unit": "per token of text" }
        ] }"#;
        fs::write(folder.path().join(crate::stages::compare::TABLE), rows).unwrap();
        let table = compared(folder.path()).unwrap();
        for expected in [
            "<tr><th>stage</th><th>objective</th><th>bits_per_byte</th><th>perplexity</th></tr>",
            "<tr><td>causal</td><td>ar</td><td>1.0000 ± 0.2500</td><td>4.000 (3.000–5.000)</td></tr>",
            "<tr><td>masked</td><td>mdlm</td><td>≤ 2.0000 ± 0.2500</td><td>≤ 3.000 (2.000–4.000)</td></tr>",
            "so that the difference is an upper bound on that of the likelihoods.</p>",
            "<p class=\"more\">Note: ≤ marks an upper bound; 1 of 2 rows is exact, without a sign.</p>",
            "per token of text in 1 row, per scored token of text in 1; the two are not comparable",
        ] {
            assert!(table.contains(expected), "{expected} is not in {table}");
        }
    }

    #[test]
    fn a_comparison_is_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let rows = r#"{ "sorted_by": "bits_per_byte", "rows": [
            { "point": { "note": "a|<b" }, "metrics": { "bits_per_byte": { "value": 1.0, "low": 0.75, "high": 1.25 } },
              "model": "MODEL" },
            { "point": { "note": "c" }, "metrics": { "bits_per_byte": { "value": 2.0, "low": 1.75, "high": 2.25 } },
              "model": "MODEL" }
        ] }"#;
        let rows = rows.replace("MODEL", &crate::store::Digest::of(b"model").to_string());
        fs::write(folder.path().join(crate::stages::compare::TABLE), rows).unwrap();
        let table = compared(folder.path()).unwrap();
        assert!(
            table.contains(
                "<tr><th>note</th><th>bits_per_byte</th></tr><tr><td>a|&lt;b</td><td>1.0000 ± 0.2500</td></tr>"
            ),
            "{table}"
        );
        assert!(
            table.contains("Best by bits_per_byte: note a|&lt;b, clearly different from all others"),
            "{table}"
        );
    }
}
