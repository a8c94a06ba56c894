//! Text that comes through pipes: `-` among the files of a source, and what the shell puts into its place.

use std::fs::File;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::project::Project;
use crate::cli::render::terminal::Terminal;
use mdlm::data::files::Piped;
use mdlm::error::{Context as _, Error, Kind, Result, Wrap as _};
use mdlm::event::Cancel;
use mdlm::manifest::reading::is_open_file;
use mdlm::manifest::{SourceInput, Stage};
use mdlm::numbers::bytes;
use mdlm::plan::{self, Selection};

/// What happens to the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is copied into the store, for a run.
    Copy,
    /// It is hashed, for a plan.
    Hash,
}

/// Takes in what comes through the pipes that the sources of a selection name. Where nothing comes there is nothing to
/// take: a terminal, `/dev/null`.
///
/// # Errors
/// A pipe is empty or cannot be read, the store cannot be written, an interruption.
pub fn take(
    project: &Project,
    selection: &Selection,
    how: Use,
    cancel: &Cancel,
    terminal: &Terminal,
) -> Result<Vec<Piped>> {
    let mut all: Vec<Piped> = Vec::new();
    let mut standard_input: Option<Piped> = None;
    for name in names(project, selection)? {
        let reading = || format!("read `{name}`");
        if descriptor(&name) == 0 {
            if let Some(known) = &standard_input {
                all.push(Piped {
                    name,
                    ..known.clone()
                });
                continue;
            }
            let Some(input) = standard() else { continue };
            if is_open_file(&project.loaded.path.to_string_lossy())
                && descriptor(&project.loaded.path.to_string_lossy()) == 0
            {
                return Err(Error::input(format!(
                    "`{name}` is standard input, which the manifest comes from"
                ))
                .hint("name the manifest's file, or that of the text"));
            }
            let piped = one(&name, input, project, how, cancel, terminal).context(reading)?;
            all.extend(piped.clone());
            standard_input = piped;
        } else if let Some(input) = open(&name).context(reading)? {
            all.extend(one(&name, Box::new(input), project, how, cancel, terminal).context(reading)?);
        }
    }
    Ok(all)
}

/// The names of pipes among the files of the sources that are wanted, each once.
fn names(project: &Project, selection: &Selection) -> Result<Vec<String>> {
    let manifest = &project.loaded.manifest;
    let targets = project.loaded.sweeps.spelt_out(&selection.targets);
    let wanted = plan::wanted(manifest, &targets)?;
    let mut names: Vec<String> = Vec::new();
    for (_, stage) in manifest
        .stages
        .iter()
        .filter(|(name, _)| wanted.contains(name.as_str()))
    {
        if let Stage::Source(source) = stage
            && let SourceInput::Files(input) = &source.input
        {
            for file in input.files.iter().filter(|file| is_open_file(file)) {
                if !names.contains(file) {
                    names.push(file.clone());
                }
            }
        }
    }
    Ok(names)
}

/// The number of the open file that a name stands for.
fn descriptor(name: &str) -> u32 {
    name.rsplit('/')
        .next()
        .and_then(|last| last.parse().ok())
        .unwrap_or(0)
}

/// Standard input, where something comes from it: a pipe, a file, a socket.
#[cfg(unix)]
fn standard() -> Option<Box<dyn Read + Send>> {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::FileTypeExt as _;
    let stdin = std::io::stdin();
    let file = File::from(stdin.as_fd().try_clone_to_owned().ok()?);
    let metadata = file.metadata().ok()?;
    let kind = metadata.file_type();
    (kind.is_fifo() || kind.is_socket() || metadata.is_file()).then(|| Box::new(file) as _)
}

#[cfg(not(unix))]
fn standard() -> Option<Box<dyn Read + Send>> {
    use std::io::IsTerminal as _;
    let stdin = std::io::stdin();
    (!stdin.is_terminal()).then(|| Box::new(stdin) as _)
}

/// Another pipe that the shell has opened; nothing where it is a file, which is read like any other, or not there.
#[cfg(unix)]
fn open(name: &str) -> std::io::Result<Option<File>> {
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::metadata(name) {
        Ok(metadata) if metadata.file_type().is_fifo() => File::open(name).map(Some),
        _ => Ok(None),
    }
}

