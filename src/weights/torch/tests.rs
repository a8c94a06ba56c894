//! Files of PyTorch's own, files of ours, and hostile ones. `tests/it/golden/torch` has what `torch.save` wrote; its recipe is
//! `tests/peers/torch_files.py`.

use std::io::Cursor;

use super::dtype::TorchDtype;
use super::pickle::parse;
use super::tensor::{TorchFile, TorchTensor};
use super::values::{Pickle, PickleNode};
use crate::error::{Error, Kind, Result};

mod archive;
mod opcodes;
mod tensors;
mod values;
mod writing;

/// A zip archive of records that are stored as they are.
fn zip(records: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in records {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let mut common = [20_u16, 0, 0, 0, 33].map(u16::to_le_bytes).concat();
        common.extend(
            [crc.sum(), content.len() as u32, content.len() as u32]
                .map(u32::to_le_bytes)
                .concat(),
        );
        common.extend([name.len() as u16, 0].map(u16::to_le_bytes).concat());
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend((bytes.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        bytes.extend(b"PK\x03\x04");
        bytes.extend(common);
        bytes.extend(name.as_bytes());
        bytes.extend(*content);
    }
    let count = records.len() as u16;
    let end = [directory.len() as u32, bytes.len() as u32]
        .map(u32::to_le_bytes)
        .concat();
    bytes.extend(directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([count, count].map(u16::to_le_bytes).concat());
    bytes.extend(end);
    bytes.extend([0, 0]);
    bytes
}

/// A file of `torch.save` with this pickle and these storages.
fn file(pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let names: Vec<String> = (0..storages.len()).map(|key| format!("a/data/{key}")).collect();
    let mut records = vec![
        ("a/data.pkl", pickle),
        ("a/byteorder", b"little"),
        ("a/version", b"3\n"),
    ];
    records.extend(names.iter().map(|name| &**name).zip(storages.iter().copied()));
    zip(&records)
}

fn open(bytes: &[u8]) -> Result<TorchFile> {
    TorchFile::of(Cursor::new(bytes.to_vec()))
}

/// The pickle of a tensor: class of the storage, elements of the storage, offset, dimensions, strides.
fn tensor_pickle(class: &str, elements: i64, offset: i64, dims: &[i64], strides: &[i64]) -> Vec<u8> {
    let long = |number: i64| [&[0x8A, 8][..], &number.to_le_bytes()].concat();
    let tuple = |numbers: &[i64]| {
        let numbers: Vec<u8> = numbers.iter().flat_map(|&number| long(number)).collect();
        [b"(", &numbers[..], b"t"].concat()
    };
    let storage = format!("(\u{8c}\x07storagectorch\n{class}\n\u{8c}\x010\u{8c}\x03cpu");
    // The format's characters are Latin-1: one byte each.
    let storage: Vec<u8> = storage.chars().map(|character| character as u8).collect();
    [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(",
        &storage[..],
        &long(elements),
        b"tQ",
        &long(offset),
        &tuple(dims),
        &tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtR.",
    ]
    .concat()
}

fn tensor_of(file: &TorchFile) -> Result<TorchTensor> {
    file.tensor(file.pickle().root())
}

/// The text of an error of the input, with its way out.
fn text_of(error: &Error) -> String {
    assert_eq!(error.kind(), Kind::Input, "{error}");
    let hint = error.hint_text().unwrap_or_else(|| panic!("no way out: {error}"));
    format!("{error}; {hint}")
}

fn refused(bytes: &[u8]) -> String {
    text_of(&open(bytes).unwrap_err())
}

fn python(pickle: &Pickle) -> String {
    pickle.describe(pickle.root(), 10_000)
}

/// Opens a file, visits and prints its values and reads its tensors: whatever it holds, an error or none.
fn survives(bytes: &[u8]) {
    let Ok(mut file) = open(bytes) else { return };
    let nodes: Vec<PickleNode> = file.pickle().walk(file.pickle().root()).collect();
    let _ = file.pickle().describe(file.pickle().root(), 500);
    for node in nodes
        .into_iter()
        .filter(|&node| file.pickle().is_tensor(node))
        .collect::<Vec<_>>()
    {
        let Ok(tensor) = file.tensor(node) else { continue };
        if tensor.elements() < 10_000 {
            let _ = file.bytes(&tensor, &mut vec![0; tensor.elements() * tensor.dtype.width()]);
            let _ = file.floats(&tensor, &mut vec![0.0; tensor.elements()]);
            let _ = file.integers(&tensor, &mut vec![0; tensor.elements()]);
        }
    }
}

fn parsed(bytes: &[u8]) -> Pickle {
    parse(bytes).unwrap()
}

fn parse_fault(bytes: &[u8]) -> String {
    text_of(&parse(bytes).unwrap_err())
}

/// A pickle that calls `global` with a text, as one that runs a command does.
fn call_of(module: &str, name: &str, argument: &str) -> Vec<u8> {
    let length = [argument.len() as u8];
    [
        b"\x80\x02c",
        module.as_bytes(),
        b"\n",
        name.as_bytes(),
        b"\n\x8c",
        &length,
        argument.as_bytes(),
        b"\x85R.",
    ]
    .concat()
}

#[test]
fn torch_dtypes_have_the_names_and_widths_of_pytorch() {
    let rows: Vec<String> = TorchDtype::ALL
        .iter()
        .map(|dtype| format!("{dtype} {} {}", dtype.storage_class(), dtype.width()))
        .collect();
    assert_eq!(
        rows,
        [
            "float64 DoubleStorage 8",
            "float32 FloatStorage 4",
            "float16 HalfStorage 2",
            "bfloat16 BFloat16Storage 2",
            "int64 LongStorage 8",
            "int32 IntStorage 4",
            "int16 ShortStorage 2",
            "int8 CharStorage 1",
            "uint8 ByteStorage 1",
            "bool BoolStorage 1",
        ]
    );
}
