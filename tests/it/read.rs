//! Reading files through the program: what a message says of invalid records, rows and characters, and that the commands of
//! its hints work.

use std::fs;

use serde_json::{Value, json};

use crate::require::require;
use crate::support::mdlm;

/// Runs a source over a file: whether it ended well, what was said, and its records.
fn run(name: &str, content: &[u8], read: &Value) -> (bool, String, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), content).unwrap();
    let source = json!({ "kind": "source", "input": { "kind": "files", "files": [name], "read": read } });
    let manifest = json!({ "name": "tables", "seed": 1, "stages": { "text": source } });
    fs::write(folder.path().join("m.json"), manifest.to_string()).unwrap();
    let call = |arguments: &[&str]| {
        mdlm()
            .current_dir(folder.path())
            .env("COLUMNS", "400")
            .args(arguments)
            .output()
            .unwrap()
    };
    let ran = call(&["run", "m.json"]);
    let said = String::from_utf8_lossy(&ran.stderr).into_owned() + &String::from_utf8_lossy(&ran.stdout);
    if !ran.status.success() {
        assert_eq!(ran.status.code(), Some(2), "{said}");
        return (false, said, vec![]);
    }
    let shown = call(&["data", "m.json", "text", "--json", "--head", "1000"]).stdout;
    let record = |line: &str| {
        serde_json::from_str::<Value>(line).unwrap()["text"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    (
        true,
        said,
        String::from_utf8(shown).unwrap().lines().map(record).collect(),
    )
}

#[test]
fn invalid_utf8_in_every_record_is_an_error_that_names_the_setting() {
    let (well, said, _) = run(
        "a.txt",
        b"caf\xE9\nna\xEFve\n",
        &json!({ "invalid_utf8": "skip" }),
    );
    assert!(
        !well
            && said.contains("2 invalid UTF-8 skipped")
            && said.contains("leave out `\"invalid_utf8\": \"skip\"`"),
        "{said}"
    );
}

#[test]
fn csv_rows_are_not_lost_without_a_message() {
    let csv = |more: Value| {
        let mut format = json!({ "kind": "csv" });
        format
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "format": format })
    };
    let beyond = b"id,text\n1,hello, world, and more\n2,bye\n";
    let (well, said, _) = run("a.csv", beyond, &json!({}));
    assert!(
        !well && said.contains("row 1 (line 2) has 4 values, the header has 2"),
        "{said}"
    );
    let (well, said, records) = run("a.csv", beyond, &csv(json!({ "bad_rows": "skip" })));
    assert!(well && said.contains("bad rows skipped 1"), "{said}");
    assert_eq!(records, ["bye"]);
    let (well, said, _) = run("a.csv", b"id,text\n1,a,b\n", &csv(json!({ "bad_rows": "skip" })));
    assert!(
        !well && said.contains("leave out `\"bad_rows\": \"skip\"`"),
        "{said}"
    );
    let lone = b"note,text\n\"odd,two\nx,three\ny\",four\nz,five\n";
    let (well, said, _) = run("a.csv", lone, &json!({}));
    assert!(
        !well && said.contains("in line 2, column 1") && said.contains("\"quote\": \"none\""),
        "{said}"
    );
    assert_eq!(
        run("a.csv", lone, &csv(json!({ "quote": "none" }))).2,
        ["two", "three", "four", "five"]
    );
    // One honest value of several lines keeps it from being an error, not from a warning.
    let mixed = [&lone[..], b"\"legit\nmulti\",six\n"].concat();
    let (well, said, records) = run("a.csv", &mixed, &json!({}));
    assert!(
        well && said.contains("as whole rows of 2 values too; it begins in line 2, column 1"),
        "{said}"
    );
    assert_eq!(records, ["four", "five", "six"]);
    let other = b"id;text\n1;a, b\n";
    let (well, said, _) = run("a.csv", other, &json!({}));
    assert!(!well && said.contains("`\"delimiter\": \";\"`"), "{said}");
    assert_eq!(run("a.csv", other, &csv(json!({ "delimiter": ";" }))).2, ["a, b"]);
    let (well, said, _) = run("a.csv", other, &csv(json!({ "delimiter": ";;" })));
    assert!(!well && said.contains("expected one ASCII character"), "{said}");
}

