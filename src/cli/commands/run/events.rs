//! Events of a stage as JSON lines on standard output: what the process of an isolated stage reports to its scheduler
//! ([`executor::isolate`]).

use std::io::{BufRead, Write};

use mdlm::error::{Error, Kind, Result, Wrap};
use mdlm::event::{Cancel, Event, Sink};
use mdlm::executor::isolate::{Instruction, Message, Neighbours};

/// Writes each event as a line.
pub struct EventLines;

impl EventLines {
    /// Writes the error that ends the process.
    pub fn failed(error: &Error) {
        write(&Message::of(error));
    }
}

impl Sink for EventLines {
    fn emit(&self, stage: &str, event: Event) {
        let stage = stage.to_owned();
        write(&Message::Event { stage, event });
    }
}

fn write(message: &Message) {
    // Without a scheduler that reads, the stage continues: its result is committed all the same.
    if let Ok(mut line) = serde_json::to_vec(message) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}

/// Follows the orders on standard input. An end of standard input does not cancel: a stage outlives its scheduler.
///
/// # Errors
/// The system cannot start a thread.
pub fn follow_orders(cancel: &Cancel, neighbours: &Neighbours) -> Result<()> {
    let (cancel, neighbours) = (cancel.clone(), neighbours.clone());
    std::thread::Builder::new()
        .name("orders".to_owned())
        .spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(std::io::Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(Instruction::Cancel) => cancel.cancel(),
                    Ok(Instruction::Beside(stage)) => neighbours.add(stage),
                    Err(_) => {}
                }
            }
        })
        .map(drop)
        .wrap(Kind::Environment, || "start a thread".to_owned())
}
