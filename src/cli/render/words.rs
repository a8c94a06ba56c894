//! Stages, reasons, settings and paths in words.

use std::path::Path;

use serde_json::Value;

use mdlm::executor::Status;
use mdlm::plan::Reason;
use mdlm::report::leaves;

/// The status of a stage after a run.
#[must_use]
pub fn status(status: Status) -> &'static str {
    match status {
        Status::Cached => "cached",
        Status::Away => "remote only",
        Status::Fetched => "fetched",
        Status::Done => "done",
        Status::Failed => "failed",
        Status::Interrupted => "interrupted",
        Status::NotRun => "not run",
    }
}

/// Reasons in one line; of many, as of a comparison of a large sweep, the first.
#[must_use]
pub fn joined(reasons: &[Reason]) -> String {
    const SHOWN: usize = 8;
    let mut shown: Vec<_> = reasons.iter().take(SHOWN).map(ToString::to_string).collect();
    if reasons.len() > SHOWN {
        shown.push(format!("and {} more", reasons.len() - SHOWN));
    }
    shown.join("; ")
}

/// Whether a stage runs because an attempt with the same key did not end: "has not run" would be wrong.
#[must_use]
pub fn is_unfinished(reasons: &[Reason]) -> bool {
    reasons
        .iter()
        .any(|reason| matches!(reason, Reason::Unfinished { .. }))
}

/// That a stage has no result, and why, to go after its name: "has not run with the present manifest: forced".
#[must_use]
pub fn not_done(reasons: &[Reason]) -> String {
    let done = if is_unfinished(reasons) { "finished" } else { "run" };
    let why = match reasons {
        // The reason says no more than the sentence before it.
        [
            Reason::NeverRan
            | Reason::Unfinished {
                step: None,
                process: None,
            },
        ] => String::new(),
        reasons => format!(": {}", joined(reasons)),
    };
    format!("has not {done} with the present manifest{why}")
}

/// The leaves of a JSON object, with their paths.
pub fn flatten(value: &Value, rows: &mut Vec<Vec<String>>) {
    rows.extend(leaves(value).into_iter().map(|(name, value)| vec![name, value]));
}

/// An argument as it is typed in a shell: in quotes if a character has a meaning there.
#[must_use]
pub fn in_shell(argument: &str) -> String {
    let plain = argument
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '+' | ',' | '=' | '@'));
    if plain && !argument.is_empty() {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// A path as a person here would type it: relative where it lies below the current folder.
#[must_use]
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().and_then(std::fs::canonicalize).ok();
    let below = here.as_ref().and_then(|here| path.strip_prefix(here).ok());
    below.unwrap_or(path).display().to_string()
}
