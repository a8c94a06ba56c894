//! Results that differ in seeds alone: replicates of one setting, which have a mean and a standard deviation and no
//! rank.
//!
//! The 95% interval of a result covers which rows were held out and which noise was drawn. It does not cover the effect
//! of another seed, which can be many times larger: the best of several seeds is the luckiest one, not the best
//! setting. Therefore results whose settings are equal except for seeds ([`Setting`]) are replicates, whatever their
//! stages are called. Tables show them as groups ([`super::compare::group`]).

mod setting;
mod spread;

pub use setting::{Replicate, Setting, StageSeed, replicates};
pub use spread::{Spread, factors};

/// Whether a swept field is a seed, of whichever stage: `seed`, `model.seed`, `input.seed`.
#[must_use]
pub fn is_seed(label: &str) -> bool {
    label.rsplit('.').next() == Some("seed")
}
