//! Tokenizers by name and from elsewhere; what was brought by hand in place of a download; vocabularies that no network
//! has room for.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use serde_json::{Value, json};

use super::support::{copy_folder, kit, mdlm, transcript};

#[path = "../../src/data/fetch/tests/server.rs"]
#[expect(dead_code, reason = "it can do more than is asked of it here")]
pub mod server;

use server::{Reply, Server, file};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Runs mdlm in a folder, where it can reach no host but the loopback hub.
pub fn run_with_hub(folder: &Path, arguments: &[&str], hub: Option<&Server>) -> Output {
    let hub = hub.map_or("http://127.0.0.1:9", |hub| &hub.url);
    mdlm()
        .current_dir(folder)
        .env("HF_ENDPOINT", hub)
        .env_remove("HF_TOKEN")
        .env("HF_HOME", "/nowhere")
        .args(arguments)
        .output()
        .unwrap()
}

/// What a command has printed that must have succeeded.
pub fn succeeded(arguments: &[&str], output: &Output) -> String {
    let message = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {message}");
    message.into_owned()
}

/// A hub where every model has the same files, at every commit.
fn hub(files: &[(&str, Vec<u8>)]) -> Server {
    let files: Arc<Vec<(String, Vec<u8>)>> = Arc::new(
        files
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), bytes.clone()))
            .collect(),
    );
    Server::start(move |request| {
        let path = request.target.split('?').next().unwrap_or_default();
        if path.starts_with("/api/models/") && path.contains("/tree/") {
            let listed: Vec<Value> = files
                .iter()
                .map(|(name, bytes)| {
                    let lfs = json!({ "oid": sha256(bytes), "size": bytes.len() });
                    json!({ "type": "file", "path": name, "size": bytes.len(), "oid": "x", "lfs": lfs })
                })
                .collect();
            return Reply::new(200, Value::from(listed).to_string());
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        match files.iter().find(|(known, _)| known == name) {
            Some((_, bytes)) if path.contains("/resolve/") || path.starts_with("/files/") => {
                file(request, bytes, Some("\"x\""))
            }
            _ => Reply::new(404, "not here"),
        }
    })
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A folder with some text.
struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lines =
            (0..400).map(|n| format!("word{} jumps over {} lazy dogs\n", n * 7919 % 997, n * 31 % 89));
        fs::write(folder.path().join("a.txt"), lines.collect::<String>()).unwrap();
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a manifest of the text, a tokenizer and some more stages.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "calls read better with `json!` in place"
    )]
    fn manifest(&self, tokenizer: Value, more: Value) {
        let mut stages = json!({
            "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt"] } },
            "tokens": { "kind": "tokenize", "from": "text", "tokenizer": tokenizer },
        });
        let stages_of = stages.as_object_mut().unwrap();
        stages_of.extend(more.as_object().unwrap().clone());
        let manifest = json!({ "name": "x", "seed": 1, "stages": stages });
        fs::write(self.path().join("x.json"), manifest.to_string()).unwrap();
    }

    fn mdlm(&self, arguments: &[&str], hub: Option<&Server>) -> Output {
        run_with_hub(self.path(), arguments, hub)
    }

    /// What a command that succeeds prints, and says.
    fn ok(&self, arguments: &[&str], hub: Option<&Server>) -> String {
        succeeded(arguments, &self.mdlm(arguments, hub))
    }

    /// What a command says that the input is at fault for.
    fn refused(&self, arguments: &[&str], hub: Option<&Server>) -> String {
        let output = self.mdlm(arguments, hub);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        message
    }

    /// A `tokenizer.json` of so many tokens.
    fn tokenizer_json(&self, vocabulary: u32) -> Vec<u8> {
        self.manifest(
            json!({ "kind": "train_bpe", "vocabulary_size": vocabulary, "min_frequency": 1 }),
            json!({}),
        );
        self.ok(&["run", "x.json", "--store", "other"], None);
        let path = self.ok(&["path", "x.json", "tokens", "--store", "other"], None);
        fs::read(self.path().join(path.trim()).join("tokenizer.json")).unwrap()
    }

    /// The key of the tokenize stage.
    fn key(&self) -> Value {
        let plan: Value = serde_json::from_str(&self.ok(&["plan", "x.json", "--json"], None)).unwrap();
        let stages = plan["stages"].as_array().unwrap();
        let tokens = stages.iter().find(|stage| stage["name"] == "tokens").unwrap();
        assert!(tokens["key"].is_string(), "{plan}");
        tokens["key"].clone()
    }
}

