//! What makes a stage run again, and the reason that is shown: settings that cannot change a result, pipelines that share
//! a store, forced stages.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Project, mdlm, printed, words};

/// When a training validates and which checkpoints it keeps cannot change its weights: it is not trained again, and the plan
/// says what the result lacks.
#[test]
fn train_does_not_rerun_for_settings_that_cannot_change_the_weights() {
    let project = Project::whole(60);
    let made = project.run(&[]);
    let set = |field: &str| ["--set".to_owned(), format!("stages.model.{field}")];
    let run = |fields: &[&str], more: &[&str]| {
        let fields: Vec<String> = fields.iter().flat_map(|field| set(field)).collect();
        let mut arguments: Vec<&str> = fields.iter().map(String::as_str).collect();
        arguments.extend(more);
        project.run(&arguments)
    };
    let cached = "text: cached, tokens: cached, rows: cached, model: cached, bound: cached, texts: cached";
    for (field, lacks) in [
        ("checkpoint_every=7", None),
        ("validation_every=20", None),
        ("validation_every=0", None),
        ("validation_rows=4", None),
        (
            "validation_every=5",
            Some("validated every 10 steps, not every 5"),
        ),
        ("validation_rows=9", Some("validated on at most 8 rows, not 9")),
        (
            "keep_checkpoints={\"every\":10}",
            Some("0 of 2 checkpoints (one every 10 steps) are kept"),
        ),
        (
            "keep_checkpoints={\"last\":2}",
            Some("0 of its last 2 checkpoints are kept"),
        ),
        (
            "keep_checkpoints={\"best\":true}",
            Some("its best checkpoint is not kept"),
        ),
    ] {
        let [set, value] = set(field);
        let (code, plan, talk) = printed(&mut project.mdlm("plan", &[&set, &value, "--exit-code"]));
        assert_eq!(code, Some(0), "{field}: {plan}{talk}");
        let summary = run(&[field], &[]);
        assert_eq!(Project::statuses(&summary), cached, "{field}");
        assert_eq!(Project::artifacts(&summary), Project::artifacts(&made));
        let why = summary["stages"][3]["why"].as_str().unwrap();
        let (_, shown, _) = printed(&mut project.mdlm("show", &["model", &set, &value]));
        match lacks {
            None => {
                assert_eq!(why, "", "{field}");
                assert!(
                    !plan.contains("--force") && !shown.contains("--force"),
                    "{field}: {plan}"
                );
            }
            Some(lacks) => {
                let expected = format!("{lacks} (`--force model` trains it again)");
                assert_eq!(why, expected, "{field}");
                assert!(words(&plan).contains(&expected), "{field}: {plan}");
                assert!(
                    words(&shown).contains(&format!("lacks {expected}")),
                    "{field}: {shown}"
                );
            }
        }
    }
    // `--force` adds what it lacks, and the weights are the same.
    let digest = |summary: &Value| {
        let folder = summary["stages"][3]["path"].as_str().unwrap();
        mdlm::store::digest::hash_file(std::path::Path::new(&format!("{folder}/ema.safetensors"))).unwrap()
    };
    let asked = [
        "validation_every=5",
        "keep_checkpoints={\"every\":10,\"last\":2,\"best\":true}",
    ];
    let again = run(&asked, &["--force", "model"]);
    assert_eq!(again["stages"][3]["status"], "done");
    assert_eq!(digest(&again), digest(&made));
    let metrics = |summary: &Value| {
        let folder = summary["stages"][3]["path"].as_str().unwrap();
        let text = fs::read_to_string(format!("{folder}/metrics.jsonl")).unwrap();
        text.lines()
            .filter(|line| line.contains("\"validation\""))
            .count()
    };
    assert_eq!((metrics(&made), metrics(&again)), (3, 6));
    let summary = run(&asked, &[]);
    assert_eq!(summary["stages"][3]["why"], "", "it lacks nothing");
    // What can change the weights still trains.
    let [set, value] = set("dropout=0.2");
    let (code, ..) = printed(&mut project.mdlm("plan", &[&set, &value, "--exit-code"]));
    assert_eq!(code, Some(10));
}

