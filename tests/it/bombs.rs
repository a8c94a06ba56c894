//! Why columns are read by code of ours around the crates `arrow` and `parquet`: files that a crate takes far more memory
//! for than they have bytes, and which `mdlm` refuses or reads within its limits. A test that fails because a crate has
//! become bounded says which code can go.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{Field, Schema};
use arrow::ipc::CompressionType;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use bytes::Bytes;
use mdlm::data::read::records_of;
use mdlm::error::Error;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, GzipLevel, Type as Physical};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::ByteArrayType;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::schema::types::{ColumnDescriptor, ColumnPath, Type};
use serde_json::{Value, json};

use crate::memory::peak;

/// Bytes.
pub const MIB: usize = 1 << 20;
/// What our readers may take for a small file: their buffers.
pub const LITTLE: usize = 4 * MIB;

/// What `mdlm` makes of a file: its records, or the error with its hint; and the memory that it took.
pub fn ours(bytes: &[u8], name: &str, settings: Value) -> (Result<Vec<String>, String>, usize) {
    let reading = serde_json::from_value(settings).unwrap();
    let bytes = Bytes::copy_from_slice(bytes);
    peak(|| {
        let mut records = Vec::new();
        let read = records_of(bytes, name, &reading, &mut |text, _| {
            records.push(text.to_owned());
            Ok(())
        });
        let message = |error: Error| format!("{error}; {}", error.hint_text().unwrap_or_default());
        read.map(|_| records).map_err(message)
    })
}

/// The message of a file that `mdlm` refuses without taking memory for it.
pub fn refused(bytes: &[u8], name: &str) -> String {
    let (read, memory) = ours(bytes, name, json!({}));
    assert!(memory < LITTLE, "{memory} bytes");
    read.expect_err("it is refused")
}

fn batch(texts: &[&str]) -> RecordBatch {
    let array: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    batch_of(array)
}

fn batch_of(array: ArrayRef) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("text", array.data_type().clone(), true)]);
    RecordBatch::try_new(Arc::new(schema), vec![array]).unwrap()
}

fn arrow_file(batch: &RecordBatch, options: IpcWriteOptions) -> Vec<u8> {
    let mut writer = FileWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

/// Puts `new` in place of the last `old`.
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let at = memchr::memmem::rfind(bytes, old).unwrap();
    bytes[at..at + new.len()].copy_from_slice(new);
}

/// Why an Arrow file's footer and batches are not read by the crate's `FileReader`: it takes what a footer and a buffer
/// state.
#[test]
fn arrow_crate_allocates_the_sizes_that_a_file_states() {
    const STATED: u64 = 1 << 30;
    let taken = |file: &[u8]| {
        let read =
            || FileReader::try_new(Cursor::new(file), None).and_then(|mut reader| reader.next().transpose());
        let (read, memory) = peak(read);
        assert!(read.is_err());
        assert!(
            memory as u64 >= STATED,
            "the crate is bounded now: {memory} bytes"
        );
    };
    let plain = arrow_file(&batch(&["one"]), IpcWriteOptions::default());
    // A footer of that length.
    let mut footer = plain.clone();
    let at = footer.len() - 10;
    footer[at..at + 4].copy_from_slice(&(STATED as u32).to_le_bytes());
    taken(&footer);
    assert!(refused(&footer, "a.arrow").contains("a footer of"));
    // A batch: the block of the footer has offset, length of the description and, after padding, length of the body.
    // The magic is padded, and the schema's message comes first.
    let schema = 8 + plain[8..].iter().position(|&byte| byte != 0).unwrap();
    let length = u32::from_le_bytes(plain[schema + 4..schema + 8].try_into().unwrap());
    let start = schema + 8 + length as usize;
    let description = 8 + u32::from_le_bytes(plain[start + 4..start + 8].try_into().unwrap());
    let head = &plain[start + 8..start + description as usize];
    let body = arrow::ipc::root_as_message(head).unwrap().bodyLength();
    let block = |body: i64| {
        [
            &(start as u64).to_le_bytes()[..],
            &u64::from(description).to_le_bytes(),
            &body.to_le_bytes(),
        ]
        .concat()
    };
    let mut long = plain.clone();
    replace(&mut long, &block(body), &block(STATED as i64));
    taken(&long);
    assert!(refused(&long, "a.arrow").contains("batch 1 lies outside the file"));
    // A compressed buffer, which states how long it becomes.
    let text = "a".repeat(100_000);
    let options = IpcWriteOptions::default()
        .try_with_compression(Some(CompressionType::LZ4_FRAME))
        .unwrap();
    let mut compressed = arrow_file(&batch(&[&text]), options);
    let length = text.len() as u64;
    replace(&mut compressed, &length.to_le_bytes(), &STATED.to_le_bytes());
    taken(&compressed);
    assert!(refused(&compressed, "a.arrow").contains("times"));
}

