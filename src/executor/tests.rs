//! The engine with a stand-in for the stages: what runs, what is served, and why.

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
        device: Choice::On(Device::Cpu),
        paranoid: false,
        jobs: 1,
        memory: u64::MAX,
        keep_going: true,
        only: None,
        isolation: None,
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
    Ok(files::expand(base, files::Named::by(patterns))?.paths())
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

#[test]
fn cache_serves_everything_to_a_second_run() {
    let project = Project::new();
    insta::assert_snapshot!(project.run(), @r"
    text: first run
    tokens: first run
    rows: first run
    model: first run
    bound: first run
    texts: first run
    ");
    assert_eq!(project.run(), "");
    assert_eq!(project.planned(), "");
}

/// The rows of the table in `stages::key`: what is not hashed reruns nothing.
#[test]
fn cache_serves_changes_that_are_not_in_the_key() {
    let mut project = Project::new();
    project.run();
    project.set("/stages/model/micro_batch", json!(4));
    project.set("/stages/model/checkpoint_every", json!(3));
    project.set("/stages/model/learning_rate", json!(3e-4));
    project.set("/name", json!("renamed"));
    project.set("/description", json!("what it is for"));
    assert_eq!(project.run(), "");

    // Other names, another order of stages and fields.
    let text = project
        .manifest
        .to_string()
        .replace("\"rows\"", "\"packed\"")
        .replace("\"text\":", "\"prose\":");
    let text = text.replace("\"from\":\"text\"", "\"from\":\"prose\"");
    let mut renamed: Value = serde_json::from_str(&text).unwrap();
    let stages = renamed["stages"].as_object_mut().unwrap();
    let reversed = stages.clone().into_iter().rev().collect();
    *stages = reversed;
    project.manifest = renamed;
    assert_eq!(project.run(), "");

    // Other threads, another device.
    let elsewhere = Options {
        threads: 1,
        device: Choice::On(Device::Cuda),
        ..options()
    };
    let summary = project.run_with(&Selection::default(), &elsewhere, &stand_in);
    assert_eq!(rerun(&summary), "");

    // Touched, and renamed within the order of the glob.
    fs::rename(
        project.base().join("corpus/b.txt"),
        project.base().join("corpus/c.txt"),
    )
    .unwrap();
    let text = fs::read(project.base().join("corpus/a.txt")).unwrap();
    fs::write(project.base().join("corpus/a.txt"), text).unwrap();
    assert_eq!(project.run(), "");
}

/// A GPU that cannot be used is an error before the first stage runs; a run without networks does not look for one.
#[test]
fn device_that_is_missing_is_an_error_before_anything_runs() {
    if Choice::On(Device::Cuda).check().is_ok() {
        println!("skipped: there is a GPU");
        return;
    }
    let project = Project::new();
    let on_gpu = Options {
        device: Choice::On(Device::Cuda),
        ..options()
    };
    let run = |selection: &Selection, runner: Runner<'_>| {
        let store = project.store();
        let sources = project.sources(&store);
        let mut plan = project.plan_from(selection, &sources);
        execute(&mut plan, &sources, &on_gpu, &Silent, &Cancel::default(), runner)
    };
    let error = run(&Selection::default(), &|_, _| panic!("a stage runs")).unwrap_err();
    assert_eq!(error.kind(), Kind::Environment);
    assert!(error.hint_text().unwrap().contains("`--device cpu`"), "{error}");
    let rows = Selection {
        targets: vec!["rows".to_owned()],
        ..Selection::default()
    };
    let summary = run(&rows, &stand_in).unwrap();
    assert_eq!(
        rerun(&summary),
        "text: first run\ntokens: first run\nrows: first run"
    );
}

#[test]
fn cache_serves_a_moved_project() {
    let project = Project::new();
    project.run();
    let moved = tempfile::tempdir().unwrap();
    let place = moved.path().join("elsewhere");
    fs::rename(project.base(), &place).unwrap();
    let store = Store::at(place.join(".mdlm"));
    let plan = Plan::new(
        &project.manifest(),
        &place,
        &Selection::default(),
        &project.sources(&store),
    )
    .unwrap();
    assert!(
        plan.stages
            .iter()
            .all(|stage| matches!(stage.decision, Decision::Cached(_)))
    );
    fs::rename(&place, project.base()).unwrap();
}

