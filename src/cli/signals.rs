//! Signals that ask a run to end, and the exit code that each leads to.
//!
//! | signal | who sends it | exit code |
//! |---|---|---|
//! | SIGINT | Ctrl-C | 130 |
//! | SIGTERM | `kill`, `timeout`, a shutdown, Slurm at the end of the time limit | 143 |
//! | SIGHUP | the terminal that closes | 129 |
//! | SIGUSR1, SIGUSR2 | Slurm's warning (`--signal`), Grid Engine's | 138, 140 |
//! | SIGXCPU | `ulimit -t`: the soft limit of processor time | 152 |
//!
//! The codes are those of Linux, 128 + the number of the signal. The first signal ends the run at the next safe place:
//! finished stages and a checkpoint are kept. A second one ends it at once. Some senders repeat themselves, which is no
//! second signal: see [`is_echo`].
//!
//! A signal that was ignored when the program was started stays ignored: `nohup mdlm run … &` outlives its terminal.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use mdlm::error::{Error, Kind, Result, Wrap};
use mdlm::event::Cancel;

/// The number of the signal that ended the command; 0 for none.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// Number of SIGINT, on every system.
const INTERRUPT: i32 = 2;

/// The exit code of an error: of an interruption that of the signal.
#[must_use]
pub fn exit_code(error: &Error) -> u8 {
    match error.kind() {
        Kind::Interrupted => code(RECEIVED.load(Ordering::Relaxed)),
        kind => kind.exit_code(),
    }
}

/// The message of an interrupted command: `interrupted`, `interrupted by SIGTERM`.
#[must_use]
pub fn ending() -> String {
    match RECEIVED.load(Ordering::Relaxed) {
        0 | INTERRUPT => "interrupted".to_owned(),
        signal => format!("interrupted by {}", name(signal)),
    }
}

/// 128 and the number of the signal; without one, that of Ctrl-C.
fn code(signal: i32) -> u8 {
    match u8::try_from(signal) {
        Ok(number @ 1..=127) => 128 + number,
        _ => Kind::Interrupted.exit_code(),
    }
}

/// Whether a signal repeats the one before instead of insisting on it.
///
/// `timeout` sends its signal to the process and at once to its group; a terminal that closes sends SIGHUP, and its shell
/// sends it again; a service manager may send SIGHUP right after SIGTERM; SIGXCPU comes every second until the hard limit.
fn is_echo(signal: i32, since: Duration) -> bool {
    /// No person presses Ctrl-C twice within this time.
    const AT_ONCE: Duration = Duration::from_millis(50);
    /// A shell on a busy machine hangs up this late.
    const SHELL: Duration = Duration::from_secs(1);
    match name(signal) {
        "SIGXCPU" => true,
        "SIGHUP" => since < SHELL,
        _ => since < AT_ONCE,
    }
}

/// Asks the command to end at the next safe place on the first signal, and ends it at once on a second one.
fn act(signal: i32, since_first: Option<Duration>, cancel: &Cancel, say: &impl Fn(&str)) {
    match since_first {
        None => {
            RECEIVED.store(signal, Ordering::Relaxed);
            cancel.cancel();
            say(&if signal == INTERRUPT {
                "interrupted: ending at the next safe point; press Ctrl-C again to end at once".to_owned()
            } else {
                format!(
                    "{}: ending at the next safe point; a second signal ends at once",
                    name(signal)
                )
            });
        }
        Some(since) if is_echo(signal, since) => {}
        // Safe at any moment: nothing counts before it is committed, and locks die with the process.
        Some(_) => std::process::exit(i32::from(code(signal))),
    }
}

/// Has signals end the command, and says so: see the module. Called once.
///
/// # Errors
/// The system refuses a signal handler.
#[cfg(unix)]
pub fn listen(cancel: &Cancel, say: impl Fn(&str) + Send + 'static) -> Result<()> {
    use std::time::Instant;

    use signal_hook::consts::SIGXFSZ;
    use signal_hook::iterator::Signals;

    let ignored = ignored();
    let heard = ALL.iter().map(|(signal, _)| *signal);
    // A file that grows beyond `ulimit -f` is reported as an error of the write instead of ending the process.
    let heard = heard.chain([SIGXFSZ]).filter(|signal| !ignored(*signal));
    let what = || "listen for signals".to_owned();
    let mut signals = Signals::new(heard).wrap(Kind::Environment, what)?;
    let cancel = cancel.clone();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let mut first: Option<Instant> = None;
            for signal in signals.forever().filter(|signal| *signal != SIGXFSZ) {
                act(signal, first.map(|first| first.elapsed()), &cancel, &say);
                first.get_or_insert_with(Instant::now);
            }
        })
        .wrap(Kind::Environment, what)?;
    Ok(())
}

