//! Tokens on disk: the tokenized records, in Arrow IPC files `tokens-NNNNN.arrow`.
//!
//! | column | type | |
//! |---|---|---|
//! | `tokens` | list of `uint16`, or `uint32` where the vocabulary exceeds 65,536 | the record's tokens, none of them special |
//! | `bytes` | `uint32` | bytes of the record's text |
//! | `hash` | `uint64` | XXH3 (64 bits) of the text: decides the split |
//! | `words` | `uint32` | words of the record, where the source counts them |
//!
//! Where tokens leave out some of the text, there is `lost-00000.arrow` beside them: `record` (`uint64`, from 0) and `bits`
//! (`uint64`, what it takes to spell out what is lost, see [`crate::data::loss`]) of each record that loses some.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, AsArray as _, ListArray, PrimitiveArray, RecordBatch, UInt16Array, UInt32Array, UInt64Array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Schema, UInt16Type, UInt32Type, UInt64Type};
use twox_hash::XxHash3_64;

use crate::data::TokensInfo;
use crate::data::columns::{ColumnWriter, Shards};
use crate::error::{Context as _, Error, Kind, Result, Wrap as _};

/// Tokens of a shard, about: 512 MB.
const SHARD_TOKENS: u64 = 128 << 20;

/// Whether ids of a vocabulary need 32 bits.
fn is_wide(vocabulary: u32) -> bool {
    vocabulary > 1 << 16
}

fn schema(wide: bool, words: bool) -> Schema {
    let mut fields = vec![
        Field::new("tokens", DataType::List(item(wide)), false),
        Field::new("bytes", DataType::UInt32, false),
        Field::new("hash", DataType::UInt64, false),
    ];
    fields.extend(words.then(|| Field::new("words", DataType::UInt32, false)));
    Schema::new(fields)
}

fn item(wide: bool) -> Arc<Field> {
    let kind = if wide { DataType::UInt32 } else { DataType::UInt16 };
    Arc::new(Field::new("item", kind, false))
}

fn lost_schema() -> Schema {
    Schema::new(vec![
        Field::new("record", DataType::UInt64, false),
        Field::new("bits", DataType::UInt64, false),
    ])
}

fn lost_shard(artifact: &Path, index: usize) -> PathBuf {
    artifact.join(format!("lost-{index:05}.arrow"))
}

fn shard(artifact: &Path, index: usize) -> PathBuf {
    artifact.join(format!("tokens-{index:05}.arrow"))
}

/// The hash of a record's text that decides its split: XXH3. A collision only puts two records on the same
/// side.
#[must_use]
pub fn text_hash(text: &str) -> u64 {
    XxHash3_64::oneshot(text.as_bytes())
}

/// Some tokenized records, one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenPiece {
    /// Tokens of all records, one after another.
    pub tokens: Vec<u32>,
    /// Tokens of each record.
    pub lengths: Vec<u32>,
    /// Bytes of each record's text.
    pub bytes: Vec<u32>,
    /// Hash of each record's text.
    pub hashes: Vec<u64>,
    /// Words of each record, where the source counts them: else none.
    pub words: Vec<u32>,
    /// The records that lose text, by their place among these, and the bits that spell it out.
    pub lost: Vec<(usize, u64)>,
}

/// Writes tokenized records.
pub struct TokenWriter {
    artifact: PathBuf,
    wide: bool,
    shard: Option<(ColumnWriter, u64)>,
    shards: usize,
    records: u64,
    lost: Option<ColumnWriter>,
}

impl TokenWriter {
    /// Prepares to write tokens of a vocabulary below `artifact`.
    #[must_use]
    pub fn new(artifact: &Path, vocabulary: u32) -> Self {
        Self {
            wide: is_wide(vocabulary),
            artifact: artifact.to_owned(),
            shard: None,
            shards: 0,
            records: 0,
            lost: None,
        }
    }

