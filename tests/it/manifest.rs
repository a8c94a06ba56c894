//! Manifests: the shipped ones are valid, the faults of broken ones are shown, and what is too large is refused.

use std::fs;
use std::path::{Path, PathBuf};

use mdlm::manifest::{Code, Manifest};
use mdlm::shapes::SHAPES;
use serde_json::{Value, json};

use crate::support::{mdlm, transcript};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The JSON files of a folder, by name.
fn manifests(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files
}

#[test]
fn manifests_shipped_are_valid_and_name_the_schema() {
    let files = manifests("pipelines");
    let names: Vec<_> = files
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap())
        .collect();
    for needed in [
        "lm1b",
        "objectives",
        "openwebtext",
        "published",
        "quickstart",
        "samplers",
        "sweep",
        "text8",
    ] {
        assert!(names.contains(&needed), "{needed} is not among {names:?}");
    }
    for folder in ["pipelines", "pipelines/paper", "pipelines/paper/small"] {
        check_shipped(folder);
    }
    insta::assert_snapshot!(transcript(mdlm().current_dir(root()).arg("validate").args(&files)), @r"
    exit 0
    --- stdout
    --- stderr
    8 manifests are valid
    ");
}

/// The manifests of a folder are valid, name their schema, and are called like their files.
fn check_shipped(folder: &str) {
    let files = manifests(folder);
    assert!(files.len() >= 8, "{folder}: {files:?}");
    for path in &files {
        let below = path
            .strip_prefix(root().join("pipelines"))
            .unwrap()
            .with_extension("");
        let name = below.to_str().unwrap().replace('/', "-");
        let loaded = Manifest::load(path, &[], SHAPES).unwrap_or_else(|faults| panic!("{faults}"));
        assert_eq!(loaded.manifest.name, name, "a manifest is called like its file");
        let schema = loaded.manifest.schema.as_deref().expect("names its schema");
        assert!(loaded.base().join(schema).is_file(), "{name}: {schema}");
    }
}

#[test]
fn overrides_wrap_the_rows_of_lm1b() {
    let overrides = [
        "stages.rows.wrap=true".to_owned(),
        "stages.test-rows.wrap=true".to_owned(),
    ];
    Manifest::load(&root().join("pipelines/lm1b.json"), &overrides, SHAPES).unwrap();
}

#[test]
fn faults_of_broken_manifests_match_their_snapshots() {
    let folder = root().join("tests/it/manifests/bad");
    let files = manifests("tests/it/manifests/bad");
    assert!(files.len() > 30);
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("manifests/bad");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for path in files {
            let name = path.file_name().unwrap().to_str().unwrap();
            let output = transcript(mdlm().current_dir(&folder).args(["validate", name]));
            assert!(output.starts_with("exit 2"), "{name} is valid: {output}");
            assert!(
                output.lines().all(|line| line.chars().count() <= 130),
                "{name}: {output}"
            );
            insta::assert_snapshot!(name.trim_end_matches(".json"), output);
        }
    });
}

