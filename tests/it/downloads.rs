//! `mdlm downloads`: what was downloaded, and forgetting it.

use std::fs;

use serde_json::{Value, json};

use crate::support::{mdlm, transcript};

/// What a URL was found to hold, as the program writes it: a file of three bytes.
const INDEX: &str = r#"{ "url": "https://example.org/a.txt", "pinned": false, "files": [{
    "url": "https://example.org/a.txt",
    "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "bytes": 3 }] }"#;

/// A project that has downloaded something.
fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let downloads = folder.path().join(".mdlm/downloads");
    fs::create_dir_all(downloads.join("index")).unwrap();
    fs::create_dir_all(downloads.join("sha256/ba")).unwrap();
    fs::create_dir(folder.path().join("pipelines")).unwrap();
    fs::write(folder.path().join("pipelines/a.json"), "no manifest").unwrap();
    fs::write(
        downloads.join("index/0123456789abcdef0123456789abcdef.json"),
        INDEX,
    )
    .unwrap();
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    fs::write(downloads.join("sha256/ba").join(sha256), "abc").unwrap();
    folder
}

#[test]
fn downloads_are_listed_with_sizes_and_states() {
    let folder = project();
    let output = mdlm()
        .current_dir(folder.path())
        .arg("downloads")
        .output()
        .unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0], ["size", "sha256", "state", "when", "url"]);
    let [size, unit, sha256, state, _day, _minute, url] = lines[1][..] else {
        panic!("{list}")
    };
    assert_eq!(
        [size, unit, sha256, state, url],
        ["3", "bytes", "ba7816bf", "unpinned", "https://example.org/a.txt"]
    );
    // From elsewhere, by a manifest, which need not be a good one; as JSON.
    let manifest = folder.path().join("pipelines/a.json");
    let elsewhere = tempfile::tempdir().unwrap();
    let output = mdlm()
        .current_dir(elsewhere.path())
        .args(["downloads", "--json"])
        .arg(manifest)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let download = &report["downloads"][0];
    assert_eq!(download["url"], "https://example.org/a.txt");
    assert_eq!(
        (&download["pinned"], &download["bytes"]),
        (&json!(false), &json!(3))
    );
    assert_eq!(download["files"][0]["here"], true);
    insta::assert_snapshot!(transcript(mdlm().current_dir(elsewhere.path()).arg("downloads")), @r"
    exit 0
    --- stdout
    --- stderr
    there are no downloads in .mdlm/downloads
    ");
    insta::assert_snapshot!(transcript(mdlm().current_dir(elsewhere.path()).args(["downloads", "x.json"])), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to list the downloads: there is no `x.json`
    hint: name a manifest of the project, or its store with `--store DIR`
    ");
}

#[test]
fn downloads_forget_deletes_what_a_pattern_names() {
    let folder = project();
    let forget = |pattern: &str| {
        let mut command = mdlm();
        command
            .current_dir(folder.path())
            .args(["downloads", "--store", ".mdlm", "--forget", pattern]);
        transcript(&mut command)
    };
    insta::assert_snapshot!(forget("https://example.org/b.txt"), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to forget downloads: no download matches `https://example.org/b.txt`
    hint: `mdlm downloads` lists all downloads; in a glob, `*` matches anything
    ");
    let locks = folder.path().join(".mdlm/downloads/locks");
    fs::create_dir_all(&locks).unwrap();
    let lock = fs::File::create(locks.join("0123456789abcdef0123456789abcdef")).unwrap();
    lock.lock().unwrap();
    insta::assert_snapshot!(forget("*"), @r"
    exit 3
    --- stdout
    --- stderr
    error: failed to forget downloads: forget `https://example.org/a.txt`: another process is downloading it
    hint: end that run or wait for it, then forget it again
    ");
    drop(lock);
    insta::assert_snapshot!(forget("https://example.org/*"), @r"
    exit 0
    --- stdout
    forgotten  https://example.org/a.txt
    deleted    ba7816bf, 3 bytes
    --- stderr
    the next run that needs a file downloads it again; rerun a cached stage with `--force STAGE`
    ");
    assert_eq!(
        fs::read_dir(folder.path().join(".mdlm/downloads/sha256/ba"))
            .unwrap()
            .count(),
        0
    );
}
