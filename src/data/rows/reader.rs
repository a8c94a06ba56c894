//! Reads rows in any order: mapped from Arrow, decoded from Parquet.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, FixedSizeListArray, PrimitiveArray, RecordBatch};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{ArrowPrimitiveType, UInt8Type, UInt16Type, UInt32Type};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};

use super::{Header, MASK_COLUMN, PARQUET_CACHE_BYTES, TOKENS_COLUMN};
use crate::data::columns::ColumnFile;
use crate::data::{RowsInfo, SpecialIds, SplitInfo, split_name};
use crate::error::{self, Context as _, Error, Kind, Result, Wrap as _};
use crate::manifest::{Scored, Split, Tail};

/// A run of rows in memory (mapped or decoded).
#[derive(Clone)]
struct RowBlock {
    tokens: TokenBuffer,
    mask: Option<ScalarBuffer<u8>>,
}

#[derive(Clone)]
enum TokenBuffer {
    Narrow(ScalarBuffer<u16>),
    Wide(ScalarBuffer<u32>),
}

impl RowBlock {
    /// Takes the columns of a batch without copying them.
    fn from_batch(batch: &RecordBatch, header: &Header) -> Result<Self> {
        let length = header.length as usize;
        let tokens = column(batch, TOKENS_COLUMN, length)?;
        let tokens = if header.wide() {
            TokenBuffer::Wide(values::<UInt32Type>(&tokens, TOKENS_COLUMN)?)
        } else {
            TokenBuffer::Narrow(values::<UInt16Type>(&tokens, TOKENS_COLUMN)?)
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
            TokenBuffer::Narrow(values) => values.len() * 2,
            TokenBuffer::Wide(values) => values.len() * 4,
        };
        tokens + self.mask.as_ref().map_or(0, ScalarBuffer::len)
    }

    /// Copies row `row` and returns which of its positions are scored.
    fn read(&self, row: usize, header: &Header, tokens: &mut [u32]) -> Result<Range<usize>> {
        let length = header.length as usize;
        let range = row * length..(row + 1) * length;
        match &self.tokens {
            TokenBuffer::Narrow(values) => {
                for (to, &from) in tokens.iter_mut().zip(&values[range.clone()]) {
                    *to = u32::from(from);
                }
            }
            TokenBuffer::Wide(values) => tokens.copy_from_slice(&values[range.clone()]),
        }
        if let Some(&id) = tokens.iter().find(|&&id| id >= header.vocabulary) {
            return Err(Error::input(format!(
                "token id {id} in a vocabulary of {}",
                header.vocabulary
            )));
        }
        let Some(mask) = &self.mask else {
            return Ok(0..length);
        };
        let mask = &mask[range];
        let start = match mask.iter().position(|&m| m != 0) {
            Some(first) if header.context => first,
            // Without context the ones come first; without ones nothing is scored.
            _ => 0,
        };
        let end = start + mask[start..].iter().take_while(|&&m| m == 1).count();
        if mask[end..].iter().any(|&m| m != 0) {
            let form = if header.context {
                "zeros, ones and zeros"
            } else {
                "a run of ones and then zeros"
            };
            return Err(Error::input(format!("the loss mask is not {form}")));
        }
        Ok(start..end)
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
    blocks: BTreeMap<usize, (u64, RowBlock)>,
    bytes: usize,
    clock: u64,
}

impl Parquet {
    fn block(&self, index: usize, header: &Header) -> Result<RowBlock> {
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
    fn decode(&self, group: usize, header: &Header) -> Result<RowBlock> {
        guarded(|| self.decode_unguarded(group, header))
    }

    fn decode_unguarded(&self, group: usize, header: &Header) -> Result<RowBlock> {
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
            blocks.push((
                batch.num_rows(),
                RowBlock::from_batch(&batch, header).context(what)?,
            ));
        }
        match blocks.pop() {
            Some((found, block)) if blocks.is_empty() && found == rows => Ok(block),
            _ => Err(Error::input("the number of rows differs from the footer's").context(what())),
        }
    }
}

enum Storage {
    Resident(Vec<RowBlock>),
    Parquet(Parquet),
}

/// The rows of one split, for reading in any order by any number of threads.
pub struct Rows {
    info: RowsInfo,
    split: Split,
    header: Header,
    storage: Storage,
    /// First row of every block, and the number of rows at the end.
    pub(super) starts: Vec<u64>,
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
                    let block = RowBlock::from_batch(&batch, &header)
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

