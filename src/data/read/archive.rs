//! What tar and zip have in common: how they are recognised, and the names of their members.

use crate::error::{Error, Kind, Result, Wrap as _};

/// Names of members that a hint shows.
const SHOWN: usize = 5;

/// A glob over members' names.
///
/// # Errors
/// The pattern is malformed.
pub fn pattern(glob: &str) -> Result<glob::Pattern> {
    glob::Pattern::new(glob)
        .wrap(Kind::Input, || {
            format!("the pattern `{glob}` of `members` is malformed")
        })
        .map_err(|error| error.hint("patterns have `*`, `?`, `[…]` and, as a whole folder name, `**`"))
}

/// The patterns that match a name: `*` stays within a folder, `**` does not. A leading `./` of a name does not matter.
pub fn matching<'p>(patterns: &'p [glob::Pattern], name: &str) -> Vec<&'p str> {
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::default()
    };
    let name = name.strip_prefix("./").unwrap_or(name);
    let matches = patterns
        .iter()
        .filter(|pattern| pattern.matches_with(name, options));
    matches.map(glob::Pattern::as_str).collect()
}

/// Refuses a name that leads out of the archive. Nothing is ever written under it, but its maker meant harm or
/// was mistaken.
///
/// # Errors
/// The name is absolute or has `..`.
pub fn check(name: &str) -> Result<()> {
    let mut parts = name.split(['/', '\\']);
    let drive = name.as_bytes().get(1) == Some(&b':') && name.as_bytes()[0].is_ascii_alphabetic();
    if name.starts_with(['/', '\\']) || drive || parts.any(|part| part == "..") {
        return Err(Error::input(format!(
            "the archive has a member `{name}`, whose path leads out of the archive"
        ))
        .hint("write the archive again with relative names, without `..`"));
    }
    Ok(())
}

/// Names that were seen in an archive, for a hint.
#[derive(Default)]
pub struct MemberNames {
    first: Vec<String>,
    seen: u64,
    taken: u64,
}

impl MemberNames {
    /// A regular member is there.
    pub fn saw(&mut self, name: &str) {
        self.seen += 1;
        if self.first.len() < SHOWN {
            self.first.push(name.to_owned());
        }
    }

    /// It was read, or left out although it was meant.
    pub fn took(&mut self) {
        self.taken += 1;
    }

    /// Whether any was.
    pub fn any_taken(&self) -> bool {
        self.taken > 0
    }

    /// The members to choose from.
    pub fn hint(&self) -> String {
        if self.first.is_empty() {
            return "the archive holds no regular file".to_owned();
        }
        let more = match self.seen - self.first.len() as u64 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let first: Vec<_> = self.first.iter().map(|name| format!("`{name}`")).collect();
        format!("it holds {}{more}", first.join(", "))
    }
}
