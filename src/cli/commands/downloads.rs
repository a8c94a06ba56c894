//! `mdlm downloads`: what was downloaded, and forgetting it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use crate::cli::args::environment;
use crate::cli::render::style;
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::shown;
use mdlm::data::fetch::{self, Begun, Download, DownloadedFile, Forgotten, Inventory};
use mdlm::error::{Error, Result};
use mdlm::numbers::{bytes, count};
use mdlm::store::{Store, time};

/// What `mdlm downloads --help` says first.
pub const LONG_ABOUT: &str = "\
    List downloads, or forget some of them.\n\n\
    All pipelines of a project share the downloads in the store, and each URL is downloaded once. `unpinned` \
    means that no checksum or commit fixes the contents: forget the URL to download it again, and use \
    `mdlm run --force STAGE` for a stage that is cached.\n\n\
    --forget takes a URL or a glob in which `*` matches anything, slashes included. Files that no URL refers \
    to are deleted. Downloads in progress are kept, and so are files that a run may be reading: they are \
    then listed as `unnamed` and can be forgotten later.";

/// Arguments of `mdlm downloads`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        mdlm downloads pipelines/openwebtext.json\n  \
        mdlm downloads --forget https://example.org/corpus.txt\n  \
        mdlm downloads --forget 'hf://datasets/*'\n  \
        mdlm downloads --forget 'sha256:*'    files that no URL names")]
pub struct Args {
    /// A manifest of the project; default: the project of this folder
    #[arg(value_name = "MANIFEST")]
    pub manifest: Option<PathBuf>,
    /// Forget what came from a URL, or from all that a glob matches
    #[arg(long, value_name = "URL_OR_GLOB")]
    pub forget: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Folder of results, instead of `.mdlm` of the project
    ///
    /// Environment variable: MDLM_STORE.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct InventoryReport {
    folder: String,
    downloads: Vec<DownloadReport>,
    begun: Vec<BegunReport>,
    unnamed: Vec<ContentReport>,
}

/// What `--forget … --json` prints.
#[derive(Serialize)]
struct ForgottenReport {
    folder: String,
    downloads: Vec<DownloadReport>,
    begun: Vec<BegunReport>,
    deleted: Vec<ContentReport>,
    named_by_others: Vec<ContentReport>,
    in_use: Vec<ContentReport>,
    busy: Vec<String>,
}

#[derive(Serialize)]
struct DownloadReport {
    url: String,
    pinned: bool,
    when: String,
    bytes: u64,
    files: Vec<ContentReport>,
}

#[derive(Serialize)]
struct ContentReport {
    url: String,
    sha256: String,
    bytes: u64,
    here: bool,
}

#[derive(Serialize)]
struct BegunReport {
    url: String,
    bytes: u64,
    total: Option<u64>,
    when: String,
}

/// Lists downloads, or forgets some of them.
///
/// # Errors
/// The manifest does not exist; no download matches, or another process is downloading it; the store cannot be read or
/// written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let store = store(args)?;
    store.check()?;
    let folder = store.downloads_path();
    match &args.forget {
        None => list(&folder, args.json, terminal)?,
        Some(pattern) => forget(&folder, pattern, args.json, terminal)?,
    }
    Ok(0)
}

fn store(args: &Args) -> Result<Store> {
    if let Some(manifest) = args.manifest.as_ref().filter(|manifest| !manifest.exists()) {
        return Err(Error::input(format!("there is no `{}`", manifest.display()))
            .hint("name a manifest of the project, or its store with `--store DIR`"));
    }
    let root = match (environment::store(args.store.as_ref())?, &args.manifest) {
        (Some(store), _) => store,
        (None, Some(manifest)) => Store::locate(manifest),
        (None, None) => environment::store_here(),
    };
    Ok(Store::at(root))
}

fn list(folder: &Path, json: bool, terminal: &Terminal) -> Result<()> {
    let inventory = fetch::inventory(folder)?;
    let place = shown(folder);
    if json {
        return terminal.output_json(&InventoryReport {
            folder: place,
            downloads: inventory
                .downloads
                .into_iter()
                .map(DownloadReport::from)
                .collect(),
            begun: inventory.begun.into_iter().map(BegunReport::from).collect(),
            unnamed: inventory.unnamed.into_iter().map(ContentReport::from).collect(),
        });
    }
    let rows = rows(&inventory);
    if rows.is_empty() {
        terminal.say(&format!("there are no downloads in {place}"));
        return Ok(());
    }
    let heading = ["size", "sha256", "state", "when", "url"]
        .map(str::to_owned)
        .to_vec();
    let table: Vec<_> = std::iter::once(heading).chain(rows).collect();
    terminal.output(&terminal.table(&table, |row, _| match row {
        0 => style::FAINT,
        _ => style::PLAIN,
    }))?;
    terminal.say(&format!("{} in {place}", bytes(size(&inventory))));
    Ok(())
}

