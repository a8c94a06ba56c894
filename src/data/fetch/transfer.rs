//! One file: attempts until it is whole, each going on where the last one ended.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use reqwest::{Client, Url};

use super::FetchProgress;
use super::answer::{Body, Failure, unless_cancelled};
use super::bucket::Bucket;
use super::cache::{Cache, Expected, IndexedFile, Keep, Partial};
use super::settings::Settings;
use super::web;
use crate::error::{Error, Remedy, Result};
use crate::event::Cancel;
use crate::plural::counted;

/// Interval between reports of progress.
const REPORT: Duration = Duration::from_millis(100);
/// How often a file may turn out to be another while it comes in.
const LARGEST_STALE: u32 = 3;

/// Where the bytes of a file come from.
pub(super) enum Origin<'a> {
    /// A web server.
    Web {
        client: &'a Client,
        url: Url,
        token: Option<&'a str>,
    },
    /// An object of a bucket.
    Bucket { bucket: &'a Bucket, key: String },
}

/// A file to download.
pub(super) struct Job<'a> {
    pub origin: Origin<'a>,
    /// What its begun download and its lock are named by.
    pub identity: &'a str,
    /// How its URL is shown.
    pub shown: &'a str,
    pub expected: Expected,
    pub max_bytes: Option<u64>,
    /// What is kept of it beside the file.
    pub keep: Keep,
}

/// What a download runs with.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub cache: &'a Cache,
    pub settings: &'a Settings,
    pub cancel: &'a Cancel,
    pub progress: &'a dyn Fn(FetchProgress<'_>),
}

/// Downloads a file. The caller holds the lock of its identity.
pub(super) async fn download(job: &Job<'_>, with: Surroundings<'_>) -> Result<IndexedFile> {
    let Surroundings {
        cache,
        settings,
        cancel,
        progress,
    } = with;
    let mut partial = Partial::open(
        cache,
        job.identity,
        job.shown,
        &job.expected,
        settings.sync_every,
        cancel,
    )?;
    let mut resumed = partial.len() > 0;
    let (mut failures, mut stale) = (0, 0);
    // The furthest that any attempt came: one that comes no further brought nothing.
    let mut furthest = partial.len();
    loop {
        let failure = if partial.is_whole() {
            None
        } else {
            attempt(job, with, &mut partial).await.err()
        };
        let Some(failure) = failure else {
            match partial.check(&job.expected) {
                Ok(sha256) => {
                    progress(FetchProgress {
                        url: job.shown,
                        done: partial.len(),
                        total: Some(partial.len()),
                    });
                    let entry = IndexedFile {
                        url: job.shown.to_owned(),
                        sha256,
                        bytes: partial.len(),
                    };
                    partial.finish(cache, job.identity, &entry, job.keep)?;
                    return Ok(entry);
                }
                // Perhaps what lay here before was the fault.
                Err(_) if resumed => {
                    resumed = false;
                    partial.restart()?;
                    continue;
                }
                Err(fault) => {
                    partial.discard()?;
                    let error = Error::input(format!("{fault}: not the file that was expected")).hint(
                        "the file was replaced, or damaged on transfer: compare with the checksum that its publisher \
                         states, then set the new `sha256` or another URL",
                    );
                    return Err(error.remedy(Remedy::Reference));
                }
            }
        };
        partial.sync()?;
        match failure {
            Failure::Final(error) => return Err(error),
            Failure::Stale(why) => {
                stale += 1;
                if stale > LARGEST_STALE {
                    let message = format!("{why}, {stale} times in a row");
                    return Err(Error::environment(message)
                        .hint("the server contradicts itself: run the command again later"));
                }
                resumed = false;
                partial.restart()?;
            }
            Failure::Passing(error, wait) => {
                if partial.len() > furthest {
                    furthest = partial.len();
                    failures = 0;
                }
                failures += 1;
                if failures > settings.retries {
                    let place = match partial.state.length {
                        Some(length) => format!("{} of {}", partial.len(), counted(length, "byte")),
                        None => counted(partial.len(), "byte"),
                    };
                    return Err(error.context(format!("at {place}, attempt {failures} without a new byte")));
                }
                // A rest of another version would not be noticed.
                if partial.state.etag.is_none() && !job.expected.is_checked() {
                    partial.restart()?;
                }
                let backoff = settings.first_wait.saturating_mul(1 << (failures - 1).min(16));
                let wait = wait.unwrap_or(backoff).min(settings.longest_wait);
                unless_cancelled(cancel, tokio::time::sleep(wait)).await?;
            }
        }
    }
}

