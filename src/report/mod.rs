//! Metrics as HTML: charts and pages.

pub mod chart;
