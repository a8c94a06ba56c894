//! Records on disk: the text of a source, in Arrow IPC files `records-NNNNN.arrow` with the column `text` (large UTF-8) and,
//! where the source counts words, the column `words` (`uint32`).
//!
//! Batches are bounded by bytes and by records, so that a reader needs little memory; a record is never cut.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder as _, AsArray as _, LargeStringArray, LargeStringBuilder, RecordBatch, UInt32Array,
};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};

use crate::data::SourceInfo;
use crate::data::columns::{ColumnWriter, Shards};
use crate::error::{Context as _, Error, Kind, Result, Wrap as _};

/// Column of the text.
pub const TEXT_COLUMN: &str = "text";
/// Text of a batch: what is read, tokenized and written at a time. Large enough to keep every core busy for a while.
const BATCH_BYTES: usize = 4 << 20;
/// Records of a batch.
const BATCH_RECORDS: usize = 1 << 16;
/// Text of a shard, about: a size that copies and resumes well.
const SHARD_BYTES: u64 = 512 << 20;
/// Longest record: what the 32-bit counts of the tokens' columns carry with room to spare.
pub const MAX_RECORD_BYTES: usize = 1 << 30;

/// Column of the words of each record, where they are counted.
const WORDS_COLUMN: &str = "words";

fn schema(words: bool) -> Schema {
    let mut fields = vec![Field::new(TEXT_COLUMN, DataType::LargeUtf8, false)];
    fields.extend(words.then(|| Field::new(WORDS_COLUMN, DataType::UInt32, false)));
    Schema::new(fields)
}

fn shard(artifact: &Path, index: usize) -> PathBuf {
    artifact.join(format!("records-{index:05}.arrow"))
}

/// Some texts, one after another in one piece of memory.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    bytes: String,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Texts {
    /// No texts, and room for that many bytes and half as many again.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        Self {
            bytes: String::with_capacity(bytes + bytes / 2),
            ends: Vec::new(),
        }
    }

    /// Appends a text.
    pub fn push(&mut self, text: &str) {
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len());
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all of them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The text of a number.
    ///
    /// # Panics
    /// There are fewer.
    #[must_use]
    pub fn get(&self, index: usize) -> &str {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl<'a> FromIterator<&'a str> for Texts {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let mut all = Self::default();
        for text in texts {
            all.push(text);
        }
        all
    }
}

/// Writes the records of a source.
pub struct RecordWriter {
    artifact: PathBuf,
    batch: LargeStringBuilder,
    /// Words of the batch's records, where they are counted.
    batch_words: Vec<u32>,
    batch_bytes: usize,
    shard: Option<(ColumnWriter, u64)>,
    shards: usize,
    records: u64,
    bytes: u64,
    words: Option<u64>,
}

impl RecordWriter {
    /// Prepares to write below `artifact`.
    #[must_use]
    pub fn new(artifact: &Path) -> Self {
        Self {
            artifact: artifact.to_owned(),
            batch: LargeStringBuilder::new(),
            batch_words: Vec::new(),
            batch_bytes: 0,
            shard: None,
            shards: 0,
            records: 0,
            bytes: 0,
            words: None,
        }
    }

    /// Appends a record, with its words where those of all are counted. True when a batch was written: a good moment to report progress.
    ///
    /// # Errors
    /// Environment error: the file cannot be written, for instance because the disk is full.
    pub fn push(&mut self, text: &str, words: Option<u32>) -> Result<bool> {
        if self.batch.is_empty() {
            // What a batch takes, so that it need not be moved as it grows.
            self.batch = LargeStringBuilder::with_capacity(BATCH_RECORDS / 4, BATCH_BYTES + BATCH_BYTES / 4);
        }
        self.batch.append_value(text);
        if let Some(words) = words {
            self.batch_words.push(words);
            *self.words.get_or_insert(0) += u64::from(words);
        }
        self.batch_bytes += text.len();
        self.records += 1;
        self.bytes += text.len() as u64;
        if self.batch_bytes < BATCH_BYTES && self.batch.len() < BATCH_RECORDS {
            return Ok(false);
        }
        self.flush()?;
        Ok(true)
    }

    /// Records so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of text so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Words so far, where they are counted.
    #[must_use]
    pub fn words(&self) -> Option<u64> {
        self.words
    }

