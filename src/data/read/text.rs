//! Local text files, cut into records.
//!
//! Text must be UTF-8; what is not ends in an error that names file, line and byte. A byte-order mark at a file's
//! start is dropped, `\r\n` counts as `\n`, and a record of nothing but white space is empty and is dropped. Nothing
//! else is changed: leading spaces, tabs and control characters are the record's.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::data::records::MAX_RECORD_BYTES;
use crate::error::{Context as _, Error, Kind, Result, Wrap as _};
use crate::manifest::source::RecordUnit;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// Bytes read from a file at a time.
const READ_BYTES: usize = 1 << 20;

/// The files that paths and globs stand for, relative to `base`: in the order of the patterns, the matches of a glob by
/// name, each file once (where it comes first).
///
/// A pattern that is the name of an existing file stands for that file, whatever characters it has.
///
/// # Errors
/// A pattern is malformed, matches nothing, or names a folder.
pub fn expand(base: &Path, patterns: &[String]) -> Result<Vec<PathBuf>> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for pattern in patterns {
        let literal = base.join(pattern);
        let mut matches = Vec::new();
        if literal.is_dir() {
            return Err(Error::input(format!("`{pattern}` is a folder")).hint(format!(
                "name its files, for example `{}/*.txt`",
                pattern.trim_end_matches('/')
            )));
        } else if literal.exists() {
            matches.push(literal);
        } else {
            let escaped = Path::new(&glob::Pattern::escape(&base.to_string_lossy())).join(pattern);
            let paths = glob::glob(&escaped.to_string_lossy())
                .wrap(Kind::Input, || format!("the pattern `{pattern}` is malformed"))?;
            for path in paths {
                let path = path.wrap(Kind::Environment, || format!("list `{pattern}`"))?;
                if path.is_file() {
                    matches.push(path);
                }
            }
            matches.sort();
        }
        if matches.is_empty() {
            return Err(Error::input(format!("no file matches `{pattern}`")).hint(format!(
                "paths start at the manifest's folder, `{}`",
                base.display()
            )));
        }
        files.extend(matches.into_iter().filter(|path| seen.insert(path.clone())));
    }
    Ok(files)
}

/// Calls `each` with every record of the file and with the bytes of the file read so far.
///
/// # Errors
/// The file is absent or unreadable, is not UTF-8, or has a record that is too long; and the errors of `each`.
pub fn records(path: &Path, unit: RecordUnit, mut each: impl FnMut(&str, u64) -> Result<()>) -> Result<()> {
    let what = || format!("read `{}`", path.display());
    let file = File::open(path).context(what)?;
    let mut lines = Lines {
        reader: BufReader::with_capacity(READ_BYTES, file),
        buffer: Vec::new(),
        line: 0,
        start: 0,
        read: 0,
    };
    let mut record = String::new();
    while let Some(line) = lines.next().context(what)? {
        let keep = match unit {
            RecordUnit::Line => {
                emit(line.text, line.read, &mut each).context(what)?;
                false
            }
            RecordUnit::Paragraph => {
                let blank = line.text.trim().is_empty();
                if blank {
                    emit(&record, line.read, &mut each).context(what)?;
                    record.clear();
                }
                !blank
            }
            RecordUnit::File => true,
        };
        if keep {
            if !(record.is_empty() && line.first_of_record(unit)) {
                record.push('\n');
            }
            record.push_str(line.text);
            if record.len() > MAX_RECORD_BYTES {
                return Err(too_long(line.number).context(what()));
            }
        }
    }
    // The lines' breaks stand between them, so a file's last break is already gone.
    let text = match unit {
        RecordUnit::File => record.trim_end_matches('\n'),
        RecordUnit::Line | RecordUnit::Paragraph => &record,
    };
    emit(text, lines.read, &mut each).context(what)
}

fn emit(text: &str, read: u64, each: &mut impl FnMut(&str, u64) -> Result<()>) -> Result<()> {
    if text.trim().is_empty() {
        return Ok(());
    }
    each(text, read)
}

fn too_long(line: u64) -> Error {
    Error::input(format!(
        "line {line}: the record is longer than {} MB",
        MAX_RECORD_BYTES >> 20
    ))
    .hint("cut it: `\"record\": \"line\"` or `\"paragraph\"` make smaller records")
}

struct Lines {
    reader: BufReader<File>,
    buffer: Vec<u8>,
    /// 1-based number of the line in the buffer.
    line: u64,
    /// Bytes of the file before that line.
    start: u64,
    read: u64,
}

struct Line<'a> {
    text: &'a str,
    number: u64,
    read: u64,
}

impl Line<'_> {
    /// Whether an empty record before this line means that the line begins it: a paragraph has no blank lines, and a
    /// file begins with line 1.
    fn first_of_record(&self, unit: RecordUnit) -> bool {
        unit != RecordUnit::File || self.number == 1
    }
}

