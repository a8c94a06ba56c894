//! Sweeps through the program: what they share, what a further value reruns, and the tables of their results.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mdlm::shapes::SHAPES;
use serde_json::{Value, json};

use crate::support::{Project, mdlm, transcript, untimed};

/// Sets fields of the project's manifest, by pointers below `stages`.
fn edit(project: &Project, changes: &[(&str, Value)]) {
    let path = project.path().join("pipelines/tiny.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        manifest.pointer_mut(&format!("/stages{parent}")).unwrap()[key] = value.clone();
    }
    fs::write(path, manifest.to_string()).unwrap();
}

/// A project whose model is swept over learning rates, with a table of the bounds; nothing has run.
fn swept(rates: &Value) -> Project {
    let project = Project::whole(60);
    let changes = [
        ("/model/steps", json!(8)),
        ("/model/matrix", json!({ "learning_rate": rates })),
        ("/texts/model", json!("model@learning_rate=0.001")),
        ("/table", json!({ "kind": "compare", "of": "bound" })),
    ];
    edit(&project, &changes);
    project
}

/// The stages of a summary that ran, and those that were served.
fn parts(summary: &Value) -> (Vec<&str>, Vec<&str>) {
    let stages = summary["stages"].as_array().unwrap();
    let named = |status: &str| {
        stages
            .iter()
            .filter(|stage| stage["status"] == status)
            .map(|stage| stage["name"].as_str().unwrap())
            .collect()
    };
    (named("done"), named("cached"))
}

