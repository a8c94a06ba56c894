//! Cuts text into chunks that a tokenizer treats one by one: its ids of a text are those of the chunks, one after another.
//!
//! Natural text repeats its words, so what is done once for each chunk is done for a few per cent of the text alone:
//! [`crate::data::encoder`] looks ids up, [`crate::data::words::WordCutter`] counts chunks before it cuts them into
//! words. Both rest on the cuts being exact, which they are because a text is only cut between two characters where
//! the class of either is certain and the tokenizer is known not to look across:
//!
//! * **Byte-level** (GPT-2's pattern `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`,
//!   nothing or lower-casing before it). No alternative goes on from a letter, a digit or another mark into a character
//!   of another class, but for the apostrophe before a letter: such a place ends a match, and what precedes it decides
//!   nothing about what follows. Nor does any go on into white space from anything but white space; and the pattern's one
//!   look ahead is from white space, which is never cut from what follows it.
//! * **BERT** (its normalizer and its pre-tokenizer). Every step but the canonical decomposition goes character by
//!   character, white space separates words, and punctuation and Chinese characters are words of their own. Decomposition
//!   reorders marks, but none across a character of these classes.
//!
//! Whatever is not certain, is not cut: the tables of characters beyond ASCII need not be complete, only right. That they
//! are is tested against `tokenizers` itself, character by character.

use std::ops::Range;

use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

/// Where a tokenizer's text may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cutter {
    /// GPT-2's pattern.
    ByteLevel,
    /// BERT's words.
    Bert {
        /// Whether Chinese characters are words of their own.
        chinese: bool,
    },
}

/// What is certain about a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// White space.
    Space,
    /// A letter, and after lower-casing still one.
    Letter,
    /// A digit.
    Digit,
    /// Neither white space nor letter nor number.
    Mark,
    /// The apostrophe `'`.
    Apostrophe,
    /// A Chinese character (a letter, too).
    Chinese,
    /// Anything.
    Unknown,
}

use Class::{Apostrophe, Chinese, Digit, Letter, Mark, Space, Unknown};

const ASCII: [Class; 128] = ascii();

const fn ascii() -> [Class; 128] {
    let mut table = [Mark; 128];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = match byte as u8 {
            b'\t'..=b'\r' | b' ' => Space,
            b'a'..=b'z' | b'A'..=b'Z' => Letter,
            b'0'..=b'9' => Digit,
            b'\'' => Apostrophe,
            _ => Mark,
        };
        byte += 1;
    }
    table
}

/// The class of a character beyond ASCII.
fn beyond_ascii(character: char) -> Class {
    match character {
        // İ, whose lower case is two characters, and × and ÷ are left out.
        '\u{C0}'..='\u{D6}'
        | '\u{D8}'..='\u{F6}'
        | '\u{F8}'..='\u{12F}'
        | '\u{131}'..='\u{24F}' // Latin
        | '\u{391}'..='\u{3A1}'
        | '\u{3A3}'..='\u{3CE}' // Greek
        | '\u{400}'..='\u{481}'
        | '\u{48A}'..='\u{52F}' // Cyrillic
        | '\u{5D0}'..='\u{5EA}' // Hebrew
        | '\u{620}'..='\u{64A}' // Arabic
        | '\u{AC00}'..='\u{D7A3}' => Letter, // Hangul
        '\u{4E00}'..='\u{9FA5}' => Chinese,
        // Dashes, quotation marks, bullets, ellipsis: all of them punctuation.
        '\u{2010}'..='\u{2027}' => Mark,
        _ => Unknown,
    }
}

/// The class of the character at a byte of the text, and its bytes.
#[inline(always)]
fn class(text: &str, at: usize) -> (Class, usize) {
    let byte = text.as_bytes()[at];
    if byte < 128 {
        return (ASCII[byte as usize], 1);
    }
    wide_class(text, at)
}

/// [`class`] beyond ASCII; not inlined, so that what is usual stays short.
#[inline(never)]
fn wide_class(text: &str, at: usize) -> (Class, usize) {
    text[at..].chars().next().map_or((Unknown, 1), |character| {
        (beyond_ascii(character), character.len_utf8())
    })
}

