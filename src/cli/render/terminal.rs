//! What is printed, where, and in which colours. Meaning never rests on colour.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anstream::AutoStream;
use clap::{ColorChoice, ValueEnum};

use super::style::{self, Style};
use super::table::columns;
use mdlm::error::{Error, Kind, Result, Wrap};

/// The two output streams and how to write to them.
#[expect(
    clippy::struct_excessive_bools,
    reason = "five independent facts about two streams"
)]
#[derive(Clone, Debug)]
pub struct Terminal {
    quiet: bool,
    color_out: bool,
    color_err: bool,
    live: bool,
    live_out: bool,
    /// Whether anything was written to standard output.
    has_output: Arc<AtomicBool>,
}

impl Terminal {
    /// The process's own streams.
    #[must_use]
    pub fn new(quiet: bool, color: ColorChoice) -> Self {
        // The rule of clap's own texts, so that all of an invocation has colours or none has.
        let colored = |of_stream: anstream::ColorChoice| match color {
            ColorChoice::Auto => of_stream != anstream::ColorChoice::Never,
            stated => stated == ColorChoice::Always,
        };
        let is_able = std::env::var_os("TERM").is_none_or(|value| value != "dumb");
        Self {
            quiet,
            color_out: colored(AutoStream::choice(&io::stdout())),
            color_err: colored(AutoStream::choice(&io::stderr())),
            live: io::stderr().is_terminal() && is_able,
            live_out: io::stdout().is_terminal() && is_able,
            has_output: Arc::default(),
        }
    }

    /// Whether nothing but errors is to be said.
    #[must_use]
    pub fn quiet(&self) -> bool {
        self.quiet
    }

    /// Whether standard output takes colours.
    #[must_use]
    pub fn colors_output(&self) -> bool {
        self.color_out
    }

    /// Whether standard error takes colours.
    #[must_use]
    pub fn colors_talk(&self) -> bool {
        self.color_err
    }

    /// Whether standard error is a terminal on which lines can be redrawn.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Whether standard output is a terminal on which lines can be redrawn.
    #[must_use]
    pub fn is_output_live(&self) -> bool {
        self.live_out
    }

    /// Text in a style, for standard error.
    #[must_use]
    pub fn paint(&self, style: Style, text: &str) -> String {
        style::painted(self.color_err, style, text)
    }

    /// Text in a style, for standard output.
    #[must_use]
    pub fn paint_output(&self, style: Style, text: &str) -> String {
        style::painted(self.color_out, style, text)
    }

    /// A table in the styles of its cells (row, column), for standard output.
    #[must_use]
    pub fn table(&self, rows: &[Vec<String>], style: impl Fn(usize, usize) -> Style) -> String {
        columns(rows, self.color_out, style)
    }

    /// Whether anything was written to standard output.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.has_output.load(Ordering::Relaxed)
    }

    /// Writes data to standard output as it is. A reader that has closed the pipe (`mdlm … | head`) is not an error, and the
    /// exit code of the command stays what it is.
    ///
    /// # Errors
    /// Standard output cannot be written: a full disk behind it.
    pub fn output(&self, data: &str) -> Result<()> {
        self.output_while_read(data).map(|_| ())
    }

    /// The same; returns whether the reader is still there, so that a command can end whose work was for that reader.
    ///
    /// # Errors
    /// The errors of [`Terminal::output`].
    pub fn output_while_read(&self, data: &str) -> Result<bool> {
        self.has_output.store(true, Ordering::Relaxed);
        let mut out = io::stdout().lock();
        let written = out.write_all(data.as_bytes()).and_then(|()| out.flush());
        match written.map(|()| true) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            // The hint of a full disk is about the store, which may be on another disk.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(error)
                .wrap(Kind::Environment, || "write to standard output".to_owned())
                .map_err(|error: Error| {
                    error.hint("free space where standard output is written to, or redirect it")
                }),
            result => result.wrap(Kind::Environment, || "write to standard output".to_owned()),
        }
    }

    /// Writes a JSON document to standard output, indented, with a newline.
    ///
    /// # Errors
    /// The errors of [`Terminal::output`].
    pub fn output_json(&self, value: &impl serde::Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Error::internal(format!("write JSON: {error}")))?;
        self.output(&(text + "\n"))
    }

    /// Says a line on standard error, quiet or not.
    #[expect(
        clippy::unused_self,
        reason = "what is said goes through a terminal, like `say`"
    )]
    pub fn talk(&self, text: &str) {
        // A closed standard error has no reader.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// Says a line on standard error, unless quiet.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            self.talk(text);
        }
    }

    /// Warns on standard error, unless quiet.
    pub fn warn(&self, text: &str) {
        self.say(&format!("{}: {text}", self.paint(style::WARNING, "warning")));
    }

    /// Reports an error, quiet or not, with the way out.
    pub fn error(&self, message: &str, hint: Option<&str>) {
        self.talk(&format!("{}: {message}", self.paint(style::ERROR, "error")));
        if let Some(hint) = hint {
            self.talk(&format!("{}: {hint}", self.paint(style::ACCENT, "hint")));
        }
    }
}

/// The `--color` of the arguments before they are parsed: help texts and faults of the arguments are coloured too.
#[must_use]
pub fn requested_color(arguments: &[OsString]) -> ColorChoice {
    let mut arguments = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    while let Some(argument) = arguments.next() {
        let value = match argument {
            "--" => break,
            "--color" => arguments.next(),
            _ => argument.strip_prefix("--color="),
        };
        if let Some(color) = value.and_then(|value| ColorChoice::from_str(value, false).ok()) {
            return color;
        }
    }
    ColorChoice::Auto
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn color_option_is_found_at_any_place() {
        let color = |line: &str| {
            let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
            requested_color(&arguments)
        };
        assert_eq!(color("mdlm --color never run x"), ColorChoice::Never);
        assert_eq!(color("mdlm run x --color=always"), ColorChoice::Always);
        assert_eq!(color("mdlm run x"), ColorChoice::Auto);
        assert_eq!(color("mdlm run -- --color=always"), ColorChoice::Auto);
        assert_eq!(color("mdlm run --color maybe"), ColorChoice::Auto);
    }
}
