//! The tokenize stage: records → tokens.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::files::{local, pin, remote};
use super::check::{StageEntry, Stages};
use super::{FileReference, ReferenceField, StageKind, StageSpec};
use crate::manifest::fault::{Code, Draft, alternatives};
use crate::manifest::reading::{RemoteFile, SHA256, URL};
use crate::manifest::vocabularies::{Family, PUBLISHED, Published};

/// Smallest vocabulary of a tokenizer trained on the records: 256 bytes, the special tokens and some merges.
pub(in crate::manifest) const MIN_TRAINED_VOCABULARY: u32 = 300;
/// Characters of text8: 26 letters and the space.
pub const TEXT8_ALPHABET: &str = " abcdefghijklmnopqrstuvwxyz";

/// Turns records into tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tokenize {
    /// Name of the source stage whose records are tokenized.
    pub from: String,
    /// The tokenizer: loaded, trained on these records, or taken from another stage.
    pub tokenizer: Tokenizer,
    /// Whether the text of a record may produce special tokens. This happens when the vocabulary has them as ordinary
    /// pieces or words (`</s>` of a Unigram). Special tokens are those with a role and all that the tokenizer marks as
    /// special, except the unknown token. Text that produces the mask token is always an error. Default: `refuse`, so
    /// that such a record is an error.
    #[serde(default, skip_serializing_if = "SpecialTokensInText::is_default")]
    pub special_tokens_in_text: SpecialTokensInText,
}

/// Whether the text of a record may produce special tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpecialTokensInText {
    /// A record whose text produces a special token is an error.
    #[default]
    Refuse,
    /// Special tokens are produced: the text `</s>` ends a document.
    Allow,
}

impl SpecialTokensInText {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::Refuse
    }
}

/// A tokenizer: loaded, trained on the records, or taken from another stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Tokenizer {
    /// A published tokenizer, by name. Its files are downloaded once, or read from `path`. `mdlm tokenizers` lists the
    /// names.
    Published(PublishedTokenizer),
    /// A Hugging Face `tokenizer.json` from `http(s)`, the Hugging Face hub (`hf://`) or a bucket (`s3://`, `gs://`,
    /// `az://`), downloaded once or read from `path`.
    Download(TokenizerDownload),
    /// A local Hugging Face `tokenizer.json`. Truncation, padding and dropout set in the file are switched off.
    File(TokenizerFile),
    /// GPT-2's byte-level BPE, from its vocabulary and merges files. BOS and EOS are `<|endoftext|>`; the mask token is
    /// appended (id 50,257).
    Gpt2(Gpt2Files),
    /// BERT's WordPiece, from its `vocab.txt`. BOS is `[CLS]`, EOS `[SEP]`, padding `[PAD]`, mask `[MASK]`. It
    /// normalizes white space, so bits per byte refer to the normalized text; they include the cost of spelling out the
    /// words that `[UNK]` replaces.
    Bert(BertFile),
    /// Trains a byte-level BPE on the records.
    TrainBpe(TrainTokenizer),
    /// Trains a WordPiece vocabulary on the records. As with `bert`, bits per byte refer to the normalized text.
    TrainWordpiece(TrainTokenizer),
    /// One token per character of a fixed alphabet, as for text8. Any other character is an error that shows its place.
    Characters(Characters),
    /// The tokenizer of another tokenize stage. Use it for text that a model is evaluated on but not trained on.
    Stage(TokenizerOfStage),
}

/// A published tokenizer, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishedTokenizer {
    /// Name of the tokenizer; `mdlm tokenizers` lists them.
    #[schemars(schema_with = "published_names")]
    pub name: String,
    /// Local copy of the tokenizer's files, relative to the manifest's folder: the folder that contains them
    /// (`vocab.json` and `merges.txt`, or `vocab.txt`), or one of them with the others beside it. They must have the
    /// published SHA-256. Default: the files are downloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub path: Option<String>,
}

/// A Hugging Face `tokenizer.json` to download.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizerDownload {
    /// `https://…`, `http://…`, `hf://OWNER/NAME@REVISION/tokenizer.json`, `s3://BUCKET/key`, `gs://BUCKET/key` or
    /// `az://CONTAINER/key`.
    #[schemars(regex(pattern = r"^(https?|hf|s3|gs|az)://.+"), extend("patternErrorMessage" = URL))]
    pub url: String,
    /// SHA-256 of the file, in hex. Required unless the URL names a commit or `unpinned` is true. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"), extend("patternErrorMessage" = SHA256))]
    pub sha256: Option<String>,
    /// Accepts any content at the first download and records its SHA-256; the file stays the same until it is
    /// downloaded again. Default: false, since unpinned content may differ between machines and must be allowed
    /// explicitly.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unpinned: bool,
    /// Local copy of the file, relative to the manifest's folder. If `sha256` is set, the file must match it. Default: the
    /// file is downloaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub path: Option<String>,
    /// Tokens of the special roles. A mask token that the vocabulary lacks is appended to it. Default: the usual names
    /// are tried; see each role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub special: Option<SpecialTokens>,
}

