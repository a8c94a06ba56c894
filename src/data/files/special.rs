//! What a path leads to, when it does not lead to a plain file: a folder, a link to nothing, a pipe, a socket, a device.
//! To open some of these is to wait for ever; so a path is looked at before it is opened.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::Path;

use super::is_open_file;
use crate::error::{Error, Kind, Result, Wrap as _};

/// Links behind each other that the system follows, at most.
const LINKS: usize = 40;

/// The kind of file at a path.
#[derive(Debug)]
pub enum PathKind {
    /// A plain file, through links or not.
    File(Metadata),
    /// A folder, likewise.
    Folder(Metadata),
    /// Something else, and what to call it: `a named pipe`.
    Special(&'static str),
    /// A symbolic link that leads nowhere, and where it points.
    Dangling(String),
    /// Nothing.
    Nothing,
}

impl PathKind {
    /// Looks at a path without opening it.
    ///
    /// # Errors
    /// The system does not let it be looked at.
    pub fn of(path: &Path) -> Result<Self> {
        let looking = || format!("look at `{}`", path.display());
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => Ok(Self::File(metadata)),
            Ok(metadata) if metadata.is_dir() => Ok(Self::Folder(metadata)),
            Ok(metadata) => Ok(Self::Special(match special(&metadata) {
                "a named pipe" if is_open_file(&path.to_string_lossy()) => "a pipe",
                what => what,
            })),
            Err(error) => match fs::read_link(path) {
                Ok(to) if error.kind() != ErrorKind::PermissionDenied => {
                    Ok(Self::Dangling(to.display().to_string()))
                }
                Err(_) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    Ok(Self::Nothing)
                }
                // A name that no file can have, such as one of 300 characters.
                Err(_) if matches!(error.kind(), ErrorKind::InvalidFilename | ErrorKind::InvalidInput) => {
                    Ok(Self::Nothing)
                }
                _ => Err(error).wrap(Kind::Environment, looking),
            },
        }
    }
}

#[cfg(unix)]
fn special(metadata: &Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = metadata.file_type();
    if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn special(_: &Metadata) -> &'static str {
    "a device"
}

/// That something is not a plain file, with the way out. `name` is what the user wrote.
#[must_use]
pub fn refused(name: &str, what: &str) -> Error {
    Error::input(format!("`{name}` is {what}, not a file"))
        .hint("write its contents to a file, and name that file")
}

/// Whether a link leads to no end, as the system sees it.
fn leads_back(path: &Path) -> bool {
    let mut at = path.to_owned();
    for _ in 0..LINKS {
        let Ok(to) = fs::read_link(&at) else { return false };
        at.pop();
        at.push(to);
    }
    true
}

/// That a link leads nowhere, with the way out.
#[must_use]
pub fn dangling(path: &Path, name: &str, to: &str) -> Error {
    if leads_back(path) {
        return Error::input(format!(
            "`{name}` is a symbolic link to `{to}`, which leads back to itself"
        ))
        .hint("point the link at a file: `ln -sfn FILE LINK`");
    }
    // A link to a link to nothing.
    let target = path.parent().map_or_else(|| to.into(), |folder| folder.join(to));
    let why = if fs::symlink_metadata(target).is_ok() {
        "a link to a missing file"
    } else {
        "which does not exist"
    };
    Error::input(format!("`{name}` is a symbolic link to `{to}`, {why}"))
        .hint("create the file that the link names, or point the link at another file: `ln -sfn FILE LINK`")
}

/// Checks that a path leads to a plain file, if to anything: a missing file is reported when it is opened.
///
/// # Errors
/// The path leads to a folder, a pipe, a socket, a device, or to a link whose target is missing.
pub fn check(path: &Path) -> Result<()> {
    let name = path.display().to_string();
    match PathKind::of(path)? {
        PathKind::File(_) | PathKind::Nothing => Ok(()),
        PathKind::Folder(_) => Err(refused(&name, "a folder")),
        PathKind::Special(what) => Err(refused(&name, what)),
        PathKind::Dangling(to) => Err(dangling(path, &name, &to)),
    }
}