fn json_of(project: &Project, command: &str, arguments: &[&str]) -> Value {
    let output = project.mdlm(command, arguments).output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn sweep_instances_share_keys_with_plain_stages_and_a_new_value_runs_alone() {
    // The model by hand, first.
    let project = Project::whole(60);
    edit(&project, &[("/model/steps", json!(8))]);
    let plain = project.run(&[]);
    let manifest = project.path().join("pipelines/tiny.json");
    fs::copy(
        swept(&json!([1e-3, 5e-4])).path().join("pipelines/tiny.json"),
        &manifest,
    )
    .unwrap();
    let summary = project.run(&[]);
    assert_eq!(
        parts(&summary),
        (
            vec![
                "model@learning_rate=0.0005",
                "bound@learning_rate=0.0005",
                "table"
            ],
            vec![
                "text",
                "tokens",
                "rows",
                "model@learning_rate=0.001",
                "bound@learning_rate=0.001",
                "texts"
            ]
        )
    );
    let artifacts = |summary: &Value| -> BTreeMap<String, String> {
        let stages = summary["stages"].as_array().unwrap();
        let of = |stage: &Value| {
            (
                stage["name"].as_str().unwrap().to_owned(),
                stage["artifact"].as_str().unwrap().to_owned(),
            )
        };
        stages.iter().map(of).collect()
    };
    assert_eq!(
        artifacts(&plain)["model"],
        artifacts(&summary)["model@learning_rate=0.001"]
    );

    // A further value, in front: it and its consumers run, the others do not.
    edit(
        &project,
        &[("/model/matrix", json!({ "learning_rate": [2e-3, 1e-3, 5e-4] }))],
    );
    let summary = project.run(&[]);
    assert_eq!(
        parts(&summary).0,
        ["model@learning_rate=0.002", "bound@learning_rate=0.002", "table"]
    );
    assert_eq!(parts(&project.run(&[])).0, Vec::<&str>::new());
}

#[test]
fn compare_stage_and_command_make_the_same_table() {
    let project = swept(&json!([1e-3, 5e-4]));
    let before = json_of(&project, "compare", &["--json"]);
    assert_eq!(before[0]["rows"].as_array().unwrap().len(), 2);
    for row in before[0]["rows"].as_array().unwrap() {
        assert_eq!(
            (&row["status"], &row["why"]),
            (&json!("not run"), &json!("never ran"))
        );
        assert_eq!(row["metrics"], json!({}));
    }
    let summary = project.run(&[]);
    let folder = summary["stages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|stage| stage["name"] == "table")
        .unwrap()["path"]
        .as_str()
        .unwrap()
        .to_owned();
    let made: Value =
        serde_json::from_slice(&fs::read(project.path().join(&folder).join("compare.json")).unwrap())
            .unwrap();
    let shown = json_of(&project, "compare", &["--json"]);
    assert_eq!(shown[0]["kind"], "evaluate");
    for table in [&made, &shown[0]] {
        assert_eq!(table["sorted_by"], "bits_per_byte");
        let bits: Vec<f64> = table["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["metrics"]["bits_per_byte"]["value"].as_f64().unwrap())
            .collect();
        assert!(bits.len() == 2 && bits[0] <= bits[1], "{bits:?}");
    }
    for (made, shown) in made["rows"]
        .as_array()
        .unwrap()
        .iter()
        .zip(shown[0]["rows"].as_array().unwrap())
    {
        assert_eq!(made["point"], shown["point"]);
        assert_eq!(made["metrics"], shown["metrics"]);
        let evaluation = Path::new(shown["path"].as_str().unwrap()).join("evaluation.json");
        let found: Value =
            serde_json::from_slice(&fs::read(project.path().join(evaluation)).unwrap()).unwrap();
        assert_eq!(found["perplexity"], shown["metrics"]["perplexity"]);
        assert!(shown["metrics"]["perplexity"]["low"].is_number());
    }
    let text = fs::read_to_string(project.path().join(&folder).join("compare.md")).unwrap();
    assert!(
        text.contains("| learning_rate | bits_per_byte | perplexity | nats_per_token |"),
        "{text}"
    );
    assert_eq!(
        fs::read_to_string(project.path().join(&folder).join("compare.csv"))
            .unwrap()
            .lines()
            .count(),
        3
    );

    // For people: within a terminal, one not run, and trainings by their last validation.
    let rates = "stages.model.matrix.learning_rate=[0.001,0.0005,0.25]";
    let output = project.mdlm("compare", &["--set", rates]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("bound: 3 results, 2 of them in the store, lowest bits_per_byte first\n"),
        "{text}"
    );
    assert!(
        text.lines()
            .any(|line| line.trim_end() == "0.25           not run"),
        "{text}"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let trained = json_of(
        &project,
        "compare",
        &["model", "--json", "--sort", "nats_per_token"],
    );
    assert_eq!(trained[0]["sorted_by"], "nats_per_token");
    assert_eq!(trained[0]["rows"][1]["status"], "done");
    let refused = transcript(&mut project.mdlm("compare", &["rows"]));
    insta::assert_snapshot!(refused, @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to compare results: `rows` is a stage of kind pack, which has no metric
    hint: name evaluate, sample, train or compare stages
    ");
}

#[test]
fn compare_of_manifests_shows_the_settings_that_differ() {
    let project = Project::whole(60);
    edit(&project, &[("/model/steps", json!(6))]);
    let manifest = project.path().join("pipelines/tiny.json");
    let other = fs::read_to_string(&manifest)
        .unwrap()
        .replace("\"steps\":6", "\"steps\":7")
        // Another name is no other setting.
        .replace("\"model\":{", "\"net\":{")
        .replace("\"model\":\"model\"", "\"model\":\"net\"");
    assert!(other.contains("\"net\":{"), "{other}");
    fs::write(project.path().join("pipelines/other.json"), other).unwrap();
    project.run(&[]);
    let tables = json_of(&project, "compare", &["pipelines/other.json", "bound", "--json"]);
    let rows = tables[0]["rows"].as_array().unwrap();
    let found: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row["manifest"].as_str().unwrap(),
                row["point"].clone(),
                row["status"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("pipelines/tiny.json", json!({ "steps": 6 }), "done"),
            ("pipelines/other.json", json!({ "steps": 7 }), "not run")
        ]
    );
}

#[test]
fn sweep_fault_points_at_the_value_of_the_instance() {
    let project = swept(&json!([1e-3, 5e-4]));
    let manifest = project.path().join("pipelines/tiny.json");
    let text = r#"{
  "name": "tiny", "seed": 1,
  "stages": {
    "text": { "kind": "source", "input": { "kind": "files", "files": ["../corpus/*.txt"] } },
    "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "train_bpe", "vocabulary_size": 320 } },
    "rows": { "kind": "pack", "from": "tokens", "length": 32, "validation": 0.1 },
    "model": {
      "kind": "train", "from": "rows", "shape": "nano", "steps": 30, "warmup_steps": 3,
      "matrix": { "batch": [8, 16], "micro_batch": [4, 3] }
    },
    "bound": { "kind": "evaluate", "model": "model", "data": "rows" }
  }
}"#;
    fs::write(&manifest, text).unwrap();
    let output = project.mdlm("validate", &["--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let faults = report[0]["faults"].as_array().unwrap();
    // One for each batch that three does not divide, both at the value `3`.
    assert_eq!(faults.len(), 2, "{faults:?}");
    for fault in faults {
        assert_eq!(fault["code"], "micro-batch");
        assert_eq!(fault["pointer"], "/stages/model/matrix/micro_batch/1");
        assert_eq!(
            (&fault["place"]["line"], &fault["place"]["column"]),
            (&json!(9), &json!(56))
        );
    }
}

#[test]
fn schema_accepts_sweeps_and_refuses_broken_ones() {
    let schema = jsonschema::draft202012::new(&mdlm::manifest::schema(SHAPES)).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["pipelines", "pipelines/paper", "pipelines/paper/small"];
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let errors: Vec<_> = schema
            .iter_errors(&serde_json::from_str(&text).unwrap())
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
    let text = fs::read_to_string(root.join("pipelines/sweep.json")).unwrap();
    let sweep: Value = serde_json::from_str(&text).unwrap();
    let with = |pointer: &str, value: Value| {
        let mut sweep = sweep.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        sweep.pointer_mut(&format!("/stages{parent}")).unwrap()[key] = value;
        (schema.is_valid(&sweep), sweep)
    };
    let mut required_by_the_matrix = sweep.clone();
    let fields = |manifest: &mut Value, gone: &str| {
        let model = manifest["stages"]["model"].as_object_mut().unwrap();
        model.remove(gone);
    };
    fields(&mut required_by_the_matrix, "steps");
    required_by_the_matrix["stages"]["model"]["matrix"]["steps"] = json!([100, 200]);
    assert!(schema.is_valid(&required_by_the_matrix));
    fields(&mut required_by_the_matrix, "matrix");
    assert!(!schema.is_valid(&required_by_the_matrix), "`steps` is nowhere");
    assert!(with("/table/of", json!(["bound", "model"])).0);
    for (pointer, value) in [
        ("/model/matrix", json!({})),
        ("/model/matrix", json!([1])),
        ("/model/matrix", json!({ "kind": ["train"] })),
        ("/model/matrix", json!({ "seed": [] })),
        ("/model/matrix", json!({ "seed": [1, 1] })),
        ("/model/matrix", json!({ "seed": 1 })),
        ("/model/matrix", json!({ "seed": { "from": 1 } })),
        (
            "/model/matrix",
            json!({ "seed": { "from": 1, "to": 2, "by": 1 } }),
        ),
        ("/table/of", json!([])),
        ("/table/of", json!(3)),
        ("/table/sort", json!("loss")),
        ("/a@b=1", json!({ "kind": "compare", "of": "bound" })),
    ] {
        let (valid, manifest) = with(pointer, value);
        assert!(!valid, "{pointer}");
        // The program says the same.
        let bytes = manifest.to_string().into_bytes();
        assert!(
            mdlm::manifest::Manifest::from_bytes("a.json", bytes, &[], SHAPES).is_err(),
            "{pointer}"
        );
    }
}

#[test]
fn graph_has_one_node_for_a_sweep() {
    let output = mdlm()
        .args(["graph", "pipelines/sweep.json", "--format", "mermaid"])
        .output()
        .unwrap();
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r#"
    flowchart LR
      s0["text<br/><i>source</i>"]
      s1["tokens<br/><i>tokenize</i>"]
      s2["rows<br/><i>pack</i>"]
      s3["model<br/><i>train ×6</i>"]
      s4["bound<br/><i>evaluate ×6</i>"]
      s5["table<br/><i>compare</i>"]
      s0 --> s1
      s1 --> s2
      s2 --> s3
      s3 -- model --> s4
      s2 -- data --> s4
      s0 -- grammar --> s4
      s4 --> s5
    "#);
}

#[test]
fn run_shows_a_sweep_in_a_line_and_a_table() {
    let project = swept(&json!([1e-3, 5e-4]));
    edit(&project, &[("/bound/matrix", json!({ "draws": [1, 2] }))]);
    // A swept stage as target stands for its instances, one of them for itself.
    let one = project.run(&["--target", "model@learning_rate=0.0005"]);
    assert_eq!(parts(&one).0.last(), Some(&"model@learning_rate=0.0005"));
    assert_eq!(one["stages"].as_array().unwrap().len(), 4);
    let both = project.run(&["--target", "model"]);
    assert_eq!(parts(&both).0, ["model@learning_rate=0.001"]);

    let output = project.mdlm("run", &[]).output().unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{talk}");
    let line = |start: &str| {
        let line = talk.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no `{start}` in\n{talk}"))
    };
    assert!(line("model ×2").contains("cached"), "{talk}");
    assert!(
        line("bound ×4").contains("done") && line("bound ×4").contains("first run"),
        "{talk}"
    );
    line("bound: 4 results, lowest bits_per_byte first");
    assert!(
        talk.lines()
            .map(untimed)
            .filter(|line| !line.starts_with('['))
            .all(|line| line.chars().count() <= 100),
        "{talk}"
    );
    let page = fs::read_to_string(project.store().join("reports/tiny.html")).unwrap();
    assert!(
        page.contains("evaluate ×4") && page.contains("<th>learning_rate</th>"),
        "no table"
    );

    insta::assert_snapshot!(transcript(&mut project.mdlm("path", &["model"])), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to find the results of stage `model`: it is swept and has 2 instances
    hint: name one of `model@learning_rate=0.001`, `model@learning_rate=0.0005`
    ");
    // None of its instances is explained in place of all.
    for arguments in [&["explain"][..], &["show"], &["verify", "--chain"]] {
        let output = project
            .mdlm(arguments[0], &[&arguments[1..], &["model"]].concat())
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("it is swept and has 2 instances"), "{message}");
    }
    // An unknown name is answered with the stages as they are written, or with the instances of the intended one.
    for (name, hint) in [
        ("modl", "did you mean `model`?"),
        (
            "nothing",
            "the stages are `text`, `tokens`, `rows`, `model`, `bound`",
        ),
        (
            "model@seed=1",
            "its instances are `model@learning_rate=0.001`, `model@learning_rate=0.0005`",
        ),
    ] {
        let output = project.mdlm("show", &[name]).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(&format!("hint: {hint}")), "{message}");
    }
    let shown = project
        .mdlm("show", &["model@learning_rate=0.001"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8(shown.stdout)
            .unwrap()
            .contains("model@learning_rate=0.001 (train) of tiny")
    );
}
