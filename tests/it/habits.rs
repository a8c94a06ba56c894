//! Habits from other programs: their words and options, numbers as other languages spell them, settings in the environment,
//! settings that do not change the result. A message names mdlm's way.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Project, mdlm, printed};

/// A table's lines as words.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn hint_spells_a_number_as_json() {
    let project = Project::whole(5);
    for (written, part) in [
        (".001", "`.001` is not a JSON number"),
        (".001", "hint: write 0.001\n"),
        ("1.", "hint: write 1\n"),
        ("+1", "hint: write 1\n"),
        ("+.5e+1", "hint: write 0.5e1\n"),
        ("0x7", "hint: write 7\n"),
        ("1_0", "hint: write 10\n"),
        // The number that is meant may be out of range, too.
        ("0x10", "hint: 16 is out of range: write a number from 0 to 10\n"),
        (
            "1_000",
            "hint: 1000 is out of range: write a number from 0 to 10\n",
        ),
        ("-.5", "hint: -0.5 is out of range: write a number from 0 to 10\n"),
        (
            "\"16\"",
            "hint: 16 is out of range: write a number from 0 to 10\n",
        ),
        ("007", "hint: write 7\n"),
        ("0,5", "hint: write 0.5\n"),
        ("10%", "hint: write 0.1\n"),
        ("inf", "hint: write a finite number\n"),
        ("-Infinity", "hint: write a finite number\n"),
        ("nan", "hint: write a finite number\n"),
        ("1e", "hint: write an exponent after the `e`, as in 1e-4\n"),
        ("'0.5'", "hint: write 0.5"),
        ("\"0.5\"", "hint: write 0.5 without quotes\n"),
        ("\".5\"", "hint: write 0.5 without quotes\n"),
        ("1e400", "hint: write a finite number\n"),
        ("", "hint: give a value"),
        ("None", "hint: write `null` to remove the field"),
        ("many", "`many` is a string"),
    ] {
        let set = format!("stages.model.learning_rate={written}");
        let (code, _, talk) = printed(&mut project.mdlm("plan", &["--set", &set]));
        assert_eq!(code, Some(2), "{written}");
        assert!(talk.contains(part), "{written}: {talk}");
    }
    let (_, _, talk) = printed(&mut project.mdlm("plan", &["--set", "stages.rows.wrap=True"]));
    assert!(talk.contains("hint: write true\n"), "{talk}");
    let sweep = "stages.model.learning_rate=[1e-3,4e-3]";
    let (_, _, talk) = printed(&mut project.mdlm("plan", &["--set", sweep]));
    let way = "--set 'stages.model.matrix={\"learning_rate\":[0.001,0.004]}'";
    assert!(talk.contains(way), "{talk}");
    let way = "stages.model.matrix={\"learning_rate\":[0.001,0.004]}";
    let (code, plan, talk) = printed(&mut project.mdlm("plan", &["--set", way]));
    assert_eq!(code, Some(0), "{talk}");
    assert!(plan.contains("model@learning_rate=0.004"), "{plan}");
}

