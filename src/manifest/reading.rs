//! Which files are read, and how: files to download, formats, compression, ranges.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest size of a record, in bytes; see [`Reading::longest_record`].
pub const DEFAULT_LONGEST_RECORD: u64 = 64 << 20;
/// Largest ratio of decompressed to compressed size; see [`Reading::largest_ratio`].
pub const DEFAULT_LARGEST_RATIO: u32 = 1_000;
/// Largest buffer of a decoder, in bytes; see [`Reading::largest_buffer`].
pub const DEFAULT_LARGEST_BUFFER: u64 = 128 << 20;

/// The name of standard input among the files of a source.
pub const STANDARD_INPUT: &str = "-";

/// Whether a path names an open file of the process: standard input, or another pipe that the shell opened.
#[must_use]
pub fn is_open_file(path: &str) -> bool {
    path == STANDARD_INPUT
        || path == "/dev/stdin"
        || ["/dev/fd/", "/proc/self/fd/"].iter().any(|folder| {
            (path.strip_prefix(folder))
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        })
}

/// A file to download. Its content must be pinned, by `sha256` or by a commit in a Hugging Face URL, or declared as
/// `unpinned`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// `https://…`, `http://…`, `hf://datasets/OWNER/NAME@REVISION/path`, `s3://BUCKET/key`, `gs://BUCKET/key` or
    /// `az://CONTAINER/key`. In all but `http(s)` URLs, the path or key may be a glob.
    #[schemars(regex(pattern = r"^(https?|hf|s3|gs|az)://.+"), extend("patternErrorMessage" = URL))]
    pub url: String,
    /// SHA-256 of the file, in hex. Required unless the URL names a commit or `unpinned` is true. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"), extend("patternErrorMessage" = SHA256))]
    pub sha256: Option<String>,
    /// Accepts any content at the first download and records its SHA-256; the file stays the same until it is
    /// downloaded again. Default: unpinned content may differ between machines, so it must be allowed explicitly.
    #[serde(default)]
    pub unpinned: bool,
    /// Largest size of the file, in bytes; the download of a larger one fails. Default: limited only by the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_bytes: Option<u64>,
    /// Globs of files and folders that are not downloaded although the glob in `url` matches them, relative to the root
    /// of the repository or bucket: `data/old`, `**/test-*`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub exclude: Vec<String>,
}

impl RemoteFile {
    /// Whether the URL is a glob, which may match several files. Only Hugging Face and bucket URLs can be globs.
    #[must_use]
    pub fn is_glob(&self) -> bool {
        let web = self.url.starts_with("http://") || self.url.starts_with("https://");
        !web && self.url.contains(['*', '?', '['])
    }

    /// Whether the URL is a Hugging Face URL that names a commit, which pins the file as a checksum does.
    #[must_use]
    pub fn names_commit(&self) -> bool {
        let Some(path) = self.url.strip_prefix("hf://") else {
            return false;
        };
        let Some((_, rest)) = path.split_once('@') else {
            return false;
        };
        let revision = rest.split('/').next().unwrap_or_default();
        revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

pub(in crate::manifest) const URL: &str =
    "a URL: `https://`, `http://`, `hf://`, `s3://`, `gs://` or `az://`";
pub(in crate::manifest) const SHA256: &str = "a SHA-256: 64 digits 0-9, a-f";

/// How files are read: compression, format, and which part of them is text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// Format of the files. Default: by file name (`.txt`, `.jsonl`, `.csv`, `.tsv`, `.parquet`, `.arrow`), and by the
    /// first bytes for Parquet and Arrow; otherwise plain text, one record per line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Compression of the files. Default: recognized by their first bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Globs that select members of an archive by name (`*` stays within a folder, `**` does not). Tar and zip archives
    /// are recognized by their first bytes, and members are read in the archive's order. A member that is itself an
    /// archive is read whole. Default: all regular files; hidden and system files are skipped as in a folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub members: Vec<String>,
    /// Globs of members and folders of an archive to skip although `members` matches them, also in archives within
    /// archives: `old`, `**/README*`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub exclude: Vec<String>,
    /// What to do with bytes that are not UTF-8. Default: fail, since silent replacement hides a wrong encoding.
    #[serde(default)]
    pub invalid_utf8: InvalidUtf8,
    /// Largest size of a record in bytes, and of the JSON value that contains it; a longer one is an error. The limit
    /// bounds memory. Default: our choice, 64 MiB, far above any document of the usual corpora.
    #[serde(default = "default_longest_record")]
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub longest_record: u64,
    /// Largest ratio of decompressed to compressed size. If a file exceeds it by more than 1 MiB, it is rejected as a
    /// decompression bomb. Default: just below the maximum of deflate (1,032); text reaches 10 at most.
    #[serde(default = "default_largest_ratio")]
    #[schemars(range(min = 1))]
    pub largest_ratio: u32,
    /// Largest buffer, in bytes, that a file may make a decoder allocate: a zstd window, an xz dictionary, a Parquet
    /// page, the buffers of a compressed Arrow batch. A file that needs more is an error. The limit bounds memory.
    /// Default: 128 MiB, the limit of the `zstd` command with `--long=27`, twice the need of `xz -9` and 128 times a
    /// usual page.
    #[serde(default = "default_largest_buffer")]
    #[schemars(range(min = 1_048_576, max = 2_147_483_648u64))]
    pub largest_buffer: u64,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            format: None,
            compression: None,
            members: Vec::new(),
            exclude: Vec::new(),
            invalid_utf8: InvalidUtf8::default(),
            longest_record: DEFAULT_LONGEST_RECORD,
            largest_ratio: DEFAULT_LARGEST_RATIO,
            largest_buffer: DEFAULT_LARGEST_BUFFER,
        }
    }
}

