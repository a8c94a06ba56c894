//! Files beside the text that mdlm itself wrote or reads: reports and manifests.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::manifest::load::MAX_BYTES;

/// What a report says of itself near its start.
pub const GENERATOR: &str = "<meta name=\"generator\" content=\"mdlm\">";
/// Bytes of a page in which it says so, at most.
const HEAD_BYTES: u64 = 512;

/// Kinds of stages.
const KINDS: [&str; 7] = [
    "source", "tokenize", "pack", "train", "evaluate", "sample", "compare",
];

/// Whether a file is a report, or a manifest beside the one that names files relative to the folder `base`.
#[must_use]
pub fn is_output(path: &Path, metadata: &Metadata, base: &Path) -> bool {
    let has = |extension: &str| {
        path.extension()
            .is_some_and(|own| own.eq_ignore_ascii_case(extension))
    };
    if has("html") {
        let mut head = Vec::new();
        let read = File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
        return read.is_ok() && memchr::memmem::find(&head, GENERATOR.as_bytes()).is_some();
    }
    has("json")
        && metadata.len() <= MAX_BYTES as u64
        && path.parent().is_some_and(|folder| folder == base)
        && std::fs::read(path).is_ok_and(|text| is_manifest(&text))
}

/// Whether a text is a manifest: an object with a name and stages, each of a kind that there is.
fn is_manifest(text: &[u8]) -> bool {
    // Most files are none, and show it without being taken apart.
    if memchr::memmem::find(text, b"\"stages\"").is_none() {
        return false;
    }
    let Ok(Value::Object(manifest)) = serde_json::from_slice(text) else {
        return false;
    };
    let known = |stage: &Value| {
        let kind = stage.get("kind").and_then(Value::as_str);
        kind.is_some_and(|kind| KINDS.contains(&kind))
    };
    manifest.contains_key("name")
        && manifest
            .get("stages")
            .and_then(Value::as_object)
            .is_some_and(|stages| !stages.is_empty() && stages.values().all(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_known_by_what_they_say() {
        assert!(is_manifest(
            br#"{ "name": "a", "seed": 1, "stages": { "text": { "kind": "source" } } }"#
        ));
        for other in [
            "",
            "{}",
            r#"{ "name": "a", "stages": {} }"#,
            r#"{ "name": "a", "stages": { "text": { "kind": "play" } } }"#,
            r#"{ "name": "a", "stages": ["source"] }"#,
            r#"{ "text": "\"stages\"" }"#,
        ] {
            assert!(!is_manifest(other.as_bytes()), "{other}");
        }
    }
}
