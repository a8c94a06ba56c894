//! Tokenizers and detokenizers as other programs name them, and the objects to write.

use crate::manifest::fault::alternatives;
use crate::manifest::json::{Node, pointer_join, pointer_tokens};
use crate::manifest::reading::RemoteFile;
use crate::manifest::schema_parts::{options, stage_schema};
use crate::manifest::vocabularies::Published;

/// Other names of the published tokenizers.
const SAME_VOCABULARY: &[(&str, &str)] = &[
    ("bert-large-cased", "bert-base-cased"),
    ("bert-large-uncased", "bert-base-uncased"),
    ("gpt-2", "gpt2"),
    ("gpt2-large", "gpt2"),
    ("gpt2-medium", "gpt2"),
    ("gpt2-xl", "gpt2"),
];

/// Owners of models on Hugging Face that are named without one.
const OWNERS: &[(&str, &str)] = &[
    ("albert-", "albert"),
    ("distilbert-", "distilbert"),
    ("distilgpt2", "distilbert"),
    ("distilroberta-", "distilbert"),
    ("gpt2", "openai-community"),
    ("bert-", "google-bert"),
    ("roberta-", "FacebookAI"),
    ("t5-", "google-t5"),
    ("xlm-roberta-", "FacebookAI"),
    ("xlnet-", "xlnet"),
];

/// The object to write for a tokenizer that is called by its name alone: one of those that have a name here, one of
/// Hugging Face, a file, or a way to train one.
#[must_use]
#[expect(
    clippy::case_sensitive_file_extension_comparisons,
    reason = "the name is in lower case"
)]
pub fn tokenizer(name: &str) -> Option<String> {
    let name = name.trim();
    let plain = name.strip_prefix("hf://").unwrap_or(name);
    let plain = plain.strip_prefix("https://huggingface.co/").unwrap_or(plain);
    let bare = plain.rsplit('/').next().unwrap_or(plain).to_lowercase();
    let same = SAME_VOCABULARY.iter().find(|(other, _)| *other == bare);
    let published = same.map_or(bare.as_str(), |(_, ours)| *ours);
    let is_id = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let owned: Vec<&str> = plain.split('/').collect();
    let is_owned = matches!(owned.as_slice(), [owner, _] if is_id(owner) && !owner.starts_with('.'));
    if Published::find(published).is_some() && (owned.len() == 1 || is_owned) {
        return Some(format!(
            "{{ \"kind\": \"published\", \"name\": \"{published}\" }}"
        ));
    }
    if bare.ends_with(".json") || bare.ends_with(".txt") {
        return match name.split_once("://") {
            None if bare == "merges.txt" => {
                let vocabulary = format!("{}vocab.json", &name[..name.len() - bare.len()]);
                Some(format!(
                    "{{ \"kind\": \"gpt2\", \"vocabulary\": \"{vocabulary}\", \"merges\": \"{name}\" }}"
                ))
            }
            None if bare.ends_with(".txt") => {
                Some(format!("{{ \"kind\": \"bert\", \"vocabulary\": \"{name}\" }}"))
            }
            None => Some(format!("{{ \"kind\": \"file\", \"path\": \"{name}\" }}")),
            Some(("hf" | "http" | "https" | "s3" | "gs" | "az", _)) if bare.ends_with(".json") => {
                Some(download(name))
            }
            Some(_) => None,
        };
    }
    match bare.as_str() {
        "bpe" | "byte_bpe" | "bytelevel" | "byte-level" | "train_bpe" => {
            return Some("{ \"kind\": \"train_bpe\", \"vocabulary_size\": 4096 }".to_owned());
        }
        "wordpiece" | "train_wordpiece" => {
            return Some("{ \"kind\": \"train_wordpiece\", \"vocabulary_size\": 4096 }".to_owned());
        }
        "char" | "chars" | "character" | "characters" => {
            return Some("{ \"kind\": \"characters\" }".to_owned());
        }
        _ => {}
    }
    let repository = match owned.as_slice() {
        [owner, model] if is_owned && is_id(model) => format!("{owner}/{model}"),
        [model] if is_id(model) => {
            let owner = OWNERS.iter().find(|(start, _)| bare.starts_with(start));
            format!("{}/{model}", owner.map_or("OWNER", |(_, owner)| owner))
        }
        _ => return None,
    };
    Some(download(&format!("hf://{repository}@main/tokenizer.json")))
}

