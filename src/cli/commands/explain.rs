//! `mdlm explain`: a stage's key, part by part, and the history of its runs.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;

use crate::cli::args::project::ProjectArgs;
use crate::cli::args::stage::one;
use crate::cli::render::style;
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::{flatten, is_unfinished, joined};
use mdlm::error::{Error, Result};
use mdlm::numbers::{bytes, took};
use mdlm::plan::{Decision, Reason, Selection, reason};
use mdlm::store::{Digest, ExternalFile, Key, Record, Store};

/// What `mdlm explain --help` says first.
pub const LONG_ABOUT: &str = "\
    Explain what decides a stage's result, and the history of its runs.\n\n\
    Prints whether the stage is cached or would run, and why; its cache key part by part (runs with equal \
    parts give equal results); and its past runs, each with what changed since the run before: settings with \
    old and new value, files, inputs. Settings outside the key, such as the number of threads, are shown by \
    `mdlm show`.";

/// Arguments of `mdlm explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The manifest and its store.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// The stage
    #[arg(value_name = "STAGE")]
    pub stage: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct ExplainReport<'a> {
    pipeline: &'a str,
    stage: &'a str,
    /// Whether it is cached or would run.
    now: String,
    reasons: Vec<ReasonReport>,
    /// Absent while an input is not known.
    key: Option<Digest>,
    /// With names for a person.
    parts: Option<Key>,
    /// The record that serves it.
    served_by: Option<&'a RecordedRun>,
    /// Oldest first.
    history: &'a [RecordedRun],
}

#[derive(Clone, Serialize)]
struct ReasonReport {
    text: String,
    #[serde(flatten)]
    reason: Reason,
}

/// A run of the stage that the store has a record of.
#[derive(Clone, Serialize)]
struct RecordedRun {
    key: Digest,
    artifact: Digest,
    /// Whether the artifact is in the store.
    present: bool,
    pipeline: String,
    stage: String,
    started: String,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed_from: Option<u64>,
    host: String,
    device: String,
    threads: usize,
    version: String,
    revision: Option<String>,
    overrides: Vec<String>,
    /// Against the run before it.
    changes: Vec<ReasonReport>,
    /// Whether it made what the run before it had made.
    same_artifact: bool,
}

/// Prints the key, its parts and the history.
///
/// # Errors
/// There is no such stage, a file is missing, or the store cannot be read.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let project = match args.project.open(terminal) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    one(&project, &args.stage)?;
    let plan = project.plan(&Selection {
        targets: vec![args.stage.clone()],
        ..Selection::default()
    })?;
    let Some(stage) = plan.stages.last() else {
        return Err(Error::internal("plan a stage: the plan is empty"));
    };
    let (now, reasons, key): (String, &[Reason], Option<&Key>) = match &stage.decision {
        Decision::Cached(record) => (
            format!("cached: served by artifact {}", record.artifact.short()),
            &[],
            Some(&record.key),
        ),
        Decision::Away(record) | Decision::Fetch(record) => (
            format!(
                "done, but its files are not in the store: artifact {}",
                record.artifact.short()
            ),
            &[],
            Some(&record.key),
        ),
        Decision::Run { key, reasons } => (format!("will run: {}", joined(reasons)), reasons, key.as_deref()),
    };
    let record = stage.record();
    let kind = stage.kind().name();
    let history = history(&project.store, &plan.pipeline, &stage.name, kind, record)?;
    let served_by = key.and_then(|key| {
        let digest = key.digest();
        history.iter().find(|run| run.key == digest)
    });
    if args.json {
        terminal.output_json(&ExplainReport {
            pipeline: &plan.pipeline,
            stage: &stage.name,
            now,
            reasons: reasons.iter().cloned().map(explained).collect(),
            key: key.map(Key::digest),
            parts: key.map(reason::named),
            served_by: record.and(served_by),
            history: &history,
        })?;
        return Ok(0);
    }
    let inputs: IndexMap<&str, &str> = stage
        .inputs
        .iter()
        .map(|input| (input.role, plan.stages[input.index].name.as_str()))
        .collect();
    let heading = format!("{} ({kind}) of {}", stage.name, plan.pipeline);
    let mut text = terminal.paint_output(style::STRONG, &heading);
    text.push('\n');
    let mut rows = vec![vec!["now".to_owned(), now]];
    if let Some(run) = record.and(served_by) {
        let by = if (&run.stage, &run.pipeline) == (&stage.name, &plan.pipeline) {
            String::new()
        } else {
            format!(" as {} of {}", run.stage, run.pipeline)
        };
        rows.push(vec![
            "made".to_owned(),
            format!("{}{by} in {}", run.started, took(run.seconds, run.resumed_from)),
        ]);
    }
    rows.extend(stage.lacking().map(|lacking| vec!["lacks".to_owned(), lacking]));
    text.push_str(&table(&rows, terminal));
    section(&mut text, "Key", terminal);
    match key {
        Some(key) => text.push_str(&table(&parts(key, &stage.files, &inputs), terminal)),
        None => text.push_str("not known until its inputs are made\n"),
    }
    section(&mut text, "History", terminal);
    text.push_str(&runs(&history, is_unfinished(reasons), terminal));
    terminal.output(&text)?;
    Ok(0)
}

