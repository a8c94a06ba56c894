//! Sweeps as manifests write them.

use serde_json::json;

use crate::manifest::{Faults, Loaded, Manifest, Stage};
use crate::shape::tests::EXAMPLES;

use std::collections::HashSet;

use serde_json::Value;

use super::values::spelling;
use super::*;

/// A pipeline with some fields of stages set.
fn load(changes: &[(&str, Value)]) -> Result<Loaded, Faults> {
    let mut manifest = json!({
        "name": "swept", "seed": 1,
        "stages": {
            "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt"] } },
            "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
            "rows": { "kind": "pack", "from": "tokens", "length": 32, "validation": 0.1 },
            "model": { "kind": "train", "from": "rows", "shape": "nano", "steps": 9000 },
            "bound": { "kind": "evaluate", "model": "model", "data": "rows" },
            "table": { "kind": "compare", "of": "bound" }
        }
    });
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = format!("/stages/{parent}");
        manifest.pointer_mut(parent.trim_end_matches('/')).unwrap()[key] = value.clone();
    }
    Manifest::from_bytes("swept.json", manifest.to_string().into_bytes(), &[], EXAMPLES)
}

fn names(loaded: &Loaded) -> Vec<&str> {
    let stages = loaded.manifest.stages.keys().map(String::as_str);
    stages.filter(|name| name.contains(SIGN)).collect()
}

