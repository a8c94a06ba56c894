//! What is printed, where, and in which colours. Meaning never rests on colour.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;

use crate::error::{Error, Kind, Result, Wrap};

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// When the output is a terminal and `NO_COLOR` is not set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A colour or weight of text: an ANSI "select graphic rendition" code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Bold red: errors.
    Error,
    /// Bold yellow: warnings.
    Warning,
    /// Cyan: hints and what runs.
    Accent,
    /// Green: what is done.
    Good,
    /// Faint: what is listed for completeness.
    Faint,
    /// Bold: headings.
    Strong,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Error => "1;31",
            Self::Warning => "1;33",
            Self::Accent => "36",
            Self::Good => "32",
            Self::Faint => "2",
            Self::Strong => "1",
        }
    }
}

/// The two output streams and how to write to them.
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent facts about two streams"
)]
#[derive(Clone, Debug)]
pub struct Terminal {
    quiet: bool,
    color_out: bool,
    color_err: bool,
    live: bool,
    /// Whether anything was written to standard output.
    has_output: Arc<AtomicBool>,
}

impl Terminal {
    /// The process's own streams.
    #[must_use]
    pub fn new(quiet: bool, color: Color) -> Self {
        let colored = |is_terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            // https://no-color.org: present and not empty. `TERM=dumb` shows escapes as text.
            Color::Auto => {
                is_terminal
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && std::env::var_os("TERM").is_none_or(|value| value != "dumb")
            }
        };
        let err = io::stderr().is_terminal();
        Self {
            quiet,
            color_out: colored(io::stdout().is_terminal()),
            color_err: colored(err),
            live: err && std::env::var_os("TERM").is_none_or(|value| value != "dumb"),
            has_output: Arc::default(),
        }
    }

    /// Whether nothing but errors is to be said.
    #[must_use]
    pub fn quiet(&self) -> bool {
        self.quiet
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

    /// Text in a style, for standard error.
    #[must_use]
    pub fn paint(&self, style: Style, text: &str) -> String {
        painted(self.color_err, style, text)
    }

    /// Text in a style, for standard output.
    #[must_use]
    pub fn paint_output(&self, style: Style, text: &str) -> String {
        painted(self.color_out, style, text)
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
        self.has_output.store(true, Ordering::Relaxed);
        let mut out = io::stdout().lock();
        match out.write_all(data.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
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
        self.say(&format!("{}: {text}", self.paint(Style::Warning, "warning")));
    }

    /// Reports an error, quiet or not, with the way out.
    pub fn error(&self, message: &str, hint: Option<&str>) {
        self.talk(&format!("{}: {message}", self.paint(Style::Error, "error")));
        if let Some(hint) = hint {
            self.talk(&format!("{}: {hint}", self.paint(Style::Accent, "hint")));
        }
    }
}

fn painted(color: bool, style: Style, text: &str) -> String {
    if color {
        format!("\x1b[{}m{text}\x1b[0m", style.code())
    } else {
        text.to_owned()
    }
}

/// The `--color` of the arguments before they are parsed: help texts and faults of the arguments are coloured too.
#[must_use]
pub fn requested_color(arguments: &[OsString]) -> Color {
    let mut arguments = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    while let Some(argument) = arguments.next() {
        let value = match argument {
            "--" => break,
            "--color" => arguments.next(),
            _ => argument.strip_prefix("--color="),
        };
        if let Some(color) = value.and_then(|value| Color::from_str(value, false).ok()) {
            return color;
        }
    }
    Color::Auto
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
        assert_eq!(color("mdlm --color never run x"), Color::Never);
        assert_eq!(color("mdlm run x --color=always"), Color::Always);
        assert_eq!(color("mdlm run x"), Color::Auto);
        assert_eq!(color("mdlm run -- --color=always"), Color::Auto);
        assert_eq!(color("mdlm run --color maybe"), Color::Auto);
    }

    #[test]
    fn color_wraps_text_and_without_it_text_is_unchanged() {
        assert_eq!(painted(true, Style::Error, "x"), "\x1b[1;31mx\x1b[0m");
        assert_eq!(painted(false, Style::Error, "x"), "x");
    }
}
