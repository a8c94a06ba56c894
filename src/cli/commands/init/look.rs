//! What the files hold: how they are read, and how much text there is.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use mdlm::data::files::{self, FilePatterns, FoundFile};
use mdlm::data::read::{self, Observed, TextFile, Witness};
use mdlm::error::{Context as _, Error, Kind, Result};
use mdlm::manifest::reading::{EmptyRecords, Reading, RecordUnit};
use mdlm::plural::{agreeing, counted as noun_of};

/// Bytes of text that are read, at most; the rest is estimated by size.
const LOOKED_AT: u64 = 16 << 20;
/// Bytes of a file's beginning that show how it is written.
const HEAD: u64 = 256 << 10;
/// Below that many bytes of text there is nothing to learn.
const LEAST: u64 = 4_000;
/// Records that show which column of a table has most text.
const COMPARED: u32 = 1_000;
/// Files from which each may be a record: enough to hold some of them out.
const FILES_AS_RECORDS: u64 = 25;
/// Names that fields and columns of text have, the likeliest first.
const NAMES: [&str; 12] = [
    "text",
    "content",
    "body",
    "article",
    "article_text",
    "document",
    "story",
    "sentence",
    "message",
    "comment",
    "review",
    "description",
];

/// What was found.
#[derive(Debug)]
pub(super) struct TextSurvey {
    /// Files.
    pub files: usize,
    /// Bytes of text, estimated where not all was read.
    pub bytes: u64,
    /// Records, likewise.
    pub records: u64,
    /// Whether all of it was read.
    pub is_whole: bool,
    /// The manifest's `read`, where names and contents alone do not say how the files are read.
    pub read: Option<Value>,
    /// What was chosen, and why.
    pub notes: Vec<(String, &'static str)>,
    /// What is odd about the files as they are read with that.
    pub warnings: Vec<String>,
}

/// Looks at the files that patterns take in, as seen from a folder.
///
/// # Errors
/// Nothing matches; a file cannot be read as its name says; there is too little text.
pub(super) fn at(folder: &Path, patterns: &[String]) -> Result<TextSurvey> {
    let found = files::expand(folder, FilePatterns::by(patterns)).map_err(|error| {
        if error.to_string().starts_with("no file matches") {
            return Error::input(error.to_string()).hint(format!(
                "paths start at the current folder, `{}`",
                folder.display()
            ));
        }
        error
    })?;
    // As they were named, also in warnings and faults.
    let named = |file: FoundFile| TextFile {
        path: file.path,
        name: file.name,
    };
    let files: Vec<TextFile> = found.files.into_iter().map(named).collect();
    let mut notes = Vec::new();
    let mut stated = None;
    let forms: Vec<&str> = files.iter().map(|file| read::form(&file.name)).collect();
    if let Some(&form) = forms.first()
        && forms.iter().all(|other| *other == form)
        && let Some((format, note)) = match form {
            "parquet" | "arrow" => table(form, &files[0]),
            _ => format(form, &head(&files[0].path)?),
        }
    {
        stated = Some(json!({ "format": format }));
        notes.push(note);
    }
    let mut counted = count(&files, &reading(stated.as_ref())?)?;
    if stated.is_none()
        && let Some(record) = counted.observed.wrapped.record()
    {
        let why = match record {
            RecordUnit::Paragraph => {
                Some("lines are broken within sentences, and blank lines stand between paragraphs")
            }
            // Of one file there would be one record, and nothing to hold out: that is left to the user.
            _ if files.len() as u64 >= FILES_AS_RECORDS => {
                Some("lines are broken within sentences, and no blank lines stand between paragraphs")
            }
            _ => None,
        };
        if let Some(why) = why {
            stated = Some(json!({ "format": { "kind": "text", "record": record } }));
            let what = if record == RecordUnit::Paragraph {
                "paragraph"
            } else {
                "file"
            };
            notes.push((format!("a record is a {what}"), why));
            counted = count(&files, &reading(stated.as_ref())?)?;
        }
    }
    let Counted {
        bytes,
        records,
        is_whole,
        mut observed,
    } = counted;
    if bytes < LEAST {
        return Err(Error::input(format!(
            "{} of text in {} {} too little to learn from",
            noun_of(bytes, "byte"),
            noun_of(files.len(), "file"),
            agreeing(bytes, "is", "are")
        ))
        .hint("name more files; some hundred kB of text make a start"));
    }
    Ok(TextSurvey {
        files: files.len(),
        bytes,
        records,
        is_whole,
        read: stated,
        notes,
        warnings: observed.warnings(),
    })
}

fn reading(stated: Option<&Value>) -> Result<Reading> {
    let Some(read) = stated else {
        return Ok(Reading::default());
    };
    serde_json::from_value(read.clone())
        .map_err(|error| Error::internal(format!("read the chosen format: {error}")))
}

/// How much text there is, and what was seen of it.
struct Counted {
    bytes: u64,
    records: u64,
    is_whole: bool,
    observed: Observed,
}

fn count(files: &[TextFile], reading: &Reading) -> Result<Counted> {
    let mut stored = 0;
    for file in files {
        stored += std::fs::metadata(&file.path)
            .context(|| format!("read `{}`", file.path.display()))?
            .len();
    }
    let (mut bytes, mut records, mut done) = (0, 0, 0);
    let mut is_whole = true;
    let mut observed = Observed::default();
    for file in files {
        let mut here = 0;
        let result = read::records(
            file,
            reading,
            EmptyRecords::Drop,
            &mut observed,
            &Witness::default(),
            &mut |text, now| {
                bytes += text.len() as u64;
                records += 1;
                here = now.read;
                // An error ends the reading; this one means enough.
                if bytes < LOOKED_AT {
                    Ok(())
                } else {
                    Err(Error::interrupted())
                }
            },
        );
        match result {
            Ok(_) => done += std::fs::metadata(&file.path).map_or(here, |metadata| metadata.len()),
            Err(error) if error.kind() == Kind::Interrupted && bytes >= LOOKED_AT => {
                done += here;
                is_whole = done >= stored;
                break;
            }
            Err(error) => return Err(without_policy(error)),
        }
    }
    if !is_whole && done > 0 {
        let more = stored as f64 / done as f64;
        bytes = (bytes as f64 * more) as u64;
        records = (records as f64 * more) as u64;
    }
    Ok(Counted {
        bytes,
        records,
        is_whole,
        observed,
    })
}

/// An error whose hint names ways out that a manifest has and `init` has not: of text that is not UTF-8, the conversion
/// alone is left.
fn without_policy(error: Error) -> Error {
    let hint = error.hint_text().unwrap_or_default();
    let Some((before, _)) = hint.split_once(read::POLICY) else {
        return error;
    };
    let before = before
        .strip_suffix("or ")
        .unwrap_or(before)
        .trim_end_matches("; ");
    let hint = format!("{before}; `mdlm init` takes text in UTF-8 alone");
    error.replace_hint(hint)
}

/// The beginning of a file, cut at its last line break; nothing where it is compressed or no UTF-8.
fn head(path: &Path) -> Result<String> {
    let doing = || format!("read `{}`", path.display());
    let mut bytes = Vec::new();
    File::open(path)
        .context(doing)?
        .take(HEAD)
        .read_to_end(&mut bytes)
        .context(doing)?;
    if bytes.len() as u64 == HEAD {
        let end = bytes
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        bytes.truncate(end);
    }
    Ok(String::from_utf8(bytes).unwrap_or_default())
}

/// The format to state for files that begin so, with a note; nothing where the usual one fits.
fn format(form: &str, head: &str) -> Option<(Value, (String, &'static str))> {
    match form {
        "json_lines" => {
            let field = json_field(head).filter(|field| field != "/text")?;
            let note = (
                format!("the text is at `{field}`"),
                "no value has the usual `/text`",
            );
            Some((json!({ "kind": "json_lines", "field": field }), note))
        }
        "csv" | "tsv" => {
            let column =
                column(head, if form == "csv" { ',' } else { '\t' }).filter(|name| name != "text")?;
            let note = (
                format!("the text is in column `{column}`"),
                "no column has the usual name `text`",
            );
            Some((json!({ "kind": form, "columns": [column] }), note))
        }
        _ => None,
    }
}

/// The column of text in files of Parquet or Arrow, with a note: a usual name, or the one with most text in the first file;
/// nothing where `text` fits. What is wrong with the file is found when it is read.
fn table(form: &str, file: &TextFile) -> Option<(Value, (String, &'static str))> {
    let names = read::string_columns(file, &Reading::default()).ok()?;
    let format = |name: &str| json!({ "kind": form, "column": name });
    let usual = NAMES.iter().any(|usual| names.iter().any(|name| name == usual));
    // Where a name decides, lengths do not.
    let texts: Vec<(&str, usize)> = (names.iter())
        .map(|name| {
            let bytes = if usual || names.len() == 1 {
                0
            } else {
                text_in(file, &format(name))
            };
            (name.as_str(), bytes)
        })
        .collect();
    let name = likeliest(&texts).filter(|name| *name != "text")?;
    let why = if names.len() == 1 {
        "it is the only column of strings"
    } else {
        "no column has the usual name `text`"
    };
    Some((format(name), (format!("the text is in column `{name}`"), why)))
}

/// Bytes of text in the first records of a file, read in a format; nothing where it cannot be read so.
fn text_in(file: &TextFile, format: &Value) -> usize {
    let Ok(reading) = reading(Some(&json!({ "format": format }))) else {
        return 0;
    };
    let (mut bytes, mut records) = (0, 0);
    let result = read::records(
        file,
        &reading,
        EmptyRecords::Drop,
        &mut Observed::default(),
        &Witness::default(),
        &mut |text, _| {
            bytes += text.len();
            records += 1;
            // An error ends the reading; these are enough.
            if records < COMPARED {
                Ok(())
            } else {
                Err(Error::interrupted())
            }
        },
    );
    match result {
        Err(error) if error.kind() != Kind::Interrupted => 0,
        _ => bytes,
    }
}

/// The pointer of the text in JSON lines: a usual name, or the longest string of the first value.
fn json_field(head: &str) -> Option<String> {
    let first = head.lines().find(|line| !line.trim().is_empty())?;
    match serde_json::from_str(first).ok()? {
        Value::String(_) => Some(String::new()),
        Value::Object(fields) => {
            let length = |value: &Value| match value {
                Value::String(text) => Some(text.len()),
                Value::Array(parts) => parts.iter().map(|part| part.as_str().map(str::len)).sum(),
                _ => None,
            };
            let texts: Vec<(&str, usize)> = fields
                .iter()
                .filter_map(|(name, value)| Some((name.as_str(), length(value)?)))
                .collect();
            let name = likeliest(&texts)?;
            Some(format!("/{}", name.replace('~', "~0").replace('/', "~1")))
        }
        _ => None,
    }
}

/// The column of the text: a usual name, or the one whose first value is longest.
fn column(head: &str, delimiter: char) -> Option<String> {
    let mut rows = head.lines().map(|line| values(line, delimiter));
    let (names, first) = (rows.next()?, rows.next()?);
    let texts: Vec<(&str, usize)> = names
        .iter()
        .zip(&first)
        .map(|(name, value)| (name.as_str(), value.len()))
        .collect();
    likeliest(&texts)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

/// The values of a row, quotes taken off.
fn values(row: &str, delimiter: char) -> Vec<String> {
    let mut values = vec![String::new()];
    let mut quoted = false;
    for c in row.trim_start_matches('\u{feff}').chars() {
        match c {
            '"' => quoted = !quoted,
            c if c == delimiter && !quoted => values.push(String::new()),
            c => {
                if let Some(last) = values.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    values
}

fn likeliest<'a>(texts: &[(&'a str, usize)]) -> Option<&'a str> {
    let named = NAMES
        .iter()
        .find_map(|usual| texts.iter().find(|(name, _)| name == usual));
    // The first of the longest.
    let longest = texts.iter().rev().max_by_key(|(_, length)| *length);
    named.or(longest).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
    use ::arrow::ipc::writer::{FileWriter, StreamWriter};
    use ::parquet::arrow::ArrowWriter;

    use super::*;

    /// Forty rows with an ID, and columns of strings: the name, and how often a row repeats a word.
    fn rows(strings: &[(&str, usize)]) -> RecordBatch {
        let ids: Int64Array = (0..40).collect();
        let mut columns: Vec<(&str, ArrayRef)> = vec![("id", Arc::new(ids))];
        for (name, words) in strings {
            let texts: StringArray = (0..40).map(|_| Some("words ".repeat(*words))).collect();
            columns.push((name, Arc::new(texts)));
        }
        // Bytes that are not text, whatever they are called, are not chosen for their length.
        let bytes: BinaryArray = (0..40).map(|_| Some([0xFF; 4_000])).collect();
        if strings.len() > 1 {
            columns.push(("image", Arc::new(bytes)));
        }
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn column_of_parquet_is_chosen_as_that_of_csv() {
        let folder = tempfile::tempdir().unwrap();
        let only = "it is the only column of strings";
        let no_usual = "no column has the usual name `text`";
        for (strings, chosen) in [
            (&[("content", 50)][..], Some(("content", only))),
            (&[("said", 50)], Some(("said", only))),
            (&[("title", 2), ("said", 50), ("by", 1)], Some(("said", no_usual))),
            (&[("long", 90), ("body", 50)], Some(("body", no_usual))),
            (&[("long", 90), ("text", 50)], None),
            (&[("text", 50)], None),
        ] {
            let batch = rows(strings);
            let (mut parquet, mut file, mut stream) = (Vec::new(), Vec::new(), Vec::new());
            let mut writer = ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            let mut writer = FileWriter::try_new(&mut file, &batch.schema()).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
            drop(writer);
            let mut writer = StreamWriter::try_new(&mut stream, &batch.schema()).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
            drop(writer);
            let packed = zstd::encode_all(&parquet[..], 1).unwrap();
            for (name, form, bytes) in [
                ("a.parquet", "parquet", parquet),
                ("a.arrow", "arrow", file),
                ("a.arrows", "arrow", stream),
                ("a.parquet.zst", "parquet", packed),
            ] {
                std::fs::write(folder.path().join(name), bytes).unwrap();
                let text = at(folder.path(), &[name.to_owned()]).unwrap();
                let read = chosen.map(|(column, _)| json!({ "format": { "kind": form, "column": column } }));
                assert_eq!(text.read, read, "{name} {strings:?}");
                let notes: Vec<_> = (chosen.iter())
                    .map(|(column, why)| (format!("the text is in column `{column}`"), *why))
                    .collect();
                assert_eq!(text.notes, notes, "{name} {strings:?}");
                assert_eq!(text.records, 40, "{name} {strings:?}");
            }
        }
    }

    #[test]
    fn invalid_utf8_has_a_hint_without_a_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let lines = b"caf\xE9 and more words\n".repeat(400);
        std::fs::write(folder.path().join("a.txt"), lines).unwrap();
        let error = at(folder.path(), &["a.txt".to_owned()]).unwrap_err();
        assert_eq!(
            error.hint_text(),
            Some(
                "convert the file: `iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW`; `mdlm init` takes text in UTF-8 alone"
            )
        );
    }

    #[test]
    fn format_is_stated_where_the_default_does_not_fit() {
        let chosen = |form, head: &str| format(form, head).map(|(format, _)| format.to_string());
        let json = |text: &str| chosen("json_lines", text);
        assert_eq!(json("{\"id\":1,\"text\":\"a\",\"body\":\"longer\"}\n"), None);
        assert_eq!(
            json("{\"id\":\"1\",\"body\":\"b\"}\n").unwrap(),
            r#"{"kind":"json_lines","field":"/body"}"#
        );
        assert_eq!(
            json("{\"a/b\":[\"x\",\"yy\"],\"c\":\"d\"}\n").unwrap(),
            r#"{"kind":"json_lines","field":"/a~1b"}"#
        );
        assert_eq!(
            json("\"just text\"\n").unwrap(),
            r#"{"kind":"json_lines","field":""}"#
        );
        assert_eq!(json("{ \"broken\n"), None);
        assert_eq!(chosen("csv", "text,label\nx,1\n"), None);
        assert_eq!(
            chosen("csv", "id,\"what, said\"\n1,\"hello, you\"\n").unwrap(),
            r#"{"kind":"csv","columns":["what, said"]}"#
        );
        assert_eq!(
            chosen("tsv", "id\tbody\n1\tx\n").unwrap(),
            r#"{"kind":"tsv","columns":["body"]}"#
        );
    }
}
