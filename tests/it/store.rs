//! The store as a person sees it: `mdlm verify`, `gc`, `status`, `explain`, and what a run does about corruption.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Project, mdlm, transcript};

/// A command on the store of a project.
fn command(project: &Project, arguments: &[&str]) -> assert_cmd::Command {
    let mut command = mdlm();
    command.current_dir(project.path()).args(arguments);
    command
}

fn json(project: &Project, arguments: &[&str]) -> (i32, Value) {
    let output = command(project, arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"));
    (output.status.code().unwrap(), value)
}

fn artifact(project: &Project, stage: &str) -> PathBuf {
    let output = project.mdlm("path", &[stage]).output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
}

/// Flips a bit of a file, whose length stays.
fn flip(file: &std::path::Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
}

/// Text without what differs from run to run: moments, and the project's folder.
fn steady(project: &Project, text: &str) -> String {
    let folder = fs::canonicalize(project.path()).unwrap();
    let mut steady = String::new();
    let mut rest = text.replace(folder.to_str().unwrap(), "PROJECT");
    while let Some(at) = rest.find("20") {
        let byte = |place: usize| rest.as_bytes().get(at + place);
        let is_moment = byte(4) == Some(&b'-') && byte(7) == Some(&b'-');
        let length = if is_moment {
            rest[at..].find('Z').map_or(rest.len() - at, |end| end + 1)
        } else {
            2
        };
        steady.push_str(&rest[..at]);
        steady.push_str(if is_moment { "MOMENT" } else { "20" });
        rest = rest[at + length..].to_owned();
    }
    steady + &rest
}

#[test]
fn verify_finds_a_flipped_bit_and_the_artifact_is_made_again() {
    let project = Project::new(100);
    let made = project.run(&[]);
    let printed = |arguments: &[&str]| transcript(&mut command(&project, arguments));
    let clock = Instant::now();
    let sound = printed(&["verify", "--throttle", "200kB"]);
    let bytes: u64 = json(&project, &["verify", "--json"]).1["bytes"].as_u64().unwrap();
    assert!(
        clock.elapsed().as_secs_f64() > bytes as f64 / 200e3,
        "{:?}",
        clock.elapsed()
    );
    assert!(
        sound.starts_with("exit 0\n--- stdout\n--- stderr\n3 artifacts, "),
        "{sound}"
    );
    assert!(sound.ends_with(": all sound"), "{sound}");

    let folder = artifact(&project, "tokens");
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    flip(&folder.join("tokens-00000.arrow"));
    // Nothing that is cached is consumed, so that a run does not look.
    assert_eq!(
        Project::statuses(&project.run(&[])),
        "text: cached, tokens: cached, rows: cached"
    );
    let (code, report) = json(&project, &["verify", "--dry-run", "--json"]);
    assert_eq!(
        (code, &report["artifacts"][0]["outcome"]),
        (3, &Value::from("corrupt"))
    );
    assert_eq!(report["sound"], 2);
    assert!(folder.is_dir(), "a dry run moves nothing");

    let (code, report) = json(&project, &["verify", "pipelines/tiny.json", "--json"]);
    let verdict = &report["artifacts"][0];
    assert_eq!(code, 3);
    assert_eq!(verdict["outcome"], "quarantined");
    assert_eq!(verdict["artifact"], name.as_str());
    assert_eq!(verdict["made_by"][0], "tokens of tiny");
    assert_eq!(verdict["faults"][0]["path"], "tokens-00000.arrow");
    assert_eq!(verdict["faults"][0]["flaw"], "content");
    assert!(!folder.exists() && project.store().join("quarantine").join(&name).is_dir());
    let again = printed(&["verify"]);
    assert!(
        again.starts_with(
            "exit 0\n--- stdout\n--- stderr\n1 recorded artifact is missing: made again when a run needs them\n2 artifacts, "
        ),
        "{again}"
    );

    let output = project.mdlm("plan", &[]).output().unwrap();
    let plan = String::from_utf8(output.stdout).unwrap();
    let words: Vec<_> = plan.split_whitespace().collect();
    let why = "will run: damaged: its artifact is in quarantine since 20";
    assert!(words.join(" ").contains(why), "{plan}");
    let summary = project.run(&[]);
    assert_eq!(
        Project::statuses(&summary),
        "text: cached, tokens: done, rows: cached"
    );
    assert_eq!(Project::artifacts(&summary), Project::artifacts(&made));
    assert_eq!(json(&project, &["verify", "--json"]).0, 0);
}

#[test]
fn corruption_of_an_input_is_found_before_a_stage_reads_it() {
    let project = Project::new(100);
    let made = project.run(&[]);
    let folder = artifact(&project, "tokens");
    flip(&folder.join("tokens-00000.arrow"));
    let expected = project.run(&["--store", "other", "--set", "stages.rows.length=64"]);
    let output = project
        .mdlm("run", &["--set", "stages.rows.length=64"])
        .output()
        .unwrap();
    let errors = steady(&project, &String::from_utf8(output.stderr).unwrap());
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let lines: Vec<_> = errors
        .lines()
        .take(2)
        .map(|line| line.strip_prefix("MOMENT ").unwrap_or(line))
        .map(|line| line.replace(&name, "ARTIFACT"))
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    warning: tokens: its artifact is corrupt and is not used: `tokens-00000.arrow` has other content; moved to `PROJECT/.mdlm/quarantine/ARTIFACT`
    [2/3] tokens: damaged: its artifact is in quarantine since MOMENT: `tokens-00000.arrow` has other content
    ");
    let summary = project.run(&["--set", "stages.rows.length=64"]);
    assert_eq!(Project::artifacts(&summary), Project::artifacts(&expected));

    // What is served and not consumed is hashed when asked for.
    flip(&artifact(&project, "rows").join("rows.json"));
    assert_eq!(
        Project::statuses(&project.run(&[])),
        "text: cached, tokens: cached, rows: cached"
    );
    let summary = project.run(&["--paranoid"]);
    assert_eq!(
        Project::statuses(&summary),
        "text: cached, tokens: cached, rows: done"
    );
    assert_eq!(Project::artifacts(&summary), Project::artifacts(&made));
}

#[test]
fn verify_reports_every_kind_of_damage_and_damaged_records() {
    let project = Project::new(50);
    project.run(&[]);
    fs::write(artifact(&project, "rows").join("extra"), "x").unwrap();
    fs::remove_file(artifact(&project, "tokens").join("tokens.json")).unwrap();
    let actions = project.store().join("actions/source");
    let record = fs::read_dir(&actions).unwrap().next().unwrap().unwrap().path();
    fs::write(&record, "{}").unwrap();
    fs::create_dir(project.store().join("artifacts/mine")).unwrap();
    let (code, report) = json(&project, &["verify", "--json", "--dry-run"]);
    assert_eq!(code, 3);
    let flaws: Vec<_> = report["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|verdict| verdict["faults"][0]["flaw"].as_str().unwrap())
        .collect();
    assert!(
        flaws.contains(&"extra") && flaws.contains(&"missing"),
        "{flaws:?}"
    );
    assert_eq!(
        report["records"][0]["what"],
        "its action record is damaged: the checksum differs"
    );
    assert_eq!(report["foreign"][0], "mine");
}

#[test]
fn verify_chain_follows_an_artifact_to_its_sources() {
    let project = Project::new(100);
    project.run(&[]);
    let verify = |arguments: &[&str]| {
        let output = command(&project, &[&["verify"], arguments].concat())
            .output()
            .unwrap();
        let text = format!(
            "exit {}\n{}{}",
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap()
        );
        steady(&project, &text)
    };
    let whole = verify(&["pipelines/tiny.json", "--chain", "rows"]);
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    let masked: Vec<_> = whole
        .lines()
        .map(|line| {
            let words = line.split(' ').map(|word| {
                let hex = word.len() == 8 && word.chars().all(|c| c.is_ascii_hexdigit());
                if hex { "xxxxxxxx" } else { word }
            });
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    settings.bind(|| insta::assert_snapshot!("chain", masked.join("\n")));
    let corpus = project.path().join("corpus/b.txt");
    let text = fs::read_to_string(&corpus).unwrap();
    fs::write(&corpus, text.replace("hare", "hart")).unwrap();
    let changed = verify(&["pipelines/tiny.json", "--chain", "rows"]);
    assert!(changed.starts_with("exit 2\n"), "{changed}");
    assert!(changed.contains("../corpus/b.txt has changed"), "{changed}");
    fs::remove_file(&corpus).unwrap();
    assert!(verify(&["pipelines/tiny.json", "--chain", "rows"]).contains("../corpus/b.txt is gone"));
    fs::write(&corpus, text).unwrap();
    assert_eq!(verify(&["pipelines/tiny.json", "--chain", "rows"]), whole);

    let output = project.mdlm("show", &["tokens", "--json"]).output().unwrap();
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    let key = record["key_digest"].as_str().unwrap();
    flip(&artifact(&project, "text").join("source.json"));
    let (code, report) = json(
        &project,
        &["verify", "pipelines/tiny.json", "--chain", "rows", "--json"],
    );
    assert_eq!((code, &report["holds"]), (3, &Value::from(false)));
    let fault = report["links"][2]["faults"][0].as_str().unwrap();
    assert_eq!(
        fault,
        "the artifact differs from its record: `source.json` has other content"
    );
    assert!(artifact(&project, "text").is_dir(), "a chain moves nothing");
    fs::remove_file(project.store().join(format!("actions/tokenize/{key}.json"))).unwrap();
    let broken = verify(&["pipelines/tiny.json", "--chain", "rows"]);
    assert!(broken.starts_with("exit 3\n"), "{broken}");
    let gone = "the record of `tokens`, which made its `from`, is not in the store";
    let words: Vec<_> = broken.split_whitespace().collect();
    assert!(words.join(" ").contains(gone), "{broken}");

    let unknown = verify(&["pipelines/tiny.json", "--chain", "row"]);
    assert!(
        unknown.starts_with("exit 2\n") && unknown.contains("did you mean `rows`?"),
        "{unknown}"
    );
    let none = verify(&["--chain", "rows"]);
    assert!(none.contains("`--chain` takes one manifest and got 0"), "{none}");
}

#[test]
fn gc_keeps_artifacts_of_manifests_and_of_the_last_runs() {
    let project = Project::new(100);
    project.run(&["--set", "stages.tokens.tokenizer.vocabulary_size=300"]);
    project.run(&["--set", "stages.tokens.tokenizer.vocabulary_size=310"]);
    let last = project.run(&[]);
    let (_, before) = json(&project, &["status", "--json"]);
    let (code, would) = json(&project, &["gc", "--last", "1", "--dry-run", "--json"]);
    assert_eq!(code, 0);
    assert_eq!(
        json(&project, &["status", "--json"]).1,
        before,
        "a dry run deletes nothing"
    );
    let artifacts = |report: &Value| {
        let items = report["deleted"].as_array().unwrap().iter();
        items.filter(|item| item["sort"] == "artifact").count()
    };
    assert_eq!(artifacts(&would), 4, "{would}");
    assert_eq!(
        artifacts(&json(&project, &["gc", "--dry-run", "--json", "--last", "2"]).1),
        2
    );
    assert_eq!(
        artifacts(&json(&project, &["gc", "--dry-run", "--json", "--last", "3"]).1),
        0
    );

    let output = transcript(&mut command(
        &project,
        &["gc", "pipelines/tiny.json", "--dry-run"],
    ));
    assert!(
        output.contains("\nwould delete 4 artifacts, 4 action records: "),
        "{output}"
    );
    let (_, did) = json(&project, &["gc", "--last", "1", "--json"]);
    assert_eq!(did["deleted"], would["deleted"]);
    assert_eq!(did["left"], serde_json::json!([]));
    let (_, after) = json(&project, &["status", "--json"]);
    let of = |report: &Value, sorts: &[&str]| -> u64 {
        let sizes = report["sizes"].as_array().unwrap().iter();
        let sizes = sizes.filter(|size| sorts.contains(&size["sort"].as_str().unwrap()));
        sizes.map(|size| size["bytes"].as_u64().unwrap()).sum()
    };
    let freed = |sorts: &[&str]| of(&before, sorts) - of(&after, sorts);
    assert_eq!(Some(freed(&["artifact", "record"])), did["bytes"].as_u64());
    assert_eq!(after["reclaimable"], 0);
    let summary = project.run(&[]);
    assert_eq!(
        Project::statuses(&summary),
        "text: cached, tokens: cached, rows: cached"
    );
    assert_eq!(Project::artifacts(&summary), Project::artifacts(&last));
    assert_eq!(json(&project, &["verify", "--json"]).0, 0);

    // Of a stage that has yet to run, what it made last stays: behind it nothing is known.
    let manifest = project.path().join("pipelines/tiny.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("320", "330")).unwrap();
    assert_eq!(
        artifacts(&json(&project, &["gc", "pipelines/tiny.json", "--json"]).1),
        0
    );
    // Another pipeline's manifest reaches none of it.
    fs::write(
        project.path().join("pipelines/other.json"),
        text.replace("tiny", "other").replace("corpus/*", "corpus/a"),
    )
    .unwrap();
    let (_, did) = json(&project, &["gc", "pipelines/other.json", "--json"]);
    let sorts: Vec<_> = did["deleted"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["sort"].as_str().unwrap())
        .collect();
    assert_eq!(
        sorts,
        ["artifact", "artifact", "artifact", "record", "record", "record"]
    );
    insta::assert_snapshot!(transcript(&mut command(&project, &["gc", "pipelines/other.json"])), @r"
    exit 0
    --- stdout
    --- stderr
    deleted nothing from .mdlm
    ");
    insta::assert_snapshot!(transcript(&mut command(&project, &["gc"])), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to delete unused artifacts: choose what to keep: neither a manifest nor `--last` is given
    hint: name the manifests whose results are wanted, `mdlm gc pipelines/*.json`, or keep those of the last runs, `mdlm gc --last 5`; `--dry-run` deletes nothing
    ");
    // What a manifest that cannot be planned reaches is not known: nothing is deleted.
    fs::write(
        project.path().join("pipelines/broken.json"),
        text.replace("../corpus", "../nowhere"),
    )
    .unwrap();
    let refused = transcript(&mut command(&project, &["gc", "pipelines/broken.json"]));
    assert!(
        refused.starts_with("exit 2") && refused.contains("no file matches"),
        "{refused}"
    );
}

/// Both say what stays: what either of them does not want, goes.
#[test]
fn gc_and_status_count_scratch_checkpoints_and_quarantine() {
    let project = Project::whole(60);
    let keep = "stages.model.keep_checkpoints={\"every\": 10}";
    project.run(&["--set", keep]);
    project.run(&["--set", keep, "--set", "stages.model.dropout=0.2"]);
    let groups = || fs::read_dir(project.store().join("checkpoints")).unwrap().count();
    assert_eq!(groups(), 2);
    let scratch = project.store().join("work").join("ab".repeat(32));
    fs::create_dir_all(&scratch).unwrap();
    fs::write(scratch.join("half"), "way").unwrap();
    flip(&artifact(&project, "rows").join("rows.json"));
    assert_eq!(json(&project, &["verify", "--json"]).0, 3);
    project.run(&[]);
    // With the last run: scratch is younger than it is.
    let sorts = |arguments: &[&str]| {
        let (code, report) = json(&project, &[&["gc", "--json"], arguments].concat());
        assert_eq!((code, &report["left"]), (0, &serde_json::json!([])), "{report}");
        let mut sorts: Vec<_> = report["deleted"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["sort"].as_str().unwrap().to_owned())
            .collect();
        sorts.sort();
        sorts.dedup();
        sorts.join(" ")
    };
    let all = "artifact checkpoints quarantine record scratch";
    assert_eq!(sorts(&["pipelines/tiny.json", "--dry-run"]), all);
    assert_eq!(sorts(&["pipelines/tiny.json"]), all);
    assert_eq!(
        groups(),
        1,
        "the checkpoints from which the trained model could resume stay"
    );
    assert_eq!(sorts(&["pipelines/tiny.json"]), "");
    let summary = project.run(&["--set", keep, "--set", "stages.model.steps=40"]);
    let figure = summary["stages"][3]["figures"]["steps"].as_str().unwrap();
    assert_eq!(figure, "40 (from 30 on)");
}

/// Everything of a pipeline is deleted again and again while it runs: what it uses stays, and it ends as if nothing
/// had been.
#[test]
fn gc_and_verify_never_race_a_run() {
    let project = Project::whole(100);
    let expected = project.run(&["--store", "undisturbed"]);
    let text = fs::read_to_string(project.path().join("pipelines/tiny.json")).unwrap();
    let other = text.replace("tiny", "other").replace("corpus/*", "corpus/a");
    fs::write(project.path().join("pipelines/other.json"), other).unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_mdlm"))
        .current_dir(project.path())
        .args(["run", "pipelines/tiny.json", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let since = Instant::now();
    let mut rounds = 0;
    let mut left = 0;
    while run.try_wait().unwrap().is_none() && since.elapsed() < Duration::from_secs(60) {
        if !project.store().join("version").exists() {
            continue;
        }
        let (code, report) = json(&project, &["gc", "pipelines/other.json", "--json"]);
        assert_eq!(code, 0);
        left += report["left"].as_array().unwrap().len();
        let (code, report) = json(&project, &["verify", "--json"]);
        assert_eq!(code, 0, "{report}");
        rounds += 1;
    }
    let output = run.wait_with_output().unwrap();
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success(), "{summary}");
    assert!(rounds > 0 && left > 0, "{rounds} rounds, {left} left");
    assert_eq!(Project::artifacts(&summary), Project::artifacts(&expected));
}

#[test]
fn status_lists_sizes_by_kind() {
    let project = Project::new(50);
    let nothing = transcript(&mut command(&project, &["status"]));
    assert!(nothing.contains("there is no store `"), "{nothing}");
    project.run(&[]);
    let output = command(&project, &["status"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for kind in [
        "artifacts of source",
        "artifacts of tokenize",
        "artifacts of pack",
        "action records",
        "reports",
    ] {
        assert!(
            text.lines().any(|line| line.starts_with(kind)),
            "{kind} in\n{text}"
        );
    }
    let (code, report) = json(&project, &["status", "pipelines/tiny.json", "--json"]);
    assert_eq!(code, 0);
    let sizes = report["sizes"].as_array().unwrap();
    let pack = sizes.iter().find(|size| size["kind"] == "pack").unwrap();
    let bytes: u64 = fs::read_dir(artifact(&project, "rows"))
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                fs::read_dir(path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path())
                    .collect()
            } else {
                vec![path]
            }
        })
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert_eq!(
        (pack["count"].as_u64(), pack["bytes"].as_u64()),
        (Some(1), Some(bytes))
    );
    assert!(pack["oldest"].as_str().unwrap().starts_with("20"));
}

#[test]
fn explain_shows_the_key_and_the_history() {
    let project = Project::new(60);
    let explain = || {
        let output = project.mdlm("explain", &["tokens"]).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let first = explain();
    assert!(
        first.contains("will run: never ran") && first.contains("not known until its inputs are made"),
        "{first}"
    );
    assert!(first.contains("it has never run"), "{first}");
    let one = project.run(&["--set", "stages.tokens.tokenizer.vocabulary_size=300"]);
    let file = project.path().join("corpus/b.txt");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("hare", "hart")).unwrap();
    let two = project.run(&[]);
    let explained = explain();
    let words = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    let digest = |run: &Value| run["stages"][1]["artifact"].as_str().unwrap()[..8].to_owned();
    for part in [
        format!("now cached: served by artifact {}", digest(&two)),
        "kind tokenize, version ".to_owned(),
        "tokenizer.vocabulary_size 320".to_owned(),
        format!(
            "from text {}",
            &two["stages"][0]["artifact"].as_str().unwrap()[..8]
        ),
        "`tokenizer.vocabulary_size` 300 → 320; `text` has other content".to_owned(),
        digest(&one),
        "first run".to_owned(),
    ] {
        assert!(words.contains(&part), "{part} in\n{explained}");
    }
    let (code, report) = json(&project, &["explain", "pipelines/tiny.json", "text", "--json"]);
    assert_eq!(code, 0);
    let history = report["history"].as_array().unwrap();
    assert_eq!(history.len(), 2);
    assert_eq!(history[1]["changes"][0]["text"], "`../corpus/b.txt` changed");
    assert_eq!(history[1]["key"], report["key"]);
    assert_eq!(report["served_by"]["artifact"], two["stages"][0]["artifact"]);
    for field in ["host", "version", "started", "seconds", "threads", "device"] {
        assert!(!history[0][field].is_null(), "{field}");
    }
    insta::assert_snapshot!(transcript(&mut project.mdlm("explain", &["token"])), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to explain stage `token`: `tiny` has no stage `token`
    hint: did you mean `tokens`?
    ");
}

#[test]
fn gc_deletes_downloads_only_when_asked() {
    let project = Project::new(20);
    project.run(&[]);
    let downloads = project.store().join("downloads");
    fs::create_dir_all(downloads.join("index")).unwrap();
    let mut files = Vec::new();
    for (name, sha256, content) in [
        (
            "a*b.txt",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "abc",
        ),
        (
            "a.b.txt",
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            "hello",
        ),
    ] {
        let url = format!("https://example.org/{name}");
        let index = serde_json::json!({ "url": url, "pinned": false,
            "files": [{ "url": url, "sha256": sha256, "bytes": content.len() }] });
        let key = format!("index/{}.json", &sha256[..32]);
        fs::write(downloads.join(key), index.to_string()).unwrap();
        let folder = downloads.join("sha256").join(&sha256[..2]);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(sha256), content).unwrap();
        files.push(folder.join(sha256));
    }
    let manifest = serde_json::json!({ "name": "remote", "seed": 1, "stages": { "text": { "kind": "source", "input": {
        "kind": "download", "files": [{ "url": "https://example.org/a.b.txt", "unpinned": true }],
        "read": { "format": { "kind": "text" } } } } } });
    fs::write(project.path().join("pipelines/remote.json"), manifest.to_string()).unwrap();
    let both = ["gc", "pipelines/tiny.json", "pipelines/remote.json", "--json"];
    let deleted = |arguments: &[&str]| {
        let (code, report) = json(&project, arguments);
        assert_eq!(code, 0);
        let items = report["deleted"].as_array().unwrap().clone();
        let printed = |item: &Value| {
            (
                item["made_by"].as_str().unwrap().to_owned(),
                item["bytes"].as_u64().unwrap(),
            )
        };
        items.iter().map(printed).collect::<Vec<_>>()
    };
    assert_eq!(deleted(&both), []);
    let unnamed = [("https://example.org/a*b.txt".to_owned(), 3)];
    assert_eq!(
        deleted(&[&both[..], &["--downloads", "--dry-run"]].concat()),
        unnamed
    );
    assert!(files[0].exists());
    // The URL is no glob: what it would match stays.
    assert_eq!(deleted(&[&both[..], &["--downloads"]].concat()), unnamed);
    assert!(!files[0].exists() && files[1].exists());
    let alone = deleted(&["gc", "pipelines/tiny.json", "--json", "--downloads"]);
    assert_eq!(alone, [("https://example.org/a.b.txt".to_owned(), 5)]);
    assert!(!files[1].exists());
}
