//! Line charts as inline SVG: no script, no font, no colour that the page's light and dark styles do not set.

use std::fmt::Write;

/// One curve of a chart.
#[derive(Clone, Debug)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// CSS class that gives it its colour and width: `raw`, `smooth`, `bound`.
    pub class: &'static str,
    /// (x, y) in ascending x; points that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// Half-widths of the 95% intervals of the points, where known (same length as `points`, or empty).
    pub intervals: Vec<f64>,
}

/// A horizontal line with a name.
#[derive(Clone, Debug)]
pub struct Level {
    /// Name at the line's right end.
    pub name: String,
    /// Where it lies.
    pub y: f64,
}

/// A line chart.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// What x is.
    pub x_label: String,
    /// What y is, with its unit.
    pub y_label: String,
    /// The curves, drawn in order.
    pub series: Vec<Series>,
    /// Horizontal lines.
    pub levels: Vec<Level>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Points drawn per curve at most: two a pixel column tell no more.
const POINTS: usize = 1_440;

/// Round steps (1, 2 or 5 times a power of ten) that split a range into about `wanted` parts.
fn ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let span = high - low;
    if !span.is_finite() || span <= 0.0 {
        return vec![low];
    }
    let rough = span / wanted as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|m| m * power)
        .into_iter()
        .find(|s| *s >= rough)
        .unwrap_or(rough);
    let first = (low / step).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|k| k as f64 * step).collect()
}

/// A tick's label: as few digits as tell neighbours apart.
fn label(value: f64, step: f64) -> String {
    if value.abs() >= 1e6 {
        return format!("{}M", (value / 1e6 * 100.0).round() / 100.0);
    }
    if value.abs() >= 1e4 {
        return format!("{}k", (value / 1e3 * 100.0).round() / 100.0);
    }
    let digits = if step >= 1.0 {
        0
    } else {
        (-step.log10()).ceil() as usize
    };
    format!("{value:.digits$}")
}

/// Thins a curve to [`POINTS`] by the mean of neighbours.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let chunk = points.len().div_ceil(POINTS).max(1);
    points
        .chunks(chunk)
        .map(|c| {
            let n = c.len() as f64;
            (
                c.iter().map(|p| p.0).sum::<f64>() / n,
                c.iter().map(|p| p.1).sum::<f64>() / n,
            )
        })
        .collect()
}

/// Escapes text for HTML and SVG.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

