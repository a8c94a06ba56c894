//! Machines that share results through a remote.

use std::path::Path;

use crate::support::{Project, printed, transcript};

/// The folder's path in a transcript as `REMOTE`.
fn masked(text: &str, shared: &Path) -> String {
    text.replace(&*shared.to_string_lossy(), "/REMOTE")
}

#[test]
fn remote_results_are_pushed_pulled_and_fetched_when_needed() {
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
    insta::assert_snapshot!("push_pull_fetch", transcripts.join("\n"));
}

/// A folder that is not there is no empty cache.
#[test]
fn pull_from_a_missing_folder_is_an_error() {
    let project = Project::new(5);
    let remote = project.path().join("nowhere");
    let url = format!("file://{}", remote.display());
    let (code, _, talk) = printed(&mut project.mdlm("pull", &["--remote", &url]));
    assert_eq!(code, Some(3), "{talk}");
    assert!(talk.contains("nowhere"), "{talk}");
    assert!(!remote.exists());
}
