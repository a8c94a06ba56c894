//! Names that a glob passes over unless it names them: hidden files and folders, and what systems and tools leave
//! behind.
//!
//! A name is hidden when it begins with a point, as shells, git and ripgrep have it. A system file is one that a
//! desktop, a notebook, Spark or a file server wrote beside the text and that holds none. The same rules hold for
//! folders, members of archives, the hub and buckets.
//!
//! Beside them what `exclude` leaves out of archives, the hub and buckets ([`Exclusions`]); of folders it is
//! [`super::expand`]'s, which knows where paths start.

use crate::error::{Kind, Result, Wrap as _};

/// Why a name is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unwanted {
    /// It begins with a point.
    Hidden,
    /// A system or a tool left it behind.
    System,
}

/// Names of files and folders that hold no text. What begins with a point is below.
const SYSTEM: &[&str] = &[
    // macOS, in archives that it writes.
    "__MACOSX",
    "Icon\r",
    // Windows.
    "Thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$RECYCLE.BIN",
    "System Volume Information",
    // File systems and file servers.
    "lost+found",
    "@eaDir",
    // Spark, Hadoop, Dask and Delta Lake: marks and summaries beside the parts that hold the rows.
    "_SUCCESS",
    "_temporary",
    "_metadata",
    "_common_metadata",
    "_delta_log",
    // Python.
    "__pycache__",
];
/// Databricks marks each write with such names.
const SYSTEM_STARTS: &[&str] = &["_committed_", "_started_", "._"];
const HIDDEN_SYSTEM: &[&str] = &[
    ".DS_Store",
    ".AppleDouble",
    ".Spotlight-V100",
    ".Trashes",
    ".fseventsd",
    ".ipynb_checkpoints",
];
/// Characters of a glob.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// Whether a part of a pattern has wildcards.
#[must_use]
pub fn is_glob(part: &str) -> bool {
    part.contains(WILDCARDS)
}

/// Why a name is passed over by a part of a pattern that matches it; nothing if it is not, or if the part names it.
/// Without a part it is met on the way of a `**`, or in an archive of which everything is read.
#[must_use]
pub fn unwanted(name: &str, part: Option<&str>) -> Option<Unwanted> {
    let why = kind(name)?;
    let named = part.is_some_and(|part| names(part, name, why));
    (!named).then_some(why)
}

#[expect(
    clippy::case_sensitive_file_extension_comparisons,
    reason = "Hadoop writes it in lower case"
)]
fn kind(name: &str) -> Option<Unwanted> {
    let system = |known: &&str| known.eq_ignore_ascii_case(name);
    let checksum = || name.starts_with('.') && name.len() > 5 && name.ends_with(".crc");
    if SYSTEM.iter().any(system)
        || HIDDEN_SYSTEM.iter().any(system)
        || SYSTEM_STARTS.iter().any(|start| name.starts_with(start))
        || checksum()
    {
        Some(Unwanted::System)
    } else if name.starts_with('.') && !matches!(name, "." | "..") {
        Some(Unwanted::Hidden)
    } else {
        None
    }
}

/// Whether a part of a pattern names what it matches: without wildcards; by the point that a hidden name begins with; by
/// two and more of the characters that a system file's name begins with.
fn names(part: &str, name: &str, why: Unwanted) -> bool {
    let Some(end) = part.find(WILDCARDS) else {
        return part == name;
    };
    let start = &part[..end];
    match why {
        Unwanted::Hidden => start.starts_with('.'),
        Unwanted::System => start.len() >= 2 && start.starts_with(['.', '_']) && name.starts_with(start),
    }
}

/// Why a path with `/` is passed over, as a whole: for the first of its parts that none of the patterns that match the
/// path names. `patterns` is empty where everything is asked for.
#[must_use]
pub fn unwanted_path(path: &str, patterns: &[&str]) -> Option<Unwanted> {
    let named = |part: &str, pattern: &str| {
        let why = kind(part)?;
        let by = |own: &str| own != "**" && names(own, part, why) && matches(own, part);
        (!pattern.split('/').any(by)).then_some(why)
    };
    let why = |pattern: &str| path.split('/').find_map(|part| named(part, pattern));
    match patterns {
        [] => why(""),
        // What one of them names is wanted.
        patterns => {
            let whys: Vec<_> = patterns.iter().map(|pattern| why(pattern)).collect();
            whys.iter().copied().min().flatten()
        }
    }
}

/// Patterns of `exclude` over paths with `/`: of members of an archive, of files in a repository or a bucket. A pattern
/// that matches a folder excludes all that lies in it.
#[derive(Default)]
pub struct Exclusions(Vec<Exclusion>);

struct Exclusion {
    /// As written.
    written: String,
    pattern: glob::Pattern,
    /// Whether it has matched anything.
    used: bool,
}