/// The object of a `tokenizer.json` at a URL.
fn download(url: &str) -> String {
    let remote = RemoteFile {
        url: url.to_owned(),
        sha256: None,
        unpinned: true,
        max_bytes: None,
        exclude: vec![],
    };
    let unpinned = if remote.names_commit() {
        ""
    } else {
        ", \"unpinned\": true"
    };
    format!("{{ \"kind\": \"download\", \"url\": \"{url}\"{unpinned} }}")
}

/// The way out where the tokenizer at `pointer` lacks a field of its kind: what another field says, or an example.
pub(in crate::manifest) fn missing_of_tokenizer(tree: &Node, pointer: &str, field: &str) -> Option<String> {
    let tokens: Vec<_> = pointer_tokens(pointer).collect();
    let [stages, stage, tokenizer_field] = tokens.as_slice() else {
        return None;
    };
    if stages != "stages" || tokenizer_field != "tokenizer" {
        return None;
    }
    let written = tree.at(pointer)?;
    let kind = written.member("kind")?.value.as_str()?;
    let others = written.members().iter().filter(|member| member.key != "kind");
    let texts = others.filter_map(|member| Some((member.key.as_str(), member.value.as_str()?)));
    let texts: Vec<_> = texts.collect();
    let mut urls = texts.iter().filter(|(_, text)| text.contains("://"));
    if let Some(hint) = urls.find_map(|(_, url)| written_tokenizer(url)) {
        return Some(hint);
    }
    let example = match (kind, field) {
        ("published", "name") => {
            let mut named = texts
                .iter()
                .filter(|(key, _)| *key != "path" && NAMED.contains(key));
            if let Some(hint) = named.find_map(|(_, name)| written_tokenizer(name)) {
                return Some(hint);
            }
            // A folder is often called by the name of the tokenizer in it.
            let folder = |text: &str| Published::find(text.trim_end_matches('/').rsplit('/').next()?);
            let found = texts.iter().find_map(|(_, text)| folder(text));
            let name = found.map_or("gpt2", |published| published.name);
            return Some(format!(
                "add `\"name\": \"{name}\"`; `mdlm tokenizers` lists the names"
            ));
        }
        ("download", "url") => "hf://OWNER/NAME@REVISION/tokenizer.json",
        ("file", "path") => "tokenizer.json",
        ("gpt2", "vocabulary") => "vocab.json",
        ("gpt2", "merges") => "merges.txt",
        ("bert", "vocabulary") => "vocab.txt",
        ("train_bpe" | "train_wordpiece", "vocabulary_size") => {
            return written_tokenizer(kind);
        }
        ("stage", "stage") => other_tokenize_stage(tree, stage)?,
        _ => return None,
    };
    // A field of another name may name the file.
    let ending = example.rsplit_once('.').map(|(_, ending)| format!(".{ending}"));
    let file = texts.iter().find(|(key, text)| {
        !["vocabulary", "merges"].contains(key)
            && ending.as_deref().is_some_and(|ending| text.ends_with(ending))
    });
    let value = file
        .filter(|_| kind != "download")
        .map_or(example, |(_, text)| *text);
    Some(format!("add `\"{field}\": \"{value}\"`"))
}

/// The first stage but `stage` that loads or trains a tokenizer.
fn other_tokenize_stage<'t>(tree: &'t Node, stage: &str) -> Option<&'t str> {
    let has_tokenizer = |node: &Node| {
        let kind = node.at("/tokenizer/kind").and_then(Node::as_str);
        kind.is_some_and(|kind| kind != "stage")
    };
    let mut stages = tree.member("stages")?.value.members().iter();
    let other = stages.find(|other| other.key != stage && has_tokenizer(&other.value))?;
    Some(&other.key)
}

