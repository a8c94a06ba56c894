//! Files that contradict each other or the manifest, and what is said of them.

use std::fmt::Write as _;
use std::fs;

use mdlm::model::{initial, parameters};
use mdlm::shapes::Backbone;
use mdlm::weights::torch::write::TorchItem;
use serde_json::{Value, json};

use super::lightning::{Settings, dict, lightning, lightning_with, state, text, training};
use super::{Project, checkpoint, config, hub, nano, published, read, save};
use crate::support::words;

#[test]
fn checkpoint_config_of_another_network_is_refused_by_the_stage_and_shown() {
    let project = Project::new();
    published(&project.path("published"));
    let mut stage = checkpoint("published");
    for (more, expected) in [
        (
            json!({ "backbone": "transformer" }),
            "`backbone` is `transformer` in `config.json`, but the file holds a DiT",
        ),
        (
            json!({ "rope_theta": 500_000 }),
            "`rope_theta` is 500000, and mdlm's network has 10000",
        ),
        (
            json!({ "tie_word_embeddings": true }),
            "`tie_word_embeddings` is true in `config.json`, but",
        ),
        (
            json!({ "objective": "mdlm", "causal": true }),
            "the objective is `mdlm`, which a DiT is trained for, but `causal` is true",
        ),
        (
            json!({ "objective": "language modelling" }),
            "`objective` is \"language modelling\"",
        ),
    ] {
        let mut config = config();
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        fs::write(project.path("published/config.json"), config.to_string()).unwrap();
        project.manifest(&json!({ "model": stage }));
        let said = project.refused(&["run", "x.json"]);
        assert!(said.contains(expected) && said.contains("hint:"), "{said}");
    }
    let mut other = config();
    other["backbone"] = json!("transformer");
    fs::write(project.path("published/config.json"), other.to_string()).unwrap();
    let shown = words(&project.ok(&["checkpoint", "published"], None));
    assert!(
        shown.contains("conflict `backbone` is `transformer` in `config.json`, but the file holds a DiT"),
        "{shown}"
    );
    // What a manifest states does not mend it.
    stage["objective"] = json!({ "kind": "ar" });
    project.manifest(&json!({ "model": stage }));
    let said = project.refused(&["run", "x.json"]);
    assert!(said.contains("`backbone` is `transformer`"), "{said}");
}

/// A tokenizer with as many tokens as that of the tokenize stage, and others.
#[test]
fn checkpoint_with_another_tokenizer_of_equal_size_is_refused_with_the_first_difference() {
    let project = Project::new();
    published(&project.path("published"));
    project.manifest(&json!({ "model": checkpoint("published") }));
    project.ok(&["run", "x.json"], None);
    let own = project.artifact("tokens").join("tokenizer.json");
    let own: Value = serde_json::from_slice(&fs::read(own).unwrap()).unwrap();
    let write = |name: &str, json: &Value| {
        fs::write(project.path("published").join(name), json.to_string()).unwrap();
    };
    let special = &project.json("tokens", "tokens.json")["roles"];
    let roles = json!({
        "bos_token": special["bos"]["token"], "eos_token": { "content": special["eos"]["token"] },
        "pad_token": special["pad"]["token"], "mask_token": special["mask"]["token"]
    });
    // Its own files say the same. They are in the key: the stage runs again.
    write("tokenizer.json", &own);
    write("special_tokens_map.json", &roles);
    let said = project.ok(&["run", "x.json"], None);
    assert!(!words(&said).contains("model cached"), "{said}");

    let id_of = |token: &str| own["model"]["vocab"][token].clone();
    let mut swapped = own.clone();
    swapped["model"]["vocab"]["a"] = id_of("b");
    swapped["model"]["vocab"]["b"] = id_of("a");
    write("tokenizer.json", &swapped);
    let said = project.refused(&["run", "x.json"]);
    let expected = format!(
        "token {} is `b` in `tokenizer.json`, but `a` by the tokenizer of `tokens`",
        id_of("a")
    );
    assert!(said.contains(&expected), "{said}");
    let mut unmerged = own.clone();
    let merges = unmerged["model"]["merges"].as_array_mut().unwrap();
    merges.swap(0, 1);
    write("tokenizer.json", &unmerged);
    let said = project.refused(&["run", "x.json"]);
    assert!(said.contains("merge 0 is `"), "{said}");
    write("tokenizer.json", &own);

    let mut others = roles.clone();
    others["eos_token"] = json!("a");
    write("special_tokens_map.json", &others);
    let said = project.refused(&["run", "x.json"]);
    assert!(
        said.contains(&format!(
            "the eos token is `a` ({}) in `special_tokens_map.json`, but",
            id_of("a")
        )),
        "{said}"
    );
    write("special_tokens_map.json", &roles);
    let mut stated = config();
    stated["bos_token_id"] = json!(300);
    write("config.json", &stated);
    let said = project.refused(&["run", "x.json"]);
    assert!(
        said.contains("`bos_token_id` is 300 in `config.json`, but the bos token is"),
        "{said}"
    );
    let special = &project.json("tokens", "tokens.json")["special"];
    stated["bos_token_id"] = special["bos"].clone();
    stated["eos_token_id"] = json!([special["eos"], 400]);
    write("config.json", &stated);
    project.ok(&["run", "x.json"], None);
}

