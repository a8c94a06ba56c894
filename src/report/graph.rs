//! The stages of a report as the nodes of its graph.

use super::dag::GraphNode;
use super::parts::seconds;
use super::stage::ReportedStage;

/// The nodes of the graph: one for all instances of a swept stage.
pub(super) fn nodes(stages: &[ReportedStage<'_>]) -> Vec<GraphNode> {
    let mut names: Vec<&str> = Vec::new();
    for stage in stages {
        if !names.contains(&stage.written) {
            names.push(stage.written);
        }
    }
    let place = |stage: &ReportedStage<'_>| names.iter().position(|name| *name == stage.written);
    names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let all: Vec<_> = stages.iter().filter(|stage| stage.written == *name).collect();
            let mut inputs: Vec<usize> = all
                .iter()
                .flat_map(|stage| &stage.inputs)
                .filter_map(|input| place(&stages[*input]))
                // A stage that consumes an instance of another, which consumes it in turn: no column shows that.
                .filter(|input| *input < index)
                .collect();
            inputs.sort_unstable();
            inputs.dedup();
            let kind = all.first().map_or("", |stage| stage.kind.name());
            let swept = all.iter().any(|stage| stage.name != stage.written);
            let times = if swept {
                format!(" ×{}", all.len())
            } else {
                String::new()
            };
            let took: Vec<f64> = all
                .iter()
                .filter_map(|stage| stage.done.as_ref())
                .map(|(record, _)| record.provenance.seconds)
                .collect();
            let state = if took.is_empty() {
                "not run".to_owned()
            } else if took.len() < all.len() {
                format!("{} run", took.len())
            } else {
                seconds(took.iter().sum())
            };
            GraphNode {
                name: (*name).to_owned(),
                kind: kind.to_owned(),
                note: format!("{kind}{times} · {state}"),
                inputs,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::StageKind;

    #[test]
    fn sweep_is_one_node_of_the_graph() {
        let stage = |name: &'static str, written, kind, inputs: &[usize]| ReportedStage {
            name,
            written,
            kind,
            inputs: inputs.to_vec(),
            done: None,
            figures: vec![],
        };
        let stages = [
            stage("rows", "rows", StageKind::Pack, &[]),
            stage("m@a=1", "m", StageKind::Train, &[0]),
            stage("b@a=1", "b", StageKind::Evaluate, &[0, 1]),
            stage("m@a=2", "m", StageKind::Train, &[0]),
            stage("b@a=2", "b", StageKind::Evaluate, &[0, 3]),
            stage("t", "t", StageKind::Compare, &[2, 4]),
        ];
        let found: Vec<_> = nodes(&stages)
            .into_iter()
            .map(|node| (node.name, node.note, node.inputs))
            .collect();
        let node =
            |name: &str, note: &str, inputs: &[usize]| (name.to_owned(), note.to_owned(), inputs.to_vec());
        assert_eq!(
            found,
            [
                node("rows", "pack · not run", &[]),
                node("m", "train ×2 · not run", &[0]),
                node("b", "evaluate ×2 · not run", &[0, 1]),
                node("t", "compare · not run", &[2]),
            ]
        );
        let subject = crate::report::ReportSubject {
            title: "x",
            description: None,
            manifest: "x.json",
        };
        assert!(crate::report::page(subject, &stages).is_ok());
    }
}
