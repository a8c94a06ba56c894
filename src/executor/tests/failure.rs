//! Stages that fail, runs that are interrupted, files that change meanwhile.

use super::*;

/// A GPU that cannot be used is an error before the first stage runs; a run without networks does not look for one.
#[test]
fn device_that_is_missing_is_an_error_before_anything_runs() {
    let has_gpu = DeviceRequest::On(Device::Cuda).check().is_ok();
    if crate::require::require("no-gpu", (!has_gpu).then_some(()).ok_or("there is a GPU")).is_none() {
        return;
    }
    let project = Project::new();
    let on_gpu = Options {
        device: DeviceRequest::On(Device::Cuda),
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

    // Of several failures each has its error with its way out.
    let project = Project::new();
    let failing = |stage: &Stage, context: &Context<'_>| match stage.kind() {
        StageKind::Evaluate => Err(Error::input("no row in the split").hint("raise `validation`")),
        StageKind::Sample => Err(Error::environment("no memory").hint("lower `batch`")),
        _ => stand_in(stage, context),
    };
    let summary = project.run_with(&Selection::default(), &options(), &failing);
    let hints: Vec<_> = summary
        .stages
        .iter()
        .map(|stage| stage.error.as_ref().and_then(Error::hint_text))
        .collect();
    assert_eq!(
        hints[3..],
        [None, Some("raise `validation`"), Some("lower `batch`")]
    );
    let error = summary.into_error().unwrap();
    assert_eq!(error.to_string(), "stage `bound`: no row in the split");
    let others: Vec<_> = error.others().iter().map(ToString::to_string).collect();
    assert_eq!(others, ["stage `texts`: no memory"]);

    let project = Project::new();
    project.run();
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
    // A training that is interrupted after its checkpoint, and resumes from it.
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

    assert_eq!(
        project.planned(),
        "model: did not finish\nbound: never ran\ntexts: never ran"
    );
    let summary = project.run_with(&Selection::default(), &options(), &training);
    assert_eq!(
        rerun(&summary),
        "model: did not finish\nbound: first run\ntexts: first run"
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
    use crate::manifest::reading::Reading;
    /// Writes a file and restores its time, as some editors do.
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
                    crate::manifest::reading::EmptyRecords::Drop,
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
