//! Files of text in any of the forms that people have them → records.

mod text;

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::manifest::source::{Format, Reading, RecordUnit};

pub use text::expand;

/// A file to read records from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What a person calls it, and what tells its form: the path, or the URL of a download.
    pub name: String,
}

impl TextFile {
    /// A file under its own name.
    #[must_use]
    pub fn local(path: PathBuf) -> Self {
        let name = path.display().to_string();
        Self { path, name }
    }
}

/// Records that are not what they were in the file, or not there at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Irregular {
    /// Records with bytes that were not UTF-8, replaced.
    pub replaced: u64,
    /// Records with such bytes, left out.
    pub skipped: u64,
    /// Records without text: white space, or a null.
    pub empty: u64,
}

impl Irregular {
    /// Adds the counts of another file.
    pub fn add(&mut self, other: Self) {
        self.replaced += other.replaced;
        self.skipped += other.skipped;
        self.empty += other.empty;
    }
}

/// Calls `each` with every record of the file and with the bytes of the file (as it is stored) read so far.
///
/// # Errors
/// The file is absent, damaged, not of the form that was stated, has a record that is too long or is a bomb; what is at
/// fault is told by file, archive member, record and byte. And the errors of `each`.
pub fn records(
    file: &TextFile,
    reading: &Reading,
    each: &mut dyn FnMut(&str, u64) -> Result<()>,
) -> Result<Irregular> {
    let unit = match &reading.format {
        Some(Format::Text(format)) => format.record,
        _ => RecordUnit::Line,
    };
    text::records(Path::new(&file.path), unit, each)?;
    Ok(Irregular::default())
}
