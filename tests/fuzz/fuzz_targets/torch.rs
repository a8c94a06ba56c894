#![no_main]
use std::io::Cursor;

use mdlm::weights::torch::pickle::parse;
use mdlm::weights::torch::tensor::TorchFile;
use mdlm_fuzz::{archive, is_pickle};

// Bytes as an archive of `torch.save`, or as its pickle, alone and in an archive: values that can be printed and tensors that can
// be read, or an error of the input.
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if is_pickle(bytes)
        && let Ok(pickle) = parse(bytes)
    {
        assert!(pickle.describe(pickle.root(), 200).chars().count() <= 201);
    }
    let file = if is_pickle(bytes) { archive(bytes) } else { bytes.to_vec() };
    let mut file = match TorchFile::of(Cursor::new(file)) {
        Ok(file) => file,
        Err(error) => {
            assert_eq!(error.kind(), mdlm::error::Kind::Input, "{error}");
            assert!(error.hint_text().is_some(), "no hint: {error}");
            return;
        }
    };
    let nodes: Vec<_> = file.pickle().walk(file.pickle().root()).collect();
    for node in nodes {
        let Ok(tensor) = file.tensor(node) else { continue };
        if tensor.elements() < 10_000 {
            let _ = file.bytes(&tensor, &mut vec![0; tensor.elements() * tensor.dtype.width()]);
            let _ = file.floats(&tensor, &mut vec![0.0; tensor.elements()]);
            let _ = file.integers(&tensor, &mut vec![0; tensor.elements()]);
        }
    }
});
