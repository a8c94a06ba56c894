//! `losses.arrow` of an evaluation: the loss of each row, so that two models compare row by row.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrowPrimitiveType, AsArray as _, PrimitiveArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, UInt32Type, UInt64Type};

use crate::data::columns::{ColumnFile, ColumnWriter};
use crate::error::{Context as _, Error, Kind, Result, Wrap as _};
use crate::evaluate::LossesByRow;
use crate::store::Digest;

/// File name.
const LOSSES: &str = "losses.arrow";
/// The key of the schema's metadata with [`LossesByRow::text`].
const TEXT: &str = "rows";

/// Writes the losses of an evaluation: a record batch of `row`, `nats` and `valid_tokens`, one line a row.
///
/// # Errors
/// Environment error: the file cannot be written, for instance because the disk is full.
pub(super) fn write(folder: &Path, losses: &LossesByRow) -> Result<()> {
    let fields = vec![
        Field::new("row", DataType::UInt64, false),
        Field::new("nats", DataType::Float64, false),
        Field::new("valid_tokens", DataType::UInt32, false),
    ];
    let text = HashMap::from([(TEXT.to_owned(), losses.text.to_string())]);
    let schema = Arc::new(Schema::new_with_metadata(fields, text));
    let batch = RecordBatch::try_new(
        schema.clone(),
        vec![
            Arc::new(PrimitiveArray::<UInt64Type>::from(losses.rows.clone())),
            Arc::new(PrimitiveArray::<Float64Type>::from(losses.nats.clone())),
            Arc::new(PrimitiveArray::<UInt32Type>::from(losses.valid_tokens.clone())),
        ],
    )
    .wrap(Kind::Internal, || format!("form the columns of `{LOSSES}`"))?;
    let mut writer = ColumnWriter::create(&folder.join(LOSSES), &schema)?;
    writer.write(&batch)?;
    writer.finish()
}

/// Reads the losses of an evaluation; nothing where it has none, as those of older versions.
///
/// # Errors
/// The file cannot be read or is damaged.
pub(super) fn read(folder: &Path) -> Result<Option<LossesByRow>> {
    let path = folder.join(LOSSES);
    if !path.exists() {
        return Ok(None);
    }
    let file = ColumnFile::stream(&path)?;
    let what = || format!("read `{}`", path.display());
    let text = file.schema().metadata.get(TEXT);
    let text: Option<Digest> = text.and_then(|text| text.parse().ok());
    let mut losses = LossesByRow {
        rows: Vec::new(),
        nats: Vec::new(),
        valid_tokens: Vec::new(),
        text: text
            .ok_or_else(|| Error::input(format!("its schema has no digest `{TEXT}`")).context(what()))?,
    };
    for index in 0..file.batches() {
        let batch = file.batch(index)?;
        losses
            .rows
            .extend(column::<UInt64Type>(&batch, "row").context(what)?);
        losses
            .nats
            .extend(column::<Float64Type>(&batch, "nats").context(what)?);
        losses
            .valid_tokens
            .extend(column::<UInt32Type>(&batch, "valid_tokens").context(what)?);
    }
    Ok(Some(losses))
}

/// The values of a column.
fn column<'a, T: ArrowPrimitiveType>(batch: &'a RecordBatch, name: &str) -> Result<&'a [T::Native]> {
    batch
        .column_by_name(name)
        .and_then(|column| column.as_primitive_opt::<T>())
        .map(|column| &column.values()[..])
        .ok_or_else(|| Error::input(format!("it has no column `{name}` of {}", T::DATA_TYPE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_by_row_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        let losses = LossesByRow {
            rows: vec![3, 1, 2],
            nats: vec![0.1 + 0.2, 0.0, 7.5],
            valid_tokens: vec![4, 0, 3],
            text: Digest::of(b"rows"),
        };
        write(folder.path(), &losses).unwrap();
        assert_eq!(read(folder.path()).unwrap().unwrap(), losses);
    }

    #[test]
    fn losses_by_row_that_are_cut_off_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let losses = LossesByRow {
            rows: vec![0],
            nats: vec![1.0],
            valid_tokens: vec![1],
            text: Digest::of(b"rows"),
        };
        write(folder.path(), &losses).unwrap();
        let path = folder.path().join(LOSSES);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(LOSSES), "{error}");
    }
}
