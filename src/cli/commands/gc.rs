//! `mdlm gc`: deletes artifacts that no manifest and no recent run refers to.

use std::collections::HashSet;

use serde::Serialize;

use crate::cli::args::store::{Reached, StoreArgs, keep};
use crate::cli::render::style;
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::shown;
use mdlm::data::fetch::{self, Inventory};
use mdlm::error::{Error, Result};
use mdlm::manifest::{SourceInput, Stage};
use mdlm::numbers::{bytes, count};
use mdlm::plan::resume::kept_groups;
use mdlm::store::gc::{Collected, Item, ItemKind, Keep, Left};
use mdlm::store::{Record, Store};

/// What `mdlm gc --help` says first.
pub const LONG_ABOUT: &str = "\
    Delete artifacts that no manifest and no recent run refers to.\n\n\
    With manifests, gc keeps the present results of their stages, checkpoints from which their trainings \
    resume, and the last result of a stage that has to run. With --last N, it keeps what the last N runs \
    used or made, whatever their manifests and overrides, and everything made since the first of them began; \
    a run that changes nothing counts as part of the run before. Both can be given. The inputs of a kept \
    result are kept too.\n\n\
    gc deletes all other artifacts and their action records, scratch folders of interrupted stages, \
    checkpoints from which no kept training resumes, and the quarantine; downloads only with --downloads. \
    What a run is using is listed and kept.";

/// Arguments of `mdlm gc`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        mdlm gc pipelines/*.json --dry-run\n  \
        mdlm gc --last 5")]
pub struct Args {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Keep what the last N runs used, and what was made since
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub last: Option<u32>,
    /// Also delete downloads that no kept artifact depends on
    #[arg(long)]
    pub downloads: bool,
    /// List what would be deleted, and its size
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct GcReport<'a> {
    store: String,
    dry_run: bool,
    /// What was deleted, or would be.
    deleted: &'a [Item],
    /// What is in use.
    left: &'a [Left],
    /// Bytes deleted in all.
    bytes: u64,
}

/// Deletes, or says what it would.
///
/// # Errors
/// Nothing says what stays; a manifest cannot be planned; the store cannot be read or written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    if args.store.manifests.is_empty() && args.last.is_none() {
        return Err(Error::input("choose what to keep: neither a manifest nor `--last` is given").hint(
            "name the manifests whose results are wanted, `mdlm gc pipelines/*.json`, or keep those of the last runs, \
             `mdlm gc --last 5`; `--dry-run` deletes nothing",
        ));
    }
    let store = args.store.open()?;
    let reached = match args.store.reached(&store, terminal)? {
        Ok(reached) => reached,
        Err(code) => return Ok(code),
    };
    let mut keep = keep(&reached, &store);
    keep.last = args.last.map(|last| last as usize);
    if keep.last.is_some() && store.runs()?.is_empty() {
        return Err(Error::input("the store has no record of a run").hint(
            "earlier versions of mdlm did not record runs: run a pipeline first, or name the manifests whose results \
             are wanted",
        ));
    }
    let mut collected = if args.dry_run {
        let groups = kept_groups(&store, &keep)?;
        Collected::of(store.garbage(&keep, &groups)?)
    } else {
        let mut collected = store.collect(&keep, &mut |_| ())?;
        // After the rest: a run may have ended meanwhile, and its training resumes from its checkpoints.
        let groups = kept_groups(&store, &keep)?;
        store.collect_checkpoints(&keep, &groups, &mut collected, &mut |_| ())?;
        collected
    };
    if args.downloads {
        downloads(&store, &keep, &reached, args.dry_run, &mut collected)?;
    }
    let freed: u64 = collected.deleted.iter().map(|item| item.bytes).sum();
    if args.json {
        terminal.output_json(&GcReport {
            store: store.root().display().to_string(),
            dry_run: args.dry_run,
            deleted: &collected.deleted,
            left: &collected.left,
            bytes: freed,
        })?;
        return Ok(0);
    }
    terminal.output(&table(&collected.deleted, terminal))?;
    for left in &collected.left {
        terminal.say(&format!("left: {}: {}", named(&left.item), left.why));
    }
    let verb = if args.dry_run { "would delete" } else { "deleted" };
    let what = counted(&collected.deleted);
    if what.is_empty() {
        terminal.say(&format!("{verb} nothing from {}", shown(store.root())));
    } else {
        terminal.say(&format!("{verb} {what}: {}", bytes(freed)));
    }
    Ok(0)
}