/// Each row of the table in `stages::key` that is hashed: what reruns, and what the plan says before and the run after.
#[test]
fn cache_miss_after_a_change_reruns_its_consumers_and_says_why() {
    let check = |pointer: &str, value: Value, planned: &str, ran: &str| {
        let mut project = Project::new();
        project.run();
        project.set(pointer, value);
        assert_eq!(project.planned(), planned, "{pointer}");
        assert_eq!(project.run(), ran, "{pointer}");
        assert_eq!(project.run(), "", "{pointer}");
    };
    check(
        "/stages/model/learning_rate",
        json!(1e-4),
        "model: `learning_rate` 3e-4 → 1e-4\nbound: `model` runs\ntexts: `model` runs",
        "model: `learning_rate` 3e-4 → 1e-4\nbound: `model` has other content\ntexts: `model` has other content",
    );
    check(
        "/stages/model/objective",
        json!({ "kind": "mdlm", "noise": { "kind": "cosine" } }),
        "model: `objective.noise` log_linear → cosine\nbound: `model` runs\ntexts: `model` runs",
        "model: `objective.noise` log_linear → cosine\nbound: `model` has other content\ntexts: `model` has other \
         content",
    );
    check(
        "/stages/bound/rows",
        json!(10),
        "bound: `rows` unset → 10",
        "bound: `rows` unset → 10",
    );
    check(
        "/stages/texts/seed",
        json!(9),
        "texts: `seed` 1 → 9",
        "texts: `seed` 1 → 9",
    );
    check(
        "/stages/tokens/tokenizer",
        json!({ "kind": "train_bpe", "vocabulary_size": 400 }),
        "tokens: `tokenizer` characters → train_bpe\nrows: `tokens` runs\nmodel: `rows` runs\n\
         bound: `model` runs; `rows` runs\ntexts: `model` runs",
        "tokens: `tokenizer` characters → train_bpe\nrows: `tokens` has other content\n\
         model: `rows` has other content\nbound: `model` has other content; `rows` has other content\n\
         texts: `model` has other content",
    );
    check(
        "/seed",
        json!(2),
        "rows: `seed` 1 → 2\nmodel: `seed` 1 → 2; `rows` runs\nbound: `seed` 1 → 2; `model` runs; `rows` runs\n\
         texts: `seed` 1 → 2; `model` runs",
        "rows: `seed` 1 → 2\nmodel: `seed` 1 → 2; `rows` has other content\n\
         bound: `seed` 1 → 2; `model` has other content; `rows` has other content\n\
         texts: `seed` 1 → 2; `model` has other content",
    );
}

#[test]
fn cache_miss_names_a_changed_file() {
    let project = Project::new();
    project.run();
    let corpus = project.base().join("corpus");
    fs::write(corpus.join("b.txt"), "five\n").unwrap();
    assert!(
        project
            .run()
            .starts_with("text: `corpus/b.txt` changed\ntokens: `text` has other content\n")
    );
    fs::write(corpus.join("c.txt"), "six\n").unwrap();
    assert!(project.run().starts_with("text: `corpus/c.txt` is new\n"));
    fs::remove_file(corpus.join("a.txt")).unwrap();
    assert!(project.run().starts_with("text: `corpus/a.txt` is gone\n"));
    // Back to what there was: found, by content.
    fs::remove_file(corpus.join("c.txt")).unwrap();
    fs::write(corpus.join("a.txt"), "one two\nthree\n").unwrap();
    fs::write(corpus.join("b.txt"), "four\n").unwrap();
    assert_eq!(project.run(), "");
}

#[test]
fn plan_names_a_missing_file_with_its_stage() {
    let project = Project::new();
    fs::remove_dir_all(project.base().join("corpus")).unwrap();
    let error = Plan::new(
        &project.manifest(),
        project.base(),
        &Selection::default(),
        &project.sources(&project.store()),
    )
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "stage `text`: `input.files`: no file matches `corpus/*.txt`"
    );
    assert_eq!(error.kind(), Kind::Input);
}

#[test]
fn cache_stops_the_rerun_at_an_identical_output() {
    let mut project = Project::new();
    // The tokens do not depend on the text here: as after a change that the tokenizer normalizes away.
    let blind = |stage: &Stage, context: &Context<'_>| {
        if stage.kind() == StageKind::Tokenize {
            fs::write(context.output.join("output"), "always the same").unwrap();
            return Ok(StageOutput::default());
        }
        stand_in(stage, context)
    };
    project.run_with(&Selection::default(), &options(), &blind);
    fs::write(project.base().join("corpus/a.txt"), "ONE two\nthree\n").unwrap();
    let summary = project.run_with(&Selection::default(), &options(), &blind);
    assert_eq!(
        rerun(&summary),
        "text: `corpus/a.txt` changed\ntokens: `text` has other content"
    );
    project.set("/stages/texts/count", json!(5));
    let summary = project.run_with(&Selection::default(), &options(), &blind);
    assert_eq!(rerun(&summary), "texts: `count` 4 → 5");
}

#[test]
fn force_reruns_one_stage_and_stops_at_an_identical_output() {
    let project = Project::new();
    project.run();
    assert_eq!(project.run_selected(&forced("rows")), "rows: forced");
    assert_eq!(project.run(), "");
}

#[test]
fn target_runs_what_it_needs_and_no_more() {
    let project = Project::new();
    let target = |name: &str| Selection {
        targets: vec![name.to_owned()],
        ..Selection::default()
    };
    assert_eq!(
        project.run_selected(&target("rows")),
        "text: first run\ntokens: first run\nrows: first run"
    );
    assert_eq!(
        project.run_selected(&target("bound")),
        "model: first run\nbound: first run"
    );
    assert_eq!(project.run(), "texts: first run");
}

