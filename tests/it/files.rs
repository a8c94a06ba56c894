//! Which files a manifest stands for, through the program: what globs leave out, what is one file, what is none.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Project, mdlm, printed};

/// A folder with a manifest `m.json` of sources by name, each with its input.
struct Sources(tempfile::TempDir);

impl Sources {
    fn new(inputs: &Value) -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        this.set(inputs);
        this
    }

    fn set(&self, inputs: &Value) {
        let stages: serde_json::Map<String, Value> = inputs
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, input)| {
                let mut input = input.clone();
                input["kind"] = json!("files");
                (name.clone(), json!({ "kind": "source", "input": input }))
            })
            .collect();
        let manifest = json!({ "name": "files", "seed": 1, "stages": stages });
        self.write("m.json", &manifest.to_string());
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn mdlm(&self, arguments: &[&str]) -> Output {
        let mut command = mdlm();
        command.current_dir(self.path()).args(arguments);
        command.output().unwrap()
    }

    /// The summary of a run, and what it said.
    fn run(&self, arguments: &[&str]) -> (Value, String) {
        let output = self.mdlm(&[&["run", "m.json", "--json"], arguments].concat());
        let talk = text(&output.stderr);
        assert!(output.status.success(), "{talk}");
        (serde_json::from_slice(&output.stdout).unwrap(), talk)
    }

    fn records(&self, stage: &str, arguments: &[&str]) -> Vec<String> {
        let output = self.mdlm(&[&["data", "m.json", stage, "--json", "--head", "100"], arguments].concat());
        let record = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            line["text"].as_str().unwrap().to_owned()
        };
        text(&output.stdout).lines().map(record).collect()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The figures of the stage `text` of a summary.
fn figures(summary: &Value) -> &Value {
    let stages = summary["stages"].as_array().unwrap();
    let text = stages.iter().find(|stage| stage["name"] == "text");
    &text.unwrap()["figures"]
}

