//! Artifacts that are not here.

use super::*;

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
    // Other files are named than were read: their digests are not known.
    other.set("/stages/text/input/files", json!(["prose/*.txt"]));
    assert!(work(&other, &believing).is_err());
}
