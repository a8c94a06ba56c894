//! The checkpoint stage: weights from elsewhere → a model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::files::{is_url, local, plain_path};
use super::check::objective::check_objective;
use super::check::{StageEntry, Stages};
use super::evaluate::Weights;
use super::tokenize::is_false;
use super::train::stated_vocabulary;
use super::{FileReference, ReferenceField, StageKind, StageSpec};
use crate::manifest::Objective;
use crate::manifest::fault::{Code, Draft, alternatives, quoted};
use crate::manifest::reading::{RemoteFile, SHA256, URL};
use crate::manifest::shape_field::shape_schema;

/// Bytes of a JSON file of a repository, at most: an index of very many tensors has some 10 MB.
const MOST_JSON_BYTES: u64 = 64 << 20;

/// Takes a trained model from a file, a folder or the Hugging Face hub. Nothing in it is executed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// File or folder with the weights, relative to the manifest's folder, or a URL: `https://…`,
    /// `hf://OWNER/NAME@COMMIT` (the `config.json` and the safetensors files of a model), `hf://OWNER/NAME@COMMIT/FILE`,
    /// `s3://BUCKET/key`, `gs://BUCKET/key` or `az://CONTAINER/key`, downloaded once or read from `path`. Recognized by
    /// content: safetensors, Hugging Face folders (also in shards), PyTorch files and PyTorch Lightning checkpoints, with the
    /// tensor names of MDLM's release, and results of train stages. Weights of 16 or 64 bits are kept and exported as f32.
    #[schemars(length(min = 1))]
    pub file: String,
    /// SHA-256 of the file, in hex. Required for a URL unless it names a commit or `unpinned` is true. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"), extend("patternErrorMessage" = SHA256))]
    pub sha256: Option<String>,
    /// Accepts any content at the first download and records its SHA-256; the file stays the same until it is
    /// downloaded again. Default: false, since unpinned content may differ between machines and must be allowed
    /// explicitly.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unpinned: bool,
    /// Local copy of what the URL names, a file or a folder, relative to the manifest's folder. If `sha256` is set, the file
    /// must match it. Default: it is downloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub path: Option<String>,
    /// Compiled shape of the network; `mdlm shapes` lists them, and `mdlm checkpoint FILE` shows which one fits. To add a
    /// shape, add a line to `src/shapes.rs` and rebuild.
    #[schemars(schema_with = "shape_schema")]
    pub shape: String,
    /// Name of the tokenize stage whose tokenizer made the tokens that the model was trained on.
    pub tokenizer: String,
    /// Objective that the model was trained for. Default: what the file states (`config.json`); a file without it needs
    /// this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,
    /// Weights to take. Default: the average if the file has it, else the only weights that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
    /// Whether the model was trained on joined and cut documents (`true`) or on one record a row (`false`). Default: what
    /// the file states, else `true`, as the MDLM authors train on OpenWebText.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrap: Option<bool>,
}

