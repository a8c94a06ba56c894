//! `mdlm graph`: the stages and what feeds what, for Graphviz or Mermaid.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::PathBuf;

use clap::ValueEnum;

use crate::cli::args::manifest;
use crate::cli::render::terminal::Terminal;
use mdlm::error::Result;
use mdlm::manifest::{Manifest, Sweeps};
use mdlm::plan::order;

/// What `mdlm graph --help` says first.
pub const LONG_ABOUT: &str = "\
    Draw the stages and their inputs, as text for Graphviz or for Mermaid (which GitHub draws in Markdown, in a block \
    of language `mermaid`). Needs no data.";

/// Arguments of `mdlm graph`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mdlm graph pipelines/quickstart.json | dot -Tsvg > graph.svg")]
pub struct Args {
    /// The manifest
    #[arg(value_name = "MANIFEST")]
    pub manifest: PathBuf,
    /// Draw with a field set: stages.model.steps=200
    ///
    /// PATH=VALUE: names joined by points, and a value that is JSON or else text; `null` removes the field, so that its
    /// default applies.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Language of the drawing: dot (Graphviz) or mermaid
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "dot",
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub format: GraphFormat,
}

/// Language of a drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Graphviz.
    Dot,
    /// Mermaid, which GitHub and many editors draw in Markdown.
    Mermaid,
}

/// Prints the drawing.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let loaded = match manifest::load(&args.manifest, &args.set, terminal) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    terminal.output(&draw(&loaded.manifest, &loaded.sweeps, args.format)?)?;
    Ok(0)
}

fn draw(manifest: &Manifest, sweeps: &Sweeps, format: GraphFormat) -> Result<String> {
    let stages = order(manifest)?;
    // A swept stage is one node, whatever the number of its instances.
    let mut names: Vec<&str> = stages.iter().map(|name| sweeps.written(name)).collect();
    let mut seen = HashSet::new();
    names.retain(|name| seen.insert(*name));
    let place = |name: &str| {
        let written = sweeps.written(name);
        names
            .iter()
            .position(|other| *other == written)
            .unwrap_or_default()
    };
    let first = |name: &str| {
        let instance = sweeps.instances(name).and_then(|instances| instances.first());
        &manifest.stages[instance.map_or(name, |instance| &*instance.name)]
    };
    let mut text = match format {
        GraphFormat::Dot => format!(
            "digraph \"{}\" {{\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n",
            manifest.name
        ),
        GraphFormat::Mermaid => "flowchart LR\n".to_owned(),
    };
    for (index, name) in names.iter().enumerate() {
        let times = sweeps
            .instances(name)
            .map_or_else(String::new, |instances| format!(" ×{}", instances.len()));
        let kind = format!("{}{times}", first(name).kind().name());
        let _ = match format {
            GraphFormat::Dot => {
                let name = name.replace('\\', "\\\\").replace('"', "\\\"");
                writeln!(text, "  s{index} [label=\"{name}\\n{kind}\"];")
            }
            GraphFormat::Mermaid => {
                let name = name.replace('"', "#quot;");
                writeln!(text, "  s{index}[\"{name}<br/><i>{kind}</i>\"]")
            }
        };
    }
    let mut drawn = HashSet::new();
    for name in stages {
        let index = place(name);
        for reference in manifest.stages[name].references() {
            let from = place(reference.stage);
            let role = reference.field.split('/').next().unwrap_or_default();
            if !drawn.insert((from, index, role)) {
                continue;
            }
            // The usual roles need no word.
            let _ = match (format, role) {
                (GraphFormat::Dot, "from" | "of") => writeln!(text, "  s{from} -> s{index};"),
                (GraphFormat::Dot, role) => writeln!(text, "  s{from} -> s{index} [label=\"{role}\"];"),
                (GraphFormat::Mermaid, "from" | "of") => writeln!(text, "  s{from} --> s{index}"),
                (GraphFormat::Mermaid, role) => writeln!(text, "  s{from} -- {role} --> s{index}"),
            };
        }
    }
    if format == GraphFormat::Dot {
        text.push_str("}\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graph_in_dot_and_mermaid() {
        let manifest: Manifest = serde_json::from_value(serde_json::json!({
            "name": "test", "seed": 1, "stages": {
                "model": { "kind": "train", "from": "rows", "shape": "nano", "steps": 1 },
                "text": { "kind": "source", "input": { "kind": "files", "files": ["a"] } },
                "to\"kens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
                "rows": { "kind": "pack", "from": "to\"kens", "length": 8 },
                "bound": { "kind": "evaluate", "model": "model", "data": "rows" },
            }
        }))
        .unwrap();
        insta::assert_snapshot!(draw(&manifest, &Sweeps::default(), GraphFormat::Dot).unwrap(), @r#"
        digraph "test" {
          rankdir=LR;
          node [shape=box, style=rounded, fontname="sans-serif"];
          s0 [label="text\nsource"];
          s1 [label="to\"kens\ntokenize"];
          s2 [label="rows\npack"];
          s3 [label="model\ntrain"];
          s4 [label="bound\nevaluate"];
          s0 -> s1;
          s1 -> s2;
          s2 -> s3;
          s3 -> s4 [label="model"];
          s2 -> s4 [label="data"];
        }
        "#);
        insta::assert_snapshot!(draw(&manifest, &Sweeps::default(), GraphFormat::Mermaid).unwrap(), @r#"
        flowchart LR
          s0["text<br/><i>source</i>"]
          s1["to#quot;kens<br/><i>tokenize</i>"]
          s2["rows<br/><i>pack</i>"]
          s3["model<br/><i>train</i>"]
          s4["bound<br/><i>evaluate</i>"]
          s0 --> s1
          s1 --> s2
          s2 --> s3
          s3 -- model --> s4
          s2 -- data --> s4
        "#);
    }
}
