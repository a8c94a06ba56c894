//! Signals that ask a run to end: each keeps finished stages and a checkpoint, and has its exit code. And the log of a run
//! without a terminal.

#![cfg(unix)]

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::require::require;
use crate::support::{Project, Started, program, send, untimed};

/// A training that does not end by itself, and keeps no checkpoint unless it is asked to end.
const ENDLESS: [&str; 4] = [
    "--set",
    "stages.model.steps=1000000",
    "--set",
    "stages.model.checkpoint_every=1000000",
];

/// Reads until a stage has begun, and lets it work for a while.
fn until(stage: &str, run: &mut Started) {
    run.read_until(&format!("] {stage}:"));
    sleep(Duration::from_millis(300));
}

/// The step of a checkpoint that was kept.
fn kept(talk: &str) -> Option<u64> {
    let (_, rest) = talk.split_once("kept a checkpoint of step ")?;
    rest.lines().next()?.parse().ok()
}

#[test]
fn resume_after_every_signal_from_its_checkpoint_and_each_has_its_exit_code() {
    let project = Project::whole(60);
    project.run(&["--target", "rows"]);
    let mut before = 0;
    for (signal, code) in [
        ("INT", 130),
        ("TERM", 143),
        ("HUP", 129),
        ("USR1", 138),
        ("USR2", 140),
        ("XCPU", 152),
    ] {
        if code > 143 && !cfg!(target_os = "linux") {
            continue;
        }
        let mut run = Started::new(program(), &project, &ENDLESS);
        until("model", &mut run);
        send(signal, run.child.id());
        let (ended, talk) = run.end();
        let expected = if cfg!(target_os = "linux") || code < 138 {
            Some(code)
        } else {
            ended
        };
        assert_eq!(ended, expected, "{signal}: {talk}");
        let message = match signal {
            "INT" => "error: interrupted\nhint: finished stages and checkpoints are kept".to_owned(),
            _ => format!("error: interrupted by SIG{signal}\nhint: finished stages and checkpoints are kept"),
        };
        assert!(talk.contains(&message), "{talk}");
        let step = kept(&talk).unwrap_or_else(|| panic!("{signal}: {talk}"));
        assert!(step > before, "{signal} resumed from step {before}: {talk}");
        if before > 0 {
            let from = format!("resuming from the checkpoint of step {before}");
            assert!(talk.contains(&from), "{signal}: {talk}");
        }
        before = step;
    }
    let plan = project.mdlm("plan", &ENDLESS).output().unwrap();
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(
        plan.contains(&format!(
            "will run from step {before} on: interrupted at step {before}"
        )),
        "{plan}"
    );
}

