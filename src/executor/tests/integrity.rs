//! Corrupt artifacts are found before they are consumed, and made again.

use super::*;

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
