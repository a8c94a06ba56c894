//! The same weights in every format: their logits, and what is left of 16-bit numbers.

use std::fs;
use std::path::Path;

use mdlm::model::{initial, parameters};
use mdlm::shapes::Backbone;
use mdlm::weights::tensors::Reader;
use mdlm::weights::torch::dtype::TorchDtype;
use mdlm::weights::torch::write::{TorchItem, TorchWriter};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use super::lightning::{dict, lightning};
use super::{Project, checkpoint, config, nano, published, read};
use crate::support::words;

/// Rows of tokens, and with `sigma` their noise levels.
fn input(path: &Path, sigma: Option<f32>) {
    let tokens: Vec<u8> = (0..32u32).flat_map(|token| (token * 15).to_le_bytes()).collect();
    let sigma = sigma.map(f32::to_le_bytes);
    let mut views = vec![("xt", TensorView::new(Dtype::U32, vec![1, 32], &tokens).unwrap())];
    if let Some(bytes) = &sigma {
        views.push(("sigma", TensorView::new(Dtype::F32, vec![1], bytes).unwrap()));
    }
    safetensors::serialize_to_file(views, None, path).unwrap();
}

fn arguments<'a>(checkpoint: &'a str, input: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec![
        "logits",
        "--checkpoint",
        checkpoint,
        "--shape",
        "nano",
        "--input",
        input,
        "--output",
        "out.safetensors",
    ];
    all.extend(more);
    all
}

/// What is said, and the bytes of the logits.
fn logits(project: &Project, checkpoint: &str, input: &str) -> (String, Vec<u8>) {
    let output = project.mdlm(&arguments(checkpoint, input, &[]), None);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    (words(&said), fs::read(project.path("out.safetensors")).unwrap())
}

/// The tensors of [`super::save`] with random weights: names, dimensions, values.
fn tensors(values: &[f32]) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let named = parameters(nano(), Backbone::Dit);
    let named = named.iter().map(|own| {
        let values = values[own.range()].to_vec();
        (format!("backbone.{}", own.name), own.dims.clone(), values)
    });
    named.collect()
}

fn torch(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)], below: Option<&str>) {
    let items = tensors
        .iter()
        .map(|(name, dims, _)| TorchItem::named(name, TorchItem::Tensor(TorchDtype::F32, dims.clone())));
    let state = TorchItem::OrderedDict(items.collect());
    let item = match below {
        Some(key) => dict(vec![(key, state)]),
        None => state,
    };
    let mut writer = TorchWriter::create(path, &item).unwrap();
    for (.., values) in tensors {
        writer.append(values).unwrap();
    }
    writer.finish().unwrap();
}

fn random() -> Vec<f32> {
    let mut values = initial(nano(), Backbone::Dit, 3);
    for (at, value) in values.iter_mut().enumerate().filter(|(_, value)| **value == 0.0) {
        *value = (at as f32 * 0.37).sin() * 0.05;
    }
    values
}