#[test]
fn plan_names_unknown_stages_with_the_nearest() {
    let project = Project::new();
    let error = |name: &str| {
        Plan::new(
            &project.manifest(),
            project.base(),
            &forced(name),
            &project.sources(&project.store()),
        )
        .unwrap_err()
    };
    assert_eq!(error("modle").to_string(), "`test` has no stage `modle`");
    assert_eq!(error("modle").hint_text(), Some("did you mean `model`?"));
    assert!(
        error("elephant")
            .hint_text()
            .unwrap()
            .starts_with("the stages are `text`, `tokens`")
    );
}

#[test]
fn plan_of_a_cycle_is_an_error() {
    let mut project = Project::new();
    project.set(
        "/stages/tokens/tokenizer",
        json!({ "kind": "stage", "stage": "more" }),
    );
    project.set(
        "/stages/more",
        json!({ "kind": "tokenize", "from": "text", "tokenizer": { "kind": "stage", "stage": "tokens" } }),
    );
    let error = Plan::new(
        &project.manifest(),
        project.base(),
        &Selection::default(),
        &project.sources(&project.store()),
    )
    .unwrap_err();
    assert!(
        error.to_string().starts_with("order the stages: `tokens`, "),
        "{error}"
    );
}

#[test]
fn reason_compares_a_renamed_stage_with_a_change_with_its_old_self() {
    let mut project = Project::new();
    project.run();
    let stages = project.manifest["stages"].as_object_mut().unwrap();
    let mut texts = stages.shift_remove("texts").unwrap();
    texts["count"] = json!(7);
    stages.insert("drawn".to_owned(), texts.clone());
    assert_eq!(project.run(), "drawn: `count` 4 → 7; compared with `texts`");
}

/// A run that differs in nothing that is known yet is no change that a plan could name.
#[test]
fn reason_compares_a_renamed_stage_without_a_known_change_with_nothing() {
    let mut project = Project::new();
    project.run();
    project.set("/stages/model/steps", json!(20));
    let stages = project.manifest["stages"].as_object_mut().unwrap();
    let texts = stages.shift_remove("texts").unwrap();
    stages.insert("drawn".to_owned(), texts);
    assert_eq!(
        project.planned(),
        "model: `steps` 10 → 20\nbound: `model` runs\ndrawn: never ran"
    );
}

#[test]
fn reason_does_not_compare_a_second_stage_with_the_first_of_its_kind() {
    let mut project = Project::new();
    project.run();
    let mut texts = project.manifest["stages"]["texts"].clone();
    texts["count"] = json!(8);
    project.set("/stages/more", texts);
    assert_eq!(project.run(), "more: first run");
}

#[test]
fn failure_of_a_stage_stops_its_consumers_alone() {
    let project = Project::new();
    let failing = |stage: &Stage, context: &Context<'_>| {
        if stage.kind() == StageKind::Evaluate {
            fs::write(context.output.join("half"), "").unwrap();
            return Err(Error::input("no row in the split").hint("raise `validation`"));
        }
        stand_in(stage, context)
    };
    let summary = project.run_with(&Selection::default(), &options(), &failing);
    let error = summary.error.unwrap();
    assert_eq!(error.to_string(), "stage `bound`: no row in the split");
    assert_eq!(error.hint_text(), Some("raise `validation`"));
    let statuses: Vec<_> = summary.stages.iter().map(|stage| stage.status).collect();
    assert_eq!(&statuses[3..], [Status::Done, Status::Failed, Status::Done]);
    assert_eq!(
        fs::read_dir(project.base().join(".mdlm/staging"))
            .unwrap()
            .count(),
        0
    );

    let failing = |stage: &Stage, context: &Context<'_>| {
        assert!(stage.kind() != StageKind::Pack, "index out of bounds");
        stand_in(stage, context)
    };
    let selection = forced("rows");
    let summary = project.run_with(&selection, &options(), &failing);
    let error = summary.error.unwrap();
    assert_eq!(
        error.to_string(),
        "stage `rows`: run the stage: it panicked: index out of bounds"
    );
    assert_eq!(error.kind(), Kind::Internal);
    let model = summary.stages.iter().find(|stage| stage.name == "model").unwrap();
    assert_eq!((model.status, &*model.why), (Status::NotRun, "needs `rows`"));
}

#[test]
fn resume_after_an_interruption_keeps_finished_stages_and_the_scratch() {
    let project = Project::new();
    let cancel = Cancel::default();
    let attempts = AtomicUsize::new(0);
    // A training that is interrupted after its checkpoint, and goes on from it.
    let training = |stage: &Stage, context: &Context<'_>| {
        if stage.kind() != StageKind::Train {
            return stand_in(stage, context);
        }
        let checkpoint = context.work.join("checkpoint");
        if attempts.fetch_add(1, Ordering::Relaxed) == 0 {
            fs::write(&checkpoint, "half way").unwrap();
            cancel.cancel();
            context.cancel.check()?;
        }
        assert_eq!(fs::read_to_string(&checkpoint).unwrap(), "half way");
        stand_in(stage, context)
    };
    let store = project.store();
    let sources = project.sources(&store);
    let mut plan = project.plan_from(&Selection::default(), &sources);
    let summary = execute(&mut plan, &sources, &options(), &Silent, &cancel, &training).unwrap();
    assert_eq!(summary.error.unwrap().kind(), Kind::Interrupted);
    let statuses: Vec<_> = summary.stages.iter().map(|stage| stage.status).collect();
    assert_eq!(
        &statuses[2..],
        [Status::Done, Status::Interrupted, Status::NotRun, Status::NotRun]
    );

    let summary = project.run_with(&Selection::default(), &options(), &training);
    assert_eq!(
        rerun(&summary),
        "model: first run\nbound: first run\ntexts: first run"
    );
    assert_eq!(
        fs::read_dir(project.base().join(".mdlm/work")).unwrap().count(),
        0
    );
}