#[test]
fn checkpoint_run_with_another_schedule_is_continued_with_a_warning() {
    let project = Project::new();
    let weights = initial(nano(), Backbone::Dit, 3);
    let zeros = vec![0.0; weights.len()];
    let cosine = |config: &mut Settings<'_>| {
        let class = text("utils.CosineDecayWarmupLRScheduler");
        config.push(("lr_scheduler", dict(vec![("_target_", class)])));
    };
    lightning(
        &project.path("last.ckpt"),
        3,
        [&weights, &weights, &zeros, &zeros],
        &cosine,
    );
    let continued = |schedule: &str| {
        let more = json!({ "init": "model", "continue": true, "schedule": schedule });
        project.manifest(&json!({ "model": checkpoint("last.ckpt"), "tuned": training(4, &more) }));
        words(&project.ok(&["run", "x.json"], None))
    };
    let said = continued("constant");
    assert!(
        said.contains("`schedule` is cosine in the training of `model`, and constant from step 3 on"),
        "{said}"
    );
    let said = continued("cosine");
    assert!(!said.contains("`schedule` is"), "{said}");
    assert_eq!(
        project.json("model", "model.json")["origin"]["run"]["schedule"],
        "cosine"
    );
}

#[test]
fn checkpoint_moments_that_are_not_finite_are_not_continued() {
    let project = Project::new();
    let weights = initial(nano(), Backbone::Dit, 3);
    let zeros = vec![0.0; weights.len()];
    let mut moments = zeros.clone();
    moments[7] = f32::NAN;
    lightning(
        &project.path("last.ckpt"),
        3,
        [&weights, &weights, &moments, &zeros],
        &|_| (),
    );
    project.manifest(&json!({ "model": checkpoint("last.ckpt") }));
    let said = words(&project.ok(&["run", "x.json"], None));
    let fault = "its moments `exp_avg` of `vocab_embed.embedding` are NaN or infinite in 1 value";
    assert!(said.contains(fault), "{said}");
    assert!(!project.artifact("model").join("optimizer.safetensors").exists());
    let more = json!({ "init": "model", "continue": true });
    project.manifest(&json!({ "model": checkpoint("last.ckpt"), "tuned": training(4, &more) }));
    let said = project.refused(&["run", "x.json"]);
    assert!(
        said.contains(&format!("the training of `model` cannot be continued: {fault}")),
        "{said}"
    );
    assert!(
        said.contains("leave `continue` out") && !said.contains("learning_rate"),
        "{said}"
    );
    // Weights that are not finite are named before a training diverges.
    let mut wrong = weights.clone();
    wrong[9] = f32::INFINITY;
    lightning(
        &project.path("last.ckpt"),
        3,
        [&wrong, &wrong, &zeros, &zeros],
        &|_| (),
    );
    let init = json!({ "init": "model" });
    project.manifest(&json!({ "model": checkpoint("last.ckpt"), "tuned": training(4, &init) }));
    let said = project.refused(&["run", "x.json"]);
    assert!(
        said.contains(
            "`init` names `model`, whose tensor `vocab_embed.embedding` is NaN or infinite in 1 value"
        ),
        "{said}"
    );
}

