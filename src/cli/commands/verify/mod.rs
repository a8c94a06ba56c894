//! `mdlm verify`: checks that the store's artifacts match their records, and that a result's history does ([`lineage`]).

use std::collections::HashSet;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rayon::prelude::*;
use serde::Serialize;

use crate::cli::args::store::{StoreArgs, keep};
use crate::cli::args::{environment, units};
use crate::cli::render::progress::Display;
use crate::cli::render::style;
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::shown;
use mdlm::error::{Error, Kind, Result};
use mdlm::event::{Event, Progress, Sink as _};
use mdlm::executor;
use mdlm::numbers::{bytes, count};
use mdlm::plural;
use mdlm::store::verify::{self, ArtifactFault, Census, Depth, Moved, Pace, Subject};
use mdlm::store::{Digest, Store};

mod lineage;

/// What `mdlm verify --help` says first.
pub const LONG_ABOUT: &str = "\
    Hash the store's artifacts and move corrupt ones into quarantine.\n\n\
    Reads every artifact in full, or with manifests the artifacts that they reach, and compares it with the \
    digests in its records. A corrupt one is moved to `.mdlm/quarantine`, and the next run that needs it makes it \
    again. A corrupt artifact that a run is using is reported and stays in place.\n\n\
    --chain follows the history of a stage's result instead: every record and artifact from it to its \
    sources, and whether the files outside the store are still those that were read. It moves nothing.";

/// Arguments of `mdlm verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        mdlm verify --throttle 50MB\n  \
        mdlm verify pipelines/quickstart.json --chain samples\n\n\
        Exit codes: 0 all sound; 3 something is corrupt, in quarantine now or not;\n\
        2 with --chain when only files outside the store have changed.")]
pub struct Args {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Check the history of this stage's result, with one manifest
    #[arg(long = "chain", value_name = "STAGE")]
    pub lineage: Option<String>,
    /// Read at most this many bytes a second: 50MB
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    pub throttle: Option<u64>,
    /// Threads; default: `MDLM_THREADS`, else all processors
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Report corrupt artifacts and leave them in place
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct VerifyReport<'a> {
    store: String,
    /// Whether everything that was looked at is sound.
    ok: bool,
    /// Artifacts that are sound.
    sound: usize,
    /// Bytes that were hashed.
    bytes: u64,
    /// Artifacts that are not sound.
    artifacts: Vec<&'a ArtifactReport>,
    /// Action records that cannot be used.
    records: Vec<Damage<'a>>,
    /// Recorded artifacts that are missing.
    absent: Vec<Absent<'a>>,
    /// Names in the folder of artifacts that are not names of artifacts.
    foreign: &'a [String],
}

#[derive(Serialize)]
struct Damage<'a> {
    path: &'a str,
    what: &'a str,
}

#[derive(Serialize)]
struct Absent<'a> {
    artifact: Digest,
    made_by: &'a [String],
    why: Option<&'a str>,
}

