//! Files from elsewhere → local files, once.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::event::Cancel;
use crate::manifest::source::RemoteFile;

/// A downloaded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it lies, named by its content.
    pub path: PathBuf,
    /// Where it came from: the URL, of a glob that of the match.
    pub url: String,
    /// SHA-256 of its content, in hex.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// How far a download is.
#[derive(Clone, Copy, Debug)]
pub struct FetchProgress<'a> {
    /// The URL.
    pub url: &'a str,
    /// Bytes here.
    pub done: u64,
    /// Bytes of the file, where the server says.
    pub total: Option<u64>,
}

/// The files that `remote` stands for, downloaded into `folder` unless they lie there already.
///
/// # Errors
/// The network's, a wrong checksum, a file that is too large, a full disk; somebody asked to end.
pub fn fetch(
    remote: &RemoteFile,
    folder: &Path,
    cancel: &Cancel,
    progress: &dyn Fn(FetchProgress<'_>),
) -> Result<Vec<Fetched>> {
    let _ = (folder, cancel, progress);
    Err(Error::internal(format!("download `{}`", remote.url)))
}

/// Checks a file that was brought by hand.
///
/// # Errors
/// It is absent, or its SHA-256 is another.
pub fn check(path: &Path, sha256: &str) -> Result<()> {
    Err(Error::internal(format!("check `{}` against {sha256}", path.display())))
}