/// Length and time of a file are those of before, its content is not, or was not when it was read.
#[test]
fn cache_miss_after_a_change_that_length_and_time_do_not_show() {
    use crate::data::read::{TextFile, Witness, records};
    use crate::manifest::source::Reading;
    /// Writes a file as some editors and all who mean harm do: its time stays.
    fn edit(path: &Path, text: &str) {
        let file = fs::File::options().write(true).open(path).unwrap();
        let time = file.metadata().unwrap().modified().unwrap();
        fs::write(path, text).unwrap();
        file.set_modified(time).unwrap();
    }
    let before = "four\n";
    // What is written, whether that is put right again, how many records are read, and what comes of it.
    let cases: [(&str, bool, usize, bool); 6] = [
        ("FOUR\n", false, 9, false),
        ("FOUR\n", true, 9, false),
        ("FOUR\n", true, 0, false),
        ("FOUR\n", false, 0, false),
        (before, false, 9, true),
        (before, false, 0, true),
    ];
    for (text, restored, most, holds) in cases {
        let project = Project::new();
        let racing = |stage: &Stage, context: &Context<'_>| {
            let mut outcome = stand_in(stage, context)?;
            if stage.kind() == StageKind::Source {
                let path = context.base.join("corpus/b.txt");
                edit(&path, text);
                let witness = Witness::default();
                let mut taken = 0;
                let read = records(
                    &TextFile::local(path.clone()),
                    &Reading::default(),
                    &mut crate::data::read::Observed::default(),
                    &witness,
                    &mut |_, _| {
                        taken += 1;
                        if taken > most {
                            Err(Error::interrupted())
                        } else {
                            Ok(())
                        }
                    },
                );
                assert_eq!(read.is_err(), most == 0);
                outcome.consumed.push((path.clone(), witness.consumed()));
                if restored {
                    edit(&path, before);
                }
            }
            Ok(outcome)
        };
        let summary = project.run_with(&Selection::default(), &options(), &racing);
        let error = summary.error.map(|error| error.to_string());
        let expected = "stage `text`: `corpus/b.txt` changed while the stage was reading it";
        assert_eq!(
            error.as_deref(),
            (!holds).then_some(expected),
            "{text:?} {restored} {most}"
        );
    }
}

#[test]
fn commit_is_refused_when_a_file_changes_while_it_is_read() {
    let project = Project::new();
    let racing = |stage: &Stage, context: &Context<'_>| {
        let outcome = stand_in(stage, context);
        if stage.kind() == StageKind::Source {
            fs::write(context.base.join("corpus/b.txt"), "changed meanwhile\n").unwrap();
        }
        outcome
    };
    let summary = project.run_with(&Selection::default(), &options(), &racing);
    assert_eq!(
        summary.error.unwrap().to_string(),
        "stage `text`: `corpus/b.txt` changed while the stage was reading it"
    );
    // Touched, with the same content: fine.
    assert!(
        project
            .run_with(&Selection::default(), &options(), &racing)
            .error
            .is_none()
    );
}

#[test]
fn lock_lets_two_runs_at_once_run_each_stage_once() {
    let project = Project::new();
    let count = AtomicUsize::new(0);
    let slow = |stage: &Stage, context: &Context<'_>| {
        count.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(20));
        stand_in(stage, context)
    };
    let summaries = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let summary = project.run_with(&Selection::default(), &options(), &slow);
                summaries.lock().unwrap().push(summary);
            });
        }
    });
    assert_eq!(count.load(Ordering::Relaxed), 6);
    let summaries = summaries.into_inner().unwrap();
    for summary in &summaries {
        assert!(summary.error.is_none());
        let artifacts = |summary: &Summary| -> Vec<_> { summary.stages.iter().map(|s| s.artifact).collect() };
        assert_eq!(artifacts(summary), artifacts(&summaries[0]));
    }
}

#[test]
fn cache_miss_for_a_damaged_artifact_rebuilds_it_and_says_so() {
    let project = Project::new();
    let summary = project.run_with(&Selection::default(), &options(), &stand_in);
    let rows = PathBuf::from(summary.stages[2].path.clone().unwrap());
    fs::remove_file(rows.join("output")).unwrap();
    assert_eq!(
        project.planned(),
        "rows: damaged: `output` of its artifact is missing\nmodel: `rows` runs\n\
         bound: `model` runs; `rows` runs\ntexts: `model` runs"
    );
    // The rebuilt artifact is what it was: nothing else runs.
    assert_eq!(
        project.run(),
        "rows: damaged: `output` of its artifact is missing"
    );
}