/// What was found of an artifact.
#[derive(Serialize)]
struct ArtifactReport {
    artifact: Digest,
    made_by: Vec<String>,
    outcome: ArtifactState,
    /// Where it was moved, or why it was not.
    note: Option<String>,
    faults: Vec<ArtifactFault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ArtifactState {
    Sound,
    /// It was left where it is, as asked.
    Corrupt,
    Quarantined,
    /// A run uses it.
    InUse,
    /// It went away meanwhile, or was put right.
    Gone,
    /// It may not be read.
    Unreadable,
}

impl ArtifactState {
    fn is_fine(self) -> bool {
        matches!(self, Self::Sound | Self::Gone)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Sound => "sound",
            Self::Corrupt => "corrupt",
            Self::Quarantined => "quarantined",
            Self::InUse => "in use",
            Self::Gone => "gone",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Verifies the store, or a lineage.
///
/// # Errors
/// There is no store, a manifest cannot be planned, or the store cannot be read.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let pool = executor::pool(environment::threads(args.threads)?)?;
    let pace = Pace::new(args.throttle.map(|bytes| bytes as f64));
    if let Some(stage) = &args.lineage {
        return lineage::run(args, stage, &pool, &pace, terminal);
    }
    let store = args.store.open()?;
    let mut census = store.census()?;
    if !args.store.manifests.is_empty() {
        let reached = match args.store.reached(&store, terminal)? {
            Ok(reached) => reached,
            Err(code) => return Ok(code),
        };
        let kept = store.kept(&keep(&reached, &store))?;
        let wanted: HashSet<Digest> = kept.iter().map(|record| record.artifact).collect();
        let is_wanted = |subject: &Subject| wanted.contains(&subject.artifact);
        census.present.retain(is_wanted);
        census.absent.retain(|(subject, _)| is_wanted(subject));
        census.damaged.clear();
        census.foreign.clear();
    }
    let total: u64 = census
        .present
        .iter()
        .flat_map(|subject| subject.files.iter().flatten())
        .map(|file| file.bytes)
        .sum();
    let work = || {
        pool.install(|| {
            census
                .present
                .par_iter()
                .map(|subject| examine(&store, subject, args.dry_run, &pace))
                .collect::<Vec<ArtifactReport>>()
        })
    };
    let verdicts = watched(terminal, "verify", &pace, total, work);
    let bad: Vec<&ArtifactReport> = verdicts
        .iter()
        .filter(|verdict| !verdict.outcome.is_fine())
        .collect();
    let ok = bad.is_empty() && census.damaged.is_empty();
    if args.json {
        terminal.output_json(&report(&store, ok, &verdicts, &bad, &census, &pace))?;
    } else {
        print(&store, &verdicts, &bad, &census, &pace, terminal)?;
    }
    Ok(if ok { 0 } else { Kind::Environment.exit_code() })
}

/// Looks at an artifact, and moves it when it is corrupt.
fn examine(store: &Store, subject: &Subject, dry_run: bool, pace: &Pace) -> ArtifactReport {
    let Subject {
        artifact,
        files,
        made_by,
    } = subject;
    let verdict = |outcome, note, faults| ArtifactReport {
        artifact: *artifact,
        made_by: made_by.clone(),
        outcome,
        note,
        faults,
    };
    let folder = store.artifact_path(artifact);
    let faults = match verify::examine(&folder, artifact, files.as_deref(), Depth::Full, pace) {
        Ok(faults) => faults,
        Err(error) => return verdict(ArtifactState::Unreadable, Some(error.to_string()), vec![]),
    };
    if faults.is_empty() {
        return verdict(ArtifactState::Sound, None, faults);
    }
    if !folder.exists() {
        return verdict(ArtifactState::Gone, None, faults);
    }
    if dry_run {
        return verdict(ArtifactState::Corrupt, None, faults);
    }
    let (outcome, note) = match store.quarantine(artifact, files.as_deref(), &faults, false) {
        Ok(Moved::To(place)) => (
            ArtifactState::Quarantined,
            Some(format!("moved to `{}`", shown(&place))),
        ),
        Ok(Moved::InUse) => (
            ArtifactState::InUse,
            Some("a run uses it: verify it again after the run".to_owned()),
        ),
        Ok(Moved::Gone) => (ArtifactState::Gone, None),
        Err(error) => (ArtifactState::Corrupt, Some(error.to_string())),
    };
    verdict(outcome, note, faults)
}

/// Does some work and shows meanwhile how much was read.
fn watched<T: Send>(
    terminal: &Terminal,
    name: &str,
    pace: &Pace,
    total: u64,
    work: impl FnOnce() -> T + Send,
) -> T {
    /// Interval between reports of progress.
    const TICK: Duration = Duration::from_millis(100);
    let display = Display::new(terminal);
    display.begin(name);
    let result = std::thread::scope(|scope| {
        let (done, ended) = channel::<()>();
        let display = &display;
        scope.spawn(move || {
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let progress = Progress {
                    done: pace.read(),
                    total: (total > 0).then_some(total),
                    unit: "bytes",
                    figures: vec![],
                };
                display.emit(name, Event::Progress(progress));
            }
        });
        let result = work();
        drop(done);
        result
    });
    display.clear();
    result
}

fn report<'a>(
    store: &Store,
    ok: bool,
    verdicts: &[ArtifactReport],
    bad: &[&'a ArtifactReport],
    census: &'a Census,
    pace: &Pace,
) -> VerifyReport<'a> {
    let sound = |verdict: &&ArtifactReport| verdict.outcome == ArtifactState::Sound;
    VerifyReport {
        store: store.root().display().to_string(),
        ok,
        sound: verdicts.iter().filter(sound).count(),
        bytes: pace.read(),
        artifacts: bad.to_vec(),
        records: census
            .damaged
            .iter()
            .map(|(path, what)| Damage { path, what })
            .collect(),
        absent: census
            .absent
            .iter()
            .map(|(subject, why)| Absent {
                artifact: subject.artifact,
                made_by: &subject.made_by,
                why: why.as_deref(),
            })
            .collect(),
        foreign: &census.foreign,
    }
}

