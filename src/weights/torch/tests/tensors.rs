//! Tensors: types, strides, bounds, and the files of `torch.save`.

use half::{bf16, f16};
use proptest::prelude::*;

use super::{file, open, refused, tensor_of, tensor_pickle, text_of};
use crate::weights::torch::tensor::TorchFile;
use crate::weights::torch::values::PickleNode;

fn floats(bytes: &[u8]) -> Result<Vec<f32>, String> {
    let mut file = open(bytes).map_err(|error| text_of(&error))?;
    let tensor = tensor_of(&file).map_err(|error| text_of(&error))?;
    let mut values = vec![0.0; tensor.elements()];
    match file.floats(&tensor, &mut values) {
        Ok(()) => Ok(values),
        Err(error) => Err(error.to_string()),
    }
}

/// 0, 1, 2, … as f32.
fn counting(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

fn view(elements: i64, offset: i64, dims: &[i64], strides: &[i64]) -> Result<Vec<f32>, String> {
    let pickle = tensor_pickle("FloatStorage", elements, offset, dims, strides);
    floats(&file(&pickle, &[&counting(elements as usize)]))
}

#[test]
fn torch_tensor_views_are_read_in_the_order_of_rows() {
    for (offset, dims, strides, expected) in [
        (0, &[2, 3][..], &[3, 1][..], &[0, 1, 2, 3, 4, 5][..]),
        // Transposed, narrowed, one of two, a scalar, repeated, overlapping.
        (0, &[3, 2], &[1, 3], &[0, 3, 1, 4, 2, 5]),
        (1, &[2, 2], &[3, 1], &[1, 2, 4, 5]),
        (0, &[3], &[2], &[0, 2, 4]),
        (5, &[], &[], &[5]),
        (4, &[1, 1], &[77, 99], &[4]),
        (2, &[2, 3], &[1, 0], &[2, 2, 2, 3, 3, 3]),
        (0, &[3, 2], &[1, 1], &[0, 1, 1, 2, 2, 3]),
        (0, &[2, 2, 1], &[1, 3, 5], &[0, 3, 1, 4]),
        // Nothing, wherever.
        (0, &[0], &[1], &[]),
        (100, &[3, 0], &[1, 1], &[]),
        (0, &[1 << 40, 1 << 40, 0], &[0, 1, 1], &[]),
        (0, &[0, 1 << 40, 1 << 40], &[0, 1 << 40, 1], &[]),
    ] {
        let values: Vec<f32> = expected.iter().map(|&value| value as f32).collect();
        assert_eq!(view(6, offset, dims, strides), Ok(values), "{dims:?} {strides:?}");
    }
}

#[test]
fn torch_tensor_outside_of_its_storage_is_refused() {
    for (elements, offset, dims, strides) in [
        (6, 0, &[7][..], &[1][..]),
        (6, 1, &[6], &[1]),
        (6, 6, &[], &[]),
        (6, i64::MAX, &[1], &[1]),
        (6, 0, &[2, 3], &[i64::MAX, 1]),
        (6, 0, &[3, 3], &[i64::MAX, i64::MAX]),
        (0, 0, &[], &[]),
    ] {
        let text = view(elements, offset, dims, strides).unwrap_err();
        assert!(text.contains("elements outside of its storage"), "{text}");
    }
    for dims in [&[i64::MAX, i64::MAX][..], &[1 << 62, 1]] {
        let text = view(6, 0, dims, &[0, 0]).unwrap_err();
        assert!(text.contains("more elements than memory can have"), "{text}");
    }
    // Many elements of a small file: known before memory is reserved for them.
    let pickle = tensor_pickle("FloatStorage", 1, 0, &[1 << 40], &[0]);
    let mut file = open(&file(&pickle, &[&counting(1)])).unwrap();
    let tensor = tensor_of(&file).unwrap();
    assert_eq!(tensor.elements(), 1 << 40);
    let error = file.floats(&tensor, &mut [0.0; 4]).unwrap_err();
    assert_eq!(error.to_string(), "it has 1099511627776 elements, expected 4");
}

#[test]
fn torch_tensor_with_impossible_arguments_is_refused() {
    for (offset, dims, strides, expected) in [
        (-1, &[1][..], &[1][..], "offset is not a whole number from 0 on"),
        (0, &[-1], &[1], "a dimension or stride of -1"),
        (0, &[2], &[-1], "a dimension or stride of -1"),
        (0, &[2, 2], &[1], "a tensor of 2 dimensions with 1 strides"),
        (
            0,
            &[1; 65],
            &[1; 65],
            "a tensor of 65 dimensions, and PyTorch has 64 at most",
        ),
    ] {
        let text = view(6, offset, dims, strides).unwrap_err();
        assert!(text.contains(expected), "{text}");
    }
    let text = floats(&file(&tensor_pickle("FloatStorage", -1, 0, &[1], &[1]), &[])).unwrap_err();
    assert!(text.contains("not a storage"), "{text}");
    let text = floats(&file(&tensor_pickle("FloatTensor", 1, 0, &[1], &[1]), &[])).unwrap_err();
    assert!(text.contains("not a storage"), "{text}");
    let text = refused(&file(
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\0))\x89NtR.",
        &[],
    ));
    assert!(
        text.contains(
            "record `a/data.pkl`: the pickle makes a tensor of something other than a storage (byte 44)"
        ),
        "{text}"
    );
}