/// The same inside a file, where each is a fault at its place.
#[test]
fn hint_spells_values_of_other_languages_as_json() {
    let project = Project::whole(5);
    let path = project.path().join("pipelines/tiny.json");
    let manifest = fs::read_to_string(&path).unwrap();
    for (from, to, part) in [
        ("0.001", ".001", "hint: write 0.001"),
        ("0.001", "+1", "hint: write 1"),
        ("0.001", "1.", "hint: write 1"),
        ("0.001", "0x7", "hint: write 7"),
        (
            "0.001",
            "1_000",
            "hint: 1000 is out of range: write a number from 0 to 10",
        ),
        (
            "0.001",
            "0x10",
            "hint: 16 is out of range: write a number from 0 to 10",
        ),
        (
            "0.001",
            "-.5",
            "hint: -0.5 is out of range: write a number from 0 to 10",
        ),
        ("0.001", "NaN", "expected a finite number"),
        ("0.001", "-inf", "expected a finite number"),
        ("0.001", "inf", "expected a finite number"),
        ("0.001", "1e", "as in 1e-4"),
        ("0.001", "\".001\"", "hint: write 0.001 without quotes"),
        ("0.001", "None", "hint: leave the field out to use its default"),
        ("0.001", "# lr\n 0.001", "hint: JSON has no comments"),
        (
            "0.001",
            "[0.001, 0.004]",
            "move them into `matrix` of `model`: \"matrix\": { \"learning_rate\": [0.001,0.004] }",
        ),
        (
            "\"nano\"",
            "'nano'",
            "hint: put strings and field names in double quotes",
        ),
        (
            "\"nano\"",
            "nano",
            "hint: put text in double quotes: write \"nano\"",
        ),
        ("\"steps\"", "steps", "hint: write \"steps\""),
        (
            "\"steps\"",
            "\"epochs\"",
            "set `steps` of the train stage; an epoch takes as many steps",
        ),
        ("\"steps\"", "\"max_steps\"", "did you mean `steps`?"),
        ("\"seed\"", "\"extends\"", "a manifest is one file"),
        ("\"seed\"", "\"env\"", "a manifest has no variables"),
        ("\"batch\"", "\"gpus\"", "`mdlm run --device cpu|cuda`"),
    ] {
        assert!(manifest.contains(from), "{from} in {manifest}");
        fs::write(&path, manifest.replacen(from, to, 1)).unwrap();
        let (code, _, talk) = printed(&mut project.mdlm("validate", &[]));
        assert_eq!(code, Some(2), "{to}");
        assert!(
            words(&talk.replace(" | ", " ")).contains(&words(part)),
            "{to}: {talk}"
        );
    }
    fs::write(&path, "# of dvc\nname: tiny\nseed: 1\nstages:\n  text: {}\n").unwrap();
    let (_, _, talk) = printed(&mut project.mdlm("plan", &[]));
    assert!(talk.contains("this looks like YAML"), "{talk}");
    fs::write(&path, "name = \"tiny\"\n[stages.text]\n").unwrap();
    let (_, _, talk) = printed(&mut project.mdlm("plan", &[]));
    assert!(talk.contains("this looks like TOML"), "{talk}");
}

#[test]
fn words_of_other_programs_are_answered() {
    let project = Project::whole(5);
    for (line, part) in [
        (
            "clean",
            "error: there is no command `clean`\nhint: `mdlm gc MANIFEST…`",
        ),
        ("repro", "`mdlm run MANIFEST`"),
        ("diff", "`mdlm compare A.json B.json`"),
        ("logs", "`mdlm explain MANIFEST STAGE`"),
        ("help ls", "`mdlm plan MANIFEST` lists the stages"),
        ("pipelines/tiny.json", "`mdlm run pipelines/tiny.json`"),
        ("run pipelines/tiny.json --dry-run", "`mdlm plan MANIFEST`"),
        ("run pipelines/tiny.json -n", "`mdlm plan MANIFEST`"),
        ("run pipelines/tiny.json --resume", "leave it out"),
        ("run pipelines/tiny.json model", "`--target model`"),
        (
            "plan pipelines/tiny.json --set model.steps=5",
            "did you mean `--set stages.model.steps=5`?",
        ),
        (
            "plan pipelines/tiny.json --set modle.steps=5",
            "did you mean `--set stages.model.steps=5`?",
        ),
        (
            "plan pipelines/tiny.json --set lr=1e-3",
            "did you mean `--set stages.model.learning_rate=1e-3`?",
        ),
        (
            "plan pipelines/tiny.json --set steps=5",
            "did you mean `--set stages.model.steps=5`, `--set stages.bound.steps=5` or `--set stages.texts.steps=5`?",
        ),
        (
            "plan pipelines/tiny.json --set stages/model/steps=5",
            "did you mean `--set stages.model.steps=5`?",
        ),
        (
            "plan pipelines/tiny.json --set model=5",
            "`model` is a stage; name a field of it: `--set stages.model.steps=5`",
        ),
        ("rnu pipelines/tiny.json", "did you mean `mdlm run`?"),
        ("run nofile.json", "manifests found nearby: `pipelines/tiny.json`"),
        (
            "plan pipelines/tiny.json --lr 1e-3",
            "`--set stages.STAGE.learning_rate=1e-3`",
        ),
    ] {
        let (code, _, talk) = printed(mdlm().current_dir(project.path()).args(line.split(' ')));
        assert_eq!(code, Some(2), "{line}: {talk}");
        assert!(
            words(&talk.replace(" | ", " ")).contains(&words(part)),
            "{line}: {talk}"
        );
    }
    for (line, same) in [
        ("help", "--help"),
        ("help run", "run --help"),
        ("version", "--version"),
    ] {
        let (code, text, _) = printed(mdlm().args(line.split(' ')));
        assert_eq!(code, Some(0), "{line}");
        assert_eq!(text, printed(mdlm().args(same.split(' '))).1, "{line}");
    }
}

