//! What is recorded of how an artifact came about is whole, and `mdlm show` prints all of it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::Project;

#[path = "../../build.rs"]
#[expect(dead_code, reason = "cargo alone runs its `main`")]
mod build_script;

#[test]
#[expect(clippy::too_many_lines, reason = "an arm for each field of the provenance")]
fn provenance_is_complete_and_shown() {
    let project = Project::whole(60);
    let set = "stages.model.steps=4";
    project.run(&["--set", set, "--set", "seed=7", "--threads", "2"]);
    let arguments = ["--set", set, "--set", "seed=7"];
    for stage in ["text", "tokens", "rows", "model", "bound", "texts"] {
        let show = |more: &[&str]| {
            let output = project
                .mdlm("show", &[&[stage], &arguments[..], more].concat())
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        };
        let record: Value = serde_json::from_str(&show(&["--json"])).unwrap();
        let text = show(&[]);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown = |what: &str| assert!(words.contains(what), "{stage}: {what}\n{text}");
        let made = record["provenance"].as_object().unwrap();
        let string = |field: &str| made[field].as_str().unwrap().to_owned();
        for (field, value) in made {
            // A field that is added to the provenance is missed here until it is shown.
            match field.as_str() {
                "pipeline" => shown(&format!(
                    "{stage} ({}) of tiny",
                    record["key"]["kind"].as_str().unwrap()
                )),
                "stage" => assert_eq!(string("stage"), stage),
                "manifest" => shown("manifest pipelines/tiny.json"),
                "place" => shown("its place pipelines/tiny.json"),
                "overrides" => {
                    assert_eq!(value, &serde_json::json!([set, "seed=7"]));
                    shown(&format!("override {set}"));
                    shown("override seed=7");
                }
                "config" => {
                    let fields = value.as_object().unwrap();
                    assert!(!fields.is_empty());
                    for (name, setting) in fields.iter().filter(|(_, setting)| setting.is_number()) {
                        shown(&format!("{name} {setting}"));
                    }
                }
                "seed" => {
                    assert_eq!(value, 7);
                    shown("seed 7");
                }
                "inputs" => {
                    let inputs = value.as_array().unwrap();
                    assert_eq!(inputs.is_empty(), stage == "text");
                    for input in inputs {
                        let text = |field: &str| input[field].as_str().unwrap().to_owned();
                        shown(&format!(
                            "{} {} {}",
                            text("role"),
                            text("stage"),
                            &text("artifact")[..8]
                        ));
                        // Of packed rows what they hold.
                        let consumed = input.get("content").unwrap_or(&input["artifact"]);
                        assert_eq!(input.get("content").is_some(), text("kind") == "pack");
                        assert_eq!(record["key"]["inputs"][&text("role")], *consumed);
                    }
                }
                "files" => {
                    let files = value.as_array().unwrap();
                    assert_eq!(files.len(), if stage == "text" { 2 } else { 0 });
                    for file in files {
                        shown(file["path"].as_str().unwrap());
                        shown(&file["digest"].as_str().unwrap()[..8]);
                    }
                }
                "version" => shown(&format!("mdlm {}", string("version"))),
                // Of release builds alone; see `build.rs`.
                "revision" => assert_eq!(value.as_str(), option_env!("MDLM_GIT_REVISION")),
                "machine" => {
                    for part in ["host", "system"] {
                        shown(value[part].as_str().unwrap());
                    }
                    shown(&mdlm::plural::counted(
                        value["processors"].as_u64().unwrap(),
                        "processor",
                    ));
                }
                "device" => shown("device cpu, 2 threads"),
                "threads" => assert_eq!(value, 2),
                "started" => shown(&format!("started {}", string("started"))),
                "seconds" => {
                    assert!(value.as_f64().unwrap() > 0.0);
                    shown("took ");
                }
                "peak_memory_bytes" => {
                    if cfg!(target_os = "linux") {
                        assert!(value.as_u64().unwrap() > 1 << 20);
                        shown("peak memory ");
                    }
                }
                // Of stages that ran side by side with others; this one did not.
                "beside" => assert_eq!(value, &serde_json::json!([])),
                "facts" => {
                    for name in value.as_object().unwrap().keys() {
                        shown(name);
                    }
                }
                other => panic!("who shows `{other}`?"),
            }
        }
        assert!(made.len() >= 17, "{:?}", made.keys().collect::<Vec<_>>());
        for file in record["files"].as_array().unwrap() {
            shown(file["path"].as_str().unwrap());
        }
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// The revision is found in each sort of checkout.
#[test]
fn revision_is_read_from_a_checkout() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let revision = |name: &str| {
        let (revision, files) = build_script::revision(&path(name));
        assert!(files.iter().all(|file| file.is_file()), "{files:?}");
        (revision, files.len())
    };
    let (one, two) = ("1".repeat(40), "ab".repeat(32));
    assert_eq!(revision("nowhere"), (None, 0));
    write(&path("detached/.git/HEAD"), &format!("{one}\n"));
    assert_eq!(revision("detached"), (Some(one.clone()), 1));
    write(&path("branch/.git/HEAD"), "ref: refs/heads/main\n");
    assert_eq!(revision("branch"), (None, 1));
    write(
        &path("branch/.git/packed-refs"),
        &format!("# packed\n{two} refs/heads/main\n^{one}\n"),
    );
    assert_eq!(revision("branch"), (Some(two.clone()), 2));
    write(&path("branch/.git/refs/heads/main"), &format!("{one}\n"));
    assert_eq!(revision("branch"), (Some(one.clone()), 3));
    // A further working tree of it.
    write(&path("tree/.git"), "gitdir: ../branch/.git/worktrees/tree\n");
    write(&path("branch/.git/worktrees/tree/HEAD"), "ref: refs/heads/main\n");
    write(&path("branch/.git/worktrees/tree/commondir"), "../..\n");
    assert_eq!(revision("tree").0, Some(one.clone()));
    write(
        &path("package/.cargo_vcs_info.json"),
        &format!("{{\"git\": {{\"sha1\": \"{one}\"}}}}"),
    );
    assert_eq!(revision("package"), (Some(one), 1));
    for (name, head) in [
        ("odd", "ref: ../../etc/passwd"),
        ("odder", "no revision"),
        ("empty", ""),
    ] {
        write(&path(&format!("{name}/.git/HEAD")), head);
        assert_eq!(revision(name).0, None, "{name}");
    }
    // This one's.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if here.join(".git").exists() {
        assert!(build_script::revision(here).0.is_some());
    }
}
