//! Tokens on disk: the tokenized records, in Arrow IPC files `tokens-NNNNN.arrow`.
//!
//! | column | type | |
//! |---|---|---|
//! | `tokens` | list of `uint32` | the record's tokens, none of them special |
//! | `bytes` | `uint32` | bytes of the record's text |
//! | `hash` | `uint64` | first eight bytes (little-endian) of the text's BLAKE3: decides the split |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ListArray, PrimitiveArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema};

use crate::data::TokensInfo;
use crate::data::columns::{ColumnFile, ColumnWriter};
use crate::data::records::open_shards;
use crate::error::{Context as _, Error, Kind, Result, Wrap as _};

/// Tokens of a shard, about: 512 MB.
const SHARD_TOKENS: u64 = 128 << 20;

fn schema() -> Schema {
    let item = Arc::new(Field::new("item", DataType::UInt32, false));
    Schema::new(vec![
        Field::new("tokens", DataType::List(item), false),
        Field::new("bytes", DataType::UInt32, false),
        Field::new("hash", DataType::UInt64, false),
    ])
}

fn shard(artifact: &Path, index: usize) -> PathBuf {
    artifact.join(format!("tokens-{index:05}.arrow"))
}

/// The hash of a record's text that decides its split.
#[must_use]
pub fn text_hash(text: &str) -> u64 {
    let digest = blake3::hash(text.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// The tokenized records of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenBatch {
    /// Tokens of all records, one after another.
    pub tokens: Vec<u32>,
    /// Tokens of each record.
    pub lengths: Vec<u32>,
    /// Bytes of each record's text.
    pub bytes: Vec<u32>,
    /// Hash of each record's text.
    pub hashes: Vec<u64>,
}

impl TokenBatch {
    /// Appends another batch.
    pub fn append(&mut self, other: &Self) {
        self.tokens.extend_from_slice(&other.tokens);
        self.lengths.extend_from_slice(&other.lengths);
        self.bytes.extend_from_slice(&other.bytes);
        self.hashes.extend_from_slice(&other.hashes);
    }
}

/// Writes tokenized records.
pub struct TokenWriter {
    artifact: PathBuf,
    shard: Option<(ColumnWriter, u64)>,
    shards: usize,
}

impl TokenWriter {
    /// Prepares to write below `artifact`.
    #[must_use]
    pub fn new(artifact: &Path) -> Self {
        Self {
            artifact: artifact.to_owned(),
            shard: None,
            shards: 0,
        }
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// The environment's: disk full.
    pub fn push(&mut self, batch: TokenBatch) -> Result<()> {
        let what = || "form a batch of tokens".to_owned();
        let count = batch.tokens.len() as u64;
        if i32::try_from(batch.tokens.len()).is_err() {
            return Err(Error::input(format!("a batch of {count} tokens is too long"))
                .hint("cut the records of the source: `\"record\": \"line\"` or `\"paragraph\"`"));
        }
        let item = Arc::new(Field::new("item", DataType::UInt32, false));
        let offsets = OffsetBuffer::from_lengths(batch.lengths.iter().map(|&n| n as usize));
        let tokens = Arc::new(UInt32Array::from(batch.tokens));
        let tokens = ListArray::try_new(item, offsets, tokens, None).wrap(Kind::Internal, what)?;
        let bytes = UInt32Array::from(batch.bytes);
        let hashes = UInt64Array::from(batch.hashes);
        let columns: Vec<Arc<dyn Array>> = vec![Arc::new(tokens), Arc::new(bytes), Arc::new(hashes)];
        let batch = RecordBatch::try_new(Arc::new(schema()), columns).wrap(Kind::Internal, what)?;
        let (mut writer, mut written) = if let Some(open) = self.shard.take() {
            open
        } else {
            self.shards += 1;
            let path = shard(&self.artifact, self.shards - 1);
            (ColumnWriter::create(&path, &schema())?, 0)
        };
        writer.write(&batch)?;
        written += count;
        if written >= SHARD_TOKENS {
            writer.finish()?;
        } else {
            self.shard = Some((writer, written));
        }
        Ok(())
    }

    /// Closes the last shard.
    ///
    /// # Errors
    /// The environment's: disk full.
    pub fn finish(self) -> Result<()> {
        match self.shard {
            Some((writer, _)) => writer.finish(),
            None => Ok(()),
        }
    }
}

/// The tokenized records of a tokenize artifact, batch by batch, mapped.
pub struct TokenFiles {
    info: TokensInfo,
    files: Vec<ColumnFile>,
    /// File and batch within it.
    batches: Vec<(usize, usize)>,
}

/// A mapped batch of tokenized records.
pub struct MappedTokens {
    tokens: ScalarBuffer<u32>,
    offsets: OffsetBuffer<i32>,
    /// Bytes of each record's text.
    pub bytes: ScalarBuffer<u32>,
    /// Hash of each record's text.
    pub hashes: ScalarBuffer<u64>,
}

impl MappedTokens {
    /// Records in the batch.
    #[must_use]
    pub fn records(&self) -> usize {
        self.bytes.len()
    }

    /// The tokens of a record.
    #[must_use]
    pub fn tokens(&self, record: usize) -> &[u32] {
        &self.tokens[self.offsets[record] as usize..self.offsets[record + 1] as usize]
    }
}

impl TokenFiles {
    /// Opens a tokenize artifact.
    ///
    /// # Errors
    /// A file is absent or damaged.
    pub fn open(artifact: &Path) -> Result<Self> {
        let info = TokensInfo::open(artifact)?;
        let files = open_shards(|index| shard(artifact, index))?;
        let batches = files
            .iter()
            .enumerate()
            .flat_map(|(file, columns)| (0..columns.batches()).map(move |batch| (file, batch)))
            .collect();
        Ok(Self { info, files, batches })
    }

    /// What the artifact says about its tokens.
    #[must_use]
    pub fn info(&self) -> &TokensInfo {
        &self.info
    }

    /// Batches.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// The tokenized records of a batch.
    ///
    /// # Errors
    /// The batch is damaged.
    pub fn batch(&self, index: usize) -> Result<MappedTokens> {
        let (file, batch) = self.batches[index];
        let file = &self.files[file];
        let what = || format!("read `{}`", file.path().display());
        let batch = file.batch(batch)?;
        let list = column::<ListArray>(&batch, "tokens").context(what)?;
        let tokens = list
            .values()
            .as_any()
            .downcast_ref::<UInt32Array>()
            .filter(|values| values.null_count() == 0)
            .ok_or_else(|| Error::input("column `tokens` does not hold uint32").context(what()))?;
        Ok(MappedTokens {
            tokens: tokens.values().clone(),
            offsets: list.offsets().clone(),
            bytes: primitive::<arrow::datatypes::UInt32Type>(&batch, "bytes").context(what)?,
            hashes: primitive::<arrow::datatypes::UInt64Type>(&batch, "hash").context(what)?,
        })
    }
}

fn column<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T> {
    batch
        .column_by_name(name)
        .and_then(|column| column.as_any().downcast_ref::<T>())
        .filter(|column| column.null_count() == 0)
        .ok_or_else(|| Error::input(format!("column `{name}` is absent or of another type")))
}

fn primitive<T: arrow::datatypes::ArrowPrimitiveType>(
    batch: &RecordBatch,
    name: &str,
) -> Result<ScalarBuffer<T::Native>> {
    column::<PrimitiveArray<T>>(batch, name).map(|column| column.values().clone())
}
