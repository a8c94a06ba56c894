//! Resolves the files outside the store that a manifest names.
//!
//! Paths and globs name files. Each file appears once, in the order of the patterns and, within a glob, sorted by name.
//! Files that a glob skips are counted ([`LeftOut`]), so that a stage can report them: hidden files and folders and
//! system files ([`names`]), mdlm's stores, reports and manifests, files that `exclude` matches, files that are not
//! plain files, and files that are already listed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use crate::error::{Context as _, Error, Kind, Result, Wrap as _};
pub use crate::manifest::reading::{STANDARD_INPUT, is_open_file};
use crate::store::Digest;
use crate::store::stat::Look;

pub mod names;
pub mod own;
pub mod special;
mod walk;

use special::PathKind;
use walk::{GlobWalk, Match};

/// Why something that a pattern matches is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SkipReason {
    /// Its name begins with a point.
    Hidden,
    /// A system or a tool left it behind.
    System,
    /// It is a store of mdlm, or lies in one.
    Store,
    /// It is a report or a manifest of mdlm.
    Own,
    /// `exclude` matches it.
    Excluded,
    /// It is a pipe, a socket or a device.
    Special,
    /// It is a file that is read already, under another name or for another pattern; or a link to a folder that is
    /// entered already.
    Repeated,
}

impl SkipReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Hidden,
        Self::System,
        Self::Store,
        Self::Own,
        Self::Excluded,
        Self::Special,
        Self::Repeated,
    ];

    /// What a summary calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hidden => "hidden left out",
            Self::System => "system files left out",
            Self::Store => "stores left out",
            Self::Own => "reports and manifests left out",
            Self::Excluded => "excluded",
            Self::Special => "pipes and devices left out",
            Self::Repeated => "repeats left out",
        }
    }
}

/// Names of one sort that are shown.
const SHOWN: usize = 4;
/// Names of one sort that are remembered, so that what two patterns come upon counts once.
const REMEMBERED: usize = 10_000;

/// What patterns matched and what is not read: how much of each sort, and the first names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    sorts: BTreeMap<SkipReason, SkippedNames>,
    /// Names of files that are read under another name: theirs, and that under which they are read.
    links: Vec<(String, String)>,
    /// Patterns of `exclude` that matched nothing.
    idle: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SkippedNames {
    count: u64,
    first: Vec<String>,
    known: HashSet<String>,
}

impl LeftOut {
    fn add(&mut self, sort: SkipReason, name: String) {
        let names = self.sorts.entry(sort).or_default();
        if names.known.contains(&name) {
            return;
        }
        names.count += 1;
        if names.first.len() < SHOWN {
            names.first.push(name.clone());
        }
        if names.known.len() < REMEMBERED {
            names.known.insert(name);
        }
    }

    /// Adds what other patterns matched.
    pub fn and(&mut self, other: Self) {
        for (sort, names) in other.sorts {
            let uncounted = names.count - names.known.len() as u64;
            // The first in the order in which they were found.
            for name in &names.first {
                self.add(sort, name.clone());
            }
            for name in names.known {
                self.add(sort, name);
            }
            if let Some(own) = self.sorts.get_mut(&sort) {
                own.count += uncounted;
            }
        }
        self.idle.extend(other.idle);
        for link in other.links {
            if !self.links.contains(&link) {
                self.links.push(link);
            }
        }
    }

    /// The number of files of each sort.
    pub fn counts(&self) -> impl Iterator<Item = (SkipReason, u64)> {
        self.sorts.iter().map(|(sort, names)| (*sort, names.count))
    }

    /// Counts what has been found elsewhere, without names.
    pub fn add_counts(&mut self, sort: SkipReason, count: u64) {
        if count > 0 {
            self.sorts.entry(sort).or_default().count += count;
        }
    }

    /// How much of a sort there is; a folder counts once.
    #[must_use]
    pub fn count(&self, sort: SkipReason) -> u64 {
        self.sorts.get(&sort).map_or(0, |names| names.count)
    }