/// Runs a command that must not wait for anything.
fn at_once(mut command: Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("it waits: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn glob_does_not_match_what_an_earlier_run_has_made() {
    let sources = Sources::new(&json!({ "text": { "files": ["**/*"] } }));
    sources.write("data/a.txt", "one\n");
    sources.write(".ipynb_checkpoints/a-checkpoint.txt", "one\n");
    sources.write(".venv/words.txt", "two\n");
    for store in [&[][..], &["--store", "results"]] {
        let (first, talk) = sources.run(store);
        assert_eq!(sources.records("text", store), ["one"], "{talk}");
        let left_out = figures(&first);
        assert_eq!(left_out["hidden left out"], "1");
        assert_eq!(left_out["system files left out"], "1");
        assert_ne!(left_out["reports and manifests left out"], Value::Null);
        assert!(talk.contains("hidden left out: `.venv/`"), "{talk}");
        let report = sources.mdlm(&[&["report", "m.json", "--output", "report.html"], store].concat());
        assert!(report.status.success(), "{}", text(&report.stderr));
        let (second, _) = sources.run(store);
        assert_eq!(second["stages"][0]["status"], "cached");
        let explained = sources.mdlm(&[&["plan", "m.json", "--exit-code"], store].concat());
        assert_eq!(explained.status.code(), Some(0), "{}", text(&explained.stdout));
    }
    // One that lies among the text and is called as it likes is known by what is in it.
    let (third, talk) = sources.run(&["--force", "text", "--store", "other"]);
    assert_eq!(figures(&third)["stores left out"], "3", "{talk}");
    assert_eq!(figures(&third)["reports and manifests left out"], "2", "{talk}");
    assert!(talk.contains("`results/`"), "{talk}");
}

#[test]
fn exclude_counts_files_and_is_no_reason_to_rerun() {
    let sources = Sources::new(&json!({ "text": { "files": ["*.txt"], "exclude": ["b.txt", "c/*"] } }));
    sources.write("a.txt", "one\n");
    sources.write("b.txt", "two\n");
    let (summary, talk) = sources.run(&[]);
    assert_eq!(sources.records("text", &[]), ["one"]);
    assert_eq!(figures(&summary)["excluded"], "1");
    assert!(
        talk.contains("`exclude` pattern `c/*` matches no file that `files` matches"),
        "{talk}"
    );
    // The same files by other words.
    sources.set(&json!({ "text": { "files": ["a.txt"] } }));
    assert_eq!(sources.run(&[]).0["stages"][0]["status"], "cached");
    sources.set(&json!({ "text": { "files": ["a.txt"], "exclude": ["a**"] } }));
    let validated = sources.mdlm(&["validate", "m.json"]);
    assert!(
        text(&validated.stderr).contains("not a valid glob"),
        "{}",
        text(&validated.stderr)
    );
}

#[test]
fn exclude_leaves_out_members_of_archives_and_counts_them() {
    let input = json!({ "files": ["*.zip", "*.txt"], "exclude": ["b.txt"] });
    let mut excluding = input.clone();
    excluding["read"] = json!({ "exclude": ["d", "*.html"] });
    let sources = Sources::new(&json!({ "text": excluding }));
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/forms/stream.zip");
    fs::copy(archive, sources.path().join("a.zip")).unwrap();
    sources.write("b.txt", "two\n");
    sources.write("c.txt", "three\n");
    let (summary, talk) = sources.run(&[]);
    // The member and the file.
    assert_eq!(figures(&summary)["excluded"], "2", "{talk}");
    assert_eq!(sources.records("text", &[]), ["one", "two", "three"]);
    assert!(
        talk.contains("`exclude` pattern `*.html` matches no member"),
        "{talk}"
    );
    let (summary, talk) = sources.run(&[]);
    assert_eq!(summary["stages"][0]["status"], "cached", "{talk}");
    assert_eq!(figures(&summary)["excluded"], "2", "{talk}");
    // What is excluded from archives changes what is read.
    sources.set(&json!({ "text": input }));
    let (summary, talk) = sources.run(&[]);
    assert_eq!(figures(&summary)["excluded"], "1", "{talk}");
    assert_eq!(sources.records("text", &[]).len(), 15);
}

#[test]
fn exclude_pattern_without_meaning_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let validate = |url: &str, exclude: &str| {
        let manifest = json!({ "name": "files", "seed": 1, "stages": { "text": { "kind": "source", "input": {
            "kind": "download", "files": [{ "url": url, "unpinned": true, "exclude": [exclude] }]
        } } } });
        fs::write(folder.path().join("m.json"), manifest.to_string()).unwrap();
        let mut command = mdlm();
        command.current_dir(folder.path()).args(["validate", "m.json"]);
        text(&command.output().unwrap().stderr)
    };
    for url in [
        "https://example.org/a?b=*",
        "hf://datasets/o/n@main/a.txt",
        "s3://bucket/a.txt",
    ] {
        assert!(
            validate(url, "b").contains("`exclude` has no effect: `url` names a single file"),
            "{url}"
        );
    }
    for url in ["hf://datasets/o/n@main/*.txt", "s3://bucket/**/a?.txt"] {
        assert!(!validate(url, "b").contains("exclude"), "{url}");
        assert!(validate(url, "b**").contains("not a valid glob"), "{url}");
    }
}

#[test]
fn cached_source_reports_the_files_that_are_skipped_now() {
    let run = |sources: &Sources| {
        let (summary, talk) = sources.run(&[]);
        (
            summary["stages"][0]["status"].clone(),
            figures(&summary).clone(),
            talk,
        )
    };
    let sources = Sources::new(&json!({ "text": { "files": ["*.txt", "*.txt"] } }));
    sources.write("a.txt", "one\n");
    let (_, first, talk) = run(&sources);
    assert_eq!(first["repeats left out"], "1", "{talk}");
    sources.set(&json!({ "text": { "files": ["a.txt"] } }));
    let (status, alone, talk) = run(&sources);
    assert_eq!(status, "cached", "{talk}");
    assert_eq!(alone["repeats left out"], Value::Null, "{talk}");
    assert_eq!(alone["records"], first["records"]);
    // What has come since.
    sources.write(".b.txt", "two\n");
    sources.write("c.txt", "three\n");
    sources.set(&json!({ "text": { "files": ["*.txt"], "exclude": ["c.txt"] } }));
    let (status, now, talk) = run(&sources);
    assert_eq!(status, "cached", "{talk}");
    assert_eq!(now["hidden left out"], "1", "{talk}");
    assert_eq!(now["excluded"], "1", "{talk}");
}

