//! What stages have from elsewhere: files that are downloaded once. What was brought by hand in their place is
//! [`super::by_hand`]'s.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::data::fetch::{self, Downloads, FetchProgress, Fetched, Settings};
use crate::error::{Error, Remedy, Result};
use crate::event::Progress;
use crate::manifest::reading::RemoteFile;
use crate::manifest::vocabularies::{Family, Published};
use crate::manifest::{BertFile, Gpt2Files, Tokenizer, TokenizerFile};
use crate::plural::counted;
use crate::stages::{Context, by_hand};

/// Downloads missing files, and records where they came from. A file that two patterns match, or a name and a
/// pattern, is there once; `repeated` counts the others.
///
/// # Errors
/// The errors of [`fetch::fetch`].
pub fn download(
    remote: &[RemoteFile],
    downloads: &Downloads,
    context: &Context,
    provenance: &mut Map<String, Value>,
    repeated: &mut u64,
) -> Result<Vec<Fetched>> {
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    for file in remote {
        let progress = |progress: FetchProgress<'_>| {
            context.progress(Progress {
                done: progress.done,
                total: progress.total,
                unit: "bytes",
                figures: vec![("downloading", name_of(progress.url).to_owned())],
            });
        };
        for file in fetch::fetch(file, downloads, context.cancel, &progress)? {
            if seen.insert((without_revision(&file.url), file.sha256.clone())) {
                files.push(file);
            } else {
                *repeated += 1;
            }
        }
    }
    let origins = files.iter().map(
        |Fetched {
             url, sha256, bytes, ..
         }| json!({ "url": url, "sha256": sha256, "bytes": bytes }),
    );
    provenance.insert("downloads".to_owned(), origins.collect());
    let environment = Settings::from_environment().shown();
    if !environment.is_empty() {
        provenance.insert("environment".to_owned(), json!(environment));
    }
    Ok(files)
}

/// Names and values for the summary: that files came from elsewhere than the manifest says.
#[must_use]
pub fn elsewhere(provenance: &Map<String, Value>) -> Option<(String, String)> {
    let environment = provenance.get("environment").and_then(Value::as_array);
    let elsewhere: Vec<&str> = environment
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|variable| variable.contains('='))
        .collect();
    (!elsewhere.is_empty()).then(|| ("environment".to_owned(), elsewhere.join(" ")))
}

/// A URL of the hub without the commit or branch that it names: the same file by two names.
fn without_revision(url: &str) -> String {
    let parts = url
        .strip_prefix("hf://")
        .and_then(|rest| rest.split_once('@'))
        .and_then(|(repository, rest)| Some((repository, rest.split_once('/')?.1)));
    match parts {
        Some((repository, path)) => format!("hf://{repository}/{path}"),
        None => url.to_owned(),
    }
}

/// The last part of a URL.
fn name_of(url: &str) -> &str {
    url.rsplit('/').find(|part| !part.is_empty()).unwrap_or(url)
}

/// A tokenizer's settings with every file on this machine: what is published or lies elsewhere is downloaded, what was
/// brought by hand is checked. The files stay while `downloads` lives.
///
/// # Errors
/// A download fails; a file that was brought by hand is absent, or another one than the published.
pub fn tokenizer(
    config: &Tokenizer,
    downloads: &mut Option<Downloads>,
    context: &Context,
    provenance: &mut Map<String, Value>,
) -> Result<Tokenizer> {
    let remote: Vec<_> = config.downloads().into_iter().map(|(_, file)| file).collect();
    let mut fetched = Vec::new();
    if !remote.is_empty() {
        let downloads = downloads.insert(Downloads::open(context.downloads, context.cancel)?);
        fetched = download(&remote, downloads, context, provenance, &mut 0)
            .map_err(|error| with_way_out(config, error))?;
    }
    match config {
        Tokenizer::Published(config) => {
            let published = Published::find(&config.name)
                .ok_or_else(|| Error::internal(format!("no tokenizer is published as `{}`", config.name)))?;
            let paths = match &config.path {
                Some(path) => {
                    let sha256 = |path: &Path| fetch::sha256_of(path, context.cancel);
                    by_hand::tokenizer(published, &context.base.join(path), &sha256)?
                }
                None => fetched.into_iter().map(|file| file.path).collect(),
            };
            let path = |index: usize| -> Result<String> {
                let path = paths.get(index);
                text(path.ok_or_else(|| Error::internal("a file of a published tokenizer is missing"))?)
            };
            Ok(match published.family {
                Family::Gpt2 => Tokenizer::Gpt2(Gpt2Files {
                    vocabulary: path(0)?,
                    merges: path(1)?,
                }),
                Family::Bert { lowercase } => Tokenizer::Bert(BertFile {
                    vocabulary: path(0)?,
                    lowercase,
                }),
            })
        }
        Tokenizer::Download(config) => {
            let path = match (&config.path, fetched.as_slice()) {
                (Some(path), _) => {
                    let path = context.base.join(path);
                    if let Some(sha256) = &config.sha256 {
                        by_hand::check(&path, sha256, &|path| fetch::sha256_of(path, context.cancel))?;
                    }
                    path
                }
                (None, [file]) => file.path.clone(),
                (None, files) => {
                    let message = format!("`{}` matches {}", config.url, counted(files.len(), "file"));
                    return Err(Error::input(message).hint("name one `tokenizer.json`"));
                }
            };
            Ok(Tokenizer::File(TokenizerFile {
                path: text(&path)?,
                special: config.special.clone(),
            }))
        }
        other => Ok(other.clone()),
    }
}

