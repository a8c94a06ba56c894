//! The source stage: text → records. Where the text comes from, and how records are selected and changed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::files::{local, pin, remote};
use super::check::{StageEntry, Stages};
use super::{FileReference, StageSpec};
use crate::manifest::corpora::{Corpus, NamedCorpus};
use crate::manifest::detokenize::{Detokenization, Spelling};
use crate::manifest::fault::{Code, Draft, alternatives, quoted};
use crate::manifest::reading::{CsvFormat, EmptyRecords, Format, Range, Reading, RemoteFile};
use crate::plural::counted;

/// Settings that do not apply to a synthetic source.
const FOR_FILES: [&str; 7] = [
    "range",
    "detokenize",
    "empty_records",
    "filter",
    "sample",
    "limit",
    "seed",
];

/// Reads text and splits it into records.
///
/// Each record goes through these steps, in this order: `range` selects a part of the text as it was read, then
/// `detokenize`, `filter`, `sample`, `limit`. Empty records are dropped after every step, unless `empty_records` keeps
/// them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Origin of the text.
    pub input: SourceInput,
    /// Part of the text to use. Fixed ranges make splits that others can reproduce, such as the first 90 million
    /// characters of text8. Default: all of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<Range>,
    /// Turns the tokenized spelling of a corpus (`do n't`, `1 @,@ 000`) into natural text: a rule set, or a list of
    /// rule sets that are applied in that order. A name alone selects mdlm's rules; `{ "rules": "ptb", "as":
    /// "published" }` selects those of the authors of arXiv 2406.07524, for comparison with their figures. Default:
    /// none; for a named corpus, the rule set of that corpus in mdlm's version.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::manifest::detokenize::one_or_more"
    )]
    #[schemars(schema_with = "crate::manifest::detokenize::schema")]
    pub detokenize: Option<Vec<Detokenization>>,
    /// What to do with records of nothing but white space: blank lines, missing values, articles without text.
    /// Default: `drop`, since they hold no text; beside published rules `keep`, as the authors of arXiv 2406.07524 do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_records: Option<EmptyRecords>,
    /// Conditions that a record must meet to be kept. Default: all records are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Share of the records to keep. Whether a record is kept is drawn from the seed and the record's number. Default:
    /// all records are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: Option<f64>,
    /// Number of records to keep, from the first. Default: all records are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
    /// Whether the words of each record are counted, as it is read and before `detokenize`: what lies between ASCII white space,
    /// ends of lines left out. `evaluate` then gives the perplexity per word, as figures on Penn Treebank and WikiText have it.
    /// Default: our choice; without the count there is no perplexity per word.
    #[serde(default, skip_serializing_if = "is_off")]
    pub count_words: bool,
    /// Seed of the draws of `sample`. Default: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_off(flag: &bool) -> bool {
    !*flag
}

/// Origin of a source's text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceInput {
    /// Local files.
    Files(LocalFiles),
    /// Files from `http(s)`, the Hugging Face hub (`hf://`) or a bucket (`s3://`, `gs://`, `az://`), downloaded once.
    Download(Download),
    /// A well-known corpus, by name. Its files are downloaded once, or read from `files`. `mdlm corpora` lists the
    /// names.
    Corpus(NamedCorpus),
    /// Text sampled from a grammar whose exact entropy is known.
    Synthetic(SyntheticInput),
}

/// Local files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalFiles {
    /// Paths or globs (`*`, `?`, `[…]`, `**`), relative to the manifest's folder. They are read in the order given, the
    /// matches of a glob sorted by name. A file that occurs several times is read once, at its first place; links to
    /// the same file (device and inode) count as that file. `-` is standard input: a run stores what is piped in, and
    /// later runs without a pipe use the stored copy. Globs skip hidden files and folders (`.git`) unless the pattern
    /// writes the dot; system files (`__MACOSX/`, `._*`, `.DS_Store`, `_SUCCESS`, `Thumbs.db`) unless the pattern names
    /// them; results, reports and manifests of mdlm; pipes and devices. The summary counts what was skipped.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub files: Vec<String>,
    /// Paths or globs of files and folders to skip although `files` matches them, relative to the manifest's folder:
    /// `data/old`, `**/*.bak.txt`. A file that is skipped by its name is skipped under the names of all its links. A
    /// folder is not searched: a hard link outside of it to a file in it is read. To skip members of archives, use
    /// `exclude` in `read`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub exclude: Vec<String>,
    /// How the files are read. Default: format and compression are recognized by name and content.
    #[serde(default)]
    pub read: Reading,
}