impl Cutter {
    /// Where the text of a tokenizer may be cut; nothing for a tokenizer that is not known not to look across.
    #[must_use]
    pub fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let spelt = |token: &tokenizers::AddedToken| !token.special;
        if !tokenizer.get_encode_special_tokens()
            || tokenizer.get_added_tokens_decoder().values().any(spelt)
            || matches!(tokenizer.get_model(), ModelWrapper::BPE(model) if model.dropout.is_some())
        {
            return None;
        }
        match (tokenizer.get_normalizer(), tokenizer.get_pre_tokenizer()?) {
            (None | Some(NormalizerWrapper::Lowercase(_)), PreTokenizerWrapper::ByteLevel(bytes))
                if bytes.use_regex && !bytes.add_prefix_space =>
            {
                Some(Self::ByteLevel)
            }
            (Some(NormalizerWrapper::BertNormalizer(bert)), PreTokenizerWrapper::BertPreTokenizer(_)) => {
                Some(Self::Bert {
                    chinese: bert.handle_chinese_chars,
                })
            }
            _ => None,
        }
    }

    /// The first chunk of the text at or after a byte (the end of the chunk before); nothing when there is no more.
    #[inline(always)]
    #[must_use]
    pub fn next(self, text: &str, at: usize) -> Option<Range<usize>> {
        match self {
            Self::ByteLevel => (at < text.len()).then(|| at..byte_level_end(text, at)),
            Self::Bert { chinese } => bert_next(text, at, chinese),
        }
    }
}

/// How many bytes from `at` on are of a kind: eight at a time, so that a processor need not guess how long a word is.
/// `eight` sets the high bit of those among eight that are, `one` decides it for a single one.
#[inline(always)]
fn run(bytes: &[u8], at: usize, eight: impl Fn(u64) -> u64, one: impl Fn(&u8) -> bool) -> usize {
    let mut end = at;
    while let Some(&next) = bytes.get(end..).and_then(<[u8]>::first_chunk) {
        let others = !eight(u64::from_le_bytes(next)) & HIGH;
        if others != 0 {
            return end + others.trailing_zeros() as usize / 8 - at;
        }
        end += 8;
    }
    end + bytes[end..].iter().take_while(|byte| one(byte)).count() - at
}

/// The high bit of each of eight bytes.
const HIGH: u64 = 0x8080_8080_8080_8080;

/// A byte, eight times.
const fn repeated(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// The high bit of those of eight bytes that lie between two of ASCII; `bytes` have no high bits, so that nothing is
/// carried from one to the next.
#[inline(always)]
fn between(bytes: u64, first: u8, last: u8) -> u64 {
    (bytes + repeated(0x80 - first)) & !(bytes + repeated(0x7F - last))
}

#[inline(always)]
fn ascii_letters(bytes: u64) -> u64 {
    let lower = (bytes & !HIGH) | repeated(0x20);
    between(lower, b'a', b'z') & !bytes
}

#[inline(always)]
fn ascii_words(bytes: u64) -> u64 {
    ascii_letters(bytes) | between(bytes & !HIGH, b'0', b'9') & !bytes
}

/// The end of the byte-level chunk that begins at `start`.
#[inline(always)]
fn byte_level_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let (mut before, width) = class(text, start);
    let mut at = start + width;
    loop {
        if before == Letter {
            // Most of a text.
            at += run(bytes, at, ascii_letters, u8::is_ascii_alphabetic);
        }
        if at == bytes.len() {
            return at;
        }
        let (after, width) = class(text, at);
        let cut = match (before, after) {
            (Space | Unknown, _)
            | (_, Unknown)
            | (Mark, Apostrophe)
            | (Apostrophe, Mark | Letter | Chinese)
            | (Chinese, Letter)
            | (Letter, Chinese) => false,
            (before, after) => before != after,
        };
        if cut {
            return at;
        }
        before = after;
        at += width;
    }
}

/// The byte-level chunks of a text, one after another: many ends at once where the text is ASCII.
pub struct ByteLevelChunks<'a> {
    text: &'a str,
    /// Where the next chunk begins.
    at: usize,
    /// Before here all ends are known: those of chunks gone by, and `ends`.
    known: usize,
    /// Ends of the next chunks: bits of the bytes from `base` on.
    ends: u64,
    base: usize,
}