/// An error of a tokenizer's download with a hint about the tokenizer's settings: that of a download is about a source's.
fn with_way_out(config: &Tokenizer, error: Error) -> Error {
    let by_hand = match config {
        Tokenizer::Published(config) => {
            let name = &config.name;
            format!(
                "copy its files to this machine and name their folder: `\"tokenizer\": {{ \"kind\": \"published\", \
                 \"name\": \"{name}\", \"path\": \"FOLDER\" }}`; `mdlm tokenizers {name}` lists the files"
            )
        }
        _ => "copy the file to this machine and name it: `\"tokenizer\": { \"kind\": \"file\", \"path\": \
              \"tokenizer.json\" }`"
            .to_owned(),
    };
    let hint = match (config, error.stated_remedy()) {
        (_, Some(Remedy::Network)) => {
            format!("behind a proxy, set HTTPS_PROXY (and NO_PROXY); without network access, {by_hand}")
        }
        (_, Some(Remedy::Credentials)) => {
            format!("the server requires credentials, or refuses this address; {by_hand}")
        }
        // A published tokenizer has no settings for these.
        (Tokenizer::Published(_), Some(Remedy::Limit | Remedy::Reference)) => {
            format!("a mirror or a proxy may have answered in place of the publisher; {by_hand}")
        }
        (Tokenizer::Download(config), Some(Remedy::Limit)) => {
            format!(
                "check that `{}` is a `tokenizer.json`; if it is, {by_hand}",
                fetch::shown(&config.url)
            )
        }
        _ => return error,
    };
    error.replace_hint(hint)
}

/// A path as a manifest would name it.
fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::input(format!("the path `{}` is not UTF-8", path.display()))
            .hint("put the store at a path in UTF-8, with `--store DIR`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cancel;

    /// The way out where the download fails by these settings.
    fn hint(config: &serde_json::Value, settings: &Settings) -> String {
        let config: Tokenizer = serde_json::from_value(config.clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cancel = Cancel::default();
        let downloads = Downloads::open(folder.path(), &cancel).unwrap();
        let (_, remote) = config.downloads().remove(0);
        let error = fetch::fetch_with(settings, &remote, &downloads, &cancel, &|_| ()).unwrap_err();
        with_way_out(&config, error).hint_text().unwrap().to_owned()
    }

    #[test]
    fn offline_hint_shows_the_settings_for_a_tokenizer_by_hand() {
        let offline = Settings {
            offline: true,
            ..Settings::default()
        };
        for name in ["gpt2", "bert-base-uncased"] {
            let hint = hint(&json!({ "kind": "published", "name": name }), &offline);
            let object = format!("\"kind\": \"published\", \"name\": \"{name}\", \"path\": \"FOLDER\"");
            assert!(hint.contains(&object), "{hint}");
            assert!(hint.contains(&format!("`mdlm tokenizers {name}`")), "{hint}");
            assert!(!hint.contains("corpus") && !hint.contains("files\""), "{hint}");
        }
        let download = json!({ "kind": "download", "url": "hf://o/n@main/tokenizer.json", "unpinned": true });
        let hint = hint(&download, &offline);
        assert!(
            hint.contains("\"kind\": \"file\", \"path\": \"tokenizer.json\""),
            "{hint}"
        );
        assert!(!hint.contains("corpus"), "{hint}");
    }

    #[test]
    fn hint_for_another_file_than_published_sets_no_checksum_or_limit() {
        let published: Tokenizer =
            serde_json::from_value(json!({ "kind": "published", "name": "bert-base-uncased" })).unwrap();
        let download: Tokenizer = serde_json::from_value(
            json!({ "kind": "download", "url": "https://a.org/tokenizer.json", "unpinned": true }),
        )
        .unwrap();
        let with = |remedy| Error::input("…").hint("set the new `sha256`").remedy(remedy);
        for remedy in [Remedy::Limit, Remedy::Reference, Remedy::Credentials] {
            let error = with_way_out(&published, with(remedy));
            let hint = error.hint_text().unwrap();
            assert!(hint.contains("\"path\": \"FOLDER\""), "{hint}");
            assert!(
                ["max_bytes", "sha256", "\"files\""]
                    .iter()
                    .all(|field| !hint.contains(field)),
                "{hint}"
            );
        }
        let error = with_way_out(&download, with(Remedy::Limit));
        let hint = error.hint_text().unwrap();
        assert!(
            hint.contains("`https://a.org/tokenizer.json`") && hint.contains("\"kind\": \"file\""),
            "{hint}"
        );
        // Its checksum is a setting of its own.
        let error = with_way_out(&download, with(Remedy::Reference));
        assert_eq!(error.hint_text(), Some("set the new `sha256`"));
        let full = Error::environment("the disk is full").hint("make room");
        assert_eq!(with_way_out(&published, full).hint_text(), Some("make room"));
    }
}
