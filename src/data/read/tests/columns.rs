//! Parquet and Arrow: other layouts of files, shards without texts, damage and bombs.

use ::arrow::array::{
    Array, DictionaryArray, Float64Array, Int64Array, ListArray, NullArray, StringArray, StructArray,
    new_empty_array, new_null_array,
};
use ::arrow::datatypes::Int32Type;
use ::arrow::ipc::writer::{DictionaryHandling, IpcWriteOptions};
use ::parquet::basic::{Compression as Codec, Encoding};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::reader::{FileReader as _, SerializedFileReader};

use super::*;

fn batch_of(column: &str, array: ArrayRef) -> RecordBatch {
    let schema = Schema::new(vec![Field::new(column, array.data_type().clone(), true)]);
    RecordBatch::try_new(Arc::new(schema), vec![array]).unwrap()
}

fn stream_of(batches: &[RecordBatch], options: IpcWriteOptions) -> Vec<u8> {
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batches[0].schema(), options).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn file_of(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = FileWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn parquet_with(batch: &RecordBatch, properties: WriterProperties) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// A batch as Parquet, an Arrow stream and an Arrow file.
fn every_form(batch: &RecordBatch) -> [(&'static str, Vec<u8>); 3] {
    let one = std::slice::from_ref(batch);
    [
        ("a.parquet", parquet_with(batch, WriterProperties::default())),
        ("stream.arrow", stream_of(one, IpcWriteOptions::default())),
        ("file.arrow", file_of(one)),
    ]
}

#[test]
fn arrow_streams_that_are_joined_are_read() {
    let one = arrow_stream(&["one", "two"]);
    let dictionary = |texts: &[&str]| -> RecordBatch {
        let array: DictionaryArray<Int32Type> = texts.iter().copied().collect();
        batch_of("text", Arc::new(array))
    };
    let zstd = IpcWriteOptions::default()
        .try_with_compression(Some(::arrow::ipc::CompressionType::ZSTD))
        .unwrap();
    // Dictionaries that are replaced, and that grow.
    let batches = [dictionary(&["three"]), dictionary(&["three", "four"])];
    let replaced = stream_of(&batches, zstd);
    let delta = IpcWriteOptions::default().with_dictionary_handling(DictionaryHandling::Delta);
    let grown = stream_of(&batches, delta);
    assert_eq!(texts(&replaced, "a.arrow", json!({})), ["three", "three", "four"]);
    assert_eq!(texts(&grown, "a.arrow", json!({})), ["three", "three", "four"]);
    let all = [
        &one[..],
        &replaced,
        &[0; 24],
        &grown,
        &arrow_stream(&["five"]),
        &[0; 3],
    ]
    .concat();
    assert_eq!(
        texts(&gzip(&all), "a.arrow.gz", json!({})),
        [
            "one", "two", "three", "three", "four", "three", "three", "four", "five"
        ]
    );
    // Another one without the column, one that is cut off, and what is none.
    let other = batch_of("other", Arc::new(StringArray::from(vec!["x"])));
    let other = stream_of(&[other], IpcWriteOptions::default());
    let cases: [(&[u8], &str); 5] = [
        (&other, "no column `text`; its columns of strings are `other`"),
        (&one[..one.len() - 9], "damaged or truncated"),
        (b"and some text", "length of its description"),
        (&arrow_file(&["x"]), "length of its description"),
        (b"x", "truncated"),
    ];
    for (rest, expected) in cases {
        let message = fault(&[&one[..], rest].concat(), "a.arrow", json!({}));
        assert!(
            message.contains("stream 2, after the end mark of the previous stream")
                && message.contains(expected),
            "{message}"
        );
    }
    let bad = [
        one.clone(),
        stream_of(
            &[dictionary(&["\u{1}ok", "\u{1}bad"])],
            IpcWriteOptions::default(),
        ),
    ]
    .concat();
    let at = memchr::memmem::find(&bad, b"\x01bad").unwrap();
    let mut bad = bad;
    bad[at] = 0xFF;
    assert!(fault(&bad, "a.arrow", json!({})).contains("row 4: invalid UTF-8"));
}

/// Where the first batch of a file is: behind its schema message, which stands behind the padded magic.
fn first_batch(file: &[u8]) -> usize {
    let at = 8 + file[8..].iter().position(|&byte| byte != 0).unwrap();
    assert_eq!(file[at..at + 4], [0xFF; 4]);
    at + 8 + i32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap()) as usize
}

#[test]
fn arrow_file_is_read_by_its_footer() {
    let batches = [batch(&["one", "two"]), batch(&["three"])];
    let file = file_of(&batches);
    let three = ["one", "two", "three"];
    assert_eq!(texts(&file, "a", json!({})), three);
    let length = file.len() - 10;
    let footer = length - i32::from_le_bytes(file[length..length + 4].try_into().unwrap()) as usize;
    // Without an end mark, as Go's writer had it.
    let unmarked = [&file[..footer - 8], &file[footer..]].concat();
    assert_eq!(texts(&unmarked, "a", json!({})), three);
    // Without a schema message, or with one that has no length before it.
    let first = first_batch(&file);
    for filling in [0, 0x04] {
        let mut bare = file.clone();
        bare[8..first].fill(filling);
        assert_eq!(texts(&bare, "a", json!({})), three);
        for (name, bytes) in [("a.gz", gzip(&bare)), ("a.tar", tar(&[("x.arrow", b'0', &bare)]))] {
            assert_eq!(texts(&bytes, name, json!({})), three, "{name}");
        }
    }
    let empty = file_of(&[batch(&[])]);
    assert_eq!(texts(&empty, "a", json!({})), [""; 0]);
    let mut none = FileWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    none.finish().unwrap();
    let none = none.into_inner().unwrap();
    assert_eq!(texts(&none, "a", json!({})), [""; 0]);
    // Joined files have footers that know of one file each.
    for joined in [
        [&file[..], &file].concat(),
        [&file[..], &empty].concat(),
        [&file[..], &none].concat(),
    ] {
        let message = fault(&joined, "a.arrow", json!({}));
        assert!(
            message.contains("files were joined") && message.contains("one by one"),
            "{message}"
        );
    }
    assert!(fault(&file[..file.len() - 1], "a", json!({})).contains("does not end with its footer"));
    assert!(fault(&file[..20], "a", json!({})).contains("cut off"));
}

/// The block of a footer: where a message is, how long its description and its body are.
fn block(offset: u64, description: u32, body: u64) -> Vec<u8> {
    let parts = [
        &offset.to_le_bytes()[..],
        &description.to_le_bytes(),
        &[0; 4],
        &body.to_le_bytes(),
    ];
    parts.concat()
}

#[test]
fn arrow_footer_that_is_hostile_is_refused() {
    let long = "x".repeat(2000);
    let file = file_of(&[batch(&[&long]), batch(&["two"])]);
    let mut at = first_batch(&file);
    let mut blocks = Vec::new();
    for _ in 0..2 {
        let description = 8 + u32::from_le_bytes(file[at + 4..at + 8].try_into().unwrap());
        let message = ::arrow::ipc::root_as_message(&file[at + 8..at + description as usize]).unwrap();
        blocks.push((at as u64, description, message.bodyLength() as u64));
        at += description as usize + message.bodyLength() as usize;
    }
    let change = |number: usize, (offset, description, body): (u64, u32, u64)| {
        let (old_offset, old_description, old_body) = blocks[number];
        let place = memchr::memmem::rfind(&file, &block(old_offset, old_description, old_body)).unwrap();
        let mut file = file.clone();
        file[place..place + 24].copy_from_slice(&block(offset, description, body));
        file
    };
    let (offset, description, body) = blocks[1];
    for outside in [
        (1 << 40, description, body),
        (offset, description, 1 << 40),
        (offset, description, u64::MAX),
        (offset, 0x7FFF_FFF8, body),
        (offset, 0, body),
        (0, description, body),
        (u64::MAX, description, body),
    ] {
        let message = fault(&change(1, outside), "a", json!({}));
        assert!(
            message.contains("batch 2 lies outside the file"),
            "{outside:?}: {message}"
        );
    }
    // The same batch again.
    let message = fault(&change(1, blocks[0]), "a", json!({}));
    assert!(message.contains("bytes of batches, but"), "{message}");
    // Where there is no batch.
    let message = fault(&change(1, (offset + 8, description, body - 8)), "a", json!({}));
    assert!(message.contains("description"), "{message}");
    // Which of two dictionaries counts is open: all are read before the batches.
    let dictionary = |text: &str| {
        let array: DictionaryArray<Int32Type> = [text].into_iter().collect();
        batch_of("text", Arc::new(array))
    };
    let mut writer = FileWriter::try_new(Vec::new(), &dictionary("a").schema()).unwrap();
    writer.write(&dictionary("a")).unwrap();
    assert!(
        writer.write(&dictionary("b")).is_err(),
        "a file with two could be written: test it"
    );
}

#[test]
fn column_of_nulls_alone_has_empty_records() {
    let nulls = |count| -> ArrayRef { Arc::new(NullArray::new(count)) };
    let element = Arc::new(Field::new("item", DataType::Null, true));
    let list = |lengths: &[usize]| -> ArrayRef {
        let offsets = ::arrow::buffer::OffsetBuffer::from_lengths(lengths.iter().copied());
        let values = nulls(lengths.iter().sum());
        Arc::new(ListArray::new(element.clone(), offsets, values, None))
    };
    let structure = |field: ArrayRef| -> ArrayRef {
        let fields = vec![Field::new("text", field.data_type().clone(), true)];
        Arc::new(StructArray::new(fields.into(), vec![field], None))
    };
    let title: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let list_of_numbers = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    let cases: Vec<(&str, ArrayRef, &str, u64)> = vec![
        ("text", nulls(3), "text", 3),
        ("text", list(&[0, 0]), "text", 2),
        ("text", list(&[0, 2]), "text", 2),
        ("text", Arc::new(Float64Array::from(vec![None, None])), "text", 2),
        ("text", new_null_array(&DataType::Boolean, 2), "text", 2),
        ("article", structure(nulls(2)), "article.text", 2),
        (
            "article",
            structure(new_null_array(&DataType::Int64, 2)),
            "article.text",
            2,
        ),
        ("article", nulls(2), "article.text", 2),
        ("text", new_null_array(&DataType::Utf8, 2), "text", 2),
        // A group whose rows have no values, be it null or all that lies in it, has no text, whatever it could hold.
        (
            "text",
            new_null_array(structure(title.clone()).data_type(), 2),
            "text",
            2,
        ),
        ("text", structure(new_null_array(&DataType::Utf8, 2)), "text", 2),
        ("text", structure(structure(nulls(2))), "text", 2),
        (
            "article",
            structure(new_null_array(&DataType::Utf8, 2)),
            "article.body",
            2,
        ),
        ("article", two_fields(None), "article", 2),
        ("article", two_fields(None), "article.body", 2),
        ("article", two_fields(None), "article.text.body", 2),
        (
            "article",
            new_null_array(&DataType::Float64, 2),
            "article.text",
            2,
        ),
        ("article", new_null_array(&list_of_numbers, 2), "article.text", 2),
        ("text", new_empty_array(&DataType::Float64), "text", 0),
        ("text", nulls(0), "text", 0),
        (
            "article",
            structure(new_empty_array(&DataType::Int64)),
            "article",
            0,
        ),
        (
            "article",
            structure(new_empty_array(&DataType::Utf8)),
            "article",
            0,
        ),
    ];
    for (column, array, wanted, empty) in cases {
        let batch = batch_of(column, array);
        for (name, bytes) in every_form(&batch) {
            let kind = if name == "a.parquet" { "parquet" } else { "arrow" };
            let reading = reading(json!({"format": {"kind": kind, "column": wanted}}));
            let found = read(&bytes, name, &reading);
            let (records, irregular) =
                found.unwrap_or_else(|error| panic!("{name} {}: {error}", batch.schema()));
            assert_eq!(
                (records.len(), irregular.empty),
                (0, empty),
                "{name} {}",
                batch.schema()
            );
        }
    }
}

/// A structure of a text and a number, two rows long: all nulls, or a number in the second row.
fn two_fields(number: Option<i64>) -> ArrayRef {
    let text = new_null_array(&DataType::Utf8, 2);
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![None, number]));
    let fields = vec![
        Field::new("text", DataType::Utf8, true),
        Field::new("number", DataType::Int64, true),
    ];
    Arc::new(StructArray::new(fields.into(), vec![text, numbers], None))
}

