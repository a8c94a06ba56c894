//! Files of tokenizers and vocabularies as text, whatever a download or an editor has made of them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::AddedToken;
use tokenizers::models::ModelWrapper;

use crate::data::literals::Literal;
use crate::data::read::check_pointer;
use crate::error::{Context as _, Error, Kind, Result, Wrap as _, guarded};

/// The byte order mark of UTF-8.
const MARK: &str = "\u{feff}";
/// Bytes at the start of a file in which a page of HTML says that it is one.
const HEAD: usize = 1024;

/// Reads a file of a tokenizer. A byte order mark is left out, and `warnings` has a line about it.
///
/// # Errors
/// The file is absent, is not text in UTF-8, or is plainly another thing: a web page, a pointer of Git LFS, an archive.
pub(super) fn read(path: &Path, warnings: &mut Vec<String>) -> Result<String> {
    let what = || format!("read `{}`", path.display());
    let bytes = std::fs::read(path).context(what)?;
    let text = decoded(bytes).context(what)?;
    let Some(rest) = text.strip_prefix(MARK) else {
        return Ok(text);
    };
    warnings.push(format!(
        "`{}` begins with a byte order mark, which is left out",
        path.display()
    ));
    Ok(rest.to_owned())
}

/// The text of a file.
fn decoded(bytes: Vec<u8>) -> Result<String> {
    let packed = match &*bytes {
        [0x1F, 0x8B, ..] => Some("compressed by gzip"),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Some("compressed by zstd"),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => Some("a zip archive"),
        _ => None,
    };
    if let Some(packed) = packed {
        return Err(Error::input(format!("the file is {packed}")).hint("unpack it first"));
    }
    if let Some(name) = utf16(&bytes) {
        return Err(Error::input(format!("the file is {name}, and UTF-8 is expected"))
            .hint(format!("convert it: `iconv -f {name} -t UTF-8`")));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let (before, byte) = (&error.as_bytes()[..at], error.as_bytes()[at]);
        let line = before.split(|&byte| byte == b'\n').count();
        let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
        Error::input(format!(
            "line {line}: invalid UTF-8 (0x{byte:02X}) at byte {column} of the line, {} of the file",
            at + 1
        ))
        .hint("convert it to UTF-8, or download it again")
    })?;
    let start = text.trim_start_matches(MARK).trim_start();
    if start.is_empty() {
        return Err(Error::input("the file is empty").hint("download it again"));
    }
    check_pointer(start.as_bytes())?;
    let head: String = start.chars().take(HEAD).collect();
    let head = head.to_ascii_lowercase();
    if head.starts_with('<')
        && ["<!doctype html", "<html", "<head", "<body"]
            .iter()
            .any(|tag| head.contains(tag))
    {
        return Err(Error::input("the file is a web page (HTML)").hint(
            "download the file itself: on Hugging Face its address has `/resolve/` where that of its page has \
             `/blob/`, and a page may be asking for a login",
        ));
    }
    Ok(text)
}

/// The name of the encoding of a text in UTF-16: by its mark, or by the NUL of each character of ASCII.
fn utf16(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0xFF, 0xFE, ..] => return Some("UTF-16LE"),
        [0xFE, 0xFF, ..] => return Some("UTF-16BE"),
        _ => {}
    }
    let head = &bytes[..bytes.len().min(HEAD)];
    let nul = |odd: usize| {
        head.iter()
            .skip(odd)
            .step_by(2)
            .filter(|&&byte| byte == 0)
            .count()
    };
    let most = head.len() / 4;
    match (nul(0), nul(1)) {
        (0, little) if head.len() > 3 && little > most => Some("UTF-16LE"),
        (big, 0) if head.len() > 3 && big > most => Some("UTF-16BE"),
        _ => None,
    }
}

