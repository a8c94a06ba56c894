//! What is wrong with the settings of a source.

use super::super::corpora::Corpus;
use super::super::fault::{Code, Draft, alternatives, quoted};
use super::super::source::{CsvFormat, Format, Reading, RemoteFile, Source, SourceInput, Spelling};
use super::Entry;
use super::tokenizer::{local, remote};
use crate::plural::counted;

/// Settings that do not apply to a synthetic source.
const FOR_FILES: [&str; 6] = ["range", "detokenize", "filter", "sample", "limit", "seed"];

/// Checks a source.
pub(super) fn source(entry: &Entry<'_>, stage: &Source, faults: &mut Vec<Draft>) {
    match &stage.input {
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
    selection(entry, stage, faults);
}

/// A download must be pinned or declared as unpinned.
pub(super) fn pin(entry: &Entry<'_>, file: &RemoteFile, object: &str, faults: &mut Vec<Draft>) {
    let field = |name: &str| format!("{object}/{name}");
    if file.sha256.is_some() && file.unpinned {
        faults.push(
            entry
                .fault(
                    Code::Pin,
                    &field("unpinned"),
                    "`unpinned` is true, but `sha256` pins the file",
                )
                .hint("leave `unpinned` out"),
        );
    } else if file.sha256.is_none() && !file.unpinned && !file.names_commit() {
        let mut fault = entry
            .fault(Code::Pin, &field("url"), "the content of the file is not pinned")
            .expected(
                "`sha256`, in hex, or `\"unpinned\": true` to accept any content and record its SHA-256",
            );
        if file.url.starts_with("hf://") {
            let kind = if file.url.starts_with("hf://datasets/") {
                "datasets/"
            } else {
                ""
            };
            fault = fault.hint(format!(
                "or name a commit: `hf://{kind}OWNER/NAME@COMMIT/path`, 40 hex digits"
            ));
        }
        faults.push(fault);
    }
}

/// Reports patterns that are not valid globs.
fn globs(entry: &Entry<'_>, field: &str, patterns: &[String], faults: &mut Vec<Draft>) {
    for (index, pattern) in patterns.iter().enumerate() {
        if let Err(error) = glob::Pattern::new(pattern) {
            let field = format!("input/{field}/{index}");
            faults.push(entry.fault(Code::Pattern, &field, format!("not a valid glob: {}", error.msg)));
        }
    }
}

fn reading(entry: &Entry<'_>, read: &Reading, faults: &mut Vec<Draft>) {
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
fn published(entry: &Entry<'_>, stage: &Source, faults: &mut Vec<Draft>) {
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

fn selection(entry: &Entry<'_>, stage: &Source, faults: &mut Vec<Draft>) {
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
