//! The command line as a whole: exit codes, colours, completions, variables of the environment, numbers in messages.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Project, mdlm, printed, transcript};

#[test]
fn help_is_shown_without_a_command_and_the_exit_code_is_2() {
    let output = mdlm().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let help = String::from_utf8(output.stderr).unwrap();
    assert!(help.contains("Usage: mdlm"), "{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
}

#[test]
fn unknown_command_is_an_error_with_the_nearest_command() {
    insta::assert_snapshot!(transcript(mdlm().arg("completion")), @r"
    exit 2
    --- stdout
    --- stderr
    error: there is no command `completion`
    hint: did you mean `mdlm completions`?
    ");
}

#[test]
fn color_option_decides_over_the_terminal() {
    let stderr =
        |arguments: &[&str]| String::from_utf8(mdlm().args(arguments).output().unwrap().stderr).unwrap();
    assert!(stderr(&["--color", "always", "frobnicate"]).contains('\x1b'));
    assert!(!stderr(&["--color", "never", "frobnicate"]).contains('\x1b'));
    assert!(!stderr(&["frobnicate"]).contains('\x1b'));
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = mdlm().args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        assert!(
            String::from_utf8(output.stdout).unwrap().contains("completions"),
            "{shell}"
        );
    }
}

/// The help of every command, in full and in short, fits a terminal of 80 columns; the two that are read most are
/// held word for word.
#[test]
fn help_of_every_command_fits_80_columns() {
    let help = |arguments: &[&str]| {
        let output = mdlm().args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let overview = help(&["--help"]);
    let listed = overview
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let commands: Vec<_> = listed
        .lines()
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert!(
        commands.contains(&"run") && commands.contains(&"plan"),
        "{commands:?}"
    );
    for command in &commands {
        for text in [help(&[command, "--help"]), help(&[command, "-h"])] {
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{command}: {line:?}");
            }
        }
    }
    insta::assert_snapshot!("help", overview);
    insta::assert_snapshot!("help_run", help(&["run", "--help"]));
    insta::assert_snapshot!("help_plan_short", help(&["plan", "-h"]));
}

/// A GPU's memory is shown without one: more for more rows, less in bf16, and it adds up.
#[test]
fn shapes_show_the_memory_of_a_gpu_on_a_machine_without_one() {
    let printed = |precision: &str| -> Vec<serde_json::Value> {
        let arguments = ["shapes", "--device", "cuda", "--precision", precision, "--json"];
        let output = mdlm().args(arguments).output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (bf16, f32) = (printed("bf16"), printed("f32"));
    let number = |line: &serde_json::Value, field: &str| line[field].as_u64().unwrap();
    for (line, wide) in bf16.iter().zip(&f32) {
        let parts = ["kept_bytes", "feed_bytes", "arena_bytes"].map(|field| number(line, field));
        assert_eq!(parts.iter().sum::<u64>(), number(line, "total_bytes"));
        assert!(
            number(line, "arena_bytes") < number(wide, "arena_bytes"),
            "{line}"
        );
        // The working copy in bf16 is kept beside the masters.
        assert!(number(line, "kept_bytes") > number(wide, "kept_bytes"), "{line}");
    }
    for rows in bf16.chunks(4) {
        assert!(
            rows.is_sorted_by_key(|line| number(line, "total_bytes")),
            "{rows:?}"
        );
    }
    let table = mdlm().args(["shapes", "--device", "cuda"]).output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(table.contains("lm1b-small"), "{table}");
}

#[test]
fn environment_variables_replace_absent_options() {
    let project = Project::new(60);
    let stored = |folder: &str| project.path().join(folder).join("artifacts").is_dir();
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        printed(project.mdlm("run", arguments).envs(variables.iter().copied()))
    };
    let (code, _, talk) = run(
        &["--target", "text"],
        &[("MDLM_STORE", "here"), ("MDLM_THREADS", "1"), ("MDLM_JOBS", "2")],
    );
    assert_eq!(code, Some(0), "{talk}");
    assert!(stored("here") && !stored(".mdlm"));
    let variables = [("MDLM_STORE", "here")];
    for line in [
        "path pipelines/tiny.json text",
        "status",
        "verify",
        "downloads",
        "status pipelines/tiny.json",
    ] {
        let (code, out, talk) = printed(
            mdlm()
                .current_dir(project.path())
                .args(line.split(' '))
                .envs(variables),
        );
        assert_eq!(code, Some(0), "{line}: {talk}");
        let shown = out + &talk;
        assert!(shown.contains("here") || line == "verify", "{line}: {shown}");
    }
    // A flag wins, and an empty variable is none.
    let empty = [("MDLM_STORE", "never"), ("MDLM_THREADS", ""), ("MDLM_JOBS", "")];
    let (code, _, talk) = run(
        &["--target", "text", "--store", "there", "--threads", "2"],
        &empty,
    );
    assert_eq!(code, Some(0), "{talk}");
    assert!(stored("there") && !stored("never"));
    let show = ["text", "--json", "--store", "there"];
    let shown: Value = serde_json::from_slice(&project.mdlm("show", &show).output().unwrap().stdout).unwrap();
    assert_eq!(shown["provenance"]["threads"], 2);
    let show = ["text", "--json", "--store", "here"];
    let shown: Value = serde_json::from_slice(&project.mdlm("show", &show).output().unwrap().stdout).unwrap();
    assert_eq!(shown["provenance"]["threads"], 1);
    for (name, value) in [
        ("MDLM_THREADS", "many"),
        ("MDLM_THREADS", "0"),
        ("MDLM_JOBS", "-1"),
        ("MDLM_JOBS", "99999"),
    ] {
        let (code, _, talk) = run(&[], &[(name, value)]);
        assert_eq!(code, Some(2), "{talk}");
        let message = format!("read {name}: `{value}` is not a whole number from 1 to 1024");
        assert!(talk.contains(&message), "{talk}");
    }
    // A flag wins over a bad value too.
    let (code, _, talk) = run(&["--threads", "1"], &[("MDLM_THREADS", "many")]);
    assert_eq!(code, Some(0), "{talk}");
}

/// One record, one file, one row: a count of one has its noun in the singular.
#[test]
fn messages_use_the_singular_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "a.txt",
        &("one two three four five six seven eight ".repeat(300) + "\n"),
    );
    write("bad.txt", "a\n\u{feff}b\0\n");
    let manifest = json!({ "name": "one", "seed": 1, "stages": {
        "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt"] } },
        "bad": { "kind": "source", "input": { "kind": "files", "files": ["bad.txt"] } },
        "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "train_bpe", "vocabulary_size": 300 } },
        "rows": { "kind": "pack", "from": "tokens", "length": 32, "wrap": false },
    } });
    write("m.json", &manifest.to_string());
    let call = |arguments: &[&str]| {
        let mut command = mdlm();
        let (code, output, talk) = printed(command.current_dir(folder.path()).args(arguments));
        assert_eq!(code, Some(0), "{arguments:?}: {output}{talk}");
        output + &talk
    };
    let mut all = String::new();
    for arguments in [
        &["run", "m.json", "--threads", "1"][..],
        &["plan", "m.json", "--target", "text"],
        &["show", "m.json", "rows"],
        &["data", "m.json", "text"],
        &["data", "m.json", "tokens"],
        &["verify", "m.json"],
        &["status", "m.json"],
        &["init", "m", "--files", "a.txt"],
    ] {
        all += &call(arguments);
    }
    assert!(all.contains("1 file, "), "{all}");
    assert!(all.contains(" in 1 record: "), "{all}");
    assert!(all.contains("one: 1 stage, all cached"), "{all}");
    assert!(all.contains("1 thread"), "{all}");
    for line in all.lines() {
        let words: Vec<&str> = line
            .split(|c: char| !c.is_alphanumeric() && c != '.' && c != ',')
            .collect();
        for pair in words.windows(2) {
            let is_plural = pair[1].len() > 3 && pair[1].ends_with('s') && !pair[1].ends_with("ss");
            assert!(pair[0] != "1" || !is_plural, "{line}\n{all}");
        }
    }
}
