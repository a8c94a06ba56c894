//! The executor with a stand-in for the stages: what runs, what is served, and why.

mod away;
mod failure;
mod integrity;
mod remote;
mod rerun;
mod side_by_side;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::data::files;
use crate::event::Silent;
use crate::manifest::{Manifest, StageKind};
use crate::plan::Selection;

/// A project folder with a corpus, a manifest and a store.
struct Project {
    folder: tempfile::TempDir,
    manifest: Value,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("corpus")).unwrap();
        fs::write(folder.path().join("corpus/a.txt"), "one two\nthree\n").unwrap();
        fs::write(folder.path().join("corpus/b.txt"), "four\n").unwrap();
        let manifest = json!({
            "name": "test",
            "seed": 1,
            "stages": {
                "text": { "kind": "source", "input": { "kind": "files", "files": ["corpus/*.txt"] } },
                "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
                "rows": { "kind": "pack", "from": "tokens", "length": 32, "validation": 0.1 },
                "model": { "kind": "train", "from": "rows", "shape": "nano", "steps": 10 },
                "bound": { "kind": "evaluate", "model": "model", "data": "rows" },
                "texts": { "kind": "sample", "model": "model", "count": 4 },
            }
        });
        Self { folder, manifest }
    }

    fn base(&self) -> &Path {
        self.folder.path()
    }

    fn store(&self) -> Store {
        Store::at(self.base().join(".mdlm"))
    }

    fn set(&mut self, pointer: &str, value: Value) {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        self.manifest.pointer_mut(parent).unwrap()[field] = value;
    }

    fn manifest(&self) -> Manifest {
        serde_json::from_value(self.manifest.clone()).unwrap()
    }

    fn plan(&self, selection: &Selection) -> Plan {
        self.plan_from(selection, &self.sources(&self.store()))
    }

    fn sources<'a>(&self, store: &'a Store) -> Sources<'a> {
        Sources::new(&self.manifest(), store, None)
    }

    fn plan_from(&self, selection: &Selection, sources: &Sources) -> Plan {
        Plan::new(&self.manifest(), self.base(), selection, sources).unwrap()
    }

    /// The error of a plan that cannot be made.
    fn plan_error(&self, selection: &Selection) -> Error {
        let store = self.store();
        Plan::new(&self.manifest(), self.base(), selection, &self.sources(&store)).unwrap_err()
    }

    fn run_with(&self, selection: &Selection, options: &Options, runner: Runner<'_>) -> Summary {
        let store = self.store();
        let sources = self.sources(&store);
        let mut plan = self.plan_from(selection, &sources);
        execute(&mut plan, &sources, options, &Silent, &Cancel::default(), runner).unwrap()
    }

    fn run_selected(&self, selection: &Selection) -> String {
        let summary = self.run_with(selection, &options(), &stand_in);
        assert!(summary.error.is_none(), "{:?}", summary.error);
        rerun(&summary)
    }

    /// Runs everything. Returns what ran, and why.
    fn run(&self) -> String {
        self.run_selected(&Selection::default())
    }

    /// What a plan says will run, and why.
    fn planned(&self) -> String {
        let plan = self.plan(&Selection::default());
        let lines: Vec<_> = plan
            .stages
            .iter()
            .filter_map(|stage| match &stage.decision {
                Decision::Cached(_) | Decision::Away(_) => None,
                Decision::Fetch(_) => Some(format!("{}: fetch", stage.name)),
                Decision::Run { reasons, .. } => Some(format!(
                    "{}: {}",
                    stage.name,
                    reasons
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join("; ")
                )),
            })
            .collect();
        lines.join("\n")
    }
}

fn options() -> Options {
    Options {
        manifest: "test.json".to_owned(),
        overrides: vec![],
        threads: 2,
        device: DeviceRequest::On(Device::Cpu),
        paranoid: false,
        jobs: 1,
        memory: u64::MAX,
        keep_going: true,
        only: None,
        isolation: None,
        neighbours: Neighbours::default(),
        ranks: std::sync::Arc::new(crate::ranks::Alone),
    }
}

fn rerun(summary: &Summary) -> String {
    let lines: Vec<_> = summary
        .stages
        .iter()
        .filter(|stage| stage.status != Status::Cached)
        .map(|stage| format!("{}: {}", stage.name, stage.why))
        .collect();
    lines.join("\n")
}

fn expand(base: &Path, patterns: &[String]) -> Result<Vec<PathBuf>> {
    Ok(files::expand(base, files::FilePatterns::by(patterns))?.paths())
}

/// A stage whose output is a function of its settings in the key, its seed and its inputs' contents.
fn stand_in(stage: &Stage, context: &Context<'_>) -> Result<StageOutput> {
    let parts = key::parts(stage, context.seed)?;
    let mut text = format!("{} {} {:?}\n", stage.kind().name(), parts.config, parts.seed);
    for reference in &parts.files {
        for path in expand(context.base, &reference.patterns)? {
            text += &fs::read_to_string(path).unwrap();
        }
    }
    for (role, folder) in context.inputs {
        let digest = Digest::of(&fs::read(folder.join("output")).unwrap());
        text.push_str(&[role, ": ", &digest.to_string(), "\n"].concat());
    }
    fs::write(context.output.join("output"), text).unwrap();
    Ok(StageOutput {
        figures: vec![("bytes".to_owned(), "12".to_owned())],
        ..StageOutput::default()
    })
}

fn forced(name: &str) -> Selection {
    Selection {
        targets: vec![],
        force: vec![name.to_owned()],
        ..Selection::default()
    }
}

/// Takes away the artifacts of stages, as if only their records had been brought here.
fn take_away(project: &Project, stages: &[&str]) {
    let plan = project.plan(&Selection::default());
    for stage in plan.stages.iter().filter(|stage| stages.contains(&&*stage.name)) {
        fs::remove_dir_all(project.store().artifact_path(stage.artifact().unwrap())).unwrap();
    }
}

fn statuses(summary: &Summary) -> Vec<Status> {
    summary.stages.iter().map(|stage| stage.status).collect()
}
