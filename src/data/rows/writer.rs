//! Writes rows as shards.

use std::fs::File;
use std::io::BufWriter;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, PrimitiveArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{ArrowPrimitiveType, Field, UInt8Type, UInt16Type, UInt32Type};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::{BATCH_TOKENS, Header, ZSTD_LEVEL};
use crate::data::columns::ColumnWriter;
use crate::data::split_name;
use crate::error::{Context as _, Error, Kind, Result, Wrap as _};
use crate::manifest::{RowFormat, Split};
use crate::store::Digest;

/// What a [`RowWriter`] has written.
#[derive(Debug)]
pub struct WrittenShards {
    /// The shards' names relative to the artifact, in order.
    pub shards: Vec<String>,
    /// Digest of the rows one after the other, tokens and masks, whatever the shards' format and size.
    pub content: Digest,
}

/// Writes the rows of one split as shards.
pub struct RowWriter {
    folder: PathBuf,
    split: Split,
    format: RowFormat,
    header: Header,
    shard_rows: u64,
    batch_rows: usize,
    narrow: Vec<u16>,
    wide: Vec<u32>,
    mask: Vec<u8>,
    /// Rows in the buffers.
    pending: usize,
    shard: Option<(ShardWriter, u64)>,
    shards: Vec<String>,
    rows: u64,
    /// Of the tokens written so far, and of the masks: each column on its own, since a batch's rows depend on the shards.
    hashers: [blake3::Hasher; 2],
}

enum ShardWriter {
    Arrow(Box<ColumnWriter>),
    Parquet(PathBuf, Box<ArrowWriter<BufWriter<File>>>),
}

impl RowWriter {
    /// Prepares to write below `artifact`; the split's folder is made with its first row.
    #[must_use]
    pub fn new(artifact: &Path, split: Split, format: RowFormat, header: Header, shard_rows: u32) -> Self {
        let batch_rows = (BATCH_TOKENS / header.length.max(1) as usize).max(1);
        Self {
            folder: artifact.to_owned(),
            split,
            format,
            shard_rows: u64::from(shard_rows.max(1)),
            batch_rows: batch_rows.min(shard_rows.max(1) as usize),
            narrow: Vec::new(),
            wide: Vec::new(),
            mask: Vec::new(),
            pending: 0,
            shard: None,
            shards: Vec::new(),
            rows: 0,
            hashers: [blake3::Hasher::new(), blake3::Hasher::new()],
            header,
        }
    }

    /// Appends a row: L tokens, and which of their positions are scored.
    ///
    /// # Errors
    /// The environment's (disk full), or an internal one when the row is not as the header says.
    pub fn push(&mut self, tokens: &[u32], scored: Range<usize>) -> Result<()> {
        let length = self.header.length as usize;
        let fits = tokens.len() == length
            && scored.start <= scored.end
            && scored.end <= length
            && (self.header.context || scored.start == 0)
            && (self.header.padded || scored.len() == length)
            // The largest of all, which takes no decision for each.
            && tokens.iter().fold(0, |largest, &id| id.max(largest)) < self.header.vocabulary;
        if !fits {
            return Err(Error::internal(format!(
                "row {} does not fit {:?}: {} tokens, {scored:?} scored",
                self.rows,
                self.header,
                tokens.len()
            )));
        }
        if self.header.wide() {
            self.wide.extend_from_slice(tokens);
        } else {
            self.narrow.extend(tokens.iter().map(|&id| id as u16));
        }
        if self.header.padded {
            self.mask.resize(self.mask.len() + scored.start, 0);
            self.mask.resize(self.mask.len() + scored.len(), 1);
            self.mask.resize(self.mask.len() + length - scored.end, 0);
        }
        self.pending += 1;
        self.rows += 1;
        let in_shard = self.shard.as_ref().map_or(0, |(_, rows)| *rows) + self.pending as u64;
        if in_shard == self.shard_rows {
            self.flush()?;
            self.close_shard()?;
        } else if self.pending == self.batch_rows {
            self.flush()?;
        }
        Ok(())
    }

    /// Rows pushed so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes what is pending, closes the last shard, and returns what was written.
    ///
    /// # Errors
    /// Environment error: the file cannot be written, for instance because the disk is full.
    pub fn finish(mut self) -> Result<WrittenShards> {
        self.flush()?;
        self.close_shard()?;
        let [tokens, mask] = self.hashers.map(|hasher| hasher.finalize());
        Ok(WrittenShards {
            shards: self.shards,
            content: Digest::of(&[*tokens.as_bytes(), *mask.as_bytes()].concat()),
        })
    }

