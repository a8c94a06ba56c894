//! The table of `src/stages/key.rs`, row by row: what is in a key reruns its stage and nothing else; what is not reruns
//! nothing.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::checkpoint::published;
use crate::support::{Project, mdlm};

/// A pipeline with two sources, so that a change of one leaves stages without a change.
fn pipeline() -> Value {
    json!({
        "name": "tiny", "seed": 1,
        "stages": {
            "a": { "kind": "source", "input": { "kind": "files", "files": ["../corpus/a.txt"] } },
            "ab": { "kind": "source",
                "input": { "kind": "files", "files": ["../corpus/b.txt", "../corpus/a.txt"] } },
            "letters": { "kind": "tokenize", "from": "a",
                "tokenizer": { "kind": "characters", "alphabet": " abcdefghijklmnopqrstuvwxyz0123456789" } },
            "pairs": { "kind": "tokenize", "from": "ab",
                "tokenizer": { "kind": "train_bpe", "vocabulary_size": 300 } },
            "short": { "kind": "pack", "from": "letters", "length": 32 },
            "rows": { "kind": "pack", "from": "pairs", "length": 32, "validation": 0.1 },
            "more": { "kind": "pack", "from": "pairs", "length": 32, "validation": 0.3 },
            "model": { "kind": "train", "from": "rows", "shape": "nano", "steps": 2, "batch": 4, "warmup_steps": 1,
                "learning_rate": 1e-3, "validation_rows": 4 },
            "bound": { "kind": "evaluate", "model": "model", "data": "rows", "draws": 1, "rows": 4 },
            "again": { "kind": "evaluate", "model": "model", "data": "rows", "draws": 1, "rows": 4 },
            "foreign": { "kind": "checkpoint", "file": "../published", "shape": "nano", "tokenizer": "pairs" },
            "texts": { "kind": "sample", "model": "model", "count": 1, "steps": 2 },
            "drawn": { "kind": "sample", "model": "model", "count": 2, "steps": 2 },
            "quality": { "kind": "judge", "of": ["drawn"] },
            "table": { "kind": "compare", "of": ["bound", "again"] }
        }
    })
}

/// A change, and the stages that run because of it; stages that run only because an input does are not named.
struct Case {
    what: &'static str,
    manifest: fn(&mut Value),
    folder: fn(&Path),
    undo: fn(&Path),
    arguments: &'static [&'static str],
    reruns: &'static str,
}

const NOTHING: Case = Case {
    what: "nothing",
    manifest: |_| (),
    folder: |_| (),
    undo: |_| (),
    arguments: &[],
    reruns: "",
};

/// A change of the manifest.
const fn set(what: &'static str, manifest: fn(&mut Value), reruns: &'static str) -> Case {
    Case {
        what,
        manifest,
        reruns,
        ..NOTHING
    }
}

/// A change of files, and its undoing.
const fn files(what: &'static str, folder: fn(&Path), undo: fn(&Path), reruns: &'static str) -> Case {
    Case {
        what,
        folder,
        undo,
        reruns,
        ..NOTHING
    }
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).unwrap();
}