/// Files to download.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// Files to download, read in this order.
    #[schemars(length(min = 1))]
    pub files: Vec<RemoteFile>,
    /// How the files are read. Default: format and compression are recognized by name and content.
    #[serde(default)]
    pub read: Reading,
}

/// Conditions for records to keep; a record must meet all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Smallest size of a record's text, in bytes. Default: no limit; `empty_records` decides about empty records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub min_bytes: Option<u64>,
    /// Largest size of a record's text, in bytes. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_bytes: Option<u64>,
    /// Regular expression that must match somewhere in the text (syntax of the Rust crate `regex`; matching takes time
    /// linear in the text). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub matches: Option<String>,
    /// Regular expression that must match nowhere in the text. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub excludes: Option<String>,
    /// Keeps only the first of records with equal text, compared by a 128-bit hash. It needs a little more than 16
    /// bytes of memory per record. Default: repeated text is kept.
    #[serde(default)]
    pub unique: bool,
}

/// Text sampled from a grammar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyntheticInput {
    /// Path of the grammar file, relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub grammar: String,
    /// Number of records to sample, each from the grammar's start symbol.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub records: u64,
    /// Seed of the random draws. Default: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

impl Source {
    /// What is done with empty records: what the manifest says, else what the version of the rules implies.
    #[must_use]
    pub fn empty(&self) -> EmptyRecords {
        let rules = self.detokenize.as_deref().unwrap_or_default();
        let published = rules.iter().any(|rules| rules.spelling == Spelling::Published);
        self.empty_records.unwrap_or(if published {
            EmptyRecords::Keep
        } else {
            EmptyRecords::Drop
        })
    }
}

