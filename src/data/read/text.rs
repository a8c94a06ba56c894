//! Plain text, cut into records.
//!
//! A byte order mark at the start of a file, or of a line where files were put together, is dropped; `\r\n` counts as
//! `\n`, as `\r\r\n` does (a conversion that was done twice) and `\r` in a file without any `\n`; and a record of nothing
//! but white space is empty and is dropped, unless the source keeps empty records. Nothing else is changed: leading spaces, tabs, NULs and other control
//! characters are the record's.

use std::borrow::Cow;
use std::io::BufRead;

use super::encoding::{TextContainer, is_control, lossy, surrogate, way_out};
use super::fault::landed;
use super::sink::Sink;
use crate::error::{Context as _, Error, Result};
use crate::manifest::reading::{InvalidUtf8, RecordUnit};
use crate::plural::{agreeing, counted};

/// U+FEFF in UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reads plain text.
///
/// # Errors
/// A record is too long, or is not UTF-8 where that is an error.
pub fn read(input: &mut dyn BufRead, unit: RecordUnit, sink: &mut Sink<'_>) -> Result<()> {
    let mut lines = RecordBuilder {
        unit,
        line: 0,
        start: 0,
        record: String::new(),
        begun: false,
        replaced: false,
        skipped: false,
        returns: 0,
        first_return: 0,
        doubled: 0,
        first_doubled: 0,
        controls: 0,
        first_control: 0,
        mark: memchr::memmem::Finder::new(BYTE_ORDER_MARK),
        sink,
    };
    let place = lines.sink.place();
    lines.sink.observed.wrapped.file(place);
    // A line that goes on in the next chunk.
    let mut carried: Vec<u8> = Vec::new();
    let mut ending = b'\n';
    // Whether a line has ended.
    let mut broken = false;
    loop {
        let chunk = input.fill_buf().map_err(landed)?;
        if chunk.is_empty() {
            break;
        }
        let mut rest = chunk;
        while let Some(end) = memchr::memchr(ending, rest) {
            broken = true;
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if carried.is_empty() {
                lines.line(line, end + 1)?;
            } else {
                carried.extend_from_slice(line);
                lines.line(&carried, carried.len() + 1)?;
                carried.clear();
            }
        }
        // The line's `\r` and a byte order mark do not count.
        if carried.len() + rest.len() > lines.sink.longest.saturating_add(1 + BYTE_ORDER_MARK.len()) {
            carried.extend_from_slice(rest);
            rest = &[];
            if broken || !has_returns(&carried) {
                lines.line += 1;
                return Err(lines.too_long());
            }
            // No `\n` so far, however far.
            ending = b'\r';
            broken = true;
            lines.ends_in_returns();
            carried = lines.split(&carried)?;
        }
        carried.extend_from_slice(rest);
        let count = chunk.len();
        input.consume(count);
    }
    if !broken && has_returns(&carried) {
        lines.ends_in_returns();
        carried = lines.split(&carried)?;
    }
    if !carried.is_empty() {
        lines.line(&carried, carried.len())?;
    }
    lines.finish()?;
    lines.warn_of_returns();
    lines.warn_of_doubled();
    lines.warn_of_controls();
    Ok(())
}

/// Whether a `\r` stands before the end.
fn has_returns(bytes: &[u8]) -> bool {
    memchr::memchr(b'\r', bytes).is_some_and(|at| at + 1 < bytes.len())
}

/// Puts lines together to records.
struct RecordBuilder<'l, 's> {
    unit: RecordUnit,
    /// Lines so far, so that the current one has this number, from 1.
    line: u64,
    /// Bytes before the next line.
    start: u64,
    /// The record of several lines.
    record: String,
    /// Whether it has a line.
    begun: bool,
    replaced: bool,
    skipped: bool,
    /// Carriage returns within lines, and the first line that has one.
    returns: u64,
    first_return: u64,
    /// Lines that end in more than one carriage return, and the first of them.
    doubled: u64,
    first_doubled: u64,
    /// Control characters that text has no use for, and the first line that has one.
    controls: u64,
    first_control: u64,
    mark: memchr::memmem::Finder<'static>,
    sink: &'l mut Sink<'s>,
}