/// The average is there, but not as it can be read: by default the other weights are taken, and that is said.
#[test]
fn checkpoint_average_that_is_not_read_is_said_and_refused_where_it_is_asked_for() {
    let project = Project::new();
    let own = parameters(nano(), Backbone::Dit);
    let tensor =
        |dims: &[usize]| TorchItem::Tensor(mdlm::weights::torch::dtype::TorchDtype::F32, dims.to_vec());
    let state = own
        .iter()
        .map(|own| TorchItem::named(&own.name, tensor(&own.dims)));
    let item = dict(vec![
        ("state_dict", TorchItem::OrderedDict(state.collect())),
        ("model_ema", dict(vec![("weights", TorchItem::Int(1))])),
    ]);
    let path = project.path("m.pt");
    let mut writer = mdlm::weights::torch::write::TorchWriter::create(&path, &item).unwrap();
    writer.append(&initial(nano(), Backbone::Dit, 3)).unwrap();
    writer.finish().unwrap();
    let mut stage = checkpoint("m.pt");
    stage["objective"] = json!({ "kind": "mdlm" });
    project.manifest(&json!({ "model": stage }));
    let said = words(&project.ok(&["run", "x.json"], None));
    assert!(
        said.contains("the averaged weights in `model_ema` are not read"),
        "{said}"
    );
    let shown = words(&project.ok(&["checkpoint", "m.pt"], None));
    assert!(
        shown.contains("not used `model_ema`: average, not read"),
        "{shown}"
    );
    stage["weights"] = json!("ema");
    project.manifest(&json!({ "model": stage }));
    let said = project.refused(&["run", "x.json"]);
    assert!(
        said.contains("has averaged weights in `model_ema`, which are not read"),
        "{said}"
    );
}

/// GPT-2's vocabulary has 50,257 tokens, the last of them `<|endoftext|>`. The published models have the mask behind it.
#[test]
fn checkpoint_published_has_the_mask_behind_the_tokens_of_gpt2() {
    let project = Project::new();
    // Merges of two bytes each in the place of GPT-2's.
    let bytes: Vec<char> = ('!'..='~')
        .chain('¡'..='¬')
        .chain('®'..='ÿ')
        .chain('Ā'..='Ń')
        .collect();
    assert_eq!(bytes.len(), 256);
    let mut vocabulary = serde_json::Map::new();
    for byte in &bytes {
        vocabulary.insert(byte.to_string(), json!(vocabulary.len()));
    }
    let mut merges = "#version: 0.2\n".to_owned();
    for (a, b) in bytes
        .iter()
        .flat_map(|a| bytes.iter().map(move |b| (a, b)))
        .take(50_000)
    {
        vocabulary.insert(format!("{a}{b}"), json!(vocabulary.len()));
        let _ = writeln!(merges, "{a} {b}");
    }
    vocabulary.insert("<|endoftext|>".to_owned(), json!(vocabulary.len()));
    fs::write(project.path("vocab.json"), Value::Object(vocabulary).to_string()).unwrap();
    fs::write(project.path("merges.txt"), merges).unwrap();
    project.manifest(&json!({ "gpt2": {
        "kind": "tokenize", "from": "text",
        "tokenizer": { "kind": "gpt2", "vocabulary": "vocab.json", "merges": "merges.txt" }
    } }));
    project.ok(&["run", "x.json", "--target", "gpt2"], None);
    let tokens = project.json("gpt2", "tokens.json");
    assert_eq!(tokens["vocabulary"], 50_258);
    assert_eq!(
        tokens["special"],
        json!({ "bos": 50_256, "eos": 50_256, "pad": 50_256, "mask": 50_257 })
    );
    assert_eq!(mdlm::shapes::SHAPES.find("owt-small").unwrap().vocabulary, 50_258);
}

