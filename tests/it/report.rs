//! The report of a run: its settings and its file.

use std::fs;

use crate::support::{Project, mdlm, printed, words};

/// The report shows the settings of a stage, overrides included.
#[test]
fn report_shows_settings_with_overrides() {
    let project = Project::new(50);
    project.run(&["--set", "stages.rows.length=64"]);
    let report = project.path().join(".mdlm/reports/tiny.html");
    let report = fs::read_to_string(report).unwrap();
    for part in [
        "<tr><th>length</th><td>64</td></tr>",
        "tokenizer.vocabulary_size",
        "../corpus/a.txt (",
    ] {
        assert!(report.contains(part), "{part}");
    }
}

/// A second pipeline of the same name has a separate report.
#[test]
fn report_of_a_second_manifest_with_the_same_name_has_its_file() {
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