#[cfg(not(unix))]
fn open(_: &str) -> std::io::Result<Option<File>> {
    Ok(None)
}

/// How long a read waits before it looks whether the command is to end.
const PATIENCE: Duration = Duration::from_millis(100);
/// Bytes that are read at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// A pipe that is read on a separate thread, so that a command can end while nothing comes through the pipe. When the
/// command is to end, the pipe ends too.
struct Waiting {
    blocks: Receiver<io::Result<Vec<u8>>>,
    block: io::Cursor<Vec<u8>>,
    cancel: Cancel,
}

impl Waiting {
    fn on(mut input: Box<dyn Read + Send>, cancel: &Cancel) -> Result<Self> {
        let (sender, blocks) = sync_channel(1);
        // The thread ends with the pipe, on an error, when the reader is gone, or with the process.
        std::thread::Builder::new()
            .name("pipe".to_owned())
            .spawn(move || {
                let mut buffer = vec![0; BLOCK_BYTES];
                loop {
                    let block = match input.read(&mut buffer) {
                        Ok(0) => return,
                        Ok(count) => Ok(buffer[..count].to_vec()),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => Err(error),
                    };
                    let is_last = block.is_err();
                    if sender.send(block).is_err() || is_last {
                        return;
                    }
                }
            })
            .wrap(Kind::Environment, || "start a thread".to_owned())?;
        Ok(Self {
            blocks,
            block: io::Cursor::default(),
            cancel: cancel.clone(),
        })
    }
}

impl Read for Waiting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.block.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            match self.blocks.recv_timeout(PATIENCE) {
                Ok(block) => self.block = io::Cursor::new(block?),
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
                Err(RecvTimeoutError::Timeout) if self.cancel.is_cancelled() => return Ok(0),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

fn one(
    name: &str,
    input: Box<dyn Read + Send>,
    project: &Project,
    how: Use,
    cancel: &Cancel,
    terminal: &Terminal,
) -> Result<Option<Piped>> {
    terminal.say(&format!("reading `{name}`"));
    let input = &mut Waiting::on(input, cancel)?;
    let mut go_on = |_: u64| cancel.check();
    let (length, digest, path) = match how {
        Use::Copy => {
            let (length, digest, path) = project.store.keep_piped(input, &mut go_on)?;
            (length, digest, Some(path))
        }
        Use::Hash => {
            let (length, digest) = mdlm::store::piped::drain(input, None, &mut go_on)?;
            (length, digest, project.store.piped(&digest))
        }
    };
    if length == 0 && how == Use::Hash {
        return Ok(None);
    }
    if length == 0 {
        if let Some(path) = &path {
            let _ = std::fs::remove_file(path);
        }
        // Its writer may have failed: to train on other text than was meant would be worse.
        return Err(Error::input("no data came through it").hint(
            "check the command that writes to it; to use the text of the last run: `mdlm run MANIFEST < /dev/null`",
        ));
    }
    if how == Use::Copy {
        terminal.say(&format!(
            "{} came through `{name}`, and are kept in the store",
            bytes(length)
        ));
    }
    Ok(Some(Piped {
        name: name.to_owned(),
        path,
        bytes: length,
        digest,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks until the other end is dropped.
    struct Silent(Receiver<()>);

    impl Read for Silent {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(0)
        }
    }

    #[test]
    fn pipe_is_read_to_its_end() {
        let text: Vec<u8> = (0..3 * BLOCK_BYTES).map(|n| (n % 251) as u8).collect();
        let input = io::Cursor::new(text.clone());
        let mut read = Vec::new();
        let mut waiting = Waiting::on(Box::new(input), &Cancel::default()).unwrap();
        waiting.read_to_end(&mut read).unwrap();
        assert!(read == text);
    }

    #[test]
    fn cancel_ends_a_pipe_without_data() {
        let (writer, input) = sync_channel(0);
        let cancel = Cancel::default();
        let mut waiting = Waiting::on(Box::new(Silent(input)), &cancel).unwrap();
        cancel.cancel();
        assert_eq!(waiting.read(&mut [0; 8]).unwrap(), 0);
        drop(writer);
    }
}
