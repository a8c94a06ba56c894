//! Exported checkpoints of PyTorch Lightning: imported again, loaded by PyTorch (`tests/peers/hub.py`), and resumed by Lightning
//! itself (`tests/peers/resume_lightning.py`).

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mdlm::model::{Parameter, parameters};
use mdlm::shapes::Backbone;
use mdlm::weights::{self, read_arena};
use serde_json::{Value, json};

use super::{artifact, bits, checkpoint, hub, json_of, manifest, nano, ok, project, python, refused, train};
use crate::require::require;
use crate::support::printed;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/resume_lightning.py");
/// A folder with Lightning, where the Python of the other tests does not have it.
const FOLDER: &str = "MDLM_TEST_LIGHTNING";

/// Files and arenas of the state of a training.
const STATE: [(&str, &str); 4] = [
    ("raw.safetensors", ""),
    ("ema.safetensors", ""),
    ("optimizer.safetensors", "exp_avg"),
    ("optimizer.safetensors", "exp_avg_sq"),
];

#[test]
fn export_to_lightning_is_imported_with_weights_and_average() {
    for (objective, backbone) in [
        (
            json!({ "kind": "mdlm", "time_conditioning": true }),
            Backbone::Dit,
        ),
        (json!({ "kind": "d3pm", "steps": 40 }), Backbone::Dit),
        (json!({ "kind": "ar" }), Backbone::Transformer),
    ] {
        let stages = json!({ "model": train(&objective), "again": checkpoint("../last.ckpt") });
        let project = project(&stages);
        project.run(&["--target", "model"]);
        ok(&project, "export", &["model", "--to", "lightning", "last.ckpt"]);
        ok(
            &project,
            "export",
            &["model", "--to", "lightning", "last.ckpt", "--force"],
        );
        fs::write(project.path().join("notes.txt"), "precious").unwrap();
        let said = refused(&project, &["model", "--to", "lightning", "notes.txt", "--force"]);
        assert!(
            said.contains("`notes.txt` is there, and is not a checkpoint"),
            "{said}"
        );
        assert_eq!(fs::read(project.path().join("notes.txt")).unwrap(), b"precious");
        project.run(&["--target", "again"]);
        let (first, again) = (artifact(&project, "model"), artifact(&project, "again"));
        let (expected, found) = (
            json_of(&first.join("model.json")),
            json_of(&again.join("model.json")),
        );
        let mut origin = found["origin"].clone();
        let run = origin.as_object_mut().unwrap().remove("run").unwrap();
        assert_eq!(
            origin,
            json!({ "format": "PyTorch Lightning checkpoint", "weights": "ema", "has_both": true, "steps": 12 })
        );
        assert_eq!((&run["step"], &run["average_updates"]), (&json!(12), &json!(12)));
        assert_eq!(found["objective"], expected["objective"]);
        for name in ["ema.safetensors", "raw.safetensors"] {
            let read = |folder: &Path| bits(&weights::read(&folder.join(name), nano(), backbone).unwrap());
            assert_eq!(read(&first), read(&again), "{name}");
        }
        let mut described = crate::support::mdlm();
        described
            .current_dir(project.path())
            .args(["checkpoint", "last.ckpt", "--json"]);
        let (_, out, _) = printed(&mut described);
        let described: Value = serde_json::from_str(&out).unwrap();
        let count = parameters(nano(), backbone).len();
        for (field, value) in [
            ("steps", json!(12)),
            ("epoch", json!(0)),
            ("ema_decay", json!(0.9)),
            ("ema_updates", json!(12)),
            ("moments", json!(count)),
            ("continues_from", json!(12)),
        ] {
            assert_eq!(described["training"][field], value, "{field}");
        }
        assert_eq!(described["skipped"], json!([]));

        // Written again, the file has the same tensors and counters.
        ok(&project, "export", &["again", "--to", "lightning", "second.ckpt"]);
        manifest(
            &project,
            &json!({ "again": checkpoint("../last.ckpt"), "third": checkpoint("../second.ckpt") }),
        );
        project.run(&[]);
        let third = artifact(&project, "third");
        let own = parameters(nano(), backbone);
        for (name, arena) in STATE {
            let read = |folder: &Path| bits(&read_arena(&folder.join(name), &own, arena).unwrap());
            assert_eq!(read(&again), read(&third), "{name} {arena}");
        }
        assert_eq!(json_of(&third.join("model.json"))["origin"]["run"], run);

        // Continued from the file, the training is the same as in one piece.
        let of = |more: &Value| {
            let mut fields = train(&objective);
            fields["steps"] = json!(15);
            fields
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            fields
        };
        manifest(
            &project,
            &json!({
                "again": checkpoint("../last.ckpt"), "whole": of(&json!({})),
                "continued": of(&json!({ "init": "again", "continue": true }))
            }),
        );
        project.run(&["--force", "whole"]);
        let [whole, continued] = ["whole", "continued"].map(|stage| artifact(&project, stage));
        for (name, arena) in STATE {
            let read = |folder: &Path| bits(&read_arena(&folder.join(name), &own, arena).unwrap());
            assert_eq!(read(&whole), read(&continued), "{name} {arena}");
        }
    }
}

