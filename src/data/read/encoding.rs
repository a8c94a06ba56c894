//! Encodings that are not UTF-8, by the first bytes of a file.

use crate::error::{Error, Result};

/// An encoding of two or four bytes a unit, by the name that `iconv` has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide {
    /// The name.
    pub name: &'static str,
    /// A byte order mark stands before the text.
    pub marked: bool,
}

/// The encoding of a file's first bytes, where it is UTF-16 or UTF-32, with a byte order mark or without one.
#[must_use]
pub fn wide(head: &[u8]) -> Option<Wide> {
    let marked = |name| Some(Wide { name, marked: true });
    match head {
        [0xFF, 0xFE, 0, 0, ..] | [0, 0, 0xFE, 0xFF, ..] => return marked("UTF-32"),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => return marked("UTF-16"),
        _ => {}
    }
    let unmarked = |name| Some(Wide { name, marked: false });
    let is_text = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t' | '\u{C}');
    // Four bytes of anything else are not a character.
    let quads = |unit: fn([u8; 4]) -> u32| {
        let units = head
            .chunks_exact(4)
            .map(|quad| unit([quad[0], quad[1], quad[2], quad[3]]));
        head.len() >= 8 && units.map(char::from_u32).all(|c| c.is_some_and(is_text))
    };
    if quads(u32::from_le_bytes) {
        return unmarked("UTF-32LE");
    }
    if quads(u32::from_be_bytes) {
        return unmarked("UTF-32BE");
    }
    // The zeros of ASCII characters show where the high bytes are.
    let zeros = |place: usize| {
        head.iter()
            .skip(place)
            .step_by(2)
            .filter(|&&byte| byte == 0)
            .count()
    };
    let (even, odd, pairs) = (zeros(0), zeros(1), head.len() / 2);
    let (high, low) = (odd.max(even), odd.min(even));
    // UTF-8 may have zeros too, but hardly in every other place.
    let telling =
        high > low && pairs >= 2 && (low == 0 && high >= 2 && high * 2 > pairs || !starts_as_utf8(head));
    let little = if telling { odd > even } else { by_controls(head)? };
    let (name, unit): (_, fn([u8; 2]) -> u16) = if little {
        ("UTF-16LE", u16::from_le_bytes)
    } else {
        ("UTF-16BE", u16::from_be_bytes)
    };
    let units = head.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    let mut characters = char::decode_utf16(units).peekable();
    while let Some(c) = characters.next() {
        match c {
            Ok(c) if is_text(c) => {}
            // The head may end within a pair.
            Err(_) if characters.peek().is_none() => {}
            _ => return None,
        }
    }
    unmarked(name)
}

/// Whether a byte is a control character that text has no use for.
#[must_use]
pub fn is_control(byte: u8) -> bool {
    byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r' | b'\x0C')
}

/// Whether bytes that are UTF-8 look like UTF-16 instead, and then whether its units begin with their low bytes.
///
/// Cyrillic, Arabic, Devanagari and Thai in UTF-16 are valid UTF-8, with few zeros: those of spaces and line ends. But
/// their high bytes are nearly all the same, below that of a space, so that the UTF-8 is full of control characters.
fn by_controls(head: &[u8]) -> Option<bool> {
    let pairs = head.len() / 2;
    let controls = head.iter().filter(|&&byte| is_control(byte)).count();
    if !head.len().is_multiple_of(2)
        || pairs < 2
        || controls < 2
        || controls * 32 < head.len()
        || !starts_as_utf8(head)
    {
        return None;
    }
    // Of the pairs, those that the high bytes of one script have, and those of ASCII and of punctuation.
    let one_script = |place: usize| {
        let mut counts = [0_usize; 256];
        for pair in head.chunks_exact(2) {
            counts[usize::from(pair[place])] += 1;
        }
        // The others separate values or records in some UTF-8.
        let script = counts[0x03..=0x1B].iter().copied().max().unwrap_or(0);
        let of_script = script + counts[0];
        let all = of_script + counts[0x20];
        (script > 0 && of_script * 4 >= pairs * 3 && all * 10 >= pairs * 9).then_some(of_script)
    };
    match (one_script(1), one_script(0)) {
        (None, None) => None,
        (little, big) => Some(little >= big),
    }
}