#[test]
fn record_has_the_provenance_of_the_artifact() {
    let project = Project::new();
    project.run();
    let plan = project.plan(&Selection::default());
    let Decision::Cached(record) = &plan.stages[3].decision else {
        panic!("not cached")
    };
    let provenance = &record.provenance;
    assert_eq!(
        (&*provenance.pipeline, &*provenance.stage, provenance.seed),
        ("test", "model", 1)
    );
    assert_eq!(provenance.inputs[0].stage, "rows");
    assert_eq!(Some(&provenance.inputs[0].artifact), plan.stages[2].artifact());
    assert_eq!(provenance.config["checkpoint_every"], json!(1000));
    assert_eq!(record.figures["bytes"], "12");
    let Decision::Cached(source) = &plan.stages[0].decision else {
        panic!("not cached")
    };
    let files: Vec<_> = source.provenance.files.iter().map(|file| &*file.path).collect();
    assert_eq!(files, ["corpus/a.txt", "corpus/b.txt"]);
}

/// Flips a bit of a stage's output, whose length stays, and returns the damaged file's bytes.
fn flip(project: &Project, stage: &str) -> Vec<u8> {
    let plan = project.plan(&Selection::default());
    let stage = plan.stages.iter().find(|planned| planned.name == stage).unwrap();
    let file = project
        .store()
        .artifact_path(stage.artifact().unwrap())
        .join("output");
    let mut bytes = fs::read(&file).unwrap();
    bytes[3] ^= 1;
    fs::remove_file(&file).unwrap();
    fs::write(&file, &bytes).unwrap();
    bytes
}

fn warnings(project: &Project, options: &Options, runner: Runner<'_>) -> (Summary, Vec<String>) {
    struct Warnings(Mutex<Vec<String>>);
    impl Sink for Warnings {
        fn emit(&self, stage: &str, event: Event) {
            if let Event::Warning(text) = event {
                self.0.lock().unwrap().push(format!("{stage}: {text}"));
            }
        }
    }
    let heard = Warnings(Mutex::default());
    let store = project.store();
    let sources = project.sources(&store);
    let mut plan = project.plan_from(&Selection::default(), &sources);
    let summary = execute(&mut plan, &sources, options, &heard, &Cancel::default(), runner).unwrap();
    (summary, heard.0.into_inner().unwrap())
}

/// A corrupt input is found before it is consumed, made again from what it was made of, and nothing else changes.
#[test]
fn corruption_of_an_input_is_found_before_it_is_consumed() {
    let mut project = Project::new();
    project.run();
    let sound: Vec<_> = project
        .plan(&Selection::default())
        .stages
        .iter()
        .map(|stage| *stage.artifact().unwrap())
        .collect();
    let damaged = flip(&project, "rows");
    project.set("/stages/model/steps", json!(20));
    let runner = |stage: &Stage, context: &Context<'_>| {
        for (_, folder) in context.inputs {
            assert_ne!(fs::read(folder.join("output")).unwrap(), damaged, "consumed");
        }
        stand_in(stage, context)
    };
    let (summary, warnings) = warnings(&project, &options(), &runner);
    assert!(summary.error.is_none(), "{:?}", summary.error);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let start = "rows: its artifact is corrupt and is not used: `output` has other content; moved to `";
    assert!(warnings[0].starts_with(start), "{warnings:?}");
    assert_eq!(summary.stages[2].artifact, Some(sound[2]), "made again, the same");
    let text = rerun(&summary);
    assert!(
        text.starts_with("rows: damaged: its artifact is in quarantine since "),
        "{text}"
    );
    assert!(text.contains("model: `steps` 10 → 20"), "{text}");
    let place = project.store().quarantine_path().join(sound[2].to_string());
    assert_eq!(fs::read(place.join("output")).unwrap(), damaged);
    drop(summary);
    assert_eq!(project.run(), "");
}

/// What made the corrupt artifact is corrupt itself: both are made again, from the source.
#[test]
fn corruption_is_followed_upstream() {
    let mut project = Project::new();
    project.run();
    for stage in ["text", "tokens", "rows"] {
        flip(&project, stage);
    }
    project.set("/stages/model/steps", json!(20));
    let (summary, warnings) = warnings(&project, &options(), &stand_in);
    assert!(summary.error.is_none(), "{:?}", summary.error);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    let ran: Vec<_> = summary.stages.iter().map(|stage| stage.status).collect();
    assert_eq!(ran, [Status::Done; 6]);
}

/// Artifacts without consumers are hashed with `paranoid` alone.
#[test]
fn corruption_is_looked_for_in_everything_served_when_paranoid() {
    let project = Project::new();
    project.run();
    flip(&project, "texts");
    flip(&project, "tokens");
    assert_eq!(project.run(), "");
    let paranoid = Options {
        paranoid: true,
        ..options()
    };
    let (summary, warnings) = warnings(&project, &paranoid, &stand_in);
    assert!(summary.error.is_none(), "{:?}", summary.error);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    let ran: Vec<_> = summary
        .stages
        .iter()
        .filter(|stage| stage.status == Status::Done)
        .map(|stage| stage.name.as_str())
        .collect();
    assert_eq!(ran, ["tokens", "texts"]);
    drop(summary);
    let (_, warnings) = self::warnings(&project, &paranoid, &stand_in);
    assert!(warnings.is_empty(), "{warnings:?}");
}

