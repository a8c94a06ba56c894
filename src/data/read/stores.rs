//! Stores of mdlm among the members of an archive, recognised by the names in them, as [`Store::is_at`] recognises a
//! folder.
//!
//! A zip lists all its names first. A tar is read once, from front to back, and its maker decides the order. Before a
//! store has shown itself, a member that is named as only a store names its files is left out, and the end of the archive
//! has to confirm it. A member that a store may contain, but others as well (`version`, `reports/…`), is held back in
//! memory until the store shows itself or a member of another folder follows ([`Held`]).

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, Read as _};

use super::fault::landed;
use crate::error::{Error, Result};
use crate::manifest::StageKind;
use crate::store::{LAYOUT_VERSION, Store};

/// Bytes of names that are remembered, at most, and parts of a name that are looked at: what bounds memory and time.
const MOST_BYTES: usize = 16 << 20;
const MOST_PARTS: usize = 64;
/// Characters of a digest in hex.
const DIGEST: usize = 64;
/// Bytes of members that are held back, at most.
const MOST_HELD: u64 = 16 << 20;

/// Signs of a store in a folder.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each sign is there or not")]
struct Signs {
    actions: bool,
    artifacts: bool,
    version: bool,
    files: bool,
    /// A folder of `actions` is called as a kind of stage.
    kind: bool,
}

impl Signs {
    fn is_store(self) -> bool {
        self.actions && ((self.artifacts && self.version) || (self.files && self.kind))
    }
}

/// What is known of the stores in an archive. A folder is its path without the slash at its end; the archive itself is ``.
#[derive(Default)]
pub struct Stores {
    signs: HashMap<String, Signs>,
    found: HashSet<String>,
    /// By folder, a member below it that was read.
    read: HashMap<String, String>,
    /// By folder, a member that was left out before the folder was known to be a store.
    suspected: HashMap<String, String>,
    /// Bytes of names in these.
    bytes: usize,
    /// Members of a tar that wait for a folder to show itself.
    pub held: Held,
}

/// The places at which a part of a path starts, with the part and what follows it.
fn parts(name: &str) -> impl Iterator<Item = (&str, &str, Option<&str>)> {
    let starts = std::iter::once(0).chain(name.match_indices('/').map(|(at, _)| at + 1));
    starts.take(MOST_PARTS).map(|at| {
        let folder = name[..at].trim_end_matches('/');
        let (part, rest) = match name[at..].split_once('/') {
            Some((part, rest)) => (part, Some(rest)),
            None => (&name[at..], None),
        };
        (folder, part, rest)
    })
}

fn plain(name: &str) -> &str {
    name.strip_prefix("./").unwrap_or(name)
}