    /// Rows that are in memory already: `tokens` holds row after row; `scored` which positions of each are scored, all when
    /// absent.
    ///
    /// # Errors
    /// The tokens are not whole rows, or an id is outside the vocabulary.
    pub fn from_memory(
        vocabulary: u32,
        special: SpecialIds,
        length: usize,
        tokens: Vec<u32>,
        scored: Option<&[Range<usize>]>,
    ) -> Result<Self> {
        let rows = tokens.len() / length.max(1);
        let fits = length > 0
            && tokens.len() == rows * length
            && tokens.iter().all(|&id| id < vocabulary)
            && scored.is_none_or(|all| {
                all.len() == rows && all.iter().all(|one| one.start <= one.end && one.end <= length)
            });
        if !fits {
            return Err(Error::input(format!(
                "{} tokens do not form rows of {length} with ids below {vocabulary}",
                tokens.len()
            )));
        }
        let mask = scored.map(|scored| {
            let bits = scored
                .iter()
                .flat_map(|one| (0..length).map(move |i| u8::from(one.contains(&i))));
            ScalarBuffer::from(bits.collect::<Vec<u8>>())
        });
        let positions = scored.map_or(tokens.len(), |all| all.iter().map(Range::len).sum()) as u64;
        let split = SplitInfo {
            rows: rows as u64,
            records: rows as u64,
            bytes: positions,
            tokens: positions,
            kept_tokens: positions,
            kept_bytes: Some(positions),
            words: None,
            kept_words: None,
            dropped_records: 0,
            padding: tokens.len() as u64 - positions,
            valid_tokens: positions,
            lost_bits: 0,
            shards: Vec::new(),
        };
        let info = RowsInfo {
            length: length as u32,
            wrap: scored.is_none(),
            tail: Tail::Drop,
            stride: None,
            scored: Scored::All,
            padding_counts: false,
            vocabulary,
            special,
            tokenizer_digest: String::new(),
            normalized: false,
            train: split.clone(),
            validation: split,
        };
        let tokens = if vocabulary > 1 << 16 {
            TokenBuffer::Wide(ScalarBuffer::from(tokens))
        } else {
            let narrow: Vec<u16> = tokens.iter().map(|&id| id as u16).collect();
            TokenBuffer::Narrow(ScalarBuffer::from(narrow))
        };
        Ok(Self {
            header: Header {
                context: scored.is_some_and(|all| all.iter().any(|one| one.start > 0)),
                ..Header::of(&info)
            },
            info,
            split: Split::Train,
            storage: Storage::Resident(vec![RowBlock { tokens, mask }]),
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

    /// Fails where rows begin with context: they are packed for evaluation, and a training would have to leave it out.
    ///
    /// # Errors
    /// They do.
    pub fn check_trainable(&self) -> Result<()> {
        if !self.header.context {
            return Ok(());
        }
        Err(
            Error::input("the rows begin with tokens that are given and not scored: no model learns from them").hint(
                "pack the tokens once more without `stride` and `scored`, to train on; `evaluate` takes both packings",
            ),
        )
    }

    /// Copies row `index` into `tokens` (L of them) and returns which positions are scored: before them is context, behind
    /// them padding.
    ///
    /// # Errors
    /// The row is damaged, or (Parquet) its row group cannot be read.
    ///
    /// # Panics
    /// When `index` is not below [`Rows::len`] or `tokens` is not L long.
    pub fn read(&self, index: u64, tokens: &mut [u32]) -> Result<Range<usize>> {
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