fn parquet_of(batch: &RecordBatch, properties: WriterProperties) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// Why pages are decompressed here: the crate makes room for what a page's header states. That it does not stop there,
/// either, is a test beside the reader.
#[test]
fn parquet_crate_allocates_the_size_that_a_page_states() {
    let text = "a".repeat(4 * MIB);
    let properties = WriterProperties::builder()
        .set_compression(Compression::GZIP(GzipLevel::default()))
        .set_dictionary_enabled(false)
        .build();
    let mut file = parquet_of(&batch(&[&text]), properties);
    // Its header: field 1, type 0; field 2, the length as a zigzag varint: 64 MiB.
    assert_eq!(file[4..7], [0x15, 0, 0x15]);
    file[7..11].copy_from_slice(&[0x80, 0x80, 0x80, 0x40]);
    let reader = SerializedFileReader::new(Bytes::from(file.clone())).unwrap();
    let mut pages = reader
        .get_row_group(0)
        .unwrap()
        .get_column_page_reader(0)
        .unwrap();
    let (page, memory) = peak(|| pages.get_next_page());
    assert!(
        page.is_err() && memory >= 64 * MIB,
        "the crate is bounded now: {memory} bytes"
    );
    let (_, memory) = ours(&file, "a.parquet", json!({ "largest_buffer": MIB }));
    assert!(memory < LITTLE, "{memory} bytes");
}

