//! Line charts as inline SVG: no script, no font, no colour that the page's light and dark styles do not set. Words stand
//! above the plot and beside its axes: where curves are drawn there is no room that is free for any curve.

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
pub struct ReferenceLine {
    /// Name in the legend.
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
    pub reference_lines: Vec<ReferenceLine>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
/// Height of a line of the legend.
const LINE: f64 = 18.0;
/// Length of the stroke before a name in the legend.
const STROKE: f64 = 24.0;
/// Between a stroke and its name.
const GAP: f64 = 8.0;
/// Between two names of the legend.
const BETWEEN: f64 = 24.0;
/// Width of a letter at most, on average over a name: fonts differ, and names must not run into each other.
const LETTER: f64 = 6.8;
/// Pieces of a curve of which the lowest and the highest point are drawn: one a pixel column.
const PIECES: usize = 720;

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

/// A tick's label: as few digits as distinguish neighbours.
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

/// Thins a curve to the lowest and the highest point of each of [`PIECES`]: what is drawn are points of the curve, and no
/// means that it does not have.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * PIECES {
        return points.to_vec();
    }
    let extremes = |piece: &[(f64, f64)]| {
        let order = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let mut ends: Vec<_> = piece
            .iter()
            .min_by(order)
            .into_iter()
            .chain(piece.iter().max_by(order))
            .copied()
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends.dedup();
        ends
    };
    points
        .chunks(points.len().div_ceil(PIECES))
        .flat_map(extremes)
        .collect()
}

/// The parts of a curve between two heights, cut where it crosses them.
fn between(points: &[(f64, f64)], low: f64, high: f64) -> Vec<Vec<(f64, f64)>> {
    let mut parts: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut open = false;
    for (index, &point) in points.iter().enumerate() {
        let inside = (low..=high).contains(&point.1);
        if let Some(&before) = index.checked_sub(1).and_then(|index| points.get(index)) {
            let rise = point.1 - before.1;
            // Where the line from the point before crosses, in its order.
            let mut crossings: Vec<f64> = [low, high]
                .into_iter()
                .map(|height| (height - before.1) / rise)
                // A point on the edge is inside, and is not a crossing.
                .filter(|part| *part > 0.0 && *part < 1.0)
                .collect();
            crossings.sort_by(f64::total_cmp);
            for part in crossings {
                let crossing = (
                    before.0 + part * (point.0 - before.0),
                    (before.1 + part * rise).clamp(low, high),
                );
                if let Some(last) = parts.last_mut().filter(|_| open) {
                    last.push(crossing);
                    open = false;
                } else {
                    parts.push(vec![crossing]);
                    open = true;
                }
            }
        }
        if inside {
            match parts.last_mut().filter(|_| open) {
                Some(last) => last.push(point),
                None => parts.push(vec![point]),
            }
        }
        open = inside;
    }
    parts
}

