//! Faults of fields that name files, on this machine or elsewhere.

use super::StageEntry;
use crate::manifest::fault::{Code, Draft};
use crate::manifest::reading::RemoteFile;

/// Whether a path is a URL.
pub fn is_url(path: &str) -> bool {
    path.split_once("://").is_some_and(|(scheme, rest)| {
        !rest.is_empty()
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// Reports a URL in a field that takes a local file.
pub fn local(entry: &StageEntry<'_>, field: &str, path: &str, hint: &str, faults: &mut Vec<Draft>) {
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
pub fn plain_path(url: &str) -> Option<String> {
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
pub fn remote(url: &str) -> String {
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

/// A download must be pinned or declared as unpinned.
pub fn pin(entry: &StageEntry<'_>, file: &RemoteFile, object: &str, faults: &mut Vec<Draft>) {
    let field = |name: &str| format!("{object}/{name}");
    if file.sha256.is_some() && file.unpinned {
        faults.push(
            entry
                .fault(
                    Code::Pin,
                    &field("unpinned"),
                    "`unpinned` is true, but `sha256` pins the file",
                )
                .hint("leave `unpinned` out"),
        );
    } else if file.sha256.is_none() && !file.unpinned && !file.names_commit() {
        let mut fault = entry
            .fault(Code::Pin, &field("url"), "the content of the file is not pinned")
            .expected(
                "`sha256`, in hex, or `\"unpinned\": true` to accept any content and record its SHA-256",
            );
        if file.url.starts_with("hf://") {
            let kind = if file.url.starts_with("hf://datasets/") {
                "datasets/"
            } else {
                ""
            };
            fault = fault.hint(format!(
                "or name a commit: `hf://{kind}OWNER/NAME@COMMIT/path`, 40 hex digits"
            ));
        }
        faults.push(fault);
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
