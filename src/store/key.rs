//! The cache key: one ordered, printable struct.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Digest;

/// What decides a stage's output. Two runs with equal keys write the same files; `stages::key` says what of a
/// manifest goes into it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// The stage's kind, as the manifest spells it.
    pub kind: String,
    /// The version of the stage's code. Raised when the same key would write other files.
    pub version: u32,
    /// The stage's settings: every default spelt out, fields by name, without what is not in the key.
    pub config: Value,
    /// The seed, where the stage draws random numbers.
    pub seed: Option<u64>,
    /// The contents of the consumed artifacts, by role.
    pub inputs: IndexMap<String, Digest>,
    /// The contents of the files outside the store, by the field that names them, in the order in which they are read.
    pub files: IndexMap<String, Vec<Digest>>,
}

impl Key {
    /// BLAKE3 over the line `mdlm key 1` and the key as JSON without spaces.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut text = String::from("mdlm key 1\n");
        // A struct of strings, numbers and maps with string keys always has a JSON form.
        text.push_str(&serde_json::to_string(self).unwrap_or_default());
        Digest::of(text.as_bytes())
    }
}

/// JSON with the fields of every object by name, so that equal settings have one text.
#[must_use]
pub fn canonical(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(
                fields
                    .into_iter()
                    .map(|(name, value)| (name, canonical(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(canonical).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key() -> Key {
        Key {
            kind: "pack".to_owned(),
            version: 1,
            config: canonical(json!({ "wrap": true, "length": 128 })),
            seed: Some(7),
            inputs: IndexMap::from([("from".to_owned(), Digest::of(b"tokens"))]),
            files: IndexMap::new(),
        }
    }

    #[test]
    fn cache_key_digest_changes_with_every_part() {
        let base = key().digest();
        let changed = |change: fn(&mut Key)| {
            let mut key = key();
            change(&mut key);
            key.digest()
        };
        assert_ne!(base, changed(|key| key.kind = "train".to_owned()));
        assert_ne!(base, changed(|key| key.version = 2));
        assert_ne!(base, changed(|key| key.config["length"] = json!(64)));
        assert_ne!(base, changed(|key| key.seed = None));
        assert_ne!(base, changed(|key| key.inputs["from"] = Digest::of(b"others")));
        assert_ne!(
            base,
            changed(|key| drop(key.files.insert("files".to_owned(), vec![])))
        );
    }

    #[test]
    fn cache_key_fields_have_one_order() {
        let one = canonical(json!({ "b": { "y": 1, "x": [{ "q": 1, "p": 2 }] }, "a": 1 }));
        assert_eq!(one.to_string(), r#"{"a":1,"b":{"x":[{"p":2,"q":1}],"y":1}}"#);
    }

    /// A record written by one version must be found by the next.
    #[test]
    fn cache_key_digest_survives_the_disk() {
        let text = serde_json::to_string_pretty(&key()).unwrap();
        let read: Key = serde_json::from_str(&text).unwrap();
        assert_eq!(read, key());
        assert_eq!(read.digest(), key().digest());
    }
}
