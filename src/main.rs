//! The `mdlm` program: everything is in the library.

use std::process::ExitCode;

/// Activations come and go by the hundred megabytes.
#[global_allocator]
static MEMORY: mdlm::memory::Pool = mdlm::memory::Pool;

fn main() -> ExitCode {
    mdlm::cli::main()
}
