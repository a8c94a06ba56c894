//! What an estimated number is.

use serde::{Deserialize, Serialize};

use crate::manifest::Estimator;

/// What a number is to a model's negative log-likelihood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// An upper bound on it.
    #[default]
    Bound,
    /// Its exact value.
    Exact,
    /// Neither: each token is predicted from all others.
    Pseudo,
}

impl Quantity {
    /// Its name in tables and progress.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Exact => "exact",
            Self::Pseudo => "pseudo",
        }
    }

    /// Whether it is the default, which files leave out.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        *self == Self::Bound
    }
}

impl From<Estimator> for Quantity {
    fn from(estimator: Estimator) -> Self {
        match estimator {
            Estimator::Time | Estimator::Count => Self::Bound,
            Estimator::Exact => Self::Exact,
            Estimator::Pseudo => Self::Pseudo,
        }
    }
}
