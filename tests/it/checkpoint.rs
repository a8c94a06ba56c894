//! Checkpoints of other programs: imported from files, folders and the hub, evaluated, sampled, fine-tuned, and shown.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use mdlm::model::{initial, parameters};
use mdlm::shapes::{Backbone, SHAPES, Shape};
use mdlm::weights;
use mdlm::weights::tensors::{Reader, Writer};
use serde_json::{Value, json};

use crate::support::{mdlm, words};
use crate::tokenizers::server::{CERTIFICATE, Reply, Server, file};
use crate::tokenizers::{run_with_hub, succeeded};

mod agree;
mod formats;
mod lightning;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn nano() -> &'static Shape {
    SHAPES.find("nano").unwrap()
}

/// The configuration of `kuleshov-group/mdlm-owt` with the dimensions of `nano`.
fn config() -> Value {
    json!({
        "_name_or_path": "kuleshov-group/mdlm-owt", "architectures": ["MDLM"],
        "auto_map": { "AutoConfig": "configuration_mdlm.MDLMConfig", "AutoModelForMaskedLM": "modeling_mdlm.MDLM" },
        "cond_dim": 32, "dropout": 0.1, "hidden_dim": 64, "model_length": 32, "model_type": "mdlm", "n_blocks": 2,
        "n_heads": 2, "return_dict": false, "time_conditioning": false, "torch_dtype": "float32",
        "transformers_version": "4.38.2", "vocab_size": 512
    })
}

/// Writes weights as the published ones: the prefix `backbone.` and the rotary buffer among them. `change` edits the values.
fn save(path: &Path, backbone: Backbone, change: impl FnOnce(&mut [f32])) {
    let own = parameters(nano(), backbone);
    let mut values = initial(nano(), backbone, 3);
    // The output layer starts at zero: every model would be the same.
    for (at, value) in values.iter_mut().enumerate().filter(|(_, value)| **value == 0.0) {
        *value = (at as f32 * 0.37).sin() * 0.05;
    }
    change(&mut values);
    let half = nano().width / nano().heads / 2;
    let buffer: Vec<f32> = (0..half)
        .map(|i| 10_000f32.powf(-(i as f32) / half as f32))
        .collect();
    let mut tensors: Vec<_> = own
        .iter()
        .map(|own| (format!("backbone.{}", own.name), own.dims.clone()))
        .collect();
    tensors.push(("backbone.rotary_emb.inv_freq".to_owned(), vec![half]));
    let mut writer = Writer::create(path, &tensors, &[("format", "pt")]).unwrap();
    writer.append(&values).unwrap();
    writer.append(&buffer).unwrap();
    writer.finish().unwrap();
}

/// A folder as the hub has it.
pub fn published(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    save(&folder.join("model.safetensors"), Backbone::Dit, |_| ());
    fs::write(folder.join("config.json"), config().to_string()).unwrap();
    fs::write(folder.join(".gitattributes"), "*.safetensors filter=lfs").unwrap();
    fs::write(folder.join("README.md"), "# MDLM").unwrap();
    fs::write(folder.join("modeling_mdlm.py"), "import os; os.system('true')").unwrap();
}