/// Every shipped manifest plans on a machine that has nothing, not even a network.
#[test]
fn plan_of_shipped_manifests_needs_no_data_and_no_network() {
    let folder = tempfile::tempdir().unwrap();
    for part in ["pipelines", "data"] {
        copy_folder(Path::new(part), &folder.path().join(part));
    }
    let mut planned = 0;
    let of = |folder: &str| -> Vec<String> {
        let entries = fs::read_dir(Path::new("pipelines").join(folder)).unwrap();
        let name = |entry: fs::DirEntry| format!("{folder}{}", entry.file_name().to_string_lossy());
        entries.map(|entry| name(entry.unwrap())).collect()
    };
    for name in ["", "paper/", "paper/small/"].map(of).concat() {
        if Path::new(&name)
            .extension()
            .is_none_or(|extension| extension != "json")
        {
            continue;
        }
        let output = mdlm()
            .current_dir(folder.path())
            .env("HF_HUB_OFFLINE", "1")
            .args(["plan", &format!("pipelines/{name}")])
            .output()
            .unwrap();
        let (plan, talk) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{name}: {talk}");
        planned += 1;
        let tokens = plan.lines().find(|line| line.starts_with("tokens"));
        match &*name {
            "lm1b.json" => assert!(tokens.unwrap().contains("downloads vocab.txt"), "{plan}"),
            "openwebtext.json" => assert!(tokens.unwrap().contains("downloads 2 files"), "{plan}"),
            _ => {}
        }
    }
    assert!(planned >= 24);
}

/// From the hub, from a server, by hand: one key, one result, and one download.
#[test]
fn tokenizer_is_downloaded_once_from_hub_and_server() {
    let project = Project::new();
    let json = project.tokenizer_json(400);
    let digest = sha256(&json);
    let hub = hub(&[("tokenizer.json", json.clone())]);
    let url = format!("hf://owner/name@{COMMIT}/tokenizer.json");
    project.manifest(
        json!({ "kind": "download", "url": url, "sha256": digest }),
        json!({}),
    );
    let plan = project.ok(&["plan", "x.json"], None);
    assert!(plan.contains("downloads tokenizer.json"), "{plan}");
    project.ok(&["run", "x.json"], Some(&hub));
    let plan = project.ok(&["plan", "x.json"], None);
    assert!(plan.contains("all cached"), "{plan}");
    let downloads = project.ok(&["downloads"], None);
    assert!(
        downloads.contains(&url) && downloads.contains("pinned"),
        "{downloads}"
    );
    // It is here: another stage, another text, and no network.
    fs::write(project.path().join("a.txt"), "other text\n").unwrap();
    let plan = project.ok(&["plan", "x.json"], None);
    assert!(!plan.contains("downloads"), "{plan}");
    project.ok(&["run", "x.json"], None);
    // The same by another road.
    let server = format!("{}/files/tokenizer.json", hub.url);
    fs::write(project.path().join("by-hand.json"), &json).unwrap();
    for more in [
        json!({ "url": server }),
        json!({ "url": "hf://owner/name@main/tokenizer.json" }),
        json!({ "url": server, "path": "by-hand.json" }),
    ] {
        let mut tokenizer = json!({ "kind": "download", "sha256": digest });
        tokenizer
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        project.manifest(tokenizer, json!({}));
        let plan = project.ok(&["plan", "x.json"], None);
        assert!(plan.contains("all cached"), "{more}: {plan}");
    }
    // A wrong file brought by hand is noticed although the result is there; one that is gone is not needed.
    fs::write(project.path().join("by-hand.json"), "{}").unwrap();
    for command in ["plan", "run"] {
        let message = project.refused(&[command, "x.json"], None);
        assert!(
            message.contains("by-hand.json") && message.contains(&digest),
            "{message}"
        );
    }
    fs::remove_file(project.path().join("by-hand.json")).unwrap();
    let plan = project.ok(&["plan", "x.json"], None);
    assert!(plan.contains("all cached"), "{plan}");
    // Who looks at results does not care.
    fs::write(project.path().join("by-hand.json"), "{}").unwrap();
    project.ok(&["show", "x.json", "tokens"], None);
}

