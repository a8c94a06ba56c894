//! What a process hands to the devices that it opens: nothing in [`crate::kernels`] reads a variable of the environment or
//! touches a file.

use std::sync::OnceLock;

/// The variable that has every command waited for, so that an error names the command that failed.
pub const CAREFUL: &str = "MDLM_GPU_CAREFUL";
/// The variable that has products do nothing but multiply, and kernels what epilogues would have done.
pub const PLAIN: &str = "MDLM_GPU_PLAIN";

/// The variable that names a file of NCCL to load instead of the ones that are looked for; with `none`, numbers travel
/// between devices through the memory of their hosts.
pub const NCCL: &str = "MDLM_NCCL";

/// How the devices of a process compute, and where their code is kept.
#[derive(Default)]
pub struct Surroundings {
    /// Whether every command is waited for: see [`CAREFUL`].
    pub is_careful: bool,
    /// Whether products do nothing but multiply: see [`PLAIN`].
    pub is_plain: bool,
    /// The file of NCCL, or `none`, where the user names one.
    pub nccl: Option<String>,
    /// Machine code that other processes have compiled; none is kept where this is absent.
    pub code: Option<Box<dyn CodeCache>>,
}

/// Machine code of kernels that outlives the process.
pub trait CodeCache: Send + Sync {
    /// The code of that name, if it is kept.
    fn read(&self, name: &str) -> Option<Vec<u8>>;

    /// Keeps code. Computing does not depend on it: a failure is ignored.
    fn keep(&self, name: &str, code: &[u8]);
}

static HANDED_IN: OnceLock<Surroundings> = OnceLock::new();

/// Hands the surroundings to all devices that are opened from now on. The first ones stay.
pub fn hand_in(surroundings: impl FnOnce() -> Surroundings) {
    HANDED_IN.get_or_init(surroundings);
}

/// What was handed in; the default where a device is opened before.
pub(super) fn surroundings() -> &'static Surroundings {
    HANDED_IN.get_or_init(Surroundings::default)
}
