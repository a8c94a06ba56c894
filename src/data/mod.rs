//! Records, tokens and rows on disk.
//!
//! | artifact | files |
//! |---|---|
//! | source | `records-NNNNN.arrow` (column `text`, large UTF-8; `words` u32 where they are counted), `source.json` ([`SourceInfo`]), the grammar if the text is synthetic |
//! | tokenize | `tokens-NNNNN.arrow` (columns `tokens` list of u16 or u32, `bytes` u32, `hash` u64; `words` u32 where the source counts them), `tokenizer.json`, `tokens.json` ([`TokensInfo`]) |
//! | pack | `train/NNNNN.arrow` or `.parquet`, `validation/…`, `tokenizer.json`, `rows.json` ([`RowsInfo`]) |

mod byte_spelling;
pub mod chunks;
pub mod columns;
pub mod detokenize;
pub mod encoder;
pub mod fetch;
pub mod files;
mod gpt2;
pub mod grammar;
mod literals;
pub mod loss;
mod mapping;
mod merges;
pub mod permutation;
pub mod read;
pub mod records;
pub mod rows;
pub mod select;
pub mod spelling;
pub mod tokenizer;
pub mod tokens;
mod vocabulary;
pub mod word_count;
mod word_piece;
pub mod words;

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Kind, Result, Wrap as _};
use crate::manifest::{Scored, Split, Tail};

/// File name of [`SourceInfo`].
pub const SOURCE_INFO: &str = "source.json";
/// File name of [`TokensInfo`].
pub const TOKENS_INFO: &str = "tokens.json";
/// File name of [`RowsInfo`].
pub const ROWS_INFO: &str = "rows.json";
/// File name of a tokenizer, in Hugging Face's format.
pub const TOKENIZER: &str = "tokenizer.json";

/// `source.json`: what a source artifact holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// Records.
    pub records: u64,
    /// Bytes of UTF-8 text in all records, separators excluded.
    pub bytes: u64,
    /// Words in all records before they were detokenized ([`word_count`]), where they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<u64>,
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

/// The tokens of the four roles and how each was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// Begins a row.
    pub bos: Role,
    /// Ends a document.
    pub eos: Role,
    /// Fills up a padded row.
    pub pad: Role,
    /// The absorbing state.
    pub mask: Role,
}

/// The token of a role and how it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// As the vocabulary spells it.
    pub token: String,
    /// Why this one.
    pub found: RoleSource,
}

/// Why a token plays a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleSource {
    /// The manifest names it.
    Manifest,
    /// The kind of the tokenizer has it so: GPT-2's `<|endoftext|>` is BOS and EOS, BERT's `[CLS]` and `[SEP]` are.
    Kind,
    /// It has one of the role's usual names.
    UsualName,
    /// There is none of the usual names: the EOS token plays this role too.
    Eos,
    /// There was none: it was appended to the vocabulary.
    Appended,
}

/// `tokens.json`: what a tokenize artifact holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokensInfo {
    /// Tokens in the vocabulary, the mask included: ids are below this.
    pub vocabulary: u32,
    /// Special roles.
    pub special: SpecialIds,
    /// How their tokens were found.
    pub roles: Roles,
    /// BLAKE3 of `tokenizer.json`, in hex.
    pub tokenizer_digest: String,
    /// Records.
    pub records: u64,
    /// Tokens in all records, none of them special.
    pub tokens: u64,
    /// Bytes of text in all records.
    pub bytes: u64,
    /// Words in all records: what lies between ASCII white space.
    pub words: u64,
    /// Unknown tokens among the tokens.
    pub unknown: u64,
    /// Characters that no token spells: what unknown tokens stand for, and what the model drops. 0 where absent, as the
    /// next ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_characters: u64,
    /// Their bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_bytes: u64,
    /// Records that lose some.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_records: u64,
    /// Records whose tokens are those of other texts, too, since the tokenizer changes letter case, accents, white space or
    /// forms of characters: see [`loss`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub normalized_records: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Whether a number is 0: such a field is left out of JSON.
#[must_use]
pub fn is_nought(number: &f64) -> bool {
    *number == 0.0
}