/// The bytes that PyTorch has are ours, and its AdamW takes the moments.
#[test]
fn export_to_lightning_is_loaded_by_torch() {
    let Some(python) = python() else { return };
    let project = project(&json!({ "model": train(&json!({ "kind": "mdlm" })) }));
    project.run(&[]);
    ok(&project, "export", &["model", "--to", "lightning", "last.ckpt"]);
    let found = hub(&python, &project, &["resume", "last.ckpt"]);
    let artifact = artifact(&project, "model");
    let own = parameters(nano(), Backbone::Dit);
    let arena = |file: &str, arena: &str| read_arena(&artifact.join(file), &own, arena).unwrap();
    let digest = |values: &[f32], of: &Parameter| {
        let bytes: Vec<u8> = values[of.range()]
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        let mut hex = String::new();
        for byte in digest.as_ref() {
            write!(hex, "{byte:02x}").unwrap();
        }
        json!({ "dtype": "float32", "shape": of.dims, "sha256": hex })
    };
    let (raw, average) = (arena("raw.safetensors", ""), arena("ema.safetensors", ""));
    let [first, second] = ["exp_avg", "exp_avg_sq"].map(|name| arena("optimizer.safetensors", name));
    assert_eq!(found["state_dict"].as_object().unwrap().len(), own.len() + 1);
    for (index, of) in own.iter().enumerate() {
        assert_eq!(
            found["state_dict"][format!("backbone.{}", of.name)],
            digest(&raw, of),
            "{}",
            of.name
        );
        assert_eq!(
            found["ema"]["shadow_params"][index],
            digest(&average, of),
            "{}",
            of.name
        );
        let state = &found["adamw"]["state"][index.to_string()];
        assert_eq!(state["exp_avg"], digest(&first, of), "{}", of.name);
        assert_eq!(state["exp_avg_sq"], digest(&second, of), "{}", of.name);
        assert_eq!(found["steps"][index], 12.0);
    }
    let group = &found["adamw"]["param_groups"][0];
    assert_eq!(
        [
            &group["lr"],
            &group["initial_lr"],
            &group["eps"],
            &group["weight_decay"],
            &group["betas"]
        ],
        [
            &json!(1e-2),
            &json!(1e-2),
            &json!(1e-8),
            &json!(0.0),
            &json!([0.9, 0.999])
        ]
    );
    assert_eq!(
        (
            &found["global_step"],
            &found["epoch"],
            &found["pytorch-lightning_version"]
        ),
        (&json!(12), &json!(0), &json!("2.2.1"))
    );
    assert_eq!(
        (&found["ema"]["decay"], &found["ema"]["num_updates"]),
        (&json!(0.9), &json!(12))
    );
    let counters = &found["loops"]["fit_loop"];
    assert_eq!(counters["epoch_progress"]["current"]["completed"], 0);
    assert_eq!(counters["epoch_loop.batch_progress"]["current"]["completed"], 0);
    assert_eq!(
        counters["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"],
        12
    );
    assert_eq!(found["hyper_parameters"]["config"]["parameterization"], "subs");
    assert_eq!(found["learning_rate"], 1e-2);
}

/// Python, which finds Lightning.
fn lightning_python() -> Command {
    let python = env::var_os("MDLM_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let mut command = Command::new(python);
    if let Some(folder) = env::var_os(FOLDER) {
        let paths = [PathBuf::from(folder)].into_iter();
        let others = env::var_os("PYTHONPATH").unwrap_or_default();
        command.env(
            "PYTHONPATH",
            env::join_paths(paths.chain(env::split_paths(&others))).unwrap(),
        );
    }
    command
}

fn found() -> Result<(), String> {
    let output = lightning_python()
        .args(["-c", "import lightning, torch"])
        .output();
    let output = output.map_err(|error| error.to_string())?;
    let talk = String::from_utf8_lossy(&output.stderr);
    match talk.lines().last() {
        _ if output.status.success() => Ok(()),
        Some(line) => Err(line.to_owned()),
        None => Err(output.status.to_string()),
    }
}

/// 12 updates here, 2 in Lightning, 2 here.
#[test]
fn export_to_lightning_is_resumed_by_lightning_and_what_it_saves_here() {
    if require("lightning", found()).is_none() {
        return;
    }
    let training = |steps: u32, more: &Value| {
        let mut stage = json!({
            "kind": "train", "from": "rows", "shape": "nano", "steps": steps, "batch": 4, "warmup_steps": 12,
            "warmup_rates": "published", "learning_rate": 1e-2, "validation_rows": 4, "ema": 0.9
        });
        let fields = stage.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        stage
    };
    let project = project(&json!({ "model": training(12, &json!({})) }));
    project.run(&[]);
    ok(&project, "export", &["model", "--to", "lightning", "last.ckpt"]);
    let output = lightning_python()
        .current_dir(project.path())
        .args([SCRIPT, "last.ckpt", "--steps", "2", "--save", "next.ckpt"])
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{talk}");
    let found: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(found["counters"], json!({ "epochs": 0, "batches": 0 }));
    assert_eq!(
        found["restored"],
        json!({ "global_step": 12, "schedule": 12, "learning_rate": 0.01 })
    );
    assert_eq!(
        found["after"],
        json!({ "global_step": 14, "schedule": 14, "updates": [14.0], "average_updates": 14 })
    );

    let file = json!({
        "kind": "checkpoint", "file": "../next.ckpt", "shape": "nano", "tokenizer": "tokens",
        "objective": { "kind": "mdlm" }
    });
    let continued = training(16, &json!({ "init": "again", "continue": true }));
    manifest(&project, &json!({ "again": file, "continued": continued }));
    let (code, _, talk) = printed(&mut project.mdlm("run", &[]));
    assert_eq!(code, Some(0), "{talk}");
    assert!(!talk.contains("learning rate of step"), "{talk}");
    let model = json_of(&artifact(&project, "again").join("model.json"));
    let run = &model["origin"]["run"];
    assert_eq!(
        (&run["step"], &run["average_updates"]),
        (&json!(14), &json!(14)),
        "{run}"
    );
    assert_eq!(run["rates"], json!({ "next_rate": 0.01 }));
}
