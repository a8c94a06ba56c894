//! What a source stage brings in: places, formats, and the treatment of records.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::detokenize::{Detokenization, Spelling};

/// Bytes of one record, at most; see [`Reading::longest_record`].
pub const DEFAULT_LONGEST_RECORD: u64 = 64 << 20;
/// Bytes a compressed byte may become, at most; see [`Reading::largest_ratio`].
pub const DEFAULT_LARGEST_RATIO: u32 = 1_000;
/// Bytes that a decoder holds at once, at most; see [`Reading::largest_buffer`].
pub const DEFAULT_LARGEST_BUFFER: u64 = 128 << 20;

/// Standard input among the files of a source.
pub const STANDARD_INPUT: &str = "-";

/// Whether a path is one of the names of an open file of the process: standard input or another pipe of the shell's.
#[must_use]
pub fn is_open_file(path: &str) -> bool {
    path == STANDARD_INPUT
        || path == "/dev/stdin"
        || ["/dev/fd/", "/proc/self/fd/"].iter().any(|folder| {
            (path.strip_prefix(folder))
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        })
}

/// Brings text in, as records.
///
/// The steps for a record, in this order: the `range` is cut out of the text as it was read, `detokenize`, `filter`,
/// `sample`, `limit`. Empty records are dropped wherever they arise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Where the text comes from.
    pub input: SourceInput,
    /// A part of the text: fixed ranges make splits that others can name, as text8's first 90 million characters.
    /// Default: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Range>,
    /// Turns a corpus' tokenized spelling (`do n't`, `1 @,@ 000`) into natural text: a rule set or a list of them, done in
    /// the order given. A name alone is ours; `{ "rules": "ptb", "as": "published" }` is what the authors of arXiv
    /// 2406.07524 do, to put numbers beside theirs. Default: none, and for a named corpus its own, as ours.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "super::detokenize::one_or_more"
    )]
    #[schemars(schema_with = "super::detokenize::schema")]
    pub detokenize: Option<Vec<Detokenization>>,
    /// Records to keep. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Share of the records to keep, by a seeded draw for each record's number. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: Option<f64>,
    /// Keeps the first records, this many. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
    /// Seed of `sample`. Default: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

impl Source {
    /// The source's own seed.
    #[must_use]
    pub fn seed(&self) -> Option<u64> {
        match &self.input {
            SourceInput::Synthetic(input) => input.seed.or(self.seed),
            _ => self.seed,
        }
    }
}

/// Where the text of a source comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceInput {
    /// Local files.
    Files(LocalFiles),
    /// Files from `http(s)`, the Hugging Face hub (`hf://`) or a bucket (`s3://`, `gs://`, `az://`), downloaded once.
    Download(Download),
    /// A corpus of the field by name, downloaded or brought by hand; `mdlm corpora` lists them.
    Corpus(NamedCorpus),
    /// Text drawn from a grammar whose exact entropy is known.
    Synthetic(SyntheticInput),
}

/// Local files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalFiles {
    /// Paths or globs (`*`, `?`, `[…]`, `**`), relative to the manifest's folder; read in the order given, the matches
    /// of a glob by name, each file once, where it comes first: files are identified by device and inode, whatever links
    /// lead to it. `-` is standard input: a run keeps what is piped in, and later ones go by it where nothing is. A glob passes over what the summary then counts: hidden files and folders
    /// (`.git`) unless the pattern has their point; system files (`__MACOSX/`, `._*`, `.DS_Store`, `_SUCCESS`, `Thumbs.db`)
    /// unless it has their name; results, reports and manifests of mdlm; pipes and devices.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub files: Vec<String>,
    /// Paths or globs of files and folders that are not read although `files` matches them, relative to the manifest's
    /// folder: `data/old`, `**/*.bak.txt`. Default: none. Members of archives are `exclude` of `read`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub exclude: Vec<String>,
    /// How the files are read. Default: as their names and contents say.
    #[serde(default)]
    pub read: Reading,
}