fn section(text: &mut String, name: &str, terminal: &Terminal) {
    text.push('\n');
    text.push_str(&terminal.paint_output(style::STRONG, name));
    text.push('\n');
}

fn table(rows: &[Vec<String>], terminal: &Terminal) -> String {
    terminal.table(rows, |_, column| match column {
        0 => style::FAINT,
        _ => style::PLAIN,
    })
}

fn explained(reason: Reason) -> ReasonReport {
    ReasonReport {
        text: reason.to_string(),
        reason,
    }
}

/// The parts of a key, by name; of files and inputs what they are called now.
fn parts(key: &Key, files: &[ExternalFile], inputs: &IndexMap<&str, &str>) -> Vec<Vec<String>> {
    let mut rows = vec![
        vec!["digest".to_owned(), key.digest().to_string()],
        vec![
            "kind".to_owned(),
            format!("{}, version {}", key.kind, key.version),
        ],
    ];
    if let Some(seed) = key.seed {
        rows.push(vec!["seed".to_owned(), seed.to_string()]);
    }
    let mut settings = Vec::new();
    flatten(&key.config, &mut settings);
    for setting in &mut settings {
        if setting[0] == "input.forms"
            && let Some(formats) = key.config["input"]["forms"].as_array()
        {
            let formats: Vec<_> = formats.iter().filter_map(Value::as_str).collect();
            setting[1] = formats.join(", ");
        }
        setting[0] = reason::field_name(&setting[0]);
    }
    rows.extend(settings);
    for (role, artifact) in &key.inputs {
        let stage = inputs.get(role.as_str()).copied().unwrap_or_default();
        rows.push(vec![role.clone(), format!("{stage} {}", artifact.short())]);
    }
    for (field, digests) in &key.files {
        let named = files.iter().filter(|file| file.field == *field);
        for (file, digest) in named.zip(digests) {
            rows.push(vec![
                field.replace('/', "."),
                format!("{} {} {}", file.path, bytes(file.bytes), digest.short()),
            ]);
        }
    }
    rows
}

/// The runs of a stage, oldest first: those under its name, and the one that serves it whatever its name was.
fn history(
    store: &Store,
    pipeline: &str,
    stage: &str,
    kind: &str,
    serving: Option<&Record>,
) -> Result<Vec<RecordedRun>> {
    let mut records = store.records(kind)?;
    let serving = serving.map(|record| record.key.digest());
    records.retain(|record| {
        let made = &record.provenance;
        made.stage == stage && made.pipeline == pipeline || serving == Some(record.key.digest())
    });
    records.sort_by(|a, b| a.provenance.started.cmp(&b.provenance.started));
    let mut runs = Vec::new();
    let mut before: Option<&Record> = None;
    for record in &records {
        let made = &record.provenance;
        let changes = match before {
            None => vec![Reason::NeverRan],
            Some(before) => {
                let names = made
                    .inputs
                    .iter()
                    .map(|input| (input.role.as_str(), input.stage.as_str()))
                    .collect();
                reason::compare(before, &record.key, &made.files, &names)
            }
        };
        runs.push(RecordedRun {
            key: record.key.digest(),
            artifact: record.artifact,
            present: store.artifact_path(&record.artifact).is_dir(),
            pipeline: made.pipeline.clone(),
            stage: made.stage.clone(),
            started: made.started.clone(),
            seconds: made.seconds,
            resumed_from: made.resumed_from(),
            host: made.machine.host.clone(),
            device: made.device.clone(),
            threads: made.threads,
            version: made.version.clone(),
            revision: made.revision.clone(),
            overrides: made.overrides.clone(),
            changes: changes
                .into_iter()
                .map(|reason| ReasonReport {
                    text: reason.of_a_run(),
                    reason,
                })
                .collect(),
            same_artifact: before.is_some_and(|before| before.artifact == record.artifact),
        });
        before = Some(record);
    }
    Ok(runs)
}

/// Newest first, each with what had changed.
fn runs(history: &[RecordedRun], is_unfinished: bool, terminal: &Terminal) -> String {
    if history.is_empty() {
        let none = if is_unfinished {
            "no run has finished"
        } else {
            "it has never run"
        };
        return format!("{none}\n");
    }
    let mut rows = vec![
        ["when", "took", "artifact", "where", "what had changed"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for run in history.iter().rev() {
        let when = run.started.chars().take(19).collect::<String>().replace('T', " ");
        let revision = run.revision.as_deref().unwrap_or_default();
        let revision: String = revision.chars().take(8).collect();
        let mut changes: Vec<&str> = run.changes.iter().map(|change| change.text.as_str()).collect();
        if changes.is_empty() {
            changes.push("no recorded change");
        }
        let mut text = changes.join("; ");
        if run.same_artifact {
            text.push_str("; same artifact as before");
        }
        if !run.present {
            text.push_str("; its files are gone");
        }
        rows.push(vec![
            when,
            took(run.seconds, run.resumed_from),
            run.artifact.short(),
            format!("{} {} {revision}", run.host, run.version)
                .trim_end()
                .to_owned(),
            text,
        ]);
    }
    terminal.table(&rows, |row, column| match (row, column) {
        (0, _) | (_, 0) => style::FAINT,
        _ => style::PLAIN,
    })
}
