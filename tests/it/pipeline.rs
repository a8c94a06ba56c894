//! All six kinds of stages through the program: what a change reruns, and that no disturbance shows in the results.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Project, printed, words};

/// The stages that were not served from the store.
fn ran(summary: &Value) -> Vec<String> {
    let stages = summary["stages"].as_array().unwrap();
    let ran = stages.iter().filter(|stage| stage["status"] != "cached");
    ran.map(|stage| {
        format!(
            "{}: {}",
            stage["name"].as_str().unwrap(),
            stage["why"].as_str().unwrap()
        )
    })
    .collect()
}

#[test]
fn rerun_after_a_change_of_training_keeps_the_data() {
    let project = Project::whole(100);
    let first = project.run(&[]);
    assert_eq!(ran(&first).len(), 6);
    assert_eq!(ran(&project.run(&[])), Vec::<String>::new());
    // Neither changes what is made.
    let same = [
        "--set",
        "stages.model.micro_batch=2",
        "--set",
        "stages.model.checkpoint_every=7",
    ];
    assert_eq!(ran(&project.run(&same)), Vec::<String>::new());

    let second = project.run(&["--set", "stages.model.learning_rate=5e-4"]);
    assert_eq!(
        ran(&second),
        [
            "model: `learning_rate` 0.001 → 5e-4",
            "bound: `model` has other content",
            "texts: `model` has other content"
        ]
    );
    // Back to the first model, from the store.
    assert_eq!(ran(&project.run(&[])), Vec::<String>::new());
    assert_eq!(
        ran(&project.run(&["--set", "stages.texts.temperature=0.5"])),
        ["texts: `temperature` 1 → 0.5"]
    );
    // The same again from nothing, on another number of threads and in other pieces: the same bits.
    let elsewhere = project.run(&[&["--store", "elsewhere", "--threads", "3"][..], &same].concat());
    assert_eq!(Project::artifacts(&elsewhere), Project::artifacts(&first));
}

/// The step that the training of a run resumed from, as its record in a store says.
fn resumed_from(project: &Project, summary: &Value, store: &str) -> Value {
    let model = &summary["stages"][3]["artifact"];
    let actions = std::fs::read_dir(project.path().join(store).join("actions/train")).unwrap();
    let records = actions.map(|file| -> Value {
        serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap()
    });
    let mut own = records.filter(|record| record["artifact"] == *model);
    own.next().unwrap()["provenance"]["facts"]["resumed_from"].clone()
}