impl Lines {
    fn next(&mut self) -> Result<Option<Line<'_>>> {
        self.buffer.clear();
        self.start = self.read;
        let limit = MAX_RECORD_BYTES as u64 + 2;
        let read = self
            .reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut self.buffer)
            .context(|| format!("after line {}", self.line))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        self.read += read as u64;
        let mut bytes = &self.buffer[..];
        bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if bytes.len() > MAX_RECORD_BYTES {
            return Err(too_long(self.line));
        }
        let mut skipped = 0;
        if self.line == 1
            && let Some(rest) = bytes.strip_prefix(BYTE_ORDER_MARK)
        {
            bytes = rest;
            skipped = BYTE_ORDER_MARK.len();
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(Line {
                text,
                number: self.line,
                read: self.read,
            })),
            Err(error) => {
                let at = error.valid_up_to();
                let byte = bytes[at];
                let utf16 =
                    self.line == 1 && (bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF"));
                let from = if utf16 { "UTF-16" } else { "WINDOWS-1252" };
                Err(Error::input(format!(
                    "line {}: invalid UTF-8 (0x{byte:02X}) at byte {} of the line, {} of the file",
                    self.line,
                    skipped + at + 1,
                    self.start + (skipped + at) as u64 + 1,
                ))
                .hint(format!(
                    "convert the file first, for example with `iconv -f {from} -t UTF-8`"
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RecordUnit::{File as Whole, Line, Paragraph};
    use proptest::prelude::*;

    fn read(bytes: &[u8], unit: RecordUnit) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, bytes).unwrap();
        let mut all = Vec::new();
        let mut last = 0;
        records(&path, unit, |text, read| {
            assert!(read >= last && read <= bytes.len() as u64);
            last = read;
            all.push(text.to_owned());
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn records_are_cut_as_stated() {
        let cases: &[(&str, RecordUnit, &[&str])] = &[
            ("a\nb\n", Line, &["a", "b"]),
            ("a\nb", Line, &["a", "b"]),
            ("a\r\n\r\n b \r\n", Line, &["a", " b "]),
            ("\n\n  \n\t\n", Line, &[]),
            ("", Line, &[]),
            ("\u{FEFF}a\n\u{FEFF}b", Line, &["a", "\u{FEFF}b"]),
            ("a\rb\n", Line, &["a\rb"]),
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
    fn a_fault_is_placed() {
        let error = read(b"\xEF\xBB\xBFone\ntw\xC3\xA9 \xFFo\n", Line).unwrap_err();
        let text = error.to_string();
        assert!(
            text.ends_with("line 2: invalid UTF-8 (0xFF) at byte 6 of the line, 13 of the file"),
            "{text}"
        );
        assert!(error.hint_text().unwrap().contains("WINDOWS-1252"));
        let error = read(b"\xFF\xFEa\0", Whole).unwrap_err();
        assert!(error.to_string().contains("at byte 1 of the line, 1 of the file"));
        assert!(error.hint_text().unwrap().contains("UTF-16"));
        // A character cut off by the end of the line.
        assert!(read(b"ab\xC3\ncd", Paragraph).is_err());
    }

    #[test]
    fn globs_expand_in_order_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("a[0]b");
        std::fs::create_dir_all(base.join("deep/er")).unwrap();
        for name in ["z.txt", "a.txt", "b[1].txt", "deep/er/c.txt", "deep/d.md"] {
            std::fs::write(base.join(name), "x").unwrap();
        }
        let names = |patterns: &[&str]| -> Result<Vec<String>> {
            let patterns: Vec<String> = patterns.iter().map(|&p| p.to_owned()).collect();
            Ok(expand(&base, &patterns)?
                .iter()
                .map(|p| p.strip_prefix(&base).unwrap().to_string_lossy().into_owned())
                .collect())
        };
        assert_eq!(
            names(&["z.txt", "*.txt"]).unwrap(),
            ["z.txt", "a.txt", "b[1].txt"]
        );
        assert_eq!(names(&["b[1].txt"]).unwrap(), ["b[1].txt"]);
        assert_eq!(
            names(&["**/*"]).unwrap(),
            ["a.txt", "b[1].txt", "deep/d.md", "deep/er/c.txt", "z.txt"]
        );
        assert!(
            names(&["*.csv"])
                .unwrap_err()
                .to_string()
                .contains("no file matches `*.csv`")
        );
        assert!(
            names(&["deep"])
                .unwrap_err()
                .hint_text()
                .unwrap()
                .contains("deep/*.txt")
        );
        assert!(names(&["a**"]).unwrap_err().to_string().contains("malformed"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_end_in_records_or_an_error(bytes: Vec<u8>) {
            for unit in [Line, Paragraph, Whole] {
                if let Ok(records) = read(&bytes, unit) {
                    prop_assert!(records.iter().all(|r| !r.trim().is_empty()));
                }
            }
        }

        #[test]
        fn lines_lose_nothing(lines in proptest::collection::vec("[a-z é]{0,12}", 0..20)) {
            let kept: Vec<&String> = lines.iter().filter(|l| !l.trim().is_empty()).collect();
            let found = read(lines.join("\n").as_bytes(), Line).unwrap();
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), kept);
        }
    }
}
