//! `mdlm init`: a first manifest for the user's text.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Component, Path, PathBuf};

use serde::Serialize;

use crate::cli::render::style;
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::in_shell;
use mdlm::error::{Context as _, Error, Kind, Result, Wrap as _};
use mdlm::manifest::schema::schema_text;
use mdlm::numbers::{bytes, count};
use mdlm::plural;
use mdlm::shapes::SHAPES;

mod draft;
mod look;

use look::TextSurvey;

/// What `mdlm init --help` says first.
pub const LONG_ABOUT: &str = "\
    Write a first manifest for your own text: from text to a trained, evaluated and sampled model, in minutes on a CPU.\n\n\
    Reads the files first: their format, the amount of text, whether lines are broken within sentences. Shape, tokenizer \
    and steps follow from that; `description` fields say why, and what to change for a larger model. \
    A few hundred kilobytes to some megabytes of text make a good start.\n\n\
    Prints the manifest's path. Overwrites an existing file only with --force.";

/// Name of the schema beside the manifest.
const SCHEMA_FILE: &str = "pipeline.schema.json";

/// Arguments of `mdlm init`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        mdlm init --files 'texts/*.txt'\n  \
        mdlm init poems --files 'poems/**/*.txt' --files more.jsonl")]
pub struct Args {
    /// Folder of the manifest, created if it does not exist
    #[arg(value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub folder: PathBuf,
    /// Text: a file or a glob in quotes; repeatable
    ///
    /// `*`, `?`, `[…]` and `**`, as seen from the current folder; plain text, JSON lines, CSV, Parquet and Arrow,
    /// also compressed or in archives. Without this option, mdlm asks for it if standard input is a terminal.
    #[arg(long, value_name = "GLOB")]
    pub files: Vec<String>,
    /// Name of the pipeline and its file; default: the name of DIR
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Write the JSON Schema beside it, for editors
    ///
    /// The manifest names it in `$schema`, so that an editor completes fields and shows what they do.
    #[arg(long)]
    pub schema: bool,
    /// Overwrite existing files
    #[arg(long)]
    pub force: bool,
    /// Print what was written and chosen as JSON
    #[arg(long)]
    pub json: bool,
}

/// What was written, as `--json` prints it.
#[derive(Serialize)]
struct InitReport<'a> {
    manifest: &'a Path,
    schema: Option<&'a Path>,
    name: &'a str,
    files: usize,
    text_bytes: u64,
    records: u64,
    shape: &'static str,
    steps: u64,
    warnings: &'a [String],
}

/// Looks at the text and writes the manifest.
///
/// # Errors
/// No text is named or found, or too little of it; the manifest is there already; the folder cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let name = match &args.name {
        Some(name) => checked(name)?,
        None => name_of(&args.folder),
    };
    if args.folder.is_file() {
        return Err(
            Error::input(format!("`{}` is a file, not a folder", args.folder.display()))
                .hint("name text with `--files`, and quote globs: --files 'texts/*.txt'"),
        );
    }
    let manifest = in_folder(&args.folder, &format!("{name}.json"));
    let schema = args.schema.then(|| in_folder(&args.folder, SCHEMA_FILE));
    for path in [Some(&manifest), schema.as_ref()].into_iter().flatten() {
        if path.exists() && !args.force {
            return Err(Error::input(format!("`{}` already exists", path.display()))
                .hint("overwrite it with `--force`, or choose another name with `--name NAME`"));
        }
    }
    let here = std::env::current_dir().context(|| "find the current folder".to_owned())?;
    let (patterns, text) = if args.files.is_empty() {
        let input = std::io::stdin();
        if !input.is_terminal() {
            return Err(Error::input("no text is named").hint("name it: mdlm init --files 'texts/*.txt'"));
        }
        asked(&mut input.lock(), &here, &mut |failed| ask(failed, terminal))?
    } else {
        let patterns: Vec<String> = args.files.iter().map(|pattern| at_home(pattern)).collect();
        let text = look::at(&here, &patterns)?;
        (patterns, text)
    };
    takes_in(&here, &patterns, &manifest)?;
    let choice = draft::choose(&text);
    let files: Vec<String> = patterns
        .iter()
        .map(|pattern| from_folder(&here, &args.folder, pattern))
        .collect();
    let written = draft::manifest(&name, &files, &text, &choice, schema.is_some());

    let elsewhere = |error: Error| {
        if error.is_denied() {
            error.hint("name a folder that can be written: `mdlm init DIR --files GLOB`")
        } else {
            error
        }
    };
    std::fs::create_dir_all(&args.folder)
        .context(|| format!("make the folder `{}`", args.folder.display()))
        .map_err(elsewhere)?;
    write(&manifest, &written, args.force).map_err(elsewhere)?;
    if let Some(schema) = &schema {
        write(schema, &schema_text(SHAPES), args.force).map_err(elsewhere)?;
    }
    for warning in &text.warnings {
        terminal.warn(warning);
    }
    if text.bytes < draft::LITTLE_TEXT {
        terminal.warn(&format!(
            "{} of text is little: samples will be poor; some hundred kB make a start",
            bytes(text.bytes)
        ));
    }
    if args.json {
        terminal.output_json(&InitReport {
            manifest: &manifest,
            schema: schema.as_deref(),
            name: &name,
            files: text.files,
            text_bytes: text.bytes,
            records: text.records,
            shape: choice.shape.name,
            steps: choice.steps,
            warnings: &text.warnings,
        })?;
    } else {
        terminal.output(&format!("{}\n", manifest.display()))?;
    }
    say(&manifest, &text, &choice, terminal);
    Ok(0)
}

