//! What the fuzz targets share.

use mdlm::data::read::records_of;
use mdlm::manifest::reading::Reading;

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

/// Lets the guards of the readers catch panics: libFuzzer's own hook ends the process at every panic, also at a caught
/// one. A panic that is not caught still ends it, without a message.
pub fn trust_guards() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| ())));
}
