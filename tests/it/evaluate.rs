//! Evaluations: what their values are per, how padding counts, and the published bound.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::Project;

/// A project with padded rows of which padding counts, whose model is swept over the seeds 1 and 2.
fn padded() -> Project {
    let project = Project::whole(60);
    let path = project.path().join("pipelines/tiny.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let stages = &mut manifest["stages"];
    stages["rows"]["wrap"] = json!(false);
    stages["rows"]["padding"] = json!("counted");
    stages["model"]["steps"] = json!(120);
    stages["model"]["batch"] = json!(1);
    stages["model"]["validation_every"] = json!(100);
    stages["model"]["matrix"] = json!({ "seed": [1, 2] });
    stages["texts"]["model"] = json!("model@seed=1");
    stages["table"] = json!({ "kind": "compare", "of": "bound" });
    fs::write(&path, manifest.to_string()).unwrap();
    project
}

fn file(project: &Project, summary: &Value, stage: &str, name: &str) -> String {
    let stages = summary["stages"].as_array().unwrap();
    let found = stages.iter().find(|one| one["name"] == stage).unwrap();
    let folder = PathBuf::from(found["path"].as_str().unwrap());
    fs::read_to_string(project.path().join(folder).join(name)).unwrap()
}

#[test]
#[expect(clippy::too_many_lines, reason = "checks of one run")]
fn padding_units_and_seeds_are_stated_by_evaluation_compare_and_report() {
    let project = padded();
    let summary = project.run(&[]);
    let read = |stage: &str, name: &str| file(&project, &summary, stage, name);

    // Padding, though it counts.
    let rows: Value = serde_json::from_str(&read("rows", "rows.json")).unwrap();
    let train = &rows["train"];
    let number = |value: &Value| value.as_f64().unwrap();
    let positions = 32.0 * number(&train["rows"]);
    assert_eq!(number(&train["counted"]), positions);
    // A row is BOS, its tokens and EOS, which `kept_tokens` counts once.
    assert_eq!(
        number(&train["padding"]),
        positions - number(&train["kept_tokens"]) - number(&train["rows"])
    );
    assert!(number(&train["padding"]) > 0.0);
    let figures = summary["stages"].as_array().unwrap();
    let figure = |stage: &str, name: &str| {
        let stage = figures.iter().find(|one| one["name"] == stage).unwrap();
        stage["figures"][name]
            .as_str()
            .unwrap_or_else(|| panic!("{stage}"))
            .to_owned()
    };
    let share = 100.0 * number(&train["padding"]) / positions;
    assert_eq!(figure("rows", "train padding"), format!("{share:.1}%, counted"));

    // What numbers are per.
    let evaluation: Value = serde_json::from_str(&read("bound@seed=1", "evaluation.json")).unwrap();
    assert_eq!(evaluation["unit"], "per position, padding included");
    let held_out = &rows["validation"];
    let text = 32.0 * number(&held_out["rows"]) - number(&held_out["padding"]);
    let per_token = number(&evaluation["nats_per_token"]["value"]) * 32.0 * number(&held_out["rows"]) / text;
    let found = number(&evaluation["nats_per_token_of_text"]["value"]);
    assert!((found - per_token).abs() < 1e-9, "{found} is not {per_token}");
    let found = number(&evaluation["perplexity_per_token_of_text"]["value"]);
    assert!((found - per_token.exp()).abs() < 1e-6 * found);
    // Bits per byte are of the same nats, whatever they are divided by before.
    let bits = per_token * text / number(&held_out["kept_bytes"]) / std::f64::consts::LN_2;
    let found = number(&evaluation["bits_per_byte"]["value"]);
    assert!((found - bits).abs() < 1e-9, "{found} is not {bits}");
    let markdown = read("bound@seed=1", "evaluation.md");
    assert!(
        markdown.contains("| perplexity per position, padding included |"),
        "{markdown}"
    );
    assert!(
        markdown.contains("| perplexity per token of text |"),
        "{markdown}"
    );
    assert!(figure("bound@seed=1", "perplexity").ends_with("per position, padding included"));
    assert!(figure("bound@seed=1", "perplexity of text").ends_with("per token of text"));

    // A line of the metrics says how many steps it is the mean of.
    let metrics: Vec<Value> = read("model@seed=1", "metrics.jsonl")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let steps: Vec<u64> = metrics.iter().filter_map(|line| line["steps"].as_u64()).collect();
    assert_eq!(steps, [vec![1; 100], vec![10; 2]].concat());
    let validation = metrics
        .iter()
        .find(|line| line["validation"].is_object())
        .unwrap();
    assert_eq!(validation["validation"]["unit"], "per position, padding included");

    // Seeds have a mean and no rank.
    let table: Value = serde_json::from_str(&read("table", "compare.json")).unwrap();
    let values = [1, 2].map(|seed| {
        let bound: Value =
            serde_json::from_str(&read(&format!("bound@seed={seed}"), "evaluation.json")).unwrap();
        number(&bound["bits_per_byte"]["value"])
    });
    let seeds: Vec<_> = table["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["point"]["seed"])
        .collect();
    assert_eq!(seeds, [1, 2], "in the manifest's order");
    let spread = &table["groups"][0]["metrics"]["bits_per_byte"];
    assert!((number(&spread["mean"]) - f64::midpoint(values[0], values[1])).abs() < 1e-12);
    let sd = (values[0] - values[1]).abs() / 2f64.sqrt();
    assert!((number(&spread["sd"]) - sd).abs() < 1e-9, "{spread} {values:?}");
    assert_eq!(spread["n"], 2);
    assert!(
        summary["stages"]
            .as_array()
            .unwrap()
            .iter()
            .all(|stage| stage["figures"]["best"].is_null())
    );
    assert!(figure("table", "mean").ends_with("mean ± sd of 2 seeds"));
    let output = project.mdlm("compare", &[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("1 setting, 2 seeds: mean ± sd over seeds") && !text.contains("first"),
        "{text}"
    );
    assert!(text.contains("per position, padding included"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");

    // The report.
    project
        .mdlm("report", &["--output", "report.html"])
        .assert()
        .success();
    let page = fs::read_to_string(project.path().join("report.html")).unwrap();
    for what in [
        "mean ± standard deviation over seeds",
        "± is the standard deviation of single results (with n − 1) over seed (train)",
        "nats per position, padding included",
        "loss of single steps",
        "loss, means of 10 steps",
        "%, counted",
    ] {
        assert!(page.contains(what), "{what} is not in the report");
    }
    assert!(!page.contains("best"), "a seed is not the best");
}

#[test]
fn published_bound_grid_and_warmup_are_named_in_the_manifest() {
    let project = Project::whole(60);
    let validate = |set: &[&str]| {
        let mut arguments = vec!["--json"];
        for assignment in set {
            arguments.extend(["--set", assignment]);
        }
        let output = project.mdlm("validate", &arguments).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        report[0]["faults"].as_array().unwrap().clone()
    };
    let published = [
        "stages.bound.bound=published",
        "stages.texts.sampler.grid=published",
        "stages.model.warmup_rates=published",
    ];
    assert!(validate(&published).is_empty());
    let faults = validate(&["stages.bound.bound=published", "stages.bound.estimator=count"]);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0]["pointer"], "/stages/bound/bound");
    // At their defaults they are in no key.
    let keys = |set: &[&str]| {
        let mut arguments = vec!["--json"];
        for assignment in set {
            arguments.extend(["--set", assignment]);
        }
        let output = project.mdlm("plan", &arguments).output().unwrap();
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        plan["stages"].clone()
    };
    let defaults = [
        "stages.bound.bound=valid",
        "stages.texts.sampler.grid=exact",
        "stages.model.warmup_rates=from_one",
    ];
    assert_eq!(keys(&[]), keys(&defaults));

    // The published bound leaves out both ends.
    let changes = ["--set", "stages.model.steps=4", "--set", "stages.bound.draws=32"];
    let of = |bound: &str| {
        let set = format!("stages.bound.bound={bound}");
        let arguments = [&changes[..], &["--set", &set, "--target", "bound"]].concat();
        let summary = project.run(&arguments);
        let text = file(&project, &summary, "bound", "evaluation.json");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let (valid, published) = (of("valid"), of("published"));
    assert_eq!(
        (&valid["bound"], &published["bound"]),
        (&Value::Null, &json!("published"))
    );
    assert_ne!(valid["nats_per_token"], published["nats_per_token"]);
    // An untrained model's loss is the same at any noise: both are log V then, but for chance.
    let nats = |found: &Value| found["nats_per_token"]["value"].as_f64().unwrap();
    assert!(
        (nats(&valid) / nats(&published) - 1.0).abs() < 0.2,
        "{valid} {published}"
    );
}

/// A causal and a masked model on rows that overlap and on last words, from one manifest.
#[test]
#[expect(clippy::too_many_lines, reason = "checks of one run")]
fn overlapping_rows_last_words_and_words_are_evaluated_and_compared() {
    let project = Project::whole(40);
    let path = project.path().join("pipelines/tiny.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let stages = manifest["stages"].as_object_mut().unwrap();
    stages.shift_remove("texts");
    let model = &mut stages["model"];
    model["steps"] = json!(12);
    model["validation_every"] = json!(12);
    model["matrix"] = json!({ "objective": [{ "kind": "ar" }, { "kind": "mdlm" }] });
    let source = stages
        .values_mut()
        .find(|stage| stage["kind"] == "source")
        .unwrap();
    source["count_words"] = json!(true);
    source["input"]["read"] = json!({ "format": { "kind": "text", "record": "line" } });
    let rows = stages["rows"].clone();
    let tokens = rows["from"].clone();
    let pack = |settings: Value| {
        let mut stage = json!({ "kind": "pack", "from": tokens, "length": 32, "validation": 1.0 });
        stage
            .as_object_mut()
            .unwrap()
            .extend(settings.as_object().unwrap().clone());
        stage
    };
    let bound = |data: &str| json!({ "kind": "evaluate", "model": "model", "data": data, "draws": 2 });
    for (name, stage) in [
        ("sliding", pack(json!({ "stride": 15 }))),
        ("ends", pack(json!({ "wrap": false, "scored": "last_word" }))),
        ("bound", bound("sliding")),
        ("last", bound("ends")),
        (
            "table",
            json!({ "kind": "compare", "of": ["bound", "last"], "sort": "perplexity" }),
        ),
    ] {
        stages.insert(name.to_owned(), stage);
    }
    fs::write(&path, manifest.to_string()).unwrap();
    let summary = project.run(&[]);
    let read = |stage: &str, name: &str| file(&project, &summary, stage, name);
    let json = |stage: &str, name: &str| -> Value { serde_json::from_str(&read(stage, name)).unwrap() };
    let number = |value: &Value| value.as_f64().unwrap();
    let packed = json("sliding", "rows.json");
    let held_out = &packed["validation"];
    // 80 lines of the words of the two files.
    assert_eq!(held_out["records"], 80);
    assert_eq!(held_out["words"], 80 * 14);
    assert_eq!(
        (&held_out["counted"], &held_out["kept_words"]),
        (&held_out["tokens"], &held_out["words"])
    );
    for (kind, exact) in [("ar", true), ("mdlm", false)] {
        let found = json(&format!("bound@objective={kind}"), "evaluation.json");
        // Every token once, by both.
        assert_eq!(found["tokens"], held_out["tokens"], "{kind}");
        assert_eq!(found.get("scored_tokens"), None, "{kind}");
        assert_eq!((&found["stride"], &found["words"]), (&json!(15), &json!(80 * 14)));
        assert_eq!(found["text"]["dropped_tokens"], 0);
        let nats = number(&found["nats_per_token"]["value"]) * number(&held_out["tokens"]);
        let per_word = (nats / 1120.0).exp();
        let stated = number(&found["perplexity_per_word"]["value"]);
        assert!(
            (stated - per_word).abs() < 1e-9 * per_word,
            "{kind}: {stated} {per_word}"
        );
        let markdown = read(&format!("bound@objective={kind}"), "evaluation.md");
        assert!(markdown.contains("| perplexity per word |"), "{markdown}");
        assert!(
            markdown.contains("Rows overlap: each begins 15 tokens"),
            "{markdown}"
        );
        assert!(!markdown.contains("given its length"), "{markdown}");

        let found = json(&format!("last@objective={kind}"), "evaluation.json");
        assert_eq!(
            (&found["rows"], &found["scored"]),
            (&json!(80), &json!("last_word"))
        );
        let last = &found["last_word"];
        let per_record = number(&found["nats_per_token"]["value"]) * number(&found["tokens"]) / 80.0;
        let stated = number(&last["perplexity"]["value"]);
        assert!(
            (stated - per_record.exp()).abs() < 1e-9 * stated,
            "{kind}: {stated}"
        );
        // The last word is `it` in every line, which even this model knows or does not, as one.
        let right = number(&last["right"]);
        assert!((number(&last["accuracy"]["value"]) - right / 80.0).abs() < 1e-12);
        assert!(number(&last["accuracy"]["low"]) <= right / 80.0);
        assert_eq!(found["estimator"] == "exact", exact);
    }
    // A table for each of the two texts, in the order that the stage asks for.
    let table = json("table", "compare.json");
    let texts = table["texts"].as_array().unwrap();
    assert_eq!(texts.len(), 2);
    for text in texts {
        assert_eq!(
            (&text["sorted_by"], text["rows"].as_array().unwrap().len()),
            (&json!("perplexity"), 2)
        );
        let of = |row: usize| number(&text["rows"][row]["metrics"]["perplexity"]["value"]);
        assert!(of(0) <= of(1));
    }
    assert_eq!(texts[0]["rows"][0]["words"], 1120);
    assert_eq!(texts[1]["rows"][0]["text"]["last_words"], true);
    let shown = project.mdlm("compare", &["--json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown.as_array().unwrap().len(), 2);
    assert_eq!(shown[0]["sorted_by"], "perplexity");
    assert!(
        shown[1]["rows"][0]["metrics"]["last_word_accuracy"].is_object(),
        "{shown}"
    );
    let shown = project.mdlm("compare", &[]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.contains("On one text: the last words of 80 records"),
        "{shown}"
    );
    // The bytes do not depend on how many rows go through the network at a time, nor on threads.
    let again = project
        .mdlm("run", &["--store", "other", "--threads", "1", "--json"])
        .output()
        .unwrap();
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(Project::artifacts(&again), Project::artifacts(&summary));
}

/// A text that fills no row is refused with its size and the settings that keep it.
#[test]
fn text_too_short_for_a_row_is_an_error_with_a_way_out() {
    let project = Project::new(1);
    let path = project.path().join("pipelines/tiny.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    manifest["stages"]["rows"]["length"] = json!(4096);
    manifest["stages"]["rows"]["validation"] = json!(1.0);
    fs::write(&path, manifest.to_string()).unwrap();
    let output = project.mdlm("run", &["--target", "rows"]).output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{talk}");
    let talk = crate::support::words(&talk);
    assert!(talk.contains("gets no row: it has 2 records with "), "{talk}");
    assert!(
        talk.contains("`\"tail\": \"pad\"`") && talk.contains("`stride`"),
        "{talk}"
    );
}