/// One value in a group is enough: its rows may be what is meant.
#[test]
fn column_of_groups_with_a_value_is_not_one_of_nulls() {
    let batch = batch_of("article", two_fields(Some(1)));
    for wanted in ["article", "article.body"] {
        for (name, bytes) in every_form(&batch) {
            let kind = if name == "a.parquet" { "parquet" } else { "arrow" };
            let message = fault(&bytes, name, json!({"format": {"kind": kind, "column": wanted}}));
            let no_column = message.contains(&format!("no column `{wanted}`"));
            let no_strings = message.contains("the column `article` holds values of the type Struct");
            assert!(no_column || no_strings, "{name} {wanted}: {message}");
            assert!(
                message.contains("its columns of strings are `article.text`"),
                "{message}"
            );
        }
    }
}

#[test]
fn column_without_text_is_refused_with_the_columns_of_text() {
    let id: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(7)]));
    let title: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let inner = vec![Field::new("body", DataType::Utf8, true)];
    let page: ArrayRef = Arc::new(StructArray::new(inner.into(), vec![title.clone()], None));
    let fields = |names: [(&str, &ArrayRef); 3]| {
        names
            .map(|(name, array)| Field::new(name, array.data_type().clone(), true))
            .to_vec()
    };
    let schema = Schema::new(fields([("text", &id), ("title", &title), ("page", &page)]));
    let batch = RecordBatch::try_new(Arc::new(schema), vec![id.clone(), title, page]).unwrap();
    for (name, bytes) in every_form(&batch) {
        let message = fault(&bytes, name, json!({}));
        let kind = if name == "a.parquet" { "INT64" } else { "Int64" };
        assert!(
            message.contains(&format!(
                "the column `text` holds values of the type {kind}, not strings"
            )) && message.contains("its columns of strings are `title`, `page.body`; set `column`"),
            "{name}: {message}"
        );
    }
    for (name, bytes) in every_form(&batch_of("text", id)) {
        assert!(
            fault(&bytes, name, json!({})).contains("no column holds strings"),
            "{name}"
        );
    }
    // Nulls do not stand for what another column holds.
    let column = |kind: &str| json!({"format": {"kind": kind, "column": "id.text"}});
    let numbers = batch_of("id", Arc::new(Int64Array::from(vec![1])));
    for (name, bytes) in every_form(&numbers) {
        let kind = if name == "a.parquet" { "parquet" } else { "arrow" };
        assert!(
            fault(&bytes, name, column(kind)).contains("no column `id.text`"),
            "{name}"
        );
    }
}

