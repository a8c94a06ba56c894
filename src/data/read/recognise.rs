//! What a name and first bytes say of a file's compression, archive and format.

use super::encoding::{is_control, starts_as_utf8};
use super::tar;
use crate::manifest::reading::{ColumnFormat, Compression, CsvFormat, Format, JsonLinesFormat, TextFormat};

/// Endings of compressed files.
const COMPRESSIONS: &[&str] = &[".gz", ".zst", ".zstd", ".bz2", ".xz"];
/// Endings that mean a compressed tar, and their other spelling.
const TARS: &[&str] = &[".tgz", ".tbz", ".tbz2", ".txz", ".tzst"];
/// Endings of Arrow IPC: files, streams, and either.
const ARROWS: &[&str] = &[".arrow", ".arrows", ".ipc", ".feather"];

/// The part of a name that can have endings: of a URL, its path.
fn path(name: &str) -> &str {
    match name.split_once("://") {
        Some((_, rest)) => rest.split(['?', '#']).next().unwrap_or(rest),
        None => name,
    }
}

/// Whether a name ends so, in capitals or not.
pub fn ends(name: &str, ending: &str) -> bool {
    let start = name.len().checked_sub(ending.len());
    start.is_some_and(|start| name.as_bytes()[start..].eq_ignore_ascii_case(ending.as_bytes()))
}

/// The name of what a compressed file holds.
pub fn without_compression(name: &str) -> &str {
    let name = path(name);
    if let Some(ending) = COMPRESSIONS.iter().find(|ending| ends(name, ending)) {
        return &name[..name.len() - ending.len()];
    }
    name
}

/// Whether the name is that of a tar, compressed or not.
pub fn names_tar(name: &str) -> bool {
    ends(without_compression(name), ".tar") || TARS.iter().any(|ending| ends(path(name), ending))
}

/// Whether the name is of a form that has bytes even where there is no text.
pub fn never_empty(name: &str) -> bool {
    let name = path(name);
    names_tar(name)
        || [COMPRESSIONS, &[".zip", ".parquet"], ARROWS]
            .concat()
            .iter()
            .any(|ending| ends(name, ending))
}

/// Whether the bytes begin as a message of an Arrow IPC stream does: a mark, and a length that is a multiple of eight.
fn starts_as_arrow_stream(head: &[u8]) -> bool {
    let [0xFF, 0xFF, 0xFF, 0xFF, a, b, c, d, ..] = *head else {
        return false;
    };
    let length = i32::from_le_bytes([a, b, c, d]);
    length > 0 && length % 8 == 0
}

/// Whether the bytes are those of Parquet. A text may begin with its magic, but a Parquet file goes on with a page or its
/// footer, whose first fields are control characters.
fn starts_as_parquet(head: &[u8]) -> bool {
    head.starts_with(b"PAR1") && (head.iter().any(|&byte| is_control(byte)) || !starts_as_utf8(head))
}

/// A form of archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// tar: ustar, pax, GNU or older.
    Tar,
    /// zip.
    Zip,
}

/// The kind of archive by its first bytes; an empty or odd tar by its name.
pub fn archive(head: &[u8], name: &str) -> Option<Archive> {
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        Some(Archive::Zip)
    } else if tar::is_header(head) || names_tar(name) {
        Some(Archive::Tar)
    } else {
        None
    }
}

