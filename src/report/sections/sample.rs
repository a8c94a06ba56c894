//! Samples: the first of their texts.

use std::fmt::Write as _;
use std::path::Path;

use crate::error::Result;
use crate::report::chart::escape;
use crate::stages::sample::read_samples;

/// Sampled rows shown at most.
const SAMPLES: usize = 10;

/// The samples in a folder.
///
/// # Errors
/// The samples cannot be read.
pub(super) fn section(folder: &Path) -> Result<String> {
    let lines = read_samples(folder)?;
    let mut out = String::from("<ol class=\"samples\">");
    for line in lines.iter().take(SAMPLES) {
        let _ = write!(out, "<li>{}</li>", escape(line.text.trim()));
    }
    out.push_str("</ol>\n");
    if lines.len() > SAMPLES {
        let _ = writeln!(out, "<p class=\"more\">{SAMPLES} of {} rows.</p>", lines.len());
    }
    Ok(out)
}