fn is_digest(text: &str) -> bool {
    text.len() == DIGEST && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a pattern of `members` spells out a place in a store, or the store itself where that is hidden.
fn is_named(folder: &str, part: &str, patterns: &[&str]) -> bool {
    let whole = join(folder, part);
    let hidden = folder
        .rsplit('/')
        .next()
        .is_some_and(|last| last.starts_with('.'));
    let starts = |pattern: &str, path: &str| {
        let rest = plain(pattern).strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    (patterns.iter()).any(|pattern| starts(pattern, &whole) || (hidden && starts(pattern, folder)))
}

fn join(folder: &str, part: &str) -> String {
    if folder.is_empty() {
        return part.to_owned();
    }
    format!("{folder}/{part}")
}

/// The folder that would be a store, by the name of a member that has a digest in it, and the folder in it.
fn suspect(name: &str) -> Option<(&str, &str)> {
    parts(name).find_map(|(folder, part, rest)| {
        let rest = rest?;
        let mut names = rest.split('/');
        let (first, second, third) = (names.next()?, names.next(), names.next());
        let is = match part {
            "artifacts" => second.is_some() && is_digest(first),
            "actions" => {
                let record = second.and_then(|name| name.strip_suffix(".json"));
                StageKind::named(first).is_some() && third.is_none() && record.is_some_and(is_digest)
            }
            "downloads" => first == "sha256" && third.is_some_and(is_digest),
            "files" => second.is_some_and(|name| is_digest(name) && name.starts_with(first)),
            "checkpoints" | "piped" | "quarantine" | "staging" | "work" => {
                is_digest(first.strip_suffix(".json").unwrap_or(first))
            }
            _ => false,
        };
        is.then_some((folder, part))
    })
}

impl Stores {
    /// Remembers a member's name.
    ///
    /// # Errors
    /// The name shows that a folder is a store of which members were read.
    pub fn saw(&mut self, name: &str) -> Result<()> {
        for (folder, part, rest) in parts(plain(name)) {
            if !matches!(
                (part, rest),
                ("actions" | "artifacts" | "files", Some(_)) | ("version", None)
            ) {
                continue;
            }
            if !self.signs.contains_key(folder) {
                if self.bytes > MOST_BYTES {
                    continue;
                }
                self.bytes += folder.len();
            }
            let signs = self.signs.entry(folder.to_owned()).or_default();
            match part {
                "actions" => {
                    signs.actions = true;
                    let kind = rest.and_then(|rest| rest.split_once('/'));
                    signs.kind |= kind.is_some_and(|(kind, _)| StageKind::named(kind).is_some());
                }
                "artifacts" => signs.artifacts = true,
                "files" => signs.files = true,
                _ => signs.version = true,
            }
            if !signs.is_store() || !self.found.insert(folder.to_owned()) {
                continue;
            }
            if let Some(read) = self.read.get(folder) {
                let (store, exclude) = match folder {
                    "" => ("the archive".to_owned(), read.as_str()),
                    folder => (format!("`{folder}/` in the archive"), folder),
                };
                return Err(Error::input(format!(
                    "{store} is a store of mdlm, which is left out, but its member `{read}` stands before those that \
                     show it"
                ))
                .hint(format!("leave it out by name: `\"read\": {{\"exclude\": [\"{exclude}\"]}}`")));
            }
        }
        Ok(())
    }

    /// Whether a member belongs to a store and none of the patterns of `members` that match it names its place there.
    pub fn holds(&self, name: &str, patterns: &[&str]) -> bool {
        parts(plain(name)).any(|(folder, part, _)| {
            let is_own = || !folder.is_empty() || self.is_entry(part);
            self.found.contains(folder) && is_own() && !is_named(folder, part, patterns)
        })
    }

    /// Whether a member is named as only a store names its files, where no store has shown itself yet; remembers it.
    pub fn suspects(&mut self, name: &str, patterns: &[&str]) -> bool {
        let name = plain(name);
        let Some((folder, part)) = suspect(name) else {
            return false;
        };
        if self.found.contains(folder) || is_named(folder, part, patterns) || self.bytes > MOST_BYTES {
            return false;
        }
        self.bytes += folder.len() + name.len();
        self.suspected
            .entry(folder.to_owned())
            .or_insert_with(|| name.to_owned());
        true
    }

    /// The folder that may be a store and has not shown itself, if a member is named like something in it and none of the
    /// patterns names that place. None where a member of it was read: then it is too late to hold others back.
    pub fn undecided<'n>(&self, name: &'n str, patterns: &[&str]) -> Option<&'n str> {
        let undecided = parts(plain(name)).find(|(folder, part, _)| {
            let artifacts = self.signs.get(*folder).is_some_and(|signs| signs.artifacts);
            Store::has_entry(part, artifacts)
                && !self.found.contains(*folder)
                && !self.read.contains_key(*folder)
                && !is_named(folder, part, patterns)
        });
        undecided.map(|(folder, ..)| folder)
    }

    /// Whether what is called so at the top of an archive that is a store belongs to the store.
    fn is_entry(&self, part: &str) -> bool {
        let artifacts = self.signs.get("").is_some_and(|signs| signs.artifacts);
        Store::has_entry(part, artifacts)
    }

    /// A member is read, which `patterns` match.
    pub fn reads(&mut self, name: &str, patterns: &[&str]) {
        for (folder, part, _) in parts(plain(name)) {
            let is_own = !folder.is_empty() || self.is_entry(part);
            let is_own = is_own && !is_named(folder, part, patterns);
            if is_own && self.bytes <= MOST_BYTES && !self.read.contains_key(folder) {
                self.bytes += folder.len() + name.len();
                self.read.insert(folder.to_owned(), name.to_owned());
            }
        }
    }

    /// The archive is at its end.
    ///
    /// # Errors
    /// Members were left out as a store's, and there is no store.
    pub fn end(&self) -> Result<()> {
        let unproven = self
            .suspected
            .iter()
            .filter(|(folder, _)| !self.found.contains(*folder));
        // The first by name, so that the message is the same each time.
        let Some((folder, member)) = unproven.min() else {
            return Ok(());
        };
        let place = member[folder.len()..].trim_start_matches('/');
        let place = place.split('/').next().unwrap_or(place);
        let whole = join(folder, place);
        Err(Error::input(format!(
            "member `{member}` is named like a file in a store of mdlm, but the archive lacks the rest of the store \
             (`actions`, `artifacts` and `version`, layout {LAYOUT_VERSION})"
        ))
        .hint(format!(
            "leave it out, `\"read\": {{\"exclude\": [\"{whole}\"]}}`, or read it: `\"read\": {{\"members\": \
             [\"{whole}/**\"]}}`"
        )))
    }
}