    /// Writes what is pending and closes the last shard.
    ///
    /// # Errors
    /// Environment error: the file cannot be written, for instance because the disk is full.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        match self.shard.take() {
            Some((writer, _)) => writer.finish(),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let words = std::mem::take(&mut self.batch_words);
        let schema = Arc::new(schema(!words.is_empty()));
        let mut columns: Vec<Arc<dyn Array>> = vec![Arc::new(self.batch.finish())];
        if !words.is_empty() {
            columns.push(Arc::new(UInt32Array::from(words)));
        }
        let batch = RecordBatch::try_new(schema.clone(), columns)
            .wrap(Kind::Internal, || "form a batch of records".to_owned())?;
        let (mut writer, mut written) = if let Some(open) = self.shard.take() {
            open
        } else {
            self.shards += 1;
            let path = shard(&self.artifact, self.shards - 1);
            (ColumnWriter::create(&path, &schema)?, 0)
        };
        writer.write(&batch)?;
        written += self.batch_bytes as u64;
        self.batch_bytes = 0;
        if written >= SHARD_BYTES {
            writer.finish()?;
        } else {
            self.shard = Some((writer, written));
        }
        Ok(())
    }
}

/// The records of a source artifact, batch by batch.
pub struct Records {
    info: SourceInfo,
    shards: Shards,
}

impl Records {
    /// Opens a source artifact.
    ///
    /// # Errors
    /// A file is absent or damaged.
    pub fn open(artifact: &Path) -> Result<Self> {
        let info = SourceInfo::open(artifact)?;
        let shards = Shards::open(|index| shard(artifact, index))?;
        Ok(Self { info, shards })
    }

    /// What the artifact says about its records.
    #[must_use]
    pub fn info(&self) -> &SourceInfo {
        &self.info
    }

    /// Batches.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.shards.batches()
    }

    /// The texts of a batch.
    ///
    /// # Errors
    /// The batch is damaged.
    pub fn batch(&self, index: usize) -> Result<LargeStringArray> {
        self.batch_with_words(index).map(|(texts, _)| texts)
    }

    /// The texts of a batch, and their words where they are counted.
    ///
    /// # Errors
    /// The batch is damaged.
    pub fn batch_with_words(&self, index: usize) -> Result<(LargeStringArray, Option<ScalarBuffer<u32>>)> {
        let (path, batch) = self.shards.batch(index)?;
        let what = || format!("read `{}`", path.display());
        let texts = batch
            .column_by_name(TEXT_COLUMN)
            .and_then(|column| column.as_any().downcast_ref::<LargeStringArray>())
            .filter(|texts| texts.null_count() == 0)
            .cloned()
            .ok_or_else(|| Error::input(format!("column `{TEXT_COLUMN}` is not large UTF-8 without nulls")))
            .context(what)?;
        let words = batch.column_by_name(WORDS_COLUMN).map(|column| {
            column
                .as_primitive_opt::<UInt32Type>()
                .filter(|words| words.null_count() == 0)
                .map(|words| words.values().clone())
                .ok_or_else(|| Error::input(format!("column `{WORDS_COLUMN}` is not UInt32 without nulls")))
                .context(what)
        });
        Ok((texts, words.transpose()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::write_json;

    #[test]
    fn records_are_read_back_in_order_across_batches() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = RecordWriter::new(folder.path());
        let count = BATCH_RECORDS + 10;
        let long = "x".repeat(BATCH_BYTES + 1);
        for i in 0..count {
            let full = writer.push(&format!("réc {i}"), Some(i as u32)).unwrap();
            assert_eq!(full, i + 1 == BATCH_RECORDS);
        }
        assert!(writer.push(&long, Some(1)).unwrap());
        assert_eq!(writer.words(), Some((0..count as u64).sum::<u64>() + 1));
        let info = SourceInfo {
            records: writer.records(),
            bytes: writer.bytes(),
            words: writer.words(),
            grammar: None,
            entropy_bits_per_byte: None,
            entropy_nats_per_record: None,
        };
        writer.finish().unwrap();
        write_json(&folder.path().join("source.json"), &info).unwrap();
        let records = Records::open(folder.path()).unwrap();
        assert_eq!(records.batches(), 2);
        let texts: Vec<String> = (0..2)
            .flat_map(|b| {
                let batch = records.batch(b).unwrap();
                (0..batch.len())
                    .map(|i| batch.value(i).to_owned())
                    .collect::<Vec<_>>()
            })
            .collect();
        let words: Vec<u32> = (0..2)
            .flat_map(|index| records.batch_with_words(index).unwrap().1.unwrap().to_vec())
            .collect();
        assert_eq!(words.len(), count + 1);
        assert!(words[..count].iter().enumerate().all(|(i, &n)| n == i as u32));
        assert_eq!(texts.len() as u64, info.records);
        assert_eq!(texts.iter().map(|t| t.len() as u64).sum::<u64>(), info.bytes);
        assert!(
            texts[..count]
                .iter()
                .enumerate()
                .all(|(i, t)| *t == format!("réc {i}"))
        );
        assert!(texts[count] == long);
    }
}
