//! The pages: their commands run, exist and have the options that they are given; their links lead somewhere; their output
//! is current.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::Value;

use super::support::{copy_folder, mdlm};

const README: &str = "README.md";
/// The user's guide.
const GUIDE: &str = "pipelines/README.md";
/// Generated from the descriptions of fields, whose examples are of other programs and projects.
const FIELDS: &str = "schemas/README.md";
const PAGES: [&str; 8] = [
    README,
    GUIDE,
    FIELDS,
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "data/README.md",
    "tests/README.md",
    "tests/bench/gpu-floor.md",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The blocks of a page that are marked with a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    let blocks = page.split(start.as_str()).skip(1);
    blocks
        .filter_map(|block| block.split("```").next())
        .map(str::to_owned)
        .collect()
}

/// The commands of README's `sh` blocks, one a line.
fn commands() -> Vec<String> {
    let blocks = blocks(&page(README), "sh");
    let lines = blocks.iter().flat_map(|block| block.lines());
    lines.map(str::to_owned).collect()
}

/// Lines of code blocks, and code within lines.
fn code(page: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if inside {
            found.push(line);
        } else {
            found.extend(line.split('`').skip(1).step_by(2));
        }
    }
    found
}

/// Whether a summary contradicts itself: a stage that is both `done` and `never ran`.
fn contradicts(summary: &str) -> bool {
    let mut lines = summary.lines();
    lines.any(|line| line.split_whitespace().nth(1) == Some("done") && line.contains("never ran"))
}

/// Makes the pipelines of the commands short: the same stages with fewer steps and samples.
const SHORT: [&str; 5] = [
    "stages.model.steps=20",
    "stages.model.warmup_steps=2",
    "stages.samples.count=2",
    "stages.samples.steps=8",
    "stages.bound.draws=1",
];
/// The same for the text of the quickstart, which is sampled.
const SHORT_TEXT: &str = "stages.text.input.records=3000";

