//! `mdlm run --only`: one stage alone. `mdlm run --isolate`: every stage in a separate process.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Project, printed};
#[cfg(unix)]
use crate::support::{Started, program, send};

/// Exit code and standard error of a run.
fn run(project: &Project, arguments: &[&str]) -> (Option<i32>, String) {
    let output = project.mdlm("run", arguments).output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), talk)
}

#[test]
fn only_runs_one_stage_and_never_another() {
    let project = Project::whole(200);
    let (code, talk) = run(&project, &["--only", "model"]);
    assert_eq!(code, Some(2), "{talk}");
    assert!(
        talk.contains("stage `model` needs `text`, `tokens`, `rows`, which are not in the store"),
        "{talk}"
    );
    assert!(talk.contains("hint: run them first in this order"), "{talk}");
    let artifacts = project.store().join("artifacts");
    let count = || fs::read_dir(&artifacts).map_or(0, Iterator::count);
    assert_eq!(count(), 0);

    for (done, stage) in ["text", "tokens", "rows"].into_iter().enumerate() {
        let (code, talk) = run(&project, &["--only", stage]);
        assert_eq!(code, Some(0), "{talk}");
        assert_eq!(count(), done + 1, "{talk}");
    }
    let (code, talk) = run(&project, &["--only", "bound"]);
    assert_eq!(code, Some(2), "{talk}");
    assert!(
        talk.contains("stage `bound` needs `model`, which is not in the store"),
        "{talk}"
    );
    assert!(talk.contains("hint: run it first with `--only model`"), "{talk}");
    let (code, talk) = run(&project, &["--only", "model"]);
    assert_eq!(code, Some(0), "{talk}");
    assert_eq!(count(), 4);

    // Made one by one, the stages are those of a whole run.
    let summary = project.run(&[]);
    assert_eq!(
        Project::statuses(&summary),
        "text: cached, tokens: cached, rows: cached, model: cached, bound: done, texts: done"
    );
    let (code, talk) = run(&project, &["--only", "model", "--force", "rows"]);
    assert_eq!(code, Some(2), "{talk}");
    assert!(
        talk.contains("`--only model` runs no other stage, but `--force rows` is given"),
        "{talk}"
    );
    assert!(
        talk.contains("hint: force `rows` first, `--only rows --force rows`"),
        "{talk}"
    );
    let (code, talk) = run(&project, &["--only", "modle"]);
    assert_eq!(code, Some(2), "{talk}");
}

#[test]
fn only_does_not_make_a_corrupt_input_again() {
    let project = Project::whole(200);
    project.run(&["--target", "rows"]);
    let output = project.mdlm("path", &["rows"]).output().unwrap();
    let folder = String::from_utf8(output.stdout).unwrap();
    let shard = fs::read_dir(Path::new(folder.trim()).join("train"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "arrow"))
        .unwrap();
    let mut bytes = fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let mut permissions = fs::metadata(&shard).unwrap().permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a file of this test")]
    permissions.set_readonly(false);
    fs::set_permissions(&shard, permissions).unwrap();
    fs::write(&shard, bytes).unwrap();
    let (code, talk) = run(&project, &["--only", "model"]);
    assert_eq!(code, Some(2), "{talk}");
    assert!(talk.contains("its artifact is corrupt"), "{talk}");
    assert!(talk.contains("stage `model` needs `rows`"), "{talk}");
}

