//! Tables as text: what does not fit into a terminal is left out, and said to be.

use std::collections::HashSet;
use std::fmt::Write as _;

use console::{measure_text_width, truncate_str};

use super::rows::{AWAY, Shown, ShownComparison};
use crate::cli::render::style;
use crate::cli::render::table::{columns, end, paragraph, width as table_width, widths};
use mdlm::manifest::{Metric, Point};
use mdlm::numbers::took;
use mdlm::plural::counted;
use mdlm::stages::compare::group::{self, Group};
use mdlm::stages::compare::{
    Column, Row, Verdict, are_signed, fields, measured, remarks, shown_differences, title_of_text,
};

/// Fields that are shown at most.
const FIELDS: usize = 8;
/// Hidden columns that are named at most.
const LEFT_OUT: usize = 8;
/// Columns of a value that are shown.
const SHOWN: usize = 24;

/// Tables as text, each with its own text's size where several of a kind are on different texts.
pub fn texts(tables: &[ShownComparison], color: bool) -> Vec<String> {
    let kind = |table: &ShownComparison| table.rows.first().map(|row| row.kind);
    let of = |table: &ShownComparison| {
        let several = tables.iter().filter(|other| kind(other) == kind(table)).count() > 1;
        let title = several.then(|| paragraph(&title_of_text(&table.rows)) + "\n");
        title.unwrap_or_default() + &text(table, color)
    };
    tables.iter().map(of).collect()
}