/// Files from elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// The files, read in this order.
    #[schemars(length(min = 1))]
    pub files: Vec<RemoteFile>,
    /// How the files are read. Default: as their names and contents say.
    #[serde(default)]
    pub read: Reading,
}

/// A file from elsewhere. What it holds is pinned by `sha256` or, on the hub, by a commit in the URL; or it is said to
/// be unpinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// `https://…`, `http://…`, `hf://datasets/OWNER/NAME@REVISION/path` (the path may be a glob), `s3://BUCKET/key`,
    /// `gs://BUCKET/key`, `az://CONTAINER/key`; keys may be globs, too.
    #[schemars(regex(pattern = r"^(https?|hf|s3|gs|az)://.+"), extend("patternErrorMessage" = URL))]
    pub url: String,
    /// SHA-256 of the file, in hex. Default: none; then `unpinned` has to say so, or the URL names a commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"), extend("patternErrorMessage" = SHA256))]
    pub sha256: Option<String>,
    /// Takes whatever is there at the first download and records its SHA-256; that stays until it is downloaded again.
    /// Default: a run that cannot be repeated has to be asked for.
    #[serde(default)]
    pub unpinned: bool,
    /// Bytes of the file, at most. Default: no bound but the disk's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_bytes: Option<u64>,
    /// Globs of files and folders that are not downloaded although the glob in `url` matches them, from the root of the
    /// repository or bucket on: `data/old`, `**/test-*`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub exclude: Vec<String>,
}

impl RemoteFile {
    /// Whether the URL is of the hub or a bucket and stands for any number of files.
    #[must_use]
    pub fn is_glob(&self) -> bool {
        let web = self.url.starts_with("http://") || self.url.starts_with("https://");
        !web && self.url.contains(['*', '?', '['])
    }

    /// Whether the URL is of the hub and names a commit, which pins the file as a checksum does.
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

pub(super) const URL: &str = "a URL: `https://`, `http://`, `hf://`, `s3://`, `gs://` or `az://`";
pub(super) const SHA256: &str = "a SHA-256: 64 digits 0-9, a-f";

/// A corpus by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedCorpus {
    /// Its name; `mdlm corpora` lists them.
    #[schemars(schema_with = "corpus_names")]
    pub corpus: String,
    /// Which of its parts. Default: most sources are for training.
    #[serde(default)]
    pub split: CorpusSplit,
    /// The split's files where they were brought by hand, paths or globs relative to the manifest's folder, in the order
    /// in which `mdlm corpora NAME` lists them; checked against the same SHA-256. Default: they are downloaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub files: Vec<String>,
}

/// A part of a corpus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CorpusSplit {
    /// To learn from.
    #[default]
    Train,
    /// To watch training with.
    Validation,
    /// To judge by.
    Test,
}

