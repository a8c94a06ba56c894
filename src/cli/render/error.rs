//! Errors as JSON.

use super::terminal::Terminal;
use crate::cli::signals;
use mdlm::error::Error;

/// An error, as `--json` prints it.
#[derive(serde::Serialize)]
pub struct ErrorReport {
    message: String,
    hint: Option<String>,
    exit_code: u8,
}

impl ErrorReport {
    /// The report of an error.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        Self {
            message: error.to_string(),
            hint: error.hint_text().map(str::to_owned),
            exit_code: signals::exit_code(error),
        }
    }

    /// What a command with `--json` prints when it fails before its output: a reader always gets JSON.
    pub fn print(error: &Error, terminal: &Terminal) {
        // Where standard output cannot be written, standard error has it.
        let _ = terminal.output_json(&serde_json::json!({ "ok": false, "error": Self::of(error) }));
    }
}
