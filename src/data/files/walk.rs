//! The files that a glob matches, looked for folder by folder.
//!
//! A folder is entered once for each part of the pattern that it is reached with, whatever the way to it: symbolic links
//! that lead back, or to a folder that is entered anyway, end there. Links are followed last, so that a file has its own
//! name rather than that of a link where both match.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use super::names::{Unwanted, is_glob, unwanted};
use super::special::{PathKind, dangling};
use super::{Excluded, LeftOut, SkipReason, own};
use crate::error::{Context as _, Error, Kind, Result, Wrap as _};
use crate::store::Store;

/// A part of a pattern between slashes.
enum Segment {
    /// `**`: any number of folders.
    Folders,
    /// Without wildcards.
    Literal(String),
    /// With wildcards: as written, and compiled.
    Glob(String, glob::Pattern),
}

/// A file that was found.
pub struct Match {
    /// Where it lies.
    pub path: PathBuf,
    /// How it looks.
    pub metadata: Metadata,
    /// Whether a symbolic link is on the way to it.
    pub linked: bool,
}

/// A folder that waits to be entered.
struct Folder {
    path: PathBuf,
    /// The parts of the pattern that are to match next.
    at: BTreeSet<usize>,
    linked: bool,
    /// Whether the pattern spells it out.
    named: bool,
}

/// A search for the files of one pattern.
pub struct GlobWalk<'a> {
    pattern: &'a str,
    base: &'a Path,
    parts: Vec<Segment>,
    excluded: &'a mut Excluded,
    left_out: &'a mut LeftOut,
    found: Vec<Match>,
    /// Folders that were entered, each with a part.
    entered: HashSet<(PathBuf, usize)>,
    links: VecDeque<Folder>,
}

