//! Machines that share results, and stages that run side by side.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Project, transcript};

/// The folder's path in a transcript as `REMOTE`.
fn masked(text: &str, shared: &Path) -> String {
    text.replace(&*shared.to_string_lossy(), "/REMOTE")
}

/// Every stage's artifact after a run with these arguments.
fn artifacts(project: &Project, arguments: &[&str]) -> Vec<(String, String, String)> {
    let mut all = vec!["--json", "--quiet"];
    all.extend(arguments);
    let output = project.mdlm("run", &all).output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |stage: &Value, field: &str| stage[field].as_str().unwrap().to_owned();
    let stages = report["stages"].as_array().unwrap().iter();
    stages
        .map(|stage| {
            (
                text(stage, "name"),
                text(stage, "artifact"),
                text(stage, "status"),
            )
        })
        .collect()
}

#[test]
fn results_are_pushed_pulled_and_fetched_when_needed() {
    let shared = tempfile::tempdir().unwrap();
    let url = format!("file://{}", shared.path().display());
    let remote = ["--remote", url.as_str()];
    let (here, there) = (Project::new(40), Project::new(40));
    let output = here.mdlm("run", &["--quiet"]).output().unwrap();
    assert!(output.status.success());
    let transcripts = [
        here.mdlm("push", &remote),
        here.mdlm("push", &remote),
        // The results come, and what they were made of stays there.
        there.mdlm("plan", &remote),
        there.mdlm("run", &remote),
        there.mdlm("path", &["tokens"]),
        there.mdlm("pull", &remote),
        there.mdlm("pull", &[]),
    ]
    .map(|mut command| masked(&transcript(&mut command), shared.path()));
    insta::assert_snapshot!("shared", transcripts.join("\n"));
}

#[test]
fn plan_of_a_checkout_of_records_alone() {
    let project = Project::new(40);
    assert!(
        project
            .mdlm("run", &["--quiet"])
            .output()
            .unwrap()
            .status
            .success()
    );
    fs::remove_dir_all(project.path().join(".mdlm/artifacts")).unwrap();
    fs::remove_dir_all(project.path().join("corpus")).unwrap();
    let plan = transcript(&mut project.mdlm("plan", &["--allow-missing", "--exit-code"]));
    insta::assert_snapshot!("allow_missing", plan);
    assert_eq!(
        project
            .mdlm("plan", &["--exit-code"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(2)
    );
}

/// Evaluation and sampling at once make what they make one after the other.
#[test]
fn side_by_side_the_same_is_made() {
    let (one, other) = (Project::whole(60), Project::whole(60));
    let alone = artifacts(&one, &["--jobs", "1"]);
    let beside = artifacts(&other, &["--jobs", "4", "--threads", "2", "--memory", "1GB"]);
    assert_eq!(alone, beside);
    let shown = other.mdlm("show", &["texts", "--json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    // Both began at once, with a thread each.
    assert_eq!(shown["provenance"]["threads"], 1);
}