/// What to do with records of nothing but white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EmptyRecords {
    /// They are dropped, and the summary counts them.
    Drop,
    /// They stay records, of no token if they have no character: the published rows of WikiText hold an EOS for each
    /// blank line.
    Keep,
}

/// Format of the files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Format {
    /// Plain text.
    Text(TextFormat),
    /// JSON values, one per line (or one after the other).
    JsonLines(JsonLinesFormat),
    /// Comma-separated values, quoted as in RFC 4180.
    Csv(CsvFormat),
    /// Tab-separated values, quoted as in CSV (RFC 4180).
    Tsv(CsvFormat),
    /// Apache Parquet.
    Parquet(ColumnFormat),
    /// Arrow IPC, as a file or as a stream (Hugging Face `datasets` writes streams).
    Arrow(ColumnFormat),
}

/// Plain text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextFormat {
    /// Unit of text that makes one record. Records are tokenized and split off for validation one by one and, without
    /// `wrap`, packed one per row. Empty records are dropped. Default: our choice, since most corpora have one record
    /// per line.
    #[serde(default)]
    pub record: RecordUnit,
}

/// Unit of text that makes one record. Empty records are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordUnit {
    /// Each line is a record.
    #[default]
    Line,
    /// Each paragraph is a record; blank lines separate paragraphs.
    Paragraph,
    /// Each file is a record.
    File,
}

/// JSON values, one per line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonLinesFormat {
    /// JSON pointer (RFC 6901) of the text in each value: a string, or an array of strings that are joined. If empty,
    /// the value itself is the text. Default: the usual field name.
    #[serde(default = "text_pointer")]
    pub field: String,
    /// Separator between the strings of an array. Default: our choice.
    #[serde(default = "line_break")]
    pub join: String,
}

impl Default for JsonLinesFormat {
    fn default() -> Self {
        Self {
            field: text_pointer(),
            join: line_break(),
        }
    }
}

