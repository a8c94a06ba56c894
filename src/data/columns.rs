//! Arrow IPC files: written in bounded batches; mapped and read batch by batch without a copy, or read batch by batch into
//! memory. Rows are mapped, since they are read in any order. Records and tokens, which go by once from front to back, are
//! read: what was mapped and touched would count as the process's memory, up to the whole corpus.
//!
//! The format is Arrow's "IPC file" (Feather 2) without compression, so that a mapped batch needs no decoding.
//! A file is untrusted: every offset of the footer is checked before it is used.

use std::fs::File;
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::convert::try_fb_to_schema;
use arrow::ipc::reader::{FileDecoder, read_footer_length};
use arrow::ipc::writer::FileWriter;
use arrow::ipc::{self, Block, root_as_footer, root_as_message};

use crate::data::mapping;
use crate::error::{Context as _, Error, Kind, Result, Wrap as _};

/// Bytes after a footer: its length (4) and the magic `ARROW1` (6). Arrow columnar format, "IPC File Format".
const TRAILER: usize = 10;
/// Bytes of the continuation marker and the length before a message. Arrow columnar format, "Encapsulated message".
const MESSAGE_PREFIX: usize = 8;

/// Bytes after which written data is sent to the disk, while more is made: the final sync then waits for less.
const BYTES_BEFORE_DISK: usize = 16 << 20;

/// Writes one Arrow IPC file.
pub struct ColumnWriter {
    path: PathBuf,
    writer: FileWriter<BufWriter<File>>,
    /// Bytes that were not sent to the disk yet.
    waiting: usize,
    /// Waits for the disk.
    on_its_way: Option<JoinHandle<()>>,
}

impl ColumnWriter {
    /// Creates the file.
    ///
    /// # Errors
    /// Environment error: the folder is missing, or the disk is full.
    pub fn create(path: &Path, schema: &Schema) -> Result<Self> {
        let what = || format!("create `{}`", path.display());
        let file = File::create(path).context(what)?;
        let writer = FileWriter::try_new(BufWriter::with_capacity(1 << 16, file), schema)
            .wrap(Kind::Environment, what)?;
        Ok(Self {
            path: path.to_owned(),
            writer,
            waiting: 0,
            on_its_way: None,
        })
    }

    /// Appends a batch.
    ///
    /// # Errors
    /// Environment error: the file cannot be written, for instance because the disk is full.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer
            .write(batch)
            .wrap(Kind::Environment, || format!("write `{}`", self.path.display()))?;
        self.waiting += batch.get_array_memory_size();
        if self.waiting >= BYTES_BEFORE_DISK && self.on_its_way.as_ref().is_none_or(JoinHandle::is_finished) {
            self.send_to_disk();
        }
        Ok(())
    }

    /// Sends what was written so far to the disk. A failure is ignored here: the final sync reports it.
    fn send_to_disk(&mut self) {
        self.waiting = 0;
        if let Ok(file) = self.writer.get_ref().get_ref().try_clone() {
            let sync = move || drop(file.sync_data());
            self.on_its_way = std::thread::Builder::new().spawn(sync).ok();
        }
    }

    /// Writes the footer and closes the file.
    ///
    /// # Errors
    /// Environment error: the file cannot be written, for instance because the disk is full.
    pub fn finish(mut self) -> Result<()> {
        let what = || format!("write `{}`", self.path.display());
        self.writer.finish().wrap(Kind::Environment, what)?;
        self.writer
            .into_inner()
            .wrap(Kind::Environment, what)?
            .into_inner()
            .wrap(Kind::Environment, what)?;
        Ok(())
    }
}

/// An Arrow IPC file, mapped or read a batch at a time. Cheap to share between threads.
pub struct ColumnFile {
    path: PathBuf,
    content: FileContent,
    schema: SchemaRef,
    decoder: FileDecoder,
    blocks: Vec<Block>,
}