impl TokenizerDownload {
    /// The file as a source would download it.
    #[must_use]
    pub fn remote(&self) -> RemoteFile {
        RemoteFile {
            url: self.url.clone(),
            sha256: self.sha256.clone(),
            unpinned: self.unpinned,
            max_bytes: Some(MOST_BYTES),
            exclude: vec![],
        }
    }
}

/// Bytes of a downloaded `tokenizer.json`, at most: the largest in use (vocabularies of 256,000 tokens) take some 35 MB.
const MOST_BYTES: u64 = 1 << 28;

impl Tokenizer {
    /// Its files that are downloaded, by the field that names them; none if it is local.
    #[must_use]
    pub fn downloads(&self) -> Vec<(&'static str, RemoteFile)> {
        match self {
            Self::Published(config) if config.path.is_none() => {
                let files = Published::find(&config.name).map_or(&[][..], |published| published.files);
                files.iter().map(|file| (file.field, file.remote())).collect()
            }
            Self::Download(config) if config.path.is_none() => vec![("path", config.remote())],
            _ => vec![],
        }
    }
}

/// A Hugging Face `tokenizer.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizerFile {
    /// Path of the file, relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub path: String,
    /// Tokens of the special roles. A mask token that the vocabulary lacks is appended to it. Default: the usual names
    /// are tried; see each role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub special: Option<SpecialTokens>,
}

/// Tokens of the special roles; for a role that is left out, the usual names are tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpecialTokens {
    /// The token that begins a row. Default: the first of `[BOS]`, `<s>`, `[CLS]`, `<|endoftext|>` in the vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(title = "BOS")]
    pub bos: Option<String>,
    /// The token that ends a document. Default: the first of `[EOS]`, `</s>`, `[SEP]`, `<|endoftext|>` in the
    /// vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(title = "EOS")]
    pub eos: Option<String>,
    /// The token that fills up a padded row. Default: the first of `[PAD]`, `<pad>` in the vocabulary; else the EOS
    /// token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<String>,
    /// The token that replaces masked tokens (the absorbing state). Default: the first of `[MASK]`, `<mask>` in the
    /// vocabulary; else `[MASK]` is appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
}

/// GPT-2's byte-level BPE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gpt2Files {
    /// Path of `vocab.json` (OpenAI's `encoder.json`), relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub vocabulary: String,
    /// Path of `merges.txt` (OpenAI's `vocab.bpe`), relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub merges: String,
}

/// BERT's WordPiece.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BertFile {
    /// Path of `vocab.txt`, one token per line, relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub vocabulary: String,
    /// Converts text to lower case and strips accents. Default: the setting of bert-base-uncased, the tokenizer of the
    /// LM1B figures in arXiv 2406.07524.
    #[serde(default = "yes")]
    pub lowercase: bool,
}

/// Settings of a tokenizer trained on the records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainTokenizer {
    /// Number of tokens in the vocabulary, including the special ones. There are fewer if the text has too few
    /// different words.
    #[schemars(range(min = MIN_TRAINED_VOCABULARY, max = 1_000_000))]
    pub vocabulary_size: u32,
    /// Smallest number of occurrences at which a pair of tokens is merged. Default: as in Hugging Face's trainers of
    /// byte-level BPE and WordPiece.
    #[serde(default = "two")]
    #[schemars(range(min = 1))]
    pub min_frequency: u32,
    /// Converts the text to lower case first. Samples are then lower case too, and bits per byte refer to the
    /// lower-case text. Default: the text is not changed.
    #[serde(default)]
    pub lowercase: bool,
}

/// One token per character.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Characters {
    /// The characters, each once; four special tokens (BOS, EOS, padding, mask) are added. Default: the 27 characters
    /// of text8, the space and the letters.
    #[serde(default = "text8_alphabet")]
    #[schemars(length(min = 1))]
    pub alphabet: String,
}

/// The tokenizer of another stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizerOfStage {
    /// Name of the tokenize stage.
    pub stage: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) fn is_false(value: &bool) -> bool {
    !value
}

fn published_names(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let names: Vec<_> = PUBLISHED.iter().map(|published| published.name).collect();
    let titles: Vec<_> = PUBLISHED.iter().map(|published| published.title).collect();
    schemars::json_schema!({ "type": "string", "enum": names, "enumDescriptions": titles })
}

defaults! {
    yes: bool = true;
    two: u32 = 2;
    text8_alphabet: String = TEXT8_ALPHABET.to_owned();
}