#[test]
fn read_warns_of_guesses_about_line_ends_marks_and_paragraphs() {
    let (well, said, records) = run("cr.txt", b"one\rtwo\rthree", &json!({}));
    assert!(
        well && said.contains("each carriage return is read as the end of a line"),
        "{said}"
    );
    assert_eq!(records, ["one", "two", "three"]);
    let marks = "a\n\u{FEFF}b\n";
    let (well, said, records) = run("a.txt", marks.as_bytes(), &json!({}));
    assert!(
        well && said.contains("byte order marks left out 1") && said.contains("at the start of line 2"),
        "{said}"
    );
    assert_eq!(records, ["a", "b"]);
    let paragraph = "The committee met on the first of May in the old hall, which had not been\nopened since the \
         winter, and \
                     it was resolved that the matter of the bridge\nshould be put before the county once more. Mr. Hale \
                     spoke for an hour. No\nvote was taken before the evening, when most of the members had gone, but\nthe \
                     clerk was asked to write to the engineer about the second arch, and\nto have his answer by the end of \
                     the month. The hall was then closed.\n\n";
    let (well, said, records) = run("a.txt", paragraph.repeat(2).as_bytes(), &json!({}));
    assert!(
        well && said.contains("\"record\": \"paragraph\"") && records.len() == 12,
        "{said}"
    );
    let paragraphs = json!({ "format": { "kind": "text", "record": "paragraph" } });
    let (_, said, records) = run("a.txt", paragraph.repeat(2).as_bytes(), &paragraphs);
    assert!(!said.contains("broken at") && records.len() == 2, "{said}");
}

#[test]
fn hint_commands_convert_files_that_can_then_be_read() {
    // As a user would type them; where a program is missing, the rest is tried.
    let convert = |command: &str, name: &str, content: &[u8]| -> Option<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("FILE"), content).unwrap();
        let program = command.split(' ').find(|word| !word.contains('=')).unwrap();
        // The others are on every machine.
        if matches!(program, "iconv" | "jq") {
            let there = std::process::Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .output();
            let is_there = there.is_ok_and(|there| there.status.success());
            let found = is_there
                .then_some(())
                .ok_or(format!("no such program, for {name}"));
            require(program, found)?;
        }
        let done = std::process::Command::new("sh")
            .current_dir(folder.path())
            .args(["-c", command])
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        fs::read(folder.path().join("NEW"))
            .or_else(|_| fs::read(folder.path().join("FILE")))
            .ok()
    };
    let wide: Vec<u8> = "one\ntwo\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let gzip = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"one\ntwo\n").unwrap();
        encoder.finish().unwrap()
    };
    let cases: [(&str, Vec<u8>, Value); 6] = [
        ("a.txt", wide.clone(), json!({})),
        ("a.txt", [&b"\xFF\xFE"[..], &wide].concat(), json!({})),
        ("a.txt.gz", [&gzip[..], b"garbage"].concat(), json!({})),
        (
            "a.jsonl",
            "{\"text\":\"one\"}\n\u{FEFF}{\"text\":\"two\"}\n".into(),
            json!({}),
        ),
        (
            "a.jsonl",
            b"{\"text\":\"one\"}\n{\"text\":\"two\"}\n\0\0\0".to_vec(),
            json!({}),
        ),
        (
            "a.jsonl",
            b"[{\"text\":\"one\"},{\"text\":\"two\"}]".to_vec(),
            json!({}),
        ),
    ];
    for (name, content, read) in cases {
        let (well, said, _) = run(name, &content, &read);
        assert!(!well, "{name}: {said}");
        let hint = said
            .split("hint:")
            .nth(1)
            .unwrap_or_else(|| panic!("no hint: {said}"));
        let commands = ["iconv", "truncate", "LC_ALL", "tr ", "jq"];
        let mut command = hint
            .split('`')
            .find(|part| commands.iter().any(|c| part.starts_with(c)))
            .unwrap()
            .to_owned();
        if !command.contains("FILE") {
            command += " FILE > NEW";
        }
        let Some(new) = convert(&command, name, &content) else {
            continue;
        };
        let (well, said, records) = run(name, &new, &read);
        assert!(well, "{command}: {said}");
        assert_eq!(records, ["one", "two"], "{command}");
    }
}
