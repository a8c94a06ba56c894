//! Judge stages: what they measure of the samples of several samplers, their report, and the faults of their settings.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Project, printed};

/// A grammar whose records are one or two words of one letter.
const GRAMMAR: &str = "\
class letter: form
  a, b, c, d
rule record =
  {letter}
  {letter} {letter}
";

/// A project that samples models of a small grammar, and judges them with these settings.
fn project(settings: &Value) -> Project {
    let project = Project::new(1);
    fs::write(project.path().join("pipelines/small.grammar"), GRAMMAR).unwrap();
    let train = |objective: &str| {
        json!({
            "kind": "train", "from": "rows", "shape": "nano", "steps": 3, "batch": 8, "warmup_steps": 1,
            "learning_rate": 1e-3, "objective": { "kind": objective }
        })
    };
    let mut judge = json!({ "kind": "judge", "of": ["texts", "causal-texts"] });
    judge
        .as_object_mut()
        .unwrap()
        .extend(settings.as_object().unwrap().clone());
    let manifest = json!({ "name": "tiny", "seed": 1, "stages": {
        "text": { "kind": "source", "input": { "kind": "synthetic", "grammar": "small.grammar", "records": 600 } },
        "tokens": {
            "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters", "alphabet": " abcd" }
        },
        "rows": { "kind": "pack", "from": "tokens", "length": 32, "validation": 0.1 },
        "held-out": { "kind": "pack", "from": "tokens", "length": 32, "validation": 1.0 },
        "model": train("mdlm"),
        "causal": train("ar"),
        "texts": { "kind": "sample", "model": "model", "count": 4, "matrix": { "steps": [2, 8] } },
        "causal-texts": { "kind": "sample", "model": "causal", "count": 5 },
        "judge": judge,
    } });
    fs::write(project.path().join("pipelines/tiny.json"), manifest.to_string()).unwrap();
    project
}

/// The stage that a summary has under that name.
fn stage<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let stages = summary["stages"].as_array().unwrap();
    stages.iter().find(|stage| stage["name"] == name).unwrap()
}

/// A file of the judge stage.
fn file(project: &Project, summary: &Value, name: &str) -> String {
    let folder = PathBuf::from(stage(summary, "judge")["path"].as_str().unwrap());
    fs::read_to_string(project.path().join(folder).join(name)).unwrap()
}

