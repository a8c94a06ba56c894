#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = mdlm::manifest::Manifest::from_bytes("a.json", bytes.to_vec(), &[], mdlm::shapes::SHAPES);
});
