//! Semantic faults, which no schema can state: those of the graph of stages, and those that the kinds of stages check.
//!
//! References and cycles are checked on the JSON tree, so that they are reported together with structural faults. The
//! settings of a stage are checked by [`super::stage::StageSpec::check`] only if it has no structural fault.

mod references;

use serde::Deserialize as _;

use super::fault::Draft;
use super::instance::MAX_STAGES;
use super::json::{Node, pointer_join};
use super::stage::check::{StageEntry, Stages};
use super::{Stage, StageKind};
use crate::shape::Shapes;
use references::{cycles, references};

/// The semantic faults of a manifest, given its structural faults.
pub(super) fn check(tree: &Node, structural: &[Draft], shapes: Shapes) -> Vec<Draft> {
    let Some(stages) = tree.member("stages") else {
        return Vec::new();
    };
    let entries = stages
        .value
        .members()
        .iter()
        // The schema bounds the number of stages; this keeps the work bounded where that is violated.
        .take(MAX_STAGES)
        .map(|member| {
            let pointer = pointer_join("/stages", &member.key);
            let kind = member
                .value
                .member("kind")
                .and_then(|kind| kind.value.as_str())
                .and_then(StageKind::named);
            let sound = !structural.iter().any(|fault| {
                fault
                    .pointer
                    .strip_prefix(&pointer)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            let stage = if sound {
                Stage::deserialize(member.value.to_json()).ok()
            } else {
                None
            };
            let entry = StageEntry {
                name: &member.key,
                node: &member.value,
                key_span: member.key_span,
                pointer,
                kind,
                stage,
            };
            (member.key.as_str(), entry)
        })
        .collect();
    let stages = Stages { entries, shapes };
    let mut faults = references(&stages);
    faults.extend(cycles(&stages));
    for entry in stages.entries.values() {
        if let Some(stage) = &entry.stage {
            stage.check(&stages, entry, &mut faults);
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;
    use crate::manifest::Manifest;
    use crate::manifest::json::parse;
    use crate::manifest::span::Span;
    use crate::shape::tests::EXAMPLES;

    /// The faults of a pipeline that evaluates rows of `tests` with a model of rows of `tokens`, as one text.
    fn faults(shape: &str, tokens: serde_json::Value, tests: serde_json::Value) -> String {
        let length = EXAMPLES.find(shape).unwrap().length;
        let rows =
            |tokens: &str| json!({ "kind": "pack", "from": tokens, "length": length, "validation": 0.1 });
        let tokenize = |tokenizer| json!({ "kind": "tokenize", "from": "text", "tokenizer": tokenizer });
        let manifest = json!({ "name": "x", "seed": 1, "stages": {
            "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt"] } },
            "tokens": tokenize(tokens), "tests": tokenize(tests),
            "rows": rows("tokens"), "test-rows": rows("tests"),
            "model": { "kind": "train", "from": "rows", "shape": shape, "steps": 9000 },
            "bound": { "kind": "evaluate", "model": "model", "data": "test-rows" },
        } });
        match Manifest::from_bytes("x.json", manifest.to_string().into_bytes(), &[], EXAMPLES) {
            Ok(_) => String::new(),
            Err(faults) => faults.to_string(),
        }
    }

    #[test]
    fn tokenizer_from_a_local_copy_is_the_published_one() {
        let published = |name: &str| json!({ "kind": "published", "name": name });
        let copy = |name: &str| json!({ "kind": "published", "name": name, "path": "copies" });
        assert_eq!(faults("owt-small", published("gpt2"), copy("gpt2")), "");
        let other = faults(
            "lm1b-small",
            published("bert-base-uncased"),
            copy("bert-base-cased"),
        );
        assert!(other.contains("come from the tokenizer of `tests`"), "{other}");
        let url = "hf://o/n@607a30d783dfa663caf39e06633721c8d4cfcd7e/tokenizer.json";
        let download = |more: serde_json::Value| {
            let mut download = json!({ "kind": "download", "url": url });
            download
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            download
        };
        let copy = download(json!({ "path": "tokenizer.json" }));
        assert_eq!(faults("tiny", download(json!({})), copy), "");
        let special = download(json!({ "special": { "bos": "<s>" } }));
        assert!(!faults("tiny", download(json!({})), special).is_empty());
    }

    #[test]
    fn hint_for_a_path_of_another_program_is_a_json_pointer() {
        for (field, hint) in [
            ("text", "did you mean `/text`?"),
            (".text", "did you mean `/text`?"),
            ("$.article.text", "did you mean `/article/text`?"),
            (".", "write an empty string if the value itself is the text"),
        ] {
            let read = json!({ "format": { "kind": "json_lines", "field": field } });
            let input = json!({ "kind": "files", "files": ["a.jsonl"], "read": read });
            let stages = json!({ "text": { "kind": "source", "input": input } });
            let manifest = json!({ "name": "x", "seed": 1, "stages": stages }).to_string();
            let faults = Manifest::from_bytes("x.json", manifest.into_bytes(), &[], EXAMPLES).unwrap_err();
            assert_eq!(faults.list[0].hint.as_deref(), Some(hint), "{field}: {faults}");
        }
    }

    #[test]
    fn hint_sets_a_vocabulary_size_only_if_it_is_trained() {
        let trained = json!({ "kind": "train_bpe", "vocabulary_size": 4096 });
        let fits = faults(
            "nano",
            trained.clone(),
            json!({ "kind": "stage", "stage": "tokens" }),
        );
        assert!(
            fits.contains("hint: set `\"vocabulary_size\": 512` in `tokens`"),
            "{fits}"
        );
        let small = faults(
            "text8-small",
            trained,
            json!({ "kind": "stage", "stage": "tokens" }),
        );
        assert!(
            small.contains("has a vocabulary of 35 tokens") && !small.contains("set `"),
            "{small}"
        );
    }

    #[test]
    fn references_in_the_tree_are_those_of_the_types() {
        let stages = [
            json!({ "kind": "source", "input": { "kind": "files", "files": ["a"] } }),
            json!({ "kind": "tokenize", "from": "a", "tokenizer": { "kind": "stage", "stage": "b" } }),
            json!({ "kind": "tokenize", "from": "a", "tokenizer": { "kind": "characters" } }),
            json!({ "kind": "pack", "from": "a", "length": 8 }),
            json!({ "kind": "train", "from": "a", "shape": "nano", "steps": 1, "init": "b" }),
            json!({ "kind": "checkpoint", "file": "a", "shape": "nano", "tokenizer": "b" }),
            json!({ "kind": "train", "from": "a", "shape": "nano", "steps": 1 }),
            json!({ "kind": "evaluate", "model": "a", "data": "b", "grammar": "c" }),
            json!({ "kind": "evaluate", "model": "a", "data": "b" }),
            json!({ "kind": "sample", "model": "a", "count": 1, "grammar": "c" }),
            json!({ "kind": "judge", "model": "a", "grammar": "b", "training": "c",
                "of": [{ "stage": "d", "point": {} }, { "stage": "e", "point": {} }] }),
            json!({ "kind": "compare", "of": [{ "stage": "a", "point": {} }, { "stage": "b", "point": {} }] }),
            json!({ "kind": "table", "of": [{ "stage": "a", "point": {} }, { "stage": "b", "point": {} }] }),
        ];
        let mut kinds = HashSet::new();
        for stage in stages {
            let typed = Stage::deserialize(&stage).unwrap();
            kinds.insert(typed.kind());
            let node = parse(&stage.to_string(), 0).0.unwrap();
            let entry = StageEntry {
                name: "",
                node: &node,
                key_span: Span::default(),
                pointer: String::new(),
                kind: Some(typed.kind()),
                stage: None,
            };
            let raw: Vec<_> = entry
                .references()
                .into_iter()
                .map(|(field, _, target, kind)| (field, target, kind))
                .collect();
            let wanted: Vec<_> = typed
                .references()
                .iter()
                .map(|to| (to.field, to.stage, to.expects))
                .collect();
            assert_eq!(raw, wanted, "{stage}");
        }
        assert_eq!(kinds.len(), StageKind::ALL.len());
    }
}
