//! `mdlm corpora`: what a person reads of named corpora, and what a program does.

use serde_json::{Value, json};

use crate::support::{mdlm, transcript};

#[test]
fn corpora_are_listed() {
    insta::assert_snapshot!(transcript(mdlm().arg("corpora")));
}

#[test]
fn corpora_show_one_corpus_in_full() {
    insta::assert_snapshot!(transcript(mdlm().args(["corpora", "ptb"])));
    insta::assert_snapshot!(transcript(mdlm().args(["corpora", "openwebtext"])));
}

#[test]
fn corpora_name_the_nearest_corpus_for_an_unknown_name() {
    insta::assert_snapshot!(transcript(mdlm().args(["corpora", "wikitext-103"])), @r"
    exit 2
    --- stdout
    --- stderr
    error: failed to list the corpora: no corpus is called `wikitext-103`
    hint: did you mean `wikitext103`?
    ");
}

#[test]
fn corpora_as_json() {
    let json = |arguments: &[&str]| -> Value {
        let output = mdlm()
            .args(["corpora", "--json"])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success());
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let all = json(&[]);
    let text8 = json(&["text8"]);
    assert!(all.as_array().unwrap().contains(&text8));
    assert_eq!(
        text8["files"],
        json!([{
            "urls": ["http://mattmahoney.net/dc/text8.zip"],
            "sha256": "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
            "bytes": 31_344_016,
        }])
    );
    assert_eq!(
        text8["splits"][1]["range"],
        json!({ "unit": "characters", "from": 90_000_000, "to": 95_000_000 })
    );
}

/// Brought by hand, a corpus is read as it would be from the network; another file than the known one is refused.
#[test]
fn corpus_file_by_hand_with_another_checksum_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ptb.test.txt"), "no it was n't black monday\n").unwrap();
    let manifest = json!({
        "name": "hand",
        "seed": 1,
        "stages": {
            "text": {
                "kind": "source",
                "input": { "kind": "corpus", "corpus": "ptb", "split": "test", "files": ["ptb.test.txt"] },
            },
        },
    });
    std::fs::write(folder.path().join("hand.json"), manifest.to_string()).unwrap();
    let output = mdlm()
        .current_dir(folder.path())
        .args(["run", "hand.json"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{message}");
    assert!(message.contains("ptb.test.txt"), "{message}");
}
