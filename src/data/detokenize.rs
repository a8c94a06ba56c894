//! Tokenized spelling of the usual corpora → natural text.

use crate::manifest::source::Detokenizer;

/// The natural text of a record.
#[must_use]
pub fn detokenize(_by: Detokenizer, text: &str) -> String {
    text.to_owned()
}