#[test]
fn parquet_page_checksums_are_checked() {
    for name in ["checksums1.parquet", "checksums2.parquet"] {
        let whole = golden(name);
        assert_eq!(texts(&whole, name, json!({})), forty(), "{name}");
        let reader = SerializedFileReader::new(Bytes::from(whole.clone())).unwrap();
        let range = |column: usize| {
            let (start, length) = reader.metadata().row_group(0).column(column).byte_range();
            start as usize..(start + length) as usize
        };
        // In a column that is not wanted nothing is looked at.
        for at in range(0) {
            let mut broken = whole.clone();
            broken[at] ^= 0x01;
            assert_eq!(texts(&broken, name, json!({})), forty(), "{name} {at}");
        }
        // In the one that is, no changed bit passes: the header is not part of what the checksum covers, but what it says is
        // either checked or of no consequence.
        let mut checked = 0;
        for at in range(1) {
            let mut broken = whole.clone();
            broken[at] ^= 0x01;
            match read(&broken, name, &Reading::default()) {
                Ok((records, _)) => assert_eq!(records, forty(), "{name} {at}"),
                Err(error) => {
                    let text = error.to_string();
                    checked += usize::from(text.contains("do not have the checksum that its header states"));
                    assert!(text.contains("row group 1: page "), "{text}");
                }
            }
        }
        assert!(checked > range(1).len() / 2, "{name}: {checked}");
        // The dictionary page is the first.
        let mut broken = whole.clone();
        let at = memchr::memmem::find(&broken[range(1)], b"two\nlines").map(|at| at + range(1).start);
        if let Some(at) = at {
            broken[at] = b'T';
            let message = fault(&broken, name, json!({}));
            assert!(message.contains("row group 1: page 1 at byte"), "{message}");
        } else {
            assert_eq!(name, "checksums2.parquet");
        }
    }
    let message = fault(&golden("encrypted.parquet"), "a", json!({}));
    assert!(
        message.contains("the Parquet file is encrypted; write it without"),
        "{message}"
    );
}

