//! The Hugging Face hub: which files a revision has, what they hold, and where they are.
//!
//! Spoken to by its documented HTTP interface (<https://huggingface.co/docs/hub/api>): `GET
//! /api/datasets/ID/revision/REVISION` says which commit a branch stands at, `GET /api/datasets/ID/tree/COMMIT/FOLDER`
//! lists files with length and content, `GET /datasets/ID/resolve/COMMIT/PATH` is a file. Of large files the list has
//! the SHA-256, of small ones git's name; both are checked.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::LINK;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Tally;
use super::answer::{Failure, unless_cancelled};
use super::cache::{Expected, is_sha256};
use super::place::{HubPlace, PathFilter, RepositoryKind, is_glob, literal_folder};
use super::settings::Settings;
use super::web;
use crate::error::{Context as _, Error, Kind, Result, Wrap as _};
use crate::event::Cancel;
use crate::plural::counted;

/// Bytes of a page of a list, at most; the hub's have a thousand entries.
const LONGEST_PAGE: usize = 64 << 20;
/// Entries of a list, at most: what memory is bounded by.
const MOST_ENTRIES: usize = 1_000_000;
/// All but what RFC 3986 calls unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const SEGMENTS: &AsciiSet = &ENCODED.remove(b'/');

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubFile {
    /// Its path in the repository.
    pub path: String,
    /// Its `hf://` URL, with the commit.
    pub shown: String,
    /// Where its bytes are.
    pub url: Url,
    /// What it holds.
    pub expected: Expected,
}

/// An entry of a list.
#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: Option<String>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

/// Where a large file is kept.
#[derive(Deserialize)]
struct Lfs {
    /// SHA-256.
    oid: String,
    #[serde(default)]
    size: Option<u64>,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

impl RepositoryKind {
    /// As the interface spells it.
    fn api(self) -> &'static str {
        match self {
            Self::Dataset => "datasets",
            Self::Model => "models",
            Self::Space => "spaces",
        }
    }

    /// As addresses of files spell it.
    fn prefix(self) -> &'static str {
        match self {
            Self::Dataset => "datasets/",
            Self::Model => "",
            Self::Space => "spaces/",
        }
    }
}

/// The hub, and who asks it.
pub(super) struct Hub<'a> {
    pub client: &'a Client,
    pub settings: &'a Settings,
    pub cancel: &'a Cancel,
}

