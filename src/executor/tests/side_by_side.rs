//! Stages and runs side by side.

use super::*;

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
