//! Where files are: URLs taken apart, and shown without what they should not show.

use reqwest::Url;

use super::Tally;
use crate::data::files::names::{Exclusions, unwanted_path};
use crate::error::{Error, Result};

/// Characters of a glob.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// What a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RemotePlace {
    /// A file behind `http` or `https`.
    Web(Url),
    /// Files of a repository on the Hugging Face hub.
    Hub(HubPlace),
    /// Objects in a bucket.
    Bucket(BucketPlace),
}

/// Files of a repository on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HubPlace {
    /// What the repository is.
    pub kind: RepositoryKind,
    /// `OWNER/NAME`, or `NAME` of the oldest ones.
    pub repository: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Path or glob in the repository.
    pub path: String,
}

/// What a repository on the hub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RepositoryKind {
    /// `hf://datasets/…`
    Dataset,
    /// `hf://models/…` or `hf://…`
    Model,
    /// `hf://spaces/…`
    Space,
}

/// Objects in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BucketPlace {
    /// Whose it is.
    pub cloud: Cloud,
    /// Bucket or container.
    pub bucket: String,
    /// Key or glob.
    pub key: String,
}

/// Who keeps buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cloud {
    /// Amazon S3 and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl RemotePlace {
    /// Takes a URL apart.
    pub fn parse(url: &str) -> Result<Self> {
        let fault = |what: &str, hint: &str| {
            Err(Error::input(format!("read `{}` as a URL: {what}", shown(url))).hint(hint))
        };
        let Some((scheme, rest)) = url.split_once("://") else {
            return fault(
                "it has no `://`",
                "begin it with `https://`, `http://`, `hf://`, `s3://`, `gs://` or `az://`",
            );
        };
        let bucket = |cloud| match rest.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() && !key.ends_with('/') => {
                Ok(Self::Bucket(BucketPlace {
                    cloud,
                    bucket: bucket.to_owned(),
                    key: key.to_owned(),
                }))
            }
            _ => fault(
                "it does not name an object",
                "write it as `s3://BUCKET/key`; a key may be a glob: `s3://BUCKET/folder/*.jsonl`",
            ),
        };
        match scheme {
            "http" | "https" => match Url::parse(url) {
                Ok(url) => Ok(Self::Web(url)),
                Err(error) => fault(&error.to_string(), "copy the URL from a browser's address bar"),
            },
            "hf" => match HubPlace::parse(rest) {
                Some(place) => Ok(Self::Hub(place)),
                None => fault(
                    "it does not name a file of a repository",
                    "write it as `hf://datasets/OWNER/NAME@REVISION/path`; a path may be a glob: `data/*.parquet`",
                ),
            },
            "s3" => bucket(Cloud::S3),
            "gs" => bucket(Cloud::Gcs),
            "az" => bucket(Cloud::Azure),
            _ => fault(
                &format!("`{scheme}` is not a scheme that mdlm downloads from"),
                "use `https://`, `http://`, `hf://`, `s3://`, `gs://` or `az://`; name a local file by its path, \
                 with `\"kind\": \"files\"`",
            ),
        }
    }

    /// The glob in a repository or a bucket, if it is one.
    pub fn glob(&self) -> Option<&str> {
        match self {
            Self::Web(_) => None,
            Self::Hub(place) => Some(place.path.as_str()).filter(|path| is_glob(path)),
            Self::Bucket(place) => Some(place.key.as_str()).filter(|key| is_glob(key)),
        }
    }

    /// The path in the repository or the bucket of a file's URL, as [`super::Fetched`] has it.
    pub fn path_of<'u>(&self, url: &'u str) -> Option<&'u str> {
        let (_, rest) = url.split_once("://")?;
        match self {
            Self::Web(_) => None,
            // The commit has no slash.
            Self::Hub(_) => Some(rest.split_once('@')?.1.split_once('/')?.1),
            Self::Bucket(_) => Some(rest.split_once('/')?.1),
        }
    }

    /// Whether the URL itself says which content it means: a commit of the hub.
    pub fn is_pinned(&self) -> bool {
        matches!(self, Self::Hub(place) if place.is_commit())
    }
}

