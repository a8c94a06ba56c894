//! Line charts as inline SVG: no script, no font, no colour that the page's light and dark styles do not set. Words stand
//! above the plot and beside its axes: where curves are drawn there is no room that is free for any curve.

use maud::{Markup, html};

use super::parts::tenths;

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
    /// Whether both axes are logarithmic: then all of every curve is within the scale, and points that are not above 0 are left
    /// out.
    pub logarithmic: bool,
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

/// Steps 1, 2 and 5 of each power of ten in a range above 0; powers alone where those are more than `wanted`.
fn logarithmic_ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let of = |steps: &'static [f64]| -> Vec<f64> {
        let all = powers
            .clone()
            .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        all.filter(|tick| (low..=high).contains(tick)).collect()
    };
    let fine = of(&[1.0, 2.0, 5.0]);
    let coarse = of(&[1.0]);
    if fine.len() > wanted && coarse.len() > 1 {
        coarse
    } else {
        fine
    }
}

/// The label of a tick of a logarithmic axis.
fn logarithmic_label(value: f64) -> String {
    if value >= 1.0 {
        return label(value, 1.0);
    }
    let digits = (-value.log10()).ceil().max(0.0) as usize;
    format!("{value:.digits$}")
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

/// The ranges of values that a plot shows, and where in the drawing they lie.
struct PlotScale {
    /// The lowest and the highest x.
    x: (f64, f64),
    /// The lowest and the highest y.
    y: (f64, f64),
    /// Whether distances are those of logarithms.
    logarithmic: bool,
}

impl PlotScale {
    fn scaled(&self, values: [f64; 3]) -> [f64; 3] {
        if self.logarithmic {
            values.map(f64::ln)
        } else {
            values
        }
    }

    /// The distance of an x from the left edge of the drawing.
    fn across(&self, x: f64) -> f64 {
        let [low, high, x] = self.scaled([self.x.0, self.x.1, x]);
        let span = if high > low { high - low } else { 1.0 };
        LEFT + (x - low) / span * (WIDTH - LEFT - RIGHT)
    }

    /// The distance of a y from the top of the drawing.
    fn down(&self, y: f64) -> f64 {
        let [low, high, y] = self.scaled([self.y.0, self.y.1, y]);
        TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)
    }
}