/// The SHA-256 of bytes, in hex.
fn sha256_of(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A hub that has the files of a folder for the model `kuleshov-group/mdlm-owt`, at every commit. With `cut`, its first answer
/// with weights ends after so many bytes.
fn hub(folder: &Path, cut: Option<usize>) -> Server {
    let files: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    let files = Arc::new(files);
    let is_first = std::sync::atomic::AtomicBool::new(true);
    Server::start(move |request| {
        let path = request.target.split('?').next().unwrap_or_default();
        if path.starts_with("/api/models/kuleshov-group/mdlm-owt/tree/") {
            let entry = |(name, bytes): &(String, Vec<u8>)| {
                let hex = sha256_of(bytes);
                json!({
                    "type": "file", "path": name, "size": bytes.len(), "oid": "x",
                    "lfs": { "oid": hex, "size": bytes.len() }
                })
            };
            let listed: Vec<Value> = files.iter().map(entry).collect();
            return Reply::new(200, Value::from(listed).to_string());
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        match files.iter().find(|(known, _)| known == name) {
            Some((_, bytes)) if path.contains("/resolve/") => {
                let is_cut = name == "model.safetensors"
                    && cut.is_some()
                    && is_first.swap(false, std::sync::atomic::Ordering::Relaxed);
                Reply {
                    cut: cut.filter(|_| is_cut),
                    ..file(request, bytes, Some("\"x\""))
                }
            }
            _ => Reply::new(404, "not here"),
        }
    })
}

/// A folder with some text and a manifest.
struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let line = |n: u32| format!("word{} jumps over {} lazy dogs\n", n * 7919 % 997, n * 31 % 89);
        fs::write(
            folder.path().join("a.txt"),
            (0..400).map(line).collect::<String>(),
        )
        .unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes the manifest: text, tokens of 512 tokens, rows, and these stages.
    fn manifest(&self, more: &Value) {
        let mut stages = json!({
            "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt"] } },
            "tokens": {
                "kind": "tokenize", "from": "text",
                "tokenizer": { "kind": "train_bpe", "vocabulary_size": 512, "min_frequency": 1 }
            },
            "rows": { "kind": "pack", "from": "tokens", "length": 32, "validation": 0.2 },
        });
        stages
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let manifest = json!({ "name": "x", "seed": 1, "stages": stages });
        fs::write(self.path("x.json"), manifest.to_string()).unwrap();
    }

    fn mdlm(&self, arguments: &[&str], hub: Option<&Server>) -> Output {
        run_with_hub(self.0.path(), arguments, hub)
    }

    /// What a command that succeeds prints, and says.
    fn ok(&self, arguments: &[&str], hub: Option<&Server>) -> String {
        succeeded(arguments, &self.mdlm(arguments, hub))
    }

    /// What a command says that the input is at fault for.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.mdlm(arguments, None);
        let message = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        words(&message)
    }

    /// The folder of a stage's results.
    fn artifact(&self, stage: &str) -> PathBuf {
        let printed = self.ok(&["path", "x.json", stage], None);
        self.path(printed.lines().next().unwrap().trim())
    }

    fn json(&self, stage: &str, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.artifact(stage).join(name)).unwrap()).unwrap()
    }
}

fn checkpoint(file: &str) -> Value {
    json!({ "kind": "checkpoint", "file": file, "shape": "nano", "tokenizer": "tokens" })
}

fn evaluate(model: &str) -> Value {
    json!({ "kind": "evaluate", "model": model, "data": "rows", "draws": 1, "rows": 8 })
}

/// The weights in a file of the store.
fn read(path: &Path, backbone: Backbone) -> Vec<f32> {
    weights::read(path, nano(), backbone).unwrap()
}

