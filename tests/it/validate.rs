//! `mdlm validate` for machines: GitHub's workflow commands, SARIF, and the commands of the guide and CI that use them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::require::require;
use crate::support::{mdlm, transcript};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every manifest with faults, by name.
fn broken() -> Vec<String> {
    let mut files: Vec<_> = fs::read_dir(root().join("tests/it/manifests/bad"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| {
            Path::new(name)
                .extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    files.sort();
    assert!(files.len() > 30);
    files
}

#[test]
fn validate_shows_faults_as_workflow_commands() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("a,b")).unwrap();
    let manifest = fs::read_to_string(root().join("pipelines/quickstart.json")).unwrap();
    let broken = manifest.replacen("\"seed\": 1", "\"seed\": 1,\n  \"sede\": 2", 1);
    assert_ne!(manifest, broken);
    fs::write(folder.path().join("a,b/one.json"), broken).unwrap();
    let mut command = mdlm();
    command
        .current_dir(folder.path().join("a,b"))
        .args(["validate", "--format", "github", "one.json", "two.json"])
        .args(["--set", "stages.rows.length=-1"]);
    let from_the_folder = transcript(&mut command);
    let from_the_root = transcript(command.env("GITHUB_WORKSPACE", folder.path()));
    insta::assert_snapshot!(from_the_folder);
    // From the root of the repository, with the comma of its path escaped in properties.
    assert_eq!(
        from_the_root,
        from_the_folder
            .replace("file=", "file=a%2Cb/")
            .replace("::one.json", "::a,b/one.json")
            .replace("::two.json", "::a,b/two.json")
    );

    let valid = ["validate", "--format", "github", "pipelines/text8.json"];
    insta::assert_snapshot!(transcript(mdlm().current_dir(root()).args(valid)), @r"
    exit 0
    --- stdout
    --- stderr
    pipelines/text8.json is valid
    ");
}

fn log(arguments: &[&str]) -> Value {
    let output = mdlm()
        .current_dir(root().join("tests/it/manifests/bad"))
        .env("GITHUB_WORKSPACE", root())
        .args(["validate", "--format", "sarif"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.stderr.is_empty());
    let log: Value = serde_json::from_slice(&output.stdout).unwrap();
    let code = &log["runs"][0]["invocations"][0]["exitCode"];
    assert_eq!(output.status.code().map(i64::from), code.as_i64());
    log
}

/// Fails with every place at which a log departs from a schema.
fn check(schema: &Value, log: &Value) {
    let validator = jsonschema::validator_for(schema).unwrap();
    let faults: Vec<_> = validator
        .iter_errors(log)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn validate_shows_faults_as_sarif() {
    let mut arguments = broken();
    arguments.push("missing.json".to_owned());
    arguments.push("../../../../pipelines/text8.json".to_owned());
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let whole = log(&arguments);
    arguments.extend(["--set", "stages.missing.steps=1"]);
    let overridden = log(&arguments);
    let clean = log(&["../../../../pipelines/text8.json"]);

    let ours: Value =
        serde_json::from_str(&fs::read_to_string(root().join("tests/it/sarif.schema.json")).unwrap())
            .unwrap();
    let published = std::env::var_os("MDLM_TEST_SARIF_SCHEMA").map(PathBuf::from);
    let published = require(
        "sarif-schema",
        published.ok_or("MDLM_TEST_SARIF_SCHEMA names no copy; the log is held to our schema alone"),
    );
    // A pattern of the published schema has a stray bracket, which some regular expression engines refuse.
    let published: Option<Value> = published.map(|path| {
        let text = fs::read_to_string(path)
            .unwrap()
            .replace("[a-zA-Z]{2}]?$", "[a-zA-Z]{2}$");
        serde_json::from_str(&text).unwrap()
    });
    for log in [&whole, &overridden, &clean] {
        check(&ours, log);
        if let Some(schema) = &published {
            check(schema, log);
        }
    }
    assert_eq!(clean["runs"][0]["results"], serde_json::json!([]));

    // The schemas do not check the references between parts of a log, nor that regions lie in the files.
    let run = &whole["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let mut used = BTreeSet::new();
    let mut regions = 0;
    for result in run["results"].as_array().unwrap() {
        let index = result["ruleIndex"].as_u64().unwrap() as usize;
        assert_eq!(rules[index]["id"], result["ruleId"]);
        used.insert(index);
        let place = &result["locations"][0]["physicalLocation"];
        let artifact = place["artifactLocation"]["index"].as_u64().unwrap() as usize;
        assert_eq!(run["artifacts"][artifact]["location"], place["artifactLocation"]);
        let uri = place["artifactLocation"]["uri"].as_str().unwrap();
        let Ok(bytes) = fs::read(root().join(uri)) else {
            assert!(uri.ends_with("/missing.json"), "{uri}");
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        let Some(region) = place.get("region") else {
            assert!(bytes.is_empty() || uri.ends_with("large.json"), "{result}");
            continue;
        };
        regions += 1;
        // After a last line feed, the text ends in an empty line.
        let lines: Vec<_> = text.split('\n').collect();
        let number = |name: &str| region[name].as_u64().unwrap() as usize;
        for (line, column) in [("startLine", "startColumn"), ("endLine", "endColumn")] {
            let line = lines.get(number(line) - 1).unwrap_or_else(|| panic!("{result}"));
            assert!(number(column) <= line.chars().count() + 1, "{result}");
        }
        assert!(
            (number("startLine"), number("startColumn")) <= (number("endLine"), number("endColumn")),
            "{result}"
        );
    }
    assert_eq!(used.len(), rules.len(), "no rule without a result");
    assert!(regions > 40, "{regions}");

    let argument = overridden["runs"][0]["results"]
        .as_array()
        .unwrap()
        .iter()
        .find(|result| result["ruleId"] == "override")
        .unwrap();
    let message = argument["message"]["text"].as_str().unwrap();
    assert!(
        message.starts_with("`--set stages.missing.steps=1`: "),
        "{message}"
    );
    assert!(
        argument["locations"][0]["physicalLocation"]
            .get("region")
            .is_none()
    );
}

#[test]
fn validate_takes_one_format_at_a_time() {
    let output = mdlm()
        .current_dir(root())
        .args(["validate", "--json", "--format", "sarif", "pipelines/text8.json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be used with"));
}

/// The commands that the YAML blocks of pipelines/README.md and our own workflow give to a CI or to pre-commit work here.
#[test]
fn validate_in_ci_works_as_the_readme_recommends() {
    let guide = fs::read_to_string(root().join("pipelines/README.md")).unwrap();
    let snippets: String = guide
        .split("```yaml\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .collect();
    let workflow = fs::read_to_string(root().join(".github/workflows/ci.yml")).unwrap();
    let hooks = fs::read_to_string(root().join(".pre-commit-hooks.yaml")).unwrap();
    let mut ran = Vec::new();
    for line in [snippets, workflow, hooks].iter().flat_map(|text| text.lines()) {
        let line = line.trim().trim_start_matches("- ");
        let Some(command) = line
            .strip_prefix("run: ")
            .or_else(|| line.strip_prefix("entry: "))
        else {
            continue;
        };
        let Some(arguments) = command
            .strip_prefix("mdlm ")
            .or_else(|| command.strip_prefix("cargo run --quiet -- "))
        else {
            continue;
        };
        let mut words = Vec::new();
        for word in arguments.split(' ').take_while(|word| *word != ">") {
            if word.contains('*') {
                let found = glob::glob(root().join(word).to_str().unwrap()).unwrap();
                words.extend(found.map(|path| path.unwrap().to_str().unwrap().to_owned()));
            } else {
                words.push(word.to_owned());
            }
        }
        // pre-commit adds the files.
        if line.starts_with("entry: ") {
            words.push("pipelines/text8.json".to_owned());
        }
        let output = mdlm().current_dir(root()).args(&words).output().unwrap();
        assert!(
            output.status.success(),
            "{command}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        ran.push(command.to_owned());
    }
    for needed in [
        "mdlm validate --format github pipelines/*.json",
        "mdlm validate --format sarif pipelines/*.json > mdlm.sarif",
        "cargo run --quiet -- validate --format github pipelines/*.json pipelines/paper/*.json pipelines/paper/small/*.json",
        "mdlm validate",
    ] {
        assert!(ran.iter().any(|command| command == needed), "{needed}: {ran:#?}");
    }
}