impl CorpusSplit {
    /// The manifest's spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// How files are read: what they are compressed with, what they hold, which part of it is text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// What the files hold. Default: as a file's name says (`.txt`, `.jsonl`, `.csv`, `.tsv`, `.parquet`, `.arrow`), and
    /// its first bytes for Parquet and Arrow; plain text, one record a line, if neither does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// What the files are compressed with. Default: as their first bytes say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Globs over the names of an archive's members (tar or zip, recognised by its first bytes; `*` stays within a folder,
    /// `**` does not); the members are read in the archive's order, and those that are archives themselves are read
    /// whole. Default: every regular file. Hidden ones and system files are passed over as in a folder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub members: Vec<String>,
    /// Globs over the names of members and of folders in an archive that are not read although `members` matches them,
    /// in archives within archives, too: `old`, `**/README*`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub exclude: Vec<String>,
    /// The treatment of bytes that are not UTF-8. Default: fail, since silent replacement hides a wrong encoding.
    #[serde(default)]
    pub invalid_utf8: InvalidUtf8,
    /// Bytes of a record, at most, and of the JSON value that it stands in; a longer one is an error. Default: our choice,
    /// far above any document of the usual corpora; it bounds memory.
    #[serde(default = "default_longest_record")]
    #[schemars(range(min = 1, max = 1_073_741_824))]
    pub longest_record: u64,
    /// Bytes that a byte of the file may become, at most; beyond it (and a first MiB) the file is taken for a bomb. Default: just below what
    /// deflate can reach (1,032); text comes to 10 at most.
    #[serde(default = "default_largest_ratio")]
    #[schemars(range(min = 1))]
    pub largest_ratio: u32,
    /// Bytes that a decoder may hold at once because the file says so, at most: a zstd window, an xz dictionary, a page of
    /// Parquet, the buffers of a compressed Arrow batch; a file that takes more is an error. Default: what the `zstd`
    /// command grants too (`--long=27`), twice what `xz -9` takes, 128 times a usual page; it bounds memory.
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

/// What files hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Format {
    /// Plain text.
    Text(TextFormat),
    /// JSON values, one a line (or one after the other).
    JsonLines(JsonLinesFormat),
    /// Comma-separated values, quoted as in RFC 4180.
    Csv(CsvFormat),
    /// Tab-separated values, quoted likewise.
    Tsv(CsvFormat),
    /// Parquet.
    Parquet(ColumnFormat),
    /// Arrow IPC, as a file or as a stream (Hugging Face `datasets` writes the latter).
    Arrow(ColumnFormat),
}

/// Plain text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextFormat {
    /// What a record is: the unit that is tokenized, split off for validation and, without `wrap`, put into a
    /// separate row. Empty records are dropped. Default: our choice; most corpora come one record a line.
    #[serde(default)]
    pub record: RecordUnit,
}

/// What a record of a text file is. Empty records are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordUnit {
    /// One line is a record.
    #[default]
    Line,
    /// Documents are separated by blank lines.
    Paragraph,
    /// The whole file is a record.
    File,
}

/// JSON values, one a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonLinesFormat {
    /// JSON pointer (RFC 6901) of the text in each value: a string, or an array of strings that are joined. Empty, the
    /// value itself is the text. Default: the field's usual name.
    #[serde(default = "text_pointer")]
    pub field: String,
    /// Stands between the strings of an array. Default: our choice.
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
    /// The columns that make the text, by name, or by number from 1 (`"2"`) where no column has that name or there is no
    /// header. Default: the field's usual name.
    #[serde(default = "text_columns")]
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub columns: Vec<String>,
    /// Stands between the columns. Default: our choice.
    #[serde(default = "space")]
    pub join: String,
    /// Whether the first row names the columns. Default: most files have one.
    #[serde(default = "yes")]
    pub header: bool,
    /// The character between values, of ASCII: `";"`, `"|"`, `"\t"`. Default: a comma in `csv`, a tab in `tsv`; a first
    /// line `sep=;`, as Excel writes it, counts too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "character")]
    pub delimiter: Option<char>,
    /// The character of ASCII that a quoted value begins and ends with; within the value it is doubled. `"none"`: quotes
    /// are text, as in files whose writer never quotes. Default: `"\""`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^([!-~]|none)$"), extend("patternErrorMessage" = QUOTE))]
    pub quote: Option<String>,
    /// A character of ASCII that takes away the meaning of the one behind it: `"\\"` where a quote is written `\"`. The
    /// character behind it is taken as it is, so `\n` is an `n`. Default: none; quotes are doubled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "character")]
    pub escape: Option<char>,
    /// Lines that begin with this character of ASCII are passed over. Default: none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "character")]
    pub comment: Option<char>,
    /// Lines of a quoted value, at most: a quote that only looks like the start of a value takes in the rows below it.
    /// Default: 1 where tabs separate values, since line breaks are rare there; 10,000 elsewhere, where it is also an
    /// error if every value of more than one line reads as rows. Stated, the number alone counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub quoted_lines: Option<u64>,
    /// What to do with a row that does not fit the others: too few or too many values (empty ones at its end do not count),
    /// text behind a closing quote, a quote that is not closed or goes on for more lines than `quoted_lines`, the header
    /// once more. Default: an error; text that is lost without notice is worse.
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
    /// The stage fails and shows the place.
    #[default]
    Error,
    /// The row is left out, and counted.
    Skip,
}