/// The first signal ends a run that waits for text on standard input.
#[test]
fn signal_ends_the_wait_for_a_pipe() {
    let project = Project::new(1);
    let manifest = project.path().join("pipelines/tiny.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("../corpus/*.txt", "-")).unwrap();
    let mut command = program();
    command.args(["run", "pipelines/tiny.json"]).stdin(Stdio::piped());
    let mut run = Started::of(&mut command, &project);
    // Held open: `wait` closes it.
    let writer = run.child.stdin.take();
    run.read_until("reading `-`");
    send("INT", run.child.id());
    let (code, rest) = run.end();
    assert_eq!(code, Some(130), "{rest}");
    drop(writer);
}

/// A terminal that closes takes the bars with it; the run ends with a checkpoint all the same.
#[cfg(target_os = "linux")]
#[test]
fn resume_after_a_terminal_closes_under_the_bars() {
    use std::io::Read as _;

    let version = Command::new("script").arg("--version").output();
    let has_script =
        version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("util-linux"));
    let found = has_script
        .then_some(())
        .ok_or("the machine lacks `script` of util-linux");
    if require("script", found).is_none() {
        return;
    }
    let project = Project::whole(60);
    project.run(&["--target", "rows"]);
    // The shell waits for the program's exit code, and leaves it in a file.
    let run = format!(
        "trap : HUP\nenv --default-signal '{}' run pipelines/tiny.json {}\necho $? > code.part\nmv code.part code\n",
        env!("CARGO_BIN_EXE_mdlm"),
        ENDLESS.join(" ")
    );
    fs::write(project.path().join("run.sh"), run).unwrap();
    let mut terminal = Command::new("script")
        .current_dir(project.path())
        .args(["-q", "-c", "sh run.sh; true", "/dev/null"])
        .env("MDLM_DEVICE", "cpu")
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Until the bar shows a rate: steps have been made.
    let mut shown = terminal.stdout.take().unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains(" left") {
        let count = shown.read(&mut buffer).unwrap();
        assert!(count > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    let code = project.path().join("code");
    let limit = Instant::now() + Duration::from_secs(60);
    while !code.exists() {
        assert!(Instant::now() < limit, "the run does not end");
        sleep(Duration::from_millis(20));
    }
    assert_eq!(fs::read_to_string(code).unwrap(), "129\n");
    let plan = project.mdlm("plan", &ENDLESS).output().unwrap();
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("will run from step "), "{plan}");
}

#[test]
fn signal_ends_every_kind_of_stage() {
    let project = Project::new(20_000);
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let _ = fs::remove_dir_all(project.store());
        let run = Started::new(program(), &project, &[]);
        // Once the first stage is committed, the second is at work for a while.
        let began = Instant::now();
        let committed = project.store().join("actions/source");
        while fs::read_dir(&committed).map_or(0, Iterator::count) == 0 {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the first stage never ended"
            );
            sleep(Duration::from_millis(5));
        }
        send(signal, run.child.id());
        let (ended, talk) = run.end();
        assert_eq!(ended, Some(code), "{talk}");
        assert!(!talk.contains("bug"), "{talk}");
        let plan = project.mdlm("plan", &["--json"]).output().unwrap();
        let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
        assert_eq!(plan["stages"][0]["decision"], "cached");
        assert_eq!(plan["stages"][1]["decision"], "run");
    }
    let project = Project::whole(60);
    project.run(&["--target", "model"]);
    for (stage, setting) in [
        ("bound", "stages.bound.draws=100000"),
        ("texts", "stages.texts.count=1000000"),
    ] {
        let arguments = ["--set", setting, "--target", stage];
        let mut run = Started::new(program(), &project, &arguments);
        until(stage, &mut run);
        send("USR1", run.child.id());
        let (ended, talk) = run.end();
        assert_eq!(ended.map(|code| code > 128), Some(true), "{stage}: {talk}");
        assert!(talk.contains("interrupted by SIGUSR1"), "{stage}: {talk}");
    }
}

/// `nohup mdlm run … &`: the signal was ignored when the program was started, and stays ignored.
#[cfg(target_os = "linux")]
#[test]
fn signal_that_was_ignored_stays_ignored() {
    let project = Project::whole(60);
    project.run(&["--target", "rows"]);
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "trap '' HUP USR1; exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_mdlm"),
    ]);
    let mut run = Started::new(shell, &project, &ENDLESS);
    until("model", &mut run);
    send("HUP", run.child.id());
    send("USR1", run.child.id());
    sleep(Duration::from_millis(500));
    assert!(run.child.try_wait().unwrap().is_none(), "it ended");
    send("TERM", run.child.id());
    let (ended, talk) = run.end();
    assert_eq!(ended, Some(143), "{talk}");
    assert!(!talk.contains("HUP") && !talk.contains("USR1"), "{talk}");
    assert!(kept(&talk).is_some(), "{talk}");
}

/// `timeout` sends its signal to the program and again to its group: that is one signal.
#[cfg(target_os = "linux")]
#[test]
fn signal_that_comes_twice_at_once_counts_once() {
    let project = Project::whole(60);
    project.run(&["--target", "rows"]);
    let mut timeout = Command::new("timeout");
    timeout.args(["--preserve-status", "-s", "TERM", "3", env!("CARGO_BIN_EXE_mdlm")]);
    let run = Started::new(timeout, &project, &ENDLESS);
    let (ended, talk) = run.end();
    assert_eq!(ended, Some(143), "{talk}");
    assert!(kept(&talk).is_some(), "{talk}");
}

/// A file that may not grow any more is a fault that is shown, not the end of the process.
#[cfg(target_os = "linux")]
#[test]
fn signal_of_a_file_size_limit_is_an_error_message() {
    let project = Project::new(2_000);
    let mut shell = Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_mdlm");
    shell.args(["-c", "ulimit -f 8; exec \"$0\" \"$@\"", binary]);
    let run = Started::new(shell, &project, &[]);
    let (ended, talk) = run.end();
    assert_eq!(ended, Some(3), "{talk}");
    assert!(talk.contains("File too large"), "{talk}");
    assert!(!project.store().join("staging").join("artifacts").exists());
    project.run(&[]);
}

/// Plain lines begin with the time, and `--log-every` paces them.
#[test]
fn log_lines_begin_with_the_time() {
    let project = Project::whole(60);
    project.run(&["--target", "rows"]);
    let arguments = ["--set", "stages.model.steps=400", "--target", "model"];
    let output = project
        .mdlm("run", &[&arguments[..], &["--log-every", "0.1s"]].concat())
        .output()
        .unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{talk}");
    let log: Vec<&str> = talk.lines().take_while(|line| !line.is_empty()).collect();
    assert!(log.iter().all(|line| untimed(line) != *line), "{talk}");
    assert!(untimed(log[0]).starts_with("[4/4] model: first run"), "{talk}");
    let progress = log
        .iter()
        .filter(|line| untimed(line).contains("/400 steps"))
        .count();
    assert!(progress > 1, "{talk}");
    // Less often than it takes: not once.
    let seed = ["--set", "stages.model.seed=2", "--log-every", "1h"];
    let output = project
        .mdlm("run", &[&arguments[..], &seed].concat())
        .output()
        .unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(!talk.contains("/400 steps"), "{talk}");
    let output = project.mdlm("run", &["--log-every", "often"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