impl StageSpec for Tokenize {
    const REFERENCES: &'static [ReferenceField<Self>] = &[
        ReferenceField {
            name: "from",
            expects: &[StageKind::Source],
            stage: |tokenize| Some(&tokenize.from),
        },
        ReferenceField {
            name: "tokenizer/stage",
            expects: &[StageKind::Tokenize],
            stage: |tokenize| match &tokenize.tokenizer {
                Tokenizer::Stage(other) => Some(&other.stage),
                _ => None,
            },
        },
    ];
    #[cfg(any(test, feature = "testing"))]
    const SMALLEST: (&'static str, &'static str) = (
        r#"{ "kind": "tokenize", "from": "a", "tokenizer": { "kind": "characters" } }"#,
        "tokenizer.alphabet tokenizer.kind",
    );

    fn files(&self) -> Vec<FileReference> {
        let one = FileReference::one;
        match &self.tokenizer {
            // Checked against the checksum; where there is none the content of what was brought by hand counts.
            Tokenizer::Download(download) => match (&download.path, &download.sha256) {
                (Some(path), None) => vec![one("tokenizer/path", path)],
                _ => vec![],
            },
            Tokenizer::File(file) => vec![one("tokenizer/path", &file.path)],
            Tokenizer::Gpt2(files) => vec![
                one("tokenizer/vocabulary", &files.vocabulary),
                one("tokenizer/merges", &files.merges),
            ],
            Tokenizer::Bert(file) => vec![one("tokenizer/vocabulary", &file.vocabulary)],
            // Published files are identified by their checksums, which are settings or known files.
            Tokenizer::Published(_)
            | Tokenizer::TrainBpe(_)
            | Tokenizer::TrainWordpiece(_)
            | Tokenizer::Characters(_)
            | Tokenizer::Stage(_) => vec![],
        }
    }

    fn check(&self, _stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        match &self.tokenizer {
            Tokenizer::Characters(characters) => alphabet(entry, &characters.alphabet, faults),
            Tokenizer::Download(download) => {
                pin(entry, &download.remote(), "tokenizer", faults);
                one_file(entry, download, faults);
                if let Some(path) = &download.path {
                    local(entry, "tokenizer/path", path, &leave_out(), faults);
                }
            }
            Tokenizer::Published(published) => {
                if let Some(path) = &published.path {
                    local(entry, "tokenizer/path", path, &leave_out(), faults);
                }
            }
            Tokenizer::File(file) => {
                local(entry, "tokenizer/path", &file.path, &download(&file.path), faults);
            }
            Tokenizer::Gpt2(files) => {
                let hint = published(|family| family == Family::Gpt2);
                local(entry, "tokenizer/vocabulary", &files.vocabulary, &hint, faults);
                local(entry, "tokenizer/merges", &files.merges, &hint, faults);
            }
            Tokenizer::Bert(file) => {
                let hint = published(|family| {
                    family
                        == Family::Bert {
                            lowercase: file.lowercase,
                        }
                });
                local(entry, "tokenizer/vocabulary", &file.vocabulary, &hint, faults);
            }
            Tokenizer::TrainBpe(_) | Tokenizer::TrainWordpiece(_) | Tokenizer::Stage(_) => {}
        }
    }
}

fn download(url: &str) -> String {
    format!(
        "use `\"tokenizer\": {{ \"kind\": \"download\", {} }}`, which downloads it once",
        remote(url)
    )
}

fn leave_out() -> String {
    "`path` takes a local copy; leave it out to download the file".to_owned()
}

/// The published tokenizers of a family, which need no files.
fn published(is_family: impl Fn(Family) -> bool) -> String {
    let names: Vec<_> = PUBLISHED
        .iter()
        .filter(|published| is_family(published.family))
        .map(|published| {
            format!(
                "`\"tokenizer\": {{ \"kind\": \"published\", \"name\": \"{}\" }}`",
                published.name
            )
        })
        .collect();
    format!(
        "use {}, which downloads its files once; for another tokenizer, use `\"kind\": \"download\"` with the `url` of its `tokenizer.json`",
        names.join(" or ")
    )
}

/// A tokenizer is one file.
fn one_file(entry: &StageEntry<'_>, download: &TokenizerDownload, faults: &mut Vec<Draft>) {
    let of_hub_or_bucket = !download.url.starts_with("http");
    if of_hub_or_bucket && download.url.contains(['*', '?', '[']) {
        faults.push(
            entry
                .fault(
                    Code::Pattern,
                    "tokenizer/url",
                    "a tokenizer is one file, but this URL is a glob",
                )
                .expected("the URL of one `tokenizer.json`"),
        );
    }
}

/// Repeated characters of an alphabet.
fn alphabet(entry: &StageEntry<'_>, alphabet: &str, faults: &mut Vec<Draft>) {
    let mut seen = HashSet::new();
    let mut twice: Vec<String> = alphabet
        .chars()
        .filter(|c| !seen.insert(*c))
        .map(|c| c.to_string())
        .collect();
    twice.dedup();
    if !twice.is_empty() {
        twice.truncate(10);
        let verb = if twice.len() == 1 { "is" } else { "are" };
        faults.push(
            entry
                .fault(
                    Code::Alphabet,
                    "tokenizer/alphabet",
                    format!(
                        "{} {verb} in the alphabet more than once",
                        alternatives(&twice).replace(" or ", " and ")
                    ),
                )
                .expected("every character once"),
        );
    }
}
