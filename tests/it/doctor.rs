//! `mdlm doctor`, and which device `--device` takes on this machine, with or without a GPU.

use std::fs;

use serde_json::Value;

use crate::require::require;
use crate::support::{Project, mdlm};

fn printed() -> Value {
    let output = mdlm().args(["doctor", "--json"]).output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn doctor_lists_every_part_in_80_columns() {
    let folder = tempfile::tempdir().unwrap();
    let output = mdlm()
        .current_dir(folder.path())
        .env_remove("MDLM_DEVICE")
        .arg("doctor")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let names: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with(|letter: char| letter.is_alphabetic()))
        .map(|line| line.split("  ").next().unwrap())
        .collect();
    for name in [
        "mdlm", "system", "vectors", "store", "driver", "NVRTC", "cublasLt", "kernels",
    ] {
        assert!(names.contains(&name), "{name}: {text}");
    }
    assert!(text.contains("\n`--device auto` takes the "), "{text}");
    // The command writes no files.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn doctor_json_agrees_with_itself() {
    let report = printed();
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["stated_device"], "cpu");
    let verdict = &report["verdict"];
    assert!(!verdict["because"].as_str().unwrap().is_empty());
    match verdict["device"].as_str().unwrap() {
        "cuda" => {
            assert!(verdict["way_out"].is_null());
            for part in ["driver", "nvrtc", "cublaslt"] {
                assert_eq!(report[part]["found"], true, "{part}");
            }
            assert_eq!(report["nvrtc"]["fits_driver"], true);
            assert!(report["gpus"][0]["free_bytes"].is_u64());
        }
        "cpu" => assert!(!verdict["way_out"].as_str().unwrap().is_empty()),
        other => panic!("{other}"),
    }
}

/// An existing store is checked, and a missing one is not created.
#[test]
fn doctor_checks_an_existing_store_and_creates_none() {
    let project = Project::new(20);
    let store = |report: &Value| {
        (
            report["store"]["exists"].clone(),
            report["store"]["fault"].clone(),
        )
    };
    let doctor = |arguments: &[&str]| -> Value {
        let output = mdlm()
            .current_dir(project.path())
            .args(["doctor", "--json"])
            .args(arguments)
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert_eq!(store(&doctor(&[])), (false.into(), Value::Null));
    fs::create_dir(project.path().join(".mdlm")).unwrap();
    assert_eq!(store(&doctor(&[])), (true.into(), Value::Null));
}

/// A GPU that is asked for and cannot be used: exit code 3 and the way out, before the first stage.
#[test]
fn device_cuda_without_a_gpu_is_an_error_before_anything_runs() {
    let has_gpu = printed()["verdict"]["device"] == "cuda";
    if require("no-gpu", (!has_gpu).then_some(()).ok_or("there is a GPU")).is_none() {
        return;
    }
    let project = Project::whole(200);
    for mut command in [
        project.mdlm("run", &["--device", "cuda"]),
        {
            let mut command = mdlm();
            command.args(["doctor", "--device", "cuda"]);
            command
        },
        {
            let mut command = mdlm();
            command.args(["bench", "--shape", "nano", "--device", "cuda"]);
            command
        },
    ] {
        let output = command.output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{talk}");
        assert!(talk.starts_with("error: failed to "), "{talk}");
        assert!(talk.contains("use `--device cuda`: "), "{talk}");
        assert!(
            talk.contains("\nhint: ") && talk.contains("`--device cpu`"),
            "{talk}"
        );
        assert_eq!(talk.trim_end().lines().count(), 2, "{talk}");
    }
    let artifacts = project.path().join(".mdlm/artifacts");
    assert!(fs::read_dir(artifacts).map_or(true, |mut all| all.next().is_none()));

    // What computes no network does not ask.
    let output = project
        .mdlm("run", &["--device", "cuda", "--target", "rows"])
        .output()
        .unwrap();
    assert!(output.status.success());
}

/// `auto` where there is no driver: the CPU, without a word; and the record says so.
#[test]
fn device_auto_without_a_driver_is_the_cpu_without_a_message() {
    let has_driver = printed()["driver"]["found"] == true;
    if require(
        "no-driver",
        (!has_driver).then_some(()).ok_or("there is a driver"),
    )
    .is_none()
    {
        return;
    }
    let project = Project::whole(200);
    let output = project
        .mdlm("run", &[])
        .env_remove("MDLM_DEVICE")
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    for word in ["GPU", "CPU", "CUDA", "cuda", "warning"] {
        assert!(!talk.contains(word), "{talk}");
    }
    let shown = project.mdlm("show", &["model"]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with("device") && line.contains("cpu, ")),
        "{shown}"
    );
}