#[test]
fn faults_as_json() {
    let output = mdlm()
        .current_dir(root().join("tests/it/manifests/bad"))
        .args([
            "validate",
            "--json",
            "duplicate-keys.json",
            "../../../../pipelines/text8.json",
            "missing.json",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.is_empty());
    let reports: Value = serde_json::from_slice(&output.stdout).unwrap();
    let report = &reports[0];
    assert_eq!(report["file"], "duplicate-keys.json");
    assert_eq!(report["valid"], false);
    assert_eq!(report["omitted"], 0);
    assert_eq!(
        report["faults"][0],
        json!({
            "code": "duplicate-key",
            "place": { "source": "duplicate-keys.json", "line": 4, "column": 3, "end_line": 4, "end_column": 9 },
            "pointer": "/seed",
            "value": null,
            "message": "field `seed` is given twice",
            "expected": "every field at most once",
            "hint": null,
            "related": [{
                "place": { "source": "duplicate-keys.json", "line": 3, "column": 3, "end_line": 3, "end_column": 9 },
                "message": "first here"
            }]
        })
    );
    assert_eq!(reports[1]["valid"], true);
    assert_eq!(reports[1]["faults"], json!([]));
    assert_eq!(reports[2]["faults"][0]["code"], "unreadable");
}

#[test]
fn overrides_with_faults_are_shown_as_written() {
    let output = transcript(mdlm().current_dir(root()).args([
        "validate",
        "pipelines/quickstart.json",
        "--set",
        "stages.model.steps=lots",
        "--set",
        "stages.rows.lenght=32",
        "--set",
        "stages.modle.steps=200",
        "--set",
        "seed=[1, 2",
    ]));
    insta::assert_snapshot!(output, @r"
    exit 2
    --- stdout
    --- stderr
    error[wrong-type]: `lots` is a string
     --> --set:1:20
      |
    1 | stages.model.steps=lots
      |                    ^^^^ expected an integer from 1 to 1,000,000,000
      |
      = at: `/stages/model/steps`

    error[unknown-field]: unknown field `lenght`
     --> --set:1:13
      |
    1 | stages.rows.lenght=32
      |             ^^^^^^ expected `length`: an integer from 4 to 65,536
      |
      = at: `/stages/rows/lenght`
      = hint: did you mean `length`?

    error[override]: there is no stage `modle`
     --> --set:1:1
      |
    1 | stages.modle.steps=200
      | ^^^^^^^^^^^^ expected a stage: `text`, `tokens`, `rows`, `model`, `bound` or `samples`
      |
      = at: `/stages/modle`
      = hint: did you mean `model`?

    error[syntax]: the text ends unexpectedly
     --> --set:1:11
      |
    1 | seed=[1, 2
      |      -    ^ expected `,` or `]`
      |      |
      |      this `[` is never closed

    4 faults in 1 of 1 manifest
    ");
}

#[test]
fn schema_is_printed_and_its_copies_are_checked() {
    let printed = mdlm().arg("schema").output().unwrap();
    assert!(printed.status.success());
    let committed = fs::read_to_string(root().join("schemas/pipeline.schema.json")).unwrap();
    assert!(String::from_utf8(printed.stdout).unwrap() == committed.replace("\r\n", "\n"));
    insta::assert_snapshot!(transcript(mdlm().current_dir(root()).args(["schema", "--check"])), @r"
    exit 0
    --- stdout
    --- stderr
    schemas/pipeline.schema.json is up to date
    ");

    let printed = mdlm().args(["schema", "--markdown"]).output().unwrap();
    let committed = fs::read_to_string(root().join("schemas/README.md")).unwrap();
    assert!(String::from_utf8(printed.stdout).unwrap() == committed.replace("\r\n", "\n"));
    let check = ["schema", "--markdown", "--check"];
    insta::assert_snapshot!(transcript(mdlm().current_dir(root()).args(check)), @r"
    exit 0
    --- stdout
    --- stderr
    schemas/README.md is up to date
    ");

    let folder = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(transcript(mdlm().current_dir(&folder).args(check)), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to check the schema: read `schemas/README.md`: No such file or directory (os error 2)
    hint: write it: mdlm schema --markdown > schemas/README.md
    ");
    fs::write(folder.path().join("old.json"), "{}\n").unwrap();
    insta::assert_snapshot!(
        transcript(mdlm().current_dir(&folder).args(["schema", "--check", "old.json"])),
        @r"
        exit 2
        --- stdout
        --- stderr
        error: failed to check the schema: `old.json` is stale: it differs from the schema of this mdlm
        hint: rewrite it: mdlm schema > old.json
        "
    );
    insta::assert_snapshot!(transcript(mdlm().current_dir(&folder).args(["schema", "--check"])), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to check the schema: read `schemas/pipeline.schema.json`: No such file or directory (os error 2)
    hint: write it: mdlm schema > schemas/pipeline.schema.json
    ");
}

#[test]
fn manifest_larger_than_the_limit_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.json");
    fs::write(&path, vec![b' '; 3 << 20]).unwrap();
    let faults = Manifest::load(&path, &[], SHAPES).unwrap_err();
    assert_eq!(faults.list[0].code, Code::TooLarge);
    // A device, which may have no end, is not read.
    if Path::new("/dev/zero").exists() {
        let faults = Manifest::load(Path::new("/dev/zero"), &[], SHAPES).unwrap_err();
        assert_eq!(faults.list[0].code, Code::Unreadable);
        assert_eq!(faults.list[0].message, "this is a device");
    }
    let faults = Manifest::load(folder.path(), &[], SHAPES).unwrap_err();
    assert_eq!(faults.list[0].code, Code::Unreadable);
}

#[test]
fn stages_in_a_long_chain_do_not_overflow_the_stack() {
    let stages: Vec<_> = (0..1000)
        .map(|i| {
            let tokenizer = json!({ "kind": "stage", "stage": format!("s{}", (i + 1) % 1000) });
            format!(
                "\"s{i}\":{}",
                json!({ "kind": "tokenize", "from": "s0", "tokenizer": tokenizer })
            )
        })
        .collect();
    let text = format!(r#"{{"name":"a","seed":1,"stages":{{{}}}}}"#, stages.join(","));
    let faults = Manifest::from_bytes("chain.json", text.into_bytes(), &[], SHAPES).unwrap_err();
    assert!(faults.list.iter().any(|fault| fault.code == Code::Cycle));
}

/// A stage's description is a string and not part of the key.
#[test]
fn description_of_a_stage_is_not_in_its_key() {
    let project = crate::support::Project::new(40);
    let path = project.path().join("pipelines/tiny.json");
    let plan = || project.mdlm("plan", &["--json"]).output().unwrap();
    let before = plan();
    let text = std::fs::read_to_string(&path).unwrap();
    let with = |description: &str| {
        let described = format!("\"kind\": \"pack\", \"description\": {description},");
        std::fs::write(&path, text.replace("\"kind\": \"pack\",", &described)).unwrap();
    };
    with("\"rows of 32\"");
    assert_eq!(plan().stdout, before.stdout);
    with("32");
    let output = plan();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("the description is not a string"), "{said}");
}
