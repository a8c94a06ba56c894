//! Checks of an operation's arguments, the same for every backend: the errors are internal, as callers check what users write.

use super::TokenRows;
use crate::error::{Error, Result};

/// Whether as many values are asked for as there are.
pub(super) fn check_count(expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::internal(format!("{expected} values into {found}")))
}

/// Indices below `count`, or an error that shows the first that is not.
pub(super) fn check_indices(what: &str, indices: &[u32], count: usize) -> Result<()> {
    match indices.iter().find(|&&index| index as usize >= count) {
        Some(index) => Err(Error::internal(format!("{what} {index} of {count}"))),
        None => Ok(()),
    }
}

/// Whether a layer of `outputs` outputs has those from `first` on.
pub(super) fn check_part(first: usize, part: usize, outputs: usize) -> Result<()> {
    if first + part <= outputs {
        return Ok(());
    }
    Err(Error::internal(format!(
        "outputs {first} and {part} more of {outputs}"
    )))
}

/// Whether a branch has as many rows as what it is added to.
pub(super) fn check_branch(rows: usize, count: usize) -> Result<()> {
    if rows == count {
        return Ok(());
    }
    Err(Error::internal(format!("a branch of {rows} rows for {count}")))
}

/// Whether `count` rows that are those token rows of a batch of `batch` rows may be so.
pub(super) fn check_token_rows(rows: TokenRows, count: usize, batch: usize) -> Result<()> {
    let fits = match rows.listed {
        None => count == batch * rows.length,
        Some(listed) => {
            listed.len() == count
                && listed.is_sorted_by(|a, b| a < b)
                && listed
                    .last()
                    .is_none_or(|&last| (last as usize) < batch * rows.length)
        }
    };
    if fits {
        return Ok(());
    }
    Err(Error::internal(format!(
        "{count} rows as token rows of a batch of {batch} times {}",
        rows.length
    )))
}

/// Whether a modulation of m rows and the chunks of it fit `count` rows of width D.
pub(super) fn check_modulation(
    rows: TokenRows,
    count: usize,
    width: usize,
    modulation: (usize, usize),
    chunks: &[usize],
) -> Result<()> {
    let (m, columns) = modulation;
    if m == 0 || chunks.iter().any(|chunk| (chunk + 1) * width > columns) {
        return Err(Error::internal(format!(
            "modulation {m}x{columns} for width {width}, chunks {chunks:?}"
        )));
    }
    if m == 1 {
        return Ok(());
    }
    check_token_rows(rows, count, m)
}
