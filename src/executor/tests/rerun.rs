//! What reruns, what is served, and the reasons that are shown.

use super::*;

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
        device: DeviceRequest::On(Device::Cuda),
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
    let error = project.plan_error(&Selection::default());
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
    let error = |name: &str| project.plan_error(&forced(name));
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
    let error = project.plan_error(&Selection::default());
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

/// A run without a known difference gives a plan no change to name.
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