/// Rows are identified by their content: another format or shard size trains and evaluates nothing again.
#[test]
fn train_does_not_rerun_for_rows_in_another_format() {
    let project = Project::whole(60);
    let made = project.run(&[]);
    for set in ["stages.rows.format=parquet", "stages.rows.shard_rows=7"] {
        let summary = project.run(&["--set", set]);
        assert_eq!(
            Project::statuses(&summary),
            "text: cached, tokens: cached, rows: done, model: cached, bound: cached, texts: cached",
            "{set}"
        );
        let artifact = |summary: &Value, stage: usize| Project::artifacts(summary)[stage].clone();
        assert_ne!(artifact(&summary, 2), artifact(&made, 2), "{set}");
        assert_eq!(artifact(&summary, 3), artifact(&made, 3), "{set}");
        let (code, _, talk) = printed(&mut project.mdlm("plan", &["--set", set, "--exit-code"]));
        assert_eq!(code, Some(0), "{set}: {talk}");
    }
    // Results from either are the same, to the bit.
    let parquet = ["--set", "stages.rows.format=parquet"];
    let again = project.run(&[&parquet[..], &["--force", "model", "--force", "bound"]].concat());
    assert_eq!(Project::artifacts(&again)[3..5], Project::artifacts(&made)[3..5]);
    // Its history still leads to its sources.
    let (code, out, talk) = printed(&mut project.mdlm("verify", &["--chain", "bound"]));
    assert_eq!(code, Some(0), "{out}{talk}");
    // Other rows train again.
    let summary = project.run(&["--set", "stages.rows.validation=0.2"]);
    assert!(Project::statuses(&summary).contains("model: done"));
}

/// A pipeline with other text is no earlier state of a new one.
#[test]
fn reason_never_compares_with_a_pipeline_of_other_text() {
    let project = Project::new(60);
    project.run(&[]);
    fs::create_dir(project.path().join("mine")).unwrap();
    fs::write(project.path().join("mine/notes.txt"), "other words\n".repeat(50)).unwrap();
    let text = fs::read_to_string(project.path().join("pipelines/tiny.json")).unwrap();
    let text = text
        .replace("\"tiny\"", "\"mine\"")
        .replace("../corpus/*.txt", "../mine/*.txt");
    fs::write(project.path().join("pipelines/mine.json"), text).unwrap();
    let (_, plan, _) = printed(
        mdlm()
            .current_dir(project.path())
            .args(["plan", "pipelines/mine.json"]),
    );
    assert!(words(&plan).contains("text source will run: never ran"), "{plan}");
    assert!(
        !plan.contains("compared with") && !plan.contains("is gone"),
        "{plan}"
    );
}

/// A pipeline that has never run is not compared with another one that reads the same files, unless that one was renamed.
#[test]
fn reason_compares_a_pipeline_only_with_its_earlier_runs() {
    let project = Project::whole(60);
    project.run(&[]);
    let manifest = |name: &str| project.path().join(format!("pipelines/{name}.json"));
    let text = fs::read_to_string(manifest("tiny")).unwrap();
    let plan_of = |name: &str, more: &[&str]| {
        let mut mdlm = mdlm();
        mdlm.current_dir(project.path())
            .args(["plan", &format!("pipelines/{name}.json")])
            .args(more);
        let (code, plan, talk) = printed(&mut mdlm);
        assert_eq!(code, Some(0), "{talk}");
        words(&plan)
    };
    // A sweep in the same folder, as `pipelines/sweep.json` beside `quickstart.json`.
    let mut sweep: Value = serde_json::from_str(&text).unwrap();
    sweep["name"] = json!("sweep");
    sweep["stages"]["model"]["matrix"] = json!({ "learning_rate": [2e-3, 4e-3] });
    sweep["stages"]["bound"]["draws"] = json!(2);
    fs::write(manifest("sweep"), sweep.to_string()).unwrap();
    let plan = plan_of("sweep", &[]);
    assert!(
        plan.contains("model@learning_rate=0.002 train will run: never ran"),
        "{plan}"
    );
    assert!(!plan.contains("compared with") && !plan.contains('→'), "{plan}");
    // A pipeline is compared with its own earlier runs.
    let second = text
        .replace("\"tiny\"", "\"second\"")
        .replace("\"length\":32", "\"length\": 32");
    fs::write(manifest("second"), &second).unwrap();
    let run = |name: &str| {
        let mut mdlm = mdlm();
        mdlm.current_dir(project.path())
            .args(["run", &format!("pipelines/{name}.json")]);
        assert!(mdlm.output().unwrap().status.success());
    };
    run("second");
    let plan = plan_of("second", &["--set", "stages.model.steps=40"]);
    assert!(
        plan.contains("model train will run from step 30 on: `steps` 30 → 40"),
        "{plan}"
    );
    // Of two manifests of one name each has its own past.
    fs::write(manifest("twin"), &text).unwrap();
    let plan = plan_of("twin", &["--set", "stages.model.dropout=0.3"]);
    assert!(plan.contains("model train will run: never ran"), "{plan}");
    fs::remove_file(manifest("twin")).unwrap();
    // Another name within, or another file: the same pipeline.
    fs::write(manifest("tiny"), text.replace("\"tiny\"", "\"other\"")).unwrap();
    let plan = plan_of("tiny", &["--set", "stages.model.dropout=0.3"]);
    assert!(
        plan.contains("`dropout` 0.1 → 0.3; compared with `model` of `tiny`"),
        "{plan}"
    );
    fs::write(manifest("tiny"), &text).unwrap();
    fs::rename(manifest("tiny"), manifest("moved")).unwrap();
    let plan = plan_of("moved", &["--set", "stages.model.dropout=0.3"]);
    assert!(
        plan.contains("model train will run: `dropout` 0.1 → 0.3"),
        "{plan}"
    );
    // Both at once, if the former file is gone.
    fs::write(manifest("moved"), text.replace("\"tiny\"", "\"both\"")).unwrap();
    let plan = plan_of("moved", &["--set", "stages.model.dropout=0.3"]);
    assert!(
        plan.contains("`dropout` 0.1 → 0.3; compared with `model` of `tiny`"),
        "{plan}"
    );
}