impl HubPlace {
    fn parse(rest: &str) -> Option<Self> {
        let (kind, rest) = if let Some(rest) = rest.strip_prefix("datasets/") {
            (RepositoryKind::Dataset, rest)
        } else if let Some(rest) = rest.strip_prefix("models/") {
            (RepositoryKind::Model, rest)
        } else if let Some(rest) = rest.strip_prefix("spaces/") {
            (RepositoryKind::Space, rest)
        } else {
            (RepositoryKind::Model, rest)
        };
        let (first, after) = rest.split_once('/')?;
        let (repository, revision, path) = if let Some((name, revision)) = first.split_once('@') {
            // A repository without an owner, which only the oldest are.
            let (revision, path) = split_revision(revision, after)?;
            (name.to_owned(), revision, path)
        } else {
            let (second, after) = after.split_once('/')?;
            let (name, revision) = second.split_once('@').unwrap_or((second, "main"));
            let (revision, path) = split_revision(revision, after)?;
            if first.is_empty() || name.is_empty() {
                return None;
            }
            (format!("{first}/{name}"), revision, path)
        };
        let whole = !repository.is_empty() && !revision.is_empty() && !path.is_empty();
        let steps = path
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..");
        (whole && !steps && !repository.starts_with('.')).then_some(Self {
            kind,
            repository,
            revision,
            path,
        })
    }

    /// Whether the revision is a commit, whose content cannot change.
    pub fn is_commit(&self) -> bool {
        self.revision.len() == 40
            && self
                .revision
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }
}

/// Revision and path. The hub's own references have slashes: `refs/convert/parquet`, `refs/pr/7`; those of others are
/// written `%2F`.
fn split_revision(revision: &str, after: &str) -> Option<(String, String)> {
    if revision == "refs" {
        let mut parts = after.splitn(3, '/');
        let (kind, name, path) = (parts.next()?, parts.next()?, parts.next()?);
        return Some((format!("refs/{kind}/{name}"), path.to_owned()));
    }
    Some((revision.replace("%2F", "/").replace("%2f", "/"), after.to_owned()))
}

/// Whether a path is a glob.
pub(super) fn is_glob(path: &str) -> bool {
    path.contains(WILDCARDS)
}

/// The folder that everything a glob matches lies in: what stands before the first part with a wildcard. Empty at the
/// root; without a slash at its end.
pub(super) fn literal_folder(pattern: &str) -> &str {
    let end = pattern.find(WILDCARDS).unwrap_or(pattern.len());
    let end = pattern[..end].rfind('/').unwrap_or(0);
    &pattern[..end]
}

/// A glob over paths whose `*` and `?` do not match a slash; `**` does.
pub(super) struct Pattern(glob::Pattern);

impl Pattern {
    pub fn new(pattern: &str) -> Result<Self> {
        match glob::Pattern::new(pattern) {
            Ok(pattern) => Ok(Self(pattern)),
            Err(error) => Err(Error::input(format!("read the glob `{pattern}`: {error}")).hint(
                "`*` matches within a folder, `**` as a whole part matches folders, `[[]` is a bracket",
            )),
        }
    }

    /// Whether it matches a path that has nothing that globs pass over: hidden files and system files.
    pub fn takes(&self, path: &str) -> bool {
        self.matches(path) && unwanted_path(path, &[self.0.as_str()]).is_none()
    }

    pub fn matches(&self, path: &str) -> bool {
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        self.0.matches_with(path, options)
    }
}

/// What is taken of a list: what a path or glob names and `exclude` does not match.
pub(super) struct PathFilter<'p> {
    wanted: &'p str,
    pattern: Option<Pattern>,
    exclude: Exclusions,
    tally: Tally,
}

impl<'p> PathFilter<'p> {
    /// Of a path or glob.
    pub fn new(wanted: &'p str, exclude: &[String]) -> Result<Self> {
        Ok(Self {
            wanted,
            pattern: is_glob(wanted).then(|| Pattern::new(wanted)).transpose()?,
            exclude: Exclusions::new(exclude)?,
            tally: Tally::default(),
        })
    }

    /// Whether the file of a path is taken; counts it where it is left out although the glob matches it.
    pub fn takes(&mut self, path: &str) -> bool {
        let Some(pattern) = &self.pattern else {
            return path == self.wanted;
        };
        if !pattern.matches(path) {
            return false;
        }
        if self.exclude.exclude(path) {
            self.tally.excluded += 1;
            return false;
        }
        let takes = pattern.takes(path);
        self.tally.passed_over += u64::from(!takes);
        takes
    }

    /// What was left out.
    pub fn tally(mut self) -> Tally {
        let idle = self.exclude.used().filter(|(_, used)| !used);
        self.tally.idle = idle.map(|(pattern, _)| pattern.to_owned()).collect();
        self.tally
    }
}

