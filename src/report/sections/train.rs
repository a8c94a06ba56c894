//! A training: its curves.

use std::path::Path;

use maud::{Markup, html};

use crate::data::{RowsInfo, SourceInfo, Unit};
use crate::error::Result;
use crate::manifest::StageKind;
use crate::plural::counted;
use crate::report::chart::{Chart, ReferenceLine, Series};
use crate::report::stage::ReportedStage;
use crate::stages::trained::ModelInfo;
use crate::train::{MetricsLine, Validation, ValidationLine, read_metrics};

/// Steps of the running mean over the loss to each side, as a share of the curve.
const SMOOTHING: f64 = 0.02;

/// The training curves: the loss as it was, its running mean, the validations with their intervals and, where the
/// text came from a grammar, the entropy that no model can beat.
pub(super) fn section(
    stage: &ReportedStage<'_>,
    stages: &[ReportedStage<'_>],
    folder: &Path,
) -> Result<Markup> {
    let mut loss: Vec<LossPoint> = Vec::new();
    let (mut bound, mut intervals, mut bits) = (Vec::new(), Vec::new(), Vec::new());
    let mut validated = Validation::default();
    for line in read_metrics(folder)? {
        match line {
            MetricsLine::Step(line) => {
                let step = line.step as f64;
                // Old artifacts do not say how many steps a line is the mean of: those since the one before.
                let since = step - loss.last().map_or(0.0, |last| last.step);
                loss.push(LossPoint {
                    step,
                    steps: line.steps.map_or(since, |steps| steps as f64).max(1.0),
                    value: line.loss,
                });
            }
            MetricsLine::Validation(ValidationLine { step, validation }) => {
                bound.push((step as f64, validation.nats_per_token));
                let ends = validation.low.zip(validation.high);
                intervals.push(ends.map_or(f64::NAN, |(low, high)| (high - low) / 2.0));
                // What spells out lost text is the same for every model.
                let per_byte = validation.bits_per_byte - validation.lost_bits_per_byte;
                bits.push((validation.nats_per_token, per_byte));
                validated = validation;
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
    let (single, means): (Vec<LossPoint>, Vec<LossPoint>) = loss.iter().partition(|line| line.steps <= 1.0);
    let points = |lines: &[LossPoint]| lines.iter().map(|line| (line.step, line.value)).collect();
    let most = means.iter().map(|line| line.steps).fold(0.0, f64::max);
    let equal = means.iter().all(|line| line.steps >= most);
    let up_to = if equal { "" } else { "up to " };
    let reach = reach(&loss);
    let chart = Chart {
        x_label: "step".into(),
        y_label: format!("nats {}", per(stage, stages, folder)?),
        logarithmic: false,
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
    Ok(html! {
        @if let Some(svg) = chart.svg() {
            div.scroll { (svg) }
        }
    })
}

/// What the loss and the validations of a training in a folder are per, as its rows and its model say.
fn per(stage: &ReportedStage<'_>, stages: &[ReportedStage<'_>], folder: &Path) -> Result<String> {
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
fn entropy(stage: &ReportedStage<'_>, stages: &[ReportedStage<'_>]) -> Result<Option<f64>> {
    let mut behind = stage.inputs.clone();
    while let Some(index) = behind.pop() {
        let source = &stages[index];
        behind.extend(&source.inputs);
        if let (StageKind::Source, Some((_, folder))) = (source.kind, &source.done) {
            return Ok(SourceInfo::open(folder)?.entropy_bits_per_byte);
        }
    }
    Ok(None)
}

/// A line of the metrics about the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
struct LossPoint {
    /// The last of its steps.
    step: f64,
    /// Steps that it is the mean of.
    steps: f64,
    /// The mean loss.
    value: f64,
}

/// Steps of the running mean to each side: a share of the curve, and so many that no line of the metrics is without a
/// neighbour.
fn reach(lines: &[LossPoint]) -> u64 {
    let range = lines.last().map_or(0.0, |last| last.step) - lines.first().map_or(0.0, |first| first.step);
    let gaps = lines.windows(2).map(|pair| pair[1].step - pair[0].step);
    (range * SMOOTHING).max(gaps.fold(0.0, f64::max)).round() as u64
}

/// A running mean over the steps that lie no farther than `reach` to each side, of which a line counts as many as it is
/// the mean of; fewer at the ends.
fn smooth(lines: &[LossPoint], reach: u64) -> Vec<(f64, f64)> {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;

    #[test]
    fn running_mean_keeps_the_ends_and_the_mean() {
        let line = |step: i32, steps: i32, value: i32| LossPoint {
            step: f64::from(step),
            steps: f64::from(steps),
            value: f64::from(value),
        };
        let lines: Vec<LossPoint> = (0..100).map(|i| line(i, 1, i % 2)).collect();
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
        let long: Vec<LossPoint> = (1..=100).map(|i| line(10 * i, 10, i)).collect();
        assert_eq!(reach(&long), 20);
        assert_eq!(smooth(&long, 20)[49], (500.0, 50.0));
        assert_eq!(reach(&[]), 0);
        assert!(smooth(&[], 0).is_empty());
    }

    #[test]
    fn curves_name_the_quantity_and_unit_of_a_validation() {
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
            let stage = ReportedStage {
                name: "model",
                written: "model",
                kind: StageKind::Train,
                inputs: vec![],
                done: None,
                figures: vec![],
            };
            section(&stage, &[], folder.path()).unwrap().into_string()
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
}