/// Artifacts go between the decision to serve them and their use: what is wanted is made again, and what is needed for it.
#[test]
fn lock_pins_results_and_what_was_deleted_before_is_made_again() {
    use Status::{Away, Cached, Done};
    let project = Project::new();
    project.run();
    let store = project.store();
    let sources = project.sources(&store);
    let mut plan = project.plan_from(&Selection::default(), &sources);
    for stage in &plan.stages {
        assert!(store.try_take(stage.artifact().unwrap()).unwrap().is_some());
    }
    for index in [1, 3, 5] {
        fs::remove_dir_all(store.artifact_path(plan.stages[index].artifact().unwrap())).unwrap();
    }
    let ran = execute(
        &mut plan,
        &sources,
        &options(),
        &Silent,
        &Cancel::default(),
        &stand_in,
    )
    .unwrap();
    assert_eq!(
        rerun(&ran),
        "tokens: \nmodel: its files are not in the store, and `texts` needs them\ntexts: its files are not in the store"
    );
    let statuses: Vec<_> = ran.stages.iter().map(|stage| stage.status).collect();
    assert_eq!(statuses, [Cached, Away, Cached, Done, Cached, Done]);
    plan.stages.remove(1);
    for stage in &plan.stages {
        let taken = store.try_take(stage.artifact().unwrap()).unwrap();
        assert!(taken.is_none(), "pinned until the end of the run");
    }
    drop(ran);
    assert!(
        store
            .try_take(plan.stages[1].artifact().unwrap())
            .unwrap()
            .is_some()
    );
}

/// Takes away the artifacts of stages, as if only their records had been brought here.
fn take_away(project: &Project, stages: &[&str]) {
    let plan = project.plan(&Selection::default());
    for stage in plan.stages.iter().filter(|stage| stages.contains(&&*stage.name)) {
        fs::remove_dir_all(project.store().artifact_path(stage.artifact().unwrap())).unwrap();
    }
}

const ALL: [&str; 6] = ["text", "tokens", "rows", "model", "bound", "texts"];

#[test]
fn away_results_that_no_stage_needs_are_not_made() {
    let mut project = Project::new();
    project.run();
    take_away(&project, &["text", "tokens", "rows", "model"]);
    assert_eq!(project.planned(), "", "results are here");
    let summary = project.run_with(&Selection::default(), &options(), &stand_in);
    assert!(
        summary.stages[..4]
            .iter()
            .all(|stage| stage.status == Status::Away && stage.path.is_none())
    );
    // A change of one stage needs its inputs, and no more than those that are not here.
    project.set("/stages/texts/count", json!(5));
    let planned = project.planned();
    assert_eq!(
        planned,
        "text: its files are not in the store, and `tokens` needs them\n\
         tokens: its files are not in the store, and `rows` needs them\n\
         rows: its files are not in the store, and `model` needs them\n\
         model: its files are not in the store, and `texts` needs them\n\
         texts: `count` 4 → 5"
    );
    assert_eq!(project.run(), planned);
    assert_eq!(project.run(), "");
    take_away(&project, &["tokens", "rows"]);
    assert_eq!(
        project.run_selected(&forced("bound")),
        "tokens: its files are not in the store, and `rows` needs them\n\
         rows: its files are not in the store, and `bound` needs them\nbound: forced"
    );
}

/// What a consumer needs is made only once that runs: a rerun that ends before it makes nothing.
#[test]
fn away_results_are_made_when_a_stage_needs_them() {
    let project = Project::new();
    let blind = |stage: &Stage, context: &Context<'_>| {
        if stage.kind() == StageKind::Evaluate {
            fs::write(context.output.join("output"), "always the same").unwrap();
            return Ok(StageOutput::default());
        }
        if stage.kind() == StageKind::Tokenize {
            fs::write(context.output.join("output"), "tokens").unwrap();
            return Ok(StageOutput::default());
        }
        stand_in(stage, context)
    };
    project.run_with(&Selection::default(), &options(), &blind);
    take_away(&project, &["rows", "model"]);
    fs::write(project.base().join("corpus/b.txt"), "five\n").unwrap();
    // The plan cannot know that the tokens stay as they were.
    assert!(project.planned().contains("model: `rows` runs"));
    let summary = project.run_with(&Selection::default(), &options(), &blind);
    assert_eq!(
        summary
            .stages
            .iter()
            .map(|stage| stage.status)
            .collect::<Vec<_>>(),
        [
            Status::Done,
            Status::Done,
            Status::Away,
            Status::Away,
            Status::Cached,
            Status::Cached
        ]
    );
}

