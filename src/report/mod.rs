//! A pipeline's results as one HTML file: the graph, training curves, bounds, samples, provenance.
//!
//! The file is self-contained, without scripts, fonts or images from elsewhere, so that it can be mailed, archived and
//! opened in ten years. It shows the contents of artifacts and their records, and computes only a running mean for the
//! curves. Means over seeds come from compare stages.

use maud::{DOCTYPE, Markup, PreEscaped, html};

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

use graph::nodes;
use parts::{figures, provenance, settings};

/// What a report is of.
#[derive(Clone, Copy, Debug)]
pub struct ReportSubject<'a> {
    /// The pipeline's name.
    pub title: &'a str,
    /// The pipeline's description.
    pub description: Option<&'a str>,
    /// The manifest's path, which [`manifest_of`] finds in the page.
    pub manifest: &'a str,
}

/// The report as one HTML document.
///
/// # Errors
/// An artifact's file that cannot be read or is not what its stage writes.
pub fn page(subject: ReportSubject<'_>, stages: &[ReportedStage<'_>]) -> Result<String> {
    let title = subject.title;
    // Tables first: the instances of a sweep are looked at one by one, if at all.
    let (tables, others): (Vec<_>, Vec<_>) = stages.iter().partition(|stage| {
        matches!(
            stage.kind,
            StageKind::Compare | StageKind::Judge | StageKind::Table
        )
    });
    let sections: Vec<Markup> = tables
        .into_iter()
        .chain(others)
        .map(|stage| section(stage, stages))
        .collect::<Result<_>>()?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                (PreEscaped(GENERATOR))
                meta name=(MANIFEST) content=(subject.manifest);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " — mdlm report" }
                style { (PreEscaped(STYLE)) }
            }
            body { main {
                h1 { (title) }
                @if let Some(description) = subject.description {
                    p.lead { (description) }
                }
                div.scroll { (dag::svg(&nodes(stages))) }
                @for section in sections { (section) }
                section { h2 { "Provenance" } (provenance(stages)) }
            } }
        }
    };
    Ok(page.into_string())
}

/// The section of a stage; empty when it has not run.
fn section(stage: &ReportedStage<'_>, stages: &[ReportedStage<'_>]) -> Result<Markup> {
    let Some((record, folder)) = &stage.done else {
        return Ok(Markup::default());
    };
    let heading = html! { h2 { (stage.name) " " span.kind { (stage.kind.name()) } } };
    let content = html! {
        (figures(&stage.figures))
        (sections::section(stage, stages, folder)?)
        (settings(record))
    };
    Ok(html! {
        section {
            @if stage.name == stage.written {
                (heading) (content)
            } @else {
                details { summary { (heading) } (content) }
            }
        }
    })
}

/// The field of a page's head that names the manifest.
const MANIFEST: &str = "mdlm-manifest";

/// The path of the manifest that a report is of, from the beginning of the page.
#[must_use]
pub fn manifest_of(head: &str) -> Option<String> {
    let start = format!("<meta name=\"{MANIFEST}\" content=\"");
    let (path, _) = head.split_once(&start)?.1.split_once('"')?;
    let named = [("&quot;", "\""), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];
    Some(
        named
            .iter()
            .fold(path.to_owned(), |path, (name, sign)| path.replace(name, sign)),
    )
}

const STYLE: &str = include_str!("style.css");

#[cfg(test)]
mod tests;
