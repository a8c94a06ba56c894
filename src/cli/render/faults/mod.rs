//! The faults of a manifest, each with the lines at fault, in the manner of a compiler.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Level, Origin, Renderer, Snippet};

use super::table::options;
use super::terminal::Terminal;
use mdlm::manifest::fault::quoted;
use mdlm::manifest::{Fault, Faults, Location};

/// Shows every fault with its line on standard error.
pub fn show(faults: &Faults, terminal: &Terminal) {
    for fault in &faults.list {
        terminal.talk(&format!("{}\n", render(fault, faults, terminal.colors_talk())));
    }
    if faults.omitted > 0 {
        terminal.talk(&format!("… and {} more\n", faults.omitted));
    }
}

/// A fault with the line it stands on, in the manner of a compiler.
#[must_use]
pub fn render(fault: &Fault, faults: &Faults, color: bool) -> String {
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    }
    .term_width(WIDTH);
    let code = fault.code.name();
    let expected = fault
        .expected
        .as_ref()
        .map(|expected| format!("expected {expected}"));
    let column = fault.place.column + fault.place.span.end.saturating_sub(fault.place.span.start);
    let (label, below) = match &expected {
        Some(text) if column + text.chars().count() < WIDTH - 8 => (Some(text.as_str()), None),
        text => (None, text.as_deref()),
    };
    let title = Level::ERROR.primary_title(&fault.message).id(&code);
    let mut group = match line_of(faults, &fault.place) {
        Some((line, start)) => {
            // What stands on the same line is shown on it.
            let near = fault
                .related
                .iter()
                .filter(|related| same_line(&related.place, &fault.place))
                .map(|related| {
                    AnnotationKind::Context
                        .span(within(line, start, &related.place))
                        .label(&related.message)
                });
            let primary = AnnotationKind::Primary
                .span(within(line, start, &fault.place))
                .label(label);
            title.element(snippet(line, &fault.place).annotation(primary).annotations(near))
        }
        None => title
            .element(origin(&fault.place))
            .elements(label.map(|text| Level::NOTE.no_name().message(text))),
    };
    for related in fault
        .related
        .iter()
        .filter(|related| !same_line(&related.place, &fault.place))
    {
        group = match line_of(faults, &related.place) {
            Some((line, start)) => group.element(
                snippet(line, &related.place).annotation(
                    AnnotationKind::Context
                        .span(within(line, start, &related.place))
                        .label(&related.message),
                ),
            ),
            None => group.element(origin(&related.place)),
        };
    }
    if !fault.pointer.is_empty() {
        group = group.element(Level::NOTE.with_name("at").message(quoted(&fault.pointer)));
    }
    // Beside the gutter.
    let wrapped = |text| textwrap::fill(text, options(WIDTH - 12));
    group = group.elements(below.map(|text| Level::NOTE.no_name().message(wrapped(text))));
    group = group.elements(
        fault
            .hint
            .as_ref()
            .map(|hint| Level::HELP.with_name("hint").message(wrapped(hint))),
    );
    renderer.render(&[group])
}

/// Columns that a fault is laid out for.
const WIDTH: usize = 100;
/// A line of more bytes was not written by hand; only its place is printed.
const LONGEST_LINE: usize = 4_000;

fn origin(place: &Location) -> Origin<'_> {
    Origin::path(&place.source)
        .line(place.line)
        .char_column(place.column)
}

fn snippet<'a>(line: &'a str, place: &'a Location) -> Snippet<'a, Annotation<'a>> {
    Snippet::source(line).line_start(place.line).path(&place.source)
}

fn same_line(a: &Location, b: &Location) -> bool {
    (a.span.source, a.line) == (b.span.source, b.line)
}

/// The line that a place begins on and the byte at which it begins, where it can be shown.
fn line_of<'a>(faults: &'a Faults, place: &Location) -> Option<(&'a str, usize)> {
    let text = &faults.sources.get(place.span.source)?.text;
    let at = place.span.start;
    let start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    (!text.is_empty() && line.len() <= LONGEST_LINE).then_some((line, start))
}

/// A place as a range of bytes of the line that begins at `start`; what goes on below the line is left out.
fn within(line: &str, start: usize, place: &Location) -> Range<usize> {
    let clamp = |byte: usize| byte.saturating_sub(start).min(line.len());
    clamp(place.span.start)..clamp(place.span.end)
}

#[cfg(test)]
mod tests;