#[test]
fn parquet_files_that_are_joined_are_refused() {
    let file = parquet_of(&["one", "two"]);
    for joined in [
        [&file[..], &file].concat(),
        [&golden("none.parquet")[..], &file].concat(),
    ] {
        let message = fault(&joined, "a.parquet", json!({}));
        assert!(
            message.contains("files were joined") && message.contains("one by one"),
            "{message}"
        );
    }
}

#[test]
fn parquet_codecs_and_encodings_are_read_at_any_ratio() {
    let long: Vec<String> = (0..300)
        .map(|number| format!("{number} {}", "very long ".repeat(900)))
        .collect();
    let batch = batch(&long.iter().map(String::as_str).collect::<Vec<_>>());
    let codecs = [
        Codec::UNCOMPRESSED,
        Codec::SNAPPY,
        Codec::GZIP(::parquet::basic::GzipLevel::default()),
        Codec::ZSTD(::parquet::basic::ZstdLevel::default()),
        Codec::LZ4_RAW,
    ];
    let encodings = [
        Encoding::PLAIN,
        Encoding::DELTA_LENGTH_BYTE_ARRAY,
        Encoding::DELTA_BYTE_ARRAY,
    ];
    for codec in codecs {
        for encoding in encodings {
            let properties = WriterProperties::builder()
                .set_compression(codec)
                .set_dictionary_enabled(false)
                .set_encoding(encoding)
                .build();
            let bytes = parquet_with(&batch, properties);
            assert!(texts(&bytes, "a", json!({})) == long, "{codec} {encoding}");
        }
    }
}

