//! Runs each stage in a separate process, so that a crash in a driver ends one stage and not the scheduler, and the
//! memory of a stage returns to the system when it ends.
//!
//! The process is this program again with `run MANIFEST --only STAGE --events`: it takes the key's lock, runs the stage
//! and commits, as any run does. Its standard output is one [`Message`] per line as JSON. Its standard input takes one
//! [`Instruction`] per line. It outlives a scheduler that is killed: it then finishes and commits its stage, and the next run
//! finds the result.
//!
//! The scheduler alone uses the remote: it fetches the inputs of a stage before the stage's process starts, and uploads
//! the result.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Run, StageSummary, Status, locked, why};
use crate::error::{Context as _, Error, Kind, Result};
use crate::event::Event;
use crate::plan::Reason;
use crate::store::{Key, Lookup, Record};

/// How to start a process for a stage.
#[derive(Clone, Debug)]
pub struct Isolation {
    /// The program: this one.
    pub program: PathBuf,
    /// Its arguments but for those that differ from stage to stage.
    pub arguments: Vec<OsString>,
    /// Arguments with which it only checks that the device which is asked for can be used; absent where none has to be.
    pub check: Option<Vec<OsString>>,
}

impl Isolation {
    /// Checks, in a process, that the device can be used.
    ///
    /// # Errors
    /// The device cannot be used, or the process that tries it crashes.
    pub fn check_device(&self) -> Result<()> {
        let Some(arguments) = &self.check else {
            return Ok(());
        };
        let output = Command::new(&self.program)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context(|| format!("start `{}`", self.program.display()))?;
        if output.status.success() {
            return Ok(());
        }
        let talk = String::from_utf8_lossy(&output.stderr);
        let line = |prefix| talk.lines().find_map(|line| line.strip_prefix(prefix));
        Err(match (line("error: failed to "), line("hint: ")) {
            (Some(message), Some(hint)) => Error::environment(message).hint(hint),
            (Some(message), None) => Error::environment(message),
            (None, _) => crashed(output.status, talk.lines().last().map(str::to_owned)).hint(
                "compute without a GPU, with `--device cpu`; `mdlm doctor` shows the driver and the libraries of this \
                 machine",
            ),
        })
    }
}

/// A line that the process of a stage reads from its standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Instruction {
    /// End at the next safe place.
    Cancel,
    /// This stage of the same run is computed meanwhile.
    Beside(String),
}

/// Stages that other processes of the same run compute meanwhile. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Neighbours(Arc<Mutex<Vec<String>>>);

impl Neighbours {
    /// Adds a stage.
    pub fn add(&self, stage: String) {
        locked(&self.0).push(stage);
    }

    /// All stages so far.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        locked(&self.0).clone()
    }
}

/// How long to wait for a message before looking whether the run is to end.
const PATIENCE: Duration = Duration::from_millis(100);

/// A line that the process of a stage writes to its standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Something happened.
    Event {
        /// The stage.
        stage: String,
        /// What happened.
        event: Event,
    },
    /// The stage failed. Nothing follows.
    Failed {
        /// What kind of error.
        kind: Kind,
        /// The error, with its contexts.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl Message {
    /// The message of an error.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        Self::Failed {
            kind: error.kind(),
            message: error.to_string(),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

/// What came from a process.
enum ProcessOutput {
    Message(Message),
    /// Text that is not a message: a driver that writes to standard output, or anything on standard error.
    Text(String),
}

impl Run<'_> {
    /// Runs a stage in a separate process and takes its record from the store.
    ///
    /// # Errors
    /// The stage's own error; the process cannot be started, crashes, or commits nothing under the key.
    pub(super) fn isolated(
        &self,
        isolation: &Isolation,
        index: usize,
        key: &Key,
        reasons: &[Reason],
        threads: usize,
        summary: &mut StageSummary,
    ) -> Result<Record> {
        let clock = Instant::now();
        self.report_start(index, why(reasons), summary);
        let mut command = Command::new(&isolation.program);
        command
            .args(&isolation.arguments)
            .arg("--only")
            .arg(&summary.name)
            .arg("--threads")
            .arg(threads.to_string())
            .env_remove("MDLM_REMOTE");
        if reasons.contains(&Reason::Forced) {
            command.arg("--force").arg(&summary.name);
        }
        self.begin(index);
        let ran = self.attend(command, index, &summary.name);
        self.end(index);
        summary.seconds = Some(clock.elapsed().as_secs_f64());
        let is_cached = ran?;
        let Lookup::Hit(record) = self.store.lookup(key)? else {
            return Err(Error::environment(
                "its process succeeded but committed nothing under the expected key: a file changed while it ran",
            )
            .hint("run again"));
        };
        self.hold_made(&record)?;
        summary.status = if is_cached { Status::Cached } else { Status::Done };
        if is_cached {
            "made by another process".clone_into(&mut summary.why);
        }
        self.fill(summary, &record);
        self.uploads.add(&summary.name, &record);
        let seconds = clock.elapsed().as_secs_f64();
        let figures = summary.figures.clone();
        self.sink
            .emit(&summary.name, Event::StageFinished { seconds, figures });
        Ok(*record)
    }

    /// Starts the process of a stage, passes its events on and waits for its end. Whether it found the stage's result
    /// made by another run.
    fn attend(&self, mut command: Command, index: usize, stage: &str) -> Result<bool> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Ctrl-C in a terminal goes to all processes of the group; here the scheduler passes it on, once.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command
            .spawn()
            .context(|| format!("start `{}`", command.get_program().display()))?;
        let mut input = child.stdin.take();
        let mut neighbours = 0;
        let (sender, receiver) = mpsc::channel();
        let mut failure = None;
        let mut is_cached = false;
        let mut last_text = None;
        std::thread::scope(|scope| {
            read_lines(scope, child.stdout.take(), sender.clone());
            read_lines(scope, child.stderr.take(), sender);
            loop {
                let beside = locked(&self.at_work).get(&index).cloned().unwrap_or_default();
                for name in self.names(&beside[neighbours..]) {
                    order(input.as_mut(), &Instruction::Beside(name));
                }
                neighbours = beside.len();
                match receiver.recv_timeout(PATIENCE) {
                    Ok(ProcessOutput::Message(Message::Event { stage: of, event })) => match event {
                        _ if of != stage => {}
                        Event::StageCached => is_cached = true,
                        // The scheduler says when a stage starts, ends and fails.
                        Event::StageStarted { .. }
                        | Event::StageFinished { .. }
                        | Event::StageFailed { .. } => {}
                        event => self.sink.emit(stage, event),
                    },
                    Ok(ProcessOutput::Message(message @ Message::Failed { .. })) => failure = Some(message),
                    Ok(ProcessOutput::Text(text)) => {
                        self.sink.emit(stage, Event::Note(text.clone()));
                        last_text = Some(text);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    // Both streams have ended.
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                if self.cancel.is_cancelled() {
                    order(input.take().as_mut(), &Instruction::Cancel);
                }
            }
        });
        let status = wait(&mut child)?;
        match failure {
            Some(Message::Failed { kind, message, hint }) => {
                let prefix = format!("stage `{stage}`: ");
                let message = message.strip_prefix(&prefix).unwrap_or(&message);
                let error = Error::new(kind, message);
                Err(match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                })
            }
            _ if status.success() => Ok(is_cached),
            _ => {
                let memory = if is_killed(status) {
                    "the system kills a process when memory runs out: lower `micro_batch` or `--jobs`; "
                } else {
                    ""
                };
                Err(crashed(status, last_text).hint(format!(
                    "{memory}finished results are kept; the same command runs this stage again, a training from its last \
                     checkpoint"
                )))
            }
        }
    }
}

