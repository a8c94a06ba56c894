//! Durable names: a file that was renamed to its place stays there after a crash.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use crate::error::{Context as _, Error, Kind, Result, Wrap as _};

/// Opens a file to read it. What is no regular file is refused at once: opening a named pipe waits for a writer.
///
/// # Errors
/// Input error: it is absent, not readable, or no regular file.
pub fn open_file(path: &Path) -> Result<File> {
    let open = || "open it".to_owned();
    if !fs::metadata(path).context(open)?.is_file() {
        return Err(Error::input("not a file"));
    }
    File::open(path).context(open)
}

/// A file that is written beside its place; [`NewFile::finish`] makes it durable and puts it there. Dropped before that, it
/// leaves nothing behind.
#[derive(Debug)]
pub struct NewFile {
    place: PathBuf,
    beside: PathBuf,
    file: Option<BufWriter<File>>,
}

impl NewFile {
    /// Starts a file.
    ///
    /// # Errors
    /// The path names no file (input); the environment's, such as a folder that is missing or not writable.
    pub fn create(place: &Path) -> Result<Self> {
        let file_name = place
            .file_name()
            .ok_or_else(|| Error::input(format!("`{}` does not name a file", place.display())))?;
        let beside = place.with_file_name(format!(".{}.{}.partial", file_name.display(), std::process::id()));
        let file =
            File::create(&beside).wrap(Kind::Environment, || format!("write `{}`", place.display()))?;
        Ok(Self {
            place: place.to_owned(),
            beside,
            file: Some(BufWriter::with_capacity(1 << 20, file)),
        })
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The environment's, such as a full disk.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Err(Error::internal("a finished file is written to"));
        };
        file.write_all(bytes)
            .wrap(Kind::Environment, || format!("write `{}`", self.place.display()))
    }

    /// Makes the file durable and moves it to its place, replacing an existing file in one step.
    ///
    /// # Errors
    /// The environment's.
    pub fn finish(mut self) -> Result<()> {
        let Some(file) = self.file.take() else {
            return Err(Error::internal("a file finished twice"));
        };
        let result = file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .and_then(|file| {
                file.sync_all()?;
                drop(file);
                fs::rename(&self.beside, &self.place)
            });
        if result.is_err() {
            let _ = fs::remove_file(&self.beside);
        }
        result.wrap(Kind::Environment, || format!("write `{}`", self.place.display()))?;
        sync_parent(&self.place)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // The error that led here is the one to report.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

/// Makes the names in a folder durable.
///
/// # Errors
/// [`Environment`](crate::error::Kind::Environment): the folder cannot be written to disk.
#[cfg(unix)]
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
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