#[test]
fn judge_measures_each_sampler_and_writes_tables_and_charts() {
    let settings = json!({
        "grammar": "text", "reference_records": 300, "model": "causal", "training": "rows", "verbatim_tokens": 3
    });
    let project = project(&settings);
    let summary = project.run(&[]);
    let found: Value = serde_json::from_str(&file(&project, &summary, "judge.json")).unwrap();
    let rows = found["rows"].as_array().unwrap();
    let of = |field: &str| -> Vec<Value> { rows.iter().map(|row| row[field].clone()).collect() };
    assert_eq!(
        of("name"),
        [json!("texts"), json!("texts"), json!("causal-texts")]
    );
    assert_eq!(
        of("point"),
        [json!({ "steps": 2 }), json!({ "steps": 8 }), json!({})]
    );
    assert_eq!(of("objective"), [json!("mdlm"), json!("mdlm"), json!("ar")]);
    assert_eq!(of("rows"), [json!(4), json!(4), json!(5)]);
    for row in rows {
        let grammar = &row["grammar"];
        assert!(grammar["source"]["records"].as_u64().unwrap() >= 300);
        // ln 2 + ½ ln 4 + ½ ln 16.
        let entropy = grammar["source"]["entropy_nats_per_record"].as_f64().unwrap();
        assert!((entropy - 4.0 * 2f64.ln()).abs() < 1e-12);
        let counts = ["malformed", "grammatical"].map(|field| grammar[field].as_u64().unwrap());
        assert!(counts[0] + counts[1] <= grammar["records"].as_u64().unwrap());
        let perplexity = &row["perplexity"];
        assert_eq!(perplexity["variant"], "plain");
        let value = perplexity["perplexity"]["value"].as_f64().unwrap();
        assert!(value > 1.0 && perplexity["perplexity"]["low"].as_f64().unwrap() <= value);
        assert!(row["text"]["unigram_entropy"]["value"].as_f64().unwrap() > 0.0);
        assert_eq!(row["text"]["distinct"].as_array().unwrap().len(), 4);
        let training = &row["training"];
        assert_eq!(training["verbatim_tokens"], 3);
        assert!(training["longest"].as_u64().unwrap() >= 1);
    }
    let text = file(&project, &summary, "judge.md");
    for expected in [
        "# 3 sample stages",
        "| samples | sampler | steps | network calls a row | records | grammatical |",
        "| texts steps=2 | cached | 2 | ",
        "| causal-texts | autoregressive | ",
        "| generative perplexity | variant |",
        "| distinct-1 | distinct-2 | distinct-3 | distinct-4 | repetition | self-BLEU |",
        "(≥ 3 tokens)",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    let page = fs::read_to_string(project.store().join("reports/tiny.html")).unwrap();
    for expected in [
        ">network calls a row<",
        ">as much fresh text of the source, mean of 39 sets<",
        "<th>unigram entropy, nats</th>",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    let figures = &stage(&summary, "judge")["figures"];
    assert_eq!(figures["sample stages"], "3");
    // Another run measures nothing again; a different variant does, with the same measures of the grammar.
    let again = project.run(&[]);
    assert_eq!(stage(&again, "judge")["status"], "cached", "{again}");
    let other = project.run(&["--set", "stages.judge.variant=mdlm"]);
    let other: Value = serde_json::from_str(&file(&project, &other, "judge.json")).unwrap();
    for (a, b) in rows.iter().zip(other["rows"].as_array().unwrap()) {
        assert_eq!(a["grammar"], b["grammar"]);
        assert_eq!(b["perplexity"]["variant"], "mdlm");
        assert_ne!(
            a["perplexity"]["nats_per_token"],
            b["perplexity"]["nats_per_token"]
        );
    }
}

#[test]
fn judge_shows_settings_of_sampling_beside_the_sampler() {
    let project = project(&json!({ "grammar": "text", "reference_records": 300 }));
    let summary = project.run(&["--set", "stages.texts.matrix={\"top_p\": [0.5, 0.9, 1.0]}"]);
    let found: Value = serde_json::from_str(&file(&project, &summary, "judge.json")).unwrap();
    let settings: Vec<&Value> = (found["rows"].as_array().unwrap().iter())
        .map(|row| &row["settings"])
        .collect();
    // 1 has no effect.
    assert_eq!(
        settings,
        [
            &json!({ "top_p": 0.5 }),
            &json!({ "top_p": 0.9 }),
            &Value::Null,
            &Value::Null
        ]
    );
    let text = file(&project, &summary, "judge.md");
    for expected in [
        "| cached, top_p 0.5 | 128 |",
        "| cached, top_p 0.9 | 128 |",
        "| cached | 128 |",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}

#[test]
fn judge_finds_text_of_a_source_that_a_model_repeats() {
    let project = project(&json!({ "of": "causal-texts", "training": "text", "verbatim_tokens": 1 }));
    let summary = project.run(&[]);
    let found: Value = serde_json::from_str(&file(&project, &summary, "judge.json")).unwrap();
    let row = &found["rows"][0];
    assert_eq!(
        (&row["grammar"], &row["perplexity"]),
        (&Value::Null, &Value::Null)
    );
    // Records have at most three characters, and letters of the alphabet are all in one of them.
    assert!((1..=3).contains(&row["training"]["longest"].as_u64().unwrap()));
    assert_eq!(row["training"]["verbatim"]["value"], 1.0);
    let figures = stage(&summary, "judge")["figures"].as_object().unwrap();
    let names: Vec<&String> = figures.keys().collect();
    assert_eq!(names, ["unigram entropy", "verbatim rows"]);
}

#[test]
fn judge_settings_that_do_not_fit_are_refused_with_a_way_out() {
    let faults = |settings: Value| {
        let project = project(&settings);
        let (code, _, talk) = printed(&mut project.mdlm("validate", &[]));
        (code, talk.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let fine = json!({ "grammar": "text", "model": "causal", "training": "text", "variant": "bd3lms" });
    assert_eq!(faults(fine).0, Some(0));
    for (settings, expected) in [
        (
            json!({ "model": "model" }),
            &[
                "`model` has the objective `mdlm`",
                "with the objective `ar`: `causal`",
                "leave `model` out",
            ][..],
        ),
        (
            json!({ "variant": "mdlm" }),
            &[
                "`variant` has no effect without `model`",
                "leave `variant` out, or set `model`",
            ],
        ),
        (
            json!({ "reference_records": 500 }),
            &["`reference_records` has no effect without `grammar`"],
        ),
        (
            json!({ "verbatim_tokens": 5 }),
            &["`verbatim_tokens` has no effect without `training`"],
        ),
        (
            json!({ "of": "model" }),
            &[
                "`of` of `judge` names `model`, a train stage",
                "a sample stage: `texts` or `causal-texts`",
            ],
        ),
        (
            json!({ "of": [] }),
            &["`of` is empty", "the name of a sample stage"],
        ),
        (
            json!({ "grammar": "tokens" }),
            &["names `tokens`, a tokenize stage"],
        ),
        (
            json!({ "training": "held-out" }),
            &[
                "the `train` split of `held-out` is empty",
                "name the source stage of its text, `text`",
            ],
        ),
    ] {
        let (code, talk) = faults(settings.clone());
        assert_eq!(code, Some(2), "{settings}: {talk}");
        for expected in expected {
            assert!(talk.contains(expected), "{settings}: {expected} is not in {talk}");
        }
    }
}
