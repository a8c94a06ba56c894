use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::manifest::Objective;
use crate::model::initial;
use crate::shapes::SHAPES;
use crate::weights::tensors::Writer;
use crate::weights::torch::dtype::TorchDtype;
use crate::weights::torch::write::{TorchItem, TorchWriter};

mod averages;

fn nano() -> &'static Shape {
    SHAPES.find("nano").unwrap()
}

fn buffer(shape: &Shape) -> Vec<f32> {
    let half = shape.width / shape.heads / 2;
    (0..half)
        .map(|i| 10_000f32.powf(-2.0 * i as f32 / (2 * half) as f32))
        .collect()
}

/// Tensors of nano's weights, and the rotary buffer, with a prefix.
fn tensors(backbone: Backbone, prefix: &str) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let values = initial(nano(), backbone, 7);
    let mut tensors: Vec<_> = parameters(nano(), backbone)
        .iter()
        .map(|own| {
            (
                format!("{prefix}{}", own.name),
                own.dims.clone(),
                values[own.range()].to_vec(),
            )
        })
        .collect();
    let buffer = buffer(nano());
    tensors.push((format!("{prefix}{ROTARY_BUFFER}"), vec![buffer.len()], buffer));
    tensors
}

fn save(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) {
    let header: Vec<_> = tensors
        .iter()
        .map(|(name, dims, _)| (name.clone(), dims.clone()))
        .collect();
    let mut writer = Writer::create(path, &header, &[("format", "pt")]).unwrap();
    for (.., values) in tensors {
        writer.append(values).unwrap();
    }
    writer.finish().unwrap();
}

fn config() -> Value {
    json!({
        "model_type": "mdlm", "vocab_size": 512, "model_length": 32, "hidden_dim": 64, "n_heads": 2, "n_blocks": 2,
        "cond_dim": 32, "time_conditioning": false
    })
}

/// The error of reading nano's DiT.
fn refused(path: &Path) -> (String, String) {
    let error = read(path, nano(), Backbone::Dit).unwrap_err();
    assert_eq!(error.kind(), crate::error::Kind::Input, "{error}");
    let text = error.to_string().replace(&path.display().to_string(), "PATH");
    (text, error.hint_text().unwrap_or_default().to_owned())
}

#[test]
fn checkpoint_is_read_with_every_prefix_and_both_backbones() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    for backbone in Backbone::ALL {
        for prefix in [
            "",
            "backbone.",
            "model.",
            "module.backbone.",
            "_orig_mod.backbone.",
            "module._orig_mod.",
        ] {
            save(&path, &tensors(backbone, prefix));
            let values = read(&path, nano(), backbone).unwrap();
            assert!(values == initial(nano(), backbone, 7), "{prefix}");
            let checkpoint = ForeignCheckpoint::at(&path).unwrap();
            assert_eq!(checkpoint.format(), CheckpointFormat::Safetensors);
            assert_eq!(checkpoint.guess().unwrap().heads, Some(nano().heads));
        }
    }
}

#[test]
fn checkpoint_folder_of_the_hub_is_read_whole_and_in_shards() {
    let folder = tempfile::tempdir().unwrap();
    let all = tensors(Backbone::Dit, "backbone.");
    fs::write(folder.path().join("config.json"), config().to_string()).unwrap();
    save(&folder.path().join("model.safetensors"), &all);
    let expected = initial(nano(), Backbone::Dit, 7);
    let whole = ForeignCheckpoint::at(folder.path()).unwrap();
    assert_eq!(whole.format(), CheckpointFormat::HubFolder);
    assert!(read(folder.path(), nano(), Backbone::Dit).unwrap() == expected);

    fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let mut map = serde_json::Map::new();
    let shards: Vec<_> = all.chunks(10).collect();
    for (number, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        save(&folder.path().join(&name), shard);
        map.extend(shard.iter().map(|(tensor, ..)| (tensor.clone(), json!(name))));
    }
    let index = folder.path().join("model.safetensors.index.json");
    let write = |map: &serde_json::Map<String, Value>| {
        let json = json!({ "metadata": { "total_size": 1 }, "weight_map": map });
        fs::write(&index, json.to_string()).unwrap();
    };
    write(&map);
    assert_eq!(
        ForeignCheckpoint::at(folder.path()).unwrap().format(),
        CheckpointFormat::Shards
    );
    assert!(read(folder.path(), nano(), Backbone::Dit).unwrap() == expected);
    // An index that belongs to other shards.
    let mut more = map.clone();
    more.insert(
        "backbone.more".to_owned(),
        json!(format!("model-00001-of-{:05}.safetensors", shards.len())),
    );
    write(&more);
    let (text, _) = refused(folder.path());
    assert!(text.contains("`backbone.more` is in the index, but"), "{text}");
    let mut fewer = map;
    let first = fewer.keys().next().unwrap().clone();
    fewer.shift_remove(&first);
    write(&fewer);
    let (text, _) = refused(folder.path());
    assert!(text.contains("but not in the index"), "{text}");
}

