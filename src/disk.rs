//! Durable names: a file that was renamed to its place stays there after a crash.

use std::path::Path;

use crate::error::Result;

/// Makes the names in a folder durable.
///
/// # Errors
/// [`Environment`](crate::error::Kind::Environment): the folder cannot be written to disk.
#[cfg(unix)]
pub fn sync_folder(folder: &Path) -> Result<()> {
    use crate::error::{Kind, Wrap as _};

    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .wrap(Kind::Environment, || format!("sync `{}`", folder.display()))
}

/// Elsewhere a folder cannot be opened; the journal of the file system orders the renames.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn sync_folder(_: &Path) -> Result<()> {
    Ok(())
}

/// Makes the name of a file durable.
///
/// # Errors
/// Those of [`sync_folder`].
pub fn sync_parent(file: &Path) -> Result<()> {
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    sync_folder(folder.unwrap_or(Path::new(".")))
}