/// Bytes that are looked at together.
const BLOCK: usize = 64;

impl<'a> ByteLevelChunks<'a> {
    /// The chunks of a text from its beginning.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            known: 1,
            ends: 0,
            base: 0,
        }
    }

    /// Looks for ends in the next bytes; false if they are not all ASCII or there are none.
    #[inline(always)]
    fn look(&mut self) -> bool {
        let bytes = self.text.as_bytes();
        let from = self.known - 1;
        let Some([before, after]) = bytes.get(from..from + 2) else {
            return false;
        };
        if !(before | after).is_ascii() {
            return false;
        }
        // A block that reaches back rather than beyond the end.
        let base = from.min(bytes.len().saturating_sub(BLOCK));
        let mut short = [0; BLOCK];
        let block = if let Some(block) = bytes.get(base..).and_then(<[u8]>::first_chunk) {
            block
        } else {
            short[..bytes.len()].copy_from_slice(bytes);
            &short
        };
        let first = from - base;
        // The bytes of the block up to the first from here on that is not ASCII.
        let ascii = if block.is_ascii() {
            BLOCK
        } else {
            first + block[first..].iter().take_while(|byte| byte.is_ascii()).count()
        };
        let ascii = ascii.min(bytes.len() - base);
        self.base = base;
        self.known = base + ascii;
        // Not those that are known, and not that after the last byte of ASCII.
        self.ends = ascii_ends(block) & (u64::MAX << first << 1) & (u64::MAX >> (BLOCK - ascii));
        true
    }
}

impl Iterator for ByteLevelChunks<'_> {
    type Item = Range<usize>;

    #[inline(always)]
    fn next(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        while self.ends == 0 {
            if self.look() {
                continue;
            }
            if start == self.text.len() {
                return None;
            }
            self.at = byte_level_end(self.text, start);
            self.known = self.at + 1;
            return Some(start..self.at);
        }
        self.at = self.base + self.ends.trailing_zeros() as usize;
        self.ends &= self.ends - 1;
        Some(start..self.at)
    }
}

/// The ends of byte-level chunks before each byte of a block but the first, as [`byte_level_end`] finds them between bytes
/// of ASCII. Bytes are classified by arithmetic alone, so that a processor does it for many at a time.
#[inline(always)]
fn ascii_ends(block: &[u8; BLOCK]) -> u64 {
    const LETTER: u8 = 1;
    const DIGIT: u8 = 2;
    const SPACE: u8 = 4;
    const APOSTROPHE: u8 = 8;
    const MARK: u8 = 16;
    let mut classes = [0; BLOCK + 1];
    for (class, &byte) in classes.iter_mut().zip(block) {
        let letter = u8::from((byte | 0x20).wrapping_sub(b'a') < 26) * LETTER;
        let digit = u8::from(byte.wrapping_sub(b'0') < 10) * DIGIT;
        let space = u8::from((byte == b' ') | (byte.wrapping_sub(b'\t') < 5)) * SPACE;
        let apostrophe = u8::from(byte == b'\'') * APOSTROPHE;
        let known = letter | digit | space | apostrophe;
        *class = known | (u8::from(known == 0) * MARK);
    }
    let mut ends = [0; BLOCK];
    for (at, end) in ends.iter_mut().enumerate() {
        let (before, after) = (classes[at], classes[at + 1]);
        // After an apostrophe letters and marks go on, after a mark the apostrophe does.
        let apostrophe = (before & APOSTROPHE) / APOSTROPHE;
        let mark = (before & MARK) / MARK;
        let goes_on = before | (apostrophe * (LETTER | MARK)) | (mark * APOSTROPHE);
        *end = u8::from((goes_on & after) | (before & SPACE) == 0);
    }
    // The lowest bits of eight bytes side by side: bit 8 k moves to bit 56 + k.
    let bits = |eight: &[u8; 8]| u64::from_le_bytes(*eight).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    let all = ends
        .as_chunks()
        .0
        .iter()
        .rev()
        .fold(0, |all, eight| all << 8 | bits(eight));
    all << 1
}

