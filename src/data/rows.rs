//! Token rows on disk: fixed-length lists of unsigned integers that other tools read as they are.
//!
//! A shard is an Arrow IPC file or a Parquet file (zstd) with the columns
//!
//! | column | type | |
//! |---|---|---|
//! | `input_ids` | fixed-size list of L × `uint16`, or `uint32` where the vocabulary exceeds 65,536 | the tokens |
//! | `loss_mask` | fixed-size list of L × `uint8` | 1 where a token counts, 0 on padding; only where there is padding that does not count |
//!
//! and the schema metadata of [`Header`]. Padding is always on the right, so a mask is described by its number of ones.
//!
//! Arrow shards are mapped: a row is read where it lies. Parquet has to be decoded: row groups are decoded when they
//! are first asked for and kept while they fit [`PARQUET_CACHE_BYTES`]; beyond that the one unused for longest goes,
//! so a permuted pass over a larger set decodes again and again: pack as Arrow what is trained on for long.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, FixedSizeListArray, PrimitiveArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Schema, UInt8Type, UInt16Type, UInt32Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::data::columns::{ColumnFile, ColumnWriter};
use crate::data::{RowsInfo, SpecialIds, SplitInfo, split_name};
use crate::error::{self, Context as _, Error, Kind, Result, Wrap as _};
use crate::manifest::{RowFormat, Split, Tail};
use crate::store::Digest;

pub use crate::data::permutation::{Order, Permutation, Rank};

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
    /// Whether rows have padding that does not count, hence a loss mask.
    pub padded: bool,
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

/// What a [`RowWriter`] has written.
#[derive(Debug)]
pub struct Written {
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