/// Whether the bytes are UTF-8 but for a character that they cut off.
#[must_use]
pub fn starts_as_utf8(head: &[u8]) -> bool {
    match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    }
}

/// Refuses a file of text that is UTF-16 or UTF-32.
///
/// # Errors
/// The file begins with a byte order mark of UTF-16 or UTF-32, or looks like one of them without it.
pub fn check(head: &[u8]) -> Result<()> {
    let Some(Wide { name, marked }) = wide(head) else {
        return Ok(());
    };
    let message = if marked {
        format!("the file is {name}, not UTF-8: it begins with that byte order mark")
    } else {
        format!("the file looks like {name} without a byte order mark, not UTF-8")
    };
    Err(Error::input(message).hint(format!("convert it: `iconv -f {name} -t UTF-8 FILE > NEW`")))
}

/// What text that is not UTF-8 stands in: the way out is another one in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextContainer {
    /// A file of text.
    Text,
    /// A CSV or TSV file.
    Table,
    /// A file of JSON values. In text that was `escaped`, half of a surrogate pair is the writer's; elsewhere it may be
    /// the encoding's.
    Json {
        /// The file itself is UTF-8.
        escaped: bool,
    },
    /// A column of strings or bytes: the file is not text, and no program that converts text helps.
    Column,
}

/// How hints begin to name `invalid_utf8`, which a manifest has; they end with it.
pub const POLICY: &str = "state what to do with such records: ";

/// What to do about text that is not UTF-8.
#[must_use]
pub fn way_out(text: &[u8], holder: TextContainer) -> String {
    let policy = format!("or {POLICY}`\"invalid_utf8\": \"replace\"` or `\"skip\"`");
    if holder == TextContainer::Column && text.contains(&0) {
        return format!(
            "there are NUL bytes as well, so the column may not hold text at all: name another column; {policy}"
        );
    }
    if holder == TextContainer::Column {
        let encoding = if looks_like_windows_1252(text) {
            "cp1252"
        } else {
            "ENCODING"
        };
        return format!(
            "the column holds bytes that are not UTF-8: decode them where the file is written, in Python for example \
             `value.decode(\"{encoding}\")`, or name another column; {policy}"
        );
    }
    if text.contains(&0) {
        return format!(
            "there are NUL bytes as well, so this may not be text at all: `file FILE` says what it is; {policy}"
        );
    }
    let writer = match holder {
        TextContainer::Table => "save the table as UTF-8 (in Excel: `CSV UTF-8`), or ",
        TextContainer::Json { .. } => {
            "write it as UTF-8 (in Python: `open(FILE, \"w\", encoding=\"utf-8\")`), or "
        }
        TextContainer::Text | TextContainer::Column => "",
    };
    if looks_like_windows_1252(text) {
        format!("{writer}convert the file: `iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW`; {policy}")
    } else {
        format!(
            "{writer}find the file's encoding, for example with `file -i FILE`, and convert it: `iconv -f ENCODING \
             -t UTF-8 FILE > NEW`; {policy}"
        )
    }
}

/// What is wrong with text whose first `valid` bytes are UTF-8, where it is more than a wrong byte: a message and a hint.
#[must_use]
pub fn surrogate(text: &[u8], valid: usize, holder: TextContainer) -> Option<(String, &'static str)> {
    let [0xED, second @ 0xA0..=0xBF, third, rest @ ..] = text.get(valid..)? else {
        return None;
    };
    let unit = 0xD000 | u32::from(second & 0x3F) << 6 | u32::from(third & 0x3F);
    let pair = unit < 0xDC00 && matches!(rest, [0xED, 0xB0..=0xBF, ..]);
    Some(if pair && holder != (TextContainer::Json { escaped: true }) {
        (
            "a surrogate pair (0xED): the text is CESU-8, not UTF-8".to_owned(),
            "convert the file, in Python for example: `text.decode(\"utf-8\", \"surrogatepass\").encode(\"utf-16\", \
             \"surrogatepass\").decode(\"utf-16\")`; or state what to do with such records: `\"invalid_utf8\": \
             \"replace\"` or `\"skip\"`",
        )
    } else {
        (
            format!("half of a surrogate pair, \\u{unit:04x}"),
            "the writer cut a character in two; state what to do with such records: `\"invalid_utf8\": \"replace\"` or \
             `\"skip\"`",
        )
    })
}