#[test]
fn checkpoint_of_a_train_stage_has_both_sets() {
    let folder = tempfile::tempdir().unwrap();
    let averaged = tensors(Backbone::Dit, "backbone.");
    let mut last = averaged.clone();
    last[0].2[0] = 5.0;
    save(&folder.path().join("ema.safetensors"), &averaged);
    save(&folder.path().join("raw.safetensors"), &last);
    let model = json!({
        "shape": "nano", "vocabulary": 500, "length": 32, "wrap": true, "tokenizer_digest": "00",
        "special": { "bos": 1, "eos": 1, "pad": 2, "mask": 499 },
        "objective": { "kind": "mdlm" }, "steps": 10, "seed": 1
    });
    fs::write(folder.path().join("model.json"), model.to_string()).unwrap();
    let mut checkpoint = ForeignCheckpoint::at(folder.path()).unwrap();
    assert_eq!(checkpoint.format(), CheckpointFormat::TrainStage);
    assert_eq!(checkpoint.training().steps, Some(10));
    assert_eq!(checkpoint.choose(None).unwrap(), Weights::Ema);
    let facts = checkpoint.facts().unwrap();
    assert_eq!((facts.mask, facts.tokens), (Some(499), Some(500)));
    let raw = checkpoint.read(nano(), Backbone::Dit, Weights::Raw).unwrap();
    assert_eq!(raw[0], 5.0);
    let ema = checkpoint.read(nano(), Backbone::Dit, Weights::Ema).unwrap();
    assert!(ema == initial(nano(), Backbone::Dit, 7));
}

#[test]
fn checkpoint_that_contradicts_its_config_is_refused_with_both_values() {
    let folder = tempfile::tempdir().unwrap();
    save(
        &folder.path().join("model.safetensors"),
        &tensors(Backbone::Dit, ""),
    );
    for (field, value, expected) in [
        (
            "vocab_size",
            513,
            "the vocabulary is 513 in `config.json`, but 512 by",
        ),
        ("hidden_dim", 128, "the width is 128 in `config.json`, but 64 by"),
        (
            "n_blocks",
            3,
            "the number of blocks is 3 in `config.json`, but 2 by",
        ),
        (
            "cond_dim",
            129,
            "the width of the conditioning is 129 in `config.json`, but 32 by",
        ),
        (
            "n_heads",
            4,
            "the number of heads is 4 in `config.json`, but 2 by `rotary_emb.inv_freq`",
        ),
        (
            "model_length",
            64,
            "the length of rows is 32 in shape `nano`, but 64 in the file",
        ),
    ] {
        let mut config = config();
        config[field] = json!(value);
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let (text, hint) = refused(folder.path());
        assert!(text.contains(expected), "{text}");
        assert!(!hint.is_empty());
    }
    fs::write(folder.path().join("config.json"), "[]").unwrap();
    let (text, _) = refused(folder.path());
    assert!(text.contains("config.json") && text.contains("a list"), "{text}");
}

