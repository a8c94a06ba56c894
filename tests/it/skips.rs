//! No test passes silently where something is missing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

use crate::require::{NAMES, is_required, require};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every source below a folder.
fn sources(folder: &Path, all: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            all.push((path, text));
        }
    }
}

#[test]
fn skips_fail_if_what_is_missing_is_required() {
    assert!(!is_required("kit", ""));
    assert!(is_required("kit", "nvrtc, kit"));
    assert!(!is_required("jq", "nvrtc, kit"));
    assert!(is_required("gpu", "all"));
    assert!(!is_required("no-gpu", "all"));
    assert!(is_required("no-gpu", "all,no-gpu"));
    for (name, list) in [("kits", ""), ("kit", "kits")] {
        assert!(std::panic::catch_unwind(|| is_required(name, list)).is_err());
    }
    assert_eq!(require("kit", Ok::<_, String>(3)), Some(3));
}

/// The child process of [`skips_are_reported_past_the_capture_of_output`].
#[test]
#[ignore = "run by `skips_are_reported_past_the_capture_of_output`"]
fn skips_for_a_missing_kit() {
    assert_eq!(require("kit", Err::<(), _>("nowhere")), None);
}

#[test]
fn skips_are_reported_past_the_capture_of_output() {
    let run = |required: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "skips::skips_for_a_missing_kit", "--ignored"])
            .env("MDLM_TEST_REQUIRE", required)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.success(), said)
    };
    let (passed, [_, said]) = run("nvrtc");
    assert!(passed);
    assert!(
        said.starts_with("SKIPPED ") && said.ends_with(": needs `kit`: nowhere\n"),
        "{said}"
    );
    let (passed, [said, _]) = run("all");
    assert!(!passed);
    assert!(
        said.contains("MDLM_TEST_REQUIRE has `kit`, which is missing: nowhere"),
        "{said}"
    );
}

/// A test that prints that it is skipped, and returns, does so by `require`. No test looks beside the repository.
#[test]
fn skips_are_made_by_require_alone() {
    let mut all = Vec::new();
    for folder in ["src", "tests"] {
        sources(&root().join(folder), &mut all);
    }
    let call = Regex::new(r#"require\(\s*"([a-z0-9-]+)""#).unwrap();
    let mut asked = BTreeSet::new();
    for (path, text) in &all {
        if path.ends_with("it/require.rs") || path.ends_with("it/skips.rs") {
            continue;
        }
        let printed = text.lines().find(|line| line.contains("\"skipped: "));
        assert_eq!(printed, None, "{}", path.display());
        assert!(!text.contains("../shared"), "{}", path.display());
        asked.extend(
            call.captures_iter(text)
                .map(|found| found.get(1).unwrap().as_str()),
        );
    }
    // Programs are asked for by a variable.
    let programs = BTreeSet::from(["iconv", "jq", "mpich", "openmpi"]);
    assert_eq!(&asked | &programs, NAMES.into());
}

#[test]
fn skips_and_variables_of_tests_are_documented() {
    let page = fs::read_to_string(root().join("tests/README.md")).unwrap();
    for name in NAMES {
        assert!(
            page.lines()
                .any(|line| line.starts_with('|') && line.contains(&format!("`{name}`"))),
            "{name}"
        );
    }
    let mut all = Vec::new();
    for folder in ["src", "tests"] {
        sources(&root().join(folder), &mut all);
    }
    let in_code = Regex::new(r#""(MDLM_TEST_[A-Z_]+)""#).unwrap();
    let on_page = Regex::new("`(MDLM_TEST_[A-Z_]+)`").unwrap();
    let names = |pattern: &Regex, text: &str| -> BTreeSet<String> {
        pattern
            .captures_iter(text)
            .map(|found| found[1].to_owned())
            .collect()
    };
    let used: BTreeSet<String> = all.iter().flat_map(|(_, text)| names(&in_code, text)).collect();
    assert_eq!(used, names(&on_page, &page));
}

/// What CI installs must not be missing in its tests.
#[test]
fn ci_requires_names_that_tests_ask_for() {
    let script = fs::read_to_string(root().join(".ci/run")).unwrap();
    let required: BTreeSet<&str> = script
        .lines()
        .filter_map(|line| line.trim().strip_prefix("require "))
        .collect();
    for name in &required {
        assert!(NAMES.contains(name), "{name}");
    }
    assert!(required.is_superset(&BTreeSet::from([
        "nvrtc",
        "pyarrow",
        "sarif-schema",
        "transformers"
    ])));
    assert!(script.contains("export MDLM_TEST_REQUIRE"));
}

/// A filter that no test's name has would run nothing, and pass.
#[test]
fn skips_of_the_gpu_script_name_tests() {
    let script = fs::read_to_string(root().join("tests/peers/gpu.sh")).unwrap();
    let of_networks = fs::read_dir(root().join("src/model/tests")).unwrap();
    let tests: Vec<String> = of_networks
        .map(|entry| entry.unwrap().path())
        .chain([root().join("tests/gpu.rs")])
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let list = Regex::new(r"(?:filter|small)=\(([a-z_ ]+)\)").unwrap();
    let filters: Vec<&str> = list
        .captures_iter(&script)
        .flat_map(|found| found.get(1).unwrap().as_str().split(' '))
        .collect();
    assert!(filters.len() >= 3, "{filters:?}");
    for filter in filters {
        let names = tests.iter().flat_map(|test| test.split("fn ").skip(1));
        let mut matches =
            names.filter(|rest| rest.split('(').next().is_some_and(|name| name.contains(filter)));
        assert!(matches.next().is_some(), "{filter}");
    }
}