#[test]
fn skipped_files_are_the_same_in_show_report_and_summary() {
    let sources = Sources::new(&json!({ "text": { "files": ["*.txt", "*.txt"] } }));
    sources.write("a.txt", "one\n");
    sources.run(&[]);
    sources.write(".b.txt", "two\n");
    sources.write("c.txt", "three\n");
    sources.set(&json!({ "text": { "files": ["*.txt"], "exclude": ["c.txt"] } }));
    // What `show` and the report say before and after a run that serves the source from the store.
    for _ in 0..2 {
        let shown = text(&sources.mdlm(&["show", "m.json", "text"]).stdout);
        let figure = |name: &str| {
            let mut lines = shown.lines().map(str::trim);
            lines.find_map(|line| line.strip_prefix(name).map(|rest| rest.trim().to_owned()))
        };
        assert_eq!(figure("hidden left out").as_deref(), Some("1"), "{shown}");
        assert_eq!(figure("excluded").as_deref(), Some("1"), "{shown}");
        assert_eq!(figure("repeats left out"), None, "{shown}");
        assert_eq!(figure("records").as_deref(), Some("1"), "{shown}");
        let json: Value =
            serde_json::from_slice(&sources.mdlm(&["show", "m.json", "text", "--json"]).stdout).unwrap();
        assert_eq!(json["figures"]["excluded"], "1", "{json}");
        assert_eq!(json["figures"]["repeats left out"], Value::Null, "{json}");
        let report = sources.mdlm(&["report", "m.json", "--output", "report.html"]);
        assert!(report.status.success(), "{}", text(&report.stderr));
        let page = fs::read_to_string(sources.path().join("report.html")).unwrap();
        assert!(
            page.contains("<dt>hidden left out</dt><dd>1</dd>")
                && page.contains("<dt>excluded</dt><dd>1</dd>"),
            "{page}"
        );
        assert!(!page.contains("repeats left out"), "{page}");
        let (summary, _) = sources.run(&[]);
        assert_eq!(summary["stages"][0]["status"], "cached");
        assert_eq!(figures(&summary)["excluded"], "1");
    }
}

#[test]
fn file_of_two_names_is_read_once_with_a_note() {
    let sources = Sources::new(&json!({
        "text": { "files": ["*.txt", "a.txt", "b-link.txt"] },
        "link": { "files": ["data/**/*.txt"] },
    }));
    sources.write("a.txt", "one\n");
    sources.write("b.txt", "two\n");
    sources.write("data/x.txt", "three\n");
    symlink(".", sources.path().join("data/current")).unwrap();
    symlink("b.txt", sources.path().join("b-link.txt")).unwrap();
    let (summary, talk) = sources.run(&[]);
    assert_eq!(sources.records("text", &[]), ["one", "two"]);
    assert_eq!(sources.records("link", &[]), ["three"]);
    assert!(
        talk.contains("`b-link.txt` is the same file as `b.txt`, and is read once, under that name"),
        "{talk}"
    );
    assert!(talk.contains("repeats left out: `data/current/`"), "{talk}");
    assert_eq!(figures(&summary)["repeats left out"], "2");
}