/// Downloads that no result which stays was made from, and that no manifest names.
fn downloads(
    store: &Store,
    keep: &Keep,
    reached: &[Reached],
    dry_run: bool,
    collected: &mut Collected,
) -> Result<()> {
    let folder = store.downloads_path();
    let wanted = Wanted::new(&store.kept(keep)?, reached);
    let Inventory {
        downloads,
        begun,
        unnamed,
    } = fetch::inventory(&folder)?;
    let item = |url: &str, bytes: u64| Item {
        sort: ItemKind::Downloads,
        kind: None,
        path: "downloads".to_owned(),
        bytes,
        made_by: Some(url.to_owned()),
        made: None,
    };
    // Each file counts once, and not at all while something that stays names it.
    let mut counted: HashSet<String> = downloads
        .iter()
        .filter(|download| wanted.has(download))
        .flat_map(|download| download.files.iter().map(|file| file.sha256.clone()))
        .collect();
    let mut patterns: Vec<(String, Item)> = Vec::new();
    for download in downloads.iter().filter(|download| !wanted.has(download)) {
        let files = download.files.iter().filter(|file| file.here);
        let size = files
            .filter(|file| counted.insert(file.sha256.clone()))
            .map(|file| file.bytes)
            .sum();
        patterns.push((download.url.clone(), item(&download.url, size)));
    }
    for begun in begun.iter().filter(|begun| !wanted.urls.contains(&begun.url)) {
        patterns.push((begun.url.clone(), item(&begun.url, begun.bytes)));
    }
    for content in unnamed
        .iter()
        .filter(|content| !wanted.contents.contains(&content.sha256))
    {
        patterns.push((content.url.clone(), item(&content.url, content.bytes)));
    }
    for (url, item) in patterns {
        if dry_run {
            collected.deleted.push(item);
            continue;
        }
        // The URL itself, whatever a glob would make of it.
        let forgotten = fetch::forget(&folder, &glob::Pattern::escape(&url))?;
        let busy = !forgotten.busy.is_empty() || !forgotten.in_use.is_empty();
        if busy {
            let why = "another process is downloading or reading it".to_owned();
            collected.left.push(Left { item, why });
        } else {
            collected.deleted.push(item);
        }
    }
    Ok(())
}

/// Downloads that stay.
struct Wanted {
    /// What the manifests name.
    urls: HashSet<String>,
    /// What results were made from: SHA-256 of files.
    contents: HashSet<String>,
}

impl Wanted {
    fn new(records: &[Record], reached: &[Reached]) -> Self {
        let mut urls = HashSet::new();
        for Reached { manifest, .. } in reached {
            for stage in manifest.stages.values() {
                let Stage::Source(source) = stage else { continue };
                let files = match &source.input {
                    SourceInput::Download(input) => input.files.clone(),
                    SourceInput::Corpus(corpus) => corpus
                        .resolve()
                        .map(|resolved| resolved.files)
                        .unwrap_or_default(),
                    SourceInput::Files(_) | SourceInput::Synthetic(_) => vec![],
                };
                urls.extend(files.iter().map(|file| fetch::shown(&file.url)));
            }
        }
        let facts = records
            .iter()
            .filter_map(|record| record.provenance.facts.get("downloads")?.as_array());
        let contents = facts
            .flatten()
            .filter_map(|download| download["sha256"].as_str())
            .map(str::to_owned)
            .collect();
        Self { urls, contents }
    }

    fn has(&self, download: &fetch::Download) -> bool {
        self.urls.contains(&download.url)
            || download
                .files
                .iter()
                .any(|file| self.contents.contains(&file.sha256))
    }
}

/// Things that are listed at most; all of them are in `--json`.
const LISTED: usize = 40;

/// Large things first; records are counted and not listed.
fn table(items: &[Item], terminal: &Terminal) -> String {
    let mut listed: Vec<&Item> = items
        .iter()
        .filter(|item| item.sort != ItemKind::Record)
        .collect();
    listed.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    let mut rows: Vec<Vec<String>> = listed
        .iter()
        .take(LISTED)
        .map(|item| {
            let made = item.made.as_deref().unwrap_or_default();
            let made = made.chars().take(16).collect::<String>().replace('T', " ");
            vec![bytes(item.bytes), made, named(item)]
        })
        .collect();
    if listed.len() > LISTED {
        let more = count((listed.len() - LISTED) as u64);
        rows.push(vec![String::new(), String::new(), format!("… and {more} more")]);
    }
    terminal.table(&rows, |_, column| match column {
        1 => style::FAINT,
        _ => style::PLAIN,
    })
}

/// What a person calls it.
fn named(item: &Item) -> String {
    let name = item.path.rsplit('/').next().unwrap_or(&item.path);
    let short: String = name.chars().take(8).collect();
    match (item.sort, &item.made_by) {
        (ItemKind::Artifact, Some(maker)) => {
            let kind = item.kind.as_deref().unwrap_or_default();
            format!("{maker} ({kind}) {short}")
        }
        (ItemKind::Artifact, None) => format!("artifact {short} (no record of it)"),
        (ItemKind::Record, maker) => format!("record of {}", maker.as_deref().unwrap_or(&short)),
        (ItemKind::Scratch, _) => format!("scratch {short}"),
        (ItemKind::Checkpoints, _) => format!("checkpoints {short}"),
        (ItemKind::Piped, _) => format!("piped text {short}"),
        (ItemKind::Quarantine, _) => format!("quarantine {name}"),
        (ItemKind::Downloads, url) => url.clone().unwrap_or_default(),
        (ItemKind::Reports | ItemKind::Other, _) => item.path.clone(),
    }
}

/// How many of each sort.
fn counted(items: &[Item]) -> String {
    let mut parts = Vec::new();
    for (sort, one, many) in [
        (ItemKind::Artifact, "artifact", "artifacts"),
        (ItemKind::Record, "action record", "action records"),
        (ItemKind::Scratch, "scratch folder", "scratch folders"),
        (
            ItemKind::Checkpoints,
            "group of checkpoints",
            "groups of checkpoints",
        ),
        (ItemKind::Downloads, "download", "downloads"),
        (ItemKind::Piped, "piped text", "piped texts"),
        (
            ItemKind::Quarantine,
            "thing in quarantine",
            "things in quarantine",
        ),
    ] {
        let number = items.iter().filter(|item| item.sort == sort).count();
        match number {
            0 => {}
            1 => parts.push(format!("1 {one}")),
            _ => parts.push(format!("{} {many}", count(number as u64))),
        }
    }
    parts.join(", ")
}