/// A view that PyTorch has negated or conjugated without touching its values: the file has those of the view's base.
#[test]
fn torch_tensor_with_metadata_that_change_its_values_is_refused() {
    let plain = tensor_pickle("FloatStorage", 2, 0, &[2], &[1]);
    let bytes = counting(2);
    let with = |metadata: &[u8]| {
        let (arguments, end) = plain.split_at(plain.len() - 3);
        assert_eq!(end, b"tR.");
        floats(&file(&[arguments, metadata, end].concat(), &[&bytes]))
    };
    let empty = [
        &b"N"[..],
        b"}",
        b"ccollections\nOrderedDict\n)R",
        b"}X\x03\0\0\0neg\x89s",
    ];
    for metadata in empty {
        assert_eq!(with(metadata), Ok(vec![0.0, 1.0]), "{}", metadata.escape_ascii());
    }
    for (metadata, expected) in [
        (&b"}X\x03\0\0\0neg\x88s"[..], "the metadata `neg`"),
        (b"}X\x03\0\0\0neg\x89sX\x04\0\0\0conj\x88s", "the metadata `conj`"),
        (b"}K\x01\x88s", "metadata without a name"),
        (b"]", "metadata that are not a dict"),
    ] {
        let text = with(metadata).unwrap_err();
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("tensor.resolve_neg().resolve_conj()"), "{text}");
    }
}

#[test]
fn torch_storage_that_is_missing_or_of_another_length_is_refused() {
    let pickle = tensor_pickle("FloatStorage", 2, 0, &[1], &[1]);
    let text = floats(&file(&pickle, &[])).unwrap_err();
    assert!(
        text.contains("its storage, record `data/0`, is missing"),
        "{text}"
    );
    for length in [4, 7, 12] {
        let text = floats(&file(&pickle, &[&vec![0; length]])).unwrap_err();
        let expected =
            format!("its storage has 2 elements of type float32, and record `data/0` has {length} bytes");
        assert!(text.contains(&expected), "{text}");
    }
    let text = floats(&file(
        &tensor_pickle("FloatStorage", i64::MAX, 0, &[1], &[1]),
        &[&[0; 4]],
    ))
    .unwrap_err();
    assert!(
        text.contains("its storage has 9223372036854775807 elements"),
        "{text}"
    );
}