fn print(
    store: &Store,
    verdicts: &[ArtifactReport],
    bad: &[&ArtifactReport],
    census: &Census,
    pace: &Pace,
    terminal: &Terminal,
) -> Result<()> {
    let makers = |made_by: &[String]| match made_by {
        [] => "no record of it".to_owned(),
        names => names.join(", "),
    };
    let mut rows: Vec<Vec<String>> = bad
        .iter()
        .map(|verdict| {
            let mut text = makers(&verdict.made_by);
            if !verdict.faults.is_empty() {
                text = format!("{text}: {}", verify::summary(&verdict.faults));
            }
            if let Some(note) = &verdict.note {
                text = format!("{text}; {note}");
            }
            vec![verdict.outcome.word().to_owned(), verdict.artifact.short(), text]
        })
        .collect();
    for (path, what) in &census.damaged {
        rows.push(vec![
            "damaged".to_owned(),
            "record".to_owned(),
            format!("{path}: {what}; the next run of its stage replaces it"),
        ]);
    }
    terminal.output(&terminal.table(&rows, |_, column| match column {
        0 => style::ERROR,
        _ => style::PLAIN,
    }))?;
    for name in &census.foreign {
        let path = store.root().join("artifacts").join(name);
        terminal.warn(&format!("`{}` is not an artifact", shown(&path)));
    }
    let absent = census.absent.len();
    if absent > 0 {
        let (things, are) = (
            plural::of(absent, "artifact"),
            plural::agreeing(absent, "is", "are"),
        );
        terminal.say(&format!(
            "{} recorded {things} {are} missing: made again when a run needs them",
            count(absent as u64)
        ));
    }
    let all = verdicts.len();
    let things = plural::of(all, "artifact");
    let of_artifacts = if bad.is_empty() {
        "all sound".to_owned()
    } else {
        format!("{} not sound", count(bad.len() as u64))
    };
    let result = match census.damaged.len() {
        0 => of_artifacts,
        1 => format!("{of_artifacts}; 1 action record is damaged"),
        more => format!(
            "{of_artifacts}; {} action records are damaged",
            count(more as u64)
        ),
    };
    terminal.say(&format!(
        "{} {things}, {}: {result}",
        count(all as u64),
        bytes(pace.read())
    ));
    Ok(())
}

/// The one manifest of `--chain`.
fn only_manifest(args: &Args) -> Result<std::path::PathBuf> {
    match args.store.manifests.as_slice() {
        [manifest] => Ok(manifest.clone()),
        manifests => Err(Error::input(format!(
            "`--chain` takes one manifest and got {}",
            manifests.len()
        ))
        .hint("`mdlm verify MANIFEST --chain STAGE`")),
    }
}