enum FileContent {
    Mapped(Buffer),
    /// On disk, that many bytes.
    OnDisk(u64),
}

impl FileContent {
    fn length(&self) -> u64 {
        match self {
            Self::Mapped(bytes) => bytes.len() as u64,
            Self::OnDisk(length) => *length,
        }
    }

    /// Some bytes of the content, within its length.
    fn read(&self, path: &Path, start: u64, length: usize) -> Result<Buffer> {
        match self {
            Self::Mapped(bytes) => Ok(bytes.slice_with_length(start as usize, length)),
            Self::OnDisk(_) => {
                let what = || format!("read `{}`: {length} bytes at {start}", path.display());
                // Opened each time: a corpus may have more shards than a process may have files open.
                let mut file = File::open(path).context(what)?;
                file.seek(SeekFrom::Start(start)).context(what)?;
                let mut bytes = MutableBuffer::from_len_zeroed(length);
                file.read_exact(&mut bytes).context(what)?;
                Ok(bytes.into())
            }
        }
    }
}

impl ColumnFile {
    /// Maps the file and reads its footer; no batch is touched.
    ///
    /// # Errors
    /// The file is absent, or is not a whole Arrow IPC file.
    pub fn open(path: &Path) -> Result<Self> {
        let content = FileContent::Mapped(Buffer::from(mapping::map(path)?));
        Self::parse(path, content).context(|| format!("read `{}`", path.display()))
    }

    /// Reads the file's footer. Each batch is read when it is asked for.
    ///
    /// # Errors
    /// The file is absent, or is not a whole Arrow IPC file.
    pub fn stream(path: &Path) -> Result<Self> {
        let what = || format!("read `{}`", path.display());
        let content = FileContent::OnDisk(std::fs::metadata(path).context(what)?.len());
        Self::parse(path, content).context(what)
    }

    fn parse(path: &Path, content: FileContent) -> Result<Self> {
        let whole = content.length();
        let Some(trailer_start) = whole.checked_sub(TRAILER as u64) else {
            return Err(damaged(format!("{whole} bytes are too few for an Arrow file")));
        };
        let mut trailer = [0; TRAILER];
        trailer.copy_from_slice(&content.read(path, trailer_start, TRAILER)?);
        let length = read_footer_length(trailer).wrap(Kind::Input, || "the footer".to_owned())?;
        let Some(footer_start) = trailer_start.checked_sub(length as u64) else {
            return Err(damaged(format!(
                "a footer of {length} bytes in a file of {whole} bytes"
            )));
        };
        let footer = content.read(path, footer_start, length)?;
        let footer = root_as_footer(&footer).map_err(|e| damaged(format!("the footer is damaged: {e}")))?;
        let schema = footer
            .schema()
            .ok_or_else(|| damaged("the footer has no schema".to_owned()))?;
        let schema =
            Arc::new(try_fb_to_schema(schema).wrap(Kind::Input, || "the footer's schema".to_owned())?);
        let mut blocks = Vec::new();
        for block in footer.recordBatches().iter().flatten() {
            let parts = [
                block.offset(),
                i64::from(block.metaDataLength()),
                block.bodyLength(),
            ];
            let end = parts.iter().try_fold(0i64, |sum, &part| {
                (part >= 0).then_some(()).and_then(|()| sum.checked_add(part))
            });
            let whole = end.is_some_and(|end| end as u64 <= footer_start);
            if !whole || block.metaDataLength() < MESSAGE_PREFIX as i32 {
                return Err(damaged(format!("batch {} lies outside the file", blocks.len())));
            }
            blocks.push(*block);
        }
        Ok(Self {
            path: path.to_owned(),
            decoder: FileDecoder::new(schema.clone(), footer.version()),
            content,
            schema,
            blocks,
        })
    }

