//! Refusals of what would end in a panic deep within a kernel.

use super::Batch;
use crate::error::{Error, Result};
use crate::kernels::VocabSupport;
use crate::shapes::Shape;

/// The error of a shape that is not in the registry.
pub(super) fn not_compiled(shape: &Shape) -> Error {
    Error::internal(format!("shape `{}` is not compiled", shape.name))
}

pub(super) fn check_len(what: &str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::internal(format!("{found} {what} where {expected} belong")))
}

/// Refuses what would end in a panic deep within a kernel.
pub(super) fn check_inputs(shape: &Shape, tokens: &[u32], sigma: &[f32], positions: &[u32]) -> Result<()> {
    let rows = tokens.len() / shape.length;
    check_len("tokens", rows.max(1) * shape.length, tokens.len())?;
    if sigma.len() != 1 {
        check_len("values of sigma", rows, sigma.len())?;
    }
    if let Some(at) = tokens
        .iter()
        .position(|&token| token as usize >= shape.vocabulary)
    {
        let (token, vocabulary) = (tokens[at], shape.vocabulary);
        return Err(Error::internal(format!(
            "token {token} at {at} of a vocabulary of {vocabulary}"
        )));
    }
    check_positions(positions, tokens.len())
}

/// Refuses positions that do not ascend, or lie beyond so many tokens.
pub(super) fn check_positions(positions: &[u32], tokens: usize) -> Result<()> {
    let ascending = positions.windows(2).all(|pair| pair[0] < pair[1]);
    let inside = positions.last().is_none_or(|&last| (last as usize) < tokens);
    if ascending && inside {
        return Ok(());
    }
    Err(Error::internal("positions must ascend within the batch"))
}

pub(super) fn check_batch(shape: &Shape, batch: &Batch<'_>, support: VocabSupport) -> Result<()> {
    check_inputs(shape, batch.tokens, batch.sigma, batch.positions)?;
    batch
        .readout(support)
        .check(batch.positions.len(), shape.vocabulary)
}