    /// A line for each sort: `hidden left out: .git/, .cache/ and 3 more`.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |(sort, names): (&SkipReason, &SkippedNames)| {
            let more = match names.count - names.first.len() as u64 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let first: Vec<_> = names.first.iter().map(|name| format!("`{name}`")).collect();
            format!("{}: {}{more}", sort.name(), first.join(", "))
        };
        self.sorts.iter().map(line).collect()
    }

    /// What a user should know: a file that two names lead to, a pattern of `exclude` that excludes nothing.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some((name, read)) = self.links.first() {
            let more = match self.links.len() - 1 {
                0 => String::new(),
                1 => "; the same holds for one more file".to_owned(),
                more => format!("; the same holds for {more} more files"),
            };
            warnings.push(format!(
                "`{name}` is the same file as `{read}`, and is read once, under that name{more}"
            ));
        }
        for pattern in &self.idle {
            warnings.push(format!(
                "`exclude` pattern `{pattern}` matches no file that `files` matches: a pattern starts at \
                 the manifest's folder, and `**/` matches any folder"
            ));
        }
        warnings
    }
}

/// The patterns of `exclude`, ready to be matched.
struct Excluded {
    patterns: Vec<Exclusion>,
    /// The files that were excluded, whatever other names they have, and the pattern that is the name of one. The files
    /// of excluded folders are not among them: such a folder may be large, and is not searched.
    files: HashMap<Identity, Option<usize>>,
}

/// A pattern of `exclude`.
struct Exclusion {
    /// As written.
    written: String,
    /// The file or folder that is called so.
    literal: PathBuf,
    pattern: glob::Pattern,
    /// Whether it has matched anything.
    used: bool,
}

impl Excluded {
    fn new(base: &Path, patterns: &[String]) -> Result<Self> {
        let escaped = PathBuf::from(glob::Pattern::escape(&absolute(base).to_string_lossy()));
        let compile = |pattern: &String| {
            let whole = lexical(&escaped.join(pattern.trim_end_matches('/')));
            let compiled = glob::Pattern::new(&whole.to_string_lossy()).wrap(Kind::Input, || {
                format!("the pattern `{pattern}` of `exclude` is malformed")
            })?;
            Ok(Exclusion {
                written: pattern.clone(),
                literal: lexical(&absolute(&base.join(pattern))),
                pattern: compiled,
                used: false,
            })
        };
        let patterns = patterns.iter().map(compile).collect::<Result<Vec<_>>>()?;
        let mut excluded = Self {
            patterns,
            files: HashMap::new(),
        };
        for index in 0..excluded.patterns.len() {
            let path = excluded.patterns[index].literal.clone();
            excluded.note(&path, Some(index));
        }
        Ok(excluded)
    }

    /// Remembers an excluded file, if there is one: it is excluded under all its names.
    fn file(&mut self, path: &Path) {
        self.note(path, None);
    }

    fn note(&mut self, path: &Path, pattern: Option<usize>) {
        if let Ok(metadata) = std::fs::metadata(path)
            && metadata.is_file()
        {
            (self.files.entry(Identity::at(path, &Look::of(&metadata)))).or_insert(pattern);
        }
    }

    /// Whether a file has been excluded under another name.
    fn knows(&mut self, file: &FoundFile) -> bool {
        let Some(pattern) = self.files.get(&Identity::of(file)) else {
            return false;
        };
        if let Some(index) = *pattern {
            self.patterns[index].used = true;
        }
        true
    }

    /// Whether the links of a path lead to a file that a pattern matches; `real` is `base` without links.
    fn leads_to(&mut self, file: &FoundFile, base: &Path, real: &Path) -> bool {
        let Ok(to) = std::fs::canonicalize(&file.path) else {
            return false;
        };
        let below = to.strip_prefix(real).map(|below| base.join(below)).ok();
        below.is_some_and(|path| self.covers(&path)) || self.covers(&to)
    }

