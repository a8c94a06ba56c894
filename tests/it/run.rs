//! `mdlm run`, `plan`, `path`, `show` on a small pipeline of text: what reruns, what survives, what is shown.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use mdlm::store::Store;
use serde_json::Value;

use crate::support::{Project, printed, transcript, untimed, words};

#[test]
fn run_plan_and_rerun_show_every_stage() {
    let project = Project::new(100);
    insta::assert_snapshot!(transcript(&mut project.mdlm("plan", &["--exit-code"])), @r"
    exit 10
    --- stdout
    tiny: 3 stages, 3 to run

    text    source    will run: never ran
    tokens  tokenize  will run: never ran
    rows    pack      will run: never ran

    to run  tokens  operations  memory  time
    text    –       –           268 MB  unknown: nothing like it ran here
    tokens  –       –           268 MB  unknown: nothing like it ran here
    rows    –       –           268 MB  unknown before its inputs are made
    all     –       –           268 MB  unknown

    the time of `text`, `tokens`, `rows` is known once they have run here: `mdlm run
    pipelines/tiny.json`
    --- stderr
    ");
    insta::assert_snapshot!(transcript(&mut project.mdlm("run", &[])), @r"
    exit 0
    --- stdout
    --- stderr
    [1/3] text: first run
    text: done in 0.0 s
    [2/3] tokens: first run
    tokens: done in 0.0 s
    [3/3] rows: first run
    rows: done in 0.0 s

    stage   status  time   artifact  why
    text    done    0.0 s  xxxxxxxx  first run
    tokens  done    0.0 s  xxxxxxxx  first run
    rows    done    0.0 s  xxxxxxxx  first run

    text    records 200, bytes 13824, record lengths 64 B █ 128 B
    tokens  records 200, tokens 3902, vocabulary 320, tokens per byte 0.2823, tokens
            per word 1.394, unknown 0.000%
    rows    train rows 121, train records 178, train tokens dropped 0.466%,
            validation rows 15, validation records 22, validation tokens dropped
            1.099%

    report: .mdlm/reports/tiny.html
    ");
    insta::assert_snapshot!(transcript(&mut project.mdlm("plan", &["--exit-code"])), @r"
    exit 0
    --- stdout
    tiny: 3 stages, all cached

    text    source    cached xxxxxxxx
    tokens  tokenize  cached xxxxxxxx
    rows    pack      cached xxxxxxxx
    --- stderr
    ");
    let setting = "stages.tokens.tokenizer.vocabulary_size=310";
    let plan = transcript(&mut project.mdlm("plan", &["--exit-code", "--set", setting]));
    let (stages, takes) = plan.split_once("\nto run").unwrap();
    insta::assert_snapshot!(stages, @r"
    exit 10
    --- stdout
    tiny: 3 stages, 2 to run

    text    source    cached xxxxxxxx
    tokens  tokenize  will run: `tokenizer.vocabulary_size` 320 → 310
    rows    pack      will run: `tokens` runs
    ");
    assert!(takes.contains("s, from `tokens` of 2"), "{takes}");
    insta::assert_snapshot!(transcript(&mut project.mdlm("run", &["--set", setting])), @r"
    exit 0
    --- stdout
    --- stderr
    [2/3] tokens: `tokenizer.vocabulary_size` 320 → 310
    tokens: done in 0.0 s
    [3/3] rows: `tokens` has other content
    rows: done in 0.0 s

    stage   status  time   artifact  why
    text    cached         xxxxxxxx
    tokens  done    0.0 s  xxxxxxxx  `tokenizer.vocabulary_size` 320 → 310
    rows    done    0.0 s  xxxxxxxx  `tokens` has other content

    text    records 200, bytes 13824, record lengths 64 B █ 128 B
    tokens  records 200, tokens 4270, vocabulary 310, tokens per byte 0.3089, tokens
            per word 1.525, unknown 0.000%
    rows    train rows 132, train records 178, train tokens dropped 0.552%,
            validation rows 16, validation records 22, validation tokens dropped
            1.639%

    tiny ran with stages.tokens.tokenizer.vocabulary_size=310

    report: .mdlm/reports/tiny.html
    ");
    // Both variants are in the store now.
    assert_eq!(
        Project::statuses(&project.run(&[])),
        "text: cached, tokens: cached, rows: cached"
    );
    assert_eq!(
        Project::statuses(&project.run(&["--force", "tokens"])),
        "text: cached, tokens: done, rows: cached"
    );
}

#[test]
fn rerun_names_a_changed_file_and_stops_at_an_identical_output() {
    let project = Project::new(50);
    project.run(&[]);
    let file = project.path().join("corpus/b.txt");
    let text = fs::read_to_string(&file).unwrap();
    // Empty records are dropped: the source reads another file and makes the same records.
    fs::write(&file, format!("\n\n{text}")).unwrap();
    let summary = project.run(&[]);
    assert_eq!(
        Project::statuses(&summary),
        "text: done, tokens: cached, rows: cached"
    );
    assert_eq!(summary["stages"][0]["why"], "`../corpus/b.txt` changed");
}

#[test]
fn artifacts_depend_neither_on_threads_nor_on_the_folder() {
    let project = Project::new(300);
    let one = project.run(&["--threads", "1", "--store", "one"]);
    let three = project.run(&["--threads", "3", "--store", "three"]);
    assert_eq!(Project::artifacts(&one), Project::artifacts(&three));

    project.run(&[]);
    let moved = tempfile::tempdir().unwrap();
    let place = moved.path().join("moved");
    fs::rename(project.path(), &place).unwrap();
    let output = crate::support::mdlm()
        .current_dir(moved.path())
        .args(["plan", "--exit-code", "moved/pipelines/tiny.json"])
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    fs::rename(&place, project.path()).unwrap();
}

#[test]
fn path_and_show_print_the_results_of_a_stage() {
    let project = Project::new(50);
    insta::assert_snapshot!(transcript(&mut project.mdlm("path", &["rows"])), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to find the results of stage `rows`: it has not run with the present manifest
    hint: `mdlm run pipelines/tiny.json --target rows`
    ");
    project.run(&[]);
    let output = project.mdlm("path", &["rows"]).output().unwrap();
    let path = String::from_utf8(output.stdout).unwrap();
    assert!(fs::metadata(path.trim_end()).unwrap().is_dir());
    assert!(std::path::Path::new(path.trim_end()).join("rows.json").is_file());

    let output = project.mdlm("show", &["rows"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "rows (pack) of tiny",
        "seed",
        "Inputs\nfrom  tokens",
        "rows.json",
        "length      32",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let output = project.mdlm("show", &["text", "--json"]).output().unwrap();
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record["key"]["kind"], "source");
    assert_eq!(record["provenance"]["files"][0]["path"], "../corpus/a.txt");

    insta::assert_snapshot!(transcript(&mut project.mdlm("path", &["row"])), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to find the results of stage `row`: `tiny` has no stage `row`
    hint: did you mean `rows`?
    ");
}

#[test]
fn json_goes_to_standard_output_and_quiet_prints_no_messages() {
    let project = Project::new(20);
    let output = project
        .mdlm("run", &["--json", "--quiet", "--set", "seed=5"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["ok"], true);
    assert_eq!(summary["overrides"][0], "seed=5");
    assert!(summary["stages"][1]["figures"].is_object());
    // Parsers differ in how they read a name that stands twice in an object.
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text.matches("\"figures\"").count(),
        summary["stages"].as_array().unwrap().len()
    );

    let output = project.mdlm("plan", &["--json"]).output().unwrap();
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["stages"][0]["decision"], "cached");
    assert_eq!(plan["stages"][2]["decision"], "run");
    assert_eq!(plan["stages"][2]["reasons"][0]["text"], "`seed` 5 → 1");
    assert_eq!(plan["stages"][2]["reasons"][0]["kind"], "seed");
}

#[test]
fn exit_codes_separate_input_from_environment() {
    let project = Project::new(5);
    insta::assert_snapshot!(transcript(&mut project.mdlm("run", &["--target", "token"])), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to run `pipelines/tiny.json`: `tiny` has no stage `token`
    hint: did you mean `tokens`?
    ");
    insta::assert_snapshot!(
        transcript(&mut project.mdlm("plan", &["--set", "stages.text.input.files.0=../nowhere/*.txt"])), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to plan `pipelines/tiny.json`: stage `text`: `input.files`: no file matches `../nowhere/*.txt`
    hint: paths start at the manifest's folder, `pipelines`
    ");
    insta::assert_snapshot!(transcript(&mut project.mdlm("run", &["--store", "corpus/a.txt"])), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to run `pipelines/tiny.json`: use the store `corpus/a.txt`: it is not a folder
    hint: name a folder, new or old, with `--store DIR`
    ");
    insta::assert_snapshot!(transcript(project.mdlm("run", &[]).env("MDLM_DEVICE", "tpu")), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to run `pipelines/tiny.json`: read MDLM_DEVICE: `tpu` is not a device
    hint: set it to one of auto, cpu, cuda, or unset it
    ");
    fs::write(project.path().join("corpus/a.txt"), b"fine\nnot \xff fine\n").unwrap();
    insta::assert_snapshot!(transcript(&mut project.mdlm("run", &[])), @r#"
    exit 2
    --- stdout
    --- stderr
    [1/3] text: first run
    text: failed

    stage   status   time   artifact  why
    text    failed   0.0 s            see below
    tokens  not run                   needs `text`
    rows    not run                   needs `tokens`

    error: failed to run `pipelines/tiny.json`: stage `text`: read `pipelines/../corpus/a.txt`: line 2: invalid UTF-8 (0xFF) at byte 5 of the line, 10 of the file
    hint: convert the file: `iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW`; or state what to do with such records: `"invalid_utf8": "replace"` or `"skip"`
    "#);
}

/// Each stage that failed has its error and its hint, on a terminal and in JSON.
#[test]
fn errors_of_all_failed_stages_are_shown() {
    let project = Project::new(5);
    fs::write(project.path().join("corpus/a.txt"), b"fine\nnot \xff fine\n").unwrap();
    fs::write(project.path().join("c.txt"), b"not \xff fine\n").unwrap();
    let other = r#"stages.other={"kind":"source","input":{"kind":"files","files":["../c.txt"]}}"#;
    let output = project.mdlm("run", &["--set", other, "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let talk = String::from_utf8(output.stderr).unwrap();
    for stage in ["text", "other"] {
        let error = format!("error: failed to run `pipelines/tiny.json`: stage `{stage}`: read");
        assert_eq!(talk.matches(&error).count(), 1, "{talk}");
    }
    assert_eq!(talk.matches("hint: convert the file").count(), 2, "{talk}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let stages = report["stages"].as_array().unwrap();
    for stage in stages {
        let error = &stage["error"];
        if stage["status"] != "failed" {
            assert!(error.is_null(), "{stage}");
            continue;
        }
        let name = stage["name"].as_str().unwrap();
        let message = error["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("stage `{name}`: read")), "{message}");
        assert!(error["hint"].as_str().unwrap().starts_with("convert the file"));
        assert_eq!(error["exit_code"], 2);
    }
    let failed = stages.iter().filter(|stage| stage["status"] == "failed");
    assert_eq!(failed.count(), 2);

    // After a failure with the same key it is no first run.
    let (_, plan, _) = printed(&mut project.mdlm("plan", &["--set", other]));
    assert_eq!(plan.matches("will run: did not finish").count(), 2, "{plan}");
    let (_, _, talk) = printed(&mut project.mdlm("path", &["text"]));
    assert!(
        talk.contains("it has not finished with the present manifest\n"),
        "{talk}"
    );
    let (_, explained, _) = printed(&mut project.mdlm("explain", &["text"]));
    assert!(explained.contains("no run has finished"), "{explained}");
    assert!(!explained.contains("never"), "{explained}");
}

/// Beyond ten errors the rest is counted.
#[test]
fn errors_beyond_ten_are_counted() {
    let project = Project::new(5);
    fs::write(project.path().join("corpus/a.txt"), b"not \xff fine\n").unwrap();
    let others: Vec<String> = (0..12)
        .map(|i| {
            let files = "[\"../corpus/a.txt\"]";
            format!(
                r#"stages.s{i}={{"kind":"source","limit":{},"input":{{"kind":"files","files":{files}}}}}"#,
                i + 1
            )
        })
        .collect();
    let arguments: Vec<&str> = others.iter().flat_map(|set| ["--set", set]).collect();
    let (code, _, talk) = printed(&mut project.mdlm("run", &arguments));
    assert_eq!(code, Some(2), "{talk}");
    assert_eq!(talk.matches("error: failed to run").count(), 10, "{talk}");
    assert!(talk.contains("error: 3 more stages failed"), "{talk}");
}

/// The program as a child that can be killed.
fn start(project: &Project) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_mdlm"))
        .current_dir(project.path())
        .args(["run", "pipelines/tiny.json", "--threads", "2"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Killed at many moments, a run is finished by the next ones and makes what an undisturbed one makes.
#[test]
fn resume_after_a_kill_at_any_moment_keeps_finished_stages() {
    let project = Project::new(2_000);
    let began = Instant::now();
    let undisturbed = Project::artifacts(&project.run(&["--store", "undisturbed", "--threads", "2"]));
    let whole = began.elapsed();
    for kill in 1..=12 {
        let mut child = start(&project);
        // From the first moments to the end of a whole run; what is finished stays, so that later kills hit later stages.
        sleep(whole.mul_f64(f64::from(kill) / 12.0));
        // It may have finished already.
        let _ = child.kill();
        child.wait().unwrap();
    }
    let summary = project.run(&[]);
    assert_eq!(Project::artifacts(&summary), undisturbed);
    assert_eq!(fs::read_dir(project.store().join("staging")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(project.store().join("work")).unwrap().count(), 0);
    assert_eq!(
        fs::read_dir(project.store().join("artifacts")).unwrap().count(),
        3
    );
}

#[test]
fn lock_lets_runs_at_once_share_the_stages() {
    let project = Project::new(1_000);
    let mut children: Vec<_> = (0..3).map(|_| start(&project)).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(
        Project::statuses(&project.run(&[])),
        "text: cached, tokens: cached, rows: cached"
    );
    assert_eq!(
        fs::read_dir(project.store().join("artifacts")).unwrap().count(),
        3
    );
}

/// A run that needs a stage that another process makes says for which process it waits, and continues when that process
/// has ended.
#[test]
fn lock_wait_names_the_process_that_runs_the_stage() {
    let project = Project::new(50);
    let plan = project.mdlm("plan", &["--json"]).output().unwrap();
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    let key = plan["stages"][0]["key"].as_str().unwrap().parse().unwrap();
    let store = Store::at(project.store());
    let lock = store.try_lock(&key).unwrap().unwrap();
    // A plan finds the scratch of an attempt, and that the attempt is not over.
    fs::create_dir_all(store.work_path(&key).join("part")).unwrap();
    let (_, plan, _) = printed(&mut project.mdlm("plan", &[]));
    let plan = words(&plan);
    let process = format!("will run: process {} on ", std::process::id());
    assert!(plan.contains(&process) && plan.contains(" runs it now"), "{plan}");
    let (_, _, talk) = printed(&mut project.mdlm("path", &["text"]));
    let process = format!(
        "it has not finished with the present manifest: process {} on ",
        std::process::id()
    );
    assert!(talk.contains(&process), "{talk}");
    fs::remove_dir_all(store.work_path(&key)).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_mdlm"))
        .current_dir(project.path())
        .args(["run", "pipelines/tiny.json"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut talk = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = talk.next().unwrap().unwrap();
    let expected = format!("text: waiting for process {} on ", std::process::id());
    assert!(untimed(&first).starts_with(&expected), "{first}");
    drop(lock);
    let rest: Vec<_> = talk.map(|line| untimed(&line.unwrap()).to_owned()).collect();
    assert!(child.wait().unwrap().success(), "{rest:?}");
    assert!(rest.contains(&"[1/3] text: first run".to_owned()), "{rest:?}");
}

/// `mdlm … | head`: a reader that closes the pipe is no fault.
#[cfg(unix)]
#[test]
fn closed_pipe_of_standard_output_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mdlm"))
        .arg("schema")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success());
}

#[test]
fn data_shows_records_tokens_and_rows() {
    let project = Project::new(40);
    assert!(project.mdlm("data", &["text"]).output().unwrap().status.code() == Some(2));
    project.run(&[]);
    insta::assert_snapshot!(
        "data_text",
        transcript(&mut project.mdlm("data", &["text", "--head", "2"]))
    );
    insta::assert_snapshot!(
        "data_tokens",
        transcript(&mut project.mdlm("data", &["tokens", "--head", "1", "--skip", "41"]))
    );
    insta::assert_snapshot!(
        "data_rows",
        transcript(&mut project.mdlm("data", &["rows", "--head", "2"]))
    );
    let shown = |arguments: &[&str]| {
        let output = project.mdlm("data", arguments).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect::<Vec<Value>>()
    };
    let rows = shown(&["rows", "--json", "--split", "validation", "--head", "1"]);
    assert_eq!(rows[0]["tokens"].as_array().unwrap().len(), 32);
    assert!(rows[0]["text"].as_str().unwrap().starts_with("[BOS]"));
    assert_eq!(rows[0].get("counted"), None, "wrapped rows have no padding");
    let records = shown(&["text", "--json", "--skip", "39", "--head", "2"]);
    assert_eq!(records[0]["index"], 39);
    assert!(records[1]["text"].as_str().unwrap().contains("hare number 0 "));
    assert!(shown(&["text", "--json", "--skip", "1000"]).is_empty());
    let refused = transcript(&mut project.mdlm("data", &["text", "--split", "train"]));
    assert!(refused.contains("has no splits"), "{refused}");
}

#[test]
fn pack_warns_of_text_that_is_cut_off() {
    let project = Project::new(50);
    let (code, _, talk) = printed(&mut project.mdlm(
        "run",
        &["--set", "stages.rows.wrap=false", "--set", "stages.rows.length=8"],
    ));
    assert_eq!(code, Some(0), "{talk}");
    assert!(
        talk.contains("of the tokens are cut off, since a row holds at most 6 of a record"),
        "{talk}"
    );
    let (_, _, talk) = printed(&mut project.mdlm("run", &[]));
    assert!(!talk.contains("cut off"), "{talk}");
}

/// Who asks for JSON gets some when nothing could be done, too.
#[test]
fn json_output_includes_errors() {
    let project = Project::new(5);
    let error = |command: &str, arguments: &[&str]| {
        let (code, out, _) = printed(&mut project.mdlm(command, arguments));
        assert_eq!(code, Some(2));
        let out: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&out["ok"], &out["error"]["exit_code"]),
            (&false.into(), &2.into()),
            "{out}"
        );
        out["error"]["message"].as_str().unwrap().to_owned()
    };
    assert!(error("show", &["rows", "--json"]).contains("it has not run with the present manifest"));
    for command in ["run", "plan"] {
        let message = error(command, &["--json", "--set", "stages.rows.length=0"]);
        assert_eq!(message, "the manifest is at fault");
        fs::rename(project.path().join("corpus"), project.path().join("gone")).unwrap();
        assert!(error(command, &["--json"]).contains("no file matches"));
        fs::rename(project.path().join("gone"), project.path().join("corpus")).unwrap();
    }
}

/// Evaluation and sampling at once make what they make one after the other.
#[test]
fn jobs_side_by_side_make_the_same_artifacts_as_one_after_another() {
    let (one, other) = (Project::whole(60), Project::whole(60));
    let alone = one.run(&["--jobs", "1"]);
    let beside = other.run(&["--jobs", "4", "--threads", "2", "--memory", "1GB"]);
    assert_eq!(Project::artifacts(&alone), Project::artifacts(&beside));
    assert_eq!(Project::statuses(&alone), Project::statuses(&beside));
    let shown = other.mdlm("show", &["texts", "--json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    // Both began at once, with a thread each.
    assert_eq!(shown["provenance"]["threads"], 1);
}