/// The tokens of a vocabulary of one token a line, in the order of their ids. Empty lines at the end are not tokens.
///
/// # Errors
/// A line is empty, is there twice or has a byte order mark; the lines do not end as lines do.
pub(super) fn lines(text: &str) -> Result<Vec<&str>> {
    if !text.contains('\n') && text.trim_end().contains('\r') {
        return Err(
            Error::input("the lines end in a carriage return alone (old Mac OS)")
                .hint("convert them: `tr '\\r' '\\n'`"),
        );
    }
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    if let Some(empty) = lines.iter().position(|line| line.is_empty()) {
        return Err(
            Error::input(format!("line {}: there is no token", empty + 1)).hint(
                "a token's id is the number of its line: compare the file with the published one, and remove the \
                 lines that were added",
            ),
        );
    }
    if let Some(at) = lines.iter().position(|line| line.contains(MARK)) {
        return Err(mark_within(lines[at]).context(format!("line {}", at + 1)));
    }
    let mut first = HashMap::with_capacity(lines.len());
    for (at, line) in lines.iter().enumerate() {
        if let Some(before) = first.insert(*line, at) {
            return Err(Error::input(format!("line {}: `{line}` occurs twice", at + 1))
                .hint(format!("it occurs first in line {}", before + 1)));
        }
    }
    Ok(lines)
}

/// The tokenizer of a file, as [`parse`] makes it.
///
/// # Errors
/// The text is not a tokenizer: the path, and where it is known the line and the column.
pub(super) fn parse_file(
    path: &Path,
    json: &str,
    warnings: &mut Vec<String>,
) -> Result<tokenizers::Tokenizer> {
    let error = match parse(json, warnings) {
        Ok(inner) => return Ok(inner),
        Err(error) => error,
    };
    let what = reading(path, json, &error.to_string());
    Err(error.context(what))
}

/// The reading of a file that a message is about, with the line and the column where they are known.
pub(super) fn reading(path: &Path, json: &str, message: &str) -> String {
    let place = place_of(json, message);
    let place = place.map_or_else(String::new, |(line, column)| format!(":{line}:{column}"));
    format!("read `{}{place}`", path.display())
}

/// Where a text is not a tokenizer: where it is not JSON, else where the message says, as `serde_json` words it.
fn place_of(json: &str, message: &str) -> Option<(usize, usize)> {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(json) {
        return Some((error.line(), error.column()));
    }
    let (_, place) = message.rsplit_once(" at line ")?;
    let (line, column) = place.split_once(" column ")?;
    Some((line.parse().ok()?, column.trim().parse().ok()?))
}

/// The fault of a byte order mark behind the start of a file: another file was appended. Its tokens may have other ids
/// than they had there.
pub(super) fn mark_within(line: &str) -> Error {
    let shown = line.replace(MARK, "\\u{feff}");
    Error::input(format!("a byte order mark in `{shown}` (concatenated files?)")).hint(
        "use the file as it was published; to take the marks out: `LC_ALL=C sed 's/\\xEF\\xBB\\xBF//g' FILE > NEW`",
    )
}

/// What is wrong with a file of JSON, where it is more than a parser says: a word that is not JSON, a byte order mark
/// behind its start.
pub(super) fn json_fault(json: &str) -> Option<Error> {
    let error = serde_json::from_str::<serde::de::IgnoredAny>(json).err()?;
    if let Some(literal) = Literal::at(json.as_bytes(), &error) {
        return Some(literal.fault());
    }
    let line = json.split('\n').nth(error.line().checked_sub(1)?)?;
    let rest = line.as_bytes().get(error.column().checked_sub(1)?..)?;
    let shown: String = line.chars().take(40).collect();
    rest.starts_with(MARK.as_bytes())
        .then(|| mark_within(if shown.contains(MARK) { &shown } else { MARK }))
}

