//! All six kinds of stages through the program: what a change reruns, and that no disturbance shows in the results.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::Project;

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
fn a_change_of_training_leaves_the_data_alone() {
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

#[test]
fn resume_of_a_longer_training_from_a_shorter_one_gives_the_same_weights() {
    let project = Project::whole(100);
    let steps = |steps: &str| format!("stages.model.steps={steps}");
    // What the record of the training says that it went on from.
    let goes_on = |summary: &Value, store: &str| {
        let model = &summary["stages"][3]["artifact"];
        let actions = std::fs::read_dir(project.path().join(store).join("actions/train")).unwrap();
        let records = actions.map(|file| -> Value {
            serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap()
        });
        let mut own = records.filter(|record| record["artifact"] == *model);
        own.next().unwrap()["provenance"]["facts"]["resumed_from"].clone()
    };
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
