//! Forms of files that are not read: what they are called, and a command that makes something of them that is.
//!
//! Most are recognized by their first bytes; brotli and lzma have none that do, so that the name counts where the bytes
//! are not text. A command of a hint reads its standard input where the program would refuse a file with another ending.

use super::encoding::starts_as_utf8;
use super::recognise::ends;
use crate::error::{Error, Result};

/// A form that is not read.
struct Foreign {
    name: &'static str,
    /// How its files begin.
    magic: &'static [&'static [u8]],
    /// How their names end.
    endings: &'static [&'static str],
    /// What to do.
    hint: &'static str,
}

const FOREIGN: &[Foreign] = &[
    Foreign {
        name: "LZ4",
        magic: &[b"\x04\x22\x4D\x18", b"\x02\x21\x4C\x18"],
        endings: &[".lz4"],
        hint: "decompress it: `lz4 -dc < FILE > NEW`",
    },
    Foreign {
        name: "brotli",
        magic: &[],
        endings: &[".br"],
        hint: "decompress it: `brotli -d FILE.br`",
    },
    Foreign {
        name: "lzma",
        magic: &[b"\x5D\0\0"],
        endings: &[".lzma", ".tlz"],
        hint: "decompress it: `xz --decompress --format=lzma --stdout < FILE > NEW`",
    },
    Foreign {
        name: "zlib",
        magic: &[],
        endings: &[".z", ".zz", ".zlib"],
        hint: "decompress it: `python3 -c 'import sys, zlib; \
               sys.stdout.buffer.write(zlib.decompress(sys.stdin.buffer.read()))' < FILE.z > FILE`",
    },
    Foreign {
        name: "compress (LZW)",
        magic: &[b"\x1F\x9D"],
        endings: &[".Z"],
        hint: "decompress it: `gzip -dc < FILE > NEW`",
    },
    Foreign {
        name: "pack or LZH",
        magic: &[b"\x1F\x1E", b"\x1F\xA0"],
        endings: &[],
        hint: "decompress it: `gzip -dc < FILE > NEW`",
    },
    Foreign {
        name: "lzip",
        magic: &[b"LZIP\x01"],
        endings: &[".lz"],
        hint: "decompress it: `lzip -dc < FILE > NEW`",
    },
    Foreign {
        name: "lzop",
        magic: &[b"\x89LZO\0\r\n\x1A\n"],
        endings: &[".lzo"],
        hint: "decompress it: `lzop -dc < FILE > NEW`",
    },
    Foreign {
        name: "Snappy",
        magic: &[b"\xFF\x06\0\0sNaPpY"],
        endings: &[".sz", ".snappy"],
        hint: "decompress it, in Python for example: `python3 -m snappy -d FILE.sz FILE`",
    },
    Foreign {
        name: "7z",
        magic: &[b"7z\xBC\xAF\x27\x1C"],
        endings: &[".7z"],
        hint: "unpack it: `7z x FILE.7z`",
    },
    Foreign {
        name: "RAR",
        magic: &[b"Rar!\x1A\x07"],
        endings: &[".rar"],
        hint: "unpack it: `unrar x FILE.rar`",
    },
    Foreign {
        name: "a cabinet",
        magic: &[b"MSCF\0\0\0\0"],
        endings: &[],
        hint: "unpack it: `cabextract FILE`",
    },
    Foreign {
        name: "PDF",
        magic: &[b"%PDF-"],
        endings: &[],
        hint: "extract its text: `pdftotext FILE.pdf FILE.txt`",
    },
    Foreign {
        name: "an SQLite database",
        magic: &[b"SQLite format 3\0"],
        endings: &[],
        hint: "write a table of it as CSV: `sqlite3 -header -csv FILE 'select * from TABLE' > FILE.csv`",
    },
    Foreign {
        name: "Avro",
        magic: &[b"Obj\x01"],
        endings: &[],
        hint: "write it as Parquet or JSON lines, for example with `duckdb` or Spark",
    },
    Foreign {
        name: "ORC",
        magic: &[],
        endings: &[".orc"],
        hint: "write it as Parquet, in Python for example: `pq.write_table(pyarrow.orc.read_table(\"FILE\"), \
             \"FILE.parquet\")`",
    },
    Foreign {
        name: "HDF5",
        magic: &[b"\x89HDF\r\n\x1A\n"],
        endings: &[],
        hint: "write its text as Parquet or JSON lines, for example with pandas",
    },
    Foreign {
        name: "a NumPy array",
        magic: &[b"\x93NUMPY"],
        endings: &[],
        hint: "write its text as JSON lines or plain text",
    },
    Foreign {
        name: "an image",
        magic: &[b"\x89PNG\r\n\x1A\n", b"\xFF\xD8\xFF"],
        endings: &[],
        hint: "name files of text in `files`",
    },
    Foreign {
        name: "a program",
        magic: &[b"\x7FELF"],
        endings: &[],
        hint: "name files of text in `files`",
    },
];

/// How a pointer of Git LFS begins: what Git has in place of a file that is kept elsewhere.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
/// How a pointer of git-annex begins, where it is not a link.
const ANNEX_POINTER: &[u8] = b"/annex/objects/";