impl Checkpoint {
    /// Whether `file` is a URL.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        is_url(&self.file)
    }

    /// Whether `file` names all of a repository on the hub.
    #[must_use]
    pub fn is_repository(&self) -> bool {
        let Some(rest) = self.file.strip_prefix("hf://") else {
            return false;
        };
        let rest = rest.strip_prefix("models/").unwrap_or(rest).trim_end_matches('/');
        let slashes = |text: &str| text.matches('/').count();
        match rest.split_once('@') {
            // Revisions of the hub's own have slashes: `refs/pr/7`.
            Some((_, revision)) if revision.starts_with("refs/") => slashes(revision) == 2,
            Some((_, revision)) => slashes(revision) == 0,
            None => slashes(rest) == 1,
        }
    }

    /// The files to download; none if they are local.
    #[must_use]
    pub fn remote_files(&self) -> Vec<RemoteFile> {
        if !self.is_remote() || self.path.is_some() {
            return vec![];
        }
        let file = |url: String, max_bytes| RemoteFile {
            url,
            sha256: self.sha256.clone(),
            unpinned: self.unpinned,
            max_bytes,
            exclude: vec![],
        };
        if self.is_repository() {
            let root = self.file.trim_end_matches('/');
            let json = file(format!("{root}/*.json"), Some(MOST_JSON_BYTES));
            return vec![json, file(format!("{root}/*.safetensors"), None)];
        }
        vec![file(self.file.clone(), None)]
    }

    /// Adds the faults of `file` and of the fields that say what it must hold.
    fn check_file(&self, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        if let Some(path) = &self.path {
            let hint = "`path` takes a local copy; leave it out to download the file";
            local(entry, "path", path, hint, faults);
        }
        if !self.is_remote() {
            for field in ["sha256", "unpinned", "path"]
                .into_iter()
                .filter(|field| entry.has(field))
            {
                let message =
                    format!("`{field}` has no effect: `file` is a local path, and its content is in the key");
                let fault = entry.fault(Code::NoEffect, field, message);
                faults.push(fault.hint(format!("leave `{field}` out, or set `file` to a URL")));
            }
            return;
        }
        let is_known = ["https://", "http://", "hf://", "s3://", "gs://", "az://"]
            .iter()
            .any(|scheme| self.file.starts_with(scheme));
        let is_model = !["hf://datasets/", "hf://spaces/"]
            .iter()
            .any(|kind| self.file.starts_with(kind));
        let is_glob = !self.file.starts_with("http") && self.file.contains(['*', '?', '[']);
        if !is_known {
            let fault = entry.fault(Code::InvalidValue, "file", "not a URL that mdlm downloads from");
            faults.push(
                fault
                    .expected(format!("a path, or {URL}"))
                    .maybe_hint(plain_path(&self.file)),
            );
        } else if !is_model {
            faults.push(
                entry
                    .fault(Code::InvalidValue, "file", "not a repository of a model")
                    .expected("`hf://OWNER/NAME@COMMIT`, or a file in it"),
            );
        } else if is_glob {
            faults.push(
                entry
                    .fault(
                        Code::Pattern,
                        "file",
                        "a checkpoint is one file or repository, but this URL is a glob",
                    )
                    .expected("`hf://OWNER/NAME@COMMIT`, or the URL of one file"),
            );
        }
        if self.path.is_none() && self.file.ends_with(".index.json") {
            let hint = match self
                .file
                .rsplit_once('/')
                .filter(|_| self.file.starts_with("hf://"))
            {
                Some((repository, _)) => format!("name the repository: `{repository}`"),
                None => "download the index and the shards into one folder, and name it in `path`".to_owned(),
            };
            let message = "an index says which shard has which tensor, and has no weights itself";
            faults.push(entry.fault(Code::InvalidValue, "file", message).hint(hint));
            return;
        }
        if self.is_repository() && self.sha256.is_some() {
            faults.push(
                entry
                    .fault(Code::Pin, "sha256", "`sha256` pins a file, but `file` names a repository")
                    .hint("name a commit, `hf://OWNER/NAME@COMMIT`, or the file: `hf://OWNER/NAME@COMMIT/model.safetensors`"),
            );
        } else if self.sha256.is_some() && self.unpinned {
            faults.push(
                entry
                    .fault(
                        Code::Pin,
                        "unpinned",
                        "`unpinned` is true, but `sha256` pins the file",
                    )
                    .hint("leave `unpinned` out"),
            );
        } else if self.sha256.is_none() && !self.unpinned && !self.names_commit() {
            let is_plain = self.file.starts_with("http://");
            let pin = if is_plain {
                "`https://`, which shows that the file is the server's, and `sha256`, in hex, or `\"unpinned\": true`"
            } else if self.is_repository() {
                "a commit: `hf://OWNER/NAME@COMMIT`, 40 hex digits, or `\"unpinned\": true`"
            } else {
                "`sha256`, in hex, or `\"unpinned\": true` to accept any content and record its SHA-256"
            };
            faults.push(
                entry
                    .fault(
                        Code::Pin,
                        "file",
                        if is_plain {
                            "the content of the checkpoint is not pinned, and `http://` does not protect it on its way"
                        } else {
                            "the content of the checkpoint is not pinned"
                        },
                    )
                    .expected(pin),
            );
        }
    }

    fn names_commit(&self) -> bool {
        let url = self.file.clone();
        let file = RemoteFile {
            url,
            sha256: None,
            unpinned: false,
            max_bytes: None,
            exclude: vec![],
        };
        file.names_commit()
    }

    /// The tokenizer must not have more tokens than the shape, where its size is known without data.
    fn check_vocabulary(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        let (Some(shape), Some(origin)) = (
            stages.shapes.find(&self.shape),
            stages.tokenizer_of(&self.tokenizer),
        ) else {
            return;
        };
        let (Some(tokens), Some((size, field, how))) = (
            stages.entry(origin.tokens),
            stated_vocabulary(&origin.tokenize.tokenizer),
        ) else {
            return;
        };
        if size <= shape.vocabulary {
            return;
        }
        let large: Vec<_> = stages
            .shapes
            .iter()
            .filter(|shape| shape.vocabulary >= size)
            .map(|shape| shape.name)
            .collect();
        let message = format!(
            "shape {} has a vocabulary of {} tokens, but the tokenizer of {} {how} {size}",
            quoted(shape.name),
            shape.vocabulary,
            quoted(origin.tokens),
        );
        let hint = format!("use a shape with a larger vocabulary: {}", alternatives(&large));
        faults.push(
            entry
                .fault(Code::Vocabulary, "shape", message)
                .expected(format!("a shape with a vocabulary of at least {size}"))
                .maybe_hint((!large.is_empty()).then_some(hint))
                .related(tokens.span(field), "the size of the tokenizer"),
        );
    }
}

