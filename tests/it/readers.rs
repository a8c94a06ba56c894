//! Row files are read by other programs as they are: pyarrow and DuckDB, where Python has them.

use std::path::Path;
use std::process::Command;

use mdlm::data::SpecialIds;
use mdlm::data::rows::{Header, RowWriter};
use mdlm::manifest::{RowFormat, Split};
use serde_json::{Value, json};

use crate::require::require;
use crate::support::python_with;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/read_rows.py");
const LENGTH: u32 = 6;
/// More than a batch of the shards' (a row group of Parquet's) would be a slow test; several shards are not.
const ROWS: u32 = 40;

/// Token i of a row: ids up to the largest of the vocabulary.
fn token(vocabulary: u32, row: u32, i: u32) -> u32 {
    (row * 9973 + i * 31).wrapping_mul(7919) % vocabulary
}

/// Tokens of a padded row that count.
fn counted(row: u32) -> u32 {
    row % (LENGTH + 1)
}

fn header(vocabulary: u32, padded: bool) -> Header {
    Header {
        length: LENGTH,
        vocabulary,
        special: SpecialIds {
            bos: 1,
            eos: 2,
            pad: 0,
            mask: vocabulary - 1,
        },
        tokenizer_digest: "0123abcd".to_owned(),
        padded,
        context: false,
    }
}

/// The shard's path.
fn write(folder: &Path, header: &Header, format: RowFormat) -> String {
    let mut writer = RowWriter::new(folder, Split::Train, format, header.clone(), 1000);
    for row in 0..ROWS {
        let tokens: Vec<u32> = (0..LENGTH).map(|i| token(header.vocabulary, row, i)).collect();
        let counted = if header.padded { counted(row) } else { LENGTH };
        writer.push(&tokens, 0..counted as usize).unwrap();
    }
    let shards = writer.finish().unwrap().shards;
    folder.join(&shards[0]).to_str().unwrap().to_owned()
}

#[test]
fn rows_are_readable_by_pyarrow_and_duckdb() {
    let Some(python) = require("pyarrow", python_with(&["pyarrow", "duckdb"])) else {
        return;
    };
    // 16 bits with a loss mask, 32 bits without.
    for (vocabulary, padded, bits, duck) in [
        (65_536, true, "uint16", "USMALLINT"),
        (65_537, false, "uint32", "UINTEGER"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let header = header(vocabulary, padded);
        let files =
            [RowFormat::Arrow, RowFormat::Parquet].map(|format| write(folder.path(), &header, format));
        let output = Command::new(&python).arg(SCRIPT).args(&files).output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{talk}");
        let answers: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();

        let tokens: Vec<Vec<u32>> = (0..ROWS)
            .map(|row| (0..LENGTH).map(|i| token(vocabulary, row, i)).collect())
            .collect();
        let mask: Vec<Vec<u32>> = (0..ROWS)
            .map(|row| (0..LENGTH).map(|i| u32::from(i < counted(row))).collect())
            .collect();
        let columns = |tokens_type: &str, mask_type: &str| {
            let mut columns = json!({ "input_ids": { "type": tokens_type, "values": tokens } });
            if padded {
                columns["loss_mask"] = json!({ "type": mask_type, "values": mask });
            }
            columns
        };
        assert_eq!(answers.len(), files.len());
        for (file, answer) in files.iter().zip(&answers) {
            let of_pyarrow = json!({
                "rows": ROWS,
                "columns": columns(&format!("{LENGTH} x {bits}"), &format!("{LENGTH} x uint8")),
                "metadata": {
                    "mdlm.length": LENGTH.to_string(), "mdlm.vocabulary": vocabulary.to_string(), "mdlm.bos": "1",
                    "mdlm.eos": "2", "mdlm.pad": "0", "mdlm.mask": (vocabulary - 1).to_string(),
                    "mdlm.tokenizer_digest": "0123abcd",
                },
            });
            assert_eq!(answer["pyarrow"], of_pyarrow, "{file}");
            // Parquet's lists have no length in their type.
            let length = if file.split('.').next_back() == Some("arrow") {
                LENGTH.to_string()
            } else {
                String::new()
            };
            let of_duckdb = json!({
                "rows": ROWS,
                "tokens": ROWS * LENGTH,
                "columns": columns(&format!("{duck}[{length}]"), &format!("UTINYINT[{length}]")),
            });
            assert_eq!(answer["duckdb"], of_duckdb, "{file}");
        }
    }
}
