//! Files mapped into memory: the seam (`lib.rs`, invariant 7) through which shards are read without a copy.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;

use crate::error::{Context as _, Result};

/// Maps a file of an artifact, read-only. An empty file is an empty slice.
///
/// # Errors
/// The file is absent, or cannot be read or mapped.
#[expect(unsafe_code, reason = "the seam: mapping a file has no safe form")]
pub fn map(path: &Path) -> Result<Bytes> {
    let open = || format!("open `{}`", path.display());
    let file = File::open(path).context(open)?;
    if file.metadata().context(open)?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the bytes must not change while they are mapped. Only files of committed artifacts come here, and
    // those are never written again: an artifact is written beside its place and renamed (invariant 2), and a
    // shard that a stage itself wrote is closed before it is read. Whatever the content, it is only ever looked
    // at as bytes or as integers, for which every bit pattern is valid; text is checked before it becomes `str`.
    let map = unsafe { memmap2::Mmap::map(&file) }.context(|| format!("map `{}`", path.display()))?;
    Ok(Bytes::from_owner(map))
}