impl Chart {
    /// The chart as an `<svg>` element, or nothing when no curve has a point.
    #[must_use]
    pub fn svg(&self) -> Option<Markup> {
        let finite: Vec<Vec<(f64, f64)>> = self
            .series
            .iter()
            .map(|s| {
                s.points
                    .iter()
                    .copied()
                    .filter(|p| p.0.is_finite() && p.1.is_finite())
                    .filter(|p| !self.logarithmic || p.0 > 0.0 && p.1 > 0.0)
                    .collect()
            })
            .collect();
        let scale = self.scale(&finite)?;
        let (legend, height) = self.legend();
        let beyond = self.beyond(&finite, scale.y);
        let top = height + LINE * beyond.len() as f64;
        Some(html! {
            svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT + top) } role="img"
                aria-label={ (self.y_label) " against " (self.x_label) } {
                (legend)
                @for (line, note) in beyond.iter().enumerate() {
                    text.beyond x=(LEFT) y=(tenths(height + LINE * line as f64 + 14.0)) { (note) }
                }
                g transform={ "translate(0," (top) ")" } {
                    (self.axes(&scale))
                    @for level in self.levels() {
                        @let y = tenths(scale.down(level.y));
                        line.level x1=(LEFT) x2=(tenths(WIDTH - RIGHT)) y1=(y) y2=(y) {}
                    }
                    @for (series, points) in self.series.iter().zip(&finite) {
                        (series.drawn(points, &scale))
                    }
                }
            }
        })
    }

    /// The reference lines that can be drawn.
    fn levels(&self) -> impl Iterator<Item = &ReferenceLine> {
        self.reference_lines.iter().filter(|line| line.y.is_finite())
    }

    /// The scale of all curves and reference lines, or nothing when no curve has a point.
    fn scale(&self, finite: &[Vec<(f64, f64)>]) -> Option<PlotScale> {
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
        let after = if self.logarithmic {
            x_low
        } else {
            x_low + (x_high - x_low) * 0.1
        };
        let ys = || {
            let curves = finite.iter().flatten().filter(move |p| p.0 >= after).map(|p| p.1);
            curves.chain(self.levels().map(|l| l.y))
        };
        let (y_low, y_high) = (
            ys().fold(f64::INFINITY, f64::min),
            ys().fold(f64::NEG_INFINITY, f64::max),
        );
        if self.logarithmic {
            let pad = (y_high / y_low).powf(0.1).max(1.1);
            return Some(PlotScale {
                x: (x_low, x_high),
                y: (y_low / pad, y_high * pad),
                logarithmic: true,
            });
        }
        let pad = ((y_high - y_low) * 0.1).max(y_high.abs() * 1e-3).max(1e-9);
        Some(PlotScale {
            x: (x_low, x_high),
            y: (y_low - pad, y_high + pad),
            logarithmic: false,
        })
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
                series.name,
                four_digits(value),
                self.x_label,
                label(at, 1.0),
            ))
        };
        let curves = || self.series.iter().zip(finite);
        [true, false]
            .into_iter()
            .flat_map(|above| curves().filter_map(move |curve| say(curve, above)))
            .collect()
    }

    /// Grid lines, the numbers at both axes and the axes' names.
    fn axes(&self, scale: &PlotScale) -> Markup {
        let step = |ticks: &[f64]| match ticks {
            [first, second, ..] => second - first,
            _ => 1.0,
        };
        let ticks = |(low, high), wanted| {
            if scale.logarithmic {
                logarithmic_ticks(low, high, wanted)
            } else {
                ticks(low, high, wanted)
            }
        };
        let label = |value, step| {
            if scale.logarithmic {
                logarithmic_label(value)
            } else {
                label(value, step)
            }
        };
        let vertical = ticks(scale.y, 5);
        let horizontal = ticks(scale.x, 6);
        html! {
            @for value in &vertical {
                @let y = scale.down(*value);
                line.grid x1=(LEFT) x2=(tenths(WIDTH - RIGHT)) y1=(tenths(y)) y2=(tenths(y)) {}
                text x=(tenths(LEFT - 8.0)) y=(tenths(y + 4.0)) text-anchor="end" { (label(*value, step(&vertical))) }
            }
            @for value in &horizontal {
                text x=(tenths(scale.across(*value))) y=(tenths(HEIGHT - BOTTOM + 18.0)) text-anchor="middle" {
                    (label(*value, step(&horizontal)))
                }
            }
            text.axis x=(tenths(f64::midpoint(LEFT, WIDTH - RIGHT))) y=(tenths(HEIGHT - 6.0)) text-anchor="middle" {
                (self.x_label)
            }
            text.axis transform={ "translate(14," (tenths(f64::midpoint(TOP, HEIGHT - BOTTOM))) ") rotate(-90)" }
                text-anchor="middle" { (self.y_label) }
        }
    }

    /// The names of curves and reference lines, in lines from the top, as many in a line as have room, and the height that
    /// they take.
    fn legend(&self) -> (Markup, f64) {
        let drawn = |series: &&Series| series.points.iter().any(|p| p.0.is_finite() && p.1.is_finite());
        let curves = self.series.iter().filter(drawn).map(|s| (s.class, &*s.name));
        let levels = self.levels().map(|l| ("level", &*l.name));
        let (mut x, mut line) = (LEFT, 0.0);
        let names: Vec<(&str, &str, f64, f64)> = curves
            .chain(levels)
            .map(|(class, name)| {
                let width = STROKE + GAP + LETTER * name.chars().count() as f64;
                if x > LEFT && x + width > WIDTH - RIGHT {
                    (x, line) = (LEFT, line + 1.0);
                }
                let start = x;
                x += width + BETWEEN;
                (class, name, start, LINE * line + 14.0)
            })
            .collect();
        let height = if names.is_empty() {
            0.0
        } else {
            LINE * (line + 1.0)
        };
        let legend = html! {
            @for (class, name, x, y) in names {
                @let (end, middle) = (x + STROKE, tenths(y - 4.0));
                line class=(class) x1=(tenths(x)) x2=(tenths(end)) y1=(middle) y2=(middle) {}
                text.name x=(tenths(end + GAP)) y=(tenths(y)) { (name) }
            }
        };
        (legend, height)
    }
}

