//! The pipeline's graph as inline SVG: stages in columns by their depth, edges as curves.

use maud::{Markup, html};

use super::parts::tenths;

/// A stage of the drawing.
#[derive(Clone, Debug)]
pub struct GraphNode {
    /// The stage's name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// A few words below the name: its time, or that it has not run.
    pub note: String,
    /// Indices of the nodes that it consumes; smaller than its own.
    pub inputs: Vec<usize>,
}

const NODE: (f64, f64) = (132.0, 46.0);
const GAP: (f64, f64) = (40.0, 18.0);
const MARGIN: f64 = 6.0;
/// Room below the nodes for edges that go around columns.
const FAR: f64 = 34.0;

/// The column of each node: one more than the deepest of its inputs.
fn columns(nodes: &[GraphNode]) -> Vec<usize> {
    let mut columns: Vec<usize> = Vec::with_capacity(nodes.len());
    for node in nodes {
        columns.push(node.inputs.iter().map(|i| columns[*i] + 1).max().unwrap_or(0));
    }
    columns
}

/// The graph as an `<svg>` element. Nodes stand in topological order.
#[must_use]
pub fn svg(nodes: &[GraphNode]) -> Markup {
    let columns = columns(nodes);
    let wide = columns.iter().max().map_or(0, |c| c + 1);
    let mut heights = vec![0usize; wide];
    let rows: Vec<usize> = columns
        .iter()
        .map(|&c| {
            heights[c] += 1;
            heights[c] - 1
        })
        .collect();
    let tall = heights.iter().copied().max().unwrap_or(0);
    let size = |n: usize, node: f64, gap: f64| n as f64 * (node + gap) - gap + 2.0 * MARGIN;
    let far = nodes
        .iter()
        .enumerate()
        .any(|(i, node)| node.inputs.iter().any(|&j| columns[i] > columns[j] + 1));
    let nodes_height = size(tall.max(1), NODE.1, GAP.1);
    let (width, height) = (
        size(wide.max(1), NODE.0, GAP.0),
        nodes_height + if far { FAR } else { 0.0 },
    );
    let corner = |i: usize| {
        let column_height = size(heights[columns[i]], NODE.1, GAP.1);
        (
            MARGIN + columns[i] as f64 * (NODE.0 + GAP.0),
            MARGIN + rows[i] as f64 * (NODE.1 + GAP.1) + (nodes_height - column_height) / 2.0,
        )
    };
    let edges = nodes.iter().enumerate().flat_map(|(to, node)| {
        let edge = move |&from: &usize| (from, to);
        node.inputs.iter().map(edge)
    });
    let edge = |(from, to): (usize, usize)| {
        let is_far = columns[to] > columns[from] + 1;
        let (from, to) = (corner(from), corner(to));
        if is_far {
            // Around the columns between, below them.
            let (x0, y0) = (from.0 + NODE.0 / 2.0, from.1 + NODE.1);
            let (x1, y1) = (to.0 + NODE.0 / 2.0, to.1 + NODE.1);
            let low = height - MARGIN;
            let path = format!("M{x0:.1} {y0:.1} C{x0:.1} {low:.1} {x1:.1} {low:.1} {x1:.1} {y1:.1}");
            return ("edge far", path);
        }
        let (x0, y0) = (from.0 + NODE.0, from.1 + NODE.1 / 2.0);
        let (x1, y1) = (to.0, to.1 + NODE.1 / 2.0);
        let bend = f64::midpoint(x0, x1);
        let path = format!("M{x0:.1} {y0:.1} C{bend:.1} {y0:.1} {bend:.1} {y1:.1} {x1:.1} {y1:.1}");
        ("edge", path)
    };
    let (wide, tall) = (format!("{width:.0}"), format!("{height:.0}"));
    html! {
        // Drawn at its natural size: a graph of three stages does not fill the page.
        svg.dag viewBox={ "0 0 " (wide) " " (tall) } style={ "max-width:" (wide) "px" } role="img"
            aria-label="the pipeline's stages" {
            @for (class, path) in edges.map(edge) {
                path class=(class) d=(path) {}
            }
            @for (i, node) in nodes.iter().enumerate() {
                @let (x, y) = corner(i);
                @let middle = tenths(x + NODE.0 / 2.0);
                rect class={ "node " (node.kind) } x=(tenths(x)) y=(tenths(y)) width=(NODE.0) height=(NODE.1) rx="8" {}
                text.name x=(middle) y=(tenths(y + 19.0)) text-anchor="middle" { (shorten(&node.name, 18)) }
                text.note x=(middle) y=(tenths(y + 36.0)) text-anchor="middle" { (node.note) }
            }
        }
    }
}

/// The first `most` characters, with an ellipsis where some were cut.
fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_drawn_right_of_those_they_consume() {
        let node = |inputs: &[usize]| GraphNode {
            name: "n".into(),
            kind: "train".into(),
            note: String::new(),
            inputs: inputs.to_vec(),
        };
        let nodes = [node(&[]), node(&[0]), node(&[1]), node(&[0, 2])];
        assert_eq!(columns(&nodes), [0, 1, 2, 3]);
        assert_eq!(svg(&nodes).into_string().matches("class=\"edge").count(), 4);
    }

    #[test]
    fn long_names_are_cut_at_characters() {
        assert_eq!(shorten("größenwahnsinnig-langer-name", 8), "größenw…");
    }
}
