//! The command line: the only module that prints.
//!
//! | folder | contents |
//! |---|---|
//! | [`commands`] | a file or folder a command; none imports another |
//! | [`args`] | groups of arguments that commands share, and what they lead to: a project, a store, a stage |
//! | [`render`] | tables, words, faults, progress, and the terminal that takes them |
//!
//! Data goes to standard output, messages to standard error. The exit code says who has to act (see
//! [`mdlm::error::Kind`]): 0 done, 2 the user's input, 3 the environment, 1 a bug in mdlm, 130 and others interrupted
//! (see [`signals`]).

use std::io::ErrorKind;
use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use mdlm::error::{Context, Error, Kind, is_guarded, panic_text};
use mdlm::plural;
use mdlm::store::ELSEWHERE;

pub mod args;
pub mod commands;
pub mod render;
pub mod signals;
mod suggestions;

use commands::{Cli, Command};
use render::error::ErrorReport;
use render::terminal::{Terminal, requested_color};

/// The whole program: parses the arguments, runs the command, reports its error, returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = suggestions::spelt_out(std::env::args_os().collect());
    let color = requested_color(&arguments);
    let matches = Cli::command().color(color).try_get_matches_from(&arguments);
    let parsed = matches.and_then(|mut matches| {
        let is_json = matches
            .subcommand()
            .and_then(|(_, own)| own.try_get_one::<bool>("json").ok().flatten().copied());
        Ok((Cli::from_arg_matches_mut(&mut matches)?, is_json == Some(true)))
    });
    let (cli, is_json) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            if let Some((message, hint)) = suggestions::answer(&error, &arguments) {
                Terminal::new(false, color).error(&message, Some(&hint));
                return ExitCode::from(Kind::Input.exit_code());
            }
            // Help and version come this way too, with exit code 0. A closed pipe is not worth a word.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let terminal = Terminal::new(cli.global.quiet, cli.global.color);
    let talker = terminal.clone();
    panic::set_hook(Box::new(move |info| {
        if is_guarded() {
            return;
        }
        let place = info.location().map_or_else(String::new, |at| format!(" ({at})"));
        talker.error(
            &format!("this is a bug in mdlm: {}{place}", panic_text(info.payload())),
            Some("please report it with the command that you ran; RUST_BACKTRACE=1 shows where it occurred"),
        );
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            talker.talk(&backtrace.to_string());
        }
    }));
    // The hook has spoken; what is left is the exit code, which would be 101.
    let code = match panic::catch_unwind(AssertUnwindSafe(|| cli.command.run(&terminal))) {
        Ok(Ok(code)) => {
            if is_json && code == Kind::Input.exit_code() && !terminal.has_output() {
                let error = Error::input("the manifest is at fault")
                    .hint("standard error lists its faults, and `mdlm validate --json` prints them as JSON");
                ErrorReport::print(&error, &terminal);
            }
            ExitCode::from(code)
        }
        Ok(Err(error)) => {
            let code = signals::exit_code(&error);
            let error = Err::<(), _>(error).context(|| cli.command.doing()).unwrap_err();
            if is_json && !terminal.has_output() {
                ErrorReport::print(&error, &terminal);
            }
            say(&error, &cli.command, &terminal);
            say_others(error.others(), &cli.command, &terminal);
            ExitCode::from(code)
        }
        Err(_) => ExitCode::from(Kind::Internal.exit_code()),
    };
    commands::run::ranks::end();
    code
}

/// Errors that are printed in full at most; one stage that is swept may fail in hundreds of instances.
const MOST_ERRORS: usize = 10;

/// Prints an error with its hint.
fn say(error: &Error, command: &Command, terminal: &Terminal) {
    match error.kind() {
        Kind::Interrupted => terminal.error(&signals::ending(), error.hint_text()),
        Kind::Internal => terminal.error(
            &format!("failed to {error}"),
            error
                .hint_text()
                .or(Some("this is a bug in mdlm; please report it")),
        ),
        Kind::Input | Kind::Environment => {
            terminal.error(&format!("failed to {error}"), hint(error, command));
        }
    }
}

/// Prints the errors that came beside the first one, and counts those beyond [`MOST_ERRORS`].
fn say_others(others: &[Error], command: &Command, terminal: &Terminal) {
    let shown = others.len().min(MOST_ERRORS - 1);
    for other in &others[..shown] {
        say(&other.clone().context(command.doing()), command, terminal);
    }
    let more = others.len() - shown;
    if more > 0 {
        let message = format!("{more} more {} failed", plural::of(more, "stage"));
        let hint = "`mdlm run MANIFEST --json` prints the errors of all stages";
        terminal.error(&message, Some(hint));
    }
}

/// The hint of an error, unless this command cannot follow it.
fn hint<'a>(error: &'a Error, command: &Command) -> Option<&'a str> {
    match error.hint_text() {
        Some(ELSEWHERE) if command.changes_store() => Some(
            "the command changes the store itself: run it as the user who owns the store, or give this user \
             permission to write there",
        ),
        Some(hint) => Some(hint),
        None => way_out(error, command),
    }
}

/// What to do about an error of the system, where the error has no hint.
fn way_out(error: &Error, command: &Command) -> Option<&'static str> {
    let mut source = std::error::Error::source(error);
    let mut cause = None;
    while let Some(error) = source {
        cause = error
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind)
            .or(cause);
        source = error.source();
    }
    // Some libraries hand on what the system said as text alone.
    let full = || error.to_string().contains("os error 28");
    match cause {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => Some(FULL),
        Some(ErrorKind::PermissionDenied) => Some(command.denied(false)),
        Some(ErrorKind::ReadOnlyFilesystem) => Some(command.denied(true)),
        _ if cfg!(target_os = "linux") && full() => Some(FULL),
        _ => None,
    }
}

/// What to do when the disk is full.
const FULL: &str = "`mdlm status` shows the size of the store, and `mdlm gc --dry-run` lists what can be deleted; then \
                    the same command resumes with the finished stages";
