//! Colours and weights of text. Meaning never rests on them.

pub use anstyle::Style;

use anstyle::AnsiColor;

/// Text as it is.
pub const PLAIN: Style = Style::new();
/// Errors.
pub const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Warnings.
pub const WARNING: Style = AnsiColor::Yellow.on_default().bold();
/// Hints and what runs.
pub const ACCENT: Style = AnsiColor::Cyan.on_default();
/// What is done.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// What is listed for completeness.
pub const FAINT: Style = Style::new().dimmed();
/// Headings.
pub const STRONG: Style = Style::new().bold();

/// Text in a style where there are colours, else as it is.
#[must_use]
pub fn painted(color: bool, style: Style, text: &str) -> String {
    if color && !text.is_empty() {
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}
