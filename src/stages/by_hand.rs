//! Files that were brought by hand in place of downloads, checked against the checksums of what is published.
//!
//! A plan checks them too, so that a wrong file is noticed although its stage's result is in the store: a plan remembers
//! checksums of files that look as they did, a stage computes them.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::data::files::{self, FilePatterns};
use crate::error::{Error, Result};
use crate::manifest::corpora::{NamedCorpus, Resolved};
use crate::manifest::reading::DEFAULT_LONGEST_RECORD;
use crate::manifest::vocabularies::{Published, PublishedFile};
use crate::plural::counted;

/// Computes, or remembers, the SHA-256 of a file in hex.
pub type Sha256<'a> = &'a dyn Fn(&Path) -> Result<String>;

/// Checks a file.
///
/// # Errors
/// The file is absent, or has another SHA-256.
pub fn check(path: &Path, known: &str, sha256: Sha256<'_>) -> Result<()> {
    match mismatch(path, known, sha256)? {
        Some(error) => Err(error.hint(ANOTHER)),
        None => Ok(()),
    }
}

/// What a file is that nothing else is known of.
const ANOTHER: &str = "it is another version, or was damaged on transfer: download it again, or compare with the \
     checksum that its publisher states";

/// The error of a file with another content, without a way out.
fn mismatch(path: &Path, known: &str, sha256: Sha256<'_>) -> Result<Option<Error>> {
    let found = sha256(path)?;
    let message = || {
        format!(
            "check `{}`: its SHA-256 is {found} instead of {known}",
            path.display()
        )
    };
    Ok((found != known).then(|| Error::input(message())))
}

/// The files of a published tokenizer in a folder, or beside one of them, each checked.
///
/// # Errors
/// A file is absent, or differs from the published one.
pub fn tokenizer(published: &Published, path: &Path, sha256: Sha256<'_>) -> Result<Vec<PathBuf>> {
    let paths = found(published, path)?;
    for (path, file) in paths.iter().zip(published.files) {
        let Some(error) = mismatch(path, file.sha256, sha256)? else {
            continue;
        };
        let is_json = |path: &Path| path.extension().is_some_and(|extension| extension == "json");
        return Err(if is_json(path) && !is_json(Path::new(file.names[0])) {
            error.hint(format!(
                "`{}` consists of {}; for a `tokenizer.json` of your own, write `\"tokenizer\": {{ \"kind\": \"file\", \
                 \"path\": … }}`",
                published.name,
                wanted(published)
            ))
        } else {
            error.hint(ANOTHER)
        });
    }
    Ok(paths)
}

fn found(published: &Published, path: &Path) -> Result<Vec<PathBuf>> {
    let folder = if path.is_dir() {
        path
    } else if path.exists() {
        // One file needs no name.
        if published.files.len() == 1 {
            return Ok(vec![path.to_owned()]);
        }
        path.parent().unwrap_or(Path::new("."))
    } else {
        let message = format!("there is no file or folder `{}`", path.display());
        return Err(Error::input(message).hint(format!(
            "name the folder with {}, or leave `path` out to have {} downloaded",
            wanted(published),
            if published.files.len() == 1 { "it" } else { "them" }
        )));
    };
    let find = |file: &PublishedFile| {
        let mut paths = file.names.iter().map(|name| folder.join(name));
        paths.find(|path| path.exists()).ok_or_else(|| {
            Error::input(format!("`{}` has no `{}`", folder.display(), file.names[0])).hint(format!(
                "`{}` consists of {}; it is published as `{}`",
                published.name,
                wanted(published),
                file.url
            ))
        })
    };
    published.files.iter().map(find).collect()
}

/// What the files of a published tokenizer are called.
fn wanted(published: &Published) -> String {
    let names: Vec<_> = published
        .files
        .iter()
        .map(|file| format!("`{}`", file.names[0]))
        .collect();
    names.join(" and ")
}

/// The files of a corpus, each checked where its checksum is known.
///
/// # Errors
/// Files are absent, more or fewer than the corpus has, other ones, or extracted from the corpus's archive.
pub fn corpus(named: &NamedCorpus, base: &Path, sha256: Sha256<'_>) -> Result<Vec<PathBuf>> {
    let resolved = named
        .resolve()
        .ok_or_else(|| Error::internal(format!("corpus `{}` has no such part", named.corpus)))?;
    let known = &resolved.files;
    if let Some(folder) = named.files.iter().find(|pattern| base.join(pattern).is_dir()) {
        return Err(a_folder(named, &resolved, base, folder));
    }
    let paths = files::expand(base, FilePatterns::by(&named.files))?.paths();
    if paths.len() != known.len() {
        if let Some(member) = paths.iter().find(|path| is_member(&resolved, path)) {
            return Err(extracted(named, &resolved, member, None));
        }
        return Err(Error::input(format!(
            "`{}` takes {}, and `files` names {}",
            named.corpus,
            counted(known.len(), "file"),
            paths.len()
        ))
        .hint(format!("`mdlm corpora {}` lists them in order", named.corpus)));
    }
    for (path, known) in paths.iter().zip(known) {
        let Some(expected) = &known.sha256 else { continue };
        let Some(error) = mismatch(path, expected, sha256)? else {
            continue;
        };
        return Err(match (resolved.read.members.is_empty(), archive_of(path)) {
            (false, None) if is_member(&resolved, path) => extracted(named, &resolved, path, None),
            (false, None) => error.hint(format!(
                "it is not an archive; perhaps a web page was saved in its place: download `{}` again",
                known.url
            )),
            (false, Some("tar")) => error.hint(format!(
                "it is the archive without its compression: name `{}` as it was downloaded",
                name_of(&known.url)
            )),
            (true, Some(kind)) => error.hint(format!(
                "this is a {kind} archive, and `{}` is a plain file: extract it and name the extracted file",
                name_of(&known.url)
            )),
            _ => error.hint(ANOTHER),
        });
    }
    Ok(paths)
}