/// The compression that the first bytes of a file show.
///
/// gzip: RFC 1952; zstd: RFC 8878, a frame or a skippable one; bzip2: its header and the magic of a first block (π) or
/// of the end (√π); xz: its file format 1.2.1.
pub fn compression(head: &[u8]) -> Option<Compression> {
    let bzip2 = |head: &[u8]| {
        matches!(head, [b'B', b'Z', b'h', b'1'..=b'9', block @ ..] if block.starts_with(b"\x31\x41\x59\x26\x53\x59")
            || block.starts_with(b"\x17\x72\x45\x38\x50\x90"))
    };
    match head {
        [0x1F, 0x8B, 8, ..] => Some(Compression::Gzip),
        [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Some(Compression::Zstd),
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Some(Compression::Xz),
        head if bzip2(head) => Some(Compression::Bzip2),
        _ => None,
    }
}

/// The format of a file that is neither compressed nor an archive.
pub fn format(name: &str, head: &[u8]) -> Format {
    if starts_as_parquet(head) {
        return Format::Parquet(ColumnFormat::default());
    }
    // The magic of a file is filled up to eight bytes with zeros.
    if head.starts_with(b"ARROW1\0\0") || starts_as_arrow_stream(head) {
        return Format::Arrow(ColumnFormat::default());
    }
    let name = without_compression(name);
    let is = |endings: &[&str]| endings.iter().any(|ending| ends(name, ending));
    if is(&[".jsonl", ".ndjson", ".json", ".jsonlines"]) {
        Format::JsonLines(JsonLinesFormat::default())
    } else if is(&[".csv"]) {
        Format::Csv(CsvFormat::default())
    } else if is(&[".tsv", ".tab"]) {
        Format::Tsv(CsvFormat::default())
    } else if is(&[".parquet"]) {
        Format::Parquet(ColumnFormat::default())
    } else if is(ARROWS) {
        Format::Arrow(ColumnFormat::default())
    } else {
        Format::Text(TextFormat::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_is_recognised_by_name_and_first_bytes() {
        let cases = [
            ("a.txt", "text"),
            ("a", "text"),
            ("", "text"),
            ("é.TXT", "text"),
            ("a.JSONL", "json_lines"),
            ("a.ndjson.gz", "json_lines"),
            ("a.json.zst", "json_lines"),
            ("dir.csv/a", "text"),
            ("a.csv.bz2", "csv"),
            ("a.tsv.xz", "tsv"),
            ("https://h/a.csv?download=a.txt", "csv"),
            ("hf://datasets/a/b@main/c.parquet#x", "parquet"),
            ("a.feather", "arrow"),
            ("a.arrows", "arrow"),
            ("a.IPC.zst", "arrow"),
        ];
        for (name, expected) in cases {
            let format = serde_json::to_value(format(name, b"x")).unwrap();
            assert_eq!(format["kind"], expected, "{name}");
        }
        assert!(matches!(
            format("a.txt", b"PAR1\x15\x04\x15\x80"),
            Format::Parquet(_)
        ));
        for text in [
            &b"PAR1"[..],
            b"PAR1: the first paragraph\n",
            b"ARROW1 points left\n",
        ] {
            assert!(matches!(format("a.txt", text), Format::Text(_)), "{text:?}");
            assert!(
                matches!(format("a.jsonl", text), Format::JsonLines(_)),
                "{text:?}"
            );
        }
        assert!(matches!(format("a.parquet", b"PAR1"), Format::Parquet(_)));
        assert!(matches!(format("a.txt", b"ARROW1\0\0"), Format::Arrow(_)));
        let stream = b"\xFF\xFF\xFF\xFF\x20\0\0\0";
        assert!(matches!(format("a.txt", stream), Format::Arrow(_)));
        for head in [
            &stream[..5],
            b"\xFF\xFF\xFF\xFF\x21\0\0\0",
            b"\xFF\xFF\xFF\xFF\0\0\0\0",
        ] {
            assert!(matches!(format("a.txt", head), Format::Text(_)), "{head:?}");
        }
        for name in ["a.arrow", "a.arrows", "a.ipc"] {
            assert!(never_empty(name), "{name}");
        }
        for name in ["a.tgz", "a.tar", "a.tar.XZ", "https://h/a.tar.gz?x"] {
            assert!(names_tar(name), "{name}");
        }
        assert!(!names_tar("a.txt.gz"));
        assert!(never_empty("a.txt.gz") && never_empty("A.ZIP") && !never_empty("a.txt"));
    }
}