#[test]
fn checkpoint_config_of_another_network_than_its_tensors_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let said = |more: Value| {
        let mut config = config();
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        refused(folder.path())
    };
    save(&path, &tensors(Backbone::Dit, "backbone."));
    for (more, expected) in [
        (
            json!({ "backbone": "transformer" }),
            "`backbone` is `transformer` in `config.json`, but the file holds a DiT (it has `sigma_map`",
        ),
        (
            json!({ "backbone": "ar" }),
            "`backbone` is `ar` in `config.json`, but the file holds a DiT",
        ),
        (
            json!({ "backbone": "dimamba" }),
            "`backbone` is `dimamba` in `config.json`, but the file holds a DiT",
        ),
        (
            json!({ "causal": true }),
            "`causal` is true in `config.json`, but the file holds a DiT",
        ),
        (
            json!({ "objective": "ar" }),
            "the objective is `ar` in `config.json`, which a plain transformer is trained for, but the file holds a DiT",
        ),
        (
            json!({ "objective": { "kind": "ar" } }),
            "the objective is `ar` in `config.json`",
        ),
        (
            json!({ "rope_theta": 500_000 }),
            "`config.json` is of another network: `rope_theta` is 500000, and mdlm's network has 10000",
        ),
        (
            json!({ "tie_word_embeddings": true }),
            "`tie_word_embeddings` is true in `config.json`, but `backbone.vocab_embed.embedding` and \
             `backbone.output_layer.linear.weight` differ: element 0 is",
        ),
    ] {
        let (text, hint) = said(more);
        assert!(text.contains(expected), "{text}");
        assert!(hint.contains("config.json"), "{hint}");
    }
    let checkpoint = ForeignCheckpoint::at(folder.path()).unwrap();
    assert_eq!(checkpoint.contradiction(), None);
    save(&path, &tensors(Backbone::Transformer, "backbone."));
    let (text, _) = said(json!({ "backbone": "dit" }));
    assert!(
        text.contains("`backbone` is `dit` in `config.json`, but the file holds a plain transformer"),
        "{text}"
    );
    let checkpoint = ForeignCheckpoint::at(folder.path()).unwrap();
    assert!(
        checkpoint
            .contradiction()
            .unwrap()
            .contains("`backbone` is `dit`")
    );

    // What agrees is read: tied weights that are equal, the angles' own base.
    let mut tied = tensors(Backbone::Dit, "backbone.");
    let embedding = tied[0].2.clone();
    let output = tied
        .iter_mut()
        .find(|(name, ..)| name.ends_with("output_layer.linear.weight"));
    output.unwrap().2 = embedding.clone();
    save(&path, &tied);
    let mut agreeing = config();
    for (field, value) in [
        ("tie_word_embeddings", json!(true)),
        ("rope_theta", json!(10_000.0)),
        ("backbone", json!("dit")),
        ("objective", json!("mdlm")),
        ("causal", json!(false)),
    ] {
        agreeing[field] = value;
    }
    fs::write(folder.path().join("config.json"), agreeing.to_string()).unwrap();
    assert!(read(folder.path(), nano(), Backbone::Dit).unwrap()[..embedding.len()] == embedding);
}

#[test]
fn checkpoint_with_an_unknown_prefix_is_refused_with_the_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, &tensors(Backbone::Dit, "net.backbone."));
    let (text, hint) = refused(&path);
    assert_eq!(
        text,
        "`PATH`: its tensors have the prefix `net.backbone.`, which mdlm does not know: \
         `net.backbone.vocab_embed.embedding`"
    );
    assert!(hint.contains("removeprefix(\"net.backbone.\")"), "{hint}");
    let mut two = tensors(Backbone::Dit, "student.");
    two.extend(tensors(Backbone::Dit, "teacher."));
    save(&path, &two);
    let (text, _) = refused(&path);
    assert!(
        text.contains("have the prefixes `student.`, `teacher.`"),
        "{text}"
    );
    let family = ForeignCheckpoint::at(&path).unwrap().family().unwrap();
    assert!(family.contains("the prefixes `student.`, `teacher.`"), "{family}");
}

#[test]
fn checkpoint_index_stands_for_its_shards() {
    let folder = tempfile::tempdir().unwrap();
    let all = tensors(Backbone::Dit, "backbone.");
    let mut map = serde_json::Map::new();
    for (number, shard) in all.chunks(20).enumerate() {
        let name = format!("part-{number}.safetensors");
        save(&folder.path().join(&name), shard);
        map.extend(shard.iter().map(|(tensor, ..)| (tensor.clone(), json!(name))));
    }
    // Not the index that is looked for in the folder.
    let index = folder.path().join("model.fp32.safetensors.index.json");
    fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
    assert!(read(&index, nano(), Backbone::Dit).unwrap() == initial(nano(), Backbone::Dit, 7));
    assert_eq!(
        ForeignCheckpoint::at(&index).unwrap().format(),
        CheckpointFormat::Shards
    );
}