/// The hub's answer breaks off: the rest is asked for, and the weights are whole.
#[test]
fn checkpoint_of_the_hub_that_breaks_off_is_resumed() {
    let project = Project::new();
    published(&project.path("published"));
    let server = hub(&project.path("published"), Some(30_000));
    let commit = super::COMMIT;
    project.manifest(&json!({ "model": checkpoint(&format!("hf://kuleshov-group/mdlm-owt@{commit}")) }));
    project.ok(&["run", "x.json"], Some(&server));
    let requests = server.requests();
    let ranges = requests.iter().filter(|request| {
        request.target.contains("model.safetensors") && request.headers.contains_key("range")
    });
    assert!(ranges.count() >= 1, "the rest was asked for");
    let imported = read(&project.artifact("model").join("ema.safetensors"), Backbone::Dit);
    assert!(imported == read(&project.path("published/model.safetensors"), Backbone::Dit));
}

#[test]
fn checkpoint_addresses_that_cannot_be_pinned_or_have_no_weights_are_refused() {
    let project = Project::new();
    let said = |file: &str| {
        project.manifest(&json!({ "model": checkpoint(file) }));
        project.refused(&["validate", "x.json"])
    };
    let found = said("http://example.org/m.safetensors");
    assert!(
        found.contains("not pinned, and `http://` does not protect it on its way")
            && found.contains("`https://`"),
        "{found}"
    );
    let repository = format!("hf://o/n@{}", super::COMMIT);
    let found = said(&format!("{repository}/model.safetensors.index.json"));
    assert!(
        found.contains("has no weights itself")
            && found.contains(&format!("name the repository: `{repository}`")),
        "{found}"
    );
}

/// The state of a training in several groups of parameters: the weights are imported, and it is not continued.
#[test]
fn checkpoint_run_with_several_groups_is_imported_and_not_continued() {
    let project = Project::new();
    let weights = initial(nano(), Backbone::Dit, 3);
    let zeros = vec![0.0; weights.len()];
    lightning_with(
        &project.path("last.ckpt"),
        3,
        [&weights, &weights, &zeros, &zeros],
        &|_| (),
        (2, TorchItem::Int(3)),
    );
    project.manifest(&json!({ "model": checkpoint("last.ckpt") }));
    let said = words(&project.ok(&["run", "x.json"], None));
    assert!(
        said.contains("its optimizer has 2 groups of parameters, expected 1"),
        "{said}"
    );
    let more = json!({ "init": "model", "continue": true });
    project.manifest(&json!({ "model": checkpoint("last.ckpt"), "tuned": training(4, &more) }));
    let said = project.refused(&["run", "x.json"]);
    assert!(
        said.contains("cannot be continued: its optimizer has 2 groups"),
        "{said}"
    );
    let tuned = json!({ "init": "model", "learning_rate": 0.0 });
    project.manifest(&json!({ "model": checkpoint("last.ckpt"), "tuned": training(1, &tuned) }));
    project.ok(&["run", "x.json"], None);
    assert!(state(&project.artifact("tuned"))[0] == weights);
}

/// A folder that is not downloaded: only what the program needs of the file is looked at.
#[test]
fn checkpoint_index_is_a_file_that_stands_for_its_shards() {
    let project = Project::new();
    fs::create_dir(project.path("parts")).unwrap();
    save(&project.path("parts/a.safetensors"), Backbone::Dit, |_| ());
    let mut map = serde_json::Map::new();
    for own in parameters(nano(), Backbone::Dit) {
        map.insert(format!("backbone.{}", own.name), json!("a.safetensors"));
    }
    map.insert("backbone.rotary_emb.inv_freq".to_owned(), json!("a.safetensors"));
    let index = json!({ "weight_map": map }).to_string();
    fs::write(project.path("parts/model.safetensors.index.json"), index).unwrap();
    let mut stage = checkpoint("parts/model.safetensors.index.json");
    stage["objective"] = json!({ "kind": "mdlm" });
    project.manifest(&json!({ "model": stage }));
    project.ok(&["run", "x.json"], None);
    let imported = project.artifact("model");
    // The shards are in the key.
    save(&project.path("parts/a.safetensors"), Backbone::Dit, |values| {
        values[0] = 5.0;
    });
    project.ok(&["run", "x.json"], None);
    assert_ne!(project.artifact("model"), imported);
}

