//! What is wrong with the settings of a tokenizer.

use std::collections::HashSet;

use super::super::fault::{Code, Draft, alternatives};
use super::super::source::RemoteFile;
use super::super::vocabularies::{Family, PUBLISHED};
use super::super::{Tokenize, Tokenizer, TokenizerDownload};
use super::Entry;
use super::source::pin;

/// Checks a tokenize stage.
pub(super) fn tokenize(entry: &Entry<'_>, stage: &Tokenize, faults: &mut Vec<Draft>) {
    match &stage.tokenizer {
        Tokenizer::Characters(characters) => alphabet(entry, &characters.alphabet, faults),
        Tokenizer::Download(download) => {
            pin(entry, &download.remote(), "tokenizer", faults);
            one_file(entry, download, faults);
            if let Some(path) = &download.path {
                local(entry, "tokenizer/path", path, &leave_out(), faults);
            }
        }
        Tokenizer::Published(published) => {
            if let Some(path) = &published.path {
                local(entry, "tokenizer/path", path, &leave_out(), faults);
            }
        }
        Tokenizer::File(file) => local(entry, "tokenizer/path", &file.path, &download(&file.path), faults),
        Tokenizer::Gpt2(files) => {
            let hint = published(|family| family == Family::Gpt2);
            local(entry, "tokenizer/vocabulary", &files.vocabulary, &hint, faults);
            local(entry, "tokenizer/merges", &files.merges, &hint, faults);
        }
        Tokenizer::Bert(file) => {
            let hint = published(|family| {
                family
                    == Family::Bert {
                        lowercase: file.lowercase,
                    }
            });
            local(entry, "tokenizer/vocabulary", &file.vocabulary, &hint, faults);
        }
        Tokenizer::TrainBpe(_) | Tokenizer::TrainWordpiece(_) | Tokenizer::Stage(_) => {}
    }
}

/// Whether a path is a URL.
pub(super) fn is_url(path: &str) -> bool {
    path.split_once("://").is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// Reports a URL in a field that takes a local file.
pub(super) fn local(entry: &Entry<'_>, field: &str, path: &str, hint: &str, faults: &mut Vec<Draft>) {
    if is_url(path) {
        let hint = plain_path(path).unwrap_or_else(|| hint.to_owned());
        faults.push(
            entry
                .fault(
                    Code::InvalidValue,
                    field,
                    "the field takes a local file, but this is a URL",
                )
                .expected("a path")
                .hint(hint),
        );
    }
}

/// The hint for a `file://` URL: the plain path.
fn plain_path(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("file") {
        return None;
    }
    let path = match rest.strip_prefix("localhost") {
        Some(path) if path.starts_with('/') => path,
        _ => rest,
    };
    Some(if path.contains('%') {
        "write the plain path of the file, without `file://` and without escapes like `%20`".to_owned()
    } else {
        format!("write the plain path: `{path}`")
    })
}

/// The fields of an object for a remote file, with `sha256` unless the URL pins the file.
pub(super) fn remote(url: &str) -> String {
    let file = RemoteFile {
        url: url.to_owned(),
        sha256: None,
        unpinned: false,
        max_bytes: None,
        exclude: vec![],
    };
    let pin = if file.names_commit() {
        ""
    } else {
        ", \"sha256\": \"…\""
    };
    format!("\"url\": \"{url}\"{pin}")
}

fn download(url: &str) -> String {
    format!(
        "use `\"tokenizer\": {{ \"kind\": \"download\", {} }}`, which downloads it once",
        remote(url)
    )
}

fn leave_out() -> String {
    "`path` takes a local copy; leave it out to download the file".to_owned()
}

/// The published tokenizers of a family, which need no files.
fn published(is_family: impl Fn(Family) -> bool) -> String {
    let names: Vec<_> = PUBLISHED
        .iter()
        .filter(|published| is_family(published.family))
        .map(|published| {
            format!(
                "`\"tokenizer\": {{ \"kind\": \"published\", \"name\": \"{}\" }}`",
                published.name
            )
        })
        .collect();
    format!(
        "use {}, which downloads its files once; for another tokenizer, use `\"kind\": \"download\"` with the `url` of its `tokenizer.json`",
        names.join(" or ")
    )
}

/// A tokenizer is one file.
fn one_file(entry: &Entry<'_>, download: &TokenizerDownload, faults: &mut Vec<Draft>) {
    let of_hub_or_bucket = !download.url.starts_with("http");
    if of_hub_or_bucket && download.url.contains(['*', '?', '[']) {
        faults.push(
            entry
                .fault(
                    Code::Pattern,
                    "tokenizer/url",
                    "a tokenizer is one file, but this URL is a glob",
                )
                .expected("the URL of one `tokenizer.json`"),
        );
    }
}

/// Repeated characters of an alphabet.
fn alphabet(entry: &Entry<'_>, alphabet: &str, faults: &mut Vec<Draft>) {
    let mut seen = HashSet::new();
    let mut twice: Vec<String> = alphabet
        .chars()
        .filter(|c| !seen.insert(*c))
        .map(|c| c.to_string())
        .collect();
    twice.dedup();
    if !twice.is_empty() {
        twice.truncate(10);
        let verb = if twice.len() == 1 { "is" } else { "are" };
        faults.push(
            entry
                .fault(
                    Code::Alphabet,
                    "tokenizer/alphabet",
                    format!(
                        "{} {verb} in the alphabet more than once",
                        alternatives(&twice).replace(" or ", " and ")
                    ),
                )
                .expected("every character once"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_distinguished_from_paths() {
        for url in ["https://a.org/x", "hf://o/n@main/x", "s3://b/x", "ftp://a/x"] {
            assert!(is_url(url), "{url}");
        }
        for path in [
            "a/b.txt", "../x", "C:/x", "a:b", "://x", "x://", "*.txt", "1a://x",
        ] {
            assert!(!is_url(path), "{path}");
        }
        for (url, path) in [
            ("file:///tmp/x.txt", "`/tmp/x.txt`"),
            ("FILE://localhost/tmp/x.txt", "`/tmp/x.txt`"),
            ("file://x.txt", "`x.txt`"),
            ("file:///a%20b.txt", "`%20`"),
        ] {
            let hint = plain_path(url).unwrap();
            assert!(hint.contains(path) && !hint.contains("download"), "{hint}");
        }
        assert_eq!(plain_path("https://a.org/x"), None);
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert!(remote("hf://o/n@main/x").contains("sha256"));
        assert!(!remote(&format!("hf://o/n@{commit}/x")).contains("sha256"));
    }
}