/// A table as text: what does not fit into a terminal's width is left out, and said to be.
fn text(table: &ShownComparison, color: bool) -> String {
    let ShownComparison {
        by,
        verdict,
        differences,
        groups,
        rows,
    } = table;
    let verdict = verdict.as_ref().map(Verdict::sentence);
    let all: Vec<&Row> = rows.iter().map(|shown| &shown.row).collect();
    let differences = by.and_then(|by| shown_differences(&all, groups.as_deref(), by, differences));
    let (mut differ, same) = fields(&all);
    let mut metrics = measured(&all);
    if let Some(by) = *by {
        metrics.sort_by_key(|metric| *metric != by);
    }
    let mut names: Vec<&str> = Vec::new();
    for name in rows.iter().filter_map(|shown| shown.row.name.as_deref()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let named = names.len() > 1 || differ.is_empty();
    let ran = rows.iter().filter(|shown| is_here(shown)).count();
    let mut heading = names.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    if names.len() > 3 {
        heading.push_str(", …");
    }
    let count = counted(rows.len(), "result");
    let mut parts = vec![format!("{heading}: {count}")];
    if ran < rows.len() {
        parts.push(format!("{ran} of them in the store"));
    }
    let mut text = String::new();
    if let Some(groups) = groups {
        let heading = parts.join(", ");
        let means = Means {
            rows,
            all: &all,
            groups,
        };
        text.push_str(&means.text(&heading, *by, &differ, &metrics, color));
        text.push('\n');
        let notes = [group::what_is_spread(groups)].into_iter().chain(verdict.clone());
        push_notes(&mut text, notes);
        text.push('\n');
        if let Some(differences) = &differences {
            push_differences(&mut text, differences, color);
            text.push('\n');
        }
        parts = vec!["single results by setting; within a setting, in the order of the manifest".to_owned()];
    } else if let Some(by) = by.filter(|_| ran > 1) {
        parts.push(format!("{} first", by.lead()));
    }
    let heading = parts.join(", ");
    let mut left_out = labels(differ.drain(differ.len().min(FIELDS)..));
    let mut last = LAST.to_vec();
    let mut cells = grid(rows, named, &differ, &metrics, &last);
    while width(&cells) > table_width() && metrics.len() > 1 {
        left_out.extend(metrics.pop().map(|metric| metric.name().to_owned()));
        cells = grid(rows, named, &differ, &metrics, &last);
    }
    // What distinguishes rows goes last.
    while width(&cells) > table_width() && !last.is_empty() {
        left_out.push(last.remove(0).to_owned());
        cells = grid(rows, named, &differ, &metrics, &last);
    }
    let mut without = Vec::new();
    while width(&cells) > table_width() && differ.len() > 1 {
        without.extend(differ.pop());
        cells = grid(rows, named, &differ, &metrics, &last);
    }
    left_out.splice(0..0, labels(without.into_iter().rev()));
    text.push_str(&(paragraph(&heading) + "\n\n"));
    let own_columns = usize::from(named) + differ.len();
    text.push_str(&columns(&cells, color, |row, column| match row.checked_sub(1) {
        None => style::FAINT,
        Some(_) if column < own_columns => style::STRONG,
        Some(row) if column == own_columns && rows[row].row.metrics.is_empty() => style::WARNING,
        Some(_) => style::PLAIN,
    }));
    let mut notes = Vec::new();
    notes.extend(same_in_all(&same, &all));
    notes.extend(verdict.filter(|_| groups.is_none()));
    notes.extend(remarks(&all));
    // The table of means may have had room for it.
    let of = if groups.is_some() {
        " of single results"
    } else {
        ""
    };
    notes.extend(no_room(left_out, of));
    if !notes.is_empty() {
        text.push('\n');
        push_notes(&mut text, notes);
    }
    if let Some(differences) = differences.filter(|_| groups.is_none()) {
        text.push('\n');
        push_differences(&mut text, &differences, color);
    }
    text
}

/// Lists the fields with one value in all rows; nothing where there are none.
fn same_in_all(same: &[Column], rows: &[&Row]) -> Option<String> {
    let point = &rows.first()?.point;
    let same: Vec<_> = same
        .iter()
        .map(|column| format!("{} {}", column.label, shortened(&column.cell(point))))
        .collect();
    (!same.is_empty()).then(|| format!("the same in all: {}", same.join(", ")))
}

/// Appends the differences from the first: their sentence and their table.
fn push_differences(text: &mut String, (sentence, cells): &(String, Vec<Vec<String>>), color: bool) {
    push_notes(text, [sentence.clone()]);
    text.push_str(&columns(cells, color, |row, column| match (row, column) {
        (0, _) => style::FAINT,
        (_, 0) => style::STRONG,
        _ => style::PLAIN,
    }));
}

/// Whether a row's results are in the store.
fn is_here(shown: &Shown) -> bool {
    shown.artifact.is_some() && shown.status != AWAY
}

/// Appends notes, each from the start of a line.
fn push_notes(text: &mut String, notes: impl IntoIterator<Item = String>) {
    for note in notes {
        text.push_str(&paragraph(&note));
        text.push('\n');
    }
}

/// Says which columns a table had no room for.
fn no_room(mut left_out: Vec<String>, of: &str) -> Option<String> {
    let more = left_out.len().saturating_sub(LEFT_OUT);
    left_out.truncate(LEFT_OUT);
    let and = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    (!left_out.is_empty()).then(|| format!("no room for {}{and}{of}: see --json", left_out.join(", ")))
}

/// What a table of means over seeds is made of.
struct Means<'a> {
    rows: &'a [Shown],
    all: &'a [&'a Row],
    groups: &'a [Group],
}

