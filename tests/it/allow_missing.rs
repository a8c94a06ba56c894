//! Results whose sources are gone: commands that show them, and runs and plans with `--allow-missing`.

use std::fs;

use crate::support::{Project, mdlm, printed, transcript};

/// Results are looked at where the text that they came of is gone; what would make new ones says what is missing.
#[test]
fn results_without_sources_are_shown_by_show_path_data_and_report() {
    let project = Project::new(50);
    project.run(&[]);
    fs::rename(project.path().join("corpus"), project.path().join("elsewhere")).unwrap();
    for (command, arguments) in [
        ("show", &["rows"][..]),
        ("path", &["rows"]),
        ("data", &["tokens"]),
        ("explain", &["rows"]),
        ("report", &[]),
    ] {
        let (code, _, talk) = printed(&mut project.mdlm(command, arguments));
        assert_eq!(code, Some(0), "{command}: {talk}");
    }
    let (code, _, talk) = printed(&mut project.mdlm("run", &[]));
    assert_eq!(code, Some(2));
    assert!(
        talk.contains("no file matches") && talk.contains("`--allow-missing`"),
        "{talk}"
    );
    let (code, ..) = printed(&mut project.mdlm("run", &["--allow-missing"]));
    assert_eq!(code, Some(0));
}

/// An artifact may serve a manifest that read the same from another place: its own last run is what it goes by.
#[test]
fn allow_missing_runs_a_manifest_that_was_served_from_other_files() {
    let project = Project::new(50);
    project.run(&[]);
    let other = project.path().join("other");
    fs::create_dir(&other).unwrap();
    for name in ["a.txt", "b.txt"] {
        fs::copy(project.path().join("corpus").join(name), other.join(name)).unwrap();
    }
    let manifest = project.path().join("pipelines/tiny.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let text = text
        .replace("../corpus", "../other")
        .replace("\"tiny\"", "\"second\"");
    fs::write(project.path().join("pipelines/second.json"), text).unwrap();
    let second = |command: &str, arguments: &[&str]| {
        let mut mdlm = mdlm();
        mdlm.current_dir(project.path())
            .args([command, "pipelines/second.json"])
            .args(arguments);
        printed(&mut mdlm)
    };
    let (code, _, talk) = second("run", &[]);
    assert_eq!(code, Some(0), "{talk}");
    fs::remove_dir_all(other).unwrap();
    let (code, _, talk) = second("run", &["--allow-missing"]);
    assert_eq!(code, Some(0), "{talk}");
    let (code, ..) = second("show", &["rows"]);
    assert_eq!(code, Some(0));
}

#[test]
fn allow_missing_plans_a_checkout_of_records_alone() {
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
    insta::assert_snapshot!("plan", plan);
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
