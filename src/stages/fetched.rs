//! What stages have from elsewhere: files that are downloaded once. What was brought by hand in their place is
//! [`super::by_hand`]'s.

use std::collections::HashSet;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::data::fetch::{self, Downloads, FetchProgress, Fetched, Settings};
use crate::error::{Error, Result};
use crate::event::Progress;
use crate::manifest::source::RemoteFile;
use crate::manifest::vocabularies::{Family, Published};
use crate::manifest::{BertFile, Gpt2Files, Source, SourceInput, Stage, Tokenize, Tokenizer, TokenizerFile};
use crate::plural::counted;
use crate::stages::{Context, by_hand};

/// The files that a stage downloads unless they are here, and their size where it is known beforehand.
#[must_use]
pub fn downloads(stage: &Stage) -> (Vec<RemoteFile>, Option<u64>) {
    match stage {
        Stage::Source(Source { input, .. }) => match input {
            SourceInput::Download(input) => (input.files.clone(), None),
            SourceInput::Corpus(corpus) if corpus.files.is_empty() => {
                let files = corpus.resolve().map_or_else(Vec::new, |resolved| resolved.files);
                (files, corpus.bytes())
            }
            _ => (vec![], None),
        },
        Stage::Tokenize(Tokenize { tokenizer, .. }) => {
            let files: Vec<_> = tokenizer.downloads().into_iter().map(|(_, file)| file).collect();
            let bytes = match tokenizer {
                Tokenizer::Published(config) => Published::find(&config.name).map(Published::bytes),
                _ => None,
            };
            (files, bytes)
        }
        _ => (vec![], None),
    }
}

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
        fetched = download(&remote, downloads, context, provenance, &mut 0)?;
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

/// A path as a manifest would name it.
fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Error::input(format!("the path `{}` is not UTF-8", path.display()))
            .hint("put the store at a path in UTF-8, with `--store DIR`")
    })
}
