//! Files of `torch.save` and ours, between PyTorch and `weights::torch`, where Python has it (`tests/peers/torch_files.py`).

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use mdlm::weights::torch::dtype::TorchDtype;
use mdlm::weights::torch::tensor::TorchFile;
use mdlm::weights::torch::values::PickleNode;
use mdlm::weights::torch::write::{TorchItem, TorchWriter};
use serde_json::Value;

use crate::require::require;
use crate::support::python_with;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/torch_files.py");

/// Runs the script.
fn script(python: &Path, command: &str, path: &Path) -> Output {
    let output = Command::new(python)
        .args([SCRIPT, command])
        .arg(path)
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    output
}

/// The value below keys of dicts and numbers of lists.
fn at(file: &TorchFile, path: &str) -> PickleNode {
    let pickle = file.pickle();
    path.split('/').fold(pickle.root(), |node, key| {
        let place = key.parse::<usize>().ok();
        pickle
            .get(node, key)
            .or_else(|| pickle.get_at(node, place? as i64))
            .or_else(|| pickle.elements(node).get(place?).copied())
            .unwrap_or_else(|| panic!("{path}"))
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Every type of elements in every protocol: whole, transposed, narrowed, repeated, overlapping, empty.
#[test]
fn torch_files_of_every_type_stride_and_protocol_are_read_equal() {
    let Some(python) = require("transformers", python_with(&["torch", "numpy"])) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    script(&python, "check", folder.path());
    let expected = fs::read(folder.path().join("expected.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let mut compared = 0;
    for (name, facts) in expected.as_object().unwrap() {
        let mut file = TorchFile::open(&folder.path().join(name)).unwrap();
        let uncalled: Vec<_> = file
            .pickle()
            .uncalled()
            .iter()
            .map(|global| &*global.name)
            .collect();
        assert_eq!(serde_json::json!(uncalled), facts["uncalled"], "{name}");
        for (path, facts) in facts["tensors"].as_object().unwrap() {
            let tensor = file.tensor(at(&file, path)).unwrap();
            assert_eq!(tensor.dtype.to_string(), facts["dtype"], "{name}: {path}");
            assert_eq!(serde_json::json!(tensor.dims), facts["dims"], "{name}: {path}");
            let mut bytes = vec![0; tensor.elements() * tensor.dtype.width()];
            file.bytes(&tensor, &mut bytes).unwrap();
            assert!(hex(&bytes) == facts["hex"], "{name}: {path}");
            compared += 1;
        }
    }
    assert!(compared > 500, "{compared}");
}

/// `torch.load(weights_only=True)` reads what the writer writes, mapped and not.
#[test]
fn torch_files_written_are_read_equal_by_pytorch() {
    let Some(python) = require("transformers", python_with(&["torch", "numpy"])) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pt");
    let dims: [&[usize]; 4] = [&[2, 3], &[0, 4], &[], &[70_000]];
    let all: Vec<(String, TorchDtype, &[usize])> = TorchDtype::ALL
        .into_iter()
        .flat_map(|dtype| dims.map(|dims| (format!("{dtype} {dims:?}"), dtype, dims)))
        .collect();
    let named = |(name, dtype, dims): &(String, TorchDtype, &[usize])| {
        TorchItem::named(name, TorchItem::Tensor(*dtype, dims.to_vec()))
    };
    let item = TorchItem::Dict(vec![
        TorchItem::named(
            "state_dict",
            TorchItem::OrderedDict(all.iter().map(named).collect()),
        ),
        TorchItem::named("text", TorchItem::Text("é😀".to_owned())),
        TorchItem::named(
            "numbers",
            TorchItem::List(vec![
                TorchItem::Int(-1),
                TorchItem::Int(i64::MIN),
                TorchItem::Float(0.1),
                TorchItem::Bool(true),
                TorchItem::Tuple(vec![TorchItem::None]),
            ]),
        ),
    ]);
    let mut writer = TorchWriter::create(&path, &item).unwrap();
    let content = |dtype: TorchDtype, dims: &[usize]| -> Vec<u8> {
        // Truth values are 0 and 1; other bytes would be read as they are.
        let most = if dtype == TorchDtype::Bool { 2 } else { 120 };
        let count = dims.iter().product::<usize>() * dtype.width();
        (0..count).map(|place| (place * 7 % most) as u8).collect()
    };
    for (_, dtype, dims) in &all {
        writer.append_bytes(&content(*dtype, dims)).unwrap();
    }
    writer.finish().unwrap();

    let output = script(&python, "load", &path);
    let loaded: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tensors = loaded["tensors"].as_object().unwrap();
    assert_eq!(tensors.len(), all.len());
    for (name, dtype, dims) in &all {
        let found = &tensors[&format!("state_dict/{name}")];
        assert_eq!(found["dtype"], dtype.to_string());
        assert_eq!(found["dims"], serde_json::json!(dims));
        assert!(found["hex"] == hex(&content(*dtype, dims)), "{name}");
    }
    assert!(
        loaded["value"]
            .as_str()
            .unwrap()
            .starts_with("{'state_dict': OrderedDict(")
    );
}
