//! `mdlm init`: a first manifest for text of one's own.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{mdlm, transcript};

/// Prose of that many lines: words by a rule, so that there is something to learn.
fn prose(lines: usize) -> String {
    let line = |n: usize| {
        let (a, b, c) = (n * 7919 % 101, n * 104_729 % 997, n * 31 % 7);
        format!(
            "on day {a} the {c} hares of the valley met {b} foxes, and word{} was said.\n",
            a * b % 1009
        )
    };
    (0..lines).map(line).collect()
}

fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn init(folder: &Path, arguments: &[&str]) -> assert_cmd::Command {
    let mut command = mdlm();
    command.current_dir(folder).arg("init").args(arguments);
    command
}

fn written(path: impl AsRef<Path>) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn init_writes_a_manifest_for_a_folder_of_texts() {
    let folder = project(&[("texts/a.txt", &prose(2000)), ("texts/b.txt", &prose(100))]);
    insta::assert_snapshot!(
        "init",
        transcript(&mut init(folder.path(), &["poems", "--files", "texts/*.txt"]))
    );
    let text = fs::read_to_string(folder.path().join("poems/poems.json")).unwrap();
    insta::assert_snapshot!("init_manifest", text);
    for command in ["validate", "plan"] {
        mdlm()
            .current_dir(folder.path())
            .args([command, "poems/poems.json"])
            .assert()
            .success();
    }
}

/// Little text, so few steps that a test can wait: what is written runs from text to samples.
#[test]
fn init_writes_a_manifest_that_runs() {
    let folder = project(&[("a.txt", &prose(300))]);
    let output = init(folder.path(), &["--files", "*.txt", "--name", "hares", "--json"])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["manifest"], "hares.json");
    assert_eq!(report["shape"], "nano");
    assert_eq!(report["records"], 300);
    let run = mdlm()
        .current_dir(folder.path())
        .args(["run", "hares.json", "--json", "--set", "stages.model.steps=30"])
        .args([
            "--set",
            "stages.samples.count=2",
            "--set",
            "stages.model.warmup_steps=3",
        ])
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let summary: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(summary["stages"].as_array().unwrap().len(), 6);
}

#[test]
fn init_keeps_an_existing_file() {
    let folder = project(&[("a.txt", &prose(300)), ("p/mine.json", "precious")]);
    let arguments = ["p", "--files", "a.txt", "--name", "mine"];
    let output = init(folder.path(), &arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.contains("already exists") && said.contains("--force"),
        "{said}"
    );
    let path = folder.path().join("p/mine.json");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let output = init(folder.path(), &[&arguments[..], &["--force"]].concat())
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(written(path)["name"], "mine");
}

#[test]
fn init_refuses_text_that_it_cannot_use_with_a_way_out() {
    let folder = project(&[
        ("a.txt", &prose(300)),
        ("short.txt", "not much\n"),
        ("data.json", &"{\"text\": \"some words in a row\"}\n".repeat(400)),
    ]);
    let cases: [(&[&str], &str, &str); 6] = [
        (&[], "no text is named", "--files 'texts/*.txt'"),
        (
            &["--files", "b*.txt"],
            "no file matches `b*.txt`",
            "paths start at",
        ),
        (
            &["--files", "short.txt"],
            "8 bytes of text in 1 file are too little",
            "name more files",
        ),
        (
            &["--files", "a.txt", "short.txt"],
            "`short.txt` is a file",
            "quote globs",
        ),
        (
            &["--files", "a.txt", "--name", "no name"],
            "`no name` cannot be the name of a pipeline",
            "up to 64 letters",
        ),
        (
            &["--files", "*.json"],
            "matches the manifest itself",
            "into another folder",
        ),
    ];
    for (arguments, message, hint) in cases {
        let output = init(folder.path(), arguments).write_stdin("").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(message) && said.contains(hint), "{said}");
    }
    let names = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(names, 3, "nothing was written");
}