/// The parts of a key that are no settings are shown in the words of the manifest.
#[test]
fn reason_names_the_formats_of_files_in_words() {
    let project = Project::new(5);
    project.run(&["--target", "text"]);
    let line = json!({ "text": "some words" }).to_string() + "\n";
    fs::write(project.path().join("corpus/a.jsonl"), line.repeat(9)).unwrap();
    let set = ["--set", "stages.text.input.files.0=../corpus/*.jsonl"];
    let (_, plan, _) = printed(&mut project.mdlm("plan", &[&set[..], &["--target", "text"]].concat()));
    assert!(
        words(&plan).contains("the formats of its files, by their names, are json_lines instead of text"),
        "{plan}"
    );
    let (_, explained, _) = printed(&mut project.mdlm("explain", &[&["text"], &set[..]].concat()));
    assert!(
        words(&explained).contains("format by file name json_lines"),
        "{explained}"
    );
    assert!(
        !plan.contains("input.forms") && !explained.contains("input.forms"),
        "{explained}"
    );
    for arguments in [&["plan", "--json"][..], &["explain", "text", "--json"]] {
        let (_, json, _) = printed(&mut project.mdlm(arguments[0], &[&arguments[1..], &set[..]].concat()));
        assert!(
            json.contains("\"format by file name\": [") && !json.contains("\"forms\""),
            "{json}"
        );
    }
}

/// A pipeline that has never run does not list the changes of another one.
#[test]
fn reason_names_the_former_name_of_a_renamed_pipeline() {
    let project = Project::new(50);
    project.run(&[]);
    let manifest = project.path().join("pipelines/tiny.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let text = text
        .replace("\"tiny\"", "\"second\"")
        .replace("\"length\": 32", "\"length\": 64");
    fs::write(&manifest, text).unwrap();
    let (_, plan, _) = printed(&mut project.mdlm("plan", &["--target", "rows"]));
    let plan = words(&plan);
    assert!(
        plan.contains("`length` 32 → 64; compared with `rows` of `tiny`"),
        "{plan}"
    );
}

#[test]
fn force_of_a_stage_that_no_target_needs_is_refused() {
    let project = Project::new(50);
    let (code, _, talk) = printed(&mut project.mdlm("plan", &["--target", "tokens", "--force", "rows"]));
    assert_eq!(code, Some(2));
    assert!(
        talk.contains("`--force rows` has no effect: no target needs `rows`"),
        "{talk}"
    );
    assert!(talk.contains("`--target rows`"), "{talk}");
}
