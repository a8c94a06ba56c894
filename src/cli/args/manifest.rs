//! The manifest that an argument names.

use std::path::Path;

use crate::cli::render::faults;
use crate::cli::render::terminal::Terminal;
use mdlm::error::Kind;
use mdlm::manifest::{Loaded, Manifest};
use mdlm::shapes::SHAPES;

/// Loads a manifest for a command, or shows its faults and gives the exit code to end with.
///
/// # Errors
/// The exit code, everything having been said.
pub fn load(path: &Path, overrides: &[String], terminal: &Terminal) -> Result<Loaded, u8> {
    Manifest::load(path, overrides, SHAPES).map_err(|faults| {
        faults::show(&faults, terminal);
        Kind::Input.exit_code()
    })
}
