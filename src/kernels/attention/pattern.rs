//! Which positions attend to which.

use crate::error::{Error, Result};

/// The keys that a query attends to: always a prefix of its row of the batch, so that a pattern is where it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pattern {
    /// All of the row.
    #[default]
    Full,
    /// Its own position and those before (AR).
    Causal,
    /// Those of its own block and of all blocks before (block diffusion, arXiv 2503.09573). Block i is positions
    /// i · `block` .. (i + 1) · `block`, the last one cut off by the row's end.
    BlockCausal {
        /// Positions of a block, at least one. One is [`Pattern::Causal`]; the row's length or more is [`Pattern::Full`].
        block: usize,
    },
}

impl Pattern {
    /// Positions of a block, within which all attend to each other; 0 where the row is not cut.
    #[must_use]
    pub fn span(self) -> usize {
        match self {
            Self::Full => 0,
            Self::Causal => 1,
            Self::BlockCausal { block } => block,
        }
    }

    /// How many positions of a row of `length`, from the first on, the query at `position` attends to. It never falls with
    /// the position.
    #[inline(always)]
    #[must_use]
    pub fn visible(self, position: usize, length: usize) -> usize {
        match self.span() {
            0 => length,
            span => (position / span + 1).saturating_mul(span).min(length),
        }
    }

    /// Refuses blocks of no positions.
    ///
    /// # Errors
    /// An internal one: callers check what users write.
    pub fn check(self) -> Result<()> {
        match self {
            Self::BlockCausal { block: 0 } => Err(Error::internal("attention in blocks of no positions")),
            _ => Ok(()),
        }
    }
}
