//! What a person meets who moves files about, forgets what was run, and looks at results later.

use std::fs;

use assert_cmd::Command;

use super::support::Project;

/// Exit code, standard output, standard error.
fn printed(mut command: Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Results are looked at where the text that they came of is gone; what would make new ones says what is missing.
#[test]
fn results_are_shown_without_their_sources() {
    let project = Project::new(50);
    project.run(&[]);
    fs::rename(project.path().join("corpus"), project.path().join("elsewhere")).unwrap();
    for (command, arguments) in [
        ("show", &["rows"][..]),
        ("path", &["rows"]),
        ("data", &["tokens"]),
        ("explain", &["rows"]),
        ("report", &[]),
    ] {
        let (code, _, talk) = printed(project.mdlm(command, arguments));
        assert_eq!(code, Some(0), "{command}: {talk}");
    }
    let (code, _, talk) = printed(project.mdlm("run", &[]));
    assert_eq!(code, Some(2));
    assert!(
        talk.contains("no file matches") && talk.contains("`--allow-missing`"),
        "{talk}"
    );
    let (code, ..) = printed(project.mdlm("run", &["--allow-missing"]));
    assert_eq!(code, Some(0));
}

/// An artifact may serve a manifest that read the same from another place: its own last run is what it goes by.
#[test]
fn what_served_a_manifest_is_known_by_its_own_files() {
    let project = Project::new(50);
    project.run(&[]);
    let other = project.path().join("other");
    fs::create_dir(&other).unwrap();
    for name in ["a.txt", "b.txt"] {
        fs::copy(project.path().join("corpus").join(name), other.join(name)).unwrap();
    }
    let manifest = project.path().join("pipelines/tiny.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let text = text
        .replace("../corpus", "../other")
        .replace("\"tiny\"", "\"second\"");
    fs::write(project.path().join("pipelines/second.json"), text).unwrap();
    let second = |command: &str, arguments: &[&str]| {
        let mut mdlm = super::support::mdlm();
        mdlm.current_dir(project.path())
            .args([command, "pipelines/second.json"])
            .args(arguments);
        printed(mdlm)
    };
    let (code, _, talk) = second("run", &[]);
    assert_eq!(code, Some(0), "{talk}");
    fs::remove_dir_all(other).unwrap();
    let (code, _, talk) = second("run", &["--allow-missing"]);
    assert_eq!(code, Some(0), "{talk}");
    let (code, ..) = second("show", &["rows"]);
    assert_eq!(code, Some(0));
}

/// A pipeline that has never run does not list the changes of another one.
#[test]
fn what_another_pipeline_ran_is_shown_with_its_name() {
    let project = Project::new(50);
    project.run(&[]);
    let manifest = project.path().join("pipelines/tiny.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let text = text
        .replace("\"tiny\"", "\"second\"")
        .replace("\"length\": 32", "\"length\": 64");
    fs::write(&manifest, text).unwrap();
    let (_, plan, _) = printed(project.mdlm("plan", &["--target", "rows"]));
    let plan = plan.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        plan.contains("`length` 32 → 64; compared with `rows` of `tiny`"),
        "{plan}"
    );
}

/// A glob does not skip a file in silence because of its name.
#[cfg(unix)]
#[test]
fn a_file_name_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let project = Project::new(50);
    let corpus = project.path().join("corpus");
    let name = std::ffi::OsStr::from_bytes(b"c\xFF.txt");
    if fs::write(corpus.join(name), "words\n").is_err() {
        println!("skipped: the file system takes no such name");
        return;
    }
    let (code, _, talk) = printed(project.mdlm("plan", &[]));
    assert_eq!(code, Some(2));
    assert!(
        talk.contains("`../corpus/*.txt` matches `c\u{FFFD}.txt`"),
        "{talk}"
    );
    // A name that the pattern does not match is no fault.
    fs::rename(
        corpus.join(name),
        corpus.join(std::ffi::OsStr::from_bytes(b"c\xFF.bin")),
    )
    .unwrap();
    assert_eq!(printed(project.mdlm("plan", &[])).0, Some(0));
}

#[test]
fn force_of_a_stage_that_no_target_needs_is_refused() {
    let project = Project::new(50);
    let (code, _, talk) = printed(project.mdlm("plan", &["--target", "tokens", "--force", "rows"]));
    assert_eq!(code, Some(2));
    assert!(
        talk.contains("`--force rows` has no effect: no target needs `rows`"),
        "{talk}"
    );
    assert!(talk.contains("`--target rows`"), "{talk}");
}

#[test]
fn pack_warns_of_text_that_is_cut_off() {
    let project = Project::new(50);
    let (code, _, talk) = printed(project.mdlm(
        "run",
        &["--set", "stages.rows.wrap=false", "--set", "stages.rows.length=8"],
    ));
    assert_eq!(code, Some(0), "{talk}");
    assert!(
        talk.contains("of the tokens are cut off, since a row holds at most 6 of a record"),
        "{talk}"
    );
    let (_, _, talk) = printed(project.mdlm("run", &[]));
    assert!(!talk.contains("cut off"), "{talk}");
}

/// The report shows the settings of a stage, overrides included.
#[test]
fn the_report_has_the_settings() {
    let project = Project::new(50);
    project.run(&["--set", "stages.rows.length=64"]);
    let report = project.path().join(".mdlm/reports/tiny.html");
    let report = fs::read_to_string(report).unwrap();
    for part in [
        "<tr><th>length</th><td>64</td></tr>",
        "tokenizer.vocabulary_size",
        "../corpus/a.txt (",
    ] {
        assert!(report.contains(part), "{part}");
    }
}

#[test]
fn a_grammar_that_is_no_text_is_the_inputs_fault() {
    let project = Project::new(5);
    fs::write(
        project.path().join("pipelines/bad.grammar"),
        b"sentence = \"\xFF\"\n",
    )
    .unwrap();
    let input = r#"stages.text.input={"kind":"synthetic","grammar":"bad.grammar","records":5}"#;
    let (code, _, talk) = printed(project.mdlm("run", &["--set", input]));
    assert_eq!(code, Some(2), "{talk}");
    assert!(talk.contains("it is not UTF-8 at byte 13"), "{talk}");
}

/// Who asks for JSON gets some when nothing could be done, too.
#[test]
fn json_output_includes_errors() {
    let project = Project::new(5);
    let error = |command: &str, arguments: &[&str]| {
        let (code, out, _) = printed(project.mdlm(command, arguments));
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

/// A folder that is not there is no empty cache.
#[test]
fn nothing_is_pulled_from_a_folder_that_is_not_there() {
    let project = Project::new(5);
    let remote = project.path().join("nowhere");
    let url = format!("file://{}", remote.display());
    let (code, _, talk) = printed(project.mdlm("pull", &["--remote", &url]));
    assert_eq!(code, Some(3), "{talk}");
    assert!(talk.contains("nowhere"), "{talk}");
    assert!(!remote.exists());
}

/// A plan says what is left to do of a training.
#[test]
fn plan_shows_the_step_from_which_a_training_resumes() {
    let project = Project::whole(200);
    let schedule = ["--set", "stages.model.schedule=constant", "--target", "model"];
    project.run(&schedule);
    let plan_of = |more: &[&str]| {
        let arguments = [&schedule, more].concat();
        let (code, plan, talk) = printed(project.mdlm("plan", &arguments));
        assert_eq!(code, Some(0), "{talk}");
        plan.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let plan = plan_of(&["--set", "stages.model.steps=40"]);
    assert!(
        plan.contains("will run from step 30 on: `steps` 30 → 40"),
        "{plan}"
    );
    assert!(plan_of(&["--set", "stages.model.steps=40", "--json"]).contains("\"resumes_from\": 30"));
    // Its time is that of what was left.
    let longer = [&schedule, &["--set", "stages.model.steps=40"][..]].concat();
    project.run(&longer);
    for arguments in [&["model"][..], &["model", "--set", "stages.model.steps=40"]] {
        let all = [arguments, &schedule[..2]].concat();
        let resumed = arguments.len() > 1;
        for command in ["compare", "explain"] {
            let (code, out, talk) = self::printed(project.mdlm(command, &all));
            assert_eq!(code, Some(0), "{talk}");
            let out = out.split_whitespace().collect::<Vec<_>>().join(" ");
            let made = out.split("History").next().unwrap();
            assert_eq!(made.contains(" s from step 30 on"), resumed, "{command}: {out}");
        }
    }
    // A training with another batch shares no step, and a forced one starts from step 0.
    let plan = plan_of(&["--set", "stages.model.batch=4"]);
    assert!(plan.contains("will run: `batch` 8 → 4"), "{plan}");
    assert!(plan_of(&["--force", "model"]).contains("will run: forced"));
}