impl StageSpec for Source {
    /// Limits on what is read: what is beyond them fails. Files that are left out are not read, and what is read is in the key
    /// by its content.
    const NOT_IN_KEY: &'static [&'static str] = &[
        "input/read/longest_record",
        "input/read/largest_ratio",
        "input/read/largest_buffer",
        "input/exclude",
    ];
    #[cfg(any(test, feature = "testing"))]
    const SMALLEST: (&'static str, &'static str) = (
        r#"{ "kind": "source", "input": { "kind": "files", "files": ["*.txt"] } }"#,
        "input.kind input.read.invalid_utf8",
    );

    fn seed(&self) -> Option<u64> {
        match &self.input {
            SourceInput::Synthetic(input) => input.seed.or(self.seed),
            _ => self.seed,
        }
    }

    fn is_random(&self) -> bool {
        matches!(self.input, SourceInput::Synthetic(_)) || self.sample.is_some_and(|share| share < 1.0)
    }

    fn files(&self) -> Vec<FileReference> {
        match &self.input {
            SourceInput::Files(input) => vec![FileReference {
                field: "input/files",
                patterns: input.files.clone(),
                exclude: input.exclude.clone(),
                takes_pipes: true,
                takes_folders: false,
            }],
            SourceInput::Synthetic(input) => vec![FileReference::one("input/grammar", &input.grammar)],
            // Identified by their checksums, which are settings.
            SourceInput::Download(_) => vec![],
            SourceInput::Corpus(corpus) => match corpus.resolve() {
                // Files brought by hand are checked against the checksums; where there is none their content counts.
                Some(resolved)
                    if !corpus.files.is_empty()
                        && resolved.files.iter().any(|file| file.sha256.is_none()) =>
                {
                    vec![FileReference {
                        field: "input/files",
                        patterns: corpus.files.clone(),
                        exclude: vec![],
                        takes_pipes: false,
                        takes_folders: false,
                    }]
                }
                _ => vec![],
            },
        }
    }

    fn check(&self, _stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        match &self.input {
            SourceInput::Files(input) => {
                for (index, path) in input.files.iter().enumerate() {
                    let hint = format!(
                        "use `\"input\": {{ \"kind\": \"download\", \"files\": [{{ {} }}] }}`, which downloads it once",
                        remote(path)
                    );
                    local(entry, &format!("input/files/{index}"), path, &hint, faults);
                }
                globs(entry, "exclude", &input.exclude, faults);
                reading(entry, &input.read, faults);
            }
            SourceInput::Download(input) => {
                reading(entry, &input.read, faults);
                for (index, file) in input.files.iter().enumerate() {
                    pin(entry, file, &format!("input/files/{index}"), faults);
                    let field = format!("files/{index}/exclude");
                    globs(entry, &field, &file.exclude, faults);
                    if !file.exclude.is_empty() && !file.is_glob() {
                        let message = "`exclude` has no effect: `url` names a single file";
                        faults.push(
                            entry
                                .fault(Code::NoEffect, &format!("input/{field}"), message)
                                .hint(
                                    "leave `exclude` out; to skip members of an archive, use `exclude` in `read`",
                                ),
                        );
                    }
                }
            }
            SourceInput::Corpus(input) => {
                for (index, path) in input.files.iter().enumerate() {
                    let hint = "`files` takes local copies; leave it out to download the corpus";
                    local(entry, &format!("input/files/{index}"), path, hint, faults);
                }
                let Some(corpus) = Corpus::find(&input.corpus) else {
                    return; // the schema check reports it
                };
                if corpus.part(input.split).is_none() {
                    let names: Vec<_> = corpus.parts.iter().map(|part| part.split.name()).collect();
                    let message = format!("{} has no `{}` split", quoted(&input.corpus), input.split.name());
                    let field = if entry.has("input/split") {
                        "input/split"
                    } else {
                        "input/corpus"
                    };
                    faults.push(
                        entry
                            .fault(Code::Corpus, field, message)
                            .expected(format!("`split`: {}", alternatives(&names))),
                    );
                }
            }
            SourceInput::Synthetic(input) => {
                let hint = "download the grammar first, and write the path of the file";
                local(entry, "input/grammar", &input.grammar, hint, faults);
                for field in FOR_FILES.into_iter().filter(|field| entry.has(field)) {
                    let hint = match field {
                        "limit" => "set `records` in `input` to the number of records",
                        "seed" => "set `seed` in `input`",
                        "empty_records" => "leave it out: every record of the grammar is kept",
                        _ => "change the grammar instead",
                    };
                    faults.push(
                        entry
                            .fault(
                                Code::NoEffect,
                                field,
                                format!("{} does not apply to a synthetic source", quoted(field)),
                            )
                            .hint(hint),
                    );
                }
                return;
            }
        }
        selection(entry, self, faults);
    }
}

/// Reports patterns that are not valid globs.
fn globs(entry: &StageEntry<'_>, field: &str, patterns: &[String], faults: &mut Vec<Draft>) {
    for (index, pattern) in patterns.iter().enumerate() {
        if let Err(error) = glob::Pattern::new(pattern) {
            let field = format!("input/{field}/{index}");
            faults.push(entry.fault(Code::Pattern, &field, format!("not a valid glob: {}", error.msg)));
        }
    }
}

fn reading(entry: &StageEntry<'_>, read: &Reading, faults: &mut Vec<Draft>) {
    globs(entry, "read/members", &read.members, faults);
    globs(entry, "read/exclude", &read.exclude, faults);
    match &read.format {
        Some(Format::JsonLines(format)) if !(format.field.is_empty() || format.field.starts_with('/')) => {
            // Other programs write `.article.text` or `$.article.text`.
            let names = format.field.trim_start_matches(['$', '.']).replace('.', "/");
            let hint = if names.is_empty() {
                "write an empty string if the value itself is the text".to_owned()
            } else {
                format!("did you mean `/{names}`?")
            };
            faults.push(
                entry
                    .fault(
                        Code::Pattern,
                        "input/read/format/field",
                        format!("{} is not a JSON pointer", quoted(&format.field)),
                    )
                    .expected("an empty string, or names that each follow a `/`: `/text`, `/article/0`")
                    .hint(hint),
            );
        }
        Some(
            Format::Csv(CsvFormat {
                columns,
                header: false,
                ..
            })
            | Format::Tsv(CsvFormat {
                columns,
                header: false,
                ..
            }),
        ) => {
            for (index, column) in columns.iter().enumerate() {
                if !column.parse::<u32>().is_ok_and(|number| number > 0) {
                    let field = format!("input/read/format/columns/{index}");
                    let message = format!(
                        "there is no column {}: without a header, columns have only numbers",
                        quoted(column)
                    );
                    faults.push(
                        entry
                            .fault(Code::Pattern, &field, message)
                            .expected("a column's number from 1, for example `\"1\"`"),
                    );
                }
            }
        }
        _ => {}
    }
}

