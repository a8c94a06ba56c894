//! The figures and the warnings of a stage that is served from the store, where they are about files that globs match and
//! leave out.
//!
//! Such files are in no key: those that are read are the same, whatever lies beside them. So a record may have been made
//! when other files lay there, or for other globs, and its counts of them are replaced by those of now.

use crate::data::files::{LeftOut, SkipReason};
use crate::data::read::names_archive;
use crate::manifest::{SourceInput, Stage};
use crate::plan::PlannedStage;
use crate::stages::source::WARNINGS;
use crate::store::Record;

impl PlannedStage {
    /// The figures of this stage's record, with what globs leave out now: the same as in the summary of a run that
    /// serves the record.
    #[must_use]
    pub fn figures(&self, record: &Record) -> Vec<(String, String)> {
        let mut figures = (record.figures.iter())
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        self.refresh(&mut figures);
        figures
    }

    /// The warnings of this stage's run, for a run that serves its record: those about the contents of its files are
    /// recorded, those about globs are of now.
    #[must_use]
    pub fn warnings(&self, record: &Record) -> Vec<String> {
        let globs = self.left_out.as_ref().map(LeftOut::warnings);
        let recorded = record.provenance.facts.get(WARNINGS);
        let contents = recorded.and_then(|value| value.as_array()).into_iter().flatten();
        let contents = contents.filter_map(|warning| warning.as_str()).map(str::to_owned);
        globs.unwrap_or_default().into_iter().chain(contents).collect()
    }

    /// Puts what globs leave out now in place of what they left out when the record with these figures was made.
    ///
    /// What is left out of archives counts with what is left out of folders, and a record does not distinguish one from
    /// the other: where an archive is read, its count stays unless there are more of them now.
    pub fn refresh(&self, figures: &mut Vec<(String, String)>) {
        let Stage::Source(source) = &self.stage else {
            return;
        };
        let (SourceInput::Files(input), Some(left_out)) = (&source.input, &self.left_out) else {
            return;
        };
        let archives = self.files.iter().any(|file| names_archive(&file.path));
        for sort in SkipReason::ALL {
            let place = figures.iter().position(|(name, _)| name == sort.name());
            let before = place.map(|place| figures.remove(place).1);
            let before = before.and_then(|count| count.parse().ok()).unwrap_or(0);
            let in_archives = archives
                && match sort {
                    SkipReason::Hidden | SkipReason::System => true,
                    SkipReason::Excluded => !input.read.exclude.is_empty(),
                    _ => false,
                };
            let count = left_out.count(sort).max(if in_archives { before } else { 0 });
            if count > 0 {
                figures.push((sort.name().to_owned(), count.to_string()));
            }
        }
    }
}
