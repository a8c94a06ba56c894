//! `mdlm plan`: what a run takes, what fits in a stretch of time, and the plan of a large sweep.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Project, printed};

fn plan(project: &Project, arguments: &[&str]) -> Value {
    let output = project
        .mdlm("plan", &[&["--json", "--threads", "2"], arguments].concat())
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn takes<'a>(plan: &'a Value, name: &str) -> &'a Value {
    let stages = plan["stages"].as_array().unwrap();
    &stages.iter().find(|stage| stage["name"] == name).unwrap()["takes"]
}

/// The seconds of the stage's run, by its record.
fn recorded(project: &Project, kind: &str) -> f64 {
    let folder = project.store().join("actions").join(kind);
    let record = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let record: Value = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    record["provenance"]["seconds"].as_f64().unwrap()
}

/// The same work with other numbers takes the time that it took.
#[test]
fn estimate_of_the_same_work_is_the_time_that_it_took() {
    let project = Project::whole(60);
    project.run(&["--threads", "2"]);
    let all_cached = plan(&project, &[]);
    assert!(takes(&all_cached, "model").is_null());
    assert!(all_cached["total"].is_null());
    let set = [
        "--set",
        "stages.model.learning_rate=0.002",
        "--set",
        "stages.tokens.tokenizer.min_frequency=3",
    ];
    let changed = plan(&project, &[&set[..], &["--budget", "1d"]].concat());
    let mut total = 0.0;
    for (name, kind) in [
        ("tokens", "tokenize"),
        ("rows", "pack"),
        ("model", "train"),
        ("bound", "evaluate"),
        ("texts", "sample"),
    ] {
        let (takes, seconds) = (takes(&changed, name), recorded(&project, kind));
        let found = takes["seconds"].as_f64().unwrap();
        total += found;
        assert!((found / seconds - 1.0).abs() < 1e-6, "{name}: {takes}, {seconds}");
        let basis = takes["basis"].as_str().unwrap();
        assert!(basis.starts_with(&format!("from `{name}` of 2")), "{basis}");
        assert!(takes["memory_bytes"].as_u64().unwrap() > 0, "{takes}");
    }
    // 30 steps of 8 rows of 32 tokens.
    let model = takes(&changed, "model");
    assert_eq!((&model["tokens"], &model["steps"]), (&json!(7680), &json!(30)));
    assert!(model["flops"].as_f64().unwrap() > 1e9, "{model}");
    assert!((changed["total"]["seconds"].as_f64().unwrap() - total).abs() < 1e-6);
    assert_eq!(changed["total"]["unknown"], 0);
    let budget = &changed["budget"];
    assert_eq!(
        budget["whole"],
        json!(["tokens", "rows", "model", "bound", "texts"])
    );
    assert_eq!(budget["left"], json!([]));
    // On another number of threads nothing has run.
    let other = project
        .mdlm("plan", &[&["--json", "--threads", "3"], &set[..]].concat())
        .output()
        .unwrap();
    let other: Value = serde_json::from_slice(&other.stdout).unwrap();
    assert!(takes(&other, "model")["seconds"].is_null());
    assert_eq!(
        takes(&other, "model")["unknown"],
        "unknown: nothing like it ran here"
    );
    let (_, text, _) = printed(&mut project.mdlm("plan", &[&["--threads", "3"], &set[..]].concat()));
    assert!(text.contains("--measure"), "{text}");
}

#[test]
fn budget_shows_how_many_steps_of_a_training_fit() {
    let project = Project::whole(60);
    project.run(&["--threads", "2"]);
    // Three hours and more, at any speed of this network.
    let set = [
        "--set",
        "stages.model.steps=1000000000",
        "--set",
        "stages.model.seed=7",
    ];
    let budget = ["--budget", "90s"];
    let found = plan(&project, &[&set[..], &budget].concat());
    let part = &found["budget"]["part"];
    assert_eq!(
        (&part["stage"], &part["of"]),
        (&json!("model"), &json!(1_000_000_000))
    );
    let (steps, seconds) = (
        part["steps"].as_f64().unwrap(),
        takes(&found, "model")["seconds"].as_f64().unwrap(),
    );
    // Whole steps, of which few fit where the machine is slow.
    let exact = 1e9 * 90.0 / seconds;
    assert!(steps <= exact && exact - steps < 1.0 + 1e-6, "{found}");
    assert_eq!(found["budget"]["left"], json!(["model", "bound", "texts"]));
    let arguments = [&set[..], &budget, &["--threads", "2"]].concat();
    let (code, text, _) = printed(&mut project.mdlm("plan", &arguments));
    assert_eq!(code, Some(0));
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("in 1m 30s: of `model` "), "{text}");
    assert!(text.contains("of 1,000,000,000 steps fit, up to step"), "{text}");
    assert!(text.contains("`bound`, `texts` do not fit"), "{text}");
    let (code, _, talk) = printed(&mut project.mdlm("plan", &["--budget", "soon"]));
    assert_eq!(code, Some(2));
    assert!(talk.contains("soon"), "{talk}");
}