/// What was found, and what to do next.
fn say(manifest: &Path, text: &TextSurvey, choice: &draft::Proposal, terminal: &Terminal) {
    let about = if text.is_whole { "" } else { "about " };
    terminal.say(&format!(
        "{} {}, {about}{} of text in {about}{} {}: shape `{}`, {} {}",
        count(text.files as u64),
        plural::of(text.files, "file"),
        bytes(text.bytes),
        count(text.records),
        plural::of(text.records, "record"),
        choice.shape.name,
        count(choice.steps),
        plural::of(choice.steps, "step"),
    ));
    for (what, why) in &text.notes {
        terminal.say(&format!("{what}: {why}"));
    }
    let path = in_shell(&manifest.display().to_string());
    terminal.say("\nnext:");
    for (command, what) in [
        ("plan", "what a run does"),
        ("run", "trains the model, in minutes on a CPU"),
        ("report", "writes the results as one HTML file"),
    ] {
        let line = terminal.paint(style::ACCENT, &format!("mdlm {command} {path}"));
        terminal.say(&format!("  {line}  # {what}"));
    }
}

/// Asks for the text, after what was wrong with the last answer. A question is not news: it is asked quiet or not.
fn ask(failed: Option<&Error>, terminal: &Terminal) {
    if let Some(error) = failed {
        terminal.error(&error.to_string(), error.hint_text());
    }
    let mut out = std::io::stderr().lock();
    let _ = write!(out, "text files (a path or a glob, for example texts/*.txt): ");
    let _ = out.flush();
}

/// Asks for the text until there is some.
fn asked(
    input: &mut dyn BufRead,
    here: &Path,
    ask: &mut dyn FnMut(Option<&Error>),
) -> Result<(Vec<String>, TextSurvey)> {
    let mut failed = None;
    loop {
        ask(failed.take().as_ref());
        let mut line = String::new();
        let read = input
            .read_line(&mut line)
            .wrap(Kind::Environment, || "read the answer".to_owned())?;
        if read == 0 {
            return Err(Error::input("no text is named").hint("name it: mdlm init --files 'texts/*.txt'"));
        }
        let answer = line.trim().trim_matches(['\'', '"']);
        if answer.is_empty() {
            continue;
        }
        let patterns = vec![at_home(answer)];
        match look::at(here, &patterns) {
            Ok(text) => return Ok((patterns, text)),
            Err(error) => failed = Some(error),
        }
    }
}

/// A name that a pipeline may have.
fn checked(name: &str) -> Result<String> {
    let fits = name.len() <= 64
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if fits {
        return Ok(name.to_owned());
    }
    Err(Error::input(format!("`{name}` cannot be the name of a pipeline"))
        .hint("a name has up to 64 letters, digits, `-`, `_` and `.`, the first a letter or digit"))
}

/// A pipeline's name after its folder's.
fn name_of(folder: &Path) -> String {
    let whole = std::path::absolute(folder).unwrap_or_default();
    let name = whole
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '-'
            }
        })
        .collect();
    let plain: String = plain
        .trim_start_matches(|first: char| !first.is_ascii_alphanumeric())
        .chars()
        .take(64)
        .collect();
    if plain.is_empty() || plain == "pipelines" {
        "pipeline".to_owned()
    } else {
        plain
    }
}

/// A file of a folder; of the current one, its name alone.
fn in_folder(folder: &Path, file: &str) -> PathBuf {
    if folder == Path::new(".") {
        PathBuf::from(file)
    } else {
        folder.join(file)
    }
}

/// A pattern whose `~/` is spelt out: in quotes, a shell leaves it.
fn at_home(pattern: &str) -> String {
    let home = std::env::var("HOME").ok().filter(|home| !home.is_empty());
    match (pattern.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => format!("{}/{rest}", home.trim_end_matches('/')),
        _ => pattern.to_owned(),
    }
}

