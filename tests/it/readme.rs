//! README's commands run as written, and its output is current.

use std::fs;

use serde_json::Value;

use super::support::mdlm;

/// The commands of README's `sh` blocks, one a line.
fn commands() -> Vec<String> {
    let readme = fs::read_to_string("README.md").expect("read README.md");
    let mut commands = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside && !line.trim().is_empty() => commands.push(line.to_owned()),
            _ => {}
        }
    }
    commands
}

/// README's blocks of output, marked `text`.
fn outputs() -> Vec<String> {
    let readme = fs::read_to_string("README.md").expect("read README.md");
    let blocks = readme.split("```text\n").skip(1);
    blocks
        .filter_map(|block| block.split("```").next())
        .map(str::to_owned)
        .collect()
}

/// Whether a summary contradicts itself: a stage that is both `done` and `never ran`.
fn contradicts(summary: &str) -> bool {
    let mut lines = summary.lines();
    lines.any(|line| line.split_whitespace().nth(1) == Some("done") && line.contains("never ran"))
}

/// Makes the pipeline of the first command short: the same stages with fewer records, steps and samples.
const SHORT: [&str; 6] = [
    "stages.text.input.records=3000",
    "stages.model.steps=20",
    "stages.model.warmup_steps=2",
    "stages.samples.count=2",
    "stages.samples.steps=8",
    "stages.bound.draws=1",
];

#[test]
fn readme_commands_run() {
    let folder = tempfile::tempdir().expect("make a folder");
    for part in ["pipelines", "data", "schemas"] {
        let to = folder.path().join(part);
        fs::create_dir(&to).expect("make a folder");
        for entry in fs::read_dir(part).expect("list a folder") {
            let from = entry.expect("list a folder").path();
            fs::copy(&from, to.join(from.file_name().expect("a name"))).expect("copy a file");
        }
    }
    let commands = commands();
    assert!(commands.len() >= 3, "{commands:?}");
    for command in commands {
        if command == "cargo test" {
            continue; // This is it.
        }
        let words: Vec<&str> = command.split_whitespace().collect();
        let arguments = words
            .strip_prefix(&["cargo", "run", "--release", "--"])
            .or_else(|| words.strip_prefix(&["mdlm"]))
            .unwrap_or_else(|| panic!("README has a command that this test cannot run: {command}"));
        let mut run = mdlm();
        run.current_dir(folder.path()).args(arguments);
        if matches!(arguments[0], "run" | "plan") {
            run.args(SHORT.iter().flat_map(|field| ["--set", field]));
        }
        let output = run.output().expect("start mdlm");
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}\n{talk}");
        if arguments[0] == "run" {
            assert!(talk.contains("entropy") && talk.contains("grammatical"), "{talk}");
            assert!(talk.contains("done") && !contradicts(&talk), "{talk}");
            assert!(folder.path().join(".mdlm/reports/quickstart.html").is_file());
        }
        if arguments[0] == "plan" {
            // As README says, training runs again with a reason, and tokenizing does not.
            let plan = String::from_utf8_lossy(&output.stdout);
            let line = |name| {
                plan.lines()
                    .find(|line| line.starts_with(name))
                    .unwrap_or_default()
            };
            assert!(line("tokens").contains("cached"), "{plan}");
            assert!(line("model").contains("learning_rate"), "{plan}");
        }
    }
}

/// README's output states the units of its numbers, as the program does.
#[test]
fn readme_output_states_its_units() {
    let outputs = outputs();
    let with = |words: &str| {
        let found = outputs.iter().find(|output| output.contains(words));
        found.map_or_else(
            || panic!("README has no output with {words:?}"),
            |output| output.split_whitespace().collect::<Vec<_>>().join(" "),
        )
    };
    for output in &outputs {
        assert!(!contradicts(output), "{output}");
    }
    let quickstart = with("stage    status");
    for words in [
        "nats/position",
        "nats per position, padding included",
        "per position, padding included, perplexity of text",
        "per token of text",
        "bits/byte (exact)",
        "train padding 39.1%, counted",
        "of 128 records",
    ] {
        assert!(quickstart.contains(words), "{words}: {quickstart}");
    }
    let sweep = with("learning_rate  seeds");
    for words in [
        "mean ± sd over seeds",
        "± is the standard deviation of single results",
        "per token of text",
    ] {
        assert!(sweep.contains(words), "{words}: {sweep}");
    }
}

/// README's claims about padding: how much of the quickstart's rows it is, and that it counts.
#[test]
fn readme_padding_is_that_of_the_quickstart() {
    let folder = tempfile::tempdir().expect("make a folder");
    let manifest = fs::canonicalize("pipelines/quickstart.json").expect("find the quickstart");
    let output = mdlm()
        .current_dir(folder.path())
        .arg("run")
        .arg(manifest)
        .args(["--target", "rows", "--json", "--store", "store"])
        .output()
        .expect("start mdlm");
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("a summary");
    let stages = summary["stages"].as_array().expect("stages");
    let line = |name: &str| {
        let stage = stages
            .iter()
            .find(|stage| stage["name"] == name)
            .expect("a stage");
        let figures = stage["figures"].as_object().expect("figures");
        let pairs = figures
            .iter()
            .map(|(name, value)| format!("{name} {}", value.as_str().unwrap_or_default()));
        pairs.collect::<Vec<_>>().join(", ")
    };
    let readme = outputs().join("\n");
    let readme = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    for name in ["text", "tokens", "rows"] {
        let line = line(name);
        assert!(readme.contains(&line), "README's `{name}` is not {line}");
    }
    assert!(line("rows").contains("padding"), "{}", line("rows"));
}

#[test]
fn readme_lists_every_command_and_each_has_help() {
    let readme = fs::read_to_string("README.md").expect("read README.md");
    let help = mdlm().arg("--help").output().expect("start mdlm");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let listed = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    let mut count = 0;
    for command in listed {
        count += 1;
        assert!(
            readme.contains(&format!("| `mdlm {command}")),
            "README's table lacks `mdlm {command}`"
        );
        mdlm().args([command, "--help"]).assert().success();
    }
    assert!(count >= 10, "{help}");
}

#[test]
fn readme_test_command_is_that_of_ci() {
    let script = fs::read_to_string(".ci/run").expect("read .ci/run");
    let last = script.lines().rfind(|line| !line.trim().is_empty());
    assert_eq!(last, Some("cargo test"));
    assert!(commands().contains(&"cargo test".to_owned()));
}