#[test]
fn checkpoint_logits_are_the_same_of_every_format() {
    let project = Project::new();
    let values = random();
    let all = tensors(&values);
    input(&project.path("in"), None);
    torch(&project.path("bare.bin"), &all, None);
    torch(&project.path("below.pt"), &all, Some("state_dict"));
    let zeros = vec![0.0; values.len()];
    // The average is read.
    lightning(
        &project.path("last.ckpt"),
        3,
        [&zeros, &values, &zeros, &zeros],
        &|_| (),
    );
    published(&project.path("published"));
    for (folder, ending, index) in [
        ("shards", "safetensors", "model.safetensors.index.json"),
        ("bins", "bin", "pytorch_model.bin.index.json"),
    ] {
        fs::create_dir(project.path(folder)).unwrap();
        fs::write(project.path(folder).join("config.json"), config().to_string()).unwrap();
        let mut map = serde_json::Map::new();
        for (number, shard) in all.chunks(16).enumerate() {
            let name = format!("part-{number}.{ending}");
            let path = project.path(folder).join(&name);
            if ending == "bin" {
                torch(&path, shard, None);
            } else {
                let header: Vec<_> = shard
                    .iter()
                    .map(|(name, dims, _)| (name.clone(), dims.clone()))
                    .collect();
                let mut writer = mdlm::weights::tensors::Writer::create(&path, &header, &[]).unwrap();
                for (.., values) in shard {
                    writer.append(values).unwrap();
                }
                writer.finish().unwrap();
            }
            map.extend(shard.iter().map(|(tensor, ..)| (tensor.clone(), json!(name))));
        }
        let index = project.path(folder).join(index);
        fs::write(index, json!({ "weight_map": map }).to_string()).unwrap();
    }
    let (_, expected) = logits(&project, "published", "in");
    for file in ["bare.bin", "below.pt", "last.ckpt", "shards", "bins"] {
        let (_, found) = logits(&project, file, "in");
        assert!(found == expected, "{file}");
    }
}

#[test]
fn checkpoint_logits_take_the_noise_levels_that_the_file_states() {
    let project = Project::new();
    published(&project.path("published"));
    input(&project.path("in"), None);
    input(&project.path("noised"), Some(0.5));
    let (said, zero) = logits(&project, "published", "in");
    assert!(!said.contains("sigma"), "{said}");
    // Not conditioned: as the authors' network has it, σ is 0.
    let (said, given) = logits(&project, "published", "noised");
    assert!(
        said.contains(
            "`sigma` has no effect: the network is not conditioned on the noise level by `config.json`"
        ),
        "{said}"
    );
    assert!(given == zero);
    let mut conditioned = config();
    conditioned["time_conditioning"] = json!(true);
    fs::write(project.path("published/config.json"), conditioned.to_string()).unwrap();
    let (said, given) = logits(&project, "published", "noised");
    assert!(!said.contains("sigma") && given != zero, "{said}");
    let said = project.refused(&arguments("published", "in", &[]));
    assert!(
        said.contains(
            "there is no tensor `sigma`, and the network is fed the noise level of each row by `config.json`"
        ),
        "{said}"
    );
    assert!(
        said.contains("add `sigma` [rows]") && said.contains("`--objective`"),
        "{said}"
    );

    // With an objective, σ follows from t: it is fed where the file says so.
    let tokens: Vec<u8> = (0..32u32).flat_map(|token| (token * 15).to_le_bytes()).collect();
    let t = 0.5f64.to_le_bytes();
    let view = |dtype, dims: &[usize], bytes| TensorView::new(dtype, dims.to_vec(), bytes).unwrap();
    let views = vec![
        ("x0", view(Dtype::U32, &[1, 32], &tokens)),
        ("xt", view(Dtype::U32, &[1, 32], &tokens)),
        ("t", view(Dtype::F64, &[1], &t)),
    ];
    safetensors::serialize_to_file(views, None, &project.path("rows")).unwrap();
    let said = project.refused(&arguments("published", "rows", &["--objective", "mdlm"]));
    assert!(
        said.contains("`time_conditioning` is true in `config.json`, but false in `--objective`"),
        "{said}"
    );
    let objective = r#"{ "kind": "mdlm", "time_conditioning": true }"#;
    project.ok(&arguments("published", "rows", &["--objective", objective]), None);

    // An autoregressive model.
    super::save(&project.path("ar.safetensors"), Backbone::Transformer, |values| {
        values[3] = f32::NAN;
    });
    let said = project.refused(&arguments("ar.safetensors", "in", &[]));
    assert!(said.contains("give `--objective ar`"), "{said}");
    let output = project.mdlm(&arguments("ar.safetensors", "rows", &["--objective", "ar"]), None);
    let said = words(&String::from_utf8_lossy(&output.stderr));
    assert!(
        said.contains("tensor `vocab_embed.embedding` is NaN or infinite in 1 value"),
        "{said}"
    );
}

