//! What commands print: tables, words, faults, progress, and the terminal that takes them.

pub mod comparison;
pub mod error;
pub mod faults;
pub mod listing;
pub mod progress;
pub mod report;
pub mod style;
pub mod table;
pub mod tabulated;
pub mod terminal;
pub mod words;
