//! What a server answers, however it is reached, and the wait for it.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::error::{Error, Result};
use crate::event::Cancel;

/// How often it is seen that the user wants to end.
const POLL: Duration = Duration::from_millis(100);

/// What a server answered.
pub(super) struct Answer {
    /// The first byte that comes.
    pub from: u64,
    /// Length of the file, where the server says.
    pub total: Option<u64>,
    /// Strong validator of this version.
    pub etag: Option<String>,
    /// Whether the end of the file is distinguished from the end of the connection.
    pub ends: bool,
    /// The bytes.
    pub body: Body,
}

/// Bytes that come in.
pub(super) enum Body {
    Web(reqwest::Response),
    Bucket(BoxStream<'static, object_store::Result<Bytes>>),
}

/// Why an attempt failed.
pub(super) enum Failure {
    /// Another attempt may do; the server may have said when.
    Passing(Error, Option<Duration>),
    /// What is here belongs to another version of the file: from the start. Says why.
    Stale(String),
    /// No attempt will do.
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Waits for something, or for the user to lose patience.
pub(crate) async fn unless_cancelled<T>(cancel: &Cancel, future: impl Future<Output = T>) -> Result<T> {
    let mut future = pin!(future);
    loop {
        cancel.check()?;
        if let Ok(value) = tokio::time::timeout(POLL, &mut future).await {
            return Ok(value);
        }
    }
}
