//! What tests of several modules need, of this crate and of those above it (feature `testing`).

use std::path::{Path, PathBuf};

/// A path from the repository's root: cargo runs the tests of a crate in the crate's folder.
///
/// # Panics
/// The crate's folder is not two folders below the root.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    let mut above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    above.nth(2).expect("the repository's root").join(path)
}
