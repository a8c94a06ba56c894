//! What the integration tests share.

use std::fs;
#[cfg(unix)]
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::process::{Child, ChildStderr, Stdio};

use assert_cmd::Command;
use serde_json::Value;

use crate::require::require;

/// The program, without the caller's settings that would change what it prints.
pub fn mdlm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mdlm"));
    command
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("GITHUB_WORKSPACE")
        .env_remove("RUST_BACKTRACE")
        // What a GPU makes has other bits, and not every machine has one.
        .env("MDLM_DEVICE", "cpu")
        .env_remove("MDLM_STORE")
        .env_remove("MDLM_THREADS")
        .env_remove("MDLM_JOBS")
        .env("COLUMNS", "80");
    command
}

/// A line of a log without the time that it begins with: `2026-01-31T09:05:07Z `.
pub fn untimed(line: &str) -> &str {
    let shape = |(place, byte): (usize, u8)| match place {
        4 | 7 => byte == b'-',
        10 => byte == b'T',
        13 | 16 => byte == b':',
        19 => byte == b'Z',
        20 => byte == b' ',
        _ => byte.is_ascii_digit(),
    };
    if line.len() > 20 && line.bytes().take(21).enumerate().all(shape) {
        &line[21..]
    } else {
        line
    }
}

/// What a finished command did: its exit code, standard output and standard error, as one text for a snapshot.
/// Times and short digests are replaced, or left out: they differ between machines and between versions of libraries.
pub fn transcript(command: &mut Command) -> String {
    let output = command.output().expect("start mdlm");
    let code = output
        .status
        .code()
        .map_or("signal".to_owned(), |code| code.to_string());
    let text = format!(
        "exit {code}\n--- stdout\n{}--- stderr\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    masked(&text)
}

/// Exit code, standard output, standard error.
pub fn printed(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The words of a text, with one space between them: a table without its layout.
pub fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Short digests as `xxxxxxxx`, seconds as `0.0 s`.
fn masked(text: &str) -> String {
    let is_digest = |word: &str| {
        word.len() == 8
            && word
                .chars()
                .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
    };
    let mut lines = Vec::new();
    for line in text.lines().map(untimed) {
        let words: Vec<_> = line.split(' ').collect();
        let word = |(place, word): (usize, &&str)| {
            let is_time = words.get(place + 1) == Some(&"s") && word.parse::<f64>().is_ok();
            match *word {
                word if is_digest(word) => "xxxxxxxx".to_owned(),
                _ if is_time => "0.0".to_owned(),
                word => word.to_owned(),
            }
        };
        lines.push(words.iter().enumerate().map(word).collect::<Vec<_>>().join(" "));
    }
    lines.join("\n")
}

/// The files of an archive of the kit, in a folder: published tokenizers and texts, which this repository does
/// not contain.
/// `MDLM_TEST_KIT` names the kit's folder.
pub fn kit(archive: &str) -> Option<tempfile::TempDir> {
    let kit = std::env::var_os("MDLM_TEST_KIT").ok_or("MDLM_TEST_KIT names no folder");
    let path = PathBuf::from(require("kit", kit)?).join(archive);
    let packed = fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let bytes = zstd::decode_all(packed).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut at = 0;
    // A block of 512 bytes has the name, the size in octal digits, and the type (POSIX.1-1988, ustar).
    while bytes.get(at).is_some_and(|&byte| byte != 0) {
        let text = |range: std::ops::Range<usize>| {
            let field = bytes[at..][range].split(|&byte| byte == 0 || byte == b' ');
            String::from_utf8(field.into_iter().next().unwrap().to_vec()).unwrap()
        };
        let to = folder.path().join(text(0..100));
        let size = usize::from_str_radix(&text(124..136), 8).unwrap();
        // Folders are made for their files.
        if bytes[at + 156] != b'5' {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, &bytes[at + 512..][..size]).unwrap();
        }
        at += 512 + size.next_multiple_of(512);
    }
    Some(folder)
}

/// A project folder with a corpus and a pipeline of the stages that make data.
pub struct Project {
    folder: tempfile::TempDir,
}

/// The manifest of [`Project`].
pub const MANIFEST: &str = r#"{
  "name": "tiny",
  "seed": 1,
  "stages": {
    "text": { "kind": "source", "input": { "kind": "files", "files": ["../corpus/*.txt"] } },
    "tokens": {
      "kind": "tokenize", "from": "text",
      "tokenizer": { "kind": "train_bpe", "vocabulary_size": 320 }
    },
    "rows": { "kind": "pack", "from": "tokens", "length": 32, "validation": 0.1 }
  }
}
"#;

