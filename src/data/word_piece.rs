//! WordPiece: a vocabulary whose pieces within a word have a prefix, cut as BERT does.

use serde_json::{Map, Value, json};

use crate::data::vocabulary::assemble;
use crate::error::Result;

/// The unknown token of a trained WordPiece, id 4.
pub(super) const UNKNOWN: &str = "[UNK]";
/// Prefix of a WordPiece that continues a word; BERT's.
pub(super) const CONTINUATION: &str = "##";
/// Longest word that WordPiece looks at; BERT's.
const MAX_WORD_CHARACTERS: usize = 100;

/// The tokenizer of a vocabulary, some of whose tokens are special.
///
/// # Errors
/// Internal error: the `tokenizers` library fails.
pub(super) fn word_piece(
    vocabulary: &Map<String, Value>,
    special: &[&str],
    lowercase: bool,
) -> Result<tokenizers::Tokenizer> {
    assemble(
        &json!({
            "normalizer": {
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                // Absent, it follows `lowercase`, as in BERT's own code.
                "strip_accents": null, "lowercase": lowercase,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "decoder": {"type": "WordPiece", "prefix": CONTINUATION, "cleanup": true},
            "model": {
                "type": "WordPiece", "unk_token": UNKNOWN, "continuing_subword_prefix": CONTINUATION,
                "max_input_chars_per_word": MAX_WORD_CHARACTERS, "vocab": vocabulary,
            },
        }),
        special,
    )
}