/// A tokenizer without what depends on more than the text: truncation, padding, and the merges that dropout leaves out by
/// chance, of which `warnings` has a line.
pub(super) fn parse(json: &str, warnings: &mut Vec<String>) -> Result<tokenizers::Tokenizer> {
    // It panics where some field is absent.
    let parsed = guarded(|| tokenizers::Tokenizer::from_bytes(json).map_err(|error| error.to_string()));
    let mut inner = parsed.and_then(|parsed| parsed).map_err(|error| {
        if let Some(fault) = json_fault(json) {
            return fault;
        }
        Error::input(format!("this is not a tokenizer file: {error}")).hint(
            "kind `file` takes Hugging Face's `tokenizer.json`; use kind `gpt2` for `vocab.json` and \
                 `merges.txt`, and `bert` for `vocab.txt`",
        )
    })?;
    inner
        .with_truncation(None)
        .wrap(Kind::Internal, || "switch truncation off".to_owned())?;
    inner.with_padding(None);
    inner.set_encode_special_tokens(true);
    // Nothing else in a tokenizer draws random numbers: a Unigram's samples are asked for, never made of text as it is.
    if let ModelWrapper::BPE(model) = inner.get_model()
        && let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0)
    {
        let mut model = model.clone();
        model.dropout = None;
        inner.with_model(model);
        warnings.push(format!(
            "the tokenizer leaves out merges at random (`dropout` {dropout}): mdlm switches this off, so that a text \
             has the same tokens each time"
        ));
    }
    Ok(inner)
}

