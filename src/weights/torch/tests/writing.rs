//! Files of ours, read back; `tests/peers/torch_files.py` reads them with PyTorch.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::survives;
use crate::weights::torch::dtype::TorchDtype;
use crate::weights::torch::tensor::TorchFile;
use crate::weights::torch::values::{PickleNode, PickleValue};
use crate::weights::torch::write::{TorchItem, TorchWriter};

fn write(path: &Path, item: &TorchItem, bytes: &[u8], limit: Option<u64>) {
    let mut writer = match limit {
        Some(limit) => TorchWriter::with_limit(path, item, limit).unwrap(),
        None => TorchWriter::create(path, item).unwrap(),
    };
    // In parts that end anywhere.
    for part in bytes.chunks(7) {
        writer.append_bytes(part).unwrap();
    }
    writer.finish().unwrap();
}

/// Compares a value with what was written; takes the bytes of its tensors off `bytes`.
fn same(file: &mut TorchFile, node: PickleNode, item: &TorchItem, bytes: &mut &[u8]) {
    let list = |file: &mut TorchFile, items: &[TorchItem], bytes: &mut &[u8]| {
        let nodes = file.pickle().elements(node).to_vec();
        assert_eq!(nodes.len(), items.len());
        for (node, item) in nodes.into_iter().zip(items) {
            same(file, node, item, bytes);
        }
    };
    let value = file.pickle().value(node);
    match item {
        TorchItem::None => assert_eq!(*value, PickleValue::None),
        TorchItem::Bool(own) => assert_eq!(*value, PickleValue::Bool(*own)),
        TorchItem::Int(own) => assert_eq!(*value, PickleValue::Int(*own)),
        TorchItem::Float(own) => {
            let PickleValue::Float(value) = value else {
                panic!("{value:?}")
            };
            assert_eq!(value.to_bits(), own.to_bits());
        }
        TorchItem::Text(own) => assert_eq!(file.pickle().text(node), Some(&**own)),
        TorchItem::List(items) => {
            assert!(matches!(value, PickleValue::List(_)));
            list(file, items, bytes);
        }
        TorchItem::Tuple(items) => {
            assert!(matches!(value, PickleValue::Tuple(_)));
            list(file, items, bytes);
        }
        TorchItem::Dict(own) | TorchItem::OrderedDict(own) => {
            assert!(matches!(value, PickleValue::Dict { .. }));
            let entries = file.pickle().entries(node).to_vec();
            assert_eq!(entries.len(), own.len());
            for (entry, own) in entries.into_iter().zip(own) {
                same(file, entry.0, &own.0, bytes);
                same(file, entry.1, &own.1, bytes);
            }
        }
        TorchItem::Tensor(dtype, dims) => {
            let tensor = file.tensor(node).unwrap();
            assert_eq!((tensor.dtype, &tensor.dims), (*dtype, dims));
            assert!(tensor.is_contiguous());
            let mut own = vec![0; tensor.elements() * dtype.width()];
            file.bytes(&tensor, &mut own).unwrap();
            let (expected, rest) = bytes.split_at(own.len());
            assert_eq!(own, expected);
            *bytes = rest;
        }
    }
}

/// Bytes of all tensors of a value.
fn length(item: &TorchItem) -> usize {
    match item {
        TorchItem::List(items) | TorchItem::Tuple(items) => items.iter().map(length).sum(),
        TorchItem::Dict(entries) | TorchItem::OrderedDict(entries) => entries
            .iter()
            .map(|(key, value)| length(key) + length(value))
            .sum(),
        TorchItem::Tensor(dtype, dims) => dtype.width() * dims.iter().product::<usize>(),
        _ => 0,
    }
}

fn items() -> impl Strategy<Value = TorchItem> {
    let dims = proptest::collection::vec(0_usize..4, 0..4);
    let leaf = prop_oneof![
        Just(TorchItem::None),
        any::<bool>().prop_map(TorchItem::Bool),
        any::<i64>().prop_map(TorchItem::Int),
        (-70_000_i64..70_000).prop_map(TorchItem::Int),
        any::<u64>().prop_map(|bits| TorchItem::Float(f64::from_bits(bits))),
        "\\PC{0,20}".prop_map(TorchItem::Text),
        (0_usize..10, dims).prop_map(|(dtype, dims)| TorchItem::Tensor(TorchDtype::ALL[dtype], dims)),
    ];
    leaf.prop_recursive(4, 30, 5, |inner| {
        let pairs = proptest::collection::vec(("[a-z]{1,5}".prop_map(TorchItem::Text), inner.clone()), 0..5);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(TorchItem::List),
            proptest::collection::vec(inner, 0..5).prop_map(TorchItem::Tuple),
            pairs.clone().prop_map(TorchItem::Dict),
            pairs.prop_map(TorchItem::OrderedDict),
        ]
    })
}