/// `pipelines/published.json` as it is on a machine without the model, and with a small one in its place, from a hub.
#[test]
fn checkpoint_published_is_imported_from_the_hub_evaluated_and_sampled() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/published.json");
    let project = Project::new();
    let shipped_path = shipped.to_str().unwrap();
    project.ok(&["validate", shipped_path], None);
    let plan = project.ok(&["plan", shipped_path, "--store", "bare"], None);
    for stage in ["model", "ptb-bound", "wikitext-bound", "samples"] {
        assert!(plan.contains(stage), "{stage}: {plan}");
    }
    let manifest: Value = serde_json::from_slice(&fs::read(&shipped).unwrap()).unwrap();
    let mut model = manifest["stages"]["model"].clone();
    assert_eq!(model["shape"], "owt-small");
    assert_eq!(manifest["stages"]["tokens"]["tokenizer"]["name"], "gpt2");
    // The authors' tokenizer with the mask appended, and rows of 1,024.
    let owt = SHAPES.find("owt-small").unwrap();
    assert_eq!((owt.vocabulary, owt.length), (50_258, 1_024));

    published(&project.path("published"));
    let server = hub(&project.path("published"), None);
    model["shape"] = json!("nano");
    project.manifest(&json!({
        "model": model, "bound": evaluate("model"),
        "samples": { "kind": "sample", "model": "model", "count": 2, "steps": 4 },
    }));
    let run = project.ok(&["run", "x.json"], Some(&server));
    assert!(words(&run).contains("Hugging Face folder"), "{run}");
    let requests = server.requests();
    let fetched = |name: &str| {
        requests
            .iter()
            .filter(|request| request.target.contains(name))
            .count()
    };
    assert!(fetched("model.safetensors") >= 1 && fetched("config.json") >= 1);
    assert_eq!(
        fetched(".py") + fetched("README"),
        0,
        "code and pages are not downloaded"
    );

    let info = project.json("model", "model.json");
    let tokens = project.json("tokens", "tokens.json");
    assert_eq!(
        tokens["vocabulary"], 512,
        "the stand-in has a mask at V - 1, as the published model"
    );
    assert_eq!(
        (&info["vocabulary"], &info["special"]["mask"]),
        (&json!(512), &tokens["special"]["mask"])
    );
    assert_eq!(
        (&info["steps"], &info["seed"], &info["wrap"]),
        (&json!(0), &json!(0), &json!(true))
    );
    assert_eq!(
        info["origin"],
        json!({ "format": "Hugging Face folder", "weights": "raw", "has_both": false, "is_only_set": true })
    );
    let folder = project.artifact("model");
    let imported = read(&folder.join("ema.safetensors"), Backbone::Dit);
    assert!(imported == read(&folder.join("raw.safetensors"), Backbone::Dit));
    let stored = Reader::open(&project.path("published/model.safetensors")).unwrap();
    assert_eq!(stored.names().len(), parameters(nano(), Backbone::Dit).len() + 1);
    assert!(imported == read(&project.path("published/model.safetensors"), Backbone::Dit));
    let found = project.json("bound", "evaluation.json");
    // What the file has is not called an average, although `ema` is asked for by default.
    assert_eq!(
        (&found["weights"], &found["estimator"]),
        (&json!("raw"), &json!("time"))
    );

    // Here, nothing is asked of the hub again; a local copy is the same model.
    let asked = requests.len();
    let again = project.ok(&["run", "x.json"], Some(&server));
    assert!(again.contains("cached"), "{again}");
    assert_eq!(server.requests().len(), asked);
    project.manifest(&json!({ "model": checkpoint("published"), "bound": evaluate("model") }));
    let local = project.ok(&["run", "x.json"], None);
    assert_eq!(project.artifact("model"), folder, "{local}");
    let by_hand = json!({
        "kind": "checkpoint", "file": format!("hf://o/n@{COMMIT}"), "path": "published", "shape": "nano",
        "tokenizer": "tokens"
    });
    project.manifest(&json!({ "model": by_hand }));
    project.ok(&["run", "x.json"], None);
    assert_eq!(project.artifact("model"), folder);
}

/// A model of this program that comes back through a checkpoint stage has the bits that it had.
#[test]
fn checkpoint_of_a_train_stage_has_the_same_bound() {
    let project = Project::new();
    let train = json!({
        "kind": "train", "from": "rows", "shape": "nano", "steps": 4, "batch": 4, "warmup_steps": 0, "validation_rows": 4,
        "objective": { "kind": "mdlm", "time_conditioning": true }
    });
    project.manifest(&json!({ "trained": train, "bound": evaluate("trained") }));
    project.ok(&["run", "x.json"], None);
    let expected = project.json("bound", "evaluation.json");
    let trained = project.artifact("trained");
    fs::create_dir(project.path("copy")).unwrap();
    for name in [
        "model.json",
        "ema.safetensors",
        "raw.safetensors",
        "tokenizer.json",
        "optimizer.safetensors",
    ] {
        fs::copy(trained.join(name), project.path("copy").join(name)).unwrap();
    }
    project.manifest(&json!({ "model": checkpoint("copy"), "bound": evaluate("model") }));
    project.ok(&["run", "x.json"], None);
    let mut found = project.json("bound", "evaluation.json");
    assert_eq!(found, expected);
    let info = project.json("model", "model.json");
    assert_eq!(info["origin"]["steps"], 4);
    assert_eq!(
        (
            &info["objective"]["time_conditioning"],
            &info["origin"]["has_both"]
        ),
        (&json!(true), &json!(true))
    );
    let artifact = project.artifact("model");
    for name in ["ema.safetensors", "raw.safetensors"] {
        assert!(read(&artifact.join(name), Backbone::Dit) == read(&trained.join(name), Backbone::Dit));
    }
    // The weights of the last step alone.
    let mut raw = checkpoint("copy");
    raw["weights"] = json!("raw");
    project.manifest(&json!({ "model": raw, "bound": evaluate("model") }));
    project.ok(&["run", "x.json"], None);
    found = project.json("bound", "evaluation.json");
    assert_eq!(found["weights"], "raw");
    assert_ne!(found["nats_per_token"], expected["nats_per_token"]);
    // Another objective than the file states.
    let mut other = checkpoint("copy");
    other["objective"] = json!({ "kind": "sedd" });
    project.manifest(&json!({ "model": other }));
    let said = project.refused(&["run", "x.json"]);
    assert!(
        said.contains("the objective is `mdlm` in `model.json`, but `sedd` in the manifest"),
        "{said}"
    );
    other["objective"] = json!({ "kind": "mdlm" });
    project.manifest(&json!({ "model": other }));
    let said = project.refused(&["run", "x.json"]);
    assert!(said.contains("`time_conditioning` is true"), "{said}");
}