/// What a shell would have put into a path is answered with how to write it.
#[test]
fn hint_for_a_path_in_shell_syntax_shows_what_to_write() {
    let project = Project::new(5);
    let home = project.path().to_str().unwrap();
    for (path, part) in [
        (
            "~/corpus/*.txt",
            &*format!("a manifest does not expand `~`: write `{home}/corpus/*.txt`"),
        ),
        (
            "${HOME}/corpus/*.txt",
            "`--set \"stages.STAGE.input.files.0=$HOME/…\"`",
        ),
        (
            "$HOME/corpus/*.txt",
            "a manifest does not expand environment variables",
        ),
    ] {
        let set = format!("stages.text.input.files.0={path}");
        let (code, _, talk) = printed(project.mdlm("plan", &["--set", &set]).env("HOME", home));
        assert_eq!(code, Some(2), "{talk}");
        assert!(talk.contains(part), "{path}: {talk}");
    }
    let (code, _, talk) = printed(project.mdlm("run", &["--store=~/store"]).env("HOME", home));
    assert_eq!(code, Some(2), "{talk}");
    assert!(talk.contains(&format!("hint: write `{home}/store`")), "{talk}");
    assert!(!project.path().join("~").exists());
}

#[test]
fn environment_variables_replace_absent_options() {
    let project = Project::new(60);
    let stored = |folder: &str| project.path().join(folder).join("artifacts").is_dir();
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        printed(project.mdlm("run", arguments).envs(variables.iter().copied()))
    };
    let (code, _, talk) = run(
        &["--target", "text"],
        &[("MDLM_STORE", "here"), ("MDLM_THREADS", "1"), ("MDLM_JOBS", "2")],
    );
    assert_eq!(code, Some(0), "{talk}");
    assert!(stored("here") && !stored(".mdlm"));
    let variables = [("MDLM_STORE", "here")];
    for line in [
        "path pipelines/tiny.json text",
        "status",
        "verify",
        "downloads",
        "status pipelines/tiny.json",
    ] {
        let (code, out, talk) = printed(
            mdlm()
                .current_dir(project.path())
                .args(line.split(' '))
                .envs(variables),
        );
        assert_eq!(code, Some(0), "{line}: {talk}");
        let shown = out + &talk;
        assert!(shown.contains("here") || line == "verify", "{line}: {shown}");
    }
    // A flag wins, and an empty variable is none.
    let empty = [("MDLM_STORE", "never"), ("MDLM_THREADS", ""), ("MDLM_JOBS", "")];
    let (code, _, talk) = run(
        &["--target", "text", "--store", "there", "--threads", "2"],
        &empty,
    );
    assert_eq!(code, Some(0), "{talk}");
    assert!(stored("there") && !stored("never"));
    let show = ["text", "--json", "--store", "there"];
    let shown: Value = serde_json::from_slice(&project.mdlm("show", &show).output().unwrap().stdout).unwrap();
    assert_eq!(shown["provenance"]["threads"], 2);
    let show = ["text", "--json", "--store", "here"];
    let shown: Value = serde_json::from_slice(&project.mdlm("show", &show).output().unwrap().stdout).unwrap();
    assert_eq!(shown["provenance"]["threads"], 1);
    for (name, value) in [
        ("MDLM_THREADS", "many"),
        ("MDLM_THREADS", "0"),
        ("MDLM_JOBS", "-1"),
        ("MDLM_JOBS", "99999"),
    ] {
        let (code, _, talk) = run(&[], &[(name, value)]);
        assert_eq!(code, Some(2), "{talk}");
        let message = format!("read {name}: `{value}` is not a whole number from 1 to 1024");
        assert!(talk.contains(&message), "{talk}");
    }
    // A flag wins over a bad value too.
    let (code, _, talk) = run(&["--threads", "1"], &[("MDLM_THREADS", "many")]);
    assert_eq!(code, Some(0), "{talk}");
}

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

