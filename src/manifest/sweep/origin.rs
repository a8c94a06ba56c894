//! Where the stages of an expanded tree were written: faults go back there.

use std::collections::{HashMap, HashSet};

use super::{Expansion, SIGN};
use crate::manifest::fault::{Code, Draft};
use crate::manifest::json::pointer_join;
use crate::manifest::span::Span;
use crate::plural;

impl Expansion {
    /// Brings faults of the expanded tree back to what was written: pointers, and one fault for what is wrong in all
    /// instances.
    pub fn bring_back(&self, drafts: Vec<Draft>) -> Vec<Draft> {
        type FaultIdentity = (Code, Span, String, String);
        // A consequence of a faulty sweep is not reported separately.
        let faulty = |stage: &str| {
            let below = self
                .faults
                .iter()
                .filter_map(|fault| fault.pointer.strip_prefix(stage));
            below.into_iter().any(|rest| rest.starts_with("/matrix"))
        };
        let follows = |draft: &Draft| match draft.code {
            Code::UnknownStage => {
                let names_an_instance = draft.value.as_ref().is_some_and(|name| name.contains(SIGN));
                names_an_instance && !self.faults.is_empty()
            }
            Code::MissingField => faulty(&draft.pointer),
            _ => false,
        };
        let mut kept: Vec<Draft> = Vec::with_capacity(drafts.len());
        let mut places: HashMap<String, (usize, HashSet<String>)> = HashMap::new();
        for mut draft in drafts {
            let Some(pointer) = self.written_pointer(&draft.pointer) else {
                if !follows(&draft) {
                    kept.push(draft);
                }
                continue;
            };
            draft.pointer = pointer;
            if follows(&draft) {
                continue;
            }
            let known: FaultIdentity = (
                draft.code,
                draft.span,
                draft.pointer.clone(),
                without_points(&draft.message),
            );
            let (place, messages) = places
                .entry(format!("{known:?}"))
                .or_insert_with(|| (kept.len(), HashSet::new()));
            messages.insert(draft.message.clone());
            if *place == kept.len() {
                kept.push(draft);
            }
        }
        for (place, messages) in places.into_values().filter(|(_, messages)| messages.len() > 1) {
            let more = messages.len() - 1;
            let message = &mut kept[place].message;
            *message = format!(
                "{message}, and the same for {more} more {}",
                plural::of(more, "instance")
            );
        }
        kept
    }

    /// Where a pointer into the expanded tree leads in the text; nothing where they are the same.
    fn written_pointer(&self, pointer: &str) -> Option<String> {
        let below = pointer.strip_prefix("/stages/")?;
        let (name, rest) = below.split_at(below.find('/').unwrap_or(below.len()));
        let origin = self.origins.get(name)?;
        for (from, to) in &origin.aliases {
            if let Some(deeper) = rest.strip_prefix(from.as_str())
                && (deeper.is_empty() || deeper.starts_with('/'))
            {
                return Some(format!("{to}{deeper}"));
            }
        }
        Some(pointer_join("/stages", &origin.written) + rest)
    }
}

/// A message with the names of instances cut down to those of their stages.
fn without_points(message: &str) -> String {
    let mut out = String::new();
    let mut rest = message;
    while let Some(at) = rest.find(SIGN) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = &rest[rest.find('`').unwrap_or(rest.len())..];
    }
    out + rest
}
