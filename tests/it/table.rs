//! Table stages through the program: cells, verdicts, what a changed cell reruns, missing results, and the faults of their
//! settings.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Project, printed, words};

/// A table of the bounds of two models with two seeds each on two texts.
fn table() -> Value {
    json!({
        "kind": "table", "caption": "Bounds", "source": "a paper, table 1", "of": ["causal-value", "bound"],
        "columns": [
            { "name": "Letters", "where": { "corpus": "letters" } },
            { "name": "Words", "where": { "corpus": "words" } },
            { "name": "Parameters", "show": "parameters", "where": { "corpus": "letters" } }
        ],
        "rows": [
            { "name": "Old", "published": { "Letters": { "value": 40.5 } }, "source": "another paper" },
            { "name": "AR", "where": { "stage": "causal-value" }, "published": { "Letters": { "value": 1.5 } } },
            { "name": "MDLM", "where": { "stage": "bound" },
              "published": { "Letters": { "value": 1.75, "at_most": true }, "Parameters": { "value": 100000 } } }
        ]
    })
}

/// A project with such a table.
fn project(table: &Value) -> Project {
    let project = Project::new(1);
    let pipelines = project.path().join("pipelines");
    fs::write(pipelines.join("letters.txt"), "ab ba\nabba\nbaab\n".repeat(40)).unwrap();
    fs::write(pipelines.join("words.txt"), "cd dc cd\ndc cd\n".repeat(40)).unwrap();
    let train = |objective: &str| {
        json!({
            "kind": "train", "from": "rows", "shape": "nano", "steps": 3, "batch": 8, "warmup_steps": 1,
            "learning_rate": 1e-3, "objective": { "kind": objective }, "matrix": { "seed": [1, 2] }
        })
    };
    let files = |file: &str| json!({ "input": { "kind": "files", "files": [file] } });
    let manifest = json!({ "name": "tiny", "seed": 1, "stages": {
        "text": { "kind": "source", "input": { "kind": "files", "files": ["letters.txt"] } },
        "tokens": {
            "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters", "alphabet": " abcd" }
        },
        "rows": { "kind": "pack", "from": "tokens", "length": 32 },
        "model": train("mdlm"),
        "causal": train("ar"),
        "other-text": { "kind": "source", "matrix": {
            "corpus": { "letters": files("letters.txt"), "words": files("words.txt") }
        } },
        "other-tokens": {
            "kind": "tokenize", "from": "other-text", "tokenizer": { "kind": "stage", "stage": "tokens" }
        },
        "other-rows": { "kind": "pack", "from": "other-tokens", "length": 32, "validation": 1 },
        "bound": { "kind": "evaluate", "model": "model", "data": "other-rows" },
        "causal-value": { "kind": "evaluate", "model": "causal", "data": "other-rows" },
        "table": table,
    } });
    fs::write(pipelines.join("tiny.json"), manifest.to_string()).unwrap();
    project
}

/// The table as the command prints it.
fn shown(project: &Project, arguments: &[&str]) -> String {
    let (code, output, talk) = printed(&mut project.mdlm("table", arguments));
    assert_eq!(code, Some(0), "{talk}");
    output
}

fn json_of(project: &Project) -> Value {
    serde_json::from_str(&shown(project, &["--json"])).unwrap()
}