#[test]
fn pipes_devices_and_dangling_links_are_refused_at_once() {
    let sources = Sources::new(&json!({}));
    let made = Command::new("mkfifo").arg(sources.path().join("p")).status();
    assert!(made.unwrap().success());
    symlink("gone.txt", sources.path().join("l")).unwrap();
    symlink("p", sources.path().join("lp")).unwrap();
    let stages = |path: &str| {
        [
            json!({ "text": { "kind": "source", "input": { "kind": "files", "files": [path] } } }),
            json!({ "text": { "kind": "source", "input": { "kind": "synthetic", "grammar": path, "records": 3 } } }),
            json!({ "text": { "kind": "source", "input": { "kind": "corpus", "corpus": "text8", "files": [path] } } }),
            json!({
                "text": { "kind": "source", "input": { "kind": "files", "files": ["m.json"] } },
                "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "file", "path": path } }
            }),
        ]
    };
    for (path, what) in [
        ("p", "is a named pipe, not a file"),
        ("lp", "is a named pipe, not a file"),
        ("/dev/zero", "is a device, not a file"),
        ("l", "is a symbolic link to `gone.txt`, which does not exist"),
    ] {
        for stages in stages(path) {
            let manifest = json!({ "name": "files", "seed": 1, "stages": stages });
            sources.write("m.json", &manifest.to_string());
            for command in ["plan", "run"] {
                // A corpus by name is known by its checksums: a plan does not look at it.
                if command == "plan" && manifest.to_string().contains("text8") {
                    continue;
                }
                let mut mdlm = Command::new(env!("CARGO_BIN_EXE_mdlm"));
                mdlm.current_dir(sources.path()).args([command, "m.json"]);
                let output = at_once(mdlm);
                let talk = text(&output.stderr);
                assert_eq!(output.status.code(), Some(2), "{command} {manifest}: {talk}");
                assert!(
                    talk.contains(what) && talk.contains("hint: "),
                    "{command} {manifest}: {talk}"
                );
            }
        }
    }
    // A manifest is a file too.
    for command in ["plan", "run", "validate"] {
        let mut mdlm = Command::new(env!("CARGO_BIN_EXE_mdlm"));
        mdlm.current_dir(sources.path()).args([command, "p"]);
        let output = at_once(mdlm);
        let talk = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{talk}");
        assert!(talk.contains("this is a named pipe"), "{talk}");
    }
}

/// Runs `mdlm` with something piped in.
fn piped(sources: &Sources, arguments: &[&str], input: &str) -> Output {
    let mut command = mdlm();
    command
        .current_dir(sources.path())
        .args(arguments)
        .write_stdin(input.to_owned());
    command.output().unwrap()
}

/// Runs `mdlm` with nothing on standard input.
fn alone(sources: &Sources, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mdlm"));
    command
        .current_dir(sources.path())
        .args(arguments)
        .env("MDLM_DEVICE", "cpu");
    at_once(command)
}