#[test]
fn checkpoint_with_other_rotary_angles_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    for wrong in [0.5, f32::NAN] {
        let mut all = tensors(Backbone::Dit, "backbone.");
        all.last_mut().unwrap().2[3] = wrong;
        save(&path, &all);
        let (text, _) = refused(&path);
        assert!(text.contains("`backbone.rotary_emb.inv_freq`[3] is"), "{text}");
        assert!(text.contains("expected 1.778279e-1"), "{text}");
    }
    // Another number of heads.
    let mut all = tensors(Backbone::Dit, "backbone.");
    let last = all.last_mut().unwrap();
    (last.1, last.2) = (
        vec![8],
        (0..8)
            .map(|i| 10_000f32.powf(-f32::from(i as u8) / 8.0))
            .collect(),
    );
    save(&path, &all);
    let (text, hint) = refused(&path);
    assert!(
        text.contains("the number of heads is 2 in shape `nano`, but 4 in the file"),
        "{text}"
    );
    assert!(hint.contains("H 4"), "{hint}");
}

#[test]
fn checkpoint_of_another_kind_of_model_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    for (name, expected) in [
        (
            "transformer.wpe.weight",
            "`PATH` is a GPT-2 model: its positions are learned (`wpe`)",
        ),
        (
            "bert.embeddings.position_embeddings.weight",
            "`PATH` is a BERT model",
        ),
        (
            "model.layers.0.self_attn.q_proj.weight",
            "`PATH` is a model of the Llama family",
        ),
        (
            "model.backbone.layers.0.mixer.in_proj.weight",
            "`PATH` is a Mamba model",
        ),
        ("down_blocks.0.conv.weight", "`PATH` is a U-Net"),
    ] {
        save(&path, &[(name.to_owned(), vec![1], vec![1.0])]);
        let (text, hint) = refused(&path);
        assert!(text.starts_with(expected), "{text}");
        assert!(hint.contains("MDLM"), "{hint}");
    }
    save(&path, &[("weight".to_owned(), vec![1], vec![1.0])]);
    let (text, _) = refused(&path);
    assert!(
        text.contains("`vocab_embed.embedding` [512, 64] is missing"),
        "{text}"
    );
}

#[test]
fn checkpoint_without_a_fitting_shape_names_the_line_to_add() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let other = Shape {
        name: "other",
        vocabulary: 20,
        length: 32,
        width: 64,
        heads: 2,
        blocks: 1,
        conditioning: 32,
    };
    let all: Vec<_> = parameters(&other, Backbone::Dit)
        .into_iter()
        .map(|own| (own.name.clone(), own.dims.clone(), vec![0.0; own.len()]))
        .collect();
    save(&path, &all);
    let (text, hint) = refused(&path);
    assert!(
        text.contains("`vocab_embed.embedding` is [20, 64], expected [512, 64]"),
        "{text}"
    );
    assert!(
        hint.contains("V 20 L ? D 64 H ? N 1 C 32;") && hint.contains("src/shapes.rs"),
        "{hint}"
    );
}

#[test]
fn checkpoint_weights_that_are_asked_for_and_absent_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    save(&path, &tensors(Backbone::Dit, ""));
    let checkpoint = ForeignCheckpoint::at(&path).unwrap();
    assert_eq!(checkpoint.choose(None).unwrap(), Weights::Raw);
    let error = checkpoint.choose(Some(Weights::Ema)).unwrap_err();
    assert!(
        error.to_string().ends_with("has no averaged weights (`ema`)"),
        "{error}"
    );
    assert!(error.hint_text().unwrap().contains("\"weights\": \"raw\""));
}

#[test]
fn checkpoint_values_that_are_not_finite_are_counted_by_tensor() {
    let parameters = parameters(nano(), Backbone::Dit);
    let mut values = vec![0.0; total(&parameters)];
    values[parameters[1].offset] = f32::NAN;
    values[parameters[1].offset + 1] = f32::INFINITY;
    values[parameters[4].offset] = f32::NEG_INFINITY;
    assert_eq!(
        not_finite(&parameters, &values),
        [("sigma_map.mlp.0.weight", 2), ("sigma_map.mlp.2.bias", 1)]
    );
}