/// Whether the byte begins a chunk of BERT's by itself: ASCII's punctuation.
fn is_punctuation(byte: u8) -> bool {
    byte.is_ascii_punctuation()
}

/// What BERT's normalizer makes a space of; the other white space of ASCII it takes out, as control characters.
fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn bert_next(text: &str, at: usize, chinese: bool) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let start = at + bytes[at..].iter().position(|&byte| !is_separator(byte))?;
    // The width of a character that is a chunk of its own.
    let alone = |at: usize| {
        let byte = bytes[at];
        if byte < 128 {
            return is_punctuation(byte).then_some(1);
        }
        let (class, width) = class(text, at);
        (class == Mark || class == Chinese && chinese).then_some(width)
    };
    if let Some(width) = alone(start) {
        return Some(start..start + width);
    }
    let mut end = start + 1;
    while end < bytes.len() {
        end += run(bytes, end, ascii_words, u8::is_ascii_alphanumeric);
        if end == bytes.len() {
            break;
        }
        let byte = bytes[end];
        let stop = if byte < 128 {
            is_separator(byte) || is_punctuation(byte)
        } else {
            // Within a character nothing is cut.
            byte >= 0xC0 && alone(end).is_some()
        };
        if stop {
            break;
        }
        end += 1;
    }
    Some(start..end)
}