/// A second pipeline of the same name has a separate report.
#[test]
fn two_manifests_of_one_name_have_two_reports() {
    let project = Project::new(60);
    let report = |name: &str| project.store().join("reports").join(name);
    project.run(&[]);
    let first = fs::read_to_string(report("tiny.html")).unwrap();
    let other = project.path().join("pipelines/other.json");
    let text = fs::read_to_string(project.path().join("pipelines/tiny.json")).unwrap();
    fs::write(&other, text.replace("\"length\": 32", "\"length\": 16")).unwrap();
    let run = |manifest: &str| printed(mdlm().current_dir(project.path()).args(["run", manifest]));
    let (code, _, talk) = run("pipelines/other.json");
    assert_eq!(code, Some(0), "{talk}");
    assert!(
        words(&talk).contains("is the report of `pipelines/tiny.json`, which has the same name"),
        "{talk}"
    );
    assert_eq!(fs::read_to_string(report("tiny.html")).unwrap(), first);
    let second = talk
        .lines()
        .find_map(|line| line.strip_prefix("report: "))
        .unwrap();
    assert!(
        second.starts_with(".mdlm/reports/tiny-") && project.path().join(second).is_file(),
        "{talk}"
    );
    // One that was renamed is the same pipeline.
    fs::remove_file(project.path().join("pipelines/tiny.json")).unwrap();
    let (_, _, talk) = run("pipelines/other.json");
    assert!(talk.contains("report: .mdlm/reports/tiny.html"), "{talk}");
}