/// All that is known of the tensors of `kuleshov-group/mdlm-owt`: their names, dimensions and number.
#[test]
fn checkpoint_published_has_the_tensors_of_shape_owt_small() {
    let shape = SHAPES.find("owt-small").unwrap();
    let own = parameters(shape, Backbone::Dit);
    let mut known: Vec<(String, Vec<usize>)> = vec![
        ("backbone.vocab_embed.embedding".to_owned(), vec![50258, 768]),
        ("backbone.sigma_map.mlp.0.weight".to_owned(), vec![128, 256]),
        ("backbone.sigma_map.mlp.0.bias".to_owned(), vec![128]),
        ("backbone.sigma_map.mlp.2.weight".to_owned(), vec![128, 128]),
        ("backbone.sigma_map.mlp.2.bias".to_owned(), vec![128]),
        ("backbone.rotary_emb.inv_freq".to_owned(), vec![32]),
    ];
    for block in 0..12 {
        for (name, dims) in [
            ("norm1.weight", vec![768]),
            ("attn_qkv.weight", vec![3 * 768, 768]),
            ("attn_out.weight", vec![768, 768]),
            ("norm2.weight", vec![768]),
            ("mlp.0.weight", vec![4 * 768, 768]),
            ("mlp.0.bias", vec![4 * 768]),
            ("mlp.2.weight", vec![768, 4 * 768]),
            ("mlp.2.bias", vec![768]),
            ("adaLN_modulation.weight", vec![6 * 768, 128]),
            ("adaLN_modulation.bias", vec![6 * 768]),
        ] {
            known.push((format!("backbone.blocks.{block}.{name}"), dims));
        }
    }
    for (name, dims) in [
        ("norm_final.weight", vec![768]),
        ("linear.weight", vec![50258, 768]),
        ("linear.bias", vec![50258]),
        ("adaLN_modulation.weight", vec![2 * 768, 128]),
        ("adaLN_modulation.bias", vec![2 * 768]),
    ] {
        known.push((format!("backbone.output_layer.{name}"), dims));
    }
    assert_eq!((known.len(), own.len()), (131, 130));
    let tensors: Vec<_> = known
        .iter()
        .map(|(name, dims)| NamedTensor::of(name, dims, "F32"))
        .collect();
    check(("`f`", "weights"), shape, Backbone::Dit, &tensors).unwrap();
    assert_eq!(total(&own), 169_627_218);
    let guess = GuessedShape::of(&tensors, None).unwrap();
    assert_eq!(guess.heads, Some(12));
    assert_eq!(guess.fitting().first().unwrap().name, "owt-small");
}

/// Names and dimensions of the network that MDLM, SEDD, BD3-LM and Duo have in common, with nano's dimensions, as their code
/// builds it; without adaptive norms it is their autoregressive one.
fn layout(prefix: &str, is_adaptive: bool) -> Vec<(String, Vec<usize>)> {
    let (vocabulary, width, conditioning) = (512, 64, 32);
    let mut all = vec![("vocab_embed.embedding".to_owned(), vec![vocabulary, width])];
    if is_adaptive {
        all.extend([
            ("sigma_map.mlp.0.weight".to_owned(), vec![conditioning, 256]),
            ("sigma_map.mlp.0.bias".to_owned(), vec![conditioning]),
            (
                "sigma_map.mlp.2.weight".to_owned(),
                vec![conditioning, conditioning],
            ),
            ("sigma_map.mlp.2.bias".to_owned(), vec![conditioning]),
        ]);
    }
    all.push(("rotary_emb.inv_freq".to_owned(), vec![16]));
    for block in 0..2 {
        let mut own = vec![
            ("norm1.weight", vec![width]),
            ("attn_qkv.weight", vec![3 * width, width]),
            ("attn_out.weight", vec![width, width]),
            ("norm2.weight", vec![width]),
            ("mlp.0.weight", vec![4 * width, width]),
            ("mlp.0.bias", vec![4 * width]),
            ("mlp.2.weight", vec![width, 4 * width]),
            ("mlp.2.bias", vec![width]),
        ];
        if is_adaptive {
            own.push(("adaLN_modulation.weight", vec![6 * width, conditioning]));
            own.push(("adaLN_modulation.bias", vec![6 * width]));
        }
        all.extend(
            own.into_iter()
                .map(|(name, dims)| (format!("blocks.{block}.{name}"), dims)),
        );
    }
    let mut last = vec![
        ("norm_final.weight", vec![width]),
        ("linear.weight", vec![vocabulary, width]),
        ("linear.bias", vec![vocabulary]),
    ];
    if is_adaptive {
        last.push(("adaLN_modulation.weight", vec![2 * width, conditioning]));
        last.push(("adaLN_modulation.bias", vec![2 * width]));
    }
    all.extend(
        last.into_iter()
            .map(|(name, dims)| (format!("output_layer.{name}"), dims)),
    );
    all.into_iter()
        .map(|(name, dims)| (format!("{prefix}{name}"), dims))
        .collect()
}

