//! A pipeline's results as one HTML file: the graph, training curves, bounds, samples, provenance.
//!
//! The file stands alone: no script, no font, no image from elsewhere, so that it can be mailed, archived and opened
//! in ten years. It shows what the artifacts and their records hold and computes nothing of its own but a running
//! mean for the eye.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Context, Kind, Result, Wrap};
use crate::manifest::StageKind;
use crate::store::Record;

pub mod chart;
pub mod dag;

use chart::{Chart, Level, Series, escape};

/// A stage of the report, in topological order.
#[derive(Debug)]
pub struct Stage<'a> {
    /// Its name in the manifest.
    pub name: &'a str,
    /// Its kind.
    pub kind: StageKind,
    /// The stages that it consumes, by their place in the list.
    pub inputs: Vec<usize>,
    /// Its record and its artifact's folder, when it has run.
    pub done: Option<(&'a Record, PathBuf)>,
}

/// Sampled rows shown at most.
const SAMPLES: usize = 10;
/// Width of the running mean over the loss, as a share of the curve.
const SMOOTHING: f64 = 0.02;

/// The report as one HTML document.
///
/// # Errors
/// An artifact's file that cannot be read or is not what its stage writes.
pub fn html(title: &str, description: Option<&str>, stages: &[Stage<'_>]) -> Result<String> {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{0} — mdlm report</title><style>{STYLE}</style></head><body><main>\n<h1>{0}</h1>\n",
        escape(title)
    );
    if let Some(description) = description {
        let _ = writeln!(out, "<p class=\"lead\">{}</p>", escape(description));
    }
    let nodes: Vec<dag::Node> = stages.iter().map(node).collect();
    let _ = writeln!(out, "<div class=\"scroll\">{}</div>", dag::svg(&nodes));
    for stage in stages {
        let Some((record, folder)) = &stage.done else {
            continue;
        };
        let section = match stage.kind {
            StageKind::Train => train(stage, stages, folder)?,
            StageKind::Sample => samples(folder)?,
            _ => String::new(),
        };
        let _ = write!(
            out,
            "<section><h2>{} <span class=\"kind\">{}</span></h2>\n{}{section}</section>\n",
            escape(stage.name),
            stage.kind.name(),
            figures(record),
        );
    }
    let _ = write!(
        out,
        "<section><h2>Provenance</h2>\n{}</section>\n</main></body></html>\n",
        provenance(stages)
    );
    Ok(out)
}

fn node(stage: &Stage<'_>) -> dag::Node {
    dag::Node {
        name: stage.name.to_owned(),
        kind: stage.kind.name().to_owned(),
        note: match &stage.done {
            Some((record, _)) => format!("{} · {}", stage.kind.name(), seconds(record.provenance.seconds)),
            None => format!("{} · not run", stage.kind.name()),
        },
        inputs: stage.inputs.clone(),
    }
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
fn figures(record: &Record) -> String {
    let mut out = String::from("<dl class=\"figures\">");
    for (name, value) in &record.figures {
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

/// The training curves: the loss as it was, its running mean, the validation bound with its intervals and, where the
/// text came from a grammar, the entropy that no model can beat.
fn train(stage: &Stage<'_>, stages: &[Stage<'_>], folder: &Path) -> Result<String> {
    let lines = read_lines(&folder.join("metrics.jsonl"))?;
    let number = |line: &Value, pointer: &str| line.pointer(pointer).and_then(Value::as_f64);
    let mut loss = Vec::new();
    let (mut bound, mut intervals, mut bits) = (Vec::new(), Vec::new(), Vec::new());
    for line in &lines {
        let Some(step) = number(line, "/step") else {
            continue;
        };
        if let Some(value) = number(line, "/loss") {
            loss.push((step, value));
        }
        if let Some(value) = number(line, "/validation/nats_per_token") {
            bound.push((step, value));
            let ends = number(line, "/validation/low").zip(number(line, "/validation/high"));
            intervals.push(ends.map_or(f64::NAN, |(low, high)| (high - low) / 2.0));
            if let Some(per_byte) = number(line, "/validation/bits_per_byte") {
                bits.push((value, per_byte));
            }
        }
    }
    // Bits per byte are proportional to nats per token, so the entropy's place on this scale follows from one pair.
    let levels = entropy(stage, stages)?
        .zip(bits.last())
        .map(|(entropy, (nats, per_byte))| Level {
            name: format!("entropy of the grammar, {entropy:.3} bits per byte"),
            y: entropy * nats / per_byte,
        })
        .into_iter()
        .collect();
    let chart = Chart {
        x_label: "step".into(),
        y_label: "nats per token".into(),
        series: vec![
            Series {
                name: "training loss".into(),
                class: "raw",
                points: loss.clone(),
                intervals: vec![],
            },
            Series {
                name: "its running mean".into(),
                class: "smooth",
                points: smooth(&loss),
                intervals: vec![],
            },
            Series {
                name: "validation bound, 95% interval".into(),
                class: "bound",
                points: bound,
                intervals,
            },
        ],
        levels,
    };
    Ok(chart
        .svg()
        .map(|svg| format!("<div class=\"scroll\">{svg}</div>\n"))
        .unwrap_or_default())
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

/// A centred running mean.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = ((points.len() as f64 * SMOOTHING) as usize).max(1);
    let mut sums = vec![0.0];
    for point in points {
        sums.push(sums[sums.len() - 1] + point.1);
    }
    points
        .iter()
        .enumerate()
        .map(|(i, point)| {
            let (from, to) = (i.saturating_sub(half), (i + half + 1).min(points.len()));
            (point.0, (sums[to] - sums[from]) / (to - from) as f64)
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
            "{}, {} threads, {}",
            p.device,
            p.threads,
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
        let points: Vec<(f64, f64)> = (0..100).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let smooth = smooth(&points);
        assert_eq!(smooth.len(), 100);
        assert!(smooth[5..95].iter().all(|p| (p.1 - 0.5).abs() < 0.2));
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
            kind: StageKind::Source,
            inputs: vec![],
            done: None,
        }];
        let page = html("x & y", Some("<script>"), &stages).unwrap();
        assert!(page.contains("x &amp; y") && page.contains("&lt;script&gt;") && page.contains("a&lt;b"));
        assert!(!page.contains("<script"));
    }
}