/// On a machine that a library of ours pretends to be: what is missing is what a test leaves out.
#[cfg(target_os = "linux")]
mod pretended {
    use std::fs::File;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::thread::sleep;
    use std::time::Duration;

    use super::*;

    /// The libraries. They are found before those of the machine that the tests run on.
    const ALL: [&str; 3] = ["libcuda.so", "libnvrtc.so", "libcublasLt.so"];

    struct Machine {
        project: Project,
    }

    impl Machine {
        /// With these libraries; the others are there and can do nothing.
        fn new(libraries: &[&str]) -> Self {
            let project = Project::whole(200);
            let folder = project.path().join("lib");
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("empty.c"), "int nothing;\n").unwrap();
            let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
            let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fake_cuda.c");
            for library in ALL {
                let source = if libraries.contains(&library) {
                    fake.clone()
                } else {
                    folder.join("empty.c")
                };
                let compiled = Command::new(&compiler)
                    .args(["-shared", "-fPIC", "-o"])
                    .args([&folder.join(library), &source])
                    .status()
                    .unwrap();
                assert!(compiled.success());
            }
            Self { project }
        }

        fn settings(&self, facts: &[(&str, &str)]) -> Vec<(String, String)> {
            let path = |below: &str| self.project.path().join(below).display().to_string();
            let own = [
                ("LD_LIBRARY_PATH", path("lib")),
                ("XDG_CACHE_HOME", path("cache")),
                ("MDLM_DEVICE", "auto".to_owned()),
            ];
            own.into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .chain(
                    facts
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
                )
                .collect()
        }

        fn doctor(&self, facts: &[(&str, &str)]) -> Value {
            let output = mdlm()
                .envs(self.settings(facts))
                .args(["doctor", "--json"])
                .output()
                .unwrap();
            assert!(output.status.success());
            serde_json::from_slice(&output.stdout).unwrap()
        }