/// A folder with these tensors, each of one number that differs from tensor to tensor, and a configuration.
fn folder_of(layout: &[(String, Vec<usize>)], config: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let values = |place: usize, name: &str, dims: &[usize]| {
        if name.ends_with(ROTARY_BUFFER) {
            return buffer(nano());
        }
        vec![place as f32 / 64.0; dims.iter().product()]
    };
    let tensors: Vec<_> = layout
        .iter()
        .enumerate()
        .map(|(place, (name, dims))| (name.clone(), dims.clone(), values(place, name, dims)))
        .collect();
    save(&folder.path().join("model.safetensors"), &tensors);
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

/// The settings that `louaaron/sedd-small` has in `config.json`, with nano's dimensions.
fn sedd(graph: &str) -> Value {
    json!({
        "ngpus": 8, "tokens": 511, "graph": { "type": graph, "file": "data", "report_all": false },
        "noise": { "type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20 },
        "model": {
            "name": "small", "type": "ddit", "hidden_size": 64, "cond_dim": 32, "length": 32, "n_blocks": 2, "n_heads": 2,
            "scale_by_sigma": true, "dropout": 0.1
        }
    })
}

#[test]
fn checkpoint_of_sedd_block_diffusion_and_duo_has_the_network_of_mdlm() {
    let hub = |more: Value| {
        let mut config = config();
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        config
    };
    let cases = [
        ("", true, sedd("absorb"), Some("sedd")),
        (
            "backbone.",
            true,
            hub(json!({ "model_type": "bd3lm", "block_size": 32, "cross_attn": true })),
            Some("mdlm"),
        ),
        (
            "backbone.",
            true,
            hub(json!({ "model_type": "bd3lm", "block_size": 1, "cross_attn": false })),
            Some("mdlm"),
        ),
        (
            "backbone.",
            false,
            hub(json!({ "model_type": "bd3lm", "causal": true, "adaln": false })),
            Some("ar"),
        ),
        (
            "backbone.",
            false,
            hub(json!({ "model_type": "DUO", "causal": true })),
            Some("ar"),
        ),
        // Of other noise, or of blocks: the network is read, the objective is not taken for another one.
        ("", true, sedd("uniform"), None),
        ("backbone.", true, hub(json!({ "model_type": "DUO" })), None),
        (
            "backbone.",
            true,
            hub(json!({ "model_type": "bd3lm", "block_size": 4, "cross_attn": true })),
            None,
        ),
    ];
    for (prefix, is_adaptive, config, objective) in cases {
        let layout = layout(prefix, is_adaptive);
        let folder = folder_of(&layout, &config);
        let mut checkpoint = ForeignCheckpoint::at(folder.path()).unwrap();
        let facts = checkpoint.facts().unwrap();
        assert_eq!(
            facts.objective.as_ref().map(Objective::kind),
            objective,
            "{config}"
        );
        assert_eq!(facts.foreign.is_some(), objective.is_none(), "{config}");
        let backbone = if is_adaptive {
            Backbone::Dit
        } else {
            Backbone::Transformer
        };
        if graph_is_uniform(&config) {
            // `tokens` are all tokens: there is no mask.
            assert!(
                checkpoint
                    .facts()
                    .unwrap()
                    .foreign
                    .as_ref()
                    .unwrap()
                    .contains("`uniform` noise")
            );
        }
        let values = checkpoint.read(nano(), backbone, Weights::Raw).unwrap();
        for own in parameters(nano(), backbone) {
            let place = layout
                .iter()
                .position(|(name, _)| name.ends_with(&own.name))
                .unwrap();
            assert_eq!(values[own.offset], place as f32 / 64.0, "{}", own.name);
        }
        // In the order of the authors' `parameters()`, which averages and moments without names are in.
        let named: Vec<_> = layout
            .iter()
            .filter(|(name, _)| !name.ends_with(ROTARY_BUFFER))
            .collect();
        for (own, (name, dims)) in parameters(nano(), backbone).iter().zip(named) {
            assert_eq!((format!("{prefix}{}", own.name), &own.dims), (name.clone(), dims));
        }
        if objective == Some("sedd") {
            let objective = checkpoint.facts().unwrap().objective.unwrap();
            assert!(objective.is_time_conditioned());
        }
    }
}

fn graph_is_uniform(config: &Value) -> bool {
    config["graph"]["type"] == "uniform"
}

#[test]
fn checkpoint_of_a_network_with_other_norms_or_scores_is_refused_with_the_difference() {
    // A BD3-LM without adaptive norms that attends both ways.
    let mut bare = config();
    bare["model_type"] = json!("bd3lm");
    bare["block_size"] = json!(32);
    bare["adaln"] = json!(false);
    let folder = folder_of(&layout("backbone.", false), &bare);
    let (text, _) = refused(folder.path());
    assert!(
        text.contains("which a DiT is trained for, but the file holds a plain transformer (it has neither `sigma_map` nor"),
        "{text}"
    );
    let mut unscaled = sedd("absorb");
    unscaled["model"]["scale_by_sigma"] = json!(false);
    let folder = folder_of(&layout("", true), &unscaled);
    let checkpoint = ForeignCheckpoint::at(folder.path()).unwrap();
    let facts = checkpoint.facts().unwrap();
    assert!(facts.objective.is_none());
    assert!(
        facts
            .foreign
            .as_ref()
            .unwrap()
            .contains("without `scale_by_sigma`")
    );
    // The published GPT-2, whose names have no prefix.
    let names = [
        "wte.weight",
        "wpe.weight",
        "h.0.ln_1.weight",
        "h.0.ln_1.bias",
        "h.0.attn.bias",
        "h.0.attn.c_attn.weight",
        "h.0.attn.c_attn.bias",
        "h.0.attn.c_proj.weight",
        "h.0.mlp.c_fc.weight",
        "ln_f.weight",
    ];
    let gpt2: Vec<_> = names.iter().map(|name| ((*name).to_owned(), vec![2])).collect();
    let folder = folder_of(
        &gpt2,
        &json!({ "model_type": "gpt2", "n_embd": 64, "vocab_size": 512 }),
    );
    let (text, _) = refused(folder.path());
    assert!(
        text.contains("is a GPT-2 model: its positions are learned"),
        "{text}"
    );
}

#[test]
fn checkpoint_in_shards_of_pytorch_is_read_as_one_of_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config().to_string()).unwrap();
    let all = tensors(Backbone::Dit, "backbone.");
    let write = |name: &str, tensors: &[(String, Vec<usize>, Vec<f32>)]| {
        let items = tensors
            .iter()
            .map(|(name, dims, _)| TorchItem::named(name, TorchItem::Tensor(TorchDtype::F32, dims.clone())));
        let item = TorchItem::OrderedDict(items.collect());
        let mut writer = TorchWriter::create(&folder.path().join(name), &item).unwrap();
        for (.., values) in tensors {
            writer.append(values).unwrap();
        }
        writer.finish().unwrap();
    };
    let mut map = serde_json::Map::new();
    for (number, shard) in all.chunks(16).enumerate() {
        let name = format!("pytorch_model-{:05}-of-00002.bin", number + 1);
        write(&name, shard);
        map.extend(shard.iter().map(|(tensor, ..)| (tensor.clone(), json!(name))));
    }
    let index = json!({ "metadata": {}, "weight_map": map });
    fs::write(
        folder.path().join("pytorch_model.bin.index.json"),
        index.to_string(),
    )
    .unwrap();
    let checkpoint = ForeignCheckpoint::at(folder.path()).unwrap();
    assert_eq!(checkpoint.format(), CheckpointFormat::Shards);
    assert_eq!(checkpoint.sets().len(), 1);
    assert!(read(folder.path(), nano(), Backbone::Dit).unwrap() == initial(nano(), Backbone::Dit, 7));
    // A tensor in both.
    write("pytorch_model-00002-of-00002.bin", &all[15..]);
    let (text, _) = refused(folder.path());
    assert!(
        text.contains(
            "is in two files: `pytorch_model-00001-of-00002.bin` and `pytorch_model-00002-of-00002.bin`"
        ),
        "{text}"
    );
    // One of them is incomplete.
    write("pytorch_model-00002-of-00002.bin", &all[17..]);
    let (text, _) = refused(folder.path());
    assert!(
        text.contains("is in the index, but `pytorch_model-00002-of-00002.bin` does not have it"),
        "{text}"
    );
}
