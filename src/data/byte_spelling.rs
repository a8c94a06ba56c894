//! How a byte-level vocabulary spells bytes: a character each (GPT-2's `bytes_to_unicode`).

/// Bytes that are visible as Latin-1 and spell themselves.
const fn is_visible(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)
}

/// The character that spells each byte in a byte-level vocabulary: itself where it is
/// visible, else the next from U+0100 on.
pub(super) fn spelling() -> [char; 256] {
    let mut hidden = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        byte if is_visible(byte) => char::from(byte),
        _ => hidden.next().unwrap_or_default(),
    })
}

/// The byte that a character spells in a byte-level vocabulary.
pub(super) fn byte_of(character: char) -> Option<u8> {
    /// The bytes that are not visible.
    const HIDDEN: [u8; 68] = hidden();
    match u8::try_from(character) {
        Ok(byte) => is_visible(byte).then_some(byte),
        Err(_) => HIDDEN.get(character as usize - 0x100).copied(),
    }
}

const fn hidden() -> [u8; 68] {
    let mut bytes = [0; 68];
    let (mut byte, mut count) = (0, 0);
    while byte < 256 {
        if !is_visible(byte as u8) {
            bytes[count] = byte as u8;
            count += 1;
        }
        byte += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    #[test]
    fn bytes_are_spelled_as_in_the_library() {
        let spelt = spelling();
        let mut sorted = spelt.to_vec();
        sorted.sort_unstable();
        let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
        alphabet.sort_unstable();
        assert_eq!(sorted, alphabet);
        for (byte, character) in (0..=255).zip(spelt) {
            assert_eq!(byte_of(character), Some(byte));
        }
        for character in [' ', '\u{ad}', '\u{144}', '\u{10ffff}'] {
            assert_eq!(byte_of(character), None);
        }
    }
}