impl Project {
    /// A corpus of two files with that many lines each.
    pub fn new(lines: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pipelines")).unwrap();
        fs::create_dir(folder.path().join("corpus")).unwrap();
        fs::write(folder.path().join("pipelines/tiny.json"), MANIFEST).unwrap();
        for (file, what) in [("a.txt", "fox"), ("b.txt", "hare")] {
            let lines = (0..lines).map(|n| {
                let (a, b) = (n * 7919 % 101, n * 104_729 % 997);
                format!(
                    "the quick brown {what} number {a} jumps over {b} lazy dogs and word{} it\n",
                    a * b % 1009
                )
            });
            fs::write(folder.path().join("corpus").join(file), lines.collect::<String>()).unwrap();
        }
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The same project with all six kinds of stages.
    pub fn whole(lines: usize) -> Self {
        let project = Self::new(lines);
        let mut manifest: Value = serde_json::from_str(MANIFEST).unwrap();
        let more = serde_json::json!({
            "model": {
                "kind": "train", "from": "rows", "shape": "nano", "steps": 30, "batch": 8, "warmup_steps": 3,
                "learning_rate": 1e-3, "validation_every": 10, "validation_rows": 8, "checkpoint_every": 4
            },
            "bound": { "kind": "evaluate", "model": "model", "data": "rows", "draws": 1, "rows": 8 },
            "texts": { "kind": "sample", "model": "model", "count": 3, "steps": 8 }
        });
        let stages = manifest["stages"].as_object_mut().unwrap();
        stages.extend(more.as_object().unwrap().clone());
        fs::write(project.path().join("pipelines/tiny.json"), manifest.to_string()).unwrap();
        project
    }

    /// `mdlm COMMAND pipelines/tiny.json …`, started in the project.
    pub fn mdlm(&self, command: &str, arguments: &[&str]) -> Command {
        let mut mdlm = mdlm();
        mdlm.current_dir(self.path())
            .args([command, "pipelines/tiny.json"])
            .args(arguments);
        mdlm
    }

    /// Runs everything and returns the summary.
    pub fn run(&self, arguments: &[&str]) -> Value {
        let output = self
            .mdlm("run", &[&["--json"], arguments].concat())
            .output()
            .unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{talk}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// `name: status` of each stage of a summary.
    pub fn statuses(summary: &Value) -> String {
        let stages = summary["stages"].as_array().unwrap();
        let printed = |stage: &Value| {
            format!(
                "{}: {}",
                stage["name"].as_str().unwrap(),
                stage["status"].as_str().unwrap()
            )
        };
        stages.iter().map(printed).collect::<Vec<_>>().join(", ")
    }

    /// The artifacts of a summary.
    pub fn artifacts(summary: &Value) -> Vec<String> {
        let stages = summary["stages"].as_array().unwrap();
        stages
            .iter()
            .map(|stage| stage["artifact"].as_str().expect("made").to_owned())
            .collect()
    }

    /// The store.
    pub fn store(&self) -> PathBuf {
        self.path().join(".mdlm")
    }
}

/// The program; where the tests themselves were started with signals ignored, which children inherit, without that.
#[cfg(unix)]
pub fn program() -> std::process::Command {
    let binary = env!("CARGO_BIN_EXE_mdlm");
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGPIPE is ignored by Rust, and set back for children.
    if mask.is_none_or(|mask| mask & !(1 << 12) == 0) {
        return std::process::Command::new(binary);
    }
    let mut command = std::process::Command::new("env");
    command.args(["--default-signal", binary]);
    command
}

/// Sends a signal to a process.
#[cfg(unix)]
pub fn send(signal: &str, process: u32) {
    let sent = std::process::Command::new("kill")
        .args([&format!("-{signal}"), &process.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// A run whose messages are read while it works.
#[cfg(unix)]
pub struct Started {
    pub child: Child,
    messages: BufReader<ChildStderr>,
}

#[cfg(unix)]
impl Started {
    /// Starts `… run pipelines/tiny.json …` in a project.
    pub fn new(mut command: std::process::Command, project: &Project, arguments: &[&str]) -> Self {
        command.args(["run", "pipelines/tiny.json"]).args(arguments);
        Self::of(command.stdin(Stdio::null()), project)
    }

    /// Starts a command in a project.
    pub fn of(command: &mut std::process::Command, project: &Project) -> Self {
        let mut child = command
            .current_dir(project.path())
            .env("MDLM_DEVICE", "cpu")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let messages = BufReader::new(child.stderr.take().unwrap());
        Self { child, messages }
    }

    /// Reads messages until one has a text.
    pub fn read_until(&mut self, text: &str) {
        let mut read = String::new();
        while !read.contains(text) {
            assert!(self.messages.read_line(&mut read).unwrap() > 0, "{read}");
        }
    }

    /// Waits until it ends. Its exit code, and its messages that have not been read.
    pub fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.messages.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

/// The Python of the tests (`MDLM_TEST_PYTHON`, else `python3`), if it has these modules.
///
/// # Errors
/// What it lacks.
pub fn python_with(modules: &[&str]) -> Result<PathBuf, String> {
    let python = std::env::var_os("MDLM_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let import = format!("import {}", modules.join(", "));
    let output = std::process::Command::new(&python).args(["-c", &import]).output();
    if output.is_ok_and(|output| output.status.success()) {
        Ok(python.into())
    } else {
        Err(format!("{} lacks {}", python.display(), modules.join(" or ")))
    }
}

/// Copies a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("list a folder") {
        let from = entry.expect("list a folder").path();
        let to = to.join(from.file_name().expect("a name"));
        if from.is_dir() {
            copy_folder(&from, &to);
        } else {
            fs::copy(&from, &to).expect("copy a file");
        }
    }
}