/// Members of a tar that are held back, in their order: those of one folder that may show itself as a store. Nothing is
/// read meanwhile, so that records keep the order of the archive.
#[derive(Default)]
pub struct Held {
    /// The folder.
    pub folder: String,
    /// Names and contents.
    pub members: Vec<(String, Vec<u8>)>,
    bytes: u64,
}

impl Held {
    /// Takes what the member at `content` holds, if there is room; else gives back what was read of it.
    ///
    /// # Errors
    /// The archive cannot be read.
    pub fn take(&mut self, name: &str, content: &mut dyn BufRead) -> Result<Option<Vec<u8>>> {
        let room = MOST_HELD.saturating_sub(self.bytes + name.len() as u64);
        let mut bytes = Vec::new();
        content.take(room + 1).read_to_end(&mut bytes).map_err(landed)?;
        if bytes.len() as u64 > room {
            return Ok(Some(bytes));
        }
        self.bytes += (name.len() + bytes.len()) as u64;
        self.members.push((name.to_owned(), bytes));
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_in_an_archive_is_recognised_by_member_names() {
        let mut stores = Stores::default();
        for name in [
            "./st/version",
            "st/actions/source/a.json",
            "a/actions/b",
            "a/version",
        ] {
            stores.saw(name).unwrap();
        }
        assert!(!stores.holds("st/version", &[]));
        stores.saw("st/artifacts/ab/a.txt").unwrap();
        for name in ["st/version", "./st/artifacts/ab/a.txt", "st/notes.txt"] {
            assert!(stores.holds(name, &[]), "{name}");
            assert!(stores.holds(name, &["**/*.txt"]), "{name}");
        }
        assert!(!stores.holds("a/version", &[]) && !stores.holds("stock/a.txt", &[]));
        assert!(!stores.holds("st/artifacts/ab/a.txt", &["st/artifacts/*/a.txt"]));
        // A cache that machines share; and the archive itself.
        for name in ["actions/train/ab.json", "files/ab/abcd"] {
            stores.saw(name).unwrap();
        }
        assert!(stores.holds("files/ab/abcd", &[]) && !stores.holds("a.txt", &[]));
    }

    #[test]
    fn store_recognised_after_members_were_read_is_an_error() {
        let digest = "0123456789abcdef".repeat(4);
        let artifact = format!("st/artifacts/{digest}/a.txt");
        let mut stores = Stores::default();
        stores.saw(&artifact).unwrap();
        assert!(!stores.holds(&artifact, &[]) && stores.suspects(&artifact, &[]));
        let fault = stores.end().unwrap_err();
        assert!(fault.to_string().contains(&artifact), "{fault}");
        stores.saw("st/version").unwrap();
        stores.reads("st/version", &[]);
        let fault = stores.saw("st/actions/source/a.json").unwrap_err();
        assert!(
            fault
                .to_string()
                .contains("`st/` in the archive is a store of mdlm"),
            "{fault}"
        );
        assert!(stores.end().is_ok());
        assert!(stores.holds(&artifact, &[]));
        // The same name where no digest is.
        assert!(!Stores::default().suspects("st/artifacts/ab/a.txt", &[]));
    }
}
