//! What the fuzz targets share.

use std::collections::BTreeMap;

use mdlm::data::read::records_of;
use mdlm::manifest::reading::Reading;
use mdlm::weights::torch::pickle::parse;
use mdlm::weights::torch::values::PickleValue;

/// Reads bytes as a file of this name, in every way that `settings` say: each ends in records or in an error of the
/// input that has a way out, and no record is longer than it may be.
pub fn read(bytes: &[u8], name: &str, settings: &[&str]) {
    for settings in settings {
        let mut reading: Reading = serde_json::from_str(settings).expect("settings");
        reading.longest_record = 1 << 16;
        let result = records_of(bytes.to_vec().into(), name, &reading, &mut |text, here| {
            assert!(text.len() <= 1 << 16 && !text.trim().is_empty());
            assert!(here.read <= bytes.len() as u64);
            Ok(())
        });
        if let Err(error) = result {
            assert_eq!(error.kind(), mdlm::error::Kind::Input, "{error}");
            assert!(error.hint_text().is_some(), "no hint: {error}");
        }
    }
}

/// Bytes of an element of a class of storages.
fn width(class: &str) -> u64 {
    let widths = [("Double", 8), ("Long", 8), ("BFloat16", 2), ("Half", 2), ("Short", 2), ("Float", 4), ("Int", 4)];
    widths.iter().find(|(name, _)| class.contains(name)).map_or(1, |(_, width)| *width)
}

/// Whether bytes are a pickle without the archive around it: protocol 2 and later begin so.
pub fn is_pickle(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x80])
}

/// Bytes of all storages of [`archive`] together.
const MOST_BYTES: u64 = 1 << 18;

/// A pickle in the archive that `torch.save` puts around it, with the storages that it names, of zeros. Changed bytes in an
/// archive only give it a wrong checksum: so changed pickles come into one here.
pub fn archive(bytes: &[u8]) -> Vec<u8> {
    let mut records = vec![
        ("a/data.pkl".to_owned(), bytes.to_vec()),
        ("a/byteorder".to_owned(), b"little".to_vec()),
        ("a/version".to_owned(), b"3\n".to_vec()),
    ];
    let mut storages = BTreeMap::new();
    let mut left = MOST_BYTES;
    if let Ok(pickle) = parse(bytes) {
        for node in pickle.walk(pickle.root()) {
            let &PickleValue::Storage { class, key, elements, .. } = pickle.value(node) else { continue };
            let (class, key) = (pickle.global(class).unwrap_or_default(), pickle.text(key).unwrap_or_default());
            let length = elements.saturating_mul(width(class));
            if length <= left && storages.insert(key.to_owned(), length).is_none() {
                left -= length;
            }
        }
    }
    records.extend(storages.into_iter().map(|(key, length)| (format!("a/data/{key}"), vec![0; length as usize])));
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in &records {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        let mut head = vec![0; 10];
        for number in [crc.sum(), bytes.len() as u32, bytes.len() as u32] {
            head.extend(number.to_le_bytes());
        }
        head.extend((name.len() as u32).to_le_bytes());
        let at = file.len() as u32;
        file.extend(b"PK\x03\x04");
        file.extend([&head, name.as_bytes(), bytes].concat());
        directory.extend(b"PK\x01\x02\0\0");
        directory.extend(&head);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (count, at) = (records.len() as u16, file.len() as u32);
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(at.to_le_bytes());
    file.extend([0; 2]);
    file
}

/// Lets the guards of the readers catch panics: libFuzzer's own hook ends the process at every panic, also at a caught
/// one. A panic that is not caught still ends it, without a message.
pub fn trust_guards() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| ())));
}