    /// Appends a row: L tokens, of which the first `valid` count in a loss.
    ///
    /// # Errors
    /// The environment's (disk full), or an internal one when the row is not as the header says.
    pub fn push(&mut self, tokens: &[u32], valid: usize) -> Result<()> {
        let length = self.header.length as usize;
        let fits = tokens.len() == length
            && valid <= length
            && (self.header.padded || valid == length)
            // The largest of all, which takes no decision for each.
            && tokens.iter().fold(0, |largest, &id| id.max(largest)) < self.header.vocabulary;
        if !fits {
            return Err(Error::internal(format!(
                "row {} does not fit {:?}: {} tokens, {valid} valid",
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
            self.mask.resize(self.mask.len() + valid, 1);
            self.mask.resize(self.mask.len() + length - valid, 0);
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
    pub fn finish(mut self) -> Result<Written> {
        self.flush()?;
        self.close_shard()?;
        let [tokens, mask] = self.hashers.map(|hasher| hasher.finalize());
        Ok(Written {
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

/// A run of rows in memory (mapped or decoded).
#[derive(Clone)]
struct Block {
    tokens: Tokens,
    mask: Option<ScalarBuffer<u8>>,
}

#[derive(Clone)]
enum Tokens {
    Narrow(ScalarBuffer<u16>),
    Wide(ScalarBuffer<u32>),
}

impl Block {
    /// Takes the columns of a batch without copying them.
    fn from_batch(batch: &RecordBatch, header: &Header) -> Result<Self> {
        let length = header.length as usize;
        let tokens = column(batch, TOKENS_COLUMN, length)?;
        let tokens = if header.wide() {
            Tokens::Wide(values::<UInt32Type>(&tokens, TOKENS_COLUMN)?)
        } else {
            Tokens::Narrow(values::<UInt16Type>(&tokens, TOKENS_COLUMN)?)
        };
        let mask = if header.padded {
            Some(values::<UInt8Type>(
                &column(batch, MASK_COLUMN, length)?,
                MASK_COLUMN,
            )?)
        } else {
            None
        };
        Ok(Self { tokens, mask })
    }

    fn bytes(&self) -> usize {
        let tokens = match &self.tokens {
            Tokens::Narrow(values) => values.len() * 2,
            Tokens::Wide(values) => values.len() * 4,
        };
        tokens + self.mask.as_ref().map_or(0, ScalarBuffer::len)
    }

    /// Copies row `row` and returns how many of its leading tokens count.
    fn read(&self, row: usize, header: &Header, tokens: &mut [u32]) -> Result<usize> {
        let length = header.length as usize;
        let range = row * length..(row + 1) * length;
        match &self.tokens {
            Tokens::Narrow(values) => {
                for (to, &from) in tokens.iter_mut().zip(&values[range.clone()]) {
                    *to = u32::from(from);
                }
            }
            Tokens::Wide(values) => tokens.copy_from_slice(&values[range.clone()]),
        }
        if let Some(&id) = tokens.iter().find(|&&id| id >= header.vocabulary) {
            return Err(Error::input(format!(
                "token id {id} in a vocabulary of {}",
                header.vocabulary
            )));
        }
        let Some(mask) = &self.mask else {
            return Ok(length);
        };
        let mask = &mask[range];
        let valid = mask.iter().take_while(|&&m| m == 1).count();
        if mask[valid..].iter().any(|&m| m != 0) {
            return Err(Error::input(
                "the loss mask is not a run of ones and then zeros".to_owned(),
            ));
        }
        Ok(valid)
    }
}

/// The values of a fixed-size list column, one flat run.
fn column(batch: &RecordBatch, name: &str, length: usize) -> Result<ArrayRef> {
    let list = batch
        .column_by_name(name)
        .and_then(|column| column.as_any().downcast_ref::<FixedSizeListArray>())
        .ok_or_else(|| Error::input(format!("column `{name}` is not a fixed-size list")))?;
    if list.null_count() > 0 || list.values().null_count() > 0 {
        return Err(Error::input(format!("column `{name}` has nulls")));
    }
    if list.value_length() as usize != length || list.len() * length > list.values().len() {
        return Err(Error::input(format!(
            "column `{name}` has rows of {} tokens, expected {length}",
            list.value_length()
        )));
    }
    let start = list.value_offset_at(0);
    Ok(list.values().slice(start, list.len() * length))
}

fn values<T: ArrowPrimitiveType>(array: &ArrayRef, name: &str) -> Result<ScalarBuffer<T::Native>> {
    array
        .as_any()
        .downcast_ref::<PrimitiveArray<T>>()
        .map(|array| array.values().clone())
        .ok_or_else(|| {
            Error::input(format!(
                "column `{name}` holds {}, expected {}",
                array.data_type(),
                T::DATA_TYPE
            ))
        })
}

/// A row group of a Parquet shard.
struct Group {
    shard: usize,
    group: usize,
}

struct Shard {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
}

/// Parquet shards, and the row groups decoded so far.
struct Parquet {
    shards: Vec<Shard>,
    groups: Vec<Group>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    blocks: BTreeMap<usize, (u64, Block)>,
    bytes: usize,
    clock: u64,
}

impl Parquet {
    fn block(&self, index: usize, header: &Header) -> Result<Block> {
        {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.clock += 1;
            let now = cache.clock;
            if let Some((used, block)) = cache.blocks.get_mut(&index) {
                *used = now;
                return Ok(block.clone());
            }
        }
        // Decoded outside the lock; two threads may decode the same group once each.
        let Group { shard, group } = self.groups[index];
        let block = self.shards[shard].decode(group, header)?;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let now = cache.clock;
        while cache.bytes + block.bytes() > PARQUET_CACHE_BYTES {
            let Some(oldest) = cache
                .blocks
                .iter()
                .min_by_key(|(_, (used, _))| *used)
                .map(|(&i, _)| i)
            else {
                break;
            };
            if let Some((_, old)) = cache.blocks.remove(&oldest) {
                cache.bytes -= old.bytes();
            }
        }
        cache.bytes += block.bytes();
        if let Some((_, twin)) = cache.blocks.insert(index, (now, block.clone())) {
            cache.bytes -= twin.bytes();
        }
        Ok(block)
    }
}

/// Runs calls into the Parquet reader, which panics on some damaged files, and makes an error of the panic.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    error::guarded(work).unwrap_or_else(|reason| Err(Error::input(format!("the file is damaged: {reason}"))))
}

/// Fails when a column chunk lies outside the file, on which the reader would panic.
fn check_ranges(metadata: &ArrowReaderMetadata, file: u64) -> Result<()> {
    for group in metadata.metadata().row_groups() {
        for column in group.columns() {
            let start = column
                .dictionary_page_offset()
                .unwrap_or(column.data_page_offset());
            let end = start.checked_add(column.compressed_size());
            let inside = start >= 0 && column.compressed_size() >= 0;
            if !inside || end.is_none_or(|end| end as u64 > file) {
                return Err(Error::input(format!(
                    "a column of {} bytes at {start} in a file of {file}",
                    column.compressed_size()
                )));
            }
        }
    }
    Ok(())
}

impl Shard {
    fn decode(&self, group: usize, header: &Header) -> Result<Block> {
        guarded(|| self.decode_unguarded(group, header))
    }

    fn decode_unguarded(&self, group: usize, header: &Header) -> Result<Block> {
        let what = || format!("read `{}`: row group {group}", self.path.display());
        let file = File::open(&self.path).context(what)?;
        let rows = self.metadata.metadata().row_group(group).num_rows().max(1) as usize;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_row_groups(vec![group])
            .with_batch_size(rows)
            .build()
            .wrap(Kind::Input, what)?;
        let mut blocks = Vec::new();
        for batch in reader {
            let batch = batch.wrap(Kind::Input, what)?;
            blocks.push((batch.num_rows(), Block::from_batch(&batch, header).context(what)?));
        }
        match blocks.pop() {
            Some((found, block)) if blocks.is_empty() && found == rows => Ok(block),
            _ => Err(Error::input("the number of rows differs from the footer's").context(what())),
        }
    }
}

enum Storage {
    Resident(Vec<Block>),
    Parquet(Parquet),
}

/// The rows of one split, for reading in any order by any number of threads.
pub struct Rows {
    info: RowsInfo,
    split: Split,
    header: Header,
    storage: Storage,
    /// First row of every block, and the number of rows at the end.
    starts: Vec<u64>,
}

impl Rows {
    /// Opens a split of a pack artifact. Arrow shards are mapped, of Parquet shards the footers are read.
    ///
    /// # Errors
    /// A file is absent or damaged, or does not match `rows.json`.
    pub fn open(artifact: &Path, split: Split) -> Result<Self> {
        let info = RowsInfo::open(artifact)?;
        let header = Header::of(&info);
        let mut starts = vec![0];
        let mut blocks = Vec::new();
        let mut parquet = Parquet {
            shards: Vec::new(),
            groups: Vec::new(),
            cache: Mutex::default(),
        };
        for name in &info.split(split).shards {
            let path = inside(artifact, name)?;
            let what = || format!("read `{}`", path.display());
            let is_parquet = Path::new(name)
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("parquet"));
            if is_parquet {
                let file = File::open(&path).context(what)?;
                let metadata = guarded(|| {
                    let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new());
                    let metadata = metadata.wrap(Kind::Input, || "the footer".to_owned())?;
                    check_ranges(&metadata, file.metadata().context(what)?.len())?;
                    Ok(metadata)
                })
                .context(what)
                .map_err(rebuild)?;
                header.check(metadata.schema()).context(what).map_err(rebuild)?;
                for group in 0..metadata.metadata().num_row_groups() {
                    let rows = metadata.metadata().row_group(group).num_rows();
                    let rows = u64::try_from(rows).wrap(Kind::Input, what).map_err(rebuild)?;
                    advance(&mut starts, rows);
                    parquet.groups.push(Group {
                        shard: parquet.shards.len(),
                        group,
                    });
                }
                parquet.shards.push(Shard { path, metadata });
            } else {
                let file = ColumnFile::open(&path).map_err(rebuild)?;
                header.check(file.schema()).context(what).map_err(rebuild)?;
                for index in 0..file.batches() {
                    let batch = file.batch(index).map_err(rebuild)?;
                    let block = Block::from_batch(&batch, &header)
                        .context(what)
                        .map_err(rebuild)?;
                    advance(&mut starts, batch.num_rows() as u64);
                    blocks.push(block);
                }
            }
        }
        let found = starts.last().copied().unwrap_or(0);
        let expected = info.split(split).rows;
        if found != expected || (!blocks.is_empty() && !parquet.groups.is_empty()) {
            return Err(rebuild(Error::input(format!(
                "the {} shards of `{}` hold {found} rows, but `rows.json` says {expected}",
                split_name(split),
                artifact.display()
            ))));
        }
        let storage = if parquet.groups.is_empty() {
            Storage::Resident(blocks)
        } else {
            Storage::Parquet(parquet)
        };
        Ok(Self {
            info,
            split,
            header,
            storage,
            starts,
        })
    }

    /// Rows that are in memory already: `tokens` holds row after row; `valid` how many leading tokens of each count,
    /// all when absent.
    ///
    /// # Errors
    /// The tokens are not whole rows, or an id is outside the vocabulary.
    pub fn from_memory(
        vocabulary: u32,
        special: SpecialIds,
        length: usize,
        tokens: Vec<u32>,
        valid: Option<&[usize]>,
    ) -> Result<Self> {
        let rows = tokens.len() / length.max(1);
        let fits = length > 0
            && tokens.len() == rows * length
            && tokens.iter().all(|&id| id < vocabulary)
            && valid.is_none_or(|c| c.len() == rows && c.iter().all(|&c| c <= length));
        if !fits {
            return Err(Error::input(format!(
                "{} tokens do not form rows of {length} with ids below {vocabulary}",
                tokens.len()
            )));
        }
        let mask = valid.map(|valid| {
            let bits = valid
                .iter()
                .flat_map(|&n| (0..length).map(move |i| u8::from(i < n)));
            ScalarBuffer::from(bits.collect::<Vec<u8>>())
        });
        let positions = valid.map_or(tokens.len(), |c| c.iter().sum()) as u64;
        let split = SplitInfo {
            rows: rows as u64,
            records: rows as u64,
            bytes: positions,
            tokens: positions,
            kept_tokens: positions,
            kept_bytes: Some(positions),
            padding: tokens.len() as u64 - positions,
            valid_tokens: positions,
            lost_bits: 0,
            shards: Vec::new(),
        };
        let info = RowsInfo {
            length: length as u32,
            wrap: valid.is_none(),
            tail: Tail::Drop,
            padding_counts: false,
            vocabulary,
            special,
            tokenizer_digest: String::new(),
            normalized: false,
            train: split.clone(),
            validation: split,
        };
        let tokens = if vocabulary > 1 << 16 {
            Tokens::Wide(ScalarBuffer::from(tokens))
        } else {
            let narrow: Vec<u16> = tokens.iter().map(|&id| id as u16).collect();
            Tokens::Narrow(ScalarBuffer::from(narrow))
        };
        Ok(Self {
            header: Header::of(&info),
            info,
            split: Split::Train,
            storage: Storage::Resident(vec![Block { tokens, mask }]),
            starts: vec![0, rows as u64],
        })
    }

    /// L: tokens a row.
    #[must_use]
    pub fn length(&self) -> usize {
        self.header.length as usize
    }

    /// Rows.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the artifact says about its rows.
    #[must_use]
    pub fn info(&self) -> &RowsInfo {
        &self.info
    }

    /// Which split this is.
    #[must_use]
    pub fn split(&self) -> Split {
        self.split
    }

    /// The counts of this split.
    #[must_use]
    pub fn split_info(&self) -> &SplitInfo {
        self.info.split(self.split)
    }

    /// Copies row `index` into `tokens` (L of them) and returns how many of the leading positions count in a loss;
    /// the rest is padding.
    ///
    /// # Errors
    /// The row is damaged, or (Parquet) its row group cannot be read.
    ///
    /// # Panics
    /// When `index` is not below [`Rows::len`] or `tokens` is not L long.
    pub fn read(&self, index: u64, tokens: &mut [u32]) -> Result<usize> {
        assert!(index < self.len(), "row {index} of {}", self.len());
        assert_eq!(tokens.len(), self.length(), "the length of a row");
        let block = self.starts.partition_point(|&start| start <= index) - 1;
        let row = (index - self.starts[block]) as usize;
        let what = || format!("{} row {index}", split_name(self.split));
        match &self.storage {
            Storage::Resident(blocks) => blocks[block].read(row, &self.header, tokens).context(what),
            Storage::Parquet(parquet) => parquet
                .block(block, &self.header)
                .and_then(|block| block.read(row, &self.header, tokens))
                .context(what),
        }
        .map_err(rebuild)
    }
}

fn advance(starts: &mut Vec<u64>, rows: u64) {
    let last = starts.last().copied().unwrap_or(0);
    starts.push(last.saturating_add(rows));
}

/// The path of a file below the artifact; `rows.json` may not lead out of it.
fn inside(artifact: &Path, name: &str) -> Result<PathBuf> {
    let plain = Path::new(name)
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if !plain {
        return Err(rebuild(Error::input(format!(
            "`rows.json` names `{name}`, which lies outside the artifact"
        ))));
    }
    Ok(artifact.join(name))
}

fn rebuild(error: Error) -> Error {
    error.hint("the rows are damaged or were not written by `mdlm`; run the pack stage again with `--force`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::write_json;
    use proptest::prelude::*;

    const SPECIAL: SpecialIds = SpecialIds {
        bos: 1,
        eos: 2,
        pad: 0,
        mask: 3,
    };

    fn header(length: u32, vocabulary: u32, padded: bool) -> Header {
        Header {
            length,
            vocabulary,
            special: SPECIAL,
            tokenizer_digest: "digest".to_owned(),
            padded,
        }
    }

    /// Row r is r, r+1, … modulo the vocabulary; of a padded row, r % (L + 1) tokens count.
    fn row(header: &Header, r: u64) -> (Vec<u32>, usize) {
        let length = header.length as usize;
        let token = |i: usize| ((r + i as u64) % u64::from(header.vocabulary)) as u32;
        let valid = if header.padded {
            (r % (length as u64 + 1)) as usize
        } else {
            length
        };
        ((0..length).map(token).collect(), valid)
    }

    fn write(folder: &Path, header: &Header, format: RowFormat, rows: u64, shard_rows: u32) -> Rows {
        let mut writer = RowWriter::new(folder, Split::Train, format, header.clone(), shard_rows);
        for r in 0..rows {
            let (tokens, valid) = row(header, r);
            writer.push(&tokens, valid).unwrap();
        }
        let shards = writer.finish().unwrap().shards;
        let info = RowsInfo {
            length: header.length,
            wrap: !header.padded,
            tail: Tail::Drop,
            padding_counts: false,
            vocabulary: header.vocabulary,
            special: header.special,
            tokenizer_digest: header.tokenizer_digest.clone(),
            normalized: false,
            train: SplitInfo {
                rows,
                shards,
                ..SplitInfo::default()
            },
            validation: SplitInfo::default(),
        };
        write_json(&folder.join("rows.json"), &info).unwrap();
        Rows::open(folder, Split::Train).unwrap()
    }

    #[test]
    fn rows_come_back_as_they_were_written() {
        for format in [RowFormat::Arrow, RowFormat::Parquet] {
            // Vocabularies on both sides of 16 bits; shard sizes that divide the rows, do not, and exceed them.
            for (vocabulary, padded, rows, shard_rows) in [
                (65_536, false, 20, 10),
                (65_537, true, 23, 10),
                (70_000, false, 5, 100),
                (300, true, 7, 1),
            ] {
                let folder = tempfile::tempdir().unwrap();
                let header = header(6, vocabulary, padded);
                let read = write(folder.path(), &header, format, rows, shard_rows);
                assert_eq!(read.len(), rows);
                assert_eq!(
                    read.split_info().shards.len() as u64,
                    rows.div_ceil(u64::from(shard_rows))
                );
                let mut tokens = vec![0; 6];
                for r in (0..rows).rev() {
                    let valid = read.read(r, &mut tokens).unwrap();
                    assert_eq!((tokens.clone(), valid), row(&header, r), "row {r}");
                }
                assert!(Rows::open(folder.path(), Split::Validation).unwrap().is_empty());
            }
        }
    }

    #[test]
    fn rows_cross_batches() {
        // 65,536 tokens a row make batches of 16 rows.
        for format in [RowFormat::Arrow, RowFormat::Parquet] {
            let folder = tempfile::tempdir().unwrap();
            let header = header(65_536, 500, false);
            let read = write(folder.path(), &header, format, 37, 1000);
            assert_eq!(read.starts, [0, 16, 32, 37]);
            let mut tokens = vec![0; 65_536];
            for r in [0, 15, 16, 36] {
                read.read(r, &mut tokens).unwrap();
                assert_eq!(tokens, row(&header, r).0);
            }
        }
    }

    #[test]
    fn the_bytes_of_a_shard_are_a_function_of_its_rows() {
        for format in [RowFormat::Arrow, RowFormat::Parquet] {
            let digest = || {
                let folder = tempfile::tempdir().unwrap();
                let read = write(folder.path(), &header(8, 100, true), format, 40, 1000);
                std::fs::read(folder.path().join(&read.split_info().shards[0])).unwrap()
            };
            assert!(digest() == digest());
        }
    }

    #[test]
    fn rows_in_memory_read_like_those_on_disk() {
        let rows = Rows::from_memory(10, SPECIAL, 4, vec![1, 5, 2, 0, 1, 6, 7, 2], Some(&[3, 4])).unwrap();
        let mut tokens = [0; 4];
        assert_eq!(rows.read(0, &mut tokens).unwrap(), 3);
        assert_eq!(tokens, [1, 5, 2, 0]);
        assert_eq!(rows.read(1, &mut tokens).unwrap(), 4);
        assert_eq!(rows.split_info().valid_tokens, 7);
        assert!(Rows::from_memory(10, SPECIAL, 4, vec![1; 7], None).is_err());
        assert!(Rows::from_memory(10, SPECIAL, 4, vec![11; 4], None).is_err());
    }

    #[test]
    fn rows_that_do_not_match_their_description_are_refused() {
        for format in [RowFormat::Arrow, RowFormat::Parquet] {
            let folder = tempfile::tempdir().unwrap();
            let rows = write(folder.path(), &header(8, 100, false), format, 40, 1000);
            let path = folder.path().join("rows.json");
            let with = |change: &dyn Fn(&mut RowsInfo)| {
                let mut info = rows.info().clone();
                change(&mut info);
                write_json(&path, &info).unwrap();
                let error = Rows::open(folder.path(), Split::Train).err().unwrap();
                assert!(error.hint_text().unwrap().contains("--force"));
                error.to_string()
            };
            assert!(with(&|i| i.train.rows = 41).contains("hold 40 rows, but `rows.json` says 41"));
            assert!(
                with(&|i| i.vocabulary = 99)
                    .ends_with("`mdlm.vocabulary` is `100`, but `rows.json` says `99`")
            );
            assert!(with(&|i| i.wrap = false).ends_with("column `loss_mask` is absent"));
            assert!(
                with(&|i| i.train.shards[0] = "../secret.arrow".to_owned()).contains("outside the artifact")
            );
            assert!(with(&|i| i.train.shards[0] = "train/7.arrow".to_owned()).contains("No such file"));
        }
    }

    /// Whatever happens to a shard's bytes ends in rows or in an error, never in a panic.
    fn survive(format: RowFormat, at: usize, value: u8, cut: usize) {
        let folder = tempfile::tempdir().unwrap();
        let rows = write(folder.path(), &header(4, 100, true), format, 9, 1000);
        let path = folder.path().join(&rows.split_info().shards[0]);
        drop(rows);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= value;
        if cut.is_multiple_of(4) {
            bytes.truncate(cut % bytes.len());
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(rows) = Rows::open(folder.path(), Split::Train) {
            let mut tokens = [0; 4];
            for index in 0..rows.len() {
                let _ = rows.read(index, &mut tokens);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_damaged_arrow_shard_never_panics(at: usize, value in 1u8.., cut: usize) {
            survive(RowFormat::Arrow, at, value, cut);
        }

        #[test]
        fn a_damaged_parquet_shard_never_panics(at: usize, value in 1u8.., cut: usize) {
            survive(RowFormat::Parquet, at, value, cut);
        }
    }
}