    /// Appends the records of some pieces, unless there are none.
    ///
    /// # Errors
    /// Environment error: the file cannot be written, for instance because the disk is full.
    pub fn push(&mut self, pieces: &[TokenPiece]) -> Result<()> {
        if pieces.iter().all(|piece| piece.lengths.is_empty()) {
            return Ok(());
        }
        self.push_lost(pieces)?;
        let what = || "form a batch of tokens".to_owned();
        let count: usize = pieces.iter().map(|piece| piece.tokens.len()).sum();
        if i32::try_from(count).is_err() {
            return Err(Error::input(format!("a batch of {count} tokens is too long"))
                .hint("cut the records of the source: `\"record\": \"line\"` or `\"paragraph\"`"));
        }
        let lengths = pieces.iter().flat_map(|piece| &piece.lengths);
        let offsets = OffsetBuffer::from_lengths(lengths.map(|&length| length as usize));
        let tokens: Arc<dyn Array> = if self.wide {
            let tokens: Vec<_> = pieces.iter().map(|piece| piece.tokens.as_slice()).collect();
            Arc::new(UInt32Array::from(tokens.concat()))
        } else {
            let mut narrow: Vec<u16> = Vec::with_capacity(count);
            for piece in pieces {
                narrow.extend(piece.tokens.iter().map(|&id| id as u16));
            }
            Arc::new(UInt16Array::from(narrow))
        };
        let tokens = ListArray::try_new(item(self.wide), offsets, tokens, None).wrap(Kind::Internal, what)?;
        let bytes: Vec<_> = pieces.iter().map(|piece| piece.bytes.as_slice()).collect();
        let hashes: Vec<_> = pieces.iter().map(|piece| piece.hashes.as_slice()).collect();
        let words: Vec<_> = pieces.iter().map(|piece| piece.words.as_slice()).collect();
        let words = words.concat();
        let schema = Arc::new(schema(self.wide, !words.is_empty()));
        let mut columns: Vec<Arc<dyn Array>> = vec![
            Arc::new(tokens),
            Arc::new(UInt32Array::from(bytes.concat())),
            Arc::new(UInt64Array::from(hashes.concat())),
        ];
        if !words.is_empty() {
            columns.push(Arc::new(UInt32Array::from(words)));
        }
        let batch = RecordBatch::try_new(schema.clone(), columns).wrap(Kind::Internal, what)?;
        let (mut writer, mut written) = if let Some(open) = self.shard.take() {
            open
        } else {
            self.shards += 1;
            let path = shard(&self.artifact, self.shards - 1);
            (ColumnWriter::create(&path, &schema)?, 0)
        };
        writer.write(&batch)?;
        written += count as u64;
        if written >= SHARD_TOKENS {
            writer.finish()?;
        } else {
            self.shard = Some((writer, written));
        }
        Ok(())
    }

    /// Counts the records of some pieces, and writes those that lose text.
    fn push_lost(&mut self, pieces: &[TokenPiece]) -> Result<()> {
        let (mut records, mut bits) = (Vec::new(), Vec::new());
        for piece in pieces {
            records.extend(piece.lost.iter().map(|&(at, _)| self.records + at as u64));
            bits.extend(piece.lost.iter().map(|&(_, bits)| bits));
            self.records += piece.lengths.len() as u64;
        }
        if records.is_empty() {
            return Ok(());
        }
        let columns: Vec<Arc<dyn Array>> = vec![
            Arc::new(UInt64Array::from(records)),
            Arc::new(UInt64Array::from(bits)),
        ];
        let batch = RecordBatch::try_new(Arc::new(lost_schema()), columns)
            .wrap(Kind::Internal, || "form a batch of what is lost".to_owned())?;
        let mut writer = match self.lost.take() {
            Some(writer) => writer,
            None => ColumnWriter::create(&lost_shard(&self.artifact, 0), &lost_schema())?,
        };
        writer.write(&batch)?;
        self.lost = Some(writer);
        Ok(())
    }

    /// Closes the last shard.
    ///
    /// # Errors
    /// Environment error: the file cannot be written, for instance because the disk is full.
    pub fn finish(self) -> Result<()> {
        if let Some(lost) = self.lost {
            lost.finish()?;
        }
        match self.shard {
            Some((writer, _)) => writer.finish(),
            None => Ok(()),
        }
    }
}

/// The tokenized records of a tokenize artifact, batch by batch.
pub struct TokenFiles {
    info: TokensInfo,
    shards: Shards,
}

/// A batch of tokenized records as it lies on disk.
pub struct MappedTokens {
    tokens: Ids,
    offsets: OffsetBuffer<i32>,
    /// Bytes of each record's text.
    pub bytes: ScalarBuffer<u32>,
    /// Hash of each record's text.
    pub hashes: ScalarBuffer<u64>,
    /// Words of each record, where the source counts them.
    pub words: Option<ScalarBuffer<u32>>,
}

enum Ids {
    Narrow(ScalarBuffer<u16>),
    Wide(ScalarBuffer<u32>),
}