/// A pattern as seen from the manifest's folder instead of the current one.
fn from_folder(here: &Path, folder: &Path, pattern: &str) -> String {
    if Path::new(pattern).is_absolute() {
        return pattern.to_owned();
    }
    let inside = folder.strip_prefix(here).unwrap_or(folder);
    let mut names = Vec::new();
    for part in inside.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            // The folder lies elsewhere: the whole path stands, its own letters as they are.
            _ => return format!("{}/{pattern}", glob::Pattern::escape(&here.to_string_lossy())),
        }
    }
    let mut rest = pattern.strip_prefix("./").unwrap_or(pattern);
    let mut up = names.as_slice();
    while let Some((first, others)) = up.split_first()
        && let Some(within) = rest
            .strip_prefix(first.as_str())
            .and_then(|rest| rest.strip_prefix('/'))
    {
        rest = within;
        up = others;
    }
    format!("{}{rest}", "../".repeat(up.len()))
}

/// Refuses patterns that would take the manifest for text.
fn takes_in(here: &Path, patterns: &[String], manifest: &Path) -> Result<()> {
    let options = glob::MatchOptions {
        require_literal_separator: true,
        ..glob::MatchOptions::new()
    };
    let base = PathBuf::from(glob::Pattern::escape(&here.to_string_lossy()));
    let manifest = std::path::absolute(manifest).unwrap_or_else(|_| here.join(manifest));
    for pattern in patterns {
        let whole = base.join(pattern.strip_prefix("./").unwrap_or(pattern));
        let takes = glob::Pattern::new(&whole.to_string_lossy())
            .is_ok_and(|glob| glob.matches_path_with(&manifest, options));
        if takes {
            return Err(Error::input(format!(
                "`{pattern}` matches the manifest itself, `{}`",
                manifest.display()
            ))
            .hint("write the manifest into another folder: mdlm init pipelines --files …"));
        }
    }
    Ok(())
}

/// Writes a file beside its place and renames it; another that came in between is kept, unless it is to be overwritten.
fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    let doing = || format!("write `{}`", path.display());
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).context(doing)?;
    file.write_all(text.as_bytes()).context(doing)?;
    file.as_file().sync_all().context(doing)?;
    // The file is for its reader's programs too, not for its writer alone.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(mode).context(doing)?;
    }
    let placed = if force {
        file.persist(path)
    } else {
        file.persist_noclobber(path)
    };
    placed.map_err(|error| error.error).context(doing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_relative_to_the_manifests_folder() {
        let seen = |folder: &str, pattern: &str| from_folder(Path::new("/work"), Path::new(folder), pattern);
        assert_eq!(seen(".", "texts/*.txt"), "texts/*.txt");
        assert_eq!(seen("poems", "texts/*.txt"), "../texts/*.txt");
        assert_eq!(seen("poems", "poems/*.txt"), "*.txt");
        assert_eq!(seen("./a/b/", "a/c/*.txt"), "../c/*.txt");
        assert_eq!(seen("a/b", "./a.txt"), "../../a.txt");
        assert_eq!(seen("a", "/else/*.txt"), "/else/*.txt");
        assert_eq!(seen("/work/a", "b.txt"), "../b.txt");
        assert_eq!(seen("../other", "b.txt"), "/work/b.txt");
        assert_eq!(seen("/else", "*.txt"), "/work/*.txt");
    }

    #[test]
    fn names_come_from_folders() {
        assert_eq!(name_of(Path::new("/a/My poems")), "My-poems");
        assert_eq!(name_of(Path::new("/a/.hidden")), "hidden");
        assert_eq!(name_of(Path::new("/")), "pipeline");
        assert_eq!(name_of(Path::new("/a/pipelines")), "pipeline");
        assert!(checked("a b").is_err());
        assert!(checked("").is_err());
        assert!(checked("poems-2.1").is_ok());
    }

    /// Asks again until an answer names text; the end of the answers is an error.
    #[test]
    fn text_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), "one line of text here\n".repeat(400)).unwrap();
        let mut asked_for = Vec::new();
        let mut ask = |failed: Option<&Error>| asked_for.push(failed.map(Error::to_string));
        let mut answers = "\nmissing*.txt\n'*.txt'\n".as_bytes();
        let (patterns, text) = asked(&mut answers, folder.path(), &mut ask).unwrap();
        assert_eq!(
            (patterns, text.files, text.records),
            (vec!["*.txt".to_owned()], 1, 400)
        );
        let error = asked(&mut "nothing\n".as_bytes(), folder.path(), &mut ask).unwrap_err();
        assert_eq!(error.to_string(), "no text is named");
        let missing = |pattern: &str| Some(format!("no file matches `{pattern}`"));
        let expected = [None, None, missing("missing*.txt"), None, missing("nothing")];
        assert_eq!(asked_for, expected);
    }
}