impl BadRows {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

const QUOTE: &str = "a character of ASCII, or `none`";
const CHARACTER: &str = "one character of ASCII; `\"\\t\"` is a tab";

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnFormat {
    /// The column of strings that is the text (`article.text` is a field of a struct); lists of strings are joined.
    /// Default: the field's usual name.
    #[serde(default = "text_column")]
    #[schemars(length(min = 1))]
    pub column: String,
    /// Stands between the strings of a list. Default: our choice.
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

/// What files are compressed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Nothing.
    None,
    /// gzip, of any number of members.
    Gzip,
    /// zstd, of any number of frames.
    Zstd,
    /// bzip2, of any number of streams.
    Bzip2,
    /// xz, of any number of streams.
    Xz,
}

/// The treatment of bytes that are not UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvalidUtf8 {
    /// The stage fails and shows the place.
    #[default]
    Error,
    /// U+FFFD stands for each faulty sequence; the records are counted.
    Replace,
    /// The record is left out, and counted.
    Skip,
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// What is counted. Characters are counted over all records, and the first and last record of the range may be cut.
    pub unit: RangeUnit,
    /// The first, from 0. Default: from the start.
    #[serde(default)]
    pub from: u64,
    /// The one after the last. Default: to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// What a range counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RangeUnit {
    /// Records.
    Records,
    /// Characters (Unicode scalar values).
    Characters,
}

/// A rule set that turns a corpus' tokenized spelling into natural text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Detokenizer {
    /// Penn Treebank: contractions close up, `N` becomes `1`, `$ N` `$1`, `<unk>` `?`.
    Ptb,
    /// WikiText: ` @-@ `, ` @,@ `, ` @.@ `, punctuation, contractions, names (`O 'Reilly`), quotes, brackets, headings.
    Wikitext,
    /// One Billion Word: punctuation, contractions, names (`O 'Reilly`), quotes, brackets, `/`, `$` and `£`.
    Lm1b,
    /// LAMBADA: typographic quotes become plain; each text begins with a line break, as the authors' do.
    Lambada,
    /// Scientific papers: the rules of WikiText and One Billion Word.
    ScientificPapers,
}

/// Records to keep; of all conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Bytes of text, at least. Default: 1; empty records are dropped anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub min_bytes: Option<u64>,
    /// Bytes of text, at most. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_bytes: Option<u64>,
    /// A regular expression that the text matches somewhere (syntax of the Rust crate `regex`: time linear in the text).
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub matches: Option<String>,
    /// A regular expression that the text matches nowhere. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub excludes: Option<String>,
    /// Keeps the first of equal texts, compared by a 128-bit hash. Takes 16 bytes of memory and more a record. Default: what
    /// occurs twice was written twice.
    #[serde(default)]
    pub unique: bool,
}

/// Text drawn from a grammar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyntheticInput {
    /// The grammar file, relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub grammar: String,
    /// Records to draw; each is drawn from the grammar's start.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub records: u64,
    /// Seed of the draws. Default: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

fn character(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string",
        "pattern": r"^[\x01-\x09\x0B\x0C\x0E-\x7F]$",
        "patternErrorMessage": CHARACTER,
    })
}

fn corpus_names(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let names: Vec<_> = super::corpora::CORPORA.iter().map(|corpus| corpus.name).collect();
    let titles: Vec<_> = super::corpora::CORPORA
        .iter()
        .map(|corpus| corpus.title)
        .collect();
    schemars::json_schema!({ "type": "string", "enum": names, "enumDescriptions": titles })
}

macro_rules! defaults {
    ($($name:ident: $type:ty = $value:expr;)*) => { $(fn $name() -> $type { $value })* };
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
