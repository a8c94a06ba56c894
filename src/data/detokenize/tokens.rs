//! Tokens of a line: what stands between spaces.

/// What contractions leave after their apostrophe.
const SUFFIXES: [&[u8]; 7] = [b"s", b"t", b"re", b"ve", b"ll", b"d", b"m"];

/// Where a token stands in its line.
#[derive(Clone, Copy)]
pub(super) struct Token {
    pub start: usize,
    pub end: usize,
}

/// The first token of a line at or after a place.
#[inline]
pub(super) fn token_from(line: &str, place: usize) -> Option<Token> {
    let bytes = line.as_bytes();
    let start = place + bytes[place..].iter().position(|&byte| byte != b' ')?;
    let length = bytes[start..].iter().position(|&byte| byte == b' ');
    Some(Token {
        start,
        end: length.map_or(bytes.len(), |length| start + length),
    })
}

/// Whether bytes are what a contraction leaves after its apostrophe.
pub(super) fn is_suffix(bytes: &[u8]) -> bool {
    bytes.len() <= 2 && SUFFIXES.iter().any(|suffix| bytes.eq_ignore_ascii_case(suffix))
}