/// Each trains from step 0, for a reason that names the objective.
#[test]
fn resume_of_a_training_of_another_objective_is_a_first_run() {
    let project = Project::whole(100);
    let run = |steps: &str, objective: &str| {
        project.run(&[
            "--target",
            "model",
            "--set",
            &format!("stages.model.steps={steps}"),
            "--set",
            &format!("stages.model.objective={objective}"),
        ])
    };
    let mdlm = run("8", r#"{ "kind": "mdlm" }"#);
    assert_eq!(resumed_from(&project, &mdlm, ".mdlm"), Value::Null);
    let changes = [
        (r#"{ "kind": "mdlm" }"#, ""),
        (r#"{ "kind": "sedd" }"#, "`objective` mdlm → sedd; "),
        (r#"{ "kind": "d3pm", "steps": 8 }"#, "`objective` sedd → d3pm; "),
        (r#"{ "kind": "ar" }"#, "`objective` d3pm → ar; "),
        (r#"{ "kind": "mlm" }"#, "`objective` ar → mlm; "),
        (r#"{ "kind": "mdlm", "steps": 8 }"#, "`objective` mlm → mdlm; "),
        (r#"{ "kind": "mdlm", "steps": 9 }"#, "`objective.steps` 8 → 9; "),
    ];
    for (step, (objective, why)) in (8..).zip(changes) {
        let summary = run(&(step + 1).to_string(), objective);
        let expected = format!("model: {why}`steps` {step} → {}", step + 1);
        assert_eq!(ran(&summary), [expected]);
        // More steps of the same objective are the same training.
        let from = if why.is_empty() {
            Value::from(8)
        } else {
            Value::Null
        };
        assert_eq!(resumed_from(&project, &summary, ".mdlm"), from, "{objective}");
    }
}

#[test]
fn resume_of_a_longer_training_from_a_shorter_one_gives_the_same_weights() {
    let project = Project::whole(100);
    let steps = |steps: &str| format!("stages.model.steps={steps}");
    let goes_on = |summary: &Value, store: &str| resumed_from(&project, summary, store);
    let short = project.run(&["--set", &steps("15")]);
    assert_eq!(goes_on(&short, ".mdlm"), Value::Null, "{short}");
    let long = project.run(&[
        "--set",
        &steps("35"),
        "--set",
        "stages.model.keep_checkpoints.every=10",
    ]);
    assert_eq!(goes_on(&long, ".mdlm"), 15);
    // Back, to a step whose checkpoint was kept.
    let shorter = project.run(&["--set", &steps("31")]);
    assert_eq!(goes_on(&shorter, ".mdlm"), 30);
    for (summary, steps) in [
        (&short, steps("15")),
        (&long, steps("35")),
        (&shorter, steps("31")),
    ] {
        let afresh = project.run(&["--store", "afresh", "--force", "model", "--set", &steps]);
        assert_eq!(goes_on(&afresh, "afresh"), Value::Null, "{steps}");
        assert_eq!(
            Project::artifacts(&afresh),
            Project::artifacts(summary),
            "{steps}"
        );
    }
}

/// `kill -9` at many moments, most of them within the training.
#[test]
fn resume_of_a_training_killed_again_and_again_ends_in_the_same_bits() {
    let project = Project::whole(100);
    let began = Instant::now();
    let undisturbed = Project::artifacts(&project.run(&["--store", "undisturbed"]));
    let whole = began.elapsed();
    project.run(&["--target", "rows"]);
    let mut kills = 0;
    for moment in 1..=8 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mdlm"))
            .current_dir(project.path())
            .args(["run", "pipelines/tiny.json", "--quiet"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        sleep(whole.mul_f64(f64::from(moment) / 16.0) + Duration::from_millis(10));
        // One that has finished meanwhile was not killed.
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            kills += 1;
        }
        child.wait().unwrap();
    }
    assert!(kills > 0, "every run ended before it was killed");
    assert_eq!(Project::artifacts(&project.run(&[])), undisturbed);
}

/// A plan says what is left to do of a training.
#[test]
fn plan_shows_the_step_from_which_a_training_resumes() {
    let project = Project::whole(200);
    let schedule = ["--set", "stages.model.schedule=constant", "--target", "model"];
    project.run(&schedule);
    let plan_of = |more: &[&str]| {
        let arguments = [&schedule, more].concat();
        let (code, plan, talk) = printed(&mut project.mdlm("plan", &arguments));
        assert_eq!(code, Some(0), "{talk}");
        words(&plan)
    };
    let plan = plan_of(&["--set", "stages.model.steps=40"]);
    assert!(
        plan.contains("will run from step 30 on: `steps` 30 → 40"),
        "{plan}"
    );
    assert!(plan_of(&["--set", "stages.model.steps=40", "--json"]).contains("\"resumes_from\": 30"));
    // Its time is that of what was left.
    let longer = [&schedule, &["--set", "stages.model.steps=40"][..]].concat();
    project.run(&longer);
    for arguments in [&["model"][..], &["model", "--set", "stages.model.steps=40"]] {
        let all = [arguments, &schedule[..2]].concat();
        let resumed = arguments.len() > 1;
        for command in ["compare", "explain"] {
            let (code, out, talk) = printed(&mut project.mdlm(command, &all));
            assert_eq!(code, Some(0), "{talk}");
            let out = words(&out);
            let made = out.split("History").next().unwrap();
            assert_eq!(made.contains(" s from step 30 on"), resumed, "{command}: {out}");
        }
    }
    // A training with another batch shares no step, and a forced one starts from step 0.
    let plan = plan_of(&["--set", "stages.model.batch=4"]);
    assert!(plan.contains("will run: `batch` 8 → 4"), "{plan}");
    assert!(plan_of(&["--force", "model"]).contains("will run: forced"));
}