/// Changes the last byte of a file, or changes it back.
fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The rows of the table, by how they begin, each with its cases. Those without one are held by the unit tests beside
/// the table.
const ROWS: &[(&str, &[Case])] = &[
    (
        "the stage's kind and the version of its code",
        &[
            set(
                "another kind",
                |m| m["stages"]["texts"] = json!({ "kind": "evaluate", "model": "model", "data": "rows" }),
                "texts",
            ),
            set(
                "names",
                |m| {
                    let text = m.to_string().replace("\"pairs\"", "\"renamed\"");
                    *m = serde_json::from_str(&text).unwrap();
                    m["name"] = json!("other");
                    m["description"] = json!("what it is for");
                    m["$schema"] = json!("../schemas/pipeline.schema.json");
                },
                "",
            ),
        ],
    ),
    (
        "every setting, with defaults spelt out",
        &[
            set(
                "a field of the training",
                |m| m["stages"]["model"]["learning_rate"] = json!(2e-3),
                "model",
            ),
            set(
                "a field of a sample",
                |m| m["stages"]["texts"]["temperature"] = json!(0.5),
                "texts",
            ),
            set(
                "the order of fields and stages",
                |m| {
                    fn reversed(value: &mut Value) {
                        if let Value::Object(fields) = value {
                            fields.values_mut().for_each(reversed);
                            *fields = fields.clone().into_iter().rev().collect();
                        }
                    }
                    reversed(m);
                },
                "",
            ),
            set(
                "defaults that are written, numbers written otherwise",
                |m| {
                    m["stages"]["model"]["weight_decay"] = json!(0);
                    m["stages"]["model"]["learning_rate"] = serde_json::from_str("0.10E-2").unwrap();
                    m["stages"]["texts"]["weights"] = json!("ema");
                    m["stages"]["short"]["wrap"] = json!(true);
                    m["stages"]["short"]["grouping"] = json!({ "kind": "whole" });
                    m["stages"]["a"]["empty_records"] = json!("drop");
                },
                "",
            ),
        ],
    ),
    (
        "the contents of the consumed artifacts, by role",
        &[
            set(
                "other rows",
                |m| m["stages"]["bound"]["data"] = json!("more"),
                "bound",
            ),
            set(
                "the same tokens of another stage",
                |m| {
                    m["stages"]["others"] = m["stages"]["letters"].clone();
                    m["stages"]["short"]["from"] = json!("others");
                },
                "",
            ),
        ],
    ),
    (
        "of packed rows what they hold",
        &[
            set(
                "their format",
                |m| m["stages"]["short"]["format"] = json!("parquet"),
                "short",
            ),
            set(
                "the size of their shards",
                |m| m["stages"]["short"]["shard_rows"] = json!(3),
                "short",
            ),
            set(
                "how documents are joined",
                |m| m["stages"]["short"]["grouping"] = json!({ "kind": "published", "processes": 3 }),
                "short",
            ),
        ],
    ),
    (
        "the contents of files outside the store, in order",
        &[
            files(
                "content of a file of both sources",
                |folder| edit(&folder.join("corpus/a.txt"), "fox", "cat"),
                |folder| edit(&folder.join("corpus/a.txt"), "cat", "fox"),
                "a ab",
            ),
            files(
                "content of a file of one source",
                |folder| edit(&folder.join("corpus/b.txt"), "hare", "hart"),
                |folder| edit(&folder.join("corpus/b.txt"), "hart", "hare"),
                "ab",
            ),
            set(
                "their order",
                |m| m["stages"]["ab"]["input"]["files"] = json!(["../corpus/a.txt", "../corpus/b.txt"]),
                "ab",
            ),
            Case {
                what: "their names, folders and times",
                manifest: |m| {
                    m["stages"]["a"]["input"]["files"] = json!(["../texts/first.txt"]);
                    m["stages"]["ab"]["input"]["files"] = json!(["../texts/b.txt", "../texts/first.txt"]);
                },
                folder: |folder| {
                    fs::rename(folder.join("corpus"), folder.join("texts")).unwrap();
                    fs::rename(folder.join("texts/a.txt"), folder.join("texts/first.txt")).unwrap();
                    let text = fs::read(folder.join("texts/b.txt")).unwrap();
                    fs::write(folder.join("texts/b.txt"), text).unwrap();
                },
                undo: |folder| {
                    fs::rename(folder.join("texts/first.txt"), folder.join("texts/a.txt")).unwrap();
                    fs::rename(folder.join("texts"), folder.join("corpus")).unwrap();
                },
                ..NOTHING
            },
        ],
    ),
    (
        "of a comparison what its rows are called",
        &[
            set(
                "another name of a row",
                |m| {
                    let text = m.to_string().replace("\"again\"", "\"twice\"");
                    *m = serde_json::from_str(&text).unwrap();
                },
                "table",
            ),
            set(
                "another name of a judged row",
                |m| {
                    let text = m.to_string().replace("\"drawn\"", "\"sampled\"");
                    *m = serde_json::from_str(&text).unwrap();
                },
                "quality",
            ),
        ],
    ),
    (
        "of a checkpoint the contents of its files",
        &[
            files(
                "a weight",
                |folder| flip(&folder.join("published/model.safetensors")),
                |folder| flip(&folder.join("published/model.safetensors")),
                "foreign",
            ),
            files(
                "a file that is not the model's",
                |folder| fs::write(folder.join("published/NOTES.md"), "# Notes").unwrap(),
                |folder| fs::remove_file(folder.join("published/NOTES.md")).unwrap(),
                "",
            ),
            Case {
                what: "the folder's name",
                manifest: |m| m["stages"]["foreign"]["file"] = json!("../other"),
                folder: |folder| fs::rename(folder.join("published"), folder.join("other")).unwrap(),
                undo: |folder| fs::rename(folder.join("other"), folder.join("published")).unwrap(),
                ..NOTHING
            },
        ],
    ),
    (
        "the form that a file's name implies",
        &[Case {
            what: "another form by name",
            manifest: |m| m["stages"]["a"]["input"]["files"] = json!(["../corpus/a.csv"]),
            folder: |folder| {
                fs::copy(folder.join("corpus/a.txt"), folder.join("corpus/a.csv")).unwrap();
            },
            undo: |folder| fs::remove_file(folder.join("corpus/a.csv")).unwrap(),
            reruns: "a",
            ..NOTHING
        }],
    ),
    ("of a download its SHA-256", &[]),
    (
        "what the name of a corpus, or of a published tokenizer, stands for",
        &[],
    ),
    (
        "`source`: limits on what is read",
        &[set(
            "limits",
            |m| {
                m["stages"]["a"]["input"]["read"] =
                    json!({ "longest_record": 9999, "largest_ratio": 77, "largest_buffer": 99_999_999 });
            },
            "",
        )],
    ),
    (
        "the seed, where the stage draws random numbers",
        &[
            set(
                "the pipeline's seed",
                |m| m["seed"] = json!(2),
                "rows more model bound again texts drawn quality",
            ),
            set(
                "a stage's seed",
                |m| m["stages"]["texts"]["seed"] = json!(9),
                "texts",
            ),
            set(
                "the seed of a stage that draws none",
                |m| m["stages"]["short"]["seed"] = json!(9),
                "",
            ),
        ],
    ),
    (
        "`train`: `micro_batch`, `checkpoint_every`, `keep_checkpoints`",
        &[set(
            "how it is trained",
            |m| {
                m["stages"]["model"]["micro_batch"] = json!(2);
                m["stages"]["model"]["checkpoint_every"] = json!(1);
                m["stages"]["model"]["keep_checkpoints"] = json!({ "last": 2 });
            },
            "",
        )],
    ),
    (
        "`--device`, `--threads`, the machine, the store, the manifest's path",
        &[
            Case {
                what: "threads and device",
                arguments: &["--threads", "1", "--device", "cpu"],
                ..NOTHING
            },
            Case {
                what: "the store's folder",
                folder: |folder| fs::rename(folder.join(".mdlm"), folder.join("elsewhere")).unwrap(),
                undo: |folder| fs::rename(folder.join("elsewhere"), folder.join(".mdlm")).unwrap(),
                arguments: &["--store", "elsewhere"],
                ..NOTHING
            },
        ],
    ),
];