#[test]
fn tokenizer_download_with_another_checksum_is_refused() {
    let project = Project::new();
    let hub = hub(&[("tokenizer.json", b"{}".to_vec())]);
    let digest = sha256(b"something else");
    let url = format!("{}/files/tokenizer.json", hub.url);
    project.manifest(
        json!({ "kind": "download", "url": url, "sha256": digest }),
        json!({}),
    );
    let output = project.mdlm(&["run", "x.json"], Some(&hub));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains(&digest), "{message}");
    // Pinned by nothing.
    project.manifest(json!({ "kind": "download", "url": url }), json!({}));
    let message = project.refused(&["validate", "x.json"], None);
    assert!(
        message.contains("not pinned") && message.contains("sha256"),
        "{message}"
    );
}

/// By name and by path.
#[test]
fn tokenizer_published_has_one_key_by_name_and_by_path() {
    let Some(kit) = kit("tokenizers.tar.zst") else {
        return;
    };
    let project = Project::new();
    let files = [
        ("vocab.json", "gpt2-bpe/encoder.json"),
        ("merges.txt", "gpt2-bpe/vocab.bpe"),
        ("vocab.txt", "bert-base-uncased/vocab.txt"),
    ]
    .map(|(name, path)| (name, fs::read(kit.path().join(path)).unwrap()));
    let hub = hub(&files);
    for (name, content) in &files {
        fs::write(project.path().join(name), content).unwrap();
    }
    for (name, by_path) in [
        (
            "gpt2",
            json!({ "kind": "gpt2", "vocabulary": "vocab.json", "merges": "merges.txt" }),
        ),
        (
            "bert-base-uncased",
            json!({ "kind": "bert", "vocabulary": "vocab.txt" }),
        ),
    ] {
        project.manifest(json!({ "kind": "published", "name": name }), json!({}));
        project.ok(&["run", "x.json"], Some(&hub));
        for same in [by_path, json!({ "kind": "published", "name": name, "path": "." })] {
            project.manifest(same.clone(), json!({}));
            let plan = project.ok(&["plan", "x.json"], None);
            assert!(plan.contains("all cached"), "{same}: {plan}");
        }
    }
}

#[test]
fn tokenizer_published_is_checked_when_brought_by_hand() {
    let project = Project::new();
    let tokenizer = |path: &str| json!({ "kind": "published", "name": "bert-base-uncased", "path": path });
    project.manifest(tokenizer("nowhere"), json!({}));
    let message = project.refused(&["plan", "x.json"], None);
    assert!(
        message.contains("nowhere") && message.contains("`vocab.txt`"),
        "{message}"
    );
    fs::write(project.path().join("vocab.txt"), "[UNK]\n[CLS]\n[SEP]\n").unwrap();
    project.manifest(tokenizer("vocab.txt"), json!({}));
    let message = project.refused(&["plan", "x.json"], None);
    assert!(message.contains("07eced375cec144d27c9"), "{message}");
    // Settings are the same whatever is brought.
    project.manifest(
        json!({ "kind": "published", "name": "bert-base-uncased" }),
        json!({}),
    );
    project.ok(&["run", "x.json", "--target", "text"], None);
    project.key();
}

