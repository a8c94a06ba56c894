//! Which results are replicates, by what they are made of, and what is called best.

use std::fs;

use serde_json::{Map, Value, json};

use crate::support::Project;

/// A project whose stages are changed by `change`, with all trainings cut to a few steps.
fn project(change: impl Fn(&mut Map<String, Value>)) -> Project {
    let project = Project::whole(60);
    let path = project.path().join("pipelines/tiny.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let stages = manifest["stages"].as_object_mut().unwrap();
    stages["model"]["steps"] = json!(4);
    change(stages);
    fs::write(path, manifest.to_string()).unwrap();
    project
}

/// A stage like another one but for some fields.
fn like(stages: &Map<String, Value>, name: &str, fields: &Value) -> Value {
    let mut stage = stages[name].clone();
    stage
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    stage
}

fn compare(project: &Project, arguments: &[&str]) -> String {
    let output = project.mdlm("compare", arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        arguments.contains(&"--json") || text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    text
}

/// A file of a stage's artifact.
fn file(project: &Project, summary: &Value, stage: &str, name: &str) -> String {
    let stages = summary["stages"].as_array().unwrap();
    let found = stages.iter().find(|one| one["name"] == stage).unwrap();
    let folder = project.path().join(found["path"].as_str().unwrap());
    fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn replicates_are_stages_that_differ_in_seeds_alone() {
    let project = project(|stages| {
        for (name, change) in [
            ("first", json!({ "seed": 1 })),
            // What changes no result is no other setting.
            (
                "second",
                json!({ "seed": 2, "micro_batch": 4, "description": "again" }),
            ),
            ("other", json!({ "seed": 1, "learning_rate": 2e-3 })),
        ] {
            let model = like(stages, "model", &change);
            let bound = like(stages, "bound", &json!({ "model": name }));
            stages.insert(name.to_owned(), model);
            stages.insert(format!("bound-{name}"), bound);
        }
        for unused in ["model", "bound", "texts"] {
            stages.shift_remove(unused);
        }
        let of = ["bound-first", "bound-second", "bound-other"];
        stages.insert("table".to_owned(), json!({ "kind": "compare", "of": of }));
    });
    let summary = project.run(&[]);
    let made: Value = serde_json::from_str(&file(&project, &summary, "table", "compare.json")).unwrap();
    let shown: Value = serde_json::from_str(&compare(&project, &["--json"])).unwrap();
    for table in [&made, &shown[0]] {
        let groups = table["groups"].as_array().unwrap();
        let rows = table["rows"].as_array().unwrap();
        let mut of: Vec<Vec<u64>> = groups
            .iter()
            .map(|group| {
                let rows = group["rows"].as_array().unwrap().iter();
                let point = |row: &Value| &rows_point(table, row.as_u64().unwrap())["train.seed"];
                rows.map(|row| point(row).as_u64().unwrap()).collect()
            })
            .collect();
        of.sort();
        assert_eq!(of, [vec![1], vec![1, 2]], "{table}");
        assert_eq!(rows.len(), 3);
        let pair = groups
            .iter()
            .find(|group| group["rows"].as_array().unwrap().len() == 2)
            .unwrap();
        assert_eq!(pair["name"], "bound-first, bound-second");
        assert_eq!(pair["seeds"], json!({ "train.seed": 2 }));
        // One seed of the other says nothing of its spread.
        assert_eq!(table["verdict"]["best"], Value::Null, "{table}");
    }
    let text = compare(&project, &[]);
    let flat = text.replace('\n', " ");
    assert!(
        flat.contains("2 settings, 1 to 2 seeds each: mean ± sd over seeds"),
        "{text}"
    );
    assert!(
        flat.contains("over train.seed: the spread to expect")
            && flat.contains("the evaluation alone, not the effect of another seed"),
        "{text}"
    );
    let lonely = text
        .lines()
        .find(|line| line.starts_with("bound-other "))
        .unwrap();
    assert!(!lonely.contains('±'), "{text}");
    let figures = &summary["stages"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "table")
        .unwrap()["figures"];
    assert!(figures["best"].is_null(), "{figures}");
    let figure = figures["lowest bits_per_byte"].as_str().unwrap();
    // Whether the evaluation distinguishes them or not, one seed does not make a best one.
    assert!(
        figure.contains(", not clearly different from ")
            || figure.contains("another seed of training is not covered"),
        "{figure}"
    );
    // Another setting of one of them, and they are no replicates.
    let changed = ["--set", "stages.second.weight_decay=0.5", "--json"];
    let shown: Value = serde_json::from_str(&compare(&project, &changed)).unwrap();
    assert!(shown[0]["groups"].is_null(), "{shown}");
}

/// The point of a row of a table.
fn rows_point(table: &Value, row: u64) -> &Value {
    &table["rows"][usize::try_from(row).unwrap()]["point"]
}

#[test]
fn replicates_of_seeds_within_seeds_are_not_pooled() {
    let project = project(|stages| {
        stages["rows"]["matrix"] = json!({ "seed": [1, 2] });
        stages["model"]["matrix"] = json!({ "seed": [1, 2] });
        stages.shift_remove("texts");
        stages.insert("table".to_owned(), json!({ "kind": "compare", "of": "bound" }));
    });
    let summary = project.run(&[]);
    let table: Value = serde_json::from_str(&file(&project, &summary, "table", "compare.json")).unwrap();
    let groups = table["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0]["seeds"], json!({ "rows.seed": 2, "model.seed": 2 }));
    let value = |rows: u64, model: u64| {
        let rows_of = table["rows"].as_array().unwrap();
        let found = rows_of
            .iter()
            .find(|row| row["point"]["rows.seed"] == rows && row["point"]["model.seed"] == model);
        found.unwrap()["metrics"]["bits_per_byte"]["value"]
            .as_f64()
            .unwrap()
    };
    let spread = &groups[0]["metrics"]["bits_per_byte"];
    // The pairs that share no seed are the two diagonals.
    let squares = (value(1, 1) - value(2, 2)).powi(2) + (value(1, 2) - value(2, 1)).powi(2);
    let sd = (squares / 4.0).sqrt();
    assert!(
        (spread["sd"].as_f64().unwrap() - sd).abs() < 1e-9,
        "{spread} is not {sd}"
    );
    assert_eq!(spread["n"], 4);
    let text = compare(&project, &[]);
    assert!(text.contains("4 (2 × 2)"), "{text}");
    assert!(
        text.replace('\n', " ")
            .contains("over model.seed (train) × rows.seed (pack)"),
        "{text}"
    );
}

#[test]
fn replicates_of_an_evaluation_are_named_as_such() {
    let project = project(|stages| {
        for stage in ["bound", "texts"] {
            stages[stage]["matrix"] = json!({ "seed": [1, 2, 3] });
        }
        stages.insert("table".to_owned(), json!({ "kind": "compare", "of": "bound" }));
    });
    let summary = project.run(&[]);
    let markdown = file(&project, &summary, "table", "compare.md");
    for text in [markdown, compare(&project, &["bound"]).replace('\n', " ")] {
        assert!(
            text.contains("over seed (evaluate): ")
                && text.contains("It does not cover the spread between seeds of training."),
            "{text}"
        );
    }
    // Samples that no grammar judges have nothing to take a mean of.
    let text = compare(&project, &["texts"]);
    assert!(
        text.starts_with("texts: 3 results") && !text.contains("seeds"),
        "{text}"
    );
}
