//! Digests: BLAKE3 of files and of folders of files.
//!
//! The digest of a folder is BLAKE3 over the line `mdlm artifact 1`, then for each file, by path: the length of its
//! path in bytes, the path relative to the folder with `/`, the file's length, the file's BLAKE3; lengths as 64-bit
//! little-endian numbers. Times, permissions and empty folders are not content.

use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::str::FromStr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Kind, Result, Wrap};

/// A BLAKE3 digest; 64 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path relative to the artifact, with `/`.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the content.
    pub digest: Digest,
}

/// Bytes that are read at a time: enough for all threads to hash 128 KiB pieces of it side by side.
const READ_BYTES: usize = 4 << 20;

impl Digest {
    /// The digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The digest that a hasher has come to.
    #[must_use]
    pub fn from_hash(hash: blake3::Hash) -> Self {
        Self(*hash.as_bytes())
    }

    /// The first eight digits: enough to distinguish two artifacts.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..8].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let hash = blake3::Hash::from_hex(text).wrap(Kind::Input, || format!("read the digest `{text}`"))?;
        // `from_hex` takes capital letters; a digest has one spelling.
        let digest = Self(*hash.as_bytes());
        if digest.to_string() == text {
            Ok(digest)
        } else {
            Err(Error::input(format!("read the digest `{text}`: capital letters")))
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Length and BLAKE3 of a file. Read, not mapped: a file that is truncated meanwhile must not kill the process.
///
/// # Errors
/// The file cannot be read.
pub fn hash_file(path: &Path) -> Result<(u64, Digest)> {
    hash_file_paced(path, &|_| ())
}

/// [`hash_file`] that calls `read` with the number of bytes of each block; `read` may block.
///
/// # Errors
/// The file cannot be read.
pub fn hash_file_paced(path: &Path, read: &(dyn Fn(u64) + Sync)) -> Result<(u64, Digest)> {
    let context = || format!("read `{}`", path.display());
    let mut file = File::open(path).context(context)?;
    let length = file.metadata().context(context)?.len();
    let size = READ_BYTES.min(usize::try_from(length).unwrap_or(READ_BYTES).max(4096) + 1);
    // What was read last is hashed while more is read.
    let (mut last, mut next) = (vec![0; size], vec![0; size]);
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    let mut filled = fill(&mut file, &mut last).context(context)?;
    while filled > 0 {
        read(filled as u64);
        bytes += filled as u64;
        let (more, _) = rayon::join(
            || fill(&mut file, &mut next),
            || hasher.update_rayon(&last[..filled]),
        );
        filled = more.context(context)?;
        std::mem::swap(&mut last, &mut next);
    }
    Ok((bytes, Digest(*hasher.finalize().as_bytes())))
}

/// Reads until a buffer is full or the file ends; the bytes read.
fn fill(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The files below a folder, by path, each hashed.
///
/// # Errors
/// Something that is not a plain file or folder, a name that is not UTF-8, or a file that cannot be read.
pub fn list_folder(folder: &Path) -> Result<Vec<FileEntry>> {
    hash_files(folder, &paths_below(folder)?)
}

/// The files below a folder: their paths relative to it with `/`, in order.
///
/// # Errors
/// Something that is not a plain file or folder, or a name that is not UTF-8.
pub(super) fn paths_below(folder: &Path) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    walk(folder, "", &mut paths)?;
    paths.sort();
    Ok(paths)
}

/// Hashes files below a folder.
///
/// # Errors
/// A file cannot be read.
pub(super) fn hash_files(folder: &Path, paths: &[String]) -> Result<Vec<FileEntry>> {
    paths
        .par_iter()
        .map(|path| {
            let (bytes, digest) = hash_file(&folder.join(path))?;
            Ok(FileEntry {
                path: path.clone(),
                bytes,
                digest,
            })
        })
        .collect()
}

fn walk(folder: &Path, prefix: &str, paths: &mut Vec<String>) -> Result<()> {
    let context = || format!("read `{}`", folder.display());
    for entry in fs::read_dir(folder).context(context)? {
        let entry = entry.context(context)?;
        let name = entry.file_name().into_string().map_err(|name| {
            Error::internal(format!(
                "list the artifact: the name `{}` is not UTF-8",
                name.display()
            ))
        })?;
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().context(context)?;
        if kind.is_dir() {
            walk(&entry.path(), &format!("{path}/"), paths)?;
        } else if kind.is_file() {
            paths.push(path);
        } else {
            return Err(Error::internal(format!(
                "list the artifact: `{path}` is neither a file nor a folder"
            )));
        }
    }
    Ok(())
}

/// The digest of a folder that holds these files, which are sorted by path.
#[must_use]
pub fn digest_of(files: &[FileEntry]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"mdlm artifact 1\n");
    for file in files {
        hasher.update(&(file.path.len() as u64).to_le_bytes());
        hasher.update(file.path.as_bytes());
        hasher.update(&file.bytes.to_le_bytes());
        hasher.update(&file.digest.0);
    }
    Digest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_reads_back_and_has_one_spelling() {
        let digest = Digest::of(b"text");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
        assert!("12".parse::<Digest>().is_err());
        assert_eq!(
            serde_json::from_str::<Digest>(&serde_json::to_string(&digest).unwrap()).unwrap(),
            digest
        );
    }

    #[test]
    fn digest_of_a_file_is_that_of_its_bytes_for_any_length() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 1, 4095, 4096, 4097, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            let path = folder.path().join("file");
            fs::write(&path, &bytes).unwrap();
            assert_eq!(
                hash_file(&path).unwrap(),
                (length as u64, Digest::of(&bytes)),
                "{length}"
            );
        }
    }

    #[test]
    fn digest_of_a_folder_is_of_its_paths_and_contents_alone() {
        let write = |files: &[(&str, &str)]| {
            let folder = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = folder.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            fs::create_dir_all(folder.path().join("empty")).unwrap();
            digest_of(&list_folder(folder.path()).unwrap())
        };
        let base = write(&[("a/b", "1"), ("a.c", "2")]);
        assert_eq!(base, write(&[("a.c", "2"), ("a/b", "1")]));
        assert_ne!(base, write(&[("a/b", "2"), ("a.c", "1")]));
        assert_ne!(base, write(&[("a/d", "1"), ("a.c", "2")]));
        assert_ne!(base, write(&[("a/b", "1")]));
        // Pinned: a change here orphans every store, so that the version in the hashed line must rise with it.
        assert_eq!(base.short(), "db538b33");
    }

    #[cfg(unix)]
    #[test]
    fn digest_refuses_a_link() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let error = list_folder(folder.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("`link` is neither a file nor a folder")
        );
    }
}