impl Series {
    /// The intervals and the curve through those of its points that are finite, as far as the scale goes.
    fn drawn(&self, finite: &[(f64, f64)], scale: &PlotScale) -> Markup {
        let (bottom, top) = scale.y;
        let whiskers = self
            .points
            .iter()
            .zip(&self.intervals)
            .filter_map(|(point, half)| {
                let (low, high) = ((point.1 - half).max(bottom), (point.1 + half).min(top));
                (point.1.is_finite() && half.is_finite() && low < high).then_some((point.0, low, high))
            });
        let place = |&(x, y): &(f64, f64)| (tenths(scale.across(x)), tenths(scale.down(y)));
        html! {
            @for (x, low, high) in whiskers {
                @let x = tenths(scale.across(x));
                line class={ (self.class) " whisker" } x1=(x) x2=(x) y1=(tenths(scale.down(low)))
                    y2=(tenths(scale.down(high))) {}
            }
            @for part in between(&thin(finite), bottom, top) {
                @if let [one] = &*part {
                    @let (x, y) = place(one);
                    circle class=(self.class) cx=(x) cy=(y) r="2" {}
                } @else {
                    @let path: Vec<String> = part.iter().map(place).map(|(x, y)| format!("{x},{y}")).collect();
                    polyline class=(self.class) points=(path.join(" ")) {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chart_with_logarithmic_axes_has_equal_distances_for_equal_ratios() {
        let scale = PlotScale {
            x: (1.0, 100.0),
            y: (1e-3, 10.0),
            logarithmic: true,
        };
        assert!((scale.across(10.0) - f64::midpoint(scale.across(1.0), scale.across(100.0))).abs() < 1e-9);
        assert!((scale.down(0.1) - f64::midpoint(scale.down(1e-3), scale.down(10.0))).abs() < 1e-9);
        assert_eq!(logarithmic_ticks(2.0, 60.0, 6), [2.0, 5.0, 10.0, 20.0, 50.0]);
        let powers = logarithmic_ticks(0.002, 300.0, 5);
        assert_eq!(powers.len(), 5);
        let labels: Vec<String> = [0.005, 0.01, 2.0, 20_000.0].map(logarithmic_label).to_vec();
        assert_eq!(labels, ["0.005", "0.01", "2", "20k"]);
        let chart = Chart {
            logarithmic: true,
            x_label: "calls".into(),
            y_label: "nats".into(),
            series: vec![Series {
                name: "a".into(),
                class: "smooth",
                points: vec![(1.0, 0.5), (8.0, 0.05), (64.0, 0.0)],
                intervals: vec![0.1, 0.1, 0.1],
            }],
            reference_lines: vec![],
        };
        let svg = chart.svg().unwrap().into_string();
        assert!(
            svg.contains("<polyline") && !svg.contains("beyond the scale"),
            "{svg}"
        );
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

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
            logarithmic: false,
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
        let svg = chart.svg().unwrap().into_string();
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
            logarithmic: false,
            x_label: "step".into(),
            y_label: "nats".into(),
            series: vec![
                series("loss", 12.0),
                series("running mean", 2.0),
                series("validation bound", 99.55),
            ],
            reference_lines: vec![],
        };
        let svg = chart.svg().unwrap().into_string();
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
            logarithmic: false,
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
        let svg = chart.svg().unwrap().into_string();
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
            logarithmic: false,
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
        let svg = chart.svg().unwrap().into_string();
        assert!(svg.contains("a&lt;b") && !svg.contains("NaN"));
        let path = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(path.matches(',').count(), 2, "{path}");
        assert!(Chart::default().svg().is_none());
    }
}
