//! Models as files of other programs: a folder of Hugging Face, a checkpoint of PyTorch Lightning. They are imported again
//! here, and `transformers` and PyTorch read them where Python has these.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mdlm::model::{initial, parameters};
use mdlm::shapes::{Backbone, SHAPES, Shape};
use mdlm::weights;
use mdlm::weights::tensors::Reader;
use serde_json::{Value, json};

use crate::require::require;
use crate::support::{Project, printed, python_with, words};

mod lightning;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/hub.py");
/// Largest difference of logits between mdlm and PyTorch: f32 sums in another order, for logits of up to some tens.
const TOLERANCE: &str = "2e-4";

/// `1.0 / (10_000 ** (torch.arange(0, 32, 2).float() / 32))` of PyTorch 2.15, the buffer of the authors' network for heads of
/// width 32. The same in f64, rounded once, has other bits in four places.
pub const AUTHORS_BUFFER: [u32; 16] = [
    0x3f80_0000,
    0x3f0f_f59a,
    0x3ea1_e89b,
    0x3e36_1887,
    0x3dcc_cccd,
    0x3d66_55c2,
    0x3d01_86e3,
    0x3c91_ad39,
    0x3c23_d70a,
    0x3bb8_449c,
    0x3b4f_3e38,
    0x3ae9_1528,
    0x3a83_126f,
    0x3a13_6a16,
    0x39a5_cb60,
    0x393a_7753,
];

fn nano() -> &'static Shape {
    SHAPES.find("nano").unwrap()
}

/// A project with text, tokens and rows, and these stages too.
fn project(more: &Value) -> Project {
    let project = Project::new(200);
    manifest(&project, more);
    project
}

fn manifest(project: &Project, more: &Value) {
    let mut stages = json!({
        "text": { "kind": "source", "input": { "kind": "files", "files": ["../corpus/*.txt"] } },
        "tokens": {
            "kind": "tokenize", "from": "text",
            "tokenizer": { "kind": "train_bpe", "vocabulary_size": 500, "min_frequency": 1 }
        },
        "rows": { "kind": "pack", "from": "tokens", "length": 32, "validation": 0.2 }
    });
    stages
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let description = "Foxes and hares.";
    let manifest = json!({ "name": "tiny", "description": description, "seed": 1, "stages": stages });
    fs::write(project.path().join("pipelines/tiny.json"), manifest.to_string()).unwrap();
}

/// A short training whose weights leave their initial values far behind.
fn train(objective: &Value) -> Value {
    json!({
        "kind": "train", "from": "rows", "shape": "nano", "steps": 12, "batch": 8, "warmup_steps": 2,
        "learning_rate": 1e-2, "validation_rows": 4, "ema": 0.9, "objective": objective
    })
}

fn checkpoint(file: &str) -> Value {
    json!({ "kind": "checkpoint", "file": file, "shape": "nano", "tokenizer": "tokens" })
}

fn ok(project: &Project, command: &str, arguments: &[&str]) -> String {
    let (code, out, talk) = printed(&mut project.mdlm(command, arguments));
    assert_eq!(code, Some(0), "{command} {arguments:?}: {talk}");
    out
}

/// What a command says that the input is at fault for.
fn refused(project: &Project, arguments: &[&str]) -> String {
    let (code, out, talk) = printed(&mut project.mdlm("export", arguments));
    assert_eq!(code, Some(2), "{arguments:?}: {out}{talk}");
    words(&talk)
}

