//! The self-test of the GPU, run once for each driver, library and version of mdlm: a record says that it has passed.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::device_lock::lock;
use super::environment::caches;
use super::gpus::described;
use crate::error::{Error, Result, guarded};
use crate::kernels::Operation;
use crate::kernels::cuda::driver::HEADER;
use crate::model::{self, Device};

/// Tries the GPU, unless it has passed before.
///
/// # Errors
/// The GPU's results differ from the CPU's by more than the tolerance, or the GPU fails.
pub(super) fn pass() -> Result<()> {
    static PASSED: OnceLock<Result<(), (String, String)>> = OnceLock::new();
    let passed = PASSED.get_or_init(|| {
        if has_passed() {
            return Ok(());
        }
        let tried =
            guarded(|| model::self_test(Device::Cuda)).unwrap_or_else(|panic| Err(Error::environment(panic)));
        tried.map_err(|error| {
            (
                error.to_string(),
                error.hint_text().unwrap_or_default().to_owned(),
            )
        })?;
        // Where the record cannot be written, the next process tests again.
        if let Some(record) = record()
            && let Some(folder) = record.parent()
        {
            let _ = fs::create_dir_all(folder).and_then(|()| fs::write(&record, ""));
        }
        Ok(())
    });
    let error = |(what, hint): &(String, String)| Error::environment(what.clone()).hint(hint.clone());
    passed.as_ref().copied().map_err(error)
}

/// Whether the GPU has passed before.
fn has_passed() -> bool {
    record().is_some_and(|record| record.exists())
}

/// The file that says that this GPU has passed, with these libraries and kernels.
fn record() -> Option<PathBuf> {
    let mut identity = blake3::Hasher::new();
    let found = described(Device::Cuda);
    let version = [
        env!("CARGO_PKG_VERSION"),
        option_env!("MDLM_GIT_REVISION").unwrap_or(""),
    ];
    let sources = Operation::ALL.map(|operation| operation.kernels().source);
    for part in version.into_iter().chain([&*found, HEADER]).chain(sources) {
        identity.update(part.as_bytes()).update(b"\0");
    }
    Some(
        caches()?
            .join("self-tests")
            .join(identity.finalize().to_hex().as_str()),
    )
}

/// The result of the self-test of a GPU.
#[derive(Debug)]
pub enum SelfTest {
    /// Its results are the CPU's.
    Passed,
    /// They are not, or it fails.
    Failed(Error),
    /// It was not tried: another process computes there.
    Busy,
}

/// Tries the GPU, unless it has passed before or another process computes there. There must be one that can be used.
#[must_use]
pub fn self_test() -> SelfTest {
    if has_passed() {
        return SelfTest::Passed;
    }
    let Ok(_lock) = lock(Device::Cuda, &mut |why| Err(Error::environment(why))) else {
        return SelfTest::Busy;
    };
    pass().map_or_else(SelfTest::Failed, |()| SelfTest::Passed)
}