#[test]
fn init_states_formats_that_file_names_do_not_state() {
    let json: String = prose(400)
        .lines()
        .flat_map(|line| ["{\"id\": 1, \"body\": \"", line, "\"}\n"])
        .collect();
    let csv: String = prose(400)
        .lines()
        .flat_map(|line| ["1,\"", line, "\"\n"])
        .collect();
    let mut broken = String::new();
    for paragraph in prose(400).lines().collect::<Vec<_>>().chunks(5) {
        let mut column = 0;
        for word in paragraph.join(" ").split(' ') {
            let gap = match column {
                0 => "",
                _ if column + 1 + word.len() > 64 => "\n",
                _ => " ",
            };
            column = if gap == "\n" {
                word.len()
            } else {
                column + gap.len() + word.len()
            };
            broken.push_str(gap);
            broken.push_str(word);
        }
        broken.push_str("\n\n");
    }
    let folder = project(&[
        ("a.jsonl", &json),
        ("b.csv", &format!("id,review\n{csv}")),
        ("c.txt", &broken),
    ]);
    for (file, expected, chosen) in [
        (
            "a.jsonl",
            r#"{"format":{"kind":"json_lines","field":"/body"}}"#,
            "Chosen: the text is at `/body`, since",
        ),
        (
            "b.csv",
            r#"{"format":{"kind":"csv","columns":["review"]}}"#,
            "Chosen: the text is in column `review`, since",
        ),
        (
            "c.txt",
            r#"{"format":{"kind":"text","record":"paragraph"}}"#,
            "Chosen: a record is a paragraph, since",
        ),
    ] {
        let name = &file[..1];
        init(folder.path(), &["m", "--files", file, "--name", name])
            .assert()
            .success();
        let manifest = written(folder.path().join(format!("m/{name}.json")));
        let description = manifest["stages"]["text"]["description"].as_str().unwrap();
        assert!(description.contains(chosen), "{description}");
        let input = &manifest["stages"]["text"]["input"];
        assert_eq!(input["files"][0], format!("../{file}"));
        assert_eq!(input["read"].to_string(), expected);
    }
}

/// Lines of prose broken at so many columns.
fn broken(paragraph: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in paragraph.split(' ') {
        let line = lines.last_mut().unwrap();
        if !line.is_empty() && line.len() + 1 + word.len() > columns {
            lines.push(word.to_owned());
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines
}

#[test]
fn init_gives_the_warnings_of_a_run_and_settings_that_avoid_them() {
    let prose = prose(400);
    let sentences: Vec<&str> = prose.lines().collect();
    let indented: String = (sentences.chunks(5))
        .flat_map(|paragraph| broken(&format!("____{}", paragraph.join(" ")), 64))
        .map(|line| line.replace("____", "    ") + "\n")
        .collect();
    let blank: String = (sentences.chunks(5))
        .flat_map(|paragraph| {
            broken(&format!("____{}", paragraph.join(" ")), 64)
                .into_iter()
                .chain([String::new()])
        })
        .map(|line| line.replace("____", "    ") + "\n")
        .collect();
    let marks = format!("{prose}\u{feff}{prose}");
    let folder = project(&[
        ("indented.txt", &indented),
        ("blank.txt", &blank),
        ("marks.txt", &marks),
    ]);
    let many: Vec<String> = (0..30).map(|index| format!("many/{index}.txt")).collect();
    for (path, sentences) in many.iter().zip(sentences.chunks(13)) {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, broken(&sentences.join(" "), 64).join("\n")).unwrap();
    }
    for (files, record, warning) in [
        (
            "indented.txt",
            None,
            Some("columns; to take each file as a record"),
        ),
        ("blank.txt", Some("paragraph"), None),
        (
            "marks.txt",
            None,
            Some("`marks.txt`: a byte order mark at the start of line 401"),
        ),
        ("many/*.txt", Some("file"), None),
    ] {
        let name = files.split(['.', '/']).next().unwrap();
        let output = init(folder.path(), &["m", "--files", files, "--name", name, "--json"])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let input = &written(folder.path().join(format!("m/{name}.json")))["stages"]["text"]["input"];
        assert_eq!(
            input["read"]["format"]["record"].as_str(),
            record,
            "{files}: {said}"
        );
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let warnings = report["warnings"].as_array().unwrap();
        match warning {
            None => assert!(warnings.is_empty(), "{files}: {said}"),
            Some(warning) => {
                assert!(
                    warnings[0].as_str().unwrap().contains(warning),
                    "{files}: {warnings:?}"
                );
                assert!(
                    said.contains("warning: ") && said.contains(warning),
                    "{files}: {said}"
                );
            }
        }
    }
}

#[test]
fn init_writes_the_schema_when_asked() {
    let folder = project(&[("a.txt", &prose(300))]);
    let output = init(folder.path(), &["m", "--files", "a.txt", "--schema"])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(
        written(folder.path().join("m/m.json"))["$schema"],
        "pipeline.schema.json"
    );
    let check = mdlm()
        .current_dir(folder.path())
        .args(["schema", "--check", "m/pipeline.schema.json"])
        .output()
        .unwrap();
    assert!(check.status.success());
}
