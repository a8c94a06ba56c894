//! A pipeline's results as one HTML file: the graph, training curves, bounds, samples, provenance.
//!
//! The file is self-contained, without scripts, fonts or images from elsewhere, so that it can be mailed, archived and
//! opened in ten years. It shows the contents of artifacts and their records, and computes only a running mean for the
//! curves. Means over seeds come from compare stages.

use std::fmt::Write as _;

use crate::data::files::own::GENERATOR;
use crate::error::Result;
use crate::manifest::StageKind;

pub mod chart;
pub mod dag;
mod graph;
mod parts;
mod sections;
mod stage;

pub use parts::leaves;
pub use stage::ReportedStage;

use chart::escape;
use graph::nodes;
use parts::{figures, provenance, settings};

/// The report as one HTML document.
///
/// # Errors
/// An artifact's file that cannot be read or is not what its stage writes.
pub fn html(title: &str, description: Option<&str>, stages: &[ReportedStage<'_>]) -> Result<String> {
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
        let section = sections::section(stage, stages, folder)?;
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

const STYLE: &str = include_str!("style.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipeline_that_has_not_run_has_a_report_with_escaped_text() {
        let stages = [ReportedStage {
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
}
