//! Errors of ours on their way through readers that know `std::io::Error` only, and words that many of them share.

use std::io;

use crate::error::{Context as _, Error};

/// The way out where a file is not what its writer wrote.
pub const BRING_AGAIN: &str = "the file is damaged or truncated: download or write it again";

/// Puts an error of ours into one of `std::io`.
pub fn carry(error: Error) -> io::Error {
    io::Error::other(error)
}

/// Takes an error of ours out of one of `std::io`; another one is the environment's.
pub fn landed(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => match Err::<(), _>(error).context(|| "input".to_owned()) {
            Err(error) => error,
            Ok(()) => Error::internal("input"),
        },
    }
}

/// The file is not what its writer wrote.
pub fn damaged(message: impl Into<String>) -> Error {
    Error::input(message).hint(BRING_AGAIN)
}
