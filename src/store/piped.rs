//! Text that came through a pipe: copied into the store, under the digest of its content, so that a stage can read it
//! twice and a later run can read it again.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Digest, Record, Store, beside, create_folder, names_below, remove_file};
use crate::error::{Context as _, Kind, Result, Wrap as _};

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;
/// What is younger may be of a run that has no record yet; what is half written and older is of one that died.
const YOUNG: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads a pipe to its end: its length and digest. What is read goes to `to` too.
///
/// # Errors
/// The pipe cannot be read, `to` cannot be written; the errors of `go_on`, which is called with the bytes so far.
pub fn drain(
    input: &mut dyn Read,
    mut to: Option<&mut File>,
    go_on: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<(u64, Digest)> {
    let mut buffer = vec![0; READ_BYTES];
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    loop {
        let count = match input.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).wrap(Kind::Environment, || "read the pipe".to_owned()),
        };
        // An end that comes with an interruption is that of a writer who was interrupted too.
        go_on(bytes)?;
        if count == 0 {
            return Ok((bytes, Digest::from_hash(hasher.finalize())));
        }
        hasher.update(&buffer[..count]);
        if let Some(to) = &mut to {
            to.write_all(&buffer[..count])
                .context(|| "copy the pipe into the store".to_owned())?;
        }
        bytes += count as u64;
    }
}

impl Store {
    fn piped_folder(&self) -> PathBuf {
        self.root().join("piped")
    }

    /// Where text that came through a pipe lies, if it is here.
    #[must_use]
    pub fn piped(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.piped_folder().join(digest.to_string());
        path.is_file().then_some(path)
    }

    /// Copies what comes through a pipe into the store: its length, digest and place.
    ///
    /// # Errors
    /// The errors of [`drain`]; the store cannot be written.
    pub fn keep_piped(
        &self,
        input: &mut dyn Read,
        go_on: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<(u64, Digest, PathBuf)> {
        self.prepare()?;
        let folder = self.piped_folder();
        create_folder(&folder)?;
        for name in names_below(&folder)? {
            let path = folder.join(&name);
            if name.parse::<Digest>().is_err() && !is_young(&path) {
                remove_file(&path)?;
            }
        }
        let half = beside(&folder.join("pipe"));
        let copied = copy(input, &half, go_on).and_then(|(bytes, digest)| {
            let place = folder.join(digest.to_string());
            fs::rename(&half, &place).wrap(Kind::Environment, || format!("write `{}`", place.display()))?;
            Ok((bytes, digest, place))
        });
        if copied.is_err() {
            let _ = fs::remove_file(&half);
        }
        copied
    }

    /// Names below the store of piped text that no record of `kept` names.
    pub(super) fn lost_pipes<'a>(&self, kept: impl Iterator<Item = &'a Record>) -> Result<Vec<String>> {
        let mut names = names_below(&self.piped_folder())?;
        names.retain(|name| !is_young(&self.piped_folder().join(name)));
        if names.is_empty() {
            return Ok(names);
        }
        let read: std::collections::HashSet<String> = kept
            .flat_map(|record| &record.provenance.files)
            .map(|file| file.digest.to_string())
            .collect();
        names.retain(|name| !read.contains(name));
        names.sort();
        Ok(names.into_iter().map(|name| format!("piped/{name}")).collect())
    }
}

fn copy(input: &mut dyn Read, to: &Path, go_on: &mut dyn FnMut(u64) -> Result<()>) -> Result<(u64, Digest)> {
    let writing = || format!("write `{}`", to.display());
    let mut file = File::create(to).wrap(Kind::Environment, writing)?;
    let (bytes, digest) = drain(input, Some(&mut file), go_on)?;
    let mut permissions = file.metadata().wrap(Kind::Environment, writing)?.permissions();
    permissions.set_readonly(true);
    file.set_permissions(permissions)
        .wrap(Kind::Environment, writing)?;
    file.sync_all().wrap(Kind::Environment, writing)?;
    Ok((bytes, digest))
}

fn is_young(path: &Path) -> bool {
    let age = fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .ok()
        .and_then(|time| time.elapsed().ok());
    age.is_none_or(|age| age < YOUNG)
}

#[cfg(test)]
mod tests {
    use super::super::record::testing::example;
    use super::*;
    use crate::error::Error;
    use std::time::SystemTime;

    #[test]
    fn piped_text_is_kept_under_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("store"));
        let digest = Digest::of(b"one\n");
        assert_eq!(store.piped(&digest), None);
        let mut go_on = |_| Ok(());
        for _ in 0..2 {
            let (bytes, found, path) = store.keep_piped(&mut &b"one\n"[..], &mut go_on).unwrap();
            assert_eq!((bytes, found), (4, digest));
            assert_eq!(store.piped(&digest), Some(path));
        }
        assert_eq!(drain(&mut &b"one\n"[..], None, &mut go_on).unwrap(), (4, digest));
        // One that is cut off leaves nothing.
        let error = store.keep_piped(&mut &b"two\n"[..], &mut |_| Err(Error::interrupted()));
        assert_eq!(error.unwrap_err().kind(), Kind::Interrupted);
        assert_eq!(fs::read_dir(store.piped_folder()).unwrap().count(), 1);
        // Text without a record is deleted after a while.
        let kept = example(1);
        assert!(store.lost_pipes([&kept].into_iter()).unwrap().is_empty());
        let path = store.piped(&digest).unwrap();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        #[expect(clippy::permissions_set_readonly_false, reason = "of a test's own file")]
        permissions.set_readonly(false);
        fs::set_permissions(&path, permissions).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - 2 * YOUNG).unwrap();
        assert_eq!(
            store.lost_pipes([&kept].into_iter()).unwrap(),
            [format!("piped/{digest}")]
        );
        let mut reading = example(1);
        reading.provenance.files = vec![crate::store::ExternalFile {
            field: "input/files".to_owned(),
            path: "-".to_owned(),
            bytes: 4,
            digest,
        }];
        assert!(store.lost_pipes([&reading].into_iter()).unwrap().is_empty());
    }
}