proptest! {
    // Each case makes two files durable.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn torch_writer_is_read_back_bit_by_bit(item in items(), seed: u8, long: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pt");
        let bytes: Vec<u8> = (0..length(&item)).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        // The form for files beyond 4 GiB, from a smaller limit on.
        let limit = long.then_some(100);
        write(&path, &item, &bytes, limit);
        let mut file = TorchFile::open(&path).unwrap();
        prop_assert_eq!(file.pickle().uncalled(), []);
        let mut rest = &bytes[..];
        let root = file.pickle().root();
        same(&mut file, root, &item, &mut rest);
        prop_assert!(rest.is_empty());
        // The same content gives the same bytes, and the file's folder holds the file alone.
        let first = fs::read(&path).unwrap();
        write(&path, &item, &bytes, limit);
        prop_assert!(fs::read(&path).unwrap() == first);
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

fn small() -> TorchItem {
    TorchItem::Dict(vec![
        TorchItem::named("a", TorchItem::Tensor(TorchDtype::F32, vec![2, 3])),
        TorchItem::named("b", TorchItem::Tensor(TorchDtype::F32, vec![0])),
        TorchItem::named("c", TorchItem::Tensor(TorchDtype::F32, vec![])),
        TorchItem::named("n", TorchItem::Tensor(TorchDtype::I64, vec![1])),
    ])
}

#[test]
fn torch_writer_takes_values_over_the_ends_of_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pt");
    let mut writer = TorchWriter::create(&path, &small()).unwrap();
    writer.append(&[1.0, 2.0]).unwrap();
    writer.append(&[3.0, 4.0, 5.0, 6.0, 7.0]).unwrap();
    let error = writer.append(&[8.0]).unwrap_err();
    assert!(
        error.to_string().starts_with("f32 values for Some((I64, 8))"),
        "{error}"
    );
    writer.append_bytes(&9_i64.to_le_bytes()).unwrap();
    assert!(writer.append_bytes(&[0]).is_err());
    writer.finish().unwrap();
    let mut file = TorchFile::open(&path).unwrap();
    let node = file.pickle().find(&["c"]).unwrap();
    let tensor = file.tensor(node).unwrap();
    let mut value = [0.0];
    file.floats(&tensor, &mut value).unwrap();
    assert_eq!(value, [7.0]);
}

#[test]
fn torch_writer_refuses_values_within_an_element() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = TorchWriter::create(&folder.path().join("a.pt"), &small()).unwrap();
    writer.append_bytes(&[0; 22]).unwrap();
    let error = writer.append(&[1.0]).unwrap_err();
    assert!(error.to_string().contains("which lacks 2 bytes"), "{error}");
}

#[test]
fn torch_writer_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pt");
    fs::write(&path, "before").unwrap();
    let mut writer = TorchWriter::create(&path, &small()).unwrap();
    writer.append(&[1.0; 6]).unwrap();
    drop(writer);
    let mut writer = TorchWriter::create(&path, &small()).unwrap();
    writer.append(&[1.0; 6]).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.to_string(), "4 bytes of tensor 2 of 4 are missing");
    assert_eq!(fs::read(&path).unwrap(), b"before");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Storages begin at multiples of 64 bytes, so that they can be mapped.
#[test]
fn torch_writer_aligns_storages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pt");
    let item = TorchItem::List(vec![TorchItem::Tensor(TorchDtype::U8, vec![9]); 12]);
    write(&path, &item, &b"marker_09".repeat(12), None);
    let bytes = fs::read(&path).unwrap();
    let places: Vec<usize> = memchr::memmem::find_iter(&bytes, b"marker_09").collect();
    assert_eq!(places.len(), 12);
    assert!(places.iter().all(|place| place % 64 == 0), "{places:?}");
}

#[test]
fn torch_writer_files_cut_or_changed_do_not_panic() {
    let folder = tempfile::tempdir().unwrap();
    for limit in [None, Some(20)] {
        let path = folder.path().join("a.pt");
        write(&path, &small(), &[3; 36], limit);
        let whole = fs::read(&path).unwrap();
        survives(&whole);
        for cut in 0..whole.len() {
            assert!(super::open(&whole[..cut]).is_err());
        }
        for place in 0..whole.len() {
            for byte in [0, 1, 0x7F, 0xFF, whole[place] ^ 0x80] {
                let mut changed = whole.clone();
                changed[place] = byte;
                survives(&changed);
            }
        }
    }
}