impl Chart {
    /// The chart as an `<svg>` element, or nothing when no curve has a point.
    #[must_use]
    pub fn svg(&self) -> Option<String> {
        let finite: Vec<Vec<(f64, f64)>> = self
            .series
            .iter()
            .map(|s| {
                s.points
                    .iter()
                    .copied()
                    .filter(|p| p.0.is_finite() && p.1.is_finite())
                    .collect()
            })
            .collect();
        let xs = || finite.iter().flatten().map(|p| p.0);
        let (x_low, x_high) = (
            xs().fold(f64::INFINITY, f64::min),
            xs().fold(f64::NEG_INFINITY, f64::max),
        );
        if !x_low.is_finite() {
            return None;
        }
        // The first fall of a loss curve would squeeze everything else flat: the scale ignores it.
        let after = x_low + (x_high - x_low) * 0.1;
        let ys = || {
            let curves = finite.iter().flatten().filter(move |p| p.0 >= after).map(|p| p.1);
            curves.chain(self.levels.iter().map(|l| l.y).filter(|y| y.is_finite()))
        };
        let (mut y_low, mut y_high) = (
            ys().fold(f64::INFINITY, f64::min),
            ys().fold(f64::NEG_INFINITY, f64::max),
        );
        let pad = ((y_high - y_low) * 0.1).max(y_high.abs() * 1e-3).max(1e-9);
        y_low -= pad;
        y_high += pad;
        let x_span = if x_high > x_low { x_high - x_low } else { 1.0 };
        let x = |v: f64| LEFT + (v - x_low) / x_span * (WIDTH - LEFT - RIGHT);
        let y = |v: f64| TOP + (y_high - v.clamp(y_low, y_high)) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{} against {}\">",
            escape(&self.y_label),
            escape(&self.x_label)
        );
        self.axes(&mut out, (x_low, x_high), (y_low, y_high), &x, &y);
        for level in self.levels.iter().filter(|l| l.y.is_finite()) {
            let at = y(level.y);
            let _ = write!(
                out,
                "<line class=\"level\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"level\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                WIDTH - RIGHT,
                // Below the line: a curve that comes down to a level comes from above.
                at + 14.0,
                escape(&level.name)
            );
        }
        for (series, points) in self.series.iter().zip(&finite) {
            for (point, half) in series.points.iter().zip(&series.intervals) {
                if point.1.is_finite() && half.is_finite() {
                    let _ = write!(
                        out,
                        "<line class=\"{0} whisker\" x1=\"{1:.1}\" x2=\"{1:.1}\" y1=\"{2:.1}\" y2=\"{3:.1}\"/>",
                        series.class,
                        x(point.0),
                        y(point.1 - half),
                        y(point.1 + half),
                    );
                }
            }
            let path: Vec<String> = thin(points)
                .iter()
                .map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1)))
                .collect();
            let _ = write!(
                out,
                "<polyline class=\"{}\" points=\"{}\"/>",
                series.class,
                path.join(" ")
            );
        }
        self.legend(&mut out);
        out.push_str("</svg>");
        Some(out)
    }

    fn axes(
        &self,
        out: &mut String,
        (x_low, x_high): (f64, f64),
        (y_low, y_high): (f64, f64),
        x: &dyn Fn(f64) -> f64,
        y: &dyn Fn(f64) -> f64,
    ) {
        let vertical = ticks(y_low, y_high, 5);
        let step = if vertical.len() > 1 {
            vertical[1] - vertical[0]
        } else {
            1.0
        };
        for value in &vertical {
            let at = y(*value);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                label(*value, step)
            );
        }
        let horizontal = ticks(x_low, x_high, 6);
        let step = if horizontal.len() > 1 {
            horizontal[1] - horizontal[0]
        } else {
            1.0
        };
        for value in &horizontal {
            let _ = write!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                x(*value),
                HEIGHT - BOTTOM + 18.0,
                label(*value, step)
            );
        }
        let _ = write!(
            out,
            "<text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"axis\" transform=\"translate(14,{:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 6.0,
            escape(&self.x_label),
            f64::midpoint(TOP, HEIGHT - BOTTOM),
            escape(&self.y_label)
        );
    }

    fn legend(&self, out: &mut String) {
        let mut at = TOP + 14.0;
        for series in self.series.iter().filter(|s| !s.points.is_empty()) {
            let (from, to) = (WIDTH - RIGHT - 200.0, WIDTH - RIGHT - 176.0);
            let _ = write!(
                out,
                "<line class=\"{}\" x1=\"{from}\" x2=\"{to}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
                 <text x=\"{}\" y=\"{at:.1}\">{}</text>",
                series.class,
                at - 4.0,
                at - 4.0,
                to + 8.0,
                escape(&series.name)
            );
            at += 18.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 1000.0, 5), [0.0, 200.0, 400.0, 600.0, 800.0, 1000.0]);
        let some = ticks(1.93, 2.41, 5);
        assert!(some.iter().all(|t| (1.93..=2.42).contains(t)), "{some:?}");
        assert_eq!(label(2.5, 0.5), "2.5");
        assert_eq!(label(20_000.0, 5000.0), "20k");
    }

    #[test]
    fn a_chart_draws_every_finite_point_and_escapes_names() {
        let chart = Chart {
            x_label: "step".into(),
            y_label: "loss".into(),
            series: vec![Series {
                name: "a<b".into(),
                class: "raw",
                points: vec![(0.0, 3.0), (1.0, f64::NAN), (2.0, 1.0)],
                intervals: vec![],
            }],
            levels: vec![Level {
                name: "entropy".into(),
                y: 0.5,
            }],
        };
        let svg = chart.svg().unwrap();
        assert!(svg.contains("a&lt;b") && !svg.contains("NaN"));
        let path = svg.split("<polyline").nth(1).unwrap();
        assert_eq!(path.matches(',').count(), 2, "{path}");
        assert!(Chart::default().svg().is_none());
    }
}