/// A URL where a path is meant is answered with what to write.
#[test]
fn tokenizer_url_in_place_of_a_path_has_a_hint() {
    let project = Project::new();
    let url = "hf://owner/name@main/tokenizer.json";
    for (tokenizer, answer) in [
        (
            json!({ "kind": "file", "path": url }),
            "\"kind\": \"download\", \"url\": \"hf://owner/name@main/tokenizer.json\", \"sha256\"",
        ),
        (
            json!({ "kind": "gpt2", "vocabulary": "hf://gpt2/vocab.json", "merges": "merges.txt" }),
            "\"kind\": \"published\", \"name\": \"gpt2\"",
        ),
        (
            json!({ "kind": "bert", "vocabulary": "https://example.org/vocab.txt" }),
            "\"kind\": \"published\", \"name\": \"bert-base-uncased\"",
        ),
        (
            json!({ "kind": "download", "url": "hf://o/n@main/*.json", "unpinned": true }),
            "one `tokenizer.json`",
        ),
    ] {
        project.manifest(tokenizer.clone(), json!({}));
        for command in ["validate", "plan"] {
            let message = project.refused(&[command, "x.json"], None);
            let words: Vec<_> = message.split_whitespace().collect();
            assert!(words.join(" ").contains(answer), "{tokenizer}: {message}");
        }
    }
    for (input, answer) in [
        (
            json!({ "kind": "files", "files": ["https://example.org/a.txt"] }),
            "\"kind\": \"download\", \"files\": [{ \"url\": \"https://example.org/a.txt\"",
        ),
        (
            json!({ "kind": "synthetic", "grammar": "https://example.org/a.grammar", "records": 5 }),
            "download the grammar first, and write the path of the file",
        ),
        (
            json!({ "kind": "corpus", "corpus": "ptb", "files": ["https://example.org/ptb.txt"] }),
            "leave it out to download the corpus",
        ),
    ] {
        let manifest =
            json!({ "name": "x", "seed": 1, "stages": { "text": { "kind": "source", "input": input } } });
        fs::write(project.path().join("x.json"), manifest.to_string()).unwrap();
        let message = project.refused(&["validate", "x.json"], None);
        let words: Vec<_> = message.split_whitespace().collect();
        assert!(words.join(" ").contains(answer), "{input}: {message}");
    }
}

/// The stages from a tokenizer to a network that takes 512 tokens.
fn learning() -> Value {
    json!({
        "rows": { "kind": "pack", "from": "tokens", "length": 32 },
        "model": { "kind": "train", "from": "rows", "shape": "nano", "steps": 1, "warmup_steps": 0, "batch": 2 },
    })
}

/// A tokenizer larger than the shape is refused before its text is tokenized: by its name, by its file, by what is known of
/// it, and where it has to be downloaded first, before the first token.
#[test]
fn tokenizer_larger_than_the_shape_is_refused_early() {
    let project = Project::new();
    let json = project.tokenizer_json(600);
    fs::write(project.path().join("t.json"), &json).unwrap();
    let printed = |text: &str| text.contains("`nano`") && text.contains("600") && text.contains("512");

    project.manifest(json!({ "kind": "published", "name": "gpt2" }), learning());
    let refused = project.refused(&["validate", "x.json"], None);
    assert!(refused.contains("50258"), "{refused}");

    let by_path = json!({ "kind": "file", "path": "t.json" });
    project.manifest(by_path.clone(), learning());
    for command in ["plan", "run"] {
        let refused = project.refused(&[command, "x.json"], None);
        assert!(printed(&refused), "{refused}");
    }
    assert!(
        !project.path().join(".mdlm/artifacts").exists(),
        "nothing was made"
    );
    // Without the training there is nothing to refuse; with it again, what was made says how large it is.
    project.ok(&["run", "x.json", "--target", "rows"], None);
    fs::remove_file(project.path().join("t.json")).unwrap();
    fs::write(project.path().join("t.json"), &json).unwrap();
    let refused = project.refused(&["plan", "x.json"], None);
    assert!(printed(&refused), "{refused}");

    // Another stage's tokenizer.
    let mut more = learning();
    more["others"] =
        json!({ "kind": "tokenize", "from": "text", "tokenizer": { "kind": "stage", "stage": "tokens" } });
    more["rows"]["from"] = json!("others");
    project.manifest(by_path, more);
    let refused = project.refused(&["plan", "x.json"], None);
    assert!(printed(&refused), "{refused}");

    // One whose size only a download shows.
    let hub = hub(&[("tokenizer.json", json)]);
    let url = format!("hf://owner/name@{COMMIT}/tokenizer.json");
    project.manifest(json!({ "kind": "download", "url": url }), learning());
    let fresh = ["--store", "fresh"];
    project.ok(&[&["plan", "x.json"], &fresh[..]].concat(), None);
    let refused = project.refused(&[&["run", "x.json"], &fresh[..]].concat(), Some(&hub));
    assert!(
        printed(&refused) && refused.contains("stage `tokens`"),
        "{refused}"
    );
    // Now it is here.
    let refused = project.refused(&[&["plan", "x.json"], &fresh[..]].concat(), None);
    assert!(printed(&refused), "{refused}");
}