    /// Whether a pattern matches a path.
    fn matches(&mut self, path: &Path) -> bool {
        !self.patterns.is_empty() && self.matches_absolute(&lexical(&absolute(path)))
    }

    /// Whether a pattern matches a path or a folder that it lies in.
    fn covers(&mut self, path: &Path) -> bool {
        let path = lexical(&absolute(path));
        !self.patterns.is_empty() && path.ancestors().any(|path| self.matches_absolute(path))
    }

    fn matches_absolute(&mut self, path: &Path) -> bool {
        let options = glob::MatchOptions {
            require_literal_separator: true,
            ..glob::MatchOptions::new()
        };
        let mut any = false;
        let text = path.to_string_lossy();
        for own in &mut self.patterns {
            if own.literal == path || own.pattern.matches_with(&text, options) {
                own.used = true;
                any = true;
            }
        }
        any
    }
}

/// A path from the root on; as it is where the current folder is not known.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// A path without `.` and `..`, by its text alone.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some() => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

/// What a field of a manifest names.
#[derive(Clone, Copy, Debug)]
pub struct FilePatterns<'a> {
    /// Paths and globs.
    pub files: &'a [String],
    /// Globs over what is not read.
    pub exclude: &'a [String],
    /// What has come through pipes, where the field takes that.
    pub piped: Option<&'a [Piped]>,
}

impl<'a> FilePatterns<'a> {
    /// Paths and globs alone.
    #[must_use]
    pub fn by(files: &'a [String]) -> Self {
        Self {
            files,
            exclude: &[],
            piped: None,
        }
    }
}

/// Text that has come through a pipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piped {
    /// What the manifest calls it: `-`, `/dev/fd/63`.
    pub name: String,
    /// The file that it was copied to. Nothing where it was only hashed, for a plan.
    pub path: Option<PathBuf>,
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the content.
    pub digest: Digest,
}

/// The files that a field names.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// The files, in order.
    pub files: Vec<FoundFile>,
    /// What patterns matched and what is not read.
    pub left_out: LeftOut,
}

