//! Uploads results to the remote while the next stages run.

use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};

use super::locked;
use crate::error::Kind;
use crate::event::{Cancel, Event, Sink};
use crate::numbers;
use crate::plural::counted;
use crate::remote::Remote;
use crate::store::{Record, Store};

/// The queue of results to upload: names of stages with their records.
pub(super) struct Uploads<'a> {
    remote: Option<&'a Remote>,
    sender: Mutex<Option<Sender<(String, Record)>>>,
    receiver: Mutex<Option<Receiver<(String, Record)>>>,
}

impl<'a> Uploads<'a> {
    /// A queue to that remote, if there is one and it may be written.
    pub(super) fn new(remote: Option<&'a Remote>) -> Self {
        let remote = remote.filter(|remote| !remote.is_read_only());
        let (sender, receiver) = mpsc::channel();
        Self {
            sender: Mutex::new(remote.is_some().then_some(sender)),
            receiver: Mutex::new(Some(receiver)),
            remote,
        }
    }

    /// Queues a record.
    pub(super) fn add(&self, stage: &str, record: &Record) {
        if let Some(sender) = &*locked(&self.sender) {
            // The uploader has ended: the remote does not answer, which was reported.
            let _ = sender.send((stage.to_owned(), record.clone()));
        }
    }

    /// Ends the queue.
    pub(super) fn close(&self) {
        locked(&self.sender).take();
    }

    /// Pushes until the queue is closed. A failure is reported and stops no stage.
    pub(super) fn serve(&self, store: &Store, sink: &dyn Sink, cancel: &Cancel) {
        let (Some(remote), Some(receiver)) = (self.remote, locked(&self.receiver).take()) else {
            return;
        };
        for (stage, record) in receiver {
            let pushed = remote.push(store, &record, cancel, &|_, _| ());
            for trouble in remote.troubles() {
                sink.emit(&stage, Event::Warning(trouble));
            }
            match pushed {
                Ok(moved) if moved.files > 0 => {
                    let text = format!(
                        "pushed {}, {}, to {}",
                        counted(moved.files, "file"),
                        numbers::bytes(moved.bytes),
                        remote.url()
                    );
                    sink.emit(&stage, Event::Note(text));
                }
                Ok(_) => {}
                Err(error) if error.kind() == Kind::Interrupted => return,
                Err(error) => {
                    // The reason was reported before.
                    let why = match remote.answers() {
                        Ok(()) => error.to_string(),
                        Err(_) => format!("`{}` does not answer", remote.url()),
                    };
                    sink.emit(&stage, Event::Warning(format!("not pushed: {why}")));
                    if error.kind() == Kind::Environment {
                        return;
                    }
                }
            }
        }
    }
}