async fn attempt(job: &Job<'_>, with: Surroundings<'_>, partial: &mut Partial) -> Result<(), Failure> {
    let Surroundings { settings, cancel, .. } = with;
    let from = partial.len();
    let etag = partial.state.etag.clone();
    let answer = match &job.origin {
        Origin::Web { client, url, token } => {
            let open = web::open(client, url, *token, from, etag.as_deref(), settings);
            unless_cancelled(cancel, open).await??
        }
        Origin::Bucket { bucket, key } => {
            unless_cancelled(cancel, bucket.open(key, from, etag.as_deref())).await??
        }
    };
    if answer.from == 0 && from > 0 {
        partial.restart()?;
    }
    if let (true, Some(before), Some(now)) = (answer.from > 0, partial.state.length, answer.total)
        && before != now
    {
        return Err(Failure::Stale(format!(
            "the file's length changed from {} to {now} during the download",
            counted(before, "byte")
        )));
    }
    if let Some(total) = answer.total {
        within_limit(total, job.max_bytes)?;
        if let Some(expected) = job.expected.bytes
            && total != expected
        {
            let message = format!(
                "the server sends {}, but its list of files says {expected}",
                counted(total, "byte")
            );
            return Err(Failure::Final(
                Error::environment(message)
                    .hint("the server contradicts itself: run the command again later"),
            ));
        }
    }
    if !answer.ends && !job.expected.is_checked() {
        return Err(Failure::Final(
            Error::environment(
                "the server does not state the file's length, so that a truncated file would look complete",
            )
            .hint("state its `sha256`"),
        ));
    }
    let total = answer.total.or(partial.state.length);
    partial.describe(answer.etag, total)?;
    receive(job, with, answer.body, total, partial).await
}

/// Takes in what comes: all of it, or an error.
async fn receive(
    job: &Job<'_>,
    with: Surroundings<'_>,
    mut body: Body,
    total: Option<u64>,
    partial: &mut Partial,
) -> Result<(), Failure> {
    let Surroundings {
        settings,
        cancel,
        progress,
        ..
    } = with;
    let mut reported: Option<Instant> = None;
    let url = match &job.origin {
        Origin::Web { url, .. } => Some(url),
        Origin::Bucket { .. } => None,
    };
    loop {
        if reported.is_none_or(|reported| reported.elapsed() >= REPORT) {
            reported = Some(Instant::now());
            progress(FetchProgress {
                url: job.shown,
                done: partial.len(),
                total,
            });
        }
        cancel.check()?;
        let bytes = match &mut body {
            Body::Web(response) => match (unless_cancelled(cancel, response.chunk()).await?, url) {
                (Ok(bytes), _) => bytes,
                (Err(error), Some(url)) => return Err(web::failure(&error, url, settings)),
                (Err(error), None) => return Err(Failure::Final(Error::internal(web::cause(&error)))),
            },
            Body::Bucket(stream) => match unless_cancelled(cancel, stream.next()).await? {
                None => None,
                Some(Ok(bytes)) => Some(bytes),
                Some(Err(error)) => {
                    let message = format!("the connection broke: {}", web::cause(&error));
                    return Err(Failure::Passing(web::unreachable(message), None));
                }
            },
        };
        let Some(bytes) = bytes else { break };
        let length = partial.len() + bytes.len() as u64;
        within_limit(length, job.max_bytes)?;
        if let Some(total) = total
            && length > total
        {
            return Err(Failure::Stale(format!(
                "the server sent more than the {} that it announced",
                counted(total, "byte")
            )));
        }
        partial.push(&bytes)?;
    }
    match total {
        Some(total) if partial.len() < total => {
            let message = format!(
                "the file ended after {} of {}",
                partial.len(),
                counted(total, "byte")
            );
            Err(Failure::Passing(web::unreachable(message), None))
        }
        _ if partial.len() == 0 && job.expected == Expected::default() => {
            let error = Error::environment("the server sent an empty file");
            let error = error.hint("check the URL; if the file is meant to be empty, state its `sha256`");
            Err(Failure::Final(error.remedy(Remedy::Reference)))
        }
        _ => Ok(()),
    }
}

/// What to do about a file that is larger than a source allows.
const TOO_LARGE: &str = "raise `max_bytes` if that is the file you want";

/// Whether a file may be that large.
pub(super) fn within_limit(bytes: u64, max_bytes: Option<u64>) -> Result<()> {
    match max_bytes {
        Some(limit) if bytes > limit => {
            let message = format!(
                "the file has {} or more, the limit is {limit}",
                counted(bytes, "byte")
            );
            Err(Error::input(message).hint(TOO_LARGE).remedy(Remedy::Limit))
        }
        _ => Ok(()),
    }
}