impl Files {
    /// The paths, in order.
    #[must_use]
    pub fn paths(self) -> Vec<PathBuf> {
        self.files.into_iter().map(|file| file.path).collect()
    }
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFile {
    /// Where it lies.
    pub path: PathBuf,
    /// What it is called: its path from the manifest's folder on; of a pipe what the manifest calls it.
    pub name: String,
    /// How it looked.
    pub look: Look,
}

/// The files that paths and globs stand for, relative to `base`: in the order of the patterns, the matches of a glob by
/// name, each file once, where it comes first. Two names are of one file when device and inode are the same, be that
/// through links, hard links or two ways to write a path.
///
/// A pattern that is the name of an existing file stands for that file, whatever characters it has.
///
/// # Errors
/// A pattern is malformed, matches nothing, or names a folder, a pipe, a socket, a device or a link to nothing.
pub fn expand(base: &Path, named: FilePatterns<'_>) -> Result<Files> {
    let mut excluded = Excluded::new(base, named.exclude)?;
    let mut seen: HashMap<Identity, usize> = HashMap::new();
    let mut all = Files::default();
    let mut by_pattern = Vec::new();
    for pattern in named.files {
        let mut left_out = LeftOut::default();
        let found = matches(base, pattern, named.piped, &mut excluded, &mut left_out)?;
        if found.is_empty() {
            return Err(nothing(base, pattern, &left_out));
        }
        by_pattern.push((pattern, found, left_out));
    }
    // Which files are excluded is known when all patterns have been followed.
    let real = std::fs::canonicalize(base).unwrap_or_else(|_| base.to_owned());
    for (pattern, mut found, mut left_out) in by_pattern {
        found.retain(|(file, linked)| {
            let is_excluded = !excluded.patterns.is_empty()
                && (excluded.knows(file)
                    || (*linked || file.path.is_symlink()) && excluded.leads_to(file, base, &real));
            if is_excluded {
                left_out.add(SkipReason::Excluded, file.name.clone());
            }
            !is_excluded
        });
        if found.is_empty() {
            return Err(nothing(base, pattern, &left_out));
        }
        // Of the names of a file that a glob matches, one that no link leads to.
        let mut best: HashMap<Identity, usize> = HashMap::new();
        let identities: Vec<_> = found.iter().map(|(file, _)| Identity::of(file)).collect();
        for (index, identity) in identities.iter().enumerate() {
            let own = best.entry(identity.clone()).or_insert(index);
            if found[*own].1 && !found[index].1 {
                *own = index;
            }
        }
        let names: Vec<_> = found.iter().map(|(file, _)| file.name.clone()).collect();
        for (index, (file, _)) in found.into_iter().enumerate() {
            let identity = &identities[index];
            let read = match (seen.get(identity), best.get(identity)) {
                (Some(&read), _) => all.files[read].name.clone(),
                (None, Some(&best)) if best != index => names[best].clone(),
                _ => {
                    seen.insert(identity.clone(), all.files.len());
                    all.files.push(file);
                    continue;
                }
            };
            let same =
                file.name == read || lexical(&absolute(&file.path)) == lexical(&absolute(&base.join(&read)));
            left_out.add(SkipReason::Repeated, file.name.clone());
            if !same {
                left_out.links.push((file.name, read));
            }
        }
        all.left_out.and(left_out);
    }
    all.left_out.idle = (excluded.patterns.into_iter())
        .filter(|own| !own.used)
        .map(|own| own.written)
        .collect();
    Ok(all)
}

/// Identifies a file: two names with equal values are one file. Length and time too, since some network file systems give
/// two files one inode.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Identity {
    Look(Look),
    /// Where there are no inodes.
    Path(PathBuf),
}

impl Identity {
    fn of(file: &FoundFile) -> Self {
        Self::at(&file.path, &file.look)
    }

    fn at(path: &Path, look: &Look) -> Self {
        if look.has_inode() {
            return Self::Look(look.clone());
        }
        Self::Path(std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()))
    }
}