/// The text with U+FFFD for every faulty sequence; half of a surrogate pair, three bytes, is one.
#[must_use]
pub fn lossy(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(chunk) = rest.utf8_chunks().next() {
        out.push_str(chunk.valid());
        let valid = chunk.valid().len();
        let faulty = match &rest[valid..] {
            [] => 0,
            [0xED, 0xA0..=0xBF, 0x80..=0xBF, ..] => 3,
            _ => chunk.invalid().len(),
        };
        if faulty > 0 {
            out.push(char::REPLACEMENT_CHARACTER);
        }
        rest = &rest[valid + faulty..];
    }
    out
}

/// Whether all bytes that are not ASCII stand alone, as letters and signs of WINDOWS-1252 do among ASCII, and are such.
///
/// In other encodings of a byte or two a character, words are of such bytes.
#[must_use]
pub fn looks_like_windows_1252(text: &[u8]) -> bool {
    let mut before = b' ';
    text.iter().all(|&byte| {
        let alone = before.is_ascii() || byte.is_ascii();
        before = byte;
        // Of the signs below the letters, those that are usual: Shift-JIS begins its kana with 0x81 to 0x83.
        alone && matches!(byte, 0..=0x80 | 0x85 | 0x8A | 0x8C | 0x8E | 0x91..=0x97 | 0x99 | 0x9A | 0x9C | 0x9E..)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, little: bool) -> Vec<u8> {
        let bytes = |unit: u16| {
            if little {
                unit.to_le_bytes()
            } else {
                unit.to_be_bytes()
            }
        };
        text.encode_utf16().flat_map(bytes).collect()
    }

    fn utf32(text: &str, little: bool) -> Vec<u8> {
        let bytes = |c: char| {
            if little {
                (c as u32).to_le_bytes()
            } else {
                (c as u32).to_be_bytes()
            }
        };
        text.chars().flat_map(bytes).collect()
    }

    #[test]
    fn wide_encodings_are_recognised() {
        let name = |bytes: &[u8]| wide(bytes).map(|wide| (wide.name, wide.marked));
        for text in [
            "hi\n",
            "one two three\n",
            "naïve café, 1.5 €\n",
            "ab\n日本語のテキスト\n",
            "x 😀 y\n",
        ] {
            assert_eq!(name(&utf16(text, true)), Some(("UTF-16LE", false)), "{text}");
            assert_eq!(name(&utf16(text, false)), Some(("UTF-16BE", false)), "{text}");
            assert_eq!(name(&utf32(text, true)), Some(("UTF-32LE", false)), "{text}");
            assert_eq!(name(&utf32(text, false)), Some(("UTF-32BE", false)), "{text}");
            let marked = format!("\u{FEFF}{text}");
            assert_eq!(name(&utf16(&marked, true)), Some(("UTF-16", true)), "{text}");
            assert_eq!(name(&utf16(&marked, false)), Some(("UTF-16", true)), "{text}");
            assert_eq!(name(&utf32(&marked, true)), Some(("UTF-32", true)), "{text}");
            assert_eq!(name(&utf32(&marked, false)), Some(("UTF-32", true)), "{text}");
            assert_eq!(name(text.as_bytes()), None, "{text}");
        }
        for bytes in [
            &b""[..],
            b"a",
            b"a\0b",
            b"nul \0 in a text\n",
            b"caf\xE9\n",
            b"\0\0\0\0",
            b"\xC3",
        ] {
            assert_eq!(name(bytes), None, "{bytes:?}");
        }
        assert_eq!(
            name(&utf16("日本語の、テキスト。\n次の行\n", true)),
            Some(("UTF-16LE", false))
        );
    }

    #[test]
    fn scripts_whose_utf16_is_valid_utf8_are_recognised() {
        let name = |bytes: &[u8]| wide(bytes).map(|wide| (wide.name, wide.marked));
        for text in [
            "Привет мир\n",
            "да\n",
            "Это первая строка — и “вторая”, 12.5 %\r\nи третья\n",
            "مرحبا بالعالم\n",
            "नमस्ते दुनिया\n",
            "สวัสดีชาวโลก",
            "สวัสดี\u{C}ชาวโลก\n",
        ] {
            for little in [true, false] {
                let expected = if little { "UTF-16LE" } else { "UTF-16BE" };
                let bytes = utf16(text, little);
                assert_eq!(name(&bytes), Some((expected, false)), "{text}");
                let long = utf16(&text.repeat(200), little);
                assert_eq!(name(&long[..512]), Some((expected, false)), "{text}");
            }
            assert_eq!(name(text.as_bytes()), None, "{text}");
        }
        for bytes in [
            &b"1\n0\n1\n1\n0\n"[..],
            b"1\t2\n3\t4\n",
            b"1\x012\x013\x014\x015\x016\x01",
            b"\x1B[1mbold\x1B[0m and \x1B[31mred\x1B[0m\n",
            b"a\x08_b\x08_c\x08_ d\n",
            b"one\0two\0three\0four\n",
            b"page one\n\x0Cpage two\n",
        ] {
            assert_eq!(name(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn invalid_utf8_sequences_are_replaced_once_each() {
        for (text, expected) in [
            (&b""[..], ""),
            (b"a", "a"),
            (b"a \xED\xA0\xBD b", "a \u{FFFD} b"),
            (b"\xED\xB8\x80", "\u{FFFD}"),
            (b"\xED\xA0\xBD\xED\xB8\x80x", "\u{FFFD}\u{FFFD}x"),
            (b"\xED\xA0", "\u{FFFD}\u{FFFD}"),
        ] {
            assert_eq!(lossy(text), expected, "{text:?}");
        }
        for text in [
            &b"tw\xFFo"[..],
            b"\xC3\xA9\xC3",
            b"\xF0\x9F\x98x\xE2\x82",
            b"\x80\x80\xED\x9F\xBF",
        ] {
            assert_eq!(lossy(text), String::from_utf8_lossy(text), "{text:?}");
        }
    }

    #[test]
    fn windows_1252_is_distinguished_from_encodings_of_other_scripts() {
        for text in [
            &b"caf\xE9 na\xEFve"[..],
            b"not \xFF fine",
            b"\x93quoted\x94 it\x92s 5 \x80",
        ] {
            assert!(looks_like_windows_1252(text), "{text:?}");
        }
        for text in [
            // Shift-JIS, GBK, KOI8-R, and UTF-8 with a wrong byte.
            &b"\x83e\x83X\x83g"[..],
            b"\x93\xFA\x96{\x8C\xEA",
            b"\xC4\xE3\xBA\xC3",
            b"\xF0\xD2\xC9\xD7\xC5\xD4",
            b"tw\xC3\xA9 \xFFo",
        ] {
            assert!(!looks_like_windows_1252(text), "{text:?}");
        }
    }

    #[test]
    fn surrogate_without_its_half_is_named() {
        let words = |text: &[u8], escaped| {
            surrogate(text, 1, TextContainer::Json { escaped }).map(|(message, _)| message)
        };
        assert_eq!(
            words(b"a\xED\xA0\xBD", true).unwrap(),
            "half of a surrogate pair, \\ud83d"
        );
        assert_eq!(
            words(b"a\xED\xB8\x80b", false).unwrap(),
            "half of a surrogate pair, \\ude00"
        );
        assert!(
            words(b"a\xED\xA0\xBD\xED\xB8\x80", false)
                .unwrap()
                .contains("CESU-8")
        );
        assert_eq!(words(b"a\xFF", false), None);
        assert_eq!(words(b"a\xED\xA0", false), None);
    }
}
