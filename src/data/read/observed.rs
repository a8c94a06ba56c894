//! What is worth a warning although the files could be read.

use super::wrapped::WrappedFiles;
use crate::data::files::names::Exclusions;
use crate::plural;

/// Warnings over all files of a source: one of each kind, however many files have it.
#[derive(Default)]
pub struct Observed {
    warnings: Vec<Warning>,
    /// Patterns of `exclude` over members, and whether they have matched one.
    exclude: Vec<(String, bool)>,
    /// Files whose lines are pieces of paragraphs.
    pub wrapped: WrappedFiles,
}

struct Warning {
    kind: &'static str,
    text: String,
    /// Files with the same, beside the first one.
    more: u64,
    /// The file that had it last.
    file: String,
}

impl Observed {
    /// Takes a warning of a kind about a file; the text of a kind's first one is kept.
    pub fn warn(&mut self, kind: &'static str, file: &str, text: impl FnOnce() -> String) {
        if let Some(known) = self.warnings.iter_mut().find(|known| known.kind == kind) {
            if known.file != file {
                known.more += 1;
                file.clone_into(&mut known.file);
            }
            return;
        }
        self.warnings.push(Warning {
            kind,
            text: text(),
            more: 0,
            file: file.to_owned(),
        });
    }

    /// Records what was excluded from the archives in a file.
    pub fn exclusions(&mut self, exclusions: &Exclusions) {
        for (index, (pattern, used)) in exclusions.used().enumerate() {
            match self.exclude.get_mut(index) {
                Some(known) => known.1 |= used,
                None => self.exclude.push((pattern.to_owned(), used)),
            }
        }
    }

    /// All warnings, in the order in which they came up.
    #[must_use]
    pub fn warnings(&mut self) -> Vec<String> {
        let wrapped = self.wrapped.warning();
        let more = |warning: &Warning| match warning.more {
            0 => warning.text.clone(),
            more => format!("{} (and {more} more {})", warning.text, plural::of(more, "file")),
        };
        let idle = |(pattern, _): &(String, bool)| {
            format!(
                "`exclude` pattern `{pattern}` matches no member: a pattern starts at the archive's root, and `**/` \
                 matches any folder"
            )
        };
        self.warnings
            .iter()
            .map(more)
            .chain(self.exclude.iter().filter(|(_, used)| !used).map(idle))
            .chain(wrapped)
            .collect()
    }
}
