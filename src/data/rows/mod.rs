//! Token rows on disk: fixed-length lists of unsigned integers that other tools read as they are.
//!
//! A shard is an Arrow IPC file or a Parquet file (zstd) with the columns
//!
//! | column | type | |
//! |---|---|---|
//! | `input_ids` | fixed-size list of L × `uint16`, or `uint32` where the vocabulary exceeds 65,536 | the tokens |
//! | `loss_mask` | fixed-size list of L × `uint8` | 1 where a token is scored, 0 on context and padding; only where some positions are not scored |
//!
//! and the schema metadata of [`Header`]. Context is always on the left and padding on the right, so that a mask is zeros, ones,
//! zeros; only rows that are packed for evaluation begin with context.
//!
//! Arrow shards are mapped: a row is read where it lies. Parquet has to be decoded: row groups are decoded when they
//! are first asked for and kept while they fit [`PARQUET_CACHE_BYTES`]; beyond that the one unused for longest goes,
//! so a permuted pass over a larger set decodes again and again: pack as Arrow what is trained on for long.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use crate::data::{RowsInfo, SpecialIds};
use crate::error::{Error, Result};

pub use reader::Rows;
pub use writer::{RowWriter, WrittenShards};

pub use crate::data::permutation::{Permutation, RowOrder};

/// Column of the tokens; the name that Hugging Face's models take.
pub const TOKENS_COLUMN: &str = "input_ids";
/// Column of the loss mask.
pub const MASK_COLUMN: &str = "loss_mask";
/// Tokens of a batch of a shard (a row group in Parquet): 2 MB of 16 bits, small beside memory, large beside a
/// batch's overhead.
const BATCH_TOKENS: usize = 1 << 20;
/// Decoded row groups kept in memory: 512 MB hold 268 million tokens of 16 bits.
pub const PARQUET_CACHE_BYTES: usize = 512 << 20;
/// zstd's own default: higher levels gain a few per cent on token ids and take several times as long.
const ZSTD_LEVEL: i32 = 3;

/// What every shard says about its rows, in its schema metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// L: tokens a row (`mdlm.length`).
    pub length: u32,
    /// Tokens in the vocabulary, the mask included (`mdlm.vocabulary`).
    pub vocabulary: u32,
    /// Special roles (`mdlm.bos`, `mdlm.eos`, `mdlm.pad`, `mdlm.mask`).
    pub special: SpecialIds,
    /// BLAKE3 of `tokenizer.json`, in hex (`mdlm.tokenizer_digest`).
    pub tokenizer_digest: String,
    /// Whether some positions are not scored (context, or padding that does not count), hence a loss mask.
    pub padded: bool,
    /// Whether rows may begin with context.
    pub context: bool,
}

impl Header {
    /// The header of the shards that `rows.json` describes.
    #[must_use]
    pub fn of(info: &RowsInfo) -> Self {
        Self {
            length: info.length,
            vocabulary: info.vocabulary,
            special: info.special,
            tokenizer_digest: info.tokenizer_digest.clone(),
            padded: info.masked(),
            context: info.has_context(),
        }
    }

    fn metadata(&self) -> BTreeMap<String, String> {
        let number = |key: &str, value: u32| (format!("mdlm.{key}"), value.to_string());
        BTreeMap::from([
            number("length", self.length),
            number("vocabulary", self.vocabulary),
            number("bos", self.special.bos),
            number("eos", self.special.eos),
            number("pad", self.special.pad),
            number("mask", self.special.mask),
            ("mdlm.tokenizer_digest".to_owned(), self.tokenizer_digest.clone()),
        ])
    }

    fn wide(&self) -> bool {
        self.vocabulary > 1 << 16
    }

    fn schema(&self) -> Schema {
        let list = |name: &str, value: DataType| {
            let item = Arc::new(Field::new("item", value, false));
            Field::new(name, DataType::FixedSizeList(item, self.length as i32), false)
        };
        let token = if self.wide() {
            DataType::UInt32
        } else {
            DataType::UInt16
        };
        let mut fields = vec![list(TOKENS_COLUMN, token)];
        if self.padded {
            fields.push(list(MASK_COLUMN, DataType::UInt8));
        }
        Schema::new_with_metadata(fields, self.metadata())
    }

    /// Fails when a shard's schema is not the one that this header makes.
    fn check(&self, found: &Schema) -> Result<()> {
        let expected = self.schema();
        for (key, value) in self.metadata() {
            match found.metadata.get(&key) {
                Some(other) if *other == value => {}
                other => {
                    return Err(Error::input(format!(
                        "`{key}` is `{}`, but `rows.json` says `{value}`",
                        other.map_or("absent", |v| v.as_str())
                    )));
                }
            }
        }
        for field in expected.fields() {
            match found.field_with_name(field.name()) {
                // Names and nullability of list items differ between writers; only the element type matters.
                Ok(other) if same_list(field.data_type(), other.data_type()) => {}
                Ok(other) => {
                    return Err(Error::input(format!(
                        "column `{}` is {}, expected {}",
                        field.name(),
                        other.data_type(),
                        field.data_type()
                    )));
                }
                Err(_) => return Err(Error::input(format!("column `{}` is absent", field.name()))),
            }
        }
        Ok(())
    }
}

fn same_list(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::FixedSizeList(a, n), DataType::FixedSizeList(b, m)) => {
            n == m && a.data_type() == b.data_type()
        }
        _ => false,
    }
}