/// Whether a flag is not set: such a field is left out of JSON.
#[must_use]
pub fn is_false(flag: &bool) -> bool {
    !*flag
}

/// `rows.json`: what a pack artifact holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowsInfo {
    /// L: tokens a row.
    pub length: u32,
    /// Whether documents were joined and cut (`true`) or stand one a row (`false`).
    pub wrap: bool,
    /// Of overlapping wrapped rows: by how many tokens of text each begins further on than the one before. Absent where they do
    /// not overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stride: Option<u32>,
    /// Which tokens of a record are scored, of rows that are not wrapped; all where absent.
    #[serde(default, skip_serializing_if = "Scored::is_all")]
    pub scored: Scored,
    /// The treatment of the tail of wrapped documents.
    pub tail: Tail,
    /// Whether padding counts in losses, as text does. Of wrapped rows: no.
    pub padding_counts: bool,
    /// Tokens in the vocabulary, the mask included.
    pub vocabulary: u32,
    /// Special roles.
    pub special: SpecialIds,
    /// BLAKE3 of `tokenizer.json`, in hex.
    pub tokenizer_digest: String,
    /// Whether tokens are those of other texts, too, since the tokenizer normalizes text: bits per byte are then those of
    /// normalized text. `false` where absent.
    #[serde(default, skip_serializing_if = "is_false")]
    pub normalized: bool,
    /// The `train` split.
    pub train: SplitInfo,
    /// The `validation` split.
    pub validation: SplitInfo,
}

/// What a loss, a bound in nats and a perplexity are per.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Per token of text, BOS and EOS of rows included: padding, if there is any, is left out.
    #[default]
    #[serde(rename = "per token of text")]
    Token,
    /// Per position of a row: padding counts, and what is easy to guess lowers the mean.
    #[serde(rename = "per position, padding included")]
    Position,
}

impl Unit {
    /// As a person reads it: `per token of text`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "per token of text",
            Self::Position => "per position, padding included",
        }
    }

    /// What is per scored token where the first token of each row is given: `per scored token of text`.
    #[must_use]
    pub fn per(self, scored: bool) -> String {
        if scored {
            self.name().replacen("per ", "per scored ", 1)
        } else {
            self.name().to_owned()
        }
    }

    /// The same in short, behind a slash: `token`.
    #[must_use]
    pub fn short(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Position => "position",
        }
    }
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
    /// Tokens of those that are in rows (the dropped tail and truncation excluded). Where last words alone are scored, theirs.
    pub kept_tokens: u64,
    /// Bytes of the text of those, one separator byte for each EOS of a record included. Exact for byte-level and
    /// character tokenizers; of a record that others cut, to a few bytes (see [`spelling`]). Absent in old artifacts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_bytes: Option<u64>,
    /// Words of those records, where the source counts them: what lies between white space before the text was detokenized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<u64>,
    /// Words of the text in rows. Of a record that is cut, they are shared out by its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_words: Option<u64>,
    /// Records without a row since their last word, which is all that is scored, has no room in one; 0 where absent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_records: u64,
    /// Positions that count in a loss: all but context and padding, or all where padding counts.
    #[serde(rename = "counted")]
    pub valid_tokens: u64,
    /// Positions that hold padding, whether it counts or not.
    #[serde(default)]
    pub padding: u64,
    /// Bits that spell out what no token of those records does: see [`loss`]. 0 where absent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_bits: u64,
    /// Shard files in order, relative to the artifact.
    pub shards: Vec<String>,
}

impl SourceInfo {
    /// Reads `source.json` of a source artifact.
    ///
    /// # Errors
    /// The file is absent or damaged.
    pub fn open(artifact: &Path) -> Result<Self> {
        read_json(&artifact.join(SOURCE_INFO))
    }

    /// The grammar of a synthetic source's artifact; nothing for a source of text.
    ///
    /// # Errors
    /// The grammar is absent or damaged.
    pub fn grammar(&self, artifact: &Path) -> Result<Option<grammar::Grammar>> {
        let path = self.grammar.as_ref().map(|name| artifact.join(name));
        path.map(|path| grammar::Grammar::open(&path)).transpose()
    }
}