/// Published rules are for figures that are compared with published ones: a source must use all of its corpus' published
/// rules, and no others.
fn published(entry: &StageEntry<'_>, stage: &Source, faults: &mut Vec<Draft>) {
    let all = stage.detokenize.as_deref().unwrap_or_default();
    let is_published = |spelling| spelling == Spelling::Published;
    if !all.iter().any(|one| is_published(one.spelling)) {
        return;
    }
    if !all.iter().all(|one| is_published(one.spelling)) {
        faults.push(
            entry
                .fault(
                    Code::Detokenize,
                    "detokenize",
                    "published rules are mixed with mdlm's rules, so the text matches neither",
                )
                .expected("`\"as\": \"published\"` for every rule set or for none"),
        );
        return;
    }
    let SourceInput::Corpus(input) = &stage.input else {
        return;
    };
    let Some(part) = Corpus::find(&input.corpus).and_then(|corpus| corpus.part(input.split)) else {
        return;
    };
    if all
        .iter()
        .map(|one| one.rules)
        .eq(part.detokenize.iter().copied())
    {
        return;
    }
    let message = format!(
        "the published figures on {} were made with other rules",
        quoted(&input.corpus)
    );
    let fault = entry.fault(Code::Detokenize, "detokenize", message);
    let names: Vec<String> = part
        .detokenize
        .iter()
        .filter_map(|rules| serde_json::to_string(rules).ok())
        .map(|name| format!("{{ \"rules\": {name}, \"as\": \"published\" }}"))
        .collect();
    faults.push(if names.is_empty() {
        fault.hint("leave `detokenize` out: the authors use this corpus unchanged")
    } else {
        fault.expected(names.join(", "))
    });
}

fn selection(entry: &StageEntry<'_>, stage: &Source, faults: &mut Vec<Draft>) {
    published(entry, stage, faults);
    if let Some(range) = &stage.range
        && let Some(to) = range.to
        && range.from >= to
    {
        let message = format!("the range from {} to {to} is empty", range.from);
        faults.push(
            entry
                .fault(Code::NothingLeft, "range", message)
                .expected("`from` below `to`"),
        );
    }
    if let Some(filter) = &stage.filter {
        if let (Some(min), Some(max)) = (filter.min_bytes, filter.max_bytes)
            && min > max
        {
            let message = format!(
                "no record has at least {min} and at most {}",
                counted(max, "byte")
            );
            faults.push(entry.fault(Code::NothingLeft, "filter", message));
        }
        for (name, expression) in [("matches", &filter.matches), ("excludes", &filter.excludes)] {
            if let Some(expression) = expression
                && let Err(error) = regex::Regex::new(expression)
            {
                // The crate's message repeats the expression over several lines; the last one says what is wrong.
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim();
                let reason = last.strip_prefix("error: ").unwrap_or(last);
                let field = format!("filter/{name}");
                faults.push(
                    entry
                        .fault(Code::Pattern, &field, format!("invalid regular expression: {reason}"))
                        .hint("the syntax is that of the Rust crate `regex`; in JSON, write each backslash twice"),
                );
            }
        }
    }
    if stage.sample == Some(0.0) {
        faults.push(
            entry
                .fault(Code::NothingLeft, "sample", "a share of 0 keeps no records")
                .expected("a share above 0"),
        );
    }
    if entry.has("seed") && stage.sample.is_none() {
        faults.push(
            entry
                .fault(Code::NoEffect, "seed", "`seed` has no effect without `sample`")
                .hint("leave `seed` out, or set `sample`"),
        );
    }
}