#[test]
fn table_fills_its_cells_and_a_file_of_each_format() {
    let project = project(&table());
    let summary = project.run(&[]);
    let found = &json_of(&project)["table"];
    let rows = found["rows"].as_array().unwrap();
    assert_eq!(rows[0]["quoted"], true);
    for (row, quantity) in [(&rows[1], "exact"), (&rows[2], "bound")] {
        for cell in &row["cells"].as_array().unwrap()[..2] {
            let here = &cell["here"];
            assert_eq!((&here["quantity"], &here["seeds"]), (&json!(quantity), &json!(2)));
            let [low, value, high] = ["low", "value", "high"].map(|end| here[end].as_f64().unwrap());
            assert!(
                low < value && value < high && here["sd"].as_f64().unwrap() > 0.0,
                "{here}"
            );
        }
        // Networks hardly trained are worse than the published ones.
        assert_eq!(row["cells"][0]["verdict"]["kind"], "higher");
    }
    // As `dit.rs` counts them: 2 blocks of 64 with a vocabulary of 512.
    assert_eq!(rows[2]["cells"][2]["here"]["value"], 204_160.0);
    assert_eq!(rows[1]["cells"][2]["here"]["value"], 165_312.0);
    let order = &found["order"][0];
    assert_eq!(
        (&order["first"], &order["second"]),
        (&json!("AR"), &json!("MDLM"))
    );
    assert!(order["difference"]["low"].is_number(), "{order}");

    // The files of the stage are what the command prints.
    let stages = summary["stages"].as_array().unwrap();
    let stage = stages.iter().find(|stage| stage["name"] == "table").unwrap();
    let folder = project.path().join(stage["path"].as_str().unwrap());
    for (file, format) in [
        ("table.md", "markdown"),
        ("table.csv", "csv"),
        ("table.tex", "latex"),
    ] {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(shown(&project, &["--format", format]).trim_end(), text.trim_end());
    }
    let text = words(&shown(&project, &[]));
    for expected in [
        "Bounds",
        "Letters (perplexity per token)",
        "% higher here",
        "Old quoted",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }

    // Nothing changes on the next run; another figure reruns the table alone.
    assert!(
        Project::statuses(&project.run(&[]))
            .split(", ")
            .all(|status| status.ends_with("cached"))
    );
    let set = "stages.table.rows.1.published.Letters.value=99";
    let summary = project.run(&["--set", set]);
    let ran: Vec<&Value> = summary["stages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|stage| stage["status"] == "done")
        .collect();
    assert_eq!(ran.len(), 1);
    assert_eq!(ran[0]["name"], "table");
}

#[test]
fn table_shows_why_a_result_is_missing() {
    let project = project(&table());
    let found = &json_of(&project)["table"];
    let cell = &found["rows"][1]["cells"][0];
    assert_eq!(
        (&cell["missing"], &cell["here"]),
        (&json!("not run with these settings: never ran"), &Value::Null)
    );
    project.run(&["--target", "causal-value"]);
    let found = &json_of(&project)["table"];
    assert_eq!(found["rows"][1]["cells"][0]["here"]["seeds"], 2);
    let missing = &found["rows"][2]["cells"][0]["missing"];
    assert_eq!(missing, "not run with these settings: never ran");
    // A corpus that is not there takes its column alone.
    let words_of = "stages.other-text.matrix.corpus.words.input.files=[\"absent.txt\"]";
    let found: Value = serde_json::from_str(&shown(&project, &["--json", "--set", words_of])).unwrap();
    let cells = &found["table"]["rows"][1]["cells"];
    assert_eq!(cells[0]["here"]["seeds"], 2, "{cells}");
    assert!(
        cells[1]["missing"].as_str().unwrap().contains("absent.txt"),
        "{cells}"
    );
    let text = words(&shown(&project, &["--set", words_of]));
    assert!(
        text.contains("Missing: AR in Words") && text.contains("absent.txt"),
        "{text}"
    );
}

#[test]
fn table_faults_are_found_while_validating() {
    for (pointer, value, expected) in [
        (
            "/rows/1/where",
            json!({ "stage": "bound2" }),
            "no result has stage `\"bound2\"`",
        ),
        (
            "/rows/1/where",
            json!({ "corpora": "words" }),
            "no result has a swept field `corpora`",
        ),
        (
            "/columns/0/where",
            json!({ "corpus": "wordz" }),
            "did you mean `words`?",
        ),
        (
            "/rows/1/published",
            json!({ "Letter": { "value": 1 } }),
            "no column is called `Letter`",
        ),
        ("/rows/2/name", json!("AR"), "two rows are called `AR`"),
        (
            "/columns/1/name",
            json!("Letters"),
            "two columns are called `Letters`",
        ),
        ("/rows/1/missing", json!("not public"), "a reason why it has none"),
        (
            "/rows_by",
            json!("corpus"),
            "`rows` and `rows_by` both state the rows",
        ),
        ("/of", json!(["rows"]), "expected"),
        ("/rows/1/published", json!({ "Letters": 1.5 }), "expected"),
        ("/columns/2/show", json!("perplexities"), "`perplexity`"),
    ] {
        let mut table = table();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        table.pointer_mut(parent).unwrap()[key] = value;
        let project = project(&table);
        let (code, _, talk) = printed(&mut project.mdlm("validate", &[]));
        assert_eq!(code, Some(2), "{pointer}: {talk}");
        assert!(talk.contains(expected), "{expected}: {talk}");
        assert!(talk.contains("tiny.json:1:"), "{talk}");
    }
}

#[test]
fn table_cells_of_several_settings_are_refused_before_anything_runs() {
    let mut table = table();
    table["columns"] = json!([{ "name": "Letters" }]);
    for row in [1, 2] {
        table["rows"][row]["published"] = json!({});
    }
    let project = project(&table);
    let (code, _, talk) = printed(&mut project.mdlm("plan", &[]));
    assert_eq!(code, Some(2), "{talk}");
    let talk = words(&talk);
    for expected in [
        "the cell of row `AR` and column `Letters` has 4 results, which differ in more than seeds",
        "state `corpus` in `where`",
    ] {
        assert!(talk.contains(expected), "{expected}: {talk}");
    }
}

#[test]
fn table_of_a_run_that_fails_is_shown_by_the_command() {
    let project = project(&table());
    let absent = "stages.other-text.matrix.corpus.words.input={\"kind\":\"download\",\"files\":[{\"url\":\
                  \"http://127.0.0.1:9/a.txt\",\"unpinned\":true}]}";
    let (code, _, talk) = printed(&mut project.mdlm("run", &["--set", absent]));
    assert_ne!(code, Some(0), "{talk}");
    let hint = "`mdlm table pipelines/tiny.json` shows the table with the cells that are there";
    assert!(words(&talk).contains(hint), "{talk}");
    let found: Value = serde_json::from_str(&shown(&project, &["--json", "--set", absent])).unwrap();
    let cells = &found["table"]["rows"][1]["cells"];
    assert_eq!(cells[0]["here"]["seeds"], 2, "{cells}");
    assert!(
        cells[1]["missing"].is_string() && cells[1]["here"].is_null(),
        "{cells}"
    );
}