/// A pipeline with other text is no earlier state of a new one.
#[test]
fn an_unrelated_pipelines_changes_are_no_reasons() {
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
fn a_new_pipeline_is_a_first_run_whatever_another_has_run() {
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

/// A name in place of a tokenizer's or detokenizer's object.
#[test]
fn hint_for_a_name_shows_the_object_to_write() {
    let project = Project::new(5);
    let path = project.path().join("pipelines/tiny.json");
    let manifest = fs::read_to_string(&path).unwrap();
    let own = "{ \"kind\": \"train_bpe\", \"vocabulary_size\": 320 }";
    assert!(manifest.contains(own));
    let gpt2 = "hint: write { \"kind\": \"published\", \"name\": \"gpt2\" }";
    let roberta = "hint: write { \"kind\": \"download\", \"url\": \
         \"hf://FacebookAI/roberta-base@main/tokenizer.json\", \
                   \"unpinned\": true }";
    for (tokenizer, part) in [
        ("\"gpt2\"", gpt2),
        ("\"roberta-base\"", roberta),
        ("{ \"kind\": \"hf\" }", &gpt2[6..]),
        ("{ \"kind\": \"hf\", \"name\": \"roberta-base\" }", roberta),
        ("{ \"kind\": \"gpt2-medium\" }", "did you mean `gpt2`"),
        ("{ \"kind\": \"published\", \"name\": \"roberta-base\" }", roberta),
        ("{ \"name\": \"gpt2\" }", gpt2),
        (
            "{ \"kind\": \"file\", \"path\": \"gpt2\" }",
            "write \"tokenizer\": { \"kind\": \"published\", \"name\": \"gpt2\" }",
        ),
    ] {
        fs::write(&path, manifest.replace(own, tokenizer)).unwrap();
        let (code, _, talk) = printed(&mut project.mdlm("plan", &[]));
        assert_eq!(code, Some(2), "{tokenizer}");
        assert!(
            words(&talk.replace(" | ", " ")).contains(&words(part)),
            "{tokenizer}: {talk}"
        );
    }
    let input = "\"kind\": \"source\",";
    fs::write(
        &path,
        manifest.replace(input, &format!("{input} \"detokenize\": \"published\",")),
    )
    .unwrap();
    let (_, _, talk) = printed(&mut project.mdlm("plan", &[]));
    let part = "hint: write { \"rules\": \"ptb\", \"as\": \"published\" }";
    assert!(words(&talk.replace(" | ", " ")).contains(part), "{talk}");
}

/// Python's words are no numbers: the hint for a field that takes one says which.
#[test]
fn hint_for_a_boolean_in_place_of_a_number() {
    let project = Project::whole(5);
    let path = project.path().join("pipelines/tiny.json");
    let manifest = fs::read_to_string(&path).unwrap();
    for (from, to, part) in [
        ("\"steps\":30", "\"steps\":True", "hint: write a number"),
        ("\"steps\":30", "\"steps\":true", "hint: write a number"),
        ("\"steps\":30", "\"steps\":None", "hint: write a number"),
        (
            "\"steps\":30",
            "\"steps\":null",
            "hint: write a value: the field has no default",
        ),
        ("\"warmup_steps\":3", "\"warmup_steps\":False", "hint: write 0"),
        (
            "\"warmup_steps\":3",
            "\"warmup_steps\":\"False\"",
            "hint: write 0",
        ),
        (
            "\"warmup_steps\":3",
            "\"warmup_steps\":None",
            "hint: leave the field out to use its default",
        ),
    ] {
        assert!(manifest.contains(from), "{from} in {manifest}");
        fs::write(&path, manifest.replacen(from, to, 1)).unwrap();
        let (code, _, talk) = printed(&mut project.mdlm("validate", &[]));
        assert_eq!(code, Some(2), "{to}");
        assert!(words(&talk.replace(" | ", " ")).contains(part), "{to}: {talk}");
    }
    fs::write(&path, manifest).unwrap();
    let (_, _, talk) = printed(&mut project.mdlm("plan", &["--set", "stages.model.warmup_steps=False"]));
    assert!(talk.contains("hint: write 0\n"), "{talk}");
}

/// A command without its stage lists the stages; `~` in a manifest's path is not expanded.
#[test]
fn a_stage_that_is_not_named_is_chosen_from_a_list() {
    let project = Project::whole(5);
    for command in ["show", "path", "data", "explain"] {
        let (code, _, talk) = printed(&mut project.mdlm(command, &[]));
        assert_eq!(code, Some(2), "{talk}");
        assert!(
            words(&talk).contains(&format!(
                "error: no stage is named hint: the stages of `pipelines/tiny.json` are `text`, `tokens`, `rows`, \
                 `model`, \
                 `bound`, `texts`: `mdlm {command} pipelines/tiny.json texts`"
            )),
            "{talk}"
        );
    }
    let (code, _, talk) = printed(mdlm().args(["run", "~/x.json"]).env("HOME", "/home/ada"));
    assert_eq!(code, Some(2), "{talk}");
    assert!(
        words(&talk.replace(" | ", " ")).contains("write `/home/ada/x.json`"),
        "{talk}"
    );
}

/// A full standard output is not reported as a full store.
#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_output_is_no_full_store() {
    let project = Project::new(5);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_mdlm"))
        .current_dir(project.path())
        .args(["plan", "pipelines/tiny.json"])
        .stdout(full)
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{talk}");
    assert!(
        talk.contains("write to standard output")
            && talk.contains("free space where standard output is written to"),
        "{talk}"
    );
    assert!(!talk.contains("gc"), "{talk}");
}

/// A fault in a tokenizer's file is found before the text is read, and shown with its place.
#[test]
fn a_damaged_tokenizer_is_found_before_anything_runs() {
    let project = Project::new(5);
    let path = project.path().join("pipelines/tiny.json");
    let manifest = fs::read_to_string(&path).unwrap();
    let own = "{ \"kind\": \"train_bpe\", \"vocabulary_size\": 320 }";
    fs::write(
        &path,
        manifest.replace(own, "{ \"kind\": \"file\", \"path\": \"../tokenizer.json\" }"),
    )
    .unwrap();
    for (text, place) in [
        (
            "{\n  \"version\": \"1.0\",\n  \"model\": {,\n}",
            ":3:13`: this is not a tokenizer file",
        ),
        (
            "{\n  \"version\": \"1.0\",\n  \"model\": { \"type\": \"BPE\" }\n}\n",
            "this is not a tokenizer file",
        ),
    ] {
        fs::write(project.path().join("tokenizer.json"), text).unwrap();
        for command in ["plan", "run", "validate"] {
            let (code, _, talk) = printed(&mut project.mdlm(command, &[]));
            let talk = words(&talk.replace(" | ", " "));
            assert_eq!(code, Some(2), "{command}: {talk}");
            assert!(talk.contains(place), "{command}: {talk}");
            assert!(talk.contains("tokenizer.json:"), "{command}: {talk}");
        }
        assert!(!project.store().join("artifacts").exists());
    }
    // `validate` needs no data.
    fs::remove_file(project.path().join("tokenizer.json")).unwrap();
    let (code, _, talk) = printed(&mut project.mdlm("validate", &[]));
    assert_eq!(code, Some(0), "{talk}");
}

/// One record, one file, one row: a count of one has its noun in the singular.
#[test]
fn messages_use_the_singular_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "a.txt",
        &("one two three four five six seven eight ".repeat(300) + "\n"),
    );
    write("bad.txt", "a\n\u{feff}b\0\n");
    let manifest = json!({ "name": "one", "seed": 1, "stages": {
        "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt"] } },
        "bad": { "kind": "source", "input": { "kind": "files", "files": ["bad.txt"] } },
        "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "train_bpe", "vocabulary_size": 300 } },
        "rows": { "kind": "pack", "from": "tokens", "length": 32, "wrap": false },
    } });
    write("m.json", &manifest.to_string());
    let call = |arguments: &[&str]| {
        let mut command = mdlm();
        let (code, output, talk) = printed(command.current_dir(folder.path()).args(arguments));
        assert_eq!(code, Some(0), "{arguments:?}: {output}{talk}");
        output + &talk
    };
    let mut all = String::new();
    for arguments in [
        &["run", "m.json", "--threads", "1"][..],
        &["plan", "m.json", "--target", "text"],
        &["show", "m.json", "rows"],
        &["data", "m.json", "text"],
        &["data", "m.json", "tokens"],
        &["verify", "m.json"],
        &["status", "m.json"],
        &["init", "m", "--files", "a.txt"],
    ] {
        all += &call(arguments);
    }
    assert!(all.contains("1 file, "), "{all}");
    assert!(all.contains(" in 1 record: "), "{all}");
    assert!(all.contains("one: 1 stage, all cached"), "{all}");
    assert!(all.contains("1 thread"), "{all}");
    for line in all.lines() {
        let words: Vec<&str> = line
            .split(|c: char| !c.is_alphanumeric() && c != '.' && c != ',')
            .collect();
        for pair in words.windows(2) {
            let is_plural = pair[1].len() > 3 && pair[1].ends_with('s') && !pair[1].ends_with("ss");
            assert!(pair[0] != "1" || !is_plural, "{line}\n{all}");
        }
    }
}

/// The parts of a key that are no settings are shown in the words of the manifest.
#[test]
fn the_format_of_files_is_shown_in_words() {
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