#[test]
fn piped_text_is_kept_and_found_again() {
    let sources = Sources::new(&json!({ "text": { "files": ["-", "a.txt"] } }));
    sources.write("a.txt", "file\n");
    // Without a pipe, ever.
    for command in ["plan", "run"] {
        let output = alone(&sources, &[command, "m.json"]);
        let talk = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{talk}");
        assert!(
            talk.contains("`-` is standard input, and nothing is piped into it")
                && talk.contains("mdlm run MANIFEST < FILE"),
            "{talk}"
        );
    }
    let empty = piped(&sources, &["run", "m.json"], "");
    assert_eq!(empty.status.code(), Some(2));
    assert!(text(&empty.stderr).contains("read `-`: no data came through it"));
    // A plan says that the text is piped, and keeps nothing.
    let plan = piped(&sources, &["plan", "m.json", "--exit-code"], "one\ntwo\n");
    assert_eq!(plan.status.code(), Some(10), "{}", text(&plan.stderr));
    let kept = fs::read_dir(sources.path().join(".mdlm/piped")).unwrap().count();
    assert_eq!(kept, 0, "neither of the plan nor of the pipe that was empty");
    let run = piped(&sources, &["run", "m.json"], "one\ntwo\n");
    assert!(run.status.success(), "{}", text(&run.stderr));
    assert_eq!(sources.records("text", &[]), ["one", "two", "file"]);
    // The key names the content: the same text again, and what is known of it without a pipe.
    let plan = piped(&sources, &["plan", "m.json", "--exit-code"], "one\ntwo\n");
    assert_eq!(plan.status.code(), Some(0), "{}", text(&plan.stdout));
    let plan = sources.mdlm(&["plan", "m.json", "--exit-code"]);
    assert_eq!(plan.status.code(), Some(0), "{}", text(&plan.stderr));
    assert!(
        text(&plan.stderr).contains("`text` uses the text that came through `-` in its last run"),
        "{}",
        text(&plan.stderr)
    );
    // Another setting over the same text, which is not piped in again.
    let again = alone(&sources, &["run", "m.json", "--set", "stages.text.limit=1"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    let limited = ["--set", "stages.text.limit=1"];
    assert_eq!(sources.records("text", &limited), ["one"]);
    // Other text is another stage.
    let plan = piped(&sources, &["plan", "m.json", "--exit-code"], "three\n");
    assert_eq!(plan.status.code(), Some(10), "{}", text(&plan.stdout));
    // The store counts it, and keeps it for as long as a record names it.
    let status = sources.mdlm(&["status"]);
    assert!(
        text(&status.stdout).contains("piped text"),
        "{}",
        text(&status.stdout)
    );
    // Gone from the store, it cannot be read again: that is said.
    fs::remove_dir_all(sources.path().join(".mdlm/piped")).unwrap();
    let gone = alone(&sources, &["run", "m.json", "--set", "stages.text.limit=2"]);
    assert_eq!(gone.status.code(), Some(2));
    assert!(
        text(&gone.stderr).contains("nothing is piped into it"),
        "{}",
        text(&gone.stderr)
    );
    assert_eq!(
        sources.records("text", &limited),
        ["one"],
        "what was made is there"
    );
}

#[test]
fn pipes_of_the_shell_are_read() {
    let sources = Sources::new(&json!({ "text": { "files": ["/dev/stdin"] } }));
    sources.write("a.txt", "from a file\n");
    let shell = |line: &str| {
        let output = Command::new("bash")
            .args(["-c", line])
            .current_dir(sources.path())
            .env("MDLM", env!("CARGO_BIN_EXE_mdlm"))
            .env("MDLM_DEVICE", "cpu")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let talk = text(&output.stderr);
        assert!(output.status.success(), "{line}: {talk}");
        text(&output.stdout)
    };
    shell("$MDLM run m.json < a.txt");
    assert_eq!(sources.records("text", &[]), ["from a file"]);
    shell("echo from a command | $MDLM run m.json");
    assert_eq!(sources.records("text", &[]), ["from a command"]);
    shell("$MDLM run m.json --set stages.text.input.files.0=<(echo substituted)");
    shell("mkfifo p; (echo named > p &); $MDLM run m.json --set stages.text.input.files.0=- < p");
    assert_eq!(
        sources.records("text", &["--set", "stages.text.input.files.0=-"]),
        ["named"]
    );
    // The manifest itself may come through one; its paths start at the current folder.
    shell("sed s:/dev/stdin:a.txt: m.json | $MDLM run -");
    shell("$MDLM validate <(cat m.json) && $MDLM plan <(sed s:/dev/stdin:a.txt: m.json) --exit-code");
    let both = piped(
        &sources,
        &["run", "-"],
        &fs::read_to_string(sources.path().join("m.json")).unwrap(),
    );
    assert_eq!(both.status.code(), Some(2));
    assert!(
        text(&both.stderr).contains("is standard input, which the manifest comes from"),
        "{}",
        text(&both.stderr)
    );
}

/// A glob does not skip a file in silence because of its name.
#[cfg(unix)]
#[test]
fn file_name_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt as _;
    let project = Project::new(50);
    let corpus = project.path().join("corpus");
    let name = std::ffi::OsStr::from_bytes(b"c\xFF.txt");
    if crate::require::require("byte-names", fs::write(corpus.join(name), "words\n")).is_none() {
        return;
    }
    let (code, _, talk) = printed(&mut project.mdlm("plan", &[]));
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
    assert_eq!(printed(&mut project.mdlm("plan", &[])).0, Some(0));
}