/// Reads a stream of a process to its end, line by line, in a thread.
fn read_lines<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    stream: Option<impl std::io::Read + Send + 'scope>,
    sender: mpsc::Sender<ProcessOutput>,
) {
    let Some(stream) = stream else { return };
    scope.spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            let sent = match serde_json::from_str(&text) {
                Ok(message) => sender.send(ProcessOutput::Message(message)),
                Err(_) if text.is_empty() => Ok(()),
                Err(_) => sender.send(ProcessOutput::Text(text)),
            };
            if sent.is_err() {
                break;
            }
        }
    });
}

/// Writes a line to the standard input of a process.
fn order(input: Option<&mut ChildStdin>, order: &Instruction) {
    if let (Some(input), Ok(mut line)) = (input, serde_json::to_vec(order)) {
        line.push(b'\n');
        // A process that has ended reads no more.
        let _ = input.write_all(&line);
    }
}

fn wait(child: &mut Child) -> Result<ExitStatus> {
    child
        .wait()
        .context(|| "wait for the process of the stage".to_owned())
}

/// The error of a process that ended without saying why.
fn crashed(status: ExitStatus, last_text: Option<String>) -> Error {
    let last = last_text.map_or_else(String::new, |text| format!("; its last output: {text}"));
    // `ExitStatus` prints `signal: 11 (SIGSEGV) (core dumped)` or `exit status: 3`.
    Error::environment(format!("its process crashed ({status}){last}"))
}

/// Whether SIGKILL ended a process.
#[cfg(unix)]
fn is_killed(status: ExitStatus) -> bool {
    const SIGKILL: i32 = 9;
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(SIGKILL)
}

#[cfg(not(unix))]
fn is_killed(_: ExitStatus) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Progress;

    /// No stage has run: the way out is another device.
    #[cfg(unix)]
    #[test]
    fn isolate_check_of_a_device_that_crashes_names_another_device() {
        let isolation = Isolation {
            program: "/bin/sh".into(),
            arguments: vec![],
            check: Some(
                ["-c", "echo loading >&2; kill -SEGV $$"]
                    .map(OsString::from)
                    .to_vec(),
            ),
        };
        let error = isolation.check_device().unwrap_err();
        assert_eq!(error.kind(), Kind::Environment);
        let text = error.to_string();
        assert!(
            text.contains("signal: 11") && text.ends_with("its last output: loading"),
            "{text}"
        );
        assert!(error.hint_text().unwrap().contains("`--device cpu`"), "{error:?}");
    }

    #[test]
    fn isolate_messages_survive_a_line_of_json() {
        let progress = Progress {
            done: 3,
            total: Some(10),
            unit: "steps",
            figures: vec![("loss", "1.25\n".to_owned())],
        };
        let event = |event| Message::Event {
            stage: "model".to_owned(),
            event,
        };
        let started = Event::StageStarted {
            index: 1,
            of: 2,
            why: "never ran".to_owned(),
        };
        let error = Error::input("rows are too few")
            .hint("add text")
            .context("stage `model`");
        for message in [
            event(Event::Progress(progress)),
            event(started),
            event(Event::StageCached),
            event(Event::Note("a \"note\"".to_owned())),
            Message::of(&error),
        ] {
            let line = serde_json::to_string(&message).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), message);
        }
    }
}
