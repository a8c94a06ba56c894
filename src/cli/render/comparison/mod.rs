//! Results side by side: the tables of `mdlm compare`, and those of sweeps at the end of a run.

mod report;
mod rows;
mod text;

pub use report::report;
pub use rows::{all_settings, by_kind, distinguish, of_run, planned, sort_of};
pub use text::texts;
