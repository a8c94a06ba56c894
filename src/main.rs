//! The `mdlm` program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    mdlm::memory::keep();
    mdlm::cli::main()
}