impl Means<'_> {
    /// The table, with what it had no room for.
    fn text(
        &self,
        heading: &str,
        by: Option<Metric>,
        differ: &[Column],
        metrics: &[Metric],
        color: bool,
    ) -> String {
        let settings = group::counted(self.groups, self.all);
        let mut heading = format!("{heading}, {settings}: mean ± sd over seeds");
        if let Some(by) = by.filter(|_| self.groups.len() > 1) {
            let _ = write!(heading, ", {} first", by.lead());
        }
        let shared = differ.iter().filter(|column| column.is_of(self.groups));
        let mut fields: Vec<Column> = shared.cloned().collect();
        let mut metrics = metrics.to_vec();
        let mut left_out = labels(fields.drain(fields.len().min(FIELDS)..));
        let mut cells = self.cells(&fields, &metrics);
        let mut narrow = Vec::new();
        while width(&cells) > table_width() && (metrics.len() > 1 || fields.len() > 1) {
            if metrics.len() > 1 {
                left_out.extend(metrics.pop().map(|metric| metric.name().to_owned()));
            } else {
                narrow.extend(fields.pop());
            }
            cells = self.cells(&fields, &metrics);
        }
        left_out.splice(0..0, labels(narrow.into_iter().rev()));
        let own_columns = usize::from(self.are_named()) + fields.len();
        let mut text = paragraph(&heading) + "\n\n";
        text.push_str(&columns(&cells, color, |row, column| match row {
            0 => style::FAINT,
            _ if column < own_columns => style::STRONG,
            _ => style::PLAIN,
        }));
        if let Some(note) = no_room(left_out, " of means") {
            text.push('\n');
            push_notes(&mut text, [note]);
        }
        text
    }

    /// Whether the groups differ by name.
    fn are_named(&self) -> bool {
        self.groups.iter().any(|group| group.name != self.groups[0].name)
    }

    /// The cells, the heading first. A metric that not all of a group's results have says of how many its mean is.
    fn cells(&self, fields: &[Column], metrics: &[Metric]) -> Vec<Vec<String>> {
        let stage = self.are_named().then_some("stage");
        let titles = metrics.iter().map(|metric| metric.name());
        let first = stage
            .into_iter()
            .chain(fields.iter().map(|column| column.label.as_str()))
            .chain(["seeds"])
            .chain(titles);
        let signed = are_signed(self.all);
        let values = values(fields, self.groups.iter().map(|group| &group.point));
        let body = self.groups.iter().zip(values).map(|(group, values)| {
            let name = stage.map(|_| shortened(group.name.as_deref().unwrap_or_default()));
            let here = |row: usize| is_here(&self.rows[row]);
            let seeds = group.counted(self.all, here);
            let ran = group.distinct(self.all, here);
            let metrics = metrics.iter().map(|metric| {
                group.metric(*metric).map_or_else(String::new, |spread| {
                    let of = if spread.n < ran {
                        format!(" ({})", counted(spread.n, "seed"))
                    } else {
                        String::new()
                    };
                    group.shown(*metric, signed) + &of
                })
            });
            name.into_iter()
                .chain(values)
                .chain([seeds])
                .chain(metrics)
                .collect()
        });
        std::iter::once(first.map(str::to_owned).collect())
            .chain(body)
            .collect()
    }
}

fn shortened(text: &str) -> String {
    truncate_str(text, SHOWN, "…").into_owned()
}

fn shortened_to_end(text: &str) -> String {
    if measure_text_width(text) <= SHOWN {
        text.to_owned()
    } else {
        format!("…{}", end(text, SHOWN - 1))
    }
}

/// The labels of columns.
fn labels(columns: impl Iterator<Item = Column>) -> Vec<String> {
    columns.map(|column| column.label).collect()
}

/// The values of rows, each row's by column. Long ones are shortened, and those of a column that differ stay different.
fn values<'a>(columns: &[Column], points: impl Iterator<Item = &'a Point>) -> Vec<Vec<String>> {
    let points: Vec<&Point> = points.collect();
    let mut rows = vec![Vec::with_capacity(columns.len()); points.len()];
    for column in columns {
        let cells = points.iter().map(|point| column.cell(point)).collect();
        for (row, cell) in rows.iter_mut().zip(distinctly_shortened(cells)) {
            row.push(cell);
        }
    }
    rows
}

/// Cells shortened to their beginnings, else to their ends, whichever are as many different ones; else as they are.
fn distinctly_shortened(cells: Vec<String>) -> Vec<String> {
    let distinct = |cells: &[String]| cells.iter().collect::<HashSet<_>>().len();
    let all = distinct(&cells);
    let mut ways = [shortened, shortened_to_end]
        .into_iter()
        .map(|way| cells.iter().map(|cell| way(cell)).collect::<Vec<_>>());
    ways.find(|short| distinct(short) == all).unwrap_or(cells)
}