/// The stages of a plan that run for a reason of their own.
fn reruns(project: &Project, arguments: &[&str]) -> String {
    let arguments = [&["--json"], arguments].concat();
    let output = project.mdlm("plan", &arguments).output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{talk}"));
    let own = |stage: &&Value| {
        let reasons = stage["reasons"].as_array().unwrap();
        reasons.iter().any(|reason| reason["kind"] != "upstream_runs")
    };
    let stages = plan["stages"].as_array().unwrap();
    let names: Vec<_> = stages
        .iter()
        .filter(own)
        .map(|stage| stage["name"].as_str().unwrap())
        .collect();
    names.join(" ")
}

#[test]
fn cache_key_table_states_what_a_change_reruns() {
    let project = Project::new(60);
    let manifest = project.path().join("pipelines/tiny.json");
    fs::write(&manifest, pipeline().to_string()).unwrap();
    published(&project.path().join("published"));
    // The network has room for more tokens than the tokenizer has.
    edit(
        &project.path().join("published/config.json"),
        "\"vocab_size\":512",
        "\"vocab_size\":512,\"tokenizer_vocab_size\":300",
    );
    project.run(&[]);
    assert_eq!(reruns(&project, &[]), "");
    for (row, cases) in ROWS {
        for case in *cases {
            let mut changed = pipeline();
            (case.manifest)(&mut changed);
            fs::write(&manifest, serde_json::to_string_pretty(&changed).unwrap()).unwrap();
            (case.folder)(project.path());
            let ran = reruns(&project, case.arguments);
            (case.undo)(project.path());
            // Fields in reverse change the order in which stages are shown.
            let sorted = |names: &str| {
                let mut names: Vec<_> = names.split(' ').map(str::to_owned).collect();
                names.sort();
                names
            };
            assert_eq!(sorted(&ran), sorted(case.reruns), "{row}: {}", case.what);
        }
    }

    // The manifest's path, from another folder.
    fs::write(&manifest, pipeline().to_string()).unwrap();
    fs::create_dir_all(project.path().join("deep")).unwrap();
    fs::rename(&manifest, project.path().join("deep/other.json")).unwrap();
    let output = mdlm()
        .current_dir(project.path().join("deep"))
        .args(["plan", "--exit-code", "other.json"])
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// A row that is added to the table needs cases here.
#[test]
fn cache_key_table_has_cases_for_every_row() {
    let text = fs::read_to_string("src/stages/key.rs").unwrap();
    let table: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! |")?.strip_suffix('|'))
        .skip(2)
        .map(|row| {
            let (inside, outside) = row.split_once('|').unwrap();
            if inside.trim().is_empty() {
                outside.trim()
            } else {
                inside.trim()
            }
        })
        .collect();
    assert_eq!(table.len(), ROWS.len(), "{table:?}");
    for (row, (begins, _)) in table.iter().zip(ROWS) {
        assert!(row.starts_with(begins), "{row}: {begins}");
    }
}
