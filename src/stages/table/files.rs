//! The table for spreadsheets and papers.

use super::TableResult;
use super::cell::{Agreement, Cell};
use super::text::{heading, notes, row_lines};
use crate::stages::compare::quoted_field;

/// The table as CSV (RFC 4180), one line a cell: numbers in full, in the unit of their column.
#[must_use]
pub fn csv(found: &TableResult) -> String {
    let heading = [
        "column",
        "value_name",
        "row",
        "group",
        "value",
        "low",
        "high",
        "sd",
        "seeds",
        "quantity",
        "published",
        "published_at_most",
        "published_sd",
        "source",
        "verdict",
        "difference_percent",
        "missing",
    ];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    for (place, column) in found.columns.iter().enumerate() {
        for row in &found.rows {
            let cell = &row.cells[place];
            if cell == &Cell::default() {
                continue;
            }
            let number = |number: Option<f64>| number.map_or_else(String::new, |number| number.to_string());
            let here = cell.here.as_ref();
            let figure = cell.published.as_ref();
            let quantity = here.and_then(|here| {
                let quantity = here.quantity?;
                Some(if here.published_estimate {
                    "published"
                } else {
                    quantity.name()
                })
            });
            let source = figure.and_then(|figure| figure.source.clone().or_else(|| found.source.clone()));
            let (verdict, percent) = match cell.verdict {
                None => ("", None),
                Some(Agreement::Agrees) => ("agrees", None),
                Some(Agreement::Higher { percent }) => ("higher", Some(percent)),
                Some(Agreement::Lower { percent }) => ("lower", Some(percent)),
                Some(Agreement::Incomparable) => ("incomparable", None),
            };
            lines.push(vec![
                column.name.clone(),
                column.show.name().to_owned(),
                row.name.clone(),
                row.group.clone().unwrap_or_default(),
                number(here.map(|here| here.value)),
                number(here.and_then(|here| here.low)),
                number(here.and_then(|here| here.high)),
                number(here.and_then(|here| here.sd)),
                here.map_or_else(String::new, |here| here.seeds.to_string()),
                quantity.unwrap_or_default().to_owned(),
                number(figure.map(|figure| figure.value)),
                figure.map_or_else(String::new, |figure| figure.at_most.to_string()),
                number(figure.and_then(|figure| figure.sd)),
                source.unwrap_or_default(),
                verdict.to_owned(),
                number(percent),
                cell.missing.clone().unwrap_or_default(),
            ]);
        }
    }
    let line = |line: &Vec<String>| line.iter().map(quoted_field).collect::<Vec<_>>().join(",") + "\r\n";
    lines.iter().map(line).collect()
}

/// The table as LaTeX with the rules of `booktabs`; its footnotes follow the `tabular` as a paragraph.
#[must_use]
pub fn latex(found: &TableResult) -> String {
    let columns = found.columns.len();
    let mut lines = vec![
        "% needs \\usepackage{booktabs}".to_owned(),
        "\\begin{table}".to_owned(),
        "  \\centering".to_owned(),
        format!("  \\caption{{{}}}", escaped(&found.caption)),
        format!("  \\begin{{tabular}}{{l{}}}", "r".repeat(columns)),
        "    \\toprule".to_owned(),
    ];
    let row = |first: &str, cells: &[String]| {
        let cells: Vec<String> = std::iter::once(first.to_owned())
            .chain(cells.iter().map(|cell| escaped(cell)))
            .collect();
        format!("    {} \\\\", cells.join(" & "))
    };
    lines.push(row("", &found.columns.iter().map(heading).collect::<Vec<_>>()));
    lines.push("    \\midrule".to_owned());
    let mut group = None;
    for of in &found.rows {
        if of.group.is_some() && of.group != group {
            let title = escaped(of.group.as_deref().unwrap_or_default());
            if group.is_some() {
                lines.push("    \\midrule".to_owned());
            }
            lines.push(format!(
                "    \\multicolumn{{{}}}{{l}}{{\\textit{{{title}}}}} \\\\",
                columns + 1
            ));
        }
        group.clone_from(&of.group);
        let [values, figures] = row_lines(found, of);
        lines.extend(values.map(|values| row(&escaped(&of.name), &values)));
        lines.extend(figures.map(|figures| row(&escaped(&of.published_name()), &figures)));
    }
    lines.push("    \\bottomrule".to_owned());
    lines.push("  \\end{tabular}".to_owned());
    let notes = notes(found);
    if !notes.is_empty() {
        lines.push("  \\par\\medskip\\footnotesize".to_owned());
        let notes: Vec<String> = notes.iter().map(|note| format!("  {}", escaped(note))).collect();
        lines.push(notes.join("\n\n"));
    }
    lines.push("\\end{table}".to_owned());
    lines.join("\n") + "\n"
}

/// Text as LaTeX shows it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', character]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '|' => out.push_str("\\textbar{}"),
            '<' => out.push_str("\\textless{}"),
            '>' => out.push_str("\\textgreater{}"),
            '"' => out.push_str("\\textquotedbl{}"),
            '≥' => out.push_str("$\\geq$"),
            '≤' => out.push_str("$\\leq$"),
            '±' => out.push_str("$\\pm$"),
            '–' => out.push_str("--"),
            '\n' | '\r' => out.push(' '),
            other => out.push(other),
        }
    }
    out
}
