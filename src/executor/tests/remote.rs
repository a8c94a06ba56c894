//! Runs with a remote store.

use super::*;

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
