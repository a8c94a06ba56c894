//! `mdlm status`: what the store holds, and how much of it could go.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use crate::cli::args::store::{StoreArgs, keep};
use crate::cli::render::style;
use crate::cli::render::table::paragraph;
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::shown;
use mdlm::error::Result;
use mdlm::numbers::{bytes, count};
use mdlm::plan::resume::kept_groups;
use mdlm::store::gc::{Item, ItemKind, Keep};

/// What `mdlm status --help` says first.
pub const LONG_ABOUT: &str = "\
    Show what the store holds, and how much of it can be deleted.\n\n\
    With manifests, `reclaimable` is what `mdlm gc` with the same manifests would delete. Without manifests \
    it is what no manifest needs: artifacts without a record, damaged records, quarantine.";

/// Arguments of `mdlm status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        mdlm status\n  \
        mdlm status pipelines/*.json")]
pub struct Args {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct StatusReport {
    store: String,
    sizes: Vec<Size>,
    /// Runs that are noted.
    runs: usize,
    bytes: u64,
    reclaimable: u64,
}

/// The contents of one sort.
#[derive(Debug, Serialize)]
struct Size {
    sort: ItemKind,
    /// Of artifacts the kind of stage that made them; absent without a record.
    kind: Option<String>,
    count: usize,
    bytes: u64,
    /// When the oldest and the newest were made, where recorded.
    oldest: Option<String>,
    newest: Option<String>,
    /// How many of them could go, and how much that is.
    reclaimable_count: usize,
    reclaimable: u64,
}

/// Shows the sizes.
///
/// # Errors
/// There is no store, a manifest cannot be planned, or the store cannot be read.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let store = args.store.open()?;
    let reached = match args.store.reached(&store, terminal)? {
        Ok(reached) => reached,
        Err(code) => return Ok(code),
    };
    let keep = Keep {
        everything: reached.is_empty(),
        ..keep(&reached, &store)
    };
    let contents = store.contents()?;
    let garbage = store.garbage(&keep, &kept_groups(&store, &keep)?)?;
    let report = StatusReport {
        store: store.root().display().to_string(),
        sizes: sizes(&contents, &garbage),
        runs: store.runs()?.len(),
        bytes: contents.iter().map(|item| item.bytes).sum(),
        reclaimable: garbage.iter().map(|item| item.bytes).sum(),
    };
    if args.json {
        terminal.output_json(&report)?;
        return Ok(0);
    }
    terminal.output(&table(&report, terminal))?;
    let way = if reached.is_empty() {
        ": `mdlm gc MANIFEST… --dry-run` or `mdlm gc --last N --dry-run` lists what else can be deleted"
    } else if report.reclaimable == 0 {
        ""
    } else {
        ": `mdlm gc` with these manifests deletes it, `--dry-run` lists it"
    };
    let total = format!(
        "{} in {}, {} reclaimable{way}",
        bytes(report.bytes),
        shown(store.root()),
        bytes(report.reclaimable)
    );
    terminal.say(&paragraph(&total));
    Ok(0)
}

fn sizes(contents: &[Item], garbage: &[Item]) -> Vec<Size> {
    let garbage: HashSet<&str> = garbage.iter().map(|item| item.path.as_str()).collect();
    let mut sizes: BTreeMap<(ItemKind, Option<String>), Size> = BTreeMap::new();
    for item in contents {
        let kind = item.kind.clone().filter(|_| item.sort == ItemKind::Artifact);
        let size = sizes.entry((item.sort, kind.clone())).or_insert(Size {
            sort: item.sort,
            kind,
            count: 0,
            bytes: 0,
            oldest: None,
            newest: None,
            reclaimable_count: 0,
            reclaimable: 0,
        });
        size.count += 1;
        size.bytes += item.bytes;
        if garbage.contains(item.path.as_str()) {
            size.reclaimable_count += 1;
            size.reclaimable += item.bytes;
        }
        if let Some(made) = &item.made {
            let older = size.oldest.as_ref().is_none_or(|oldest| made < oldest);
            let newer = size.newest.as_ref().is_none_or(|newest| made > newest);
            if older {
                size.oldest = Some(made.clone());
            }
            if newer {
                size.newest = Some(made.clone());
            }
        }
    }
    sizes.into_values().collect()
}

fn table(report: &StatusReport, terminal: &Terminal) -> String {
    let heading = ["kind", "count", "size", "reclaimable", "newest"]
        .map(str::to_owned)
        .to_vec();
    let mut rows = vec![heading];
    rows.extend(report.sizes.iter().map(|size| {
        let name = match (size.sort, &size.kind) {
            (ItemKind::Artifact, Some(kind)) => format!("artifacts of {kind}"),
            (ItemKind::Artifact, None) => "artifacts without a record".to_owned(),
            (ItemKind::Record, _) => "action records".to_owned(),
            (ItemKind::Scratch, _) => "scratch".to_owned(),
            (ItemKind::Checkpoints, _) => "checkpoints".to_owned(),
            (ItemKind::Downloads, _) => "downloads".to_owned(),
            (ItemKind::Piped, _) => "piped text".to_owned(),
            (ItemKind::Quarantine, _) => "quarantine".to_owned(),
            (ItemKind::Reports, _) => "reports".to_owned(),
            (ItemKind::Other, _) => "locks and notes".to_owned(),
        };
        let number = match size.sort {
            // One folder each, whatever is in it.
            ItemKind::Downloads | ItemKind::Other => String::new(),
            _ => count(size.count as u64),
        };
        let reclaimable = match size.reclaimable_count {
            0 => String::new(),
            _ => bytes(size.reclaimable),
        };
        let newest = size.newest.as_deref().unwrap_or_default();
        let newest = newest.chars().take(16).collect::<String>().replace('T', " ");
        vec![name, number, bytes(size.bytes), reclaimable, newest]
    }));
    terminal.table(&rows, |row, column| match (row, column) {
        (0, _) => style::FAINT,
        (_, 0) => style::STRONG,
        _ => style::PLAIN,
    })
}