#[test]
fn only_takes_one_instance_of_a_swept_stage() {
    let project = Project::whole(200);
    let path = project.path().join("pipelines/tiny.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    manifest["stages"]["model"]["matrix"] = serde_json::json!({ "seed": [1, 2] });
    fs::write(&path, manifest.to_string()).unwrap();
    project.run(&["--target", "rows"]);
    let (code, talk) = run(&project, &["--only", "model"]);
    assert_eq!(code, Some(2), "{talk}");
    assert!(
        talk.contains("run `model` alone: it is swept and has 2 instances")
            && talk.contains("`--only model@seed=1`"),
        "{talk}"
    );
    let (code, talk) = run(&project, &["--only", "model@seed=2"]);
    assert_eq!(code, Some(0), "{talk}");
}

/// The same artifacts as in one process; a second run finds all of it.
#[test]
fn isolate_makes_the_same_artifacts() {
    let together = Project::whole(200);
    let apart = Project::whole(200);
    let expected = together.run(&[]);
    let summary = apart.run(&["--isolate", "--jobs", "2", "--threads", "2"]);
    assert_eq!(Project::artifacts(&summary), Project::artifacts(&expected));
    assert_eq!(Project::statuses(&summary), Project::statuses(&expected));
    // Speed and memory differ from run to run.
    for figure in ["steps", "loss", "bound"] {
        let of = |summary: &Value| summary["stages"][3]["figures"][figure].clone();
        assert_eq!(of(&summary), of(&expected), "{figure}");
        assert!(of(&summary).is_string(), "{figure}");
    }
    // Each process records the stages that ran in other processes meanwhile.
    let beside = |stage: &str, other: &str| {
        let (_, record, _) = printed(&mut apart.mdlm("show", &[stage, "--json"]));
        let record: Value = serde_json::from_str(&record).unwrap();
        record["provenance"]["beside"] == serde_json::json!([other])
    };
    assert!(beside("texts", "bound") || beside("bound", "texts"));
    let again = apart.run(&["--isolate"]);
    assert!(!Project::statuses(&again).contains("done"), "{again}");
    let forced = apart.run(&["--isolate", "--force", "texts"]);
    assert!(
        Project::statuses(&forced).ends_with("bound: cached, texts: done"),
        "{forced}"
    );
}

/// Events of the processes reach the log: notes of a validation, warnings. A stage's error is the run's, with its hint
/// and its exit code.
#[test]
fn isolate_reports_what_stages_report() {
    let project = Project::whole(200);
    let (code, talk) = run(&project, &["--isolate"]);
    assert_eq!(code, Some(0), "{talk}");
    assert!(talk.contains("model: step 10: validation bound"), "{talk}");
    assert_eq!(talk.matches("] model: ").count(), 1, "{talk}");

    // It diverges within 20 steps.
    let failing = [
        "--set",
        "stages.model.learning_rate=10",
        "--set",
        "stages.model.warmup_steps=0",
        "--set",
        "stages.model.gradient_clip=0",
    ];
    let (code, talk) = run(&project, &failing);
    assert_eq!(code, Some(2), "{talk}");
    assert!(talk.contains("stage `model`: training diverged"), "{talk}");
    let (isolated, also) = run(&project, &[&failing[..], &["--isolate"]].concat());
    assert_eq!(isolated, code, "{also}");
    let error = |talk: &str| {
        talk.lines()
            .filter(|line| line.starts_with("error") || line.starts_with("hint"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(error(&also), error(&talk));
    assert_eq!(also.matches("error: ").count(), 1, "{also}");
}

/// The process of a stage has its orders on standard input, where the run has text.
#[test]
fn isolate_runs_stages_behind_one_that_reads_standard_input() {
    let project = Project::new(0);
    let text = (0..300)
        .map(|i| format!("fox {i} jumps over the lazy dog {}\n", 7 * i))
        .collect::<Vec<_>>()
        .concat();
    let arguments = ["--isolate", "--set", "stages.text.input.files.0=-"];
    let mut command = project.mdlm("run", &arguments);
    command
        .timeout(std::time::Duration::from_secs(120))
        .write_stdin(text);
    let (code, _, talk) = printed(&mut command);
    assert_eq!(code, Some(0), "{talk}");
    let (code, _, talk) = printed(&mut project.mdlm("path", &["rows", arguments[1], arguments[2]]));
    assert_eq!(code, Some(0), "{talk}");
}

/// The run uses the remote, by its own options; the processes of its stages do not.
#[test]
fn isolate_uploads_nothing_to_a_remote_that_is_only_read() {
    let project = Project::new(50);
    let remote = project.path().join("remote");
    fs::create_dir(&remote).unwrap();
    let mut command = project.mdlm("run", &["--isolate", "--remote-read-only", "--target", "text"]);
    let (code, _, talk) = printed(command.env("MDLM_REMOTE", format!("file://{}", remote.display())));
    assert_eq!(code, Some(0), "{talk}");
    assert_eq!(fs::read_dir(&remote).unwrap().count(), 0);
}

/// An interruption reaches the process of the stage, which keeps a checkpoint; the next run resumes from it.
#[cfg(unix)]
#[test]
fn isolate_passes_an_interruption_on() {
    let project = Project::whole(200);
    let endless = [
        "--isolate",
        "--set",
        "stages.model.steps=1000000",
        "--set",
        "stages.model.checkpoint_every=1000000",
    ];
    let mut isolated = Started::new(program(), &project, &endless);
    // The note of a validation shows that the training is under way.
    isolated.read_until("step 10: validation bound");
    send("TERM", isolated.child.id());
    let (code, said) = isolated.end();
    assert_eq!(code, Some(143), "{said}");
    assert!(said.contains("model: kept a checkpoint of step "), "{said}");
    // No process of a stage stays behind: the lock of the key is free at once.
    let (code, talk) = run(&project, &["--only", "rows"]);
    assert_eq!(code, Some(0), "{talk}");
}

/// The process of a training is killed: the run survives it, says so, and the next run resumes from its checkpoint.
#[cfg(target_os = "linux")]
#[test]
fn isolate_survives_a_process_that_is_killed() {
    let project = Project::whole(200);
    let arguments = [
        "--isolate",
        "--set",
        "stages.model.steps=400",
        "--set",
        "stages.model.checkpoint_every=5",
    ];
    let mut isolated = Started::new(program(), &project, &arguments);
    isolated.read_until("step 10: validation bound");
    // man 5 proc: after the name in parentheses, `stat` has the state and the parent.
    let parent = |process: &str| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        stat.rsplit(')')
            .next()?
            .split_whitespace()
            .nth(1)
            .map(str::to_owned)
    };
    let children: Vec<String> = fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| parent(name).is_some_and(|parent| parent == isolated.child.id().to_string()))
        .collect();
    let [process] = children.as_slice() else {
        panic!("one process runs the training: {children:?}");
    };
    send("KILL", process.parse().unwrap());
    let (code, said) = isolated.end();
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("stage `model`: its process crashed (signal: 9"),
        "{said}"
    );
    assert!(
        said.contains("hint: the system kills a process when memory runs out"),
        "{said}"
    );
    let (code, talk) = run(&project, &arguments);
    assert_eq!(code, Some(0), "{talk}");
    assert!(
        talk.contains("model: resuming from the checkpoint of step "),
        "{talk}"
    );
}
