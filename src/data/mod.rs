//! Records, tokens and rows on disk.
//!
//! | artifact | files |
//! |---|---|
//! | source | `records-NNNNN.arrow` (column `text`, large UTF-8), `source.json` ([`SourceInfo`]), the grammar where synthetic |
//! | tokenize | `tokens-NNNNN.arrow` (columns `tokens` list of u32, `bytes` u32, `hash` u64), `tokenizer.json`, `tokens.json` ([`TokensInfo`]) |
//! | pack | `train/NNNNN.arrow` or `.parquet`, `validation/…`, `tokenizer.json`, `rows.json` ([`RowsInfo`]) |

use serde::{Deserialize, Serialize};

/// `source.json`: what a source artifact holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Records.
    pub records: u64,
    /// Bytes of UTF-8 text in all records, separators excluded.
    pub bytes: u64,
    /// File name of the grammar below the artifact, for a synthetic source.
    pub grammar: Option<String>,
    /// Exact entropy of the grammar in bits per byte of text, one separator byte a record included.
    pub entropy_bits_per_byte: Option<f64>,
    /// Exact entropy of a record, in nats.
    pub entropy_nats_per_record: Option<f64>,
}

/// Ids of the tokens with special roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecialIds {
    /// Begins a row.
    pub bos: u32,
    /// Ends a document.
    pub eos: u32,
    /// Fills up a padded row.
    pub pad: u32,
    /// The absorbing state.
    pub mask: u32,
}

/// `tokens.json`: what a tokenize artifact holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokensInfo {
    /// Tokens in the vocabulary, the mask included: ids are below this.
    pub vocabulary: u32,
    /// Special roles.
    pub special: SpecialIds,
    /// BLAKE3 of `tokenizer.json`, in hex.
    pub tokenizer_digest: String,
    /// Records.
    pub records: u64,
    /// Tokens in all records, none of them special.
    pub tokens: u64,
    /// Bytes of text in all records.
    pub bytes: u64,
    /// Unknown tokens among them.
    pub unknown: u64,
}

/// `rows.json`: what a pack artifact holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowsInfo {
    /// L: tokens a row.
    pub length: u32,
    /// Whether documents were joined and cut (`true`) or stand one a row (`false`).
    pub wrap: bool,
    /// Tokens in the vocabulary, the mask included.
    pub vocabulary: u32,
    /// Special roles.
    pub special: SpecialIds,
    /// BLAKE3 of `tokenizer.json`, in hex.
    pub tokenizer_digest: String,
    /// The `train` split.
    pub train: SplitInfo,
    /// The `validation` split.
    pub validation: SplitInfo,
}

/// Counts of one split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitInfo {
    /// Rows.
    pub rows: u64,
    /// Records that fell to the split.
    pub records: u64,
    /// Bytes of those records, one separator byte a record included.
    pub bytes: u64,
    /// Tokens of those records, one EOS a record included.
    pub tokens: u64,
    /// Tokens of those that are in rows (the dropped tail and truncation excluded).
    pub kept_tokens: u64,
    /// Positions that count in a loss: all but padding.
    pub counted: u64,
    /// Shard files in order, relative to the artifact.
    pub shards: Vec<String>,
}

impl SplitInfo {
    /// Bytes of text per counted position: turns nats per counted position into bits per byte.
    /// The text of dropped tokens is left out in proportion.
    #[must_use]
    pub fn bytes_per_position(&self) -> f64 {
        self.bytes as f64 * (self.kept_tokens as f64 / self.tokens as f64) / self.counted as f64
    }
}
