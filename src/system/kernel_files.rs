//! Compiled kernels as files: they belong to the machine, not to a project.

use std::fs;
use std::path::PathBuf;

use super::environment::caches;
use crate::kernels::cuda::surroundings::CodeCache;

/// The folder of compiled kernels.
#[must_use]
pub fn kernel_folder() -> Option<PathBuf> {
    Some(caches()?.join("kernels"))
}

/// A folder with a file for each piece of machine code.
pub struct KernelFiles(pub PathBuf);

impl KernelFiles {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.cubin"))
    }
}

impl CodeCache for KernelFiles {
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path(name)).ok()
    }

    fn keep(&self, name: &str, code: &[u8]) {
        let path = self.path(name);
        let beside = path.with_extension(format!("tmp{}", std::process::id()));
        let _ = fs::create_dir_all(&self.0)
            .and_then(|()| fs::write(&beside, code))
            .and_then(|()| fs::rename(&beside, &path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_is_kept_is_read_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let files = KernelFiles(folder.path().join("kernels"));
        assert_eq!(files.read("silu-1"), None);
        files.keep("silu-1", b"code");
        assert_eq!(files.read("silu-1").as_deref(), Some(&b"code"[..]));
        assert_eq!(files.read("silu-2"), None);
        let left = fs::read_dir(folder.path().join("kernels")).unwrap();
        assert_eq!(left.count(), 1);
        // Where the folder cannot be made, nothing is kept.
        fs::write(folder.path().join("file"), "").unwrap();
        let nowhere = KernelFiles(folder.path().join("file"));
        nowhere.keep("silu-1", b"code");
        assert_eq!(nowhere.read("silu-1"), None);
    }
}