#[test]
fn readme_commands_run() {
    let folder = tempfile::tempdir().expect("make a folder");
    for part in ["pipelines", "data", "schemas"] {
        copy_folder(&root().join(part), &folder.path().join(part));
    }
    // Text of the reader's.
    let texts = folder.path().join("texts");
    fs::create_dir(&texts).expect("make a folder");
    let line = |n: usize| {
        format!(
            "The {} hares of day {n} met {} foxes.\n",
            n * 31 % 7,
            n * 7919 % 101
        )
    };
    fs::write(texts.join("a.txt"), (0..2000).map(line).collect::<String>()).expect("write a file");

    let commands = commands();
    assert!(commands.len() >= 7, "{commands:?}");
    for command in commands {
        if command == "cargo test" || command == "cargo install --locked --path ." {
            continue; // The first is what runs this, the second a build.
        }
        let plain = command.replace('\'', "");
        let words: Vec<&str> = plain.split_whitespace().collect();
        let arguments = words
            .strip_prefix(&["cargo", "run", "--release", "--"])
            .or_else(|| words.strip_prefix(&["mdlm"]))
            .unwrap_or_else(|| panic!("README has a command that this test cannot run: {command}"));
        let of_quickstart = arguments.contains(&"pipelines/quickstart.json");
        let mut run = mdlm();
        run.current_dir(folder.path()).args(arguments);
        if matches!(arguments[0], "run" | "plan" | "report") {
            let text = of_quickstart.then_some(&SHORT_TEXT);
            run.args(SHORT.iter().chain(text).flat_map(|field| ["--set", field]));
        }
        let output = run.output().expect("start mdlm");
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}\n{talk}");
        if arguments[0] == "run" {
            assert!(talk.contains("done") && !contradicts(&talk), "{talk}");
        }
        if arguments[0] == "run" && of_quickstart {
            assert!(talk.contains("entropy") && talk.contains("grammatical"), "{talk}");
            assert!(folder.path().join(".mdlm/reports/quickstart.html").is_file());
        }
        if arguments[0] == "report" {
            let report = String::from_utf8_lossy(&output.stdout);
            assert!(folder.path().join(report.trim()).is_file(), "{report}");
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

/// The output on the pages states the units of its numbers, as the program does.
#[test]
fn readme_output_states_its_units() {
    let outputs = [blocks(&page(README), "text"), blocks(&page(GUIDE), "text")].concat();
    let with = |words: &str| {
        let found = outputs.iter().find(|output| output.contains(words));
        found.map_or_else(
            || panic!("no page has output with {words:?}"),
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
    let output = mdlm()
        .current_dir(folder.path())
        .arg("run")
        .arg(root().join("pipelines/quickstart.json"))
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
    let readme = blocks(&page(README), "text").join("\n");
    let readme = readme.split_whitespace().collect::<Vec<_>>().join(" ");
    for name in ["text", "tokens", "rows"] {
        let line = line(name);
        assert!(readme.contains(&line), "README's `{name}` is not {line}");
    }
    assert!(line("rows").contains("padding"), "{}", line("rows"));
}

#[test]
fn readme_is_short() {
    let lines = page(README).lines().count();
    assert!(
        lines <= 160,
        "{lines} lines: the reference belongs to the pages that README names"
    );
}

/// The help of every command, by its name.
fn help() -> BTreeMap<String, String> {
    let printed = |arguments: &[&str]| {
        let output = mdlm().args(arguments).arg("--help").output().expect("start mdlm");
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let whole = printed(&[]);
    let commands = whole
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    let help: BTreeMap<_, _> = commands
        .map(|command| (command.to_owned(), printed(&[command])))
        .collect();
    assert!(help.len() >= 10, "{whole}");
    help
}

#[test]
fn readme_commands_are_listed_in_the_guide() {
    let guide = page(GUIDE);
    for command in help().keys() {
        assert!(
            guide.contains(&format!("| `mdlm {command}")),
            "the table of {GUIDE} lacks `mdlm {command}`"
        );
    }
}

/// Every command and option of mdlm that a page names.
#[test]
fn readme_pages_name_commands_and_options_that_exist() {
    let help = help();
    let has = |help: &str, option: &str| {
        let mut after = help.split(option).skip(1);
        after.any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
    };
    let option = |word: &str| {
        let name: String = word
            .chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '-')
            .collect();
        (word.starts_with("--") && name.len() > 2).then_some(name)
    };
    let mut checked = 0;
    for name in PAGES {
        let page = page(name);
        // The change log names what was.
        for code in code(&page).into_iter().filter(|_| name != "CHANGELOG.md") {
            let code = code
                .replace("cargo run --release -- ", "mdlm ")
                .replace("cargo run --quiet -- ", "mdlm ");
            if let Some(option) = code.split_whitespace().next().and_then(option)
                && name != FIELDS
            {
                assert!(help.values().any(|help| has(help, &option)), "{name}: `{code}`");
            }
            let Some((before, call)) = code.split_once("mdlm ") else {
                continue;
            };
            // A word that ends in it, or a line of output.
            if !before.is_empty() && !before.ends_with(' ') {
                continue;
            }
            let mut words = call
                .split_whitespace()
                .take_while(|word| !matches!(*word, "|" | ">" | "#"));
            let Some(command) = words
                .next()
                .filter(|word| word.chars().all(|c| c.is_ascii_lowercase()))
            else {
                continue;
            };
            let help = help
                .get(command)
                .unwrap_or_else(|| panic!("{name}: no command `{command}`: {code}"));
            for option in words.filter_map(option) {
                assert!(
                    has(help, &option),
                    "{name}: `mdlm {command}` has no {option}: {code}"
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 60, "{checked}");
}

/// The anchor of a heading: its letters, digits, `-` and `_`, small, with `-` for a space.
fn anchor(heading: &str) -> String {
    let kept = heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[test]
fn readme_pages_link_to_files_and_headings_that_exist() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let path = Regex::new(r"^(src|tests|pipelines|schemas|data|\.ci|\.github)/[a-z0-9_./-]+$").unwrap();
    let mut links = 0;
    for name in PAGES {
        let text = page(name);
        let folder = root().join(name).parent().map(Path::to_owned).unwrap();
        for found in link.captures_iter(&text) {
            let target = &found[1];
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() {
                root().join(name)
            } else {
                folder.join(file)
            };
            assert!(file.exists(), "{name}: {target}");
            if !heading.is_empty() {
                let to = fs::read_to_string(&file).unwrap();
                let mut headings = to.lines().filter(|line| line.starts_with('#'));
                assert!(headings.any(|line| anchor(line) == heading), "{name}: {target}");
            }
        }
        if name != "CHANGELOG.md" && name != FIELDS {
            for path in code(&text).into_iter().filter(|code| path.is_match(code)) {
                assert!(root().join(path).exists(), "{name}: {path}");
            }
        }
    }
    assert!(links > 100, "{links}");
}

/// Variables of the environment that the pages name are read by the code.
#[test]
fn readme_pages_name_variables_that_exist() {
    fn read(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                read(&path, all);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                all.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut code = String::new();
    for folder in ["src", "tests"] {
        read(&root().join(folder), &mut code);
    }
    let variable = Regex::new(r"\bMDLM_[A-Z_]+\b").unwrap();
    for name in PAGES {
        for found in variable.find_iter(&page(name)) {
            let quoted = format!("\"{}\"", found.as_str());
            assert!(code.contains(&quoted), "{name}: {}", found.as_str());
        }
    }
}

#[test]
fn readme_test_command_is_that_of_ci() {
    let script = fs::read_to_string(root().join(".ci/run")).expect("read .ci/run");
    let last = script.lines().rfind(|line| !line.trim().is_empty());
    assert_eq!(last, Some("cargo test"));
    assert!(commands().contains(&"cargo test".to_owned()));
}