        /// Exit code and talk of a run of everything.
        fn run(&self, facts: &[(&str, &str)]) -> (Option<i32>, String) {
            let output = self
                .project
                .mdlm("run", &["--force", "model"])
                .envs(self.settings(facts))
                .output()
                .unwrap();
            let talk = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.code(), talk)
        }

        /// Takes the lock of its GPU, as another process.
        fn held(&self) -> File {
            let path = self
                .project
                .path()
                .join("cache/mdlm/gpus/GPU-00000000-0000-0000-0000-000000000001.lock");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, r#"{ "pid": 7, "command": "mdlm bench" }"#).unwrap();
            let file = File::open(&path).unwrap();
            file.lock().unwrap();
            file
        }
    }

    #[test]
    fn doctor_and_run_report_missing_libraries() {
        let check = |libraries: &[&str], facts: &[(&str, &str)], because: &str| {
            let machine = Machine::new(libraries);
            let report = machine.doctor(facts);
            assert_eq!(report["verdict"]["device"], "cpu", "{because}");
            let verdict = report["verdict"]["because"].as_str().unwrap();
            assert!(verdict.contains(because), "{verdict}");
            let (code, talk) = machine.run(facts);
            assert_eq!(code, Some(0), "{talk}");
            // Once, though three stages compute a network.
            let lines: Vec<_> = talk
                .lines()
                .filter(|line| line.contains("computes on the CPU: "))
                .collect();
            assert!(lines.len() == 1 && lines[0].contains(because), "{talk}");
        };
        let old = ("FAKE_DRIVER", "12040");
        check(
            &ALL,
            &[old],
            "the driver is for CUDA 12.4, but NVRTC 13.1 needs one for CUDA 13",
        );
        let broken = "the library NVRTC does not work: Missing symbol nvrtcVersion";
        check(&ALL[..1], &[], broken);
        check(&ALL, &[("FAKE_CAPABILITY", "75")], "has compute capability 7.5");
        check(&ALL, &[("FAKE_DEVICES", "0")], "the CUDA driver finds no GPU");
    }

    #[test]
    fn doctor_tests_an_idle_gpu_and_a_run_waits_for_a_busy_one() {
        let machine = Machine::new(&ALL);
        let report = machine.doctor(&[]);
        // Every library is found; the self-test shows that this GPU computes nothing.
        assert_eq!(report["verdict"]["device"], "cpu");
        let fault = report["self_test"]["fault"].as_str().unwrap();
        assert!(fault.contains("open CUDA device 0: "), "{fault}");
        assert_eq!(report["gpus"][0]["used_by"], Value::Null);
        assert_eq!(report["nvrtc"]["tried_for"], "sm_90a");

        let turn = machine.held();
        let report = machine.doctor(&[]);
        assert_eq!(report["gpus"][0]["used_by"]["pid"], 7);
        assert_eq!(report["verdict"]["device"], "cuda");
        assert_eq!(report["self_test"]["outcome"], "not_tried");
        // A run that shares the GPU does not wait.
        let (code, talk) = machine.run(&[("MDLM_GPU_SHARED", "1")]);
        assert_eq!(code, Some(0), "{talk}");
        assert_eq!(
            talk.matches("computes on the CPU: failed to").count(),
            1,
            "{talk}"
        );
        assert!(talk.contains("model: computes on Fake GPU\n"), "{talk}");
        assert!(
            talk.contains("open CUDA device 0: ") && !talk.contains("waiting"),
            "{talk}"
        );

        let start = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_mdlm"));
            command
                .current_dir(machine.project.path())
                .envs(machine.settings(&[]))
                .args(["run", "pipelines/tiny.json", "--force", "model"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let waiting = "waiting for GPU 0, used by process 7 (mdlm bench)";
        let mut interrupted = start();
        sleep(Duration::from_millis(1500));
        assert!(interrupted.try_wait().unwrap().is_none(), "it waits");
        let id = i32::try_from(interrupted.id()).unwrap();
        // SAFETY: a signal to a child of ours.
        unsafe { libc::kill(id, libc::SIGINT) };
        let output = interrupted.wait_with_output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{talk}");
        assert_eq!(talk.matches(waiting).count(), 1, "{talk}");

        let mut next = start();
        sleep(Duration::from_millis(1500));
        assert!(next.try_wait().unwrap().is_none(), "it waits");
        drop(turn);
        let output = next.wait_with_output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{talk}");
        assert!(
            talk.contains(waiting) && talk.contains("open CUDA device 0: "),
            "{talk}"
        );
    }

    /// A driver that aborts the process: with `--isolate` one stage fails, and the run says which and why.
    #[test]
    fn isolate_survives_a_driver_that_crashes() {
        let machine = Machine::new(&ALL);
        let run = |facts: &[(&str, &str)]| {
            let output = machine
                .project
                .mdlm("run", &["--isolate", "--json"])
                .envs(machine.settings(facts))
                .output()
                .unwrap();
            let talk = String::from_utf8_lossy(&output.stderr).into_owned();
            let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
            (output.status.code(), Project::statuses(&summary), talk)
        };
        let (code, statuses, talk) = run(&[("FAKE_CRASH", "1")]);
        assert_eq!(code, Some(3), "{talk}");
        assert_eq!(
            statuses, "text: done, tokens: done, rows: done, model: failed, bound: not_run, texts: not_run",
            "{talk}"
        );
        assert!(
            talk.contains("stage `model`: its process crashed (signal: 6 (SIGABRT)"),
            "{talk}"
        );
        let (code, statuses, talk) = run(&[]);
        assert_eq!(code, Some(0), "{talk}");
        assert_eq!(
            statuses, "text: cached, tokens: cached, rows: cached, model: done, bound: done, texts: done",
            "{talk}"
        );
    }
}
