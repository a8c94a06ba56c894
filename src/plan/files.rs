//! The files outside the store that stages read: found and hashed when a plan is made, looked at again when a stage has
//! read them.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rayon::prelude::*;

use super::{Plan, PlannedStage, Sources};
use crate::data::files::{self, FilePatterns, FoundFile, LeftOut, Piped};
use crate::data::read::Consumed;
use crate::error::{Context as _, Error, Result};
use crate::manifest::{FileReference, StageKind, tokenizer_object};
use crate::store::ExternalFile;
use crate::store::digest::hash_file;
use crate::store::stat::{ChecksumCache, Look};
use crate::weights::import::files::{CheckpointFile, FileSet, is_index};

/// A file as it was when it was hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Observed {
    path: PathBuf,
    look: Look,
    /// Whether it had been left alone for a while, so that a later change shows.
    settled: bool,
}

impl Plan {
    /// What comes through the pipes that a stage names; where nothing comes, what came for its last run, if the store has
    /// it.
    pub(super) fn piped_before(
        &mut self,
        name: &str,
        kind: StageKind,
        references: &[FileReference],
        now: &[Piped],
        sources: &Sources,
    ) -> Result<Vec<Piped>> {
        let mut all = now.to_vec();
        let pipes = references
            .iter()
            .filter(|reference| reference.takes_pipes)
            .flat_map(|reference| &reference.patterns)
            .filter(|pattern| {
                files::is_open_file(pattern) && now.iter().all(|piped| piped.name != **pattern)
            });
        let pipes: Vec<_> = pipes.collect();
        if pipes.is_empty() {
            return Ok(all);
        }
        let last = self.last_files(name, kind, references, sources)?;
        for pipe in pipes {
            let last = last.iter().flatten().find(|file| file.path == *pipe);
            if let Some(file) = last
                && let Some(path) = sources.store.piped(&file.digest)
            {
                self.notes.push(format!(
                    "`{name}` uses the text that came through `{pipe}` in its last run: nothing comes through it now"
                ));
                all.push(Piped {
                    name: pipe.clone(),
                    path: Some(path),
                    bytes: file.bytes,
                    digest: file.digest,
                });
            }
        }
        Ok(all)
    }

    /// The files that the stage's last run read, if it read those that are asked for.
    pub(super) fn last_files(
        &self,
        name: &str,
        kind: StageKind,
        references: &[FileReference],
        sources: &Sources,
    ) -> Result<Option<Vec<ExternalFile>>> {
        let past = sources.records(kind.name())?;
        let last = self.noted(name, kind.name(), sources);
        let Some(record) = last.as_ref().or_else(|| self.newest(past.own(name), sources)) else {
            return Ok(None);
        };
        let files = &record.provenance.files;
        for file in files {
            let Some(reference) = references.iter().find(|reference| reference.field == file.field) else {
                return Ok(None);
            };
            if !are_named(reference, &file.path) {
                return Ok(None);
            }
        }
        Ok((!files.is_empty()).then(|| files.clone()))
    }
}

impl PlannedStage {
    /// Checks that the files that this stage has read are those that were hashed. `base` is the folder of the manifest,
    /// `consumed` what the stage has read of the files.
    ///
    /// A file that was read from start to end is checked by the digest of what was read. One that was read in part, or by a
    /// stage that does not record it, is unchanged if its metadata is (length, times, inode, device); else it has to have
    /// the digest that it had, and to contain what was read of it.
    ///
    /// # Errors
    /// An input error when one of them changed meanwhile.
    pub fn check_files(&self, base: &Path, consumed: &[(PathBuf, Consumed)]) -> Result<()> {
        let Some(observed) = &self.observed else {
            // What is not here cannot have been read: the stage itself says so.
            return Ok(());
        };
        let changed = |what: String| {
            Error::input(format!("{what} while the stage was reading it"))
                .hint("run again when no other process writes to it")
        };
        let (found, ..) = find_files(base, &self.parts.files, &self.piped)?;
        let paths = found.iter().map(|(_, file)| &file.path);
        if paths.ne(observed.iter().map(|file| &file.path)) {
            return Err(changed("the list of files changed".to_owned()));
        }
        for ((then, file), (_, now)) in observed.iter().zip(&self.files).zip(&found) {
            let consumed = consumed.iter().find(|(path, _)| *path == then.path);
            let consumed = consumed.map(|(_, consumed)| consumed);
            if let Some(digest) = consumed.and_then(|consumed| consumed.digest(file.bytes)) {
                if digest != file.digest {
                    return Err(changed(format!("`{}` changed", file.path)));
                }
                continue;
            }
            if now.look == then.look && then.settled {
                continue;
            }
            // A new time alone does not mean new content: a file may be touched.
            if hash_file(&then.path)? != (file.bytes, file.digest)
                || !consumed.map_or(Ok(true), |consumed| consumed.is_in(&then.path))?
            {
                return Err(changed(format!("`{}` changed", file.path)));
            }
        }
        Ok(())
    }
}

