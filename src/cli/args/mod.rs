//! Groups of arguments that commands share, and what they lead to.

pub mod compute;
pub mod environment;
pub mod execution;
pub mod manifest;
pub mod piped;
pub mod project;
pub mod stage;
pub mod store;
pub mod transfer;
pub mod units;