/// The cells of a table, its heading first.
fn grid(
    rows: &[Shown],
    named: bool,
    differ: &[Column],
    metrics: &[Metric],
    last: &[&'static str],
) -> Vec<Vec<String>> {
    let heading: Vec<String> = named
        .then_some("stage")
        .into_iter()
        .chain(differ.iter().map(|column| column.label.as_str()))
        .chain(metrics.iter().map(|metric| metric.name()))
        .chain(metrics.is_empty().then_some("status"))
        .chain(last.iter().copied())
        .map(str::to_owned)
        .collect();
    let signed = are_signed(&rows.iter().map(|shown| &shown.row).collect::<Vec<_>>());
    let values = values(differ, rows.iter().map(|shown| &shown.row.point));
    let body = rows.iter().zip(values).map(|(shown, values)| {
        let row = &shown.row;
        let mut line: Vec<String> = named
            .then(|| row.name.clone().unwrap_or_default())
            .into_iter()
            .collect();
        line.extend(values);
        for place in 0..metrics.len().max(1) {
            let found = metrics.get(place).filter(|metric| row.metric(**metric).is_some());
            line.push(match found {
                Some(metric) => row.shown(*metric, signed),
                // Measured, but by another metric: its status would stand there like a value.
                None if place == 0 && row.metrics.is_empty() => shown.status.to_owned(),
                None => String::new(),
            });
        }
        line.extend(last.iter().map(|column| {
            match *column {
                "time" => shown
                    .seconds
                    .map_or_else(String::new, |seconds| took(seconds, shown.resumed_from)),
                _ => shown
                    .artifact
                    .map_or_else(String::new, |artifact| artifact.short()),
            }
        }));
        line
    });
    std::iter::once(heading).chain(body).collect()
}

/// Columns that no field and no metric fills.
const LAST: [&str; 2] = ["time", "artifact"];

/// The width of a table.
fn width(cells: &[Vec<String>]) -> usize {
    let widths = widths(cells).into_iter();
    widths.map(|width| width + 2).sum::<usize>().saturating_sub(2)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::report::report;
    use super::super::rows::by_kind;
    use super::*;
    use mdlm::data::Unit;
    use mdlm::evaluate::Interval;
    use mdlm::manifest::StageKind;
    use mdlm::stages::replicates::{Setting, StageSeed};
    use mdlm::store::Digest;

    /// A setting by a number, with a seed of its training.
    fn setting(number: f64, seed: u64) -> Setting {
        Setting {
            digest: Digest::of(number.to_string().as_bytes()),
            seeds: vec![StageSeed {
                path: "model".to_owned(),
                stage: "model".to_owned(),
                kind: StageKind::Train,
                seed,
            }],
        }
    }

    fn shown(stage: &str, rate: f64, bits: Option<f64>) -> Shown {
        let interval = |value: f64| Interval {
            value,
            low: Some(value - 0.25),
            high: Some(value + 0.25),
        };
        let metrics = bits.map(|bits| {
            vec![
                (Metric::BitsPerByte, interval(bits)),
                (Metric::Perplexity, interval(bits * 100.0)),
                (Metric::NatsPerToken, interval(bits * 2.0)),
            ]
        });
        Shown {
            row: Row {
                name: Some(stage.to_owned()),
                point: [("learning_rate", json!(rate)), ("seed", json!(1))]
                    .map(|(label, value)| (label.to_owned(), value))
                    .into(),
                metrics: metrics.unwrap_or_default(),
                unit: bits.map(|_| Unit::Token),
                ..Row::default()
            },
            stage: format!("{stage}@learning_rate={rate},seed=1"),
            kind: StageKind::Evaluate,
            manifest: "a.json".to_owned(),
            status: if bits.is_some() { "done" } else { "not run" },
            why: None,
            seconds: bits,
            resumed_from: None,
            artifact: bits.map(|_| Digest::of(b"it")),
            path: None,
            setting: setting(rate, 1),
        }
    }

    #[test]
    fn table_fits_a_terminal_and_names_columns_left_out() {
        let rows = vec![
            shown("bound", 0.1, Some(2.5)),
            shown("bound", 0.01, None),
            shown("bound", 0.001, Some(1.5)),
        ];
        let table = by_kind(rows, Some(Metric::Perplexity)).remove(0);
        let text = text(&table, false);
        assert!(
            text.lines()
                .all(|line| line.chars().count() <= crate::cli::render::table::WIDTH),
            "{text}"
        );
        insta::assert_snapshot!(text, @r"
        bound: 3 results, 2 of them in the store, lowest perplexity first

        learning_rate  perplexity           bits_per_byte    time   artifact
        0.001          150.0 (149.8–150.2)  1.5000 ± 0.2500  1.5 s  22324018
        0.1            250.0 (249.8–250.2)  2.5000 ± 0.2500  2.5 s  22324018
        0.01           not run

        the same in all: seed 1
        no best by perplexity: learning_rate 0.001 comes first, clearly different from
        the others in the evaluation alone; results differ clearly where their 95%
        intervals do not overlap; with one seed of training, the intervals cover the
        evaluation alone, not the effect of another seed
        perplexity and nats_per_token: per token of text
        no room for nats_per_token: see --json
        ");
    }

    #[test]
    fn exact_values_and_bounds_have_their_signs() {
        let rows = || {
            let mut causal = shown("causal", 0.1, Some(0.75));
            causal.row.objective = Some("ar".to_owned());
            causal.row.quantity = mdlm::evaluate::Quantity::Exact;
            causal.row.scored = true;
            let mut masked = shown("masked", 0.1, Some(2.5));
            masked.setting = setting(0.2, 1);
            for shown in [&mut causal, &mut masked] {
                shown.seconds = Some(1.5);
            }
            vec![masked, causal]
        };
        let table = by_kind(rows(), None).remove(0);
        let printed = text(&table, false);
        insta::assert_snapshot!(printed, @r"
        causal, masked: 2 results, lowest bits_per_byte first

        stage   objective  bits_per_byte      perplexity             time   artifact
        causal  ar         0.7500 ± 0.2500    75.00 (74.75–75.25)    1.5 s  22324018
        masked  mdlm       ≤ 2.5000 ± 0.2500  ≤ 250.0 (249.8–250.2)  1.5 s  22324018

        the same in all: learning_rate 0.1, seed 1
        no best by bits_per_byte: causal, objective ar comes first, clearly different
        from the others in the evaluation alone; results differ clearly where their 95%
        intervals do not overlap; with one seed of training, the intervals cover the
        evaluation alone, not the effect of another seed; the first is exact and the
        other is an upper bound, so that the difference is an upper bound on that of the
        likelihoods
        ≤ marks an upper bound; 1 of 2 rows is exact, without a sign
        perplexity and nats_per_token: per token of text in 1 row, per scored token of
        text in 1; the two are not comparable: an autoregressive model is given the
        first token of each row; compare them by bits_per_byte
        no room for nats_per_token: see --json
        ");
        let json = serde_json::to_value(report(&table)).unwrap();
        let fields = |row: usize| {
            ["objective", "quantity", "scored", "given_lengths"].map(|field| json["rows"][row][field].clone())
        };
        let none = serde_json::Value::Null;
        assert_eq!(
            fields(0),
            [json!("ar"), json!("exact"), json!(true), none.clone()]
        );
        assert_eq!(fields(1), [none.clone(), none.clone(), none.clone(), none]);
        assert_eq!(json["verdict"]["difference_at_most"], json!([1]));
        // By perplexity they are not ranked, and a row that is given lengths is not ranked at all.
        let table = by_kind(rows(), Some(Metric::Perplexity)).remove(0);
        assert_eq!(table.by, None);
        let mut given = rows();
        given[0].row.given_lengths = true;
        let table = by_kind(given, None).remove(0);
        assert_eq!(
            (table.by, &*table.rows[0].stage),
            (None, "masked@learning_rate=0.1,seed=1")
        );
        let printed = text(&table, false).replace('\n', " ");
        assert!(
            printed.contains("pack the rows with `\"padding\": \"counted\"` to compare them"),
            "{printed}"
        );
    }

    #[test]
    fn objects_show_the_fields_in_which_they_differ() {
        let of = |stage: &str, objective: serde_json::Value, bits: f64| {
            let mut shown = shown(stage, 0.1, Some(bits));
            shown.setting = setting(bits, 1);
            if objective["kind"] == "ar" {
                shown.row.objective = Some("ar".to_owned());
                shown.row.quantity = mdlm::evaluate::Quantity::Exact;
                shown.row.scored = true;
            }
            if stage == "bound" {
                shown.row.point.insert("objective".to_owned(), objective);
            }
            shown
        };
        let rows = vec![
            of("bound", json!({ "kind": "ar" }), 2.5),
            of("bound", json!({ "kind": "mdlm" }), 1.5),
            of(
                "bound",
                json!({ "kind": "mdlm", "time_conditioning": true }),
                1.25,
            ),
            of("half", json!({ "kind": "ar" }), 3.5),
        ];
        let table = by_kind(rows, None).remove(0);
        let text = text(&table, false);
        insta::assert_snapshot!(text, @r"
        bound, half: 4 results, lowest bits_per_byte first

        stage  objective  objective.time_conditioning  bits_per_byte      artifact
        bound  mdlm       true                         ≤ 1.2500 ± 0.2500  22324018
        bound  mdlm                                    ≤ 1.5000 ± 0.2500  22324018
        bound  ar                                      2.5000 ± 0.2500    22324018
        half   ar                                      3.5000 ± 0.2500    22324018

        the same in all: learning_rate 0.1, seed 1
        no best by bits_per_byte: bound, objective mdlm, objective.time_conditioning
        true is not clearly different from bound, objective mdlm; results differ clearly
        where their 95% intervals do not overlap; with one seed of training, the
        intervals cover the evaluation alone, not the effect of another seed; the first
        is an upper bound and 2 of 3 others are exact, so that the differences are lower
        bounds on those of the likelihoods
        ≤ marks an upper bound; 2 of 4 rows are exact, without a sign
        perplexity and nats_per_token: per token of text in 2 rows, per scored token of
        text in 2; the two are not comparable: an autoregressive model is given the
        first token of each row; compare them by bits_per_byte
        no room for nats_per_token, perplexity, time: see --json
        ");
    }

    #[test]
    fn values_that_differ_are_not_shortened_to_the_same() {
        let of = |cells: &[&str]| distinctly_shortened(cells.iter().map(|&cell| cell.to_owned()).collect());
        assert_eq!(
            of(&["the beginnings of these", "the beginnings of values differ"]),
            ["the beginnings of these", "the beginnings of value…"]
        );
        assert_eq!(
            of(&[
                "/a/long/path/to/the/texts/first.txt",
                "/a/long/path/to/the/texts/second.txt",
                "b"
            ]),
            ["…/to/the/texts/first.txt", "…to/the/texts/second.txt", "b"]
        );
        let alike = [
            format!("{0}a{0}", "x".repeat(30)),
            format!("{0}b{0}", "x".repeat(30)),
        ];
        assert_eq!(distinctly_shortened(alike.to_vec()), alike);
    }

    #[test]
    fn row_with_another_metric_has_an_empty_cell() {
        let mut other = shown("other", 0.1, Some(0.82));
        other.row.metrics[0].0 = Metric::BitsPerByteNormalized;
        let rows = [shown("bound", 0.1, Some(2.5)), other, shown("bound", 0.01, None)];
        let metrics = [Metric::BitsPerByte, Metric::BitsPerByteNormalized];
        let cells = grid(&rows, true, &[], &metrics, &[]);
        assert_eq!(cells[1][1..], ["2.5000 ± 0.2500", ""]);
        assert_eq!(cells[2][1], "");
        assert!(cells[2][2].starts_with("0.82"), "{cells:?}");
        assert_eq!(cells[3][1..], ["not run", ""]);
    }

    #[test]
    fn seeds_are_no_ranking() {
        let of = |rate: f64, seed: u64, bits| {
            let mut shown = shown("bound", rate, bits);
            shown.setting = setting(rate, seed);
            shown.row.point.insert("seed".to_owned(), json!(seed));
            shown
        };
        let rows = vec![
            of(0.1, 1, Some(2.5)),
            of(0.1, 2, Some(1.0)),
            of(0.01, 1, Some(1.25)),
            of(0.01, 2, Some(1.5)),
            of(0.01, 3, None),
        ];
        let table = by_kind(rows, None).remove(0);
        let text = text(&table, false);
        assert!(
            text.lines()
                .all(|line| line.chars().count() <= crate::cli::render::table::WIDTH),
            "{text}"
        );
        insta::assert_snapshot!(text);
        let json = serde_json::to_value(report(&table)).unwrap();
        assert_eq!(json["groups"][0]["metrics"]["bits_per_byte"]["mean"], 1.375);
        assert_eq!(json["groups"][0]["rows"], json!([0, 1, 2]));
        // Manifests that differ in their seeds alone.
        let mut rows = vec![of(0.1, 1, Some(2.5)), of(0.1, 2, Some(1.0))];
        for (row, manifest) in rows.iter_mut().zip(["a", "b"]) {
            row.row.name = Some(format!("{manifest} bound"));
        }
        let table = by_kind(rows, None).remove(0);
        assert_eq!(table.groups.unwrap()[0].rows, [0, 1]);
    }

    #[test]
    fn no_metrics_make_no_means() {
        // Samples that no grammar judges, over three seeds.
        let rows: Vec<Shown> = (1..=3)
            .map(|seed| {
                let mut shown = shown("texts", 0.1, Some(1.0));
                shown.row.metrics.clear();
                shown.row.unit = None;
                shown.kind = StageKind::Sample;
                shown.row.point.insert("seed".to_owned(), json!(seed));
                shown.setting = setting(0.1, seed);
                shown
            })
            .collect();
        let table = by_kind(rows, None).remove(0);
        let text = text(&table, false);
        insta::assert_snapshot!(text, @r"
        texts: 3 results

        seed  status  time   artifact
        1     done    1.0 s  22324018
        2     done    1.0 s  22324018
        3     done    1.0 s  22324018

        the same in all: learning_rate 0.1
        ");
    }

    #[test]
    fn columns_without_room_are_listed_beneath_the_table() {
        let rows: Vec<Shown> = (1..=2)
            .map(|seed| {
                let mut shown = shown("bound", 0.1, Some(seed as f64));
                for label in ["a_long_name_of_a_field", "another_long_name_of_a_field"] {
                    let value = json!("x".repeat(20 + shown.row.point.len()));
                    shown.row.point.insert(label.to_owned(), value);
                }
                shown.row.point.insert("seed".to_owned(), json!(seed));
                shown.setting = setting(0.1, seed);
                shown
            })
            .chain([shown("bound", 0.01, Some(1.25))])
            .collect();
        let table = by_kind(rows, None).remove(0);
        let text = text(&table, false);
        assert!(
            text.lines()
                .all(|line| line.chars().count() <= crate::cli::render::table::WIDTH),
            "{text}"
        );
        let (means, single) = text.split_once("single results").unwrap();
        let flat = |text: &str| text.replace('\n', " ");
        let hidden =
            "no room for another_long_name_of_a_field, nats_per_token, perplexity of means: see --json";
        assert!(flat(means).contains(hidden), "{text}");
        assert!(flat(single).contains(" of single results: see --json"), "{text}");
        // Of means of one seed there is no spread.
        assert!(
            means
                .lines()
                .any(|line| line.starts_with("0.01 ") && !line.contains('±')),
            "{text}"
        );
    }
}