/// The last part of a URL.
fn name_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// The sort of archive that a file is by its first bytes.
fn archive_of(path: &Path) -> Option<&'static str> {
    let mut start = Vec::new();
    File::open(path).ok()?.take(512).read_to_end(&mut start).ok()?;
    if start.starts_with(b"PK\x03\x04") {
        Some("zip")
    } else if start.starts_with(b"\x1f\x8b") {
        Some("gzip")
    } else {
        // POSIX.1-1988, ustar.
        (start.get(257..262) == Some(b"ustar")).then_some("tar")
    }
}

/// Whether a file is called as a member of the corpus's archive is.
fn is_member(resolved: &Resolved, path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut patterns = resolved.read.members.iter().map(|member| name_of(member));
    patterns.any(|pattern| glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(&name)))
}

/// A folder where files of a corpus are to be named.
fn a_folder(named: &NamedCorpus, resolved: &Resolved, base: &Path, folder: &str) -> Error {
    let folder = folder.trim_end_matches('/');
    let inside = resolved.files.iter().find_map(|file| {
        let name = name_of(&file.url);
        base.join(folder).join(name).is_file().then_some(name)
    });
    if resolved.read.members.is_empty() || inside.is_some() {
        let name = inside.unwrap_or_else(|| resolved.files.first().map_or("", |file| name_of(&file.url)));
        return Error::input(format!("`{folder}` is a folder"))
            .hint(format!("name the file in it: `{folder}/{name}`"));
    }
    extracted(named, resolved, Path::new(folder), Some(folder))
}

/// That a file or folder is what came out of a corpus's archive, and what to do.
fn extracted(named: &NamedCorpus, resolved: &Resolved, path: &Path, folder: Option<&str>) -> Error {
    let archive = resolved.files.first().map_or("", |file| name_of(&file.url));
    let message = format!(
        "`{}` is not the archive `{archive}` of corpus `{}`; it looks like what was extracted from it",
        path.display(),
        named.corpus
    );
    Error::input(message).hint(format!(
        "name `{archive}` as it was downloaded: it is checked by its SHA-256 and read without being extracted; or \
         read the extracted files, which mdlm cannot verify: {}",
        as_files(named, resolved, folder)
    ))
}