/// The object to write where a tokenizer or a detokenizer is called by a name alone.
pub(in crate::manifest) fn object_to_write(tree: &Node, pointer: &str) -> Option<String> {
    let tokens: Vec<_> = pointer_tokens(pointer).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let node = tree.at(pointer)?;
    match tokens.as_slice() {
        ["stages", _, "detokenize"] | ["stages", _, "detokenize", _] => {
            let names = options(&stage_schema("source")?["properties"]["detokenize"]);
            let first = names.first().copied().unwrap_or("ptb");
            let others = alternatives(&names);
            (node.as_str()? == "published").then(|| {
                format!("write {{ \"rules\": \"{first}\", \"as\": \"published\" }}; the rules are {others}")
            })
        }
        ["stages", _, "tokenizer"] if !node.is_object() => written_tokenizer(node.as_str()?),
        ["stages", _, "tokenizer", "name"] => written_tokenizer(node.as_str()?),
        ["stages", stage, "tokenizer"] | ["stages", stage, "tokenizer", "kind"] => {
            let stage = pointer_join("/stages", stage);
            let written = tree.at(&pointer_join(&stage, "tokenizer"))?;
            let text = |field: &str| written.member(field)?.value.as_str();
            let kind = text("kind").filter(|kind| !NAMELESS.contains(kind));
            let named = NAMED.iter().find_map(|field| text(field));
            match named.or(kind) {
                Some(name) => written_tokenizer(name),
                None if text("kind").is_some() => Some(format!(
                    "write {}, or {}",
                    tokenizer("gpt2")?,
                    tokenizer("OWNER/NAME")?
                )),
                None => None,
            }
        }
        _ => None,
    }
}

/// Fields in which other programs name a tokenizer.
const NAMED: [&str; 9] = [
    "name",
    "repo",
    "repo_id",
    "repository",
    "model",
    "id",
    "pretrained",
    "pretrained_model_name_or_path",
    "path",
];

/// Kinds of tokenizers of other programs, which name the tokenizer in another field.
const NAMELESS: [&str; 9] = [
    "auto",
    "autotokenizer",
    "hf",
    "hub",
    "huggingface",
    "pretrained",
    "sentencepiece",
    "tokenizers",
    "transformers",
];