    /// The schema, with its metadata.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Where the file lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Batches in the file.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.blocks.len()
    }

    /// A batch. Its columns point into the mapped file, or into the one piece of memory that it was read into.
    ///
    /// # Errors
    /// The batch is damaged.
    pub fn batch(&self, index: usize) -> Result<RecordBatch> {
        let what = || format!("read `{}`: batch {index}", self.path.display());
        let block = self
            .blocks
            .get(index)
            .ok_or_else(|| Error::internal(format!("no batch {index} of {}", self.blocks.len())))?;
        let length = block.metaDataLength() as usize + block.bodyLength() as usize;
        let data = self.content.read(&self.path, block.offset() as u64, length)?;
        check_message(&data, block.metaDataLength() as usize).context(what)?;
        self.decoder
            .read_record_batch(block, &data)
            .wrap(Kind::Input, what)?
            .ok_or_else(|| damaged("an empty message".to_owned()).context(what()))
    }
}

/// The files of a table that was cut into shards, read batch by batch.
pub struct Shards {
    files: Vec<ColumnFile>,
    /// File and batch within it.
    batches: Vec<(usize, usize)>,
}

impl Shards {
    /// Opens the files of consecutive indices, up to the first that is not there.
    ///
    /// # Errors
    /// A file is damaged.
    pub fn open(path: impl Fn(usize) -> PathBuf) -> Result<Self> {
        let (mut files, mut batches) = (Vec::new(), Vec::new());
        loop {
            let (index, path) = (files.len(), path(files.len()));
            if !path.exists() {
                return Ok(Self { files, batches });
            }
            let file = ColumnFile::stream(&path)?;
            batches.extend((0..file.batches()).map(|batch| (index, batch)));
            files.push(file);
        }
    }

    /// Batches of all files.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// A batch, and the file in which it lies.
    ///
    /// # Errors
    /// The batch is damaged.
    pub fn batch(&self, index: usize) -> Result<(&Path, RecordBatch)> {
        let (file, batch) = self.batches[index];
        let file = &self.files[file];
        Ok((file.path(), file.batch(batch)?))
    }
}

/// Checks the buffers of a record batch's message against its body: the decoder slices them unchecked.
fn check_message(data: &[u8], metadata: usize) -> Result<()> {
    let prefix = if data[..4] == [0xFF; 4] { 8 } else { 4 };
    let message = root_as_message(&data[prefix..metadata])
        .map_err(|e| damaged(format!("the message is damaged: {e}")))?;
    let Some(batch) = message.header_as_record_batch() else {
        return Err(damaged("the message is not a record batch".to_owned()));
    };
    let body = (data.len() - metadata) as u64;
    for buffer in batch.buffers().iter().flatten() {
        let end = u64::try_from(buffer.offset())
            .ok()
            .zip(u64::try_from(buffer.length()).ok())
            .and_then(|(offset, length)| offset.checked_add(length));
        if end.is_none_or(|end| end > body) {
            return Err(damaged(format!("{buffer:?} lies outside a body of {body} bytes")));
        }
    }
    // No column has more elements than the file has bits; nulls are counted among them.
    let most = body.saturating_mul(8);
    check_counts(&batch, most).map_err(damaged)
}

/// Checks that neither a column of a record batch nor the batch itself has more than `most` elements: the decoder takes
/// their numbers as they are.
///
/// # Errors
/// A column or the batch states more elements than `most`, or more nulls than elements; the text says which.
pub(super) fn check_counts(batch: &ipc::RecordBatch<'_>, most: u64) -> std::result::Result<(), String> {
    for node in batch.nodes().iter().flatten() {
        let (length, nulls) = (node.length(), node.null_count());
        if length < 0 || length as u64 > most || nulls < 0 || nulls > length {
            return Err(format!("{length} elements of which {nulls} are null"));
        }
    }
    if batch.length() < 0 || batch.length() as u64 > most {
        return Err(format!("{} rows where {most} are the most", batch.length()));
    }
    Ok(())
}

fn damaged(message: String) -> Error {
    Error::input(message).hint("the file is damaged or was not written by `mdlm`; rebuild it")
}
