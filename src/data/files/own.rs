//! Files beside the text that mdlm itself wrote or reads: reports, manifests and stores.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use crate::manifest::StageKind;
use crate::manifest::load::MAX_BYTES;
use crate::store::Store;

/// What a report says of itself near its start.
pub const GENERATOR: &str = "<meta name=\"generator\" content=\"mdlm\">";
/// Bytes of a page in which it says so, at most, and of a manifest in which its first field begins.
const HEAD_BYTES: u64 = 512;

/// Fields of a manifest, one of which comes first.
const FIELDS: [&str; 5] = ["$schema", "name", "description", "seed", "stages"];

/// Whether a file is a report or a manifest, in whatever folder.
#[must_use]
pub fn is_output(path: &Path, metadata: &Metadata) -> bool {
    let has = |extension: &str| {
        path.extension()
            .is_some_and(|own| own.eq_ignore_ascii_case(extension))
    };
    let head = || {
        let mut head = Vec::new();
        let read = File::open(path).and_then(|file| file.take(HEAD_BYTES).read_to_end(&mut head));
        read.is_ok().then_some(head)
    };
    if has("html") {
        return head().is_some_and(|head| memchr::memmem::find(&head, GENERATOR.as_bytes()).is_some());
    }
    has("json")
        && metadata.len() <= MAX_BYTES as u64
        // There may be very many files of JSON: most show by their first field that they are none.
        && head().is_some_and(|head| begins_manifest(&head))
        && std::fs::read(path).is_ok_and(|text| is_manifest(&text))
}

/// Whether a folder is a store, or a cache that machines share, by its contents, whatever its name.
#[must_use]
pub fn is_store(folder: &Path) -> bool {
    Store::is_at(folder, StageKind::ALL.iter().map(|kind| kind.name()))
}

/// Whether a text begins as manifests do: an object whose first field is one of theirs.
fn begins_manifest(head: &[u8]) -> bool {
    let inside = head.trim_ascii_start().strip_prefix(b"{");
    let field = inside.and_then(|inside| inside.trim_ascii_start().strip_prefix(b"\""));
    field.is_some_and(|field| {
        FIELDS
            .iter()
            .filter_map(|own| field.strip_prefix(own.as_bytes()))
            .any(|rest| rest.starts_with(b"\""))
    })
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
        kind.and_then(StageKind::named).is_some()
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
    fn manifests_and_reports_are_recognised_by_content() {
        let manifest = br#"{ "name": "a", "seed": 1, "stages": { "text": { "kind": "source" } } }"#;
        assert!(is_manifest(manifest));
        assert!(begins_manifest(manifest));
        assert!(begins_manifest(b"\n{\n  \"$schema\": \"pipeline.schema.json\","));
        for other in [
            "",
            "{}",
            "[1]",
            "\"name\"",
            r#"{ "names": 1 }"#,
            r#"{ "text": "a" }"#,
            "{ \"name",
        ] {
            assert!(!begins_manifest(other.as_bytes()), "{other}");
        }
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
