//! Samples: the first of their texts.

use std::path::Path;

use maud::{Markup, html};

use crate::error::Result;
use crate::stages::sample::read_samples;

/// Sampled rows shown at most.
const SAMPLES: usize = 10;

/// The samples in a folder.
///
/// # Errors
/// The samples cannot be read.
pub(super) fn section(folder: &Path) -> Result<Markup> {
    let lines = read_samples(folder)?;
    Ok(html! {
        ol.samples {
            @for line in lines.iter().take(SAMPLES) {
                li { (line.text.trim()) }
            }
        }
        @if lines.len() > SAMPLES {
            p.more { (SAMPLES) " of " (lines.len()) " rows." }
        }
    })
}
