//! What a run makes goes to the remote while the next stages run.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use super::locked;
use crate::error::Kind;
use crate::event::{Cancel, Event, Sink};
use crate::remote::Remote;
use crate::stages::memory::readable;
use crate::store::{Record, Store};

/// Stages' names with their records, on their way.
pub(super) struct Uploads {
    remote: Option<Arc<Remote>>,
    sender: Mutex<Option<Sender<(String, Record)>>>,
    receiver: Mutex<Option<Receiver<(String, Record)>>>,
}

impl Uploads {
    /// To that remote, if there is one and it may be written.
    pub(super) fn new(remote: Option<Arc<Remote>>) -> Self {
        let remote = remote.filter(|remote| !remote.is_read_only());
        let (sender, receiver) = mpsc::channel();
        Self {
            sender: Mutex::new(remote.is_some().then_some(sender)),
            receiver: Mutex::new(Some(receiver)),
            remote,
        }
    }

    /// Takes a record up.
    pub(super) fn add(&self, stage: &str, record: &Record) {
        if let Some(sender) = &*locked(&self.sender) {
            // Nobody listens any more: the remote does not answer, which has been said.
            let _ = sender.send((stage.to_owned(), record.clone()));
        }
    }

    /// Says that no more will come.
    pub(super) fn close(&self) {
        locked(&self.sender).take();
    }

    /// Pushes until no more will come. What goes wrong is told, and stops no stage.
    pub(super) fn serve(&self, store: &Store, sink: &dyn Sink, cancel: &Cancel) {
        let (Some(remote), Some(receiver)) = (&self.remote, locked(&self.receiver).take()) else {
            return;
        };
        for (stage, record) in receiver {
            let pushed = remote.push(store, &record, cancel, &|_, _| ());
            for trouble in remote.troubles() {
                sink.emit(&stage, Event::Warning(trouble));
            }
            match pushed {
                Ok(moved) if moved.files > 0 => {
                    let files = if moved.files == 1 { "file" } else { "files" };
                    let text = format!(
                        "pushed {} {files}, {}, to {}",
                        moved.files,
                        readable(moved.bytes),
                        remote.url()
                    );
                    sink.emit(&stage, Event::Note(text));
                }
                Ok(_) => {}
                Err(error) if error.kind() == Kind::Interrupted => return,
                Err(error) => {
                    sink.emit(&stage, Event::Warning(format!("not pushed: {error}")));
                    if error.kind() == Kind::Environment {
                        return;
                    }
                }
            }
        }
    }
}
