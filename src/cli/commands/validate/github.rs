//! Faults as GitHub's workflow commands, which a job prints to have them shown at their lines:
//! <https://docs.github.com/actions/reference/workflow-commands-for-github-actions>.

use super::{CheckedManifest, Root};

use mdlm::manifest::Fault;
use mdlm::plural;

/// A line for each fault: `::error file=…,line=…,…::message`.
///
/// The job's log shows the message alone, so that it says the place once more. Columns are given where the fault lies
/// on one line, as GitHub wants it; its end column, of which GitHub does not say whether it is part of the range, is
/// one past it, as other tools have it.
#[must_use]
pub fn annotations(checked: &[CheckedManifest<'_>], root: &Root) -> String {
    let mut text = String::new();
    for checked in checked {
        let file = root
            .name(checked.file)
            .display()
            .to_string()
            .replace(std::path::MAIN_SEPARATOR, "/");
        for fault in checked.list() {
            text.push_str(&annotation(checked, &file, fault));
        }
        if checked.omitted() > 0 {
            text.push_str(&command(
                &[("file", file.clone()), ("title", "mdlm".to_owned())],
                &format!(
                    "{file}: and {} more {}",
                    checked.omitted(),
                    plural::of(checked.omitted(), "fault")
                ),
            ));
        }
    }
    text
}

fn annotation(checked: &CheckedManifest<'_>, file: &str, fault: &Fault) -> String {
    let place = &fault.place;
    let mut properties = vec![("file", file.to_owned())];
    let mut message = file.to_owned();
    if checked.holds(place) {
        properties.push(("line", place.line.to_string()));
        properties.push(("endLine", place.end_line.to_string()));
        if place.line == place.end_line {
            properties.push(("col", place.column.to_string()));
            properties.push(("endColumn", place.end_column.to_string()));
        }
        message = format!("{file}:{}:{}", place.line, place.column);
    }
    properties.push(("title", format!("mdlm: {}", fault.code.name())));
    message = format!("{message}: {}{}", checked.argument(place), fault.message);
    for (what, text) in [("expected", &fault.expected), ("hint:", &fault.hint)] {
        if let Some(text) = text {
            message = format!("{message}\n{what} {text}");
        }
    }
    for related in &fault.related {
        message = if checked.holds(&related.place) {
            format!("{message}\nline {}: {}", related.place.line, related.message)
        } else {
            format!(
                "{message}\n{}{}",
                checked.argument(&related.place),
                related.message
            )
        };
    }
    command(&properties, &message)
}

fn command(properties: &[(&str, String)], message: &str) -> String {
    let properties: Vec<_> = properties
        .iter()
        .map(|(name, value)| format!("{name}={}", escaped_property(value)))
        .collect();
    format!("::error {}::{}\n", properties.join(","), escaped(message))
}

/// A message in one line, as the runner reads it back.
fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property, in which commas and colons too have a meaning.
fn escaped_property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the runner does with a line, after `ActionCommand.TryParseV2` of github.com/actions/runner.
    fn read(line: &str) -> (Vec<(String, String)>, String) {
        let back = |text: &str| text.replace("%0D", "\r").replace("%0A", "\n");
        let (head, message) = line.strip_prefix("::error ").unwrap().split_once("::").unwrap();
        let properties = head
            .split(',')
            .map(|property| {
                let (name, value) = property.split_once('=').unwrap();
                let value = back(value).replace("%3A", ":").replace("%2C", ",");
                (name.to_owned(), value.replace("%25", "%"))
            })
            .collect();
        (properties, back(message).replace("%25", "%"))
    }

    #[test]
    fn any_text_is_escaped_to_one_line() {
        for text in [
            "100%, a:b::c\r\nd=e",
            "%0A is no newline",
            "::error::",
            "%25%2C",
            "é😀",
        ] {
            let line = command(&[("file", text.to_owned()), ("title", text.to_owned())], text);
            assert_eq!(line.matches(['\n', '\r']).count(), 1, "{line}");
            let (properties, message) = read(line.trim_end_matches('\n'));
            assert_eq!(message, text);
            assert_eq!(properties[0], ("file".to_owned(), text.to_owned()));
            assert_eq!(properties[1], ("title".to_owned(), text.to_owned()));
        }
    }
}
