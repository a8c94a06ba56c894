//! Words as perplexities per word count them: what lies between white space.
//!
//! The published perplexities on Penn Treebank and WikiText are per word of the corpora's files, whose spelling sets marks
//! apart by spaces: a source that counts words does so before a detokenizer joins them. The ends of lines are no words here;
//! figures that count one for each line (`<eos>`) have more words and lower perplexities.

/// Bytes of which at most 255 begin a word.
const WORDS_AT_ONCE: usize = 256;

/// How many words a text has: runs of anything but ASCII white space.
#[must_use]
pub fn words_in(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let first = bytes.first().map_or(0, |&byte| u64::from(!is_space(byte)));
    let begins = |(&before, &after): (&u8, &u8)| u8::from(is_space(before) & !is_space(after));
    // In pieces whose counts fit a byte, so that many bytes are counted at once.
    let later: u64 = bytes
        .chunks(WORDS_AT_ONCE)
        .zip(bytes.get(1..).unwrap_or_default().chunks(WORDS_AT_ONCE))
        .map(|(befores, afters)| u64::from(befores.iter().zip(afters).map(begins).sum::<u8>()))
        .sum();
    first + later
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lie_between_white_space() {
        for text in [
            "",
            " ",
            "a",
            " a",
            "a ",
            "one two\n\tthree",
            "é\u{a0}b c",
            "\r\n x\u{b}y\u{c}z ",
        ] {
            let expected = text.split(|c: char| matches!(c, ' ' | '\t'..='\r'));
            let expected = expected.filter(|word| !word.is_empty()).count();
            assert_eq!(words_in(text), expected as u64, "{text:?}");
        }
        assert_eq!(words_in(&" ab".repeat(100_000)), 100_000);
    }
}