/// A published folder that is imported and exported has the tensors that it had, the rotary buffer among them.
#[test]
fn checkpoint_of_the_hub_is_exported_with_equal_bytes() {
    let project = Project::new();
    published(&project.path("published"));
    let mut all = tensors(&random());
    let buffer = crate::export::AUTHORS_BUFFER.map(f32::from_bits);
    all.push((
        "backbone.rotary_emb.inv_freq".to_owned(),
        vec![16],
        buffer.to_vec(),
    ));
    let header: Vec<_> = all
        .iter()
        .map(|(name, dims, _)| (name.clone(), dims.clone()))
        .collect();
    let path = project.path("published/model.safetensors");
    let mut writer = mdlm::weights::tensors::Writer::create(&path, &header, &[]).unwrap();
    for (.., values) in &all {
        writer.append(values).unwrap();
    }
    writer.finish().unwrap();
    project.manifest(&json!({ "model": checkpoint("published") }));
    project.ok(&["run", "x.json"], None);
    project.ok(&["export", "x.json", "model", "--to", "hf", "out"], None);
    let mut reader = Reader::open(&project.path("out/model.safetensors")).unwrap();
    assert_eq!(reader.names().len(), all.len());
    for (name, dims, values) in &all {
        assert_eq!(&reader.info(name).unwrap().shape, dims, "{name}");
        let mut found = vec![0.0; values.len()];
        reader.floats(name, 0, &mut found).unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found), bits(values), "{name}");
    }
}

/// Numbers of 16 bits are read exactly, and come back as f32.
#[test]
fn checkpoint_of_16_bits_is_imported_exactly_and_exported_as_f32() {
    let project = Project::new();
    let values = random();
    for (dtype, name) in [(Dtype::F16, "F16"), (Dtype::BF16, "BF16")] {
        let folder = project.path(name);
        fs::create_dir(&folder).unwrap();
        let mut expected = vec![0.0; values.len()];
        let mut owned = Vec::new();
        for own in parameters(nano(), Backbone::Dit) {
            let mut bytes = Vec::new();
            for at in own.range() {
                if dtype == Dtype::F16 {
                    let rounded = half::f16::from_f32(values[at]);
                    expected[at] = rounded.to_f32();
                    bytes.extend(rounded.to_le_bytes());
                } else {
                    let rounded = half::bf16::from_f32(values[at]);
                    expected[at] = rounded.to_f32();
                    bytes.extend(rounded.to_le_bytes());
                }
            }
            owned.push((format!("backbone.{}", own.name), own.dims.clone(), bytes));
        }
        assert!(expected != values);
        let views = owned
            .iter()
            .map(|(name, dims, bytes)| (name.clone(), TensorView::new(dtype, dims.clone(), bytes).unwrap()));
        safetensors::serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
        fs::write(folder.join("config.json"), config().to_string()).unwrap();
        let shown = project.ok(&["checkpoint", name], None);
        assert!(words(&shown).contains(&format!("512 x 64 {name}")), "{shown}");
        project.manifest(&json!({ "model": checkpoint(name) }));
        project.ok(&["run", "x.json"], None);
        let imported = read(&project.artifact("model").join("ema.safetensors"), Backbone::Dit);
        assert!(imported == expected, "{name}");
        let out = format!("out-{name}");
        project.ok(&["export", "x.json", "model", "--to", "hf", &out], None);
        let exported = project.path(&out).join("model.safetensors");
        assert!(read(&exported, Backbone::Dit) == expected, "{name}");
        let reader = Reader::open(&exported).unwrap();
        assert!(
            reader
                .names()
                .iter()
                .all(|name| reader.info(name).unwrap().dtype == Dtype::F32)
        );
        let written: Value =
            serde_json::from_slice(&fs::read(project.path(&out).join("config.json")).unwrap()).unwrap();
        assert_eq!(written["dtype"], "float32");
    }
}