/// Whether a file that was read is one that a field names now.
fn are_named(reference: &FileReference, path: &str) -> bool {
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::new()
    };
    reference.patterns.iter().any(|pattern| {
        let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
        reference.takes_folders && Path::new(path).starts_with(pattern)
            || Path::new(pattern).components().eq(Path::new(path).components())
            || glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches_with(path, options))
    })
}

/// Files, each with the field that names it, how they look now, and what is left out of them.
type FoundFiles = (Vec<(&'static str, FoundFile)>, Vec<Observed>, LeftOut);

/// The files that fields name, in order, and how they look now.
fn find_files(base: &Path, references: &[FileReference], piped: &[Piped]) -> Result<FoundFiles> {
    let mut all = Vec::new();
    let mut left_out = LeftOut::default();
    let at = SystemTime::now();
    for reference in references {
        let patterns = if reference.takes_folders {
            in_folders(base, &reference.patterns)?
        } else {
            reference.patterns.clone()
        };
        let named = FilePatterns {
            files: &patterns,
            exclude: &reference.exclude,
            piped: reference.takes_pipes.then_some(piped),
        };
        let found = files::expand(base, named)
            .map_err(
                |error| match shell_words(&reference.patterns).or_else(|| named_tokenizer(reference)) {
                    Some(hint) => error.or_hint(&hint),
                    None => error,
                },
            )
            .context(|| format!("`{}`", reference.field.replace('/', ".")))?;
        all.extend(found.files.into_iter().map(|file| (reference.field, file)));
        left_out.and(found.left_out);
    }
    let observed = all.iter().map(|(_, file)| Observed {
        path: file.path.clone(),
        settled: file.look.is_settled(at),
        look: file.look.clone(),
    });
    let observed = observed.collect();
    Ok((all, observed, left_out))
}

/// Patterns in which the files of a checkpoint stand for the folder that they are in.
fn in_folders(base: &Path, patterns: &[String]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for pattern in patterns {
        let path = base.join(pattern);
        let folder = if path.is_dir() {
            pattern.trim_end_matches('/')
        } else if is_index(&path) && path.is_file() {
            pattern.rsplit_once('/').map_or(".", |(folder, _)| folder)
        } else {
            all.push(pattern.clone());
            continue;
        };
        let files = FileSet::at(&path)?;
        let inside = |file: &CheckpointFile| format!("{folder}/{}", file.name);
        all.extend(files.all().into_iter().map(inside));
    }
    Ok(all)
}

/// What to write in place of the name of a tokenizer where a file is asked for.
fn named_tokenizer(reference: &FileReference) -> Option<String> {
    let [name] = reference.patterns.as_slice() else {
        return None;
    };
    let is_name = reference.field == "tokenizer/path" && Path::new(name).extension().is_none();
    is_name
        .then(|| tokenizer_object(name))
        .flatten()
        .map(|object| format!("write \"tokenizer\": {object}"))
}

/// What to write in place of what a shell would have put into a path.
fn shell_words(patterns: &[String]) -> Option<String> {
    let home = std::env::var("HOME").ok().filter(|home| !home.is_empty());
    for pattern in patterns {
        if let Some(rest) = pattern.strip_prefix("~/") {
            let path = home.map_or_else(|| format!("/home/NAME/{rest}"), |home| format!("{home}/{rest}"));
            return Some(format!("a manifest does not expand `~`: write `{path}`"));
        }
        let is_variable = pattern.contains("${")
            || pattern
                .split('$')
                .skip(1)
                .any(|name| name.starts_with(|c: char| c.is_ascii_uppercase()))
            || pattern.starts_with('%') && pattern.matches('%').count() > 1;
        if is_variable {
            return Some(
                "a manifest does not expand environment variables: write the path, or pass it on the command line, \
                 `--set \"stages.STAGE.input.files.0=$HOME/…\"`, where the shell expands it"
                    .to_owned(),
            );
        }
    }
    None
}

/// The files that fields name, hashed, and what is left out of them.
pub(super) fn read_files(
    base: &Path,
    references: &[FileReference],
    piped: &[Piped],
    known: &ChecksumCache,
) -> Result<(Vec<ExternalFile>, Vec<Observed>, LeftOut)> {
    // Looked at before they are read: a change during the reading shows up as one after it.
    let (found, observed, left_out) = find_files(base, references, piped)?;
    let files = found
        .par_iter()
        .map(|(field, file)| {
            let from = piped.iter().find(|piped| piped.name == file.name);
            let (bytes, digest) = match from {
                Some(piped) => (piped.bytes, piped.digest),
                None => known.hash(&file.path)?,
            };
            Ok(ExternalFile {
                field: (*field).to_owned(),
                path: file.name.clone(),
                bytes,
                digest,
            })
        })
        .collect::<Result<_>>()?;
    Ok((files, observed, left_out))
}