impl RecordBuilder<'_, '_> {
    /// Takes a line without its `\n`; `length` is its length in the file.
    fn line(&mut self, bytes: &[u8], length: usize) -> Result<()> {
        self.line += 1;
        let start = self.start;
        self.start += length as u64;
        let end = bytes
            .iter()
            .rposition(|&byte| byte != b'\r')
            .map_or(0, |last| last + 1);
        if bytes.len() > end + 1 {
            if self.doubled == 0 {
                self.first_doubled = self.line;
            }
            self.doubled += 1;
        }
        let mut bytes = &bytes[..end];
        let mut mark = 0;
        if let Some(rest) = bytes.strip_prefix(BYTE_ORDER_MARK) {
            bytes = rest;
            mark = BYTE_ORDER_MARK.len();
            if self.line > 1 {
                self.sink.irregular.marks += 1;
                let line = self.line;
                self.sink.warn("mark", || {
                    format!(
                        "a byte order mark at the start of line {line} (concatenated files?); it is left out"
                    )
                });
            }
        }
        if self.mark.find(bytes).is_some() {
            let line = self.line;
            self.sink.warn("mark within", || {
                format!(
                    "a byte order mark within line {line} (files concatenated without a line break between them?); it \
                     stays in the text"
                )
            });
        }
        let returns = memchr::memchr_iter(b'\r', bytes).count() as u64;
        if returns > 0 && self.returns == 0 {
            self.first_return = self.line;
        }
        self.returns += returns;
        let controls = bytes.iter().filter(|&&byte| is_control(byte)).count() as u64;
        if controls > 0 && self.controls == 0 {
            self.first_control = self.line;
        }
        self.controls += controls;
        if bytes.len() > self.sink.longest {
            return Err(self.too_long());
        }
        let mut left_out = false;
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(fault) => match self.sink.policy() {
                InvalidUtf8::Error => {
                    let at = fault.valid_up_to();
                    return Err(self.invalid(bytes, at, mark, start));
                }
                InvalidUtf8::Replace => {
                    self.replaced = true;
                    Cow::Owned(lossy(bytes))
                }
                InvalidUtf8::Skip => {
                    self.skipped = true;
                    left_out = true;
                    Cow::Borrowed("")
                }
            },
        };
        match self.unit {
            RecordUnit::Line => {
                self.sink.observed.wrapped.line(&text);
                let line = self.line;
                self.emit(&text).context(|| format!("line {line}"))
            }
            RecordUnit::Paragraph if !left_out && text.chars().all(char::is_whitespace) => self.finish(),
            RecordUnit::Paragraph | RecordUnit::File => {
                if self.begun {
                    self.record.push('\n');
                }
                self.begun = true;
                if self.record.len() + text.len() > self.sink.longest {
                    return Err(self.too_long());
                }
                self.record.push_str(&text);
                Ok(())
            }
        }
    }

    /// Takes the lines of bytes without any `\n`, which end in `\r`; gives back the last one.
    fn split(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\r', rest) {
            self.line(&rest[..end], end + 1)?;
            rest = &rest[end + 1..];
        }
        Ok(rest.to_vec())
    }

    fn ends_in_returns(&mut self) {
        self.sink.warn("returns", || {
            "no line ends in a line feed: each carriage return is read as the end of a line".to_owned()
        });
    }

    /// Warns of carriage returns within lines: where most lines seem to end in them, of how to write line ends.
    fn warn_of_returns(&mut self) {
        let (returns, lines, first) = (self.returns, self.line, self.first_return);
        if returns > lines {
            self.sink.warn("returns within", || {
                format!(
                    "{returns} carriage returns stand within {}, the first in line {first}; if they end lines, write \
                     them so: `tr '\\r' '\\n' < FILE > NEW`",
                    counted(lines, "line")
                )
            });
        } else if returns > 0 {
            self.sink.warn("returns within", || {
                let (stand, stay) = match returns {
                    1 => ("stands within a line", "it stays"),
                    _ => ("stand within lines", "they stay"),
                };
                format!(
                    "{} {stand}, the first in line {first}; {stay} in the text",
                    counted(returns, "carriage return")
                )
            });
        }
    }

    /// Warns of line ends that were converted twice.
    fn warn_of_doubled(&mut self) {
        let (doubled, first) = (self.doubled, self.first_doubled);
        if doubled > 0 {
            let lines = counted(doubled, "line");
            let end = agreeing(doubled, "ends", "end");
            self.sink.warn("doubled", || {
                format!(
                    "{lines} {end} in `\\r\\r\\n`, the first is line {first} (line ends that were converted twice?); \
                     each is read as one line end"
                )
            });
        }
    }

    /// Warns of NULs and the like: the file may be in another encoding, or no text.
    fn warn_of_controls(&mut self) {
        let (controls, first) = (self.controls, self.first_control);
        if controls > 0 {
            self.sink.warn("controls", || {
                let (characters, stand, stay) = match controls {
                    1 => ("character", "stands", "it stays"),
                    _ => ("characters", "stand", "they stay"),
                };
                format!(
                    "{controls} control {characters} (NUL or another below U+0020) {stand} in the text, the first in \
                     line {first}; {stay}"
                )
            });
        }
    }

    fn emit(&mut self, text: &str) -> Result<()> {
        let replaced = std::mem::take(&mut self.replaced);
        if std::mem::take(&mut self.skipped) {
            self.sink.irregular.skipped += 1;
            return Ok(());
        }
        self.sink.irregular.replaced += u64::from(replaced);
        self.sink.emit(text)
    }

    /// Ends the record of several lines.
    fn finish(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.begun) {
            return Ok(());
        }
        let mut record = std::mem::take(&mut self.record);
        // The lines' breaks stand between them, so a file's last break is already gone.
        if self.unit == RecordUnit::File {
            record.truncate(record.trim_end_matches('\n').len());
        }
        let line = self.line;
        self.emit(&record)
            .context(|| format!("the record that ends in line {line}"))?;
        record.clear();
        self.record = record;
        Ok(())
    }

    fn too_long(&self) -> Error {
        self.sink.too_long().context(format!("line {}", self.line))
    }

    fn invalid(&self, bytes: &[u8], at: usize, mark: usize, start: u64) -> Error {
        let place = |message: &str| {
            Error::input(format!(
                "line {}: {message} at byte {} of the line, {} of the file",
                self.line,
                mark + at + 1,
                start + (mark + at) as u64 + 1,
            ))
        };
        if let Some((message, hint)) = surrogate(bytes, at, TextContainer::Text) {
            return place(&message).hint(hint);
        }
        place(&format!("invalid UTF-8 (0x{:02X})", bytes[at])).hint(way_out(bytes, TextContainer::Text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::read::{Observed, TextFile, records};
    use crate::manifest::reading::{Compression, Format, Reading, TextFormat};
    use RecordUnit::{File as Whole, Line, Paragraph};
    use proptest::prelude::*;

    fn read(bytes: &[u8], unit: RecordUnit) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, bytes).unwrap();
        let reading = Reading {
            format: Some(Format::Text(TextFormat { record: unit })),
            compression: Some(Compression::None),
            ..Reading::default()
        };
        let mut all = Vec::new();
        let mut last = 0;
        records(
            &TextFile::local(path),
            &reading,
            crate::manifest::reading::EmptyRecords::Drop,
            &mut Observed::default(),
            &crate::data::read::Witness::default(),
            &mut |text, crate::data::read::Here { read, .. }| {
                assert!(read >= last && read <= bytes.len() as u64);
                last = read;
                all.push(text.to_owned());
                Ok(())
            },
        )?;
        Ok(all)
    }

    #[test]
    fn records_are_lines_paragraphs_or_files() {
        let cases: &[(&str, RecordUnit, &[&str])] = &[
            ("a\nb\n", Line, &["a", "b"]),
            ("a\nb", Line, &["a", "b"]),
            ("a\r\n\r\n b \r\n", Line, &["a", " b "]),
            ("\n\n  \n\t\n", Line, &[]),
            ("", Line, &[]),
            ("\u{FEFF}a\n\u{FEFF}b", Line, &["a", "b"]),
            ("a\rb\n", Line, &["a\rb"]),
            ("a\rb\r\rc", Line, &["a", "b", "c"]),
            ("a\rb\r\rc\r", Paragraph, &["a\nb", "c"]),
            ("a\rb", Whole, &["a\nb"]),
            ("a\r", Line, &["a"]),
            ("a\0b", Line, &["a\0b"]),
            ("\n\na\nb\n\n \nc\n\n\n", Paragraph, &["a\nb", "c"]),
            ("a\r\nb\r\n\r\nc", Paragraph, &["a\nb", "c"]),
            ("\n", Paragraph, &[]),
            ("a\n\nb\n", Whole, &["a\n\nb"]),
            ("\na\r\n\n\n", Whole, &["\na"]),
            (" \n\n", Whole, &[]),
            ("", Whole, &[]),
        ];
        for (text, unit, expected) in cases {
            assert_eq!(
                &read(text.as_bytes(), *unit).unwrap(),
                expected,
                "{text:?} {unit:?}"
            );
        }
    }

    #[test]
    fn invalid_utf8_is_an_error_with_its_place() {
        let error = read(b"\xEF\xBB\xBFone\ntw\xC3\xA9 \xFFo\n", Line).unwrap_err();
        let text = error.to_string();
        assert!(
            text.ends_with("line 2: invalid UTF-8 (0xFF) at byte 6 of the line, 13 of the file"),
            "{text}"
        );
        assert!(error.hint_text().unwrap().contains("iconv -f ENCODING"));
        let error = read(b"caf\xE9\n", Line).unwrap_err();
        assert!(error.hint_text().unwrap().contains("WINDOWS-1252"));
        // KOI8-R.
        let error = read(b"\xF0\xD2\xC9\xD7\xC5\xD4\n", Line).unwrap_err();
        assert!(error.hint_text().unwrap().contains("file -i FILE"));
        let error = read(b"\xFF\xFEa\0", Whole).unwrap_err();
        assert!(error.to_string().contains("the file is UTF-16, not UTF-8"));
        assert!(error.hint_text().unwrap().contains("iconv -f UTF-16 "));
        // A character cut off by the end of the line.
        assert!(read(b"ab\xC3\ncd", Paragraph).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_are_records_or_an_error(bytes: Vec<u8>) {
            for unit in [Line, Paragraph, Whole] {
                if let Ok(records) = read(&bytes, unit) {
                    prop_assert!(records.iter().all(|r| !r.trim().is_empty()));
                }
            }
        }

        #[test]
        fn lines_are_all_read(lines in proptest::collection::vec("[a-z é]{0,12}", 0..20)) {
            let kept: Vec<&String> = lines.iter().filter(|l| !l.trim().is_empty()).collect();
            let found = read(lines.join("\n").as_bytes(), Line).unwrap();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), kept);
        }
    }
}