#[test]
fn checkpoint_is_fine_tuned_from_its_weights() {
    let project = Project::new();
    published(&project.path("published"));
    let train = |init: &str, more: Value| {
        let mut train = json!({
            "kind": "train", "from": "rows", "init": init, "shape": "nano", "steps": 2, "batch": 4, "warmup_steps": 0,
            "learning_rate": 0.0, "validation_rows": 4
        });
        train
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        train
    };
    let stages = |tuned: Value| json!({ "model": checkpoint("published"), "tuned": tuned });
    // Without a learning rate, the weights stay what they were.
    project.manifest(&stages(train("model", json!({}))));
    project.ok(&["run", "x.json"], None);
    let imported = read(&project.artifact("model").join("ema.safetensors"), Backbone::Dit);
    let tuned = project.artifact("tuned");
    assert!(read(&tuned.join("raw.safetensors"), Backbone::Dit) == imported);
    let info = project.json("tuned", "model.json");
    assert_eq!((&info["steps"], info.get("origin")), (&json!(2), None));

    // A trained model is fine-tuned further; a longer run resumes from a shorter one with the same start.
    let rate = json!({ "learning_rate": 1e-3 });
    let mut more = stages(train("model", rate.clone()));
    more["further"] = train("tuned", rate);
    project.manifest(&more);
    project.ok(&["run", "x.json"], None);
    assert!(read(&project.artifact("tuned").join("raw.safetensors"), Backbone::Dit) != imported);
    let straight = {
        more["tuned"]["steps"] = json!(4);
        more["further"]["init"] = json!("model");
        project.manifest(&more);
        let plan = project.ok(&["plan", "x.json"], None);
        assert!(plan.contains("step 2"), "{plan}");
        project.ok(&["run", "x.json"], None);
        read(&project.artifact("tuned").join("raw.safetensors"), Backbone::Dit)
    };
    project.ok(&["run", "x.json", "--force", "tuned"], None);
    assert!(read(&project.artifact("tuned").join("raw.safetensors"), Backbone::Dit) == straight);

    // What does not fit is refused before anything runs.
    for (tuned, expected) in [
        (
            train("model", json!({ "objective": { "kind": "ar" } })),
            "is a DiT (objective `mdlm`)",
        ),
        (
            train("rows", json!({})),
            "expected a stage of kind `train` or `checkpoint`",
        ),
    ] {
        let mut model = checkpoint("published");
        model["objective"] = json!({ "kind": "mdlm" });
        project.manifest(&json!({ "model": model, "tuned": tuned }));
        let said = project.refused(&["validate", "x.json"]);
        assert!(said.contains(expected), "{said}");
    }
    project.manifest(&stages(train("model", json!({ "objective": { "kind": "ar" } }))));
    let said = project.refused(&["run", "x.json"]);
    assert!(
        said.contains("a DiT (objective `mdlm`), but objective `ar` trains a plain transformer"),
        "{said}"
    );
}