fn written_tokenizer(name: &str) -> Option<String> {
    tokenizer(name).map(|object| format!("write {object}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use crate::shape::tests::EXAMPLES;

    #[test]
    fn hint_for_a_tokenizers_name_is_an_object_that_a_manifest_takes() {
        for (name, part) in [
            ("gpt2", "\"published\", \"name\": \"gpt2\""),
            ("openai-community/gpt2", "\"published\", \"name\": \"gpt2\""),
            (
                "bert-base-uncased",
                "\"published\", \"name\": \"bert-base-uncased\"",
            ),
            (
                "bert-large-uncased",
                "\"published\", \"name\": \"bert-base-uncased\"",
            ),
            (
                "roberta-base",
                "\"hf://FacebookAI/roberta-base@main/tokenizer.json\"",
            ),
            (
                "EleutherAI/gpt-neox-20b",
                "\"hf://EleutherAI/gpt-neox-20b@main/tokenizer.json\"",
            ),
            ("some-model", "\"hf://OWNER/some-model@main/tokenizer.json\""),
            (
                "../kit/tokenizer.json",
                "\"file\", \"path\": \"../kit/tokenizer.json\"",
            ),
            (
                "hf://x/y/tokenizer.json",
                "\"download\", \"url\": \"hf://x/y/tokenizer.json\", \"unpinned\": true",
            ),
            (
                "https://a.org/tokenizer.json",
                "\"download\", \"url\": \"https://a.org/tokenizer.json\", \"unpinned\": true",
            ),
            (
                "hf://x/y@607a30d783dfa663caf39e06633721c8d4cfcd7e/tokenizer.json",
                "@607a30d783dfa663caf39e06633721c8d4cfcd7e/tokenizer.json\" }",
            ),
            ("bpe", "\"train_bpe\""),
            ("a/vocab.txt", "\"bert\", \"vocabulary\": \"a/vocab.txt\""),
            (
                "a/merges.txt",
                "\"gpt2\", \"vocabulary\": \"a/vocab.json\", \"merges\": \"a/merges.txt\"",
            ),
            ("characters", "\"characters\""),
        ] {
            let object = tokenizer(name).unwrap();
            assert!(object.contains(part), "{name}: {object}");
            let manifest = format!(
                "{{ \"name\": \"x\", \"seed\": 1, \"stages\": {{
                    \"text\": {{ \"kind\": \"source\", \"input\": {{ \"kind\": \"files\", \"files\": [\"a\"] }} }},
                    \"tokens\": {{ \"kind\": \"tokenize\", \"from\": \"text\", \"tokenizer\": {object} }} }} }}"
            );
            if let Err(faults) = Manifest::from_bytes("x", manifest.into_bytes(), &[], EXAMPLES) {
                panic!("{name}: {faults}");
            }
        }
        for name in [
            "",
            "a b",
            "a/b/c",
            "https://a.org/vocab.txt",
            "file:///a/tokenizer.json",
        ] {
            assert_eq!(tokenizer(name), None, "{name}");
        }
    }

    /// The hints about a tokenizer that is written like this.
    fn hints(tokenizer: &serde_json::Value) -> Vec<String> {
        let manifest = serde_json::json!({ "name": "x", "seed": 1, "stages": {
            "letters": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
            "text": { "kind": "source", "input": { "kind": "files", "files": ["a"] } },
            "tokens": { "kind": "tokenize", "from": "text", "tokenizer": tokenizer },
        } });
        let faults = Manifest::from_bytes("x", manifest.to_string().into_bytes(), &[], EXAMPLES).unwrap_err();
        faults
            .list
            .iter()
            .filter_map(|fault| fault.hint.clone())
            .collect()
    }

    #[test]
    fn hint_for_a_tokenizer_that_lacks_a_field_is_that_field() {
        use serde_json::json;
        let url = "hf://google-bert/bert-base-uncased@main/tokenizer.json";
        let download = format!("write {{ \"kind\": \"download\", \"url\": \"{url}\", \"unpinned\": true }}");
        for (tokenizer, expected) in [
            (
                json!({ "kind": "published" }),
                "add `\"name\": \"gpt2\"`; `mdlm tokenizers` lists the names",
            ),
            (
                json!({ "kind": "published", "path": "../corpora/bert-base-cased/" }),
                "add `\"name\": \"bert-base-cased\"`; `mdlm tokenizers` lists the names",
            ),
            (
                json!({ "kind": "published", "model": "bert-base-uncased" }),
                "write { \"kind\": \"published\", \"name\": \"bert-base-uncased\" }",
            ),
            (json!({ "kind": "file" }), "add `\"path\": \"tokenizer.json\"`"),
            (
                json!({ "kind": "file", "file": "my.json" }),
                "add `\"path\": \"my.json\"`",
            ),
            (json!({ "kind": "file", "file": url }), download.as_str()),
            (json!({ "kind": "bert", "path": url }), download.as_str()),
            (json!({ "kind": "published", "url": url }), download.as_str()),
            (
                json!({ "kind": "bert", "path": "x" }),
                "add `\"vocabulary\": \"vocab.txt\"`",
            ),
            (
                json!({ "kind": "gpt2", "vocabulary": "vocab.json" }),
                "add `\"merges\": \"merges.txt\"`",
            ),
            (
                json!({ "kind": "download" }),
                "add `\"url\": \"hf://OWNER/NAME@REVISION/tokenizer.json\"`",
            ),
            (
                json!({ "kind": "train_bpe" }),
                "write { \"kind\": \"train_bpe\", \"vocabulary_size\": 4096 }",
            ),
            (json!({ "kind": "stage" }), "add `\"stage\": \"letters\"`"),
            (json!(url), download.as_str()),
        ] {
            let hints = hints(&tokenizer);
            assert!(
                hints.iter().any(|hint| hint == expected),
                "{tokenizer}: {hints:?}"
            );
            let invented = hints.iter().any(|hint| hint.contains("OWNER/published"));
            assert!(!invented, "{tokenizer}: {hints:?}");
        }
    }
}