impl TokensInfo {
    /// Reads `tokens.json` of a tokenize artifact.
    ///
    /// # Errors
    /// The file is absent or damaged.
    pub fn open(artifact: &Path) -> Result<Self> {
        read_json(&artifact.join(TOKENS_INFO))
    }
}

impl SplitInfo {
    /// The same but for the files that the rows are in: what decides what comes of them.
    #[must_use]
    pub fn without_shards(&self) -> Self {
        Self {
            shards: vec![],
            ..self.clone()
        }
    }
}

impl RowsInfo {
    /// Reads `rows.json` of a pack artifact.
    ///
    /// # Errors
    /// The file is absent or damaged.
    pub fn open(artifact: &Path) -> Result<Self> {
        read_json(&artifact.join(ROWS_INFO))
    }

    /// Whether rows begin with tokens that are given and not scored.
    #[must_use]
    pub fn has_context(&self) -> bool {
        self.stride.is_some() || self.scored != Scored::All
    }

    /// Whether there may be positions that are not scored (context, or padding that does not count), and hence a loss mask.
    #[must_use]
    pub fn masked(&self) -> bool {
        if self.has_context() {
            true
        } else if self.wrap {
            self.tail == Tail::Pad
        } else {
            !self.padding_counts
        }
    }

    /// What losses and bounds on these rows are per.
    #[must_use]
    pub fn unit(&self) -> Unit {
        if self.padding_counts {
            Unit::Position
        } else {
            Unit::Token
        }
    }

    /// The counts of a split.
    #[must_use]
    pub fn split(&self, split: Split) -> &SplitInfo {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
        }
    }
}

/// The name of a split, as manifests and folders spell it.
#[must_use]
pub fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Validation => "validation",
    }
}

/// Reads a JSON file.
///
/// # Errors
/// Input error: the file cannot be read, or has other fields.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).context(|| format!("read `{}`", path.display()))?;
    serde_json::from_slice(&text).wrap(Kind::Input, || format!("read `{}`", path.display()))
}

/// Reads a file of JSON lines, in order.
///
/// # Errors
/// The file is absent, or a line of it is damaged.
pub fn read_json_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).context(|| format!("read `{}`", path.display()))?;
    let lines = text.lines().enumerate();
    let read = |(index, line)| {
        serde_json::from_str(line).wrap(Kind::Environment, || {
            format!("read `{}`: line {}", path.display(), index + 1)
        })
    };
    lines.map(read).collect()
}

/// Writes pretty JSON with a newline at the end.
///
/// # Errors
/// Environment error: the file cannot be written, for instance because the disk is full.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let what = || format!("write `{}`", path.display());
    let mut text = serde_json::to_string_pretty(value).wrap(Kind::Internal, what)?;
    text.push('\n');
    std::fs::write(path, text).context(what)
}

impl SplitInfo {
    /// Bytes of text per valid position: turns nats per valid position into bits per byte. The text of tokens that are
    /// in no row is left out.
    #[must_use]
    pub fn bytes_per_position(&self) -> f64 {
        let kept = self.kept_bytes.map_or_else(
            // Old artifacts do not have it: in proportion.
            || self.bytes as f64 * (self.kept_tokens as f64 / self.tokens as f64),
            |bytes| bytes as f64,
        );
        kept / self.valid_tokens as f64
    }

    /// Words of text per valid position, where they are counted: turns nats per valid position into nats per word.
    #[must_use]
    pub fn words_per_position(&self) -> Option<f64> {
        self.kept_words
            .filter(|&words| words > 0)
            .map(|words| words as f64 / self.valid_tokens as f64)
    }

    /// Valid positions per position of text, BOS and EOS included: 1 but where padding counts.
    #[must_use]
    pub fn positions_per_token_of_text(&self, info: &RowsInfo) -> f64 {
        let positions = self.rows * u64::from(info.length);
        match info.unit() {
            Unit::Token => 1.0,
            Unit::Position => positions as f64 / positions.saturating_sub(self.padding).max(1) as f64,
        }
    }

    /// What it takes to spell out the text that no token does, in bits per byte of all records of the split.
    #[must_use]
    pub fn lost_bits_per_byte(&self) -> f64 {
        self.lost_bits as f64 / self.bytes.max(1) as f64
    }
}