/// The files that one pattern stands for, each with whether a link leads to it.
fn matches(
    base: &Path,
    pattern: &str,
    piped: Option<&[Piped]>,
    excluded: &mut Excluded,
    left_out: &mut LeftOut,
) -> Result<Vec<(FoundFile, bool)>> {
    let found = |path: PathBuf, metadata: &std::fs::Metadata, name: String| FoundFile {
        path,
        name,
        look: Look::of(metadata),
    };
    let name_of = |path: &Path| path.strip_prefix(base).unwrap_or(path).display().to_string();
    if is_open_file(pattern) {
        let known = piped.and_then(|piped| piped.iter().find(|piped| piped.name == pattern));
        if let Some(piped) = known {
            let Some(path) = &piped.path else {
                let file = FoundFile {
                    path: PathBuf::from(pattern),
                    name: pattern.to_owned(),
                    look: Look::default(),
                };
                return Ok(vec![(file, false)]);
            };
            let metadata = std::fs::metadata(path).context(|| {
                format!(
                    "read the text that came through `{pattern}`, `{}`",
                    path.display()
                )
            })?;
            let file = found(path.clone(), &metadata, pattern.to_owned());
            return Ok(vec![(file, false)]);
        }
        if pattern == STANDARD_INPUT {
            return Err(match piped {
                Some(_) => Error::input("`-` is standard input, and nothing is piped into it").hint(
                    "pipe the text in, `mdlm run MANIFEST < FILE`, or name its file; write `./-` for a file named `-`",
                ),
                None => Error::input("`-` is standard input, which only `files` of a `files` source can name")
                    .hint("name a file; write `./-` for a file named `-`"),
            });
        }
    }
    let literal = base.join(pattern);
    match PathKind::of(&literal)? {
        PathKind::File(_) if excluded.covers(&literal) => {
            left_out.add(SkipReason::Excluded, name_of(&literal));
            excluded.file(&literal);
            Ok(vec![])
        }
        PathKind::File(metadata) => {
            let name = name_of(&literal);
            Ok(vec![(found(literal, &metadata, name), false)])
        }
        PathKind::Folder(_) => Err(Error::input(format!("`{pattern}` is a folder")).hint(format!(
            "name its files, for example `{}/*.txt`",
            pattern.trim_end_matches('/')
        ))),
        PathKind::Special(what) => {
            let error = special::refused(pattern, what);
            Err(match piped {
                Some(_) => error.or_hint(
                    "or read it from standard input: `\"files\": [\"-\"]` and `mdlm run MANIFEST < PIPE`",
                ),
                None => error,
            })
        }
        PathKind::Dangling(to) => Err(special::dangling(&literal, pattern, &to)),
        PathKind::Nothing if names::is_glob(pattern) => {
            let matches = GlobWalk::run(base, pattern, excluded, left_out)?.into_iter();
            let file = |file: Match| {
                let name = name_of(&file.path);
                (found(file.path, &file.metadata, name), file.linked)
            };
            Ok(matches.map(file).collect())
        }
        // Nothing by that name: it may be the folder that is a link to nothing.
        PathKind::Nothing => {
            let folders = literal.ancestors().skip(1).take_while(|folder| *folder != base);
            for folder in folders {
                if let PathKind::Dangling(to) = PathKind::of(folder)? {
                    return Err(special::dangling(folder, &name_of(folder), &to));
                }
            }
            Ok(vec![])
        }
    }
}

/// Where the results lie in the store that a pattern came upon, as a pattern would name it.
fn stored_place(base: &Path, left_out: &LeftOut) -> String {
    let first = left_out
        .sorts
        .get(&SkipReason::Store)
        .and_then(|names| names.first.first());
    let name = Path::new(first.map_or("", |name| name.trim_end_matches('/')));
    // Either the store, or something in it.
    let store = if own::is_store(&base.join(name)) {
        name
    } else {
        name.parent().unwrap_or(Path::new(""))
    };
    let artifacts = store.join("artifacts");
    // A cache that machines share has files alone.
    let place = if base.join(&artifacts).is_dir() {
        artifacts
    } else {
        store.join("files")
    };
    place.display().to_string()
}

/// That a pattern stands for no file, with what it matches and what is left out.
fn nothing(base: &Path, pattern: &str, left_out: &LeftOut) -> Error {
    // A link to a folder that is entered anyway hides no file.
    if left_out.sorts.keys().all(|sort| *sort == SkipReason::Repeated) {
        return Error::input(format!("no file matches `{pattern}`")).hint(format!(
            "paths start at the manifest's folder, `{}`",
            base.display()
        ));
    }
    let has = |sort| left_out.count(sort) > 0;
    let mut ways: Vec<String> = Vec::new();
    if has(SkipReason::Hidden) || has(SkipReason::System) || has(SkipReason::Own) {
        ways.push(
            "to read such files all the same, name them; a pattern of hidden files begins with a point: `.*`"
                .to_owned(),
        );
    }
    if has(SkipReason::Store) {
        let place = stored_place(base, left_out);
        ways.push(format!(
            "results of mdlm are read only where the pattern names their folder in the store: `{place}/…`"
        ));
    }
    if has(SkipReason::Excluded) {
        ways.push("loosen `exclude`".to_owned());
    }
    if ways.is_empty() {
        ways.push("name plain files".to_owned());
    }
    Error::input(format!(
        "all files that `{pattern}` matches are left out: {}",
        left_out.lines().join("; ")
    ))
    .hint(ways.join("; "))
}

#[cfg(all(test, unix))]
mod tests;
