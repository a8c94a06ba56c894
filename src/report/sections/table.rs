//! A table of results beside published figures, with its footnotes.

use std::path::Path;

use maud::{Markup, html};

use crate::error::Result;
use crate::report::parts::table;
use crate::stages::compare::TextBlock;
use crate::stages::table::{TableResult, blocks};

/// The table in a folder.
///
/// # Errors
/// The table cannot be read.
pub(super) fn section(folder: &Path) -> Result<Markup> {
    let found = TableResult::open(folder)?;
    Ok(html! {
        @for block in &blocks(&found) {
            @match block {
                TextBlock::Heading(caption) => p.more { (caption) },
                TextBlock::Paragraph(text) => p.more { (text) },
                TextBlock::Table(rows) => (table(rows)),
            }
        }
    })
}