impl<'a> GlobWalk<'a> {
    /// The files that `pattern` matches below `base`, by name.
    ///
    /// # Errors
    /// The pattern is malformed, a folder cannot be read, a name is not UTF-8, or a link leads nowhere.
    pub fn run(
        base: &'a Path,
        pattern: &'a str,
        excluded: &'a mut Excluded,
        left_out: &'a mut LeftOut,
    ) -> Result<Vec<Match>> {
        let malformed = || format!("the pattern `{pattern}` is malformed");
        glob::Pattern::new(pattern).wrap(Kind::Input, malformed)?;
        let mut parts = Vec::new();
        for part in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
            parts.push(match part {
                "**" => Segment::Folders,
                part if is_glob(part) => {
                    let compiled = glob::Pattern::new(part).wrap(Kind::Input, malformed)?;
                    Segment::Glob(part.to_owned(), compiled)
                }
                part => Segment::Literal(part.to_owned()),
            });
        }
        if pattern.ends_with('/') {
            // Of folders alone.
            return Ok(vec![]);
        }
        if matches!(parts.last(), Some(Segment::Folders)) {
            let every = glob::Pattern::new("*").wrap(Kind::Input, malformed)?;
            parts.push(Segment::Glob("*".to_owned(), every));
        }
        // What stands before the first wildcard is not looked for.
        let spelt: Vec<_> = (parts.iter())
            .map_while(|part| match part {
                Segment::Literal(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let root = if pattern.starts_with('/') {
            Path::new("/")
        } else {
            base
        };
        let start = spelt.iter().fold(root.to_owned(), |path, name| path.join(name));
        let mut walk = Self {
            pattern,
            base,
            parts,
            excluded,
            left_out,
            found: Vec::new(),
            entered: HashSet::new(),
            links: VecDeque::new(),
        };
        if walk.excluded.covers(&start) {
            walk.leave(SkipReason::Excluded, &start, true);
            return Ok(vec![]);
        }
        match PathKind::of(&start)? {
            PathKind::Folder(_) => walk.enter(&Folder {
                path: start,
                at: BTreeSet::from([spelt.len()]),
                linked: false,
                // `.mdlm/**` can mean nothing but the store; `data/**` may mean its other files.
                named: spelt.last().is_some_and(|name| name.starts_with('.')),
            })?,
            PathKind::Dangling(to) => return Err(dangling(&start, &walk.name(&start), &to)),
            PathKind::File(_) | PathKind::Special(_) | PathKind::Nothing => {}
        }
        while let Some(folder) = walk.links.pop_front() {
            walk.enter(&folder)?;
        }
        let mut found = walk.found;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found.dedup_by(|a, b| a.path == b.path);
        Ok(found)
    }

    /// A path as the user would write it.
    fn name(&self, path: &Path) -> String {
        path.strip_prefix(self.base).unwrap_or(path).display().to_string()
    }

    fn leave(&mut self, sort: SkipReason, path: &Path, is_folder: bool) {
        let slash = if is_folder { "/" } else { "" };
        let name = format!("{}{slash}", self.name(path));
        self.left_out.add(sort, name);
    }

    /// Looks through a folder.
    fn enter(&mut self, folder: &Folder) -> Result<()> {
        let pattern = self.pattern;
        let reading = || format!("list `{}` for `{pattern}`", folder.path.display());
        // A `**` may stand for no folder at all.
        let mut at = folder.at.clone();
        for &part in &folder.at {
            let folders = self.parts[part..]
                .iter()
                .take_while(|part| matches!(part, Segment::Folders));
            at.extend(part + 1..=part + folders.count());
        }
        let identity = fs::canonicalize(&folder.path).wrap(Kind::Environment, reading)?;
        let before = at.len();
        at.retain(|part| self.entered.insert((identity.clone(), *part)));
        if at.is_empty() && before > 0 {
            if folder.linked {
                self.leave(SkipReason::Repeated, &folder.path, true);
            }
            return Ok(());
        }
        for part in at.clone() {
            if let Segment::Literal(name) = &self.parts[part] {
                let path = folder.path.join(name);
                self.literal(folder, path, part)?;
                at.remove(&part);
            }
        }
        if at.is_empty() {
            return Ok(());
        }
        let own = !folder.named && own::is_store(&folder.path);
        let mut entries = fs::read_dir(&folder.path)
            .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
            .wrap(Kind::Environment, reading)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            self.entry(folder, &at, &entry, own)?;
        }
        Ok(())
    }

    /// Takes what the pattern spells out, if it is there.
    fn literal(&mut self, folder: &Folder, path: PathBuf, part: usize) -> Result<()> {
        let is_last = part + 1 == self.parts.len();
        if self.excluded.matches(&path) {
            self.excluded.file(&path);
            self.leave(SkipReason::Excluded, &path, !is_last);
            return Ok(());
        }
        let linked = folder.linked || path.is_symlink();
        match PathKind::of(&path)? {
            PathKind::File(metadata) if is_last => self.found.push(Match {
                path,
                metadata,
                linked,
            }),
            PathKind::Folder(_) if !is_last => {
                let named = path
                    .file_name()
                    .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
                self.enter_or_wait(Folder {
                    path,
                    at: BTreeSet::from([part + 1]),
                    linked,
                    named,
                })?;
            }
            PathKind::Dangling(to) if is_last => return Err(self.dangling(&path, &to)),
            PathKind::Special(_) if is_last => self.leave(SkipReason::Special, &path, false),
            _ => {}
        }
        Ok(())
    }

    /// Takes an entry of a folder, if the pattern matches it and nothing is against it.
    fn entry(
        &mut self,
        folder: &Folder,
        at: &BTreeSet<usize>,
        entry: &fs::DirEntry,
        own: bool,
    ) -> Result<()> {
        let path = entry.path();
        let file_name = entry.file_name();
        let name = file_name.to_string_lossy();
        // Whether it matches as a file, and what is against it; the parts that follow it as a folder, and what is against
        // that.
        let mut as_file: Option<Option<Unwanted>> = None;
        let mut next = BTreeSet::new();
        let mut against: Option<Unwanted> = None;
        for &part in at {
            let (written, follows) = match &self.parts[part] {
                Segment::Folders => (None, part),
                Segment::Glob(text, glob) if glob.matches(&name) => (Some(text.as_str()), part + 1),
                Segment::Glob(..) | Segment::Literal(_) => continue,
            };
            let why = unwanted(&name, written);
            if follows == self.parts.len() {
                as_file = Some(why);
            } else if why.is_some() {
                against = against.max(why);
            } else {
                next.insert(follows);
            }
        }
        if as_file.is_none() && next.is_empty() && against.is_none() {
            return Ok(());
        }
        let kind = entry
            .file_type()
            .wrap(Kind::Environment, || format!("look at `{}`", path.display()))?;
        let mut linked = folder.linked;
        let place = if kind.is_symlink() {
            linked = true;
            PathKind::of(&path)?
        } else if kind.is_dir() {
            PathKind::Folder(
                entry
                    .metadata()
                    .context(|| format!("look at `{}`", path.display()))?,
            )
        } else {
            PathKind::of(&path)?
        };
        let is_folder = matches!(place, PathKind::Folder(_));
        // A file on the way of `**`, a folder where a file is looked for.
        let (concerned, why) = if is_folder {
            (
                !next.is_empty() || against.is_some(),
                against.filter(|_| next.is_empty()),
            )
        } else {
            (as_file.is_some(), as_file.flatten())
        };
        if !concerned {
            return Ok(());
        }
        if self.excluded.matches(&path) {
            self.excluded.file(&path);
            self.leave(SkipReason::Excluded, &path, is_folder);
            return Ok(());
        }
        if let Some(why) = why {
            let sort = match why {
                _ if is_folder && own::is_store(&path) => SkipReason::Store,
                Unwanted::Hidden => SkipReason::Hidden,
                Unwanted::System => SkipReason::System,
            };
            self.leave(sort, &path, is_folder);
            return Ok(());
        }
        if own && Store::is_entry(&folder.path, &name) {
            self.leave(SkipReason::Store, &path, is_folder);
            return Ok(());
        }
        match place {
            PathKind::Folder(_) => {
                if own::is_store(&path) {
                    self.leave(SkipReason::Store, &path, true);
                    return Ok(());
                }
                self.enter_or_wait(Folder {
                    path,
                    at: next,
                    linked,
                    named: false,
                })?;
            }
            PathKind::File(metadata) => {
                self.is_text(&path)?;
                if own::is_output(&path, &metadata) {
                    self.leave(SkipReason::Own, &path, false);
                    return Ok(());
                }
                self.found.push(Match {
                    path,
                    metadata,
                    linked,
                });
            }
            PathKind::Special(_) => self.leave(SkipReason::Special, &path, false),
            PathKind::Dangling(to) => return Err(self.dangling(&path, &to)),
            // Gone since the folder was listed.
            PathKind::Nothing => {}
        }
        Ok(())
    }

    /// Enters a folder, or waits with it until those are done that no link leads to.
    fn enter_or_wait(&mut self, folder: Folder) -> Result<()> {
        if folder.path.is_symlink() {
            self.links.push_back(folder);
            return Ok(());
        }
        self.enter(&folder)
    }

    /// Checks that the name of a file is UTF-8, and those of its folders below the manifest's.
    fn is_text(&self, path: &Path) -> Result<()> {
        let below = path.strip_prefix(self.base).unwrap_or(path);
        if below.to_str().is_some() {
            return Ok(());
        }
        let own = Path::new(path.file_name().unwrap_or_default());
        let shown = if own.to_str().is_some() { below } else { own };
        let message = format!(
            "`{}` matches `{}`, whose name is not UTF-8",
            self.pattern,
            shown.display()
        );
        Err(Error::input(message)
            .hint("rename it (records store names as UTF-8), or leave it out with `exclude`"))
    }

    fn dangling(&self, path: &Path, to: &str) -> Error {
        let name = self.name(path);
        dangling(path, &name, to)
            .context(format!("`{}` matches a link", self.pattern))
            .or_hint(&format!("or leave it out: `\"exclude\": [\"{name}\"]`"))
    }
}
