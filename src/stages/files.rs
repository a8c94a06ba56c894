//! The files outside the store that a stage reads: from the manifest's patterns to paths.
//!
//! The plan and the stage both come here, so that what is hashed is what is read.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::error::{Error, Kind, Result, Wrap};

/// As a shell does it: `*` does not cross folders nor match a leading dot.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// The file that a manifest names, relative to `base`.
///
/// # Errors
/// An input error when there is no such file.
pub fn find(base: &Path, name: &str) -> Result<PathBuf> {
    let path = base.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let what = if path.is_dir() {
        "it is a folder"
    } else {
        "no such file"
    };
    let hint = format!("paths are relative to the manifest, in `{}`", base.display());
    Err(Error::input(format!("find `{name}`: {what}")).hint(hint))
}

/// The files that a manifest's paths and globs name, relative to `base`: in the order of the patterns, the matches of
/// a glob by name, each file once.
///
/// # Errors
/// An input error when a pattern is malformed or matches no file.
pub fn expand(base: &Path, patterns: &[String]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for pattern in patterns {
        // A file whose name has a bracket in it is found by its name.
        if !pattern.contains(['*', '?', '[']) || base.join(pattern).is_file() {
            files.push(find(base, pattern)?);
            continue;
        }
        let matched = matches(base, pattern)?;
        if matched.is_empty() {
            let hint = format!("globs are relative to the manifest, in `{}`", base.display());
            return Err(Error::input(format!("find `{pattern}`: no file matches")).hint(hint));
        }
        files.extend(matched);
    }
    let mut seen = std::collections::HashSet::new();
    files.retain(|file| seen.insert(file.clone()));
    Ok(files)
}

fn matches(base: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let absolute = if Path::new(pattern).is_absolute() {
        pattern.to_owned()
    } else {
        let base = base.to_str().ok_or_else(|| {
            Error::input(format!(
                "find `{pattern}`: the path `{}` is not UTF-8",
                base.display()
            ))
        })?;
        match base {
            "" => pattern.to_owned(),
            _ => format!("{}/{pattern}", Pattern::escape(base)),
        }
    };
    let context = || format!("find `{pattern}`");
    let mut files = Vec::new();
    for path in glob::glob_with(&absolute, OPTIONS).wrap(Kind::Input, context)? {
        let path = path.wrap(Kind::Environment, context)?;
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn project() -> tempfile::TempDir {
        let folder = tempfile::Builder::new().prefix("a[b]c").tempdir().unwrap();
        for path in [
            "b.txt",
            "a.txt",
            ".hidden.txt",
            "x[1].txt",
            "sub/c.txt",
            "sub/deep/d.txt",
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::create_dir(folder.path().join("folder.txt")).unwrap();
        folder
    }

    fn expanded(base: &Path, patterns: &[&str]) -> Result<String> {
        let patterns: Vec<_> = patterns.iter().map(ToString::to_string).collect();
        let files = expand(base, &patterns)?;
        let names: Vec<_> = files
            .iter()
            .map(|file| file.strip_prefix(base).unwrap().display().to_string())
            .collect();
        Ok(names.join(" "))
    }

    #[test]
    fn patterns_keep_their_order_and_matches_have_theirs() {
        let folder = project();
        let base = folder.path();
        for (patterns, files) in [
            (&["*.txt"][..], "a.txt b.txt x[1].txt"),
            (&["b.txt", "*.txt"], "b.txt a.txt x[1].txt"),
            (&["x[1].txt"], "x[1].txt"),
            (&["[ab].txt"], "a.txt b.txt"),
            (&["**/*.txt"], "a.txt b.txt sub/c.txt sub/deep/d.txt x[1].txt"),
            (&["sub/?.txt", "a.txt"], "sub/c.txt a.txt"),
        ] {
            assert_eq!(expanded(base, patterns).unwrap(), files, "{patterns:?}");
        }
        let absolute = base.join("sub/c.txt");
        assert_eq!(
            expanded(base, &[absolute.to_str().unwrap()]).unwrap(),
            "sub/c.txt"
        );
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = project();
        let message = |pattern| expanded(folder.path(), &[pattern]).unwrap_err().to_string();
        assert_eq!(message("c.txt"), "find `c.txt`: no such file");
        assert_eq!(message("folder.txt"), "find `folder.txt`: it is a folder");
        assert_eq!(message("*.csv"), "find `*.csv`: no file matches");
        assert!(message("[a.txt").starts_with("find `[a.txt`: Pattern syntax error"));
    }
}