fn artifact(project: &Project, stage: &str) -> PathBuf {
    PathBuf::from(ok(project, "path", &[stage]).trim())
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The names in a folder, hidden ones too, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Writes weights of order one, nothing zero, as an average and as those of the last step.
fn random_weights(path: &Path, backbone: Backbone) {
    let own = parameters(nano(), backbone);
    let start = initial(nano(), backbone, 5);
    weights::write(path, &own, &["", "ema"], &[], &mut |which, into| {
        for (at, (into, start)) in into.iter_mut().zip(&start).enumerate() {
            let wave = ((at * 37 + which * 11) as f32 * 0.37).sin();
            *into = start + 0.15 * wave;
        }
        Ok(())
    })
    .unwrap();
}

/// Writes an input of `mdlm logits`: rows of tokens, the mask not among them, and with `is_conditioned` the noise level of each.
fn input(path: &Path, name: &str, is_conditioned: bool) {
    let tokens: Vec<u8> = (0..64u32)
        .flat_map(|at| (4 + at * 7919 % 490).to_le_bytes())
        .collect();
    let sigma: Vec<u8> = [0.3f32, 2.5]
        .iter()
        .flat_map(|sigma| sigma.to_le_bytes())
        .collect();
    let view = |dtype, dims: &[usize], bytes| {
        safetensors::tensor::TensorView::new(dtype, dims.to_vec(), bytes).unwrap()
    };
    let mut views = vec![(name, view(safetensors::Dtype::U32, &[2, 32], &tokens))];
    if is_conditioned {
        views.push(("sigma", view(safetensors::Dtype::F32, &[2], &sigma)));
    }
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// The file with what `mdlm logits` makes of an input.
fn logits(project: &Project, checkpoint: &str, input: &Path, output: &str, backbone: Backbone) -> PathBuf {
    let mut command = crate::support::mdlm();
    command
        .current_dir(project.path())
        .args(["logits", "--shape", "nano", "--checkpoint", checkpoint, "--input"])
        .arg(input)
        .args(["--output", output]);
    if backbone == Backbone::Transformer {
        command.args(["--objective", "ar"]);
    }
    let (code, _, talk) = printed(&mut command);
    assert_eq!(code, Some(0), "{talk}");
    project.path().join(output)
}

/// The logits in a file.
fn read_logits(path: &Path) -> Vec<f32> {
    let mut reader = Reader::open(path).unwrap();
    let mut values = vec![0.0; 2 * 32 * 512];
    reader.floats("logits", 0, &mut values).unwrap();
    values
}

#[test]
fn export_folder_has_these_files_and_fields() {
    let mut model = train(&json!({ "kind": "mdlm", "time_conditioning": true }));
    model["dropout"] = json!(0.05);
    let project = project(&json!({ "model": model }));
    project.run(&[]);
    let printed = ok(&project, "export", &["model", "--to", "hf", "out/hf"]);
    assert_eq!(printed, "out/hf\n");
    let folder = project.path().join("out/hf");
    assert_eq!(
        names(&folder),
        [
            "README.md",
            "config.json",
            "model.safetensors",
            "modeling_mdlm.py",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
    assert_eq!(
        names(&project.path().join("out")),
        ["hf"],
        "nothing is left beside it"
    );

    let artifact = artifact(&project, "model");
    let info = json_of(&artifact.join("model.json"));
    let special = &info["special"];
    let expected = json!({
        "architectures": ["MDLM"],
        "auto_map": {
            "AutoConfig": "modeling_mdlm.MDLMConfig", "AutoModel": "modeling_mdlm.MDLM",
            "AutoModelForMaskedLM": "modeling_mdlm.MDLM"
        },
        "model_type": "mdlm", "dtype": "float32", "return_dict": true, "tie_word_embeddings": false,
        "vocab_size": 512, "model_length": 32, "hidden_dim": 64, "cond_dim": 32, "n_blocks": 2, "n_heads": 2,
        "dropout": 0.05, "time_conditioning": true, "backbone": "dit",
        "objective": {
            "kind": "mdlm", "noise": { "kind": "log_linear", "epsilon": 1e-3 }, "sampling_epsilon": 1e-3,
            "antithetic": true, "time_conditioning": true
        },
        "tokenizer_vocab_size": 500, "wrap": true, "mdlm_tokenizer_digest": info["tokenizer_digest"],
        "mask_token_id": special["mask"], "bos_token_id": special["bos"], "eos_token_id": special["eos"],
        "pad_token_id": special["pad"]
    });
    assert_eq!(json_of(&folder.join("config.json")), expected);
    assert_eq!(info["objective"], expected["objective"]);
    assert_eq!(info["vocabulary"], 500);

    let tokenizer = json_of(&artifact.join("tokenizer.json"));
    let token = |role: &str| {
        let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
        let found = vocabulary.iter().find(|(_, id)| **id == special[role]);
        found.unwrap().0.clone()
    };
    let roles = json!({
        "bos_token": token("bos"), "eos_token": token("eos"), "pad_token": token("pad"), "mask_token": token("mask")
    });
    assert_eq!(json_of(&folder.join("special_tokens_map.json")), roles);
    let mut settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 32, "padding_side": "right",
        "clean_up_tokenization_spaces": false
    });
    settings
        .as_object_mut()
        .unwrap()
        .extend(roles.as_object().unwrap().clone());
    assert_eq!(json_of(&folder.join("tokenizer_config.json")), settings);

    let same = |name: &str, other: &Path| fs::read(folder.join(name)).unwrap() == fs::read(other).unwrap();
    assert!(same("tokenizer.json", &artifact.join("tokenizer.json")));
    let modeling = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/export/modeling_mdlm.py");
    assert!(same("modeling_mdlm.py", &modeling));
}

#[test]
fn export_folder_has_the_weights_asked_for() {
    let project = project(&json!({ "model": train(&json!({ "kind": "mdlm" })) }));
    project.run(&[]);
    ok(&project, "export", &["model", "--to", "hf", "out/hf"]);
    let (folder, artifact) = (project.path().join("out/hf"), artifact(&project, "model"));
    let mut weights = Reader::open(&folder.join("model.safetensors")).unwrap();
    assert_eq!(weights.metadata("format"), Some("pt"));
    let own = parameters(nano(), Backbone::Dit);
    let mut expected: Vec<_> = own.iter().map(|own| format!("backbone.{}", own.name)).collect();
    expected.insert(5, "backbone.rotary_emb.inv_freq".to_owned());
    assert_eq!(weights.names(), expected);
    let mut buffer = [0.0; 16];
    weights
        .floats("backbone.rotary_emb.inv_freq", 0, &mut buffer)
        .unwrap();
    assert_eq!(bits(&buffer), AUTHORS_BUFFER);
    let averaged = weights::read(&artifact.join("ema.safetensors"), nano(), Backbone::Dit).unwrap();
    let exported = weights::read(&folder.join("model.safetensors"), nano(), Backbone::Dit).unwrap();
    assert_eq!(bits(&exported), bits(&averaged));

    // The same again, with the other weights, over the first.
    let out = ok(
        &project,
        "export",
        &[
            "model",
            "--to",
            "hf",
            "out/hf",
            "--weights",
            "raw",
            "--force",
            "--json",
        ],
    );
    let described: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (
            &described["format"],
            &described["weights"],
            &described["path"],
            &described["stage"]
        ),
        (&json!("hf"), &json!("raw"), &json!("out/hf"), &json!("model"))
    );
    let files = described["files"].as_array().unwrap();
    assert_eq!(files.len(), 7);
    for file in files {
        let length = fs::metadata(project.path().join(file["path"].as_str().unwrap()))
            .unwrap()
            .len();
        assert_eq!(file["bytes"], length);
    }
    let raw = weights::read(&artifact.join("raw.safetensors"), nano(), Backbone::Dit).unwrap();
    let exported = weights::read(&folder.join("model.safetensors"), nano(), Backbone::Dit).unwrap();
    assert_eq!(bits(&exported), bits(&raw));
    assert_ne!(bits(&raw), bits(&averaged));
    assert_eq!(names(&project.path().join("out")), ["hf"]);
}

/// A checkpoint stage reads a folder without any statement about the model, and the folder of that is the same.
#[test]
fn export_folder_is_imported_with_equal_tensors_and_logits() {
    for (objective, backbone) in [
        (json!({ "kind": "mdlm" }), Backbone::Dit),
        (json!({ "kind": "sedd" }), Backbone::Dit),
        (
            json!({ "kind": "mdlm", "steps": 50, "carry_over": false }),
            Backbone::Dit,
        ),
        (json!({ "kind": "ar" }), Backbone::Transformer),
    ] {
        let stages = json!({ "model": train(&objective), "again": checkpoint("../hf") });
        let project = project(&stages);
        project.run(&["--target", "model"]);
        ok(&project, "export", &["model", "--to", "hf", "hf"]);
        project.run(&["--target", "again"]);
        let (first, again) = (artifact(&project, "model"), artifact(&project, "again"));
        let (mut expected, mut found) = (
            json_of(&first.join("model.json")),
            json_of(&again.join("model.json")),
        );
        assert_eq!(found["origin"]["format"], "Hugging Face folder");
        for info in [&mut expected, &mut found] {
            let fields = info.as_object_mut().unwrap();
            for field in ["origin", "seed", "steps"] {
                fields.shift_remove(field);
            }
        }
        assert_eq!(found, expected);
        let read = |folder: &Path| weights::read(&folder.join("ema.safetensors"), nano(), backbone).unwrap();
        assert_eq!(bits(&read(&first)), bits(&read(&again)));

        ok(&project, "export", &["again", "--to", "hf", "hf2"]);
        let [a, b] = ["hf", "hf2"].map(|folder| project.path().join(folder));
        for name in names(&a).iter().filter(|name| *name != "README.md") {
            assert!(
                fs::read(a.join(name)).unwrap() == fs::read(b.join(name)).unwrap(),
                "{objective}: {name}"
            );
        }

        let is_ar = backbone == Backbone::Transformer;
        let rows = project.path().join("in.safetensors");
        input(&rows, if is_ar { "x0" } else { "xt" }, !is_ar);
        let stored = first.join("ema.safetensors");
        let [ours, exported] = [(stored.to_str().unwrap(), "a"), ("hf", "b")]
            .map(|(from, to)| read_logits(&logits(&project, from, &rows, to, backbone)));
        assert_eq!(bits(&ours), bits(&exported));
        let largest = ours.iter().fold(0f32, |largest, logit| largest.max(logit.abs()));
        assert!(largest > 0.1, "{largest}");

        // Another tokenizer with as many tokens.
        let path = project.path().join("hf/config.json");
        let mut config = json_of(&path);
        let digest = expected["tokenizer_digest"].clone();
        assert_eq!(config["mdlm_tokenizer_digest"], digest);
        config["mdlm_tokenizer_digest"] = json!("0123456789");
        fs::write(&path, config.to_string()).unwrap();
        let (code, _, talk) = printed(&mut project.mdlm("run", &[]));
        assert_eq!(code, Some(2), "{talk}");
        let part = "was trained with the tokenizer 01234567 by `config.json`, but that of `tokens` is";
        assert!(words(&talk).contains(part), "{talk}");
    }
}

#[test]
fn export_card_has_results_data_settings_and_provenance() {
    let stages = json!({
        "model": train(&json!({ "kind": "mdlm" })),
        "bound": { "kind": "evaluate", "model": "model", "data": "rows", "draws": 2, "rows": 8 },
        "raw-bound": { "kind": "evaluate", "model": "model", "data": "rows", "draws": 1, "rows": 8, "weights": "raw" },
        "other": { "kind": "source", "input": { "kind": "corpus", "corpus": "wikitext2" } },
        "other-tokens": {
            "kind": "tokenize", "from": "other", "tokenizer": { "kind": "stage", "stage": "tokens" }
        }
    });
    let project = project(&stages);
    project.run(&["--target", "bound", "--target", "raw-bound"]);
    ok(&project, "export", &["model", "--to", "hf", "hf"]);
    let card = fs::read_to_string(project.path().join("hf/README.md")).unwrap();
    let found = json_of(&artifact(&project, "bound").join("evaluation.json"));
    let number = |field: &str, end: &str| found[field][end].as_f64().unwrap();
    let half = (number("bits_per_byte", "high") - number("bits_per_byte", "low")) / 2.0;
    let bits = format!("≤ {:.4} ± {half:.4}", number("bits_per_byte", "value"));
    let perplexity = format!(
        "≤ {:.3} ({:.3} to {:.3}) per token of text",
        number("perplexity", "value"),
        number("perplexity", "low"),
        number("perplexity", "high")
    );
    let record = json_of_record(&project, "model");
    let key = record["key_digest"].as_str().unwrap();
    for part in [
        &*format!("| upper bound (`time`) | {bits} | {perplexity} | 8 of "),
        &format!("      value: {:.3}\n", number("perplexity", "value")),
        "library_name: transformers\npipeline_tag: fill-mask\n",
        "- mdlm\n- masked-diffusion\n- custom_code\n",
        "# tiny: model\n\nFoxes and hares.\n\nA DiT of 204.2 k parameters",
        "[arXiv 2406.07524](https://arxiv.org/abs/2406.07524)",
        "after 12 updates",
        "| `text` | text | files `../corpus/*.txt` | not stated in the manifest |",
        "| `learning_rate` | `0.01` |",
        "| `ema` | `0.9` |",
        "| `seed` | `1` |",
        &format!("| artifact | `{}` |", record["artifact"].as_str().unwrap()),
        &format!("| cache key | `{key}` |"),
        "| git revision of mdlm |",
        "model.sample(rows=2",
    ] {
        assert!(card.contains(part), "{part:?} is not in:\n{card}");
    }
    // The evaluation of other weights is not one of these.
    assert_eq!(card.matches("upper bound (`time`)").count(), 1, "{card}");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    assert!(
        host.trim().is_empty() || !card.contains(host.trim()),
        "the machine's name is not published"
    );

    // Without results, and for weights that no evaluation is of.
    manifest(&project, &json!({ "model": train(&json!({ "kind": "mdlm" })) }));
    ok(&project, "export", &["model", "--to", "hf", "hf", "--force"]);
    let card = fs::read_to_string(project.path().join("hf/README.md")).unwrap();
    assert!(
        !card.contains("model-index") && card.contains("no evaluation of these weights"),
        "{card}"
    );
}

/// A model from elsewhere, one that is fine-tuned from it, and one that continues a training of the pipeline.
#[test]
fn export_card_names_what_a_model_began_from() {
    let address = "hf://o/n@0123456789abcdef0123456789abcdef01234567";
    let mut again = checkpoint(address);
    again["path"] = json!("../hf");
    let of = |init: &str, steps: u32, is_continued: bool| {
        let mut stage = train(&json!({ "kind": "mdlm" }));
        stage["init"] = json!(init);
        stage["steps"] = json!(steps);
        if is_continued {
            stage["continue"] = json!(true);
        }
        stage
    };
    let project = project(&json!({
        "model": train(&json!({ "kind": "mdlm" })), "again": again, "tuned": of("again", 3, false),
        "longer": of("model", 15, true)
    }));
    project.run(&["--target", "model"]);
    ok(&project, "export", &["model", "--to", "hf", "hf"]);
    project.run(&[]);
    let card = |stage: &str| {
        let folder = format!("{stage}-hf");
        ok(&project, "export", &[stage, "--to", "hf", &folder]);
        fs::read_to_string(project.path().join(folder).join("README.md")).unwrap()
    };
    let check = |card: &str, parts: &[&str], not: &[&str]| {
        for part in parts {
            assert!(card.contains(part), "{part:?} is not in:\n{card}");
        }
        for part in not {
            assert!(!card.contains(part), "{part:?} is in:\n{card}");
        }
    };
    let unknown = format!(
        "The licence of the weights is unknown to mdlm. That of `{address}`, from which they come, applies"
    );
    check(
        &card("again"),
        &[
            "- custom_code\nlicense: unknown\nbase_model: \"o/n\"\n---\n",
            &format!(
                "The weights come from `{address}` (Hugging Face folder), and are the only ones of the file, which does not"
            ),
            "| weights | `as the file has them` |",
            "The manifest had no evaluation of these weights with a result when",
            &unknown,
        ],
        &["those of the last step", "base_model_relation", "The store had"],
    );
    check(
        &card("tuned"),
        &[
            "license: unknown\nbase_model: \"o/n\"\nbase_model_relation: finetune\n",
            &format!(
                "after 3 updates. It was fine-tuned from the weights of `again`, which is `{address}`. mdlm"
            ),
            &format!("The weights that the training began with were trained elsewhere: see `{address}`"),
            &unknown,
        ],
        &[],
    );
    check(
        &card("longer"),
        &[
            "after 15 updates. It continues the training of `model`, from update 12 on. mdlm",
            "3 updates of 8 rows",
            ", after the 12 updates that it continues",
            "The licence of the weights is not stated here",
        ],
        &["base_model", "license:"],
    );
}

fn json_of_record(project: &Project, stage: &str) -> Value {
    serde_json::from_str(&ok(project, "show", &[stage, "--json"])).unwrap()
}

#[test]
fn export_refuses_what_it_cannot_write() {
    let stages = json!({ "model": train(&json!({ "kind": "mdlm" })), "again": checkpoint("../hf") });
    let project = project(&stages);
    let said = refused(&project, &["model", "--to", "hf", "hf"]);
    assert!(
        said.contains("failed to export stage `model`: it has not run")
            && said.contains("hint: `mdlm run pipelines/tiny.json --target model`"),
        "{said}"
    );
    project.run(&["--target", "model"]);
    let said = refused(&project, &["rows", "--to", "hf", "hf"]);
    assert!(
        said.contains("it is a pack stage") && said.contains("name one of `model`, `again`"),
        "{said}"
    );
    let said = refused(&project, &["models", "--to", "hf", "hf"]);
    assert!(said.contains("models"), "{said}");
    let said = refused(&project, &["model", "--to", "onnx", "hf"]);
    assert!(said.contains("onnx") && said.contains("hf, lightning"), "{said}");

    ok(&project, "export", &["model", "--to", "hf", "hf"]);
    let said = refused(&project, &["model", "--to", "hf", "hf"]);
    assert!(
        said.contains("`hf` is not empty") && said.contains("`--force`"),
        "{said}"
    );
    fs::write(project.path().join("hf/notes.txt"), "mine").unwrap();
    let said = refused(&project, &["model", "--to", "hf", "hf", "--force"]);
    assert!(
        said.contains("`hf` holds `notes.txt`, which is not a file of an export"),
        "{said}"
    );
    assert_eq!(names(&project.path().join("hf")).len(), 8);
    fs::remove_file(project.path().join("hf/notes.txt")).unwrap();
    let said = refused(
        &project,
        &["model", "--to", "hf", "pipelines/tiny.json", "--force"],
    );
    assert!(said.contains("is a file"), "{said}");
    fs::create_dir(project.path().join("empty")).unwrap();
    ok(&project, "export", &["model", "--to", "hf", "empty"]);
    #[cfg(unix)]
    for (link, target) in [
        ("to-hf", "hf"),
        ("to-nothing", "absent"),
        ("to-file", "last.ckpt"),
    ] {
        std::os::unix::fs::symlink(target, project.path().join(link)).unwrap();
        for format in ["hf", "lightning"] {
            let said = refused(&project, &["model", "--to", format, link, "--force"]);
            assert!(
                said.contains(&format!("`{link}` is a symbolic link to `{target}`"))
                    && said.contains(&format!("name the place itself: `{target}`")),
                "{said}"
            );
        }
        assert!(fs::read_link(project.path().join(link)).is_ok());
    }

    ok(&project, "export", &["model", "--to", "lightning", "last.ckpt"]);
    let said = refused(&project, &["model", "--to", "lightning", "last.ckpt"]);
    assert!(said.contains("`last.ckpt` is there already"), "{said}");
    ok(
        &project,
        "export",
        &["model", "--to", "lightning", "last.ckpt", "--force"],
    );
    let said = refused(&project, &["model", "--to", "lightning", "hf", "--force"]);
    assert!(said.contains("`hf` is a folder"), "{said}");
    let said = refused(
        &project,
        &["model", "--to", "lightning", "x.ckpt", "--weights", "ema"],
    );
    assert!(said.contains("`--weights` has no effect"), "{said}");

    project.run(&["--target", "again"]);
    let said = refused(&project, &["again", "--to", "lightning", "x.ckpt"]);
    assert!(
        said.contains("no moments of AdamW") && said.contains("`--to hf`"),
        "{said}"
    );
    let said = refused(&project, &["again", "--to", "hf", "x", "--weights", "ema"]);
    assert!(
        said.contains("its model has no averaged weights") && said.contains("`--weights raw`"),
        "{said}"
    );
    assert!(!project.path().join("x.ckpt").exists() && !project.path().join("x").exists());
}

/// A damaged result: neither the folder nor what it was written as stays, and an earlier export is as it was.
#[test]
fn export_that_fails_leaves_nothing_half() {
    let project = project(&json!({ "model": train(&json!({ "kind": "mdlm" })) }));
    project.run(&[]);
    ok(&project, "export", &["model", "--to", "hf", "hf"]);
    let before = names(project.path());
    let weights = artifact(&project, "model").join("ema.safetensors");
    let length = fs::metadata(&weights).unwrap().len();
    fs::remove_file(&weights).unwrap();
    fs::write(&weights, vec![b'x'; length as usize]).unwrap();
    for arguments in [
        &["model", "--to", "hf", "new"][..],
        &["model", "--to", "hf", "hf", "--force"],
        &["model", "--to", "lightning", "new.ckpt"],
    ] {
        let (code, _, talk) = printed(&mut project.mdlm("export", arguments));
        assert!(code != Some(0), "{talk}");
        assert_eq!(names(project.path()), before, "{arguments:?}: {talk}");
    }
    assert_eq!(names(&project.path().join("hf")).len(), 7);
}

/// The Python whose packages read what is exported, if it has them.
fn python() -> Option<PathBuf> {
    let modules = ["numpy", "safetensors", "tokenizers", "torch", "transformers"];
    require("transformers", python_with(&modules))
}

/// What a command of `tests/peers/hub.py` prints, as JSON.
fn hub(python: &Path, project: &Project, arguments: &[&str]) -> Value {
    let output = Command::new(python)
        .current_dir(project.path())
        .arg(SCRIPT)
        .args(arguments)
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{arguments:?}: {printed}{talk}");
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

#[test]
fn export_has_the_same_logits_in_transformers() {
    let Some(python) = python() else { return };
    let mut random = checkpoint("../random.safetensors");
    random["objective"] = json!({ "kind": "mdlm", "time_conditioning": true });
    let mut causal = checkpoint("../causal.safetensors");
    causal["objective"] = json!({ "kind": "ar" });
    let of = |rows: &str, objective: Value| {
        let mut stage = train(&objective);
        stage["from"] = json!(rows);
        stage
    };
    let project = project(&json!({
        "plain": train(&json!({ "kind": "mdlm" })),
        "conditioned": train(&json!({ "kind": "mdlm", "time_conditioning": true })),
        "ar": train(&json!({ "kind": "ar" })),
        "random": random,
        "causal": causal,
        "words": {
            "kind": "tokenize", "from": "text",
            "tokenizer": { "kind": "train_wordpiece", "vocabulary_size": 400, "min_frequency": 1 }
        },
        "word-rows": { "kind": "pack", "from": "words", "length": 32, "validation": 0.2, "wrap": false },
        "padded": of("word-rows", json!({ "kind": "sedd" })),
        "letters": {
            "kind": "tokenize", "from": "text",
            "tokenizer": { "kind": "characters", "alphabet": "abcdefghijklmnopqrstuvwxyz0123456789 " }
        },
        "letter-rows": { "kind": "pack", "from": "letters", "length": 32, "validation": 0.2 },
        "lettered": of("letter-rows", json!({ "kind": "mlm" }))
    }));
    random_weights(&project.path().join("random.safetensors"), Backbone::Dit);
    random_weights(&project.path().join("causal.safetensors"), Backbone::Transformer);
    project.run(&[]);
    let mut cases = Vec::new();
    for (stage, backbone, is_conditioned) in [
        ("plain", Backbone::Dit, false),
        ("conditioned", Backbone::Dit, true),
        ("ar", Backbone::Transformer, false),
        ("random", Backbone::Dit, true),
        ("causal", Backbone::Transformer, false),
        ("padded", Backbone::Dit, true),
        ("lettered", Backbone::Dit, false),
    ] {
        ok(&project, "export", &[stage, "--to", "hf", stage]);
        let rows = project.path().join(format!("{stage}.in"));
        let is_ar = backbone == Backbone::Transformer;
        input(&rows, if is_ar { "x0" } else { "xt" }, is_conditioned);
        let stored = artifact(&project, stage).join("ema.safetensors");
        let ours = logits(
            &project,
            stored.to_str().unwrap(),
            &rows,
            &format!("{stage}.out"),
            backbone,
        );
        cases.push(json!({ "folder": stage, "input": rows, "logits": ours, "text": "corpus/a.txt" }));
    }
    fs::write(project.path().join("cases.json"), Value::from(cases).to_string()).unwrap();
    let found = hub(
        &python,
        &project,
        &["exported", "cases.json", "--tolerance", TOLERANCE],
    );
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 7);
    for case in found {
        // Of logits that are all near zero any two networks would be equal.
        assert!(case["largest"].as_f64().unwrap() > 0.1, "{case}");
        assert!(case["tokens"].as_u64().unwrap() > 1000, "{case}");
        assert!(case["loss"].as_f64().unwrap() > 0.1, "{case}");
    }
}