#[test]
fn torch_tensor_types_are_converted() {
    let numbers = [0.0_f32, -1.5, 65504.0, 1.0];
    for (class, bytes) in [
        (
            "DoubleStorage",
            numbers
                .iter()
                .flat_map(|&v| f64::from(v).to_le_bytes())
                .collect::<Vec<u8>>(),
        ),
        (
            "FloatStorage",
            numbers.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ),
        (
            "HalfStorage",
            numbers
                .iter()
                .flat_map(|&v| f16::from_f32(v).to_le_bytes())
                .collect(),
        ),
    ] {
        let file = file(&tensor_pickle(class, 4, 0, &[4], &[1]), &[&bytes]);
        assert_eq!(floats(&file), Ok(numbers.to_vec()), "{class}");
    }
    let bytes: Vec<u8> = numbers
        .iter()
        .flat_map(|&v| bf16::from_f32(v).to_le_bytes())
        .collect();
    let bf16s = floats(&file(
        &tensor_pickle("BFloat16Storage", 4, 0, &[4], &[1]),
        &[&bytes],
    ));
    assert_eq!(bf16s, Ok(vec![0.0, -1.5, 65536.0, 1.0]));
    for (class, bytes, expected) in [
        ("LongStorage", &i64::MIN.to_le_bytes()[..], i64::MIN),
        ("IntStorage", &(-7_i32).to_le_bytes(), -7),
        ("ShortStorage", &(-7_i16).to_le_bytes(), -7),
        ("CharStorage", &[0xF9], -7),
        ("ByteStorage", &[0xF9], 249),
        ("BoolStorage", &[1], 1),
    ] {
        let file = file(&tensor_pickle(class, 1, 0, &[], &[]), &[bytes]);
        let text = floats(&file).unwrap_err();
        assert!(text.contains("expected floating-point numbers"), "{text}");
        let mut file = open(&file).unwrap();
        let tensor = tensor_of(&file).unwrap();
        let mut number = [0];
        file.integers(&tensor, &mut number).unwrap();
        assert_eq!(number, [expected], "{class}");
        let mut own = vec![0; bytes.len()];
        file.bytes(&tensor, &mut own).unwrap();
        assert_eq!(own, bytes);
    }
    let text = floats(&file(
        &tensor_pickle("ComplexFloatStorage", 1, 0, &[], &[]),
        &[&[0; 8]],
    ))
    .unwrap_err();
    assert!(
        text.contains("its elements are those of a `torch.ComplexFloatStorage`, and float64, float32,"),
        "{text}"
    );
}

#[test]
fn torch_doubles_beyond_f32_are_refused_with_their_element() {
    let read = |value: f64| {
        let bytes: Vec<u8> = [1.0, value].iter().flat_map(|v| v.to_le_bytes()).collect();
        floats(&file(
            &tensor_pickle("DoubleStorage", 2, 0, &[2], &[1]),
            &[&bytes],
        ))
    };
    let text = read(-1e39).unwrap_err();
    assert_eq!(
        text,
        "its element 1 is -1e39, beyond the largest f32, 3.4028235e38"
    );
    assert_eq!(read(f64::INFINITY), Ok(vec![1.0, f32::INFINITY]));
    assert_eq!(read(1e-300), Ok(vec![1.0, 0.0]));
    assert!(read(f64::NAN).unwrap()[1].is_nan());
}