fn model<'a>(loaded: &'a Loaded, name: &str) -> &'a crate::manifest::Train {
    match &loaded.manifest.stages[name] {
        Stage::Train(stage) => stage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn sweep_instances_are_plain_stages_and_consumers_fan_out() {
    let swept = load(&[(
        "model/matrix",
        json!({ "learning_rate": [1e-4, 3e-4], "objective.noise.epsilon": [1e-3, 1e-2], "objective.noise.kind": ["cosine"] }),
    )])
    .unwrap();
    assert_eq!(
        names(&swept),
        [
            "model@learning_rate=0.0001,objective.noise.epsilon=0.001,objective.noise.kind=cosine",
            "model@learning_rate=0.0001,objective.noise.epsilon=0.01,objective.noise.kind=cosine",
            "model@learning_rate=0.0003,objective.noise.epsilon=0.001,objective.noise.kind=cosine",
            "model@learning_rate=0.0003,objective.noise.epsilon=0.01,objective.noise.kind=cosine",
            "bound@learning_rate=0.0001,objective.noise.epsilon=0.001,objective.noise.kind=cosine",
            "bound@learning_rate=0.0001,objective.noise.epsilon=0.01,objective.noise.kind=cosine",
            "bound@learning_rate=0.0003,objective.noise.epsilon=0.001,objective.noise.kind=cosine",
            "bound@learning_rate=0.0003,objective.noise.epsilon=0.01,objective.noise.kind=cosine",
        ]
    );
    let by_hand = load(&[
        ("model/learning_rate", json!(3e-4)),
        (
            "model/objective",
            json!({ "kind": "mdlm", "noise": { "kind": "cosine", "epsilon": 0.01 } }),
        ),
    ])
    .unwrap();
    let name = "model@learning_rate=0.0003,objective.noise.epsilon=0.01,objective.noise.kind=cosine";
    assert_eq!(model(&swept, name), model(&by_hand, "model"));
    assert_eq!(swept.sweeps.written(name), "model");
    assert_eq!(swept.sweeps.point(name).unwrap()["objective.noise.epsilon"], 0.01);
    assert_eq!(swept.sweeps.point("rows"), None);
    let Stage::Evaluate(bound) = &swept.manifest.stages[&name.replace("model@", "bound@")] else {
        panic!("no evaluate stage");
    };
    assert_eq!((&*bound.model, &*bound.data), (name, "rows"));
    let Stage::Compare(table) = &swept.manifest.stages["table"] else {
        panic!("no compare stage");
    };
    assert_eq!(table.of.len(), 4);
    assert!(table.of[3].stage.starts_with("bound@") && table.of[3].name.is_none());
    assert_eq!(table.of[3].point["learning_rate"], 3e-4);
    let selected = swept.sweeps.spelt_out(&["model".to_owned(), "text".to_owned()]);
    assert_eq!(selected.len(), 5);
    // What is written stays what was written.
    assert!(swept.written["stages"]["model"]["matrix"].is_object());
}

#[test]
fn ranges_reach_their_end_and_their_numbers_are_tidy() {
    let values = |range: Value| {
        let loaded = load(&[("model/matrix", json!({ "dropout": range }))]).unwrap();
        let names = names(&loaded);
        let models = names.into_iter().filter(|name| name.starts_with("model@"));
        models
            .map(|name| {
                assert_eq!(
                    model(&loaded, name).dropout,
                    loaded.sweeps.point(name).unwrap()["dropout"]
                );
                name.rsplit_once('=').unwrap().1.to_owned()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(
        values(json!({ "from": 0, "to": 0.5, "step": 0.1 })),
        ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]
    );
    assert_eq!(
        values(json!({ "from": 0.5, "to": 0.1, "step": -0.2 })),
        ["0.5", "0.3", "0.1"]
    );
    assert_eq!(values(json!({ "from": 0.3, "to": 0.3 })), ["0.3"]);
    assert_eq!(
        values(json!({ "from": 1e-9, "to": 0.5, "factor": 1000 })),
        ["1e-9", "1e-6", "0.001"]
    );
    assert_eq!(
        values(json!({ "from": 0.4, "to": 0.05, "factor": 0.5 })),
        ["0.4", "0.2", "0.1", "0.05"]
    );
}

#[test]
fn consumers_of_two_sweeps_join_on_what_they_share() {
    // The model and its bound both come from one sweep of the rows.
    let diamond = load(&[("rows/matrix", json!({ "seed": [1, 2] }))]).unwrap();
    assert_eq!(
        names(&diamond),
        [
            "rows@seed=1",
            "rows@seed=2",
            "model@seed=1",
            "model@seed=2",
            "bound@seed=1",
            "bound@seed=2"
        ]
    );
    // A seed of its own is another one.
    let both = load(&[
        ("rows/matrix", json!({ "seed": [1, 2] })),
        ("model/matrix", json!({ "seed": [1, 2] })),
    ])
    .unwrap();
    assert_eq!(
        &names(&both)[2..6],
        [
            "model@rows.seed=1,model.seed=1",
            "model@rows.seed=1,model.seed=2",
            "model@rows.seed=2,model.seed=1",
            "model@rows.seed=2,model.seed=2"
        ]
    );
    assert_eq!(names(&both).len(), 10);
    let Stage::Evaluate(bound) = &both.manifest.stages["bound@rows.seed=2,model.seed=1"] else {
        panic!("no evaluate stage");
    };
    assert_eq!(
        (&*bound.model, &*bound.data),
        ("model@rows.seed=2,model.seed=1", "rows@seed=2")
    );
    // Sweeps that do not depend on each other: over one field they are joined, over two multiplied.
    let tests = json!({ "kind": "pack", "from": "tokens", "length": 32, "validation": 0.1, "matrix": { "seed": [1, 2] } });
    let two = |field: &str, values: Value| {
        load(&[
            ("/tests", tests.clone()),
            ("model/matrix", json!({ field: values })),
            ("bound/data", json!("tests")),
        ])
    };
    assert_eq!(names(&two("seed", json!([2, 1])).unwrap()).len(), 6);
    assert_eq!(
        names(&two("ema", json!([0.5, 0.6, 0.7])).unwrap()).len(),
        2 + 3 + 6
    );
    let faults = two("seed", json!([1, 3])).unwrap_err().to_string();
    assert!(
        faults
            .contains("the sweeps of `model` and `tests` do not match: `model@seed=3` has no counterpart with the same values"),
        "{faults}"
    );
}

/// Joined by what they share and not each with each: 3,000 · 3,000 comparisons of points would take minutes.
#[test]
fn consumers_of_two_long_sweeps_join_each_instance_with_its_own() {
    let seeds = json!({ "seed": { "from": 1, "to": 3_000 } });
    let swept = load(&[("rows/matrix", seeds)]).unwrap();
    let bounds = swept.sweeps.instances("bound").unwrap();
    assert_eq!(bounds.len(), 3_000);
    for instance in bounds {
        let Stage::Evaluate(bound) = &swept.manifest.stages[&instance.name] else {
            panic!("no evaluate stage");
        };
        let seed = &instance.point["seed"];
        assert_eq!(bound.model, format!("model@seed={seed}"));
        assert_eq!(bound.data, format!("rows@seed={seed}"));
    }
}

#[test]
fn values_of_long_lists_are_given_once() {
    let seeds: Vec<u32> = (1..=3_000).collect();
    assert_eq!(
        names(&load(&[("model/matrix", json!({ "seed": seeds }))]).unwrap()).len(),
        6_000
    );
    let twice: Vec<u32> = (1..=3_000).chain([17]).collect();
    let faults = load(&[("model/matrix", json!({ "seed": twice }))]).unwrap_err();
    assert!(faults.to_string().contains("`17` is given twice"), "{faults}");
    // In another order of fields.
    let noise = json!([{ "kind": "cosine", "epsilon": 0.1 }, { "epsilon": 0.1, "kind": "cosine" }]);
    let faults = load(&[("model/matrix", json!({ "objective.noise": noise }))]).unwrap_err();
    assert!(faults.to_string().contains("is given twice"), "{faults}");
}

#[test]
fn stages_may_be_swept_and_single_instances_named() {
    let loaded = load(&[
        ("rows/matrix", json!({ "wrap": [true, false] })),
        (
            "/others",
            json!({ "kind": "pack", "from": "tokens", "length": 32 }),
        ),
        ("model/matrix", json!({ "from": ["others", "rows@wrap=true"] })),
        ("bound/model", json!("model@from=others")),
        ("table/of", json!(["bound", "model", "model@from=others"])),
    ])
    .unwrap();
    assert_eq!(
        &names(&loaded)[2..],
        [
            "model@from=others",
            "model@from=rows-wrap-true.9b0ac6",
            "bound@wrap=true",
            "bound@wrap=false"
        ]
    );
    let Stage::Compare(table) = &loaded.manifest.stages["table"] else {
        panic!("no compare stage");
    };
    let rows: Vec<_> = table
        .of
        .iter()
        .map(|row| (row.name.as_deref().unwrap(), row.point.len()))
        .collect();
    assert_eq!(
        rows,
        [
            ("bound", 1),
            ("bound", 1),
            ("model", 1),
            ("model", 1),
            ("model", 1)
        ]
    );
}

#[test]
fn values_of_every_kind_have_names_that_shells_and_paths_take() {
    for (value, name) in [
        (json!(1e-4), "0.0001"),
        (json!(-3), "-3"),
        (json!(true), "true"),
        (json!(null), "default"),
        (json!("lm1b-small"), "lm1b-small"),
        (json!({ "kind": "cosine" }), "cosine"),
    ] {
        assert_eq!(spelling(&value), name);
    }
    let odd = [
        json!(""),
        json!("a b"),
        json!("a-b/"),
        json!("../../etc/passwd"),
        json!("$(rm -rf /)"),
        json!("ä@=,"),
        json!("x".repeat(41)),
        json!([1, 2]),
        json!([]),
        json!({ "kind": "cosine", "epsilon": 0.1 }),
        json!({ "kind": "cosine", "epsilon": 0.2 }),
        json!({}),
    ];
    let names: HashSet<String> = odd.iter().map(spelling).collect();
    assert_eq!(names.len(), odd.len(), "{names:?}");
    for name in names {
        assert!(
            name.chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c))
                && !name.starts_with('.'),
            "{name}"
        );
    }
    // Different values with one name are refused as such.
    let faults = load(&[("model/matrix", json!({ "schedule": [null, "default"] }))])
        .unwrap_err()
        .to_string();
    let message = "`null` and `\"default\"` would both be named `default` in their instances";
    assert!(faults.contains(message), "{faults}");
    // Where a field is removed its default holds.
    let loaded = load(&[("model/matrix", json!({ "dropout": [null, 0.2] }))]).unwrap();
    assert_eq!(model(&loaded, "model@dropout=default").dropout, 0.1);
}

#[test]
fn hint_for_a_list_of_values_adds_it_to_the_matrix() {
    let seeds = ("model/matrix", json!({ "seed": [1, 2] }));
    let swept = load(std::slice::from_ref(&seeds)).unwrap();
    let with = |argument: &str| {
        let text = swept.text.clone().into_bytes();
        Manifest::from_bytes("swept.json", text, &[argument.to_owned()], EXAMPLES)
    };
    let faults = with("stages.model.learning_rate=[0.001,0.002]")
        .unwrap_err()
        .to_string();
    let set = "stages.model.matrix.learning_rate=[0.001,0.002]";
    assert!(faults.contains(&format!("--set '{set}'")), "{faults}");
    assert_eq!(names(&with(set).unwrap()).len(), 8);
    let faults = load(&[seeds, ("model/learning_rate", json!([0.001, 0.002]))]);
    let faults = faults.unwrap_err().to_string();
    assert!(faults.contains("into `matrix` of `model`: "), "{faults}");
    let faults = load(&[("model/matrix", json!({ "learning_rate": [[0.001, 0.002]] }))]);
    let faults = faults.unwrap_err().to_string();
    assert!(
        faults.contains("this is an array") && !faults.contains("to sweep"),
        "{faults}"
    );
}

#[test]
fn limit_on_the_number_of_instances() {
    let range = |to: u32| json!({ "seed": { "from": 1, "to": to } });
    // 1,200 models and bounds, and the other stages.
    let made = load(&[("model/matrix", range(1_200))]).unwrap();
    assert_eq!(made.manifest.stages.len(), 2_404);
    assert_eq!(made.sweeps.point("bound@seed=1200").unwrap()["seed"], 1_200);
    let message_of = |changes: &[(&str, Value)]| load(changes).unwrap_err().to_string();
    // 401 · 250 models.
    let faults = message_of(&[
        ("rows/matrix", range(401)),
        ("model/matrix", json!({ "batch": { "from": 1, "to": 250 } })),
    ]);
    assert!(
        faults.contains("the sweeps make more than 100,000 stages"),
        "{faults}"
    );
    let faults = message_of(&[("model/matrix", range(100_001))]);
    assert!(
        faults.contains("the range has more than 100,000 values")
            && faults.contains("at most 100,000 stages in all"),
        "{faults}"
    );
    let fields = [
        "seed",
        "steps",
        "batch",
        "micro_batch",
        "checkpoint_every",
        "validation_every",
    ];
    let wide: serde_json::Map<String, Value> = fields
        .iter()
        .map(|field| ((*field).to_owned(), json!({ "from": 1, "to": 1000 })))
        .collect();
    let faults = message_of(&[("model/matrix", Value::Object(wide))]);
    assert!(faults.contains("the matrix makes"), "{faults}");
}

#[test]
fn sweep_of_settings_by_name_sets_fields_together() {
    let corpora = json!({
        "short": { "input.files": ["a.txt"], "detokenize": "ptb" },
        "long": { "input.files": ["b.txt", "c.txt"] }
    });
    let swept = load(&[
        ("text/matrix", json!({ "corpus": corpora })),
        ("model/from", json!("rows@corpus=long")),
        (
            "bound/matrix",
            json!({ "corpus": { "short": { "draws": 8 }, "long": { "draws": 2 } }, "seed": [1, 2] }),
        ),
    ])
    .unwrap();
    assert_eq!(
        names(&swept),
        [
            "text@corpus=short",
            "text@corpus=long",
            "tokens@corpus=short",
            "tokens@corpus=long",
            "rows@corpus=short",
            "rows@corpus=long",
            "bound@text.corpus=short,bound.corpus=short,seed=1",
            "bound@text.corpus=short,bound.corpus=short,seed=2",
            "bound@text.corpus=short,bound.corpus=long,seed=1",
            "bound@text.corpus=short,bound.corpus=long,seed=2",
            "bound@text.corpus=long,bound.corpus=short,seed=1",
            "bound@text.corpus=long,bound.corpus=short,seed=2",
            "bound@text.corpus=long,bound.corpus=long,seed=1",
            "bound@text.corpus=long,bound.corpus=long,seed=2",
        ]
    );
    let (Stage::Source(short), Stage::Source(long)) = (
        &swept.manifest.stages["text@corpus=short"],
        &swept.manifest.stages["text@corpus=long"],
    ) else {
        panic!("no source stages");
    };
    assert_eq!(
        (short.detokenize.is_some(), long.detokenize.is_some()),
        (true, false)
    );
    assert_ne!(short.input, long.input);
    assert_eq!(
        swept.sweeps.point("text@corpus=short").unwrap()["corpus"],
        "short"
    );
}

#[test]
fn sweep_of_settings_by_name_reports_faults_at_their_fields() {
    let fault = |corpora: Value| {
        let faults = load(&[("model/matrix", json!({ "size": corpora }))]).unwrap_err();
        faults.to_string()
    };
    let wrong = fault(json!({ "small": { "steps": 5, "batch": "many" }, "large": { "steps": 9 } }));
    assert!(wrong.contains("`many` is a string"), "{wrong}");
    let unknown = fault(json!({ "small": { "stepz": 5 } }));
    assert!(
        unknown.contains("stepz") && unknown.contains("`steps`"),
        "{unknown}"
    );
    for (corpora, message) in [
        (
            json!({ "a b": { "steps": 5 } }),
            "`a b` is not a valid name of settings",
        ),
        (
            json!({ "a": { "steps": 5 }, "b": 3 }),
            "`3` is not an object of settings",
        ),
        (json!({ "a": { "kind": "train" } }), "`kind` cannot be swept"),
        (json!({ "a": { "steps.of": 5 } }), "`steps` is not an object"),
    ] {
        let faults = fault(corpora);
        assert!(faults.contains(message), "{faults}");
    }
}
