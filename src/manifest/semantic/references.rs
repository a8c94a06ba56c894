//! References between stages: unknown names, wrong kinds, cycles.

use std::collections::HashSet;

use crate::manifest::StageKind;
use crate::manifest::fault::{Code, Draft, MAX_FAULTS, alternatives, quoted, suggestion};
use crate::manifest::instance::{SIGN, written};
use crate::manifest::span::Span;
use crate::manifest::stage::check::{StageEntry, Stages};

/// "a source stage", "an evaluate stage".
fn a_stage(kind: StageKind) -> String {
    let name = kind.name();
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {name} stage")
}

/// "an evaluate, sample or train stage".
fn a_stage_of(kinds: &[StageKind]) -> String {
    match kinds {
        [kind] => a_stage(*kind),
        kinds => {
            let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
            format!("a stage of kind {}", alternatives(&names))
        }
    }
}

/// Unknown stages, stages of the wrong kind, stages that name themselves.
pub(super) fn references(stages: &Stages<'_>) -> Vec<Draft> {
    let mut faults = Vec::new();
    let names: HashSet<&str> = stages.entries.keys().map(|name| written(name)).collect();
    for (name, entry) in &stages.entries {
        for (field, span, target, expects) in entry.references() {
            let is_right = |found: &StageEntry<'_>| found.kind.is_none_or(|kind| expects.contains(&kind));
            // The rest words a fault and looks at all stages; no more faults are worded than are reported.
            if target != *name && stages.entries.get(target).is_some_and(is_right)
                || faults.len() >= MAX_FAULTS
            {
                continue;
            }
            // A swept stage is one candidate, unless the target names an instance of it.
            let swept = target.split_once(SIGN).map(|(stage, _)| stage);
            let of_sweep = swept.filter(|stage| names.contains(stage));
            let mut candidates: Vec<&str> = stages
                .entries
                .iter()
                .filter(|(other, entry)| {
                    entry.kind.is_some_and(|kind| expects.contains(&kind)) && *other != name
                })
                .filter(|(other, _)| of_sweep.is_none_or(|stage| written(other) == stage))
                .map(|(other, _)| {
                    if of_sweep.is_some() {
                        *other
                    } else {
                        written(other)
                    }
                })
                .collect();
            candidates.dedup();
            let wanted = match candidates.as_slice() {
                [] if entry.kind.is_some_and(|kind| expects.contains(&kind)) => {
                    format!("{}; the manifest has no other", a_stage_of(expects))
                }
                [] => format!("{}; the manifest has none", a_stage_of(expects)),
                some => {
                    let more = if some.len() > 12 { ", …" } else { "" };
                    format!(
                        "{}: {}{more}",
                        a_stage_of(expects),
                        alternatives(&some[..some.len().min(12)])
                    )
                }
            };
            let pointer = format!("{}/{field}", entry.pointer);
            let field = if field.starts_with("of/") { "of" } else { field };
            let draft = |code, message: String| {
                Draft::new(code, span, pointer.clone(), message)
                    .value(&serde_json::Value::String(target.to_owned()))
                    .expected(wanted.clone())
            };
            if target == *name {
                faults.push(draft(Code::Cycle, format!("{} consumes itself", quoted(name))));
                continue;
            }
            let Some(found) = stages.entries.get(target) else {
                let others = stages.entries.keys().map(|name| written(name));
                let hint =
                    suggestion(target, candidates.iter().copied()).or_else(|| suggestion(target, others));
                faults.push(
                    draft(
                        Code::UnknownStage,
                        format!("there is no stage {}", quoted(target)),
                    )
                    .maybe_hint(hint),
                );
                continue;
            };
            let Some(kind) = found.kind.filter(|kind| !expects.contains(kind)) else {
                continue;
            };
            let message = format!(
                "{} of {} names {}, {}",
                quoted(field),
                quoted(name),
                quoted(target),
                a_stage(kind)
            );
            let between = stages.entries.iter().find(|(other, entry)| {
                entry.kind.is_some_and(|kind| expects.contains(&kind))
                    && entry.references().iter().any(|(_, _, of, _)| *of == target)
                    && *other != name
            });
            faults.push(
                draft(Code::WrongStage, message)
                    .maybe_hint(between.map(|(name, _)| {
                        format!(
                            "did you mean {}, which consumes {}?",
                            quoted(written(name)),
                            quoted(target)
                        )
                    }))
                    .related(
                        found.span("kind"),
                        format!("{} is {}", quoted(target), a_stage(kind)),
                    ),
            );
        }
    }
    faults
}

/// Cycles of two stages and more, each once.
pub(super) fn cycles(stages: &Stages<'_>) -> Vec<Draft> {
    let mut faults = Vec::new();
    let edges: Vec<Vec<(usize, Span, String)>> = stages
        .entries
        .iter()
        .map(|(name, entry)| {
            entry
                .references()
                .into_iter()
                .filter(|(_, _, target, _)| target != name)
                .filter_map(|(field, span, target, _)| {
                    Some((
                        stages.entries.get_index_of(target)?,
                        span,
                        format!("{}/{field}", entry.pointer),
                    ))
                })
                .collect()
        })
        .collect();
    // Depth first with an explicit stack: a manifest may hold a chain of a thousand stages.
    let mut done = vec![false; edges.len()];
    // Where a stage stands in the path.
    let mut places: Vec<Option<usize>> = vec![None; edges.len()];
    for root in 0..edges.len() {
        let mut path: Vec<(usize, usize)> = vec![(root, 0)];
        places[root] = Some(0);
        while let Some((stage, next)) = path.last_mut() {
            let Some((target, ..)) = edges[*stage].get(*next).filter(|_| !done[*stage]) else {
                done[*stage] = true;
                places[*stage] = None;
                path.pop();
                continue;
            };
            *next += 1;
            let Some(start) = places[*target] else {
                if !done[*target] {
                    places[*target] = Some(path.len());
                    path.push((*target, 0));
                }
                continue;
            };
            faults.extend(cycle(stages, &path[start..], &edges));
        }
    }
    faults
}

/// The fault of one cycle: its stages with the index past the edge taken, in order.
fn cycle(
    stages: &Stages<'_>,
    path: &[(usize, usize)],
    edges: &[Vec<(usize, Span, String)>],
) -> Option<Draft> {
    let name = |stage: usize| stages.entries.get_index(stage).map_or("", |(name, _)| *name);
    // Begin with the stage that is written first.
    let first = path
        .iter()
        .enumerate()
        .min_by_key(|(_, (stage, _))| *stage)
        .map_or(0, |(i, _)| i);
    let turned: Vec<_> = path[first..].iter().chain(&path[..first]).collect();
    let mut names: Vec<_> = turned.iter().map(|(stage, _)| quoted(name(*stage))).collect();
    if names.len() > 12 {
        names.truncate(12);
        names.push("…".to_owned());
    }
    names.extend(turned.first().map(|(stage, _)| quoted(name(*stage))));
    let mut places = turned
        .iter()
        .filter_map(|(stage, next)| edges[*stage].get(next.checked_sub(1)?));
    let (_, span, pointer) = places.next()?;
    let mut fault = Draft::new(
        Code::Cycle,
        *span,
        pointer.clone(),
        format!("stages consume each other in a cycle: {}", names.join(" ← ")),
    )
    .expected("a graph without cycles: no stage may depend on itself");
    for (_, span, _) in places.take(11) {
        fault = fault.related(*span, "and here");
    }
    Some(fault)
}