/// A URL as it may be shown and kept: of a web URL without user and password, and without the query, which may carry a
/// signature. It ends as the file's name does.
#[must_use]
pub fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    if !matches!(scheme, "http" | "https") {
        return url.to_owned();
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    let host = authority.rsplit('@').next().unwrap_or_default();
    let path = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn hub_urls_are_parsed() {
        let place = |url: &str| match RemotePlace::parse(url).unwrap() {
            RemotePlace::Hub(place) => {
                let commit = place.is_commit();
                (place.kind, place.repository, place.revision, place.path, commit)
            }
            other => panic!("{other:?}"),
        };
        let (dataset, model) = (RepositoryKind::Dataset, RepositoryKind::Model);
        let case = |kind, repository: &str, revision: &str, path: &str, commit| {
            (
                kind,
                repository.to_owned(),
                revision.to_owned(),
                path.to_owned(),
                commit,
            )
        };
        assert_eq!(
            place(&format!(
                "hf://datasets/Salesforce/wikitext@{COMMIT}/wikitext-2-v1/*.parquet"
            )),
            case(
                dataset,
                "Salesforce/wikitext",
                COMMIT,
                "wikitext-2-v1/*.parquet",
                true
            )
        );
        assert_eq!(
            place("hf://o/n/x.txt"),
            case(model, "o/n", "main", "x.txt", false)
        );
        assert_eq!(
            place("hf://models/o/n@v1/a/x"),
            case(model, "o/n", "v1", "a/x", false)
        );
        assert_eq!(
            place("hf://datasets/squad@main/x"),
            case(dataset, "squad", "main", "x", false)
        );
        assert_eq!(
            place("hf://datasets/o/n@refs/convert/parquet/a/x.parquet"),
            case(dataset, "o/n", "refs/convert/parquet", "a/x.parquet", false)
        );
        assert_eq!(place("hf://o/n@a%2Fb/x"), case(model, "o/n", "a/b", "x", false));
        let faulty = [
            "hf://",
            "hf://datasets/o/n",
            "hf://datasets/o/n@main",
            "hf://o/n@main/",
            "hf://o/n/../x",
            "hf:///n/x",
            "hf://../n/x",
        ];
        for url in faulty {
            let error = RemotePlace::parse(url).unwrap_err();
            assert!(error.to_string().contains(url), "{error}");
            assert!(error.hint_text().unwrap().contains("hf://datasets/"), "{error}");
        }
    }

    #[test]
    fn bucket_urls_are_parsed_and_others_refused() {
        let RemotePlace::Bucket(place) = RemotePlace::parse("gs://bucket/a/b*.txt").unwrap() else {
            panic!()
        };
        assert_eq!(
            (place.cloud, &*place.bucket, &*place.key),
            (Cloud::Gcs, "bucket", "a/b*.txt")
        );
        for url in [
            "s3://bucket",
            "s3://bucket/",
            "s3:///key",
            "az://c/folder/",
            "ftp://host/x",
            "x.txt",
            "https://",
        ] {
            assert!(RemotePlace::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn globs_stay_in_their_folder_without_two_stars() {
        let matches = |pattern: &str, path: &str| Pattern::new(pattern).unwrap().matches(path);
        assert!(matches("a/*.txt", "a/b.txt"));
        assert!(!matches("a/*.txt", "a/b/c.txt"));
        assert!(matches("a/**/*.txt", "a/b/c.txt"));
        assert!(matches("a/**/*.txt", "a/c.txt"));
        assert!(Pattern::new("a**b").is_err());
        let takes = |pattern: &str, path: &str| Pattern::new(pattern).unwrap().takes(path);
        assert!(takes("**/*", "a/b.txt"));
        assert!(takes(".git*", ".gitattributes"));
        assert!(takes(".a/*", ".a/b"));
        for path in [".gitattributes", "a/_SUCCESS", "a/.part-0.txt.crc", ".a/b"] {
            assert!(!takes("**/*", path), "{path}");
        }
        assert_eq!(literal_folder("a/b/c*.txt"), "a/b");
        assert_eq!(literal_folder("a/b*/c.txt"), "a");
        assert_eq!(literal_folder("*.txt"), "");
        assert_eq!(literal_folder("a/b/c.txt"), "a/b");
    }

    #[test]
    fn urls_are_shown_without_secrets() {
        assert_eq!(
            shown("https://me:secret@host:8/a/b?sig=x#y"),
            "https://host:8/a/b"
        );
        assert_eq!(shown("https://me:p@ss@host"), "https://host");
        assert_eq!(shown("http://host/a@b"), "http://host/a@b");
        assert_eq!(shown("hf://datasets/o/n@main/a?"), "hf://datasets/o/n@main/a?");
        let error = RemotePlace::parse("https://me:secret@ho st/").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