/// A checkout of manifests and records, without artifacts and without data.
#[test]
fn plan_with_allow_missing_needs_nothing_but_records() {
    let project = Project::new();
    project.run();
    take_away(&project, &ALL);
    fs::remove_dir_all(project.store().root().join("latest")).unwrap();
    let believing = Selection {
        allow_missing: true,
        ..Selection::default()
    };
    let work = |project: &Project, selection: &Selection| {
        let store = project.store();
        let plan = Plan::new(
            &project.manifest(),
            project.base(),
            selection,
            &project.sources(&store),
        );
        plan.map(|plan| plan.stages.iter().filter(|stage| stage.has_work()).count())
    };
    assert_eq!(work(&project, &believing).unwrap(), 0);
    assert_eq!(
        work(&project, &Selection::default()).unwrap(),
        6,
        "the results are wanted"
    );
    let summary = project.run_with(&believing, &options(), &stand_in);
    assert!(summary.stages.iter().all(|stage| stage.status == Status::Away));

    fs::remove_dir_all(project.base().join("corpus")).unwrap();
    let error = work(&project, &Selection::default()).unwrap_err();
    let hint = error.hint_text().unwrap();
    assert!(
        hint.ends_with("; `--allow-missing` uses the files' digests of the last run"),
        "{hint}"
    );
    assert_eq!(
        work(&project, &believing).unwrap(),
        0,
        "the last run's digests are believed"
    );
    let mut other = project;
    other.set("/stages/model/steps", json!(11));
    assert_eq!(work(&other, &believing).unwrap(), 6, "what it takes to train");
    // What has to be read has to be there.
    let summary = other.run_with(&believing, &options(), &|stage, context| {
        if let Stage::Source(_) = stage {
            expand(context.base, &["corpus/*.txt".to_owned()])?;
        }
        stand_in(stage, context)
    });
    assert_eq!(
        summary.error.unwrap().to_string(),
        "stage `model`: rerun `rows`: rerun `tokens`: rerun `text`: no file matches `corpus/*.txt`"
    );
    // Other files are asked for than were read: nothing to believe.
    other.set("/stages/text/input/files", json!(["prose/*.txt"]));
    assert!(work(&other, &believing).is_err());
}

fn side_by_side(jobs: usize, threads: usize) -> Options {
    Options {
        threads,
        jobs,
        ..options()
    }
}

#[test]
fn jobs_of_independent_stages_run_side_by_side_within_the_threads() {
    let project = Project::new();
    let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let both = std::sync::Barrier::new(2);
    let slow = |stage: &Stage, context: &Context<'_>| {
        most.fetch_max(1 + running.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        assert_eq!(rayon::current_num_threads(), context.threads);
        if matches!(stage, Stage::Evaluate(_) | Stage::Sample(_)) {
            assert_eq!(context.threads, 2, "half of them");
            // Each waits for the other: they do run at once.
            both.wait();
        } else {
            assert_eq!(context.threads, 4, "alone with all of them");
        }
        running.fetch_sub(1, Ordering::SeqCst);
        stand_in(stage, context)
    };
    let summary = project.run_with(&Selection::default(), &side_by_side(3, 4), &slow);
    assert!(summary.error.is_none(), "{:?}", summary.error);
    assert_eq!(most.into_inner(), 2);
    let artifacts: Vec<_> = summary.stages.iter().map(|stage| stage.artifact).collect();
    assert!(summary.stages.iter().all(|stage| stage.status == Status::Done));
    // The provenance names the stages that ran beside.
    let plan = project.plan(&Selection::default());
    let beside = |index: usize| plan.stages[index].record().unwrap().provenance.beside.clone();
    assert_eq!(
        (beside(3), beside(4), beside(5)),
        (vec![], vec!["texts".to_owned()], vec!["bound".to_owned()])
    );
    // The same is made as by one after the other.
    let other = Project::new();
    let summary = other.run_with(&Selection::default(), &options(), &stand_in);
    assert_eq!(
        artifacts,
        summary
            .stages
            .iter()
            .map(|stage| stage.artifact)
            .collect::<Vec<_>>()
    );
}

#[test]
fn failure_stops_independent_stages_only_when_asked_to() {
    let failing = |stage: &Stage, context: &Context<'_>| {
        if stage.kind() == StageKind::Evaluate {
            return Err(Error::input("no row in the split"));
        }
        stand_in(stage, context)
    };
    for (jobs, keep_going, last) in [
        (1, true, Status::Done),
        (1, false, Status::NotRun),
        // Both began at once: what runs is not stopped.
        (2, false, Status::Done),
    ] {
        let project = Project::new();
        let options = Options {
            keep_going,
            ..side_by_side(jobs, 2)
        };
        let summary = project.run_with(&Selection::default(), &options, &failing);
        assert_eq!(
            summary.error.unwrap().to_string(),
            "stage `bound`: no row in the split"
        );
        assert_eq!(
            (summary.stages[4].status, summary.stages[5].status),
            (Status::Failed, last)
        );
        if last == Status::NotRun {
            assert_eq!(summary.stages[5].why, "another stage failed");
        }
    }
}

