//! The command line as a whole: exit codes, colours, completions.

use crate::support::{mdlm, transcript};

#[test]
fn without_a_command_the_help_is_shown_and_the_exit_code_is_the_users() {
    let output = mdlm().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let help = String::from_utf8(output.stderr).unwrap();
    assert!(help.contains("Usage: mdlm"), "{help}");
    assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
}

#[test]
fn an_unknown_command_is_the_users_fault() {
    insta::assert_snapshot!(transcript(mdlm().arg("completion")), @r"
    exit 2
    --- stdout
    --- stderr
    error: there is no command `completion`
    hint: did you mean `mdlm completions`?
    ");
}

#[test]
fn colour_follows_the_option() {
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
fn help_reads_well() {
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
fn the_memory_of_a_gpu_is_shown_without_one() {
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