impl StageSpec for Checkpoint {
    const REFERENCES: &'static [ReferenceField<Self>] = &[ReferenceField {
        name: "tokenizer",
        expects: &[StageKind::Tokenize],
        stage: |checkpoint| Some(&checkpoint.tokenizer),
    }];
    #[cfg(any(test, feature = "testing"))]
    const SMALLEST: (&'static str, &'static str) = (
        r#"{ "kind": "checkpoint", "file": "a.safetensors", "shape": "nano", "tokenizer": "a" }"#,
        "shape",
    );

    fn files(&self) -> Vec<FileReference> {
        let one = |field, path| FileReference {
            takes_folders: true,
            ..FileReference::one(field, path)
        };
        match &self.path {
            _ if !self.is_remote() => vec![one("file", &self.file)],
            // Checked against the checksum; where there is none the content of what was brought by hand counts.
            Some(path) if self.sha256.is_none() => vec![one("path", path)],
            _ => vec![],
        }
    }

    fn check(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        self.check_file(entry, faults);
        if let Some(objective) = &self.objective {
            check_objective(entry, objective, faults);
        }
        self.check_vocabulary(stages, entry, faults);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::Manifest;
    use crate::shape::tests::EXAMPLES;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn checkpoint(file: &str) -> Checkpoint {
        let stage = json!({ "file": file, "shape": "nano", "tokenizer": "a", "unpinned": true });
        serde_json::from_value(stage).unwrap()
    }

    #[test]
    fn checkpoint_urls_name_a_repository_or_a_file() {
        for (file, is_repository) in [
            ("hf://o/n@main", true),
            ("hf://models/o/n@main", true),
            ("hf://o/n", true),
            ("hf://o/n@refs/pr/7", true),
            ("hf://o/n@main/", true),
            ("hf://gpt2@main", true),
            ("hf://o/n@main/model.safetensors", false),
            ("hf://o/n@refs/pr/7/a.bin", false),
            ("hf://o/n/a.bin", false),
            ("https://a.org/x", false),
            ("folder/x", false),
        ] {
            assert_eq!(checkpoint(file).is_repository(), is_repository, "{file}");
        }
        let urls = |file: &str| -> Vec<String> {
            checkpoint(file)
                .remote_files()
                .into_iter()
                .map(|file| file.url)
                .collect()
        };
        assert_eq!(
            urls("hf://o/n@main/"),
            ["hf://o/n@main/*.json", "hf://o/n@main/*.safetensors"]
        );
        assert_eq!(urls("https://a.org/x.ckpt"), ["https://a.org/x.ckpt"]);
        assert!(urls("folder").is_empty());
    }

    /// The codes and messages of the faults of a checkpoint with these fields.
    fn faults(fields: &serde_json::Value, tokenizer: &serde_json::Value) -> Vec<String> {
        let mut model = json!({ "kind": "checkpoint", "shape": "nano", "tokenizer": "tokens" });
        model
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let manifest = json!({ "name": "x", "seed": 1, "stages": {
            "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt"] } },
            "tokens": { "kind": "tokenize", "from": "text", "tokenizer": tokenizer },
            "rows": { "kind": "pack", "from": "tokens", "length": 32, "validation": 0.5 },
            "model": model,
            "bound": { "kind": "evaluate", "model": "model", "data": "rows" },
            "texts": { "kind": "sample", "model": "model", "count": 1 },
        } });
        match Manifest::from_bytes("x.json", manifest.to_string().into_bytes(), &[], EXAMPLES) {
            Ok(_) => vec![],
            Err(faults) => {
                let text =
                    |fault: &crate::manifest::Fault| format!("{}: {}", fault.code.name(), fault.message);
                faults.list.iter().map(text).collect()
            }
        }
    }

    #[test]
    fn checkpoint_must_be_pinned_local_or_declared_as_unpinned() {
        let characters = json!({ "kind": "characters" });
        let sha256 = "0".repeat(64);
        for (fields, expected) in [
            (json!({ "file": "a.safetensors" }), None),
            (json!({ "file": format!("hf://o/n@{COMMIT}") }), None),
            (json!({ "file": "https://a.org/a.ckpt", "sha256": sha256 }), None),
            (json!({ "file": "hf://o/n@main", "unpinned": true }), None),
            (
                json!({ "file": "hf://o/n@main", "path": "copy", "unpinned": true }),
                None,
            ),
            (
                json!({ "file": "hf://o/n@main" }),
                Some("pin: the content of the checkpoint is not pinned"),
            ),
            (
                json!({ "file": "https://a.org/a.ckpt" }),
                Some("pin: the content"),
            ),
            (
                json!({ "file": format!("hf://o/n@{COMMIT}"), "sha256": sha256 }),
                Some("pin: `sha256` pins a file"),
            ),
            (
                json!({ "file": "https://a.org/a", "sha256": sha256, "unpinned": true }),
                Some("pin: `unpinned`"),
            ),
            (
                json!({ "file": "a.safetensors", "sha256": sha256 }),
                Some("no-effect: `sha256` has no effect"),
            ),
            (
                json!({ "file": "ftp://a.org/a" }),
                Some("invalid-value: not a URL"),
            ),
            (
                json!({ "file": format!("hf://datasets/o/n@{COMMIT}") }),
                Some("invalid-value: not a repository"),
            ),
            (
                json!({ "file": format!("hf://o/n@{COMMIT}/*.bin") }),
                Some("pattern: a checkpoint is one file"),
            ),
        ] {
            let found = faults(&fields, &characters);
            match expected {
                None => assert!(found.is_empty(), "{fields}: {found:?}"),
                Some(text) => assert!(
                    found.iter().any(|fault| fault.starts_with(text)),
                    "{fields}: {found:?}"
                ),
            }
        }
    }

    #[test]
    fn checkpoint_objective_and_vocabulary_are_checked_without_the_file() {
        let gpt2 = json!({ "kind": "published", "name": "gpt2" });
        let found = faults(&json!({ "file": "a.safetensors" }), &gpt2);
        assert!(found[0].contains("has a vocabulary of 512 tokens, but the tokenizer of `tokens` has 50258"));
        let characters = json!({ "kind": "characters" });
        let conditioned = json!({ "file": "a", "objective": { "kind": "sedd", "time_conditioning": false } });
        assert!(!faults(&conditioned, &characters).is_empty());
        assert!(
            faults(
                &json!({ "file": "a", "objective": { "kind": "ar" } }),
                &characters
            )
            .is_empty()
        );
    }
}