/// The learning rates of a training from elsewhere go on as its file states them, or a warning names both.
#[test]
fn checkpoint_continued_with_other_learning_rates_is_warned_of() {
    let project = Project::new();
    let said = |first: &Value, steps: u64, second: &Value| {
        project.manifest(&json!({ "first": training(4, first) }));
        project.ok(&["run", "x.json"], None);
        let export = [
            "export",
            "x.json",
            "first",
            "--to",
            "lightning",
            "last.ckpt",
            "--force",
        ];
        project.ok(&export, None);
        let mut more = json!({ "init": "model", "continue": true });
        more.as_object_mut()
            .unwrap()
            .extend(second.as_object().unwrap().clone());
        project.manifest(&json!({ "model": checkpoint("last.ckpt"), "tuned": training(steps, &more) }));
        words(&project.ok(&["run", "x.json"], None))
    };
    let constant = json!({ "warmup_steps": 4 });
    let found = said(&constant, 6, &constant);
    assert!(!found.contains("learning rate of step"), "{found}");
    let half = json!({ "warmup_steps": 4, "learning_rate": 5e-4 });
    let found = said(&half, 8, &json!({ "warmup_steps": 8 }));
    let rates =
        "the learning rate of step 5 is 0.0005 in the training of `model`, and 0.000625 in this stage";
    let way_out = "`\"warmup_rates\": \"published\"` gives its rate";
    assert!(found.contains(rates) && found.contains(way_out), "{found}");
    let found = said(
        &half,
        8,
        &json!({ "warmup_steps": 8, "warmup_rates": "published" }),
    );
    assert!(!found.contains("learning rate of step"), "{found}");
    // At the end of a cosine, which a longer training stretches.
    let cosine = json!({ "warmup_steps": 2, "schedule": "cosine" });
    let found = said(&cosine, 8, &cosine);
    for part in [
        "the cosine of the learning rate ends at step 4 in the training of `model`, and at step 8 (`steps`) in this stage",
        "the learning rate of step 5 is 0 in the training of `model`, and 0.0005 in this stage",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
    assert!(!found.contains("`schedule` is"), "{found}");
    let found = said(&cosine, 8, &json!({ "warmup_steps": 2 }));
    assert!(
        found.contains("`schedule` is cosine in the training of `model`, and constant from step 4 on"),
        "{found}"
    );
    assert!(!found.contains("the cosine of the learning rate"), "{found}");
    let shown = words(&project.ok(&["checkpoint", "last.ckpt"], None));
    assert!(shown.contains("learning rate 0 at the next step"), "{shown}");
}

#[test]
fn checkpoint_average_with_a_constant_decay_is_continued_where_ours_is_constant() {
    let project = Project::new();
    let weights = initial(nano(), Backbone::Dit, 3);
    let zeros = vec![0.0; weights.len()];
    let values = [&*weights, &*weights, &*zeros, &*zeros];
    let continued = json!({ "init": "model", "continue": true });
    let stages =
        |steps: u64| json!({ "model": checkpoint("last.ckpt"), "tuned": training(steps, &continued) });
    lightning_with(
        &project.path("last.ckpt"),
        3,
        values,
        &|_| (),
        (1, TorchItem::None),
    );
    project.manifest(&stages(5));
    let found = project.refused(&["run", "x.json"]);
    let decays = "the decay of the average of `model` is 0.99 at every step, and here it would rise to it: it is 0.35714285714285715 \
                  at step 4";
    assert!(found.contains(decays), "{found}");
    // (1 + n) / (10 + n) is above 0.99 from update 890 on.
    lightning_with(
        &project.path("last.ckpt"),
        900,
        values,
        &|_| (),
        (1, TorchItem::None),
    );
    project.manifest(&stages(901));
    project.ok(&["run", "x.json"], None);
}