/// Has Ctrl-C end the command, and says so.
///
/// # Errors
/// The system refuses a signal handler.
#[cfg(not(unix))]
pub fn listen(cancel: &Cancel, say: impl Fn(&str) + Send + 'static) -> Result<()> {
    let cancel = cancel.clone();
    let mut first: Option<std::time::Instant> = None;
    ctrlc::set_handler(move || {
        act(INTERRUPT, first.map(|first| first.elapsed()), &cancel, &say);
        first.get_or_insert_with(std::time::Instant::now);
    })
    .wrap(Kind::Environment, || "listen for Ctrl-C".to_owned())
}

/// The signals that end a command, with their names.
#[cfg(unix)]
const ALL: [(i32, &str); 6] = {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};
    [
        (SIGINT, "SIGINT"),
        (SIGTERM, "SIGTERM"),
        (SIGHUP, "SIGHUP"),
        (SIGUSR1, "SIGUSR1"),
        (SIGUSR2, "SIGUSR2"),
        (SIGXCPU, "SIGXCPU"),
    ]
};
#[cfg(not(unix))]
const ALL: [(i32, &str); 1] = [(INTERRUPT, "Ctrl-C")];

fn name(signal: i32) -> &'static str {
    let found = ALL.iter().find(|(number, _)| *number == signal);
    found.map_or("a signal", |(_, name)| name)
}

/// Which signals the program that started this one had it ignore. Where the system does not say (other than Linux), all
/// but SIGINT and SIGTERM count as ignored: they keep the meaning that they came with, so that `nohup` works.
#[cfg(unix)]
fn ignored() -> impl Fn(i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status");
    let mask = status.ok().and_then(|status| ignored_mask(&status));
    move |signal| match mask {
        Some(mask) => (1..=64).contains(&signal) && mask >> (signal - 1) & 1 == 1,
        None => !matches!(name(signal), "SIGINT" | "SIGTERM"),
    }
}

/// The set of ignored signals of proc_pid_status(5): bit n − 1 stands for signal n.
#[cfg(unix)]
fn ignored_mask(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn codes_are_128_and_the_signal() {
        let codes = ALL.map(|(signal, name)| format!("{name} {}", code(signal)));
        if cfg!(target_os = "linux") {
            let expected = [
                "SIGINT 130",
                "SIGTERM 143",
                "SIGHUP 129",
                "SIGUSR1 138",
                "SIGUSR2 140",
                "SIGXCPU 152",
            ];
            assert_eq!(codes, expected);
        }
        assert_eq!(code(0), 130);
        assert_eq!(code(-1), 130);
    }

    #[test]
    fn ignored_signals_are_read_from_proc() {
        let mask =
            ignored_mask("Name:\tmdlm\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n").unwrap();
        assert_eq!(mask, 0x1001);
        assert_eq!(ignored_mask("Name:\tmdlm\n"), None);
        assert_eq!(ignored_mask("SigIgn:\tnone\n"), None);
    }

    #[test]
    fn repeated_signal_of_the_sender_is_no_second_one() {
        let (moment, while_) = (Duration::from_millis(5), Duration::from_millis(200));
        let number = |wanted: &str| ALL.iter().find(|(_, name)| *name == wanted).unwrap().0;
        assert!(is_echo(number("SIGTERM"), moment) && !is_echo(number("SIGTERM"), while_));
        assert!(is_echo(number("SIGHUP"), while_) && !is_echo(number("SIGHUP"), Duration::from_secs(2)));
        assert!(is_echo(number("SIGXCPU"), Duration::from_secs(9)));
        assert!(!is_echo(number("SIGINT"), while_));
    }
}