/// A Parquet footer of no rows with a schema of groups and columns: the name and the number of fields. Thrift's compact
/// protocol.
fn footer_of(elements: &[(&str, u64)]) -> Vec<u8> {
    let varint = |mut value: u64| {
        let mut bytes = Vec::new();
        while value > 0x7F {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    };
    let mut footer = vec![0x15, 2, 0x19, 0xFC];
    footer.extend(varint(elements.len() as u64));
    for (name, fields) in elements {
        // Field 1, a type, only where there are no fields; 3, optional; 4, the name; 5, the number of fields.
        let head: &[u8] = if *fields == 0 {
            &[0x15, 12, 0x25, 2, 0x18]
        } else {
            &[0x35, 2, 0x18]
        };
        footer.extend(head);
        footer.extend(varint(name.len() as u64));
        footer.extend(name.as_bytes());
        if *fields > 0 {
            footer.push(0x15);
            footer.extend(varint(fields * 2));
        }
        footer.push(0);
    }
    footer.extend([0x16, 0, 0x19, 0x0C, 0]);
    footer
}

/// A Parquet file that is a footer alone.
fn file_of(footer: &[u8]) -> Vec<u8> {
    let length = (footer.len() as u32).to_le_bytes();
    [b"PAR1", footer, &length, b"PAR1"].concat()
}

/// Why a footer is looked at before the crate parses it: the crate goes as deep as the schema does, reserves room for as
/// many fields as a group states, and writes down the whole path of every column.
#[test]
fn parquet_crate_follows_a_schema_to_any_depth() {
    let parse = |footer: &[u8]| peak(|| ParquetMetaDataReader::decode_metadata(footer).is_ok());
    // With a stack for it, as deep as one likes; with the usual one the process ends.
    let mut deep = vec![("a", 1); 20_000];
    deep.push(("text", 0));
    let deep = footer_of(&deep);
    let parsed = std::thread::scope(|scope| {
        let deep = &deep;
        std::thread::Builder::new()
            .stack_size(1 << 30)
            .spawn_scoped(scope, move || parse(deep).0)
            .unwrap()
            .join()
            .unwrap()
    });
    assert!(parsed, "the crate is bounded now");
    refused(&file_of(&deep), "a.parquet");
    // Fields of eight bytes each.
    let wide = footer_of(&[("schema", 1), ("text", 1 << 27)]);
    let (_, memory) = parse(&wide);
    assert!(memory >= 1 << 30, "the crate is bounded now: {memory} bytes");
    refused(&file_of(&wide), "a.parquet");
    let name = "n".repeat(1 << 16);
    let mut long = vec![("schema", 1), (&name[..], 2_100)];
    long.extend(std::iter::repeat_n(("text", 0), 2_100));
    let long = footer_of(&long);
    let (_, memory) = parse(&long);
    assert!(memory > 128 * MIB, "the crate is bounded now: {memory} bytes");
    refused(&file_of(&long), "a.parquet");
}

/// Schemas by which the crate would overflow the stack, reserve 16 GiB, or write 10 GB of paths; and those that do not fit
/// their footer.
#[test]
fn parquet_schema_that_is_a_bomb_is_refused() {
    let small = file_of(&footer_of(&[
        ("schema", 2),
        ("article", 1),
        ("text", 0),
        ("id", 0),
    ]));
    let column = json!({ "format": { "kind": "parquet", "column": "article.text" } });
    assert!(ours(&small, "a.parquet", column).0.unwrap().is_empty());
    let message = refused(&small, "a.parquet");
    let strings = "no column `text`; its columns of strings are `article.text`, `id`";
    assert!(message.contains(strings), "{message}");
    let mut deep = vec![("a", 1); 200_000];
    deep.push(("text", 0));
    let wide = [("schema", 1), ("text", (1 << 30) - 1)];
    let name = "n".repeat(MIB);
    let mut long = vec![("schema", 1), (&name[..], 10_000)];
    long.extend(std::iter::repeat_n(("text", 0), 10_000));
    for elements in [
        &deep[..],
        &wide,
        &long,
        &[("schema", 3), ("text", 0)],
        &[("schema", 0), ("text", 0)],
    ] {
        let message = refused(&file_of(&footer_of(elements)), "a.parquet");
        assert!(
            message.contains("the Parquet file's footer is damaged"),
            "{message}"
        );
    }
    // Parsed, a footer takes more than it has bytes.
    let columns = vec![("a", 0); 100_000];
    let many = file_of(&footer_of(&[&[("schema", 100_000)][..], &columns].concat()));
    let (read, _) = ours(&many, "a.parquet", json!({ "largest_buffer": MIB }));
    let message = read.unwrap_err();
    assert!(message.contains("footer of 800"), "{message}");
}

/// Why levels are read here: a row may have any number of values, and the crate reads a row as a whole.
#[test]
fn parquet_crate_reads_a_row_of_any_length() {
    let mut list = ListBuilder::new(StringBuilder::new());
    (0..MIB).for_each(|_| list.values().append_value("x"));
    list.append(true);
    let properties = WriterProperties::builder()
        .set_data_page_row_count_limit(usize::MAX)
        .set_write_batch_size(MIB)
        .build();
    let file = parquet_of(&batch_of(Arc::new(list.finish())), properties);
    assert!(file.len() < 1 << 14, "{} bytes", file.len());
    let reader = SerializedFileReader::new(Bytes::from(file.clone())).unwrap();
    let ColumnReader::ByteArrayColumnReader(mut column) =
        reader.get_row_group(0).unwrap().get_column_reader(0).unwrap()
    else {
        panic!("a column of strings")
    };
    let (mut definitions, mut repetitions, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let read = || {
        column
            .read_records(1, Some(&mut definitions), Some(&mut repetitions), &mut values)
            .unwrap()
    };
    let ((records, count, _), memory) = peak(read);
    assert_eq!((records, count), (1, MIB), "the crate is bounded now");
    assert!(memory > 32 * MIB, "the crate is bounded now: {memory} bytes");
    let settings = json!({ "longest_record": 1000, "format": { "kind": "parquet", "column": "text" } });
    let (read, memory) = ours(&file, "a.parquet", settings);
    assert!(read.unwrap_err().contains("row 1"));
    assert!(memory < LITTLE, "{memory} bytes");
}

/// One page.
struct Once(Option<Page>);

impl Iterator for Once {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.take().map(Ok)
    }
}

impl PageReader for Once {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        Ok(self.0.take())
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        Ok(None)
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        Ok(())
    }
}

/// Why the lengths of strings are looked at before the crate takes a page: it makes room for as many as are stated. That
/// ours does not is a test beside the levels.
#[test]
fn parquet_crate_allocates_as_many_lengths_as_a_page_states() {
    let text = Type::primitive_type_builder("text", Physical::BYTE_ARRAY)
        .build()
        .unwrap();
    let column = ColumnDescriptor::new(Arc::new(text), 0, 0, ColumnPath::from("text"));
    // Blocks of 128 in 4 miniblocks; 2^25 lengths; the first is 0. DELTA_BINARY_PACKED of the format.
    let lengths = [0x80, 0x01, 4, 0x80, 0x80, 0x80, 0x10, 0];
    let page = Page::DataPage {
        buf: Bytes::copy_from_slice(&lengths),
        num_values: 1,
        encoding: Encoding::DELTA_LENGTH_BYTE_ARRAY,
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    };
    let mut reader = ColumnReaderImpl::<ByteArrayType>::new(Arc::new(column), Box::new(Once(Some(page))));
    let (_, memory) = peak(|| reader.read_records(1, None, None, &mut Vec::new()).is_ok());
    assert!(memory >= 128 * MIB, "the crate is bounded now: {memory} bytes");
}
