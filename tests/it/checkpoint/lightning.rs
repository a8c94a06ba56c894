//! Trainings of the authors' code, saved by PyTorch Lightning: read, continued, and refused where they contradict the manifest.

use std::path::Path;

use mdlm::model::{initial, parameters};
use mdlm::shapes::Backbone;
use mdlm::weights;
use mdlm::weights::torch::dtype::TorchDtype;
use mdlm::weights::torch::write::{TorchItem, TorchWriter};
use serde_json::{Value, json};

use super::{Project, checkpoint, evaluate, nano, save};
use crate::support::words;

/// Settings of a run, as [`lightning`] writes them.
pub type Settings<'a> = Vec<(&'a str, TorchItem)>;

pub fn dict(items: Vec<(&str, TorchItem)>) -> TorchItem {
    let items = items.into_iter().map(|(name, item)| TorchItem::named(name, item));
    TorchItem::Dict(items.collect())
}

pub fn text(text: &str) -> TorchItem {
    TorchItem::Text(text.to_owned())
}

/// Writes a training of nano's DiT as PyTorch Lightning and the authors' code save it: weights, average, moments.
pub fn lightning(path: &Path, step: i64, values: [&[f32]; 4], change: &dyn Fn(&mut Settings<'_>)) {
    lightning_with(path, step, values, change, (1, TorchItem::Int(step)));
}

/// The same with an optimizer that has its parameters in several groups, and another number of updates of the average.
pub fn lightning_with(
    path: &Path,
    step: i64,
    [raw, average, first, second]: [&[f32]; 4],
    change: &dyn Fn(&mut Settings<'_>),
    (groups, updates): (usize, TorchItem),
) {
    let own = parameters(nano(), Backbone::Dit);
    let tensor = |dims: &[usize]| TorchItem::Tensor(TorchDtype::F32, dims.to_vec());
    let state = own
        .iter()
        .map(|own| TorchItem::named(&format!("backbone.{}", own.name), tensor(&own.dims)));
    let moments = own.iter().enumerate().map(|(index, own)| {
        let state = dict(vec![
            ("step", TorchItem::Int(step)),
            ("exp_avg", tensor(&own.dims)),
            ("exp_avg_sq", tensor(&own.dims)),
        ]);
        (TorchItem::Int(index as i64), state)
    });
    let numbers: Vec<_> = (0..own.len() as i64).map(TorchItem::Int).collect();
    let groups = numbers.chunks(own.len().div_ceil(groups)).map(|numbers| {
        dict(vec![
            ("lr", TorchItem::Float(1e-3)),
            (
                "betas",
                TorchItem::Tuple(vec![TorchItem::Float(0.9), TorchItem::Float(0.999)]),
            ),
            ("eps", TorchItem::Float(1e-8)),
            ("weight_decay", TorchItem::Float(0.0)),
            ("amsgrad", TorchItem::Bool(false)),
            ("params", TorchItem::List(numbers.to_vec())),
        ])
    });
    let groups = groups.collect();
    let mut config = vec![
        ("parameterization", text("subs")),
        ("T", TorchItem::Int(0)),
        ("time_conditioning", TorchItem::Bool(false)),
        (
            "noise",
            dict(vec![
                ("type", text("loglinear")),
                ("sigma_min", TorchItem::Float(1e-4)),
            ]),
        ),
        (
            "data",
            dict(vec![
                ("wrap", TorchItem::Bool(true)),
                ("tokenizer_name_or_path", text("gpt2")),
            ]),
        ),
        (
            "model",
            dict(vec![
                ("length", TorchItem::Int(32)),
                ("hidden_size", TorchItem::Int(64)),
                ("n_heads", TorchItem::Int(2)),
                ("n_blocks", TorchItem::Int(2)),
                ("cond_dim", TorchItem::Int(32)),
                ("dropout", TorchItem::Float(0.1)),
            ]),
        ),
        ("training", dict(vec![("ema", TorchItem::Float(0.99))])),
    ];
    change(&mut config);
    let shadow = own.iter().map(|own| tensor(&own.dims)).collect();
    let item = dict(vec![
        ("epoch", TorchItem::Int(0)),
        ("global_step", TorchItem::Int(step)),
        ("pytorch-lightning_version", text("2.2.1")),
        ("state_dict", TorchItem::OrderedDict(state.collect())),
        (
            "ema",
            dict(vec![
                ("decay", TorchItem::Float(0.99)),
                ("num_updates", updates),
                ("shadow_params", TorchItem::List(shadow)),
            ]),
        ),
        (
            "optimizer_states",
            TorchItem::List(vec![dict(vec![
                ("state", TorchItem::Dict(moments.collect())),
                ("param_groups", TorchItem::List(groups)),
            ])]),
        ),
        ("hyper_parameters", dict(vec![("config", dict(config))])),
    ]);
    let mut writer = TorchWriter::create(path, &item).unwrap();
    writer.append(raw).unwrap();
    writer.append(average).unwrap();
    // First and second moments of each parameter.
    for parameter in &own {
        writer.append(&first[parameter.range()]).unwrap();
        writer.append(&second[parameter.range()]).unwrap();
    }
    writer.finish().unwrap();
}

/// The state of a training in the folder of its results: weights, average, moments.
pub fn state(folder: &Path) -> [Vec<f32>; 4] {
    let own = parameters(nano(), Backbone::Dit);
    let arena = |file: &str, arena: &str| weights::read_arena(&folder.join(file), &own, arena).unwrap();
    [
        arena("raw.safetensors", ""),
        arena("ema.safetensors", ""),
        arena("optimizer.safetensors", "exp_avg"),
        arena("optimizer.safetensors", "exp_avg_sq"),
    ]
}

pub fn training(steps: u64, more: &Value) -> Value {
    let mut train = json!({
        "kind": "train", "from": "rows", "shape": "nano", "steps": steps, "batch": 4, "warmup_steps": 0,
        "learning_rate": 1e-3, "ema": 0.99, "validation_rows": 4
    });
    train
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    train
}

/// Six steps in one run are the same, bit for bit, as three, saved by another program, and three that continue them.
#[test]
fn checkpoint_of_lightning_is_evaluated_and_continued_bit_for_bit() {
    let project = Project::new();
    project.manifest(&json!({ "half": training(3, &json!({})), "whole": training(6, &json!({})) }));
    project.ok(&["run", "x.json"], None);
    let half = state(&project.artifact("half"));
    let whole = state(&project.artifact("whole"));
    assert!(half[0] != whole[0] && half[2] != whole[2]);
    let [raw, average, first, second] = &half;
    lightning(
        &project.path("last.ckpt"),
        3,
        [raw, average, first, second],
        &|_| (),
    );

    let continued = json!({ "init": "model", "continue": true });
    project.manifest(&json!({
        "model": checkpoint("last.ckpt"), "bound": evaluate("model"), "continued": training(6, &continued),
        "again": training(6, &json!({ "init": "half", "continue": true })), "half": training(3, &json!({}))
    }));
    project.ok(&["run", "x.json", "--target", "model"], None);
    let plan: Value = serde_json::from_str(&project.ok(&["plan", "x.json", "--json"], None)).unwrap();
    let stages = plan["stages"].as_array().unwrap();
    let planned = stages.iter().find(|stage| stage["name"] == "continued").unwrap();
    assert_eq!(planned["resumes_from"], 3, "{planned}");
    let run = words(&project.ok(&["run", "x.json"], None));
    assert!(run.contains("from step 3 on"), "{run}");
    let model = project.artifact("model");
    assert!(state(&model) == half);
    let info = project.json("model", "model.json");
    assert_eq!(info["origin"]["format"], "PyTorch Lightning checkpoint");
    assert_eq!(
        (&info["origin"]["run"]["step"], &info["origin"]["has_both"]),
        (&json!(3), &json!(true))
    );
    assert_eq!(
        (&info["wrap"], &info["objective"]["kind"]),
        (&json!(true), &json!("mdlm"))
    );
    assert_eq!(project.json("bound", "evaluation.json")["weights"], "ema");
    for stage in ["continued", "again"] {
        let found = state(&project.artifact(stage));
        for (place, what) in ["weights", "average", "first moments", "second moments"]
            .iter()
            .enumerate()
        {
            assert!(found[place] == whole[place], "{stage}: {what}");
        }
        assert_eq!(project.json(stage, "model.json")["steps"], 6);
    }
    // Without `continue`, the same start is another training.
    project.manifest(
        &json!({ "model": checkpoint("last.ckpt"), "tuned": training(6, &json!({ "init": "model" })) }),
    );
    project.ok(&["run", "x.json"], None);
    assert!(state(&project.artifact("tuned"))[0] != whole[0]);

    let shown = words(&project.ok(&["checkpoint", "last.ckpt"], None));
    for part in [
        "PyTorch Lightning checkpoint",
        "30 tensors of AdamW's moments",
        "continued from step 3 on",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn checkpoint_run_that_contradicts_the_stage_is_not_continued() {
    let project = Project::new();
    let weights = initial(nano(), Backbone::Dit, 3);
    let zeros = vec![0.0; weights.len()];
    lightning(
        &project.path("last.ckpt"),
        3,
        [&weights, &weights, &zeros, &zeros],
        &|_| (),
    );
    let said = |model: Value, steps: u64, more: &Value| {
        let mut fields = json!({ "init": "model", "continue": true });
        fields
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        project.manifest(&json!({ "model": model, "tuned": training(steps, &fields) }));
        project.refused(&["run", "x.json"])
    };
    let file = || checkpoint("last.ckpt");
    let found = said(file(), 3, &json!({}));
    assert!(
        found.contains("`model` is at step 3, and `steps` is 3"),
        "{found}"
    );
    for (field, ours, theirs) in [
        ("beta1", 0.8, "0.9"),
        ("beta2", 0.9, "0.999"),
        ("epsilon", 1e-6, "0.00000001"),
        ("weight_decay", 0.1, "0"),
        ("ema", 0.5, "0.99"),
    ] {
        let mut more = json!({});
        more[field] = json!(ours);
        let found = said(file(), 6, &more);
        assert!(
            found.contains(&format!(
                "`{field}` is {theirs} in the training of `model`, but {ours} in this stage"
            )),
            "{found}"
        );
    }
    let mut raw = file();
    raw["weights"] = json!("raw");
    let found = said(raw, 6, &json!({}));
    assert!(
        found.contains("`model` has no average of its weights to continue, and `ema` is 0.99"),
        "{found}"
    );
    // What does not concern the state is a warning.
    let more = json!({ "init": "model", "continue": true, "learning_rate": 0.0, "dropout": 0.0 });
    project.manifest(&json!({ "model": file(), "tuned": training(4, &more) }));
    let found = words(&project.ok(&["run", "x.json"], None));
    assert!(
        found.contains("`learning_rate` is 0.001 in the training of `model`, and 0 from step 3 on"),
        "{found}"
    );
    assert!(
        found.contains("`dropout` is 0.1 in the training of `model`, and 0 from step 3 on"),
        "{found}"
    );
    // A file of weights alone has no state.
    save(&project.path("m.safetensors"), Backbone::Dit, |_| ());
    let mut bare = checkpoint("m.safetensors");
    bare["objective"] = json!({ "kind": "mdlm" });
    let found = said(bare, 6, &json!({}));
    assert!(
        found.contains("the training of `model` cannot be continued: its file has no state of an optimizer"),
        "{found}"
    );
    assert!(found.contains("leave `continue` out"), "{found}");
    let sedd = json!({ "objective": { "kind": "sedd" } });
    let found = said(file(), 6, &sedd);
    assert!(
        found.contains("the objective of `model` is `mdlm`, but `sedd` in this stage"),
        "{found}"
    );
    // Of a train stage, before anything runs.
    let more = json!({ "init": "half", "continue": true, "beta1": 0.5 });
    project.manifest(&json!({ "half": training(3, &json!({})), "tuned": training(3, &more) }));
    let found = project.refused(&["validate", "x.json"]);
    for part in [
        "`beta1` is 0.9 in `half`, but 0.5 in this stage",
        "`half` is at step 3 at its end, and `steps` is 3",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
    project.manifest(&json!({ "tuned": training(4, &json!({ "continue": true })) }));
    let found = project.refused(&["validate", "x.json"]);
    assert!(
        found.contains("`continue` is true, but `init` names no model"),
        "{found}"
    );
}

#[test]
fn checkpoint_settings_of_lightning_that_contradict_the_manifest_are_refused() {
    let project = Project::new();
    let weights = initial(nano(), Backbone::Dit, 3);
    let said = |stage: Value, change: &dyn Fn(&mut Settings<'_>)| {
        lightning(&project.path("last.ckpt"), 3, [&weights; 4], change);
        project.manifest(&json!({ "model": stage }));
        project.refused(&["run", "x.json"])
    };
    let with = |field: &str, value: Value| {
        let mut stage = checkpoint("last.ckpt");
        stage[field] = value;
        stage
    };
    let mdlm = |more: &Value| {
        let mut objective = json!({ "kind": "mdlm" });
        objective
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        with("objective", objective)
    };
    let noise = json!({ "noise": { "kind": "cosine" } });
    let found = said(mdlm(&noise), &|_| ());
    assert!(
        found.contains("`noise` of the objective is {") && found.contains("log_linear"),
        "{found}"
    );
    assert!(
        found.contains("in `hyper_parameters`, but {") && found.contains("cosine"),
        "{found}"
    );
    let found = said(mdlm(&json!({ "steps": 10 })), &|_| ());
    assert!(
        found.contains("`steps` of the objective is absent in `hyper_parameters`, but 10"),
        "{found}"
    );
    let found = said(mdlm(&json!({ "time_conditioning": true })), &|_| ());
    assert!(
        found.contains("`time_conditioning` is false in `hyper_parameters`, but true"),
        "{found}"
    );
    let found = said(with("objective", json!({ "kind": "sedd" })), &|_| ());
    assert!(
        found.contains("the objective is `mdlm` in `hyper_parameters`, but `sedd`"),
        "{found}"
    );
    let found = said(with("wrap", json!(false)), &|_| ());
    assert!(
        found.contains("`wrap` is true in `hyper_parameters`, but false"),
        "{found}"
    );
    let model = |field: &'static str, value: i64| {
        move |config: &mut Settings<'_>| {
            let (_, model) = config.iter_mut().find(|(name, _)| *name == "model").unwrap();
            let TorchItem::Dict(entries) = model else { panic!() };
            entries.retain(|(key, _)| *key != text(field));
            entries.push(TorchItem::named(field, TorchItem::Int(value)));
        }
    };
    let found = said(checkpoint("last.ckpt"), &model("n_heads", 4));
    assert!(
        found.contains("the number of heads is 2 in shape `nano`, but 4 in the file"),
        "{found}"
    );
    let found = said(checkpoint("last.ckpt"), &model("length", 128));
    assert!(
        found.contains("the length of rows is 32 in shape `nano`, but 128 in the file"),
        "{found}"
    );
    let found = said(checkpoint("last.ckpt"), &model("hidden_size", 128));
    assert!(
        found.contains("the width is 128 in `hyper_parameters`, but 64"),
        "{found}"
    );
    let found = said(checkpoint("last.ckpt"), &|config| {
        config.retain(|(name, _)| *name != "noise");
        config.push(("noise", dict(vec![("type", text("polynomial"))])));
    });
    assert!(
        found.contains("no noise schedule of mdlm's is called `polynomial`"),
        "{found}"
    );
    // Its code has a token of the network for each of the tokenizer.
    let mut fewer = checkpoint("last.ckpt");
    fewer["tokenizer"] = json!("others");
    lightning(&project.path("last.ckpt"), 3, [&weights; 4], &|_| ());
    let others = json!({
        "kind": "tokenize", "from": "text",
        "tokenizer": { "kind": "train_bpe", "vocabulary_size": 300, "min_frequency": 1 }
    });
    project.manifest(&json!({ "others": others, "model": fewer }));
    let found = project.refused(&["run", "x.json"]);
    assert!(
        found.contains("the vocabulary is 512 by `vocab_embed.embedding`, but"),
        "{found}"
    );
}