fn rows(inventory: &Inventory) -> Vec<Vec<String>> {
    let row = |size: String, sha256: String, state: &str, when, url: &str| {
        vec![size, sha256, state.to_owned(), minute(when), url.to_owned()]
    };
    let downloads = inventory.downloads.iter().map(|download| {
        let sha256 = match download.files.as_slice() {
            [file] => short(file),
            files => format!("{} files", count(files.len() as u64)),
        };
        let state = match download {
            download if download.files.iter().any(|file| !file.here) => "missing",
            download if download.pinned => "pinned",
            _ => "unpinned",
        };
        row(
            bytes(sum(&download.files)),
            sha256,
            state,
            download.when,
            &download.url,
        )
    });
    let begun = inventory.begun.iter().map(|begun| {
        row(
            bytes(begun.bytes),
            "-".to_owned(),
            "begun",
            begun.when,
            &begun.url,
        )
    });
    let unnamed = inventory.unnamed.iter().map(|content| {
        row(
            bytes(content.bytes),
            short(content),
            "unnamed",
            content.when,
            &content.url,
        )
    });
    downloads.chain(begun).chain(unnamed).collect()
}

/// Bytes on disk, each file counted once however many URLs name it.
fn size(inventory: &Inventory) -> u64 {
    let named = inventory.downloads.iter().flat_map(|download| &download.files);
    let mut files: Vec<_> = named.chain(&inventory.unnamed).filter(|file| file.here).collect();
    files.sort_by(|a, b| a.sha256.cmp(&b.sha256));
    files.dedup_by(|a, b| a.sha256 == b.sha256);
    let whole: u64 = files.iter().map(|file| file.bytes).sum();
    whole + inventory.begun.iter().map(|begun| begun.bytes).sum::<u64>()
}

fn forget(folder: &Path, pattern: &str, json: bool, terminal: &Terminal) -> Result<()> {
    let forgotten = fetch::forget(folder, pattern)?;
    let busy = forgotten.busy.clone();
    if json {
        terminal.output_json(&ForgottenReport {
            folder: shown(folder),
            downloads: forgotten
                .downloads
                .into_iter()
                .map(DownloadReport::from)
                .collect(),
            begun: forgotten.begun.into_iter().map(BegunReport::from).collect(),
            deleted: forgotten.deleted.into_iter().map(ContentReport::from).collect(),
            named_by_others: forgotten.named.into_iter().map(ContentReport::from).collect(),
            in_use: forgotten.in_use.into_iter().map(ContentReport::from).collect(),
            busy: forgotten.busy,
        })?;
    } else {
        terminal.output(&listed(&forgotten))?;
        if !forgotten.downloads.is_empty() {
            terminal
                .say("the next run that needs a file downloads it again; rerun a cached stage with `--force STAGE`");
        }
    }
    match busy.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(Error::environment(format!(
            "forget `{first}`{}: another process is downloading it",
            match busy.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            }
        ))
        .hint("end that run or wait for it, then forget it again")),
    }
}

/// What was forgotten, a line each.
fn listed(forgotten: &Forgotten) -> String {
    let mut out = String::new();
    for download in &forgotten.downloads {
        out = format!("{out}forgotten  {}\n", download.url);
    }
    for begun in &forgotten.begun {
        out = format!("{out}forgotten  {} (begun, {})\n", begun.url, bytes(begun.bytes));
    }
    for (what, why, files) in [
        ("deleted", "", &forgotten.deleted),
        ("kept", ": another URL refers to it", &forgotten.named),
        ("kept", ": a run may be reading it", &forgotten.in_use),
    ] {
        for file in files {
            out = format!("{out}{what:<11}{}, {}{why}\n", short(file), bytes(file.bytes));
        }
    }
    out
}

fn sum(files: &[DownloadedFile]) -> u64 {
    files.iter().map(|file| file.bytes).sum()
}

fn short(file: &DownloadedFile) -> String {
    file.sha256.chars().take(8).collect()
}

/// A moment to the minute, UTC.
fn minute(moment: SystemTime) -> String {
    time::utc(moment).strftime("%F %H:%M").to_string()
}

impl From<Download> for DownloadReport {
    fn from(download: Download) -> Self {
        Self {
            bytes: sum(&download.files),
            url: download.url,
            pinned: download.pinned,
            when: time::rfc3339(download.when),
            files: download.files.into_iter().map(ContentReport::from).collect(),
        }
    }
}

impl From<DownloadedFile> for ContentReport {
    fn from(content: DownloadedFile) -> Self {
        Self {
            url: content.url,
            sha256: content.sha256,
            bytes: content.bytes,
            here: content.here,
        }
    }
}

impl From<Begun> for BegunReport {
    fn from(begun: Begun) -> Self {
        Self {
            url: begun.url,
            bytes: begun.bytes,
            total: begun.total,
            when: time::rfc3339(begun.when),
        }
    }
}
