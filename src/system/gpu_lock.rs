//! One process at a time computes on a GPU: an advisory lock for each, which dies with its process.
//!
//! Two networks on one device are slower than one after the other, and one of them runs out of memory. The lock is a file
//! beside the kernels that are kept, named after the device's UUID; its contents are shown to waiting processes. Where it
//! cannot be kept (no home, a file system without locks) no process waits, and other users' processes are not seen. As the store's
//! locks, it is never deleted.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::environment::{caches, is_set};
use crate::error::Result;
use crate::kernels::cuda::support::GpuHolder;

/// Interval between attempts to lock a GPU that is in use.
const POLL: Duration = Duration::from_millis(100);
/// Characters of a command that are shown at most.
const COMMAND: usize = 60;

/// The right to compute on a GPU, until it is dropped or the process dies.
#[derive(Debug)]
pub struct GpuLock {
    /// Closing it gives the lock back. Nothing where locks cannot be kept.
    _file: Option<File>,
}

/// Whether the user wants to share GPUs: MDLM_GPU_SHARED=1.
fn are_shared() -> bool {
    is_set("MDLM_GPU_SHARED")
}

/// Waits for the lock of the GPU of that UUID. `waiting` is called repeatedly while another process holds it, with the holder
/// where it is known; an error of `waiting` ends the waiting.
///
/// # Errors
/// The errors of `waiting`.
pub fn take(uuid: &str, waiting: &mut dyn FnMut(Option<&GpuHolder>) -> Result<()>) -> Result<GpuLock> {
    let folder = caches().filter(|_| !are_shared());
    take_in(folder.as_deref(), uuid, waiting)
}

/// The process that computes on the GPU of that UUID, if there is one.
#[must_use]
pub fn holder(uuid: &str) -> Option<GpuHolder> {
    holder_in(&caches()?, uuid)
}

fn take_in(
    folder: Option<&Path>,
    uuid: &str,
    waiting: &mut dyn FnMut(Option<&GpuHolder>) -> Result<()>,
) -> Result<GpuLock> {
    let none = GpuLock { _file: None };
    let Some(folder) = folder else { return Ok(none) };
    let path = place(folder, uuid);
    let Ok(mut file) = open(&path) else {
        return Ok(none);
    };
    let mut is_first = true;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(_)) => return Ok(none),
            // A process that only looks holds it for an instant.
            Err(TryLockError::WouldBlock) if is_first => is_first = false,
            Err(TryLockError::WouldBlock) => waiting(read_holder(&path).as_ref())?,
        }
        std::thread::sleep(POLL);
    }
    let own = GpuHolder {
        pid: std::process::id(),
        command: command(std::env::args()),
    };
    // Computing does not depend on it: a failed write is ignored.
    if let Ok(text) = serde_json::to_string(&own) {
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()));
    }
    Ok(GpuLock { _file: Some(file) })
}

fn holder_in(folder: &Path, uuid: &str) -> Option<GpuHolder> {
    let path = place(folder, uuid);
    let file = File::open(&path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => read_holder(&path),
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

fn place(folder: &Path, uuid: &str) -> PathBuf {
    folder.join("gpus").join(format!("{uuid}.lock"))
}

fn open(path: &Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path)
}

/// The process that wrote itself into the lock file last.
fn read_holder(path: &Path) -> Option<GpuHolder> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

/// How this process was started, as a person would type it, cut where it gets long.
fn command(arguments: impl Iterator<Item = String>) -> String {
    let words: Vec<String> = arguments.skip(1).collect();
    let whole = ["mdlm".to_owned(), words.join(" ")].join(" ");
    match whole.char_indices().nth(COMMAND) {
        Some((end, _)) => format!("{}…", whole[..end].trim_end()),
        None => whole.trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn lock_lets_one_process_compute_and_another_wait() {
        let folder = tempfile::tempdir().unwrap();
        let take = |waiting: &mut dyn FnMut(Option<&GpuHolder>) -> Result<()>| {
            take_in(Some(folder.path()), "GPU-1", waiting)
        };
        let lock = take(&mut |_| panic!("it is free")).unwrap();
        assert_eq!(holder_in(folder.path(), "GPU-1").unwrap().pid, std::process::id());
        // A waiting process sees the holder, and can be interrupted.
        let mut seen = None;
        let error = take(&mut |holder| {
            seen = holder.cloned();
            Err(Error::interrupted())
        })
        .unwrap_err();
        assert_eq!(error.kind().exit_code(), 130);
        assert_eq!(seen.unwrap().pid, std::process::id());
        // Another GPU is free.
        assert!(take_in(Some(folder.path()), "GPU-2", &mut |_| panic!("it is free")).is_ok());
        let mut lock = Some(lock);
        let mut waited = 0;
        let next = take(&mut |_| {
            waited += 1;
            drop(lock.take());
            Ok(())
        })
        .unwrap();
        assert_eq!(waited, 1);
        drop(next);
        assert_eq!(holder_in(folder.path(), "GPU-1"), None, "a name of the past");
    }

    #[test]
    fn lock_that_cannot_be_kept_makes_no_process_wait() {
        assert!(take_in(None, "GPU-1", &mut |_| panic!("waits")).is_ok());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "no folder").unwrap();
        assert!(take_in(Some(&file), "GPU-1", &mut |_| panic!("waits")).is_ok());
        assert_eq!(holder_in(&file, "GPU-1"), None);
    }

    #[test]
    fn holder_is_shown_with_its_command_as_typed() {
        let of = |line: &str| command(line.split(' ').map(str::to_owned));
        assert_eq!(
            of("/usr/bin/mdlm run pipelines/lm1b.json"),
            "mdlm run pipelines/lm1b.json"
        );
        assert_eq!(of("mdlm"), "mdlm");
        assert_eq!(
            of(&format!("mdlm {}", "é".repeat(100))).chars().count(),
            COMMAND + 1
        );
    }
}