/// A file whose only page is of 4 MiB and stated to be of 1 MiB.
fn lying_page() -> Vec<u8> {
    let text = "a".repeat(4 << 20);
    let properties = WriterProperties::builder()
        .set_compression(Codec::GZIP(::parquet::basic::GzipLevel::default()))
        .set_dictionary_enabled(false)
        .build();
    let mut bytes = parquet_with(&batch(&[&text]), properties);
    // Its header: field 1, type 0; field 2, the length as a zigzag varint.
    assert_eq!(bytes[4..7], [0x15, 0, 0x15]);
    bytes[7..11].copy_from_slice(&[0x80, 0x80, 0x80, 0x01]);
    bytes
}

/// Why pages are decompressed here: the crate makes of a gzip page whatever comes, and looks at the length afterwards.
#[test]
fn parquet_crate_decompresses_without_a_bound() {
    let bytes = lying_page();
    let reader = SerializedFileReader::new(Bytes::from(bytes.clone())).unwrap();
    let mut pages = reader
        .get_row_group(0)
        .unwrap()
        .get_column_page_reader(0)
        .unwrap();
    let error = pages.get_next_page().unwrap_err().to_string();
    assert!(
        error.contains("(41943") && error.contains("vs 1048576)"),
        "the crate stops now: {error}"
    );
    let message = fault(&bytes, "a", json!({"largest_buffer": 1 << 20}));
    assert!(
        message.contains("page 1 at byte 4: it takes more than 1 MiB"),
        "{message}"
    );
    let message = fault(&bytes, "a", json!({"largest_ratio": 100}));
    assert!(message.contains("more than 100 times"), "{message}");
}