impl MappedTokens {
    /// Records in the batch.
    #[must_use]
    pub fn records(&self) -> usize {
        self.bytes.len()
    }

    /// How many tokens a record has.
    #[must_use]
    pub fn count(&self, record: usize) -> usize {
        (self.offsets[record + 1] - self.offsets[record]) as usize
    }

    /// Appends the first tokens of a record.
    ///
    /// # Panics
    /// When it has fewer.
    pub fn append(&self, record: usize, count: usize, tokens: &mut Vec<u32>) {
        assert!(count <= self.count(record), "{count} tokens of a record of fewer");
        let start = self.offsets[record] as usize;
        let range = start..start + count;
        match &self.tokens {
            Ids::Narrow(ids) => tokens.extend(ids[range].iter().map(|&id| u32::from(id))),
            Ids::Wide(ids) => tokens.extend_from_slice(&ids[range]),
        }
    }

    /// The tokens of a record.
    #[must_use]
    pub fn tokens(&self, record: usize) -> Vec<u32> {
        let mut tokens = Vec::new();
        self.append(record, self.count(record), &mut tokens);
        tokens
    }
}

impl TokenFiles {
    /// Opens a tokenize artifact.
    ///
    /// # Errors
    /// A file is absent or damaged.
    pub fn open(artifact: &Path) -> Result<Self> {
        let info = TokensInfo::open(artifact)?;
        let shards = Shards::open(|index| shard(artifact, index))?;
        Ok(Self { info, shards })
    }

    /// What the artifact says about its tokens.
    #[must_use]
    pub fn info(&self) -> &TokensInfo {
        &self.info
    }

    /// Batches.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.shards.batches()
    }

    /// The tokenized records of a batch.
    ///
    /// # Errors
    /// The batch is damaged.
    pub fn batch(&self, index: usize) -> Result<MappedTokens> {
        let (path, batch) = self.shards.batch(index)?;
        let what = || format!("read `{}`", path.display());
        let list = column::<ListArray>(&batch, "tokens").context(what)?;
        let ids = list.values();
        let tokens = match ids.data_type() {
            DataType::UInt16 => ids
                .as_primitive_opt::<UInt16Type>()
                .map(|ids| Ids::Narrow(ids.values().clone())),
            _ => ids
                .as_primitive_opt::<UInt32Type>()
                .map(|ids| Ids::Wide(ids.values().clone())),
        };
        let tokens = tokens.filter(|_| ids.null_count() == 0).ok_or_else(|| {
            let message = format!(
                "column `tokens` holds {}, expected UInt16 or UInt32",
                ids.data_type()
            );
            Error::input(message).context(what())
        })?;
        Ok(MappedTokens {
            tokens,
            offsets: list.offsets().clone(),
            bytes: primitive::<UInt32Type>(&batch, "bytes").context(what)?,
            hashes: primitive::<UInt64Type>(&batch, "hash").context(what)?,
            words: match batch.column_by_name("words") {
                Some(_) => Some(primitive::<UInt32Type>(&batch, "words").context(what)?),
                None => None,
            },
        })
    }
}

/// The records of a tokenize artifact that lose text, in order.
pub struct LostRecords {
    shards: Shards,
    /// The next batch.
    next: usize,
    /// Records and bits of the batch at hand, the next record last.
    waiting: Vec<(u64, u64)>,
}

impl LostRecords {
    /// Opens them; there need not be any.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn open(artifact: &Path) -> Result<Self> {
        Ok(Self {
            shards: Shards::open(|index| lost_shard(artifact, index))?,
            next: 0,
            waiting: Vec::new(),
        })
    }

    /// The bits that spell out what a record loses. Records are asked for in their order.
    ///
    /// # Errors
    /// A batch is damaged.
    pub fn bits(&mut self, record: u64) -> Result<u64> {
        while self.waiting.is_empty() && self.next < self.shards.batches() {
            let (path, batch) = self.shards.batch(self.next)?;
            let column =
                |name| primitive::<UInt64Type>(&batch, name).context(|| format!("read `{}`", path.display()));
            let (records, bits) = (column("record")?, column("bits")?);
            self.waiting = records.iter().copied().zip(bits.iter().copied()).rev().collect();
            self.next += 1;
        }
        Ok(self
            .waiting
            .pop_if(|(lost, _)| *lost == record)
            .map_or(0, |(_, bits)| bits))
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