/// Refuses a file that is only a note of where the file itself is kept, whatever its name; by its first bytes, or all.
///
/// # Errors
/// The file is a pointer of Git LFS or git-annex.
pub fn check_pointer(head: &[u8]) -> Result<()> {
    let is_lfs = head.starts_with(LFS_POINTER) && memchr::memmem::find(head, b"\noid ").is_some();
    let (what, command) = if is_lfs {
        ("Git LFS", "git lfs pull")
    } else if head.starts_with(ANNEX_POINTER) && head.len() < super::HEAD_BYTES {
        ("git-annex", "git annex get FILE")
    } else {
        return Ok(());
    };
    Err(
        Error::input(format!("the file is a pointer of {what}, not the file itself"))
            .hint(format!("fetch the file itself: `{command}`")),
    )
}

/// The form of a file that is neither compressed nor an archive in a way that is read.
fn of(name: &str, head: &[u8]) -> Option<&'static Foreign> {
    let by_bytes = FOREIGN
        .iter()
        .find(|foreign| foreign.magic.iter().any(|magic| head.starts_with(magic)));
    by_bytes.or_else(|| {
        // Their headers are text as well as not.
        if starts_as_utf8(head) {
            return None;
        }
        let named = |foreign: &&Foreign| {
            // `.Z` and `.z` are two.
            foreign.endings.iter().any(|ending| match *ending {
                ".Z" | ".z" => name.ends_with(ending),
                ending => ends(name, ending),
            })
        };
        FOREIGN.iter().find(named).or_else(|| {
            let zlib = || FOREIGN.iter().find(|foreign| foreign.name == "zlib");
            is_zlib(head).then(zlib).flatten()
        })
    })
}

/// Whether the bytes are those of zlib (RFC 1950): a header whose check is right, and something behind it that unpacks.
fn is_zlib(head: &[u8]) -> bool {
    let [method, flags, ..] = head else { return false };
    if method & 0x0F != 8 || method >> 4 > 7 || (u16::from(*method) << 8 | u16::from(*flags)) % 31 != 0 {
        return false;
    }
    let mut text = [0; 64];
    let mut inflate = flate2::Decompress::new(true);
    let result = inflate.decompress(head, &mut text, flate2::FlushDecompress::None);
    result.is_ok() && inflate.total_out() > 0
}

/// What a file that is not read is called.
#[must_use]
pub fn name(name: &str, head: &[u8]) -> Option<&'static str> {
    of(name, head).map(|foreign| foreign.name)
}

/// Refuses a form that is not read.
///
/// # Errors
/// The file has such a form.
pub fn check(name: &str, head: &[u8]) -> Result<()> {
    match of(name, head) {
        None => Ok(()),
        Some(foreign) => Err(
            Error::input(format!("mdlm does not read {}", foreign.name)).hint(format!(
                "{}; mdlm reads gzip, zstd, bzip2, xz, tar and zip directly",
                foreign.hint
            )),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hint_commands_for_unread_formats_fit_any_file_name() {
        for (head, command) in [
            (
                &b"\x5D\0\0\x80\0\xFF\xFF"[..],
                "`xz --decompress --format=lzma --stdout < FILE > NEW`",
            ),
            (b"\x1F\x9D\x90", "`gzip -dc < FILE > NEW`"),
            (b"LZIP\x01", "`lzip -dc < FILE > NEW`"),
            (b"\x89LZO\0\r\n\x1A\n", "`lzop -dc < FILE > NEW`"),
            (b"\x04\x22\x4D\x18@", "`lz4 -dc < FILE > NEW`"),
        ] {
            let error = check("q.txt", head).unwrap_err();
            let hint = error.hint_text().unwrap();
            assert!(hint.contains(command), "{hint}");
        }
    }

    #[test]
    fn unread_formats_are_recognised_by_bytes_and_names() {
        let cases: &[(&str, &[u8], Option<&str>)] = &[
            ("a", b"\x04\x22\x4D\x18@", Some("LZ4")),
            ("a.txt.lz4", b"text\n", None),
            ("a.txt.br", b"\x8b\x02\x80text\x03", Some("brotli")),
            ("a.txt.br", b"text\n", None),
            ("a.txt", b"\x8b\x02\x80text\x03", None),
            ("a.LZMA", b"\x6D\0\0\x80\0\xFF\xFF", Some("lzma")),
            ("a", b"\x5D\0\0\x80\0\xFF\xFF", Some("lzma")),
            ("a.Z", b"\x1F\x9D\x90", Some("compress (LZW)")),
            ("a", b"7z\xBC\xAF\x27\x1C", Some("7z")),
            ("a", b"Rar!\x1A\x07\x01\0", Some("RAR")),
            ("a", b"%PDF-1.7\n", Some("PDF")),
            ("a", b"x^2 + y^2\n", None),
            ("a", b"78 and more", None),
            ("a", b"ORCs are many", None),
            ("a", b"caf\xE9", None),
            ("a", b"", None),
        ];
        for (file, head, expected) in cases {
            assert_eq!(name(file, head), *expected, "{file} {head:?}");
        }
        for level in [1, 6, 9] {
            use std::io::Write as _;
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(level));
            (0..200).for_each(|i| writeln!(encoder, "line {i} of a text").unwrap());
            let bytes = encoder.finish().unwrap();
            assert_eq!(
                name("a.txt", &bytes[..bytes.len().min(512)]),
                Some("zlib"),
                "{level}"
            );
        }
        for foreign in FOREIGN {
            assert!(
                !foreign.magic.is_empty() || !foreign.endings.is_empty(),
                "{}",
                foreign.name
            );
        }
    }
}