/// A tokenizer of parts of a `tokenizer.json`, some of whose tokens are special.
///
/// # Errors
/// Internal error: the `tokenizers` library rejects the parts.
pub(super) fn assemble(parts: &Value, special: &[&str]) -> Result<tokenizers::Tokenizer> {
    let added: Vec<Value> = special
        .iter()
        .map(|&name| {
            json!({
                "id": parts["model"]["vocab"][name], "content": name, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let whole = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": parts["normalizer"], "pre_tokenizer": parts["pre_tokenizer"], "post_processor": null,
        "decoder": parts["decoder"], "model": parts["model"],
    });
    parse(&whole.to_string(), &mut Vec::new())
}

/// A vocabulary of these tokens, with ids from 0 in their order.
pub(super) fn numbered(tokens: &[impl AsRef<str>]) -> Map<String, Value> {
    let ids = tokens.iter().enumerate();
    ids.map(|(id, token)| (token.as_ref().to_owned(), json!(id)))
        .collect()
}

/// Whether ids below the model's largest are of no token.
///
/// # Errors
/// Two tokens have one id.
pub(super) fn has_gaps(inner: &tokenizers::Tokenizer) -> Result<bool> {
    let mut tokens: Vec<(u32, String)> = inner
        .get_vocab(false)
        .into_iter()
        .map(|(token, id)| (id, token))
        .collect();
    tokens.sort_unstable();
    let same = tokens.windows(2).find(|pair| pair[0].0 == pair[1].0);
    if let Some([(id, one), (_, other)]) = same {
        return Err(
            Error::input(format!("the tokens `{one}` and `{other}` have the same id, {id}"))
                .hint("give every token of the vocabulary a different id"),
        );
    }
    Ok(tokens.last().is_some_and(|&(id, _)| id as usize >= tokens.len()))
}

/// A `tokenizer.json` with the added tokens, truncation and padding of what was made of it. The library, asked to write
/// ids with gaps, complains on the standard output, where only results belong.
pub(super) fn rewritten(json: &str, inner: &tokenizers::Tokenizer) -> Result<String> {
    let what = || "write the tokenizer".to_owned();
    let mut whole: Value = serde_json::from_str(json).wrap(Kind::Internal, what)?;
    let added: BTreeMap<u32, AddedToken> = inner.get_added_tokens_decoder().into_iter().collect();
    let mut written = Vec::new();
    for (id, token) in added {
        let mut token = serde_json::to_value(token).wrap(Kind::Internal, what)?;
        token["id"] = json!(id);
        written.push(token);
    }
    whole["added_tokens"] = Value::Array(written);
    whole["truncation"] = Value::Null;
    whole["padding"] = Value::Null;
    if let Some(dropout) = whole["model"].get_mut("dropout")
        && dropout.as_f64() != Some(0.0)
    {
        *dropout = Value::Null;
    }
    let text = serde_json::to_string_pretty(&whole).wrap(Kind::Internal, what)?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(bytes: &[u8]) -> (Result<String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocab.txt");
        std::fs::write(&path, bytes).unwrap();
        let mut warnings = Vec::new();
        (read(&path, &mut warnings), warnings)
    }

    #[test]
    fn byte_order_mark_is_left_out_with_a_warning() {
        let (text, warnings) = read_bytes(b"\xEF\xBB\xBF[PAD]\r\na\r\n");
        assert_eq!(text.unwrap(), "[PAD]\r\na\r\n");
        assert!(warnings[0].ends_with("vocab.txt` begins with a byte order mark, which is left out"));
        let (text, warnings) = read_bytes("{\"é\": 1}".as_bytes());
        assert_eq!((&*text.unwrap(), warnings.len()), ("{\"é\": 1}", 0));
    }

    #[test]
    fn files_of_other_formats_are_named() {
        let utf16 = |text: &str, order: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(order).collect()
        };
        for (bytes, expected) in [
            (b"\x1F\x8B\x08\0rest".to_vec(), "compressed by gzip"),
            (b"PK\x03\x04rest".to_vec(), "a zip archive"),
            (b"\x28\xB5\x2F\xFDrest".to_vec(), "compressed by zstd"),
            (utf16("\u{feff}[PAD]\na", u16::to_le_bytes), "UTF-16LE"),
            (utf16("\u{feff}[PAD]\na", u16::to_be_bytes), "UTF-16BE"),
            (utf16("{\"model\": {}}", u16::to_le_bytes), "UTF-16LE"),
            (utf16("{\"model\": {}}", u16::to_be_bytes), "UTF-16BE"),
            (
                b"one\ntw\xFF\n".to_vec(),
                "line 2: invalid UTF-8 (0xFF) at byte 3 of the line, 7 of the file",
            ),
            (b" \n".to_vec(), "the file is empty"),
            (b"".to_vec(), "the file is empty"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n".to_vec(),
                "pointer of Git LFS",
            ),
            (b"\n<!DOCTYPE html>\n<html>".to_vec(), "a web page (HTML)"),
            (
                b"<?xml version=\"1.0\"?><html lang=\"en\">".to_vec(),
                "a web page (HTML)",
            ),
        ] {
            let error = read_bytes(&bytes).0.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.hint_text().is_some(), "{error}");
        }
        // A vocabulary may begin with such a token.
        assert!(read_bytes(b"<pad>\n<s>\n").0.is_ok());
    }

    #[test]
    fn literals_of_python_in_a_tokenizer_are_named() {
        for (json, expected, hint) in [
            (
                "{\"model\": {\"type\": \"Unigram\",\n \"vocab\": [[\"a\", NaN]]}}",
                "`NaN` is not JSON (Python's `json` writes it for an undefined number)",
                "json.dumps",
            ),
            (
                "{\"model\": {\"unk_token\": None}}",
                "`None` is not JSON (Python prints it for null)",
                "json.dumps",
            ),
            (
                "{\"version\": \"1.0\"}\n\u{feff}{\"version\": \"1.0\"}",
                "a byte order mark in `\\u{feff}{\"version\": \"1.0\"}` (concatenated files?)",
                "LC_ALL=C sed",
            ),
            (
                "{\"version\": 1.0",
                "this is not a tokenizer file: ",
                "tokenizer.json",
            ),
        ] {
            let error = parse(json, &mut Vec::new()).map(drop).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            assert!(error.hint_text().unwrap().contains(hint), "{error}");
        }
    }

    #[test]
    fn lines_of_a_vocabulary_are_its_tokens() {
        assert_eq!(lines("a\r\nb \r\n\r\n").unwrap(), ["a", "b"]);
        let fault = |text: &str| lines(text).unwrap_err().to_string();
        assert_eq!(fault("a\n\nb\n"), "line 2: there is no token");
        assert_eq!(fault("a\nb\na\n"), "line 3: `a` occurs twice");
        // Files that were put together.
        assert_eq!(
            fault("[PAD]\na\n\u{feff}[PAD]\nb\n"),
            "line 3: a byte order mark in `\\u{feff}[PAD]` (concatenated files?)"
        );
        assert_eq!(
            fault("a\nb\u{feff}c\n"),
            "line 2: a byte order mark in `b\\u{feff}c` (concatenated files?)"
        );
        assert_eq!(
            fault("a\rb\r"),
            "the lines end in a carriage return alone (old Mac OS)"
        );
    }
}
