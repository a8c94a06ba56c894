//! Rows written and read again, and damaged ones.

use std::ops::Range;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::data::{SplitInfo, write_json};
use crate::manifest::{RowFormat, Scored, Split, Tail};

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
        context: false,
    }
}

/// Row r is r, r+1, … modulo the vocabulary; of a padded row, r % (L + 1) tokens are scored, the last of them after context of
/// which there is none, one token, and so on.
fn row(header: &Header, r: u64) -> (Vec<u32>, Range<usize>) {
    let length = header.length as usize;
    let token = |i: usize| ((r + i as u64) % u64::from(header.vocabulary)) as u32;
    let valid = if header.padded {
        (r % (length as u64 + 1)) as usize
    } else {
        length
    };
    let context = if header.context {
        r as usize % valid.max(1)
    } else {
        0
    };
    ((0..length).map(token).collect(), context..valid)
}

fn write(folder: &Path, header: &Header, format: RowFormat, rows: u64, shard_rows: u32) -> Rows {
    let mut writer = RowWriter::new(folder, Split::Train, format, header.clone(), shard_rows);
    for r in 0..rows {
        let (tokens, scored) = row(header, r);
        writer.push(&tokens, scored).unwrap();
    }
    let shards = writer.finish().unwrap().shards;
    let info = RowsInfo {
        length: header.length,
        wrap: !header.padded,
        stride: header.context.then_some(1),
        scored: Scored::All,
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
fn rows_are_read_back_as_written() {
    for format in [RowFormat::Arrow, RowFormat::Parquet] {
        // Vocabularies on both sides of 16 bits; shard sizes that divide the rows, do not, and exceed them.
        for (vocabulary, padded, context, rows, shard_rows) in [
            (65_536, false, false, 20, 10),
            (65_537, true, false, 23, 10),
            (70_000, false, false, 5, 100),
            (300, true, false, 7, 1),
            (300, true, true, 50, 20),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let header = Header {
                context,
                ..header(6, vocabulary, padded)
            };
            let read = write(folder.path(), &header, format, rows, shard_rows);
            assert_eq!(read.len(), rows);
            assert_eq!(
                read.split_info().shards.len() as u64,
                rows.div_ceil(u64::from(shard_rows))
            );
            let mut tokens = vec![0; 6];
            for r in (0..rows).rev() {
                let scored = read.read(r, &mut tokens).unwrap();
                assert_eq!((tokens.clone(), scored), row(&header, r), "row {r}");
            }
            assert!(Rows::open(folder.path(), Split::Validation).unwrap().is_empty());
        }
    }
}

#[test]
fn rows_are_read_across_batches() {
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
fn shard_bytes_are_a_function_of_its_rows() {
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
    let rows = Rows::from_memory(10, SPECIAL, 4, vec![1, 5, 2, 0, 1, 6, 7, 2], Some(&[0..3, 1..4])).unwrap();
    let mut tokens = [0; 4];
    assert_eq!(rows.read(0, &mut tokens).unwrap(), 0..3);
    assert_eq!(tokens, [1, 5, 2, 0]);
    assert_eq!(rows.read(1, &mut tokens).unwrap(), 1..4);
    assert_eq!(rows.split_info().valid_tokens, 6);
    let error = rows.check_trainable().unwrap_err();
    assert!(error.hint_text().unwrap().contains("without `stride`"), "{error}");
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
            with(&|i| i.vocabulary = 99).ends_with("`mdlm.vocabulary` is `100`, but `rows.json` says `99`")
        );
        assert!(with(&|i| i.wrap = false).ends_with("column `loss_mask` is absent"));
        // What begins with context is not read as what does not, and the other way round.
        assert!(with(&|i| i.stride = Some(2)).ends_with("column `loss_mask` is absent"));
        assert!(with(&|i| i.train.shards[0] = "../secret.arrow".to_owned()).contains("outside the artifact"));
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
    fn damaged_arrow_shard_never_panics(at: usize, value in 1u8.., cut: usize) {
        survive(RowFormat::Arrow, at, value, cut);
    }

    #[test]
    fn damaged_parquet_shard_never_panics(at: usize, value in 1u8.., cut: usize) {
        survive(RowFormat::Parquet, at, value, cut);
    }
}