/// Values separated by a delimiter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CsvFormat {
    /// Columns that make up the text, by name, or by number from 1 (`"2"`) if no column has that name or there is no
    /// header. Default: the usual column name.
    #[serde(default = "text_columns")]
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub columns: Vec<String>,
    /// Separator between the columns in the text. Default: our choice.
    #[serde(default = "space")]
    pub join: String,
    /// Whether the first row contains the names of the columns. Default: most files have such a row.
    #[serde(default = "yes")]
    pub header: bool,
    /// ASCII character between values: `";"`, `"|"`, `"\t"`. Default: a comma in `csv`, a tab in `tsv`; a first line
    /// such as `sep=;`, which Excel writes, overrides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "character")]
    pub delimiter: Option<char>,
    /// ASCII character around a quoted value; inside the value it is doubled. `"none"`: quotes are ordinary text, for
    /// files whose writer never quotes. Default: `"\""`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([!-~]|none)$"), extend("patternErrorMessage" = QUOTE))]
    pub quote: Option<String>,
    /// ASCII character that makes the next character literal: `"\\"` if a quote inside a value is written `\"`. No
    /// other escapes exist, so `\n` is an `n`. Default: none; quotes are doubled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "character")]
    pub escape: Option<char>,
    /// ASCII character that begins a comment line; such lines are skipped. Default: there are no comment lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "character")]
    pub comment: Option<char>,
    /// Largest number of lines in a quoted value; a longer value makes a bad row. The limit catches a stray quote that
    /// would swallow the rows below it. Default: 1 for values separated by tabs, where line breaks are rare; otherwise
    /// 10,000, and then it is also an error if all values of several lines look like separate rows. Setting a number
    /// switches that second check off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub quoted_lines: Option<u64>,
    /// What to do with a bad row: too few or too many values (empty ones at the end do not count), text after a closing
    /// quote, a quote that is not closed or spans more than `quoted_lines` lines, or a repeated header. Default:
    /// `error`, since text should not be lost unnoticed.
    #[serde(default, skip_serializing_if = "BadRows::is_default")]
    pub bad_rows: BadRows,
}

impl Default for CsvFormat {
    fn default() -> Self {
        Self {
            columns: text_columns(),
            join: space(),
            header: true,
            delimiter: None,
            quote: None,
            escape: None,
            comment: None,
            quoted_lines: None,
            bad_rows: BadRows::default(),
        }
    }
}

/// What to do with a row that does not fit the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BadRows {
    /// The stage fails and shows the place of the error.
    #[default]
    Error,
    /// The row is skipped, and the number of skipped rows is reported.
    Skip,
}

impl BadRows {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

const QUOTE: &str = "an ASCII character, or `none`";
const CHARACTER: &str = "one ASCII character; `\"\\t\"` is a tab";

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnFormat {
    /// Column that contains the text (`article.text` is a field of a struct): strings, or lists of strings that are
    /// joined. Default: the usual column name.
    #[serde(default = "text_column")]
    #[schemars(length(min = 1))]
    pub column: String,
    /// Separator between the strings of a list. Default: our choice.
    #[serde(default = "line_break")]
    pub join: String,
}

impl Default for ColumnFormat {
    fn default() -> Self {
        Self {
            column: text_column(),
            join: line_break(),
        }
    }
}

/// Compression of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not compressed.
    None,
    /// gzip, with any number of members.
    Gzip,
    /// zstd, with any number of frames.
    Zstd,
    /// bzip2, with any number of streams.
    Bzip2,
    /// xz, with any number of streams.
    Xz,
}

/// What to do with bytes that are not UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvalidUtf8 {
    /// The stage fails and shows the place of the error.
    #[default]
    Error,
    /// Each invalid sequence is replaced by U+FFFD, and the number of such records is reported.
    Replace,
    /// The record is skipped, and the number of skipped records is reported.
    Skip,
}

/// A part of the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// Unit of `from` and `to`. Characters are counted over all records; the first and the last record of the range may
    /// be cut.
    pub unit: RangeUnit,
    /// First record or character of the range, counted from 0. Default: from the start.
    #[serde(default)]
    pub from: u64,
    /// End of the range: the number of the first record or character after it. Default: to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// Unit of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RangeUnit {
    /// Records.
    Records,
    /// Characters (Unicode scalar values).
    Characters,
}

fn character(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string",
        "pattern": r"^[\x01-\x09\x0B\x0C\x0E-\x7F]$",
        "patternErrorMessage": CHARACTER,
    })
}

defaults! {
    yes: bool = true;
    text_pointer: String = "/text".to_owned();
    text_column: String = "text".to_owned();
    text_columns: Vec<String> = vec![text_column()];
    line_break: String = "\n".to_owned();
    space: String = " ".to_owned();
    default_longest_record: u64 = DEFAULT_LONGEST_RECORD;
    default_largest_ratio: u32 = DEFAULT_LARGEST_RATIO;
    default_largest_buffer: u64 = DEFAULT_LARGEST_BUFFER;
}
