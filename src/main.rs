//! The `mdlm` program: the command line over the library.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    mdlm::memory::keep();
    cli::main()
}