/// Side by side, two consumers find that their input is away: one makes it, the other waits.
#[test]
fn jobs_make_what_two_stages_need_once() {
    let mut project = Project::new();
    project.run();
    take_away(&project, &["text", "tokens", "rows", "model"]);
    project.set("/stages/texts/count", json!(5));
    project.set("/stages/bound/rows", json!(5));
    let count = AtomicUsize::new(0);
    let counting = |stage: &Stage, context: &Context<'_>| {
        count.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(std::time::Duration::from_millis(5));
        stand_in(stage, context)
    };
    let summary = project.run_with(&Selection::default(), &side_by_side(2, 2), &counting);
    assert!(summary.error.is_none(), "{:?}", summary.error);
    assert_eq!(count.into_inner(), 6);
    assert!(summary.stages.iter().all(|stage| stage.status == Status::Done));
}

fn remote_at(folder: &Path) -> Remote {
    Remote::open(&format!("file://{}", folder.display()), false).unwrap()
}

fn run_with_remote(project: &Project, selection: &Selection, folder: &Path) -> (Summary, Vec<String>) {
    struct Heard(Mutex<Vec<String>>);
    impl Sink for Heard {
        fn emit(&self, stage: &str, event: Event) {
            if let Event::Warning(text) | Event::Note(text) = event {
                self.0.lock().unwrap().push(format!("{stage}: {text}"));
            }
        }
    }
    let heard = Heard(Mutex::default());
    let (store, remote) = (project.store(), remote_at(folder));
    let sources = Sources::new(&project.manifest(), &store, Some(&remote));
    let mut plan = project.plan_from(selection, &sources);
    let summary = execute(
        &mut plan,
        &sources,
        &options(),
        &heard,
        &Cancel::default(),
        &stand_in,
    )
    .unwrap();
    assert!(summary.error.is_none(), "{:?}", summary.error);
    (summary, heard.0.into_inner().unwrap())
}

fn statuses(summary: &Summary) -> Vec<Status> {
    summary.stages.iter().map(|stage| stage.status).collect()
}

#[test]
fn remote_lets_two_machines_share_the_work() {
    use Status::{Away, Cached, Done, Fetched};
    let shared = tempfile::tempdir().unwrap();
    let all = Selection::default();
    let here = Project::new();
    let (made, heard) = run_with_remote(&here, &all, shared.path());
    assert_eq!(statuses(&made), [Done; 6]);
    assert_eq!(heard.len(), 6, "{heard:?}");
    assert!(heard[0].starts_with("text: pushed 1 file, "), "{heard:?}");
    let (again, heard) = run_with_remote(&here, &all, shared.path());
    assert_eq!((statuses(&again), heard.len()), (vec![Cached; 6], 0));

    // Nothing is here: the results are fetched, and what they were made of is not.
    let mut there = Project::new();
    let (store, remote) = (there.store(), remote_at(shared.path()));
    let sources = Sources::new(&there.manifest(), &store, Some(&remote));
    let plan = there.plan_from(&all, &sources);
    assert_eq!(plan, there.plan_from(&all, &sources), "a plan is a value");
    assert!(matches!(plan.stages[5].decision, Decision::Fetch(_)));
    let (fetched, heard) = run_with_remote(&there, &all, shared.path());
    assert_eq!(
        statuses(&fetched),
        [Away, Away, Away, Away, Fetched, Fetched],
        "{heard:?}"
    );
    let artifacts =
        |summary: &Summary| -> Vec<_> { summary.stages.iter().map(|stage| stage.artifact).collect() };
    assert_eq!(artifacts(&fetched), artifacts(&made));
    // Its records are known from now on, without the remote too.
    assert_eq!(there.run(), "text: \ntokens: \nrows: \nmodel: ");
    // A change here: only what it consumes is fetched.
    there.set("/stages/texts/count", json!(5));
    let (changed, _) = run_with_remote(&there, &all, shared.path());
    assert_eq!(statuses(&changed), [Away, Away, Away, Fetched, Cached, Done]);
    // And the other machine finds what this one has made.
    let mut here = here;
    here.set("/stages/texts/count", json!(5));
    assert_eq!(
        statuses(&run_with_remote(&here, &all, shared.path()).0)[5],
        Fetched
    );
}

#[test]
fn remote_with_corrupt_files_is_reported_and_the_stage_is_made_here() {
    use Status::{Away, Done};
    let shared = tempfile::tempdir().unwrap();
    let all = Selection::default();
    let here = Project::new();
    let (made, _) = run_with_remote(&here, &all, shared.path());
    // Another content of the same length, in every file that lies there.
    for folder in fs::read_dir(shared.path().join("files")).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            bytes[3] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    let there = Project::new();
    let (summary, heard) = run_with_remote(&there, &all, shared.path());
    assert_eq!(statuses(&summary), [Done; 6], "{heard:?}");
    let artifacts =
        |summary: &Summary| -> Vec<_> { summary.stages.iter().map(|stage| stage.artifact).collect() };
    assert_eq!(artifacts(&summary), artifacts(&made));
    let reported = heard
        .iter()
        .filter(|text| text.contains("its content does not match the digest in its name"));
    assert_eq!(reported.count(), 6, "{heard:?}");
    // What was made here is there now, in place of the bad.
    let third = Project::new();
    let (summary, heard) = run_with_remote(&third, &all, shared.path());
    assert_eq!(statuses(&summary)[..4], [Away; 4], "{heard:?}");
    assert!(heard.is_empty(), "{heard:?}");
}
