//! Which records stay, and as what: range, detokenizers, filter, sample, limit.

use crate::error::Result;
use crate::manifest::source::{Detokenizer, Range, Source};
use crate::rng::Random;

/// What was left out, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LeftOut {
    /// Outside the range.
    pub range: u64,
    /// Without text after detokenizing.
    pub empty: u64,
    /// Too short or too long.
    pub length: u64,
    /// By a regular expression.
    pub expression: u64,
    /// Equal to one before.
    pub duplicate: u64,
    /// Not drawn.
    pub sample: u64,
}

/// Applies a source's settings to its records, batch by batch.
pub struct Selection {
    left_out: LeftOut,
}

impl Selection {
    /// The selection of a source: with the detokenizers and the range that hold (a named corpus brings its own), and the
    /// random numbers of `sample`.
    ///
    /// # Errors
    /// A regular expression is malformed.
    pub fn new(
        _source: &Source,
        _detokenize: &[Detokenizer],
        _range: Option<&Range>,
        _random: Random,
    ) -> Result<Self> {
        Ok(Self {
            left_out: LeftOut::default(),
        })
    }

    /// The records that stay of the next ones, in order. The work on each record is done on all threads; how records are
    /// cut into batches does not show.
    ///
    /// # Errors
    /// None yet.
    pub fn apply(&mut self, records: Vec<String>) -> Result<Vec<String>> {
        Ok(records)
    }

    /// Whether no further record can stay: the limit or the range's end is reached.
    #[must_use]
    pub fn is_full(&self) -> bool {
        false
    }

    /// What was left out so far.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }
}