/// A value with four digits.
fn four_digits(value: f64) -> String {
    let digits = (3.0 - value.abs().max(1e-3).log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.digits$}")
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
    #[expect(clippy::too_many_lines, reason = "a drawing, part by part")]
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
        // The first fall of a loss curve would squeeze everything else flat: the scale ignores it. A curve ends where it
        // leaves the scale, and a note says how far it goes.
        let after = x_low + (x_high - x_low) * 0.1;
        let ys = || {
            let curves = finite.iter().flatten().filter(move |p| p.0 >= after).map(|p| p.1);
            curves.chain(self.reference_lines.iter().map(|l| l.y).filter(|y| y.is_finite()))
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
        let y = |v: f64| TOP + (y_high - v) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
        let mut words = Vec::new();
        let legend = self.legend(&mut words);
        let beyond = self.beyond(&finite, (y_low, y_high));
        let mut above = String::new();
        for (line, note) in beyond.iter().enumerate() {
            let _ = write!(
                above,
                "<text class=\"beyond\" x=\"{LEFT}\" y=\"{:.1}\">{note}</text>",
                legend + LINE * line as f64 + 14.0
            );
        }
        let top = legend + LINE * beyond.len() as f64;
        let mut out = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"{} against {}\">{}{above}\
             <g transform=\"translate(0,{top})\">",
            HEIGHT + top,
            escape(&self.y_label),
            escape(&self.x_label),
            words.concat()
        );
        self.axes(&mut out, (x_low, x_high), (y_low, y_high), &x, &y);
        for level in self.reference_lines.iter().filter(|l| l.y.is_finite()) {
            let at = y(level.y);
            let _ = write!(
                out,
                "<line class=\"level\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>",
                WIDTH - RIGHT
            );
        }
        for (series, points) in self.series.iter().zip(&finite) {
            for (point, half) in series.points.iter().zip(&series.intervals) {
                let (low, high) = ((point.1 - half).max(y_low), (point.1 + half).min(y_high));
                if point.1.is_finite() && half.is_finite() && low < high {
                    let _ = write!(
                        out,
                        "<line class=\"{0} whisker\" x1=\"{1:.1}\" x2=\"{1:.1}\" y1=\"{2:.1}\" y2=\"{3:.1}\"/>",
                        series.class,
                        x(point.0),
                        y(low),
                        y(high),
                    );
                }
            }
            for part in between(&thin(points), y_low, y_high) {
                let path: Vec<String> = part
                    .iter()
                    .map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1)))
                    .collect();
                let _ = match &*path {
                    [one] => {
                        let (x, y) = one.split_once(',').unwrap_or_default();
                        write!(
                            out,
                            "<circle class=\"{}\" cx=\"{x}\" cy=\"{y}\" r=\"2\"/>",
                            series.class
                        )
                    }
                    _ => write!(
                        out,
                        "<polyline class=\"{}\" points=\"{}\"/>",
                        series.class,
                        path.join(" ")
                    ),
                };
            }
        }
        out.push_str("</g></svg>");
        Some(out)
    }

    /// Says how far each curve goes that leaves the scale, upwards and downwards, a curve a line.
    fn beyond(&self, finite: &[Vec<(f64, f64)>], (y_low, y_high): (f64, f64)) -> Vec<String> {
        let say = |(series, points): (&Series, &Vec<(f64, f64)>), above: bool| {
            let beyond = |p: &&(f64, f64)| if above { p.1 > y_high } else { p.1 < y_low };
            let farther = |a: &&(f64, f64), b: &&(f64, f64)| {
                let order = a.1.total_cmp(&b.1);
                if above { order } else { order.reverse() }
            };
            let &(at, value) = points.iter().filter(beyond).max_by(farther)?;
            let (sign, word) = if above { ("▲", "up") } else { ("▼", "down") };
            Some(format!(
                "{sign} beyond the scale: {}, {word} to {} at {} {}",
                escape(&series.name),
                four_digits(value),
                escape(&self.x_label),
                label(at, 1.0),
            ))
        };
        let curves = || self.series.iter().zip(finite);
        [true, false]
            .into_iter()
            .flat_map(|above| curves().filter_map(move |curve| say(curve, above)))
            .collect()
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

    /// The names of curves and reference lines, in lines from the top, as many in a line as have room. Returns the height that they
    /// take.
    fn legend(&self, out: &mut Vec<String>) -> f64 {
        let drawn = |series: &&Series| series.points.iter().any(|p| p.0.is_finite() && p.1.is_finite());
        let curves = self.series.iter().filter(drawn).map(|s| (s.class, &*s.name));
        let reference_lines = self.reference_lines.iter().filter(|l| l.y.is_finite());
        let reference_lines = reference_lines.map(|l| ("level", &*l.name));
        let (mut x, mut line) = (LEFT, 0.0);
        for (class, name) in curves.chain(reference_lines) {
            let width = STROKE + GAP + LETTER * name.chars().count() as f64;
            if x > LEFT && x + width > WIDTH - RIGHT {
                (x, line) = (LEFT, line + 1.0);
            }
            let y = LINE * line + 14.0;
            let (end, middle) = (x + STROKE, y - 4.0);
            out.push(format!(
                "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{end:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
                 <text class=\"name\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
                end + GAP,
                escape(name)
            ));
            x += width + BETWEEN;
        }
        if out.is_empty() { 0.0 } else { LINE * (line + 1.0) }
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
    fn curve_beyond_the_scale_is_cut_and_a_note_has_its_extreme() {
        let loss: Vec<(f64, f64)> = (1..=100)
            .map(|step| {
                (
                    f64::from(step),
                    if step < 5 {
                        14.0 - f64::from(step)
                    } else {
                        2.0 + 0.1 * f64::from(step % 2)
                    },
                )
            })
            .collect();
        let chart = Chart {
            x_label: "step".into(),
            y_label: "loss".into(),
            series: vec![Series {
                name: "training loss".into(),
                class: "raw",
                points: loss,
                intervals: vec![],
            }],
            reference_lines: vec![],
        };
        let svg = chart.svg().unwrap();
        assert!(
            svg.contains("▲ beyond the scale: training loss, up to 13.00 at step 1"),
            "{svg}"
        );
        let lines: Vec<&str> = svg
            .split("points=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert_eq!(lines.len(), 1);
        let heights: Vec<f64> = lines[0]
            .split(' ')
            .map(|p| p.split_once(',').unwrap().1.parse().unwrap())
            .collect();
        // One point on the upper edge, where it comes in; never two, which would be a line along it.
        assert_eq!(
            heights.iter().filter(|&&height| height == TOP).count(),
            1,
            "{heights:?}"
        );
        // From step 5 on, and the crossing.
        assert_eq!(heights.len(), 97);
    }

    #[test]
    fn curves_beyond_the_scale_are_all_named() {
        // Both leave it at their start: the loss to 12, the bound, which is not a mean of it, to 99.55.
        let series = |name: &str, first: f64| Series {
            name: name.into(),
            class: "raw",
            points: (0..100)
                .map(|step| {
                    (
                        f64::from(step),
                        if step == 0 {
                            first
                        } else {
                            2.0 + f64::from(step % 2)
                        },
                    )
                })
                .collect(),
            intervals: vec![],
        };
        let chart = Chart {
            x_label: "step".into(),
            y_label: "nats".into(),
            series: vec![
                series("loss", 12.0),
                series("running mean", 2.0),
                series("validation bound", 99.55),
            ],
            reference_lines: vec![],
        };
        let svg = chart.svg().unwrap();
        let notes: Vec<&str> = svg.matches("beyond the scale").collect();
        assert_eq!(notes.len(), 2, "{svg}");
        for note in [
            "loss, up to 12.00 at step 0",
            "validation bound, up to 99.55 at step 0",
        ] {
            assert!(svg.contains(&format!("▲ beyond the scale: {note}<")), "{svg}");
        }
    }

    #[test]
    fn parts_are_cut_where_they_cross() {
        let zigzag = [(0.0, 0.0), (1.0, 4.0), (2.0, 0.0), (3.0, -4.0), (4.0, 1.0)];
        assert_eq!(
            between(&zigzag, -1.0, 2.0),
            [
                vec![(0.0, 0.0), (0.5, 2.0)],
                vec![(1.5, 2.0), (2.0, 0.0), (2.25, -1.0)],
                vec![(3.6, -1.0), (4.0, 1.0)]
            ]
        );
        // Straight through, and wholly beyond.
        assert_eq!(
            between(&[(0.0, -2.0), (4.0, 2.0)], -1.0, 1.0),
            [vec![(1.0, -1.0), (3.0, 1.0)]]
        );
        assert!(between(&[(0.0, 5.0), (1.0, 6.0)], -1.0, 1.0).is_empty());
        let on_the_edge = [
            (0.0, 1.0),
            (1.0, 2.0),
            (2.0, 1.0),
            (3.0, 2.0),
            (4.0, 3.0),
            (5.0, 2.0),
        ];
        assert_eq!(
            between(&on_the_edge, 0.0, 2.0),
            [on_the_edge[..4].to_vec(), vec![(5.0, 2.0)]]
        );
        assert_eq!(
            between(&[(0.0, 1.0), (1.0, 1.0)], 0.0, 2.0),
            [vec![(0.0, 1.0), (1.0, 1.0)]]
        );
    }

    #[test]
    fn thinning_keeps_extremes() {
        let points: Vec<(f64, f64)> = (0..100_000)
            .map(|i| (f64::from(i), if i == 77_777 { 9.0 } else { f64::from(i % 3) }))
            .collect();
        let thinned = thin(&points);
        assert!(thinned.len() <= 2 * PIECES);
        assert!(thinned.contains(&(77_777.0, 9.0)));
        assert!(thinned.iter().all(|point| points[point.0 as usize] == *point));
        assert!(thinned.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn legend_is_above_the_plot_and_not_over_its_curves() {
        let series = |name: &str, class, top: f64| Series {
            name: name.into(),
            class,
            // A curve that fills the plot from corner to corner, and leaves it at its start.
            points: (0..200)
                .map(|i| (f64::from(i), if i < 3 { 50.0 } else { f64::from(i % 2) * top }))
                .collect(),
            intervals: vec![],
        };
        let chart = Chart {
            x_label: "step".into(),
            y_label: "loss".into(),
            series: vec![
                series("loss of single steps", "raw", 1.0),
                series("loss, means of 10 steps", "means", 1.0),
                series("running mean of the loss, 400 steps to each side", "smooth", 0.5),
                series("validation bound, 95% interval", "bound", 0.75),
            ],
            reference_lines: vec![ReferenceLine {
                name: "entropy of the grammar, 2.345 bits per byte".into(),
                y: 0.5,
            }],
        };
        let svg = chart.svg().unwrap();
        let (words, plot) = svg.split_once("<g transform=\"translate(0,").unwrap();
        let top: f64 = plot.split_once(')').unwrap().0.parse().unwrap();
        for name in chart
            .series
            .iter()
            .map(|s| &s.name)
            .chain([&chart.reference_lines[0].name])
        {
            assert!(
                words.contains(&format!(">{name}</text>")),
                "{name} is not above: {svg}"
            );
            assert!(!plot.contains(name.as_str()), "{name} is in the plot: {svg}");
        }
        assert!(
            words.contains("▲ beyond the scale: loss of single steps, up to 50.00") && !plot.contains('▲')
        );
        // Within the picture, above the plot, and no two over each other.
        let number = |text: &str, name: &str| -> f64 {
            let rest = text.split_once(&format!(" {name}=\"")).unwrap().1;
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        let places: Vec<(f64, f64, f64)> = words
            .split("<text ")
            .skip(1)
            .map(|text| {
                let letters = text
                    .split_once('>')
                    .unwrap()
                    .1
                    .split_once('<')
                    .unwrap()
                    .0
                    .chars()
                    .count();
                let x = number(&format!(" {text}"), "x");
                (x, x + LETTER * letters as f64, number(text, "y"))
            })
            .collect();
        // Four curves, a reference line, and the note of each curve.
        assert_eq!(places.len(), 9);
        for (i, a) in places.iter().enumerate() {
            assert!(a.1 <= WIDTH && a.2 < top + TOP, "{places:?}");
            assert!(
                places[..i].iter().all(|b| a.2 != b.2 || a.0 >= b.1 || b.0 >= a.1),
                "{places:?}"
            );
        }
    }

    #[test]
    fn chart_draws_every_finite_point_and_escapes_names() {
        let chart = Chart {
            x_label: "step".into(),
            y_label: "loss".into(),
            series: vec![Series {
                name: "a<b".into(),
                class: "raw",
                points: vec![(0.0, 3.0), (1.0, f64::NAN), (2.0, 1.0)],
                intervals: vec![],
            }],
            reference_lines: vec![ReferenceLine {
                name: "entropy".into(),
                y: 0.5,
            }],
        };
        let svg = chart.svg().unwrap();
        assert!(svg.contains("a&lt;b") && !svg.contains("NaN"));
        let path = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(path.matches(',').count(), 2, "{path}");
        assert!(Chart::default().svg().is_none());
    }
}