impl Hub<'_> {
    /// The token, unless it would travel in the clear to another machine.
    pub fn token(&self) -> Option<&str> {
        let hub = &self.settings.hub;
        let here = Url::parse(hub).is_ok_and(|url| {
            url.scheme() == "https" || matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]"))
        });
        self.settings.hub_token.as_deref().filter(|_| here)
    }

    /// The files that a place stands for but those that `exclude` matches, by path, and what is left out.
    pub async fn files(&self, place: &HubPlace, exclude: &[String]) -> Result<(Vec<HubFile>, Tally)> {
        let mut filter = PathFilter::new(&place.path, exclude)?;
        let commit = if place.is_commit() {
            place.revision.clone()
        } else {
            // Listed by its commit, so that all files are of the same one.
            let path = format!("revision/{}?expand=sha", encode(&place.revision, ENCODED));
            let (revision, _) = self.get::<Revision>(self.api(place, &path)?).await?;
            revision.sha
        };
        let folder = literal_folder(&place.path);
        let recursive =
            is_glob(&place.path) && place.path[folder.len()..].trim_start_matches('/').contains('/');
        let mut path = format!("tree/{}", encode(&commit, ENCODED));
        if !folder.is_empty() {
            path.push('/');
            path.push_str(&encode(folder, SEGMENTS));
        }
        path.push_str(if recursive {
            "?recursive=true"
        } else {
            "?recursive=false"
        });
        let mut next = Some(self.api(place, &path)?);
        let mut entries: Vec<TreeEntry> = Vec::new();
        while let Some(url) = next {
            let (page, after) = self.get::<Vec<TreeEntry>>(url).await?;
            let empty = page.is_empty();
            entries.extend(page.into_iter().filter(|entry| entry.kind == "file"));
            if entries.len() > MOST_ENTRIES {
                let message = format!(
                    "`{}` has more than {MOST_ENTRIES} files below `{folder}`",
                    place.repository
                );
                return Err(Error::input(message).hint("name a folder in the glob"));
            }
            next = after.filter(|_| !empty);
        }
        let listed = entries.len();
        let mut files = Vec::new();
        for entry in entries {
            if filter.takes(&entry.path) {
                files.push(self.file(place, &commit, entry)?);
            }
        }
        let tally = filter.tally();
        if files.is_empty() {
            let message = format!(
                "`{}` does not match any of the {} below `{folder}/` of {}{} at `{}`{}",
                place.path,
                counted(listed, "file"),
                place.kind.prefix(),
                place.repository,
                place.revision,
                tally.message(),
            );
            return Err(Error::input(message).hint(format!(
                "its files are listed at {}/{}{}/tree/{}",
                self.settings.hub,
                place.kind.prefix(),
                place.repository,
                place.revision
            )));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        files.dedup_by(|a, b| a.path == b.path);
        Ok((files, tally))
    }

    fn file(&self, place: &HubPlace, commit: &str, entry: TreeEntry) -> Result<HubFile> {
        let prefix = place.kind.prefix();
        let expected = match entry.lfs {
            Some(lfs) => {
                let sha256 = lfs.oid.trim_start_matches("sha256:").to_owned();
                if !is_sha256(&sha256) {
                    let message = format!(
                        "the hub lists `{sha256}` as the SHA-256 of `{}`, which is not a SHA-256",
                        entry.path
                    );
                    return Err(Error::environment(message)
                        .hint("check HF_ENDPOINT: its server may not be a Hugging Face hub"));
                }
                Expected {
                    sha256: Some(sha256),
                    git: None,
                    bytes: Some(lfs.size.unwrap_or(entry.size)),
                }
            }
            None => Expected {
                sha256: None,
                git: entry.oid.filter(|oid| oid.len() == 40),
                bytes: Some(entry.size),
            },
        };
        let url = format!(
            "{}/{prefix}{}/resolve/{}/{}",
            self.settings.hub,
            encode(&place.repository, SEGMENTS),
            encode(commit, ENCODED),
            encode(&entry.path, SEGMENTS)
        );
        let shown = format!("hf://{prefix}{}@{commit}/{}", place.repository, entry.path);
        Ok(HubFile {
            url: self.url(&url)?,
            path: entry.path,
            shown,
            expected,
        })
    }

    fn api(&self, place: &HubPlace, path: &str) -> Result<Url> {
        let repository = encode(&place.repository, SEGMENTS);
        self.url(&format!(
            "{}/api/{}/{repository}/{path}",
            self.settings.hub,
            place.kind.api()
        ))
    }

    fn url(&self, url: &str) -> Result<Url> {
        Url::parse(url)
            .wrap(Kind::Environment, || {
                format!("ask the hub at `{}`", super::place::shown(&self.settings.hub))
            })
            .map_err(|error| error.hint("HF_ENDPOINT has to be a URL: `https://huggingface.co`"))
    }

    /// Asks until there is an answer; its value, and where the next page is.
    async fn get<T: DeserializeOwned>(&self, url: Url) -> Result<(T, Option<Url>)> {
        let mut failures = 0;
        loop {
            let (error, wait) = match unless_cancelled(self.cancel, self.ask(&url)).await? {
                Ok(answer) => return Ok(answer),
                Err(Failure::Passing(error, wait)) => (error, wait),
                Err(Failure::Stale(why)) => (Error::environment(why), None),
                Err(Failure::Final(error)) => return Err(error).context(|| format!("ask `{}`", url.path())),
            };
            failures += 1;
            if failures > self.settings.retries {
                return Err(error).context(|| format!("ask `{}` {}", url.path(), counted(failures, "time")));
            }
            let backoff = self
                .settings
                .first_wait
                .saturating_mul(1 << (failures - 1).min(16));
            let wait = wait.unwrap_or(backoff).min(self.settings.longest_wait);
            unless_cancelled(self.cancel, tokio::time::sleep(wait)).await?;
        }
    }

    async fn ask<T: DeserializeOwned>(&self, url: &Url) -> Result<(T, Option<Url>), Failure> {
        let mut request = self.client.get(url.clone());
        if let Some(token) = self.token() {
            request = request.bearer_auth(token);
        }
        let sent = request.send().await;
        let response = sent.map_err(|error| web::failure(&error, url, self.settings))?;
        let status = response.status();
        if !status.is_success() {
            return Err(match (web::refused(&response, self.settings), status.as_u16()) {
                // The hub hides what one may not see.
                (Failure::Final(_), 401 | 403 | 404) => Failure::Final(
                    Error::input(format!("the hub answered {status}")).hint(if self.token().is_some() {
                        "check owner, name, revision and folder; if the repository is gated, agree to its terms on its \
                         page; HF_TOKEN was sent"
                    } else {
                        "check owner, name, revision and folder; if the repository is private or gated, set HF_TOKEN"
                    }),
                ),
                (failure, _) => failure,
            });
        }
        let next = response
            .headers()
            .get_all(LINK)
            .iter()
            .find_map(|value| next_page(value.to_str().ok()?));
        // A page of another host would receive the token.
        let next = next
            .and_then(|next| url.join(&next).ok())
            .filter(|next| next.origin() == url.origin());
        let text = web::text(response, LONGEST_PAGE, self.settings).await?;
        let value = serde_json::from_slice(&text).map_err(|error| {
            Failure::Final(
                Error::environment(format!("read the hub's answer: {error}"))
                    .hint("check HF_ENDPOINT: its server may not be a Hugging Face hub"),
            )
        })?;
        Ok((value, next))
    }
}

fn encode(text: &str, set: &'static AsciiSet) -> String {
    utf8_percent_encode(text, set).to_string()
}

/// The address of `<address>; rel="next"`, RFC 8288.
fn next_page(link: &str) -> Option<String> {
    link.split(',').find_map(|part| {
        let (address, parameters) = part.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters
            .split(';')
            .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
        next.then(|| address.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_headers_name_the_next_page() {
        let link = "<https://hub/a?cursor=x>; rel=\"next\", <https://hub/b>; rel=\"prev\"";
        assert_eq!(next_page(link).as_deref(), Some("https://hub/a?cursor=x"));
        assert_eq!(next_page("<https://hub/b>; rel=\"prev\""), None);
        assert_eq!(next_page("nonsense"), None);
    }
}
