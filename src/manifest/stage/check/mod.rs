//! What the checks of a stage see of the other stages, and the faults that several kinds of stages share.
//!
//! A check that follows a chain of stages runs only if no stage of the chain has a structural fault.
//!
//! | file | purpose |
//! |---|---|
//! | `files.rs` | fields that name files |
//! | `upstream.rs` | the rows that a stage reads: their tokenizer, length and grammar |
//! | `objective.rs` | the settings of an objective that exclude each other |
//! | `sampling.rs` | the settings of a sample stage that exclude each other or do not fit the row |
//! | `model.rs` | the model that a stage measures: estimators and samplers that do not fit its objective |

pub(super) mod files;
pub(super) mod model;
pub(super) mod objective;
pub(super) mod sampling;
pub(super) mod upstream;

use indexmap::IndexMap;

use super::compare::compared_role;
use super::{Stage, StageKind};
use crate::manifest::fault::{Code, Draft};
use crate::manifest::json::{Data, Node};
use crate::manifest::span::Span;
use crate::shape::Shapes;

/// A stage in the tree of a manifest.
pub struct StageEntry<'t> {
    pub name: &'t str,
    pub node: &'t Node,
    pub key_span: Span,
    pub pointer: String,
    pub kind: Option<StageKind>,
    /// The stage, if it has no structural fault.
    pub stage: Option<Stage>,
}

impl StageEntry<'_> {
    /// The place of a field, or of the stage's name where the field is not written.
    pub fn span(&self, field: &str) -> Span {
        self.node
            .at(&format!("/{field}"))
            .map_or(self.key_span, |node| node.span)
    }

    /// Whether a field is written.
    pub fn has(&self, field: &str) -> bool {
        self.node.at(&format!("/{field}")).is_some()
    }

    pub fn fault(&self, code: Code, field: &str, message: impl Into<String>) -> Draft {
        let written = self.node.at(&format!("/{field}"));
        let pointer = if written.is_some() {
            format!("{}/{field}", self.pointer)
        } else {
            self.pointer.clone()
        };
        let draft = Draft::new(code, self.span(field), pointer, message);
        match written {
            Some(node) => draft.value(&node.to_json()),
            None => draft,
        }
    }

    /// The stages that this one names: field, place, name, expected kinds.
    pub fn references(&self) -> Vec<(&'static str, Span, &str, &'static [StageKind])> {
        let Some(kind) = self.kind else {
            return Vec::new();
        };
        let named = kind.references().into_iter().filter_map(|(field, expects)| {
            let node = self.node.at(&format!("/{field}"))?;
            Some((field, node.span, node.as_str()?, expects))
        });
        let listed = kind.collects().into_iter().flat_map(|(field, expects)| {
            let items = match self.node.member(field).map(|list| &list.value.data) {
                Some(Data::Array(items)) => items.as_slice(),
                _ => &[],
            };
            items.iter().enumerate().filter_map(move |(index, item)| {
                let stage = &item.member("stage")?.value;
                Some((compared_role(index)?, stage.span, stage.as_str()?, expects))
            })
        });
        named.chain(listed).collect()
    }
}

/// What a check sees beside its own stage.
pub struct Stages<'t> {
    /// The stages of the manifest, by name.
    pub entries: IndexMap<&'t str, StageEntry<'t>>,
    /// The shapes that the program is compiled for.
    pub shapes: Shapes,
}

impl<'t> Stages<'t> {
    pub fn entry(&self, name: &str) -> Option<&StageEntry<'t>> {
        self.entries.get(name)
    }
}

#[cfg(test)]
mod tests;