/// What is not made yet is expected to grow with the text, and is unknown where other rows are asked for.
#[test]
fn estimate_grows_with_the_text() {
    let project = Project::whole(60);
    project.run(&["--threads", "2"]);
    let set = ["--set", "stages.tokens.tokenizer.min_frequency=3"];
    let before = plan(&project, &set);
    for file in ["a.txt", "b.txt"] {
        let path = project.path().join("corpus").join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.repeat(3)).unwrap();
    }
    let after = plan(&project, &set);
    for (name, figure) in [("tokens", "bytes"), ("rows", "tokens")] {
        let [less, more] = [&before, &after].map(|plan| takes(plan, name)[figure].as_f64().unwrap());
        assert!((more / less - 3.0).abs() < 1e-3, "{name}: {less}, {more}");
    }
    let of_all_rows = |length: &str| {
        let rows = format!("stages.rows.length={length}");
        let path = project.path().join("pipelines/tiny.json");
        let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        manifest["stages"]["bound"]
            .as_object_mut()
            .unwrap()
            .remove("rows");
        fs::write(&path, manifest.to_string()).unwrap();
        let shape = if length == "32" { "nano" } else { "tiny" };
        let shape = format!("stages.model.shape={shape}");
        plan(&project, &["--set", &rows, "--set", &shape])
    };
    assert!(takes(&of_all_rows("32"), "bound")["tokens"].as_u64().unwrap() > 0);
    assert_eq!(
        takes(&of_all_rows("128"), "bound")["unknown"],
        "unknown before its inputs are made"
    );
}

#[test]
fn measure_makes_unknown_times_known() {
    let project = Project::whole(60);
    let before = plan(&project, &[]);
    assert!(takes(&before, "model")["seconds"].is_null());
    let after = plan(&project, &["--measure"]);
    for name in ["model", "bound", "texts"] {
        let takes = takes(&after, name);
        assert!(takes["seconds"].as_f64().unwrap() > 0.0, "{name}: {takes}");
        assert_eq!(takes["basis"], "measured now, the network alone");
    }
    // How fast text is read is known once it was read.
    assert_eq!(
        takes(&after, "text")["unknown"],
        "unknown: nothing like it ran here"
    );
    assert!(!project.store().exists(), "a plan writes nothing");
    // Sums that lack those of a stage are no totals.
    let path = project.path().join("pipelines/tiny.json");
    let manifest = fs::read_to_string(&path).unwrap();
    let mut manifest: Value = serde_json::from_str(&manifest).unwrap();
    manifest["stages"]["bound"]
        .as_object_mut()
        .unwrap()
        .remove("rows");
    fs::write(&path, manifest.to_string()).unwrap();
    let (_, text, _) = printed(&mut project.mdlm("plan", &[]));
    let all = text.lines().find(|line| line.starts_with("all ")).unwrap();
    assert_eq!(all.matches('≥').count(), 2, "{text}");
}

#[test]
fn plan_of_a_large_sweep_has_a_row_for_what_is_said_of_many() {
    let project = Project::whole(60);
    let path = project.path().join("pipelines/tiny.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let sweep = |to: u32| json!({ "seed": { "from": 1, "to": to } });
    let texts = &mut manifest["stages"]["texts"];
    (texts["count"], texts["steps"]) = (json!(1), json!(1));
    texts["matrix"] = sweep(14);
    fs::write(&path, manifest.to_string()).unwrap();
    project.run(&["--threads", "2"]);
    let (_, text, _) = printed(&mut project.mdlm("plan", &[]));
    assert!(text.contains("\ntexts ×14  sample    cached\n"), "{text}");
    // More instances than a manifest could once have.
    manifest["stages"]["texts"]["matrix"] = sweep(1200);
    fs::write(&path, manifest.to_string()).unwrap();
    let (_, text, _) = printed(&mut project.mdlm("plan", &["--threads", "2"]));
    assert!(text.contains("\ntexts ×14     sample    cached\n"), "{text}");
    assert!(
        text.contains("\ntexts ×1,186  sample    will run: never ran\n"),
        "{text}"
    );
    assert!(text.lines().count() < 20, "{text}");
    let whole = plan(&project, &[]);
    assert_eq!(whole["stages"].as_array().unwrap().len(), 1205);
    let one = takes(&whole, "texts@seed=1200");
    assert!(one["seconds"].as_f64().unwrap() > 0.0, "{one}");
    // Of a small one, each instance has a row.
    manifest["stages"]["texts"]["matrix"] = sweep(12);
    fs::write(&path, manifest.to_string()).unwrap();
    let (_, text, _) = printed(&mut project.mdlm("plan", &[]));
    assert!(text.contains("\ntexts@seed=12  sample    cached "), "{text}");
}