/// The settings of a source that reads the extracted members of a corpus as the corpus reads them.
fn as_files(named: &NamedCorpus, resolved: &Resolved, folder: Option<&str>) -> String {
    let files: Vec<String> = match folder {
        Some(folder) => {
            let members = resolved.read.members.iter().map(|member| name_of(member));
            members.map(|member| format!("{folder}/**/{member}")).collect()
        }
        None => named.files.clone(),
    };
    let mut read = Map::new();
    if let Some(format) = &resolved.read.format {
        read.insert("format".to_owned(), json!(format));
    }
    if resolved.read.longest_record != DEFAULT_LONGEST_RECORD {
        read.insert("longest_record".to_owned(), json!(resolved.read.longest_record));
    }
    let mut settings = Map::new();
    settings.insert(
        "input".to_owned(),
        json!({ "kind": "files", "files": files, "read": read }),
    );
    if !resolved.detokenize.is_empty() {
        settings.insert("detokenize".to_owned(), json!(resolved.detokenize));
    }
    if let Some(range) = &resolved.range {
        settings.insert("range".to_owned(), json!(range));
    }
    let text = Value::Object(settings).to_string();
    text[1..text.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::corpora::CorpusSplit;
    use crate::manifest::{SourceInput, Stage};

    fn named(corpus: &str, split: CorpusSplit, files: &[&str]) -> NamedCorpus {
        NamedCorpus {
            corpus: corpus.to_owned(),
            split,
            files: files.iter().map(|&file| file.to_owned()).collect(),
        }
    }

    /// The error of a corpus brought by hand, with its hint; digests are made up.
    fn described(folder: &Path, named: &NamedCorpus) -> (String, String) {
        let error = corpus(named, folder, &|_| Ok("0".repeat(64))).unwrap_err();
        (
            error.to_string(),
            error.hint_text().unwrap_or_default().to_owned(),
        )
    }

    /// What the hint says to write is a source, and reads the extracted files.
    fn reads(folder: &Path, hint: &str) {
        let settings = hint.split("which mdlm cannot verify: ").nth(1).unwrap();
        let source = format!("{{ \"kind\": \"source\", {settings} }}");
        let Ok(Stage::Source(source)) = serde_json::from_str::<Stage>(&source) else {
            panic!("{source}")
        };
        let SourceInput::Files(files) = &source.input else {
            panic!("{source:?}")
        };
        assert!(
            !super::files::expand(folder, FilePatterns::by(&files.files))
                .unwrap()
                .files
                .is_empty()
        );
        assert!(source.detokenize.is_some() || source.range.is_some());
    }

    #[test]
    fn hint_for_an_extracted_member_names_the_archive() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        write("text8", b" anarchism originated as a term of abuse");
        write("out/training/news.en-00001-of-00100", b"a b\n");
        write("out/training/news.en-00002-of-00100", b"a b\n");
        for (case, archive) in [
            (named("text8", CorpusSplit::Train, &["text8"]), "text8.zip"),
            (
                named("lm1b", CorpusSplit::Train, &["out/*/news.en-*"]),
                "benchmark-r13output.tar.gz",
            ),
            (
                named(
                    "lm1b",
                    CorpusSplit::Train,
                    &["out/training/news.en-00001-of-00100"],
                ),
                "benchmark-r13output.tar.gz",
            ),
            (
                named("lm1b", CorpusSplit::Train, &["out"]),
                "benchmark-r13output.tar.gz",
            ),
            (
                named("lm1b", CorpusSplit::Train, &["out/"]),
                "benchmark-r13output.tar.gz",
            ),
        ] {
            let (message, hint) = described(folder.path(), &case);
            assert!(
                message.contains("extracted") && message.contains(archive),
                "{message}"
            );
            assert!(!hint.contains("damaged"), "{hint}");
            reads(folder.path(), &hint);
        }
    }

    #[test]
    fn hint_for_a_file_by_hand_says_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| std::fs::write(folder.path().join(name), content).unwrap();
        write("page.zip", b"<html>not found</html>");
        let (_, hint) = described(folder.path(), &named("text8", CorpusSplit::Train, &["page.zip"]));
        assert!(hint.contains("not an archive"), "{hint}");
        write("text8.zip", b"PK\x03\x04 of another version");
        let (message, hint) = described(folder.path(), &named("text8", CorpusSplit::Train, &["text8.zip"]));
        assert!(
            message.contains("SHA-256") && hint.contains("another version"),
            "{message} {hint}"
        );
        let (_, hint) = described(folder.path(), &named("text8", CorpusSplit::Train, &["."]));
        assert!(hint.contains("`./text8.zip`"), "{hint}");
        let mut tar = vec![b'x'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        write("lm1b.tar", &tar);
        let (_, hint) = described(folder.path(), &named("lm1b", CorpusSplit::Test, &["lm1b.tar"]));
        assert!(hint.contains("without its compression"), "{hint}");
        let (_, hint) = described(folder.path(), &named("ptb", CorpusSplit::Test, &["text8.zip"]));
        assert!(hint.contains("extract it"), "{hint}");
        let two = named("ptb", CorpusSplit::Test, &["text8.zip", "lm1b.tar"]);
        let (message, _) = described(folder.path(), &two);
        assert_eq!(message, "`ptb` takes 1 file, and `files` names 2");
    }

    #[test]
    fn tokenizer_files_are_found_in_a_folder_or_beside_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let gpt2 = Published::find("gpt2").unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), name).unwrap();
        write("encoder.json");
        let published = |path: &Path| {
            let digest = |path: &Path| {
                let is_first = path.ends_with("encoder.json") || path.ends_with("vocab.json");
                Ok(gpt2.files[usize::from(!is_first)].sha256.to_owned())
            };
            tokenizer(gpt2, path, &digest)
        };
        let error = published(folder.path()).unwrap_err();
        assert!(error.to_string().contains("has no `merges.txt`"), "{error}");
        write("vocab.bpe");
        let names = |paths: Vec<PathBuf>| -> Vec<String> {
            let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            paths.into_iter().map(name).collect()
        };
        assert_eq!(
            names(published(folder.path()).unwrap()),
            ["encoder.json", "vocab.bpe"]
        );
        write("merges.txt");
        let beside = published(&folder.path().join("encoder.json")).unwrap();
        assert_eq!(names(beside), ["encoder.json", "merges.txt"]);
        let error = published(&folder.path().join("nowhere")).unwrap_err();
        assert!(error.hint_text().unwrap().contains("leave `path` out"), "{error}");
        // A `tokenizer.json` is no `vocab.txt`.
        write("tokenizer.json");
        let bert = Published::find("bert-base-uncased").unwrap();
        let path = folder.path().join("tokenizer.json");
        let error = tokenizer(bert, &path, &|_| Ok("0".repeat(64))).unwrap_err();
        assert!(error.hint_text().unwrap().contains("`vocab.txt`"), "{error}");
    }
}