/// A class of tensors with attributes, and parameters, are their data.
#[test]
fn torch_parameters_are_their_data() {
    let tensor = tensor_pickle("FloatStorage", 1, 0, &[1], &[1]);
    let inner = &tensor[2..tensor.len() - 1];
    let hooks = b"ccollections\nOrderedDict\n)R";
    for (before, after) in [
        (
            &b"ctorch._utils\n_rebuild_parameter\n"[..],
            [b"\x88", &hooks[..], b"\x87R."].concat(),
        ),
        (
            b"ctorch._utils\n_rebuild_parameter_with_state\n(",
            [b"\x88", &hooks[..], b"}tR."].concat(),
        ),
    ] {
        let pickle = [b"\x80\x02", before, inner, &after].concat();
        assert_eq!(floats(&file(&pickle, &[&counting(1)])), Ok(vec![0.0]));
    }
    // The call of the function, without the last opcode, is given to `_rebuild_from_type_v2` as parts.
    let name = b"ctorch._utils\n_rebuild_tensor_v2\n";
    let args = &inner[name.len()..inner.len() - 1];
    let pickle = [
        b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(",
        &name[..],
        b"ctorch\nTensor\n",
        args,
        b"}tR.",
    ]
    .concat();
    assert_eq!(floats(&file(&pickle, &[&counting(1)])), Ok(vec![0.0]));
}

proptest! {
    /// Any view, compared with its definition.
    #[test]
    fn torch_tensor_views_equal_their_definition(
        shape in proptest::collection::vec((1_i64..5, 0_i64..7), 0..5), offset in 0_i64..5, again: bool,
    ) {
        let (dims, strides): (Vec<i64>, Vec<i64>) = shape.iter().copied().unzip();
        let last: i64 = shape.iter().map(|(dim, stride)| (dim - 1) * stride).sum();
        let elements = offset + last + 1;
        let mut expected = vec![offset];
        for (dim, stride) in &shape {
            expected = expected.iter().flat_map(|at| (0..*dim).map(move |i| at + i * stride)).collect();
        }
        let expected: Vec<f32> = expected.into_iter().map(|at| at as f32).collect();
        let pickle = tensor_pickle("FloatStorage", elements, offset, &dims, &strides);
        let mut file = open(&file(&pickle, &[&counting(elements as usize)])).unwrap();
        let tensor = tensor_of(&file).unwrap();
        let mut values = vec![0.0; tensor.elements()];
        // Once it was checked, a record is read in part.
        for _ in 0..=usize::from(again) {
            file.floats(&tensor, &mut values).unwrap();
            prop_assert_eq!(&values, &expected);
        }
        prop_assert!(view(elements - 1, offset, &dims, &strides).is_err());
    }
}

/// A tensor of a golden file by the keys that lead to it.
fn golden_tensor(file: &TorchFile, path: &str) -> PickleNode {
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

#[test]
fn torch_files_of_pytorch_are_read_equal() {
    let expected: serde_json::Value =
        serde_json::from_str(include_str!("../../../../tests/it/golden/torch/expected.json")).unwrap();
    let goldens: [(&str, &[u8]); 4] = [
        (
            "types.pt",
            include_bytes!("../../../../tests/it/golden/torch/types.pt"),
        ),
        (
            "views.pt",
            include_bytes!("../../../../tests/it/golden/torch/views.pt"),
        ),
        (
            "protocol5.pt",
            include_bytes!("../../../../tests/it/golden/torch/protocol5.pt"),
        ),
        (
            "lightning.ckpt",
            include_bytes!("../../../../tests/it/golden/torch/lightning.ckpt"),
        ),
    ];
    for (name, bytes) in goldens {
        let mut file = open(bytes).unwrap();
        let uncalled: Vec<&str> = file
            .pickle()
            .uncalled()
            .iter()
            .map(|global| &*global.name)
            .collect();
        assert_eq!(serde_json::json!(uncalled), expected[name]["uncalled"], "{name}");
        let tensors = expected[name]["tensors"].as_object().unwrap();
        assert!(!tensors.is_empty());
        for (path, facts) in tensors {
            let node = golden_tensor(&file, path);
            let tensor = file.tensor(node).unwrap();
            assert_eq!(
                tensor.dtype.to_string(),
                facts["dtype"].as_str().unwrap(),
                "{name} {path}"
            );
            assert_eq!(serde_json::json!(tensor.dims), facts["dims"], "{name} {path}");
            let mut bytes = vec![0; tensor.elements() * tensor.dtype.width()];
            file.bytes(&tensor, &mut bytes).unwrap();
            let hex = bytes
                .iter()
                .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
            assert_eq!(hex, facts["hex"].as_str().unwrap(), "{name} {path}");
        }
    }
}

#[test]
fn torch_checkpoint_of_lightning_is_read_as_data() {
    let file = open(include_bytes!("../../../../tests/it/golden/torch/lightning.ckpt")).unwrap();
    let pickle = file.pickle();
    assert_eq!(
        pickle.find(&["global_step"]).and_then(|node| pickle.int(node)),
        Some(1000)
    );
    assert_eq!(
        pickle.find(&["ema", "decay"]).and_then(|node| pickle.float(node)),
        Some(0.9999)
    );
    let progress = [
        "loops",
        "fit_loop",
        "epoch_loop.batch_progress",
        "current",
        "completed",
    ];
    assert_eq!(
        pickle.find(&progress).and_then(|node| pickle.int(node)),
        Some(1000)
    );
    let group = pickle.elements(pickle.find(&["optimizer_states"]).unwrap())[0];
    let state = pickle.get_at(pickle.get(group, "state").unwrap(), 1).unwrap();
    assert!(pickle.is_tensor(pickle.get(state, "exp_avg").unwrap()));
    let config = pickle.find(&["hyper_parameters", "config"]).unwrap();
    assert_eq!(pickle.global(config), Some("__main__.Settings"));
    let length = pickle
        .get(pickle.object(config).unwrap().state.unwrap(), "length")
        .unwrap();
    assert_eq!(pickle.int(length), Some(1024));
    assert_eq!(
        pickle
            .find(&["hyper_parameters", "rate"])
            .and_then(|node| pickle.float(node)),
        Some(0.5)
    );
    let legacy = refused(include_bytes!("../../../../tests/it/golden/torch/legacy.pt"));
    assert!(legacy.contains("the format of PyTorch before 1.6"), "{legacy}");
}