#[test]
fn checkpoint_that_contradicts_the_manifest_is_refused_with_both_values() {
    let project = Project::new();
    published(&project.path("published"));
    let said_of = |config: &Value, stage: Value| {
        fs::write(project.path("published/config.json"), config.to_string()).unwrap();
        project.manifest(&json!({ "model": stage }));
        project.refused(&["run", "x.json"])
    };
    let with = |field: &str, value: Value| {
        let mut config = config();
        config[field] = value;
        config
    };
    let stage = || checkpoint("published");
    let said = said_of(&with("mask_token_id", json!(9)), stage());
    assert!(
        said.contains("the mask token is 9 by `config.json`, but"),
        "{said}"
    );
    let said = said_of(&with("vocab_size", json!(600)), stage());
    assert!(
        said.contains("the vocabulary is 600 by `config.json`, but 512 by the tokenizer"),
        "{said}"
    );
    let said = said_of(&with("model_length", json!(128)), stage());
    assert!(
        said.contains("the length of rows is 32 in shape `nano`, but 128 in the file"),
        "{said}"
    );
    let mut conditioned = stage();
    conditioned["objective"] = json!({ "kind": "mdlm", "time_conditioning": true });
    let said = said_of(&config(), conditioned);
    assert!(
        said.contains("`time_conditioning` is false in `config.json`, but true in the manifest"),
        "{said}"
    );
    let said = said_of(&with("model_type", json!("DUO")), stage());
    assert!(said.contains("a Duo model has uniform noise"), "{said}");
    // A file alone states no objective.
    let said = said_of(&config(), checkpoint("published/model.safetensors"));
    assert!(said.contains("does not state its objective"), "{said}");
    assert!(said.contains(r#""objective": { "kind": "mdlm" }"#), "{said}");
    let mut ema = stage();
    ema["weights"] = json!("ema");
    let said = said_of(&config(), ema);
    assert!(said.contains("has no averaged weights"), "{said}");
    let mut tiny = stage();
    tiny["shape"] = json!("tiny");
    let said = said_of(&config(), tiny);
    assert!(
        said.contains("do not fit shape `tiny`") && said.contains("they fit shape `nano`"),
        "{said}"
    );
}

#[test]
fn checkpoint_with_nan_is_imported_with_a_warning() {
    let project = Project::new();
    save(&project.path("m.safetensors"), Backbone::Transformer, |values| {
        values[5] = f32::NAN;
        values[6] = f32::INFINITY;
    });
    let mut model = checkpoint("m.safetensors");
    model["objective"] = json!({ "kind": "ar" });
    project.manifest(&json!({ "model": model }));
    let said = words(&project.ok(&["run", "x.json"], None));
    let warning = "tensor `vocab_embed.embedding` is NaN or infinite in 2 values";
    assert!(said.contains(warning), "{said}");
    let shown = project.ok(&["checkpoint", "m.safetensors"], None);
    assert!(
        words(&shown).contains("`backbone.vocab_embed.embedding`: 2 values"),
        "{shown}"
    );
    assert!(shown.contains("plain transformer"), "{shown}");
}

#[test]
fn checkpoint_command_shows_network_shape_and_tensors() {
    let project = Project::new();
    published(&project.path("published"));
    let shown = project.ok(&["checkpoint", "published"], None);
    for part in [
        "Hugging Face folder",
        "DiT: V 512, D 64, N 2, C 32, H 2, L 32",
        "its dimensions are those of `nano`",
        "`mdlm` without time conditioning, by `config.json`",
        "31 tensors, 204.2 k parameters",
        "backbone.vocab_embed.embedding 512 x 64 F32",
        "… 19 more: `--all`",
    ] {
        assert!(words(&shown).contains(part), "{part}: {shown}");
    }
    let all = project.ok(&["checkpoint", "published", "--all"], None);
    assert!(
        all.contains("backbone.blocks.1.norm1.weight") && !all.contains("more:"),
        "{all}"
    );
    let printed = project.ok(&["checkpoint", "published/model.safetensors", "--json"], None);
    let described: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(described["format"], "safetensors file");
    assert_eq!(described["network"]["shapes"], json!(["nano"]));
    assert_eq!(
        (&described["network"]["heads"], &described["objective"]),
        (&json!(2), &Value::Null)
    );
    assert_eq!(described["sets"][0]["weights"], "raw");
    assert_eq!(described["sets"][0]["tensors"].as_array().unwrap().len(), 31);

    fs::write(project.path("page.bin"), "<!DOCTYPE html>").unwrap();
    let said = project.refused(&["checkpoint", "page.bin"]);
    assert!(
        said.contains("a web page") && said.contains("download the file itself"),
        "{said}"
    );
    let said = project.refused(&["checkpoint", "absent"]);
    assert!(said.contains("absent"), "{said}");
}

/// `mdlm logits` reads a folder as it reads the imported weights.
#[test]
fn checkpoint_folder_has_the_logits_of_the_imported_model() {
    let project = Project::new();
    published(&project.path("published"));
    project.manifest(&json!({ "model": checkpoint("published") }));
    project.ok(&["run", "x.json"], None);
    let tokens: Vec<u8> = (0..32u32).flat_map(|token| (token * 15).to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::U32, vec![1, 32], &tokens).unwrap();
    safetensors::serialize_to_file([("xt", view)], None, &project.path("in.safetensors")).unwrap();
    let artifact = project.artifact("model").join("ema.safetensors");
    let logits = |checkpoint: &str, output: &str| {
        let arguments = [
            "logits",
            "--checkpoint",
            checkpoint,
            "--shape",
            "nano",
            "--input",
            "in.safetensors",
            "--output",
            output,
        ];
        project.ok(&arguments, None);
        fs::read(project.path(output)).unwrap()
    };
    let of_folder = logits("published", "a.safetensors");
    assert!(of_folder == logits(artifact.to_str().unwrap(), "b.safetensors"));
}

/// Of `https` with a checksum, from a server on loopback whose certificate is trusted.
#[test]
#[cfg(target_os = "linux")]
fn checkpoint_of_a_web_address_is_pinned_by_its_checksum() {
    let project = Project::new();
    save(&project.path("m.safetensors"), Backbone::Dit, |_| ());
    let bytes = fs::read(project.path("m.safetensors")).unwrap();
    let sha256 = sha256_of(&bytes);
    fs::write(project.path("certificate.pem"), CERTIFICATE).unwrap();
    let served = bytes.clone();
    // The first answer breaks off: the rest is asked for.
    let server = Server::start_tls(move |request| Reply {
        cut: (request.number == 0).then_some(30_000),
        ..file(request, &served, Some("\"a\""))
    });
    assert!(server.url.starts_with("https://"));
    let stage = |sha256: &str| {
        let mut stage = checkpoint(&format!("{}/models/m.safetensors", server.url));
        stage["sha256"] = json!(sha256);
        stage["objective"] = json!({ "kind": "mdlm" });
        json!({ "model": stage })
    };
    let run = || {
        let output = mdlm()
            .current_dir(project.0.path())
            .env("SSL_CERT_FILE", project.path("certificate.pem"))
            .env_remove("SSL_CERT_DIR")
            .args(["run", "x.json"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.code(), words(&said))
    };
    project.manifest(&stage(&"0".repeat(64)));
    let (code, said) = run();
    assert_ne!(code, Some(0), "{said}");
    assert!(
        said.contains(&sha256) && said.contains(&"0".repeat(64)),
        "both values: {said}"
    );
    project.manifest(&stage(&sha256));
    let (code, said) = run();
    assert_eq!(code, Some(0), "{said}");
    let imported = project.artifact("model").join("ema.safetensors");
    assert!(read(&imported, Backbone::Dit) == read(&project.path("m.safetensors"), Backbone::Dit));
}

/// Opening a named pipe waits for a writer, who may never come.
#[cfg(unix)]
#[test]
fn checkpoint_that_is_a_named_pipe_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(folder.path().join("pipe.safetensors"))
        .status()
        .unwrap();
    assert!(made.success());
    for command in ["checkpoint", "logits"] {
        let output = mdlm()
            .current_dir(folder.path())
            .args([command, "pipe.safetensors"])
            .timeout(std::time::Duration::from_secs(60))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{command}: {said}");
    }
}