    fn flush(&mut self) -> Result<()> {
        if self.pending == 0 {
            return Ok(());
        }
        let length = self.header.length;
        let tokens: ArrayRef = if self.header.wide() {
            list::<UInt32Type>(length, std::mem::take(&mut self.wide), &mut self.hashers[0])?
        } else {
            list::<UInt16Type>(length, std::mem::take(&mut self.narrow), &mut self.hashers[0])?
        };
        let mut columns = vec![tokens];
        if self.header.padded {
            let mask = std::mem::take(&mut self.mask);
            columns.push(list::<UInt8Type>(length, mask, &mut self.hashers[1])?);
        }
        let schema = Arc::new(self.header.schema());
        let batch = RecordBatch::try_new(schema, columns)
            .wrap(Kind::Internal, || "form a batch of rows".to_owned())?;
        let rows = self.pending as u64;
        self.pending = 0;
        let (shard, written) = self.shard()?;
        shard.write(&batch)?;
        *written += rows;
        Ok(())
    }

    fn shard(&mut self) -> Result<&mut (ShardWriter, u64)> {
        if self.shard.is_none() {
            let split = split_name(self.split);
            let folder = self.folder.join(split);
            std::fs::create_dir_all(&folder).context(|| format!("create `{}`", folder.display()))?;
            let suffix = match self.format {
                RowFormat::Arrow => "arrow",
                RowFormat::Parquet => "parquet",
            };
            let name = format!("{split}/{:05}.{suffix}", self.shards.len());
            let path = self.folder.join(&name);
            let writer = match self.format {
                RowFormat::Arrow => {
                    let writer = ColumnWriter::create(&path, &self.header.schema())?;
                    ShardWriter::Arrow(Box::new(writer))
                }
                RowFormat::Parquet => create_parquet(path, &self.header, self.batch_rows)?,
            };
            self.shards.push(name);
            self.shard = Some((writer, 0));
        }
        self.shard
            .as_mut()
            .ok_or_else(|| Error::internal("no shard is open"))
    }

    fn close_shard(&mut self) -> Result<()> {
        match self.shard.take() {
            None => Ok(()),
            Some((ShardWriter::Arrow(writer), _)) => writer.finish(),
            Some((ShardWriter::Parquet(path, writer), _)) => {
                let what = || format!("write `{}`", path.display());
                let file = writer.into_inner().wrap(Kind::Environment, what)?;
                file.into_inner().wrap(Kind::Environment, what)?;
                Ok(())
            }
        }
    }
}

impl ShardWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Arrow(writer) => writer.write(batch),
            Self::Parquet(path, writer) => writer
                .write(batch)
                .wrap(Kind::Environment, || format!("write `{}`", path.display())),
        }
    }
}

fn create_parquet(path: PathBuf, header: &Header, batch_rows: usize) -> Result<ShardWriter> {
    let what = || format!("create `{}`", path.display());
    let level = ZstdLevel::try_new(ZSTD_LEVEL).wrap(Kind::Internal, what)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(batch_rows))
        // Smallest and largest token id are useless to a reader.
        .set_statistics_enabled(EnabledStatistics::None)
        // The writer's version would change the bytes with every upgrade of the library.
        .set_created_by("mdlm".to_owned())
        .build();
    let file = File::create(&path).context(what)?;
    let file = BufWriter::with_capacity(1 << 16, file);
    let writer = ArrowWriter::try_new(file, Arc::new(header.schema()), Some(properties))
        .wrap(Kind::Environment, what)?;
    Ok(ShardWriter::Parquet(path, Box::new(writer)))
}

/// A column of lists, whose values are hashed on the way.
fn list<T: ArrowPrimitiveType>(
    length: u32,
    values: Vec<T::Native>,
    hasher: &mut blake3::Hasher,
) -> Result<ArrayRef> {
    let values = ScalarBuffer::from(values);
    hasher.update_rayon(values.inner().as_slice());
    let values = PrimitiveArray::<T>::new(values, None);
    let item = Arc::new(Field::new("item", T::DATA_TYPE, false));
    let list = FixedSizeListArray::try_new(item, length as i32, Arc::new(values), None)
        .wrap(Kind::Internal, || "form a column of rows".to_owned())?;
    Ok(Arc::new(list))
}