/// Whether a byte-level chunk is one word of GPT-2's pattern for certain: an optional space and characters of one class.
#[must_use]
pub fn is_word(chunk: &str) -> bool {
    let rest = chunk.strip_prefix(' ').unwrap_or(chunk);
    let kind = |at| match class(rest, at).0 {
        Apostrophe => Mark,
        Chinese => Letter,
        class => class,
    };
    if rest.is_empty() || matches!(kind(0), Space | Unknown) {
        return false;
    }
    let first = kind(0);
    rest.char_indices().all(|(at, _)| kind(at) == first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    fn pieces(cutter: &impl PreTokenizer, text: &str) -> usize {
        let mut text = PreTokenizedString::from(text);
        cutter.pre_tokenize(&mut text).unwrap();
        text.get_splits(OffsetReferential::Original, OffsetType::Byte)
            .len()
    }

    /// What the tables say of every character, `tokenizers` does with it.
    #[test]
    fn chunks_classes_of_characters_are_those_of_the_library() {
        let bytes = ByteLevel::new(false, true, true);
        let mut certain = 0;
        for character in '\0'..=char::MAX {
            let mut buffer = [0; 4];
            let text: &str = character.encode_utf8(&mut buffer);
            let (class, width) = class(text, 0);
            assert_eq!(width, text.len());
            let lower: String = character.to_lowercase().collect();
            let joins = |with: &str| {
                [text, lower.as_str()]
                    .iter()
                    .all(|text| pieces(&bytes, &format!("{with}{text}{text}")) == 1)
            };
            certain += usize::from(class != Unknown);
            let right = match class {
                Letter | Chinese => joins("a"),
                Digit => joins("1"),
                Mark | Apostrophe => joins("!"),
                Space => joins("\n\n"),
                Unknown => continue,
            };
            assert!(right, "{character:?} is no {class:?}");
            let alone = match class {
                Mark if character.is_ascii() => character.is_ascii_punctuation(),
                Mark | Apostrophe | Chinese => true,
                Letter | Digit | Space | Unknown => false,
            };
            let isolated = pieces(&BertPreTokenizer, &format!("a{text}b")) == 3;
            // The normalizer sees to Chinese characters.
            assert!(
                isolated == alone || class == Space || class == Chinese,
                "{character:?}"
            );
        }
        assert!(certain > 30_000, "{certain}");
    }

    #[test]
    fn chunks_classes_of_eight_bytes_are_those_of_each_byte() {
        for byte in 0..=255 {
            for at in 0..8 {
                let mut eight = *b"a1 \xc3Z[`{";
                eight[at] = byte;
                let number = u64::from_le_bytes(eight);
                let high = |is: fn(&u8) -> bool| eight.map(|byte| u8::from(is(&byte)) << 7);
                let found = |bits: u64| (bits & HIGH).to_le_bytes();
                assert_eq!(
                    found(ascii_letters(number)),
                    high(u8::is_ascii_alphabetic),
                    "{eight:?}"
                );
                assert_eq!(
                    found(ascii_words(number)),
                    high(u8::is_ascii_alphanumeric),
                    "{eight:?}"
                );
            }
        }
        let text = b"abcdefghijklmnopqrs1tuvwxyz";
        for start in 0..text.len() {
            let expected = text[start..]
                .iter()
                .take_while(|byte| byte.is_ascii_alphabetic())
                .count();
            assert_eq!(run(text, start, ascii_letters, u8::is_ascii_alphabetic), expected);
        }
    }

    fn chunks(cutter: Cutter, text: &str) -> Vec<&str> {
        let mut all = Vec::new();
        let mut at = 0;
        while let Some(chunk) = cutter.next(text, at) {
            at = chunk.end;
            all.push(&text[chunk]);
        }
        all
    }

    #[test]
    fn chunks_of_text_by_byte_level_and_words() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("", &[], &[]),
            (" ", &[" "], &[]),
            (
                "It's 5 o'clock.",
                &["It", "'s", " 5", " o", "'clock", "."],
                &["It", "'", "s", "5", "o", "'", "clock", "."],
            ),
            ("a  b\n\nc ", &["a", "  b", "\n\nc", " "], &["a", "b", "c"]),
            (
                "x1--'re!'s",
                &["x", "1", "--'re", "!'s"],
                &["x1", "-", "-", "'", "re", "!", "'", "s"],
            ),
            ("Café—été", &["Café", "—", "été"], &["Café", "—", "été"]),
            // Not known for certain, hence not cut.
            ("a\u{a0} b", &["a\u{a0} b"], &["a\u{a0}", "b"]),
            ("中文, 中", &["中文", ",", " 中"], &["中", "文", ",", "中"]),
            ("e\u{301}x", &["e\u{301}x"], &["e\u{301}x"]),
        ];
        for (text, byte_level, bert) in cases {
            assert_eq!(chunks(Cutter::ByteLevel, text), *byte_level, "{text:?}");
            assert_eq!(chunks(Cutter::Bert { chinese: true }, text), *bert, "{text:?}");
        }
        assert_eq!(chunks(Cutter::Bert { chinese: false }, "a中文"), ["a中文"]);
    }

    fn same_chunks(text: &str) {
        let quick: Vec<&str> = ByteLevelChunks::new(text).map(|chunk| &text[chunk]).collect();
        assert_eq!(quick, chunks(Cutter::ByteLevel, text), "{text:?}");
    }

    #[test]
    fn chunks_by_blocks_end_where_those_one_by_one_do() {
        // Every two characters of ASCII beside each other, at every place of a block, and texts of every length.
        let all: Vec<char> = (0..128).map(char::from).collect();
        let pairs: String = all
            .iter()
            .flat_map(|&a| all.iter().flat_map(move |&b| [a, b]))
            .collect();
        same_chunks(&pairs);
        let text = "It's 5 o'clock, \t\tisn't it?! (x1y2) ''a''\r\n\n A long tail of words without end";
        for start in 0..text.len() {
            for length in [0, 1, 2, 62, 63, 64, 65, 66, 127, 128, 129] {
                let text = text.repeat(4);
                same_chunks(&text[start..start + length]);
                // One character that is not ASCII, wherever it may be.
                let mut strange = text[start..start + length].to_owned();
                strange.insert(length / 2, ['é', '—', '中', '\u{a0}'][start % 4]);
                same_chunks(&strange);
                same_chunks(&format!("{strange}é"));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn chunks_of_any_text_end_where_those_one_by_one_do(text in "[a-zA-Z0-9 '.,!é—中\u{a0}\n\t\u{0}-\u{7f}]{0,300}") {
            same_chunks(&text);
        }
    }

    #[test]
    fn chunks_that_are_words_are_distinguished() {
        for word in ["a", " a", "été", " 12", " —", "--'", " '", "中文x"] {
            assert!(is_word(word), "{word:?}");
        }
        for other in [
            "", " ", "  a", "\na", "a1", "'s", "!a", "\u{a0}", "e\u{301}", "a ",
        ] {
            assert!(!is_word(other), "{other:?}");
        }
    }
}