/// What was taken out of a corpus's archive is answered with what to do, when planning.
#[test]
fn corpus_file_that_was_extracted_has_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("text8"),
        " anarchism originated as a term of abuse",
    )
    .unwrap();
    let input = json!({ "kind": "corpus", "corpus": "text8", "files": ["text8"] });
    let manifest =
        json!({ "name": "x", "seed": 1, "stages": { "text": { "kind": "source", "input": input } } });
    fs::write(folder.path().join("x.json"), manifest.to_string()).unwrap();
    insta::assert_snapshot!(transcript(mdlm().current_dir(folder.path()).args(["plan", "x.json"])), @r#"
    exit 2
    --- stdout
    --- stderr
    error: failed to plan `x.json`: stage `text`: `./text8` is not the archive `text8.zip` of corpus `text8`; it looks like what was extracted from it
    hint: name `text8.zip` as it was downloaded: it is checked by its SHA-256 and read without being extracted; or read the extracted files, which mdlm cannot verify: "input":{"kind":"files","files":["text8"],"read":{"format":{"kind":"text","record":"file"},"longest_record":1073741824}},"range":{"unit":"characters","from":0,"to":90000000}
    "#);
}

#[test]
fn tokenizers_are_listed() {
    insta::assert_snapshot!(transcript(mdlm().args(["tokenizers", "gpt2"])), @r#"
    exit 0
    --- stdout
    gpt2
      what        GPT-2's byte-level BPE, the same for all sizes of GPT-2
      vocabulary  50,258 tokens, the appended mask included
      size        1.50 MB, pinned by SHA-256
      licence     MIT (modified; openai/gpt-2, LICENSE)
      homepage    https://github.com/openai/gpt-2

    Files
      name        vocab.json, also encoder.json
      from        hf://openai-community/gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e/vocab.json
      size        1.04 MB
      sha256      196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783
      name        merges.txt, also vocab.bpe
      from        hf://openai-community/gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e/merges.txt
      size        456 kB
      sha256      1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5

    In a manifest
      "tokens": {
        "kind": "tokenize",
        "from": "text",
        "tokenizer": { "kind": "published", "name": "gpt2" }
      }

    With files that you copied here (vocab.json and merges.txt in a folder), checked
    against the same SHA-256
      "tokens": {
        "kind": "tokenize",
        "from": "text",
        "tokenizer": {
          "kind": "published",
          "name": "gpt2",
          "path": "../corpora/gpt2"
        }
      }
    --- stderr
    "#);
    insta::assert_snapshot!(transcript(mdlm().args(["tokenizers", "gpt3"])), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to list the tokenizers: no tokenizer is called `gpt3`
    hint: did you mean `gpt2`?
    ");
    let list = mdlm().arg("tokenizers").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    for name in ["gpt2", "bert-base-uncased", "bert-base-cased"] {
        assert!(list.lines().any(|line| line == name), "{list}");
    }
    let json = mdlm().args(["tokenizers", "--json"]).output().unwrap();
    let all: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(all[1]["files"][0]["bytes"], 231_508);
}