impl Exclusions {
    /// Compiles patterns.
    ///
    /// # Errors
    /// A pattern is malformed.
    pub fn new(patterns: &[String]) -> Result<Self> {
        let compile = |written: &String| {
            let pattern = glob::Pattern::new(written.trim_end_matches('/'))
                .wrap(Kind::Input, || {
                    format!("the pattern `{written}` of `exclude` is malformed")
                })
                .map_err(|error| {
                    error.hint("patterns have `*`, `?`, `[…]` and, between slashes, `**` for any folders")
                })?;
            Ok(Exclusion {
                written: written.clone(),
                pattern,
                used: false,
            })
        };
        Ok(Self(patterns.iter().map(compile).collect::<Result<_>>()?))
    }

    /// Whether a pattern matches a path or a folder that it lies in; `*` stays within a folder, `**` does not. A leading
    /// `./` of the path does not matter.
    pub fn exclude(&mut self, path: &str) -> bool {
        let options = glob::MatchOptions {
            require_literal_separator: true,
            ..glob::MatchOptions::new()
        };
        let path = path.strip_prefix("./").unwrap_or(path);
        let mut any = false;
        for own in &mut self.0 {
            let mut ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            // A name with brackets is itself, too.
            let is = |end| own.pattern.matches_with(&path[..end], options) || own.written == path[..end];
            if ends.any(is) {
                own.used = true;
                any = true;
            }
        }
        any
    }

    /// The patterns as written, each with whether it has matched anything.
    pub fn used(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().map(|own| (own.written.as_str(), own.used))
    }
}

fn matches(part: &str, name: &str) -> bool {
    glob::Pattern::new(part).is_ok_and(|part| part.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Unwanted::{Hidden, System};

    #[test]
    fn hidden_and_system_names_are_skipped() {
        let cases = [
            ("a.txt", None),
            ("_a.txt", None),
            ("a.crc", None),
            (".", None),
            ("..", None),
            (".a.txt", Some(Hidden)),
            (".git", Some(Hidden)),
            (".crc", Some(Hidden)),
            ("._a.txt", Some(System)),
            ("._SUCCESS.crc", Some(System)),
            (".part-0.crc", Some(System)),
            (".ds_store", Some(System)),
            ("__MACOSX", Some(System)),
            ("_SUCCESS", Some(System)),
            ("_committed_17", Some(System)),
            ("thumbs.db", Some(System)),
            (".ipynb_checkpoints", Some(System)),
        ];
        for (name, why) in cases {
            assert_eq!(unwanted(name, None), why, "{name}");
            assert_eq!(unwanted(name, Some("*")), why, "{name}");
            assert_eq!(unwanted(name, Some(name)), None, "{name} by its name");
        }
    }

    #[test]
    fn patterns_can_name_hidden_and_system_files() {
        assert_eq!(unwanted(".a.txt", Some(".*")), None);
        assert_eq!(unwanted(".DS_Store", Some(".*")), Some(System));
        assert_eq!(unwanted("._a.txt", Some("._*")), None);
        assert_eq!(unwanted("_SUCCESS", Some("_*")), Some(System));
        assert_eq!(unwanted("_SUCCESS", Some("_S*")), None);
        assert_eq!(unwanted("Thumbs.db", Some("Th*")), Some(System));
        assert_eq!(unwanted(".a.txt", Some("?a.txt")), Some(Hidden));
    }

    #[test]
    fn exclude_patterns_match_files_and_folders() {
        let patterns = ["old", "a/*.md", "**/test-*", "x[1].txt", "none/"].map(str::to_owned);
        let mut exclusions = Exclusions::new(&patterns).unwrap();
        for (path, excluded) in [
            ("old/a/b.txt", true),
            ("./old", true),
            ("older/a.txt", false),
            ("a/old/b.txt", false),
            ("a/b.md", true),
            ("a/b/c.md", false),
            ("test-0/c.txt", true),
            ("a/b/test-1.txt", true),
            ("x[1].txt", true),
            ("x1.txt", true),
            ("x2.txt", false),
        ] {
            assert_eq!(exclusions.exclude(path), excluded, "{path}");
        }
        let idle = exclusions.used().filter(|(_, used)| !used);
        assert_eq!(idle.map(|(pattern, _)| pattern).collect::<Vec<_>>(), ["none/"]);
        assert!(Exclusions::new(&["a**".to_owned()]).is_err());
    }

    #[test]
    fn paths_are_skipped_for_any_hidden_part() {
        assert_eq!(unwanted_path("a/b.txt", &[]), None);
        assert_eq!(unwanted_path("./a/b.txt", &[]), None);
        assert_eq!(unwanted_path("__MACOSX/a/._b.txt", &[]), Some(System));
        assert_eq!(unwanted_path("a/.git/b", &[]), Some(Hidden));
        assert_eq!(unwanted_path("a/.git/b", &["a/.git/*"]), None);
        assert_eq!(unwanted_path("a/.git/b", &["**/b"]), Some(Hidden));
        assert_eq!(unwanted_path("a/.git/b", &["**/b", "a/.git/b"]), None);
        assert_eq!(unwanted_path("a/.git/.b", &["a/.git/*"]), Some(Hidden));
    }
}
